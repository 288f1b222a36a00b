//! Reads the journal's records one after the other, over all segments, past what is damaged.

use super::layout::journal_dir;
use super::record::Entry;
use super::segment::{self, JournalPosition, Segment, SegmentHeader, SegmentLines, Step};
use crate::domain::Offset;
use std::io;
use std::path::Path;

/// Bytes of lines that [`chunks`] gives together.
pub(crate) const CHUNK_BYTES: usize = 128 << 10;

/// What a scan comes upon.
#[derive(Debug)]
pub(crate) enum Scanned {
    /// A segment's first line.
    Header(SegmentHeader),
    /// A record.
    Record(Box<Entry>),
    /// A line that is none.
    Damage(String),
}

/// A scan of segments.
pub(crate) struct Scan {
    segments: std::vec::IntoIter<Segment>,
    current: Option<(Segment, SegmentLines, LinesSeen)>,
}

/// Whether the header is still to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinesSeen {
    None,
    Some,
}

impl Scan {
    /// Over these segments, in this order.
    pub fn over(segments: Vec<Segment>) -> Scan {
        Scan { segments: segments.into_iter(), current: None }
    }

    /// Over these segments, the first from a byte position after its header on.
    ///
    /// # Errors
    /// When the first cannot be opened.
    pub fn from(mut segments: Vec<Segment>, at: u64) -> io::Result<Scan> {
        if segments.is_empty() {
            return Ok(Scan::over(segments));
        }
        let first = segments.remove(0);
        let lines = SegmentLines::open(&first.path, at)?;
        let seen = if at == 0 { LinesSeen::None } else { LinesSeen::Some };
        Ok(Scan { segments: segments.into_iter(), current: Some((first, lines, seen)) })
    }

    /// The segment in hand and the byte position after what was found last.
    pub fn at(&self) -> Option<(&Segment, u64)> {
        self.current.as_ref().map(|(segment, lines, _)| (segment, lines.at()))
    }

    /// Where the entry begins that was found last.
    pub fn position_of(&self, entry: &Entry) -> JournalPosition {
        let (segment, after) = self.at().map_or((Offset(0), 0), |(s, at)| (s.first, at));
        JournalPosition { segment, at: after.saturating_sub(entry.line.len() as u64 + 1) }
    }

    /// The next thing; `None` at the end of the journal, which leaves the scan in the last segment.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn step(&mut self) -> io::Result<Option<Scanned>> {
        loop {
            let step = match &mut self.current {
                Some((_, lines, _)) => lines.step()?,
                None => Step::End,
            };
            let line = match step {
                Step::End if self.begin_next()? => continue,
                Step::End => return Ok(None),
                Step::Line(line) => Some(line),
                Step::Broken => None,
            };
            let Some((_, _, seen)) = &mut self.current else { return Ok(None) };
            let first = std::mem::replace(seen, LinesSeen::Some) == LinesSeen::None;
            let Some(line) = line else {
                return Ok(Some(Scanned::Damage("the line is cut off".to_owned())));
            };
            let found = match first {
                true => SegmentHeader::read(&line).map(Scanned::Header),
                false => Entry::of(line).map(|entry| Scanned::Record(Box::new(entry))),
            };
            return Ok(Some(found.unwrap_or_else(Scanned::Damage)));
        }
    }

    fn begin_next(&mut self) -> io::Result<bool> {
        let Some(segment) = self.segments.next() else { return Ok(false) };
        let lines = SegmentLines::open(&segment.path, 0)?;
        self.current = Some((segment, lines, LinesSeen::None));
        Ok(true)
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

/// Up to `max` readable entries of the journal from `from` on. A known `position` of a record at or
/// before `from` spares a search through its segment.
///
/// # Errors
/// When the journal cannot be read.
pub(crate) fn entries(
    dir: &Path,
    from: Offset,
    max: usize,
    position: Option<JournalPosition>,
) -> std::io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let segments = holding(dir, from)?;
    let known = position.filter(|known| segments.first().is_some_and(|s| s.first == known.segment));
    let mut scan = Scan::from(segments, known.map_or(0, |known| known.at))?;
    while found.len() < max {
        match scan.step()? {
            None => break,
            Some(Scanned::Record(entry)) if entry.offset >= from => found.push(*entry),
            Some(_) => {}
        }
    }
    Ok(found)
}

/// Why [`chunks`] ended early.
pub(crate) enum Stopped {
    /// The caller's reason.
    Caller(String),
    /// The journal cannot be read.
    Journal(String),
}

/// Calls `each` with all of the journal's entries from `from` on, some of a segment at a time, and
/// where the first of them begins.
///
/// # Errors
/// [`Stopped`].
pub(crate) fn chunks(
    dir: &Path,
    from: Offset,
    mut each: impl FnMut(JournalPosition, &[Entry]) -> Result<(), String>,
) -> Result<(), Stopped> {
    let mut chunk: Vec<Entry> = Vec::new();
    let (mut bytes, mut next, mut position) = (0, from, JournalPosition::default());
    let journal = |error: std::io::Error| Stopped::Journal(error.to_string());
    let mut scan = Scan::over(holding(dir, from).map_err(journal)?);
    loop {
        let found = scan.step().map_err(journal)?;
        let full = bytes >= CHUNK_BYTES || matches!(found, None | Some(Scanned::Header(_)));
        if full && !chunk.is_empty() {
            each(position, &chunk).map_err(Stopped::Caller)?;
            chunk.clear();
            bytes = 0;
        }
        match found {
            None => return Ok(()),
            Some(Scanned::Header(_)) => {}
            Some(Scanned::Record(entry)) if entry.offset < next => {}
            Some(Scanned::Record(entry)) if entry.offset == next => {
                if chunk.is_empty() {
                    position = scan.position_of(&entry);
                }
                next = Offset(next.0 + 1);
                bytes += entry.line.len();
                chunk.push(*entry);
            }
            Some(Scanned::Record(_)) => {
                return Err(Stopped::Journal(format!("journal: record {next} is missing")));
            }
            Some(Scanned::Damage(reason)) => {
                return Err(Stopped::Journal(format!("journal: record {next}: {reason}")));
            }
        }
    }
}
