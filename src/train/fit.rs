//! Training into a run directory: checkpoints, going on from them, going back.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::engine::{Engine, State, Want};
use crate::error::{Error, Result};
use crate::model::{Parameters, Schedule, StepSize};
use crate::task::Task;
use crate::train::{
    Best, Checkpoint, Config, Method, Position, Record, Rollback, Run, Watch, mean, training_batch,
    updates,
};

/// A diverged update is run again to see what went wrong, if that takes no longer.
const REPLAY: Duration = Duration::from_secs(120);

/// Numbers of one kind that a replay may ask for.
const REPLAY_NUMBERS: usize = 1 << 28;

/// Trains into `run` by `method` from `from` on, where the engine stands, until `config.updates` are
/// done or `stop` is set; returns where it ended. All is saved at the start, at the
/// periods of the configuration, and at the end; `record` sees each record after it is
/// written.
///
/// # Errors
/// As [`crate::train::train`]; a run directory that cannot be written. What was saved before
/// stays.
pub fn fit(
    run: &mut Run,
    (config, task, method): (&Config, &dyn Task, &mut Method),
    engine: &mut dyn Engine<f32>,
    from: Position,
    stop: &AtomicBool,
    record: &mut dyn FnMut(&Record) -> Result<()>,
) -> Result<Position> {
    let mut position = from;
    // with the update of the record that tells of each
    let mut rollbacks: Vec<(u64, Rollback)> = Vec::new();
    loop {
        let mut keeper = Keeper {
            run: &mut *run,
            config,
            position,
            begun: Instant::now(),
            before: position.seconds,
            saved: (position.update, Instant::now()),
            errors: Vec::new(),
            record: &mut *record,
            rollbacks: &mut rollbacks,
        };
        if position.update == 0 {
            keeper.save(engine)?;
        }
        let from = keeper.position;
        let result = updates((config, task, &mut *method), engine, &from, stop, &mut keeper);
        let result = result.and_then(|done| {
            if keeper.saved.0 < done {
                keeper.position.update = done;
                keeper.save(engine)?;
            }
            Ok(())
        });
        let (since, now) = (keeper.saved.1, keeper.position);
        match result {
            Err(Error::Diverged { what, update: Some(update) }) => {
                let checkpoint = run.last_checkpoint()?.ok_or_else(|| {
                    Error::Checkpoint("training diverged and no checkpoint is left".into())
                })?;
                let state = checkpoint.state(engine.network())?;
                let found = if since.elapsed() < REPLAY {
                    let what = (config, task, &mut *method);
                    culprit(what, engine, &checkpoint, &state, update)?
                } else {
                    None
                };
                engine.set_state(&state)?;
                if !config.divergence.goes_back(now.rollbacks) {
                    let what = found.map_or(what.clone(), |found| format!("{found}, {what}"));
                    return Err(Error::Diverged { what, update: Some(update) });
                }
                let rate_scale = now.rate_scale * config.divergence.factor;
                let (at, to) = (update, checkpoint.position.update);
                let what = found.unwrap_or(what);
                rollbacks.push((UNTOLD, Rollback { at, to, what, rate_scale }));
                // records past the checkpoint are cut off, with what they told
                rollbacks.iter_mut().filter(|(told, _)| *told > to).for_each(|r| r.0 = UNTOLD);
                position = Position {
                    rate_scale,
                    rollbacks: now.rollbacks + 1,
                    seconds: now.seconds,
                    ..checkpoint.position
                };
                run.go_on(config, task, &position)?;
            }
            result => return result.map(|()| now),
        }
    }
}

/// Opens a run to go on from its last checkpoint. The checkpoint is none if the run was killed
/// before its first.
///
/// # Errors
/// [`Error::File`] for what is no run, or one with records and no checkpoint;
/// [`Error::Checkpoint`] naming an older checkpoint that is whole, if the last is not.
pub fn resume(folder: &Path) -> Result<(Run, Config, Option<Checkpoint>)> {
    let run = Run::open(folder)?;
    let config = run.config()?;
    let checkpoint = run.last_checkpoint()?;
    match &checkpoint {
        Some(checkpoint) => check_settings(folder, &config, checkpoint)?,
        None if run.has_records() => {
            let wanted = "a checkpoint to go on from; nothing was changed";
            return Err(Error::file(folder, "records, but no checkpoint", wanted));
        }
        None => {}
    }
    Ok((run, config, checkpoint))
}

/// Opens a run and its checkpoint of update `from`, for [`Run::branch`].
///
/// # Errors
/// As [`resume`].
pub fn resume_at(folder: &Path, from: u64) -> Result<(Run, Config, Checkpoint)> {
    let run = Run::open(folder)?;
    let config = run.config()?;
    let checkpoint = Checkpoint::read(&run.checkpoint_path(from))?;
    check_settings(folder, &config, &checkpoint)?;
    Ok((run, config, checkpoint))
}

/// Refuses settings that are not those of the checkpoint, but for those that may change when a run
/// goes on: how long, where, and where the data lie.
fn check_settings(folder: &Path, config: &Config, checkpoint: &Checkpoint) -> Result<()> {
    let mut saved = checkpoint.config.clone();
    (saved.updates, saved.device) = (config.updates, config.device.clone());
    saved.task.find_data_at(config.task.data());
    saved.task.find_held_out_at(config.task.held_out());
    saved.init.clone_from(&config.init);
    if saved != *config {
        let wanted = format!("the settings of {}", checkpoint.path().display());
        return Err(Error::file(folder.join("config.toml"), "other settings", wanted));
    }
    Ok(())
}

/// Writes records and checkpoints.
struct Keeper<'a> {
    run: &'a mut Run,
    config: &'a Config,
    position: Position,
    begun: Instant,
    /// Seconds of training before `begun`.
    before: f64,
    /// The last checkpoint's update, and when it was written.
    saved: (u64, Instant),
    /// Errors since then, and the held-out one where it is measured.
    errors: Vec<f64>,
    record: &'a mut dyn FnMut(&Record) -> Result<()>,
    rollbacks: &'a mut Vec<(u64, Rollback)>,
}

/// The record of a rollback that none told of yet.
const UNTOLD: u64 = u64::MAX;

impl Watch for Keeper<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        if self.config.eval_every == 0 {
            self.errors.push(record.summary());
        } else if let Some(held_out) = &record.held_out {
            self.errors = vec![mean(held_out.iter().copied())];
        }
        let untold = self.rollbacks.iter_mut().filter(|(told, _)| *told == UNTOLD);
        let tell = |(told, rollback): &mut (u64, Rollback)| {
            *told = record.update;
            rollback.clone()
        };
        let rollbacks: Vec<Rollback> = untold.map(tell).collect();
        let record = &Record { rollbacks, ..record.clone() };
        self.run.record(record)?;
        (self.record)(record)
    }

    fn is_due(&mut self, done: u64, measured: bool) -> bool {
        let period = &self.config.checkpoint;
        let by_time = period.seconds > 0.0 && self.saved.1.elapsed().as_secs_f64() > period.seconds;
        let due =
            by_time || measured || (period.updates > 0 && done.is_multiple_of(period.updates));
        if due {
            self.position.update = done;
        }
        due
    }

    fn save(&mut self, engine: &mut dyn Engine<f32>) -> Result<()> {
        let state = engine.state()?;
        let update = self.position.update;
        for (part, parameters) in [
            ("", &state.parameters),
            ("the first moment of ", &state.first),
            ("the second moment of ", &state.second),
        ] {
            if let Some(found) = not_finite(parameters) {
                return Err(Error::Diverged {
                    what: format!("{part}{found}"),
                    update: Some(update),
                });
            }
        }
        self.position.seconds = self.before + self.begun.elapsed().as_secs_f64();
        self.run.sync_metrics()?;
        if !self.errors.is_empty() {
            let error = mean(self.errors.iter().copied());
            if self.position.best.is_none_or(|best| error < best.error) {
                self.position.best = Some(Best { update, error });
            }
            self.errors.clear();
        }
        self.run.keep(self.config, &state, &self.position)?;
        self.saved = (update, Instant::now());
        Ok(())
    }
}

/// Names the first parameter that is not finite.
fn not_finite(parameters: &Parameters<f32>) -> Option<String> {
    for p in 0..parameters.n_networks() {
        for entry in parameters.layout().entries() {
            let values = parameters.get(p, entry.tensor);
            if let Some(k) = values.iter().position(|v| !v.is_finite()) {
                let name = &entry.name;
                return Some(format!("{name} of network {p}, element {k}, {:?}", values[k]));
            }
        }
    }
    None
}

/// Runs the updates from the checkpoint to `update` (counted from 1) again and names what
/// is not finite first: a parameter, y at a step of an episode, a trace, a gradient.
fn culprit(
    (config, task, method): (&Config, &dyn Task, &mut Method),
    engine: &mut dyn Engine<f32>,
    checkpoint: &Checkpoint,
    state: &State<f32>,
    update: u64,
) -> Result<Option<String>> {
    engine.set_state(state)?;
    let schedule =
        Schedule { rate: config.schedule.rate * checkpoint.position.rate_scale, ..config.schedule };
    for before in checkpoint.position.update..update - 1 {
        method.fill(config, task, engine, before)?;
        engine.step(StepSize::at(config.optimiser, &schedule, before))?;
        engine.reports(true)?;
    }
    let network = engine.network().clone();
    let episodes = training_batch(config, task, engine, update - 1)?.episodes;
    let shape = episodes.shape;
    let total = network.n_networks * shape.n_batch;
    let matrices = total * network.n_connections();
    let fits = |numbers: usize| numbers <= REPLAY_NUMBERS;
    let want = Want {
        activity: fits(total * shape.n_steps * network.n_post),
        traces: fits(matrices),
        gradients: fits(matrices) && method.is_backward(),
    };
    let outputs = engine.evaluate(&episodes, want)?;
    if let Some(found) = not_finite(&engine.parameters()?) {
        return Ok(Some(format!("{found} (before the update)")));
    }
    let first = |values: &[f32]| values.iter().position(|v| !v.is_finite());
    let place = |k: usize, per_episode: usize| {
        let (e, k) = (k / per_episode, k % per_episode);
        (format!("network {}, episode {} of its batch", e / shape.n_batch, e % shape.n_batch), k)
    };
    if let Some(k) = first(&outputs.y) {
        let (place, k) = place(k, shape.n_steps * network.n_post);
        let (step, neuron) = (k / network.n_post, k % network.n_post);
        return Ok(Some(format!("y of {place}, step {step}, neuron {neuron}")));
    }
    for (name, values) in [("the trace H", &outputs.h), ("the trace E", &outputs.e)] {
        if let Some(k) = first(values) {
            let (place, k) = place(k, network.n_connections());
            let (pre, post) = (k / network.n_post, k % network.n_post);
            return Ok(Some(format!("{name} of {place}, from neuron {pre} to {post}")));
        }
    }
    if let Some(p) = first(&outputs.loss) {
        return Ok(Some(format!("the loss of network {p}")));
    }
    let gradients = outputs.gradients.as_ref();
    if let Some(k) = gradients.and_then(|g| first(&g.input)) {
        let (place, k) = place(k, shape.n_steps * network.n_post);
        let (step, neuron) = (k / network.n_post, k % network.n_post);
        return Ok(Some(format!("the gradient of y of {place}, step {step}, neuron {neuron}")));
    }
    Ok(gradients.and_then(|g| not_finite(&g.parameters)).map(|g| format!("the gradient of {g}")))
}
