//! `/v1/chat/completions`.

use super::super::body::JsonBody;
use super::super::failure::Failure;
use super::super::state::HttpShared;
use super::answered::{AnswerForm, Giving, SentEvent, WholeAnswer, finish_reason, streamed, with};
use super::asked::{HowDrawn, WrittenTurn, messages, nothing_else, take_in};
use crate::runtime::AnswerPiece;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
pub(in super::super) struct ChatRequest {
    messages: Vec<WrittenTurn>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    #[serde(default)]
    logprobs: bool,
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    drawn: HowDrawn,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

/// Answers a conversation.
pub(in super::super) async fn chat(
    State(state): State<HttpShared>,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<Response, Failure> {
    nothing_else(&request.rest)?;
    let messages = messages(request.messages, "messages")?;
    let most = match request.max_completion_tokens {
        Some(most) => ("max_completion_tokens", Some(most)),
        None => ("max_tokens", request.max_tokens),
    };
    let opened = request.drawn.open(&state, most).await?;
    let prompt = opened.policy.encode_chat(&messages)?;
    take_in(&state, &messages, &request.rest).await?;
    let stream = opened.stream;
    let giving = opened.give(state, "chatcmpl", (messages, &prompt))?;
    let logprobs = request.logprobs;
    if stream {
        let usage = request.stream_options.unwrap_or_default().include_usage;
        return Ok(streamed(ChatParts { giving, logprobs, usage }));
    }
    whole(giving, logprobs).await.map(IntoResponse::into_response)
}

async fn whole(mut giving: Giving, logprobs: bool) -> Result<Json<Value>, Failure> {
    let answers = giving.whole().await?;
    let choice = |(index, answer): (usize, &WholeAnswer)| {
        let logprobs =
            logprobs.then(|| json!({"content": giving.logprobs(&answer.tokens), "refusal": null}));
        json!({
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": null},
            "logprobs": logprobs,
            "finish_reason": finish_reason(answer.end.stop),
        })
    };
    let choices: Vec<Value> = answers.iter().enumerate().map(choice).collect();
    let more = json!({"choices": choices, "usage": giving.usage()});
    Ok(Json(with(giving.envelope("chat.completion"), more)))
}

/// An answer part by part.
struct ChatParts {
    giving: Giving,
    logprobs: bool,
    usage: bool,
}

impl ChatParts {
    fn chunk(&self, choice: Value) -> SentEvent {
        let more = match self.usage {
            true => json!({"choices": [choice], "usage": null}),
            false => json!({"choices": [choice]}),
        };
        SentEvent::plain(&with(self.giving.envelope("chat.completion.chunk"), more))
    }
}

impl AnswerForm for ChatParts {
    fn giving(&mut self) -> &mut Giving {
        &mut self.giving
    }

    fn beginning(&mut self) -> Vec<SentEvent> {
        let one = |index| {
            self.chunk(json!({
                "index": index,
                "delta": {"role": "assistant", "content": "", "refusal": null},
                "logprobs": null,
                "finish_reason": null,
            }))
        };
        (0..self.giving.texts.len()).map(one).collect()
    }

    fn piece(&mut self, piece: &AnswerPiece) -> Vec<SentEvent> {
        let AnswerPiece { answer, text, tokens, end } = piece;
        let logprobs = self
            .logprobs
            .then(|| json!({"content": self.giving.logprobs(tokens), "refusal": null}));
        let mut sent = Vec::new();
        if !text.is_empty() || logprobs.is_some() {
            sent.push(self.chunk(json!({
                "index": answer,
                "delta": {"content": text},
                "logprobs": logprobs,
                "finish_reason": null,
            })));
        }
        if let Some(end) = end {
            sent.push(self.chunk(json!({
                "index": answer,
                "delta": {},
                "logprobs": null,
                "finish_reason": finish_reason(end.stop),
            })));
        }
        sent
    }

    fn end(&mut self) -> Vec<SentEvent> {
        let mut sent = Vec::new();
        if self.usage {
            let more = json!({"choices": [], "usage": self.giving.usage()});
            let chunk = with(self.giving.envelope("chat.completion.chunk"), more);
            sent.push(SentEvent::plain(&chunk));
        }
        sent.push(SentEvent::done());
        sent
    }
}
