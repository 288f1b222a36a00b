//! The policy answers: N completions for each sealed prompt (paper, 2.3 step 2), and, when more
//! prompts are wanted, new prompts in the style of the known ones (step 1, in [`super::writer`]).

use super::{Desk, Stage, StageError, Weight, task_key, writer};
use crate::config::{Config, SamplingConfig};
use crate::domain::{Event, Iteration, PolicyRef, PromptId, Seed, TaskKey};
use crate::lm::generate::DrawRequest;
use crate::lm::generate::Sampling;
use crate::lm::policy::LanguageModel;
use crate::view::{IterationView, RunView};
use std::sync::Arc;

/// The sampler stage.
pub struct Sampler {
    config: Arc<Config>,
}

/// What the sampler is asked to do.
#[derive(Clone, Debug)]
pub enum SampleTask {
    /// Answer the prompts of one planned chunk.
    Answer {
        /// The iteration.
        iteration: Iteration,
        /// Who answers.
        policy: PolicyRef,
        /// The chunk.
        prompts: Vec<PromptId>,
    },
    /// Write a round of new prompts.
    Write {
        /// The iteration.
        iteration: Iteration,
        /// Who writes.
        policy: PolicyRef,
        /// Which round, from 0.
        round: u32,
    },
}

impl SampleTask {
    /// The prompts it answers; none for a round of writing.
    pub fn prompts(&self) -> Vec<PromptId> {
        match self {
            SampleTask::Answer { prompts, .. } => prompts.clone(),
            SampleTask::Write { .. } => Vec::new(),
        }
    }
}

impl Sampler {
    /// A sampler with these settings.
    pub fn new(config: Arc<Config>) -> Sampler {
        Sampler { config }
    }
}

/// Whether another round of prompt writing could still come.
pub(crate) fn may_write(config: &Config, open: &IterationView) -> bool {
    config.prompts.generate && (open.written.len() as u32) < config.prompts.rounds_max
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
    model: &dyn LanguageModel,
    prompt: Vec<u32>,
    seed: Seed,
    n: u32,
    settings: &SamplingConfig,
) -> DrawRequest {
    DrawRequest {
        prompt,
        seeds: (0..u64::from(n)).map(|i| seed.index(i)).collect(),
        sampling: Sampling {
            temperature: settings.temperature as f32,
            top_p: settings.top_p as f32,
            max_new_tokens: settings.max_new_tokens as usize,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            stop_ids: model.stop_ids().to_vec(),
        },
    }
}

fn answer(
    iteration: Iteration,
    policy: &PolicyRef,
    prompts: &[PromptId],
    view: &RunView,
    desk: &Desk,
) -> Result<Vec<Event>, StageError> {
    let model = desk.workshop.policy(policy)?;
    let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
    let settings = &desk.config.sampling;
    let requests = prompts
        .iter()
        .map(|id| {
            let ids = model.encode_chat(&desk.prompt(view, id)?.messages)?;
            let seed = prompt_seed(root, "sampler", iteration, id);
            Ok(request(model.as_ref(), ids, seed, settings.candidates, settings))
        })
        .collect::<Result<Vec<_>, StageError>>()?;
    let drawn = model.draw(&requests, &desk.cancel)?;
    let events = prompts.iter().zip(drawn).map(|(prompt, completions)| Event::CompletionsSampled {
        iteration,
        prompt: prompt.clone(),
        policy: policy.id(),
        completions,
    });
    Ok(events.collect())
}

impl Stage for Sampler {
    type Task = SampleTask;
    const NAME: &'static str = "sampler";
    const WEIGHT: Weight = Weight::Heavy;

    fn next(&self, view: &RunView) -> Option<(TaskKey, SampleTask)> {
        let (iteration, open) = view.open()?;
        let policy = open.policy.clone();
        if open.kind == crate::domain::event::IterationKind::Sft {
            return None;
        }
        if open.prompts.is_none() {
            let wanted = self.config.prompts.per_iteration as usize;
            if view.unused().count() >= wanted || !may_write(&self.config, open) {
                return None;
            }
            let round = open.written.len() as u32;
            let parts = ("write", iteration, policy.id(), round, &self.config.prompts);
            let key = task_key(Self::NAME, view, &parts);
            return Some((key, SampleTask::Write { iteration, policy, round }));
        }
        // A prompt that is left out is waited for no longer.
        let waits = |p: &&PromptId| !open.judged.contains_key(*p) && !open.is_quarantined(p);
        let lag = open.sampled.keys().filter(waits).count();
        if lag > 2 * self.config.sampling.batch_prompts as usize {
            return None;
        }
        let prompts = open
            .chunks(self.config.sampling.batch_prompts)
            .find(|chunk| {
                chunk.iter().any(|p| !open.sampled.contains_key(p) && !open.is_quarantined(p))
            })?
            .to_vec();
        let parts = (iteration, policy.id(), &prompts, &self.config.sampling);
        let key = task_key(Self::NAME, view, &parts);
        Some((key, SampleTask::Answer { iteration, policy, prompts }))
    }

    fn run(
        &mut self,
        task: SampleTask,
        view: &RunView,
        desk: &Desk,
    ) -> Result<Vec<Event>, StageError> {
        match task {
            SampleTask::Answer { iteration, policy, prompts } => {
                let events = answer(iteration, &policy, &prompts, view, desk)?;
                if let Some((_, open)) = view.open() {
                    let total = open.prompts.as_ref().map_or(0, Vec::len) as u64;
                    let done = (open.sampled.len() + prompts.len()) as u64;
                    desk.gauge.progress(Self::NAME, done, total);
                }
                Ok(events)
            }
            SampleTask::Write { iteration, policy, round } => {
                writer::write_round(iteration, &policy, round, view, desk)
            }
        }
    }
}
