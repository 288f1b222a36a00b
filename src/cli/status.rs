//! `gradus status`: what a run is doing, or how far it got. Works beside a running process.

use super::{ExitStatus, drive, hints, output, progress};
use gradus::Error;
use gradus::actor::shell::ShellState;
use gradus::config::Config;
use gradus::domain::event::IterationOutcome;
use gradus::log::Health;
use gradus::report::{Report, iterations_table};
use gradus::runtime::{self, Activity, Folder, Query, Reply, SettingsToCome, socket};
use gradus::view::RunView;
use serde::Serialize;
use std::path::PathBuf;

/// What a run is doing.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder.
    dir: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// End with 0 only while a process works on the run and nothing of it is halted or lost, else with 1:
    /// for whoever watches over services.
    #[arg(long)]
    check: bool,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum ShownStatus {
    /// Another process works on it.
    Running(Box<runtime::Status>),
    /// Nobody does.
    Idle {
        report: Box<Report>,
        prompts_unused: usize,
        failed_tasks: u64,
        /// What of gradus.yaml counts from the next iteration on.
        settings_to_come: Option<SettingsToCome>,
        /// Why the last process ended before the iterations were over, where it is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        stopped: Option<String>,
    },
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let folder = Folder::at(&arguments.dir);
    let status = read(&folder)?;
    let end =
        if arguments.check && !is_well(&status) { ExitStatus::Failed } else { ExitStatus::Done };
    if arguments.json {
        output::json(&status)?;
        return Ok(end);
    }
    let text = match &status {
        ShownStatus::Running(status) => {
            let view = drive::known(&folder)?;
            let report = Report::of(&view);
            let warnings = report.warnings.iter().map(|warning| format!("WARNING {warning}\n"));
            let settings = to_come(&folder, &view).map(|s| format!("settings {s}\n"));
            let settings = settings.unwrap_or_default();
            format!("{}{settings}{}", running(status), warnings.collect::<String>())
        }
        ShownStatus::Idle { report, prompts_unused, failed_tasks, settings_to_come, stopped } => {
            format!(
                "idle; {} iterations, {} records, {prompts_unused} unused prompts, {failed_tasks} \
             failed tasks\n{}{}\n{}",
                report.iterations.len(),
                report.records,
                settings_to_come.as_ref().map(|s| format!("settings {s}\n")).unwrap_or_default(),
                stopped.as_ref().map_or_else(String::new, |why| format!("STOPPED: {why}\n")),
                iterations_table(report)
            )
        }
    };
    output::text(&text)?;
    output::text(&hints::of(&text, Some(folder.path())))?;
    Ok(end)
}

/// Whether a process works on the run, with nothing of it halted or lost.
fn is_well(status: &ShownStatus) -> bool {
    let ShownStatus::Running(status) = status else { return false };
    let bad = |state: &ShellState| state.halted.is_some() || state.lost.is_some();
    !status.stages.values().any(bad) && !matches!(status.log, Health::Lost { .. })
}

fn read(folder: &Folder) -> Result<ShownStatus, Error> {
    let view = drive::known(folder)?;
    let Some(pid) = folder.holder() else {
        return Ok(ShownStatus::Idle {
            prompts_unused: view.waiting(),
            failed_tasks: view.failed_tasks(),
            settings_to_come: to_come(folder, &view),
            stopped: stopped(&view, folder),
            report: Box::new(Report::of(&view)),
        });
    };
    Ok(ShownStatus::Running(Box::new(asked(folder, &pid, &view))))
}

/// What the process at work says, else what it wrote into the folder, else what the log says.
fn asked(folder: &Folder, pid: &str, view: &RunView) -> runtime::Status {
    let told = |reply| match reply {
        Reply::Status(status) => Some(*status),
        _ => None,
    };
    let written = || -> Option<runtime::Status> {
        serde_json::from_slice(&std::fs::read(folder.status()).ok()?).ok()
    };
    // What another process left there is old news.
    let ours = |status: &runtime::Status| pid.is_empty() || status.pid.to_string() == pid;
    let asked = socket::ask_if_reachable(folder, &Query::Status).and_then(told);
    asked.or_else(|| written().filter(ours)).unwrap_or_else(|| {
        let mut status = runtime::Status::of(view);
        // Whoever holds the run did not say its number: then nobody's is shown.
        status.pid = pid.parse().unwrap_or(0);
        status
    })
}

/// What of the settings counts from the next iteration on. A file that cannot be read is said by
/// whoever wants to go on with it.
fn to_come(folder: &Folder, view: &RunView) -> Option<SettingsToCome> {
    SettingsToCome::of(&Config::from_yaml(&folder.config()).ok()?, view)
}

/// Why a run pauses that nobody works on.
fn stopped(view: &RunView, folder: &Folder) -> Option<String> {
    let (last, outcome) = view.last_iteration().filter(|_| view.paused)?;
    let reason = match outcome? {
        IterationOutcome::Failed { reason } => format!("failed: {reason}"),
        IterationOutcome::NoSignal { reason } | IterationOutcome::JudgeCompromised { reason } => {
            format!("gave nothing to learn from: {reason}")
        }
        IterationOutcome::Promoted | IterationOutcome::Rejected { .. } => return None,
        other => format!("ended: {other:?}"),
    };
    let dir = folder.path().display();
    Some(format!("iteration {last} {reason}. Go on with: gradus run {dir}"))
}

fn running(status: &runtime::Status) -> String {
    let on =
        if status.device.is_empty() { String::new() } else { format!(" on {}", status.device) };
    // Another user's may not be known.
    let process = match status.pid {
        0 => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    let mut text = format!(
        "running in {process}{on}; {} iterations over, {} records\n{}\n",
        status.finished, status.records, status.model
    );
    match status.activity {
        Activity::Paused => text.push_str("PAUSED; it goes on when somebody says so\n"),
        Activity::WaitingForPrompts { waiting, wanted } => text.push_str(&format!(
            "waits for prompts: {waiting} of {wanted} are there (prompts.wait_for)\n"
        )),
        _ => {}
    }
    if status.pinned {
        text.push_str(&format!(
            "{} is pinned: it stays, whatever iterations come to\n",
            status.policy
        ));
    }
    text.push_str(&progress::bars(status));
    let beside = [progress::figures(status), progress::times(status)];
    let beside: Vec<&str> = beside.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
    if !beside.is_empty() {
        text.push_str(&format!("  {}\n", beside.join("; ")));
    }
    for (stage, state) in &status.stages {
        if state.failed > 0 || state.restarts > 0 {
            let (failed, restarts) = (state.failed, state.restarts);
            text.push_str(&format!("  {stage:<10} {failed} failed tasks, {restarts} restarts\n"));
        }
        if let Some(reason) = &state.halted {
            text.push_str(&format!("  {stage:<10} HALTED, it failed again and again: {reason}\n"));
        }
        if let Some(reason) = &state.waiting {
            text.push_str(&format!("  {stage:<10} WAITS: {reason}\n"));
        }
    }
    for (stage, state) in &status.stages {
        if let Some(reason) = &state.lost {
            text.push_str(&format!("  {stage:<10} STOPS: {reason}\n"));
        }
    }
    match &status.log {
        Health::Sound => {}
        Health::Full { reason } => text.push_str(&format!("THE LOG WAITS: {reason}\n")),
        Health::Lost { reason } => text.push_str(&format!("LOG LOST: {reason}\n")),
    }
    text
}
