//! A full disk: nothing acknowledged is lost, reading goes on, and so does writing when there is
//! space again.

use super::*;
use crate::disk::SmallDisk;
use gradus::log::{Appended, Health, JournalLog};
use std::time::{Duration, Instant};

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
    let Some(disk) = SmallDisk::mount(24) else { return };
    let path = disk.path().join("log");
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
    let Some(disk) = SmallDisk::mount(24) else { return };
    let path = disk.path().join("log");
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
