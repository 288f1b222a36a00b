//! Verdicts, judged again: the held-out answers that an evaluation recorded, under another rubric.
//! Would it have called the checkpoint better too?

use super::{Past, Replies, Work};
use crate::domain::evaluation::{HeadToHead, HeldOutAnswer, Referee};
use crate::domain::{Completion, Event, Iteration, Offset, Panel, RubricId, RubricName};
use crate::error::Error;
use crate::rubric::Rubric;
use crate::stage::StageError;
use crate::stage::ask::Asking;
use crate::stage::held_out::HeldOut;
use crate::stage::judge::{Job, judge_jobs};
use crate::stage::panel::{Judged, name_of};
use crate::stage::verdict::head_to_head;
use crate::view::IterationView;
use serde::Serialize;

/// One iteration's verdicts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerdictAgain {
    /// Which.
    pub iteration: Iteration,
    /// Held-out prompts.
    pub prompts: usize,
    /// What it took.
    pub work: Work,
    /// What was recorded, by whom the gate believed; one for each opponent.
    pub recorded: Vec<HeadToHead>,
    /// The same opponents under the other rubric (`referee` is `rubrics`).
    pub again: Vec<HeadToHead>,
}

/// The verdicts of a run under another rubric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerdictsAgain {
    /// Which.
    pub rubric: RubricName,
    /// One for each evaluation whose answers are recorded.
    pub iterations: Vec<VerdictAgain>,
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
    ) -> Result<VerdictsAgain, Error> {
        let rubric = self.rubric(rubric)?;
        let (mut iterations, mut without_answers) = (Vec::new(), Vec::new());
        for (iteration, open) in &self.view.iterations {
            if *iteration < self.from || open.evaluation.is_none() {
                continue;
            }
            let held_out = HeldOut::gathered(self.recorded_for(*iteration, open));
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
            return Err(Error::Usage(format!(
                "no held-out answers to judge from iteration {from} on: {why}"
            )));
        }
        Ok(VerdictsAgain { rubric: name_of(&rubric), iterations, without_answers })
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
        mut held_out: Vec<HeldOut>,
        rubric: &Rubric,
        replies: Replies,
    ) -> Result<VerdictAgain, Error> {
        let policy = (replies == Replies::Model).then_some(&open.policy);
        let panel = Panel::one(rubric.id().clone());
        let plan = self.plan(open)?;
        let asking = Asking { policy, judge: &plan.judge, context: &self.context };
        let batch = plan.batch_prompts.max(1) as usize;
        let (mut work, all) = (Work::default(), held_out.len() as u64);
        let mut done = 0;
        for chunk in held_out.chunks_mut(batch) {
            let jobs = chunk.iter().map(|one| self.job(one)).collect::<Result<Vec<_>, _>>()?;
            let jobs: Vec<&Job> = jobs.iter().collect();
            let judged = judge_jobs(&jobs, &panel, asking)?;
            judged.iter().for_each(|judged| work.add(judged));
            for (one, judged) in chunk.iter_mut().zip(judged) {
                score_again(&mut one.answers, &judged, rubric);
            }
            done += jobs.len() as u64;
            self.context.gauge.progress("judge", done, all);
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
        Ok(VerdictAgain { iteration, prompts: held_out.len(), work, recorded, again })
    }

    /// What there is to judge of a prompt. Answers with the same words are one: they got one score
    /// in the evaluation, too.
    fn job(&self, one: &HeldOut) -> Result<Job, StageError> {
        let root = self.view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
        let first = |answer: &HeldOutAnswer| -> Completion {
            let same = |other: &&HeldOutAnswer| other.completion.text == answer.completion.text;
            one.answers.iter().find(same).unwrap_or(answer).completion.clone()
        };
        Ok(Job {
            prompt: self.context.prompt(&self.view, &one.prompt)?,
            completions: one.answers.iter().map(first).collect(),
            texts: Vec::new(),
            seed: root.derive("evaluate judge").derive(one.prompt.as_str()),
            past: one.judgments.clone(),
        })
    }
}

/// Puts the scores of the different answers, in the order in which each first appears, in the place of
/// those recorded. Where all answers are the same, a rubric that compares has a tie.
fn score_again(answers: &mut [HeldOutAnswer], judged: &Judged, rubric: &Rubric) {
    let mut texts: Vec<String> = Vec::new();
    let which: Vec<usize> = answers
        .iter()
        .map(|answer| {
            let text = &answer.completion.text;
            let known = texts.iter().position(|known| known == text);
            known.unwrap_or_else(|| {
                texts.push(text.clone());
                texts.len() - 1
            })
        })
        .collect();
    let info = rubric.info();
    let alike = texts.len() == 1 && info.min_candidates > 1;
    let tie = alike.then_some((info.scale_min + info.scale_max) / 2.0);
    for (answer, at) in answers.iter_mut().zip(which) {
        answer.refereed = judged.of(at).map(|tallied| tallied.score).or(tie);
    }
}
