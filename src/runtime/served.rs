//! A policy that answers, for a host: messages in, text out.

use super::background::on_a_thread;
use crate::domain::{Message, PolicyRef, Seed, StopReason};
use crate::error::Error;
use crate::lm::cancel::Cancel;
use crate::lm::generate::{DrawRequest, DrawnToken, Sampling};
use crate::lm::policy::LanguageModel;
use std::cell::RefCell;
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

/// The weights that acted when it was asked for.
#[derive(Clone)]
pub struct ServedPolicy {
    policy: PolicyRef,
    model: Arc<dyn LanguageModel>,
    settings: AnswerSettings,
}

impl ServedPolicy {
    pub(super) fn new(
        policy: PolicyRef,
        model: Arc<dyn LanguageModel>,
        sampling: &crate::domain::plan::PlannedSampling,
    ) -> ServedPolicy {
        let settings = AnswerSettings {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            max_new_tokens: sampling.max_new_tokens as usize,
            seed: 0,
        };
        ServedPolicy { policy, model, settings }
    }

    /// Which weights these are.
    pub fn policy(&self) -> &PolicyRef {
        &self.policy
    }

    /// How the run has them answer (`sampling` in its settings), to be changed.
    pub fn settings(&self) -> AnswerSettings {
        self.settings.clone()
    }

    /// The model itself: token ids, probabilities.
    pub fn model(&self) -> &Arc<dyn LanguageModel> {
        &self.model
    }

    fn request(
        &self,
        messages: &[Message],
        settings: &AnswerSettings,
    ) -> Result<DrawRequest, Error> {
        let sampling = Sampling {
            temperature: settings.temperature as f32,
            top_p: settings.top_p as f32,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            max_new_tokens: settings.max_new_tokens,
            stop_ids: self.model.stop_ids().to_vec(),
        };
        let seed = Seed::root(settings.seed).derive("answer");
        let prompt = self.model.encode_chat(messages)?;
        Ok(DrawRequest { prompt, seeds: vec![seed], sampling })
    }

    /// Answers, as the run has it answer.
    ///
    /// # Errors
    /// When the messages do not fit the model's template or context.
    pub async fn answer(&self, messages: Vec<Message>) -> Result<PolicyAnswer, Error> {
        self.answer_with(messages, self.settings()).await
    }

    /// Answers in another way. Dropping the future stops the computation.
    ///
    /// # Errors
    /// As [`ServedPolicy::answer`].
    pub async fn answer_with(
        &self,
        messages: Vec<Message>,
        settings: AnswerSettings,
    ) -> Result<PolicyAnswer, Error> {
        let (this, cancel) = (self.clone(), Cancel::default());
        let _dropped = CancelOnDrop(cancel.clone());
        on_a_thread(move || this.draw(&messages, &settings, &cancel)).await
    }

    /// Answers piece by piece, while it draws. Dropping the stream stops the computation.
    pub fn stream(&self, messages: Vec<Message>, settings: AnswerSettings) -> TextStream {
        let (send, pieces) = tokio::sync::mpsc::unbounded_channel();
        let (this, cancel) = (self.clone(), Cancel::default());
        let _cancel = CancelOnDrop(cancel.clone());
        let failed = send.clone();
        let draw = move || {
            if let Err(error) = this.tell(&messages, &settings, &cancel, &send) {
                let _ = send.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("gradus-asked".to_owned()).spawn(draw);
        if let Err(error) = thread {
            let _ = failed.send(Err(Error::io("a thread", error)));
        }
        TextStream { pieces, _cancel }
    }

    fn tell(
        &self,
        messages: &[Message],
        settings: &AnswerSettings,
        cancel: &Cancel,
        pieces: &tokio::sync::mpsc::UnboundedSender<Result<String, Error>>,
    ) -> Result<(), Error> {
        let request = self.request(messages, settings)?;
        let growing = RefCell::new(Growing::default());
        let tell = |token: DrawnToken| {
            let piece = growing.borrow_mut().piece(self.model.as_ref(), token.id);
            // Nobody listens any more: the stream's end cancels the rest.
            piece.map(|piece| pieces.send(Ok(piece)));
        };
        let drawn = self.model.draw_told(&[request], cancel, &tell)?;
        let whole = drawn.into_iter().flatten().next();
        let rest = whole.and_then(|whole| growing.borrow_mut().grown(&whole.text));
        rest.map(|rest| pieces.send(Ok(rest)));
        Ok(())
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
        self.draw(messages, settings, &Cancel::default())
    }

    fn draw(
        &self,
        messages: &[Message],
        settings: &AnswerSettings,
        cancel: &Cancel,
    ) -> Result<PolicyAnswer, Error> {
        let request = self.request(messages, settings)?;
        let drawn = self.model.draw(&[request], cancel)?;
        let completion = drawn.into_iter().flatten().next().ok_or(Error::Closed)?;
        let (text, tokens) = (completion.text, completion.token_ids.len());
        Ok(PolicyAnswer { text, tokens, stop: completion.stop })
    }
}

/// An answer in the making.
pub struct TextStream {
    pieces: tokio::sync::mpsc::UnboundedReceiver<Result<String, Error>>,
    _cancel: CancelOnDrop,
}

impl TextStream {
    /// The next piece of text; `None` when the answer is whole. Together the pieces are the answer.
    pub async fn next(&mut self) -> Option<Result<String, Error>> {
        self.pieces.recv().await
    }

    /// As [`TextStream::next`], for callers that may wait; not on a thread that awaits.
    pub fn next_blocking(&mut self) -> Option<Result<String, Error>> {
        self.pieces.blocking_recv()
    }
}

/// Text that grows by tokens. A character may be spelled by several: what would change when the next
/// token comes is kept back.
#[derive(Default)]
struct Growing {
    ids: Vec<u32>,
    told: usize,
}

impl Growing {
    /// What the text grew by.
    fn piece(&mut self, model: &dyn LanguageModel, id: u32) -> Option<String> {
        if model.stop_ids().contains(&id) {
            return None;
        }
        self.ids.push(id);
        let text = model.decode(&self.ids).ok()?;
        self.grown(text.trim_end_matches(char::REPLACEMENT_CHARACTER))
    }

    fn grown(&mut self, text: &str) -> Option<String> {
        let piece = text.get(self.told..).filter(|piece| !piece.is_empty())?.to_owned();
        self.told = text.len();
        Some(piece)
    }
}

/// Stops a computation whose result nobody waits for any more.
pub(super) struct CancelOnDrop(pub(super) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
