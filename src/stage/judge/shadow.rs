//! A rubric that judges beside the panel and counts for nothing: to see what it would do before it
//! does it. What it says is recorded apart from the judgments that pairs are made of, and whatever
//! goes wrong with it is recorded too, and stops nothing.

use super::job::{JudgingJob, ScoreColumns, judge_jobs, judge_policy, judgments_of};
use super::panel::PanelResult;
use super::reply::JudgeReply;
use super::runner::JudgeSetup;
use crate::domain::plan::{JudgePlan, JudgeSource};
use crate::domain::{
    Event, Iteration, IterationPlan, Judgment, Offset, Outcome, Panel, PolicyRef, PromptId,
    RubricId, TaskKey,
};
use crate::stage::bodies::SamplePlaces;
use crate::stage::{Cause, StageContext, StageError, task_key};
use crate::view::{IterationView, RunView};

/// Judge one chunk of prompts that the panel has judged.
#[derive(Clone, Debug)]
pub struct ShadowTask {
    iteration: Iteration,
    policy: PolicyRef,
    pub(super) judge: JudgePlan,
    pub(super) rubric: RubricId,
    /// Each with where its completions and its judgments are.
    pub(super) prompts: Vec<(PromptId, SamplePlaces, Offset)>,
}

/// Whether shadows judge at all: beside a control arm, whose scores are nobody's, they do not.
fn are_due(plan: &IterationPlan) -> bool {
    plan.judge.source == JudgeSource::Model
}

/// Whether a prompt that was judged waits for a shadow. An iteration's judging ends with its
/// shadows', so that a run does the same however fast it is.
pub(crate) fn is_awaited(plan: &IterationPlan, view: &RunView, open: &IterationView) -> bool {
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
    let policy = judge_policy(open, &judge);
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
        let mut job = JudgingJob::of(task.iteration, prompt, samples, view, context)?;
        job.recorded = context.bodies().judgments(*judged, job.completions.len())?.judgments;
        jobs.push(job);
    }
    let all: Vec<&JudgingJob> = jobs.iter().collect();
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
    jobs: &[&JudgingJob],
    context: &StageContext,
) -> Result<Vec<Event>, StageError> {
    let panel = Panel::one(task.rubric.clone());
    let setup = JudgeSetup { policy: Some(&task.policy), judge: &task.judge, context };
    let results = judge_jobs(jobs, &panel, setup)?;
    let event = |(job, result): (&&JudgingJob, &PanelResult)| {
        recorded(task, job, job.judgments(result), job.scores(result))
    };
    Ok(jobs.iter().zip(&results).map(event).collect())
}

/// A prompt whose question the model could not take.
fn refused(task: &ShadowTask, job: &JudgingJob, reason: &str) -> Event {
    let all: Vec<usize> = (0..job.completions.len()).collect();
    let reply = |at: &usize| {
        JudgeReply::without_text(&[*at], Outcome::Refused { reason: reason.to_owned() })
    };
    let replies: Vec<JudgeReply> = all.iter().map(reply).collect();
    let scores = ScoreColumns { scores: vec![None; all.len()], errors: Vec::new() };
    recorded(task, job, judgments_of(&task.rubric, &all, &replies), scores)
}

fn recorded(
    task: &ShadowTask,
    job: &JudgingJob,
    judgments: Vec<Judgment>,
    ScoreColumns { scores, errors }: ScoreColumns,
) -> Event {
    let judge = task.judge.engine.answers_as(&task.policy);
    let (iteration, rubric) = (task.iteration, task.rubric.clone());
    let prompt = job.prompt.id.clone();
    Event::ShadowJudged { iteration, prompt, judge, rubric, judgments, scores, errors }
}
