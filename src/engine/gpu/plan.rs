//! The streamed plan: which kernels run, in which order, for a batch of T steps.
//!
//! One dispatch a step and direction. The trace is written once a window of K steps;
//! inside the window every sweep evolves it in registers. The stored traces are the
//! checkpoints of the way back.

use crate::engine::Work;
use crate::engine::gpu::kernels::{MAX_WINDOW, Step};
use crate::model::{Network, Shape};

/// Steps between stored traces.
const WINDOW: usize = 8;

/// One dispatch. `step` is an index into [`Plan::steps`], `window` chooses the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The trace at the end of a window.
    TraceCommit { window: usize, step: usize },
    /// The plastic matmul of a step.
    PlasticMatmul { window: usize, step: usize },
    /// Activation and rule of a step.
    NeuronStep { step: usize },
    /// Every step's loss.
    Loss,
    /// Row and column sums of a backward step.
    BackwardSweep { window: usize, step: usize },
    /// Adjoints of activation and rule of a step.
    NeuronBack { step: usize },
    /// Weight gradients of a window, and P at its start.
    WindowGradients { window: usize, step: usize },
    /// Loss and rule gradients over episodes.
    SumEpisodes,
}

/// The dispatches of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) window: usize,
    pub(crate) n_windows: usize,
    /// Stored traces: one for the start of each window and one for the end where the way
    /// back needs them, else two in turn.
    pub(crate) n_slots: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) commands: Vec<Command>,
}

impl Plan {
    pub(crate) fn new(n_steps: usize, gradients: bool) -> Self {
        let window = WINDOW.min(n_steps).min(MAX_WINDOW);
        let n_windows = n_steps.div_ceil(window);
        let n_slots = if gradients { n_windows + 1 } else { 2 };
        let mut plan = Plan { window, n_windows, n_slots, steps: Vec::new(), commands: Vec::new() };
        plan.forward(n_steps);
        plan.commands.push(Command::Loss);
        if gradients {
            plan.backward(n_steps);
        }
        plan.commands.push(Command::SumEpisodes);
        plan
    }

    /// What an update takes, its batch in `n_parts`; the optimiser's three dispatches
    /// counted, its bytes not.
    pub(crate) fn work(&self, network: &Network, shape: &Shape, n_parts: usize) -> Work {
        let traces = network.n_traces() as u64;
        let size = self.window as u64;
        // numbers and multiply-adds a connection
        let (mut numbers, mut multiply_adds) = (0, 0);
        for command in &self.commands {
            let (moved, computed) = match command {
                // w, alpha and the trace, evolved in registers
                Command::PlasticMatmul { .. } => (2 + traces, 2 + traces * size / 2),
                Command::TraceCommit { .. } => (2 * traces, traces * size),
                // and the adjoint
                Command::BackwardSweep { .. } => (2 + 2 * traces, 8 + traces * size),
                // trace, adjoint before and after; d_w and d_alpha
                Command::WindowGradients { .. } => (3 * traces + 4, 5 * traces * size),
                Command::NeuronStep { .. }
                | Command::Loss
                | Command::NeuronBack { .. }
                | Command::SumEpisodes => (0, 0),
            };
            numbers += moved;
            multiply_adds += computed;
        }
        let each = (network.n_connections() * network.n_networks * shape.n_batch) as u64;
        Work {
            bytes: 4 * numbers * each,
            multiply_adds: multiply_adds * each,
            dispatches: (self.commands.len() * n_parts + 3) as u64,
        }
    }

    /// The slot of the trace at the start of window `w`.
    pub(crate) fn slot(&self, w: usize) -> usize {
        w % self.n_slots
    }

    fn step(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    fn forward(&mut self, n_steps: usize) {
        for w in 0..self.n_windows {
            let first = w * self.window;
            let last = (first + self.window).min(n_steps);
            for t in first..last {
                let step = Step {
                    first: number(first),
                    n_steps: number(t - first),
                    row: number(t + 1),
                    ..Step::default()
                };
                let step = self.step(step);
                self.commands.push(Command::PlasticMatmul { window: w, step });
                self.commands.push(Command::NeuronStep { step });
            }
            let step =
                Step { first: number(first), n_steps: number(last - first), ..Step::default() };
            let step = self.step(step);
            self.commands.push(Command::TraceCommit { window: w, step });
        }
    }

    fn backward(&mut self, n_steps: usize) {
        for w in (0..self.n_windows).rev() {
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
            let step = self.step(at(first + 1, 1, 0));
            self.commands.push(Command::BackwardSweep { window: w, step });
            self.commands.push(Command::WindowGradients { window: w, step });
        }
        let step = self.step(Step { propagated: 1, ..Step::default() });
        self.commands.push(Command::NeuronBack { step });
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("steps fit 32 bits")
}
