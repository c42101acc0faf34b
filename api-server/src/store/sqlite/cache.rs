//! What was read, in bounded memory. Whether it is still true is for whoever asks.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// New entries and used ones go to the younger of two generations; when that is full, the older one is dropped as a
/// whole. So a call never walks the entries, and memory is bounded by two generations.
pub(super) struct Cache<K, V> {
    /// Most bytes of one generation.
    most: usize,
    generations: Mutex<Generations<K, V>>,
}

struct Generations<K, V> {
    young: HashMap<K, Held<V>>,
    /// Bytes in `young`.
    bytes: usize,
    old: HashMap<K, Held<V>>,
}

struct Held<V> {
    value: V,
    bytes: usize,
}

/// What an entry costs beside what it holds: its place in the table, the counts of what is shared.
const OVERHEAD: usize = 96;

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                bytes: 0,
                old: HashMap::new(),
            }),
        }
    }

    /// The entry, if `holds` says that it is true; one that is not is forgotten.
    pub(super) fn get(&self, key: &K, holds: impl FnOnce(&V) -> bool) -> Option<V> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let generations = &mut *generations;
        if let Some(held) = generations.young.get(key) {
            if holds(&held.value) {
                return Some(held.value.clone());
            }
            let bytes = held.bytes;
            generations.young.remove(key);
            generations.bytes -= bytes;
            return None;
        }
        let (key, held) = generations.old.remove_entry(key)?;
        if !holds(&held.value) {
            return None;
        }
        let value = held.value.clone();
        generations.keep(key, held, self.most);
        Some(value)
    }

    /// Remembers a value that takes about so many bytes, key and all.
    pub(super) fn put(&self, key: K, value: V, bytes: usize) {
        let bytes = bytes + OVERHEAD;
        // What is large is read again each time: it would push out many others.
        if bytes > self.most / 64 {
            return;
        }
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.keep(key, Held { value, bytes }, self.most);
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let generations = self.generations.lock().unwrap();
        let all = generations.young.values().chain(generations.old.values());
        all.map(|held| held.bytes).sum()
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn keep(&mut self, key: K, held: Held<V>, most: usize) {
        if self.bytes + held.bytes > most {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += held.bytes;
        if let Some(before) = self.young.insert(key, held) {
            self.bytes -= before.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 64 * 2 * OVERHEAD;

    #[test]
    fn what_is_not_true_any_more_is_forgotten() {
        let cache = Cache::new(MOST);
        cache.put("key", 1, 0);
        assert_eq!(cache.get(&"key", |_| true), Some(1));
        assert_eq!(cache.get(&"key", |value| *value == 2), None);
        assert_eq!(cache.get(&"key", |_| true), None);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let cache = Cache::new(MOST);
        cache.put(0, 0, 0);
        for key in 1..10_000 {
            cache.put(key, key, 0);
            assert_eq!(cache.get(&0, |_| true), Some(0), "{key}");
        }
        assert!(cache.bytes() <= 2 * MOST, "{}", cache.bytes());
        assert_eq!(cache.get(&1, |_| true), None);
        assert_eq!(cache.get(&9_999, |_| true), Some(9_999));
    }

    #[test]
    fn what_is_large_is_not_remembered() {
        let cache = Cache::new(MOST);
        cache.put("large", 1, MOST / 64);
        assert_eq!(cache.get(&"large", |_| true), None);
    }

    #[test]
    fn an_entry_that_is_written_again_counts_once() {
        let cache = Cache::new(MOST);
        for value in 0..1_000 {
            cache.put("key", value, 0);
        }
        assert_eq!(cache.get(&"key", |_| true), Some(999));
        assert_eq!(cache.bytes(), OVERHEAD);
    }
}
