//! The view of a running run, folded once for everybody who looks: stages, hosts, screens. Each gets
//! what is known as it is then, and holds it as long as he likes.

use super::{FOLD_RECORDS, RunView};
use crate::log::{Log, LogError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known, for many readers.
#[derive(Default)]
pub struct LiveView(Mutex<Arc<RunView>>);

/// What somebody saw.
#[derive(Clone, Debug)]
pub struct Look {
    /// What is known.
    pub view: Arc<RunView>,
    /// Whether the log has more.
    pub more: bool,
}

impl LiveView {
    /// Goes on from what is known already.
    pub fn new(view: RunView) -> LiveView {
        LiveView(Mutex::new(Arc::new(view)))
    }

    fn lock(&self) -> MutexGuard<'_, Arc<RunView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was known when somebody looked last.
    pub fn last(&self) -> Arc<RunView> {
        self.lock().clone()
    }

    /// What is known after up to `max` further records.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn look(&self, log: &dyn Log, max: usize) -> Result<Look, LogError> {
        let mut view = self.lock();
        if view.next < log.tail() {
            Arc::make_mut(&mut view).follow(log, max, |_| {})?;
        }
        Ok(Look { view: view.clone(), more: view.next < log.tail() })
    }

    /// Everything that is known now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn known(&self, log: &dyn Log) -> Result<Arc<RunView>, LogError> {
        loop {
            let Look { view, more } = self.look(log, FOLD_RECORDS)?;
            if !more {
                return Ok(view);
            }
        }
    }
}
