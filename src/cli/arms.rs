//! Control arms of the demo: the same run from M1 on, with another source of scores. What the
//! self-judged run gains over the random arm is the judge's doing; the oracle arm shows how much
//! a perfect judge would give.

use super::drive;
use super::recipe::WorldOracle;
use gradus::config::{Config, JudgeSource};
use gradus::domain::event::IterationOutcome;
use gradus::domain::{Event, Offset};
use gradus::lm::cancel::Cancel;
use gradus::log::{Log, walk};
use gradus::runtime::{Folder, WaitOutcome};
use gradus::view::RunView;
use gradus::{Code, Error};
use std::ops::ControlFlow;
use std::sync::Arc;

/// The arms, by name.
pub const ARMS: [(&str, JudgeSource); 2] =
    [("random", JudgeSource::Random), ("oracle", JudgeSource::Oracle)];

/// Where M1 was promoted: the end of the first iteration that came to something.
fn end_of_first(log: &dyn Log) -> Result<Option<Offset>, Error> {
    let (mut end, promoted) = (None, IterationOutcome::Promoted);
    walk(log, Offset(0), |record| match &record.event {
        Event::IterationFinished { outcome, .. } if *outcome == promoted => {
            end = Some(Offset(record.offset.0 + 1));
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })?;
    Ok(end)
}

/// The arm's folder inside the demo's.
pub fn folder(main: &Folder, name: &str) -> Folder {
    Folder::at(main.path().join("arms").join(name))
}

/// Runs one arm, or goes on with it.
pub fn run(
    main: &Folder,
    (name, source): (&str, JudgeSource),
    instead: drive::Instead,
    stop: &Cancel,
) -> Result<(WaitOutcome, RunView), Error> {
    let arm = folder(main, name);
    let until = end_of_first(&main.read_log()?)?
        .ok_or_else(|| Error::refused(Code::RunNotBegun, "the demo has no M1 yet".to_owned()))?;
    if !arm.holds_run() {
        let mut config = Config::from_yaml(&main.config())?;
        config.judge.source = source;
        main.fork(&arm, until, &config)?;
    }
    let label = format!("{name} judge, ");
    drive::work(&arm, &label, instead, Some(Arc::new(WorldOracle)), stop)
}
