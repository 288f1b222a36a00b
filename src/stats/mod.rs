//! Pure numbers: intervals, rank correlations, agreement of a judge with the truth, ROUGE-L.
//! Knows nothing of ours. Held to scipy and rouge-score by golden values.

mod rank;
mod rouge;
mod units;

pub use rank::{Agreement, judge_agreement, kendall_tau_b, spearman};
pub use rouge::{rouge_l, rouge_l_of};
pub use units::{Unit, figures, is_unspaced, units};

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Two-sided 97.5 % quantile of Student's t for 1 to 30 degrees of freedom, then by decade.
const T_QUANTILES: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

fn t_quantile(freedom: usize) -> f64 {
    match freedom {
        0 => f64::INFINITY,
        n => T_QUANTILES.get(n - 1).copied().unwrap_or(1.960 + 2.46 / n as f64),
    }
}

/// Mean and 95 % interval by Student's t over independent values (prompts). One value has no
/// interval: its ends are the value; no value gives zeros.
pub fn mean_interval(values: &[f64]) -> Interval {
    let n = values.len();
    if n == 0 {
        return Interval { mean: 0.0, low: 0.0, high: 0.0 };
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    if n == 1 {
        return Interval { mean, low: mean, high: mean };
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let half = t_quantile(n - 1) * (variance / n as f64).sqrt();
    Interval { mean, low: mean - half, high: mean + half }
}

/// Two-sided sign test: how likely is a split at least this uneven when both sides are alike?
/// Ties are left out.
pub fn sign_test(wins: u32, losses: u32) -> f64 {
    let n = wins + losses;
    let most = wins.max(losses);
    // log C(n, k) - n log 2, summed over the tail.
    let mut log_choose = 0.0f64;
    let mut tail = 0.0f64;
    for k in 0..=n {
        if k > 0 {
            log_choose += f64::from(n - k + 1).ln() - f64::from(k).ln();
        }
        if k >= most {
            tail += (log_choose - f64::from(n) * std::f64::consts::LN_2).exp();
        }
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: t.interval(0.95, 4, mean, sem), binomtest(k, n).pvalue.
    #[test]
    fn intervals_and_sign_test_equal_scipy() {
        let interval = mean_interval(&[1.0, 2.0, 3.0, 4.0, 7.0]);
        assert!((interval.mean - 3.4).abs() < 1e-12);
        assert!((interval.low - 0.541_475).abs() < 2e-3, "{interval:?}");
        for (wins, losses, p) in
            [(8, 2, 0.109_375), (60, 40, 0.056_887_933_640_981), (5, 5, 1.0), (0, 0, 1.0)]
        {
            assert!((sign_test(wins, losses) - p).abs() < 1e-9, "{wins} {losses}");
        }
    }

    #[test]
    fn intervals_of_few_values() {
        assert_eq!(mean_interval(&[]).mean, 0.0);
        assert_eq!(mean_interval(&[2.0]), Interval { mean: 2.0, low: 2.0, high: 2.0 });
    }
}
