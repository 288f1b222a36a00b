//! The durable log under everything that happens to disks and processes: kill -9, power cuts,
//! flipped bits, cut files, lost folders. What was acknowledged is there afterwards, or an error
//! says what is not.

mod compact;
mod flips;
mod full;
mod kill;
mod model;
#[cfg(feature = "failpoints")]
mod points;
mod power;
mod soak;

use crate::dice::Dice;
use gradus::domain::{Event, Offset, Prompt, PromptOrigin, TaskKey};
use gradus::log::{Batch, Clock, DurableLog, Log, LogError, LogSettings};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The time is of no interest here.
struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        1_764_000_000_000
    }
}

fn open(path: &Path, segment_bytes: u64) -> Result<DurableLog, LogError> {
    DurableLog::open_with(path, Arc::new(Still), LogSettings { segment_bytes })
}

/// The text of record `n`, of some 50 to 700 bytes.
fn text(n: u64) -> String {
    format!("record {n} {}", "x".repeat((Dice(n).below(650)) as usize))
}

/// The key of the batch that begins at `n`.
fn key(n: u64) -> TaskKey {
    TaskKey(format!("key {n}"))
}

/// A batch of the records `from..from + count`, which moves the cursor behind them.
fn batch(from: u64, count: u64) -> Batch {
    let prompt = |n| Prompt::user(text(n), PromptOrigin::Given);
    Batch {
        key: Some(key(from)),
        events: (from..from + count).map(|n| Event::PromptAdmitted { prompt: prompt(n) }).collect(),
        cursor: Some(("reader".to_owned(), Offset(from + count))),
    }
}

/// Checks that the log holds the texts `0..` in order, but for what it says about repairs: how
/// many there are.
fn texts_in_order(log: &dyn Log) -> u64 {
    let (mut next, mut seen) = (Offset(0), 0);
    loop {
        let records = log.read(next, 100).unwrap();
        let Some(last) = records.last() else { return seen };
        next = Offset(last.offset.0 + 1);
        for record in records {
            match record.event {
                Event::PromptAdmitted { prompt } => {
                    assert_eq!(prompt.task_text(), text(seen));
                    seen += 1;
                }
                Event::LogRepaired { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// All files below a folder, by their path in it.
fn files(root: &Path) -> Vec<PathBuf> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(root, &path, found),
                false => found.push(path.strip_prefix(root).unwrap().to_owned()),
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

/// Copies a folder as it lies there now. Where a log is at work in it, a file may get another name
/// between the list and its copy: then the picture is taken again.
fn copy(from: &Path, to: &Path) {
    while let Err(error) = try_copy(from, to) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        std::fs::remove_dir_all(to).unwrap();
    }
}

fn try_copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for file in files(from) {
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&file), target)?;
    }
    Ok(())
}

/// A folder in memory where there is one: what is tested is our order of writing, and a disk adds
/// nothing but time.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}
