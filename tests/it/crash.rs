//! Kill -9 at any moment loses nothing and changes nothing: the run that was killed ends with the
//! same state digest, and the same weights bit for bit, as the one that was not.

use crate::dice::{Dice, with_seeds};
use crate::runs::{alone, blobs, demo_by, digest, ends_within};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Kills by one seed.
const KILLS: u32 = 10;
/// Runs that may be over before they were killed so often: a life is measured in time, and how much
/// is done in it depends on what else the machine does.
const RUNS_MAX: usize = 5;

/// Pairs and steps, and how many of them are there more than once.
fn pairs_and_steps(dir: &Path) -> (usize, usize) {
    let out = Command::new(env!("CARGO_BIN_EXE_gradus"))
        .args(["log", "export"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let event = &record["event"];
        let name = match event["type"].as_str() {
            Some("pair_formed") => event["pair"]["id"].to_string(),
            Some("step_taken") => format!("{} {}", event["iteration"], event["step"]),
            _ => continue,
        };
        *seen.entry(name).or_default() += 1;
    }
    (seen.len(), seen.values().filter(|n| **n > 1).count())
}

/// A whole run and others with kills, by the same seed of the demo and of the dice.
fn killed_runs(seed: u64) {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    let began = std::time::Instant::now();
    assert!(demo_by(seed, &whole).status().unwrap().success());
    let took = began.elapsed().as_millis() as u64;
    let mut dice = Dice(seed);
    let mut kills = 0;
    for run in 0..RUNS_MAX {
        let killed = root.path().join(format!("killed-{run}"));
        while kills < KILLS {
            let mut child = demo_by(seed, &killed).spawn().unwrap();
            // Moments over the whole run: each life lasts up to two tenths of it.
            let life = Duration::from_millis(30 + dice.below((took / 5).max(1)));
            if ends_within(&mut child, life) {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        same_end(seed, &whole, &killed);
        if kills == KILLS {
            return;
        }
    }
    panic!("only {kills} kills in {RUNS_MAX} runs");
}

/// Goes on to the end with a run that was killed, which is that of the whole one.
fn same_end(seed: u64, whole: &Path, killed: &Path) {
    assert!(demo_by(seed, killed).status().unwrap().success());
    assert_eq!(digest(whole), digest(killed));
    // A kill between a blob and its event leaves a blob that nothing names; the same work writes
    // it again under the same name.
    assert_eq!(blobs(whole), blobs(killed));
    let (found, doubled) = pairs_and_steps(killed);
    assert_eq!((pairs_and_steps(whole), doubled), ((found, 0), 0));
    assert!(found > 20, "{found} pairs and steps are no run");
}

#[test]
fn fifty_kills_change_nothing() {
    let _alone = alone();
    with_seeds(5, killed_runs);
}
