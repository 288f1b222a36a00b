//! THE COMMAND LINE: a thin skin over the library. It parses arguments, shows progress, prints
//! results, and turns errors into exit codes; it holds no power that a host lacks.
//!
//! Results go to standard output, everything else to standard error, so that `--json` can be
//! piped. Exit codes: 0 done, 1 failed, 2 wrong arguments or input, 130 stopped by a signal.

mod arms;
mod demo;
mod drive;
mod generate;
mod init;
mod log;
mod output;
mod recipe;
mod report;
mod screen;
mod signals;
mod status;

use clap::{Parser, Subcommand};
use gradus::Error;
use std::process::ExitCode;

/// A language model that improves itself on your own machine and keeps the receipts.
#[derive(Parser)]
#[command(name = "gradus", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The whole loop, M0 to M3, on an embedded tiny model.
    Demo(demo::Arguments),
    /// Lay out a run on a model of yours.
    Init(init::Arguments),
    /// Go on with a run until its iterations are over.
    Run(drive::Arguments),
    /// What a run is doing, or how far it got.
    Status(status::Arguments),
    /// A run's tables and plots as HTML and JSON.
    Report(report::Arguments),
    /// Let any iteration of a run answer.
    Generate(generate::Arguments),
    /// Read, check or fingerprint a run's log.
    #[command(subcommand)]
    Log(log::Verb),
}

/// How a verb ended when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All was done.
    Done,
    /// What was looked for is not as it should be; the output says so.
    Found,
    /// A signal stopped it at a safe point.
    Stopped,
}

/// Runs the command.
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GRADUS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Arguments::parse().verb) {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Found) => ExitCode::FAILURE,
        Ok(End::Stopped) => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(verb: Verb) -> Result<End, Error> {
    match verb {
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Init(arguments) => init::run(&arguments),
        Verb::Run(arguments) => drive::run(&arguments),
        Verb::Status(arguments) => status::run(&arguments),
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Generate(arguments) => generate::run(&arguments),
        Verb::Log(verb) => log::run(&verb),
    }
}
