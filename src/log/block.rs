//! Lines one after the other, as they lie in the journal, on their way to the store.

use super::record::Entry;
use super::segment::JournalPosition;
use crate::domain::{Offset, TaskKey};

/// Some records, without gaps.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Offset of the first.
    first: Offset,
    /// Where the first begins in the journal, once that is known.
    pub position: JournalPosition,
    /// Each line with its line feed.
    bytes: Vec<u8>,
    /// Where each line ends, its line feed not counted.
    ends: Vec<usize>,
    /// Task keys, where each first appears in the block.
    pub keys: Vec<(TaskKey, Offset)>,
    /// Cursor moves, in order.
    pub cursors: Vec<(String, Offset)>,
}

impl Block {
    /// No records yet; the first will be `first`.
    /// Its lines come into `bytes`, which is emptied.
    pub fn new(first: Offset, mut bytes: Vec<u8>) -> Block {
        bytes.clear();
        Block { first, bytes, ..Block::default() }
    }

    /// The memory, to be used again.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds a record: `write` appends its line, without a line feed.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
        self.bytes.push(b'\n');
    }

    /// Adds a record that was read.
    pub fn push_entry(&mut self, entry: &Entry) {
        if self.ends.is_empty() {
            self.first = entry.offset;
        }
        self.push(|bytes| bytes.extend_from_slice(&entry.line));
        // All records of a batch name its key.
        if let Some(key) = entry.key.as_ref().filter(|key| self.last_key() != Some(*key)) {
            self.keys.push((key.clone(), entry.offset));
        }
        self.cursors.extend(entry.cursor.clone());
    }

    fn last_key(&self) -> Option<&TaskKey> {
        self.keys.last().map(|(key, _)| key)
    }

    /// Offset of the first record.
    pub fn first(&self) -> Offset {
        self.first
    }

    /// Offset after the last record.
    pub fn tail(&self) -> Offset {
        Offset(self.first.0 + self.ends.len() as u64)
    }

    /// All lines, each with its line feed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is no record in it.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The lines of `from..to`, as far as they are here.
    pub fn lines(&self, from: Offset, to: Offset) -> impl Iterator<Item = (Offset, &[u8])> {
        let skip = from.0.saturating_sub(self.first.0) as usize;
        let take = to.0.saturating_sub(from.0.max(self.first.0)) as usize;
        let lines = (skip..self.ends.len()).take(take);
        lines.map(|n| (Offset(self.first.0 + n as u64), self.between(n, n)))
    }

    /// All lines, as runs of less than `bytes` (or one line): the first record and the lines, a line
    /// feed between them.
    pub fn runs(&self, bytes: usize) -> Vec<(Offset, &[u8])> {
        let mut runs = Vec::with_capacity(self.bytes.len() / bytes.max(1) + 1);
        let mut first = 0;
        for n in 0..self.ends.len() {
            let fits = |end: &usize| end - self.start(first) < bytes;
            if self.ends.get(n + 1).is_some_and(fits) {
                continue;
            }
            runs.push((Offset(self.first.0 + first as u64), self.between(first, n)));
            first = n + 1;
        }
        runs
    }

    /// The lines `first..=last`, without the last line feed.
    #[expect(
        clippy::indexing_slicing,
        reason = "`ends` lie in `bytes` in order; an empty line instead would be a lost record"
    )]
    fn between(&self, first: usize, last: usize) -> &[u8] {
        &self.bytes[self.start(first)..self.ends[last]]
    }

    /// Bytes before the `n`th line.
    fn start(&self, n: usize) -> usize {
        n.checked_sub(1).and_then(|n| self.ends.get(n)).map_or(0, |end| end + 1)
    }

    /// Where a record of the block begins in the journal.
    pub fn position_of(&self, record: Offset) -> JournalPosition {
        let start = self.start(record.0.saturating_sub(self.first.0) as usize);
        JournalPosition { at: self.position.at + start as u64, ..self.position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_offset() {
        let mut block = Block::new(Offset(5), Vec::new());
        for text in ["five", "", "seven"] {
            block.push(|bytes| bytes.extend(text.as_bytes()));
        }
        let texts = |from, to| {
            let lines = block.lines(Offset(from), Offset(to));
            lines.map(|(at, line)| (at.0, String::from_utf8(line.to_vec()).unwrap())).collect()
        };
        let line = |at: u64, text: &str| (at, text.to_owned());
        let all: Vec<(u64, String)> = texts(0, 99);
        assert_eq!(all, [line(5, "five"), line(6, ""), line(7, "seven")]);
        assert_eq!(texts(6, 7), [line(6, "")]);
        assert_eq!(texts(8, 99), []);
        assert_eq!(texts(0, 5), []);
        assert_eq!(
            block.runs(1),
            [(Offset(5), &b"five"[..]), (Offset(6), b""), (Offset(7), b"seven")]
        );
        assert_eq!(block.runs(6), [(Offset(5), &b"five\n"[..]), (Offset(7), b"seven")]);
        assert_eq!(block.runs(99), [(Offset(5), &b"five\n\nseven"[..])]);
        block.position = JournalPosition { segment: Offset(2), at: 100 };
        assert_eq!(block.position_of(Offset(7)), JournalPosition { segment: Offset(2), at: 106 });
        assert_eq!((block.tail(), block.bytes()), (Offset(8), &b"five\n\nseven\n"[..]));
    }
}
