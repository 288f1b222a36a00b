//! The model on this machine, which writes down what stages ask of it and how long that takes. What is
//! asked and what comes of it are the real things.

use crate::domain::plan::{self, MovingMean};
use crate::domain::{BlobHash, Completion, Message, PolicyRef};
use crate::engine::local::LocalModel;
use crate::engine::tokens::TokenChat;
use crate::engine::training::{SegmentRequest, StepData, TrainedSegment};
use crate::engine::{
    Capabilities, ChatModel, Engine, EngineError, Identity, Needs, Scorer, TrainBackend,
};
use crate::lm::cancel::Cancel;
use crate::lm::error::LmError;
use crate::lm::generate::DrawRequest;
use crate::lm::policy::{LanguageModel, Vocabulary};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Something that was asked of the model; times in seconds.
#[derive(Clone, Debug)]
pub(super) enum TimedCall {
    /// A policy was opened, or found open.
    Opened { seconds: f64 },
    /// Answers were drawn; the lengths of all of them, in tokens.
    Drew { requests: Vec<DrawRequest>, lengths: Vec<usize> },
    /// Probabilities were read after contexts.
    Read { contexts: Vec<Vec<u32>>, seconds: f64 },
    /// Sequences were scored; rows of them in all.
    Scored { rows: usize, seconds: f64 },
    /// A segment was trained: rows and seconds of each step; the first from the beginning.
    Trained { steps: Vec<(usize, f64)> },
}

type Calls = Arc<Mutex<Vec<TimedCall>>>;

fn note(calls: &Calls, call: TimedCall) {
    calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
}

/// The model, watched.
pub(super) struct WatchedBackend {
    inner: LocalModel,
    calls: Calls,
}

impl WatchedBackend {
    pub fn new(inner: LocalModel) -> WatchedBackend {
        WatchedBackend { inner, calls: Calls::default() }
    }

    /// A policy, to be asked in token ids.
    pub fn tokens(
        &self,
        policy: &PolicyRef,
        engine: &plan::PlannedEngine,
    ) -> Result<Arc<dyn LanguageModel>, EngineError> {
        let began = Instant::now();
        let inner = self.inner.policy(policy, engine)?;
        note(&self.calls, TimedCall::Opened { seconds: began.elapsed().as_secs_f64() });
        Ok(Arc::new(WatchedModel { inner, calls: self.calls.clone() }))
    }

    /// What was asked since this was called last.
    pub fn take(&self) -> Vec<TimedCall> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Rows that a step computes: a pair's prompt once, and no row for a last token.
fn rows_of(step: &StepData) -> usize {
    let one = |ids: &[u32]| ids.len().saturating_sub(1);
    match step {
        StepData::Sft(rows) => rows.iter().map(|row| one(&row.ids)).sum(),
        StepData::Dpo { pairs, rehearsal } => {
            let pair = pairs.iter().map(|p| p.prompt.len() + one(&p.chosen) + one(&p.rejected));
            pair.chain(rehearsal.iter().map(|row| one(&row.ids))).sum()
        }
    }
}

impl Engine for WatchedBackend {
    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn needs(&self) -> Needs {
        Engine::needs(&self.inner)
    }

    fn open(
        &self,
        policy: &PolicyRef,
        engine: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError> {
        Ok(TokenChat::over(self.tokens(policy, engine)?))
    }
}

impl Scorer for WatchedBackend {
    fn logps(
        &self,
        policy: &PolicyRef,
        sequences: &[(Vec<u32>, Vec<u32>)],
        cancel: &Cancel,
    ) -> Result<Vec<f64>, EngineError> {
        let began = Instant::now();
        let found = self.inner.logps(policy, sequences, cancel)?;
        // A prompt is read once for the responses to it that stand together.
        let mut rows: usize = sequences.iter().map(|(_, response)| response.len()).sum();
        let mut before = None;
        for (prompt, _) in sequences {
            rows += if before == Some(prompt) { 0 } else { prompt.len() };
            before = Some(prompt);
        }
        note(&self.calls, TimedCall::Scored { rows, seconds: began.elapsed().as_secs_f64() });
        Ok(found)
    }
}

impl TrainBackend for WatchedBackend {
    fn train(&self, request: SegmentRequest<'_>) -> Result<TrainedSegment, EngineError> {
        let rows: Vec<usize> = request.steps.iter().map(rows_of).collect();
        let began = Instant::now();
        let ends = Mutex::new(Vec::new());
        let on_step = request.on_step;
        let watched = |done: u64| {
            ends.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            on_step(done);
        };
        let segment = self.inner.train(SegmentRequest { on_step: &watched, ..request })?;
        let ends = ends.into_inner().unwrap_or_else(PoisonError::into_inner);
        let starts = std::iter::once(began).chain(ends.iter().copied());
        let took = ends.iter().zip(starts).map(|(end, start)| (*end - start).as_secs_f64());
        let steps = rows.into_iter().zip(took).collect();
        note(&self.calls, TimedCall::Trained { steps });
        Ok(segment)
    }

    fn merge(&self, policy: &PolicyRef) -> Result<PolicyRef, EngineError> {
        self.inner.merge(policy)
    }

    fn average(&self, of: &MovingMean) -> Result<PolicyRef, EngineError> {
        self.inner.average(of)
    }

    fn discard(&self, blobs: &[BlobHash]) {
        self.inner.discard(blobs);
    }
}

struct WatchedModel {
    inner: Arc<dyn LanguageModel>,
    calls: Calls,
}

impl Vocabulary for WatchedModel {
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, LmError> {
        self.inner.encode_chat(messages)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.inner.encode_text(text)
    }

    fn encode_template(&self, text: &str) -> Result<Vec<u32>, LmError> {
        self.inner.encode_template(text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, LmError> {
        self.inner.decode(ids)
    }

    fn turn_end(&self) -> u32 {
        self.inner.turn_end()
    }

    fn stop_ids(&self) -> &[u32] {
        self.inner.stop_ids()
    }

    fn context_tokens_max(&self) -> usize {
        self.inner.context_tokens_max()
    }
}

impl LanguageModel for WatchedModel {
    fn draw(
        &self,
        requests: &[DrawRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, LmError> {
        let drawn = self.inner.draw(requests, cancel)?;
        let lengths = drawn.iter().flatten().map(|c| c.token_ids.len()).collect();
        note(&self.calls, TimedCall::Drew { requests: requests.to_vec(), lengths });
        Ok(drawn)
    }

    fn choice_logps(
        &self,
        contexts: &[Vec<u32>],
        choices: &[Vec<u32>],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        let began = Instant::now();
        let found = self.inner.choice_logps(contexts, choices, cancel)?;
        let seconds = began.elapsed().as_secs_f64();
        note(&self.calls, TimedCall::Read { contexts: contexts.to_vec(), seconds });
        Ok(found)
    }
}
