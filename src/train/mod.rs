//! Training: the loop, its configuration, and the run directory.

mod config;
mod evaluate;
mod run;

pub use config::{Config, TaskConfig, parse_table, preset_names, resolve};
pub use evaluate::{Scores, evaluate};
pub use run::{Outcome, Run};

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::engine::{Engine, Report};
use crate::error::{Error, Result};
use crate::model::{Episodes, StepSize};
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

/// Runs updates until `config.updates` are done or `stop` is set, and hands each record
/// to `record`. Parameters are left in the engine.
///
/// # Errors
/// [`Error::Diverged`] as soon as a loss is not finite; errors of the engine.
pub fn train(
    config: &Config,
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    stop: &AtomicBool,
    mut record: impl FnMut(&Record) -> Result<()>,
) -> Result<u64> {
    let start = Instant::now();
    // Updates handed over whose reports have not come back, with what scores them.
    let mut waiting: VecDeque<(u64, Episodes<f32>)> = VecDeque::new();
    let mut done = 0;
    while done < config.updates && !stop.load(Ordering::Relaxed) {
        let first = done.wrapping_mul(config.batch as u64);
        let first = u32::try_from(first % (1 << 32)).expect("taken modulo 2^32");
        let episodes = task.episodes(config.seed, Purpose::Training, first, config.batch);
        engine.update(&episodes, StepSize::at(config.optimiser, &config.schedule, done))?;
        waiting.push_back((done, episodes));
        done += 1;
        let measure = config.eval_every > 0 && done.is_multiple_of(config.eval_every);
        let reports = engine.reports(measure || done == config.updates)?;
        let mut records = scored(config, task, &mut waiting, reports, start)?;
        if measure && let Some(last) = records.last_mut() {
            let n = config.eval_episodes;
            last.held_out = Some(evaluate(task, engine, config.seed, n)?.per_network());
        }
        for one in &records {
            if one.update.is_multiple_of(config.log_every) || one.held_out.is_some() {
                record(one)?;
            }
        }
    }
    for one in scored(config, task, &mut waiting, engine.reports(true)?, start)? {
        record(&one)?;
    }
    Ok(done)
}

fn scored(
    config: &Config,
    task: &dyn Task,
    waiting: &mut VecDeque<(u64, Episodes<f32>)>,
    reports: Vec<Report<f32>>,
    start: Instant,
) -> Result<Vec<Record>> {
    let mut records = Vec::with_capacity(reports.len());
    for report in reports {
        let (update, episodes) = waiting.pop_front().expect("one report an update");
        if let Some(p) = report.loss.iter().position(|l| !l.is_finite()) {
            let what = format!(
                "training diverged (a lower learning rate or schedule.max_norm may help): the loss \
                 of network {p} at update {}",
                update + 1
            );
            return Err(Error::Diverged { what });
        }
        let errors = task.errors(&episodes, &report.y_last);
        let error = errors.map_or(Vec::new(), |errors| {
            errors.chunks(config.batch).map(|e| mean(e.iter().copied())).collect()
        });
        records.push(Record {
            update: update + 1,
            episodes: (update + 1) * config.batch as u64,
            loss: report.loss,
            error,
            rate: config.schedule.rate_at(update),
            gradient_norm: report.gradient_norm,
            eta: report.eta,
            seconds: start.elapsed().as_secs_f64(),
            held_out: None,
        });
    }
    Ok(records)
}
