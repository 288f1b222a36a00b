//! The folder of an export: made beside its place and renamed, so that it is there whole or not at all.

use crate::atomic_file::sync_folder;
use crate::error::{Code, Error};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A folder that has not got its place yet; removed when it does not get it.
pub(super) struct NewFolder {
    place: PathBuf,
    part: PathBuf,
    finished: bool,
}

impl NewFolder {
    /// Begins a folder that is to be at `place`, where nothing is yet or an empty folder.
    ///
    /// # Errors
    /// [`Error::Refused`] when something is there; else what the file system says.
    pub fn begin(place: &Path) -> Result<NewFolder, Error> {
        let place = std::path::absolute(place).map_err(|e| Error::io(place, e))?;
        must_be_vacant(&place)?;
        let io = |path: &Path, error| Error::io(path, error);
        let beside = beside(&place);
        std::fs::create_dir_all(beside).map_err(|e| io(beside, e))?;
        for attempt in 0..u32::MAX {
            let part = beside.join(format!(".gradus-export-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&part) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.map_err(|e| io(&part, e))?;
                    return Ok(NewFolder { place, part, finished: false });
                }
            }
        }
        Err(io(beside, ErrorKind::AlreadyExists.into()))
    }

    /// Where the files are made.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Writes a file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = self.part.join(name);
        std::fs::write(&path, bytes).map_err(|e| Error::io(&path, e))
    }

    /// Begins a file of rows.
    ///
    /// # Errors
    /// What the file system says.
    pub fn rows(&self, name: &str) -> Result<RowsFile, Error> {
        let path = self.part.join(name);
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        Ok(RowsFile { path, file: BufWriter::new(file), rows: 0 })
    }

    /// Gives the folder its place. Durable when this returns.
    ///
    /// # Errors
    /// What the file system says; nothing is there then.
    pub fn finish(mut self) -> Result<(), Error> {
        let io = |path: &Path, error| Error::io(path, error);
        for entry in std::fs::read_dir(&self.part).map_err(|e| io(&self.part, e))? {
            let path = entry.map_err(|e| io(&self.part, e))?.path();
            File::open(&path).and_then(|file| file.sync_all()).map_err(|e| io(&path, e))?;
        }
        sync_folder(&self.part).map_err(|e| io(&self.part, e))?;
        // Over an empty folder, and over nothing else.
        std::fs::rename(&self.part, &self.place).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory => there(&self.place),
            _ => io(&self.place, error),
        })?;
        self.finished = true;
        sync_folder(beside(&self.place)).map_err(|e| io(&self.place, e))
    }
}

/// A file with a JSON value on each line, however many they are.
pub(super) struct RowsFile {
    path: PathBuf,
    file: BufWriter<File>,
    rows: u64,
}

impl RowsFile {
    /// Adds a row.
    ///
    /// # Errors
    /// What the file system says.
    pub fn push(&mut self, row: &impl Serialize) -> Result<(), Error> {
        let io = |error: std::io::Error| Error::io(&self.path, error);
        serde_json::to_writer(&mut self.file, row).map_err(|error| io(error.into()))?;
        self.file.write_all(b"\n").map_err(io)?;
        self.rows += 1;
        Ok(())
    }

    /// Ends the file: how many rows it has.
    ///
    /// # Errors
    /// What the file system says; [`Error::Refused`] where it has none.
    pub fn finish(mut self, nothing: &str) -> Result<u64, Error> {
        self.file.flush().map_err(|error| Error::io(&self.path, error))?;
        match self.rows {
            0 => Err(Error::refused(
                Code::NothingToExport,
                format!("{nothing}: there is nothing to export"),
            )),
            rows => Ok(rows),
        }
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.finished {
            // Half a model on a full disk would keep it full.
            let _ = std::fs::remove_dir_all(&self.part);
        }
    }
}

/// The folder that a path is in.
fn beside(place: &Path) -> &Path {
    place.parent().unwrap_or(place)
}

fn there(place: &Path) -> Error {
    let place = place.display();
    Error::refused(
        Code::OutputExists,
        format!(
            "{place} is there already and is not written over. Give a folder that is empty or not \
             there yet, or remove it"
        ),
    )
}

/// # Errors
/// [`Error::Refused`] where something is that is no empty folder.
fn must_be_vacant(place: &Path) -> Result<(), Error> {
    // A link to nothing is something of somebody's, too.
    match std::fs::symlink_metadata(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(place, error)),
        Ok(found) if !found.is_dir() => return Err(there(place)),
        Ok(_) => {}
    }
    let mut entries = std::fs::read_dir(place).map_err(|e| Error::io(place, e))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(there(place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("out/model");
        let half = NewFolder::begin(&place).unwrap();
        half.write("a", "1").unwrap();
        drop(half);
        assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
        std::fs::create_dir(&place).unwrap();
        let whole = NewFolder::begin(&place).unwrap();
        whole.write("a", "1").unwrap();
        whole.finish().unwrap();
        assert_eq!(std::fs::read_to_string(place.join("a")).unwrap(), "1");
        let again = NewFolder::begin(&place).err().unwrap();
        assert_eq!(again.code(), Code::OutputExists);
        let late = NewFolder::begin(&dir.path().join("late")).unwrap();
        std::fs::create_dir(dir.path().join("late")).unwrap();
        std::fs::write(dir.path().join("late/own"), "mine").unwrap();
        assert_eq!(late.finish().unwrap_err().code(), Code::OutputExists);
        assert_eq!(std::fs::read_to_string(dir.path().join("late/own")).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no part is left");
    }
}
