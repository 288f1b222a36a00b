//! A run's folder: what lies where, and how a new one is laid out.
//!
//! ```text
//! DIR/gradus.yaml     the settings
//! DIR/log/            the log (a journal, and a sled store)
//! DIR/blobs/          weights, optimiser states, seed data, by hash
//! DIR/model/          config.json, tokenizer.json, ... of the base, without weights
//! DIR/rubrics/        installed components, by hash
//! DIR/watch/          a component that appears here is installed (rubrics.watch)
//! DIR/inbox/          requests of other processes to the one that works on the run
//! DIR/doctor/         blobs of a measurement under way (`gradus doctor`), removed after it
//! DIR/status.json     what a running process was doing a second ago; never truth
//! ```

use super::retention::{Freed, retain};
use super::rubrics::{Rubrics, Terms, keep};
use super::spelling;
use crate::actor::clock::SystemClock;
use crate::blob::BlobStore;
use crate::config::{Config, ReadoutMode};
use crate::domain::event::SeedRow;
use crate::domain::{Event, Offset, Panel, PolicyRef, Prompt, RubricId, TaskKey, When};
use crate::error::Error;
use crate::lm::model_files::ModelFiles;
use crate::lm::weights::{WeightDtype, Weights};
use crate::log::{Batch, Clock, DurableLog, JournalLog, Log, Loss, Verified};
use crate::rubric::{Rubric, RubricEngine, RubricRegistry};
use crate::view::RunView;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Records folded at a time.
pub(crate) const FOLD_RECORDS: usize = 512;
/// Prompts in one commit: small enough that a commit stays far below sled's segment.
const PROMPTS_PER_COMMIT: usize = 100;

/// What a new run begins with.
pub struct NewRun {
    /// The settings.
    pub config: Config,
    /// The base: files, and weights as the model room loaded them.
    pub model: ModelFiles,
    /// Weights that act first.
    pub weights: Weights,
    /// Prompts to train on and held-out ones.
    pub prompts: Vec<Prompt>,
    /// Named rows for supervised fine-tuning; none skips that iteration.
    pub seed_data: Vec<(String, Vec<SeedRow>)>,
    /// The rubric component.
    pub rubric: Vec<u8>,
}

/// Paths of a run.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `dir`; nothing is touched.
    pub fn at(dir: impl Into<PathBuf>) -> Folder {
        Folder(dir.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The settings file.
    pub fn config(&self) -> PathBuf {
        self.0.join("gradus.yaml")
    }

    /// The base's files.
    pub fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    /// Where a running process says what it does.
    pub fn status(&self) -> PathBuf {
        self.0.join("status.json")
    }

    pub(crate) fn rubrics(&self) -> PathBuf {
        self.0.join("rubrics")
    }

    pub(super) fn inbox(&self) -> PathBuf {
        self.0.join("inbox")
    }

    /// The rubrics of a run that nobody works on, and the log that they are changed in.
    pub(super) fn rubrics_alone(&self) -> Result<(Arc<dyn Log>, Rubrics), Error> {
        let log: Arc<dyn Log> = self.open_log()?;
        let config = Config::from_yaml(&self.config())?;
        let terms = Terms::of(&config, &Arc::new(ModelFiles::open(&self.model())?));
        let engine = RubricEngine::new()?;
        let registry = self.open_rubrics(&engine)?;
        let rubrics = Rubrics::new(self.rubrics(), &log, Arc::default(), registry, engine, terms);
        Ok((log, rubrics))
    }

    /// The bytes of an installed component.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn component(&self, rubric: &RubricId) -> Result<Vec<u8>, Error> {
        let path = self.rubrics().join(format!("{rubric}.wasm"));
        std::fs::read(&path).map_err(|error| Error::io(&path, error))
    }

    /// Whether there is a run.
    pub fn holds_run(&self) -> bool {
        self.config().is_file() && self.0.join("log").is_dir()
    }

    /// Opens the log; one process at a time.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says: in use, damaged, newer format.
    pub fn open_log(&self) -> Result<Arc<DurableLog>, Error> {
        self.open_log_by(Arc::new(SystemClock))
    }

    /// Like [`Folder::open_log`], with a clock of the caller's.
    ///
    /// # Errors
    /// Those of [`Folder::open_log`].
    pub fn open_log_by(&self, clock: Arc<dyn Clock>) -> Result<Arc<DurableLog>, Error> {
        if !self.holds_run() {
            return Err(Error::NoRun(self.0.clone()));
        }
        Ok(Arc::new(DurableLog::open(&self.0.join("log"), clock)?))
    }

    /// Opens the log for reading alone, beside a running process or without one.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says.
    pub fn read_log(&self) -> Result<JournalLog, Error> {
        if !self.holds_run() {
            return Err(Error::NoRun(self.0.clone()));
        }
        Ok(JournalLog::open(&self.0.join("log"))?)
    }

    /// The process that works on the run, if one does.
    pub fn holder(&self) -> Option<String> {
        crate::log::holder(&self.0.join("log"))
    }

    /// Checks the log: both copies, or the journal alone while a process works on the run.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says when it cannot be read at all.
    pub fn verify_log(&self) -> Result<Verified, Error> {
        if !self.holds_run() {
            return Err(Error::NoRun(self.0.clone()));
        }
        Ok(match self.holder() {
            Some(_) => crate::log::verify_folder(&self.0.join("log"))?,
            None => self.open_log()?.verify()?,
        })
    }

    /// Mends the log from what its two copies have, and says what was mended.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says: in use, or lost records with [`Loss::Refuse`].
    pub fn rebuild_log(&self, loss: Loss) -> Result<Vec<String>, Error> {
        if !self.holds_run() {
            return Err(Error::NoRun(self.0.clone()));
        }
        Ok(DurableLog::rebuild(&self.0.join("log"), Arc::new(SystemClock), loss)?)
    }

    /// Drops what iterations older than the last `keep` finished ones left; see
    /// [`super::Runtime::retain`]. For a run that nobody works on.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says: in use, damaged, no space.
    pub fn retain(&self, keep: u32) -> Result<Freed, Error> {
        retain(self.open_log()?.as_ref(), self.open_blobs()?.as_ref(), keep)
    }

    /// Opens the blob store.
    ///
    /// # Errors
    /// What the blob store says.
    pub fn open_blobs(&self) -> Result<Arc<BlobStore>, Error> {
        Ok(Arc::new(BlobStore::open(&self.0.join("blobs"))?))
    }

    /// Loads every installed rubric.
    ///
    /// # Errors
    /// When a file cannot be read or a component is not valid any more.
    pub fn open_rubrics(&self, engine: &RubricEngine) -> Result<Arc<RubricRegistry>, Error> {
        let registry = RubricRegistry::default();
        let dir = self.rubrics();
        let entries = std::fs::read_dir(&dir).map_err(|e| Error::io(&dir, e))?;
        for entry in entries {
            let path = entry.map_err(|e| Error::io(&dir, e))?.path();
            if path.extension().is_some_and(|e| e == "wasm") {
                let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
                registry.install(Rubric::load(engine, &bytes)?);
            }
        }
        Ok(Arc::new(registry))
    }

    /// Lays out a new run. Safe to repeat after a crash: what was written is written again, what
    /// was recorded is not recorded twice, and the run exists once `RunStarted` is durable.
    ///
    /// # Errors
    /// [`Error::RunExists`] when the folder holds a started run, else what failed.
    pub fn create(&self, new: &NewRun) -> Result<(), Error> {
        new.config.validate()?;
        if self.holds_run() && fold(self.open_log()?.as_ref())?.seed.is_some() {
            return Err(Error::RunExists(self.0.clone()));
        }
        // Before anything is written.
        let rubric = Rubric::load(&RubricEngine::new()?, &new.rubric)?;
        if new.config.judge.readout != ReadoutMode::Parsed {
            spelling::check(new.model.tokenizer(), &rubric)?;
        }
        for dir in [self.0.clone(), self.rubrics(), self.0.join("log"), self.model()] {
            std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
        }
        keep(&self.rubrics(), rubric.id(), &new.rubric)?;
        new.model.write_texts(&self.model())?;
        let blobs = self.open_blobs()?;
        let base = PolicyRef {
            weights: blobs.put(&new.weights.to_bytes(WeightDtype::F32)?)?,
            adapter: None,
        };
        let text = new.config.to_commented_yaml();
        std::fs::write(self.config(), text).map_err(|e| Error::io(self.config(), e))?;
        let log = self.open_log()?;
        record_new(new, log.as_ref(), &blobs, &rubric, base)
    }

    /// Copies the run as it was before record `until` to another folder, with other settings: the
    /// log up to there, and everything it names. Blobs are immutable, so they are hard links
    /// where the file system has them.
    ///
    /// # Errors
    /// [`Error::RunExists`] when `to` holds a run, else what failed.
    pub fn fork(&self, to: &Folder, until: Offset, config: &Config) -> Result<(), Error> {
        config.validate()?;
        if to.holds_run() && to.open_log()?.tail() >= until {
            return Err(Error::RunExists(to.0.clone()));
        }
        for part in ["model", "rubrics", "blobs"] {
            copy_tree(&self.0.join(part), &to.0.join(part))?;
        }
        std::fs::create_dir_all(to.0.join("log")).map_err(|e| Error::io(&to.0, e))?;
        let text = config.to_commented_yaml();
        std::fs::write(to.config(), text).map_err(|e| Error::io(to.config(), e))?;
        let (from, log) = (self.read_log()?, to.open_log()?);
        if let Some(base) = from.base() {
            let (dir, floor) = (self.0.display(), base.floor());
            let why = format!("{dir} was compacted: not all records before {floor} are there");
            return Err(Error::Usage(format!("{why}; fork a copy from before that")));
        }
        // What a crash left of an earlier attempt is the same beginning: go on after it.
        while log.tail() < until {
            let left = (until.0 - log.tail().0).min(PROMPTS_PER_COMMIT as u64) as usize;
            let records = from.read(log.tail(), left)?;
            if records.is_empty() {
                break;
            }
            let events = records.into_iter().map(|record| record.event).collect();
            log.append(Batch { key: None, events, cursor: None })?;
        }
        Ok(())
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(to).map_err(|e| Error::io(to, e))?;
    for entry in std::fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let path = entry.map_err(|e| Error::io(from, e))?.path();
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else if !target.exists() && std::fs::hard_link(&path, &target).is_err() {
            std::fs::copy(&path, &target).map_err(|e| Error::io(&target, e))?;
        }
    }
    Ok(())
}

fn record_new(
    new: &NewRun,
    log: &dyn Log,
    blobs: &BlobStore,
    rubric: &Rubric,
    base: PolicyRef,
) -> Result<(), Error> {
    let mut batches = Vec::new();
    for chunk in new.prompts.chunks(PROMPTS_PER_COMMIT) {
        let admitted = chunk.iter().map(|p| Event::PromptAdmitted { prompt: p.clone() });
        batches.push(admitted.collect::<Vec<_>>());
    }
    let mut last = Vec::new();
    for (name, rows) in &new.seed_data {
        let mut bytes = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut bytes, row)
                .map_err(|e| Error::Usage(format!("seed data {name}: {e}")))?;
            bytes.push(b'\n');
        }
        let blob = blobs.put(&bytes)?;
        last.push(Event::SeedDataAdmitted { name: name.clone(), rows: rows.len() as u32, blob });
    }
    let id = rubric.id().clone();
    let (name, version) = (rubric.info().name.clone(), rubric.info().version.clone());
    last.push(Event::RubricInstalled { rubric: id.clone(), name, version });
    let panel = Panel::one(id);
    last.push(Event::RubricActivated { panel, when: When::NextIteration, trial: None });
    let settings = new.config.recorded();
    last.push(Event::RunStarted { seed: new.config.seed, base, settings });
    batches.push(last);
    for (at, events) in batches.into_iter().enumerate() {
        let body = serde_json::to_vec(&events).unwrap_or_default();
        let key = TaskKey::of("create", &[&(at as u64).to_le_bytes(), &body]);
        log.append(Batch { key: Some(key), events, cursor: None })?;
    }
    Ok(())
}

/// Folds a whole log.
///
/// # Errors
/// What the log says.
pub fn fold(log: &dyn Log) -> Result<RunView, Error> {
    fold_until(log, Offset(u64::MAX))
}

/// Folds the records of a log before `until`.
pub(crate) fn fold_until(log: &dyn Log, until: Offset) -> Result<RunView, Error> {
    let mut view = RunView::at_the_floor(log)?;
    loop {
        let left = until.0.saturating_sub(view.next.0).min(FOLD_RECORDS as u64) as usize;
        if left == 0 || view.follow(log, left, |_| {})? == 0 {
            return Ok(view);
        }
    }
}
