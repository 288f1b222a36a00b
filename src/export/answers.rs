//! Recorded answers with everything that was said of them: what `candidates` exports, and what is shown
//! of a pair.

use super::RunExport;
use super::manifest::Manifest;
use super::pairs::{ROWS, also_parquet};
use super::preference::PairRow;
use super::target::NewFolder;
use crate::domain::{Iteration, Message, PairId, PromptId, RubricId, StopReason, TextRef};
use crate::error::{Code, Error};
use crate::report::{RecordedVerdict, rubric_name, verdicts};
use crate::stage::StageError;
use crate::stage::bodies::{Answers, RecordedJudgments};
use crate::view::{IterationView, RunView};
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// A recorded answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgedAnswer {
    /// The sample set it is of.
    pub set: String,
    /// Its number in that.
    pub index: u32,
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Whether it ended by itself.
    pub ended: bool,
    /// Natural log of how likely it was; `None` where the engine does not say.
    pub logp: Option<f64>,
    /// What it came to.
    pub score: Option<f64>,
    /// Standard error of that over the judge's samples; `None` where it is not known.
    pub standard_error: Option<f64>,
    /// Everything that was said of it.
    pub verdicts: Vec<RecordedVerdict>,
}

/// A prompt with what was answered to it in an iteration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnsweredPrompt {
    /// The iteration.
    pub iteration: Iteration,
    /// The prompt's id.
    pub prompt_id: PromptId,
    /// Its turns.
    pub prompt: Vec<Message>,
    /// Its answers, set after set.
    pub answers: Vec<JudgedAnswer>,
}

/// A pair that was formed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairSummary {
    /// Its id.
    pub id: PairId,
    /// The iteration that formed it.
    pub iteration: Iteration,
    /// Whether it was trained on.
    pub trained: bool,
    /// Its prompt.
    pub prompt_id: PromptId,
    /// What the chosen answer came to; `None`: nobody scored it.
    pub score_chosen: Option<f64>,
    /// What the rejected one came to.
    pub score_rejected: Option<f64>,
    /// The last turn of the prompt.
    pub asked: String,
    /// The chosen answer.
    pub chosen: String,
    /// The rejected one.
    pub rejected: String,
}

fn judged(view: &RunView, answers: Answers, said: &RecordedJudgments) -> Vec<JudgedAnswer> {
    let texts = answers.texts.into_iter().zip(answers.completions);
    let named = |rubric: &RubricId| rubric_name(view, rubric);
    let answer = |(at, (text, completion)): (usize, (TextRef, crate::domain::Completion))| {
        let TextRef::Completion { set, index } = text else { return None };
        let score = said.scores.get(at).copied().flatten();
        Some(JudgedAnswer {
            set,
            index,
            tokens: completion.token_ids.len(),
            ended: completion.stop != StopReason::Length,
            logp: completion.logp,
            score: score.map(|score| score.score),
            standard_error: score.and_then(|score| score.standard_error),
            verdicts: verdicts(&named, &said.judgments, at as u32),
            text: completion.text,
        })
    };
    texts.enumerate().filter_map(answer).collect()
}

fn summary(iteration: Iteration, row: PairRow, trained: bool) -> PairSummary {
    PairSummary {
        id: row.pair.id,
        iteration,
        trained,
        prompt_id: row.pair.prompt,
        score_chosen: row.pair.chosen.score,
        score_rejected: row.pair.rejected.score,
        asked: row.prompt.into_iter().next_back().map(|turn| turn.content).unwrap_or_default(),
        chosen: row.chosen,
        rejected: row.rejected,
    }
}

impl RunExport {
    /// A prompt with what was answered to it in an iteration, and what was said of that.
    pub(super) fn answered(
        &self,
        iteration: Iteration,
        open: &IterationView,
        prompt: &PromptId,
    ) -> Result<Option<AnsweredPrompt>, StageError> {
        let Some(places) = open.samples_of(prompt) else { return Ok(None) };
        let bodies = self.bodies();
        let answers = bodies.answers(&places)?;
        let said = match open.judged.get(prompt) {
            Some(at) => bodies.judgments(*at, answers.completions.len())?,
            None => RecordedJudgments { judgments: Vec::new(), scores: Vec::new() },
        };
        Ok(Some(AnsweredPrompt {
            iteration,
            prompt_id: prompt.clone(),
            prompt: bodies.prompt(&self.view, prompt)?.messages,
            answers: judged(&self.view, answers, &said),
        }))
    }

    /// Every answer that the run's iterations drew, of all or of one, with what was said of it.
    ///
    /// # Errors
    /// As [`RunExport::pairs`].
    pub fn candidates(&self, to: &Path, only: Option<Iteration>) -> Result<Manifest, Error> {
        let folder = NewFolder::begin(to)?;
        let mut file = folder.rows(ROWS)?;
        for (iteration, open) in self.iterations(only) {
            for prompt in open.sampled.keys() {
                let read = self.answered(iteration, open, prompt);
                let Some(found) = read.map_err(|e| self.unread(iteration, e))? else { continue };
                for answer in &found.answers {
                    file.push(&json!({
                        "prompt": found.prompt,
                        "completion": [Message::assistant(&*answer.text)],
                        "score": answer.score,
                        "standard_error": answer.standard_error,
                        "verdicts": answer.verdicts,
                        "tokens": answer.tokens,
                        "ended": answer.ended,
                        "logp": answer.logp,
                        "set": answer.set,
                        "index": answer.index,
                        "iteration": iteration,
                        "policy": open.policy.id().to_string(),
                        "prompt_id": found.prompt_id,
                    }))?;
                }
            }
        }
        let rows = file.finish("the run has drawn no answers there")?;
        also_parquet(&folder)?;
        let mut manifest = self.manifest("candidates", None, "jsonl".to_owned());
        manifest.rows = Some(rows);
        let what = "answers of a model with everything that its judge said of them";
        folder.write("README.md", self.data_card("Candidates", what, rows))?;
        manifest.finish(folder)
    }

    /// The pairs that the run's iterations formed, of all or of one, in the order of iterations and
    /// prompts.
    ///
    /// # Errors
    /// When their texts were dropped when the log was compacted, or cannot be read.
    pub fn pair_list(&self, only: Option<Iteration>) -> Result<Vec<PairSummary>, Error> {
        let mut all = Vec::new();
        for (iteration, open) in self.iterations(only) {
            let rows = self.rows_of(iteration, open)?.into_iter();
            all.extend(rows.map(|(row, trained)| summary(iteration, row, trained)));
        }
        Ok(all)
    }

    /// A pair by the beginning of its id, and all answers to its prompt.
    ///
    /// # Errors
    /// [`Error::Refused`] where no pair begins so, or several do; else as [`RunExport::pair_list`].
    pub fn pair(&self, wanted: &str) -> Result<(PairSummary, AnsweredPrompt), Error> {
        let refused = |why: String| Error::refused(Code::PairUnknown, why);
        let none =
            || refused(format!("no pair's id begins with {wanted:?}. gradus pairs lists them"));
        let all = self.iterations(None).flat_map(|(iteration, open)| {
            open.pairs.iter().map(move |(prompt, (id, at))| (iteration, open, prompt, id, *at))
        });
        let mut found = all.filter(|(_, _, _, id, _)| id.0.starts_with(wanted));
        let (iteration, open, prompt, id, at) = found.next().ok_or_else(none)?;
        if found.next().is_some() {
            return Err(refused(format!(
                "several pairs' ids begin with {wanted:?}; give more of it"
            )));
        }
        let unread = |error| self.unread(iteration, error);
        let row = self.pair_row(iteration, open, prompt, at).map_err(unread)?;
        let trained = open.sealed.iter().flatten().any(|sealed| sealed == id);
        let answered = self.answered(iteration, open, prompt).map_err(unread)?;
        Ok((summary(iteration, row, trained), answered.ok_or_else(none)?))
    }
}
