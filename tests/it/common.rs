//! Shared by the test programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hebbian::case::Case;
use hebbian::engine::{Description, Engine, Want};
use hebbian::model::{Scalar, Shape};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// Everything a case asks for.
pub(crate) const ALL: Want = Want { activity: true, traces: true, gradients: true };

/// How an engine runs whole batches of a shape.
pub(crate) fn described<S: Scalar>(engine: &mut dyn Engine<S>, shape: Shape) -> Description {
    let program = engine.program(shape, ALL).unwrap();
    engine.describe(&program).unwrap()
}

/// Runs the program.
pub(crate) fn hebbian(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hebbian")).args(arguments).output().unwrap()
}

/// A safetensors file as numbers.
pub(crate) fn load(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .iter()
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
                Dtype::F32 => {
                    data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
                }
                other => panic!("{other:?}"),
            };
            (name.to_string(), values)
        })
        .collect()
}

/// Norm of the difference over norm of `exact` (over 1 where `exact` is zero).
pub(crate) fn relative_error(found: &[f64], exact: &[f64]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let size = norm(&mut exact.iter().copied());
    let error = norm(&mut found.iter().zip(exact).map(|(a, b)| a - b));
    let error = if size > 0.0 { error / size } else { error };
    assert!(!error.is_nan(), "not a number");
    error
}

/// The fixtures: name, case file, expected outputs.
pub(crate) fn fixtures() -> Vec<(String, PathBuf, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.strip_suffix(".case.safetensors")?.to_owned();
            let expected = folder.join(format!("{name}.expected.safetensors"));
            Some((name, path, expected))
        })
        .collect();
    found.sort();
    assert!(found.len() >= 80, "{} fixtures", found.len());
    found
}

/// Runs every fixture on the engine that `make` gives, through the files that a user
/// reads and writes, and holds every tensor to `bound`. Prints the worst. `make` gives none for a
/// fixture that the engine must refuse, which it has seen to.
pub(crate) fn check_fixtures<S: Scalar>(
    bound: f64,
    mut make: impl FnMut(&Case<S>) -> Option<Box<dyn Engine<S>>>,
) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let mut worst = (0.0, String::new());
    let mut failures = Vec::new();
    let mut n = 0;
    for (name, case, expected) in fixtures() {
        let case = Case::<S>::read(&case).unwrap();
        let Some(mut engine) = make(&case) else { continue };
        engine.set_parameters(&case.parameters).unwrap();
        let outputs = engine.evaluate(&case.episodes, ALL).unwrap();
        case.write_outputs(&out, outputs).unwrap();
        let (found, expected) = (load(&out), load(&expected));
        assert!(found.keys().eq(expected.keys()), "{name}: {:?}", found.keys());
        n += 1;
        for (tensor, exact) in &expected {
            let error = relative_error(&found[tensor], exact);
            if error > bound {
                failures.push(format!("{name} {tensor}: {error:.2e}"));
            }
            if error > worst.0 {
                worst = (error, format!("{name} {tensor}"));
            }
        }
    }
    println!(
        "{n} fixtures: worst {:.2e} at {}, {:.2} of {bound:e}",
        worst.0,
        worst.1,
        worst.0 / bound
    );
    assert!(failures.is_empty(), "beyond {bound:e}: {failures:#?}");
}
