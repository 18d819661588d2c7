//! Training, and trained networks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use hebbian::cli::quietly;
use hebbian::engine::{Device, Engine};
use hebbian::error::Error;
use hebbian::memory::{Memory as Remembered, owner};
use hebbian::model::{Network as Spec, Parameters};
use hebbian::session::{self, Session};
use hebbian::task::{NetworkConfig, Recall};
use hebbian::train::{Moment, Run, resolve};
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray2};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engines::{give, take, threads};
use crate::errors::exception;

/// How often training asks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// Trains a run, new or going on, to its end; `record` sees each record as JSON. Returns its folder.
#[pyfunction]
#[pyo3(signature = (task, preset, settings, out, resume, record))]
pub(crate) fn train(
    py: Python<'_>,
    task: &str,
    preset: Option<&str>,
    settings: Vec<String>,
    out: Option<PathBuf>,
    resume: bool,
    record: Option<Py<PyAny>>,
) -> PyResult<PathBuf> {
    let open = |config: &_, network: &_| quietly(|| session::open(config, network));
    let mut session = py
        .detach(|| {
            let config = resolve(task, preset, None, &settings, toml::Table::new())?;
            match out.as_deref().filter(|_| resume) {
                Some(folder) => {
                    let updates = config.updates;
                    let change = |own: &mut hebbian::train::Config| {
                        own.updates = updates;
                        Ok(())
                    };
                    Session::resume(folder, None, change, open)
                }
                None => Session::start(config, out.as_deref(), open),
            }
        })
        .map_err(exception)?;
    let stop = AtomicBool::new(false);
    let (sender, mut receiver) = channel();
    let threads = threads().map_err(exception)?;
    let (finished, interrupt) = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let sender = sender;
            threads.install(|| {
                session.train(&stop, |_, record| {
                    // the caller may have left off listening
                    let _ = sender.send(serde_json::to_string(record).unwrap_or_default());
                    Ok(())
                })?;
                session.finish()
            })
        });
        let mut interrupt = None;
        loop {
            let waiting = &mut receiver;
            let result = match py.detach(move || waiting.recv_timeout(LOOK)) {
                Ok(text) => record.as_ref().map_or(Ok(()), |f| f.call1(py, (text,)).map(|_| ())),
                Err(RecvTimeoutError::Timeout) => py.check_signals(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Err(error) = result {
                stop.store(true, Ordering::Relaxed);
                interrupt.get_or_insert(error);
            }
        }
        (py.detach(|| worker.join()), interrupt)
    });
    if let Some(interrupt) = interrupt {
        return Err(interrupt);
    }
    let fault = |_| pyo3::exceptions::PyRuntimeError::new_err("a fault of hebbian's own");
    match finished.map_err(fault)?.map_err(exception)? {
        Some(_) => Ok(session.run().folder().to_path_buf()),
        None => Err(PyKeyboardInterrupt::new_err("stopped, with everything saved")),
    }
}

/// The settings of the table `[network]`.
#[pyfunction]
pub(crate) fn network_settings() -> Vec<String> {
    let table = toml::Table::try_from(NetworkConfig::paper()).expect("settings are a table");
    table.into_iter().map(|(key, _)| key).collect()
}

/// A trained network of a run.
#[pyfunction]
#[pyo3(signature = (folder, network, moment, device))]
pub(crate) fn load(
    folder: PathBuf,
    network: usize,
    moment: &str,
    device: &str,
) -> PyResult<Network> {
    Network::read(&folder, network, moment, device).map_err(exception)
}

/// One trained network.
#[pyclass(frozen, module = "hebbian_engine")]
pub(crate) struct Network {
    spec: Spec,
    parameters: Parameters<f32>,
    recall: Option<Recall>,
    device: Device,
}

impl Network {
    fn read(
        folder: &Path,
        chosen: usize,
        moment: &str,
        device: &str,
    ) -> hebbian::error::Result<Self> {
        let run = Run::open(folder)?;
        let task = run.config()?.task()?;
        let population = task.network();
        let parameters = run.parameters(&population, Moment::from_name(moment)?)?;
        if chosen >= population.n_networks {
            let wanted = format!("below {}", population.n_networks);
            return Err(Error::value("network", chosen.to_string(), wanted));
        }
        let spec = Spec { n_networks: 1, ..population };
        let mut one = Parameters::zeros(&spec);
        one.values_mut().copy_from_slice(parameters.network(chosen));
        let connections = spec.n_connections();
        if let Some(mask) = parameters.mask.get(chosen * connections..(chosen + 1) * connections) {
            one.mask = mask.to_vec();
        }
        let recall = task.recall();
        Ok(Network { spec, parameters: one, recall, device: Device::from_name(device)? })
    }
}

#[pymethods]
impl Network {
    /// Its parameters by the names of the case format.
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let answer = PyDict::new(py);
        for entry in self.parameters.layout().entries() {
            let values = self.parameters.get(0, entry.tensor);
            let array = PyArray1::from_slice(py, values).reshape(&entry.shape[..])?;
            answer.set_item(&entry.name, array)?;
        }
        Ok(answer)
    }

    /// The settings that its calls take as metadata.
    #[getter]
    fn metadata(&self) -> Vec<(&'static str, String)> {
        let spec = &self.spec;
        let mut all = match &spec.stages.rule {
            Some(rule) => {
                vec![("rule", "custom".to_string()), ("rule.text", rule.program.text().into())]
            }
            None => vec![("rule", spec.rule.name().into())],
        };
        all.push(("activation", spec.activation.name().into()));
        all.extend(spec.clip.map(|clip| ("clip", clip.to_string())));
        all.extend(spec.stages.leak.map(|(leak, _)| ("leak", leak.name().into())));
        all
    }

    /// Shows stimuli `[K, numbers]` one after another to a memory, `times` over (as in training where
    /// none).
    #[pyo3(signature = (stimuli, memory, times))]
    fn remember(
        &self,
        py: Python<'_>,
        stimuli: PyReadonlyArray2<'_, f32>,
        memory: Option<&Memory>,
        times: Option<usize>,
    ) -> PyResult<Memory> {
        let rows = self.rows(&stimuli)?;
        let how = self.recall.expect("rows asked for it");
        let mut remembered = match memory {
            Some(memory) => memory.remembered.clone(),
            None => Remembered::new(&self.spec, 1).map_err(exception)?,
        };
        let times = times.unwrap_or(how.cycles);
        self.each(py, (0..times).flat_map(|_| rows.chunks(1)), |engine, row| {
            remembered.remember(engine, &how, row, Some(1))
        })?;
        Ok(Memory { remembered, owner: owner(&self.parameters) })
    }

    /// What a memory makes of cues `[K, numbers]`, each by itself: the memory stays as it is.
    fn complete<'py>(
        &self,
        py: Python<'py>,
        memory: &Memory,
        cues: PyReadonlyArray2<'py, f32>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let rows = self.rows(&cues)?;
        let how = self.recall.expect("rows asked for it");
        if memory.owner != owner(&self.parameters) {
            let wanted = "a memory of this one";
            return Err(exception(Error::value("memory", "one of another network", wanted)));
        }
        let answers = self
            .each(py, rows.iter(), |engine, cue| memory.remembered.complete(engine, &how, cue))?;
        let shape = [rows.len(), how.numbers];
        Ok(PyArray1::from_vec(py, answers.concat()).reshape(shape)?.into_any())
    }
}

impl Network {
    /// Does work for each item on an engine with this network, on the threads that work, without Python's
    /// lock; Ctrl-C ends it between two of them.
    fn each<I: Send, T: Send>(
        &self,
        py: Python<'_>,
        items: impl Iterator<Item = I>,
        mut work: impl FnMut(&mut dyn Engine<f32>, I) -> hebbian::error::Result<T> + Send,
    ) -> PyResult<Vec<T>> {
        let threads = threads().map_err(exception)?;
        let (mut engine, _) = take::<f32>(self.device, &self.spec).map_err(exception)?;
        engine.set_parameters(&self.parameters).map_err(exception)?;
        let mut all = Vec::new();
        for item in items {
            py.check_signals()?;
            let one = || threads.install(|| work(&mut *engine, item));
            all.push(py.detach(one).map_err(exception)?);
        }
        give(self.device, engine, None);
        Ok(all)
    }

    /// Stimuli as this network is shown them.
    fn rows(&self, stimuli: &PyReadonlyArray2<'_, f32>) -> PyResult<Vec<Vec<f32>>> {
        let Some(how) = self.recall else {
            let found = "a run of the task custom";
            return Err(exception(Error::value("remember", found, "one of patterns or images")));
        };
        let array = stimuli.as_array();
        if array.ncols() != how.numbers {
            let found = format!("{} numbers each", array.ncols());
            return Err(exception(Error::tensor("stimuli", found, how.numbers.to_string())));
        }
        if let Some(value) = array.iter().find(|value| !value.is_finite()) {
            return Err(exception(Error::tensor("stimuli", format!("{value}"), "finite numbers")));
        }
        Ok(array.rows().into_iter().map(|row| row.to_vec()).collect())
    }
}

/// What a network remembers.
#[pyclass(frozen, module = "hebbian_engine")]
pub(crate) struct Memory {
    remembered: Remembered,
    owner: String,
}

#[pymethods]
impl Memory {
    /// Steps lived so far.
    #[getter]
    fn steps(&self) -> u64 {
        self.remembered.steps()
    }

    /// The trace H now, `[N, N]`.
    #[getter]
    fn h<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let h = self.remembered.h();
        let n = self.remembered.y().len();
        Ok(PyArray1::from_slice(py, h).reshape([n, n])?.into_any())
    }

    /// Writes the file that `hebbian recall --memory` reads.
    fn save(&self, path: PathBuf) -> PyResult<()> {
        self.remembered.write(&path, &self.owner).map_err(exception)
    }
}
