//! Running a batch: uploads, the plan's dispatches, the optimiser, reports on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::gpu::bind::{BoundSteps, Optimisers, StepPipelines};
use crate::engine::gpu::clock::{Clock, Passes};
use crate::engine::gpu::device::mapped;
use crate::engine::gpu::general::general;
use crate::engine::gpu::kernels::{BLOCK, Pipeline, SUM_COLUMNS, Update, grid};
use crate::engine::gpu::plan::{Command, INVOCATIONS, Layout};
use crate::engine::gpu::prepare::{Part, Prepared};
use crate::engine::gpu::slots::is_general;
use crate::engine::gpu::traces::{pack, quad_bytes, residual};
use crate::engine::gpu::{Added, GpuEngine, Living, Pending, REPORT, mark, number, words_of};
use crate::engine::{Report, Storage};
use crate::error::{Error, Result};
use crate::model::{
    self, Activation, AlphaSharing, Episodes, NO_ROW, Network, Optimiser, RuleText, StepSize,
    Tensor,
};
use crate::rule::Per;

/// Dispatches in one submission: sweeps of the streamed and of the general plan, which have at most [`SWEPT`]
/// connections together, and the long ones of the resident plan. Systems end a submission that
/// takes seconds.
const SWEEPS: usize = 64;
const SWEPT: usize = 1 << 31;
const SPANS: usize = 8;

/// Workgroups that share the neurons of an episode: one where neurons need each other.
pub(super) fn neuron_groups(network: &Network, layout: &model::Layout) -> u32 {
    let of_network = |rule: &RuleText| rule.per.contains(&Per::Network);
    let shares = |tensor| layout.find(tensor).is_some_and(|entry| entry.len == 1);
    let mixes = network.has_modulator()
        || network.activation == Activation::Softmax
        || shares(Tensor::Bias)
        || shares(Tensor::Leak)
        || (is_general(network) && shares(Tensor::Eta))
        || network.stages.rule.as_ref().is_some_and(of_network);
    if mixes { 1 } else { number(network.n_post.div_ceil(INVOCATIONS as usize)) }
}

/// What a batch is run for.
pub(super) enum Aim<'a> {
    /// Its outputs, or its own gradients too.
    Outputs { gradients: bool },
    /// It goes on from memories, and leaves them as they are after it.
    Life(&'a Living),
    /// Its gradients, added to those there or not.
    Training { add: bool },
}

impl GpuEngine {
    /// Hands the part's episodes to the device.
    pub(super) fn upload(
        &self,
        prepared: &Prepared,
        part: &Part,
        episodes: &Episodes<f32>,
        alive: bool,
    ) {
        let queue = &self.gpu().queue;
        let b = &prepared.buffers;
        let shape = &prepared.shape;
        let (first, count) = (part.first_episode, part.n_episodes());
        let (m, n, t) = (self.network.n_pre, self.network.n_post, shape.n_steps);
        let put = |buffer: &wgpu::Buffer, at: usize, values: &[f32], len: usize| {
            let values = &values[first * len..(first + count) * len];
            queue.write_buffer(buffer, 4 * at as u64, bytemuck::cast_slice(values));
        };
        let rows = |buffer: &wgpu::Buffer, values: &[u32]| {
            let values = &values[first * t..(first + count) * t];
            queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
        };
        put(&b.stimuli, 0, &episodes.stimuli, shape.n_stimuli * n);
        if let Some(clamps) = &episodes.clamps {
            put(&b.stimuli, count * shape.n_stimuli * n, clamps, shape.n_stimuli * n);
        }
        put(&b.targets, 0, &episodes.targets, shape.n_targets * n);
        let weights_at = count * shape.n_targets * n;
        put(&b.targets, weights_at, &episodes.loss_weights, shape.n_targets * n);
        rows(&b.shown, &episodes.shown);
        if self.network.stages.cotangents {
            rows(&b.scored, &vec![NO_ROW; episodes.scored.len()]);
        } else {
            rows(&b.scored, &episodes.scored);
        }
        if let Some(pre) = &episodes.pre {
            put(&b.pre, 0, pre, t * m);
        }
        self.upload_signals(prepared, part, &episodes.signals, alive);
        self.upload_general(prepared, part, &episodes.signals, alive);
        if !alive && (prepared.start_written || episodes.y0.is_some()) {
            let zeros = vec![0.0; n];
            for e in 0..count {
                let y0 = match &episodes.y0 {
                    Some(y0) => &y0[(first + e) * n..(first + e + 1) * n],
                    None => &zeros[..],
                };
                let at = 4 * (e * (t + 1) * n) as u64;
                queue.write_buffer(&b.record, at, bytemuck::cast_slice(y0));
            }
        }
        // a trace that starts at zero is cleared by the first commands of the batch
        let n_traces = self.network.n_traces();
        let storage = self.context.options.traces;
        for (which, start) in self.first_traces(episodes).into_iter().enumerate() {
            let Some(start) = start else { continue };
            for e in 0..count {
                let values = &start[(first + e) * m * n..(first + e + 1) * m * n];
                let bytes = pack(values, n, storage);
                let at = (e * n_traces + which) * bytes.len();
                queue.write_buffer(&b.traces[0], at as u64, &bytes);
                if storage == Storage::F16 {
                    let rest = pack(&residual(values), n, Storage::F32);
                    let at = (e * n_traces + which) * rest.len();
                    queue.write_buffer(&b.residual, at as u64, &rest);
                }
            }
        }
    }

    /// Runs the part: uploads, then the plan's commands, with `gradients` also the backward pass.
    ///
    /// Returns the last submission.
    pub(super) fn run(
        &self,
        prepared: &Prepared,
        part: &Part,
        episodes: &Episodes<f32>,
        gradients: bool,
        life: Option<&Living>,
    ) -> wgpu::SubmissionIndex {
        let gpu = self.gpu();
        let (b, plan) = (&prepared.buffers, &prepared.plan);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        if let Some(life) = life {
            self.start_life(&mut encoder, prepared, part, life);
        } else if self.first_traces(episodes).iter().any(Option::is_none) {
            let one = self.trace_bytes() * part.n_episodes() as u64;
            encoder.clear_buffer(&b.traces[0], 0, Some(one));
        }
        encoder.clear_buffer(&b.adjoint, 0, None);
        if self.context.options.traces == Storage::F16 && life.is_none() {
            encoder.clear_buffer(&b.residual, 0, None);
        }
        encoder.clear_buffer(&b.rule_bar, 0, None);
        self.clear_cotangents(&mut encoder, prepared, part, &episodes.signals);
        self.clear_marks(&mut encoder, prepared, part, &episodes.signals);
        let given = self.first_traces(episodes).iter().any(Option::is_some);
        if given || episodes.signals.dh.is_some() {
            // uploads come before a submission's commands: not before these
            gpu.queue.submit([encoder.finish()]);
            encoder = gpu.device.create_command_encoder(&Default::default());
        }
        gpu.queue.write_buffer(&prepared.job, 0, bytemuck::bytes_of(&self.job(prepared, part)));
        self.upload(prepared, part, episodes, life.is_some());

        let per_submission = match plan.layout {
            Layout::Streamed { .. } | Layout::General { .. } => {
                let each = part.n_episodes()
                    * self.network.n_connections()
                    * plan.heaviness(&self.network);
                (SWEPT / each).clamp(1, SWEEPS)
            }
            Layout::Resident(_) => SPANS,
        };
        let both = plan.to_run(gradients);
        let mut submission = None;
        let mut begun = Some(encoder);
        for commands in both.iter().flat_map(|commands| commands.chunks(per_submission)) {
            let mut encoder = begun
                .take()
                .unwrap_or_else(|| gpu.device.create_command_encoder(&Default::default()));
            let per_pass = if self.context.options.profile { 1 } else { commands.len() };
            for commands in commands.chunks(per_pass) {
                let mut pass = self.pass(&mut encoder, commands[0].kernel());
                for command in commands {
                    self.dispatch(&mut pass, prepared, part, *command);
                }
            }
            submission = Some(gpu.queue.submit([encoder.finish()]));
        }
        submission.expect("a plan has commands")
    }

    pub(super) fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        prepared: &Prepared,
        part: &Part,
        command: Command,
    ) {
        let (pipeline, group, step, size) = self.bound(prepared, part, command);
        pass.set_pipeline(&pipeline.pipeline);
        match step {
            Some(step) => pass.set_bind_group(0, group, &[number(step * self.step_stride())]),
            None => pass.set_bind_group(0, group, &[]),
        }
        pass.dispatch_workgroups(size[0], size[1], size[2]);
    }

    /// What a command runs: pipeline, bind group, step and workgroups.
    pub(super) fn bound<'a>(
        &self,
        prepared: &'a Prepared,
        part: &Part,
        command: Command,
    ) -> (&'a Pipeline, &'a wgpu::BindGroup, Option<usize>, [u32; 3]) {
        let bound = &prepared.bound[part.group];
        let pipelines = &prepared.pipelines;
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let episodes = number(part.n_episodes());
        let [tiles, chunks] = prepared.plan.layout.tile().grid(m, n);
        let each = [episodes, 1, 1];
        let blocks = |n: usize| number(n.div_ceil(INVOCATIONS as usize).clamp(1, 65_535));
        let tile = [tiles, chunks, episodes];
        let splits = [tiles, chunks, number(part.n_networks * prepared.n_splits)];
        let neurons = [episodes, neuron_groups(&self.network, &self.layout), 1];
        match (command, &pipelines.steps, &bound.steps) {
            (Command::Loss, ..) => {
                let rows = part.n_episodes() * prepared.shape.n_steps;
                (&pipelines.loss, &bound.loss, None, grid(rows))
            }
            (Command::Drive | Command::ReadOut | Command::OuterGradients { .. }, ..) => {
                let [x, y, z] = grid(part.n_episodes() * prepared.shape.n_steps);
                let (pipelines, bound) = (&pipelines.around, &bound.around);
                let (pipeline, bound, step, size) = match command {
                    Command::Drive => (&pipelines.drive, &bound.drive, None, [x, y, blocks(n)]),
                    Command::ReadOut => (&pipelines.read_out, &bound.read_out, None, [x, y, z]),
                    Command::OuterGradients { step } => {
                        let size = [episodes, blocks(self.n_rule()), 1];
                        (&pipelines.outer_gradients, &bound.outer_gradients, Some(step), size)
                    }
                    _ => unreachable!("matched above"),
                };
                let compiled = "compiled where the plan has it";
                (pipeline.as_ref().expect(compiled), bound.as_ref().expect(compiled), step, size)
            }
            (Command::SumEpisodes, ..) => {
                let size = [number(part.n_networks), blocks(self.n_rule()), 1];
                (&pipelines.sum_episodes, &bound.sum_episodes, None, size)
            }
            (
                _,
                StepPipelines::Streamed {
                    plastic_matmul,
                    neuron_step,
                    backward_sweep,
                    neuron_back,
                    weight_gradients,
                },
                BoundSteps::Streamed {
                    plastic_matmul: matmul_bound,
                    neuron_step: step_bound,
                    backward_sweep: sweep_bound,
                    neuron_back: back_bound,
                    weight_gradients: weights_bound,
                },
            ) => {
                let Layout::Streamed { together } = prepared.plan.layout else { unreachable!() };
                let groups = part.n_networks * part.n_batch.div_ceil(together);
                let sweep = [tiles, chunks, number(groups)];
                match command {
                    Command::PlasticMatmul { window, step } => {
                        (plastic_matmul, &matmul_bound[window], Some(step), sweep)
                    }
                    Command::NeuronStep { step } => (neuron_step, step_bound, Some(step), neurons),
                    Command::BackwardSweep { window, step } => {
                        (backward_sweep, &sweep_bound[window], Some(step), sweep)
                    }
                    Command::NeuronBack { step } => (neuron_back, back_bound, Some(step), neurons),
                    Command::WeightGradients { buffer, step } => {
                        (weight_gradients, &weights_bound[buffer], Some(step), splits)
                    }
                    _ => unreachable!("a command of another plan"),
                }
            }
            (_, StepPipelines::General { .. }, BoundSteps::General { .. }) => {
                let (pipeline, bound, step, size) =
                    general(command, (&pipelines.steps, &bound.steps), (tile, neurons, splits));
                (pipeline, bound, Some(step), size)
            }
            (
                _,
                StepPipelines::Resident { forward, back, weight_gradients },
                BoundSteps::Resident {
                    forward: forward_bound,
                    back: back_bound,
                    weight_gradients: weights_bound,
                },
            ) => match command {
                Command::WeightGradients { buffer, step } => {
                    (weight_gradients, &weights_bound[buffer], Some(step), splits)
                }
                Command::ResidentForward { step } => (forward, forward_bound, Some(step), each),
                Command::ResidentBack { step } => (back, back_bound, Some(step), each),
                _ => unreachable!("a command of another plan"),
            },
            _ => unreachable!("pipelines and bind groups are of one plan"),
        }
    }

    /// Clears what a batch adds to: gradients and losses too, unless it is to `add` to those there.
    fn start_batch(&self, prepared: &Prepared, encoder: &mut wgpu::CommandEncoder, add: bool) {
        for (group, sums) in self.groups.iter().zip(&prepared.sums) {
            if !add {
                encoder.clear_buffer(&group.gradient, 0, None);
                encoder.clear_buffer(&group.report, 0, None);
            }
            encoder.clear_buffer(&sums.d_connections, 0, None);
        }
    }

    /// Bytes of one episode's traces in one slot.
    pub(super) fn trace_bytes(&self) -> u64 {
        let quads = self.network.n_pre.div_ceil(4) * self.network.n_post;
        (self.network.n_traces() * quads * quad_bytes(self.context.options.traces)) as u64
    }

    /// Sums of the weight gradients over splits, after all parts.
    pub(super) fn dispatch_sums(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        prepared: &Prepared,
        group: usize,
    ) {
        let (bound, pipelines) = (&prepared.bound[group], &prepared.pipelines);
        let networks = number(self.groups[group].n);
        pass.set_pipeline(&pipelines.sum_splits.pipeline);
        pass.set_bind_group(0, &bound.sum_splits, &[]);
        let columns = self.network.n_post.div_ceil(SUM_COLUMNS);
        let [x, y, _] = grid(columns * self.network.n_pre.div_ceil(4));
        pass.dispatch_workgroups(x, y, networks);
        if self.network.alpha != AlphaSharing::PerConnection {
            pass.set_pipeline(&pipelines.share_alpha.pipeline);
            pass.set_bind_group(0, &bound.share_alpha, &[]);
            pass.dispatch_workgroups(networks, 1, 1);
        }
    }

    /// Starts a part where memories are.
    fn start_life(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        prepared: &Prepared,
        part: &Part,
        life: &Living,
    ) {
        let b = &prepared.buffers;
        let (first, count) = (part.first_episode as u64, part.n_episodes() as u64);
        let one = self.trace_bytes();
        encoder.copy_buffer_to_buffer(&life.traces, first * one, &b.traces[0], 0, count * one);
        if let Some(residual) = &life.residual {
            let one = one * 2;
            encoder.copy_buffer_to_buffer(residual, first * one, &b.residual, 0, count * one);
        }
        self.copy_variables(encoder, prepared, part, (life, true));
        let row = 4 * self.network.n_post as u64;
        let rows = prepared.shape.n_steps as u64 + 1;
        let leaked = prepared.slots.leaked as u64 * prepared.slot_bytes(part, self.network.n_post);
        for e in 0..count {
            let from = (first + e) * row;
            encoder.copy_buffer_to_buffer(&life.y, from, &b.record, e * rows * row, row);
            if let Some(v) = &life.v {
                let to = leaked + e * rows * row;
                encoder.copy_buffer_to_buffer(v, from, &b.record, to, row);
            }
        }
    }

    /// Leaves memories where a part ended.
    fn end_life(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        prepared: &Prepared,
        part: &Part,
        life: &Living,
    ) {
        let (b, plan) = (&prepared.buffers, &prepared.plan);
        let (first, count) = (part.first_episode as u64, part.n_episodes() as u64);
        let one = self.trace_bytes();
        let slot = plan.last_slot();
        let (_, held) = plan.trace_buffers();
        let at = (slot % held) as u64 * one * count;
        let traces = &b.traces[slot / held];
        encoder.copy_buffer_to_buffer(traces, at, &life.traces, first * one, count * one);
        if let Some(residual) = &life.residual {
            let one = one * 2;
            encoder.copy_buffer_to_buffer(&b.residual, 0, residual, first * one, count * one);
        }
        self.copy_variables(encoder, prepared, part, (life, false));
        let row = 4 * self.network.n_post as u64;
        encoder.copy_buffer_to_buffer(&b.y_last, first * row, &life.y, first * row, count * row);
        if let Some(v) = &life.v {
            let leaked =
                prepared.slots.leaked as u64 * prepared.slot_bytes(part, self.network.n_post);
            let t = prepared.shape.n_steps as u64;
            for e in 0..count {
                let from = leaked + (e * (t + 1) + t) * row;
                encoder.copy_buffer_to_buffer(&b.record, from, v, (first + e) * row, row);
            }
        }
    }

    /// Runs every part; after each, `take` may read what it left.
    pub(super) fn batch(
        &self,
        prepared: &mut Prepared,
        episodes: &Episodes<f32>,
        aim: Aim<'_>,
        mut take: impl FnMut(&Self, &Prepared, &Part) -> Result<()>,
    ) -> Result<wgpu::SubmissionIndex> {
        let (gradients, add, life) = match aim {
            Aim::Outputs { gradients } => (gradients, false, None),
            Aim::Life(life) => (false, false, Some(life)),
            Aim::Training { add } => (true, add, None),
        };
        let gpu = self.gpu();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.start_batch(prepared, &mut encoder, add);
        let mut last = gpu.queue.submit([encoder.finish()]);
        let parts = prepared.parts.clone();
        let mut before = None;
        for part in &parts {
            let submission = self.run(prepared, part, episodes, gradients, life);
            last = submission.clone();
            if let Some(life) = life {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                self.end_life(&mut encoder, prepared, part, life);
                gpu.queue.submit([encoder.finish()]);
            }
            take(self, prepared, part)?;
            // no more than two parts and their uploads on their way
            if let Some(before) = before.replace(submission) {
                gpu.wait(Some(before))?;
            }
        }
        // the rows of a smaller part lie elsewhere in the record
        let uneven = parts.iter().any(|part| part.n_episodes() != parts[0].n_episodes());
        let signals = &episodes.signals;
        let started = episodes.y0.is_some()
            || signals.v0.is_some()
            || signals.rule0.iter().any(Option::is_some);
        prepared.start_written = started || life.is_some() || uneven;
        if gradients {
            for (k, group) in self.groups.iter().enumerate() {
                let whole = Part {
                    group: k,
                    first_network: 0,
                    n_networks: group.n,
                    n_batch: 1,
                    first_episode: 0,
                };
                let job = self.job(prepared, &whole);
                gpu.queue.write_buffer(&prepared.job, 0, bytemuck::bytes_of(&job));
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let mut pass = self.pass(&mut encoder, "sums");
                self.dispatch_sums(&mut pass, prepared, k);
                drop(pass);
                last = gpu.queue.submit([encoder.finish()]);
            }
        }
        gpu.check()?;
        Ok(last)
    }

    /// The optimiser, and the read-back of the report.
    pub(super) fn move_parameters(&mut self, added: &Added, step: StepSize) -> Result<()> {
        let gpu = Arc::clone(&self.context.gpu);
        gpu.queue.write_buffer(&self.how, 0, bytemuck::bytes_of(&self.how(step)));
        let n_reports = self.network.n_networks * REPORT;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for group in &self.groups {
            for entry in self.network.stages.frozen.iter().filter_map(|&t| self.layout.find(t)) {
                for p in 0..group.n {
                    let at = 4 * (p * self.stride() + entry.offset) as u64;
                    encoder.clear_buffer(&group.gradient, at, Some(4 * entry.len as u64));
                }
            }
        }
        let mut pass = self.pass(&mut encoder, "optimiser");
        self.dispatch_optimiser(&mut pass, step.optimiser);
        drop(pass);
        let y_last = added.y_last.as_ref();
        let stamps_at = 4 * n_reports as u64 + y_last.map_or(0, wgpu::Buffer::size);
        let passes = self.clock.as_ref().map_or(Passes::new(), Clock::take);
        let size = stamps_at + Clock::bytes(&passes);
        // one that came back late may be of another shape
        let staging = match self.staging.pop().filter(|staging| staging.size() == size) {
            Some(staging) => staging,
            None => {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                gpu.create("reports", size, usage)?
            }
        };
        for group in &self.groups {
            let at = 4 * (group.first * REPORT) as u64;
            let size = 4 * (group.n * REPORT) as u64;
            encoder.copy_buffer_to_buffer(&group.report, 0, &staging, at, size);
        }
        if let Some(y_last) = y_last {
            let at = 4 * n_reports as u64;
            encoder.copy_buffer_to_buffer(y_last, 0, &staging, at, y_last.size());
        }
        if let Some(clock) = &self.clock {
            clock.copy(&passes, &mut encoder, &staging, stamps_at);
        }
        gpu.queue.submit([encoder.finish()]);
        let ready = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&ready);
        staging
            .slice(..)
            .map_async(wgpu::MapMode::Read, move |_| set.store(true, Ordering::SeqCst));
        let n_batch = added.n_batch;
        let update = self.update;
        self.pending.push_back(Pending { update, n_batch, stamps_at, passes, staging, ready });
        Ok(())
    }

    pub(super) fn dispatch_optimiser(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        optimiser: Optimiser,
    ) {
        let blocks = number(self.stride().div_ceil(BLOCK));
        let Optimisers { pipelines, bound } = &self.optimisers;
        for (group, bound) in self.groups.iter().zip(bound) {
            let n = number(group.n);
            let (moved, moved_bound) = match optimiser {
                Optimiser::Adam { .. } => (&pipelines.adam, &bound.adam),
                Optimiser::Sgd { .. } => (&pipelines.sgd, &bound.sgd),
            };
            for (pipeline, bind_group, size) in [
                (&pipelines.gradient_norm, &bound.gradient_norm, [blocks, n]),
                (&pipelines.finish_report, &bound.finish_report, [n, 1]),
                (moved, moved_bound, [blocks, n]),
            ] {
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, bind_group, &[]);
                pass.dispatch_workgroups(size[0], size[1], 1);
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
    pub(super) fn how(&self, step: StepSize) -> Update {
        let (beta1, beta2, epsilon) = match step.optimiser {
            Optimiser::Adam { beta1, beta2, epsilon } => (beta1, beta2, epsilon),
            Optimiser::Sgd { momentum } => (momentum, 0.0, 0.0),
        };
        let eta = self.layout.find(Tensor::Eta);
        Update {
            n_parameters: number(self.stride()),
            at_eta: eta.map_or(0, |entry| number(entry.offset)),
            n_eta: eta.map_or(0, |entry| number(entry.len)),
            n_blocks: number(self.stride().div_ceil(BLOCK)),
            mark: mark(self.update),
            rate: step.rate as f32,
            max_norm: step.max_norm as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            gain1: (1.0 - beta1) as f32,
            gain2: (1.0 - beta2) as f32,
            epsilon: epsilon as f32,
            second_scale: step.second_scale as f32,
        }
    }

    /// Takes the report of a finished update.
    pub(super) fn take_report(&mut self, pending: Pending) -> Result<Report<f32>> {
        self.gpu().check()?;
        let values = mapped(&pending.staging)?;
        let p = self.network.n_networks;
        let (reports, y_last) = values.split_at(p * REPORT);
        let column = |k: usize| reports.iter().skip(k).step_by(REPORT).copied().collect();
        let marks: Vec<f32> = column(3);
        // some systems report work that ended in an error as done
        if marks.iter().any(|m| m.to_bits() != mark(pending.update).to_bits()) {
            return Err(Error::Device {
                found: format!("update {} that did not finish", pending.update),
                wanted: "a device that finishes its work".into(),
            });
        }
        let stamps = &values[words_of(pending.stamps_at)..];
        self.device_time =
            self.clock.as_ref().and_then(|clock| clock.read(&pending.passes, stamps));
        let n = p * pending.n_batch * self.network.n_post;
        let report = Report {
            update: pending.update,
            loss: column(0),
            gradient_norm: column(1),
            eta: column(2),
            y_last: y_last[..n].to_vec(),
        };
        self.staging.push(pending.staging);
        Ok(report)
    }
}
