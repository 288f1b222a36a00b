//! A HANDLE: a door to a run for a host that embeds it. It may be cloned and sent anywhere, holds
//! nothing of the run, and says [`Error::Closed`] once the runtime was shut down.
//!
//! What may wait for the disk or compute is `async` and for any executor: it runs on a thread of its
//! own. The same for callers without one is named `..._blocking`.

use super::background::on_a_thread;
use super::core::Core;
use super::fold::fold;
use super::policies::PolicyChoice;
use super::rubrics::Rubrics;
use super::served::ServedPolicy;
use super::status::Status;
use super::subscription::Subscription;
use super::surface::{Admission, Answer, Command, Query, Reply};
use crate::domain::{Message, Offset, Prompt};
use crate::error::Error;
use crate::view::RunView;
use std::sync::{Arc, Weak};

/// What a host may do with a run.
#[derive(Clone)]
pub struct Handle {
    pub(super) core: Weak<Core>,
    pub(super) tail: tokio::sync::watch::Receiver<Offset>,
}

impl Handle {
    fn core(&self) -> Result<Arc<Core>, Error> {
        self.core.upgrade().ok_or(Error::Closed)
    }

    async fn with<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Core) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let core = self.core()?;
        on_a_thread(move || ask(&core)).await
    }

    /// Does what is asked; it is durable then.
    ///
    /// # Errors
    /// What was wrong with it: nothing is changed then. [`Error::Closed`].
    pub async fn command(&self, command: Command) -> Result<Answer, Error> {
        self.with(move |core| core.carry_out(command)).await
    }

    /// As [`Handle::command`], for callers that may wait.
    ///
    /// # Errors
    /// As [`Handle::command`].
    pub fn command_blocking(&self, command: Command) -> Result<Answer, Error> {
        self.core()?.carry_out(command)
    }

    /// Tells what is asked.
    ///
    /// # Errors
    /// When the log cannot be read; [`Error::Closed`].
    pub async fn query(&self, query: Query) -> Result<Reply, Error> {
        self.with(move |core| core.tell(&query)).await
    }

    /// As [`Handle::query`], for callers that may wait.
    ///
    /// # Errors
    /// As [`Handle::query`].
    pub fn query_blocking(&self, query: &Query) -> Result<Reply, Error> {
        self.core()?.tell(query)
    }

    /// What the run is doing.
    ///
    /// # Errors
    /// When the log cannot be read; [`Error::Closed`].
    pub async fn status(&self) -> Result<Status, Error> {
        self.with(Core::status).await
    }

    /// As [`Handle::status`], for callers that may wait.
    ///
    /// # Errors
    /// As [`Handle::status`].
    pub fn status_blocking(&self) -> Result<Status, Error> {
        self.core()?.status()
    }

    /// Adds prompts to train on; those the run knows already are left out. So are those that nearly
    /// equal a held-out one, which is recorded ([`crate::domain::Event::PromptRejected`]). A run that
    /// waits for prompts wakes.
    ///
    /// # Errors
    /// When the log cannot be read or written: nothing is added then. [`Error::Closed`].
    pub async fn submit(&self, prompts: Vec<Prompt>) -> Result<Admission, Error> {
        self.with(move |core| core.add_prompts(prompts)).await
    }

    /// As [`Handle::submit`], for callers that may wait.
    ///
    /// # Errors
    /// As [`Handle::submit`]; the caller still has the prompts.
    pub fn submit_blocking(&self, prompts: &[Prompt]) -> Result<Admission, Error> {
        self.core()?.add_prompts(prompts.to_vec())
    }

    /// Takes a chat in as a prompt, where the settings say so (`intake`), redacted as they say; `None`:
    /// it is not taken. It is durable then.
    ///
    /// # Errors
    /// As [`Handle::submit`].
    pub async fn take_in(&self, messages: &[Message]) -> Result<Option<Admission>, Error> {
        if !self.core()?.takes_in() {
            return Ok(None);
        }
        let messages = messages.to_vec();
        self.with(move |core| core.take_in(&messages)).await
    }

    /// Has the run wait: what is drawn or judged is given up and done again later, training is cut at
    /// a step.
    ///
    /// # Errors
    /// When the log cannot be written; [`Error::Closed`].
    pub async fn pause(&self) -> Result<(), Error> {
        self.command(Command::Pause).await.map(drop)
    }

    /// As [`Handle::pause`], for callers that may wait.
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub fn pause_blocking(&self) -> Result<(), Error> {
        self.command_blocking(Command::Pause).map(drop)
    }

    /// Has the run go on, with stages that were halted too.
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.command(Command::Resume).await.map(drop)
    }

    /// As [`Handle::resume`], for callers that may wait.
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub fn resume_blocking(&self) -> Result<(), Error> {
        self.command_blocking(Command::Resume).map(drop)
    }

    /// Lets the policy act again that acted before this one; an open iteration that began with this
    /// one ends.
    ///
    /// # Errors
    /// [`Error::Refused`] where none did; when the log cannot be written; [`Error::Closed`].
    pub async fn roll_back_policy(&self, reason: &str) -> Result<PolicyChoice, Error> {
        let reason = reason.to_owned();
        self.with(move |core| core.roll_back_policy(reason)).await
    }

    /// The run's rubrics: to install, activate and roll back.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn rubrics(&self) -> Result<Rubrics, Error> {
        Ok(self.core()?.rubrics.clone())
    }

    /// What is known now, as far as it is needed to go on: of iterations that are over, what they came
    /// to ([`RunView::past`]). It costs nothing to look, however often and however much there is.
    ///
    /// # Errors
    /// When the log cannot be read; [`Error::Closed`].
    pub fn view(&self) -> Result<Arc<RunView>, Error> {
        self.core()?.view()
    }

    /// Everything that is known now, of all iterations: what reports are made of. It is folded from
    /// the whole log.
    ///
    /// # Errors
    /// When the log cannot be read; [`Error::Closed`].
    pub fn history(&self) -> Result<RunView, Error> {
        fold(self.core()?.log.as_ref())
    }

    /// The policy that acts, ready to answer: serve it until
    /// [`crate::domain::Event::CheckpointPromoted`] or [`crate::domain::Event::PolicyChosen`] names
    /// another. It goes on answering after that, and after the runtime was shut down.
    ///
    /// # Errors
    /// When its weights are missing or damaged; [`Error::Closed`].
    pub async fn policy(&self) -> Result<ServedPolicy, Error> {
        self.policy_named("latest").await
    }

    /// A policy of the run, ready to answer: `latest`, `base`, `M2`, or the beginning of its hash.
    ///
    /// # Errors
    /// When there is none of that name; as [`Handle::policy`].
    pub async fn policy_named(&self, wanted: &str) -> Result<ServedPolicy, Error> {
        let wanted = wanted.to_owned();
        self.with(move |core| core.policy(&wanted)).await
    }

    /// Answers to callers that wait for their first token, and those that are being drawn.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn answering(&self) -> Result<(usize, usize), Error> {
        Ok(self.core()?.answering())
    }

    /// As [`Handle::policy`], for callers that may wait.
    ///
    /// # Errors
    /// As [`Handle::policy`].
    pub fn policy_blocking(&self) -> Result<ServedPolicy, Error> {
        self.core()?.policy("latest")
    }

    /// Reads the log from an offset on, and waits for what is to come.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn subscribe(&self, from: Offset) -> Result<Subscription, Error> {
        self.core()?;
        Ok(Subscription::new(self.core.clone(), self.tail.clone(), from))
    }
}
