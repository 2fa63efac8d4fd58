//! The event ids of the last `dedup_minutes` of log clock, each with the minute in which it was last seen.
//!
//! One probe of an open-addressing table an event. About 24 bytes an id; what has expired is dropped before a shard
//! grows, so memory follows the ids in the window and not those since the start.

use hashbrown::HashTable;
use schemas::{EventHash, Minute};

/// So many tables that growing one is a short pause and a small overlap of old and new.
const SHARDS: usize = 64;

#[derive(Clone, Copy)]
struct Seen {
    high: u64,
    low: u64,
    minute: i32,
}

/// The ids that an event is a duplicate of.
pub(crate) struct SeenIds {
    shards: Vec<HashTable<Seen>>,
    /// How many minutes an id stays; 0 remembers none.
    window: i32,
}

impl SeenIds {
    pub(crate) fn new(dedup_minutes: i32) -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), window: dedup_minutes }
    }

    /// Notes that `id` was read when the log clock stood in `minute`. Returns whether it was there within the window.
    pub(crate) fn see(&mut self, id: EventHash, minute: Minute) -> bool {
        if self.window == 0 {
            return false;
        }
        let (high, low) = split(id.0);
        let oldest = minute.0.saturating_sub(self.window);
        let Some(shard) = self.shards.get_mut(shard_of(high)) else { return false };
        if let Some(seen) = shard.find_mut(low, |seen| seen.low == low && seen.high == high) {
            let duplicate = seen.minute >= oldest;
            seen.minute = minute.0;
            return duplicate;
        }
        if shard.len() == shard.capacity() {
            shard.retain(|seen| seen.minute >= oldest);
        }
        shard.insert_unique(low, Seen { high, low, minute: minute.0 }, |seen| seen.low);
        false
    }

    /// How many ids are held; some of them may have expired.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }

    /// About how much memory they take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(HashTable::allocation_size).sum()
    }
}

fn split(id: u128) -> (u64, u64) {
    let [high, low] = [id >> 64, id & u128::from(u64::MAX)];
    (u64::try_from(high).unwrap_or_default(), u64::try_from(low).unwrap_or_default())
}

/// By the upper half, because the table places by the lower.
fn shard_of(high: u64) -> usize {
    usize::try_from(high).unwrap_or_default() % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_window_of_zero_remembers_nothing() {
        let mut ids = SeenIds::new(0);
        assert!(!ids.see(EventHash(1), Minute(0)));
        assert!(!ids.see(EventHash(1), Minute(0)));
        assert_eq!(ids.len(), 0);
    }

    #[test]
    fn what_has_expired_makes_room() {
        let mut ids = SeenIds::new(1);
        for minute in 0..50 {
            for n in 0..2_000u128 {
                let id = schemas::EventHash::of(&format!("{minute}-{n}"));
                assert!(!ids.see(id, Minute(minute)));
            }
        }
        assert!(ids.len() < 20_000, "{}", ids.len());
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(window in 0i32..4, steps in proptest::collection::vec((0u8..20, 0i32..2), 1..300)) {
            let mut ids = SeenIds::new(window);
            let mut model: HashMap<u8, i32> = HashMap::new();
            let mut minute = 0;
            for (id, step) in steps {
                minute += step;
                let expected = window > 0 && model.insert(id, minute).is_some_and(|last| last >= minute - window);
                prop_assert_eq!(ids.see(EventHash::of(&id.to_string()), Minute(minute)), expected);
            }
        }
    }
}
