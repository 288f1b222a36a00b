//! The policy judges its own answers: the rubric renders the question, the policy replies k times,
//! the rubric reads each reply (paper, 2.3 step 3: three samples, mean).
//!
//! Departures from the paper: where the rubric offers a readout, the score is the expectation over
//! the score tokens' probabilities (G-Eval, arXiv 2303.16634), which needs no parsing and breaks
//! ties; identical completions of a prompt are judged once and share the result. The control arms
//! (`judge.source: random | oracle`) replace the score and nothing else.

use super::pair_store::completions_at;
use super::probe::{self, ProbeTask};
use super::sampler::prompt_seed;
use super::{Desk, Stage, StageError, Weight, task_key};
use crate::config::{Config, JudgeSource, ReadoutMode};
use crate::domain::{
    Completion, Event, Iteration, Judgment, Offset, Outcome, PolicyRef, Prompt, PromptId, RubricId,
    Seed, StopReason, TaskKey,
};
use crate::lm::generate::DrawRequest;
use crate::lm::generate::Sampling;
use crate::lm::policy::LanguageModel;
use crate::rubric::{CallError, Item, Reading, Readout, Rendered, Rubric};
use crate::view::{IterationView, RunView};
use std::sync::Arc;

/// The judge stage.
pub struct Judge {
    config: Arc<Config>,
}

/// What the judge is asked to do.
#[derive(Clone, Debug)]
pub enum JudgeTask {
    /// To score bad answers.
    Probe(ProbeTask),
    /// To score the completions of one planned chunk of prompts.
    Chunk(ChunkTask),
}

/// Judge the completions of one planned chunk of prompts.
#[derive(Clone, Debug)]
pub struct ChunkTask {
    iteration: Iteration,
    policy: PolicyRef,
    rubric: RubricId,
    prompts: Vec<(PromptId, Offset)>,
}

impl JudgeTask {
    /// The prompts that can be left out when it fails again and again.
    pub fn prompts(&self) -> Vec<PromptId> {
        match self {
            JudgeTask::Probe(_) => Vec::new(),
            JudgeTask::Chunk(task) => task.prompts.iter().map(|(id, _)| id.clone()).collect(),
        }
    }
}

impl Judge {
    /// A judge with these settings.
    pub fn new(config: Arc<Config>) -> Judge {
        Judge { config }
    }

    /// The probe comes first, as soon as there are prompts.
    fn probe(
        &self,
        view: &RunView,
        iteration: Iteration,
        open: &IterationView,
    ) -> Option<(TaskKey, ProbeTask)> {
        let due = probes_are_due(&self.config) && open.probed.is_none();
        let sealed = open.prompts.as_ref().filter(|_| due)?;
        let prompts: Vec<PromptId> =
            sealed.iter().take(self.config.judge.probes as usize).cloned().collect();
        let (policy, rubric) = (open.policy.clone(), open.rubric.clone());
        let parts = ("probe", iteration, policy.id(), &rubric, &prompts, &self.config.judge);
        let key = task_key(Self::NAME, view, &parts);
        Some((key, ProbeTask { iteration, policy, rubric, prompts }))
    }
}

/// Whether the judge is to be probed before its scores count. The control arms have none to fool.
pub(super) fn probes_are_due(config: &Config) -> bool {
    config.judge.probes > 0 && config.judge.source == JudgeSource::Model
}

/// One completion to be judged.
pub(crate) struct Question<'a> {
    /// What was asked.
    pub task: &'a str,
    /// What was answered.
    pub completion: &'a str,
    /// Where the replies take their randomness from.
    pub seed: Seed,
}

/// One reply, read.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub outcome: Outcome,
    pub text: String,
    pub fuel: u64,
}

struct Asked {
    item: Item,
    rendered: Rendered,
    prompt_ids: Vec<u32>,
}

/// Judges each question `samples` times: the replies, in the order of the questions.
pub(crate) fn judge_all(
    questions: &[Question<'_>],
    samples: u32,
    model: &dyn LanguageModel,
    rubric: &Rubric,
    desk: &Desk,
) -> Result<Vec<Vec<Reply>>, StageError> {
    let mut asked = Vec::with_capacity(questions.len());
    for question in questions {
        asked.push(ask(question, model, rubric)?);
    }
    let requests: Vec<DrawRequest> = asked
        .iter()
        .zip(questions)
        .filter_map(|(a, q)| a.as_ref().ok().map(|a| request(a, q.seed, samples, model, desk)))
        .collect();
    let mut drawn = model.draw(&requests, &desk.cancel)?.into_iter();
    let mut replies = Vec::with_capacity(questions.len());
    let mut readouts = Vec::new();
    for (at, asked) in asked.iter().enumerate() {
        replies.push(match asked {
            Err(reply) => vec![reply.clone(); samples as usize],
            Ok(asked) => {
                let texts = drawn.next().unwrap_or_default();
                read_all(asked, &texts, model, rubric, at, desk, &mut readouts)?
            }
        });
    }
    apply_readouts(&mut replies, &readouts, model, desk)?;
    Ok(replies)
}

fn ask(
    question: &Question<'_>,
    model: &dyn LanguageModel,
    rubric: &Rubric,
) -> Result<Result<Asked, Reply>, StageError> {
    let item = Item {
        task: question.task.to_owned(),
        candidates: vec![question.completion.to_owned()],
        ..Item::default()
    };
    let failed = |outcome| Reply { outcome, text: String::new(), fuel: 0 };
    Ok(match rubric.render(&item) {
        Ok(rendered) => {
            let prompt_ids = model.encode_chat(&rendered.messages)?;
            Ok(Asked { item, rendered, prompt_ids })
        }
        Err(CallError::Refused(reason)) => Err(failed(Outcome::Refused { reason })),
        Err(CallError::Trapped { reason }) => Err(failed(Outcome::Trapped { reason })),
        Err(CallError::Host { reason }) => return Err(StageError::Sandbox(reason)),
    })
}

fn request(
    asked: &Asked,
    seed: Seed,
    samples: u32,
    model: &dyn LanguageModel,
    desk: &Desk,
) -> DrawRequest {
    let settings = &desk.config.judge;
    DrawRequest {
        prompt: asked.prompt_ids.clone(),
        seeds: (0..u64::from(samples)).map(|i| seed.index(i)).collect(),
        sampling: Sampling {
            temperature: settings.temperature as f32,
            top_p: settings.top_p as f32,
            max_new_tokens: asked.rendered.max_tokens.min(settings.max_new_tokens) as usize,
            top_k: None,
            min_p: None,
            stop_ids: model.stop_ids().to_vec(),
        },
    }
}

/// A score to be read from probabilities: which reply, the context, the choices.
struct PendingReadout {
    question: usize,
    sample: usize,
    context: Vec<u32>,
    readout: Readout,
}

fn read_all(
    asked: &Asked,
    texts: &[Completion],
    model: &dyn LanguageModel,
    rubric: &Rubric,
    question: usize,
    desk: &Desk,
    readouts: &mut Vec<PendingReadout>,
) -> Result<Vec<Reply>, StageError> {
    let mut replies = Vec::with_capacity(texts.len());
    for (sample, text) in texts.iter().enumerate() {
        let (outcome, fuel, readable) = match rubric.parse(&asked.item, &text.text) {
            Ok(Reading::Verdict { scores, fuel, .. }) => {
                let score = scores.first().copied().unwrap_or_default();
                (Outcome::Scored { score, parsed: Some(score) }, fuel, true)
            }
            Ok(Reading::Missing { fuel }) => {
                (Outcome::Unparsed { reason: "no score found".into() }, fuel, true)
            }
            Ok(Reading::Unparsed { reason, fuel }) => (Outcome::Unparsed { reason }, fuel, false),
            Err(CallError::Refused(reason)) => (Outcome::Refused { reason }, 0, false),
            Err(CallError::Trapped { reason }) => (Outcome::Trapped { reason }, 0, false),
            Err(CallError::Host { reason }) => return Err(StageError::Sandbox(reason)),
        };
        if let (ReadoutMode::Expected, Some(readout), true) =
            (desk.config.judge.readout, &asked.rendered.readout, readable)
        {
            let context = readout_context(asked, text, &readout.lead, model)?;
            readouts.push(PendingReadout { question, sample, context, readout: readout.clone() });
        }
        let fuel = fuel + asked.rendered.fuel;
        replies.push(Reply { outcome, text: text.text.clone(), fuel });
    }
    Ok(replies)
}

/// The judge's prompt and its reply up to and including the last `lead`; a reply without one gets
/// it appended, after its turn-end token is taken off.
fn readout_context(
    asked: &Asked,
    reply: &Completion,
    lead: &str,
    model: &dyn LanguageModel,
) -> Result<Vec<u32>, StageError> {
    let lead = lead.trim_end();
    let mut ids = reply.token_ids.clone();
    if reply.stop == StopReason::TurnEnd {
        ids.pop();
    }
    let mut context = asked.prompt_ids.clone();
    for end in (1..=ids.len()).rev() {
        let head = ids.get(..end).unwrap_or_default();
        if model.decode(head)?.trim_end().ends_with(lead) {
            context.extend_from_slice(head);
            return Ok(context);
        }
    }
    context.extend_from_slice(&ids);
    context.extend(model.encode_text(&format!("\n{lead}"))?);
    Ok(context)
}

fn apply_readouts(
    replies: &mut [Vec<Reply>],
    pending: &[PendingReadout],
    model: &dyn LanguageModel,
    desk: &Desk,
) -> Result<(), StageError> {
    let Some(first) = pending.first() else { return Ok(()) };
    let choices = first
        .readout
        .choices
        .iter()
        .map(|(text, _)| model.encode_text(text))
        .collect::<Result<Vec<_>, _>>()?;
    let contexts: Vec<Vec<u32>> = pending.iter().map(|p| p.context.clone()).collect();
    let logps = model.choice_logps(&contexts, &choices, &desk.cancel)?;
    for (p, logps) in pending.iter().zip(logps) {
        let score = expectation(&logps, &p.readout);
        let reply = replies.get_mut(p.question).and_then(|r| r.get_mut(p.sample));
        if let (Some(reply), Some(score)) = (reply, score) {
            let parsed = reply.outcome.score();
            reply.outcome = Outcome::Scored { score, parsed };
        }
    }
    Ok(())
}

/// The expected score of the first candidate, probabilities normalised over the choices.
fn expectation(logps: &[f64], readout: &Readout) -> Option<f64> {
    let most = logps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logps.iter().map(|l| (l - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let sum: f64 = weights
        .iter()
        .zip(&readout.choices)
        .map(|(w, (_, scores))| w * scores.first().copied().unwrap_or_default())
        .sum();
    (total.is_finite() && total > 0.0).then(|| sum / total)
}

/// The distinct completions, and for each candidate which of them it is.
fn distinct(completions: &[Completion]) -> (Vec<&Completion>, Vec<usize>) {
    let mut unique: Vec<&Completion> = Vec::new();
    let mut which = Vec::with_capacity(completions.len());
    for completion in completions {
        match unique.iter().position(|u| u.token_ids == completion.token_ids) {
            Some(at) => which.push(at),
            None => {
                which.push(unique.len());
                unique.push(completion);
            }
        }
    }
    (unique, which)
}

struct Sheet {
    prompt: Prompt,
    completions: Vec<Completion>,
    seed: Seed,
}

fn control_reply(sheet: &Sheet, text: &str, at: usize, desk: &Desk) -> Reply {
    let outcome = match desk.config.judge.source {
        JudgeSource::Oracle => {
            let oracle = desk.oracle.as_ref();
            match oracle.and_then(|o| o.score(sheet.prompt.task_text(), text)) {
                Some(score) => Outcome::Scored { score, parsed: None },
                None => Outcome::Refused { reason: "the oracle does not know this task".into() },
            }
        }
        _ => {
            let seed = sheet.seed.derive("random arm").index(at as u64);
            let [a, b, ..] = seed.0;
            let score = 5.0 * f64::from(u16::from_le_bytes([a, b])) / f64::from(u16::MAX);
            Outcome::Scored { score, parsed: None }
        }
    };
    Reply { outcome, text: String::new(), fuel: 0 }
}

fn judge_sheets(
    sheets: &[Sheet],
    task: &ChunkTask,
    desk: &Desk,
) -> Result<Vec<Vec<Vec<Reply>>>, StageError> {
    let uniques: Vec<(Vec<&Completion>, Vec<usize>)> =
        sheets.iter().map(|s| distinct(&s.completions)).collect();
    if desk.config.judge.source != JudgeSource::Model {
        let per_sheet = sheets.iter().zip(&uniques).map(|(sheet, (unique, _))| {
            let replies = unique.iter().enumerate();
            replies.map(|(at, c)| vec![control_reply(sheet, &c.text, at, desk)]).collect()
        });
        return Ok(per_sheet.collect());
    }
    let model = desk.workshop.policy(&task.policy)?;
    let rubric = desk.rubrics.get(&task.rubric).ok_or_else(|| missing_rubric(&task.rubric))?;
    let mut questions = Vec::new();
    for (sheet, (unique, _)) in sheets.iter().zip(&uniques) {
        for (at, completion) in unique.iter().enumerate() {
            questions.push(Question {
                task: sheet.prompt.task_text(),
                completion: &completion.text,
                seed: sheet.seed.index(at as u64),
            });
        }
    }
    let samples = desk.config.judge.samples;
    let mut replies = judge_all(&questions, samples, model.as_ref(), &rubric, desk)?.into_iter();
    Ok(uniques.iter().map(|(unique, _)| replies.by_ref().take(unique.len()).collect()).collect())
}

pub(crate) fn missing_rubric(id: &RubricId) -> StageError {
    StageError::Rubric(format!("rubric {} is active but not installed", id.short()))
}

impl Stage for Judge {
    type Task = JudgeTask;
    const NAME: &'static str = "judge";
    const WEIGHT: Weight = Weight::Heavy;

    fn next(&self, view: &RunView) -> Option<(TaskKey, JudgeTask)> {
        let (iteration, open) = view.open()?;
        if let Some((key, task)) = self.probe(view, iteration, open) {
            return Some((key, JudgeTask::Probe(task)));
        }
        let chunk = open.chunks(self.config.sampling.batch_prompts).find(|chunk| {
            chunk.iter().all(|p| open.sampled.contains_key(p))
                && chunk.iter().any(|p| !open.judged.contains_key(p) && !open.is_quarantined(p))
        })?;
        let policy = open.policy.clone();
        let rubric = open.rubric.clone();
        let parts =
            (iteration, policy.id(), &rubric, chunk, &self.config.sampling, &self.config.judge);
        let key = task_key(Self::NAME, view, &parts);
        let prompts =
            chunk.iter().filter_map(|p| Some((p.clone(), *open.sampled.get(p)?))).collect();
        Some((key, JudgeTask::Chunk(ChunkTask { iteration, policy, rubric, prompts })))
    }

    fn run(
        &mut self,
        task: JudgeTask,
        view: &RunView,
        desk: &Desk,
    ) -> Result<Vec<Event>, StageError> {
        match task {
            JudgeTask::Probe(task) => probe::run(&task, view, desk),
            JudgeTask::Chunk(task) => judge_chunk(&task, view, desk),
        }
    }
}

fn judge_chunk(task: &ChunkTask, view: &RunView, desk: &Desk) -> Result<Vec<Event>, StageError> {
    let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
    let sheets = task
        .prompts
        .iter()
        .map(|(id, offset)| {
            Ok(Sheet {
                prompt: desk.prompt(view, id)?,
                completions: completions_at(desk, *offset)?,
                seed: prompt_seed(root, "judge", task.iteration, id),
            })
        })
        .collect::<Result<Vec<_>, StageError>>()?;
    let replies = judge_sheets(&sheets, task, desk)?;
    let mut events = Vec::with_capacity(sheets.len());
    for (sheet, replies) in sheets.iter().zip(&replies) {
        events.push(Event::JudgmentsRecorded {
            iteration: task.iteration,
            prompt: sheet.prompt.id.clone(),
            judge: task.policy.id(),
            judgments: judgments(&task.rubric, sheet, replies),
        });
    }
    if let Some((_, open)) = view.open() {
        let total = open.prompts.as_ref().map_or(0, Vec::len) as u64;
        desk.gauge.progress(Judge::NAME, (open.judged.len() + sheets.len()) as u64, total);
    }
    Ok(events)
}

fn judgments(rubric: &RubricId, sheet: &Sheet, replies: &[Vec<Reply>]) -> Vec<Judgment> {
    let (_, which) = distinct(&sheet.completions);
    let mut all = Vec::new();
    for (candidate, unique) in which.iter().enumerate() {
        let replies = replies.get(*unique).map(Vec::as_slice).unwrap_or_default();
        for (sample, reply) in replies.iter().enumerate() {
            all.push(Judgment {
                rubric: rubric.clone(),
                candidate: candidate as u32,
                sample: sample as u32,
                outcome: reply.outcome.clone(),
                text: reply.text.clone(),
                fuel: reply.fuel,
            });
        }
    }
    all
}
