//! A chat model over one that works on token ids ([`LanguageModel`]): the conversation is encoded
//! once, answers are the drawn ids with their text, and a choice's probability is asked for at the
//! token where the ways of going on part ([`crate::lm::fork`]).

use super::{AnswerRequest, ChatModel, ChoiceRequest, EngineError, Prepared};
use crate::domain::{Completion, Message, StopReason};
use crate::lm::cancel::Cancel;
use crate::lm::error::LmError;
use crate::lm::fork::{Fork, Written, exclusive, fork};
use crate::lm::generate::{DrawRequest, Sampling};
use crate::lm::policy::{LanguageModel, Vocabulary};
use std::sync::Arc;

/// A model on token ids, as a chat model.
pub struct TokenChat(Arc<dyn LanguageModel>);

impl TokenChat {
    /// Over `model`.
    pub fn over(model: Arc<dyn LanguageModel>) -> Arc<dyn ChatModel> {
        Arc::new(TokenChat(model))
    }

    fn vocabulary(&self) -> &dyn Vocabulary {
        self.0.as_ref()
    }

    fn forked(&self, request: &ChoiceRequest) -> Result<Option<Fork>, LmError> {
        let ChoiceRequest { prompt, reply_ids, before, choices } = request;
        let written = Written { prompt: &prompt.ids, reply: reply_ids, text: before };
        let fits = |fork: &Fork| {
            let longest = fork.choices.iter().map(Vec::len).max().unwrap_or(0);
            fork.context.len() + longest <= self.vocabulary().context_tokens_max()
        };
        Ok(fork(self.vocabulary(), written, choices)?.filter(fits))
    }
}

/// The same request as a model on token ids takes it.
pub fn draw_request(model: &dyn Vocabulary, request: &AnswerRequest) -> DrawRequest {
    let mut stop_ids = model.stop_ids().to_vec();
    stop_ids.extend(&request.stop_ids);
    let sampling = &request.sampling;
    DrawRequest {
        prompt: request.prompt.ids.clone(),
        seeds: request.seeds.clone(),
        sampling: Sampling {
            temperature: sampling.temperature as f32,
            top_p: sampling.top_p as f32,
            max_new_tokens: sampling.max_new_tokens as usize,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            stop_ids,
        },
    }
}

/// The answer up to the first of the texts that end it.
fn stopped(
    model: &dyn Vocabulary,
    mut answer: Completion,
    stop: &[String],
) -> Result<Completion, LmError> {
    let ends = stop.iter().filter(|s| !s.is_empty()).filter_map(|s| answer.text.find(s.as_str()));
    let Some(end) = ends.min() else { return Ok(answer) };
    answer.text.truncate(end);
    answer.stop = StopReason::StopText;
    while let Some((_, head)) = answer.token_ids.split_last() {
        if model.decode(&answer.token_ids)?.len() <= end {
            break;
        }
        answer.token_ids = head.to_vec();
    }
    Ok(answer)
}

impl ChatModel for TokenChat {
    fn prepare(&self, messages: &[Message], begun: &str) -> Result<Prepared, EngineError> {
        let mut ids = self.0.encode_chat(messages)?;
        if !begun.is_empty() {
            ids.extend(self.0.encode_text(begun)?);
        }
        Ok(Prepared { messages: messages.to_vec(), begun: begun.to_owned(), ids })
    }

    fn answer(
        &self,
        requests: &[AnswerRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, EngineError> {
        let vocabulary = self.vocabulary();
        let draws: Vec<DrawRequest> =
            requests.iter().map(|request| draw_request(vocabulary, request)).collect();
        let drawn = self.0.draw(&draws, cancel)?;
        let cut = |(request, answers): (&AnswerRequest, Vec<Completion>)| {
            let cut = |answer| stopped(vocabulary, answer, &request.stop);
            answers.into_iter().map(cut).collect::<Result<Vec<_>, LmError>>()
        };
        Ok(requests.iter().zip(drawn).map(cut).collect::<Result<_, _>>()?)
    }

    /// All requests whose choices are spelled alike are read in one batch.
    fn choice_logps(
        &self,
        requests: &[ChoiceRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Option<Vec<f64>>>, EngineError> {
        let mut found: Vec<Option<Vec<f64>>> = requests.iter().map(|_| None).collect();
        let mut waiting: Vec<(usize, Fork)> = Vec::new();
        for (at, request) in requests.iter().enumerate() {
            waiting.extend(self.forked(request)?.map(|fork| (at, fork)));
        }
        while let Some((_, first)) = waiting.first() {
            let choices = first.choices.clone();
            let (batch, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, fork)| fork.choices == choices);
            waiting = rest;
            let contexts: Vec<Vec<u32>> =
                batch.iter().map(|(_, fork)| fork.context.clone()).collect();
            let logps = self.0.choice_logps(&contexts, &choices, cancel)?;
            for ((at, _), logps) in batch.iter().zip(logps) {
                if let Some(found) = found.get_mut(*at) {
                    *found = Some(exclusive(&logps, &choices));
                }
            }
        }
        Ok(found)
    }

    fn context_tokens_max(&self) -> Option<usize> {
        Some(self.vocabulary().context_tokens_max())
    }
}
