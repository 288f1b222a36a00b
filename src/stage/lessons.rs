//! What an iteration trains on, read once: pairs as token ids with the reference's log-probabilities,
//! and seed rows. The trainer keeps it for the iteration's further segments.

use super::texts::{Bodies, Body, PairPlace, answer_ids, seed_rows, wrong};
use super::{StageContext, StageError};
use crate::domain::plan::SeedSet;
use crate::domain::{Event, Iteration, Offset, PairId};
use crate::lm::policy::Vocabulary;
use crate::lm::train::{DpoExample, WeightedSequence};
use crate::view::RunView;
use std::collections::BTreeMap;
use std::ops::Range;

/// What an iteration trains on, and where that is.
#[derive(Clone, Debug)]
pub(super) struct Lesson {
    pub iteration: Iteration,
    /// The last rollback that made the pairs void; 0 for none.
    pub voided: u32,
    /// Seed rows that are learned, or rehearsed.
    pub data: Vec<SeedSet>,
    /// The pairs, in the order in which they are sealed.
    pub pairs: Vec<PairPlace>,
    /// Where the reference's log-probabilities are.
    pub scored: Vec<Offset>,
}

/// The lesson that was read last.
#[derive(Default)]
pub(super) struct Lessons(Option<(Named, Read)>);

/// Which pairs and rows were read.
type Named = (Iteration, u32, usize);

/// What was read of a lesson.
#[derive(Default)]
pub(super) struct Read {
    bodies: Vec<Body>,
    rows: Vec<WeightedSequence>,
    /// The reference's log-probabilities, of chosen and rejected; read when all are there.
    logps: Option<BTreeMap<PairId, (f64, f64)>>,
    /// How many records of them there were.
    scored: usize,
}

impl Lessons {
    /// A lesson, read now or before.
    pub fn of(
        &mut self,
        lesson: &Lesson,
        view: &RunView,
        context: &StageContext,
    ) -> Result<&Read, StageError> {
        let named = (lesson.iteration, lesson.voided, lesson.pairs.len());
        if self.0.as_ref().is_none_or(|(known, _)| *known != named) {
            self.0 = Some((named, Read::bodies_and_rows(lesson, view, context)?));
        }
        let Some((_, read)) = &mut self.0 else {
            return Err(StageError::Missing("what was read a moment ago".to_owned()));
        };
        if read.scored != lesson.scored.len() {
            read.logps = None;
            read.scored = lesson.scored.len();
        }
        if read.logps.is_none() {
            read.logps = Some(logps(&lesson.scored, context)?);
        }
        Ok(read)
    }
}

impl Read {
    fn bodies_and_rows(
        lesson: &Lesson,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Read, StageError> {
        let vocabulary = context.models.vocabulary();
        let mut texts = Bodies::new(view, context);
        let bodies = lesson.pairs.iter().map(|place| texts.read(place));
        let bodies = bodies.collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        for set in &lesson.data {
            for row in seed_rows(&set.blob, context)? {
                rows.push(sequence(&row, vocabulary)?);
            }
        }
        Ok(Read { bodies, rows, logps: None, scored: 0 })
    }

    /// Some of the pairs.
    pub fn bodies(&self, range: Range<usize>) -> &[Body] {
        self.bodies.get(range).unwrap_or_default()
    }

    /// How many seed rows there are.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Seed rows by their index.
    pub fn sequences(&self, rows: &[u32]) -> Vec<WeightedSequence> {
        rows.iter().filter_map(|row| self.rows.get(*row as usize)).cloned().collect()
    }

    /// Pairs by their index, with what the reference says of them; without a reference that is
    /// nothing.
    ///
    /// # Errors
    /// When the reference said nothing of one of them.
    pub fn examples(&self, pairs: &[u32]) -> Result<Vec<DpoExample>, StageError> {
        let logps = self.logps.as_ref().filter(|_| self.scored > 0);
        let example = |body: &Body| {
            let (reference_chosen, reference_rejected) = match logps {
                None => (0.0, 0.0),
                Some(logps) => logps.get(&body.id).copied().ok_or_else(|| {
                    StageError::Missing(format!("reference logps of pair {}", body.id.0))
                })?,
            };
            Ok(DpoExample {
                prompt: body.prompt.clone(),
                chosen: body.chosen.clone(),
                rejected: body.rejected.clone(),
                reference_chosen,
                reference_rejected,
                belief: body.belief,
            })
        };
        pairs.iter().filter_map(|at| self.bodies.get(*at as usize)).map(example).collect()
    }
}

/// What the reference said of pairs.
fn logps(
    scored: &[Offset],
    context: &StageContext,
) -> Result<BTreeMap<PairId, (f64, f64)>, StageError> {
    let mut all = BTreeMap::new();
    for offset in scored {
        match context.event(*offset)? {
            Event::ReferenceScored { logps, .. } => {
                all.extend(logps.into_iter().map(|l| (l.pair, (l.chosen, l.rejected))));
            }
            other => return Err(wrong(*offset, "reference log-probabilities", &other)),
        }
    }
    Ok(all)
}

/// A supervised row as token ids: loss on the answer and its turn end only.
fn sequence(
    row: &crate::domain::event::SeedRow,
    vocabulary: &dyn Vocabulary,
) -> Result<WeightedSequence, StageError> {
    let mut ids = vocabulary.encode_chat(&row.messages)?;
    let prompt = ids.len();
    ids.extend(answer_ids(vocabulary, &ids, &row.completion)?);
    let weights = (0..ids.len()).map(|at| if at < prompt { 0.0 } else { 1.0 }).collect();
    Ok(WeightedSequence { ids, weights })
}
