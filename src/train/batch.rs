//! Batches of a task: taken from its tables, or played in its environments.

use crate::drive::{Played, play};
use crate::engine::{Engine, Outputs, Want};
use crate::error::Result;
use crate::model::Episodes;
use crate::numbers::{index, single};
use crate::random::Purpose;
use crate::task::{Answers, Task};

/// A batch of episodes, with what happened where they were played.
pub(crate) struct Batch {
    /// The episodes.
    pub(crate) episodes: Episodes<f32>,
    answered: Option<Answered>,
}

/// What is known of the networks' answers: what is kept of [`Played`] beside its episodes, or what
/// [`Batch::measure`] found.
#[derive(Default)]
struct Answered {
    y_last: Vec<f32>,
    out: Vec<f32>,
    rewards: Vec<f32>,
    loss: Vec<f32>,
    environments: Vec<Box<dyn crate::drive::Environment>>,
}

impl Batch {
    /// Episodes `first..first + n_batch` of the stream (seed, purpose, network), as (first, n_batch);
    /// played with the engine's parameters where the task has environments.
    ///
    /// # Errors
    /// Errors of the engine.
    pub(crate) fn new(
        task: &dyn Task,
        engine: &mut dyn Engine<f32>,
        seed: u64,
        purpose: Purpose,
        (first, n_batch): (usize, usize),
    ) -> Result<Self> {
        let first = u32::try_from(first % (1 << 32)).expect("taken modulo 2^32");
        let Some(world) = task.world() else {
            let episodes = task.episodes(seed, purpose, first, n_batch);
            return Ok(Batch { episodes, answered: None });
        };
        let numbers = world.numbers(seed, purpose, first, n_batch);
        let Played { episodes, out, rewards, loss, environments, .. } =
            play(engine, world.drive, world.objective, &numbers)?;
        let answered = Answered { out, rewards, loss, environments, ..Answered::default() };
        Ok(Batch { episodes, answered: Some(answered) })
    }

    /// Takes minus the fitness for each network's loss: minus its reward, or the loss that it has when it
    /// runs, forward only.
    ///
    /// # Errors
    /// Errors of the engine.
    pub(crate) fn measure(&mut self, engine: &mut dyn Engine<f32>) -> Result<()> {
        match &mut self.answered {
            Some(answered) => {
                let n = f64::from(index(self.episodes.shape.n_batch));
                let sum = |rewards: &[f32]| rewards.iter().map(|&r| f64::from(r)).sum::<f64>();
                let of_network = answered.rewards.len() / answered.loss.len();
                let each = answered.rewards.chunks_exact(of_network);
                answered.loss = each.map(|rewards| single(0.0 - sum(rewards) / n)).collect();
            }
            None => {
                let Outputs { loss, y_last, out, .. } =
                    engine.evaluate(&self.episodes, Want::default())?;
                self.answered = Some(Answered { y_last, out, loss, ..Answered::default() });
            }
        }
        Ok(())
    }

    /// Loss of each network, where it is known: the engine knows none of a batch that was played.
    pub(crate) fn loss(&self) -> Option<&[f32]> {
        self.answered.as_ref().map(|answered| &answered.loss[..])
    }

    /// Whether the networks have answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// The answers, with those of the engine where they are not known.
    pub(crate) fn answers<'a>(&'a self, y_last: &'a [f32], out: &'a [f32]) -> Answers<'a> {
        match &self.answered {
            None => Answers { y_last, out, ..Answers::default() },
            Some(Answered { y_last, out, rewards, environments, .. }) => {
                Answers { y_last, out, rewards, environments }
            }
        }
    }
}
