//! An ordered set whose copies share what they have in common: a [`SharedMap`] of keys alone.

use super::shared_map::SharedMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;

/// An ordered set that is copied in no time.
pub struct SharedSet<K>(SharedMap<K, ()>);

impl<K> SharedSet<K> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is in it, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &K> + Clone {
        self.0.keys()
    }

    /// Whether something is in it.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }
}

impl<K: Ord + Clone> SharedSet<K> {
    /// Puts something into it; whether that is new.
    pub fn insert(&mut self, key: K) -> bool {
        self.0.insert(key, ()).is_none()
    }

    /// Takes something out of it; whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove(key).is_some()
    }
}

impl<K> Clone for SharedSet<K> {
    fn clone(&self) -> SharedSet<K> {
        SharedSet(self.0.clone())
    }
}

impl<K> Default for SharedSet<K> {
    fn default() -> SharedSet<K> {
        SharedSet(SharedMap::default())
    }
}

impl<K: PartialEq> PartialEq for SharedSet<K> {
    fn eq(&self, other: &SharedSet<K>) -> bool {
        self.0 == other.0
    }
}

impl<K: fmt::Debug> fmt::Debug for SharedSet<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone> Extend<K> for SharedSet<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        self.0.extend(keys.into_iter().map(|key| (key, ())));
    }
}

impl<K: Ord + Clone> FromIterator<K> for SharedSet<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> SharedSet<K> {
        SharedSet(keys.into_iter().map(|key| (key, ())).collect())
    }
}

impl<K: Serialize> Serialize for SharedSet<K> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de, K: Deserialize<'de> + Ord + Clone> Deserialize<'de> for SharedSet<K> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SharedSet<K>, D::Error> {
        Vec::deserialize(from).map(SharedSet::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set() {
        let mut set: SharedSet<u32> = [3, 1, 2, 3].into_iter().collect();
        assert!(set.iter().copied().eq([1, 2, 3]));
        assert!(!set.insert(2) && set.insert(5) && set.remove(&1) && !set.remove(&1));
        assert_eq!((set.len(), set.contains(&5)), (3, true));
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, "[2,3,5]");
        assert_eq!(serde_json::from_str::<SharedSet<u32>>(&json).unwrap(), set);
    }
}
