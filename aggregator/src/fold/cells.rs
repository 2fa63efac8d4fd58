//! The resident cells of one source: found by name, parked until loaded, dirty until flushed, evicted when unused.
//!
//! An open minute cell is never loaded, because warm-up has rebuilt it. Every other cell waits, its changes parked, until
//! its row has been read once. Eviction is second chance over the slots and takes only what the store holds entirely.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use schemas::{Bucket, CellKey, Minute, Source, StoredRow, Tier};

use super::cell::{Cell, Change};
use super::entities::{Entities, EntityIx};
use super::parking::{Parking, Waiting};

/// The place of a cell in [`Cells`].
pub(crate) type CellIx = u32;

/// Rows by the names of their cells.
pub(crate) type Rows = Vec<(CellKey, StoredRow)>;

/// The resident cells of one source.
pub(crate) struct Cells {
    source: Source,
    pub(crate) entities: Entities,
    slots: Vec<Option<Cell>>,
    free: Vec<CellIx>,
    by_key: HashTable<CellIx>,
    hasher: FixedState,
    /// Open minute cells by minute.
    open: BTreeMap<Minute, Vec<CellIx>>,
    /// Cells with changes that no flush has taken, in the order in which they became so.
    dirty: Vec<CellIx>,
    /// Parked cells whose load has not been asked for.
    to_load: Vec<CellIx>,
    /// Parked cells.
    parked_cells: usize,
    parking: Parking,
    last_ticket: u32,
    hand: usize,
    resident_max: usize,
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

fn hash(hasher: &FixedState, entity: EntityIx, bucket: Bucket) -> u64 {
    hasher.hash_one((u64::from(entity) << 32 | u64::from(bucket.start.0.cast_unsigned()), bucket.tier.code()))
}

impl Cells {
    pub(crate) fn new(source: Source, resident_max: usize) -> Self {
        Self {
            source,
            entities: Entities::default(),
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            hasher: FixedState::default(),
            open: BTreeMap::new(),
            dirty: Vec::new(),
            to_load: Vec::new(),
            parked_cells: 0,
            parking: Parking::new(),
            last_ticket: 0,
            hand: 0,
            resident_max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Cells that wait for their row, and the changes that wait with them.
    pub(crate) const fn parked_len(&self) -> (usize, usize) {
        (self.parked_cells, self.parking.len())
    }

    pub(crate) fn get(&self, ix: CellIx) -> Option<&Cell> {
        self.slots.get(ix as usize)?.as_ref()
    }

    fn get_mut(&mut self, ix: CellIx) -> Option<&mut Cell> {
        self.slots.get_mut(ix as usize)?.as_mut()
    }

    /// The place of an open minute cell, which starts empty.
    pub(crate) fn open_minute(&mut self, entity: EntityIx, minute: Minute) -> CellIx {
        let bucket = Bucket { tier: Tier::Minute, start: minute };
        let latest = self.entities.latest(entity);
        if self.get(latest).is_some_and(|cell| cell.entity == entity && cell.bucket == bucket) {
            return latest;
        }
        let ix = self.find(entity, bucket).unwrap_or_else(|| {
            let ix = self.insert(Cell { open: true, ..Cell::fresh(entity, bucket) });
            self.open.entry(minute).or_default().push(ix);
            ix
        });
        self.entities.set_latest(entity, ix);
        ix
    }

    /// The place of a closed cell, which waits for its row if it is new.
    pub(crate) fn closed_cell(&mut self, entity: EntityIx, bucket: Bucket) -> CellIx {
        self.find(entity, bucket).unwrap_or_else(|| {
            let ix = self.insert(Cell { waiting: Some(Waiting::NEW), ..Cell::fresh(entity, bucket) });
            self.to_load.push(ix);
            self.parked_cells += 1;
            ix
        })
    }

    /// Does a change, or parks it until the cell's row is there.
    pub(crate) fn change(&mut self, ix: CellIx, change: Change) {
        let Some(cell) = self.slots.get_mut(ix as usize).and_then(Option::as_mut) else { return };
        cell.used = true;
        if let Some(waiting) = &mut cell.waiting {
            self.parking.push(waiting, change);
        } else if cell.apply(change) && !cell.dirty {
            cell.dirty = true;
            self.dirty.push(ix);
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
        let closing: Vec<CellIx> = std::mem::replace(&mut self.open, still_open).into_values().flatten().collect();
        for ix in &closing {
            if let Some(cell) = self.get_mut(*ix) {
                cell.open = false;
            }
        }
        closing
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
            if let Some(waiting) = self.get_mut(*ix).and_then(|cell| cell.waiting.as_mut()) {
                waiting.ticket = ticket;
            }
        }
        let keys = places.iter().filter_map(|ix| self.key(*ix)).collect();
        Some(Load { ticket, keys, places })
    }

    /// Takes the rows of a load, in the order of its keys, and does what was parked. Rows of a load that nobody waits for are ignored.
    pub(crate) fn loaded(&mut self, load: &Load, rows: &[Option<StoredRow>]) {
        for (ix, row) in load.places.iter().zip(rows) {
            let Some(cell) = self.slots.get_mut(*ix as usize).and_then(Option::as_mut) else { continue };
            let Some(mut waiting) = cell.waiting.take_if(|waiting| waiting.ticket == load.ticket) else { continue };
            cell.load(*row);
            self.parked_cells -= 1;
            let mut changed = false;
            while let Some(change) = self.parking.pop(&mut waiting) {
                changed |= cell.apply(change);
            }
            if changed && !cell.dirty {
                cell.dirty = true;
                self.dirty.push(*ix);
            }
        }
    }

    /// Takes the dirty cells: they are in flight until [`Cells::landed`].
    pub(crate) fn take_dirty(&mut self) -> Vec<CellIx> {
        let taken = std::mem::take(&mut self.dirty);
        for ix in &taken {
            if let Some(cell) = self.get_mut(*ix) {
                cell.dirty = false;
                cell.in_flight = true;
            }
        }
        taken
    }

    /// The rows of cells, those of rollup tiers and those of minutes.
    pub(crate) fn rows(&self, places: &[CellIx]) -> (Rows, Rows) {
        let is_minute = |ix: &&CellIx| self.get(**ix).is_some_and(|cell| cell.bucket.tier == Tier::Minute);
        let minutes = places.iter().filter(is_minute).count();
        // Sized at once: flushes are large, and growing by doubling would touch twice the memory.
        let mut rows = (Vec::with_capacity(places.len() - minutes), Vec::with_capacity(minutes));
        for stored in places.iter().filter_map(|ix| self.stored(*ix)) {
            if stored.0.bucket.tier == Tier::Minute { rows.1.push(stored) } else { rows.0.push(stored) }
        }
        rows
    }

    /// The store has acknowledged these.
    pub(crate) fn landed(&mut self, places: &[CellIx]) {
        for ix in places {
            if let Some(cell) = self.get_mut(*ix) {
                cell.in_flight = false;
            }
        }
    }

    /// A cell's name and row.
    fn stored(&self, ix: CellIx) -> Option<(CellKey, StoredRow)> {
        Some((self.key(ix)?, self.get(ix)?.row()))
    }

    /// Forgets unused cells while there are more than the bound, looking at no more than a bounded number.
    pub(crate) fn evict(&mut self) {
        let excess = self.len().saturating_sub(self.resident_max);
        let mut looks = excess.saturating_mul(4).min(self.slots.len().saturating_mul(2));
        let mut left = excess;
        while left > 0 && looks > 0 {
            looks -= 1;
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let Some(Some(cell)) = self.slots.get_mut(self.hand) else { continue };
            if !cell.may_go() {
                continue;
            }
            if cell.used {
                cell.used = false;
                continue;
            }
            self.remove(self.hand);
            left -= 1;
        }
    }

    fn key(&self, ix: CellIx) -> Option<CellKey> {
        let cell = self.get(ix)?;
        Some(CellKey { entity: self.entities.get(cell.entity)?.clone(), bucket: cell.bucket, source: self.source })
    }

    fn find(&self, entity: EntityIx, bucket: Bucket) -> Option<CellIx> {
        let same = |ix: &CellIx| self.get(*ix).is_some_and(|cell| cell.entity == entity && cell.bucket == bucket);
        self.by_key.find(hash(&self.hasher, entity, bucket), same).copied()
    }

    fn insert(&mut self, cell: Cell) -> CellIx {
        let (entity, bucket) = (cell.entity, cell.bucket);
        self.entities.hold(entity);
        let ix = if let Some(ix) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(ix as usize) {
                *slot = Some(cell);
            }
            ix
        } else {
            self.slots.push(Some(cell));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_key.insert_unique(hash(hasher, entity, bucket), ix, |ix| match slots.get(*ix as usize) {
            Some(Some(cell)) => hash(hasher, cell.entity, cell.bucket),
            _ => 0,
        });
        ix
    }

    fn remove(&mut self, place: usize) {
        let Some(cell) = self.slots.get_mut(place).and_then(Option::take) else { return };
        let Ok(ix) = CellIx::try_from(place) else { return };
        if let Ok(entry) = self.by_key.find_entry(hash(&self.hasher, cell.entity, cell.bucket), |other| *other == ix) {
            entry.remove();
        }
        self.free.push(ix);
        self.entities.release(cell.entity);
    }
}
