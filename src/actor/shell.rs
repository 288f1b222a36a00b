//! The one actor: a stage in a shell. It folds the log into its view, asks the stage what is next
//! and hands the task to its worker. No handler computes; each takes well under a millisecond
//! once the view has caught up.
//!
//! The shell is also the worker's supervisor. A failed task waits longer each time; a worker that
//! shows no sign of life is given up and another started; a stage that fails again and again is
//! halted until the host says go on. The other stages never notice. What the machine refuses is no
//! failure: the task is tried again, less and less often, until it is granted, and the state says
//! what is waited for.

use super::lease::Lease;
use super::worker::{Done, FAILURES_IN_A_ROW_MAX, InHand, Order, Worker, record_failure};
use crate::domain::Offset;
use crate::stage::{Cause, Duty, Stage, StageContext, StageError};
use crate::view::{LiveView, Look, RunView};
use actix::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Records folded in one handler call; the rest wait for the next, so that control gets through.
const FOLD_RECORDS_MAX: usize = 256;
/// First pause after a failure; doubled with each further one.
const BACK_OFF: Duration = Duration::from_millis(200);
/// Until a task is tried again that the machine refused something; doubled with each further
/// refusal up to the most.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A task that is in hand for so long has what it waited for.
const AT_WORK: Duration = Duration::from_secs(2);
/// Between two looks at the worker's signs of life.
const WATCH: Duration = Duration::from_secs(1);

/// Look at the log.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Wake;

/// The worker is through. Workers are numbered: one that was given up has no say.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Finished(u32, Done);

/// Finish nothing more.
#[derive(Message)]
#[rtype(result = "Option<std::thread::JoinHandle<()>>")]
pub struct Stop;

/// What an actor is doing, for a status screen.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ShellState {
    /// Records folded.
    pub next: Offset,
    /// Whether a task is in hand.
    pub busy: bool,
    /// Tokens that the task in hand has drawn so far.
    #[serde(default)]
    pub drawn: u64,
    /// Tasks recorded.
    pub recorded: u64,
    /// Tasks failed.
    pub failed: u64,
    /// Workers that were replaced, after a panic or without a sign of life.
    pub restarts: u64,
    /// Why the stage is halted: it failed again and again. `gradus` starts anew, or the host says
    /// go on.
    pub halted: Option<String>,
    /// Why it waits: what the machine refuses (space, memory, file handles, a folder that is away).
    /// It goes on by itself when that is granted.
    pub waiting: Option<String>,
    /// Set when something is gone that this process does not get back: the log can no longer be
    /// written, the device was lost, another folder lies in the place of the run's.
    #[serde(alias = "log_lost")]
    pub lost: Option<String>,
}

/// A cheap picture that outlives the actor.
pub type SharedState = Arc<Mutex<ShellState>>;

/// When the task in hand last showed a sign of life.
struct Life {
    looks: u64,
    since: Instant,
}

/// A stage as an actor.
pub struct Shell<S: Stage> {
    decide: S,
    make: Arc<dyn Fn() -> S + Send + Sync>,
    context: StageContext,
    lease: Lease,
    live: Arc<LiveView>,
    /// What it knows.
    view: Arc<RunView>,
    worker: Option<Worker<S::Task>>,
    /// Number of the worker in use.
    number: u32,
    life: Option<Life>,
    state: SharedState,
    failures_in_a_row: u32,
    /// How often the machine refused something in a row.
    refusals_in_a_row: u32,
    /// Whether the log could not be read the last time.
    blind: bool,
    /// No task before this: the last one failed, or waits.
    not_before: Option<Instant>,
    /// Seconds without a sign of life after which a task is given up.
    patience: u32,
    /// Since when a task is in hand.
    ordered: Option<Instant>,
}

impl<S: Stage + Unpin> Shell<S> {
    /// An actor around the stage that `make` makes: one copy decides, one runs. What is known of
    /// the run is `live`.
    pub fn new(
        make: impl Fn() -> S + Send + Sync + 'static,
        (context, live): (StageContext, Arc<LiveView>),
        lease: Lease,
        patience: u32,
    ) -> Shell<S> {
        Shell {
            decide: make(),
            make: Arc::new(make),
            context,
            lease,
            live,
            view: Arc::default(),
            worker: None,
            number: 0,
            life: None,
            state: SharedState::default(),
            failures_in_a_row: 0,
            refusals_in_a_row: 0,
            blind: false,
            not_before: None,
            patience,
            ordered: None,
        }
    }

    /// What a status screen reads.
    pub fn state(&self) -> SharedState {
        self.state.clone()
    }

    fn set(&self, change: impl FnOnce(&mut ShellState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn get<T>(&self, read: impl FnOnce(&ShellState) -> T) -> T {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Folds new records; true when there are more.
    fn catch_up(&mut self) -> Result<bool, crate::log::LogError> {
        let Look { view, more } = self.live.look(self.context.log.as_ref(), FOLD_RECORDS_MAX)?;
        let resumed = std::mem::replace(&mut self.view, view).resumed;
        if self.view.resumed != resumed {
            self.failures_in_a_row = 0;
            self.not_before = None;
            self.set(|state| state.halted = None);
        }
        // Asked again with every bell: a task on its way to the worker is not in hand yet.
        if self.view.paused || self.view.is_overruled() {
            self.interrupt();
        }
        let next = self.view.next;
        self.set(|state| state.next = next);
        Ok(more)
    }

    /// Nobody waits for the task in hand any more: the run pauses, or goes on from another policy.
    /// What was done of it is kept where it can be, and the rest is planned anew.
    fn interrupt(&self) {
        if S::DUTY == Duty::Works
            && let Some(hand) = self.worker.as_ref().and_then(Worker::in_hand)
        {
            hand.cancel.interrupt();
        }
    }

    fn wake(&mut self, ctx: &mut Context<Self>) {
        let known = self.catch_up().map_err(StageError::from);
        if known.is_ok() && std::mem::take(&mut self.blind) {
            self.set(|state| state.waiting = None);
        }
        match known {
            Ok(true) => ctx.notify(Wake),
            Ok(false) => self.start_next(),
            Err(error) if error.cause() == Cause::Loss => {
                self.set(|state| state.lost = Some(error.coded()));
            }
            // The next bell tries again.
            Err(error) => {
                self.blind = true;
                self.set(|state| state.waiting = Some(error.coded()));
            }
        }
    }

    fn start_next(&mut self) {
        let held = self.get(|state| state.busy || state.halted.is_some() || state.lost.is_some());
        let waits = self.not_before.is_some_and(|at| Instant::now() < at);
        if held || waits || self.context.cancel.is_cancelled() {
            return;
        }
        let Some(mut order) = Order::next(&self.decide, &self.view) else { return };
        order.failures_in_a_row = self.failures_in_a_row;
        let taken = self.worker.as_ref().is_some_and(|worker| worker.order(order));
        self.ordered = taken.then(Instant::now);
        self.set(|state| state.busy = taken);
    }

    /// Starts a worker in the place of the one there is. False when the system gives no thread: the
    /// next look tries again.
    fn start_worker(&mut self, ctx: &mut Context<Self>) -> bool {
        let (me, number) = (ctx.address(), self.number + 1);
        // `do_send` ignores the mailbox's bound, but a worker sends one `Finished` per task.
        let report = move |done| me.do_send(Finished(number, done));
        let (make, context) = (self.make.clone(), self.context.clone());
        match Worker::start(make, context, self.lease.clone(), report) {
            Ok(worker) => {
                self.worker = Some(worker);
                self.number = number;
                true
            }
            Err(error) => {
                self.set(|state| state.waiting = Some(format!("for a thread: {error}")));
                false
            }
        }
    }

    /// Gives a worker up whose task has not looked at its flag for too long.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        if self.worker.is_none() && self.start_worker(ctx) {
            self.set(|state| state.waiting = None);
            ctx.notify(Wake);
        }
        let Some(hand) = self.worker.as_ref().and_then(Worker::in_hand) else {
            self.life = None;
            self.set(|state| state.drawn = 0);
            return;
        };
        self.set(|state| state.drawn = hand.cancel.drawn());
        if self.ordered.is_some_and(|since| since.elapsed() >= AT_WORK) {
            self.set(|state| state.waiting = None);
        }
        let looks = hand.cancel.looks();
        let life = self.life.get_or_insert_with(|| Life { looks, since: Instant::now() });
        if life.looks != looks {
            *life = Life { looks, since: Instant::now() };
        }
        let patience = self.patience;
        if life.since.elapsed() >= Duration::from_secs(u64::from(patience)) {
            self.give_up(&hand, patience, ctx);
        }
    }

    fn give_up(&mut self, hand: &InHand, patience: u32, ctx: &mut Context<Self>) {
        // Without another thread this one is kept, and looked at again a second later.
        if !self.start_worker(ctx) {
            return;
        }
        self.life = None;
        hand.cancel.abandon();
        let reason = format!("no sign of life for {patience} s; its thread was given up");
        self.set(|state| state.restarts += 1);
        // An append waits for the disk, which a handler must not.
        let (me, number) = (ctx.address(), self.number);
        let (hand, context) = (hand.clone(), self.context.clone());
        let record = move || {
            let recorded = record_failure(S::NAME, &hand, &reason, false, &context);
            let failed = Done::Failed { reason, panicked: false };
            me.do_send(Finished(number, recorded.err().unwrap_or(failed)));
        };
        let thread = std::thread::Builder::new().name("gradus-supervisor".to_owned());
        if let Err(error) = thread.spawn(record) {
            // It is not recorded then, and the task is done again all the same.
            ctx.notify(Finished(number, Done::Waits(format!("for a thread: {error}"))));
        }
    }

    /// A task failed: wait, longer each time, or halt.
    fn failed(&mut self, reason: String, ctx: &mut Context<Self>) {
        self.failures_in_a_row += 1;
        if self.failures_in_a_row >= FAILURES_IN_A_ROW_MAX {
            self.set(|state| state.halted = Some(reason));
            return;
        }
        self.wait(BACK_OFF * 2u32.pow(self.failures_in_a_row.min(6)), ctx);
    }

    /// The machine refused something: ask again later, less often each time.
    fn refused(&mut self, ctx: &mut Context<Self>) {
        let pause = WAIT * 2u32.pow(self.refusals_in_a_row.min(6));
        self.refusals_in_a_row += 1;
        self.wait(pause.min(WAIT_MAX), ctx);
    }

    /// No task before this has passed, whoever wakes the shell meanwhile.
    fn wait(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        self.not_before = Some(Instant::now() + pause);
        ctx.notify_later(Wake, pause);
    }
}

impl<S: Stage + Unpin> Actor for Shell<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.start_worker(ctx);
        ctx.run_interval(WATCH, Self::watch);
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

    fn handle(&mut self, Finished(number, done): Finished, ctx: &mut Context<Self>) {
        if number != self.number {
            return;
        }
        self.ordered = None;
        self.set(|state| {
            state.busy = false;
            state.waiting = None;
            match &done {
                Done::Recorded => state.recorded += 1,
                Done::Failed { panicked, .. } => {
                    state.failed += 1;
                    state.restarts += u64::from(*panicked);
                }
                Done::Waits(reason) => state.waiting = Some(reason.clone()),
                Done::Cancelled => {}
                Done::Lost(reason) => state.lost = Some(reason.clone()),
            }
        });
        if !matches!(done, Done::Waits(_)) {
            self.refusals_in_a_row = 0;
        }
        match done {
            Done::Recorded => {
                self.failures_in_a_row = 0;
                self.wake(ctx);
            }
            Done::Failed { reason, .. } => self.failed(reason, ctx),
            Done::Waits(_) => self.refused(ctx),
            // Interrupted: what is next may be known by now.
            Done::Cancelled => self.wake(ctx),
            Done::Lost(_) => {}
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
