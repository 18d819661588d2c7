//! The run directory: everything a run leaves behind.
//!
//! `config.toml` (fully resolved), `environment.json` (with an entry for every start), `metrics.jsonl` (one [`Record`] a
//! line), `checkpoints/final.safetensors` (parameters, axes in the metadata),
//! `checkpoints/update-N.safetensors` (all that going on needs: the last two and the best),
//! `events.out.tfevents.hebbian` (the same records for TensorBoard), `report.html` and
//! `learning_curve.svg` (drawn by the commands).

use std::fs::{File, OpenOptions, TryLockError};
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
use crate::train::{Config, Position, Record, Scores, evaluate};
use crate::train::{events, origin};

/// A run directory.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    metrics: Option<File>,
    events: Option<File>,
    /// What the task's error is called in the event file.
    error_name: &'static str,
    warnings: Vec<String>,
}

/// A moment of training whose parameters are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moment {
    /// The end, or the stop on request.
    #[default]
    End,
    /// The last checkpoint, of a run that was killed or diverged too.
    Last,
    /// The checkpoint with the lowest error.
    Best,
    /// The checkpoint of that update.
    Update(u64),
}

impl Moment {
    /// Reads final, last, best or the number of an update.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "final" => Ok(Moment::End),
            "last" => Ok(Moment::Last),
            "best" => Ok(Moment::Best),
            _ => name.parse().map(Moment::Update).map_err(|_| {
                let wanted = "final, last, best or the number of an update";
                Error::value("--update", format!("\"{name}\""), wanted)
            }),
        }
    }
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
        let run = Run::of(folder);
        run.check_new()?;
        std::fs::create_dir_all(run.checkpoints())
            .map_err(|e| Error::io(&run.folder, "create", e))?;
        files::check_writable(&run.folder.join("config.toml"))?;
        Ok(run)
    }

    fn of(folder: PathBuf) -> Self {
        Run { folder, metrics: None, events: None, error_name: "error", warnings: Vec::new() }
    }

    /// Makes the first free `runs/TASK-N`, which no other process gets then.
    pub(crate) fn first_free(task: &str) -> Result<PathBuf> {
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
        if self.has_records() || self.folder.join("config.toml").exists() {
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
        Ok(Run::of(folder.into()))
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
    pub fn begin(&mut self, config: &Config, task: &dyn Task, device: &Description) -> Result<()> {
        self.error_name = task.error_name();
        self.hold_metrics()?;
        self.check_new()?;
        self.rewrite(config)?;
        self.describe(config, task, device)?;
        if let Some((name, text)) = task.notes() {
            files::write(&self.folder.join(name), text.as_bytes())?;
        }
        self.start_events()
    }

    /// Writes `environment.json`: what the run is trained on from now on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn describe(&self, config: &Config, task: &dyn Task, device: &Description) -> Result<()> {
        let mut starts = self.environment()["starts"].as_array().cloned().unwrap_or_default();
        starts.push(serde_json::json!({
            "date": origin::date(now()),
            "host": origin::host(),
            "processor": origin::processor(),
            "command": std::env::args_os()
                .map(|word| files::quoted(Path::new(&word)))
                .collect::<Vec<_>>()
                .join(" "),
            "version": env!("CARGO_PKG_VERSION"),
            "commit": option_env!("HEBBIAN_COMMIT"),
            "device": device.device,
        }));
        let environment = serde_json::json!({
            "schema": "hebbian.environment/2",
            "version": env!("CARGO_PKG_VERSION"),
            "device": device.device,
            "driver": device.driver,
            "plan": device.plan.to_string(),
            "memory_needed": device.memory_needed,
            "memory_available": device.memory_available,
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "seed": config.seed,
            "seeds_share_start": task.shares_start(),
            "starts": starts,
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
            bytes.extend(events::record(record, self.error_name, begun + record.seconds));
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
        match metrics.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let wanted = "a run that has stopped";
                return Err(Error::file(&self.folder, "a run at work in another process", wanted));
            }
            Err(TryLockError::Error(_)) => self.warnings.push(
                "this file system knows no locks: nothing keeps another process from training \
                 this run"
                    .into(),
            ),
        }
        self.metrics = Some(metrics);
        files::remove_unfinished(&self.folder)?;
        files::remove_unfinished(&self.checkpoints())
    }

    /// Makes ready to go on with `task` from `position`: cuts off the records past it.
    ///
    /// # Errors
    /// [`Error::File`] if another process trains the run, or records up to there are missing or
    /// damaged; nothing was changed then.
    pub fn go_on(&mut self, config: &Config, task: &dyn Task, position: &Position) -> Result<()> {
        self.error_name = task.error_name();
        if self.metrics.is_none() {
            self.hold_metrics()?;
        }
        let path = self.metrics_path();
        let text = std::fs::read(&path).map_err(|e| Error::io(&path, "read", e))?;
        let kept = kept(&path, &text, config, position.update)?;
        if kept == 0 && position.update >= config.log_every {
            let lost = position.update;
            self.warnings.push(format!("metrics.jsonl has no records up to update {lost}"));
        }
        let mut file = self.metrics.as_ref().expect("held");
        let io = |e| Error::io(&path, "write", e);
        file.set_len(kept).map_err(io)?;
        let ends = |kept: u64| usize::try_from(kept).is_ok_and(|k| text[..k].ends_with(b"\n"));
        if kept > 0 && !ends(kept) {
            file.write_all(b"\n").map_err(io)?;
        }
        self.start_events()
    }

    /// What the user should know of this folder.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A new run in `folder` that goes on from `checkpoint`, with the records up to it; this one
    /// stays as it is.
    ///
    /// # Errors
    /// As [`Run::create`] and [`Run::go_on`].
    pub fn branch(&self, folder: &Path, config: &Config, checkpoint: &Checkpoint) -> Result<Self> {
        let update = checkpoint.position.update;
        let path = self.metrics_path();
        let text = if path.exists() { files::read(&path)? } else { Vec::new() };
        let kept = kept(&path, &text, config, update)?;
        let new = Run::create(Some(folder), "")?;
        new.rewrite(config)?;
        files::write(&new.checkpoint_path(update), checkpoint.bytes())?;
        // the best one goes along, where it is still there
        if let Some(best) = checkpoint.position.best.filter(|best| best.update != update) {
            let bytes = files::read(&self.checkpoint_path(best.update));
            bytes.and_then(|bytes| files::write(&new.checkpoint_path(best.update), &bytes))?;
        }
        let kept = usize::try_from(kept).unwrap_or(text.len());
        files::write(&new.metrics_path(), &text[..kept])?;
        Ok(new)
    }

    /// Puts all records on disk.
    pub(super) fn sync_metrics(&self) -> Result<()> {
        let file = self.metrics.as_ref().expect("begin ran");
        file.sync_data().map_err(|e| Error::io(self.metrics_path(), "write", e))
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
                "{error}\n{} is whole; to go on from it in a new folder: hebbian train --resume {} \
                 --from {update} --out NEW",
                path.display(),
                files::quoted(&self.folder),
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
                    files::quoted(&self.folder),
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
        let config = config.as_seen_from(&self.folder);
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
        let event = events::record(record, self.error_name, now());
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

    /// Whether any update was recorded.
    pub(super) fn has_records(&self) -> bool {
        std::fs::metadata(self.metrics_path()).is_ok_and(|metrics| metrics.len() > 0)
    }

    /// What `environment.json` holds; null if it cannot be read.
    #[must_use]
    pub fn environment(&self) -> serde_json::Value {
        let text = std::fs::read(self.folder.join("environment.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Which run it is, for titles: folder, date of its first start, seed.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}, {}", self.folder.display(), self.origin())
    }

    /// Date of its first start and seed, for what others are given.
    #[must_use]
    pub fn origin(&self) -> String {
        let environment = self.environment();
        let date = environment["starts"][0]["date"].as_str().unwrap_or_default();
        let date = date.split('T').next().unwrap_or_default();
        format!("{date}, seed {}", environment["seed"])
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
        Ok(Config::parse(&text)?.kept_in(&self.folder))
    }

    /// The parameters at a moment of training, for networks of this kind.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::File`], [`Error::Tensor`].
    pub fn parameters(&self, network: &Network, moment: Moment) -> Result<Parameters<f32>> {
        let none = || Error::file(&self.folder, "no checkpoint", "one to take parameters from");
        let checkpoint = match moment {
            Moment::End => return self.final_parameters(network),
            Moment::Update(update) => Checkpoint::read(&self.checkpoint_path(update))?,
            Moment::Last => self.last_checkpoint()?.ok_or_else(none)?,
            Moment::Best => {
                let last = self.last_checkpoint()?.ok_or_else(none)?;
                let best = last.position.best.ok_or_else(|| {
                    Error::file(&self.folder, "no best checkpoint yet", "one that was scored")
                })?;
                Checkpoint::read(&self.checkpoint_path(best.update))?
            }
        };
        Ok(checkpoint.state(network)?.parameters)
    }

    fn final_parameters(&self, network: &Network) -> Result<Parameters<f32>> {
        let path = self.parameters_path();
        if !path.exists() {
            let wanted = "a run that has ended: hebbian train --resume goes on with it, --update \
                          last takes its last checkpoint";
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

/// Bytes of the records up to an update, whatever ends their lines: every so many updates have one,
/// from the first record on. None where the file has no record up to there.
fn kept(path: &Path, text: &[u8], config: &Config, update: u64) -> Result<u64> {
    let every = config.log_every;
    let wrong = |found: String| {
        let wanted = format!("records up to update {update}, as saved; nothing was changed");
        Err(Error::file(path, found, wanted))
    };
    let (mut kept, mut last) = (0, None);
    for (k, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        match serde_json::from_slice::<Record>(line) {
            Ok(record) if record.update > update => break,
            Ok(record) if record.update.is_multiple_of(every) => {
                if last.is_some_and(|last| last + every != record.update) {
                    return wrong(format!(
                        "line {}: update {}, out of order",
                        k + 1,
                        record.update
                    ));
                }
                last = Some(record.update);
            }
            // where held-out episodes were scored
            Ok(_) => {}
            // a record that was cut short by a kill comes after those that are saved
            Err(_) if last == Some(update - update % every) => break,
            Err(e) => return wrong(format!("line {}: {e}", k + 1)),
        }
        kept += line.len() as u64;
    }
    match last {
        Some(last) if last + every <= update => wrong(format!("records up to update {last}")),
        _ => Ok(kept),
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
