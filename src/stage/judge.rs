//! The policy judges its own answers: the panel's rubrics render the questions, the policy replies
//! k times, the rubrics read each reply (paper, 2.3 step 3: three samples, mean); [`super::ask`] and
//! [`super::members`] do it.
//!
//! Departures from the paper: where the judge wrote a score and the rubric says where, the score is
//! the expectation over what it could have written there (G-Eval, arXiv 2303.16634; `preset paper`
//! takes what was written); identical completions of a prompt are judged once and share the result.
//! The control arms (`judge.source: random | oracle`) replace the score and nothing else.

use super::ask::{Asking, Marked, Remembered, Reply, Seeds, Sheet};
use super::panel::{Judged, installed, judge_under, name_of};
use super::probe::{self, ProbeTask};
use super::sampler::prompt_seed;
use super::shadow::{self, ShadowTask};
use super::tally::Tallied;
use super::texts::{SamplePlaces, answers_at};
use super::{Duty, Needs, Stage, StageContext, StageError, task_key};
use crate::domain::plan::{JudgePlan, JudgeSource};
use crate::domain::{
    Completion, Event, Iteration, IterationPlan, Judgment, Offset, Outcome, Panel, PolicyId,
    PolicyRef, Prompt, PromptId, Remarks, RubricId, Seed, TaskKey, TextRef,
};
use crate::view::{IterationView, RunView};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

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

/// Judge the completions of one planned chunk of prompts.
#[derive(Clone, Debug)]
pub struct ChunkTask {
    iteration: Iteration,
    policy: PolicyRef,
    judge: JudgePlan,
    panel: Panel,
    prompts: Vec<(PromptId, SamplePlaces)>,
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

/// The next chunk whose answers are all there and not all judged.
fn unjudged<'v>(open: &'v IterationView, plan: &IterationPlan) -> Option<&'v [PromptId]> {
    open.chunks(plan.batch_prompts).find(|chunk| {
        let waits = |p: &PromptId| !open.judged.contains_key(p) && !open.is_quarantined(p);
        chunk.iter().any(waits) && chunk.iter().all(|p| open.samples_of(p).is_some())
    })
}

/// Whose replies are read.
pub(super) fn judging(open: &IterationView, judge: &JudgePlan) -> PolicyRef {
    judge.policy.as_ref().unwrap_or(&open.policy).clone()
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

/// A prompt and what is judged of it.
pub(crate) struct Job {
    pub prompt: Prompt,
    pub completions: Vec<Completion>,
    /// How a pair refers to each of them.
    pub texts: Vec<TextRef>,
    pub seed: Seed,
    /// Judgments whose replies may be read again.
    pub past: Vec<Judgment>,
}

impl Job {
    /// What an iteration's judge has to do about a prompt with these answers.
    pub fn of(
        iteration: Iteration,
        prompt: &PromptId,
        samples: &[(String, Offset)],
        view: &RunView,
        context: &StageContext,
    ) -> Result<Job, StageError> {
        let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
        let answers = answers_at(context, samples)?;
        Ok(Job {
            prompt: context.prompt(view, prompt)?,
            completions: answers.completions,
            texts: answers.texts,
            seed: prompt_seed(root, "judge", iteration, prompt),
            past: Vec::new(),
        })
    }

    /// The past as replies about the different answers; `which` of them each completion is.
    fn remembered(&self, which: &[usize], context: &StageContext) -> Vec<Remembered> {
        let mut all: Vec<Remembered> = Vec::new();
        for judgment in self.past.iter().filter(|j| j.has_reply()) {
            let Some(rubric) = context.rubrics.get(&judgment.rubric) else { continue };
            let alone = [judgment.candidate];
            let seen = if judgment.seen.is_empty() { &alone[..] } else { &judgment.seen };
            let seen = seen.iter().filter_map(|at| which.get(*at as usize).copied()).collect();
            let (sample, text) = (judgment.sample, judgment.text.clone());
            // Identical completions share their judgments.
            let same = |past: &Remembered| {
                past.rubric.id() == rubric.id() && past.seen == seen && past.sample == sample
            };
            if !all.iter().any(same) {
                let (scores, readout) = (judgment.each(), judgment.readout);
                all.push(Remembered { rubric, seen, sample, text, scores, readout });
            }
        }
        all
    }
}

/// What the oracle control arm says of a prompt's different answers, in the place of the panel's
/// first rubric.
fn oracle_arm(job: &Job, answers: &[&Completion], panel: &Panel, context: &StageContext) -> Judged {
    let known = |text: &str| context.oracle.as_ref()?.score(job.prompt.task_text(), text);
    let scores: Vec<Option<f64>> = answers.iter().map(|c| known(&c.text)).collect();
    let replies = scores.iter().enumerate().map(|(at, score)| Reply {
        seen: vec![at],
        sample: 0,
        scores: score.iter().copied().collect(),
        outcome: match *score {
            Some(score) => Outcome::Scored { score, parsed: None },
            None => Outcome::Refused { reason: "the oracle does not know this task".into() },
        },
        readout: None,
        remarks: Remarks::default(),
        text: String::new(),
        fuel: 0,
        recalled: false,
    });
    let tallied: Vec<Option<Tallied>> =
        scores.iter().map(|s| s.map(|score| Tallied { score, error: None })).collect();
    let marked = Marked { replies: replies.collect(), tallied: tallied.clone(), left_out: 0 };
    let lead = panel.members().first().map(|member| member.rubric.clone());
    Judged { under: lead.into_iter().map(|rubric| (rubric, marked.clone())).collect(), tallied }
}

/// The random control arm: everything the judge said, each answer's given to another one of the same
/// prompt. So the arm has the very scores, ties, gaps and noise of the loop, and differs in nothing
/// but whose they are.
fn permuted(job: &Job, judged: Judged) -> Judged {
    let mut rng = ChaCha8Rng::from_seed(job.seed.derive("random arm").0);
    let mut to: Vec<usize> = (0..judged.tallied.len()).collect();
    for at in (1..to.len()).rev() {
        to.swap(at, (rng.next_u64() % (at as u64 + 1)) as usize);
    }
    let moved = |tallied: &[Option<Tallied>]| {
        let mut moved = vec![None; tallied.len()];
        for (one, to) in tallied.iter().zip(&to) {
            if let Some(place) = moved.get_mut(*to) {
                *place = *one;
            }
        }
        moved
    };
    let whose = |seen: &[usize]| seen.iter().filter_map(|at| to.get(*at).copied()).collect();
    let under = judged.under.into_iter().map(|(rubric, marked)| {
        let reply = |reply: Reply| Reply { seen: whose(&reply.seen), ..reply };
        let tallied = moved(&marked.tallied);
        let replies = marked.replies.into_iter().map(reply).collect();
        (rubric, Marked { replies, tallied, left_out: marked.left_out })
    });
    Judged { under: under.collect(), tallied: moved(&judged.tallied) }
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
    const NAME: &'static str = "judge";
    const DUTY: Duty = Duty::Works;

    fn next(&self, view: &RunView) -> Option<(TaskKey, JudgeTask)> {
        let (iteration, open) = view.open()?;
        let plan = open.plan.as_ref()?;
        if view.failing().is_some() || open.sealed.is_some() {
            return None;
        }
        // The probes come first.
        if let Some((key, task)) = probe::next(view, iteration, open, plan) {
            return Some((key, JudgeTask::Probe(task)));
        }
        let Some(chunk) = unjudged(open, plan) else {
            // Last: what counts does not wait for what does not.
            let task = shadow::next(plan, view, iteration, open);
            return task.map(|(key, task)| (key, JudgeTask::Shadow(task)));
        };
        let judge = plan.judge.clone();
        let (policy, panel) = (judging(open, &judge), open.panel.clone());
        let asked = (&judge, &plan.samples);
        let parts = (iteration, policy.id(), &panel, chunk, asked, open.rubrics_rolled_back);
        let key = task_key(Self::NAME, view, &parts).after(open.chunk_voided(chunk));
        // Of a chunk, a rollback may have taken back only some.
        let waits = chunk.iter().filter(|p| !open.judged.contains_key(*p));
        let prompts = waits.filter_map(|p| Some((p.clone(), open.samples_of(p)?))).collect();
        Some((key, JudgeTask::Chunk(ChunkTask { iteration, policy, judge, panel, prompts })))
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
            JudgeTask::Chunk(task) => judge_chunk(&task, view, context),
            JudgeTask::Shadow(task) => shadow::run(&task, view, context),
        }
    }
}

/// Judges each job's different answers under a panel; the results are in the jobs' order.
pub(crate) fn judge_jobs(
    jobs: &[&Job],
    panel: &Panel,
    asking: Asking<'_>,
) -> Result<Vec<Judged>, StageError> {
    let sheets: Vec<Sheet<'_>> = jobs
        .iter()
        .map(|job| {
            let (unique, which) = distinct(&job.completions);
            let answers = unique.iter().map(|c| c.text.as_str()).collect();
            let past = job.remembered(&which, asking.context);
            Sheet { past, ..Sheet::of(&job.prompt, answers, Seeds::Placed(job.seed)) }
        })
        .collect();
    judge_under(panel, &sheets, asking)
}

fn judge_chunk(
    task: &ChunkTask,
    view: &RunView,
    context: &StageContext,
) -> Result<Vec<Event>, StageError> {
    let jobs = task
        .prompts
        .iter()
        .map(|(id, samples)| Job::of(task.iteration, id, samples, view, context))
        .collect::<Result<Vec<_>, StageError>>()?;
    let by_model = || {
        let all: Vec<&Job> = jobs.iter().collect();
        judge_jobs(
            &all,
            &task.panel,
            Asking { policy: Some(&task.policy), judge: &task.judge, context },
        )
    };
    let judged = match task.judge.source {
        JudgeSource::Model => by_model()?,
        JudgeSource::Random => {
            jobs.iter().zip(by_model()?).map(|(job, judged)| permuted(job, judged)).collect()
        }
        JudgeSource::Oracle => {
            let arm = |job| oracle_arm(job, &distinct(&job.completions).0, &task.panel, context);
            jobs.iter().map(arm).collect()
        }
    };
    let mut events = Vec::with_capacity(jobs.len());
    let who = task.judge.engine.answers_as(&task.policy);
    for (job, judged) in jobs.iter().zip(&judged) {
        events.push(recorded(job, judged, task.iteration, who.clone(), context)?);
    }
    if let Some((_, open)) = view.open() {
        let total = open.prompts.as_ref().map_or(0, |prompts| prompts.len()) as u64;
        context.gauge.progress(Judge::NAME, (open.judged.len() + jobs.len()) as u64, total);
    }
    Ok(events)
}

/// A prompt's judgments as an event.
pub(crate) fn recorded(
    job: &Job,
    judged: &Judged,
    iteration: Iteration,
    judge: PolicyId,
    context: &StageContext,
) -> Result<Event, StageError> {
    let (_, which) = distinct(&job.completions);
    let tallied: Vec<Option<Tallied>> = which.iter().map(|unique| judged.of(*unique)).collect();
    let (mut judgments, mut rubrics, mut not_compared) = (Vec::new(), Vec::new(), 0);
    for (rubric, marked) in &judged.under {
        not_compared += marked.left_out;
        rubrics.push(name_of(&installed(context, rubric)?));
        judgments.extend(written(rubric, &which, &marked.replies));
    }
    Ok(Event::JudgmentsRecorded {
        iteration,
        prompt: job.prompt.id.clone(),
        judge,
        judgments,
        scores: tallied.iter().map(|t| t.map(|t| t.score)).collect(),
        errors: tallied.iter().map(|t| t.and_then(|t| t.error)).collect(),
        lengths: job.completions.iter().map(|c| c.token_ids.len() as u32).collect(),
        not_compared,
        rubrics,
    })
}

/// Replies as judgments: what one answer got alone is every identical completion's, and what
/// several got together is one judgment of the first completion of each.
pub(super) fn written(rubric: &RubricId, which: &[usize], replies: &[Reply]) -> Vec<Judgment> {
    let judgment = |reply: &Reply, candidate: usize| Judgment {
        rubric: rubric.clone(),
        candidate: candidate as u32,
        sample: reply.sample,
        outcome: reply.outcome.clone(),
        text: reply.text.clone(),
        fuel: reply.fuel,
        seen: Vec::new(),
        scores: Vec::new(),
        readout: reply.readout,
        remarks: reply.remarks.clone(),
    };
    let mut all = Vec::new();
    for (candidate, unique) in which.iter().enumerate() {
        let alone = replies.iter().filter(|reply| reply.seen == [*unique]);
        all.extend(alone.map(|reply| judgment(reply, candidate)));
    }
    for reply in replies.iter().filter(|reply| reply.seen.len() > 1) {
        let first = |unique: &usize| which.iter().position(|w| w == unique).unwrap_or_default();
        let seen: Vec<usize> = reply.seen.iter().map(first).collect();
        let candidate = seen.first().copied().unwrap_or_default();
        all.push(Judgment {
            seen: seen.iter().map(|at| *at as u32).collect(),
            scores: reply.scores.clone(),
            ..judgment(reply, candidate)
        });
    }
    all
}
