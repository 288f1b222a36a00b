//! The whole loop under a scheduler that a seed drives: wake-ups are dropped, doubled and late,
//! views lag behind the log, stages run side by side, and the power fails before and after any
//! append. However that went, the run ends in the state of the one that nothing happened to.
//!
//! `GRADUS_SIM_SEED=n` replays one seed.

use super::fake::{FakeOracle, FakeWorkshop};
use gradus::config::Config;
use gradus::domain::event::{IterationOutcome, SeedRow};
use gradus::domain::{Event, Message, Offset, PolicyRef, Prompt, PromptId, PromptOrigin, TaskKey};
use gradus::lm::cancel::Cancel;
use gradus::log::{Appended, Batch, Log, MemoryLog, Recorded, state_digest, verify};
use gradus::rubric::{Rubric, RubricEngine, RubricRegistry, bundled};
use gradus::stage::conductor::Conductor;
use gradus::stage::evaluator::Evaluator;
use gradus::stage::judge::Judge;
use gradus::stage::pair_store::PairStore;
use gradus::stage::sampler::Sampler;
use gradus::stage::trainer::Trainer;
use gradus::stage::{ATTEMPTS_MAX, Desk, NoGauge, Stage};
use gradus::view::RunView;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// Schedules in an ordinary run of the tests.
const SEEDS: u64 = 150;
/// A schedule that is not over by then hangs.
const TICKS_MAX: u32 = 200_000;

fn config() -> Config {
    let mut config = Config::preset("demo").unwrap();
    config.prompts.per_iteration = 12;
    config.prompts.draws_per_round = 5;
    config.sampling.batch_prompts = 3;
    config.pairs.min_pairs = 2;
    config.pairs.min_gap = 0.1;
    config.judge.samples = 2;
    config.train.segment_steps = 2;
    config.train.sft.train_batch_size = 4;
    config.train.sft.num_train_epochs = 2;
    config.train.dpo.train_batch_size = 3;
    config.train.dpo.num_train_epochs = 2;
    config.evaluate.prompts = 6;
    config.evaluate.judge_prompts = 3;
    config.evaluate.gate.mode = gradus::config::GateMode::Strict;
    config
}

fn rubric() -> Rubric {
    static LOADED: OnceLock<Rubric> = OnceLock::new();
    let load = || Rubric::load(&RubricEngine::new().unwrap(), bundled::DEMO_COMPACT).unwrap();
    LOADED.get_or_init(load).clone()
}

/// A run as `Folder::create` lays it out, in memory.
fn new_run(config: Config, broken: bool) -> Desk {
    let log = Arc::new(MemoryLog::default());
    let mut workshop = FakeWorkshop::default();
    workshop.broken = broken;
    let prompt = |n: u32, origin| Prompt::user(format!("say {n} ."), origin);
    let mut events: Vec<Event> = (0..8)
        .map(|n| Event::PromptAdmitted { prompt: prompt(n, PromptOrigin::Demonstration) })
        .collect();
    events.extend(
        (100..108).map(|n| Event::PromptAdmitted { prompt: prompt(n, PromptOrigin::HeldOut) }),
    );
    let row = |n: u32| SeedRow {
        messages: vec![Message::user(format!("say {n} ."))],
        completion: format!("{n} ."),
    };
    let lines: Vec<String> = (0..10).map(|n| serde_json::to_string(&row(n)).unwrap()).collect();
    let blob = workshop.put(lines.join("\n").into_bytes());
    events.push(Event::SeedDataAdmitted { name: "ift".to_owned(), rows: 10, blob });
    let registry = RubricRegistry::default();
    registry.install(rubric());
    events.push(Event::RubricActivated { rubric: rubric().id().clone() });
    let base = PolicyRef { weights: workshop.put(b"base".to_vec()), adapter: None };
    let settings = serde_json::Value::Null;
    events.push(Event::RunStarted { seed: config.seed, base, settings });
    log.append(Batch { key: None, events, cursor: None }).unwrap();
    Desk {
        config: Arc::new(config),
        log,
        workshop: Arc::new(workshop),
        rubrics: Arc::new(registry),
        oracle: Some(Arc::new(FakeOracle)),
        cancel: Cancel::default(),
        gauge: Arc::new(NoGauge),
    }
}

/// A splitmix64 stream.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What happened to an append.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    Holds,
    FailsBefore,
    FailsAfter,
}

/// A stage with its view and the task it is at: a shell without actix.
trait Seat {
    /// Folds up to `until`, and takes a task when it has none.
    fn wake(&mut self, desk: &Desk, until: Offset);
    /// Does its task and appends; true when a task was there.
    fn finish(&mut self, desk: &Desk, power: Power) -> bool;
    /// All that a power cut takes.
    fn forget(&mut self);
}

struct Seated<S: Stage> {
    stage: S,
    view: RunView,
    task: Option<(TaskKey, S::Task, RunView)>,
}

fn seat<S: Stage>(stage: S) -> Box<dyn Seat> {
    Box::new(Seated { stage, view: RunView::default(), task: None })
}

impl<S: Stage> Seat for Seated<S> {
    fn wake(&mut self, desk: &Desk, until: Offset) {
        while self.view.next < until {
            let records = desk.log.read(self.view.next, 1).unwrap();
            self.view.apply(&records[0]);
        }
        if self.task.is_some() || self.view.paused {
            return;
        }
        if let Some((key, task)) = self.stage.next(&self.view)
            && self.view.failures.get(&key).copied().unwrap_or_default() < ATTEMPTS_MAX
        {
            self.task = Some((key, task, self.view.clone()));
        }
    }

    fn finish(&mut self, desk: &Desk, power: Power) -> bool {
        let Some((key, task, view)) = self.task.take() else { return false };
        let attempt = view.failures.get(&key).copied().unwrap_or_default() + 1;
        let batch = match self.stage.run(task, &view, desk) {
            Ok(events) => Batch { key: Some(key), events, cursor: None },
            Err(error) => {
                let (stage, reason) = (S::NAME.to_owned(), error.to_string());
                let event = Event::TaskFailed { stage, task: key, attempt, reason };
                Batch { key: None, events: vec![event], cursor: None }
            }
        };
        if power != Power::FailsBefore {
            let appended = desk.log.append(batch).unwrap();
            assert!(matches!(appended, Appended::New { .. } | Appended::Duplicate { .. }));
        }
        true
    }

    fn forget(&mut self) {
        self.view = RunView::default();
        self.task = None;
    }
}

fn seats(desk: &Desk) -> Vec<Box<dyn Seat>> {
    let config = || desk.config.clone();
    vec![
        seat(Conductor::new(config())),
        seat(Sampler::new(config())),
        seat(Judge::new(config())),
        seat(PairStore::new(config())),
        seat(Trainer::new(config())),
        seat(Evaluator::new(config())),
    ]
}

fn records(desk: &Desk) -> Vec<Recorded> {
    desk.log.read(Offset(0), usize::MAX).unwrap()
}

fn view(desk: &Desk) -> RunView {
    let mut view = RunView::default();
    records(desk).iter().for_each(|record| view.apply(record));
    view
}

/// Every stage in turn, nothing ever goes wrong.
fn quiet(desk: &Desk) {
    let mut seats = seats(desk);
    loop {
        let mut worked = false;
        for seat in &mut seats {
            seat.wake(desk, desk.log.tail());
            worked |= seat.finish(desk, Power::Holds);
        }
        if !worked {
            return;
        }
    }
}

/// One schedule. Views may stand at the end of any earlier append, as real ones do.
fn stormy(desk: &Desk, seed: u64) {
    let mut dice = Dice(seed);
    let mut seats = seats(desk);
    let mut ends = vec![desk.log.tail()];
    let wanted = desk.config.iterations;
    for _ in 0..TICKS_MAX {
        if view(desk).finished() >= wanted {
            return;
        }
        for _ in 0..16 {
            let at = dice.below(seats.len() as u64) as usize;
            let seat = &mut seats[at];
            if dice.chance(20) {
                continue; // the wake-up is lost
            }
            let back = if dice.chance(30) { dice.below(4) as usize } else { 0 };
            let until = ends[ends.len() - 1 - back.min(ends.len() - 1)];
            for _ in 0..=dice.below(2) {
                seat.wake(desk, until); // sometimes twice
            }
            let power = match dice.below(100) {
                0..=2 => Power::FailsBefore,
                3..=5 => Power::FailsAfter,
                _ => Power::Holds,
            };
            // A task may take long: others go on meanwhile.
            if dice.chance(70) && seat.finish(desk, power) {
                ends.push(desk.log.tail());
                if power != Power::Holds {
                    seats.iter_mut().for_each(|seat| seat.forget());
                }
            }
        }
    }
    panic!("seed {seed}: not over after {TICKS_MAX} ticks: {:#?}", view(desk).open());
}

/// What must hold of any run, however it went.
fn check(desk: &Desk, seed: u64) {
    let found = verify(desk.log.as_ref()).unwrap();
    assert_eq!(found.first_error, None, "seed {seed}");
    let (mut keys, mut last_key) = (BTreeSet::new(), None);
    let mut once: BTreeSet<(&'static str, u32, PromptId)> = BTreeSet::new();
    let mut steps = std::collections::BTreeMap::<u32, u32>::new();
    for record in records(desk) {
        if let Some(key) = &record.key
            && last_key.as_ref() != Some(key)
        {
            assert!(keys.insert(key.clone()), "seed {seed}: a task is recorded twice");
        }
        last_key.clone_from(&record.key);
        let kind = record.event.kind();
        match record.event {
            Event::CompletionsSampled { iteration, prompt, .. }
            | Event::JudgmentsRecorded { iteration, prompt, .. }
            | Event::PairSkipped { iteration, prompt, .. } => {
                assert!(once.insert((kind, iteration.0, prompt)), "seed {seed}: {kind} twice");
            }
            Event::PairFormed { iteration, pair } => {
                assert!(pair.score_chosen > pair.score_rejected, "seed {seed}: {pair:?}");
                assert!(once.insert((kind, iteration.0, pair.prompt)), "seed {seed}");
            }
            Event::StepTaken { iteration, step, .. } => {
                let next = steps.entry(iteration.0).or_default();
                assert_eq!(step, *next, "seed {seed}: steps of iteration {iteration}");
                *next += 1;
            }
            _ => {}
        }
    }
    let view = view(desk);
    let held_out: BTreeSet<&PromptId> = view.held_out().map(|(id, _)| id).collect();
    assert!(!once.iter().any(|(_, _, prompt)| held_out.contains(prompt)), "seed {seed}");
    for (iteration, open) in &view.iterations {
        let decided = open.pairs.len() + open.skipped.len();
        assert_eq!(decided, open.prompts.as_ref().map_or(0, Vec::len), "{iteration}, seed {seed}");
        if open.outcome == Some(IterationOutcome::Promoted) {
            assert!(open.trained(), "seed {seed}: iteration {iteration}");
        }
    }
}

#[test]
fn storms_end_where_the_quiet_run_ends() {
    let calm = new_run(config(), false);
    quiet(&calm);
    check(&calm, 0);
    let expected = state_digest(calm.log.as_ref()).unwrap();
    let known = view(&calm);
    assert_eq!(known.finished(), 3);
    assert!(known.iterations.values().skip(1).all(|i| !i.pairs.is_empty()), "pairs are made");
    assert!(known.iterations.values().skip(1).any(|i| i.judgments.1 > 0), "some are unreadable");
    let seeds = match std::env::var("GRADUS_SIM_SEED") {
        Ok(text) => {
            let seed: u64 = text.parse().expect("GRADUS_SIM_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 1..SEEDS + 1,
    };
    for seed in seeds {
        let desk = new_run(config(), false);
        stormy(&desk, seed);
        check(&desk, seed);
        let found = state_digest(desk.log.as_ref()).unwrap();
        assert_eq!(found, expected, "replay with GRADUS_SIM_SEED={seed}");
    }
}

#[test]
fn another_seed_is_another_run() {
    let digest = |seed| {
        let desk = new_run(Config { seed, ..config() }, false);
        quiet(&desk);
        state_digest(desk.log.as_ref()).unwrap().digest
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn a_task_that_keeps_failing_ends_the_iteration_and_not_the_run() {
    let desk = new_run(config(), true);
    quiet(&desk);
    let known = view(&desk);
    assert_eq!(known.finished(), 3);
    for open in known.iterations.values() {
        assert!(matches!(open.outcome, Some(IterationOutcome::Failed { .. })), "{open:#?}");
    }
    assert_eq!(known.policy, known.base, "nothing was promoted");
    let failed = records(&desk).into_iter().filter(|r| r.event.kind() == "task_failed").count();
    assert_eq!(failed, 3 * ATTEMPTS_MAX as usize);
}

#[test]
fn too_few_pairs_train_nothing() {
    let mut config = config();
    config.pairs.min_pairs = 1000;
    let desk = new_run(config, false);
    quiet(&desk);
    let known = view(&desk);
    for open in known.iterations.values().skip(1) {
        match &open.outcome {
            Some(IterationOutcome::NoSignal { reason }) => {
                assert!(reason.contains("pairs.min_pairs = 1000"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert!(open.steps.is_empty());
    }
    assert_eq!(known.policy, known.first, "M1 still acts");
}

#[test]
fn a_pause_holds_everything_until_the_host_says_go_on() {
    let desk = new_run(config(), false);
    let say = |event| {
        desk.log.append(Batch { key: None, events: vec![event], cursor: None }).unwrap();
    };
    say(Event::PauseRequested);
    quiet(&desk);
    assert!(view(&desk).iterations.is_empty());
    say(Event::ResumeRequested);
    quiet(&desk);
    assert_eq!(view(&desk).finished(), 3);
}
