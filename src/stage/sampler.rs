//! The policy answers: N completions for each sealed prompt (paper, 2.3 step 2), and, when more
//! prompts are wanted, new prompts in the style of the known ones (step 1, in [`super::writer`]).

use super::{Duty, Needs, Stage, StageContext, StageError, task_key, writer};
use crate::domain::event::IterationKind;
use crate::domain::plan::{self, Engine, PromptPlan, SampleSet, WriterPlan};
use crate::domain::{Completion, Event, Iteration, PolicyRef, PromptId, Seed, TaskKey};
use crate::engine::{AnswerRequest, EngineError, Prepared};
use crate::view::{IterationView, RunView};
use std::sync::Arc;

/// The sampler stage.
#[derive(Debug, Default)]
pub struct Sampler;

/// What the sampler is asked to do.
#[derive(Clone, Debug)]
pub enum SampleTask {
    /// Answer the prompts of one planned chunk.
    Answer {
        /// The iteration.
        iteration: Iteration,
        /// Who answers.
        policy: PolicyRef,
        /// How, and what the answers are called.
        set: SampleSet,
        /// The chunk.
        prompts: Vec<PromptId>,
    },
    /// Write a round of new prompts.
    Write(WriteTask),
}

/// Write a round of new prompts.
#[derive(Clone, Debug)]
pub struct WriteTask {
    pub(crate) iteration: Iteration,
    /// Who writes.
    pub(crate) policy: PolicyRef,
    pub(crate) engine: Engine,
    /// Which round, from 0.
    pub(crate) round: u32,
    pub(crate) writer: WriterPlan,
    /// Prompts that the iteration wants.
    pub(crate) wanted: u32,
}

impl SampleTask {
    /// The prompts it answers; none for a round of writing.
    pub fn prompts(&self) -> Vec<PromptId> {
        match self {
            SampleTask::Answer { prompts, .. } => prompts.clone(),
            SampleTask::Write(_) => Vec::new(),
        }
    }
}

/// How the next round of prompt writing is done, if another could still come.
pub(crate) fn next_round<'p>(plan: &'p PromptPlan, open: &IterationView) -> Option<&'p WriterPlan> {
    plan.writer.as_ref().filter(|writer| (open.written.len() as u32) < writer.rounds_max)
}

/// Where the draws of one prompt take their randomness from.
pub(crate) fn prompt_seed(
    root: Seed,
    label: &str,
    iteration: Iteration,
    prompt: &PromptId,
) -> Seed {
    root.derive(label).index(u64::from(iteration.0)).derive(prompt.as_str())
}

/// The request for `n` completions of `prompt`.
pub(crate) fn request(
    prompt: Arc<Prepared>,
    seed: Seed,
    n: u32,
    sampling: &plan::Sampling,
) -> AnswerRequest {
    AnswerRequest {
        prompt,
        seeds: (0..u64::from(n)).map(|i| seed.index(i)).collect(),
        sampling: *sampling,
        stop_ids: Vec::new(),
        stop: Vec::new(),
    }
}

fn answer(
    iteration: Iteration,
    (policy, set): (&PolicyRef, &SampleSet),
    prompts: &[PromptId],
    view: &RunView,
    context: &StageContext,
) -> Result<Vec<Event>, StageError> {
    let model = context.models.answering(policy, &set.engine)?;
    let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
    let own = set.name == SampleSet::POLICY;
    let label = if own { "sampler".to_owned() } else { format!("sampler {}", set.name) };
    let requests = prompts
        .iter()
        .map(|id| {
            let prompt = model.prepare(&context.prompt(view, id)?.messages, "")?;
            let seed = prompt_seed(root, &label, iteration, id);
            Ok(request(Arc::new(prompt), seed, set.n, &set.sampling))
        })
        .collect::<Result<Vec<_>, StageError>>()?;
    let drawn = model.answer(&requests, &context.cancel)?;
    let as_drawn = context.models.draws_policy_ids(&set.engine);
    let mut events = Vec::with_capacity(prompts.len());
    for ((prompt, request), completions) in prompts.iter().zip(requests).zip(drawn) {
        let (prompt_ids, completions) = match as_drawn {
            true => (request.prompt.ids.clone(), completions),
            false => spelled(&request.prompt, completions, context)?,
        };
        events.push(Event::CompletionsSampled {
            iteration,
            prompt: prompt.clone(),
            policy: set.engine.answers_as(policy),
            completions,
            set: set.name.clone(),
            // Once is enough: all read the prompt with the same tokenizer.
            prompt_ids: if own { prompt_ids } else { Vec::new() },
        });
    }
    Ok(events)
}

/// A prompt and its answers, of an engine with another vocabulary, in ids of the policy.
fn spelled(
    prompt: &Prepared,
    completions: Vec<Completion>,
    context: &StageContext,
) -> Result<(Vec<u32>, Vec<Completion>), EngineError> {
    let ids = context.models.prompt_ids(&prompt.messages)?;
    let ours = completions.into_iter().map(|answer| context.models.spelled(&ids, answer));
    let ours = ours.collect::<Result<Vec<_>, EngineError>>()?;
    Ok((ids, ours))
}

/// The first chunk that a sample set has not answered, with the set; chunk after chunk, so that the
/// judge can begin.
fn unanswered(open: &IterationView) -> Option<(&SampleSet, &[PromptId])> {
    let plan = open.plan.as_ref()?;
    open.chunks(plan.batch_prompts).find_map(|chunk| {
        let waits = |set: &&SampleSet| {
            let missing = |p: &PromptId| open.sampled_in(&set.name, p).is_none();
            chunk.iter().any(|p| missing(p) && !open.is_quarantined(p))
        };
        Some((plan.samples.iter().find(waits)?, chunk))
    })
}

impl Stage for Sampler {
    type Task = SampleTask;
    const NAME: &'static str = "sampler";
    const DUTY: Duty = Duty::Works;

    fn next(&self, view: &RunView) -> Option<(TaskKey, SampleTask)> {
        let (iteration, open) = view.open()?;
        let plan = open.plan.as_ref()?;
        if open.kind == IterationKind::Sft {
            return None;
        }
        if open.prompts.is_none() {
            let writer = next_round(&plan.prompts, open)?.clone();
            let wanted = plan.prompts.per_iteration;
            if view.waiting() >= wanted as usize {
                return None;
            }
            let (policy, round) = (open.policy.clone(), open.written.len() as u32);
            let parts = ("write", iteration, policy.id(), round, &plan.prompts);
            let key = task_key(Self::NAME, view, &parts);
            let engine = plan.policy_engine();
            let task = WriteTask { iteration, policy, engine, round, writer, wanted };
            return Some((key, SampleTask::Write(task)));
        }
        // A prompt that is left out is waited for no longer.
        let waits = |p: &&PromptId| !open.judged.contains_key(*p) && !open.is_quarantined(p);
        let lag = open.sampled.keys().filter(waits).count();
        if lag > 2 * plan.batch_prompts as usize {
            return None;
        }
        let (set, chunk) = unanswered(open)?;
        let policy = set.policy.as_ref().unwrap_or(&open.policy).clone();
        let key = task_key(Self::NAME, view, &(iteration, policy.id(), chunk, set));
        let (set, prompts) = (set.clone(), chunk.to_vec());
        Some((key, SampleTask::Answer { iteration, policy, set, prompts }))
    }

    fn needs(&self, task: &SampleTask, _: &RunView, context: &StageContext) -> Needs {
        context.models.needs(match task {
            SampleTask::Answer { set, .. } => &set.engine,
            SampleTask::Write(task) => &task.engine,
        })
    }

    fn run(
        &mut self,
        task: SampleTask,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        match task {
            SampleTask::Answer { iteration, policy, set, prompts } => {
                let events = answer(iteration, (&policy, &set), &prompts, view, context)?;
                if let Some((_, open)) = view.open() {
                    let total = open.prompts.as_ref().map_or(0, |prompts| prompts.len()) as u64;
                    let done = (open.sampled.len() + prompts.len()) as u64;
                    context.gauge.progress(Self::NAME, done, total);
                }
                Ok(events)
            }
            SampleTask::Write(task) => writer::write_round(&task, view, context),
        }
    }
}
