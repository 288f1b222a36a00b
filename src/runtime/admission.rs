//! ADMISSION: which of the prompts that come in while a run works are new, and may be trained on. What
//! they are compared with is read once, and kept up to date from then on.

use super::held_out;
use super::surface::Admission;
use crate::domain::{Event, Prompt, PromptId, PromptOrigin};
use crate::error::Error;
use crate::log::{Batch, Log};
use crate::prompts::held_out::HeldOut;
use crate::view::{LiveView, RunView};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The run's held-out prompts, ready to be looked for, as far as they were needed.
#[derive(Default)]
pub(super) struct AdmissionIndex(Mutex<HeldOutKnown>);

#[derive(Default)]
struct HeldOutKnown {
    index: HeldOut,
    ids: BTreeSet<PromptId>,
}

impl HeldOutKnown {
    /// Reads the held-out prompts that are new since the last time.
    fn catch_up(&mut self, view: &RunView, log: &dyn Log) -> Result<(), Error> {
        // They become more, and never fewer.
        if self.ids.len() == view.never_trained_on_count() {
            return Ok(());
        }
        for (id, facts) in view.never_trained_on() {
            if !self.ids.contains(id) {
                self.index.add(&held_out::admitted(log, id, facts.offset)?);
                self.ids.insert(id.clone());
            }
        }
        Ok(())
    }

    fn holds(&self, prompt: &Prompt) -> bool {
        let trained_on = prompt.origin != PromptOrigin::HeldOut;
        trained_on && self.index.in_chat(&prompt.messages).is_some()
    }
}

impl AdmissionIndex {
    /// Records the prompts that are new. Those the run knows already are left out. So are those that
    /// nearly equal a held-out one, which is recorded ([`Event::PromptRejected`]).
    ///
    /// # Errors
    /// When the log cannot be read or written: nothing is added then.
    pub fn admit(
        &self,
        prompts: Vec<Prompt>,
        live: &LiveView,
        log: &dyn Log,
    ) -> Result<Admission, Error> {
        // One at a time, so that of a prompt that is brought twice one is new.
        let mut held_out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let view = live.known(log)?;
        let (mut done, mut seen, mut new) = (Admission::default(), BTreeSet::new(), Vec::new());
        for prompt in prompts {
            match view.prompts.contains_key(&prompt.id) || !seen.insert(prompt.id.clone()) {
                true => done.known.push(prompt.id),
                false => new.push(prompt),
            }
        }
        if new.is_empty() {
            return Ok(done);
        }
        held_out.catch_up(&view, log)?;
        let mut events = Vec::with_capacity(new.len());
        for prompt in new {
            if held_out.holds(&prompt) {
                let reason = "nearly equals a held-out prompt, which is measured on".to_owned();
                let text = prompt.task_text().to_owned();
                events.push(Event::PromptRejected { text, reason: reason.clone() });
                done.refused.push((prompt.id, reason));
            } else {
                done.admitted.push(prompt.id.clone());
                events.push(Event::PromptAdmitted { prompt });
            }
        }
        log.append(Batch { key: None, events, cursor: None })?;
        Ok(done)
    }
}
