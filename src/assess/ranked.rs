//! HOW WELL POLICIES JUDGE, held to what is known: answers that people ranked, and known good answers
//! beside the same damaged on purpose. The figures are the paper's (Yuan et al., table 4).

use super::records::SuiteRecords;
use super::{AssessWishes, AssessedPrompt, Assessor, BroughtAnswers};
use crate::dice::Dice;
use crate::domain::{Panel, Prompt, PromptOrigin, Seed};
use crate::error::{Code, Error};
use crate::runtime::PolicyRow;
use crate::stats::{Agreement, judge_agreement, spearman};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// An answer with its place among those to the same prompt.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RankedAnswer {
    /// The answer.
    pub text: String,
    /// 0 is the best; equal ranks are equally good.
    #[serde(default)]
    pub rank: f64,
    /// What was done to it, where it was damaged.
    #[serde(default)]
    pub kind: Option<String>,
}

/// A prompt with ranked answers.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedPrompt {
    /// The prompt.
    pub prompt: Prompt,
    /// At least two answers.
    pub answers: Vec<RankedAnswer>,
}

/// How a policy judges.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RankedFigures {
    /// Which policy.
    pub policy: String,
    /// Answers.
    pub answers: usize,
    /// Answers that got a score.
    pub scored: usize,
    /// Share of ranked pairs that it orders the same; a tie counts half.
    pub pairwise_accuracy: f64,
    /// Ranked pairs of which both have a score.
    pub pairs: usize,
    /// Share of prompts whose every ranked pair it orders the same.
    pub exact_match: f64,
    /// Of the answers that get the best score there is, the share that are ranked best (the paper's
    /// 5-best); `None`: none got it.
    pub best_score_is_best: Option<f64>,
    /// Mean over prompts.
    pub spearman: f64,
    /// Mean over prompts.
    pub kendall: f64,
    /// Mean score.
    pub score: f64,
    /// Rank correlation of its scores with those of the first policy, over all answers.
    pub spearman_with_first: Option<f64>,
    /// Pairwise accuracy by kind of damage, and pairs.
    pub kinds: BTreeMap<String, (f64, usize)>,
}

/// Policies, as judges.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedSuite {
    /// Prompts.
    pub prompts: usize,
    /// Prompts that equal, or nearly, something that the run was trained on.
    pub trained_on: usize,
    /// Under which rubrics.
    pub rubrics: Vec<String>,
    /// Each policy.
    pub policies: Vec<RankedFigures>,
}

#[derive(Deserialize)]
struct RankedRow {
    prompt: String,
    #[serde(default)]
    fields: BTreeMap<String, String>,
    #[serde(default)]
    answers: Vec<RankedAnswer>,
    chosen: Option<String>,
    rejected: Option<String>,
}

/// Reads ranked answers: `{"prompt": ..., "answers": [{"text": ..., "rank": 0}, ...]}`, or `prompt`,
/// `chosen` and `rejected`; a JSON object on each line.
///
/// # Errors
/// With the line that is none of these.
pub fn read_ranked(path: &Path) -> Result<Vec<RankedPrompt>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(at, line): (usize, &str)| {
        let bad = |why: &str| {
            let place = format!("{}:{}", path.display(), at + 1);
            Error::refused(Code::SuiteUnreadable, format!("{place}: {why}"))
        };
        let row: RankedRow = serde_json::from_str(line).map_err(|error| bad(&error.to_string()))?;
        ranked(row)
            .ok_or_else(|| bad("it has fewer than two answers (answers, or chosen and rejected)"))
    };
    lines.map(read).collect()
}

fn ranked(row: RankedRow) -> Option<RankedPrompt> {
    let mut answers = row.answers;
    let sides = row.chosen.zip(row.rejected);
    for (text, rank) in sides.into_iter().flat_map(|(good, bad)| [(good, 0.0), (bad, 1.0)]) {
        answers.push(RankedAnswer { text, rank, kind: None });
    }
    let mut prompt = Prompt::user(row.prompt, PromptOrigin::HeldOut);
    prompt.notes.fields = row.fields;
    (answers.len() > 1).then_some(RankedPrompt { prompt, answers })
}

/// Known good answers, each beside the same damaged: cut in the middle, its words shuffled, an answer to
/// another prompt, and padded with its own beginning.
pub fn damaged(good: &[(Prompt, String)], seed: u64) -> Vec<RankedPrompt> {
    let mut dice = Dice::new(Seed::root(seed).derive("damaged"));
    let mut all = Vec::new();
    for (at, (prompt, answer)) in good.iter().enumerate() {
        let words: Vec<&str> = answer.split_whitespace().collect();
        if words.len() < 4 {
            continue;
        }
        let half = words.get(..words.len() / 2).unwrap_or_default().join(" ");
        let shuffled = dice.shuffled(&words).join(" ");
        let mut answers = vec![RankedAnswer { text: answer.clone(), rank: 0.0, kind: None }];
        let mut bad = |kind: &str, text: String| {
            let kind = Some(kind.to_owned());
            answers.push(RankedAnswer { text, rank: 1.0, kind });
        };
        bad("truncated", half.clone());
        bad("shuffled", shuffled);
        bad("padded", format!("{answer} {half} {half}"));
        if let Some((_, other)) = good.get((at + 1) % good.len()).filter(|other| other.1 != *answer)
        {
            bad("other task's answer", other.clone());
        }
        all.push(RankedPrompt { prompt: prompt.clone(), answers });
    }
    all
}

impl Assessor {
    /// Has policies judge ranked answers under a panel. What each says is kept in the run's folder: what
    /// was judged before is not judged again.
    ///
    /// # Errors
    /// When a rubric cannot be used or a policy cannot be opened.
    pub fn rank(
        &self,
        name: &str,
        policies: &[PolicyRow],
        ranked: &[RankedPrompt],
        panel: &Panel,
        wishes: &AssessWishes,
    ) -> Result<RankedSuite, Error> {
        let brought: Vec<BroughtAnswers> = ranked
            .iter()
            .map(|one| BroughtAnswers {
                prompt: one.prompt.clone(),
                answers: one.answers.iter().map(|answer| answer.text.clone()).collect(),
            })
            .collect();
        let best = self.best_score(panel)?;
        let mut scores: Vec<Vec<Vec<Option<f64>>>> = Vec::new();
        for policy in policies {
            let judged = self.judged(name, &brought, (policy, panel), wishes)?;
            let of = judged.into_iter().map(|one| one.answers.iter().map(|a| a.score).collect());
            scores.push(of.collect());
        }
        let first = scores.first().cloned().unwrap_or_default();
        let of = |(policy, scores): (&PolicyRow, &Vec<Vec<Option<f64>>>)| RankedFigures {
            policy: policy.name.clone(),
            spearman_with_first: with_first(scores, &first),
            ..figures(ranked, scores, best)
        };
        Ok(RankedSuite {
            prompts: ranked.len(),
            trained_on: self.suite_run().trained_on(ranked.iter().map(|one| &one.prompt))?,
            rubrics: self.names(panel),
            policies: policies.iter().zip(&scores).map(of).collect(),
        })
    }

    /// What a policy says of answers: what is there, and the rest.
    fn judged(
        &self,
        name: &str,
        brought: &[BroughtAnswers],
        (policy, panel): (&PolicyRow, &Panel),
        wishes: &AssessWishes,
    ) -> Result<Vec<AssessedPrompt>, Error> {
        // Who judges is in the name of the file, and in nothing that is the same for all of them.
        let judge = self.plan(&policy.policy, panel, wishes)?.judge;
        let settings = serde_json::to_string(&judge);
        let settings = settings.map_err(|error| Error::not_json("how is judged", &error))?;
        let mut hasher = blake3::Hasher::new_derive_key("gradus ranked suite v1");
        hasher.update(settings.as_bytes()).update(format!("{brought:?}").as_bytes());
        let folder = self.suite_run().folder;
        let mut records = SuiteRecords::open(folder, (name, &hasher.finalize()), policy)?;
        let mut rows: Vec<AssessedPrompt> = records.rows()?;
        let rest = brought.get(rows.len()..).unwrap_or_default();
        self.judge_in_turn(rest, (policy, panel), wishes, &mut |some| {
            records.add(&some)?;
            rows.extend(some);
            Ok(())
        })?;
        Ok(rows)
    }
}

fn with_first(scores: &[Vec<Option<f64>>], first: &[Vec<Option<f64>>]) -> Option<f64> {
    let both = scores.iter().flatten().zip(first.iter().flatten());
    let (ours, theirs): (Vec<f64>, Vec<f64>) = both.filter_map(|(a, b)| (*a).zip(*b)).unzip();
    spearman(&ours, &theirs)
}

/// What of a prompt has a score: goodness (0 is the best, below it worse), score, kind of damage.
fn scored<'a>(one: &'a RankedPrompt, scores: &[Option<f64>]) -> Vec<(f64, f64, Option<&'a str>)> {
    let both = one.answers.iter().zip(scores);
    both.filter_map(|(answer, score)| Some((-answer.rank, (*score)?, answer.kind.as_deref())))
        .collect()
}

fn figures(ranked: &[RankedPrompt], scores: &[Vec<Option<f64>>], best: f64) -> RankedFigures {
    let groups: Vec<_> =
        ranked.iter().zip(scores).map(|(one, scores)| scored(one, scores)).collect();
    let columns: Vec<(Vec<f64>, Vec<f64>)> = groups
        .iter()
        .map(|group| group.iter().map(|(truth, score, _)| (*truth, *score)).unzip())
        .collect();
    let slices: Vec<(&[f64], &[f64])> =
        columns.iter().map(|(truth, score)| (truth.as_slice(), score.as_slice())).collect();
    let Agreement { pairwise_accuracy, exact_match, spearman, kendall, .. } =
        judge_agreement(&slices);
    let pairs = columns.iter().map(|(truth, _)| ordered_pairs(truth)).sum();
    let mut top = Vec::new();
    let mut kinds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for group in &groups {
        let good = group.iter().map(|(truth, ..)| *truth).fold(f64::NEG_INFINITY, f64::max);
        let at_best = group.iter().filter(|(_, score, _)| (score - best).abs() < 1e-9);
        top.extend(at_best.map(|(truth, ..)| f64::from(u8::from(*truth == good))));
        for (_, score, kind) in group {
            let Some(kind) = kind else { continue };
            for (_, gold, _) in group.iter().filter(|(truth, ..)| *truth == good) {
                let point = if gold > score {
                    1.0
                } else if gold == score {
                    0.5
                } else {
                    0.0
                };
                kinds.entry((*kind).to_owned()).or_default().push(point);
            }
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let all: Vec<f64> = groups.iter().flatten().map(|(_, score, _)| *score).collect();
    RankedFigures {
        answers: ranked.iter().map(|one| one.answers.len()).sum(),
        scored: all.len(),
        pairwise_accuracy,
        pairs,
        exact_match,
        best_score_is_best: (!top.is_empty()).then(|| mean(&top)),
        spearman,
        kendall,
        score: mean(&all),
        kinds: kinds
            .into_iter()
            .map(|(kind, points)| (kind, (mean(&points), points.len())))
            .collect(),
        ..RankedFigures::default()
    }
}

fn ordered_pairs(truth: &[f64]) -> usize {
    let later =
        |(at, one): (usize, &f64)| truth.iter().skip(at + 1).filter(|other| *other != one).count();
    truth.iter().enumerate().map(later).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(ranks: &[f64]) -> RankedPrompt {
        let answer = |rank: &f64| RankedAnswer { text: rank.to_string(), rank: *rank, kind: None };
        RankedPrompt {
            prompt: Prompt::user("a", PromptOrigin::HeldOut),
            answers: ranks.iter().map(answer).collect(),
        }
    }

    /// Worked by hand: of five ordered pairs three and a half are right.
    #[test]
    fn a_judge_is_held_to_ranks() {
        let ranked = [prompt(&[0.0, 1.0, 2.0]), prompt(&[0.0, 1.0]), prompt(&[1.0, 1.0, 0.0])];
        let scores = [
            vec![Some(5.0), Some(3.0), Some(3.0)],
            vec![Some(2.0), Some(5.0)],
            vec![Some(1.0), None, Some(4.0)],
        ];
        let found = figures(&ranked, &scores, 5.0);
        assert_eq!((found.answers, found.scored, found.pairs), (8, 7, 5));
        assert!((found.pairwise_accuracy - 3.5 / 5.0).abs() < 1e-12, "{found:?}");
        assert!((found.exact_match - 1.0 / 3.0).abs() < 1e-12, "{found:?}");
        assert_eq!(found.best_score_is_best, Some(0.5));
    }

    #[test]
    fn damage_is_told_apart() {
        let good: Vec<(Prompt, String)> = ["one two three four five", "six seven eight nine ten"]
            .map(|text| (Prompt::user(text, PromptOrigin::Given), text.to_owned()))
            .to_vec();
        let all = damaged(&good, 1);
        assert_eq!((all.len(), all[0].answers.len()), (2, 5));
        assert_eq!(all[0].answers[1].text, "one two");
        assert_eq!(all[0].answers[4].text, good[1].1);
        assert_eq!(damaged(&good, 1), all, "the same seed, the same damage");
        let scores: Vec<Vec<Option<f64>>> =
            vec![vec![Some(4.0), Some(1.0), Some(4.0), Some(5.0), Some(0.0)]; 2];
        let found = figures(&all, &scores, 5.0);
        assert_eq!(found.kinds["truncated"], (1.0, 2));
        assert_eq!(found.kinds["shuffled"], (0.5, 2));
        assert_eq!(found.kinds["padded"], (0.0, 2));
    }

    #[test]
    fn ranked_answers_are_read_in_both_forms() {
        let read = |line: &str| ranked(serde_json::from_str(line).unwrap());
        let many =
            r#"{"prompt": "a", "answers": [{"text": "b", "rank": 1}, {"text": "c", "rank": 0}]}"#;
        assert_eq!(read(many).unwrap().answers[0].rank, 1.0);
        let two = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
        assert_eq!(read(two).unwrap().answers.len(), 2);
        assert!(read(r#"{"prompt": "a", "chosen": "b"}"#).is_none());
    }
}
