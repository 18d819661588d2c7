//! The CPU engine, in f32 and f64. The f64 instance is the oracle for every other engine.
//!
//! An episode is what its neurons did (`neurons`, O(N)) and what its connections hold
//! (O(N^2)): traces without a clip by `lazy`, with one by `stepped`; `episode` runs both. Rules without
//! kernels of their own, resets, truncation and a cotangent of H are for `general`.
//! Each thread runs episodes of its own where there are enough of them and their traces fit
//! the caches, those of small networks side by side in the lanes of its vectors; else the
//! threads share the connections of one episode, by columns. Gradients of the parts of a batch
//! are added in a fixed order, so one machine gives the same bits each time.

mod around;
mod buffer;
mod embedding;
mod episode;
mod evolve;
mod form;
mod general;
mod lazy;
pub mod limits;
mod living;
mod neurons;
mod panels;
mod share;
mod simd;
mod stepped;
mod task;
mod team;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::engine::cpu::buffer::Buffers;
use crate::engine::cpu::episode::{Compiled, Job, Plan, Sums, Workspace};
use crate::engine::cpu::general::{Batch, Equations};
use crate::engine::cpu::living::Living;
use crate::engine::cpu::neurons::Neurons;
use crate::engine::cpu::panels::Rows;
use crate::engine::cpu::share::{Matrices, Share, n_panels, side_by_side, split};
use crate::engine::cpu::task::{Task, take_lane};
use crate::engine::memory::{available_memory, check_memory};
use crate::engine::{
    CpuShares, Description, Engine, Gradients, Held, LifeId, Lives, Outputs, PlanDescription,
    Program, Programs, Report, State, Want, check_life, check_set_back, no_gradients,
};
use crate::error::{Error, Result};
use crate::model::{
    Episodes, Layout, Leak, Linear, Network, Optimiser, Parameters, Rule, Shape, Signals, StepSize,
    Tensor,
};

pub use simd::instructions;

pub(crate) use simd::Lanes;

use embedding::Embedded;

use simd::Instructions;

/// Steps between stored traces. A longer window reads less and computes more.
const WINDOW: usize = 5;
/// The same for an episode that fits a core's own cache, where reading costs less: at 51 neurons
/// `hebbian bench` takes 1.1 times as long with 3 or 5.
const CACHED_WINDOW: usize = 4;
/// The same with a clip: every step is evolved whatever the window, but P and the gradients are
/// read and written once in it. With 5 `bench --rule modulated --clip 1` takes 1.05 times as long
/// at 100 neurons, 1.03 at 51, 1.06 at 300.
const CLIPPED_WINDOW: usize = 8;
const _: () = assert!(WINDOW <= lazy::MOST_STEPS && CACHED_WINDOW <= lazy::MOST_STEPS);

/// Traces and weights of one episode above this many bytes fall out of a core's own
/// cache: then the threads share an episode instead of running one each.
const PRIVATE_BYTES: usize = 2 << 20;

/// Connections that a thread must have of an episode that several share: with fewer, waiting for
/// each other costs more than there is to gain. Two threads on one core, `bench --batch 1 --steps 60`:
/// 3.2 ms for 0.7 at 201 neurons, 5.1 for 2.3 at 301, 2.7 for 4.7 at 401.
const PER_THREAD: usize = 1 << 16;

/// Steps of connections that a thread must have of a batch that several share: with fewer, some 100
/// microseconds, waking them costs as much as there is to gain, and more on a busy machine.
const PART_WORK: usize = 1 << 17;

/// Lanes are episodes where one trace of as many as a vector has lanes takes at most so many
/// bytes: with more, what the wider working set costs outweighs what there is to gain (with AVX2
/// 0.36 of the time at 20 neurons, 0.65 at 51, 0.84 at 80 in long episodes; of 100 steps 0.90 at
/// 64, 1.00 at 100, 1.11 at 120).
const WIDE_TRACE: usize = 1 << 18;
/// The same with a clip, which needs the traces of a window's every step: it takes 0.72 of the time
/// at 51 neurons and 11 steps; of 100 steps 0.9 at 45 and 56, 1.02 at 60, 1.09 at 80; with two
/// traces 0.9 at 50, 1.2 at 64.
const WIDE_CLIPPED_TRACE: usize = 100 << 10;
/// And where all that is kept for them takes at most so many, of a thread: very long episodes
/// are not to fill the memory.
const WIDE_WORKSPACE: u64 = 256 << 20;

/// How many parameters a thread takes at a time in element-wise work.
const CHUNK: usize = 1 << 14;

/// An engine for `network` with all parameters zero, in f32 or f64.
///
/// # Errors
/// A network whose sizes do not fit each other, or too little memory.
#[expect(private_bounds, reason = "only f32 and f64 have vectors")]
pub fn open<S: Compiled>(network: &Network) -> Result<Box<dyn Engine<S>>> {
    S::open(network)
}

/// Checks what the environment asks of the CPU.
///
/// # Errors
/// [`Error::Value`] for vectors that are unknown or that this processor
/// has not.
pub fn check_environment() -> Result<()> {
    Instructions::<f32>::check()
}

/// The engine; see [`Engine`].
pub(crate) struct Cpu<S: Compiled> {
    network: Network,
    parameters: Parameters<S>,
    /// How often they were replaced or moved.
    moved: u64,
    moments: Moments<S>,
    gradients: Parameters<S>,
    /// What backward passes left since the last step; none: there was none.
    added: Option<Added<S>>,
    programs: Programs<Made<S>>,
    /// Of the rule, where the general plan has run it.
    equations: Option<Arc<Equations>>,
    update: u64,
    reports: VecDeque<Report<S>>,
    lives: Lives<Held<S>>,
    /// What steps of lives need, of the last stretch.
    living: Option<Living<S>>,
    /// What the embedding left for its backward pass, of networks that have one.
    embedded: Embedded<S>,
}

struct Moments<S> {
    first: Vec<S>,
    second: Vec<S>,
}

/// Of the backward passes since the last step, beside their gradients.
struct Added<S> {
    loss: Vec<S>,
    y_last: Vec<S>,
}

/// What a program has.
struct Made<S: Lanes> {
    description: Description,
    /// Of a fast plan.
    fast: Option<Prepared<S>>,
    /// Of the general plan: where the network needs it, and once episodes came that do.
    general: Option<Batch<S>>,
}

/// Where a batch leaves the gradients of the parameters.
struct GradientsTo<'a, S> {
    gradients: &'a mut Parameters<S>,
    /// Whether they are added to what is there.
    add: bool,
}

/// Buffers for one shape.
struct Prepared<S: Lanes> {
    shape: Shape,
    /// `Cpu::moved` when w and alpha were packed.
    packed: Option<u64>,
    /// What each of the threads that share an episode has of it.
    shares: Vec<Share>,
    /// w and alpha of each network, a part for each share.
    weights: Vec<Vec<Matrices<S>>>,
    /// One for each episode that runs at a time.
    workspaces: Vec<Workspace<S>>,
    /// `[P, parts]`.
    sums: Vec<Sums<S>>,
    parts: usize,
}

/// Results of every episode of a batch, cut into one slice per episode.
struct Slots<'a, S> {
    y_last: &'a mut [S],
    y: &'a mut [S],
    traces: [&'a mut [S]; 2],
    input: &'a mut [S],
    pre: &'a mut [S],
    y0: &'a mut [S],
    traces0: [&'a mut [S]; 2],
    /// Of a rule's text: its states after the last step, in the order of [`Outputs::rule`], and the
    /// gradients by their starts.
    rule: Vec<&'a mut [S]>,
    rule0: Vec<&'a mut [S]>,
    around: AroundSlots<'a, S>,
}

/// Of what stands around the core.
struct AroundSlots<'a, S> {
    v: &'a mut [S],
    out: &'a mut [S],
    m: &'a mut [S],
    observed: &'a mut [S],
    v0: &'a mut [S],
}

impl<S> Default for AroundSlots<'_, S> {
    fn default() -> Self {
        AroundSlots { v: &mut [], out: &mut [], m: &mut [], observed: &mut [], v0: &mut [] }
    }
}

/// How the threads split a batch, and how they run an episode.
struct Split {
    plan: Plan,
    /// Of an episode, or of those in the lanes of a vector: one, or one for each thread.
    shares: Vec<Share>,
    /// Of each network's batch, a thread each.
    parts: usize,
}

impl Split {
    fn new<S: Lanes>(network: &Network, shape: &Shape, threads: usize) -> Self {
        let total = network.n_networks * shape.n_batch;
        let bytes = |share: &Share| share.matrix_len() * size_of::<S>();
        let whole = split::<S>(network, 1);
        let cached = 4 * bytes(&whole[0]) <= PRIVATE_BYTES;
        let plan = if network.trace_clip().is_some() || simd::lanes::<S>() == 1 {
            Plan::Stepped(CLIPPED_WINDOW.min(shape.n_steps))
        } else {
            Plan::Lazy { size: if cached { CACHED_WINDOW } else { WINDOW }, frugal: false }
        };
        let sharing = threads.min(n_panels::<S>(network));
        let sharing = sharing.min(network.n_connections() / PER_THREAD);
        if sharing > 1 && (total < threads || !cached) {
            return Split { plan, shares: split::<S>(network, sharing), parts: 1 };
        }
        let parts = threads.div_ceil(network.n_networks).min(shape.n_batch);
        let work = shape.n_batch * shape.n_steps * network.n_connections();
        let parts = parts.min(work / PART_WORK).max(1);
        let wide = [side_by_side::<S>(network)];
        let (lanes, per_part) = (wide[0].lanes, shape.n_batch.div_ceil(parts));
        let filled = 3 * per_part >= 2 * per_part.next_multiple_of(lanes);
        let workspace =
            |buffers: &mut _| Workspace::<S>::new(buffers, network, shape, plan, &wide, true);
        let most = if network.trace_clip().is_none() { WIDE_TRACE } else { WIDE_CLIPPED_TRACE };
        let small = bytes(&wide[0]) <= most && Buffers::count(workspace) <= WIDE_WORKSPACE;
        let side_by_side = lanes > 1 && filled && small;
        let shares = if side_by_side { wide.into() } else { whole };
        Split { plan, shares, parts }
    }
}

impl<S: Compiled> Prepared<S> {
    fn new(
        buffers: &mut Buffers,
        network: &Network,
        shape: Shape,
        gradients: bool,
        split: &Split,
        threads: usize,
    ) -> Self {
        let layout = Layout::new(network);
        let Split { plan, shares, parts } = split;
        let n_parts = network.n_networks * parts;
        let at_a_time = if shares.len() > 1 { 1 } else { threads.min(n_parts) };
        Prepared {
            weights: buffers.several(network.n_networks, |buffers| {
                shares.iter().map(|share| Matrices::new(buffers, share)).collect()
            }),
            workspaces: buffers.several(at_a_time, |buffers| {
                Workspace::new(buffers, network, &shape, *plan, shares, gradients)
            }),
            sums: buffers
                .several(n_parts, |buffers| Sums::new(buffers, &layout, shares, gradients)),
            shape,
            packed: None,
            shares: shares.clone(),
            parts: *parts,
        }
    }
}

impl<S: Compiled> Prepared<S> {
    /// Packs w and alpha.
    fn pack(&mut self, network: &Network, parameters: &Parameters<S>) {
        let shares = &self.shares;
        let few = CHUNK.div_ceil(network.n_connections());
        each(self.weights.iter_mut().enumerate(), few, |(p, weights)| {
            each(weights.iter_mut().zip(shares), 1, |(matrices, share)| {
                matrices.pack(share, network, parameters, p);
            });
        });
    }
}

impl<S: Compiled> Cpu<S> {
    pub(crate) fn new(network: &Network) -> Result<Self> {
        Instructions::<S>::check()?;
        network.validate()?;
        let needed = Self::parameter_bytes(network);
        check_memory("this network", needed)?;
        let parameters = Parameters::zeros(network);
        let n = parameters.values().len();
        Ok(Cpu {
            network: network.clone(),
            gradients: parameters.clone(),
            moments: Moments { first: vec![S::ZERO; n], second: vec![S::ZERO; n] },
            parameters,
            moved: 0,
            added: None,
            programs: Programs::default(),
            equations: None,
            update: 0,
            reports: VecDeque::new(),
            lives: Lives::default(),
            living: None,
            embedded: Embedded::default(),
        })
    }

    fn parameter_bytes(network: &Network) -> u64 {
        (4 * Layout::new(network).len() * network.n_networks * size_of::<S>()) as u64
    }

    /// Whether a batch needs the general plan.
    fn is_general(&self, episodes: &Episodes<S>) -> bool {
        let signals = &episodes.signals;
        Self::needs_general(&self.network)
            || signals.dh.is_some()
            || signals.reset.is_some()
            || signals.truncate.is_some()
    }

    /// Whether all batches need it.
    fn needs_general(network: &Network) -> bool {
        network.rule == Rule::Custom || network.stages.general
    }

    /// What the general plan needs, and how it runs.
    fn make_general(&mut self, shape: Shape, want: Want) -> Result<(Description, Batch<S>)> {
        let network = &self.network;
        let equations = match &self.equations {
            Some(equations) => Arc::clone(equations),
            None => Arc::new(Equations::new(network)?),
        };
        self.equations = Some(Arc::clone(&equations));
        let make = |buffers: &mut Buffers| {
            Batch::<S>::new(buffers, network, &shape, &equations, want.gradients)
        };
        let needed = Buffers::count(make) + Self::around_bytes(network, &shape);
        check_memory("this job", needed)?;
        let batch = Buffers::make(make);
        let threads = rayon::current_num_threads();
        let description = Description {
            device: format!("cpu, {threads} threads, {} ({})", S::NAME, instructions()),
            driver: "none".into(),
            software: false,
            plan: PlanDescription::General { window: batch.window, batch: None },
            memory_needed: needed,
            memory_available: available_memory(),
            work: None,
        };
        Ok((description, batch))
    }

    /// Parameters, the batch itself, y of its last step, and where each episode's results go.
    fn around_bytes(network: &Network, shape: &Shape) -> u64 {
        // the slots of all, and those of the parts
        let episode = network.n_post * size_of::<S>() + 2 * size_of::<Slots<'_, S>>();
        let embedding = network.stages.embedding;
        let images = embedding.map_or(0, |one| shape.n_steps * embedding::numbers(one));
        let results = network.n_networks * shape.n_batch * (episode + images * size_of::<S>());
        Self::parameter_bytes(network) + shape.host_bytes(network, size_of::<S>()) + results as u64
    }

    /// Refuses a batch that does not fit its program, and makes what it needs beside that. Whether the
    /// general plan runs it.
    fn check(&mut self, program: &Program, episodes: &Episodes<S>, want: Want) -> Result<bool> {
        let made = self.programs.get(program)?;
        let has = made.general.is_some();
        program.check(episodes.shape, want)?;
        episodes.validate(&self.network)?;
        let general = self.is_general(episodes);
        if general && !has {
            let (_, batch) = self.make_general(program.shape(), program.want())?;
            self.programs.get(program)?.general = Some(batch);
        }
        Ok(general)
    }

    /// Moves the parameters along `self.gradients`; returns each gradient's norm.
    fn move_parameters(&mut self, step: StepSize) -> Vec<S> {
        for p in 0..self.network.n_networks {
            for &tensor in &self.network.stages.frozen {
                self.gradients.get_mut(p, tensor).fill(S::ZERO);
            }
        }
        let len = self.parameters.layout().len();
        let arch = Instructions::<S>::widest();
        let norms: Vec<f64> = (0..self.network.n_networks)
            .map(|p| {
                // in the order of the chunks, whoever takes which
                let chunks = self.gradients.network(p).chunks(CHUNK);
                let mut squares = vec![0.0; chunks.len()];
                each(chunks.zip(&mut squares), 1, |(chunk, sum)| {
                    *sum = arch.run(SumOfSquares(chunk));
                });
                squares.iter().sum::<f64>().sqrt()
            })
            .collect();
        for (p, &norm) in norms.iter().enumerate() {
            let shrink = step.max_norm > 0.0 && norm > step.max_norm;
            let scale = S::from_f64(if shrink { step.max_norm / norm } else { 1.0 });
            let range = p * len..(p + 1) * len;
            let theta = self.parameters.values_mut()[range.clone()].chunks_mut(CHUNK);
            let moments = [&mut self.moments.first, &mut self.moments.second];
            let [first, second] = moments.map(|all| all[range.clone()].chunks_mut(CHUNK));
            let gradient = self.gradients.values()[range].chunks(CHUNK);
            let chunks = theta.zip(first).zip(second).zip(gradient);
            each(chunks, 1, |(((theta, first), second), gradient)| {
                arch.run(Move { step, scale, theta, first, second, gradient });
            });
        }
        norms.into_iter().map(S::from_f64).collect()
    }
}

/// Runs a batch by what a program has, the general plan where the batch needs it; see
/// [`forward_and_backward`].
fn run_by<S: Compiled>(
    (network, parameters, moved): (&Network, &Parameters<S>, u64),
    (made, general): (&mut Made<S>, bool),
    episodes: &Episodes<S>,
    to: Option<GradientsTo<'_, S>>,
    slots: Vec<Slots<'_, S>>,
) -> Vec<S> {
    if general {
        let batch = made.general.as_mut().expect("checked");
        return batch.run((network, parameters, moved), episodes, to, slots);
    }
    let prepared = made.fast.as_mut().expect("the general plan runs the others");
    if prepared.packed.replace(moved) != Some(moved) {
        prepared.pack(network, parameters);
    }
    forward_and_backward((network, parameters), prepared, episodes, to, slots)
}

/// Runs a batch into `slots`, one for each episode, and returns the loss of each network; with a
/// backward pass where its gradients have somewhere to go.
fn forward_and_backward<S: Compiled>(
    (network, parameters): (&Network, &Parameters<S>),
    prepared: &Prepared<S>,
    episodes: &Episodes<S>,
    to: Option<GradientsTo<'_, S>>,
    slots: Vec<Slots<'_, S>>,
) -> Vec<S> {
    let n_batch = prepared.shape.n_batch;
    let share = if network.stages.cotangents { 1.0 } else { 1.0 / to_f64(n_batch) };
    let adjoints = episodes.h0.is_some()
        || episodes.e0.is_some()
        || slots.iter().any(|slot| !slot.traces0[0].is_empty());
    let per_part = n_batch.div_ceil(prepared.parts);
    let part_of = |k: usize| {
        let (p, part) = (k / prepared.parts, k % prepared.parts);
        let first = (part * per_part).min(n_batch);
        let last = (first + per_part).min(n_batch);
        (p, p * n_batch + first..p * n_batch + last)
    };
    // one part of a batch, as one of the threads that share its episodes
    let run_part = |k: usize, workspace: usize, thread: usize, slots: Vec<Slots<'_, S>>| {
        let workspace = &prepared.workspaces[workspace];
        let _member = workspace.barrier().member();
        let (p, indices) = part_of(k);
        let (matrices, sums) = (&prepared.weights[p][..], &prepared.sums[k]);
        let mut slots = slots.into_iter();
        sums.start(thread, indices.is_empty());
        let last = indices.end;
        for (group, index) in indices.step_by(workspace.side_by_side()).enumerate() {
            let n = workspace.side_by_side().min(last - index);
            let task = Task { network, parameters, episodes, index, n };
            let job =
                Job { matrices, sums, share, gradients: to.is_some(), first: group == 0, adjoints };
            S::run(workspace, thread, &task, job);
            workspace.barrier().wait();
            if thread == 0 {
                for lane in 0..n {
                    let slot = slots.next().expect("a slot an episode");
                    slot.take(workspace, &task.episode(lane), lane);
                }
            }
            // the next episode writes what was just read
            workspace.barrier().wait();
        }
        sums.end(thread, &prepared.shares[thread]);
    };
    let mut slots = slots.into_iter();
    let n_parts = network.n_networks * prepared.parts;
    let jobs: Vec<(usize, Vec<Slots<'_, S>>)> =
        (0..n_parts).map(|k| (k, slots.by_ref().take(part_of(k).1.len()).collect())).collect();
    if prepared.shares.len() > 1 {
        std::thread::scope(|scope| {
            for thread in 1..prepared.shares.len() {
                scope.spawn(move || {
                    (0..n_parts).for_each(|k| run_part(k, 0, thread, Vec::new()));
                });
            }
            jobs.into_iter().for_each(|(k, slots)| run_part(k, 0, 0, slots));
        });
    } else {
        // as many workspaces as parts can run at a time
        let free = Mutex::new((0..prepared.workspaces.len()).collect::<Vec<usize>>());
        let lock = || free.lock().expect("no panic holds it");
        let work = per_part * prepared.shape.n_steps * network.n_connections();
        each(jobs.into_iter(), PART_WORK / work, |(k, slots)| {
            let workspace = lock().pop().expect("one for every part at work");
            run_part(k, workspace, 0, slots);
            lock().push(workspace);
        });
    }

    let parts = prepared.parts;
    if let Some(GradientsTo { gradients, add }) = to {
        let layout = gradients.layout().clone();
        let (masks, mn) = (&parameters.mask, network.n_connections());
        let gradients = gradients.values_mut();
        let few = CHUNK.div_ceil(layout.len());
        each(gradients.chunks_mut(layout.len()).enumerate(), few, |(p, out)| {
            for (k, sums) in prepared.sums[p * parts..(p + 1) * parts].iter().enumerate() {
                let mask = masks.get(p * mn..(p + 1) * mn).unwrap_or_default();
                sums.add_to(network, &layout, &prepared.shares, mask, k == 0 && !add, out);
            }
        });
    }
    prepared
        .sums
        .chunks_exact(parts)
        .map(|parts| S::from_f64(parts.iter().map(Sums::loss).sum()))
        .collect()
}

/// Calls `work` for each item: on all threads, or on this one alone where they are at most `few`, so
/// that small work wakes no other.
pub(crate) fn each<I: Send>(
    items: impl ExactSizeIterator<Item = I>,
    few: usize,
    work: impl Fn(I) + Send + Sync,
) {
    if items.len() <= few {
        items.for_each(work);
    } else {
        items.collect::<Vec<I>>().into_par_iter().with_min_len(few.max(1)).for_each(work);
    }
}

/// In f64, in a fixed order of [`LANES`] sums.
struct SumOfSquares<'a, S>(&'a [S]);

const LANES: usize = 16;

impl<S: Lanes> pulp::WithSimd for SumOfSquares<'_, S> {
    type Output = f64;
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) -> f64 {
        let mut sums = [0.0; LANES];
        for chunk in self.0.chunks(LANES) {
            for (sum, &g) in sums.iter_mut().zip(chunk) {
                *sum += g.to_f64() * g.to_f64();
            }
        }
        sums.iter().sum()
    }
}

/// One step of the optimiser for some parameters; the gradient is multiplied by `scale`.
struct Move<'a, S> {
    step: StepSize,
    scale: S,
    theta: &'a mut [S],
    first: &'a mut [S],
    second: &'a mut [S],
    gradient: &'a [S],
}

impl<S: Lanes> pulp::WithSimd for Move<'_, S> {
    type Output = ();
    #[inline(always)]
    fn with_simd<A: pulp::Simd>(self, _: A) {
        let Move { step, scale, theta, first, second, gradient } = self;
        let rate = S::from_f64(step.rate);
        let all = theta.iter_mut().zip(first).zip(second).zip(gradient);
        match step.optimiser {
            Optimiser::Adam { beta1, beta2, epsilon } => {
                let (b1, b2) = (S::from_f64(beta1), S::from_f64(beta2));
                let (c1, c2) = (S::from_f64(1.0 - beta1), S::from_f64(1.0 - beta2));
                let second_scale = S::from_f64(step.second_scale);
                let epsilon = S::from_f64(epsilon);
                for (((theta, m), v), &g) in all {
                    let g = g * scale;
                    *m = b1 * *m + c1 * g;
                    *v = b2 * *v + c2 * g * g;
                    let root = v.sqrt() * second_scale + epsilon;
                    *theta = *theta - rate * *m / root;
                }
            }
            Optimiser::Sgd { momentum } => {
                let momentum = S::from_f64(momentum);
                for (((theta, m), _), &g) in all {
                    *m = momentum * *m + g * scale;
                    *theta = *theta - rate * *m;
                }
            }
        }
    }
}

impl<S: Compiled> Cpu<S> {
    /// Makes what a fast plan needs for such batches.
    fn make_fast(&self, shape: Shape, want: Want) -> Result<Made<S>> {
        let network = &self.network;
        let threads = rayon::current_num_threads();
        let needed = |split: &Split| {
            let make = |buffers: &mut Buffers| {
                Prepared::<S>::new(buffers, network, shape, want.gradients, split, threads)
            };
            Buffers::count(make) + Self::around_bytes(network, &shape)
        };
        let mut split = Split::new::<S>(network, &shape, threads);
        if let Plan::Lazy { size, .. } = split.plan
            && available_memory().is_some_and(|available| needed(&split) > available)
        {
            split.plan = Plan::Lazy { size, frugal: true };
        }
        let needed = needed(&split);
        check_memory("this job", needed)?;
        let (plan, shares) = (split.plan, &split.shares);
        let shared = CpuShares {
            threads_over_columns: shares.len() > 1,
            lanes_over_episodes: shares[0].side_by_side() > 1,
        };
        let description = Description {
            device: format!("cpu, {threads} threads, {} ({})", S::NAME, instructions()),
            driver: "none".into(),
            software: false,
            plan: match plan {
                Plan::Lazy { size, .. } => PlanDescription::Lazy {
                    window: size,
                    shares: shared,
                    block: plan.kept::<S>(network, &shape, shares, want.gradients).block(),
                },
                Plan::Stepped(size) => PlanDescription::Stepped { window: size, shares: shared },
            },
            memory_needed: needed,
            memory_available: available_memory(),
            work: Some(plan.work::<S>(network, &shape, shares)),
        };
        let make = |buffers: &mut Buffers| {
            Prepared::<S>::new(buffers, network, shape, want.gradients, &split, threads)
        };
        Ok(Made { description, fast: Some(Buffers::make(make)), general: None })
    }

    /// Takes memories through a stretch; they stay as they were where it fails.
    fn live_on(
        &mut self,
        held: &mut Held<S>,
        episodes: &Episodes<S>,
        want: Want,
    ) -> Result<Outputs<S>> {
        let mut episodes = episodes.clone();
        let given = |list: &mut Vec<S>| (!list.is_empty()).then(|| std::mem::take(list));
        episodes.signals.v0 = given(&mut held.v);
        episodes.y0 = given(&mut held.y);
        let in_place = episodes.shape.n_steps <= living::MOST_STEPS && !self.is_general(&episodes);
        if !in_place {
            episodes.h0 = given(&mut held.h);
            episodes.e0 = given(&mut held.e);
            episodes.signals.rule0 = held.rule.drain(..).map(Some).collect();
        }
        let result = if in_place {
            self.step_in_place(held, &episodes, want)
        } else {
            self.evaluate(&episodes, Want { traces: true, gradients: false, ..want })
        };
        // back, or on
        let back = |list: Option<Vec<S>>| list.unwrap_or_default();
        (held.y, held.v) = (back(episodes.y0), back(episodes.signals.v0));
        if !in_place {
            (held.h, held.e) = (back(episodes.h0), back(episodes.e0));
            held.rule = episodes.signals.rule0.into_iter().flatten().collect();
        }
        let mut out = result?;
        held.y.clone_from(&out.y_last);
        held.v = std::mem::take(&mut out.v);
        if !in_place {
            (held.h, held.e) = (std::mem::take(&mut out.h), std::mem::take(&mut out.e));
            held.rule = std::mem::take(&mut out.rule);
        }
        Ok(out)
    }

    /// [`Cpu::live_on`] for a few steps, which change the traces where they lie.
    fn step_in_place(
        &mut self,
        held: &mut Held<S>,
        episodes: &Episodes<S>,
        want: Want,
    ) -> Result<Outputs<S>> {
        episodes.validate(&self.network)?;
        let (network, shape) = (&self.network, episodes.shape);
        let serves = |living: &Living<S>| living.serves(shape, self.moved);
        if !self.living.as_ref().is_some_and(serves) {
            self.living = Some(Living::new(network, shape, &self.parameters, self.moved));
        }
        let living = self.living.as_mut().expect("it was made");
        let (n, t) = (network.n_post, shape.n_steps);
        let total = network.n_networks * shape.n_batch;
        let size = network.stages.output.map_or(0, |layer| layer.size);
        let n_v = if episodes.signals.v0.is_some() { n } else { 0 };
        let zeros = |len: usize| vec![S::ZERO; total * len];
        let mut y_last = zeros(n);
        let mut y = zeros(if want.activity { t * n } else { 0 });
        let (mut v, mut out) = (zeros(n_v), zeros(t * size));
        let mut of_y = y.chunks_exact_mut(t * n);
        let mut of_v = v.chunks_exact_mut(n);
        let mut of_out = out.chunks_exact_mut((t * size).max(1));
        let slots = y_last.chunks_exact_mut(n).map(|y_last| {
            let mut slots = Slots::only_y_last(y_last);
            slots.y = of_y.next().unwrap_or_default();
            slots.around.v = of_v.next().unwrap_or_default();
            slots.around.out = of_out.next().unwrap_or_default();
            slots
        });
        living.run(network, &self.parameters, episodes, held, slots.collect());
        let loss = vec![S::ZERO; network.n_networks];
        Ok(Outputs { loss, y_last, y, v, out, ..Outputs::default() })
    }

    /// Takes in what a backward pass left beside its gradients.
    fn add(&mut self, loss: Vec<S>, y_last: Vec<S>) {
        let before = self.added.take();
        let before = before.map_or_else(|| vec![S::ZERO; loss.len()], |added| added.loss);
        let loss = loss.into_iter().zip(before).map(|(loss, before)| loss + before).collect();
        self.added = Some(Added { loss, y_last });
    }
}

impl<S: Compiled> Engine<S> for Cpu<S> {
    fn network(&self) -> &Network {
        &self.network
    }

    fn program(&mut self, shape: Shape, want: Want) -> Result<Program> {
        if let Some(program) = self.programs.find(shape, want) {
            return Ok(program);
        }
        shape.validate(&self.network)?;
        self.programs.let_go(false);
        let make = |engine: &mut Self| {
            if Self::needs_general(&engine.network) {
                let (description, batch) = engine.make_general(shape, want)?;
                return Ok(Made { description, fast: None, general: Some(batch) });
            }
            engine.make_fast(shape, want)
        };
        let made = make(self).or_else(|error| {
            self.programs.let_go(true);
            if matches!(error, Error::Memory { .. }) { make(self) } else { Err(error) }
        });
        let made = made?;
        let own = made.description.memory_needed - Self::parameter_bytes(&self.network);
        Ok(self.programs.add(shape, want, own, made))
    }

    fn describe(&mut self, program: &Program) -> Result<Description> {
        Ok(self.programs.get(program)?.description.clone())
    }

    fn set_parameters(&mut self, parameters: &Parameters<S>) -> Result<()> {
        parameters.check(&self.network)?;
        self.parameters.values_mut().copy_from_slice(parameters.values());
        self.parameters.mask.clone_from(&parameters.mask);
        self.moments.first.fill(S::ZERO);
        self.moments.second.fill(S::ZERO);
        self.added = None;
        self.moved += 1;
        Ok(())
    }

    fn parameters(&mut self) -> Result<Parameters<S>> {
        Ok(self.parameters.clone())
    }

    fn state(&mut self) -> Result<State<S>> {
        Ok(State {
            parameters: self.parameters.clone(),
            first: self.parameters.like(&self.moments.first),
            second: self.parameters.like(&self.moments.second),
            update: self.update,
        })
    }

    fn set_state(&mut self, state: &State<S>) -> Result<()> {
        state.check(&self.network)?;
        self.parameters.values_mut().copy_from_slice(state.parameters.values());
        self.parameters.mask.clone_from(&state.parameters.mask);
        self.moments.first.copy_from_slice(state.first.values());
        self.moments.second.copy_from_slice(state.second.values());
        self.update = state.update;
        self.reports.clear();
        self.added = None;
        self.moved += 1;
        Ok(())
    }

    fn run(&mut self, program: &Program, episodes: &Episodes<S>, want: Want) -> Result<Outputs<S>> {
        let general = self.check(program, episodes, want)?;
        let embedded;
        let episodes = match self.embedded.forward(&self.network, &self.parameters, episodes) {
            Some(features) => {
                embedded = features;
                &embedded
            }
            None => episodes,
        };
        want.check_memory(&self.network, &episodes.shape, size_of::<S>())?;
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let (t, mn) = (episodes.shape.n_steps, m * n);
        let total = self.network.n_networks * episodes.shape.n_batch;
        let two = self.network.rule == Rule::Retroactive;
        let zeros = |wanted: bool, len: usize| vec![S::ZERO; if wanted { total * len } else { 0 }];
        let mut y_last = zeros(true, n);
        let mut y = zeros(want.activity, t * n);
        let mut h = zeros(want.traces, mn);
        let mut e = zeros(want.traces && two, mn);
        let back = want.gradients;
        let mut input = zeros(back, t * n);
        let mut pre = zeros(back && !self.network.recurrent, t * m);
        let mut y0 = zeros(back, n);
        let mut h0 = zeros(back, mn);
        let mut e0 = zeros(back && two, mn);
        let (stages, given) = (&self.network.stages, &episodes.signals);
        let size = |layer: Option<Linear>| layer.map_or(0, |layer| layer.size);
        let membrane = matches!(stages.leak, Some((Leak::Membrane, _)));
        let mut v = zeros(membrane, n);
        let mut out = zeros(true, t * size(stages.output));
        let mut d_m = zeros(back && given.m.is_some(), t * n);
        let mut d_observed = zeros(back, t * size(stages.input));
        let mut v0 = zeros(back && membrane, n);
        // of a rule's text
        let rule = self.network.stages.rule.as_ref();
        let lengths = rule.map_or(Vec::new(), |rule| rule.state_sizes(m, n).collect());
        let states = |wanted: bool| -> Vec<Vec<S>> {
            lengths.iter().map(|&len| zeros(true, len)).filter(|_| wanted).collect()
        };
        let (mut rule, mut rule0) = (states(want.traces), states(back));
        let mut parameters = back.then(|| self.gradients.clone());
        let loss = {
            let mut y_last = y_last.chunks_mut(n);
            let mut y = y.chunks_mut(t * n);
            let (mut h, mut e) = (h.chunks_mut(mn), e.chunks_mut(mn));
            let mut input = input.chunks_mut(t * n);
            let mut pre = pre.chunks_mut(t * m);
            let mut y0 = y0.chunks_mut(n);
            let (mut h0, mut e0) = (h0.chunks_mut(mn), e0.chunks_mut(mn));
            let (mut v, mut v0, mut d_m) =
                (v.chunks_mut(n), v0.chunks_mut(n), d_m.chunks_mut(t * n));
            let mut out = out.chunks_mut((t * size(stages.output)).max(1));
            let mut d_observed = d_observed.chunks_mut((t * size(stages.input)).max(1));
            let cut = |lists| cut_by_episode(lists, &lengths);
            let (mut rule, mut rule0) = (cut(&mut rule), cut(&mut rule0));
            let slots = (0..total)
                .map(|_| Slots {
                    y_last: y_last.next().unwrap_or_default(),
                    y: y.next().unwrap_or_default(),
                    traces: [h.next().unwrap_or_default(), e.next().unwrap_or_default()],
                    input: input.next().unwrap_or_default(),
                    pre: pre.next().unwrap_or_default(),
                    y0: y0.next().unwrap_or_default(),
                    traces0: [h0.next().unwrap_or_default(), e0.next().unwrap_or_default()],
                    rule: rule.iter_mut().filter_map(Iterator::next).collect(),
                    rule0: rule0.iter_mut().filter_map(Iterator::next).collect(),
                    around: AroundSlots {
                        v: v.next().unwrap_or_default(),
                        out: out.next().unwrap_or_default(),
                        m: d_m.next().unwrap_or_default(),
                        observed: d_observed.next().unwrap_or_default(),
                        v0: v0.next().unwrap_or_default(),
                    },
                })
                .collect();
            let to = parameters.as_mut().map(|gradients| GradientsTo { gradients, add: false });
            let with = (&self.network, &self.parameters, self.moved);
            run_by(with, (self.programs.get(program)?, general), episodes, to, slots)
        };
        if let Some(parameters) = &mut parameters {
            self.embedded.backward(&self.network, &self.parameters, &pre, parameters, false);
        }
        let gradients = parameters.map(|parameters| {
            let all = total * t;
            let signals = Signals {
                // one number for all neurons
                m: given.m.as_ref().map(|m| match m.len() == all {
                    true => {
                        let sum = |row: &[S]| row.iter().fold(S::ZERO, |sum, &d| sum + d);
                        d_m.chunks(n).map(sum).collect()
                    }
                    false => d_m,
                }),
                observed: given.observed.is_some().then_some(d_observed),
                v0: given.v0.is_some().then_some(v0),
                rule0: rule0
                    .into_iter()
                    .zip(&given.rule0)
                    .map(|(bar, start)| start.is_some().then_some(bar))
                    .collect(),
                ..Signals::default()
            };
            Gradients { parameters, input, pre, y0, h0, e0, signals }
        });
        Ok(Outputs { loss, y_last, y, h, e, v, out, rule, gradients })
    }

    fn backward(&mut self, program: &Program, episodes: &Episodes<S>) -> Result<()> {
        let general = self.check(program, episodes, Want::UPDATE)?;
        let add = self.added.is_some();
        let embedded;
        let episodes = match self.embedded.forward(&self.network, &self.parameters, episodes) {
            Some(features) => {
                embedded = features;
                &embedded
            }
            None => episodes,
        };
        let (n, one) = (self.network.n_post, episodes.shape.n_steps * self.network.n_pre);
        let total = self.network.n_networks * episodes.shape.n_batch;
        let mut y_last = vec![S::ZERO; total * n];
        let has_embedding = self.network.stages.embedding.is_some();
        let mut pre = vec![S::ZERO; if has_embedding { total * one } else { 0 }];
        let mut of_pre = pre.chunks_mut(one);
        let slots = y_last.chunks_mut(n).map(|y_last| {
            let pre = of_pre.next().unwrap_or_default();
            Slots { pre, ..Slots::only_y_last(y_last) }
        });
        let slots = slots.collect();
        let to = GradientsTo { gradients: &mut self.gradients, add };
        let with = (&self.network, &self.parameters, self.moved);
        let loss = run_by(with, (self.programs.get(program)?, general), episodes, Some(to), slots);
        let to = &mut self.gradients;
        self.embedded.backward(&self.network, &self.parameters, &pre, to, add);
        self.add(loss, y_last);
        Ok(())
    }

    fn gradients(&mut self) -> Result<Parameters<S>> {
        Ok(match self.added {
            Some(_) => self.gradients.clone(),
            None => Parameters::zeros(&self.network),
        })
    }

    fn set_gradients(&mut self, gradients: &Parameters<S>) -> Result<()> {
        gradients.check(&self.network)?;
        self.gradients.values_mut().copy_from_slice(gradients.values());
        let loss = || vec![S::ZERO; self.network.n_networks];
        self.added.get_or_insert_with(|| Added { loss: loss(), y_last: Vec::new() });
        Ok(())
    }

    fn step(&mut self, step: StepSize) -> Result<()> {
        let Some(Added { loss, y_last }) = self.added.take() else {
            return Err(no_gradients());
        };
        let eta = (0..self.network.n_networks).map(|p| mean(self.parameters.get(p, Tensor::Eta)));
        let eta = eta.collect();
        let gradient_norm = self.move_parameters(step);
        self.moved += 1;
        self.reports.push_back(Report { update: self.update, loss, gradient_norm, eta, y_last });
        self.update += 1;
        Ok(())
    }

    fn wake(&mut self, held: &Held<S>) -> Result<LifeId> {
        held.check(&self.network)?;
        Ok(self.lives.add(held.clone()))
    }

    fn live(&mut self, life: LifeId, episodes: &Episodes<S>, want: Want) -> Result<Outputs<S>> {
        let mut held = self.lives.take(life)?;
        let result = check_life(episodes, held.n_memories)
            .and_then(|()| self.live_on(&mut held, episodes, want));
        self.lives.put(life, held);
        result
    }

    fn held(&mut self, life: LifeId) -> Result<Held<S>> {
        let held = self.lives.take(life)?;
        self.lives.put(life, held.clone());
        Ok(held)
    }

    fn set_back(&mut self, life: LifeId, memories: &[usize], to: &Held<S>) -> Result<()> {
        let mut held = self.lives.take(life)?;
        let result = check_set_back(&self.network, held.n_memories, memories, to);
        if result.is_ok() {
            let total = self.network.n_networks * held.n_memories;
            let lists = [
                (&mut held.y, &to.y),
                (&mut held.h, &to.h),
                (&mut held.e, &to.e),
                (&mut held.v, &to.v),
            ];
            for (now, to) in lists.into_iter().chain(held.rule.iter_mut().zip(&to.rule)) {
                let one = now.len() / total;
                for &memory in memories {
                    let range = memory * one..(memory + 1) * one;
                    now[range.clone()].copy_from_slice(&to[range]);
                }
            }
        }
        self.lives.put(life, held);
        result
    }

    fn rest(&mut self, life: LifeId) -> Result<()> {
        self.lives.take(life).map(|_| ())
    }

    fn reports(&mut self, _wait: bool) -> Result<Vec<Report<S>>> {
        Ok(self.reports.drain(..).collect())
    }
}

impl<'a, S: Lanes> Slots<'a, S> {
    fn only_y_last(y_last: &'a mut [S]) -> Self {
        let none = || [&mut [][..], &mut [][..]];
        Slots {
            y_last,
            y: &mut [],
            traces: none(),
            input: &mut [],
            pre: &mut [],
            y0: &mut [],
            traces0: none(),
            rule: Vec::new(),
            rule0: Vec::new(),
            around: AroundSlots::default(),
        }
    }

    /// Copies what is wanted (what is not has length 0) of what neurons did, of their `lane`-th episode,
    /// and the traces that follow. Returns where dL/dH and dL/dE before the first step go.
    fn take_neurons(
        self,
        neurons: &Neurons<S>,
        task: &Task<'_, S>,
        lane: usize,
    ) -> [&'a mut [S]; 2] {
        let (n, m) = (task.network.n_post, task.network.n_pre);
        let take = |row: &[S], out: &mut [S]| take_lane(row, neurons.lanes, lane, out);
        take(neurons.y.row(neurons.n_steps()), self.y_last);
        for (t, out) in self.y.chunks_exact_mut(n).enumerate() {
            take(neurons.y.row(t + 1), out);
        }
        for (t, out) in self.input.chunks_exact_mut(n).enumerate() {
            take(neurons.d_input.row(t), out);
        }
        for (t, out) in self.pre.chunks_exact_mut(m).enumerate() {
            take(neurons.d_x.row(t), out);
        }
        take(neurons.y0_bar(), self.y0);
        let (around, rows, slots) = (neurons.around(), neurons.n_steps(), self.around);
        if !slots.v.is_empty() {
            take(around.v.row(rows), slots.v);
        }
        take(around.v0_bar(), slots.v0);
        let each = |rows: &Rows<S>, out: &mut [S]| {
            let width = (out.len() / neurons.n_steps()).max(1);
            for (t, out) in out.chunks_exact_mut(width).enumerate() {
                take(rows.row(t), out);
            }
        };
        each(&around.out, slots.out);
        each(&around.d_m, slots.m);
        each(&around.d_observed, slots.observed);
        let [h, e] = self.traces;
        if !h.is_empty() {
            neurons.last_traces(task, lane, h, e);
        }
        self.traces0
    }

    /// Copies what is wanted out of the workspace, of its `lane`-th episode.
    fn take(self, workspace: &Workspace<S>, task: &Task<'_, S>, lane: usize) {
        let n = task.network.n_post;
        let mut traces0 = workspace.neurons(|neurons| self.take_neurons(neurons, task, lane));
        if traces0[0].is_empty() {
            return;
        }
        let alpha = task.parameters.get(task.p(), Tensor::Alpha);
        let (row, column) = task.network.alpha.strides(n);
        let mask = task.mask();
        workspace.adjoints(task.network, lane, |trace, c, p| {
            let mask = mask.get(c).copied().unwrap_or(S::ONE);
            traces0[trace][c] = mask * alpha[c / n * row + c % n * column] * p;
        });
    }
}

/// Lists of `lengths` numbers an episode, one episode after another.
fn cut_by_episode<'a, S>(
    lists: &'a mut [Vec<S>],
    lengths: &[usize],
) -> Vec<std::slice::ChunksExactMut<'a, S>> {
    lists.iter_mut().zip(lengths).map(|(list, &len)| list.chunks_exact_mut(len)).collect()
}

fn mean<S: Lanes>(values: &[S]) -> S {
    let sum: f64 = values.iter().map(|v| v.to_f64()).sum();
    S::from_f64(sum / to_f64(values.len().max(1)))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn to_f64(n: usize) -> f64 {
    n as f64
}
