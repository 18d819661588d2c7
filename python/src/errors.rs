//! Errors as Python's exceptions.

use hebbian::error::Error;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

pyo3::create_exception!(
    hebbian_engine,
    DeviceError,
    PyRuntimeError,
    "There is no such device, or it cannot do the work."
);
pyo3::create_exception!(
    hebbian_engine,
    Diverged,
    PyArithmeticError,
    "The work ran, and its numbers are not finite."
);
use pyo3::exceptions::PyArithmeticError;

/// The exception for an error.
pub(crate) fn exception(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Device { .. } | Error::Shader { .. } => DeviceError::new_err(text),
        Error::Memory { .. } => PyMemoryError::new_err(text),
        Error::Diverged { .. } => Diverged::new_err(text),
        Error::Io { .. } => PyOSError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}

/// The exception for an error of a call with arrays: names as the call spells them, and without the
/// axis of networks where there is one network.
pub(crate) fn of_call(error: Error, population: bool) -> PyErr {
    let text = match &error {
        Error::Shape { name, found, wanted } => {
            let shape = |shape: &Vec<usize>| tuple(if population { shape } else { &shape[1..] });
            let mut wanted: Vec<String> = wanted.iter().map(shape).collect();
            wanted.dedup();
            format!("{}: found {}, wanted {}", spelled(name), shape(found), wanted.join(" or "))
        }
        Error::Tensor { name, found, wanted } => {
            format!("{}: found {found}, wanted {wanted}", spelled(name))
        }
        _ => return exception(error),
    };
    PyValueError::new_err(text)
}

/// A name of the case format as a keyword.
pub(crate) fn spelled(name: &str) -> String {
    if name == "input" { "drive".into() } else { name.replace('.', "_") }
}

/// A shape as Python writes it.
pub(crate) fn tuple(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => {
            let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
            format!("({})", sizes.join(", "))
        }
    }
}
