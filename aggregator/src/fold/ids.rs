//! The event ids of the last `dedup_minutes` of log clock, each with the minute in which it was last seen.
//!
//! Open addressing with linear probing over plain slots: looking an id up costs one cache miss, because nothing is kept beside
//! the slots. What has expired is written over where it lies in the way, and dropped before a shard grows, so memory follows the
//! ids in the window (24 bytes each, at a load of a half to three quarters) and not those since the start.

use schemas::{EventHash, Minute};

/// So many tables that growing one is a short pause and a small overlap of old and new.
const SHARDS: usize = 64;
const SLOTS_MIN: usize = 64;

#[derive(Clone, Copy)]
struct Slot {
    high: u64,
    low: u64,
    /// When the id was last seen; [`EMPTY`] if there never was one.
    minute: i32,
}

const EMPTY: i32 = i32::MIN;
const FREE: Slot = Slot { high: 0, low: 0, minute: EMPTY };

/// The ids that an event is a duplicate of.
pub(crate) struct SeenIds {
    shards: Vec<Shard>,
    /// How many minutes an id stays; 0 remembers none.
    window: i32,
}

#[derive(Default)]
struct Shard {
    slots: Vec<Slot>,
    /// Slots that are not empty; the ids in some of them may have expired.
    used: usize,
}

impl SeenIds {
    pub(crate) fn new(dedup_minutes: i32) -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), window: dedup_minutes }
    }

    /// Whether it remembers none.
    pub(crate) const fn is_off(&self) -> bool {
        self.window == 0
    }

    /// Reads the place of an id that will be looked for soon, and waits for nothing: the look-up then finds it in the cache.
    pub(crate) fn touch(&self, id: EventHash) {
        let (high, low) = split(id.0);
        if let Some(shard) = self.shards.get(shard_of(high)) {
            std::hint::black_box(shard.slots.get(place(low, shard.slots.len())).map_or(EMPTY, |slot| slot.minute));
        }
    }

    /// Notes that `id` was read when the log clock stood in `minute`. Returns whether it was there within the window.
    pub(crate) fn see(&mut self, id: EventHash, minute: Minute) -> bool {
        if self.window == 0 {
            return false;
        }
        let (high, low) = split(id.0);
        let oldest = minute.0.saturating_sub(self.window);
        self.shards.get_mut(shard_of(high)).is_some_and(|shard| shard.see(high, low, minute.0, oldest))
    }

    /// How many ids are held; some of them may have expired.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.used).sum()
    }

    /// About how much memory they take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.slots.capacity() * size_of::<Slot>()).sum()
    }
}

impl Shard {
    fn see(&mut self, high: u64, low: u64, minute: i32, oldest: i32) -> bool {
        let mut at = place(low, self.slots.len());
        let mut expired = None;
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.low == low && slot.high == high && slot.minute != EMPTY {
                let duplicate = slot.minute >= oldest;
                slot.minute = minute;
                return duplicate;
            }
            if slot.minute == EMPTY {
                break;
            }
            if slot.minute < oldest && expired.is_none() {
                expired = Some(at);
            }
            at = if at + 1 < self.slots.len() { at + 1 } else { 0 };
        }
        let new = Slot { high, low, minute };
        if let Some(slot) = expired.and_then(|at| self.slots.get_mut(at)) {
            *slot = new;
            return false;
        }
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.make_room(oldest);
            self.insert(new);
        } else if let Some(slot) = self.slots.get_mut(at) {
            *slot = new;
            self.used += 1;
        }
        false
    }

    /// Drops what has expired, and leaves at most half of the slots used.
    fn make_room(&mut self, oldest: i32) {
        let old = std::mem::take(&mut self.slots);
        let is_live = |slot: &&Slot| slot.minute != EMPTY && slot.minute >= oldest;
        let count = old.iter().filter(is_live).count();
        self.slots = vec![FREE; (count * 2).max(SLOTS_MIN)];
        self.used = 0;
        for slot in old.iter().filter(is_live) {
            self.insert(*slot);
        }
    }

    /// Puts in an id that is not there, where there is room.
    fn insert(&mut self, new: Slot) {
        let mut at = place(new.low, self.slots.len());
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.minute == EMPTY {
                *slot = new;
                self.used += 1;
                return;
            }
            at = if at + 1 < self.slots.len() { at + 1 } else { 0 };
        }
    }
}

/// By the end of the upper half, because a slot is chosen by the beginning of the lower.
fn shard_of(high: u64) -> usize {
    usize::try_from(high).unwrap_or_default() % SHARDS
}

/// Where among `slots` an id's search begins: the hash as a fraction of the whole.
fn place(low: u64, slots: usize) -> usize {
    let scaled = (u128::from(low) * slots as u128) >> 64;
    usize::try_from(scaled).unwrap_or_default()
}

fn split(id: u128) -> (u64, u64) {
    let [high, low] = [id >> 64, id & u128::from(u64::MAX)];
    (u64::try_from(high).unwrap_or_default(), u64::try_from(low).unwrap_or_default())
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

    /// Many ids, crowded shards, all ages: what property tests of a few hundred steps do not reach.
    #[test]
    fn agrees_with_a_map_when_shards_fill_expire_and_grow() {
        let mut ids = SeenIds::new(3);
        let mut model: HashMap<u64, i32> = HashMap::new();
        let mut state = 7u64;
        for step in 0..400_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The ids in use drift, as they do in a log, and come back after any time.
            let id = (state >> 33) % 30_000 + (step / 100_000) * 20_000;
            let minute = i32::try_from(step / 8_000).unwrap();
            let expected = model.insert(id, minute).is_some_and(|last| last >= minute - 3);
            assert_eq!(ids.see(EventHash::of(&id.to_string()), Minute(minute)), expected, "step {step}");
        }
        assert!(ids.len() <= model.len() && ids.bytes() < 30_000 * 24 * 4, "{} ids in {} bytes", ids.len(), ids.bytes());
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
