//! WHAT CAME OF A RUN, IN PLAIN WORDS: one sentence that says whether the model got better, and what
//! speaks for and against believing it. Rules over the report's figures and nothing else, so that a
//! run that gained nothing is told as carefully as one that gained.

use super::{ArmReport, AttackRow, IterationRow, Report};
use crate::domain::evaluation::{Estimate, Finding, HeadToHead, Referee, Verdict};
use crate::domain::event::{IterationKind, IterationOutcome};
use crate::view::ProbeResult;
use serde::Serialize;

/// What came of a run, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunVerdict {
    /// The last policy is surely better than the one it is held against.
    Better,
    /// It is not known.
    Unproven,
    /// It is surely worse.
    Worse,
    /// Nothing was measured that could tell.
    NothingYet,
}

/// Whether something speaks for believing the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaks {
    /// For it.
    For,
    /// Against it.
    Against,
    /// It is not known.
    Unknown,
}

/// One thing that speaks for or against believing the verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// Which way.
    pub speaks: Speaks,
    /// What it is, in a few words.
    pub title: &'static str,
    /// The figures.
    pub text: String,
}

/// What came of a run, in plain words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlainVerdict {
    /// In a word.
    pub verdict: RunVerdict,
    /// In a sentence.
    pub sentence: String,
    /// What should be known with it, a sentence each.
    pub beside: Vec<String>,
    /// What speaks for and against believing it.
    pub reasons: Vec<Reason>,
}

/// Answers that grew by more than this share are said to have grown.
const GROWTH_SAID: f64 = 0.2;
/// A share of judgments without a score above this speaks against the judge.
const UNPARSED_MANY: f64 = 0.2;

/// `65 % (95 % interval 63 to 68)`.
pub(super) fn percent(estimate: &Estimate) -> String {
    let of = |share: f64| format!("{:.0}", share * 100.0);
    match estimate.bounds() {
        Some((low, high)) => {
            format!("{} % (95 % interval {} to {})", of(estimate.mean), of(low), of(high))
        }
        None => {
            format!("{} % (of {} prompts; too few for an interval)", of(estimate.mean), estimate.n)
        }
    }
}

/// The comparison that the sentence is about: of the last checkpoint that was trained on pairs and
/// measured, against M1 where there is one, by the referee that is least of the loop's own making.
pub(crate) fn decisive(report: &Report) -> Option<(&IterationRow, &HeadToHead)> {
    let measured = |row: &&IterationRow| row.kind == IterationKind::Dpo && row.evaluation.is_some();
    // What was rejected is not what the run came to, where something was not.
    let kept =
        |row: &&IterationRow| !matches!(row.outcome, Some(IterationOutcome::Rejected { .. }));
    let rows = || report.iterations.iter().rev().filter(measured);
    let row = rows().find(kept).or_else(|| rows().next())?;
    let all = &row.evaluation.as_ref()?.head_to_head;
    let by = |opponent: &str| {
        [Referee::Oracle, Referee::Rubrics, Referee::Judge].iter().find_map(|referee| {
            all.iter().find(|h| h.opponent == opponent && h.referee == *referee && h.win_rate.n > 0)
        })
    };
    Some((row, by("first").or_else(|| by("previous"))?))
}

/// What the other side of a comparison is called.
pub(crate) fn opponent(report: &Report, row: &IterationRow, versus: &HeadToHead) -> String {
    let before = || {
        let promoted = |other: &&IterationRow| {
            other.iteration < row.iteration && other.outcome == Some(IterationOutcome::Promoted)
        };
        let last = report.iterations.iter().rev().find(promoted);
        last.map_or_else(|| "M0".to_owned(), |last| format!("M{}", last.iteration))
    };
    match versus.opponent.as_str() {
        "first" => {
            let promoted =
                |other: &&IterationRow| other.outcome == Some(IterationOutcome::Promoted);
            let first = report.iterations.iter().find(promoted).map_or(1, |first| first.iteration);
            format!("M{first}")
        }
        _ => before(),
    }
}

impl PlainVerdict {
    /// What came of a run with control arms.
    pub fn of(report: &Report, arms: &[ArmReport]) -> PlainVerdict {
        let Some((row, versus)) = decisive(report) else { return nothing_yet(report) };
        let (ours, theirs) = (format!("M{}", row.iteration), opponent(report, row, versus));
        let word = versus.finding.as_ref().map_or(Verdict::Unproven, |finding| finding.verdict);
        let wins = percent(&versus.win_rate);
        let (verdict, sentence) = match word {
            Verdict::Better => (
                RunVerdict::Better,
                format!(
                    "{ours} is better than {theirs}: it wins {wins} of the held-out prompts, a tie counting half."
                ),
            ),
            Verdict::Unproven => (
                RunVerdict::Unproven,
                format!(
                    "It is not proven that {ours} is better than {theirs}: it wins {wins} of the held-out prompts, a tie counting half."
                ),
            ),
            Verdict::Worse => (
                RunVerdict::Worse,
                format!(
                    "{ours} is worse than {theirs}: it wins only {wins} of the held-out prompts, a tie counting half."
                ),
            ),
        };
        let mut beside = vec![by_whom(row, versus)];
        if let Some(Finding { reason, .. }) = &versus.finding {
            beside.push(format!("In the words of the test: {reason}."));
        }
        beside.extend(outcomes(report));
        let reasons = reasons(report, arms, (row, versus));
        PlainVerdict { verdict, sentence, beside, reasons }
    }
}

fn nothing_yet(report: &Report) -> PlainVerdict {
    let sentence = match report.iterations.as_slice() {
        [] => "Nothing can be said yet: no iteration was begun.",
        rows if rows.iter().all(|row| row.kind == IterationKind::Sft) => {
            "Nothing can be said yet of the loop: the model was taught seed data (M1), and has not yet \
             learned from its own judgments."
        }
        _ => {
            "Nothing can be said yet: no checkpoint that learned from its own judgments was measured."
        }
    };
    PlainVerdict {
        verdict: RunVerdict::NothingYet,
        sentence: sentence.to_owned(),
        beside: outcomes(report),
        reasons: Vec::new(),
    }
}

fn by_whom(row: &IterationRow, versus: &HeadToHead) -> String {
    let chose = row.evaluation.as_ref().and_then(|e| e.gate_referee.as_ref());
    match versus.referee {
        Referee::Oracle => {
            "A program that knows the truth said so. No step of the training saw what it says.".to_owned()
        }
        Referee::Rubrics => match chose.is_some_and(|gate| gate.chose_pairs) {
            true => "Referees said so of which some also chose the training pairs.".to_owned(),
            false => "Referees said so that did not choose the training pairs.".to_owned(),
        },
        Referee::Judge => {
            "The model's own judgment said so, under the rubric that also chose the training pairs: that \
             can flatter it. A referee of its own: evaluate.rubrics."
                .to_owned()
        }
    }
}

/// Iterations that did not end in a new policy, a sentence each.
fn outcomes(report: &Report) -> Vec<String> {
    let told = |row: &IterationRow| {
        let n = row.iteration;
        Some(match row.outcome.as_ref()? {
            IterationOutcome::Promoted => return None,
            IterationOutcome::Rejected { reason } => {
                format!("M{n} was not taken, the policy from before stayed: {reason}.")
            }
            IterationOutcome::NoSignal { reason } => {
                format!("Iteration {n} had nothing to learn from: {reason}.")
            }
            IterationOutcome::JudgeCompromised { reason } => {
                format!(
                    "Iteration {n} trained on nothing, for its judge could be fooled: {reason}."
                )
            }
            IterationOutcome::Failed { reason } => format!("Iteration {n} failed: {reason}."),
        })
    };
    report.iterations.iter().filter_map(told).map(|text| text.replace("..", ".")).collect()
}

fn reasons(
    report: &Report,
    arms: &[ArmReport],
    (row, versus): (&IterationRow, &HeadToHead),
) -> Vec<Reason> {
    let mut all = vec![certainty(versus), control(arms, versus), independence(row, versus)];
    all.extend([attacks(report), lengths(versus), endings(row, versus), readable(report)]);
    all.push(alarms(report));
    all.into_iter().flatten().collect()
}

fn certainty(versus: &HeadToHead) -> Option<Reason> {
    let n = versus.wins + versus.ties + versus.losses;
    let counts = format!(
        "{} wins, {} ties, {} losses on {n} prompts",
        versus.wins, versus.ties, versus.losses
    );
    let (speaks, text) = match versus.win_rate.bounds() {
        Some((low, high)) if low > 0.5 || high < 0.5 => (
            Speaks::For,
            format!("{counts}: chance does not explain that (the interval leaves out 50 %)."),
        ),
        Some(_) => {
            (Speaks::Against, format!("{counts}: chance explains that (the interval holds 50 %)."))
        }
        None => (Speaks::Unknown, format!("{counts}: too few to know.")),
    };
    Some(Reason { speaks, title: "Certain enough", text })
}

/// What the same loop came to with scores that mean nothing.
fn control(arms: &[ArmReport], versus: &HeadToHead) -> Option<Reason> {
    let title = "More than a control";
    let random = arms.iter().find(|arm| arm.name == "random");
    let Some((_, theirs)) = random.and_then(|arm| decisive(&arm.report)) else {
        let text =
            "no control arm was run: the same loop with scores permuted among a prompt's answers \
                    would show how much is the judging's doing."
                .to_owned();
        return Some(Reason { speaks: Speaks::Unknown, title, text });
    };
    let apart = match (versus.win_rate.low, theirs.win_rate.high) {
        (Some(ours), Some(theirs)) if ours > theirs => Speaks::For,
        (Some(_), Some(_)) => Speaks::Against,
        _ => Speaks::Unknown,
    };
    let text = format!(
        "the same loop with each prompt's scores permuted among its answers wins {}.",
        percent(&theirs.win_rate)
    );
    Some(Reason { speaks: apart, title, text })
}

fn independence(row: &IterationRow, versus: &HeadToHead) -> Option<Reason> {
    let gate = row.evaluation.as_ref()?.gate_referee.as_ref();
    let own = match versus.referee {
        Referee::Oracle => false,
        Referee::Rubrics => gate.is_some_and(|gate| gate.chose_pairs),
        Referee::Judge => true,
    };
    let (speaks, text) = match own {
        true => (Speaks::Against, "what measured it also chose what it was trained on."),
        false => (Speaks::For, "what measured it did not choose what it was trained on."),
    };
    Some(Reason { speaks, title: "Measured by another", text: text.to_owned() })
}

fn attacks(report: &Report) -> Option<Reason> {
    let title = "A judge that withstands attacks";
    let all: Vec<&AttackRow> = report.iterations.iter().flat_map(|row| &row.attacks).collect();
    if all.is_empty() {
        let text = "the judge was not probed with bad answers (judge.probes).".to_owned();
        return Some(Reason { speaks: Speaks::Unknown, title, text });
    }
    let count = |result| all.iter().filter(|row| row.result == result).count();
    let (passed, failed) = (count(ProbeResult::Passed), count(ProbeResult::Failed));
    let speaks = match (failed, passed) {
        (0, 0) => Speaks::Unknown,
        (0, _) => Speaks::For,
        _ => Speaks::Against,
    };
    let text = format!(
        "of {} attacks on it (forged verdicts, words that judges reward, repetition) {passed} surely gain \
         nothing, {failed} surely pay, {} are not known.",
        all.len(),
        all.len() - passed - failed
    );
    Some(Reason { speaks, title, text })
}

fn lengths(versus: &HeadToHead) -> Option<Reason> {
    let Finding { length, opponent_length, .. } = versus.finding.as_ref()?;
    if *opponent_length <= 0.0 {
        return None;
    }
    let growth = length / opponent_length - 1.0;
    let speaks = if growth > GROWTH_SAID { Speaks::Against } else { Speaks::For };
    let text = format!(
        "answers have {length:.1} tokens against {opponent_length:.1} ({:+.0} %).",
        growth * 100.0
    );
    Some(Reason { speaks, title: "Not by length", text })
}

fn endings(row: &IterationRow, versus: &HeadToHead) -> Option<Reason> {
    let ended = versus.finding.as_ref()?.ended;
    row.evaluation.as_ref()?;
    let (ours, theirs, all) = (ended.both + ended.ours, ended.both + ended.theirs, ended.all());
    let speaks = if ours < theirs && ended.theirs > ended.ours + all / 20 {
        Speaks::Against
    } else {
        Speaks::For
    };
    let text = format!("{ours} of {all} answers end by themselves against {theirs}.");
    Some(Reason { speaks, title: "Answers that end", text })
}

/// What looked like a loop going wrong, in any iteration; nothing where nothing did.
fn alarms(report: &Report) -> Option<Reason> {
    let each = report.iterations.iter().flat_map(|row| {
        row.alarms.iter().map(move |alarm| format!("M{}: {}", row.iteration, alarm.message))
    });
    let all: Vec<String> = each.collect();
    (!all.is_empty()).then(|| Reason {
        speaks: Speaks::Against,
        title: "No alarms",
        text: format!("{}.", all.join(". ")),
    })
}

fn readable(report: &Report) -> Option<Reason> {
    let (all, without) = report.iterations.iter().fold((0u64, 0u64), |(all, without), row| {
        (all + u64::from(row.judgments), without + u64::from(row.unscored))
    });
    if all == 0 {
        return None;
    }
    let share = without as f64 / all as f64;
    let speaks = if share > UNPARSED_MANY { Speaks::Against } else { Speaks::For };
    let text = format!("{:.1} % of {all} judgments hold no score.", share * 100.0);
    Some(Reason { speaks, title: "A judge that can be read", text })
}
