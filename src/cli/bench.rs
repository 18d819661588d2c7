//! `hebbian bench`.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::cli::quietly;
use crate::cli::{Common, Layout};
use crate::engine::cpu::{self, limits};
use crate::engine::gpu::GpuEngine;
use crate::engine::{Description, Device, Engine, PlanDescription, Want, Work, gpu, reference};
use crate::error::Error;
use crate::model::{
    Activation, AlphaSharing, Episodes, Loss, NO_ROW, Network, Optimiser, Parameters, RuleText,
    Schedule, Shape, Sharing, Signals, Stages, StepSize, Tensor,
};
use crate::random::{Purpose, Stream};
use crate::task::NetworkConfig;
use crate::train::{TASKS, resolve, train};

/// Seconds per update (forward, backward, Adam), memory, share of the device's limit
///
/// First compares outputs and gradients of a small batch with the CPU engine in f64; a
/// device that fails is not timed.
#[derive(clap::Args)]
pub(super) struct Bench {
    /// N, recurrent
    #[arg(long, default_value_t = 1001)]
    neurons: usize,
    /// T
    #[arg(long, default_value_t = 106)]
    steps: usize,
    /// B
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// P
    #[arg(long, default_value_t = 1)]
    networks: usize,
    /// A plasticity rule by its name (`hebbian rule list`), or a file with a rule's text
    #[arg(long, default_value = "decay", value_name = "NAME|FILE")]
    rule: String,
    /// Sharing of alpha: connection, neuron or network
    #[arg(long, default_value = "connection")]
    alpha: String,
    /// Time batches forward alone too, with nothing kept for a backward pass
    #[arg(long)]
    forward: bool,
    /// Clips the trace to [-CLIP, CLIP]
    #[arg(long)]
    clip: Option<f64>,
    /// Timed updates, after three that are not
    #[arg(long, default_value_t = 7)]
    updates: u32,
    /// Time each kernel of a GPU by itself; whole updates take longer so
    #[arg(long)]
    kernels: bool,
    /// Time whole training updates of a task instead, with its episodes made or played
    #[arg(long, value_name = "TASK", value_parser = TASKS, hide_possible_values = true)]
    #[arg(conflicts_with_all = ["neurons", "steps", "batch", "networks", "rule", "alpha", "clip"])]
    #[arg(conflicts_with_all = ["forward", "kernels", "count"])]
    task: Option<String>,
    /// The task's preset
    #[arg(long, requires = "task")]
    preset: Option<String>,
    /// Changes one of the task's settings, such as batch=8
    #[arg(long, requires = "task", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Count what an update takes on a GPU, by the plan asked for; run nothing
    #[arg(long)]
    count: bool,
    #[command(flatten)]
    common: Common,
}

/// Stimuli per episode, as in the patterns task.
const N_STIMULI: usize = 7;

/// Updates that compile, load and calibrate.
const UNTIMED: u64 = 3;

impl Bench {
    fn network(&self, neurons: usize, networks: usize) -> anyhow::Result<Network> {
        let mut settings = NetworkConfig { rule: self.rule.clone(), ..NetworkConfig::paper() };
        settings.read_rule()?;
        let (rule, program) = settings.rule()?;
        let by_name = settings.rule_text.is_empty();
        let stages = Stages {
            rule: program.map(|program| RuleText::new(program, by_name)),
            ..Stages::default()
        };
        Ok(Network {
            n_networks: networks,
            n_pre: neurons,
            n_post: neurons,
            recurrent: true,
            rule,
            activation: Activation::Tanh,
            loss: Loss::Squared,
            clip: self.clip,
            alpha: AlphaSharing::from_name(&self.alpha)?,
            eta: Sharing::PerNetwork,
            stages,
        })
    }

    pub(super) fn run(self) -> anyhow::Result<u8> {
        let n = self.neurons;
        let network = self.network(n, self.networks)?;
        let shape = shape(self.batch, self.steps);
        shape.validate(&network)?;
        if self.updates == 0 {
            return Err(Error::value("--updates", "0", "at least 1").into());
        }
        if let Some(task) = &self.task {
            return self.time_task(task);
        }
        if self.count {
            return self.print_count(&network, &shape);
        }
        let mut engine = self.engine(&network)?;
        let program = engine.program(shape, Want::UPDATE)?;
        let description = engine.describe(&program)?;
        let worst = self.worst_error(&description)?;
        if worst > self.tolerance() {
            let (found, most) = (format!("{worst:.1e} from float64"), self.tolerance());
            self.common.say(format_args!("wrong results, not timed: {found}, at most {most:.0e}"));
            if self.common.json {
                let schema = "hebbian.bench/1";
                put!("{}", serde_json::json!({ "schema": schema, "worst_error": worst }));
            }
            return Ok(1);
        }
        let episodes = episodes(&network, shape);
        self.common.warn_if_software(&description);
        engine.set_parameters(&parameters(&network))?;

        let schedule = Schedule { rate: 1e-4, decay: 1.0, every: 1, max_norm: 0.0 };
        let (mut seconds, mut on_device, mut in_passes) = (Vec::new(), Vec::new(), Vec::new());
        let mut kernels = Vec::new();
        for update in 0..UNTIMED + u64::from(self.updates) {
            let start = Instant::now();
            engine.backward(&program, &episodes)?;
            engine.step(StepSize::at(Optimiser::adam(), &schedule, update))?;
            engine.reports(true)?;
            if update >= UNTIMED {
                seconds.push(start.elapsed().as_secs_f64());
                if let Some(time) = engine.device_time() {
                    on_device.push(time.seconds);
                    in_passes.push(time.in_passes);
                    kernels = time.kernels;
                }
            }
        }
        let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let n_timed = seconds.len();
        let median = median_of(seconds).expect("one update or more");
        let (on_device, in_passes) = (median_of(on_device), median_of(in_passes));
        let element_steps = [n, n, self.steps, self.batch, self.networks];
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = element_steps.iter().map(|&k| k as f64).product::<f64>() / median;
        let peak = peak_memory();
        // a GPU's dispatches are as long as its speed allows, which is known by now
        let description = engine.describe(&program)?;
        let forward = if self.forward { Some(self.forward(&network, &episodes)?) } else { None };
        let limit = match self.gpu_limits()? {
            Some(limits) => Limit::of_gpu(limits),
            None => Limit::of_cpu(&network),
        };
        let shares = description.work.map(|work| limit.shares(work, median));
        if self.common.json {
            let answer = serde_json::json!({
                "schema": "hebbian.bench/1",
                "neurons": n,
                "steps": self.steps,
                "batch": self.batch,
                "networks": self.networks,
                "rule": self.rule,
                "alpha": self.alpha,
                "seconds_per_forward": forward.map(|(seconds, _)| seconds),
                "planned_memory_forward_bytes": forward.map(|(_, bytes)| bytes),
                "clip": self.clip,
                "device": description.device,
                "plan": description.plan.to_string(),
                "worst_error": worst,
                "seconds_per_update": median,
                "seconds_best": best,
                "seconds_on_device": on_device,
                "seconds_in_passes": in_passes,
                "kernels": kernels.iter().map(|k| serde_json::json!({
                    "kernel": k.kernel, "passes": k.passes, "seconds": k.seconds,
                })).collect::<Vec<_>>(),
                "element_steps_per_second": rate,
                "peak_memory_bytes": peak,
                "planned_memory_bytes": description.memory_needed,
                "bytes_moved": description.work.map(|w| w.bytes),
                "multiply_adds": description.work.map(|w| w.multiply_adds),
                "dispatches": description.work.map(|w| w.dispatches),
                "bandwidth": limit.bandwidth,
                "multiply_adds_per_second": limit.multiply_adds,
                "dispatch_gap_seconds": limit.dispatch_gap,
                "share_of_bandwidth": shares.map(|s| s.0),
                "share_of_multiply_adds": shares.map(|s| s.1),
            });
            put!("{answer}");
            return Ok(0);
        }
        put!(
            "{median:.4} s per update (median of {}, best {:.4}), {rate:.3e} element-steps/s, \
             peak memory {}",
            n_timed,
            best,
            peak.map_or("unknown".into(), crate::error::bytes),
        );
        if let Some((seconds, memory)) = forward {
            put!(
                "{seconds:.4} s forward alone, {:.2} of an update, {} planned",
                seconds / median,
                crate::error::bytes(memory)
            );
        }
        if let (Some(seconds), Some(in_passes)) = (on_device, in_passes) {
            put!(
                "{seconds:.4} s from the first dispatch to the last by the device's clock, \
                 {in_passes:.4} s within submissions",
            );
        }
        if self.kernels && kernels.is_empty() {
            self.common.say(format_args!(
                "kernels: not timed; the device has no clock, or an update has more dispatches than \
                 it can time"
            ));
        }
        for k in &kernels {
            put!("{:18} {:5} passes, {:.6} s", k.kernel, k.passes, k.seconds);
        }
        if let Some((bandwidth, multiply_adds)) = shares {
            put!(
                "{:.0} % of the {} bandwidth of {:.0} GB/s, {:.0} % of {:.0} G multiply-adds/s",
                100.0 * bandwidth,
                if limit.dispatch_gap.is_some() { "copy" } else { "read" },
                limit.bandwidth / 1e9,
                100.0 * multiply_adds,
                limit.multiply_adds / 1e9,
            );
        }
        if let (Some(gap), Some(work)) = (limit.dispatch_gap, description.work) {
            put!("{} dispatches, {:.1} microseconds apart", work.dispatches, 1e6 * gap);
        }
        self.common.say(format_args!(
            "{}: {}; worst error against float64 {worst:.1e}",
            description.device, description.plan
        ));
        Ok(0)
    }

    /// Times whole training updates of a task.
    fn time_task(&self, name: &str) -> anyhow::Result<u8> {
        let mut config =
            resolve(name, self.preset.as_deref(), None, &self.set, toml::Table::new())?;
        config.updates = UNTIMED + u64::from(self.updates);
        (config.log_every, config.eval_every) = (1, 0);
        let task = config.task()?;
        let mut engine = self.engine(&task.network())?;
        engine.set_parameters(&config.initial(&*task)?)?;
        let program = engine.program(task.shape(config.batch), Want::UPDATE)?;
        let description = engine.describe(&program)?;
        self.common.warn_if_software(&description);
        let mut ends = Vec::new();
        train(&config, &*task, &mut *engine, &AtomicBool::new(false), |record| {
            ends.push(record.seconds);
            Ok(())
        })?;
        let timed = ends.windows(2).skip(2).map(|pair| pair[1] - pair[0]).collect();
        let median = median_of(timed).expect("one update or more");
        let shape = task.shape(config.batch);
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = (config.batch * config.networks) as f64 / median;
        if self.common.json {
            let answer = serde_json::json!({
                "schema": "hebbian.bench-task/1",
                "task": name,
                "neurons": task.network().n_post,
                "steps": shape.n_steps,
                "batch": config.batch,
                "networks": config.networks,
                "device": description.device,
                "plan": description.plan.to_string(),
                "seconds_per_update": median,
                "episodes_per_second": rate,
                "peak_memory_bytes": peak_memory(),
            });
            put!("{answer}");
            return Ok(0);
        }
        put!(
            "{name}: {median:.4} s per update (median of {}), {rate:.1} episodes/s, peak memory {}",
            self.updates,
            peak_memory().map_or("unknown".into(), crate::error::bytes),
        );
        Ok(0)
    }

    /// Median seconds of a batch forward alone, on an engine of its own, and the memory that is
    /// planned for it.
    fn forward(&self, network: &Network, episodes: &Episodes<f32>) -> anyhow::Result<(f64, u64)> {
        let mut engine = self.engine(network)?;
        engine.set_parameters(&parameters(network))?;
        let want = Want::default();
        let program = engine.program(episodes.shape, want)?;
        let memory = engine.describe(&program)?.memory_needed;
        let mut seconds = Vec::new();
        for run in 0..UNTIMED + u64::from(self.updates) {
            let start = Instant::now();
            engine.run(&program, episodes, want)?;
            if run >= UNTIMED {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        Ok((median_of(seconds).expect("one or more"), memory))
    }

    fn print_count(&self, network: &Network, shape: &Shape) -> anyhow::Result<u8> {
        network.validate()?;
        let (choice, traces) = self.common.layout.choices()?;
        let (plan, work) = gpu::count(network, shape, choice, traces)?;
        if self.common.json {
            let answer = serde_json::json!({
                "schema": "hebbian.bench.count/1",
                "neurons": self.neurons,
                "steps": self.steps,
                "batch": self.batch,
                "networks": self.networks,
                "plan": plan.to_string(),
                "bytes_moved": work.bytes,
                "multiply_adds": work.multiply_adds,
                "dispatches": work.dispatches,
            });
            put!("{answer}");
        } else {
            put!(
                "{plan}: {} moved, {:.3e} multiply-adds, {} dispatches an update",
                crate::error::bytes(work.bytes),
                work.multiply_adds as f64,
                work.dispatches
            );
        }
        Ok(0)
    }

    /// Outputs and gradients may differ from f64 by this share of the largest element: f32's
    /// own rounding, or a trace rounded to 11 bits at each window's start.
    fn tolerance(&self) -> f64 {
        if self.common.layout.traces.as_deref() == Some("f16") { 1e-3 } else { 2e-5 }
    }

    /// The engine that is timed.
    fn engine(&self, network: &Network) -> anyhow::Result<Box<dyn Engine<f32>>> {
        if !self.kernels {
            return Ok(self.common.open(network)?);
        }
        let Some(index) = Device::from_name(&self.common.device)?.adapter() else {
            return Err(Error::value("--kernels", "for the CPU", "a GPU, which has kernels").into());
        };
        let (plan, traces) = self.common.layout.choices()?;
        let options =
            gpu::Options { index: Some(index), profile: true, plan, traces, ..Default::default() };
        Ok(Box::new(GpuEngine::new(&quietly(|| gpu::Context::new(options))?, network)?))
    }

    /// Limits of the device, where it is a GPU.
    fn gpu_limits(&self) -> anyhow::Result<Option<gpu::limits::Limits>> {
        let Some(index) = Device::from_name(&self.common.device)?.adapter() else {
            return Ok(None);
        };
        let context = quietly(|| {
            gpu::Context::new(gpu::Options { index: Some(index), ..gpu::Options::default() })
        })?;
        Ok(Some(context.measure()?))
    }

    /// The largest difference from the CPU engine in f64, of y, loss and the gradients of the
    /// parameters, each as a share of its largest element; at an odd size, by the plan that
    /// is timed.
    fn worst_error(&self, timed: &Description) -> anyhow::Result<f64> {
        let plan = match timed.plan {
            PlanDescription::Resident { .. } => Some("resident"),
            PlanDescription::Streamed { .. } => Some("streamed"),
            _ => None,
        };
        let layout = Layout { plan: plan.map(Into::into), ..self.common.layout.clone() };
        let want = Want { gradients: true, activity: true, traces: false };
        let (mut network, mut shape) = (self.network(37, 3)?, shape(3, 17));
        // the CPU chooses by size: N, P, B
        for (neurons, networks, batch) in [(37, 1, 33), (97, 1, 1), (373, 1, 1)] {
            let other = (self.network(neurons, networks)?, Shape { n_batch: batch, ..shape });
            let mut engine = cpu::open::<f32>(&other.0)?;
            let program = engine.program(other.1, want)?;
            if timed.plan.is_like(&engine.describe(&program)?.plan) {
                (network, shape) = other;
                break;
            }
        }
        let (episodes, parameters) = (episodes(&network, shape), parameters(&network));
        let mut engine = layout.open(&self.common.device, &network)?;
        engine.set_parameters(&parameters)?;
        let found = engine.evaluate(&episodes, want)?;
        let (wide, exact) = (parameters.widened(), episodes.widened());
        let wanted = reference::run(&network, &wide, &exact, want)?;
        let mut worst =
            worst_share(&found.y, &wanted.y).max(worst_share(&found.loss, &wanted.loss));
        if let (Some(found), Some(wanted)) = (&found.gradients, &wanted.gradients) {
            // networks together: the terms of a single number can cancel in one of them
            for entry in found.parameters.layout().entries() {
                let tensor = entry.tensor;
                let found: Vec<f32> = (0..network.n_networks)
                    .flat_map(|p| found.parameters.get(p, tensor).to_vec())
                    .collect();
                let wanted: Vec<f64> = (0..network.n_networks)
                    .flat_map(|p| wanted.parameters.get(p, tensor).to_vec())
                    .collect();
                worst = worst.max(worst_share(&found, &wanted));
            }
        }
        Ok(worst)
    }
}

/// None of none.
fn median_of(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = [values.len().checked_sub(1)? / 2, values.len() / 2];
    Some(f64::midpoint(values[middle[0]], values[middle[1]]))
}

/// Infinite where a number is not finite.
fn worst_share(found: &[f32], wanted: &[f64]) -> f64 {
    let scale = wanted.iter().fold(f64::MIN_POSITIVE, |scale, w| scale.max(w.abs()));
    found.iter().zip(wanted).fold(0.0, |worst: f64, (&f, &w)| {
        let error = (f64::from(f) - w).abs() / scale;
        if error.is_finite() { worst.max(error) } else { f64::INFINITY }
    })
}

/// What the device can do, measured.
struct Limit {
    bandwidth: f64,
    multiply_adds: f64,
    /// Between dispatches, of a GPU.
    dispatch_gap: Option<f64>,
}

impl Limit {
    /// Bytes read a second from buffers as large as the matrices that a step reads (w, alpha
    /// and a trace, shared by the threads where they share an episode).
    fn of_cpu(network: &Network) -> Self {
        let threads = rayon::current_num_threads();
        let matrices = 3 * 4 * network.n_connections();
        let bytes = if matrices > 2 << 20 { matrices / threads } else { matrices };
        Limit {
            bandwidth: limits::read_bandwidth(bytes.max(1 << 12)),
            multiply_adds: limits::multiply_adds(),
            dispatch_gap: None,
        }
    }

    fn of_gpu(limits: gpu::limits::Limits) -> Self {
        Limit {
            bandwidth: limits.copy_bandwidth,
            multiply_adds: limits.multiply_adds,
            dispatch_gap: Some(limits.dispatch_gap),
        }
    }

    /// Shares of both that an update reaches.
    #[expect(clippy::cast_precision_loss, reason = "shares")]
    fn shares(&self, work: Work, seconds: f64) -> (f64, f64) {
        (
            work.bytes as f64 / self.bandwidth / seconds,
            work.multiply_adds as f64 / self.multiply_adds / seconds,
        )
    }
}

fn shape(n_batch: usize, n_steps: usize) -> Shape {
    Shape { n_batch, n_steps, n_stimuli: N_STIMULI, n_targets: 1, clamped: false }
}

/// Signs for stimuli (too small to saturate, so that no gradient is zero), a target at the
/// last step.
fn episodes(network: &Network, shape: Shape) -> Episodes<f32> {
    let (n, t) = (network.n_post, shape.n_steps);
    let total = network.n_networks * shape.n_batch;
    let mut stream = Stream::new(0, Purpose::Training, 0, 0);
    let mut signs = |len: usize, size: f32| -> Vec<f32> {
        (0..len).map(|_| if stream.next_u32() & 1 == 0 { size } else { -size }).collect()
    };
    let stimuli = signs(total * N_STIMULI * n, 1.0);
    let targets = signs(total * n, 1.0);
    let rows = (0..).take(N_STIMULI);
    let mut scored = vec![NO_ROW; total * t];
    for last in scored.iter_mut().skip(t.saturating_sub(1)).step_by(t.max(1)) {
        *last = 0;
    }
    Episodes {
        shape,
        stimuli,
        clamps: None,
        shown: rows.cycle().take(total * t).collect(),
        targets,
        loss_weights: vec![1.0; total * n],
        scored,
        pre: None,
        y0: None,
        h0: None,
        e0: None,
        signals: Signals::default(),
    }
}

fn parameters(network: &Network) -> Parameters<f32> {
    let mut parameters = Parameters::zeros(network);
    for p in 0..network.n_networks {
        let mut stream = Stream::new(0, Purpose::Parameters, u32::try_from(p).unwrap_or(0), 0);
        for entry in parameters.layout().clone().entries() {
            let start = match (entry.tensor, &network.stages.rule) {
                (Tensor::Eta, _) => Some(0.01),
                (Tensor::OfRule(k), Some(rule)) => Some(rule.program.parameters()[k].init),
                _ => None,
            };
            for value in parameters.get_mut(p, entry.tensor) {
                let number = start.unwrap_or_else(|| 0.01 * stream.normal());
                #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
                {
                    *value = number as f32;
                }
            }
        }
    }
    parameters
}

/// The most memory that this process held, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
