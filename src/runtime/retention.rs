//! RETENTION: what a long run may forget. Of iterations that are over, all but the last few: their
//! completions, judgments, pairs and checkpoints on the way. What they came to stays: every prompt,
//! every figure of the reports, the promoted policies, and that something was dropped.

use super::fold::fold;
use super::folder::Folder;
use crate::blob::BlobStore;
use crate::domain::{Event, Offset};
use crate::error::Error;
use crate::log::{Batch, Compacted, Compaction, DurableLog, Log, LogError};
use crate::view::RunView;
use std::collections::BTreeMap;

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Freed {
    /// In the log; `None` when there was nothing to drop.
    pub log: Option<Compacted>,
    /// Blobs that nothing needs any more.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
}

/// Records of this kind make up most of a log, and nothing reads them once their iteration is over.
fn is_bulk(event: &Event) -> bool {
    matches!(
        event,
        Event::CompletionsSampled { .. }
            | Event::JudgmentsRecorded { .. }
            | Event::ShadowJudged { .. }
            | Event::PairFormed { .. }
            | Event::PairSkipped { .. }
            | Event::PromptRejected { .. }
            | Event::ReferenceScored { .. }
            | Event::HeldOutJudged { .. }
            | Event::TaskFailed { .. }
            | Event::MemoryShort { .. }
    )
}

/// Drops what is older than the last `keep` finished iterations and the open one.
///
/// # Errors
/// What the log or the blob store says; nothing that is needed is gone then.
pub(crate) fn retain(log: &DurableLog, blobs: &BlobStore, keep: u32) -> Result<Freed, Error> {
    let mut view = fold(log)?;
    let compacted = log.compact(|_| {
        view.catch_up(log)?;
        let from = kept_from(&view, keep);
        let state = serde_json::to_value(&view);
        let state = state.map_err(|error| LogError::Read(format!("the view: {error}")))?;
        Ok(Compaction {
            keep: Box::new(move |record| record.offset >= from || !is_bulk(&record.event)),
            views: BTreeMap::from([(RunView::NAME.to_owned(), state)]),
        })
    })?;
    if let Some(Compacted { floor, dropped, .. }) = compacted {
        let events = vec![Event::LogCompacted { floor, dropped }];
        log.append(Batch { events, ..Batch::default() })?;
    }
    let (count, blob_bytes) =
        blobs.retain(&view.blobs(kept_from(&view, keep)), &view.blobs(Offset(0)))?;
    Ok(Freed { log: compacted, blobs: count, blob_bytes })
}

impl Folder {
    /// Drops what iterations older than the last `keep` finished ones left; see
    /// [`super::Runtime::retain`]. For a run that nobody works on.
    ///
    /// # Errors
    /// [`Error::NoRun`], or what the log says: in use, damaged, no space.
    pub fn retain(&self, keep: u32) -> Result<Freed, Error> {
        let log = self.open_log()?;
        retain(&log, self.open_blobs(&log)?.as_ref(), keep)
    }
}

/// Where the oldest iteration begins that is kept whole.
pub(super) fn kept_from(view: &RunView, keep: u32) -> Offset {
    let over: Vec<Offset> = view.past().map(|(_, past)| past.opened).collect();
    let open = view.open().map_or(view.next, |(_, open)| open.opened);
    match (keep as usize, over.len()) {
        (0, _) => open,
        (keep, all) if keep >= all => Offset(0),
        (keep, all) => over.get(all - keep).copied().unwrap_or_default(),
    }
}
