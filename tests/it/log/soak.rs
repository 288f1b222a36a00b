//! A writer, four readers and compaction at once, under a watchdog: everybody gets on, and every
//! reader sees each kept record once, in order.

use super::*;
use crate::dice::scale;
use gradus::log::{Compaction, JournalLog, Recorded};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SOAK: Duration = Duration::from_secs(4);
/// Longer than this nobody may stand still.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where its records end, compaction drops two thirds; then the readers may be anywhere.
const COMPACT_EVERY: u64 = 4_000;

fn write(log: &DurableLog, moves: &AtomicU64, stop: &AtomicBool) -> u64 {
    let (mut next, mut compacted) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let count = 1 + Dice(next).below(30);
        log.append(batch(next, count)).unwrap();
        next += count;
        if next >= compacted + COMPACT_EVERY {
            compacted = next;
            let keep = |record: &Recorded| record.offset.0.is_multiple_of(3);
            let views = BTreeMap::new();
            log.compact(|_| Ok(Compaction { keep: Box::new(keep), views })).unwrap();
        }
        moves.fetch_add(1, Ordering::Relaxed);
    }
    next
}

/// Follows the log to `tail`, once that is known; what it saw.
fn follow(log: &dyn Log, moves: &AtomicU64, tail: &AtomicU64) -> Vec<u64> {
    let mut seen: Vec<u64> = Vec::new();
    loop {
        let until = tail.load(Ordering::Relaxed);
        let from = seen.last().map_or(0, |last| last + 1);
        for record in log.read(Offset(from), 200).unwrap() {
            let Event::PromptAdmitted { prompt } = &record.event else { panic!("{record:?}") };
            assert_eq!(prompt.task_text(), text(record.offset.0));
            seen.push(record.offset.0);
        }
        moves.fetch_add(1, Ordering::Relaxed);
        if seen.last().is_some_and(|last| last + 1 >= until) {
            return seen;
        }
    }
}

#[test]
fn a_writer_readers_and_compaction_get_on() {
    let dir = scratch();
    let path = dir.path().join("log");
    let log = open(&path, 100_000).unwrap();
    let beside = [JournalLog::open(&path).unwrap(), JournalLog::open(&path).unwrap()];
    let readers: [&dyn Log; 4] = [&log, &log, &beside[0], &beside[1]];
    let (stop, tail) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    let moves: [AtomicU64; 5] = Default::default();
    std::thread::scope(|scope| {
        let mut following = Vec::new();
        for (reader, moves) in readers.iter().zip(&moves) {
            let tail = &tail;
            following.push(scope.spawn(move || follow(*reader, moves, tail)));
        }
        let writing = scope.spawn(|| write(&log, &moves[4], &stop));
        let (began, mut last) = (Instant::now(), [(0, Instant::now()); 5]);
        while began.elapsed() < SOAK * scale() as u32 {
            std::thread::sleep(Duration::from_millis(50));
            for ((moves, (was, since)), who) in moves.iter().zip(&mut last).zip(0..) {
                let now = moves.load(Ordering::Relaxed);
                if now != *was {
                    (*was, *since) = (now, Instant::now());
                }
                if since.elapsed() > PATIENCE {
                    stop.store(true, Ordering::Relaxed);
                    tail.store(0, Ordering::Relaxed);
                    panic!("{who} of the readers (4: writer) stood for {:?}", since.elapsed());
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        let written = writing.join().unwrap();
        tail.store(written, Ordering::Relaxed);
        println!("{written} records");
        for reader in following {
            let seen = reader.join().unwrap();
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
            let missed = (0..written).step_by(3).find(|n| seen.binary_search(n).is_err());
            assert_eq!(missed, None);
        }
    });
    assert!(log.compacted().is_some(), "nothing was compacted");
    assert_eq!(log.verify().unwrap().first_error, None);
}
