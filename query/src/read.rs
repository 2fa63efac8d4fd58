//! Sums of stored cells over time ranges, exact at every moment while folds go on writing.
//!
//! The order of reads is the protocol's: checkpoints, then all rollup slices, then all minute slices. With `closed` from the
//! checkpoint of the cell's source and `through` from its row (none: never),
//!
//! ```text
//! value(rollup cell) = row + the source's minute rows of its bucket that start at or after max(through, closed)
//! ```
//!
//! Whatever a fold moves from open minutes to rollups between two of the reads is so counted once: the row says up to where it
//! goes, and minutes read later than it hold all that is behind. Rows of sources without a checkpoint are not counted.
//!
//! A value read so is at least what it was at any moment before its reading began, and at most what it is when it has ended: of
//! two readings of a bucket, one after the other, the second never says less, but by a correction.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use aggregator::owner::CLOCK_TOLERANCE_MS;
use aggregator::{CountStore, Slice, SliceRow, StoreError};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemas::{Checkpoint, Counts, Entity, FoldSettings, Millis, Minute, Source, Tier};
use thiserror::Error;

use crate::plan::{Gone, Kept, Run, plan, slices};
use crate::standing::{Lasts, Standing};

/// How far the sources' folds have come, from their checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermarks {
    closed: BTreeMap<Source, Millis>,
    /// The latest log clock of a source.
    pub clock: Millis,
    /// Every source has closed the minutes that start before this; `None` while a source of the log has no checkpoint.
    pub complete_through: Option<Millis>,
    /// What ended before this changes by imports and corrections only; `None` while a source of the log has no checkpoint.
    pub final_before: Option<Millis>,
}

impl Watermarks {
    /// The watermarks of a log with so many `sources`.
    pub fn of(checkpoints: &[(Source, Checkpoint)], sources: NonZeroU32) -> Self {
        let closed: BTreeMap<Source, Millis> = checkpoints.iter().map(|(source, checkpoint)| (*source, checkpoint.closed)).collect();
        let all_known = (0..sources.get()).all(|source| closed.contains_key(&Source(source)));
        // Nothing waits for a source that has ended.
        let running = || checkpoints.iter().map(|(_, checkpoint)| checkpoint).filter(|checkpoint| !checkpoint.has_ended());
        let least = |times: &mut dyn Iterator<Item = Millis>| times.min().filter(|at| all_known && *at != Millis::NEVER);
        let clock_of = |checkpoint: &Checkpoint| checkpoint.clock;
        let lateness_ms = checkpoints.iter().map(|(_, checkpoint)| checkpoint.settings.max_lateness_ms).max().unwrap_or_default();
        Self {
            complete_through: least(&mut running().map(|checkpoint| checkpoint.closed)),
            final_before: least(&mut running().map(clock_of)).map(|at| at.plus(-lateness_ms)),
            clock: checkpoints.iter().map(|(_, checkpoint)| clock_of(checkpoint)).max().unwrap_or(Millis::NEVER),
            closed,
        }
    }

    /// Whether what ends at `end` is complete: only events that come late, within the fold's `max_lateness`, still change it.
    pub fn is_complete(&self, end: Minute) -> bool {
        self.complete_through.is_some_and(|through| end.start() <= through)
    }

    /// Whether what ends at `end` is final: only imports and corrections still change it.
    pub fn is_final(&self, end: Minute) -> bool {
        self.final_before.is_some_and(|before| end.start() < before)
    }

    /// How long a count of what ends at `end` lasts.
    pub fn lasts(&self, end: Minute) -> Lasts {
        match (self.is_complete(end), self.is_final(end)) {
            (false, _) => Lasts::Open,
            (true, false) => Lasts::Complete,
            (true, true) => Lasts::Final,
        }
    }

    /// Whether these are watermarks of the same sources.
    pub(crate) fn is_of_same_sources(&self, other: &Self) -> bool {
        self.closed.keys().eq(other.closed.keys())
    }

    fn closed(&self, source: Source) -> Option<Millis> {
        self.closed.get(&source).copied()
    }

    fn least_closed(&self) -> Minute {
        self.closed.values().min().map_or(Minute::MAX, |closed| Minute::of(*closed))
    }
}

/// Why a range was not summed.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The range needs buckets that are no longer kept.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// Sums and what they are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// One for each range, in order.
    pub counts: Vec<Counts>,
    /// How far the folds had come before anything else was read.
    pub marks: Arc<Watermarks>,
    /// What they are worth together.
    pub standing: Standing,
}

/// A question: ranges as the buckets that answer them.
pub(crate) struct Question {
    /// For each range its buckets.
    pub(crate) plans: Vec<Vec<Run>>,
    /// Where the last range ends.
    pub(crate) end: Minute,
}

impl Question {
    /// The plan of half-open `ranges`, which may overlap.
    pub(crate) fn plan(ranges: &[(Minute, Minute)], kept: &Kept<'_>) -> Result<Self, Gone> {
        let plans = ranges.iter().map(|(start, end)| plan(*start, *end, kept)).collect::<Result<_, _>>()?;
        Ok(Self { plans, end: ranges.iter().map(|(_, end)| *end).max().unwrap_or(Minute::MIN) })
    }

    /// All its runs.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> {
        self.plans.iter().flatten().copied()
    }

    /// Its answer, once all buckets of its runs are known.
    pub(crate) fn answer(&self, cells: &Cells, marks: Arc<Watermarks>, stale: Option<Duration>) -> Sums {
        let counts = self.plans.iter().map(|runs| runs.iter().fold(Counts::ZERO, |sum, run| sum + cells.sum(run))).collect();
        Sums { counts, standing: Standing { lasts: marks.lasts(self.end), stale }, marks }
    }
}

/// What buckets hold, over all sources, in the order of tier and start; what is not here holds nothing.
#[derive(Debug, Default)]
pub(crate) struct Cells(Vec<((Tier, Minute), Counts)>);

impl Cells {
    /// Adds a bucket, which lies behind all others.
    pub(crate) fn push(&mut self, tier: Tier, start: Minute, counts: Counts) {
        debug_assert!(self.0.last().is_none_or(|(last, _)| *last < (tier, start)), "{tier:?} {start}");
        self.0.push(((tier, start), counts));
    }

    /// The buckets of a run that hold anything.
    pub(crate) fn of(&self, Run { tier, start, end }: &Run) -> &[((Tier, Minute), Counts)] {
        let before = |at: Minute| self.0.partition_point(|(key, _)| *key < (*tier, at));
        self.0.get(before(*start)..before(*end)).unwrap_or_default()
    }

    fn sum(&self, run: &Run) -> Counts {
        self.of(run).iter().fold(Counts::ZERO, |sum, (_, counts)| sum + *counts)
    }
}

/// Reads sums from a store.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The store.
    pub store: &'a dyn CountStore,
    /// The fold's settings, for the times to live.
    pub settings: &'a FoldSettings,
    /// How many sources the log has.
    pub sources: NonZeroU32,
    /// So many slices are read at once.
    pub reads_at_once: usize,
}

impl Reader<'_> {
    /// The counts of `entity` in each of the half-open `ranges`, which may overlap. `now` is the wall clock.
    ///
    /// # Errors
    /// If the store fails, or a range needs buckets whose time to live has passed.
    pub async fn sums(&self, entity: &Entity, ranges: &[(Minute, Minute)], now: Millis) -> Result<Sums, ReadError> {
        let marks = self.watermarks().await?;
        let kept = Kept { settings: self.settings, clock: now.max(marks.clock) };
        let question = Question::plan(ranges, &kept)?;
        let cells = self.cells(entity, question.runs().collect(), &marks, kept.clock).await?;
        Ok(question.answer(&cells, Arc::new(marks), None))
    }

    /// How far the folds have come.
    pub(crate) async fn watermarks(&self) -> Result<Watermarks, StoreError> {
        Ok(Watermarks::of(&self.store.read_checkpoints().await?, self.sources))
    }

    /// What the buckets of `runs` hold. `marks` were read before; `clock` is the later of the wall's and the log's.
    pub(crate) async fn cells(&self, entity: &Entity, runs: Vec<Run>, marks: &Watermarks, clock: Millis) -> Result<Cells, StoreError> {
        let (minutes, rollups): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|run| run.tier == Tier::Minute);
        let rollups = slices(rollups);
        let tails = rollups.iter().filter_map(|run| tail(run, marks.least_closed()));
        let last = horizon(clock, self.settings);
        let minutes = slices(minutes.into_iter().chain(tails).filter_map(|run| run.until(last)).collect());

        let mut sums = Summing { marks, cells: BTreeMap::new(), covered: BTreeMap::new() };
        for (tier, row) in self.read(entity, rollups.clone()).await? {
            sums.add_rollup(tier, &row);
        }
        for (_, row) in self.read(entity, minutes).await? {
            sums.add_minute(&row, &rollups);
        }
        Ok(Cells(sums.cells.into_iter().collect()))
    }

    async fn read(&self, entity: &Entity, runs: Vec<Run>) -> Result<Vec<(Tier, SliceRow)>, StoreError> {
        let reads = runs.into_iter().map(|Run { tier, start, end }| async move {
            let rows = self.store.read_slice(Slice { entity: entity.clone(), tier, start, end }).await?;
            Ok::<_, StoreError>(rows.into_iter().map(|row| (tier, row)).collect::<Vec<_>>())
        });
        let read: Vec<Vec<(Tier, SliceRow)>> = stream::iter(reads).buffer_unordered(self.reads_at_once.max(1)).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }
}

/// No minute cell starts at or after this: a fold counts no event that is more than `max_skew` ahead of the log clock, and stops when
/// that is more than the tolerance ahead of the wall's.
///
/// A range can end far in the future, and so can the bucket of this day or year; a store that keeps a partition for each day of minutes
/// would be asked for each of these days.
pub(crate) fn horizon(clock: Millis, settings: &FoldSettings) -> Minute {
    Minute::of(clock.plus(CLOCK_TOLERANCE_MS + settings.max_skew_ms)).plus(1)
}

/// The minutes of a rollup run that may not be in its rows: none when every source has closed its buckets.
fn tail(run: &Run, least_closed: Minute) -> Option<Run> {
    let start = run.start.max(least_closed);
    (start < run.end).then_some(Run { tier: Tier::Minute, start, end: run.end })
}

/// Rows of sources with a checkpoint, summed as they come: rollups first.
struct Summing<'a> {
    marks: &'a Watermarks,
    cells: BTreeMap<(Tier, Minute), Counts>,
    /// Of each rollup row, up to where it holds its source's minutes.
    covered: BTreeMap<(Tier, Minute, Source), Millis>,
}

impl Summing<'_> {
    fn add_rollup(&mut self, tier: Tier, SliceRow { start, source, stored }: &SliceRow) {
        if self.marks.closed(*source).is_some() {
            self.covered.insert((tier, *start, *source), stored.row.through);
            *self.cells.entry((tier, *start)).or_default() += stored.row.counts;
        }
    }

    /// Adds a minute for itself, and to those buckets of `rollups` whose rows do not hold it.
    fn add_minute(&mut self, SliceRow { start, source, stored }: &SliceRow, rollups: &[Run]) {
        let Some(closed) = self.marks.closed(*source) else { return };
        let counts = stored.row.counts;
        *self.cells.entry((Tier::Minute, *start)).or_default() += counts;
        for run in rollups.iter().filter(|run| run.start <= *start && *start < run.end) {
            let bucket = run.tier.bucket(*start).start;
            let through = self.covered.get(&(run.tier, bucket, *source)).copied().unwrap_or(Millis::NEVER);
            if start.start() >= through.max(closed) {
                *self.cells.entry((run.tier, bucket)).or_default() += counts;
            }
        }
    }
}
