//! `tb/` in the run's folder: what training and measuring come to, as TensorBoard reads it while the run
//! works (`tensorboard --logdir DIR/tb`). Written whole from the log when a process opens the run, then
//! added to; after training went back to an earlier checkpoint it is written whole again. Never truth,
//! and never in a run's way: where it cannot be written, it is not.

use super::background::Background;
use super::core::Core;
use super::fold::fold;
use crate::atomic_file::{self, Access};
use crate::domain::{Event, Iteration, Offset};
use crate::error::Error;
use crate::log::{Log, LogError, walk};
use crate::report::IterationRow;
use crate::report::metrics::{StepsBefore, outcome_scalars, steps_of};
use crate::report::tensorboard::{Scalar, event_file, events, file_name};
use crate::view::{IterationView, RunView};
use crossbeam_channel::RecvTimeoutError;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Between two looks at what is new.
const EVERY: Duration = Duration::from_secs(2);
/// Until it is tried again where it could not be written: the whole log is read for that.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Writes them until what is given is dropped.
///
/// # Errors
/// When the system will not give a thread.
pub(super) fn keep(dir: PathBuf, core: &Arc<Core>) -> std::io::Result<Background> {
    let core = Arc::downgrade(core);
    Background::start("tensorboard", move |stopped| {
        let mut written: Option<EventFile> = None;
        while let Some(core) = Weak::upgrade(&core) {
            let mut pause = EVERY;
            if let Err(error) = catch_up(&mut written, &dir, &core) {
                tracing::debug!(%error, dir = %dir.display(), "no event files are written just now");
                (written, pause) = (None, AFTER_FAILURE);
            }
            drop(core);
            if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        // What came since the last look; a run that is stopped shows all of it.
        if let Some(core) = Weak::upgrade(&core) {
            let _ = catch_up(&mut written, &dir, &core);
        }
    })
}

fn catch_up(written: &mut Option<EventFile>, dir: &Path, core: &Core) -> Result<(), Error> {
    let view = core.view()?;
    let now_ms = core.now_ms();
    let known = match written.take() {
        Some(mut known) => known.add(&view, now_ms)?.then_some(known),
        None => None,
    };
    *written = match known {
        Some(known) => Some(known),
        None => EventFile::whole(dir, core)?,
    };
    Ok(())
}

/// When each step was taken that counts, milliseconds since 1970: the last of those that were taken
/// again.
///
/// # Errors
/// When the log cannot be read.
pub(crate) fn step_times(log: &dyn Log) -> Result<BTreeMap<(Iteration, u32), u64>, LogError> {
    let mut times = BTreeMap::new();
    walk(log, Offset(0), |record| {
        if let Event::StepTaken { iteration, step, .. } = &record.event {
            times.insert((*iteration, *step), record.at_ms);
        }
        ControlFlow::Continue(())
    })?;
    Ok(times)
}

/// What is in the file.
struct EventFile {
    path: PathBuf,
    /// Of iterations before the last one.
    before: StepsBefore,
    /// The last one, how many of its steps, and whether it is over.
    iteration: Iteration,
    steps: usize,
    over: bool,
}

impl EventFile {
    /// Writes everything that the log has; nothing before there is a step.
    fn whole(dir: &Path, core: &Core) -> Result<Option<EventFile>, Error> {
        let log = core.log.clone();
        let times = step_times(log.as_ref())?;
        let Some(first) = times.values().min().copied() else { return Ok(None) };
        let begun = first as f64 / 1e3;
        let path = dir.join(file_name(begun));
        let (before, iteration) = (StepsBefore::default(), Iteration(0));
        let mut written = EventFile { path, before, iteration, steps: 0, over: true };
        let view = fold(log.as_ref())?;
        let mut scalars = Vec::new();
        for (iteration, open) in &view.iterations {
            let at_ms = |own: u32| times.get(&(*iteration, own)).copied().unwrap_or(first);
            scalars.extend(written.next(&view, (*iteration, open), &at_ms).unwrap_or_default());
        }
        std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, error))?;
        atomic_file::write(&written.path, &event_file(begun, &scalars), Access::Usual)
            .map_err(|error| Error::io(&written.path, error))?;
        Ok(Some(written))
    }

    /// Adds what is new in a view; whether it fits to what is written.
    fn add(&mut self, view: &RunView, now_ms: u64) -> Result<bool, Error> {
        if !self.over && !view.iterations.contains_key(&self.iteration) {
            return Ok(false);
        }
        let mut scalars = Vec::new();
        for (iteration, open) in view.iterations.range(self.iteration..) {
            match self.next(view, (*iteration, open), &|_| now_ms) {
                Some(more) => scalars.extend(more),
                None => return Ok(false),
            }
        }
        if scalars.is_empty() {
            return Ok(true);
        }
        let io = |error| Error::io(&self.path, error);
        let mut file = OpenOptions::new().append(true).open(&self.path).map_err(io)?;
        file.write_all(&events(&scalars)).map_err(io)?;
        Ok(true)
    }

    /// What an iteration has that is not written yet; `None` where it lost steps that are.
    fn next(
        &mut self,
        view: &RunView,
        (iteration, open): (Iteration, &IterationView),
        at_ms: &dyn Fn(u32) -> u64,
    ) -> Option<Vec<Scalar>> {
        // Iterations that end at once may come and be forgotten between two looks.
        if self.iteration.0 > 0 && iteration.0 > self.iteration.0 + 1 {
            return None;
        }
        if iteration > self.iteration {
            (self.iteration, self.steps, self.over) = (iteration, 0, false);
        }
        if open.steps.len() < self.steps {
            return None;
        }
        let (mut scalars, mut last_ms) = (Vec::new(), 0);
        let start = self.before;
        for step in steps_of(iteration, open, (start, self.steps), at_ms) {
            last_ms = step.at_ms;
            scalars.extend(step.scalars());
        }
        self.steps = open.steps.len();
        if open.outcome.is_some() && !self.over {
            let end = steps_of(iteration, open, (start, 0), at_ms).pop();
            let end = end.map_or(start, |s| StepsBefore { steps: s.global, tokens: s.tokens });
            let row = IterationRow::of(iteration.0, open, view);
            scalars.extend(outcome_scalars(&row, end.steps, last_ms));
            (self.before, self.over, self.steps) = (end, true, open.steps.len());
        }
        Some(scalars)
    }
}
