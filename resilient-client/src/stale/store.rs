//! Where answers are kept: so many entries, so many bytes, the least recently used first to go.
//!
//! Every operation takes the same few steps however much is kept, except that removing a URL takes
//! a step for each of its entries, each of which was put there before. The order of use is a list
//! through the slots, by index.

use std::collections::HashMap;
use std::sync::Arc;

use super::key::Key;

/// No slot.
const NONE: usize = usize::MAX;

/// A bounded map from [`Key`]s, which can also forget all keys of a URL.
pub(super) struct Store<V> {
    max_entries: usize,
    max_bytes: usize,
    bytes: usize,
    /// By URL, and there by who asks.
    places: HashMap<Arc<str>, HashMap<Arc<[u8]>, usize>>,
    slots: Vec<Slot<V>>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
}

struct Slot<V> {
    entry: Option<Held<V>>,
    newer: usize,
    older: usize,
}

struct Held<V> {
    key: Key,
    value: V,
    weight: usize,
}

impl<V: Clone> Store<V> {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            max_entries,
            max_bytes,
            bytes: 0,
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is kept for `key`, which counts as a use.
    pub(super) fn get(&mut self, key: &Key) -> Option<V> {
        let index = *self.places.get(&key.url)?.get(&key.who)?;
        let value = self.slots.get(index)?.entry.as_ref()?.value.clone();
        self.unlink(index);
        self.link_newest(index);
        Some(value)
    }

    /// Keeps `value` in place of whatever was kept for `key`. One heavier than all there is room
    /// for isn't kept.
    pub(super) fn put(&mut self, key: Key, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.max_bytes || self.max_entries == 0 {
            return;
        }
        while self.len() >= self.max_entries || self.bytes > self.max_bytes - weight {
            if !self.remove_at(self.oldest) {
                return;
            }
        }
        let place = (Arc::clone(&key.url), Arc::clone(&key.who));
        let slot = Slot { entry: Some(Held { key, value, weight }), newer: NONE, older: NONE };
        let index = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        self.bytes += weight;
        self.places.entry(place.0).or_default().insert(place.1, index);
        self.link_newest(index);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let index = self.places.get(&key.url).and_then(|askers| askers.get(&key.who)).copied();
        if let Some(index) = index {
            self.remove_at(index);
        }
    }

    /// Forgets what is kept for a URL, whoever asked.
    pub(super) fn forget_url(&mut self, url: &str) {
        for index in self.places.remove(url).into_iter().flat_map(HashMap::into_values) {
            self.remove_at(index);
        }
    }

    /// Whether there was something.
    fn remove_at(&mut self, index: usize) -> bool {
        let Some(held) = self.slots.get_mut(index).and_then(|slot| slot.entry.take()) else { return false };
        self.unlink(index);
        self.free.push(index);
        self.bytes -= held.weight;
        if let Some(askers) = self.places.get_mut(&held.key.url) {
            askers.remove(&held.key.who);
            if askers.is_empty() {
                self.places.remove(&held.key.url);
            }
        }
        true
    }

    fn unlink(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let (newer, older) = (slot.newer, slot.older);
        (slot.newer, slot.older) = (NONE, NONE);
        match self.slots.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, index: usize) {
        let older = std::mem::replace(&mut self.newest, index);
        if let Some(slot) = self.slots.get_mut(index) {
            (slot.newer, slot.older) = (NONE, older);
        }
        match self.slots.get_mut(older) {
            Some(older) => older.newer = index,
            None => self.oldest = index,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8, usize),
        Get(u8, u8),
        Remove(u8, u8),
        Forget(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let (url, who) = (0..4_u8, 0..4_u8);
        let step = prop_oneof![
            4 => (url.clone(), who.clone(), 0..40_usize).prop_map(|(url, who, weight)| Step::Put(url, who, weight)),
            3 => (url.clone(), who.clone()).prop_map(|(url, who)| Step::Get(url, who)),
            1 => (url.clone(), who).prop_map(|(url, who)| Step::Remove(url, who)),
            1 => url.prop_map(Step::Forget),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn key(url: u8, who: u8) -> Key {
        Key { url: url.to_string().into(), who: Arc::from([who]) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// The model is a list in order of use, the oldest first.
        #[test]
        fn it_does_what_a_list_would(steps in steps(), max_entries in 1..8_usize, max_bytes in 1..100_usize) {
            let mut store = Store::new(max_entries, max_bytes);
            let mut model: Vec<((u8, u8), usize, usize)> = Vec::new();
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(url, who, weight) => {
                        store.put(key(url, who), value, weight);
                        model.retain(|(known, ..)| *known != (url, who));
                        if weight <= max_bytes {
                            while model.len() >= max_entries
                                || model.iter().map(|(.., weight)| weight).sum::<usize>() + weight > max_bytes
                            {
                                model.remove(0);
                            }
                            model.push(((url, who), value, weight));
                        }
                    }
                    Step::Get(url, who) => {
                        let index = model.iter().position(|(known, ..)| *known == (url, who));
                        let expected = index.map(|index| model.remove(index));
                        prop_assert_eq!(store.get(&key(url, who)), expected.map(|(_, value, _)| value));
                        model.extend(expected);
                    }
                    Step::Remove(url, who) => {
                        store.remove(&key(url, who));
                        model.retain(|(known, ..)| *known != (url, who));
                    }
                    Step::Forget(url) => {
                        store.forget_url(&url.to_string());
                        model.retain(|((known, _), ..)| *known != url);
                    }
                }
                prop_assert_eq!(store.len(), model.len());
                prop_assert_eq!(store.bytes(), model.iter().map(|(.., weight)| weight).sum::<usize>());
                prop_assert!(store.len() <= max_entries && store.bytes() <= max_bytes);
                prop_assert!(store.slots.len() <= max_entries, "slots are used again");
                let places: usize = store.places.values().map(HashMap::len).sum();
                prop_assert_eq!(places, model.len());
            }
        }
    }
}
