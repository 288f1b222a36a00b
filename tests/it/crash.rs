//! Kill -9 at any moment loses nothing and changes nothing: the run that was killed ends with the
//! same state digest, and the same weights bit for bit, as the one that was not.

use crate::dice::{Dice, with_seeds};
use crate::runs::{alone, blobs, demo_by, digest, ends_within};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Kills of one run.
const KILLS: u32 = 10;

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

/// A whole run and one with kills, by the same seed of the demo and of the dice; how many kills.
fn killed_run(seed: u64) -> u32 {
    let root = tempfile::tempdir().unwrap();
    let (whole, killed) = (root.path().join("whole"), root.path().join("killed"));
    let demo = |dir: &Path| demo_by(seed, dir);
    let began = std::time::Instant::now();
    assert!(demo(&whole).status().unwrap().success());
    let took = began.elapsed().as_millis() as u64;
    let mut dice = Dice(seed);
    let mut kills = 0;
    while kills < KILLS {
        let mut child = demo(&killed).spawn().unwrap();
        // Moments over the whole run: each life lasts up to two tenths of it.
        let life = Duration::from_millis(30 + dice.below((took / 5).max(1)));
        if ends_within(&mut child, life) {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= KILLS / 2, "only {kills} kills before the end");
    assert!(demo(&killed).status().unwrap().success(), "after {kills} kills");
    assert_eq!(digest(&whole), digest(&killed), "after {kills} kills");
    // A kill between a blob and its event leaves a blob that nothing names; the same work writes
    // it again under the same name.
    assert_eq!(blobs(&whole), blobs(&killed), "after {kills} kills");
    let (found, doubled) = pairs_and_steps(&killed);
    assert_eq!((pairs_and_steps(&whole), doubled), ((found, 0), 0));
    assert!(found > 20, "{found} pairs and steps are no run");
    kills
}

#[test]
fn fifty_kills_change_nothing() {
    let _alone = alone();
    let kills = AtomicU32::new(0);
    let all = with_seeds(5, |seed| {
        kills.fetch_add(killed_run(seed), Ordering::Relaxed);
    });
    let kills = kills.into_inner();
    println!("{kills} kills");
    assert!(!all || kills >= 40, "only {kills} kills");
}
