//! The fold of one source: records in, rows out. Synchronous, without I/O, clock or randomness.
//!
//! ```text
//!            apply(record)                       poll_flush() ──> rows, dead letters, checkpoint
//!                 │                                    ▲
//!     clock ─> close minutes ─> classify ─> count ─> cells ◄── loaded(rows) ◄── poll_load()
//! ```
//!
//! What it keeps, always: every cell is a function of a log prefix and knows which; a change below the version that a
//! cell was loaded with is ignored; a change is computed from the record, from state that warm-up or the checkpoint
//! restores exactly, and at most from the very cell it changes. So re-reading, retries and a second owner of the same
//! source are harmless: both write the same bytes for the same version.
//!
//! | module | holds |
//! |---|---|
//! | [`clock`] | log clock, stamp, watermark; where warm-up begins |
//! | [`classify`] | too old, in the future |
//! | [`batch`] | columnar batches: counted by dictionary entry |
//! | [`events`] | events of JSON records: decoded ahead, classified, counted |
//! | [`warm_up`] | rebuilding ids and open minutes after a restart |
//! | [`ids`] | the ids of the deduplication window |
//! | [`cell`], [`cells`], [`entities`], [`index`], [`parking`] | resident cells: changed, parked, loaded, evicted |
//! | [`correct`] | adjustments and repairs |
//! | [`touched`] | which days change after they were closed |
//! | [`trace`] | what became of one event id, for people: the same rules over a part of the log |

mod batch;
mod cell;
mod cells;
mod classify;
mod clock;
mod correct;
mod entities;
mod events;
mod ids;
mod index;
mod parking;
mod touched;
mod trace;
mod warm_up;

use schemas::cell::SITE;
use schemas::{
    Bucket, CellKey, Checkpoint, Counts, DeadLetter, Dimension, FoldSettings, Millis, Minute, Offset, Reason, Record, RecordKind,
    Rejection, Source, Stage, StoredRow, Tally, Tier, dead_letter::Original,
};

use batch::Room;
use cell::{Addition, Change, Op};
use cells::{AHEAD, Cells};
use clock::{LogClock, WarmIndex, warm_up_minute};
use entities::EntityIx;
use ids::SeenIds;
use touched::TouchedDays;

use crate::store::Touched;

pub use cells::Load;
pub use classify::judge;
pub use trace::{Occurrence, Place, Trace, Verdict};

/// How much the fold of one source may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldLimits {
    /// Resident cells beyond which unused ones are evicted.
    pub resident_cells: usize,
    /// Changed cells, parked changes or dead-letter events at which the fold takes no further record.
    pub pending_max: usize,
    /// Bytes of dead letters at which the fold takes no further record.
    pub dead_letter_bytes: usize,
    /// Cells in one load.
    pub load_cells: usize,
}

impl Default for FoldLimits {
    fn default() -> Self {
        Self { resident_cells: 500_000, pending_max: 500_000, dead_letter_bytes: 16 << 20, load_cells: 10_000 }
    }
}

/// Everything that has to be in the store and in the dead-letter log before the checkpoint may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Hour, day and year rows. They are written before the minutes, or a visible count could fall after a crash.
    pub rollups: Vec<(CellKey, StoredRow)>,
    /// Minute rows.
    pub minutes: Vec<(CellKey, StoredRow)>,
    /// Days whose counts changed after they were closed, announced when the rows are stored.
    pub touched: Vec<Touched>,
    /// Refused events since the last flush.
    pub dead_letters: Vec<DeadLetter>,
    /// Written last.
    pub checkpoint: Checkpoint,
}

/// Sizes of the fold's state, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoldSizes {
    /// Cells in memory.
    pub resident_cells: usize,
    /// Entities in memory.
    pub entities: usize,
    /// Cells with changes that are not stored.
    pub dirty_cells: usize,
    /// Cells that wait for their row.
    pub parked_cells: usize,
    /// Ids in the deduplication window.
    pub ids: usize,
    /// Memory of those ids, in bytes.
    pub id_bytes: usize,
}

/// The state of one source as of a log prefix.
pub struct Fold {
    source: Source,
    settings: FoldSettings,
    limits: FoldLimits,
    /// The next offset: names the prefix that this is the state of.
    position: Offset,
    at: LogClock,
    /// The clock of the warm-up records read so far.
    warm_clock: Millis,
    warm_index: WarmIndex,
    ids: SeenIds,
    cells: Cells,
    /// The rollup buckets of the minute that was last rolled up: closing asks for the same ones again and again.
    rollups: (Minute, [Bucket; 3]),
    site: EntityIx,
    adjustments: u64,
    tally: Tally,
    dead_letters: Vec<DeadLetter>,
    dead_letter_bytes: usize,
    touched: TouchedDays,
    /// For the sums of a batch.
    room: Room,
    /// The prefix of the flush under way.
    in_flight: Option<Offset>,
}

impl Fold {
    /// The fold of a source from its checkpoint, or from `start` (its first record) without one.
    /// With a checkpoint, [`Fold::warm_up`] must see the warm-up range before the first [`Fold::apply`].
    pub fn new(source: Source, settings: FoldSettings, limits: FoldLimits, checkpoint: Option<&Checkpoint>, start: Offset) -> Self {
        let stored = checkpoint.map_or(start, |checkpoint| checkpoint.next_offset);
        let mut cells = Cells::new(source, limits.resident_cells, stored);
        let site = cells.entities.intern(Dimension::Site, SITE);
        cells.entities.hold(site);
        let mut fold = Self {
            ids: SeenIds::new(settings.dedup_minutes),
            source,
            settings,
            limits,
            position: start,
            at: LogClock::EMPTY,
            warm_clock: Millis::NEVER,
            warm_index: WarmIndex::default(),
            cells,
            rollups: (Minute(0), Tier::ROLLUPS.map(|tier| tier.bucket(Minute(0)))),
            site,
            adjustments: 0,
            tally: Tally::default(),
            dead_letters: Vec::new(),
            dead_letter_bytes: 0,
            touched: TouchedDays::default(),
            room: Room::default(),
            in_flight: None,
        };
        if let Some(checkpoint) = checkpoint {
            fold.position = checkpoint.next_offset;
            fold.at = LogClock {
                clock: checkpoint.clock,
                stamp: checkpoint.stamp,
                closed: Minute::of(checkpoint.closed),
                append_time: checkpoint.append_time,
            };
            if checkpoint.closed == Millis::NEVER {
                fold.at.closed = Minute::NEVER;
            }
            fold.adjustments = checkpoint.adjustments;
            fold.tally = checkpoint.tally.clone();
        }
        fold
    }

    /// The next offset to apply.
    pub const fn position(&self) -> Offset {
        self.position
    }

    /// The log clock.
    pub const fn clock(&self) -> Millis {
        self.at.clock
    }

    /// The clock of the warm-up records read so far; after warm-up it is the checkpoint's, or this is not the log it was.
    pub const fn warm_clock(&self) -> Millis {
        self.warm_clock
    }

    /// The watermark.
    pub fn closed(&self) -> Millis {
        self.at.closed.start()
    }

    /// What became of the events of the prefix.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The sizes of its state.
    pub fn sizes(&self) -> FoldSizes {
        FoldSizes {
            resident_cells: self.cells.len(),
            entities: self.cells.entities.len(),
            dirty_cells: self.cells.dirty_len(),
            parked_cells: self.cells.parked_len().0,
            ids: self.ids.len(),
            id_bytes: self.ids.bytes(),
        }
    }

    /// Whether another record may be applied now: nothing that waits for the store has passed its bound.
    pub fn has_room(&self) -> bool {
        let pending = self.cells.dirty_len().max(self.cells.parked_len().1).max(self.dead_letters.len());
        pending < self.limits.pending_max && self.dead_letter_bytes < self.limits.dead_letter_bytes
    }

    /// Whether so much waits to be stored that a flush should not wait for its time.
    pub fn is_heavy(&self) -> bool {
        let pending = self.cells.dirty_len().max(self.dead_letters.len());
        pending >= self.limits.pending_max / 2 || self.dead_letter_bytes >= self.limits.dead_letter_bytes / 2
    }

    /// Folds the records from [`Fold::position`] on. The same as one at a time, and faster: memory is asked for ahead.
    pub fn apply_run(&mut self, mut records: &[Record<'_>]) {
        while let Some((record, rest)) = records.split_first() {
            let singles = records.iter().take(AHEAD).take_while(|record| record.kind == RecordKind::Json).count();
            if singles > 1 {
                let (group, rest) = records.split_at(singles);
                self.apply_singles(group);
                records = rest;
            } else {
                self.apply(record);
                records = rest;
            }
        }
    }

    /// Folds the record at [`Fold::position`].
    pub fn apply(&mut self, record: &Record<'_>) {
        self.begin(record);
        match record.kind {
            RecordKind::Json => {
                let decoded = self.decode(record.payload);
                self.settle_raw(record, 0, record.payload, decoded);
            }
            RecordKind::Ndjson => self.apply_lines(record),
            RecordKind::ViewBatch => self.apply_batch(record),
            RecordKind::Tick => {}
            RecordKind::Adjustment | RecordKind::Mark | RecordKind::Set => {
                if let Err(rejection) = self.correct(record) {
                    self.reject(record, 0, Stage::Correct, rejection, record.payload);
                }
            }
            RecordKind::Unknown(code) => {
                let detail = format!("record kind {code} is not known to this version of tallymark");
                self.reject(record, 0, Stage::Decode, Rejection::new(Reason::UnknownRecord, detail), record.payload);
            }
        }
        self.end(record);
    }

    /// What every record does, before its own events: what it brings to a minute that it closes is late.
    fn begin(&mut self, record: &Record<'_>) {
        let closed_before = self.at.advance(record.append_time, self.settings.grace_ms);
        self.warm_index.note(self.at.clock, record.offset);
        if self.at.closed > closed_before {
            self.close_minutes(record.offset);
        }
    }

    fn end(&mut self, record: &Record<'_>) {
        self.position = record.offset.next();
        self.cells.evict();
    }

    /// The next cells to read from the store.
    pub fn poll_load(&mut self) -> Option<Load> {
        self.cells.poll_load(self.limits.load_cells)
    }

    /// Takes the answer to a load: one row or none for each of its keys.
    pub fn loaded(&mut self, load: &Load, rows: &[Option<StoredRow>]) {
        self.cells.loaded(load, rows, self.position);
    }

    /// Whether every change is in a resident cell, so that a flush can be taken. While a flush is due and this is not so,
    /// the driver applies no further record: the flush is of one prefix.
    pub const fn is_loaded(&self) -> bool {
        self.cells.parked_len().0 == 0
    }

    /// Takes the changes of the prefix as a flush, unless one is under way or cells wait for their rows.
    pub fn take_flush(&mut self) -> Option<Flush> {
        if self.in_flight.is_some() || !self.is_loaded() || self.at.clock == Millis::NEVER {
            return None;
        }
        let (rollups, minutes) = self.cells.take_dirty();
        self.in_flight = Some(self.position);
        self.dead_letter_bytes = 0;
        let touched = self.touched.take(self.position, self.at.stamp);
        let dead_letters = std::mem::take(&mut self.dead_letters);
        Some(Flush { rollups, minutes, touched, dead_letters, checkpoint: self.checkpoint() })
    }

    /// Takes back the rows of a flush that are stored, for the memory that they are in.
    pub fn recycle(&mut self, rows: Vec<(CellKey, StoredRow)>) {
        self.cells.recycle(rows);
    }

    /// The flush under way is stored whole, its checkpoint too.
    pub fn flushed(&mut self) {
        if let Some(prefix) = self.in_flight.take() {
            self.cells.landed(prefix);
        }
        self.cells.evict();
    }

    fn checkpoint(&mut self) -> Checkpoint {
        let warm_from = self.warm_index.first_from(warm_up_minute(self.at.closed, &self.settings), self.position);
        Checkpoint {
            next_offset: self.position,
            warm_from,
            stamp: self.at.stamp,
            clock: self.at.clock,
            append_time: self.at.append_time,
            closed: self.at.closed.start(),
            adjustments: self.adjustments,
            tally: self.tally.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Adds each minute that the watermark has passed to its hour, day and year.
    fn close_minutes(&mut self, offset: Offset) {
        let through = self.at.closed;
        for group in self.cells.close_below(through).chunks(AHEAD) {
            group.iter().for_each(|ix| self.cells.touch(*ix));
            group.iter().for_each(|ix| self.cells.touch_entity(*ix));
            group.iter().for_each(|ix| self.cells.touch_rollups(*ix));
            for ix in group {
                if let Some((entity, minute, counts)) = self.cells.close(*ix) {
                    let change = self.change(offset, through, Op::Add(counts));
                    self.change_rollups(entity, minute, change);
                }
            }
        }
    }

    /// One change of a minute; of its hour, day and year too if the minute is rolled up already.
    fn count(&mut self, entity: EntityIx, minute: Minute, offset: Offset, counts: Counts) {
        if minute >= self.at.closed {
            self.cells.count(entity, minute, Addition { offset, stamp: self.at.stamp, counts });
        } else {
            self.touched.minute(minute, offset, self.at.stamp);
            let change = self.change(offset, Minute::NEVER, Op::Add(counts));
            self.change_closed(entity, Tier::Minute.bucket(minute), change);
            self.change_rollups(entity, minute, Change { through: self.at.closed, ..change });
        }
    }

    /// One change of the hour, the day and the year that hold `minute`.
    fn change_rollups(&mut self, entity: EntityIx, minute: Minute, change: Change) {
        if self.rollups.0 != minute {
            self.rollups = (minute, Tier::ROLLUPS.map(|tier| tier.bucket(minute)));
        }
        for bucket in self.rollups.1 {
            self.change_closed(entity, bucket, change);
        }
    }

    /// One change of a closed cell, unless its tier keeps it no longer.
    fn change_closed(&mut self, entity: EntityIx, bucket: Bucket, change: Change) {
        if bucket.is_expired(self.at.clock, self.settings.ttl_ms(bucket.tier)) {
            return;
        }
        let ix = self.cells.closed_cell(entity, bucket);
        self.cells.change(ix, change);
    }

    const fn change(&self, offset: Offset, through: Minute, op: Op) -> Change {
        Change { offset, stamp: self.at.stamp, through, op }
    }

    fn reject(&mut self, record: &Record<'_>, index: u32, stage: Stage, rejection: Rejection, raw: &[u8]) {
        self.tally.reject(rejection.reason);
        self.dead_letter_bytes += raw.len() + rejection.detail.len();
        let (original, whole_bytes) = Original::bounded(raw);
        self.dead_letters.push(DeadLetter {
            source: self.source,
            offset: record.offset,
            index,
            stage,
            reason: rejection.reason,
            detail: rejection.detail,
            historical: record.historical,
            original,
            whole_bytes,
        });
    }
}
