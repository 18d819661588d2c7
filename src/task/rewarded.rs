//! Tasks whose episodes are played in environments, for rewards: the grid maze (Miconi et al. 2018,
//! section 4.5; 2019, section 4.2) and the cue-reward association (2019, section 4.1).

use crate::drive::{ActorCritic, CueRewardConfig, Cues, Drive, Grid, MazeConfig, blank, shape_of};
use crate::error::{Error, Result};
use crate::model::{Episodes, Network, Parameters, Shape, Tensor};
use crate::numbers::index;
use crate::picture::Picture;
use crate::random::Purpose;
use crate::task::memorise::MOST;
use crate::task::network::Layers;
use crate::task::{Answers, NetworkConfig, Task, World};

/// A task of environments for a population.
pub struct Rewarded {
    name: &'static str,
    /// Whether the reward is that of a trial, each of which is rewarded or punished, not of an episode.
    per_trial: bool,
    drive: Box<dyn Drive>,
    objective: ActorCritic,
    networks: NetworkConfig,
    network: Network,
    first: u32,
}

impl Rewarded {
    /// The maze for P networks, the first of which is number `first` of the streams.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense.
    pub fn maze(
        config: &MazeConfig,
        networks: &NetworkConfig,
        n_networks: usize,
        first: u32,
    ) -> Result<Self> {
        let drive = Box::new(Grid::new(config)?);
        let (objective, n) = (config.objective, config.neurons);
        Self::new("maze", drive, objective, n, networks, n_networks, first)
    }

    /// Cue-reward association for P networks, the first of which is number `first` of the streams.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense.
    pub fn cue_reward(
        config: &CueRewardConfig,
        networks: &NetworkConfig,
        n_networks: usize,
        first: u32,
    ) -> Result<Self> {
        let drive = Box::new(Cues::new(config)?);
        let (objective, n) = (config.objective, config.neurons);
        Self::new("cue-reward", drive, objective, n, networks, n_networks, first)
    }

    fn new(
        name: &'static str,
        drive: Box<dyn Drive>,
        objective: ActorCritic,
        neurons: usize,
        networks: &NetworkConfig,
        n_networks: usize,
        first: u32,
    ) -> Result<Self> {
        if neurons == 0 || neurons > MOST {
            let wanted = format!("1 to {MOST}");
            return Err(Error::value("task.neurons", neurons.to_string(), wanted));
        }
        let ActorCritic { discount, value, concentration } = objective;
        for (key, number, most) in [
            ("task.objective.discount", discount, 1.0),
            ("task.objective.value", value, f64::from(f32::MAX)),
            ("task.objective.concentration", concentration, f64::from(f32::MAX)),
        ] {
            if !(0.0..=most).contains(&number) {
                let wanted = format!("a number from 0 to {most:e}");
                return Err(Error::value(key, number.to_string(), wanted));
            }
        }
        let (observed, outputs) = (drive.n_observed(), drive.n_actions() + 1);
        let layers = Layers { observed, neurons, outputs, loss: None };
        let network = networks.layered(n_networks, &layers)?;
        let (per_trial, networks) = (name == "cue-reward", networks.clone());
        Ok(Rewarded { name, per_trial, drive, objective, networks, network, first })
    }
}

impl Task for Rewarded {
    fn name(&self) -> &'static str {
        self.name
    }

    fn error_name(&self) -> &'static str {
        if self.per_trial { "reward a trial" } else { "reward an episode" }
    }

    fn error_text(&self, error: f64) -> String {
        // no "-0.00"
        format!("{:.2}", 0.0 - error)
    }

    fn network(&self) -> Network {
        self.network.clone()
    }

    /// The read-out starts at zero: every action is as likely as any other.
    fn initial(&self, seed: u64) -> Parameters<f32> {
        let mut parameters = self.networks.initial(&self.network, seed, self.first);
        for p in 0..parameters.n_networks() {
            parameters.get_mut(p, Tensor::OutW).fill(0.0);
        }
        parameters
    }

    fn shape(&self, n_batch: usize) -> Shape {
        shape_of(n_batch, self.drive.n_steps())
    }

    fn world(&self) -> Option<World<'_>> {
        let (drive, objective) = (&*self.drive, &self.objective);
        Some(World { drive, objective, first_network: self.first })
    }

    fn episodes(
        &self,
        _seed: u64,
        _purpose: Purpose,
        _first: u32,
        n_batch: usize,
    ) -> Episodes<f32> {
        blank(&self.network, self.shape(n_batch))
    }

    /// Minus the reward.
    fn errors(&self, episodes: &Episodes<f32>, answers: &Answers<'_>) -> Option<Vec<f64>> {
        if answers.rewards.is_empty() {
            return None;
        }
        let of = |rewards: &[f32]| {
            let sum: f64 = rewards.iter().map(|&r| f64::from(r)).sum();
            let trials = rewards.iter().filter(|r| **r != 0.0).count();
            let per = if self.per_trial { f64::from(index(trials.max(1))) } else { 1.0 };
            -sum / per
        };
        Some(answers.rewards.chunks_exact(episodes.shape.n_steps).map(of).collect())
    }

    fn picture(
        &self,
        _episodes: &Episodes<f32>,
        answers: &Answers<'_>,
        e: usize,
    ) -> Option<Picture> {
        answers.environments.get(e)?.picture()
    }

    fn picture_caption(&self) -> &'static str {
        "The maze in the four quarters of an episode: walls are black, the reward is white, and a cell \
         is the lighter the longer the agent was in it. An agent that remembers the reward goes straight \
         to it in the later quarters."
    }
}
