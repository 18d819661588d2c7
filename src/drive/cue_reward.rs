//! The cue-reward association of Miconi et al. 2019 (section 4.1): which of some cues is the target has
//! to be found out from rewards.

use serde::{Deserialize, Serialize};

use crate::drive::{ActorCritic, Drive, Environment};
use crate::error::{Error, Result};
use crate::numbers::{index, single};
use crate::random::{Purpose, Stream};

/// The task's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CueRewardConfig {
    /// Cues of an episode, one of which is the target.
    pub cues: usize,
    /// Bits of a cue, each -1 or 1.
    pub bits: usize,
    /// Whether all episodes of a run share their cues; else each draws its own.
    pub fixed: bool,
    /// T, steps of an episode.
    pub steps: usize,
    /// The most blank steps that a trial of five steps has beside.
    pub blanks: usize,
    /// N, neurons of the plastic recurrent layer.
    pub neurons: usize,
    /// What rewards are turned into gradients by.
    pub objective: ActorCritic,
}

impl CueRewardConfig {
    /// The numbers of the paper's released code.
    #[must_use]
    pub fn paper() -> Self {
        let objective = ActorCritic { discount: 0.9, value: 0.1, concentration: 0.1 };
        let (cues, bits, steps) = (4, 20, 120);
        CueRewardConfig { cues, bits, fixed: false, steps, blanks: 3, neurons: 200, objective }
    }

    /// Four cues of four bits, alike in all episodes: what has to be found out is the target alone.
    #[must_use]
    pub fn quick() -> Self {
        CueRewardConfig { bits: 4, fixed: true, steps: 60, blanks: 0, neurons: 64, ..Self::paper() }
    }
}

/// Numbers of an observation beside the cue: Go, bias, time, reward, one that is always 0, and the two
/// actions of the step before.
const BESIDE: usize = 7;
/// What a step shows that shows no cue.
const GO: u8 = u8::MAX;
const BLANK: u8 = u8::MAX - 1;
/// The most of anything that a configuration may ask for.
const MOST: usize = 100_000;

/// Trials with cues.
#[derive(Clone, Debug)]
pub struct Cues {
    config: CueRewardConfig,
}

impl Cues {
    /// The task of these numbers.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense.
    pub fn new(config: &CueRewardConfig) -> Result<Self> {
        for (key, value, least, most) in [
            ("task.cues", config.cues, 2, usize::from(BLANK)),
            ("task.bits", config.bits, 1, MOST),
            ("task.steps", config.steps, 5, MOST),
            ("task.blanks", config.blanks, 0, MOST),
        ] {
            if value < least || value > most {
                return Err(Error::value(key, value.to_string(), format!("{least} to {most}")));
            }
        }
        // so few bits that cues must be alike
        if config.bits < 20 && config.cues > 1 << config.bits {
            let wanted =
                format!("at most {}, as {} bits tell apart", 1 << config.bits, config.bits);
            return Err(Error::value("task.cues", config.cues.to_string(), wanted));
        }
        Ok(Cues { config: *config })
    }

    /// Cues that differ from each other.
    fn draw(&self, stream: &mut Stream) -> Vec<Vec<f32>> {
        let mut cues: Vec<Vec<f32>> = Vec::with_capacity(self.config.cues);
        while cues.len() < self.config.cues {
            let bit = |stream: &mut Stream| if stream.below(2) == 0 { -1.0 } else { 1.0 };
            let cue: Vec<f32> = (0..self.config.bits).map(|_| bit(stream)).collect();
            if !cues.contains(&cue) {
                cues.push(cue);
            }
        }
        cues
    }
}

impl Drive for Cues {
    fn n_steps(&self) -> usize {
        self.config.steps
    }

    fn n_observed(&self) -> usize {
        self.config.bits + BESIDE
    }

    fn n_actions(&self) -> usize {
        2
    }

    fn environment(&self, seed: u64, mut stream: Stream) -> Box<dyn Environment> {
        let cues = match self.config.fixed {
            true => self.draw(&mut Stream::new(seed, Purpose::Shared, 0, 0)),
            false => self.draw(&mut stream),
        };
        let n = index(self.config.cues);
        let target = stream.below(n);
        // steps of the episode, and whether the target was among the cues of the trial
        let mut steps = Vec::with_capacity(self.config.steps);
        while steps.len() < self.config.steps {
            let first = stream.below(n);
            let second = (first + 1 + stream.below(n - 1)) % n;
            let right = first == target || second == target;
            let blanks = stream.below(index(self.config.blanks + 1));
            let between = stream.below(blanks + 1);
            let cue = |k: u32| u8::try_from(k).expect("few cues");
            let blank = |n: u32| std::iter::repeat_n(BLANK, n as usize);
            let trial = blank(1)
                .chain([cue(first)])
                .chain(blank(between))
                .chain([cue(second)])
                .chain(blank(blanks - between))
                .chain([GO, BLANK]);
            steps.extend(trial.map(|shown| (shown, right)));
        }
        steps.truncate(self.config.steps);
        Box::new(Trials { cues, steps, t: 0, before: None })
    }
}

/// An episode of trials.
struct Trials {
    cues: Vec<Vec<f32>>,
    /// For each step: the cue's number, Go or blank; whether the target is in the trial.
    steps: Vec<(u8, bool)>,
    t: usize,
    /// The action and the reward of the step before.
    before: Option<(usize, f32)>,
}

impl Environment for Trials {
    fn observe(&self, observation: &mut [f32]) {
        let bits = observation.len() - BESIDE;
        let (cue, beside) = observation.split_at_mut(bits);
        match self.steps[self.t].0 {
            GO => beside[0] = 1.0,
            BLANK => {}
            shown => cue.copy_from_slice(&self.cues[usize::from(shown)]),
        }
        beside[1] = 1.0;
        beside[2] = single(f64::from(index(self.t)) / f64::from(index(self.steps.len())));
        if let Some((action, reward)) = self.before {
            beside[3] = reward;
            beside[5 + action] = 1.0;
        }
    }

    /// At Go, action 1 says that the target was among the cues, action 0 that it was not.
    fn act(&mut self, action: usize) -> f32 {
        let reward = match self.steps[self.t] {
            (GO, right) if (action == 1) == right => 1.0,
            (GO, _) => -1.0,
            _ => 0.0,
        };
        self.t += 1;
        self.before = Some((action, reward));
        reward
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn easy() -> CueRewardConfig {
        CueRewardConfig { bits: 5, fixed: true, ..CueRewardConfig::paper() }
    }

    /// Plays an episode with given answers at Go, and returns what was seen and the rewards.
    fn played(config: &CueRewardConfig, episode: u32, answer: usize) -> (Vec<Vec<f32>>, Vec<f32>) {
        let cues = Cues::new(config).unwrap();
        let mut trials = cues.environment(4, Stream::new(4, Purpose::Training, 0, episode));
        let step = |_| {
            let mut seen = vec![0.0; cues.n_observed()];
            trials.observe(&mut seen);
            (seen, trials.act(answer))
        };
        (0..config.steps).map(step).unzip()
    }

    #[test]
    fn a_trial_shows_two_cues_and_scores_at_go_whether_the_target_was_among_them() {
        for episode in 0..20 {
            let (seen, rewards) = played(&easy(), episode, 1);
            let gos: Vec<usize> = (0..120).filter(|&t| seen[t][5] == 1.0).collect();
            assert!((120 / 8..=120 / 5).contains(&gos.len()), "{}", gos.len());
            let mut from = 0;
            // of each trial with that answer right, the cues that were shown
            let mut shown_of = Vec::new();
            for &go in &gos {
                let shown: Vec<&[f32]> =
                    (from..go).map(|t| &seen[t][..5]).filter(|c| c[0] != 0.0).collect();
                assert_eq!(shown.len(), 2);
                assert_ne!(shown[0], shown[1]);
                assert!((4..=8).contains(&(go + 1 - from)), "{}", go - from);
                assert!(rewards[go].abs() == 1.0);
                shown_of.push((shown, rewards[go] == 1.0));
                // the reward is seen at the next step, with the action
                if let Some(next) = seen.get(go + 1) {
                    assert_eq!((next[8], next[11]), (rewards[go], 1.0));
                }
                from = go + 1;
            }
            assert!((0..120).all(|t| gos.contains(&t) || rewards[t] == 0.0));
            // one cue explains all the answers
            let all: Vec<&[f32]> = shown_of.iter().flat_map(|(shown, _)| shown.clone()).collect();
            let explains = |cue: &&&[f32]| {
                shown_of.iter().all(|(shown, right)| shown.contains(*cue) == *right)
            };
            assert!(all.iter().any(|cue| explains(&cue)));
            // the other answer gets the opposite
            let (_, other) = played(&easy(), episode, 0);
            assert!(rewards.iter().zip(&other).all(|(a, b)| *a == -b));
        }
    }

    #[test]
    fn fixed_cues_are_those_of_every_episode_and_others_are_not() {
        let cues = |config: &CueRewardConfig, episode| {
            let (seen, _) = played(config, episode, 0);
            let mut cues: Vec<Vec<i8>> = seen
                .iter()
                .map(|seen| {
                    seen[..config.bits]
                        .iter()
                        .map(|&bit| i8::from(bit > 0.0) - i8::from(bit < 0.0))
                        .collect()
                })
                .filter(|cue: &Vec<i8>| cue[0] != 0)
                .collect();
            cues.sort();
            cues.dedup();
            assert_eq!(cues.len(), 4);
            cues
        };
        assert_eq!(cues(&easy(), 0), cues(&easy(), 1));
        let own = CueRewardConfig { fixed: false, bits: 20, ..easy() };
        assert_ne!(cues(&own, 0), cues(&own, 1));
    }

    #[test]
    fn more_cues_than_bits_tell_apart_are_refused() {
        assert!(Cues::new(&CueRewardConfig { cues: 5, bits: 2, ..easy() }).is_err());
        assert!(Cues::new(&CueRewardConfig { cues: 4, bits: 2, ..easy() }).is_ok());
    }
}
