//! Names of entities, each kept once while a resident cell uses it, so that a cell's key is two integers.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use schemas::{Dimension, Entity};

use super::cells::CellIx;

/// The place of an entity in [`Entities`].
pub(crate) type EntityIx = u32;

struct Named {
    entity: Entity,
    cells: u32,
    /// The open minute cell that it last counted in: most events of an entity fall into one minute.
    latest: CellIx,
}

/// Interned entities, counted by the cells that use them.
#[derive(Default)]
pub(crate) struct Entities {
    slots: Vec<Option<Named>>,
    free: Vec<EntityIx>,
    by_name: HashTable<EntityIx>,
    hasher: FixedState,
}

fn hash(hasher: &FixedState, dimension: Dimension, id: &str) -> u64 {
    hasher.hash_one((dimension.code(), id))
}

impl Entities {
    /// The place of an entity; a new one is not used by any cell yet.
    pub(crate) fn intern(&mut self, dimension: Dimension, id: &str) -> EntityIx {
        let hash_of = hash(&self.hasher, dimension, id);
        let same = |ix: &EntityIx| self.get(*ix).is_some_and(|entity| entity.dimension == dimension && *entity.id == *id);
        if let Some(ix) = self.by_name.find(hash_of, same) {
            return *ix;
        }
        let named = Some(Named { entity: Entity::new(dimension, id), cells: 0, latest: CellIx::MAX });
        let ix = if let Some(ix) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(ix as usize) {
                *slot = named;
            }
            ix
        } else {
            self.slots.push(named);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_name.insert_unique(hash_of, ix, |ix| match slots.get(*ix as usize) {
            Some(Some(named)) => hash(hasher, named.entity.dimension, &named.entity.id),
            _ => 0,
        });
        ix
    }

    /// The entity at a place.
    pub(crate) fn get(&self, ix: EntityIx) -> Option<&Entity> {
        self.slots.get(ix as usize)?.as_ref().map(|named| &named.entity)
    }

    /// The cell that it last counted in, to be looked at before it is believed.
    pub(crate) fn latest(&self, ix: EntityIx) -> CellIx {
        match self.slots.get(ix as usize) {
            Some(Some(named)) => named.latest,
            _ => CellIx::MAX,
        }
    }

    /// Remembers the cell that it last counted in.
    pub(crate) fn set_latest(&mut self, ix: EntityIx, cell: CellIx) {
        if let Some(Some(named)) = self.slots.get_mut(ix as usize) {
            named.latest = cell;
        }
    }

    /// One more cell uses it.
    pub(crate) fn hold(&mut self, ix: EntityIx) {
        if let Some(Some(named)) = self.slots.get_mut(ix as usize) {
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
        let hash_of = hash(&self.hasher, named.entity.dimension, &named.entity.id);
        *slot = None;
        if let Ok(entry) = self.by_name.find_entry(hash_of, |other| *other == ix) {
            entry.remove();
        }
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
        assert_eq!(entities.get(a).map(|e| &*e.id), Some("a"));
        entities.release(a);
        assert_eq!(entities.get(a), None);
        assert_eq!(entities.intern(Dimension::Video, "b"), a, "the place is used again");
    }
}
