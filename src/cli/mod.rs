//! THE COMMAND LINE: a thin skin over the library. It parses arguments, shows progress, prints
//! results, and turns errors into exit codes; it holds no power that a host lacks.
//!
//! Results go to standard output, everything else to standard error, so that `--json` can be
//! piped. Exit codes: [`ExitStatus`].

mod arms;
mod chat;
mod config;
mod control;
mod demo;
mod devices;
mod doctor;
mod drive;
mod eft;
mod eval;
mod export;
mod fork;
mod generate;
mod heaps;
mod hints;
mod init;
mod judge;
mod log;
mod notify;
mod output;
mod pairs;
mod progress;
mod recipe;
mod rejudge;
mod report;
mod rubric;
mod screen;
mod serve;
mod shell;
mod signals;
mod status;
mod suite;
mod what_if;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use gradus::{Error, ExitStatus};
use std::io::IsTerminal;
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
    /// Seed data that teaches a model to judge.
    #[command(subcommand)]
    Eft(eft::EftVerb),
    /// What a run will take of memory and time, before it does.
    Doctor(doctor::Arguments),
    /// Go on with a run until its iterations are over.
    Run(drive::Arguments),
    /// Work on a run, answer chats with its policies, and show it: OpenAI's endpoint, a page, figures.
    Serve(serve::Arguments),
    /// What a run is doing, or how far it got.
    Status(status::Arguments),
    /// Have a run wait: what it computes is given up, or cut at a step, and done again later.
    Pause(control::RunTarget),
    /// Have a run go on that was paused.
    Resume(control::RunTarget),
    /// Ask the process that works on a run to end at the next safe point.
    Stop(control::RunTarget),
    /// Let a run have more iterations, also while it works.
    Raise(control::Raise),
    /// A run's policies: which there are, and which acts.
    #[command(subcommand)]
    Policy(control::PolicyVerb),
    /// What a run answers: add prompts, also while it works, or list them.
    #[command(subcommand)]
    Prompts(control::PromptsVerb),
    /// A run's tables and plots as HTML and JSON.
    Report(report::Arguments),
    /// What a run made, in the forms that other tools open.
    #[command(subcommand)]
    Export(export::ExportVerb),
    /// The pairs of a run, and what was said of their answers.
    Pairs(pairs::Arguments),
    /// Let any policy of a run answer.
    Generate(generate::Arguments),
    /// Talk with a policy of a run, or with two side by side.
    Chat(chat::Arguments),
    /// Compare two policies of a run, on its held-out prompts or on yours, or measure them by a suite.
    Eval(eval::Arguments),
    /// Judge prompts and answers of your own under a rubric.
    Judge(judge::Arguments),
    /// Begin another run as this one was after a policy was made, to go on otherwise.
    Fork(fork::Arguments),
    /// Judge what a run has recorded again, under another rubric.
    Rejudge(rejudge::Arguments),
    /// What a run's recorded answers would have come to with other numbers, without a model.
    WhatIf(what_if::Arguments),
    /// Write rubrics, try them, and change which ones judge.
    #[command(subcommand)]
    Rubric(rubric::RubricVerb),
    /// What settings there are, and what a run has set.
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// What this machine can compute on.
    Devices(devices::Arguments),
    /// Read, check, compact or mend a run's log.
    #[command(subcommand)]
    Log(log::LogVerb),
    /// What a shell needs to complete commands, on standard output.
    Completions(shell::CompletionArguments),
    /// Manual pages: of `gradus` on standard output, or of every command in a folder.
    Man(shell::ManArguments),
}

/// Runs the command.
pub fn main() -> ExitCode {
    heaps::share();
    let filter = tracing_subscriber::EnvFilter::try_from_env("GRADUS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let given = Arguments::command().get_matches();
    let arguments = Arguments::from_arg_matches(&given).unwrap_or_else(|error| error.exit());
    let end = run(arguments.verb).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        eprint!("{}", hints::of(&error.to_string(), hints::folder(&given).as_deref()));
        error.exit_status()
    });
    ExitCode::from(end.code())
}

fn run(verb: Verb) -> Result<ExitStatus, Error> {
    match verb {
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Init(arguments) => init::run(&arguments),
        Verb::Eft(verb) => eft::run(&verb),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Run(arguments) => drive::run(&arguments),
        Verb::Serve(arguments) => serve::run(&arguments),
        Verb::Status(arguments) => status::run(&arguments),
        Verb::Pause(target) => control::pause(&target),
        Verb::Resume(target) => control::resume(&target),
        Verb::Stop(target) => control::stop(&target),
        Verb::Raise(arguments) => control::raise(&arguments),
        Verb::Policy(verb) => control::policy(&verb),
        Verb::Prompts(verb) => control::prompts(&verb),
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Export(verb) => export::run(&verb),
        Verb::Pairs(arguments) => pairs::run(&arguments),
        Verb::Generate(arguments) => generate::run(&arguments),
        Verb::Chat(arguments) => chat::run(&arguments),
        Verb::Eval(arguments) => eval::run(&arguments),
        Verb::Judge(arguments) => judge::run(&arguments),
        Verb::Config(verb) => config::run(&verb),
        Verb::WhatIf(arguments) => what_if::run(&arguments),
        Verb::Fork(arguments) => fork::run(&arguments),
        Verb::Rejudge(arguments) => rejudge::run(&arguments),
        Verb::Rubric(verb) => rubric::run(&verb),
        Verb::Devices(arguments) => devices::run(&arguments),
        Verb::Log(verb) => log::run(&verb),
        Verb::Completions(arguments) => shell::complete(&arguments, Arguments::command()),
        Verb::Man(arguments) => shell::man(&arguments, Arguments::command()),
    }
}

#[cfg(test)]
mod known;
