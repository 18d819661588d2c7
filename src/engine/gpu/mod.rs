//! The GPU engine: hand-written WGSL through wgpu, on Vulkan, Metal and DX12.
//!
//! Parameters and optimiser moments stay on the device. A batch too large for the
//! device's buffers is run in parts, one after another, with the same result up to
//! rounding.

mod device;
pub(crate) mod kernels;
mod plan;
pub(crate) mod shader;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub use device::{AdapterDescription, list};

use crate::engine::gpu::device::{Gpu, mapped};
use crate::engine::gpu::kernels::{
    Adam, BLOCK, BackwardSweep, CHUNK, FinishReport, GradientNorm, Job, Kernel, Loss, NeuronBack,
    NeuronStep, Pipeline, PlasticMatmul, Sgd, ShareAlpha, Step, SumEpisodes, TILE, TraceCommit,
    Update, Variant, WindowGradients, grid,
};
use crate::engine::gpu::plan::{Command, Plan};
use crate::engine::gpu::shader::{Source, used_overrides};
use crate::engine::memory::{available_memory, check_memory};
use crate::engine::{Description, Engine, Gradients, Outputs, Report, Want};
use crate::error::{Error, Result};
use crate::model::{
    AlphaSharing, Episodes, Layout, Network, Optimiser, Parameters, Shape, StepSize, Tensor,
};

/// Updates whose reports may be on their way.
const IN_FLIGHT: usize = 3;
/// Dispatches in one submission.
const PER_SUBMISSION: usize = 512;
/// Memory that a part of a batch may take on a device whose memory is not known.
const PART_BYTES: u64 = 4 << 30;
/// Numbers of a network's report: loss, gradient norm, mean eta, mark.
const REPORT: usize = 4;
/// Slots of a record: y, dL/dy, z, d, c, m, dL/dz, dL/dinput.
const RECORD_SLOTS: usize = 8;
const Y: usize = 0;
const Y_BAR: usize = 1;
const D_INPUT: usize = 7;

/// An open device with the kernels compiled so far; engines share it.
#[derive(Clone)]
pub struct Context {
    gpu: Arc<Gpu>,
    compiled: Arc<Mutex<Compiled>>,
    part_bytes: Option<u64>,
    poison: bool,
}

/// Pipelines by kernel and the constants that its outcome depends on.
#[derive(Default)]
struct Compiled {
    used: HashMap<&'static str, BTreeSet<String>>,
    pipelines: HashMap<(&'static str, Vec<u64>), Arc<Pipeline>>,
}

/// How to open a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Index in [`list`]; none: the best adapter.
    pub index: Option<usize>,
    /// Ask for no more than every WebGPU device has.
    pub baseline: bool,
    /// Memory that a part of a batch may take; none: half of what is available, or 4 GiB
    /// where the system does not tell.
    pub part_bytes: Option<u64>,
    /// Fill new buffers with NaN, so that a kernel that reads what nobody wrote is found.
    pub poison: bool,
}

impl Context {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::Device`] if there is none.
    pub fn new(options: Options) -> Result<Self> {
        let gpu = Arc::new(Gpu::open(options.index, options.baseline)?);
        Ok(Context {
            gpu,
            compiled: Arc::default(),
            part_bytes: options.part_bytes,
            poison: options.poison,
        })
    }

    /// The adapter.
    #[must_use]
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.gpu.info
    }

    fn pipeline(&self, kernel: &Kernel, variant: &Variant) -> Result<Arc<Pipeline>> {
        let mut compiled = self.compiled.lock().expect("no panic before");
        if !compiled.used.contains_key(kernel.stem) {
            let (module, _) = Source::compose(kernel.stem, kernel.text)?.module()?;
            compiled.used.insert(kernel.stem, used_overrides(&module));
        }
        let used = &compiled.used[kernel.stem];
        let values = variant.iter().filter(|(name, _)| used.contains(*name));
        let key = (kernel.stem, values.map(|(_, value)| value.to_bits()).collect());
        if let Some(pipeline) = compiled.pipelines.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(Pipeline::new(&self.gpu, kernel, variant)?);
        compiled.pipelines.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    fn buffer(&self, label: &str, len: usize) -> Result<wgpu::Buffer> {
        let buffer = self.gpu.buffer(label, len)?;
        if self.poison {
            self.gpu.fill(&buffer, 0x7fc0_0123);
        }
        Ok(buffer)
    }

    fn uniform(&self, label: &str, size: usize) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        self.gpu.create(label, size as u64, usage)
    }
}

/// Names of the override constants of `shaders/lib/job.wgsl`.
pub(crate) const OVERRIDES: [&str; 6] =
    ["RULE", "ACTIVATION", "LOSS", "RECURRENT", "CLIPPED", "CLAMPED"];

/// The override constants for a population.
pub(crate) fn variant(network: &Network, clamped: bool) -> Variant {
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

/// The engine; see [`Engine`].
pub struct GpuEngine {
    context: Context,
    network: Network,
    layout: Layout,
    groups: Vec<Group>,
    prepared: Option<Prepared>,
    update: u64,
    pending: VecDeque<Pending>,
    staging: Vec<wgpu::Buffer>,
}

/// Networks whose parameters share a buffer.
struct Group {
    first: usize,
    n: usize,
    parameters: wgpu::Buffer,
    gradient: wgpu::Buffer,
    first_moment: wgpu::Buffer,
    second_moment: wgpu::Buffer,
    squares: wgpu::Buffer,
    d_alpha: wgpu::Buffer,
    report: wgpu::Buffer,
    how: wgpu::Buffer,
}

/// A part of a batch: whole networks of a group, or some episodes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    group: usize,
    /// First network, within the group.
    first_network: usize,
    n_networks: usize,
    n_batch: usize,
    /// First episode in the whole batch.
    first_episode: usize,
}

impl Part {
    fn n_episodes(&self) -> usize {
        self.n_networks * self.n_batch
    }
}

/// Buffers and bind groups for one shape.
struct Prepared {
    shape: Shape,
    gradients: bool,
    plan: Plan,
    parts: Vec<Part>,
    bytes: u64,
    job: wgpu::Buffer,
    buffers: Buffers,
    pipelines: Pipelines,
    /// For each group.
    bound: Vec<Bound>,
    y0_written: bool,
}

/// Buffers of one part of a batch, sized for the largest.
struct Buffers {
    record: wgpu::Buffer,
    traces: Vec<wgpu::Buffer>,
    adjoint: wgpu::Buffer,
    stimuli: wgpu::Buffer,
    shown: wgpu::Buffer,
    targets: wgpu::Buffer,
    scored: wgpu::Buffer,
    pre: wgpu::Buffer,
    pre_bar: wgpu::Buffer,
    partial: wgpu::Buffer,
    column_partial: wgpu::Buffer,
    row_partial: wgpu::Buffer,
    loss_rows: wgpu::Buffer,
    rule_bar: wgpu::Buffer,
    steps: wgpu::Buffer,
    y_last: wgpu::Buffer,
}

struct Pipelines {
    plastic_matmul: Arc<Pipeline>,
    trace_commit: Arc<Pipeline>,
    neuron_step: Arc<Pipeline>,
    loss: Arc<Pipeline>,
    backward_sweep: Arc<Pipeline>,
    neuron_back: Arc<Pipeline>,
    window_gradients: Arc<Pipeline>,
    sum_episodes: Arc<Pipeline>,
    share_alpha: Arc<Pipeline>,
    gradient_norm: Arc<Pipeline>,
    finish_report: Arc<Pipeline>,
    adam: Arc<Pipeline>,
    sgd: Arc<Pipeline>,
}

/// Bind groups over one group's buffers; a list has one for each window.
struct Bound {
    plastic_matmul: Vec<wgpu::BindGroup>,
    trace_commit: Vec<wgpu::BindGroup>,
    backward_sweep: Vec<wgpu::BindGroup>,
    window_gradients: Vec<wgpu::BindGroup>,
    neuron_step: wgpu::BindGroup,
    loss: wgpu::BindGroup,
    neuron_back: wgpu::BindGroup,
    sum_episodes: wgpu::BindGroup,
    share_alpha: wgpu::BindGroup,
    gradient_norm: wgpu::BindGroup,
    finish_report: wgpu::BindGroup,
    adam: wgpu::BindGroup,
    sgd: wgpu::BindGroup,
}

/// An update whose report is on its way.
struct Pending {
    update: u64,
    n_batch: usize,
    staging: wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
    ready: Arc<AtomicBool>,
}

impl GpuEngine {
    /// An engine for `network` on an open device, all parameters zero.
    ///
    /// # Errors
    /// A network whose sizes do not fit each other or the device.
    pub fn new(context: &Context, network: &Network) -> Result<Self> {
        network.validate()?;
        let layout = Layout::new(network);
        let limit = context.gpu.limits.max_storage_buffer_binding_size;
        let limit = limit.min(context.gpu.limits.max_buffer_size);
        let one = 4 * layout.len().max(network.n_connections()) as u64;
        let most = usize::try_from(limit / one).unwrap_or(usize::MAX).max(1);
        let shared = network.alpha != AlphaSharing::PerConnection;
        let mut groups = Vec::new();
        let mut first = 0;
        while first < network.n_networks {
            let n = most.min(network.n_networks - first);
            let flat = n * layout.len();
            let alpha = if shared { n * network.n_connections() } else { 1 };
            groups.push(Group {
                first,
                n,
                parameters: context.buffer("parameters", flat)?,
                gradient: context.buffer("gradient", flat)?,
                first_moment: context.buffer("first moment", flat)?,
                second_moment: context.buffer("second moment", flat)?,
                squares: context.buffer("squares", n * layout.len().div_ceil(BLOCK))?,
                d_alpha: context.buffer("d_alpha", alpha)?,
                report: context.buffer("report", n * REPORT)?,
                how: context.uniform("update", size_of::<Update>())?,
            });
            first += n;
        }
        let mut engine = GpuEngine {
            context: context.clone(),
            network: network.clone(),
            layout,
            groups,
            prepared: None,
            update: 0,
            pending: VecDeque::new(),
            staging: Vec::new(),
        };
        engine.set_parameters(&Parameters::zeros(network))?;
        Ok(engine)
    }

    fn gpu(&self) -> &Gpu {
        &self.context.gpu
    }

    /// Numbers that one episode takes in each of its buffers.
    fn per_episode(&self, shape: &Shape, gradients: bool) -> [usize; 13] {
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
    fn n_rule(&self) -> usize {
        self.layout.len() - self.at_rule()
    }

    fn at_rule(&self) -> usize {
        self.layout.find(Tensor::Alpha).map_or(0, |alpha| alpha.offset + alpha.len)
    }

    /// Cuts a batch into parts that fit the device's buffers and memory.
    fn parts(&self, shape: &Shape, plan: &Plan, gradients: bool) -> Result<(Vec<Part>, u64)> {
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

    fn make(&self, shape: Shape, gradients: bool) -> Result<Prepared> {
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

    fn bind(
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
    fn step_stride(&self) -> usize {
        let align = self.gpu().limits.min_uniform_buffer_offset_alignment as usize;
        size_of::<Step>().next_multiple_of(align)
    }

    fn job(&self, shape: &Shape, part: &Part) -> Job {
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

    /// Hands the part's episodes to the device.
    fn upload(&self, prepared: &Prepared, part: &Part, episodes: &Episodes<f32>) {
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
        rows(&b.scored, &episodes.scored);
        if let Some(pre) = &episodes.pre {
            put(&b.pre, 0, pre, t * m);
        }
        if prepared.y0_written || episodes.y0.is_some() {
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
        for (which, start) in [&episodes.h0, &episodes.e0].into_iter().enumerate().take(n_traces) {
            let Some(start) = start else { continue };
            for e in 0..count {
                let values = &start[(first + e) * m * n..(first + e + 1) * m * n];
                let at = 4 * ((e * n_traces + which) * m * n) as u64;
                queue.write_buffer(&b.traces[0], at, bytemuck::cast_slice(values));
            }
        }
    }

    /// Runs the part: uploads, then every command of the plan.
    fn run(&self, prepared: &Prepared, part: &Part, episodes: &Episodes<f32>) {
        let gpu = self.gpu();
        let (b, plan) = (&prepared.buffers, &prepared.plan);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        if episodes.h0.is_none() || (self.network.n_traces() == 2 && episodes.e0.is_none()) {
            encoder.clear_buffer(&b.traces[0], 0, None);
        }
        encoder.clear_buffer(&b.adjoint, 0, None);
        encoder.clear_buffer(&b.rule_bar, 0, None);
        gpu.queue.submit([encoder.finish()]);
        gpu.queue.write_buffer(
            &prepared.job,
            0,
            bytemuck::bytes_of(&self.job(&prepared.shape, part)),
        );
        self.upload(prepared, part, episodes);

        for commands in plan.commands.chunks(PER_SUBMISSION) {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for command in commands {
                self.dispatch(&mut pass, prepared, part, *command);
            }
            drop(pass);
            gpu.queue.submit([encoder.finish()]);
        }
    }

    fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        prepared: &Prepared,
        part: &Part,
        command: Command,
    ) {
        let bound = &prepared.bound[part.group];
        let pipelines = &prepared.pipelines;
        let (m, n) = (self.network.n_pre, self.network.n_post);
        let episodes = number(part.n_episodes());
        let (tiles, chunks) = (number(n.div_ceil(TILE)), number(m.div_ceil(CHUNK)));
        let sweep = [tiles, chunks, episodes];
        let (pipeline, group, step, size) = match command {
            Command::PlasticMatmul { window, step } => {
                (&pipelines.plastic_matmul, &bound.plastic_matmul[window], Some(step), sweep)
            }
            Command::TraceCommit { window, step } => {
                (&pipelines.trace_commit, &bound.trace_commit[window], Some(step), sweep)
            }
            Command::NeuronStep { step } => {
                (&pipelines.neuron_step, &bound.neuron_step, Some(step), [episodes, 1, 1])
            }
            Command::Loss => {
                let rows = part.n_episodes() * prepared.shape.n_steps;
                (&pipelines.loss, &bound.loss, None, grid(rows))
            }
            Command::BackwardSweep { window, step } => {
                (&pipelines.backward_sweep, &bound.backward_sweep[window], Some(step), sweep)
            }
            Command::NeuronBack { step } => {
                (&pipelines.neuron_back, &bound.neuron_back, Some(step), [episodes, 1, 1])
            }
            Command::WindowGradients { window, step } => {
                let size = [tiles, chunks, number(part.n_networks)];
                (&pipelines.window_gradients, &bound.window_gradients[window], Some(step), size)
            }
            Command::SumEpisodes => {
                let size = [number(part.n_networks), 1, 1];
                (&pipelines.sum_episodes, &bound.sum_episodes, None, size)
            }
        };
        pass.set_pipeline(&pipeline.pipeline);
        match step {
            Some(step) => pass.set_bind_group(0, group, &[number(step * self.step_stride())]),
            None => pass.set_bind_group(0, group, &[]),
        }
        pass.dispatch_workgroups(size[0], size[1], size[2]);
    }

    /// Clears what a batch adds to.
    fn start_batch(&self, encoder: &mut wgpu::CommandEncoder) {
        for group in &self.groups {
            encoder.clear_buffer(&group.gradient, 0, None);
            encoder.clear_buffer(&group.d_alpha, 0, None);
            encoder.clear_buffer(&group.report, 0, None);
        }
    }

    /// Runs every part; after each, `take` may read what it left.
    fn batch(
        &mut self,
        episodes: &Episodes<f32>,
        gradients: bool,
        mut take: impl FnMut(&Self, &Prepared, &Part) -> Result<()>,
    ) -> Result<Prepared> {
        let mut prepared = self.prepared.take().expect("prepare ran");
        let gpu = self.gpu();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.start_batch(&mut encoder);
        gpu.queue.submit([encoder.finish()]);
        let parts = prepared.parts.clone();
        for part in &parts {
            self.run(&prepared, part, episodes);
            take(self, &prepared, part)?;
        }
        prepared.y0_written = episodes.y0.is_some();
        if gradients && self.network.alpha != AlphaSharing::PerConnection {
            for (k, group) in self.groups.iter().enumerate() {
                let whole = Part {
                    group: k,
                    first_network: 0,
                    n_networks: group.n,
                    n_batch: 1,
                    first_episode: 0,
                };
                let job = self.job(&prepared.shape, &whole);
                gpu.queue.write_buffer(&prepared.job, 0, bytemuck::bytes_of(&job));
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(&prepared.pipelines.share_alpha.pipeline);
                pass.set_bind_group(0, &prepared.bound[k].share_alpha, &[]);
                pass.dispatch_workgroups(number(group.n), 1, 1);
                drop(pass);
                gpu.queue.submit([encoder.finish()]);
            }
        }
        gpu.check()?;
        Ok(prepared)
    }

    /// The optimiser, and the report's way back.
    fn step(&mut self, prepared: &Prepared, step: StepSize) -> Result<()> {
        let gpu = Arc::clone(&self.context.gpu);
        for group in &self.groups {
            let how = self.how(group, step);
            gpu.queue.write_buffer(&group.how, 0, bytemuck::bytes_of(&how));
        }
        let n_reports = self.network.n_networks * REPORT;
        let staging = match self.staging.pop() {
            Some(staging) => staging,
            None => {
                let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                let size = 4 * n_reports as u64 + prepared.buffers.y_last.size();
                gpu.create("reports", size, usage)?
            }
        };
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.dispatch_optimiser(&mut pass, prepared, step.optimiser);
        drop(pass);
        for group in &self.groups {
            let at = 4 * (group.first * REPORT) as u64;
            let size = 4 * (group.n * REPORT) as u64;
            encoder.copy_buffer_to_buffer(&group.report, 0, &staging, at, size);
        }
        let y_last = &prepared.buffers.y_last;
        encoder.copy_buffer_to_buffer(y_last, 0, &staging, 4 * n_reports as u64, y_last.size());
        let submission = gpu.queue.submit([encoder.finish()]);
        let ready = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&ready);
        staging
            .slice(..)
            .map_async(wgpu::MapMode::Read, move |_| set.store(true, Ordering::SeqCst));
        let n_batch = prepared.shape.n_batch;
        let update = self.update;
        self.pending.push_back(Pending { update, n_batch, staging, submission, ready });
        Ok(())
    }

    fn dispatch_optimiser(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        prepared: &Prepared,
        optimiser: Optimiser,
    ) {
        let blocks = number(self.layout.len().div_ceil(BLOCK));
        let pipelines = &prepared.pipelines;
        for (group, bound) in self.groups.iter().zip(&prepared.bound) {
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
    fn how(&self, group: &Group, step: StepSize) -> Update {
        let (beta1, beta2, epsilon) = match step.optimiser {
            Optimiser::Adam { beta1, beta2, epsilon } => (beta1, beta2, epsilon),
            Optimiser::Sgd { momentum } => (momentum, 0.0, 0.0),
        };
        let eta = self.layout.find(Tensor::Eta);
        Update {
            n_networks: number(group.n),
            n_parameters: number(self.layout.len()),
            at_eta: eta.map_or(0, |entry| number(entry.offset)),
            n_eta: eta.map_or(0, |entry| number(entry.len)),
            n_blocks: number(self.layout.len().div_ceil(BLOCK)),
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
    fn take_report(&mut self, pending: Pending) -> Result<Report<f32>> {
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

/// The number of an update as its report shows it, never 0.
#[expect(clippy::cast_precision_loss, reason = "below 2^24")]
fn mark(update: u64) -> f32 {
    (1 + update % (1 << 23)) as f32
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("sizes were checked against the device's limits")
}

impl Engine<f32> for GpuEngine {
    fn network(&self) -> &Network {
        &self.network
    }

    fn prepare(&mut self, shape: Shape, want: Want) -> Result<Description> {
        let stale = self.prepared.as_ref().is_none_or(|prepared| {
            prepared.shape != shape || (want.gradients && !prepared.gradients)
        });
        if stale {
            shape.validate(&self.network)?;
            check_memory("the episodes", shape.host_bytes(&self.network, size_of::<f32>()))?;
            // reports on their way belong to the buffers of the old shape
            self.gpu().wait(None)?;
            self.prepared = None;
            self.staging.clear();
            self.prepared = Some(self.make(shape, want.gradients)?);
            self.gpu().check()?;
        }
        let prepared = self.prepared.as_ref().expect("made above");
        let fixed: u64 = self
            .groups
            .iter()
            .flat_map(|g| {
                [&g.parameters, &g.gradient, &g.first_moment, &g.second_moment, &g.d_alpha]
            })
            .map(wgpu::Buffer::size)
            .sum();
        let info = &self.gpu().info;
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let parts = prepared.parts.len();
        let split = if parts > 1 { format!(", the batch in {parts} parts") } else { String::new() };
        Ok(Description {
            device: format!("{}{}", info.name, if software { " (software)" } else { "" }),
            driver: format!("{:?}, {} {}", info.backend, info.driver, info.driver_info),
            software,
            plan: format!("streamed, windows of {} steps{split}", prepared.plan.window),
            memory_needed: fixed + prepared.bytes,
            memory_available: if software { available_memory() } else { None },
        })
    }

    fn set_parameters(&mut self, parameters: &Parameters<f32>) -> Result<()> {
        let len = self.layout.len();
        let gpu = self.gpu();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for group in &self.groups {
            let values = &parameters.values()[group.first * len..(group.first + group.n) * len];
            gpu.queue.write_buffer(&group.parameters, 0, bytemuck::cast_slice(values));
            encoder.clear_buffer(&group.first_moment, 0, None);
            encoder.clear_buffer(&group.second_moment, 0, None);
        }
        gpu.queue.submit([encoder.finish()]);
        gpu.check()
    }

    fn parameters(&mut self) -> Result<Parameters<f32>> {
        let mut parameters = Parameters::zeros(&self.network);
        let len = self.layout.len();
        for group in &self.groups {
            let values = self.gpu().read(&group.parameters, 0, group.n * len)?;
            parameters.values_mut()[group.first * len..][..values.len()].copy_from_slice(&values);
        }
        Ok(parameters)
    }

    fn evaluate(&mut self, episodes: &Episodes<f32>, want: Want) -> Result<Outputs<f32>> {
        episodes.validate(&self.network)?;
        self.prepare(episodes.shape, want)?;
        let (m, n, t) = (self.network.n_pre, self.network.n_post, episodes.shape.n_steps);
        let n_traces = self.network.n_traces();
        let mut out = Outputs::default();
        let (mut input, mut pre, mut y0) = (Vec::new(), Vec::new(), Vec::new());
        let mut adjoints = [Vec::new(), Vec::new()];
        let prepared = self.batch(episodes, want.gradients, |engine, prepared, part| {
            let gpu = engine.gpu();
            let b = &prepared.buffers;
            let count = part.n_episodes();
            let slot = count * (t + 1) * n;
            // rows of a slot without the row before (or after) the steps
            let rows = |which: usize, skip: usize| -> Result<Vec<f32>> {
                let all = gpu.read(&b.record, which * slot, slot)?;
                let steps = all.chunks((t + 1) * n);
                Ok(steps.flat_map(|e| &e[skip * n..(skip + t) * n]).copied().collect())
            };
            if want.activity {
                out.y.extend(rows(Y, 1)?);
            }
            let two = |buffer: &wgpu::Buffer, first: &mut Vec<f32>, second: &mut Vec<f32>| {
                let all = gpu.read(buffer, 0, count * n_traces * m * n)?;
                for episode in all.chunks(n_traces * m * n) {
                    first.extend(&episode[..m * n]);
                    second.extend(&episode[m * n..]);
                }
                Ok::<_, Error>(())
            };
            if want.traces {
                let last = &b.traces[prepared.plan.slot(prepared.plan.n_windows)];
                two(last, &mut out.h, &mut out.e)?;
            }
            if want.gradients {
                input.extend(rows(D_INPUT, 0)?);
                let y_bar = gpu.read(&b.record, Y_BAR * slot, slot)?;
                y0.extend(y_bar.chunks((t + 1) * n).flat_map(|e| &e[..n]));
                if !engine.network.recurrent {
                    pre.extend(gpu.read(&b.pre_bar, 0, count * t * m)?);
                }
                let [h, e] = &mut adjoints;
                two(&b.adjoint, h, e)?;
            }
            Ok(())
        })?;
        let total = self.network.n_networks * episodes.shape.n_batch;
        out.y_last = self.gpu().read(&prepared.buffers.y_last, 0, total * n)?;
        for group in &self.groups {
            let report = self.gpu().read(&group.report, 0, group.n * REPORT)?;
            out.loss.extend(report.iter().step_by(REPORT));
        }
        self.prepared = Some(prepared);
        if want.gradients {
            let mut parameters = Parameters::zeros(&self.network);
            let len = self.layout.len();
            for group in &self.groups {
                let values = self.gpu().read(&group.gradient, 0, group.n * len)?;
                parameters.values_mut()[group.first * len..][..values.len()]
                    .copy_from_slice(&values);
            }
            let now = self.parameters()?;
            let [h0, e0] = adjoints.map(|p| lambda(&self.network, &now, episodes, p));
            let e0 = if e0.is_empty() { vec![0.0; h0.len()] } else { e0 };
            out.gradients = Some(Gradients { parameters, input, pre, y0, h0, e0 });
        }
        Ok(out)
    }

    fn update(&mut self, episodes: &Episodes<f32>, step: StepSize) -> Result<()> {
        episodes.validate(&self.network)?;
        self.prepare(episodes.shape, Want { gradients: true, ..Want::default() })?;
        if self.pending.len() >= IN_FLIGHT {
            let oldest = self.pending[self.pending.len() - IN_FLIGHT].submission.clone();
            self.gpu().wait(Some(oldest))?;
        }
        let prepared = self.batch(episodes, true, |_, _, _| Ok(()))?;
        self.step(&prepared, step)?;
        self.prepared = Some(prepared);
        self.update += 1;
        self.gpu().check()
    }

    fn reports(&mut self, wait: bool) -> Result<Vec<Report<f32>>> {
        if wait {
            self.gpu().wait(None)?;
        } else {
            // the answer is whether work is left; failures are told by `check`
            let _ = self.gpu().device.poll(wgpu::PollType::Poll);
            self.gpu().check()?;
        }
        let mut reports = Vec::new();
        while let Some(pending) = self.pending.pop_front() {
            if !pending.ready.load(Ordering::SeqCst) {
                self.pending.push_front(pending);
                break;
            }
            reports.push(self.take_report(pending)?);
        }
        Ok(reports)
    }
}

/// dL/dH(1) = alpha P(1), `[P, B, M, N]`.
fn lambda(
    network: &Network,
    parameters: &Parameters<f32>,
    episodes: &Episodes<f32>,
    mut p: Vec<f32>,
) -> Vec<f32> {
    let n = network.n_post;
    for (e, episode) in p.chunks_mut(network.n_connections()).enumerate() {
        let alpha = parameters.get(e / episodes.shape.n_batch, Tensor::Alpha);
        for (k, value) in episode.iter_mut().enumerate() {
            *value *= match network.alpha {
                AlphaSharing::PerConnection => alpha[k],
                AlphaSharing::PerNeuron => alpha[k % n],
                AlphaSharing::PerNetwork => alpha[0],
            };
        }
    }
    p
}
