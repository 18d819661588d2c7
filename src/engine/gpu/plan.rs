//! Plans: which kernels run, in which order, for a batch of T steps.
//!
//! *Resident*, for networks that the registers of one workgroup hold: a workgroup runs an
//! episode, and a dispatch as many windows of it as the device does in good time.
//! *Streamed*, for any network: one dispatch a step and direction. Both store the trace once
//! a window of K steps; the stored traces are the checkpoints of the backward pass.
//! *General*, for rules that are texts and episodes with resets, truncation or a cotangent of H: the
//! traces of every step are stored, of one window at a time where those of all take much memory.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::engine::gpu::kernels::{
    BackwardSweep, Drive, GeneralBack, GeneralCollect, GeneralNeurons, GeneralNeuronsBack,
    GeneralSweep, GeneralWeights, Loss, NeuronBack, NeuronStep, OuterGradients, PlasticMatmul,
    ReadOut, ResidentBack, ResidentForward, Step, SumEpisodes, WeightGradients,
};
use crate::engine::gpu::slots::{Slots, is_general, surrounds};
use crate::engine::gpu::tile::{GENERAL_TILE, SWEEP_TILE, Tile};
use crate::engine::gpu::traces::quad_bytes;
use crate::engine::{GpuBatch, PlanChoice, PlanDescription, Storage, Want, Work};
use crate::error::{Error, Result};
use crate::model::{AlphaSharing, Network, Shape};

/// Steps between stored traces of the resident plan.
const RESIDENT_WINDOW: u32 = 4;

/// Steps that a dispatch of `outer_gradients.wgsl` takes: fewer iterations than some drivers end a loop
/// at.
const OUTER_STEPS: usize = 1 << 14;

/// Steps of the general plan whose traces are all kept, if those of a batch take no more than so many
/// bytes: else those of a window, about sqrt(T) steps, which the backward pass forms once more.
const KEPT_STEPS: usize = 128;
const KEPT: u64 = 1 << 28;

/// Workgroups that keep a large device busy.
const BUSY: usize = 1024;

/// Registers of an invocation of the resident plan for w, alpha and the traces; and together with
/// the traces and row sums of the column at hand and of the next. Of the 255 or 256 that GPUs have
/// the others are for what is being computed.
const REGISTERS: u32 = 192;
const ALL_REGISTERS: u32 = 204;

/// Invocations of a workgroup; the resident plan has a neuron for each at the most.
pub(crate) const INVOCATIONS: u32 = 256;

/// How an episode is laid over workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Sweeps of tiles; a workgroup takes `together` episodes of a network.
    Streamed { together: usize },
    /// A workgroup an episode.
    Resident(Tile),
    /// Sweeps of tiles, the rule as its text has it.
    General {
        /// Steps between traces that are kept throughout.
        window: usize,
    },
}

impl Layout {
    /// The connections of a workgroup.
    pub(crate) fn tile(self) -> Tile {
        match self {
            Layout::Streamed { .. } => SWEEP_TILE,
            Layout::Resident(tile) => tile,
            Layout::General { .. } => GENERAL_TILE,
        }
    }

    /// As asked for, or as `memory` bytes of workgroup memory allow; `modulated` where episodes bring
    /// m.
    ///
    /// # Errors
    /// A resident plan that is asked for and does not fit.
    pub(crate) fn choose(
        network: &Network,
        shape: &Shape,
        choice: PlanChoice,
        (modulated, memory): (bool, u32),
    ) -> Result<Self> {
        let Network { n_pre, n_post, .. } = *network;
        let n_batch = shape.n_batch;
        if is_general(network) {
            return match choice {
                PlanChoice::Auto => Ok(Layout::general(network, shape)),
                PlanChoice::Resident | PlanChoice::Streamed => Err(Error::value(
                    "plan",
                    "resident or streamed, for a rule that is a text, resets, truncation or dh",
                    "auto: the general plan runs them",
                )),
            };
        }
        if surrounds(network, modulated) {
            return match choice {
                PlanChoice::Resident => Err(Error::value(
                    "plan",
                    "resident, for networks with more than a plastic core",
                    "streamed, or auto",
                )),
                _ => Ok(Layout::streamed(network, n_batch)),
            };
        }
        let resident = Layout::resident(n_pre, n_post, network.n_traces(), memory);
        match (choice, resident) {
            (PlanChoice::Streamed, _) | (PlanChoice::Auto, None) => {
                Ok(Layout::streamed(network, n_batch))
            }
            (_, Some(layout)) => Ok(layout),
            (PlanChoice::Resident, None) => Err(Error::value(
                "plan",
                format!(
                    "resident, for {n_pre} x {n_post} connections with {memory} bytes of \
                     workgroup memory"
                ),
                format!(
                    "streamed, or a smaller network (at most {} neurons)",
                    resident_neurons(network.n_traces(), memory)
                ),
            )),
        }
    }

    /// Resident in the registers of one workgroup and `memory` bytes of its memory: the layout
    /// with the fewest connections an invocation, of those the one nearest to a square, which
    /// reads the fewest vectors; none if the network is too large.
    pub(crate) fn resident(
        n_pre: usize,
        n_post: usize,
        n_traces: usize,
        memory: u32,
    ) -> Option<Self> {
        let (rows, width, n_traces) = (number(n_pre), number(n_post), number(n_traces));
        if rows > INVOCATIONS || width > INVOCATIONS {
            return None;
        }
        let quads = rows.div_ceil(4);
        (1..=quads)
            .map(|row_groups| {
                let lanes = quads.div_ceil(row_groups);
                let places = (INVOCATIONS / lanes).min(width);
                let columns = width.div_ceil(places);
                Tile { rows, width, lanes, places, row_groups, columns, window: RESIDENT_WINDOW }
            })
            .filter(|r| {
                let matrices = 4 * r.row_groups * r.columns * (2 + n_traces);
                matrices <= REGISTERS && matrices + 12 * r.row_groups * n_traces <= ALL_REGISTERS
            })
            .filter(|r| resident_bytes(r, n_traces) <= memory)
            .min_by_key(|r| (r.row_groups * r.columns, r.row_groups + r.columns, r.columns))
            .map(Layout::Resident)
    }

    /// The general plan for a batch.
    fn general(network: &Network, shape: &Shape) -> Self {
        let quads = network.n_pre.div_ceil(4) * network.n_post * network.n_traces();
        let step = (quads * quad_bytes(Storage::F32) * network.n_networks * shape.n_batch) as u64;
        let all = shape.n_steps <= KEPT_STEPS && step * shape.n_steps as u64 <= KEPT;
        let window = if all { shape.n_steps } else { shape.n_steps.isqrt() };
        Layout::General { window: window.max(1) }
    }

    /// Streamed, for a batch of `n_batch` episodes of each of the networks.
    pub(crate) fn streamed(network: &Network, n_batch: usize) -> Self {
        let [tiles, chunks] = SWEEP_TILE.grid(network.n_pre, network.n_post);
        let tiles = tiles as usize * chunks as usize;
        let together = (tiles * network.n_networks * n_batch / BUSY).clamp(1, 8).min(n_batch);
        Layout::Streamed { together }
    }
}

/// Bytes of workgroup memory in the backward pass, which takes the most: the arrays of
/// `resident_back.wgsl` and `lib/reduce.wgsl`, each of whole 16 bytes.
pub(crate) fn resident_bytes(tile: &Tile, n_traces: u32) -> u32 {
    let Tile { lanes, places, row_groups, columns, window, .. } = *tile;
    let rows = 4 * tile.rows.div_ceil(4);
    let columns = places * columns;
    let of_two = if n_traces == 2 { columns } else { 1 };
    let ring = window + 1;
    let numbers = [
        4 * ring * lanes * row_groups,
        2 * ring * columns,
        ring * of_two,
        columns,
        2 * lanes * columns,
        lanes * of_two,
        places * (rows + 4),
        INVOCATIONS,
        16,
    ];
    numbers.iter().map(|n| 4 * n.next_multiple_of(4)).sum()
}

/// The most neurons of a recurrent network that the resident plan takes with that much
/// workgroup memory.
pub(crate) fn resident_neurons(n_traces: usize, memory: u32) -> usize {
    (1..=INVOCATIONS as usize)
        .rev()
        .find(|&n| Layout::resident(n, n, n_traces, memory).is_some())
        .unwrap_or(0)
}

/// One dispatch. `step` is an index into [`Plan::steps`]; `window`, `slot`, `from` and `to` choose traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The plastic matmul of a step; after a window's last step stores its trace.
    PlasticMatmul { window: usize, step: usize },
    /// What bias and input layer give to every step.
    Drive,
    /// Activation and rule of a step.
    NeuronStep { step: usize },
    /// The traces by a rule's text, and the product of a step; between two slots.
    GeneralSweep { from: usize, to: usize, step: usize },
    /// Variables of a rule's text after a step.
    GeneralNeurons { step: usize },
    /// What the neurons of a step get of lambda; of the traces in a slot.
    GeneralCollect { slot: usize, step: usize },
    /// Adjoints of a rule's text at a step's neurons.
    GeneralNeuronsBack { step: usize },
    /// Weight gradients of a step.
    GeneralWeights { slot: usize, step: usize },
    /// lambda from after a step to before it.
    GeneralBack { slot: usize, step: usize },
    /// Steps of whole episodes.
    ResidentForward { step: usize },
    /// Every step's loss.
    Loss,
    /// Every step's read-out and its loss.
    ReadOut,
    /// Row and column sums of a backward step.
    BackwardSweep { window: usize, step: usize },
    /// Adjoints of activation and rule of a step.
    NeuronBack { step: usize },
    /// Windows of whole episodes, backward.
    ResidentBack { step: usize },
    /// Weight gradients of the windows in a buffer of traces.
    WeightGradients { buffer: usize, step: usize },
    /// Gradients of the input layer and the read-out, of some steps.
    OuterGradients { step: usize },
    /// Loss and rule gradients over episodes.
    SumEpisodes,
}

impl Command {
    /// The name of its kernel.
    pub(crate) fn kernel(self) -> &'static str {
        match self {
            Command::PlasticMatmul { .. } => PlasticMatmul::KERNEL.stem,
            Command::Drive => Drive::KERNEL.stem,
            Command::NeuronStep { .. } => NeuronStep::KERNEL.stem,
            Command::GeneralSweep { .. } => GeneralSweep::KERNEL.stem,
            Command::GeneralNeurons { .. } => GeneralNeurons::KERNEL.stem,
            Command::GeneralCollect { .. } => GeneralCollect::KERNEL.stem,
            Command::GeneralNeuronsBack { .. } => GeneralNeuronsBack::KERNEL.stem,
            Command::GeneralWeights { .. } => GeneralWeights::KERNEL.stem,
            Command::GeneralBack { .. } => GeneralBack::KERNEL.stem,
            Command::ResidentForward { .. } => ResidentForward::KERNEL.stem,
            Command::Loss => Loss::KERNEL.stem,
            Command::ReadOut => ReadOut::KERNEL.stem,
            Command::BackwardSweep { .. } => BackwardSweep::KERNEL.stem,
            Command::NeuronBack { .. } => NeuronBack::KERNEL.stem,
            Command::ResidentBack { .. } => ResidentBack::KERNEL.stem,
            Command::WeightGradients { .. } => WeightGradients::KERNEL.stem,
            Command::OuterGradients { .. } => OuterGradients::KERNEL.stem,
            Command::SumEpisodes => SumEpisodes::KERNEL.stem,
        }
    }
}

/// The dispatches of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) window: usize,
    pub(crate) n_windows: usize,
    /// Stored traces: one for the start of each window, and one for the end where it is
    /// asked for; two in turn where there is no backward pass.
    pub(crate) n_slots: usize,
    n_steps: usize,
    /// Whether the traces are kept for a backward pass.
    keeps: bool,
    /// Windows that one dispatch of the resident plan takes.
    pub(crate) span: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) commands: Vec<Command>,
    /// How many of the commands run without a backward pass, from the first; the last one does too.
    n_forward: usize,
}

impl Plan {
    pub(crate) fn new(
        network: &Network,
        layout: Layout,
        n_steps: usize,
        want: Want,
        span: usize,
    ) -> Self {
        let window = match layout {
            Layout::General { window } => window,
            _ => layout.tile().window as usize,
        };
        let n_windows = n_steps.div_ceil(window);
        let n_slots = match (layout, want.gradients) {
            (Layout::General { .. }, true) => n_windows + window,
            (Layout::General { .. }, false) => 3,
            (_, true) => n_windows + usize::from(want.traces),
            (_, false) => 2,
        };
        let mut plan = Plan {
            layout,
            window,
            n_windows,
            n_slots: n_slots.max(2),
            n_steps,
            keeps: want.gradients,
            span: span.clamp(1, n_windows),
            steps: Vec::new(),
            commands: Vec::new(),
            n_forward: 0,
        };
        match layout {
            Layout::Streamed { .. } => plan.streamed(network, n_steps, want),
            Layout::Resident(_) => plan.resident(n_steps, want),
            Layout::General { .. } => plan.general(network, n_steps, want),
        }
        plan.commands.push(Command::SumEpisodes);
        plan
    }

    /// What a batch runs: all commands, or without `gradients` those to the losses and the last,
    /// which adds them up.
    pub(crate) fn to_run(&self, gradients: bool) -> [&[Command]; 2] {
        if gradients {
            return [&self.commands, &[]];
        }
        [&self.commands[..self.n_forward], &self.commands[self.commands.len() - 1..]]
    }

    /// Buffers of traces, and the slots that each holds.
    pub(crate) fn trace_buffers(&self) -> (usize, usize) {
        match self.layout {
            Layout::Streamed { .. } | Layout::General { .. } => (self.n_slots, 1),
            Layout::Resident(_) => (1, self.n_slots),
        }
    }

    /// The slot of the trace at the start of window `w`.
    pub(crate) fn slot(&self, w: usize) -> usize {
        w % self.n_slots
    }

    /// The slot of the trace before step `t` of the general plan. Slot 0 has that before the first step
    /// throughout; then come, with a backward pass, those at the starts of windows, that after the last
    /// step, and those within a window.
    fn slot_before(&self, t: usize) -> usize {
        match (t, self.keeps) {
            (0, _) => 0,
            (t, false) => 1 + t % 2,
            (t, true) if t == self.n_steps => self.n_windows,
            (t, true) if t.is_multiple_of(self.window) => t / self.window,
            (t, true) => self.n_windows + t % self.window,
        }
    }

    /// The slots that sweeps of the general plan read and write.
    pub(crate) fn general_slots(&self) -> impl Iterator<Item = (usize, usize)> {
        let of = |command: &Command| match *command {
            Command::GeneralSweep { from, to, .. } => Some((from, to)),
            _ => None,
        };
        self.commands.iter().filter_map(of).collect::<BTreeSet<_>>().into_iter()
    }

    /// The slot of the trace after the last step.
    pub(crate) fn last_slot(&self) -> usize {
        match self.layout {
            Layout::General { .. } => self.slot_before(self.n_steps),
            _ => self.slot(self.n_windows),
        }
    }

    /// How many times the bytes of a sweep of the streamed plan with one trace a sweep may move.
    pub(crate) fn heaviness(&self, network: &Network) -> usize {
        match self.layout {
            Layout::General { .. } => 2 * network.n_traces(),
            Layout::Streamed { .. } | Layout::Resident(_) => 1,
        }
    }

    /// In the terms that users know.
    pub(crate) fn describe(&self, batch: GpuBatch) -> PlanDescription {
        let window = self.window;
        match self.layout {
            Layout::Streamed { together } => {
                PlanDescription::Streamed { window, episodes: together, batch }
            }
            Layout::Resident(_) => PlanDescription::Resident { window, span: self.span, batch },
            Layout::General { .. } => PlanDescription::General { window, batch: Some(batch) },
        }
    }

    /// What an update takes, its batch in `n_parts` and its networks in `n_groups`, with traces
    /// kept as `storage`; dispatches of the optimiser and of the sums over splits are counted,
    /// their bytes are not.
    pub(crate) fn work(
        &self,
        network: &Network,
        shape: &Shape,
        (n_parts, n_groups): (usize, usize),
        storage: Storage,
    ) -> Work {
        let traces = network.n_traces() as u64;
        // bytes of one connection's traces, and of its w and alpha together
        let kept = (network.n_traces() * quad_bytes(storage) / 4) as f64;
        let (adjoints, weights) = (4.0 * traces as f64, 8.0);
        let clip = network.trace_clip().is_some();
        // bytes and multiply-adds of one connection of one episode
        let (mut bytes, mut multiply_adds) = (0.0, 0.0);
        let evolve = 2.0 * traces as f64;
        for command in &self.commands {
            let step = |k: usize| self.steps[k];
            let (moved, computed) = match *command {
                Command::PlasticMatmul { step: k, .. } => {
                    let Layout::Streamed { together } = self.layout else { unreachable!() };
                    let store = f64::from(step(k).store) * kept;
                    let moved = weights / together as f64 + kept + store;
                    (moved, 2.0 + evolve * f64::from(step(k).n_steps))
                }
                Command::BackwardSweep { step: k, .. } => {
                    let Layout::Streamed { together } = self.layout else { unreachable!() };
                    let s = step(k);
                    let store = f64::from(s.store) * adjoints;
                    let moved = weights / together as f64 + kept + adjoints + store;
                    let b = f64::from(s.row - 1 - s.first);
                    // step b - 1 is for what is propagated; with a clip all are taken for the
                    // masks, that one twice
                    let forward = if clip {
                        f64::from(s.n_steps) + f64::from(s.propagate).min(b)
                    } else {
                        (b - 1.0 + f64::from(s.propagate)).max(0.0)
                    };
                    let back = f64::from(s.n_steps) - b;
                    let own = 4.0 * f64::from(s.propagate) + 3.0 * f64::from(s.collect);
                    (moved, evolve * (forward + back) + own)
                }
                // of the rule its traces alone are counted: what a text computes depends on it
                Command::GeneralSweep { step: k, .. } => {
                    let s = step(k);
                    let product = f64::from(s.propagate);
                    let moved = weights * product + kept + f64::from(s.store) * kept;
                    (moved, 2.0 * product + evolve * f64::from(s.store))
                }
                Command::GeneralCollect { .. } => (kept + adjoints, evolve),
                // the sums are read and written, of a split of one episode
                Command::GeneralWeights { .. } => (kept / traces as f64 + 2.0 * weights, 3.0),
                Command::GeneralBack { .. } => (weights + kept + 2.0 * adjoints, 4.0 + evolve),
                Command::ResidentForward { step: k } => {
                    let s = step(k);
                    let windows = f64::from(s.n_steps) / self.window as f64;
                    (kept * windows, f64::from(s.n_steps) * (2.0 + evolve))
                }
                Command::ResidentBack { step: k } => {
                    let s = step(k);
                    // H before the step collected, from the window's start, and before the one
                    // propagated; and after it for its mask, with a clip
                    let window = self.window as f64;
                    let mean = (window - 1.0) / 2.0 + 1.0 + f64::from(u8::from(clip));
                    // the traces are read at each step, from a cache
                    let windows = f64::from(s.n_steps) / window;
                    let own = 7.0 + evolve + evolve * mean;
                    (kept * windows, f64::from(s.n_steps) * own)
                }
                Command::WeightGradients { step: k, .. } => {
                    let s = step(k);
                    let windows = f64::from(s.n_steps) / self.window as f64;
                    (kept * windows, f64::from(s.n_steps) * (3.0 + evolve))
                }
                Command::Drive
                | Command::GeneralNeurons { .. }
                | Command::GeneralNeuronsBack { .. }
                | Command::NeuronStep { .. }
                | Command::Loss
                | Command::ReadOut
                | Command::NeuronBack { .. }
                | Command::OuterGradients { .. }
                | Command::SumEpisodes => (0.0, 0.0),
            };
            bytes += moved;
            multiply_adds += computed;
        }
        // the sums over splits, and of alpha where it is shared; the optimiser
        let n_last = 4 + usize::from(network.alpha != AlphaSharing::PerConnection);
        let each = (network.n_connections() * network.n_networks * shape.n_batch) as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Work {
            bytes: (bytes * each) as u64,
            multiply_adds: (multiply_adds * each) as u64,
            dispatches: (self.commands.len() * n_parts + n_groups * n_last) as u64,
        }
    }

    fn step(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    fn general(&mut self, network: &Network, n_steps: usize, want: Want) {
        if Slots::of(network, false).drive > 0 {
            self.commands.push(Command::Drive);
        }
        let at = |t: usize, store, propagate| Step {
            row: number(t + 1),
            store,
            propagate,
            ..Step::default()
        };
        for t in 0..n_steps + usize::from(want.traces) {
            let step = self.step(at(t, u32::from(t > 0), u32::from(t < n_steps)));
            self.general_sweep(t, step);
            if t < n_steps {
                self.commands.push(Command::NeuronStep { step });
                self.commands.push(Command::GeneralNeurons { step });
            }
        }
        self.commands.push(Command::Loss);
        if network.stages.output.is_some() {
            self.commands.push(Command::ReadOut);
        }
        self.n_forward = self.commands.len();
        if !want.gradients {
            return;
        }
        for w in (0..self.n_windows).rev() {
            let steps = w * self.window..((w + 1) * self.window).min(n_steps);
            // the slots within a window still hold the last one's
            if steps.end < n_steps {
                for t in steps.start + 1..steps.end {
                    let step = self.step(at(t, 1, 0));
                    self.general_sweep(t, step);
                }
            }
            for t in steps.rev() {
                let after = u32::from(t + 1 < n_steps);
                let step = Step { propagated: after, collected: 1, ..at(t, 0, 0) };
                let (slot, step) = (self.slot_before(t), self.step(step));
                self.commands.extend([
                    Command::GeneralCollect { slot, step },
                    Command::GeneralNeuronsBack { step },
                    Command::NeuronBack { step },
                    Command::GeneralWeights { slot, step },
                    Command::GeneralBack { slot, step },
                ]);
            }
        }
        let step = self.step(Step { propagated: 1, ..Step::default() });
        self.commands.extend([Command::GeneralNeuronsBack { step }, Command::NeuronBack { step }]);
        self.outer_gradients(network, n_steps);
    }

    /// Forms the traces before step `t` from those before the step that came before.
    fn general_sweep(&mut self, t: usize, step: usize) {
        // at the first step nothing is stored: any other slot will do
        let (from, to) = match t {
            0 => (0, 1),
            t => (self.slot_before(t - 1), self.slot_before(t)),
        };
        self.commands.push(Command::GeneralSweep { from, to, step });
    }

    fn outer_gradients(&mut self, network: &Network, n_steps: usize) {
        if network.stages.input.is_none() && network.stages.output.is_none() {
            return;
        }
        for first in (0..n_steps).step_by(OUTER_STEPS) {
            let n_steps = number(OUTER_STEPS.min(n_steps - first));
            let step = self.step(Step { first: number(first), n_steps, ..Step::default() });
            self.commands.push(Command::OuterGradients { step });
        }
    }

    fn resident(&mut self, n_steps: usize, want: Want) {
        let long = self.span * self.window;
        let spans: Vec<Range<usize>> =
            (0..n_steps).step_by(long).map(|at| at..(at + long).min(n_steps)).collect();
        let steps: Vec<usize> = spans
            .iter()
            .map(|span| {
                self.step(Step {
                    first: number(span.start),
                    n_steps: number(span.len()),
                    store: u32::from(want.traces),
                    slot: number(span.start / self.window),
                    ..Step::default()
                })
            })
            .collect();
        self.commands.extend(steps.iter().map(|&step| Command::ResidentForward { step }));
        self.commands.push(Command::Loss);
        self.n_forward = self.commands.len();
        if want.gradients {
            self.commands.extend(steps.iter().rev().map(|&step| Command::ResidentBack { step }));
            let all = steps.iter().map(|&step| Command::WeightGradients { buffer: 0, step });
            self.commands.extend(all);
        }
    }

    fn streamed(&mut self, network: &Network, n_steps: usize, want: Want) {
        if Slots::of(network, false).drive > 0 {
            self.commands.push(Command::Drive);
        }
        for t in 0..n_steps + usize::from(want.traces) {
            // the sweep at a window's first step evolves and stores the window before
            let w = t.saturating_sub(1) / self.window;
            let first = w * self.window;
            let ends = t - first == self.window || t == n_steps;
            let step = self.step(Step {
                first: number(first),
                n_steps: number(t - first),
                row: number(t + 1),
                store: u32::from(ends),
                ..Step::default()
            });
            self.commands.push(Command::PlasticMatmul { window: w, step });
            if t < n_steps {
                self.commands.push(Command::NeuronStep { step });
            }
        }
        self.commands.push(Command::Loss);
        if network.stages.output.is_some() {
            self.commands.push(Command::ReadOut);
        }
        self.n_forward = self.commands.len();
        if !want.gradients {
            return;
        }
        for w in (0..self.n_windows).rev() {
            self.streamed_back(w, n_steps);
        }
        let step = self.step(Step { propagated: 1, ..Step::default() });
        self.commands.push(Command::NeuronBack { step });
        for w in 0..self.n_windows {
            let first = w * self.window;
            let step = self.step(Step {
                first: number(first),
                n_steps: number(self.window.min(n_steps - first)),
                ..Step::default()
            });
            self.commands.push(Command::WeightGradients { buffer: w, step });
        }
        self.outer_gradients(network, n_steps);
    }

    fn streamed_back(&mut self, w: usize, n_steps: usize) {
        let first = w * self.window;
        let last = (first + self.window).min(n_steps);
        let at = |row, propagate, collect| Step {
            first: number(first),
            n_steps: number(last - first),
            row: number(row),
            propagate,
            collect,
            ..Step::default()
        };
        // After the last step P is zero: there is nothing to propagate or collect.
        let inner = u32::from(last < n_steps);
        if inner == 1 {
            let step = self.step(at(last + 1, 0, 1));
            self.commands.push(Command::BackwardSweep { window: w, step });
        }
        let back = |plan: &mut Plan, row, flag| {
            let step = Step { propagated: flag, collected: flag, ..at(row, 0, 0) };
            let step = plan.step(step);
            plan.commands.push(Command::NeuronBack { step });
        };
        back(self, last, inner);
        for t in (first + 1..last).rev() {
            let step = self.step(at(t + 1, 1, 1));
            self.commands.push(Command::BackwardSweep { window: w, step });
            back(self, t, 1);
        }
        let step = self.step(Step { store: 1, ..at(first + 1, 1, 0) });
        self.commands.push(Command::BackwardSweep { window: w, step });
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("sizes fit 32 bits")
}
