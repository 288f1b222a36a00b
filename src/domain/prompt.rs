//! What is asked.

use super::id::PromptId;
pub use crate::lm::chat::{Message, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a prompt came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PromptOrigin {
    /// A file or a host gave it.
    Given,
    /// The model wrote it (self-instruct).
    Generated,
    /// Shown when the model writes new prompts; not answered in the loop.
    Demonstration,
    /// Never trained on; used to evaluate.
    HeldOut,
}

/// What is asked: the turns up to the one the model is to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Derived from the messages.
    pub id: PromptId,
    /// The turns; the last is the person's.
    pub messages: Vec<Message>,
    /// Where it came from.
    pub origin: PromptOrigin,
    /// Of prompts that wait, those of a higher one are answered first; 0 is the usual.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub priority: i32,
    /// What only rubrics see of it.
    #[serde(default, flatten)]
    pub notes: Notes,
}

fn is_usual(priority: &i32) -> bool {
    *priority == 0
}

/// What comes with a prompt for the rubrics that judge its answers; the policy sees none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// A known good answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Which rubrics are for it (see [`super::panel::PanelMember`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Anything else a rubric asks for, by name: criteria, constraints to check.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

impl PromptId {
    /// The id of a prompt with these turns.
    pub fn of(messages: &[Message]) -> PromptId {
        let mut hasher = blake3::Hasher::new_derive_key("gradus prompt id v1");
        for message in messages {
            hasher.update(message.role.as_str().as_bytes());
            hasher.update(&(message.content.len() as u64).to_le_bytes());
            hasher.update(message.content.as_bytes());
        }
        let hex = hasher.finalize().to_hex();
        let short: String = hex.chars().take(16).collect();
        PromptId(format!("p-{short}"))
    }
}

impl Prompt {
    /// Builds a prompt; its id is the hash of its messages, so the same text is the same prompt.
    pub fn new(messages: Vec<Message>, origin: PromptOrigin) -> Prompt {
        let id = PromptId::of(&messages);
        Prompt { id, messages, origin, priority: 0, notes: Notes::default() }
    }

    /// The same with a priority, which is no part of its id.
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Prompt {
        self.priority = priority;
        self
    }

    /// The same with notes for rubrics. They are no part of its id.
    #[must_use]
    pub fn noted(mut self, notes: Notes) -> Prompt {
        self.notes = notes;
        self
    }

    /// A prompt of one user turn.
    pub fn user(text: impl Into<String>, origin: PromptOrigin) -> Prompt {
        Prompt::new(vec![Message::user(text)], origin)
    }

    /// The turns before the last user's, as `user: ...` lines: what a rubric sees around the task.
    pub fn context(&self) -> Option<String> {
        let last = self.messages.iter().rposition(|m| m.role == Role::User)?;
        let before = self.messages.get(..last).filter(|turns| !turns.is_empty())?;
        let lines = before.iter().map(|m| format!("{}: {}", m.role.as_str(), m.content));
        Some(lines.collect::<Vec<_>>().join("\n\n"))
    }

    /// The last user turn: what a rubric sees as the task.
    pub fn task_text(&self) -> &str {
        self.messages.iter().rev().find(|m| m.role == Role::User).map_or("", |m| &m.content)
    }
}
