//! A rubric that judges beside the panel and counts for nothing: to see what it would do before it
//! does it. What it says is recorded apart from the judgments that pairs are made of, and whatever
//! goes wrong with it is recorded too, and stops nothing.

use super::ask::Asking;
use super::judge::{Job, judge_jobs, judging, recorded};
use super::pair_store::judged_at;
use super::texts::SamplePlaces;
use super::{Cause, StageContext, StageError, task_key};
use crate::domain::plan::{JudgePlan, JudgeSource};
use crate::domain::{
    Event, Iteration, IterationPlan, Judgment, Offset, Outcome, Panel, PolicyId, PolicyRef,
    PromptId, Remarks, RubricId, TaskKey,
};
use crate::view::{IterationView, RunView};

/// Judge one chunk of prompts that the panel has judged.
#[derive(Clone, Debug)]
pub struct ShadowTask {
    iteration: Iteration,
    policy: PolicyRef,
    pub(super) judge: JudgePlan,
    pub(super) rubric: RubricId,
    /// Each with where its completions and its judgments are.
    prompts: Vec<(PromptId, SamplePlaces, Offset)>,
}

impl ShadowTask {
    /// Who replies.
    fn who(&self) -> PolicyId {
        self.judge.engine.answers_as(&self.policy)
    }
}

/// Whether shadows judge at all: beside a control arm, whose scores are nobody's, they do not.
fn are_due(plan: &IterationPlan) -> bool {
    plan.judge.source == JudgeSource::Model
}

/// Whether a prompt that was judged waits for a shadow. An iteration's judging ends with its
/// shadows', so that a run does the same however fast it is.
pub(super) fn is_awaited(plan: &IterationPlan, view: &RunView, open: &IterationView) -> bool {
    let waits = |rubric| open.judged.keys().any(|prompt| open.waits_for_shadow(rubric, prompt));
    are_due(plan) && view.rubrics.shadows.iter().any(waits)
}

/// The next chunk that the panel has judged and a shadow has not.
pub(super) fn next(
    plan: &IterationPlan,
    view: &RunView,
    iteration: Iteration,
    open: &IterationView,
) -> Option<(TaskKey, ShadowTask)> {
    if !are_due(plan) {
        return None;
    }
    let (rubric, chunk) = view.rubrics.shadows.iter().find_map(|rubric| {
        let waits = |prompt: &PromptId| open.waits_for_shadow(rubric, prompt);
        let mut chunks = open.chunks(plan.batch_prompts);
        let whole = |chunk: &&[PromptId]| {
            let judged = |p: &PromptId| open.judged.contains_key(p) || open.is_quarantined(p);
            chunk.iter().all(judged) && chunk.iter().any(waits)
        };
        Some((rubric.clone(), chunks.find(whole)?))
    })?;
    let prompts: Vec<(PromptId, SamplePlaces, Offset)> = chunk
        .iter()
        .filter_map(|p| Some((p.clone(), open.samples_of(p)?, *open.judged.get(p)?)))
        .collect();
    let judge = plan.judge.clone();
    let policy = judging(open, &judge);
    let key = task_key("shadow", view, &(iteration, policy.id(), &rubric, &prompts, &judge));
    Some((key, ShadowTask { iteration, policy, judge, rubric, prompts }))
}

/// Whether the model cannot take the question; what the machine refuses is no answer to it.
fn is_the_questions(error: &StageError) -> bool {
    matches!(error, StageError::Model(_)) && error.cause() == Cause::Task
}

/// Judges the chunk. A question that the model cannot take (it may be longer than what the model
/// can read) leaves its prompt without a score.
pub(super) fn run(
    task: &ShadowTask,
    view: &RunView,
    context: &StageContext,
) -> Result<Vec<Event>, StageError> {
    let mut jobs = Vec::new();
    for (prompt, samples, judged) in &task.prompts {
        let mut job = Job::of(task.iteration, prompt, samples, view, context)?;
        job.past = judged_at(context, *judged, job.completions.len())?.judgments;
        jobs.push(job);
    }
    let all: Vec<&Job> = jobs.iter().collect();
    match judge(task, &all, context) {
        Err(error) if is_the_questions(&error) => {}
        done => return done,
    }
    let mut events = Vec::new();
    for job in &jobs {
        match judge(task, &[job], context) {
            Err(error) if is_the_questions(&error) => {
                events.push(refused(task, job, &error.to_string()));
            }
            done => events.extend(done?),
        }
    }
    Ok(events)
}

fn judge(
    task: &ShadowTask,
    jobs: &[&Job],
    context: &StageContext,
) -> Result<Vec<Event>, StageError> {
    let panel = Panel::one(task.rubric.clone());
    let asking = Asking { policy: Some(&task.policy), judge: &task.judge, context };
    let judged = judge_jobs(jobs, &panel, asking)?;
    let events = jobs.iter().zip(&judged).map(|(job, judged)| {
        let event = recorded(job, judged, task.iteration, task.who(), context)?;
        Ok(match event {
            Event::JudgmentsRecorded {
                iteration,
                prompt,
                judge,
                judgments,
                scores,
                errors,
                ..
            } => {
                let rubric = task.rubric.clone();
                Event::ShadowJudged { iteration, prompt, judge, rubric, judgments, scores, errors }
            }
            other => other,
        })
    });
    events.collect()
}

fn refused(task: &ShadowTask, job: &Job, reason: &str) -> Event {
    let judgment = |candidate: usize| Judgment {
        rubric: task.rubric.clone(),
        candidate: candidate as u32,
        sample: 0,
        outcome: Outcome::Refused { reason: reason.to_owned() },
        text: String::new(),
        fuel: 0,
        seen: Vec::new(),
        scores: Vec::new(),
        readout: None,
        remarks: Remarks::default(),
    };
    Event::ShadowJudged {
        iteration: task.iteration,
        prompt: job.prompt.id.clone(),
        judge: task.who(),
        rubric: task.rubric.clone(),
        judgments: (0..job.completions.len()).map(judgment).collect(),
        scores: vec![None; job.completions.len()],
        errors: Vec::new(),
    }
}
