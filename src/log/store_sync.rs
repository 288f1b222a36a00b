//! Holds the store equal to the journal: in what the two differ, and giving the store what it lacks.

use super::block::Block;
use super::compacted::CompactedPrefix;
use super::error::LogError;
use super::record::Entry;
use super::scan::{CHUNK_BYTES, Stopped, chunks, entries};
use super::segment::JournalPosition;
use super::store::{Store, StoreError};
use crate::domain::Offset;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Why the store cannot be trusted to hold what the journal holds, if its last record shows it.
///
/// # Errors
/// When the journal cannot be read.
pub(crate) fn mismatch(
    dir: &Path,
    store: &Store,
    tail: Offset,
) -> Result<Option<String>, LogError> {
    let last = match store.last() {
        Ok(None) => return Ok(None),
        Ok(Some(last)) => last,
        Err(error) => return Ok(Some(error.reason().to_owned())),
    };
    if last.0 >= tail {
        return Ok(Some(format!("it has record {}, which the journal has not", last.0)));
    }
    let position = store.position(last.0).unwrap_or_default();
    let ours = entries(dir, last.0, 1, position).map_err(|error| LogError::open(dir, error))?;
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
        Err(Stopped::Caller(reason)) => found = Some(reason),
        Err(Stopped::Journal(reason)) => return Err(LogError::open(dir, reason)),
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
    if let Some(reason) = mismatch(dir, &store, range.end).map_err(text)? {
        return Ok(Some(reason));
    }
    catch_up(dir, &store, CompactedPrefix::of_folder(dir).map_err(text)?.as_ref())?;
    difference(dir, &store, range).map_err(text)
}

/// Gives the store everything of the compacted records and the journal that it lacks.
///
/// # Errors
/// Why it cannot be done.
pub(crate) fn catch_up(
    dir: &Path,
    store: &Store,
    compacted: Option<&CompactedPrefix>,
) -> Result<(), String> {
    let reason = |error: StoreError| error.reason().to_owned();
    let mut from = store.tail().map_err(reason)?;
    if let Some(compacted) = compacted {
        store.delete_below(compacted.floor()).map_err(reason)?;
        if from <= compacted.floor() {
            let state = compacted.state().map_err(|error| error.to_string())?;
            store.import(&state.keys, &state.cursors).map_err(reason)?;
            from = compacted.floor();
        }
    }
    let apply = |position: JournalPosition, chunk: &[Entry]| {
        let mut block = Block::new(from, Vec::with_capacity(CHUNK_BYTES));
        block.position = position;
        chunk.iter().for_each(|entry| block.push_entry(entry));
        store.apply(&[Arc::new(block)]).map_err(|error| error.reason().to_owned())
    };
    match chunks(dir, from, apply) {
        Ok(()) => Ok(()),
        Err(Stopped::Caller(reason) | Stopped::Journal(reason)) => Err(reason),
    }
}
