//! Binary patterns (Miconi et al. 2018, section 4.1): shown a few random patterns once
//! or twice, complete one of them from a half.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{
    Activation, AlphaSharing, Episodes, EtaSharing, Loss, NO_ROW, Network, Parameters, Rule, Shape,
    Tensor,
};
use crate::random::{Purpose, Stream};
use crate::task::Task;

/// The task's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternsConfig {
    /// Patterns per episode.
    pub patterns: usize,
    /// Bits per pattern, an even number; the network has one neuron more, the bias.
    pub bits: usize,
    /// How often every pattern is shown.
    pub cycles: usize,
    /// Steps that a pattern is shown for.
    pub shown: usize,
    /// Blank steps after each.
    pub blank: usize,
    /// Steps that the degraded pattern is shown for at the end.
    pub test: usize,
    /// Current that a bit feeds its neuron.
    pub gain: f64,
    /// Standard deviation of the initial w and alpha.
    pub spread: f64,
    /// Initial plasticity rate.
    pub eta: f64,
    /// Plasticity rule: none, decay, oja, modulated or retroactive.
    pub rule: String,
    /// Sharing of alpha: connection, neuron or network.
    pub alpha: String,
    /// Bound on the trace; 0 for none.
    pub clip: f64,
}

impl PatternsConfig {
    /// 5 patterns of 1000 bits: every number of the paper.
    #[must_use]
    pub fn paper() -> Self {
        PatternsConfig {
            patterns: 5,
            bits: 1000,
            cycles: 2,
            shown: 6,
            blank: 4,
            test: 6,
            gain: 20.0,
            spread: 0.01,
            eta: 0.01,
            rule: "decay".into(),
            alpha: "connection".into(),
            clip: 0.0,
        }
    }

    /// 3 patterns of 200 bits: few enough that patterns seldom disturb each other.
    #[must_use]
    pub fn quick() -> Self {
        PatternsConfig { patterns: 3, bits: 200, ..Self::paper() }
    }

    /// 2 patterns of 50 bits: the paper's comparison with other networks.
    #[must_use]
    pub fn small() -> Self {
        PatternsConfig {
            patterns: 2,
            bits: 50,
            cycles: 1,
            shown: 3,
            blank: 1,
            test: 3,
            ..Self::paper()
        }
    }
}

/// The most of anything that a configuration may ask for: products stay below 2^64.
const MOST: usize = 1_000_000;

/// The task for a population.
#[derive(Clone, Debug)]
pub struct Patterns {
    config: PatternsConfig,
    network: Network,
}

impl Patterns {
    /// The task for P networks.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense.
    pub fn new(config: &PatternsConfig, n_networks: usize) -> Result<Self> {
        for (key, value) in [
            ("task.patterns", config.patterns),
            ("task.bits", config.bits),
            ("task.cycles", config.cycles),
            ("task.shown", config.shown),
            ("task.test", config.test),
        ] {
            if value == 0 || value > MOST {
                return Err(Error::value(key, value.to_string(), format!("1 to {MOST}")));
            }
        }
        if config.blank > MOST {
            return Err(Error::value(
                "task.blank",
                config.blank.to_string(),
                format!("0 to {MOST}"),
            ));
        }
        if !config.bits.is_multiple_of(2) {
            return Err(Error::value("task.bits", config.bits.to_string(), "an even number"));
        }
        for (key, value) in [
            ("task.gain", config.gain),
            ("task.spread", config.spread),
            ("task.eta", config.eta),
            ("task.clip", config.clip),
        ] {
            if !single(value).is_finite() {
                return Err(Error::value(key, value.to_string(), "a number that f32 can hold"));
            }
        }
        if single(config.gain) == 0.0 {
            return Err(Error::value(
                "task.gain",
                config.gain.to_string(),
                "a number other than 0",
            ));
        }
        let network = Network {
            n_networks,
            n_pre: config.bits + 1,
            n_post: config.bits + 1,
            recurrent: true,
            rule: Rule::from_name(&config.rule)?,
            activation: Activation::Tanh,
            loss: Loss::Squared,
            clip: (config.clip != 0.0).then_some(config.clip),
            alpha: AlphaSharing::from_name(&config.alpha)?,
            eta: EtaSharing::PerNetwork,
        };
        network.validate()?;
        Ok(Patterns { config: config.clone(), network })
    }

    fn n_steps(&self) -> usize {
        let c = &self.config;
        c.cycles * c.patterns * (c.shown + c.blank) + c.test
    }
}

impl Task for Patterns {
    fn name(&self) -> &'static str {
        "patterns"
    }

    fn error_name(&self) -> &'static str {
        "hidden-bit error"
    }

    fn network(&self) -> Network {
        self.network.clone()
    }

    fn initial(&self, seed: u64) -> Parameters<f32> {
        let mut parameters = Parameters::zeros(&self.network);
        for p in 0..self.network.n_networks {
            for tensor in Tensor::ALL {
                let mut stream = Stream::new(seed, Purpose::Parameters, index(p), tensor as u32);
                for value in parameters.get_mut(p, tensor) {
                    let number = match tensor {
                        Tensor::W | Tensor::Alpha | Tensor::ModW => {
                            self.config.spread * stream.normal()
                        }
                        // The modulator starts out as a constant plasticity rate.
                        Tensor::Eta | Tensor::FanoutW | Tensor::FanoutB => self.config.eta,
                        Tensor::ModB => 0.0,
                    };
                    *value = single(number);
                }
            }
        }
        parameters
    }

    fn shape(&self, n_batch: usize) -> Shape {
        Shape {
            n_batch,
            n_steps: self.n_steps(),
            n_stimuli: self.config.patterns + 2,
            n_targets: 1,
            clamped: false,
        }
    }

    fn episodes(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32> {
        let c = &self.config;
        let shape = self.shape(n_batch);
        let (n, n_steps, n_stimuli) = (self.network.n_post, shape.n_steps, shape.n_stimuli);
        let (blank, degraded) = (index(c.patterns), index(c.patterns + 1));
        let total = self.network.n_networks * n_batch;
        let mut stimuli = vec![0.0; total * n_stimuli * n];
        let mut targets = vec![0.0; total * n];
        let mut loss_weights = vec![1.0; total * n];
        let mut shown = Vec::with_capacity(total * n_steps);
        let mut scored = vec![NO_ROW; total * n_steps];
        let gain = single(c.gain);
        for e in 0..total {
            let (p, b) = (e / n_batch, e % n_batch);
            let mut stream = Stream::new(seed, purpose, index(p), first.wrapping_add(index(b)));
            let stimuli = &mut stimuli[e * n_stimuli * n..][..n_stimuli * n];
            for row in stimuli.chunks_exact_mut(n) {
                row[c.bits] = gain;
            }
            let mut pattern: Vec<f32> =
                (0..c.bits).map(|k| if k < c.bits / 2 { 1.0 } else { -1.0 }).collect();
            for row in stimuli.chunks_exact_mut(n).take(c.patterns) {
                stream.shuffle(&mut pattern);
                for (value, bit) in row.iter_mut().zip(&pattern) {
                    *value = gain * bit;
                }
            }
            let mut order: Vec<u32> = (0..index(c.patterns)).collect();
            for _ in 0..c.cycles {
                stream.shuffle(&mut order);
                for &row in &order {
                    shown.extend(std::iter::repeat_n(row, c.shown));
                    shown.extend(std::iter::repeat_n(blank, c.blank));
                }
            }
            shown.extend(std::iter::repeat_n(degraded, c.test));

            let tested = stream.below(index(c.patterns)) as usize;
            let mut bits: Vec<usize> = (0..c.bits).collect();
            stream.shuffle(&mut bits);
            let target = &mut targets[e * n..][..n];
            for &k in &bits {
                target[k] = stimuli[tested * n + k] / gain;
            }
            for &k in &bits[c.bits / 2..] {
                stimuli[degraded as usize * n + k] = stimuli[tested * n + k];
            }
            loss_weights[e * n + c.bits] = 0.0;
            scored[(e + 1) * n_steps - 1] = 0;
        }
        Episodes {
            shape,
            stimuli,
            clamps: None,
            shown,
            targets,
            loss_weights,
            scored,
            pre: None,
            y0: None,
            h0: None,
            e0: None,
        }
    }

    /// The share of hidden bits whose sign is wrong. (Counting all bits would halve it:
    /// the visible ones are always right.)
    fn errors(&self, episodes: &Episodes<f32>, y_last: &[f32]) -> Option<Vec<f64>> {
        let (n, bits) = (self.network.n_post, self.config.bits);
        let n_stimuli = episodes.shape.n_stimuli;
        let episodes_of = y_last.chunks_exact(n).enumerate();
        Some(
            episodes_of
                .map(|(e, y)| {
                    let degraded = &episodes.stimuli[((e + 1) * n_stimuli - 1) * n..][..bits];
                    let target = &episodes.targets[e * n..][..bits];
                    let hidden = (0..bits).filter(|&k| degraded[k] == 0.0);
                    // also wrong: a y that is not a number
                    let right = |k: usize| y[k] * target[k] > 0.0;
                    let wrong = hidden.filter(|&k| !right(k)).count();
                    f64::from(index(wrong)) / f64::from(index(bits / 2))
                })
                .collect(),
        )
    }
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("sizes fit 32 bits")
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
fn single(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Patterns {
        let config = PatternsConfig { bits: 30, ..PatternsConfig::paper() };
        Patterns::new(&config, 3).unwrap()
    }

    #[test]
    fn a_batch_of_64_holds_the_episodes_of_eight_batches_of_8() {
        let task = task();
        let whole = task.episodes(5, Purpose::Training, 16, 64);
        for part in 0..8 {
            let few = task.episodes(5, Purpose::Training, 16 + 8 * part, 8);
            for p in 0..3 {
                let from = p * 64 + 8 * part as usize;
                let stimuli = few.shape.n_stimuli * 31;
                let steps = few.shape.n_steps;
                assert_eq!(
                    whole.stimuli[from * stimuli..(from + 8) * stimuli],
                    few.stimuli[p * 8 * stimuli..(p + 1) * 8 * stimuli]
                );
                assert_eq!(
                    whole.targets[from * 31..(from + 8) * 31],
                    few.targets[p * 8 * 31..(p + 1) * 8 * 31]
                );
                assert_eq!(
                    whole.shown[from * steps..(from + 8) * steps],
                    few.shown[p * 8 * steps..(p + 1) * 8 * steps]
                );
            }
        }
    }

    #[test]
    fn an_episode_is_the_papers() {
        let task = task();
        let episodes = task.episodes(5, Purpose::HeldOut, 0, 4);
        episodes.validate(&task.network).unwrap();
        assert_eq!(episodes.shape.n_steps, 106);
        for e in 0..12 {
            let rows: Vec<&[f32]> = episodes.stimuli[e * 7 * 31..][..7 * 31].chunks(31).collect();
            assert!(rows.iter().all(|row| row[30] == 20.0), "the bias is always on");
            for pattern in &rows[..5] {
                assert_eq!(pattern[..30].iter().filter(|&&v| v == 20.0).count(), 15);
                assert_eq!(pattern[..30].iter().filter(|&&v| v == -20.0).count(), 15);
            }
            assert!(rows[5][..30].iter().all(|&v| v == 0.0), "blank");
            let target = &episodes.targets[e * 31..][..30];
            let tested = rows[..5].iter().position(|row| {
                row[..30].iter().zip(target).all(|(row, target)| *row == 20.0 * target)
            });
            let tested = rows[tested.expect("the target is one of the patterns")];
            assert_eq!(rows[6][..30].iter().filter(|&&v| v == 0.0).count(), 15);
            assert!(rows[6].iter().zip(tested).all(|(cue, bit)| *cue == 0.0 || cue == bit));
            let shown = &episodes.shown[e * 106..][..106];
            for cycle in shown[..100].chunks(50) {
                let mut order: Vec<u32> = cycle.iter().copied().step_by(10).collect();
                order.sort_unstable();
                assert_eq!(order, [0, 1, 2, 3, 4]);
            }
            assert!(shown[100..].iter().all(|&row| row == 6));
        }
    }

    #[test]
    fn the_error_counts_hidden_bits_only() {
        let task = task();
        let episodes = task.episodes(5, Purpose::HeldOut, 0, 2);
        let cues: Vec<f32> =
            (0..6).flat_map(|e| episodes.stimuli[(e * 7 + 6) * 31..][..31].to_vec()).collect();
        assert_eq!(task.errors(&episodes, &episodes.targets).unwrap(), [0.0; 6]);
        assert_eq!(task.errors(&episodes, &cues).unwrap(), [1.0; 6]);
    }
}
