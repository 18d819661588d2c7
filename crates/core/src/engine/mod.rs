//! Engines: the same work on the CPU and on a GPU, behind one trait.

pub mod cpu;
mod memory;
mod program;
pub mod reference;

#[doc(hidden)]
pub use memory::{available_memory, check_memory};
pub use program::{CpuShares, GpuBatch, PlanDescription, Program};
#[doc(hidden)]
pub use program::{Programs, engine_number};

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::model::{Episodes, Leak, Network, Parameters, Rule, Scalar, Shape, Signals, StepSize};
use crate::rule;

/// Refuses episodes that bring a start of their own, which memories give, or of another number.
#[doc(hidden)]
pub fn check_life<S>(episodes: &Episodes<S>, n_memories: usize) -> Result<()> {
    if episodes.has_start() {
        return Err(Error::value("episodes", "a start of their own", "none: memories give it"));
    }
    if episodes.shape.n_batch != n_memories {
        let found = format!("{} episodes per network", episodes.shape.n_batch);
        return Err(Error::value("episodes", found, format!("{n_memories}, one for each memory")));
    }
    Ok(())
}

/// What [`Engine::step`] says without gradients.
#[doc(hidden)]
#[must_use]
pub fn no_gradients() -> Error {
    Error::value("step", "no gradients since the last one", "a backward pass before it")
}

/// Which results of a batch are wanted beside the loss and y of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// y of every step, not only of the last.
    pub activity: bool,
    /// The traces after the last step.
    pub traces: bool,
    /// Every gradient.
    pub gradients: bool,
}

impl Want {
    /// What a training update needs.
    pub const UPDATE: Want = Want { activity: false, traces: false, gradients: true };

    /// Whether what is made for it serves `other` too.
    #[must_use]
    pub fn covers(self, other: Want) -> bool {
        (self.gradients || !other.gradients) && (self.traces || !other.traces)
    }

    /// Checks that [`Outputs`] of `size` bytes a number fit the host's memory.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn check_memory(self, network: &Network, shape: &Shape, size: usize) -> Result<()> {
        let (m, n, t) = (network.n_pre as u64, network.n_post as u64, shape.n_steps as u64);
        let traces = network.n_traces() as u64 * m * n;
        let pre = if network.recurrent { 0 } else { m };
        let one = n
            + if self.activity { t * n } else { 0 }
            + if self.traces { traces } else { 0 }
            + if self.gradients { t * (n + pre) + n + traces } else { 0 };
        let episodes = (network.n_networks * shape.n_batch) as u64;
        if self == Want::default() {
            return Ok(());
        }
        check_memory("the output", (episodes * size as u64).saturating_mul(one))
    }
}

/// What a batch of episodes gave.
#[derive(Clone, Debug, Default)]
pub struct Outputs<S> {
    /// `[P]`.
    pub loss: Vec<S>,
    /// y of the last step, `[P, B, N]`.
    pub y_last: Vec<S>,
    /// y of every step, `[P, B, T, N]`, where wanted.
    pub y: Vec<S>,
    /// H after the last step, `[P, B, M, N]`, where wanted.
    pub h: Vec<S>,
    /// E after the last step, likewise, for the retroactive rule.
    pub e: Vec<S>,
    /// v after the last step `[P, B, N]`, of neurons whose membrane leaks.
    pub v: Vec<S>,
    /// The read-out at every step `[P, B, T, O]`, of networks that have one.
    pub out: Vec<S>,
    /// Of a rule's text, after the last step where traces are wanted: traces beyond H
    /// `[P, B, M, N]`, then post variables `[P, B, N]` and pre variables `[P, B, M]`.
    pub rule: Vec<Vec<S>>,
    /// Gradients of sum over networks of the loss, where wanted.
    pub gradients: Option<Gradients<S>>,
}

/// Gradients of the loss.
#[derive(Clone, Debug)]
pub struct Gradients<S> {
    /// With respect to every parameter.
    pub parameters: Parameters<S>,
    /// `[P, B, T, N]`: dL/dinput.
    pub input: Vec<S>,
    /// `[P, B, T, M]`: dL/dx of a feed-forward layer; empty for a recurrent one.
    pub pre: Vec<S>,
    /// `[P, B, N]`.
    pub y0: Vec<S>,
    /// `[P, B, M, N]`.
    pub h0: Vec<S>,
    /// `[P, B, M, N]`, of the retroactive rule; else empty.
    pub e0: Vec<S>,
    /// With respect to the signals that the batch has; a start value that it has not is not in it.
    pub signals: Signals<S>,
}

/// What one training update did, available some updates later.
#[derive(Clone, Debug, PartialEq)]
pub struct Report<S> {
    /// Number of the update in this engine's life, from 0.
    pub update: u64,
    /// Loss per network, of all its backward passes together.
    pub loss: Vec<S>,
    /// Euclidean norm of each network's gradient, before any clipping.
    pub gradient_norm: Vec<S>,
    /// Mean of eta over each network, before the update; 0 where the rule has none.
    pub eta: Vec<S>,
    /// y of the last step, `[P, B, N]`, of its last backward pass.
    pub y_last: Vec<S>,
}

/// All that training changes in an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct State<S> {
    /// The parameters.
    pub parameters: Parameters<S>,
    /// The optimiser's first moments, or its velocity.
    pub first: Parameters<S>,
    /// The optimiser's second moments; zero where it has none.
    pub second: Parameters<S>,
    /// Updates done.
    pub update: u64,
}

impl<S: Copy + Default> State<S> {
    /// Checks that it is of these networks.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self, network: &Network) -> Result<()> {
        [&self.parameters, &self.first, &self.second].into_iter().try_for_each(|p| p.check(network))
    }
}

/// Where and how an engine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The device, in the driver's words.
    pub device: String,
    /// The driver and the way to it, such as "Vulkan".
    pub driver: String,
    /// Whether the device is a GPU that the CPU imitates.
    pub software: bool,
    /// The plan: how steps and traces are laid over the device.
    pub plan: PlanDescription,
    /// Bytes that the program needs, with the engine's own.
    pub memory_needed: u64,
    /// Bytes available, where the system tells.
    pub memory_available: Option<u64>,
    /// What one update takes, counted, where the plan says.
    pub work: Option<Work>,
}

/// What the O(N^2) part of one update takes, forward and backward, counted from the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Bytes of matrices read and written.
    pub bytes: u64,
    /// Multiply-adds, or what takes as long.
    pub multiply_adds: u64,
    /// Dispatches to a GPU.
    pub dispatches: u64,
}

/// What an update took by the clock of the device; a pass is the dispatches of one submission, or
/// with `gpu::Options::profile` one dispatch (those after a batch: the sums, and the optimiser).
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceTime {
    /// Seconds from the first pass's beginning to the last one's end, with what lies between
    /// passes (of a batch in parts also their uploads), without what lies before and after.
    pub seconds: f64,
    /// Seconds within passes, with the gaps between their dispatches.
    pub in_passes: f64,
    /// What each kernel took, in the order in which they first ran; none unless every dispatch
    /// was a pass of its own (`gpu::Options::profile`).
    pub kernels: Vec<KernelTime>,
}

/// What the passes of a kernel took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelTime {
    /// The name of its shader; `sums` and `optimiser` for those after a batch.
    pub kernel: &'static str,
    /// How many.
    pub passes: u32,
    /// Seconds of all of them together.
    pub seconds: f64,
}

/// What networks hold between steps, of B memories of each of P networks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held<S> {
    /// B.
    pub n_memories: usize,
    /// Activity `[P, B, N]`.
    pub y: Vec<S>,
    /// H `[P, B, M, N]`.
    pub h: Vec<S>,
    /// E `[P, B, M, N]` of the retroactive rule; else empty.
    pub e: Vec<S>,
    /// v `[P, B, N]` of neurons whose membrane leaks; else empty.
    pub v: Vec<S>,
    /// What a rule's text keeps, in the order of [`Outputs::rule`]; else empty.
    pub rule: Vec<Vec<S>>,
}

impl<S: Scalar> Held<S> {
    /// What networks hold before their first step: zeros, and the start values of a rule's text.
    #[must_use]
    pub fn newborn(network: &Network, n_memories: usize) -> Self {
        let (m, n) = (network.n_pre, network.n_post);
        let total = network.n_networks * n_memories;
        let zeros = |one: usize| vec![S::ZERO; total * one];
        let two = network.rule == Rule::Retroactive;
        let membrane = matches!(network.stages.leak, Some((Leak::Membrane, _)));
        let states = network.stages.rule.iter().flat_map(|text| text.states(m, n));
        let start = |(state, axes): (&rule::State, Vec<usize>)| {
            vec![S::from_f64(state.start); total * axes.iter().product::<usize>()]
        };
        Held {
            n_memories,
            y: zeros(n),
            h: zeros(m * n),
            e: zeros(if two { m * n } else { 0 }),
            v: zeros(if membrane { n } else { 0 }),
            rule: states.map(start).collect(),
        }
    }
}

impl<S> Held<S> {
    /// Checks that it is of these networks.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming what has another length.
    pub fn check(&self, network: &Network) -> Result<()> {
        if self.n_memories == 0 {
            return Err(Error::value("memories", "0", "at least 1"));
        }
        let (m, n) = (network.n_pre, network.n_post);
        let total = network.n_networks * self.n_memories;
        let two = network.rule == Rule::Retroactive;
        let membrane = matches!(network.stages.leak, Some((Leak::Membrane, _)));
        let mut lists = vec![
            ("y", self.y.len(), n),
            ("h", self.h.len(), m * n),
            ("e", self.e.len(), if two { m * n } else { 0 }),
            ("v", self.v.len(), if membrane { n } else { 0 }),
        ];
        if let Some(rule) = &network.stages.rule {
            let sizes = rule.state_sizes(m, n);
            let lengths = self.rule.iter().map(Vec::len).chain(std::iter::repeat(0));
            lists.extend(sizes.zip(lengths).map(|(size, len)| ("rule", len, size)));
        }
        for (name, found, one) in lists {
            if found != total * one {
                let (found, wanted) = (format!("{found} numbers"), format!("{}", total * one));
                return Err(Error::tensor(name, found, wanted));
            }
        }
        Ok(())
    }
}

/// Checks what [`Engine::set_back`] is given.
#[doc(hidden)]
pub fn check_set_back<S>(
    network: &Network,
    n_memories: usize,
    memories: &[usize],
    to: &Held<S>,
) -> Result<()> {
    to.check(network)?;
    if to.n_memories != n_memories {
        let found = format!("{} memories per network", to.n_memories);
        return Err(Error::value("memories", found, format!("{n_memories}, as live")));
    }
    let total = network.n_networks * n_memories;
    match memories.iter().find(|&&memory| memory >= total) {
        Some(memory) => Err(Error::value("memory", memory.to_string(), format!("below {total}"))),
        None => Ok(()),
    }
}

/// Memories that live where an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifeId {
    engine: u64,
    at: usize,
}

/// The memories of an engine, by their numbers.
#[derive(Debug)]
pub struct Lives<T> {
    engine: u64,
    /// By their numbers, none of which comes again.
    all: HashMap<usize, T>,
    next: usize,
}

impl<T> Default for Lives<T> {
    fn default() -> Self {
        Lives { engine: engine_number(), all: HashMap::new(), next: 0 }
    }
}

impl<T> Lives<T> {
    /// Takes memories in.
    pub fn add(&mut self, life: T) -> LifeId {
        let at = self.next;
        self.next += 1;
        self.all.insert(at, life);
        LifeId { engine: self.engine, at }
    }

    /// Takes memories out, to be put back or not.
    ///
    /// # Errors
    /// [`Error::Value`] for those of another engine, or that have ended.
    pub fn take(&mut self, id: LifeId) -> Result<T> {
        let life = if id.engine == self.engine { self.all.remove(&id.at) } else { None };
        life.ok_or_else(|| {
            let found = if id.engine == self.engine {
                "one that has ended"
            } else {
                "one of another engine"
            };
            Error::value("life", found, "one that this engine woke")
        })
    }

    /// Puts them back.
    pub fn put(&mut self, id: LifeId, life: T) {
        self.all.insert(id.at, life);
    }
}

/// Runs episodes of one population and trains it.
///
/// A training update is three calls, so that gradients of several batches, or of several processes, can
/// be added before the parameters move:
///
/// ```
/// use hebbian_core::engine::{Engine, Want, cpu};
/// # use hebbian_core::error::Result;
/// # use hebbian_core::model::{Episodes, Network, StepSize};
/// # fn update(network: &Network, batch: &Episodes<f32>, step: StepSize) -> Result<()> {
/// let mut engine = cpu::open::<f32>(network)?;
/// let program = engine.program(batch.shape, Want::UPDATE)?;
/// engine.backward(&program, batch)?;          // adds to the gradients
/// let mut gradients = engine.gradients()?;    // only to look at them, or to change them
/// gradients.values_mut().iter_mut().for_each(|g| *g *= 0.5);
/// engine.set_gradients(&gradients)?;
/// engine.step(step)?;                         // moves the parameters
/// # Ok(())
/// # }
/// ```
pub trait Engine<S: Scalar>: Send {
    /// The population.
    fn network(&self) -> &Network;

    /// A plan and buffers for batches of `shape` that give what is wanted. A program that is there and
    /// serves such batches is returned; it holds nothing between two calls.
    ///
    /// # Errors
    /// Sizes that do not fit the network; [`crate::error::Error::Memory`] if it does not fit.
    fn program(&mut self, shape: Shape, want: Want) -> Result<Program>;

    /// Where and how a program runs.
    ///
    /// # Errors
    /// A program of another engine.
    fn describe(&mut self, program: &Program) -> Result<Description>;

    /// Runs a batch and waits for what the program can give: with gradients, those of the batch alone.
    /// Parameters stay, and so do the gradients that [`Engine::backward`] added up.
    ///
    /// # Errors
    /// A program of another engine; a batch that does not fit the program or the network; too little
    /// memory; a lost device.
    fn run(&mut self, program: &Program, episodes: &Episodes<S>, want: Want) -> Result<Outputs<S>>;

    /// Runs a batch forward and backward and adds its gradients to those since the last
    /// [`Engine::step`]. The forward pass keeps what its own backward pass reads, and nothing longer. A
    /// GPU returns when the work is handed over, not when it is done.
    ///
    /// # Errors
    /// As [`Engine::run`]; a program without gradients.
    fn backward(&mut self, program: &Program, episodes: &Episodes<S>) -> Result<()>;

    /// The gradients that were added up since the last step; zeros if none were.
    ///
    /// # Errors
    /// A lost device.
    fn gradients(&mut self) -> Result<Parameters<S>>;

    /// Replaces them, say by their sum over processes.
    ///
    /// # Errors
    /// Gradients of other networks; a lost device.
    fn set_gradients(&mut self, gradients: &Parameters<S>) -> Result<()>;

    /// Moves the parameters along the gradients, which are none afterwards; a
    /// [report](Engine::reports) follows.
    ///
    /// # Errors
    /// [`crate::error::Error::Value`] without gradients; a lost device.
    fn step(&mut self, step: StepSize) -> Result<()>;

    /// Replaces the parameters. Optimiser moments start from zero; gradients are dropped.
    ///
    /// # Errors
    /// Parameters of other networks; a lost device.
    fn set_parameters(&mut self, parameters: &Parameters<S>) -> Result<()>;

    /// The parameters as they are now.
    ///
    /// # Errors
    /// A lost device.
    fn parameters(&mut self) -> Result<Parameters<S>>;

    /// Parameters, moments and number of updates as they are after every update so far.
    ///
    /// # Errors
    /// A lost device.
    fn state(&mut self) -> Result<State<S>>;

    /// Goes on from `state` as if its updates had been done here. Reports that were not
    /// fetched are dropped, and gradients.
    ///
    /// # Errors
    /// The state of other networks; a lost device.
    fn set_state(&mut self, state: &State<S>) -> Result<()>;

    /// [`Engine::run`] by the program for such batches.
    ///
    /// # Errors
    /// As [`Engine::program`] and [`Engine::run`].
    fn evaluate(&mut self, episodes: &Episodes<S>, want: Want) -> Result<Outputs<S>> {
        let program = self.program(episodes.shape, want)?;
        self.run(&program, episodes, want)
    }

    /// [`Engine::backward`] by the program for such batches, and [`Engine::step`].
    ///
    /// # Errors
    /// As [`Engine::program`], [`Engine::backward`] and [`Engine::step`].
    fn update(&mut self, episodes: &Episodes<S>, step: StepSize) -> Result<()> {
        let program = self.program(episodes.shape, Want::UPDATE)?;
        self.backward(&program, episodes)?;
        self.step(step)
    }

    /// Reports of finished updates, in order; with `wait`, of all updates so far.
    ///
    /// # Errors
    /// A lost device.
    fn reports(&mut self, wait: bool) -> Result<Vec<Report<S>>>;

    /// Takes memories in: they live where the engine is, and no trace of theirs moves, until
    /// [`Engine::rest`].
    ///
    /// # Errors
    /// Memories of other networks, too little memory, a lost device.
    fn wake(&mut self, held: &Held<S>) -> Result<LifeId>;

    /// Runs a batch that goes on from memories, one for each episode, and leaves them as they are after
    /// it. The episodes have no start of their own. Returns y of the last step, and of every step where
    /// `want` asks for activity.
    ///
    /// # Errors
    /// As [`Engine::run`]; memories of another engine, or another number of them.
    fn live(&mut self, life: LifeId, episodes: &Episodes<S>, want: Want) -> Result<Outputs<S>>;

    /// The memories as they are now.
    ///
    /// # Errors
    /// Memories of another engine; a lost device.
    fn held(&mut self, life: LifeId) -> Result<Held<S>>;

    /// Sets some of the memories, counted through all networks, to what they are in `to`; the others go
    /// on.
    ///
    /// # Errors
    /// Memories of another engine, or of other networks; a memory that is not there; a lost device.
    fn set_back(&mut self, life: LifeId, memories: &[usize], to: &Held<S>) -> Result<()>;

    /// Lets memories go.
    ///
    /// # Errors
    /// Memories of another engine.
    fn rest(&mut self, life: LifeId) -> Result<()>;

    /// What the update reported last took by the device's clock, where it has one.
    fn device_time(&self) -> Option<DeviceTime> {
        None
    }
}
