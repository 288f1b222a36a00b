//! `gradus pause | resume | stop | raise`, `gradus policy` and `gradus prompts`: what changes a run, also
//! while another process works on it, and what it has.

use super::export::StateChoice;
use super::{ExitStatus, output};
use gradus::Error;
use gradus::domain::PromptOrigin;
use gradus::export::{PromptState, RunExport};
use gradus::report::{IterationRow, Report, iterations_table};
use gradus::runtime::{
    Answer, Command, Folder, PolicyChoice, PolicyRow, Query, Reply, find_policy, socket,
};
use serde::Serialize;
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
    /// What a policy is: what made it, on what it was trained, what it was measured at.
    Show(Show),
    /// Let a policy act from here on, whatever the gate said. An open iteration that began with another
    /// one ends.
    #[command(visible_alias = "choose")]
    Promote(Promote),
    /// Let the policy act again that acted before this one.
    Rollback(Because),
    /// Let the gate decide again which policy acts.
    Unpin(Because),
}

/// A policy.
#[derive(clap::Args)]
pub struct Show {
    #[command(flatten)]
    target: RunTarget,
    /// latest, M2, base, or the beginning of its hash.
    #[arg(default_value = "latest")]
    policy: String,
}

/// A policy to act.
#[derive(clap::Args)]
pub struct Promote {
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
    /// The prompts of a run, and what became of each.
    List(PromptsList),
}

/// The prompts of a run.
#[derive(clap::Args)]
pub struct PromptsList {
    #[command(flatten)]
    target: RunTarget,
    /// Those alone that wait, were answered, are held out, or are shown to whoever writes new ones.
    #[arg(long)]
    state: Option<StateChoice>,
    /// Those alone that have this text in them.
    #[arg(long)]
    contains: Option<String>,
    /// How many are listed; 0 for all.
    #[arg(short, long, default_value_t = 20)]
    limit: usize,
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
        PolicyVerb::Show(Show { target, policy }) => show(target, policy),
        PolicyVerb::Promote(Promote { target, policy, pin, reason }) => {
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

/// A policy with the iteration that made it.
#[derive(Serialize)]
struct PolicyShown<'a> {
    policy: &'a PolicyRow,
    id: String,
    iteration: Option<&'a IterationRow>,
}

fn show(target: &RunTarget, wanted: &str) -> Result<ExitStatus, Error> {
    let view = super::drive::known(&Folder::at(&target.dir))?;
    let row = find_policy(&view, wanted)?;
    let report = Report::of(&view);
    let number = row.name.strip_prefix('M').and_then(|number| number.parse::<u32>().ok());
    let made = report.iterations.iter().find(|made| Some(made.iteration) == number);
    let id = row.policy.id().to_string();
    if target.json {
        output::json(&PolicyShown { policy: &row, id, iteration: made })?;
        return Ok(ExitStatus::Done);
    }
    let dir = target.dir.display();
    let mut text = format!(
        "{} {}\n  id        {id}\n  weights   {}\n",
        row.name,
        state(&row),
        row.policy.weights
    );
    if let Some(adapter) = &row.policy.adapter {
        text.push_str(&format!("  adapter   {}\n", adapter.weights));
    }
    match made {
        None => text.push_str(
            "  the base that the run began with, or an iteration that is not kept whole\n",
        ),
        Some(made) => {
            let only = Report {
                iterations: vec![made.clone()],
                warnings: Vec::new(),
                base_quality: None,
                ..report.clone()
            };
            text.push_str(&format!("\n{}", iterations_table(&only)));
        }
    }
    text.push_str(&format!(
        "\ntake it along: gradus export model {dir} --policy {0} --out FOLDER\nask it:        gradus chat {dir} --policy {0}\n",
        row.name
    ));
    output::text(&text)?;
    Ok(ExitStatus::Done)
}

/// Whether it acts, or why not.
fn state(row: &PolicyRow) -> String {
    match (row.acts, row.pinned, &row.rejected) {
        (true, true, _) => "acts, pinned".to_owned(),
        (true, false, _) => "acts".to_owned(),
        (false, _, Some(reason)) => format!("rejected: {reason}"),
        (false, _, None) => String::new(),
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
        let text = format!("{:<4} {}  {}", row.name, row.policy.id().short(), state(row));
        format!("{}\n", text.trim_end())
    };
    output::text(&policies.iter().map(line).collect::<String>())?;
    Ok(ExitStatus::Done)
}

/// Runs `gradus prompts`.
pub fn prompts(verb: &PromptsVerb) -> Result<ExitStatus, Error> {
    match verb {
        PromptsVerb::Add(arguments) => add(arguments),
        PromptsVerb::List(arguments) => listed(arguments),
    }
}

/// How much of a prompt a list shows, in characters.
const SHOWN: usize = 64;

fn listed(arguments: &PromptsList) -> Result<ExitStatus, Error> {
    let PromptsList { target, state, contains, limit } = arguments;
    let run = RunExport::open(&Folder::at(&target.dir))?;
    let mut all = run.prompt_list(state.map(PromptState::from))?;
    if let Some(text) = contains {
        all.retain(|prompt| prompt.prompt.iter().any(|turn| turn.content.contains(text)));
    }
    if target.json {
        output::json(&all)?;
        return Ok(ExitStatus::Done);
    }
    let shown = if *limit == 0 { all.len() } else { (*limit).min(all.len()) };
    let mut text = format!("{:<18} {:<13} {:>10}  prompt\n", "id", "state", "iterations");
    for prompt in all.iter().take(shown) {
        let state = serde_json::to_value(prompt.state).ok();
        let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or_default();
        let iterations: Vec<String> = prompt.iterations.iter().map(ToString::to_string).collect();
        let asked = prompt.prompt.last().map(|turn| turn.content.as_str()).unwrap_or_default();
        let line = format!(
            "{:<18} {state:<13} {:>10}  {}",
            prompt.prompt_id.as_str(),
            iterations.join(","),
            output::beginning(asked, SHOWN)
        );
        text.push_str(&format!("{}\n", line.trim_end()));
    }
    let more = if shown < all.len() { "; --limit 0 lists all" } else { "" };
    output::text(&format!("{text}{shown} of {} prompts{more}\n", all.len()))?;
    Ok(ExitStatus::Done)
}

fn add(arguments: &Add) -> Result<ExitStatus, Error> {
    let Add { target, file, priority } = arguments;
    let given = gradus::prompts::read(file)?;
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
