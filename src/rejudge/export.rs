//! Pairs for whoever wants to train on them elsewhere: the conversational preference format that
//! TRL's `DPOTrainer` reads, one JSON object per line.

use super::{Past, Rejudged};
use crate::domain::{Iteration, Message};
use crate::error::{Code, Error};
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
    pub fn pairs(&self, again: &Rejudged) -> Result<Vec<Preference>, Error> {
        let mut all = Vec::new();
        for one in &again.iterations {
            let Some(open) = self.run.view.iterations.get(&one.iteration) else { continue };
            let plan = self.plan(open)?;
            let dropped = || {
                let message = "the completions were dropped when the log was compacted";
                Error::refused(Code::RecordsDropped, message)
            };
            let answered = self.answered(one.iteration, open)?.ok_or_else(dropped)?;
            for answered in answered {
                let job = &answered.job;
                let scores = one.scores_of(&job.prompt.id, job.completions.len());
                let candidates = candidates(&job.texts, &job.completions, &scores);
                let Ok(pair) = select(&candidates, &plan.pairing.rule) else { continue };
                // A pair is of candidates that have a completion and a score.
                let side = |at: usize| {
                    let text = job.completions.get(at)?.text.as_str();
                    Some((vec![Message::assistant(text)], candidates.get(at)?.score?))
                };
                let (Some((chosen, score_chosen)), Some((rejected, score_rejected))) =
                    (side(pair.chosen), side(pair.rejected))
                else {
                    continue;
                };
                all.push(Preference {
                    prompt: job.prompt.messages.clone(),
                    chosen,
                    rejected,
                    score_chosen,
                    score_rejected,
                    iteration: one.iteration,
                });
            }
        }
        Ok(all)
    }
}
