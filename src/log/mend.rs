//! The end of the journal: what was never acknowledged is cut off, what was and is damaged or gone
//! comes back from the store.
//!
//! A line says up to where everything was on the disk when it was written (`durable`), and the
//! next group is written only after the last is synced. So a line that cannot be read, with none
//! after it that vouches for it and none of it in the store, was never acknowledged.

use super::chain::{BatchHash, Chain};
use super::durable::FORMAT;
use super::error::LogError;
use super::journal::{Journal, hash_file, replace};
use super::mark::Mark;
use super::recover::{journal_dir, open_error};
use super::segment::{self, Sealed, Segment, SegmentHeader, header_line, path_of};
use super::store::{Store, set_aside};
use super::walk::{Entry, Found, Walk};
use crate::domain::Offset;
use std::collections::BTreeMap;
use std::path::Path;

/// Whether records that are in neither copy stop the log from opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// They do.
    Refuse,
    /// What is before them is kept; a person asked for it.
    Accept,
}

/// What is known beside the copies themselves.
pub(crate) struct Known {
    pub mark: Mark,
    pub loss: Loss,
    /// The journal's first record, and the hash of the batch before it.
    pub begin: (Offset, BatchHash),
}

/// A journal open for appending, its tail, and the hash of its last batch.
type Mended = (Journal, Offset, BatchHash);

/// What one reading of a segment shows.
struct Scan {
    header: Option<SegmentHeader>,
    /// The sound beginning.
    chain: Chain,
    /// Bytes up to its last whole batch.
    end: u64,
    /// What readable lines, also after a damaged one, say was on the disk.
    durable: Offset,
}

fn scan(segment: &Segment) -> std::io::Result<Scan> {
    let mut walk = Walk::over(vec![segment.clone()]);
    let chain = Chain::after(segment.first, [0; 32]);
    let mut seen = Scan { header: None, chain, end: 0, durable: Offset(0) };
    let mut sound = true;
    while let Some(found) = walk.step()? {
        let at = walk.place().map_or(0, |(_, at)| at);
        match found {
            Found::Header(header) if header.segment == segment.first => {
                match header.previous() {
                    Some(previous) => seen.chain = Chain::after(segment.first, previous),
                    None => sound = false,
                }
                seen.end = at;
                seen.header = Some(header);
            }
            Found::Record(entry) => {
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
            Found::Header(_) | Found::Damage(_) => sound = false,
        }
    }
    Ok(seen)
}

/// Opens the journal for appending.
///
/// # Errors
/// As [`super::recover::open`].
pub(crate) fn journal(
    dir: &Path,
    store: &Store,
    known: &Known,
    repairs: &mut Vec<String>,
) -> Result<Mended, LogError> {
    let io = |error: std::io::Error| open_error(dir, error);
    let files = journal_dir(dir);
    std::fs::create_dir_all(&files).map_err(io)?;
    let stored = store.tail().map_err(|error| open_error(dir, error.reason()))?;
    let (floor, before) = known.begin;
    let vouched = if known.mark.clean { stored.max(known.mark.tail) } else { stored }.max(floor);
    let Some(last) = segment::list(&files).map_err(io)?.pop() else {
        if vouched == floor {
            let journal = Journal::create(&files, floor, before).map_err(io)?;
            return Ok((journal, floor, before));
        }
        let whole = Segment { first: floor, path: path_of(&files, floor) };
        let mending = Mending { dir, store, segment: whole, until: None, header: None, known };
        return mending.run(vouched, repairs);
    };
    let seen = scan(&last).map_err(io)?;
    let acknowledged = vouched.max(seen.durable);
    if seen.header.is_some() && seen.chain.tail() >= acknowledged {
        let journal = Journal::resume(&files, last, seen.end).map_err(io)?;
        return Ok((journal, seen.chain.tail(), seen.chain.last()));
    }
    let header = seen.header;
    Mending { dir, store, segment: last, until: None, header, known }.run(acknowledged, repairs)
}

/// Mends every segment but the last. A mended one has the bytes that were sealed, for its lines are
/// the same.
///
/// # Errors
/// As [`super::recover::open`].
pub(crate) fn sealed_segments(
    dir: &Path,
    store: &Store,
    known: &Known,
    repairs: &mut Vec<String>,
) -> Result<(), LogError> {
    let io = |error: std::io::Error| open_error(dir, error);
    let segments = segment::list(&journal_dir(dir)).map_err(io)?;
    for pair in segments.windows(2) {
        let [segment, next] = pair else { continue };
        let seen = scan(segment).map_err(io)?;
        let length = std::fs::metadata(&segment.path).map_err(io)?.len();
        if seen.header.is_some() && seen.chain.tail() == next.first && seen.end == length {
            continue;
        }
        let (segment, header, until) = (segment.clone(), seen.header, Some(next.first));
        Mending { dir, store, segment, until, header, known }.run(next.first, repairs)?;
    }
    Ok(())
}

/// One segment made again from what both copies have of it.
struct Mending<'a> {
    dir: &'a Path,
    store: &'a Store,
    segment: Segment,
    /// Where the next segment begins.
    until: Option<Offset>,
    header: Option<SegmentHeader>,
    known: &'a Known,
}

impl Mending<'_> {
    fn readable(&self) -> std::io::Result<BTreeMap<Offset, Entry>> {
        let mut found = BTreeMap::new();
        if !self.segment.path.exists() {
            return Ok(found);
        }
        let mut walk = Walk::over(vec![self.segment.clone()]);
        while let Some(step) = walk.step()? {
            if let Found::Record(entry) = step {
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
        if said.is_some() || self.segment.first == self.known.begin.0 {
            return Ok(said.or(Some(self.known.begin.1)));
        }
        // The first record of the segment says it too.
        if let Some(previous) = self.stored(self.segment.first).and_then(|entry| entry.previous) {
            return Ok(Some(previous));
        }
        let segments = segment::list(&journal_dir(self.dir))?;
        let before = segments.iter().rfind(|s| s.first < self.segment.first);
        let seen = before.map(scan).transpose()?;
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

    fn run(self, acknowledged: Offset, repairs: &mut Vec<String>) -> Result<Mended, LogError> {
        let io = |error: std::io::Error| open_error(self.dir, error);
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
        if tail < acknowledged && self.known.loss == Loss::Refuse {
            return Err(lost(tail));
        }
        bytes.truncate(end);
        if self.segment.path.exists() {
            set_aside(&self.segment.path).map_err(io)?;
        }
        replace(&self.segment.path, &bytes).map_err(io)?;
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
