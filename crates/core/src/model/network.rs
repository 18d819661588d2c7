//! The specification of a population of plastic networks.

use crate::error::{Error, Result, one_of};
use crate::model::{Activation, Loss, Rule, Stages, Tensor};
use crate::rule::{Name, Per, Program};

/// How the plasticity coefficient alpha is shared (Miconi et al. 2018, section 3;
/// "yoked" there is [`AlphaSharing::PerNetwork`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlphaSharing {
    /// One alpha per connection, shape `[M, N]`.
    PerConnection,
    /// One alpha per post-synaptic neuron, shape `[1, N]`.
    PerNeuron,
    /// One alpha per network, shape `[1, 1]`.
    PerNetwork,
}

impl AlphaSharing {
    /// Every sharing.
    pub const ALL: [AlphaSharing; 3] =
        [AlphaSharing::PerConnection, AlphaSharing::PerNeuron, AlphaSharing::PerNetwork];

    /// The name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AlphaSharing::PerConnection => "connection",
            AlphaSharing::PerNeuron => "neuron",
            AlphaSharing::PerNetwork => "network",
        }
    }

    /// The sharing of that name.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|a| a.name() == name)
            .ok_or_else(|| Error::value("alpha", name, one_of(name, &Self::ALL.map(Self::name))))
    }

    /// (row, column): connection (i, j) of N post-synaptic neurons has element
    /// `i row + j column` of alpha.
    #[must_use]
    pub fn strides(self, n_post: usize) -> (usize, usize) {
        match self {
            AlphaSharing::PerConnection => (n_post, 1),
            AlphaSharing::PerNeuron => (0, 1),
            AlphaSharing::PerNetwork => (0, 0),
        }
    }
}

/// How a number that neurons have is shared: eta, a bias, a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One per post-synaptic neuron, shape `[N]`.
    PerNeuron,
    /// One per network, shape `[1]`.
    PerNetwork,
}

impl Sharing {
    /// Every sharing.
    pub const ALL: [Sharing; 2] = [Sharing::PerNeuron, Sharing::PerNetwork];

    /// The name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sharing::PerNeuron => "neuron",
            Sharing::PerNetwork => "network",
        }
    }

    /// The sharing of that name.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|e| e.name() == name)
            .ok_or_else(|| Error::value("eta_per", name, one_of(name, &Self::ALL.map(Self::name))))
    }
}

/// The most numbers of one kind that sizes may ask for; a few times as many bytes fit 64 bits.
pub(crate) const MOST: usize = 1 << 40;

/// A population of P networks of one architecture: one plastic layer with M
/// pre-synaptic and N post-synaptic neurons. Recurrent layers have M = N and
/// x(t) = y(t-1); feed-forward layers are given x(t).
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// P, networks with parameters of their own.
    pub n_networks: usize,
    /// M, pre-synaptic neurons.
    pub n_pre: usize,
    /// N, post-synaptic neurons.
    pub n_post: usize,
    /// Whether x(t) = y(t-1).
    pub recurrent: bool,
    /// The plasticity rule.
    pub rule: Rule,
    /// The activation function.
    pub activation: Activation,
    /// The loss.
    pub loss: Loss,
    /// The trace H is clipped to `[-clip, clip]` after each update, where given.
    pub clip: Option<f64>,
    /// Sharing of alpha.
    pub alpha: AlphaSharing,
    /// Sharing of eta.
    pub eta: Sharing,
    /// What it has beside its core.
    pub stages: Stages,
}

impl Network {
    /// Checks that the sizes are positive and fit each other.
    ///
    /// # Errors
    /// [`Error::Value`] naming the size or option that does not fit.
    pub fn validate(&self) -> Result<()> {
        for (key, size) in
            [("networks", self.n_networks), ("neurons", self.n_post), ("pre", self.n_pre)]
        {
            if size == 0 {
                return Err(Error::value(key, "0", "at least 1"));
            }
        }
        if self.recurrent && self.n_pre != self.n_post {
            return Err(Error::value(
                "pre",
                self.n_pre.to_string(),
                format!("{} neurons, because a recurrent layer reads itself", self.n_post),
            ));
        }
        if let Some(embedding) = self.stages.embedding {
            let found = embedding.sides().count() - 1;
            if found < embedding.layers || embedding.layers == 0 {
                let wanted = format!("1 to {found}, as {} pixels allow", embedding.side);
                return Err(Error::value("layers", embedding.layers.to_string(), wanted));
            }
            if self.recurrent || self.n_pre != embedding.features() {
                let found = format!("{}, recurrent {}", self.n_pre, self.recurrent);
                let wanted = format!("a feed-forward layer of {} features", embedding.features());
                return Err(Error::value("pre", found, wanted));
            }
        }
        let connections = [self.n_pre, self.n_post]
            .iter()
            .try_fold(self.n_networks, |product, &n| product.checked_mul(n))
            .filter(|&n| n <= MOST);
        if connections.is_none() {
            let found = format!("{} networks of {} x {}", self.n_networks, self.n_pre, self.n_post);
            return Err(Error::value("neurons", found, "at most 2^40 connections"));
        }
        if (self.rule == Rule::Custom) != self.stages.rule.is_some() {
            return Err(Error::value("rule", "custom", "a rule's text with it, and with no other"));
        }
        if let Some(rule) = &self.stages.rule {
            let parameters = rule.program.parameters();
            let fits = rule.per.len() == parameters.len()
                && rule.per.iter().zip(parameters).all(|(per, own)| own.per.contains(per));
            if !fits {
                let wanted = parameters.iter().map(|p| format!("{} {:?}", p.name, p.per));
                let wanted = wanted.collect::<Vec<_>>().join(", ");
                return Err(Error::value("rule", format!("parameters per {:?}", rule.per), wanted));
            }
        }
        if let (Some(clip), Rule::Custom) = (self.clip, self.rule) {
            let wanted = "none: a rule's text writes clip(...) itself";
            return Err(Error::value("clip", clip.to_string(), wanted));
        }
        if self.stages.given_m && !self.reads_m() {
            return Err(Error::value("m.input", "a rule without m", "a rule that reads m"));
        }
        if let Some(clip) = self.clip
            && !(clip.is_finite() && clip > 0.0)
        {
            return Err(Error::value("clip", clip.to_string(), "a positive number"));
        }
        Ok(())
    }

    /// Whether it is a plastic core alone, with what the fast engines run.
    #[must_use]
    pub fn is_core(&self) -> bool {
        let core = Stages { frozen: self.stages.frozen.clone(), ..Stages::default() };
        self.rule != Rule::Custom && self.stages == core
    }

    /// The clip bound that acts on H: none for a rule that never writes H.
    #[must_use]
    pub fn trace_clip(&self) -> Option<f64> {
        if self.rule == Rule::None { None } else { self.clip }
    }

    /// Traces per connection: H, and E for the retroactive rule, or those of a text.
    #[must_use]
    pub fn n_traces(&self) -> usize {
        match &self.stages.rule {
            Some(rule) => rule.program.traces().len(),
            None if self.rule == Rule::Retroactive => 2,
            None => 1,
        }
    }

    /// Whether the rule reads m.
    #[must_use]
    pub fn reads_m(&self) -> bool {
        match &self.stages.rule {
            Some(rule) => rule.program.reads(Name::M),
            None => self.rule.uses_modulator(),
        }
    }

    /// The rule as a text, with what each of its parameters is and what it is one number of.
    ///
    /// # Errors
    /// A rule that is not known.
    pub fn program(&self) -> Result<(Program, Vec<(Tensor, Per)>)> {
        let (mut program, parameters) = match &self.stages.rule {
            Some(rule) => {
                let parameters =
                    rule.per.iter().enumerate().map(|(k, &per)| (Tensor::OfRule(k), per));
                ((*rule.program).clone(), parameters.collect())
            }
            None => {
                let program = Program::built_in(self.rule.name())?;
                let per = match self.eta {
                    Sharing::PerNeuron => Per::Neuron,
                    Sharing::PerNetwork => Per::Network,
                };
                let parameters = program.parameters().iter().map(|_| (Tensor::Eta, per)).collect();
                (program, parameters)
            }
        };
        if let Some(clip) = self.trace_clip() {
            program = program.clipped(clip);
        }
        Ok((program, parameters))
    }

    /// Whether the networks read the neuromodulator out of their activity.
    #[must_use]
    pub fn has_modulator(&self) -> bool {
        self.reads_m() && !self.stages.given_m
    }

    /// Connections of one network, M N.
    #[must_use]
    pub fn n_connections(&self) -> usize {
        self.n_pre * self.n_post
    }
}
