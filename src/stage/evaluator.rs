//! Measures a finished checkpoint on held-out prompts: how good its answers are, against the
//! previous policy and the first one, how long they are, and how well it judges.
//!
//! Three referees are kept apart. The *judge* is the policy that entered the iteration under the
//! rubrics that judge it. The *rubrics* of `evaluate.rubrics`, where there are any, judge in its place
//! as far as the gate is concerned (the same policy replies to them, where they ask one): a loop that
//! is measured by what chose its pairs learns to please it. The *oracle*, where a program knows the
//! truth, is for the report alone.
//!
//! Every answer and judgment is recorded before the evaluation that is made of them, so that it can be
//! audited ([`super::verdict`]) and judged again.

use super::held_out::HeldOutPrompt;
use super::judge::item::{Distinct, JudgingItem, SeedRule};
use super::judge::job::{judge_policy, judgments_of};
use super::judge::panel::{installed, judge_under, lead, name_of};
use super::judge::referee::{self, NoReferee};
use super::judge::runner::JudgeSetup;
use super::lost::LastCheckpoint;
use super::sampler::{in_policy_ids, request};
use super::verdict::{answers_as, estimate, head_to_head, share};
use super::{Duty, Needs, Stage, StageContext, StageError, root_seed, task_key};
use crate::domain::evaluation::{
    Evaluation, GateReferee, HeadToHead, HeldOutAnswer, JudgeQuality, Referee,
};
use crate::domain::event::IterationKind;
use crate::domain::plan::JudgeSource;
use crate::domain::{
    Completion, Event, Iteration, IterationPlan, Judgment, Panel, PolicyRef, Prompt, PromptId,
    RubricName, Seed, StopReason, TaskKey,
};
use crate::stats;
use crate::view::{RunView, Shared};
use std::sync::Arc;

/// The evaluator stage.
#[derive(Debug, Default)]
pub struct Evaluator;

/// Measure a checkpoint.
#[derive(Clone, Debug)]
pub struct EvaluationTask {
    iteration: Iteration,
    plan: Shared<IterationPlan>,
    checkpoint: PolicyRef,
    /// Whose replies are read.
    judge: PolicyRef,
    previous: PolicyRef,
    first: Option<PolicyRef>,
    base: PolicyRef,
    panel: Panel,
    /// Who referees in the panel's place; an error when who is meant is not installed.
    referee: Result<Option<Panel>, NoReferee>,
    prompts: Vec<PromptId>,
    last: Option<LastCheckpoint>,
}

/// What was said of the answers to one prompt.
#[derive(Clone)]
struct JudgedAnswers {
    /// One for each answer.
    scores: Vec<Option<f64>>,
    /// Their `candidate` is an index of the answers.
    judgments: Vec<Judgment>,
}

struct Session<'a> {
    task: &'a EvaluationTask,
    prompts: Vec<Prompt>,
    root: Seed,
    context: &'a StageContext,
}

impl Session<'_> {
    /// One answer to each prompt. The seeds belong to the prompt, not to the iteration, so the
    /// same policy gives the same answers whenever it is measured.
    fn draw(
        &self,
        policy: &PolicyRef,
        n: u32,
        label: &str,
    ) -> Result<Vec<Vec<Completion>>, StageError> {
        let plan = &self.task.plan;
        let engine = plan.policy_engine();
        let model = self.context.models.answering(policy, &engine)?;
        let mut all = Vec::with_capacity(self.prompts.len());
        let batch = plan.batch_prompts.max(1) as usize;
        for chunk in self.prompts.chunks(batch) {
            let requests = chunk
                .iter()
                .map(|prompt| {
                    let seed = self.root.derive(label).derive(prompt.id.as_str());
                    let prompt = Arc::new(model.prepare(&prompt.messages, "")?);
                    Ok(request(prompt, seed, n, &plan.evaluation.sampling))
                })
                .collect::<Result<Vec<_>, StageError>>()?;
            let drawn = model.answer(&requests, &self.context.cancel)?;
            for (request, drawn) in requests.iter().zip(drawn) {
                all.push(in_policy_ids(&engine, &request.prompt, drawn, self.context)?.1);
            }
            self.context.gauge.progress("evaluator", all.len() as u64, self.prompts.len() as u64);
        }
        Ok(all)
    }

    /// What `judge` says under a panel of the answers to each prompt, those to the first prompt
    /// first.
    fn judge(
        &self,
        judge: &PolicyRef,
        panel: &Panel,
        answers: &[Vec<&Completion>],
    ) -> Result<Vec<JudgedAnswers>, StageError> {
        let lead = lead(self.context, panel)?;
        let items: Vec<JudgingItem<'_>> = self
            .prompts
            .iter()
            .zip(answers)
            .map(|(prompt, answers)| {
                let seed = self.root.derive("evaluate judge").derive(prompt.id.as_str());
                JudgingItem::of(prompt, distinct_texts(answers).items, SeedRule::ByText(seed))
            })
            .collect();
        let mut all = Vec::with_capacity(answers.len());
        let batch = self.task.plan.batch_prompts.max(1) as usize;
        let plan = &self.task.plan.judge;
        let setup = JudgeSetup { policy: Some(judge), judge: plan, context: self.context };
        for (items, answers) in items.chunks(batch).zip(answers.chunks(batch)) {
            for (result, answers) in judge_under(panel, items, setup)?.iter().zip(answers) {
                let distinct = distinct_texts(answers);
                let by_rubric = result.by_rubric.iter();
                let judgments = by_rubric
                    .flat_map(|(id, one)| judgments_of(id, &distinct.index_of, &one.replies));
                all.push(JudgedAnswers {
                    scores: result.scores_with_ties(&distinct, &lead),
                    judgments: judgments.collect(),
                });
            }
        }
        Ok(all)
    }

    fn oracle(&self, at: usize, completion: &Completion) -> Option<f64> {
        let prompt = self.prompts.get(at)?;
        self.context.oracle.as_ref()?.score(prompt.task_text(), &completion.text)
    }

    fn names(&self, panel: &Panel) -> Result<Vec<RubricName>, StageError> {
        panel
            .members()
            .iter()
            .map(|member| Ok(name_of(&installed(self.context, &member.rubric)?)))
            .collect()
    }

    /// One answer to each prompt by every policy, judged beside each other; `referee` judges them
    /// too where it is not the panel.
    fn held_out(
        &self,
        policies: &[ComparedPolicy],
        referee: Option<&Panel>,
    ) -> Result<Vec<HeldOutPrompt>, StageError> {
        let mut drawn = Vec::new();
        for compared in policies {
            let completions = self.draw(&compared.policy, 1, "evaluate")?;
            let one: Vec<Completion> =
                completions.into_iter().filter_map(|mut c| c.pop()).collect();
            // One too few, and every answer after it would be another prompt's.
            if one.len() != self.prompts.len() {
                let (id, n) = (compared.policy.id(), self.prompts.len());
                let what = format!("an answer of {} to each of {n} held-out prompts", id.short());
                return Err(StageError::Missing(what));
            }
            drawn.push(one);
        }
        let beside: Vec<Vec<&Completion>> = (0..self.prompts.len())
            .map(|at| drawn.iter().filter_map(|completions| completions.get(at)).collect())
            .collect();
        let (panel, judge) = (&self.task.panel, &self.task.judge);
        let judged = self.judge(judge, panel, &beside)?;
        let refereed = match referee {
            None => None,
            Some(referee) if referee == panel => Some(judged.clone()),
            Some(referee) => Some(self.judge(judge, referee, &beside)?),
        };
        let mut rubrics = self.names(panel)?;
        let own = referee.map(|referee| self.names(referee)).transpose()?.unwrap_or_default();
        rubrics.extend(own.into_iter().filter(|name| !panel.has(&name.rubric)));
        let judge = self.task.plan.judge.engine.answers_as(judge);
        let mut all = Vec::with_capacity(self.prompts.len());
        for (at, ((prompt, said), beside)) in
            self.prompts.iter().zip(judged).zip(&beside).enumerate()
        {
            let refereed = refereed.as_ref().and_then(|refereed| refereed.get(at));
            let score = |said: &JudgedAnswers, one: usize| said.scores.get(one).copied().flatten();
            let answer =
                |(one, (compared, completion)): (usize, (&ComparedPolicy, &&Completion))| {
                    HeldOutAnswer {
                        policy: compared.policy.id(),
                        roles: compared.roles.clone(),
                        completion: (*completion).clone(),
                        tokens: completion.token_ids.len() as u32,
                        judged: score(&said, one),
                        refereed: refereed.and_then(|said| score(said, one)),
                        oracle: self.oracle(at, completion),
                    }
                };
            let answers = policies.iter().zip(beside).enumerate().map(answer).collect();
            let mut judgments = said.judgments;
            // A rubric that is both on the panel and a referee said the same twice.
            let own = refereed.iter().flat_map(|said| &said.judgments);
            let own: Vec<Judgment> = own.filter(|j| !judgments.contains(j)).cloned().collect();
            judgments.extend(own);
            let (prompt, judge, rubrics) = (prompt.id.clone(), judge.clone(), rubrics.clone());
            all.push(HeldOutPrompt { prompt, judge, answers, judgments, rubrics });
        }
        Ok(all)
    }

    /// Whom the gate believes.
    fn gate_referee(&self, referee: Option<&Panel>) -> Result<GateReferee, StageError> {
        let panel = &self.task.panel;
        let believed = referee.unwrap_or(panel);
        let plan = &self.task.plan;
        let chose = plan.kind() == IterationKind::Dpo
            && plan.judge.source == JudgeSource::Model
            && believed.members().iter().any(|member| panel.has(&member.rubric));
        Ok(GateReferee {
            referee: if referee.is_some() { Referee::Rubrics } else { Referee::Judge },
            rubrics: self.names(believed)?,
            chose_pairs: chose,
        })
    }

    /// How well the checkpoint judges the base's answers, of which the oracle knows the truth.
    fn judge_quality(&self) -> Result<Option<JudgeQuality>, StageError> {
        if self.context.oracle.is_none() {
            return Ok(None);
        }
        let wanted = self.task.plan.evaluation.judge_prompts as usize;
        let drawn = self.draw(&self.task.base, 4, "judge pool")?;
        let pool: Vec<Vec<&Completion>> =
            drawn.iter().take(wanted).map(|completions| completions.iter().collect()).collect();
        let said = self.judge(&self.task.checkpoint, &self.task.panel, &pool)?;
        let scores: Vec<&[Option<f64>]> = said.iter().map(|said| said.scores.as_slice()).collect();
        let flat = || scores.iter().copied().flatten();
        let unparsed = flat().filter(|s| s.is_none()).count() as u32;
        let mut groups: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        for (at, (completions, scores)) in pool.iter().zip(&scores).enumerate() {
            let mut group = (Vec::new(), Vec::new());
            for (completion, score) in completions.iter().zip(*scores) {
                if let (Some(truth), Some(score)) = (self.oracle(at, completion), score) {
                    group.0.push(truth);
                    group.1.push(*score);
                }
            }
            groups.push(group);
        }
        Ok(Some(quality(&groups, unparsed, flat().count() as u32)))
    }
}

/// The figures of (truth, score) over some prompts; `unparsed` of `answers` answers had no score.
fn quality(groups: &[(Vec<f64>, Vec<f64>)], unparsed: u32, answers: u32) -> JudgeQuality {
    let borrowed: Vec<(&[f64], &[f64])> =
        groups.iter().map(|(truth, score)| (truth.as_slice(), score.as_slice())).collect();
    let figures = stats::judge_agreement(&borrowed);
    JudgeQuality {
        pairwise_accuracy: figures.pairwise_accuracy,
        exact_match: figures.exact_match,
        spearman: figures.spearman,
        kendall: figures.kendall,
        prompts: figures.groups,
        unparsed: f64::from(unparsed) / f64::from(answers.max(1)),
        answers: Some(answers),
    }
}

/// The different texts of answers.
fn distinct_texts<'a>(answers: &[&'a Completion]) -> Distinct<&'a str> {
    Distinct::of(answers.iter().map(|answer| answer.text.as_str()), |a, b| a == b)
}

/// A policy that is compared, and what it is in the comparison; several roles where they are the
/// same.
struct ComparedPolicy {
    policy: PolicyRef,
    roles: Vec<String>,
}

/// The policies that are compared, each once, with what they are in the comparison.
fn policies(task: &EvaluationTask) -> Vec<ComparedPolicy> {
    let mut all: Vec<ComparedPolicy> = Vec::new();
    let (checkpoint, previous) = (Some(&task.checkpoint), Some(&task.previous));
    let known =
        [("checkpoint", checkpoint), ("previous", previous), ("first", task.first.as_ref())];
    for (role, policy) in known {
        let Some(policy) = policy else { continue };
        match all.iter_mut().find(|known| known.policy == *policy) {
            Some(known) => known.roles.push(role.to_owned()),
            None => {
                let (policy, roles) = (policy.clone(), vec![role.to_owned()]);
                all.push(ComparedPolicy { policy, roles });
            }
        }
    }
    all
}

/// Everything that is measured, from what is recorded.
fn evaluation(
    task: &EvaluationTask,
    held_out: &[HeldOutPrompt],
    gate_referee: GateReferee,
    length_growth_max: f64,
) -> Evaluation {
    let mut found = Vec::new();
    let opponents = [("previous", Some(&task.previous)), ("first", task.first.as_ref())];
    for (role, policy) in opponents {
        let Some(policy) = policy else { continue };
        for referee in [Referee::Rubrics, Referee::Judge, Referee::Oracle] {
            let versus = head_to_head(held_out, (role, policy.id()), referee, length_growth_max);
            // That the gate has nothing to go by is a finding too.
            let gates = referee == gate_referee.referee && role == "previous";
            found.extend(Some(versus).filter(|versus: &HeadToHead| gates || versus.win_rate.n > 0));
        }
    }
    let ours = || answers_as(held_out, "checkpoint");
    let scores = |by: Referee| ours().filter_map(|a| a.score(by)).collect::<Vec<f64>>();
    let known = scores(Referee::Oracle);
    let (referee, scores) = match known.is_empty() {
        true => (gate_referee.referee, scores(gate_referee.referee)),
        false => (Referee::Oracle, known),
    };
    let ended = ours().filter(|a| a.completion.stop != StopReason::Length).count() as u32;
    let lengths: Vec<f64> = ours().map(|answer| f64::from(answer.tokens)).collect();
    Evaluation {
        policy: task.checkpoint.id(),
        score: estimate(&scores),
        referee,
        length: estimate(&lengths),
        ended: f64::from(ended) / lengths.len().max(1) as f64,
        ended_share: share(ended, lengths.len() as u32),
        head_to_head: found,
        judge: None,
        gate_referee: Some(gate_referee),
    }
}

/// What was answered and said, and what that comes to.
fn measured(session: &Session<'_>) -> Result<(Vec<HeldOutPrompt>, Evaluation), StageError> {
    let task = session.task;
    let refused = |NoReferee { code, message }: &NoReferee| StageError::Rubric {
        code: *code,
        message: message.clone(),
    };
    let referee = task.referee.as_ref().map_err(refused)?;
    let held_out = session.held_out(&policies(task), referee.as_ref())?;
    let gate_referee = session.gate_referee(referee.as_ref())?;
    let growth = task.plan.evaluation.gate.length_growth_max;
    let evaluation = evaluation(task, &held_out, gate_referee, growth);
    Ok((held_out, evaluation))
}

/// Two policies to compare outside an iteration.
pub(crate) struct PolicyComparison {
    /// How they answer and are judged.
    pub plan: Shared<IterationPlan>,
    /// The one that is asked about.
    pub ours: PolicyRef,
    /// What it is held against.
    pub theirs: PolicyRef,
    /// Whose replies are read.
    pub judge: PolicyRef,
    /// The rubrics that judge.
    pub panel: Panel,
}

/// One answer to each prompt by both policies, and what they come to beside each other: what the
/// evaluator would have recorded.
pub(crate) fn compare_policies(
    comparison: PolicyComparison,
    prompts: Vec<Prompt>,
    root: Seed,
    context: &StageContext,
) -> Result<(Vec<HeldOutPrompt>, Evaluation), StageError> {
    let PolicyComparison { plan, ours, theirs, judge, panel } = comparison;
    let task = EvaluationTask {
        iteration: Iteration(0),
        plan,
        checkpoint: ours,
        judge,
        previous: theirs.clone(),
        first: None,
        base: theirs,
        panel,
        referee: Ok(None),
        prompts: prompts.iter().map(|prompt| prompt.id.clone()).collect(),
        last: None,
    };
    measured(&Session { task: &task, prompts, root, context })
}

fn evaluate(session: &Session<'_>) -> Result<Vec<Event>, StageError> {
    let task = session.task;
    let (held_out, mut evaluation) = measured(session)?;
    evaluation.judge = session.judge_quality()?;
    let iteration = task.iteration;
    let mut events = Vec::with_capacity(held_out.len() + 1);
    for prompt in &held_out {
        events.extend(prompt.recorded(iteration)?);
    }
    events.push(Event::EvaluationFinished { iteration, evaluation });
    Ok(events)
}

impl Stage for Evaluator {
    type Task = EvaluationTask;
    const NAME: &'static str = "evaluator";
    const DUTY: Duty = Duty::Works;

    fn next(&self, view: &RunView) -> Option<(TaskKey, EvaluationTask)> {
        let (iteration, open) = view.open()?;
        if !open.trained() || open.evaluation.is_some() {
            return None;
        }
        let checkpoint = open.checkpoint.as_ref()?.policy.clone();
        let plan = open.plan.clone()?;
        let wanted = plan.evaluation.prompts as usize;
        let prompts: Vec<PromptId> =
            view.held_out().map(|(id, _)| id.clone()).take(wanted).collect();
        let task = EvaluationTask {
            iteration,
            checkpoint,
            judge: judge_policy(open, &plan.judge),
            previous: open.policy.clone(),
            first: view.first.clone(),
            base: view.base.clone()?,
            panel: open.panel.clone(),
            referee: referee::named(&plan.evaluation.rubrics, view),
            prompts,
            last: LastCheckpoint::of(iteration, open),
            plan,
        };
        let policies = (&task.checkpoint, &task.previous, &task.first, &task.base);
        let plan = &task.plan;
        let settings = (&plan.evaluation, &plan.samples, &plan.judge, task.judge.id());
        let asked = (&task.panel, &task.referee, &task.prompts, settings);
        let parts = (iteration, policies, asked, open.losses);
        let key = task_key(Self::NAME, view, &parts).after(open.end_voided());
        Some((key, task))
    }

    fn needs(&self, task: &EvaluationTask, _: &RunView, context: &StageContext) -> Needs {
        let draws = context.models.needs(&task.plan.policy_engine());
        draws.max(context.models.needs(&task.plan.judge.engine))
    }

    fn run(
        &mut self,
        task: EvaluationTask,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        let root = root_seed(view)?;
        let prompts = task
            .prompts
            .iter()
            .map(|id| context.bodies().prompt(view, id))
            .collect::<Result<Vec<_>, StageError>>()?;
        let session = Session { task: &task, prompts, root, context };
        match evaluate(&session) {
            Ok(events) => Ok(events),
            Err(error) => match task.last.as_ref().and_then(|last| last.lost(&error)) {
                Some(lost) => Ok(vec![lost]),
                None => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests;
