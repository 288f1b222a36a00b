//! A MINIATURE ITERATION: the run's own stages on a few of its own prompts, with its rubric and its
//! policy, on a log in memory. What they ask of the model is written down, and how long it took and
//! how much the process held. Blobs go to a folder of their own on the run's disk, which is removed;
//! nothing of the run changes.
//!
//! Every stage has a thread that stays, as in a real run: what one thread gave back to the
//! allocator another does not get (glibc keeps an arena for each).

use super::bounds::DrawBounds;
use super::machine::{forget_peak, peak_bytes};
use super::watch::{TimedCall, WatchedBackend};
use crate::blob::BlobStore;
use crate::config::{Config, JudgeSource};
use crate::domain::event::IterationKind;
use crate::domain::{
    BlobHash, Event, Iteration, PolicyRef, PreferencePair, Prompt, PromptId, PromptOrigin, Side,
    TaskKey, TextRef, When,
};
use crate::engine::PolicyTokens;
use crate::engine::local::LocalModel;
use crate::error::{Code, Error};
use crate::estimate::parameters;
use crate::lm::cancel::Cancel;
use crate::lm::device::SelectedDevice;
use crate::lm::model_files::ModelFiles;
use crate::log::{Batch, Log, MemoryLog};
use crate::rubric::RubricRegistry;
use crate::runtime::models::HostEngines;
use crate::runtime::{Folder, identity};
use crate::stage::conductor::planned;
use crate::stage::judge::Judge;
use crate::stage::pair_store::PairStore;
use crate::stage::sampler::Sampler;
use crate::stage::trainer::Trainer;
use crate::stage::writer::WriteTask;
use crate::stage::writer::write_round;
use crate::stage::{Ample, NoGauge, PromptWriter, Stage, StageContext, StageError};
use crate::view::{PromptFacts, RunView};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Prompts of the miniature: few of a model that is slow, a whole chunk of a fast one.
const PROMPTS: usize = 4;
const PROMPTS_OF_A_SMALL_MODEL: usize = 48;
const SMALL_MODEL_PARAMETERS: u64 = 20_000_000;

/// What one task of a stage came to.
#[derive(Clone, Debug)]
pub(super) struct Act {
    /// Seconds of all of it.
    pub seconds: f64,
    /// What it asked of the model.
    pub calls: Vec<TimedCall>,
    /// The most that the process held meanwhile, bytes.
    pub peak: u64,
}

/// The folder of the miniature's blobs.
struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// On the run's disk; where nothing may be written to that, among the system's temporary files.
    fn in_place_of(folder: &Folder) -> ScratchFolder {
        let scratch = ScratchFolder(folder.path().join("doctor"));
        let _ = std::fs::remove_dir_all(&scratch.0);
        match std::fs::create_dir(&scratch.0) {
            Ok(()) => scratch,
            Err(_) => {
                let name = format!("gradus-doctor-{}", std::process::id());
                ScratchFolder(std::env::temp_dir().join(name))
            }
        }
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A stage's thread.
struct Hand(crossbeam_channel::Sender<Job>);

impl Hand {
    fn start(name: &str) -> Result<Hand, Error> {
        let (jobs, inbox) = crossbeam_channel::bounded::<Job>(1);
        let work = move || inbox.into_iter().for_each(|job| job());
        let thread = std::thread::Builder::new().name(format!("gradus-{name}"));
        let started = thread.stack_size(16 << 20).spawn(work);
        started.map_err(|error| Error::io(name, error))?;
        Ok(Hand(jobs))
    }

    /// Does something on the thread and waits for it.
    fn take<R: Send + 'static>(
        &self,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, StageError> {
        let (give, get) = crossbeam_channel::bounded(1);
        let lost = || StageError::Panic("a rehearsed task panicked".to_owned());
        let sent = self.0.send(Box::new(move || drop(give.send(job()))));
        sent.map_err(|_| lost())?;
        get.recv().map_err(|_| lost())
    }
}

/// What the miniature is made of.
pub(super) struct Cast {
    /// The run's settings.
    pub config: Config,
    /// The model's files.
    pub model: Arc<ModelFiles>,
    /// What is known of the run.
    pub view: RunView,
    /// The run's log.
    pub log: Arc<dyn Log>,
    /// The run's rubrics.
    pub rubrics: Arc<RubricRegistry>,
    /// What computes.
    pub device: SelectedDevice,
    /// How the policy is asked for prompts.
    pub writer: Arc<dyn PromptWriter>,
}

impl Cast {
    /// The policy that acts now.
    fn policy(&self) -> Result<PolicyRef, Error> {
        self.view
            .policy
            .clone()
            .ok_or_else(|| Error::refused(Code::RunNotBegun, "the run has no policy yet"))
    }

    /// The first prompts that the run would answer; where it has none yet, demonstrations.
    pub fn prompts(&self, most: usize) -> Result<Vec<Prompt>, Error> {
        let unused = self.view.unused();
        let ours = |facts: &PromptFacts| facts.origin != PromptOrigin::HeldOut;
        let others = self.view.prompts.iter().filter(|(_, facts)| ours(facts));
        let mut found: Vec<Prompt> = Vec::new();
        for (id, facts) in unused.chain(others) {
            if found.len() >= most {
                break;
            }
            let known = found.iter().any(|prompt| prompt.id == *id);
            let event = self.log.get(facts.offset)?.filter(|_| !known).map(|record| record.event);
            if let Some(Event::PromptAdmitted { prompt }) = event {
                found.push(prompt);
            }
        }
        match found.is_empty() {
            true => Err(Error::refused(
                Code::RunNotBegun,
                "the run has no prompts to measure with".to_owned(),
            )),
            false => Ok(found),
        }
    }

    /// A few of the seed rows, from all over them, as a blob.
    fn seed_rows(&self, from: &BlobStore, to: &BlobStore, most: usize) -> Result<Seeds, Error> {
        let mut lines = Vec::new();
        for facts in &self.view.seed_data {
            let bytes = from.read(&facts.blob)?;
            let rows = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
            lines.extend(rows.map(<[u8]>::to_vec));
        }
        let step = (lines.len() / most.max(1)).max(1);
        let picked: Vec<Vec<u8>> = lines.into_iter().step_by(step).take(most).collect();
        let rows = picked.len() as u32;
        Ok((to.put(&picked.join(&b'\n'))?, rows))
    }
}

type Seeds = (BlobHash, u32);

/// A miniature under way.
pub(super) struct RehearsedRun {
    pub context: StageContext,
    pub config: Config,
    pub view: RunView,
    pub watched: Arc<WatchedBackend>,
    /// Prompts of the miniature.
    pub prompts: usize,
    /// Prompts that gave a pair.
    pub paired: usize,
    _scratch: ScratchFolder,
}

/// The run's settings with smaller numbers. Batches of two sizes in turns show what a step costs by
/// its rows; the second segment goes on from a saved state.
fn smaller(config: &Config, prompts: usize) -> Config {
    let mut small = config.clone();
    let n = prompts as u32;
    small.iterations = 1;
    small.prompts.per_iteration = n;
    small.sampling.batch_prompts = n;
    small.judge.probes = 0;
    small.judge.source = JudgeSource::Model;
    let batch = (2 * n).div_ceil(3);
    (small.train.dpo.per_device_train_batch_size, small.train.dpo.num_train_epochs) = (batch, 3);
    (small.train.sft.per_device_train_batch_size, small.train.sft.num_train_epochs) = (batch, 3);
    small.train.save_steps = 2 * n.div_ceil(batch);
    small
}

impl RehearsedRun {
    /// Sets everything up; no model is opened yet.
    pub fn prepare(cast: &Cast, folder: &Folder) -> Result<RehearsedRun, Error> {
        let most = match parameters(cast.model.config()) < SMALL_MODEL_PARAMETERS {
            true => PROMPTS_OF_A_SMALL_MODEL,
            false => PROMPTS,
        };
        let most = most.min(cast.config.prompts.per_iteration as usize);
        let prompts = cast.prompts(most)?;
        let scratch = ScratchFolder::in_place_of(folder);
        let blobs = Arc::new(BlobStore::open(&scratch.0)?);
        let (from, policy) = (folder.blobs(), cast.policy()?);
        for hash in policy.blobs() {
            link(&from.path(hash), &blobs.path(hash))?;
        }
        let mut events: Vec<Event> =
            prompts.iter().map(|p| Event::PromptAdmitted { prompt: p.clone() }).collect();
        if !cast.view.seed_data.is_empty() {
            let (blob, rows) = cast.seed_rows(&from, &blobs, prompts.len())?;
            events.push(Event::SeedDataAdmitted { name: "seed".to_owned(), rows, blob });
        }
        let panel = cast.view.panel.clone();
        let panel =
            panel.ok_or_else(|| Error::refused(Code::RunNotBegun, "the run has no rubric yet"))?;
        events.push(Event::RubricActivated { panel, when: When::NextIteration, trial: None });
        let settings = serde_json::Value::Null;
        events.push(Event::RunStarted { seed: cast.config.seed, base: policy, settings });
        let model = cast.model.clone();
        let tokens = PolicyTokens::of(&model);
        let local = LocalModel::new(model, blobs.clone(), &cast.device, cast.config.dtype)?;
        let local = local.with_adapters_of_old(identity::adapters_of_old(&cast.view, &cast.config));
        let watched = Arc::new(WatchedBackend::new(local));
        let mut config = smaller(&cast.config, prompts.len());
        let local = (watched.clone(), tokens);
        let models = HostEngines::default().models(local, &mut config, folder)?;
        let context = StageContext {
            log: Arc::new(MemoryLog::default()),
            models: Arc::new(models),
            blobs,
            writer: cast.writer.clone(),
            rubrics: cast.rubrics.clone(),
            oracle: None,
            cancel: Cancel::default(),
            gauge: Arc::new(NoGauge),
            headroom: Arc::new(Ample),
        };
        let (view, prompts) = (RunView::default(), prompts.len());
        let mut new =
            RehearsedRun { context, config, view, watched, prompts, paired: 0, _scratch: scratch };
        new.record(None, events)?;
        Ok(new)
    }

    /// Bounds how long answers and replies may get.
    pub fn bound(&mut self, bounds: DrawBounds) {
        self.config.sampling.max_new_tokens = bounds.answer;
        self.config.judge.max_new_tokens = bounds.reply;
    }

    fn record(&mut self, key: Option<TaskKey>, events: Vec<Event>) -> Result<(), Error> {
        self.context.log.append(Batch { key, events, cursor: None })?;
        while self.view.follow(self.context.log.as_ref(), 512, |_| {})? > 0 {}
        Ok(())
    }

    /// Opens an iteration of a kind, in the place of the conductor.
    pub fn open(&mut self, kind: IterationKind) -> Result<(), Error> {
        let (iteration, _) = self.view.next_iteration();
        let missing = || Error::refused(Code::RunNotBegun, "the run has not begun".to_owned());
        let policy = self.view.policy.clone().ok_or_else(missing)?;
        let panel = self.view.panel.clone().ok_or_else(missing)?;
        let plan =
            planned(&self.config, &self.view, kind, (&policy, &panel)).ok_or_else(missing)?;
        let mut events = vec![Event::IterationStarted { iteration, plan: Box::new(plan) }];
        if kind == IterationKind::Dpo {
            let prompts = self.view.prompts.keys().cloned().collect();
            events.push(Event::PromptsSealed { iteration, prompts, left: 0 });
        }
        self.record(None, events)
    }

    /// Closes the open iteration.
    pub fn close(&mut self) -> Result<(), Error> {
        let Some((iteration, _)) = self.view.open() else { return Ok(()) };
        let reason = String::new();
        let outcome = crate::domain::event::IterationOutcome::NoSignal { reason };
        self.record(None, vec![Event::IterationFinished { iteration, outcome }])
    }

    /// The next task of a stage on its thread, if it has one.
    fn act<S: Stage + Default>(&mut self, hand: &Hand) -> Result<Option<Act>, Error> {
        let mut stage = S::default();
        let Some((key, task)) = stage.next(&self.view) else { return Ok(None) };
        let (view, context) = (self.view.clone(), self.context.clone());
        self.watched.take();
        forget_peak();
        let began = Instant::now();
        let events = hand.take(move || stage.run(task, &view, &context))??;
        let seconds = began.elapsed().as_secs_f64();
        let (calls, peak) = (self.watched.take(), peak_bytes());
        self.record(Some(key), events)?;
        Ok(Some(Act { seconds, calls, peak }))
    }

    /// Every task that a stage has now.
    fn acts<S: Stage + Default>(&mut self, hand: &Hand) -> Result<Vec<Act>, Error> {
        let mut all = Vec::new();
        while let Some(act) = self.act::<S>(hand)? {
            all.push(act);
        }
        Ok(all)
    }

    /// Writes some of the draws of a first round of prompts over all that the run knows; how many
    /// prompts were taken.
    pub fn write(&mut self, hands: &Hands, cast: &Cast, draws: u32) -> Result<(Act, u32), Error> {
        let (view, policy) = (cast.view.clone(), cast.policy()?);
        let context = StageContext { log: cast.log.clone(), ..self.context.clone() };
        let (iteration, _) = view.next_iteration();
        let missing = || Error::refused(Code::Defect, "the run writes no prompts".to_owned());
        let (engine, wanted) = (cast.config.engine(), cast.config.prompts.per_iteration);
        let mut writer = cast.config.writer_plan().ok_or_else(missing)?;
        writer.draws_per_round = draws;
        let task = WriteTask { iteration, policy, engine, round: 0, writer, wanted };
        let began = Instant::now();
        let events = hands.sampler.take(move || write_round(&task, &view, &context))??;
        let (seconds, calls) = (began.elapsed().as_secs_f64(), self.watched.take());
        let written = |event: &Event| match event {
            Event::PromptsWritten { admitted, .. } => Some(*admitted),
            _ => None,
        };
        let lost =
            || Error::refused(Code::Defect, "a round of writing prompts said nothing of itself");
        let admitted = events.iter().find_map(written).ok_or_else(lost)?;
        Ok((Act { seconds, calls, peak: 0 }, admitted))
    }

    /// Answers.
    pub fn sample(&mut self, hands: &Hands) -> Result<Vec<Act>, Error> {
        self.acts::<Sampler>(&hands.sampler)
    }

    /// Judges.
    pub fn judge(&mut self, hands: &Hands) -> Result<Vec<Act>, Error> {
        self.acts::<Judge>(&hands.judge)
    }

    /// Makes pairs as the run would, counts them, and for the prompts without one takes the first
    /// two answers: training is to be measured whatever the judge thinks.
    pub fn pair(&mut self) -> Result<(), Error> {
        let mut stage = PairStore;
        while let Some((key, task)) = stage.next(&self.view) {
            let mut events = stage.run(task, &self.view, &self.context)?;
            for event in &mut events {
                match event {
                    Event::PairFormed { .. } => self.paired += 1,
                    Event::PairSkipped { iteration, prompt, .. } => {
                        *event = Event::PairFormed {
                            iteration: *iteration,
                            pair: any_pair(*iteration, prompt),
                        };
                    }
                    _ => {}
                }
            }
            self.record(Some(key), events)?;
        }
        let Some((iteration, open)) = self.view.open() else { return Ok(()) };
        let pairs = open.pairs.values().map(|(id, _)| id.clone()).collect();
        self.record(None, vec![Event::PairsSealed { iteration, pairs, left: 0 }])
    }

    /// Scores the reference and trains; an act for each task.
    pub fn train(&mut self, hands: &Hands) -> Result<Vec<Act>, Error> {
        self.acts::<Trainer>(&hands.trainer)
    }

    /// Opens the checkpoint on the evaluator's thread, as measuring it begins.
    pub fn open_checkpoint(&mut self, hands: &Hands) -> Result<Option<Act>, Error> {
        let open = self.view.open().and_then(|(_, open)| open.checkpoint.clone());
        let Some(checkpoint) = open else { return Ok(None) };
        let (models, engine) = (self.context.models.clone(), self.config.engine());
        forget_peak();
        let began = Instant::now();
        let opened = move || models.answering(&checkpoint.policy, &engine).map(drop);
        hands.evaluator.take(opened)?.map_err(StageError::from)?;
        let (seconds, peak) = (began.elapsed().as_secs_f64(), peak_bytes());
        Ok(Some(Act { seconds, calls: self.watched.take(), peak }))
    }
}

fn any_pair(iteration: Iteration, prompt: &PromptId) -> PreferencePair {
    let side = |index| Side { text: TextRef::own(index), score: None, error: None, tokens: 0 };
    PreferencePair {
        id: crate::domain::PairId::of(iteration, prompt, 0),
        prompt: prompt.clone(),
        chosen: side(0),
        rejected: side(1),
        weight: 1.0,
        label: 1.0,
    }
}

/// The stages' threads.
pub(super) struct Hands {
    sampler: Hand,
    judge: Hand,
    trainer: Hand,
    evaluator: Hand,
}

impl Hands {
    pub fn start() -> Result<Hands, Error> {
        Ok(Hands {
            sampler: Hand::start("sampler")?,
            judge: Hand::start("judge")?,
            trainer: Hand::start("trainer")?,
            evaluator: Hand::start("evaluator")?,
        })
    }
}

/// The same blob at another place: a hard link where the file system has them.
fn link(from: &std::path::Path, to: &std::path::Path) -> Result<(), Error> {
    let folder = to.parent().unwrap_or(to);
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).map_err(|error| Error::io(from, error))?;
    }
    Ok(())
}
