//! A judge of one's own: an engine that is no model. It goes by how many words the question has, in
//! the words of the demo's rubric. `judge.engine: counter` and `judge.readout: parsed` in the settings
//! let it judge; what it is stands in the plan of every iteration that it judged.
//!
//! ```text
//! cargo run --release --example own_engine -- DIR
//! ```

use gradus::domain::plan::{self, AnswersWith};
use gradus::domain::{BlobHash, Completion, Message, PolicyRef, StopReason};
use gradus::engine::{
    AnswerRequest, Capabilities, ChatModel, ChoiceRequest, Engine, EngineError, Identity, Needs,
    Prepared, text_alone,
};
use gradus::prelude::*;
use std::sync::Arc;

/// Counts words.
#[derive(Clone, Copy)]
pub struct Counter;

impl Engine for Counter {
    fn identity(&self) -> Identity {
        // Everything that its answers depend on: another rule is another engine.
        let hash = BlobHash(blake3::hash(b"counts words, version 1").to_hex().to_string());
        Identity { what: "counts words".to_owned(), hash, answers_with: AnswersWith::Own }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { seeds: true, ..Capabilities::default() }
    }

    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    fn open(
        &self,
        _: &PolicyRef,
        _: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError> {
        Ok(Arc::new(*self))
    }
}

impl ChatModel for Counter {
    fn prepare(&self, messages: &[Message], begun: &str) -> Result<Prepared, EngineError> {
        text_alone("counter", messages, begun)
    }

    fn answer(
        &self,
        requests: &[AnswerRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, EngineError> {
        cancel.check()?;
        let reply = |request: &AnswerRequest| {
            let words = |m: &Message| m.content.split_whitespace().count();
            let score = request.prompt.messages.iter().map(words).sum::<usize>() % 6;
            let points = ["relevant", "useful", "complete", "correct", "clean"].iter().enumerate();
            let points = points.map(|(at, name)| match at < score {
                true => format!("{name} yes "),
                false => format!("{name} no "),
            });
            let text = format!("{}. score : {score}", points.collect::<String>());
            let stop = StopReason::TurnEnd;
            let reply = Completion { token_ids: Vec::new(), text, logp: None, stop };
            vec![reply; request.seeds.len()]
        };
        Ok(requests.iter().map(reply).collect())
    }

    fn choice_logps(
        &self,
        _: &[ChoiceRequest],
        _: &Cancel,
    ) -> Result<Vec<Option<Vec<f64>>>, EngineError> {
        Err(EngineError::Lacks {
            engine: "counter".to_owned(),
            lacks: "gives no probabilities".to_owned(),
            cure: "Set judge.readout: parsed".to_owned(),
        })
    }

    fn context_tokens_max(&self) -> Option<usize> {
        None
    }
}

#[allow(dead_code, reason = "a test takes what it shows alone")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("give the run's folder")?;
    let builder = Runtime::builder(dir).named_engine("counter", Arc::new(Counter));
    let runtime = builder.start_blocking()?;
    let outcome = runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {})?;
    println!("{outcome:?}");
    runtime.shutdown_blocking();
    Ok(())
}
