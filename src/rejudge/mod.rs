//! THE PAST, JUDGED AGAIN: what would another rubric have said of the completions that a run has
//! recorded, and which pairs would it have made? Replies that are recorded are read again wherever
//! the question is the same; only where a rubric asks something else must the judge reply again.
//!
//! Nothing here changes the run that is looked at. What comes of it may begin another one
//! (`branch`), with what a bad rubric touched left out (`taint`).

mod branch;
mod compare;
mod excerpt;
mod export;
mod held_out;
mod taint;
mod what_if;

pub use compare::{ChangedPair, Comparison, JudgeFigures, OrderAgreement, PairChange};
pub use export::Preference;
pub use held_out::{RejudgedVerdict, RejudgedVerdicts};
pub use taint::{Taint, TaintedIteration, TaintedPrompt};
pub use what_if::WhatIf;

use crate::domain::plan::JudgeSource;
use crate::domain::{
    Event, Iteration, IterationPlan, Judgment, Panel, PromptId, RubricId, RubricName,
};
use crate::error::{Code, Error};
use crate::lm::cancel::Cancel;
use crate::lm::device::{DeviceChoice, SelectedDevice};
use crate::rubric::Rubric;
use crate::runtime::Folder;
use crate::runtime::opened::JudgingRun;
use crate::stage::bodies::RecordedJudgments;
use crate::stage::conductor::planned;
use crate::stage::judge::aggregate::AggregateScore;
use crate::stage::judge::job::{JudgingJob, judge_jobs, judgments_recorded};
use crate::stage::judge::panel::{PanelResult, name_of};
use crate::stage::judge::runner::{JudgeSetup, NOT_ASKED};
use crate::stage::pair_store::candidates;
use crate::stage::{Gauge, StageError};
use crate::view::{IterationView, Shared};
use compare::TwiceJudged;
use excerpt::Excerpt;
use serde::Serialize;
use std::sync::Arc;

/// Who may reply to questions that nobody replied to before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// The policy that judged in the iteration.
    Model,
    /// Nobody.
    Recorded,
}

/// Where judgments came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplyCounts {
    /// Recorded replies that were read again.
    pub read_again: u32,
    /// Replies of the model, and verdicts of rubrics that are programs.
    pub made: u32,
    /// Questions that nobody replied to ([`Replies::Recorded`]).
    pub not_asked: u32,
}

/// One iteration judged again.
#[derive(Clone, Debug, Serialize)]
pub struct RejudgedIteration {
    /// Which.
    pub iteration: Iteration,
    /// What it took.
    pub work: ReplyCounts,
    /// Against what is recorded, or another rubric.
    pub comparison: Comparison,
    /// The judgments, to begin another run with.
    #[serde(skip)]
    events: Vec<Event>,
}

/// The past under two judges.
#[derive(Clone, Debug, Serialize)]
pub struct Rejudged {
    /// What the left is: `None` is what is recorded.
    pub left: Option<RubricName>,
    /// What the right is.
    pub right: RubricName,
    /// One for each iteration that has completions.
    pub iterations: Vec<RejudgedIteration>,
    /// All of them together.
    pub total: Comparison,
    /// Iterations whose completions were dropped when the log was compacted.
    pub dropped: Vec<Iteration>,
}

/// A run's past, read.
pub struct Past {
    folder: Folder,
    from: Iteration,
    excerpt: Arc<Excerpt>,
    run: JudgingRun,
}

/// A prompt's recorded completions and what they came to.
struct Answered {
    job: JudgingJob,
    judged: RecordedJudgments,
}

impl Past {
    /// Reads what is recorded from an iteration on. Works beside a process that works on the run.
    /// `device`: what shall compute, instead of what the settings say.
    ///
    /// # Errors
    /// When the folder holds no run, or its log, settings or rubrics cannot be read; when the device
    /// cannot be had.
    pub fn open(
        folder: &Folder,
        from: Iteration,
        cancel: &Cancel,
        gauge: Arc<dyn Gauge>,
        device: Option<DeviceChoice>,
    ) -> Result<Past, Error> {
        let (view, excerpt) = Excerpt::of(&folder.read_log()?, from)?;
        let excerpt = Arc::new(excerpt);
        let run = JudgingRun::over(folder, (view, excerpt.clone()), (cancel, gauge), device)?;
        Ok(Past { folder: folder.clone(), from, excerpt, run })
    }

    /// What computes, and why.
    pub fn device(&self) -> &SelectedDevice {
        &self.run.device
    }

    /// An installed rubric: its name, `name@version`, or the beginning of its hash.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is installed.
    pub fn installed(&self, named: &str) -> Result<RubricId, Error> {
        self.run.installed(named)
    }

    /// What judges beside the panel.
    pub fn shadows(&self) -> &[RubricId] {
        &self.run.view.rubrics.shadows
    }

    /// The rubric that a person means: a file, an installed one, or a bundled one; one from a file need
    /// not be installed.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is installed, or [`crate::rubric::RubricError`] saying what is wrong
    /// with the file.
    pub fn meant(&mut self, named: &str) -> Result<RubricId, Error> {
        self.run.meant(named)
    }

    /// A component that need not be installed.
    ///
    /// # Errors
    /// [`crate::rubric::RubricError`] saying what is wrong with it.
    pub fn bring(&mut self, bytes: &[u8]) -> Result<RubricId, Error> {
        self.run.bring(bytes)
    }

    fn rubric(&self, id: &RubricId) -> Result<Rubric, Error> {
        self.run.rubric(id)
    }

    /// Judges everything again under a rubric and compares it with what is recorded.
    ///
    /// # Errors
    /// When there is nothing, the rubric cannot judge it, or the model cannot be opened.
    pub fn rejudge(&self, rubric: &RubricId, replies: Replies) -> Result<Rejudged, Error> {
        let right = self.rubric(rubric)?;
        self.compare(None, &right, replies)
    }

    /// Judges everything under two rubrics.
    ///
    /// # Errors
    /// Those of [`Past::rejudge`].
    pub fn diff(&self, a: &RubricId, b: &RubricId, replies: Replies) -> Result<Rejudged, Error> {
        let (left, right) = (self.rubric(a)?, self.rubric(b)?);
        self.compare(Some(&left), &right, replies)
    }

    fn compare(
        &self,
        left: Option<&Rubric>,
        right: &Rubric,
        replies: Replies,
    ) -> Result<Rejudged, Error> {
        let (mut iterations, mut all, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
        for (iteration, open) in self.judged_iterations() {
            let Some(answered) = self.answered(*iteration, open)? else {
                dropped.push(*iteration);
                continue;
            };
            let plan = self.plan(open)?;
            let policy = (replies == Replies::Model).then_some(&open.policy);
            let setup = JudgeSetup { policy, judge: &plan.judge, context: &self.run.context };
            let (scored, work, events) =
                self.judge_again(*iteration, &plan, &answered, (left, right), setup)?;
            let comparison = Comparison::of(&scored);
            iterations.push(RejudgedIteration { iteration: *iteration, work, comparison, events });
            all.extend(scored);
        }
        if all.is_empty() {
            return Err(self.nothing(&dropped));
        }
        let total = Comparison::of(&all);
        let (left, right) = (left.map(name_of), name_of(right));
        Ok(Rejudged { left, right, iterations, total, dropped })
    }

    /// That there is nothing to judge.
    fn nothing(&self, dropped: &[Iteration]) -> Error {
        let why = match dropped.is_empty() {
            true => "no iteration from there on has judgments yet",
            false => "the completions were dropped when the log was compacted",
        };
        let from = self.from;
        let message = format!("nothing to judge from iteration {from} on: {why}");
        Error::refused(Code::NothingToJudge, message)
    }

    /// The iterations to look at that have judgments.
    fn judged_iterations(&self) -> impl Iterator<Item = (&Iteration, &Shared<IterationView>)> {
        let all = self.run.view.iterations.iter();
        all.filter(|(iteration, open)| **iteration >= self.from && !open.judged.is_empty())
    }

    /// What an iteration does; of one of schema 1, which did not record it, what the settings say.
    fn plan(&self, open: &IterationView) -> Result<Shared<IterationPlan>, Error> {
        let of_now = || {
            planned(&self.run.config, &self.run.view, open.kind, (&open.policy, &open.panel))
                .map(Shared::from)
        };
        let plan = open.plan.clone().or_else(of_now);
        plan.ok_or_else(|| Error::refused(Code::RunNotBegun, "the run has not begun".to_owned()))
    }

    /// What was answered and judged in an iteration; `None` when it was dropped.
    fn answered(
        &self,
        iteration: Iteration,
        open: &IterationView,
    ) -> Result<Option<Vec<Answered>>, Error> {
        let (mut all, source) = (Vec::new(), self.plan(open)?.judge.source);
        for (prompt, judged) in &open.judged {
            let Some(samples) = open.samples_of(prompt) else { continue };
            if !samples.iter().all(|(_, sampled)| self.excerpt.holds(*sampled)) {
                return Ok(None);
            }
            let mut job =
                JudgingJob::of(iteration, prompt, &samples, &self.run.view, &self.run.context)?;
            let judged = self.run.context.bodies().judgments(*judged, job.completions.len())?;
            if source != JudgeSource::Model {
                // A control arm's scores are nobody's replies.
                all.push(Answered { job, judged });
                continue;
            }
            job.recorded.clone_from(&judged.judgments);
            for shadowed in open.shadowed.values().filter_map(|shadowed| shadowed.get(prompt)) {
                let beside =
                    self.run.context.bodies().judgments(*shadowed, job.completions.len())?;
                job.recorded.extend(beside.judgments);
            }
            all.push(Answered { job, judged });
        }
        Ok(Some(all))
    }

    fn judge_again(
        &self,
        iteration: Iteration,
        plan: &IterationPlan,
        answered: &[Answered],
        (left, right): (Option<&Rubric>, &Rubric),
        setup: JudgeSetup<'_>,
    ) -> Result<(Vec<TwiceJudged>, ReplyCounts, Vec<Event>), Error> {
        let batch = plan.batch_prompts.max(1) as usize;
        let (mut all, mut work, mut events) = (Vec::new(), ReplyCounts::default(), Vec::new());
        for chunk in answered.chunks(batch) {
            let jobs: Vec<&JudgingJob> = chunk.iter().map(|answered| &answered.job).collect();
            let under = |rubric: &Rubric| {
                let judged = judge_jobs(&jobs, &Panel::one(rubric.id().clone()), setup)?;
                let event = |(job, judged): (&&JudgingJob, &PanelResult)| {
                    let who = plan.judge.engine.answers_as(&plan.policy);
                    judgments_recorded(job, judged, iteration, who, &self.run.context)
                };
                let events = jobs.iter().zip(&judged).map(event).collect::<Result<Vec<_>, _>>()?;
                Ok::<_, StageError>((judged, events))
            };
            let lefts = left.map(under).transpose()?;
            let (judged, made) = under(right)?;
            judged.iter().for_each(|judged| work.add(judged));
            for (at, answered) in chunk.iter().enumerate() {
                let completions = &answered.job.completions;
                let said = |events: &[Event]| {
                    events.get(at).and_then(|event| RecordedJudgments::of(event, completions.len()))
                };
                let Some(right) = said(&made) else { continue };
                let left = lefts.as_ref().and_then(|(_, events)| said(events));
                let left = left.as_ref().unwrap_or(&answered.judged);
                all.push(TwiceJudged {
                    prompt: answered.job.prompt.id.clone(),
                    candidates: candidates(&answered.job.texts, completions, &left.scores),
                    rule: plan.pairing.rule.clone(),
                    right_rule: plan.pairing.rule.clone(),
                    judgments: [&left.judgments, &right.judgments].map(|all| Judgment::count(all)),
                    right: right.scores,
                });
            }
            events.extend(made);
            self.run.context.gauge.progress("judge", all.len() as u64, answered.len() as u64);
        }
        Ok((all, work, events))
    }
}

impl ReplyCounts {
    fn add(&mut self, judged: &PanelResult) {
        for reply in judged.by_rubric.iter().flat_map(|(_, result)| &result.replies) {
            match &reply.outcome {
                _ if reply.recorded => self.read_again += 1,
                crate::domain::Outcome::Refused { reason } if reason == NOT_ASKED => {
                    self.not_asked += 1;
                }
                _ => self.made += 1,
            }
        }
    }
}

impl RejudgedIteration {
    /// What `n` completions of a prompt came to; nothing where it has no judgments.
    fn scores_of(&self, prompt: &PromptId, n: usize) -> Vec<Option<AggregateScore>> {
        let ours = self.events.iter().find(|event| {
            matches!(event, Event::JudgmentsRecorded { prompt: theirs, .. } if theirs == prompt)
        });
        let judged = ours.and_then(|event| RecordedJudgments::of(event, n));
        judged.map_or_else(Vec::new, |judged| judged.scores)
    }
}
