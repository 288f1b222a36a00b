//! A log for reading alone: the journal's files, beside a running process or without one. Nothing
//! is locked, repaired or written.

use super::compacted::CompactedPrefix;
use super::error::LogError;
use super::layout::{COMPACTED_FILES, FORMAT_FILE, check_format, journal_dir};
use super::record::{Entry, Recorded, decode};
use super::scan::{Scan, Scanned, holding};
use super::subscribers::Subscribers;
use super::{Appended, Batch, Log};
use crate::domain::{Offset, TaskKey};
use crossbeam_channel::Receiver;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// A scan and the record that it comes upon next.
#[derive(Default)]
struct ReadPosition {
    scan: Option<Scan>,
    next: Offset,
}

/// The journal, read.
pub struct JournalLog {
    dir: PathBuf,
    /// Where the last read ended: reading on from there costs no search.
    position: Mutex<ReadPosition>,
    /// Where the last look for the tail ended.
    end: Mutex<Seen>,
    /// What it begins with, and when that file was written.
    compacted: Mutex<(Option<Arc<CompactedPrefix>>, Option<SystemTime>)>,
    subscribers: Subscribers,
}

/// How far the journal was seen.
#[derive(Clone, Copy, Default)]
struct Seen {
    segment: Offset,
    bytes: u64,
    tail: Offset,
}

impl JournalLog {
    /// The log in the folder `dir`.
    ///
    /// # Errors
    /// [`LogError::Format`], [`LogError::Open`].
    pub fn open(dir: &Path) -> Result<JournalLog, LogError> {
        // A log that is being created has no format yet, and no records.
        if dir.join(FORMAT_FILE).exists() {
            check_format(dir)?;
        }
        let log = JournalLog {
            dir: dir.to_owned(),
            position: Mutex::default(),
            end: Mutex::default(),
            compacted: Mutex::default(),
            subscribers: Subscribers::default(),
        };
        log.known_prefix()?;
        log.look().map_err(|error| LogError::open(&journal_dir(dir), error))?;
        Ok(log)
    }

    /// What the log begins with now: a process that works on it may have compacted it.
    fn known_prefix(&self) -> Result<Option<Arc<CompactedPrefix>>, LogError> {
        let [file, _] = COMPACTED_FILES;
        let written = std::fs::metadata(self.dir.join(file)).and_then(|file| file.modified());
        let written = written.ok();
        let mut known = self.compacted.lock().unwrap_or_else(PoisonError::into_inner);
        if known.1 != written || (written.is_none() && known.0.is_none()) {
            *known = (CompactedPrefix::of_folder(&self.dir)?.map(Arc::new), written);
        }
        Ok(known.0.clone())
    }

    fn position(&self) -> MutexGuard<'_, ReadPosition> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all lines as they are; how many.
    ///
    /// # Errors
    /// [`LogError::Damaged`]; [`LogError::Read`] also when `to` cannot be written.
    pub fn export(&self, to: &mut dyn std::io::Write) -> Result<u64, LogError> {
        let (mut records, mut result) = (0, Ok(()));
        self.entries(Offset(0), |entry| {
            result = to.write_all(&entry.line).and_then(|()| to.write_all(b"\n"));
            records += u64::from(result.is_ok());
            result.is_ok()
        })?;
        // A reader that has enough (`| head`) is no error.
        match result.and_then(|()| to.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(LogError::Read(format!("the export cannot be written: {error}")))
            }
            _ => Ok(records),
        }
    }

    /// Sees how far the journal goes now: to the end of its last whole batch.
    fn look(&self) -> std::io::Result<Offset> {
        let floor = self.compacted().map_or(Offset(0), |compacted| compacted.floor());
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.tail < floor {
            *end = Seen { tail: floor, ..Seen::default() };
        }
        let segments = holding(&self.dir, end.tail)?;
        let at = match segments.first() {
            Some(first) if first.first == end.segment => end.bytes,
            _ => 0,
        };
        let mut scan = Scan::from(segments, at)?;
        loop {
            let found = scan.step()?;
            let Some((segment, bytes)) = scan.at() else { break };
            match found {
                None | Some(Scanned::Damage(_)) => break,
                Some(Scanned::Header(_)) => {}
                Some(Scanned::Record(entry)) if entry.left == 0 => {
                    let tail = Offset(entry.offset.0 + 1);
                    *end = Seen { segment: segment.first, bytes, tail };
                }
                Some(Scanned::Record(_)) => {}
            }
        }
        Ok(end.tail)
    }

    /// Calls `each` with entries from `from` on until it says stop or the tail is reached.
    fn entries(&self, from: Offset, mut each: impl FnMut(Entry) -> bool) -> Result<(), LogError> {
        let mut from = from;
        if let Some(compacted) = self.known_prefix()?.filter(|known| from < known.floor()) {
            let mut go_on = true;
            compacted.each(from, |entry| {
                go_on = go_on && each(entry);
                Ok(go_on)
            })?;
            if !go_on {
                return Ok(());
            }
            from = compacted.floor();
        }
        self.entries_above(from, each)
    }

    /// As [`JournalLog::entries`], of the journal.
    fn entries_above(
        &self,
        from: Offset,
        mut each: impl FnMut(Entry) -> bool,
    ) -> Result<(), LogError> {
        let read = |error: std::io::Error| LogError::Read(error.to_string());
        let tail = self.tail();
        let mut position = self.position();
        if position.next != from || position.scan.is_none() {
            position.scan = Some(Scan::over(holding(&self.dir, from).map_err(read)?));
            position.next = from;
        }
        while position.next < tail {
            let next = position.next;
            let damaged = |reason: &str| LogError::Damaged { offset: next, reason: reason.into() };
            let Some(scan) = &mut position.scan else { break };
            match scan.step().map_err(read)? {
                Some(Scanned::Header(_)) => {}
                Some(Scanned::Record(entry)) if entry.offset < from => {}
                Some(Scanned::Record(entry)) if entry.offset == next => {
                    position.next = Offset(next.0 + 1);
                    if !each(*entry) {
                        break;
                    }
                }
                Some(Scanned::Record(_)) => {
                    return Err(self.reset(position, damaged("it is missing")));
                }
                Some(Scanned::Damage(reason)) => return Err(self.reset(position, damaged(&reason))),
                // A writer that goes on in a new segment, which this scan does not know.
                None => {
                    let fresh = holding(&self.dir, next).map_err(read)?;
                    if fresh.first().is_none_or(|segment| segment.first != next) {
                        return Err(self.reset(position, damaged("it is missing")));
                    }
                    position.scan = Some(Scan::over(fresh));
                }
            }
        }
        Ok(())
    }

    fn reset(&self, mut position: MutexGuard<'_, ReadPosition>, error: LogError) -> LogError {
        *position = ReadPosition::default();
        error
    }
}

impl Log for JournalLog {
    fn append(&self, _batch: Batch) -> Result<Appended, LogError> {
        Err(LogError::Poisoned("it was opened for reading alone".to_owned()))
    }

    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        let mut found: Vec<Entry> = Vec::new();
        if max == 0 {
            return Ok(Vec::new());
        }
        let read = self.entries(from, |entry| {
            found.push(entry);
            found.len() < max
        });
        if let Err(error) = read {
            // It may have been compacted meanwhile.
            let before = self.compacted.lock().unwrap_or_else(PoisonError::into_inner).1;
            self.known_prefix()?;
            let now = self.compacted.lock().unwrap_or_else(PoisonError::into_inner).1;
            return if before == now { Err(error) } else { self.read(from, max) };
        }
        found.into_iter().map(|entry| decode(entry.offset, &entry.line)).collect()
    }

    fn compacted(&self) -> Option<Arc<CompactedPrefix>> {
        // What cannot be read now was read before.
        let known = || self.compacted.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        self.known_prefix().unwrap_or_else(|_| known())
    }

    fn tail(&self) -> Offset {
        // What cannot be read now was read before.
        self.look().unwrap_or_else(|_| self.end.lock().unwrap_or_else(PoisonError::into_inner).tail)
    }

    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        let mut found = None;
        if let Some(compacted) = self.known_prefix()? {
            let keys = compacted.state()?.keys;
            found = keys.into_iter().find(|(taken, _)| taken == key).map(|(_, at)| at);
        }
        if found.is_some() {
            return Ok(found);
        }
        self.entries(Offset(0), |entry| {
            found = (entry.key.as_ref() == Some(key)).then_some(entry.offset);
            found.is_none()
        })?;
        Ok(found)
    }

    fn cursor(&self, name: &str) -> Result<Offset, LogError> {
        let state = self.known_prefix()?.map(|compacted| compacted.state()).transpose()?;
        let mut found =
            state.and_then(|state| state.cursors.get(name).copied()).unwrap_or_default();
        self.entries(Offset(0), |entry| {
            if let Some((_, at)) = entry.cursor.filter(|(theirs, _)| theirs == name) {
                found = at;
            }
            true
        })?;
        Ok(found)
    }

    fn subscribe(&self) -> Receiver<()> {
        self.subscribers.add()
    }
}
