//! Attention of one token over the positions before it, along a chain of cache nodes. The result
//! does not depend on how the positions are divided into nodes.

use super::cache::Cache;
use super::network::Row;

/// Numbers of heads and their width.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads.
    pub keys: usize,
    /// Width of a head.
    pub dim: usize,
}

/// Dot product in eight lanes that the compiler turns into vector instructions; the order of
/// additions is fixed.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_parts, b_parts) = (left.chunks_exact(8), right.chunks_exact(8));
    let rest: f32 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_parts.zip(b_parts) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h)) + rest
}

/// Writes to `out` [query heads × D] what the row with `queries` [query heads × D] sees at its own
/// and all earlier positions.
pub(super) fn attend(
    heads: Heads,
    cache: &Cache,
    layer: usize,
    row: &Row,
    queries: &[f32],
    out: &mut [f32],
) {
    let (dim, group) = (heads.dim, heads.queries / heads.keys);
    let width = heads.keys * dim;
    let positions = row.position + 1;
    let scale = 1.0 / (dim as f32).sqrt();
    let chain = &cache.node(row.node).chain;
    let mut weights = vec![0.0f32; group * positions];
    for key_head in 0..heads.keys {
        let offset = key_head * dim;
        let query = &queries[key_head * group * dim..(key_head + 1) * group * dim];
        let mut at = 0;
        for &id in chain {
            let node = cache.node(id);
            let count = positions.saturating_sub(node.start).min(node.keys[layer].len() / width);
            for key in node.keys[layer].chunks_exact(width).take(count) {
                let key = &key[offset..offset + dim];
                for (g, query) in query.chunks_exact(dim).enumerate() {
                    weights[g * positions + at] = dot(query, key) * scale;
                }
                at += 1;
            }
        }
        debug_assert_eq!(at, positions);
        weights.chunks_exact_mut(positions).for_each(softmax);
        let out = &mut out[key_head * group * dim..(key_head + 1) * group * dim];
        out.fill(0.0);
        let mut at = 0;
        for &id in chain {
            let node = cache.node(id);
            let count = positions.saturating_sub(node.start).min(node.keys[layer].len() / width);
            for value in node.values[layer].chunks_exact(width).take(count) {
                let value = &value[offset..offset + dim];
                for (g, out) in out.chunks_exact_mut(dim).enumerate() {
                    let weight = weights[g * positions + at];
                    for (o, v) in out.iter_mut().zip(value) {
                        *o += weight * v;
                    }
                }
                at += 1;
            }
        }
    }
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    let scale = 1.0 / sum;
    scores.iter_mut().for_each(|s| *s *= scale);
}
