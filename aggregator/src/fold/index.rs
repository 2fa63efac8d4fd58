//! Finds places by the hash of what lies there: beside each place its hash, so that neither a look nor growing touches what it holds.

use hashbrown::HashTable;

/// Places in some table of slots, by hash.
#[derive(Default)]
pub(crate) struct Index(HashTable<Entry>);

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    place: u32,
}

/// The table wants 64 bits that are all of use; these are as good as the 32 that are kept.
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// The place with that hash of which `is_it` is true.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.0.find(spread(hash), |entry| entry.hash == hash && is_it(entry.place)).map(|entry| entry.place)
    }

    /// Puts in a place that is not there.
    pub(crate) fn insert(&mut self, hash: u32, place: u32) {
        self.0.insert_unique(spread(hash), Entry { hash, place }, |entry| spread(entry.hash));
    }

    /// Takes a place out.
    pub(crate) fn remove(&mut self, hash: u32, place: u32) {
        if let Ok(entry) = self.0.find_entry(spread(hash), |entry| entry.place == place) {
            entry.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
