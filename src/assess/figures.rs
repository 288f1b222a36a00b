//! Figures with intervals, as suites give them.

use crate::stats::{Interval, mean_interval, sign_test};
use serde::Serialize;

/// A mean over prompts with its 95 % interval, which stays inside the range of the values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanFigure {
    /// The mean.
    pub mean: f64,
    /// Lower end; `None`: with fewer than two prompts there is none.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Prompts.
    pub n: usize,
}

impl MeanFigure {
    /// Of values that lie between two ends.
    pub fn within(values: &[f64], ends: (f64, f64)) -> MeanFigure {
        let Interval { mean, low, high } = mean_interval(values);
        let known = |end: f64| end.is_finite().then_some(end.clamp(ends.0, ends.1));
        MeanFigure { mean, low: known(low), high: known(high), n: values.len() }
    }

    /// `43.2 % [38.1, 48.0]`
    pub fn percent(&self) -> String {
        let ends = match (self.low, self.high) {
            (Some(low), Some(high)) => format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high),
            _ => "[?]".to_owned(),
        };
        format!("{:.1} % {ends}", 100.0 * self.mean)
    }
}

/// What a policy is above another on the same prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairedDifference {
    /// The policy that is asked about.
    pub of: String,
    /// What it is held against.
    pub against: String,
    /// The difference of each prompt, averaged.
    pub difference: MeanFigure,
    /// Prompts on which it is above.
    pub wins: u32,
    /// Prompts on which both are the same.
    pub ties: u32,
    /// Prompts on which it is below.
    pub losses: u32,
    /// Two-sided sign test over prompts.
    pub p: f64,
}

impl PairedDifference {
    /// From the values of either, prompt by prompt; they lie between 0 and 1.
    pub fn of(names: (&str, &str), values: &[(f64, f64)]) -> PairedDifference {
        let differences: Vec<f64> = values.iter().map(|(ours, theirs)| ours - theirs).collect();
        let count = |is: fn(&f64) -> bool| differences.iter().filter(|d| is(d)).count() as u32;
        let (wins, losses) = (count(|d| *d > 1e-12), count(|d| *d < -1e-12));
        PairedDifference {
            of: names.0.to_owned(),
            against: names.1.to_owned(),
            difference: MeanFigure::within(&differences, (-1.0, 1.0)),
            wins,
            ties: differences.len() as u32 - wins - losses,
            losses,
            p: sign_test(wins, losses),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let MeanFigure { mean, low, high, .. } = self.difference;
        let ends = match (low, high) {
            (Some(low), Some(high)) => format!("[{:+.1}, {:+.1}]", 100.0 * low, 100.0 * high),
            _ => "[?]".to_owned(),
        };
        format!(
            "{} - {}: {:+.1} points {ends}; better, same, worse on {}/{}/{} prompts (p {:.3})",
            self.of, self.against, 100.0 * mean, self.wins, self.ties, self.losses, self.p
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_stays_inside_its_range() {
        let all = MeanFigure::within(&[1.0, 1.0, 0.5], (0.0, 1.0));
        assert_eq!((all.high, all.n), (Some(1.0), 3));
        assert_eq!(MeanFigure::within(&[0.5], (0.0, 1.0)).percent(), "50.0 % [?]");
        let paired = PairedDifference::of(("M2", "M1"), &[(1.0, 0.0), (0.5, 0.5), (1.0, 0.5)]);
        assert_eq!((paired.wins, paired.ties, paired.losses), (2, 1, 0));
        assert!((paired.difference.mean - 0.5).abs() < 1e-12);
    }
}
