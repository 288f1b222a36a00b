//! One prompt's answers on their way through the judge: read from the log, asked about each once,
//! and recorded as judgments of every answer.

use super::item::{Distinct, JudgingItem, RecordedReply, SeedRule};
use super::panel::{PanelResult, installed, judge_under, name_of};
use super::reply::JudgeReply;
use super::runner::{JudgeSetup, RubricResult};
use crate::domain::plan::JudgePlan;
use crate::domain::{
    Completion, Event, Iteration, Judgment, Offset, Panel, PolicyId, PolicyRef, Prompt, PromptId,
    RubricId, Seed, TextRef,
};
use crate::stage::sampler::prompt_seed;
use crate::stage::{StageContext, StageError, root_seed};
use crate::view::{IterationView, RunView};

/// What the stage is called in task keys and on screens.
pub(super) const STAGE_NAME: &str = "judge";

/// A prompt and what is judged of it.
#[derive(Clone)]
pub(crate) struct JudgingJob {
    pub prompt: Prompt,
    pub completions: Vec<Completion>,
    /// How a pair refers to each of them.
    pub texts: Vec<TextRef>,
    pub seed: Seed,
    /// Judgments whose replies may be read again.
    pub recorded: Vec<Judgment>,
}

/// Whose replies are read in an iteration.
pub(crate) fn judge_policy(open: &IterationView, judge: &JudgePlan) -> PolicyRef {
    judge.policy.as_ref().unwrap_or(&open.policy).clone()
}

impl JudgingJob {
    /// What an iteration's judge has to do about a prompt whose completions are at these places.
    pub fn of(
        iteration: Iteration,
        prompt: &PromptId,
        samples: &[(String, Offset)],
        view: &RunView,
        context: &StageContext,
    ) -> Result<JudgingJob, StageError> {
        let root = root_seed(view)?;
        let answers = context.bodies().answers(samples)?;
        Ok(JudgingJob {
            prompt: context.bodies().prompt(view, prompt)?,
            completions: answers.completions,
            texts: answers.texts,
            seed: prompt_seed(root, "judge", iteration, prompt),
            recorded: Vec::new(),
        })
    }

    /// The different completions: those of the same tokens are judged once.
    pub fn distinct(&self) -> Distinct<&Completion> {
        Distinct::of(&self.completions, |a, b| a.token_ids == b.token_ids)
    }

    /// The recorded judgments as replies about the different completions.
    fn replies(
        &self,
        distinct: &Distinct<&Completion>,
        context: &StageContext,
    ) -> Vec<RecordedReply> {
        let mut all: Vec<RecordedReply> = Vec::new();
        for judgment in self.recorded.iter().filter(|j| j.has_reply()) {
            let Some(rubric) = context.rubrics.get(&judgment.rubric) else { continue };
            let which = |at: &u32| distinct.index_of.get(*at as usize).copied();
            let shown: Vec<usize> = judgment.shown().iter().filter_map(which).collect();
            let (sample, text) = (judgment.sample, judgment.text.clone());
            // Identical completions share their judgments.
            let same = |known: &RecordedReply| {
                known.rubric.id() == rubric.id() && known.shown == shown && known.sample == sample
            };
            if !all.iter().any(same) {
                let (scores, readout) = (judgment.each(), judgment.readout);
                all.push(RecordedReply { rubric, shown, sample, text, scores, readout });
            }
        }
        all
    }
}

/// Judges each job's different completions under a panel; the results are in the jobs' order.
pub(crate) fn judge_jobs(
    jobs: &[&JudgingJob],
    panel: &Panel,
    setup: JudgeSetup<'_>,
) -> Result<Vec<PanelResult>, StageError> {
    let items: Vec<JudgingItem<'_>> = jobs
        .iter()
        .map(|job| {
            let distinct = job.distinct();
            let answers = distinct.items.iter().map(|c| c.text.as_str()).collect();
            let recorded = job.replies(&distinct, setup.context);
            let seeds = SeedRule::ByPosition(job.seed);
            JudgingItem { recorded, ..JudgingItem::of(&job.prompt, answers, seeds) }
        })
        .collect();
    judge_under(panel, &items, setup)
}

/// What completions came to, as events say it.
pub(super) struct ScoreColumns {
    pub scores: Vec<Option<f64>>,
    /// Standard errors of the scores.
    pub errors: Vec<Option<f64>>,
}

impl JudgingJob {
    /// What was said of the job's completions, rubric after rubric.
    pub(super) fn judgments(&self, result: &PanelResult) -> Vec<Judgment> {
        let index_of = self.distinct().index_of;
        let of = |(rubric, result): &(RubricId, RubricResult)| {
            judgments_of(rubric, &index_of, &result.replies)
        };
        result.by_rubric.iter().flat_map(of).collect()
    }

    /// What each of the job's completions came to.
    pub(super) fn scores(&self, result: &PanelResult) -> ScoreColumns {
        let index_of = self.distinct().index_of;
        let all: Vec<_> = index_of.iter().map(|distinct| result.of(*distinct)).collect();
        ScoreColumns {
            scores: all.iter().map(|one| one.map(|one| one.score)).collect(),
            errors: all.iter().map(|one| one.and_then(|one| one.standard_error)).collect(),
        }
    }
}

/// A prompt's judgments as an event; `judge` is whose replies were read.
pub(crate) fn judgments_recorded(
    job: &JudgingJob,
    result: &PanelResult,
    iteration: Iteration,
    judge: PolicyId,
    context: &StageContext,
) -> Result<Event, StageError> {
    let rubrics = result.by_rubric.iter().map(|(id, _)| Ok(name_of(&installed(context, id)?)));
    let ScoreColumns { scores, errors } = job.scores(result);
    Ok(Event::JudgmentsRecorded {
        iteration,
        prompt: job.prompt.id.clone(),
        judge,
        judgments: job.judgments(result),
        scores,
        errors,
        lengths: job.completions.iter().map(|c| c.token_ids.len() as u32).collect(),
        not_compared: result.by_rubric.iter().map(|(_, one)| one.groups_not_shown).sum(),
        rubrics: rubrics.collect::<Result<_, StageError>>()?,
    })
}

/// Replies as judgments: what one answer got alone is every identical completion's, and what
/// several got together is one judgment of the first completion of each. `index_of` says which of
/// the different answers each completion is.
pub(crate) fn judgments_of(
    rubric: &RubricId,
    index_of: &[usize],
    replies: &[JudgeReply],
) -> Vec<Judgment> {
    let judgment = |reply: &JudgeReply, candidate: usize| Judgment {
        rubric: rubric.clone(),
        candidate: candidate as u32,
        sample: reply.sample,
        outcome: reply.outcome.clone(),
        text: reply.text.clone(),
        fuel: reply.fuel,
        seen: Vec::new(),
        scores: Vec::new(),
        readout: reply.readout,
        remarks: reply.remarks.clone(),
    };
    let mut all = Vec::new();
    for (candidate, distinct) in index_of.iter().enumerate() {
        let alone = replies.iter().filter(|reply| reply.shown == [*distinct]);
        all.extend(alone.map(|reply| judgment(reply, candidate)));
    }
    for reply in replies.iter().filter(|reply| reply.shown.len() > 1) {
        let first = |distinct: &usize| index_of.iter().position(|one| one == distinct);
        let seen: Vec<usize> = reply.shown.iter().filter_map(first).collect();
        let Some(candidate) = seen.first().copied() else { continue };
        all.push(Judgment {
            seen: seen.iter().map(|at| *at as u32).collect(),
            scores: reply.scores.clone(),
            ..judgment(reply, candidate)
        });
    }
    all
}
