//! EFT BUILD: seed data that teaches a model to judge, from answers whose requirements a program can
//! check. A program decides and says what it saw, once; after that the model is its own judge.
//!
//! Each row is a question of the rubric that will judge, rendered by that rubric itself, with the reply
//! that a good judge gives: evidence, then the verdict. The answers are the model's own, answers to other
//! prompts, and both changed so that they meet a requirement or just miss it; half the verdicts of each
//! kind of requirement are yes. Answers of its own that meet everything are instruction data.
//!
//! Source: the evaluation fine-tuning data of "Self-Rewarding Language Models" (section 2.1), with a
//! verifier in the place of people; evidence first, after the pilots of issue 25. Knows rubrics and
//! texts, no run.

mod answers;
mod constraint;
mod evidence;
mod rows;
mod text;
mod variants;

pub use answers::{draw_answers, open_model};

use crate::dice::Dice;
use crate::domain::event::SeedRow;
use crate::domain::{Prompt, Seed};
use crate::error::{Code, Error};
use crate::rubric::{CallError, ParsedReply, Rubric};
use rows::{EftCandidate, EftPool};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A prompt, and what was answered to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EftPrompt {
    /// The prompt, with its constraints.
    pub prompt: Prompt,
    /// The answers to it.
    pub answers: Vec<GivenAnswer>,
}

/// An answer of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenAnswer {
    /// The answer.
    pub text: String,
    /// Whether it ended by itself: what was cut off is judged, and not learned from.
    pub ended: bool,
}

/// Who decides, and who will ask.
#[derive(Clone, Copy)]
pub struct EftRubrics<'a> {
    /// Decides whether a response meets a constraint: a program that gives each a criterion.
    pub verifier: &'a Rubric,
    /// Renders the questions, and will read the replies.
    pub judge: &'a Rubric,
}

/// How much is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EftSize {
    /// Rows that teach to judge, at most.
    pub eft: usize,
    /// Rows that teach to answer, at most.
    pub ift: usize,
    /// Root of all choices.
    pub seed: u64,
}

/// A kind of constraint among the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EftKind {
    /// Rows whose verdict on it is yes.
    pub yes: usize,
    /// Rows whose verdict on it is no.
    pub no: usize,
    /// Answers of the model to prompts with it, as they were given.
    pub answers: usize,
    /// Those of them that meet it.
    pub met: usize,
}

/// What was built, and of what.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EftReport {
    /// Rows that teach to judge.
    pub eft_rows: usize,
    /// Rows that teach to answer.
    pub ift_rows: usize,
    /// Of the former, those with an answer as the model gave it.
    pub as_given: usize,
    /// By kind of constraint.
    pub kinds: BTreeMap<String, EftKind>,
    /// Rows that were left out, for the rubric would read the reply otherwise.
    pub unread: usize,
    /// Prompts that were left out, by why.
    pub left_out: BTreeMap<String, usize>,
}

/// Seed data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuiltSeedData {
    /// Judge prompts with the replies to learn.
    pub eft: Vec<SeedRow>,
    /// Prompts with the answers to learn.
    pub ift: Vec<SeedRow>,
    /// What it came to.
    pub report: EftReport,
}

/// Builds seed data from answers, the same for the same input.
///
/// # Errors
/// When no prompt has a constraint that can be judged with evidence, a rubric cannot be called, or the
/// judge's does not read the replies that would be taught.
pub fn from_verifier(
    answered: &[EftPrompt],
    rubrics: EftRubrics<'_>,
    size: EftSize,
) -> Result<BuiltSeedData, Error> {
    let mut dice = Dice::new(Seed::root(size.seed).derive("eft build"));
    let pool = EftPool::of(answered, rubrics.verifier, &mut dice)?;
    let mut report = pool.report();
    if report.kinds.is_empty() {
        let each = report.left_out.iter().map(|(why, count)| format!("{count} prompts: {why}"));
        let left_out = each.collect::<Vec<_>>().join("; ");
        return Err(Error::refused(
            Code::NothingToTeach,
            format!(
                "no prompt has a constraint that can be judged with evidence (a field such as \
                 punctuation:no_comma), so there is nothing to teach. {left_out}"
            ),
        ));
    }
    let ift = instruction_rows(&pool, size.ift, &mut dice);
    let chosen = pool.balanced(size.eft, &mut dice);
    let mut eft = Vec::with_capacity(chosen.len());
    let mut unread = None;
    for candidate in &chosen {
        match row(candidate, rubrics.judge)? {
            Ok(row) => eft.push(row),
            Err(reply) => {
                report.unread += 1;
                unread = Some(reply);
                continue;
            }
        }
        report.as_given += usize::from(candidate.origin.is_as_given());
        for (name, met) in &candidate.met {
            let kind = report.kinds.entry(name.clone()).or_default();
            *(if *met { &mut kind.yes } else { &mut kind.no }) += 1;
        }
    }
    if let (true, Some(reply)) = (eft.is_empty(), unread) {
        return Err(not_read(rubrics.judge, &reply));
    }
    (report.eft_rows, report.ift_rows) = (eft.len(), ift.len());
    Ok(BuiltSeedData { eft, ift, report })
}

/// Answers as they were given that meet everything, in a random order.
fn instruction_rows(pool: &EftPool<'_>, most: usize, dice: &mut Dice) -> Vec<SeedRow> {
    let good: Vec<&EftCandidate<'_>> = pool.candidates.iter().filter(|one| one.is_good()).collect();
    let row = |one: &&EftCandidate<'_>| SeedRow {
        messages: one.prompt.messages.clone(),
        completion: one.response.clone(),
    };
    dice.shuffled(&good).iter().take(most).map(row).collect()
}

/// The question about a candidate, with the reply to learn; that reply alone where the rubric that asks
/// does not read it as what it says.
fn row(candidate: &EftCandidate<'_>, judge: &Rubric) -> Result<Result<SeedRow, String>, Error> {
    let input = candidate.input();
    let rendered = judge.render(&input).map_err(|error| failed(judge, &error))?;
    let reply = candidate.reply();
    let read = judge.parse(&input, &reply).map_err(|error| failed(judge, &error))?;
    let right = match read {
        ParsedReply::Verdict { scores, .. } => {
            scores.first().is_some_and(|score| (score - candidate.share_met()).abs() < 1e-9)
        }
        _ => false,
    };
    Ok(match right {
        true => Ok(SeedRow { messages: rendered.messages, completion: reply }),
        false => Err(reply),
    })
}

fn not_read(judge: &Rubric, reply: &str) -> Error {
    Error::refused(
        Code::RubricReadsOtherwise,
        format!(
            "the rubric {} reads none of the replies that would be taught, such as {reply:?}. Take \
             requirements, or a rubric that reads a line Verdict: yes or Verdict: no for each \
             requirement",
            judge.info().name
        ),
    )
}

/// A call of a rubric that gave nothing.
fn failed(rubric: &Rubric, error: &CallError) -> Error {
    Error::refused(error.code(), format!("the rubric {}: {error}", rubric.info().name))
}

#[cfg(test)]
mod tests;
