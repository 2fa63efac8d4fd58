//! The resident cells of one source: found by name, parked until loaded, dirty until flushed, evicted when unused.
//!
//! An open minute cell is never loaded, because warm-up has rebuilt it. Every other cell waits, its changes parked, until
//! its row has been read once. Eviction is second chance over the slots and takes only what the store holds entirely.
//!
//! What costs is waiting for memory, so a cell is one cache line, an entity remembers its latest cell of each tier (most
//! changes go there, and no table is asked), and whoever walks over many cells touches some of them ahead.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::hint::black_box;

use foldhash::fast::FixedState;
use schemas::{Bucket, CellKey, Minute, Offset, Source, StoredRow, Tier};

use super::cell::{Addition, Cell, Change};
use super::entities::{Entities, EntityIx};
use super::index::Index;
use super::parking::Parking;

/// The place of a cell in [`Cells`].
pub(crate) type CellIx = u32;

/// Rows by the names of their cells.
pub(crate) type Rows = Vec<(CellKey, StoredRow)>;

/// How many cells ahead of its work a walk touches.
pub(crate) const AHEAD: usize = 16;

/// How many cells eviction looks at for each that it should forget.
const LOOKS: usize = 4;

/// The resident cells of one source.
pub(crate) struct Cells {
    source: Source,
    pub(crate) entities: Entities,
    slots: Vec<Option<Cell>>,
    free: Vec<CellIx>,
    by_key: Index,
    hasher: FixedState,
    /// Open minute cells by minute.
    open: BTreeMap<Minute, Vec<CellIx>>,
    dirty: Dirty,
    /// Parked cells whose load has not been asked for.
    to_load: Vec<CellIx>,
    /// Parked cells.
    parked_cells: usize,
    parking: Parking,
    last_ticket: u32,
    hand: usize,
    /// How many cells eviction may still look at.
    looks: usize,
    resident_max: usize,
    /// Room for rows.
    spare: Vec<Rows>,
    /// The store has acknowledged every change below it.
    stored: Offset,
}

/// Cells to be read from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Names this load in its answer.
    pub ticket: u32,
    /// What to read.
    pub keys: Vec<CellKey>,
    places: Vec<CellIx>,
}

/// Cells with changes that no flush has taken, in the order in which they became so: those of rollup tiers and those of minutes,
/// because they are stored one after the other.
#[derive(Default)]
struct Dirty(Vec<CellIx>, Vec<CellIx>);

impl Dirty {
    const fn list_of(&mut self, tier: Tier) -> &mut Vec<CellIx> {
        match tier {
            Tier::Hour | Tier::Day | Tier::Year => &mut self.0,
            Tier::Minute => &mut self.1,
        }
    }
}

impl Cells {
    /// No cells yet. `stored`: the store has all changes below it.
    pub(crate) fn new(source: Source, resident_max: usize, stored: Offset) -> Self {
        Self {
            source,
            entities: Entities::default(),
            slots: Vec::new(),
            free: Vec::new(),
            by_key: Index::default(),
            hasher: FixedState::default(),
            open: BTreeMap::new(),
            dirty: Dirty::default(),
            to_load: Vec::new(),
            parked_cells: 0,
            parking: Parking::new(),
            last_ticket: 0,
            hand: 0,
            looks: 0,
            resident_max,
            spare: Vec::new(),
            stored,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.0.len() + self.dirty.1.len()
    }

    /// Cells that wait for their row, and the changes that wait with them.
    pub(crate) const fn parked_len(&self) -> (usize, usize) {
        (self.parked_cells, self.parking.len())
    }

    #[inline]
    pub(crate) fn get(&self, ix: CellIx) -> Option<&Cell> {
        self.slots.get(ix as usize)?.as_ref()
    }

    #[inline]
    fn get_mut(&mut self, ix: CellIx) -> Option<&mut Cell> {
        self.slots.get_mut(ix as usize)?.as_mut()
    }

    /// Reads what lies at a place and waits for nothing, so that it is in the cache when it is needed.
    pub(crate) fn touch(&self, ix: CellIx) {
        black_box(self.slots.get(ix as usize).is_some_and(Option::is_some));
    }

    /// Touches the minute cell that an entity last counted in: the entity has been touched before.
    pub(crate) fn touch_latest_minute(&self, entity: EntityIx) {
        self.touch(self.entities.latest(entity, Tier::Minute));
    }

    /// Counts in an open minute: what nearly every event does, so the short way is taken if the cell is the entity's latest.
    #[inline]
    pub(crate) fn count(&mut self, entity: EntityIx, minute: Minute, change: Addition) {
        let latest = self.entities.latest(entity, Tier::Minute);
        let bucket = Bucket { tier: Tier::Minute, start: minute };
        if let Some(Some(cell)) = self.slots.get_mut(latest as usize)
            && cell.is(entity, bucket)
            && cell.add(change)
        {
            if cell.touch(true) {
                self.dirty.1.push(latest);
            }
        } else {
            let ix = self.open_minute(entity, minute);
            self.change(ix, change.into());
        }
    }

    /// The place of an open minute cell, which starts empty.
    pub(crate) fn open_minute(&mut self, entity: EntityIx, minute: Minute) -> CellIx {
        let bucket = Bucket { tier: Tier::Minute, start: minute };
        self.latest(entity, bucket).unwrap_or_else(|| {
            let ix = self.find(entity, bucket).unwrap_or_else(|| {
                let ix = self.insert(Cell::open(entity, minute));
                self.open.entry(minute).or_default().push(ix);
                ix
            });
            self.entities.set_latest(entity, Tier::Minute, ix);
            ix
        })
    }

    /// The place of a closed cell, which waits for its row if it is new.
    pub(crate) fn closed_cell(&mut self, entity: EntityIx, bucket: Bucket) -> CellIx {
        self.latest(entity, bucket).unwrap_or_else(|| {
            let ix = self.find(entity, bucket).unwrap_or_else(|| {
                let ix = self.insert(Cell::unloaded(entity, bucket));
                self.to_load.push(ix);
                self.parked_cells += 1;
                ix
            });
            // A late minute leaves the open one its place.
            if bucket.tier != Tier::Minute {
                self.entities.set_latest(entity, bucket.tier, ix);
            }
            ix
        })
    }

    /// The entity's latest cell of a tier, if that is the one.
    #[inline]
    fn latest(&self, entity: EntityIx, bucket: Bucket) -> Option<CellIx> {
        let latest = self.entities.latest(entity, bucket.tier);
        self.get(latest).is_some_and(|cell| cell.is(entity, bucket)).then_some(latest)
    }

    /// Does a change, or parks it until the cell's row is there.
    #[inline]
    pub(crate) fn change(&mut self, ix: CellIx, change: Change) {
        let Some(cell) = self.slots.get_mut(ix as usize).and_then(Option::as_mut) else { return };
        if let Some(waiting) = cell.waiting() {
            self.parking.push(waiting, change);
            cell.touch(false);
            return;
        }
        let changed = cell.apply(change);
        if cell.touch(changed) {
            self.dirty.list_of(cell.bucket().tier).push(ix);
        }
    }

    /// Warm-up: a change that the store holds already. The cell stays clean.
    pub(crate) fn rebuild(&mut self, ix: CellIx, change: Change) {
        if let Some(cell) = self.get_mut(ix) {
            cell.apply(change);
        }
    }

    /// Takes the open minutes below `closed`; their cells are closed from now on.
    pub(crate) fn close_below(&mut self, closed: Minute) -> Vec<CellIx> {
        let still_open = self.open.split_off(&closed);
        std::mem::replace(&mut self.open, still_open).into_values().flatten().collect()
    }

    /// Closes a cell that [`Cells::close_below`] has named, and says whose it is.
    pub(crate) fn close(&mut self, ix: CellIx) -> Option<(EntityIx, Minute, schemas::Counts)> {
        let cell = self.get_mut(ix)?;
        cell.close();
        Some((cell.entity, cell.bucket().start, cell.counts))
    }

    /// Touches the cells of rollup tiers that will change when these close: their entities have been touched before.
    pub(crate) fn touch_rollups(&self, ix: CellIx) {
        if let Some(cell) = self.get(ix) {
            Tier::ROLLUPS.into_iter().for_each(|tier| self.touch(self.entities.latest(cell.entity, tier)));
        }
    }

    /// Touches a cell's entity: the cell has been touched before.
    pub(crate) fn touch_entity(&self, ix: CellIx) {
        if let Some(cell) = self.get(ix) {
            self.entities.touch(cell.entity);
        }
    }

    /// The next cells to read, at most `max`.
    pub(crate) fn poll_load(&mut self, max: usize) -> Option<Load> {
        if self.to_load.is_empty() {
            return None;
        }
        // 0 stands for no load; a ticket of 4 billion loads ago is not under way any more.
        self.last_ticket = self.last_ticket.wrapping_add(1).max(1);
        let ticket = self.last_ticket;
        let places: Vec<CellIx> = self.to_load.drain(..self.to_load.len().min(max)).collect();
        for ix in &places {
            if let Some(waiting) = self.get_mut(*ix).and_then(Cell::waiting) {
                waiting.ticket = ticket;
            }
        }
        let keys = places.iter().filter_map(|ix| self.key(self.get(*ix)?)).collect();
        Some(Load { ticket, keys, places })
    }

    /// Takes the rows of a load, in the order of its keys, and does what was parked. Rows of a load that nobody waits for are ignored.
    /// `position` is the offset from which changes come next.
    pub(crate) fn loaded(&mut self, load: &Load, rows: &[Option<StoredRow>], position: Offset) {
        for (ix, row) in load.places.iter().zip(rows) {
            let Some(cell) = self.slots.get_mut(*ix as usize).and_then(Option::as_mut) else { continue };
            let Some(mut waiting) = cell.load(*row, load.ticket) else { continue };
            self.parked_cells -= 1;
            let mut changed = false;
            while let Some(change) = self.parking.pop(&mut waiting) {
                changed |= cell.apply(change);
            }
            cell.settle(position);
            if cell.touch(changed) {
                self.dirty.list_of(cell.bucket().tier).push(*ix);
            }
        }
    }

    /// The rows of the dirty cells as of now, those of rollup tiers and those of minutes; the cells are clean then.
    pub(crate) fn take_dirty(&mut self) -> (Rows, Rows) {
        let Dirty(mut rollups, mut minutes) = std::mem::take(&mut self.dirty);
        let rows = (self.take_rows(&rollups), self.take_rows(&minutes));
        rollups.clear();
        minutes.clear();
        self.dirty = Dirty(rollups, minutes);
        rows
    }

    fn take_rows(&mut self, list: &[CellIx]) -> Rows {
        // Sized at once: flushes are large, and growing by doubling would touch twice the memory.
        let mut rows = self.spare.pop().unwrap_or_default();
        rows.reserve(list.len());
        for (at, ix) in list.iter().enumerate() {
            self.look_ahead(list, at);
            let Some(cell) = self.get_mut(*ix) else { continue };
            cell.clean();
            let row = self.get(*ix).and_then(|cell| Some((self.key(cell)?, cell.row())));
            rows.extend(row);
        }
        rows
    }

    /// Touches what a later step of a walk over `list` will need: the cell, then its entity, then the name.
    fn look_ahead(&self, list: &[CellIx], at: usize) {
        let ahead = |steps: usize| list.get(at + steps * AHEAD).copied();
        if let Some(ix) = ahead(3) {
            self.touch(ix);
        }
        if let Some(ix) = ahead(2) {
            self.touch_entity(ix);
        }
        if let Some(cell) = ahead(1).and_then(|ix| self.get(ix)) {
            self.entities.touch_name(cell.entity);
        }
    }

    /// Takes the rows of an earlier flush for their room: new memory costs as much as making the rows.
    pub(crate) fn recycle(&mut self, mut rows: Rows) {
        if self.spare.len() < 2 {
            rows.clear();
            self.spare.push(rows);
        }
    }

    /// The store has acknowledged every change below `stored`: more may go.
    pub(crate) fn landed(&mut self, stored: Offset) {
        self.stored = stored;
        self.looks = self.looks.max(self.excess().saturating_mul(LOOKS));
    }

    fn excess(&self) -> usize {
        self.len().saturating_sub(self.resident_max)
    }

    /// Forgets unused cells while there are more than the bound. It looks at a few for each cell that has come, and at more after a
    /// flush: while none may go, looking at all of them would cost more than counting.
    pub(crate) fn evict(&mut self) {
        let mut left = self.excess();
        self.looks = self.looks.min(self.slots.len().saturating_mul(2));
        while left > 0 && self.looks > 0 {
            self.looks -= 1;
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let stored = self.stored;
            let Some(Some(cell)) = self.slots.get_mut(self.hand) else { continue };
            if cell.may_go(stored) && !cell.was_used() {
                self.remove(self.hand);
                left -= 1;
            }
        }
    }

    fn key(&self, cell: &Cell) -> Option<CellKey> {
        Some(CellKey { entity: self.entities.get(cell.entity)?, bucket: cell.bucket(), source: self.source })
    }

    fn hash(&self, entity: EntityIx, bucket: Bucket) -> u32 {
        let name = u64::from(entity) << 32 | u64::from(bucket.start.0.cast_unsigned());
        let hash = self.hasher.hash_one(name);
        let folded = (hash ^ (hash >> 32)) & u64::from(u32::MAX);
        u32::try_from(folded).unwrap_or_default().wrapping_add(u32::from(bucket.tier.code()))
    }

    fn find(&self, entity: EntityIx, bucket: Bucket) -> Option<CellIx> {
        self.by_key.find(self.hash(entity, bucket), |ix| self.get(ix).is_some_and(|cell| cell.is(entity, bucket)))
    }

    fn insert(&mut self, cell: Cell) -> CellIx {
        self.looks = self.looks.saturating_add(LOOKS);
        self.entities.hold(cell.entity);
        let hash = self.hash(cell.entity, cell.bucket());
        let ix = if let Some(ix) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(ix as usize) {
                *slot = Some(cell);
            }
            ix
        } else {
            self.slots.push(Some(cell));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        self.by_key.insert(hash, ix);
        ix
    }

    fn remove(&mut self, place: usize) {
        let Some(cell) = self.slots.get_mut(place).and_then(Option::take) else { return };
        let Ok(ix) = CellIx::try_from(place) else { return };
        self.by_key.remove(self.hash(cell.entity, cell.bucket()), ix);
        self.free.push(ix);
        self.entities.release(cell.entity);
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Counts, Dimension, Stamp};

    use super::*;
    use crate::fold::cell::Addition;

    /// Cells of as many videos, all of them open, with a bound of ten.
    fn crowded(videos: u32) -> Cells {
        let mut cells = Cells::new(Source(0), 10, Offset(0));
        for n in 0..videos {
            let entity = cells.entities.intern(Dimension::Video, &format!("v{n}"));
            cells.count(entity, Minute(0), Addition { offset: Offset(n.into()), stamp: Stamp(1), counts: Counts::VIEW });
            cells.evict();
        }
        cells
    }

    #[test]
    fn cells_that_must_stay_are_not_looked_at_again_and_again() {
        let mut cells = crowded(1_000);
        assert_eq!((cells.len(), cells.looks), (1_000, 0));
        let hand = cells.hand;
        (0..100).for_each(|_| cells.evict());
        assert_eq!(cells.hand, hand, "nothing has come or landed: there is nothing to look for");
    }

    #[test]
    fn what_has_landed_makes_room() {
        let mut cells = crowded(1_000);
        for ix in cells.close_below(Minute(1)) {
            cells.close(ix);
        }
        cells.take_dirty();
        for _ in 0..3 {
            cells.landed(Offset(1_000));
            cells.evict();
        }
        assert_eq!(cells.len(), 10);
        assert_eq!(cells.entities.len(), 10, "names go with their last cell");
    }
}
