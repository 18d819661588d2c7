//! NumPy's arrays as a case's tensors, and results as arrays.

use std::collections::BTreeMap;

use hebbian::case::{Named, Source};
use hebbian::error::{Error, Result};
use hebbian::model::Scalar;
use numpy::{Element, PyArray1, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{exception, spelled};

/// The arrays of a call, by the names of the case format.
pub(crate) struct Arrays<'py> {
    all: BTreeMap<String, Array<'py>>,
    /// Whether there is an axis of networks.
    population: bool,
}

struct Array<'py> {
    /// Its shape in the case format.
    shape: Vec<usize>,
    /// Its shape as it was given.
    given: Vec<usize>,
    numbers: Numbers<'py>,
}

enum Numbers<'py> {
    F32(PyReadonlyArrayDyn<'py, f32>),
    F64(PyReadonlyArrayDyn<'py, f64>),
}

impl<'py> Arrays<'py> {
    /// Takes the arrays of a call, float32 or float64. Whether it is of a population, the axes of w
    /// tell.
    pub(crate) fn new(given: &Bound<'py, PyDict>) -> PyResult<Self> {
        let mut all = BTreeMap::new();
        for (name, value) in given {
            let name: String = name.extract()?;
            let numbers = match value.extract::<PyReadonlyArrayDyn<'py, f32>>() {
                Ok(array) => Numbers::F32(array),
                Err(_) => {
                    Numbers::F64(value.extract::<PyReadonlyArrayDyn<'py, f64>>().map_err(|_| {
                        let found = value.get_type().to_string();
                        let wanted = "an array of float32 or float64";
                        exception(Error::tensor(&spelled(&name), found, wanted))
                    })?)
                }
            };
            let given = match &numbers {
                Numbers::F32(array) => array.shape().to_vec(),
                Numbers::F64(array) => array.shape().to_vec(),
            };
            all.insert(name, Array { shape: Vec::new(), given, numbers });
        }
        let axes = all.get("w").map_or(2, |w| w.given.len());
        if !(2..=3).contains(&axes) {
            let found = format!("{axes} axes");
            let wanted = "(M, N) of one network, or (P, M, N) of a population";
            return Err(exception(Error::tensor("w", found, wanted)));
        }
        let population = axes == 3;
        let one_number = |array: &Array<'_>| population && array.given.is_empty();
        if let Some((name, _)) = all.iter().find(|(_, array)| one_number(array)) {
            let wanted = "an axis of the population's networks first";
            return Err(exception(Error::tensor(&spelled(name), "one number", wanted)));
        }
        for (name, array) in &mut all {
            array.shape = in_case(name, &array.given, population);
        }
        Ok(Arrays { all, population })
    }

    pub(crate) fn population(&self) -> bool {
        self.population
    }

    /// A result as an array: a gradient in the shape of what it is the gradient of, all else without
    /// the axis of networks where there is one network.
    pub(crate) fn result<S: Scalar + Element>(
        &self,
        py: Python<'py>,
        named: Named<S>,
    ) -> PyResult<(String, Bound<'py, PyAny>)> {
        let Named { name, shape, values } = named;
        let given = name.strip_prefix("grad.").and_then(|name| self.all.get(name));
        let shape = match given {
            Some(array) => &array.given[..],
            None if self.population => &shape[..],
            None => &shape[1..],
        };
        let array = PyArray1::from_vec(py, values).reshape(shape)?;
        Ok((name, array.into_any()))
    }
}

/// A shape as the case format has it, of one that may lack the axis of networks and those that a
/// number alike for all neurons or connections has not.
fn in_case(name: &str, given: &[usize], population: bool) -> Vec<usize> {
    let mut shape = if population { given.to_vec() } else { [&[1], given].concat() };
    let axes = match name {
        "alpha" => 3,
        "eta" | "bias" | "leak" => 2,
        _ if name.starts_with("rule.") => 2,
        // one number a network, which may have come as an array of one
        "mod.b" if shape[1..] == [1] => {
            shape.pop();
            1
        }
        _ => 0,
    };
    while shape.len() < axes {
        shape.insert(1, 1);
    }
    shape
}

impl Source for Arrays<'_> {
    fn names(&self) -> Vec<&str> {
        self.all.keys().map(String::as_str).collect()
    }

    fn find(&self, name: &str) -> Option<Vec<usize>> {
        self.all.get(name).map(|array| array.shape.clone())
    }

    fn read<S: Scalar>(&self, name: &str) -> Result<Vec<S>> {
        let none = || Error::tensor(name, "no such tensor", "a tensor of that name");
        let values: Vec<S> = match &self.all.get(name).ok_or_else(none)?.numbers {
            Numbers::F32(array) => numbers(array, |x| S::from_f64(f64::from(x))),
            Numbers::F64(array) => numbers(array, S::from_f64),
        };
        match S::first_not_finite(&values) {
            Some(k) => {
                let found = format!("{:?} at element {k}", values[k]);
                Err(Error::tensor(name, found, format!("numbers that are finite in {}", S::NAME)))
            }
            None => Ok(values),
        }
    }
}

/// The elements of an array, row-major.
fn numbers<T: Element + Copy, S>(array: &PyReadonlyArrayDyn<'_, T>, of: impl Fn(T) -> S) -> Vec<S> {
    match array.as_slice() {
        Ok(slice) => slice.iter().map(|&x| of(x)).collect(),
        Err(_) => array.as_array().iter().map(|&x| of(x)).collect(),
    }
}
