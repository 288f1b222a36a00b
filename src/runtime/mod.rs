//! FRONT DOOR: create a run, start it, hand out [`Handle`]s, wait for a goal, stop it. Nothing
//! here is global: a process may hold as many runtimes as it has folders.

pub mod doctor;
mod draft;
mod drops;
pub mod estimate;
pub mod folder;
mod held_out;
pub mod identity;
pub mod inbox;
pub mod memory;
mod outcome;
mod panels;
mod present;
mod referees;
mod retention;
pub mod rubrics;
mod settings;
mod space;
mod spelling;
mod watched;

pub use folder::{Folder, NewRun, fold};
pub use held_out::HeldOutChange;
pub use outcome::{FailedIteration, Goal, Outcome};
pub use retention::Freed;
pub use settings::SettingsToCome;

use crate::actor::clock::SystemClock;
use crate::actor::{ActorSystem, StageStatus};
use crate::blob::{BlobError, BlobStore};
use crate::config::{Config, RubricsConfig};
use crate::domain::plan::Engine;
use crate::domain::{Event, Iteration, Offset, PolicyRef, Prompt, PromptId, PromptOrigin};
use crate::error::Error;
use crate::lm::cancel::Cancel;
use crate::lm::device::{DeviceChoice, Picked, pick};
use crate::lm::model_files::ModelFiles;
use crate::lm::threads;
use crate::log::{Appended, Batch, Clock, DurableLog, Health, Log, Recorded};
use crate::machine::{Found, Place};
use crate::rubric::RubricEngine;
use crate::stage::candle_workshop::CandleWorkshop;
use crate::stage::{Cause, Desk, Gauge, Headroom, NoGauge, Oracle, StageError, Workshop};
use crate::view::RunView;
use drops::Drops;
use estimate::Outline;
use memory::Reserve;
use rubrics::{Rubrics, Terms};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use watched::Watched;

/// How a runtime is put together.
pub struct Builder {
    folder: Folder,
    oracle: Option<Arc<dyn Oracle>>,
    gauge: Arc<dyn Gauge>,
    iterations: Option<u32>,
    device: Option<DeviceChoice>,
    clock: Arc<dyn Clock>,
    headroom: Option<Arc<dyn Headroom>>,
}

impl Builder {
    /// What says whether there is memory to begin a heavy task, instead of the system and
    /// `supervision.memory_reserve_mib`: a host knows what it needs itself.
    #[must_use]
    pub fn headroom(mut self, headroom: Arc<dyn Headroom>) -> Builder {
        self.headroom = Some(headroom);
        self
    }

    /// What tells the time that records carry, instead of the system. The time is for people: no
    /// order, no timeout and no state depends on it.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Builder {
        self.clock = clock;
        self
    }

    /// A program that knows the truth about completions; it measures, it never trains.
    #[must_use]
    pub fn oracle(mut self, oracle: Arc<dyn Oracle>) -> Builder {
        self.oracle = Some(oracle);
        self
    }

    /// Where progress goes.
    #[must_use]
    pub fn gauge(mut self, gauge: Arc<dyn Gauge>) -> Builder {
        self.gauge = gauge;
        self
    }

    /// How many iterations the run shall have in all, instead of what its settings say.
    #[must_use]
    pub fn iterations(mut self, iterations: u32) -> Builder {
        self.iterations = Some(iterations);
        self
    }

    /// What shall compute, instead of what the settings say.
    #[must_use]
    pub fn device(mut self, device: DeviceChoice) -> Builder {
        self.device = Some(device);
        self
    }

    /// Opens the folder and starts the actors: the run goes on where it stopped.
    ///
    /// # Errors
    /// When the folder holds no run, is in use, or its settings, model or log are damaged; when the
    /// device cannot be had; when the run would not fit into the memory that is free, the machine's
    /// or the device's (GRADUS0110; not asked where the host brought its own
    /// [`Builder::headroom`]).
    pub fn start(self) -> Result<Runtime, Error> {
        let log = self.folder.open_log_by(self.clock)?;
        let (config, model) = settings(&self.folder, self.iterations)?;
        threads::start()?;
        let device = pick(self.device.unwrap_or(config.device))?;
        tracing::info!(device = %device.kind, reason = %device.reason, "this computes");
        let path = self.folder.path().to_owned();
        let place = Place::of(&path).map_err(|error| Error::io(&path, error))?;
        space::watch(path.clone(), place.clone(), config.storage.clone(), &log)
            .map_err(|error| Error::io(&path, error))?;
        blobs_there(&self.folder)?;
        let blobs = self.folder.open_blobs(&log)?;
        let mut view = fold(log.as_ref())?;
        if view.seed.is_none() {
            return Err(Error::Unfinished(path));
        }
        if self.headroom.is_none() {
            let (model, kinds) = (model.config(), doctor::kinds(&view));
            memory::check_now(&Outline::of(model, &config, kinds, &device), &device)?;
        }
        identity::check(&config, &model, &self.folder, log.as_ref(), &mut view)?;
        let to_come = SettingsToCome::of(&config, &view);
        let held_out = held_out::obey(&config, log.as_ref(), &blobs, &mut view)?;
        let terms = Terms::of(&config, &model);
        let of_old = identity::adapters_of_old(&view, &config);
        let workshop = CandleWorkshop::new(model, blobs.clone(), &device, config.dtype)?;
        let workshop = Arc::new(workshop.with_adapters_of_old(of_old));
        workshop.discard(&view.superseded());
        let engine = RubricEngine::new()?;
        let registry = self.folder.open_rubrics(&engine)?;
        present::check(&config, &view, &registry, &self.folder)?;
        referees::check(&config, &view, &registry)?;
        let reserve = Reserve { mib: config.supervision.memory_reserve_mib };
        let config = Arc::new(config);
        let desk = Desk {
            log: log.clone(),
            workshop: workshop.clone(),
            rubrics: registry.clone(),
            oracle: self.oracle,
            cancel: Cancel::default(),
            gauge: self.gauge,
            headroom: self.headroom.unwrap_or_else(|| Arc::new(reserve)),
        };
        let shared: Arc<dyn Log> = log.clone();
        let view = Arc::new(Mutex::new(view));
        let dir = self.folder.rubrics();
        let rubrics = Rubrics::new(dir, &shared, view.clone(), registry, engine, terms);
        let watched = watch_rubrics(&self.folder, &config.rubrics, &rubrics)?;
        let system =
            ActorSystem::start(desk.clone(), config.clone()).map_err(|e| Error::io(path, e))?;
        let engine = config.engine();
        let handle = Handle { log: log.clone(), workshop, engine, view, rubrics };
        let system = Mutex::new(system);
        Ok(Runtime {
            handle,
            desk,
            config,
            to_come,
            place,
            device,
            held_out,
            log,
            blobs,
            system,
            _watched: watched,
        })
    }
}

/// A run's settings and its model, which fit each other; `iterations` is what the host wants instead.
fn settings(folder: &Folder, iterations: Option<u32>) -> Result<(Config, Arc<ModelFiles>), Error> {
    let mut config = Config::from_yaml(&folder.config())?;
    if let Some(iterations) = iterations {
        config.iterations = iterations.max(1);
        config.validate()?;
    }
    let model = ModelFiles::open(&folder.model())?;
    config.validate_for(model.config()).map_err(|error| error.at(&folder.config()))?;
    // A host may want everything to start and nothing to begin.
    if iterations == Some(0) {
        config.iterations = 0;
    }
    Ok((config, Arc::new(model)))
}

/// Refuses to begin without the run's blobs: an empty folder in their place would be in the way of
/// whoever brings them back.
fn blobs_there(folder: &Folder) -> Result<(), BlobError> {
    let path = folder.path().join("blobs");
    match std::fs::metadata(&path) {
        Ok(_) => Ok(()),
        Err(error) => Err(BlobError::Away { path, reason: error.to_string() }),
    }
}

/// Watches for what other processes ask, and for components in the watched folder.
fn watch_rubrics(
    folder: &Folder,
    settings: &RubricsConfig,
    rubrics: &Rubrics,
) -> Result<Vec<Watched>, Error> {
    let watch = |name: &str, dir: PathBuf, quiet: Duration, look: Box<dyn FnMut() + Send>| {
        std::fs::create_dir_all(&dir)
            .and_then(|()| Watched::start(name, dir.clone(), quiet, look))
            .map_err(|error| Error::io(dir, error))
    };
    let (inbox, ours) = (folder.inbox(), rubrics.clone());
    let answer = {
        let inbox = inbox.clone();
        move || inbox::answer_all(&inbox, &ours)
    };
    let mut all = vec![watch("inbox", inbox, Duration::ZERO, Box::new(answer))?];
    if !settings.watch.is_empty() {
        let dir = folder.path().join(&settings.watch);
        let mut drops = Drops::new(dir.clone(), rubrics.clone(), settings.watch_when);
        let quiet = Duration::from_millis(200);
        all.push(watch("watch", dir, quiet, Box::new(move || drops.look()))?);
    }
    Ok(all)
}

/// A running run. Dropping it stops it without loss.
pub struct Runtime {
    handle: Handle,
    desk: Desk,
    config: Arc<Config>,
    to_come: Option<SettingsToCome>,
    place: Place,
    device: Picked,
    held_out: Option<HeldOutChange>,
    log: Arc<DurableLog>,
    blobs: Arc<BlobStore>,
    system: Mutex<ActorSystem>,
    _watched: Vec<Watched>,
}

impl Runtime {
    /// A runtime over a folder that `init` or [`Folder::create`] laid out.
    pub fn builder(dir: impl Into<PathBuf>) -> Builder {
        Builder {
            folder: Folder::at(dir),
            oracle: None,
            gauge: Arc::new(NoGauge),
            iterations: None,
            device: None,
            clock: Arc::new(SystemClock),
            headroom: None,
        }
    }

    /// A handle that may be cloned and sent anywhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What computes, and why.
    pub fn device(&self) -> &Picked {
        &self.device
    }

    /// What a change of `prompts.held_out` came to, where it was changed since the last start.
    pub fn held_out_change(&self) -> Option<&HeldOutChange> {
        self.held_out.as_ref()
    }

    /// What of the settings counts from the next iteration on, where they were changed.
    pub fn settings_to_come(&self) -> Option<&SettingsToCome> {
        self.to_come.as_ref()
    }

    /// What every stage is doing.
    pub fn stages(&self) -> Vec<StageStatus> {
        self.system.lock().unwrap_or_else(PoisonError::into_inner).status()
    }

    /// Waits until the goal is reached or `stop` is set. `tick` is called about ten times a
    /// second with what is known, for a screen. Drops old iterations after each one, as
    /// `storage.keep_iterations` says; a host that waits in its own way calls [`Runtime::retain`].
    ///
    /// # Errors
    /// When the log cannot be read to begin with. When it refuses later, what is known stays as it
    /// was, and the stages wait until it can be read.
    pub fn wait(
        &self,
        goal: Goal,
        stop: &Cancel,
        mut tick: impl FnMut(&RunView),
    ) -> Result<Outcome, Error> {
        let bell = self.desk.log.subscribe();
        let mut view = self.handle.view()?;
        let before = outcome::over(&view);
        let mut finished = None;
        loop {
            tick(&view);
            if finished.replace(view.finished()) != Some(view.finished()) {
                self.workshop().discard(&view.superseded_by_the_end());
                self.retain_as_configured();
            }
            if stop.is_cancelled() {
                return Ok(Outcome::Stopped);
            }
            if let Some(end) = self.end(goal, &view, &before) {
                return Ok(end);
            }
            let _ = bell.recv_timeout(Duration::from_millis(100));
            match self.handle.view() {
                Ok(known) => view = known,
                Err(Error::Log(error))
                    if StageError::from(error.clone()).cause() == Cause::Shortage =>
                {
                    tracing::debug!(%error, "the log cannot be read at present");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Why waiting for a goal ends now, if it does; `before` were over when it began.
    fn end(&self, goal: Goal, view: &RunView, before: &BTreeSet<Iteration>) -> Option<Outcome> {
        let log = self.log.as_ref();
        let to_an_end = goal == Goal::Iterations;
        if let Some(failed) = outcome::stopped_by(view, log).filter(|_| to_an_end) {
            return Some(Outcome::Failed(failed));
        }
        if to_an_end && view.finished() >= self.config.iterations {
            return Some(outcome::reached(view, before, log));
        }
        if let Some(reason) = self.lost() {
            return Some(Outcome::Lost(reason));
        }
        self.halted().or_else(|| outcome::paused(view)).filter(|_| to_an_end)
    }

    /// What is gone that this process does not get back, if anything is.
    fn lost(&self) -> Option<String> {
        let lost = self.stages().into_iter().find_map(|stage| stage.state.lost);
        lost.or_else(|| {
            let folder = self.place.path().display();
            (self.place.look() == Found::Another).then(|| {
                format!(
                    "{folder} is not the folder any more that the run was started in, but another. \
                     Put the right one back in its place"
                )
            })
        })
    }

    /// Drops what iterations older than the last `keep` finished ones left: completions, judgments,
    /// pairs, checkpoints on the way. What they came to stays.
    ///
    /// # Errors
    /// When there is no space, or the log is damaged; nothing that is needed is gone then.
    pub fn retain(&self, keep: u32) -> Result<Freed, Error> {
        retention::retain(&self.log, &self.blobs, keep)
    }

    /// After an iteration, where the settings want it. That it fails must not stop a run.
    fn retain_as_configured(&self) {
        let keep = self.config.storage.keep_iterations;
        if keep == 0 {
            return;
        }
        match self.retain(keep) {
            Ok(freed) => tracing::info!(?freed, "old iterations were compacted"),
            Err(error) => tracing::warn!(%error, "old iterations stay for now"),
        }
    }

    fn workshop(&self) -> &CandleWorkshop {
        &self.handle.workshop
    }

    /// The first stage that waits for the host, as an outcome.
    fn halted(&self) -> Option<Outcome> {
        self.stages().into_iter().find_map(|s| {
            let (stage, reason) = (s.stage.to_owned(), s.state.halted?);
            Some(Outcome::Halted { stage, reason })
        })
    }

    /// Whether the log takes events.
    pub fn log_health(&self) -> Health {
        self.desk.log.health()
    }

    /// Stops at the next safe point; what was recorded is durable when this returns.
    pub fn shutdown(self) {
        self.system.lock().unwrap_or_else(PoisonError::into_inner).stop();
    }
}

/// What a host may do with a run.
#[derive(Clone)]
pub struct Handle {
    log: Arc<dyn Log>,
    workshop: Arc<CandleWorkshop>,
    engine: Engine,
    view: Arc<Mutex<RunView>>,
    rubrics: Rubrics,
}

impl Handle {
    /// The run's rubrics: to install, activate and roll back.
    pub fn rubrics(&self) -> &Rubrics {
        &self.rubrics
    }

    /// Everything that is known now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn view(&self) -> Result<RunView, Error> {
        rubrics::known(&self.view, self.log.as_ref())
    }

    fn append(&self, events: Vec<Event>) -> Result<Offset, Error> {
        match self.log.append(Batch { key: None, events, cursor: None })? {
            Appended::New { first, .. } | Appended::Duplicate { first } => Ok(first),
        }
    }

    /// Adds prompts to train on; those the run knows already are left out. So are those that nearly
    /// equal a held-out one, which is recorded ([`Event::PromptRejected`]). Gives the ids of the new
    /// ones.
    ///
    /// # Errors
    /// When the log cannot be read or written; the prompts are not lost, the caller still has them.
    pub fn submit(&self, prompts: &[Prompt]) -> Result<Vec<PromptId>, Error> {
        let view = self.view()?;
        let mut new: Vec<Prompt> = Vec::new();
        for prompt in prompts {
            if !view.prompts.contains_key(&prompt.id) && !new.iter().any(|p| p.id == prompt.id) {
                new.push(prompt.clone());
            }
        }
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let held = held_out::index(self.log.as_ref(), &view)?;
        let is_held = |prompt: &Prompt| held.in_chat(&prompt.messages).is_some();
        let (refused, new): (Vec<_>, Vec<_>) = new
            .into_iter()
            .partition(|prompt| prompt.origin != PromptOrigin::HeldOut && is_held(prompt));
        let admitted = new.iter().map(|p| Event::PromptAdmitted { prompt: p.clone() });
        let refused = refused.iter().map(|prompt| Event::PromptRejected {
            text: prompt.task_text().to_owned(),
            reason: "nearly equals a held-out prompt, which is measured on".to_owned(),
        });
        self.append(admitted.chain(refused).collect())?;
        Ok(new.into_iter().map(|p| p.id).collect())
    }

    /// Asks all stages to finish their task and wait.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn pause(&self) -> Result<Offset, Error> {
        self.append(vec![Event::PauseRequested])
    }

    /// Asks all stages to go on.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn resume(&self) -> Result<Offset, Error> {
        self.append(vec![Event::ResumeRequested])
    }

    /// The promoted policy, opened: serve it until [`Event::CheckpointPromoted`] names another.
    ///
    /// # Errors
    /// When its blobs are missing or damaged.
    pub fn policy(&self) -> Result<(PolicyRef, Arc<crate::lm::policy::Policy>), Error> {
        let view = self.view()?;
        let policy =
            view.policy.ok_or_else(|| Error::Usage("the run has no policy yet".to_owned()))?;
        let opened = self.workshop.open(&policy, &self.engine)?;
        Ok((policy, opened))
    }

    /// Reads the log from an offset on, waiting for what is to come.
    pub fn subscribe(&self, from: Offset) -> Subscription {
        let bell = self.log.subscribe();
        Subscription { log: self.log.clone(), bell, next: from, ready: Vec::new().into_iter() }
    }
}

/// A reader of the log that waits at its tail. A slow reader holds nobody up.
pub struct Subscription {
    log: Arc<dyn Log>,
    bell: crossbeam_channel::Receiver<()>,
    next: Offset,
    ready: std::vec::IntoIter<Recorded>,
}

impl Subscription {
    /// The next record, or `None` when none came within `patience`.
    ///
    /// # Errors
    /// When the log cannot be read, or was compacted and does not have what comes next.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Recorded>, Error> {
        if let Some(record) = self.ready.next() {
            return Ok(Some(record));
        }
        for attempt in 0..2 {
            let records = self.log.read(self.next, 256)?;
            let gap = records.iter().zip(self.next.0..).find(|(r, at)| r.offset.0 != *at);
            if let Some((record, at)) = gap {
                let (from, to) = (Offset(at), record.offset);
                return Err(crate::log::LogError::Dropped { from, to }.into());
            }
            if let Some(last) = records.last() {
                self.next = Offset(last.offset.0 + 1);
                self.ready = records.into_iter();
                return Ok(self.ready.next());
            }
            if attempt == 0 {
                let _ = self.bell.recv_timeout(patience);
            }
        }
        Ok(None)
    }
}
