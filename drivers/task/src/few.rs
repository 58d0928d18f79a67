//! Few things: a map that is a sorted list, and a sort for lists that are short.
//! Both are slower than what the standard library has for many, and a tenth of its
//! code, of which each type of key and value would have its own copy.

use alloc::vec::Vec;
use core::mem;

/// Values by key, in the order of keys.
#[derive(Clone, Debug)]
pub struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Few<K, V> {
    /// Without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The entries, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The values, in the order of keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Removes the entries that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }
}

impl<K: Ord, V> Few<K, V> {
    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(key))
    }

    /// Whether there is a value.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// The value of that key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let at = self.find(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// The entry with the least key, if `wanted` says so: it is none any more.
    pub fn pop_first_if(&mut self, wanted: impl FnOnce(&K) -> bool) -> Option<V> {
        let (key, _) = self.0.first()?;
        wanted(key).then(|| self.0.remove(0).1)
    }

    /// Puts a value there, instead of what was there, which it returns.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1)
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Few<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut few = Self::new();
        for (key, value) in entries {
            few.insert(key, value);
        }
        few
    }
}

/// Sorts a short list; what has one key keeps its order.
pub fn sort_few<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    for end in 1..list.len() {
        let mut at = end;
        while at > 0 && key(&list[at - 1]) > key(&list[at]) {
            list.swap(at - 1, at);
            at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_the_order_of_keys() {
        let mut few: Few<_, _> = [5, 1, 9, 3].map(|key| (key, key)).into_iter().collect();
        for key in [5, 1, 9, 3] {
            assert_eq!(few.insert(key, key * 10), Some(key));
        }
        assert!(few.values().eq(&[10, 30, 50, 90]));
        assert_eq!((few.get(&3), few.get(&4)), (Some(&30), None));
        assert_eq!((few.remove(&1), few.remove(&1)), (Some(10), None));
        *few.get_mut(&9).expect("there") += 1;
        assert!(few.contains_key(&9) && few.values().eq(&[30, 50, 91]));
        assert_eq!(few.pop_first_if(|key| *key > 3), None);
        assert_eq!(few.pop_first_if(|key| *key == 3), Some(30));
        few.retain(|key, value| *key == 9 && *value == 91);
        assert!(few.iter().eq([(&9, &91)]) && few.len() == 1);
        few.clear();
        assert!(few.is_empty() && !few.contains_key(&9));
    }

    #[test]
    fn a_short_list_is_sorted_and_equals_stay_in_their_order() {
        let mut list = [(3, 'a'), (1, 'b'), (3, 'c'), (2, 'd'), (1, 'e')];
        sort_few(&mut list, |(key, _)| *key);
        assert_eq!(list, [(1, 'b'), (1, 'e'), (2, 'd'), (3, 'a'), (3, 'c')]);
        sort_few(&mut [0u8; 0], |key| *key);
    }
}
