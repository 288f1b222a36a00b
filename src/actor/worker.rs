//! An owned OS thread on which a stage's tasks run, one at a time, under `catch_unwind`. The
//! thread appends what the task gives, so that a task is recorded exactly when it is durable.

use super::lease::Lease;
use crate::domain::text::bounded;
use crate::domain::{Event, TaskKey};
use crate::faults::{Point, pass};
use crate::lm::cancel::Cancel;
use crate::lm::error::LmError;
use crate::log::{Batch, LogError};
use crate::stage::{ATTEMPTS_MAX, Cause, Duty, Needs, Stage, StageContext, StageError};
use crate::view::RunView;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A stage that failed so often in a row, whatever its tasks, is halted: the fault is not in them.
pub const FAILURES_IN_A_ROW_MAX: u32 = 5;
/// Between two attempts to record a result while the log takes nothing.
const SPACE_PAUSE: Duration = Duration::from_millis(500);
/// Attempts to record a result while the log cannot be read; there are as many as one likes while
/// it only lacks space, which its health says.
const READ_ATTEMPTS_MAX: u32 = 20;
/// Characters of a failure's reason that are recorded.
const REASON_CHARS_MAX: usize = 2000;

/// A task on its way to the worker.
pub struct Order<T> {
    /// Its key.
    pub key: TaskKey,
    /// The task.
    pub task: T,
    /// What was known when it was decided.
    pub view: Arc<RunView>,
    /// How often it failed before.
    pub failures: u32,
    /// How often the stage failed since something of it was recorded.
    pub failures_in_a_row: u32,
}

impl<T> Order<T> {
    /// What a stage would do now: nothing while the run is paused, while the iteration is one that
    /// ends for another policy was chosen, while nothing is due, or when its next task failed too
    /// often.
    pub fn next<S: Stage<Task = T>>(stage: &S, view: &Arc<RunView>) -> Option<Order<T>> {
        if view.paused || (S::DUTY == Duty::Works && view.is_overruled()) {
            return None;
        }
        let (key, task) = stage.next(view)?;
        let failures = view.failures.get(&key).copied().unwrap_or_default();
        let view = view.clone();
        (failures < ATTEMPTS_MAX).then_some(Order {
            key,
            task,
            view,
            failures,
            failures_in_a_row: 0,
        })
    }
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Its events are durable, or were already.
    Recorded,
    /// It failed, and the failure is recorded.
    Failed {
        /// Why.
        reason: String,
        /// Whether it panicked: its stage is not used again.
        panicked: bool,
    },
    /// The machine does not give what it needs: space, memory, file handles, a folder that is away.
    /// That is nobody's failure: nothing is recorded, and it is to be tried again later.
    Waits(String),
    /// The host asked to stop.
    Cancelled,
    /// Something is gone that this process does not get back: the log refuses to be written, the
    /// device was lost, another folder lies in the place of the run's.
    Lost(String),
}

/// The task in hand, as a supervisor sees it.
#[derive(Clone, Debug)]
pub struct InHand {
    /// Its key.
    pub key: TaskKey,
    /// How often it failed before.
    pub failures: u32,
    /// How often the stage failed in a row before.
    pub failures_in_a_row: u32,
    /// Stops it, and counts its signs of life.
    pub cancel: Cancel,
}

/// The sending side of a worker. Dropping it ends the thread after its task.
pub struct Worker<T> {
    orders: crossbeam_channel::Sender<Order<T>>,
    in_hand: Arc<Mutex<Option<InHand>>>,
    thread: Option<JoinHandle<()>>,
}

fn lock(slot: &Mutex<Option<InHand>>) -> MutexGuard<'_, Option<InHand>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread, with a stage of its own that is made anew after a panic. `report` is
    /// called on it after every task.
    ///
    /// # Errors
    /// When the system will not give a thread.
    pub fn start<S: Stage<Task = T>>(
        make: Arc<dyn Fn() -> S + Send + Sync>,
        context: StageContext,
        lease: Lease,
        report: impl Fn(Done) + Send + 'static,
    ) -> std::io::Result<Worker<T>> {
        let (orders, inbox) = crossbeam_channel::bounded::<Order<T>>(1);
        let in_hand = Arc::new(Mutex::new(None));
        let slot = in_hand.clone();
        let run = move || {
            let mut stage = make();
            for order in inbox {
                let context = StageContext { cancel: context.cancel.child(), ..context.clone() };
                *lock(&slot) = Some(InHand {
                    key: order.key.clone(),
                    failures: order.failures,
                    failures_in_a_row: order.failures_in_a_row,
                    cancel: context.cancel.clone(),
                });
                let done = work(&mut stage, order, &context, &lease);
                *lock(&slot) = None;
                if let Done::Failed { panicked: true, .. } = done {
                    stage = make();
                }
                report(done);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("gradus-{}", S::NAME))
            .stack_size(16 << 20)
            .spawn(run)?;
        Ok(Worker { orders, in_hand, thread: Some(thread) })
    }

    /// Hands a task over; false when the thread is busy or gone.
    pub fn order(&self, order: Order<T>) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// The task in hand.
    pub fn in_hand(&self) -> Option<InHand> {
        lock(&self.in_hand).clone()
    }

    /// Ends the thread after its task and hands over its handle, to be joined where waiting is
    /// allowed.
    pub fn end(mut self) -> Option<JoinHandle<()>> {
        self.thread.take()
    }
}

/// Does an order on the calling thread and appends what came of it. Workers call it on theirs; a
/// simulation calls it where it likes.
pub fn work<S: Stage>(
    stage: &mut S,
    order: Order<S::Task>,
    context: &StageContext,
    lease: &Lease,
) -> Done {
    let Order { key, task, view, failures, failures_in_a_row } = order;
    // Whoever trips over the question is taken for one who computes here.
    let needs = catch_unwind(AssertUnwindSafe(|| stage.needs(&task, &view, context)));
    let hold = match needs.unwrap_or(Needs::Device) {
        Needs::Nothing | Needs::Network => None,
        Needs::Device => match lease.hold(&context.cancel) {
            Some(hold) => Some(hold),
            None => return Done::Cancelled,
        },
    };
    if context.cancel.is_cancelled() {
        return Done::Cancelled;
    }
    // Decided by a view that was behind: what it would begin with may be gone.
    if let Ok(Some(_)) = context.log.find(&key) {
        return Done::Recorded;
    }
    if let Some(reason) = hold.as_ref().and_then(|_| lacking(context)) {
        return Done::Waits(reason);
    }
    let span = tracing::info_span!("task", stage = S::NAME, key = key.short());
    let _entered = span.enter();
    let result = catch_unwind(AssertUnwindSafe(|| stage.run(task, &view, context)))
        .unwrap_or_else(|panic| Err(StageError::Panic(panic_text(panic.as_ref()))));
    drop(hold);
    let hand = InHand { key, failures, failures_in_a_row, cancel: context.cancel.clone() };
    let events = match result {
        Ok(events) => events,
        Err(error) => return unfinished(S::NAME, &hand, &error, context),
    };
    // Errors have no meaning here: a test lets the process die.
    let _ = pass(Point::TaskRecord);
    let batch = Batch { key: Some(hand.key.clone()), events, cursor: None };
    let kept = append(batch, context);
    let _ = pass(Point::TaskRecorded);
    match kept {
        Ok(()) => Done::Recorded,
        Err(error) => unfinished(S::NAME, &hand, &error, context),
    }
}

/// What the host says is lacking; that it trips over the question is its own matter.
fn lacking(context: &StageContext) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| context.headroom.lacking())).unwrap_or_else(|panic| {
        let why = panic_text(panic.as_ref());
        Some(format!("the host could not say whether there is memory: it panicked: {why}"))
    })
}

/// What becomes of a task that is not recorded, by whose doing that is.
fn unfinished(stage: &str, hand: &InHand, error: &StageError, context: &StageContext) -> Done {
    let reason = error.to_string();
    match error.cause() {
        Cause::Stopped => Done::Cancelled,
        Cause::Shortage => Done::Waits(reason),
        Cause::Loss => Done::Lost(reason),
        Cause::Task => {
            let panicked = matches!(error, StageError::Panic(_));
            let unrecorded =
                record_failure(stage, hand, &reason, error.is_the_questions(), context).err();
            unrecorded.unwrap_or(Done::Failed { reason, panicked })
        }
    }
}

/// Appends; waits while the log takes nothing, for the work is done.
///
/// # Errors
/// What kept it from being recorded.
fn append(batch: Batch, context: &StageContext) -> Result<(), StageError> {
    for attempt in 1u32.. {
        let error = match context.log.append(batch.clone()) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let full = matches!(error, LogError::Full { .. });
        let error = StageError::from(error);
        if error.cause() != Cause::Shortage || (!full && attempt >= READ_ATTEMPTS_MAX) {
            return Err(error);
        }
        if context.cancel.is_cancelled() {
            break;
        }
        std::thread::sleep(SPACE_PAUSE);
    }
    Err(LmError::Cancelled.into())
}

/// Records that a task failed, and that its stage is halted when that was once too often.
/// `questions`: whether what was asked failed, and not the machine.
///
/// # Errors
/// What becomes of the task when that cannot be recorded.
pub(crate) fn record_failure(
    stage: &str,
    hand: &InHand,
    reason: &str,
    questions: bool,
    context: &StageContext,
) -> Result<(), Done> {
    let (task, attempt) = (hand.key.clone(), hand.failures + 1);
    tracing::error!(stage, task = task.short(), attempt, reason, "task failed");
    let (stage, reason) = (stage.to_owned(), bounded(reason, REASON_CHARS_MAX));
    let mut events = vec![Event::TaskFailed {
        stage: stage.clone(),
        task,
        attempt,
        reason: reason.clone(),
        questions,
    }];
    if hand.failures_in_a_row + 1 >= FAILURES_IN_A_ROW_MAX {
        tracing::error!(stage, reason, "the stage is halted: it failed again and again");
        events.push(Event::StageHalted { stage, reason });
    }
    append(Batch { key: None, events, cursor: None }, context).map_err(|error| {
        let reason = error.to_string();
        match error.cause() {
            Cause::Stopped => Done::Cancelled,
            Cause::Shortage => Done::Waits(reason),
            Cause::Loss | Cause::Task => Done::Lost(reason),
        }
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
