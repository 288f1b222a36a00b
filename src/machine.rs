//! What the machine refuses: which errors of the system say something about the machine and nothing
//! about what was asked of it, and whether a folder is still the one that was opened.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Whether an error of the system is about the machine: no space, no handle, no memory, no thread, a
/// disk that refuses, a right that is missing. Another time, or after somebody's help, the same is
/// granted. What is not there, or is something else than was expected, is for the caller to judge.
pub(crate) fn refuses(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::AlreadyExists
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::UnexpectedEof
    )
}

/// A folder as it was opened: what its path led to then, by the file system's own number.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: PathBuf,
    number: (u64, u64),
}

/// What a path leads to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The folder that was opened.
    It,
    /// Nothing, or nothing that can be reached; why. It may come back.
    Nothing(String),
    /// Another folder.
    Another,
}

fn number(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Place {
    /// The folder that `path` leads to.
    ///
    /// # Errors
    /// What the system says when there is none.
    pub fn of(path: &Path) -> io::Result<Place> {
        Ok(Place { path: path.to_owned(), number: number(path)? })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its path leads to now. Costs one call of the system and no file handle.
    pub fn look(&self) -> Found {
        match number(&self.path) {
            Ok(found) if found == self.number => Found::It,
            Ok(_) => Found::Another,
            Err(error) => Found::Nothing(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_refuses_is_told_from_what_is_not_there() {
        // EIO, ENOMEM, EAGAIN, EACCES, EMFILE, ENFILE, ENOSPC, EROFS, EDQUOT, ESTALE
        for code in [5, 12, 11, 13, 24, 23, 28, 30, 122, 116] {
            assert!(refuses(&io::Error::from_raw_os_error(code)), "{code}");
        }
        // ENOENT, ENOTDIR, EISDIR
        for code in [2, 20, 21] {
            assert!(!refuses(&io::Error::from_raw_os_error(code)), "{code}");
        }
    }

    #[test]
    fn a_folder_is_itself_wherever_it_was_meanwhile_and_no_other_is() {
        let root = tempfile::tempdir().unwrap();
        let (ours, aside) = (root.path().join("ours"), root.path().join("aside"));
        std::fs::create_dir(&ours).unwrap();
        let place = Place::of(&ours).unwrap();
        assert_eq!(place.look(), Found::It);
        std::fs::rename(&ours, &aside).unwrap();
        assert!(matches!(place.look(), Found::Nothing(_)));
        std::fs::create_dir(&ours).unwrap();
        assert_eq!(place.look(), Found::Another);
        std::fs::remove_dir(&ours).unwrap();
        std::fs::rename(&aside, &ours).unwrap();
        assert_eq!(place.look(), Found::It);
    }
}
