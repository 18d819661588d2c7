//! Scores on held-out episodes.

use crate::engine::{Engine, Outputs, Want};
use crate::error::{Error, Result};
use crate::model::{Episodes, Network, Parameters, Tensor};
use crate::picture::Picture;
use crate::random::Purpose;
use crate::task::{Answers, Task};
use crate::train::{Batch, Estimate, mean};

/// Episodes of one network that run at a time.
const BATCH: usize = 20;

/// Errors of held-out episodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `[P, episodes]`.
    errors: Vec<f64>,
    /// `[P]`.
    losses: Vec<f64>,
    n_networks: usize,
}

impl Scores {
    /// Mean over networks and episodes.
    #[must_use]
    pub fn mean(&self) -> f64 {
        mean(self.errors.iter().copied())
    }

    /// The mean with its 95 % confidence interval: over networks where there are several, for
    /// these episodes; over episodes where there is one, for this network; unknown where only the
    /// mean over episodes is known.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        if self.n_networks > 1 {
            Estimate::of(&self.per_network())
        } else {
            Estimate::of(&self.errors)
        }
    }

    /// What the interval is over, as words.
    #[must_use]
    pub fn interval_over(&self) -> &'static str {
        match (self.n_networks, self.errors.len()) {
            (1, 1) => "unknown",
            (1, _) => "episodes",
            _ => "networks",
        }
    }

    /// The mean as a person reads it, with the interval where there is one.
    #[must_use]
    pub fn text(&self, task: &dyn Task) -> String {
        self.estimate().text(|error| task.error_text(error))
    }

    /// Mean of each network.
    #[must_use]
    pub fn per_network(&self) -> Vec<f64> {
        let n = self.errors.len() / self.n_networks;
        self.errors.chunks(n).map(|e| mean(e.iter().copied())).collect()
    }

    /// The mean loss of an episode of each network.
    #[must_use]
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// The mean loss of an episode.
    #[must_use]
    pub fn loss(&self) -> f64 {
        mean(self.losses.iter().copied())
    }

    /// The median over networks.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut means = self.per_network();
        means.sort_by(f64::total_cmp);
        let n = means.len();
        f64::midpoint(means[(n - 1) / 2], means[n / 2])
    }
}

/// Scores the engine's parameters on the first `n_episodes` held-out episodes of each
/// network (for a task without any: on its own episodes, by the loss).
///
/// # Errors
/// Errors of the engine.
pub fn evaluate(
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    seed: u64,
    n_episodes: usize,
) -> Result<Scores> {
    score(task, engine, seed, n_episodes, |episodes| episodes)
}

/// As [`evaluate`], on episodes that `change` has changed.
pub(super) fn score(
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    seed: u64,
    n_episodes: usize,
    change: impl Fn(Episodes<f32>) -> Episodes<f32>,
) -> Result<Scores> {
    let n_networks = engine.network().n_networks;
    let most = task.own_episodes().or(task.most_held_out());
    let n_episodes = most.map_or(n_episodes, |most| n_episodes.min(most));
    let mut errors = vec![Vec::new(); n_networks];
    let mut losses = vec![0.0; n_networks];
    // without a measure an episode's error is its loss, which a batch tells for one episode only
    let measured = task.error_name() != "loss";
    let mut first = 0;
    while first < n_episodes {
        let n_batch = if measured { BATCH.min(n_episodes - first) } else { 1 };
        let mut batch = Batch::new(task, engine, seed, Purpose::HeldOut, (first, n_batch))?;
        batch.episodes = change(batch.episodes);
        let outputs = answered(engine, &batch)?;
        let loss = batch.loss().unwrap_or(&outputs.loss);
        if let Some(p) = loss.iter().position(|loss| !loss.is_finite()) {
            return Err(Error::Diverged { what: format!("the loss of network {p}"), update: None });
        }
        let each = task.errors(&batch.episodes, &batch.answers(&outputs.y_last, &outputs.out));
        let each = each.unwrap_or_else(|| loss.iter().map(|&l| f64::from(l)).collect());
        for (all, found) in errors.iter_mut().zip(each.chunks(n_batch)) {
            all.extend(found);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let share = n_batch as f64 / n_episodes as f64;
        for (mean, &loss) in losses.iter_mut().zip(loss) {
            *mean += share * f64::from(loss);
        }
        first += n_batch;
    }
    Ok(Scores { errors: errors.concat(), losses, n_networks })
}

/// What the networks answer to a batch that was not played.
fn answered(engine: &mut dyn Engine<f32>, batch: &Batch) -> Result<Outputs<f32>> {
    match batch.is_answered() {
        true => Ok(Outputs::default()),
        false => engine.evaluate(&batch.episodes, Want::default()),
    }
}

/// The error of [`Task::guess`] on the same episodes, if the task has one; `network` is
/// the population.
#[must_use]
pub fn guess_error(
    task: &dyn Task,
    network: &Network,
    seed: u64,
    n_episodes: usize,
) -> Option<(&'static str, f64)> {
    let (name, guess) = task.guess()?;
    let mut errors = Vec::new();
    for first in (0..n_episodes).step_by(BATCH) {
        let n_batch = BATCH.min(n_episodes - first);
        let number = u32::try_from(first).unwrap_or(u32::MAX);
        let episodes = task.episodes(seed, Purpose::HeldOut, number, n_batch);
        let y_last = guess.repeat(network.n_networks * n_batch);
        errors.extend(task.errors(&episodes, &Answers { y_last: &y_last, ..Answers::default() })?);
    }
    Some((name, mean(errors.into_iter())))
}

/// The first held-out episodes of the first network as pictures, `n` at most; none for a
/// task that cannot be shown.
///
/// # Errors
/// Errors of the engine.
pub fn samples(
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    seed: u64,
    n: usize,
) -> Result<Vec<Picture>> {
    if task.own_episodes().is_some() || n == 0 {
        return Ok(Vec::new());
    }
    let batch = Batch::new(task, engine, seed, Purpose::HeldOut, (0, n))?;
    let outputs = answered(engine, &batch)?;
    let answers = batch.answers(&outputs.y_last, &outputs.out);
    Ok((0..n).filter_map(|e| task.picture(&batch.episodes, &answers, e)).collect())
}

/// The same networks with their plasticity switched off: alpha = 0.
#[must_use]
pub(super) fn without_plasticity(parameters: &Parameters<f32>) -> Parameters<f32> {
    let mut off = parameters.clone();
    for p in 0..off.n_networks() {
        off.get_mut(p, Tensor::Alpha).fill(0.0);
    }
    off
}
