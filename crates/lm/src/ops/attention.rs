//! Causal self-attention over packed rows. Sequences that begin alike lie together as a group: its
//! prefix once, then the branches, each of which sees the prefix and itself. Grouped-query: query
//! head h reads key/value head `h / (heads / kv_heads)`. Probabilities are not kept; the backward
//! pass computes them again from one logarithm per row and head.
//!
//! A group and a key/value head make a task: tasks share no sums, so threads never wait for each
//! other, and the products inside one are matrix products of blocks of rows.

use super::exp::exp;
use super::matmul::{Mat, MatMut, matmul_here};
use super::{folded, wide};
use rayon::prelude::*;
use std::ops::Range;

/// Query rows whose scores are alive at once in a task.
const TILE_ROWS: usize = 64;

/// Sequences with a common beginning, in consecutive rows: the beginning, then each one's rest.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixGroup {
    /// All rows.
    pub rows: Range<usize>,
    /// Rows of the common beginning; all of them where there is one sequence.
    pub prefix: usize,
    /// Rows of each rest.
    pub branches: Vec<usize>,
}

/// Numbers of heads and their width.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads.
    pub keys: usize,
    /// Width of a head.
    pub dim: usize,
}

impl AttentionShape {
    /// Query heads that share a key head.
    pub fn group(self) -> usize {
        self.queries / self.keys
    }

    /// Numbers per row of queries.
    pub fn query_width(self) -> usize {
        self.queries * self.dim
    }

    /// Numbers per row of keys, and of values.
    pub fn key_width(self) -> usize {
        self.keys * self.dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// Some query rows of a group and what they see, in rows from its beginning.
struct QueryTile {
    rows: Range<usize>,
    /// Rows of the prefix that are all seen.
    before: usize,
    /// First row of the own sequence.
    own: usize,
}

impl QueryTile {
    fn seen(&self) -> usize {
        self.before + self.rows.end - self.own
    }

    /// Positions that one of its rows sees.
    fn seen_by(&self, row: usize) -> usize {
        self.before + row + 1 - self.own
    }

    /// The stretches of key rows that are seen, and the column at which each begins.
    fn stretches(&self) -> [(Range<usize>, usize); 2] {
        [(0..self.before, 0), (self.own..self.rows.end, self.before)]
    }
}

impl PrefixGroup {
    fn tiles(&self) -> Vec<QueryTile> {
        let mut tiles = Vec::new();
        let mut from = 0;
        for (at, length) in std::iter::once(&self.prefix).chain(&self.branches).enumerate() {
            let before = if at == 0 { 0 } else { self.prefix };
            for start in (from..from + length).step_by(TILE_ROWS) {
                let rows = start..(start + TILE_ROWS).min(from + length);
                tiles.push(QueryTile { rows, before, own: from });
            }
            from += length;
        }
        tiles
    }
}

/// A group and a key/value head of it.
struct HeadTask<'a> {
    heads: AttentionShape,
    group: &'a PrefixGroup,
    key_head: usize,
}

impl HeadTask<'_> {
    /// Rows `rows` of query head `g` of the group, in a matrix [T, heads * D].
    fn queries<'d>(&self, data: &'d [f32], rows: &Range<usize>, g: usize) -> Mat<'d> {
        let h = self.heads;
        let at = (self.group.rows.start + rows.start) * h.query_width()
            + (self.key_head * h.group() + g) * h.dim;
        Mat::strided(&data[at..], rows.len(), h.dim, h.query_width())
    }

    /// Rows `rows` of the key/value head, in a matrix [T, kv_heads * D].
    fn keys<'d>(&self, data: &'d [f32], rows: &Range<usize>) -> Mat<'d> {
        let h = self.heads;
        let at = (self.group.rows.start + rows.start) * h.key_width() + self.key_head * h.dim;
        Mat::strided(data.get(at..).unwrap_or_default(), rows.len(), h.dim, h.key_width())
    }

    /// `to` [tile, seen] = `left` times the seen rows of `right`, transposed.
    fn scores(&self, tile: &QueryTile, left: Mat<'_>, right: &[f32], scale: f32, to: &mut [f32]) {
        let seen = tile.seen();
        for (rows, column) in tile.stretches() {
            if !rows.is_empty() {
                let view = MatMut::strided(&mut to[column..], tile.rows.len(), rows.len(), seen);
                matmul_here(view, left, self.keys(right, &rows).t(), false, scale);
            }
        }
    }

    /// `to` [tile, D] (rows `stride` apart) = `weights` [tile, seen] times the seen rows of `right`.
    fn mixed(
        &self,
        tile: &QueryTile,
        weights: &[f32],
        right: &[f32],
        to: &mut [f32],
        stride: usize,
    ) {
        let (n, dim) = (tile.rows.len(), self.heads.dim);
        let mut add = false;
        for (rows, column) in tile.stretches() {
            if !rows.is_empty() {
                let weights = Mat::strided(&weights[column..], n, rows.len(), tile.seen());
                let view = MatMut::strided(to, n, dim, stride);
                matmul_here(view, weights, self.keys(right, &rows), add, 1.0);
                add = true;
            }
        }
    }

    /// Adds `weights` [tile, seen], transposed, times `left` [tile, D] to the seen rows of `to`
    /// [group, D].
    fn spread(&self, tile: &QueryTile, weights: &[f32], left: Mat<'_>, to: &mut [f32]) {
        let dim = self.heads.dim;
        for (rows, column) in tile.stretches() {
            if !rows.is_empty() {
                let (n, seen) = (tile.rows.len(), tile.seen());
                let weights = Mat::strided(&weights[column..], n, rows.len(), seen);
                let view = MatMut::new(&mut to[rows.start * dim..], rows.len(), dim);
                matmul_here(view, weights.t(), left, true, 1.0);
            }
        }
    }
}

wide! {
    /// Scores of a row become probabilities; gives log(sum(exp(scores))).
    pub fn softmax<'a>(row: &'a mut [f32]) -> f32 {
        let most = folded(row, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        for v in row.iter_mut() {
            *v = exp(*v - most);
        }
        let sum = folded(row, 0.0, |a, b| a + b);
        let inverse = 1.0 / sum;
        for v in row.iter_mut() {
            *v *= inverse;
        }
        most + sum.ln()
    }

    /// Scores become probabilities; the gradient of the probabilities becomes that of the scores.
    fn score_gradients<'a>(both: (&'a mut [f32], &'a mut [f32]), sees: usize, total: f32, scale: f32) {
        let (p, dp) = both;
        for p in &mut p[..sees] {
            *p = exp(*p - total);
        }
        p[sees..].fill(0.0);
        let mean = super::dot(&p[..sees], &dp[..sees]);
        for (dp, p) in dp.iter_mut().zip(p.iter()) {
            *dp = p * (*dp - mean) * scale;
        }
    }
}

/// Cuts `data`, which holds `width` numbers per row, into a block for every group and key/value
/// head, in that order.
fn blocks<'a>(
    mut data: &'a mut [f32],
    heads: AttentionShape,
    groups: &[PrefixGroup],
    width: usize,
) -> Vec<&'a mut [f32]> {
    let mut blocks = Vec::with_capacity(groups.len() * heads.keys);
    for group in groups {
        for _ in 0..heads.keys {
            let (block, rest) =
                std::mem::take(&mut data).split_at_mut(group.rows.len() * width / heads.keys);
            blocks.push(block);
            data = rest;
        }
    }
    blocks
}

fn places(heads: AttentionShape, groups: &[PrefixGroup]) -> Vec<HeadTask<'_>> {
    let all = groups.iter().flat_map(|f| (0..heads.keys).map(move |k| (f, k)));
    all.map(|(group, key_head)| HeadTask { heads, group, key_head }).collect()
}

/// From blocks, as [`blocks`] cuts them, to rows [T, width].
fn to_rows(
    from: &[f32],
    heads: AttentionShape,
    groups: &[PrefixGroup],
    width: usize,
    to: &mut [f32],
) {
    let part = width / heads.keys;
    for group in groups {
        let n = group.rows.len();
        let range = group.rows.start * width..group.rows.end * width;
        let from = &from[range.clone()];
        to[range].par_chunks_mut(width).with_min_len(32).enumerate().for_each(|(row, to)| {
            for (key_head, to) in to.chunks_exact_mut(part).enumerate() {
                let at = (key_head * n + row) * part;
                to.copy_from_slice(&from[at..at + part]);
            }
        });
    }
}

/// Grows or shrinks a scratch buffer; what it holds is to be overwritten.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// Attention of `q` [T, heads * D] over `k`, `v` [T, kv_heads * D] to `y` [T, heads * D]. `totals`
/// [T * heads] keeps the logarithms that [`attention_backward`] needs. `groups` lie one after
/// another and cover all rows.
pub fn attention(
    heads: AttentionShape,
    groups: &[PrefixGroup],
    (q, k, v): (&[f32], &[f32], &[f32]),
    (y, totals): (&mut [f32], &mut [f32]),
    scratch: &mut Vec<f32>,
) {
    let (width, group) = (heads.query_width(), heads.group());
    let outputs = blocks(sized(scratch, q.len()), heads, groups, width);
    let totals = blocks(totals, heads, groups, heads.queries);
    let tasks: Vec<_> = places(heads, groups).into_iter().zip(outputs).zip(totals).collect();
    tasks.into_par_iter().for_each(|((place, output), totals)| {
        let mut scores = Vec::new();
        for tile in place.group.tiles() {
            let seen = tile.seen();
            for g in 0..group {
                let scores = sized(&mut scores, tile.rows.len() * seen);
                let queries = place.queries(q, &tile.rows, g);
                place.scores(&tile, queries, k, heads.scale(), scores);
                for (row, scores) in tile.rows.clone().zip(scores.chunks_exact_mut(seen)) {
                    let (scores, future) = scores.split_at_mut(tile.seen_by(row));
                    totals[row * group + g] = softmax(scores);
                    future.fill(0.0);
                }
                let at = (tile.rows.start * group + g) * heads.dim;
                place.mixed(&tile, scores, v, &mut output[at..], group * heads.dim);
            }
        }
    });
    to_rows(scratch, heads, groups, width, y);
}

/// Buffers of [`attention_backward`], kept from call to call.
#[derive(Debug, Default)]
pub struct BackwardScratch {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// Gradients of q, k and v, given that of y.
pub fn attention_backward(
    (heads, groups): (AttentionShape, &[PrefixGroup]),
    (q, k, v): (&[f32], &[f32], &[f32]),
    (totals, dy): (&[f32], &[f32]),
    (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
    scratch: &mut BackwardScratch,
) {
    let (width, key_width) = (heads.query_width(), heads.key_width());
    let BackwardScratch { dq: dq_blocks, dk: dk_blocks, dv: dv_blocks } = scratch;
    // Keys and values are added to; queries are written once.
    dk_blocks.clear();
    dv_blocks.clear();
    let tasks: Vec<_> = places(heads, groups)
        .into_iter()
        .zip(blocks(sized(dq_blocks, q.len()), heads, groups, width))
        .zip(blocks(sized(dk_blocks, k.len()), heads, groups, key_width))
        .zip(blocks(sized(dv_blocks, v.len()), heads, groups, key_width))
        .collect();
    tasks.into_par_iter().for_each(|(((place, dq), dk), dv)| {
        let start = place.group.rows.start * heads.queries
            + place.key_head * place.group.rows.len() * heads.group();
        let totals = &totals[start..];
        place_backward(&place, (q, k, v), (totals, dy), (dq, dk, dv));
    });
    to_rows(dq_blocks, heads, groups, width, dq);
    to_rows(dk_blocks, heads, groups, key_width, dk);
    to_rows(dv_blocks, heads, groups, key_width, dv);
}

fn place_backward(
    place: &HeadTask<'_>,
    (q, k, v): (&[f32], &[f32], &[f32]),
    (totals, dy): (&[f32], &[f32]),
    (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
) {
    let heads = place.heads;
    let group = heads.group();
    let (mut p, mut ds) = (Vec::new(), Vec::new());
    for tile in place.group.tiles() {
        let seen = tile.seen();
        for g in 0..group {
            let size = tile.rows.len() * seen;
            let (p, ds) = (sized(&mut p, size), sized(&mut ds, size));
            let (queries, grads) =
                (place.queries(q, &tile.rows, g), place.queries(dy, &tile.rows, g));
            place.scores(&tile, queries, k, heads.scale(), p);
            place.scores(&tile, grads, v, 1.0, ds);
            let rows = p.chunks_exact_mut(seen).zip(ds.chunks_exact_mut(seen));
            for (row, (p, ds)) in tile.rows.clone().zip(rows) {
                score_gradients((p, ds), tile.seen_by(row), totals[row * group + g], heads.scale());
            }
            let at = (tile.rows.start * group + g) * heads.dim;
            place.mixed(&tile, ds, k, &mut dq[at..], group * heads.dim);
            place.spread(&tile, ds, queries, dk);
            place.spread(&tile, p, grads, dv);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, noise};
    use super::*;

    fn forward(
        heads: AttentionShape,
        groups: &[PrefixGroup],
        t: &[Vec<f32>],
    ) -> (Vec<f32>, Vec<f32>) {
        let mut y = vec![0f32; t[0].len()];
        let mut totals = vec![0f32; t[0].len() / heads.dim];
        attention(heads, groups, (&t[0], &t[1], &t[2]), (&mut y, &mut totals), &mut Vec::new());
        (y, totals)
    }

    #[test]
    fn backward_equals_differences_with_grouped_queries_and_branches() {
        let heads = AttentionShape { queries: 4, keys: 2, dim: 2 };
        let groups = [
            PrefixGroup { rows: 0..2, prefix: 2, branches: vec![] },
            PrefixGroup { rows: 2..8, prefix: 2, branches: vec![3, 1] },
        ];
        let forward = |t: &[Vec<f32>]| forward(heads, &groups, t);
        check(
            &[8 * 8, 8 * 4, 8 * 4],
            |t| forward(t).0,
            |t, dy| {
                let totals = forward(t).1;
                let (mut dq, mut dk, mut dv) = (vec![0f32; 64], vec![0f32; 32], vec![0f32; 32]);
                attention_backward(
                    (heads, &groups),
                    (&t[0], &t[1], &t[2]),
                    (&totals, dy),
                    (&mut dq, &mut dk, &mut dv),
                    &mut BackwardScratch::default(),
                );
                vec![dq, dk, dv]
            },
        );
    }

    /// A prompt and two responses as one group give what two sequences of their own give, also
    /// over several tiles.
    #[test]
    fn sharing_a_prefix_changes_nothing() {
        let heads = AttentionShape { queries: 2, keys: 1, dim: 4 };
        let (prompt, first, second) = (70, 80, 5);
        let rows = prompt + first + second;
        let shared = [noise(rows * 8, 1), noise(rows * 4, 2), noise(rows * 4, 3)];
        let apart: Vec<Vec<f32>> = shared
            .iter()
            .zip([8, 4, 4])
            .map(|(data, width)| {
                let part = |range: Range<usize>| &data[range.start * width..range.end * width];
                let rest = prompt + first..rows;
                [part(0..prompt + first), part(0..prompt), part(rest)].concat()
            })
            .collect();
        let group = PrefixGroup { rows: 0..rows, prefix: prompt, branches: vec![first, second] };
        let two = [
            PrefixGroup { rows: 0..prompt + first, prefix: prompt + first, branches: vec![] },
            PrefixGroup {
                rows: prompt + first..rows + prompt,
                prefix: prompt + second,
                branches: vec![],
            },
        ];
        let ours = forward(heads, &[group], &shared).0;
        let theirs = forward(heads, &two, &apart).0;
        let expected = [&theirs[..(prompt + first) * 8], &theirs[(2 * prompt + first) * 8..]];
        let gap = ours.iter().zip(expected.concat()).map(|(a, b)| (a - b).abs());
        assert!(gap.fold(0.0, f32::max) < 1e-6);
    }
}
