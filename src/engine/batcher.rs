//! BATCHER: answers that several callers want of one model at the same time, drawn together token by
//! token. Whoever comes while others are answered joins them at the next token; whoever is not listened
//! to any more is given up. It computes, and holds keys and values, only while somebody waits.

use crate::lm::cancel::Cancel;
use crate::lm::error::LmError;
use crate::lm::foreground::Foreground;
use crate::lm::generate::{DrawRequest, DrawSource, Drawn, ToldToken};
use crate::lm::policy::LanguageModel;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What is told of answers in the making.
#[derive(Debug)]
pub enum DrawEvent {
    /// A token of an answer; the one that ends it too.
    Token {
        /// Which answer.
        candidate: usize,
        /// The token.
        id: u32,
        /// Its log-probability, nats; `None` where the model does not say.
        logp: Option<f64>,
    },
    /// An answer is whole.
    Ended {
        /// Which answer.
        candidate: usize,
        /// All of it.
        drawn: Drawn,
    },
    /// Nothing more comes, and why.
    Failed(LmError),
}

/// Answers in the making. Dropping it gives them up.
#[derive(Debug)]
pub struct DrawnAnswers {
    events: UnboundedReceiver<DrawEvent>,
    unwanted: Arc<[AtomicBool]>,
}

impl DrawnAnswers {
    /// What comes next; `None` when all answers are whole.
    pub async fn next(&mut self) -> Option<DrawEvent> {
        self.events.recv().await
    }

    /// As [`DrawnAnswers::next`], for callers that may wait; not on a thread that awaits.
    pub fn next_blocking(&mut self) -> Option<DrawEvent> {
        self.events.blocking_recv()
    }

    /// The rest of an answer is not wanted; the others go on.
    pub fn give_up(&self, candidate: usize) {
        if let Some(unwanted) = self.unwanted.get(candidate) {
            unwanted.store(true, Ordering::Release);
        }
    }
}

struct BatchedRequest {
    request: DrawRequest,
    listener: DrawListener,
}

struct DrawListener {
    tell: UnboundedSender<DrawEvent>,
    unwanted: Arc<[AtomicBool]>,
    /// Answers that are not whole yet.
    left: usize,
}

/// How much there is to do.
#[derive(Debug, Default)]
struct Load {
    waiting: AtomicUsize,
    drawing: AtomicUsize,
}

/// Draws for many callers from one model, on a thread of its own; it ends what is in hand when it is
/// dropped.
pub struct Batcher {
    jobs: Sender<BatchedRequest>,
    load: Arc<Load>,
    cancel: Cancel,
}

impl Batcher {
    /// Starts the thread. While it draws it is in the foreground.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        model: Arc<dyn LanguageModel>,
        foreground: Foreground,
    ) -> std::io::Result<Batcher> {
        let (send, jobs) = channel();
        let (load, cancel) = (Arc::new(Load::default()), Cancel::default());
        let (its_load, flag) = (load.clone(), cancel.clone());
        let work = move || work(model.as_ref(), &jobs, &its_load, (&foreground, &flag));
        std::thread::Builder::new().name("gradus-answers".to_owned()).spawn(work)?;
        Ok(Batcher { jobs: send, load, cancel })
    }

    /// Draws the answers of a request.
    pub fn draw(&self, request: DrawRequest) -> DrawnAnswers {
        let (tell, events) = unbounded_channel();
        let unwanted: Arc<[AtomicBool]> =
            request.seeds.iter().map(|_| AtomicBool::new(false)).collect();
        let left = request.seeds.len();
        let listener = DrawListener { tell, unwanted: unwanted.clone(), left };
        self.load.waiting.fetch_add(left, Ordering::Relaxed);
        if let Err(lost) = self.jobs.send(BatchedRequest { request, listener }) {
            self.load.waiting.fetch_sub(left, Ordering::Relaxed);
            let why = "the thread that draws answers is gone".to_owned();
            let _ = lost.0.listener.tell.send(DrawEvent::Failed(LmError::Model(why)));
        }
        DrawnAnswers { events, unwanted }
    }

    /// Answers that wait for their first token.
    pub fn waiting(&self) -> usize {
        self.load.waiting.load(Ordering::Relaxed)
    }

    /// Answers that are being drawn.
    pub fn drawing(&self) -> usize {
        self.load.drawing.load(Ordering::Relaxed)
    }

    /// Gives up all that is in hand, and all that comes.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

fn work(
    model: &dyn LanguageModel,
    jobs: &Receiver<BatchedRequest>,
    load: &Load,
    (foreground, cancel): (&Foreground, &Cancel),
) {
    while let Ok(first) = jobs.recv() {
        let _in_foreground = foreground.enter();
        let (first, listeners, came) = (Some(first), HashMap::new(), 0);
        let mut source = JobSource { jobs, first, listeners, came, load };
        // Whatever the network does, those who come after are answered.
        let drawn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            model.draw_continuously(&mut source, cancel)
        }));
        let failed = match drawn {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(LmError::Model("drawing panicked".to_owned())),
        };
        source.finish(failed);
    }
}

/// The jobs as the generator takes them.
struct JobSource<'a> {
    jobs: &'a Receiver<BatchedRequest>,
    first: Option<BatchedRequest>,
    listeners: HashMap<usize, DrawListener>,
    came: usize,
    load: &'a Load,
}

impl JobSource<'_> {
    fn took(&mut self, job: BatchedRequest) -> DrawRequest {
        let BatchedRequest { request, listener } = job;
        self.load.waiting.fetch_sub(listener.left, Ordering::Relaxed);
        self.load.drawing.fetch_add(listener.left, Ordering::Relaxed);
        self.listeners.insert(self.came, listener);
        self.came += 1;
        request
    }

    /// So many answers of a request are not drawn any more.
    fn over(&mut self, request: usize, answers: usize) {
        self.load.drawing.fetch_sub(answers, Ordering::Relaxed);
        if let Some(listener) = self.listeners.get_mut(&request) {
            listener.left = listener.left.saturating_sub(answers);
            if listener.left == 0 {
                self.listeners.remove(&request);
            }
        }
    }

    /// Nothing is drawn any more: those that still listen are told why.
    fn finish(mut self, failed: Option<LmError>) {
        let first = self.first.take();
        if let Some(job) = first {
            self.took(job);
        }
        let why = failed.map_or_else(|| "it ended".to_owned(), |why| why.to_string());
        for (_, listener) in std::mem::take(&mut self.listeners) {
            self.load.drawing.fetch_sub(listener.left, Ordering::Relaxed);
            let _ = listener
                .tell
                .send(DrawEvent::Failed(LmError::Model(format!("the answer was given up: {why}"))));
        }
    }
}

impl DrawSource for JobSource<'_> {
    fn next(&mut self, room: usize, idle: bool) -> Option<Vec<DrawRequest>> {
        let mut requests = Vec::new();
        let mut sequences = 0;
        while sequences < room {
            let Some(job) = self.first.take().or_else(|| self.jobs.try_recv().ok()) else { break };
            sequences += job.request.seeds.len();
            requests.push(self.took(job));
        }
        (!requests.is_empty() || !idle).then_some(requests)
    }

    fn token(&mut self, token: ToldToken) -> bool {
        let ToldToken { request, candidate, id, logp } = token;
        let Some(listener) = self.listeners.get(&request) else { return false };
        let unwanted = listener.unwanted.get(candidate).is_some_and(|u| u.load(Ordering::Acquire));
        let told =
            !unwanted && listener.tell.send(DrawEvent::Token { candidate, id, logp }).is_ok();
        if !told {
            self.over(request, 1);
        }
        told
    }

    fn ended(&mut self, request: usize, candidate: usize, drawn: Drawn) {
        if let Some(listener) = self.listeners.get(&request) {
            let _ = listener.tell.send(DrawEvent::Ended { candidate, drawn });
        }
        self.over(request, 1);
    }

    fn refused(&mut self, request: usize, why: LmError) {
        let Some(listener) = self.listeners.get(&request) else { return };
        let answers = listener.left;
        let _ = listener.tell.send(DrawEvent::Failed(why));
        self.over(request, answers);
    }
}
