//! What networks are trained: one table of settings for every task.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{
    Activation, AlphaSharing, Layout, Loss, Network, Parameters, Rule, Sharing, Stages, Tensor,
};
use crate::random::{Purpose, Stream};
use crate::task::memorise::{check_numbers, index, single};

/// The networks' settings. Of a case file all of them are the file's own: empty or 0 until it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Plasticity rule: none, decay, oja, modulated or retroactive.
    pub rule: String,
    /// tanh, sigmoid, relu, linear or softmax.
    pub activation: String,
    /// Sharing of alpha: connection, neuron or network.
    pub alpha: String,
    /// Sharing of eta: neuron or network.
    pub eta_per: String,
    /// Initial plasticity rate.
    pub eta: f64,
    /// Standard deviation of the initial w and alpha.
    pub spread: f64,
    /// Bound on the trace; 0 for none.
    pub clip: f64,
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
            clip: 0.0,
        }
    }

    /// A recurrent population under a squared loss.
    pub(super) fn recurrent(&self, n_networks: usize, n_neurons: usize) -> Result<Network> {
        check_numbers(&[
            ("network.spread", self.spread),
            ("network.eta", self.eta),
            ("network.clip", self.clip),
        ])?;
        let network = Network {
            n_networks,
            n_pre: n_neurons,
            n_post: n_neurons,
            recurrent: true,
            rule: Rule::from_name(&self.rule)?,
            activation: Activation::from_name(&self.activation)?,
            loss: Loss::Squared,
            clip: (self.clip != 0.0).then_some(self.clip),
            alpha: AlphaSharing::from_name(&self.alpha)?,
            eta: Sharing::from_name(&self.eta_per)?,
            stages: Stages::default(),
        };
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
                        Tensor::W | Tensor::Alpha | Tensor::ModW => self.spread * stream.normal(),
                        Tensor::Eta | Tensor::FanoutW | Tensor::FanoutB => self.eta,
                        Tensor::InW | Tensor::OutW => {
                            stream.normal() / f64::from(index(entry.shape[0])).sqrt()
                        }
                        Tensor::ModB | Tensor::Bias | Tensor::InB | Tensor::OutB => 0.0,
                        Tensor::Leak => 1.0,
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
        NetworkConfig {
            rule: network.rule.name().into(),
            activation: network.activation.name().into(),
            alpha: network.alpha.name().into(),
            eta_per: network.eta.name().into(),
            eta: 0.0,
            spread: 0.0,
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
            ("network.clip", number(self.clip), number(case.clip)),
        ] {
            if !asked.is_empty() && asked != held {
                let held = if held.is_empty() { "none".into() } else { held };
                return Err(Error::value(key, asked, format!("{held}, as the case file has it")));
            }
        }
        *self = case;
        Ok(())
    }
}
