//! What every request sees of the run.

use super::access::HttpAccess;
use super::answered_chats::AnsweredChats;
use super::failure::Failure;
use super::metrics::Requests;
use crate::error::{Code, Error};
use crate::runtime::{Handle, ServedPolicy};
use std::sync::{Arc, Mutex};

/// How a run is served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpSettings {
    /// Who may do what.
    pub access: HttpAccess,
    /// Answers that are drawn or wait at the same time; beyond them a request is told to come again.
    pub answers_max: usize,
    /// Chats that are remembered, so that votes can be given on them.
    pub remembered_max: usize,
}

impl HttpSettings {
    /// For these callers, with bounds that a small machine keeps.
    pub fn new(access: HttpAccess) -> HttpSettings {
        HttpSettings { access, answers_max: 512, remembered_max: 4096 }
    }

    /// So many answers at the same time.
    #[must_use]
    pub fn answers_max(self, answers_max: usize) -> HttpSettings {
        HttpSettings { answers_max, ..self }
    }
}

/// Shared by all requests.
pub(super) struct HttpState {
    pub handle: Handle,
    pub settings: HttpSettings,
    pub answered_chats: Mutex<AnsweredChats>,
    pub requests: Requests,
}

pub(super) type HttpShared = Arc<HttpState>;

impl HttpState {
    pub fn new(handle: Handle, settings: HttpSettings) -> HttpShared {
        let answered_chats = Mutex::new(AnsweredChats::new(settings.remembered_max));
        Arc::new(HttpState { handle, settings, answered_chats, requests: Requests::default() })
    }

    /// A policy that has room for so many more answers.
    pub async fn policy(&self, wanted: &str, answers: usize) -> Result<ServedPolicy, Failure> {
        let policy = self.handle.policy_named(wanted).await?;
        let (waiting, drawing) = self.handle.answering()?;
        if waiting + drawing + answers > self.settings.answers_max {
            return Err(Failure::from(Error::refused(
                Code::TooManyAnswers,
                format!(
                    "{waiting} answers wait and {drawing} are drawn at this moment, and {} are taken \
                     at most: come again in a moment",
                    self.settings.answers_max
                ),
            )));
        }
        Ok(policy)
    }
}
