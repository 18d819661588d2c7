//! The run directory: everything a run leaves behind.
//!
//! `config.toml` (fully resolved), `environment.json`, `metrics.jsonl` (one [`Record`] a
//! line), `checkpoints/final.safetensors` (parameters, axes in the metadata),
//! `learning_curve.svg` (drawn by the commands).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::engine::Description;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Network, Parameters};
use crate::task::Task;
use crate::tensors::{Output, Tensors, write};
use crate::train::evaluate::without_plasticity;
use crate::train::{Config, Record, Scores, evaluate};

/// A run directory.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    metrics: Option<File>,
}

/// Held-out scores of a run's parameters, with and without plasticity.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// As trained.
    pub trained: Scores,
    /// With alpha = 0.
    pub without_plasticity: Scores,
}

impl Run {
    /// Starts a run in `folder`, which must not hold one already; none: the first free
    /// `runs/TASK-N`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] naming the folder.
    pub fn create(folder: Option<&Path>, task: &str) -> Result<Self> {
        let folder = match folder {
            Some(folder) => folder.to_path_buf(),
            None => (1..)
                .map(|n| PathBuf::from(format!("runs/{task}-{n}")))
                .find(|path| !path.exists())
                .expect("there is always a next number"),
        };
        if ["config.toml", "metrics.jsonl"].iter().any(|file| folder.join(file).exists()) {
            return Err(Error::file(folder, "a run", "a new folder (nothing is overwritten)"));
        }
        let checkpoints = folder.join("checkpoints");
        std::fs::create_dir_all(&checkpoints).map_err(|e| Error::io(&folder, "create", e))?;
        files::check_writable(&folder.join("config.toml"))?;
        Ok(Run { folder, metrics: None })
    }

    /// Opens a finished run.
    ///
    /// # Errors
    /// [`Error::File`] if there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.join("config.toml").is_file() {
            return Err(Error::file(folder, "no run", "a folder that `hebbian train` made"));
        }
        Ok(Run { folder: folder.into(), metrics: None })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes what is known before the first update.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin(&mut self, config: &Config, device: &Description) -> Result<()> {
        files::write(&self.folder.join("config.toml"), config.to_toml().as_bytes())?;
        let environment = serde_json::json!({
            "schema": "hebbian.environment/1",
            "version": env!("CARGO_PKG_VERSION"),
            "device": device.device,
            "driver": device.driver,
            "plan": device.plan,
            "memory_needed": device.memory_needed,
            "memory_available": device.memory_available,
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "seed": config.seed,
        });
        let text = format!("{environment:#}\n");
        files::write(&self.folder.join("environment.json"), text.as_bytes())?;
        let path = self.metrics_path();
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        self.metrics = Some(file.map_err(|e| Error::io(&path, "create", e))?);
        Ok(())
    }

    /// Appends a record to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let path = self.metrics_path();
        let line = serde_json::to_string(record).expect("a record is plain data") + "\n";
        let file = self.metrics.as_mut().expect("begin ran");
        file.write_all(line.as_bytes()).map_err(|e| Error::io(path, "write", e))
    }

    fn metrics_path(&self) -> PathBuf {
        self.folder.join("metrics.jsonl")
    }

    /// The learning curve's file.
    #[must_use]
    pub fn curve_path(&self) -> PathBuf {
        self.folder.join("learning_curve.svg")
    }

    /// The final parameters' file.
    #[must_use]
    pub fn parameters_path(&self) -> PathBuf {
        self.folder.join("checkpoints/final.safetensors")
    }

    /// Writes the parameters, after `updates` updates.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, parameters: &Parameters<f32>, updates: u64) -> Result<()> {
        let n = parameters.n_networks();
        let mut values = Vec::new();
        for entry in parameters.layout().entries() {
            let all: Vec<f32> =
                (0..n).flat_map(|p| parameters.get(p, entry.tensor)).copied().collect();
            let shape = [&[n], &entry.shape[..]].concat();
            values.push((entry.tensor.name(), shape, all));
        }
        let outputs: Vec<_> = values
            .iter()
            .map(|(name, shape, values)| Output {
                name: (*name).into(),
                shape: shape.clone(),
                values,
            })
            .collect();
        let axes = "w, alpha: network, pre, post; eta, mod.w, fanout.w, fanout.b: network, post; \
                    mod.b: network; an axis of 1 is shared";
        let metadata = HashMap::from([
            ("format".to_string(), "hebbian.parameters/1".to_string()),
            ("axes".to_string(), axes.to_string()),
            ("updates".to_string(), updates.to_string()),
        ]);
        write(&self.parameters_path(), &outputs, metadata)
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Value`].
    pub fn config(&self) -> Result<Config> {
        let path = self.folder.join("config.toml");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        Config::parse(&text)
    }

    /// The parameters, for networks of this kind.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::File`], [`Error::Tensor`].
    pub fn parameters(&self, network: &Network) -> Result<Parameters<f32>> {
        let path = self.parameters_path();
        let bytes = files::read(&path)?;
        let tensors = Tensors::parse(&path, &bytes)?;
        let mut parameters = Parameters::zeros(network);
        let n = network.n_networks;
        for entry in parameters.layout().clone().entries() {
            let name = entry.tensor.name();
            let (found, wanted) = (tensors.shape(name)?, [&[n], &entry.shape[..]].concat());
            if found != wanted {
                let (found, wanted) = (format!("shape {found:?}"), format!("{wanted:?}"));
                return Err(Error::tensor(name, found, wanted));
            }
            let values = tensors.read::<f32>(name)?;
            for (p, values) in values.chunks(entry.len).enumerate() {
                parameters.get_mut(p, entry.tensor).copy_from_slice(values);
            }
        }
        Ok(parameters)
    }

    /// Every record of `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::File`] naming the line that is no record.
    pub fn records(&self) -> Result<Vec<Record>> {
        let path = self.metrics_path();
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        text.lines()
            .enumerate()
            .map(|(k, line)| {
                serde_json::from_str(line).map_err(|e| {
                    Error::file(&path, format!("line {}: {e}", k + 1), "a record a line")
                })
            })
            .collect()
    }
}

impl Outcome {
    /// Scores `parameters` on held-out episodes, with and without plasticity, and leaves
    /// them in the engine.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn measure(
        task: &dyn Task,
        engine: &mut dyn crate::engine::Engine<f32>,
        parameters: &Parameters<f32>,
        seed: u64,
        n_episodes: usize,
    ) -> Result<Self> {
        engine.set_parameters(&without_plasticity(parameters))?;
        let without_plasticity = evaluate(task, engine, seed, n_episodes)?;
        engine.set_parameters(parameters)?;
        let trained = evaluate(task, engine, seed, n_episodes)?;
        Ok(Outcome { trained, without_plasticity })
    }
}
