//! Puts answers before the judge model under one rubric: the rubric renders the question, the
//! model replies k times, the rubric reads each reply, and [`super::tally`] makes scores of them.
//!
//! A rubric sees as many answers together as it takes: one alone, or every group of its size. Where
//! their order may matter each group is shown in every rotation. A rubric that asks nothing is a
//! program: no model is needed, and what it reads is the answer itself.

use super::tally::{Shown, tally};
use super::{Desk, StageError};
use crate::config::ReadoutMode;
use crate::domain::{Completion, Outcome, Prompt, Seed, StopReason};
use crate::lm::generate::{DrawRequest, Sampling};
use crate::lm::policy::LanguageModel;
use crate::rubric::{CallError, Item, Reading, Readout, Rendered, Rubric};

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

/// The different answers to one prompt.
#[derive(Clone, Debug)]
pub(crate) struct Sheet<'a> {
    pub item: Item,
    pub tags: Vec<String>,
    pub answers: Vec<&'a str>,
    pub seeds: Seeds,
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
        Sheet { item, tags: notes.tags.clone(), answers, seeds }
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
    prompt_ids: Vec<u32>,
}

/// What a judge says about answers.
pub(crate) struct Bench<'a> {
    pub model: &'a dyn LanguageModel,
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
pub(super) fn shown(n: usize, rubric: &Rubric) -> Vec<Vec<usize>> {
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
        for (question, answered) in questions.iter().zip(self.replies(&questions)?) {
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

    fn replies(&self, questions: &[Question]) -> Result<Vec<Vec<Reply>>, StageError> {
        let asked = questions.iter().map(|q| self.ask(q)).collect::<Result<Vec<_>, _>>()?;
        let requests: Vec<DrawRequest> = asked
            .iter()
            .zip(questions)
            .filter_map(|(asked, q)| asked.as_ref().ok().map(|a| self.request(a, q.seed)))
            .flatten()
            .collect();
        // A program asks nothing, and then not even an empty batch is drawn.
        let mut drawn = match requests.is_empty() {
            true => Vec::new(),
            false => self.model.draw(&requests, &self.desk.cancel)?,
        }
        .into_iter();
        let mut readouts = Vec::new();
        let mut all = Vec::with_capacity(questions.len());
        for (at, (asked, question)) in asked.iter().zip(questions).enumerate() {
            all.push(match asked {
                Err(outcome) => vec![self.unasked(question, outcome)],
                Ok(asked) if asked.is_a_program() => vec![self.read_program(asked, question)?],
                Ok(asked) => {
                    let texts = drawn.next().unwrap_or_default();
                    self.read_all(asked, question, &texts, at, &mut readouts)?
                }
            });
        }
        self.apply_readouts(&mut all, readouts)?;
        Ok(all)
    }

    fn unasked(&self, question: &Question, outcome: &Outcome) -> Reply {
        let (seen, outcome) = (question.seen.clone(), outcome.clone());
        Reply { seen, sample: 0, outcome, scores: Vec::new(), text: String::new(), fuel: 0 }
    }

    fn ask(&self, question: &Question) -> Result<Result<Asked, Outcome>, StageError> {
        Ok(match self.rubric.render(&question.item) {
            Ok(rendered) if rendered.messages.is_empty() => {
                Ok(Asked { rendered, prompt_ids: Vec::new() })
            }
            Ok(rendered) => {
                let prompt_ids = self.model.encode_chat(&rendered.messages)?;
                Ok(Asked { rendered, prompt_ids })
            }
            Err(CallError::Refused(reason)) => Err(Outcome::Refused { reason }),
            Err(CallError::Trapped { reason }) => Err(Outcome::Trapped { reason }),
            Err(CallError::Host { reason }) => return Err(StageError::Sandbox(reason)),
        })
    }

    fn request(&self, asked: &Asked, seed: Seed) -> Option<DrawRequest> {
        let settings = &self.desk.config.judge;
        (!asked.is_a_program()).then(|| DrawRequest {
            prompt: asked.prompt_ids.clone(),
            seeds: (0..u64::from(self.samples)).map(|i| seed.index(i)).collect(),
            sampling: Sampling {
                temperature: settings.temperature as f32,
                top_p: settings.top_p as f32,
                max_new_tokens: asked.rendered.max_tokens.min(settings.max_new_tokens) as usize,
                top_k: None,
                min_p: None,
                stop_ids: self.model.stop_ids().to_vec(),
            },
        })
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
        Ok((Reply { seen, sample: 0, outcome, scores: given, text, fuel }, readable))
    }

    fn read_all(
        &self,
        asked: &Asked,
        question: &Question,
        texts: &[Completion],
        at: usize,
        readouts: &mut Vec<PendingReadout>,
    ) -> Result<Vec<Reply>, StageError> {
        let mut replies = Vec::with_capacity(texts.len());
        for (sample, drawn) in texts.iter().enumerate() {
            let drawn = self.stopped(drawn, &asked.rendered.stop)?;
            let (mut reply, readable) = self.read(asked, question, drawn.text.clone())?;
            reply.sample = sample as u32;
            if let (ReadoutMode::Expected, Some(readout), true) =
                (self.desk.config.judge.readout, &asked.rendered.readout, readable)
            {
                let context = self.readout_context(asked, &drawn, &readout.lead)?;
                let readout = readout.clone();
                readouts.push(PendingReadout { question: at, sample, context, readout });
            }
            replies.push(reply);
        }
        Ok(replies)
    }

    /// The reply up to the first of the texts that end it.
    fn stopped(&self, reply: &Completion, stop: &[String]) -> Result<Completion, StageError> {
        let ends = stop.iter().filter(|s| !s.is_empty()).filter_map(|s| reply.text.find(s));
        let Some(end) = ends.min() else { return Ok(reply.clone()) };
        let mut reply = reply.clone();
        reply.text.truncate(end);
        reply.stop = StopReason::StopText;
        while let Some((_, head)) = reply.token_ids.split_last() {
            if self.model.decode(&reply.token_ids)?.len() <= end {
                break;
            }
            reply.token_ids = head.to_vec();
        }
        Ok(reply)
    }

    /// The judge's prompt and its reply up to and including the last `lead`; a reply without one
    /// gets it appended, after its turn-end token is taken off.
    fn readout_context(
        &self,
        asked: &Asked,
        reply: &Completion,
        lead: &str,
    ) -> Result<Vec<u32>, StageError> {
        let lead = lead.trim_end();
        let mut ids = reply.token_ids.clone();
        if reply.stop == StopReason::TurnEnd {
            ids.pop();
        }
        let mut context = asked.prompt_ids.clone();
        for end in (1..=ids.len()).rev() {
            let head = ids.get(..end).unwrap_or_default();
            if self.model.decode(head)?.trim_end().ends_with(lead) {
                context.extend_from_slice(head);
                return Ok(context);
            }
        }
        context.extend_from_slice(&ids);
        context.extend(self.model.encode_text(&format!("\n{lead}"))?);
        Ok(context)
    }

    /// Reads scores from probabilities, all contexts with the same choices in one batch.
    fn apply_readouts(
        &self,
        replies: &mut [Vec<Reply>],
        mut pending: Vec<PendingReadout>,
    ) -> Result<(), StageError> {
        while let Some(first) = pending.first() {
            let texts = first.choices();
            let (batch, rest) = pending.into_iter().partition(|p| p.choices() == texts);
            pending = rest;
            let batch: Vec<PendingReadout> = batch;
            let choices = texts
                .iter()
                .map(|text| self.model.encode_text(text))
                .collect::<Result<Vec<_>, _>>()?;
            let contexts: Vec<Vec<u32>> = batch.iter().map(|p| p.context.clone()).collect();
            let logps = self.model.choice_logps(&contexts, &choices, &self.desk.cancel)?;
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
}

/// A score to be read from probabilities: which reply, the context, the choices.
struct PendingReadout {
    question: usize,
    sample: usize,
    context: Vec<u32>,
    readout: Readout,
}

impl PendingReadout {
    fn choices(&self) -> Vec<String> {
        self.readout.choices.iter().map(|(text, _)| text.clone()).collect()
    }
}

/// The expected score of every candidate, probabilities normalised over the choices.
fn expectation(logps: &[f64], readout: &Readout) -> Option<Vec<f64>> {
    let most = logps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logps.iter().map(|l| (l - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (_, first) = readout.choices.first()?;
    let expected = (0..first.len()).map(|at| {
        let given = |scores: &Vec<f64>| scores.get(at).copied().unwrap_or_default();
        let sum: f64 =
            weights.iter().zip(&readout.choices).map(|(w, (_, scores))| w * given(scores)).sum();
        sum / total
    });
    (total.is_finite() && total > 0.0).then(|| expected.collect())
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

    #[test]
    fn the_expectation_is_each_candidates() {
        let choices = vec![(" A".to_owned(), vec![1.0, 0.0]), (" B".to_owned(), vec![0.0, 1.0])];
        let readout = Readout { lead: "Better:".into(), choices };
        let scores = expectation(&[0.75f64.ln(), 0.25f64.ln()], &readout).unwrap();
        assert!((scores[0] - 0.75).abs() < 1e-12 && (scores[1] - 0.25).abs() < 1e-12);
        assert_eq!(expectation(&[f64::NEG_INFINITY, f64::NEG_INFINITY], &readout), None);
    }
}
