//! Training: the loop, its configuration, and the run directory.

mod batch;
mod capacity;
mod checkpoint;
mod config;

mod evaluate;
mod events;
mod evolution;
mod fit;
mod inspect;
mod interval;
mod method;
mod origin;
mod rank_sum;
mod run;
mod settings;
mod test_time;

pub(crate) use batch::Batch;
pub use capacity::{Capacity, Point, capacity};
pub use checkpoint::{Best, Checkpoint, Position, start_from};
pub use config::{
    CheckpointConfig, Config, DivergenceConfig, EVOLVED, Resolve, TASKS, TaskConfig, differing,
    find_from, parse_table, preset_names, resolve, resolve_evolution,
};
pub use evaluate::{Scores, evaluate, guess_error, samples};
pub(crate) use evolution::is_trained;
pub use evolution::{Evolution, EvolutionConfig, Noise, centred_ranks};
pub use fit::{fit, resume, resume_at};
pub use inspect::{CLASSES, Effect, Inspection, alpha_matrix, inspect};
pub use interval::Estimate;
pub use method::Method;
pub use rank_sum::rank_sum;
pub use run::{Moment, Outcome, Run};
pub use settings::{commented, reference};
pub use test_time::{STEPS as TEST_TIME_STEPS, TestTime, copies, test_time};

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::engine::{Engine, Report};
use crate::error::{Error, Result};
use crate::model::{Schedule, StepSize};
use crate::random::Purpose;
use crate::task::Task;

/// What a finished update showed; one record of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Updates done.
    pub update: u64,
    /// Episodes that each network has seen.
    pub episodes: u64,
    /// Loss per network.
    pub loss: Vec<f32>,
    /// Mean error of the batch per network; empty where the task has only its loss.
    pub error: Vec<f64>,
    /// Learning rate.
    pub rate: f64,
    /// Gradient norm per network, before clipping.
    pub gradient_norm: Vec<f32>,
    /// Mean eta per network.
    pub eta: Vec<f32>,
    /// Seconds since training began.
    pub seconds: f64,
    /// Error per network on held-out episodes, at the updates where it is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<Vec<f64>>,
    /// Rollbacks since the record before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<Rollback>,
}

/// Training that diverged and went back to a checkpoint.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rollback {
    /// The update that diverged.
    pub at: u64,
    /// The checkpoint's update.
    pub to: u64,
    /// What was not finite.
    pub what: String,
    /// What the learning rate is multiplied by from there on.
    pub rate_scale: f64,
}

impl std::fmt::Display for Rollback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rollback { at, to, what, rate_scale } = self;
        write!(
            f,
            "update {at} diverged ({what}): back to update {to}, learning rate times {rate_scale}"
        )
    }
}

impl Record {
    /// The mean over networks of the error, or of the loss where there is none.
    #[must_use]
    pub fn summary(&self) -> f64 {
        if self.error.is_empty() {
            mean(self.loss.iter().map(|&l| f64::from(l)))
        } else {
            mean(self.error.iter().copied())
        }
    }
}

pub(crate) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

/// Runs updates by the backward pass until `config.updates` are done or `stop` is set, and hands each
/// record to `record`. Parameters are left in the engine. Nothing is saved: see [`fit`].
///
/// # Errors
/// [`Error::Diverged`] as soon as a loss, a gradient or eta is not finite; errors of the
/// engine.
pub fn train(
    config: &Config,
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    stop: &AtomicBool,
    record: impl FnMut(&Record) -> Result<()>,
) -> Result<u64> {
    struct Recorder<F>(F);
    impl<F: FnMut(&Record) -> Result<()>> Watch for Recorder<F> {
        fn record(&mut self, record: &Record) -> Result<()> {
            (self.0)(record)
        }
    }
    let (from, mut method) = (Position::start(), Method::Backward);
    updates((config, task, &mut method), engine, &from, stop, &mut Recorder(record))
}

/// Who looks on while updates run.
trait Watch {
    /// Takes a record.
    fn record(&mut self, record: &Record) -> Result<()>;

    /// Whether to save after `done` updates; `measured` says that held-out episodes were
    /// scored just then.
    fn is_due(&mut self, _done: u64, _measured: bool) -> bool {
        false
    }

    /// Saves; every update has its record.
    fn save(&mut self, _engine: &mut dyn Engine<f32>) -> Result<()> {
        Ok(())
    }
}

/// The loop: updates from `from` on.
fn updates(
    (config, task, method): (&Config, &dyn Task, &mut Method),
    engine: &mut dyn Engine<f32>,
    from: &Position,
    stop: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<u64> {
    let schedule = Schedule { rate: config.schedule.rate * from.rate_scale, ..config.schedule };
    let scorer = Scorer { config, schedule, task, start: Instant::now(), before: from.seconds };
    // Updates handed over whose reports have not come back, with what scores them.
    let mut waiting: VecDeque<(u64, Batch)> = VecDeque::new();
    let mut done = from.update;
    while done < config.updates && !stop.load(Ordering::Relaxed) {
        let batch = method.fill(config, task, engine, done)?;
        engine.step(StepSize::at(config.optimiser, &schedule, done))?;
        waiting.push_back((done, batch));
        done += 1;
        let measure = config.eval_every > 0 && done.is_multiple_of(config.eval_every);
        let save = watch.is_due(done, measure);
        let reports = engine.reports(measure || save || done == config.updates)?;
        let mut records = scorer.records(&mut waiting, reports)?;
        if measure && let Some(last) = records.last_mut() {
            let n = config.eval_episodes;
            let scores = evaluate(task, engine, config.seed, n).map_err(|error| match error {
                Error::Diverged { what, .. } => Error::Diverged { what, update: Some(done) },
                other => other,
            })?;
            last.held_out = Some(scores.per_network());
        }
        for one in &records {
            if one.update.is_multiple_of(config.log_every) || one.held_out.is_some() {
                watch.record(one)?;
            }
        }
        if save {
            watch.save(engine)?;
        }
    }
    for one in scorer.records(&mut waiting, engine.reports(true)?)? {
        if one.update.is_multiple_of(config.log_every) {
            watch.record(&one)?;
        }
    }
    Ok(done)
}

/// The batch of update `update`.
fn training_batch(
    config: &Config,
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    update: u64,
) -> Result<Batch> {
    let first = first_episode(config, update) as usize;
    Batch::new(task, engine, config.seed, Purpose::Training, (first, config.batch))
}

/// The number of the first episode of that batch.
fn first_episode(config: &Config, update: u64) -> u32 {
    let first = update.wrapping_mul(config.batch as u64) % (1 << 32);
    u32::try_from(first).expect("taken modulo 2^32")
}

/// Makes records of reports.
struct Scorer<'a> {
    config: &'a Config,
    schedule: Schedule,
    task: &'a dyn Task,
    start: Instant,
    /// Seconds of training before `start`.
    before: f64,
}

impl Scorer<'_> {
    fn records(
        &self,
        waiting: &mut VecDeque<(u64, Batch)>,
        reports: Vec<Report<f32>>,
    ) -> Result<Vec<Record>> {
        let mut records = Vec::with_capacity(reports.len());
        for report in reports {
            let (update, batch) = waiting.pop_front().expect("one report an update");
            let loss = batch.loss().map_or(report.loss, <[f32]>::to_vec);
            for (what, values) in [
                ("loss", &loss),
                ("gradient's norm", &report.gradient_norm),
                ("mean eta", &report.eta),
            ] {
                if let Some(p) = values.iter().position(|v| !v.is_finite()) {
                    let what = format!("the {what} of network {p}");
                    return Err(Error::Diverged { what, update: Some(update + 1) });
                }
            }
            let answers = batch.answers(&report.y_last, &[]);
            let errors = self.task.errors(&batch.episodes, &answers);
            let error = errors.map_or(Vec::new(), |errors| {
                errors.chunks(self.config.batch).map(|e| mean(e.iter().copied())).collect()
            });
            records.push(Record {
                update: update + 1,
                episodes: (update + 1) * self.config.batch as u64,
                loss,
                error,
                rate: self.schedule.rate_at(update),
                gradient_norm: report.gradient_norm,
                eta: report.eta,
                seconds: self.before + self.start.elapsed().as_secs_f64(),
                held_out: None,
                rollbacks: Vec::new(),
            });
        }
        Ok(records)
    }
}
