//! A fake for each port alone: an engine that gives text and nothing else, a scorer, a training
//! backend that saves what it began with.

use crate::dice::{hash, share};
use gradus::blob::BlobStore;
use gradus::domain::event::StepMetrics;
use gradus::domain::plan::{self, AnswersWith, MovingMean};
use gradus::domain::{BlobHash, Completion, Message, PolicyRef, StopReason};
use gradus::engine::training::{Saved, SegmentRequest, StepResult, TrainedSegment};
use gradus::engine::{
    AnswerRequest, Capabilities, ChatModel, ChoiceRequest, Engine, EngineError, Identity, Needs,
    Prepared, Scorer, TrainBackend, text_alone,
};
use gradus::lm::cancel::Cancel;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Gives text alone, as a server does that says nothing of tokens and probabilities.
#[derive(Default)]
pub struct TextEngine {
    /// Whether its weights are its own.
    pub frozen: bool,
    /// Times it was asked.
    pub asked: Arc<AtomicU32>,
}

/// A policy of a [`TextEngine`].
struct TextModel(Arc<AtomicU32>);

impl Engine for TextEngine {
    fn identity(&self) -> Identity {
        let answers_with = if self.frozen { AnswersWith::Own } else { AnswersWith::Policy };
        let hash = BlobHash(blake3::hash(b"text engine").to_hex().to_string());
        Identity { what: "a fake that gives text".to_owned(), hash, answers_with }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { seeds: true, ..Capabilities::default() }
    }

    fn needs(&self) -> Needs {
        Needs::Network
    }

    fn open(
        &self,
        _: &PolicyRef,
        _: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError> {
        Ok(Arc::new(TextModel(self.asked.clone())))
    }
}

impl TextModel {
    fn answer(request: &AnswerRequest, seed: &[u8]) -> Completion {
        let asked = request.prompt.messages.last().map_or("", |m| m.content.as_str());
        let drawn = hash(&[asked.as_bytes(), seed]);
        let text = match asked.contains("points for") {
            true => {
                let score = share(&drawn, 0, 6);
                let points = ["relevant", "useful", "complete", "correct", "clean"];
                let said = points
                    .iter()
                    .zip(0..)
                    .map(|(name, at)| format!("{name} {} ", if at < score { "yes" } else { "no" }));
                format!("{}. score : {score}", said.collect::<String>())
            }
            false => format!("cat , dog , {} .", share(&drawn, 0, 30)),
        };
        Completion { token_ids: Vec::new(), text, logp: None, stop: StopReason::TurnEnd }
    }
}

impl ChatModel for TextModel {
    fn prepare(&self, messages: &[Message], begun: &str) -> Result<Prepared, EngineError> {
        text_alone("fake", messages, begun)
    }

    fn answer(
        &self,
        requests: &[AnswerRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, EngineError> {
        cancel.check()?;
        self.0.fetch_add(requests.len() as u32, Ordering::Relaxed);
        let all = |request: &AnswerRequest| {
            request.seeds.iter().map(|seed| TextModel::answer(request, &seed.0)).collect()
        };
        Ok(requests.iter().map(all).collect())
    }

    fn choice_logps(
        &self,
        _: &[ChoiceRequest],
        _: &Cancel,
    ) -> Result<Vec<Option<Vec<f64>>>, EngineError> {
        panic!("it does not say that it can")
    }

    fn context_tokens_max(&self) -> Option<usize> {
        None
    }
}

/// Says of every text what its length says.
#[derive(Default)]
pub struct LengthScorer(pub Arc<AtomicU32>);

impl Scorer for LengthScorer {
    fn logps(
        &self,
        _: &PolicyRef,
        sequences: &[(Vec<u32>, Vec<u32>)],
        cancel: &Cancel,
    ) -> Result<Vec<f64>, EngineError> {
        cancel.check()?;
        self.0.fetch_add(sequences.len() as u32, Ordering::Relaxed);
        Ok(sequences.iter().map(|(_, response)| -2.5 * response.len() as f64).collect())
    }
}

/// Saves what it began with, and an optimiser state of its own.
pub struct StandingTrainer {
    /// The run's blobs.
    pub blobs: BlobStore,
    /// Steps it was asked for.
    pub steps: Arc<AtomicU32>,
}

/// What the trainer calls an optimiser state.
pub const STATE: &[u8] = b"nothing moved";

impl TrainBackend for StandingTrainer {
    fn needs(&self) -> Needs {
        Needs::Network
    }

    fn train(&self, request: SegmentRequest<'_>) -> Result<TrainedSegment, EngineError> {
        request.cancel.check()?;
        let from = request.saved.map_or_else(|| request.start.clone(), |saved| saved.policy);
        self.steps.fetch_add(request.steps.len() as u32, Ordering::Relaxed);
        let steps = request.steps.iter().zip(1u64..).map(|(_, done)| {
            (request.on_step)(done);
            StepResult::Taken(StepMetrics { loss: 0.25, ..StepMetrics::default() })
        });
        let steps = steps.collect();
        let saved = Saved { policy: from, optimizer: self.blobs.put(STATE)? };
        Ok(TrainedSegment { steps, saved: Some(saved), short: Vec::new() })
    }

    fn merge(&self, policy: &PolicyRef) -> Result<PolicyRef, EngineError> {
        Ok(policy.clone())
    }

    fn average(&self, of: &MovingMean) -> Result<PolicyRef, EngineError> {
        Ok(of.newest.clone())
    }

    fn discard(&self, _: &[BlobHash]) {}
}
