//! What a rubric's judgments came to, in sums that add up over prompts.

use crate::domain::{Judgment, RubricId, tuple_form};
use serde::{Deserialize, Serialize};

/// A mean that is added to: a sum, and of how many values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, u32)", into = "(f64, u32)")]
pub struct RunningMean {
    /// The values' sum.
    pub sum: f64,
    /// How many they are.
    pub count: u32,
}

tuple_form!(RunningMean { sum: f64, count: u32 });

impl RunningMean {
    /// Takes in a value.
    pub fn push(&mut self, value: f64) {
        self.add(RunningMean { sum: value, count: 1 });
    }

    /// Takes in other values.
    pub fn add(&mut self, other: RunningMean) {
        self.sum += other.sum;
        self.count += other.count;
    }

    /// The mean; `None` of no value.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// How two quantities vary about their means, and together: sums over points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64, f64)", into = "(f64, f64, f64)")]
pub struct Deviations {
    /// Squared deviations of the lengths.
    pub lengths: f64,
    /// Squared deviations of the scores.
    pub scores: f64,
    /// Products of the two deviations.
    pub products: f64,
}

tuple_form!(Deviations { lengths: f64, scores: f64, products: f64 });

impl Deviations {
    /// Of points of length and score about their means.
    fn of(points: &[(f64, f64)]) -> Deviations {
        let n = points.len().max(1) as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), (a, b)| (x + a / n, y + b / n));
        let mut sums = Deviations::default();
        for (a, b) in points.iter().map(|(a, b)| (a - x, b - y)) {
            sums.add(Deviations { lengths: a * a, scores: b * b, products: a * b });
        }
        sums
    }

    fn add(&mut self, other: Deviations) {
        self.lengths += other.lengths;
        self.scores += other.scores;
        self.products += other.products;
    }
}

/// Sums over judgments; of no prompt they are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RubricFigures {
    /// Judgments.
    pub judgments: u32,
    /// Those in which the judge wrote a score.
    pub parsed: u32,
    /// Those in which it wrote none and was made to begin one.
    pub forced: u32,
    /// Those whose score was read from probabilities.
    pub looked: u32,
    /// Of these, the probability of any choice at all.
    pub mass: f64,
    /// Of these, the entropy of the choices, nats.
    pub entropy: f64,
    /// All scores.
    pub scores: RunningMean,
    /// How the completions' lengths and scores vary within their prompts.
    #[serde(rename = "within")]
    pub within_prompts: Deviations,
}

/// Mean scores of one rubric's judgments by completion.
fn by_completion(judgments: &[&Judgment], completions: usize) -> Vec<Option<f64>> {
    let mut means = vec![RunningMean::default(); completions];
    for judgment in judgments {
        for (at, score) in judgment.shown().iter().zip(judgment.each()) {
            if let Some(mean) = means.get_mut(*at as usize) {
                mean.push(score);
            }
        }
    }
    means.iter().map(RunningMean::mean).collect()
}

impl RubricFigures {
    /// Of one prompt's judgments those under a rubric; `lengths` are the completions', tokens.
    pub(super) fn of_prompt(
        rubric: &RubricId,
        judgments: &[Judgment],
        lengths: &[u32],
    ) -> RubricFigures {
        let ours: Vec<&Judgment> = judgments.iter().filter(|j| j.rubric == *rubric).collect();
        let count =
            |what: &dyn Fn(&Judgment) -> bool| ours.iter().filter(|j| what(j)).count() as u32;
        let looked: Vec<_> = ours.iter().filter_map(|j| j.readout).collect();
        let means = by_completion(&ours, lengths.len());
        let points: Vec<(f64, f64)> = lengths
            .iter()
            .zip(&means)
            .filter_map(|(length, score)| Some((f64::from(*length), (*score)?)))
            .collect();
        let mut scores = RunningMean::default();
        ours.iter().flat_map(|j| j.each()).for_each(|score| scores.push(score));
        RubricFigures {
            judgments: ours.len() as u32,
            parsed: count(&|j| j.is_parsed()),
            forced: count(&|j| j.is_forced()),
            looked: looked.len() as u32,
            mass: looked.iter().map(|facts| facts.mass).sum(),
            entropy: looked.iter().map(|facts| facts.entropy).sum(),
            scores,
            within_prompts: Deviations::of(&points),
        }
    }

    /// Takes in others.
    pub fn add(&mut self, other: &RubricFigures) {
        self.judgments += other.judgments;
        self.parsed += other.parsed;
        self.forced += other.forced;
        self.looked += other.looked;
        self.mass += other.mass;
        self.entropy += other.entropy;
        self.scores.add(other.scores);
        self.within_prompts.add(other.within_prompts);
    }

    /// Mean score; `None` without any.
    pub fn mean_score(&self) -> Option<f64> {
        self.scores.mean()
    }

    /// Mean probability of any choice; `None` when no score was read from probabilities.
    pub fn mean_mass(&self) -> Option<f64> {
        (self.looked > 0).then(|| self.mass / f64::from(self.looked))
    }

    /// Mean entropy of the choices, nats; `None` likewise.
    pub fn mean_entropy(&self) -> Option<f64> {
        (self.looked > 0).then(|| self.entropy / f64::from(self.looked))
    }

    /// Pearson's correlation of a completion's length and score within its prompt: whether length
    /// buys a score. `None` where either never differs.
    pub fn length_correlation(&self) -> Option<f64> {
        let Deviations { lengths, scores, products } = self.within_prompts;
        (lengths > 0.0 && scores > 0.0).then(|| products / (lengths * scores).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Outcome, ReadoutFacts, Remarks};

    fn judgment(candidate: u32, score: Option<f64>, readout: Option<(bool, f64)>) -> Judgment {
        let outcome = match score {
            Some(score) => Outcome::Scored { score, parsed: None },
            None => Outcome::Unparsed { reason: "none".into() },
        };
        Judgment {
            rubric: RubricId("r".into()),
            candidate,
            sample: 0,
            outcome,
            text: String::new(),
            fuel: 0,
            seen: Vec::new(),
            scores: Vec::new(),
            readout: readout.map(|(forced, mass)| ReadoutFacts { forced, mass, entropy: 0.5 }),
            remarks: Remarks::default(),
        }
    }

    /// By hand: lengths 10, 20, 30 and scores 1, 2, 6 are correlated 0.944911.
    #[test]
    fn figures_of_a_prompt_add_up() {
        let judgments = vec![
            judgment(0, Some(1.0), Some((false, 0.8))),
            judgment(1, Some(3.0), Some((false, 0.4))),
            judgment(1, Some(1.0), Some((true, 0.0))),
            judgment(2, Some(6.0), None),
            judgment(2, None, None),
            Judgment { rubric: RubricId("other".into()), ..judgment(0, Some(5.0), None) },
        ];
        let rubric = RubricId("r".into());
        let one = RubricFigures::of_prompt(&rubric, &judgments, &[10, 20, 30]);
        assert_eq!((one.judgments, one.parsed, one.forced, one.looked), (5, 3, 1, 3));
        assert!((one.mean_mass().unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(one.mean_score(), Some(2.75));
        assert!((one.length_correlation().unwrap() - 0.944_911).abs() < 1e-6);
        let mut two = one;
        two.add(&one);
        assert_eq!((two.judgments, two.mean_score()), (10, Some(2.75)));
        let nothing = RubricFigures::of_prompt(&rubric, &[], &[]);
        assert_eq!(nothing, RubricFigures::default());
        assert_eq!((nothing.mean_mass(), nothing.length_correlation()), (None, None));
    }
}
