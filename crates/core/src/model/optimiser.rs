//! How parameters move: update rules and the learning rate over time. Engines apply
//! them; this file holds the numbers.

use serde::{Deserialize, Serialize};

/// A gradient method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Optimiser {
    /// Adam (Kingma & Ba 2015).
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
    },
    /// Stochastic gradient descent: v = momentum v + g, theta -= rate v.
    Sgd {
        /// 0 for none.
        momentum: f64,
    },
}

impl Optimiser {
    /// Adam with the usual constants.
    #[must_use]
    pub fn adam() -> Self {
        Optimiser::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// The learning rate over updates, and the bound on the gradient's norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Learning rate of the first update.
    pub rate: f64,
    /// The rate is multiplied by this...
    pub decay: f64,
    /// ...every so many updates.
    pub every: u64,
    /// Each network's gradient is scaled down to this Euclidean norm; 0: never.
    pub max_norm: f64,
}

impl Schedule {
    /// The learning rate of update `update`, counted from 0.
    #[must_use]
    pub fn rate_at(&self, update: u64) -> f64 {
        let steps = i32::try_from(update / self.every.max(1)).unwrap_or(i32::MAX);
        self.rate * self.decay.powi(steps)
    }
}

/// Everything one update of an optimiser needs beside the gradient: bias corrections
/// are formed in f64 once, not per parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSize {
    /// The method.
    pub optimiser: Optimiser,
    /// The learning rate, for Adam divided by 1 - beta1^t.
    pub rate: f64,
    /// 1 / sqrt(1 - beta2^t) for Adam, else 1.
    pub second_scale: f64,
    /// Bound on each network's gradient norm; 0: none.
    pub max_norm: f64,
}

impl StepSize {
    /// The step of update `update`, counted from 0.
    #[must_use]
    pub fn at(optimiser: Optimiser, schedule: &Schedule, update: u64) -> Self {
        let rate = schedule.rate_at(update);
        let max_norm = schedule.max_norm;
        match optimiser {
            Optimiser::Adam { beta1, beta2, .. } => {
                let t = i32::try_from(update + 1).unwrap_or(i32::MAX);
                StepSize {
                    optimiser,
                    rate: rate / (1.0 - beta1.powi(t)),
                    second_scale: 1.0 / (1.0 - beta2.powi(t)).sqrt(),
                    max_norm,
                }
            }
            Optimiser::Sgd { .. } => StepSize { optimiser, rate, second_scale: 1.0, max_norm },
        }
    }
}
