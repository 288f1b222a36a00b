//! What durability costs: commits of 200 events to our log, beside a plain file to which the same
//! events are written as JSON lines and synced. In turns within one run, for the disk's speed
//! changes by the minute. In bursts, as a run commits; and without end, where what the store has to
//! do behind the commits counts in full.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that stops has failed"
)]

use gradus::domain::Event;
use gradus::log::{Batch, Clock, DurableLog, Log};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TURNS: usize = 30;
const EVENTS: usize = 200;
/// Commits of one turn, and the pause before it: bursts, and without end.
const LOADS: [(&str, usize, Duration); 2] =
    [("bursts of 20", 20, Duration::from_millis(200)), ("without end", 100, Duration::ZERO)];

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        0
    }
}

fn batches(commits: usize) -> Vec<Batch> {
    let reason = "x".repeat(300);
    let event = Event::PromptRejected { text: "a prompt".to_owned(), reason };
    let batch = Batch { key: None, events: vec![event; EVENTS], cursor: None };
    vec![batch; commits]
}

fn timed(commits: usize, mut commit: impl FnMut(Batch)) -> Duration {
    let batches = batches(commits);
    let begun = Instant::now();
    batches.into_iter().for_each(&mut commit);
    begun.elapsed() / commits as u32
}

fn plain(file: &mut File, batch: &Batch) {
    let mut bytes = Vec::new();
    for event in &batch.events {
        serde_json::to_writer(&mut bytes, event).unwrap();
        bytes.push(b'\n');
    }
    file.write_all(&bytes).unwrap();
    file.sync_data().unwrap();
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[values.len() * quarter / 4])
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let log = DurableLog::open(&dir.path().join("log"), Arc::new(Still)).unwrap();
    let mut file = File::create(dir.path().join("plain")).unwrap();
    println!(
        "| commits of {EVENTS} events, ms each | | lower quartile | median | upper quartile |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for (load, commits, pause) in LOADS {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..=TURNS {
            std::thread::sleep(pause);
            let durable = timed(commits, |batch| {
                log.append(batch).unwrap();
            });
            std::thread::sleep(pause);
            let beside = timed(commits, |batch| plain(&mut file, &batch));
            if turn > 0 {
                ours.push(durable.as_secs_f64() * 1e3);
                theirs.push(beside.as_secs_f64() * 1e3);
                ratios.push(beside.as_secs_f64() / durable.as_secs_f64());
            }
        }
        for (name, values) in [("durable log", ours), ("plain file", theirs), ("ratio", ratios)] {
            let [low, middle, high] = quartiles(values);
            println!("| {load} | {name} | {low:.2} | {middle:.2} | {high:.2} |");
        }
    }
}
