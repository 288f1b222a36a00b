//! WHO COMES FIRST: computations that somebody waits for, and those behind them that give way at the
//! next token or micro-batch. Those behind are slowed down and not stopped: for every part of a second
//! that they computed they wait four at most, so that a machine that is asked all the time learns still.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much longer than it computed something waits.
const WAITS_FOR_EACH: u32 = 4;
/// Waiting is worth it from here on.
const WAIT_MIN: Duration = Duration::from_millis(20);
/// One wait ends by then: whoever looks for signs of life sees one.
const WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct ForegroundState {
    /// Computations that somebody waits for.
    busy: Mutex<usize>,
    free: Condvar,
}

/// Shared between those that come first and those that give way.
#[derive(Clone, Debug, Default)]
pub struct Foreground(Arc<ForegroundState>);

/// Something that somebody waits for, as long as it lives.
#[derive(Debug)]
pub struct InForeground(Foreground);

impl Foreground {
    /// Somebody waits from here on.
    pub fn enter(&self) -> InForeground {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        InForeground(self.clone())
    }

    /// Waits while somebody comes first; `since` is when the last wait ended. Gives when this one did.
    fn give_way(&self, since: Instant) -> Instant {
        let busy = self.0.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if *busy == 0 {
            return Instant::now();
        }
        let most = (since.elapsed() * WAITS_FOR_EACH).clamp(WAIT_MIN, WAIT_MAX);
        drop(self.0.free.wait_timeout_while(busy, most, |busy| *busy > 0));
        Instant::now()
    }
}

impl Drop for InForeground {
    fn drop(&mut self) {
        let state = &self.0.0;
        let mut busy = state.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = busy.saturating_sub(1);
        if *busy == 0 {
            state.free.notify_all();
        }
    }
}

/// What a computation that gives way knows of it.
#[derive(Debug)]
pub(crate) struct GivesWay {
    to: Foreground,
    since: Mutex<Instant>,
}

impl GivesWay {
    pub fn to(foreground: &Foreground) -> GivesWay {
        GivesWay { to: foreground.clone(), since: Mutex::new(Instant::now()) }
    }

    /// The same for a part of it, from now on.
    pub fn anew(&self) -> GivesWay {
        GivesWay::to(&self.to)
    }

    /// Waits, where somebody comes first.
    pub fn wait(&self) {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.to.give_way(since);
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_while_somebody_comes_first_and_not_longer_than_its_share() {
        let foreground = Foreground::default();
        let behind = GivesWay::to(&foreground);
        let started = Instant::now();
        behind.wait();
        assert!(started.elapsed() < WAIT_MIN, "nobody is there: it goes on at once");
        let first = foreground.enter();
        let started = Instant::now();
        behind.wait();
        assert!(started.elapsed() >= WAIT_MIN, "it waits, and then has its turn all the same");
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            drop(first);
        });
        *behind.since.lock().unwrap() = Instant::now().checked_sub(WAIT_MAX).unwrap();
        let started = Instant::now();
        behind.wait();
        assert!(started.elapsed() < WAIT_MAX, "whoever was waited for is done");
        ends.join().unwrap();
    }
}
