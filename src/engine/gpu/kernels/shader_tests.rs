//! Shaders against the rest of the project and against other platforms' compilers; none
//! of this needs a device.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use naga::back::pipeline_constants::process_overrides;
use naga::valid::ModuleInfo;
use naga::{AddressSpace, Module, StorageAccess, TypeInner};

use super::{ALL, Access, BLOCK, Job, SUM_COLUMNS, Step, Update, Variant};
use crate::engine::Storage;
use crate::engine::gpu::equations::Equations;
use crate::engine::gpu::general::{CUT, RESET};
use crate::engine::gpu::plan::{Layout, resident_bytes};
use crate::engine::gpu::shader::{Form, LIBRARY, Source};
use crate::engine::gpu::tile::SWEEP_TILE;
use crate::engine::gpu::{D_INPUT, Y, Y_BAR};
use crate::model::{Activation, AlphaSharing, Loss, Network, Rule, RuleText, Sharing, Stages};
use crate::rule::{Program, TEXTS};

fn files(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(folder);
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Every combination of the override constants of a core; each once alone, and once with one of the
/// combinations of what stands around it, in turn.
fn variants() -> impl Iterator<Item = Variant> {
    let core = [6, 7, 3, 2, 2, 2];
    // modulator, mask, leak, loss of the read-out; then slots
    let around = [2, 2, 3, 4, 2, 2, 2, 2, 2, 2];
    let digits = |mut rest: u32, count: &[u32]| -> Vec<u32> {
        let one = |&n: &u32| {
            let digit = rest % n;
            rest /= n;
            digit
        };
        count.iter().map(one).collect()
    };
    let (n_core, n_around) = (core.iter().product::<u32>(), around.iter().product::<u32>());
    (0..2 * n_core).map(move |k| {
        let (k, alone) = (k / 2, k % 2 == 0);
        let mut values = digits(k, &core);
        // no factor in common with the number of combinations
        values.extend(digits(if alone { 0 } else { 1 + 41 * k % (n_around - 1) }, &around));
        for (at, slot) in values[10..].iter_mut().enumerate() {
            *slot *= 8 + u32::try_from(at).unwrap();
        }
        std::array::from_fn(|at| {
            (crate::engine::gpu::prepare::OVERRIDES[at], f64::from(values[at]))
        })
    })
}

/// Any; its rule has every kind of name.
fn form() -> Form {
    let rule = Some(equations(EVERY_NAME));
    Form { traces: Storage::F32, n_traces: 2, tile: SWEEP_TILE, rule }
}

/// A rule with every kind of name, function and operation.
const EVERY_NAME: &str = r#"
name = "every-name"
[parameters]
a = { per = "network" }
b = { per = "neuron" }
c = { per = "pre" }
d = { per = "connection" }
[post]
s = { start = 0.5, next = "s + a * tanh(y * m) + relu(z) + r ^ 2" }
[pre]
u = { next = "a * u + sigmoid(x) + exp(-abs(x)) + c" }
[trace]
H = "clip(H + b * x * y * (y - s) + d * E / (1 + x ^ 4), -2, 1e39)"
E = "min(E, u) + max(sqrt(1 + y ^ 2), c) * step(x) + sign(z) * 1e-3"
"#;

fn equations(text: &str) -> Arc<Equations> {
    let program = Program::parse(text).unwrap();
    let network = Network {
        n_networks: 2,
        n_pre: 5,
        n_post: 5,
        recurrent: true,
        rule: Rule::Custom,
        activation: Activation::Tanh,
        loss: Loss::Squared,
        clip: None,
        alpha: AlphaSharing::PerConnection,
        eta: Sharing::PerNetwork,
        stages: Stages { rule: Some(RuleText::new(program, false)), ..Stages::default() },
    };
    Arc::new(Equations::new(&network).unwrap())
}

/// Both storages, and the resident plan at its smallest, with parts of quads and columns that
/// nobody owns, and at its largest.
fn forms() -> [Form; 4] {
    let resident = |n_pre, n_post, n_traces: u32| match Layout::resident(
        n_pre,
        n_post,
        n_traces as usize,
        48 << 10,
    ) {
        Some(Layout::Resident(tile)) => {
            let text = if n_traces == 1 { TEXTS[9].1 } else { EVERY_NAME };
            Form { n_traces, tile, rule: Some(equations(text)), ..form() }
        }
        other => panic!("{other:?}"),
    };
    [form(), Form { traces: Storage::F16, ..form() }, resident(67, 101, 2), resident(128, 128, 1)]
}

#[test]
fn every_file_in_shaders_is_used() {
    let kernels: BTreeSet<String> = ALL.iter().map(|k| format!("{}.wgsl", k.stem)).collect();
    assert_eq!(kernels, files(""));
    let library: BTreeSet<String> =
        LIBRARY.iter().map(|(name, _)| name.replace("lib/", "")).collect();
    assert_eq!(library, files("lib"));
    for (name, _) in LIBRARY {
        let name = if name.contains("stored") { "lib/stored.wgsl" } else { name };
        let include = format!("//!include {name}\n");
        assert!(ALL.iter().any(|k| k.text.contains(&include)), "no kernel includes {name}");
    }
}

#[test]
fn bindings_agree_with_the_host_in_name_access_and_number() {
    for kernel in ALL {
        let (module, _) =
            Source::compose(kernel.stem, kernel.text, &form()).unwrap().module().unwrap();
        let mut found: Vec<(u32, String, AddressSpace)> = module
            .global_variables
            .iter()
            .filter_map(|(_, v)| {
                Some((v.binding.as_ref()?.binding, v.name.clone().unwrap(), v.space))
            })
            .collect();
        found.sort_by_key(|(binding, ..)| *binding);
        let read_write = StorageAccess::LOAD | StorageAccess::STORE;
        let wanted: Vec<(u32, String, AddressSpace)> = (0..)
            .zip(kernel.bindings)
            .map(|(binding, (name, access))| {
                let space = match access {
                    Access::Uniform | Access::Step => AddressSpace::Uniform,
                    Access::Read => AddressSpace::Storage { access: StorageAccess::LOAD },
                    Access::Write => AddressSpace::Storage { access: read_write },
                };
                (binding, (*name).to_string(), space)
            })
            .collect();
        assert_eq!(found, wanted, "{}", kernel.stem);
        let storage = wanted.iter().filter(|(.., s)| *s != AddressSpace::Uniform).count();
        assert!(storage <= 8, "{}: a baseline device has 8 storage bindings", kernel.stem);
    }
}

/// WGSL gives a variable zero each time its declaration is reached. Chromium 156 on its software adapter
/// does so once a function: what a loop repeats says its value.
#[test]
fn a_variable_that_a_loop_declares_says_its_value() {
    let texts = LIBRARY.into_iter().chain(ALL.iter().map(|kernel| (kernel.stem, kernel.text)));
    let mut n_loops = 0;
    for (name, text) in texts {
        let mut blocks: Vec<bool> = Vec::new();
        for line in text.lines() {
            let code = line.split("//").next().unwrap_or_default().trim();
            let bare = code.starts_with("var ") && !code.contains('=');
            assert!(!(bare && blocks.contains(&true)), "{name}: {code}");
            for letter in code.chars() {
                match letter {
                    '{' => blocks.push(code.starts_with("for ")),
                    '}' => _ = blocks.pop(),
                    _ => {}
                }
            }
            n_loops += usize::from(code.starts_with("for "));
        }
        assert!(blocks.is_empty(), "{name}: {blocks:?}");
    }
    assert!(n_loops > 10);
}

/// Field names and offsets of a Rust struct of 4-byte fields.
macro_rules! fields {
    ($type:ident { $($field:ident),* $(,)? }) => {{
        let $type { $($field: _),* } = $type::default();
        let fields = vec![$((stringify!($field), std::mem::offset_of!($type, $field))),*];
        (stringify!($type), fields, size_of::<$type>())
    }};
}

#[test]
fn uniform_structs_have_the_hosts_layout() {
    let structs = [
        fields!(Job {
            n_networks,
            n_batch,
            n_steps,
            n_pre,
            n_post,
            n_stimuli,
            n_targets,
            first_network,
            n_parameters,
            at_w,
            at_alpha,
            at_rule,
            at_eta,
            n_eta,
            at_mod_w,
            at_mod_b,
            at_fanout_w,
            at_fanout_b,
            at_bias,
            n_bias,
            at_leak,
            n_leak,
            at_in_w,
            at_in_b,
            at_out_w,
            at_out_b,
            at_mask,
            n_rule,
            n_observed,
            n_outputs,
            alpha_row,
            alpha_column,
            n_chunks,
            n_tiles,
            n_together,
            n_splits,
            n_slots,
            first_episode,
            clip,
            share,
        }),
        fields!(Step {
            first,
            n_steps,
            row,
            propagate,
            collect,
            propagated,
            collected,
            store,
            slot,
        }),
        fields!(Update {
            n_parameters,
            at_eta,
            n_eta,
            n_blocks,
            mark,
            rate,
            max_norm,
            beta1,
            beta2,
            gain1,
            gain2,
            epsilon,
            second_scale,
        }),
    ];
    let mut seen = BTreeSet::new();
    for kernel in ALL {
        let (module, _) =
            Source::compose(kernel.stem, kernel.text, &form()).unwrap().module().unwrap();
        for (_, kind) in module.types.iter() {
            let TypeInner::Struct { members, span } = &kind.inner else { continue };
            let Some((name, fields, size)) =
                structs.iter().find(|(name, ..)| kind.name.as_deref() == Some(name))
            else {
                continue;
            };
            let found: Vec<(&str, usize)> =
                members.iter().map(|m| (m.name.as_deref().unwrap(), m.offset as usize)).collect();
            assert_eq!(&found, fields, "{name} in {}", kernel.stem);
            assert_eq!(*span as usize, *size, "{name} in {}", kernel.stem);
            seen.insert(*name);
        }
    }
    assert_eq!(seen.len(), structs.len(), "{seen:?}");
}

#[test]
fn constants_agree_with_the_host() {
    let library: String = LIBRARY.iter().map(|(_, text)| *text).collect();
    let text = library + super::SumSplits::KERNEL.text;
    for (name, value) in [("BLOCK", BLOCK), ("SUM_COLUMNS", SUM_COLUMNS)] {
        assert!(text.contains(&format!("const {name} = {value}u;")), "{name}");
    }
    let last_slot = crate::engine::gpu::RECORD_SLOTS - 1;
    for (name, value) in [("Y", Y), ("Y_BAR", Y_BAR), ("D_INPUT", D_INPUT), ("D_INPUT", last_slot)]
    {
        assert!(text.contains(&format!("const {name} = {value}u;")), "{name}");
    }
    for (name, value) in [("RESET", RESET), ("CUT", CUT)] {
        assert!(text.contains(&format!("const {name} = {value:?};")), "{name}");
    }
    for (names, first, more) in [
        (crate::model::Rule::ALL.map(|r| r.name()).to_vec(), "NONE", Some("text")),
        (crate::model::Activation::ALL.map(|a| a.name()).to_vec(), "TANH", None),
        (crate::model::Loss::ALL.map(|l| l.name()).to_vec(), "SQUARED", None),
    ] {
        let names: Vec<&str> = names.into_iter().chain(more).collect();
        assert_eq!(names[0].to_uppercase(), first);
        for (value, name) in names.iter().enumerate() {
            let line = format!("const {} = {value}u;", name.to_uppercase());
            assert!(text.contains(&line), "{line}");
        }
    }
}

#[test]
fn the_resident_kernels_take_the_workgroup_memory_that_is_planned() {
    let bytes = |kernel: &super::Kernel, form| {
        let (module, _) =
            Source::compose(kernel.stem, kernel.text, &form).unwrap().module().unwrap();
        let shared = |(_, v): (_, &naga::GlobalVariable)| match v.space {
            AddressSpace::WorkGroup => {
                module.types[v.ty].inner.size(module.to_ctx()).next_multiple_of(16)
            }
            _ => 0,
        };
        module.global_variables.iter().map(shared).sum::<u32>()
    };
    let sizes = [(1, 1), (3, 5), (4, 256), (256, 4), (51, 51), (67, 101), (100, 100), (128, 128)];
    for (n_pre, n_post) in sizes {
        for n_traces in [1, 2] {
            let fits = Layout::resident(n_pre, n_post, n_traces as usize, 48 << 10);
            let Some(Layout::Resident(tile)) = fits else {
                assert_eq!((n_pre, n_traces), (128, 2));
                continue;
            };
            let form = Form { n_traces, tile, ..form() };
            let planned = resident_bytes(&tile, n_traces);
            assert_eq!(bytes(&super::ResidentBack::KERNEL, form.clone()), planned, "{tile:?}");
            for kernel in [&super::ResidentForward::KERNEL, &super::WeightGradients::KERNEL] {
                assert!(bytes(kernel, form.clone()) <= planned, "{} {tile:?}", kernel.stem);
            }
        }
    }
}

#[test]
fn every_variant_passes_the_writers_of_every_platform() {
    let mut n_variants = 0;
    for kernel in ALL {
        let mut texts = BTreeSet::new();
        for form in forms() {
            let source = Source::compose(kernel.stem, kernel.text, &form).unwrap();
            if texts.insert(source.text.clone()) {
                n_variants += write_everywhere(kernel.stem, &source);
            }
        }
    }
    println!("{} kernels, {n_variants} variants", ALL.len());
    assert!(n_variants > ALL.len());
}

/// The module with its override constants set.
pub(super) fn with_overrides(
    module: &Module,
    info: &ModuleInfo,
    constants: &[(&str, f64)],
) -> (Module, ModuleInfo) {
    let constants = constants.iter().map(|(name, value)| ((*name).into(), *value)).collect();
    let entry = Some((naga::ShaderStage::Compute, "main"));
    let (module, info) = process_overrides(module, info, entry, &constants).unwrap();
    (module.into_owned(), info.into_owned())
}

/// Writes every variant of a shader; returns how many there are.
fn write_everywhere(stem: &str, source: &Source) -> usize {
    let (module, info) = source.module().unwrap();
    let used = crate::engine::gpu::shader::used_overrides(&module);
    let mut done = BTreeSet::new();
    for variant in variants() {
        let constants: Vec<_> =
            variant.iter().copied().filter(|(name, _)| used.contains(*name)).collect();
        if !done.insert(format!("{constants:?}")) {
            continue;
        }
        let (module, info) = with_overrides(&module, &info, &constants);
        let at = || format!("{stem} {constants:?}");

        let options = naga::back::spv::Options::default();
        let words = naga::back::spv::write_vec(&module, &info, &options, None);
        assert!(words.unwrap_or_else(|e| panic!("{}: {e}", at())).len() > 100);

        let options = naga::back::msl::Options {
            fake_missing_bindings: true,
            lang_version: (2, 0),
            ..Default::default()
        };
        let pipeline = naga::back::msl::PipelineOptions::default();
        let msl = naga::back::msl::write_string(&module, &info, &options, &pipeline);
        assert!(msl.unwrap_or_else(|e| panic!("{}: {e}", at())).0.contains("kernel void"));

        let mut hlsl = String::new();
        let options = naga::back::hlsl::Options::default();
        let pipeline = naga::back::hlsl::PipelineOptions::default();
        let mut writer = naga::back::hlsl::Writer::new(&mut hlsl, &options, &pipeline);
        writer.write(&module, &info, None).unwrap_or_else(|e| panic!("{}: {e}", at()));
        assert!(hlsl.contains("numthreads"));
    }
    done.len()
}

/// tint checks what naga does not: barriers in uniform control flow.
#[test]
fn tint_accepts_every_shader_where_it_is_installed() {
    if Command::new("tint").arg("--version").output().is_err() {
        println!("left out: tint is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (kernel, form) in ALL.iter().flat_map(|kernel| forms().map(|form| (kernel, form))) {
        let file = folder.path().join(format!("{}.wgsl", kernel.stem));
        let source = Source::compose(kernel.stem, kernel.text, &form).unwrap();
        std::fs::write(&file, source.text).unwrap();
        let answer = Command::new("tint").args(["--format", "wgsl"]).arg(&file).output().unwrap();
        assert!(
            answer.status.success(),
            "{}: {}",
            kernel.stem,
            String::from_utf8_lossy(&answer.stderr)
        );
    }
}
