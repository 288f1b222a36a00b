//! What goes into a rubric and what comes out, free of wasmtime's types.

use super::place::check_places;
use super::world::{ParseFailure, RawPrompt, RawVerdict};
use crate::codes::Code;
use crate::domain::{Message, Prompt, Scale};

/// What is to be judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RubricInput {
    /// The instruction.
    pub task: String,
    /// What surrounds it.
    pub context: Option<String>,
    /// A known good answer.
    pub reference: Option<String>,
    /// The completions.
    pub candidates: Vec<String>,
    /// Anything else, by name.
    pub fields: Vec<(String, String)>,
}

impl RubricInput {
    /// A prompt as rubrics see it, with these responses to it.
    pub fn of(prompt: &Prompt, candidates: Vec<String>) -> RubricInput {
        let notes = &prompt.notes;
        RubricInput {
            task: prompt.task_text().to_owned(),
            context: prompt.context(),
            reference: notes.reference.clone(),
            candidates,
            fields: notes.fields.clone().into_iter().collect(),
        }
    }
}

/// A score read from probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Readout {
    /// The text right before the score.
    pub lead: String,
    /// Continuations, and what each gives to every candidate.
    pub choices: Vec<(String, Vec<f64>)>,
}

impl Readout {
    /// What a judge writes for the first candidate's best score.
    pub fn best_verdict(&self) -> String {
        let score = |scores: &Vec<f64>| scores.first().copied().unwrap_or(f64::NEG_INFINITY);
        let best = self.choices.iter().max_by(|a, b| score(&a.1).total_cmp(&score(&b.1)));
        let best = best.map_or("", |(text, _)| text);
        format!("{} {}", self.lead.trim_end(), best.trim_start())
    }
}

/// A place in the judge's answer where it decided: where `parse` read a score from.
#[derive(Clone, Debug, PartialEq)]
pub struct ScorePlace {
    /// The first byte of what is written there.
    pub start: usize,
    /// The first byte after it.
    pub end: usize,
    /// How much it counts among the answer's places.
    pub weight: f64,
    /// Everything that could have stood there, what does stand there among it, and what each gives
    /// to every candidate.
    pub choices: Vec<(String, Vec<f64>)>,
}

/// What the judge model is to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The chat; none when the rubric is a program that reads the answer itself.
    pub messages: Vec<Message>,
    /// Bound on the answer.
    pub max_tokens: u32,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// How to read the score from probabilities, if it can be.
    pub readout: Option<Readout>,
    /// Fuel used.
    pub fuel: u64,
    /// What the rubric logged.
    pub log: Vec<String>,
}

impl Rendered {
    /// Whether a model would reply the same to both: the readout comes after the reply.
    pub fn asks_the_same(&self, other: &Rendered) -> bool {
        (&self.messages, self.max_tokens, &self.stop)
            == (&other.messages, other.max_tokens, &other.stop)
    }
}

/// What a judge's answer holds.
#[derive(Clone, Debug, PartialEq)]
pub enum ParsedReply {
    /// Scores.
    Verdict {
        /// One per candidate, inside the scale.
        scores: Vec<f64>,
        /// Where it was read, in order; none when probabilities cannot say it.
        places: Vec<ScorePlace>,
        /// Sub-scores by name.
        criteria: Vec<(String, f64)>,
        /// Why, in the judge's words.
        rationale: String,
        /// Fuel used.
        fuel: u64,
    },
    /// No score at all.
    Missing {
        /// Fuel used.
        fuel: u64,
    },
    /// A score that cannot be used: contradictory, out of range, malformed.
    Unparsed {
        /// Why.
        reason: String,
        /// Fuel used.
        fuel: u64,
    },
}

/// A call that gave nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The rubric will not judge this item.
    #[error("the rubric refused: {0}")]
    Refused(String),
    /// The rubric broke a limit or itself.
    #[error("the rubric trapped: {reason}")]
    Trapped {
        /// What the sandbox said.
        reason: String,
    },
    /// This machine did not give the sandbox what it needs just now. Says nothing of the rubric
    /// or the item: it must never become a judgment.
    #[error("the sandbox could not be set up: {reason}")]
    Host {
        /// What the system said.
        reason: String,
    },
}

impl CallError {
    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            CallError::Refused(_) => Code::RubricRefusedCase,
            CallError::Trapped { .. } => Code::RubricTrapped,
            CallError::Host { .. } => Code::SandboxShort,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    pub(super) fn trapped(reason: impl Into<String>) -> CallError {
        CallError::Trapped { reason: reason.into() }
    }
}

const TOKENS_MAX: u32 = 4096;

/// Checks what types cannot say of a prompt.
pub(super) fn rendered(
    prompt: RawPrompt,
    candidates: usize,
    scale: Scale,
) -> Result<Rendered, CallError> {
    let wrong = |reason: &str| Err(CallError::trapped(reason));
    let asks = !prompt.messages.is_empty();
    if !asks && prompt.readout.is_some() {
        return wrong("render gave no message, but a readout");
    }
    if asks && prompt.max_tokens == 0 {
        return wrong("render gave max-tokens 0");
    }
    if let Some(readout) = &prompt.readout {
        if !differ(&readout.choices) {
            return wrong("a readout needs at least two different choices");
        }
        for (_, scores) in &readout.choices {
            check_scores(scores, candidates, scale)?;
        }
    }
    Ok(Rendered {
        messages: prompt.messages,
        max_tokens: prompt.max_tokens.min(TOKENS_MAX),
        stop: prompt.stop,
        readout: prompt.readout,
        fuel: 0,
        log: Vec::new(),
    })
}

/// Whether there are at least two choices, none empty and no two of one text.
pub(super) fn differ(choices: &[(String, Vec<f64>)]) -> bool {
    let mut texts: Vec<&str> = choices.iter().map(|(text, _)| text.as_str()).collect();
    texts.sort_unstable();
    texts.dedup();
    texts.len() >= 2 && texts.len() == choices.len() && !texts.contains(&"")
}

/// Scores must be finite, inside the scale, and as many as candidates.
pub(super) fn check_scores(
    scores: &[f64],
    candidates: usize,
    scale: Scale,
) -> Result<(), CallError> {
    if scores.len() != candidates {
        let reason = format!("{} scores for {candidates} candidates", scores.len());
        return Err(CallError::trapped(reason));
    }
    let Scale { min, max } = scale;
    match scores.iter().find(|s| !s.is_finite() || **s < min || **s > max) {
        Some(score) => Err(CallError::trapped(format!("score {score} is outside {min} to {max}"))),
        None => Ok(()),
    }
}

/// Checks what types cannot say of what was read in an answer.
pub(super) fn parsed_reply(
    parsed: Result<RawVerdict, ParseFailure>,
    answer: &str,
    candidates: usize,
    scale: Scale,
    fuel: u64,
) -> Result<ParsedReply, CallError> {
    let unparsed = |reason: String| Ok(ParsedReply::Unparsed { reason, fuel });
    match parsed {
        Ok(RawVerdict { scores, places, criteria, rationale }) => {
            check_scores(&scores, candidates, scale)?;
            check_places(&places, answer, candidates, scale)?;
            Ok(ParsedReply::Verdict { scores, places, criteria, rationale, fuel })
        }
        Err(ParseFailure::Missing) => Ok(ParsedReply::Missing { fuel }),
        Err(ParseFailure::Ambiguous(found)) => {
            unparsed(format!("scores that disagree: {}", found.join(", ")))
        }
        Err(ParseFailure::OutOfRange(score)) => {
            unparsed(format!("{score} is outside {} to {}", scale.min, scale.max))
        }
        Err(ParseFailure::Malformed(reason)) => unparsed(reason),
    }
}
