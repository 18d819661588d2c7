//! Whole updates as data, for `tests/page/run.sh`, which runs them in a browser and compares gradients and
//! parameters.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytemuck::bytes_of;
use serde_json::{Value, json};

use super::{ALL, Adam, FinishReport, GradientNorm, Kernel, Sgd, ShareAlpha, SumSplits, grid};
use crate::case::Case;
use crate::engine::gpu::plan::Command;
use crate::engine::gpu::portable::compose;
use crate::engine::gpu::prepare::{Part, Prepared, variant};
use crate::engine::gpu::shader::Form;
use crate::engine::gpu::{Context, GpuEngine, Options, number};
use crate::engine::{Engine, PlanChoice, Storage, Want, cpu};
use crate::model::{AlphaSharing, Network, Optimiser, StepSize};

/// Fixtures and the plans that run them: the five rules, more than a tile, layers around a core, shared
/// alpha, a feed-forward layer.
const JOBS: [(&str, PlanChoice); 7] = [
    ("decay_clip", PlanChoice::Resident),
    ("retroactive", PlanChoice::Resident),
    ("wide", PlanChoice::Streamed),
    ("feed_modulated_clip", PlanChoice::Streamed),
    ("oja", PlanChoice::Streamed),
    ("net_observed_clamp", PlanChoice::Streamed),
    ("net_read_out_bce", PlanChoice::Streamed),
];

/// Names of the buffers that a kernel binds for a command.
fn names(kernel: &Kernel, prepared: &Prepared, command: Option<Command>) -> Vec<String> {
    let plan = &prepared.plan;
    let (trace, trace_out) = match command {
        Some(Command::PlasticMatmul { window, .. } | Command::BackwardSweep { window, .. }) => {
            (plan.slot(window), plan.slot(window + 1))
        }
        Some(Command::WeightGradients { buffer, .. }) => (buffer, buffer),
        _ => (0, 0),
    };
    let name = |&(name, _): &(&str, _)| match name {
        "trace" => format!("trace {trace}"),
        "trace_out" => format!("trace {trace_out}"),
        _ => name.to_string(),
    };
    kernel.bindings.iter().map(name).collect()
}

/// How the parameters of a fixture move: by Adam, or where its network has a modulator by SGD.
fn step_of(name: &str) -> StepSize {
    let optimiser = match name.contains("modulated") {
        true => Optimiser::Sgd { momentum: 0.8 },
        false => Optimiser::Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-2 },
    };
    StepSize { optimiser, rate: 0.01, second_scale: 1.3, max_norm: 0.7 }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytes)
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// An update on a fixture: what is in every buffer before it, its dispatches, and the gradients and moved
/// parameters by the CPU in f64.
fn job(context: &Context, name: &str) -> Value {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let path = fixtures.join(format!("{name}.case.safetensors"));
    let case = Case::<f32>::read(&path).unwrap();
    let network: &Network = &case.network;
    let mut engine = GpuEngine::new(context, network).unwrap();
    engine.set_parameters(&case.parameters).unwrap();
    let want = Want { gradients: true, ..Want::default() };
    let program = engine.program(case.episodes.shape, want).unwrap();
    let prepared = engine.programs.take(&program).unwrap().0.into_iter().flatten().next().unwrap();
    assert_eq!(prepared.parts.len(), 1, "{name}");
    let part = prepared.parts[0];
    engine.upload(&prepared, &part, &case.episodes, false);
    let gpu = engine.gpu();
    gpu.queue.submit([]);

    let (b, group, sums) = (&prepared.buffers, &engine.groups[0], &prepared.sums[0]);
    let mut buffers: BTreeMap<String, &wgpu::Buffer> = [
        ("record", &b.record),
        ("residual", &b.residual),
        ("adjoint", &b.adjoint),
        ("stimuli", &b.stimuli),
        ("shown", &b.shown),
        ("targets", &b.targets),
        ("scored", &b.scored),
        ("pre", &b.pre),
        ("partial", &b.partial),
        ("column_partial", &b.column_partial),
        ("row_partial", &b.row_partial),
        ("loss_rows", &b.loss_rows),
        ("observed", &b.observed),
        ("asked", &b.asked),
        ("outer", &b.outer),
        ("rule_bar", &b.rule_bar),
        ("y_last", &b.y_last),
        ("parameters", &group.parameters),
        ("gradient", &group.gradient),
        ("report", &group.report),
        ("first", &group.first_moment),
        ("second", &group.second_moment),
        ("squares", &group.squares),
        ("d_connections", &sums.d_connections),
        ("alpha_quads", &sums.alpha_quads),
    ]
    .map(|(name, buffer)| (name.to_string(), buffer))
    .into();
    buffers.extend(b.traces.iter().enumerate().map(|(k, trace)| (format!("trace {k}"), trace)));
    let read = |buffer: &wgpu::Buffer| {
        let words = usize::try_from(buffer.size() / 4).unwrap();
        base64(bytemuck::cast_slice(&gpu.read(buffer, 0, words).unwrap()))
    };
    let contents: BTreeMap<&String, String> =
        buffers.iter().map(|(name, buffer)| (name, read(buffer))).collect();

    let mut used: Vec<&Kernel> = Vec::new();
    let mut dispatches = Vec::new();
    let mut add = |kernel: &'static Kernel, job: usize, command, step, size: [u32; 3]| {
        if !used.iter().any(|known| known.stem == kernel.stem) {
            used.push(kernel);
        }
        let buffers = names(kernel, &prepared, command);
        let step: Option<usize> = step;
        dispatches.push(json!({
            "kernel": kernel.stem, "job": job, "step": step, "buffers": buffers, "size": size,
        }));
    };
    for &command in &prepared.plan.commands {
        let kernel = ALL.iter().find(|kernel| kernel.stem == command.kernel()).unwrap();
        let (.., step, size) = engine.bound(&prepared, &part, command);
        add(kernel, 0, Some(command), step, size);
    }
    // the sums over splits belong to no part
    let whole = Part { n_batch: 1, first_episode: 0, n_networks: group.n, ..part };
    let networks = number(group.n);
    let columns = network.n_post.div_ceil(super::SUM_COLUMNS);
    let [x, y, _] = grid(columns * network.n_pre.div_ceil(4));
    add(&SumSplits::KERNEL, 1, None, None, [x, y, networks]);
    if network.alpha != AlphaSharing::PerConnection {
        add(&ShareAlpha::KERNEL, 1, None, None, [networks, 1, 1]);
    }
    let step = step_of(name);
    let blocks = number(engine.stride().div_ceil(super::BLOCK));
    let moved: &Kernel = match step.optimiser {
        Optimiser::Adam { .. } => &Adam::KERNEL,
        Optimiser::Sgd { .. } => &Sgd::KERNEL,
    };
    for (kernel, size) in [
        (&GradientNorm::KERNEL, [blocks, networks, 1]),
        (&FinishReport::KERNEL, [networks, 1, 1]),
        (moved, [blocks, networks, 1]),
    ] {
        add(kernel, 2, None, None, size);
    }
    let [of_part, of_whole] = [part, whole].map(|part| engine.job(&prepared, &part));
    let jobs = [bytes_of(&of_part), bytes_of(&of_whole), bytes_of(&engine.how(step))].map(words);
    let steps: Vec<Vec<u32>> =
        prepared.plan.steps.iter().map(|step| words(bytes_of(step))).collect();

    let form = Form {
        traces: Storage::F32,
        n_traces: number(network.n_traces()),
        tile: prepared.plan.layout.tile(),
        rule: None,
    };
    let variant = variant(network, case.episodes.shape.clamped, prepared.slots);
    let kernel = |kernel: &Kernel| {
        let composed = compose(kernel, &form, &variant).unwrap();
        let mut value = json!(composed);
        value["text"] = composed.text.into();
        value
    };
    let kernels: Vec<Value> = used.into_iter().map(kernel).collect();

    let exact = Case::<f64>::read(&path).unwrap();
    let mut reference = cpu::open::<f64>(&exact.network).unwrap();
    reference.set_parameters(&exact.parameters).unwrap();
    let gradients = reference.evaluate(&exact.episodes, want).unwrap().gradients.unwrap();
    reference.update(&exact.episodes, step).unwrap();
    let moved = reference.parameters().unwrap();
    let stride = engine.stride();
    let mut expected = Vec::new();
    for (buffer, all) in [("gradient", &gradients.parameters), ("parameters", &moved)] {
        for (p, entry) in
            (0..network.n_networks).flat_map(|p| all.layout().entries().iter().map(move |e| (p, e)))
        {
            expected.push(json!({
                "buffer": buffer,
                "name": entry.name,
                "at": p * stride + entry.offset,
                "values": all.get(p, entry.tensor),
            }));
        }
    }
    json!({
        "name": name,
        "plan": prepared.plan.describe(crate::engine::GpuBatch { half: false, parts: 1 }).to_string(),
        "kernels": kernels,
        "buffers": contents,
        "jobs": jobs,
        "steps": steps,
        "dispatches": dispatches,
        "expected": expected,
    })
}

#[test]
#[ignore = "writes what tests/page/run.sh runs in a browser, to the file $HEBBIAN_JOBS"]
fn updates_for_a_browser() {
    let file = std::env::var_os("HEBBIAN_JOBS").expect("HEBBIAN_JOBS names a file");
    let options = Options { baseline: true, ..Options::default() };
    let context = Context::new(options).expect("an adapter");
    let one = |(name, plan)| job(&context.with(plan, Storage::F32), name);
    let jobs: Vec<Value> = JOBS.map(one).into();
    std::fs::write(file, json!(jobs).to_string()).unwrap();
}
