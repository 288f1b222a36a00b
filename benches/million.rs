//! A log of a million events: what it costs to write, to open again after each kind of end, to
//! fold, and in memory. Each phase is a process of its own, so that its memory is its own.
//!
//! ```text
//! cargo bench --bench million [-- EVENTS]
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that stops has failed"
)]

use gradus::domain::{
    Event, Iteration, Offset, Prompt, PromptId, PromptOrigin, SkipReason, TaskKey,
    event::StepMetrics,
};
use gradus::log::{Batch, Clock, DurableLog, Log};
use gradus::view::RunView;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        0
    }
}

/// A mixture as a run writes it: prompts, reasons, steps.
fn event(n: u64) -> Event {
    let iteration = Iteration(1 + (n / 10_000) as u32);
    match n % 4 {
        0 => {
            let prompt = Prompt::user(format!("count to {n}, slowly"), PromptOrigin::Given);
            Event::PromptAdmitted { prompt }
        }
        1 => Event::PromptRejected {
            text: format!("count to {n}"),
            reason: "ROUGE-L 0.82 to a prompt that is there".to_owned(),
        },
        2 => Event::PairSkipped {
            iteration,
            prompt: PromptId(format!("{n:032x}")),
            reason: SkipReason::Tie,
        },
        _ => Event::StepTaken { iteration, step: n as u32, metrics: StepMetrics::default() },
    }
}

fn write(dir: &Path, events: u64) {
    let log = DurableLog::open(&dir.join("log"), Arc::new(Still)).unwrap();
    for first in (0..events).step_by(200) {
        let key = Some(TaskKey::of("bench", &[&first.to_le_bytes()]));
        let events: Vec<Event> = (first..first + 200).map(event).collect();
        let cursor = Some(("report".to_owned(), Offset(first + 200)));
        log.append(Batch { key, events, cursor }).unwrap();
    }
    if std::env::var_os("KILLED").is_some() {
        std::process::abort();
    }
}

fn open(dir: &Path) {
    let log = DurableLog::open(&dir.join("log"), Arc::new(Still)).unwrap();
    println!("{} events, repairs {:?}", log.tail(), log.repairs());
    if std::env::var_os("KILLED").is_some() {
        std::process::abort();
    }
}

fn fold(dir: &Path) {
    let log = DurableLog::open(&dir.join("log"), Arc::new(Still)).unwrap();
    let start = Instant::now();
    let mut view = RunView::default();
    loop {
        let records = log.read(view.next, 512).unwrap();
        if records.is_empty() {
            break;
        }
        records.iter().for_each(|record| view.apply(record));
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{} events folded, {:.0} a second", view.next, view.next.0 as f64 / seconds);
}

/// The most memory this process ever had, MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn phase(name: &str, dir: &Path, events: u64, killed: bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["phase", name, dir.to_str().unwrap(), &events.to_string()]);
    if killed {
        command.env("KILLED", "1");
    }
    let start = Instant::now();
    let output = command.output().unwrap();
    let end = if killed { ", then killed" } else { "" };
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{name}{end}: {:.2} s. {}", start.elapsed().as_secs_f64(), text.trim());
    assert_ne!(output.status.success(), killed, "{}", String::from_utf8_lossy(&output.stderr));
}

/// The log as after a power cut: everything is compared.
fn cut_power(dir: &Path) {
    let mark = r#"{"boot":"another boot","clean":false,"tail":0}"#;
    std::fs::write(dir.join("log/mark"), mark).unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "phase") {
        let (dir, events) = (PathBuf::from(&arguments[3]), arguments[4].parse().unwrap());
        match arguments[2].as_str() {
            "write" => write(&dir, events),
            "open" => open(&dir),
            _ => fold(&dir),
        }
        println!("{} MiB at most", peak_mib());
        return;
    }
    let events = arguments.iter().skip(1).find_map(|a| a.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    phase("write", dir.path(), events, false);
    phase("open", dir.path(), events, false);
    phase("fold", dir.path(), events, false);
    phase("open", dir.path(), events, true);
    phase("open", dir.path(), events, false);
    cut_power(dir.path());
    phase("open", dir.path(), events, false);
    std::fs::remove_dir_all(dir.path().join("log/sled")).unwrap();
    phase("open", dir.path(), events, false);
    for name in ["log/journal", "log/sled"] {
        let bytes = Command::new("du").args(["-sm"]).arg(dir.path().join(name)).output().unwrap();
        println!("{}", String::from_utf8_lossy(&bytes.stdout).trim());
    }
}
