//! Which tokens are read once for several contexts: a prefix tree over token ids. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// A shared beginning shorter than this is read again: a node costs more than it saves.
const SHARED_TOKENS_MIN: usize = 8;

/// Tokens `range` of context `context`, read after those of `parent`.
#[derive(Debug, PartialEq)]
pub(super) struct PlanNode {
    /// The node read before.
    pub parent: Option<usize>,
    /// A context that holds these tokens.
    pub context: usize,
    /// Where in it they are.
    pub range: Range<usize>,
}

/// The tree, and the node at which each context ends. Equal contexts end at the same node.
#[derive(Debug, PartialEq)]
pub(super) struct PrefillPlan {
    /// Parents come before children.
    pub nodes: Vec<PlanNode>,
    /// Per context.
    pub leaves: Vec<usize>,
}

impl PrefillPlan {
    /// Plans the reading of `contexts`, none of them empty.
    pub fn new(contexts: &[&[u32]]) -> PrefillPlan {
        let mut equal: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
        for (index, context) in contexts.iter().enumerate() {
            equal.entry(context).or_default().push(index);
        }
        let sorted: Vec<Vec<usize>> = equal.into_values().collect();
        let mut plan = PrefillPlan { nodes: Vec::new(), leaves: vec![0; contexts.len()] };
        // A stack, not recursion: contexts that each extend the one before would nest deeply.
        let mut open = vec![PendingBranch { members: 0..sorted.len(), parent: None, start: 0 }];
        while let Some(branch) = open.pop() {
            plan.grow(contexts, &sorted, branch, &mut open);
        }
        plan
    }

    fn grow(
        &mut self,
        contexts: &[&[u32]],
        sorted: &[Vec<usize>],
        branch: PendingBranch,
        open: &mut Vec<PendingBranch>,
    ) {
        let text = |member: usize| contexts[sorted[member][0]];
        let PendingBranch { members, mut parent, mut start } = branch;
        if members.is_empty() {
            return;
        }
        if members.len() == 1 {
            let first = sorted[members.start][0];
            self.nodes.push(PlanNode {
                parent,
                context: first,
                range: start..contexts[first].len(),
            });
            for &context in &sorted[members.start] {
                self.leaves[context] = self.nodes.len() - 1;
            }
            return;
        }
        // Sorted, so the first and the last member differ first. Every context keeps at least its
        // last token for itself: that is where its logits are read.
        let (first, last) = (text(members.start), text(members.end - 1));
        let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let shortest = members.clone().map(|m| text(m).len()).min().unwrap_or(1);
        let end = common.min(shortest - 1);
        if end >= start + SHARED_TOKENS_MIN {
            let context = sorted[members.start][0];
            self.nodes.push(PlanNode { parent, context, range: start..end });
            parent = Some(self.nodes.len() - 1);
            start = end;
        }
        let mut from = members.start;
        while from < members.end {
            let alone = text(from).len() == end + 1;
            let mut to = from + 1;
            while !alone && to < members.end && text(to)[end] == text(from)[end] {
                to += 1;
            }
            open.push(PendingBranch { members: from..to, parent, start });
            from = to;
        }
    }
}

struct PendingBranch {
    members: Range<usize>,
    parent: Option<usize>,
    start: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(plan: &PrefillPlan, contexts: &[&[u32]], leaf: usize) -> Vec<u32> {
        let mut parts = vec![];
        let mut at = Some(leaf);
        while let Some(node) = at {
            let node = &plan.nodes[node];
            parts.push(&contexts[node.context][node.range.clone()]);
            at = node.parent;
        }
        parts.into_iter().rev().flatten().copied().collect()
    }

    #[test]
    fn a_common_beginning_is_read_once() {
        let prefix: Vec<u32> = (0..20).collect();
        let with = |tail: &[u32]| [prefix.as_slice(), tail].concat();
        let all = [with(&[7, 8]), with(&[9]), with(&[7, 8]), with(&[])];
        let contexts: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
        let plan = PrefillPlan::new(&contexts);
        assert_eq!(plan.leaves[0], plan.leaves[2]);
        let tokens: usize = plan.nodes.iter().map(|n| n.range.len()).sum();
        assert!(tokens <= 19 + 1 + 3 + 2, "{plan:?}");
        for (index, leaf) in plan.leaves.iter().enumerate() {
            assert_eq!(read(&plan, &contexts, *leaf), contexts[index]);
        }
    }

    proptest! {
        #[test]
        fn every_leaf_spells_its_context(
            all in prop::collection::vec(prop::collection::vec(0u32..2, 1..40), 1..30)
        ) {
            let contexts: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
            let plan = PrefillPlan::new(&contexts);
            for (index, leaf) in plan.leaves.iter().enumerate() {
                prop_assert_eq!(read(&plan, &contexts, *leaf), contexts[index]);
                prop_assert!(!plan.nodes[*leaf].range.is_empty());
            }
            for (index, node) in plan.nodes.iter().enumerate() {
                prop_assert!(node.parent.is_none_or(|p| p < index));
            }
        }
    }
}
