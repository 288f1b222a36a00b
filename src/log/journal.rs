//! The strict copy: append-only files of lines. What [`Journal::append`] has returned from is on
//! the disk; the store is written afterwards, from memory, and repaired from here.

use super::layout::FORMAT;
use super::lock::is_unlinked;
use super::record::BatchHash;
use super::segment::{JournalPosition, Sealed, Segment, hash_file, header_line, path_of};
use crate::atomic_file::{self, Access, create_private_folder, sync_folder};
use crate::domain::Offset;
use crate::faults::{Point, pass};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why lines were not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// There is no space; nothing of it is in the file, and it may be tried again.
    Full(String),
    /// What is in the file is unknown until it is opened and read again.
    Lost(String),
}

/// Whether an error says that the disk or the quota is used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The last segment, open for appending.
pub(crate) struct Journal {
    dir: PathBuf,
    file: File,
    segment: Segment,
    bytes: u64,
    /// Why nothing may be appended any more.
    lost: Option<String>,
}

impl Journal {
    /// Begins the first segment of an empty journal.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(dir: &Path, first: Offset, previous: BatchHash) -> io::Result<Journal> {
        create_private_folder(dir)?;
        Journal::begin_segment(dir, first, previous, None)
    }

    fn begin_segment(
        dir: &Path,
        first: Offset,
        previous: BatchHash,
        sealed: Option<&Sealed>,
    ) -> io::Result<Journal> {
        pass(Point::SegmentBegin)?;
        let path = path_of(dir, first);
        let header = header_line(first, FORMAT, previous, sealed);
        atomic_file::write(&path, &header, Access::Private)?;
        let bytes = std::fs::metadata(&path)?.len();
        Journal::resume(dir, Segment { first, path }, bytes)
    }

    /// Goes on after the first `bytes` of the last segment; what follows them is cut off.
    ///
    /// # Errors
    /// What the file system says.
    pub fn resume(dir: &Path, segment: Segment, bytes: u64) -> io::Result<Journal> {
        let file = OpenOptions::new().append(true).open(&segment.path)?;
        if file.metadata()?.len() != bytes {
            file.set_len(bytes)?;
            file.sync_all()?;
        }
        Ok(Journal { dir: dir.to_owned(), file, segment, bytes, lost: None })
    }

    /// Appends whole lines; they are on the disk when this returns.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append(&mut self, lines: &[u8]) -> Result<(), AppendError> {
        if let Some(reason) = &self.lost {
            return Err(AppendError::Lost(reason.clone()));
        }
        let written = pass(Point::JournalWrite).and_then(|()| self.file.write_all(lines));
        if let Err(error) = written {
            return Err(match self.file.set_len(self.bytes) {
                Ok(()) if is_full(&error) => AppendError::Full(error.to_string()),
                _ => AppendError::Lost(format!("write to the journal: {error}")),
            });
        }
        // After a failed sync nobody knows what is on the disk, and a second sync would claim
        // success (PostgreSQL's "fsync errors"): the file is not used again.
        let synced = pass(Point::JournalSync).and_then(|()| self.file.sync_data());
        synced.map_err(|error| AppendError::Lost(format!("fdatasync of the journal: {error}")))?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Bytes of the segment in use.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The segment in use, when its file was unlinked.
    pub fn unlinked(&self) -> Option<&Path> {
        is_unlinked(&self.file).then_some(self.segment.path.as_path())
    }

    /// Where the next line will begin.
    pub fn position(&self) -> JournalPosition {
        JournalPosition { segment: self.segment.first, at: self.bytes }
    }

    /// Seals the segment, which has records, and begins the next. `next` is the next record's
    /// offset and `previous` the hash of the batch before it.
    ///
    /// # Errors
    /// What the file system says; the old segment stays in use.
    pub fn rotate(&mut self, next: Offset, previous: BatchHash) -> io::Result<()> {
        let blake3 = hash_file(&self.segment.path)?.to_hex().to_string();
        let sealed = Sealed { segment: self.segment.first, bytes: self.bytes, blake3 };
        match Journal::begin_segment(&self.dir, next, previous, Some(&sealed)) {
            Ok(journal) => {
                *self = journal;
                Ok(())
            }
            Err(error) => {
                self.take_back(&path_of(&self.dir, next));
                Err(error)
            }
        }
    }

    /// Takes a segment back that could not be begun to the end: its file may be in its place all the
    /// same, and would not follow what is appended to the one before it. Where it cannot be taken back,
    /// nothing is appended until the log is opened and read again.
    fn take_back(&mut self, begun: &Path) {
        let removed = match std::fs::remove_file(begun) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_folder(&self.dir)),
        };
        if let Err(error) = removed {
            let file = begun.display();
            self.lost = Some(format!("{file} was begun and could not be taken back: {error}"));
        }
    }
}
