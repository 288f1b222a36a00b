//! The one actor: a stage in a shell. It folds the log into its view, asks the stage what is next
//! and hands the task to its worker. No handler computes; each takes well under a millisecond
//! once the view has caught up.

use super::lease::Lease;
use super::worker::{Done, Order, Worker};
use crate::domain::{Event, Offset};
use crate::stage::{Desk, Stage};
use crate::view::RunView;
use actix::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Records folded in one handler call; the rest wait for the next, so that control gets through.
const FOLD_RECORDS_MAX: usize = 256;
/// First pause after a failure; doubled with each further one.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Look at the log.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Wake;

/// The worker is through.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Finished(pub Done);

/// Finish nothing more.
#[derive(Message)]
#[rtype(result = "Option<std::thread::JoinHandle<()>>")]
pub struct Stop;

/// What an actor is doing, for a status screen.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ShellState {
    /// Records folded.
    pub next: Offset,
    /// Whether a task is in hand.
    pub busy: bool,
    /// Tasks recorded.
    pub recorded: u64,
    /// Tasks failed.
    pub failed: u64,
    /// Set when the log can no longer be written.
    pub log_lost: Option<String>,
}

/// A cheap picture that outlives the actor.
pub type SharedState = Arc<Mutex<ShellState>>;

/// A stage as an actor.
pub struct Shell<S: Stage> {
    decide: S,
    make: Box<dyn Fn() -> S + Send>,
    desk: Desk,
    lease: Lease,
    view: RunView,
    worker: Option<Worker<S::Task>>,
    state: SharedState,
    pauses: u32,
}

impl<S: Stage + Unpin> Shell<S> {
    /// An actor around the stage that `make` makes: one copy decides, one runs.
    pub fn new(make: impl Fn() -> S + Send + 'static, desk: Desk, lease: Lease) -> Shell<S> {
        Shell {
            decide: make(),
            make: Box::new(make),
            desk,
            lease,
            view: RunView::default(),
            worker: None,
            state: SharedState::default(),
            pauses: 0,
        }
    }

    /// What a status screen reads.
    pub fn state(&self) -> SharedState {
        self.state.clone()
    }

    fn set(&self, change: impl FnOnce(&mut ShellState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn busy(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).busy
    }

    /// Folds new records; true when there are more.
    fn catch_up(&mut self) -> Result<bool, crate::log::LogError> {
        let records = self.desk.log.read(self.view.next, FOLD_RECORDS_MAX)?;
        for record in &records {
            if !matches!(record.event, Event::TaskFailed { .. }) {
                self.pauses = 0;
            }
            self.view.apply(record);
        }
        let next = self.view.next;
        self.set(|state| state.next = next);
        Ok(records.len() == FOLD_RECORDS_MAX)
    }

    fn wake(&mut self, ctx: &mut Context<Self>) {
        match self.catch_up() {
            Ok(true) => ctx.notify(Wake),
            Ok(false) => self.start_next(),
            Err(error) => self.set(|state| state.log_lost = Some(error.to_string())),
        }
    }

    fn start_next(&mut self) {
        if self.busy() || self.desk.cancel.is_cancelled() {
            return;
        }
        let Some(order) = Order::next(&self.decide, &self.view) else { return };
        self.set(|state| state.busy = true);
        if !self.worker.as_ref().is_some_and(|worker| worker.order(order)) {
            self.set(|state| state.busy = false);
        }
    }
}

impl<S: Stage + Unpin> Actor for Shell<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let me = ctx.address();
        // `do_send` ignores the mailbox's bound, but a worker sends one `Finished` per task.
        let report = move |done| me.do_send(Finished(done));
        match Worker::start((self.make)(), self.desk.clone(), self.lease.clone(), report) {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => self.set(|state| state.log_lost = Some(format!("no thread: {error}"))),
        }
        ctx.notify(Wake);
    }
}

impl<S: Stage + Unpin> Handler<Wake> for Shell<S> {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        self.wake(ctx);
    }
}

impl<S: Stage + Unpin> Handler<Finished> for Shell<S> {
    type Result = ();

    fn handle(&mut self, Finished(done): Finished, ctx: &mut Context<Self>) {
        self.set(|state| {
            state.busy = false;
            match &done {
                Done::Recorded => state.recorded += 1,
                Done::Failed => state.failed += 1,
                Done::Cancelled => {}
                Done::LogLost(reason) => state.log_lost = Some(reason.clone()),
            }
        });
        match done {
            Done::Recorded => self.wake(ctx),
            Done::Failed => {
                self.pauses += 1;
                ctx.notify_later(Wake, BACK_OFF * 2u32.pow(self.pauses.min(6)));
            }
            Done::Cancelled | Done::LogLost(_) => {}
        }
    }
}

impl<S: Stage + Unpin> Handler<Stop> for Shell<S> {
    type Result = Option<std::thread::JoinHandle<()>>;

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) -> Self::Result {
        let thread = self.worker.take().and_then(Worker::end);
        ctx.stop();
        thread
    }
}
