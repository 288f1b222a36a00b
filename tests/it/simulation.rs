//! The whole loop under a scheduler that a seed drives: wake-ups are lost, doubled and late, views
//! lag behind the log (down to half of a batch), stages work side by side, tasks fail and are
//! tried again, hosts stop and pause, and the power fails before and after any append. However
//! that went, the run ends in the state of the one that nothing happened to.
//!
//! `GRADUS_TEST_SEED=n` replays one seed; `GRADUS_TEST_SCALE=n` tries n times as many.

mod broken;
mod checks;
mod fake;
mod flaky;
mod role;
mod scheduler;
mod swaps;
mod world;

use crate::dice::{Dice, with_seeds};
use checks::{keys_are_taken_once, records, the_story_holds};
use fake::{Temper, Verdict};
use gradus::config::{JudgeSource, OnFailure, OnNoSignal, ReadoutMode};
use gradus::domain::event::{IterationKind, IterationOutcome};
use gradus::domain::{Event, Iteration, SkipReason, TaskKey, TextRef};
use gradus::log::{Batch, Digest, EVENT_BYTES_MAX, Log, MemoryLog, state_digest};
use gradus::report::{Report, iterations_table};
use gradus::stage::trainer::Trainer;
use gradus::stage::{ATTEMPTS_MAX, Stage};
use gradus::view::{IterationView, RunView};
use scheduler::{Mood, Sim, Tally};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use world::World;

/// Schedules whose end is compared with the calm run's.
const SEEDS: u64 = 200;
/// Schedules of the other kinds.
const FEWER_SEEDS: u64 = 80;

fn digest(sim: &Sim<'_>) -> Digest {
    state_digest(sim.disk.log.as_ref()).unwrap()
}

fn check(sim: &Sim<'_>) {
    keys_are_taken_once(&sim.disk);
    the_story_holds(&sim.disk);
}

fn outcome_name(outcome: &IterationOutcome) -> &'static str {
    match outcome {
        IterationOutcome::Promoted => "promoted",
        IterationOutcome::Rejected { .. } => "rejected",
        IterationOutcome::NoSignal { .. } => "no signal",
        IterationOutcome::JudgeCompromised { .. } => "judge compromised",
        IterationOutcome::Failed { .. } => "failed",
        other => panic!("unknown: {other:?}"),
    }
}

/// The outcomes of all iterations.
fn outcomes(sim: &Sim<'_>) -> Vec<&'static str> {
    let all = sim.truth.iterations.values();
    all.map(|view| outcome_name(view.outcome.as_ref().expect("every iteration is over"))).collect()
}

#[test]
fn storms_end_where_the_calm_run_ends() {
    let seen: Mutex<(Tally, BTreeMap<&str, u32>)> = Mutex::default();
    let all = with_seeds(SEEDS, |seed| {
        let world = World::of(seed);
        let mut calm = Sim::new(&world);
        calm.calm();
        check(&calm);
        assert!(calm.is_over());
        let mut dice = Dice(seed);
        let mood = Mood::of(&mut dice);
        let mut rough = Sim::new(&world);
        rough.storm(&mut dice, mood);
        check(&rough);
        assert_eq!(outcomes(&rough), outcomes(&calm));
        assert_eq!(digest(&rough), digest(&calm), "{mood:?}");
        let mut seen = seen.lock().unwrap();
        seen.0.add(&rough.tally);
        for outcome in outcomes(&rough) {
            *seen.1.entry(outcome).or_default() += 1;
        }
    });
    let (tally, ended) = seen.into_inner().unwrap();
    if all {
        for what in [
            "wake lost",
            "wake doubled",
            "wake late",
            "cut before",
            "cut after",
            "cut while idle",
            "stop",
            "pause",
            "task failed",
            "done already",
            "refused",
            "machine lost",
        ] {
            assert!(tally.0.get(what).is_some_and(|n| *n >= 20), "too little {what}: {tally:?}");
        }
        for (outcome, least) in
            [("promoted", 20), ("rejected", 20), ("no signal", 20), ("failed", 10)]
        {
            assert!(
                ended.get(outcome).is_some_and(|n| *n >= least),
                "too few {outcome}: {ended:?}"
            );
        }
    }
}

/// The iterations of which a task about the whole iteration had failed too often when they ended,
/// and those that ended `Failed`.
fn given_up(sim: &Sim<'_>) -> (BTreeSet<Iteration>, BTreeSet<Iteration>) {
    let (mut exhausted, mut failed, mut sealed) =
        <(BTreeSet<_>, BTreeSet<_>, BTreeSet<_>)>::default();
    let mut probed = BTreeMap::<Iteration, usize>::new();
    let mut failures = BTreeMap::new();
    for record in records(&sim.disk) {
        match record.event {
            Event::PromptsSealed { iteration, .. } => drop(sealed.insert(iteration)),
            Event::JudgeProbed { iteration, round: 0, .. } => {
                *probed.entry(iteration).or_default() += 1;
            }
            Event::TaskFailed { task, stage, .. } => {
                let iteration = sim.doomed.get(&task).copied().flatten();
                // The sampler writes prompts until they are sealed, and answers them then.
                let writes = iteration.is_some_and(|i| !sealed.contains(&i));
                // The judge is probed under every rubric before it judges.
                let model = sim.world.config.judge.source == JudgeSource::Model;
                let rubrics = sim.world.panel.members().len();
                let probes = model && iteration.is_some_and(|i| probed.get(&i) < Some(&rubrics));
                let whole = match stage.as_str() {
                    "sampler" => writes,
                    "judge" => probes,
                    "pair_store" => false,
                    _ => stage == "trainer" || stage == "evaluator",
                };
                if whole {
                    *failures.entry(task).or_insert(0u32) += 1;
                }
            }
            Event::IterationFinished { iteration, outcome } => {
                let ours = |key| sim.doomed.get(key) == Some(&Some(iteration));
                if failures.iter().any(|(key, n)| ours(key) && *n >= ATTEMPTS_MAX) {
                    exhausted.insert(iteration);
                }
                if outcome_name(&outcome) == "failed" {
                    failed.insert(iteration);
                }
            }
            _ => {}
        }
    }
    (exhausted, failed)
}

/// Tasks that fail whenever they are tried, also several of one iteration side by side.
#[test]
fn an_iteration_fails_for_its_own_tasks_alone() {
    let seen: Mutex<Tally> = Mutex::default();
    let all = with_seeds(FEWER_SEEDS, |seed| {
        let mut world = World::of(seed);
        world.config.iterations = 5;
        world.temper.skipped_steps = 0;
        let mut dice = Dice(seed);
        let mood = Mood { doomed: dice.pick(&[2, 5, 15]), ..Mood::of(&mut dice) };
        let mut sim = Sim::new(&world);
        sim.storm(&mut dice, mood);
        check(&sim);
        assert!(sim.is_over(), "the run goes on");
        let (exhausted, failed) = given_up(&sim);
        assert_eq!(failed, exhausted, "{mood:?}: {:?}", outcomes(&sim));
        let mut seen = seen.lock().unwrap();
        for outcome in outcomes(&sim) {
            *seen.0.entry(outcome).or_default() += 1;
        }
        for record in records(&sim.disk) {
            if let kind @ ("prompts_split" | "prompt_quarantined") = record.event.kind() {
                *seen.0.entry(kind).or_default() += 1;
            }
        }
    });
    let ended = seen.into_inner().unwrap();
    for what in ["failed", "prompts_split", "prompt_quarantined"] {
        assert!(!all || ended.0.get(what).is_some_and(|n| *n >= 20), "{what}: {ended:?}");
    }
}

/// The key of the first record that `is`.
fn key_of(sim: &Sim<'_>, is: impl Fn(&Event) -> bool) -> TaskKey {
    records(&sim.disk).into_iter().find(|r| is(&r.event)).unwrap().key.unwrap()
}

#[test]
fn a_prompt_that_fails_alone_is_left_out_and_the_others_are_not() {
    let world = World::plain();
    let mut calm = Sim::new(&world);
    calm.calm();
    let second = |event: &Event| match event {
        Event::CompletionsSampled { iteration, prompt, .. } => {
            (*iteration == Iteration(2)).then(|| prompt.clone())
        }
        _ => None,
    };
    let prompt = records(&calm.disk).iter().find_map(|r| second(&r.event)).unwrap();
    let answers = |event: &Event| second(event).as_ref() == Some(&prompt);
    // Its chunk fails: each prompt of it is tried alone, and all are answered.
    let chunk = key_of(&calm, answers);
    let mut split = Sim::new(&world);
    split.doomed.insert(chunk.clone(), Some(Iteration(2)));
    split.storm(&mut Dice(1), Mood::CALM);
    check(&split);
    assert_eq!(outcomes(&split), ["promoted"; 3]);
    let kinds =
        |sim: &Sim<'_>, kind| records(&sim.disk).iter().filter(|r| r.event.kind() == kind).count();
    assert_eq!((kinds(&split, "prompts_split"), kinds(&split, "prompt_quarantined")), (1, 0));
    // It fails alone, too.
    let alone = key_of(&split, answers);
    assert_ne!(alone, chunk);
    let mut sim = Sim::new(&world);
    sim.doomed.extend([(chunk, Some(Iteration(2))), (alone, Some(Iteration(2)))]);
    sim.storm(&mut Dice(1), Mood::CALM);
    check(&sim);
    assert_eq!(outcomes(&sim), ["promoted"; 3]);
    assert_eq!((kinds(&sim, "prompts_split"), kinds(&sim, "prompt_quarantined")), (1, 1));
    let view = &sim.truth.iterations[&Iteration(2)];
    assert_eq!(view.skipped.get(&prompt), Some(&SkipReason::Quarantined));
    assert!(!view.pairs.contains_key(&prompt) && !view.sampled.contains_key(&prompt));
    let others = view.prompts.iter().flatten().filter(|p| **p != prompt);
    assert!(others.into_iter().all(|p| view.judged.contains_key(p)));
}

/// What a host adds changes the run, so there is no calm one to compare with; it must be a run.
#[test]
fn a_host_may_add_prompts_at_any_time() {
    let seen: Mutex<Tally> = Mutex::default();
    let all = with_seeds(FEWER_SEEDS, |seed| {
        let world = World::of(seed);
        let mut dice = Dice(seed);
        let mood = Mood { submit: dice.pick(&[5, 50]), ..Mood::of(&mut dice) };
        let mut sim = Sim::new(&world);
        sim.storm(&mut dice, mood);
        check(&sim);
        seen.lock().unwrap().add(&sim.tally);
    });
    let tally = seen.into_inner().unwrap();
    let submitted = tally.0.get("prompt submitted").copied().unwrap_or_default();
    assert!(!all || submitted >= 500, "{tally:?}");
}

/// A schedule is its seed: the same records in the same order.
#[test]
fn a_seed_is_one_schedule() {
    let world = World::of(3);
    let run = |seed| {
        let mut dice = Dice(seed);
        let mood = Mood::of(&mut dice);
        let mut sim = Sim::new(&world);
        sim.storm(&mut dice, mood);
        records(&sim.disk)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_task_that_fails_three_times_ends_its_iteration_and_not_the_run() {
    let world = World::plain();
    let mut calm = Sim::new(&world);
    calm.calm();
    check(&calm);
    assert_eq!(outcomes(&calm), ["promoted"; 3]);
    let saved = |event: &Event| match event {
        Event::CheckpointSaved { iteration, .. } => *iteration == Iteration(2),
        _ => false,
    };
    // The first segment of the second iteration: the other run's task has the same key.
    let doomed = key_of(&calm, saved);
    let mut sim = Sim::new(&world);
    sim.doomed.insert(doomed.clone(), Some(Iteration(2)));
    sim.storm(&mut Dice(1), Mood::CALM);
    check(&sim);
    assert_eq!(outcomes(&sim), ["promoted", "failed", "promoted"]);
    let attempts = records(&sim.disk).into_iter().filter_map(|record| match record.event {
        Event::TaskFailed { stage, task, attempt, .. } => {
            assert_eq!((stage.as_str(), &task), ("trainer", &doomed));
            Some(attempt)
        }
        _ => None,
    });
    assert_eq!(attempts.collect::<Vec<_>>(), [1, 2, 3]);
    let views: Vec<_> = sim.truth.iterations.values().collect();
    assert!(views[1].steps.is_empty());
    assert_eq!(views[2].policy, views[1].policy, "the policy from before acts on");
    assert_ne!(sim.truth.policy, Some(views[1].policy.clone()));
}

/// The supervised iteration cannot be done: it is what is tried again, each time the host says go on,
/// and no preference iteration begins on a base that was never taught.
#[test]
fn after_a_failed_iteration_the_run_waits_and_supervision_is_not_passed_over() {
    let ended = |on_failure| {
        let mut world = World::plain();
        world.config.on_failure = on_failure;
        world.temper.skipped_steps = 100;
        world
    };
    let (stops, goes_on) = (ended(OnFailure::Stop), ended(OnFailure::Continue));
    let mut stopped = Sim::new(&stops);
    for iteration in 1..=3 {
        stopped.calm();
        assert!(stopped.truth.paused, "it waits after iteration {iteration}");
        assert_eq!(stopped.truth.finished(), iteration);
        stopped.restart();
        stopped.calm();
        assert_eq!(stopped.truth.finished(), iteration, "whoever starts the process");
        stopped.say(Event::ResumeRequested);
    }
    stopped.calm();
    let mut not = Sim::new(&goes_on);
    not.calm();
    assert!(!not.truth.paused);
    for sim in [&stopped, &not] {
        check(sim);
        assert_eq!(outcomes(sim), ["failed"; 3]);
        assert!(sim.truth.iterations.values().all(|view| view.kind == IterationKind::Sft));
        assert_eq!(sim.truth.policy, sim.truth.base);
    }
    assert_eq!(digest(&stopped), digest(&not));
}

/// Whether the host is asked after a failure changes when things happen, and nothing else.
#[test]
fn waiting_for_the_host_after_failures_changes_nothing() {
    let seen: Mutex<u32> = Mutex::default();
    let all = with_seeds(FEWER_SEEDS, |seed| {
        let mut world = World::of(seed);
        world.temper.skipped_steps = [60, 95][(seed % 2) as usize];
        let mut calm = Sim::new(&world);
        calm.calm();
        let mut stops = world.clone();
        stops.config.on_failure = OnFailure::Stop;
        let mut dice = Dice(seed);
        let mood = Mood { pause: 0, ..Mood::of(&mut dice) };
        let mut rough = Sim::new(&stops);
        rough.storm(&mut dice, mood);
        check(&rough);
        assert_eq!(digest(&rough), digest(&calm), "{mood:?}");
        let kinds = |kind| records(&rough.disk).iter().filter(|r| r.event.kind() == kind).count();
        let failed = outcomes(&rough).iter().filter(|outcome| **outcome == "failed").count();
        assert_eq!(kinds("pause_requested"), failed, "a pause for each failure, and no other");
        *seen.lock().unwrap() += failed as u32;
    });
    let failed = seen.into_inner().unwrap();
    assert!(!all || failed >= 20, "{failed} failures");
}

#[test]
fn too_few_pairs_are_not_trained_on() {
    let mut alike = World::plain();
    alike.temper.answers = 1; // every candidate the same
    alike.temper.cut_off = 0;
    let mut greedy = World::plain();
    greedy.config.pairs.min_pairs = 7; // of six prompts
    for (world, why) in [(alike, "6 identical"), (greedy, "pairs.min_pairs = 7")] {
        let mut sim = Sim::new(&world);
        sim.storm(&mut Dice(2), Mood::CALM);
        check(&sim);
        assert_eq!(outcomes(&sim), ["promoted", "no signal", "no signal"]);
        assert_eq!(sim.truth.policy, sim.truth.first, "M1 acts on");
        for view in sim.truth.iterations.values().skip(1) {
            assert!(view.checkpoint.is_none() && view.sealed.is_none());
            match &view.outcome {
                Some(IterationOutcome::NoSignal { reason }) => {
                    assert!(reason.contains(why), "{reason}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// All ties, always the best score, nothing that can be read, and words that buy a score.
#[test]
fn a_judge_that_is_worth_nothing_teaches_nothing() {
    let judged = |verdict, unreadable| {
        let mut world = World::plain();
        world.config.judge.readout = ReadoutMode::Parsed;
        world.config.judge.probes = 6;
        world.temper = Temper { verdict, unreadable, cut_off: 0, ..world.temper };
        world
    };
    for (world, outcome, why) in [
        (judged(Verdict::Always(3), 0), "no signal", " tie)"),
        (judged(Verdict::Always(5), 0), "no signal", " tie)"),
        (judged(Verdict::Fair, 100), "no signal", "GRADUS0301"),
        (judged(Verdict::Fooled, 0), "judge compromised", "GRADUS0305"),
    ] {
        for on_no_signal in [OnNoSignal::Continue, OnNoSignal::Pause] {
            let mut world = world.clone();
            world.config.pairs.on_no_signal = on_no_signal;
            let mut sim = Sim::new(&world);
            sim.calm();
            if on_no_signal == OnNoSignal::Pause {
                assert!(sim.truth.paused && sim.truth.finished() == 2, "it waits after the first");
                sim.say(Event::ResumeRequested);
                sim.calm();
            }
            check(&sim);
            assert_eq!(outcomes(&sim), ["promoted", outcome, outcome]);
            assert_eq!(sim.truth.policy, sim.truth.first, "M1 acts on");
            for view in sim.truth.iterations.values().skip(1) {
                assert!(view.checkpoint.is_none() && view.sealed.is_none());
                let reason = format!("{:?}", view.outcome);
                assert!(reason.contains(why), "{reason}");
            }
        }
    }
    let mut trusting = judged(Verdict::Fooled, 0);
    trusting.config.judge.probes = 0;
    let mut sim = Sim::new(&trusting);
    sim.calm();
    assert_eq!(outcomes(&sim), ["promoted"; 3], "without probes nothing would be noticed");
}

#[test]
fn a_pause_lets_tasks_finish_and_holds_the_rest() {
    let world = World::plain();
    let mut calm = Sim::new(&world);
    calm.calm();
    let mut paused = 0;
    loop {
        let mut sim = Sim::new(&world);
        sim.begin(paused);
        let in_hand = sim.in_hand();
        if in_hand == 0 {
            break; // the run is over before the pause
        }
        paused += 1;
        sim.say(Event::PauseRequested);
        let batches = sim.disk.taken.lock().unwrap().len();
        sim.calm();
        let finished = sim.disk.taken.lock().unwrap().len() - batches;
        assert_eq!(finished, in_hand, "what was in hand is recorded, nothing else begins");
        sim.restart();
        sim.calm();
        assert!(sim.truth.paused);
        let now = sim.disk.taken.lock().unwrap().len();
        assert_eq!(now, batches + finished, "the pause outlives the process");
        sim.say(Event::ResumeRequested);
        sim.calm();
        check(&sim);
        assert_eq!(digest(&sim), digest(&calm));
    }
    assert!(paused >= 10, "pauses at {paused} places");
}

/// A machine with less memory comes to the same state, and what it lacked is on record.
#[test]
fn a_device_short_of_memory_is_told_of_and_changes_nothing() {
    let calm = |short_steps| {
        let mut world = World::plain();
        world.temper = Temper { short_steps, skipped_steps: 0, ..world.temper };
        let mut sim = Sim::new(&world);
        sim.calm();
        check(&sim);
        let short = |event: &Event| matches!(event, Event::MemoryShort { .. });
        let told = records(&sim.disk).iter().filter(|r| short(&r.event)).count();
        (digest(&sim), told, sim.truth.clone())
    };
    let (ample, none, _) = calm(0);
    let (scarce, told, view) = calm(100);
    assert_eq!((ample, none), (scarce, 0));
    // Every step of every iteration, twice.
    let steps = |open: &IterationView| open.steps.len();
    assert_eq!(told, 2 * view.iterations.values().map(|open| steps(open)).sum::<usize>());
    let report = Report::of(&view);
    let in_report: u32 = report.iterations.iter().map(|row| row.memory_short).sum();
    assert_eq!(in_report as usize, told);
    assert!(iterations_table(&report).contains("memory was short"), "it is said");
}

const KEPT_VIEWS: [&str; 2] =
    [include_str!("../fixtures/log/view-1.json"), include_str!("../fixtures/log/view-2.json")];

fn plain_view() -> RunView {
    let world = World::plain();
    let mut sim = Sim::new(&world);
    sim.calm();
    sim.truth
}

/// Whether `now` has all that `then` has; a later gradus may know more.
fn holds(now: &Value, then: &Value) -> bool {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            then.iter().all(|(name, value)| now.get(name).is_some_and(|found| holds(found, value)))
        }
        (Value::Array(now), Value::Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(a, b)| holds(a, b))
        }
        // A place became a list of places.
        (Value::Array(now), Value::Null) => now.is_empty(),
        (Value::Array(now), Value::Number(_)) => now.as_slice() == [then.clone()],
        _ => now == then,
    }
}

/// What a compacted log keeps instead of the records is a view: one that was written once is read
/// for ever, with all that was in it.
#[test]
fn a_view_that_was_kept_is_read_as_it_was() {
    for kept in KEPT_VIEWS {
        let then: Value = serde_json::from_str(kept).unwrap();
        let view: RunView = serde_json::from_value(then.clone()).unwrap();
        assert_eq!(view.finished(), 3);
        assert!(holds(&serde_json::to_value(&view).unwrap(), &then));
    }
}

/// Writes the fixture, once for each released shape of the view.
#[test]
#[ignore = "writes tests/fixtures/log/view-2.json"]
fn a_view_to_be_kept() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/log/view-2.json");
    std::fs::write(path, serde_json::to_string(&plain_view()).unwrap() + "\n").unwrap();
}

/// Case G5: a pool that no event could hold. Sealed sets and reference scores come in parts, each of
/// which the log takes, and a view that has folded some of them waits for the rest.
#[test]
fn a_pool_is_sealed_in_parts() {
    let mut world = World::plain();
    let c = &mut world.config;
    (c.iterations, c.prompts.per_iteration, c.sampling.batch_prompts) = (1, 9000, 4500);
    (c.sampling.candidates, c.judge.probes, c.pairs.noise) = (2, 0, 0.0);
    (c.train.dpo.per_device_train_batch_size, c.train.save_steps) = (4096, 10);
    (world.given, world.seed_rows, world.temper.cut_off) = (9000, 0, 0);
    world.temper.skipped_steps = 0;
    let mut sim = Sim::new(&world);
    sim.calm();
    assert_eq!(outcomes(&sim), ["promoted"]);
    let open = &sim.truth.iterations[&Iteration(1)];
    let pairs = open.sealed.as_ref().unwrap().len();
    assert_eq!(open.prompts.as_ref().unwrap().len(), 9000);
    let all = records(&sim.disk);
    let of = |kind: &str| all.iter().filter(|r| r.event.kind() == kind).collect::<Vec<_>>();
    assert_eq!((of("prompts_sealed").len(), of("pairs_sealed").len()), (2, pairs.div_ceil(8192)));
    assert_eq!(of("reference_scored").len(), pairs.div_ceil(1024));
    let largest = all.iter().map(|r| serde_json::to_vec(&r.event).unwrap().len()).max().unwrap();
    assert!(largest < EVENT_BYTES_MAX / 2, "{largest} bytes, of {pairs} pairs");
    // Half of it is not it.
    let mut view = RunView::default();
    let mut parts = 0;
    for record in &all {
        view.apply(record);
        if record.event.kind() == "prompts_sealed" {
            parts += 1;
            assert_eq!(view.iterations[&Iteration(1)].prompts.is_some(), parts == 2);
        }
    }
}

/// A side of a pair may be a seed answer or what the judge replied: the trainer finds the text, and the
/// question that it answers.
#[test]
fn sides_of_pairs_are_read_back_wherever_they_are_recorded() {
    let mut world = World::plain();
    (world.config.judge.samples, world.config.pairs.noise) = (2, 0.0);
    world.temper.cut_off = 0;
    let mut sim = Sim::new(&world);
    sim.calm();
    let told = records(&sim.disk);
    let blob = sim.truth.seed_data[0].blob.clone();
    let of_second = |event: &Event| event.iteration() == Some(Iteration(2));
    let end = told.iter().position(|r| r.event.kind() == "reference_scored").unwrap();
    let log = Arc::new(MemoryLog::default());
    let mut which = 0;
    for record in &told[..end] {
        let mut event = record.event.clone();
        if let Event::PairFormed { pair, .. } = &mut event
            && of_second(&record.event)
        {
            let judged = |sample| TextRef::Judgment { rubric: world::demo(), candidate: 0, sample };
            match which {
                0 => pair.chosen.text = TextRef::SeedAnswer { blob: blob.clone(), row: 1 },
                1 => (pair.chosen.text, pair.rejected.text) = (judged(0), judged(1)),
                _ => {}
            }
            which += 1;
        }
        log.append(Batch { key: None, events: vec![event], cursor: None }).unwrap();
    }
    assert!(which > 2, "{which} pairs");
    let mut view = RunView::default();
    while view.follow(log.as_ref(), 512, |_| {}).unwrap() > 0 {}
    let context = world.context(&sim.disk, log.clone());
    let mut trainer = Trainer::default();
    let (_, task) = trainer.next(&view).unwrap();
    let events = trainer.run(task, &view, &context).unwrap();
    let [Event::ReferenceScored { logps, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(logps.len(), which);
    let before = told[end].event.clone();
    let Event::ReferenceScored { logps: plain, .. } = before else { panic!("{before:?}") };
    let changed: Vec<bool> = logps.iter().zip(&plain).map(|(a, b)| a.chosen != b.chosen).collect();
    assert_eq!((changed[0], changed[1], changed[2]), (true, true, false), "other texts");
    assert_eq!(logps[0].rejected, plain[0].rejected, "the side that stayed");
}
