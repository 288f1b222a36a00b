//! Everything random in a test comes from one number, which the test prints when it fails:
//! `GRADUS_TEST_SEED=n` replays it, `GRADUS_TEST_SCALE=n` tries n times as many.

use std::sync::atomic::{AtomicU64, Ordering};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// How many times as much as usual to try.
pub fn scale() -> u64 {
    number("GRADUS_TEST_SCALE").unwrap_or(1)
}

/// The seed to replay.
pub fn chosen_seed() -> Option<u64> {
    number("GRADUS_TEST_SEED")
}

/// Says which seed it was when a check of it fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0} failed; GRADUS_TEST_SEED={0} replays it", self.0);
        }
    }
}

/// Calls `one` with each seed from 1 to `seeds`, on as many threads as there are cores; each seed
/// has one thread. True when all seeds were run, not one that a person wants to see again.
pub fn with_seeds(seeds: u64, one: impl Fn(u64) + Sync) -> bool {
    if let Some(seed) = chosen_seed() {
        let _named = Named(seed);
        one(seed);
        return false;
    }
    let seeds = seeds * scale();
    let next = AtomicU64::new(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    let _named = Named(seed);
                    one(seed);
                }
            });
        }
    });
    true
}

/// A splitmix64 stream.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A number from `low` to `high`, both included.
    pub fn from(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(u64::from(high - low) + 1) as u32
    }
}

/// BLAKE3 over parts with their lengths.
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// A number below `n` from eight bytes of a hash.
pub fn share(hash: &[u8; 32], at: usize, n: u64) -> u64 {
    u64::from_le_bytes(hash[at..at + 8].try_into().unwrap()) % n
}
