//! Verdicts, judged again: the held-out answers that an evaluation recorded, under another rubric.
//! Would it have called the checkpoint better too?

use super::{Past, Replies, ReplyCounts};
use crate::domain::evaluation::{HeadToHead, HeldOutAnswer, Referee};
use crate::domain::{Completion, Event, Iteration, Offset, Panel, RubricId, RubricName};
use crate::error::{Code, Error};
use crate::rubric::Rubric;
use crate::stage::held_out::HeldOutPrompt;
use crate::stage::judge::job::{JudgingJob, judge_jobs};
use crate::stage::judge::panel::name_of;
use crate::stage::judge::runner::JudgeSetup;
use crate::stage::verdict::head_to_head;
use crate::stage::{StageError, root_seed};
use crate::view::IterationView;
use serde::Serialize;

/// One iteration's verdicts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RejudgedVerdict {
    /// Which.
    pub iteration: Iteration,
    /// Held-out prompts.
    pub prompts: usize,
    /// What it took.
    pub work: ReplyCounts,
    /// What was recorded, by whom the gate believed; one for each opponent.
    pub recorded: Vec<HeadToHead>,
    /// The same opponents under the other rubric (`referee` is `rubrics`).
    pub again: Vec<HeadToHead>,
}

/// The verdicts of a run under another rubric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RejudgedVerdicts {
    /// Which.
    pub rubric: RubricName,
    /// One for each evaluation whose answers are recorded.
    pub iterations: Vec<RejudgedVerdict>,
    /// Evaluations whose answers are not: dropped when the log was compacted, or made by a gradus
    /// that did not record them.
    pub without_answers: Vec<Iteration>,
}

impl Past {
    /// Judges the recorded held-out answers again under a rubric and compares the policies anew.
    ///
    /// # Errors
    /// When no evaluation has recorded answers, the rubric cannot judge them, or the model cannot be
    /// opened.
    pub fn rejudge_held_out(
        &self,
        rubric: &RubricId,
        replies: Replies,
    ) -> Result<RejudgedVerdicts, Error> {
        let rubric = self.rubric(rubric)?;
        let (mut iterations, mut without_answers) = (Vec::new(), Vec::new());
        for (iteration, open) in &self.run.view.iterations {
            if *iteration < self.from || open.evaluation.is_none() {
                continue;
            }
            let held_out = HeldOutPrompt::gathered(self.recorded_for(*iteration, open));
            match held_out.is_empty() {
                true => without_answers.push(*iteration),
                false => iterations.push(self.again(*iteration, open, held_out, &rubric, replies)?),
            }
        }
        if iterations.is_empty() {
            let from = self.from;
            let why = match without_answers.is_empty() {
                true => "no iteration from there on was evaluated yet",
                false => {
                    "its answers were dropped when the log was compacted, or are of an older gradus"
                }
            };
            return Err(Error::refused(
                Code::NothingToJudge,
                format!("no held-out answers to judge from iteration {from} on: {why}"),
            ));
        }
        Ok(RejudgedVerdicts { rubric: name_of(&rubric), iterations, without_answers })
    }

    /// The held-out answers that an iteration's evaluation was made of: those recorded with it. After a
    /// rollback there may be others before them, of one that does not count.
    fn recorded_for(&self, iteration: Iteration, open: &IterationView) -> Vec<&Event> {
        let mut recorded = Vec::new();
        let until = |at: Offset| open.evaluated_at.is_none_or(|evaluated| at < evaluated);
        for record in self.excerpt.of_iteration(iteration).filter(|record| until(record.offset)) {
            match &record.event {
                Event::HeldOutJudged { .. } => recorded.push(&record.event),
                Event::EvaluationFinished { .. } if open.evaluated_at.is_some() => recorded.clear(),
                _ => {}
            }
        }
        recorded
    }

    fn again(
        &self,
        iteration: Iteration,
        open: &IterationView,
        mut held_out: Vec<HeldOutPrompt>,
        rubric: &Rubric,
        replies: Replies,
    ) -> Result<RejudgedVerdict, Error> {
        let policy = (replies == Replies::Model).then_some(&open.policy);
        let panel = Panel::one(rubric.id().clone());
        let plan = self.plan(open)?;
        let setup = JudgeSetup { policy, judge: &plan.judge, context: &self.run.context };
        let batch = plan.batch_prompts.max(1) as usize;
        let (mut work, all) = (ReplyCounts::default(), held_out.len() as u64);
        let mut done = 0;
        for chunk in held_out.chunks_mut(batch) {
            let jobs = chunk.iter().map(|one| self.job(one)).collect::<Result<Vec<_>, _>>()?;
            let jobs: Vec<&JudgingJob> = jobs.iter().collect();
            let judged = judge_jobs(&jobs, &panel, setup)?;
            for ((one, job), result) in chunk.iter_mut().zip(&jobs).zip(&judged) {
                work.add(result);
                let scores = result.scores_with_ties(&job.distinct(), rubric);
                for (answer, score) in one.answers.iter_mut().zip(scores) {
                    answer.refereed = score;
                }
            }
            done += jobs.len() as u64;
            self.run.context.gauge.progress("judge", done, all);
        }
        let evaluation = open.evaluation.as_ref();
        let believed = evaluation.and_then(|e| Some(e.before_the_gate()?.referee));
        let theirs = evaluation.iter().flat_map(|e| &e.head_to_head);
        let recorded: Vec<HeadToHead> =
            theirs.filter(|h| Some(h.referee) == believed).cloned().collect();
        let growth = plan.evaluation.gate.length_growth_max;
        let again = recorded.iter().map(|h| {
            let opponent = (h.opponent.as_str(), h.policy.clone());
            head_to_head(&held_out, opponent, Referee::Rubrics, growth)
        });
        let again = again.collect();
        Ok(RejudgedVerdict { iteration, prompts: held_out.len(), work, recorded, again })
    }

    /// What there is to judge of a prompt. Answers with the same words are one: they got one score
    /// in the evaluation, too.
    fn job(&self, one: &HeldOutPrompt) -> Result<JudgingJob, StageError> {
        let root = root_seed(&self.run.view)?;
        let first = |answer: &HeldOutAnswer| -> Completion {
            let same = |other: &&HeldOutAnswer| other.completion.text == answer.completion.text;
            one.answers.iter().find(same).unwrap_or(answer).completion.clone()
        };
        Ok(JudgingJob {
            prompt: self.run.context.bodies().prompt(&self.run.view, &one.prompt)?,
            completions: one.answers.iter().map(first).collect(),
            texts: Vec::new(),
            seed: root.derive("evaluate judge").derive(one.prompt.as_str()),
            recorded: one.judgments.clone(),
        })
    }
}
