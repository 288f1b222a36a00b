//! READ-ONLY RECEIPTS: what a run did, as one plain structure, and that structure as a table for
//! a terminal, as JSON and as a page. Nothing here computes a figure that is not in a view, and
//! nothing here can change a run.

mod diff;
mod evidence;
mod figures;
mod judging;
pub(crate) mod metrics;
mod page;
mod plain;
mod plot;
#[cfg(feature = "png")]
mod png;
mod table;
pub(crate) mod tensorboard;
mod verdicts;

pub use diff::{DiffPiece, words_apart};
pub use evidence::{
    AnswerExample, BeforeAfter, BeforeAfterExamples, EXAMPLES, IterationScores, PairExample,
    ReportEvidence, RunFacts, ScoreHistogram, even_places, histograms,
};
pub use figures::figures;
pub(crate) use judging::named as rubric_name;
pub use judging::{AttackRow, BadAnswerRow, RubricJudgments, rubrics_table};
pub use page::{MARK, page};
pub use plain::{PlainVerdict, Reason, RunVerdict, Speaks};
pub(crate) use plain::{decisive, opponent};
pub use plot::{PlotFigure, svg};
#[cfg(feature = "png")]
pub use png::{NotDrawn, png};
pub use table::{iterations_table, judge_table, time_table};
pub use verdicts::RecordedVerdict;
pub(crate) use verdicts::verdicts;

use crate::codes::Code;
use crate::domain::evaluation::{Estimate, Evaluation, Referee};
use crate::domain::event::{IterationKind, IterationOutcome, StepMetrics};
use crate::domain::plan::{SettingChange, Trained};
use crate::domain::{AdapterShape, Alarm, Iteration, Panel};
use crate::view::{IterationView, PairSums, RunView};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything a person may want to know of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Records the report is made of.
    pub records: u64,
    /// Short name of the base's weights.
    pub base: Option<String>,
    /// Short name of the policy that acts now.
    pub policy: Option<String>,
    /// The base on the held-out prompts, as iteration 1 measured it.
    pub base_quality: Option<BaseQuality>,
    /// One row an iteration.
    pub iterations: Vec<IterationRow>,
    /// Iterations that are over and of which the view that the report is made of keeps only what
    /// they came to ([`RunView::is_whole`]): they have no row.
    #[serde(default, skip_serializing_if = "is_none")]
    pub iterations_without_row: u32,
    /// Rubrics that fail and judge all the same, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The same run from M1 on, with another source of scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmReport {
    /// Whose scores: `random`, `oracle`.
    pub name: String,
    /// What came of it.
    pub report: Report,
}

impl ArmReport {
    /// What the arm is, in a sentence.
    pub fn what(&self) -> &'static str {
        match self.name.as_str() {
            "random" => {
                "The same from M1 on, with each prompt's scores permuted among its answers: what it gains is \
                 not the judging's doing."
            }
            "oracle" => "The same from M1 on, with pairs by the truth: what a perfect judge gains.",
            _ => "The same from M1 on, with scores from elsewhere.",
        }
    }
}

/// Everything that a report says, as the page and the JSON have it. Its schema is
/// `docs/report.schema.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FullReport {
    /// Of the JSON: what is added does not change it.
    pub schema: u32,
    /// What came of the run, in plain words.
    pub verdict: PlainVerdict,
    /// The figures.
    #[serde(flatten)]
    pub report: Report,
    /// Control arms.
    pub arms: Vec<ArmReport>,
    /// Texts, and what the run is.
    pub evidence: ReportEvidence,
}

impl FullReport {
    /// Of the JSON.
    pub const SCHEMA: u32 = 1;

    /// What a run's figures, its control arms and its texts come to.
    pub fn of(report: Report, arms: Vec<ArmReport>, evidence: ReportEvidence) -> FullReport {
        let verdict = PlainVerdict::of(&report, &arms);
        FullReport { schema: FullReport::SCHEMA, verdict, report, arms, evidence }
    }
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// M0 on the held-out prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BaseQuality {
    /// Mean score.
    pub score: Estimate,
    /// By whom.
    pub referee: Referee,
    /// Mean length in tokens.
    pub length: f64,
}

/// One iteration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IterationRow {
    /// Its number: M(n) is what it made.
    pub iteration: u32,
    /// How it trained.
    pub kind: IterationKind,
    /// How it ended; `None` while it is open.
    pub outcome: Option<IterationOutcome>,
    /// Settings that were others when the iteration before it was opened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings_changed: Vec<SettingChange>,
    /// Whether it trained an adapter, and which; `None` of all weights, and where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterShape>,
    /// Prompts it answered.
    pub prompts: usize,
    /// How many of them an earlier iteration answered too.
    #[serde(skip_serializing_if = "is_none")]
    pub prompts_reused: u32,
    /// Prompts the policy wrote for it.
    pub prompts_written: u32,
    /// Generated prompts that a filter refused.
    pub prompts_rejected: u32,
    /// Judgments asked for.
    pub judgments: u32,
    /// Judgments without a score.
    pub unscored: u32,
    /// Judgments that were forced: the judge wrote no score.
    pub forced: u32,
    /// Groups of answers that were not compared, for there were too many.
    pub not_compared: u64,
    /// What each rubric's judgments are worth.
    pub rubrics: Vec<RubricJudgments>,
    /// Mean scores of bad answers; `None` when the judge was not probed.
    pub probe: Option<ProbeMeans>,
    /// Whether attacks raise the scores of bad answers, under each rubric.
    #[serde(rename = "forging")]
    pub attacks: Vec<AttackRow>,
    /// Whether the judge scores the policy's answers above bad ones, under each rubric.
    #[serde(rename = "liking")]
    pub bad_answers: Vec<BadAnswerRow>,
    /// Pairs it trained on.
    pub pairs: usize,
    /// Prompts without a pair, by reason.
    pub skipped: BTreeMap<&'static str, usize>,
    /// Means over the pairs; `None` without any.
    pub pair_means: Option<PairMeans>,
    /// Optimiser steps taken.
    pub steps: usize,
    /// Steps skipped for non-finite numbers.
    pub steps_skipped: u32,
    /// Micro-batches that did not fit on the device and were taken in parts.
    pub memory_short: u32,
    /// How often training went back to the last checkpoint, each time with half the learning rate.
    pub rollbacks: u32,
    /// What of it looks like a loop going wrong.
    pub alarms: Vec<Alarm>,
    /// Means over its steps; `None` before the first checkpoint.
    pub training: Option<TrainingMeans>,
    /// Its checkpoint on held-out prompts.
    pub evaluation: Option<Evaluation>,
    /// Seconds from its first record to its last.
    pub seconds: f64,
    /// Seconds by stage, as far as records show it.
    pub seconds_by_stage: BTreeMap<String, f64>,
    /// The loss of every step, for a plot.
    pub losses: Vec<f64>,
    /// The margin of every step, for a plot.
    pub margins: Vec<f64>,
    /// Log-probability of the chosen answers at every step, mean of the step's pairs.
    pub logps_chosen: Vec<f64>,
    /// The same of the rejected ones.
    pub logps_rejected: Vec<f64>,
}

/// What the judge made of bad answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ProbeMeans {
    /// Mean score of the bare ones.
    pub bare: Option<f64>,
    /// Mean score of those with a forged verdict.
    pub forged: Option<f64>,
}

/// Means over pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairMeans {
    /// Tokens of the chosen completion.
    pub length_chosen: f64,
    /// Tokens of the rejected one.
    pub length_rejected: f64,
    /// Score of the chosen one.
    pub score_chosen: f64,
    /// Score of the rejected one.
    pub score_rejected: f64,
    /// Standard error of the difference over the judge's samples; `None` where it is not known.
    pub error: Option<f64>,
}

/// Means over the steps of an iteration, and the end of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TrainingMeans {
    /// Mean loss over all steps, as TRL's `train_loss`.
    pub loss: f64,
    /// Mean loss of the last tenth of the steps.
    pub loss_end: f64,
    /// Mean reward margin of the last tenth of the steps.
    pub margin_end: f64,
    /// Mean reward accuracy of the last tenth of the steps.
    pub accuracy_end: f64,
    /// Largest gradient norm before clipping.
    pub grad_norm_max: f64,
}

impl Report {
    /// The report of what a view knows.
    pub fn of(view: &RunView) -> Report {
        let iterations: Vec<IterationRow> =
            view.iterations.iter().map(|(n, open)| IterationRow::of(n.0, open, view)).collect();
        let over = iterations.iter().filter(|row| row.outcome.is_some()).count() as u32;
        Report {
            records: view.next.0,
            base: view.base.as_ref().map(|p| p.id().short().to_owned()),
            policy: view.policy.as_ref().map(|p| p.id().short().to_owned()),
            base_quality: base_quality(view),
            iterations_without_row: view.finished().saturating_sub(over),
            iterations,
            warnings: warnings(view),
        }
    }
}

/// What is said of rubrics that fail and cannot be rolled back.
fn warnings(view: &RunView) -> Vec<String> {
    let members = view.panel.iter().flat_map(Panel::members);
    let failing = members.filter_map(|member| {
        let why = view.kept_though_failing(&member.rubric)?;
        let name = judging::named(view, &member.rubric);
        Some(Code::RubricFailsAndJudges.says(format_args!(
            "{name} fails and judges on, for nobody judged before it that could come back: {why}. \
             Activate another rubric"
        )))
    });
    failing.collect()
}

/// The previous policy of the first iteration is the base.
fn base_quality(view: &RunView) -> Option<BaseQuality> {
    let evaluation = view.iterations.get(&Iteration(1))?.evaluation.as_ref()?;
    let versus = evaluation
        .head_to_head
        .iter()
        .find(|h| h.opponent == "previous" && h.referee == evaluation.referee)?;
    Some(BaseQuality {
        score: versus.opponent_score,
        referee: versus.referee,
        length: versus.opponent_length,
    })
}

impl IterationRow {
    /// What is known of an iteration.
    pub(crate) fn of(iteration: u32, open: &IterationView, view: &RunView) -> IterationRow {
        let mut skipped = BTreeMap::new();
        for reason in open.skipped.values() {
            *skipped.entry(reason.as_str()).or_default() += 1;
        }
        let seconds = |ms: u64| ms as f64 / 1000.0;
        IterationRow {
            iteration,
            kind: open.kind,
            outcome: open.outcome.clone(),
            settings_changed: open.settings_changed.clone(),
            adapter: open.plan.as_ref().and_then(|plan| match &plan.training.trained {
                Trained::Adapter(shape) => Some(shape.clone()),
                Trained::All => None,
            }),
            prompts: open.prompts.as_ref().map_or(0, |prompts| prompts.len()),
            prompts_reused: open.reused,
            prompts_written: open.written.iter().map(|round| round.admitted).sum(),
            prompts_rejected: open.written.iter().map(|round| round.rejected).sum(),
            judgments: open.judgments.total,
            unscored: open.judgments.unscored,
            forced: open.figures().values().map(|figures| figures.forced).sum(),
            not_compared: open.not_compared,
            rubrics: judging::rubrics(open, view),
            attacks: judging::attacks(open, view),
            bad_answers: judging::bad_answers(open, view),
            probe: open
                .first_claim_scores
                .as_ref()
                .map(|scores| ProbeMeans { bare: scores.bare, forged: scores.forged }),
            pairs: open.pairs.len(),
            skipped,
            pair_means: pair_means(open.pairs.len(), &open.pair_sums),
            steps: open.steps.len(),
            steps_skipped: open.steps_skipped,
            memory_short: open.memory_short,
            rollbacks: open.rollbacks,
            alarms: open.alarms.clone(),
            training: training(&open.steps),
            evaluation: open.evaluation.clone(),
            seconds: seconds(open.span.last_ms.saturating_sub(open.span.first_ms)),
            seconds_by_stage: open
                .stage_ms
                .iter()
                .map(|(s, ms)| (s.to_string(), seconds(*ms)))
                .collect(),
            losses: open.steps.iter().map(|(_, m)| m.loss).collect(),
            margins: open.steps.iter().map(|(_, m)| m.rewards_margin).collect(),
            logps_chosen: open.steps.iter().map(|(_, m)| m.logps_chosen).collect(),
            logps_rejected: open.steps.iter().map(|(_, m)| m.logps_rejected).collect(),
        }
    }
}

fn pair_means(n: usize, sums: &PairSums) -> Option<PairMeans> {
    (n > 0).then(|| PairMeans {
        length_chosen: sums.length_chosen / n as f64,
        length_rejected: sums.length_rejected / n as f64,
        score_chosen: sums.score_chosen / n as f64,
        score_rejected: sums.score_rejected / n as f64,
        error: sums.error.mean(),
    })
}

fn training(steps: &[(u32, StepMetrics)]) -> Option<TrainingMeans> {
    let last = steps.len().checked_sub(1)?;
    let tail = steps.get(last - last / 10..).unwrap_or(steps);
    let mean = |part: &[(u32, StepMetrics)], f: fn(&StepMetrics) -> f64| {
        part.iter().map(|(_, m)| f(m)).sum::<f64>() / part.len() as f64
    };
    Some(TrainingMeans {
        loss: mean(steps, |m| m.loss),
        loss_end: mean(tail, |m| m.loss),
        margin_end: mean(tail, |m| m.rewards_margin),
        accuracy_end: mean(tail, |m| m.rewards_accuracy),
        grad_norm_max: steps.iter().map(|(_, m)| m.grad_norm).fold(0.0, f64::max),
    })
}
