//! Binary patterns (Miconi et al. 2018, section 4.1): shown a few random patterns once
//! or twice, complete one of them from a half.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Episodes, NO_ROW, Network, Parameters, Shape, Signals};
use crate::numbers::{index, single};
use crate::picture::Picture;
use crate::random::{Purpose, Stream};
use crate::task::memorise::{MOST, Order, check_numbers};
use crate::task::{Answers, NetworkConfig, Recall, Task};

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

/// The task for a population.
#[derive(Clone, Debug)]
pub struct Patterns {
    config: PatternsConfig,
    networks: NetworkConfig,
    network: Network,
    first: u32,
}

impl Patterns {
    /// The task for P networks, the first of which is number `first` of the streams.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense.
    pub fn new(
        config: &PatternsConfig,
        networks: &NetworkConfig,
        n_networks: usize,
        first: u32,
    ) -> Result<Self> {
        if config.bits == 0 || config.bits > MOST {
            let wanted = format!("1 to {MOST}");
            return Err(Error::value("task.bits", config.bits.to_string(), wanted));
        }
        order(config).validate("task.patterns")?;
        if !config.bits.is_multiple_of(2) {
            return Err(Error::value("task.bits", config.bits.to_string(), "an even number"));
        }
        check_numbers(&[("task.gain", config.gain)])?;
        if single(config.gain) == 0.0 {
            return Err(Error::value(
                "task.gain",
                config.gain.to_string(),
                "a number other than 0",
            ));
        }
        let network = networks.recurrent(n_networks, config.bits + 1)?;
        Ok(Patterns { config: config.clone(), networks: networks.clone(), network, first })
    }
}

impl Patterns {
    /// Bits in a row of a picture, near a square.
    fn width(&self) -> usize {
        (1..).find(|w| w * w >= self.config.bits).expect("a square root")
    }
}

fn order(config: &PatternsConfig) -> Order {
    Order {
        stimuli: config.patterns,
        cycles: config.cycles,
        shown: config.shown,
        blank: config.blank,
        test: config.test,
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
        self.networks.initial(&self.network, seed, self.first)
    }

    fn shape(&self, n_batch: usize) -> Shape {
        Shape {
            n_batch,
            n_steps: order(&self.config).n_steps(),
            n_stimuli: self.config.patterns + 2,
            n_targets: 1,
            clamped: false,
        }
    }

    fn episodes(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32> {
        let c = &self.config;
        let shape = self.shape(n_batch);
        let (n, n_steps, n_stimuli) = (self.network.n_post, shape.n_steps, shape.n_stimuli);
        let (order, degraded) = (order(c), c.patterns + 1);
        let total = self.network.n_networks * n_batch;
        let mut stimuli = vec![0.0; total * n_stimuli * n];
        let mut targets = vec![0.0; total * n];
        let mut loss_weights = vec![1.0; total * n];
        let mut shown = Vec::with_capacity(total * n_steps);
        let mut scored = vec![NO_ROW; total * n_steps];
        let gain = single(c.gain);
        for e in 0..total {
            let (p, b) = (e / n_batch, e % n_batch);
            let mut stream = Stream::new(
                seed,
                purpose,
                self.first.wrapping_add(index(p)),
                first.wrapping_add(index(b)),
            );
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
            order.draw(&mut stream, &mut shown);

            let tested = stream.below(index(c.patterns)) as usize;
            let mut bits: Vec<usize> = (0..c.bits).collect();
            stream.shuffle(&mut bits);
            let target = &mut targets[e * n..][..n];
            for &k in &bits {
                target[k] = stimuli[tested * n + k] / gain;
            }
            for &k in &bits[c.bits / 2..] {
                stimuli[degraded * n + k] = stimuli[tested * n + k];
            }
            // the bias, and neurons that are asked for nothing
            loss_weights[e * n + c.bits..(e + 1) * n].fill(0.0);
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
            signals: Signals::default(),
        }
    }

    /// The share of hidden bits whose sign is wrong. (Counting all bits would halve it:
    /// the visible ones are always right.)
    fn errors(&self, episodes: &Episodes<f32>, answers: &Answers<'_>) -> Option<Vec<f64>> {
        let (n, bits) = (self.network.n_post, self.config.bits);
        let n_stimuli = episodes.shape.n_stimuli;
        let episodes_of = answers.y_last.chunks_exact(n).enumerate();
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

    fn picture(
        &self,
        episodes: &Episodes<f32>,
        answers: &Answers<'_>,
        e: usize,
    ) -> Option<Picture> {
        let (n, c) = (self.network.n_post, &self.config);
        let table = &episodes.stimuli[e * episodes.shape.n_stimuli * n..];
        let row = |k: usize| table[k * n..][..c.bits].iter().map(|v| v / single(c.gain)).collect();
        let mut tiles: Vec<(String, Vec<f32>)> =
            (0..c.patterns).map(|k| (format!("shown {}", k + 1), row(k))).collect();
        tiles.push(("cue".into(), row(c.patterns + 1)));
        tiles.push(("completed".into(), answers.y_last[e * n..][..c.bits].to_vec()));
        tiles.push(("the pattern".into(), episodes.targets[e * n..][..c.bits].to_vec()));
        Some(Picture { width: self.width(), tiles })
    }

    fn recall(&self) -> Option<Recall> {
        let c = &self.config;
        (self.networks.extra == 0).then(|| Recall {
            numbers: c.bits,
            width: self.width(),
            gain: single(c.gain),
            clamped: false,
            binary: true,
            cycles: c.cycles,
            shown: c.shown,
            blank: c.blank,
            test: c.test,
        })
    }

    fn halved(&self, stimulus: &[f32], stream: &mut Stream) -> Option<Vec<f32>> {
        let mut bits: Vec<usize> = (0..self.config.bits).collect();
        stream.shuffle(&mut bits);
        let mut cue = stimulus.to_vec();
        bits[..self.config.bits / 2].iter().for_each(|&k| cue[k] = 0.0);
        Some(cue)
    }

    fn with_stimuli(&self, n: usize) -> Result<Option<Box<dyn Task>>> {
        let config = PatternsConfig { patterns: n, ..self.config.clone() };
        order(&config).validate("task.patterns")?;
        Ok(Some(Box::new(Patterns { config, ..self.clone() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Patterns {
        let config = PatternsConfig { bits: 30, ..PatternsConfig::paper() };
        Patterns::new(&config, &NetworkConfig::paper(), 3, 0).unwrap()
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
        let errors =
            |y_last: &[f32]| task.errors(&episodes, &Answers { y_last, ..Answers::default() });
        assert_eq!(errors(&episodes.targets).unwrap(), [0.0; 6]);
        assert_eq!(errors(&cues).unwrap(), [1.0; 6]);
    }
}
