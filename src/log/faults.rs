//! Named places where a test may make the log fail. Without the feature `failpoints` they are
//! nothing.

use std::io;

/// A place that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before a group's lines are written.
    JournalWrite,
    /// Between writing them and the sync.
    JournalSync,
    /// Before a new segment is begun.
    SegmentBegin,
    /// Before a group goes to the store.
    StoreApply,
    /// Before the store is flushed.
    StoreFlush,
}

/// Passes a place: the error that a test asked for, if any.
///
/// # Errors
/// The injected one.
pub(crate) fn pass(_point: Point) -> io::Result<()> {
    Ok(())
}
