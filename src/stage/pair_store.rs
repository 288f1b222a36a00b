//! Judgments become pairs, or a reason why not. The smallest stage: read it first.

use super::select::{Candidate, select};
use super::tally::Tallied;
use super::texts::{SamplePlaces, answers_at, wrong};
use super::{Duty, Needs, Stage, StageContext, StageError, task_key};
use crate::domain::plan::PairingRule;
use crate::domain::{
    Completion, Event, Iteration, Judgment, Offset, PairId, PreferencePair, PromptId, Side,
    StopReason, TaskKey, TextRef,
};
use crate::view::RunView;

/// The pair store stage.
#[derive(Debug, Default)]
pub struct PairStore;

/// Where one prompt's completions and judgments are.
#[derive(Clone, Debug)]
struct Judged {
    prompt: PromptId,
    samples: SamplePlaces,
    judged: Offset,
    /// The last rollback that took its judgments back; 0 for none.
    voided: u32,
}

/// Decide about the prompts of one chunk.
#[derive(Clone, Debug)]
pub struct PairTask {
    iteration: Iteration,
    rule: PairingRule,
    prompts: Vec<Judged>,
}

impl PairTask {
    /// The prompts it decides about.
    pub fn prompts(&self) -> Vec<PromptId> {
        self.prompts.iter().map(|judged| judged.prompt.clone()).collect()
    }

    fn decide(&self, judged: &Judged, context: &StageContext) -> Result<Event, StageError> {
        let answers = answers_at(context, &judged.samples)?;
        let verdicts = judged_at(context, judged.judged, answers.texts.len())?;
        let candidates = candidates(&answers.texts, &answers.completions, &verdicts.tallied);
        let (iteration, prompt) = (self.iteration, judged.prompt.clone());
        Ok(match select(&candidates, &self.rule) {
            Err(reason) => Event::PairSkipped { iteration, prompt, reason },
            Ok((chosen, rejected)) => {
                let (Some(c), Some(r)) = (candidates.get(chosen), candidates.get(rejected)) else {
                    return Err(StageError::Missing(format!("candidates of prompt {prompt}")));
                };
                let pair = PreferencePair {
                    id: PairId::of(iteration, &prompt, judged.voided),
                    prompt,
                    chosen: c.side(),
                    rejected: r.side(),
                    weight: 1.0,
                    label: 1.0,
                };
                Event::PairFormed { iteration, pair }
            }
        })
    }
}

impl Candidate {
    fn side(&self) -> Side {
        let (text, tokens) = (self.text.clone(), self.length_tokens);
        Side { text, score: self.score, error: self.error, tokens }
    }
}

/// Completions and what they came to, as the choice sees them.
pub(crate) fn candidates(
    texts: &[TextRef],
    completions: &[Completion],
    tallied: &[Option<Tallied>],
) -> Vec<Candidate> {
    let all = texts.iter().zip(completions).zip(tallied);
    let candidate =
        |((text, completion), tallied): ((&TextRef, &Completion), &Option<Tallied>)| Candidate {
            text: text.clone(),
            score: tallied.map(|t| t.score),
            error: tallied.and_then(|t| t.error),
            length_tokens: completion.token_ids.len() as u32,
            ended: completion.stop != StopReason::Length,
            token_ids: completion.token_ids.clone(),
        };
    all.map(candidate).collect()
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
pub(crate) fn judged_at(
    context: &StageContext,
    offset: Offset,
    n: usize,
) -> Result<Verdicts, StageError> {
    let event = context.event(offset)?;
    Verdicts::of(&event, n).ok_or_else(|| wrong(offset, "judgments", &event))
}

/// What a completion came to in records that do not say it.
fn mean_of(judgments: &[Judgment], candidate: u32) -> Option<f64> {
    let ours = judgments.iter().filter(|j| j.candidate == candidate);
    let scores: Vec<f64> = ours.filter_map(|j| j.outcome.score()).collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

impl Stage for PairStore {
    type Task = PairTask;
    const NAME: &'static str = "pair_store";
    const DUTY: Duty = Duty::KeepsBooks;

    fn next(&self, view: &RunView) -> Option<(TaskKey, PairTask)> {
        let (iteration, open) = view.open()?;
        // What a rubric on trial says counts once it has passed.
        let trial = view.rubrics.on_trial(&open.panel) && !open.all_judged();
        if trial || view.failing().is_some() {
            return None;
        }
        let undecided = |p: &PromptId| !open.pairs.contains_key(p) && !open.skipped.contains_key(p);
        let plan = open.plan.as_ref()?;
        let chunk = open.chunks(plan.batch_prompts).find(|chunk| {
            chunk.iter().all(|p| open.judged.contains_key(p)) && chunk.iter().any(undecided)
        })?;
        // Of a chunk, a rollback may have taken back only some.
        let prompts = chunk
            .iter()
            .filter(|prompt| undecided(prompt))
            .filter_map(|prompt| {
                let (samples, judged) = (open.samples_of(prompt)?, *open.judged.get(prompt)?);
                let voided = open.prompt_voided(prompt);
                Some(Judged { prompt: prompt.clone(), samples, judged, voided })
            })
            .collect();
        let rule = plan.pairing.rule.clone();
        let parts = (iteration, chunk, &rule, open.rubrics_rolled_back);
        let key = task_key(Self::NAME, view, &parts).after(open.chunk_voided(chunk));
        Some((key, PairTask { iteration, rule, prompts }))
    }

    fn needs(&self, _: &PairTask, _: &RunView, _: &StageContext) -> Needs {
        Needs::Nothing
    }

    fn run(
        &mut self,
        task: PairTask,
        _: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        task.prompts.iter().map(|judged| task.decide(judged, context)).collect()
    }
}
