//! Wilcoxon's rank-sum test.

/// The probability, two-sided, that two samples of one distribution differ in their ranks as much as
/// these do: exact, equal values sharing their ranks (Wilcoxon 1945; Mann & Whitney 1947). None without
/// values on a side, or where a value is not a number.
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

#[cfg(test)]
mod tests {
    use super::rank_sum;

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
