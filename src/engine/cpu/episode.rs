//! One episode on the CPU, forward and backward, in buffers made once.

use crate::engine::cpu::panels::{Aligned, Panels, zeros};
use crate::engine::cpu::simd::{Lanes, lanes};
use crate::engine::cpu::sweep::{Backward, Forward, Pass, Source, Window};
use crate::model::loss::Scored;
use crate::model::{Adjoint, Coefficients, Episodes, NO_ROW, Network, Parameters, Shape};

/// One network's w and alpha as the sweeps read them.
pub(crate) struct Weights<S: Lanes> {
    pub(crate) w: Aligned<S>,
    pub(crate) alpha: Aligned<S>,
}

/// What a part of a batch adds up: loss and gradients of one network.
pub(crate) struct Sums<S: Lanes> {
    /// dL/dw and dL/dalpha per connection, in panels.
    pub(crate) d_w: Aligned<S>,
    pub(crate) d_alpha: Aligned<S>,
    /// The rule's parameters, at their places in the flat array; w and alpha unused.
    pub(crate) rule: Vec<S>,
    pub(crate) loss: f64,
}

/// The episode being run, of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a, S: Lanes> {
    pub(crate) network: &'a Network,
    pub(crate) parameters: &'a Parameters<S>,
    pub(crate) weights: &'a Weights<S>,
    pub(crate) episodes: &'a Episodes<S>,
    /// p B + b.
    pub(crate) index: usize,
}

impl<S: Lanes> Task<'_, S> {
    fn p(&self) -> usize {
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

    /// x(t), `[M]`, given y `[T+1, N]`.
    fn x<'b>(&'b self, y: &'b [S], t: usize) -> &'b [S] {
        let m = self.network.n_pre;
        match &self.episodes.pre {
            Some(pre) => &pre[(self.index * self.episodes.shape.n_steps + t) * m..][..m],
            None => &y[t * m..][..m],
        }
    }
}

/// Vectors of every step. "Padded" rows have a whole number of panels.
struct Records<S: Lanes> {
    /// y `[T+1, N]`; row 0 is y(0).
    y: Vec<S>,
    /// z `[T, N]`.
    z: Vec<S>,
    /// Rule coefficients `[T, padded N]`; `m` empty for one trace.
    d: Aligned<S>,
    c: Aligned<S>,
    m: Aligned<S>,
    /// dL/dz `[T, padded N]`.
    delta: Aligned<S>,
    /// dL/dinput `[T, N]`.
    d_input: Vec<S>,
    /// dL/dx `[T, M]`.
    d_x: Vec<S>,
}

/// H and E before the first step of each window, in panels.
struct Traces<S: Lanes> {
    h: Vec<Aligned<S>>,
    e: Vec<Aligned<S>>,
}

impl<S: Lanes> Traces<S> {
    /// The slot of window `w`: one each where the way back needs them, else two in turn.
    fn slot(&self, w: usize) -> usize {
        w % self.h.len()
    }
}

/// Buffers of one episode of a given shape.
pub(crate) struct Workspace<S: Lanes> {
    panels: Panels,
    n_threads: usize,
    window: usize,
    n_steps: usize,
    gradients: bool,
    records: Records<S>,
    traces: Traces<S>,
    /// P of H and of E, in panels.
    p_h: Aligned<S>,
    p_e: Aligned<S>,
    /// x of a window `[M, window]`, step fastest.
    x_window: Vec<S>,
    /// Row sums of a sweep `[threads, M, lanes]`.
    x_bar: Aligned<S>,
    /// Column sums of a sweep, padded N.
    z: Aligned<S>,
    q: Aligned<S>,
    r: Aligned<S>,
    e: Aligned<S>,
    /// dL/dy of the step at hand, and two rows for a loss's gradient, `[N]` each.
    y_bar: Vec<S>,
    seed: [Vec<S>; 2],
}

impl<S: Lanes> Workspace<S> {
    /// Buffers for one episode; with `gradients`, also for the way back.
    pub(crate) fn new(
        network: &Network,
        shape: &Shape,
        window: usize,
        n_threads: usize,
        gradients: bool,
    ) -> Self {
        let panels = Panels::new::<S>(network.n_pre, network.n_post);
        let (t, n, m) = (shape.n_steps, network.n_post, network.n_pre);
        let two = network.n_traces() == 2;
        let n_slots = if gradients { t.div_ceil(window) + 1 } else { 2 };
        let back = |len: usize| if gradients { len } else { 0 };
        let second = |len: usize| if two { len } else { 0 };
        let rows = t * panels.padded();
        Workspace {
            panels,
            n_threads,
            window,
            n_steps: t,
            gradients,
            records: Records {
                y: vec![S::ZERO; (t + 1) * n],
                z: vec![S::ZERO; t * n],
                d: zeros(rows),
                c: zeros(rows),
                m: zeros(second(rows)),
                delta: zeros(back(rows)),
                d_input: vec![S::ZERO; back(t * n)],
                d_x: vec![S::ZERO; back(t * m)],
            },
            traces: Traces {
                h: (0..n_slots).map(|_| zeros(panels.len())).collect(),
                e: (0..second(n_slots)).map(|_| zeros(panels.len())).collect(),
            },
            p_h: zeros(back(panels.len())),
            p_e: zeros(back(second(panels.len()))),
            x_window: vec![S::ZERO; m * window],
            x_bar: zeros(back(n_threads * m * lanes::<S>(pulp::Arch::new()))),
            z: zeros(panels.padded()),
            q: zeros(back(panels.padded())),
            r: zeros(back(panels.padded())),
            e: zeros(back(second(panels.padded()))),
            y_bar: vec![S::ZERO; n],
            seed: [vec![S::ZERO; n], vec![S::ZERO; n]],
        }
    }

    /// Bytes that [`Workspace::new`] takes, but for rows of one step.
    pub(crate) fn bytes(network: &Network, shape: &Shape, window: usize, gradients: bool) -> u64 {
        let panels = Panels::new::<S>(network.n_pre, network.n_post);
        let n_traces = if gradients { shape.n_steps.div_ceil(window) + 2 } else { 2 };
        let back = usize::from(gradients);
        let rows = (2 + back) * panels.padded()
            + (2 + back) * network.n_post
            + back * network.n_pre
            + (network.n_traces() - 1) * panels.padded();
        let elements = (n_traces * network.n_traces()) as u64 * panels.len() as u64
            + shape.n_steps as u64 * rows as u64;
        elements * size_of::<S>() as u64
    }

    /// y `[T+1, N]`, row 0 is y(0).
    pub(crate) fn y(&self) -> &[S] {
        &self.records.y
    }

    /// dL/dinput `[T, N]`.
    pub(crate) fn d_input(&self) -> &[S] {
        &self.records.d_input
    }

    /// dL/dx `[T, M]`.
    pub(crate) fn d_x(&self) -> &[S] {
        &self.records.d_x
    }

    /// P of H and of E at the first step, in panels.
    pub(crate) fn adjoints(&self) -> [&[S]; 2] {
        [&self.p_h, &self.p_e]
    }

    /// H and E after the last step, in panels.
    pub(crate) fn last_traces(&self) -> [&[S]; 2] {
        let slot = self.traces.slot(self.n_steps.div_ceil(self.window));
        [&self.traces.h[slot], self.traces.e.get(slot).map_or(&[], |e| e)]
    }

    /// Runs all steps forward. With `commit_last`, also forms the traces after the last
    /// step.
    pub(crate) fn forward(&mut self, task: &Task<'_, S>, commit_last: bool) {
        let (network, n) = (task.network, task.network.n_post);
        match &task.episodes.y0 {
            Some(y0) => self.records.y[..n].copy_from_slice(&y0[task.index * n..][..n]),
            None => self.records.y[..n].fill(S::ZERO),
        }
        for (trace, start) in [
            (self.traces.h.first_mut(), &task.episodes.h0),
            (self.traces.e.first_mut(), &task.episodes.e0),
        ] {
            match (trace, start) {
                (Some(trace), Some(start)) => {
                    let start = &start[task.index * network.n_connections()..];
                    self.panels.pack(trace, |i, j| start[i * n + j]);
                }
                (Some(trace), None) => trace.fill(S::ZERO),
                (None, _) => {}
            }
        }
        for t in 0..self.n_steps {
            self.multiply(task, t);
            self.neurons(task, t);
        }
        if commit_last {
            self.multiply(task, self.n_steps);
        }
    }

    /// The plastic matmul of step `t`. At the first step of a window also stores the
    /// trace there; after the last step does only that.
    fn multiply(&mut self, task: &Task<'_, S>, t: usize) {
        let after_last = t == self.n_steps;
        let commit = t > 0 && (t.is_multiple_of(self.window) || after_last);
        let w = if commit { (t - 1) / self.window } else { t / self.window };
        let (from, to) = (self.traces.slot(w), self.traces.slot(w + 1));
        let (h, commit_h) = from_and_to(&mut self.traces.h, from, to, commit);
        let (e, commit_e) = from_and_to(&mut self.traces.e, from, to, commit);
        let first = w * self.window;
        let source = Source {
            panels: self.panels,
            w: &task.weights.w,
            alpha: &task.weights.alpha,
            h,
            e,
            clip: task.network.trace_clip().map(S::from_f64),
            window: window(&self.records, self.panels, &self.x_window, self.window, first..t),
        };
        // x(T+1) is not defined and its product not used: any row will do
        let x = task.x(&self.records.y, t.min(self.n_steps - 1));
        let job = Forward {
            source: &source,
            x,
            panels: 0..self.panels.n_panels,
            z: &mut self.z,
            commit_h,
            commit_e,
        };
        job.run(self.n_threads);
    }

    /// The O(N) part of step `t`: activation, clamp, rule coefficients.
    fn neurons(&mut self, task: &Task<'_, S>, t: usize) {
        let (network, n) = (task.network, task.network.n_post);
        let x = task.x(&self.records.y, t);
        fill_column(&mut self.x_window, x, self.window, t % self.window);
        let input = task.shown(&task.episodes.stimuli, t);
        let z = &mut self.records.z[t * n..][..n];
        let y = &mut self.records.y[(t + 1) * n..][..n];
        for ((z, &sum), &u) in z.iter_mut().zip(&self.z[..]).zip(input) {
            *z = sum + u;
        }
        network.activation.apply(z, y);
        if let Some(clamp) = task.clamp(t) {
            for ((y, &clamp), &u) in y.iter_mut().zip(clamp).zip(input) {
                if clamp != S::ZERO {
                    *y = u;
                }
            }
        }
        let at = t * self.panels.padded();
        let m_len = n.min(self.records.m.len());
        let m_at = at.min(self.records.m.len());
        let mut out = Coefficients {
            d: &mut self.records.d[at..at + n],
            c: &mut self.records.c[at..at + n],
            m: &mut self.records.m[m_at..m_at + m_len],
        };
        network.rule.coefficients(task.parameters, task.p(), y, &mut out);
    }

    /// The loss of every scored step, after [`Workspace::forward`]. Where there is a way
    /// back, starts delta and dL/dinput with the loss's own gradient, times `share`.
    pub(crate) fn loss(&mut self, task: &Task<'_, S>, share: f64) -> f64 {
        let (network, n) = (task.network, task.network.n_post);
        let n_targets = task.episodes.shape.n_targets;
        let mut loss = 0.0;
        let [delta, d_input] = &mut self.seed;
        for t in 0..self.n_steps {
            delta.fill(S::ZERO);
            d_input.fill(S::ZERO);
            if let Some(row) = task.scored(t) {
                let step = Scored {
                    z: &self.records.z[t * n..][..n],
                    y: &self.records.y[(t + 1) * n..][..n],
                    clamp: task.clamp(t),
                    target: task.row(&task.episodes.targets, n_targets, row),
                    weight: task.row(&task.episodes.loss_weights, n_targets, row),
                };
                loss += network.loss.seed(network.activation, step, delta, d_input);
            }
            if self.gradients {
                let share = S::from_f64(share);
                let at = t * self.panels.padded();
                scaled(&mut self.records.delta[at..at + n], delta, share);
                scaled(&mut self.records.d_input[t * n..][..n], d_input, share);
            }
        }
        loss * share
    }

    /// Runs all steps backward after [`Workspace::loss`], adding to `sums`.
    pub(crate) fn backward(&mut self, task: &Task<'_, S>, sums: &mut Sums<S>) {
        self.p_h.fill(S::ZERO);
        self.p_e.fill(S::ZERO);
        self.y_bar.fill(S::ZERO);
        // After the last step P is zero, and so is all that would be collected.
        for collected in [&mut self.q, &mut self.r, &mut self.e] {
            collected.fill(S::ZERO);
        }
        let mut end = self.n_steps;
        while end > 0 {
            let first = (end - 1) / self.window * self.window;
            for t in first..end {
                let x = task.x(&self.records.y, t);
                fill_column(&mut self.x_window, x, self.window, t - first);
            }
            if end < self.n_steps {
                self.sweep(task, first..end, Pass::Collect, sums);
            }
            self.neurons_back(task, end - 1, sums);
            for t in (first + 1..end).rev() {
                self.sweep(task, first..end, Pass::Both(t - first), sums);
                self.gather(task, t);
                self.neurons_back(task, t - 1, sums);
            }
            self.sweep(task, first..end, Pass::Commit, sums);
            self.gather(task, first);
            end = first;
        }
    }

    fn sweep(
        &mut self,
        task: &Task<'_, S>,
        steps: std::ops::Range<usize>,
        pass: Pass,
        sums: &mut Sums<S>,
    ) {
        let slot = self.traces.slot(steps.start / self.window);
        let source = Source {
            panels: self.panels,
            w: &task.weights.w,
            alpha: &task.weights.alpha,
            h: &self.traces.h[slot],
            e: self.traces.e.get(slot).map_or(&[], |e| e),
            clip: task.network.trace_clip().map(S::from_f64),
            window: window(&self.records, self.panels, &self.x_window, self.window, steps),
        };
        let job = Backward {
            source: &source,
            pass,
            panels: 0..self.panels.n_panels,
            p_h: &mut self.p_h,
            p_e: &mut self.p_e,
            q: &mut self.q,
            r: &mut self.r,
            sum_e: &mut self.e,
            x_bar: &mut self.x_bar,
            d_w: &mut sums.d_w,
            d_alpha: &mut sums.d_alpha,
        };
        job.run(self.n_threads);
    }

    /// Adds up dL/dx(t) from the sweep's lanes, and hands it to y(t-1).
    fn gather(&mut self, task: &Task<'_, S>, t: usize) {
        let m = task.network.n_pre;
        let lanes = self.x_bar.len() / (m * self.n_threads);
        let d_x = &mut self.records.d_x[t * m..][..m];
        for (i, d_x) in d_x.iter_mut().enumerate() {
            *d_x = self
                .x_bar
                .chunks_exact(m * lanes)
                .flat_map(|part| &part[i * lanes..][..lanes])
                .fold(S::ZERO, |sum, &value| sum + value);
        }
        if task.network.recurrent {
            self.y_bar.copy_from_slice(d_x);
        } else {
            self.y_bar.fill(S::ZERO);
        }
    }

    /// The O(N) part of step `t` backward: the rule's adjoint, then the activation's.
    fn neurons_back(&mut self, task: &Task<'_, S>, t: usize, sums: &mut Sums<S>) {
        let (network, n) = (task.network, task.network.n_post);
        let y = &self.records.y[(t + 1) * n..][..n];
        let z = &self.records.z[t * n..][..n];
        let collected = Adjoint { q: &self.q, r: &self.r, e: &self.e };
        network.rule.adjoint(
            task.parameters,
            task.p(),
            y,
            &collected,
            &mut self.y_bar,
            &mut sums.rule,
        );
        let clamp = task.clamp(t);
        let free = |j: usize| clamp.is_none_or(|clamp| clamp[j] == S::ZERO);
        let delta = &mut self.records.delta[t * self.panels.padded()..][..n];
        if clamp.is_some() && network.activation == crate::model::Activation::Softmax {
            // softmax mixes neurons: y before clamping is not in the record
            let before = &mut self.seed[0];
            network.activation.apply(z, before);
            network.activation.adjoint(z, before, &self.y_bar, free, delta);
        } else {
            network.activation.adjoint(z, y, &self.y_bar, free, delta);
        }
        let d_input = &mut self.records.d_input[t * n..][..n];
        for (j, d_input) in d_input.iter_mut().enumerate() {
            if !free(j) {
                *d_input += self.y_bar[j];
            }
            *d_input += delta[j];
        }
    }
}

/// The steps `steps` of an episode, all in one window, as the sweeps read them.
fn window<'a, S: Lanes>(
    records: &'a Records<S>,
    panels: Panels,
    x: &'a [S],
    stride: usize,
    steps: std::ops::Range<usize>,
) -> Window<'a, S> {
    let part = |values: &'a [S]| {
        let padded = panels.padded();
        if values.is_empty() { values } else { &values[steps.start * padded..steps.end * padded] }
    };
    Window {
        n_steps: steps.len(),
        x,
        stride,
        d: part(&records.d),
        c: part(&records.c),
        m: part(&records.m),
        delta: part(&records.delta),
    }
}

/// Slot `from` to read and, with `commit`, slot `to` to write; empty where there is none.
fn from_and_to<S: Lanes>(
    slots: &mut [Aligned<S>],
    from: usize,
    to: usize,
    commit: bool,
) -> (&[S], &mut [S]) {
    if slots.is_empty() {
        (&[], &mut [])
    } else if commit {
        let [from, to] = slots.get_disjoint_mut([from, to]).expect("two different slots");
        (from, to)
    } else {
        (&slots[from], &mut [])
    }
}

/// Writes x into column `column` of `[M, stride]`.
fn fill_column<S: Lanes>(window: &mut [S], x: &[S], stride: usize, column: usize) {
    for (row, &x) in window.chunks_exact_mut(stride).zip(x) {
        row[column] = x;
    }
}

fn scaled<S: Lanes>(out: &mut [S], values: &[S], factor: S) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = value * factor;
    }
}
