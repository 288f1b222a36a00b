//! What training and measuring came to, step by step: JSON lines, and TensorBoard's event files with
//! TRL's tags. Steps are counted on over iterations and never begin again.

use super::RunExport;
use super::manifest::Manifest;
use super::target::NewFolder;
use super::tensorboard::{Scalar, event_file};
use crate::domain::event::{IterationKind, StepMetrics};
use crate::domain::{Event, Iteration, Offset};
use crate::error::Error;
use crate::log::Log;
use crate::report::{IterationRow, Report};
use crate::view::IterationView;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Records that are read at once.
const RECORDS: usize = 512;

/// An optimiser step.
struct TrainingStep<'a> {
    /// Counted over all iterations, from 1.
    global: u64,
    iteration: Iteration,
    kind: IterationKind,
    /// Counted in its iteration.
    own: u32,
    /// Milliseconds since 1970; 0 where the record was dropped.
    at_ms: u64,
    /// Tokens of all steps so far.
    tokens: u64,
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

    fn row(&self) -> Value {
        let mut row = Map::new();
        row.insert("step".to_owned(), json!(self.global));
        row.insert("iteration".to_owned(), json!(self.iteration));
        row.insert("iteration_step".to_owned(), json!(self.own));
        row.insert("time".to_owned(), json!(self.at_ms as f64 / 1e3));
        row.extend(self.figures().into_iter().map(|(name, value)| (name.to_owned(), json!(value))));
        Value::Object(row)
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

impl RunExport {
    /// Exports the figures of every step and iteration: `metrics.jsonl`, `iterations.jsonl` and an
    /// event file for `tensorboard --logdir`.
    ///
    /// # Errors
    /// When something is at `to`, nothing was trained yet, the log cannot be read, or the disk refuses.
    pub fn metrics(&self, to: &Path) -> Result<Manifest, Error> {
        let folder = NewFolder::begin(to)?;
        let times = self.step_times()?;
        let (mut steps, mut iterations) =
            (folder.rows("metrics.jsonl")?, folder.rows("iterations.jsonl")?);
        let (mut scalars, mut global, mut tokens) = (Vec::new(), 0, 0);
        let report = Report::of(&self.view);
        for ((iteration, open), row) in self.view.iterations.iter().zip(&report.iterations) {
            let mut at_ms = 0;
            for step in steps_of(*iteration, open, &times, (global, tokens)) {
                (global, tokens, at_ms) = (step.global, step.tokens, step.at_ms);
                steps.push(&step.row())?;
                let scalar = |(name, value)| scalar(format!("train/{name}"), &step, value);
                scalars.extend(step.figures().into_iter().map(scalar));
            }
            iterations.push(row)?;
            let time = at_ms as f64 / 1e3;
            scalars.extend(outcomes(row).into_iter().map(|(name, value)| Scalar {
                tag: format!("gradus/{name}"),
                step: global,
                time,
                value,
            }));
        }
        let nothing = "the run has taken no training step yet";
        let rows = steps.finish(nothing)?;
        iterations.finish(nothing)?;
        let begun = scalars.first().map_or(0.0, |first| first.time);
        let name = format!("events.out.tfevents.{:010}.gradus", begun as u64);
        folder.write(&name, event_file(begun, &scalars))?;
        let mut manifest = self.manifest("metrics", None, "jsonl, tensorboard".to_owned());
        manifest.rows = Some(rows);
        manifest.finish(folder)
    }

    /// When each step was taken that counts: the last of those that were taken again.
    fn step_times(&self) -> Result<BTreeMap<(Iteration, u32), u64>, Error> {
        let (mut times, mut from) = (BTreeMap::new(), Offset(0));
        loop {
            let records = self.log.read(from, RECORDS)?;
            let Some(last) = records.last() else { return Ok(times) };
            from = Offset(last.offset.0 + 1);
            for record in &records {
                if let Event::StepTaken { iteration, step, .. } = &record.event {
                    times.insert((*iteration, *step), record.at_ms);
                }
            }
        }
    }
}

fn scalar(tag: String, step: &TrainingStep<'_>, value: f64) -> Scalar {
    Scalar { tag, step: step.global, time: step.at_ms as f64 / 1e3, value }
}

/// The steps of an iteration, counted on from what was before it.
fn steps_of<'a>(
    iteration: Iteration,
    open: &'a IterationView,
    times: &BTreeMap<(Iteration, u32), u64>,
    (before, mut tokens): (u64, u64),
) -> Vec<TrainingStep<'a>> {
    let step = |(n, (own, metrics)): (usize, &'a (u32, StepMetrics))| {
        tokens += metrics.num_tokens;
        let at_ms = times.get(&(iteration, *own)).copied().unwrap_or(0);
        let global = before + n as u64 + 1;
        TrainingStep { global, iteration, kind: open.kind, own: *own, at_ms, tokens, metrics }
    };
    open.steps.iter().enumerate().map(step).collect()
}
