//! What verdicts are worth, by simulation: two policies are made up, their answers to held-out
//! prompts go through the functions that the evaluator and the conductor call, and the words are
//! counted over a thousand sets of prompts.

use crate::dice::Dice;
use gradus::config::{Config, GateConfig, GateMode};
use gradus::domain::evaluation::{
    Estimate, Evaluation, GateReferee, HeldOutAnswer, Referee, Verdict,
};
use gradus::domain::event::IterationKind;
use gradus::domain::{
    BlobHash, Completion, Event, Iteration, Judgment, Outcome, PolicyId, PolicyRef, PromptId,
    RubricId, RubricName, StopReason,
};
use gradus::log::EVENT_BYTES_MAX;
use gradus::stage::gate::gate;
use gradus::stage::held_out::HeldOutPrompt;
use gradus::stage::verdict::{Compared, ComparedAnswer, head_to_head};

/// Of two equal policies.
const SETS: u32 = 1000;
/// Where one is better: the bar is near the exact power, so that a thousand would not tell.
const MORE_SETS: u32 = 4000;
const ROLES: [&str; 2] = ["checkpoint", "previous"];

fn policy() -> PolicyId {
    PolicyRef { weights: BlobHash("w".into()), adapter: None }.id()
}

/// An answer to a prompt with a score by the judge.
fn answer(role: &str, score: Option<f64>, tokens: u32, ended: bool) -> HeldOutAnswer {
    let stop = if ended { StopReason::TurnEnd } else { StopReason::Length };
    let completion =
        Completion { token_ids: Vec::new(), text: String::new(), logp: Some(0.0), stop };
    HeldOutAnswer {
        policy: policy(),
        roles: vec![role.to_owned()],
        completion,
        tokens,
        judged: score,
        refereed: None,
        oracle: None,
    }
}

fn prompt(at: usize, answers: Vec<HeldOutAnswer>) -> HeldOutPrompt {
    let (judgments, rubrics) = (Vec::new(), Vec::new());
    HeldOutPrompt {
        prompt: PromptId(format!("p-{at}")),
        judge: policy(),
        answers,
        judgments,
        rubrics,
    }
}

/// The evaluation of a checkpoint against the policy before it, refereed by the judge.
fn evaluated(held_out: &[HeldOutPrompt]) -> Evaluation {
    let growth = Config::default().evaluate.gate.length_growth_max;
    let versus = head_to_head(held_out, ("previous", policy()), Referee::Judge, growth);
    let nothing = Estimate { mean: 0.0, low: None, high: None, n: 0 };
    Evaluation {
        policy: policy(),
        score: nothing,
        referee: Referee::Judge,
        length: nothing,
        ended: 1.0,
        ended_share: None,
        head_to_head: vec![versus],
        judge: None,
        gate_referee: None,
    }
}

fn gated(evaluation: &Evaluation, mode: GateMode) -> Result<(), String> {
    let settings = GateConfig { mode, ..Config::default().evaluate.gate };
    gate(IterationKind::Dpo, evaluation, &settings.plan())
}

/// How two made-up policies compare.
#[derive(Clone, Copy, Debug)]
struct Truth {
    /// Percent of prompts on which they tie.
    ties: u64,
    /// How many of a thousand others the checkpoint wins.
    won: u64,
}

/// One set of prompts. Lengths scatter from 6 to 300 tokens, longer where the prompt wants it, and
/// three answers in a hundred do not end, on both sides alike.
fn drawn(dice: &mut Dice, prompts: usize, truth: Truth) -> Vec<HeldOutPrompt> {
    let one = |at: usize| {
        let base = dice.from(2, 12);
        let scores = match (dice.chance(truth.ties), dice.below(1000) < truth.won) {
            (true, _) => [3.0, 3.0],
            (false, true) => [4.0, 2.5],
            (false, false) => [1.0, 3.5],
        };
        let side = |(role, score): (&str, f64)| {
            let tokens = base * dice.from(3, 25);
            answer(role, Some(score), tokens, dice.chance(97))
        };
        prompt(at, ROLES.into_iter().zip(scores).map(side).collect())
    };
    (0..prompts).map(one).collect()
}

/// Percent of `sets` sets: called better, called worse, promoted by `not_worse`, promoted by `better`.
fn rates(sets: u32, prompts: usize, truth: Truth) -> [f64; 4] {
    let mut dice = Dice(prompts as u64 * 1000 + truth.ties * 100_000 + truth.won);
    let mut counts = [0u32; 4];
    for _ in 0..sets {
        let evaluation = evaluated(&drawn(&mut dice, prompts, truth));
        let verdict = evaluation.head_to_head[0].finding.as_ref().unwrap().verdict;
        counts[0] += u32::from(verdict == Verdict::Better);
        counts[1] += u32::from(verdict == Verdict::Worse);
        counts[2] += u32::from(gated(&evaluation, GateMode::NotWorse).is_ok());
        counts[3] += u32::from(gated(&evaluation, GateMode::Better).is_ok());
    }
    counts.map(|count| 100.0 * f64::from(count) / f64::from(sets))
}

#[test]
fn equal_policies_are_rarely_called_better_or_worse() {
    for ties in [0, 30, 80] {
        for prompts in [16, 64, 256] {
            let truth = Truth { ties, won: 500 };
            let [better, worse, not_worse, promoted] = rates(SETS, prompts, truth);
            println!(
                "A/A, {ties} % ties, {prompts} prompts: better {better} %, worse {worse} %; \
                 promoted by not_worse {not_worse} %, by better {promoted} %"
            );
            assert!(better <= 5.0 && worse <= 5.0, "{truth:?}: {better} {worse}");
            assert_eq!(promoted, better, "the strict gate promotes what is better, and no more");
        }
    }
}

/// A true win rate of 60 %, ties counted half: three in ten prompts tie and 9 of 14 others are won, or
/// none tie.
#[test]
fn a_better_policy_is_called_better() {
    for truth in [Truth { ties: 0, won: 600 }, Truth { ties: 30, won: 643 }] {
        for prompts in [16, 64, 256] {
            let [better, worse, not_worse, _] = rates(MORE_SETS, prompts, truth);
            let Truth { ties, won } = truth;
            println!(
                "{won} of 1000 won of what does not tie, {ties} % ties, {prompts} prompts: better {better} \
                 %, worse {worse} %; promoted by not_worse {not_worse} %"
            );
            assert!(prompts < 256 || better >= 85.0, "{truth:?}: {better}");
            assert!(worse <= 5.0);
        }
    }
    let [better, worse, not_worse, _] = rates(MORE_SETS, 256, Truth { ties: 0, won: 400 });
    println!(
        "win rate 40 %, 256 prompts: better {better} %, worse {worse} %, not_worse {not_worse} %"
    );
    // At the margin itself one in forty passes, as a score interval is near its level and not exact.
    assert!(better == 0.0 && worse >= 85.0 && not_worse <= 3.5);
}

/// So many prompts won, tied and lost, all answers alike otherwise.
fn split(wins: usize, ties: usize, losses: usize) -> Evaluation {
    let scores = [([2.0, 1.0], wins), ([1.0, 1.0], ties), ([1.0, 2.0], losses)];
    let all = scores.into_iter().flat_map(|(scores, n)| std::iter::repeat_n(scores, n));
    let side = |(role, score)| answer(role, Some(score), 10, true);
    let one = |(at, scores): (usize, [f64; 2])| {
        prompt(at, ROLES.into_iter().zip(scores).map(side).collect())
    };
    evaluated(&all.enumerate().map(one).collect::<Vec<_>>())
}

/// What was promoted at [-26.2, 59.5], and at [50, 50], and rejected "with certainty" at [0, 0].
#[test]
fn few_prompts_are_unproven() {
    for (counts, win_rate, low, high) in [
        ((1, 0, 5), 16.7, 3.0, 56.4),
        ((0, 4, 0), 50.0, 25.5, 74.5),
        ((0, 0, 1), 0.0, 0.0, 79.3),
        ((1, 0, 0), 100.0, 20.7, 100.0),
    ] {
        let (wins, ties, losses) = counts;
        let evaluation = split(wins, ties, losses);
        let found = &evaluation.head_to_head[0];
        let rate = found.win_rate;
        for (found, wanted) in [(Some(rate.mean), win_rate), (rate.low, low), (rate.high, high)] {
            assert!((100.0 * found.unwrap() - wanted).abs() < 0.05, "{counts:?}: {rate:?}");
        }
        let finding = found.finding.as_ref().unwrap();
        assert_eq!(finding.verdict, Verdict::Unproven, "{counts:?}: {}", finding.reason);
        let reason = gated(&evaluation, GateMode::NotWorse).unwrap_err();
        for part in ["unproven: ", "scores differ", "margin: 0.1", "10.0 tokens against 10.0"] {
            assert!(reason.contains(part), "no {part:?} in {reason}");
        }
        let strict = gated(&evaluation, GateMode::Better).unwrap_err();
        assert!(strict.starts_with("unproven, and the gate asks for better: "), "{strict}");
        assert_eq!(gated(&evaluation, GateMode::Paper), Ok(()), "the paper always goes on");
    }
}

#[test]
fn the_gate_is_closed_where_nothing_is_known() {
    let unscored = || [ROLES.map(|role| answer(role, None, 10, true)).to_vec()];
    let unscored: Vec<HeldOutPrompt> =
        unscored().into_iter().map(|answers| prompt(0, answers)).collect();
    let mut absent = split(60, 0, 1);
    absent.head_to_head.clear();
    // A referee of its own said nothing: the judge that trained it is no stand-in.
    let mut other = split(60, 0, 1);
    other.gate_referee =
        Some(GateReferee { referee: Referee::Rubrics, rubrics: Vec::new(), chose_pairs: false });
    // An oracle is for the report.
    let mut oracle = split(60, 0, 1);
    oracle.head_to_head[0].referee = Referee::Oracle;
    for evaluation in [split(0, 0, 0), evaluated(&unscored), absent, other, oracle] {
        for mode in [GateMode::NotWorse, GateMode::Better] {
            let reason = gated(&evaluation, mode).unwrap_err();
            for part in ["nothing was compared", "evaluate.prompts", "mode: paper"] {
                assert!(reason.contains(part), "no {part:?} in {reason}");
            }
            let supervised = GateConfig { mode, ..Config::default().evaluate.gate };
            assert_eq!(gate(IterationKind::Sft, &evaluation, &supervised.plan()), Ok(()));
        }
        assert_eq!(gated(&evaluation, GateMode::Paper), Ok(()));
    }
}

#[test]
fn not_worse_is_within_a_margin() {
    let promoted = |evaluation: &Evaluation, margin: f64| {
        let settings = GateConfig { margin, ..Config::default().evaluate.gate };
        gate(IterationKind::Dpo, evaluation, &settings.plan()).is_ok()
    };
    // 50 % [45.1, 54.9].
    let even = split(200, 0, 200);
    assert!(promoted(&even, 0.1) && promoted(&even, 0.05) && !promoted(&even, 0.04));
    assert!(gated(&even, GateMode::Better).is_err());
    // Surely worse, if only by two in a hundred.
    let worse = split(4, 380, 16);
    assert!(worse.head_to_head[0].win_rate.low.unwrap() > 0.45);
    assert!(!promoted(&worse, 0.1), "what is surely worse passes no margin");
    let reason = gated(&worse, GateMode::NotWorse).unwrap_err();
    assert!(
        reason.starts_with("worse: it loses more than chance explains (p = 0.012)"),
        "{reason}"
    );
    assert!(reason.contains("4/380/16, win rate 48.5 % ["), "{reason}");
}

/// A record of old has neither a finding nor Tango's interval.
#[test]
fn evaluations_of_old_pass_the_same_gate() {
    for (evaluation, passes) in [(split(200, 0, 200), true), (split(1, 0, 5), false)] {
        let mut old = evaluation.clone();
        old.head_to_head[0].finding = None;
        old.head_to_head[0].win_rate.low = Some(-0.262);
        old.length.mean = 10.0;
        assert_eq!(gated(&old, GateMode::NotWorse).is_ok(), passes);
    }
}

#[test]
fn who_refereed_is_said() {
    let rubric = |n: &str| RubricName {
        rubric: RubricId(n.to_owned()),
        name: n.to_owned(),
        version: "1.2.3".to_owned(),
    };
    for (referee, chose_pairs, said) in [
        (
            Referee::Judge,
            true,
            "refereed by what also chose the pairs it was trained on (own@1.2.3)",
        ),
        (Referee::Judge, false, "refereed by own@1.2.3"),
        (Referee::Rubrics, false, "refereed by own@1.2.3 (evaluate.rubrics)"),
        (Referee::Rubrics, true, "own@1.2.3, some of which also chose the pairs"),
    ] {
        let mut evaluation = split(5, 5, 5);
        evaluation.head_to_head[0].referee = referee;
        let rubrics = vec![rubric("own")];
        evaluation.gate_referee = Some(GateReferee { referee, rubrics, chose_pairs });
        let reason = gated(&evaluation, GateMode::Better).unwrap_err();
        assert!(reason.contains(said), "no {said:?} in {reason}");
    }
}

/// Longer than a record may be: in several of them, and what no record holds is cut and says so.
#[test]
fn long_answers_are_recorded_in_parts() {
    let judgment = |sample: u32, letters: usize| Judgment {
        rubric: RubricId("r".into()),
        candidate: sample % 2,
        sample,
        outcome: Outcome::Unparsed { reason: "no score found".into() },
        text: "\u{1}".repeat(letters),
        fuel: 1,
        seen: Vec::new(),
        scores: Vec::new(),
        readout: None,
        remarks: Default::default(),
    };
    let mut long = prompt(1, ROLES.map(|role| answer(role, Some(2.0), 7, true)).to_vec());
    long.answers[0].completion.token_ids = vec![151_935; 30_000];
    long.judgments = (0..40).map(|sample| judgment(sample, 10_000)).collect();
    let other = prompt(2, ROLES.map(|role| answer(role, Some(1.0), 7, true)).to_vec());
    let events: Vec<Event> =
        [&long, &other].iter().flat_map(|one| one.recorded(Iteration(3)).unwrap()).collect();
    let bytes = |event: &Event| serde_json::to_vec(event).unwrap().len();
    assert!(events.len() > 5 && events.iter().all(|event| bytes(event) <= EVENT_BYTES_MAX));
    assert_eq!(HeldOutPrompt::gathered(&events), [long.clone(), other]);

    long.answers[1].completion.token_ids = vec![151_935; 300_000];
    long.answers[1].completion.text = "€".repeat(900_000);
    long.answers[1].tokens = 300_000;
    long.judgments = vec![judgment(0, 900_000)];
    let reason = "x".repeat(3_000_000);
    long.judgments[0].outcome = Outcome::Refused { reason };
    let events = long.recorded(Iteration(3)).unwrap();
    assert!(events.iter().all(|event| bytes(event) <= EVENT_BYTES_MAX));
    let found = &HeldOutPrompt::gathered(&events)[0];
    assert_eq!(found.answers[1].tokens, 300_000, "its length is known");
    let said = &found.answers[1].completion.text;
    assert!(said.ends_with("€ [cut for the record: 900000 characters in all]"));
    assert!(found.judgments[0].text.contains("[cut for the record: 900000 characters"));
    let Outcome::Refused { reason } = &found.judgments[0].outcome else { panic!("it was refused") };
    assert!(reason.contains("[cut for the record: 3000000 characters"));
}

#[test]
fn of_nothing_nothing_is_known() {
    let none: [(ComparedAnswer, ComparedAnswer); 0] = [];
    let found = Compared::of(none);
    assert_eq!(found, Compared::default());
    let rate = found.win_rate();
    assert_eq!((rate.n, rate.bounds()), (0, None), "nothing is known of it");
}
