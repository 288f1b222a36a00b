//! `gradus doctor`: what this machine has, and what a run will take of its memory and time, before
//! hours are spent to find out.

use super::{ExitStatus, devices, output, recipe};
use gradus::config::Config;
use gradus::doctor::{
    Diagnosis, IterationForecast, Machine, MemoryForecast, TimeForecast, examine,
};
use gradus::domain::event::IterationKind;
use gradus::estimate::gib;
use gradus::lm::device::{DeviceKind, SelectedDevice, free_memory, select};
use gradus::runtime::Folder;
use gradus::{Code, Error};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a run will take.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder; without one, what this machine has.
    dir: Option<PathBuf>,
    #[command(flatten)]
    wish: devices::Wish,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct DoctorShown {
    machine: Machine,
    device: Device,
    run: Option<Diagnosis>,
}

/// What computes.
#[derive(Serialize)]
struct Device {
    device: String,
    reason: String,
    /// Of its own memory, bytes.
    memory_available_bytes: Option<u64>,
}

impl Device {
    fn of(picked: &SelectedDevice) -> Device {
        Device {
            device: picked.kind.to_string(),
            reason: picked.reason.clone(),
            memory_available_bytes: free_memory(picked),
        }
    }
}

/// The device that is wished for, or else the one of the run's settings.
fn device(arguments: &Arguments, folder: &Folder) -> Result<SelectedDevice, Error> {
    let choice = match (arguments.wish.device, &arguments.dir) {
        (Some(choice), _) => choice,
        (None, Some(_)) => Config::from_yaml(&folder.config())?.device,
        (None, None) => Config::default().device,
    };
    Ok(select(choice)?)
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let place = arguments.dir.as_deref().unwrap_or(Path::new("."));
    let folder = Folder::at(place);
    // A folder without a run is told of at once, not after a measurement.
    if arguments.dir.is_some() && !folder.holds_run() {
        return Err(Error::NoRun(place.to_owned()));
    }
    let picked = device(arguments, &folder)?;
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:>5.1} s  {what}", began.elapsed().as_secs_f64());
    if arguments.dir.is_some() {
        eprintln!(
            "measuring for about a minute with a few of the run's prompts; nothing of it changes"
        );
    }
    let machine = Machine::look(place);
    let run = match &arguments.dir {
        Some(_) => Some(examine(
            &folder,
            (recipe::oracle_of(&folder).as_deref(), recipe::writer_of(&folder)),
            &picked,
            &tell,
        )?),
        None => None,
    };
    let fits = run.as_ref().is_none_or(Diagnosis::fits);
    let shown = DoctorShown { machine, device: Device::of(&picked), run };
    match arguments.json {
        true => output::json(&shown)?,
        false => output::text(&render(&shown, &picked))?,
    }
    Ok(if fits { ExitStatus::Done } else { ExitStatus::WrongInput })
}

fn render(shown: &DoctorShown, device: &SelectedDevice) -> String {
    let machine = &shown.machine;
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), gib);
    let mut text = format!(
        "machine  {} cores, vectors of {} bits, {:.0} GFLOP/s in products, {:.1} GB/s from memory\n\
         \x20        {} of memory are free, {} of disk\n",
        machine.cores,
        machine.vector_bits,
        machine.product_gflops,
        machine.memory_gb_per_s,
        size(machine.memory_available_bytes),
        size(machine.disk_free_bytes),
    );
    if let Some(notice) = device.notice() {
        text.push_str(&format!("device   {notice}\n"));
    }
    if device.kind != DeviceKind::Cpu {
        let free = size(shown.device.memory_available_bytes);
        text.push_str(&format!("         {free} of its memory are free\n"));
    }
    if let Some(run) = &shown.run {
        text.push_str(&format!("model    {:.1} M parameters\n\n", run.parameters as f64 / 1e6));
        text.push_str(&memory("memory", &run.memory));
        if let Some(of_device) = &run.device_memory {
            text.push_str(&memory(&format!("memory of {}", device.kind), of_device));
        }
        text.push_str(&format!("\ndisk     {}\nprompts  {}\n", output::disk(&run.disk), run.pool));
        if let Some(time) = &run.time {
            text.push_str(&format!("\n{}", times(time)));
        }
        let first =
            [("first prompt", &run.first_prompt), ("judge's first question", &run.first_question)];
        for (name, shown) in first {
            if let Some(shown) = shown {
                text.push_str(&format!("\nthe {name}, as the model reads it:\n{}", quoted(shown)));
            }
        }
        text.push_str(&format!("\nfound out in {:.0} s\n", run.measured_seconds));
    }
    text
}

/// Lines of a text that are shown.
const QUOTED: usize = 40;

/// A text behind a bar, its beginning and its end where it is long.
fn quoted(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let bar = |line: &&str| format!("  | {line}\n");
    if lines.len() <= QUOTED {
        return lines.iter().map(bar).collect();
    }
    let (head, tail) = (lines.iter().take(QUOTED / 2), lines.iter().skip(lines.len() - QUOTED / 2));
    let between = format!("  : {} lines more\n", lines.len() - QUOTED);
    head.map(bar).chain([between]).chain(tail.map(bar)).collect()
}

fn memory(name: &str, memory: &MemoryForecast) -> String {
    let how = if memory.measured { "measured" } else { "by shapes alone" };
    let mut text = format!("{name} at most, {how}\n");
    for stage in &memory.stages {
        let mark = if stage.stage == memory.peak_stage { "  <- the peak" } else { "" };
        text.push_str(&format!("  {:<10} {:>9}{mark}\n", stage.stage, gib(stage.bytes)));
    }
    if memory.fits {
        text.push_str("it fits\n");
        return text;
    }
    let free = memory.available_bytes.map_or_else(String::new, gib);
    let short = format!("it does not fit into the {free} that are free\n");
    text.push_str(&Code::NotEnoughMemory.says(short));
    for remedy in &memory.remedies {
        text.push_str(&format!("  {:>9}  {}\n", gib(remedy.bytes), remedy.change));
    }
    if memory.remedies.is_empty() {
        text.push_str("  no setting makes it fit: take a much smaller model\n");
    }
    text
}

fn times(time: &TimeForecast) -> String {
    const STAGES: [&str; 4] = ["sampler", "judge", "trainer", "evaluator"];
    if time.iterations.is_empty() {
        return "no iteration is left\n".to_owned();
    }
    let mut text = format!("{:<8}", "seconds");
    STAGES.iter().for_each(|stage| text.push_str(&format!("{stage:>11}")));
    text.push_str(&format!("{:>11}\n", "all"));
    for iteration in &time.iterations {
        text.push_str(&row(iteration, &STAGES));
    }
    let lengths = time.lengths;
    text.push_str(&format!(
        "{:.0} s in all, {}; answers of {} tokens, judge's replies of {} were seen\n",
        time.seconds,
        span(time.seconds),
        lengths.answer,
        lengths.reply
    ));
    text
}

fn row(iteration: &IterationForecast, stages: &[&str]) -> String {
    let kind = if iteration.kind == IterationKind::Sft { "SFT" } else { "DPO" };
    let mut text = format!("{:<8}", format!("M{} {kind}", iteration.iteration));
    for stage in stages {
        let seconds = iteration.seconds_by_stage.get(stage).copied().unwrap_or_default();
        text.push_str(&format!("{seconds:>11.1}"));
    }
    let IterationForecast { prompts, rows, steps, seconds, .. } = iteration;
    let counts = match iteration.kind {
        IterationKind::Sft => format!("{rows} rows, {steps} steps"),
        IterationKind::Dpo => format!("{prompts} prompts, {rows} pairs, {steps} steps"),
    };
    text.push_str(&format!("{seconds:>11.1}  {counts}\n"));
    text
}

/// `2 h 5 min`.
fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match (minutes / 60, minutes % 60) {
        (0, 0) => "less than a minute".to_owned(),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
