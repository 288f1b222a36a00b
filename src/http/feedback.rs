//! VOTES over HTTP: what somebody says of an answer that was given here lately, by its id, or of any
//! answer, by its text. A vote is in the log when it is answered.

use super::answered_chats::AnsweredChat;
use super::body::JsonBody;
use super::failure::Failure;
use super::state::{HttpShared, HttpState};
use crate::domain::vote::{Vote, VoteVerdict, VotedAnswer};
use crate::domain::{Message, Offset};
use crate::error::{Code, Error};
use crate::runtime::{Answer, Command, Query, Reply};
use axum::Json;
use axum::extract::{Query as InUrl, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};

/// Votes that are told at a time, at most.
const TOLD_MAX: usize = 1000;

/// An answer that was given here.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Id(String),
    OneOfMany {
        completion_id: String,
        #[serde(default)]
        index: usize,
    },
}

/// What somebody says. Of an answer that was given here it has the `completion_id` (and `index`, where
/// there were several); of another `messages` and `answer`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Feedback {
    completion_id: Option<String>,
    #[serde(default)]
    index: usize,
    messages: Option<Vec<Message>>,
    answer: Option<String>,
    /// `up`, `down`, 1, -1, true, false.
    rating: Option<Value>,
    /// The answer that it is better than.
    better_than: Option<Given>,
    /// The same by its text.
    better_than_text: Option<String>,
    correction: Option<String>,
    comment: Option<String>,
    by: Option<String>,
}

fn rated(rating: &Value) -> Result<VoteVerdict, Failure> {
    match rating {
        Value::Bool(good) => Some(*good),
        Value::String(word) if word == "up" || word == "good" => Some(true),
        Value::String(word) if word == "down" || word == "bad" => Some(false),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(-1.0) => Some(false),
        _ => None,
    }
    .map(|good| if good { VoteVerdict::Good } else { VoteVerdict::Bad })
    .ok_or_else(|| {
        Failure::field("rating", format!("rating is {rating}, and must be \"up\" or \"down\""))
    })
}

fn known(state: &HttpState, id: &str) -> Result<Arc<AnsweredChat>, Failure> {
    let answered_chats = state.answered_chats.lock().unwrap_or_else(PoisonError::into_inner);
    answered_chats.get(id).ok_or_else(|| {
        Failure::of(
            StatusCode::NOT_FOUND,
            Code::RequestRefused,
            format!(
                "no answer {id} is remembered: ids are kept until the process ends, the last {} of \
                 them. Send the conversation itself (messages and answer) instead",
                state.settings.remembered_max
            ),
        )
    })
}

fn answer(id: &str, conversation: &AnsweredChat, index: usize) -> Result<VotedAnswer, Failure> {
    let text = conversation.answers.get(index).cloned().ok_or_else(|| {
        let given = conversation.answers.len();
        Failure::field("index", format!("{id} has {given} answers, and no answer {index}"))
    })?;
    let AnsweredChat { model, policy, .. } = conversation;
    Ok(VotedAnswer { text, model: Some(model.clone()), policy: Some(policy.clone()) })
}

impl Feedback {
    /// The conversation, and the answer that is voted on.
    fn about(&self, state: &HttpState) -> Result<(Vec<Message>, VotedAnswer), Failure> {
        match (&self.completion_id, &self.messages, &self.answer) {
            (Some(id), None, None) => {
                let conversation = known(state, id)?;
                let answer = answer(id, &conversation, self.index)?;
                Ok((conversation.messages.clone(), answer))
            }
            (None, Some(messages), Some(text)) if !messages.is_empty() => {
                let answer = VotedAnswer { text: text.clone(), model: None, policy: None };
                Ok((messages.clone(), answer))
            }
            _ => Err(Failure::request(
                "say what is voted on: completion_id (and index), or messages and answer",
            )),
        }
    }

    fn verdict(&self, state: &HttpState, messages: &[Message]) -> Result<VoteVerdict, Failure> {
        let better = match (&self.better_than, &self.better_than_text) {
            (None, None) => None,
            (None, Some(text)) => {
                Some(VotedAnswer { text: text.clone(), model: None, policy: None })
            }
            (Some(given), None) => {
                let (id, index) = match given {
                    Given::Id(id) => (id, 0),
                    Given::OneOfMany { completion_id, index } => (completion_id, *index),
                };
                let other = known(state, id)?;
                if other.messages != messages {
                    let message =
                        format!("{id} answers another conversation, so neither is better");
                    return Err(Failure::field("better_than", message));
                }
                Some(answer(id, &other, index)?)
            }
            (Some(_), Some(_)) => {
                return Err(Failure::request("better_than and better_than_text: give one of them"));
            }
        };
        let rated = self.rating.as_ref().map(rated).transpose()?;
        let better = better.map(|than| VoteVerdict::Better { than });
        let corrected = self.correction.clone().map(|text| VoteVerdict::Corrected { text });
        let mut all = [rated, better, corrected].into_iter().flatten();
        match (all.next(), all.next(), &self.comment) {
            (Some(verdict), None, _) => Ok(verdict),
            (None, _, Some(_)) => Ok(VoteVerdict::Commented),
            (Some(_), Some(_), _) => Err(Failure::request(
                "a vote says one thing: rating, better_than or correction (and a comment)",
            )),
            (None, _, None) => Err(Failure::request(
                "a vote says something: rating, better_than, correction or comment",
            )),
        }
    }
}

/// Keeps what somebody says.
pub(super) async fn vote(
    State(state): State<HttpShared>,
    JsonBody(feedback): JsonBody<Feedback>,
) -> Result<Json<Value>, Failure> {
    let (messages, answer) = feedback.about(&state)?;
    let verdict = feedback.verdict(&state, &messages)?;
    if let VoteVerdict::Better { than } = &verdict
        && than.text == answer.text
    {
        return Err(Failure::field("better_than", "both answers are the same text"));
    }
    let Feedback { completion_id: completion, comment, by, .. } = feedback;
    let kind = verdict.as_str();
    let vote = Box::new(Vote { messages, answer, verdict, comment, by, completion });
    match state.handle.command(Command::Vote { vote }).await? {
        Answer::Recorded { at } => Ok(Json(json!({"object": "vote", "id": at, "kind": kind}))),
        _ => Err(Failure::from(Error::refused(Code::Defect, "the vote was answered otherwise"))),
    }
}

/// Which votes somebody wants to see.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedVotes {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

/// Votes in the order in which they were given.
pub(super) async fn votes(
    State(state): State<HttpShared>,
    InUrl(wanted): InUrl<WantedVotes>,
) -> Result<Json<Reply>, Failure> {
    let limit = wanted.limit.unwrap_or(100).clamp(1, TOLD_MAX);
    let query = Query::Votes { from: Offset(wanted.from), limit };
    Ok(Json(state.handle.query(query).await?))
}
