//! The native half of the Python package `hebbian_engine`: arrays in, arrays out. What Python's
//! users see, with names, docs and checks of types, is in the package's own files.

mod arrays;
mod engines;
mod errors;
mod life;
mod operator;
mod rule;
mod runs;

use pyo3::prelude::*;

/// The native half of `hebbian_engine`.
#[pymodule]
#[pyo3(name = "_native")]
fn native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DeviceError", py.get_type::<errors::DeviceError>())?;
    module.add("Diverged", py.get_type::<errors::Diverged>())?;
    module.add_class::<life::Life>()?;
    module.add_class::<rule::Rule>()?;
    module.add_class::<runs::Network>()?;
    module.add_class::<runs::Memory>()?;
    module.add_function(wrap_pyfunction!(operator::run, module)?)?;
    module.add_function(wrap_pyfunction!(operator::states, module)?)?;
    module.add_function(wrap_pyfunction!(runs::train, module)?)?;
    module.add_function(wrap_pyfunction!(runs::load, module)?)?;
    module.add_function(wrap_pyfunction!(runs::network_settings, module)?)?;
    module.add_function(wrap_pyfunction!(command, module)?)?;
    Ok(())
}

/// Runs the `hebbian` command; returns its exit status.
#[pyfunction]
fn command(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| hebbian::cli::run(arguments))
}
