//! The store as the run sees it: the real one, and beside it what must be in it by now.
//!
//! Whatever reaches the store is judged at once: a row is the auditor's for its version (so equal stamps are equal
//! bytes), a checkpoint is the auditor's for its prefix, leads no cell, and has every refusal in the dead-letter log and
//! every late change announced. An announcement leads no cell either.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregator::owner::WriteKind;
use aggregator::{CountStore, EmbeddedStore, Touched};
use futures_util::FutureExt;
use schemas::{Bucket, CellKey, Checkpoint, DeadLetter, Dimension, Minute, NewRecord, Reason, Source, StoredRow, Tally, Tier};

use crate::auditor::{Auditor, Day};
use crate::calendar::{DAY, HOUR, MINUTE, YEAR, bucket};
use crate::cover::Cover;
use crate::dice::Dice;
use crate::meaning::{self, Cell, Counts, Entity, State};
use crate::trace::Trace;

/// One source's part of a store, and its dead letters.
pub(crate) struct Disk<'s> {
    pub(crate) store: &'s EmbeddedStore,
    pub(crate) source: Source,
    /// The rows that must be there.
    pub(crate) rows: BTreeMap<Cell, StoredRow>,
    /// Every checkpoint that was the newest once.
    pub(crate) checkpoints: Vec<Checkpoint>,
    letters: BTreeMap<(u64, u32), DeadLetter>,
    /// Neither answers nor writes.
    pub(crate) is_out: bool,
}

pub(crate) fn key(cell: &Cell, source: Source) -> CellKey {
    let entity = schemas::Entity { dimension: Dimension::from_code(cell.entity.dimension).unwrap(), id: (&*cell.entity.id).into() };
    CellKey { entity, bucket: Bucket { tier: Tier::from_code(cell.tier).unwrap(), start: Minute(cell.start as i32) }, source }
}

pub(crate) fn cell(key: &CellKey) -> Cell {
    let entity = Entity { dimension: key.entity.dimension.code(), id: (&*key.entity.id).into() };
    Cell { entity, tier: key.bucket.tier.code(), start: key.bucket.start.0.into() }
}

pub(crate) const fn counts(counts: schemas::Counts) -> Counts {
    [counts.gross, counts.valid, counts.engaged]
}

/// A row in the auditor's words.
pub(crate) fn state(row: &StoredRow) -> State {
    State {
        offset: row.row.version.0 - 1,
        counts: counts(row.row.counts),
        stamp: row.stamp.0,
        through: row.row.through.0,
        mark: row.row.mark.map(|mark| (mark.offset.0, counts(mark.since))),
    }
}

/// A tally in the auditor's words.
pub(crate) fn tally(tally: &Tally) -> meaning::Tally {
    let rejected = Reason::ALL.into_iter().map(|reason| (reason.as_str(), tally.rejected_for(reason))).filter(|(_, n)| *n > 0).collect();
    let Tally { counted, duplicate, corrections, .. } = *tally;
    meaning::Tally { read: tally.events(), counted, duplicate, corrections, rejected }
}

/// Whether an announcement says that the day has changed.
const fn is_of(touched: &Touched, day: Day) -> bool {
    match day {
        Some(day) => touched.day == Touched::ALL || touched.day as i64 == day,
        None => touched.day == Touched::ALL,
    }
}

impl<'s> Disk<'s> {
    pub(crate) const fn new(store: &'s EmbeddedStore, source: Source) -> Self {
        Self { store, source, rows: BTreeMap::new(), checkpoints: Vec::new(), letters: BTreeMap::new(), is_out: false }
    }

    /// Reads cells from the real store.
    pub(crate) fn read(&self, keys: &[CellKey]) -> Vec<Option<StoredRow>> {
        self.store.read_cells(keys.to_vec()).now_or_never().expect("the store answers at once").expect("the store can be read")
    }

    /// Reads the checkpoint from the real store.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        let all = self.store.read_checkpoints().now_or_never().expect("the store answers at once").expect("the store can be read");
        let found = all.into_iter().find(|(source, _)| *source == self.source).map(|(_, checkpoint)| checkpoint);
        assert_eq!(found.as_ref(), self.checkpoints.last(), "the stored checkpoint is the newest written");
        found
    }

    /// Does a write. Of rows, those that `lands` lets through.
    pub(crate) fn write(&mut self, what: &WriteKind, lands: impl FnMut() -> bool, auditor: &Auditor, cover: &mut Cover, trace: &mut Trace) {
        match what {
            WriteKind::DeadLetters(letters) => self.bury(letters, auditor, trace),
            WriteKind::Rows(rows) => self.write_rows(rows, lands, auditor, cover, trace),
            WriteKind::Touched(days) => self.write_touched(days, auditor, trace),
            WriteKind::Checkpoint(checkpoint) => self.write_checkpoint(checkpoint, auditor, cover, trace),
        }
    }

    fn bury(&mut self, letters: &[NewRecord], auditor: &Auditor, trace: &mut Trace) {
        for record in letters {
            let letter = DeadLetter::decode(&record.payload).expect("a dead letter can be read");
            let refused = auditor.refused(letter.offset.0).iter().find(|refused| refused.index == letter.index);
            let Some(refused) = refused else { panic!("dead letter of an event that is not refused: {letter:?}") };
            assert_eq!(letter.reason.as_str(), refused.reason, "{letter:?}");
            assert_eq!(letter.original.bytes().as_deref(), Some(&refused.bytes[..]), "{letter:?}");
            assert_eq!(letter.source, self.source);
            trace.line(format_args!("buried {}/{} {}", letter.offset, letter.index, letter.reason));
            self.letters.insert((letter.offset.0, letter.index), letter);
        }
    }

    fn write_rows(
        &mut self,
        rows: &[(CellKey, StoredRow)],
        mut lands: impl FnMut() -> bool,
        auditor: &Auditor,
        cover: &mut Cover,
        trace: &mut Trace,
    ) {
        let landing: Vec<_> = rows.iter().filter(|_| lands()).cloned().collect();
        for (key, row) in &landing {
            let cell = cell(key);
            assert_eq!(key.source, self.source);
            let expected = auditor.state(&cell, row.row.version.0);
            assert_eq!(Some(&state(row)), expected, "I5: the row of {key} is not what its prefix says");
            self.check_rollups_first(&cell, row.row.version.0, auditor);
            let kept = self.rows.get(&cell).filter(|kept| kept.stamp >= row.stamp);
            cover.hit_if("late write that no longer matters", kept.is_some_and(|kept| kept.stamp > row.stamp));
            trace.line(format_args!("row {} {:?} {} = {row:?} kept {}", key.entity, key.bucket.tier, key.bucket.start, kept.is_some()));
            if kept.is_none() {
                self.rows.insert(cell, *row);
            }
        }
        let keys: Vec<_> = landing.iter().map(|(key, _)| key.clone()).collect();
        self.store.write_rows(Arc::new(landing)).now_or_never().expect("the store answers at once").expect("the store can be written");
        for (key, stored) in keys.iter().zip(self.read(&keys)) {
            assert_eq!(stored.as_ref(), self.rows.get(&cell(key)), "the store keeps the higher stamp of {key}");
        }
    }

    /// A minute's row never leads those of its hour, day and year: a visible count could fall after a crash.
    fn check_rollups_first(&self, minute: &Cell, version: u64, auditor: &Auditor) {
        for tier in [HOUR, DAY, YEAR].into_iter().filter(|_| minute.tier == MINUTE) {
            let rollup = Cell { tier, start: bucket(tier, minute.start), ..minute.clone() };
            let stored = self.rows.get(&rollup).map(|row| row.row.version.0);
            let needed = auditor.state(&rollup, version).map(|_| version);
            assert!(stored >= needed, "I3: {minute:?} is stored at {version}, before {rollup:?} at {stored:?}");
        }
    }

    fn write_checkpoint(&mut self, checkpoint: &Checkpoint, auditor: &Auditor, cover: &mut Cover, trace: &mut Trace) {
        trace.line(format_args!("checkpoint {} {:?}", checkpoint.next_offset, checkpoint.tally));
        let len = checkpoint.next_offset.0;
        let prefix = auditor.prefix(len);
        let found = (checkpoint.stamp.0, checkpoint.clock.0, checkpoint.append_time.0, checkpoint.closed.0, checkpoint.adjustments);
        assert_eq!(found, (prefix.stamp, prefix.clock, prefix.append_time, prefix.closed, prefix.adjustments), "checkpoint {len}");
        assert_eq!(tally(&checkpoint.tally), prefix.tally, "I1: the tally of {len}");
        assert_eq!(checkpoint.warm_from.0, auditor.warm_from(len), "where a recovery from {len} begins");
        let covered = self.checkpoints.last().map_or(0, |last| last.next_offset.0);
        let write = self.store.write_checkpoint(self.source, checkpoint.clone());
        write.now_or_never().expect("the store answers at once").expect("the store can be written");
        if len <= covered {
            cover.hit("checkpoint of an owner that lags behind");
            return;
        }
        self.checkpoints.push(checkpoint.clone());
        let announced = self.touched();
        for offset in covered..len {
            for cell in auditor.changed(offset) {
                let version = self.rows.get(cell).map(|row| row.row.version.0);
                assert!(version > Some(offset), "I4: checkpoint {len} leads {cell:?}, changed at {offset}, stored at {version:?}");
            }
            for day in auditor.late(offset) {
                let announced = announced.iter().any(|touched| touched.version.0 > offset && is_of(touched, *day));
                assert!(announced, "checkpoint {len} passes {offset}, and day {day:?} is not announced");
                cover.hit("late change announced");
            }
            for refused in auditor.refused(offset) {
                let buried = self.letters.contains_key(&(offset, refused.index));
                assert!(buried, "I8: checkpoint {len} passes {offset}/{} ({}) without a dead letter", refused.index, refused.reason);
            }
        }
    }

    /// Announces days. Who reads it must read the rows.
    fn write_touched(&self, days: &[Touched], auditor: &Auditor, trace: &mut Trace) {
        trace.line(format_args!("touched {days:?}"));
        let covered = self.checkpoints.last().map_or(0, |last| last.next_offset.0);
        for touched in days {
            for offset in (covered..touched.version.0).filter(|offset| auditor.late(*offset).iter().any(|day| is_of(touched, *day))) {
                for cell in auditor.changed(offset) {
                    let version = self.rows.get(cell).map(|row| row.row.version.0);
                    assert!(version > Some(offset), "{touched:?} leads {cell:?}, changed at {offset}, stored at {version:?}");
                }
            }
        }
        let write = self.store.write_touched(self.source, days.to_vec());
        write.now_or_never().expect("the store answers at once").expect("the store can be written");
    }

    /// What has been announced.
    fn touched(&self) -> Vec<Touched> {
        let all = self.store.read_touched().now_or_never().expect("the store answers at once").expect("the store can be read");
        all.into_iter().filter(|(source, _)| *source == self.source).map(|(_, touched)| touched).collect()
    }

    /// Some older checkpoint, or none at all.
    pub(crate) fn older(&self, dice: &mut Dice) -> Option<Checkpoint> {
        let at = dice.below(self.checkpoints.len() + 1);
        at.checked_sub(1).map(|at| self.checkpoints[at].clone())
    }
}
