//! Random operations, reopenings and crashes, beside a log in memory that says what is right.

use super::*;
use crate::dice::with_seeds;
use gradus::log::{JournalLog, MemoryLog};

const OPERATIONS: u32 = 50;

fn same(log: &dyn Log, model: &dyn Log, dice: &mut Dice) {
    assert_eq!(log.tail(), model.tail(), "tail");
    let from = Offset(dice.below(model.tail().0 + 2));
    let max = dice.below(40) as usize;
    let events = |log: &dyn Log| {
        let records = log.read(from, max).unwrap();
        records.into_iter().map(|r| (r.offset, r.key, r.event)).collect::<Vec<_>>()
    };
    assert_eq!(events(log), events(model));
    let key = key(dice.below(60));
    assert_eq!(log.find(&key).unwrap(), model.find(&key).unwrap());
    assert_eq!(log.cursor("reader").unwrap(), model.cursor("reader").unwrap());
}

fn story(seed: u64) {
    let root = scratch();
    let mut dice = Dice(seed);
    let segment = dice.pick(&[1_000, 20_000, 1 << 20]);
    let mut path = root.path().join("0");
    let mut log = Some(open(&path, segment).unwrap());
    let model = MemoryLog::default();
    for operation in 0..OPERATIONS {
        let durable = log.as_ref().unwrap();
        match dice.below(20) {
            0 => {
                drop(log.take());
                log = Some(open(&path, segment).unwrap());
                assert!(log.as_ref().unwrap().repairs().is_empty());
            }
            1 => {
                // The process dies: its files are as they are.
                let copied = root.path().join(format!("{}", operation + 1));
                copy(&path, &copied);
                drop(log.take());
                let crashed = open(&copied, segment).unwrap();
                assert_eq!(crashed.verify().unwrap().first_error, None);
                // The picture of a store that is being written may be of several moments.
                if !crashed.repairs().is_empty() {
                    let event = Event::LogRepaired { what: crashed.repairs().to_vec() };
                    model.append(Batch { events: vec![event], ..Batch::default() }).unwrap();
                }
                path = copied;
                log = Some(crashed);
            }
            2 => same(&JournalLog::open(&path).unwrap(), &model, &mut dice),
            3..8 => same(durable, &model, &mut dice),
            _ => {
                let batch = Batch {
                    key: dice.chance(80).then(|| key(dice.below(60))),
                    cursor: dice.chance(30).then(|| ("reader".to_owned(), Offset(dice.below(9)))),
                    ..batch(dice.below(1000), dice.pick(&[0, 1, 2, 9]))
                };
                assert_eq!(durable.append(batch.clone()).unwrap(), model.append(batch).unwrap());
            }
        }
    }
    let log = log.unwrap();
    same(&log, &model, &mut dice);
}

#[test]
fn the_durable_log_is_the_log_in_memory() {
    with_seeds(300, story);
}
