//! Measures a finished checkpoint on held-out prompts: how good its answers are, against the
//! previous policy and the first one, how long they are, and how well it judges.
//!
//! Two referees are kept apart. The *judge* is the policy that entered the iteration under the
//! iteration's rubric; only its verdict reaches the gate. The *oracle*, where a program knows the
//! truth, is for the report alone.

use super::ask::{Seeds, Sheet};
use super::lost::Held;
use super::sampler::request;
use super::seats::{installed, judge_under};
use super::{Desk, Stage, StageError, Weight, task_key};
use crate::config::{Config, SamplingConfig};
use crate::domain::evaluation::{Estimate, Evaluation, HeadToHead, JudgeQuality, Referee};
use crate::domain::{
    Completion, Event, Iteration, Panel, PolicyRef, Prompt, PromptId, Seed, StopReason, TaskKey,
};
use crate::stats;
use crate::view::RunView;
use std::sync::Arc;

/// The evaluator stage.
pub struct Evaluator {
    config: Arc<Config>,
}

/// Measure a checkpoint.
#[derive(Clone, Debug)]
pub struct EvaluationTask {
    iteration: Iteration,
    checkpoint: PolicyRef,
    previous: PolicyRef,
    first: Option<PolicyRef>,
    base: PolicyRef,
    panel: Panel,
    prompts: Vec<PromptId>,
    held: Option<Held>,
}

impl Evaluator {
    /// An evaluator with these settings.
    pub fn new(config: Arc<Config>) -> Evaluator {
        Evaluator { config }
    }
}

/// One policy's held-out answers, scored.
struct Answers {
    completions: Vec<Completion>,
    judged: Vec<Option<f64>>,
    oracle: Vec<Option<f64>>,
}

impl Answers {
    fn lengths(&self) -> Vec<f64> {
        self.completions.iter().map(|c| c.token_ids.len() as f64).collect()
    }
}

struct Session<'a> {
    task: &'a EvaluationTask,
    prompts: Vec<Prompt>,
    root: Seed,
    desk: &'a Desk,
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
        let model = self.desk.workshop.policy(policy)?;
        let evaluate = &self.desk.config.evaluate;
        let settings = SamplingConfig {
            temperature: evaluate.temperature,
            top_p: evaluate.top_p,
            ..self.desk.config.sampling.clone()
        };
        let mut all = Vec::with_capacity(self.prompts.len());
        let batch = self.desk.config.sampling.batch_prompts.max(1) as usize;
        for chunk in self.prompts.chunks(batch) {
            let requests = chunk
                .iter()
                .map(|prompt| {
                    let seed = self.root.derive(label).derive(prompt.id.as_str());
                    let ids = model.encode_chat(&prompt.messages)?;
                    Ok(request(model.as_ref(), ids, seed, n, &settings))
                })
                .collect::<Result<Vec<_>, StageError>>()?;
            all.extend(model.draw(&requests, &self.desk.cancel)?);
            self.desk.gauge.progress("evaluator", all.len() as u64, self.prompts.len() as u64);
        }
        Ok(all)
    }

    /// What `judge` says under the iteration's panel of the answers to each prompt, those to the
    /// first prompt first.
    fn judge(
        &self,
        judge: &PolicyRef,
        answers: &[Vec<&Completion>],
    ) -> Result<Vec<Vec<Option<f64>>>, StageError> {
        let sheets: Vec<Sheet<'_>> = self
            .prompts
            .iter()
            .zip(answers)
            .map(|(prompt, answers)| {
                let seed = self.root.derive("evaluate judge").derive(prompt.id.as_str());
                Sheet::of(prompt, different(answers), Seeds::Worded(seed))
            })
            .collect();
        let mut scores = Vec::with_capacity(answers.len());
        let batch = self.desk.config.sampling.batch_prompts.max(1) as usize;
        for (sheets, answers) in sheets.chunks(batch).zip(answers.chunks(batch)) {
            let judged = judge_under(&self.task.panel, sheets, Some(judge), self.desk)?;
            for ((sheet, judged), answers) in sheets.iter().zip(judged).zip(answers) {
                let nothing_to_compare = self.nothing_to_compare(sheet)?;
                scores.push(
                    answers
                        .iter()
                        .map(|completion| {
                            let at =
                                sheet.answers.iter().position(|text| *text == completion.text)?;
                            judged.scores.get(at).copied().flatten().or(nothing_to_compare)
                        })
                        .collect(),
                );
            }
        }
        Ok(scores)
    }

    /// The middle of the scale for answers that are all the same under a rubric that compares.
    fn nothing_to_compare(&self, sheet: &Sheet<'_>) -> Result<Option<f64>, StageError> {
        let [_] = sheet.answers.as_slice() else { return Ok(None) };
        let Some(lead) = self.task.panel.seats().first() else { return Ok(None) };
        let rubric = installed(self.desk, &lead.rubric)?;
        let info = rubric.info();
        Ok((info.min_candidates > 1).then_some((info.scale_min + info.scale_max) / 2.0))
    }

    fn oracle(&self, at: usize, completion: &Completion) -> Option<f64> {
        let prompt = self.prompts.get(at)?;
        self.desk.oracle.as_ref()?.score(prompt.task_text(), &completion.text)
    }

    /// One answer to each prompt by every policy, judged beside each other.
    fn answers(&self, policies: &[PolicyRef]) -> Result<Vec<Answers>, StageError> {
        let mut drawn = Vec::new();
        for policy in policies {
            let completions = self.draw(policy, 1, "evaluate")?;
            drawn.push(completions.into_iter().filter_map(|mut c| c.pop()).collect::<Vec<_>>());
        }
        let beside: Vec<Vec<&Completion>> = (0..self.prompts.len())
            .map(|at| drawn.iter().filter_map(|completions| completions.get(at)).collect())
            .collect();
        let judged = self.judge(&self.task.previous, &beside)?;
        let answers = drawn.iter().enumerate().map(|(policy, completions)| Answers {
            completions: completions.clone(),
            judged: judged.iter().map(|beside| beside.get(policy).copied().flatten()).collect(),
            oracle: completions.iter().enumerate().map(|(at, c)| self.oracle(at, c)).collect(),
        });
        Ok(answers.collect())
    }

    /// How well the checkpoint judges the base's answers, of which the oracle knows the truth.
    fn judge_quality(&self) -> Result<Option<JudgeQuality>, StageError> {
        if self.desk.oracle.is_none() {
            return Ok(None);
        }
        let wanted = self.desk.config.evaluate.judge_prompts as usize;
        let drawn = self.draw(&self.task.base, 4, "judge pool")?;
        let pool: Vec<Vec<&Completion>> =
            drawn.iter().take(wanted).map(|completions| completions.iter().collect()).collect();
        let scores = self.judge(&self.task.checkpoint, &pool)?;
        let flat = || scores.iter().flatten();
        let unparsed = flat().filter(|s| s.is_none()).count() as f64;
        let mut groups: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        for (at, (completions, scores)) in pool.iter().zip(&scores).enumerate() {
            let mut group = (Vec::new(), Vec::new());
            for (completion, score) in completions.iter().zip(scores) {
                if let (Some(truth), Some(score)) = (self.oracle(at, completion), score) {
                    group.0.push(truth);
                    group.1.push(*score);
                }
            }
            groups.push(group);
        }
        Ok(Some(quality(&groups, unparsed / flat().count().max(1) as f64)))
    }
}

fn quality(groups: &[(Vec<f64>, Vec<f64>)], unparsed: f64) -> JudgeQuality {
    let borrowed: Vec<(&[f64], &[f64])> =
        groups.iter().map(|(truth, score)| (truth.as_slice(), score.as_slice())).collect();
    let figures = stats::judge_agreement(&borrowed);
    JudgeQuality {
        pairwise_accuracy: figures.pairwise_accuracy,
        exact_match: figures.exact_match,
        spearman: figures.spearman,
        kendall: figures.kendall,
        prompts: figures.groups,
        unparsed,
    }
}

/// The texts of answers, each once.
fn different<'a>(answers: &[&'a Completion]) -> Vec<&'a str> {
    let mut texts: Vec<&str> = Vec::new();
    for answer in answers {
        if !texts.contains(&answer.text.as_str()) {
            texts.push(&answer.text);
        }
    }
    texts
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn estimate(values: &[f64]) -> Estimate {
    let interval = stats::mean_interval(values);
    Estimate { mean: interval.mean, low: interval.low, high: interval.high, n: values.len() as u32 }
}

/// The other side of a head-to-head.
struct Opponent<'a> {
    name: &'a str,
    policy: &'a PolicyRef,
    length: f64,
}

/// Head-to-head over the prompts both were scored on. Scores within 1e-9 are a tie.
fn versus(
    opponent: &Opponent<'_>,
    referee: Referee,
    ours: &[Option<f64>],
    theirs: &[Option<f64>],
) -> Option<HeadToHead> {
    let (mut wins, mut ties, mut losses) = (0, 0, 0);
    let mut points = Vec::new();
    for (our, their) in ours.iter().zip(theirs) {
        let (Some(our), Some(their)) = (our, their) else { continue };
        let (count, point) = match our - their {
            gap if gap > 1e-9 => (&mut wins, 1.0),
            gap if gap < -1e-9 => (&mut losses, 0.0),
            _ => (&mut ties, 0.5),
        };
        *count += 1;
        points.push(point);
    }
    (!points.is_empty()).then(|| HeadToHead {
        opponent: opponent.name.to_owned(),
        policy: opponent.policy.id(),
        referee,
        opponent_score: estimate(&theirs.iter().flatten().copied().collect::<Vec<_>>()),
        opponent_length: opponent.length,
        wins,
        ties,
        losses,
        win_rate: estimate(&points),
    })
}

fn evaluate(session: &Session<'_>) -> Result<Evaluation, StageError> {
    let task = session.task;
    let mut opponents = vec![("previous", task.previous.clone())];
    if let Some(first) = task.first.clone() {
        opponents.push(("first", first));
    }
    let mut policies = vec![task.checkpoint.clone()];
    for (_, policy) in &opponents {
        if !policies.contains(policy) {
            policies.push(policy.clone());
        }
    }
    let answers = session.answers(&policies)?;
    let answers_of = |policy: &PolicyRef| {
        answers.get(policies.iter().position(|known| known == policy).unwrap_or_default())
    };
    let Some(ours) = answers_of(&task.checkpoint) else {
        return Err(StageError::Missing("answers of the checkpoint".to_owned()));
    };
    let mut head_to_head = Vec::new();
    for (name, policy) in opponents {
        let Some(theirs) = answers_of(&policy) else { continue };
        let opponent = Opponent { name, policy: &policy, length: mean(&theirs.lengths()) };
        let judged = versus(&opponent, Referee::Judge, &ours.judged, &theirs.judged);
        let oracle = versus(&opponent, Referee::Oracle, &ours.oracle, &theirs.oracle);
        head_to_head.extend(judged.into_iter().chain(oracle));
    }
    let known: Vec<f64> = ours.oracle.iter().flatten().copied().collect();
    let judged: Vec<f64> = ours.judged.iter().flatten().copied().collect();
    let (referee, scores) =
        if known.is_empty() { (Referee::Judge, judged) } else { (Referee::Oracle, known) };
    let ended = ours.completions.iter().filter(|c| c.stop != StopReason::Length).count();
    Ok(Evaluation {
        policy: task.checkpoint.id(),
        score: estimate(&scores),
        referee,
        length: estimate(&ours.lengths()),
        ended: ended as f64 / ours.completions.len().max(1) as f64,
        head_to_head,
        judge: session.judge_quality()?,
    })
}

impl Stage for Evaluator {
    type Task = EvaluationTask;
    const NAME: &'static str = "evaluator";
    const WEIGHT: Weight = Weight::Heavy;

    fn next(&self, view: &RunView) -> Option<(TaskKey, EvaluationTask)> {
        let (iteration, open) = view.open()?;
        if !open.trained() || open.evaluation.is_some() {
            return None;
        }
        let checkpoint = open.checkpoint.as_ref()?.policy.clone();
        let wanted = self.config.evaluate.prompts as usize;
        let prompts: Vec<PromptId> =
            view.held_out().map(|(id, _)| id.clone()).take(wanted).collect();
        let task = EvaluationTask {
            iteration,
            checkpoint,
            previous: open.policy.clone(),
            first: view.first.clone(),
            base: view.base.clone()?,
            panel: open.panel.clone(),
            prompts,
            held: Held::of(iteration, open),
        };
        let policies = (&task.checkpoint, &task.previous, &task.first, &task.base);
        let settings = (&self.config.evaluate, &self.config.sampling, &self.config.judge);
        let asked = (&task.panel, &task.prompts, settings);
        let parts = (iteration, policies, asked, open.losses);
        let key = task_key(Self::NAME, view, &parts).after(open.end_voided());
        Some((key, task))
    }

    fn run(
        &mut self,
        task: EvaluationTask,
        view: &RunView,
        desk: &Desk,
    ) -> Result<Vec<Event>, StageError> {
        let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
        let prompts = task
            .prompts
            .iter()
            .map(|id| desk.prompt(view, id))
            .collect::<Result<Vec<_>, StageError>>()?;
        let session = Session { task: &task, prompts, root, desk };
        let iteration = task.iteration;
        match evaluate(&session) {
            Ok(evaluation) => Ok(vec![Event::EvaluationFinished { iteration, evaluation }]),
            Err(error) => match task.held.as_ref().and_then(|held| held.lost(&error)) {
                Some(lost) => Ok(vec![lost]),
                None => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BlobHash;

    #[test]
    fn head_to_head_counts_and_skips_what_one_side_lacks() {
        let policy = PolicyRef { weights: BlobHash("w".into()), adapter: None };
        let ours = [Some(3.0), Some(2.0), Some(1.0), None, Some(4.0)];
        let theirs = [Some(2.0), Some(2.0), Some(3.0), Some(1.0), None];
        let opponent = Opponent { name: "previous", policy: &policy, length: 3.0 };
        let Some(h) = versus(&opponent, Referee::Oracle, &ours, &theirs) else {
            panic!("three prompts are scored on both sides");
        };
        assert_eq!((h.wins, h.ties, h.losses), (1, 1, 1));
        assert!((h.win_rate.mean - 0.5).abs() < 1e-12);
        assert_eq!(versus(&opponent, Referee::Judge, &[None], &[None]), None);
    }
}
