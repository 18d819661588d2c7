//! Numbers of one kind as those of another.

/// A size as a number of 32 bits.
///
/// # Panics
/// For a size beyond reason.
pub(crate) fn index(n: usize) -> u32 {
    u32::try_from(n).expect("sizes fit 32 bits")
}

/// The nearest f32.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the meaning")]
pub(crate) fn single(x: f64) -> f32 {
    x as f32
}
