//! A trained network outside of the program: a page that runs it in a browser, or its tensors for NumPy
//! and other readers.

mod npz;
mod page;

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files;
use crate::model::{Network, Parameters};
use crate::random::Purpose;
use crate::task::{Recall, Sequence, Task};
use crate::tensors::{Output, write};

/// One trained network, and how it is shown stimuli.
#[derive(Clone, Debug)]
pub struct Exported {
    network: Network,
    parameters: Parameters<f32>,
    recall: Option<Recall>,
    sequence: Option<Sequence>,
    task: &'static str,
    origin: String,
    /// Which network of the run it is.
    number: usize,
}

impl Exported {
    /// Network `number` of a task's population; `origin` says when and from which seed it was trained.
    ///
    /// # Errors
    /// [`Error::Value`] where there is no such network, or the parameters are of others.
    pub fn new(
        task: &dyn Task,
        parameters: &Parameters<f32>,
        number: usize,
        origin: String,
    ) -> Result<Self> {
        let population = task.network();
        parameters.check(&population)?;
        let (network, parameters) = single_network(&population, parameters, number)?;
        Ok(Exported {
            network,
            parameters,
            recall: task.recall(),
            sequence: task.sequence(),
            task: task.name(),
            origin,
            number,
        })
    }

    /// What is not a tensor, as JSON.
    #[must_use]
    pub fn settings(&self) -> Value {
        let network = &self.network;
        let recall = self.recall.map(|recall| {
            let Recall { numbers, width, gain, clamped, binary, cycles, shown, blank, test } =
                recall;
            json!({
                "numbers": numbers, "width": width, "gain": gain, "clamped": clamped,
                "binary": binary, "cycles": cycles, "shown": shown, "blank": blank, "test": test,
            })
        });
        let sequence = self.sequence.map(|Sequence { length, bits, delay }| {
            json!({ "length": length, "bits": bits, "delay": delay })
        });
        json!({
            "schema": "hebbian.network/1",
            "version": env!("CARGO_PKG_VERSION"),
            "trained": self.origin,
            "task": self.task,
            "network": self.number,
            "neurons": network.n_post,
            "recurrent": network.recurrent,
            "rule": match &network.stages.rule {
                Some(rule) => rule.program.name(),
                None => network.rule.name(),
            },
            "activation": network.activation.name(),
            "clip": network.trace_clip(),
            "bias": network.stages.bias.is_some(),
            "leak": network.stages.leak.map(|(leak, _)| leak.name()),
            "recall": recall,
            "sequence": sequence,
        })
    }

    /// Writes the tensors and the settings as one safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn safetensors(&self, path: &Path) -> Result<()> {
        let output = |(name, shape, values)| Output { name, shape, values };
        let settings = HashMap::from([("settings".to_string(), self.settings().to_string())]);
        let outputs: Vec<Output<'_, f32>> = self.tensors().map(output).collect();
        write(path, &outputs, settings)
    }

    /// Writes the tensors and the settings as NumPy's archive of arrays.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Value`] past the format's 4 GiB.
    pub fn npz(&self, path: &Path) -> Result<()> {
        let mut archive = npz::Archive::new();
        for (name, shape, values) in self.tensors() {
            archive.add(&name, &npz::numbers(&shape, values))?;
        }
        archive.add("settings", &npz::text(&self.settings().to_string()))?;
        files::write(path, &archive.finish()?)
    }

    /// The page, with a few stimuli to try.
    ///
    /// # Errors
    /// [`Error::Value`] for a network that no page can show or that is too large for one.
    pub fn page(&self, examples: &[Vec<f32>]) -> Result<String> {
        page::page(self, examples)
    }

    /// Name, shape and numbers of each tensor.
    fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>, &[f32])> {
        let entries = self.parameters.layout().entries().iter();
        let values = self.parameters.network(0);
        entries.map(|e| (e.name.clone(), e.shape.clone(), &values[e.offset..][..e.len]))
    }
}

/// Network `number` of a population, with its parameters.
///
/// # Errors
/// [`Error::Value`] where there is no such network.
pub fn single_network(
    population: &Network,
    parameters: &Parameters<f32>,
    number: usize,
) -> Result<(Network, Parameters<f32>)> {
    if number >= population.n_networks {
        let wanted = format!("below {}", population.n_networks);
        return Err(Error::value("--network", number.to_string(), wanted));
    }
    let network = Network { n_networks: 1, ..population.clone() };
    let mut one = Parameters::zeros(&network);
    one.values_mut().copy_from_slice(parameters.network(number));
    Ok((network, one))
}

/// Stimuli of the task's held-out episodes, as a [`Recall`] takes them, or sequences, vector behind vector;
/// none of a task that shows neither.
#[must_use]
pub fn held_out_stimuli(task: &dyn Task, seed: u64, number: usize, count: usize) -> Vec<Vec<f32>> {
    if let Some(Sequence { length, bits, .. }) = task.sequence() {
        let episodes = task.episodes(seed, Purpose::HeldOut, 0, count);
        let observed = episodes.signals.observed.unwrap_or_default();
        let each = observed.chunks_exact(episodes.shape.n_steps * (bits + 1));
        let vectors = |seen: &[f32]| -> Vec<f32> {
            seen.chunks_exact(bits + 1)
                .take(length)
                .flat_map(|step| &step[..bits])
                .copied()
                .collect()
        };
        return each.skip(number * count).take(count).map(vectors).collect();
    }
    let Some(recall) = task.recall() else { return Vec::new() };
    // behind an episode's stimuli lie the blank and the test
    let each = task.shape(1).n_stimuli.saturating_sub(2).max(1);
    let n_batch = count.div_ceil(each);
    let episodes = task.episodes(seed, Purpose::HeldOut, 0, n_batch);
    let rows = episodes.shape.n_stimuli;
    let n = recall.numbers + 1;
    let stimuli = (number * n_batch..(number + 1) * n_batch)
        .flat_map(|e| (0..each).map(move |k| (e * rows + k) * n))
        .map(|at| &episodes.stimuli[at..at + recall.numbers]);
    stimuli.take(count).map(|row| row.iter().map(|v| v / recall.gain).collect()).collect()
}
