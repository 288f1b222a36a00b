//! What kernels read and write in structures; their twins are in `cuda/types.cuh`.

/// Query rows times heads of a group that a [`Tile`] may have.
pub const TILE_QUERIES: u32 = 64;

/// Key rows that a [`KeyTile`] may have.
pub const KEY_TILE: u32 = 64;

/// Consecutive query rows of attention and what they see: row `row + r` sees the keys and values
/// `keys[keys_at..keys_at + seen + r]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    /// The first query row.
    pub row: u32,
    /// Query rows; times the query heads of a key head at most [`TILE_QUERIES`].
    pub rows: u32,
    /// Where its list of key rows begins.
    pub keys_at: u32,
    /// Keys that the first row sees.
    pub seen: u32,
}

/// Consecutive key rows and the query rows that see them: key row `k` is seen by `k..until`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyTile {
    /// The first key row.
    pub row: u32,
    /// Key rows; at most [`KEY_TILE`].
    pub rows: u32,
    /// The query row behind the last that sees them.
    pub until: u32,
    /// Nothing.
    pub pad: u32,
}

/// How a token of a row is chosen: `lm::generate::Sampling` as the kernel wants it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Choice {
    /// In [0, 1): where in the distribution.
    pub unit: f64,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// 0 keeps all.
    pub top_k: u32,
}

/// What was chosen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chosen {
    /// Log-probability of the token under the unmodified logits.
    pub logp: f64,
    /// The token.
    pub id: u32,
    /// 1 + the lowest id whose logit is not a number; 0 where all are numbers.
    pub broken: u32,
}
