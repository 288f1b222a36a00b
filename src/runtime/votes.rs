//! What people said of answers, read where it lies. A run that was voted on a million times keeps counts
//! at hand, and no vote.

use super::surface::{RecordedVote, Reply};
use crate::domain::{Event, Offset};
use crate::error::Error;
use crate::log::Log;
use crate::view::RunView;

/// Records read at a time.
const AT_A_TIME: usize = 512;

/// Votes that were recorded from an offset on, at most so many.
///
/// # Errors
/// When the log cannot be read.
pub(super) fn told(
    view: &RunView,
    log: &dyn Log,
    (from, limit): (Offset, usize),
) -> Result<Reply, Error> {
    let (mut votes, mut at) = (Vec::new(), from);
    let counts = view.votes;
    loop {
        let records = log.read(at, AT_A_TIME)?;
        let Some(last) = records.last() else {
            return Ok(Reply::Votes { counts, votes, next: None });
        };
        at = Offset(last.offset.0 + 1);
        for record in records {
            let Event::VoteRecorded { vote } = record.event else { continue };
            if votes.len() == limit {
                return Ok(Reply::Votes { counts, votes, next: Some(record.offset) });
            }
            votes.push(RecordedVote { at: record.offset, at_ms: record.at_ms, vote: *vote });
        }
    }
}
