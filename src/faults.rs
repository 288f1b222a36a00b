//! Named places where a test may make a run fail (feature `failpoints`; without it they are
//! nothing). `FAILPOINTS="journal.sync=3*off->return(io)"` in the environment, or
//! `fail::cfg("journal.sync", ...)`; what may be returned: `full` (no space), `io` (the disk
//! refuses), `abort` (the process dies here).

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
    /// Before the bytes of a file are written that is to be there whole: a blob, a rubric, the
    /// settings, the header of a segment.
    FileWrite,
    /// Before they get their name.
    FileRename,
    /// Before the name is made durable.
    FileSync,
    /// Before what a task gave is recorded.
    TaskRecord,
    /// After it was recorded.
    TaskRecorded,
}

#[cfg(feature = "failpoints")]
impl Point {
    fn name(self) -> &'static str {
        match self {
            Point::JournalWrite => "journal.write",
            Point::JournalSync => "journal.sync",
            Point::SegmentBegin => "segment.begin",
            Point::StoreApply => "store.apply",
            Point::StoreFlush => "store.flush",
            Point::FileWrite => "file.write",
            Point::FileRename => "file.rename",
            Point::FileSync => "file.sync",
            Point::TaskRecord => "task.record",
            Point::TaskRecorded => "task.recorded",
        }
    }
}

/// What a test asked for.
#[cfg(feature = "failpoints")]
fn injected(what: Option<String>) -> io::Result<()> {
    match what.as_deref() {
        Some("full") => Err(io::Error::from(io::ErrorKind::StorageFull)),
        Some("abort") => std::process::abort(),
        _ => Err(io::Error::other("injected")),
    }
}

/// Passes a place: the error that a test asked for, if any.
///
/// # Errors
/// The injected one.
pub(crate) fn pass(point: Point) -> io::Result<()> {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(point.name(), injected);
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
    Ok(())
}
