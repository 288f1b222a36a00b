//! What judgments are worth: how many hold a score, how sure the judge was of it, whether length or a
//! forged verdict buys one.

use super::table::{align, cells, number};
use super::{IterationRow, Report};
use crate::domain::evaluation::Estimate;
use crate::domain::{Attack, RubricId};
use crate::view::{BadAnswerMargin, IterationView, ProbeResult, RunView};
use serde::Serialize;

/// What a rubric's judgments of an iteration are worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RubricJudgments {
    /// Name and version.
    pub rubric: String,
    /// Its judgments.
    pub judgments: u32,
    /// Those in which the judge wrote a score.
    pub parsed: u32,
    /// Those in which it wrote none and was made to begin one.
    pub forced: u32,
    /// Those whose score was read from probabilities.
    pub looked: u32,
    /// Mean score; `None` without any.
    pub mean_score: Option<f64>,
    /// Mean probability of any choice where one was read, 0 to 1.
    pub mass: Option<f64>,
    /// Mean entropy of the choices there, nats.
    pub entropy: Option<f64>,
    /// Correlation of a completion's length and score within its prompt.
    pub length_correlation: Option<f64>,
    /// Mean of each part of its verdicts, by name.
    pub criteria: Vec<(String, f64)>,
}

/// Whether one attack raises the scores of bad answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttackRow {
    /// Name and version of the rubric.
    pub rubric: String,
    /// Which attack.
    #[serde(rename = "bait")]
    pub attack: Attack,
    /// By how much, as a share of the scale.
    pub gain: Estimate,
    /// By how much it may.
    pub allowed: f64,
    /// Whether the judge withstands it.
    #[serde(rename = "known")]
    pub result: ProbeResult,
}

/// Whether the judge scores the policy's answers above bad ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BadAnswerRow {
    /// Name and version of the rubric.
    pub rubric: String,
    /// By how much, as a share of the scale.
    #[serde(rename = "more")]
    pub margin: Estimate,
    /// Whether it does.
    #[serde(rename = "known")]
    pub result: ProbeResult,
}

/// Name and version of a rubric, or the beginning of its hash.
pub(crate) fn named(view: &RunView, rubric: &RubricId) -> String {
    let facts = view.rubrics.installed.get(rubric);
    facts.map_or_else(|| rubric.short().to_owned(), |f| format!("{}@{}", f.name, f.version))
}

pub(super) fn rubrics(open: &IterationView, view: &RunView) -> Vec<RubricJudgments> {
    let row = |(rubric, figures): (&RubricId, crate::view::RubricFigures)| RubricJudgments {
        rubric: named(view, rubric),
        judgments: figures.judgments,
        parsed: figures.parsed,
        forced: figures.forced,
        looked: figures.looked,
        mean_score: figures.mean_score(),
        mass: figures.mean_mass(),
        entropy: figures.mean_entropy(),
        length_correlation: figures.length_correlation(),
        criteria: open.criteria_of(rubric),
    };
    open.figures().into_iter().map(row).collect()
}

pub(super) fn attacks(open: &IterationView, view: &RunView) -> Vec<AttackRow> {
    let mut all = Vec::new();
    for rubric in open.rubrics() {
        // Records of old do not say what was allowed.
        let Some(allowed) = open.probe_progress.get(rubric).and_then(|p| p.gain_max) else {
            continue;
        };
        let scores = open.attacks_under(rubric).filter(|scores| !scores.gains.is_empty());
        all.extend(scores.map(|scores| AttackRow {
            rubric: named(view, rubric),
            attack: scores.attack,
            gain: scores.gain(),
            allowed,
            result: scores.result(allowed),
        }));
    }
    all
}

pub(super) fn bad_answers(open: &IterationView, view: &RunView) -> Vec<BadAnswerRow> {
    let of = |rubric: &RubricId| {
        let BadAnswerMargin { margin, result } = open.bad_answer_margin(rubric)?;
        Some(BadAnswerRow { rubric: named(view, rubric), margin, result })
    };
    open.rubrics().into_iter().filter_map(of).collect()
}

/// What an attack is.
pub(super) fn in_words(attack: Attack) -> &'static str {
    match attack {
        Attack::Claim => "a forged verdict",
        Attack::MasterKey => "a word in the place of an answer",
        Attack::Repetition => "repetition",
    }
}

/// Whether an attack works.
pub(super) fn works(result: ProbeResult) -> &'static str {
    match result {
        ProbeResult::Passed => "no",
        ProbeResult::Failed => "yes",
        ProbeResult::Inconclusive => "not known",
    }
}

/// What was forced or left out, a line each.
pub(super) fn reading_notes(row: &IterationRow) -> String {
    let mut text = String::new();
    if row.forced > 0 {
        text.push_str(&format!(
            "M{}: {} of {} judgments are forced: the judge wrote no score\n",
            row.iteration, row.forced, row.judgments
        ));
    }
    if row.not_compared > 0 {
        text.push_str(&format!(
            "M{}: {} groups of answers were not compared (judge.comparisons_max); every answer was in \
             equally many of those that were\n",
            row.iteration, row.not_compared
        ));
    }
    text
}

/// Within prompts, a correlation of length and score above this is said.
const LENGTH_BUYS: f64 = 0.5;

/// Where longer answers get higher scores, a line each.
pub(super) fn length_notes(row: &IterationRow) -> String {
    let buys = |one: &&RubricJudgments| one.length_correlation.is_some_and(|r| r > LENGTH_BUYS);
    let line = |one: &RubricJudgments| {
        let (n, r) = (row.iteration, one.length_correlation.unwrap_or_default());
        format!(
            "M{n}: longer answers get higher scores under {} (r {r:.2} within prompts): see \
             pairs.length_control\n",
            one.rubric
        )
    };
    row.rubrics.iter().filter(buys).map(line).collect()
}

/// What probing says of an iteration's judge, a line each.
pub(super) fn probe_notes(row: &IterationRow) -> String {
    let mut text = String::new();
    for one in &row.attacks {
        let how = in_words(one.attack);
        text.push_str(&format!(
            "M{}: does {how} buy a score from {}? {}: {} of the scale over {} answers, {:.0} % allowed\n",
            row.iteration,
            one.rubric,
            works(one.result),
            one.gain.percent(),
            one.gain.n,
            one.allowed * 100.0
        ));
    }
    for one in &row.bad_answers {
        let answer = match one.result {
            ProbeResult::Passed => "yes",
            ProbeResult::Failed => "no",
            ProbeResult::Inconclusive => "not known",
        };
        text.push_str(&format!(
            "M{}: does {} score answers above bad ones? {answer}: {} of the scale over {} prompts\n",
            row.iteration,
            one.rubric,
            one.margin.percent(),
            one.margin.n
        ));
    }
    text
}

/// What each rubric's judgments are worth; empty when none were made.
pub fn rubrics_table(report: &Report) -> String {
    let mut rows = vec![cells(&[
        "judged by",
        "judgments",
        "with a score",
        "forced",
        "score",
        "mass",
        "entropy",
        "length r",
    ])];
    let mut criteria = String::new();
    for row in &report.iterations {
        for one in &row.rubrics {
            let name = format!("M{} {}", row.iteration, one.rubric);
            let share = 100.0 * f64::from(one.parsed) / f64::from(one.judgments.max(1));
            if !one.criteria.is_empty() {
                let parts = one.criteria.iter().map(|(name, mean)| format!("{name} {mean:.2}"));
                criteria.push_str(&format!("{name}: {}\n", parts.collect::<Vec<_>>().join(", ")));
            }
            rows.push(vec![
                name,
                one.judgments.to_string(),
                format!("{share:.1}%"),
                one.forced.to_string(),
                number(one.mean_score, 2),
                number(one.mass, 3),
                number(one.entropy, 2),
                number(one.length_correlation, 2),
            ]);
        }
    }
    if rows.len() > 1 { align(&rows) + &criteria } else { String::new() }
}
