//! Rubrics that change while the loop runs: what a new one judges, what a bad one leaves behind, and
//! what an order that matters to the judge does to pairs.

use super::checks::{nothing_taken_back_is_trained_on, records};
use super::fake::Verdict;
use super::scheduler::Tally;
use super::scheduler::{Mood, Sim};
use super::world::{World, demo, foreign, others, pairwise};
use super::{check, outcomes};
use crate::dice::{Dice, with_seeds};
use gradus::config::ReadoutMode;
use gradus::domain::PolicyRef;
use gradus::domain::{
    Event, Judgment, JudgmentCounts, Offset, PairId, Panel, PreferencePair, RubricId, SkipReason,
    Trial, When,
};
use gradus::log::Recorded;
use gradus::report::{Report, iterations_table};
use gradus::view::{IterationView, PromptJudgments, RunView};
use std::collections::BTreeSet;
use std::sync::Mutex;

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
                let ends = (pair.chosen.score.unwrap(), pair.rejected.score.unwrap());
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
        assert!(sim.truth.rubrics.retired.is_empty());
    }
}

#[test]
fn a_rubric_that_fails_its_trial_leaves_nothing_behind() {
    let world = world(demo());
    let whens = [When::NextIteration, When::Immediately];
    for (when, trial) in whens.into_iter().flat_map(|w| [(w, OLD_TRIAL), (w, NEW_TRIAL)]) {
        let swap = vec![installed(foreign()), activated(foreign(), when, Some(trial))];
        let sim = swapped(&world, swap);
        let reason = &sim.truth.rubrics.retired[&foreign()];
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

/// Where nobody judged before, there is nobody to go back to: it is said, and the run goes on.
#[test]
fn the_first_rubric_stays_however_bad_it_is() {
    let mut world = world(foreign());
    (world.config.prompts.per_iteration, world.given) = (9, 20);
    let mut sim = Sim::new(&world);
    sim.calm();
    check(&sim);
    assert_eq!(outcomes(&sim)[1..], ["no signal", "no signal"]);
    let why = sim.truth.kept_though_failing(&foreign()).expect("it is said");
    assert!(why.contains("of its last 18 prompts have no score, 100 %"), "{why}");
    let report = Report::of(&sim.truth);
    assert_eq!(report.warnings.len(), 1);
    assert!(iterations_table(&report).contains("WARNING"), "in the table too");
    assert!(sim.truth.rubrics.failed.is_empty() && sim.truth.rubrics.retired.is_empty());
    let sound = self::world(demo());
    let mut sound = Sim::new(&sound);
    sound.calm();
    assert!(Report::of(&sound.truth).warnings.is_empty());
}

fn rolled_back(gone: &[RubricId], back_to: RubricId) -> Event {
    let (taken_back, back_to) = (gone.to_vec(), Panel::one(back_to));
    let rubric = gone[0].clone();
    Event::RubricRolledBack { rubric, back_to, reason: "by hand".to_owned(), taken_back }
}

/// Pairs, the last checkpoint, and how many judgments.
type CameTo = (Vec<PreferencePair>, Option<PolicyRef>, JudgmentCounts);

/// What an iteration was trained on and came to; pairs that were formed again have other names.
fn came_to(sim: &Sim<'_>) -> Vec<CameTo> {
    let all = records(&sim.disk);
    let pair = |at: &Offset| match &all[at.0 as usize].event {
        Event::PairFormed { pair, .. } => {
            PreferencePair { id: PairId(String::new()), ..pair.clone() }
        }
        other => panic!("{other:?}"),
    };
    let one = |view: &IterationView| {
        let pairs = view.pairs.values().map(|(_, at)| pair(at)).collect();
        (pairs, view.checkpoint.as_ref().map(|c| c.policy.clone()), view.judgments)
    };
    sim.truth.iterations.values().map(|view| one(view)).collect()
}

/// Case A8: another rubric judges at once, some of its prompts are paired, perhaps trained on, and
/// it is rolled back. Whenever that was, the iteration comes to what it comes to without it.
#[test]
fn a_rollback_leaves_nothing_of_the_rubric_in_the_open_iteration() {
    let mut world = world(demo());
    (world.config.iterations, world.seed_rows) = (2, 0);
    world.config.sampling.batch_prompts = 1;
    world.config.pairs.noise = 0.0;
    world.config.judge.probes = 0; // a judge that rolls dice may look fooled under either
    let mut calm = Sim::new(&world);
    calm.calm();
    let wanted = came_to(&calm);
    let (mut paired, mut trained, mut void) = (0, 0, 0);
    for (begun, more) in (0..24).step_by(2).flat_map(|begun| (0..26).map(move |n| (begun, n))) {
        let mut sim = Sim::new(&world);
        sim.begin(begun);
        sim.say(installed(pairwise()));
        sim.say(activated(pairwise(), When::Immediately, None));
        let before = sim.truth.finished();
        sim.begin(more);
        let Some((_, open)) = sim.truth.open() else { continue };
        if sim.truth.finished() > before {
            continue; // what is over is history
        }
        let theirs =
            open.prompt_judgments.values().filter(|under| under.rubrics.contains(&pairwise()));
        let theirs = theirs.count() as u32;
        paired += u32::from(theirs > 0 && open.pairs.len() > 2);
        trained += u32::from(theirs > 0 && open.checkpoint.is_some());
        sim.say(rolled_back(&[pairwise()], demo()));
        sim.calm();
        check(&sim);
        nothing_taken_back_is_trained_on(&sim.disk, &sim.truth);
        assert_eq!(came_to(&sim), wanted, "{begun} {more}");
        assert_eq!(sim.truth.policy, calm.truth.policy);
        let counted: u32 =
            sim.truth.iterations.values().map(|view| view.taken_back_of(&pairwise())).sum();
        assert!(counted >= theirs, "{counted} {theirs}");
        void += counted;
    }
    let seen = (paired, trained, void);
    assert!(paired > 10 && trained > 3 && void > 50, "too little happened: {seen:?}");
}

/// Two new rubrics leave together: the panel before them comes back whole.
#[test]
fn two_new_rubrics_are_rolled_back_together() {
    let mut world = world(demo());
    world.seed_rows = 0;
    let mut calm = Sim::new(&world);
    calm.calm();
    let two = others()[2].clone();
    let new = [pairwise(), foreign()];
    let event = Event::RubricActivated { panel: two, when: When::Immediately, trial: None };
    let mut sim = Sim::new(&world);
    sim.begin(1);
    sim.say(event);
    sim.begin(5);
    let (_, open) = sim.truth.open().unwrap();
    for rubric in &new {
        let theirs = |under: &&PromptJudgments| under.rubrics.contains(rubric);
        assert!(
            open.prompt_judgments.values().any(|u| theirs(&&**u)),
            "both judged: {:?}",
            open.prompt_judgments
        );
    }
    sim.say(rolled_back(&new, demo()));
    sim.say(rolled_back(&new[1..], demo()));
    sim.calm();
    check(&sim);
    assert_eq!(came_to(&sim), came_to(&calm));
    assert_eq!(sim.truth.panel, Some(Panel::one(demo())));
    assert!(new.iter().all(|rubric| sim.truth.rubrics.retired.contains_key(rubric)));
    // Retired again after somebody wanted it all the same, in the same iteration.
    let mut sim = Sim::new(&world);
    sim.begin(2);
    for _ in 0..3 {
        sim.say(activated(pairwise(), When::Immediately, None));
        sim.begin(2);
        sim.say(rolled_back(&new[..1], demo()));
        sim.begin(1);
    }
    assert!(sim.truth.open().is_some_and(|(_, open)| open.rubrics_rolled_back == 3));
    sim.calm();
    check(&sim);
    assert_eq!(came_to(&sim), came_to(&calm));
}

/// Somebody swaps and rolls back at any moment of a storm, trials fail at others, the power fails
/// in between: what was rolled back in an iteration is in none of the pairs it trains on.
#[test]
fn rollbacks_in_a_storm() {
    let seen: Mutex<Tally> = Mutex::default();
    let all = with_seeds(150, |seed| {
        let mut dice = Dice(seed);
        let mut world = world(demo());
        world.config.sampling.batch_prompts = dice.from(1, 4);
        world.config.judge.probes = dice.pick(&[0, 0, 2]);
        world.temper.skipped_steps = dice.pick(&[0, 60]);
        let mood = Mood { swap: dice.pick(&[3, 10, 30]), ..Mood::of(&mut dice) };
        let mut sim = Sim::new(&world);
        sim.storm(&mut dice, mood);
        check(&sim);
        let mut seen = seen.lock().unwrap();
        seen.add(&sim.tally);
        let pairs = nothing_taken_back_is_trained_on(&sim.disk, &sim.truth);
        seen.count("pairs trained on", u64::from(pairs));
        for record in records(&sim.disk) {
            let judged = matches!(record.event, Event::PairsSealed { .. });
            let again = record.key.as_ref().is_some_and(|key| key.rollback() > 0);
            seen.count("sealed after a rollback", u64::from(judged && again));
        }
        let mut view = RunView::default();
        for record in records(&sim.disk) {
            let pair = matches!(record.event, Event::PairFormed { .. });
            seen.count("pairs that came too late", u64::from(pair && !view.accepts(&record)));
            seen.count("records that came too late", u64::from(!view.accepts(&record)));
            view.apply(&record);
        }
    });
    let tally = seen.into_inner().unwrap();
    for (what, least) in [
        ("rolled back by hand", 200),
        ("pairs trained on", 300),
        ("sealed after a rollback", 50),
        ("pairs that came too late", 5),
        ("records that came too late", 100),
        ("cut after", 20),
    ] {
        assert!(
            !all || tally.0.get(what).is_some_and(|n| *n >= least),
            "too little {what}: {tally:?}"
        );
    }
}

/// Case A6: what a new rubric asks can never be done. It makes way before its stage is halted, no
/// prompt is lost, and the run comes to what it comes to without it, also when it is asked first to
/// measure what was trained without it.
#[test]
fn a_rubric_that_cannot_be_asked_makes_way() {
    let world = world(demo());
    let absent = RubricId("ab".repeat(32));
    for (rounds, probes, trial) in [(3, 0, TRIAL), (8, 0, TRIAL), (8, 2, TRIAL), (8, 0, None)] {
        let mut world = world.clone();
        world.config.judge.probes = probes;
        let mut calm = Sim::new(&world);
        calm.calm();
        let mut sim = Sim::new(&world);
        sim.faulty = true;
        sim.begin(rounds);
        sim.say(installed(absent.clone()));
        sim.say(activated(absent.clone(), When::Immediately, trial));
        sim.storm(&mut Dice(1), Mood::CALM);
        check(&sim);
        let failures = records(&sim.disk);
        let failures: Vec<&Recorded> =
            failures.iter().filter(|record| record.event.kind() == "task_failed").collect();
        assert!(failures.len() <= 4, "fewer than halt a stage: {failures:#?}");
        let reason = &sim.truth.rubrics.retired[&absent];
        assert!(reason.contains("could not ask") && reason.contains("cannot be used"), "{reason}");
        assert_eq!(came_to(&sim), came_to(&calm));
        assert!(sim.truth.iterations.values().all(|view| view.split.is_empty()));
    }
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
        assert!(sim.truth.rubrics.retired.is_empty());
    });
}
