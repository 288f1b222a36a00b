//! `gradus status`: what a run is doing, or how far it got. Works beside a running process.

use super::screen::Pulse;
use super::{ExitStatus, drive, output};
use gradus::Error;
use gradus::log::Health;
use gradus::report::{Report, iterations_table};
use gradus::runtime::Folder;
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
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Status {
    /// Another process works on it.
    Running(Pulse),
    /// Nobody does.
    Idle { report: Box<Report>, prompts_unused: usize, failed_tasks: usize },
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let folder = Folder::at(&arguments.dir);
    let status = read(&folder)?;
    if arguments.json {
        output::json(&status)?;
        return Ok(ExitStatus::Done);
    }
    output::text(&match &status {
        Status::Running(pulse) => {
            let report = Report::of(&drive::known(&folder)?);
            let warnings = report.warnings.iter().map(|warning| format!("WARNING {warning}\n"));
            format!("{}{}", running(pulse), warnings.collect::<String>())
        }
        Status::Idle { report, prompts_unused, failed_tasks } => format!(
            "idle; {} iterations, {} records, {prompts_unused} unused prompts, {failed_tasks} \
             failed tasks\n\n{}",
            report.iterations.len(),
            report.records,
            iterations_table(report)
        ),
    })?;
    Ok(ExitStatus::Done)
}

fn read(folder: &Folder) -> Result<Status, Error> {
    let view = drive::known(folder)?;
    let Some(pid) = folder.holder() else {
        return Ok(Status::Idle {
            prompts_unused: view.unused().count(),
            failed_tasks: view.failures.len(),
            report: Box::new(Report::of(&view)),
        });
    };
    let body = std::fs::read(folder.status()).ok();
    let pulse: Option<Pulse> = body.and_then(|body| serde_json::from_slice(&body).ok());
    // What another process left there is old news.
    let ours = pulse.filter(|pulse| pulse.pid.to_string() == pid);
    let pulse = ours.unwrap_or_else(|| Pulse {
        pid: pid.parse().unwrap_or_default(),
        finished: view.finished(),
        records: view.next.0,
        ..Pulse::default()
    });
    Ok(Status::Running(pulse))
}

fn running(pulse: &Pulse) -> String {
    let on = if pulse.device.is_empty() { String::new() } else { format!(" on {}", pulse.device) };
    let mut text = format!(
        "running in process {}{on}; {} iterations over, {} records\n{}\n",
        pulse.pid, pulse.finished, pulse.records, pulse.model
    );
    for (stage, (done, total)) in &pulse.progress {
        text.push_str(&format!("  {stage:<10} {done}/{total}\n"));
    }
    for (stage, state) in &pulse.stages {
        if state.failed > 0 || state.restarts > 0 {
            let (failed, restarts) = (state.failed, state.restarts);
            text.push_str(&format!("  {stage:<10} {failed} failed tasks, {restarts} restarts\n"));
        }
        if let Some(reason) = &state.halted {
            text.push_str(&format!("  {stage:<10} HALTED, it failed again and again: {reason}\n"));
        }
        if let Some(reason) = &state.waiting {
            text.push_str(&format!("  {stage:<10} WAITS FOR ROOM: {reason}\n"));
        }
    }
    match &pulse.log {
        Health::Sound => {}
        Health::Full { reason } => text.push_str(&format!("NO SPACE for the log: {reason}\n")),
        Health::Lost { reason } => text.push_str(&format!("LOG LOST: {reason}\n")),
    }
    text
}
