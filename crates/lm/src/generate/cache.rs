//! Keys and values of what was read so far, on the CPU, in the blocks of a [`PrefixTree`]. Knows no
//! network, only widths.

use super::tree::{NodeId, PrefixTree};
use crate::estimate::cpu::KvShape;
use crate::ops::{Line, Lines, WIDTH};

/// Keys and values of [`WIDTH`] positions in all layers and heads, as panels: keys with a column
/// for every position ([D] lines), values with a line for every position (of each [`WIDTH`]
/// columns of D).
struct KvBlock {
    lines: Lines,
}

/// Keys and values, and where they are.
pub(super) struct KvCache {
    shape: KvShape,
    /// Which blocks hold what.
    pub tree: PrefixTree,
    blocks: Vec<KvBlock>,
}

impl KvCache {
    /// Nothing.
    pub fn new(shape: KvShape) -> KvCache {
        KvCache { shape, tree: PrefixTree::default(), blocks: Vec::new() }
    }

    /// Makes room for one more position at the end of a node; gives its place there.
    pub fn extend(&mut self, id: NodeId) -> usize {
        let at = self.tree.extend(id);
        let lines = self.shape.block_lines();
        self.blocks.resize_with(self.tree.blocks(), || KvBlock { lines: Lines::zeros(lines) });
        at
    }

    /// Writes keys and values [heads * D] of the `at`-th position of a node.
    pub fn write(&mut self, (id, at): (NodeId, usize), layer: usize, keys: &[f32], values: &[f32]) {
        let KvShape { heads, dim, .. } = self.shape;
        let head_lines = self.shape.head_lines();
        let block = self.tree.node(id).blocks[at / WIDTH];
        let layer = &mut self.blocks[block].lines[layer * heads * head_lines..];
        let column = at % WIDTH;
        let parts = keys.chunks_exact(dim).zip(values.chunks_exact(dim));
        for (lines, (key, value)) in layer.chunks_exact_mut(head_lines).zip(parts) {
            let (key_lines, value_lines) = lines.split_at_mut(dim);
            key_lines.iter_mut().zip(key).for_each(|(line, k)| line[column] = *k);
            for (panel, value) in value_lines.chunks_exact_mut(WIDTH).zip(value.chunks(WIDTH)) {
                panel[column][..value.len()].copy_from_slice(value);
            }
        }
    }

    /// Keys [D] and values [panels * WIDTH] of the blocks that hold a node's first `count`
    /// positions, for a layer's head.
    pub fn blocks(
        &self,
        id: NodeId,
        count: usize,
        layer: usize,
        head: usize,
    ) -> impl Iterator<Item = (&[Line], &[Line])> {
        let head_lines = self.shape.head_lines();
        let at = (layer * self.shape.heads + head) * head_lines;
        let blocks = self.tree.node(id).blocks.iter().take(count.div_ceil(WIDTH));
        blocks.map(move |block| {
            self.blocks[*block].lines[at..at + head_lines].split_at(self.shape.dim)
        })
    }
}
