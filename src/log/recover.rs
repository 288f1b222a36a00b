//! Opens both copies and makes them one: a torn end of the journal is cut off, what one copy lacks
//! comes from the other, a damaged store is set aside and made again. What neither has is an
//! error, never a silence.

use super::compacted::CompactedPrefix;
use super::error::LogError;
use super::journal::Journal;
use super::layout::{journal_dir, store_dir};
use super::lock::in_use;
use super::record::BatchHash;
use super::repair::{self, Evidence, LostRecords};
use super::scan::{Stopped, chunks};
use super::segment;
use super::shutdown::ShutdownMarker;
use super::store::{Store, StoreError, set_aside};
use super::store_sync::{catch_up, mismatch};
use crate::atomic_file;
use crate::domain::Offset;
use std::path::Path;

/// Both copies, equal.
pub(crate) struct OpenedCopies {
    pub journal: Journal,
    pub store: Store,
    pub tail: Offset,
    /// Hash of the last batch.
    pub last: BatchHash,
    /// What was repaired, for people.
    pub repairs: Vec<String>,
    /// What it begins with, once it was compacted.
    pub compacted: Option<CompactedPrefix>,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// At the ends; at everything only after a power cut.
    Normal,
    /// At everything, and repair what can be repaired.
    Rebuild(LostRecords),
}

/// Opens the log in the folder `dir`, which the caller has locked.
///
/// # Errors
/// [`LogError::Lost`] when records that were durable are in neither copy (with
/// [`LostRecords::Accept`] what is before them is kept); [`LogError::Open`] for what the system says.
pub(crate) fn open(dir: &Path, mode: OpenMode) -> Result<OpenedCopies, LogError> {
    let marker = ShutdownMarker::read(dir);
    for folder in [dir, &journal_dir(dir)] {
        atomic_file::remove_abandoned(folder);
    }
    let mut repairs = Vec::new();
    let lost_records = match mode {
        OpenMode::Normal => LostRecords::Refuse,
        OpenMode::Rebuild(lost_records) => lost_records,
    };
    let compacted = CompactedPrefix::open_and_repair(dir, &mut repairs)?;
    if let Some(compacted) = &compacted {
        // A compaction that was interrupted.
        segment::remove_below(&journal_dir(dir), compacted.floor())
            .map_err(|error| LogError::open(dir, error))?;
    }
    let mut store = match Store::open(&store_dir(dir)) {
        Ok(store) => store,
        Err(StoreError::Io(reason)) => return Err(LogError::open(dir, reason)),
        Err(StoreError::Damaged(reason)) => replace_damaged(dir, &reason, &mut repairs)?,
        Err(StoreError::InUse) => return Err(in_use(dir)),
    };
    let begin = compacted.as_ref().map_or((Offset(0), [0; 32]), |c| (c.floor(), c.last()));
    let evidence = Evidence { marker: marker.clone(), lost_records, begin };
    if let OpenMode::Rebuild(_) = mode {
        repair::sealed_segments(dir, &store, &evidence, &mut repairs)?;
    }
    let (journal, tail, last) = repair::open_journal(dir, &store, &evidence, &mut repairs)?;
    if tail > Offset(0) && (marker.power_cut() || mode != OpenMode::Normal) {
        drop(store);
        store = rebuild_unsound(dir, begin.0, &mut repairs)?;
    } else if let Some(reason) = mismatch(dir, &store, tail)? {
        drop(store);
        store = replace_damaged(dir, &reason, &mut repairs)?;
    }
    catch_up(dir, &store, compacted.as_ref()).map_err(|reason| LogError::open(dir, reason))?;
    Ok(OpenedCopies { journal, store, tail, last, repairs, compacted })
}

/// Sets the store aside and begins a new one.
fn replace_damaged(dir: &Path, reason: &str, repairs: &mut Vec<String>) -> Result<Store, LogError> {
    let aside = set_aside(&store_dir(dir)).map_err(|error| LogError::open(dir, error))?;
    let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    tracing::warn!(reason, aside = name, "the store is damaged; made again from the journal");
    repairs.push(format!("store set aside as {name} ({reason}), made again from the journal"));
    Store::open(&store_dir(dir)).map_err(|error| LogError::open(dir, error.reason()))
}

/// An empty store in the place of one whose pages may be of different ages, as after a power cut,
/// which sled does not always notice itself. The journal is looked at first, for then it is the
/// only copy.
fn rebuild_unsound(
    dir: &Path,
    begin: Offset,
    repairs: &mut Vec<String>,
) -> Result<Store, LogError> {
    match chunks(dir, begin, |_, _| Ok(())) {
        Ok(()) => {}
        Err(Stopped::Caller(reason) | Stopped::Journal(reason)) => {
            return Err(LogError::open(dir, reason));
        }
    }
    std::fs::remove_dir_all(store_dir(dir)).map_err(|error| LogError::open(dir, error))?;
    repairs.push("store made again from the journal".to_owned());
    Store::open(&store_dir(dir)).map_err(|error| LogError::open(dir, error.reason()))
}
