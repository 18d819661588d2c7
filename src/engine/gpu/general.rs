//! What the general plan has beside the others: commands of its own, marks of steps, and the traces and
//! variables that a rule's text keeps.

use crate::engine::gpu::bind::{BoundSteps, StepPipelines};
use crate::engine::gpu::kernels::Pipeline;
use crate::engine::gpu::plan::Command;
use crate::engine::gpu::prepare::{Part, Prepared};
use crate::engine::gpu::traces::{pack, unpack};
use crate::engine::gpu::{GpuEngine, Living};
use crate::engine::{Held, Storage};
use crate::error::Result;
use crate::model::{Episodes, Signals};

/// A step before which the network is reset, and one that no gradient passes, as `shaders/lib/marks.wgsl` has them.
pub(super) const RESET: f32 = 1.0;
pub(super) const CUT: f32 = 2.0;

/// What a command of the general plan runs; workgroups of tiles, of neurons, or of splits.
pub(super) fn general<'a>(
    command: Command,
    plan: (&'a StepPipelines, &'a BoundSteps),
    (tile, each, splits): ([u32; 3], [u32; 3], [u32; 3]),
) -> (&'a Pipeline, &'a wgpu::BindGroup, usize, [u32; 3]) {
    let (
        StepPipelines::General {
            sweep,
            neuron_step,
            neurons,
            collect,
            neurons_back,
            neuron_back,
            weights,
            back,
        },
        BoundSteps::General {
            sweep: sweep_bound,
            neuron_step: step_bound,
            neurons: neurons_bound,
            collect: collect_bound,
            neurons_back: neurons_back_bound,
            neuron_back: step_back_bound,
            weights: weights_bound,
            back: back_bound,
        },
    ) = plan
    else {
        unreachable!("pipelines and bind groups are of one plan")
    };
    match command {
        Command::GeneralSweep { from, to, step } => (sweep, &sweep_bound[&(from, to)], step, tile),
        Command::NeuronStep { step } => (neuron_step, step_bound, step, each),
        Command::GeneralNeurons { step } => (neurons, neurons_bound, step, each),
        Command::GeneralCollect { slot, step } => (collect, &collect_bound[slot], step, tile),
        Command::GeneralNeuronsBack { step } => (neurons_back, neurons_back_bound, step, each),
        Command::NeuronBack { step } => (neuron_back, step_back_bound, step, each),
        Command::GeneralWeights { slot, step } => (weights, &weights_bound[slot], step, splits),
        Command::GeneralBack { slot, step } => (back, &back_bound[slot], step, tile),
        _ => unreachable!("a command of another plan"),
    }
}

/// Traces beside H, by a network's rule: E, or those of a text.
pub(super) fn all_traces<'a>(
    engine: &GpuEngine,
    [h, e]: [Option<&'a Vec<f32>>; 2],
    rule: impl Iterator<Item = Option<&'a Vec<f32>>>,
) -> Vec<Option<&'a Vec<f32>>> {
    let others: Vec<_> = match engine.network.stages.rule {
        Some(_) => rule.chain(std::iter::repeat(None)).take(engine.n_others()).collect(),
        None => std::iter::repeat_n(e, engine.n_others()).collect(),
    };
    std::iter::once(h).chain(others).collect()
}

impl GpuEngine {
    /// Traces beside H.
    pub(super) fn n_others(&self) -> usize {
        self.network.n_traces() - 1
    }

    /// Numbers of each variable of a rule's text, those of the post-synaptic neurons first.
    pub(super) fn variable_sizes(&self) -> Vec<usize> {
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let sizes = self.network.stages.rule.iter().flat_map(|rule| rule.state_sizes(m, n));
        sizes.skip(self.n_others()).collect()
    }

    /// Bytes from an episode's part of the state to the next, and where a variable's row lies in it.
    fn state_at(&self, n_steps: usize) -> (u64, impl Fn(usize, usize) -> u64) {
        let sizes = [self.network.n_pre, self.network.n_post];
        let equations = self.equations.clone();
        let stride = equations.as_ref().map_or(0, |e| e.state_stride(n_steps, sizes[0], sizes[1]));
        let at = move |k: usize, t: usize| {
            let at = equations.as_ref().map_or(0, |e| e.variable_at(k, t, n_steps, sizes));
            4 * at as u64
        };
        (4 * stride as u64, at)
    }

    /// The traces that the episodes of a batch start with.
    pub(super) fn first_traces<'a>(
        &self,
        episodes: &'a Episodes<f32>,
    ) -> Vec<Option<&'a Vec<f32>>> {
        let given = [episodes.h0.as_ref(), episodes.e0.as_ref()];
        all_traces(self, given, episodes.signals.rule0.iter().map(Option::as_ref))
    }

    /// Hands over marks, start values of variables and dL/dH after the last step.
    pub(super) fn upload_general(
        &self,
        prepared: &Prepared,
        part: &Part,
        signals: &Signals<f32>,
        alive: bool,
    ) {
        let queue = &self.gpu().queue;
        let (b, t) = (&prepared.buffers, prepared.shape.n_steps);
        let (first, count) = (part.first_episode, part.n_episodes());
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let marked = prepared.slots.marks as u64 * prepared.slot_bytes(part, n);
        if signals.reset.is_some() || signals.truncate.is_some() {
            for e in 0..count {
                let of_step = |t_now: usize| {
                    let reset = signals.reset.as_ref();
                    let resets = reset.is_some_and(|reset| reset[(first + e) * t + t_now] != 0.0);
                    let cut = signals.truncate.is_some_and(|k| t_now.is_multiple_of(k));
                    match (resets, cut && t_now > 0) {
                        (true, _) => RESET,
                        (false, true) => CUT,
                        (false, false) => 0.0,
                    }
                };
                let marks: Vec<f32> = (0..t).map(of_step).collect();
                let at = marked + 4 * (e * (t + 1) * n) as u64;
                queue.write_buffer(&b.record, at, bytemuck::cast_slice(&marks));
            }
        }
        if let (Some(rule), false) = (&self.network.stages.rule, alive) {
            let (stride, at) = self.state_at(t);
            let states = rule.states(m, n).enumerate().skip(self.n_others());
            for (k, (state, axes)) in states {
                let len = axes.iter().product();
                let given = signals.rule0.get(k).and_then(Option::as_ref);
                if given.is_none() && !prepared.start_written {
                    continue;
                }
                #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
                let start = vec![state.start as f32; len];
                for e in 0..count {
                    let values = given.map_or(&start[..], |list| &list[(first + e) * len..][..len]);
                    let to = e as u64 * stride + at(k - self.n_others(), 0);
                    queue.write_buffer(&b.state, to, bytemuck::cast_slice(values));
                }
            }
        }
        if let Some(dh) = signals.dh.as_ref().filter(|_| prepared.want.gradients) {
            for (e, dh) in dh[first * m * n..][..count * m * n].chunks(m * n).enumerate() {
                let bytes = pack(dh, n, Storage::F32);
                let at = (e * self.network.n_traces() * bytes.len()) as u64;
                queue.write_buffer(&b.adjoint, at, &bytes);
            }
        }
    }

    /// Clears the marks where a batch brings none.
    pub(super) fn clear_marks(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        prepared: &Prepared,
        part: &Part,
        signals: &Signals<f32>,
    ) {
        let marks = prepared.slots.marks as u64;
        if marks > 0 && signals.reset.is_none() && signals.truncate.is_none() {
            let slot = prepared.slot_bytes(part, self.network.n_post);
            encoder.clear_buffer(&prepared.buffers.record, marks * slot, Some(slot));
        }
    }

    /// Copies the variables of a life's memories, `[P, B, variables]`, to where a part starts, or from
    /// where it ended.
    pub(super) fn copy_variables(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        prepared: &Prepared,
        part: &Part,
        (life, starts): (&Living, bool),
    ) {
        let Some(held) = &life.state else { return };
        let (t, state) = (prepared.shape.n_steps, &prepared.buffers.state);
        let (stride, at) = self.state_at(t);
        let sizes = self.variable_sizes();
        let one = 4 * sizes.iter().sum::<usize>() as u64;
        for e in 0..part.n_episodes() as u64 {
            let mut of_life = (part.first_episode as u64 + e) * one;
            for (k, &len) in sizes.iter().enumerate() {
                let (len, of_part) = (4 * len as u64, e * stride);
                if starts {
                    let to = of_part + at(k, 0);
                    encoder.copy_buffer_to_buffer(held, of_life, state, to, len);
                } else {
                    let from = of_part + at(k, t);
                    encoder.copy_buffer_to_buffer(state, from, held, of_life, len);
                }
                of_life += len;
            }
        }
    }

    /// Traces of `count` episodes as the device keeps them, `[count, M, N]` each appended to `found`.
    pub(super) fn split_traces(
        &self,
        words: &[f32],
        storage: Storage,
        count: usize,
        found: &mut Vec<Vec<f32>>,
    ) {
        let n_traces = self.network.n_traces();
        found.resize(n_traces, Vec::new());
        let len = words.len() / (count * n_traces);
        for (k, trace) in words.chunks(len).enumerate() {
            let (m, n) = (self.network.n_pre, self.network.n_post);
            unpack(trace, m, n, storage, &mut found[k % n_traces]);
        }
    }

    /// The variables of a rule's text after a part's last step, each appended to `found`.
    pub(super) fn read_variables(
        &self,
        prepared: &Prepared,
        part: &Part,
        found: &mut Vec<Vec<f32>>,
    ) -> Result<()> {
        let t = prepared.shape.n_steps;
        let (_, at) = self.state_at(t);
        self.read_state(prepared, part, |k| at(k, t), found)
    }

    /// dL by the start values that a batch brings for a rule's text, after its backward pass.
    pub(super) fn read_starts(
        &self,
        prepared: &Prepared,
        part: &Part,
        traces: &[Vec<f32>],
        signals: &Signals<f32>,
        found: &mut Signals<f32>,
    ) -> Result<()> {
        if signals.rule0.iter().all(Option::is_none) {
            return Ok(());
        }
        let Some(equations) = &self.equations else { return Ok(()) };
        let sizes = [self.network.n_pre, self.network.n_post];
        let t = prepared.shape.n_steps;
        let mut all: Vec<Vec<f32>> = traces[1..].to_vec();
        let mut variables = Vec::new();
        let at = |k: usize| 4 * equations.start_bar_at(k, t, sizes) as u64;
        self.read_state(prepared, part, at, &mut variables)?;
        all.append(&mut variables);
        found.rule0.resize(signals.rule0.len(), None);
        for ((given, found), values) in signals.rule0.iter().zip(&mut found.rule0).zip(all) {
            if given.is_some() {
                found.get_or_insert_default().extend(values);
            }
        }
        Ok(())
    }

    /// Of every variable a row of a part's state, appended to `found`.
    fn read_state(
        &self,
        prepared: &Prepared,
        part: &Part,
        at: impl Fn(usize) -> u64,
        found: &mut Vec<Vec<f32>>,
    ) -> Result<()> {
        let sizes = self.variable_sizes();
        found.resize(sizes.len(), Vec::new());
        if sizes.is_empty() {
            return Ok(());
        }
        let (gpu, state) = (self.gpu(), &prepared.buffers.state);
        let (stride, _) = self.state_at(prepared.shape.n_steps);
        let one: usize = sizes.iter().sum();
        let rows = gpu.buffer("rows of variables", part.n_episodes() * one)?;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut to = 0;
        for e in 0..part.n_episodes() as u64 {
            for (k, &len) in sizes.iter().enumerate() {
                let len = 4 * len as u64;
                encoder.copy_buffer_to_buffer(state, e * stride + at(k), &rows, to, len);
                to += len;
            }
        }
        gpu.queue.submit([encoder.finish()]);
        for mut episode in gpu.read(&rows, 0, part.n_episodes() * one)?.chunks(one) {
            for (&len, found) in sizes.iter().zip(&mut *found) {
                let (own, rest) = episode.split_at(len);
                found.extend(own);
                episode = rest;
            }
        }
        Ok(())
    }

    /// What a life's memories hold of a rule's text, in the order of [`Held::rule`].
    pub(super) fn read_rule(&self, life: &Living, mut traces: Vec<Vec<f32>>) -> Result<Held<f32>> {
        let mut held = Held { n_memories: life.n_memories, ..Held::default() };
        let others = traces.split_off(1);
        held.h = traces.pop().unwrap_or_default();
        if self.network.stages.rule.is_none() {
            held.e = others.into_iter().next().unwrap_or_default();
            return Ok(held);
        }
        held.rule = others;
        let sizes = self.variable_sizes();
        let n_traces = held.rule.len();
        held.rule.resize(n_traces + sizes.len(), Vec::new());
        if let Some(state) = &life.state {
            let one: usize = sizes.iter().sum();
            let all = self.gpu().read(state, 0, self.network.n_networks * life.n_memories * one)?;
            for memory in all.chunks(one) {
                let mut rest = memory;
                for (len, found) in sizes.iter().zip(&mut held.rule[n_traces..]) {
                    let (own, others) = rest.split_at(*len);
                    found.extend(own);
                    rest = others;
                }
            }
        }
        Ok(held)
    }
}
