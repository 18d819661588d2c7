//! A whole batch of episodes in one call.

use std::collections::HashMap;

use hebbian::case::{Case, Named};
use hebbian::engine::{Device, Want};
use hebbian::error::Result;
use hebbian::model::RuleText;
use numpy::Element;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::Arrays;
use crate::engines::{Runs, give, interruptible, take};
use crate::errors::{exception, of_call};

/// Runs the case of some arrays and metadata: `outputs`, and gradients where they are wanted.
#[pyfunction]
#[pyo3(signature = (arrays, metadata, device, precision, outputs, gradients))]
pub(crate) fn run<'py>(
    py: Python<'py>,
    arrays: &Bound<'py, PyDict>,
    metadata: HashMap<String, String>,
    device: &str,
    precision: &str,
    outputs: bool,
    gradients: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let arrays = Arrays::new(arrays)?;
    let device = Device::from_name(device).map_err(exception)?;
    let want = Want { activity: outputs, traces: outputs, gradients };
    match precision {
        "f64" => answer::<f64>(py, &arrays, &metadata, device, want),
        _ => answer::<f32>(py, &arrays, &metadata, device, want),
    }
}

fn answer<'py, S: Runs + Element>(
    py: Python<'py>,
    arrays: &Arrays<'py>,
    metadata: &HashMap<String, String>,
    device: Device,
    want: Want,
) -> PyResult<Bound<'py, PyDict>> {
    let refused = |error| of_call(error, arrays.population());
    let case = Case::<S>::assemble(arrays, metadata).map_err(refused)?;
    let named = interruptible(py, move || evaluate(device, case, want))?.map_err(refused)?;
    let answer = PyDict::new(py);
    for named in named {
        let wanted = want.activity || named.name.starts_with("grad.");
        if wanted {
            let (name, array) = arrays.result(py, named)?;
            answer.set_item(name, array)?;
        }
    }
    Ok(answer)
}

fn evaluate<S: Runs>(device: Device, case: Case<S>, want: Want) -> Result<Vec<Named<S>>> {
    let (mut engine, known) = take::<S>(device, &case.network)?;
    if known.as_ref() != Some(&case.parameters) {
        engine.set_parameters(&case.parameters)?;
    }
    let outputs = engine.evaluate(&case.episodes, want)?;
    let named = case.named(outputs);
    give(device, engine, Some(case.parameters));
    named
}

/// The states that a rule keeps beside H: name, "trace", "post" or "pre", and the value at the start.
#[pyfunction]
pub(crate) fn states(
    metadata: HashMap<String, String>,
) -> PyResult<Vec<(String, &'static str, f64)>> {
    let text = metadata.get("rule.text").map(String::as_str);
    let name = metadata.get("rule").map_or("decay", String::as_str);
    let (_, program) = RuleText::find(name, text).map_err(exception)?;
    let Some(program) = program else { return Ok(Vec::new()) };
    let named = |state: &hebbian::rule::State, kind| (state.name.clone(), kind, state.start);
    let traces = program.traces()[1..].iter().map(|state| named(state, "trace"));
    let post = program.post().iter().map(|state| named(state, "post"));
    let pre = program.pre().iter().map(|state| named(state, "pre"));
    Ok(traces.chain(post).chain(pre).collect())
}
