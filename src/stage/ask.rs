//! Puts answers before the judge model under one rubric: the rubric renders the question, the
//! model replies k times, the rubric reads each reply, and [`super::tally`] makes scores of them.
//!
//! A rubric sees as many answers together as it takes: one alone, or every group of its size. Where
//! their order may matter each group is shown in every rotation. A rubric that asks nothing is a
//! program: no model is needed, and what it reads is the answer itself.

use super::compare::{Groups, groups, orders};
use super::panel::installed;
use super::readout::{self, PendingReadout, Said};
use super::sampler::request;
use super::tally::{Shown, Tallied, tally};
use super::{StageContext, StageError};
use crate::domain::plan::{JudgePlan, ReadoutMode, Sampling};
use crate::domain::text::bounded;
use crate::domain::{
    Completion, Criterion, Message, Outcome, PolicyRef, Prompt, ReadoutFacts, Remarks, RubricId,
    Seed,
};
use crate::engine::{AnswerRequest, ChatModel, Prepared};
use crate::rubric::{CallError, Item, Place, Reading, Rendered, Rubric};
use std::sync::Arc;

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
    /// How that was read from probabilities, if it was.
    pub readout: Option<ReadoutFacts>,
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

    /// The same with randomness of its own for a member after the first.
    pub fn for_member(&self, place: usize) -> Sheet<'a> {
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
    /// How they were read from probabilities; none where they are what `parse` read.
    pub readout: Option<ReadoutFacts>,
    /// What else the rubric read.
    pub remarks: Remarks,
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
    pub tallied: Vec<Option<Tallied>>,
    /// Groups of answers that were not shown, for there were too many.
    pub left_out: u64,
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
    /// What that rubric rendered.
    before: Option<Rendered>,
}

/// A reply as the rubric read it.
struct Read {
    reply: Reply,
    /// Where the score was read.
    places: Vec<Place>,
    /// It holds none, and nothing that contradicts itself either.
    missing: bool,
}

/// The question as the model took it and the replies to it, or why it was not put.
type Drawn = Result<(Arc<Prepared>, Vec<Completion>), Outcome>;

/// Why a question has no reply when nobody is there to give one.
pub(crate) const NOT_ASKED: &str = "nobody replied to this question before, and no model was asked";

/// Who replies, and how it is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// Opened when a question needs it; `None`: only what was replied before counts.
    pub policy: Option<&'a PolicyRef>,
    pub judge: &'a JudgePlan,
    pub context: &'a StageContext,
}

/// What a judge says about answers under one rubric.
pub(crate) struct Bench<'a> {
    pub asking: Asking<'a>,
    pub rubric: &'a Rubric,
    pub samples: u32,
}

/// What a rubric asks about answers that are shown together.
pub(super) fn asked(
    prompt: &Prompt,
    shown: &[&str],
    rubric: &RubricId,
    context: &StageContext,
) -> Result<Vec<Message>, StageError> {
    let rubric = installed(context, rubric)?;
    let candidates = shown.iter().map(|text| (*text).to_owned()).collect();
    let item = Sheet::of(prompt, Vec::new(), Seeds::Placed(Seed::root(0))).item;
    match rubric.render(&Item { candidates, ..item }) {
        Ok(rendered) => Ok(rendered.messages),
        Err(CallError::Host { reason }) => Err(StageError::Sandbox(reason)),
        Err(error) => Err(StageError::Rubric(error.to_string())),
    }
}

/// How a rubric groups `n` answers; none when there are too few.
fn grouped(n: usize, rubric: &Rubric, comparisons_max: u32) -> Groups {
    let info = rubric.info();
    let size = n.min(info.max_candidates as usize);
    match size < info.min_candidates as usize {
        true => Groups::default(),
        false => groups(n, size, comparisons_max as usize),
    }
}

/// What is shown of `n` answers, each group with its orders; nothing when there are too few.
pub(crate) fn shown(n: usize, rubric: &Rubric, comparisons_max: u32) -> Vec<Vec<usize>> {
    let groups = grouped(n, rubric, comparisons_max).shown;
    groups.iter().flat_map(|group| orders(group, rubric.info().order_sensitive)).collect()
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
            let tallied = tally(&shown, sheet.answers.len(), combine);
            let most = self.asking.judge.comparisons_max;
            let left_out = grouped(sheet.answers.len(), self.rubric, most).left_out;
            Marked { tallied, replies, left_out }
        });
        Ok(marked.collect())
    }

    fn questions(&self, at: usize, sheet: &Sheet<'_>) -> Vec<Question> {
        let shown = shown(sheet.answers.len(), self.rubric, self.asking.judge.comparisons_max);
        shown
            .into_iter()
            .zip(0u64..)
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

    fn model(&self) -> Result<Option<Arc<dyn ChatModel>>, StageError> {
        let Asking { policy, judge, context } = self.asking;
        let open = |policy| context.models.answering(policy, &judge.engine);
        Ok(policy.map(open).transpose()?)
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
                    Some(Ok(drawn)) => self.read_all(asked, question, &drawn, at, &mut readouts)?,
                    Some(Err(outcome)) => vec![self.unasked(question, &outcome)],
                    None => {
                        let outcome = Outcome::Refused { reason: NOT_ASKED.to_owned() };
                        vec![self.unasked(question, &outcome)]
                    }
                },
            });
        }
        if let (false, Some(model)) = (readouts.is_empty(), self.model()?) {
            readout::apply(model.as_ref(), readouts, &mut all, &self.asking.context.cancel)?;
        }
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
        let mut requests = Vec::with_capacity(waiting.len());
        let mut refused = Vec::with_capacity(waiting.len());
        for (asked, seed) in &waiting {
            let prompt = Arc::new(model.prepare(&asked.rendered.messages, "")?);
            let most = model.context_tokens_max();
            let too_long = most.and_then(|most| too_long(prompt.ids.len(), most));
            if too_long.is_none() {
                requests.push(self.request(asked, prompt, *seed));
            }
            refused.push(too_long);
        }
        let drawn = model.answer(&requests, &self.asking.context.cancel)?;
        let mut drawn = requests.into_iter().map(|request| request.prompt).zip(drawn);
        let reply = |refused: Option<Outcome>| match refused {
            Some(outcome) => Some(Err(outcome)),
            None => drawn.next().map(Ok),
        };
        Ok(refused.into_iter().map_while(reply).collect())
    }

    fn unasked(&self, question: &Question, outcome: &Outcome) -> Reply {
        let (seen, outcome) = (question.seen.clone(), outcome.clone());
        Reply {
            seen,
            sample: 0,
            outcome,
            scores: Vec::new(),
            readout: None,
            remarks: Remarks::default(),
            text: String::new(),
            fuel: 0,
            recalled: false,
        }
    }

    fn ask(
        &self,
        question: &Question,
        past: &[Remembered],
    ) -> Result<Result<Asked, Outcome>, StageError> {
        Ok(match self.rubric.render(&question.item) {
            Ok(rendered) => Ok(self.recall(rendered, question, past)),
            Err(error) => Err(unheard(error)?),
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
                let past = theirs.into_iter().cloned().collect();
                return Asked { rendered, past, before: Some(before) };
            }
            past = others;
        }
        Asked { rendered, past: Vec::new(), before: None }
    }

    fn request(&self, asked: &Asked, prompt: Arc<Prepared>, seed: Seed) -> AnswerRequest {
        let Sampling { temperature, top_p, max_new_tokens } = self.asking.judge.sampling;
        let max_new_tokens = asked.rendered.max_tokens.min(max_new_tokens);
        let sampling = Sampling { temperature, top_p, max_new_tokens };
        let stop = asked.rendered.stop.clone();
        AnswerRequest { stop, ..request(prompt, seed, self.samples, &sampling) }
    }

    fn read_program(&self, asked: &Asked, question: &Question) -> Result<Reply, StageError> {
        Ok(self.read(asked, question, String::new())?.reply)
    }

    /// Reads a reply.
    fn read(&self, asked: &Asked, question: &Question, text: String) -> Result<Read, StageError> {
        let readout = asked.rendered.readout.as_ref();
        let (mut given, mut places, mut missing) = (Vec::new(), Vec::new(), false);
        let mut remarks = Remarks::default();
        let (outcome, fuel) = match self.rubric.read(&question.item, &text, readout) {
            Ok(Reading::Verdict { scores, places: read, criteria, rationale, fuel }) => {
                let score = scores.first().copied().unwrap_or_default();
                (given, places) = (scores, read);
                remarks = remarked(criteria, rationale, &text);
                (Outcome::Scored { score, parsed: Some(score) }, fuel)
            }
            Ok(Reading::Missing { fuel }) => {
                missing = true;
                (Outcome::Unparsed { reason: "no score found".into() }, fuel)
            }
            Ok(Reading::Unparsed { reason, fuel }) => {
                (Outcome::Unparsed { reason: bounded(&reason, REASON_CHARS_MAX) }, fuel)
            }
            Err(error) => (unheard(error)?, 0),
        };
        let reply = Reply {
            seen: question.seen.clone(),
            sample: 0,
            outcome,
            scores: given,
            readout: None,
            remarks,
            text,
            fuel: fuel + asked.rendered.fuel,
            recalled: false,
        };
        Ok(Read { reply, places, missing })
    }

    /// Where the probabilities of a reply are to be looked up, if they are wanted: where its score
    /// was read; of one without a score only where that is asked for.
    fn pending(&self, asked: &Asked, read: &Read, said: Said<'_>) -> Option<PendingReadout> {
        let mode = self.asking.judge.readout;
        match &asked.rendered.readout {
            _ if mode == ReadoutMode::Parsed => None,
            Some(readout) if read.missing && mode == ReadoutMode::Forced => {
                Some(readout::forced(said, readout))
            }
            _ => readout::at_places(said, &read.places),
        }
    }

    fn read_all(
        &self,
        asked: &Asked,
        question: &Question,
        (prompt, drawn): &(Arc<Prepared>, Vec<Completion>),
        at: usize,
        readouts: &mut Vec<PendingReadout>,
    ) -> Result<Vec<Reply>, StageError> {
        let mut replies = Vec::with_capacity(drawn.len());
        for (sample, drawn) in drawn.iter().enumerate() {
            let mut read = self.read(asked, question, drawn.text.clone())?;
            read.reply.sample = sample as u32;
            let pending = self.pending(asked, &read, Said::drawn(prompt, drawn));
            readouts.extend(pending.map(|p| PendingReadout { question: at, sample, ..p }));
            replies.push(read.reply);
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
        for (sample, past) in asked.past.iter().enumerate() {
            let mut read = self.read(asked, question, past.text.clone())?;
            read.reply.sample = past.sample;
            read.reply.recalled = true;
            match past
                .readout
                .filter(|facts| self.reads_the_same(asked, question, &read, past, *facts))
            {
                Some(facts) => {
                    let score = past.scores.first().copied().unwrap_or_default();
                    read.reply.outcome =
                        Outcome::Scored { score, parsed: read.reply.outcome.score() };
                    read.reply.scores.clone_from(&past.scores);
                    read.reply.readout = Some(facts);
                }
                None => {
                    if let Some(model) = self.model()? {
                        let prompt = Arc::new(model.prepare(&asked.rendered.messages, "")?);
                        let said = Said { prompt: &prompt, ids: &[], text: &past.text };
                        let pending = self.pending(asked, &read, said);
                        readouts.extend(pending.map(|p| PendingReadout {
                            question: at,
                            sample,
                            ..p
                        }));
                    }
                }
            }
            replies.push(read.reply);
        }
        Ok(replies)
    }

    /// Whether the probabilities that were looked at for a reply before are those that would be
    /// looked at now: under this rubric and these settings, at the same places.
    fn reads_the_same(
        &self,
        asked: &Asked,
        question: &Question,
        read: &Read,
        past: &Remembered,
        facts: ReadoutFacts,
    ) -> bool {
        let before = asked.before.as_ref().and_then(|before| before.readout.as_ref());
        match self.asking.judge.readout {
            ReadoutMode::Parsed => false,
            ReadoutMode::Expected if facts.forced => false,
            _ if past.rubric.id() == self.rubric.id() => true,
            _ if facts.forced => read.missing && before == asked.rendered.readout.as_ref(),
            _ => match past.rubric.read(&question.item, &past.text, before) {
                Ok(Reading::Verdict { places, .. }) => places == read.places,
                _ => false,
            },
        }
    }
}

/// Why a question of so many tokens is not put: there must be room for a reply.
fn too_long(tokens: usize, most: usize) -> Option<Outcome> {
    let reason = || {
        format!(
            "not judged: too long. The question has {tokens} tokens and the model reads {most}, its \
             reply included; shorten the answers (sampling.max_new_tokens) or the rubric's text"
        )
    };
    (tokens + 1 >= most).then(|| Outcome::Refused { reason: reason() })
}

/// Characters of a rubric's reason that are recorded.
const REASON_CHARS_MAX: usize = 2000;
/// Characters of its rationale.
const RATIONALE_CHARS_MAX: usize = 8000;
/// Parts of one verdict, and characters of the name of each.
const CRITERIA_MAX: (usize, usize) = (256, 200);

/// What is recorded of a call that gave nothing. A rubric's words may be of any length, and what is
/// recorded may not.
fn unheard(error: CallError) -> Result<Outcome, StageError> {
    let short = |reason: String| bounded(&reason, REASON_CHARS_MAX);
    match error {
        CallError::Refused(reason) => Ok(Outcome::Refused { reason: short(reason) }),
        CallError::Trapped { reason } => Ok(Outcome::Trapped { reason: short(reason) }),
        CallError::Host { reason } => Err(StageError::Sandbox(reason)),
    }
}

/// What a verdict holds besides its scores.
fn remarked(criteria: Vec<(String, f64)>, rationale: String, text: &str) -> Remarks {
    let (most, chars) = CRITERIA_MAX;
    let left_out = criteria.len().saturating_sub(most);
    let rationale = Some(rationale).filter(|why| !why.is_empty() && why != text);
    let rationale = rationale.map(|why| bounded(&why, RATIONALE_CHARS_MAX));
    let rationale = match left_out {
        0 => rationale,
        n => Some(format!("{} [{n} more parts are not recorded]", rationale.unwrap_or_default())),
    };
    let criterion = |(name, value): (String, f64)| Criterion { name: bounded(&name, chars), value };
    Remarks { criteria: criteria.into_iter().take(most).map(criterion).collect(), rationale }
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
            let outcome = unheard(error).unwrap();
            assert!(serde_json::to_vec(&outcome).unwrap().len() < 3000);
        }
        let parts = (0..1000).map(|_| (long.clone(), 1.0)).collect();
        let remarks = remarked(parts, long.clone(), "");
        assert!(serde_json::to_vec(&remarks).unwrap().len() < 100_000);
        assert!(remarks.rationale.unwrap().ends_with("[744 more parts are not recorded]"));
    }

    #[test]
    fn a_rationale_that_is_the_whole_reply_is_not_kept_twice() {
        let parts = || vec![("clear".to_owned(), 1.0)];
        let whole = remarked(parts(), "It is.".to_owned(), "It is.");
        assert_eq!((whole.criteria.len(), whole.rationale), (1, None));
        assert_eq!(remarked(parts(), "It".into(), "It is.").rationale.as_deref(), Some("It"));
    }
}
