//! Verbs that read disturb nobody: beside a run they make no task fail and change nothing it comes to,
//! and where nothing may be written they read all the same.

use crate::dice::scale;
use crate::runs::{alone, copied, demo, digest, records, until_last, whole};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every verb that reads, with a file or folder that one of them writes elsewhere.
fn reading(dir: &Path, elsewhere: &Path) -> Vec<(&'static str, Vec<String>)> {
    let (dir, out) = (dir.display().to_string(), elsewhere.display().to_string());
    let verbs = [
        ("generate", "generate DIR --device cpu --max-new-tokens 4 --prompt add"),
        ("status", "status DIR"),
        ("report", "report DIR --out OUT/page.html"),
        ("report as JSON", "report DIR --json"),
        ("log show", "log show DIR --limit 20"),
        ("log tail", "log tail DIR"),
        ("log export", "log export DIR"),
        ("log verify", "log verify DIR"),
        ("log digest", "log digest DIR"),
        ("rubric list", "rubric list DIR"),
        ("rubric show", "rubric show demo-compact --run DIR"),
        ("rubric diff", "rubric diff DIR demo-compact demo-compact --recorded"),
        ("rubric taint", "rubric taint DIR demo-compact"),
        ("rejudge", "rejudge DIR --rubric demo-compact --recorded"),
        ("rejudge held out", "rejudge DIR --rubric demo-compact --recorded --held-out"),
    ];
    let words = |line: &str| {
        line.split(' ').map(|word| word.replace("DIR", &dir).replace("OUT", &out)).collect()
    };
    verbs.into_iter().map(|(name, line)| (name, words(line))).collect()
}

fn gradus(arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus")).args(arguments).output().unwrap()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned()
}

/// Every file of a folder: its inode, length and time of change.
fn listed(dir: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        if found.is_dir() {
            all.extend(listed(&entry.path()));
        }
        // That a folder was looked into and left as it was does not count.
        let (length, second, nano) = match found.is_dir() {
            true => (0, 0, 0),
            false => (found.len(), found.mtime(), found.mtime_nsec()),
        };
        all.insert(entry.path(), (found.ino(), length, second, nano));
    }
    all
}

/// One run, or as many as somebody wants.
#[test]
fn readers_beside_a_run_change_nothing_it_comes_to() {
    let _alone = alone();
    (0..scale()).for_each(|_| beside_a_run());
}

fn beside_a_run() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let mut child = demo(&dir).spawn().unwrap();
    let mut worked = BTreeMap::<&str, u32>::new();
    while child.try_wait().unwrap().is_none() {
        for (name, arguments) in reading(&dir, root.path()) {
            // At first there is nothing to read yet.
            *worked.entry(name).or_default() += u32::from(gradus(&arguments).status.success());
        }
    }
    assert!(child.wait().unwrap().success());
    println!("read beside the run: {worked:?}");
    assert!(worked.values().all(|times| *times > 0), "{worked:?}");
    let failed: Vec<_> =
        records(&dir).into_iter().filter(|r| r.event.kind() == "task_failed").collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(digest(&dir), whole().digest);
}

/// What a writer is writing, what a dead one left, a lock: everything is as it was.
#[test]
fn readers_leave_a_folder_as_it_is() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let shard = std::fs::read_dir(dir.join("blobs")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(shard.join(".new-1-0"), "half").unwrap();
    std::fs::write(shard.join(".new-2147483646-0"), "half").unwrap();
    let before = listed(&dir);
    let mut verbs = reading(&dir, root.path());
    verbs.push(("doctor", ["doctor", "--device", "cpu"].map(str::to_owned).to_vec()));
    verbs.last_mut().unwrap().1.push(dir.display().to_string());
    for (name, arguments) in verbs {
        let out = gradus(&arguments);
        assert!(out.status.success(), "{name}: {}", said(&out));
        assert_eq!(listed(&dir), before, "{name}");
    }
}

/// Both copies of a log are looked at without opening it, also where its last writer was killed and
/// the store has not got everything.
#[test]
fn the_log_of_a_killed_run_is_verified_as_it_lies() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("run");
    let verify = || {
        let out = gradus(&["log".to_owned(), "verify".to_owned(), dir.display().to_string()]);
        (out.status.success(), said(&out))
    };
    for kind in ["checkpoint_saved", "judgments_recorded"] {
        let mut child = demo(&dir).spawn().unwrap();
        assert!(until_last(&dir, &mut child, |record| record.event.kind() == kind));
        let (sound, text) = verify();
        assert!(sound && text.contains("a process works on the run"), "{text}");
        child.kill().unwrap();
        child.wait().unwrap();
        let before = listed(&dir);
        let (sound, text) = verify();
        assert!(sound && text.contains("both copies are sound"), "{text}");
        assert_eq!(listed(&dir), before);
    }
    // The store of another log: found, and not mended by looking.
    let other = root.path().join("other");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base");
    std::fs::write(root.path().join("prompts.txt"), "add 1 and 1 .\nadd 2 and 1 .\n").unwrap();
    let mut init = crate::runs::gradus();
    init.arg("init").arg(&other).arg("--model").arg(model).arg("--prompts");
    assert!(init.arg(root.path().join("prompts.txt")).status().unwrap().success());
    std::fs::remove_dir_all(dir.join("log/sled")).unwrap();
    copied(&other.join("log/sled"), &dir.join("log/sled"));
    for _ in 0..2 {
        let (sound, text) = verify();
        assert!(!sound && text.contains("DAMAGED: the store: "), "{text}");
    }
    assert!(demo(&dir).status().unwrap().success());
    assert_eq!(digest(&dir), whole().digest);
}

/// A folder seen where nothing may be written, gone when dropped.
struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    fn of(dir: &Path) -> Option<ReadOnly> {
        let place = tempfile::tempdir().unwrap();
        let mount = |arguments: &[&str]| {
            let mut command = Command::new("mount");
            let command = command.args(arguments).arg(place.path());
            command.output().is_ok_and(|out| out.status.success())
        };
        let mounted = mount(&["--bind", dir.to_str().unwrap()]);
        if !mounted {
            println!("SKIPPED: no folder can be mounted here");
            return None;
        }
        let place = ReadOnly(place);
        let mut command = Command::new("mount");
        let command = command.args(["-o", "remount,bind,ro"]).arg(place.0.path());
        assert!(command.status().unwrap().success());
        Some(place)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_folder_that_cannot_be_written_to_is_read() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let Some(place) = ReadOnly::of(&dir) else { return };
    let dir = place.0.path();
    assert!(std::fs::write(dir.join("file"), "").is_err());
    let mut verbs = reading(dir, root.path());
    verbs.push(("doctor", ["doctor", "--device", "cpu"].map(str::to_owned).to_vec()));
    verbs.last_mut().unwrap().1.push(dir.display().to_string());
    for (name, arguments) in verbs {
        let out = gradus(&arguments);
        assert!(out.status.success(), "{name}: {}", said(&out));
    }
    // The page goes into the folder unless somebody says where.
    let out = gradus(&["report".to_owned(), dir.display().to_string()]);
    assert!(said(&out).contains("--out FILE"), "{}", said(&out));
}
