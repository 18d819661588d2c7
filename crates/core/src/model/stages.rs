//! What networks may have around and beside their plastic core.

use std::sync::Arc;

use crate::error::{Error, Result, one_of};
use crate::model::{Rule, Sharing, Tensor};
use crate::rule::{self, Per, Program, State};

/// Options of a network; by default it has none of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stages {
    /// A rule that is a text; [`Rule::Custom`](crate::model::Rule::Custom) then.
    pub rule: Option<RuleText>,
    /// m is what the episodes bring alone: the networks have no read-out of it.
    pub given_m: bool,
    /// A bias on z.
    pub bias: Option<Sharing>,
    /// Neurons that leak.
    pub leak: Option<(Leak, Sharing)>,
    /// Some connections are missing: [`Parameters::mask`](crate::model::Parameters::mask).
    pub masked: bool,
    /// A linear input layer.
    pub input: Option<Linear>,
    /// What images pass through on their way to a feed-forward layer.
    pub embedding: Option<Embedding>,
    /// A linear read-out.
    pub output: Option<Linear>,
    /// The loss on the read-out; none where it has no targets.
    pub output_loss: Option<OutputLoss>,
    /// Whether episodes bring resets, truncation or a cotangent of H, which the general plan runs.
    pub general: bool,
    /// Tensors that updates leave as they are.
    pub frozen: Vec<Tensor>,
    /// Gradients are those of given cotangents instead of a loss.
    pub cotangents: bool,
}

/// A rule as a text, with what each of its parameters is one number of.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleText {
    /// The rule.
    pub program: Arc<Program>,
    /// For each of its parameters.
    pub per: Vec<Per>,
    /// Their names in files.
    pub names: Vec<String>,
}

impl RuleText {
    /// The names that a rule may have: of those that come with the program, and custom for a text of
    /// one's own.
    #[must_use]
    pub fn known() -> Vec<&'static str> {
        rule::TEXTS.iter().map(|(name, _)| *name).chain(["custom"]).collect()
    }

    /// The rule of that name, and its program where it is run as a text: `text` is that of a custom
    /// one.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name, a faulty text, or a text of a rule that has one.
    pub fn find(name: &str, text: Option<&str>) -> Result<(Rule, Option<Program>)> {
        let known = Self::known();
        match (name, text) {
            ("custom", Some(text)) => Ok((Rule::Custom, Some(Program::parse(text)?))),
            ("custom", None) => {
                Err(Error::value("rule.text", "no such metadata key", "the text of the rule"))
            }
            (_, Some(_)) => {
                Err(Error::value("rule", format!("\"{name}\" with rule.text"), "custom"))
            }
            (name, None) if !known.contains(&name) => {
                Err(Error::value("rule", name, one_of(name, &known)))
            }
            (name, None) => match Rule::from_name(name) {
                Ok(rule) => Ok((rule, None)),
                Err(_) => Ok((Rule::Custom, Some(Program::built_in(name)?))),
            },
        }
    }

    /// The name in files of a parameter of `program`; `by_name` of a rule that comes with the program,
    /// among which delta's rate is named like decay's.
    #[must_use]
    pub fn parameter_name(program: &Program, by_name: bool, name: &str) -> String {
        if by_name && program.name() == "delta" { name.into() } else { format!("rule.{name}") }
    }

    /// The states that an episode keeps beside H, of a layer of m by n neurons, with their axes: its other
    /// traces, then post variables and pre variables.
    pub fn states(&self, m: usize, n: usize) -> impl Iterator<Item = (&State, Vec<usize>)> {
        let program = &self.program;
        let traces = program.traces()[1..].iter().map(move |state| (state, vec![m, n]));
        let post = program.post().iter().map(move |state| (state, vec![n]));
        let pre = program.pre().iter().map(move |state| (state, vec![m]));
        traces.chain(post).chain(pre)
    }

    /// Numbers of each of them.
    pub fn state_sizes(&self, m: usize, n: usize) -> impl Iterator<Item = usize> {
        self.states(m, n).map(|(_, axes)| axes.iter().product())
    }

    /// A rule whose parameters are one number of what stands first in the text.
    #[must_use]
    pub fn new(program: Program, by_name: bool) -> Self {
        let parameters = program.parameters().iter();
        let names = parameters.clone().map(|p| Self::parameter_name(&program, by_name, &p.name));
        let (per, names) = (parameters.map(|p| p.per[0]).collect(), names.collect());
        RuleText { program: Arc::new(program), per, names }
    }
}

/// How neurons leak, with a rate k in (0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leak {
    /// y(t) = (1 - k) y(t-1) + k act(z).
    Rate,
    /// v(t) = (1 - k) v(t-1) + k z(t), y = act(v).
    Membrane,
}

impl Leak {
    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Leak::Rate => "rate",
            Leak::Membrane => "membrane",
        }
    }

    /// The leak of that name.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "rate" => Ok(Leak::Rate),
            "membrane" => Ok(Leak::Membrane),
            _ => Err(Error::value("leak", name, one_of(name, &["rate", "membrane"]))),
        }
    }
}

/// A linear layer: its size on the outer side, and whether it has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// K of an input layer, O of a read-out.
    pub size: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

/// Convolutions of 3 x 3 with stride 2, without padding, each with a bias and tanh (Miconi et al. 2018,
/// section 4.4): their last output, flat, is the pre-synaptic activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// Pixels along a side of an image.
    pub side: usize,
    /// Maps of every layer.
    pub channels: usize,
    /// Layers.
    pub layers: usize,
}

impl Embedding {
    /// Pixels along a side before the first layer and after each; fewer where an image is too small.
    pub fn sides(self) -> impl Iterator<Item = usize> {
        let next = |side: &usize| (*side >= 3).then(|| (side - 3) / 2 + 1);
        std::iter::successors(Some(self.side), next).take(self.layers + 1)
    }

    /// Maps that layer `k` reads, from 0.
    #[must_use]
    pub fn channels_into(self, k: usize) -> usize {
        if k == 0 { 1 } else { self.channels }
    }

    /// Numbers of the last output.
    #[must_use]
    pub fn features(self) -> usize {
        self.sides().last().map_or(0, |side| side * side * self.channels)
    }
}

/// A loss on the read-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputLoss {
    /// `(out - target)^2`.
    #[default]
    Squared,
    /// `-target ln s - (1 - target) ln(1 - s)`, s = sigmoid(out).
    BceLogits,
    /// `-target ln p`, p = softmax(out).
    CrossEntropyLogits,
}

impl OutputLoss {
    const ALL: [(&str, OutputLoss); 3] = [
        ("squared", OutputLoss::Squared),
        ("bce_logits", OutputLoss::BceLogits),
        ("cross_entropy_logits", OutputLoss::CrossEntropyLogits),
    ];

    /// The loss of that name.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        let known = Self::ALL.map(|(known, _)| known);
        let wanted = || Error::value("out.loss", name, one_of(name, &known));
        found.map(|(_, loss)| loss).ok_or_else(wanted)
    }

    /// The loss of one step, and d loss / d out `[O]`. A term of weight 0 is 0.
    #[must_use]
    pub fn of(self, out: &[f64], target: &[f64], weight: &[f64]) -> (f64, Vec<f64>) {
        let counts = |k: usize| weight[k] != 0.0;
        match self {
            OutputLoss::Squared => {
                let each = (0..out.len()).filter(|&k| counts(k));
                let loss = each.map(|k| weight[k] * (out[k] - target[k]).powi(2)).sum();
                let slope = |k: usize| 2.0 * weight[k] * (out[k] - target[k]);
                (loss, (0..out.len()).map(|k| if counts(k) { slope(k) } else { 0.0 }).collect())
            }
            OutputLoss::BceLogits => {
                // ln(1 + e^v), for any v
                let soft = |v: f64| v.max(0.0) + (-v.abs()).exp().ln_1p();
                let term = |k: usize| {
                    let (v, t) = (out[k], target[k]);
                    let on = if t == 0.0 { 0.0 } else { t * soft(-v) };
                    let off = if t == 1.0 { 0.0 } else { (1.0 - t) * soft(v) };
                    weight[k] * (on + off)
                };
                let sigmoid = |v: f64| {
                    if v < 0.0 { v.exp() / (1.0 + v.exp()) } else { 1.0 / (1.0 + (-v).exp()) }
                };
                let slope = |k: usize| weight[k] * (sigmoid(out[k]) - target[k]);
                let loss = (0..out.len()).filter(|&k| counts(k)).map(term).sum();
                (loss, (0..out.len()).map(|k| if counts(k) { slope(k) } else { 0.0 }).collect())
            }
            OutputLoss::CrossEntropyLogits => {
                let most = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = out.iter().map(|v| (v - most).exp()).sum();
                let log = sum.ln();
                let on = |k: usize| weight[k] * target[k];
                let term = |k: usize| on(k) * -(out[k] - most - log);
                let loss = (0..out.len()).filter(|&k| on(k) != 0.0).map(term).sum();
                let total: f64 = (0..out.len()).map(on).sum();
                let slope = |k: usize| total * (out[k] - most - log).exp() - on(k);
                (loss, (0..out.len()).map(slope).collect())
            }
        }
    }
}
