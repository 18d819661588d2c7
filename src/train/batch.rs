//! Batches of a task: taken from its tables, or played in its environments.

use crate::drive::{Played, play};
use crate::engine::Engine;
use crate::error::Result;
use crate::model::Episodes;
use crate::random::Purpose;
use crate::task::{Answers, Task};

/// A batch of episodes, with what happened where they were played.
pub(crate) struct Batch {
    /// The episodes.
    pub(crate) episodes: Episodes<f32>,
    played: Option<Play>,
}

/// What is kept of [`Played`] beside its episodes.
struct Play {
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
            return Ok(Batch { episodes, played: None });
        };
        let numbers = world.numbers(seed, purpose, first, n_batch);
        let Played { episodes, out, rewards, loss, environments, .. } =
            play(engine, world.drive, world.objective, &numbers)?;
        Ok(Batch { episodes, played: Some(Play { out, rewards, loss, environments }) })
    }

    /// Loss of each network, where the batch was played: its engine knows none.
    pub(crate) fn loss(&self) -> Option<&[f32]> {
        self.played.as_ref().map(|played| &played.loss[..])
    }

    /// Whether it was played: the networks have answered.
    pub(crate) fn is_played(&self) -> bool {
        self.played.is_some()
    }

    /// The answers, with those of the engine.
    pub(crate) fn answers<'a>(&'a self, y_last: &'a [f32], out: &'a [f32]) -> Answers<'a> {
        match &self.played {
            None => Answers { y_last, out, ..Answers::default() },
            Some(Play { out, rewards, environments, .. }) => {
                Answers { y_last, out, rewards, environments }
            }
        }
    }
}
