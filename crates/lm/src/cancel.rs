//! A flag that long computations look at: per token, per micro-batch. Looking is also a sign of
//! life, which a supervisor counts; and a computation says there how many tokens it has drawn, for
//! who watches.

use super::error::LmError;
use super::foreground::{Foreground, GivesWay};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug, Default)]
struct CancelState {
    cancelled: AtomicBool,
    abandoned: AtomicBool,
    interrupted: AtomicBool,
    looks: AtomicU64,
    drawn: AtomicU64,
    parent: Option<Cancel>,
    gives_way: Option<GivesWay>,
}

/// Shared between whoever may stop a computation and the computation.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<CancelState>);

impl Cancel {
    /// A flag whose holders give way to what comes first, wherever they [check](Cancel::check) it or
    /// a child of it.
    pub fn behind(foreground: &Foreground) -> Cancel {
        let gives_way = Some(GivesWay::to(foreground));
        Cancel(Arc::new(CancelState { gives_way, ..CancelState::default() }))
    }

    /// A flag for one part of the work: set with this one, or alone.
    pub fn child(&self) -> Cancel {
        let gives_way = self.0.gives_way.as_ref().map(GivesWay::anew);
        let parent = Some(self.clone());
        Cancel(Arc::new(CancelState { parent, gives_way, ..CancelState::default() }))
    }

    /// Asks all holders to stop.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
    }

    /// Asks all holders to stop where what they have done so far can be kept: see
    /// [`Cancel::is_interrupted`].
    pub fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::Release);
    }

    /// Whether somebody asked to stop and to keep what is done so far.
    pub fn is_interrupted(&self) -> bool {
        let parent = self.0.parent.as_ref();
        let cancelled = self.0.cancelled.load(Ordering::Acquire);
        self.0.interrupted.load(Ordering::Acquire)
            && !cancelled
            && !parent.is_some_and(Cancel::is_cancelled)
    }

    /// Gives a computation up that shows no sign of life: nobody waits for it any more.
    pub fn abandon(&self) {
        self.0.abandoned.store(true, Ordering::Release);
        self.cancel();
    }

    /// Whether somebody gave it up.
    pub fn is_abandoned(&self) -> bool {
        self.0.abandoned.load(Ordering::Acquire)
    }

    /// Whether somebody asked to stop, in whatever way.
    pub fn is_cancelled(&self) -> bool {
        self.0.looks.fetch_add(1, Ordering::Relaxed);
        let parent = self.0.parent.as_ref();
        self.0.cancelled.load(Ordering::Acquire)
            || self.0.interrupted.load(Ordering::Acquire)
            || parent.is_some_and(Cancel::is_cancelled)
    }

    /// How often somebody looked.
    pub fn looks(&self) -> u64 {
        self.0.looks.load(Ordering::Relaxed)
    }

    /// Tokens were drawn.
    pub fn note_drawn(&self, tokens: u64) {
        self.0.drawn.fetch_add(tokens, Ordering::Relaxed);
        if let Some(parent) = &self.0.parent {
            parent.note_drawn(tokens);
        }
    }

    /// How many tokens were drawn under this flag and those below it.
    pub fn drawn(&self) -> u64 {
        self.0.drawn.load(Ordering::Relaxed)
    }

    /// Whether both are the same flag.
    pub fn is(&self, other: &Cancel) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// `Err(Cancelled)` once somebody asked. Where others come first it waits for them.
    ///
    /// # Errors
    /// [`LmError::Cancelled`].
    pub fn check(&self) -> Result<(), LmError> {
        if let Some(gives_way) = self.0.gives_way.as_ref().filter(|_| !self.is_cancelled()) {
            gives_way.wait();
        }
        if self.is_cancelled() { Err(LmError::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stops_with_its_parent_or_alone() {
        let parent = Cancel::default();
        let (one, two) = (parent.child(), parent.child());
        one.cancel();
        assert!(one.is_cancelled() && !two.is_cancelled() && !parent.is_cancelled());
        parent.cancel();
        assert!(two.is_cancelled() && !two.is_abandoned());
        assert_eq!((one.looks(), two.looks()), (1, 2));
    }

    #[test]
    fn what_is_drawn_is_counted_up_to_the_top() {
        let parent = Cancel::default();
        let (one, two) = (parent.child(), parent.child());
        one.note_drawn(3);
        two.note_drawn(4);
        assert_eq!((one.drawn(), two.drawn(), parent.drawn()), (3, 4, 7));
        assert_eq!(parent.looks(), 0, "that is no look");
    }

    #[test]
    fn what_is_interrupted_stops_and_keeps_what_is_done_unless_it_is_cancelled() {
        let parent = Cancel::default();
        let task = parent.child();
        task.interrupt();
        assert!(task.is_cancelled() && task.is_interrupted());
        assert!(!parent.is_cancelled() && !parent.is_interrupted());
        parent.cancel();
        assert!(task.is_cancelled() && !task.is_interrupted());
    }
}
