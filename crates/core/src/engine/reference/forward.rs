//! An episode forward.

use super::{Episode, Found};
use crate::model::loss::Scored;
use crate::model::{Activation, Leak, NO_ROW, Tensor};
use crate::rule::Name;

/// A step as it was, for the backward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    /// y(t-1), v(t-1).
    pub(super) y_before: Vec<f64>,
    pub(super) v_before: Vec<f64>,
    pub(super) x: Vec<f64>,
    pub(super) z: Vec<f64>,
    /// What the activation is applied to, its value and its slope (of softmax: none).
    pub(super) argument: Vec<f64>,
    pub(super) a: Vec<f64>,
    pub(super) slopes: Vec<f64>,
    pub(super) y: Vec<f64>,
    pub(super) r: Vec<f64>,
    /// tanh(mod.w y + mod.b).
    pub(super) signal: f64,
    pub(super) m: Vec<f64>,
    pub(super) out: Vec<f64>,
    /// Before the step.
    pub(super) traces: Vec<Vec<f64>>,
    pub(super) post: Vec<Vec<f64>>,
    pub(super) pre: Vec<Vec<f64>>,
    /// dL/d argument (with a rate leak dL/dy) of the loss on y, dL/dy where clamped, dL/dout; of the
    /// sum over steps, not averaged.
    pub(super) seed: Vec<f64>,
    pub(super) seed_clamped: Vec<f64>,
    pub(super) seed_out: Vec<f64>,
}

/// What goes from step to step.
#[derive(Clone, Debug)]
struct Now {
    y: Vec<f64>,
    v: Vec<f64>,
    traces: Vec<Vec<f64>>,
    post: Vec<Vec<f64>>,
    pre: Vec<Vec<f64>>,
}

impl Episode<'_> {
    /// What the steps gave, and the steps themselves where a backward pass is to follow.
    pub(super) fn forward(&self, keep: bool) -> (Vec<Step>, Found) {
        let start = self.start();
        let mut now = start.clone();
        let (mut steps, mut y, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let mut loss = 0.0;
        for t in 0..self.episodes.shape.n_steps {
            if self.resets(t) {
                now = start.clone();
            }
            let (step, term) = self.step(t, &mut now);
            loss += term;
            y.extend_from_slice(&step.y);
            out.extend_from_slice(&step.out);
            if keep {
                steps.push(step);
            }
        }
        let found = Found {
            loss,
            y,
            out,
            v: now.v,
            traces: now.traces,
            post: now.post,
            pre: now.pre,
            gradients: None,
        };
        (steps, found)
    }

    /// As it is before the first step.
    fn start(&self) -> Now {
        let network = self.network();
        let (m, n) = (network.n_pre, network.n_post);
        let episodes = self.episodes;
        let program = &self.model.program;
        let or = |list: &[f64], len: usize, value: f64| {
            if list.is_empty() { vec![value; len] } else { list.to_vec() }
        };
        let given = |k: usize, len: usize| {
            let list = episodes.signals.rule0.get(k).and_then(Option::as_ref);
            self.part(list, len)
        };
        let mut traces = vec![or(self.part(episodes.h0.as_ref(), m * n), m * n, 0.0)];
        let n_others = program.traces().len() - 1;
        for k in 0..n_others {
            let list = match network.stages.rule {
                Some(_) => given(k, m * n),
                None => self.part(episodes.e0.as_ref(), m * n),
            };
            traces.push(or(list, m * n, 0.0));
        }
        let post = program.post().iter().enumerate();
        let pre = program.pre().iter().enumerate();
        let n_post = program.post().len();
        let leaks = matches!(network.stages.leak, Some((Leak::Membrane, _)));
        Now {
            y: or(self.part(episodes.y0.as_ref(), n), n, 0.0),
            v: or(self.part(episodes.signals.v0.as_ref(), n), if leaks { n } else { 0 }, 0.0),
            traces,
            post: post.map(|(k, s)| or(given(n_others + k, n), n, s.start)).collect(),
            pre: pre.map(|(k, s)| or(given(n_others + n_post + k, m), m, s.start)).collect(),
        }
    }

    /// One step; returns its loss, not averaged.
    fn step(&self, t: usize, now: &mut Now) -> (Step, f64) {
        let network = self.network();
        let (m, n, t_all) = (network.n_pre, network.n_post, self.episodes.shape.n_steps);
        let mut step = Step {
            y_before: now.y.clone(),
            v_before: now.v.clone(),
            traces: now.traces.clone(),
            post: now.post.clone(),
            pre: now.pre.clone(),
            ..Step::default()
        };
        step.x = match &self.episodes.pre {
            Some(pre) => pre[(self.e * t_all + t) * m..][..m].to_vec(),
            None => now.y.clone(),
        };
        let h = &step.traces[0];
        let (w, alpha) = (self.get(Tensor::W), self.get(Tensor::Alpha));
        step.z = self.input(t).to_vec();
        step.r = vec![0.0; n];
        for (i, &x) in step.x.iter().enumerate() {
            for j in 0..n {
                let k = i * n + j;
                let effective = w[k] + alpha[self.model.alpha_at(i, j)] * h[k];
                step.z[j] += x * self.mask(k) * effective;
                step.r[j] += x * h[k];
            }
        }
        if network.stages.bias.is_some() {
            (0..n).for_each(|j| step.z[j] += self.of_neuron(Tensor::Bias, j));
        }
        if let Some(layer) = network.stages.input {
            let observed = self.part(self.episodes.signals.observed.as_ref(), t_all * layer.size);
            let (in_w, in_b) = (self.get(Tensor::InW), self.get(Tensor::InB));
            for j in 0..n {
                for (k, &value) in observed[t * layer.size..][..layer.size].iter().enumerate() {
                    step.z[j] += value * in_w[k * n + j];
                }
                step.z[j] += in_b.get(j).copied().unwrap_or(0.0);
            }
        }
        self.activate(t, now, &mut step);
        if network.has_modulator() {
            let read: f64 = self.get(Tensor::ModW).iter().zip(&step.y).map(|(w, y)| w * y).sum();
            step.signal = (read + self.get(Tensor::ModB)[0]).tanh();
        }
        step.m = (0..n).map(|j| self.modulation(t, j, step.signal)).collect();
        self.learn(&step, now);
        if let Some(layer) = network.stages.output {
            let (out_w, out_b) = (self.get(Tensor::OutW), self.get(Tensor::OutB));
            let one = |o: usize| -> f64 {
                let sum: f64 = (0..n).map(|j| step.y[j] * out_w[j * layer.size + o]).sum();
                sum + out_b.get(o).copied().unwrap_or(0.0)
            };
            step.out = (0..layer.size).map(one).collect();
        }
        now.y.clone_from(&step.y);
        let loss = self.score(t, &mut step);
        (step, loss)
    }

    /// y from z.
    fn activate(&self, t: usize, now: &mut Now, step: &mut Step) {
        let network = self.network();
        let n = network.n_post;
        let k = |j: usize| self.of_neuron(Tensor::Leak, j);
        step.argument = match network.stages.leak {
            Some((Leak::Membrane, _)) => {
                now.v = (0..n).map(|j| (1.0 - k(j)) * now.v[j] + k(j) * step.z[j]).collect();
                now.v.clone()
            }
            _ => step.z.clone(),
        };
        step.a = vec![0.0; n];
        step.slopes = vec![1.0; n];
        if network.activation == Activation::Softmax {
            network.activation.apply(&step.argument, &mut step.a);
        } else {
            let (a, slopes) = (&mut step.a, &mut step.slopes);
            network.activation.apply_with_slopes(&step.argument, a, slopes);
        }
        step.y = match network.stages.leak {
            Some((Leak::Rate, _)) => {
                (0..n).map(|j| (1.0 - k(j)) * step.y_before[j] + k(j) * step.a[j]).collect()
            }
            _ => step.a.clone(),
        };
        for j in (0..n).filter(|&j| self.clamped(t, j)) {
            step.y[j] = self.input(t)[j];
        }
    }

    /// m_j.
    fn modulation(&self, t: usize, j: usize, signal: f64) -> f64 {
        let network = self.network();
        let n = network.n_post;
        let given = self.episodes.signals.m.as_ref().map_or(0.0, |m| {
            let at = self.e * self.episodes.shape.n_steps + t;
            let total = network.n_networks * self.episodes.shape.n_batch;
            if m.len() == total * self.episodes.shape.n_steps { m[at] } else { m[at * n + j] }
        });
        if !network.has_modulator() {
            return given;
        }
        self.get(Tensor::FanoutW)[j] * signal + self.get(Tensor::FanoutB)[j] + given
    }

    /// The rule: all traces and variables at once.
    fn learn(&self, step: &Step, now: &mut Now) {
        let (m, n) = (self.network().n_pre, self.network().n_post);
        let rule = &self.model.rule;
        let mut scratch = Vec::new();
        let mut next = vec![0.0; now.traces.len()];
        for i in 0..m {
            for j in 0..n {
                let value = |name: Name| self.value(step, i, j, name);
                rule.traces.run(&mut scratch, value, &mut next);
                now.traces.iter_mut().zip(&next).for_each(|(trace, &v)| trace[i * n + j] = v);
            }
        }
        let mut next = vec![0.0; now.post.len()];
        for j in 0..n {
            rule.post.run(&mut scratch, |name| self.value(step, 0, j, name), &mut next);
            now.post.iter_mut().zip(&next).for_each(|(variable, &v)| variable[j] = v);
        }
        let mut next = vec![0.0; now.pre.len()];
        for i in 0..m {
            rule.pre.run(&mut scratch, |name| self.value(step, i, 0, name), &mut next);
            now.pre.iter_mut().zip(&next).for_each(|(variable, &v)| variable[i] = v);
        }
    }

    /// The loss of a step, and where its gradient starts.
    fn score(&self, t: usize, step: &mut Step) -> f64 {
        let network = self.network();
        let (n, shape) = (network.n_post, &self.episodes.shape);
        step.seed = vec![0.0; n];
        step.seed_clamped = vec![0.0; n];
        let mut loss = 0.0;
        let row = self.episodes.scored[self.e * shape.n_steps + t];
        if !network.stages.cotangents && row != NO_ROW {
            let at = (self.e * shape.n_targets + row as usize) * n;
            let clamp: Vec<f64> = (0..n).map(|j| f64::from(u8::from(self.clamped(t, j)))).collect();
            // with a rate leak y is no function of z alone
            let rate = matches!(network.stages.leak, Some((Leak::Rate, _)));
            let ones = vec![1.0; n];
            let scored = Scored {
                z: if rate { &step.y } else { &step.argument },
                y: &step.y,
                clamp: Some(&clamp),
                target: &self.episodes.targets[at..][..n],
                weight: &self.episodes.loss_weights[at..][..n],
                slopes: if rate { &ones } else { &step.slopes },
            };
            let activation = if rate { Activation::Linear } else { network.activation };
            let (seed, clamped) = (&mut step.seed, &mut step.seed_clamped);
            loss += network.loss.seed(activation, scored, seed, clamped);
        }
        let size = step.out.len();
        step.seed_out = vec![0.0; size];
        if let (Some(how), Some([targets, weights])) =
            (network.stages.output_loss, &self.episodes.signals.output_targets)
        {
            let at = (self.e * shape.n_steps + t) * size;
            let (target, weight) = (&targets[at..][..size], &weights[at..][..size]);
            let (term, seed) = how.of(&step.out, target, weight);
            loss += term;
            step.seed_out = seed;
        }
        loss
    }
}
