//! Networks that live step by step, where their engine is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, TryLockError};

use hebbian::case::{Case, Named};
use hebbian::engine::{Device, Engine, Held, LifeId, Want, check_memory};
use hebbian::error::{Error, Result};
use hebbian::model::{Episodes, Network, Scalar};
use numpy::{Element, PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::Arrays;
use crate::engines::{Runs, give, on_this_thread, take, threads};
use crate::errors::{exception, of_call, spelled};

/// Connections of a step below which no other thread is woken: some 50 microseconds.
const FEW: usize = 1 << 19;

/// Lives of a batch. Its traces stay where the engine is; arrays of one step go in and out.
#[pyclass(frozen, module = "hebbian_engine._native")]
pub(crate) struct Life {
    living: Mutex<Living>,
}

enum Living {
    F32(Alive<f32>),
    F64(Alive<f64>),
}

struct Alive<S: Runs> {
    process: u32,
    population: bool,
    device: Device,
    /// Until it is dropped.
    engine: Option<Box<dyn Engine<S>>>,
    id: LifeId,
    /// Before the first step.
    start: Held<S>,
    /// A batch of one step, of which each step replaces the numbers.
    step: Episodes<S>,
    /// Arrays that the parameters are made from, and what was compared of them then.
    watched: Vec<(Py<PyArrayDyn<S>>, Vec<S>)>,
}

#[pymethods]
impl Life {
    /// Begins lives with the parameters and start values among `arrays`; those of the step's data give
    /// their shapes, one step long. With `now`, arrays alike, they begin where its start values say, and
    /// go back to those of `arrays`.
    #[new]
    #[pyo3(signature = (arrays, metadata, device, precision, now))]
    fn new(
        arrays: &Bound<'_, PyDict>,
        metadata: HashMap<String, String>,
        device: &str,
        precision: &str,
        now: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let arrays = Arrays::new(arrays)?;
        let now = now.map(Arrays::new).transpose()?;
        let now = now.as_ref();
        let device = Device::from_name(device).map_err(exception)?;
        let refused = |error| of_call(error, arrays.population());
        let living = match precision {
            "f64" => Living::F64(Alive::new(&arrays, &metadata, device, now).map_err(refused)?),
            _ => Living::F32(Alive::new(&arrays, &metadata, device, now).map_err(refused)?),
        };
        Ok(Life { living: Mutex::new(living) })
    }

    /// One step. Returns y and, of networks that have one, the read-out. Networks marked by `rows`, in the
    /// order of memory, go back to their start first.
    #[pyo3(signature = (data, rows))]
    fn step<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyDict>,
        rows: Option<Vec<bool>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        match &mut *self.living()? {
            Living::F32(alive) => alive.step(py, data, rows.as_deref()),
            Living::F64(alive) => alive.step(py, data, rows.as_deref()),
        }
    }

    /// The parameters among `arrays` from now on; the other arrays as at the beginning. `watched` share
    /// their memory with what the parameters are made from.
    fn set_parameters(
        &self,
        arrays: &Bound<'_, PyDict>,
        metadata: HashMap<String, String>,
        watched: Vec<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let arrays = Arrays::new(arrays)?;
        match &mut *self.living()? {
            Living::F32(alive) => alive.set_parameters(&arrays, &metadata, watched),
            Living::F64(alive) => alive.set_parameters(&arrays, &metadata, watched),
        }
    }

    /// Whether what is watched has changed: all of it up to a size, of larger arrays a sample.
    fn changed(&self, py: Python<'_>) -> PyResult<bool> {
        match &*self.living()? {
            Living::F32(alive) => alive.changed(py),
            Living::F64(alive) => alive.changed(py),
        }
    }

    /// y, h and what else the networks hold now, by names of the case format.
    fn held<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        match &mut *self.living()? {
            Living::F32(alive) => alive.held(py),
            Living::F64(alive) => alive.held(py),
        }
    }
}

impl Life {
    /// Not waited for: who waits holds Python's lock, which who works wants back.
    fn living(&self) -> PyResult<MutexGuard<'_, Living>> {
        match self.living.try_lock() {
            Ok(living) => Ok(living),
            Err(TryLockError::Poisoned(living)) => Ok(living.into_inner()),
            Err(TryLockError::WouldBlock) => {
                let found = "one that another thread is using";
                Err(exception(Error::value("state", found, "one state a thread")))
            }
        }
    }
}

/// Numbers of a watched array that are compared: all, or as many of them.
const SAMPLED: usize = 1 << 14;

impl<S: Runs + Element> Alive<S> {
    fn new(
        arrays: &Arrays<'_>,
        metadata: &HashMap<String, String>,
        device: Device,
        now: Option<&Arrays<'_>>,
    ) -> Result<Self> {
        let Case { network, parameters, mut episodes, .. } = Case::<S>::assemble(arrays, metadata)?;
        let total = (network.n_networks * episodes.shape.n_batch) as u64;
        let traces = (network.n_traces() * network.n_connections() * size_of::<S>()) as u64;
        // where they live, and their start
        check_memory("the traces of these lives", (2 * total).saturating_mul(traces))?;
        let start = start_of(&network, &mut episodes);
        let (mut engine, _) = take::<S>(device, &network)?;
        engine.set_parameters(&parameters)?;
        let id = match now {
            Some(now) => {
                let mut episodes = Case::<S>::assemble(now, metadata)?.episodes;
                engine.wake(&start_of(&network, &mut episodes))?
            }
            None => engine.wake(&start)?,
        };
        Ok(Alive {
            process: std::process::id(),
            population: arrays.population(),
            device,
            engine: Some(engine),
            id,
            start,
            step: episodes,
            watched: Vec::new(),
        })
    }

    fn engine(&mut self) -> Result<&mut dyn Engine<S>> {
        if self.process != std::process::id() {
            let found = "a state of the process that this one was forked from";
            let wanted = "one of its own, or its tensors";
            return Err(Error::value("state", found, wanted));
        }
        Ok(&mut **self.engine.as_mut().expect("it is there until the end"))
    }

    fn step<'py>(
        &mut self,
        py: Python<'py>,
        data: &Bound<'py, PyDict>,
        rows: Option<&[bool]>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.read(data)?;
        if let Some(rows) = rows {
            py.detach(|| self.set_back(rows)).map_err(exception)?;
        }
        let b = self.step.shape.n_batch;
        let network = self.engine().map_err(exception)?.network();
        let (p, n) = (network.n_networks, network.n_post);
        let o = network.stages.output.map(|layer| layer.size);
        let work = p * b * network.n_connections();
        let out = py.detach(|| {
            let (id, step) = (self.id, &self.step);
            let engine = &mut **self.engine.as_mut().expect("it is there until the end");
            let live = || engine.live(id, step, Want::default());
            if work < FEW { on_this_thread(live) } else { threads()?.install(live) }
        });
        let out = out.map_err(|error| of_call(error, self.population))?;
        let answer = PyDict::new(py);
        let results = [("y", Some(n), out.y_last), ("out", o, out.out)];
        for (name, size, values) in results {
            let Some(size) = size else { continue };
            if let Some(k) = S::first_not_finite(&values) {
                let what = format!("{name}, element {k} of {},", values.len());
                return Err(exception(Error::Diverged { what, update: None }));
            }
            let named = Named { name: name.into(), shape: vec![p, b, size], values };
            answer.set_item(name, array(py, named, self.population)?)?;
        }
        Ok(answer)
    }

    /// Takes the numbers of a step.
    fn read(&mut self, data: &Bound<'_, PyDict>) -> PyResult<()> {
        let step = &mut self.step;
        for (name, value) in data {
            let name: &str = &name.extract::<String>()?;
            let numbers = match name {
                "input" => Some(&mut step.stimuli),
                "clamp" => step.clamps.as_mut(),
                "pre" => step.pre.as_mut(),
                "obs" => step.signals.observed.as_mut(),
                "m.input" => step.signals.m.as_mut(),
                _ => None,
            };
            let Some(numbers) = numbers else {
                let wanted = "what the first step brought";
                return Err(exception(Error::tensor(&spelled(name), "given", wanted)));
            };
            let array = value.extract::<PyReadonlyArrayDyn<'_, S>>()?;
            let slice = array.as_slice()?;
            if slice.len() != numbers.len() {
                let found = format!("{} numbers", slice.len());
                let wanted = format!("{}, as at the first step", numbers.len());
                return Err(exception(Error::tensor(&spelled(name), found, wanted)));
            }
            if let Some(k) = S::first_not_finite(slice) {
                let found = format!("{:?} at element {k}", slice[k]);
                return Err(exception(Error::tensor(&spelled(name), found, "finite numbers")));
            }
            if name == "clamp"
                && let Some(k) = slice.iter().position(|&v| v != S::ZERO && v != S::ONE)
            {
                let found = format!("{:?} at element {k}", slice[k]);
                return Err(exception(Error::tensor(name, found, "0 or 1")));
            }
            numbers.copy_from_slice(slice);
        }
        Ok(())
    }

    fn set_back(&mut self, rows: &[bool]) -> Result<()> {
        let marked = |(k, &marked): (usize, &bool)| marked.then_some(k);
        let memories: Vec<usize> = rows.iter().enumerate().filter_map(marked).collect();
        let id = self.id;
        self.engine()?;
        let engine = self.engine.as_mut().expect("it is there until the end");
        engine.set_back(id, &memories, &self.start)
    }

    fn set_parameters(
        &mut self,
        arrays: &Arrays<'_>,
        metadata: &HashMap<String, String>,
        watched: Vec<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let case = Case::<S>::assemble(arrays, metadata);
        let set = case.and_then(|case| self.engine()?.set_parameters(&case.parameters));
        set.map_err(|error| of_call(error, arrays.population()))?;
        let watch = |array: Bound<'_, PyAny>| {
            let array = array.cast_into::<PyArrayDyn<S>>()?;
            let kept = sample(array.readonly().as_slice()?);
            Ok((array.unbind(), kept))
        };
        self.watched = watched.into_iter().map(watch).collect::<PyResult<_>>()?;
        Ok(())
    }

    fn changed(&self, py: Python<'_>) -> PyResult<bool> {
        for (array, kept) in &self.watched {
            let array = array.bind(py).readonly();
            let now = array.as_slice()?;
            let same = match now.len() <= SAMPLED {
                true => now == kept,
                false => sample(now) == *kept,
            };
            if !same {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn held<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let id = self.id;
        let engine = self.engine().map_err(exception)?;
        let held = engine.held(id).map_err(exception)?;
        let network = engine.network();
        let (p, b) = (network.n_networks, held.n_memories);
        let (m, n) = (network.n_pre, network.n_post);
        let mut lists = vec![
            ("y".to_string(), vec![n], held.y),
            ("h".into(), vec![m, n], held.h),
            ("e".into(), vec![m, n], held.e),
            ("v".into(), vec![n], held.v),
        ];
        if let Some(rule) = &network.stages.rule {
            let states = rule.states(m, n).zip(held.rule);
            let named =
                states.map(|((s, axes), values)| (format!("rule.{}", s.name), axes, values));
            lists.extend(named);
        }
        let answer = PyDict::new(py);
        for (name, axes, values) in lists.into_iter().filter(|(_, _, values)| !values.is_empty()) {
            let named = Named { name: name.clone(), shape: [&[p, b], &axes[..]].concat(), values };
            answer.set_item(name, array(py, named, self.population)?)?;
        }
        Ok(answer)
    }
}

impl<S: Runs> Drop for Alive<S> {
    fn drop(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        if self.process != std::process::id() {
            // its threads and drivers are those of another process
            return std::mem::forget(engine);
        }
        if engine.rest(self.id).is_ok() {
            give(self.device, engine, None);
        }
    }
}

/// All of some numbers, or [`SAMPLED`] of them.
fn sample<S: Copy>(numbers: &[S]) -> Vec<S> {
    numbers.iter().step_by(numbers.len().div_ceil(SAMPLED).max(1)).copied().collect()
}

/// What networks hold before the first step, taken out of a batch.
fn start_of<S: Scalar>(network: &Network, episodes: &mut Episodes<S>) -> Held<S> {
    let mut held = Held::newborn(network, episodes.shape.n_batch);
    let given = [
        (&mut held.y, episodes.y0.take()),
        (&mut held.h, episodes.h0.take()),
        (&mut held.e, episodes.e0.take()),
        (&mut held.v, episodes.signals.v0.take()),
    ];
    let of_rule = std::mem::take(&mut episodes.signals.rule0);
    for (start, given) in given.into_iter().chain(held.rule.iter_mut().zip(of_rule)) {
        if let Some(given) = given {
            *start = given;
        }
    }
    held
}

/// Numbers as an array, without the axis of networks where there is one network.
fn array<'py, S: Element>(
    py: Python<'py>,
    named: Named<S>,
    population: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let shape = if population { &named.shape[..] } else { &named.shape[1..] };
    Ok(PyArray1::from_vec(py, named.values).reshape(shape)?.into_any())
}
