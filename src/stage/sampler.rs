//! The policy answers: N completions for each sealed prompt (paper, 2.3 step 2), and, when more
//! prompts are wanted, new prompts in the style of the known ones (step 1, in [`super::writer`]).

use super::writer::WriteTask;
use super::{Duty, Needs, Stage, StageContext, StageError, root_seed, task_key, writer};
use crate::domain::event::IterationKind;
use crate::domain::plan::{self, PromptPlan, SampleSet, WriterPlan};
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
    sampling: &plan::PlannedSampling,
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
    let root = root_seed(view)?;
    let own = set.name == SampleSet::POLICY;
    let label = if own { "sampler".to_owned() } else { format!("sampler {}", set.name) };
    let requests = prompts
        .iter()
        .map(|id| {
            let prompt = model.prepare(&context.bodies().prompt(view, id)?.messages, "")?;
            let seed = prompt_seed(root, &label, iteration, id);
            Ok(request(Arc::new(prompt), seed, set.n, &set.sampling))
        })
        .collect::<Result<Vec<_>, StageError>>()?;
    let drawn = model.answer(&requests, &context.cancel)?;
    let mut events = Vec::with_capacity(prompts.len());
    for ((prompt, request), completions) in prompts.iter().zip(requests).zip(drawn) {
        let (prompt_ids, completions) =
            in_policy_ids(&set.engine, &request.prompt, completions, context)?;
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

/// A prompt and its answers in ids of the policy: as they were drawn, or, of an engine with another
/// vocabulary, spelled once.
pub(super) fn in_policy_ids(
    engine: &plan::PlannedEngine,
    prompt: &Prepared,
    completions: Vec<Completion>,
    context: &StageContext,
) -> Result<(Vec<u32>, Vec<Completion>), EngineError> {
    if context.models.draws_policy_ids(engine) {
        return Ok((prompt.ids.clone(), completions));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, PairRule};
    use crate::domain::{Event, PromptOrigin};
    use crate::stage::testing::{Run, names, prompt, prompts};

    /// What the sampler does next, in words.
    fn next(run: &Run) -> String {
        match Sampler.next(&run.view) {
            None => "nothing".to_owned(),
            Some((_, SampleTask::Write(task))) => format!("write round {}", task.round),
            Some((_, SampleTask::Answer { set, prompts, .. })) => {
                format!("{} answers {}", set.name, names(&prompts))
            }
        }
    }

    fn writes(config: &mut Config) {
        (config.prompts.generate, config.prompts.rounds_max) = (true, 2);
    }

    fn written(run: Run) -> Run {
        let (iteration, round) = (run.iteration(), run.open().written.len() as u32);
        run.tell(Event::PromptsWritten { iteration, round, admitted: 0, rejected: 1 })
    }

    #[test]
    fn what_is_answered_next() {
        let sealed = || Run::begun(4).opened().sealed(0..4);
        let split = |run: Run| {
            let iteration = run.iteration();
            run.tell(Event::PromptsSplit { iteration, prompts: prompts(0..2) })
        };
        let left_out = |run: Run| {
            let (iteration, task) = (run.iteration(), TaskKey("t".to_owned()));
            let (prompt, stage) = (prompt(0), "sampler".to_owned());
            run.tell(Event::PromptQuarantined { iteration, prompt, stage, task })
        };
        let alone = |c: &mut Config| c.sampling.batch_prompts = 1;
        let one_by_one = || Run::begun(4).with(alone).opened().sealed(0..4);
        let anchored = |c: &mut Config| c.pairs.rule = PairRule::Anchored;
        for (what, given, then) in [
            ("no iteration is open", Run::begun(4), "nothing"),
            ("the prompts are not sealed", Run::begun(4).opened(), "nothing"),
            ("nothing is answered", sealed(), "policy answers p0 p1"),
            ("half of a chunk is answered", sealed().sampled(0..1), "policy answers p0 p1"),
            ("a chunk is answered", sealed().sampled(0..2), "policy answers p2 p3"),
            ("everything is answered", sealed().sampled(0..4), "nothing"),
            ("the first chunk is split", split(sealed()), "policy answers p0"),
            ("its first prompt is left out", left_out(split(sealed())), "policy answers p1"),
            ("two wait for the judge", one_by_one().sampled(0..2), "policy answers p2"),
            ("too many wait for the judge", one_by_one().sampled(0..3), "nothing"),
            (
                "the judge has caught up",
                one_by_one().sampled(0..3).judged("a", 0..1, [1.0, 2.0]),
                "policy answers p3",
            ),
            (
                "another sample set waits, chunk after chunk",
                Run::begun(4).with(anchored).opened().sealed(0..4).sampled(0..2),
                "initial answers p0 p1",
            ),
        ] {
            assert_eq!(next(&given), then, "{what}");
        }
    }

    #[test]
    fn when_new_prompts_are_written() {
        let few = || Run::begun(3).with(writes).opened();
        let shown = |run: Run| run.admit(prompt(7), PromptOrigin::Demonstration);
        for (what, given, then) in [
            ("nobody writes", Run::begun(3).opened(), "nothing"),
            ("enough wait", Run::begun(4).with(writes).opened(), "nothing"),
            ("too few wait", few(), "write round 0"),
            ("what is only shown is none of them", shown(few()), "write round 0"),
            ("a round brought too few", written(few()), "write round 1"),
            ("all rounds are used", written(written(few())), "nothing"),
            ("the prompts are sealed", few().sealed(0..3), "policy answers p0 p1"),
        ] {
            assert_eq!(next(&given), then, "{what}");
        }
    }
}
