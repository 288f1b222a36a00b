//! MAKING A RUN, whole or not at all. Everything is written into a folder inside the run's, is made
//! durable there, and gets its place at the end, the settings last: before they are there, nothing
//! takes the folder for a run ([`Folder::holds_run`]), and what is left of a maker that died is told
//! from everything else.
//!
//! ```text
//! DIR/.gradus-unfinished/   what is being made; locked (flock) as long as its maker lives
//! DIR/.gradus-placing/      the same, whole and durable, while its parts get their places
//! ```
//!
//! Inside and not beside, for a folder that is given (a mount, a home) may be all that is ours.

use super::fold::fold;
use super::folder::{Folder, PARTS, PLACING, SETTINGS, UNFINISHED, is_begun, remove_placed};
use crate::atomic_file::{self, Access, create_private_folder, sync_folder};
use crate::config::Config;
use crate::error::{Code, Error};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a file system has in its first folder.
const LOST_AND_FOUND: &str = "lost+found";
/// Files that are named in a refusal.
const NAMED_MAX: usize = 3;

/// What lies where a run is to be made.
#[derive(Debug, PartialEq, Eq)]
enum There {
    /// No folder.
    Nothing,
    /// An empty one.
    Empty,
    /// What is left of a maker that died.
    Left,
}

/// Refuses a folder that a run may not be made in; nothing is touched.
///
/// # Errors
/// [`Error::RunExists`], [`Error::Unfinished`]; [`Error::Refused`] with what lies there.
pub(super) fn check(target: &Folder) -> Result<(), Error> {
    look(target).map(drop)
}

fn busy(dir: &Path) -> Error {
    let dir = dir.display();
    Error::refused(
        Code::RunBeingMade,
        format!("another process makes a run in {dir} at this moment. Wait for it"),
    )
}

fn look(target: &Folder) -> Result<There, Error> {
    let dir = target.path();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(There::Nothing),
        entries => entries.map_err(|error| Error::io(dir, error))?,
    };
    if target.holds_run() {
        let started = fold(&target.read_log()?)?.seed.is_some();
        return Err(match started {
            true => Error::RunExists(dir.to_owned()),
            false => Error::Unfinished(dir.to_owned()),
        });
    }
    for draft in [UNFINISHED, PLACING].map(|name| dir.join(name)) {
        let file = File::open(&draft).ok();
        if file.is_some_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock))) {
            return Err(busy(dir));
        }
    }
    let mut others = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(dir, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ![UNFINISHED, PLACING, LOST_AND_FOUND].contains(&&*name) && !is_placed(dir, &name) {
            others.push(name);
        }
    }
    if others.is_empty() {
        return Ok(if is_begun(dir) { There::Left } else { There::Empty });
    }
    others.sort();
    let more = if others.len() > NAMED_MAX { ", ..." } else { "" };
    others.truncate(NAMED_MAX);
    Err(Error::refused(
        Code::FolderNotEmpty,
        format!(
            "{} is not empty: it holds {}{more}. A run is made in a folder of its own; give one that is \
         empty or not there yet",
            dir.display(),
            others.join(", ")
        ),
    ))
}

/// Whether a part of a draft has its place already.
fn is_placed(dir: &Path, name: &str) -> bool {
    let placing = dir.join(PLACING);
    PARTS.contains(&name) && placing.join(SETTINGS).is_file() && !placing.join(name).exists()
}

/// Removes what is left of a maker.
fn remove_left(dir: &Path) -> std::io::Result<()> {
    let remove = |path: PathBuf| match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    for name in PARTS.into_iter().filter(|name| is_placed(dir, name)) {
        remove(dir.join(name))?;
    }
    remove(dir.join(PLACING))?;
    remove(dir.join(UNFINISHED))
}

/// Makes every file and folder below `dir` durable.
fn sync_tree(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync_tree(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    sync_folder(dir)
}

/// A run that is being made. Dropped before it is finished, it leaves nothing.
pub(crate) struct Draft {
    target: PathBuf,
    /// Whether the target's folder was made for it.
    made: bool,
    finished: bool,
    /// Held as long as it is made.
    _lock: File,
}

impl Draft {
    /// Begins a run in the folder `target`; what is left of a maker that died is removed.
    ///
    /// # Errors
    /// Where there is anything else: see [`check`]; what the file system says.
    pub fn begin(target: &Folder) -> Result<Draft, Error> {
        let (there, dir) = (look(target)?, target.path());
        let io = |error| Error::io(dir, error);
        if there == There::Left {
            remove_left(dir).map_err(io)?;
            tracing::warn!(dir = %dir.display(), "an unfinished beginning of a run was removed");
        }
        let made = there == There::Nothing;
        create_private_folder(dir).map_err(io)?;
        let draft = dir.join(UNFINISHED);
        match std::fs::create_dir(&draft) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(busy(dir)),
            Err(error) => {
                if made {
                    let _ = std::fs::remove_dir(dir);
                }
                return Err(io(error));
            }
            Ok(()) => {}
        }
        let lock = File::open(&draft).map_err(io)?;
        let mine = lock.metadata().map_err(io)?.ino();
        // A file system without locks has no makers that are seen to live.
        let taken = matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
        if taken || std::fs::metadata(&draft).map(|found| found.ino()).ok() != Some(mine) {
            return Err(busy(dir));
        }
        Ok(Draft { target: dir.to_owned(), made, finished: false, _lock: lock })
    }

    /// Where everything but the settings is written.
    pub fn folder(&self) -> Folder {
        Folder::at(self.target.join(UNFINISHED))
    }

    /// Makes all of it durable and gives it its place; from then on there is a run, with these
    /// settings. Its log must be closed.
    ///
    /// # Errors
    /// What the file system says; then nothing is left, or all of it is there.
    pub fn finish(mut self, config: &Config) -> Result<(), Error> {
        let draft = self.target.join(UNFINISHED);
        let (settings, yaml) = (draft.join(SETTINGS), config.to_commented_yaml());
        atomic_file::write(&settings, yaml.as_bytes(), Access::Private)
            .map_err(|error| Error::io(&settings, error))?;
        sync_tree(&draft).map_err(|error| Error::io(&draft, error))?;
        self.place(&draft).map_err(|error| Error::io(&self.target, error))?;
        // The run is there, whole, also where the disk refuses now.
        self.finished = true;
        remove_placed(&self.target);
        sync_folder(&self.target).map_err(|error| Error::io(&self.target, error))
    }

    fn place(&self, draft: &Path) -> std::io::Result<()> {
        let (dir, placing) = (&self.target, self.target.join(PLACING));
        std::fs::rename(draft, &placing)?;
        sync_folder(dir)?;
        for part in PARTS {
            std::fs::rename(placing.join(part), dir.join(part))?;
        }
        // Durable before the settings are, which make it a run.
        sync_folder(dir)?;
        self.sync_name()?;
        std::fs::rename(placing.join(SETTINGS), dir.join(SETTINGS))
    }

    /// Makes the name of a folder durable that was made. What is above may be closed to us.
    fn sync_name(&self) -> std::io::Result<()> {
        let above = self.target.parent().filter(|_| self.made);
        let above = above.map(|a| if a == Path::new("") { Path::new(".") } else { a });
        match above.map_or(Ok(()), sync_folder) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Err(error) = remove_left(&self.target) {
            tracing::warn!(%error, dir = %self.target.display(), "an unfinished run stays");
        }
        if self.made {
            let _ = std::fs::remove_dir(&self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A draft with a file in each part.
    fn filled(draft: &Draft, text: &str) {
        for part in PARTS {
            let folder = draft.folder().path().join(part);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("file"), text).unwrap();
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let all = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = all.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn said(there: Result<(), Error>) -> String {
        there.unwrap_err().to_string()
    }

    #[test]
    fn it_is_there_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let target = Folder::at(root.path().join("a/run"));
        let draft = Draft::begin(&target).unwrap();
        filled(&draft, "one");
        assert!(!target.holds_run());
        assert!(said(check(&target)).contains("another process makes a run"));
        drop(draft);
        assert!(!target.path().exists());
        let draft = Draft::begin(&target).unwrap();
        filled(&draft, "two");
        draft.finish(&Config::default()).unwrap();
        assert_eq!(names(target.path()), ["blobs", "gradus.yaml", "log", "model", "rubrics"]);
        assert!(target.holds_run());
    }

    /// Every moment at which a maker can die: before, between and after the renames.
    #[test]
    fn what_a_dead_maker_left_is_removed_and_never_mixed_in() {
        for moved in 0..=PARTS.len() {
            for placing in [false, true] {
                let root = tempfile::tempdir().unwrap();
                let dir = root.path();
                let name = if placing { PLACING } else { UNFINISHED };
                for (n, part) in PARTS.into_iter().enumerate() {
                    let at = if placing && n < moved {
                        dir.join(part)
                    } else {
                        dir.join(name).join(part)
                    };
                    std::fs::create_dir_all(&at).unwrap();
                    std::fs::write(at.join("of the dead"), "").unwrap();
                }
                std::fs::create_dir_all(dir.join(name)).unwrap();
                std::fs::write(dir.join(name).join(SETTINGS), "").unwrap();
                let target = Folder::at(dir);
                assert!(!target.holds_run() && is_begun(dir));
                let draft = Draft::begin(&target).unwrap();
                filled(&draft, "two");
                draft.finish(&Config::default()).unwrap();
                assert!(target.holds_run() && !is_begun(dir));
                for part in PARTS {
                    assert_eq!(names(&dir.join(part)), ["file"], "{moved} {placing}");
                }
            }
        }
    }

    #[test]
    fn what_people_own_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let target = Folder::at(root.path());
        std::fs::create_dir(root.path().join(LOST_AND_FOUND)).unwrap();
        check(&target).unwrap();
        std::fs::write(root.path().join(SETTINGS), "mine: true\n").unwrap();
        assert!(said(check(&target)).contains("it holds gradus.yaml"));
        std::fs::remove_file(root.path().join(SETTINGS)).unwrap();
        // Beside what a maker left, too.
        std::fs::create_dir_all(root.path().join(UNFINISHED)).unwrap();
        std::fs::create_dir(root.path().join("model")).unwrap();
        assert!(said(check(&target)).contains("it holds model"));
        std::fs::create_dir(root.path().join(UNFINISHED).join("blobs")).unwrap();
        assert!(Draft::begin(&target).is_err());
        assert!(root.path().join(UNFINISHED).join("blobs").exists());
        let file = Folder::at(root.path().join("file"));
        std::fs::write(file.path(), "").unwrap();
        assert!(check(&file).is_err());
    }
}
