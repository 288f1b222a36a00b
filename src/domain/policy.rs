//! The weights that act, by name.

use super::id::{BlobHash, PolicyId};
use serde::{Deserialize, Serialize};

/// Immutable weights: a safetensors blob, and a LoRA adapter on top where one was trained. All that
/// it takes to be itself: no setting changes what a policy says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The full weights (Hugging Face tensor names, safetensors).
    pub weights: BlobHash,
    /// The adapter, if any.
    pub adapter: Option<AdapterRef>,
}

/// A trained adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "AnyAdapter")]
pub struct AdapterRef {
    /// Its tensors (PEFT names, safetensors).
    pub weights: BlobHash,
    /// What PEFT keeps beside them; not in records of schema 1, where the run's settings said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<AdapterShape>,
}

/// What PEFT's `adapter_config.json` says of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterShape {
    /// Rank.
    pub r: u32,
    /// The term is scaled by alpha / r.
    pub alpha: f64,
    /// Last part of the names of the layers that have one, such as `q_proj`.
    pub target_modules: Vec<String>,
}

/// Schema 1 wrote an adapter as the hash of its tensors.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyAdapter {
    Of1(BlobHash),
    Whole {
        weights: BlobHash,
        #[serde(default)]
        shape: Option<AdapterShape>,
    },
}

impl From<AnyAdapter> for AdapterRef {
    fn from(any: AnyAdapter) -> AdapterRef {
        match any {
            AnyAdapter::Of1(weights) => AdapterRef { weights, shape: None },
            AnyAdapter::Whole { weights, shape } => AdapterRef { weights, shape },
        }
    }
}

impl PolicyRef {
    /// Full weights without an adapter.
    pub fn full(weights: BlobHash) -> PolicyRef {
        PolicyRef { weights, adapter: None }
    }

    /// The blobs it consists of.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobHash> {
        std::iter::once(&self.weights).chain(self.adapter.iter().map(|adapter| &adapter.weights))
    }

    /// The name of this combination. What an adapter's tensors mean is part of it.
    pub fn id(&self) -> PolicyId {
        let shape = self.adapter.as_ref().and_then(|adapter| adapter.shape.as_ref());
        let version = match shape {
            None => "gradus policy id v1",
            Some(_) => "gradus policy id v2",
        };
        let mut hasher = blake3::Hasher::new_derive_key(version);
        hasher.update(self.weights.as_str().as_bytes());
        if let Some(adapter) = &self.adapter {
            hasher.update(adapter.weights.as_str().as_bytes());
        }
        if let Some(AdapterShape { r, alpha, target_modules }) = shape {
            hasher.update(&r.to_le_bytes()).update(&alpha.to_bits().to_le_bytes());
            for module in target_modules {
                hasher.update(&(module.len() as u64).to_le_bytes()).update(module.as_bytes());
            }
        }
        PolicyId(hasher.finalize().to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(shape: Option<AdapterShape>) -> PolicyRef {
        let adapter = Some(AdapterRef { weights: BlobHash("a".into()), shape });
        PolicyRef { weights: BlobHash("w".into()), adapter }
    }

    #[test]
    fn an_adapter_is_what_its_shape_makes_of_it() {
        let shape = |r, alpha, module: &str| {
            adapter(Some(AdapterShape { r, alpha, target_modules: vec![module.to_owned()] })).id()
        };
        let all = [
            PolicyRef::full(BlobHash("w".into())).id(),
            adapter(None).id(),
            shape(16, 32.0, "q_proj"),
            shape(16, 3200.0, "q_proj"),
            shape(8, 32.0, "q_proj"),
            shape(16, 32.0, "v_proj"),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn schema_1_wrote_an_adapter_as_a_hash() {
        let of_1: PolicyRef = serde_json::from_str(r#"{"weights":"w","adapter":"a"}"#).unwrap();
        assert_eq!(of_1, adapter(None));
        let text = serde_json::to_string(&of_1).unwrap();
        assert_eq!(serde_json::from_str::<PolicyRef>(&text).unwrap(), of_1);
    }
}
