//! One resident cell and what a change does to it.
//!
//! A cell is one cache line: what every event touches lies in it, and what few cells have (a row that is waited for, a
//! mark, a row from ahead of the fold) lies apart.

use schemas::cell::Mark;
use schemas::{Bucket, Counts, Minute, Offset, Row, Stamp, StoredRow, Tier};

use super::entities::EntityIx;
use super::parking::Waiting;

/// What one record does to one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) offset: Offset,
    pub(crate) stamp: Stamp,
    /// Rollups: the watermark as it is at this record. [`Minute::NEVER`] for minutes.
    pub(crate) through: Minute,
    pub(crate) op: Op,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Adds counts.
    Add(Counts),
    /// Begins a repair.
    Mark,
    /// Ends the repair that was begun at the offset: the counts as of then.
    Set(Offset, Counts),
}

/// The usual change: one record's counts in an open minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addition {
    pub(crate) offset: Offset,
    pub(crate) stamp: Stamp,
    pub(crate) counts: Counts,
}

impl From<Addition> for Change {
    fn from(Addition { offset, stamp, counts }: Addition) -> Self {
        Self { offset, stamp, through: Minute::NEVER, op: Op::Add(counts) }
    }
}

impl Change {
    /// Takes in another addition of the same record: all of a record's changes to a cell count as one.
    pub(crate) fn absorb(&mut self, other: Self) -> bool {
        match (&mut self.op, other.op) {
            (Op::Add(counts), Op::Add(more)) if self.offset == other.offset => {
                *counts += more;
                self.through = self.through.max(other.through);
                true
            }
            _ => false,
        }
    }
}

/// A cell in memory.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Cell {
    pub(crate) counts: Counts,
    pub(crate) version: Offset,
    pub(crate) stamp: Stamp,
    rare: Option<Box<Rare>>,
    pub(crate) entity: EntityIx,
    start: Minute,
    through: Minute,
    tier: Tier,
    flags: u8,
}

const _: () = assert!(size_of::<Option<Cell>>() == 64, "a cell is one cache line");

/// What few cells have.
#[derive(Debug, Default)]
struct Rare {
    /// Its changes while it is not loaded yet.
    waiting: Option<Waiting>,
    mark: Option<Mark>,
    /// The version it was loaded with: changes below it are in it already.
    base: Offset,
}

/// It has changes that no flush has taken.
const DIRTY: u8 = 1;
/// A minute at or above the watermark.
const OPEN: u8 = 2;
/// It was used since the eviction hand last passed.
const USED: u8 = 4;

impl Cell {
    /// An open minute: nothing of it is stored that the fold does not see itself.
    pub(crate) const fn open(entity: EntityIx, minute: Minute) -> Self {
        Self::new(entity, Bucket { tier: Tier::Minute, start: minute }, OPEN | USED)
    }

    /// A closed cell, whose row has to be read before it changes.
    pub(crate) fn unloaded(entity: EntityIx, bucket: Bucket) -> Self {
        let rare = Rare { waiting: Some(Waiting::NEW), ..Rare::default() };
        Self { rare: Some(Box::new(rare)), ..Self::new(entity, bucket, USED) }
    }

    const fn new(entity: EntityIx, bucket: Bucket, flags: u8) -> Self {
        let Bucket { tier, start } = bucket;
        let (version, stamp, through) = (Offset(0), Stamp(0), Minute::NEVER);
        Self { counts: Counts::ZERO, version, stamp, rare: None, entity, start, through, tier, flags }
    }

    pub(crate) const fn bucket(&self) -> Bucket {
        Bucket { tier: self.tier, start: self.start }
    }

    /// Whether it is that cell.
    pub(crate) fn is(&self, entity: EntityIx, bucket: Bucket) -> bool {
        self.entity == entity && self.start == bucket.start && self.tier == bucket.tier
    }

    /// Adds to the counts of a cell that has nothing unusual; else returns false and does nothing.
    #[inline]
    pub(crate) fn add(&mut self, Addition { offset, stamp, counts }: Addition) -> bool {
        if self.rare.is_some() {
            return false;
        }
        self.counts += counts;
        (self.version, self.stamp) = (offset.next(), stamp);
        true
    }

    /// Does `change`, unless the stored row had it. Returns whether the cell changed.
    #[inline]
    pub(crate) fn apply(&mut self, change: Change) -> bool {
        match change.op {
            Op::Add(counts) if self.rare.is_none() => self.counts += counts,
            _ => {
                if !self.apply_rarely(change) {
                    return false;
                }
            }
        }
        self.through = self.through.max(change.through);
        self.version = change.offset.next();
        self.stamp = change.stamp;
        true
    }

    /// The counts and the mark after `change`, in a cell that has a mark or may have had the change already.
    #[cold]
    fn apply_rarely(&mut self, change: Change) -> bool {
        let rare = self.rare.get_or_insert_default();
        if change.offset < rare.base {
            return false;
        }
        match change.op {
            Op::Add(counts) => {
                self.counts += counts;
                if let Some(mark) = &mut rare.mark {
                    mark.since += counts;
                }
            }
            Op::Mark => rare.mark = Some(Mark { offset: change.offset, since: Counts::ZERO }),
            Op::Set(offset, counts) => match &rare.mark {
                Some(mark) if mark.offset == offset => self.counts = counts + mark.since,
                _ => return false,
            },
        }
        true
    }

    /// Its changes, if its row has not been read yet.
    #[inline]
    pub(crate) fn waiting(&mut self) -> Option<&mut Waiting> {
        self.rare.as_mut()?.waiting.as_mut()
    }

    /// Takes the stored row as the state that parked changes are applied to, and hands these out. `None`, and nothing is taken, if it
    /// waits for another load or for none.
    pub(crate) fn load(&mut self, stored: Option<StoredRow>, ticket: u32) -> Option<Waiting> {
        let rare = self.rare.as_mut()?;
        let waiting = rare.waiting.take_if(|waiting| waiting.ticket == ticket)?;
        if let Some(StoredRow { stamp, row }) = stored {
            self.counts = row.counts;
            self.version = row.version;
            self.through = Minute::of(row.through);
            self.stamp = stamp;
            (rare.base, rare.mark) = (row.version, row.mark);
        }
        Some(waiting)
    }

    /// Its parked changes are done and the next come from `position` on: unless its row is from ahead of that, it is like any other.
    pub(crate) fn settle(&mut self, position: Offset) {
        self.rare.take_if(|rare| rare.waiting.is_none() && rare.mark.is_none() && rare.base <= position);
    }

    /// Its row as of now.
    pub(crate) fn row(&self) -> StoredRow {
        let mark = self.rare.as_ref().and_then(|rare| rare.mark);
        StoredRow { stamp: self.stamp, row: Row { counts: self.counts, version: self.version, through: self.through.start(), mark } }
    }

    /// Notes that it is used. Returns whether it was clean and is dirty now.
    #[inline]
    pub(crate) const fn touch(&mut self, changed: bool) -> bool {
        let was_clean = self.flags & DIRTY == 0;
        self.flags |= if changed { USED | DIRTY } else { USED };
        changed && was_clean
    }

    /// A flush has taken its changes.
    pub(crate) const fn clean(&mut self) {
        self.flags &= !DIRTY;
    }

    /// The watermark has passed its minute.
    pub(crate) const fn close(&mut self) {
        self.flags &= !OPEN;
    }

    /// Whether it was used since this was last asked.
    pub(crate) const fn was_used(&mut self) -> bool {
        let used = self.flags & USED != 0;
        self.flags &= !USED;
        used
    }

    /// Whether forgetting it loses nothing: the store has acknowledged its every change, as it has all below `stored`.
    pub(crate) fn may_go(&self, stored: Offset) -> bool {
        self.flags & (DIRTY | OPEN) == 0
            && self.rare.as_ref().is_none_or(|rare| rare.waiting.is_none())
            && (self.version <= stored || self.rare.as_ref().is_some_and(|rare| rare.base == self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(offset: u64, counts: Counts) -> Change {
        Change { offset: Offset(offset), stamp: Stamp(1), through: Minute::NEVER, op: Op::Add(counts) }
    }

    fn loaded(counts: Counts, version: u64) -> Cell {
        let mut cell = Cell::unloaded(0, Tier::Minute.bucket(Minute(0)));
        let row = Row { counts, version: Offset(version), through: Minute::NEVER.start(), mark: None };
        cell.load(Some(StoredRow { stamp: Stamp(9), row }), 0).unwrap();
        cell
    }

    #[test]
    fn changes_below_the_loaded_version_are_in_it_already() {
        for position in [0, 4] {
            let mut cell = loaded(Counts::VIEW, 5);
            cell.settle(Offset(position));
            assert!(!cell.apply(add(4, Counts::VIEW)));
            assert!(cell.apply(add(5, Counts::VIEW)));
            assert_eq!((cell.counts.gross, cell.version), (2, Offset(6)));
        }
    }

    #[test]
    fn only_a_row_from_ahead_of_the_fold_or_with_a_mark_keeps_anything_apart() {
        let mut cell = loaded(Counts::VIEW, 5);
        cell.settle(Offset(4));
        assert!(cell.rare.is_some());
        cell.settle(Offset(5));
        assert!(cell.rare.is_none());
        cell.apply(Change { op: Op::Mark, ..add(5, Counts::ZERO) });
        cell.settle(Offset(9));
        assert!(cell.rare.is_some());
    }

    #[test]
    fn a_cell_may_go_when_the_store_holds_its_every_change() {
        let mut cell = loaded(Counts::VIEW, 50);
        assert!(cell.may_go(Offset(10)), "what the store told, it holds");
        let dirtied = cell.apply(add(60, Counts::VIEW));
        assert!(cell.touch(dirtied) && !cell.may_go(Offset(70)));
        cell.clean();
        assert!(!cell.may_go(Offset(60)), "its flush is under way");
        assert!(cell.may_go(Offset(61)));
    }

    #[test]
    fn a_set_counts_only_under_its_own_mark_and_keeps_what_came_since() {
        let mut cell = Cell::open(0, Minute(0));
        let change = |offset, op| Change { op, ..add(offset, Counts::ZERO) };
        let ten = Counts { gross: 10, valid: 10, engaged: 0 };
        cell.apply(add(0, Counts::VIEW));
        cell.apply(change(1, Op::Mark));
        cell.apply(add(2, Counts::VIEW));
        assert!(!cell.apply(change(3, Op::Set(Offset(7), ten))));
        assert!(cell.apply(change(4, Op::Set(Offset(1), ten))));
        assert_eq!(cell.counts.gross, 11);
        assert!(cell.apply(change(5, Op::Set(Offset(1), ten))), "twice is harmless");
        assert_eq!(cell.counts.gross, 11);
    }
}
