//! Names of things. Each id is its own type, so that an offset can never be passed for a count
//! nor a prompt id for a rubric id.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 characters, for people.
            pub fn short(&self) -> &str {
                self.0.get(..12).unwrap_or(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// BLAKE3 (64 hex digits) of a file's bytes; the file lies in the blob store under this name.
    BlobHash
);
text_id!(
    /// A prompt: `p-` and the first 16 hex digits of the BLAKE3 of its messages.
    PromptId
);
text_id!(
    /// The weights that act: BLAKE3 over the base's hash and the adapter's.
    PolicyId
);
text_id!(
    /// sha256 (64 hex digits) of a rubric component's bytes.
    RubricId
);
text_id!(
    /// BLAKE3 over everything the result of one task depends on. The log takes a key once.
    TaskKey
);

impl TaskKey {
    /// Hashes the stage's name and the parts the task depends on. Parts are length-prefixed, so
    /// `["ab", "c"]` and `["a", "bc"]` differ.
    pub fn of(stage: &str, parts: &[&[u8]]) -> TaskKey {
        let mut hasher = blake3::Hasher::new_derive_key("gradus task key v1");
        for part in std::iter::once(stage.as_bytes()).chain(parts.iter().copied()) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        TaskKey(hasher.finalize().to_hex().to_string())
    }

    /// The key of a task that does anew what the rollback with this number made void in its
    /// iteration; for none, the key itself. It stands in the open (`<hash>+2`), so that a fold can
    /// tell what was still in hand when a rubric was rolled back.
    #[must_use]
    pub fn after(self, rollback: u32) -> TaskKey {
        match rollback {
            0 => self,
            n => TaskKey(format!("{}+{n}", self.0)),
        }
    }

    /// The last rollback that made void what the task does, as far as it knew; 0 for none.
    pub fn rollback(&self) -> u32 {
        self.0.rsplit_once('+').and_then(|(_, n)| n.parse().ok()).unwrap_or_default()
    }
}

/// One trip from M(t) to M(t+1). 0 is the base (M0); 1 is supervised fine-tuning when there is
/// seed data, and so are those after it until one is promoted; later ones are DPO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Iteration(pub u32);

impl Iteration {
    /// The one after this.
    pub fn next(self) -> Iteration {
        Iteration(self.0 + 1)
    }
}

impl fmt::Display for Iteration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Position of a record in the log, from 0. The *tail* is the first unwritten offset.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_which_rollback_it_knew() {
        let key = TaskKey::of("judge", &[b"x"]);
        assert_eq!((key.clone().after(0), key.rollback()), (key.clone(), 0));
        let later = key.clone().after(12);
        assert_eq!((later.rollback(), later.short()), (12, key.short()));
        assert_eq!(TaskKey("k+".into()).rollback(), 0);
    }
}
