//! What is noticed of iterations that went wrong in a way that is known, and of one that did not.

use super::*;
use crate::config::Config;
use crate::domain::evaluation::{Estimate, Verdict};
use crate::domain::event::{IterationOutcome, StepMetrics};
use crate::domain::plan::OnAlarm;
use crate::domain::{Event, Judgment, Outcome, PolicyId, Remarks};
use crate::stage::Stage;
use crate::stage::conductor::Conductor;
use crate::stage::testing::{Run, brief, evaluation, prompt, rubric};
use std::sync::Arc;

const N: usize = 20;

fn begun() -> Run {
    Run::begun(2 * N).with(|config: &mut Config| config.prompts.per_iteration = N as u32)
}

/// An iteration of twenty prompts, judged, of which those from `paired` on gave a pair.
fn judged(paired: usize, others: SkipReason) -> Run {
    answered(begun(), 0, paired, others)
}

fn answered(run: Run, from: usize, paired: usize, others: SkipReason) -> Run {
    let run = run.opened().sealed(from..from + N).sampled(from..from + N);
    let run = run.judged("a", from..from + N, [1.0, 2.0]).skipped(from..from + paired, others);
    run.paired(from + paired..from + N).pairs_sealed()
}

fn kinds(run: &Run) -> Vec<AlarmKind> {
    let open = run.open();
    let plan = open.plan.as_deref().expect("it has a plan");
    alarms(&run.view, plan, open).into_iter().map(|alarm| alarm.kind).collect()
}

fn measured(run: Run, change: impl FnOnce(&mut Evaluation)) -> Run {
    let mut found = evaluation(PolicyId("step".to_owned()), Verdict::Better);
    found.length = sure(10.0);
    found.head_to_head[0].opponent_length = 10.0;
    change(&mut found);
    let iteration = run.iteration();
    run.tell(Event::EvaluationFinished { iteration, evaluation: found })
}

/// A mean that is known to a tenth.
fn sure(mean: f64) -> Estimate {
    Estimate::between(mean, mean - 0.1, mean + 0.1, 64)
}

#[test]
fn an_iteration_that_went_well_raises_none() {
    assert_eq!(kinds(&measured(judged(4, SkipReason::Tie), |_| {})), []);
}

#[test]
fn what_prompts_gave_is_looked_at() {
    for (paired, others, wanted) in [
        (12, SkipReason::Tie, &[][..]),
        (13, SkipReason::Tie, &[AlarmKind::ScoreCeiling]),
        (6, SkipReason::Identical, &[]),
        (7, SkipReason::Identical, &[AlarmKind::AnswersAlike]),
        (19, SkipReason::Noise, &[AlarmKind::PairYield]),
        (18, SkipReason::Noise, &[]),
    ] {
        assert_eq!(kinds(&judged(paired, others)), wanted, "{paired} {others:?}");
    }
}

/// A judge that loves length: of three answers to each prompt the score is the length.
#[test]
fn a_judge_that_loves_length_is_noticed() {
    let told = |score: fn(u32) -> f64| {
        let run = begun().opened().sealed(0..N).sampled(0..N);
        (0..N).fold(run, |run, at| {
            let lengths = vec![5, 10 + at as u32, 40];
            let judgment = |(candidate, length): (u32, &u32)| Judgment {
                rubric: rubric("a"),
                candidate,
                sample: 0,
                outcome: Outcome::Scored { score: score(*length), parsed: None },
                text: String::new(),
                fuel: 0,
                seen: Vec::new(),
                scores: Vec::new(),
                readout: None,
                remarks: Remarks::default(),
            };
            // Twice, so that there are enough.
            let judgments: Vec<Judgment> =
                (0..).zip(&lengths).flat_map(|one| [judgment(one), judgment(one)]).collect();
            let iteration = run.iteration();
            run.tell(Event::JudgmentsRecorded {
                iteration,
                prompt: prompt(at),
                judge: PolicyId("base".to_owned()),
                judgments,
                scores: Vec::new(),
                errors: Vec::new(),
                lengths,
                not_compared: 0,
                rubrics: Vec::new(),
            })
        })
    };
    assert_eq!(kinds(&told(|length| f64::from(length) / 10.0)), [AlarmKind::LengthBuysScores]);
    assert_eq!(kinds(&told(|length| -f64::from(length))), [AlarmKind::LengthBuysScores]);
    assert_eq!(kinds(&told(|length| f64::from(length % 7))), []);
}

#[test]
fn chosen_answers_that_get_less_likely_are_noticed() {
    let trained = |change: f64| {
        let run = judged(4, SkipReason::Tie);
        let iteration = run.iteration();
        (0..8).fold(run, |run, step| {
            // From -20 nats, at a strength of 0.1.
            let change = change * f64::from(step) / 7.0;
            let metrics = StepMetrics {
                rewards_chosen: 0.1 * change,
                logps_chosen: -20.0 + change,
                ..StepMetrics::default()
            };
            run.tell(Event::StepTaken { iteration, step, metrics })
        })
    };
    assert_eq!(kinds(&trained(-8.0)), [AlarmKind::ChosenLogpsFall]);
    assert_eq!(kinds(&trained(-3.0)), []);
    assert_eq!(kinds(&trained(5.0)), []);
}

#[test]
fn lengths_and_referees_are_looked_at() {
    let run = || judged(4, SkipReason::Tie);
    let length = |mean: f64| measured(run(), |found| found.length = sure(mean));
    assert_eq!(kinds(&length(15.5)), [AlarmKind::LengthDrift]);
    assert_eq!(kinds(&length(6.0)), [AlarmKind::LengthDrift]);
    assert_eq!(kinds(&length(14.0)), []);
    // A judge that loves a word: it prefers the new policy, and the referee surely does not.
    let by = |judge: f64, referee: f64| {
        measured(run(), |found| {
            let mut theirs = found.head_to_head[0].clone();
            found.head_to_head[0].win_rate = sure(judge);
            theirs.referee = Referee::Rubrics;
            theirs.win_rate = sure(referee);
            found.head_to_head.push(theirs);
        })
    };
    assert_eq!(kinds(&by(0.8, 0.3)), [AlarmKind::JudgeAgainstReferees]);
    assert_eq!(kinds(&by(0.8, 0.45)), []);
    assert_eq!(kinds(&by(0.3, 0.8)), []);
}

#[test]
fn a_judge_that_drifts_is_noticed() {
    let first = |score: f64| {
        move |found: &mut Evaluation| {
            let mut first = found.head_to_head[0].clone();
            first.opponent = "first".to_owned();
            first.opponent_score = sure(score);
            found.head_to_head.push(first);
        }
    };
    let two = |was: f64, is: f64| {
        let run = measured(judged(4, SkipReason::Tie), first(was));
        let run = answered(run.finished(IterationOutcome::Promoted), N, 4, SkipReason::Tie);
        measured(run, first(is))
    };
    assert_eq!(kinds(&two(3.0, 4.0)), [AlarmKind::JudgeDrift]);
    assert_eq!(kinds(&two(3.0, 2.0)), [AlarmKind::JudgeDrift]);
    assert_eq!(kinds(&two(3.0, 3.2)), []);
}

/// They stand before the end, and the run waits where its plan wants that.
#[test]
fn an_alarm_is_recorded_and_may_pause_the_run() {
    let ends = |on_alarm| {
        let run = begun().changed(|config| config.evaluate.on_alarm = on_alarm);
        let run = answered(run, 0, 13, SkipReason::Tie);
        let run = measured(run.saved(14), |_| {});
        let next = Conductor::new(Arc::new(run.config.clone())).next(&run.view);
        let (_, events) = next.expect("it ends");
        events.iter().map(brief).collect::<Vec<_>>()
    };
    let end = ["alarm_raised", "checkpoint_promoted", "iteration_finished promoted"];
    assert_eq!(ends(OnAlarm::Tell), end);
    assert_eq!(ends(OnAlarm::Pause), [&end[..], &["pause_requested"]].concat());
}
