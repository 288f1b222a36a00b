//! VOTES: what people say of answers. Of answers of the loop and of chats alike; each stands for itself,
//! with the conversation that it is about, so that it can be read when nothing else is left of it.

use super::{Message, PolicyRef};
use serde::{Deserialize, Serialize};

/// An answer that somebody voted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VotedAnswer {
    /// What was said.
    pub text: String,
    /// The policy that said it, where that is known: `M2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its weights, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
}

/// What is said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VoteVerdict {
    /// It is good.
    Good,
    /// It is bad.
    Bad,
    /// It is better than another to the same conversation.
    Better {
        /// The other.
        than: VotedAnswer,
    },
    /// This should have been said.
    Corrected {
        /// The correction.
        text: String,
    },
    /// Only words.
    Commented,
}

impl VoteVerdict {
    /// Its name, as in records.
    pub fn as_str(&self) -> &'static str {
        match self {
            VoteVerdict::Good => "good",
            VoteVerdict::Bad => "bad",
            VoteVerdict::Better { .. } => "better",
            VoteVerdict::Corrected { .. } => "corrected",
            VoteVerdict::Commented => "commented",
        }
    }
}

/// What somebody says of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// The turns before the answer.
    pub messages: Vec<Message>,
    /// The answer.
    pub answer: VotedAnswer,
    /// What is said of it.
    pub verdict: VoteVerdict,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Who says it, as a host calls people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The answer's id where it was served: `chatcmpl-...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
}

/// How many votes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteCounts {
    /// [`VoteVerdict::Good`].
    pub good: u64,
    /// [`VoteVerdict::Bad`].
    pub bad: u64,
    /// [`VoteVerdict::Better`].
    pub better: u64,
    /// [`VoteVerdict::Corrected`].
    pub corrected: u64,
    /// [`VoteVerdict::Commented`].
    pub commented: u64,
}

impl VoteCounts {
    /// One more.
    pub fn add(&mut self, verdict: &VoteVerdict) {
        let count = match verdict {
            VoteVerdict::Good => &mut self.good,
            VoteVerdict::Bad => &mut self.bad,
            VoteVerdict::Better { .. } => &mut self.better,
            VoteVerdict::Corrected { .. } => &mut self.corrected,
            VoteVerdict::Commented => &mut self.commented,
        };
        *count += 1;
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        let VoteCounts { good, bad, better, corrected, commented } = self;
        good + bad + better + corrected + commented
    }
}
