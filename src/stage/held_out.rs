//! Held-out answers as records, and back: an evaluation is made of nothing else, so whoever has the
//! records can audit it or judge it again.

use super::StageError;
use crate::domain::evaluation::HeldOutAnswer;
use crate::domain::text::bounded;
use crate::domain::{
    Completion, Event, Iteration, Judgment, Outcome, PolicyId, PromptId, RubricName,
};
use crate::log::EVENT_BYTES_MAX;
use serde::Serialize;

/// Bytes of one event's answers and judgments: half of what an event may have.
const PART_BYTES_MAX: usize = EVENT_BYTES_MAX / 2;

/// A prompt's answers by the policies that are compared, and what was said of them.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOutPrompt {
    /// Which.
    pub prompt: PromptId,
    /// Who judged.
    pub judge: PolicyId,
    /// One for each policy.
    pub answers: Vec<HeldOutAnswer>,
    /// Their `candidate` is an index of the answers.
    pub judgments: Vec<Judgment>,
    /// The rubrics that asked.
    pub rubrics: Vec<RubricName>,
}

impl HeldOutPrompt {
    /// What the policy with a role in the comparison answered.
    pub fn answer_as(&self, role: &str) -> Option<&HeldOutAnswer> {
        self.answers.iter().find(|answer| answer.roles.iter().any(|known| known == role))
    }

    /// The records of some prompts, put together again.
    pub fn gathered<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<HeldOutPrompt> {
        let mut all: Vec<HeldOutPrompt> = Vec::new();
        for event in events {
            let Event::HeldOutJudged { prompt, judge, answers, judgments, rubrics, .. } = event
            else {
                continue;
            };
            match all.last_mut().filter(|last| last.prompt == *prompt) {
                Some(last) => {
                    last.answers.extend(answers.iter().cloned());
                    last.judgments.extend(judgments.iter().cloned());
                }
                None => all.push(HeldOutPrompt {
                    prompt: prompt.clone(),
                    judge: judge.clone(),
                    answers: answers.clone(),
                    judgments: judgments.clone(),
                    rubrics: rubrics.clone(),
                }),
            }
        }
        all
    }

    /// As events, each of a size that the log takes.
    ///
    /// # Errors
    /// [`StageError::Missing`] when something is no JSON.
    pub fn recorded(&self, iteration: Iteration) -> Result<Vec<Event>, StageError> {
        let mut parts = Parts::default();
        for answer in &self.answers {
            let (answer, bytes) = fitting(answer, cut_answer)?;
            parts.room_for(bytes).answers.push(answer);
        }
        for judgment in &self.judgments {
            let (judgment, bytes) = fitting(judgment, cut_judgment)?;
            parts.room_for(bytes).judgments.push(judgment);
        }
        let event = |Part { answers, judgments }| Event::HeldOutJudged {
            iteration,
            prompt: self.prompt.clone(),
            judge: self.judge.clone(),
            answers,
            judgments,
            rubrics: self.rubrics.clone(),
        };
        Ok(parts.done.into_iter().chain([parts.open]).map(event).collect())
    }
}

/// What goes into one event.
#[derive(Default)]
struct Part {
    answers: Vec<HeldOutAnswer>,
    judgments: Vec<Judgment>,
}

/// What goes into events, one part each.
#[derive(Default)]
struct Parts {
    done: Vec<Part>,
    open: Part,
    /// Of the open one.
    bytes: usize,
}

impl Parts {
    /// The part that the next item of so many bytes goes to.
    fn room_for(&mut self, bytes: usize) -> &mut Part {
        if self.bytes + bytes > PART_BYTES_MAX && self.bytes > 0 {
            self.done.push(std::mem::take(&mut self.open));
            self.bytes = 0;
        }
        self.bytes += bytes;
        &mut self.open
    }
}

/// An item with its size as JSON; one that is larger than an event may be is cut, and says so.
fn fitting<T: Serialize + Clone>(item: &T, cut: fn(&T) -> T) -> Result<(T, usize), StageError> {
    let size = |item: &T| {
        let bytes = serde_json::to_vec(item).map(|bytes| bytes.len());
        bytes.map_err(|error| StageError::Missing(format!("a held-out answer as JSON: {error}")))
    };
    let bytes = size(item)?;
    if bytes <= PART_BYTES_MAX {
        return Ok((item.clone(), bytes));
    }
    let short = cut(item);
    let bytes = size(&short)?;
    Ok((short, bytes))
}

/// A text's beginning. A character takes at most six bytes as JSON.
fn beginning(text: &str) -> String {
    bounded(text, PART_BYTES_MAX / 16)
}

fn cut_answer(answer: &HeldOutAnswer) -> HeldOutAnswer {
    let Completion { token_ids, text, .. } = &answer.completion;
    let completion = Completion {
        token_ids: token_ids.iter().copied().take(PART_BYTES_MAX / 32).collect(),
        text: beginning(text),
        ..answer.completion.clone()
    };
    HeldOutAnswer { completion, ..answer.clone() }
}

fn cut_judgment(judgment: &Judgment) -> Judgment {
    let outcome = match judgment.outcome.clone() {
        Outcome::Scored { score, parsed } => Outcome::Scored { score, parsed },
        Outcome::Unparsed { reason } => Outcome::Unparsed { reason: beginning(&reason) },
        Outcome::Refused { reason } => Outcome::Refused { reason: beginning(&reason) },
        Outcome::Trapped { reason } => Outcome::Trapped { reason: beginning(&reason) },
    };
    Judgment { outcome, text: beginning(&judgment.text), ..judgment.clone() }
}
