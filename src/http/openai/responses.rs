//! `/v1/responses`: text in and out. Nothing is stored, so nothing can be gone on with by id.

use super::super::body::JsonBody;
use super::super::failure::Failure;
use super::super::state::HttpShared;
use super::answered::{AnswerForm, Giving, SentEvent, WholeAnswer, streamed, with};
use super::asked::{HowDrawn, WrittenTurn, messages, new_id, nothing_else, take_in};
use crate::domain::{Message, StopReason};
use crate::runtime::{AnswerEnd, AnswerPiece};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
pub(in super::super) struct ResponsesRequest {
    input: Input,
    instructions: Option<String>,
    max_output_tokens: Option<usize>,
    #[serde(flatten)]
    drawn: HowDrawn,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Turns(Vec<WrittenTurn>),
}

/// Answers.
pub(in super::super) async fn responses(
    State(state): State<HttpShared>,
    JsonBody(request): JsonBody<ResponsesRequest>,
) -> Result<Response, Failure> {
    nothing_else(&request.rest)?;
    if request.drawn.n.is_some_and(|n| n != 1) {
        return Err(Failure::field("n", "n is not offered here: a response is one answer"));
    }
    let mut turns: Vec<Message> =
        request.instructions.clone().map(Message::system).into_iter().collect();
    turns.extend(match request.input {
        Input::Text(text) => vec![Message::user(text)],
        Input::Turns(given) => messages(given, "input")?,
    });
    let most = ("max_output_tokens", request.max_output_tokens);
    let opened = request.drawn.open(&state, most).await?;
    let prompt = opened.policy.encode_chat(&turns)?;
    take_in(&state, &turns, &request.rest).await?;
    let as_asked = json!({
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "temperature": opened.settings.temperature,
        "top_p": opened.settings.top_p,
    });
    let stream = opened.stream;
    let giving = opened.give(state, "resp", (turns, &prompt))?;
    let mut response = ResponseParts { item: new_id("msg")?, giving, as_asked, sequence: 0 };
    if stream {
        return Ok(streamed(response));
    }
    let answers = response.giving.whole().await?;
    let Some(WholeAnswer { text, end, .. }) = answers.first() else {
        return Err(Failure::from(crate::Error::Closed));
    };
    Ok(Json(response.finished(text, end)).into_response())
}

/// A response part by part.
struct ResponseParts {
    giving: Giving,
    /// `msg-...`
    item: String,
    as_asked: Value,
    sequence: u64,
}

impl ResponseParts {
    fn response(&self, status: &str, output: Value) -> Value {
        let response = json!({
            "id": self.giving.id,
            "object": "response",
            "created_at": self.giving.created,
            "status": status,
            "error": null,
            "incomplete_details": null,
            "model": self.giving.policy.name(),
            "output": output,
            "parallel_tool_calls": false,
            "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null},
            "store": false,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "truncation": "disabled",
            "usage": null,
            "metadata": {},
        });
        with(response, self.as_asked.clone())
    }

    fn message(&self, status: &str, content: Value) -> Value {
        json!({
            "type": "message",
            "id": self.item,
            "status": status,
            "role": "assistant",
            "content": content,
        })
    }

    fn finished(&self, text: &str, end: &AnswerEnd) -> Value {
        let cut = end.stop == StopReason::Length;
        let status = if cut { "incomplete" } else { "completed" };
        let output = json!([self.message(status, json!([part(text)]))]);
        let usage = json!({
            "input_tokens": self.giving.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.giving.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.giving.prompt_tokens + self.giving.tokens,
        });
        let why = cut.then(|| json!({"reason": "max_output_tokens"}));
        with(self.response(status, output), json!({"usage": usage, "incomplete_details": why}))
    }

    fn event(&mut self, kind: &'static str, data: Value) -> SentEvent {
        let data = with(data, json!({"type": kind, "sequence_number": self.sequence}));
        self.sequence += 1;
        SentEvent { kind: Some(kind), data: data.to_string() }
    }

    fn place(&self) -> Value {
        json!({"item_id": self.item, "output_index": 0, "content_index": 0})
    }

    fn whole(&mut self, end: &AnswerEnd) -> Vec<SentEvent> {
        self.giving.remember();
        let text = self.giving.texts.first().cloned().unwrap_or_default();
        let told = with(self.place(), json!({"text": text, "logprobs": []}));
        let done = with(self.place(), json!({"part": part(&text)}));
        let response = self.finished(&text, end);
        let item = response.pointer("/output/0").cloned();
        let last = match end.stop {
            StopReason::Length => "response.incomplete",
            StopReason::TurnEnd | StopReason::StopText => "response.completed",
        };
        vec![
            self.event("response.output_text.done", told),
            self.event("response.content_part.done", done),
            self.event("response.output_item.done", json!({"output_index": 0, "item": item})),
            self.event(last, json!({"response": response})),
        ]
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

impl AnswerForm for ResponseParts {
    fn giving(&mut self) -> &mut Giving {
        &mut self.giving
    }

    fn beginning(&mut self) -> Vec<SentEvent> {
        let response = self.response("in_progress", json!([]));
        let item = self.message("in_progress", json!([]));
        let added = with(self.place(), json!({"part": part("")}));
        vec![
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
            self.event("response.output_item.added", json!({"output_index": 0, "item": item})),
            self.event("response.content_part.added", added),
        ]
    }

    fn piece(&mut self, piece: &AnswerPiece) -> Vec<SentEvent> {
        let mut sent = Vec::new();
        if !piece.text.is_empty() {
            let delta = with(self.place(), json!({"delta": piece.text, "logprobs": []}));
            sent.push(self.event("response.output_text.delta", delta));
        }
        if let Some(end) = &piece.end {
            sent.extend(self.whole(end));
        }
        sent
    }

    /// The last event says that the response is whole, and nothing comes after it.
    fn end(&mut self) -> Vec<SentEvent> {
        Vec::new()
    }

    fn failed(&mut self, failure: &Failure) -> SentEvent {
        let failed = failure.json().get("error").cloned().unwrap_or_default();
        self.event("error", failed)
    }
}
