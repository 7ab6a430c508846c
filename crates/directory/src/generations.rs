use std::collections::HashMap;
use std::hash::Hash;

/// A bounded map in two generations: when the young one is full it becomes the old one, and what nobody touched
/// since is forgotten. Every operation takes constant time.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Copy, V> Generations<K, V> {
    /// A map of at most `limit` entries, and never fewer than two.
    pub(crate) fn new(limit: usize) -> Self {
        Generations { half: (limit / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// The value of `key`, which counts as touched only when it is put again.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
