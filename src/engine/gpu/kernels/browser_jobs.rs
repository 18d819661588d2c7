//! Whole batches as data, for `tests/page/run.sh`, which runs them in a browser and compares gradients.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{ALL, Job, Kernel, ShareAlpha, SumSplits, grid};
use crate::case::Case;
use crate::engine::gpu::plan::Command;
use crate::engine::gpu::portable::compose;
use crate::engine::gpu::prepare::{Part, Prepared, variant};
use crate::engine::gpu::shader::Form;
use crate::engine::gpu::{Context, GpuEngine, Options, number};
use crate::engine::{Engine, PlanChoice, Storage, Want, cpu};
use crate::model::{AlphaSharing, Network};

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

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A batch of a fixture: what is in every buffer before it, its dispatches, and the gradients by the CPU in
/// f64.
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
    let words = |job: &Job| bytemuck::pod_collect_to_vec::<u8, u32>(bytemuck::bytes_of(job));
    let jobs = [part, whole].map(|part| words(&engine.job(&prepared, &part)));
    let steps: Vec<Vec<u32>> = prepared
        .plan
        .steps
        .iter()
        .map(|step| bytemuck::pod_collect_to_vec(bytemuck::bytes_of(step)))
        .collect();

    let form = Form {
        traces: Storage::F32,
        n_traces: number(network.n_traces()),
        tile: prepared.plan.layout.tile(),
    };
    let variant = variant(network, case.episodes.shape.clamped, prepared.slots);
    let kernel = |kernel: &Kernel| {
        let composed = compose(kernel, form, &variant).unwrap();
        let mut value = json!(composed);
        value["text"] = composed.text.into();
        value
    };
    let kernels: Vec<Value> = used.into_iter().map(kernel).collect();

    let exact = Case::<f64>::read(&path).unwrap();
    let mut reference = cpu::open::<f64>(&exact.network).unwrap();
    reference.set_parameters(&exact.parameters).unwrap();
    let gradients = reference.evaluate(&exact.episodes, want).unwrap().gradients.unwrap();
    let layout = gradients.parameters.layout();
    let stride = engine.stride();
    let expected: Vec<Value> = (0..network.n_networks)
        .flat_map(|p| layout.entries().iter().map(move |entry| (p, entry)))
        .map(|(p, entry)| {
            let values = gradients.parameters.get(p, entry.tensor);
            json!({ "name": entry.name, "at": p * stride + entry.offset, "values": values })
        })
        .collect();
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
fn batches_for_a_browser() {
    let file = std::env::var_os("HEBBIAN_JOBS").expect("HEBBIAN_JOBS names a file");
    let options = Options { baseline: true, ..Options::default() };
    let context = Context::new(options).expect("an adapter");
    let one = |(name, plan)| job(&context.with(plan, Storage::F32), name);
    let jobs: Vec<Value> = JOBS.map(one).into();
    std::fs::write(file, json!(jobs).to_string()).unwrap();
}
