//! One episode on the CPU, forward and backward, in buffers made once. One or more threads
//! share its connections; the first also does what belongs to the neurons, while the others
//! wait.

use std::sync::{Mutex, MutexGuard, RwLock};

use pulp::WithSimd;

use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::form::{self, Form};
use crate::engine::cpu::lazy::Kept;
use crate::engine::cpu::lazy::gradients::column_len;
use crate::engine::cpu::lazy::window::Window;
use crate::engine::cpu::neurons::Neurons;
use crate::engine::cpu::panels::{ROWS, Rows, Table, padded};
use crate::engine::cpu::share::{Gradients, Matrices, Returns, Share, Site};
use crate::engine::cpu::simd::{Instructions, Lanes};
use crate::engine::cpu::stepped::Source;
use crate::engine::cpu::task::Task;
use crate::engine::cpu::team::Barrier;
use crate::engine::cpu::{Cpu, each, lazy, stepped};
use crate::engine::{Engine, Work};
use crate::error::Result;
use crate::model::{Adjoint, AlphaSharing, Layout, Network, Shape, Tensor};

/// How an episode's traces are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// No clip, vectors of several lanes: `lazy`, windows of `size` steps; `frugal` keeps as few traces
    /// as it can.
    Lazy { size: usize, frugal: bool },
    /// Else: `stepped`, windows of that many steps.
    Stepped(usize),
}

impl Plan {
    /// What an update's sweeps move and compute, from traces of zero; rows of neurons and the
    /// optimiser are not counted.
    pub(crate) fn work<S: Lanes>(self, network: &Network, shape: &Shape, shares: &[Share]) -> Work {
        let lanes = shares[0].side_by_side();
        let traces = network.n_traces() as u64;
        let steps = shape.n_steps as u64;
        let size = steps.min(self.size() as u64);
        let windows = steps.div_ceil(size);
        // numbers that episodes side by side read together, w and alpha, and each its own
        let (shared, own, multiply_adds) = match self {
            Plan::Lazy { .. } => {
                let again = self.kept::<S>(network, shape, shares, true).n_again() as u64;
                // sums forward and backward; alpha at a window's two ends, and formed again
                let shared = 4 * steps + 2 * windows + again;
                // sums with alpha H (and alpha E); before and after a commit; alpha H, and P
                // twice, in a fold; gradients
                let with_traces = steps.saturating_sub(size);
                let own = 2 * traces * (with_traces + again) + (4 * traces + 1) * windows + 4;
                let products = 2 + (size - 1);
                // commit; fold's P and its sums along and down; gradients
                let at_ends = 4 * traces + if traces == 2 { 7 } else { 5 };
                let sums = steps * (products + at_ends) + 2 * traces * with_traces;
                (shared, own, sums + again * traces * (1 + size))
            }
            Plan::Stepped(_) => {
                // H (and E) forward; formed again; of the step and of the one before on the way
                // back, with P; for the gradients
                let (own, multiply_adds) = match (traces, network.rule.uses_eta()) {
                    (1, false) => (7, 17),
                    (1, true) => (8, 18),
                    _ => (13, 24),
                };
                // stored traces, P and the gradients
                let own = own * steps + (5 + 3 * traces) * windows;
                (4 * steps + windows, own, steps * multiply_adds)
            }
        };
        let connections = network.n_connections() as u64;
        let episodes = (network.n_networks * shape.n_batch) as u64;
        let groups = (network.n_networks * shape.n_batch.div_ceil(lanes)) as u64;
        Work {
            bytes: 4 * connections * (shared * groups + own * episodes),
            multiply_adds: multiply_adds * connections * episodes,
            dispatches: 0,
        }
    }

    /// The traces that the lazy plan keeps.
    pub(crate) fn kept<S: Lanes>(
        self,
        network: &Network,
        shape: &Shape,
        shares: &[Share],
        back: bool,
    ) -> Kept {
        let connections: usize = shares.iter().map(Share::matrix_len).sum();
        let bytes = connections * network.n_traces() * size_of::<S>();
        let frugal = matches!(self, Plan::Lazy { frugal: true, .. });
        Kept::new(shape.n_steps.div_ceil(self.size()), bytes, back, frugal)
    }

    fn size(self) -> usize {
        match self {
            Plan::Lazy { size, .. } | Plan::Stepped(size) => size,
        }
    }
}

/// What a part of a batch adds up: loss and gradients of one network.
pub(crate) struct Sums<S: Lanes> {
    /// dL/dw and dL/dalpha, a part for each thread of an episode.
    pub(crate) shares: Vec<Mutex<Gradients<S>>>,
    /// The rule's parameters, which end the flat array, and the loss.
    pub(crate) rule: Mutex<(Aligned<S>, f64)>,
}

impl<S: Lanes> Sums<S> {
    pub(crate) fn new(
        buffers: &mut Buffers,
        layout: &Layout,
        shares: &[Share],
        gradients: bool,
    ) -> Self {
        let new = |share| Gradients::new(buffers, share, gradients).into();
        Sums {
            shares: shares.iter().map(new).collect(),
            rule: Mutex::new((buffers.zeros(layout.len() - layout.at_rule()), 0.0)),
        }
    }

    /// Starts a part: sets the rule's gradients to zero, and of one without episodes all that
    /// thread `thread` adds up (else its first episode does).
    pub(crate) fn start(&self, thread: usize, empty: bool) {
        if empty {
            lock(&self.shares[thread]).clear();
        }
        if thread == 0 {
            let mut rule = lock(&self.rule);
            rule.0.fill(S::ZERO);
            rule.1 = 0.0;
        }
    }

    /// Ends a part.
    pub(crate) fn end(&self, thread: usize, share: &Share) {
        if share.side_by_side() > 1 {
            lock(&self.shares[thread]).add_up(share);
        }
    }

    pub(crate) fn loss(&self) -> f64 {
        lock(&self.rule).1
    }

    /// Adds all gradients to a network's flat array, or replaces it where this is the first
    /// part to be added.
    pub(crate) fn add_to(
        &self,
        network: &Network,
        layout: &Layout,
        shares: &[Share],
        mask: &[S],
        first: bool,
        out: &mut [S],
    ) {
        let each = network.alpha == AlphaSharing::PerConnection;
        let rule = &mut out[layout.at_rule()..];
        if first {
            rule.fill(S::ZERO);
        }
        for (out, &value) in rule.iter_mut().zip(&*lock(&self.rule).0) {
            *out += value;
        }
        let part = |tensor| layout.find(tensor).map_or(0..0, |e| e.offset..e.offset + e.len);
        let masked = |out: &mut [S]| {
            out.iter_mut().zip(mask).for_each(|(value, &mask)| *value = *value * mask);
        };
        let d_w = &mut out[part(Tensor::W)];
        self.add_matrix(network, shares, |g| &g.d_w, first, d_w);
        masked(d_w);
        let d_alpha = &mut out[part(Tensor::Alpha)];
        if each {
            self.add_matrix(network, shares, |g| &g.d_alpha, first, d_alpha);
            masked(d_alpha);
            return;
        }
        if first {
            d_alpha.fill(S::ZERO);
        }
        let mut total = 0.0;
        for (share, gradients) in shares.iter().zip(&self.shares) {
            let gradients = lock(gradients);
            share.panels.rows(|row, columns, place| {
                let values = &gradients.d_alpha[place..][..columns.len()];
                let at = row * network.n_post + share.columns.start + columns.start;
                let kept: Vec<S>;
                let values = match mask.get(at..) {
                    Some(mask) if !mask.is_empty() => {
                        kept = values.iter().zip(mask).map(|(&v, &mask)| v * mask).collect();
                        &kept[..]
                    }
                    _ => values,
                };
                if network.alpha == AlphaSharing::PerNetwork {
                    total += values.iter().map(|v| v.to_f64()).sum::<f64>();
                } else {
                    let out = &mut d_alpha[share.columns.start + columns.start..];
                    for (out, &value) in out.iter_mut().zip(values) {
                        *out += value;
                    }
                }
            });
        }
        if network.alpha == AlphaSharing::PerNetwork {
            d_alpha[0] += S::from_f64(total);
        }
    }

    /// Adds a matrix to a row-major one `[M, N]`, the threads over its rows.
    fn add_matrix(
        &self,
        network: &Network,
        shares: &[Share],
        matrix: impl Fn(&Gradients<S>) -> &[S] + Sync,
        first: bool,
        out: &mut [S],
    ) {
        let n = network.n_post;
        let gradients: Vec<_> = self.shares.iter().map(lock).collect();
        let gradients: Vec<&[S]> = gradients.iter().map(|g| matrix(g)).collect();
        each(out.chunks_mut(ADDED_ROWS * n).enumerate(), 1, |(chunk, out)| {
            for (share, values) in shares.iter().zip(&gradients) {
                let out = &mut out[share.columns.start..];
                share.panels.add_rows(values, chunk * ADDED_ROWS, first, out, n);
            }
        });
    }
}

/// Rows of a matrix that a thread adds at a time.
const ADDED_ROWS: usize = 64;

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
    /// Of the stepped plan: x of two steps, or of a window; q, r and e of a step.
    x: Table<S>,
    collected: [Rows<S>; 3],
}

/// Buffers of an episode, or of some side by side, of a given shape.
pub(crate) struct Workspace<S: Lanes> {
    plan: Plan,
    arch: Instructions<S>,
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
    /// After the backward pass: the gradients of what stands around the core.
    Finish,
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
    /// Whether it is the first of its part, whose gradients replace what was there.
    pub(crate) first: bool,
    /// Whether P before the first step is asked for.
    pub(crate) adjoints: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic before")
}

impl<S: Lanes> Workspace<S> {
    /// Buffers for an episode that `shares` share, or for as many as lie side by side in one;
    /// with `gradients`, also for the backward pass.
    pub(crate) fn new(
        buffers: &mut Buffers,
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
        let back = |len: usize| if gradients { len } else { 0 };
        let lazy = matches!(plan, Plan::Lazy { .. });
        let clipped = |len: usize| if lazy { 0 } else { len };
        let kept = plan.kept::<S>(network, shape, shares, gradients);
        let episodes = shares[0].side_by_side();
        let wide = (m * episodes, n * episodes);
        let window = if lazy {
            Window::new(buffers, wide, two, size, t, gradients, episodes)
        } else {
            Window::new(buffers, (1, 1), two, 1, 1, false, 1)
        };
        let mut traces = |share| {
            Mutex::new(if lazy {
                Connections::Lazy(lazy::Traces::new(buffers, share, two, kept))
            } else {
                let traces = stepped::Traces::new(buffers, share, two, size, n_windows, gradients);
                Connections::Stepped(traces)
            })
        };
        let connections = shares.iter().map(&mut traces).collect();
        let mut returns = |share: &Share| {
            let row = share.row_len();
            let lane_rows = back(if lazy { size * ROWS } else { m });
            // a window's rows, and a tile of Q
            let tile = share.panels.most_in_tile() * share.lanes;
            let (qx, q) = if lazy { (back((size + 1) * row), back(tile)) } else { (0, 0) };
            let n_sums = if lazy { 2 + usize::from(two) + size } else { 3 };
            let rows = if lazy { 2 * (1 + usize::from(two)) * size * row } else { 0 };
            Mutex::new(Returns {
                sums: buffers.zeros(n_sums * row.max(padded(wide.0))),
                qx: buffers.traces(qx, two),
                rows: buffers.zeros(rows),
                q: buffers.traces(q, two),
                lanes: buffers.zeros(lane_rows * share.lanes),
                added: buffers.zeros(clipped(back(wide.0))),
                column: buffers.zeros(back(if lazy { column_len(t, share.lanes) } else { 0 })),
            })
        };
        let returns = shares.iter().map(&mut returns).collect();
        let lead = Lead {
            neurons: Neurons::new(buffers, network, shape, episodes, gradients),
            window,
            x: Table::new(buffers, clipped(m), size.max(2), episodes),
            collected: std::array::from_fn(|_| Rows::new(buffers, 1, clipped(wide.1))),
        };
        Workspace {
            plan,
            arch: Instructions::widest(),
            n_steps: t,
            barrier: Barrier::new(shares.len()),
            connections,
            returns,
            lead: RwLock::new(lead),
            shares: shares.to_vec(),
        }
    }

    /// The threads' meeting point.
    pub(crate) fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// Episodes that it runs at a time.
    pub(crate) fn side_by_side(&self) -> usize {
        self.shares[0].side_by_side()
    }

    /// Lets `read` see the neurons.
    pub(crate) fn neurons<R>(&self, read: impl FnOnce(&Neurons<S>) -> R) -> R {
        read(&self.lead.read().expect("no panic before").neurons)
    }

    /// Calls `take(trace, c, value)` for P of H (0) and of E (1) of connection c before the
    /// first step, of the `lane`-th episode.
    pub(crate) fn adjoints(
        &self,
        network: &Network,
        lane: usize,
        mut take: impl FnMut(usize, usize, S),
    ) {
        for (share, connections) in self.shares.iter().zip(&self.connections) {
            let connections = lock(connections);
            let adjoints = match &*connections {
                Connections::Lazy(traces) => traces.adjoints(),
                Connections::Stepped(traces) => traces.adjoints(),
            };
            for (trace, p) in adjoints.into_iter().enumerate().filter(|(_, p)| !p.is_empty()) {
                share.connections(network, lane, |c, _, own| take(trace, c, p[own]));
            }
        }
    }

    /// The first thread takes its turn while the others wait.
    fn turn(&self, thread: usize, task: &Task<'_, S>, job: Job<'_, S>, turn: Turn) {
        if thread == 0 {
            let lead = &mut *self.lead.write().expect("no panic before");
            self.arch.run(Leading { workspace: self, lead, task, job, turn });
        }
        self.barrier.wait();
    }

    /// Runs an episode as thread number `thread` of those that share it; all of them must
    /// call it with the same task and job.
    fn run(&self, thread: usize, task: &Task<'_, S>, job: Job<'_, S>) {
        let connections = &mut *lock(&self.connections[thread]);
        let gradients = &mut *lock(&job.sums.shares[thread]);
        match self.plan {
            Plan::Lazy { size, .. } if self.side_by_side() > 1 => {
                self.run_lazy::<form::Episodes>(thread, connections, task, job, gradients, size);
            }
            Plan::Lazy { size, .. } => {
                self.run_lazy::<form::Neurons>(thread, connections, task, job, gradients, size);
            }
            Plan::Stepped(size) if self.side_by_side() > 1 => {
                self.run_stepped::<form::Episodes>(thread, connections, task, job, gradients, size);
            }
            Plan::Stepped(size) => {
                self.run_stepped::<form::Neurons>(thread, connections, task, job, gradients, size);
            }
        }
    }

    fn run_lazy<F: Form>(
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
            traces.gather_down::<F>(on, &lead().window, t / size, &mut returns());
            self.barrier.wait();
            self.turn(thread, task, job, Turn::Advance(t));
            if (t + 1).is_multiple_of(size) && t + 1 < self.n_steps {
                traces.commit::<F>(on, &lead().window, t / size, &mut returns());
            }
        }
        self.turn(thread, task, job, Turn::Loss);
        if !job.gradients {
            return;
        }
        self.turn(thread, task, job, Turn::Enter(self.n_steps));
        for t in (0..self.n_steps).rev() {
            traces.gather_along::<F>(on, &lead().window, t / size, &mut returns());
            self.barrier.wait();
            self.turn(thread, task, job, Turn::Retreat(t));
            if t.is_multiple_of(size) {
                if t == 0 && !job.adjoints {
                    break;
                }
                {
                    let lead = lead();
                    let out = &mut returns();
                    let w = (t / size).saturating_sub(1);
                    traces.form_again::<F>(on, &lead.window, w, out);
                    traces.fold::<F>(on, &lead.neurons, &lead.window, w, out);
                }
                self.barrier.wait();
                if t > 0 {
                    self.turn(thread, task, job, Turn::Enter(t));
                }
            }
        }
        self.turn_finish(thread, task, job);
        let lead = lead();
        let out = &mut returns();
        traces.finish::<F>(task, on, &lead.neurons, &lead.window, (job.first, gradients), out);
    }

    fn run_stepped<F: Form>(
        &self,
        thread: usize,
        connections: &mut Connections<S>,
        task: &Task<'_, S>,
        job: Job<'_, S>,
        gradients: &mut Gradients<S>,
        size: usize,
    ) {
        let Connections::Stepped(traces) = connections else { unreachable!("the plan is stepped") };
        let on =
            Site { arch: self.arch, share: &self.shares[thread], matrices: &job.matrices[thread] };
        let lead = || self.lead.read().expect("no panic before");
        let returns = || lock(&self.returns[thread]);
        if job.first {
            gradients.clear();
        }
        traces.start(task, on);
        self.turn(thread, task, job, Turn::Start);
        for t in 0..self.n_steps {
            {
                let lead = lead();
                let store = t.is_multiple_of(size).then_some(t / size);
                let from = t.saturating_sub(1);
                let source = Source::new(task, on, &lead.neurons, &lead.x, from);
                traces.forward::<F>(on, source, t > 0, store, &mut returns());
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
                let source = Source::new(task, on, &lead.neurons, &lead.x, first);
                traces.enter::<F>(on, source, first / size, end - first, &mut returns());
            }
            self.barrier.wait();
            self.turn(thread, task, job, Turn::Enter(end));
            for t in (first..end).rev() {
                {
                    let lead = lead();
                    let source = Source::new(task, on, &lead.neurons, &lead.x, first);
                    let out = &mut returns();
                    traces.back::<F>(on, source, end - first, t - first, gradients, out);
                }
                self.barrier.wait();
                self.turn(thread, task, job, Turn::Retreat(t));
            }
            end = first;
        }
        self.turn_finish(thread, task, job);
    }

    /// [`Turn::Finish`], where there is anything around the core.
    fn turn_finish(&self, thread: usize, task: &Task<'_, S>, job: Job<'_, S>) {
        if !task.network.is_core() {
            self.turn(thread, task, job, Turn::Finish);
        }
    }
}

/// A scalar type whose engine is compiled here, once: who uses it calls it, and does not compile it
/// again.
pub(crate) trait Compiled: Lanes {
    /// [`cpu::open`](crate::engine::cpu::open).
    fn open(network: &Network) -> Result<Box<dyn Engine<Self>>>;

    /// [`Workspace::run`].
    fn run(workspace: &Workspace<Self>, thread: usize, task: &Task<'_, Self>, job: Job<'_, Self>);
}

macro_rules! compiled {
    ($($scalar:ty)*) => {
        $(impl Compiled for $scalar {
            fn open(network: &Network) -> Result<Box<dyn Engine<Self>>> {
                Ok(Box::new(Cpu::<$scalar>::new(network)?))
            }

            #[inline(never)]
            fn run(
                workspace: &Workspace<Self>,
                thread: usize,
                task: &Task<'_, Self>,
                job: Job<'_, Self>,
            ) {
                workspace.run(thread, task, job);
            }
        })*
    };
}
compiled!(f32 f64);

/// [`Neurons::advance`]. This job and the next two are what several turns have in common, so that
/// it is compiled once.
struct Advance<'a, S: Lanes> {
    neurons: &'a mut Neurons<S>,
    task: &'a Task<'a, S>,
    t: usize,
}

impl<S: Lanes> WithSimd for Advance<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) {
        self.neurons.advance(self.task, self.t);
    }
}

/// [`Neurons::loss`].
struct Score<'a, S: Lanes> {
    neurons: &'a mut Neurons<S>,
    task: &'a Task<'a, S>,
    job: Job<'a, S>,
}

impl<S: Lanes> WithSimd for Score<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) {
        let loss = self.neurons.loss(self.task, self.job.share);
        lock(&self.job.sums.rule).1 += loss;
    }
}

/// [`Neurons::retreat`] of step `t`, given the column sums that it asks for: q, r, e.
struct Retreat<'a, S: Lanes> {
    neurons: &'a mut Neurons<S>,
    collected: [&'a Rows<S>; 3],
    task: &'a Task<'a, S>,
    job: Job<'a, S>,
    t: usize,
}

impl<S: Lanes> WithSimd for Retreat<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) {
        let Retreat { neurons, collected: [q, r, e], task, job, t } = self;
        let (n, lanes) = (neurons.len(), neurons.lanes);
        let collected = Adjoint { lanes, q: &q.row(0)[..n], r: &r.row(0)[..n], e: &e.row(0)[..n] };
        let mut sums = lock(&job.sums.rule);
        neurons.retreat(task, t, &collected, &mut sums.0);
    }
}

impl<S: Lanes> WithSimd for Leading<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, a: A) {
        match self.workspace.plan {
            Plan::Lazy { size, .. } => self.lazy(a, size),
            Plan::Stepped(size) => self.stepped(size),
        }
    }
}

impl<S: Lanes> Leading<'_, S> {
    #[inline(always)]
    fn lazy<A: pulp::Simd>(self, a: A, size: usize) {
        let Leading { workspace, task, job, .. } = self;
        let (n_steps, arch) = (workspace.n_steps, workspace.arch);
        let returned = || workspace.shares.iter().zip(workspace.returns.iter().map(lock));
        let Lead { neurons, window, .. } = &mut *self.lead;
        match self.turn {
            Turn::Start => {
                neurons.start(task, job.gradients);
                window.start_episode(task.starts_at_zero());
                window.gather_forward(a, neurons);
            }
            Turn::Advance(t) => {
                for (share, returns) in returned() {
                    let columns = (share.columns.start, share.row_len());
                    window.take_sums(a, columns, &returns.sums, &mut neurons.plastic);
                }
                arch.run(Advance { neurons, task, t });
                window.push(a, neurons, t);
                if t + 1 == n_steps {
                    return;
                }
                if (t + 1).is_multiple_of(size) {
                    window.commit();
                }
                window.gather_forward(a, neurons);
            }
            Turn::Finish => neurons.finish(task, &mut lock(&job.sums.rule).0),
            Turn::Loss => {
                arch.run(Score { neurons, task, job });
                if job.gradients {
                    neurons.turn_back();
                    window.nothing_later();
                    window.turn(a, neurons, (n_steps - 1) / size * size..n_steps);
                }
            }
            Turn::Enter(end) => {
                if end < n_steps {
                    for (share, returns) in returned() {
                        window.put_fold(share, &returns);
                    }
                }
                window.adjoint_products(a, neurons);
                let k = window.n_steps - 1;
                window.collect(a, neurons, k);
                let collected = window.collected();
                arch.run(Retreat { neurons, collected, task, job, t: end - 1 });
                window.gather_backward(a, neurons, k);
            }
            Turn::Retreat(t) => {
                let k = t - window.first;
                for (_, returns) in returned() {
                    window.put_row_sums(a, neurons, k, &returns.sums);
                }
                neurons.d_x.row_mut(t).copy_from_slice(window.d_x(k));
                neurons.hand_back(t);
                if k > 0 {
                    window.collect(a, neurons, k - 1);
                    let collected = window.collected();
                    arch.run(Retreat { neurons, collected, task, job, t: t - 1 });
                    window.gather_backward(a, neurons, k - 1);
                } else {
                    window.turn(a, neurons, t.saturating_sub(size)..t);
                }
            }
        }
    }

    #[inline(always)]
    fn stepped(self, size: usize) {
        let Leading { workspace, task, job, .. } = self;
        let (n_steps, arch) = (workspace.n_steps, workspace.arch);
        let returned = || workspace.shares.iter().zip(workspace.returns.iter().map(lock));
        let Lead { neurons, x, collected, .. } = &mut *self.lead;
        // q, r and e follow each other in the sums
        let collect = |collected: &mut [Rows<S>; 3]| {
            for (share, returns) in returned() {
                let columns = share.row_len();
                for (rows, sums) in collected.iter_mut().zip(returns.sums.chunks(columns)) {
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
                neurons.start(task, job.gradients);
                x.reset(2);
                x.set(1, neurons.x(0));
            }
            Turn::Advance(t) => {
                for (share, returns) in returned() {
                    let (from, columns) = (share.columns.start, share.row_len());
                    neurons.plastic[from..from + columns].copy_from_slice(&returns.sums[..columns]);
                }
                arch.run(Advance { neurons, task, t });
                if t + 1 < n_steps {
                    x.set(0, neurons.x(t));
                    x.set(1, neurons.x(t + 1));
                }
            }
            Turn::Finish => neurons.finish(task, &mut lock(&job.sums.rule).0),
            Turn::Loss => {
                arch.run(Score { neurons, task, job });
                if job.gradients {
                    neurons.turn_back();
                    set_window(x, neurons, n_steps);
                }
            }
            Turn::Enter(end) => {
                collect(collected);
                let collected = collected.each_ref();
                arch.run(Retreat { neurons, collected, task, job, t: end - 1 });
            }
            Turn::Retreat(t) => {
                let d_x = neurons.d_x.row_mut(t);
                d_x.fill(S::ZERO);
                for (_, returns) in returned() {
                    for (d_x, &sum) in d_x.iter_mut().zip(&*returns.added) {
                        *d_x += sum;
                    }
                }
                neurons.hand_back(t);
                if !t.is_multiple_of(size) {
                    collect(collected);
                    let collected = collected.each_ref();
                    arch.run(Retreat { neurons, collected, task, job, t: t - 1 });
                } else if t > 0 {
                    set_window(x, neurons, t);
                }
            }
        }
    }
}
