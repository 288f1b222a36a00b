//! EVIDENCE: texts of a run that show what its figures mean. Which ones is a rule that knows nothing of
//! what they say, so that nobody picks what pleases.

use super::{DiffPiece, RecordedVerdict};
use crate::domain::evaluation::Referee;
use serde::Serialize;

/// What a run is, by names and not hashes alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunFacts {
    /// The name of its folder.
    pub name: String,
    /// What its base is called, where the base's files say it.
    pub base_name: Option<String>,
    /// The network: `llama, 30 layers, 134.5 M parameters`.
    pub model: String,
    /// Root of all randomness.
    pub seed: Option<u64>,
    /// First and last record, milliseconds since 1970.
    pub span_ms: Option<(u64, u64)>,
    /// The rubrics that judge: name, version, and the beginning of the hash.
    pub rubrics: Vec<String>,
    /// Settings that are otherwise than the preset `recommended`, as `key: from -> to`.
    pub settings: Vec<String>,
    /// What makes this report again.
    pub command: String,
    /// The program's version.
    pub version: &'static str,
}

/// A pair, with what was said of both answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairExample {
    /// Its id.
    pub id: String,
    /// The iteration that trained on it.
    pub iteration: u32,
    /// What was asked.
    pub asked: String,
    /// The chosen answer; what the other has not is not shared.
    pub chosen: AnswerExample,
    /// The rejected one.
    pub rejected: AnswerExample,
}

/// An answer, with what was said of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AnswerExample {
    /// Its text in pieces.
    pub pieces: Vec<DiffPiece>,
    /// What it came to.
    pub score: Option<f64>,
    /// Everything that was said of it.
    pub verdicts: Vec<RecordedVerdict>,
}

/// Answers to a held-out prompt by the policy before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BeforeAfter {
    /// What was asked.
    pub asked: String,
    /// What the policy before answered.
    pub before: AnswerExample,
    /// What the policy after answered.
    pub after: AnswerExample,
}

/// Held-out prompts, answered before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BeforeAfterExamples {
    /// The iteration that measured it.
    pub iteration: u32,
    /// What the policy before is called.
    pub before: String,
    /// What the policy after is called.
    pub after: String,
    /// Whose scores they are.
    pub referee: Referee,
    /// How many there are in all.
    pub of: usize,
    /// The examples, from the greatest loss to the greatest gain.
    pub examples: Vec<BeforeAfter>,
}

/// How an iteration's answers were scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreHistogram {
    /// Which.
    pub iteration: u32,
    /// Left end of the first bin.
    pub from: f64,
    /// Right end of the last one.
    pub to: f64,
    /// How many answers are in each of the bins, which have the same width.
    pub counts: Vec<u32>,
    /// Answers without a score.
    pub without: u32,
    /// Prompts whose answers all came to the same score.
    pub ties: u32,
    /// Prompts.
    pub prompts: u32,
}

/// Texts of a run, chosen by rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReportEvidence {
    /// What the run is.
    pub about: RunFacts,
    /// Of how many pairs of the last iteration that trained on any the examples are.
    pub pairs_of: usize,
    /// Ten of them: by the difference of their scores, at even distances from the least to the greatest.
    pub pairs: Vec<PairExample>,
    /// Ten held-out prompts: by the difference of the scores after and before, at even distances from
    /// the greatest loss to the greatest gain.
    pub answers: Option<BeforeAfterExamples>,
    /// How answers were scored, by iteration.
    pub scores: Vec<ScoreHistogram>,
    /// What could not be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Examples that are shown of each kind.
pub const EXAMPLES: usize = 10;
/// Bins of a histogram.
const BINS: usize = 20;

/// Places at even distances among `n` that are in order, the first and the last included.
pub fn even_places(n: usize, wanted: usize) -> Vec<usize> {
    if n <= wanted || wanted < 2 {
        return (0..n.min(wanted)).collect();
    }
    let last = (wanted - 1) as f64;
    (0..wanted).map(|at| ((at as f64) * (n - 1) as f64 / last).round() as usize).collect()
}

/// Scores of an iteration, as they were recorded prompt after prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IterationScores {
    /// Which.
    pub iteration: u32,
    /// All of them.
    pub scores: Vec<f64>,
    /// Answers without one.
    pub without: u32,
    /// Prompts whose answers all came to the same.
    pub ties: u32,
    /// Prompts.
    pub prompts: u32,
}

impl IterationScores {
    /// Takes in the answers to a prompt.
    pub fn push(&mut self, scores: &[Option<f64>]) {
        let known: Vec<f64> = scores.iter().flatten().copied().filter(|s| s.is_finite()).collect();
        self.without += (scores.len() - known.len()) as u32;
        self.prompts += 1;
        if let Some(first) = known.first() {
            self.ties += u32::from(known.len() > 1 && known.iter().all(|score| score == first));
        }
        self.scores.extend(known);
    }
}

/// Histograms over one and the same scale, so that they can be laid beside each other.
pub fn histograms(all: &[IterationScores]) -> Vec<ScoreHistogram> {
    let scores = || all.iter().flat_map(|one| &one.scores);
    let from = scores().copied().fold(f64::INFINITY, f64::min).floor();
    let to = scores().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
    if !from.is_finite() || !to.is_finite() {
        return Vec::new();
    }
    let to = if to > from { to } else { from + 1.0 };
    let bin = |score: &f64| {
        let at = ((score - from) / (to - from) * BINS as f64).floor().max(0.0);
        (at as usize).min(BINS - 1)
    };
    let one = |one: &IterationScores| {
        let mut counts = vec![0; BINS];
        for at in one.scores.iter().map(bin) {
            if let Some(count) = counts.get_mut(at) {
                *count += 1;
            }
        }
        let IterationScores { iteration, without, ties, prompts, .. } = *one;
        ScoreHistogram { iteration, from, to, counts, without, ties, prompts }
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_even_and_have_both_ends() {
        assert_eq!(even_places(100, 10), [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]);
        assert_eq!(even_places(3, 10), [0, 1, 2]);
        assert_eq!(even_places(11, 10).len(), 10);
        assert_eq!(even_places(0, 10), Vec::<usize>::new());
        let places = even_places(17, 10);
        assert!(places.windows(2).all(|two| two[0] < two[1]) && places[9] == 16, "{places:?}");
    }

    #[test]
    fn every_score_is_in_a_bin_of_one_scale() {
        let mut low = IterationScores { iteration: 2, ..IterationScores::default() };
        low.push(&[Some(0.0), Some(0.0), None]);
        low.push(&[Some(1.2), Some(3.0)]);
        let mut high = IterationScores { iteration: 3, ..IterationScores::default() };
        high.push(&[Some(5.0), Some(4.99), Some(f64::NAN)]);
        let found = histograms(&[low, high]);
        assert_eq!((found[0].from, found[0].to, found[1].from, found[1].to), (0.0, 5.0, 0.0, 5.0));
        assert_eq!(found[0].counts.iter().sum::<u32>(), 4);
        assert_eq!((found[0].counts[0], found[1].counts[BINS - 1]), (2, 2));
        assert_eq!((found[0].without, found[0].ties, found[0].prompts), (1, 1, 2));
        assert_eq!((found[1].without, found[1].ties), (1, 0));
        assert!(histograms(&[]).is_empty());
        let mut same = IterationScores::default();
        same.push(&[Some(3.0)]);
        assert_eq!(histograms(&[same])[0].counts[0], 1, "a scale of one value has a width too");
    }
}
