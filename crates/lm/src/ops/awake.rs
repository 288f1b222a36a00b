//! Keeps threads from falling asleep between two pieces of work. A network is hundreds of short
//! products one after another; a thread that goes to sleep between two of them costs its wake-up
//! each time, which takes longer than a small product (docs/performance.md).

use rayon::Yield;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Nobody waits longer than this for work. (Two pieces of work on the same threads may wait for each
/// other: each is then held up so long, and not for ever.)
const PATIENCE: Duration = Duration::from_millis(1);

/// Looks for work between two looks at the clock.
const LOOKS: u32 = 64;

/// Ends the wait of the others, also when what they were kept awake for panics.
struct DoneOnDrop<'a>(&'a AtomicBool);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `f` on a thread of the current pool; its other threads look for work without pause until
/// `f` is done or there has been none for a millisecond. Nothing depends on it but time.
pub(crate) fn awake<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let over = AtomicBool::new(false);
    rayon::scope(|scope| {
        let _over = DoneOnDrop(&over);
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| stand_by(&over));
        }
        f()
    })
}

fn stand_by(over: &AtomicBool) {
    let mut since = Instant::now();
    while since.elapsed() < PATIENCE {
        for _ in 0..LOOKS {
            if over.load(Ordering::Acquire) {
                return;
            }
            match rayon::yield_now() {
                Some(Yield::Executed) => since = Instant::now(),
                _ => spin_loop(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn pool() -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
    }

    #[test]
    fn work_is_shared_and_its_result_comes_back() {
        let sum = |from: u64| (from..from + 1000).into_par_iter().map(|x| x * x).sum::<u64>();
        let pool = pool();
        let sums = pool.install(|| awake(|| [sum(0), awake(|| sum(7))]));
        assert_eq!(sums, [sum(0), sum(7)]);
    }

    /// Two at the same time take each other's waiting threads for their own work.
    #[test]
    fn many_at_once_come_to_an_end() {
        let pool = pool();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let count = || (0..64).into_par_iter().map(|_| 1).sum::<u32>();
                        assert_eq!(pool.install(|| awake(|| count() + count())), 128);
                    }
                });
            }
        });
    }

    #[test]
    #[should_panic(expected = "it fails")]
    fn a_panic_ends_the_wait() {
        pool().install(|| awake(|| panic!("it fails")));
    }
}
