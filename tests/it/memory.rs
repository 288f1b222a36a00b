//! Runs with too little memory: they wait or end with an error that says so, and what they came to
//! is what it would have been. No lack of this machine is ever taken for a judge's answer.

use crate::runs::{
    alone, copied, demo, digest, ends_within, five, json, on, records, set, terminate, whole,
};
use gradus::domain::{Event, Outcome};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Address space in KiB: too little for anything, for a sandbox (4 GiB of it), for a second
/// sandbox, for the threads of training, and enough for most.
const LIMITS: [u64; 7] =
    [200_000, 1_000_000, 4_600_000, 4_950_000, 5_010_000, 5_200_000, 5_600_000];

#[test]
fn lives_with_too_little_address_space_change_nothing() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("limited");
    let mut short = 0;
    for limit in LIMITS {
        let life = demo(&dir);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {limit} && exec \"$0\" \"$@\"")]);
        shell.arg(life.get_program()).args(life.get_args());
        let mut child = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // One that waits for memory would do so for ever.
        if !ends_within(&mut child, Duration::from_secs(6)) {
            child.kill().unwrap();
        }
        short += u32::from(!child.wait().unwrap().success());
    }
    assert!(short >= 3, "the limits were none");
    assert!(demo(&dir).status().unwrap().success());
    assert_eq!(whole().digest, digest(&dir));
    for record in records(&dir) {
        if let Event::JudgmentsRecorded { judgments, .. } = record.event {
            let trapped = judgments.iter().any(|j| matches!(j.outcome, Outcome::Trapped { .. }));
            assert!(!trapped, "{judgments:?}");
        }
    }
}

#[test]
fn a_run_waits_while_memory_is_scarce() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    set(&dir, "memory_reserve_mib", 256, 60_000_000);
    let before = records(&dir).len();
    let mut child = on(&dir).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !json(&["status"], &dir).to_string().contains("memory_reserve_mib leaves 60000000") {
        assert!(Instant::now() < until, "it never said why it waits");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The conductor needs none: it opens the iteration.
    let light = |kind: &str| matches!(kind, "iteration_started" | "prompts_sealed");
    assert!(records(&dir).iter().skip(before).all(|r| light(r.event.kind())));
    terminate(&mut child);
    set(&dir, "memory_reserve_mib", 60_000_000, 256);
    assert!(on(&dir).status().unwrap().success());
    assert_eq!(digest(&dir), five().digest);
    assert!(records(&dir).iter().all(|r| r.event.kind() != "task_failed"));
}
