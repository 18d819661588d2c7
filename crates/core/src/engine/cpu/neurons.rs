//! The O(N) side of an episode: what every neuron did at every step, and its adjoint.

use crate::engine::cpu::around::Around;
use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::evolve::Evolve;
use crate::engine::cpu::panels::{Rows, padded};
use crate::engine::cpu::simd::{Instructions, Lanes};
use crate::engine::cpu::task::{Task, put_lane, take_lane};
use crate::model::activation::softmax_adjoint;
use crate::model::loss::Scored;
use crate::model::{Activation, Adjoint, Coefficients, Leak, Network, Shape};

/// Vectors of every step of an episode, or of some side by side: rows `[N, lanes]`, padded.
pub(crate) struct Neurons<S: Lanes> {
    /// Elements of a row of the post neurons, and of the pre neurons.
    n: usize,
    m_pre: usize,
    pub(crate) lanes: usize,
    n_steps: usize,
    /// Whether the current episode has a backward pass.
    gradients: bool,
    /// y, a row more than steps: row 0 is y(0).
    pub(crate) y: Rows<S>,
    /// x of a feed-forward layer; empty where x(t) is y(t-1).
    pre: Rows<S>,
    z: Rows<S>,
    /// dy/dz, for the backward pass of an element-wise activation.
    slopes: Rows<S>,
    /// Rule coefficients; `m` empty for one trace.
    pub(crate) d: Rows<S>,
    pub(crate) c: Rows<S>,
    pub(crate) m: Rows<S>,
    /// dL/dz, dL/dinput, dL/dx, whose padding means nothing.
    pub(crate) delta: Rows<S>,
    pub(crate) d_input: Rows<S>,
    pub(crate) d_x: Rows<S>,
    /// dL/dy of the step at hand, padded.
    y_bar: Aligned<S>,
    /// The plastic matmul of the step at hand, padded.
    pub(crate) plastic: Aligned<S>,
    stages: Around<S>,
    /// Input and clamp of the step at hand, where lanes are several.
    input: Aligned<S>,
    clamp: Aligned<S>,
    /// One episode's rows of the step at hand.
    one: [Aligned<S>; 5],
}

impl<S: Lanes> Neurons<S> {
    /// Buffers for `lanes` episodes; with `gradients`, also for the backward pass.
    pub(crate) fn new(
        buffers: &mut Buffers,
        network: &Network,
        shape: &Shape,
        lanes: usize,
        gradients: bool,
    ) -> Self {
        let (t, n, m) = (shape.n_steps, network.n_post * lanes, network.n_pre * lanes);
        let back = if gradients { t } else { 0 };
        let second = if network.n_traces() == 2 { t } else { 0 };
        let side_by_side = if lanes > 1 { padded(n) } else { 0 };
        Neurons {
            n,
            m_pre: m,
            lanes,
            n_steps: t,
            gradients: false,
            y: Rows::new(buffers, t + 1, n),
            pre: Rows::new(buffers, if network.recurrent { 0 } else { t }, m),
            z: Rows::new(buffers, t, n),
            slopes: Rows::new(buffers, if Self::has_slopes(network) { back } else { 0 }, n),
            d: Rows::new(buffers, t, n),
            c: Rows::new(buffers, t, n),
            m: Rows::new(buffers, second, n),
            delta: Rows::new(buffers, back, n),
            d_input: Rows::new(buffers, back, n),
            d_x: Rows::new(buffers, back, m),
            y_bar: buffers.zeros(padded(n)),
            plastic: buffers.zeros(padded(n)),
            stages: Around::new(buffers, network, shape, lanes, gradients),
            input: buffers.zeros(side_by_side),
            clamp: buffers.zeros(side_by_side),
            one: std::array::from_fn(|_| buffers.zeros(network.n_post)),
        }
    }

    /// Softmax mixes neurons.
    fn has_slopes(network: &Network) -> bool {
        network.activation != Activation::Softmax
    }

    pub(crate) fn n_steps(&self) -> usize {
        self.n_steps
    }

    /// z of step `t`, padded.
    pub(crate) fn z(&self, t: usize) -> &[S] {
        self.z.row(t)
    }

    /// Elements of a row of the post neurons.
    pub(crate) fn len(&self) -> usize {
        self.n
    }

    /// x of step `t`, padded.
    #[inline(always)]
    pub(crate) fn x(&self, t: usize) -> &[S] {
        if self.pre.is_empty() { self.y.row(t) } else { self.pre.row(t) }
    }

    /// Starts an episode, with a backward pass or without. Lanes without one stay zero throughout.
    pub(crate) fn start(&mut self, task: &Task<'_, S>, gradients: bool) {
        self.gradients = gradients;
        let lanes = self.lanes;
        if task.n < lanes {
            for wide in [&mut self.input, &mut self.clamp] {
                wide.fill(S::ZERO);
            }
            self.pre.fill(S::ZERO);
        }
        self.y.row_mut(0).fill(S::ZERO);
        self.stages.start(task, lanes);
        for lane in 0..task.n {
            let (index, n, m) = (task.index + lane, self.n / lanes, self.m_pre / lanes);
            if let Some(start) = &task.episodes.y0 {
                put_lane(self.y.row_mut(0), lanes, lane, &start[index * n..][..n]);
            }
            if let Some(pre) = &task.episodes.pre {
                for t in 0..self.n_steps {
                    let x = &pre[(index * self.n_steps + t) * m..][..m];
                    put_lane(self.pre.row_mut(t), lanes, lane, x);
                }
            }
        }
    }

    /// Step `t` after the plastic matmul: activation, clamp, rule coefficients.
    #[inline(always)]
    pub(crate) fn advance(&mut self, task: &Task<'_, S>, t: usize) {
        self.activate(task, t);
        let (n, lanes) = (self.n, self.lanes);
        let m: &mut [S] = if self.m.is_empty() { &mut [] } else { &mut self.m.row_mut(t)[..n] };
        let mut out = Coefficients {
            lanes,
            d: &mut self.d.row_mut(t)[..n],
            c: &mut self.c.row_mut(t)[..n],
            m,
        };
        let (rule, y) = (task.network.rule, &self.y.row(t + 1)[..n]);
        rule.coefficients(task.parameters, task.p(), y, &mut out, self.stages.m(t, n));
    }

    /// Step `t` after the plastic matmul: activation and clamp.
    #[inline(always)]
    pub(crate) fn activate(&mut self, task: &Task<'_, S>, t: usize) {
        let (network, n, lanes) = (task.network, self.n, self.lanes);
        let input = task.rows(lanes, &mut self.input, |one| one.shown(&one.episodes.stimuli, t));
        let z = &mut self.z.row_mut(t)[..n];
        for ((z, &sum), &u) in z.iter_mut().zip(&*self.plastic).zip(input) {
            *z = sum + u;
        }
        self.stages.drive(t, z);
        let argument = self.stages.integrate(t, task.before(t), self.z.row(t));
        if network.activation == Activation::Softmax {
            let [z, y, ..] = &mut self.one;
            for lane in 0..task.n {
                take_lane(argument, lanes, lane, z);
                network.activation.apply(z, y);
                put_lane(self.y.row_mut(t + 1), lanes, lane, y);
            }
        } else {
            // whole vectors; the padding stays zero
            let (z, y) = (argument, self.y.row_mut(t + 1));
            if self.gradients {
                network.activation.apply_with_slopes(z, y, self.slopes.row_mut(t));
            } else {
                network.activation.apply(z, y);
            }
            y[n..].fill(S::ZERO);
        }
        let (y, before) = self.y.pair(t + 1, task.before(t));
        self.stages.blend(t, y, before);
        let y = &mut y[..n];
        if task.n < lanes {
            y.chunks_exact_mut(lanes).for_each(|y| y[task.n..].fill(S::ZERO));
        }
        if task.episodes.clamps.is_some() {
            let clamp = task.rows(lanes, &mut self.clamp, |one| one.clamp(t).unwrap_or_default());
            for ((y, &clamp), &u) in y.iter_mut().zip(clamp).zip(input) {
                *y = if clamp == S::ZERO { *y } else { u };
            }
        }
    }

    /// H and E of the `lane`-th episode, `task`, after the last step: row by row, `[M, N]`
    /// each, E only where there are two.
    pub(crate) fn last_traces(&self, task: &Task<'_, S>, lane: usize, h: &mut [S], e: &mut [S]) {
        let lanes = self.lanes;
        for (out, start) in [(&mut *h, &task.episodes.h0), (&mut *e, &task.episodes.e0)] {
            match start {
                Some(start) if !out.is_empty() => out.copy_from_slice(task.first_traces(start)),
                _ => out.fill(S::ZERO),
            }
        }
        // one episode's rows, which lie in one lane
        let one = |row: &[S], n: usize| -> Vec<S> {
            row[..n].iter().skip(lane).step_by(lanes).copied().collect()
        };
        let steps = 0..self.n_steps;
        let of_rule = |rows: &Rows<S>| match rows.is_empty() {
            true => Vec::new(),
            false => steps.clone().map(|t| one(rows.row(t), self.n)).collect::<Vec<_>>(),
        };
        let [d, c, m] = [&self.d, &self.c, &self.m].map(of_rule);
        let x: Vec<_> = steps.clone().map(|t| one(self.x(t), self.m_pre)).collect();
        let [x, d, c, m] =
            [&x, &d, &c, &m].map(|rows| rows.iter().map(|r| &r[..]).collect::<Vec<_>>());
        Instructions::<S>::widest().run(Evolve {
            n: task.network.n_post,
            x: &x,
            d: &d,
            c: &c,
            m: &m,
            clip: task.network.trace_clip().map(S::from_f64),
            h,
            e,
        });
    }

    /// The loss of every scored step. Where there is a backward pass, starts delta and
    /// dL/dinput with the loss's own gradient, times `share`.
    #[inline(always)]
    pub(crate) fn loss(&mut self, task: &Task<'_, S>, share: f64) -> f64 {
        let (network, lanes) = (task.network, self.lanes);
        let n_targets = task.episodes.shape.n_targets;
        let factor = S::from_f64(share);
        let mut loss = 0.0;
        self.stages.clear();
        // with a rate leak y is no function of z alone: the loss's gradient is that of y itself
        let rate = self.stages.leaks(Leak::Rate);
        let activation = if rate { Activation::Linear } else { network.activation };
        let [z, y, slope, delta, d_input] = &mut self.one;
        for t in 0..self.n_steps {
            if self.gradients {
                self.delta.row_mut(t).fill(S::ZERO);
                self.d_input.row_mut(t).fill(S::ZERO);
            }
            for lane in 0..task.n {
                let one = task.episode(lane);
                let row = if network.stages.cotangents { None } else { one.scored(t) };
                let Some(row) = row else { continue };
                take_lane(self.y.row(t + 1), lanes, lane, y);
                take_lane(self.stages.argument(t, self.z.row(t)), lanes, lane, z);
                if rate {
                    z.copy_from_slice(y);
                }
                let slopes = if rate {
                    slope.fill(S::ONE);
                    &slope[..]
                } else if self.slopes.is_empty() || !self.gradients {
                    &[][..]
                } else {
                    take_lane(self.slopes.row(t), lanes, lane, slope);
                    &slope[..]
                };
                let step = Scored {
                    z,
                    y,
                    clamp: one.clamp(t),
                    target: one.row(&task.episodes.targets, n_targets, row),
                    weight: one.row(&task.episodes.loss_weights, n_targets, row),
                    slopes,
                };
                loss += network.loss.seed(activation, step, delta, d_input);
                if self.gradients {
                    let seeds = if rate { &mut self.stages.dy } else { &mut self.delta };
                    for (seed, rows) in [(&mut *delta, seeds), (&mut *d_input, &mut self.d_input)] {
                        seed.iter_mut().for_each(|value| *value = *value * factor);
                        put_lane(rows.row_mut(t), lanes, lane, seed);
                    }
                }
            }
        }
        (loss + self.stages.read_out(task, lanes, &self.y, share)) * share
    }

    /// Starts the backward pass, after [`Neurons::loss`].
    pub(crate) fn turn_back(&mut self) {
        self.y_bar.fill(S::ZERO);
        self.stages.turn_back();
    }

    /// Ends the backward pass: the gradients of what stands around the core, those after w and alpha
    /// alone, `+=`.
    pub(crate) fn finish(&mut self, task: &Task<'_, S>, gradients: &mut [S]) {
        self.stages.finish(task, self.lanes, &self.y, &self.delta, gradients);
    }

    /// What stands around the core.
    pub(crate) fn around(&self) -> &Around<S> {
        &self.stages
    }

    /// dL/dy(0), after the backward pass, `[N, lanes]`.
    pub(crate) fn y0_bar(&self) -> &[S] {
        &self.y_bar[..self.n]
    }

    /// Step `t` backward: the rule's adjoint, then the activation's. `gradients`, those of the
    /// rule's parameters alone, `+=`.
    #[inline(always)]
    pub(crate) fn retreat(
        &mut self,
        task: &Task<'_, S>,
        t: usize,
        collected: &Adjoint<'_, S>,
        gradients: &mut [S],
    ) {
        let (network, n) = (task.network, self.n);
        self.begin_back(t);
        let y = &self.y.row(t + 1)[..n];
        let y_bar = &mut self.y_bar[..n];
        network.rule.adjoint(task.parameters, task.p(), y, collected, y_bar, gradients);
        self.stages.m_back(network.rule, t, y, collected, y_bar);
        self.through(task, t, &[], gradients);
    }

    /// Begins step `t` backward: what is asked of y beside its loss.
    #[inline(always)]
    pub(crate) fn begin_back(&mut self, t: usize) {
        self.stages.add_dy(t, &mut self.y_bar[..self.n]);
    }

    /// dL/dy of the current step.
    pub(crate) fn y_bar_mut(&mut self) -> &mut [S] {
        &mut self.y_bar[..self.n]
    }

    /// Step `t` backward after the rule's adjoint: from dL/dy through the activation to dL/dz, of which
    /// `z_bar` is what the rule asks for; it may be empty.
    #[inline(always)]
    pub(crate) fn through(
        &mut self,
        task: &Task<'_, S>,
        t: usize,
        z_bar: &[S],
        gradients: &mut [S],
    ) {
        let (network, n, lanes) = (task.network, self.n, self.lanes);
        let before = task.before(t);
        let y_bar = &mut self.y_bar[..n];
        let d_input = &mut self.d_input.row_mut(t)[..n];
        if task.episodes.clamps.is_some() {
            let clamp = task.rows(lanes, &mut self.clamp, |one| one.clamp(t).unwrap_or_default());
            for ((d_input, &clamp), y_bar) in d_input.iter_mut().zip(clamp).zip(y_bar.iter_mut()) {
                if clamp != S::ZERO {
                    *d_input += *y_bar;
                    *y_bar = S::ZERO;
                }
            }
        }
        self.stages.blend_back(task, t, (self.y.row(before), lanes), &mut self.y_bar, gradients);
        if network.activation == Activation::Softmax {
            // softmax mixes neurons, and y before clamping is not in the record
            let [z, y, bar, delta, _] = &mut self.one;
            for lane in 0..task.n {
                take_lane(self.stages.argument(t, self.z.row(t)), lanes, lane, z);
                network.activation.apply(z, y);
                take_lane(&self.y_bar, lanes, lane, bar);
                take_lane(self.delta.row(t), lanes, lane, delta);
                softmax_adjoint(y, bar, delta);
                put_lane(self.delta.row_mut(t), lanes, lane, delta);
            }
        } else {
            // whole vectors; the padding of y_bar is zero
            let slopes = self.slopes.row(t).iter().zip(&*self.y_bar);
            for (delta, (&slope, &bar)) in self.delta.row_mut(t).iter_mut().zip(slopes) {
                *delta += slope * bar;
            }
        }
        let rows = (self.z.row(t), self.delta.row_mut(t), lanes);
        self.stages.integrate_back(task, before, rows, gradients);
        let delta = &mut self.delta.row_mut(t)[..n];
        delta.iter_mut().zip(z_bar).for_each(|(delta, &bar)| *delta += bar);
        for (d_input, &mut delta) in d_input.iter_mut().zip(delta) {
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
        self.stages.hand_back(&mut self.y_bar[..self.n]);
    }
}
