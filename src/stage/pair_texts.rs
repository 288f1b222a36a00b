//! The two sides of a pair as the token ids that are trained on. What was sampled is trained on as it
//! was sampled; what is only known as text is spelled as the model would have written it.

use super::bodies::{Answers, SamplePlaces};
use super::judge::runner::question_of;
use super::{StageContext, StageError};
use crate::domain::event::SeedRow;
use crate::domain::{
    BlobHash, Judgment, Message, Offset, PairId, PreferencePair, Prompt, PromptId, Side, TextRef,
};
use crate::lm::fork::continuation;
use crate::lm::policy::Vocabulary;
use crate::lm::train::Belief;
use crate::view::{IterationView, RunView};
use std::collections::BTreeMap;

/// Where a pair and what it refers to are.
#[derive(Clone, Debug)]
pub(super) struct PairPlace {
    prompt: PromptId,
    pair: Offset,
    samples: SamplePlaces,
    judged: Option<Offset>,
}

/// The places of an iteration's pairs, in the order in which they are sealed: that of their prompts.
pub(super) fn places(open: &IterationView) -> Vec<PairPlace> {
    let place = |(prompt, (_, pair)): (&PromptId, &(PairId, Offset))| {
        let samples = open.samples_of(prompt)?;
        let judged = open.judged.get(prompt).copied();
        Some(PairPlace { prompt: prompt.clone(), pair: *pair, samples, judged })
    };
    open.pairs.iter().filter_map(place).collect()
}

/// A pair as token ids.
#[derive(Clone, Debug)]
pub(super) struct TokenizedPair {
    pub id: PairId,
    pub prompt: Vec<u32>,
    pub chosen: Vec<u32>,
    pub rejected: Vec<u32>,
    pub belief: Belief,
}

/// Reads pairs and what they refer to.
pub(super) struct PairReader<'a> {
    vocabulary: &'a dyn Vocabulary,
    view: &'a RunView,
    context: &'a StageContext,
    /// Seed rows by their blob.
    rows: BTreeMap<BlobHash, Vec<SeedRow>>,
}

impl<'a> PairReader<'a> {
    pub fn new(view: &'a RunView, context: &'a StageContext) -> PairReader<'a> {
        let vocabulary = context.models.vocabulary();
        PairReader { vocabulary, view, context, rows: BTreeMap::new() }
    }

    /// The pair at a place.
    pub fn read(&mut self, place: &PairPlace) -> Result<TokenizedPair, StageError> {
        let pair = self.context.bodies().pair(place.pair)?;
        let answers = self.context.bodies().answers(&place.samples)?;
        let prompt = self.question(&pair, place, &answers)?;
        Ok(TokenizedPair {
            chosen: self.side(&pair.chosen, &prompt, place, &answers)?,
            rejected: self.side(&pair.rejected, &prompt, place, &answers)?,
            prompt,
            belief: Belief { weight: pair.weight, label: pair.label },
            id: pair.id,
        })
    }

    /// What both sides answer: the prompt as it was read, or the judge's question where the sides are
    /// what a judge replied.
    fn question(
        &self,
        pair: &PreferencePair,
        place: &PairPlace,
        answers: &Answers,
    ) -> Result<Vec<u32>, StageError> {
        match (&pair.chosen.text, &pair.rejected.text) {
            (TextRef::Judgment { .. }, TextRef::Judgment { .. }) => {
                let (chosen, rejected) = (
                    self.judge_question(&pair.chosen.text, place, answers)?,
                    self.judge_question(&pair.rejected.text, place, answers)?,
                );
                match chosen == rejected {
                    true => Ok(self.vocabulary.encode_chat(&chosen)?),
                    false => Err(unlike(&pair.id, "were asked different questions")),
                }
            }
            (TextRef::Judgment { .. }, _) | (_, TextRef::Judgment { .. }) => {
                Err(unlike(&pair.id, "are a judgment and an answer"))
            }
            _ if !answers.prompt_ids.is_empty() => Ok(answers.prompt_ids.clone()),
            // A record of schema 1 does not say how the prompt was read.
            _ => Ok(self.vocabulary.encode_chat(&self.prompt(place)?.messages)?),
        }
    }

    fn prompt(&self, place: &PairPlace) -> Result<Prompt, StageError> {
        self.context.bodies().prompt(self.view, &place.prompt)
    }

    /// What the judge was asked that replied this.
    fn judge_question(
        &self,
        text: &TextRef,
        place: &PairPlace,
        answers: &Answers,
    ) -> Result<Vec<Message>, StageError> {
        let TextRef::Judgment { rubric, candidate, sample } = text else { return Ok(Vec::new()) };
        let judgment = self.judgment(place, text)?;
        let shown = judgment.shown().iter().filter_map(|at| answers.completions.get(*at as usize));
        let shown: Vec<&str> = shown.map(|completion| completion.text.as_str()).collect();
        let asked = question_of(&self.prompt(place)?, &shown, rubric, self.context);
        asked.map_err(|error| {
            let which = format!("judgment {sample} of completion {candidate}");
            StageError::Missing(format!("{which} of prompt {}: {error}", place.prompt))
        })
    }

    fn judgment(&self, place: &PairPlace, text: &TextRef) -> Result<Judgment, StageError> {
        let missing = || StageError::Missing(format!("{text:?} of prompt {}", place.prompt));
        let TextRef::Judgment { rubric, candidate, sample } = text else { return Err(missing()) };
        let at = place.judged.ok_or_else(missing)?;
        // Scores by completion are not looked at here.
        let judgments = self.context.bodies().judgments(at, 0)?.judgments;
        let ours =
            |j: &Judgment| j.rubric == *rubric && j.candidate == *candidate && j.sample == *sample;
        judgments.into_iter().find(ours).ok_or_else(missing)
    }

    /// A side as the ids that follow the question, the turn's end included where it was reached.
    fn side(
        &mut self,
        side: &Side,
        prompt: &[u32],
        place: &PairPlace,
        answers: &Answers,
    ) -> Result<Vec<u32>, StageError> {
        let spelled = |text: &str| answer_ids(self.vocabulary, prompt, text);
        match &side.text {
            TextRef::Completion { .. } => {
                let at = answers.texts.iter().position(|text| *text == side.text);
                let found = at.and_then(|at| answers.completions.get(at));
                found.map(|completion| completion.token_ids.clone()).ok_or_else(|| {
                    StageError::Missing(format!("{:?} of prompt {}", side.text, place.prompt))
                })
            }
            TextRef::Judgment { .. } => spelled(&self.judgment(place, &side.text)?.text),
            TextRef::SeedAnswer { blob, row } => {
                if !self.rows.contains_key(blob) {
                    self.rows.insert(blob.clone(), self.context.bodies().seed_rows(blob)?);
                }
                let missing = || StageError::Missing(format!("row {row} of the seed data {blob}"));
                let rows = self.rows.get(blob).ok_or_else(missing)?;
                let row = rows.get(*row as usize).ok_or_else(missing)?;
                answer_ids(self.vocabulary, prompt, &row.completion)
            }
        }
    }
}

fn unlike(pair: &PairId, how: &str) -> StageError {
    StageError::Missing(format!("the sides of pair {} {how}", pair.0))
}

/// An answer that is only known as text: as the model would write it after `prompt`, with the turn's
/// end.
pub(super) fn answer_ids(
    vocabulary: &dyn Vocabulary,
    prompt: &[u32],
    text: &str,
) -> Result<Vec<u32>, StageError> {
    let mut ids = continuation(vocabulary, prompt, text)?;
    ids.push(vocabulary.turn_end());
    Ok(ids)
}
