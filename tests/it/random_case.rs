//! Random cases of any kind, and a plain statement of the forward equations that tells
//! how near they come to a kink (where a derivative jumps).

use hebbian::model::{
    Activation, AlphaSharing, Episodes, Loss, Network, Parameters, Rule, Shape, Sharing, Signals,
    Stages, Tensor,
};
use hebbian::random::{Purpose, Stream};

/// Everything that decides a case but its numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) rule: Rule,
    pub(crate) activation: Activation,
    pub(crate) loss: Loss,
    pub(crate) alpha: AlphaSharing,
    pub(crate) eta: Sharing,
    pub(crate) clip: Option<f64>,
    pub(crate) clamped: bool,
    pub(crate) recurrent: bool,
    /// y0, h0 and e0 given.
    pub(crate) start: bool,
}

/// The decaying rule with nothing special about it.
pub(crate) const PLAIN: Kind = Kind {
    rule: Rule::Decay,
    activation: Activation::Tanh,
    loss: Loss::Squared,
    alpha: AlphaSharing::PerConnection,
    eta: Sharing::PerNetwork,
    clip: None,
    clamped: false,
    recurrent: true,
    start: false,
};

/// (P, B, T, M, N); M counts for feed-forward layers only.
pub(crate) type Size = (usize, usize, usize, usize, usize);

/// A case in f64 whose numbers all have few enough digits for f32.
pub(crate) struct RandomCase {
    pub(crate) network: Network,
    pub(crate) parameters: Parameters<f64>,
    pub(crate) episodes: Episodes<f64>,
}

impl RandomCase {
    pub(crate) fn new(kind: &Kind, (p, b, t, m, n): Size, stream: &mut Stream) -> Self {
        let m = if kind.recurrent { n } else { m };
        let network = Network {
            n_networks: p,
            n_pre: m,
            n_post: n,
            recurrent: kind.recurrent,
            rule: kind.rule,
            activation: kind.activation,
            loss: kind.loss,
            clip: kind.clip,
            alpha: kind.alpha,
            eta: kind.eta,
            stages: Stages::default(),
        };
        let mut normal = |size: f64| f64::from((size * stream.normal()) as f32);
        let scale = 0.5 / (m as f64).sqrt();
        let mut parameters = Parameters::<f64>::zeros(&network);
        for k in 0..p {
            for tensor in Tensor::ALL {
                for value in parameters.get_mut(k, tensor) {
                    *value = match tensor {
                        Tensor::W | Tensor::Alpha => normal(scale),
                        Tensor::Eta => f64::from(0.5f32 * (1.0 + (normal(1.0) as f32).tanh())),
                        Tensor::ModW => normal(1.0 / (n as f64).sqrt()),
                        Tensor::ModB | Tensor::FanoutW | Tensor::FanoutB => normal(0.4),
                        _ => unreachable!("networks that are a core alone"),
                    };
                }
            }
        }
        let total = p * b;
        let mut normals = |len: usize, size: f64| -> Vec<f64> {
            (0..len).map(|_| f64::from((size * stream.normal()) as f32)).collect()
        };
        let mut stimuli = normals(total * t * n, 1.0);
        let pre = (!kind.recurrent).then(|| normals(total * t * m, 1.0));
        let y0 = (kind.start && kind.recurrent).then(|| normals(total * n, 0.5));
        let h0 = kind.start.then(|| normals(total * m * n, 0.4));
        let e0 = kind.start.then(|| normals(total * m * n, 0.4));
        let mut targets = normals(total * t * n, 1.0);
        let mut uniform = |len: usize| -> Vec<f64> {
            (0..len).map(|_| f64::from(stream.uniform() as f32)).collect()
        };
        let clamps = kind.clamped.then(|| {
            uniform(total * t * n)
                .iter()
                .map(|&u| f64::from(u8::from(u < 0.35)))
                .collect::<Vec<_>>()
        });
        if kind.loss != Loss::Squared {
            targets = uniform(total * t * n);
            // a clamped output enters a logarithm as it is
            let inside = uniform(total * t * n);
            for (k, clamp) in clamps.iter().flatten().enumerate() {
                if *clamp == 1.0 {
                    stimuli[k] = f64::from((0.1 + 0.8 * inside[k]) as f32);
                }
            }
        }
        let keep = uniform(total * t * n);
        let loss_weights = uniform(total * t * n)
            .iter()
            .zip(keep)
            .map(|(&w, keep)| if keep < 0.7 { w } else { 0.0 })
            .collect();
        let every_step: Vec<u32> = (0..total).flat_map(|_| 0..t as u32).collect();
        let shape =
            Shape { n_batch: b, n_steps: t, n_stimuli: t, n_targets: t, clamped: kind.clamped };
        let episodes = Episodes {
            shape,
            stimuli,
            clamps,
            shown: every_step.clone(),
            targets,
            loss_weights,
            scored: every_step,
            pre,
            y0,
            h0,
            e0,
            signals: Signals::default(),
        };
        RandomCase { network, parameters, episodes }
    }

    /// The distance of the nearest kink: of a relu's z from 0, of an unclipped trace from
    /// the clip's bound. 0 for a network that blows up: no two engines agree on chaos.
    pub(crate) fn kink_distance(&self) -> f64 {
        let net = &self.network;
        let (m, n) = (net.n_pre, net.n_post);
        let s = &self.episodes.shape;
        let mut nearest = f64::INFINITY;
        for e in 0..net.n_networks * s.n_batch {
            let p = e / s.n_batch;
            let get = |tensor| self.parameters.get(p, tensor);
            let (w, alpha, eta) = (get(Tensor::W), get(Tensor::Alpha), get(Tensor::Eta));
            let alpha = |i: usize, j: usize| match net.alpha {
                AlphaSharing::PerConnection => alpha[i * n + j],
                AlphaSharing::PerNeuron => alpha[j],
                AlphaSharing::PerNetwork => alpha[0],
            };
            let eta = |j: usize| eta[j.min(eta.len() - 1)];
            let start = |table: &Option<Vec<f64>>, len: usize| {
                table.as_ref().map_or(vec![0.0; len], |v| v[e * len..(e + 1) * len].to_vec())
            };
            let mut y = start(&self.episodes.y0, n);
            let (mut h, mut e_trace) =
                (start(&self.episodes.h0, m * n), start(&self.episodes.e0, m * n));
            for t in 0..s.n_steps {
                let row = (e * s.n_steps + t) * n;
                let u = &self.episodes.stimuli[row..row + n];
                let x = match &self.episodes.pre {
                    Some(pre) => pre[(e * s.n_steps + t) * m..][..m].to_vec(),
                    None => y.clone(),
                };
                let z: Vec<f64> = (0..n)
                    .map(|j| {
                        let sum = |i: usize| x[i] * (w[i * n + j] + alpha(i, j) * h[i * n + j]);
                        u[j] + (0..m).map(sum).sum::<f64>()
                    })
                    .collect();
                let clamp = self.episodes.clamps.as_ref().map(|c| &c[row..row + n]);
                let total: f64 = z.iter().map(|z| z.exp()).sum();
                y = (0..n)
                    .map(|j| {
                        if clamp.is_some_and(|c| c[j] == 1.0) {
                            return u[j];
                        }
                        match net.activation {
                            Activation::Tanh => z[j].tanh(),
                            Activation::Sigmoid => 1.0 / (1.0 + (-z[j]).exp()),
                            Activation::Relu => {
                                nearest = nearest.min(z[j].abs());
                                z[j].max(0.0)
                            }
                            Activation::Linear => z[j],
                            Activation::Softmax => z[j].exp() / total,
                            other => {
                                let mut y = [0.0];
                                other.apply(&[z[j]], &mut y);
                                y[0]
                            }
                        }
                    })
                    .collect();
                if !y.iter().all(|y| y.abs() < 20.0) {
                    return 0.0;
                }
                let signal = if net.rule.uses_modulator() {
                    let k = get(Tensor::ModW);
                    (k.iter().zip(&y).map(|(k, y)| k * y).sum::<f64>() + get(Tensor::ModB)[0])
                        .tanh()
                } else {
                    0.0
                };
                for i in 0..m {
                    for j in 0..n {
                        let k = i * n + j;
                        let xy = x[i] * y[j];
                        let modulation =
                            || get(Tensor::FanoutW)[j] * signal + get(Tensor::FanoutB)[j];
                        let next = match net.rule {
                            Rule::None => continue,
                            Rule::Decay => (1.0 - eta(j)) * h[k] + eta(j) * xy,
                            Rule::Oja => h[k] + eta(j) * y[j] * (x[i] - y[j] * h[k]),
                            Rule::Modulated => h[k] + modulation() * xy,
                            Rule::Retroactive => h[k] + modulation() * e_trace[k],
                            Rule::Custom => unreachable!("no text is drawn"),
                        };
                        if net.rule == Rule::Retroactive {
                            e_trace[k] = (1.0 - eta(j)) * e_trace[k] + eta(j) * xy;
                        }
                        h[k] = match net.clip {
                            Some(clip) => {
                                nearest = nearest.min((next.abs() - clip).abs());
                                next.clamp(-clip, clip)
                            }
                            None => next,
                        };
                    }
                }
            }
        }
        nearest
    }

    /// Draws cases of this kind until one keeps its distance from every kink.
    pub(crate) fn away_from_kinks(
        kind: &Kind,
        size: Size,
        distance: f64,
        stream: &mut Stream,
    ) -> Self {
        loop {
            let case = Self::new(kind, size, stream);
            if case.kink_distance() > distance {
                return case;
            }
        }
    }

    /// The same case in f32, exactly.
    pub(crate) fn single(&self) -> (Parameters<f32>, Episodes<f32>) {
        let narrow = |values: &Vec<f64>| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let mut parameters = Parameters::zeros(&self.network);
        for (to, &from) in parameters.values_mut().iter_mut().zip(self.parameters.values()) {
            *to = from as f32;
        }
        parameters.mask = narrow(&self.parameters.mask);
        let e = &self.episodes;
        let episodes = Episodes {
            shape: e.shape,
            stimuli: narrow(&e.stimuli),
            clamps: e.clamps.as_ref().map(narrow),
            shown: e.shown.clone(),
            targets: narrow(&e.targets),
            loss_weights: narrow(&e.loss_weights),
            scored: e.scored.clone(),
            pre: e.pre.as_ref().map(narrow),
            y0: e.y0.as_ref().map(narrow),
            h0: e.h0.as_ref().map(narrow),
            e0: e.e0.as_ref().map(narrow),
            signals: e.signals.map(|v| narrow(v)),
        };
        (parameters, episodes)
    }
}

/// A stream for a test.
pub(crate) fn stream(seed: u64) -> Stream {
    Stream::new(seed, Purpose::Training, 0, 0)
}
