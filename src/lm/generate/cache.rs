//! Keys and values of what was read so far, as a tree: a node holds the tokens after its parent's,
//! so contexts with a common beginning hold it once. They lie in blocks of [`WIDTH`] positions
//! that are set aside once and handed from node to node. Knows no network, only widths.

use crate::lm::config::ModelConfig;
use crate::lm::ops::{Line, Lines, WIDTH};

/// Index of a node.
pub(super) type NodeId = usize;

/// Index of a block.
type BlockId = usize;

/// Some consecutive positions of a context.
#[derive(Default)]
pub(super) struct Node {
    /// Position of the first token.
    pub start: usize,
    len: usize,
    blocks: Vec<BlockId>,
    /// From the root to this node, both included.
    pub chain: Vec<NodeId>,
    /// Sequences that still read it; its memory goes when none is left.
    pub users: usize,
}

/// Keys and values of [`WIDTH`] positions in all layers and heads, as panels: keys with a column
/// for every position ([D] lines), values with a line for every position (of each [`WIDTH`]
/// columns of D).
struct Block {
    lines: Lines,
}

/// Widths of what is kept.
#[derive(Clone, Copy)]
pub(super) struct CacheShape {
    /// Layers.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
}

impl CacheShape {
    /// What a network of this shape keeps.
    pub fn of(config: &ModelConfig) -> CacheShape {
        CacheShape {
            layers: config.num_hidden_layers,
            heads: config.num_key_value_heads,
            dim: config.head_dim,
        }
    }

    fn value_panels(self) -> usize {
        self.dim.div_ceil(WIDTH)
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        (self.layers * self.heads * self.head_lines() * size_of::<Line>()) as u64
    }

    /// Lines of a layer's head.
    fn head_lines(self) -> usize {
        self.dim + self.value_panels() * WIDTH
    }
}

impl Node {
    /// Positions that hold keys and values.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// The tree.
pub(super) struct Cache {
    shape: CacheShape,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    blocks: Vec<Block>,
    free_blocks: Vec<BlockId>,
}

impl Cache {
    /// An empty tree.
    pub fn new(shape: CacheShape) -> Cache {
        Cache {
            shape,
            nodes: Vec::new(),
            free: Vec::new(),
            blocks: Vec::new(),
            free_blocks: Vec::new(),
        }
    }

    /// Adds a node whose first position is `start`, read by `users` sequences.
    pub fn add(&mut self, parent: Option<NodeId>, start: usize, users: usize) -> NodeId {
        let id = self.free.pop().unwrap_or(self.nodes.len());
        let mut chain = parent.map_or_else(Vec::new, |p| self.nodes[p].chain.clone());
        chain.push(id);
        let node = Node { start, chain, users, ..Node::default() };
        if id == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[id] = node;
        }
        id
    }

    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Makes room for one more position at the end of a node; gives its place there.
    pub fn extend(&mut self, id: NodeId) -> usize {
        let at = self.nodes[id].len;
        if at.is_multiple_of(WIDTH) {
            let block = self.free_blocks.pop().unwrap_or_else(|| {
                let lines = self.shape.layers * self.shape.heads * self.shape.head_lines();
                self.blocks.push(Block { lines: Lines::zeros(lines) });
                self.blocks.len() - 1
            });
            self.nodes[id].blocks.push(block);
        }
        self.nodes[id].len += 1;
        at
    }

    /// Writes keys and values [heads * D] of the `at`-th position of a node.
    pub fn write(&mut self, (id, at): (NodeId, usize), layer: usize, keys: &[f32], values: &[f32]) {
        let CacheShape { heads, dim, .. } = self.shape;
        let head_lines = self.shape.head_lines();
        let block = self.nodes[id].blocks[at / WIDTH];
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
        let blocks = self.nodes[id].blocks.iter().take(count.div_ceil(WIDTH));
        blocks.map(move |block| {
            self.blocks[*block].lines[at..at + head_lines].split_at(self.shape.dim)
        })
    }

    fn empty(&mut self, id: NodeId) {
        let node = std::mem::take(&mut self.nodes[id]);
        self.free_blocks.extend(node.blocks);
        self.free.push(id);
    }

    /// One sequence stops reading the node and those before it.
    pub fn release(&mut self, id: NodeId) {
        for node in self.nodes[id].chain.clone() {
            let users = self.nodes[node].users.saturating_sub(1);
            self.nodes[node].users = users;
            if users == 0 {
                self.empty(node);
            }
        }
    }

    /// Frees a node without touching those before it.
    pub fn drop_leaf(&mut self, id: NodeId) {
        self.empty(id);
    }

    /// Nodes in use.
    #[cfg(test)]
    pub fn live(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}
