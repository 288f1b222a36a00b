//! What training and measuring came to, as files: JSON lines, and TensorBoard's event file.

use super::RunExport;
use super::manifest::Manifest;
use super::target::NewFolder;
use crate::error::Error;
use crate::report::Report;
use crate::report::metrics::{StepsBefore, outcome_scalars, steps_of};
use crate::report::tensorboard::{event_file, file_name};
use crate::runtime::tensorboard::step_times;
use std::path::Path;

impl RunExport {
    /// Exports the figures of every step and iteration: `metrics.jsonl`, `iterations.jsonl` and an
    /// event file for `tensorboard --logdir`.
    ///
    /// # Errors
    /// When something is at `to`, nothing was trained yet, the log cannot be read, or the disk refuses.
    pub fn metrics(&self, to: &Path) -> Result<Manifest, Error> {
        let folder = NewFolder::begin(to)?;
        let times = step_times(&self.log)?;
        let (mut steps, mut iterations) =
            (folder.rows("metrics.jsonl")?, folder.rows("iterations.jsonl")?);
        let (mut scalars, mut before) = (Vec::new(), StepsBefore::default());
        let report = Report::of(&self.view);
        for ((iteration, open), row) in self.view.iterations.iter().zip(&report.iterations) {
            let mut last_ms = 0;
            let taken = |own: u32| times.get(&(*iteration, own)).copied().unwrap_or(0);
            for step in steps_of(*iteration, open, (before, 0), &taken) {
                before = StepsBefore { steps: step.global, tokens: step.tokens };
                last_ms = step.at_ms;
                steps.push(&step.row())?;
                scalars.extend(step.scalars());
            }
            iterations.push(row)?;
            scalars.extend(outcome_scalars(row, before.steps, last_ms));
        }
        let nothing = "the run has taken no training step yet";
        let rows = steps.finish(nothing)?;
        iterations.finish(nothing)?;
        let begun = scalars.first().map_or(0.0, |first| first.time);
        folder.write(&file_name(begun), event_file(begun, &scalars))?;
        let mut manifest = self.manifest("metrics", None, "jsonl, tensorboard".to_owned());
        manifest.rows = Some(rows);
        manifest.finish(folder)
    }
}
