//! The weights that act, by name.

use super::id::{BlobHash, PolicyId};
use serde::{Deserialize, Serialize};

/// Immutable weights: a safetensors blob, and a LoRA adapter on top where one was trained.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The full weights (Hugging Face tensor names, safetensors).
    pub weights: BlobHash,
    /// The adapter (PEFT tensor names, safetensors), if any.
    pub adapter: Option<BlobHash>,
}

impl PolicyRef {
    /// The blobs it consists of.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobHash> {
        std::iter::once(&self.weights).chain(&self.adapter)
    }

    /// The name of this combination.
    pub fn id(&self) -> PolicyId {
        let mut hasher = blake3::Hasher::new_derive_key("gradus policy id v1");
        hasher.update(self.weights.as_str().as_bytes());
        if let Some(adapter) = &self.adapter {
            hasher.update(adapter.as_str().as_bytes());
        }
        PolicyId(hasher.finalize().to_hex().to_string())
    }
}
