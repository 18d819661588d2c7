//! A step of a life as plain data, for any other host of WebGPU: composed shaders, constants, sizes of
//! buffers, dispatches. It is the streamed plan of an episode of one step.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::gpu::kernels::{Access, Drive, Job, Kernel, NeuronStep, PlasticMatmul, Step};
use crate::engine::gpu::plan::{Command, INVOCATIONS, Layout, Plan};
use crate::engine::gpu::prepare::{Part, PerEpisode, job, variant};
use crate::engine::gpu::run::neuron_groups;
use crate::engine::gpu::shader::{Form, Source};
use crate::engine::gpu::slots::Slots;
use crate::engine::gpu::tile::SWEEP_TILE;
use crate::engine::gpu::{Y, number, stride};
use crate::engine::{Storage, Want};
use crate::error::{Error, Result};
use crate::model::{self, Leak, Network, Shape, Stages};

/// Steps of one memory of one network. A step copies the memory to where `before` says and runs `step`;
/// then the memory lies where `after` says. `begin` runs before the first step, and before the next one
/// where memory or parameters were changed from outside: what it computes, each step leaves for the next.
#[derive(Clone, Debug, Serialize)]
pub struct Portable {
    /// The kernels that the dispatches name.
    pub kernels: Vec<PortableKernel>,
    /// Bytes of each buffer. `parameters` holds the network's, `stimuli` a row of N numbers and, where
    /// neurons are clamped, one of 0 and 1; the rest starts at zero.
    pub buffers: BTreeMap<String, u64>,
    /// The words of the uniform `job`.
    pub job: Vec<u32>,
    /// The words of the uniform `now`, of which a dispatch takes one.
    pub steps: Vec<Vec<u32>>,
    /// What runs where a memory begins.
    pub begin: Vec<PortableDispatch>,
    /// What runs at each step.
    pub step: Vec<PortableDispatch>,
    /// What a memory is.
    pub memory: Vec<PortableVector>,
}

/// A kernel.
#[derive(Clone, Debug, Serialize)]
pub struct PortableKernel {
    /// Its name.
    pub stem: &'static str,
    /// WGSL, with an entry point `main`.
    #[serde(skip)]
    pub text: String,
    /// Name and access (uniform, step, read, write) of each binding of group 0, in order.
    pub bindings: Vec<(&'static str, &'static str)>,
    /// Values of its override constants.
    pub constants: BTreeMap<&'static str, f64>,
}

/// A dispatch.
#[derive(Clone, Debug, Serialize)]
pub struct PortableDispatch {
    /// Its kernel, by stem.
    pub kernel: &'static str,
    /// Which of the steps it is given.
    pub step: usize,
    /// Names of the buffers that are bound, in the order of the kernel's bindings.
    pub buffers: Vec<&'static str>,
    /// Workgroups.
    pub size: [u32; 3],
}

/// A vector or matrix of a memory.
#[derive(Clone, Debug, Serialize)]
pub struct PortableVector {
    /// y, v (of a membrane that leaks) or traces: by quads of rows, `[traces][quad][N]` of four numbers.
    pub name: &'static str,
    /// Buffer and first byte, before a step.
    pub before: (&'static str, u64),
    /// Buffer and first byte, after it.
    pub after: (&'static str, u64),
    /// Bytes.
    pub bytes: u64,
}

/// The step of a recurrent network, with its rows of clamps or without.
///
/// # Errors
/// [`Error::Value`] for several networks, a feed-forward one, a rule without kernels or layers around the
/// core; [`Error::Shader`] for a fault in a shader.
pub fn portable(network: &Network, clamped: bool) -> Result<Portable> {
    network.validate()?;
    if network.n_networks != 1 || !network.recurrent {
        let kind = if network.recurrent { "recurrent" } else { "feed-forward" };
        let found = format!("{} {kind} ones", network.n_networks);
        return Err(Error::value("networks", found, "one recurrent network"));
    }
    let stages = &network.stages;
    if let Some(rule) = &stages.rule {
        let wanted = "a rule with kernels of its own: none, decay, oja, modulated or retroactive";
        return Err(Error::value("rule", rule.program.name(), wanted));
    }
    let (bias, leak, frozen) = (stages.bias, stages.leak, stages.frozen.clone());
    if *stages != (Stages { bias, leak, frozen, ..Stages::default() }) {
        let wanted = "a core, with bias and leaks at the most";
        return Err(Error::value("network", "layers around a core, masks or m as data", wanted));
    }
    let tensors = model::Layout::new(network);
    let shape = Shape { n_batch: 1, n_steps: 1, n_stimuli: 1, n_targets: 1, clamped };
    let want = Want { traces: true, ..Want::default() };
    let layout = Layout::streamed(network, 1);
    let plan = Plan::new(network, layout, 1, want, 1);
    let slots = Slots::of(network, false);
    let part = Part { group: 0, first_network: 0, n_networks: 1, n_batch: 1, first_episode: 0 };
    let one = PerEpisode::of(network, Storage::F32, &shape, &plan, want, slots, None);
    let n = network.n_post as u64;
    // the sweep that stores the trace sums what the next step begins with
    let neurons = plan.commands.iter().position(|c| matches!(c, Command::NeuronStep { .. }));
    let (begin, step) = plan.commands.split_at(neurons.unwrap_or(0));
    let [begin, step] = [begin, step].map(|commands| -> Vec<PortableDispatch> {
        commands.iter().filter_map(|command| dispatch(network, &tensors, *command)).collect()
    });
    let variant = variant(network, clamped, slots);
    let n_traces = number(network.n_traces());
    let form = Form { traces: Storage::F32, n_traces, tile: SWEEP_TILE, rule: None };
    let of_step = [&Drive::KERNEL, &PlasticMatmul::KERNEL, &NeuronStep::KERNEL];
    let kernels = of_step
        .into_iter()
        .filter(|kernel| begin.iter().chain(&step).any(|dispatch| dispatch.kernel == kernel.stem))
        .map(|kernel| compose(kernel, &form, &variant))
        .collect::<Result<_>>()?;
    let buffers = [
        ("parameters", 4 * stride(network, &tensors) as u64),
        ("stimuli", one.stimuli),
        ("shown", 4),
        ("pre", 4),
        ("observed", 4),
        ("partial", one.partial),
        ("record", one.record),
        ("y_last", 4 * n),
        ("trace_before", one.trace),
        ("trace_after", one.trace),
        ("residual", 16),
    ];
    // of the record: rows before the step and after it
    let row = |slot: usize, row: u64| ("record", 4 * n * (2 * slot as u64 + row));
    let of_record = |name, slot| PortableVector {
        name,
        before: row(slot, 0),
        after: row(slot, 1),
        bytes: 4 * n,
    };
    let traces = PortableVector {
        name: "traces",
        before: ("trace_before", 0),
        after: ("trace_after", 0),
        bytes: one.trace,
    };
    let leaks = matches!(stages.leak, Some((Leak::Membrane, _)));
    let v = leaks.then(|| of_record("v", slots.leaked));
    let words = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u32>(bytes);
    let job: Job = job(network, &tensors, (&shape, &plan), &part, 1);
    Ok(Portable {
        kernels,
        buffers: buffers.map(|(name, bytes)| (name.to_string(), bytes)).into(),
        job: words(bytemuck::bytes_of(&job)),
        steps: plan.steps.iter().map(|step: &Step| words(bytemuck::bytes_of(step))).collect(),
        begin,
        step,
        memory: [of_record("y", Y), traces].into_iter().chain(v).collect(),
    })
}

/// A command of the step; none for what a life does without, losses.
fn dispatch(
    network: &Network,
    tensors: &model::Layout,
    command: Command,
) -> Option<PortableDispatch> {
    let [tiles, chunks] = SWEEP_TILE.grid(network.n_pre, network.n_post);
    let bound = |kernel: &Kernel| -> Vec<&'static str> {
        let buffer = |&(name, _): &(&'static str, Access)| match name {
            "trace" => "trace_before",
            "trace_out" => "trace_after",
            _ => name,
        };
        kernel.bindings.iter().map(buffer).collect()
    };
    let (kernel, step, size) = match command {
        Command::Drive => {
            let blocks = network.n_post.div_ceil(INVOCATIONS as usize);
            (&Drive::KERNEL, 0, [1, 1, number(blocks)])
        }
        Command::PlasticMatmul { step, .. } => (&PlasticMatmul::KERNEL, step, [tiles, chunks, 1]),
        Command::NeuronStep { step } => {
            (&NeuronStep::KERNEL, step, [1, neuron_groups(network, tensors), 1])
        }
        _ => return None,
    };
    Some(PortableDispatch { kernel: kernel.stem, step, buffers: bound(kernel), size })
}

/// A kernel by its form, and of the constants those that it declares.
pub(super) fn compose(
    kernel: &Kernel,
    form: &Form,
    variant: &[(&'static str, f64)],
) -> Result<PortableKernel> {
    let source = Source::compose(kernel.stem, kernel.text, form)?;
    let (module, _) = source.module()?;
    let declares = |name: &str| {
        module.overrides.iter().any(|(_, constant)| constant.name.as_deref() == Some(name))
    };
    let access = |access| match access {
        Access::Uniform => "uniform",
        Access::Step => "step",
        Access::Read => "read",
        Access::Write => "write",
    };
    Ok(PortableKernel {
        stem: kernel.stem,
        text: source.text,
        bindings: kernel.bindings.iter().map(|&(name, a)| (name, access(a))).collect(),
        constants: variant.iter().copied().filter(|(name, _)| declares(name)).collect(),
    })
}
