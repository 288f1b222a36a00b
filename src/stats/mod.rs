//! Pure numbers: intervals, tests, rank correlations, agreement of a judge with the truth, ROUGE-L.
//! Knows nothing of ours. Held to scipy, statsmodels and rouge-score by golden values.

mod length_controlled;
mod rank;
mod rouge;
mod shares;
mod units;

pub use length_controlled::{LengthAndWin, length_controlled};
pub use rank::{Agreement, judge_agreement, kendall_tau_b, spearman};
pub use rouge::{rouge_l, rouge_l_of};
pub use shares::{ALPHA, sign_test, wilson, win_rate};
pub use units::{Unit, figures, is_unspaced, units};

/// A mean or a share with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end; minus infinity where it is not known.
    pub low: f64,
    /// Upper end; infinity where it is not known.
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

/// Mean and 95 % interval by Student's t over independent values (prompts). One value says nothing
/// of how others would scatter: its interval is everything, as is that of no value, whose mean is 0.
pub fn mean_interval(values: &[f64]) -> Interval {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n.max(1) as f64;
    if n < 2 {
        return Interval { mean, low: f64::NEG_INFINITY, high: f64::INFINITY };
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let half = t_quantile(n - 1) * (variance / n as f64).sqrt();
    Interval { mean, low: mean - half, high: mean + half }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values, mean, low, high: scipy's t.interval(0.95, n - 1, mean, sem).
    type IntervalRow = (Vec<f64>, f64, f64, f64);

    #[test]
    fn intervals_equal_scipy() {
        let rows: Vec<IntervalRow> =
            serde_json::from_str(include_str!("../../tests/golden/stats/means.json")).unwrap();
        assert!(rows.len() > 30);
        for (values, mean, low, high) in rows {
            let found = mean_interval(&values);
            assert!((found.mean - mean).abs() < 1e-12, "{values:?}");
            // The quantiles are known to three decimals, beyond thirty values to two.
            let close = 2e-3 * (high - low).max(1e-9);
            assert!((found.low - low).abs() < close, "{} values: {found:?} {low}", values.len());
            assert!((found.high - high).abs() < close, "{} values: {found:?}", values.len());
        }
    }

    /// Of one value nothing is known: neither that it is exact, nor that it is above 0.
    #[test]
    fn one_value_has_no_interval() {
        for values in [&[][..], &[2.0]] {
            let found = mean_interval(values);
            assert_eq!(found.mean, values.iter().sum::<f64>());
            assert_eq!((found.low, found.high), (f64::NEG_INFINITY, f64::INFINITY));
        }
    }
}
