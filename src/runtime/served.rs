//! A policy that answers, for a host: messages in, text out. Answers that are wanted at the same time are
//! drawn together.

use crate::domain::{Message, PolicyRef, Seed, StopReason};
use crate::engine::batcher::{Batcher, DrawEvent, DrawnAnswers};
use crate::error::{Code, Error};
use crate::lm::generate::{DrawRequest, Sampling};
use crate::lm::policy::{LanguageModel, Vocabulary};
use std::collections::VecDeque;
use std::sync::Arc;

/// How a policy answers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AnswerSettings {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Bound on an answer, tokens.
    pub max_new_tokens: usize,
    /// The same seed gives the same answer.
    pub seed: u64,
    /// Texts that end an answer; it has neither them nor what follows.
    pub stop: Vec<String>,
    /// Answers that are wanted.
    pub answers: usize,
}

impl AnswerSettings {
    /// Another temperature.
    #[must_use]
    pub fn temperature(self, temperature: f64) -> AnswerSettings {
        AnswerSettings { temperature, ..self }
    }

    /// Another nucleus.
    #[must_use]
    pub fn top_p(self, top_p: f64) -> AnswerSettings {
        AnswerSettings { top_p, ..self }
    }

    /// Another bound.
    #[must_use]
    pub fn max_new_tokens(self, max_new_tokens: usize) -> AnswerSettings {
        AnswerSettings { max_new_tokens, ..self }
    }

    /// Another seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> AnswerSettings {
        AnswerSettings { seed, ..self }
    }

    /// Texts that end an answer.
    #[must_use]
    pub fn stop(self, stop: Vec<String>) -> AnswerSettings {
        AnswerSettings { stop, ..self }
    }

    /// So many answers, each drawn for itself.
    #[must_use]
    pub fn answers(self, answers: usize) -> AnswerSettings {
        AnswerSettings { answers, ..self }
    }

    fn seeds(&self) -> Vec<Seed> {
        let first = Seed::root(self.seed).derive("answer");
        let more = (1..self.answers as u64).map(|n| first.index(n));
        std::iter::once(first).chain(more).collect()
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyAnswer {
    /// What was said.
    pub text: String,
    /// Its tokens, the one that ends it included.
    pub tokens: usize,
    /// Why it ended.
    pub stop: StopReason,
}

/// What a policy is to go on with, in its own tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPrompt {
    ids: Vec<u32>,
}

impl EncodedPrompt {
    /// Its tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// The weights that acted when it was asked for.
#[derive(Clone)]
pub struct ServedPolicy {
    name: Arc<str>,
    policy: PolicyRef,
    model: Arc<dyn LanguageModel>,
    batcher: Arc<Batcher>,
    settings: AnswerSettings,
}

impl ServedPolicy {
    pub(super) fn new(
        policy: PolicyRef,
        (model, batcher): (Arc<dyn LanguageModel>, Arc<Batcher>),
        sampling: &crate::domain::plan::PlannedSampling,
    ) -> ServedPolicy {
        let settings = AnswerSettings {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            max_new_tokens: sampling.max_new_tokens as usize,
            seed: 0,
            stop: Vec::new(),
            answers: 1,
        };
        ServedPolicy { name: Arc::default(), policy, model, batcher, settings }
    }

    /// The same under a name.
    pub(super) fn named(self, name: &str) -> ServedPolicy {
        ServedPolicy { name: name.into(), ..self }
    }

    /// What the run calls it: `M2`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which weights these are.
    pub fn policy(&self) -> &PolicyRef {
        &self.policy
    }

    /// How the run has them answer (`sampling` in its settings), to be changed.
    pub fn settings(&self) -> AnswerSettings {
        self.settings.clone()
    }

    /// Answers that wait for their first token, and those that are being drawn, of all callers.
    pub fn load(&self) -> (usize, usize) {
        (self.batcher.waiting(), self.batcher.drawing())
    }

    /// The model itself: token ids, probabilities.
    pub fn model(&self) -> &Arc<dyn LanguageModel> {
        &self.model
    }

    /// A conversation that waits for the model's turn.
    ///
    /// # Errors
    /// When the messages do not fit the model's template or context.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<EncodedPrompt, Error> {
        self.fitting(self.model.encode_chat(messages)?)
    }

    /// A text that is gone on with, outside of any conversation.
    ///
    /// # Errors
    /// When it is empty or does not fit the model's context.
    pub fn encode_text(&self, text: &str) -> Result<EncodedPrompt, Error> {
        self.fitting(self.model.encode_text(text)?)
    }

    fn fitting(&self, ids: Vec<u32>) -> Result<EncodedPrompt, Error> {
        let room = self.model.context_tokens_max();
        if ids.is_empty() || ids.len() >= room {
            let why = format!(
                "a prompt of {} tokens: it must have at least 1, and fewer than the {room} that the \
                 model can read together with its answer",
                ids.len()
            );
            return Err(Error::refused(Code::PromptTooLong, why));
        }
        Ok(EncodedPrompt { ids })
    }

    /// Answers, piece by piece while it draws. Dropping the stream stops the computation.
    pub fn answers(&self, prompt: &EncodedPrompt, settings: &AnswerSettings) -> AnswerStream {
        let sampling = Sampling {
            temperature: settings.temperature as f32,
            top_p: settings.top_p as f32,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            max_new_tokens: settings.max_new_tokens,
            stop_ids: self.model.stop_ids().to_vec(),
        };
        let seeds = settings.seeds();
        let growing =
            seeds.iter().map(|_| Growing::ending(settings.stop.clone())).map(Some).collect();
        let drawing =
            self.batcher.draw(DrawRequest { prompt: prompt.ids.clone(), seeds, sampling });
        AnswerStream { model: self.model.clone(), drawing, growing, ready: VecDeque::new() }
    }

    /// Answers, as the run has it answer.
    ///
    /// # Errors
    /// When the messages do not fit the model's template or context.
    pub async fn answer(&self, messages: Vec<Message>) -> Result<PolicyAnswer, Error> {
        self.answer_with(messages, self.settings()).await
    }

    /// Answers once, in another way. Dropping the future stops the computation.
    ///
    /// # Errors
    /// As [`ServedPolicy::answer`].
    pub async fn answer_with(
        &self,
        messages: Vec<Message>,
        settings: AnswerSettings,
    ) -> Result<PolicyAnswer, Error> {
        let mut stream = self.stream(messages, settings.answers(1));
        let mut text = String::new();
        loop {
            match stream.next_piece().await {
                Some(piece) => {
                    if let Some(answer) = grown(piece?, &mut text) {
                        return Ok(answer);
                    }
                }
                None => return Err(Error::Closed),
            }
        }
    }

    /// Answers once, piece by piece, while it draws. Dropping the stream stops the computation.
    pub fn stream(&self, messages: Vec<Message>, settings: AnswerSettings) -> TextStream {
        let encoded = self.encode_chat(&messages);
        TextStream(encoded.map(|prompt| self.answers(&prompt, &settings.answers(1))).map_err(Some))
    }

    /// As [`ServedPolicy::answer_with`], for callers that may wait.
    ///
    /// # Errors
    /// As [`ServedPolicy::answer`].
    pub fn answer_blocking(
        &self,
        messages: &[Message],
        settings: &AnswerSettings,
    ) -> Result<PolicyAnswer, Error> {
        let prompt = self.encode_chat(messages)?;
        let mut stream = self.answers(&prompt, &settings.clone().answers(1));
        let mut text = String::new();
        loop {
            let piece = stream.next_blocking().ok_or(Error::Closed)?;
            if let Some(answer) = grown(piece?, &mut text) {
                return Ok(answer);
            }
        }
    }
}

/// Adds a piece to the text of an answer; the answer, where that was its end.
fn grown(piece: AnswerPiece, text: &mut String) -> Option<PolicyAnswer> {
    text.push_str(&piece.text);
    let AnswerEnd { stop, tokens } = piece.end?;
    Some(PolicyAnswer { text: std::mem::take(text), tokens, stop })
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerEnd {
    /// Why.
    pub stop: StopReason,
    /// Its tokens, the one that ends it included.
    pub tokens: usize,
}

/// A token of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerToken {
    /// The token.
    pub id: u32,
    /// Its log-probability, nats; `None` where the model does not say.
    pub logp: Option<f64>,
}

/// What an answer grew by.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerPiece {
    /// Which of the answers.
    pub answer: usize,
    /// The text; perhaps none.
    pub text: String,
    /// The tokens that were drawn since the last piece; those behind the text are among them.
    pub tokens: Vec<AnswerToken>,
    /// Whether it is whole, and why; nothing more comes of it then.
    pub end: Option<AnswerEnd>,
}

/// Answers in the making. Together the pieces of an answer are its text.
pub struct AnswerStream {
    model: Arc<dyn LanguageModel>,
    drawing: DrawnAnswers,
    /// Each answer, until it is whole.
    growing: Vec<Option<Growing>>,
    ready: VecDeque<Result<AnswerPiece, Error>>,
}

impl AnswerStream {
    /// The next piece; `None` when all answers are whole.
    pub async fn next(&mut self) -> Option<Result<AnswerPiece, Error>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.growing.iter().all(Option::is_none) {
                return None;
            }
            let event = self.drawing.next().await;
            self.take(event);
        }
    }

    /// As [`AnswerStream::next`], for callers that may wait; not on a thread that awaits.
    pub fn next_blocking(&mut self) -> Option<Result<AnswerPiece, Error>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.growing.iter().all(Option::is_none) {
                return None;
            }
            let event = self.drawing.next_blocking();
            self.take(event);
        }
    }

    fn take(&mut self, event: Option<DrawEvent>) {
        match event {
            Some(DrawEvent::Token { candidate, id, logp }) => {
                let Some(slot) = self.growing.get_mut(candidate) else { return };
                let Some(growing) = slot else { return };
                let piece = growing.grow(self.model.as_ref(), AnswerToken { id, logp });
                let Some((text, end)) = piece else { return };
                let tokens = std::mem::take(&mut growing.untold);
                if end.is_some() {
                    *slot = None;
                    self.drawing.give_up(candidate);
                }
                self.ready.push_back(Ok(AnswerPiece { answer: candidate, text, tokens, end }));
            }
            Some(DrawEvent::Ended { candidate, drawn }) => {
                let Some(growing) = self.growing.get_mut(candidate).and_then(Option::take) else {
                    return;
                };
                let stop = drawn.stop;
                let piece = growing.whole(self.model.as_ref(), stop).map_err(Error::Model);
                let piece = piece.map(|piece| AnswerPiece { answer: candidate, ..piece });
                self.ready.push_back(piece);
            }
            Some(DrawEvent::Failed(error)) => self.fail(Error::Model(error)),
            None => self.fail(Error::Closed),
        }
    }

    fn fail(&mut self, error: Error) {
        self.growing.iter_mut().for_each(|growing| *growing = None);
        self.ready.push_back(Err(error));
    }
}

/// An answer in the making.
pub struct TextStream(Result<AnswerStream, Option<Error>>);

impl TextStream {
    /// The next piece of text; `None` when the answer is whole. Together the pieces are the answer.
    pub async fn next(&mut self) -> Option<Result<String, Error>> {
        loop {
            match self.next_piece().await? {
                Ok(piece) if piece.text.is_empty() => {}
                piece => return Some(piece.map(|piece| piece.text)),
            }
        }
    }

    async fn next_piece(&mut self) -> Option<Result<AnswerPiece, Error>> {
        match &mut self.0 {
            Ok(stream) => stream.next().await,
            Err(error) => error.take().map(Err),
        }
    }

    /// As [`TextStream::next`], for callers that may wait; not on a thread that awaits.
    pub fn next_blocking(&mut self) -> Option<Result<String, Error>> {
        let stream = match &mut self.0 {
            Ok(stream) => stream,
            Err(error) => return error.take().map(Err),
        };
        loop {
            match stream.next_blocking()? {
                Ok(piece) if piece.text.is_empty() => {}
                piece => return Some(piece.map(|piece| piece.text)),
            }
        }
    }
}

/// Tokens that the text is read from once more, so that it is what it would be read as a whole.
const READ_AGAIN: usize = 8;

/// Text that grows by tokens. A character may be spelled by several: what would change when the next
/// token comes is kept back, and so is what may be the beginning of a text that ends the answer.
struct Growing {
    stop: Vec<String>,
    /// Tokens so far.
    count: usize,
    /// The last of them, without those that end an answer: those that the text is read from.
    ids: Vec<u32>,
    /// How many bytes of what `ids` spell are in `text`.
    read: usize,
    /// Text that was not told yet.
    text: String,
    /// Tokens that were not told yet.
    untold: Vec<AnswerToken>,
}

impl Growing {
    fn ending(stop: Vec<String>) -> Growing {
        let stop = stop.into_iter().filter(|text| !text.is_empty()).collect();
        let (text, ids, untold) = (String::new(), Vec::new(), Vec::new());
        Growing { stop, count: 0, ids, read: 0, text, untold }
    }

    /// A token more; the text that can be told, and whether a text came up that ends the answer.
    fn grow(
        &mut self,
        model: &dyn LanguageModel,
        token: AnswerToken,
    ) -> Option<(String, Option<AnswerEnd>)> {
        self.count += 1;
        self.untold.push(token);
        if model.stop_ids().contains(&token.id) {
            return None;
        }
        self.ids.push(token.id);
        let spelled = model.decode(&self.ids).ok()?;
        let settled = spelled.trim_end_matches(char::REPLACEMENT_CHARACTER);
        self.text.push_str(settled.get(self.read..)?);
        self.read = settled.len().max(self.read);
        if settled.len() == spelled.len() {
            self.forget(model);
        }
        self.tell()
    }

    /// Reads on from the last tokens alone, where they spell the same without those before.
    fn forget(&mut self, model: &dyn LanguageModel) {
        if self.ids.len() < 4 * READ_AGAIN {
            return;
        }
        let all = model.decode(&self.ids).unwrap_or_default();
        let last = self.ids.split_off(self.ids.len() - READ_AGAIN);
        match model.decode(&last) {
            Ok(text) if all.ends_with(&text) && !text.starts_with(char::REPLACEMENT_CHARACTER) => {
                self.read = text.len();
                self.ids = last;
            }
            _ => self.ids.extend(last),
        }
    }

    /// What of the text can be told.
    fn tell(&mut self) -> Option<(String, Option<AnswerEnd>)> {
        let ends = self.stop.iter().filter_map(|stop| self.text.find(stop.as_str())).min();
        if let Some(end) = ends {
            self.text.truncate(end);
            let end = AnswerEnd { stop: StopReason::StopText, tokens: self.count };
            return Some((std::mem::take(&mut self.text), Some(end)));
        }
        let kept = self.stop.iter().map(|stop| begun(&self.text, stop)).max().unwrap_or(0);
        let rest = self.text.split_off(self.text.len() - kept);
        let told = std::mem::replace(&mut self.text, rest);
        (!told.is_empty()).then_some((told, None))
    }

    /// The rest of an answer that ended by itself.
    fn whole(
        mut self,
        model: &dyn Vocabulary,
        stop: StopReason,
    ) -> Result<AnswerPiece, crate::lm::error::LmError> {
        let spelled = model.decode(&self.ids)?;
        self.text.push_str(spelled.get(self.read..).unwrap_or_default());
        let cut = self.stop.iter().filter_map(|stop| self.text.find(stop.as_str())).min();
        let stop = cut.map_or(stop, |_| StopReason::StopText);
        self.text.truncate(cut.unwrap_or(self.text.len()));
        let end = Some(AnswerEnd { stop, tokens: self.count });
        Ok(AnswerPiece { answer: 0, text: self.text, tokens: self.untold, end })
    }
}

/// How much of the end of a text is the beginning of another, bytes.
fn begun(text: &str, wanted: &str) -> usize {
    let lengths = wanted.char_indices().map(|(at, _)| at).skip(1);
    lengths.filter(|length| text.ends_with(&wanted[..*length])).max().unwrap_or(0)
}
