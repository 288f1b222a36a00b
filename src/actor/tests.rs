//! The shell as a supervisor, around a stage that does what a test says.

use super::lease::Lease;
use super::shell::{Shell, ShellState, Wake};
use super::worker::FAILURES_IN_A_ROW_MAX;
use crate::blob::{BlobError, ReadBlobs};
use crate::domain::plan::{self, AnswersWith, MovingMean};
use crate::domain::{BlobHash, Event, Message, Offset, PolicyRef, Prompt, PromptOrigin, TaskKey};
use crate::engine::training::{SegmentRequest, TrainedSegment};
use crate::engine::{
    Capabilities, ChatModel, Engine, EngineError, Identity, ModelBackend, PolicyTokens, Scorer,
    TrainBackend,
};
use crate::lm::cancel::Cancel;
use crate::lm::error::LmError;
use crate::lm::policy::Vocabulary;
use crate::log::{Appended, Batch, Log, LogError, MemoryLog, Recorded};
use crate::stage::writer::numbered::Numbered;
use crate::stage::{
    ATTEMPTS_MAX, Ample, Duty, Headroom, Needs, NoGauge, Stage, StageContext, StageError,
};
use crate::view::RunView;
use actix::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Prompts after which the toy has nothing left to do.
const WANTED: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum ScriptedAct {
    Work,
    Fail,
    Panic,
    Freeze,
    /// The machine refuses a file handle.
    Refuse,
    /// The device is lost.
    Lose,
    /// What it gives is too large to be recorded.
    Burst,
}

/// What the toy does in its n-th call, from 0.
struct Script {
    act: Box<dyn Fn(u32) -> ScriptedAct + Send + Sync>,
    calls: AtomicU32,
    thawed: AtomicBool,
}

/// Admits a prompt per task.
struct Toy(Arc<Script>);

impl Stage for Toy {
    type Task = usize;
    const NAME: &'static str = "toy";
    const DUTY: Duty = Duty::Works;

    fn next(&self, view: &RunView) -> Option<(TaskKey, usize)> {
        let n = view.prompts.len();
        let given_up = view.failures.values().filter(|n| **n >= ATTEMPTS_MAX).count();
        (n < WANTED).then(|| (TaskKey(format!("toy {n} after {given_up}")), n))
    }

    fn needs(&self, _: &usize, _: &RunView, _: &StageContext) -> Needs {
        Needs::Device
    }

    fn run(
        &mut self,
        task: usize,
        _: &RunView,
        _: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        match (self.0.act)(self.0.calls.fetch_add(1, Ordering::SeqCst)) {
            ScriptedAct::Work => {}
            ScriptedAct::Fail => return Err(StageError::Missing("told to fail".to_owned())),
            ScriptedAct::Panic => panic!("told to panic"),
            ScriptedAct::Refuse => {
                let source = std::io::Error::from_raw_os_error(24);
                return Err(LmError::io("blobs/ab/abcd", source).into());
            }
            ScriptedAct::Lose => {
                return Err(LmError::DeviceLost("fell off the bus".to_owned()).into());
            }
            ScriptedAct::Burst => {
                let prompt = Prompt::user("x".repeat(2 << 20), PromptOrigin::Given);
                return Ok(vec![Event::PromptAdmitted { prompt }]);
            }
            // Looks at no flag.
            ScriptedAct::Freeze => {
                while !self.0.thawed.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        let prompt = Prompt::user(format!("prompt {task}"), PromptOrigin::Given);
        Ok(vec![Event::PromptAdmitted { prompt }])
    }
}

/// There is no model here.
struct NoModel;

impl NoModel {
    fn nothing<T>() -> Result<T, EngineError> {
        Err(EngineError::Missing("there is no model here".to_owned()))
    }

    fn backend() -> ModelBackend {
        let id = BlobHash(String::new());
        ModelBackend::local(Arc::new(NoModel), PolicyTokens { vocabulary: Arc::new(NoModel), id })
    }
}

impl Engine for NoModel {
    fn identity(&self) -> Identity {
        let hash = BlobHash(String::new());
        Identity { what: "nothing".to_owned(), hash, answers_with: AnswersWith::Policy }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    fn open(
        &self,
        _: &PolicyRef,
        _: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError> {
        NoModel::nothing()
    }
}

impl Scorer for NoModel {
    fn logps(
        &self,
        _: &PolicyRef,
        _: &[(Vec<u32>, Vec<u32>)],
        _: &Cancel,
    ) -> Result<Vec<f64>, EngineError> {
        NoModel::nothing()
    }
}

impl TrainBackend for NoModel {
    fn train(&self, _: SegmentRequest<'_>) -> Result<TrainedSegment, EngineError> {
        NoModel::nothing()
    }

    fn merge(&self, _: &PolicyRef) -> Result<PolicyRef, EngineError> {
        NoModel::nothing()
    }

    fn average(&self, _: &MovingMean) -> Result<PolicyRef, EngineError> {
        NoModel::nothing()
    }

    fn discard(&self, _: &[BlobHash]) {}
}

impl Vocabulary for NoModel {
    fn encode_chat(&self, _: &[Message]) -> Result<Vec<u32>, LmError> {
        Ok(Vec::new())
    }

    fn encode_text(&self, _: &str) -> Result<Vec<u32>, LmError> {
        Ok(Vec::new())
    }

    fn encode_template(&self, _: &str) -> Result<Vec<u32>, LmError> {
        Ok(Vec::new())
    }

    fn decode(&self, _: &[u32]) -> Result<String, LmError> {
        Ok(String::new())
    }

    fn turn_end(&self) -> u32 {
        0
    }

    fn stop_ids(&self) -> &[u32] {
        &[]
    }

    fn context_tokens_max(&self) -> usize {
        0
    }
}

impl ReadBlobs for NoModel {
    fn bytes(&self, hash: &BlobHash) -> Result<Vec<u8>, BlobError> {
        Err(BlobError::Damaged { path: hash.as_str().into(), found: String::new() })
    }
}

fn context() -> StageContext {
    StageContext {
        log: Arc::new(MemoryLog::default()),
        models: Arc::new(NoModel::backend()),
        blobs: Arc::new(NoModel),
        writer: Arc::new(Numbered),
        rubrics: Arc::default(),
        oracle: None,
        cancel: Cancel::default(),
        gauge: Arc::new(NoGauge),
        headroom: Arc::new(Ample),
    }
}

fn script(act: impl Fn(u32) -> ScriptedAct + Send + Sync + 'static) -> Arc<Script> {
    let (calls, thawed) = (AtomicU32::new(0), AtomicBool::new(false));
    Arc::new(Script { act: Box::new(act), calls, thawed })
}

/// Lets a shell work until `enough`, waking it now and then; what it says of itself then. `each`
/// is called at every look.
fn supervise(
    script: &Arc<Script>,
    context: &StageContext,
    enough: impl Fn(&ShellState) -> bool,
    mut each: impl FnMut(&ShellState),
) -> ShellState {
    let (made, context) = (script.clone(), context.clone());
    let system = System::new();
    let state = system.block_on(async {
        let shell =
            Shell::new(move || Toy(made.clone()), (context, Arc::default()), Lease::default(), 1);
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

fn kinds(context: &StageContext, kind: &str) -> usize {
    context.log.read(Offset(0), 1000).unwrap().iter().filter(|r| r.event.kind() == kind).count()
}

fn all_recorded(state: &ShellState) -> bool {
    state.recorded == WANTED as u64
}

#[test]
fn a_panicking_task_is_tried_again_by_a_new_stage() {
    let context = context();
    let script = script(|call| if call < 2 { ScriptedAct::Panic } else { ScriptedAct::Work });
    let state = supervise(&script, &context, all_recorded, |_| {});
    assert_eq!((state.failed, state.restarts, state.halted), (2, 2, None));
    assert_eq!((kinds(&context, "task_failed"), kinds(&context, "prompt_admitted")), (2, WANTED));
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
    let context = StageContext { headroom: scarce, ..context() };
    let (script, mut waited) = (script(|_| ScriptedAct::Work), None);
    let state = supervise(&script, &context, all_recorded, |now| {
        if now.waiting.is_some() {
            assert_eq!(now.recorded, 0);
            waited.clone_from(&now.waiting);
        }
    });
    assert_eq!(waited.as_deref(), Some("others have it"));
    assert_eq!((state.failed, state.restarts, state.waiting), (0, 0, None));
    assert_eq!((kinds(&context, "task_failed"), kinds(&context, "prompt_admitted")), (0, WANTED));
}

#[test]
fn a_frozen_task_is_given_up_and_loses_the_device() {
    let context = context();
    let script = script(|call| if call == 0 { ScriptedAct::Freeze } else { ScriptedAct::Work });
    let began = Instant::now();
    let state = supervise(&script, &context, all_recorded, |_| {});
    assert!(began.elapsed() >= Duration::from_secs(1), "given up too early");
    assert_eq!((state.failed, state.restarts, state.halted), (1, 1, None));
    assert_eq!(kinds(&context, "prompt_admitted"), WANTED);
}

#[test]
fn a_stage_that_fails_again_and_again_is_halted_until_the_host_says_go_on() {
    let context = context();
    let script =
        script(
            |call| if call < FAILURES_IN_A_ROW_MAX { ScriptedAct::Fail } else { ScriptedAct::Work },
        );
    let state = supervise(&script, &context, |state| state.halted.is_some(), |_| {});
    assert_eq!((state.failed, state.recorded), (u64::from(FAILURES_IN_A_ROW_MAX), 0));
    assert_eq!((kinds(&context, "task_failed"), kinds(&context, "stage_halted")), (5, 1));
    // Another process finds the failures in the log, not the halt: starting again is a go.
    let mut resumed = false;
    let script = self::script(|call| {
        if call < FAILURES_IN_A_ROW_MAX { ScriptedAct::Fail } else { ScriptedAct::Work }
    });
    let again = self::context();
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

/// More often than a failing task would be tried.
const REFUSALS: u32 = ATTEMPTS_MAX + 1;

#[test]
fn what_the_machine_refuses_is_waited_for_and_is_no_failure() {
    let context = context();
    let script =
        script(|call| if call < REFUSALS { ScriptedAct::Refuse } else { ScriptedAct::Work });
    let (began, mut waited) = (Instant::now(), None);
    let state = supervise(&script, &context, all_recorded, |now| {
        waited = now.waiting.clone().or(waited.take());
    });
    assert!(waited.unwrap().contains("Too many open files"));
    assert!(began.elapsed() >= Duration::from_secs(1 + 2 + 4 + 5), "less and less often");
    assert_eq!((state.failed, state.restarts, state.waiting, state.lost), (0, 0, None, None));
    assert_eq!((kinds(&context, "task_failed"), kinds(&context, "prompt_admitted")), (0, WANTED));
}

#[test]
fn what_is_lost_for_good_ends_the_stage_and_records_nothing() {
    let context = context();
    let script = script(|call| if call == 1 { ScriptedAct::Lose } else { ScriptedAct::Work });
    let state = supervise(&script, &context, |state| state.lost.is_some(), |_| {});
    assert!(state.lost.unwrap().contains("fell off the bus"));
    assert_eq!((state.failed, state.recorded), (0, 1));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(script.calls.load(Ordering::SeqCst), 2, "it is not tried again");
    assert_eq!((kinds(&context, "task_failed"), kinds(&context, "prompt_admitted")), (0, 1));
}

#[test]
fn what_is_too_large_to_be_recorded_is_a_failure_of_its_task() {
    let context = context();
    let script = script(|call| if call == 0 { ScriptedAct::Burst } else { ScriptedAct::Work });
    let state = supervise(&script, &context, all_recorded, |_| {});
    assert_eq!((state.failed, state.lost), (1, None));
    assert_eq!((kinds(&context, "task_failed"), kinds(&context, "prompt_admitted")), (1, WANTED));
}

/// A log that a disk does not let anybody read, so many times.
struct Unread(MemoryLog, AtomicU32);

impl Log for Unread {
    fn append(&self, batch: Batch) -> Result<Appended, LogError> {
        self.0.append(batch)
    }

    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        let left = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match left {
            Ok(_) => Err(LogError::Read("the disk refuses".to_owned())),
            Err(_) => self.0.read(from, max),
        }
    }

    fn tail(&self) -> Offset {
        self.0.tail()
    }

    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        self.0.find(key)
    }

    fn cursor(&self, name: &str) -> Result<Offset, LogError> {
        self.0.cursor(name)
    }

    fn subscribe(&self) -> crossbeam_channel::Receiver<()> {
        self.0.subscribe()
    }
}

#[test]
fn a_log_that_cannot_be_read_is_waited_for() {
    let log = Arc::new(Unread(MemoryLog::default(), AtomicU32::new(10)));
    let context = StageContext { log, ..context() };
    let (script, mut waited) = (script(|_| ScriptedAct::Work), None);
    let state = supervise(&script, &context, all_recorded, |now| {
        waited = now.waiting.clone().or(waited.take());
    });
    assert!(waited.unwrap().contains("the disk refuses"));
    assert_eq!((state.failed, state.waiting, state.lost), (0, None, None));
    assert_eq!((kinds(&context, "task_failed"), kinds(&context, "prompt_admitted")), (0, WANTED));
}

struct Clumsy(AtomicBool);

impl Headroom for Clumsy {
    fn lacking(&self) -> Option<String> {
        assert!(self.0.swap(true, Ordering::SeqCst), "told to panic");
        None
    }
}

#[test]
fn a_host_that_cannot_say_whether_there_is_memory_holds_nobody_up() {
    let context = StageContext { headroom: Arc::new(Clumsy(AtomicBool::new(false))), ..context() };
    let (script, mut waited) = (script(|_| ScriptedAct::Work), None);
    let state = supervise(&script, &context, all_recorded, |now| {
        waited = now.waiting.clone().or(waited.take());
    });
    assert!(waited.unwrap().contains("told to panic"));
    assert_eq!((state.failed, state.restarts), (0, 0));
}
