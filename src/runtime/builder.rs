//! How a runtime is put together and started.

use super::admission::AdmissionIndex;
use super::answering::AnsweringPolicies;
use super::background::on_a_thread;
use super::component_folder::ComponentFolder;
use super::core::{Core, Live};
use super::intake::Intake;
use super::memory::Reserve;
use super::rubrics::{Rubrics, Terms};
use super::running::{Runtime, RuntimeState, Working, watch_tail};
use super::settings::ComparedSettings;
use super::socket::Listener;
use super::status::Progress;
use super::watched::WatchedFolder;
use super::{
    Folder, Handle, HeldOutChange, SettingsToCome, fold, held_out, identity, models, present,
    referees, space, status_file, tensorboard,
};
use crate::actor::ActorSystem;
use crate::actor::clock::SystemClock;
use crate::blob::{BlobError, BlobStore};
use crate::config::{Config, RubricsConfig};
use crate::domain::BlobHash;
use crate::engine::local::LocalModel;
use crate::engine::{self, Engine, ModelBackend, Scorer, TrainBackend};
use crate::error::Error;
use crate::estimate::{self, Kinds, Outline};
use crate::lm::cancel::Cancel;
use crate::lm::device::{DeviceChoice, SelectedDevice, select};
use crate::lm::model_files::ModelFiles;
use crate::lm::threads;
use crate::log::{Clock, DurableLog, Log};
use crate::machine::Place;
use crate::rubric::RubricEngine;
use crate::stage::{Gauge, Headroom, NoGauge, Oracle, PromptWriter, StageContext};
use crate::view::{LiveView, RunView};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a runtime is put together.
pub struct Builder {
    folder: Folder,
    oracle: Option<Arc<dyn Oracle>>,
    gauge: Arc<dyn Gauge>,
    iterations: Option<u32>,
    set: Vec<String>,
    device: Option<DeviceChoice>,
    clock: Arc<dyn Clock>,
    headroom: Option<Arc<dyn Headroom>>,
    brought: models::HostEngines,
}

impl Runtime {
    /// A runtime over a folder that `init` or [`Folder::create`] laid out.
    pub fn builder(dir: impl Into<PathBuf>) -> Builder {
        Builder::at(Folder::at(dir))
    }
}

impl Builder {
    fn at(folder: Folder) -> Builder {
        Builder {
            folder,
            oracle: None,
            gauge: Arc::new(NoGauge),
            iterations: None,
            set: Vec::new(),
            device: None,
            clock: Arc::new(SystemClock),
            headroom: None,
            brought: models::HostEngines::default(),
        }
    }

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

    /// Settings, as `key=value` (`train.dpo.beta=0.2`), instead of what the file says, for as long as this
    /// runtime works. They are recorded as settings are, and count from the next iteration on.
    #[must_use]
    pub fn settings(mut self, settings: impl IntoIterator<Item = String>) -> Builder {
        self.set.extend(settings);
        self
    }

    /// What shall compute, instead of what the settings say.
    #[must_use]
    pub fn device(mut self, device: DeviceChoice) -> Builder {
        self.device = Some(device);
        self
    }

    /// What answers with the run's policies, instead of the model on this machine. Where it gives text
    /// alone, answers are trained on as the policy's tokenizer spells them.
    #[must_use]
    pub fn engine(mut self, engine: Arc<dyn Engine>) -> Builder {
        self.brought.engine = Some(engine);
        self
    }

    /// A model beside the run's own, by the name that `judge.engine` or `sampling.engine` calls it; it
    /// comes before one of that name under `engines`.
    #[must_use]
    pub fn named_engine(mut self, name: impl Into<String>, engine: Arc<dyn Engine>) -> Builder {
        self.brought.named.insert(name.into(), engine);
        self
    }

    /// What says how likely given text is under the reference, instead of the model on this machine.
    #[must_use]
    pub fn scorer(mut self, scorer: Arc<dyn Scorer>) -> Builder {
        self.brought.scorer = Some(scorer);
        self
    }

    /// What trains, instead of the model on this machine. It saves checkpoints among the run's blobs:
    /// a [`BlobStore`] over the folder's `blobs`.
    #[must_use]
    pub fn train_backend(mut self, trainer: Arc<dyn TrainBackend>) -> Builder {
        self.brought.trainer = Some(trainer);
        self
    }

    /// How the policy is asked for new prompts, instead of a numbered list.
    #[must_use]
    pub fn prompt_writer(mut self, writer: Arc<dyn PromptWriter>) -> Builder {
        self.brought.writer = Some(writer);
        self
    }

    /// Opens the folder and starts the actors, for callers that may wait: the run goes on where it
    /// stopped.
    ///
    /// # Errors
    /// When the folder holds no run, is in use, or its settings, model or log are damaged; when the
    /// device cannot be had; when the run would not fit into the memory that is free, the machine's
    /// or the device's ([`Code::NotEnoughMemory`](crate::Code::NotEnoughMemory); not asked where the host brought its own
    /// [`Builder::headroom`]).
    pub fn start_blocking(self) -> Result<Runtime, Error> {
        let log = self.folder.open_log_by(self.clock.clone())?;
        let (mut config, model) = settings(&self.folder, self.iterations, &self.set)?;
        threads::start()?;
        let device = select(self.device.unwrap_or(config.device))?;
        tracing::info!(device = %device.kind, reason = %device.reason, "this computes");
        let path = self.folder.path().to_owned();
        let place = Place::of(&path).map_err(|error| Error::io(&path, error))?;
        space::watch(path.clone(), place.clone(), config.storage.clone(), &log)
            .map_err(|error| Error::io(&path, error))?;
        blobs_there(&self.folder)?;
        let blobs = self.folder.open_blobs(&log)?;
        let mut view = fold::fold(log.as_ref())?;
        // Of every iteration, also of those that are forgotten now.
        let superseded = view.superseded();
        view.forget_finished();
        if view.seed.is_none() {
            return Err(Error::Unfinished(path));
        }
        if self.headroom.is_none() {
            let (model, kinds) = (model.config(), Kinds::of(&view));
            config.brought.memory_bytes = engine::memory_bytes(&config, self.folder.path());
            estimate::check_now(&Outline::of(model, &config, kinds, &device), &device)?;
        }
        identity::check(&config, &model, &self.folder, log.as_ref(), &mut view)?;
        let to_come = SettingsToCome::of(&config, &view);
        let held_out = held_out::obey(&config, log.as_ref(), &blobs, &mut view)?;
        let ready = ReadyRun {
            log,
            config,
            model,
            device,
            place,
            blobs,
            view,
            superseded,
            to_come,
            held_out,
        };
        self.launch(ready)
    }

    /// As [`Builder::start_blocking`], for a host that awaits.
    ///
    /// # Errors
    /// As [`Builder::start_blocking`].
    pub async fn start(self) -> Result<Runtime, Error> {
        on_a_thread(move || self.start_blocking()).await
    }

    fn launch(self, ready: ReadyRun) -> Result<Runtime, Error> {
        let ReadyRun {
            log,
            mut config,
            model,
            device,
            place,
            blobs,
            view,
            superseded,
            to_come,
            held_out,
        } = ready;
        let (terms, answering) = (Terms::of(&config, &model), AnsweringPolicies::default());
        let of_old = identity::adapters_of_old(&view, &config);
        let local = LocalModel::new(model, blobs.clone(), &device, config.dtype)?;
        let local = Arc::new(local.with_adapters_of_old(of_old));
        let (writer, models) = bring(self.brought, &local, &mut config, &self.folder)?;
        models::check(&models, &config, &view)?;
        models.trainer().discard(&superseded);
        let engine = RubricEngine::new()?;
        let registry = self.folder.open_rubrics(&engine)?;
        present::check(&config, &view, &registry)?;
        referees::check(&config, &view, &registry)?;
        let (config, progress) = (Arc::new(config), Arc::new(Progress::passed_on_to(self.gauge)));
        let context = StageContext {
            log: log.clone(),
            models: models.clone(),
            blobs: blobs.clone(),
            writer,
            rubrics: registry.clone(),
            oracle: self.oracle,
            cancel: answering.behind(),
            gauge: progress.clone(),
            headroom: self.headroom.unwrap_or_else(|| Reserve::of(&config)),
        };
        let (work, view) = (context.cancel.clone(), Arc::new(LiveView::new(view)));
        let (dir, held): (_, Arc<dyn Log>) = (self.folder.rubrics(), log.clone());
        let rubrics = Rubrics::new(dir, &held, view.clone(), registry, engine, terms);
        let io = |error| Error::io(self.folder.path(), error);
        let (tail, tail_watch) = watch_tail(&log).map_err(io)?;
        let watched = watch_rubrics(&self.folder, &config.rubrics, &rubrics)?;
        let system = ActorSystem::start(context, config.clone(), view.clone()).map_err(io)?;
        let live = Live {
            local,
            models,
            config: config.clone(),
            settings: ComparedSettings::of(config.clone()),
            clock: self.clock,
            device: device.kind.to_string(),
            progress,
            stages: system.states().clone(),
            stop: Cancel::default(),
            work,
            answering,
            intake: Intake::of(&config)?,
        };
        let (admission, kept, live) = (AdmissionIndex::default(), blobs.clone(), Some(live));
        let core = Arc::new(Core { log, view, admission, rubrics, blobs: kept, live });
        let status_file = status_file::keep(self.folder.status(), &core).map_err(io)?;
        let tensorboard = tensorboard::keep(self.folder.tensorboard(), &core).map_err(io)?;
        let listener = listen(&self.folder, &core);
        let working =
            Working { status_file, tensorboard, watched, listener, system, tail: tail_watch };
        let handle = Handle { core: Arc::downgrade(&core), tail };
        let (core, working) = (Mutex::new(Some(core)), Mutex::new(Some(working)));
        let inner =
            RuntimeState { handle, core, working, config, to_come, place, device, held_out, blobs };
        Ok(Runtime { inner: Arc::new(inner) })
    }
}

/// How the policy is asked for prompts, and which models the run has, by what the host brings and the
/// settings name.
fn bring(
    brought: models::HostEngines,
    local: &Arc<LocalModel>,
    config: &mut Config,
    folder: &Folder,
) -> Result<(Arc<dyn PromptWriter>, Arc<ModelBackend>), Error> {
    let writer = brought.writer(config)?;
    let ours = (local.clone(), local.tokens());
    Ok((writer, Arc::new(brought.models(ours, config, folder)?)))
}

/// What a run needs to be launched, looked through.
struct ReadyRun {
    log: Arc<DurableLog>,
    config: Config,
    model: Arc<ModelFiles>,
    device: SelectedDevice,
    place: Place,
    blobs: Arc<BlobStore>,
    view: RunView,
    superseded: Vec<BlobHash>,
    to_come: Option<SettingsToCome>,
    held_out: Option<HeldOutChange>,
}

/// A run on a file system without sockets works, and only its own process can ask it.
fn listen(folder: &Folder, core: &Arc<Core>) -> Option<Listener> {
    let listener = Listener::start(folder, core);
    let folder = folder.path().display().to_string();
    listener
        .inspect_err(|error| {
            tracing::warn!(folder, %error, "no other process can ask this run: it has no socket");
        })
        .ok()
}

/// A run's settings and its model, which fit each other; `iterations` is what the host wants instead.
fn settings(
    folder: &Folder,
    iterations: Option<u32>,
    set: &[String],
) -> Result<(Config, Arc<ModelFiles>), Error> {
    let mut config = Config::from_yaml(&folder.config())?;
    config.set_all(set)?;
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

/// Watches for components in the watched folder.
fn watch_rubrics(
    folder: &Folder,
    settings: &RubricsConfig,
    rubrics: &Rubrics,
) -> Result<Vec<WatchedFolder>, Error> {
    if settings.watch.is_empty() {
        return Ok(Vec::new());
    }
    let dir = folder.path().join(&settings.watch);
    let mut components = ComponentFolder::new(dir.clone(), rubrics.clone(), settings.watch_when);
    let quiet = Duration::from_millis(200);
    std::fs::create_dir_all(&dir)
        .and_then(|()| WatchedFolder::start("watch", dir.clone(), quiet, move || components.look()))
        .map(|watched| vec![watched])
        .map_err(|error| Error::io(dir, error))
}
