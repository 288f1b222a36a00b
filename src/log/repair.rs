//! Repairs the journal: what was never acknowledged is cut off at its end, what was and is damaged
//! or gone comes back from the store.
//!
//! A line says up to where everything was on the disk when it was written (`durable`), and the
//! next group is written only after the last is synced. So a line that cannot be read, with none
//! after it that vouches for it and none of it in the store, was never acknowledged.

use super::chain::Chain;
use super::error::LogError;
use super::journal::Journal;
use super::layout::{FORMAT, journal_dir};
use super::record::{BatchHash, Entry};
use super::scan::{Scan, Scanned};
use super::segment::{self, Sealed, Segment, SegmentHeader, hash_file, header_line, path_of};
use super::shutdown::ShutdownMarker;
use super::store::{Store, set_aside};
use crate::atomic_file::{self, Access, create_private_folder};
use crate::domain::Offset;
use std::collections::BTreeMap;
use std::path::Path;

/// Whether records that are in neither copy stop the log from opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostRecords {
    /// They do.
    Refuse,
    /// What is before them is kept; a person asked for it.
    Accept,
}

/// What is known beside the copies themselves.
pub(crate) struct Evidence {
    pub marker: ShutdownMarker,
    pub lost_records: LostRecords,
    /// The journal's first record, and the hash of the batch before it.
    pub begin: (Offset, BatchHash),
}

/// A journal open for appending, its tail, and the hash of its last batch.
type RepairedJournal = (Journal, Offset, BatchHash);

/// What one reading of a segment shows.
struct SegmentState {
    header: Option<SegmentHeader>,
    /// The sound beginning.
    chain: Chain,
    /// Bytes up to its last whole batch.
    end: u64,
    /// What readable lines, also after a damaged one, say was on the disk.
    durable: Offset,
}

fn inspect(segment: &Segment) -> std::io::Result<SegmentState> {
    let mut scan = Scan::over(vec![segment.clone()]);
    let chain = Chain::after(segment.first, [0; 32]);
    let mut seen = SegmentState { header: None, chain, end: 0, durable: Offset(0) };
    let mut sound = true;
    while let Some(found) = scan.step()? {
        let at = scan.at().map_or(0, |(_, at)| at);
        match found {
            Scanned::Header(header) if header.segment == segment.first => {
                match header.previous() {
                    Some(previous) => seen.chain = Chain::after(segment.first, previous),
                    None => sound = false,
                }
                seen.end = at;
                seen.header = Some(header);
            }
            Scanned::Record(entry) => {
                seen.durable = seen.durable.max(entry.durable);
                sound = sound && seen.chain.fits(&entry);
                if !sound {
                    continue;
                }
                seen.chain.push(&entry);
                if entry.left == 0 {
                    seen.end = at;
                }
            }
            Scanned::Header(_) | Scanned::Damage(_) => sound = false,
        }
    }
    Ok(seen)
}

/// Opens the journal for appending.
///
/// # Errors
/// As [`super::recover::open`].
pub(crate) fn open_journal(
    dir: &Path,
    store: &Store,
    evidence: &Evidence,
    repairs: &mut Vec<String>,
) -> Result<RepairedJournal, LogError> {
    let io = |error: std::io::Error| LogError::open(dir, error);
    let files = journal_dir(dir);
    create_private_folder(&files).map_err(io)?;
    let stored = store.tail().map_err(|error| LogError::open(dir, error.reason()))?;
    let (floor, before) = evidence.begin;
    let vouched =
        if evidence.marker.clean { stored.max(evidence.marker.tail) } else { stored }.max(floor);
    let Some(last) = segment::list(&files).map_err(io)?.pop() else {
        if vouched == floor {
            let journal = Journal::create(&files, floor, before).map_err(io)?;
            return Ok((journal, floor, before));
        }
        let whole = Segment { first: floor, path: path_of(&files, floor) };
        let repair =
            SegmentRepair { dir, store, segment: whole, until: None, header: None, evidence };
        return repair.run(vouched, repairs);
    };
    let seen = inspect(&last).map_err(io)?;
    let acknowledged = vouched.max(seen.durable);
    if seen.header.is_some() && seen.chain.tail() >= acknowledged {
        let journal = Journal::resume(&files, last, seen.end).map_err(io)?;
        return Ok((journal, seen.chain.tail(), seen.chain.last()));
    }
    let header = seen.header;
    SegmentRepair { dir, store, segment: last, until: None, header, evidence }
        .run(acknowledged, repairs)
}

/// Repairs every segment but the last. A repaired one has the bytes that were sealed, for its lines are
/// the same.
///
/// # Errors
/// As [`super::recover::open`].
pub(crate) fn sealed_segments(
    dir: &Path,
    store: &Store,
    evidence: &Evidence,
    repairs: &mut Vec<String>,
) -> Result<(), LogError> {
    let io = |error: std::io::Error| LogError::open(dir, error);
    let segments = segment::list(&journal_dir(dir)).map_err(io)?;
    for pair in segments.windows(2) {
        let [segment, next] = pair else { continue };
        let seen = inspect(segment).map_err(io)?;
        let length = std::fs::metadata(&segment.path).map_err(io)?.len();
        if seen.header.is_some() && seen.chain.tail() == next.first && seen.end == length {
            continue;
        }
        let (segment, header, until) = (segment.clone(), seen.header, Some(next.first));
        SegmentRepair { dir, store, segment, until, header, evidence }.run(next.first, repairs)?;
    }
    Ok(())
}

/// One segment made again from what both copies have of it.
struct SegmentRepair<'a> {
    dir: &'a Path,
    store: &'a Store,
    segment: Segment,
    /// Where the next segment begins.
    until: Option<Offset>,
    header: Option<SegmentHeader>,
    evidence: &'a Evidence,
}

impl SegmentRepair<'_> {
    fn readable(&self) -> std::io::Result<BTreeMap<Offset, Entry>> {
        let mut found = BTreeMap::new();
        if !self.segment.path.exists() {
            return Ok(found);
        }
        let mut scan = Scan::over(vec![self.segment.clone()]);
        while let Some(step) = scan.step()? {
            if let Scanned::Record(entry) = step {
                found.insert(entry.offset, *entry);
            }
        }
        Ok(found)
    }

    fn stored(&self, at: Offset) -> Option<Entry> {
        let lines = self.store.lines(at, Offset(at.0 + 1)).ok()?;
        Entry::of(lines.first()?.to_vec()).ok()
    }

    /// The hash of the batch before the segment.
    fn before(&self) -> std::io::Result<Option<BatchHash>> {
        let said = self.header.as_ref().and_then(SegmentHeader::previous);
        if said.is_some() || self.segment.first == self.evidence.begin.0 {
            return Ok(said.or(Some(self.evidence.begin.1)));
        }
        // The first record of the segment says it too.
        if let Some(previous) = self.stored(self.segment.first).and_then(|entry| entry.previous) {
            return Ok(Some(previous));
        }
        let segments = segment::list(&journal_dir(self.dir))?;
        let before = segments.iter().rfind(|s| s.first < self.segment.first);
        let seen = before.map(inspect).transpose()?;
        let seen = seen.filter(|seen| seen.chain.tail() == self.segment.first);
        Ok(seen.map(|seen| seen.chain.last()))
    }

    /// What the header says about the segment before.
    fn sealed(&self) -> std::io::Result<Option<Sealed>> {
        if let Some(header) = &self.header {
            return Ok(header.sealed.clone());
        }
        let segments = segment::list(&journal_dir(self.dir))?;
        let Some(before) = segments.iter().rfind(|s| s.first < self.segment.first) else {
            return Ok(None);
        };
        let bytes = std::fs::metadata(&before.path)?.len();
        let blake3 = hash_file(&before.path)?.to_hex().to_string();
        Ok(Some(Sealed { segment: before.first, bytes, blake3 }))
    }

    fn run(
        self,
        acknowledged: Offset,
        repairs: &mut Vec<String>,
    ) -> Result<RepairedJournal, LogError> {
        let io = |error: std::io::Error| LogError::open(self.dir, error);
        let first = self.segment.first;
        let lost = |from| LogError::Lost { path: self.dir.to_owned(), from, to: acknowledged };
        let readable = self.readable().map_err(io)?;
        let before = self.before().map_err(io)?.ok_or_else(|| lost(first))?;
        let sealed = self.sealed().map_err(io)?;
        let mut bytes = header_line(first, FORMAT, before, sealed.as_ref());
        let mut chain = Chain::after(first, before);
        let (mut end, mut restored) = (bytes.len(), 0u64);
        while self.until != Some(chain.next()) {
            let ours = readable.get(&chain.next()).filter(|entry| chain.fits(entry)).cloned();
            let from_store = ours.is_none();
            let theirs = || self.stored(chain.next()).filter(|entry| chain.fits(entry));
            let Some(entry) = ours.or_else(theirs) else { break };
            restored += u64::from(from_store);
            bytes.extend(&entry.line);
            bytes.push(b'\n');
            chain.push(&entry);
            if entry.left == 0 {
                end = bytes.len();
            }
        }
        let tail = chain.tail();
        if tail < acknowledged && self.evidence.lost_records == LostRecords::Refuse {
            return Err(lost(tail));
        }
        bytes.truncate(end);
        if self.segment.path.exists() {
            set_aside(&self.segment.path).map_err(io)?;
        }
        atomic_file::write(&self.segment.path, &bytes, Access::Private).map_err(io)?;
        let mut text = format!("journal from record {first}: {restored} records from the store");
        if tail < acknowledged {
            text.push_str(&format!("; records {tail} to {acknowledged} are lost"));
        }
        tracing::warn!(repair = text, "the journal was damaged");
        repairs.push(text);
        let journal = Journal::resume(&journal_dir(self.dir), self.segment, end as u64);
        Ok((journal.map_err(io)?, tail, chain.last()))
    }
}
