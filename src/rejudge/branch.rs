//! Another run that begins where this one's judging can be done over: the log up to there, the
//! completions that were answered later in that iteration, and what judges from there on.

use super::{Past, Rejudged};
use crate::domain::{Event, Iteration, Offset, Panel, RubricName, When};
use crate::error::{Code, Error};
use crate::log::Batch;
use crate::runtime::fold::fold_until;
use crate::runtime::{Folder, rubric_files};
use crate::view::RunView;

/// Events in one commit.
const EVENTS_PER_COMMIT: usize = 20;

/// What another run begins with.
pub(super) struct Beginning {
    /// The iteration that is judged over.
    pub iteration: Iteration,
    /// The first record that is left out.
    pub until: Offset,
    /// Who judges from there on.
    pub panel: Vec<Event>,
    /// Judgments that are known already.
    pub judged: Vec<Event>,
}

impl Past {
    /// Begins another run in the folder `to`: this one up to where the first iteration of `again`
    /// was judged, with the new judgments in the place of the old ones and the new rubric in the
    /// place of those that judged. To go on with it trains on the new pairs.
    ///
    /// # Errors
    /// Those of [`Past::may_begin`]; when the log was compacted; when something cannot be copied.
    pub fn begin_another(&self, again: &Rejudged, to: &Folder) -> Result<Iteration, Error> {
        let nothing =
            || Error::refused(Code::NothingToJudge, "nothing was judged again".to_owned());
        let first = again.iterations.first().ok_or_else(nothing)?;
        let rubric = &again.right.rubric;
        let iteration = first.iteration;
        let until = self.first_judging(iteration).ok_or_else(nothing)?;
        let mut panel = new_to(&self.known_before(until)?, &again.right);
        let (member, when) = (Panel::one(rubric.clone()), When::Immediately);
        panel.push(Event::RubricActivated { panel: member, when, trial: None });
        let judged = first.events.clone();
        self.branch(to, &Beginning { iteration, until, panel, judged })?;
        Ok(iteration)
    }

    /// What was known before a record.
    pub(super) fn known_before(&self, until: Offset) -> Result<RunView, Error> {
        fold_until(&self.folder.read_log()?, until)
    }

    /// The first record of an iteration that a judge had a hand in.
    fn first_judging(&self, iteration: Iteration) -> Option<Offset> {
        let judging = |event: &Event| {
            matches!(event, Event::JudgeProbed { .. } | Event::JudgmentsRecorded { .. })
        };
        let mut records = self.excerpt.of_iteration(iteration);
        records.find(|record| judging(&record.event)).map(|record| record.offset)
    }

    /// Whether another run may begin in the folder `to`: asked before hours are spent. Nothing is
    /// touched.
    ///
    /// # Errors
    /// Those of [`Folder::must_be_vacant`]; [`Error::Refused`] where one of the folders lies in the
    /// other.
    pub fn may_begin(&self, to: &Folder) -> Result<(), Error> {
        let (ours, theirs) = (self.folder.path(), to.path());
        if ours != theirs && (self.folder.encloses(theirs) || to.encloses(ours)) {
            let (ours, theirs) = (ours.display(), theirs.display());
            return Err(Error::refused(
                Code::FolderInsideRun,
                format!(
                    "of {theirs} and {ours} one lies in the other: another run has a folder of its own"
                ),
            ));
        }
        to.must_be_vacant()
    }

    pub(super) fn branch(&self, to: &Folder, beginning: &Beginning) -> Result<(), Error> {
        self.may_begin(to)?;
        let Beginning { iteration, until, panel, judged } = beginning;
        // The policy that answered is not the judge's doing.
        let answered = self.excerpt.of_iteration(*iteration).filter(|record| {
            record.offset >= *until && matches!(record.event, Event::CompletionsSampled { .. })
        });
        let answered = answered.map(|record| record.event.clone());
        let events: Vec<Event> =
            panel.iter().cloned().chain(answered).chain(judged.clone()).collect();
        self.folder.fork_with(to, *until, &self.run.config, |folder, log| {
            for (id, bytes) in &self.run.brought {
                rubric_files::keep(&folder.rubrics(), id, bytes)?;
            }
            for events in events.chunks(EVENTS_PER_COMMIT) {
                log.append(Batch { key: None, events: events.to_vec(), cursor: None })?;
            }
            Ok(())
        })
    }
}

/// A rubric's installation, where it was not installed yet.
pub(super) fn new_to(view: &RunView, named: &RubricName) -> Vec<Event> {
    let RubricName { rubric, name, version } = named.clone();
    let new = !view.rubrics.installed.contains_key(&rubric);
    new.then_some(Event::RubricInstalled { rubric, name, version }).into_iter().collect()
}
