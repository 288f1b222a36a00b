//! What judging again needs of a log, read in one pass and kept: looking records up one by one in a
//! journal that nobody has open would read a whole segment for each.

use crate::domain::{Event, Iteration, Offset, TaskKey};
use crate::log::{Appended, Batch, Log, LogError, Recorded};
use crate::view::RunView;
use crossbeam_channel::Receiver;
use std::collections::BTreeMap;

/// Records read at a time.
const RECORDS: usize = 512;

/// Some records of a log at their offsets.
#[derive(Default)]
pub(crate) struct Excerpt {
    records: BTreeMap<Offset, Recorded>,
    tail: Offset,
}

/// Which iteration's judging a record belongs to.
fn judging(event: &Event) -> Option<Iteration> {
    match event {
        Event::CompletionsSampled { iteration, .. }
        | Event::JudgeProbed { iteration, .. }
        | Event::JudgmentsRecorded { iteration, .. }
        | Event::ShadowJudged { iteration, .. }
        | Event::HeldOutJudged { iteration, .. }
        | Event::EvaluationFinished { iteration, .. } => Some(*iteration),
        _ => None,
    }
}

impl Excerpt {
    /// Folds a log and keeps its prompts and, from an iteration on, what was sampled and judged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn of(log: &dyn Log, from: Iteration) -> Result<(RunView, Excerpt), LogError> {
        let mut view = RunView::at_the_floor(log)?;
        let mut records = BTreeMap::new();
        let wanted = |event: &Event| {
            let prompt = matches!(event, Event::PromptAdmitted { .. });
            prompt || judging(event).is_some_and(|iteration| iteration >= from)
        };
        // A compacted log still has the prompts below its floor, which the view has folded.
        let mut next = Offset(0);
        while next < view.next {
            let below = log.read(next, RECORDS)?;
            let Some(last) = below.last() else { break };
            next = Offset(last.offset.0 + 1);
            let kept = below.into_iter().filter(|r| r.offset < view.next && wanted(&r.event));
            records.extend(kept.map(|record| (record.offset, record)));
        }
        let mut keep = |record: &Recorded| {
            if wanted(&record.event) {
                records.insert(record.offset, record.clone());
            }
        };
        while view.follow(log, RECORDS, &mut keep)? > 0 {}
        let tail = view.next;
        Ok((view, Excerpt { records, tail }))
    }

    /// Whether it has the record at an offset.
    pub fn holds(&self, offset: Offset) -> bool {
        self.records.contains_key(&offset)
    }

    /// What it has of an iteration, in order.
    pub fn of_iteration(&self, iteration: Iteration) -> impl Iterator<Item = &Recorded> {
        self.records.values().filter(move |r| judging(&r.event) == Some(iteration))
    }
}

impl Log for Excerpt {
    fn append(&self, _batch: Batch) -> Result<Appended, LogError> {
        Err(LogError::Poisoned("it is an excerpt".to_owned()))
    }

    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        Ok(self.records.range(from..).take(max).map(|(_, record)| record.clone()).collect())
    }

    fn tail(&self) -> Offset {
        self.tail
    }

    fn find(&self, _key: &TaskKey) -> Result<Option<Offset>, LogError> {
        Ok(None)
    }

    fn cursor(&self, _name: &str) -> Result<Offset, LogError> {
        Ok(Offset(0))
    }

    fn subscribe(&self) -> Receiver<()> {
        crossbeam_channel::never()
    }
}
