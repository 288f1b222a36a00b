//! Derived randomness. There is no global generator: every draw has an address, and its seed is a
//! hash of that address, so a task that is done again after a crash draws the same numbers.

use serde::{Deserialize, Serialize};

/// Key of one ChaCha8 stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// The root of a run, from the number a person types.
    pub fn root(run_seed: u64) -> Seed {
        Seed(blake3::derive_key("gradus run seed v1", &run_seed.to_le_bytes()))
    }

    /// The seed of a part: `root.derive("sampler").derive("p-12").index(3)`.
    pub fn derive(&self, label: &str) -> Seed {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"label");
        hasher.update(label.as_bytes());
        Seed(*hasher.finalize().as_bytes())
    }

    /// The seed of the n-th of several.
    pub fn index(&self, n: u64) -> Seed {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"index");
        hasher.update(&n.to_le_bytes());
        Seed(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_indices_address_different_streams() {
        let root = Seed::root(1);
        assert_ne!(root.derive("a"), root.derive("b"));
        assert_ne!(root.index(0), root.index(1));
        assert_ne!(root.derive("0"), root.index(0));
        assert_eq!(root.derive("a").index(2), Seed::root(1).derive("a").index(2));
    }
}
