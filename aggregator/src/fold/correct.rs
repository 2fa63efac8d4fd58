//! Corrections: an adjustment changes the truth once, a repair restates it where a stored cell was damaged.

use schemas::correction::{Adjustment, RepairCell, RepairMark, RepairSet};
use schemas::{Minute, Reason, Record, RecordKind, Rejection, Tier};

use super::cell::Op;
use super::{Change, Fold};
use crate::store::Touched;

impl Fold {
    /// Takes a correction whole or refuses it whole.
    pub(super) fn correct(&mut self, record: &Record<'_>) -> Result<(), Rejection> {
        match record.kind {
            RecordKind::Adjustment => self.adjust(record)?,
            RecordKind::Mark => {
                for cell in RepairMark::decode(record.payload)?.cells {
                    self.repair(record, &cell, Op::Mark);
                }
            }
            RecordKind::Set => {
                let set = RepairSet::decode(record.payload)?;
                for (cell, counts) in &set.cells {
                    self.repair(record, cell, Op::Set(set.mark, *counts));
                }
            }
            _ => return Ok(()),
        }
        self.tally.corrections += 1;
        Ok(())
    }

    /// `after` makes publishing twice harmless for ever: the second copy comes after one adjustment more.
    fn adjust(&mut self, record: &Record<'_>) -> Result<(), Rejection> {
        let adjustment = Adjustment::decode(record.payload)?;
        if adjustment.after != self.adjustments {
            let detail = format!(
                "it comes after {} adjustments and {} have been taken; read the checkpoint and try again",
                adjustment.after, self.adjustments
            );
            return Err(Rejection::new(Reason::StaleAdjustment, detail));
        }
        if let Some(delta) = adjustment.deltas.iter().find(|delta| delta.minute >= self.at.closed) {
            let detail = format!("minute {} is not closed yet (the watermark is {}); try again later", delta.minute, self.at.closed);
            return Err(Rejection::new(Reason::MinuteOpen, detail));
        }
        self.adjustments += 1;
        for delta in &adjustment.deltas {
            for entity in &delta.entities {
                let ix = self.cells.entities.intern(entity.dimension, &entity.id);
                self.count(ix, delta.minute, record.offset, delta.counts);
            }
        }
        Ok(())
    }

    /// Open minutes ignore repairs: they are rebuilt from the log at every recovery.
    fn repair(&mut self, record: &Record<'_>, cell: &RepairCell, op: Op) {
        if cell.tier == Tier::Minute && cell.start >= self.at.closed {
            return;
        }
        match (op, cell.tier) {
            (Op::Set(..), Tier::Year) => self.touched.day(Touched::ALL, record.offset, self.at.stamp),
            (Op::Set(..), _) => self.touched.minute(cell.start, record.offset, self.at.stamp),
            // A mark changes no count.
            _ => {}
        }
        let through = if cell.tier == Tier::Minute { Minute::NEVER } else { self.at.closed };
        let change: Change = self.change(record.offset, through, op);
        if !cell.bucket().is_expired(self.at.clock, self.settings.ttl_ms(cell.tier)) {
            let ix = self.cells.entities.intern(cell.entity.dimension, &cell.entity.id);
            self.change_closed(ix, cell.bucket(), change);
        }
    }
}
