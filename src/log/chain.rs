//! The hash chain: the first line of a batch holds the BLAKE3 of the batch before it, all of its
//! lines with their line feeds. By the batch and not by the line, for hashing many lines at once
//! costs a fifth.

use super::record::{BatchHash, Entry};
use crate::domain::Offset;

/// Follows the chain through entries.
#[derive(Clone)]
pub(crate) struct Chain {
    next: Offset,
    last: BatchHash,
    tail: Offset,
    /// The batch that is not complete, and how many of its lines are to come.
    open: Option<(blake3::Hasher, u32)>,
}

impl Chain {
    /// Begins where the batch with the hash `last` ended.
    pub fn after(tail: Offset, last: BatchHash) -> Chain {
        Chain { next: tail, last, tail, open: None }
    }

    /// The record that must follow.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Offset after the last whole batch.
    pub fn tail(&self) -> Offset {
        self.tail
    }

    /// Hash of the last whole batch.
    pub fn last(&self) -> BatchHash {
        self.last
    }

    /// Whether an entry is the one that must follow.
    pub fn fits(&self, entry: &Entry) -> bool {
        let place = match &self.open {
            None => entry.previous == Some(self.last),
            Some((_, left)) => entry.previous.is_none() && entry.left + 1 == *left,
        };
        place && entry.offset == self.next
    }

    /// Takes an entry that fits.
    pub fn push(&mut self, entry: &Entry) {
        let (mut hasher, _) = self.open.take().unwrap_or_default();
        hasher.update(&entry.line).update(b"\n");
        self.next = Offset(self.next.0 + 1);
        if entry.left == 0 {
            (self.tail, self.last) = (self.next, *hasher.finalize().as_bytes());
        } else {
            self.open = Some((hasher, entry.left));
        }
    }
}
