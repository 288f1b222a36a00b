//! Attention of rows over the positions before them, along chains of cache nodes. What rows share
//! is read once for all of them; a row's result depends neither on them nor on how its positions
//! are divided into nodes: every sum runs over positions in their order.

use super::cache::KvCache;
use super::tree::InputToken;
use crate::ops::{AttentionShape, Line, RowBlocks, WIDTH, softmax, wide};
use std::ops::Range;

/// Rows of a task.
pub(super) const TASK_ROWS: usize = 8;

/// Buffers of a task.
#[derive(Default)]
struct TaskBuffers {
    blocks: RowBlocks,
    /// [queries, positions].
    scores: Vec<f32>,
    lines: Vec<Line>,
}

/// Some rows that are read together, in one layer.
pub(super) struct AttentionTask<'a> {
    pub heads: AttentionShape,
    pub cache: &'a KvCache,
    pub layer: usize,
    pub rows: &'a [InputToken],
}

wide! {
    fn multiply<'a>(row: &'a mut [f32], by: f32) {
        for x in row.iter_mut() {
            *x *= by;
        }
    }
}

/// A node that some of the rows see: which ones, and how many of its positions at most.
struct VisibleNode {
    node: usize,
    rows: Range<usize>,
    count: usize,
}

impl AttentionTask<'_> {
    /// Writes to `out` [rows, heads * D] what the rows with `queries` (each `stride` after the one
    /// before) see at their own and all earlier positions.
    pub fn attend(&self, queries: &[f32], stride: usize, out: &mut [f32]) {
        let mut seen = Vec::new();
        self.see(0, 0..self.rows.len(), &mut seen);
        let mut space = TaskBuffers::default();
        for key_head in 0..self.heads.keys {
            self.head(key_head, &seen, (queries, stride), out, &mut space);
        }
    }

    /// Collects the nodes of chains from `level` on.
    fn see(&self, level: usize, rows: Range<usize>, seen: &mut Vec<VisibleNode>) {
        let node = |row: usize| self.cache.tree.node(self.rows[row].node).chain.get(level).copied();
        let mut from = rows.start;
        while from < rows.end {
            let id = node(from);
            let to = (from..rows.end).find(|row| node(*row) != id).unwrap_or(rows.end);
            if let Some(id) = id {
                let last = self.rows[from..to].iter().map(|row| row.position).max().unwrap_or(0);
                let node = self.cache.tree.node(id);
                let count = node.len().min(last + 1 - node.start);
                seen.push(VisibleNode { node: id, rows: from..to, count });
                self.see(level + 1, from..to, seen);
            }
            from = to;
        }
    }

    fn head(
        &self,
        key_head: usize,
        seen: &[VisibleNode],
        (queries, stride): (&[f32], usize),
        out: &mut [f32],
        space: &mut TaskBuffers,
    ) {
        let (dim, group) = (self.heads.dim, self.heads.queries / self.heads.keys);
        let query = |q: usize| {
            let at = q / group * stride + (key_head * group + q % group) * dim;
            &queries[at..at + dim]
        };
        let all = self.rows.len() * group;
        let most = self.rows.iter().map(|row| row.position + 1).max().unwrap_or(0);
        space.scores.resize(all * most, 0.0);
        for VisibleNode { node, rows, count } in seen {
            let first = rows.start * group;
            space.blocks.fill(rows.len() * group, dim, |q| query(first + q));
            let mut at = self.cache.tree.node(*node).start;
            let end = at + count;
            for (keys, _) in self.cache.blocks(*node, *count, self.layer, key_head) {
                let columns = at..(at + WIDTH).min(end);
                space.lines.clear();
                space.lines.resize(rows.len() * group, [0.0; WIDTH]);
                space.blocks.add_product(keys, &[], &mut space.lines);
                let scores = space.scores.chunks_exact_mut(most).skip(first);
                for (scores, line) in scores.zip(&space.lines) {
                    scores[columns.clone()].copy_from_slice(&line[..columns.len()]);
                }
                at += WIDTH;
            }
        }
        self.weigh(&mut space.scores, most, group);
        self.mix(key_head, seen, most, out, space);
    }

    /// Scores become probabilities, 0 for what comes later.
    fn weigh(&self, scores: &mut [f32], most: usize, group: usize) {
        let scale = 1.0 / (self.heads.dim as f32).sqrt();
        for (q, scores) in scores.chunks_exact_mut(most).enumerate() {
            let (scores, later) = scores.split_at_mut(self.rows[q / group].position + 1);
            multiply(scores, scale);
            softmax(scores);
            later.fill(0.0);
        }
    }

    /// Adds up the values by the probabilities in `space.scores`.
    fn mix(
        &self,
        key_head: usize,
        seen: &[VisibleNode],
        most: usize,
        out: &mut [f32],
        space: &mut TaskBuffers,
    ) {
        let (dim, group) = (self.heads.dim, self.heads.queries / self.heads.keys);
        let all = self.rows.len() * group;
        space.lines.clear();
        space.lines.resize(dim.div_ceil(WIDTH) * all, [0.0; WIDTH]);
        for VisibleNode { node, rows, count } in seen {
            let queries = rows.start * group..rows.end * group;
            let mut at = self.cache.tree.node(*node).start;
            let end = at + count;
            for (_, values) in self.cache.blocks(*node, *count, self.layer, key_head) {
                let n = WIDTH.min(end - at);
                let scores = &space.scores;
                let weights = |q: usize| &scores[(queries.start + q) * most + at..][..n];
                space.blocks.fill(queries.len(), n, weights);
                let panels = values.chunks_exact(WIDTH).zip(space.lines.chunks_exact_mut(all));
                for (panel, sums) in panels {
                    space.blocks.add_product(&panel[..n], &[], &mut sums[queries.clone()]);
                }
                at += WIDTH;
            }
        }
        for (q, part) in (0..all).map(|q| (q, (q / group, key_head * group + q % group))) {
            let at = part.0 * self.heads.query_width() + part.1 * dim;
            let parts = out[at..at + dim].chunks_mut(WIDTH);
            for (to, lines) in parts.zip(space.lines.chunks_exact(all)) {
                to.copy_from_slice(&lines[q][..to.len()]);
            }
        }
    }
}
