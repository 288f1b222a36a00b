//! What was read so far, as a tree: a node holds the tokens after its parent's, so contexts with a
//! common beginning hold it once. Its positions lie in blocks of [`WIDTH`] that are set aside once
//! and handed from node to node. Knows which block holds what, and not what is in a block.

use crate::ops::WIDTH;
use std::ops::Range;

/// Index of a node.
pub(crate) type NodeId = usize;

/// Index of a block.
pub(crate) type BlockId = usize;

/// One token to be read.
#[derive(Clone, Copy)]
pub(crate) struct InputToken {
    /// The node it is appended to.
    pub node: NodeId,
    /// Its position in the context.
    pub position: usize,
    /// Its id.
    pub token: u32,
}

/// Some consecutive positions of a context.
#[derive(Default)]
pub(crate) struct TreeNode {
    /// Position of the first token.
    pub start: usize,
    len: usize,
    /// Where its positions lie, [`WIDTH`] in each.
    pub blocks: Vec<BlockId>,
    /// From the root to this node, both included.
    pub chain: Vec<NodeId>,
    /// Sequences that still read it; its blocks go when none is left.
    pub users: usize,
}

impl TreeNode {
    /// Positions that were read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where its `at`-th position lies among the positions of all blocks.
    pub fn place(&self, at: usize) -> usize {
        self.blocks[at / WIDTH] * WIDTH + at % WIDTH
    }

    /// All of its positions so, a block's at a time.
    pub fn places(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.blocks.iter().enumerate().map(|(at, block)| {
            let first = block * WIDTH;
            first..first + WIDTH.min(self.len - at * WIDTH)
        })
    }
}

/// What several contexts have in common, and the blocks that hold it.
#[derive(Default)]
pub(crate) struct PrefixTree {
    nodes: Vec<TreeNode>,
    free: Vec<NodeId>,
    blocks: usize,
    free_blocks: Vec<BlockId>,
}

impl PrefixTree {
    /// Adds a node whose first position is `start`, read by `users` sequences.
    pub fn add(&mut self, parent: Option<NodeId>, start: usize, users: usize) -> NodeId {
        let id = self.free.pop().unwrap_or(self.nodes.len());
        let mut chain = parent.map_or_else(Vec::new, |p| self.nodes[p].chain.clone());
        chain.push(id);
        let node = TreeNode { start, chain, users, ..TreeNode::default() };
        if id == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[id] = node;
        }
        id
    }

    /// The node.
    pub fn node(&self, id: NodeId) -> &TreeNode {
        &self.nodes[id]
    }

    /// Blocks that there are, in use or free.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Makes room for one more position at the end of a node; gives its place there.
    pub fn extend(&mut self, id: NodeId) -> usize {
        let at = self.nodes[id].len;
        if at.is_multiple_of(WIDTH) {
            let block = self.free_blocks.pop().unwrap_or_else(|| {
                self.blocks += 1;
                self.blocks - 1
            });
            self.nodes[id].blocks.push(block);
        }
        self.nodes[id].len += 1;
        at
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
