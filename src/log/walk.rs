//! Reads the journal's records one after the other, over all segments, past what is damaged.

use super::block::Place;
use super::chain::BatchHash;
use super::record;
use super::segment::{Lines, Segment, SegmentHeader, Step};
use crate::domain::{Offset, TaskKey};
use std::io;

/// A record whose checksum fits, its event not read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub offset: Offset,
    /// Its bytes, without the line feed.
    pub line: Vec<u8>,
    /// In the first record of a batch, the hash of the batch before.
    pub previous: Option<BatchHash>,
    pub durable: Offset,
    /// Records of the same batch that follow.
    pub left: u32,
    pub key: Option<TaskKey>,
    pub cursor: Option<(String, Offset)>,
}

impl Entry {
    /// Reads a line's frame.
    ///
    /// # Errors
    /// What does not fit.
    pub fn of(line: Vec<u8>) -> Result<Entry, String> {
        let header = record::header(&line)?;
        let previous = header.previous()?;
        let (offset, durable, left) = (header.offset, header.durable, header.left);
        let (key, cursor) = (header.key, header.cursor);
        Ok(Entry { offset, line, previous, durable, left, key, cursor })
    }
}

/// What a walk comes upon.
#[derive(Debug)]
pub(crate) enum Found {
    /// A segment's first line.
    Header(SegmentHeader),
    /// A record.
    Record(Box<Entry>),
    /// A line that is none.
    Damage(String),
}

/// A walk over segments.
pub(crate) struct Walk {
    segments: std::vec::IntoIter<Segment>,
    current: Option<(Segment, Lines, LinesSeen)>,
}

/// Whether the header is still to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinesSeen {
    None,
    Some,
}

impl Walk {
    /// Over these segments, in this order.
    pub fn over(segments: Vec<Segment>) -> Walk {
        Walk { segments: segments.into_iter(), current: None }
    }

    /// Over these segments, the first from a byte position after its header on.
    ///
    /// # Errors
    /// When the first cannot be opened.
    pub fn from(mut segments: Vec<Segment>, at: u64) -> io::Result<Walk> {
        if segments.is_empty() {
            return Ok(Walk::over(segments));
        }
        let first = segments.remove(0);
        let lines = Lines::open(&first.path, at)?;
        let seen = if at == 0 { LinesSeen::None } else { LinesSeen::Some };
        Ok(Walk { segments: segments.into_iter(), current: Some((first, lines, seen)) })
    }

    /// The segment in hand and the byte position after what was found last.
    pub fn place(&self) -> Option<(&Segment, u64)> {
        self.current.as_ref().map(|(segment, lines, _)| (segment, lines.at()))
    }

    /// Where the entry begins that was found last.
    pub fn place_of(&self, entry: &Entry) -> Place {
        let (segment, after) = self.place().map_or((Offset(0), 0), |(s, at)| (s.first, at));
        Place { segment, at: after.saturating_sub(entry.line.len() as u64 + 1) }
    }

    /// The next thing; `None` at the end of the journal. The place stays in the last segment.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn step(&mut self) -> io::Result<Option<Found>> {
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
                return Ok(Some(Found::Damage("the line is cut off".to_owned())));
            };
            let found = match first {
                true => SegmentHeader::read(&line).map(Found::Header),
                false => Entry::of(line).map(|entry| Found::Record(Box::new(entry))),
            };
            return Ok(Some(found.unwrap_or_else(Found::Damage)));
        }
    }

    fn begin_next(&mut self) -> io::Result<bool> {
        let Some(segment) = self.segments.next() else { return Ok(false) };
        let lines = Lines::open(&segment.path, 0)?;
        self.current = Some((segment, lines, LinesSeen::None));
        Ok(true)
    }
}
