//! What a host may do with a run while it works.

use super::rubrics::{self, Rubrics};
use super::{Subscription, held_out};
use crate::domain::plan::Engine;
use crate::domain::{Event, Offset, PolicyRef, Prompt, PromptId, PromptOrigin};
use crate::error::Error;
use crate::log::{Appended, Batch, Log};
use crate::stage::candle_workshop::CandleWorkshop;
use crate::view::RunView;
use std::sync::{Arc, Mutex};

/// What a host may do with a run.
#[derive(Clone)]
pub struct Handle {
    pub(super) log: Arc<dyn Log>,
    pub(super) workshop: Arc<CandleWorkshop>,
    pub(super) engine: Engine,
    pub(super) view: Arc<Mutex<RunView>>,
    pub(super) rubrics: Rubrics,
}

impl Handle {
    /// The run's rubrics: to install, activate and roll back.
    pub fn rubrics(&self) -> &Rubrics {
        &self.rubrics
    }

    /// Everything that is known now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn view(&self) -> Result<RunView, Error> {
        rubrics::known(&self.view, self.log.as_ref())
    }

    fn append(&self, events: Vec<Event>) -> Result<Offset, Error> {
        match self.log.append(Batch { key: None, events, cursor: None })? {
            Appended::New { first, .. } | Appended::Duplicate { first } => Ok(first),
        }
    }

    /// Adds prompts to train on; those the run knows already are left out. So are those that nearly
    /// equal a held-out one, which is recorded ([`Event::PromptRejected`]). Gives the ids of the new
    /// ones.
    ///
    /// # Errors
    /// When the log cannot be read or written; the prompts are not lost, the caller still has them.
    pub fn submit(&self, prompts: &[Prompt]) -> Result<Vec<PromptId>, Error> {
        let view = self.view()?;
        let mut new: Vec<Prompt> = Vec::new();
        for prompt in prompts {
            if !view.prompts.contains_key(&prompt.id) && !new.iter().any(|p| p.id == prompt.id) {
                new.push(prompt.clone());
            }
        }
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let held = held_out::index(self.log.as_ref(), &view)?;
        let is_held = |prompt: &Prompt| held.in_chat(&prompt.messages).is_some();
        let (refused, new): (Vec<_>, Vec<_>) = new
            .into_iter()
            .partition(|prompt| prompt.origin != PromptOrigin::HeldOut && is_held(prompt));
        let admitted = new.iter().map(|p| Event::PromptAdmitted { prompt: p.clone() });
        let refused = refused.iter().map(|prompt| Event::PromptRejected {
            text: prompt.task_text().to_owned(),
            reason: "nearly equals a held-out prompt, which is measured on".to_owned(),
        });
        self.append(admitted.chain(refused).collect())?;
        Ok(new.into_iter().map(|p| p.id).collect())
    }

    /// Asks all stages to finish their task and wait.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn pause(&self) -> Result<Offset, Error> {
        self.append(vec![Event::PauseRequested])
    }

    /// Asks all stages to go on.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn resume(&self) -> Result<Offset, Error> {
        self.append(vec![Event::ResumeRequested])
    }

    /// The promoted policy, opened: serve it until [`Event::CheckpointPromoted`] names another.
    ///
    /// # Errors
    /// When its blobs are missing or damaged.
    pub fn policy(&self) -> Result<(PolicyRef, Arc<crate::lm::policy::Policy>), Error> {
        let view = self.view()?;
        let policy =
            view.policy.ok_or_else(|| Error::Usage("the run has no policy yet".to_owned()))?;
        let opened = self.workshop.open(&policy, &self.engine)?;
        Ok((policy, opened))
    }

    /// Reads the log from an offset on, waiting for what is to come.
    pub fn subscribe(&self, from: Offset) -> Subscription {
        Subscription::from(&self.log, from)
    }
}
