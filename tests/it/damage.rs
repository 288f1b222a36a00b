//! Checkpoints that rot on the disk: what is damaged is never used, training goes on from the
//! checkpoint before it, and ends in the same weights.

use crate::runs::{alone, gradus, records};
use gradus::domain::{BlobHash, Event};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Weights and optimiser of every checkpoint so far.
fn checkpoints(dir: &Path) -> Vec<(BlobHash, BlobHash)> {
    let saved = records(dir).into_iter().filter_map(|record| match record.event {
        Event::CheckpointSaved { policy, optimizer, .. } => Some((policy.weights, optimizer)),
        _ => None,
    });
    saved.collect()
}

/// A reduced demo, killed once it has so many checkpoints.
fn killed_after(count: usize, dir: &Path) -> Vec<(BlobHash, BlobHash)> {
    let mut demo = gradus();
    demo.args(["demo", "--reduced", "--no-arms", "--dir"]).arg(dir);
    let mut child = demo.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while checkpoints(dir).len() < count {
        assert!(Instant::now() < until, "no checkpoint within two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    checkpoints(dir)
}

fn path(dir: &Path, blob: &BlobHash) -> PathBuf {
    dir.join("blobs").join(&blob.as_str()[..2]).join(blob.as_str())
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(done.success());
}

type Damage = fn(&Path, &Path);

/// What can happen to a checkpoint's two files.
const DAMAGES: [(&str, Damage); 5] = [
    ("a bit of the weights", |weights, _| {
        let mut bytes = std::fs::read(weights).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(weights, bytes).unwrap();
    }),
    ("the optimiser cut off in its header", |_, optimizer| {
        std::fs::File::options().write(true).open(optimizer).unwrap().set_len(40).unwrap();
    }),
    ("no weights", |weights, _| std::fs::remove_file(weights).unwrap()),
    ("an empty optimiser", |_, optimizer| std::fs::write(optimizer, b"").unwrap()),
    ("each in the place of the other", |weights, optimizer| {
        let aside = weights.with_extension("aside");
        std::fs::rename(weights, &aside).unwrap();
        std::fs::rename(optimizer, weights).unwrap();
        std::fs::rename(aside, optimizer).unwrap();
    }),
];

/// Goes on with the supervised iteration; the weights it ends with, and the checkpoints it lost.
fn finish(dir: &Path) -> (BlobHash, Vec<u32>) {
    let done = gradus().args(["run", "--iterations", "1"]).arg(dir).status().unwrap();
    assert!(done.success());
    let lost = records(dir).into_iter().filter_map(|record| match record.event {
        Event::CheckpointLost { step, .. } => Some(step),
        _ => None,
    });
    (checkpoints(dir).pop().unwrap().0, lost.collect())
}

#[test]
fn training_goes_on_before_a_damaged_checkpoint() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let killed = root.path().join("killed");
    let known = killed_after(1, &killed);
    let (weights, optimizer) = known.last().unwrap();
    let whole = root.path().join("whole");
    copy(&killed, &whole);
    let (wanted, lost) = finish(&whole);
    assert!(lost.is_empty());
    for (n, (what, damage)) in DAMAGES.iter().enumerate() {
        let dir = root.path().join(n.to_string());
        copy(&killed, &dir);
        damage(&path(&dir, weights), &path(&dir, optimizer));
        let (ended, lost) = finish(&dir);
        assert_eq!(lost.len(), 1, "{what}");
        assert_eq!(ended, wanted, "{what}: training ends in the same weights");
    }
}

#[test]
fn a_damaged_policy_of_an_earlier_iteration_stops_the_iteration_and_says_so() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    killed_after(1, &dir);
    let (policy, _) = finish(&dir);
    std::fs::write(path(&dir, &policy), b"rot").unwrap();
    let done = gradus().args(["run", "--iterations", "2"]).arg(&dir).status().unwrap();
    assert_eq!(done.code(), Some(1));
    let steps = records(&dir).into_iter().filter(
        |record| matches!(&record.event, Event::StepTaken { iteration, .. } if iteration.0 == 2),
    );
    assert_eq!(steps.count(), 0, "nothing is trained from it; exit {done}");
    let failures = records(&dir).into_iter().filter_map(|record| match record.event {
        Event::TaskFailed { reason, .. } => Some(reason),
        _ => None,
    });
    let failures: Vec<String> = failures.collect();
    assert!(
        failures.iter().any(|r| r.contains(policy.as_str()) && r.contains("Restore it")),
        "{failures:?}"
    );
}
