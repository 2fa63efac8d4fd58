//! One resident cell and what a change does to it.

use schemas::cell::Mark;
use schemas::{Bucket, Counts, Millis, Offset, Row, Stamp, StoredRow};

use super::entities::EntityIx;
use super::parking::Waiting;

/// What one record does to one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) offset: Offset,
    pub(crate) stamp: Stamp,
    /// Rollups: the watermark as it is at this record. [`Millis::NEVER`] for minutes.
    pub(crate) through: Millis,
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
pub(crate) struct Cell {
    pub(crate) entity: EntityIx,
    pub(crate) bucket: Bucket,
    pub(crate) counts: Counts,
    pub(crate) version: Offset,
    pub(crate) stamp: Stamp,
    pub(crate) through: Millis,
    pub(crate) mark: Option<Box<Mark>>,
    /// The version it was loaded with: changes below it are in it already.
    pub(crate) base: Offset,
    /// Its changes while it is not loaded yet.
    pub(crate) waiting: Option<Waiting>,
    /// It has changes that no flush has taken.
    pub(crate) dirty: bool,
    /// It is in the flush that is under way.
    pub(crate) in_flight: bool,
    /// A minute at or above the watermark.
    pub(crate) open: bool,
    /// It was used since the eviction hand last passed.
    pub(crate) used: bool,
}

impl Cell {
    /// A cell of which nothing is stored that the fold would not see itself: an open minute.
    pub(crate) fn fresh(entity: EntityIx, bucket: Bucket) -> Self {
        Self {
            entity,
            bucket,
            counts: Counts::ZERO,
            version: Offset(0),
            stamp: Stamp(0),
            through: Millis::NEVER,
            mark: None,
            base: Offset(0),
            waiting: None,
            dirty: false,
            in_flight: false,
            open: false,
            used: true,
        }
    }

    /// Does `change`, unless the stored row had it. Returns whether the cell changed.
    pub(crate) fn apply(&mut self, change: Change) -> bool {
        if change.offset < self.base {
            return false;
        }
        match change.op {
            Op::Add(counts) => {
                self.counts += counts;
                if let Some(mark) = &mut self.mark {
                    mark.since += counts;
                }
            }
            Op::Mark => self.mark = Some(Box::new(Mark { offset: change.offset, since: Counts::ZERO })),
            Op::Set(offset, counts) => match &self.mark {
                Some(mark) if mark.offset == offset => self.counts = counts + mark.since,
                _ => return false,
            },
        }
        self.through = self.through.max(change.through);
        self.version = change.offset.next();
        self.stamp = change.stamp;
        true
    }

    /// Takes the stored row as the state that parked changes are applied to.
    pub(crate) fn load(&mut self, stored: Option<StoredRow>) {
        let Some(StoredRow { stamp, row }) = stored else { return };
        self.counts = row.counts;
        self.version = row.version;
        self.base = row.version;
        self.through = row.through;
        self.mark = row.mark.map(Box::new);
        self.stamp = stamp;
    }

    /// Its row as of now.
    pub(crate) fn row(&self) -> StoredRow {
        let mark = self.mark.as_deref().copied();
        StoredRow { stamp: self.stamp, row: Row { counts: self.counts, version: self.version, through: self.through, mark } }
    }

    /// Whether forgetting it loses nothing: the store has acknowledged its every change.
    pub(crate) fn may_go(&self) -> bool {
        !self.dirty && !self.in_flight && !self.open && self.waiting.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{Minute, Tier};

    fn add(offset: u64, counts: Counts) -> Change {
        Change { offset: Offset(offset), stamp: Stamp(1), through: Millis::NEVER, op: Op::Add(counts) }
    }

    #[test]
    fn changes_below_the_loaded_version_are_in_it_already() {
        let mut cell = Cell::fresh(0, Tier::Minute.bucket(Minute(0)));
        let row = Row { counts: Counts::VIEW, version: Offset(5), through: Millis::NEVER, mark: None };
        cell.load(Some(StoredRow { stamp: Stamp(9), row }));
        assert!(!cell.apply(add(4, Counts::VIEW)));
        assert!(cell.apply(add(5, Counts::VIEW)));
        assert_eq!((cell.counts.gross, cell.version), (2, Offset(6)));
    }

    #[test]
    fn a_set_counts_only_under_its_own_mark_and_keeps_what_came_since() {
        let mut cell = Cell::fresh(0, Tier::Minute.bucket(Minute(0)));
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
