//! `/v1/completions`: a text that is gone on with.

use super::super::body::JsonBody;
use super::super::failure::Failure;
use super::super::state::HttpShared;
use super::answered::{AnswerForm, Giving, SentEvent, WholeAnswer, finish_reason, streamed, with};
use super::asked::{HowDrawn, OneOrMany, nothing_else};
use super::chat::StreamOptions;
use crate::runtime::AnswerPiece;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Tokens of an answer where a request does not say: as OpenAI's.
const TOKENS_USUAL: usize = 16;

#[derive(Deserialize)]
pub(in super::super) struct TextRequest {
    prompt: OneOrMany,
    max_tokens: Option<usize>,
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    drawn: HowDrawn,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Goes on with a text.
pub(in super::super) async fn text(
    State(state): State<HttpShared>,
    JsonBody(request): JsonBody<TextRequest>,
) -> Result<Response, Failure> {
    nothing_else(&request.rest)?;
    let mut prompts = request.prompt.all();
    let prompt = match (prompts.pop(), prompts.is_empty()) {
        (Some(prompt), true) => prompt,
        (_, more) => {
            let message = if more { "prompt is empty" } else { "one prompt a request is taken" };
            return Err(Failure::field("prompt", message));
        }
    };
    let most = request.max_tokens.unwrap_or(TOKENS_USUAL);
    let opened = request.drawn.open(&state, ("max_tokens", Some(most))).await?;
    let prompt = opened.policy.encode_text(&prompt)?;
    let stream = opened.stream;
    let giving = opened.give(state, "cmpl", (Vec::new(), &prompt))?;
    if stream {
        let usage = request.stream_options.unwrap_or_default().include_usage;
        return Ok(streamed(TextParts { giving, usage }));
    }
    whole(giving).await.map(IntoResponse::into_response)
}

fn choice(index: usize, text: &str, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish_reason})
}

async fn whole(mut giving: Giving) -> Result<Json<Value>, Failure> {
    let answers = giving.whole().await?;
    let one = |(index, answer): (usize, &WholeAnswer)| {
        choice(index, &answer.text, Some(finish_reason(answer.end.stop)))
    };
    let choices: Vec<Value> = answers.iter().enumerate().map(one).collect();
    let more = json!({"choices": choices, "usage": giving.usage()});
    Ok(Json(with(giving.envelope("text_completion"), more)))
}

/// A text part by part.
struct TextParts {
    giving: Giving,
    usage: bool,
}

impl AnswerForm for TextParts {
    fn giving(&mut self) -> &mut Giving {
        &mut self.giving
    }

    fn piece(&mut self, piece: &AnswerPiece) -> Vec<SentEvent> {
        let finish = piece.end.as_ref().map(|end| finish_reason(end.stop));
        let choices = json!({"choices": [choice(piece.answer, &piece.text, finish)]});
        vec![SentEvent::plain(&with(self.giving.envelope("text_completion"), choices))]
    }

    fn end(&mut self) -> Vec<SentEvent> {
        let more = json!({"choices": [], "usage": self.giving.usage()});
        let chunk = with(self.giving.envelope("text_completion"), more);
        let usage = self.usage.then(|| SentEvent::plain(&chunk));
        usage.into_iter().chain([SentEvent::done()]).collect()
    }
}
