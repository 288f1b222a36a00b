//! Every named place of a run: the process dies there, or gets an error there, and the run ends in
//! the same state. `cargo test --release --features failpoints --test it points`.

use crate::runs::{alone, blobs, demo, digest, records, whole};
use std::path::Path;
use std::process::Stdio;

/// Where and at which passing of one life. Promotions are among the conductor's tasks. While a run is
/// made nine files are written, the settings last; then each life begins with the shutdown marker.
const PLACES: [(&str, u32); 21] = [
    ("file.sync", 8),
    ("file.write", 4),
    ("task.record", 0),
    ("task.recorded", 0),
    ("journal.write", 2),
    ("file.rename", 1),
    ("file.sync", 1),
    ("journal.sync", 1),
    ("task.recorded", 1),
    ("store.apply", 1),
    ("task.record", 2),
    ("task.recorded", 3),
    ("journal.write", 4),
    ("file.rename", 2),
    ("task.record", 5),
    ("file.sync", 2),
    ("task.recorded", 8),
    ("file.write", 3),
    ("journal.sync", 12),
    ("task.record", 13),
    ("file.sync", 4),
];

/// Where and at which passing the disk may refuse; at the first two it may be full. Files: the first of
/// a checkpoint.
const PLACES_OF_THE_DISK: [(&str, u32); 5] = [
    ("file.write", 10),
    ("journal.write", 3),
    ("file.rename", 10),
    ("file.sync", 10),
    ("journal.sync", 3),
];

/// Lets runs die, one place after the other, beginning anew when one ends.
#[test]
fn a_run_that_dies_at_any_place_ends_in_the_same_state() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let same = |dir: &Path| {
        assert_eq!(whole().digest, digest(dir));
        assert_eq!(blobs(&whole().dir()), blobs(dir));
    };
    let (mut runs, mut dir) = (1, root.path().join("1"));
    for (place, passing) in PLACES {
        let fault = format!("{place}={passing}*off->1*return(abort)");
        while demo(&dir).env("FAILPOINTS", &fault).status().unwrap().success() {
            same(&dir);
            runs += 1;
            dir = root.path().join(runs.to_string());
            assert!(runs < 5, "{place} is passed less than {passing} times");
        }
    }
    assert!(demo(&dir).status().unwrap().success());
    same(&dir);
    println!("{} deaths in {runs} runs", PLACES.len());
}

#[test]
fn a_run_that_gets_an_error_at_any_place_ends_in_the_same_state() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    for (what, places) in [("io", &PLACES_OF_THE_DISK[..]), ("full", &PLACES_OF_THE_DISK[..2])] {
        for (place, passing) in places {
            let faulty = root.path().join(format!("{place} {what}"));
            let mut life = demo(&faulty);
            life.env("FAILPOINTS", format!("{place}={passing}*off->1*return({what})"));
            // Where the log is lost, the process ends, and the next goes on; else it waits.
            let ended = life.stderr(Stdio::piped()).output().unwrap();
            let waited = String::from_utf8_lossy(&ended.stderr).contains(" waits: ");
            assert!(waited || !ended.status.success(), "{place} was not reached");
            let failed = records(&faulty).iter().any(|r| r.event.kind() == "task_failed");
            assert!(!failed, "{what} at {place} is no failure of a task");
            assert!(demo(&faulty).status().unwrap().success(), "{what} at {place}");
            assert_eq!(whole().digest, digest(&faulty), "{what} at {place}");
        }
    }
}
