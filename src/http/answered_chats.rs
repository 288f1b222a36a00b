//! WHAT WAS ANSWERED LATELY, so that a vote needs no more than its id. Kept in memory alone, and the
//! oldest is forgotten first: what is not voted on leaves no trace.

use crate::domain::{Message, PolicyRef};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes of texts that are remembered.
const BYTES_MAX: usize = 64 << 20;

/// A conversation that was answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AnsweredChat {
    /// The turns before the answers.
    pub messages: Vec<Message>,
    /// What the policy is called.
    pub model: String,
    /// Its weights.
    pub policy: PolicyRef,
    /// What was answered, in order.
    pub answers: Vec<String>,
}

impl AnsweredChat {
    fn bytes(&self) -> usize {
        let turns = self.messages.iter().map(|message| message.content.len());
        turns.chain(self.answers.iter().map(String::len)).sum()
    }
}

/// Answered chats by id.
pub(super) struct AnsweredChats {
    most: usize,
    bytes: usize,
    by_id: HashMap<String, Arc<AnsweredChat>>,
    oldest: VecDeque<String>,
}

impl AnsweredChats {
    /// Remembers so many.
    pub fn new(most: usize) -> AnsweredChats {
        AnsweredChats { most, bytes: 0, by_id: HashMap::new(), oldest: VecDeque::new() }
    }

    /// Remembers one; ids are never used twice.
    pub fn add(&mut self, id: String, conversation: AnsweredChat) {
        self.bytes += conversation.bytes();
        self.by_id.insert(id.clone(), Arc::new(conversation));
        self.oldest.push_back(id);
        while self.oldest.len() > self.most || self.bytes > BYTES_MAX {
            let Some(id) = self.oldest.pop_front() else { return };
            let gone = self.by_id.remove(&id);
            self.bytes -= gone.map_or(0, |gone| gone.bytes());
        }
    }

    /// The one with an id, if it is remembered.
    pub fn get(&self, id: &str) -> Option<Arc<AnsweredChat>> {
        self.by_id.get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BlobHash;

    fn said(text: &str) -> AnsweredChat {
        AnsweredChat {
            messages: vec![Message::user("a")],
            model: "M1".to_owned(),
            policy: PolicyRef::full(BlobHash("ab".repeat(32))),
            answers: vec![text.to_owned()],
        }
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut all = AnsweredChats::new(2);
        for id in ["a", "b", "c"] {
            all.add(id.to_owned(), said(id));
        }
        assert!(all.get("a").is_none() && all.get("b").is_some());
        assert_eq!(
            (all.get("c").unwrap().answers.as_slice(), all.bytes),
            (&["c".to_owned()][..], 4)
        );
        all.add("large".to_owned(), said(&"x".repeat(BYTES_MAX)));
        assert_eq!((all.by_id.len(), all.bytes), (0, 0), "more than there is room for");
    }
}
