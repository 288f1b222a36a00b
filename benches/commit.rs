//! What durability costs: commits of 200 events to our log, beside a plain file to which the same
//! events are written as JSON lines and synced. In turns within one run, for the disk's speed
//! changes by the minute; what our log does behind a commit falls into its own turn, but for the
//! last one's.

use gradus::domain::Event;
use gradus::log::{Batch, Clock, DurableLog, Log};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TURNS: usize = 30;
const COMMITS: usize = 100;
const EVENTS: usize = 200;

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        0
    }
}

fn batches() -> Vec<Batch> {
    let reason = "x".repeat(300);
    let event = Event::PromptRejected { text: "a prompt".to_owned(), reason };
    let batch = Batch { key: None, events: vec![event; EVENTS], cursor: None };
    vec![batch; COMMITS]
}

fn timed(mut commit: impl FnMut(Batch)) -> Duration {
    let batches = batches();
    let begun = Instant::now();
    batches.into_iter().for_each(&mut commit);
    begun.elapsed() / COMMITS as u32
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
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let durable = timed(|batch| drop(log.append(batch).unwrap()));
        let beside = timed(|batch| plain(&mut file, &batch));
        if turn > 0 {
            ours.push(durable.as_secs_f64() * 1e3);
            theirs.push(beside.as_secs_f64() * 1e3);
            ratios.push(beside.as_secs_f64() / durable.as_secs_f64());
        }
    }
    println!("| {EVENTS} events of 350 bytes, ms a commit | lower quartile | median | upper quartile |");
    println!("| --- | --- | --- | --- |");
    for (name, values) in [("durable log", ours), ("plain file", theirs), ("ratio", ratios)] {
        let [low, middle, high] = quartiles(values);
        println!("| {name} | {low:.2} | {middle:.2} | {high:.2} |");
    }
}
