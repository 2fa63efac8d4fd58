//! The reader of counts, one read at a time so that anything may happen between them.
//!
//! In this order: the checkpoint's `closed`, the rollup row, the minute rows that start at or after
//! `max(row.through, closed)`. Successive answers must not fall.

use std::collections::BTreeMap;

use aggregator::{CountStore, Slice};
use futures_util::FutureExt;
use schemas::{Minute, Tier};

use crate::auditor::Auditor;
use crate::calendar::{MINUTE_MS, NEVER, bucket_end, minute_of};
use crate::cover::Cover;
use crate::dice::Dice;
use crate::disk::{self, Disk};
use crate::meaning::{Cell, Counts};

enum Stage {
    Checkpoint,
    Rollup { closed: i64 },
    Minutes { from: i64 },
}

/// A query of one rollup bucket under way.
pub(crate) struct Reading {
    cell: Cell,
    stage: Stage,
    sum: Counts,
    /// The prefix that the answer must hold at least.
    least: u64,
    steps: usize,
}

impl Reading {
    pub(crate) const fn new(cell: Cell) -> Self {
        Self { cell, stage: Stage::Checkpoint, sum: [0; 3], least: 0, steps: 0 }
    }

    /// Does the next read. Returns the answer after the last.
    fn step(&mut self, disk: &Disk<'_>, dice: &mut Dice) -> Option<Counts> {
        self.steps += 1;
        match self.stage {
            Stage::Checkpoint => {
                let checkpoint = disk.checkpoint();
                self.least = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.next_offset.0);
                self.stage = Stage::Rollup { closed: checkpoint.map_or(NEVER, |checkpoint| checkpoint.closed.0) };
                None
            }
            Stage::Rollup { closed } => {
                let row = disk.read(&[disk::key(&self.cell, disk.source)])[0];
                let through = row.map_or(NEVER, |row| row.row.through.0);
                self.sum = row.map_or([0; 3], |row| disk::counts(row.row.counts));
                let rolled_up = through.max(closed);
                let from = if rolled_up == NEVER { self.cell.start } else { minute_of(rolled_up + MINUTE_MS - 1).max(self.cell.start) };
                self.stage = Stage::Minutes { from };
                None
            }
            Stage::Minutes { from } => {
                let end = bucket_end(self.cell.tier, self.cell.start);
                if from >= end {
                    return Some(self.sum);
                }
                // The first minutes may be open ones: cut there, where it may hurt.
                let to = if self.steps > 12 || dice.percent(30) { end } else { end.min(from + dice.between(1, 3)) };
                let slice = Slice {
                    entity: disk::key(&self.cell, disk.source).entity,
                    tier: Tier::Minute,
                    start: Minute(from as i32),
                    end: Minute(to as i32),
                };
                let rows = disk.store.read_slice(slice).now_or_never().expect("the store answers at once").expect("the store can be read");
                for row in rows.into_iter().filter(|row| row.source == disk.source) {
                    let counts = disk::counts(row.stored.row.counts);
                    self.sum.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
                }
                self.stage = Stage::Minutes { from: to };
                (to >= end).then_some(self.sum)
            }
        }
    }

    /// The whole answer at once.
    pub(crate) fn answer(cell: Cell, disk: &Disk<'_>, dice: &mut Dice) -> Counts {
        let mut reading = Self::new(cell);
        loop {
            if let Some(sum) = reading.step(disk, dice) {
                return sum;
            }
        }
    }
}

/// One reader, whose answers must not fall.
#[derive(Default)]
pub(crate) struct Reader {
    reading: Option<Reading>,
    answers: BTreeMap<Cell, Counts>,
}

impl Reader {
    pub(crate) const fn is_idle(&self) -> bool {
        self.reading.is_none()
    }

    pub(crate) fn ask(&mut self, cell: Cell) {
        self.reading = Some(Reading::new(cell));
    }

    /// Does one read, and judges the answer if it was the last. `rises` if no correction may have taken counts away.
    pub(crate) fn step(&mut self, disk: &Disk<'_>, auditor: &Auditor, rises: bool, dice: &mut Dice, cover: &mut Cover) -> Option<Counts> {
        let reading = self.reading.as_mut()?;
        let sum = reading.step(disk, dice)?;
        let Reading { cell, least, .. } = self.reading.take()?;
        cover.hit("query answered");
        if !rises || auditor.is_expired(cell.tier, cell.start, auditor.last().clock) {
            return Some(sum);
        }
        let low = auditor.truth(&cell.entity, cell.tier, cell.start, least);
        let high = auditor.truth(&cell.entity, cell.tier, cell.start, u64::MAX);
        let before = self.answers.insert(cell.clone(), sum).unwrap_or_default();
        for metric in 0..3 {
            let (sum, before) = (sum[metric], before[metric]);
            assert!(before <= sum, "I3: the count of {cell:?} fell from {before} to {sum}");
            assert!(
                (low[metric]..=high[metric]).contains(&sum),
                "the reader says {sum} of {cell:?}, not {} to {}",
                low[metric],
                high[metric]
            );
        }
        Some(sum)
    }
}
