//! Judgments become pairs, or a reason why not. The smallest stage: read it first.

use super::select::{Candidate, Rule, select};
use super::tally::Tallied;
use super::{Desk, Stage, StageError, Weight, task_key};
use crate::config::Config;
use crate::domain::{
    Completion, Event, Iteration, Judgment, Offset, PairId, PreferencePair, PromptId, StopReason,
    TaskKey,
};
use crate::view::RunView;
use std::sync::Arc;

/// The pair store stage.
pub struct PairStore {
    config: Arc<Config>,
}

/// Where one prompt's completions and judgments are.
#[derive(Clone, Debug)]
pub struct Judged {
    prompt: PromptId,
    sampled: Offset,
    judged: Offset,
    /// The last rollback that took its judgments back; 0 for none.
    voided: u32,
}

/// Decide about the prompts of one chunk.
#[derive(Clone, Debug)]
pub struct PairTask {
    iteration: Iteration,
    prompts: Vec<Judged>,
}

impl PairTask {
    /// The prompts it decides about.
    pub fn prompts(&self) -> Vec<PromptId> {
        self.prompts.iter().map(|judged| judged.prompt.clone()).collect()
    }
}

impl PairStore {
    /// A pair store with these settings.
    pub fn new(config: Arc<Config>) -> PairStore {
        PairStore { config }
    }

    fn decide(
        &self,
        iteration: Iteration,
        judged: &Judged,
        desk: &Desk,
    ) -> Result<Event, StageError> {
        let completions = completions_at(desk, judged.sampled)?;
        let verdicts = judged_at(desk, judged.judged, completions.len())?;
        let candidates = candidates(&completions, &verdicts.tallied);
        let prompt = judged.prompt.clone();
        Ok(match select(&candidates, rule(&self.config)) {
            Err(reason) => Event::PairSkipped { iteration, prompt, reason },
            Ok((chosen, rejected)) => {
                let (Some(c), Some(r)) = (candidates.get(chosen), candidates.get(rejected)) else {
                    return Err(StageError::Missing(format!("candidates of prompt {prompt}")));
                };
                let pair = PreferencePair {
                    id: PairId::of(iteration, &prompt, judged.voided),
                    prompt,
                    chosen: c.index,
                    rejected: r.index,
                    score_chosen: c.score.unwrap_or_default(),
                    score_rejected: r.score.unwrap_or_default(),
                    error_chosen: c.error,
                    error_rejected: r.error,
                    length_chosen: c.length_tokens,
                    length_rejected: r.length_tokens,
                };
                Event::PairFormed { iteration, pair }
            }
        })
    }
}

/// The rule by which the settings make pairs.
pub(crate) fn rule(config: &Config) -> Rule {
    Rule {
        min_gap: config.pairs.min_gap,
        noise: config.pairs.noise,
        length_control: config.pairs.length_control,
        require_ended: config.pairs.require_ended,
    }
}

/// Completions and what they came to, as the choice sees them.
pub(crate) fn candidates(
    completions: &[Completion],
    tallied: &[Option<Tallied>],
) -> Vec<Candidate> {
    let all = completions.iter().zip(tallied).zip(0..);
    let candidate =
        |((completion, tallied), index): ((&Completion, &Option<Tallied>), u32)| Candidate {
            index,
            score: tallied.map(|t| t.score),
            error: tallied.and_then(|t| t.error),
            length_tokens: completion.token_ids.len() as u32,
            ended: completion.stop != StopReason::Length,
            token_ids: completion.token_ids.clone(),
        };
    all.map(candidate).collect()
}

/// The completions recorded at an offset.
pub(crate) fn completions_at(desk: &Desk, offset: Offset) -> Result<Vec<Completion>, StageError> {
    match desk.event(offset)? {
        Event::CompletionsSampled { completions, .. } => Ok(completions),
        other => Err(wrong(offset, "completions", &other)),
    }
}

/// A prompt's judgments, and what each completion came to in them.
pub(crate) struct Verdicts {
    pub judgments: Vec<Judgment>,
    pub tallied: Vec<Option<Tallied>>,
}

impl Verdicts {
    /// Of an event that holds judgments of `n` completions; `None` of any other.
    pub fn of(event: &Event, n: usize) -> Option<Verdicts> {
        let (judgments, scores, errors) = match event {
            Event::JudgmentsRecorded { judgments, scores, errors, .. }
            | Event::ShadowJudged { judgments, scores, errors, .. } => (judgments, scores, errors),
            _ => return None,
        };
        let tallied = |at: usize| {
            let score = match scores.is_empty() {
                true => mean_of(judgments, at as u32),
                false => scores.get(at).copied().flatten(),
            };
            Some(Tallied { score: score?, error: errors.get(at).copied().flatten() })
        };
        let tallied = (0..n).map(tallied).collect();
        Some(Verdicts { judgments: judgments.clone(), tallied })
    }
}

/// The judgments of `n` completions that are recorded at an offset.
pub(crate) fn judged_at(desk: &Desk, offset: Offset, n: usize) -> Result<Verdicts, StageError> {
    let event = desk.event(offset)?;
    Verdicts::of(&event, n).ok_or_else(|| wrong(offset, "judgments", &event))
}

/// What a completion came to in records that do not say it.
fn mean_of(judgments: &[Judgment], candidate: u32) -> Option<f64> {
    let ours = judgments.iter().filter(|j| j.candidate == candidate);
    let scores: Vec<f64> = ours.filter_map(|j| j.outcome.score()).collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

pub(crate) fn wrong(offset: Offset, wanted: &str, found: &Event) -> StageError {
    StageError::Missing(format!("offset {offset} holds {}, not {wanted}", found.kind()))
}

impl Stage for PairStore {
    type Task = PairTask;
    const NAME: &'static str = "pair_store";
    const WEIGHT: Weight = Weight::Light;

    fn next(&self, view: &RunView) -> Option<(TaskKey, PairTask)> {
        let (iteration, open) = view.open()?;
        // What a rubric on trial says counts once it has passed.
        let trial = view.rubrics.on_trial(&open.panel) && !open.all_judged();
        if trial || view.failing().is_some() {
            return None;
        }
        let undecided = |p: &PromptId| !open.pairs.contains_key(p) && !open.skipped.contains_key(p);
        let chunk = open.chunks(self.config.sampling.batch_prompts).find(|chunk| {
            chunk.iter().all(|p| open.judged.contains_key(p)) && chunk.iter().any(undecided)
        })?;
        // Of a chunk, a rollback may have taken back only some.
        let prompts = chunk
            .iter()
            .filter(|prompt| undecided(prompt))
            .filter_map(|prompt| {
                let (sampled, judged) = (*open.sampled.get(prompt)?, *open.judged.get(prompt)?);
                let voided = open.prompt_voided(prompt);
                Some(Judged { prompt: prompt.clone(), sampled, judged, voided })
            })
            .collect();
        let parts = (iteration, chunk, &self.config.pairs, open.rubrics_rolled_back);
        let key = task_key(Self::NAME, view, &parts).after(open.chunk_voided(chunk));
        Some((key, PairTask { iteration, prompts }))
    }

    fn run(&mut self, task: PairTask, _: &RunView, desk: &Desk) -> Result<Vec<Event>, StageError> {
        task.prompts.iter().map(|judged| self.decide(task.iteration, judged, desk)).collect()
    }
}
