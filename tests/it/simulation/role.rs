//! A shell without actix, threads and clocks: a real stage, what a shell decides about it, and what
//! a worker does with an order.

use gradus::actor::lease::Lease;
use gradus::actor::worker::{Done, Order, work};
use gradus::blob::BlobError;
use gradus::config::Config;
use gradus::domain::{Event, Iteration, Offset, TaskKey};
use gradus::lm::error::LmError;
use gradus::log::{Log, LogError};
use gradus::stage::conductor::Conductor;
use gradus::stage::evaluator::Evaluator;
use gradus::stage::judge::Judge;
use gradus::stage::pair_store::PairStore;
use gradus::stage::sampler::Sampler;
use gradus::stage::trainer::Trainer;
use gradus::stage::{Duty, Needs, Stage, StageContext, StageError};
use gradus::view::RunView;
use std::sync::Arc;

/// What happens to a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// It fails.
    Task,
    /// The machine refuses something for now; the n-th kind of it.
    Shortage(u64),
    /// The machine has lost something for as long as the process lives.
    Loss,
}

impl Trouble {
    /// Kinds of what a machine may refuse.
    pub const SHORTAGES: u64 = 7;

    fn error(self) -> Option<StageError> {
        let disk = |code| {
            let source = std::io::Error::from_raw_os_error(code);
            StageError::from(BlobError::Io { path: "blobs/ab/abcd".into(), source })
        };
        Some(match self {
            Trouble::None => return None,
            Trouble::Task => StageError::Missing("the simulation says so".to_owned()),
            Trouble::Shortage(0) => disk(24),
            Trouble::Shortage(1) => disk(5),
            Trouble::Shortage(2) => disk(28),
            Trouble::Shortage(3) => {
                BlobError::Away { path: "blobs".into(), reason: "moved".into() }.into()
            }
            Trouble::Shortage(4) => LogError::Read("the disk refuses".into()).into(),
            Trouble::Shortage(5) => LmError::Threads("no thread".into()).into(),
            Trouble::Shortage(_) => StageError::Sandbox("no memory".into()),
            Trouble::Loss => LmError::DeviceLost("fell off the bus".into()).into(),
        })
    }
}

/// A stage whose next task may be in trouble.
struct Faulty<S> {
    stage: S,
    trouble: Trouble,
}

impl<S: Stage> Stage for Faulty<S> {
    type Task = S::Task;
    const NAME: &'static str = S::NAME;
    const DUTY: Duty = S::DUTY;

    fn next(&self, view: &RunView) -> Option<(TaskKey, S::Task)> {
        self.stage.next(view)
    }

    fn needs(&self, task: &S::Task, view: &RunView, context: &StageContext) -> Needs {
        self.stage.needs(task, view, context)
    }

    fn run(
        &mut self,
        task: S::Task,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        match std::mem::take(&mut self.trouble).error() {
            Some(error) => Err(error),
            None => self.stage.run(task, view, context),
        }
    }
}

/// A shell without actix: a stage, its view, and the order in hand.
pub trait Role {
    /// The stage's name.
    fn name(&self) -> &'static str;
    /// Folds up to `until`, and takes an order when it has none.
    fn wake(&mut self, context: &StageContext, until: Offset);
    /// Key and iteration of the order in hand.
    fn order(&self) -> Option<(&TaskKey, Option<Iteration>)>;
    /// Does the order in hand.
    fn finish(&mut self, context: &StageContext, trouble: Trouble) -> Option<Done>;
    /// What it knows.
    fn view(&self) -> &RunView;
}

struct Acting<S: Stage> {
    decide: S,
    worker: Faulty<S>,
    view: Arc<RunView>,
    order: Option<Order<S::Task>>,
}

fn role<S: Stage>(make: impl Fn() -> S) -> Box<dyn Role> {
    let worker = Faulty { stage: make(), trouble: Trouble::None };
    // As a running run does: of iterations that are over only what they came to.
    let mut view = RunView::default();
    view.forget_finished();
    Box::new(Acting { decide: make(), worker, view: Arc::new(view), order: None })
}

/// Folds the records below `until` that a view has not seen.
pub fn fold(view: &mut RunView, log: &dyn Log, until: Offset) {
    let behind = until.0.saturating_sub(view.next.0) as usize;
    for record in log.read(view.next, behind).unwrap() {
        view.apply(&record);
    }
}

impl<S: Stage> Role for Acting<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn wake(&mut self, context: &StageContext, until: Offset) {
        fold(Arc::make_mut(&mut self.view), context.log.as_ref(), until);
        if self.order.is_none() {
            self.order = Order::next(&self.decide, &self.view);
        }
    }

    fn order(&self) -> Option<(&TaskKey, Option<Iteration>)> {
        let order = self.order.as_ref()?;
        Some((&order.key, order.view.open().map(|(iteration, _)| iteration)))
    }

    fn finish(&mut self, context: &StageContext, trouble: Trouble) -> Option<Done> {
        let order = self.order.take()?;
        self.worker.trouble = trouble;
        Some(work(&mut self.worker, order, context, &Lease::default()))
    }

    fn view(&self) -> &RunView {
        &self.view
    }
}

/// Every stage, knowing nothing.
pub fn roles(config: &Arc<Config>) -> Vec<Box<dyn Role>> {
    vec![
        role(|| Conductor::new(config.clone())),
        role(|| Sampler),
        role(|| Judge),
        role(|| PairStore),
        role(Trainer::default),
        role(|| Evaluator),
    ]
}
