//! What networks are trained: one table of settings for every task.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, one_of};
use crate::model::{
    Activation, AlphaSharing, Embedding, Layout, Leak, Linear, Loss, Network, OutputLoss,
    Parameters, Rule, RuleText, Sharing, Stages, Tensor,
};
use crate::numbers::{index, single};
use crate::random::{Purpose, Stream};
use crate::rule::{self, Program};
use crate::task::memorise::{MOST, check_numbers};

/// The networks' settings. Of a case file all of them are the file's own: empty or 0 until it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Plasticity rule: a name that `hebbian rule list` shows, or a file with a rule's text.
    pub rule: String,
    /// The text of a rule that does not come with the program.
    #[serde(default)]
    pub rule_text: String,
    /// tanh, sigmoid, relu, linear, softmax, softplus or gelu.
    pub activation: String,
    /// Sharing of alpha: connection, neuron or network.
    pub alpha: String,
    /// Sharing of eta: neuron or network.
    pub eta_per: String,
    /// Initial plasticity rate.
    pub eta: f64,
    /// How wide the initial w and alpha are: their standard deviation, or the end of their range.
    pub spread: f64,
    /// How they are drawn: normal, or uniform from 0 on.
    #[serde(default)]
    pub start: String,
    /// Bound on the trace; 0 for none.
    pub clip: f64,
    /// A trained bias on every neuron: none, or one a neuron or network.
    #[serde(default = "none")]
    pub bias: String,
    /// How neurons leak: none, rate or membrane.
    #[serde(default = "none")]
    pub leak: String,
    /// Sharing of the leak: neuron or network.
    #[serde(default = "neuron")]
    pub leak_per: String,
    /// Initial leak, above 0 and at most 1; 1 forgets at once.
    #[serde(default = "half")]
    pub leak_rate: f64,
    /// Neurons beyond those of the task, which are shown nothing and asked for nothing.
    #[serde(default)]
    pub extra: usize,
    /// Tensors that training leaves as they are.
    #[serde(default)]
    pub frozen: Vec<String>,
}

/// How w and alpha may be drawn.
const STARTS: [&str; 2] = ["normal", "uniform"];

fn none() -> String {
    "none".into()
}

fn neuron() -> String {
    "neuron".into()
}

fn half() -> f64 {
    0.5
}

/// What stands around a plastic core.
pub(super) struct Layers {
    /// Numbers of an observation.
    pub(super) observed: usize,
    /// N.
    pub(super) neurons: usize,
    /// Numbers of the read-out.
    pub(super) outputs: usize,
    /// The loss on the read-out; none where cotangents are given.
    pub(super) loss: Option<OutputLoss>,
}

impl NetworkConfig {
    /// The networks of the paper's memory tasks.
    #[must_use]
    pub fn paper() -> Self {
        NetworkConfig {
            rule: "decay".into(),
            activation: "tanh".into(),
            alpha: "connection".into(),
            eta_per: "network".into(),
            eta: 0.01,
            spread: 0.01,
            start: STARTS[0].into(),
            clip: 0.0,
            bias: none(),
            leak: none(),
            leak_per: neuron(),
            leak_rate: half(),
            rule_text: String::new(),
            extra: 0,
            frozen: Vec::new(),
        }
    }

    /// The plastic read-out of the paper's one-shot classification.
    #[must_use]
    pub fn omniglot() -> Self {
        NetworkConfig { rule: "oja".into(), activation: "softmax".into(), ..Self::paper() }
    }

    /// Leaves the tensors that `frozen` names as they are in training.
    ///
    /// # Errors
    /// [`Error::Value`] for one that the networks have not.
    pub fn freeze(&self, network: &mut Network) -> Result<()> {
        let layout = Layout::new(network);
        for name in &self.frozen {
            let entry = layout.entries().iter().find(|entry| entry.name == *name);
            let Some(entry) = entry else {
                let names: Vec<&str> = layout.entries().iter().map(|entry| &*entry.name).collect();
                let found = format!("\"{name}\"");
                return Err(Error::value("network.frozen", found, one_of(name, &names)));
            };
            network.stages.frozen.push(entry.tensor);
        }
        Ok(())
    }

    /// Takes the text of the file that `rule` names, where it names no rule that comes with the
    /// program: a run does not depend on a file that may change.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name, or a text with a fault.
    pub fn read_rule(&mut self) -> Result<()> {
        let known = RuleText::known();
        let path = std::path::Path::new(&self.rule);
        let is_name = self.rule.is_empty() || known.contains(&self.rule.as_str());
        if is_name || !self.rule_text.is_empty() {
            return Ok(());
        }
        if !path.is_file() {
            let wanted = format!("{}, or a file", one_of(&self.rule, &known));
            return Err(Error::value("network.rule", format!("\"{}\"", self.rule), wanted));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
        self.rule = Program::parse(&text)?.name().into();
        self.rule_text = text;
        Ok(())
    }

    /// The rule, and its program where it is run as a text.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name, or a text with a fault.
    pub fn rule(&self) -> Result<(Rule, Option<Program>)> {
        match self.rule_text.is_empty() {
            true => RuleText::find(&self.rule, None),
            false => RuleText::find("custom", Some(&self.rule_text)),
        }
    }

    fn stages(&self, rule: Option<Program>) -> Result<Stages> {
        let none = |name: &str| name == "none" || name.is_empty();
        let leak = match none(&self.leak) {
            true => None,
            false if self.leak_rate > 0.0 && self.leak_rate <= 1.0 => {
                Some((Leak::from_name(&self.leak)?, Sharing::from_name(&self.leak_per)?))
            }
            false => {
                let found = self.leak_rate.to_string();
                return Err(Error::value("network.leak_rate", found, "above 0 and at most 1"));
            }
        };
        Ok(Stages {
            rule: rule.map(|program| RuleText::new(program, self.rule_text.is_empty())),
            bias: if none(&self.bias) { None } else { Some(Sharing::from_name(&self.bias)?) },
            leak,
            ..Stages::default()
        })
    }

    /// A recurrent population under a squared loss, whose neurons are the task's own.
    pub(super) fn recurrent(&self, n_networks: usize, n_neurons: usize) -> Result<Network> {
        self.population(n_networks, n_neurons, |_| {})
    }

    /// A recurrent population with an input layer and a read-out.
    pub(super) fn layered(&self, n_networks: usize, layers: &Layers) -> Result<Network> {
        let linear = |size| Some(Linear { size, bias: true });
        self.population(n_networks, layers.neurons, |stages| {
            stages.input = linear(layers.observed);
            stages.output = linear(layers.outputs);
            stages.output_loss = layers.loss;
            stages.cotangents = layers.loss.is_none();
        })
    }

    /// Feed-forward networks that name one of some classes, with an embedding before them.
    pub(super) fn classifier(
        &self,
        n_networks: usize,
        embedding: Embedding,
        n_classes: usize,
    ) -> Result<Network> {
        let network = self.population(n_networks, n_classes, |stages| {
            stages.embedding = Some(embedding);
        });
        network.map(|network| Network { loss: Loss::Bce, ..network })
    }

    fn population(
        &self,
        n_networks: usize,
        n_neurons: usize,
        around: impl FnOnce(&mut Stages),
    ) -> Result<Network> {
        check_numbers(&[
            ("network.spread", self.spread),
            ("network.eta", self.eta),
            ("network.clip", self.clip),
        ])?;
        if !self.start.is_empty() && !STARTS.contains(&&*self.start) {
            let found = format!("\"{}\"", self.start);
            return Err(Error::value("network.start", found, one_of(&self.start, &STARTS)));
        }
        if self.extra > MOST {
            let wanted = format!("at most {MOST}");
            return Err(Error::value("network.extra", self.extra.to_string(), wanted));
        }
        let n_neurons = n_neurons + self.extra;
        let (rule, program) = self.rule()?;
        let named = |key: &'static str, found: &str| {
            let found = format!("\"{found}\"");
            move |error: Error| match error {
                Error::Value { wanted, .. } => Error::value(key, found.clone(), wanted),
                other => other,
            }
        };
        let activation = Activation::from_name(&self.activation);
        let alpha = AlphaSharing::from_name(&self.alpha);
        let eta = Sharing::from_name(&self.eta_per);
        let mut stages = self.stages(program)?;
        around(&mut stages);
        let features = stages.embedding.map(Embedding::features);
        let mut network = Network {
            n_networks,
            n_pre: features.unwrap_or(n_neurons),
            n_post: n_neurons,
            recurrent: features.is_none(),
            rule,
            activation: activation.map_err(named("network.activation", &self.activation))?,
            loss: Loss::Squared,
            clip: (self.clip != 0.0).then_some(self.clip),
            alpha: alpha.map_err(named("network.alpha", &self.alpha))?,
            eta: eta.map_err(named("network.eta_per", &self.eta_per))?,
            stages,
        };
        self.freeze(&mut network)?;
        network.validate()?;
        Ok(network)
    }

    /// w and alpha normal with deviation `spread`; eta as given, or the modulator as a constant
    /// plasticity rate of that size. Network p of the population is network `first + p` of the streams.
    pub(super) fn initial(&self, network: &Network, seed: u64, first: u32) -> Parameters<f32> {
        let mut parameters = Parameters::zeros(network);
        let of_rule = network.stages.rule.as_ref();
        for p in 0..network.n_networks {
            for entry in Layout::new(network).entries() {
                let tensor = entry.tensor;
                let number = first.wrapping_add(index(p));
                let mut stream = Stream::new(seed, Purpose::Parameters, number, tensor.number());
                for value in parameters.get_mut(p, tensor) {
                    *value = single(match tensor {
                        Tensor::W | Tensor::Alpha if self.start == STARTS[1] => {
                            self.spread * stream.uniform()
                        }
                        Tensor::W | Tensor::Alpha | Tensor::ModW => self.spread * stream.normal(),
                        Tensor::Eta | Tensor::FanoutW | Tensor::FanoutB => self.eta,
                        Tensor::InW | Tensor::OutW | Tensor::ConvW(_) => {
                            stream.normal() / f64::from(index(entry.shape[0])).sqrt()
                        }
                        Tensor::ModB
                        | Tensor::Bias
                        | Tensor::InB
                        | Tensor::OutB
                        | Tensor::ConvB(_) => 0.0,
                        Tensor::Leak => self.leak_rate,
                        Tensor::OfRule(k) => {
                            of_rule.map_or(0.0, |rule| rule.program.parameters()[k].init)
                        }
                    });
                }
            }
        }
        parameters
    }

    /// The settings of a case's networks.
    #[must_use]
    pub fn of_case(network: &Network) -> Self {
        let stages = &network.stages;
        let program = stages.rule.as_ref().map(|rule| &rule.program);
        let is_built_in = program
            .is_some_and(|program| rule::TEXTS.iter().any(|(_, text)| *text == program.text()));
        let sharing = |sharing: Option<Sharing>| sharing.map_or(none(), |s| s.name().into());
        let leak = stages.leak;
        NetworkConfig {
            rule_text: match program {
                Some(program) if !is_built_in => program.text().into(),
                _ => String::new(),
            },
            bias: sharing(stages.bias),
            leak: leak.map_or(none(), |(leak, _)| leak.name().into()),
            leak_per: sharing(leak.map(|(_, sharing)| sharing)),
            leak_rate: 0.0,
            extra: 0,
            frozen: Vec::new(),
            rule: program.map_or(network.rule.name(), |program| program.name()).into(),
            activation: network.activation.name().into(),
            alpha: network.alpha.name().into(),
            eta_per: network.eta.name().into(),
            eta: 0.0,
            spread: 0.0,
            start: String::new(),
            clip: network.clip.unwrap_or(0.0),
        }
    }

    /// Takes a case's settings; one that was asked for must be the case's.
    ///
    /// # Errors
    /// [`Error::Value`] naming the setting.
    pub fn agree(&mut self, network: &Network) -> Result<()> {
        let case = Self::of_case(network);
        let number = |value: f64| if value == 0.0 { String::new() } else { value.to_string() };
        for (key, asked, held) in [
            ("network.rule", self.rule.clone(), case.rule.clone()),
            ("network.activation", self.activation.clone(), case.activation.clone()),
            ("network.alpha", self.alpha.clone(), case.alpha.clone()),
            ("network.eta_per", self.eta_per.clone(), case.eta_per.clone()),
            ("network.eta", number(self.eta), String::new()),
            ("network.spread", number(self.spread), String::new()),
            ("network.start", self.start.clone(), String::new()),
            ("network.clip", number(self.clip), number(case.clip)),
            ("network.rule_text", self.rule_text.clone(), case.rule_text.clone()),
            ("network.bias", self.bias.clone(), case.bias.clone()),
            ("network.leak", self.leak.clone(), case.leak.clone()),
            ("network.leak_per", self.leak_per.clone(), case.leak_per.clone()),
            ("network.leak_rate", number(self.leak_rate), String::new()),
            ("network.extra", number(f64::from(index(self.extra))), String::new()),
        ] {
            if !asked.is_empty() && asked != held {
                let held = if held.is_empty() { "none".into() } else { held };
                return Err(Error::value(key, asked, format!("{held}, as the case file has it")));
            }
        }
        *self = NetworkConfig { frozen: std::mem::take(&mut self.frozen), ..case };
        Ok(())
    }
}
