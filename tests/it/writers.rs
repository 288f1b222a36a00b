//! One writer at a time: no reader can hold the lock, and taking its file away lets no second one in.
//! And what lies among a run's rubrics and is none.

use crate::runs::{alone, copied, demo, digest, ends_within, gradus, on, records, whole};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn run(arguments: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    command.args(arguments).arg(dir).output().unwrap()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_reader_can_neither_hold_the_lock_nor_block_a_run() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let files: Vec<File> = ["log/lock", "log/FORMAT", "log/mark", "log"]
        .iter()
        .map(|name| File::open(dir.join(name)).unwrap())
        .collect();
    for file in &files {
        flock(file, FlockOperation::LockShared).unwrap();
    }
    let out = run(&["run"], &dir);
    assert!(out.status.success(), "{}", said(&out));
    let out = run(&["status"], &dir);
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("idle"), "{out:?}");
}

/// A run under way that has recorded answers.
fn under_way(dir: &Path) -> Child {
    let child = demo(dir).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while !records(dir).iter().any(|r| r.event.kind() == "step_taken") {
        assert!(Instant::now() < until, "no step was taken");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_lock_that_is_taken_away_lets_no_second_writer_in() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let child = under_way(&dir);
    let before = records(&dir).len();
    std::fs::remove_file(dir.join("log/lock")).unwrap();
    let second = run(&["run"], &dir);
    assert_eq!(second.status.code(), Some(3), "{}", said(&second));
    assert!(said(&second).contains("is in use by "), "{}", said(&second));
    let status = run(&["status"], &dir);
    assert!(String::from_utf8_lossy(&status.stdout).starts_with("running in"), "{status:?}");
    // The lock is there again with the next record, and says who has it.
    let until = Instant::now() + Duration::from_secs(60);
    while records(&dir).len() <= before + 1 {
        assert!(Instant::now() < until, "nothing was recorded any more");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    let second = run(&["run"], &dir);
    assert!(said(&second).contains(&format!("in use by process {pid}")), "{}", said(&second));
    let first = child.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", said(&first));
    assert_eq!(digest(&dir), whole().digest);
}

/// With every lock gone the first notices before it writes, and stops with the reason.
#[test]
fn a_writer_whose_files_are_taken_away_stops_before_it_writes() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    for gone in ["log/sled/lock", "log/journal/00000000000000000000.jsonl"] {
        let dir = root.path().join(gone.replace('/', "-"));
        let child = under_way(&dir);
        // The journal's bytes are kept, as by an editor that writes a file anew.
        let (file, copy) = (dir.join(gone), dir.join("copy"));
        std::fs::copy(&file, &copy).unwrap();
        std::fs::rename(&copy, &file).unwrap();
        let there = records(&dir).len();
        let first = child.wait_with_output().unwrap();
        assert_eq!(first.status.code(), Some(1), "{gone}: {}", said(&first));
        let why = said(&first);
        assert!(why.contains(gone) && why.contains("was removed or replaced"), "{why}");
        assert_eq!(records(&dir).len(), there, "{gone}: what was written went nowhere");
        assert!(demo(&dir).status().unwrap().success());
        assert_eq!(digest(&dir), whole().digest, "{gone}");
    }
}

/// Both locks are taken away and a second process starts: one of them works on, and the run is sound.
#[test]
fn with_all_locks_taken_away_there_are_never_two_writers() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let mut first = under_way(&dir);
    for lock in ["log/lock", "log/sled/lock"] {
        std::fs::remove_file(dir.join(lock)).unwrap();
    }
    let mut second = demo(&dir).spawn().unwrap();
    for child in [&mut first, &mut second] {
        assert!(ends_within(child, Duration::from_secs(180)));
    }
    if !first.wait().unwrap().success() && !second.wait().unwrap().success() {
        assert!(demo(&dir).status().unwrap().success());
    }
    assert_eq!(digest(&dir), whole().digest);
    let out = run(&["log", "verify"], &dir);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

fn rubric(dir: &Path, name: &str) -> PathBuf {
    let all = records(dir).into_iter().find_map(|record| match record.event {
        gradus::domain::Event::RubricInstalled { rubric, name: theirs, .. } if theirs == name => {
            Some(dir.join(format!("rubrics/{rubric}.wasm")))
        }
        _ => None,
    });
    all.unwrap()
}

#[test]
fn junk_among_the_rubrics_is_named_and_left_out() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let mut install = gradus();
    install.args(["rubric", "install"]).arg(&dir).arg("additive-five");
    assert!(install.status().unwrap().success());
    let unused = rubric(&dir, "additive-five");
    let bytes = std::fs::read(&unused).unwrap();
    std::fs::write(&unused, &bytes[..bytes.len() / 2]).unwrap();
    let junk = dir.join("rubrics/notes.wasm");
    std::fs::write(&junk, "not a component").unwrap();
    let mut go_on = on(&dir);
    let out = go_on.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    for (file, why) in [(&unused, "its bytes hash to"), (&junk, "its bytes hash to")] {
        let line =
            said(&out).lines().find(|l| l.contains(file.to_str().unwrap())).map(str::to_owned);
        assert!(line.is_some_and(|line| line.contains(why)), "{}", said(&out));
    }
    assert_eq!(std::fs::read(&junk).unwrap(), b"not a component", "it may be somebody's");
    // What reads says so, too, and reads.
    let out = run(&["rejudge", "--rubric", "demo-compact", "--recorded"], &dir);
    assert!(out.status.success() && said(&out).contains("notes.wasm"), "{}", said(&out));
    let mut install = gradus();
    install.args(["rubric", "install"]).arg(&dir).arg("additive-five");
    assert!(install.status().unwrap().success());
    assert_eq!(std::fs::read(&unused).unwrap(), bytes, "installed again, it is mended");
}

#[test]
fn a_rubric_that_the_run_needs_is_named_and_comes_back() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let needed = rubric(&dir, "demo-compact");
    let bytes = std::fs::read(&needed).unwrap();
    for damage in [Some(&bytes[..1000]), None] {
        match damage {
            Some(part) => std::fs::write(&needed, part).unwrap(),
            None => std::fs::remove_file(&needed).unwrap(),
        }
        let out = run(&["run"], &dir);
        let why = said(&out);
        assert_eq!(out.status.code(), Some(2), "{why}");
        let advice = format!("gradus rubric install {}", dir.display());
        assert!(why.contains("needs the rubric demo-compact@") && why.contains(&advice), "{why}");
        assert!(why.contains("Install it again from the bundled rubric demo-compact"), "{why}");
        assert!(why.contains(needed.file_name().unwrap().to_str().unwrap()), "{why}");
        let mut install = gradus();
        install.args(["rubric", "install"]).arg(&dir).arg("demo-compact");
        assert!(install.status().unwrap().success());
        assert!(run(&["run"], &dir).status.success());
        assert_eq!(std::fs::read(&needed).unwrap(), bytes);
    }
}
