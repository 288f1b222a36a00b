//! A run's folder: what lies where, and how a new one is laid out.
//!
//! ```text
//! DIR/gradus.yaml     the settings
//! DIR/log/            the log (a journal, and a sled store)
//! DIR/blobs/          weights, optimiser states, seed data, by hash
//! DIR/model/          config.json, tokenizer.json, ... of the base, without weights
//! DIR/rubrics/        installed components, by hash
//! DIR/watch/          a component that appears here is installed (rubrics.watch)
//! DIR/socket          where the process that works on the run is asked by others
//! DIR/doctor/         blobs of a measurement under way (`gradus doctor`), removed after it
//! DIR/status.json     what a running process was doing a second ago; never truth
//! ```
//!
//! What reads a run makes, removes and locks nothing in it.

use super::draft::{self, Draft};
use super::retention::{Freed, retain};
use super::rubrics::{Rubrics, Terms, keep};
use super::{identity, spelling};
use crate::actor::clock::SystemClock;
use crate::atomic_file::create_private_folder;
use crate::blob::BlobStore;
use crate::config::{Config, ReadoutMode};
use crate::domain::event::SeedRow;
use crate::domain::{Event, Offset, Panel, PolicyRef, Prompt, RubricId, TaskKey, When};
use crate::error::Error;
use crate::lm::model_files::ModelFiles;
use crate::lm::weights::{WeightDtype, Weights};
use crate::log::{Batch, Clock, DurableLog, JournalLog, Log, LostRecords, Verified};
use crate::rubric::{Rubric, RubricEngine, RubricRegistry, UnusableFile};
use crate::view::{LiveView, RunView};
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

    /// The rubrics of a run that nobody works on; `log` is open, and `view` what is known of it.
    pub(super) fn rubrics_of(
        &self,
        log: &Arc<DurableLog>,
        view: &Arc<LiveView>,
    ) -> Result<Rubrics, Error> {
        let log: Arc<dyn Log> = log.clone();
        let config = Config::from_yaml(&self.config())?;
        let terms = Terms::of(&config, &Arc::new(ModelFiles::open(&self.model())?));
        let engine = RubricEngine::new()?;
        let registry = self.open_rubrics(&engine)?;
        Ok(Rubrics::new(self.rubrics(), &log, view.clone(), registry, engine, terms))
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
        self.must_hold_run()?;
        let log = DurableLog::open(&self.0.join("log"), clock)?;
        draft::tidy(&self.0);
        Ok(Arc::new(log))
    }

    /// # Errors
    /// [`Error::NoRun`]; [`Error::Unfinished`] where one was begun.
    fn must_hold_run(&self) -> Result<(), Error> {
        match self.holds_run() {
            true => Ok(()),
            false if draft::is_begun(&self.0) => Err(Error::Unfinished(self.0.clone())),
            false => Err(Error::NoRun(self.0.clone())),
        }
    }

    /// Whether a run may be made in the folder: there is none, or an empty one. Nothing is touched.
    ///
    /// # Errors
    /// [`Error::RunExists`], [`Error::Unfinished`], or [`Error::Usage`] with what lies there.
    pub fn must_be_vacant(&self) -> Result<(), Error> {
        draft::check(self)
    }

    /// Whether a path is the folder or lies in it, by whatever way.
    pub fn encloses(&self, path: &Path) -> bool {
        draft::lies_in(path, &self.0)
    }

    /// Opens the log for reading alone, beside a running process or without one.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says.
    pub fn read_log(&self) -> Result<JournalLog, Error> {
        self.must_hold_run()?;
        Ok(JournalLog::open(&self.0.join("log"))?)
    }

    /// The process that works on the run, if one does; empty when it is not known which.
    pub fn holder(&self) -> Option<String> {
        crate::log::holder(&self.0.join("log"))
    }

    /// Checks the log: the journal, and a copy of the store where nobody works on the run
    /// ([`Verified::not_compared`] says where it was not). Nothing of the run is locked or changed.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says when it cannot be read at all.
    pub fn verify_log(&self) -> Result<Verified, Error> {
        self.must_hold_run()?;
        Ok(crate::log::verify_at_rest(&self.0.join("log"))?)
    }

    /// Mends the log from what its two copies have, and says what was mended.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says: in use, or lost records with [`LostRecords::Refuse`].
    pub fn rebuild_log(&self, lost_records: LostRecords) -> Result<Vec<String>, Error> {
        self.must_hold_run()?;
        Ok(DurableLog::rebuild(&self.0.join("log"), Arc::new(SystemClock), lost_records)?)
    }

    /// Drops what iterations older than the last `keep` finished ones left; see
    /// [`super::Runtime::retain`]. For a run that nobody works on.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says: in use, damaged, no space.
    pub fn retain(&self, keep: u32) -> Result<Freed, Error> {
        let log = self.open_log()?;
        retain(&log, self.open_blobs(&log)?.as_ref(), keep)
    }

    /// The blobs, for reading alone.
    pub fn blobs(&self) -> Arc<BlobStore> {
        Arc::new(BlobStore::reader(&self.0.join("blobs")))
    }

    /// Opens the blobs for writing: for who has the run's log open, and nobody else.
    ///
    /// # Errors
    /// What the blob store says.
    pub fn open_blobs(&self, _held: &DurableLog) -> Result<Arc<BlobStore>, Error> {
        Ok(Arc::new(BlobStore::open(&self.0.join("blobs"))?))
    }

    /// Loads every installed rubric. A file that cannot be read or is not the component that its name
    /// says is named and left out ([`RubricRegistry::left_out`]), and stays where it is.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn open_rubrics(&self, engine: &RubricEngine) -> Result<Arc<RubricRegistry>, Error> {
        let mut registry = RubricRegistry::default();
        let dir = self.rubrics();
        let entries = std::fs::read_dir(&dir).map_err(|e| Error::io(&dir, e))?;
        for entry in entries {
            let file = entry.map_err(|e| Error::io(&dir, e))?.path();
            if file.extension().is_none_or(|e| e != "wasm") {
                continue;
            }
            match load_kept(engine, &file) {
                Ok(rubric) => registry.install(rubric),
                Err(reason) => {
                    let path = file.display();
                    tracing::warn!("{path} is no installed rubric and is left out: {reason}");
                    registry.leave_out(UnusableFile { file, reason });
                }
            }
        }
        Ok(Arc::new(registry))
    }

    /// Makes a new run, whole or not at all: a process that dies or a disk that fills leaves nothing
    /// that passes for one, and making it again gives exactly what is asked for then.
    ///
    /// # Errors
    /// Those of [`Folder::must_be_vacant`], else what failed.
    pub fn create(&self, new: &NewRun) -> Result<(), Error> {
        new.config.validate()?;
        new.config.validate_for(new.model.config())?;
        new.weights.check_finite()?;
        self.must_be_vacant()?;
        // Before anything is written.
        let rubric = Rubric::load(&RubricEngine::new()?, &new.rubric)?;
        // Another judge spells in its own way, and is not open yet.
        if new.config.judge.readout != ReadoutMode::Parsed && new.config.judge.engine.is_none() {
            spelling::check(new.model.tokenizer(), &rubric)?;
        }
        let draft = Draft::begin(self)?;
        let folder = draft.folder();
        folder.make_parts()?;
        keep(&folder.rubrics(), rubric.id(), &new.rubric)?;
        new.model.write_texts(&folder.model())?;
        let log = folder.open_part_log()?;
        let blobs = folder.open_blobs(&log)?;
        let base = PolicyRef::full(blobs.put(&new.weights.to_bytes(WeightDtype::F32)?)?);
        record_new(new, &log, &blobs, &rubric, base)?;
        drop(log);
        draft.finish(&new.config)
    }

    /// The folders of a draft.
    fn make_parts(&self) -> Result<(), Error> {
        for dir in [self.rubrics(), self.model()] {
            create_private_folder(&dir).map_err(|e| Error::io(&dir, e))?;
        }
        Ok(())
    }

    /// The log of a draft, which is no run yet.
    fn open_part_log(&self) -> Result<DurableLog, Error> {
        Ok(DurableLog::open(&self.0.join("log"), Arc::new(SystemClock))?)
    }

    /// Makes another run in the folder `to`: this one as it was before record `until`, with other
    /// settings, and everything that it names. Whole or not at all, as with [`Folder::create`]. Blobs
    /// are checked, and are hard links where the file system has them.
    ///
    /// # Errors
    /// Those of [`Folder::must_be_vacant`] on `to`; when the log was compacted, or a blob is damaged
    /// or missing that the other run needs; else what failed.
    pub fn fork(&self, to: &Folder, until: Offset, config: &Config) -> Result<(), Error> {
        self.fork_with(to, until, config, |_, _| Ok(()))
    }

    /// As [`Folder::fork`], with what `add` puts into the other run's folder and log before that is a
    /// run.
    pub(crate) fn fork_with(
        &self,
        to: &Folder,
        until: Offset,
        config: &Config,
        add: impl FnOnce(&Folder, &dyn Log) -> Result<(), Error>,
    ) -> Result<(), Error> {
        config.validate()?;
        if let Some(part) = draft::part_of(&to.0, &self.0) {
            let (to, dir) = (to.0.display(), self.0.display());
            return Err(Error::Usage(format!("{to} lies in {dir}/{part}; give another folder")));
        }
        let from = self.read_log()?;
        if let Some(base) = from.compacted() {
            let (dir, floor) = (self.0.display(), base.floor());
            let why = format!("{dir} was compacted: not all records before {floor} are there");
            return Err(Error::Usage(format!("{why}; fork a copy from before that")));
        }
        let view = fold_until(&from, until)?;
        let draft = Draft::begin(to)?;
        let folder = draft.folder();
        folder.make_parts()?;
        copy_files(&self.model(), &folder.model())?;
        self.copy_rubrics(&folder)?;
        let log = folder.open_part_log()?;
        self.copy_blobs(&view, folder.open_blobs(&log)?.as_ref())?;
        copy_records(&from, &log, until)?;
        add(&folder, &log)?;
        drop(log);
        draft.finish(config)
    }

    /// Copies the components that are what their names say.
    fn copy_rubrics(&self, to: &Folder) -> Result<(), Error> {
        let dir = self.rubrics();
        for entry in std::fs::read_dir(&dir).map_err(|e| Error::io(&dir, e))? {
            let path = entry.map_err(|e| Error::io(&dir, e))?.path();
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let id = Rubric::id_of(&bytes);
            if path.file_name().is_some_and(|name| *name == *format!("{id}.wasm")) {
                keep(&to.rubrics(), &id, &bytes)?;
            }
        }
        Ok(())
    }

    /// Takes over what a run with this view names. What it can go on without may be gone.
    fn copy_blobs(&self, view: &RunView, to: &BlobStore) -> Result<(), Error> {
        let (from, needed) = (self.blobs(), view.lasting_blobs());
        for hash in view.blobs(Offset(0)) {
            match to.take(&hash, &from) {
                Err(error) if error.lost().is_some() && !needed.contains(&hash) => {
                    tracing::info!(%error, "the other run goes on without it");
                }
                taken => taken?,
            }
        }
        Ok(())
    }
}

/// A component that lies under its hash.
fn load_kept(engine: &RubricEngine, file: &Path) -> Result<Rubric, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let id = Rubric::id_of(&bytes);
    if file.file_stem().is_none_or(|name| *name != *id.0) {
        return Err(format!("its bytes hash to {id}, which is not its name"));
    }
    Rubric::load(engine, &bytes).map_err(|error| error.to_string())
}

/// Copies the files of a folder: people change them, so none is shared.
fn copy_files(from: &Path, to: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let path = entry.map_err(|e| Error::io(from, e))?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            let target = to.join(name);
            std::fs::copy(&path, &target).map_err(|e| Error::io(&target, e))?;
        }
    }
    Ok(())
}

/// Copies the records before `until`.
fn copy_records(from: &JournalLog, to: &DurableLog, until: Offset) -> Result<(), Error> {
    while to.tail() < until {
        let left = (until.0 - to.tail().0).min(PROMPTS_PER_COMMIT as u64) as usize;
        let records = from.read(to.tail(), left)?;
        if records.is_empty() {
            let tail = to.tail();
            return Err(Error::Usage(format!("the log ends at record {tail}, before {until}")));
        }
        let events = records.into_iter().map(|record| record.event).collect();
        to.append(Batch { key: None, events, cursor: None })?;
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
    let mut at = 0u64;
    let mut record = |events: Vec<Event>| {
        let body = serde_json::to_vec(&events).unwrap_or_default();
        let key = TaskKey::of("create", &[&at.to_le_bytes(), &body]);
        at += 1;
        log.append(Batch { key: Some(key), events, cursor: None })
    };
    for chunk in new.prompts.chunks(PROMPTS_PER_COMMIT) {
        record(chunk.iter().map(|p| Event::PromptAdmitted { prompt: p.clone() }).collect())?;
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
    last.extend(identity::pin(&new.model, None).events);
    last.push(Event::RunStarted { seed: new.config.seed, base, settings });
    record(last)?;
    Ok(())
}

/// Folds a whole log.
///
/// # Errors
/// What the log says.
pub fn fold(log: &dyn Log) -> Result<RunView, Error> {
    fold_until(log, Offset(u64::MAX))
}

/// Folds a whole log and keeps what is needed to go on.
///
/// # Errors
/// What the log says.
pub(super) fn fold_to_go_on(log: &dyn Log) -> Result<RunView, Error> {
    let mut view = RunView::at_the_floor(log)?;
    view.forget_finished();
    while view.follow(log, FOLD_RECORDS, |_| {})? > 0 {}
    Ok(view)
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
