//! A run's folder: what lies where.
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

use super::rubric_files;
use crate::actor::clock::SystemClock;
use crate::atomic_file;
use crate::blob::BlobStore;
use crate::domain::RubricId;
use crate::error::Error;
use crate::log::{Clock, DurableLog, JournalLog, LostRecords, Verified};
use crate::rubric::{RubricEngine, RubricRegistry};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Where a run is made.
pub(super) const UNFINISHED: &str = ".gradus-unfinished";
/// Where it is while its parts get their places.
pub(super) const PLACING: &str = ".gradus-placing";
/// The settings: the last part that gets its place.
pub(super) const SETTINGS: &str = "gradus.yaml";
/// The other parts of a run, in the order in which they do.
pub(super) const PARTS: [&str; 4] = ["model", "rubrics", "blobs", "log"];

/// A path without links and `..`, also of what is not there yet.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for known in path.ancestors() {
        let Ok(mut real) = known.canonicalize() else { continue };
        for part in path.strip_prefix(known).unwrap_or(Path::new("")).components() {
            match part {
                Component::ParentDir => drop(real.pop()),
                Component::Normal(name) => real.push(name),
                _ => {}
            }
        }
        return real;
    }
    path
}

/// Whether a path is a folder or lies in it, by whatever way.
pub(super) fn lies_in(path: &Path, folder: &Path) -> bool {
    resolved(path).starts_with(resolved(folder))
}

/// The part of the run in `folder` that a path lies in, if it does.
pub(super) fn part_of(path: &Path, folder: &Path) -> Option<&'static str> {
    let parts =
        PARTS.into_iter().chain([SETTINGS, "inbox", "watch", "doctor", "socket", "socket.part"]);
    parts.into_iter().find(|part| lies_in(path, &folder.join(part)))
}

/// Whether making a run in a folder was begun and is not finished.
pub(super) fn is_begun(dir: &Path) -> bool {
    [UNFINISHED, PLACING].iter().any(|name| dir.join(name).is_dir())
}

/// Removes the empty folder of a maker that died when every part had its place.
pub(super) fn remove_placed(dir: &Path) {
    let _ = std::fs::remove_dir(dir.join(PLACING));
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
        self.0.join(SETTINGS)
    }

    /// The base's files.
    pub fn model(&self) -> PathBuf {
        self.0.join("model")
    }

    /// Event files for TensorBoard, while a process works on the run.
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("tb")
    }

    /// Where a running process says what it does.
    pub fn status(&self) -> PathBuf {
        self.0.join("status.json")
    }

    /// The token that a served run takes from who changes it.
    pub fn token(&self) -> PathBuf {
        self.0.join("token")
    }

    pub(crate) fn rubrics(&self) -> PathBuf {
        self.0.join("rubrics")
    }

    /// The bytes of an installed component.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn component(&self, rubric: &RubricId) -> Result<Vec<u8>, Error> {
        let path = rubric_files::kept_at(&self.rubrics(), rubric);
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
        remove_placed(&self.0);
        atomic_file::remove_abandoned(&self.rubrics());
        Ok(Arc::new(log))
    }

    /// # Errors
    /// [`Error::NoRun`]; [`Error::Unfinished`] where one was begun.
    fn must_hold_run(&self) -> Result<(), Error> {
        match self.holds_run() {
            true => Ok(()),
            false if is_begun(&self.0) => Err(Error::Unfinished(self.0.clone())),
            false => Err(Error::NoRun(self.0.clone())),
        }
    }

    /// Whether a path is the folder or lies in it, by whatever way.
    pub fn encloses(&self, path: &Path) -> bool {
        lies_in(path, &self.0)
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
        rubric_files::load_all(&self.rubrics(), engine).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_into_a_folder_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        std::fs::create_dir_all(dir.join("model")).unwrap();
        std::os::unix::fs::symlink(&dir, root.path().join("link")).unwrap();
        for inside in ["run", "run/model/x", "link/y/z", "run/../run/a", "new/../run/b"] {
            assert!(lies_in(&root.path().join(inside), &dir), "{inside}");
        }
        for outside in ["", "runs", "new", "run/../other"] {
            assert!(!lies_in(&root.path().join(outside), &dir), "{outside}");
        }
        assert_eq!(part_of(&root.path().join("link/model/x"), &dir), Some("model"));
        assert_eq!(part_of(&dir.join("arms/random"), &dir), None);
    }
}
