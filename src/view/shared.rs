//! Values whose copies are one until one of them changes: a view is copied for every reader, and a
//! copy must cost nothing.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A value that its copies share. Whoever changes one while others hold it gets a copy of his own.
pub struct Shared<T: ?Sized>(Arc<T>);

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(self.0.clone())
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Shared<T> {
        Shared(Arc::new(value))
    }
}

impl<T> From<Vec<T>> for Shared<[T]> {
    fn from(list: Vec<T>) -> Shared<[T]> {
        Shared(list.into())
    }
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared::from(T::default())
    }
}

impl<T: PartialEq + ?Sized> PartialEq for Shared<T> {
    fn eq(&self, other: &Shared<T>) -> bool {
        // Of values that hold no number which differs from itself.
        Arc::ptr_eq(&self.0, &other.0) || *self.0 == *other.0
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a, T> IntoIterator for &'a Shared<[T]> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Serialize + ?Sized> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Shared<T>, D::Error> {
        T::deserialize(from).map(Shared::from)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<[T]> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Shared<[T]>, D::Error> {
        Vec::deserialize(from).map(Shared::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_until_it_changes() {
        let mut one: Shared<Vec<i32>> = vec![1, 2].into();
        let other = one.clone();
        assert!(std::ptr::eq(&*one, &*other));
        one.push(3);
        assert_eq!((one.as_slice(), other.as_slice()), (&[1, 2, 3][..], &[1, 2][..]));
        assert_ne!(one, other);
        let before: *const Vec<i32> = &*one;
        one.push(4);
        assert!(std::ptr::eq(before, &*one), "nobody else holds it: it is changed in place");
    }

    #[test]
    fn its_json_is_that_of_the_value() {
        let list: Shared<[u32]> = vec![1, 2].into();
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(json, "[1,2]");
        assert_eq!(serde_json::from_str::<Shared<[u32]>>(&json).unwrap(), list);
        assert_eq!(serde_json::from_str::<Shared<String>>("\"x\"").unwrap().as_str(), "x");
    }
}
