//! Kill -9 at any moment loses nothing and changes nothing: the run that was killed ends with the
//! same state digest, and the same weights bit for bit, as the one that was not.

use crate::dice::{Dice, chosen_seed};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Kills of one demo.
const KILLS: u32 = 10;

fn demo(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    command.args(["demo", "--reduced", "--no-arms", "--json", "--dir"]).arg(dir);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn digest(dir: &Path) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_gradus"))
        .args(["log", "digest", "--json"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    json["digest"].as_str().unwrap().to_owned()
}

/// The names of all blobs: weights and optimiser states by the hash of their bytes.
fn blobs(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, names);
            } else {
                names.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut names = Vec::new();
    walk(&dir.join("blobs"), &mut names);
    names.sort();
    names
}

fn wait_at_most(child: &mut Child, patience: Duration) -> bool {
    let until = std::time::Instant::now() + patience;
    while std::time::Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn ten_kills_change_nothing() {
    let seed = chosen_seed().unwrap_or(1);
    println!("replay with GRADUS_TEST_SEED={seed}");
    let root = tempfile::tempdir().unwrap();
    let (whole, killed) = (root.path().join("whole"), root.path().join("killed"));
    let began = std::time::Instant::now();
    assert!(demo(&whole).status().unwrap().success());
    let took = began.elapsed().as_millis() as u64;
    let mut dice = Dice(seed);
    let mut kills = 0;
    while kills < KILLS {
        let mut child = demo(&killed).spawn().unwrap();
        // Moments over the whole run: each life lasts up to two tenths of it.
        let life = Duration::from_millis(30 + dice.below((took / 5).max(1)));
        if wait_at_most(&mut child, life) {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= KILLS / 2, "only {kills} kills before the end; seed {seed}");
    assert!(demo(&killed).status().unwrap().success(), "seed {seed}, after {kills} kills");
    assert_eq!(digest(&whole), digest(&killed), "seed {seed}, after {kills} kills");
    // A kill between a blob and its event leaves a blob that nothing names; the same work writes
    // it again under the same name.
    assert_eq!(blobs(&whole), blobs(&killed), "seed {seed}, after {kills} kills");
}
