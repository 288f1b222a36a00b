//! Compaction: the records before the tail are dropped, but for those that are kept; what they came
//! to becomes the log's [`super::CompactedPrefix`]. No record at or after a cursor is ever dropped.

use super::chain::Chain;
use super::compacted::{CompactedPrefix, PrefixDraft, PrefixState};
use super::error::LogError;
use super::journal::{Journal, is_full};
use super::layout::{COMPACTED_FILES, journal_dir};
use super::record::{Entry, Recorded, decode};
use super::scan::{Scan, Scanned};
use super::segment;
use super::shared::LogState;
use crate::domain::Offset;
use std::collections::BTreeMap;
use std::path::Path;

/// What of a log stays.
pub struct Compaction<'a> {
    /// Whether a record stays.
    pub keep: Box<dyn Fn(&Recorded) -> bool + 'a>,
    /// Views that have folded every record, by name.
    pub views: BTreeMap<String, serde_json::Value>,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    /// From here on there are no gaps.
    pub floor: Offset,
    /// Records that are gone.
    pub dropped: u64,
    /// Records before the floor that stayed.
    pub kept: u64,
    /// The log's size before.
    pub bytes_before: u64,
    /// The log's size after.
    pub bytes_after: u64,
}

fn io(error: std::io::Error) -> LogError {
    match is_full(&error) {
        true => LogError::Full { reason: error.to_string() },
        false => LogError::Read(format!("compaction: {error}")),
    }
}

/// Bytes of the journal and of what is before it.
fn size(dir: &Path) -> u64 {
    let segments = segment::list(&journal_dir(dir)).unwrap_or_default();
    let files = segments.into_iter().map(|segment| segment.path);
    let files = files.chain(COMPACTED_FILES.map(|name| dir.join(name)));
    files.filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len()).sum()
}

/// Compacts a log whose store has everything and to which nothing is appended meanwhile. Its tail
/// and last batch are those of `end`. `None` when nothing would be dropped.
///
/// # Errors
/// [`LogError::Damaged`] for a log that is not sound, [`LogError::Full`]; nothing is changed then.
pub(crate) fn compact(
    shared: &LogState,
    journal: &mut Journal,
    end: &Chain,
    wanted: Compaction<'_>,
) -> Result<Option<Compacted>, LogError> {
    let dir = shared.dir();
    let bytes_before = size(dir);
    let Some(mut done) = write(shared, journal, end, wanted)? else { return Ok(None) };
    shared.set_compacted(CompactedPrefix::of_folder(dir)?);
    segment::remove_below(&journal_dir(dir), done.floor).map_err(io)?;
    shared.queue.delete_below(done.floor);
    (done.bytes_before, done.bytes_after) = (bytes_before, size(dir));
    Ok(Some(done))
}

fn write(
    shared: &LogState,
    journal: &mut Journal,
    end: &Chain,
    wanted: Compaction<'_>,
) -> Result<Option<Compacted>, LogError> {
    let before = shared.compacted();
    let (mut state, mut chain) = match &before {
        Some(before) => (before.state()?, Chain::after(before.floor(), before.last())),
        None => (PrefixState::default(), Chain::after(Offset(0), [0; 32])),
    };
    state.cursors = shared.store.cursors().map_err(|e| LogError::Read(e.reason().to_owned()))?;
    state.keys = shared.store.keys().map_err(|e| LogError::Read(e.reason().to_owned()))?;
    let reader = state.cursors.values().min().copied().unwrap_or(Offset(u64::MAX));
    let mut draft = PrefixDraft::begin(shared.dir()).map_err(io)?;
    let mut done = Compacted { floor: end.tail(), ..Compacted::default() };
    let mut take = |entry: &Entry, record: &Recorded| {
        if record.offset >= reader || (wanted.keep)(record) {
            done.kept += 1;
            return draft.keep(&entry.line).map_err(io);
        }
        done.dropped += 1;
        Ok(())
    };
    if let Some(before) = &before {
        before.each(Offset(0), |entry| {
            take(&entry, &decode(entry.offset, &entry.line)?)?;
            Ok(true)
        })?;
    }
    let mut scan = Scan::over(segment::list(&journal_dir(shared.dir())).map_err(io)?);
    while let Some(found) = scan.step().map_err(io)? {
        let damaged =
            |reason: &str| LogError::Damaged { offset: chain.next(), reason: reason.into() };
        match found {
            Scanned::Header(_) => {}
            Scanned::Record(entry) if chain.fits(&entry) => {
                chain.push(&entry);
                let record = decode(entry.offset, &entry.line)?;
                if !record.event.is_volatile() {
                    state.digest.add(&record)?;
                    state.events += 1;
                }
                take(&entry, &record)?;
            }
            Scanned::Record(_) => return Err(damaged("it does not follow the one before it")),
            Scanned::Damage(reason) => return Err(damaged(&reason)),
        }
    }
    if (chain.tail(), chain.last()) != (end.tail(), end.last()) {
        return Err(LogError::Damaged { offset: chain.tail(), reason: "it is missing".to_owned() });
    }
    if done.dropped == 0 {
        return Ok(None);
    }
    if journal.position().segment < end.tail() {
        journal.rotate(end.tail(), end.last()).map_err(io)?;
    }
    state.views = wanted.views;
    draft.finish(end.tail(), end.last(), &state).map_err(io)?;
    Ok(Some(done))
}
