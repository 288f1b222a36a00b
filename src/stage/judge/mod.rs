//! THE JUDGE. The policy judges its own answers: the panel's rubrics render the questions, the policy
//! replies k times, the rubrics read each reply (paper, 2.3 step 3: three samples, mean).
//!
//! Three tasks, in this order: `probe` tests the judge with bad answers, `chunk` makes the
//! judgments that count, `shadow` lets rubrics judge that do not count yet. All three ask through
//! `panel` (several rubrics) and `runner` (one rubric): `question` is what a rubric asks about
//! an `item`, `groups` which answers it shows together, `reply` what it read in a reply,
//! `readout` what probabilities say of that, `aggregate` one score made of all of it. `job`
//! reads completions from the log and makes judgments of replies; [`referee`] says who compares two
//! policies on held-out prompts. What is here knows no rubric's words and no score's meaning.
//!
//! Departures from the paper: where the judge wrote a score and the rubric says where, the score is
//! the expectation over what it could have written there (G-Eval, arXiv 2303.16634; `preset paper`
//! takes what was written); identical completions of a prompt are judged once and share the result.
//! The control arms (`arms`) replace the score and nothing else.

pub(crate) mod aggregate;
mod arms;
pub(crate) mod chunk;
mod groups;
pub(crate) mod item;
pub(crate) mod job;
pub(crate) mod panel;
pub(crate) mod probe;
mod question;
mod readout;
pub mod referee;
mod reply;
pub(crate) mod runner;
pub(crate) mod shadow;

pub use chunk::ChunkTask;
pub use probe::ProbeTask;
pub(crate) use question::shown;
pub use shadow::ShadowTask;

use super::{Duty, Needs, Stage, StageContext, StageError};
use crate::domain::plan::{JudgePlan, JudgeSource};
use crate::domain::{Event, PromptId, RubricId, TaskKey};
use crate::view::RunView;

/// The judge stage.
#[derive(Debug, Default)]
pub struct Judge;

/// What the judge is asked to do.
#[derive(Clone, Debug)]
pub enum JudgeTask {
    /// To score bad answers.
    Probe(ProbeTask),
    /// To score the completions of one planned chunk of prompts.
    Chunk(ChunkTask),
    /// To do the same under a rubric that does not count.
    Shadow(ShadowTask),
}

impl JudgeTask {
    /// The prompts that can be left out when it fails again and again.
    pub fn prompts(&self) -> Vec<PromptId> {
        match self {
            JudgeTask::Probe(_) | JudgeTask::Shadow(_) => Vec::new(),
            JudgeTask::Chunk(task) => task.prompts.iter().map(|(id, _)| id.clone()).collect(),
        }
    }
}

/// What judging takes: nothing where no model is asked, because the oracle scores or every rubric is
/// a program; else what the engine does.
fn needs<'a>(
    judge: &JudgePlan,
    rubrics: impl IntoIterator<Item = &'a RubricId>,
    context: &StageContext,
) -> Needs {
    let is_a_program = |id: &RubricId| context.rubrics.get(id).is_some_and(|r| r.is_a_program());
    match judge.source == JudgeSource::Oracle || rubrics.into_iter().all(is_a_program) {
        true => Needs::Nothing,
        false => context.models.needs(&judge.engine),
    }
}

impl Stage for Judge {
    type Task = JudgeTask;
    const NAME: &'static str = job::STAGE_NAME;
    const DUTY: Duty = Duty::Works;

    fn next(&self, view: &RunView) -> Option<(TaskKey, JudgeTask)> {
        let (iteration, open) = view.open()?;
        let plan = open.plan.as_ref()?;
        if view.failing().is_some() || open.sealed.is_some() {
            return None;
        }
        if let Some((key, task)) = probe::next(view, iteration, open, plan) {
            return Some((key, JudgeTask::Probe(task)));
        }
        if let Some((key, task)) = chunk::next(view, iteration, open, plan) {
            return Some((key, JudgeTask::Chunk(task)));
        }
        // Last: what counts does not wait for what does not.
        let (key, task) = shadow::next(plan, view, iteration, open)?;
        Some((key, JudgeTask::Shadow(task)))
    }

    fn needs(&self, task: &JudgeTask, _: &RunView, context: &StageContext) -> Needs {
        match task {
            JudgeTask::Probe(task) => needs(&task.judge, [&task.rubric], context),
            JudgeTask::Chunk(task) => {
                let members = task.panel.members().iter();
                needs(&task.judge, members.map(|member| &member.rubric), context)
            }
            JudgeTask::Shadow(task) => needs(&task.judge, [&task.rubric], context),
        }
    }

    fn run(
        &mut self,
        task: JudgeTask,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        match task {
            JudgeTask::Probe(task) => probe::run(&task, view, context),
            JudgeTask::Chunk(task) => chunk::run(&task, view, context),
            JudgeTask::Shadow(task) => shadow::run(&task, view, context),
        }
    }
}

#[cfg(test)]
mod tests;
