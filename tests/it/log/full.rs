//! A full disk: nothing acknowledged is lost, reading goes on, and so does writing when there is
//! space again.

use super::*;
use gradus::log::{Appended, Health, JournalLog};
use std::process::Command;
use std::time::{Duration, Instant};

/// A small file system in memory, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).output();
        mount.is_ok_and(|out| out.status.success()).then(|| SmallDisk(dir))
    }

    /// Takes space away until almost nothing is left.
    fn fill(&self) {
        let mut bytes = 1 << 20;
        for n in 0.. {
            let file = self.0.path().join(format!("filler {n}"));
            if std::fs::write(&file, vec![1; bytes]).is_err() {
                let _ = std::fs::remove_file(&file);
                bytes /= 2;
            }
            if bytes < 4096 {
                return;
            }
        }
    }

    fn free(&self) {
        for file in files(self.0.path()) {
            if file.to_string_lossy().starts_with("filler") {
                std::fs::remove_file(self.0.path().join(file)).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Appends until there is no space; the next record.
fn until_full(log: &DurableLog, mut next: u64) -> u64 {
    loop {
        match log.append(batch(next, 20)) {
            Ok(Appended::New { .. }) => next += 20,
            Ok(other) => panic!("{other:?}"),
            Err(LogError::Full { .. }) => return next,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount(24) else {
        println!("SKIPPED: no file system can be mounted here");
        return;
    };
    let path = disk.0.path().join("log");
    let log = open(&path, 200_000).unwrap();
    let mut next = 0;
    for round in 0..3 {
        log.append(batch(next, 200)).unwrap();
        next += 200;
        disk.fill();
        next = until_full(&log, next);
        assert!(matches!(log.health(), Health::Full { .. }), "{:?}", log.health());
        assert_eq!(texts_in_order(&log), next, "round {round}");
        let asked = Instant::now();
        let reader = JournalLog::open(&path).unwrap();
        assert_eq!(reader.tail(), Offset(next));
        assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
        assert!(log.append(batch(next, 20)).is_err(), "still full");
        disk.free();
        let asked = Instant::now();
        while log.append(batch(next, 20)).is_err() || log.health() != Health::Sound {
            assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", log.health());
            std::thread::sleep(Duration::from_millis(20));
        }
        next = log.tail().0;
        assert_eq!(texts_in_order(&log), next, "round {round}");
    }
    assert_eq!(log.verify().unwrap().first_error, None);
    drop(log);
    assert_eq!(texts_in_order(&open(&path, 200_000).unwrap()), next);
}

/// The process ends while the disk is full; the next one begins when it is not.
#[test]
fn closing_on_a_full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::mount(24) else {
        println!("SKIPPED: no file system can be mounted here");
        return;
    };
    let path = disk.0.path().join("log");
    let log = open(&path, 200_000).unwrap();
    log.append(batch(0, 200)).unwrap();
    disk.fill();
    let next = until_full(&log, 200);
    let asked = Instant::now();
    drop(log);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    match open(&path, 200_000) {
        Ok(log) => assert_eq!(texts_in_order(&log), next),
        Err(error) => assert!(error.to_string().contains("space"), "{error}"),
    }
    disk.free();
    let log = open(&path, 200_000).unwrap();
    assert_eq!(texts_in_order(&log), next);
    assert_eq!(log.verify().unwrap().first_error, None);
}
