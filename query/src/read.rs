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

use std::collections::BTreeMap;
use std::num::NonZeroU32;

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
    pub marks: Watermarks,
    /// What they are worth together.
    pub standing: Standing,
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
        let marks = Watermarks::of(&self.store.read_checkpoints().await?, self.sources);
        let kept = Kept { settings: self.settings, clock: now.max(marks.clock) };
        let plans: Vec<Vec<Run>> = ranges.iter().map(|(start, end)| plan(*start, *end, &kept)).collect::<Result<_, _>>()?;

        let (minutes, rollups): (Vec<Run>, Vec<Run>) = plans.iter().flatten().partition(|run| run.tier == Tier::Minute);
        let tails = rollups.iter().filter_map(|run| tail(run, marks.least_closed()));
        let last = horizon(kept.clock, self.settings);
        let minutes = slices(minutes.into_iter().chain(tails).filter_map(|run| run.until(last)).collect());

        let mut cells = Cells { marks: &marks, rollups: BTreeMap::new(), minutes: BTreeMap::new() };
        for (tier, row) in self.read(entity, slices(rollups)).await? {
            cells.add(tier, &row);
        }
        for (tier, row) in self.read(entity, minutes).await? {
            cells.add(tier, &row);
        }
        let counts = plans.iter().map(|runs| runs.iter().fold(Counts::ZERO, |sum, run| sum + cells.sum(run))).collect();
        let end = ranges.iter().map(|(_, end)| *end).max().unwrap_or(Minute::MIN);
        Ok(Sums { counts, standing: Standing::fresh(marks.lasts(end)), marks })
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
fn horizon(clock: Millis, settings: &FoldSettings) -> Minute {
    Minute::of(clock.plus(CLOCK_TOLERANCE_MS + settings.max_skew_ms)).plus(1)
}

/// The minutes of a rollup run that may not be in its rows: none when every source has closed its buckets.
fn tail(run: &Run, least_closed: Minute) -> Option<Run> {
    let start = run.start.max(least_closed);
    (start < run.end).then_some(Run { tier: Tier::Minute, start, end: run.end })
}

/// What was read of one entity, of sources with a checkpoint.
struct Cells<'a> {
    marks: &'a Watermarks,
    rollups: BTreeMap<(Tier, Minute, Source), (Counts, Millis)>,
    minutes: BTreeMap<(Minute, Source), Counts>,
}

impl Cells<'_> {
    fn add(&mut self, tier: Tier, SliceRow { start, source, stored }: &SliceRow) {
        if !self.marks.closed.contains_key(source) {
            return;
        }
        if tier == Tier::Minute {
            self.minutes.insert((*start, *source), stored.row.counts);
        } else {
            self.rollups.insert((tier, *start, *source), (stored.row.counts, stored.row.through));
        }
    }

    fn sum(&self, run: &Run) -> Counts {
        let Run { tier, start, end } = *run;
        if tier == Tier::Minute {
            let minutes = self.minutes.range((start, Source(0))..(end, Source(0)));
            return minutes.fold(Counts::ZERO, |sum, (_, counts)| sum + *counts);
        }
        let rows = self.rollups.range((tier, start, Source(0))..(tier, end, Source(0)));
        let rolled_up = rows.fold(Counts::ZERO, |sum, (_, (counts, _))| sum + *counts);
        let Some(tail) = tail(run, self.marks.least_closed()) else { return rolled_up };
        let open = self.minutes.range((tail.start, Source(0))..(tail.end, Source(0)));
        open.filter(|((minute, source), _)| !self.is_rolled_up(tier, *minute, *source)).fold(rolled_up, |sum, (_, counts)| sum + *counts)
    }

    /// Whether a source's minute is in the row of its bucket: it starts before `max(row.through, closed)`.
    fn is_rolled_up(&self, tier: Tier, minute: Minute, source: Source) -> bool {
        let through = self.rollups.get(&(tier, tier.bucket(minute).start, source)).map_or(Millis::NEVER, |(_, through)| *through);
        let closed = self.marks.closed.get(&source).copied().unwrap_or(Millis::NEVER);
        minute.start() < through.max(closed)
    }
}
