//! An ordered map whose copies share what they have in common. A copy takes no time; a change takes
//! as long as the path from the root to the entry, whoever holds older copies, and happens in place
//! where nobody does.
//!
//! A B-tree of which each node is counted: leaves hold entries in order, branches their children with
//! a lower bound of each one's keys.

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Entries of a leaf and children of a branch, at most. A change copies a node of each level where
/// others hold them.
const FULL: usize = 32;
/// Nodes with fewer are joined with a neighbour that has room.
const FEW: usize = 8;

/// An ordered map that is copied in no time.
pub struct SharedMap<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

#[derive(Clone)]
enum Node<K, V> {
    Leaf(Vec<(K, V)>),
    Branch(Vec<Child<K, V>>),
}

#[derive(Clone)]
struct Child<K, V> {
    /// No key in the node is less, and all keys of the nodes before it are.
    low: K,
    node: Arc<Node<K, V>>,
}

/// What came of an entry that was put into a node.
enum Put<K, V> {
    Replaced(V),
    Added,
    /// The node was full: this one goes behind it.
    Split(Child<K, V>),
}

/// Where a full node is cut that gets something at `at`: in the middle, but for what grows at its
/// end, which leaves full nodes behind.
fn cut(at: usize) -> usize {
    if at >= FULL { FULL } else { FULL / 2 }
}

/// Puts something into a full list; the upper part of what comes of it.
fn split<T>(list: &mut Vec<T>, at: usize, new: T) -> Vec<T> {
    let cut = cut(at);
    let mut upper = list.split_off(cut.min(list.len()));
    match at.checked_sub(cut) {
        Some(at) => upper.insert(at.min(upper.len()), new),
        None => list.insert(at, new),
    }
    upper
}

/// Which child has a key, if any has.
fn way<K: Borrow<Q>, V, Q: Ord + ?Sized>(children: &[Child<K, V>], key: &Q) -> usize {
    children.partition_point(|child| child.low.borrow() <= key).saturating_sub(1)
}

fn place<K: Borrow<Q>, V, Q: Ord + ?Sized>(entries: &[(K, V)], key: &Q) -> Result<usize, usize> {
    entries.binary_search_by(|(known, _)| known.borrow().cmp(key))
}

impl<K, V> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Branch(children) => children.len(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    fn put(&mut self, key: K, value: V) -> Put<K, V> {
        match self {
            Node::Leaf(entries) => match place(entries, &key) {
                Ok(at) => match entries.get_mut(at) {
                    Some((_, known)) => Put::Replaced(std::mem::replace(known, value)),
                    None => Put::Added,
                },
                Err(at) if entries.len() < FULL => {
                    entries.insert(at, (key, value));
                    Put::Added
                }
                Err(at) => {
                    let upper = split(entries, at, (key, value));
                    let low = upper.first().map(|(key, _)| key.clone());
                    Put::after(low, Node::Leaf(upper))
                }
            },
            Node::Branch(children) => {
                let at = way(children, &key);
                let Some(child) = children.get_mut(at) else { return Put::Added };
                if key < child.low {
                    child.low = key.clone();
                }
                match Arc::make_mut(&mut child.node).put(key, value) {
                    Put::Split(new) if children.len() < FULL => {
                        children.insert(at + 1, new);
                        Put::Added
                    }
                    Put::Split(new) => {
                        let upper = split(children, at + 1, new);
                        let low = upper.first().map(|child| child.low.clone());
                        Put::after(low, Node::Branch(upper))
                    }
                    done => done,
                }
            }
        }
    }

    /// Takes out what is known to be there.
    fn take<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Node::Leaf(entries) => {
                let at = place(entries, key).ok()?;
                Some(entries.remove(at).1)
            }
            Node::Branch(children) => {
                let at = way(children, key);
                let child = children.get_mut(at)?;
                let taken = Arc::make_mut(&mut child.node).take(key);
                if child.node.len() < FEW {
                    join(children, at);
                }
                taken
            }
        }
    }
}

/// A node with few entries goes, where it has none, or joins a neighbour.
fn join<K: Clone, V: Clone>(children: &mut Vec<Child<K, V>>, at: usize) {
    let len = |at: usize| children.get(at).map_or(FULL, |child| child.node.len());
    if len(at) == 0 {
        children.remove(at);
        return;
    }
    let left = at.saturating_sub(1);
    if len(left) + len(left + 1) > FULL || left + 1 >= children.len() {
        return;
    }
    let right = Arc::unwrap_or_clone(children.remove(left + 1).node);
    let Some(left) = children.get_mut(left) else { return };
    match (Arc::make_mut(&mut left.node), right) {
        (Node::Leaf(left), Node::Leaf(right)) => left.extend(right),
        (Node::Branch(left), Node::Branch(right)) => left.extend(right),
        // All children of a branch are of one kind.
        (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => {}
    }
}

impl<K, V> Put<K, V> {
    fn after(low: Option<K>, node: Node<K, V>) -> Put<K, V> {
        match low {
            Some(low) => Put::Split(Child { low, node: Arc::new(node) }),
            None => Put::Added,
        }
    }
}

impl<K, V> SharedMap<K, V> {
    /// How many entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { branches: Vec::new(), leaf: [].iter(), left: self.len };
        iter.descend(&self.root);
        iter
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// The entry with the greatest key.
    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Leaf(entries) => return entries.last().map(|(key, value)| (key, value)),
                Node::Branch(children) => node = &children.last()?.node,
            }
        }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Leaf(entries) => {
                    return entries.get(place(entries, key).ok()?).map(|(_, value)| value);
                }
                Node::Branch(children) => node = &children.get(way(children, key))?.node,
            }
        }
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Sets the value of a key; what it was before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match Arc::make_mut(&mut self.root).put(key, value) {
            Put::Replaced(before) => return Some(before),
            Put::Added => {}
            Put::Split(new) => {
                let first = self.iter().next().map(|(key, _)| key.clone());
                let low = first.unwrap_or_else(|| new.low.clone());
                let node = std::mem::replace(&mut self.root, Arc::new(Node::Leaf(Vec::new())));
                self.root = Arc::new(Node::Branch(vec![Child { low, node }, new]));
            }
        }
        self.len += 1;
        None
    }

    /// Takes an entry away; its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // A path is not copied for nothing.
        self.get(key)?;
        let taken = Arc::make_mut(&mut self.root).take(key);
        self.len -= usize::from(taken.is_some());
        while let Node::Branch(children) = &*self.root
            && children.len() <= 1
        {
            let only = children.first().map(|child| child.node.clone());
            self.root = only.unwrap_or_else(|| Arc::new(Node::Leaf(Vec::new())));
        }
        taken
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.get(key)?;
        let mut node = &mut self.root;
        loop {
            match Arc::make_mut(node) {
                Node::Leaf(entries) => {
                    let at = place(entries, key).ok()?;
                    return entries.get_mut(at).map(|(_, value)| value);
                }
                Node::Branch(children) => {
                    let at = way(children, key);
                    node = &mut children.get_mut(at)?.node;
                }
            }
        }
    }
}

/// Goes through a map in the order of its keys.
pub struct Iter<'a, K, V> {
    /// What is left of each branch on the way to the leaf.
    branches: Vec<std::slice::Iter<'a, Child<K, V>>>,
    leaf: std::slice::Iter<'a, (K, V)>,
    left: usize,
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Iter { branches: self.branches.clone(), leaf: self.leaf.clone(), left: self.left }
    }
}

impl<'a, K, V> Iter<'a, K, V> {
    fn descend(&mut self, mut node: &'a Node<K, V>) {
        loop {
            match node {
                Node::Leaf(entries) => {
                    self.leaf = entries.iter();
                    return;
                }
                Node::Branch(children) => {
                    let mut children = children.iter();
                    let Some(first) = children.next() else { return };
                    self.branches.push(children);
                    node = &first.node;
                }
            }
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                self.left = self.left.saturating_sub(1);
                return Some((key, value));
            }
            match self.branches.last_mut()?.next() {
                Some(child) => self.descend(&child.node),
                None => drop(self.branches.pop()),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> SharedMap<K, V> {
        SharedMap { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> SharedMap<K, V> {
        SharedMap { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &SharedMap<K, V>) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
            || (self.len == other.len && self.iter().eq(other.iter()))
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> SharedMap<K, V> {
        let mut map = SharedMap::default();
        map.extend(entries);
        map
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

impl<'de, K, V> Deserialize<'de> for SharedMap<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SharedMap<K, V>, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);
        impl<'de, K, V> Visitor<'de> for Entries<K, V>
        where
            K: Deserialize<'de> + Ord + Clone,
            V: Deserialize<'de> + Clone,
        {
            type Value = SharedMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = SharedMap::default();
                while let Some((key, value)) = map.next_entry()? {
                    all.insert(key, value);
                }
                Ok(all)
            }
        }
        from.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Bounds, order, sizes and depth of a tree.
    fn check<K: Ord + Clone, V>(map: &SharedMap<K, V>) {
        fn depth<K: Ord + Clone, V>(node: &Node<K, V>, low: Option<&K>, high: Option<&K>) -> u32 {
            let fits = |key: &K| low.is_none_or(|l| l <= key) && high.is_none_or(|h| key < h);
            assert!(node.len() <= FULL);
            match node {
                Node::Leaf(entries) => {
                    assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
                    assert!(entries.iter().all(|(key, _)| fits(key)));
                    0
                }
                Node::Branch(children) => {
                    assert!(children.is_sorted_by(|a, b| a.low < b.low));
                    let depths: Vec<u32> = (0..children.len())
                        .map(|at| {
                            let child = &children[at];
                            assert!(child.node.len() > 0);
                            let high = children.get(at + 1).map(|next| &next.low).or(high);
                            depth(&child.node, Some(&child.low), high)
                        })
                        .collect();
                    assert!(depths.iter().all(|d| *d == depths[0]), "{depths:?}");
                    depths[0] + 1
                }
            }
        }
        depth(&map.root, None, None);
    }

    proptest! {
        /// It is what the standard library's map is, and so is every copy that was made on the way.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u8..10, 0u16..400, any::<u32>()), 0..1500)) {
            let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (at, (what, key, value)) in steps.into_iter().enumerate() {
                match what {
                    0..=5 => assert_eq!(map.insert(key, value), model.insert(key, value)),
                    6..=7 => assert_eq!(map.remove(&key), model.remove(&key)),
                    8 => assert_eq!(
                        map.get_mut(&key).map(|v| std::mem::replace(v, value)),
                        model.get_mut(&key).map(|v| std::mem::replace(v, value))
                    ),
                    _ => assert_eq!(map.get(&key), model.get(&key)),
                }
                if at % 97 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
            }
            copies.push((map, model));
            for (map, model) in &copies {
                check(map);
                assert_eq!(map.len(), model.len());
                assert!(map.iter().eq(model.iter()));
                assert_eq!(map.last_key_value(), model.last_key_value());
                assert_eq!(map.iter().len(), model.len());
            }
        }
    }

    #[test]
    fn it_grows_and_shrinks_at_either_end() {
        for keys in [(0..5000).collect::<Vec<u32>>(), (0..5000).rev().collect()] {
            let mut map: SharedMap<u32, u32> = keys.iter().map(|key| (*key, key * 2)).collect();
            check(&map);
            assert!(map.values().copied().eq((0..5000).map(|key| key * 2)));
            let whole = map.clone();
            for (gone, key) in keys.iter().enumerate() {
                assert_eq!(map.remove(key), Some(key * 2));
                assert_eq!(map.len(), 4999 - gone);
                if gone % 500 == 0 {
                    check(&map);
                }
            }
            assert!(map.is_empty() && map.iter().next().is_none());
            assert_eq!(whole.len(), 5000);
            assert_eq!(whole.get(&4999), Some(&9998));
        }
    }

    #[test]
    fn its_json_is_that_of_a_map() {
        let entries = [("b".to_owned(), 2), ("a".to_owned(), 1)];
        let map: SharedMap<String, u32> = entries.into_iter().collect();
        let json = serde_json::to_string(&map).unwrap();
        assert_eq!(json, r#"{"a":1,"b":2}"#);
        assert_eq!(serde_json::from_str::<SharedMap<String, u32>>(&json).unwrap(), map);
    }

    /// What a change copies while somebody holds the map as it was.
    #[test]
    fn a_change_copies_one_path() {
        let mut map: SharedMap<u32, u32> = (0..100_000).map(|key| (key * 2, key)).collect();
        let held = map.clone();
        map.insert(77_777, 0);
        fn nodes<'a>(node: &'a Arc<Node<u32, u32>>, into: &mut Vec<&'a Arc<Node<u32, u32>>>) {
            into.push(node);
            if let Node::Branch(children) = &**node {
                children.iter().for_each(|child| nodes(&child.node, into));
            }
        }
        let (mut of_held, mut of_map) = (Vec::new(), Vec::new());
        nodes(&held.root, &mut of_held);
        nodes(&map.root, &mut of_map);
        let known: std::collections::HashSet<*const Node<u32, u32>> =
            of_held.iter().map(|node| Arc::as_ptr(node)).collect();
        let new = of_map.iter().filter(|node| !known.contains(&Arc::as_ptr(node))).count();
        assert!(of_held.len() > 3000 && new <= 8, "{new} of {}", of_map.len());
    }
}
