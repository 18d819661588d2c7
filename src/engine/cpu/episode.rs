//! One episode on the CPU, forward and backward, in buffers made once. One or more threads
//! share its connections; the first also does what belongs to the neurons, while the others
//! wait.

use std::sync::{Mutex, MutexGuard, RwLock};

use pulp::WithSimd;
use rayon::prelude::*;

use crate::engine::Work;
use crate::engine::cpu::buffer::zeros;
use crate::engine::cpu::lazy::window::Window;
use crate::engine::cpu::neurons::{Neurons, Task};
use crate::engine::cpu::panels::{Panels, Rows, Table, VECTORS};
use crate::engine::cpu::share::{Gradients, Matrices, Returns, Share, Site};
use crate::engine::cpu::simd::{Lanes, arch, lanes};
use crate::engine::cpu::stepped::Source;
use crate::engine::cpu::team::Barrier;
use crate::engine::cpu::{lazy, stepped};
use crate::model::{Adjoint, AlphaSharing, Layout, Network, Shape, Tensor};

/// How an episode's traces are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// No clip: `lazy`, windows of that many steps.
    Lazy(usize),
    /// With a clip: `stepped`, windows of that many steps.
    Stepped(usize),
}

impl Plan {
    /// What an update's sweeps move and compute; rows of neurons and the optimiser are not
    /// counted.
    pub(crate) fn work(self, network: &Network, shape: &Shape) -> Work {
        let traces = network.n_traces() as u64;
        let (steps, size) = (shape.n_steps as u64, self.size() as u64);
        let windows = steps.div_ceil(size);
        let (numbers, multiply_adds) = match self {
            Plan::Lazy(_) => {
                // w, alpha H (alpha E) and alpha, forward and backward
                let sums = 2 * (2 + traces);
                // alpha H by columns and by rows; P, d_w, d_alpha, alpha and alpha H
                let ends = 2 * (2 * traces + 1) + (2 * traces + 4 + 1 + traces);
                let products = 2 * (1 + traces) + (size - 1);
                // commit twice, fold, sums with Q
                let at_ends = 2 * traces + if traces == 2 { 10 } else { 6 };
                (steps * sums + windows * ends, steps * (products + at_ends))
            }
            Plan::Stepped(_) => {
                // forward; forming the traces again; backward; gradients
                let each = (2 + 2 * traces) + traces + (2 + 4 * traces) + traces;
                (steps * each + windows * 4, steps * (4 + 3 + 12) * traces)
            }
        };
        let connections = network.n_connections() as u64;
        let episodes = (network.n_networks * shape.n_batch) as u64;
        Work {
            bytes: 4 * numbers * connections * episodes,
            multiply_adds: multiply_adds * connections * episodes,
            dispatches: 0,
        }
    }

    fn size(self) -> usize {
        match self {
            Plan::Lazy(size) | Plan::Stepped(size) => size,
        }
    }
}

/// What a part of a batch adds up: loss and gradients of one network.
pub(crate) struct Sums<S: Lanes> {
    /// dL/dw and dL/dalpha, a part for each thread of an episode.
    pub(crate) shares: Vec<Mutex<Gradients<S>>>,
    /// Whether those are transposed.
    by_rows: bool,
    /// The rule's parameters, at their places in the flat array, and the loss.
    pub(crate) rule: Mutex<(Vec<S>, f64)>,
}

impl<S: Lanes> Sums<S> {
    pub(crate) fn new(shares: &[Share], plan: Plan, n_rule: usize, gradients: bool) -> Self {
        let by_rows = matches!(plan, Plan::Lazy(_));
        let new = |share| Gradients::new(share, by_rows, gradients).into();
        Sums {
            by_rows,
            shares: shares.iter().map(new).collect(),
            rule: Mutex::new((vec![S::ZERO; n_rule], 0.0)),
        }
    }

    /// Sets the share of thread `thread` to zero; the first one's with the rule's.
    pub(crate) fn clear(&self, thread: usize) {
        lock(&self.shares[thread]).clear();
        if thread == 0 {
            let mut rule = lock(&self.rule);
            rule.0.fill(S::ZERO);
            rule.1 = 0.0;
        }
    }

    pub(crate) fn loss(&self) -> f64 {
        lock(&self.rule).1
    }

    /// Adds all gradients to a network's flat array.
    pub(crate) fn add_to(
        &self,
        network: &Network,
        layout: &Layout,
        shares: &[Share],
        out: &mut [S],
    ) {
        for (out, &value) in out.iter_mut().zip(&lock(&self.rule).0) {
            *out += value;
        }
        let part = |tensor| layout.find(tensor).map_or(0..0, |e| e.offset..e.offset + e.len);
        self.add_matrix(network, shares, |g| &g.d_w, &mut out[part(Tensor::W)]);
        let d_alpha = &mut out[part(Tensor::Alpha)];
        if network.alpha == AlphaSharing::PerConnection {
            self.add_matrix(network, shares, |g| &g.d_alpha, d_alpha);
            return;
        }
        let mut total = 0.0;
        for (share, gradients) in shares.iter().zip(&self.shares) {
            let gradients = lock(gradients);
            let (panels, start) = self.panels(share);
            panels.rows(&gradients.d_alpha, |row, first, values| {
                if network.alpha == AlphaSharing::PerNetwork {
                    total += values.iter().map(|v| v.to_f64()).sum::<f64>();
                } else if self.by_rows {
                    d_alpha[row] += values.iter().fold(S::ZERO, |sum, &v| sum + v);
                } else {
                    for (out, &value) in d_alpha[start + first..].iter_mut().zip(values) {
                        *out += value;
                    }
                }
            });
        }
        if network.alpha == AlphaSharing::PerNetwork {
            d_alpha[0] += S::from_f64(total);
        }
    }

    /// A share's matrices, and the neuron of their first column.
    fn panels(&self, share: &Share) -> (Panels, usize) {
        if self.by_rows {
            (share.by_rows, share.rows.start)
        } else {
            (share.by_columns, share.columns.start)
        }
    }

    /// Adds a matrix to a row-major one `[M, N]`, the threads over its rows.
    fn add_matrix(
        &self,
        network: &Network,
        shares: &[Share],
        matrix: impl Fn(&Gradients<S>) -> &[S] + Sync,
        out: &mut [S],
    ) {
        let n = network.n_post;
        let gradients: Vec<_> = self.shares.iter().map(lock).collect();
        let gradients: Vec<&[S]> = gradients.iter().map(|g| matrix(g)).collect();
        let height = VECTORS * lanes::<S>();
        out.par_chunks_mut(height * n).enumerate().for_each(|(chunk, out)| {
            let first_row = chunk * height;
            for (share, values) in shares.iter().zip(&gradients) {
                let (panels, start) = self.panels(share);
                if !self.by_rows {
                    panels.add_rows(values, first_row, &mut out[start..], n);
                } else if share.rows.contains(&first_row) {
                    panels.add_transposed(values, first_row - start, out, n);
                }
            }
        });
    }
}

/// One thread's traces.
enum Connections<S: Lanes> {
    Lazy(lazy::Traces<S>),
    Stepped(stepped::Traces<S>),
}

/// The neurons' side, written by the first thread alone.
struct Lead<S: Lanes> {
    neurons: Neurons<S>,
    /// Of the lazy plan.
    window: Window<S>,
    /// Of the stepped plan: x of two steps, or of a window.
    x: Table<S>,
    collected: [Rows<S>; 3],
}

/// Buffers of one episode of a given shape.
pub(crate) struct Workspace<S: Lanes> {
    plan: Plan,
    arch: pulp::Arch,
    n_steps: usize,
    shares: Vec<Share>,
    barrier: Barrier,
    lead: RwLock<Lead<S>>,
    connections: Vec<Mutex<Connections<S>>>,
    returns: Vec<Mutex<Returns<S>>>,
}

/// What the first thread does between two sweeps.
#[derive(Clone, Copy)]
enum Turn {
    /// Starts the episode.
    Start,
    /// Takes the plastic matmul of a step, and prepares the next.
    Advance(usize),
    /// After the last step: the loss, and the last window.
    Loss,
    /// Takes what belongs to P at a window's end: the adjoint of the step before it.
    Enter(usize),
    /// Takes the row sums of a step; the adjoint of the step before, or the window before.
    Retreat(usize),
}

/// A [`Turn`], to be compiled for every instruction set.
struct Leading<'a, S: Lanes> {
    workspace: &'a Workspace<S>,
    lead: &'a mut Lead<S>,
    task: &'a Task<'a, S>,
    job: Job<'a, S>,
    turn: Turn,
}

/// What is asked of an episode.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a, S: Lanes> {
    pub(crate) matrices: &'a [Matrices<S>],
    pub(crate) sums: &'a Sums<S>,
    /// 1/B.
    pub(crate) share: f64,
    pub(crate) gradients: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic before")
}

impl<S: Lanes> Workspace<S> {
    /// Buffers for one episode; with `gradients`, also for the way back.
    pub(crate) fn new(
        network: &Network,
        shape: &Shape,
        plan: Plan,
        shares: &[Share],
        gradients: bool,
    ) -> Self {
        let (t, n, m) = (shape.n_steps, network.n_post, network.n_pre);
        let two = network.n_traces() == 2;
        let size = plan.size();
        let n_windows = t.div_ceil(size);
        let lane_count = lanes::<S>();
        let pair = |len: usize| [zeros(len), zeros(if two { len } else { 0 })];
        let back = |len: usize| if gradients { len } else { 0 };
        let lazy = matches!(plan, Plan::Lazy(_));
        let window = if lazy {
            Window::new(m, n, two, size, t, gradients)
        } else {
            Window::new(1, 1, two, 1, 1, false)
        };
        let connections = shares.iter().map(|share| {
            Mutex::new(if lazy {
                Connections::Lazy(lazy::Traces::new(share, two, n_windows, gradients))
            } else {
                Connections::Stepped(stepped::Traces::new(share, two, size, n_windows, gradients))
            })
        });
        let returns = shares.iter().map(|share| {
            let (columns, rows) = (share.by_columns.padded(), share.by_rows.padded());
            let lane_rows = if lazy { (size + 1) * n } else { m };
            Mutex::new(Returns {
                sums: zeros((2 + usize::from(two) + size) * columns.max(rows)),
                qc: zeros(back(size * rows)),
                lanes: pair(back(lane_rows * lane_count)),
                added: pair(back(lane_rows)),
            })
        });
        Workspace {
            plan,
            arch: arch(),
            n_steps: t,
            barrier: Barrier::new(shares.len()),
            connections: connections.collect(),
            returns: returns.collect(),
            lead: RwLock::new(Lead {
                neurons: Neurons::new(network, shape, gradients),
                window,
                x: Table::new(m, size.max(2)),
                collected: std::array::from_fn(|_| Rows::new(1, n)),
            }),
            shares: shares.to_vec(),
        }
    }

    /// Bytes that [`Workspace::new`] takes, but for rows of a few steps.
    pub(crate) fn bytes(network: &Network, shape: &Shape, plan: Plan, gradients: bool) -> u64 {
        let two = network.n_traces() == 2;
        let size = plan.size();
        let n_windows = shape.n_steps.div_ceil(size);
        let panels = Panels::new::<S>(network.n_pre, network.n_post).len();
        let mut per_step = Neurons::<S>::per_step(network, gradients);
        let per_connection = match plan {
            Plan::Lazy(_) => {
                per_step +=
                    if gradients { Window::<S>::per_step(network.n_post, two, size) } else { 0 };
                lazy::Traces::<S>::per_connection(two, n_windows, gradients)
            }
            Plan::Stepped(_) => {
                stepped::Traces::<S>::per_connection(two, size, n_windows, gradients)
            }
        };
        let elements = per_connection as u64 * panels as u64 + (shape.n_steps * per_step) as u64;
        elements * size_of::<S>() as u64
    }

    /// The threads' meeting point.
    pub(crate) fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// Lets `read` see the neurons.
    pub(crate) fn neurons<R>(&self, read: impl FnOnce(&Neurons<S>) -> R) -> R {
        read(&self.lead.read().expect("no panic before").neurons)
    }

    /// Calls `take(trace, pre, post, value)` for P of H (0) and of E (1) before the first
    /// step.
    pub(crate) fn adjoints(&self, mut take: impl FnMut(usize, usize, usize, S)) {
        for (share, connections) in self.shares.iter().zip(&self.connections) {
            match &*lock(connections) {
                Connections::Lazy(traces) => {
                    for (trace, p) in traces.adjoints().into_iter().enumerate() {
                        share.by_rows.rows(p, |post, first, values| {
                            for (k, &value) in values.iter().enumerate() {
                                take(trace, share.rows.start + first + k, post, value);
                            }
                        });
                    }
                }
                Connections::Stepped(traces) => {
                    for (trace, p) in traces.adjoints().into_iter().enumerate() {
                        share.by_columns.rows(p, |pre, first, values| {
                            for (k, &value) in values.iter().enumerate() {
                                take(trace, pre, share.columns.start + first + k, value);
                            }
                        });
                    }
                }
            }
        }
    }

    /// The first thread takes its turn while the others wait.
    fn turn(&self, thread: usize, task: &Task<'_, S>, job: Job<'_, S>, turn: Turn) {
        if thread == 0 {
            let lead = &mut *self.lead.write().expect("no panic before");
            self.arch.dispatch(Leading { workspace: self, lead, task, job, turn });
        }
        self.barrier.wait();
    }

    /// Runs an episode as thread number `thread` of those that share it; all of them must
    /// call it with the same task and job.
    pub(crate) fn run(&self, thread: usize, task: &Task<'_, S>, job: Job<'_, S>) {
        let connections = &mut *lock(&self.connections[thread]);
        let gradients = &mut *lock(&job.sums.shares[thread]);
        match self.plan {
            Plan::Lazy(size) => self.run_lazy(thread, connections, task, job, gradients, size),
            Plan::Stepped(size) => {
                self.run_stepped(thread, connections, task, job, gradients, size);
            }
        }
    }

    fn run_lazy(
        &self,
        thread: usize,
        connections: &mut Connections<S>,
        task: &Task<'_, S>,
        job: Job<'_, S>,
        gradients: &mut Gradients<S>,
        size: usize,
    ) {
        let Connections::Lazy(traces) = connections else { unreachable!("the plan is lazy") };
        let on =
            Site { arch: self.arch, share: &self.shares[thread], matrices: &job.matrices[thread] };
        let lead = || self.lead.read().expect("no panic before");
        let returns = || lock(&self.returns[thread]);
        traces.start(task, on);
        self.turn(thread, task, job, Turn::Start);
        for t in 0..self.n_steps {
            traces.gather_columns(on, &lead().window, t / size, &mut returns());
            self.barrier.wait();
            self.turn(thread, task, job, Turn::Advance(t));
            if (t + 1).is_multiple_of(size) && t + 1 < self.n_steps {
                let lead = lead();
                traces.commit(on, &lead.neurons, &lead.window, t / size);
            }
        }
        self.turn(thread, task, job, Turn::Loss);
        if !job.gradients {
            return;
        }
        self.turn(thread, task, job, Turn::Enter(self.n_steps));
        for t in (0..self.n_steps).rev() {
            traces.gather_rows(on, &lead().window, t / size, &mut returns());
            self.barrier.wait();
            self.turn(thread, task, job, Turn::Retreat(t));
            if t.is_multiple_of(size) {
                let earlier = (t / size).checked_sub(1);
                {
                    let lead = lead();
                    let out = &mut returns();
                    traces.fold(on, &lead.neurons, &lead.window, earlier, gradients, out);
                }
                self.barrier.wait();
                if t > 0 {
                    self.turn(thread, task, job, Turn::Enter(t));
                }
            }
        }
        traces.finish(task, on, gradients);
    }

    fn run_stepped(
        &self,
        thread: usize,
        connections: &mut Connections<S>,
        task: &Task<'_, S>,
        job: Job<'_, S>,
        gradients: &mut Gradients<S>,
        size: usize,
    ) {
        let Connections::Stepped(traces) = connections else { unreachable!("there is a clip") };
        let on =
            Site { arch: self.arch, share: &self.shares[thread], matrices: &job.matrices[thread] };
        let clip = S::from_f64(task.network.trace_clip().expect("there is a clip"));
        let lead = || self.lead.read().expect("no panic before");
        let returns = || lock(&self.returns[thread]);
        traces.start(task, on);
        self.turn(thread, task, job, Turn::Start);
        for t in 0..self.n_steps {
            {
                let lead = lead();
                let store = t.is_multiple_of(size).then_some(t / size);
                let from = t.saturating_sub(1);
                let source = Source::new(on, clip, &lead.neurons, &lead.x, from);
                traces.forward(on, source, t > 0, store, &mut returns());
            }
            self.barrier.wait();
            self.turn(thread, task, job, Turn::Advance(t));
        }
        self.turn(thread, task, job, Turn::Loss);
        if !job.gradients {
            return;
        }
        let mut end = self.n_steps;
        while end > 0 {
            let first = (end - 1) / size * size;
            {
                let lead = lead();
                let source = Source::new(on, clip, &lead.neurons, &lead.x, first);
                traces.enter(on, source, first / size, end - first, &mut returns());
            }
            self.barrier.wait();
            self.turn(thread, task, job, Turn::Enter(end));
            for t in (first..end).rev() {
                {
                    let lead = lead();
                    let source = Source::new(on, clip, &lead.neurons, &lead.x, first);
                    let out = &mut returns();
                    traces.back(on, source, end - first, t - first, gradients, out);
                }
                self.barrier.wait();
                self.turn(thread, task, job, Turn::Retreat(t));
            }
            end = first;
        }
    }
}

impl<S: Lanes> WithSimd for Leading<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) {
        match self.workspace.plan {
            Plan::Lazy(size) => self.lazy(size),
            Plan::Stepped(size) => self.stepped(size),
        }
    }
}

impl<S: Lanes> Leading<'_, S> {
    /// The adjoint of step `t`, given the column sums that it asks for: q, r, e.
    #[inline(always)]
    fn retreat(
        neurons: &mut Neurons<S>,
        [q, r, e]: [&Rows<S>; 3],
        task: &Task<'_, S>,
        job: Job<'_, S>,
        t: usize,
    ) {
        let n = task.network.n_post;
        let collected = Adjoint { q: &q.row(0)[..n], r: &r.row(0)[..n], e: &e.row(0)[..n] };
        let mut sums = lock(&job.sums.rule);
        neurons.retreat(task, t, &collected, &mut sums.0);
    }

    #[inline(always)]
    fn loss(&mut self) {
        let loss = self.lead.neurons.loss(self.task, self.job.share);
        lock(&self.job.sums.rule).1 += loss;
    }

    #[inline(always)]
    fn lazy(mut self, size: usize) {
        let Leading { workspace, task, job, .. } = self;
        let n_steps = workspace.n_steps;
        let returned = || workspace.shares.iter().zip(workspace.returns.iter().map(lock));
        let Lead { neurons, window, .. } = &mut *self.lead;
        match self.turn {
            Turn::Start => {
                neurons.start(task);
                window.start(0);
                window.gather_forward(neurons);
            }
            Turn::Advance(t) => {
                for (share, returns) in returned() {
                    let columns = share.by_columns.padded();
                    window.put_sums(share.columns.start, columns, &returns.sums);
                }
                window.plastic_sum(&mut neurons.plastic);
                neurons.advance(task, t);
                window.push(neurons, t);
                if t + 1 == n_steps {
                    return;
                }
                if (t + 1).is_multiple_of(size) {
                    window.commit();
                }
                window.gather_forward(neurons);
            }
            Turn::Loss => {
                self.loss();
                let Lead { neurons, window, .. } = self.lead;
                if job.gradients {
                    neurons.turn_back();
                    window.nothing_later();
                    window.turn(neurons, (n_steps - 1) / size * size..n_steps);
                }
            }
            Turn::Enter(end) => {
                if end < n_steps {
                    for (share, returns) in returned() {
                        window.put_fold(share, &returns);
                    }
                }
                window.adjoint_products(neurons);
                let k = window.n_steps - 1;
                window.collect(neurons, k);
                Self::retreat(neurons, window.collected(), task, job, end - 1);
                window.gather_backward(neurons, k);
            }
            Turn::Retreat(t) => {
                let k = t - window.first;
                for (share, returns) in returned() {
                    let columns = share.by_rows.padded();
                    let from = share.rows.start;
                    window.put_row_sums(k, from, columns, &returns.sums);
                }
                let d_x = window.row_sums(neurons, k);
                neurons.d_x.row_mut(t).copy_from_slice(d_x);
                neurons.hand_back(t);
                if k > 0 {
                    window.collect(neurons, k - 1);
                    Self::retreat(neurons, window.collected(), task, job, t - 1);
                    window.gather_backward(neurons, k - 1);
                } else {
                    window.turn(neurons, t.saturating_sub(size)..t);
                }
            }
        }
    }

    #[inline(always)]
    fn stepped(mut self, size: usize) {
        let Leading { workspace, task, job, .. } = self;
        let n_steps = workspace.n_steps;
        let returned = || workspace.shares.iter().zip(workspace.returns.iter().map(lock));
        let Lead { neurons, x, collected, .. } = &mut *self.lead;
        // q, r and e follow each other in the sums
        let collect = |collected: &mut [Rows<S>; 3]| {
            for (share, returns) in returned() {
                let columns = share.by_columns.padded();
                for (rows, sums) in collected.iter_mut().zip(returns.sums.chunks(columns.max(1))) {
                    let from = share.columns.start;
                    rows.row_mut(0)[from..from + columns].copy_from_slice(&sums[..columns]);
                }
            }
        };
        let set_window = |x: &mut Table<S>, neurons: &Neurons<S>, end: usize| {
            x.reset(size);
            let first = (end - 1) / size * size;
            for t in first..end {
                x.set(t - first, neurons.x(t));
            }
        };
        match self.turn {
            Turn::Start => {
                neurons.start(task);
                x.reset(2);
                x.set(1, neurons.x(0));
            }
            Turn::Advance(t) => {
                for (share, returns) in returned() {
                    let columns = share.columns.clone();
                    let sums = &returns.sums[..columns.len()];
                    neurons.plastic[columns].copy_from_slice(sums);
                }
                neurons.advance(task, t);
                if t + 1 < n_steps {
                    x.set(0, neurons.x(t));
                    x.set(1, neurons.x(t + 1));
                }
            }
            Turn::Loss => {
                self.loss();
                let Lead { neurons, x, .. } = self.lead;
                if job.gradients {
                    neurons.turn_back();
                    set_window(x, neurons, n_steps);
                }
            }
            Turn::Enter(end) => {
                collect(collected);
                Self::retreat(neurons, collected.each_ref(), task, job, end - 1);
            }
            Turn::Retreat(t) => {
                let d_x = &mut neurons.d_x.row_mut(t)[..task.network.n_pre];
                d_x.fill(S::ZERO);
                for (_, returns) in returned() {
                    for (d_x, &sum) in d_x.iter_mut().zip(&*returns.added[0]) {
                        *d_x += sum;
                    }
                }
                neurons.hand_back(t);
                if !t.is_multiple_of(size) {
                    collect(collected);
                    Self::retreat(neurons, collected.each_ref(), task, job, t - 1);
                } else if t > 0 {
                    set_window(x, neurons, t);
                }
            }
        }
    }
}
