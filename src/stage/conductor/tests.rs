//! The conductor's decisions as tables: given these events, these are appended next.

use super::*;
use crate::config::{GateMode, JudgeSource, OnNoSignal};
use crate::domain::evaluation::Verdict;
use crate::domain::{BlobHash, SkipReason, Trial};
use crate::stage::testing::{Run, brief, prompts, rubric};

/// What a case is about, the run so far, and what is appended next.
type DecisionCase = (&'static str, Run, &'static [&'static str]);

fn next(run: &Run) -> Option<(TaskKey, Vec<Event>)> {
    Conductor::new(Arc::new(run.config.clone())).next(&run.view)
}

fn check(cases: impl IntoIterator<Item = DecisionCase>) {
    for (what, given, then) in cases {
        let events = next(&given).map_or_else(Vec::new, |(_, events)| events);
        assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), then, "{what}");
    }
}

fn finished(outcome: IterationOutcome) -> Run {
    Run::begun(8).opened().finished(outcome)
}

#[test]
fn an_iteration_is_opened() {
    let seed_rows = || Event::SeedDataAdmitted {
        name: "ift".to_owned(),
        rows: 3,
        blob: BlobHash("rows".to_owned()),
    };
    let begun = || Run::begun(4);
    check([
        ("the log is empty", Run::nothing(), &[][..]),
        ("a run has begun", begun(), &["iteration_started 1 preference"]),
        (
            "seed rows are learned first",
            begun().tell(seed_rows()),
            &["iteration_started 1 supervised"],
        ),
        (
            "settings are others than recorded",
            begun().changed(|c| c.judge.samples = 5),
            &["settings_changed", "iteration_started 1 preference"],
        ),
        ("the host paused the run", begun().tell(Event::PauseRequested), &[]),
        (
            "and resumed it",
            begun().tell(Event::PauseRequested).tell(Event::ResumeRequested),
            &["iteration_started 1 preference"],
        ),
        (
            "the iteration before is over",
            finished(IterationOutcome::Promoted),
            &["iteration_started 2 preference"],
        ),
        (
            "as many as wanted are over",
            finished(IterationOutcome::Promoted).with(|c| c.iterations = 1),
            &[],
        ),
        ("one of schema 1 has no plan", begun().opened_without_plan(), &["plan_adopted"]),
    ]);
}

#[test]
fn prompts_are_sealed() {
    let writes = |c: &mut Config| (c.prompts.generate, c.prompts.rounds_max) = (true, 1);
    let written = |run: Run| {
        let iteration = run.iteration();
        run.tell(Event::PromptsWritten { iteration, round: 0, admitted: 0, rejected: 9 })
    };
    let some = |n| Run::begun(n).opened();
    check([
        ("more wait than are wanted", some(6), &["prompts_sealed p0 p1 p2 p3"][..]),
        ("fewer wait, and no more will come", some(3), &["prompts_sealed p0 p1 p2"]),
        ("fewer wait, and the policy may write some", Run::begun(3).with(writes).opened(), &[]),
        (
            "it has written all that it may",
            written(Run::begun(3).with(writes).opened()),
            &["prompts_sealed p0 p1 p2"],
        ),
        ("none waits", some(0), &["iteration_finished no signal"]),
        (
            "none waits, and a run without a signal pauses",
            Run::begun(0).with(|c| c.pairs.on_no_signal = OnNoSignal::Pause).opened(),
            &["iteration_finished no signal", "pause_requested"],
        ),
        ("they are sealed", some(6).sealed(0..4), &[]),
    ]);
}

/// Four prompts, answered and judged.
fn judged(run: Run) -> Run {
    run.opened().sealed(0..4).sampled(0..4).judged("a", 0..4, [1.0, 2.0])
}

#[test]
fn pairs_are_sealed() {
    let four = || judged(Run::begun(4));
    let all = &["pairs_sealed 1/p0 1/p1 1/p2 1/p3"][..];
    let shadow = |run: Run| run.tell(Event::ShadowsSet { rubrics: vec![rubric("b")] });
    let arm = |c: &mut Config| c.judge.source = JudgeSource::Random;
    check([
        ("one prompt is undecided", four().paired(0..3), &[][..]),
        ("every prompt has a pair", four().paired(0..4), all),
        (
            "every prompt has a pair or a reason",
            { four().paired(0..2).skipped(2..4, SkipReason::Tie) },
            &["pairs_sealed 1/p0 1/p1"],
        ),
        (
            "fewer pairs than wanted",
            four().paired(0..1).skipped(1..4, SkipReason::Tie),
            &["iteration_finished no signal"],
        ),
        ("a shadow has yet to judge", shadow(four().paired(0..4)), &[]),
        ("a shadow has judged", shadow(four().paired(0..4)).shadowed("b", 0..4), all),
        (
            "beside a control arm no shadow is waited for",
            shadow(judged(Run::begun(4).with(arm)).paired(0..4)),
            all,
        ),
    ]);
}

#[test]
fn the_judge_is_probed_before_pairs_are_sealed() {
    let paired = |probes, run: fn(Run) -> Run| {
        let probes = |c: &mut Config| (c.judge.probes, c.judge.probes_max) = (probes, 8);
        run(judged(Run::begun(4).with(probes)).paired(0..4))
    };
    let all = &["pairs_sealed 1/p0 1/p1 1/p2 1/p3"][..];
    let compromised = &["iteration_finished judge compromised"][..];
    check([
        ("no round was made", paired(4, |run| run), &[][..]),
        ("a forged verdict gains nothing", paired(4, |run| run.probed("a", 4, 1.0, 1.0)), all),
        ("a forged verdict pays", paired(4, |run| run.probed("a", 4, 1.0, 9.0)), compromised),
        (
            "bad answers score above the policy's",
            { paired(4, |run| run.probed("a", 4, 8.0, 8.0)) },
            compromised,
        ),
        (
            "one round says too little, and more are allowed",
            { paired(2, |run| run.probed("a", 2, 1.0, 1.0)) },
            &[],
        ),
        (
            "a second round says enough",
            { paired(2, |run| run.probed("a", 2, 1.0, 1.0).probed("a", 2, 1.0, 1.0)) },
            all,
        ),
        (
            "there are no more prompts to probe with",
            { paired(2, |run| run.probed("a", 1, 1.0, 1.0)) },
            all,
        ),
    ]);
}

#[test]
fn the_gate_decides() {
    let trained = |run: Run| run.with_pairs().referenced().saved(4);
    let measured = |verdict| trained(Run::begun(4)).evaluated(verdict);
    let paper = |c: &mut Config| c.evaluate.gate.mode = GateMode::Paper;
    let promoted = &["checkpoint_promoted", "iteration_finished promoted"][..];
    check([
        ("nothing is trained", Run::begun(4).with_pairs(), &[][..]),
        ("nothing is measured", trained(Run::begun(4)), &[]),
        ("it is better", measured(Verdict::Better), promoted),
        (
            "it is worse",
            measured(Verdict::Worse),
            &["checkpoint_rejected", "iteration_finished rejected"],
        ),
        (
            "it is worse, and the paper asks for nothing",
            trained(Run::begun(4).with(paper)).evaluated(Verdict::Worse),
            promoted,
        ),
    ]);
}

#[test]
fn what_fails_again_and_again_is_split_then_left_out() {
    let sealed = || Run::begun(4).opened().sealed(0..4);
    let split = |run: Run| {
        let iteration = run.iteration();
        run.tell(Event::PromptsSplit { iteration, prompts: prompts(0..2) })
    };
    let sampled = || sealed().sampled(0..4);
    check([
        ("a chunk failed twice", sealed().failed(&Sampler, 2), &[][..]),
        ("a chunk failed three times", sealed().given_up(&Sampler), &["prompts_split p0 p1"]),
        (
            "another chunk's failures are nothing to this one",
            { sealed().given_up(&Sampler).sampled(0..2) },
            &[],
        ),
        (
            "a prompt alone failed three times",
            split(sealed()).given_up(&Sampler),
            &["prompt_quarantined p0 by sampler"],
        ),
        ("judging a chunk failed", sampled().given_up(&Judge), &["prompts_split p0 p1"]),
        (
            "judging a prompt failed",
            split(sampled()).given_up(&Judge),
            &["prompt_quarantined p0 by judge"],
        ),
        (
            "pairing a chunk failed",
            { sampled().judged("a", 0..4, [1.0, 2.0]).given_up(&PairStore) },
            &["prompts_split p0 p1"],
        ),
    ]);
}

#[test]
fn what_fails_for_the_whole_iteration_ends_it() {
    let probes = |c: &mut Config| c.judge.probes = 4;
    let goes_on = |c: &mut Config| c.on_failure = OnFailure::Continue;
    let stops = &["iteration_finished failed", "pause_requested"][..];
    let trainer = Trainer::default;
    let diverged = |run: Run| {
        let (iteration, reason) = (run.iteration(), "NaN".to_owned());
        run.tell(Event::TrainingDiverged { iteration, step: 0, reason })
    };
    let saved = |run: Run| run.with_pairs().referenced().saved(4);
    check([
        ("probing", Run::begun(4).with(probes).opened().sealed(0..4).given_up(&Judge), stops),
        ("training", Run::begun(4).with_pairs().given_up(&trainer()), stops),
        ("measuring", saved(Run::begun(4)).given_up(&Evaluator), stops),
        ("training diverged", diverged(Run::begun(4).with_pairs().referenced()), stops),
        (
            "and the run goes on where the settings say so",
            Run::begun(4).with(goes_on).with_pairs().given_up(&trainer()),
            &["iteration_finished failed"],
        ),
    ]);
}

#[test]
fn a_rubric_that_fails_is_rolled_back_before_anything_else() {
    let trial = Trial { prompts: 2, ..Trial::default() };
    let on_trial = || Run::begun(4).opened().sealed(0..4).sampled(0..4).swapped("b", Some(trial));
    let rolled_back = &["rubric_rolled_back b to a"][..];
    check([
        ("it is on trial", on_trial().unparsed("b", 0..1), &[][..]),
        ("it has passed", on_trial().judged("b", 0..2, [1.0, 2.0]), &[]),
        ("it has failed", on_trial().unparsed("b", 0..2), rolled_back),
        (
            "it has failed, and a chunk is given up",
            { on_trial().unparsed("b", 0..2).sampled(0..4) },
            rolled_back,
        ),
        ("it is gone", on_trial().unparsed("b", 0..2).rolled_back("b", "a"), &[]),
        ("nobody judged before it", Run::begun(4).opened().sealed(0..4).unparsed("a", 0..4), &[]),
    ]);
}

/// A decision has one key, whatever a view that is behind would make of it; what a rollback made void
/// is decided anew under another one.
#[test]
fn keys_of_decisions() {
    let key = |run: &Run| next(run).expect("something is next").0;
    let (few, more) = (Run::begun(4).opened(), Run::begun(9).opened());
    assert_eq!(key(&few), key(&more), "prompts are sealed once, whichever wait");
    let sealed = |run: Run| key(&run.paired(0..4));
    let judged_by = |run: Run, by: &str| run.judged(by, 0..4, [1.0, 2.0]);
    let open = || Run::begun(4).opened().sealed(0..4).sampled(0..4);
    let calm = sealed(judged_by(open(), "a"));
    let swapped = judged_by(open().swapped("b", None), "b").paired(0..4).rolled_back("b", "a");
    let again = sealed(judged_by(swapped, "a"));
    assert_eq!((calm.rollback(), again.rollback()), (0, 1));
    assert_eq!(calm.clone().after(1), again);
    let failing = open().swapped("b", Some(Trial { prompts: 2, ..Trial::default() }));
    let failing = failing.unparsed("b", 0..2);
    assert_eq!(key(&failing), failing.view.rubrics.change_key(), "whoever changes what judges");
}

/// Why an iteration gave nothing says what to do about it.
#[test]
fn reasons_name_what_to_do() {
    let reason = |run: &Run| match next(run).map(|(_, events)| events).as_deref() {
        Some([Event::IterationFinished { outcome, .. }, ..]) => match outcome {
            IterationOutcome::NoSignal { reason }
            | IterationOutcome::JudgeCompromised { reason } => reason.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let probed = |bare, forged| {
        let run = judged(Run::begun(4).with(|c| c.judge.probes = 4)).paired(0..4);
        run.probed("a", 4, bare, forged)
    };
    let unparsed = Run::begun(4).opened().sealed(0..4).sampled(0..4).unparsed("a", 0..4);
    for (run, wanted) in [
        (Run::begun(0).opened(), "add prompts, set prompts.generate: true"),
        (judged(Run::begun(4)).skipped(0..4, SkipReason::Tie), "GRADUS0304"),
        (judged(Run::begun(4)).skipped(0..4, SkipReason::Tie), "4 tie"),
        (unparsed.skipped(0..4, SkipReason::Unparsed), "GRADUS0301"),
        (probed(1.0, 9.0), "GRADUS0305"),
        (probed(8.0, 8.0), "GRADUS0306"),
    ] {
        let reason = reason(&run);
        assert!(reason.contains(wanted), "{wanted}: {reason}");
    }
}
