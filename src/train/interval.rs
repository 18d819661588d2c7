//! Means with their 95 % confidence intervals (Student 1908).

use crate::train::mean;

/// A mean, with half the width of its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the interval's width, by Student's t; unknown from fewer than two values.
    pub ci95: Option<f64>,
}

impl Estimate {
    /// The mean of independent values.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let centre = mean(values.iter().copied());
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let n = values.len() as f64;
        let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
        let ci95 = (values.len() > 1)
            .then(|| student_t(values.len() - 1) * (squares / (n - 1.0) / n).sqrt());
        Estimate { mean: centre, ci95 }
    }

    /// The mean as a person reads it, with the interval where it is known.
    #[must_use]
    pub fn text(&self, show: impl Fn(f64) -> String) -> String {
        match self.ci95 {
            // of a measure that is shown with its sign turned the width is still a width
            Some(ci95) => {
                format!("{} \u{b1} {}", show(self.mean), show(ci95).trim_start_matches('-'))
            }
            None => show(self.mean),
        }
    }
}

/// The quantile 0.975 of Student's distribution with `freedom` degrees of freedom, at least 1: of
/// a table up to 30, then by its expansion about the normal one (Abramowitz & Stegun 26.7.5).
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn student_t(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004,
        2.262_157, 2.228_139, 2.200_985, 2.178_813, 2.160_369, 2.144_787, 2.131_450, 2.119_905,
        2.109_816, 2.100_922, 2.093_024, 2.085_963, 2.079_614, 2.073_873, 2.068_658, 2.063_899,
        2.059_539, 2.055_529, 2.051_831, 2.048_407, 2.045_230, 2.042_272,
    ];
    const X: f64 = 1.959_963_985;
    if let Some(&t) = TABLE.get(freedom.saturating_sub(1)) {
        return t;
    }
    let n = freedom as f64;
    let first = (X.powi(3) + X) / 4.0;
    let second = (5.0 * X.powi(5) + 16.0 * X.powi(3) + 3.0 * X) / 96.0;
    let third = (3.0 * X.powi(7) + 19.0 * X.powi(5) + 17.0 * X.powi(3) - 15.0 * X) / 384.0;
    X + first / n + second / n.powi(2) + third / n.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_students() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0]);
        assert!((estimate.mean - 2.0).abs() < 1e-12);
        // standard error 1 / sqrt(3), two degrees of freedom
        assert!((estimate.ci95.unwrap() - 4.302_653 / 3f64.sqrt()).abs() < 1e-6);
        assert_eq!(Estimate::of(&[1.0]).ci95, None, "one value has no interval");
        // beyond the table: 40, 100 and very many degrees of freedom
        for (freedom, t) in [(40, 2.021_075), (100, 1.983_972), (1_000_000, 1.959_966)] {
            assert!((student_t(freedom) - t).abs() < 2e-5, "{freedom}: {}", student_t(freedom));
        }
    }
}
