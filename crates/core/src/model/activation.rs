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
    /// ln(1 + e^z).
    Softplus,
    /// z times the normal distribution's share below z.
    Gelu,
}

impl Activation {
    /// Every activation, in the order of the shaders' numbering.
    pub const ALL: [Activation; 7] = [
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Relu,
        Activation::Linear,
        Activation::Softmax,
        Activation::Softplus,
        Activation::Gelu,
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
            Activation::Softplus => "softplus",
            Activation::Gelu => "gelu",
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
    #[inline(always)]
    pub fn apply<S: Scalar>(self, z: &[S], y: &mut [S]) {
        match self {
            Activation::Tanh => map(z, y, S::tanh),
            Activation::Sigmoid => map(z, y, sigmoid),
            Activation::Relu => map(z, y, |z| if z > S::ZERO { z } else { S::ZERO }),
            Activation::Linear => y.copy_from_slice(z),
            Activation::Softplus => map(z, y, softplus),
            Activation::Gelu => map(z, y, |z| gelu(z).0),
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

    /// y = activation(z) and dy/dz of an element-wise activation, the latter accurate also
    /// where it saturates; all `[N]`.
    #[inline(always)]
    pub(crate) fn apply_with_slopes<S: Scalar>(self, z: &[S], y: &mut [S], slopes: &mut [S]) {
        match self {
            Activation::Tanh => map_two(z, y, slopes, S::tanh, tanh_slope),
            Activation::Sigmoid => map_two(z, y, slopes, sigmoid, sigmoid_slope),
            Activation::Relu => {
                self.apply(z, y);
                map(z, slopes, |z| if z > S::ZERO { S::ONE } else { S::ZERO });
            }
            Activation::Linear => {
                self.apply(z, y);
                slopes.fill(S::ONE);
            }
            Activation::Softplus => map_two(z, y, slopes, softplus, sigmoid),
            Activation::Gelu => map_two(z, y, slopes, |z| gelu(z).0, |z| gelu(z).1),
            Activation::Softmax => unreachable!("softmax is not element-wise"),
        }
    }
}

/// dL/dz of softmax from y and dL/dy: `delta += J^T ybar`, with ybar zero where a neuron was
/// clamped.
#[inline(always)]
pub(crate) fn softmax_adjoint<S: Scalar>(y: &[S], ybar: &[S], delta: &mut [S]) {
    let mean = y.iter().zip(ybar).fold(S::ZERO, |sum, (&y, &bar)| sum + bar * y);
    for ((delta, &y), &bar) in delta.iter_mut().zip(y).zip(ybar) {
        *delta += y * (bar - mean);
    }
}

#[inline(always)]
fn tanh_slope<S: Scalar>(z: S) -> S {
    let e = (-(z.abs() + z.abs())).exp_neg();
    let two = S::ONE + S::ONE;
    let half = two / (S::ONE + e);
    half * half * e
}

#[inline(always)]
fn sigmoid_slope<S: Scalar>(z: S) -> S {
    let e = (-z.abs()).exp_neg();
    let y = S::ONE / (S::ONE + e);
    y * y * e
}

#[inline(always)]
fn softplus<S: Scalar>(z: S) -> S {
    let top = if z > S::ZERO { z } else { S::ZERO };
    top + (-z.abs()).exp_neg().ln_1p()
}

/// Its value and its slope.
fn gelu<S: Scalar>(z: S) -> (S, S) {
    let z = z.to_f64();
    let below = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (S::from_f64(z * below), S::from_f64(below + z * density))
}

/// 1 / (1 + e^-z) with full relative accuracy on both sides.
#[inline(always)]
pub(crate) fn sigmoid<S: Scalar>(z: S) -> S {
    let e = (-z.abs()).exp_neg();
    let top = if z < S::ZERO { e } else { S::ONE };
    top / (S::ONE + e)
}

#[inline(always)]
fn map<S: Scalar>(z: &[S], y: &mut [S], f: impl Fn(S) -> S) {
    for (y, &z) in y.iter_mut().zip(z) {
        *y = f(z);
    }
}

/// Together, so that what `f` and `slope` have in common is calculated once.
#[inline(always)]
fn map_two<S: Scalar>(
    z: &[S],
    y: &mut [S],
    slopes: &mut [S],
    f: impl Fn(S) -> S,
    slope: impl Fn(S) -> S,
) {
    for ((y, out), &z) in y.iter_mut().zip(slopes).zip(z) {
        (*y, *out) = (f(z), slope(z));
    }
}
