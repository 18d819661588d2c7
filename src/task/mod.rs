//! Tasks: episodes from a key, scores from outputs. A task knows no engine.

mod copy;
mod custom;
mod images;
mod memorise;
mod network;
mod omniglot;
mod patterns;
mod rewarded;

pub use copy::{Copy, CopyConfig};
pub use custom::{Custom, Measure, Start};
pub use images::{Images, ImagesConfig};
pub use network::NetworkConfig;
pub use omniglot::{Omniglot, OmniglotConfig, OneShotRuns};
pub use patterns::{Patterns, PatternsConfig};
pub use rewarded::Rewarded;

use crate::drive::{ActorCritic, Drive, Environment, Numbers};
use crate::error::Result;
use crate::model::{Episodes, Network, Parameters, Shape};
use crate::picture::Picture;
use crate::random::{Purpose, Stream};

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

/// How a trained network is shown a sequence outside of an episode: it sees it, waits, is given a signal
/// and says it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Vectors of a sequence.
    pub length: usize,
    /// Numbers of a vector, each -1 or 1; an observation has one more, the signal.
    pub bits: usize,
    /// Steps between the sequence and the signal, in training.
    pub delay: usize,
}

/// What networks answered to a batch, as far as it is known.
#[derive(Clone, Copy, Default)]
pub struct Answers<'a> {
    /// y of the last step `[P, B, N]`.
    pub y_last: &'a [f32],
    /// The read-out `[P, B, T, O]`; empty of networks without one, and of training batches.
    pub out: &'a [f32],
    /// Rewards `[P, B, T]`; empty of a task without environments.
    pub rewards: &'a [f32],
    /// The environments `[P, B]` after the last step; empty of a task without them.
    pub environments: &'a [Box<dyn Environment>],
}

/// A task's environments, and what is made of their rewards.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The environments.
    pub drive: &'a dyn Drive,
    /// What rewards are turned into gradients by.
    pub objective: &'a ActorCritic,
    /// The number of the population's first network.
    pub first_network: u32,
}

impl World<'_> {
    /// The episodes `first..first + n_batch` of the stream (seed, purpose, network).
    #[must_use]
    pub fn numbers(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Numbers {
        let (first_network, members) = (self.first_network, 1);
        Numbers { seed, purpose, first_network, first, n_batch, members }
    }
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

    /// The environments that episodes are played in; none for a task whose episodes are known before
    /// they begin.
    fn world(&self) -> Option<World<'_>> {
        None
    }

    /// B episodes for each network, numbers `first..first + n_batch` of the stream
    /// (seed, purpose, network); of a task with environments what is known of them before they are
    /// played.
    fn episodes(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32>;

    /// Error of each episode `[P, B]`, 0 for none; of a task with environments minus the reward, so that
    /// less is better everywhere. No list if the task has no measure but its loss, or it needs answers
    /// that are not known.
    fn errors(&self, episodes: &Episodes<f32>, answers: &Answers<'_>) -> Option<Vec<f64>>;

    /// An answer that needs no memory: its name, and y of the last step `[N]`. A network
    /// that has learned does better.
    fn guess(&self) -> Option<(&'static str, Vec<f32>)> {
        None
    }

    /// The loss of a network that has learned nothing yet, where training may stay at it for long.
    fn chance(&self) -> Option<f64> {
        None
    }

    /// What a run should say of its data: the name of a file in its folder, and its text.
    fn notes(&self) -> Option<(&'static str, String)> {
        None
    }

    /// Episode `e` of a batch with its answer, if it can be shown.
    fn picture(
        &self,
        _episodes: &Episodes<f32>,
        _answers: &Answers<'_>,
        _e: usize,
    ) -> Option<Picture> {
        None
    }

    /// What the pictures show, as a sentence.
    fn picture_caption(&self) -> &'static str {
        "What was shown, what was left of it in the test, what the network made of that, and what was \
         wanted."
    }

    /// How the networks are shown a stimulus outside of an episode, if that makes sense.
    fn recall(&self) -> Option<Recall> {
        None
    }

    /// How the networks are shown a sequence outside of an episode, if that makes sense.
    fn sequence(&self) -> Option<Sequence> {
        None
    }

    /// A stimulus `[N]` with a random half of it hidden, as the test of an episode hides it; none for a
    /// task that does not.
    fn halved(&self, _stimulus: &[f32], _stream: &mut Stream) -> Option<Vec<f32>> {
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
