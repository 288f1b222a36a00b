//! How soon a host is answered while both cores compute: a demo's run works in this process, and
//! two more threads do nothing but count.
//!
//! ```text
//! cargo bench --bench control
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that stops has failed"
)]

use gradus::domain::{Event, Offset, Prompt, PromptOrigin};
use gradus::log::{JournalLog, Log};
use gradus::runtime::Runtime;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const REQUESTS: usize = 1000;
const STOPS: usize = 10;

/// A demo that has begun to sample, its process gone.
fn begun(dir: &Path) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gradus"))
        .args(["demo", "--no-arms", "--dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let sampled = |log: &JournalLog| {
        let last = log.tail().0.checked_sub(1)?;
        let record = log.get(Offset(last)).ok()??;
        matches!(record.event, Event::CompletionsSampled { .. }).then_some(())
    };
    while JournalLog::open(&dir.join("log")).ok().and_then(|log| sampled(&log)).is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the demo ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn show(name: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let count = took.len();
    println!("| {name} | {count} | {:.2} | {:.2} | {:.2} |", at(0.5), at(0.99), at(1.0));
}

/// Asks again and again, in between at moments that fit no rhythm.
fn asked(name: &str, mut request: impl FnMut(usize)) {
    let took = (0..REQUESTS).map(|n| {
        std::thread::sleep(Duration::from_micros((n as u64 * 7919) % 5000));
        let begun = Instant::now();
        request(n);
        begun.elapsed()
    });
    show(name, took.collect());
}

fn main() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    begun(&dir);
    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let over = over.clone();
        std::thread::spawn(move || {
            let mut n = 0u64;
            while !over.load(Ordering::Relaxed) {
                n = black_box(n + 1);
            }
        });
    }
    println!("| request | times | median, ms | 99 of 100, ms | slowest, ms |");
    println!("| --- | --- | --- | --- | --- |");
    let runtime = Runtime::builder(&dir).start_blocking().unwrap();
    let handle = runtime.handle();
    asked("what is known, and what every stage does", |_| {
        black_box((handle.view().unwrap(), runtime.stages()));
    });
    asked("pause or go on, durable", |n| {
        black_box(if n % 2 == 0 { handle.pause_blocking() } else { handle.resume_blocking() })
            .unwrap();
    });
    asked("a new prompt, durable", |n| {
        let prompt = Prompt::user(format!("count to {n} ."), PromptOrigin::Given);
        handle.submit_blocking(&[prompt]).unwrap();
    });
    drop((handle, runtime));
    let stops = (0..STOPS).map(|n| {
        let runtime = Runtime::builder(&dir).start_blocking().unwrap();
        std::thread::sleep(Duration::from_millis(300 + 170 * n as u64));
        let begun = Instant::now();
        runtime.shutdown_blocking();
        begun.elapsed()
    });
    show("stop, until nothing works any more", stops.collect());
    over.store(true, Ordering::Relaxed);
}
