//! Who may write a log: one process at a time.
//!
//! Two files are locked, by locks that belong to the open file (`F_OFD_SETLK`): `log/lock`, and one
//! in the store's folder, so that taking away the first does not let a second writer in. Both are for
//! this user alone (mode 0600, and the store's folder 0700), for whoever may read a file may lock it
//! against writers; `flock(1)` does not meet these locks at all. Nobody has to lock anything to see
//! whether the log is open: the writer shares a lock of `FORMAT`, which everybody may read and which
//! keeps nobody out.
//!
//! Not the locks of `flock`: a reader can hold one for as long as it likes, and a writer waits for it.
//! Not those of `F_SETLK`: they go when the process closes the file anywhere, as a copy does.

use super::error::LogError;
use super::layout::{FORMAT_FILE, store_dir};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file that holds the writer's process id.
const NAME: &str = "lock";
/// How often a lock is tried, and the pause between.
const ATTEMPTS: u32 = 15;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// What a lock lets others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockKind {
    /// Share it.
    Shared,
    /// Nothing.
    Alone,
}

/// A file that is locked as long as this lives.
///
/// It is unlocked by name and not by closing it alone: a program that this process is just starting
/// holds copies of its open files until it runs, and would hold the lock for as long.
#[derive(Debug)]
pub(crate) struct LockedFile(File);

impl std::ops::Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if let Err(error) = ask(&self.0, libc::F_OFD_SETLK, libc::F_UNLCK) {
            tracing::debug!(%error, "a lock goes when its file is closed");
        }
    }
}

/// Asks the system about a lock of a whole file: its answer.
#[expect(unsafe_code, reason = "no crate of ours has locks that belong to the open file")]
fn ask(
    file: &File,
    command: libc::c_int,
    // An int on Linux, a short on macOS.
    kind: impl Into<libc::c_int>,
) -> io::Result<libc::flock> {
    let mut lock = libc::flock {
        l_type: kind.into() as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open as long as `file` is borrowed, the commands that are used here
    // take a pointer to a `flock`, and `lock` is one that outlives the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock),
    }
}

/// Locks a file; gives it back when others have it.
fn lock(file: File, kind: LockKind) -> io::Result<Result<LockedFile, File>> {
    let kind = if kind == LockKind::Alone { libc::F_WRLCK } else { libc::F_RDLCK };
    match ask(&file, libc::F_OFD_SETLK, kind) {
        Ok(_) => Ok(Ok(LockedFile(file))),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(Err(file))
        }
        Err(error) => Err(error),
    }
}

/// Whether somebody else has any lock of a file.
fn is_locked(file: &File) -> io::Result<bool> {
    Ok(ask(file, libc::F_OFD_GETLK, libc::F_WRLCK)?.l_type != libc::F_UNLCK as libc::c_short)
}

/// Opens a file that only this user may read.
fn open_own(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = options.open(path)?;
    // One that an older gradus made was for everybody.
    if file.metadata()?.mode() & 0o077 != 0 {
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
    }
    Ok(file)
}

/// Locks a file that is made if need be and that only this user may read; `None` when somebody else
/// has it.
///
/// # Errors
/// What the file system says.
pub(crate) fn own(path: &Path) -> io::Result<Option<LockedFile>> {
    let mut file = open_own(path)?;
    // A program that a killed process had just started holds copies of its open files for a moment.
    for _ in 0..ATTEMPTS {
        file = match lock(file, LockKind::Alone)? {
            Ok(locked) => return Ok(Some(locked)),
            Err(file) => file,
        };
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

/// Whether the last name of an open file was taken away.
pub(crate) fn is_unlinked(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.nlink() == 0)
}

/// The right to write the log of a folder, as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: LockedFile,
    /// The format's file, locked for all to see that the log is open, once the folder has it.
    shown: Option<LockedFile>,
}

impl Lock {
    /// Takes the lock of the log in the folder `dir`.
    ///
    /// # Errors
    /// [`LogError::InUse`]; [`LogError::Open`] with what the system says.
    pub fn take(dir: &Path) -> Result<Lock, LogError> {
        let path = dir.join(NAME);
        let io = |error: io::Error| LogError::open(&path, error);
        let Some(file) = own(&path).map_err(io)? else { return Err(in_use(dir)) };
        // The file may have been taken away from somebody who still writes.
        let store = File::open(store_dir(dir).join(NAME));
        if store.is_ok_and(|store| is_locked(&store).unwrap_or(false)) {
            return Err(in_use(dir));
        }
        let lock = Lock { path, file, shown: None };
        lock.write_process_id();
        Ok(lock)
    }

    /// Writes down who has it. For people: a full disk must not stop a log from being opened.
    fn write_process_id(&self) {
        let (mut file, pid) = (&*self.file, std::process::id());
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{pid}"));
    }

    /// Shows everybody that the log is open, once the folder has its format.
    pub fn show(&mut self) {
        let shown = File::open(self.path.with_file_name(FORMAT_FILE));
        self.shown = shown.and_then(|file| lock(file, LockKind::Shared)).ok().and_then(Result::ok);
    }

    /// Puts the file back that somebody took away. The store's own lock has kept others out.
    pub fn put_back(&mut self) {
        if !is_unlinked(&self.file) {
            return;
        }
        let path = &self.path;
        match own(path) {
            Ok(Some(file)) => {
                self.file = file;
                self.write_process_id();
                tracing::warn!(path = %path.display(), "the lock was taken away; it is there again");
            }
            // Somebody tries to open the log at this moment: the next time, then.
            Ok(None) => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "the lock is gone"),
        }
    }
}

/// That another process has the log in the folder `dir` open.
pub(crate) fn in_use(dir: &Path) -> LogError {
    let path = dir.parent().unwrap_or(dir).to_owned();
    LogError::InUse { path, pid: written(dir) }
}

/// The process that the lock's file names; empty when it names none that lives, as a process does
/// that is about to write itself down, or one that cannot be seen from here.
fn written(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join(NAME)).unwrap_or_default();
    let pid = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
    let lives = |pid: &rustix::process::Pid| {
        let found = rustix::process::test_kill_process(*pid);
        !matches!(found, Err(rustix::io::Errno::SRCH))
    };
    pid.filter(lives).map(|pid| pid.as_raw_nonzero().to_string()).unwrap_or_default()
}

/// The process that has the log in the folder `dir` open, as it wrote itself down; empty when that is
/// not known. Nothing is locked for it.
pub fn holder(dir: &Path) -> Option<String> {
    // This user's own processes say so before they have a format to show.
    let held = [FORMAT_FILE, NAME].iter().any(|name| {
        let file = File::open(dir.join(name));
        file.is_ok_and(|file| is_locked(&file).unwrap_or(false))
    });
    held.then(|| written(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::FlockOperation;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FORMAT_FILE), "3\n").unwrap();
        dir
    }

    #[test]
    fn one_at_a_time_and_everybody_sees_who() {
        let dir = folder();
        assert_eq!(holder(dir.path()), None);
        let mut first = Lock::take(dir.path()).unwrap();
        let ours = std::process::id().to_string();
        assert_eq!(holder(dir.path()), Some(ours.clone()));
        first.show();
        let second = Lock::take(dir.path());
        assert!(matches!(&second, Err(LogError::InUse { pid, .. }) if *pid == ours), "{second:?}");
        let mode = std::fs::metadata(dir.path().join(NAME)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        assert_eq!(holder(dir.path()), None);
        Lock::take(dir.path()).unwrap();
    }

    /// A process that is being started holds copies of all open files until it runs.
    #[test]
    fn a_copy_of_the_open_file_does_not_keep_it() {
        let dir = folder();
        let mut first = Lock::take(dir.path()).unwrap();
        first.show();
        let copies =
            [&first.file, first.shown.as_ref().unwrap()].map(|file| file.try_clone().unwrap());
        drop(first);
        assert_eq!(holder(dir.path()), None);
        Lock::take(dir.path()).unwrap();
        drop(copies);
    }

    /// A copy, a look, a backup: whatever the process itself does with the file.
    #[test]
    fn reading_the_file_does_not_give_it_away() {
        let dir = folder();
        let _lock = Lock::take(dir.path()).unwrap();
        std::fs::copy(dir.path().join(NAME), dir.path().join("copy")).unwrap();
        drop(File::open(dir.path().join(NAME)).unwrap());
        assert!(matches!(Lock::take(dir.path()), Err(LogError::InUse { .. })));
    }

    #[test]
    fn a_reader_cannot_hold_it() {
        let dir = folder();
        drop(Lock::take(dir.path()).unwrap());
        let readers = [NAME, FORMAT_FILE].map(|name| File::open(dir.path().join(name)).unwrap());
        for reader in &readers {
            rustix::fs::flock(reader, FlockOperation::LockShared).unwrap();
        }
        assert_eq!(holder(dir.path()), None);
        Lock::take(dir.path()).unwrap().show();
    }

    #[test]
    fn a_dead_process_is_not_named() {
        let dir = folder();
        let mut lock = Lock::take(dir.path()).unwrap();
        lock.show();
        std::fs::write(dir.path().join(NAME), "2147483646\n").unwrap();
        assert_eq!(holder(dir.path()), Some(String::new()));
        let refused = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("in use by another process") && !refused.contains("2147483646"));
    }

    #[test]
    fn the_lock_in_the_store_keeps_others_out_when_the_first_is_taken_away() {
        let dir = folder();
        std::fs::create_dir(store_dir(dir.path())).unwrap();
        let _store = own(&store_dir(dir.path()).join(NAME)).unwrap().unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(LogError::InUse { .. })));
    }

    #[test]
    fn what_is_taken_away_is_put_back() {
        let dir = folder();
        let mut lock = Lock::take(dir.path()).unwrap();
        lock.show();
        std::fs::remove_file(dir.path().join(NAME)).unwrap();
        assert_eq!(holder(dir.path()), Some(String::new()));
        lock.put_back();
        assert_eq!(holder(dir.path()), Some(std::process::id().to_string()));
        assert!(matches!(Lock::take(dir.path()), Err(LogError::InUse { .. })));
    }
}
