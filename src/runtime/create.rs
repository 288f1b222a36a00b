//! CREATING A RUN in a folder of its own: a new one, or one that begins as another did.

use super::draft::{self, Draft};
use super::fold::fold_until;
use super::folder::{Folder, part_of};
use super::rubric_files::keep;
use super::{identity, spelling};
use crate::actor::clock::SystemClock;
use crate::atomic_file::create_private_folder;
use crate::blob::BlobStore;
use crate::config::{Config, ReadoutMode};
use crate::domain::event::SeedRow;
use crate::domain::{Event, Offset, Panel, PolicyRef, Prompt, TaskKey, When};
use crate::error::{Code, Error};
use crate::lm::model_files::ModelFiles;
use crate::lm::weights::{WeightDtype, Weights};
use crate::log::{Batch, DurableLog, JournalLog, Log};
use crate::rubric::{Rubric, RubricEngine};
use crate::view::RunView;
use std::path::Path;
use std::sync::Arc;

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

impl Folder {
    /// Whether a run may be made in the folder: there is none, or an empty one. Nothing is touched.
    ///
    /// # Errors
    /// [`Error::RunExists`], [`Error::Unfinished`], or [`Error::Refused`] with what lies there.
    pub fn must_be_vacant(&self) -> Result<(), Error> {
        draft::check(self)
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
        Ok(DurableLog::open(&self.path().join("log"), Arc::new(SystemClock))?)
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
        if let Some(part) = part_of(to.path(), self.path()) {
            let (to, dir) = (to.path().display(), self.path().display());
            return Err(Error::refused(
                Code::FolderInsideRun,
                format!("{to} lies in {dir}/{part}; give another folder"),
            ));
        }
        let from = self.read_log()?;
        if let Some(compacted) = from.compacted() {
            let (dir, floor) = (self.path().display(), compacted.floor());
            let why = format!("{dir} was compacted: not all records before {floor} are there");
            return Err(Error::refused(
                Code::RecordsDropped,
                format!("{why}. Fork a copy of the folder from before that"),
            ));
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
            return Err(Error::refused(
                Code::RecordBeyondLog,
                format!("the log ends at record {tail}, before {until}"),
            ));
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
    let mut record = |events: Vec<Event>| -> Result<_, Error> {
        let body =
            serde_json::to_vec(&events).map_err(|e| Error::not_json("a run's first events", &e))?;
        let key = TaskKey::of("create", &[&at.to_le_bytes(), &body]);
        at += 1;
        Ok(log.append(Batch { key: Some(key), events, cursor: None })?)
    };
    for chunk in new.prompts.chunks(PROMPTS_PER_COMMIT) {
        record(chunk.iter().map(|p| Event::PromptAdmitted { prompt: p.clone() }).collect())?;
    }
    let mut last = Vec::new();
    for (name, rows) in &new.seed_data {
        let mut bytes = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut bytes, row)
                .map_err(|e| Error::not_json("a row of seed data", &e))?;
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
