//! Wilcoxon's rank-sum test.

/// Values in all up to which the probability is counted, in some 50 million steps.
const COUNTED: usize = 100;

/// The probability, two-sided, that two samples of one distribution differ in their ranks as much as
/// these do, equal values sharing their ranks (Wilcoxon 1945; Mann & Whitney 1947): counted, or of more
/// than 100 values by the normal distribution. None without values on a side, or where a value is not a
/// number.
#[must_use]
pub fn rank_sum(one: &[f64], other: &[f64]) -> Option<f64> {
    let n = one.len() + other.len();
    let all = || one.iter().chain(other);
    if one.is_empty() || other.is_empty() || all().any(|value| value.is_nan()) {
        return None;
    }
    // twice the ranks, so that shared ones are whole numbers
    let rank = |value: f64| {
        let below = all().filter(|v| **v < value).count();
        let equal = all().filter(|v| v.total_cmp(&value).is_eq() || **v == value).count();
        2 * below + equal + 1
    };
    let ranks: Vec<usize> = all().map(|&value| rank(value)).collect();
    let total: usize = ranks.iter().sum();
    let observed: usize = ranks[..one.len()].iter().sum();
    if n > COUNTED {
        return Some(by_normal(&ranks, one.len(), observed));
    }
    // how many choices of `chosen` values have each sum of ranks
    let mut ways = vec![vec![0.0; total + 1]; one.len() + 1];
    ways[0][0] = 1.0;
    for &rank in &ranks {
        for chosen in (1..=one.len()).rev() {
            for sum in (rank..=total).rev() {
                ways[chosen][sum] += ways[chosen - 1][sum - rank];
            }
        }
    }
    // the mean of the sums is one.len() total / n
    let distance = |sum: usize| (sum * n).abs_diff(one.len() * total);
    let ways = &ways[one.len()];
    let far: f64 =
        (0..=total).filter(|&s| distance(s) >= distance(observed)).map(|s| ways[s]).sum();
    Some(far / ways.iter().sum::<f64>())
}

/// By the normal distribution with the mean and variance of the sum of `chosen` of the doubled ranks.
#[expect(clippy::cast_precision_loss, reason = "ranks of few values")]
fn by_normal(ranks: &[usize], chosen: usize, observed: usize) -> f64 {
    let (n, chosen) = (ranks.len() as f64, chosen as f64);
    let mean = ranks.iter().map(|&rank| rank as f64).sum::<f64>() / n;
    let spread = ranks.iter().map(|&rank| (rank as f64 - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let deviation = (chosen * (n - chosen) / n * spread).sqrt();
    if deviation == 0.0 {
        return 1.0;
    }
    erfc((observed as f64 - chosen * mean).abs() / deviation / std::f64::consts::SQRT_2)
}

/// The complementary error function of a number of at least 0, to 1.2e-7 of itself (Press et al.,
/// *Numerical recipes*, section 6.2, by Chebyshev's polynomials).
fn erfc(x: f64) -> f64 {
    const C: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let sum = C.iter().rev().fold(0.0, |sum, c| sum * t + c);
    t * (sum - x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::rank_sum;

    #[test]
    fn the_normal_distribution_comes_near_what_is_counted() {
        let one: Vec<f64> = (0..30).map(|k| f64::from(k * 7 % 30)).collect();
        let other: Vec<f64> = (0..30).map(|k| f64::from(k * 11 % 30) + 4.5).collect();
        let counted = rank_sum(&one, &other).unwrap();
        let ranks = |scale: usize| -> Vec<f64> {
            one.iter().flat_map(|v| std::iter::repeat_n(*v, scale)).collect()
        };
        assert!((0.01..0.1).contains(&counted), "{counted}");
        let all: Vec<usize> = one
            .iter()
            .chain(&other)
            .map(|v| {
                2 * one.iter().chain(&other).filter(|w| *w < v).count()
                    + one.iter().chain(&other).filter(|w| *w == v).count()
                    + 1
            })
            .collect();
        let near = super::by_normal(&all, 30, all[..30].iter().sum());
        assert!((near - counted).abs() < 0.1 * counted, "{near} {counted}");
        // many values, which would take gigabytes to count
        let p = rank_sum(&ranks(40), &ranks(40)).unwrap();
        assert!((p - 1.0).abs() < 1e-6, "{p}");
        assert!((super::erfc(1.0) - 0.157_299_207).abs() < 1e-7);
    }

    #[test]
    fn probabilities_are_those_counted_by_hand() {
        // of the 252 choices of 5 out of 10 two are as extreme as full separation
        let low = [0.1, 0.2, 0.3, 0.4, 0.5];
        let high = [1.1, 1.2, 1.3, 1.4, 1.5];
        assert!((rank_sum(&low, &high).unwrap() - 2.0 / 252.0).abs() < 1e-12);
        // of the 6 choices of 2 out of 4 four are as far from 5 as {1, 3} and {2, 4}, or farther
        assert!((rank_sum(&[1.0, 3.0], &[2.0, 4.0]).unwrap() - 4.0 / 6.0).abs() < 1e-12);
        // all alike
        assert!((rank_sum(&[1.0; 4], &[1.0; 3]).unwrap() - 1.0).abs() < 1e-12);
        assert!(rank_sum(&[], &[1.0]).is_none() && rank_sum(&[f64::NAN], &[1.0]).is_none());
    }
}
