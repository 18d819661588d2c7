//! How much a trained network can hold, and for how long.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::Episodes;
use crate::task::Task;
use crate::train::Scores;
use crate::train::evaluate::score;

/// One point of the capacity curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Stimuli shown in the episode.
    pub stimuli: usize,
    /// Blank steps before the test, beyond those after every stimulus.
    pub delay: usize,
    /// Errors.
    pub scores: Scores,
}

/// The capacity curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// By the number of stimuli, without delay.
    pub by_number: Vec<Point>,
    /// By the delay, with the task's own number of stimuli.
    pub by_delay: Vec<Point>,
}

/// Errors on held-out episodes of 1 to `most` stimuli without delay, then with the task's
/// own number of stimuli after each of `delays` blank steps.
///
/// # Errors
/// [`Error::Value`] for a task without stimuli to count; errors of the engine.
pub fn capacity(
    task: &dyn Task,
    engine: &mut dyn Engine<f32>,
    seed: u64,
    n_episodes: usize,
    most: usize,
    delays: &[usize],
) -> Result<Capacity> {
    let none = || Error::value("capacity", format!("task {}", task.name()), "patterns or images");
    let recall = task.recall().ok_or_else(none)?;
    if n_episodes == 0 || most == 0 {
        return Err(Error::value("capacity", "0 episodes or stimuli", "at least 1"));
    }
    let mut by_number = Vec::new();
    for stimuli in 1..=most {
        let task = task.with_stimuli(stimuli)?.ok_or_else(none)?;
        let scores = score(&*task, engine, seed, n_episodes, |episodes| episodes)?;
        by_number.push(Point { stimuli, delay: 0, scores });
    }
    let mut by_delay = Vec::new();
    let stimuli = task.shape(1).n_stimuli - 2;
    for &delay in delays {
        let later = |episodes| delayed(episodes, delay, recall.test);
        let scores = score(task, engine, seed, n_episodes, later)?;
        by_delay.push(Point { stimuli, delay, scores });
    }
    Ok(Capacity { by_number, by_delay })
}

/// The same episodes with `delay` more blank steps before the `test` steps at the end. The
/// blank is the row before the last.
fn delayed(mut episodes: Episodes<f32>, delay: usize, test: usize) -> Episodes<f32> {
    let n_steps = episodes.shape.n_steps;
    let blank = u32::try_from(episodes.shape.n_stimuli - 2).expect("few rows");
    let longer = |rows: &[u32], fill: u32| -> Vec<u32> {
        rows.chunks(n_steps)
            .flat_map(|episode| {
                let (before, last) = episode.split_at(n_steps - test);
                let between = std::iter::repeat_n(fill, delay);
                before.iter().copied().chain(between).chain(last.iter().copied())
            })
            .collect()
    };
    episodes.shown = longer(&episodes.shown, blank);
    episodes.scored = longer(&episodes.scored, crate::model::NO_ROW);
    episodes.shape.n_steps += delay;
    episodes
}
