//! What is made once for a shape: the batch's parts, buffers, pipelines, bind groups.

use std::sync::Arc;

use crate::engine::gpu::kernels::{
    Adam, BackwardSweep, CHUNK, FinishReport, GradientNorm, Job, Kernel, Loss, NeuronBack,
    NeuronStep, Pipeline, PlasticMatmul, Sgd, ShareAlpha, Step, SumEpisodes, TILE, TraceCommit,
    Variant, WindowGradients,
};
use crate::engine::gpu::plan::Plan;
use crate::engine::gpu::{GpuEngine, Group, RECORD_SLOTS, number};
use crate::engine::memory::available_memory;
use crate::error::{Error, Result};
use crate::model::{AlphaSharing, Network, Shape, Tensor};

/// Memory that a part of a batch may take on a device whose memory is not known.
const PART_BYTES: u64 = 4 << 30;

/// Names of the override constants of `shaders/lib/job.wgsl`.
pub(crate) const OVERRIDES: [&str; 6] =
    ["RULE", "ACTIVATION", "LOSS", "RECURRENT", "CLIPPED", "CLAMPED"];

/// The override constants for a population.
fn variant(network: &Network, clamped: bool) -> Variant {
    let position = |found: Option<usize>| {
        f64::from(u32::try_from(found.expect("a known name")).expect("few names"))
    };
    let rule = crate::model::Rule::ALL.iter().position(|&r| r == network.rule);
    let activation = crate::model::Activation::ALL.iter().position(|&a| a == network.activation);
    let loss = crate::model::Loss::ALL.iter().position(|&l| l == network.loss);
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    let values = [
        position(rule),
        position(activation),
        position(loss),
        flag(network.recurrent),
        flag(network.trace_clip().is_some()),
        flag(clamped),
    ];
    std::array::from_fn(|k| (OVERRIDES[k], values[k]))
}

/// A part of a batch: whole networks of a group, or some episodes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) group: usize,
    /// First network, within the group.
    pub(super) first_network: usize,
    pub(super) n_networks: usize,
    pub(super) n_batch: usize,
    /// First episode in the whole batch.
    pub(super) first_episode: usize,
}

impl Part {
    pub(super) fn n_episodes(&self) -> usize {
        self.n_networks * self.n_batch
    }
}

/// Buffers and bind groups for one shape.
pub(super) struct Prepared {
    pub(super) shape: Shape,
    pub(super) gradients: bool,
    pub(super) plan: Plan,
    pub(super) parts: Vec<Part>,
    pub(super) bytes: u64,
    pub(super) job: wgpu::Buffer,
    pub(super) buffers: Buffers,
    pub(super) pipelines: Pipelines,
    /// For each group.
    pub(super) bound: Vec<Bound>,
    pub(super) y0_written: bool,
}

/// Buffers of one part of a batch, sized for the largest.
pub(super) struct Buffers {
    pub(super) record: wgpu::Buffer,
    pub(super) traces: Vec<wgpu::Buffer>,
    pub(super) adjoint: wgpu::Buffer,
    pub(super) stimuli: wgpu::Buffer,
    pub(super) shown: wgpu::Buffer,
    pub(super) targets: wgpu::Buffer,
    pub(super) scored: wgpu::Buffer,
    pub(super) pre: wgpu::Buffer,
    pub(super) pre_bar: wgpu::Buffer,
    pub(super) partial: wgpu::Buffer,
    pub(super) column_partial: wgpu::Buffer,
    pub(super) row_partial: wgpu::Buffer,
    pub(super) loss_rows: wgpu::Buffer,
    pub(super) rule_bar: wgpu::Buffer,
    pub(super) steps: wgpu::Buffer,
    pub(super) y_last: wgpu::Buffer,
}

pub(super) struct Pipelines {
    pub(super) plastic_matmul: Arc<Pipeline>,
    pub(super) trace_commit: Arc<Pipeline>,
    pub(super) neuron_step: Arc<Pipeline>,
    pub(super) loss: Arc<Pipeline>,
    pub(super) backward_sweep: Arc<Pipeline>,
    pub(super) neuron_back: Arc<Pipeline>,
    pub(super) window_gradients: Arc<Pipeline>,
    pub(super) sum_episodes: Arc<Pipeline>,
    pub(super) share_alpha: Arc<Pipeline>,
    pub(super) gradient_norm: Arc<Pipeline>,
    pub(super) finish_report: Arc<Pipeline>,
    pub(super) adam: Arc<Pipeline>,
    pub(super) sgd: Arc<Pipeline>,
}

/// Bind groups over one group's buffers; a list has one for each window.
pub(super) struct Bound {
    pub(super) plastic_matmul: Vec<wgpu::BindGroup>,
    pub(super) trace_commit: Vec<wgpu::BindGroup>,
    pub(super) backward_sweep: Vec<wgpu::BindGroup>,
    pub(super) window_gradients: Vec<wgpu::BindGroup>,
    pub(super) neuron_step: wgpu::BindGroup,
    pub(super) loss: wgpu::BindGroup,
    pub(super) neuron_back: wgpu::BindGroup,
    pub(super) sum_episodes: wgpu::BindGroup,
    pub(super) share_alpha: wgpu::BindGroup,
    pub(super) gradient_norm: wgpu::BindGroup,
    pub(super) finish_report: wgpu::BindGroup,
    pub(super) adam: wgpu::BindGroup,
    pub(super) sgd: wgpu::BindGroup,
}

impl GpuEngine {
    /// Numbers that one episode takes in each of its buffers.
    pub(super) fn per_episode(&self, shape: &Shape, gradients: bool) -> [usize; 13] {
        let (m, n, t) = (self.network.n_pre, self.network.n_post, shape.n_steps);
        let back = |len: usize| if gradients { len } else { 0 };
        let pre = if self.network.recurrent { 0 } else { t * m };
        let (chunks, tiles) = (m.div_ceil(CHUNK), n.div_ceil(TILE));
        let planes = if shape.clamped { 2 } else { 1 };
        [
            RECORD_SLOTS * (t + 1) * n,
            self.network.n_traces() * m * n,
            back(self.network.n_traces() * m * n),
            planes * shape.n_stimuli * n,
            2 * shape.n_targets * n,
            t,
            pre,
            back(pre),
            chunks * n,
            back(3 * chunks * n),
            back(tiles * m),
            t,
            back(self.n_rule()),
        ]
    }

    /// Parameters of the rule, behind w and alpha.
    pub(super) fn n_rule(&self) -> usize {
        self.layout.len() - self.at_rule()
    }

    pub(super) fn at_rule(&self) -> usize {
        self.layout.find(Tensor::Alpha).map_or(0, |alpha| alpha.offset + alpha.len)
    }

    /// Cuts a batch into parts that fit the device's buffers and memory.
    pub(super) fn parts(
        &self,
        shape: &Shape,
        plan: &Plan,
        gradients: bool,
    ) -> Result<(Vec<Part>, u64)> {
        let limits = &self.gpu().limits;
        let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let lens = self.per_episode(shape, gradients);
        let largest = 4 * lens.iter().copied().max().unwrap_or(1) as u64;
        let one = 4 * (lens.iter().sum::<usize>() + (plan.n_slots - 1) * lens[1]) as u64;
        let software = self.gpu().info.device_type == wgpu::DeviceType::Cpu;
        let budget = match (self.context.part_bytes, available_memory()) {
            (Some(bytes), _) => bytes,
            (None, Some(available)) if software => available / 2,
            _ => PART_BYTES.max(one),
        };
        let groups = 65_535;
        let fits = (limit / largest).min(budget / one).min(groups);
        if fits == 0 {
            return Err(Error::Memory {
                what: format!("one episode of {} steps", shape.n_steps),
                needed: largest.max(one),
                available: if largest > limit { limit } else { budget },
                advice: "fewer neurons or steps need less; --device cpu has no such limits".into(),
            });
        }
        let fits = usize::try_from(fits).expect("at most 65,535");
        let n_batch = shape.n_batch;
        let mut parts = Vec::new();
        for (k, group) in self.groups.iter().enumerate() {
            let episode = |network: usize| (group.first + network) * n_batch;
            if fits >= n_batch {
                let per_part = fits / n_batch;
                for first in (0..group.n).step_by(per_part) {
                    parts.push(Part {
                        group: k,
                        first_network: first,
                        n_networks: per_part.min(group.n - first),
                        n_batch,
                        first_episode: episode(first),
                    });
                }
            } else {
                for network in 0..group.n {
                    for first in (0..n_batch).step_by(fits) {
                        parts.push(Part {
                            group: k,
                            first_network: network,
                            n_networks: 1,
                            n_batch: fits.min(n_batch - first),
                            first_episode: episode(network) + first,
                        });
                    }
                }
            }
        }
        let most = parts.iter().map(Part::n_episodes).max().unwrap_or(1);
        Ok((parts, one * most as u64))
    }

    pub(super) fn make(&self, shape: Shape, gradients: bool) -> Result<Prepared> {
        let context = &self.context;
        let plan = Plan::new(shape.n_steps, gradients);
        let (parts, bytes) = self.parts(&shape, &plan, gradients)?;
        let most = parts.iter().map(Part::n_episodes).max().unwrap_or(1);
        let [
            record,
            trace,
            adjoint,
            stimuli,
            targets,
            rows,
            pre,
            pre_bar,
            partial,
            columns,
            row,
            loss,
            rule,
        ] = self.per_episode(&shape, gradients);
        let buffer = |label: &str, len: usize| context.buffer(label, most * len);
        let total = self.network.n_networks * shape.n_batch;
        let stride = self.step_stride();
        let steps_usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let steps_size = (stride * plan.steps.len().max(1)) as u64;
        let buffers = Buffers {
            record: buffer("record", record)?,
            traces: (0..plan.n_slots).map(|_| buffer("trace", trace)).collect::<Result<_>>()?,
            adjoint: buffer("adjoint", adjoint)?,
            stimuli: buffer("stimuli", stimuli)?,
            shown: buffer("shown", rows)?,
            targets: buffer("targets", targets)?,
            scored: buffer("scored", rows)?,
            pre: buffer("pre", pre)?,
            pre_bar: buffer("pre_bar", pre_bar)?,
            partial: buffer("partial", partial)?,
            column_partial: buffer("column_partial", columns)?,
            row_partial: buffer("row_partial", row)?,
            loss_rows: buffer("loss_rows", loss)?,
            rule_bar: buffer("rule_bar", rule)?,
            steps: context.gpu.create("steps", steps_size, steps_usage)?,
            y_last: context.buffer("y_last", total * self.network.n_post)?,
        };
        let mut steps = vec![0; stride * plan.steps.len()];
        for (slot, step) in steps.chunks_exact_mut(stride).zip(&plan.steps) {
            slot[..size_of::<Step>()].copy_from_slice(bytemuck::bytes_of(step));
        }
        self.gpu().queue.write_buffer(&buffers.steps, 0, &steps);

        let variant = variant(&self.network, shape.clamped);
        let compile = |kernel: &Kernel| context.pipeline(kernel, &variant);
        let pipelines = Pipelines {
            plastic_matmul: compile(&PlasticMatmul::KERNEL)?,
            trace_commit: compile(&TraceCommit::KERNEL)?,
            neuron_step: compile(&NeuronStep::KERNEL)?,
            loss: compile(&Loss::KERNEL)?,
            backward_sweep: compile(&BackwardSweep::KERNEL)?,
            neuron_back: compile(&NeuronBack::KERNEL)?,
            window_gradients: compile(&WindowGradients::KERNEL)?,
            sum_episodes: compile(&SumEpisodes::KERNEL)?,
            share_alpha: compile(&ShareAlpha::KERNEL)?,
            gradient_norm: compile(&GradientNorm::KERNEL)?,
            finish_report: compile(&FinishReport::KERNEL)?,
            adam: compile(&Adam::KERNEL)?,
            sgd: compile(&Sgd::KERNEL)?,
        };
        let job = context.uniform("job", size_of::<Job>())?;
        let bound =
            self.groups.iter().map(|g| self.bind(g, &plan, &job, &buffers, &pipelines)).collect();
        Ok(Prepared {
            shape,
            gradients,
            plan,
            parts,
            bytes,
            job,
            buffers,
            pipelines,
            bound,
            // fresh memory may hold anything
            y0_written: true,
        })
    }

    pub(super) fn bind(
        &self,
        group: &Group,
        plan: &Plan,
        job: &wgpu::Buffer,
        b: &Buffers,
        pipelines: &Pipelines,
    ) -> Bound {
        let gpu = self.gpu();
        let windows = || (0..plan.n_windows).map(|w| &b.traces[plan.slot(w)]);
        let now = &b.steps;
        let parameters = &group.parameters;
        Bound {
            plastic_matmul: windows()
                .map(|trace| {
                    let (record, pre, partial) = (&b.record, &b.pre, &b.partial);
                    PlasticMatmul { job, now, parameters, trace, record, pre, partial }
                        .bind(gpu, &pipelines.plastic_matmul)
                })
                .collect(),
            trace_commit: windows()
                .enumerate()
                .map(|(w, trace)| {
                    let trace_out = &b.traces[plan.slot(w + 1)];
                    TraceCommit { job, now, trace, record: &b.record, pre: &b.pre, trace_out }
                        .bind(gpu, &pipelines.trace_commit)
                })
                .collect(),
            backward_sweep: windows()
                .map(|trace| {
                    BackwardSweep {
                        job,
                        now,
                        parameters,
                        trace,
                        adjoint: &b.adjoint,
                        record: &b.record,
                        pre: &b.pre,
                        column_partial: &b.column_partial,
                        row_partial: &b.row_partial,
                    }
                    .bind(gpu, &pipelines.backward_sweep)
                })
                .collect(),
            window_gradients: windows()
                .map(|trace| {
                    WindowGradients {
                        job,
                        now,
                        trace,
                        record: &b.record,
                        pre: &b.pre,
                        adjoint: &b.adjoint,
                        gradient: &group.gradient,
                        d_alpha: &group.d_alpha,
                    }
                    .bind(gpu, &pipelines.window_gradients)
                })
                .collect(),
            neuron_step: NeuronStep {
                job,
                now,
                parameters,
                partial: &b.partial,
                stimuli: &b.stimuli,
                shown: &b.shown,
                record: &b.record,
                y_last: &b.y_last,
            }
            .bind(gpu, &pipelines.neuron_step),
            loss: Loss {
                job,
                stimuli: &b.stimuli,
                shown: &b.shown,
                targets: &b.targets,
                scored: &b.scored,
                record: &b.record,
                loss_rows: &b.loss_rows,
            }
            .bind(gpu, &pipelines.loss),
            neuron_back: NeuronBack {
                job,
                now,
                parameters,
                column_partial: &b.column_partial,
                row_partial: &b.row_partial,
                stimuli: &b.stimuli,
                shown: &b.shown,
                record: &b.record,
                rule_bar: &b.rule_bar,
                pre_bar: &b.pre_bar,
            }
            .bind(gpu, &pipelines.neuron_back),
            sum_episodes: SumEpisodes {
                job,
                loss_rows: &b.loss_rows,
                rule_bar: &b.rule_bar,
                gradient: &group.gradient,
                report: &group.report,
            }
            .bind(gpu, &pipelines.sum_episodes),
            share_alpha: ShareAlpha { job, d_alpha: &group.d_alpha, gradient: &group.gradient }
                .bind(gpu, &pipelines.share_alpha),
            gradient_norm: GradientNorm {
                how: &group.how,
                gradient: &group.gradient,
                squares: &group.squares,
            }
            .bind(gpu, &pipelines.gradient_norm),
            finish_report: FinishReport {
                how: &group.how,
                squares: &group.squares,
                parameters,
                report: &group.report,
            }
            .bind(gpu, &pipelines.finish_report),
            adam: Adam {
                how: &group.how,
                gradient: &group.gradient,
                first: &group.first_moment,
                second: &group.second_moment,
                parameters,
                report: &group.report,
            }
            .bind(gpu, &pipelines.adam),
            sgd: Sgd {
                how: &group.how,
                gradient: &group.gradient,
                first: &group.first_moment,
                parameters,
                report: &group.report,
            }
            .bind(gpu, &pipelines.sgd),
        }
    }

    /// Bytes between steps in their buffer.
    pub(super) fn step_stride(&self) -> usize {
        let align = self.gpu().limits.min_uniform_buffer_offset_alignment as usize;
        size_of::<Step>().next_multiple_of(align)
    }

    pub(super) fn job(&self, shape: &Shape, part: &Part) -> Job {
        let network = &self.network;
        let at = |tensor| self.layout.find(tensor).map_or(0, |entry| number(entry.offset));
        let (alpha_row, alpha_column) = match network.alpha {
            AlphaSharing::PerConnection => (number(network.n_post), 1),
            AlphaSharing::PerNeuron => (0, 1),
            AlphaSharing::PerNetwork => (0, 0),
        };
        #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^24")]
        let n_batch = shape.n_batch as f32;
        #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
        let clip = network.clip.unwrap_or(0.0) as f32;
        Job {
            n_networks: number(part.n_networks),
            n_batch: number(part.n_batch),
            n_steps: number(shape.n_steps),
            n_pre: number(network.n_pre),
            n_post: number(network.n_post),
            n_stimuli: number(shape.n_stimuli),
            n_targets: number(shape.n_targets),
            first_network: number(part.first_network),
            n_parameters: number(self.layout.len()),
            at_w: at(Tensor::W),
            at_alpha: at(Tensor::Alpha),
            at_rule: number(self.at_rule()),
            at_eta: at(Tensor::Eta),
            n_eta: self.layout.find(Tensor::Eta).map_or(0, |entry| number(entry.len)),
            at_mod_w: at(Tensor::ModW),
            at_mod_b: at(Tensor::ModB),
            at_fanout_w: at(Tensor::FanoutW),
            at_fanout_b: at(Tensor::FanoutB),
            alpha_row,
            alpha_column,
            n_chunks: number(network.n_pre.div_ceil(CHUNK)),
            n_tiles: number(network.n_post.div_ceil(TILE)),
            first_episode: number(part.first_episode),
            clip,
            share: 1.0 / n_batch,
        }
    }
}
