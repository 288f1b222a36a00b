//! Puts answers before the judge model under one rubric: the rubric renders the question, the
//! model replies k times, the rubric reads each reply, and [`super::tally`] makes scores of them.
//!
//! A rubric sees as many answers together as it takes: one alone, or every group of its size. Where
//! their order may matter each group is shown in every rotation. A rubric that asks nothing is a
//! program: no model is needed, and what it reads is the answer itself.

use super::readout::{PendingReadout, expectation, readout_context, stopped};
use super::tally::{Shown, tally};
use super::{Desk, StageError};
use crate::config::ReadoutMode;
use crate::domain::{Completion, Outcome, PolicyRef, Prompt, Seed, StopReason};
use crate::lm::generate::{DrawRequest, Sampling};
use crate::lm::policy::LanguageModel;
use crate::rubric::{CallError, Item, Reading, Readout, Rendered, Rubric};
use std::sync::Arc;

/// Groups of one prompt's answers are refused beyond this many: the cost grows with each.
const GROUPS_MAX: usize = 256;

/// Where a question's replies take their randomness from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seeds {
    /// From the question's place.
    Placed(Seed),
    /// From the answers' words: the same answer is judged the same wherever it stands.
    Worded(Seed),
}

/// A reply that somebody gave before, to a rubric that showed the same answers.
#[derive(Clone)]
pub(crate) struct Remembered {
    /// Who asked for it.
    pub rubric: Rubric,
    /// Which of the sheet's answers were shown, in order.
    pub seen: Vec<usize>,
    pub sample: u32,
    pub text: String,
    /// What each of them got; none without a score.
    pub scores: Vec<f64>,
}

/// The different answers to one prompt.
#[derive(Clone)]
pub(crate) struct Sheet<'a> {
    pub item: Item,
    pub tags: Vec<String>,
    pub answers: Vec<&'a str>,
    pub seeds: Seeds,
    /// Replies that need not be drawn again when the question is the same.
    pub past: Vec<Remembered>,
}

impl<'a> Sheet<'a> {
    /// Answers to a prompt.
    pub fn of(prompt: &Prompt, answers: Vec<&'a str>, seeds: Seeds) -> Sheet<'a> {
        let notes = &prompt.notes;
        let item = Item {
            task: prompt.task_text().to_owned(),
            context: prompt.context(),
            reference: notes.reference.clone(),
            candidates: Vec::new(),
            fields: notes.fields.clone().into_iter().collect(),
        };
        Sheet { item, tags: notes.tags.clone(), answers, seeds, past: Vec::new() }
    }

    /// The same with randomness of its own for a seat after the first.
    pub fn for_seat(&self, place: usize) -> Sheet<'a> {
        let own = |seed: Seed| match place {
            0 => seed,
            later => seed.derive("seat").index(later as u64),
        };
        let seeds = match self.seeds {
            Seeds::Placed(seed) => Seeds::Placed(own(seed)),
            Seeds::Worded(seed) => Seeds::Worded(own(seed)),
        };
        Sheet { seeds, ..self.clone() }
    }
}

/// One reply, read.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// Which of the sheet's answers were shown, in order.
    pub seen: Vec<usize>,
    /// Which of the k replies to what was shown.
    pub sample: u32,
    /// What came of it, for the first of them.
    pub outcome: Outcome,
    /// What each of them got; none without a score.
    pub scores: Vec<f64>,
    /// The judge's own words.
    pub text: String,
    pub fuel: u64,
    /// Whether somebody gave it before.
    pub recalled: bool,
}

/// What became of a sheet under one rubric.
#[derive(Clone, Debug)]
pub(crate) struct Marked {
    pub replies: Vec<Reply>,
    /// One for each answer of the sheet, in the rubric's scale.
    pub scores: Vec<Option<f64>>,
}

/// One question: some answers of a sheet in some order.
struct Question {
    sheet: usize,
    seen: Vec<usize>,
    item: Item,
    seed: Seed,
}

struct Asked {
    rendered: Rendered,
    /// What was replied to the same question before, all to one rubric.
    past: Vec<Remembered>,
    /// Whether that rubric read the same readout from it.
    same_readout: bool,
}

/// The prompt's tokens and the replies to it.
type Drawn = (Vec<u32>, Vec<Completion>);

/// Why a question has no reply when nobody is there to give one.
pub(crate) const NOT_ASKED: &str = "nobody replied to this question before, and no model was asked";

/// What a judge says about answers.
pub(crate) struct Bench<'a> {
    /// Who replies, opened when a question needs it; `None`: only what was replied before counts.
    pub policy: Option<&'a PolicyRef>,
    pub rubric: &'a Rubric,
    pub samples: u32,
    pub desk: &'a Desk,
}

/// All groups of `size` of `n` answers, in order.
fn groups(n: usize, size: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..size {
        all = all
            .into_iter()
            .flat_map(|group: Vec<usize>| {
                let from = group.last().map_or(0, |last| last + 1);
                (from..n).map(move |next| [group.as_slice(), &[next]].concat())
            })
            .collect();
    }
    all
}

/// The orders in which a group is shown.
fn orders(group: &[usize], order_sensitive: bool) -> Vec<Vec<usize>> {
    let rotations = if order_sensitive { group.len() } else { 1 };
    (0..rotations)
        .map(|by| {
            let mut order = group.to_vec();
            order.rotate_left(by);
            order
        })
        .collect()
}

/// What is shown of `n` answers, each group with its orders; nothing when there are too few.
pub(crate) fn shown(n: usize, rubric: &Rubric) -> Vec<Vec<usize>> {
    let info = rubric.info();
    let size = n.min(info.max_candidates as usize);
    if size < info.min_candidates as usize {
        return Vec::new();
    }
    let groups = groups(n, size).into_iter().take(GROUPS_MAX);
    groups.flat_map(|group| orders(&group, info.order_sensitive)).collect()
}

impl Bench<'_> {
    /// Judges every sheet; the results are in their order.
    pub fn judge(&self, sheets: &[Sheet<'_>]) -> Result<Vec<Marked>, StageError> {
        let mut questions = Vec::new();
        for (at, sheet) in sheets.iter().enumerate() {
            questions.extend(self.questions(at, sheet));
        }
        let mut replies: Vec<Vec<Reply>> = sheets.iter().map(|_| Vec::new()).collect();
        for (question, answered) in questions.iter().zip(self.replies(&questions, sheets)?) {
            if let Some(sheet) = replies.get_mut(question.sheet) {
                sheet.extend(answered);
            }
        }
        let combine = self.rubric.info().aggregation;
        let marked = sheets.iter().zip(replies).map(|(sheet, replies)| {
            let shown: Vec<Shown<'_>> = replies
                .iter()
                .map(|r| Shown { seen: &r.seen, sample: r.sample, scores: &r.scores })
                .collect();
            let scores = tally(&shown, sheet.answers.len(), combine);
            Marked { scores, replies }
        });
        Ok(marked.collect())
    }

    fn questions(&self, at: usize, sheet: &Sheet<'_>) -> Vec<Question> {
        let shown = shown(sheet.answers.len(), self.rubric).into_iter().zip(0u64..);
        shown
            .map(|(seen, place)| {
                let candidates: Vec<String> = seen
                    .iter()
                    .filter_map(|one| sheet.answers.get(*one))
                    .map(|text| (*text).to_owned())
                    .collect();
                let seed = match sheet.seeds {
                    Seeds::Placed(seed) => seed.index(place),
                    Seeds::Worded(seed) => {
                        let hash = |text: &String| blake3::hash(text.as_bytes()).to_hex();
                        candidates.iter().fold(seed, |seed, text| seed.derive(&hash(text)))
                    }
                };
                let item = Item { candidates, ..sheet.item.clone() };
                Question { sheet: at, seen, item, seed }
            })
            .collect()
    }

    fn model(&self) -> Result<Option<Arc<dyn LanguageModel>>, StageError> {
        self.policy.map(|policy| self.desk.workshop.policy(policy)).transpose()
    }

    fn replies(
        &self,
        questions: &[Question],
        sheets: &[Sheet<'_>],
    ) -> Result<Vec<Vec<Reply>>, StageError> {
        let past = |q: &Question| sheets.get(q.sheet).map_or(&[][..], |sheet| &sheet.past);
        let asked =
            questions.iter().map(|q| self.ask(q, past(q))).collect::<Result<Vec<_>, _>>()?;
        let mut drawn = self.draw(&asked, questions)?.into_iter();
        let mut readouts = Vec::new();
        let mut all = Vec::with_capacity(questions.len());
        for (at, (asked, question)) in asked.iter().zip(questions).enumerate() {
            all.push(match asked {
                Err(outcome) => vec![self.unasked(question, outcome)],
                Ok(asked) if asked.is_a_program() => vec![self.read_program(asked, question)?],
                Ok(asked) if asked.is_recalled() => {
                    self.read_recalled(asked, question, at, &mut readouts)?
                }
                Ok(asked) => match drawn.next() {
                    Some(drawn) => self.read_all(asked, question, &drawn, at, &mut readouts)?,
                    None => {
                        let outcome = Outcome::Refused { reason: NOT_ASKED.to_owned() };
                        vec![self.unasked(question, &outcome)]
                    }
                },
            });
        }
        self.apply_readouts(&mut all, readouts)?;
        Ok(all)
    }

    /// Replies to the questions that need some, in their order. The model is not even opened when
    /// none does.
    fn draw(
        &self,
        asked: &[Result<Asked, Outcome>],
        questions: &[Question],
    ) -> Result<Vec<Drawn>, StageError> {
        let needs = |asked: &&Asked| !asked.is_a_program() && !asked.is_recalled();
        let waiting: Vec<(&Asked, Seed)> = asked
            .iter()
            .zip(questions)
            .filter_map(|(asked, q)| Some((asked.as_ref().ok().filter(needs)?, q.seed)))
            .collect();
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let Some(model) = self.model()? else { return Ok(Vec::new()) };
        let requests = waiting
            .iter()
            .map(|(asked, seed)| {
                let ids = model.encode_chat(&asked.rendered.messages)?;
                Ok(self.request(model.as_ref(), asked, ids, *seed))
            })
            .collect::<Result<Vec<DrawRequest>, StageError>>()?;
        let drawn = model.draw(&requests, &self.desk.cancel)?;
        Ok(requests.into_iter().map(|request| request.prompt).zip(drawn).collect())
    }

    fn unasked(&self, question: &Question, outcome: &Outcome) -> Reply {
        let (seen, outcome) = (question.seen.clone(), outcome.clone());
        let (scores, text) = (Vec::new(), String::new());
        Reply { seen, sample: 0, outcome, scores, text, fuel: 0, recalled: false }
    }

    fn ask(
        &self,
        question: &Question,
        past: &[Remembered],
    ) -> Result<Result<Asked, Outcome>, StageError> {
        Ok(match self.rubric.render(&question.item) {
            Ok(rendered) => Ok(self.recall(rendered, question, past)),
            Err(CallError::Refused(reason)) => Err(Outcome::Refused { reason }),
            Err(CallError::Trapped { reason }) => Err(Outcome::Trapped { reason }),
            Err(CallError::Host { reason }) => return Err(StageError::Sandbox(reason)),
        })
    }

    /// What was replied before, where a rubric asked the same: best this one itself, for others may
    /// have got the very same replies. Each rubric renders the question once.
    fn recall(&self, rendered: Rendered, question: &Question, past: &[Remembered]) -> Asked {
        let mut past: Vec<&Remembered> =
            past.iter().filter(|past| past.seen == question.seen).collect();
        past.sort_by_key(|past| past.rubric.id() != self.rubric.id());
        while let Some(first) = past.first() {
            let whose = first.rubric.id();
            let (theirs, others): (Vec<_>, Vec<_>) =
                past.iter().copied().partition(|past| past.rubric.id() == whose);
            let before = first.rubric.render(&question.item).ok();
            if let Some(before) = before.filter(|before| before.asks_the_same(&rendered)) {
                let same_readout = before.readout == rendered.readout;
                let past = theirs.into_iter().cloned().collect();
                return Asked { rendered, past, same_readout };
            }
            past = others;
        }
        Asked { rendered, past: Vec::new(), same_readout: false }
    }

    fn request(
        &self,
        model: &dyn LanguageModel,
        asked: &Asked,
        prompt: Vec<u32>,
        seed: Seed,
    ) -> DrawRequest {
        let settings = &self.desk.config.judge;
        DrawRequest {
            prompt,
            seeds: (0..u64::from(self.samples)).map(|i| seed.index(i)).collect(),
            sampling: Sampling {
                temperature: settings.temperature as f32,
                top_p: settings.top_p as f32,
                max_new_tokens: asked.rendered.max_tokens.min(settings.max_new_tokens) as usize,
                top_k: None,
                min_p: None,
                repetition_penalty: 1.0,
                stop_ids: model.stop_ids().to_vec(),
            },
        }
    }

    fn read_program(&self, asked: &Asked, question: &Question) -> Result<Reply, StageError> {
        let (mut reply, _) = self.read(asked, question, String::new())?;
        reply.sample = 0;
        Ok(reply)
    }

    /// Reads a reply; whether a readout may replace its score.
    fn read(
        &self,
        asked: &Asked,
        question: &Question,
        text: String,
    ) -> Result<(Reply, bool), StageError> {
        let mut given = Vec::new();
        let (outcome, fuel, readable) = match self.rubric.parse(&question.item, &text) {
            Ok(Reading::Verdict { scores, fuel, .. }) => {
                let score = scores.first().copied().unwrap_or_default();
                given = scores;
                (Outcome::Scored { score, parsed: Some(score) }, fuel, true)
            }
            Ok(Reading::Missing { fuel }) => {
                (Outcome::Unparsed { reason: "no score found".into() }, fuel, true)
            }
            Ok(Reading::Unparsed { reason, fuel }) => (Outcome::Unparsed { reason }, fuel, false),
            Err(CallError::Refused(reason)) => (Outcome::Refused { reason }, 0, false),
            Err(CallError::Trapped { reason }) => (Outcome::Trapped { reason }, 0, false),
            Err(CallError::Host { reason }) => return Err(StageError::Sandbox(reason)),
        };
        let (seen, fuel) = (question.seen.clone(), fuel + asked.rendered.fuel);
        let (scores, recalled) = (given, false);
        Ok((Reply { seen, sample: 0, outcome, scores, text, fuel, recalled }, readable))
    }

    /// The readout that replaces the score of a reply.
    fn readout<'r>(&self, rendered: &'r Rendered) -> Option<&'r Readout> {
        let wanted = self.desk.config.judge.readout == ReadoutMode::Expected;
        rendered.readout.as_ref().filter(|_| wanted)
    }

    fn read_all(
        &self,
        asked: &Asked,
        question: &Question,
        (prompt_ids, texts): &Drawn,
        at: usize,
        readouts: &mut Vec<PendingReadout>,
    ) -> Result<Vec<Reply>, StageError> {
        let Some(model) = self.model()? else { return Ok(Vec::new()) };
        let mut replies = Vec::with_capacity(texts.len());
        for (sample, drawn) in texts.iter().enumerate() {
            let drawn = stopped(model.as_ref(), drawn, &asked.rendered.stop)?;
            let (mut reply, readable) = self.read(asked, question, drawn.text.clone())?;
            reply.sample = sample as u32;
            if let (Some(readout), true) = (self.readout(&asked.rendered), readable) {
                let context = readout_context(model.as_ref(), prompt_ids, &drawn, &readout.lead)?;
                let readout = readout.clone();
                readouts.push(PendingReadout { question: at, sample, context, readout });
            }
            replies.push(reply);
        }
        Ok(replies)
    }

    /// Reads what was replied before. Probabilities that were looked at then are taken over; where
    /// they were not, the model is asked for them, or without one the score read counts.
    fn read_recalled(
        &self,
        asked: &Asked,
        question: &Question,
        at: usize,
        readouts: &mut Vec<PendingReadout>,
    ) -> Result<Vec<Reply>, StageError> {
        let mut replies = Vec::with_capacity(asked.past.len());
        for (place, past) in asked.past.iter().enumerate() {
            let (mut reply, readable) = self.read(asked, question, past.text.clone())?;
            reply.sample = past.sample;
            reply.recalled = true;
            if let (Some(readout), true) = (self.readout(&asked.rendered), readable) {
                if asked.same_readout && !past.scores.is_empty() {
                    let score = past.scores.first().copied().unwrap_or_default();
                    reply.outcome = Outcome::Scored { score, parsed: reply.outcome.score() };
                    reply.scores.clone_from(&past.scores);
                } else if let Some(model) = self.model()? {
                    let ids = model.encode_chat(&asked.rendered.messages)?;
                    let text = past.text.clone();
                    let token_ids = model.encode_text(&text)?;
                    let said =
                        Completion { token_ids, text, stop: StopReason::StopText, logp: 0.0 };
                    let context = readout_context(model.as_ref(), &ids, &said, &readout.lead)?;
                    let readout = readout.clone();
                    readouts.push(PendingReadout { question: at, sample: place, context, readout });
                }
            }
            replies.push(reply);
        }
        Ok(replies)
    }

    /// Reads scores from probabilities, all contexts with the same choices in one batch.
    fn apply_readouts(
        &self,
        replies: &mut [Vec<Reply>],
        mut pending: Vec<PendingReadout>,
    ) -> Result<(), StageError> {
        if pending.is_empty() {
            return Ok(());
        }
        let Some(model) = self.model()? else { return Ok(()) };
        while let Some(first) = pending.first() {
            let texts = first.choices();
            let (batch, rest) = pending.into_iter().partition(|p| p.choices() == texts);
            pending = rest;
            let batch: Vec<PendingReadout> = batch;
            let choices =
                texts.iter().map(|text| model.encode_text(text)).collect::<Result<Vec<_>, _>>()?;
            let contexts: Vec<Vec<u32>> = batch.iter().map(|p| p.context.clone()).collect();
            let logps = model.choice_logps(&contexts, &choices, &self.desk.cancel)?;
            for (p, logps) in batch.iter().zip(logps) {
                let reply = replies.get_mut(p.question).and_then(|r| r.get_mut(p.sample));
                if let (Some(reply), Some(scores)) = (reply, expectation(&logps, &p.readout)) {
                    let score = scores.first().copied().unwrap_or_default();
                    let parsed = reply.outcome.score();
                    reply.outcome = Outcome::Scored { score, parsed };
                    reply.scores = scores;
                }
            }
        }
        Ok(())
    }
}

impl Asked {
    fn is_a_program(&self) -> bool {
        self.rendered.messages.is_empty()
    }

    fn is_recalled(&self) -> bool {
        !self.past.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_orders() {
        assert_eq!(groups(3, 1), [[0], [1], [2]]);
        assert_eq!(groups(4, 2), [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(groups(3, 3), [[0, 1, 2]]);
        assert!(groups(2, 3).is_empty());
        assert_eq!(orders(&[0, 2], true), [[0, 2], [2, 0]]);
        assert_eq!(orders(&[0, 1, 2], true), [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(orders(&[0, 1, 2], false), [[0, 1, 2]]);
    }
}
