//! Recorded texts, read back from the log. A view holds places and no bodies; whoever needs a body
//! asks for it here, so that there is one answer to what is at a place and one error when it is not.

use super::judge::aggregate::AggregateScore;
use super::{StageContext, StageError};
use crate::blob::ReadBlobs;
use crate::domain::event::SeedRow;
use crate::domain::plan::SampleSet;
use crate::domain::{
    BlobHash, Completion, Event, Judgment, Offset, PairId, PreferencePair, Prompt, PromptId, Side,
    TextRef,
};
use crate::log::Log;
use crate::view::RunView;
use std::collections::BTreeMap;

/// Where a prompt's completions are: the names of the sample sets with their records.
pub(crate) type SamplePlaces = Vec<(String, Offset)>;

/// A prompt's completions, set after set, as judgments count them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    /// The prompt as the policy read it; empty in records of schema 1.
    pub prompt_ids: Vec<u32>,
    /// How a pair refers to each completion.
    pub texts: Vec<TextRef>,
    /// What was drawn.
    pub completions: Vec<Completion>,
}

/// A prompt's judgments, and what each completion came to in them.
pub(crate) struct RecordedJudgments {
    pub judgments: Vec<Judgment>,
    /// One for each completion; `None`: no score.
    pub scores: Vec<Option<AggregateScore>>,
}

/// Log-probabilities of a pair under the reference: natural log, summed over the side's tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ReferenceSums {
    pub chosen: f64,
    pub rejected: f64,
}

impl RecordedJudgments {
    /// Of an event that holds judgments of `n` completions; `None` of any other.
    pub fn of(event: &Event, n: usize) -> Option<RecordedJudgments> {
        let (judgments, scores, errors) = match event {
            Event::JudgmentsRecorded { judgments, scores, errors, .. }
            | Event::ShadowJudged { judgments, scores, errors, .. } => (judgments, scores, errors),
            _ => return None,
        };
        let aggregate = |at: usize| {
            let score = match scores.is_empty() {
                true => mean_score(judgments, at as u32),
                false => scores.get(at).copied().flatten(),
            };
            let standard_error = errors.get(at).copied().flatten();
            Some(AggregateScore { score: score?, standard_error })
        };
        let scores = (0..n).map(aggregate).collect();
        Some(RecordedJudgments { judgments: judgments.clone(), scores })
    }
}

/// What a completion came to in records that do not say it.
fn mean_score(judgments: &[Judgment], candidate: u32) -> Option<f64> {
    let ours = judgments.iter().filter(|j| j.candidate == candidate);
    let scores: Vec<f64> = ours.filter_map(|j| j.outcome.score()).collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

/// Something else than what is wanted was found at an offset.
fn wrong(offset: Offset, wanted: &str, found: &Event) -> StageError {
    StageError::Missing(format!("offset {offset} holds {}, not {wanted}", found.kind()))
}

/// Reads recorded texts.
#[derive(Clone, Copy)]
pub(crate) struct Bodies<'a> {
    /// The log that they are in.
    pub log: &'a dyn Log,
    /// Seed data.
    pub blobs: &'a dyn ReadBlobs,
}

impl StageContext {
    /// What is recorded in the log that stages read.
    pub(crate) fn bodies(&self) -> Bodies<'_> {
        Bodies { log: self.log.as_ref(), blobs: self.blobs.as_ref() }
    }
}

impl Bodies<'_> {
    /// The event at an offset.
    ///
    /// # Errors
    /// [`StageError::Log`] when it cannot be read, [`StageError::Missing`] when nothing is there.
    pub fn event(&self, offset: Offset) -> Result<Event, StageError> {
        match self.log.get(offset)? {
            Some(record) => Ok(record.event),
            None => Err(StageError::Missing(format!("there is no record at offset {offset}"))),
        }
    }

    /// The prompt with this id.
    ///
    /// # Errors
    /// As [`Bodies::event`].
    pub fn prompt(&self, view: &RunView, id: &PromptId) -> Result<Prompt, StageError> {
        let facts = view
            .prompts
            .get(id)
            .ok_or_else(|| StageError::Missing(format!("prompt {id} was never admitted")))?;
        match self.event(facts.offset)? {
            Event::PromptAdmitted { prompt } => Ok(prompt),
            other => Err(wrong(facts.offset, &format!("prompt {id}"), &other)),
        }
    }

    /// The completions that are recorded at some places.
    ///
    /// # Errors
    /// As [`Bodies::event`].
    pub(crate) fn answers(&self, places: &[(String, Offset)]) -> Result<Answers, StageError> {
        let mut answers = Answers::default();
        for (_, offset) in places {
            match self.event(*offset)? {
                Event::CompletionsSampled { set, completions, prompt_ids, .. } => {
                    if set == SampleSet::POLICY {
                        answers.prompt_ids = prompt_ids;
                    }
                    let text = |index| TextRef::Completion { set: set.clone(), index };
                    answers.texts.extend((0..completions.len() as u32).map(text));
                    answers.completions.extend(completions);
                }
                other => return Err(wrong(*offset, "completions", &other)),
            }
        }
        Ok(answers)
    }

    /// The judgments of `n` completions that are recorded at an offset.
    ///
    /// # Errors
    /// As [`Bodies::event`].
    pub(crate) fn judgments(
        &self,
        offset: Offset,
        n: usize,
    ) -> Result<RecordedJudgments, StageError> {
        let event = self.event(offset)?;
        RecordedJudgments::of(&event, n).ok_or_else(|| wrong(offset, "judgments", &event))
    }

    /// The pair that is recorded at an offset.
    ///
    /// # Errors
    /// As [`Bodies::event`].
    pub(crate) fn pair(&self, offset: Offset) -> Result<PreferencePair, StageError> {
        match self.event(offset)? {
            Event::PairFormed { pair, .. } => Ok(pair),
            other => Err(wrong(offset, "a pair", &other)),
        }
    }

    /// The text that a side of a pair of answers refers to, among the answers to its prompt.
    ///
    /// # Errors
    /// [`StageError::Missing`] when it is not there; of what a judge replied, whose question is another
    /// than the prompt.
    pub(crate) fn side_text(&self, side: &Side, answers: &Answers) -> Result<String, StageError> {
        let missing = || StageError::Missing(format!("{:?}", side.text));
        match &side.text {
            TextRef::Completion { .. } => {
                let at = answers.texts.iter().position(|text| *text == side.text);
                let found = at.and_then(|at| answers.completions.get(at)).ok_or_else(missing)?;
                Ok(found.text.clone())
            }
            TextRef::SeedAnswer { blob, row } => {
                let row = self.seed_rows(blob)?.into_iter().nth(*row as usize);
                Ok(row.ok_or_else(missing)?.completion)
            }
            TextRef::Judgment { .. } => Err(missing()),
        }
    }

    /// What the reference said of pairs, of all that is recorded at these offsets.
    ///
    /// # Errors
    /// As [`Bodies::event`].
    pub(super) fn reference_logps(
        &self,
        offsets: &[Offset],
    ) -> Result<BTreeMap<PairId, ReferenceSums>, StageError> {
        let mut all = BTreeMap::new();
        for offset in offsets {
            match self.event(*offset)? {
                Event::ReferenceScored { logps, .. } => {
                    all.extend(logps.into_iter().map(|one| {
                        (one.pair, ReferenceSums { chosen: one.chosen, rejected: one.rejected })
                    }));
                }
                other => return Err(wrong(*offset, "reference log-probabilities", &other)),
            }
        }
        Ok(all)
    }

    /// The rows of a blob of seed data.
    ///
    /// # Errors
    /// [`StageError::Blob`] when it cannot be read, [`StageError::Missing`] naming a line that is no
    /// row.
    pub(crate) fn seed_rows(&self, blob: &BlobHash) -> Result<Vec<SeedRow>, StageError> {
        let bytes = self.blobs.bytes(blob)?;
        let lines = bytes.split(|b| *b == b'\n').zip(1u64..);
        let row = |(line, number): (&[u8], u64)| {
            serde_json::from_slice(line).map_err(|error| {
                StageError::Missing(format!("line {number} of the seed data {blob}: {error}"))
            })
        };
        lines.filter(|(line, _)| !line.is_empty()).map(row).collect()
    }
}
