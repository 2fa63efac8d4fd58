//! The owner of one source: a state machine that says what to read, load and write next, and is told what came of it.
//!
//! It does no I/O and reads no clock. A worker thread acts for it ([`crate::worker`]); the simulation acts for it too,
//! and loses, delays and repeats what it likes.
//!
//! ```text
//! recovering ──(checkpoint reached)──> running:  wants() ─> record()…        poll_load() ─> loaded() | load_failed()
//!                                                poll_write() ─> written() | write_failed()       poll_tick()
//! ```
//!
//! A flush goes through its stages in one order: dead letters, rollup rows, minute rows, touched days, checkpoint. The next
//! begins only when the one before has been acknowledged whole. So a stored checkpoint never leads its cells, who reads that a day was touched
//! reads the rows too, and what the checkpoint has passed was announced.

use std::sync::Arc;
use std::time::Duration;

use ingest::{Ends, ReadLimit};
use schemas::{CellKey, Checkpoint, FoldSettings, Millis, NewRecord, Offset, Record, RecordKind, Source, StoredRow};

use crate::backoff;
use crate::fold::{Flush, Fold, FoldLimits, FoldSizes, Load};
use crate::recovery::{self, SourceError, Start};
use crate::store::Touched;

/// Both clocks, as the driver reads them: the wall's to compare with the broker's, and one that only goes on, for pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The machine's wall clock.
    pub wall: Millis,
    /// Time since some fixed moment of this process.
    pub elapsed: Duration,
}

/// The pace and bounds of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerOptions {
    /// How often changes are flushed.
    pub flush_interval: Duration,
    /// After how long without a record the owner appends a tick.
    pub tick_after: Duration,
    /// How much to read at once.
    pub read: ReadLimit,
    /// How much the fold may hold.
    pub limits: FoldLimits,
    /// Start behind records that are gone, and count without them.
    pub accept_gap: bool,
}

impl Default for OwnerOptions {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(1),
            tick_after: Duration::from_secs(60),
            read: ReadLimit { records: 1_000, bytes: 1 << 20, patience: Duration::ZERO },
            limits: FoldLimits::default(),
            accept_gap: false,
        }
    }
}

/// A record whose append time is further ahead of the owner's clock than this stops the source.
pub const CLOCK_TOLERANCE_MS: i64 = 3_600_000;

/// One step of a flush, to be done by the store or the dead-letter log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Names this step in its answer. A step that failed is asked for again under a new name.
    pub id: u64,
    /// What to write.
    pub what: WriteKind,
}

/// What a step of a flush writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Refused events, to the dead-letter log.
    DeadLetters(Vec<NewRecord>),
    /// Rows of cells: first those of the rollup tiers, then those of minutes.
    Rows(Arc<Vec<(CellKey, StoredRow)>>),
    /// Days whose counts changed after they were closed.
    Touched(Vec<Touched>),
    /// How far the source has been folded.
    Checkpoint(Box<Checkpoint>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    DeadLetters,
    Rollups,
    Minutes,
    Touched,
    Checkpoint,
}

/// The flush under way.
struct Flushing {
    stage: Stage,
    dead_letters: Vec<NewRecord>,
    rollups: Arc<Vec<(CellKey, StoredRow)>>,
    minutes: Arc<Vec<(CellKey, StoredRow)>>,
    touched: Vec<Touched>,
    checkpoint: Checkpoint,
    began: Duration,
    /// The append time of its first record.
    oldest: Millis,
    /// The step that was handed out and not answered.
    waiting_for: Option<u64>,
    failures: u32,
    retry_at: Duration,
}

struct Loading {
    load: Load,
    /// Handed out and not answered.
    waiting: bool,
    failures: u32,
    retry_at: Duration,
}

/// What an owner shows of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnerStatus {
    /// The source.
    pub source: Source,
    /// Records of the warm-up range that are still to be read; 0 once it runs.
    pub recovering: u64,
    /// The next offset to fold.
    pub position: Offset,
    /// The next offset of the last stored checkpoint.
    pub stored: Offset,
    /// The log clock.
    pub clock: Millis,
    /// The watermark.
    pub closed: Millis,
    /// What became of the events below `position`.
    pub tally: schemas::Tally,
    /// The sizes of the fold's state.
    pub sizes: FoldSizes,
    /// How long the last flush took from its beginning to its checkpoint.
    pub last_flush: Duration,
    /// Freshness: how long the oldest record of the last flush waited from its append until its checkpoint was stored, in ms.
    pub last_freshness_ms: i64,
    /// Flushes that were stored.
    pub flushes: u64,
    /// Rows that were stored.
    pub rows: u64,
    /// Failed writes and loads since the start.
    pub failures: u64,
    /// Records that this start accepted as lost.
    pub lost: u64,
    /// Records from which this start could not rebuild the open minutes, which was accepted too.
    pub unwarmed: u64,
}

/// The owner of one source.
pub struct Owner {
    source: Source,
    options: OwnerOptions,
    fold: Fold,
    start: Start,
    /// The checkpoint it began from, until the log has been compared with it.
    recovering: Option<Checkpoint>,
    /// The next record to read.
    read_next: Offset,
    flushing: Option<Flushing>,
    loading: Option<Loading>,
    last_write: u64,
    last_flush_at: Duration,
    last_flush_took: Duration,
    last_freshness_ms: i64,
    /// The append time of the first record that no flush has taken.
    oldest: Option<Millis>,
    /// When to append a tick, unless a record comes before.
    tick_at: Duration,
    stored: Offset,
    draining: bool,
    flushes: u64,
    rows: u64,
    failures: u64,
}

impl Owner {
    /// Takes a source over from its checkpoint.
    ///
    /// # Errors
    /// If the checkpoint, the log and the settings do not belong together.
    pub fn new(
        source: Source,
        settings: FoldSettings,
        options: OwnerOptions,
        checkpoint: Option<Checkpoint>,
        ends: Ends,
        now: Now,
    ) -> Result<Self, SourceError> {
        let start = recovery::plan(source, checkpoint.as_ref(), ends, &settings, options.accept_gap)?;
        // A source that has been idle, or is empty, ticks at once: its watermark goes on without waiting a minute more.
        let idle_ms = now.wall.since(checkpoint.as_ref().map_or(Millis::NEVER, |c| c.append_time));
        let idle = Duration::from_millis(u64::try_from(idle_ms).unwrap_or(0));
        Ok(Self {
            source,
            fold: Fold::new(source, settings, options.limits, checkpoint.as_ref(), start.next_offset),
            options,
            start,
            read_next: start.read_from,
            stored: start.next_offset,
            recovering: checkpoint.filter(|c| c.next_offset == start.next_offset && start.read_from < start.next_offset),
            flushing: None,
            loading: None,
            last_write: 0,
            last_flush_at: now.elapsed,
            last_flush_took: Duration::ZERO,
            last_freshness_ms: 0,
            oldest: None,
            tick_at: now.elapsed + options.tick_after.saturating_sub(idle),
            draining: false,
            flushes: 0,
            rows: 0,
            failures: 0,
        })
    }

    /// What to read next, if it can take a record now.
    pub fn wants(&self, now: Now) -> Option<(Offset, ReadLimit)> {
        if self.recovering.is_some() {
            return Some((self.read_next, self.options.read));
        }
        let paused = self.draining || !self.fold.has_room() || (self.flush_is_due(now) && !self.fold.is_loaded());
        (!paused).then_some((self.read_next, self.options.read))
    }

    /// Takes the next record. Returns whether it wants another one at once.
    ///
    /// # Errors
    /// As [`Owner::records`].
    pub fn record(&mut self, record: &Record<'_>, now: Now) -> Result<bool, SourceError> {
        self.records(std::slice::from_ref(record), now)
    }

    /// Takes the next records, all of them. Returns whether it wants more at once.
    ///
    /// # Errors
    /// If one of them shows that this is not the log it was, or that a clock is wrong. The source stops.
    pub fn records(&mut self, records: &[Record<'_>], now: Now) -> Result<bool, SourceError> {
        let Some((first, last)) = records.first().zip(records.last()) else { return Ok(self.wants(now).is_some()) };
        self.read_next = last.offset.next();
        if first.offset < self.start.next_offset {
            let (known, new) = records.split_at(records.partition_point(|record| record.offset < self.start.next_offset));
            known.iter().try_for_each(|record| self.warm_up(record))?;
            return if new.is_empty() { Ok(true) } else { self.records(new, now) };
        }
        let is_ahead = |record: &&Record<'_>| record.append_time > now.wall.plus(CLOCK_TOLERANCE_MS);
        if let Some(Record { offset, append_time, .. }) = records.iter().find(is_ahead) {
            let (offset, append_time) = (*offset, *append_time);
            return Err(SourceError::BrokerClock { source_id: self.source, offset, append_time, now: now.wall });
        }
        self.fold.apply_run(records);
        self.oldest.get_or_insert(first.append_time);
        self.tick_at = now.elapsed + self.options.tick_after;
        Ok(self.wants(now).is_some())
    }

    fn warm_up(&mut self, record: &Record<'_>) -> Result<(), SourceError> {
        if record.offset >= self.start.warm_from {
            self.fold.warm_up(record);
        }
        if record.offset.next() == self.start.next_offset { self.finish_recovery(record) } else { Ok(()) }
    }

    fn finish_recovery(&mut self, last: &Record<'_>) -> Result<(), SourceError> {
        let Some(checkpoint) = self.recovering.take() else { return Ok(()) };
        let differs = |expected: Millis, found: Millis| SourceError::Recreated {
            source_id: self.source,
            next_offset: checkpoint.next_offset,
            expected,
            found,
        };
        if last.append_time != checkpoint.append_time {
            return Err(differs(checkpoint.append_time, last.append_time));
        }
        // The last record speaks for itself, the clock for the whole warm-up range (which a gap may have cut).
        let warmed = self.start.warm_from < self.start.next_offset && !self.options.accept_gap;
        if warmed && self.fold.warm_clock() != checkpoint.clock {
            return Err(differs(checkpoint.clock, self.fold.warm_clock()));
        }
        Ok(())
    }

    /// The next cells to read from the store, if it is time. One load is under way at a time.
    pub fn poll_load(&mut self, now: Now) -> Option<Load> {
        if self.loading.is_none() {
            let load = self.fold.poll_load()?;
            self.loading = Some(Loading { load, waiting: false, failures: 0, retry_at: now.elapsed });
        }
        let loading = self.loading.as_mut().filter(|loading| !loading.waiting && loading.retry_at <= now.elapsed)?;
        loading.waiting = true;
        Some(loading.load.clone())
    }

    /// The store answered a load. Answers that nobody waits for are ignored.
    pub fn loaded(&mut self, load: &Load, rows: &[Option<StoredRow>]) {
        if self.loading.take_if(|loading| loading.load.ticket == load.ticket && loading.waiting).is_some() {
            self.fold.loaded(load, rows);
        }
    }

    /// The store did not answer a load; it is asked again after a while. `jitter` in `[0, 1)`.
    pub fn load_failed(&mut self, load: &Load, now: Now, jitter: f64) {
        let waiting = self.loading.as_mut().filter(|loading| loading.load.ticket == load.ticket && loading.waiting);
        if let Some(loading) = waiting {
            loading.waiting = false;
            loading.failures += 1;
            loading.retry_at = now.elapsed + backoff::delay(loading.failures, jitter);
            self.failures += 1;
        }
    }

    /// The next step of a flush, if it is time for one and none is under way.
    pub fn poll_write(&mut self, now: Now) -> Option<Write> {
        if self.flushing.is_none() && self.flush_is_due(now) {
            let flush = self.fold.take_flush()?;
            self.last_flush_at = now.elapsed;
            self.flushing = Some(Flushing::begin(flush, self.oldest.take().unwrap_or(now.wall), now));
        }
        let flushing = self.flushing.as_mut().filter(|f| f.waiting_for.is_none() && f.retry_at <= now.elapsed)?;
        self.last_write += 1;
        flushing.waiting_for = Some(self.last_write);
        Some(Write { id: self.last_write, what: flushing.what() })
    }

    /// A step of a flush is durable.
    pub fn written(&mut self, id: u64, now: Now) {
        let Some(flushing) = self.flushing.as_mut().filter(|f| f.waiting_for == Some(id)) else { return };
        flushing.waiting_for = None;
        flushing.failures = 0;
        if flushing.stage != Stage::Checkpoint {
            flushing.stage = flushing.next_stage();
            return;
        }
        self.stored = flushing.checkpoint.next_offset;
        self.rows += (flushing.rollups.len() + flushing.minutes.len()) as u64;
        self.flushes += 1;
        self.last_flush_took = now.elapsed.saturating_sub(flushing.began);
        self.last_freshness_ms = now.wall.since(flushing.oldest);
        if let Some(Flushing { rollups, minutes, .. }) = self.flushing.take() {
            [rollups, minutes].into_iter().filter_map(Arc::into_inner).for_each(|rows| self.fold.recycle(rows));
        }
        self.fold.flushed();
    }

    /// A step of a flush is not known to be durable; it is asked for again after a while. `jitter` in `[0, 1)`.
    pub fn write_failed(&mut self, id: u64, now: Now, jitter: f64) {
        let Some(flushing) = self.flushing.as_mut().filter(|f| f.waiting_for == Some(id)) else { return };
        flushing.waiting_for = None;
        flushing.failures += 1;
        flushing.retry_at = now.elapsed + backoff::delay(flushing.failures, jitter);
        self.failures += 1;
    }

    /// Whether to append a tick now, because the source has been idle.
    pub fn poll_tick(&mut self, now: Now) -> bool {
        let due = self.recovering.is_none() && !self.draining && now.elapsed >= self.tick_at;
        if due {
            self.tick_at = now.elapsed + self.options.tick_after;
        }
        due
    }

    /// The next moment at which it may have something to do without being told anything.
    pub fn deadline(&self) -> Duration {
        let ticks = self.recovering.is_none() && !self.draining;
        let mut at = if ticks { self.tick_at } else { Duration::MAX };
        match &self.flushing {
            Some(f) if f.waiting_for.is_none() => at = at.min(f.retry_at),
            Some(_) => {}
            // While cells wait for their rows, it is their coming that lets the flush begin.
            None if self.has_progress() && self.fold.is_loaded() => at = at.min(self.last_flush_at + self.options.flush_interval),
            None => {}
        }
        match &self.loading {
            Some(loading) if !loading.waiting => at.min(loading.retry_at),
            _ => at,
        }
    }

    /// Takes no further record, and flushes what there is at once.
    pub const fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether everything it has folded is stored; always so while it recovers.
    pub fn is_drained(&self) -> bool {
        self.draining && (self.recovering.is_some() || (self.flushing.is_none() && !self.has_progress()))
    }

    /// The next offset of the last stored checkpoint.
    pub const fn stored(&self) -> Offset {
        self.stored
    }

    /// What it shows of itself.
    pub fn status(&self) -> OwnerStatus {
        let left = self.start.next_offset.0.saturating_sub(self.read_next.0);
        OwnerStatus {
            source: self.source,
            recovering: if self.recovering.is_some() { left.max(1) } else { 0 },
            position: self.fold.position(),
            stored: self.stored,
            clock: self.fold.clock(),
            closed: self.fold.closed(),
            tally: self.fold.tally().clone(),
            sizes: self.fold.sizes(),
            last_flush: self.last_flush_took,
            last_freshness_ms: self.last_freshness_ms,
            flushes: self.flushes,
            rows: self.rows,
            failures: self.failures,
            lost: self.start.lost,
            unwarmed: self.start.unwarmed,
        }
    }

    fn has_progress(&self) -> bool {
        self.fold.position() > self.stored
    }

    fn flush_is_due(&self, now: Now) -> bool {
        let due = self.draining || self.fold.is_heavy() || now.elapsed >= self.last_flush_at + self.options.flush_interval;
        due && self.flushing.is_none() && self.recovering.is_none() && self.has_progress()
    }
}

impl Flushing {
    fn begin(flush: Flush, oldest: Millis, now: Now) -> Self {
        let letter = |letter: &schemas::DeadLetter| NewRecord::new(RecordKind::Json, letter.encode());
        let mut flushing = Self {
            stage: Stage::DeadLetters,
            dead_letters: flush.dead_letters.iter().map(letter).collect(),
            rollups: Arc::new(flush.rollups),
            minutes: Arc::new(flush.minutes),
            touched: flush.touched,
            checkpoint: flush.checkpoint,
            began: now.elapsed,
            oldest,
            waiting_for: None,
            failures: 0,
            retry_at: now.elapsed,
        };
        if flushing.dead_letters.is_empty() {
            flushing.stage = flushing.next_stage();
        }
        flushing
    }

    /// The next stage that has something to write; the checkpoint always has.
    fn next_stage(&self) -> Stage {
        match self.stage {
            Stage::DeadLetters if !self.rollups.is_empty() => Stage::Rollups,
            Stage::DeadLetters | Stage::Rollups if !self.minutes.is_empty() => Stage::Minutes,
            Stage::DeadLetters | Stage::Rollups | Stage::Minutes if !self.touched.is_empty() => Stage::Touched,
            _ => Stage::Checkpoint,
        }
    }

    fn what(&self) -> WriteKind {
        match self.stage {
            Stage::DeadLetters => WriteKind::DeadLetters(self.dead_letters.clone()),
            Stage::Rollups => WriteKind::Rows(Arc::clone(&self.rollups)),
            Stage::Minutes => WriteKind::Rows(Arc::clone(&self.minutes)),
            Stage::Touched => WriteKind::Touched(self.touched.clone()),
            Stage::Checkpoint => WriteKind::Checkpoint(Box::new(self.checkpoint.clone())),
        }
    }
}
