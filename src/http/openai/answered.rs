//! Answers: whole, or as they come.

use super::super::answered_chats::AnsweredChat;
use super::super::failure::Failure;
use super::super::state::HttpShared;
use super::asked::{OpenedRequest, new_id, now};
use crate::domain::{Message, StopReason};
use crate::runtime::{
    AnswerEnd, AnswerPiece, AnswerStream, AnswerToken, EncodedPrompt, ServedPolicy,
};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::PoisonError;

/// An object with what another has.
pub(super) fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(all), Value::Object(more)) = (&mut object, more) {
        all.extend(more);
    }
    object
}

/// Why an answer ended, in OpenAI's words.
pub(super) fn finish_reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::TurnEnd | StopReason::StopText => "stop",
        StopReason::Length => "length",
    }
}

/// Answers that are being given to a request.
pub(super) struct Giving {
    pub state: HttpShared,
    /// `chatcmpl-...`
    pub id: String,
    pub created: u64,
    pub policy: ServedPolicy,
    /// What was asked, where it was a conversation.
    pub messages: Vec<Message>,
    pub prompt_tokens: usize,
    pub answers: AnswerStream,
    /// Texts so far.
    pub texts: Vec<String>,
    /// Tokens so far.
    pub tokens: usize,
}

/// An answer that is whole.
pub(super) struct WholeAnswer {
    pub text: String,
    pub tokens: Vec<AnswerToken>,
    pub end: AnswerEnd,
}

impl OpenedRequest {
    /// Begins to answer, with as much room as was asked for, or as the model has left. `messages`: what
    /// the prompt was made of, where that was a conversation.
    pub fn give(
        self,
        state: HttpShared,
        prefix: &str,
        (messages, prompt): (Vec<Message>, &EncodedPrompt),
    ) -> Result<Giving, Failure> {
        let OpenedRequest { policy, settings, .. } = self;
        let room = policy.model().context_tokens_max().saturating_sub(prompt.tokens());
        let most = settings.max_new_tokens.min(room.max(1));
        let settings = settings.max_new_tokens(most);
        Ok(Giving {
            state,
            id: new_id(prefix)?,
            created: now(),
            answers: policy.answers(prompt, &settings),
            policy,
            messages,
            prompt_tokens: prompt.tokens(),
            texts: vec![String::new(); settings.answers],
            tokens: 0,
        })
    }
}

impl Giving {
    /// What every answer and every part of one begins with.
    pub fn envelope(&self, object: &str) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.policy.name(),
            "system_fingerprint": self.policy.policy().id(),
        })
    }

    pub fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        })
    }

    /// The next piece of any answer.
    pub async fn next(&mut self) -> Option<Result<AnswerPiece, Failure>> {
        let piece = self.answers.next().await?;
        Some(piece.map_err(Failure::from).inspect(|piece| {
            self.tokens += piece.tokens.len();
            if let Some(text) = self.texts.get_mut(piece.answer) {
                text.push_str(&piece.text);
            }
        }))
    }

    /// All answers, whole.
    pub async fn whole(&mut self) -> Result<Vec<WholeAnswer>, Failure> {
        let mut tokens: Vec<Vec<AnswerToken>> = self.texts.iter().map(|_| Vec::new()).collect();
        let mut ends: Vec<Option<AnswerEnd>> = vec![None; self.texts.len()];
        while let Some(piece) = self.next().await {
            let piece = piece?;
            if let Some(known) = tokens.get_mut(piece.answer) {
                known.extend(piece.tokens);
            }
            if let (Some(end), Some(known)) = (piece.end, ends.get_mut(piece.answer)) {
                *known = Some(end);
            }
        }
        self.remember();
        let each = self.texts.iter().cloned().zip(tokens).zip(ends);
        let whole = |((text, tokens), end): ((String, Vec<AnswerToken>), Option<AnswerEnd>)| {
            let end = end.ok_or_else(|| Failure::from(crate::Error::Closed))?;
            Ok(WholeAnswer { text, tokens, end })
        };
        each.map(whole).collect()
    }

    /// Keeps the conversation in mind, for votes.
    pub fn remember(&self) {
        let conversation = AnsweredChat {
            messages: self.messages.clone(),
            model: self.policy.name().to_owned(),
            policy: self.policy.policy().clone(),
            answers: self.texts.clone(),
        };
        let mut known = self.state.answered_chats.lock().unwrap_or_else(PoisonError::into_inner);
        known.add(self.id.clone(), conversation);
    }

    /// Tokens with their log-probabilities, as chat completions have them.
    pub fn logprobs(&self, tokens: &[AnswerToken]) -> Value {
        let model = self.policy.model();
        let one = |token: &AnswerToken| {
            let text = model.decode(&[token.id]).unwrap_or_default();
            json!({"token": text, "logprob": token.logp, "bytes": text.as_bytes(), "top_logprobs": []})
        };
        Value::Array(tokens.iter().map(one).collect())
    }
}

/// How an endpoint tells of answers part by part.
pub(super) trait AnswerForm: Send + 'static {
    /// The answers.
    fn giving(&mut self) -> &mut Giving;

    /// What is sent before any text.
    fn beginning(&mut self) -> Vec<SentEvent> {
        Vec::new()
    }

    /// What is sent of a piece; perhaps nothing.
    fn piece(&mut self, piece: &AnswerPiece) -> Vec<SentEvent>;

    /// What is sent when all answers are whole.
    fn end(&mut self) -> Vec<SentEvent>;

    /// What is sent when nothing more comes, and why.
    fn failed(&mut self, failure: &Failure) -> SentEvent {
        SentEvent::plain(&failure.json())
    }
}

/// How far a stream is.
enum StreamState {
    /// Nothing was sent.
    Beginning,
    /// Pieces are sent as they come.
    Answering,
    /// All was sent.
    Over,
}

/// An answer in a form, part by part.
struct StreamedAnswer<F> {
    form: F,
    state: StreamState,
}

impl<F: AnswerForm> StreamedAnswer<F> {
    /// What is sent next; nothing: it is over.
    async fn next(&mut self) -> Vec<SentEvent> {
        if matches!(self.state, StreamState::Beginning) {
            self.state = StreamState::Answering;
            let sent = self.form.beginning();
            if !sent.is_empty() {
                return sent;
            }
        }
        while matches!(self.state, StreamState::Answering) {
            let sent = match self.form.giving().next().await {
                Some(Ok(piece)) => self.form.piece(&piece),
                Some(Err(failure)) => {
                    self.state = StreamState::Over;
                    vec![self.form.failed(&failure)]
                }
                None => {
                    self.state = StreamState::Over;
                    self.form.giving().remember();
                    self.form.end()
                }
            };
            if !sent.is_empty() {
                return sent;
            }
        }
        Vec::new()
    }
}

/// An event of a stream.
pub(super) struct SentEvent {
    /// Its kind, where it has one.
    pub kind: Option<&'static str>,
    /// What it says.
    pub data: String,
}

impl SentEvent {
    /// An event without a kind.
    pub fn plain(data: &Value) -> SentEvent {
        SentEvent { kind: None, data: data.to_string() }
    }

    /// What chat and text completions end with.
    pub fn done() -> SentEvent {
        SentEvent { kind: None, data: "[DONE]".to_owned() }
    }
}

fn events(form: impl AnswerForm) -> impl Stream<Item = Result<Event, Infallible>> {
    let begin = StreamedAnswer { form, state: StreamState::Beginning };
    unfold((begin, VecDeque::<SentEvent>::new()), |(mut answer, mut ready)| async move {
        if ready.is_empty() {
            ready.extend(answer.next().await);
        }
        let SentEvent { kind, data } = ready.pop_front()?;
        let event = Event::default().data(data);
        let event = match kind {
            Some(kind) => event.event(kind),
            None => event,
        };
        Some((Ok(event), (answer, ready)))
    })
}

/// StreamedParts as server-sent events. Whoever goes away stops the computation.
pub(super) fn streamed(form: impl AnswerForm) -> Response {
    Sse::new(events(form)).keep_alive(KeepAlive::default()).into_response()
}
