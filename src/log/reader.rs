//! A log for reading alone: the journal's files, beside a running process or without one. Nothing
//! is locked, mended or written.

use super::base::Base;
use super::durable::check_format;
use super::error::LogError;
use super::record::{Recorded, decode};
use super::recover::{holding, journal_dir, open_error};
use super::walk::{Entry, Found, Walk};
use super::{Appended, Batch, Bells, Log};
use crate::domain::{Offset, TaskKey};
use crossbeam_channel::Receiver;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// A walk and what it comes upon next.
#[derive(Default)]
struct Place {
    walk: Option<Walk>,
    next: Offset,
}

/// The journal, read.
pub struct JournalLog {
    dir: PathBuf,
    /// Where the last read ended: reading on from there costs no search.
    place: Mutex<Place>,
    /// Where the last look for the tail ended.
    end: Mutex<End>,
    /// What it begins with, and when that file was written.
    base: Mutex<(Option<Arc<Base>>, Option<SystemTime>)>,
    bells: Bells,
}

/// How far the journal was seen.
#[derive(Clone, Copy, Default)]
struct End {
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
        if dir.join("FORMAT").exists() {
            check_format(dir)?;
        }
        let log = JournalLog {
            dir: dir.to_owned(),
            place: Mutex::default(),
            end: Mutex::default(),
            base: Mutex::default(),
            bells: Bells::default(),
        };
        log.known_base()?;
        log.look().map_err(|error| open_error(&journal_dir(dir), error))?;
        Ok(log)
    }

    /// What the log begins with now: a process that works on it may have compacted it.
    fn known_base(&self) -> Result<Option<Arc<Base>>, LogError> {
        let written = std::fs::metadata(self.dir.join("base")).and_then(|file| file.modified());
        let written = written.ok();
        let mut known = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if known.1 != written || (written.is_none() && known.0.is_none()) {
            *known = (Base::of_folder(&self.dir)?.map(Arc::new), written);
        }
        Ok(known.0.clone())
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
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
        let floor = self.base().map_or(Offset(0), |base| base.floor());
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.tail < floor {
            *end = End { tail: floor, ..End::default() };
        }
        let segments = holding(&self.dir, end.tail)?;
        let at = match segments.first() {
            Some(first) if first.first == end.segment => end.bytes,
            _ => 0,
        };
        let mut walk = Walk::from(segments, at)?;
        loop {
            let found = walk.step()?;
            let Some((segment, bytes)) = walk.place() else { break };
            match found {
                None | Some(Found::Damage(_)) => break,
                Some(Found::Header(_)) => {}
                Some(Found::Record(entry)) if entry.left == 0 => {
                    let tail = Offset(entry.offset.0 + 1);
                    *end = End { segment: segment.first, bytes, tail };
                }
                Some(Found::Record(_)) => {}
            }
        }
        Ok(end.tail)
    }

    /// Calls `each` with entries from `from` on until it says stop or the tail is reached.
    fn entries(&self, from: Offset, mut each: impl FnMut(Entry) -> bool) -> Result<(), LogError> {
        let mut from = from;
        if let Some(base) = self.known_base()?.filter(|base| from < base.floor()) {
            let mut go_on = true;
            base.each(from, |entry| {
                go_on = go_on && each(entry);
                Ok(go_on)
            })?;
            if !go_on {
                return Ok(());
            }
            from = base.floor();
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
        let mut place = self.place();
        if place.next != from || place.walk.is_none() {
            place.walk = Some(Walk::over(holding(&self.dir, from).map_err(read)?));
            place.next = from;
        }
        while place.next < tail {
            let next = place.next;
            let damaged = |reason: &str| LogError::Damaged { offset: next, reason: reason.into() };
            let Some(walk) = &mut place.walk else { break };
            match walk.step().map_err(read)? {
                Some(Found::Header(_)) => {}
                Some(Found::Record(entry)) if entry.offset < from => {}
                Some(Found::Record(entry)) if entry.offset == next => {
                    place.next = Offset(next.0 + 1);
                    if !each(*entry) {
                        break;
                    }
                }
                Some(Found::Record(_)) => return Err(self.forget(place, damaged("it is missing"))),
                Some(Found::Damage(reason)) => return Err(self.forget(place, damaged(&reason))),
                // A writer that goes on in a new segment, which this walk does not know.
                None => {
                    let fresh = holding(&self.dir, next).map_err(read)?;
                    if fresh.first().is_none_or(|segment| segment.first != next) {
                        return Err(self.forget(place, damaged("it is missing")));
                    }
                    place.walk = Some(Walk::over(fresh));
                }
            }
        }
        Ok(())
    }

    fn forget(&self, mut place: MutexGuard<'_, Place>, error: LogError) -> LogError {
        *place = Place::default();
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
            let before = self.base.lock().unwrap_or_else(PoisonError::into_inner).1;
            self.known_base()?;
            let now = self.base.lock().unwrap_or_else(PoisonError::into_inner).1;
            return if before == now { Err(error) } else { self.read(from, max) };
        }
        found.into_iter().map(|entry| decode(entry.offset, &entry.line)).collect()
    }

    fn base(&self) -> Option<Arc<Base>> {
        // What cannot be read now was read before.
        let known = || self.base.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        self.known_base().unwrap_or_else(|_| known())
    }

    fn tail(&self) -> Offset {
        // What cannot be read now was read before.
        self.look().unwrap_or_else(|_| self.end.lock().unwrap_or_else(PoisonError::into_inner).tail)
    }

    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        let mut found = None;
        if let Some(base) = self.known_base()? {
            let keys = base.state()?.keys;
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
        let base = self.known_base()?.map(|base| base.state()).transpose()?;
        let mut found = base.and_then(|state| state.cursors.get(name).copied()).unwrap_or_default();
        self.entries(Offset(0), |entry| {
            if let Some((_, at)) = entry.cursor.filter(|(theirs, _)| theirs == name) {
                found = at;
            }
            true
        })?;
        Ok(found)
    }

    fn subscribe(&self) -> Receiver<()> {
        self.bells.subscribe()
    }
}
