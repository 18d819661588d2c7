//! Activation functions and their derivatives.

use crate::error::{Error, Result, one_of};
use crate::model::Scalar;

/// y = activation(z), over the N neurons of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-z).
    Sigmoid,
    /// max(z, 0); its derivative at 0 is 0.
    Relu,
    /// z itself.
    Linear,
    /// e^z_j / sum_k e^z_k over all N neurons.
    Softmax,
}

impl Activation {
    /// Every activation, in the order of the shaders' numbering.
    pub const ALL: [Activation; 5] = [
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Relu,
        Activation::Linear,
        Activation::Softmax,
    ];

    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Activation::Tanh => "tanh",
            Activation::Sigmoid => "sigmoid",
            Activation::Relu => "relu",
            Activation::Linear => "linear",
            Activation::Softmax => "softmax",
        }
    }

    /// The activation of that name.
    ///
    /// # Errors
    /// [`Error::Value`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| {
            Error::value("activation", name, one_of(name, &Self::ALL.map(Self::name)))
        })
    }

    /// y = activation(z); both `[N]`.
    pub fn apply<S: Scalar>(self, z: &[S], y: &mut [S]) {
        match self {
            Activation::Tanh => map(z, y, S::tanh),
            Activation::Sigmoid => map(z, y, sigmoid),
            Activation::Relu => map(z, y, |z| if z > S::ZERO { z } else { S::ZERO }),
            Activation::Linear => y.copy_from_slice(z),
            Activation::Softmax => {
                let top = z.iter().fold(z[0], |top, &z| if z > top { z } else { top });
                map(z, y, |z| (z - top).exp_neg());
                let sum = y.iter().fold(S::ZERO, |sum, &e| sum + e);
                for y in y {
                    *y = *y / sum;
                }
            }
        }
    }

    /// dL/dz from dL/dy of the free neurons: `delta += J^T ybar`. `free(j)` is
    /// false where neuron j was clamped, so that its ybar does not count.
    pub fn adjoint<S: Scalar>(
        self,
        z: &[S],
        y: &[S],
        ybar: &[S],
        free: impl Fn(usize) -> bool,
        delta: &mut [S],
    ) {
        let free_bar = |j: usize| if free(j) { ybar[j] } else { S::ZERO };
        if self == Activation::Softmax {
            let mean = (0..y.len()).fold(S::ZERO, |sum, j| sum + free_bar(j) * y[j]);
            for (j, delta) in delta.iter_mut().enumerate() {
                *delta += y[j] * (free_bar(j) - mean);
            }
        } else {
            for (j, delta) in delta.iter_mut().enumerate() {
                *delta += self.slope(z[j]) * free_bar(j);
            }
        }
    }

    /// dy/dz of an element-wise activation, accurate also where it saturates.
    pub(crate) fn slope<S: Scalar>(self, z: S) -> S {
        match self {
            Activation::Tanh => {
                let e = (-(z.abs() + z.abs())).exp_neg();
                let two = S::ONE + S::ONE;
                let half = two / (S::ONE + e);
                half * half * e
            }
            Activation::Sigmoid => {
                let e = (-z.abs()).exp_neg();
                let y = S::ONE / (S::ONE + e);
                y * y * e
            }
            Activation::Relu => {
                if z > S::ZERO {
                    S::ONE
                } else {
                    S::ZERO
                }
            }
            Activation::Linear => S::ONE,
            Activation::Softmax => unreachable!("softmax is not element-wise"),
        }
    }
}

/// 1 / (1 + e^-z) with full relative accuracy on both sides.
pub(crate) fn sigmoid<S: Scalar>(z: S) -> S {
    let e = (-z.abs()).exp_neg();
    let top = if z < S::ZERO { e } else { S::ONE };
    top / (S::ONE + e)
}

fn map<S: Scalar>(z: &[S], y: &mut [S], f: impl Fn(S) -> S) {
    for (y, &z) in y.iter_mut().zip(z) {
        *y = f(z);
    }
}
