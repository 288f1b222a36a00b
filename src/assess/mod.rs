//! ASSESS: answers that are no part of the loop. A file of somebody's own prompts and answers is judged
//! under a rubric, by a policy of the run; two policies answer the same prompts and are compared as the
//! evaluator compares them; suites measure policies by what no judge of the loop has a part in. Reads a
//! run, also beside a process that works on it, and changes nothing of it: what suites found is kept in
//! its folder, beside the log.
//!
//! | suite | measures |
//! | --- | --- |
//! | [`VerifiedSuite`] | answers to prompts with constraints, by a program: IFEval, one's own |
//! | [`ChoiceSuite`] | multiple choice by log-probability: ARC, MMLU |
//! | [`RankedSuite`] | judging: answers that people ranked, good answers beside damaged ones, canaries |

mod choices;
mod figures;
mod prose;
mod ranked;
mod records;
mod verified;

pub use choices::{ChoiceFigures, ChoicePick, ChoiceQuestion, ChoiceSuite, read_questions};
pub use figures::PairedDifference;
pub use ranked::{RankedAnswer, RankedFigures, RankedPrompt, RankedSuite, damaged, read_ranked};
pub use verified::{KindFigure, SuiteSampling, VerifiedAnswer, VerifiedFigures, VerifiedSuite};

use crate::domain::evaluation::Evaluation;
use crate::domain::event::IterationKind;
use crate::domain::{IterationPlan, Message, Panel, PolicyRef, Prompt, PromptId, RubricId};
use crate::error::{Code, Error};
use crate::lm::cancel::Cancel;
use crate::lm::device::{DeviceChoice, SelectedDevice};
use crate::lm::policy::LanguageModel;
use crate::log::JournalLog;
use crate::prompts::held_out::HeldOut;
use crate::report::{RecordedVerdict, verdicts};
use crate::rubric::{Rubric, bundled};
use crate::runtime::opened::JudgingRun;
use crate::runtime::{Folder, PolicyRow, find_policy, fold};
use crate::stage::conductor::planned;
use crate::stage::evaluator::{PolicyComparison, compare_policies};
use crate::stage::judge::item::{Distinct, JudgingItem, SeedRule};
use crate::stage::judge::job::judgments_of;
use crate::stage::judge::panel::{PanelResult, judge_under, lead};
use crate::stage::judge::runner::JudgeSetup;
use crate::stage::{Gauge, StageError, root_seed};
use crate::stats::{LengthAndWin, length_controlled};
use crate::view::Shared;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A prompt with answers that somebody brought.
#[derive(Clone, Debug, PartialEq)]
pub struct BroughtAnswers {
    /// The prompt.
    pub prompt: Prompt,
    /// Answers to it.
    pub answers: Vec<String>,
}

impl BroughtAnswers {
    /// Rows of a prompt and an answer each, those to the same prompt together.
    pub fn gathered(rows: impl IntoIterator<Item = (Prompt, String)>) -> Vec<BroughtAnswers> {
        let mut all: Vec<BroughtAnswers> = Vec::new();
        let mut at = std::collections::HashMap::<PromptId, usize>::new();
        for (prompt, answer) in rows {
            match at.get(&prompt.id).and_then(|at| all.get_mut(*at)) {
                Some(known) => known.answers.push(answer),
                None => {
                    at.insert(prompt.id.clone(), all.len());
                    all.push(BroughtAnswers { prompt, answers: vec![answer] });
                }
            }
        }
        all
    }
}

/// An answer that somebody brought, and what was said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssessedAnswer {
    /// The answer.
    pub text: String,
    /// What it came to; `None`: no score.
    pub score: Option<f64>,
    /// Standard error of that over the judge's samples; `None` where it is not known.
    pub standard_error: Option<f64>,
    /// Everything that was said of it.
    pub verdicts: Vec<RecordedVerdict>,
}

/// A prompt with what was said of the answers to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssessedPrompt {
    /// Its turns.
    pub prompt: Vec<Message>,
    /// Its answers, in their order.
    pub answers: Vec<AssessedAnswer>,
}

/// What a policy answered where two are compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SideAnswer {
    /// The answer.
    pub text: String,
    /// Its tokens.
    pub tokens: u32,
    /// What it came to.
    pub score: Option<f64>,
}

/// A prompt that two policies answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedPrompt {
    /// Its turns.
    pub prompt: Vec<Message>,
    /// What the policy that is asked about said.
    pub ours: SideAnswer,
    /// What the other said.
    pub theirs: SideAnswer,
    /// What the judge said of ours.
    pub verdicts: Vec<RecordedVerdict>,
}

/// Two policies, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedPolicies {
    /// The one that is asked about.
    pub ours: String,
    /// What it is held against.
    pub theirs: String,
    /// Who judged.
    pub judge: String,
    /// Under which rubrics.
    pub rubrics: Vec<String>,
    /// What it comes to; `previous` is the other.
    pub evaluation: Evaluation,
    /// The share of wins that would have been, had both answered at the same length; `None`: too few
    /// prompts have a score on both sides.
    pub length_controlled: Option<f64>,
    /// Every prompt with both answers.
    pub prompts: Vec<ComparedPrompt>,
}

/// What is to be otherwise than the run's settings say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssessWishes {
    /// Replies to each question (k), where not as the settings say.
    pub samples: Option<u32>,
}

/// A run whose model judges what somebody brings.
pub struct Assessor {
    run: JudgingRun,
    folder: Folder,
}

/// What suites need of a run.
struct SuiteRun<'a> {
    run: &'a JudgingRun,
    folder: &'a Folder,
    cancel: &'a Cancel,
    gauge: &'a dyn Gauge,
}

impl SuiteRun<'_> {
    /// A policy, to be asked in token ids.
    fn model(&self, policy: &PolicyRow) -> Result<Arc<dyn LanguageModel>, Error> {
        let opened = self.run.local.policy(&policy.policy, &self.run.config.engine());
        Ok(opened.map_err(StageError::from)?)
    }

    /// How many prompts of a suite equal, or nearly, something that the run was trained on: prompts that
    /// it answered, and seed rows. A figure that such prompts raise says nothing.
    fn trained_on<'p>(
        &self,
        prompts: impl IntoIterator<Item = &'p Prompt>,
    ) -> Result<usize, Error> {
        let suite = HeldOut::of(prompts);
        let mut found = BTreeSet::new();
        let mut look = |messages: &[Message]| {
            found.extend(suite.found_in_chat(messages).map(|(_, text)| text.to_owned()));
        };
        let (view, context) = (&self.run.view, &self.run.context);
        for id in view.answered() {
            look(&context.bodies().prompt(view, id)?.messages);
        }
        for data in &view.seed_data {
            context.bodies().seed_rows(&data.blob)?.iter().for_each(|row| look(&row.messages));
        }
        Ok(found.len())
    }

    /// The program that checks constraints.
    fn verifier(&self) -> Result<Rubric, Error> {
        self.run.load(bundled::VERIFIER)
    }
}

impl Assessor {
    /// Opens a run for reading. `device`: what shall compute, instead of what the settings say.
    ///
    /// # Errors
    /// When the folder holds no run, or its log, settings, model or rubrics cannot be read; when the
    /// device cannot be had.
    pub fn open(
        folder: &Folder,
        cancel: &Cancel,
        gauge: Arc<dyn Gauge>,
        device: Option<DeviceChoice>,
    ) -> Result<Assessor, Error> {
        let log: JournalLog = folder.read_log()?;
        let view = fold(&log)?;
        let run = JudgingRun::over(folder, (view, Arc::new(log)), (cancel, gauge), device)?;
        Ok(Assessor { run, folder: folder.clone() })
    }

    fn suite_run(&self) -> SuiteRun<'_> {
        let context = &self.run.context;
        let (cancel, gauge) = (&context.cancel, context.gauge.as_ref());
        SuiteRun { run: &self.run, folder: &self.folder, cancel, gauge }
    }

    /// The best score that a panel's first rubric gives.
    fn best_score(&self, panel: &Panel) -> Result<f64, Error> {
        Ok(lead(&self.run.context, panel)?.info().scale().max)
    }

    /// What a panel's rubrics are called.
    fn names(&self, panel: &Panel) -> Vec<String> {
        panel.members().iter().map(|member| self.named(&member.rubric)).collect()
    }

    /// How the run draws held-out answers, for suites that are not told otherwise.
    pub fn sampling(&self) -> SuiteSampling {
        let config = &self.run.config;
        SuiteSampling {
            samples: 1,
            temperature: config.evaluate.temperature,
            top_p: config.evaluate.top_p,
            max_new_tokens: config.sampling.max_new_tokens,
            seed: config.seed,
        }
    }

    /// What computes, and why.
    pub fn device(&self) -> &SelectedDevice {
        &self.run.device
    }

    /// The policy that a person means: `latest`, `base`, `M2`, or the beginning of its hash.
    ///
    /// # Errors
    /// [`Error::Refused`] with the names that there are.
    pub fn policy(&self, wanted: &str) -> Result<PolicyRow, Error> {
        match self.run.view.policy {
            Some(_) => find_policy(&self.run.view, wanted),
            None => Err(self.not_begun()),
        }
    }

    fn not_begun(&self) -> Error {
        let message = "the run has not started, so it has no policy that could answer or judge";
        Error::refused(Code::RunNotBegun, message)
    }

    /// The rubrics that judge: those that are meant (a file, an installed one, a bundled one), each with
    /// the same weight, or those of the run.
    ///
    /// # Errors
    /// Which is none, and what there is.
    pub fn panel(&mut self, meant: &[String]) -> Result<Panel, Error> {
        if meant.is_empty() {
            return self.run.view.panel.clone().ok_or_else(|| self.not_begun());
        }
        let mut members = Vec::new();
        for named in meant {
            let id = self.run.meant(named)?;
            self.run.rubric(&id)?;
            members.push(crate::domain::PanelMember::plain(id));
        }
        Panel::new(members).map_err(|error| Error::refused(error.code(), error.to_string()))
    }

    fn named(&self, rubric: &RubricId) -> String {
        self.run.name(rubric).map_or_else(
            || rubric.short().to_owned(),
            |name| format!("{}@{}", name.name, name.version),
        )
    }

    /// How the run judges now.
    fn plan(
        &self,
        policy: &PolicyRef,
        panel: &Panel,
        wishes: &AssessWishes,
    ) -> Result<IterationPlan, Error> {
        let (config, view) = (&self.run.config, &self.run.view);
        let plan = planned(config, view, IterationKind::Dpo, (policy, panel));
        let mut plan = plan.ok_or_else(|| self.not_begun())?;
        plan.judge.samples = wishes.samples.unwrap_or(plan.judge.samples);
        Ok(plan)
    }

    /// Judges answers that somebody brought; `judge` replies where a rubric asks a model.
    ///
    /// # Errors
    /// When a rubric cannot be used or the model cannot be opened.
    pub fn judge(
        &self,
        brought: &[BroughtAnswers],
        by: (&PolicyRow, &Panel),
        wishes: &AssessWishes,
    ) -> Result<Vec<AssessedPrompt>, Error> {
        let mut all = Vec::with_capacity(brought.len());
        self.judge_in_turn(brought, by, wishes, &mut |some| {
            all.extend(some);
            Ok(())
        })?;
        Ok(all)
    }

    /// The same, a batch after another, each handed on before the next.
    fn judge_in_turn(
        &self,
        brought: &[BroughtAnswers],
        (judge, panel): (&PolicyRow, &Panel),
        wishes: &AssessWishes,
        take: &mut dyn FnMut(Vec<AssessedPrompt>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let plan = self.plan(&judge.policy, panel, wishes)?;
        let context = &self.run.context;
        let root = root_seed(&self.run.view)?.derive("judge file");
        let setup = JudgeSetup { policy: Some(&judge.policy), judge: &plan.judge, context };
        let lead = lead(context, panel)?;
        let mut done = 0;
        for chunk in brought.chunks(plan.batch_prompts.max(1) as usize) {
            let distinct: Vec<Distinct<&str>> = chunk.iter().map(distinct).collect();
            let items = chunk.iter().zip(&distinct).map(|(one, distinct)| {
                let seed = SeedRule::ByText(root.derive(one.prompt.id.as_str()));
                JudgingItem::of(&one.prompt, distinct.items.clone(), seed)
            });
            let items: Vec<JudgingItem<'_>> = items.collect();
            let judged = judge_under(panel, &items, setup)?;
            let each = chunk.iter().zip(&distinct).zip(&judged).map(|((one, distinct), result)| {
                let scores = result.scores_with_ties(distinct, &lead);
                self.assessed(one, distinct, result, &scores)
            });
            take(each.collect())?;
            done += chunk.len();
            context.gauge.progress("judge", done as u64, brought.len() as u64);
        }
        Ok(())
    }

    fn assessed(
        &self,
        one: &BroughtAnswers,
        distinct: &Distinct<&str>,
        result: &PanelResult,
        scores: &[Option<f64>],
    ) -> AssessedPrompt {
        let said = result.by_rubric.iter();
        let said = said.flat_map(|(id, of)| judgments_of(id, &distinct.index_of, &of.replies));
        let said: Vec<_> = said.collect();
        let named = |rubric: &RubricId| self.named(rubric);
        let answer = |(at, text): (usize, &String)| AssessedAnswer {
            text: text.clone(),
            score: scores.get(at).copied().flatten(),
            standard_error: distinct
                .index_of
                .get(at)
                .and_then(|at| result.of(*at))
                .and_then(|score| score.standard_error),
            verdicts: verdicts(&named, &said, at as u32),
        };
        AssessedPrompt {
            prompt: one.prompt.messages.clone(),
            answers: one.answers.iter().enumerate().map(answer).collect(),
        }
    }

    /// The held-out prompts, as many as an evaluation takes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn held_out(&self) -> Result<Vec<Prompt>, Error> {
        let (view, context) = (&self.run.view, &self.run.context);
        let wanted = self.run.config.evaluate.prompts as usize;
        let ids = view.held_out().map(|(id, _)| id).take(wanted);
        let read = ids.map(|id| context.bodies().prompt(view, id));
        Ok(read.collect::<Result<Vec<_>, StageError>>()?)
    }

    /// Compares two policies on prompts: one answer of each to each, judged beside each other.
    ///
    /// # Errors
    /// When they are the same policy, or one of them or a rubric cannot be opened.
    pub fn compare(
        &self,
        (ours, theirs): (&PolicyRow, &PolicyRow),
        (judge, panel): (&PolicyRow, &Panel),
        prompts: Vec<Prompt>,
        wishes: &AssessWishes,
    ) -> Result<ComparedPolicies, Error> {
        if ours.policy == theirs.policy {
            return Err(Error::refused(
                Code::PolicyUnknown,
                format!(
                    "{} and {} are the same weights: there is nothing to compare. Name another policy",
                    ours.name, theirs.name
                ),
            ));
        }
        let comparison = PolicyComparison {
            plan: Shared::from(self.plan(&judge.policy, panel, wishes)?),
            ours: ours.policy.clone(),
            theirs: theirs.policy.clone(),
            judge: judge.policy.clone(),
            panel: panel.clone(),
        };
        let root = root_seed(&self.run.view)?;
        let (held_out, evaluation) =
            compare_policies(comparison, prompts.clone(), root, &self.run.context)?;
        let named = |rubric: &RubricId| self.named(rubric);
        let outcomes: Vec<LengthAndWin> = held_out.iter().filter_map(outcome).collect();
        let compared = |(prompt, one): (&Prompt, &crate::stage::held_out::HeldOutPrompt)| {
            let answer = |role| {
                let answer = one.answer_as(role)?;
                let (text, tokens) = (answer.completion.text.clone(), answer.tokens);
                Some(SideAnswer { text, tokens, score: answer.judged })
            };
            Some(ComparedPrompt {
                prompt: prompt.messages.clone(),
                ours: answer("checkpoint")?,
                theirs: answer("previous")?,
                verdicts: verdicts(&named, &one.judgments, 0),
            })
        };
        Ok(ComparedPolicies {
            ours: ours.name.clone(),
            theirs: theirs.name.clone(),
            judge: judge.name.clone(),
            rubrics: self.names(panel),
            length_controlled: length_controlled(&outcomes),
            evaluation,
            prompts: prompts.iter().zip(&held_out).filter_map(compared).collect(),
        })
    }
}

/// Who won a prompt, and by how many characters the answer was longer.
fn outcome(one: &crate::stage::held_out::HeldOutPrompt) -> Option<LengthAndWin> {
    let (ours, theirs) = (one.answer_as("checkpoint")?, one.answer_as("previous")?);
    let (a, b) = (ours.judged?, theirs.judged?);
    let win = if a > b {
        1.0
    } else if a < b {
        0.0
    } else {
        0.5
    };
    let length = |text: &str| text.chars().count() as f64;
    let longer = length(&ours.completion.text) - length(&theirs.completion.text);
    Some(LengthAndWin { win, longer })
}

/// The different texts among answers: the same text is judged once.
fn distinct(one: &BroughtAnswers) -> Distinct<&str> {
    Distinct::of(one.answers.iter().map(String::as_str), |a, b| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PromptOrigin;

    #[test]
    fn rows_of_the_same_prompt_come_together() {
        let prompt = |text: &str| Prompt::user(text, PromptOrigin::Given);
        let rows = [("a", "1"), ("b", "2"), ("a", "3")];
        let gathered = BroughtAnswers::gathered(rows.map(|(p, a)| (prompt(p), a.to_owned())));
        let shape: Vec<_> =
            gathered.iter().map(|one| (one.prompt.task_text(), one.answers.len())).collect();
        assert_eq!(shape, [("a", 2), ("b", 1)]);
        assert_eq!(gathered[0].answers, ["1", "3"]);
    }
}
