//! Choices from a derived stream.

use crate::domain::Seed;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A seeded source of small choices.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of a seed.
    pub fn new(seed: Seed) -> Dice {
        Dice(ChaCha8Rng::from_seed(seed.0))
    }

    /// A number in `from..=to`.
    pub fn range(&mut self, from: usize, to: usize) -> usize {
        let span = to.saturating_sub(from) as u64 + 1;
        from + ((u128::from(self.0.next_u64()) * u128::from(span)) >> 64) as usize
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// The index of a weight, drawn in proportion.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (at, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return at;
            }
        }
        weights.len().saturating_sub(1)
    }

    /// One of the words; the empty word of an empty list.
    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        if from.is_empty() {
            return "";
        }
        let at = self.range(0, from.len() - 1);
        from.get(at).copied().unwrap_or_default()
    }

    /// The items in a random order.
    pub fn shuffled<T: Clone>(&mut self, items: &[T]) -> Vec<T> {
        let mut all = items.to_vec();
        for last in (1..all.len()).rev() {
            let at = self.range(0, last);
            all.swap(last, at);
        }
        all
    }

    /// `n` different ones of the words, in random order.
    pub fn some<'a>(&mut self, from: &[&'a str], n: usize) -> Vec<&'a str> {
        let mut all = self.shuffled(from);
        all.truncate(n);
        all
    }
}
