//! ALARMS: what of an iteration looks like a loop going wrong. Pure: from what is known of the iteration
//! and of the one before it, when it ends. What a run does about them is its plan's to say
//! (`evaluate.on_alarm`).
//!
//! The limits are wide: a judge that loves length, one that loves a word and one that drifts raise theirs
//! (the tests beside this), and what goes well raises none. Sources: length and hacked judges, Yuan et
//! al. section 6 and Meta-Rewarding (arXiv 2407.19594); chosen log-probabilities that fall, iterative RPO
//! (arXiv 2404.19733); pair yield, Yuan et al. appendix A.3.

use crate::domain::evaluation::{Evaluation, HeadToHead, Referee};
use crate::domain::event::IterationKind;
use crate::domain::plan::{Loss, Objective};
use crate::domain::{Alarm, AlarmKind, IterationPlan, SkipReason};
use crate::view::{IterationView, RunView};

/// Answers may be so many times as long as the first policy's, and no shorter than its inverse.
const LENGTH_GROWTH_MAX: f64 = 1.5;
/// Correlation of length and score within prompts, either way.
const LENGTH_CORRELATION_MAX: f64 = 0.5;
/// Share of prompts whose best and worst answer have the same score.
const TIES_MAX: f64 = 0.6;
/// Share of prompts whose answers are all the same.
const IDENTICAL_MAX: f64 = 0.3;
/// Share of its log-probability that a chosen answer may lose.
const CHOSEN_FALL_MAX: f64 = 0.25;
/// Share of prompts that gave a pair, at least.
const YIELD_MIN: f64 = 0.1;
/// Shares of the scores' range by which two judges' mean score of the same policy may differ.
const DRIFT_MAX: f64 = 0.15;
/// Of fewer prompts or steps nothing is concluded.
const PROMPTS_MIN: usize = 16;
/// Pearson's correlation of so few answers is noise.
const JUDGMENTS_MIN: u32 = 64;

/// What looks wrong of an iteration that ends, with its evaluation where there is one.
pub(super) fn alarms(view: &RunView, plan: &IterationPlan, open: &IterationView) -> Vec<Alarm> {
    if open.kind == IterationKind::Sft {
        return Vec::new();
    }
    let mut all: Vec<Alarm> = Vec::new();
    all.extend(of_pairs(open));
    all.extend(length_buys_scores(open));
    all.extend(chosen_logps_fall(plan, open));
    if let Some(evaluation) = &open.evaluation {
        all.extend(length_drift(evaluation));
        all.extend(against_referees(evaluation));
        all.extend(judge_drift(view, open, evaluation));
    }
    all
}

fn alarm(kind: AlarmKind, (value, limit): (f64, f64), message: String) -> Alarm {
    Alarm { kind, value, limit, message }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Ties, answers that are all the same, and few pairs.
fn of_pairs(open: &IterationView) -> Vec<Alarm> {
    let prompts = open.prompts.as_ref().map_or(0, |prompts| prompts.len());
    if prompts < PROMPTS_MIN || !open.all_decided() {
        return Vec::new();
    }
    let share = |n: usize| n as f64 / prompts as f64;
    let skipped = |why| share(open.skipped.values().filter(|reason| **reason == why).count());
    let (ties, same) = (skipped(SkipReason::Tie), skipped(SkipReason::Identical));
    let pairs = share(open.pairs.len());
    let mut all = Vec::new();
    if ties > TIES_MAX {
        let message = format!(
            "at {} of the prompts the best and the worst answer have the same score: the judge tells \
             them apart no more. Take a finer rubric, judge.readout: expected, or harder prompts",
            percent(ties)
        );
        all.push(alarm(AlarmKind::ScoreCeiling, (ties, TIES_MAX), message));
    }
    if same > IDENTICAL_MAX {
        let message = format!(
            "at {} of the prompts all answers are the same: the policy has lost what it could choose \
             from. Raise sampling.temperature, lower the learning rate, or roll back",
            percent(same)
        );
        all.push(alarm(AlarmKind::AnswersAlike, (same, IDENTICAL_MAX), message));
    }
    if pairs < YIELD_MIN {
        let message = format!("only {} of the prompts gave a pair to learn from", percent(pairs));
        all.push(alarm(AlarmKind::PairYield, (pairs, YIELD_MIN), message));
    }
    all
}

fn length_buys_scores(open: &IterationView) -> Option<Alarm> {
    let figures = open.figures();
    let worst = figures.values().filter(|one| one.judgments >= JUDGMENTS_MIN);
    let worst = worst.filter_map(|one| one.length_correlation());
    let worst = worst.max_by(|a, b| a.abs().total_cmp(&b.abs()))?;
    let longer = if worst > 0.0 { "longer" } else { "shorter" };
    (worst.abs() > LENGTH_CORRELATION_MAX).then(|| {
        let message = format!(
            "of the answers to a prompt the {longer} ones score higher (correlation {worst:.2}): what \
             is learned is length. Set pairs.length_control, or take a rubric that does not look at it"
        );
        alarm(AlarmKind::LengthBuysScores, (worst, LENGTH_CORRELATION_MAX), message)
    })
}

/// The strength of a loss's pull to its reference, by which implicit rewards are log-probabilities.
fn beta(plan: &IterationPlan) -> Option<f64> {
    let Objective::Preference { loss, .. } = &plan.objective else { return None };
    Some(match loss {
        Loss::Sigmoid { beta, .. }
        | Loss::Robust { beta, .. }
        | Loss::Ipo { beta }
        | Loss::Hinge { beta } => *beta,
    })
}

/// How much of its log-probability under the reference a chosen answer lost, over the last quarter of
/// the steps.
fn chosen_logps_fall(plan: &IterationPlan, open: &IterationView) -> Option<Alarm> {
    let beta = beta(plan)?;
    let last = open.steps.len().div_ceil(4);
    let late = open.steps.iter().rev().take(last);
    let falls = late.filter_map(|(_, step)| {
        let change = step.rewards_chosen / beta;
        let before = (step.logps_chosen - change).abs();
        (before > 0.0).then_some(-change / before)
    });
    let falls: Vec<f64> = falls.collect();
    if open.steps.len() < 4 {
        return None;
    }
    let fall = falls.iter().sum::<f64>() / falls.len().max(1) as f64;
    (fall > CHOSEN_FALL_MAX).then(|| {
        let message = format!(
            "the log-probability of chosen answers fell by {} in training: the policy moves away from \
             both answers. Set train.dpo.nll_weight, lower the learning rate, or raise train.dpo.beta",
            percent(fall)
        );
        alarm(AlarmKind::ChosenLogpsFall, (fall, CHOSEN_FALL_MAX), message)
    })
}

fn against<'e>(
    evaluation: &'e Evaluation,
    opponent: &str,
    referee: Referee,
) -> Option<&'e HeadToHead> {
    let all = &evaluation.head_to_head;
    all.iter().find(|versus| versus.opponent == opponent && versus.referee == referee)
}

/// Held-out answers beside the first policy's; where there is none, beside the previous one's.
fn length_drift(evaluation: &Evaluation) -> Option<Alarm> {
    let by = |opponent| {
        let kinds = [Referee::Judge, Referee::Rubrics, Referee::Oracle];
        kinds.into_iter().find_map(|referee| against(evaluation, opponent, referee))
    };
    let versus = by("first").or_else(|| by("previous"))?;
    let enough = evaluation.length.n as usize >= PROMPTS_MIN && versus.opponent_length > 0.0;
    let growth = evaluation.length.mean / versus.opponent_length;
    let drifted = !(1.0 / LENGTH_GROWTH_MAX..=LENGTH_GROWTH_MAX).contains(&growth);
    (enough && drifted).then(|| {
        let message = format!(
            "held-out answers have {:.1} tokens where the {} policy's have {:.1}. Look at some \
             (gradus report), and set pairs.length_control if length is what the judge likes",
            evaluation.length.mean, versus.opponent, versus.opponent_length
        );
        alarm(AlarmKind::LengthDrift, (growth, LENGTH_GROWTH_MAX), message)
    })
}

/// The judge surely one way, the referees that chose no pairs surely the other.
fn against_referees(evaluation: &Evaluation) -> Option<Alarm> {
    let judge = against(evaluation, "previous", Referee::Judge)?;
    let referees = against(evaluation, "previous", Referee::Rubrics)?;
    let (low, _) = judge.win_rate.bounds()?;
    let (_, high) = referees.win_rate.bounds()?;
    (low > 0.5 && high < 0.5).then(|| {
        let (likes, says) = (judge.win_rate.mean, referees.win_rate.mean);
        let message = format!(
            "the judge prefers the new policy ({}), and the referees that chose no pairs the one \
             before it ({} for the new one): it learned to please the judge",
            percent(likes),
            percent(says)
        );
        alarm(AlarmKind::JudgeAgainstReferees, (likes - says, 0.0), message)
    })
}

/// The first policy's held-out answers, scored by this iteration's judge and by the one before.
fn judge_drift(view: &RunView, open: &IterationView, evaluation: &Evaluation) -> Option<Alarm> {
    let before = view.iterations.values().rev().find(|other| {
        other.outcome.is_some() && other.evaluation.is_some() && other.kind == IterationKind::Dpo
    })?;
    if before.panel != open.panel {
        return None;
    }
    let score = |evaluation: &Evaluation| {
        let versus = against(evaluation, "first", Referee::Judge)?;
        let enough = versus.opponent_score.n as usize >= PROMPTS_MIN;
        enough.then_some(versus.opponent_score)
    };
    let (was, is) = (score(before.evaluation.as_ref()?)?, score(evaluation)?);
    // Where nothing was probed the scale is not known here.
    let scale = open.probe_progress.values().map(|probing| probing.scale.width()).next();
    let range = scale.unwrap_or_else(|| was.mean.abs().max(is.mean.abs()).max(f64::MIN_POSITIVE));
    let ((was_low, was_high), (low, high)) = (was.bounds()?, is.bounds()?);
    let apart = low > was_high || high < was_low;
    let drift = (is.mean - was.mean) / range;
    (apart && drift.abs() > DRIFT_MAX).then(|| {
        let message = format!(
            "the first policy's answers score {:.2} now and scored {:.2} with the judge before: the \
             judge changes, so scores of different iterations do not compare, and what it likes may \
             have changed, too",
            is.mean, was.mean
        );
        alarm(AlarmKind::JudgeDrift, (drift, DRIFT_MAX), message)
    })
}

#[cfg(test)]
mod tests;
