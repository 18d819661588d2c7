//! Losses of one step, and their gradients.

use crate::error::{Error, Result, one_of};
use crate::model::activation::sigmoid;
use crate::model::{Activation, Scalar};

/// What a target costs; summed over steps and neurons with weights, averaged over the
/// batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// `(y - target)^2`.
    Squared,
    /// `-target ln y - (1 - target) ln(1 - y)`.
    Bce,
    /// `-target ln y`.
    CrossEntropy,
}

/// One scored step, each `[N]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scored<'a, S> {
    pub(crate) z: &'a [S],
    pub(crate) y: &'a [S],
    pub(crate) clamp: Option<&'a [S]>,
    pub(crate) target: &'a [S],
    pub(crate) weight: &'a [S],
    /// dy/dz of an element-wise activation; empty without a backward pass.
    pub(crate) slopes: &'a [S],
}

impl Loss {
    /// Every loss, in the order of the shaders' numbering.
    pub const ALL: [Loss; 3] = [Loss::Squared, Loss::Bce, Loss::CrossEntropy];

    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Loss::Squared => "squared",
            Loss::Bce => "bce",
            Loss::CrossEntropy => "cross_entropy",
        }
    }

    /// The loss of that name.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|l| l.name() == name)
            .ok_or_else(|| Error::value("loss", name, one_of(name, &Self::ALL.map(Self::name))))
    }

    /// The loss of one step. Writes `delta` = the loss's dL/dz through free neurons,
    /// and `d_input` = its dL/dy where clamped, 0 elsewhere. Logarithms are taken from
    /// z, so a saturated output costs what it should; a term with weight 0 is 0.
    pub(crate) fn seed<S: Scalar>(
        self,
        activation: Activation,
        step: Scored<'_, S>,
        delta: &mut [S],
        d_input: &mut [S],
    ) -> f64 {
        let clamped = |j: usize| step.clamp.is_some_and(|c| c[j] != S::ZERO);
        let softmax = activation == Activation::Softmax;
        let mut sum = 0.0;
        for j in 0..step.y.len() {
            let term = Term { y: step.y[j], target: step.target[j], weight: step.weight[j] };
            delta[j] = S::ZERO;
            d_input[j] = S::ZERO;
            if clamped(j) {
                sum += term.plain(self).to_f64();
                d_input[j] = term.slope(self);
            } else if !softmax {
                let (loss, seed) = match (activation, self) {
                    (Activation::Sigmoid, Loss::Bce | Loss::CrossEntropy) => {
                        term.of_logit(self, step.z[j])
                    }
                    _ => {
                        let slope = step.slopes.get(j).copied().unwrap_or_default();
                        (term.plain(self), term.slope(self) * slope)
                    }
                };
                sum += loss.to_f64();
                delta[j] = seed;
            }
        }
        if softmax {
            sum += self.seed_softmax(step, clamped, delta);
        }
        sum
    }

    fn seed_softmax<S: Scalar>(
        self,
        step: Scored<'_, S>,
        clamped: impl Fn(usize) -> bool,
        delta: &mut [S],
    ) -> f64 {
        let (z, n) = (step.z, step.z.len());
        let term = |j: usize| {
            let weight = if clamped(j) { S::ZERO } else { step.weight[j] };
            (weight * step.target[j], weight * (S::ONE - step.target[j]))
        };
        let soft = Softmax::of(z);
        let y = |j: usize| soft.y(z, j);
        let mut sum = 0.0;
        match self {
            Loss::Squared => {
                let slope = |j: usize| {
                    let weight = if clamped(j) { S::ZERO } else { step.weight[j] };
                    (weight + weight) * (y(j) - step.target[j])
                };
                let mean = (0..n).fold(S::ZERO, |sum, j| sum + slope(j) * y(j));
                for j in (0..n).filter(|&j| !clamped(j)) {
                    let error = (y(j) - step.target[j]).to_f64();
                    sum += step.weight[j].to_f64() * error * error;
                }
                for (k, delta) in delta.iter_mut().enumerate() {
                    *delta = y(k) * (slope(k) - mean);
                }
            }
            Loss::CrossEntropy | Loss::Bce => {
                let total = (0..n).fold(S::ZERO, |sum, j| sum + term(j).0);
                for (k, delta) in delta.iter_mut().enumerate() {
                    let (on, _) = term(k);
                    if on != S::ZERO {
                        sum += (on * -soft.ln_y(z, k)).to_f64();
                    }
                    *delta = y(k) * total - on;
                }
                if self == Loss::Bce {
                    // d/dz_k of -ln(1 - y_j) is y_j for k = j, else -y_k y_j / (1 - y_j)
                    let odds = |j: usize| {
                        if j == soft.top { S::ZERO } else { term(j).1 * y(j) / (S::ONE - y(j)) }
                    };
                    let total = (0..n).fold(S::ZERO, |sum, j| sum + odds(j));
                    let (_, top_off) = term(soft.top);
                    for (k, delta) in delta.iter_mut().enumerate() {
                        let (_, off) = term(k);
                        if off != S::ZERO {
                            sum += (off * -soft.ln_not_y(z, k)).to_f64();
                        }
                        *delta += off * y(k) - y(k) * (total - odds(k));
                        if k != soft.top {
                            *delta += -(top_off * y(soft.top) * soft.share_of_rest(z, k));
                        }
                    }
                }
            }
        }
        sum
    }
}

/// One neuron's target.
struct Term<S> {
    y: S,
    target: S,
    weight: S,
}

impl<S: Scalar> Term<S> {
    /// weight x loss from y.
    fn plain(&self, loss: Loss) -> S {
        let error = self.y - self.target;
        let on = self.weight * self.target;
        let off = self.weight * (S::ONE - self.target);
        let log_on = || if on == S::ZERO { S::ZERO } else { on * -self.y.ln() };
        let log_off = || if off == S::ZERO { S::ZERO } else { off * -(S::ONE - self.y).ln() };
        match loss {
            Loss::Squared => self.weight * error * error,
            Loss::CrossEntropy => log_on(),
            Loss::Bce => log_on() + log_off(),
        }
    }

    /// weight x dloss/dy.
    fn slope(&self, loss: Loss) -> S {
        let on = self.weight * self.target;
        let off = self.weight * (S::ONE - self.target);
        let d_on = || if on == S::ZERO { S::ZERO } else { -(on / self.y) };
        let d_off = || if off == S::ZERO { S::ZERO } else { off / (S::ONE - self.y) };
        match loss {
            Loss::Squared => (self.weight + self.weight) * (self.y - self.target),
            Loss::CrossEntropy => d_on(),
            Loss::Bce => d_on() + d_off(),
        }
    }

    /// weight x (loss, dloss/dz) of a sigmoid neuron, from z.
    fn of_logit(&self, loss: Loss, z: S) -> (S, S) {
        let on = self.weight * self.target;
        let off = self.weight * (S::ONE - self.target);
        let tail = (-z.abs()).exp_neg().ln_1p();
        let zero = S::ZERO;
        let minus_ln_y = if z < zero { -z } else { zero } + tail;
        let minus_ln_not_y = if z > zero { z } else { zero } + tail;
        match loss {
            Loss::Squared => unreachable!("squared loss needs no logarithm"),
            Loss::CrossEntropy => (on * minus_ln_y, -(on * sigmoid(-z))),
            Loss::Bce => {
                (on * minus_ln_y + off * minus_ln_not_y, off * sigmoid(z) - on * sigmoid(-z))
            }
        }
    }
}

/// Softmax with its largest output apart, so that 1 - y loses no digits there.
struct Softmax<S> {
    top: usize,
    /// z of the largest output.
    first: S,
    /// The largest z of the others.
    second: S,
    /// sum of e^(z - second) over the others.
    rest: S,
    /// e^(second - first) rest: the others' weight beside the largest output's 1.
    tail: S,
}

impl<S: Scalar> Softmax<S> {
    fn of(z: &[S]) -> Self {
        let top = (1..z.len()).fold(0, |top, j| if z[j] > z[top] { j } else { top });
        let others = || z.iter().enumerate().filter(move |&(j, _)| j != top).map(|(_, &z)| z);
        let second = others().reduce(|a, b| if b > a { b } else { a }).unwrap_or(z[top]);
        let rest = others().fold(S::ZERO, |sum, z| sum + (z - second).exp_neg());
        let tail = (second - z[top]).exp_neg() * rest;
        Softmax { top, first: z[top], second, rest, tail }
    }

    fn y(&self, z: &[S], j: usize) -> S {
        (z[j] - self.first).exp_neg() / (S::ONE + self.tail)
    }

    fn ln_y(&self, z: &[S], j: usize) -> S {
        (z[j] - self.first) - self.ln_total()
    }

    /// ln(1 - y_j).
    fn ln_not_y(&self, z: &[S], j: usize) -> S {
        if j == self.top {
            (self.second - self.first) + self.rest.ln() - self.ln_total()
        } else {
            (S::ONE - self.y(z, j)).ln()
        }
    }

    /// y_k / (1 - y_top) for k other than the largest.
    fn share_of_rest(&self, z: &[S], k: usize) -> S {
        (z[k] - self.second).exp_neg() / self.rest
    }

    fn ln_total(&self) -> S {
        if self.tail < S::ONE { self.tail.ln_1p() } else { (S::ONE + self.tail).ln() }
    }
}
