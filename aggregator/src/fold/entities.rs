//! Names of entities, each kept once while a resident cell uses it, so that a cell's key is two integers.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::Arc;

use foldhash::fast::FixedState;
use schemas::{Dimension, Entity, Tier};

use super::cells::CellIx;
use super::events::Hint;
use super::index::Index;

/// The place of an entity in [`Entities`].
pub(crate) type EntityIx = u32;

/// One cache line, with a short name in it.
#[repr(align(64))]
struct Named {
    id: Arc<str>,
    /// Of each tier the cell that it last counted in: most changes of an entity go there.
    latest: [CellIx; Tier::ALL.len()],
    cells: u32,
    hash: u32,
    short: Short,
    dimension: Dimension,
}

const _: () = assert!(size_of::<Option<Named>>() == 64, "an entity is one cache line");

/// A name, if it is short: as long as it is, compared without leaving the line.
#[derive(Clone, Copy)]
struct Short {
    len: u8,
    bytes: [u8; 22],
}

impl Short {
    /// The length of what is too long.
    const LONG: u8 = u8::MAX;

    fn of(id: &str) -> Self {
        let mut bytes = [0; 22];
        match (bytes.get_mut(..id.len()), u8::try_from(id.len())) {
            (Some(to), Ok(len)) => {
                to.copy_from_slice(id.as_bytes());
                Self { len, bytes }
            }
            _ => Self { len: Self::LONG, bytes },
        }
    }
}

impl Named {
    #[inline]
    fn is(&self, dimension: Dimension, id: &str) -> bool {
        self.dimension == dimension
            && if self.short.len == Short::LONG {
                *self.id == *id
            } else {
                usize::from(self.short.len) == id.len()
                    && self.short.bytes.get(..id.len()).is_some_and(|bytes| are_same(bytes, id.as_bytes()))
            }
    }
}

/// Whether two texts of one length are the same: for the few bytes of most ids, numbers are compared sooner than a call is made.
#[inline]
fn are_same(a: &[u8], b: &[u8]) -> bool {
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(a_first), Some(b_first), Some(a_last), Some(b_last)) if a.len() <= 16 => a_first == b_first && a_last == b_last,
        (None, None, ..) => match (a.first_chunk::<4>(), b.first_chunk::<4>(), a.last_chunk::<4>(), b.last_chunk::<4>()) {
            (Some(a_first), Some(b_first), Some(a_last), Some(b_last)) => a_first == b_first && a_last == b_last,
            _ => a.iter().eq(b),
        },
        _ => a == b,
    }
}

/// Interned entities, counted by the cells that use them.
#[derive(Default)]
pub(crate) struct Entities {
    slots: Vec<Option<Named>>,
    free: Vec<EntityIx>,
    by_name: Index,
    hasher: FixedState,
}

impl Entities {
    /// The hash by which [`Entities::intern`] finds a name.
    #[inline]
    pub(crate) fn hash(&self, dimension: Dimension, id: &str) -> u32 {
        let hash = self.hasher.hash_one(id.as_bytes());
        let folded = (hash ^ (hash >> 32)) & u64::from(u32::MAX);
        u32::try_from(folded).unwrap_or_default().wrapping_add(u32::from(dimension.code()))
    }

    /// The place of an entity; a new one is not used by any cell yet.
    #[inline]
    pub(crate) fn intern(&mut self, dimension: Dimension, id: &str) -> EntityIx {
        self.intern_hashed(self.hash(dimension, id), dimension, id)
    }

    /// As [`Entities::intern`], with the name's hash.
    #[inline]
    pub(crate) fn intern_hashed(&mut self, hash: u32, dimension: Dimension, id: &str) -> EntityIx {
        let same = |ix| self.named(ix).is_some_and(|named| named.is(dimension, id));
        match self.by_name.find(hash, same) {
            Some(ix) => ix,
            None => self.add(hash, dimension, id),
        }
    }

    /// As [`Entities::intern_hashed`], beginning where the name was last seen.
    #[inline]
    pub(crate) fn intern_at(&mut self, hint: Hint, dimension: Dimension, id: &str) -> EntityIx {
        if self.named(hint.place).is_some_and(|named| named.is(dimension, id)) {
            return hint.place;
        }
        self.intern_hashed(hint.hash, dimension, id)
    }

    /// A place of some name with that hash, most likely the only one; no place if there is none.
    #[inline]
    pub(crate) fn likely(&self, hash: u32) -> EntityIx {
        self.by_name.find(hash, |_| true).unwrap_or(EntityIx::MAX)
    }

    fn add(&mut self, hash: u32, dimension: Dimension, id: &str) -> EntityIx {
        let id = Entity::new(dimension, id).id;
        let named = Some(Named { short: Short::of(&id), id, latest: [CellIx::MAX; Tier::ALL.len()], cells: 0, hash, dimension });
        let ix = if let Some(ix) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(ix as usize) {
                *slot = named;
            }
            ix
        } else {
            self.slots.push(named);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        self.by_name.insert(hash, ix);
        ix
    }

    #[inline]
    fn named(&self, ix: EntityIx) -> Option<&Named> {
        self.slots.get(ix as usize)?.as_ref()
    }

    #[inline]
    fn named_mut(&mut self, ix: EntityIx) -> Option<&mut Named> {
        self.slots.get_mut(ix as usize)?.as_mut()
    }

    /// The entity at a place.
    pub(crate) fn get(&self, ix: EntityIx) -> Option<Entity> {
        self.named(ix).map(|named| Entity { dimension: named.dimension, id: Arc::clone(&named.id) })
    }

    /// Reads what lies at a place and waits for nothing, so that it is in the cache when it is needed.
    pub(crate) fn touch(&self, ix: EntityIx) {
        black_box(self.slots.get(ix as usize).is_some_and(Option::is_some));
    }

    /// As [`Entities::touch`], of the name itself, which a row shares.
    pub(crate) fn touch_name(&self, ix: EntityIx) {
        black_box(self.named(ix).map(|named| Arc::strong_count(&named.id)));
    }

    /// The cell of the tier that it last counted in, to be looked at before it is believed.
    #[inline]
    pub(crate) fn latest(&self, ix: EntityIx, tier: Tier) -> CellIx {
        self.named(ix).and_then(|named| named.latest.get(usize::from(tier.code()))).copied().unwrap_or(CellIx::MAX)
    }

    /// Remembers the cell of the tier that it last counted in.
    #[inline]
    pub(crate) fn set_latest(&mut self, ix: EntityIx, tier: Tier, cell: CellIx) {
        if let Some(latest) = self.named_mut(ix).and_then(|named| named.latest.get_mut(usize::from(tier.code()))) {
            *latest = cell;
        }
    }

    /// One more cell uses it.
    pub(crate) fn hold(&mut self, ix: EntityIx) {
        if let Some(named) = self.named_mut(ix) {
            named.cells += 1;
        }
    }

    /// One cell fewer uses it; the last one frees the place.
    pub(crate) fn release(&mut self, ix: EntityIx) {
        let Some(slot) = self.slots.get_mut(ix as usize) else { return };
        let Some(named) = slot else { return };
        named.cells = named.cells.saturating_sub(1);
        if named.cells > 0 {
            return;
        }
        let hash = named.hash;
        *slot = None;
        self.by_name.remove(hash, ix);
        self.free.push(ix);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_place_until_its_last_cell_goes() {
        let mut entities = Entities::default();
        let a = entities.intern(Dimension::Video, "a");
        assert_eq!(entities.intern(Dimension::Video, "a"), a);
        assert_ne!(entities.intern(Dimension::Space, "a"), a);
        entities.hold(a);
        entities.hold(a);
        entities.release(a);
        assert_eq!(entities.get(a).map(|e| e.id.to_string()).as_deref(), Some("a"));
        entities.release(a);
        assert_eq!(entities.get(a), None);
        assert_eq!(entities.intern(Dimension::Video, "b"), a, "the place is used again");
    }

    #[test]
    fn two_texts_are_the_same_if_every_byte_is() {
        for len in 0..=40 {
            let text = vec![b'x'; len];
            assert!(are_same(&text, &text.clone()));
            for at in 0..len {
                let mut other = text.clone();
                other[at] = b'y';
                assert!(!are_same(&text, &other), "{len} bytes, differing at {at}");
            }
        }
    }

    #[test]
    fn names_of_any_length_are_told_apart() {
        let mut entities = Entities::default();
        let names: Vec<String> = (1..=128).flat_map(|len| ["a".repeat(len), format!("{}b", "a".repeat(len - 1))]).collect();
        let places: Vec<EntityIx> = names.iter().map(|name| entities.intern(Dimension::Video, name)).collect();
        for (name, place) in names.iter().zip(&places) {
            assert_eq!(entities.intern(Dimension::Video, name), *place);
            assert_eq!(entities.get(*place).map(|e| e.id.to_string()).as_ref(), Some(name));
        }
        let distinct: std::collections::BTreeSet<_> = places.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
