//! `gradus pause | resume | stop | raise`, `gradus policy` and `gradus prompts add`: what changes a run,
//! also while another process works on it.

use super::{ExitStatus, output};
use gradus::domain::PromptOrigin;
use gradus::runtime::{Answer, Command, Folder, PolicyChoice, PolicyRow, Query, Reply, socket};
use gradus::{Error, prompts};
use std::path::{Path, PathBuf};

/// A run.
#[derive(clap::Args)]
pub struct RunTarget {
    /// The run's folder.
    dir: PathBuf,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// How many iterations a run shall have.
#[derive(clap::Args)]
pub struct Raise {
    #[command(flatten)]
    target: RunTarget,
    /// Iterations in all, those that are over included.
    total: u32,
}

/// Which policy acts.
#[derive(clap::Subcommand)]
pub enum PolicyVerb {
    /// A run's policies, and which of them acts.
    List(RunTarget),
    /// Let a policy act from here on. An open iteration that began with another one ends.
    Choose(Choose),
    /// Let the policy act again that acted before this one.
    Rollback(Because),
    /// Let the gate decide again which policy acts.
    Unpin(Because),
}

/// A policy to act.
#[derive(clap::Args)]
pub struct Choose {
    #[command(flatten)]
    target: RunTarget,
    /// M2, base, or the beginning of its hash.
    policy: String,
    /// It stays, whatever later iterations come to.
    #[arg(long)]
    pin: bool,
    /// Why, for the record.
    #[arg(long, default_value = "a person said so")]
    reason: String,
}

/// A change and its reason.
#[derive(clap::Args)]
pub struct Because {
    #[command(flatten)]
    target: RunTarget,
    /// Why, for the record.
    #[arg(long, default_value = "a person said so")]
    reason: String,
}

/// What a run answers.
#[derive(clap::Subcommand)]
pub enum PromptsVerb {
    /// Add the prompts of a file to a run. One that waits for prompts wakes.
    Add(Add),
}

/// Prompts to add.
#[derive(clap::Args)]
pub struct Add {
    #[command(flatten)]
    target: RunTarget,
    /// JSON lines, a JSON array or text, as for gradus init.
    file: PathBuf,
    /// Those with a higher one are answered first.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    priority: i32,
}

impl RunTarget {
    fn ask(
        &self,
        command: Command,
        told: impl FnOnce(&Answer) -> String,
    ) -> Result<ExitStatus, Error> {
        let answer = socket::command(&Folder::at(&self.dir), command)?;
        match self.json {
            true => output::json(&answer)?,
            false => output::text(&told(&answer))?,
        }
        Ok(ExitStatus::Done)
    }
}

/// Runs `gradus pause`.
pub fn pause(target: &RunTarget) -> Result<ExitStatus, Error> {
    let dir = target.dir.display();
    target.ask(Command::Pause, |_| format!("paused. Go on with: gradus resume {dir}\n"))
}

/// Runs `gradus resume`.
pub fn resume(target: &RunTarget) -> Result<ExitStatus, Error> {
    let dir = target.dir.display().to_string();
    let works = Folder::at(&target.dir).holder().is_some();
    target.ask(Command::Resume, |_| match works {
        true => "it goes on\n".to_owned(),
        false => format!("no process works on it. Start one with: gradus run {dir}\n"),
    })
}

/// Runs `gradus stop`.
pub fn stop(target: &RunTarget) -> Result<ExitStatus, Error> {
    let dir = target.dir.display();
    target.ask(Command::Stop, |_| {
        format!("it stops at the next safe point. Go on with: gradus run {dir}\n")
    })
}

/// Runs `gradus raise`.
pub fn raise(arguments: &Raise) -> Result<ExitStatus, Error> {
    let total = arguments.total;
    let told = |_: &Answer| format!("the run shall have {total} iterations in all\n");
    arguments.target.ask(Command::RaiseIterations { total }, told)
}

/// Runs `gradus policy`.
pub fn policy(verb: &PolicyVerb) -> Result<ExitStatus, Error> {
    match verb {
        PolicyVerb::List(target) => list(&target.dir, target.json),
        PolicyVerb::Choose(Choose { target, policy, pin, reason }) => {
            let (policy, reason) = (policy.clone(), reason.clone());
            target.ask(Command::ChoosePolicy { policy, pin: *pin, reason }, chosen)
        }
        PolicyVerb::Rollback(Because { target, reason }) => {
            target.ask(Command::RollBackPolicy { reason: reason.clone() }, chosen)
        }
        PolicyVerb::Unpin(Because { target, reason }) => {
            target.ask(Command::UnpinPolicy { reason: reason.clone() }, chosen)
        }
    }
}

fn chosen(answer: &Answer) -> String {
    let Answer::PolicyChosen(PolicyChoice { name, policy, pinned, at }) = answer else {
        return String::new();
    };
    let (id, stays) = (policy.id(), if *pinned { ", and stays" } else { "" });
    match at {
        Some(_) => format!("{name} ({}) acts from here on{stays}\n", id.short()),
        None => format!("{name} ({}) acts already{stays}; nothing was changed\n", id.short()),
    }
}

fn list(dir: &Path, json: bool) -> Result<ExitStatus, Error> {
    let reply = socket::query(&Folder::at(dir), &Query::Policies)?;
    let Reply::Policies { policies } = &reply else { return Ok(ExitStatus::Done) };
    if json {
        output::json(policies)?;
        return Ok(ExitStatus::Done);
    }
    let line = |row: &PolicyRow| {
        let state = match (row.acts, row.pinned, &row.rejected) {
            (true, true, _) => "acts, pinned".to_owned(),
            (true, false, _) => "acts".to_owned(),
            (false, _, Some(reason)) => format!("rejected: {reason}"),
            (false, _, None) => String::new(),
        };
        let text = format!("{:<4} {}  {state}", row.name, row.policy.id().short());
        format!("{}\n", text.trim_end())
    };
    output::text(&policies.iter().map(line).collect::<String>())?;
    Ok(ExitStatus::Done)
}

/// Runs `gradus prompts`.
pub fn add(verb: &PromptsVerb) -> Result<ExitStatus, Error> {
    let PromptsVerb::Add(Add { target, file, priority }) = verb;
    let given = prompts::read(file)?;
    eprintln!("{}: {}", file.display(), given.summary());
    let all = given.prompts(PromptOrigin::Given);
    let prompts = all.into_iter().map(|prompt| prompt.with_priority(*priority)).collect();
    target.ask(Command::AddPrompts { prompts }, |answer| {
        let Answer::PromptsAdded(done) = answer else { return String::new() };
        let mut text = format!("{} prompts added", done.admitted.len());
        if !done.known.is_empty() {
            text.push_str(&format!("; {} were there already", done.known.len()));
        }
        if !done.refused.is_empty() {
            let n = done.refused.len();
            text.push_str(&format!("; {n} left out, for they nearly equal held-out prompts"));
        }
        text.push('\n');
        text
    })
}
