//! The arithmetic that the engines share: f32 and f64 with one set of names.
//!
//! The f32 functions are those of `shaders/lib/math.wgsl`, term by term, because
//! built-in `tanh`, `exp` and `log` differ between drivers. Polynomials: Cephes
//! (Moshier 1989), a few units in the last place each.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A real number: f32 or f64.
pub trait Scalar:
    Copy
    + Default
    + PartialOrd
    + std::fmt::Debug
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + Sum
    + bytemuck::Pod
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The name in files: "f32" or "f64".
    const NAME: &str;
    /// Half the distance from 1 to the next number: the relative rounding error.
    const ROUNDOFF: f64;

    /// The nearest number of this type.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// e^x for x <= 0.
    fn exp_neg(self) -> Self;
    /// Natural logarithm of a positive number.
    fn ln(self) -> Self;
    /// ln(1 + x) for 0 <= x <= 1.
    fn ln_1p(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Magnitude.
    fn abs(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Whether the number is neither infinite nor NaN.
    fn is_finite(self) -> bool;

    /// Where the first number is that is not finite.
    fn first_not_finite(values: &[Self]) -> Option<usize> {
        const CHUNK: usize = 64;
        // the sum of products with zero is zero, unless one of them is not finite
        let finite = |chunk: &[Self]| {
            let mut sums = [Self::ZERO; 16];
            for values in chunk.chunks(16) {
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += value * Self::ZERO;
                }
            }
            sums.into_iter().sum::<Self>() == Self::ZERO
        };
        let at = values.chunks(CHUNK).position(|chunk| !finite(chunk))? * CHUNK;
        values[at..].iter().position(|value| !value.is_finite()).map(|k| at + k)
    }
}

/// ln 2 split into a short and a small part, so that n ln 2 is exact enough.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// 1.5 * 2^23: the sum of it and a small whole number has that number in its lowest bits.
const WHOLE: f32 = 12_582_912.0;

// Without branches and casts (which saturate, one by one), so that loops over neurons become
// vectors.
#[inline(always)]
fn exp_neg_f32(x: f32) -> f32 {
    let inside = if x < -87.0 { -87.0 } else { x };
    let n = (inside * std::f32::consts::LOG2_E + 0.5).floor();
    let r = (inside - n * LN2_HIGH) - n * LN2_LOW;
    let p = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]
        .iter()
        .fold(1.987_569_1e-4, |p, c| p * r + c);
    let scale = f32::from_bits(((n + WHOLE).to_bits().wrapping_add(127)) << 23);
    let e = (p * r * r + r + 1.0) * scale;
    if x < -87.0 { 0.0 } else { e }
}

#[expect(clippy::cast_precision_loss, reason = "an exponent is below 2^8")]
#[expect(clippy::cast_possible_wrap, reason = "an exponent is below 2^8")]
fn ln_f32(x: f32) -> f32 {
    if x <= 0.0 {
        return if x < 0.0 { f32::NAN } else { f32::NEG_INFINITY };
    }
    let bits = x.to_bits();
    // x = m 2^e with m in [sqrt(1/2), sqrt(2))
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let e = (shifted as i32 >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff) + 0x3f35_04f3);
    let z = m - 1.0;
    let p = [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ]
    .iter()
    .fold(7.037_683_6e-2, |p, c| p * z + c);
    let y = z * z * z * p + e * LN2_LOW - 0.5 * z * z;
    z + y + e * LN2_HIGH
}

fn ln_1p_f32(x: f32) -> f32 {
    // ln(1 + x) = 2 atanh(s), s = x / (2 + x) <= 1/3
    let s = x / (2.0 + x);
    let s2 = s * s;
    let p = [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0].iter().fold(1.0 / 15.0, |p, k| p * s2 + 1.0 / k);
    2.0 * s * p
}

#[expect(clippy::excessive_precision, reason = "digits as the shader has them")]
#[inline(always)]
fn tanh_f32(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = [2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]
        .iter()
        .fold(-5.704_988_7e-3, |p, c| p * z + c);
    let near = x + x * z * p;
    let e = exp_neg_f32(-(a + a));
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    if a < 0.625 { near } else { far }
}

impl Scalar for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NAME: &str = "f32";
    const ROUNDOFF: f64 = 5.960_464_477_539_063e-8;

    #[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn exp_neg(self) -> f32 {
        exp_neg_f32(self)
    }
    fn ln(self) -> f32 {
        ln_f32(self)
    }
    fn ln_1p(self) -> f32 {
        ln_1p_f32(self)
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        tanh_f32(self)
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
}

impl Scalar for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NAME: &str = "f64";
    const ROUNDOFF: f64 = 1.110_223_024_625_156_5e-16;

    fn from_f64(x: f64) -> f64 {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn exp_neg(self) -> f64 {
        f64::exp(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn ln_1p(self) -> f64 {
        f64::ln_1p(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest relative error of `f` against `g` over points `x`.
    fn worst(points: impl Iterator<Item = f32>, f: fn(f32) -> f32, g: fn(f64) -> f64) -> f64 {
        points.fold(0.0, |worst, x| {
            let exact = g(f64::from(x));
            let error = (f64::from(f(x)) - exact).abs() / exact.abs().max(1e-37);
            worst.max(error)
        })
    }

    fn grid(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=50_000u16).map(move |k| from + (to - from) * f32::from(k) / 5e4)
    }

    #[test]
    fn f32_functions_are_within_four_units_in_the_last_place() {
        let four_ulp = 8.0 * f32::ROUNDOFF;
        for (name, error) in [
            ("exp", worst(grid(-86.9, 0.0), exp_neg_f32, f64::exp)),
            ("ln", worst(grid(1e-3, 0.9), ln_f32, f64::ln)),
            ("ln", worst(grid(1.1, 1e6), ln_f32, f64::ln)),
            ("ln near 1", worst(grid(0.9, 0.999), ln_f32, f64::ln)),
            ("ln_1p", worst(grid(1e-9, 1.0), ln_1p_f32, f64::ln_1p)),
            ("tanh", worst(grid(-12.0, 12.0).filter(|&x| x != 0.0), tanh_f32, f64::tanh)),
            ("tanh near 0", worst(grid(1e-30, 1e-3), tanh_f32, f64::tanh)),
        ] {
            assert!(error <= four_ulp, "{name}: {error:e}, {:.2} of the bound", error / four_ulp);
        }
    }

    #[test]
    fn f32_functions_hold_at_the_ends() {
        assert!((exp_neg_f32(0.0) - 1.0).abs() < f32::EPSILON);
        assert!(exp_neg_f32(-1e30).abs() < f32::MIN_POSITIVE);
        assert!((tanh_f32(1e30) - 1.0).abs() < f32::EPSILON);
        assert!((tanh_f32(-1e30) + 1.0).abs() < f32::EPSILON);
        assert!(tanh_f32(0.0).abs() < f32::MIN_POSITIVE);
        assert!(ln_f32(1.0).abs() < f32::MIN_POSITIVE);
    }
}
