//! Case files as training data.

use std::ops::Range;
use std::path::Path;

use crate::case::Case;
use crate::error::{Error, Result};
use crate::model::{Episodes, Network, Parameters, Shape, Tensor};
use crate::numbers::{index, single};
use crate::random::{Purpose, Stream};
use crate::task::{Answers, Task};

/// The episodes, network and initial parameters of a case file. Training draws the episodes by
/// the seed, each once before any comes again; a batch of all of them is in the file's order.
#[derive(Clone, Debug)]
pub struct Custom {
    case: Case<f32>,
    /// Episodes of the file that are trained on.
    training: Vec<usize>,
    held_out: Option<HeldOut>,
    /// "training", "held-out" or "given".
    scored_name: &'static str,
    start: Start,
}

/// Episodes that training never sees.
#[derive(Clone, Debug)]
struct HeldOut {
    episodes: Episodes<f32>,
    chosen: Vec<usize>,
}

/// Where a run's parameters start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the file's values, whatever the seed.
    #[default]
    File,
    /// w and alpha drawn by the seed, normal with the mean and deviation of the file's; the others
    /// as in the file.
    Random,
}

impl Custom {
    /// The task of a case, all of whose episodes are trained on.
    #[must_use]
    pub fn new(case: Case<f32>, start: Start) -> Self {
        let training = (0..case.episodes.shape.n_batch).collect();
        Custom { case, training, held_out: None, scored_name: "training", start }
    }

    /// A case whose episodes are all scored and none trained on.
    #[must_use]
    pub fn to_score(case: Case<f32>) -> Self {
        let chosen = (0..case.episodes.shape.n_batch).collect();
        let held_out = Some(HeldOut { episodes: case.episodes.clone(), chosen });
        Custom { held_out, scored_name: "given", ..Custom::new(case, Start::File) }
    }

    /// Holds a share of the episodes out, drawn by the seed: at least one, and not all.
    ///
    /// # Errors
    /// [`Error::Value`] for a share that leaves none on one of the sides.
    pub fn hold_out_share(mut self, share: f64, seed: u64) -> Result<Self> {
        let n = self.case.episodes.shape.n_batch;
        let mut order: Vec<usize> = (0..n).collect();
        Stream::new(seed, Purpose::HeldOut, 0, 0).shuffle(&mut order);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of few episodes"
        )]
        let n_held = (share * n as f64).round().max(1.0) as usize;
        if !(share > 0.0 && share < 1.0) || n_held >= n {
            let wanted = format!("a share above 0 that leaves some of {n} episodes to train on");
            return Err(Error::value("held-out", share.to_string(), wanted));
        }
        let mut chosen = order.split_off(n - n_held);
        chosen.sort_unstable();
        order.sort_unstable();
        self.training = order;
        self.scored_name = "held-out";
        self.held_out = Some(HeldOut { episodes: self.case.episodes.clone(), chosen });
        Ok(self)
    }

    /// Scores on the episodes of another case, of the same networks.
    ///
    /// # Errors
    /// [`Error::File`] if they are of others.
    pub fn hold_out(mut self, path: &Path, other: Case<f32>) -> Result<Self> {
        let mut network = other.network.clone();
        // what only the trained-on episodes have
        let own = &mut self.case.network.stages;
        network.stages.frozen.clone_from(&own.frozen);
        // an engine runs both
        own.general |= network.stages.general;
        network.stages.general = own.general;
        if network != self.case.network || other.measure != self.case.measure {
            let wanted = "the networks, rule, activation and losses of the case trained on";
            return Err(Error::file(path, "a case of another kind", wanted));
        }
        let chosen = (0..other.episodes.shape.n_batch).collect();
        self.held_out = Some(HeldOut { episodes: other.episodes, chosen });
        self.scored_name = "held-out";
        Ok(self)
    }

    /// Episodes per network to train on.
    #[must_use]
    pub fn n_training(&self) -> usize {
        self.training.len()
    }

    /// The numbers in the file of some episodes of a network's training stream, which takes the
    /// file in a new order each round.
    fn drawn(&self, seed: u64, p: usize, episodes: Range<usize>) -> Vec<usize> {
        let n = self.training.len();
        let mut drawn = Vec::with_capacity(episodes.len());
        for round in episodes.start / n..episodes.end.div_ceil(n) {
            let mut order = self.training.clone();
            let number = u32::try_from(round).unwrap_or(u32::MAX);
            Stream::new(seed, Purpose::Training, index(p), number).shuffle(&mut order);
            let from = episodes.start.max(round * n) - round * n;
            let to = episodes.end.min((round + 1) * n) - round * n;
            drawn.extend(&order[from..to]);
        }
        drawn
    }
}

impl Task for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    fn error_name(&self) -> &'static str {
        self.case.measure.map_or("loss", Measure::error_name)
    }

    fn error_text(&self, error: f64) -> String {
        match self.case.measure {
            None | Some(Measure::Squared) => format!("{error:.5}"),
            Some(_) => format!("{:.2} %", 100.0 * error),
        }
    }

    fn network(&self) -> Network {
        self.case.network.clone()
    }

    fn initial(&self, seed: u64) -> Parameters<f32> {
        let mut parameters = self.case.parameters.clone();
        for p in (0..parameters.n_networks()).filter(|_| self.start == Start::Random) {
            for tensor in [Tensor::W, Tensor::Alpha] {
                let mut stream = Stream::new(seed, Purpose::Parameters, index(p), tensor.number());
                let values = parameters.get_mut(p, tensor);
                let n = f64::from(index(values.len()));
                let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                let square = |&v: &f32| (f64::from(v) - mean).powi(2);
                let deviation = (values.iter().map(square).sum::<f64>() / n).sqrt();
                for value in values {
                    *value = single(mean + deviation * stream.normal());
                }
            }
        }
        parameters
    }

    fn shape(&self, n_batch: usize) -> Shape {
        Shape { n_batch, ..self.case.episodes.shape }
    }

    fn episodes(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32> {
        let (first, p) = (first as usize, self.case.network.n_networks);
        let every = |all: &[usize]| -> Vec<Vec<usize>> {
            let one = (first..first + n_batch).map(|k| all[k % all.len()]).collect();
            vec![one; p]
        };
        match (&self.held_out, purpose) {
            (Some(held_out), Purpose::HeldOut) => held_out.episodes.pick(&every(&held_out.chosen)),
            _ if purpose == Purpose::HeldOut || n_batch == self.training.len() => {
                self.case.episodes.pick(&every(&self.training))
            }
            _ => {
                let drawn = |p| self.drawn(seed, p, first..first + n_batch);
                self.case.episodes.pick(&(0..p).map(drawn).collect::<Vec<_>>())
            }
        }
    }

    /// Of the last step, whose loss weights say which neurons count; none where none does.
    fn errors(&self, episodes: &Episodes<f32>, answers: &Answers<'_>) -> Option<Vec<f64>> {
        let (measure, n) = (self.case.measure?, self.case.network.n_post);
        let shape = &episodes.shape;
        let each = answers.y_last.chunks_exact(n).enumerate().map(|(e, y)| {
            let row = episodes.scored[(e + 1) * shape.n_steps - 1] as usize;
            let at = (e * shape.n_targets + row) * n;
            measure.of(y, &episodes.targets[at..][..n], &episodes.loss_weights[at..][..n])
        });
        each.collect()
    }

    fn scored_name(&self) -> &'static str {
        self.scored_name
    }

    fn own_episodes(&self) -> Option<usize> {
        self.held_out.is_none().then_some(self.training.len())
    }

    fn most_held_out(&self) -> Option<usize> {
        self.held_out.as_ref().map(|held_out| held_out.chosen.len())
    }

    fn shares_start(&self) -> bool {
        self.start == Start::File
    }
}

/// What an error of a case counts, at the last step (metadata `error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The share of neurons whose sign is not the target's.
    Sign,
    /// 1 where the largest output is not the largest target's.
    Accuracy,
    /// The mean square of what is left.
    Squared,
}

impl Measure {
    const ALL: [(&str, Measure); 3] =
        [("sign", Measure::Sign), ("accuracy", Measure::Accuracy), ("squared", Measure::Squared)];

    /// The measure of that name.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        let known = Self::ALL.map(|(known, _)| known);
        found
            .map(|(_, measure)| measure)
            .ok_or_else(|| Error::value("error", name, crate::error::one_of(name, &known)))
    }

    fn error_name(self) -> &'static str {
        match self {
            Measure::Sign => "wrong signs",
            Measure::Accuracy => "wrong answers",
            Measure::Squared => "squared error",
        }
    }

    /// The error of one episode; none where no neuron counts.
    fn of(self, y: &[f32], target: &[f32], weight: &[f32]) -> Option<f64> {
        let counted: Vec<(f64, f64)> = y
            .iter()
            .zip(target)
            .zip(weight)
            .filter(|(_, weight)| **weight != 0.0)
            .map(|((&y, &target), _)| (f64::from(y), f64::from(target)))
            .collect();
        let n = f64::from(index(counted.len()));
        let largest = |of: fn(&(f64, f64)) -> f64| {
            (0..counted.len()).max_by(|&a, &b| of(&counted[a]).total_cmp(&of(&counted[b])))
        };
        let one = |yes: bool| f64::from(u8::from(yes));
        (!counted.is_empty()).then(|| match self {
            Measure::Sign => counted.iter().map(|(y, t)| one(y * t <= 0.0)).sum::<f64>() / n,
            Measure::Accuracy => one(largest(|c| c.0) != largest(|c| c.1)),
            Measure::Squared => counted.iter().map(|(y, t)| (y - t).powi(2)).sum::<f64>() / n,
        })
    }
}
