//! `gradus fork`: another run that is what this one was after a policy was made, to go on otherwise: with
//! other settings, another rubric, scores permuted (a control arm).

use super::{ExitStatus, output};
use gradus::config::Config;
use gradus::domain::{Event, Offset};
use gradus::log::{Log, walk};
use gradus::runtime::Folder;
use gradus::{Code, Error};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Begin another run as this one was.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder; nothing of it changes.
    dir: PathBuf,
    /// The other's folder, which is empty or not there yet.
    to: PathBuf,
    /// Up to the end of the iteration that made this policy.
    #[arg(long, default_value = "M1")]
    after: String,
    /// Change a setting of the other: judge.source=random; as often as you like.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print what was made as JSON.
    #[arg(long)]
    json: bool,
}

/// The iteration that a policy's name says: `M2`.
fn iteration(name: &str) -> Result<u32, Error> {
    let number = name.strip_prefix(['M', 'm']).and_then(|number| number.parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| {
        Error::refused(
            Code::PolicyUnknown,
            format!("{name:?} is no policy that an iteration made: M1, M2, ..."),
        )
    })
}

/// The record behind the end of an iteration.
fn end_of(log: &dyn Log, wanted: u32) -> Result<Option<Offset>, Error> {
    let mut end = None;
    walk(log, Offset(0), |record| match &record.event {
        Event::IterationFinished { iteration, .. } if iteration.0 == wanted => {
            end = Some(Offset(record.offset.0 + 1));
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })?;
    Ok(end)
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let Arguments { dir, to, after, set, json } = arguments;
    let (folder, other) = (Folder::at(dir), Folder::at(to));
    let wanted = iteration(after)?;
    let until = end_of(&folder.read_log()?, wanted)?.ok_or_else(|| {
        let message = format!("iteration {wanted} of {} is not over", dir.display());
        Error::refused(Code::IterationUnknown, message)
    })?;
    let mut config = Config::from_yaml(&folder.config())?;
    config.set_all(set)?;
    folder.fork(&other, until, &config)?;
    match json {
        true => output::json(&serde_json::json!({"folder": to, "after": after, "records": until}))?,
        false => {
            let (from, to) = (dir.display(), to.display());
            output::text(&format!(
                "{to} is what {from} was after {after}: {until} records\nnext: gradus run {to}\n"
            ))?;
        }
    }
    Ok(ExitStatus::Done)
}
