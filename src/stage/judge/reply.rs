//! What the judge replied, as a rubric reads it. A bad reply is an outcome and never an error; what
//! of it is recorded has an end, however long a rubric's words are.

use super::question::{Question, RenderedQuestion};
use crate::domain::text::bounded;
use crate::domain::{Criterion, Outcome, ReadoutFacts, Remarks};
use crate::rubric::{CallError, ParsedReply, Rubric, ScorePlace};
use crate::stage::StageError;

/// Characters of a rubric's reason that are recorded.
const REASON_CHARS_MAX: usize = 2000;
/// Characters of its rationale.
const RATIONALE_CHARS_MAX: usize = 8000;
/// Parts of one verdict that are recorded.
const CRITERIA_MAX: usize = 256;
/// Characters of the name of each.
const CRITERION_CHARS_MAX: usize = 200;

/// One reply, read.
#[derive(Clone, Debug)]
pub(crate) struct JudgeReply {
    /// Which of the item's answers were shown, in order.
    pub shown: Vec<usize>,
    /// Which of the k replies to what was shown.
    pub sample: u32,
    /// What came of it, for the first of them.
    pub outcome: Outcome,
    /// What each of them got; none without a score.
    pub scores: Vec<f64>,
    /// How they were read from probabilities; none where they are what `parse` read.
    pub readout: Option<ReadoutFacts>,
    /// What else the rubric read.
    pub remarks: Remarks,
    /// The judge's own words.
    pub text: String,
    /// Fuel that rendering and parsing used.
    pub fuel: u64,
    /// Whether it was recorded before.
    pub recorded: bool,
}

/// A reply and where in it the rubric read its score.
pub(super) struct LocatedReply {
    pub reply: JudgeReply,
    /// Where the score was read, in order.
    pub places: Vec<ScorePlace>,
    /// It holds no score, and nothing that contradicts itself either.
    pub missing: bool,
}

impl JudgeReply {
    /// Of a question that got no reply, and why.
    pub fn without_text(shown: &[usize], outcome: Outcome) -> JudgeReply {
        JudgeReply {
            shown: shown.to_vec(),
            sample: 0,
            outcome,
            scores: Vec::new(),
            readout: None,
            remarks: Remarks::default(),
            text: String::new(),
            fuel: 0,
            recorded: false,
        }
    }

    /// What was read from probabilities takes the place of the score that was written.
    pub fn read_out(&mut self, scores: Vec<f64>, facts: ReadoutFacts) {
        let parsed = self.outcome.score();
        let Some(score) = scores.first().copied() else { return };
        self.outcome = Outcome::Scored { score, parsed };
        self.scores = scores;
        self.readout = Some(facts);
    }
}

impl LocatedReply {
    /// A text, read by the rubric that asked for it.
    ///
    /// # Errors
    /// [`StageError::Sandbox`] when this machine cannot run the rubric now.
    pub fn read(
        rubric: &Rubric,
        rendered: &RenderedQuestion,
        question: &Question,
        text: String,
    ) -> Result<LocatedReply, StageError> {
        let readout = rendered.rendered.readout.as_ref();
        let (mut given, mut places, mut missing) = (Vec::new(), Vec::new(), false);
        let mut remarks = Remarks::default();
        let (outcome, fuel) = match rubric.read(&question.input, &text, readout) {
            Ok(ParsedReply::Verdict { scores, places: read, criteria, rationale, fuel }) => {
                let outcome = match scores.first() {
                    Some(score) => Outcome::Scored { score: *score, parsed: Some(*score) },
                    None => Outcome::Unparsed { reason: "a verdict without a score".into() },
                };
                (given, places) = (scores, read);
                remarks = remarks_of(criteria, rationale, &text);
                (outcome, fuel)
            }
            Ok(ParsedReply::Missing { fuel }) => {
                missing = true;
                (Outcome::Unparsed { reason: "no score found".into() }, fuel)
            }
            Ok(ParsedReply::Unparsed { reason, fuel }) => {
                (Outcome::Unparsed { reason: bounded(&reason, REASON_CHARS_MAX) }, fuel)
            }
            Err(error) => (outcome_of(error)?, 0),
        };
        let reply = JudgeReply {
            scores: given,
            remarks,
            text,
            fuel: fuel + rendered.rendered.fuel,
            ..JudgeReply::without_text(&question.shown, outcome)
        };
        Ok(LocatedReply { reply, places, missing })
    }
}

/// Why a question of so many tokens is not put: there must be room for a reply.
pub(super) fn too_long(tokens: usize, most: usize) -> Option<Outcome> {
    let reason = || {
        format!(
            "not judged: too long. The question has {tokens} tokens and the model reads {most}, its \
             reply included; shorten the answers (sampling.max_new_tokens) or the rubric's text"
        )
    };
    (tokens + 1 >= most).then(|| Outcome::Refused { reason: reason() })
}

/// What is recorded of a call that gave nothing.
pub(super) fn outcome_of(error: CallError) -> Result<Outcome, StageError> {
    let short = |reason: String| bounded(&reason, REASON_CHARS_MAX);
    match error {
        CallError::Refused(reason) => Ok(Outcome::Refused { reason: short(reason) }),
        CallError::Trapped { reason } => Ok(Outcome::Trapped { reason: short(reason) }),
        CallError::Host { reason } => Err(StageError::Sandbox(reason)),
    }
}

/// What a verdict holds besides its scores.
fn remarks_of(criteria: Vec<(String, f64)>, rationale: String, text: &str) -> Remarks {
    let left_out = criteria.len().saturating_sub(CRITERIA_MAX);
    let rationale = Some(rationale).filter(|why| !why.is_empty() && why != text);
    let rationale = rationale.map(|why| bounded(&why, RATIONALE_CHARS_MAX));
    let rationale = match left_out {
        0 => rationale,
        n => Some(format!("{} [{n} more parts are not recorded]", rationale.unwrap_or_default())),
    };
    let criterion = |(name, value): (String, f64)| Criterion {
        name: bounded(&name, CRITERION_CHARS_MAX),
        value,
    };
    let criteria = criteria.into_iter().take(CRITERIA_MAX).map(criterion).collect();
    Remarks { criteria, rationale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_leaves_room_for_a_reply() {
        assert_eq!(too_long(254, 256), None);
        let Some(Outcome::Refused { reason }) = too_long(255, 256) else {
            panic!("it has no room")
        };
        assert!(
            reason.starts_with("not judged: too long. The question has 255 tokens"),
            "{reason}"
        );
    }

    /// Case G5: a rubric whose refusal is of three megabytes must not stop a run.
    #[test]
    fn whatever_a_rubric_says_is_recorded_with_an_end() {
        let long = "x".repeat(3_000_000);
        for error in [CallError::Refused(long.clone()), CallError::Trapped { reason: long.clone() }]
        {
            let outcome = outcome_of(error).unwrap();
            assert!(serde_json::to_vec(&outcome).unwrap().len() < 3000);
        }
        let parts = (0..1000).map(|_| (long.clone(), 1.0)).collect();
        let remarks = remarks_of(parts, long.clone(), "");
        assert!(serde_json::to_vec(&remarks).unwrap().len() < 100_000);
        assert!(remarks.rationale.unwrap().ends_with("[744 more parts are not recorded]"));
    }

    #[test]
    fn a_rationale_that_is_the_whole_reply_is_not_kept_twice() {
        let parts = || vec![("clear".to_owned(), 1.0)];
        let whole = remarks_of(parts(), "It is.".to_owned(), "It is.");
        assert_eq!((whole.criteria.len(), whole.rationale), (1, None));
        assert_eq!(remarks_of(parts(), "It".into(), "It is.").rationale.as_deref(), Some("It"));
    }
}
