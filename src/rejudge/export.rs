//! Pairs for whoever wants to train on them elsewhere: the conversational preference format that
//! TRL's `DPOTrainer` reads, one JSON object per line.

use super::{Again, Past};
use crate::domain::{Iteration, Message};
use crate::error::Error;
use crate::stage::pair_store::candidates;
use crate::stage::select::select;
use serde::Serialize;

/// One pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preference {
    /// The turns up to the answer.
    pub prompt: Vec<Message>,
    /// The better answer, as a turn.
    pub chosen: Vec<Message>,
    /// The worse one.
    pub rejected: Vec<Message>,
    /// What the better one came to.
    pub score_chosen: f64,
    /// What the worse one came to.
    pub score_rejected: f64,
    /// Where its completions are from.
    pub iteration: Iteration,
}

impl Past {
    /// The pairs that the right side of a comparison makes, in the order of iterations and prompts.
    ///
    /// # Errors
    /// When the completions cannot be read.
    pub fn pairs(&self, again: &Again) -> Result<Vec<Preference>, Error> {
        let mut all = Vec::new();
        for one in &again.iterations {
            let Some(open) = self.view.iterations.get(&one.iteration) else { continue };
            let plan = self.plan(open)?;
            let answered = self.answered(one.iteration, open)?.unwrap_or_default();
            for answered in answered {
                let job = &answered.job;
                let tallied = one.tallied_of(&job.prompt.id, job.completions.len());
                let candidates = candidates(&job.texts, &job.completions, &tallied);
                let Ok((chosen, rejected)) = select(&candidates, &plan.pairing.rule) else {
                    continue;
                };
                let turn = |at: usize| {
                    let text = job.completions.get(at).map_or("", |c| c.text.as_str());
                    vec![Message::assistant(text)]
                };
                let score =
                    |at: usize| candidates.get(at).and_then(|c| c.score).unwrap_or_default();
                all.push(Preference {
                    prompt: job.prompt.messages.clone(),
                    chosen: turn(chosen),
                    rejected: turn(rejected),
                    score_chosen: score(chosen),
                    score_rejected: score(rejected),
                    iteration: one.iteration,
                });
            }
        }
        Ok(all)
    }
}
