//! The run directory: everything a run leaves behind.
//!
//! `config.toml` (fully resolved), `environment.json`, `metrics.jsonl` (one [`Record`] a
//! line), `checkpoints/final.safetensors` (parameters, axes in the metadata),
//! `checkpoints/update-N.safetensors` (all that going on needs: the last two and the best),
//! `events.out.tfevents.hebbian` (the same records for TensorBoard), `report.html` and
//! `learning_curve.svg` (drawn by the commands).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::{Description, State};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Network, Parameters};
use crate::task::Task;
use crate::tensors::Tensors;
use crate::train::checkpoint::{AXES, Checkpoint, check_seal, read_parameters, sealed, tensors_of};
use crate::train::evaluate::without_plasticity;
use crate::train::events;
use crate::train::{Config, Position, Record, Scores, evaluate};

/// A run directory.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    metrics: Option<File>,
    events: Option<File>,
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
            None => Self::first_free(task)?,
        };
        let run = Run { folder, metrics: None, events: None };
        run.check_new()?;
        std::fs::create_dir_all(run.checkpoints())
            .map_err(|e| Error::io(&run.folder, "create", e))?;
        files::check_writable(&run.folder.join("config.toml"))?;
        Ok(run)
    }

    /// Makes the first free `runs/TASK-N`, which no other process gets then.
    fn first_free(task: &str) -> Result<PathBuf> {
        let io = |path: &Path, source| Error::io(path, "create", source);
        std::fs::create_dir_all("runs").map_err(|e| io(Path::new("runs"), e))?;
        for n in 1.. {
            let path = PathBuf::from(format!("runs/{task}-{n}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(path),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io(&path, e)),
            }
        }
        unreachable!("there is always a next number")
    }

    /// Refuses a folder that holds a run.
    fn check_new(&self) -> Result<()> {
        let records = std::fs::metadata(self.metrics_path()).map_or(0, |metrics| metrics.len());
        if records > 0 || self.folder.join("config.toml").exists() {
            return Err(Error::file(
                &self.folder,
                "a run",
                "a new folder (nothing is overwritten)",
            ));
        }
        Ok(())
    }

    /// Opens a finished run.
    ///
    /// # Errors
    /// [`Error::File`] if there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.join("config.toml").is_file() {
            return Err(Error::file(folder, "no run", "a folder that `hebbian train` made"));
        }
        Ok(Run { folder: folder.into(), metrics: None, events: None })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the folder for this process, and writes what is known before the first update.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] if another process has begun a run there meanwhile.
    pub fn begin(&mut self, config: &Config, device: &Description) -> Result<()> {
        self.hold_metrics()?;
        self.check_new()?;
        self.rewrite(config)?;
        self.describe(config, device)?;
        self.start_events()
    }

    /// Writes `environment.json`: what the run is trained on from now on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn describe(&self, config: &Config, device: &Description) -> Result<()> {
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
        files::write(&self.folder.join("environment.json"), text.as_bytes())
    }

    /// Writes the event file anew from the records so far, and keeps it open.
    fn start_events(&mut self) -> Result<()> {
        let path = self.folder.join(events::FILE);
        let records = self.records()?;
        let begun = now() - records.last().map_or(0.0, |record| record.seconds);
        let mut bytes = events::start(begun);
        for record in &records {
            bytes.extend(events::record(record, begun + record.seconds));
        }
        files::write(&path, &bytes)?;
        let file = OpenOptions::new().append(true).open(&path);
        self.events = Some(file.map_err(|e| Error::io(&path, "write", e))?);
        Ok(())
    }

    /// Keeps `metrics.jsonl` open, which a run that was killed early may not have yet, and other
    /// trainers away from the run.
    fn hold_metrics(&mut self) -> Result<()> {
        let path = self.metrics_path();
        let metrics = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Error::io(&path, "write", e))?;
        #[cfg(unix)]
        if metrics.try_lock().is_err() {
            let wanted = "a run that has stopped";
            return Err(Error::file(&self.folder, "a run at work in another process", wanted));
        }
        self.metrics = Some(metrics);
        files::remove_unfinished(&self.folder)?;
        files::remove_unfinished(&self.checkpoints())
    }

    /// Makes ready to go on from `position`: cuts off the records past it, and sets aside
    /// checkpoints past it (their names get `.aside` at the end).
    ///
    /// # Errors
    /// [`Error::File`] if another process trains the run, or records are missing.
    pub fn go_on(&mut self, position: &Position) -> Result<()> {
        let path = self.metrics_path();
        if self.metrics.is_none() {
            self.hold_metrics()?;
        }
        let file = self.metrics.as_ref().expect("held");
        let found = file.metadata().map_err(|e| Error::io(&path, "read", e))?.len();
        if found < position.metrics_bytes {
            let wanted = format!("{} or more, as the checkpoint counts", position.metrics_bytes);
            return Err(Error::file(path, format!("{found} bytes"), wanted));
        }
        for (update, path) in self.saved()? {
            if update > position.update {
                let mut aside = path.clone().into_os_string();
                aside.push(".aside");
                std::fs::rename(&path, aside).map_err(|e| Error::io(&path, "rename", e))?;
            }
        }
        file.set_len(position.metrics_bytes).map_err(|e| Error::io(&path, "write", e))?;
        self.start_events()
    }

    /// Bytes of `metrics.jsonl`, all on disk.
    pub(super) fn metrics_bytes(&self) -> Result<u64> {
        let file = self.metrics.as_ref().expect("begin ran");
        file.sync_data()
            .and_then(|()| file.metadata())
            .map(|metadata| metadata.len())
            .map_err(|e| Error::io(self.metrics_path(), "write", e))
    }

    fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }

    /// Where the checkpoint of an update lies.
    #[must_use]
    pub fn checkpoint_path(&self, update: u64) -> PathBuf {
        self.checkpoints().join(format!("update-{update}.safetensors"))
    }

    /// The checkpoints of the run by update, oldest first; whether they are whole is not
    /// looked at.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn saved(&self) -> Result<Vec<(u64, PathBuf)>> {
        let folder = self.checkpoints();
        let io = |source| Error::io(&folder, "read", source);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let update = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("update-")?.strip_suffix(".safetensors"))
                .and_then(|number| number.parse().ok());
            if let Some(update) = update {
                found.push((update, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The last checkpoint; none if the run was killed before its first. If the last one
    /// is damaged, the error names the last that is whole.
    ///
    /// # Errors
    /// Errors of [`Checkpoint::read`].
    pub fn last_checkpoint(&self) -> Result<Option<Checkpoint>> {
        let mut saved = self.saved()?;
        let Some((_, last)) = saved.pop() else { return Ok(None) };
        let error = match Checkpoint::read(&last) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error) => error,
        };
        let whole = saved.into_iter().rev().find(|(_, path)| Checkpoint::read(path).is_ok());
        let offer = match whole {
            Some((update, path)) => format!(
                "{error}\n{} is whole; to go on from it: hebbian train --resume {} --from {update}",
                path.display(),
                self.folder.display(),
            ),
            None => format!("{error}\nthere is no older one"),
        };
        Err(Error::Checkpoint(offer))
    }

    /// Writes a checkpoint and removes those that are neither among the last two nor the
    /// best.
    ///
    /// # Errors
    /// [`Error::Io`], naming the last good checkpoint; nothing is removed then.
    pub(super) fn keep(
        &self,
        config: &Config,
        state: &State<f32>,
        position: &Position,
    ) -> Result<()> {
        let path = self.checkpoint_path(position.update);
        let mut older = self.saved()?;
        let bytes = Checkpoint::serialise(config, state, position);
        if let Err(error) = files::write(&path, &bytes) {
            return Err(match older.last() {
                Some((_, last)) => Error::Checkpoint(format!(
                    "{error}\nthe last good checkpoint is {}; to go on from it: \
                     hebbian train --resume {}",
                    last.display(),
                    self.folder.display(),
                )),
                None => error,
            });
        }
        older.retain(|(update, _)| *update != position.update);
        older.pop();
        for (update, path) in older {
            if position.best.is_none_or(|best| best.update != update) {
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
            }
        }
        Ok(())
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rewrite(&self, config: &Config) -> Result<()> {
        files::write(&self.folder.join("config.toml"), config.to_toml().as_bytes())
    }

    /// Appends a record to `metrics.jsonl` and the event file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let path = self.metrics_path();
        let line = serde_json::to_string(record).expect("a record is plain data") + "\n";
        let file = self.metrics.as_mut().expect("begin ran");
        file.write_all(line.as_bytes()).map_err(|e| Error::io(path, "write", e))?;
        let path = self.folder.join(events::FILE);
        let event = events::record(record, now());
        let file = self.events.as_mut().expect("begin ran");
        file.write_all(&event).map_err(|e| Error::io(path, "write", e))
    }

    fn metrics_path(&self) -> PathBuf {
        self.folder.join("metrics.jsonl")
    }

    /// The learning curve's file.
    #[must_use]
    pub fn curve_path(&self) -> PathBuf {
        self.folder.join("learning_curve.svg")
    }

    /// The report's file.
    #[must_use]
    pub fn report_path(&self) -> PathBuf {
        self.folder.join("report.html")
    }

    /// What `environment.json` holds; null if it cannot be read.
    #[must_use]
    pub fn environment(&self) -> serde_json::Value {
        let text = std::fs::read(self.folder.join("environment.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
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
        let metadata = [
            ("format", "hebbian.parameters/1".into()),
            ("axes", AXES.into()),
            ("updates", updates.to_string()),
        ];
        files::write(&self.parameters_path(), &sealed(&tensors_of("", parameters), metadata))
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
        if !path.exists() {
            let wanted = "a run that has ended: hebbian train --resume goes on with it";
            return Err(Error::file(path, "no final parameters", wanted));
        }
        let bytes = files::read(&path)?;
        let tensors = Tensors::parse(&path, &bytes)?;
        check_seal(&path, &bytes, tensors.metadata().get("checksum"))?;
        read_parameters(&tensors, "", network)
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

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
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
