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
//! | [`ids`] | the ids of the deduplication window |
//! | [`cell`], [`cells`], [`entities`], [`parking`] | resident cells: changed, parked, loaded, evicted |
//! | [`correct`] | adjustments and repairs |

mod cell;
mod cells;
mod classify;
mod clock;
mod correct;
mod entities;
mod ids;
mod parking;

use schemas::cell::SITE;
use schemas::{
    Bucket, CellKey, Checkpoint, Counts, DeadLetter, Dimension, Event, EventHash, FoldSettings, Kind, Millis, Minute, Offset, Reason,
    Record, RecordKind, Rejection, Source, Stage, StoredRow, Tally, Tier, dead_letter::Original, json,
};

use cell::{Change, Op};
use cells::{CellIx, Cells};
use clock::{LogClock, WarmIndex, warm_up_minute};
use entities::EntityIx;
use ids::SeenIds;

pub use cells::Load;

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
        Self { resident_cells: 500_000, pending_max: 100_000, dead_letter_bytes: 16 << 20, load_cells: 10_000 }
    }
}

/// Everything that has to be in the store and in the dead-letter log before the checkpoint may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Hour, day and year rows. They are written before the minutes, or a visible count could fall after a crash.
    pub rollups: Vec<(CellKey, StoredRow)>,
    /// Minute rows.
    pub minutes: Vec<(CellKey, StoredRow)>,
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
    /// The cells of the flush under way.
    in_flight: Option<Vec<CellIx>>,
}

impl Fold {
    /// The fold of a source from its checkpoint, or from `start` (its first record) without one.
    /// With a checkpoint, [`Fold::warm_up`] must see the warm-up range before the first [`Fold::apply`].
    pub fn new(source: Source, settings: FoldSettings, limits: FoldLimits, checkpoint: Option<&Checkpoint>, start: Offset) -> Self {
        let mut cells = Cells::new(source, limits.resident_cells);
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

    /// Reads one record of the warm-up range: rebuilds the id set and the open minutes, and changes nothing else.
    pub fn warm_up(&mut self, record: &Record<'_>) {
        self.warm_clock = self.warm_clock.max(record.append_time);
        let clock = self.warm_clock;
        self.warm_index.note(clock, record.offset);
        let rebuilds = self.at.closed != Minute::NEVER && clock >= self.at.closed.start().plus(-self.settings.max_skew_ms);
        for event in events(record).filter_map(|raw| json::decode(raw).ok()) {
            if classify::refusal(event.ts, clock, record.historical, &self.settings).is_some() {
                continue;
            }
            let duplicate = self.ids.see(EventHash::of(&event.event_id), Minute::of(clock));
            let minute = Minute::of(event.ts);
            if duplicate || !rebuilds || minute < self.at.closed {
                continue;
            }
            // Their stamps are not known here, nor needed: a row is written only after a new change, which brings its own.
            let change = self.change(record.offset, Millis::NEVER, Op::Add(delta(event.kind)));
            for entity in self.entities_of(&event).into_iter().flatten() {
                let ix = self.cells.open_minute(entity, minute);
                self.cells.rebuild(ix, change);
            }
        }
    }

    /// Folds the record at [`Fold::position`].
    pub fn apply(&mut self, record: &Record<'_>) {
        let closed_before = self.at.advance(record.append_time, self.settings.grace_ms);
        self.warm_index.note(self.at.clock, record.offset);
        // Closing comes before the record's own events: what it brings to a minute that it closes is late.
        if self.at.closed > closed_before {
            self.close_minutes(record.offset);
        }
        match record.kind {
            RecordKind::Json => self.settle(record, 0, record.payload, Decoded::read(record.payload)),
            RecordKind::Ndjson => self.apply_lines(record),
            RecordKind::Tick => {}
            RecordKind::Adjustment | RecordKind::Mark | RecordKind::Set => {
                if let Err(rejection) = self.correct(record) {
                    self.reject(record, 0, Stage::Correct, rejection, record.payload);
                }
            }
            RecordKind::ViewBatch | RecordKind::Unknown(_) => {
                let code = record.kind.code();
                let detail = format!("record kind {code} is not known to this version of tallymark");
                self.reject(record, 0, Stage::Decode, Rejection::new(Reason::UnknownRecord, detail), record.payload);
            }
        }
        self.position = record.offset.next();
        self.cells.evict();
    }

    /// The next cells to read from the store.
    pub fn poll_load(&mut self) -> Option<Load> {
        self.cells.poll_load(self.limits.load_cells)
    }

    /// Takes the answer to a load: one row or none for each of its keys.
    pub fn loaded(&mut self, load: &Load, rows: &[Option<StoredRow>]) {
        self.cells.loaded(load, rows);
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
        let places = self.cells.take_dirty();
        let (rollups, minutes) = self.cells.rows(&places);
        self.in_flight = Some(places);
        self.dead_letter_bytes = 0;
        Some(Flush { rollups, minutes, dead_letters: std::mem::take(&mut self.dead_letters), checkpoint: self.checkpoint() })
    }

    /// The flush under way is stored whole, its checkpoint too.
    pub fn flushed(&mut self) {
        if let Some(places) = self.in_flight.take() {
            self.cells.landed(&places);
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
        let through = self.at.closed.start();
        for ix in self.cells.close_below(self.at.closed) {
            let Some((entity, minute, counts)) = self.cells.get(ix).map(|cell| (cell.entity, cell.bucket.start, cell.counts)) else {
                continue;
            };
            let change = self.change(offset, through, Op::Add(counts));
            self.change_rollups(entity, minute, change);
        }
    }

    /// Decodes a few events ahead, so that the memory that holds their ids is on its way when each is classified in its turn.
    fn apply_lines(&mut self, record: &Record<'_>) {
        let mut lines = (0u32..).zip(json::lines(record.payload));
        let mut ahead = Vec::with_capacity(DECODE_AHEAD);
        loop {
            ahead.extend(lines.by_ref().take(DECODE_AHEAD).map(|(index, raw)| (index, raw, Decoded::read(raw))));
            if ahead.is_empty() {
                return;
            }
            for decoded in ahead.iter().filter_map(|(_, _, decoded)| decoded.as_ref().ok()) {
                self.ids.touch(decoded.id);
            }
            for (index, raw, decoded) in ahead.drain(..) {
                self.settle(record, index, raw, decoded);
            }
        }
    }

    /// Counts an event, knows it as a duplicate, or rejects it.
    fn settle(&mut self, record: &Record<'_>, index: u32, raw: &[u8], decoded: Result<Decoded<'_>, Rejection>) {
        let settled = match decoded {
            Ok(decoded) => self.apply_event(record, &decoded).map_err(|rejection| (Stage::Classify, rejection)),
            Err(rejection) => Err((Stage::Decode, rejection)),
        };
        if let Err((stage, rejection)) = settled {
            self.reject(record, index, stage, rejection, raw);
        }
    }

    fn apply_event(&mut self, record: &Record<'_>, Decoded { event, id }: &Decoded<'_>) -> Result<(), Rejection> {
        let clock = self.at.clock;
        if let Some(reason) = classify::refusal(event.ts, clock, record.historical, &self.settings) {
            return Err(Rejection::new(reason, classify::explain(reason, event.ts, clock, &self.settings)));
        }
        if self.ids.see(*id, Minute::of(clock)) {
            self.tally.duplicate += 1;
            return Ok(());
        }
        self.tally.counted += 1;
        let minute = Minute::of(event.ts);
        for entity in self.entities_of(event).into_iter().flatten() {
            self.count(entity, minute, record.offset, delta(event.kind));
        }
        Ok(())
    }

    /// One change of a minute; of its hour, day and year too if the minute is rolled up already.
    fn count(&mut self, entity: EntityIx, minute: Minute, offset: Offset, counts: Counts) {
        let change = self.change(offset, Millis::NEVER, Op::Add(counts));
        if minute >= self.at.closed {
            let ix = self.cells.open_minute(entity, minute);
            self.cells.change(ix, change);
        } else {
            self.change_closed(entity, Tier::Minute.bucket(minute), change);
            self.change_rollups(entity, minute, Change { through: self.at.closed.start(), ..change });
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

    const fn change(&self, offset: Offset, through: Millis, op: Op) -> Change {
        Change { offset, stamp: self.at.stamp, through, op }
    }

    fn entities_of(&mut self, event: &Event<'_>) -> [Option<EntityIx>; 3] {
        let entities = &mut self.cells.entities;
        let video = entities.intern(Dimension::Video, &event.video_id);
        let space = event.space_id.as_deref().map(|id| entities.intern(Dimension::Space, id));
        [Some(video), space, Some(self.site)]
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

/// How many events of a record are decoded before the first of them is classified.
const DECODE_AHEAD: usize = 16;

/// An event and the hash of its id.
struct Decoded<'a> {
    event: Event<'a>,
    id: EventHash,
}

impl<'a> Decoded<'a> {
    fn read(raw: &'a [u8]) -> Result<Self, Rejection> {
        json::decode(raw).map(|event| Self { id: EventHash::of(&event.event_id), event })
    }
}

const fn delta(kind: Kind) -> Counts {
    match kind {
        Kind::View => Counts::VIEW,
        Kind::Engaged => Counts::ENGAGED,
    }
}

/// The raw events of a record: the payload itself, or its lines.
fn events<'a>(record: &Record<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let (single, many): (Option<&'a [u8]>, &'a [u8]) = match record.kind {
        RecordKind::Json => (Some(record.payload), &[]),
        RecordKind::Ndjson => (None, record.payload),
        _ => (None, &[]),
    };
    single.into_iter().chain(json::lines(many))
}
