//! Answers before a whole panel: each prompt's are judged by the rubrics that its tags lead to, and
//! what they come to together is one score.

use super::aggregate::{AggregateScore, WeightedScore, aggregate_panel};
use super::item::{Distinct, JudgingItem};
use super::runner::{JudgeSetup, RubricResult, RubricRunner};
use crate::codes::Code;
use crate::domain::{Panel, PanelMember, RubricId, RubricName};
use crate::rubric::Rubric;
use crate::stage::{StageContext, StageError};

/// What became of an item.
#[derive(Clone, Debug)]
pub(crate) struct PanelResult {
    /// What each rubric that was asked made of it.
    pub by_rubric: Vec<(RubricId, RubricResult)>,
    /// One for each answer, in the scale of the panel's first rubric; `None`: no score.
    pub scores: Vec<Option<AggregateScore>>,
}

impl PanelResult {
    /// What an answer came to.
    pub fn of(&self, answer: usize) -> Option<AggregateScore> {
        self.scores.get(answer).copied().flatten()
    }

    /// The scores of answers of which the `distinct` ones were judged. A rubric that compares says
    /// nothing where all answers are the same: they have a tie, the middle of its scale.
    pub fn scores_with_ties<T>(&self, distinct: &Distinct<T>, lead: &Rubric) -> Vec<Option<f64>> {
        let info = lead.info();
        let alike = distinct.items.len() == 1 && info.min_candidates > 1;
        let tie = alike.then(|| info.scale().middle());
        let score = |at: &usize| self.of(*at).map(|score| score.score).or(tie);
        distinct.index_of.iter().map(score).collect()
    }
}

/// A rubric that can be asked.
///
/// # Errors
/// [`StageError::Rubric`] when it is not installed.
pub(crate) fn installed(context: &StageContext, id: &RubricId) -> Result<Rubric, StageError> {
    let missing = || StageError::Rubric {
        code: Code::RubricMissing,
        message: format!(
            "rubric {} judges, and its component cannot be used: {}. Install it again",
            id.short(),
            context.rubrics.why_not(id)
        ),
    };
    context.rubrics.get(id).ok_or_else(missing)
}

/// The first rubric of a panel, whose scale its scores are in.
///
/// # Errors
/// [`StageError::Rubric`] when it is not installed.
pub(crate) fn lead(context: &StageContext, panel: &Panel) -> Result<Rubric, StageError> {
    let nobody = || StageError::Rubric {
        code: Code::PanelLacksGeneralist,
        message: "the panel names no rubric: activate one".to_owned(),
    };
    let first = panel.members().first().ok_or_else(nobody)?;
    installed(context, &first.rubric)
}

/// What a rubric's id stands for.
pub(crate) fn name_of(rubric: &Rubric) -> RubricName {
    let info = rubric.info();
    let (name, version) = (info.name.clone(), info.version.clone());
    RubricName { rubric: rubric.id().clone(), name, version }
}

/// A rubric's verdict on an item, and what it counts for.
struct MemberResult<'p> {
    member: &'p PanelMember,
    rubric: Rubric,
    result: RubricResult,
}

impl MemberResult<'_> {
    fn score_of(&self, answer: usize) -> WeightedScore {
        WeightedScore {
            score: self.result.scores.get(answer).copied().flatten(),
            weight: self.member.weight,
            scale: self.rubric.info().scale(),
        }
    }
}

/// Judges every item under the panel; the results are in their order.
pub(crate) fn judge_under(
    panel: &Panel,
    items: &[JudgingItem<'_>],
    setup: JudgeSetup<'_>,
) -> Result<Vec<PanelResult>, StageError> {
    let context = setup.context;
    let mut results: Vec<Vec<MemberResult<'_>>> = items.iter().map(|_| Vec::new()).collect();
    for (place, member) in panel.members().iter().enumerate() {
        let takes = |item: &JudgingItem<'_>| panel.for_tags(&item.tags).contains(&member);
        let places: Vec<usize> =
            items.iter().enumerate().filter(|(_, item)| takes(item)).map(|(at, _)| at).collect();
        if places.is_empty() {
            continue;
        }
        let rubric = installed(context, &member.rubric)?;
        let ours: Vec<JudgingItem<'_>> =
            places.iter().filter_map(|at| items.get(*at)).map(|s| s.for_member(place)).collect();
        let runner = RubricRunner { setup, rubric: &rubric, samples: setup.judge.samples };
        for (at, result) in places.iter().zip(runner.run(&ours)?) {
            if let Some(results) = results.get_mut(*at) {
                results.push(MemberResult { member, rubric: rubric.clone(), result });
            }
        }
    }
    let scale = lead(context, panel)?.info().scale();
    let judged = items.iter().zip(results).map(|(item, results)| {
        let score = |answer: usize| {
            let scores: Vec<WeightedScore> =
                results.iter().map(|one| one.score_of(answer)).collect();
            aggregate_panel(&scores, scale)
        };
        let scores = (0..item.answers.len()).map(score).collect();
        let by_rubric = results.into_iter().map(|one| (one.rubric.id().clone(), one.result));
        PanelResult { by_rubric: by_rubric.collect(), scores }
    });
    Ok(judged.collect())
}
