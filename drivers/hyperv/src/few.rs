//! A map for few entries: a sorted list, whose code is small.

use alloc::vec::Vec;

/// Values by key, in the order of keys.
pub(crate) struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Few<K, V> {
    /// Without entries.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The values, in the order of keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Copy, V> Few<K, V> {
    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(key))
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.find(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Puts a value there, instead of what was there.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.0[at] = (key, value),
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_the_order_of_keys() {
        let mut few = Few::new();
        for key in [5, 1, 9, 3, 5] {
            few.insert(key, key * 10);
        }
        assert!(few.values().eq(&[10, 30, 50, 90]));
        assert_eq!((few.get(&3), few.get(&4)), (Some(&30), None));
        assert_eq!((few.remove(&1), few.remove(&1)), (Some(10), None));
        *few.get_mut(&9).expect("there") += 1;
        assert!(few.contains_key(&9) && few.values().eq(&[30, 50, 91]));
        few.clear();
        assert!(!few.contains_key(&9));
    }
}
