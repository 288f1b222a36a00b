//! What an iteration trains on, read once: pairs as token ids with the reference's log-probabilities,
//! and seed rows. The trainer keeps it for the iteration's further segments.

use super::bodies::ReferenceSums;
use super::pair_texts::{PairReader, TokenizedPair, answer_ids, places};
use super::{StageContext, StageError};
use crate::domain::event::{IterationKind, SeedRow};
use crate::domain::plan::{Objective, SeedSet};
use crate::domain::{Iteration, IterationPlan, PairId};
use crate::lm::policy::Vocabulary;
use crate::lm::train::{DpoExample, WeightedSequence};
use crate::view::{IterationView, RunView};
use std::collections::BTreeMap;
use std::ops::Range;

/// Which training set is meant. It holds no places of pairs: those are in the view that the task was
/// decided by, and are looked up when the set is read.
#[derive(Clone, Debug)]
pub(super) struct TrainingSetRef {
    pub iteration: Iteration,
    /// The last rollback that made the pairs void; 0 for none.
    voided: u32,
    /// Seed rows that are learned, or rehearsed.
    data: Vec<SeedSet>,
}

impl TrainingSetRef {
    /// What an iteration trains on.
    pub fn of(iteration: Iteration, open: &IterationView, plan: &IterationPlan) -> TrainingSetRef {
        TrainingSetRef {
            iteration,
            voided: open.pairs_voided(),
            data: match &plan.objective {
                Objective::Supervised { data } => data.clone(),
                Objective::Preference { rehearsal, .. } => {
                    rehearsal.iter().flat_map(|rehearsal| rehearsal.data.clone()).collect()
                }
            },
        }
    }

    /// The iteration, in a view that knows it.
    fn open<'v>(&self, view: &'v RunView) -> Result<&'v IterationView, StageError> {
        view.iterations.get(&self.iteration).map(std::ops::Deref::deref).ok_or_else(|| {
            StageError::Missing(format!("iteration {} was never opened", self.iteration))
        })
    }
}

/// Which pairs and rows were read.
#[derive(Clone, Copy, PartialEq)]
struct SetVersion {
    iteration: Iteration,
    voided: u32,
    pairs: usize,
}

/// The training set that was read last.
#[derive(Default)]
pub(super) struct TrainingSetCache(Option<(SetVersion, TrainingSet)>);

/// A training set, read.
#[derive(Default)]
pub(super) struct TrainingSet {
    pairs: Vec<TokenizedPair>,
    rows: Vec<WeightedSequence>,
    /// What the reference said; read when all is there.
    logps: Option<BTreeMap<PairId, ReferenceSums>>,
    /// How many records of that there were.
    reference_records: usize,
}

impl TrainingSetCache {
    /// A training set, read now or before. `view` is the one that the task was decided by.
    pub fn get(
        &mut self,
        wanted: &TrainingSetRef,
        view: &RunView,
        context: &StageContext,
    ) -> Result<&TrainingSet, StageError> {
        let open = wanted.open(view)?;
        let TrainingSetRef { iteration, voided, .. } = *wanted;
        let version = SetVersion { iteration, voided, pairs: open.pairs.len() };
        let known = self.0.take().filter(|(known, _)| *known == version);
        let mut set = match known {
            Some((_, set)) => set,
            None => TrainingSet::read(wanted, view, context)?,
        };
        let records = open.reference_scored.len();
        if set.logps.is_none() || set.reference_records != records {
            set.logps = Some(context.bodies().reference_logps(&open.reference_scored)?);
            set.reference_records = records;
        }
        Ok(&self.0.insert((version, set)).1)
    }
}

impl TrainingSet {
    fn read(
        wanted: &TrainingSetRef,
        view: &RunView,
        context: &StageContext,
    ) -> Result<TrainingSet, StageError> {
        let open = wanted.open(view)?;
        let mut reader = PairReader::new(view, context);
        let places = match open.kind {
            IterationKind::Sft => Vec::new(),
            IterationKind::Dpo => places(open),
        };
        let pairs = places.iter().map(|place| reader.read(place)).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        for set in &wanted.data {
            for row in context.bodies().seed_rows(&set.blob)? {
                rows.push(sequence(&row, context.models.vocabulary())?);
            }
        }
        Ok(TrainingSet { pairs, rows, ..TrainingSet::default() })
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Some of the pairs.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn some_pairs(&self, range: Range<usize>) -> Result<&[TokenizedPair], StageError> {
        self.pairs.get(range.clone()).ok_or_else(|| {
            let n = self.pairs.len();
            StageError::Missing(format!("pairs {range:?} of the {n} that were sealed"))
        })
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
        let logps = self.logps.as_ref().filter(|_| self.reference_records > 0);
        let example = |pair: &TokenizedPair| {
            let reference = match logps {
                None => ReferenceSums { chosen: 0.0, rejected: 0.0 },
                Some(logps) => logps.get(&pair.id).copied().ok_or_else(|| {
                    StageError::Missing(format!(
                        "the reference's log-probabilities of pair {}",
                        pair.id.0
                    ))
                })?,
            };
            Ok(DpoExample {
                prompt: pair.prompt.clone(),
                chosen: pair.chosen.clone(),
                rejected: pair.rejected.clone(),
                reference_chosen: reference.chosen,
                reference_rejected: reference.rejected,
                belief: pair.belief,
            })
        };
        pairs.iter().filter_map(|at| self.pairs.get(*at as usize)).map(example).collect()
    }
}

/// A supervised row as token ids: loss on the answer and its turn end only.
fn sequence(row: &SeedRow, vocabulary: &dyn Vocabulary) -> Result<WeightedSequence, StageError> {
    let mut ids = vocabulary.encode_chat(&row.messages)?;
    let prompt = ids.len();
    ids.extend(answer_ids(vocabulary, &ids, &row.completion)?);
    let weights = (0..ids.len()).map(|at| if at < prompt { 0.0 } else { 1.0 }).collect();
    Ok(WeightedSequence { ids, weights })
}
