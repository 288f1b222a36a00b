//! A judge that is systematically wrong. To itself the loop looks as if it got better and better;
//! a referee that did not choose the pairs sees what happens.

use super::checks::records;
use super::fake::{Temper, Verdict};
use super::scheduler::Sim;
use super::world::{World, pairwise, verifier};
use super::{check, outcomes};
use gradus::config::{GateMode, ReadoutMode};
use gradus::domain::evaluation::{HeadToHead, Referee, Verdict as Word};
use gradus::domain::{Event, Notes};
use gradus::log::Recorded;
use gradus::report::{Report, iterations_table};
use gradus::stage::Stage;
use gradus::stage::evaluator::Evaluator;
use gradus::view::RunView;

/// A program can say whether an answer shows zeal.
fn zeal_is_wanted(_: u32) -> Notes {
    let fields = [("keywords:existence".to_owned(), "zeal".to_owned())];
    Notes { fields: fields.into(), ..Notes::default() }
}

/// A model that learns what its judge chooses, and is measured on 64 prompts.
fn world(seed: u64, verdict: Verdict, mode: GateMode, referees: &[&str]) -> World {
    let mut world = World::plain();
    let c = &mut world.config;
    (c.seed, c.iterations) = (seed, 3);
    c.prompts.per_iteration = 16;
    c.judge.readout = ReadoutMode::Parsed;
    // The probes have nothing to do with it here.
    c.judge.probes = 0;
    c.evaluate.prompts = 64;
    c.evaluate.rubrics = referees.iter().map(|name| (*name).to_owned()).collect();
    c.evaluate.gate.mode = mode;
    (world.given, world.held_out, world.seed_rows) = (48, 64, 0);
    world.notes = zeal_is_wanted;
    world.temper = Temper {
        answers: 40,
        cut_off: 0,
        unreadable: 0,
        verdict,
        skipped_steps: 0,
        learns: true,
        ..world.temper
    };
    world
}

fn ran(world: &World) -> Sim<'_> {
    let mut sim = Sim::new(world);
    let (name, version) = ("verifier".to_owned(), "1.0.0".to_owned());
    sim.say(Event::RubricInstalled { rubric: verifier(), name, version });
    sim.calm();
    check(&sim);
    assert_eq!(sim.truth.finished(), 3);
    sim
}

/// Against the policy before, by a referee: one for each iteration.
fn versus(sim: &Sim<'_>, referee: Referee) -> Vec<HeadToHead> {
    let evaluations = sim.truth.iterations.values().filter_map(|view| view.evaluation.as_ref());
    let all = evaluations.flat_map(|evaluation| evaluation.head_to_head.clone());
    all.filter(|h| h.opponent == "previous" && h.referee == referee).collect()
}

fn words(found: &[HeadToHead]) -> Vec<Word> {
    found.iter().map(|h| h.finding.as_ref().unwrap().verdict).collect()
}

#[test]
fn a_judge_that_is_wrong_is_stopped_by_a_referee_of_its_own() {
    for seed in 1..=6 {
        for mode in [GateMode::NotWorse, GateMode::Better] {
            let world = world(seed, Verdict::Sloth, mode, &["verifier"]);
            let sim = ran(&world);
            assert_eq!(outcomes(&sim), ["rejected"; 3], "seed {seed}, {mode:?}");
            assert_eq!(sim.truth.policy, sim.truth.base, "M0 acts on");
            let by_program = words(&versus(&sim, Referee::Rubrics));
            assert_eq!(by_program, [Word::Worse; 3], "seed {seed}");
            // What it would have looked like.
            let by_judge = words(&versus(&sim, Referee::Judge));
            assert_eq!(by_judge, [Word::Better; 3], "seed {seed}");
            let table = iterations_table(&Report::of(&sim.truth));
            for part in
                ["referee score", " worse", "by its own judge: better", "refereed by verifier@"]
            {
                assert!(table.contains(part), "no {part:?} in\n{table}");
            }
        }
    }
}

/// The same loops, believed by what chose their pairs: that is why there are referees.
#[test]
fn without_one_it_looks_like_a_gain() {
    for seed in 1..=6 {
        let world = world(seed, Verdict::Sloth, GateMode::Better, &[]);
        let sim = ran(&world);
        assert_eq!(outcomes(&sim)[0], "promoted", "seed {seed}");
        let found = sim.truth.iterations.values().next().unwrap().evaluation.as_ref().unwrap();
        let gate = found.gate_referee.as_ref().unwrap();
        assert!(gate.referee == Referee::Judge && gate.chose_pairs);
        let table = iterations_table(&Report::of(&sim.truth));
        assert!(
            table.contains("refereed by what also chose the pairs it was trained on"),
            "{table}"
        );
    }
}

/// A referee that stopped everything would stop nothing: a judge that is right passes it.
#[test]
fn a_judge_that_is_right_passes_the_same_referee() {
    for seed in 1..=6 {
        let world = world(seed, Verdict::Zeal, GateMode::Better, &["verifier"]);
        let sim = ran(&world);
        assert_eq!(outcomes(&sim)[0], "promoted", "seed {seed}");
        assert_eq!(words(&versus(&sim, Referee::Rubrics))[0], Word::Better, "seed {seed}");
        let evaluation = sim.truth.iterations.values().next().unwrap().evaluation.clone().unwrap();
        assert!(evaluation.gate_referee.is_some_and(|gate| !gate.chose_pairs));
        // Both are recorded: the judge's words and the program's verdict.
        let held_out = records(&sim.disk).into_iter().find_map(|record| match record.event {
            Event::HeldOutJudged { judgments, answers, .. } => Some((judgments, answers)),
            _ => None,
        });
        let (judgments, answers) = held_out.unwrap();
        assert!(answers.iter().all(|a| a.judged.is_some() && a.refereed.is_some()));
        assert!(judgments.iter().any(|j| j.rubric == verifier()));
        assert!(judgments.iter().any(|j| j.rubric != verifier() && j.text.contains("score")));
    }
}

/// What was known just before the first evaluation.
fn before_measuring(sim: &Sim<'_>) -> RunView {
    let mut view = RunView::default();
    let all = records(&sim.disk).into_iter();
    for record in all.take_while(|record| record.event.kind() != "held_out_judged") {
        view.apply(&record);
    }
    view
}

/// A referee that is not there is an error, not the judge; and another one of its name is another
/// task.
#[test]
fn a_referee_that_is_not_installed_is_never_replaced() {
    let world = world(1, Verdict::Sloth, GateMode::NotWorse, &["verifier"]);
    let sim = ran(&world);
    let mut view = before_measuring(&sim);
    let planned = |view: &RunView, referee: &str| {
        let mut view = view.clone();
        let (_, open) = view.iterations.iter_mut().next_back().unwrap();
        open.plan.as_mut().unwrap().evaluation.rubrics = vec![referee.to_owned()];
        view
    };
    let alone = planned(&view, "nobody");
    let (_, task) = Evaluator.next(&alone).expect("it is not left out in silence");
    let context = world.context(&sim.disk, sim.disk.log.clone());
    let error = Evaluator.run(task, &view, &context).unwrap_err().coded();
    assert!(error.contains("GRADUS0508 evaluate.rubrics names \"nobody\""), "{error}");
    assert!(error.contains("Install it, or take the name out"), "{error}");

    let key = |view: &RunView| Evaluator.next(&planned(view, "verifier")).map(|(key, _)| key);
    let one = key(&view);
    let (name, version) = ("verifier".to_owned(), "2.0.0".to_owned());
    let event = Event::RubricInstalled { rubric: pairwise(), name, version };
    let (offset, last) = (view.next, records(&sim.disk).pop().unwrap());
    view.apply(&Recorded { offset, event, ..last });
    assert_ne!(one, key(&view));
}

/// The gate fails closed: without held-out prompts, or with none of them looked at.
#[test]
fn nothing_held_out_promotes_nothing() {
    for (held_out, looked_at) in [(0, 64), (4, 0)] {
        for mode in [GateMode::NotWorse, GateMode::Better, GateMode::Paper] {
            let mut world = World::plain();
            world.held_out = held_out;
            world.config.evaluate.prompts = looked_at;
            world.config.evaluate.gate.mode = mode;
            let mut sim = Sim::new(&world);
            sim.calm();
            check(&sim);
            let dpo = if mode == GateMode::Paper { "promoted" } else { "rejected" };
            assert_eq!(outcomes(&sim), ["promoted", dpo, dpo], "{mode:?}");
            let table = iterations_table(&Report::of(&sim.truth));
            for part in ["unproven", "nothing was compared"] {
                assert!(table.contains(part), "no {part:?} in\n{table}");
            }
        }
    }
}
