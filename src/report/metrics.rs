//! What training and measuring came to, step by step, under TRL's names: for `gradus export metrics`, and
//! for the event files that a run keeps while it works. Steps are counted on over iterations and never
//! begin again.

use super::IterationRow;
use super::tensorboard::Scalar;
use crate::domain::Iteration;
use crate::domain::event::{IterationKind, StepMetrics};
use crate::view::IterationView;
use serde_json::{Map, Value, json};

/// What was counted in the iterations before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepsBefore {
    /// Steps.
    pub steps: u64,
    /// Tokens that they read.
    pub tokens: u64,
}

/// An optimiser step.
pub(crate) struct TrainingStep<'a> {
    /// Counted over all iterations, from 1.
    pub global: u64,
    iteration: Iteration,
    kind: IterationKind,
    /// Counted in its iteration.
    own: u32,
    /// Milliseconds since 1970; 0 where the record was dropped.
    pub at_ms: u64,
    /// Tokens of all steps so far.
    pub tokens: u64,
    metrics: &'a StepMetrics,
}

impl TrainingStep<'_> {
    /// Figures under TRL's names.
    fn figures(&self) -> Vec<(&'static str, f64)> {
        let StepMetrics { loss, learning_rate, grad_norm, .. } = *self.metrics;
        let mut all = vec![
            ("loss", loss),
            ("learning_rate", learning_rate),
            ("grad_norm", grad_norm),
            ("num_tokens", self.tokens as f64),
        ];
        if self.kind == IterationKind::Dpo {
            let m = self.metrics;
            all.extend([
                ("rewards/chosen", m.rewards_chosen),
                ("rewards/rejected", m.rewards_rejected),
                ("rewards/margins", m.rewards_margin),
                ("rewards/accuracies", m.rewards_accuracy),
                ("logps/chosen", m.logps_chosen),
                ("logps/rejected", m.logps_rejected),
            ]);
        }
        all
    }

    /// As a row of JSON lines.
    pub fn row(&self) -> Value {
        let mut row = Map::new();
        row.insert("step".to_owned(), json!(self.global));
        row.insert("iteration".to_owned(), json!(self.iteration));
        row.insert("iteration_step".to_owned(), json!(self.own));
        row.insert("time".to_owned(), json!(self.at_ms as f64 / 1e3));
        row.extend(self.figures().into_iter().map(|(name, value)| (name.to_owned(), json!(value))));
        Value::Object(row)
    }

    /// As TensorBoard's scalars, with TRL's tags.
    pub fn scalars(&self) -> Vec<Scalar> {
        let (step, time) = (self.global, self.at_ms as f64 / 1e3);
        let scalar = |(name, value)| Scalar { tag: format!("train/{name}"), step, time, value };
        self.figures().into_iter().map(scalar).collect()
    }
}

/// What an iteration came to, under our own names.
fn outcomes(row: &IterationRow) -> Vec<(&'static str, f64)> {
    let mut all = vec![("pairs", row.pairs as f64), ("prompts", row.prompts as f64)];
    if row.judgments > 0 {
        all.push(("unscored", f64::from(row.unscored) / f64::from(row.judgments)));
    }
    if let Some(evaluation) = &row.evaluation {
        all.push(("score", evaluation.score.mean));
        all.push(("length", evaluation.length.mean));
        if let Some(versus) = evaluation.before_the_gate() {
            all.push(("win_rate", versus.win_rate.mean));
            all.extend(versus.win_rate.low.map(|low| ("win_rate/low", low)));
            all.extend(versus.win_rate.high.map(|high| ("win_rate/high", high)));
        }
    }
    all
}

/// What an iteration came to as TensorBoard's scalars, at the last step there was.
pub(crate) fn outcome_scalars(row: &IterationRow, step: u64, at_ms: u64) -> Vec<Scalar> {
    let time = at_ms as f64 / 1e3;
    let scalar = |(name, value)| Scalar { tag: format!("gradus/{name}"), step, time, value };
    outcomes(row).into_iter().map(scalar).collect()
}

/// The steps of an iteration from the `skip`th on, counted on from what was before it; `at_ms` says when a
/// step was taken, by its number in the iteration.
pub(crate) fn steps_of<'a>(
    iteration: Iteration,
    open: &'a IterationView,
    (before, skip): (StepsBefore, usize),
    at_ms: &dyn Fn(u32) -> u64,
) -> Vec<TrainingStep<'a>> {
    let mut tokens = before.tokens;
    let step = |(n, (own, metrics)): (usize, &'a (u32, StepMetrics))| {
        tokens += metrics.num_tokens;
        let global = before.steps + n as u64 + 1;
        let at_ms = at_ms(*own);
        TrainingStep { global, iteration, kind: open.kind, own: *own, at_ms, tokens, metrics }
    };
    open.steps.iter().enumerate().map(step).skip(skip).collect()
}
