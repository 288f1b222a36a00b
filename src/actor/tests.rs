//! The shell as a supervisor, around a stage that does what a test says.

use super::lease::Lease;
use super::shell::{Shell, ShellState, Wake};
use super::worker::FAILURES_IN_A_ROW_MAX;
use crate::config::Config;
use crate::domain::{BlobHash, Event, PolicyRef, Prompt, PromptOrigin, TaskKey};
use crate::lm::cancel::Cancel;
use crate::lm::policy::LanguageModel;
use crate::log::{Batch, MemoryLog};
use crate::stage::workshop::{Segment, SegmentRequest, Workshop};
use crate::stage::{ATTEMPTS_MAX, Ample, Desk, Headroom, NoGauge, Stage, StageError, Weight};
use crate::view::RunView;
use actix::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Prompts after which the toy has nothing left to do.
const WANTED: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Work,
    Fail,
    Panic,
    Freeze,
}

/// What the toy does in its n-th call, from 0.
struct Script {
    act: Box<dyn Fn(u32) -> Act + Send + Sync>,
    calls: AtomicU32,
    thawed: AtomicBool,
}

/// Admits a prompt per task.
struct Toy(Arc<Script>);

impl Stage for Toy {
    type Task = usize;
    const NAME: &'static str = "toy";
    const WEIGHT: Weight = Weight::Heavy;

    fn next(&self, view: &RunView) -> Option<(TaskKey, usize)> {
        let n = view.prompts.len();
        let given_up = view.failures.values().filter(|n| **n >= ATTEMPTS_MAX).count();
        (n < WANTED).then(|| (TaskKey(format!("toy {n} after {given_up}")), n))
    }

    fn run(&mut self, task: usize, _: &RunView, _: &Desk) -> Result<Vec<Event>, StageError> {
        match (self.0.act)(self.0.calls.fetch_add(1, Ordering::SeqCst)) {
            Act::Work => {}
            Act::Fail => return Err(StageError::Missing("told to fail".to_owned())),
            Act::Panic => panic!("told to panic"),
            // Looks at no flag.
            Act::Freeze => {
                while !self.0.thawed.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        let prompt = Prompt::user(format!("prompt {task}"), PromptOrigin::Given);
        Ok(vec![Event::PromptAdmitted { prompt }])
    }
}

struct NoWorkshop;

impl NoWorkshop {
    fn nothing<T>() -> Result<T, StageError> {
        Err(StageError::Missing("there is no workshop here".to_owned()))
    }
}

impl Workshop for NoWorkshop {
    fn policy(&self, _: &PolicyRef) -> Result<Arc<dyn LanguageModel>, StageError> {
        NoWorkshop::nothing()
    }

    fn logps(
        &self,
        _: &PolicyRef,
        _: &[(Vec<u32>, Vec<u32>)],
        _: &Cancel,
    ) -> Result<Vec<f64>, StageError> {
        NoWorkshop::nothing()
    }

    fn train(&self, _: SegmentRequest<'_>) -> Result<Segment, StageError> {
        NoWorkshop::nothing()
    }

    fn blob(&self, _: &BlobHash) -> Result<Vec<u8>, StageError> {
        NoWorkshop::nothing()
    }
}

fn desk() -> Desk {
    let mut config = Config::default();
    config.supervision.frozen_after_seconds = 1;
    Desk {
        config: Arc::new(config),
        log: Arc::new(MemoryLog::default()),
        workshop: Arc::new(NoWorkshop),
        rubrics: Arc::default(),
        oracle: None,
        cancel: Cancel::default(),
        gauge: Arc::new(NoGauge),
        headroom: Arc::new(Ample),
    }
}

fn script(act: impl Fn(u32) -> Act + Send + Sync + 'static) -> Arc<Script> {
    let (calls, thawed) = (AtomicU32::new(0), AtomicBool::new(false));
    Arc::new(Script { act: Box::new(act), calls, thawed })
}

/// Lets a shell work until `enough`, waking it now and then; what it says of itself then. `each`
/// is called at every look.
fn supervise(
    script: &Arc<Script>,
    desk: &Desk,
    enough: impl Fn(&ShellState) -> bool,
    mut each: impl FnMut(&ShellState),
) -> ShellState {
    let (made, desk) = (script.clone(), desk.clone());
    let system = System::new();
    let state = system.block_on(async {
        let shell = Shell::new(move || Toy(made.clone()), desk, Lease::default());
        let state = shell.state();
        let address = shell.start();
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            actix::clock::sleep(Duration::from_millis(20)).await;
            let now = state.lock().unwrap().clone();
            each(&now);
            if enough(&now) {
                return now;
            }
            assert!(Instant::now() < until, "{now:?}");
            let _ = address.try_send(Wake);
        }
    });
    script.thawed.store(true, Ordering::SeqCst);
    state
}

fn kinds(desk: &Desk, kind: &str) -> usize {
    desk.log
        .read(crate::domain::Offset(0), 1000)
        .unwrap()
        .iter()
        .filter(|r| r.event.kind() == kind)
        .count()
}

fn all_recorded(state: &ShellState) -> bool {
    state.recorded == WANTED as u64
}

#[test]
fn a_panicking_task_is_tried_again_by_a_new_stage() {
    let desk = desk();
    let script = script(|call| if call < 2 { Act::Panic } else { Act::Work });
    let state = supervise(&script, &desk, all_recorded, |_| {});
    assert_eq!((state.failed, state.restarts, state.halted), (2, 2, None));
    assert_eq!((kinds(&desk, "task_failed"), kinds(&desk, "prompt_admitted")), (2, WANTED));
}

/// Has too little memory for so many looks.
struct Scarce(AtomicU32);

impl Headroom for Scarce {
    fn lacking(&self) -> Option<String> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        left.ok().map(|_| "others have it".to_owned())
    }
}

#[test]
fn a_heavy_task_waits_for_memory_and_that_is_no_failure() {
    let scarce = Arc::new(Scarce(AtomicU32::new(2)));
    let desk = Desk { headroom: scarce, ..desk() };
    let (script, mut waited) = (script(|_| Act::Work), None);
    let state = supervise(&script, &desk, all_recorded, |now| {
        if now.waiting.is_some() {
            assert_eq!(now.recorded, 0);
            waited.clone_from(&now.waiting);
        }
    });
    assert_eq!(waited.as_deref(), Some("others have it"));
    assert_eq!((state.failed, state.restarts, state.waiting), (0, 0, None));
    assert_eq!((kinds(&desk, "task_failed"), kinds(&desk, "prompt_admitted")), (0, WANTED));
}

#[test]
fn a_frozen_task_is_given_up_and_loses_the_device() {
    let desk = desk();
    let script = script(|call| if call == 0 { Act::Freeze } else { Act::Work });
    let began = Instant::now();
    let state = supervise(&script, &desk, all_recorded, |_| {});
    assert!(began.elapsed() >= Duration::from_secs(1), "given up too early");
    assert_eq!((state.failed, state.restarts, state.halted), (1, 1, None));
    assert_eq!(kinds(&desk, "prompt_admitted"), WANTED);
}

#[test]
fn a_stage_that_fails_again_and_again_is_halted_until_the_host_says_go_on() {
    let desk = desk();
    let script = script(|call| if call < FAILURES_IN_A_ROW_MAX { Act::Fail } else { Act::Work });
    let state = supervise(&script, &desk, |state| state.halted.is_some(), |_| {});
    assert_eq!((state.failed, state.recorded), (u64::from(FAILURES_IN_A_ROW_MAX), 0));
    assert_eq!((kinds(&desk, "task_failed"), kinds(&desk, "stage_halted")), (5, 1));
    // Another process finds the failures in the log, not the halt: starting again is a go.
    let mut resumed = false;
    let script =
        self::script(|call| if call < FAILURES_IN_A_ROW_MAX { Act::Fail } else { Act::Work });
    let again = self::desk();
    let state = supervise(&script, &again, all_recorded, |state| {
        if state.halted.is_some() && !resumed {
            resumed = true;
            let events = vec![Event::ResumeRequested];
            again.log.append(Batch { events, ..Batch::default() }).unwrap();
        }
    });
    assert!(resumed);
    assert_eq!((state.failed, state.halted), (5, None));
}
