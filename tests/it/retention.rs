//! What a long run may forget: old iterations, by hand and by itself, also when it is killed at any
//! moment of it. What is left reports the same, and goes on to the same state as a run that forgets
//! nothing. And a quota, which a run waits under.

use crate::dice::{Dice, with_seeds};
use crate::runs::{
    alone, blobs, copied, digest, ends_within, five, gradus, json, on, records, set, terminate,
    whole,
};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn count(dir: &Path, kind: &str) -> usize {
    records(dir).iter().filter(|record| record.event.kind() == kind).count()
}

#[test]
fn a_compacted_run_reports_the_same_and_goes_on_to_the_same_state() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let (before, reported, all) = (digest(&dir), json(&["report"], &dir), records(&dir));
    let archive = root.path().join("archive.jsonl");
    let mut compact = gradus();
    compact.args(["log", "compact", "--keep-iterations", "1", "--json", "--archive"]);
    let out = compact.arg(&archive).arg(&dir).stdout(Stdio::piped()).output().unwrap();
    let freed: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let dropped = freed["log"]["dropped"].as_u64().unwrap();
    assert_eq!(records(&dir).len() as u64, all.len() as u64 - dropped + 1, "and log_compacted");
    // Of finished iterations the weights alone are left, and those were promoted.
    assert!(dropped > 100 && freed["blobs"] == 0, "{freed}");
    let archived = std::fs::read_to_string(&archive).unwrap();
    assert_eq!(archived.lines().count(), all.len());

    assert_eq!(digest(&dir), before);
    let verified = json(&["log", "verify"], &dir);
    assert!(verified["first_error"].is_null(), "{verified}");
    let now = json(&["report"], &dir);
    assert_eq!(now["iterations"], reported["iterations"]);
    assert_eq!(now["policy"], reported["policy"]);
    assert_eq!(
        count(&dir, "step_taken"),
        all.iter().filter(|r| r.event.kind() == "step_taken").count()
    );

    assert!(on(&dir).status().unwrap().success());
    assert_eq!(digest(&dir), five().digest);
    let five = blobs(&five().dir());
    assert!(blobs(&dir).iter().all(|blob| five.contains(blob)), "weights of its own");
}

#[test]
fn a_run_that_forgets_by_itself_ends_in_the_same_state_whenever_it_is_killed() {
    let _alone = alone();
    with_seeds(2, |seed| {
        let mut dice = Dice(seed);
        let root = tempfile::tempdir().unwrap();
        let dir = copied(&whole().dir(), &root.path().join("run"));
        set(&dir, "keep_iterations", 0, 1);
        let mut kills = 0;
        loop {
            let mut child = on(&dir).spawn().unwrap();
            if ends_within(&mut child, Duration::from_millis(300 + 40 * kills + dice.below(2500))) {
                assert!(child.wait().unwrap().success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            assert!(kills < 60, "it does not get further");
        }
        println!("{kills} kills");
        assert_eq!(digest(&dir), five().digest);
        assert!(count(&dir, "log_compacted") > 0);
        let all = five().dir();
        assert!(count(&dir, "completions_sampled") < count(&all, "completions_sampled"));
        // A process leaves alone what it stored within the hour; one that works on an idle run
        // stored nothing.
        let all = blobs(&all);
        assert!(blobs(&dir).iter().all(|blob| all.contains(blob)), "weights of its own");
        assert!(gradus().args(["log", "compact"]).arg(&dir).status().unwrap().success());
        assert!(blobs(&dir).len() <= all.len());
        assert_eq!(digest(&dir), five().digest);
    });
}

#[test]
fn a_run_waits_under_its_quota_and_goes_on_when_it_is_raised() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    set(&dir, "quota_mib", 0, 2);
    let before = records(&dir).len();
    let mut child = on(&dir).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !json(&["status"], &dir).to_string().contains("storage.quota_mib allows 2") {
        assert!(Instant::now() < until, "it never said why it waits");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(records(&dir).len(), before);
    terminate(&mut child);
    set(&dir, "quota_mib", 2, 0);
    assert!(on(&dir).status().unwrap().success());
    assert_eq!(digest(&dir), five().digest);
}
