//! Rubrics that change while the loop runs: what a new one judges, what a bad one leaves behind, and
//! what an order that matters to the judge does to pairs.

use super::checks::records;
use super::fake::Verdict;
use super::scheduler::{Mood, Sim};
use super::world::{World, demo, foreign, pairwise};
use super::{check, outcomes};
use crate::dice::{Dice, with_seeds};
use gradus::config::ReadoutMode;
use gradus::domain::{Event, Judgment, Panel, RubricId, SkipReason, Trial, When};
use std::collections::BTreeSet;

/// As records of old have it.
const OLD_TRIAL: Trial =
    Trial { judgments: 12, prompts: 0, unparsed_max: 0.5, watch: 0, mass_min: 0.0 };
/// Of four prompts, which have three answers each.
const NEW_TRIAL: Trial = Trial { judgments: 0, prompts: 4, watch: 8, ..OLD_TRIAL };
const TRIAL: Option<Trial> = Some(NEW_TRIAL);

fn activated(rubric: RubricId, when: When, trial: Option<Trial>) -> Event {
    Event::RubricActivated { panel: Panel::one(rubric), when, trial }
}

fn installed(rubric: RubricId) -> Event {
    Event::RubricInstalled { rubric, name: "new".into(), version: "2".into() }
}

/// The judgments of every prompt, in order.
fn judged(sim: &Sim<'_>) -> Vec<Vec<Judgment>> {
    let all = records(&sim.disk).into_iter().filter_map(|record| match record.event {
        Event::JudgmentsRecorded { judgments, .. } => Some(judgments),
        _ => None,
    });
    all.collect()
}

fn judges(sim: &Sim<'_>) -> Vec<RubricId> {
    let one = |judgments: &Vec<Judgment>| {
        let rubrics: BTreeSet<&RubricId> = judgments.iter().map(|j| &j.rubric).collect();
        assert!(rubrics.len() <= 1, "a prompt is judged under one rubric here");
        rubrics.into_iter().next().cloned()
    };
    judged(sim).iter().filter_map(one).collect()
}

fn world(panel: RubricId) -> World {
    let mut world = World::plain();
    world.config.judge.readout = ReadoutMode::Parsed;
    world.panel = Panel::one(panel);
    world.temper.unreadable = 0;
    world.temper.cut_off = 0;
    world.temper.answers = 20;
    world
}

#[test]
fn a_rubric_that_compares_makes_pairs_of_the_best_and_the_worst() {
    let world = world(pairwise());
    let mut sim = Sim::new(&world);
    sim.calm();
    check(&sim);
    let mut pairs = 0;
    for record in records(&sim.disk) {
        match record.event {
            Event::PairFormed { pair, .. } => {
                pairs += 1;
                // Three different answers: one wins all its duels, one none.
                let ends = (pair.score_chosen, pair.score_rejected);
                assert!(ends == (1.0, 0.0), "{ends:?}");
            }
            Event::JudgmentsRecorded { judgments, .. } if !judgments.is_empty() => {
                let orders: BTreeSet<&Vec<u32>> = judgments.iter().map(|j| &j.seen).collect();
                for order in &orders {
                    let swapped: Vec<u32> = order.iter().rev().copied().collect();
                    assert!(orders.contains(&swapped), "{order:?} is asked in one order");
                }
            }
            _ => {}
        }
    }
    assert!(pairs > 5, "{pairs}");
}

#[test]
fn a_judge_that_always_takes_the_first_teaches_nothing() {
    let mut world = world(pairwise());
    world.temper.verdict = Verdict::First;
    let mut sim = Sim::new(&world);
    sim.calm();
    check(&sim);
    assert_eq!(outcomes(&sim)[1..], ["no signal", "no signal"]);
    let reasons: BTreeSet<&str> = sim
        .truth
        .iterations
        .values()
        .flat_map(|view| view.skipped.values())
        .filter(|reason| **reason != SkipReason::Identical)
        .map(|reason| reason.as_str())
        .collect();
    assert_eq!(reasons, BTreeSet::from([SkipReason::Tie.as_str()]));
}

/// Says the events once the first judgments of the first preference iteration are there.
fn swapped<'a>(world: &'a World, events: Vec<Event>) -> Sim<'a> {
    let mut sim = Sim::new(world);
    for _ in 0..1000 {
        sim.begin(1);
        if !judged(&sim).is_empty() {
            break;
        }
    }
    for event in events {
        sim.say(event);
    }
    sim.calm();
    check(&sim);
    sim
}

#[test]
fn a_swap_waits_for_the_next_iteration_unless_it_is_wanted_at_once() {
    let world = world(demo());
    for (when, mixed) in [(When::NextIteration, false), (When::Immediately, true)] {
        let swap = vec![installed(pairwise()), activated(pairwise(), when, TRIAL)];
        let sim = swapped(&world, swap);
        let prompts = world.config.prompts.per_iteration as usize;
        let judges = judges(&sim);
        assert_eq!(judges.len(), 2 * prompts, "nobody is judged twice");
        let (first, second) = judges.split_at(prompts);
        assert_eq!(first[0], demo());
        assert_eq!(first.contains(&pairwise()), mixed, "{when:?}");
        assert!(second.iter().all(|rubric| *rubric == pairwise()));
        assert!(sim.truth.rubrics.put_away.is_empty());
    }
}

#[test]
fn a_rubric_that_fails_its_trial_leaves_nothing_behind() {
    let world = world(demo());
    let whens = [When::NextIteration, When::Immediately];
    for (when, trial) in whens.into_iter().flat_map(|w| [(w, OLD_TRIAL), (w, NEW_TRIAL)]) {
        let swap = vec![installed(foreign()), activated(foreign(), when, Some(trial))];
        let sim = swapped(&world, swap);
        let reason = &sim.truth.rubrics.put_away[&foreign()];
        assert!(reason.contains("judgments have no score, 100 %"), "{reason}");
        assert_eq!(sim.truth.panel, Some(Panel::one(demo())));
        let judges = judges(&sim);
        let bad = judges.iter().filter(|rubric| **rubric == foreign()).count();
        // Twelve judgments are those of four prompts; at once, no more are left in the iteration.
        assert_eq!(bad, if when == When::NextIteration { 4 } else { 2 });
        let mut calm = Sim::new(&world);
        calm.calm();
        assert_eq!(outcomes(&sim), outcomes(&calm));
        let pairs = |sim: &Sim<'_>| {
            let views = sim.truth.iterations.values();
            views.map(|view| view.pairs.keys().cloned().collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(pairs(&sim), pairs(&calm), "the same pairs as if it had never been there");
    }
}

/// Where nobody judged before, there is nobody to go back to.
#[test]
fn the_first_rubric_stays_however_bad_it_is() {
    let world = world(foreign());
    let mut sim = Sim::new(&world);
    sim.calm();
    check(&sim);
    assert_eq!(outcomes(&sim)[1..], ["no signal", "no signal"]);
}

/// Swaps at any moment of a storm: every prompt is judged under one panel, nothing fails, the story
/// holds.
#[test]
fn swaps_in_a_storm() {
    with_seeds(40, |seed| {
        let mut dice = Dice(seed);
        let world = world(demo());
        let mut sim = Sim::new(&world);
        for round in 0..30 {
            let steps = dice.from(1, 6);
            sim.begin(steps);
            if round < 20 {
                let rubric = if dice.chance(50) { demo() } else { pairwise() };
                let whens = [When::NextIteration, When::Immediately];
                sim.say(activated(rubric, dice.pick(&whens), TRIAL));
            }
        }
        let mood = Mood::of(&mut dice);
        sim.storm(&mut dice, mood);
        check(&sim);
        judges(&sim);
        assert!(sim.truth.rubrics.put_away.is_empty());
    });
}
