//! What is made once for a shape: the plan, the batch's parts, buffers.

use crate::engine::available_memory;
use crate::engine::gpu::bind::{Bound, Pipelines};
use crate::engine::gpu::buffers::{Buffers, Sums};
use crate::engine::gpu::equations::Equations;
use crate::engine::gpu::kernels::{Job, Step, Variant};
use crate::engine::gpu::plan::{INVOCATIONS, Layout, Plan};
use crate::engine::gpu::shader::Form;
use crate::engine::gpu::slots::{Slots, is_general, sizes};
use crate::engine::gpu::traces::quad_bytes;
use crate::engine::gpu::{GpuEngine, Pace, number, stride};
use crate::engine::{Storage, Want};
use crate::error::{Error, Result};
use crate::model::{
    self, Activation, AlphaSharing, Leak, Network, OutputLoss, Rule, Shape, Tensor,
};

/// Memory that a part of a batch may take on a device whose memory is not known.
const PART_BYTES: u64 = 4 << 30;

/// Connections, over all episodes, of one sweep of the streamed plan, and fewer of the general one: enough for the largest
/// device (of which it takes 1 ms) and less than 100 ms on a small one; where the CPU imitates
/// one, fewer.
const SWEEP: usize = 1 << 27;
const SWEEP_IN_SOFTWARE: usize = 1 << 25;

/// Connections times steps of a resident dispatch before the device's speed is known.
const FIRST_DISPATCH: usize = 1 << 24;

/// Iterations that all loops of an invocation may make in a dispatch. Mesa's llvmpipe ends
/// every loop, silently, once there were 65,535 in all.
const MOST_ITERATIONS: usize = 60_000;

/// At the most, of the resident kernels for a step, and of the weight gradients for an
/// episode's window.
const ITERATIONS: usize = 96;

/// Workgroups that the weight gradients are split over; of the resident plan's fewer fit a
/// processor at once, and each has all connections to add up.
const SPLIT_TO: usize = 512;
const SPLIT_RESIDENT_TO: usize = 256;

/// Names of the override constants of `shaders/lib/job.wgsl`.
pub(crate) const OVERRIDES: [&str; 16] = [
    "RULE",
    "ACTIVATION",
    "LOSS",
    "RECURRENT",
    "CLIPPED",
    "CLAMPED",
    "MODULATOR",
    "MASKED",
    "LEAK",
    "READ_LOSS",
    "DRIVE",
    "GIVEN",
    "LEAKED",
    "D_Y",
    "BARS",
    "MARKS",
];

/// The override constants for a population.
pub(super) fn variant(network: &Network, clamped: bool, slots: Slots) -> Variant {
    let position = |found: Option<usize>| {
        f64::from(u32::try_from(found.expect("a known name")).expect("few names"))
    };
    let rule = match is_general(network) {
        true => Some(Rule::ALL.len()),
        false => Rule::ALL.iter().position(|&r| r == network.rule),
    };
    let activation = crate::model::Activation::ALL.iter().position(|&a| a == network.activation);
    let loss = crate::model::Loss::ALL.iter().position(|&l| l == network.loss);
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    let stages = &network.stages;
    let slot = |k: usize| f64::from(number(k));
    let values = [
        position(rule),
        position(activation),
        position(loss),
        flag(network.recurrent),
        flag(network.trace_clip().is_some()),
        flag(clamped),
        flag(network.has_modulator()),
        flag(stages.masked),
        match stages.leak.map(|(leak, _)| leak) {
            None => 0.0,
            Some(Leak::Rate) => 1.0,
            Some(Leak::Membrane) => 2.0,
        },
        match stages.output_loss {
            None => 0.0,
            Some(OutputLoss::Squared) => 1.0,
            Some(OutputLoss::BceLogits) => 2.0,
            Some(OutputLoss::CrossEntropyLogits) => 3.0,
        },
        slot(slots.drive),
        slot(slots.given),
        slot(slots.leaked),
        slot(slots.d_y),
        slot(slots.bars),
        slot(slots.marks),
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

/// What a program has: plan, buffers and bind groups for one shape.
pub(super) struct Prepared {
    pub(super) shape: Shape,
    pub(super) want: Want,
    /// Of the record; some are there only where episodes bring m.
    pub(super) slots: Slots,
    pub(super) plan: Plan,
    pub(super) parts: Vec<Part>,
    pub(super) n_splits: usize,
    /// Bytes of all that is made for the shape.
    pub(super) bytes: u64,
    pub(super) job: wgpu::Buffer,
    pub(super) buffers: Buffers,
    /// For each group: weight gradients by splits, and alpha's by quads.
    pub(super) sums: Vec<Sums>,
    pub(super) pipelines: Pipelines,
    /// For each group.
    pub(super) bound: Vec<Bound>,
    pub(super) start_written: bool,
    pub(super) pace: Pace,
}

impl Prepared {
    /// Bytes of a slot of the record of a part, of rows of N numbers.
    pub(super) fn slot_bytes(&self, part: &Part, n: usize) -> u64 {
        4 * (part.n_episodes() * (self.shape.n_steps + 1) * n) as u64
    }
}

/// Bytes that one episode takes in each of its buffers.
pub(super) struct PerEpisode {
    pub(super) record: u64,
    /// In one of the buffers of traces.
    pub(super) trace: u64,
    residual: u64,
    adjoint: u64,
    pub(super) stimuli: u64,
    targets: u64,
    rows: u64,
    pre: u64,
    pub(super) partial: u64,
    column_partial: u64,
    row_partial: u64,
    rule_bar: u64,
    observed: u64,
    asked: u64,
    outer: u64,
    d_observed: u64,
    /// What a rule's text keeps.
    pub(super) state: u64,
}

impl PerEpisode {
    /// Bytes that one episode takes in each of its buffers.
    pub(super) fn of(
        network: &Network,
        storage: Storage,
        shape: &Shape,
        plan: &Plan,
        want: Want,
        slots: Slots,
        equations: Option<&Equations>,
    ) -> Self {
        let (m, n, t) = (network.n_pre, network.n_post, shape.n_steps);
        let back = |len: usize| if want.gradients { len } else { 0 };
        let streamed = |len: usize| match plan.layout {
            Layout::Streamed { .. } | Layout::General { .. } => len,
            Layout::Resident(_) => 0,
        };
        // of the products, of the columns, of the rows; and whether the start traces have an adjoint too
        let [products, columns, rows, adjoints] = equations
            .map_or([1, 3, 1, 1], |e| [1 + usize::from(e.reads_r), e.column_sums, e.row_sums, 2]);
        let pre = if network.recurrent { 0 } else { t * m };
        let [tiles, chunks] = plan.layout.tile().grid(m, n).map(|tiles| tiles as usize);
        let planes = if shape.clamped { 2 } else { 1 };
        let quads = network.n_traces() * m.div_ceil(4) * n;
        let (_, held) = plan.trace_buffers();
        let bytes = |numbers: usize| 4 * numbers as u64;
        let tensors = model::Layout::new(network);
        let [n_observed, n_outputs] = sizes(network);
        PerEpisode {
            record: bytes(slots.n * (t + 1) * n),
            observed: bytes(t * n_observed),
            asked: bytes(3 * t * n_outputs),
            outer: bytes(2 * t * n_outputs),
            d_observed: bytes(back(t * n_observed)),
            trace: (held * quads * quad_bytes(storage)) as u64,
            residual: bytes(match storage {
                Storage::F32 => 0,
                Storage::F16 => 4 * quads,
            }),
            adjoint: bytes(back(adjoints * 4 * quads)),
            stimuli: bytes(planes * shape.n_stimuli * n),
            targets: bytes(2 * shape.n_targets * n),
            rows: bytes(t),
            pre: bytes(pre + back(pre)),
            partial: bytes(streamed(products * chunks * n)),
            column_partial: bytes(streamed(back(columns * chunks * n))),
            row_partial: bytes(streamed(back(rows * tiles * m))),
            // summed on any way, zero without a backward pass
            rule_bar: bytes(tensors.len() - tensors.at_rule()),
            state: bytes(equations.map_or(0, |e| e.state_stride(t, m, n))),
        }
    }

    fn each(&self) -> [u64; 17] {
        [
            self.record,
            self.trace,
            self.residual,
            self.adjoint,
            self.stimuli,
            self.targets,
            self.rows,
            self.pre,
            self.partial,
            self.column_partial,
            self.row_partial,
            self.rule_bar,
            self.observed,
            self.asked,
            self.outer,
            self.d_observed,
            self.state,
        ]
    }

    fn largest(&self) -> u64 {
        self.each().into_iter().max().unwrap_or(1)
    }

    /// Of all buffers: there are several of traces and three of rows.
    fn total(&self, n_trace_buffers: usize) -> u64 {
        let more = (n_trace_buffers as u64 - 1) * self.trace + 2 * self.rows;
        self.each().iter().sum::<u64>() + more
    }
}

impl GpuEngine {
    /// Whether f16 can hold the network's traces, where it is asked to.
    pub(super) fn check_storage(&self, network: &Network) -> Result<()> {
        if self.context.options.traces == Storage::F16 && is_general(network) {
            let found = "f16 for traces of the general plan";
            return Err(Error::value("traces", found, "f32, which it stores"));
        }
        // a clip bounds H, and not E of the rule that has two traces
        let clip = network.trace_clip().filter(|_| network.n_traces() == 1);
        let bounded = clip.is_some_and(|clip| clip <= 65_504.0)
            || network.rule == Rule::None
            || (network.rule == Rule::Decay
                && matches!(
                    network.activation,
                    Activation::Tanh | Activation::Sigmoid | Activation::Softmax
                ));
        if self.context.options.traces == Storage::F16 && !bounded {
            return Err(Error::value(
                "traces",
                format!("f16 for traces of the {} rule, which may grow", network.rule.name()),
                "f32, a clip, or the decay rule with a bounded activation",
            ));
        }
        Ok(())
    }

    /// Whether a software device runs the layers around the core to their end.
    fn check_layers(&self) -> Result<()> {
        let ([inputs, outputs], n) = (sizes(&self.network), self.network.n_post);
        let groups = |len: usize| len.div_ceil(INVOCATIONS as usize);
        // of drive, of observed_back, and of read_out, which has a step's outputs in a workgroup
        let back = if inputs > 0 { n } else { 0 };
        let reads = groups(outputs) * (n + 3) + groups(n) * outputs;
        let software = self.gpu().info.device_type == wgpu::DeviceType::Cpu;
        if software && inputs.max(back).max(reads) > MOST_ITERATIONS {
            return Err(Error::Device {
                found: format!(
                    "layers of {inputs} inputs and {outputs} outputs around {n} neurons"
                ),
                wanted: "--device cpu, or smaller ones: a software device ends longer loops".into(),
            });
        }
        Ok(())
    }

    /// Whether the traces that episodes start with are within the range of what stores them.
    pub(super) fn check_start(&self, h0: Option<&[f32]>, e0: Option<&[f32]>) -> Result<()> {
        const MOST: f32 = 65_504.0;
        if self.context.options.traces == Storage::F32 {
            return Ok(());
        }
        for (name, values) in [("h0", h0), ("e0", e0)] {
            let values = values.unwrap_or_default();
            if let Some(k) = values.iter().position(|value| value.abs() > MOST) {
                let found = format!("{:?} at element {k}", values[k]);
                let wanted = format!("at most {MOST}, which f16 can hold, or --traces f32");
                return Err(Error::tensor(name, found, wanted));
            }
        }
        Ok(())
    }

    /// Parameters of the rule, behind w and alpha.
    pub(super) fn n_rule(&self) -> usize {
        self.layout.len() - self.layout.at_rule()
    }

    /// Cuts a batch into parts that fit the device's buffers and memory.
    pub(super) fn parts(&self, shape: &Shape, plan: &Plan, one: &PerEpisode) -> Result<Vec<Part>> {
        let limits = &self.gpu().limits;
        let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let (largest, total) = (one.largest(), one.total(plan.trace_buffers().0));
        let software = self.gpu().info.device_type == wgpu::DeviceType::Cpu;
        let budget = match (self.context.options.part_bytes, available_memory()) {
            (Some(bytes), _) => bytes,
            (None, Some(available)) if software => available / 2,
            _ => PART_BYTES.max(total),
        };
        let groups = limits.max_compute_workgroups_per_dimension;
        let sweep = match plan.layout {
            Layout::Streamed { .. } | Layout::General { .. } => {
                let most = if software { SWEEP_IN_SOFTWARE } else { SWEEP };
                (most / (self.network.n_connections() * plan.heaviness(&self.network))).max(1)
            }
            Layout::Resident(_) => usize::MAX,
        };
        let fits = (limit / largest).min(budget / total).min(u64::from(groups)).min(sweep as u64);
        if fits == 0 {
            return Err(Error::Memory {
                what: format!("one episode of {} steps", shape.n_steps),
                needed: largest.max(total),
                available: if largest > limit { limit } else { budget },
                advice: "fewer neurons or steps need less; --device cpu has no such limits".into(),
            });
        }
        let fits = usize::try_from(fits).expect("at most the dimension of a grid");
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
        Ok(parts)
    }

    /// Splits of a network's episodes for its weight gradients.
    fn n_splits(&self, parts: &[Part], layout: Layout, want: Want) -> usize {
        if !want.gradients {
            return 1;
        }
        let limits = &self.gpu().limits;
        let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let most = |of: fn(&Part) -> usize| parts.iter().map(of).max().unwrap_or(1);
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let [tiles, chunks] = layout.tile().grid(m, n).map(|tiles| tiles as usize);
        let tiles = tiles * chunks * most(|part| part.n_networks);
        let largest = self.groups.iter().map(|g| g.n).max().unwrap_or(1);
        let fit = usize::try_from(limit / (8 * m * n * largest) as u64).unwrap_or(usize::MAX);
        let split_to = match layout {
            Layout::Streamed { .. } | Layout::General { .. } => SPLIT_TO,
            Layout::Resident(_) => SPLIT_RESIDENT_TO,
        };
        let batch = most(|part| part.n_batch);
        // a workgroup of the general plan has its quads take all episodes of a split, each in turn
        let least = batch.div_ceil(MOST_ITERATIONS / 32);
        (split_to / tiles).max(least).min(fit).clamp(1, batch)
    }

    /// What batches need that bring m, or do not.
    pub(super) fn make(&self, shape: Shape, want: Want, modulated: bool) -> Result<Prepared> {
        self.check_storage(&self.network)?;
        let context = &self.context;
        let memory = self.gpu().limits.max_compute_workgroup_storage_size;
        self.check_layers()?;
        let choice = self.context.options.plan;
        let layout = Layout::choose(&self.network, &shape, choice, (modulated, memory))?;
        let plan = Plan::new(&self.network, layout, shape.n_steps, want, 1);
        let slots = Slots::of(&self.network, modulated);
        let storage = self.context.options.traces;
        let one = PerEpisode::of(
            &self.network,
            storage,
            &shape,
            &plan,
            want,
            slots,
            self.equations.as_deref(),
        );
        let parts = self.parts(&shape, &plan, &one)?;
        let n_splits = self.n_splits(&parts, layout, want);
        let most = parts.iter().map(Part::n_episodes).max().unwrap_or(1);
        let total = self.network.n_networks * shape.n_batch;
        let stride = self.step_stride();
        let steps_usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        // a plan with longer dispatches has fewer steps
        let steps_size = (stride * plan.steps.len().max(1)) as u64;
        let bytes = std::cell::Cell::new(steps_size + 2 * size_of::<Job>() as u64);
        let numbers = |label: &str, len: u64| {
            let len = usize::try_from(len).expect("sizes were checked against the limits");
            let buffer = context.buffer(label, len)?;
            bytes.set(bytes.get() + buffer.size());
            Ok::<_, Error>(buffer)
        };
        let buffer = |label: &str, bytes: u64| numbers(label, most as u64 * bytes / 4);
        let buffers = Buffers {
            record: buffer("record", one.record)?,
            traces: (0..plan.trace_buffers().0)
                .map(|_| buffer("trace", one.trace))
                .collect::<Result<_>>()?,
            // four numbers an element
            residual: numbers("residual", (most as u64 * one.residual / 4).max(4))?,
            adjoint: buffer("adjoint", one.adjoint)?,
            stimuli: buffer("stimuli", one.stimuli)?,
            shown: buffer("shown", one.rows)?,
            targets: buffer("targets", one.targets)?,
            scored: buffer("scored", one.rows)?,
            pre: buffer("pre", one.pre)?,
            partial: buffer("partial", one.partial)?,
            column_partial: buffer("column_partial", one.column_partial)?,
            row_partial: buffer("row_partial", one.row_partial)?,
            loss_rows: buffer("loss_rows", one.rows)?,
            observed: buffer("observed", one.observed)?,
            asked: buffer("asked", one.asked)?,
            outer: buffer("outer", one.outer)?,
            d_observed: buffer("d_observed", one.d_observed)?,
            rule_bar: buffer("rule_bar", one.rule_bar)?,
            state: buffer("state", one.state)?,
            steps: context.gpu.create("steps", steps_size, steps_usage)?,
            y_last: numbers("y_last", (total * self.network.n_post) as u64)?,
        };
        let shared = self.network.alpha != AlphaSharing::PerConnection;
        let (n, connections) = (self.network.n_post, self.network.n_connections());
        let quads = self.network.n_pre.div_ceil(4);
        let sums = self
            .groups
            .iter()
            .map(|group| {
                let splits = if want.gradients { 2 * group.n * n_splits * connections } else { 0 };
                let columns = if shared { group.n * quads * n } else { 0 };
                Ok(Sums {
                    d_connections: numbers("d_connections", splits as u64)?,
                    alpha_quads: numbers("alpha_quads", columns as u64)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;

        let variant = variant(&self.network, shape.clamped, slots);
        let n_traces = number(self.network.n_traces());
        let rule = self.equations.clone();
        let form = Form { traces: context.options.traces, n_traces, tile: layout.tile(), rule };
        let pipelines = Pipelines::compile(&self.network, layout, |kernel| {
            context.pipeline(kernel, &form, &variant)
        })?;
        let job = context.uniform("job", size_of::<Job>())?;
        let bound = self
            .groups
            .iter()
            .zip(&sums)
            .map(|(group, sums)| self.bind(group, sums, &plan, &job, &buffers, &pipelines))
            .collect();
        let span = FIRST_DISPATCH / (most * connections * plan.window).max(1);
        let mut prepared = Prepared {
            shape,
            want,
            slots,
            plan,
            parts,
            n_splits,
            bytes: bytes.get(),
            job,
            buffers,
            sums,
            pipelines,
            bound,
            // fresh memory may hold anything
            start_written: true,
            pace: Pace::Cold,
        };
        self.set_span(&mut prepared, span);
        Ok(prepared)
    }

    /// Makes the plan anew with `span` windows a dispatch.
    pub(super) fn set_span(&self, prepared: &mut Prepared, span: usize) {
        let Prepared { plan, shape, want, buffers, parts, n_splits, .. } = prepared;
        let batch = parts.iter().map(|part| part.n_batch).max().unwrap_or(1);
        let per_window = ITERATIONS * plan.window.max(batch.div_ceil(*n_splits));
        let span = span.min(MOST_ITERATIONS / per_window);
        *plan = Plan::new(&self.network, plan.layout, shape.n_steps, *want, span);
        let stride = self.step_stride();
        let mut steps = vec![0; stride * plan.steps.len()];
        for (slot, step) in steps.chunks_exact_mut(stride).zip(&plan.steps) {
            slot[..size_of::<Step>()].copy_from_slice(bytemuck::bytes_of(step));
        }
        self.gpu().queue.write_buffer(&buffers.steps, 0, &steps);
    }

    /// Bytes between steps in their buffer.
    pub(super) fn step_stride(&self) -> usize {
        let align = self.gpu().limits.min_uniform_buffer_offset_alignment as usize;
        size_of::<Step>().next_multiple_of(align)
    }

    pub(super) fn job(&self, prepared: &Prepared, part: &Part) -> Job {
        let Prepared { shape, plan, n_splits, .. } = prepared;
        job(&self.network, &self.layout, (shape, plan), part, *n_splits)
    }
}

/// The sizes that kernels read, of a part of a batch whose weight gradients have `n_splits` splits.
pub(super) fn job(
    network: &Network,
    layout: &model::Layout,
    (shape, plan): (&Shape, &Plan),
    part: &Part,
    n_splits: usize,
) -> Job {
    let entry = |tensor| layout.find(tensor);
    let at = |tensor| entry(tensor).map_or(0, |entry| number(entry.offset));
    let len = |tensor| entry(tensor).map_or(0, |entry| number(entry.len));
    let if_any = |tensor| entry(tensor).map_or(u32::MAX, |entry| number(entry.offset));
    let [n_observed, n_outputs] = sizes(network);
    let (alpha_row, alpha_column) = network.alpha.strides(network.n_post);
    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^24")]
    let n_batch = shape.n_batch as f32;
    #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
    let clip = network.clip.unwrap_or(0.0) as f32;
    let [n_tiles, n_chunks] = plan.layout.tile().grid(network.n_pre, network.n_post);
    Job {
        n_networks: number(part.n_networks),
        n_batch: number(part.n_batch),
        n_steps: number(shape.n_steps),
        n_pre: number(network.n_pre),
        n_post: number(network.n_post),
        n_stimuli: number(shape.n_stimuli),
        n_targets: number(shape.n_targets),
        first_network: number(part.first_network),
        n_parameters: number(stride(network, layout)),
        at_w: at(Tensor::W),
        at_alpha: at(Tensor::Alpha),
        at_rule: number(layout.at_rule()),
        at_eta: at(Tensor::Eta),
        n_eta: len(Tensor::Eta),
        at_mod_w: at(Tensor::ModW),
        at_mod_b: at(Tensor::ModB),
        at_fanout_w: at(Tensor::FanoutW),
        at_fanout_b: at(Tensor::FanoutB),
        at_bias: at(Tensor::Bias),
        n_bias: len(Tensor::Bias),
        at_leak: at(Tensor::Leak),
        n_leak: len(Tensor::Leak),
        at_in_w: at(Tensor::InW),
        at_in_b: if_any(Tensor::InB),
        at_out_w: at(Tensor::OutW),
        at_out_b: if_any(Tensor::OutB),
        at_mask: number(layout.len()),
        n_rule: number(layout.len() - layout.at_rule()),
        n_observed: number(n_observed),
        n_outputs: number(n_outputs),
        alpha_row: number(alpha_row),
        alpha_column: number(alpha_column),
        n_chunks,
        n_tiles,
        n_together: match plan.layout {
            Layout::Streamed { together } => number(together),
            Layout::Resident(_) | Layout::General { .. } => 1,
        },
        n_splits: number(n_splits),
        n_slots: number(plan.n_slots),
        first_episode: number(part.first_episode),
        clip,
        share: 1.0 / n_batch,
    }
}
