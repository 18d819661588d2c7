//! The GPU engine: hand-written WGSL through wgpu, on Vulkan, Metal and DX12.
//!
//! Parameters and optimiser moments stay on the device. A batch too large for the
//! device's buffers is run in parts, one after another, with the same result up to
//! rounding.

mod around;
mod bind;
mod buffers;
mod clock;
mod context;
mod device;
mod equations;
mod general;
pub(crate) mod kernels;
pub mod limits;
mod plan;
mod portable;
mod prepare;
mod run;
pub(crate) mod shader;
mod slots;
mod tile;
mod traces;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use context::{Context, Options};
pub use device::{AdapterDescription, list};
pub use portable::{Portable, PortableDispatch, PortableKernel, PortableVector, portable};

use crate::engine::gpu::bind::Optimisers;
use crate::engine::gpu::clock::{Clock, Passes};
use crate::engine::gpu::device::Gpu;
use crate::engine::gpu::equations::Equations;
use crate::engine::gpu::general::all_traces;
use crate::engine::gpu::kernels::{BLOCK, Update};
use crate::engine::gpu::prepare::Prepared;
use crate::engine::gpu::run::Aim;
use crate::engine::gpu::traces::{onto_clip, pack, residual};
use crate::engine::{
    Description, DeviceTime, Engine, GpuBatch, Gradients, Held, LifeId, Lives, Outputs, PlanChoice,
    PlanDescription, Program, Programs, Report, State, Storage, Want, Work, available_memory,
    check_life, check_memory, check_set_back, no_gradients,
};
use crate::error::{Error, Result};
use crate::model::{Episodes, Layout, Network, Parameters, Shape, Signals, StepSize, Tensor};

/// Backward passes that may be in flight.
const IN_FLIGHT: usize = 3;
/// Numbers of a network's report: loss, gradient norm, mean eta, mark.
const REPORT: usize = 4;
/// Slots of every network's record: y, dL/dy, z, d, c, m, dL/dz, dL/dinput.
const RECORD_SLOTS: usize = 8;
const Y: usize = 0;
const Y_BAR: usize = 1;
const Z: usize = 2;
const D_INPUT: usize = 7;

/// The engine; see [`Engine`].
pub struct GpuEngine {
    context: Context,
    network: Network,
    layout: Layout,
    /// Of the rule, where the general plan runs it.
    equations: Option<Arc<Equations>>,
    /// Of the connections, where some are missing; on the device it follows a network's parameters.
    mask: Vec<f32>,
    groups: Vec<Group>,
    /// What an update needs beside the gradients.
    how: wgpu::Buffer,
    optimisers: Optimisers,
    /// What backward passes left since the last step; none: there was none.
    added: Option<Added>,
    programs: Programs<Made>,
    lives: Lives<Living>,
    update: u64,
    pending: VecDeque<Pending>,
    /// The last backward passes.
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    staging: Vec<wgpu::Buffer>,
    /// Where the device has one.
    clock: Option<Clock>,
    device_time: Option<DeviceTime>,
}

/// How fast the device is, as far as known: resident dispatches are made as long as it
/// finishes in [`DISPATCH_SECONDS`].
#[derive(Clone, Copy)]
enum Pace {
    /// Nothing ran yet: what compiles and loads on first use is not timed.
    Cold,
    /// The next update is timed.
    Warm,
    Known,
}

/// What a dispatch may take, on the mean: systems reset a device whose dispatch takes
/// seconds, and the longest kernel takes some twice the mean.
const DISPATCH_SECONDS: f64 = 0.03;

/// Networks whose parameters share a buffer.
struct Group {
    first: usize,
    n: usize,
    parameters: wgpu::Buffer,
    gradient: wgpu::Buffer,
    first_moment: wgpu::Buffer,
    second_moment: wgpu::Buffer,
    squares: wgpu::Buffer,
    report: wgpu::Buffer,
}

/// Memories on the device.
struct Living {
    n_memories: usize,
    /// `[P, B, N]`.
    y: wgpu::Buffer,
    /// v `[P, B, N]` of neurons whose membrane leaks.
    v: Option<wgpu::Buffer>,
    /// Of every memory, as a slot of a batch's traces has them.
    traces: wgpu::Buffer,
    /// What rounding took of them, where they are stored rounded.
    residual: Option<wgpu::Buffer>,
    /// Variables of a rule's text `[P, B, variables]`.
    state: Option<wgpu::Buffer>,
}

/// What a program has for batches that do not bring m, and for those that do: the one that the network
/// has use for, and the other once it was needed.
struct Made([Option<Prepared>; 2]);

impl Made {
    /// For such batches.
    fn of(&mut self, episodes: &Episodes<f32>) -> &mut Prepared {
        let modulated = usize::from(episodes.signals.m.is_some());
        self.0[modulated].as_mut().expect("checked")
    }
}

/// Of the backward passes since the last step, beside the gradients and losses in the groups' buffers.
struct Added {
    /// Of the last of them, and its episodes per network.
    y_last: Option<wgpu::Buffer>,
    n_batch: usize,
}

/// An update whose report is on its way.
struct Pending {
    update: u64,
    n_batch: usize,
    /// Where the timestamps lie in `staging`.
    stamps_at: u64,
    passes: Passes,
    staging: wgpu::Buffer,
    ready: Arc<AtomicBool>,
}

impl GpuEngine {
    /// An engine for `network` on an open device, all parameters zero.
    ///
    /// # Errors
    /// A network whose sizes do not fit each other or the device.
    pub fn new(context: &Context, network: &Network) -> Result<Self> {
        network.validate()?;
        if !Self::runs(network) {
            return Err(Error::Device {
                found: "an embedding of images".into(),
                wanted: "--device cpu, which runs it".into(),
            });
        }
        let layout = Layout::new(network);
        let equations = match slots::is_general(network) {
            true => Some(Arc::new(Equations::new(network)?)),
            false => None,
        };
        let stride = stride(network, &layout);
        let limit = context.gpu.limits.max_storage_buffer_binding_size;
        let limit = limit.min(context.gpu.limits.max_buffer_size);
        let one = 4 * stride.max(2 * network.n_connections()) as u64;
        let widest = context.gpu.limits.max_compute_workgroups_per_dimension as usize;
        let most = usize::try_from(limit / one).unwrap_or(usize::MAX).clamp(1, widest);
        let mut groups = Vec::new();
        let mut first = 0;
        while first < network.n_networks {
            let n = most.min(network.n_networks - first);
            let flat = n * stride;
            groups.push(Group {
                first,
                n,
                parameters: context.buffer("parameters", flat)?,
                gradient: context.buffer("gradient", flat)?,
                first_moment: context.buffer("first moment", flat)?,
                second_moment: context.buffer("second moment", flat)?,
                squares: context.buffer("squares", n * stride.div_ceil(BLOCK))?,
                report: context.buffer("report", n * REPORT)?,
            });
            first += n;
        }
        let how = context.uniform("update", size_of::<Update>())?;
        let form = shader::Form {
            traces: context.options.traces,
            n_traces: number(network.n_traces()),
            tile: plan::Layout::streamed(network, 1).tile(),
            rule: None,
        };
        let variant = prepare::variant(network, false, slots::Slots::of(network, false));
        let compile = |kernel: &kernels::Kernel| context.pipeline(kernel, &form, &variant);
        let optimisers = Optimisers::new(&context.gpu, &groups, &how, compile)?;
        let mut engine = GpuEngine {
            context: context.clone(),
            network: network.clone(),
            layout,
            equations,
            mask: Vec::new(),
            groups,
            how,
            optimisers,
            added: None,
            programs: Programs::default(),
            lives: Lives::default(),
            update: 0,
            pending: VecDeque::new(),
            in_flight: VecDeque::new(),
            staging: Vec::new(),
            clock: Clock::new(&context.gpu, context.options.profile)?,
            device_time: None,
        };
        engine.set_parameters(&Parameters::zeros(network))?;
        Ok(engine)
    }

    /// Whether a GPU runs such networks: an embedding of images, the CPU runs alone.
    #[must_use]
    pub fn runs(network: &Network) -> bool {
        network.stages.embedding.is_none()
    }

    /// Writes some memories into a life's buffers.
    fn write_memories(
        &self,
        life: &Living,
        held: &Held<f32>,
        memories: impl Iterator<Item = usize>,
    ) -> Result<()> {
        let (queue, storage) = (&self.gpu().queue, self.context.options.traces);
        let (n, mn) = (self.network.n_post, self.network.n_connections());
        let n_traces = self.network.n_traces();
        for memory in memories {
            let rows = [(Some(&life.y), &held.y), (life.v.as_ref(), &held.v)];
            for (to, values) in rows.into_iter().filter_map(|(to, values)| Some((to?, values))) {
                let bytes: &[u8] = bytemuck::cast_slice(&values[memory * n..][..n]);
                queue.write_buffer(to, (memory * bytes.len()) as u64, bytes);
            }
            let traces =
                all_traces(self, [Some(&held.h), Some(&held.e)], held.rule.iter().map(Some));
            for (which, values) in traces.into_iter().flatten().enumerate() {
                let values = &values[memory * mn..][..mn];
                let bytes = pack(values, n, storage);
                let at = (memory * n_traces + which) * bytes.len();
                queue.write_buffer(&life.traces, at as u64, &bytes);
                if let Some(to) = &life.residual {
                    let rest = pack(&residual(values), n, Storage::F32);
                    let at = (memory * n_traces + which) * rest.len();
                    queue.write_buffer(to, at as u64, &rest);
                }
            }
            if let Some(to) = &life.state {
                let sizes = self.variable_sizes();
                let mut at = 4 * (memory * sizes.iter().sum::<usize>()) as u64;
                for (values, len) in held.rule[self.n_others()..].iter().zip(sizes) {
                    let values = &values[memory * len..][..len];
                    queue.write_buffer(to, at, bytemuck::cast_slice(values));
                    at += size_of_val(values) as u64;
                }
            }
        }
        queue.submit([]);
        self.gpu().check()
    }

    /// Numbers of a network's parameters on the device.
    fn stride(&self) -> usize {
        stride(&self.network, &self.layout)
    }

    /// A group's parameters, or something alike, as the device has them: with `mask` behind, or zeros.
    fn on_device(&self, group: &Group, all: &Parameters<f32>, mask: &[f32]) -> Vec<f32> {
        let (len, rest) = (self.layout.len(), self.stride() - self.layout.len());
        let networks = group.first..group.first + group.n;
        let one = |p: usize| {
            let mask = mask.get(p * rest..(p + 1) * rest).map_or(vec![0.0; rest], <[f32]>::to_vec);
            all.values()[p * len..][..len].iter().copied().chain(mask)
        };
        networks.flat_map(one).collect()
    }

    /// What a program says of itself.
    fn description(&self, prepared: &Prepared) -> Description {
        let fixed: u64 = self
            .groups
            .iter()
            .flat_map(|g| {
                [&g.parameters, &g.gradient, &g.first_moment, &g.second_moment, &g.squares]
            })
            .map(wgpu::Buffer::size)
            .sum();
        let info = &self.gpu().info;
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let parts = prepared.parts.len();
        let storage = self.context.options.traces;
        let batch = GpuBatch { half: storage == Storage::F16, parts };
        let groups = (parts, self.groups.len());
        Description {
            device: format!("{}{}", info.name, if software { " (software)" } else { "" }),
            driver: format!("{:?}, {} {}", info.backend, info.driver, info.driver_info),
            software,
            plan: prepared.plan.describe(batch),
            memory_needed: fixed + prepared.bytes,
            memory_available: if software { available_memory() } else { None },
            work: Some(prepared.plan.work(&self.network, &prepared.shape, groups, storage)),
        }
    }

    /// Refuses what does not fit the program or the device.
    fn check(&mut self, program: &Program, episodes: &Episodes<f32>, want: Want) -> Result<()> {
        let modulated = episodes.signals.m.is_some();
        let there = self.programs.get(program)?.0[usize::from(modulated)].is_some();
        program.check(episodes.shape, want)?;
        episodes.validate(&self.network)?;
        let signals = &episodes.signals;
        let cut = signals.reset.is_some() || signals.truncate.is_some() || signals.dh.is_some();
        if cut && self.equations.is_none() {
            return Err(Error::Device {
                found: "episodes with resets, truncation or dh, of a network opened without".into(),
                wanted: "stages.general set for the network, or --device cpu".into(),
            });
        }
        if !there {
            let made = self.make(program.shape(), program.want(), modulated)?;
            self.programs.get(program)?.0[usize::from(modulated)] = Some(made);
        }
        self.check_start(episodes.h0.as_deref(), episodes.e0.as_deref())
    }

    /// Does `work`, which leaves gradients and losses of its own, and puts back those that backward
    /// passes had added up.
    fn aside<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.added.is_none() {
            return work(self);
        }
        let copy = |from: &[wgpu::Buffer], to: &[wgpu::Buffer], gpu: &Gpu| {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for (from, to) in from.iter().zip(to) {
                encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size());
            }
            gpu.queue.submit([encoder.finish()]);
        };
        let own: Vec<wgpu::Buffer> =
            self.groups.iter().flat_map(|g| [g.gradient.clone(), g.report.clone()]).collect();
        let spare = own.iter().map(|buffer| {
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            self.gpu().create("set aside", buffer.size(), usage)
        });
        let spare = spare.collect::<Result<Vec<_>>>()?;
        copy(&own, &spare, self.gpu());
        // what runs now may write its own there
        if let Some(y_last) = self.added.as_ref().and_then(|added| added.y_last.clone()) {
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let kept = self.gpu().create("y of a backward pass", y_last.size(), usage)?;
            copy(&[y_last], std::slice::from_ref(&kept), self.gpu());
            self.added.as_mut().expect("seen above").y_last = Some(kept);
        }
        let result = work(self);
        copy(&spare, &own, self.gpu());
        result
    }

    /// Makes resident dispatches as long as fits, given what a batch took. Results do not
    /// depend on it.
    fn set_pace(&self, prepared: &mut Prepared, seconds: f64) {
        let plan = &prepared.plan;
        if !matches!(plan.layout, plan::Layout::Resident(_)) {
            return;
        }
        let n = f64::from(number(plan.commands.len() * prepared.parts.len()));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let span = (f64::from(number(plan.span)) * DISPATCH_SECONDS * n / seconds.max(1e-6))
            .clamp(1.0, 1e9) as usize;
        self.set_span(prepared, span);
    }

    /// Begins a pass that is timed where the device can.
    fn pass<'a>(
        &self,
        encoder: &'a mut wgpu::CommandEncoder,
        name: &'static str,
    ) -> wgpu::ComputePass<'a> {
        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(name),
            timestamp_writes: self.clock.as_ref().and_then(|clock| clock.next(name)),
        })
    }

    /// [`Engine::live`] on the device's own memories.
    fn live_on(
        &self,
        prepared: &mut Prepared,
        life: &Living,
        episodes: &Episodes<f32>,
        activity: bool,
    ) -> Result<Outputs<f32>> {
        let (n, t) = (self.network.n_post, episodes.shape.n_steps);
        let mut out = Outputs::default();
        self.batch(prepared, episodes, Aim::Life(life), |engine, prepared, part| {
            if activity {
                out.y.extend(engine.rows(prepared, part, Y, (1, t))?);
            }
            out.out.extend(engine.read_out(prepared, part)?);
            Ok(())
        })?;
        let total = self.network.n_networks * episodes.shape.n_batch;
        let y_last = match activity {
            true => Ok(out.y.chunks(t * n).flat_map(|e| &e[(t - 1) * n..]).copied().collect()),
            false => self.gpu().read(&prepared.buffers.y_last, 0, total * n),
        };
        out.y_last = y_last?;
        Ok(out)
    }

    /// [`Engine::run`].
    fn outputs(
        &self,
        prepared: &mut Prepared,
        episodes: &Episodes<f32>,
        want: Want,
    ) -> Result<Outputs<f32>> {
        let (m, n, t) = (self.network.n_pre, self.network.n_post, episodes.shape.n_steps);
        let n_traces = self.network.n_traces();
        let mut out = Outputs::default();
        let (mut input, mut pre, mut y0) = (Vec::new(), Vec::new(), Vec::new());
        let (mut traces, mut variables, mut adjoints) = (Vec::new(), Vec::new(), Vec::new());
        let mut signals = Signals::default();
        let aim = Aim::Outputs { gradients: want.gradients };
        self.batch(prepared, episodes, aim, |engine, prepared, part| {
            let gpu = engine.gpu();
            let b = &prepared.buffers;
            let count = part.n_episodes();
            let rows = |slot, skip, count| engine.rows(prepared, part, slot, (skip, count));
            if want.activity {
                out.y.extend(rows(Y, 1, t)?);
            }
            out.v.extend(engine.read_v(prepared, part)?);
            out.out.extend(engine.read_out(prepared, part)?);
            if want.traces {
                let (plan, words) = (&prepared.plan, words_of(engine.trace_bytes()) * count);
                let slot = plan.last_slot();
                let (_, held) = plan.trace_buffers();
                let storage = engine.context.options.traces;
                let last = gpu.read(&b.traces[slot / held], slot % held * words, words)?;
                let mut found = Vec::new();
                engine.split_traces(&last, storage, count, &mut found);
                if let (Storage::F16, Some(clip)) = (storage, engine.network.trace_clip()) {
                    onto_clip(&mut found[0], clip);
                }
                if storage == Storage::F16 {
                    let len = 4 * n_traces * m.div_ceil(4) * n * count;
                    let mut rests = Vec::new();
                    let words = gpu.read(&b.residual, 0, len)?;
                    engine.split_traces(&words, Storage::F32, count, &mut rests);
                    for (found, rest) in found.iter_mut().flatten().zip(rests.iter().flatten()) {
                        *found += rest;
                    }
                }
                traces.resize(n_traces, Vec::new());
                traces.iter_mut().zip(found).for_each(|(all, found)| all.extend(found));
                engine.read_variables(prepared, part, &mut variables)?;
            }
            if want.gradients {
                input.extend(rows(D_INPUT, 0, t)?);
                y0.extend(rows(Y_BAR, 0, 1)?);
                engine.read_signals(prepared, part, &episodes.signals, &mut signals)?;
                if !engine.network.recurrent {
                    pre.extend(gpu.read(&b.pre, count * t * m, count * t * m)?);
                }
                let len = 4 * n_traces * m.div_ceil(4) * n * count;
                // of the general plan those of the start traces lie behind
                let at = if engine.equations.is_some() { len } else { 0 };
                let mut found = Vec::new();
                let words = gpu.read(&b.adjoint, at, len)?;
                engine.split_traces(&words, Storage::F32, count, &mut found);
                engine.read_starts(prepared, part, &found, &episodes.signals, &mut signals)?;
                adjoints.resize(n_traces, Vec::new());
                adjoints.iter_mut().zip(found).for_each(|(all, found)| all.extend(found));
            }
            Ok(())
        })?;
        let mut traces = traces.into_iter();
        out.h = traces.next().unwrap_or_default();
        match self.network.stages.rule {
            Some(_) => out.rule = traces.chain(variables).collect(),
            None => out.e = traces.next().unwrap_or_default(),
        }
        let total = self.network.n_networks * episodes.shape.n_batch;
        out.y_last = self.gpu().read(&prepared.buffers.y_last, 0, total * n)?;
        for group in &self.groups {
            let report = self.gpu().read(&group.report, 0, group.n * REPORT)?;
            out.loss.extend(report.iter().step_by(REPORT));
        }
        if want.gradients {
            let parameters = self.read_groups(|group| &group.gradient)?;
            let now = self.read_parameters()?;
            let of_p = self.equations.is_none();
            let mut adjoints = adjoints.into_iter().map(|found| match of_p {
                true => lambda(&self.network, &now, episodes, found),
                false => found,
            });
            let h0 = adjoints.next().unwrap_or_default();
            let own = self.network.stages.rule.is_none();
            let e0 = adjoints.next().filter(|_| own).unwrap_or_default();
            out.gradients = Some(Gradients { parameters, input, pre, y0, h0, e0, signals });
        }
        Ok(out)
    }

    /// The work of [`Engine::backward`].
    fn train_on(
        &self,
        prepared: &mut Prepared,
        episodes: &Episodes<f32>,
    ) -> Result<wgpu::SubmissionIndex> {
        let add = self.added.is_some();
        let timed = matches!(prepared.pace, Pace::Warm);
        if timed {
            self.gpu().wait(None)?;
        }
        if let Some(clock) = self.clock.as_ref().filter(|_| !add) {
            // what another batch left
            clock.take();
        }
        let start = std::time::Instant::now();
        let last = self.batch(prepared, episodes, Aim::Training { add }, |_, _, _| Ok(()))?;
        if timed {
            self.gpu().wait(None)?;
            self.set_pace(prepared, start.elapsed().as_secs_f64());
        }
        prepared.pace = match prepared.pace {
            Pace::Cold => Pace::Warm,
            Pace::Warm | Pace::Known => Pace::Known,
        };
        Ok(last)
    }

    /// Memories, from the device.
    fn read_life(&self, life: &Living) -> Result<Held<f32>> {
        let n = self.network.n_post;
        let total = self.network.n_networks * life.n_memories;
        let storage = self.context.options.traces;
        let words = words_of(self.trace_bytes()) * total;
        let mut traces = Vec::new();
        let read = self.gpu().read(&life.traces, 0, words)?;
        self.split_traces(&read, storage, total, &mut traces);
        if let Some(residual) = &life.residual {
            if let Some(clip) = self.network.trace_clip() {
                onto_clip(&mut traces[0], clip);
            }
            let mut rests = Vec::new();
            let read = self.gpu().read(residual, 0, 2 * words)?;
            self.split_traces(&read, Storage::F32, total, &mut rests);
            for (value, rest) in traces.iter_mut().flatten().zip(rests.iter().flatten()) {
                *value += rest;
            }
        }
        let y = self.gpu().read(&life.y, 0, total * n)?;
        let v = match &life.v {
            Some(v) => self.gpu().read(v, 0, total * n)?,
            None => Vec::new(),
        };
        Ok(Held { y, v, ..self.read_rule(life, traces)? })
    }

    /// Bytes that came from the device since it was opened.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.gpu().bytes_read.load(Ordering::Relaxed)
    }

    fn gpu(&self) -> &Gpu {
        &self.context.gpu
    }

    /// The numbers of one buffer of every group.
    fn read_groups(&self, buffer: impl Fn(&Group) -> &wgpu::Buffer) -> Result<Parameters<f32>> {
        let mut all = Parameters::zeros(&self.network);
        let (len, stride) = (self.layout.len(), self.stride());
        for group in &self.groups {
            let values = self.gpu().read(buffer(group), 0, group.n * stride)?;
            let own = all.values_mut()[group.first * len..].chunks_exact_mut(len);
            own.zip(values.chunks(stride))
                .for_each(|(own, from)| own.copy_from_slice(&from[..len]));
        }
        Ok(all)
    }

    fn read_parameters(&self) -> Result<Parameters<f32>> {
        let mut found = self.read_groups(|group| &group.parameters)?;
        found.mask.clone_from(&self.mask);
        Ok(found)
    }

    /// Destroys the device, as a driver that fails would: whatever runs on it ends in an
    /// error.
    pub fn destroy_device(&self) {
        self.gpu().device.destroy();
    }
}

/// Recurrent networks with one trace run by the resident plan up to so many neurons on that
/// adapter, larger ones by the streamed plan.
#[must_use]
pub fn resident_neurons(adapter: &AdapterDescription) -> usize {
    plan::resident_neurons(1, adapter.limits.max_compute_workgroup_storage_size)
}

/// The plan for whole batches of `shape`, in words, and what an update takes by it; needs no
/// device. Assumes 64 KiB of workgroup memory, and no batch cut in parts.
///
/// # Errors
/// A resident plan that is asked for and does not fit.
pub fn count(
    network: &Network,
    shape: &Shape,
    choice: PlanChoice,
    traces: Storage,
) -> Result<(PlanDescription, Work)> {
    let layout = plan::Layout::choose(network, shape, choice, (network.stages.given_m, 1 << 16))?;
    let want = Want { gradients: true, ..Want::default() };
    let plan = plan::Plan::new(network, layout, shape.n_steps, want, usize::MAX);
    let batch = GpuBatch { half: traces == Storage::F16, parts: 1 };
    Ok((plan.describe(batch), plan.work(network, shape, (1, 1), traces)))
}

/// Steps of more than one window of any plan.
const SHORT: usize = 16;

/// The kernels' texts as they are composed for `network`, by the name `PLAN/KERNEL.wgsl`, of every
/// plan that `memory` bytes of workgroup memory allow.
///
/// # Errors
/// [`crate::error::Error::Shader`] for a fault in a shader.
pub fn composed(network: &Network, traces: Storage, memory: u32) -> Result<Vec<(String, String)>> {
    let (m, n, n_traces) = (network.n_pre, network.n_post, network.n_traces());
    let resident = match slots::surrounds(network, network.stages.given_m) {
        true => None,
        false => plan::Layout::resident(m, n, n_traces, memory),
    };
    let streamed = plan::Layout::streamed(network, 1);
    let general = plan::Layout::General { window: SHORT };
    // kernels of a plan's commands; the others serve all
    let want = Want { gradients: true, ..Want::default() };
    let kernels_of = |layout| -> Vec<&str> {
        let plan = plan::Plan::new(network, layout, 2 * SHORT, want, 1);
        plan.commands.iter().map(|command| command.kernel()).collect()
    };
    let any = plan::Layout::resident(m, n, n_traces, u32::MAX);
    let of_plans: Vec<&str> =
        any.into_iter().chain([streamed, general]).flat_map(kernels_of).collect();
    let (layouts, rule) = match slots::is_general(network) {
        true => ([Some(general), None], Some(Arc::new(Equations::new(network)?))),
        false => ([Some(streamed), resident], None),
    };
    let mut texts = Vec::new();
    for layout in layouts.into_iter().flatten() {
        let (tile, rule) = (layout.tile(), rule.clone());
        let form = shader::Form { traces, n_traces: number(n_traces), tile, rule };
        let name = match layout {
            plan::Layout::Streamed { .. } => "streamed",
            plan::Layout::Resident(_) => "resident",
            plan::Layout::General { .. } => "general",
        };
        let own = kernels_of(layout);
        for kernel in kernels::ALL {
            let of_another = of_plans.contains(&kernel.stem) && !own.contains(&kernel.stem);
            if of_another || !slots::needs(network, kernel.stem) {
                continue;
            }
            let source = shader::Source::compose(kernel.stem, kernel.text, &form)?;
            texts.push((format!("{name}/{}.wgsl", kernel.stem), source.text));
        }
    }
    Ok(texts)
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

    fn program(&mut self, shape: Shape, want: Want) -> Result<Program> {
        if let Some(program) = self.programs.find(shape, want) {
            return Ok(program);
        }
        shape.validate(&self.network)?;
        check_memory("this batch", shape.host_bytes(&self.network, size_of::<f32>()))?;
        // what is let go of may be in use
        self.gpu().wait(None)?;
        self.programs.let_go(false);
        let modulated = self.network.stages.given_m;
        let prepared = self.make(shape, want, modulated).or_else(|error| {
            self.programs.let_go(true);
            match error {
                Error::Memory { .. } => self.make(shape, want, modulated),
                error => Err(error),
            }
        })?;
        self.gpu().check()?;
        let bytes = prepared.bytes;
        let mut made = Made([None, None]);
        made.0[usize::from(modulated)] = Some(prepared);
        Ok(self.programs.add(shape, want, bytes, made))
    }

    fn describe(&mut self, program: &Program) -> Result<Description> {
        let made = self.programs.take(program)?;
        let prepared = made.0.iter().flatten().next().expect("one of them is made with it");
        let description = self.description(prepared);
        self.programs.put(program, made);
        Ok(description)
    }

    fn set_parameters(&mut self, parameters: &Parameters<f32>) -> Result<()> {
        parameters.check(&self.network)?;
        self.mask.clone_from(&parameters.mask);
        self.added = None;
        let gpu = self.gpu();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for group in &self.groups {
            let values = self.on_device(group, parameters, &self.mask);
            gpu.queue.write_buffer(&group.parameters, 0, bytemuck::cast_slice(&values));
            encoder.clear_buffer(&group.first_moment, 0, None);
            encoder.clear_buffer(&group.second_moment, 0, None);
        }
        gpu.queue.submit([encoder.finish()]);
        gpu.check()
    }

    fn parameters(&mut self) -> Result<Parameters<f32>> {
        self.read_parameters()
    }

    fn state(&mut self) -> Result<State<f32>> {
        Ok(State {
            parameters: self.parameters()?,
            first: self.read_groups(|group| &group.first_moment)?,
            second: self.read_groups(|group| &group.second_moment)?,
            update: self.update,
        })
    }

    fn set_state(&mut self, state: &State<f32>) -> Result<()> {
        state.check(&self.network)?;
        self.gpu().wait(None)?;
        self.pending.clear();
        self.added = None;
        self.update = state.update;
        self.mask.clone_from(&state.parameters.mask);
        for group in &self.groups {
            for (buffer, values, mask) in [
                (&group.parameters, &state.parameters, &self.mask[..]),
                (&group.first_moment, &state.first, &[]),
                (&group.second_moment, &state.second, &[]),
            ] {
                let values = self.on_device(group, values, mask);
                self.gpu().queue.write_buffer(buffer, 0, bytemuck::cast_slice(&values));
            }
        }
        self.gpu().queue.submit([]);
        self.gpu().check()
    }

    fn run(
        &mut self,
        program: &Program,
        episodes: &Episodes<f32>,
        want: Want,
    ) -> Result<Outputs<f32>> {
        self.check(program, episodes, want)?;
        want.check_memory(&self.network, &episodes.shape, size_of::<f32>())?;
        self.aside(|engine| {
            let mut made = engine.programs.take(program)?;
            let outputs = engine.outputs(made.of(episodes), episodes, want);
            engine.programs.put(program, made);
            outputs
        })
    }

    fn backward(&mut self, program: &Program, episodes: &Episodes<f32>) -> Result<()> {
        self.check(program, episodes, Want::UPDATE)?;
        while self.in_flight.len() >= IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            self.gpu().wait(oldest)?;
        }
        let mut made = self.programs.take(program)?;
        let prepared = made.of(episodes);
        let result = self.train_on(prepared, episodes);
        let y_last = Some(prepared.buffers.y_last.clone());
        self.programs.put(program, made);
        self.in_flight.push_back(result?);
        self.added = Some(Added { y_last, n_batch: episodes.shape.n_batch });
        self.gpu().check()
    }

    fn gradients(&mut self) -> Result<Parameters<f32>> {
        match self.added {
            Some(_) => self.read_groups(|group| &group.gradient),
            None => Ok(Parameters::zeros(&self.network)),
        }
    }

    fn set_gradients(&mut self, gradients: &Parameters<f32>) -> Result<()> {
        gradients.check(&self.network)?;
        let queue = &self.gpu().queue;
        for group in &self.groups {
            let values = self.on_device(group, gradients, &[]);
            queue.write_buffer(&group.gradient, 0, bytemuck::cast_slice(&values));
            if self.added.is_none() {
                let zeros = vec![0.0_f32; group.n * REPORT];
                queue.write_buffer(&group.report, 0, bytemuck::cast_slice(&zeros));
            }
        }
        queue.submit([]);
        self.added.get_or_insert(Added { y_last: None, n_batch: 0 });
        self.gpu().check()
    }

    fn step(&mut self, step: StepSize) -> Result<()> {
        let added = self.added.take().ok_or_else(no_gradients)?;
        self.move_parameters(&added, step)?;
        self.update += 1;
        self.gpu().check()
    }

    fn wake(&mut self, held: &Held<f32>) -> Result<LifeId> {
        held.check(&self.network)?;
        let total = self.network.n_networks * held.n_memories;
        self.check_start(Some(&held.h), Some(&held.e))?;
        let words = words_of(self.trace_bytes()) * total;
        let rounded = self.context.options.traces == Storage::F16;
        let life = Living {
            n_memories: held.n_memories,
            y: self.context.buffer("life y", total * self.network.n_post)?,
            v: match self.leaks_by_membrane() {
                true => Some(self.context.buffer("life v", total * self.network.n_post)?),
                false => None,
            },
            traces: self.context.buffer("life traces", words)?,
            residual: match rounded {
                true => Some(self.context.buffer("life residual", 2 * words)?),
                false => None,
            },
            state: match self.variable_sizes().iter().sum::<usize>() {
                0 => None,
                numbers => Some(self.context.buffer("life state", total * numbers)?),
            },
        };
        self.write_memories(&life, held, 0..total)?;
        Ok(self.lives.add(life))
    }

    fn live(&mut self, id: LifeId, episodes: &Episodes<f32>, want: Want) -> Result<Outputs<f32>> {
        let needs = Want { traces: true, ..Want::default() };
        let program = self.program(episodes.shape, needs)?;
        self.check(&program, episodes, needs)?;
        let life = self.lives.take(id)?;
        let result = check_life(episodes, life.n_memories).and_then(|()| {
            self.aside(|engine| {
                let mut made = engine.programs.take(&program)?;
                let prepared = made.of(episodes);
                let outputs = engine.live_on(prepared, &life, episodes, want.activity);
                engine.programs.put(&program, made);
                outputs
            })
        });
        self.lives.put(id, life);
        result
    }

    fn held(&mut self, id: LifeId) -> Result<Held<f32>> {
        let life = self.lives.take(id)?;
        let held = self.read_life(&life);
        self.lives.put(id, life);
        held
    }

    fn set_back(&mut self, id: LifeId, memories: &[usize], to: &Held<f32>) -> Result<()> {
        let life = self.lives.take(id)?;
        let result = check_set_back(&self.network, life.n_memories, memories, to)
            .and_then(|()| self.check_start(Some(&to.h), Some(&to.e)))
            .and_then(|()| self.write_memories(&life, to, memories.iter().copied()));
        self.lives.put(id, life);
        result
    }

    fn rest(&mut self, id: LifeId) -> Result<()> {
        self.lives.take(id).map(|_| ())
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

    fn device_time(&self) -> Option<DeviceTime> {
        self.device_time.clone()
    }
}

fn words_of(bytes: u64) -> usize {
    usize::try_from(bytes / 4).expect("sizes were checked against the device's limits")
}

/// dL/dH(1) = alpha P(1), `[P, B, M, N]`.
fn lambda(
    network: &Network,
    parameters: &Parameters<f32>,
    episodes: &Episodes<f32>,
    mut p: Vec<f32>,
) -> Vec<f32> {
    let n = network.n_post;
    let (row, column) = network.alpha.strides(n);
    for (e, episode) in p.chunks_mut(network.n_connections()).enumerate() {
        let p = e / episodes.shape.n_batch;
        let alpha = parameters.get(p, Tensor::Alpha);
        let mask = parameters.mask.get(p * network.n_connections()..).unwrap_or_default();
        for (k, value) in episode.iter_mut().enumerate() {
            *value *= mask.get(k).unwrap_or(&1.0) * alpha[k / n * row + k % n * column];
        }
    }
    p
}

/// Numbers of a network's parameters on the device, with the mask.
fn stride(network: &Network, layout: &Layout) -> usize {
    layout.len() + if network.stages.masked { network.n_connections() } else { 0 }
}
