//! `hebbian doctor`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::cli::{quietly, shown};
use crate::engine::cpu::{self, instructions};
use crate::engine::gpu::{self, AdapterDescription, GpuEngine};
use crate::engine::{Device, Engine, Outputs, PlanChoice, Storage, Want, available_memory, open};
use crate::error::{Error, Result, bytes};
use crate::files;
use crate::model::{
    Activation, AlphaSharing, Episodes, Linear, Loss, NO_ROW, Network, Optimiser, Parameters, Rule,
    RuleText, Schedule, Shape, Sharing, Signals, Stages, StepSize, Tensor,
};
use crate::random::{Purpose, Stream};
use crate::rule::Program;

/// Looks at this machine: devices, drivers, what is missing, whether results are right
///
/// The kernels of every plan of every device are compared with the CPU in float64, then updates
/// are timed at three sizes.
#[derive(clap::Args)]
pub(super) struct Doctor {
    /// Leave out the timing
    #[arg(long)]
    quick: bool,
    /// Write the kernels' composed texts there and stop: of all plans, for 100 tanh neurons and the decay
    /// rule, of the general plan for the rule pre-trace, those of layers around them too, and for each
    /// device with its workgroup memory, and for a browser
    #[arg(long, value_name = "DIR", conflicts_with = "quick")]
    shaders: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Outputs, gradients and parameters may differ from f64 by this share of their norm.
const TOLERANCE: f64 = 2e-5;

/// Bytes of a workgroup's memory that browsers give.
const BROWSER_MEMORY: u32 = 32 << 10;

/// Rules that the general plan runs, with variables of both neurons, and what the trace predicts.
const TEXTS: [&str; 2] = ["pre-trace", "delta"];

/// (N, T, B) of the timed updates.
const SIZES: [(usize, usize, usize); 3] = [(101, 40, 16), (401, 40, 4), (1001, 40, 1)];

/// What was found about one device.
struct Finding {
    device: Device,
    name: String,
    about: String,
    /// The worst difference and where, or why the test could not run.
    test: std::result::Result<(f64, String), String>,
    /// Seconds per update at each of [`SIZES`], or at the first of them.
    seconds: Vec<f64>,
}

impl Finding {
    fn is_right(&self) -> bool {
        self.test.as_ref().is_ok_and(|(worst, _)| *worst <= TOLERANCE)
    }
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let adapters = quietly(gpu::list);
        if let Some(folder) = &self.shaders {
            return self.write_shaders(&adapters, folder);
        }
        let threads = rayon::current_num_threads();
        let cpu = format!("{threads} threads, {}", instructions());
        let mut findings = vec![self.look(Device::Cpu, "cpu".into(), cpu, &SIZES)];
        for a in &adapters {
            let software = if a.is_software() { ", software: the CPU imitates a GPU" } else { "" };
            let about = format!(
                "{} ({:?}, {} {}{software})",
                a.info.name, a.info.backend, a.info.driver, a.info.driver_info
            );
            // what the CPU imitates is no choice: the smallest size tells enough
            let sizes = if a.is_software() { &SIZES[..1] } else { &SIZES[..] };
            let device = Device::Gpu(Some(a.index));
            findings.push(self.look(device, format!("gpu:{}", a.index), about, sizes));
        }
        let advice = advice(&adapters);
        let right = findings.iter().all(Finding::is_right);
        if self.json {
            self.print_json(&findings, &advice, right);
        } else {
            self.print(&findings, &advice);
        }
        Ok(u8::from(!right))
    }

    fn write_shaders(&self, adapters: &[AdapterDescription], folder: &Path) -> anyhow::Result<u8> {
        let core = network(1, 100, Rule::Decay, AlphaSharing::PerConnection);
        let layer = Some(Linear { size: 10, bias: true });
        let stages = Stages { input: layer, output: layer, ..Stages::default() };
        let around = Network { stages, ..core.clone() };
        let rule = RuleText::new(Program::built_in(TEXTS[0])?, true);
        let stages = Stages { rule: Some(rule), ..Stages::default() };
        let own_rule = Network { rule: Rule::Custom, stages, ..core.clone() };
        let mut written = Vec::new();
        let each = adapters
            .iter()
            .map(|a| (format!("gpu-{}", a.index), a.limits.max_compute_workgroup_storage_size));
        for (device, memory) in each.chain([("browser".into(), BROWSER_MEMORY)]) {
            let mut texts = BTreeMap::new();
            for network in [&core, &around, &own_rule] {
                texts.extend(gpu::composed(network, Storage::F32, memory)?);
            }
            for (name, text) in texts {
                let path = folder.join(&device).join(name);
                let parent = path.parent().unwrap_or(folder);
                std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, "create", e))?;
                files::write(&path, text.as_bytes())?;
                written.push(shown(&path));
            }
        }
        if self.json {
            put!("{}", json!({ "schema": "hebbian.shaders/1", "files": written }));
        } else {
            put!("{} shaders of {} devices in {}", written.len(), adapters.len(), folder.display());
        }
        Ok(0)
    }

    /// Tests a device, and times it at some sizes.
    fn look(
        &self,
        device: Device,
        name: String,
        about: String,
        sizes: &[(usize, usize, usize)],
    ) -> Finding {
        if !self.json {
            super::talk(format_args!("{name}: comparing kernels with float64, timing ..."));
        }
        let test = self_test(device).map_err(|e| e.to_string());
        let sizes = if self.quick || test.is_err() { &[][..] } else { sizes };
        let seconds = sizes.iter().map_while(|&size| time(device, size).ok()).collect();
        Finding { device, name, about, test, seconds }
    }

    fn print(&self, findings: &[Finding], advice: &[String]) {
        if let Some(memory) = available_memory() {
            put!("memory   {} available", bytes(memory));
        }
        for finding in findings {
            put!("{:8} {}", finding.name, finding.about);
            match &finding.test {
                Ok((worst, place)) => put!(
                    "         kernels compared with float64: {}, worst {worst:.1e} ({place}), \
                     allowed {TOLERANCE:.0e}",
                    if finding.is_right() { "right" } else { "WRONG" }
                ),
                Err(why) => put!("         self-test failed: {why}"),
            }
            for ((n, t, b), seconds) in SIZES.iter().zip(&finding.seconds) {
                let speed = self.speed_up(findings, finding, (*n, *t, *b));
                put!(
                    "         N {n}, T {t}, B {b}: {seconds:.4} s an update{}",
                    speed.map_or(String::new(), |s| format!(", {s:.3} times the cpu's speed"))
                );
            }
        }
        put!("fastest  {}", fastest(findings));
        for text in advice {
            put!("missing  {text}");
        }
    }

    /// How much faster than the CPU at a size.
    fn speed_up(
        &self,
        findings: &[Finding],
        finding: &Finding,
        size: (usize, usize, usize),
    ) -> Option<f64> {
        let k = SIZES.iter().position(|&s| s == size)?;
        let cpu = findings.first()?.seconds.get(k)?;
        (finding.device != Device::Cpu).then_some(cpu / finding.seconds.get(k)?)
    }

    fn print_json(&self, findings: &[Finding], advice: &[String], right: bool) {
        let devices: Vec<_> = findings
            .iter()
            .map(|f| {
                let times: Vec<_> = SIZES
                    .iter()
                    .zip(&f.seconds)
                    .map(|(&(n, t, b), seconds)| {
                        json!({
                            "neurons": n,
                            "steps": t,
                            "batch": b,
                            "seconds_per_update": seconds,
                            "speed_up": self.speed_up(findings, f, (n, t, b)),
                        })
                    })
                    .collect();
                json!({
                    "device": f.name,
                    "about": f.about,
                    "right": f.is_right(),
                    "worst_error": f.test.as_ref().ok().map(|(worst, _)| worst),
                    "failure": f.test.as_ref().err(),
                    "times": times,
                })
            })
            .collect();
        put!(
            "{}",
            json!({
                "schema": "hebbian.doctor/1",
                "memory_available": available_memory(),
                "devices": devices,
                "fastest": fastest(findings),
                "missing": advice,
                "right": right,
            })
        );
    }
}

/// The device that takes least over the sizes, of those that are right.
fn fastest(findings: &[Finding]) -> String {
    let score = |f: &Finding| f.seconds.iter().map(|s| s.ln()).sum::<f64>();
    let timed = findings.iter().filter(|f| f.is_right() && f.seconds.len() == SIZES.len());
    timed
        .min_by(|a, b| score(a).total_cmp(&score(b)))
        .map_or("not timed".into(), |f| format!("--device {}", f.name))
}

/// What this system lacks, and the command that gets it.
fn advice(adapters: &[AdapterDescription]) -> Vec<String> {
    let mut advice = Vec::new();
    let hardware = adapters.iter().any(|a| !a.is_software());
    if adapters.is_empty() {
        advice.push(format!("a Vulkan driver; {}", driver_command()));
    }
    if !hardware {
        if Path::new("/proc/driver/nvidia/version").exists() {
            let what = "the Vulkan part of the NVIDIA driver (libGLX_nvidia, nvidia_icd.json)";
            advice.push(format!("{what}: reinstall the driver with its graphics libraries"));
        } else if Path::new("/dev/dri/renderD128").exists() {
            advice.push(format!("the Vulkan driver of the GPU here; {}", driver_command()));
        } else if !adapters.is_empty() {
            advice.push("a hardware GPU: there is none, the CPU is the device to use".into());
        }
    }
    advice
}

/// How this system installs Mesa's Vulkan drivers (AMD, Intel, software).
fn driver_command() -> String {
    let commands = [
        ("/usr/bin/apt-get", "sudo apt-get install -y mesa-vulkan-drivers libvulkan1"),
        ("/usr/bin/dnf", "sudo dnf install -y mesa-vulkan-drivers vulkan-loader"),
        ("/usr/bin/pacman", "sudo pacman -S vulkan-swrast vulkan-icd-loader"),
        ("/usr/bin/zypper", "sudo zypper install -y Mesa-libVulkan-devel libvulkan1"),
    ];
    let command = commands.iter().find(|(tool, _)| Path::new(tool).exists());
    command.map_or("install a Vulkan driver and loader for it".into(), |(_, command)| {
        format!("to get one: {command}")
    })
}

/// A job of random numbers.
struct Job {
    network: Network,
    parameters: Parameters<f32>,
    episodes: Episodes<f32>,
}

impl Job {
    fn new(network: Network, (b, t): (usize, usize)) -> Self {
        let (p, m, n) = (network.n_networks, network.n_pre, network.n_post);
        let mut stream = Stream::new(7, Purpose::Parameters, 0, 0);
        #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
        let mut normals = |len: usize, size: f64| -> Vec<f32> {
            (0..len).map(|_| (size * stream.normal()) as f32).collect()
        };
        #[expect(clippy::cast_precision_loss, reason = "a size")]
        let spread = 0.5 / (m as f64).sqrt();
        let mut parameters = Parameters::zeros(&network);
        for k in 0..p {
            let rule = network.stages.rule.as_ref();
            let of_rule = (0..rule.map_or(0, |rule| rule.per.len())).map(Tensor::OfRule);
            for tensor in Tensor::ALL.into_iter().chain(of_rule) {
                let values = parameters.get_mut(k, tensor);
                let drawn = normals(values.len(), spread);
                for (value, drawn) in values.iter_mut().zip(drawn) {
                    let rate = matches!(tensor, Tensor::Eta | Tensor::OfRule(_));
                    *value = if rate { 0.1 } else { drawn };
                }
            }
        }
        let clamped = network.alpha == AlphaSharing::PerNeuron;
        let rows = 3;
        let clamps = clamped.then(|| {
            normals(p * b * rows * n, 1.0).iter().map(|&v| f32::from(u8::from(v > 0.8))).collect()
        });
        let stimuli = normals(p * b * rows * n, 1.0);
        let mut targets = normals(p * b * n, 1.0);
        if network.loss != Loss::Squared {
            // a logarithm's are shares
            targets.iter_mut().for_each(|target| *target = target.abs().min(1.0));
        }
        let pre = (!network.recurrent).then(|| normals(p * b * t * m, 1.0));
        let step = |k: usize| u32::try_from(k).unwrap_or(0);
        let shown = (0..p * b * t).map(|k| step(k % t * rows / t)).collect();
        let scored = (0..p * b * t).map(|k| if k % t + 1 == t { 0 } else { NO_ROW }).collect();
        let episodes = Episodes {
            shape: Shape { n_batch: b, n_steps: t, n_stimuli: rows, n_targets: 1, clamped },
            stimuli,
            clamps,
            shown,
            targets,
            loss_weights: vec![1.0; p * b * n],
            scored,
            pre,
            y0: None,
            h0: None,
            e0: None,
            signals: match network.stages.general {
                true => Signals {
                    reset: Some((0..p * b * t).map(|k| f32::from(u8::from(k % 7 == 4))).collect()),
                    truncate: Some(3),
                    ..Signals::default()
                },
                false => Signals::default(),
            },
        };
        Job { network, parameters, episodes }
    }
}

fn network(n_networks: usize, neurons: usize, rule: Rule, alpha: AlphaSharing) -> Network {
    Network {
        n_networks,
        n_pre: neurons,
        n_post: neurons,
        recurrent: true,
        rule,
        activation: Activation::Tanh,
        loss: Loss::Squared,
        clip: None,
        alpha,
        eta: Sharing::PerNetwork,
        stages: Stages::default(),
    }
}

/// Engines of one device, opened once.
enum Opened {
    Cpu,
    Gpu(gpu::Context),
}

impl Opened {
    fn new(device: Device) -> Result<Self> {
        match device {
            Device::Gpu(index) => {
                let options = gpu::Options { index, ..gpu::Options::default() };
                Ok(Opened::Gpu(quietly(|| gpu::Context::new(options))?))
            }
            Device::Cpu | Device::Auto => Ok(Opened::Cpu),
        }
    }

    /// An engine for every plan that the device has.
    fn engines(&self, network: &Network) -> Result<Vec<Box<dyn Engine<f32>>>> {
        match self {
            Opened::Cpu => Ok(vec![cpu::open(network)?]),
            Opened::Gpu(context) => {
                let choices = match network.rule == Rule::Custom || network.stages.general {
                    true => &[PlanChoice::Auto][..],
                    false => &[PlanChoice::Resident, PlanChoice::Streamed],
                };
                let engines = choices.iter().map(|&plan| {
                    let context = context.with(plan, Storage::F32);
                    Ok(Box::new(GpuEngine::new(&context, network)?) as Box<dyn Engine<f32>>)
                });
                engines.collect()
            }
        }
    }
}

/// The worst difference from float64 over jobs that together take every plan, and where.
fn self_test(device: Device) -> Result<(f64, String)> {
    let mut worst = (0.0, "nowhere".to_string());
    let opened = Opened::new(device)?;
    let mut look = |network: Network, many: bool| -> Result<()> {
        // many episodes lie side by side in the CPU's vectors
        let n_batch = if many && matches!(opened, Opened::Cpu) { 33 } else { 3 };
        let job = Job::new(network, (n_batch, 10));
        for mut engine in opened.engines(&job.network)? {
            for (what, error) in job.errors(&mut *engine)? {
                // what is not a number is worst of all
                if error.is_nan() || error > worst.0 {
                    let Network { rule, activation, .. } = job.network;
                    let place = format!("{what}, {} and {}", rule.name(), activation.name());
                    worst = (if error.is_nan() { f64::INFINITY } else { error }, place);
                }
            }
        }
        Ok(())
    };
    for rule in Rule::ALL {
        for alpha in AlphaSharing::ALL {
            for (clip, recurrent) in [(None, true), (Some(0.5), true), (None, false)] {
                // the CPU takes longer windows of a large one
                let large = matches!(opened, Opened::Cpu)
                    && recurrent
                    && clip.is_none()
                    && alpha == AlphaSharing::PerConnection;
                let (n_networks, n) = if large { (1, 373) } else { (2, 21) };
                let network = Network { clip, recurrent, ..network(n_networks, n, rule, alpha) };
                look(network, !large)?;
            }
        }
    }
    for name in TEXTS {
        let text = RuleText::new(Program::built_in(name)?, true);
        let stages = Stages { rule: Some(text), ..Stages::default() };
        let network = network(2, 21, Rule::Custom, AlphaSharing::PerConnection);
        look(Network { stages, ..network }, false)?;
    }
    // of several tiles, and lives that are cut
    let stages = Stages { general: true, ..Stages::default() };
    look(Network { stages, ..network(1, 70, Rule::Retroactive, AlphaSharing::PerNeuron) }, false)?;
    for (activation, loss) in [
        (Activation::Sigmoid, Loss::Bce),
        (Activation::Softmax, Loss::CrossEntropy),
        (Activation::Relu, Loss::Squared),
        (Activation::Linear, Loss::Squared),
    ] {
        let network = network(2, 21, Rule::Decay, AlphaSharing::PerNetwork);
        // without a clip y may grow without a bound
        look(Network { activation, loss, clip: Some(0.5), ..network }, false)?;
    }
    Ok(worst)
}

impl Job {
    /// How far an engine is from float64: outputs, gradients, each optimiser's step.
    fn errors(&self, engine: &mut dyn Engine<f32>) -> Result<Vec<(&'static str, f64)>> {
        let mut exact = cpu::open::<f64>(&self.network)?;
        let (parameters, episodes) = (self.parameters.widened(), self.episodes.widened());
        engine.set_parameters(&self.parameters)?;
        exact.set_parameters(&parameters)?;
        let want = Want { activity: true, traces: true, gradients: true };
        let found = engine.evaluate(&self.episodes, want)?;
        let wanted = exact.evaluate(&episodes, want)?;
        let mut errors = compare(&found, &wanted);
        for optimiser in [Optimiser::adam(), Optimiser::Sgd { momentum: 0.9 }] {
            engine.set_parameters(&self.parameters)?;
            exact.set_parameters(&parameters)?;
            let schedule = Schedule { rate: 1e-3, decay: 1.0, every: 1, max_norm: 1.0 };
            let step = StepSize::at(optimiser, &schedule, 0);
            engine.update(&self.episodes, step)?;
            exact.update(&episodes, step)?;
            engine.reports(true)?;
            exact.reports(true)?;
            let (found, wanted) = (engine.parameters()?, exact.parameters()?);
            errors.push(("optimiser", difference(found.values(), wanted.values())));
        }
        Ok(errors)
    }
}

fn compare(found: &Outputs<f32>, wanted: &Outputs<f64>) -> Vec<(&'static str, f64)> {
    let mut errors = vec![
        ("y", difference(&found.y, &wanted.y)),
        ("h", difference(&found.h, &wanted.h)),
        ("loss", difference(&found.loss, &wanted.loss)),
    ];
    if let (Some(found), Some(wanted)) = (&found.gradients, &wanted.gradients) {
        let (f, w) = (found.parameters.values(), wanted.parameters.values());
        errors.push(("gradient", difference(f, w)));
        errors.push(("gradient of the input", difference(&found.input, &wanted.input)));
        errors.push(("gradient of the trace", difference(&found.h0, &wanted.h0)));
    }
    errors
}

/// Norm of the difference over norm of `wanted` (over 1 where that is zero).
fn difference(found: &[f32], wanted: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let size = square(&mut wanted.iter().copied()).sqrt();
    let each = found.iter().zip(wanted).map(|(&a, &b)| f64::from(a) - b);
    let error = square(&mut { each }).sqrt();
    if size > 0.0 { error / size } else { error }
}

/// The least of three times of an update.
fn time(device: Device, (n, t, b): (usize, usize, usize)) -> Result<f64> {
    let network = network(1, n, Rule::Decay, AlphaSharing::PerConnection);
    let job = Job::new(network, (b, t));
    let mut engine = open(device, &job.network)?;
    engine.set_parameters(&job.parameters)?;
    let schedule = Schedule { rate: 1e-4, decay: 1.0, every: 1, max_norm: 0.0 };
    let mut best = f64::INFINITY;
    for update in 0..4 {
        let begun = Instant::now();
        engine.update(&job.episodes, StepSize::at(Optimiser::adam(), &schedule, update))?;
        engine.reports(true)?;
        // the first one prepares
        if update > 0 {
            best = best.min(begun.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}
