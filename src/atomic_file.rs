//! ATOMIC FILES: a file is there whole and durable, or not at all, whatever dies meanwhile.
//!
//! The bytes go into a temporary file in the folder of their place; it is synced, renamed, and the
//! folder is synced. The temporary file is locked as long as its writer lives, so that what a dead
//! writer left is told from what is being written ([`remove_abandoned`]).
//!
//! What is private is for this user alone: mode 0600, in folders of mode 0700.

use crate::faults::{Point, pass};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How the names of temporary files begin.
const TEMPORARY: &str = ".new-";

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This user alone.
    Private,
    /// Whoever the process's file mode mask lets.
    Usual,
}

/// A file that is being written. Dropped before it is committed, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    temporary: PathBuf,
    place: PathBuf,
    committed: bool,
}

/// The folder of a path, `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Makes a temporary file, or what `make` makes, in the folder of `place` under a name that nobody
/// uses: a process with the same number may have died here, or write here from another container.
fn temporary_for<T>(
    place: &Path,
    make: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<(PathBuf, T)> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let path = folder_of(place).join(format!("{TEMPORARY}{}-{n}", std::process::id()));
        match make(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return Ok((path, made?)),
        }
    }
}

impl AtomicFile {
    /// Begins a file that is to be at `place`, whose folder is there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(place: &Path, access: Access) -> io::Result<AtomicFile> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if access == Access::Private {
            options.mode(0o600);
        }
        let (temporary, file) = temporary_for(place, |path| options.open(path))?;
        // A file system without locks has no writers that are seen to live.
        let _ = file.try_lock();
        let begun = AtomicFile { file, temporary, place: place.to_owned(), committed: false };
        pass(Point::FileWrite)?;
        Ok(begun)
    }

    /// Where the bytes are until they are committed.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the file its place, in which another may be. Durable when this returns.
    ///
    /// # Errors
    /// What the file system says. Nothing is changed then; but if only the folder could not be
    /// synced, the file is in its place and may be gone after a power cut.
    pub fn commit(self) -> io::Result<()> {
        self.commit_by(|temporary, place| fs::rename(temporary, place))
    }

    /// As [`AtomicFile::commit`], if nothing is in its place.
    ///
    /// # Errors
    /// As there; [`ErrorKind::AlreadyExists`].
    pub fn commit_new(self) -> io::Result<()> {
        self.commit_by(|temporary, place| {
            match renameat_with(CWD, temporary, CWD, place, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(()),
                Err(rustix::io::Errno::EXIST) => Err(ErrorKind::AlreadyExists.into()),
                // A file system that cannot promise it.
                Err(_) if fs::symlink_metadata(place).is_ok() => {
                    Err(ErrorKind::AlreadyExists.into())
                }
                Err(_) => fs::rename(temporary, place),
            }
        })
    }

    fn commit_by(mut self, rename: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        self.file.sync_all()?;
        pass(Point::FileRename)?;
        rename(&self.temporary, &self.place)?;
        self.committed = true;
        pass(Point::FileSync)?;
        sync_folder(folder_of(&self.place))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            // Half a checkpoint on a full disk would keep it full.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a file, in the place of one that may be there. Durable when this returns.
///
/// # Errors
/// As [`AtomicFile::commit`].
pub fn write(place: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut file = AtomicFile::create(place, access)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Lets `place` be the same file as `source`, in the place of one that may be there. Durable when
/// this returns.
///
/// # Errors
/// What the file system says, also where it has no hard links; nothing is changed then.
pub fn link(source: &Path, place: &Path) -> io::Result<()> {
    let (temporary, ()) = temporary_for(place, |path| fs::hard_link(source, path))?;
    let named = pass(Point::FileRename).and_then(|()| fs::rename(&temporary, place));
    // Two names of one file: a rename between them does nothing and leaves both.
    let _ = fs::remove_file(&temporary);
    named?;
    pass(Point::FileSync)?;
    sync_folder(folder_of(place))
}

/// Makes the names in a folder durable.
///
/// # Errors
/// What the file system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder that is for this user alone; those above it are made as usual. One that is there
/// stays as it is.
///
/// # Errors
/// What the file system says.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder_of(folder))?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

/// Removes from a folder what writers left that died. For a folder of which this process is the only
/// writer, or on a file system with locks.
pub fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
        if is_temporary && is_abandoned(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether the writer of a temporary file is gone: nobody has it locked.
fn is_abandoned(path: &Path) -> bool {
    let file = File::open(path);
    !file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = all.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_whole_or_what_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("file");
        write(&place, b"first", Access::Usual).unwrap();
        let mut half = AtomicFile::create(&place, Access::Usual).unwrap();
        half.write_all(b"ha").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"first");
        assert_eq!(names(dir.path()).len(), 2);
        drop(half);
        assert_eq!(names(dir.path()), ["file"]);
        write(&place, b"second", Access::Usual).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"second");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_new_file_takes_nobodys_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("file");
        let begin = |text: &str| {
            let mut file = AtomicFile::create(&place, Access::Usual).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        // Both begin when nothing is there.
        let (one, other) = (begin("one"), begin("other"));
        one.commit_new().unwrap();
        assert_eq!(other.commit_new().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&place).unwrap(), b"one");
        // A link to nothing is something of somebody's, too.
        fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink("nowhere", &place).unwrap();
        assert_eq!(begin("third").commit_new().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn an_error_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("folder");
        fs::create_dir(&place).unwrap();
        assert!(write(&place, b"bytes", Access::Usual).is_err(), "a folder is in its place");
        assert!(link(&dir.path().join("nothing"), &dir.path().join("new")).is_err());
        assert_eq!(names(dir.path()), ["folder"]);
        assert!(AtomicFile::create(&dir.path().join("no/folder"), Access::Usual).is_err());
    }

    #[test]
    fn a_link_is_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let (source, place) = (dir.path().join("source"), dir.path().join("place"));
        fs::write(&source, "bytes").unwrap();
        fs::write(&place, "others").unwrap();
        link(&source, &place).unwrap();
        link(&source, &place).unwrap();
        fs::write(&source, "changed").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"changed");
        assert_eq!(names(dir.path()), ["place", "source"]);
    }

    #[test]
    fn what_is_private_is_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("above/private");
        create_private_folder(&folder).unwrap();
        create_private_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        let file = folder.join("file");
        write(&file, b"bytes", Access::Private).unwrap();
        assert_eq!(mode(&file), 0o600);
        assert!(create_private_folder(&file).is_err(), "a file is in its place");
    }

    #[test]
    fn what_dead_writers_left_is_removed_and_what_living_ones_write_is_not() {
        let dir = tempfile::tempdir().unwrap();
        // Under the number of a process that lives, too.
        let left = [format!("{TEMPORARY}1-0"), format!("{TEMPORARY}{}-7", std::process::id())];
        left.iter().for_each(|name| fs::write(dir.path().join(name), "half").unwrap());
        fs::write(dir.path().join("file"), "whole").unwrap();
        let living = AtomicFile::create(&dir.path().join("other"), Access::Usual).unwrap();
        let name = living.temporary().file_name().unwrap().to_str().unwrap().to_owned();
        remove_abandoned(dir.path());
        assert_eq!(names(dir.path()), [name, "file".to_owned()]);
        drop(living);
        remove_abandoned(&dir.path().join("nothing"));
        assert_eq!(names(dir.path()), ["file"]);
    }
}
