//! `hebbian bench`.

use std::time::Instant;

use crate::cli::Common;
use crate::engine::{Device, Want, open};
use crate::model::{
    Activation, AlphaSharing, Episodes, EtaSharing, Loss, NO_ROW, Network, Optimiser, Parameters,
    Rule, Schedule, Shape, StepSize, Tensor,
};
use crate::random::{Purpose, Stream};

/// Seconds per update (forward, backward, Adam) and peak memory
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
    /// none, decay, oja, modulated or retroactive
    #[arg(long, default_value = "decay")]
    rule: String,
    /// Timed updates, after two that are not
    #[arg(long, default_value_t = 7)]
    updates: u32,
    #[command(flatten)]
    common: Common,
}

/// Stimuli per episode, as in the patterns task.
const N_STIMULI: usize = 7;

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let n = self.neurons;
        let network = Network {
            n_networks: self.networks,
            n_pre: n,
            n_post: n,
            recurrent: true,
            rule: Rule::from_name(&self.rule)?,
            activation: Activation::Tanh,
            loss: Loss::Squared,
            clip: None,
            alpha: AlphaSharing::PerConnection,
            eta: EtaSharing::PerNetwork,
        };
        let mut engine = open(Device::from_name(&self.common.device)?, &network)?;
        let shape = Shape {
            n_batch: self.batch,
            n_steps: self.steps,
            n_stimuli: N_STIMULI,
            n_targets: 1,
            clamped: false,
        };
        let want = Want { gradients: true, ..Want::default() };
        let description = engine.prepare(shape, want)?;
        let episodes = episodes(&network, shape);
        self.common.warn_if_software(&description);
        engine.set_parameters(&parameters(&network))?;

        let schedule = Schedule { rate: 1e-4, decay: 1.0, every: 1, max_norm: 0.0 };
        let mut seconds = Vec::new();
        for update in 0..2 + u64::from(self.updates.max(1)) {
            let start = Instant::now();
            engine.update(&episodes, StepSize::at(Optimiser::adam(), &schedule, update))?;
            engine.reports(true)?;
            if update >= 2 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        seconds.sort_by(f64::total_cmp);
        let median = f64::midpoint(seconds[(seconds.len() - 1) / 2], seconds[seconds.len() / 2]);
        let element_steps = [n, n, self.steps, self.batch, self.networks];
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = element_steps.iter().map(|&k| k as f64).product::<f64>() / median;
        let peak = peak_memory();
        if self.common.json {
            let answer = serde_json::json!({
                "schema": "hebbian.bench/1",
                "neurons": n,
                "steps": self.steps,
                "batch": self.batch,
                "networks": self.networks,
                "rule": self.rule,
                "device": description.device,
                "plan": description.plan,
                "seconds_per_update": median,
                "seconds_best": seconds[0],
                "element_steps_per_second": rate,
                "peak_memory_bytes": peak,
                "planned_memory_bytes": description.memory_needed,
            });
            println!("{answer}");
        } else {
            println!(
                "{:.4} s per update (median of {}), {rate:.3e} element-steps/s, peak memory {}",
                median,
                seconds.len(),
                peak.map_or("unknown".into(), crate::error::bytes),
            );
            self.common.say(format_args!("{}: {}", description.device, description.plan));
        }
        Ok(0)
    }
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
    }
}

fn parameters(network: &Network) -> Parameters<f32> {
    let mut parameters = Parameters::zeros(network);
    for p in 0..network.n_networks {
        let mut stream = Stream::new(0, Purpose::Parameters, u32::try_from(p).unwrap_or(0), 0);
        for tensor in Tensor::ALL {
            for value in parameters.get_mut(p, tensor) {
                #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
                let number = (0.01 * stream.normal()) as f32;
                *value = if tensor == Tensor::Eta { 0.01 } else { number };
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
