//! How a runtime is put together and started.

use super::drops::Drops;
use super::estimate::Outline;
use super::memory::Reserve;
use super::rubrics::{Rubrics, Terms};
use super::watched::Watched;
use super::{
    Folder, Handle, Runtime, SettingsToCome, doctor, fold, held_out, identity, inbox, memory,
    present, referees, space,
};
use crate::actor::ActorSystem;
use crate::actor::clock::SystemClock;
use crate::blob::BlobError;
use crate::config::{Config, RubricsConfig};
use crate::error::Error;
use crate::lm::cancel::Cancel;
use crate::lm::device::{DeviceChoice, select};
use crate::lm::model_files::ModelFiles;
use crate::lm::threads;
use crate::log::{Clock, Log};
use crate::machine::Place;
use crate::rubric::RubricEngine;
use crate::stage::candle_workshop::CandleWorkshop;
use crate::stage::{Gauge, Headroom, NoGauge, Oracle, StageContext, Workshop};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    pub(super) fn at(folder: Folder) -> Builder {
        Builder {
            folder,
            oracle: None,
            gauge: Arc::new(NoGauge),
            iterations: None,
            device: None,
            clock: Arc::new(SystemClock),
            headroom: None,
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
        let device = select(self.device.unwrap_or(config.device))?;
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
        let context = StageContext {
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
            ActorSystem::start(context.clone(), config.clone()).map_err(|e| Error::io(path, e))?;
        let engine = config.engine();
        let handle = Handle { log: log.clone(), workshop, engine, view, rubrics };
        let system = Mutex::new(system);
        Ok(Runtime {
            handle,
            context,
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
