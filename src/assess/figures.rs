//! Figures with intervals, as suites give them.

use crate::domain::evaluation::Estimate;
use crate::stats::{Interval, mean_interval, sign_test, wilson};
use serde::Serialize;

/// A mean of values that lie between two ends, with an interval that does, too: Student's t over them, or
/// Wilson's where each is a yes or no, for that has a width also where all are the same.
pub(super) fn estimate_within(values: &[f64], ends: (f64, f64)) -> Estimate {
    let yes = values.iter().filter(|value| **value == 1.0).count() as u32;
    let decided = ends == (0.0, 1.0) && values.iter().all(|v| *v == 0.0 || *v == 1.0);
    let of_shares = decided.then(|| wilson(yes, values.len() as u32)).flatten();
    let Interval { mean, low, high } = of_shares.unwrap_or_else(|| mean_interval(values));
    let inside = |end: f64| if end.is_finite() { end.clamp(ends.0, ends.1) } else { end };
    Estimate::between(mean, inside(low), inside(high), values.len() as u32)
}

/// What a policy is above another on the same prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairedDifference {
    /// The policy that is asked about.
    pub of: String,
    /// What it is held against.
    pub against: String,
    /// The difference of each prompt, averaged.
    pub difference: Estimate,
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
            difference: estimate_within(&differences, (-1.0, 1.0)),
            wins,
            ties: differences.len() as u32 - wins - losses,
            losses,
            p: sign_test(wins, losses),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let mean = self.difference.mean;
        let ends = match self.difference.bounds() {
            Some((low, high)) => format!("[{:+.1}, {:+.1}]", 100.0 * low, 100.0 * high),
            _ => "[?]".to_owned(),
        };
        format!(
            "{} - {}: {:+.1} points {ends}; better, same, worse on {}/{}/{} prompts (p {:.3})",
            self.of,
            self.against,
            100.0 * mean,
            self.wins,
            self.ties,
            self.losses,
            self.p
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_stays_inside_its_range() {
        let sure = estimate_within(&[1.0; 4], (0.0, 1.0));
        assert!(sure.low.is_some_and(|low| (0.5..0.52).contains(&low)), "{sure:?}");
        let all = estimate_within(&[1.0, 1.0, 0.5], (0.0, 1.0));
        assert_eq!((all.high, all.n), (Some(1.0), 3));
        assert_eq!(estimate_within(&[0.5], (0.0, 1.0)).bounds(), None);
        let paired = PairedDifference::of(("M2", "M1"), &[(1.0, 0.0), (0.5, 0.5), (1.0, 0.5)]);
        assert_eq!((paired.wins, paired.ties, paired.losses), (2, 1, 0));
        assert!((paired.difference.mean - 0.5).abs() < 1e-12);
    }
}
