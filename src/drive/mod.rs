//! Environments: what a network does decides what it sees next.
//!
//! An episode is played first, forward only, the networks' actions drawn from their read-out. What it
//! brought is then a batch like any other: observations, and the cotangents of the read-out by the
//! [`ActorCritic`] objective.

mod actor_critic;
mod cue_reward;
mod maze;

pub use actor_critic::{ActorCritic, softmax};
pub use cue_reward::{CueRewardConfig, Cues};
pub use maze::{Grid, MazeConfig};

use crate::engine::{Engine, Held, Want};
use crate::error::Result;
use crate::model::{Episodes, NO_ROW, Network, Shape, Signals};
use crate::numbers::{index, single};
use crate::picture::Picture;
use crate::random::{Purpose, Stream};

/// The environment of one episode.
pub trait Environment: Send {
    /// Writes what the network sees at this step, over zeros.
    fn observe(&self, observation: &mut [f32]);

    /// Takes the network's action, which ends the step, and returns its reward.
    fn act(&mut self, action: usize) -> f32;

    /// The episode as a person sees it, where there is something to see.
    fn picture(&self) -> Option<Picture> {
        None
    }
}

/// Environments of one kind.
pub trait Drive: Send + Sync {
    /// T, steps of an episode.
    fn n_steps(&self) -> usize;

    /// K, numbers of an observation.
    fn n_observed(&self) -> usize;

    /// Actions to choose from. The read-out gives a logit for each, then the value.
    fn n_actions(&self) -> usize;

    /// The environment of an episode, all of whose draws come from `stream`; what all episodes of a
    /// run share follows from `seed`.
    fn environment(&self, seed: u64, stream: Stream) -> Box<dyn Environment>;
}

/// Which episodes are played: numbers `first..first + n_batch` of the stream (seed, purpose, network),
/// of networks from number `first_network` on.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// The run's seed.
    pub seed: u64,
    /// What for.
    pub purpose: Purpose,
    /// The number of the first network.
    pub first_network: u32,
    /// The number of the first episode.
    pub first: u32,
    /// B.
    pub n_batch: usize,
    /// Networks in a row that have one number: the members of a population play the same episodes.
    pub members: usize,
}

/// Episodes as they went.
pub struct RolledOut {
    /// What was observed `[P, B, T, K]`.
    pub observed: Vec<f32>,
    /// The read-out `[P, B, T, O]`.
    pub out: Vec<f32>,
    /// Actions `[P, B, T]`.
    pub actions: Vec<u32>,
    /// Rewards `[P, B, T]`.
    pub rewards: Vec<f32>,
    /// The environments `[P, B]` after the last step.
    pub environments: Vec<Box<dyn Environment>>,
}

/// Episodes that were played, with their objective.
pub struct Played {
    /// What was observed and, as cotangents of the read-out, the gradient of the objective.
    pub episodes: Episodes<f32>,
    /// The read-out `[P, B, T, O]`.
    pub out: Vec<f32>,
    /// Actions `[P, B, T]`.
    pub actions: Vec<u32>,
    /// Rewards `[P, B, T]`.
    pub rewards: Vec<f32>,
    /// The objective's loss of each network, its mean over episodes.
    pub loss: Vec<f32>,
    /// The environments `[P, B]` after the last step.
    pub environments: Vec<Box<dyn Environment>>,
}

/// Episodes of `shape` whose steps show nothing but what is observed later.
#[must_use]
pub fn blank(network: &Network, shape: Shape) -> Episodes<f32> {
    let (n, total) = (network.n_post, network.n_networks * shape.n_batch);
    Episodes {
        shape,
        stimuli: vec![0.0; total * n],
        clamps: None,
        shown: vec![0; total * shape.n_steps],
        targets: vec![0.0; total * n],
        loss_weights: vec![0.0; total * n],
        scored: vec![NO_ROW; total * shape.n_steps],
        pre: None,
        y0: None,
        h0: None,
        e0: None,
        signals: Signals::default(),
    }
}

/// The shape of batches whose steps show nothing of their own.
#[must_use]
pub fn shape_of(n_batch: usize, n_steps: usize) -> Shape {
    Shape { n_batch, n_steps, n_stimuli: 1, n_targets: 1, clamped: false }
}

/// Plays episodes with the engine's networks, forward only.
///
/// # Errors
/// Errors of the engine.
pub fn roll_out(
    engine: &mut dyn Engine<f32>,
    drive: &dyn Drive,
    numbers: &Numbers,
) -> Result<RolledOut> {
    let Numbers { seed, purpose, first_network, first, n_batch, members } = *numbers;
    let network = engine.network().clone();
    let (n_steps, k, n_actions) = (drive.n_steps(), drive.n_observed(), drive.n_actions());
    let total = network.n_networks * n_batch;
    let o = n_actions + 1;
    let (mut environments, mut draws) = (Vec::with_capacity(total), Vec::with_capacity(total));
    for e in 0..total {
        let p = first_network.wrapping_add(index(e / n_batch / members));
        let b = first.wrapping_add(index(e % n_batch));
        environments.push(drive.environment(seed, Stream::new(seed, purpose, p, b)));
        draws.push(Stream::new(seed, purpose.actions(), p, b));
    }

    let mut step = blank(&network, shape_of(n_batch, 1));
    let mut observed = vec![0.0; total * n_steps * k];
    let mut out = vec![0.0; total * n_steps * o];
    let mut actions = vec![0; total * n_steps];
    let mut rewards = vec![0.0; total * n_steps];
    let life = engine.wake(&Held::newborn(&network, n_batch))?;
    for t in 0..n_steps {
        let seen = step.signals.observed.get_or_insert_with(|| vec![0.0; total * k]);
        for (e, (environment, seen)) in
            environments.iter().zip(seen.chunks_exact_mut(k)).enumerate()
        {
            seen.fill(0.0);
            environment.observe(seen);
            observed[(e * n_steps + t) * k..][..k].copy_from_slice(seen);
        }
        let answer = engine.live(life, &step, Want::default());
        let answer = match answer {
            Ok(answer) => answer.out,
            Err(error) => {
                engine.rest(life)?;
                return Err(error);
            }
        };
        for (e, answer) in answer.chunks_exact(o).enumerate() {
            let at = e * n_steps + t;
            out[at * o..][..o].copy_from_slice(answer);
            let action = draw(&softmax(&answer[..n_actions]), draws[e].uniform());
            actions[at] = index(action);
            rewards[at] = environments[e].act(action);
        }
    }
    engine.rest(life)?;
    Ok(RolledOut { observed, out, actions, rewards, environments })
}

/// Plays episodes with the engine's networks, and makes a batch of them.
///
/// # Errors
/// Errors of the engine.
pub fn play(
    engine: &mut dyn Engine<f32>,
    drive: &dyn Drive,
    objective: &ActorCritic,
    numbers: &Numbers,
) -> Result<Played> {
    let RolledOut { observed, out, actions, rewards, environments } =
        roll_out(engine, drive, numbers)?;
    let (network, n_batch) = (engine.network(), numbers.n_batch);
    let (n_steps, o) = (drive.n_steps(), drive.n_actions() + 1);
    let total = network.n_networks * n_batch;
    let mut dout = vec![0.0; total * n_steps * o];
    let mut loss = vec![0.0; network.n_networks];
    let share = 1.0 / f64::from(index(n_batch));
    for e in 0..total {
        let steps = e * n_steps..(e + 1) * n_steps;
        let outs = e * n_steps * o..(e + 1) * n_steps * o;
        let (actions, rewards) = (&actions[steps.clone()], &rewards[steps]);
        let dout = &mut dout[outs.clone()];
        loss[e / n_batch] += share * objective.gradient(&out[outs], actions, rewards, share, dout);
    }
    let mut episodes = blank(network, shape_of(n_batch, n_steps));
    episodes.signals.observed = Some(observed);
    episodes.signals.dout = Some(dout);
    let loss = loss.into_iter().map(single).collect();
    Ok(Played { episodes, out, actions, rewards, loss, environments })
}

/// The choice that a uniform draw makes among probabilities; the last where rounding leaves some.
fn draw(probabilities: &[f64], uniform: f64) -> usize {
    let mut sum = 0.0;
    let reached = probabilities.iter().position(|p| {
        sum += p;
        uniform < sum
    });
    reached.unwrap_or(probabilities.len() - 1)
}
