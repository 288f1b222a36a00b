//! Every named place of the log fails once, at its n-th passing: without space, with an error, and
//! by the death of the process. `cargo test --release --features failpoints --test it points`.

use super::*;
use crate::dice::scale;
use gradus::log::Appended;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const POINTS: [&str; 8] = [
    "journal.write",
    "journal.sync",
    "segment.begin",
    "store.apply",
    "store.flush",
    "file.write",
    "file.rename",
    "file.sync",
];

/// Appends 40 batches, some of them into new segments; what could not be appended is appended again
/// when there is no space, and after opening anew when the log is lost. The records.
fn forty_batches(path: &Path) -> u64 {
    let again = || open(path, 8000).or_else(|_| open(path, 8000)).unwrap();
    let mut log = again();
    let (mut next, mut reopened) = (0, 0);
    for n in 0..40 {
        let count = 1 + n % 7;
        loop {
            match log.append(batch(next, count)) {
                Ok(Appended::New { .. } | Appended::Duplicate { .. }) => break,
                Err(LogError::Full { .. }) => {}
                Err(LogError::Poisoned(_)) => {
                    drop(log);
                    log = again();
                    reopened += 1;
                    assert!(reopened < 3, "it fails once");
                }
                Err(other) => panic!("{other}"),
            }
        }
        next += count;
    }
    next
}

#[test]
fn errors_at_every_passing_of_every_place_lose_nothing() {
    let _faults = fail::FailScenario::setup();
    let mut failed = 0;
    for point in POINTS {
        for what in ["full", "io"] {
            for n in (0..50 * scale()).step_by(3) {
                let dir = scratch();
                let path = dir.path().join("log");
                fail::cfg(point, &format!("{n}*off->1*return({what})")).unwrap();
                let next = forty_batches(&path);
                fail::remove(point);
                let log = open(&path, 8000).unwrap();
                let name = format!("{point}, {what} at passing {n}");
                assert_eq!(texts_in_order(&log), next, "{name}");
                assert_eq!(log.cursor("reader").unwrap(), Offset(next), "{name}");
                assert_eq!(log.verify().unwrap().first_error, None, "{name}");
                failed += 1;
            }
        }
    }
    println!("{failed} runs, each with one fault");
}

#[test]
fn a_process_that_dies_at_any_place_loses_nothing_it_was_told_is_durable() {
    // This process opens the logs itself: not while another test's faults are set.
    let _none = fail::FailScenario::setup();
    for point in POINTS {
        for n in [0, 1, 5, 17] {
            let dir = scratch();
            let path = dir.path().join("log");
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "log::kill::writer_process", "--ignored", "--nocapture"])
                .env("GRADUS_TEST_LOG", &path)
                .env("GRADUS_TEST_WRITER", "7")
                .env("FAILPOINTS", format!("{point}={n}*off->1*return(abort)"))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let tail = |line: String| line.rsplit_once("told ").and_then(|(_, n)| n.parse().ok());
            let told: u64 = lines.map_while(Result::ok).filter_map(tail).last().unwrap_or(0);
            assert!(!child.wait().unwrap().success(), "{point} at passing {n} was never reached");
            let log = open(&path, 200_000).unwrap();
            assert!(texts_in_order(&log) >= told, "{point} at passing {n}");
            assert_eq!(log.verify().unwrap().first_error, None, "{point} at passing {n}");
        }
    }
}
