//! Copying over long delays (Duan et al. 2023, section 4.1): see a sequence, wait, and say it again.

use serde::{Deserialize, Serialize};

use crate::drive::{blank, shape_of};
use crate::error::{Error, Result};
use crate::model::{Episodes, Network, OutputLoss, Parameters, Shape};
use crate::numbers::{index, single};
use crate::picture::Picture;
use crate::random::{Purpose, Stream};
use crate::task::memorise::MOST;
use crate::task::network::Layers;
use crate::task::{Answers, NetworkConfig, Sequence, Task};

/// The task's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyConfig {
    /// L, vectors of a sequence.
    pub length: usize,
    /// D, blank steps between the sequence and the signal to say it again.
    pub delay: usize,
    /// Numbers of a vector, each -1 or 1.
    pub bits: usize,
    /// N, neurons of the plastic recurrent layer.
    pub neurons: usize,
}

impl CopyConfig {
    /// The longest sequence and delay of the paper.
    #[must_use]
    pub fn paper() -> Self {
        CopyConfig { length: 40, delay: 60, bits: 3, neurons: 128 }
    }

    /// A sequence of 10 and a delay of 40 steps.
    #[must_use]
    pub fn quick() -> Self {
        CopyConfig { length: 10, delay: 40, ..Self::paper() }
    }
}

/// The task for a population.
#[derive(Clone, Debug)]
pub struct Copy {
    config: CopyConfig,
    networks: NetworkConfig,
    network: Network,
    first: u32,
}

impl Copy {
    /// The task for P networks, the first of which is number `first` of the streams.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense.
    pub fn new(
        config: &CopyConfig,
        networks: &NetworkConfig,
        n_networks: usize,
        first: u32,
    ) -> Result<Self> {
        for (key, value, least) in [
            ("task.length", config.length, 1),
            ("task.delay", config.delay, 0),
            ("task.bits", config.bits, 1),
            ("task.neurons", config.neurons, 1),
        ] {
            if value < least || value > MOST {
                return Err(Error::value(key, value.to_string(), format!("{least} to {MOST}")));
            }
        }
        let layers = Layers {
            // the signal beside the vector
            observed: config.bits + 1,
            neurons: config.neurons,
            outputs: config.bits,
            loss: Some(OutputLoss::Squared),
        };
        let network = networks.layered(n_networks, &layers)?;
        Ok(Copy { config: *config, networks: networks.clone(), network, first })
    }

    /// The first step at which the sequence is said again.
    fn at_answer(&self) -> usize {
        self.config.length + self.config.delay + 1
    }
}

impl Task for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn error_name(&self) -> &'static str {
        "wrong signs"
    }

    fn network(&self) -> Network {
        self.network.clone()
    }

    fn initial(&self, seed: u64) -> Parameters<f32> {
        self.networks.initial(&self.network, seed, self.first)
    }

    fn shape(&self, n_batch: usize) -> Shape {
        shape_of(n_batch, self.at_answer() + self.config.length)
    }

    fn episodes(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32> {
        let CopyConfig { length, bits, .. } = self.config;
        let mut episodes = blank(&self.network, self.shape(n_batch));
        let n_steps = episodes.shape.n_steps;
        let total = self.network.n_networks * n_batch;
        let mut observed = vec![0.0; total * n_steps * (bits + 1)];
        let mut targets = vec![0.0; total * n_steps * bits];
        let mut weights = vec![0.0; total * n_steps * bits];
        let weight = single(1.0 / f64::from(index(length * bits)));
        for e in 0..total {
            let (p, b) = (e / n_batch, e % n_batch);
            let network = self.first.wrapping_add(index(p));
            let mut stream = Stream::new(seed, purpose, network, first.wrapping_add(index(b)));
            let observed = &mut observed[e * n_steps * (bits + 1)..][..n_steps * (bits + 1)];
            observed[(self.at_answer() - 1) * (bits + 1) + bits] = 1.0;
            let answer = (e * n_steps + self.at_answer()) * bits;
            weights[answer..][..length * bits].fill(weight);
            for k in 0..length * bits {
                let bit = if stream.below(2) == 0 { -1.0 } else { 1.0 };
                observed[k / bits * (bits + 1) + k % bits] = bit;
                targets[answer + k] = bit;
            }
        }
        episodes.signals.observed = Some(observed);
        episodes.signals.output_targets = Some([targets, weights]);
        episodes
    }

    /// The share of numbers whose sign is wrong.
    fn errors(&self, episodes: &Episodes<f32>, answers: &Answers<'_>) -> Option<Vec<f64>> {
        let [targets, _] = episodes.signals.output_targets.as_ref()?;
        let (one, from) = (episodes.shape.n_steps * self.config.bits, self.at_answer());
        if answers.out.is_empty() {
            return None;
        }
        let of = |(out, target): (&[f32], &[f32])| {
            let said = out[from * self.config.bits..].iter();
            let each = said.zip(&target[from * self.config.bits..]);
            // also wrong: what is not a number
            let right = each.filter(|(said, wanted)| **said * **wanted > 0.0).count();
            let n = self.config.length * self.config.bits;
            f64::from(index(n - right)) / f64::from(index(n))
        };
        Some(answers.out.chunks_exact(one).zip(targets.chunks_exact(one)).map(of).collect())
    }

    /// Time runs from left to right.
    fn picture(
        &self,
        episodes: &Episodes<f32>,
        answers: &Answers<'_>,
        e: usize,
    ) -> Option<Picture> {
        let [targets, _] = episodes.signals.output_targets.as_ref()?;
        let (bits, length) = (self.config.bits, self.config.length);
        let from = (e * episodes.shape.n_steps + self.at_answer()) * bits;
        let turned = |values: &[f32]| -> Vec<f32> {
            (0..bits).flat_map(|k| (0..length).map(move |t| values[t * bits + k])).collect()
        };
        let shown = |name: &str, values: &[f32]| {
            (name.to_string(), turned(&values[from..][..length * bits]))
        };
        (!answers.out.is_empty()).then(|| Picture {
            width: length,
            tiles: vec![shown("the sequence", targets), shown("said again", answers.out)],
        })
    }

    fn sequence(&self) -> Option<Sequence> {
        let CopyConfig { length, delay, bits, .. } = self.config;
        Some(Sequence { length, bits, delay })
    }

    fn picture_caption(&self) -> &'static str {
        "The sequence that was shown, time from left to right, and what the network said after the \
         delay."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_shows_a_sequence_waits_and_asks_for_it() {
        let config = CopyConfig { length: 4, delay: 3, bits: 2, neurons: 5 };
        let task = Copy::new(&config, &NetworkConfig::paper(), 2, 0).unwrap();
        let episodes = task.episodes(1, Purpose::Training, 7, 3);
        episodes.validate(&task.network()).unwrap();
        assert_eq!(episodes.shape.n_steps, 4 + 3 + 1 + 4);
        let observed = episodes.signals.observed.as_ref().unwrap();
        let [targets, weights] = episodes.signals.output_targets.as_ref().unwrap();
        for e in 0..6 {
            for t in 0..12 {
                let seen = &observed[(e * 12 + t) * 3..][..3];
                let shown = &seen[..2];
                assert!(shown.iter().all(|&v| if t < 4 { v.abs() == 1.0 } else { v == 0.0 }));
                assert_eq!(seen[2], f32::from(u8::from(t == 7)));
                let at = (e * 12 + t) * 2;
                assert_eq!(weights[at] > 0.0, t >= 8);
                if t >= 8 {
                    assert_eq!(targets[at..][..2], observed[(e * 12 + t - 8) * 3..][..2]);
                }
            }
            let sum: f32 = weights[e * 24..][..24].iter().sum();
            assert!((sum - 1.0).abs() < 1e-6);
        }
        let errors = |out: &[f32]| task.errors(&episodes, &Answers { out, ..Answers::default() });
        assert_eq!(errors(targets).unwrap(), [0.0; 6]);
        let opposite: Vec<f32> = targets.iter().map(|v| -v).collect();
        assert_eq!(errors(&opposite).unwrap(), [1.0; 6]);
        assert!(errors(&[]).is_none(), "nothing is known of training batches");
        // a batch holds the episodes of smaller ones
        let few = task.episodes(1, Purpose::Training, 8, 1);
        assert_eq!(few.signals.observed.unwrap()[..36], observed[36..72]);
    }
}
