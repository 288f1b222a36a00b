//! A clock that somebody sets while gradus works: an hour back, a day ahead, to 1970, and one that
//! stands still. It labels records; order, waiting and state are as ever.

use crate::dice::{Dice, with_seeds};
use crate::runs::{alone, copied, whole};
use gradus::domain::{Event, Offset, Prompt, PromptOrigin, TaskKey};
use gradus::lm::cancel::Cancel;
use gradus::log::{Batch, Clock, Digest, DurableLog, Log, MemoryLog, state_digest};
use gradus::runtime::{Folder, Goal, Runtime, WaitOutcome};
use std::path::Path;
use std::sync::{Arc, Mutex};

const HOUR_MS: u64 = 3_600_000;

/// Jumps at every third look or so.
struct Jumping(Mutex<(Dice, u64)>);

impl Jumping {
    fn new(seed: u64) -> Arc<Jumping> {
        Arc::new(Jumping(Mutex::new((Dice(seed), 1_764_000_000_000))))
    }
}

impl Clock for Jumping {
    fn now_ms(&self) -> u64 {
        let (dice, now) = &mut *self.0.lock().unwrap();
        *now = match dice.below(15) {
            0 => now.saturating_sub(HOUR_MS),
            1 => *now + 24 * HOUR_MS,
            2 => 0,
            3 => 1_764_000_000_000,
            4 => u64::from(u32::MAX) * 1000,
            n if n < 8 => *now,
            n => *now + n,
        };
        *now
    }
}

#[test]
fn a_log_keeps_its_order_under_any_clock() {
    with_seeds(20, |seed| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (clock, model) = (Jumping::new(seed), MemoryLog::default());
        let mut log = DurableLog::open(&path, clock.clone()).unwrap();
        let mut seen = Vec::new();
        for n in 0..120u64 {
            if n % 40 == 39 {
                // Backwards between two lives.
                drop(log);
                log = DurableLog::open(&path, clock.clone()).unwrap();
            }
            let prompt = Prompt::user(format!("{n}"), PromptOrigin::Given);
            let batch = Batch {
                key: Some(TaskKey(format!("key {n}"))),
                events: vec![Event::PromptAdmitted { prompt }; 1 + (n % 3) as usize],
                cursor: Some(("reader".to_owned(), Offset(n))),
            };
            let bell = log.subscribe();
            assert_eq!(log.append(batch.clone()).unwrap(), model.append(batch).unwrap());
            assert!(bell.try_recv().is_ok(), "no reader was woken");
            seen.push(log.get(Offset(log.tail().0 - 1)).unwrap().unwrap().at_ms);
        }
        assert!(seen.windows(2).any(|w| w[1] < w[0]), "it never went back");
        let events = |log: &dyn Log| -> Vec<_> {
            let all = log.read(Offset(0), 1000).unwrap();
            all.into_iter().map(|record| (record.offset, record.key, record.event)).collect()
        };
        assert_eq!(events(&log), events(&model));
        assert_eq!(log.verify().unwrap().first_error, None);
        assert_eq!(state_digest(&log).unwrap(), state_digest(&model).unwrap());
    });
}

/// Goes on to the fifth iteration in this process; its state then.
fn state_after(dir: &Path, clock: Option<Arc<dyn Clock>>) -> Digest {
    let mut builder = Runtime::builder(dir).iterations(5);
    if let Some(clock) = clock {
        builder = builder.clock(clock);
    }
    let runtime = builder.start_blocking().unwrap();
    let outcome = runtime.wait_blocking(Goal::Iterations, &Cancel::default(), |_| {}).unwrap();
    assert_eq!(outcome, WaitOutcome::Reached);
    runtime.shutdown_blocking();
    assert_eq!(Folder::at(dir).verify_log().unwrap().first_error, None);
    state_digest(&Folder::at(dir).read_log().unwrap()).unwrap()
}

#[test]
fn a_run_ends_in_the_same_state_under_any_clock() {
    let _alone = alone();
    let (three, root) = (whole().dir(), tempfile::tempdir().unwrap());
    let calm = state_after(&copied(&three, &root.path().join("calm")), None);
    let jumping = copied(&three, &root.path().join("jumping"));
    assert_eq!(state_after(&jumping, Some(Jumping::new(1))), calm);
}
