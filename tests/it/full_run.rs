//! A run whose disk fills up, while it samples and while it saves a checkpoint: it waits, says so
//! at once to who asks, and goes on by itself when there is space.

use crate::disk::SmallDisk;
use crate::runs::{alone, demo, digest, json, records, until_last, whole};
use gradus::domain::Event;
use gradus::log::Recorded;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// Whether `gradus status` says that something waits for space.
fn waits(status: &serde_json::Value) -> bool {
    let stages = status["stages"].as_object();
    let stage = stages.is_some_and(|s| s.values().any(|s| !s["waiting"].is_null()));
    stage || status["log"]["state"] == "full"
}

fn filled(disk: &SmallDisk, dir: &Path, child: &mut Child, moment: fn(&Recorded) -> bool) {
    assert!(until_last(dir, child, moment), "the run ended before");
    let until = Instant::now() + Duration::from_secs(60);
    while !waits(&json(&["status"], dir)) {
        // Temporary files come and go.
        disk.fill();
        assert!(Instant::now() < until, "it never said that the disk is full");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let asked = Instant::now();
        assert!(waits(&json(&["status"], dir)));
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_millis(100), "status took {slowest:?}");
    assert!(child.try_wait().unwrap().is_none(), "the process ended");
    let before = records(dir).len();
    disk.free();
    let freed = Instant::now();
    // It knows within seconds; what it does then before it has a record takes as long as the machine
    // needs, which others may be using.
    while records(dir).len() == before {
        assert!(freed.elapsed() < Duration::from_secs(60), "it does not go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("status while full: {slowest:?}; went on after {:?}", freed.elapsed());
}

#[test]
fn a_full_disk_makes_a_run_wait_and_changes_nothing() {
    let Some(disk) = SmallDisk::mount(400) else { return };
    let _alone = alone();
    let dir = disk.path().join("full");
    let mut child = demo(&dir).spawn().unwrap();
    filled(&disk, &dir, &mut child, |r| matches!(r.event, Event::IterationStarted { .. }));
    filled(&disk, &dir, &mut child, |r| matches!(r.event, Event::CompletionsSampled { .. }));
    filled(&disk, &dir, &mut child, |r| matches!(r.event, Event::ReferenceScored { .. }));
    assert!(child.wait().unwrap().success());
    assert_eq!(whole().digest, digest(&dir));
}
