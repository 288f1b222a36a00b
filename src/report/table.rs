//! The report as tables of plain text, for a terminal or a file.

use super::{IterationRow, Report, judging};
use crate::domain::evaluation::{Estimate, Referee};
use crate::domain::event::{IterationKind, IterationOutcome};

/// Rows of cells, columns aligned; the first column to the left, the others to the right.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => line.push_str(&format!("{cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn cells(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
}

/// `3.42 ±0.11`: the mean and half the width of its 95 % interval; `3.42 [?]` where that is not
/// known, as of one value.
fn interval(estimate: &Estimate) -> String {
    match estimate.bounds() {
        _ if estimate.n == 0 => "-".to_owned(),
        Some((low, high)) => format!("{:.2} ±{:.2}", estimate.mean, (high - low) / 2.0),
        None => format!("{:.2} [?]", estimate.mean),
    }
}

/// Whose scores they are.
pub(super) fn name(referee: Referee) -> &'static str {
    match referee {
        Referee::Oracle => "oracle",
        Referee::Judge => "judge",
        Referee::Rubrics => "referee",
    }
}

/// `55.0% [50.1, 59.9]`: a share with its 95 % interval.
fn share(estimate: &Estimate) -> String {
    let bounds = estimate.bounds().map_or_else(
        || "[?]".to_owned(),
        |(low, high)| format!("[{:.1}, {:.1}]", low * 100.0, high * 100.0),
    );
    format!("{:.1}% {bounds}", estimate.mean * 100.0)
}

/// `120/90/90 55.0% [50.1, 59.9] better`: wins, ties, losses, the win rate with its 95 % interval,
/// and what that shows.
fn head_to_head(row: &IterationRow, opponent: &str, referee: Referee) -> String {
    let evaluation = row.evaluation.as_ref();
    let found = evaluation.and_then(|e| {
        e.head_to_head.iter().find(|h| h.opponent == opponent && h.referee == referee)
    });
    found.map_or_else(
        || "-".to_owned(),
        |h| {
            let word = h.finding.as_ref().map_or("", |finding| finding.verdict.as_str());
            let counts = format!("{}/{}/{}", h.wins, h.ties, h.losses);
            format!("{counts} {} {word}", share(&h.win_rate)).trim_end().to_owned()
        },
    )
}

pub(super) fn outcome(row: &IterationRow) -> &'static str {
    match row.outcome {
        None => "open",
        Some(IterationOutcome::Promoted) => "promoted",
        Some(IterationOutcome::Rejected { .. }) => "rejected",
        Some(IterationOutcome::NoSignal { .. }) => "no signal",
        Some(IterationOutcome::JudgeCompromised { .. }) => "judge compromised",
        Some(IterationOutcome::Failed { .. }) => "failed",
    }
}

/// What every iteration trained on and what came of it: the main table.
pub fn iterations_table(report: &Report) -> String {
    let referee = report
        .iterations
        .iter()
        .find_map(|row| row.evaluation.as_ref().map(|e| e.referee))
        .unwrap_or(Referee::Judge);
    let score = format!("{} score", name(referee));
    let mut rows = vec![cells(&[
        "model",
        "prompts",
        "pairs",
        "loss",
        "margin",
        &score,
        "length",
        "W/T/L vs previous",
        "W/T/L vs M1",
        "",
    ])];
    if let Some(base) = &report.base_quality {
        let (mean, length) = (interval(&base.score), number(Some(base.length), 1));
        rows.push(cells(&["M0 base", "-", "-", "-", "-", &mean, &length, "-", "-", ""]));
    }
    for row in &report.iterations {
        let sft = row.kind == IterationKind::Sft;
        let name = format!("M{} {}", row.iteration, if sft { "SFT" } else { "DPO" });
        let evaluation = row.evaluation.as_ref();
        let or_dash = |sft: bool, text: String| if sft { "-".to_owned() } else { text };
        rows.push(vec![
            name,
            or_dash(sft, row.prompts.to_string()),
            or_dash(sft, row.pairs.to_string()),
            number(row.training.map(|t| t.loss), 3),
            or_dash(sft, number(row.training.map(|t| t.margin_end), 3)),
            evaluation.map_or_else(|| "-".to_owned(), |e| interval(&e.score)),
            number(evaluation.map(|e| e.length.mean), 1),
            head_to_head(row, "previous", referee),
            head_to_head(row, "first", referee),
            outcome(row).to_owned(),
        ]);
    }
    let mut text = align(&rows);
    if report.iterations_without_row > 0 {
        text.push_str(&format!("{} iterations before are over\n", report.iterations_without_row));
    }
    for row in &report.iterations {
        text.push_str(&notes(row));
    }
    for warning in &report.warnings {
        text.push_str(&format!("WARNING {warning}\n"));
    }
    text
}

/// What the referees say of a checkpoint that was trained on pairs, beside the table's columns: the
/// one that the gate believes first. What was rejected says so itself.
fn verdicts(row: &IterationRow) -> String {
    let Some(evaluation) = row.evaluation.as_ref().filter(|_| row.kind == IterationKind::Dpo)
    else {
        return String::new();
    };
    let mut text = String::new();
    let believed = evaluation.before_the_gate();
    let rejected = matches!(row.outcome, Some(IterationOutcome::Rejected { .. }));
    let judged = evaluation.head_to_head.iter().filter(|h| {
        let beside = believed.is_none_or(|believed| believed.referee != h.referee);
        h.opponent == "previous" && h.referee == Referee::Judge && beside
    });
    let gates = believed.filter(|_| !rejected).map(|h| ("for the gate", h));
    for (whose, h) in gates.into_iter().chain(judged.map(|h| ("by its own judge", h))) {
        let Some(finding) = &h.finding else { continue };
        let (word, reason) = (finding.verdict.as_str(), &finding.reason);
        let figures = evaluation.figures(h);
        text.push_str(&format!("M{}: {whose}: {word}: {reason}; {figures}\n", row.iteration));
    }
    if let Some(ended) = evaluation.ended_share.filter(|ended| ended.mean < 1.0) {
        text.push_str(&format!(
            "M{}: {} of {} held-out answers end by themselves\n",
            row.iteration,
            share(&ended),
            ended.n
        ));
    }
    text
}

/// Changed settings that a table shows of an iteration.
const CHANGES_SHOWN: usize = 8;

/// Which settings are others than those of the iteration before.
fn settings_note(row: &IterationRow) -> String {
    if row.settings_changed.is_empty() {
        return String::new();
    }
    let first = row.settings_changed.iter().take(CHANGES_SHOWN);
    let mut changes: Vec<String> = first.map(|c| c.to_string()).collect();
    match row.settings_changed.len().saturating_sub(CHANGES_SHOWN) {
        0 => {}
        n => changes.push(format!("{n} more (in the log, in the records settings_changed)")),
    }
    format!("M{}: settings changed: {}\n", row.iteration, changes.join("; "))
}

/// Whether prompts were answered again.
fn reuse_note(row: &IterationRow) -> String {
    match row.prompts_reused {
        0 => String::new(),
        again => format!(
            "M{}: {again} of its {} prompts were answered by an earlier iteration too (prompts.reuse)\n",
            row.iteration, row.prompts
        ),
    }
}

/// What the figures alone do not say of an iteration.
fn notes(row: &IterationRow) -> String {
    let mut text = settings_note(row) + &reuse_note(row);
    if !row.skipped.is_empty() || row.unscored > 0 {
        let reasons: Vec<String> = row.skipped.iter().map(|(r, n)| format!("{n} {r}")).collect();
        let share = 100.0 * f64::from(row.unscored) / f64::from(row.judgments.max(1));
        text.push_str(&format!(
            "M{}: no pair from {} prompts ({}); {:.1} % of {} judgments without a score",
            row.iteration,
            row.skipped.values().sum::<usize>(),
            reasons.join(", "),
            share,
            row.judgments
        ));
        if let Some(means) = row.pair_means {
            text.push_str(&format!(
                "; chosen {:.1} tokens, rejected {:.1}",
                means.length_chosen, means.length_rejected
            ));
            if let Some(error) = means.error {
                let gap = means.score_chosen - means.score_rejected;
                text.push_str(&format!("; they differ by {gap:.2}, standard error {error:.2}"));
            }
        }
        text.push('\n');
    }
    text.push_str(&judging::reading_notes(row));
    if let Some(probe) = row.probe {
        text.push_str(&format!(
            "M{}: bad answers scored {}, with a forged verdict {}\n",
            row.iteration,
            number(probe.bare, 2),
            number(probe.forged, 2)
        ));
    }
    text.push_str(&judging::probe_notes(row));
    text.push_str(&judging::length_notes(row));
    text.push_str(&verdicts(row));
    if row.steps_skipped > 0 {
        let skipped = row.steps_skipped;
        text.push_str(&format!("M{}: {skipped} steps skipped as non-finite\n", row.iteration));
    }
    if row.memory_short > 0 {
        text.push_str(&format!(
            "M{}: the device's memory was short {} times; micro-batches were taken in parts\n",
            row.iteration, row.memory_short
        ));
    }
    if row.rollbacks > 0 {
        text.push_str(&format!(
            "M{}: training went back to its last checkpoint {} times, each with half the learning \
             rate\n",
            row.iteration, row.rollbacks
        ));
    }
    for alarm in &row.alarms {
        let (kind, message) = (alarm.kind.as_str(), &alarm.message);
        text.push_str(&format!("M{}: alarm {kind}: {message}\n", row.iteration));
    }
    if let Some(
        IterationOutcome::Rejected { reason }
        | IterationOutcome::NoSignal { reason }
        | IterationOutcome::JudgeCompromised { reason }
        | IterationOutcome::Failed { reason },
    ) = &row.outcome
    {
        text.push_str(&format!("M{}: {}: {reason}\n", row.iteration, outcome(row)));
    }
    text
}

/// How well each policy judges, where the truth is known; empty where it is not.
pub fn judge_table(report: &Report) -> String {
    let mut rows = vec![cells(&[
        "judge",
        "pairwise",
        "exact match",
        "spearman",
        "kendall",
        "prompts",
        "unparsed",
    ])];
    for row in &report.iterations {
        let Some(judge) = row.evaluation.as_ref().and_then(|e| e.judge.as_ref()) else { continue };
        rows.push(vec![
            format!("M{}", row.iteration),
            format!("{:.3}", judge.pairwise_accuracy),
            format!("{:.3}", judge.exact_match),
            format!("{:.3}", judge.spearman),
            format!("{:.3}", judge.kendall),
            judge.prompts.to_string(),
            match judge.answers {
                Some(answers) => format!("{:.1}% of {answers}", judge.unparsed * 100.0),
                None => format!("{:.1}%", judge.unparsed * 100.0),
            },
        ]);
    }
    if rows.len() > 1 { align(&rows) } else { String::new() }
}

/// Where the time went, seconds.
pub fn time_table(report: &Report) -> String {
    const STAGES: [&str; 5] = ["sampler", "judge", "pair_store", "trainer", "evaluator"];
    let mut head = cells(&["seconds"]);
    head.extend(STAGES.map(str::to_owned));
    head.push("all".to_owned());
    let mut rows = vec![head];
    for row in &report.iterations {
        let mut line = vec![format!("M{}", row.iteration)];
        let of = |stage| row.seconds_by_stage.get(stage).copied().unwrap_or_default();
        line.extend(STAGES.map(|stage| format!("{:.1}", of(stage))));
        line.push(format!("{:.1}", row.seconds));
        rows.push(line);
    }
    align(&rows)
}
