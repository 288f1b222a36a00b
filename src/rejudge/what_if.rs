//! WHAT IF an iteration had drawn fewer answers, judged them less often, read scores otherwise, or made
//! pairs by another rule? The same recorded answers and replies, no model: which pairs there would be,
//! how many ties, and whether the two agree.

use super::compare::{Comparison, TwiceJudged};
use super::{Answered, Past, Rejudged, RejudgedIteration, ReplyCounts};
use crate::domain::plan::{Difference, PairingRule, ReadoutMode};
use crate::domain::{Event, Iteration, IterationPlan, Judgment, Panel, RubricId, TextRef};
use crate::error::{Code, Error};
use crate::stage::StageError;
use crate::stage::bodies::RecordedJudgments;
use crate::stage::judge::job::{JudgingJob, judge_jobs, judgments_recorded};
use crate::stage::judge::panel::{lead, name_of};
use crate::stage::judge::runner::JudgeSetup;
use crate::stage::pair_store::candidates;
use crate::view::IterationView;

/// What is to be otherwise than it was; `None`: as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WhatIf {
    /// Answers to each prompt: the first so many.
    pub candidates: Option<u32>,
    /// Judgments of each answer: the first so many.
    pub samples: Option<u32>,
    /// How a judgment becomes a number.
    pub readout: Option<ReadoutMode>,
    /// Best minus worst must exceed this.
    pub min_gap: Option<f64>,
    /// And this many standard errors of it.
    pub noise: Option<f64>,
    /// Length control rho.
    pub length_control: Option<f64>,
    /// Whether answers that were cut off may not compete.
    pub require_ended: Option<bool>,
    /// Who asks, instead of the rubrics that did.
    pub rubric: Option<RubricId>,
}

impl WhatIf {
    fn difference(&self, was: Difference) -> Difference {
        Difference {
            min_gap: self.min_gap.unwrap_or(was.min_gap),
            noise: self.noise.unwrap_or(was.noise),
            length_control: self.length_control.unwrap_or(was.length_control),
            require_ended: self.require_ended.unwrap_or(was.require_ended),
        }
    }

    /// The rule that makes pairs then.
    fn rule(&self, was: &PairingRule) -> PairingRule {
        match was {
            PairingRule::BestWorst(difference) => {
                PairingRule::BestWorst(self.difference(*difference))
            }
            PairingRule::Anchored { difference, rejected_from } => PairingRule::Anchored {
                difference: self.difference(*difference),
                rejected_from: rejected_from.clone(),
            },
        }
    }

    /// What the iteration would have done.
    fn plan(&self, was: &IterationPlan) -> Result<IterationPlan, Error> {
        let mut plan = was.clone();
        let more = |what: &str, wanted: u32, there: u32| {
            let message = format!(
                "{wanted} {what} are asked about and {there} are recorded: what was never drawn is not \
                 known"
            );
            Err(Error::refused(Code::NothingToJudge, message))
        };
        if let Some(wanted) = self.samples {
            match wanted {
                0 => return more("judgments of each answer", 0, plan.judge.samples),
                more_than if more_than > plan.judge.samples => {
                    return more("judgments of each answer", wanted, plan.judge.samples);
                }
                fewer => plan.judge.samples = fewer,
            }
        }
        let drawn = plan.samples.iter().map(|set| set.n).max().unwrap_or_default();
        if let Some(wanted) = self.candidates.filter(|n| *n < 2 || *n > drawn) {
            return more("answers to each prompt", wanted, drawn);
        }
        plan.judge.readout = self.readout.unwrap_or(plan.judge.readout);
        plan.pairing.rule = self.rule(&plan.pairing.rule);
        Ok(plan)
    }

    /// The answers that there would be.
    fn job(&self, was: &JudgingJob) -> JudgingJob {
        let most = self.candidates.unwrap_or(u32::MAX);
        let there = |text: &TextRef| match text {
            TextRef::Completion { index, .. } => *index < most,
            _ => true,
        };
        let kept = was.texts.iter().take_while(|text| there(text)).count();
        let mut job = was.clone();
        job.texts.truncate(kept);
        job.completions.truncate(kept);
        job
    }
}

impl Past {
    /// The same answers and replies, with something otherwise, beside what is recorded.
    ///
    /// # Errors
    /// When more is asked about than was recorded, there is nothing, or a rubric cannot be used; of a
    /// run with several sample sets, when fewer answers are asked about.
    pub fn what_if(&self, wishes: &WhatIf) -> Result<Rejudged, Error> {
        let (mut iterations, mut all, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
        let mut right = None;
        for (iteration, open) in self.judged_iterations() {
            let Some(answered) = self.answered(*iteration, open)? else {
                dropped.push(*iteration);
                continue;
            };
            let panel = match &wishes.rubric {
                Some(rubric) => Panel::one(rubric.clone()),
                None => open.panel.clone(),
            };
            right = Some(name_of(&lead(&self.run.context, &panel)?));
            let (scored, work, events) =
                self.otherwise(*iteration, open, &answered, (wishes, &panel))?;
            let comparison = Comparison::of(&scored);
            iterations.push(RejudgedIteration { iteration: *iteration, work, comparison, events });
            all.extend(scored);
        }
        let Some(right) = right.filter(|_| !all.is_empty()) else {
            return Err(self.nothing(&dropped));
        };
        let total = Comparison::of(&all);
        Ok(Rejudged { left: None, right, iterations, total, dropped })
    }

    fn otherwise(
        &self,
        iteration: Iteration,
        open: &IterationView,
        answered: &[Answered],
        (wishes, panel): (&WhatIf, &Panel),
    ) -> Result<(Vec<TwiceJudged>, ReplyCounts, Vec<Event>), Error> {
        let was = self.plan(open)?;
        if wishes.candidates.is_some() && was.samples.len() > 1 {
            return Err(Error::refused(
                Code::NothingToJudge,
                format!(
                    "iteration {iteration} drew from several policies (pairs.rule: anchored), so what \
                     fewer answers are is not one number"
                ),
            ));
        }
        let plan = wishes.plan(&was)?;
        let setup = JudgeSetup { policy: None, judge: &plan.judge, context: &self.run.context };
        let (mut all, mut work, mut events) = (Vec::new(), ReplyCounts::default(), Vec::new());
        for chunk in answered.chunks(plan.batch_prompts.max(1) as usize) {
            let jobs: Vec<JudgingJob> = chunk.iter().map(|one| wishes.job(&one.job)).collect();
            let asked: Vec<&JudgingJob> = jobs.iter().collect();
            let judged = judge_jobs(&asked, panel, setup)?;
            judged.iter().for_each(|judged| work.add(judged));
            for ((job, judged), was_answered) in jobs.iter().zip(&judged).zip(chunk) {
                let who = plan.judge.engine.answers_as(&plan.policy);
                let event = judgments_recorded(job, judged, iteration, who, &self.run.context)?;
                let said = RecordedJudgments::of(&event, job.completions.len());
                let said = said.ok_or_else(|| StageError::Missing("judgments".to_owned()))?;
                let recorded = &was_answered.judged;
                let Answered { job: whole, .. } = was_answered;
                all.push(TwiceJudged {
                    prompt: job.prompt.id.clone(),
                    candidates: candidates(&whole.texts, &whole.completions, &recorded.scores),
                    rule: was.pairing.rule.clone(),
                    right_rule: plan.pairing.rule.clone(),
                    judgments: [&recorded.judgments, &said.judgments]
                        .map(|all| Judgment::count(all)),
                    right: said.scores,
                });
                events.push(event);
            }
        }
        Ok((all, work, events))
    }
}
