//! An owned OS thread on which a stage's tasks run, one at a time, under `catch_unwind`. The
//! thread appends what the task gives, so that a task is recorded exactly when it is durable.

use super::lease::Lease;
use crate::domain::{Event, TaskKey};
use crate::log::Batch;
use crate::stage::{ATTEMPTS_MAX, Desk, Stage, StageError, Weight};
use crate::view::RunView;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

/// A task on its way to the worker.
pub struct Order<T> {
    /// Its key.
    pub key: TaskKey,
    /// The task.
    pub task: T,
    /// What was known when it was decided.
    pub view: RunView,
    /// How often it failed before.
    pub failures: u32,
}

impl<T> Order<T> {
    /// What a stage would do now: nothing while the run is paused, while nothing is due, or when
    /// its next task failed too often.
    pub fn next<S: Stage<Task = T>>(stage: &S, view: &RunView) -> Option<Order<T>> {
        if view.paused {
            return None;
        }
        let (key, task) = stage.next(view)?;
        let failures = view.failures.get(&key).copied().unwrap_or_default();
        (failures < ATTEMPTS_MAX).then(|| Order { key, task, view: view.clone(), failures })
    }
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Its events are durable, or were already.
    Recorded,
    /// It failed, and the failure is recorded.
    Failed,
    /// The host asked to stop.
    Cancelled,
    /// The log refuses to be written: nothing can be recorded any more.
    LogLost(String),
}

/// The sending side of a worker. Dropping it ends the thread after its task.
pub struct Worker<T> {
    orders: crossbeam_channel::Sender<Order<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread. `report` is called on it after every task.
    ///
    /// # Errors
    /// When the system will not give a thread.
    pub fn start<S: Stage<Task = T>>(
        stage: S,
        desk: Desk,
        lease: Lease,
        report: impl Fn(Done) + Send + 'static,
    ) -> std::io::Result<Worker<T>> {
        let (orders, inbox) = crossbeam_channel::bounded::<Order<T>>(1);
        let mut stage = stage;
        let thread = std::thread::Builder::new()
            .name(format!("gradus-{}", S::NAME))
            .stack_size(16 << 20)
            .spawn(move || {
                for order in inbox {
                    report(work(&mut stage, order, &desk, &lease));
                }
            })?;
        Ok(Worker { orders, thread: Some(thread) })
    }

    /// Hands a task over; false when the thread is busy or gone.
    pub fn order(&self, order: Order<T>) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Ends the thread after its task and hands over its handle, to be joined where waiting is
    /// allowed.
    pub fn end(mut self) -> Option<JoinHandle<()>> {
        self.thread.take()
    }
}

/// Does an order on the calling thread and appends what came of it. Workers call it on theirs; a
/// simulation calls it where it likes.
pub fn work<S: Stage>(stage: &mut S, order: Order<S::Task>, desk: &Desk, lease: &Lease) -> Done {
    let Order { key, task, view, failures } = order;
    let guard = (S::WEIGHT == Weight::Heavy).then(|| lease.hold());
    if desk.cancel.is_cancelled() {
        return Done::Cancelled;
    }
    let span = tracing::info_span!("task", stage = S::NAME, key = key.short());
    let _entered = span.enter();
    let result = catch_unwind(AssertUnwindSafe(|| stage.run(task, &view, desk)))
        .unwrap_or_else(|panic| Err(StageError::Panic(panic_text(panic.as_ref()))));
    drop(guard);
    match result {
        Ok(events) => match desk.log.append(Batch { key: Some(key), events, cursor: None }) {
            Ok(_) => Done::Recorded,
            Err(error) => Done::LogLost(error.to_string()),
        },
        Err(error) if error.is_cancelled() => Done::Cancelled,
        Err(error) => record_failure(S::NAME, key, failures, &error, desk),
    }
}

fn record_failure(
    stage: &str,
    task: TaskKey,
    failures: u32,
    error: &StageError,
    desk: &Desk,
) -> Done {
    let reason = error.to_string();
    tracing::error!(stage, task = task.short(), reason, "task failed");
    let event = Event::TaskFailed { stage: stage.to_owned(), task, attempt: failures + 1, reason };
    match desk.log.append(Batch { key: None, events: vec![event], cursor: None }) {
        Ok(_) => Done::Failed,
        Err(error) => Done::LogLost(error.to_string()),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
