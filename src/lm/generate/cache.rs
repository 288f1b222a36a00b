//! Keys and values of what was read so far, as a tree: a node holds the tokens after its parent's,
//! so contexts with a common beginning hold it once. Knows no network, only widths.

/// Index of a node.
pub(super) type NodeId = usize;

/// Some consecutive positions of a context.
#[derive(Default)]
pub(super) struct Node {
    /// Position of the first token.
    pub start: usize,
    /// Per layer: keys, [positions × width].
    pub keys: Vec<Vec<f32>>,
    /// Per layer: values, [positions × width].
    pub values: Vec<Vec<f32>>,
    /// From the root to this node, both included.
    pub chain: Vec<NodeId>,
    /// Sequences that still read it; its memory goes when none is left.
    pub users: usize,
}

/// The tree.
pub(super) struct Cache {
    layers: usize,
    width: usize,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
}

impl Cache {
    /// An empty tree for so many layers, keys and values of `width` numbers a position.
    pub fn new(layers: usize, width: usize) -> Cache {
        Cache { layers, width, nodes: Vec::new(), free: Vec::new() }
    }

    /// Adds a node whose first position is `start`, read by `users` sequences.
    pub fn add(&mut self, parent: Option<NodeId>, start: usize, users: usize) -> NodeId {
        let id = self.free.pop().unwrap_or(self.nodes.len());
        let mut chain = parent.map_or_else(Vec::new, |p| self.nodes[p].chain.clone());
        chain.push(id);
        let empty = || (0..self.layers).map(|_| Vec::new()).collect();
        let node = Node { start, keys: empty(), values: empty(), chain, users };
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

    /// Appends one position to a layer of a node.
    pub fn push(&mut self, id: NodeId, layer: usize, key: &[f32], value: &[f32]) {
        debug_assert_eq!(key.len(), self.width);
        let node = &mut self.nodes[id];
        node.keys[layer].extend_from_slice(key);
        node.values[layer].extend_from_slice(value);
    }

    /// One sequence stops reading the node and those before it.
    pub fn release(&mut self, id: NodeId) {
        for node in self.nodes[id].chain.clone() {
            let node_users = &mut self.nodes[node].users;
            *node_users = node_users.saturating_sub(1);
            if *node_users == 0 {
                self.nodes[node] = Node::default();
                self.free.push(node);
            }
        }
    }

    /// Frees a node without touching those before it.
    pub fn drop_leaf(&mut self, id: NodeId) {
        self.nodes[id] = Node::default();
        self.free.push(id);
    }

    /// Nodes in use.
    #[cfg(test)]
    pub fn live(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}
