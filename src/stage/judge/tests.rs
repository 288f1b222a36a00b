//! The judge's decisions as tables: given these events, this is judged next.

use super::*;
use crate::config::{Config, JudgeSource, PairRule};
use crate::domain::{Event, SkipReason, Trial};
use crate::stage::testing::{Run, names, prompt, prompts, rubric};

/// What is judged next, in words.
fn next(run: &Run) -> String {
    match Judge.next(&run.view) {
        None => "nothing".to_owned(),
        Some((_, JudgeTask::Probe(task))) => format!("probe {} round {}", task.rubric, task.round),
        Some((_, JudgeTask::Chunk(task))) => {
            format!("judge {}", names(task.prompts.iter().map(|(id, _)| id)))
        }
        Some((_, JudgeTask::Shadow(task))) => {
            format!("shadow {} {}", task.rubric, names(task.prompts.iter().map(|(id, ..)| id)))
        }
    }
}

fn check<'c>(cases: impl IntoIterator<Item = (&'c str, Run, &'c str)>) {
    for (what, given, then) in cases {
        assert_eq!(next(&given), then, "{what}");
    }
}

fn sampled(n: usize) -> Run {
    Run::begun(4).opened().sealed(0..4).sampled(0..n)
}

#[test]
fn what_is_judged_next() {
    let judged = |n| sampled(4).judged("a", 0..n, [1.0, 2.0]);
    let split = |run: Run| {
        let iteration = run.iteration();
        run.tell(Event::PromptsSplit { iteration, prompts: prompts(0..2) })
    };
    let left_out = |run: Run| {
        let (iteration, task) = (run.iteration(), TaskKey("t".to_owned()));
        let (prompt, stage) = (prompt(0), "judge".to_owned());
        run.tell(Event::PromptQuarantined { iteration, prompt, stage, task })
    };
    let anchored = |c: &mut Config| c.pairs.rule = PairRule::Anchored;
    let two_sets = || Run::begun(4).with(anchored).opened().sealed(0..4).sampled(0..2);
    let both = |run: Run| run.sampled_in("initial", 0).sampled_in("initial", 1);
    let trial = Some(Trial { prompts: 2, ..Trial::default() });
    let swapped = || judged(1).swapped("b", None).judged("b", 1..4, [1.0, 2.0]);
    check([
        ("no iteration is open", Run::begun(4), "nothing"),
        ("nothing is answered", sampled(0), "nothing"),
        ("half of a chunk is answered", sampled(1), "nothing"),
        ("a chunk is answered", sampled(2), "judge p0 p1"),
        ("one sample set of two is answered", two_sets(), "nothing"),
        ("both are", both(two_sets()), "judge p0 p1"),
        ("half of a chunk is judged", judged(1), "judge p1"),
        ("a chunk is judged", judged(2), "judge p2 p3"),
        ("everything is judged", judged(4), "nothing"),
        ("the first chunk is split", split(sampled(4)), "judge p0"),
        ("its first prompt is left out", left_out(split(sampled(4))), "judge p1"),
        ("a rubric has failed", sampled(4).swapped("b", trial).unparsed("b", 0..2), "nothing"),
        (
            "it is rolled back: its prompts are judged again",
            sampled(4).swapped("b", trial).unparsed("b", 0..2).rolled_back("b", "a"),
            "judge p0 p1",
        ),
        ("what the other rubric judged stays", swapped().rolled_back("b", "a"), "judge p1"),
        ("the pairs are sealed", judged(2).paired(0..2).pairs_sealed(), "nothing"),
    ]);
}

#[test]
fn when_the_judge_is_probed() {
    let probes = |round, most| {
        move |c: &mut Config| {
            (c.judge.probes, c.judge.probes_max) = (round, most);
        }
    };
    let open = |round, most| Run::begun(4).with(probes(round, most)).opened();
    let sealed = |round, most| open(round, most).sealed(0..4).sampled(0..2);
    let arm = |c: &mut Config| (c.judge.probes, c.judge.source) = (4, JudgeSource::Random);
    let swapped = || sealed(4, 8).probed("a", 4, 1.0, 1.0).swapped("b", None);
    check([
        ("prompts are not sealed", open(4, 8), "nothing"),
        ("before anything is judged", sealed(4, 8), "probe a round 0"),
        ("it is known that forging gains nothing", sealed(4, 8).probed("a", 4, 1.0, 1.0), {
            "judge p0 p1"
        }),
        ("it is known that forging pays", sealed(4, 8).probed("a", 4, 1.0, 9.0), "judge p0 p1"),
        ("two prompts say too little", sealed(2, 8).probed("a", 2, 1.0, 1.0), "probe a round 1"),
        ("no further round is allowed", sealed(2, 2).probed("a", 2, 1.0, 1.0), "judge p0 p1"),
        ("there are no more prompts", sealed(2, 8).probed("a", 1, 1.0, 1.0), "judge p0 p1"),
        (
            "a further round failed three times: what is known has to do",
            sealed(2, 8).probed("a", 2, 1.0, 1.0).given_up(&Judge),
            "judge p0 p1",
        ),
        ("another rubric judges", swapped(), "probe b round 0"),
        (
            "it was rolled back: the one before is known already",
            swapped().probed("b", 4, 1.0, 1.0).rolled_back("b", "a"),
            "judge p0 p1",
        ),
        (
            "a control arm has no judge to fool",
            Run::begun(4).with(arm).opened().sealed(0..4).sampled(0..2),
            "judge p0 p1",
        ),
    ]);
}

/// A shadow judges what the panel has judged, after everything that counts.
#[test]
fn what_a_shadow_judges_next() {
    let shadow = |run: Run| run.tell(Event::ShadowsSet { rubrics: vec![rubric("b"), rubric("c")] });
    let judged = |n| shadow(sampled(4)).judged("a", 0..n, [1.0, 2.0]);
    let left_out = |run: Run| {
        let (iteration, task) = (run.iteration(), TaskKey("t".to_owned()));
        let (prompt, stage) = (prompt(3), "judge".to_owned());
        run.tell(Event::PromptQuarantined { iteration, prompt, stage, task })
    };
    let arm = |c: &mut Config| c.judge.source = JudgeSource::Oracle;
    let arms = || shadow(Run::begun(4).with(arm).opened().sealed(0..4).sampled(0..4));
    check([
        ("the panel comes first", judged(2), "judge p2 p3"),
        ("the panel has judged", judged(4), "shadow b p0 p1"),
        ("half of a chunk is shadowed", judged(4).shadowed("b", 0..1), "shadow b p0 p1"),
        ("a chunk is shadowed", judged(4).shadowed("b", 0..2), "shadow b p2 p3"),
        ("one shadow is done", judged(4).shadowed("b", 0..4), "shadow c p0 p1"),
        ("both are", judged(4).shadowed("b", 0..4).shadowed("c", 0..4), "nothing"),
        ("a prompt is left out", left_out(judged(3)).shadowed("b", 0..2), "shadow b p2"),
        ("beside a control arm", arms().judged("a", 0..4, [1.0, 2.0]), "nothing"),
        ("no iteration is open", shadow(Run::begun(4)), "nothing"),
    ]);
}

#[test]
fn when_pairs_wait_for_a_shadow() {
    let awaited = |run: &Run| {
        let (_, open) = run.view.open().expect("one is open");
        shadow::is_awaited(open.plan.as_ref().expect("it has a plan"), &run.view, open)
    };
    let shadow = |run: Run| run.tell(Event::ShadowsSet { rubrics: vec![rubric("b")] });
    let judged = || shadow(sampled(4)).judged("a", 0..4, [1.0, 2.0]);
    let decided = |run: Run| run.skipped(0..4, SkipReason::Tie);
    for (what, given, then) in [
        ("nothing is judged: nothing is waited for", shadow(sampled(4)), false),
        ("the panel has judged", judged(), true),
        ("every prompt is decided all the same", decided(judged()), true),
        ("the shadow has judged some", judged().shadowed("b", 0..3), true),
        ("the shadow has judged all", judged().shadowed("b", 0..4), false),
        ("no shadow is set", sampled(4).judged("a", 0..4, [1.0, 2.0]), false),
    ] {
        assert_eq!(awaited(&given), then, "{what}");
    }
}
