//! Opens both copies and makes them one: a torn end of the journal is cut off, what one copy lacks
//! comes from the other, a damaged store is set aside and made again. What neither has is an
//! error, never a silence.

use super::base::Base;
use super::block::{Block, Place};
use super::chain::BatchHash;
use super::compact::drop_segments;
use super::error::LogError;
use super::journal::Journal;
use super::lock::in_use;
use super::mark::Mark;
use super::mend::{self, Known, Loss};
use super::segment::{self, Segment};
use super::store::{Store, StoreError, set_aside};
use super::walk::{Entry, Found, Walk};
use crate::domain::Offset;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of lines that go to the store together.
const FEED_BYTES: usize = 128 << 10;

/// Both copies, equal.
pub(crate) struct Opened {
    pub journal: Journal,
    pub store: Store,
    pub tail: Offset,
    /// Hash of the last batch.
    pub last: BatchHash,
    /// What was mended, for people.
    pub repairs: Vec<String>,
    /// What it begins with, once it was compacted.
    pub base: Option<Base>,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// At the ends; at everything only after a power cut.
    Usual,
    /// At everything, and mend what can be mended.
    Rebuild(Loss),
}

/// Where the two copies lie in the log's folder.
pub(crate) fn journal_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

pub(crate) fn store_dir(dir: &Path) -> PathBuf {
    dir.join("sled")
}

pub(crate) fn open_error(path: &Path, reason: impl ToString) -> LogError {
    LogError::Open { path: path.to_owned(), reason: reason.to_string() }
}

/// Opens the log in the folder `dir`, which the caller has locked.
///
/// # Errors
/// [`LogError::Lost`] when records that were durable are in neither copy (with
/// [`Loss::Accept`] what is before them is kept); [`LogError::Open`] for what the system says.
pub(crate) fn open(dir: &Path, care: Care) -> Result<Opened, LogError> {
    let mark = Mark::read(dir);
    let mut repairs = Vec::new();
    let loss = match care {
        Care::Usual => Loss::Refuse,
        Care::Rebuild(loss) => loss,
    };
    let base = Base::mended(dir, &mut repairs)?;
    if let Some(base) = &base {
        // A compaction that was interrupted.
        drop_segments(dir, base.floor()).map_err(|error| open_error(dir, error))?;
    }
    let mut store = match Store::open(&store_dir(dir)) {
        Ok(store) => store,
        Err(StoreError::Io(reason)) => return Err(open_error(dir, reason)),
        Err(StoreError::Damaged(reason)) => anew(dir, &reason, &mut repairs)?,
        Err(StoreError::InUse) => return Err(in_use(dir)),
    };
    let begin = base.as_ref().map_or((Offset(0), [0; 32]), |base| (base.floor(), base.last()));
    let known = Known { mark: mark.clone(), loss, begin };
    if let Care::Rebuild(_) = care {
        mend::sealed_segments(dir, &store, &known, &mut repairs)?;
    }
    let (journal, tail, last) = mend::journal(dir, &store, &known, &mut repairs)?;
    if tail > Offset(0) && (mark.power_cut() || care != Care::Usual) {
        drop(store);
        store = renewed(dir, begin.0, &mut repairs)?;
    } else if let Some(reason) = distrust(dir, &store, tail)? {
        drop(store);
        store = anew(dir, &reason, &mut repairs)?;
    }
    feed(dir, &store, base.as_ref()).map_err(|reason| open_error(dir, reason))?;
    Ok(Opened { journal, store, tail, last, repairs, base })
}

/// Sets the store aside and begins a new one.
fn anew(dir: &Path, reason: &str, repairs: &mut Vec<String>) -> Result<Store, LogError> {
    let aside = set_aside(&store_dir(dir)).map_err(|error| open_error(dir, error))?;
    let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    tracing::warn!(reason, aside = name, "the store is damaged; made again from the journal");
    repairs.push(format!("store set aside as {name} ({reason}), made again from the journal"));
    Store::open(&store_dir(dir)).map_err(|error| open_error(dir, error.reason()))
}

/// An empty store in the place of one whose pages may be of different ages, as after a power cut,
/// which sled does not always notice itself. The journal is looked at first, for then it is the
/// only copy.
fn renewed(dir: &Path, begin: Offset, repairs: &mut Vec<String>) -> Result<Store, LogError> {
    match chunks(dir, begin, |_, _| Ok(())) {
        Ok(()) => {}
        Err(Stop::Caller(reason) | Stop::Journal(reason)) => return Err(open_error(dir, reason)),
    }
    std::fs::remove_dir_all(store_dir(dir)).map_err(|error| open_error(dir, error))?;
    repairs.push("store made again from the journal".to_owned());
    Store::open(&store_dir(dir)).map_err(|error| open_error(dir, error.reason()))
}

/// Why the store cannot be trusted to hold what the journal holds, if it cannot.
fn distrust(dir: &Path, store: &Store, tail: Offset) -> Result<Option<String>, LogError> {
    let last = match store.last() {
        Ok(None) => return Ok(None),
        Ok(Some(last)) => last,
        Err(error) => return Ok(Some(error.reason().to_owned())),
    };
    if last.0 >= tail {
        return Ok(Some(format!("it has record {}, which the journal has not", last.0)));
    }
    let place = store.place(last.0).unwrap_or_default();
    let ours = entries(dir, last.0, 1, place).map_err(|error| open_error(dir, error))?;
    if ours.first().is_none_or(|entry| entry.offset != last.0 || entry.line != last.1) {
        return Ok(Some(format!("its record {} is not the journal's", last.0)));
    }
    Ok(None)
}

/// The first thing in which the store differs from the journal, within `range`. sled keeps in memory
/// what it reads (each of its 256 cache shards counts only when it has been asked 64 times), so this
/// is for the asking, not for every opening.
pub(crate) fn difference(
    dir: &Path,
    store: &Store,
    range: Range<Offset>,
) -> Result<Option<String>, LogError> {
    let mut found = None;
    let mut before = None;
    let walked = chunks(dir, range.start, |_, chunk| {
        let chunk: Vec<&Entry> =
            chunk.iter().take_while(|entry| entry.offset < range.end).collect();
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else {
            return Ok(());
        };
        let lines = match store.lines(first.offset, Offset(last.offset.0 + 1)) {
            Ok(lines) => lines,
            Err(error) => return Err(error.reason().to_owned()),
        };
        for (entry, line) in chunk.iter().zip(lines) {
            if entry.line != *line {
                return Err(format!("its record {} is not the journal's", entry.offset));
            }
            if entry.key.is_some() && entry.key != before {
                let key = entry.key.as_ref().and_then(|key| store.key(key).ok().flatten());
                if key != Some(entry.offset) {
                    return Err(format!("the task key of record {} is not in it", entry.offset));
                }
            }
            before.clone_from(&entry.key);
        }
        Ok(())
    });
    match walked {
        Ok(()) => {}
        Err(Stop::Caller(reason)) => found = Some(reason),
        Err(Stop::Journal(reason)) => return Err(open_error(dir, reason)),
    }
    Ok(found)
}

/// In what a copy of the store, which lies in `copy`, differs from the log in the folder `dir`, once it
/// has got what it lacks, as it would when the log is opened.
///
/// # Errors
/// Why it cannot be looked at.
pub(crate) fn copy_differs(
    dir: &Path,
    copy: &Path,
    range: Range<Offset>,
) -> Result<Option<String>, String> {
    let store = match Store::open(copy) {
        Ok(store) => store,
        Err(StoreError::Damaged(reason)) => return Ok(Some(reason)),
        Err(error) => return Err(error.reason().to_owned()),
    };
    let text = |error: LogError| error.to_string();
    if let Some(reason) = distrust(dir, &store, range.end).map_err(text)? {
        return Ok(Some(reason));
    }
    feed(dir, &store, Base::of_folder(dir).map_err(text)?.as_ref())?;
    difference(dir, &store, range).map_err(text)
}

/// Gives the store everything of the base and the journal that it lacks.
fn feed(dir: &Path, store: &Store, base: Option<&Base>) -> Result<(), String> {
    let reason = |error: StoreError| error.reason().to_owned();
    let mut from = store.tail().map_err(reason)?;
    if let Some(base) = base {
        store.forget(base.floor()).map_err(reason)?;
        if from <= base.floor() {
            let state = base.state().map_err(|error| error.to_string())?;
            store.adopt(&state.keys, &state.cursors).map_err(reason)?;
            from = base.floor();
        }
    }
    let apply = |place: Place, chunk: &[Entry]| {
        let mut block = Block::new(from, Vec::with_capacity(FEED_BYTES));
        block.place = place;
        chunk.iter().for_each(|entry| block.push_entry(entry));
        store.apply(&[Arc::new(block)]).map_err(|error| error.reason().to_owned())
    };
    match chunks(dir, from, apply) {
        Ok(()) => Ok(()),
        Err(Stop::Caller(reason) | Stop::Journal(reason)) => Err(reason),
    }
}

/// Why a walk over the journal ended early.
enum Stop {
    /// The caller's reason.
    Caller(String),
    /// The journal cannot be read.
    Journal(String),
}

/// Calls `each` with all of the journal's entries from `from` on, some of a segment at a time, and
/// where the first of them begins.
fn chunks(
    dir: &Path,
    from: Offset,
    mut each: impl FnMut(Place, &[Entry]) -> Result<(), String>,
) -> Result<(), Stop> {
    let mut chunk: Vec<Entry> = Vec::new();
    let (mut bytes, mut next, mut place) = (0, from, Place::default());
    let journal = |error: std::io::Error| Stop::Journal(error.to_string());
    let mut walk = Walk::over(holding(dir, from).map_err(journal)?);
    loop {
        let found = walk.step().map_err(journal)?;
        let full = bytes >= FEED_BYTES || matches!(found, None | Some(Found::Header(_)));
        if full && !chunk.is_empty() {
            each(place, &chunk).map_err(Stop::Caller)?;
            chunk.clear();
            bytes = 0;
        }
        match found {
            None => return Ok(()),
            Some(Found::Header(_)) => {}
            Some(Found::Record(entry)) if entry.offset < next => {}
            Some(Found::Record(entry)) if entry.offset == next => {
                if chunk.is_empty() {
                    place = walk.place_of(&entry);
                }
                next = Offset(next.0 + 1);
                bytes += entry.line.len();
                chunk.push(*entry);
            }
            Some(Found::Record(_)) => {
                return Err(Stop::Journal(format!("journal: record {next} is missing")));
            }
            Some(Found::Damage(reason)) => {
                return Err(Stop::Journal(format!("journal: record {next}: {reason}")));
            }
        }
    }
}

/// The segments from the one that holds `from` on.
///
/// # Errors
/// When the folder cannot be listed.
pub(crate) fn holding(dir: &Path, from: Offset) -> std::io::Result<Vec<Segment>> {
    let mut segments = segment::list(&journal_dir(dir))?;
    let first = segments.iter().rposition(|segment| segment.first <= from).unwrap_or(0);
    Ok(segments.split_off(first.min(segments.len())))
}

/// Up to `max` readable entries of the journal from `from` on. A known `place` of a record at or
/// before `from` spares a search through its segment.
///
/// # Errors
/// When the journal cannot be read.
pub(crate) fn entries(
    dir: &Path,
    from: Offset,
    max: usize,
    place: Option<Place>,
) -> std::io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let segments = holding(dir, from)?;
    let known = place.filter(|place| segments.first().is_some_and(|s| s.first == place.segment));
    let mut walk = Walk::from(segments, known.map_or(0, |place| place.at))?;
    while found.len() < max {
        match walk.step()? {
            None => break,
            Some(Found::Record(entry)) if entry.offset >= from => found.push(*entry),
            Some(_) => {}
        }
    }
    Ok(found)
}
