//! Puts answers before the judge model under one rubric: the rubric renders the question, the model
//! replies k times, the rubric reads each reply, and [`super::aggregate`] makes scores of them.
//!
//! A rubric sees as many answers together as it takes: one alone, or every group of its size. Where
//! their order may matter each group is shown in every rotation. A rubric that asks nothing is a
//! program: no model is needed, and what it reads is the answer itself.

use super::aggregate::{AggregateScore, ReplyScores, aggregate};
use super::item::{JudgingItem, RecordedReply};
use super::panel::installed;
use super::question::{Question, RenderedQuestion, groups_of};
use super::readout::{self, JudgeText, PendingReadout};
use super::reply::{JudgeReply, LocatedReply, outcome_of, too_long};
use crate::domain::plan::{JudgePlan, PlannedSampling, ReadoutMode};
use crate::domain::{
    Completion, Message, Outcome, PolicyRef, Prompt, ReadoutFacts, RubricId, Seed,
};
use crate::engine::{AnswerRequest, ChatModel, Prepared};
use crate::rubric::{CallError, ParsedReply, Rubric, RubricInput};
use crate::stage::sampler::request;
use crate::stage::{StageContext, StageError};
use std::sync::Arc;

/// Why a question has no reply when no model is there to give one.
pub(crate) const NOT_ASKED: &str = "nobody replied to this question before, and no model was asked";

/// Who replies, and how it is asked.
#[derive(Clone, Copy)]
pub(crate) struct JudgeSetup<'a> {
    /// Opened when a question needs it; `None`: only recorded replies count.
    pub policy: Option<&'a PolicyRef>,
    pub judge: &'a JudgePlan,
    pub context: &'a StageContext,
}

/// What the judge says about answers under one rubric.
pub(crate) struct RubricRunner<'a> {
    pub setup: JudgeSetup<'a>,
    pub rubric: &'a Rubric,
    /// Replies to each question (k).
    pub samples: u32,
}

/// What became of an item under one rubric.
#[derive(Clone, Debug)]
pub(crate) struct RubricResult {
    pub replies: Vec<JudgeReply>,
    /// One for each answer of the item, in the rubric's scale; `None`: no score.
    pub scores: Vec<Option<AggregateScore>>,
    /// Groups of answers that were not shown, for there were too many.
    pub groups_not_shown: u64,
}

/// The replies to a question, or why it was not put.
type Draw = Result<DrawnReplies, Outcome>;

struct DrawnReplies {
    /// The question as the model took it.
    question: Arc<Prepared>,
    replies: Vec<Completion>,
}

/// A question that is being read: its position among all, and in the rubric's words.
#[derive(Clone, Copy)]
struct AskedQuestion<'q> {
    at: usize,
    question: &'q Question,
    rendered: &'q RenderedQuestion,
}

/// What a rubric asks about answers that are shown together.
pub(crate) fn question_of(
    prompt: &Prompt,
    shown: &[&str],
    rubric: &RubricId,
    context: &StageContext,
) -> Result<Vec<Message>, StageError> {
    let rubric = installed(context, rubric)?;
    let candidates = shown.iter().map(|text| (*text).to_owned()).collect();
    match rubric.render(&RubricInput::of(prompt, candidates)) {
        Ok(rendered) => Ok(rendered.messages),
        Err(CallError::Host { reason }) => Err(StageError::Sandbox(reason)),
        Err(error) => Err(StageError::Rubric { code: error.code(), message: error.to_string() }),
    }
}

impl RubricRunner<'_> {
    /// Judges every item; the results are in their order.
    pub fn run(&self, items: &[JudgingItem<'_>]) -> Result<Vec<RubricResult>, StageError> {
        let most = self.setup.judge.comparisons_max;
        let mut questions = Vec::new();
        for (at, item) in items.iter().enumerate() {
            questions.extend(Question::all_about(at, item, self.rubric, most));
        }
        let mut replies: Vec<Vec<JudgeReply>> = items.iter().map(|_| Vec::new()).collect();
        for (question, answered) in questions.iter().zip(self.replies(&questions, items)?) {
            if let Some(item) = replies.get_mut(question.item) {
                item.extend(answered);
            }
        }
        let rule = self.rubric.info().aggregation;
        let results = items.iter().zip(replies).map(|(item, replies)| {
            let given: Vec<ReplyScores<'_>> = replies
                .iter()
                .map(|r| ReplyScores { shown: &r.shown, sample: r.sample, scores: &r.scores })
                .collect();
            let scores = aggregate(&given, item.answers.len(), rule);
            let groups = groups_of(item.answers.len(), self.rubric, most);
            RubricResult { replies, scores, groups_not_shown: groups.left_out }
        });
        Ok(results.collect())
    }

    fn model(&self) -> Result<Option<Arc<dyn ChatModel>>, StageError> {
        let JudgeSetup { policy, judge, context } = self.setup;
        let open = |policy| context.models.answering(policy, &judge.engine);
        Ok(policy.map(open).transpose()?)
    }

    fn replies(
        &self,
        questions: &[Question],
        items: &[JudgingItem<'_>],
    ) -> Result<Vec<Vec<JudgeReply>>, StageError> {
        let recorded = |q: &Question| items.get(q.item).map_or(&[][..], |item| &item.recorded);
        let rendered =
            questions.iter().map(|q| self.render(q, recorded(q))).collect::<Result<Vec<_>, _>>()?;
        let mut drawn = self.draw(&rendered, questions)?.into_iter();
        let mut pending = Vec::new();
        let mut all = Vec::with_capacity(questions.len());
        for (at, (rendered, question)) in rendered.iter().zip(questions).enumerate() {
            let rendered = match rendered {
                Ok(rendered) => rendered,
                Err(outcome) => {
                    all.push(vec![JudgeReply::without_text(&question.shown, outcome.clone())]);
                    continue;
                }
            };
            let asked = AskedQuestion { at, question, rendered };
            all.push(if rendered.is_for_a_program() {
                vec![self.read(asked, String::new())?.reply]
            } else if rendered.is_answered() {
                self.read_recorded(asked, &mut pending)?
            } else {
                match drawn.next() {
                    Some(Ok(drawn)) => self.read_drawn(asked, &drawn, &mut pending)?,
                    Some(Err(outcome)) => vec![JudgeReply::without_text(&question.shown, outcome)],
                    None => {
                        let outcome = Outcome::Refused { reason: NOT_ASKED.to_owned() };
                        vec![JudgeReply::without_text(&question.shown, outcome)]
                    }
                }
            });
        }
        if let (false, Some(model)) = (pending.is_empty(), self.model()?) {
            readout::apply(model.as_ref(), pending, &mut all, &self.setup.context.cancel)?;
        }
        Ok(all)
    }

    fn render(
        &self,
        question: &Question,
        recorded: &[RecordedReply],
    ) -> Result<Result<RenderedQuestion, Outcome>, StageError> {
        Ok(match self.rubric.render(&question.input) {
            Ok(rendered) => Ok(question.rendered(rendered, self.rubric, recorded)),
            Err(error) => Err(outcome_of(error)?),
        })
    }

    /// Replies to the questions that need some, in their order. The model is not even opened when
    /// none does.
    fn draw(
        &self,
        rendered: &[Result<RenderedQuestion, Outcome>],
        questions: &[Question],
    ) -> Result<Vec<Draw>, StageError> {
        let needs = |rendered: &&RenderedQuestion| rendered.needs_a_reply();
        let waiting: Vec<(&RenderedQuestion, Seed)> = rendered
            .iter()
            .zip(questions)
            .filter_map(|(rendered, q)| Some((rendered.as_ref().ok().filter(needs)?, q.seed)))
            .collect();
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let Some(model) = self.model()? else { return Ok(Vec::new()) };
        let mut requests = Vec::with_capacity(waiting.len());
        let mut refused = Vec::with_capacity(waiting.len());
        for (question, seed) in &waiting {
            let prepared = Arc::new(model.prepare(&question.rendered.messages, "")?);
            let most = model.context_tokens_max();
            let too_long = most.and_then(|most| too_long(prepared.ids.len(), most));
            if too_long.is_none() {
                requests.push(self.request(question, prepared, *seed));
            }
            refused.push(too_long);
        }
        let drawn = model.answer(&requests, &self.setup.context.cancel)?;
        let mut drawn = requests.into_iter().map(|request| request.prompt).zip(drawn);
        let reply = |refused: Option<Outcome>| match refused {
            Some(outcome) => Some(Err(outcome)),
            None => drawn.next().map(|(question, replies)| Ok(DrawnReplies { question, replies })),
        };
        Ok(refused.into_iter().map_while(reply).collect())
    }

    fn request(
        &self,
        question: &RenderedQuestion,
        prepared: Arc<Prepared>,
        seed: Seed,
    ) -> AnswerRequest {
        let PlannedSampling { temperature, top_p, max_new_tokens } = self.setup.judge.sampling;
        let max_new_tokens = question.rendered.max_tokens.min(max_new_tokens);
        let sampling = PlannedSampling { temperature, top_p, max_new_tokens };
        let stop = question.rendered.stop.clone();
        AnswerRequest { stop, ..request(prepared, seed, self.samples, &sampling) }
    }

    fn read(&self, asked: AskedQuestion<'_>, text: String) -> Result<LocatedReply, StageError> {
        LocatedReply::read(self.rubric, asked.rendered, asked.question, text)
    }

    /// Where the probabilities of a reply are to be looked up, if they are wanted: where its score
    /// was read; of one without a score only where that is asked for.
    fn pending(
        &self,
        asked: AskedQuestion<'_>,
        located: &LocatedReply,
        text: JudgeText<'_>,
    ) -> Option<PendingReadout> {
        let mode = self.setup.judge.readout;
        match &asked.rendered.rendered.readout {
            _ if mode == ReadoutMode::Parsed => None,
            Some(readout) if located.missing && mode == ReadoutMode::Forced => {
                Some(readout::forced(text, readout))
            }
            _ => readout::at_places(text, &located.places),
        }
    }

    fn read_drawn(
        &self,
        asked: AskedQuestion<'_>,
        drawn: &DrawnReplies,
        pending: &mut Vec<PendingReadout>,
    ) -> Result<Vec<JudgeReply>, StageError> {
        let mut replies = Vec::with_capacity(drawn.replies.len());
        for (sample, reply) in drawn.replies.iter().enumerate() {
            let mut located = self.read(asked, reply.text.clone())?;
            located.reply.sample = sample as u32;
            let text = JudgeText::drawn(&drawn.question, reply);
            let readout = self.pending(asked, &located, text);
            pending.extend(readout.map(|p| PendingReadout { question: asked.at, sample, ..p }));
            replies.push(located.reply);
        }
        Ok(replies)
    }

    /// Reads what is recorded. Probabilities that were looked up then are taken over; where they
    /// were not, the model is asked for them, or without one the score read counts.
    fn read_recorded(
        &self,
        asked: AskedQuestion<'_>,
        pending: &mut Vec<PendingReadout>,
    ) -> Result<Vec<JudgeReply>, StageError> {
        let mut replies = Vec::with_capacity(asked.rendered.recorded.len());
        for (sample, recorded) in asked.rendered.recorded.iter().enumerate() {
            let mut located = self.read(asked, recorded.text.clone())?;
            located.reply.sample = recorded.sample;
            located.reply.recorded = true;
            let same = |facts: &ReadoutFacts| self.reads_the_same(asked, &located, recorded, facts);
            match recorded.readout.filter(same) {
                Some(facts) => located.reply.read_out(recorded.scores.clone(), facts),
                None => {
                    if let Some(model) = self.model()? {
                        let messages = &asked.rendered.rendered.messages;
                        let question = Arc::new(model.prepare(messages, "")?);
                        let text =
                            JudgeText { question: &question, ids: &[], text: &recorded.text };
                        let readout = self.pending(asked, &located, text);
                        let at = |p| PendingReadout { question: asked.at, sample, ..p };
                        pending.extend(readout.map(at));
                    }
                }
            }
            replies.push(located.reply);
        }
        Ok(replies)
    }

    /// Whether the probabilities that were looked up for a recorded reply are those that would be
    /// looked up now: under this rubric and these settings, at the same places.
    fn reads_the_same(
        &self,
        asked: AskedQuestion<'_>,
        located: &LocatedReply,
        recorded: &RecordedReply,
        facts: &ReadoutFacts,
    ) -> bool {
        let before = asked.rendered.recorded_rendering.as_ref();
        let before = before.and_then(|before| before.readout.as_ref());
        match self.setup.judge.readout {
            ReadoutMode::Parsed => false,
            ReadoutMode::Expected if facts.forced => false,
            _ if recorded.rubric.id() == self.rubric.id() => true,
            _ if facts.forced => {
                located.missing && before == asked.rendered.rendered.readout.as_ref()
            }
            _ => match recorded.rubric.read(&asked.question.input, &recorded.text, before) {
                Ok(ParsedReply::Verdict { places, .. }) => places == located.places,
                _ => false,
            },
        }
    }
}
