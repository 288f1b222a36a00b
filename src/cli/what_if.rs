//! `gradus what-if`: recorded answers under other numbers, without a model.

use super::ExitStatus;
use super::rejudge::{past, report_as};
use gradus::Error;
use gradus::domain::plan::ReadoutMode;
use gradus::lm::device::DeviceChoice;
use gradus::rejudge::WhatIf;
use std::path::PathBuf;

/// What would have become of what a run recorded, with fewer answers or judgments, another readout,
/// another rule for pairs, another rubric: pairs, ties, agreement. No model is asked, and the run stays as
/// it is.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder. A process may work on it meanwhile.
    dir: PathBuf,
    /// Begin with this iteration. Default: the first that has judgments.
    #[arg(long, default_value_t = 1)]
    from_iteration: u32,
    /// Answers to each prompt (N): the first so many.
    #[arg(short = 'n', long)]
    candidates: Option<u32>,
    /// Judgments of each answer (k): the first so many.
    #[arg(short = 'k', long)]
    samples: Option<u32>,
    /// How a judgment becomes a number: expected, parsed, or forced.
    #[arg(long, value_parser = readout)]
    readout: Option<ReadoutMode>,
    /// Best minus worst must exceed this (pairs.min_gap).
    #[arg(long, value_parser = not_negative)]
    min_gap: Option<f64>,
    /// And this many standard errors of it (pairs.noise).
    #[arg(long, value_parser = not_negative)]
    noise: Option<f64>,
    /// Length control rho of Meta-Rewarding (pairs.length_control), 0 to 1.
    #[arg(long, value_parser = share)]
    length_control: Option<f64>,
    /// Whether answers that were cut off may not compete (pairs.require_ended).
    #[arg(long)]
    require_ended: Option<bool>,
    /// An installed rubric, a component (.wasm), or the name of a bundled rubric, instead of those that
    /// judged: where it asks the same the recorded replies are read by it.
    #[arg(long)]
    rubric: Option<String>,
    /// Print the comparison as JSON, with every pair that moved.
    #[arg(long)]
    json: bool,
}

fn readout(text: &str) -> Result<ReadoutMode, String> {
    let quoted = serde_json::Value::String(text.to_owned());
    serde_json::from_value(quoted).map_err(|_| "expected, parsed or forced".to_owned())
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "a number".to_owned())?;
    match number.is_finite() && number >= 0.0 {
        true => Ok(number),
        false => Err("a number of 0 or more".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|number| match number <= 1.0 {
        true => Ok(number),
        false => Err("a number from 0 to 1".to_owned()),
    })
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    // Nobody is asked, so no GPU is opened.
    let mut past = past(&arguments.dir, arguments.from_iteration, Some(DeviceChoice::Cpu))?;
    let rubric = arguments.rubric.as_deref().map(|named| past.meant(named)).transpose()?;
    let wishes = WhatIf {
        candidates: arguments.candidates,
        samples: arguments.samples,
        readout: arguments.readout,
        min_gap: arguments.min_gap,
        noise: arguments.noise,
        length_control: arguments.length_control,
        require_ended: arguments.require_ended,
        rubric,
    };
    report_as(&past.what_if(&wishes)?, "what if", arguments.json)?;
    Ok(ExitStatus::Done)
}
