//! The judgments that count: the completions of one planned chunk of prompts, under the iteration's
//! panel.

use super::arms;
use super::job::{JudgingJob, STAGE_NAME, judge_jobs, judge_policy, judgments_recorded};
use super::panel::PanelResult;
use super::runner::JudgeSetup;
use crate::domain::plan::{JudgePlan, JudgeSource};
use crate::domain::{Event, Iteration, IterationPlan, Panel, PolicyRef, PromptId, TaskKey};
use crate::stage::bodies::SamplePlaces;
use crate::stage::{StageContext, StageError, task_key};
use crate::view::{IterationView, RunView};

/// Judge the completions of one planned chunk of prompts.
#[derive(Clone, Debug)]
pub struct ChunkTask {
    iteration: Iteration,
    policy: PolicyRef,
    pub(super) judge: JudgePlan,
    pub(super) panel: Panel,
    pub(super) prompts: Vec<(PromptId, SamplePlaces)>,
}

/// The next chunk whose answers are all there and not all judged.
fn unjudged<'v>(open: &'v IterationView, plan: &IterationPlan) -> Option<&'v [PromptId]> {
    open.chunks(plan.batch_prompts).find(|chunk| {
        let waits = |p: &PromptId| !open.judged.contains_key(p) && !open.is_quarantined(p);
        chunk.iter().any(waits) && chunk.iter().all(|p| open.samples_of(p).is_some())
    })
}

/// The next chunk to judge.
pub(super) fn next(
    view: &RunView,
    iteration: Iteration,
    open: &IterationView,
    plan: &IterationPlan,
) -> Option<(TaskKey, ChunkTask)> {
    let chunk = unjudged(open, plan)?;
    let judge = plan.judge.clone();
    let (policy, panel) = (judge_policy(open, &judge), open.panel.clone());
    let asked = (&judge, &plan.samples);
    let parts = (iteration, policy.id(), &panel, chunk, asked, open.rubrics_rolled_back);
    let key = task_key(STAGE_NAME, view, &parts).after(open.chunk_voided(chunk));
    // Of a chunk, a rollback may have taken back only some.
    let waits = chunk.iter().filter(|p| !open.judged.contains_key(*p));
    let prompts = waits.filter_map(|p| Some((p.clone(), open.samples_of(p)?))).collect();
    Some((key, ChunkTask { iteration, policy, judge, panel, prompts }))
}

/// Judges the chunk.
pub(super) fn run(
    task: &ChunkTask,
    view: &RunView,
    context: &StageContext,
) -> Result<Vec<Event>, StageError> {
    let jobs = task
        .prompts
        .iter()
        .map(|(id, samples)| JudgingJob::of(task.iteration, id, samples, view, context))
        .collect::<Result<Vec<_>, StageError>>()?;
    let (iteration, judge) = (task.iteration, task.judge.engine.answers_as(&task.policy));
    let mut events = Vec::with_capacity(jobs.len());
    for (job, result) in jobs.iter().zip(judged(task, &jobs, context)?) {
        events.push(judgments_recorded(job, &result, iteration, judge.clone(), context)?);
    }
    if let Some((_, open)) = view.open() {
        let total = open.prompts.as_ref().map_or(0, |prompts| prompts.len()) as u64;
        context.gauge.progress(STAGE_NAME, (open.judged.len() + jobs.len()) as u64, total);
    }
    Ok(events)
}

fn judged(
    task: &ChunkTask,
    jobs: &[JudgingJob],
    context: &StageContext,
) -> Result<Vec<PanelResult>, StageError> {
    let by_model = || {
        let all: Vec<&JudgingJob> = jobs.iter().collect();
        let setup = JudgeSetup { policy: Some(&task.policy), judge: &task.judge, context };
        judge_jobs(&all, &task.panel, setup)
    };
    Ok(match task.judge.source {
        JudgeSource::Model => by_model()?,
        JudgeSource::Random => {
            jobs.iter().zip(by_model()?).map(|(job, result)| arms::random(job, result)).collect()
        }
        JudgeSource::Oracle => {
            jobs.iter().map(|job| arms::oracle(job, &task.panel, context)).collect()
        }
    })
}
