//! Tasks: episodes from a key, scores from outputs. A task knows no engine.

mod custom;
mod images;
mod memorise;
mod network;
mod patterns;

pub use custom::{Custom, Measure, Start};
pub use images::{Images, ImagesConfig};
pub use network::NetworkConfig;
pub use patterns::{Patterns, PatternsConfig};

use crate::error::Result;
use crate::model::{Episodes, Network, Parameters, Shape};
use crate::random::Purpose;

/// An episode as a person sees it: pictures side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels in a row of a tile.
    pub width: usize,
    /// Caption and pixels of each tile, from -1 (black) to 1 (white).
    pub tiles: Vec<(String, Vec<f32>)>,
}

/// How a trained network is shown a stimulus outside of an episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall {
    /// Numbers of a stimulus; the network has one neuron more, the bias.
    pub numbers: usize,
    /// Numbers in a row when a stimulus is shown as a picture.
    pub width: usize,
    /// What a number is multiplied by; the bias is fed this too.
    pub gain: f32,
    /// Whether a number that is not 0 sets its neuron (else it is a current).
    pub clamped: bool,
    /// Whether the numbers of a whole stimulus are -1 and 1 only.
    pub binary: bool,
    /// How often a stimulus is shown.
    pub cycles: usize,
    /// Steps that it is shown for.
    pub shown: usize,
    /// Blank steps after that.
    pub blank: usize,
    /// Steps that a cue is shown for.
    pub test: usize,
}

/// What a population is trained on.
pub trait Task: Send + Sync {
    /// The name that `hebbian train` takes.
    fn name(&self) -> &'static str;

    /// What the error of this task measures, for reports.
    fn error_name(&self) -> &'static str;

    /// An error as a person reads it.
    fn error_text(&self, error: f64) -> String {
        format!("{:.2} %", 100.0 * error)
    }

    /// The population that the task asks for.
    fn network(&self) -> Network;

    /// Initial parameters.
    fn initial(&self, seed: u64) -> Parameters<f32>;

    /// The shape of a batch of B episodes per network, before any is made.
    fn shape(&self, n_batch: usize) -> Shape;

    /// B episodes for each network, numbers `first..first + n_batch` of the stream
    /// (seed, purpose, network).
    fn episodes(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32>;

    /// Error of each episode `[P, B]` from y of the last step `[P, B, N]`, 0 for none; no list
    /// if the task has no measure but its loss.
    fn errors(&self, episodes: &Episodes<f32>, y_last: &[f32]) -> Option<Vec<f64>>;

    /// An answer that needs no memory: its name, and y of the last step `[N]`. A network
    /// that has learned does better.
    fn guess(&self) -> Option<(&'static str, Vec<f32>)> {
        None
    }

    /// Episode `e` of a batch with the answer `y_last` `[P, B, N]`, if it can be shown.
    fn picture(&self, _episodes: &Episodes<f32>, _y_last: &[f32], _e: usize) -> Option<Picture> {
        None
    }

    /// How the networks are shown a stimulus outside of an episode, if that makes sense.
    fn recall(&self) -> Option<Recall> {
        None
    }

    /// The same task with `n` stimuli an episode, for networks trained on another number;
    /// none for a task that shows none.
    ///
    /// # Errors
    /// [`crate::error::Error::Value`] if there cannot be so many.
    fn with_stimuli(&self, _n: usize) -> Result<Option<Box<dyn Task>>> {
        Ok(None)
    }

    /// What the episodes are that are scored, for reports.
    fn scored_name(&self) -> &'static str {
        "held-out"
    }

    /// How many episodes there are, where the task holds just so many and none are held
    /// out.
    fn own_episodes(&self) -> Option<usize> {
        None
    }

    /// How many held-out episodes there are, where there are just so many.
    fn most_held_out(&self) -> Option<usize> {
        None
    }

    /// Whether networks start at the same parameters whatever the seed.
    fn shares_start(&self) -> bool {
        false
    }
}
