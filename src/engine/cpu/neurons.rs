//! The O(N) side of an episode: what every neuron did at every step, and its adjoint.

use crate::engine::cpu::panels::{Rows, padded};
use crate::engine::cpu::simd::Lanes;
use crate::model::loss::Scored;
use crate::model::{
    Activation, Adjoint, Coefficients, Episodes, NO_ROW, Network, Parameters, Shape,
};

/// The episode being run, of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a, S: Lanes> {
    pub(crate) network: &'a Network,
    pub(crate) parameters: &'a Parameters<S>,
    pub(crate) episodes: &'a Episodes<S>,
    /// p B + b.
    pub(crate) index: usize,
}

impl<S: Lanes> Task<'_, S> {
    pub(crate) fn p(&self) -> usize {
        self.index / self.episodes.shape.n_batch
    }

    fn row<'b>(&self, table: &'b [S], n_rows: usize, row: u32) -> &'b [S] {
        let n = self.network.n_post;
        &table[(self.index * n_rows + row as usize) * n..][..n]
    }

    fn shown<'b>(&self, table: &'b [S], t: usize) -> &'b [S] {
        let shape = &self.episodes.shape;
        self.row(table, shape.n_stimuli, self.episodes.shown[self.index * shape.n_steps + t])
    }

    fn clamp(&self, t: usize) -> Option<&[S]> {
        self.episodes.clamps.as_ref().map(|table| self.shown(table, t))
    }

    fn scored(&self, t: usize) -> Option<u32> {
        let row = self.episodes.scored[self.index * self.episodes.shape.n_steps + t];
        (row != NO_ROW).then_some(row)
    }
}

/// Vectors of every step of one episode, each row padded.
pub(crate) struct Neurons<S: Lanes> {
    n: usize,
    m_pre: usize,
    n_steps: usize,
    gradients: bool,
    /// y, a row more than steps: row 0 is y(0).
    pub(crate) y: Rows<S>,
    /// x of a feed-forward layer; empty where x(t) is y(t-1).
    pre: Rows<S>,
    z: Rows<S>,
    /// Rule coefficients; `m` empty for one trace.
    pub(crate) d: Rows<S>,
    pub(crate) c: Rows<S>,
    pub(crate) m: Rows<S>,
    /// dL/dz, dL/dinput, dL/dx.
    pub(crate) delta: Rows<S>,
    pub(crate) d_input: Rows<S>,
    pub(crate) d_x: Rows<S>,
    /// dL/dy of the step at hand, padded, and two rows for a loss's gradient.
    y_bar: Vec<S>,
    seed: [Vec<S>; 2],
    /// The plastic matmul of the step at hand, padded.
    pub(crate) plastic: Vec<S>,
}

impl<S: Lanes> Neurons<S> {
    /// Buffers for one episode; with `gradients`, also for the way back.
    pub(crate) fn new(network: &Network, shape: &Shape, gradients: bool) -> Self {
        let (t, n, m) = (shape.n_steps, network.n_post, network.n_pre);
        let back = if gradients { t } else { 0 };
        let second = if network.n_traces() == 2 { t } else { 0 };
        Neurons {
            n,
            m_pre: m,
            n_steps: t,
            gradients,
            y: Rows::new(t + 1, n),
            pre: Rows::new(if network.recurrent { 0 } else { t }, m),
            z: Rows::new(t, n),
            d: Rows::new(t, n),
            c: Rows::new(t, n),
            m: Rows::new(second, n),
            delta: Rows::new(back, n),
            d_input: Rows::new(back, n),
            d_x: Rows::new(back, m),
            y_bar: vec![S::ZERO; padded(n)],
            seed: [vec![S::ZERO; n], vec![S::ZERO; n]],
            plastic: vec![S::ZERO; padded(n)],
        }
    }

    /// Numbers kept for each step.
    pub(crate) fn per_step(network: &Network, gradients: bool) -> usize {
        let (n, m) = (padded(network.n_post), padded(network.n_pre));
        let forward = (3 + network.n_traces()) * n + if network.recurrent { 0 } else { m };
        forward + if gradients { 2 * n + m } else { 0 }
    }

    pub(crate) fn n_steps(&self) -> usize {
        self.n_steps
    }

    /// x of step `t`, padded.
    #[inline(always)]
    pub(crate) fn x(&self, t: usize) -> &[S] {
        if self.pre.is_empty() { self.y.row(t) } else { self.pre.row(t) }
    }

    /// x of all steps.
    pub(crate) fn x_rows(&self) -> &Rows<S> {
        if self.pre.is_empty() { &self.y } else { &self.pre }
    }

    /// Starts an episode.
    pub(crate) fn start(&mut self, task: &Task<'_, S>) {
        let y0 = &mut self.y.row_mut(0)[..self.n];
        match &task.episodes.y0 {
            Some(start) => y0.copy_from_slice(&start[task.index * self.n..][..self.n]),
            None => y0.fill(S::ZERO),
        }
        if let Some(pre) = &task.episodes.pre {
            let m = self.m_pre;
            for t in 0..self.n_steps {
                let x = &pre[(task.index * self.n_steps + t) * m..][..m];
                self.pre.row_mut(t)[..m].copy_from_slice(x);
            }
        }
    }

    /// Step `t` after the plastic matmul: activation, clamp, rule coefficients.
    #[inline(always)]
    pub(crate) fn advance(&mut self, task: &Task<'_, S>, t: usize) {
        let (network, n) = (task.network, self.n);
        let input = task.shown(&task.episodes.stimuli, t);
        let z = &mut self.z.row_mut(t)[..n];
        for ((z, &sum), &u) in z.iter_mut().zip(&self.plastic).zip(input) {
            *z = sum + u;
        }
        if network.activation == Activation::Softmax {
            network.activation.apply(z, &mut self.y.row_mut(t + 1)[..n]);
        } else {
            // whole vectors; the padding stays zero
            let all = self.y.row_mut(t + 1);
            network.activation.apply(self.z.row(t), all);
            all[n..].fill(S::ZERO);
        }
        let y = &mut self.y.row_mut(t + 1)[..n];
        if let Some(clamp) = task.clamp(t) {
            for ((y, &clamp), &u) in y.iter_mut().zip(clamp).zip(input) {
                *y = if clamp == S::ZERO { *y } else { u };
            }
        }
        let m: &mut [S] = if self.m.is_empty() { &mut [] } else { &mut self.m.row_mut(t)[..n] };
        let mut out =
            Coefficients { d: &mut self.d.row_mut(t)[..n], c: &mut self.c.row_mut(t)[..n], m };
        network.rule.coefficients(task.parameters, task.p(), y, &mut out);
    }

    /// H and E after the last step: row by row, `[M, N]` each, E only where there are two.
    pub(crate) fn last_traces(&self, task: &Task<'_, S>, h: &mut [S], e: &mut [S]) {
        let (n, start) = (self.n, task.index * task.network.n_connections());
        let clip = task.network.trace_clip().map(S::from_f64);
        let clipped = |x: S| match clip {
            Some(bound) if x > bound => bound,
            Some(bound) if x < -bound => -bound,
            _ => x,
        };
        for (out, values) in [(&mut *h, &task.episodes.h0), (&mut *e, &task.episodes.e0)] {
            match values {
                Some(values) if !out.is_empty() => {
                    out.copy_from_slice(&values[start..start + out.len()]);
                }
                _ => out.fill(S::ZERO),
            }
        }
        let mut e_rows = e.chunks_exact_mut(n);
        for (i, h) in h.chunks_exact_mut(n).enumerate() {
            let mut e = e_rows.next();
            for t in 0..self.n_steps {
                let (x, d, c) = (self.x(t)[i], self.d.row(t), self.c.row(t));
                if let Some(e) = &mut e {
                    for (((h, e), &m), (&d, &c)) in
                        h.iter_mut().zip(e.iter_mut()).zip(self.m.row(t)).zip(d.iter().zip(c))
                    {
                        *h = clipped(*h + m * *e);
                        *e = d * *e + c * x;
                    }
                } else {
                    for (h, (&d, &c)) in h.iter_mut().zip(d.iter().zip(c)) {
                        *h = clipped(d * *h + c * x);
                    }
                }
            }
        }
    }

    /// The loss of every scored step. Where there is a way back, starts delta and
    /// dL/dinput with the loss's own gradient, times `share`.
    #[inline(always)]
    pub(crate) fn loss(&mut self, task: &Task<'_, S>, share: f64) -> f64 {
        let (network, n) = (task.network, self.n);
        let n_targets = task.episodes.shape.n_targets;
        let mut loss = 0.0;
        let [delta, d_input] = &mut self.seed;
        for t in 0..self.n_steps {
            let Some(row) = task.scored(t) else {
                if self.gradients {
                    self.delta.row_mut(t).fill(S::ZERO);
                    self.d_input.row_mut(t).fill(S::ZERO);
                }
                continue;
            };
            let step = Scored {
                z: &self.z.row(t)[..n],
                y: &self.y.row(t + 1)[..n],
                clamp: task.clamp(t),
                target: task.row(&task.episodes.targets, n_targets, row),
                weight: task.row(&task.episodes.loss_weights, n_targets, row),
            };
            loss += network.loss.seed(network.activation, step, delta, d_input);
            if self.gradients {
                let share = S::from_f64(share);
                scaled(&mut self.delta.row_mut(t)[..n], delta, share);
                scaled(&mut self.d_input.row_mut(t)[..n], d_input, share);
            }
        }
        loss * share
    }

    /// Starts the way back, after [`Neurons::loss`].
    pub(crate) fn turn_back(&mut self) {
        self.y_bar.fill(S::ZERO);
    }

    /// Step `t` backward: the rule's adjoint, then the activation's. Rule gradients are
    /// `+=` in `gradients`, a network's flat array.
    #[inline(always)]
    pub(crate) fn retreat(
        &mut self,
        task: &Task<'_, S>,
        t: usize,
        collected: &Adjoint<'_, S>,
        gradients: &mut [S],
    ) {
        let (network, n) = (task.network, self.n);
        let y = &self.y.row(t + 1)[..n];
        let z = &self.z.row(t)[..n];
        let y_bar = &mut self.y_bar[..n];
        network.rule.adjoint(task.parameters, task.p(), y, collected, y_bar, gradients);
        let clamp = task.clamp(t);
        let delta = &mut self.delta.row_mut(t)[..n];
        let d_input = &mut self.d_input.row_mut(t)[..n];
        if let Some(clamp) = clamp {
            for ((d_input, &clamp), y_bar) in d_input.iter_mut().zip(clamp).zip(y_bar.iter_mut()) {
                if clamp != S::ZERO {
                    *d_input += *y_bar;
                    *y_bar = S::ZERO;
                }
            }
        }
        if clamp.is_some() && network.activation == Activation::Softmax {
            // softmax mixes neurons: y before clamping is not in the record
            let before = &mut self.seed[0];
            network.activation.apply(z, before);
            network.activation.adjoint(z, before, y_bar, delta);
        } else if network.activation == Activation::Softmax {
            network.activation.adjoint(z, y, y_bar, delta);
        } else {
            // whole vectors; the padding of y_bar is zero
            let (z, y, delta) = (self.z.row(t), self.y.row(t + 1), self.delta.row_mut(t));
            network.activation.adjoint(z, y, &self.y_bar, delta);
        }
        let delta = &self.delta.row(t)[..n];
        for (d_input, &delta) in d_input.iter_mut().zip(delta) {
            *d_input += delta;
        }
    }

    /// Hands dL/dx of step `t` to y(t-1).
    #[inline(always)]
    pub(crate) fn hand_back(&mut self, t: usize) {
        if self.pre.is_empty() {
            self.y_bar[..self.n].copy_from_slice(&self.d_x.row(t)[..self.n]);
        } else {
            self.y_bar.fill(S::ZERO);
        }
    }
}

#[inline(always)]
fn scaled<S: Lanes>(out: &mut [S], values: &[S], factor: S) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = value * factor;
    }
}
