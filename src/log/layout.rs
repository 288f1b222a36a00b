//! What lies where in a log's folder (`docs/log-format.md`), and the format's number.

use super::error::LogError;
use crate::atomic_file::{self, Access};
use std::path::{Path, PathBuf};

/// The folder's format; any other is refused.
pub(crate) const FORMAT: u32 = 3;
/// The file that holds the format. Whoever may look into the folder may read it (see [`super::lock`]).
pub(crate) const FORMAT_FILE: &str = "FORMAT";
/// What a compacted log begins with, and its copy.
pub(crate) const COMPACTED_FILES: [&str; 2] = ["base", "base.copy"];

/// The folder of the journal.
pub(crate) fn journal_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// The folder of the store.
pub(crate) fn store_dir(dir: &Path) -> PathBuf {
    dir.join("sled")
}

/// Refuses another format.
///
/// # Errors
/// [`LogError::Format`]; [`LogError::Open`] when it cannot be read.
pub(crate) fn check_format(dir: &Path) -> Result<(), LogError> {
    let found = std::fs::read_to_string(dir.join(FORMAT_FILE));
    let found = found.map_err(|error| LogError::open(dir, error))?.trim().to_owned();
    match found == FORMAT.to_string() {
        true => Ok(()),
        false => Err(LogError::Format { path: dir.to_owned(), found, ours: FORMAT }),
    }
}

/// Writes the format into a folder that has none.
///
/// # Errors
/// [`LogError::Open`] with what the file system says.
pub(crate) fn write_format(dir: &Path) -> Result<(), LogError> {
    let file = dir.join(FORMAT_FILE);
    if file.exists() {
        return Ok(());
    }
    atomic_file::write(&file, format!("{FORMAT}\n").as_bytes(), Access::Usual)
        .map_err(|error| LogError::open(dir, error))
}
