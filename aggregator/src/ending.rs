//! The end of a source: what its open minutes add to the hours, days and years that hold them. Pure.
//!
//! A source whose log is no longer read keeps its cells for ever. While it ran, minutes at or above its watermark were not in its
//! rollup rows yet; ended, all are:
//!
//! ```text
//! rollup at the end = row + minutes of its bucket that start at or after max(through, closed)
//! ```
//!
//! It is the sum that readers make, made once. The same cells give the same rows, so that doing it again changes nothing.

use std::collections::BTreeMap;

use schemas::checkpoint::ENDED;
use schemas::{CellKey, Checkpoint, Counts, Millis, Row, StoredRow, Tier};

const ROLLUPS: [Tier; 3] = [Tier::Hour, Tier::Day, Tier::Year];

/// The rollup cells that the open minutes of a source belong to.
#[derive(Debug, Default)]
pub struct Ending {
    /// For each rollup cell the open minutes in it.
    open: BTreeMap<CellKey, Vec<(Millis, StoredRow)>>,
}

impl Ending {
    /// Takes in a minute's row of a source that was closed up to `closed`.
    pub fn minute(&mut self, closed: Millis, key: &CellKey, row: StoredRow) {
        let start = key.bucket.start;
        if start.start() < closed {
            return;
        }
        for tier in ROLLUPS {
            let rollup = CellKey { bucket: tier.bucket(start), ..key.clone() };
            self.open.entry(rollup).or_default().push((start.start(), row));
        }
    }

    /// Whether the rollup's row at the end is another than its row now.
    pub fn changes(&self, key: &CellKey) -> bool {
        self.open.contains_key(key)
    }

    /// The cells that change, by key.
    pub fn keys(&self) -> impl Iterator<Item = &CellKey> {
        self.open.keys()
    }

    /// The row of a cell at the end, made of its row now.
    pub fn row(&self, closed: Millis, key: &CellKey, now: Option<StoredRow>) -> Option<StoredRow> {
        let minutes = self.open.get(key).map(Vec::as_slice).unwrap_or_default();
        let first = minutes.iter().map(|(_, row)| *row).max_by_key(|row| row.stamp);
        let newest = now.into_iter().chain(first).max_by_key(|row| row.stamp)?;
        let through = now.map_or(Millis::NEVER, |now| now.row.through).max(closed);
        let rolled_up = now.map_or(Counts::ZERO, |now| now.row.counts);
        let counts = minutes.iter().filter(|(start, _)| *start >= through).fold(rolled_up, |sum, (_, row)| sum + row.row.counts);
        let mark = now.and_then(|now| now.row.mark);
        Some(StoredRow { stamp: newest.stamp, row: Row { counts, version: newest.row.version, through: ENDED, mark } })
    }
}

/// The checkpoint of a source at its end.
pub fn checkpoint(last: &Checkpoint) -> Checkpoint {
    Checkpoint { closed: ENDED, warm_from: last.next_offset, ..last.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use schemas::{Dimension, Entity, Minute, Offset, Source, Stamp};

    fn key(tier: Tier, minute: i32) -> CellKey {
        CellKey { entity: Entity::new(Dimension::Video, "v"), bucket: tier.bucket(Minute(minute)), source: Source(1) }
    }

    fn row(stamp: i64, gross: i64, through: Millis) -> StoredRow {
        let counts = Counts { gross, valid: gross, engaged: 0 };
        StoredRow { stamp: Stamp(stamp), row: Row { counts, version: Offset(stamp.unsigned_abs()), through, mark: None } }
    }

    #[test]
    fn open_minutes_are_added_once_to_each_rollup_and_closed_ones_not_again() {
        let closed = Minute(130).start();
        let mut ending = Ending::default();
        for (minute, gross) in [(125, 1), (129, 2), (130, 4), (131, 8), (180, 16)] {
            ending.minute(closed, &key(Tier::Minute, minute), row(i64::from(minute), gross, Millis::NEVER));
        }
        let gross = |tier, minute, now| ending.row(closed, &key(tier, minute), now).map(|row| row.row.counts.gross);
        assert_eq!(gross(Tier::Hour, 130, Some(row(7, 3, closed))), Some(3 + 4 + 8));
        assert_eq!(gross(Tier::Hour, 180, None), Some(16));
        assert_eq!(gross(Tier::Day, 0, Some(row(7, 3, closed))), Some(3 + 4 + 8 + 16));
        // A rollup row that landed after the checkpoint holds a minute that the checkpoint calls open.
        assert_eq!(gross(Tier::Hour, 130, Some(row(200, 7, Minute(131).start()))), Some(7 + 8));
        assert!(ending.changes(&key(Tier::Year, 0)) && !ending.changes(&key(Tier::Hour, 0)));
        assert_eq!(gross(Tier::Hour, 0, Some(row(7, 3, closed))), Some(3));
    }

    #[test]
    fn doing_it_again_gives_the_same_row() {
        let closed = Minute(130).start();
        let mut ending = Ending::default();
        ending.minute(closed, &key(Tier::Minute, 130), row(9, 4, Millis::NEVER));
        let once = ending.row(closed, &key(Tier::Hour, 130), Some(row(7, 3, closed))).unwrap();
        assert_eq!((once.stamp, once.row.version, once.row.through), (Stamp(9), Offset(9), ENDED));
        assert_eq!(ending.row(closed, &key(Tier::Hour, 130), Some(once)), Some(once));
    }
}
