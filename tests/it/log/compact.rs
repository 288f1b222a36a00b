//! Compaction, beside a log in memory that forgets nothing: what was kept is there, what was dropped
//! is not, keys, cursors and the digest are as if nothing had happened; and what is left of one that
//! was interrupted or whose files rot.

use super::*;
use crate::dice::with_seeds;
use crate::disk::SmallDisk;
use gradus::log::{Compacted, Compaction, JournalLog, MemoryLog, Recorded, state_digest};
use std::collections::{BTreeMap, BTreeSet};

const OPERATIONS: u32 = 40;

fn wanted<'a>(tail: Offset, from: u64) -> Compaction<'a> {
    let keep =
        move |record: &Recorded| record.offset.0 >= from || record.offset.0.is_multiple_of(3);
    let views = BTreeMap::from([("test".to_owned(), serde_json::json!({"tail": tail}))]);
    Compaction { keep: Box::new(keep), views }
}

fn compact(log: &DurableLog, from: u64) -> Option<Compacted> {
    log.compact(|tail| Ok(wanted(tail, from))).unwrap()
}

/// A log of 300 records, compacted at 200 (from 190 on everything is kept) or not yet.
fn at_200(path: &Path, compacted: bool) {
    let log = open(path, 20_000).unwrap();
    (0..10).for_each(|n| {
        log.append(batch(20 * n, 20)).unwrap();
    });
    if compacted {
        let done = compact(&log, 190).unwrap();
        assert_eq!((done.floor, done.dropped, done.kept), (Offset(200), 126, 74));
        assert!(done.bytes_after < done.bytes_before);
    }
}

/// Checks a log that was compacted at 200 once or never, and has `tail` records.
fn check(log: &dyn Log, tail: u64) {
    let there: Vec<u64> = log.read(Offset(0), 1000).unwrap().iter().map(|r| r.offset.0).collect();
    let floor = log.compacted().map_or(0, |base| base.floor().0);
    assert!(floor == 0 || floor == 200, "{floor}");
    let kept = |n: &u64| *n >= 190 || n.is_multiple_of(3) || floor == 0;
    assert_eq!(there, (0..tail).filter(kept).collect::<Vec<_>>());
    for n in (0..tail).step_by(20) {
        assert_eq!(log.find(&key(n)).unwrap(), Some(Offset(n)));
    }
    assert_eq!(log.cursor("reader").unwrap(), Offset(tail));
    let whole = MemoryLog::default();
    (0..tail / 20).for_each(|n| {
        whole.append(batch(20 * n, 20)).unwrap();
    });
    assert_eq!(state_digest(log).unwrap(), state_digest(&whole).unwrap());
}

/// Opens a folder, checks it, and goes on to 300 records.
fn goes_on(path: &Path) {
    let log = open(path, 20_000).unwrap();
    assert_eq!(log.verify().unwrap().first_error, None);
    // Repairs are recorded: their offsets would be in the way.
    if log.repairs().is_empty() {
        check(&log, 200);
        (10..15).for_each(|n| {
            log.append(batch(20 * n, 20)).unwrap();
        });
        check(&log, 300);
        check(&JournalLog::open(path).unwrap(), 300);
    }
    assert_eq!(log.verify().unwrap().first_error, None);
}

/// Compares a log with the model but for the offsets that were dropped, from some offset on.
fn same(log: &dyn Log, model: &MemoryLog, dropped: &BTreeSet<u64>, dice: &mut Dice) {
    let from = dice.below(log.tail().0 + 1);
    let records = |log: &dyn Log| -> Vec<_> {
        let all = log.read(Offset(from), 10_000).unwrap().into_iter();
        all.map(|record| (record.offset, record.event)).collect()
    };
    let mut left = records(model);
    left.retain(|(offset, _)| !dropped.contains(&offset.0));
    assert_eq!(records(log), left);
    let key = key(dice.below(60));
    assert_eq!(log.find(&key).unwrap(), model.find(&key).unwrap());
    assert_eq!(log.cursor("reader").unwrap(), model.cursor("reader").unwrap());
}

fn story(seed: u64) {
    let root = scratch();
    let mut dice = Dice(seed);
    let mut path = root.path().join("0");
    let mut log = Some(open(&path, 5_000).unwrap());
    let model = MemoryLog::default();
    let (mut dropped, mut floor) = (BTreeSet::new(), Offset(0));
    let reader = open(&path, 5_000).err();
    assert!(reader.is_some());
    let mut beside = JournalLog::open(&path).unwrap();
    for operation in 0..OPERATIONS {
        let durable = log.as_ref().unwrap();
        match dice.below(10) {
            0 => {
                drop(log.take());
                log = Some(open(&path, 5_000).unwrap());
            }
            1 => {
                let copied = root.path().join(format!("{}", operation + 1));
                copy(&path, &copied);
                drop(log.take());
                if dice.chance(50) {
                    std::fs::write(copied.join("mark"), "{}").unwrap();
                }
                path = copied;
                log = Some(open(&path, 5_000).unwrap());
                let repairs = log.as_ref().unwrap().repairs().to_vec();
                if !repairs.is_empty() {
                    let events = vec![Event::LogRepaired { what: repairs }];
                    model.append(Batch { events, ..Batch::default() }).unwrap();
                }
                beside = JournalLog::open(&path).unwrap();
            }
            2 => {
                let from = dice.below(durable.tail().0 + 1);
                let reader = durable.cursor("reader").unwrap().0;
                let named = reader > 0;
                if let Some(done) = compact(durable, from) {
                    let gone =
                        |n: &u64| *n < from && !n.is_multiple_of(3) && !(named && *n >= reader);
                    dropped.extend((0..done.floor.0).filter(gone));
                    floor = done.floor;
                    assert_eq!(done.floor, durable.tail());
                }
            }
            _ => {
                let batch = Batch {
                    key: dice.chance(80).then(|| key(dice.below(60))),
                    cursor: dice
                        .chance(30)
                        .then(|| ("reader".to_owned(), Offset(dice.below(durable.tail().0 + 1)))),
                    ..batch(dice.below(1000), dice.pick(&[1, 2, 9]))
                };
                assert_eq!(durable.append(batch.clone()).unwrap(), model.append(batch).unwrap());
            }
        }
        let logs: [&dyn Log; 2] = [log.as_ref().unwrap(), &beside];
        for log in logs {
            same(log, &model, &dropped, &mut dice);
            assert_eq!(
                log.compacted().map_or(Offset(0), |base| base.floor()),
                floor,
                "{operation}"
            );
        }
    }
    let log = log.unwrap();
    assert_eq!(log.verify().unwrap().first_error, None);
    assert_eq!(state_digest(&log).unwrap(), state_digest(&model).unwrap());
}

#[test]
fn a_compacted_log_is_the_log_without_what_was_dropped() {
    with_seeds(100, story);
}

#[test]
fn an_interrupted_compaction_is_none_or_whole() {
    let dir = scratch();
    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    at_200(&before, false);
    at_200(&after, true);
    goes_on(&after);
    let rotated = format!("journal/{:020}.jsonl", 200);
    at_200(&dir.path().join("again"), true);
    let after = dir.path().join("again");
    // What a crash leaves, in the order in which it comes to be.
    let moments: [&[&str]; 5] = [
        &[".new-1-0"],
        &[".new-1-0", &rotated],
        &["base.copy", &rotated],
        &["base.copy", "base", &rotated],
        &["base.copy", "base", &rotated, "mark"],
    ];
    for (n, moment) in moments.into_iter().enumerate() {
        let path = dir.path().join(format!("moment {n}"));
        copy(&before, &path);
        for file in moment {
            let from = if *file == ".new-1-0" { "base" } else { *file };
            std::fs::copy(after.join(from), path.join(file)).unwrap();
        }
        if n == 4 {
            // And the power was cut.
            std::fs::write(path.join("mark"), "{}").unwrap();
        }
        goes_on(&path);
        assert!(!path.join(".new-1-0").exists(), "what a dead process left stays");
    }
}

#[test]
fn a_base_that_rots_comes_from_its_copy_or_is_an_error() {
    let made = scratch();
    at_200(&made.path().join("log"), true);
    with_seeds(60, |seed| {
        let mut dice = Dice(seed);
        let dir = scratch();
        let path = dir.path().join("log");
        copy(&made.path().join("log"), &path);
        let mut damage = |name: &str| {
            let mut bytes = std::fs::read(path.join(name)).unwrap();
            match dice.below(3) {
                0 => bytes.truncate(dice.below(bytes.len() as u64) as usize),
                1 => bytes.clear(),
                _ => {
                    let bit = dice.below(bytes.len() as u64 * 8) as usize;
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
            std::fs::write(path.join(name), bytes).unwrap();
        };
        if seed % 3 == 2 {
            damage("base");
            damage("base.copy");
            let files = |path: &Path| std::fs::read(path.join("base")).unwrap();
            let there = files(&path);
            let error = open(&path, 20_000).err().unwrap().to_string();
            assert!(error.contains("base") && error.contains("Restore"), "{error}");
            assert!(JournalLog::open(&path).is_err());
            assert_eq!(files(&path), there, "it was changed");
            return;
        }
        damage(if seed % 3 == 0 { "base" } else { "base.copy" });
        check(&JournalLog::open(&path).unwrap(), 200);
        let log = open(&path, 20_000).unwrap();
        assert_eq!(log.repairs().len(), 1, "{:?}", log.repairs());
        drop(log);
        let files = |name: &str| std::fs::read(path.join(name)).unwrap();
        assert_eq!(files("base"), files("base.copy"));
        assert_eq!(open(&path, 20_000).unwrap().verify().unwrap().first_error, None);
    });
}

#[test]
fn a_store_that_is_lost_is_made_again_from_the_base() {
    let dir = scratch();
    let path = dir.path().join("log");
    at_200(&path, true);
    std::fs::remove_dir_all(path.join("sled")).unwrap();
    goes_on(&path);
}

#[test]
fn compaction_waits_for_nobody_who_is_behind() {
    let dir = scratch();
    let log = open(&dir.path().join("log"), 20_000).unwrap();
    log.append(batch(0, 100)).unwrap();
    let cursor = Some(("slow".to_owned(), Offset(40)));
    log.append(Batch { key: None, cursor, ..batch(100, 1) }).unwrap();
    let done = compact(&log, 101).unwrap();
    assert_eq!(done.dropped, 26, "none at 40 or later");
    let seen: Vec<u64> = log.read(Offset(40), 100).unwrap().iter().map(|r| r.offset.0).collect();
    assert_eq!(seen, (40..101).collect::<Vec<_>>());
    assert_eq!(compact(&log, 0), None, "nothing to drop");
}

#[test]
fn a_full_disk_refuses_compaction_and_an_opening_has_its_ballast() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let path = disk.path().join("log");
    at_200(&path, false);
    assert!(path.join("ballast").exists());
    let log = open(&path, 20_000).unwrap();
    disk.fill();
    let refused = log.compact(|tail| Ok(wanted(tail, 150)));
    assert!(matches!(refused, Err(LogError::Full { .. })), "{refused:?}");
    check(&log, 200);
    drop(log);
    // Another process filled it further.
    disk.fill();
    let log = open(&path, 20_000).unwrap();
    check(&log, 200);
    assert!(!path.join("ballast").exists(), "it was of use");
    disk.free();
    drop(log);
    goes_on(&path);
    assert!(path.join("ballast").exists());
}
