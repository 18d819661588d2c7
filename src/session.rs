//! A run from its start, or from where it was left, to its end: what the command, and a program of
//! one's own, say in three words.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//!
//! use hebbian::session::{Session, open};
//! use hebbian::train::resolve;
//!
//! # fn main() -> hebbian::error::Result<()> {
//! let config = resolve("patterns", None, None, &["updates=500".into()], toml::Table::new())?;
//! let mut session = Session::start(config, None, open)?;
//! session.train(&AtomicBool::new(false), |_task, record| {
//!     println!("{} {:?}", record.update, record.loss);
//!     Ok(())
//! })?;
//! let outcome = session.finish()?.expect("nothing stopped it");
//! println!("{}", outcome.trained.mean());
//! # Ok(())
//! # }
//! ```

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::engine::{Description, Device, Engine, PlanChoice, Storage, Want, open_with};
use crate::error::{Error, Result};
use crate::files;
use crate::model::Network;
use crate::report::{RunReport, learning_curve, run_report};
use crate::task::Task;
use crate::train::{
    Config, Evolution, Method, Outcome, Position, Record, Run, differing, fit, guess_error, resume,
    resume_at, samples,
};
use crate::verify;

/// Held-out episodes that the report shows.
const SAMPLES: usize = 6;

/// The engine that a configuration asks for.
///
/// # Errors
/// As [`open_with`].
pub fn open(config: &Config, network: &Network) -> Result<Box<dyn Engine<f32>>> {
    let plan = PlanChoice::from_name(&config.plan)?;
    let traces = Storage::from_name(&config.traces)?;
    open_with(Device::from_name(&config.device)?, network, plan, traces)
}

/// A run that is being trained. Its folder belongs to it until it is dropped.
pub struct Session {
    run: Run,
    config: Config,
    task: Box<dyn Task>,
    engine: Box<dyn Engine<f32>>,
    method: Method,
    position: Position,
    description: Description,
    /// Its device before, where that was another.
    moved_from: Option<String>,
    /// Whether training ended in an error: the engine is further than what is saved.
    failed: bool,
}

impl Session {
    /// Starts a run in `folder`, or in the first free `runs/TASK-N`. A rule of one's own is compared
    /// with finite differences first.
    ///
    /// # Errors
    /// Settings or data that do not fit; a rule whose gradient is wrong; a folder with a run; errors of
    /// the engine. No folder is made then.
    pub fn start(
        mut config: Config,
        folder: Option<&Path>,
        open: impl Fn(&Config, &Network) -> Result<Box<dyn Engine<f32>>>,
    ) -> Result<Self> {
        let task = config.task()?;
        let network = task.network();
        if let Some(rule) =
            network.stages.rule.as_ref().filter(|_| !config.network.rule_text.is_empty())
        {
            verify::check_rule(rule)?;
        }
        let (mut engine, method, description) = ready(&config, &*task, open)?;
        engine.set_parameters(&config.initial(&*task)?)?;
        let mut run = Run::create(folder, task.name())?;
        run.begin(&config, &*task, &description)?;
        let (position, moved_from) = (Position::start(), None);
        let failed = false;
        Ok(Session { run, config, task, engine, method, position, description, moved_from, failed })
    }

    /// Goes on with the run in `folder` from its last checkpoint; with `branch`, from the checkpoint of
    /// that update and in that new folder. `change` may set `updates`, `device` and where the data lie.
    ///
    /// # Errors
    /// No run, or one that another process trains; another checkpoint's settings; errors of the engine.
    pub fn resume(
        folder: &Path,
        branch: Option<(u64, &Path)>,
        change: impl FnOnce(&mut Config) -> Result<()>,
        open: impl Fn(&Config, &Network) -> Result<Box<dyn Engine<f32>>>,
    ) -> Result<Self> {
        let (mut run, mut config, checkpoint) = match branch {
            Some((update, _)) => {
                let (run, config, checkpoint) = resume_at(folder, update)?;
                (run, config, Some(checkpoint))
            }
            None => resume(folder)?,
        };
        let before = config.clone();
        change(&mut config)?;
        let task = config.task()?;
        let (mut engine, method, description) = ready(&config, &*task, open)?;
        let position = match &checkpoint {
            Some(checkpoint) => {
                engine.set_state(&checkpoint.state(&task.network())?)?;
                checkpoint.position
            }
            None => {
                engine.set_parameters(&config.initial(&*task)?)?;
                Position::start()
            }
        };
        if position.update > config.updates {
            let wanted = format!("{} or more, as are done", position.update);
            return Err(Error::value("--updates", config.updates.to_string(), wanted));
        }
        // a branch is made when nothing else can fail
        if let (Some((_, new)), Some(checkpoint)) = (branch, &checkpoint) {
            run = run.branch(new, &before, checkpoint)?;
        }
        run.go_on(&config, &*task, &position)?;
        let device_before = run.environment()["device"].as_str().map(String::from);
        run.describe(&config, &*task, &description)?;
        if config != before {
            run.rewrite(&config)?;
        }
        let moved_from = device_before.filter(|name| *name != description.device);
        let failed = false;
        Ok(Session { run, config, task, engine, method, position, description, moved_from, failed })
    }

    /// Starts a run in `folder`, or goes on with the one that is there, whose settings must be these but
    /// for the number of updates and the device.
    ///
    /// # Errors
    /// [`Error::File`] for a run of other settings; as [`Session::start`] and [`Session::resume`].
    pub fn start_or_resume(
        mut config: Config,
        folder: &Path,
        open: impl Fn(&Config, &Network) -> Result<Box<dyn Engine<f32>>>,
    ) -> Result<Self> {
        if !folder.join("config.toml").is_file() {
            return Self::start(config, Some(folder), open);
        }
        let task = config.task()?;
        config.initial(&*task)?;
        let mut own = Run::open(folder)?.config()?;
        (own.updates, own.device) = (config.updates, config.device.clone());
        if own != config {
            let [found, wanted] = differing(&own, &config);
            let found = format!("a run of other settings: {found}");
            return Err(Error::file(folder, found, format!("{wanted}, or another folder")));
        }
        let change = |own: &mut Config| {
            (own.updates, own.device) = (config.updates, config.device.clone());
            Ok(())
        };
        Self::resume(folder, None, change, open)
    }

    /// The run's folder and files.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is trained on.
    #[must_use]
    pub fn task(&self) -> &dyn Task {
        &*self.task
    }

    /// Where it is trained.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// How far it has come.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Its device before, where a run that goes on was on another: its bits are no longer the same.
    #[must_use]
    pub fn moved_from(&self) -> Option<&str> {
        self.moved_from.as_deref()
    }

    /// Trains until all updates are done or `stop` is set, and saves the parameters; `record` sees each
    /// record after it is written, with the task. Returns the updates done.
    ///
    /// # Errors
    /// As [`fit`]; what was saved before stays, and [`Session::resume`] goes on from it: this session
    /// does not.
    pub fn train(
        &mut self,
        stop: &AtomicBool,
        mut record: impl FnMut(&dyn Task, &Record) -> Result<()>,
    ) -> Result<u64> {
        if std::mem::replace(&mut self.failed, true) {
            let wanted = "Session::resume, from what was saved";
            return Err(Error::value("session", "one whose training ended in an error", wanted));
        }
        let Session { run, config, task, engine, method, position, .. } = self;
        let task = &**task;
        let mut record = |one: &Record| record(task, one);
        let what = (&*config, task, method);
        *position = fit(run, what, &mut **engine, *position, stop, &mut record)?;
        self.run.save(&self.engine.parameters()?, self.position.update)?;
        self.failed = false;
        Ok(self.position.update)
    }

    /// Scores held-out episodes, with plasticity and without, and writes the learning curve and the
    /// page. A run that was stopped before its end is not scored.
    ///
    /// # Errors
    /// Errors of the engine; files that cannot be written.
    pub fn finish(&mut self) -> Result<Option<Outcome>> {
        let Session { run, config, task, engine, .. } = self;
        let (task, engine) = (&**task, &mut **engine);
        let records = run.records()?;
        let curve = learning_curve(&records, task, &run.label());
        files::write(&run.curve_path(), curve.as_bytes())?;
        let outcome = if self.position.update < config.updates {
            None
        } else {
            let parameters = engine.parameters()?;
            let n_episodes = config.eval_episodes;
            Some(Outcome::measure(task, engine, &parameters, config.seed, n_episodes)?)
        };
        let page = run_report(&RunReport {
            task,
            config,
            environment: &run.environment(),
            records: &records,
            outcome: outcome.as_ref(),
            run: &run.label(),
            guess: guess_error(task, &task.network(), config.seed, config.eval_episodes),
            samples: &samples(task, engine, config.seed, SAMPLES)?,
        });
        files::write(&run.report_path(), page.as_bytes())?;
        Ok(outcome)
    }
}

/// The engine of a run, with the program of its batches made, and how its gradients are got.
fn ready(
    config: &Config,
    task: &dyn Task,
    open: impl Fn(&Config, &Network) -> Result<Box<dyn Engine<f32>>>,
) -> Result<(Box<dyn Engine<f32>>, Method, Description)> {
    let mut engine = open(config, &task.network())?;
    let back = config.evolution.is_none();
    let want = if back { Want::UPDATE } else { Want::default() };
    let program = engine.program(task.shape(config.batch), want)?;
    let description = engine.describe(&program)?;
    if back {
        return Ok((engine, Method::Backward, description));
    }
    let mut evolution = Evolution::open(config, task, open)?;
    let of_members = evolution.describe()?;
    let memory_needed = description.memory_needed + of_members.memory_needed;
    let method = Method::Evolution(Box::new(evolution));
    Ok((engine, method, Description { memory_needed, ..of_members }))
}
