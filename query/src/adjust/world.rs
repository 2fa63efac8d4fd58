//! What a plan is made from: checkpoints first, then the cells that would change, each as its source has stored it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use aggregator::{Slice, SliceRow, StoreError};
use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ingest::Problem;
use schemas::partition::Partitioner;
use schemas::{CellKey, Checkpoint, Counts, Dimension, Entity, Millis, Minute, Source, Tier};

use super::MOST_CHANGES;
use super::ask::{Addition, Removal, Space, too_large};
use super::plan::{Cells, Wanted, cells_of};
use super::removal::{Held, Torn, all_of};
use crate::error::QueryError;
use crate::plan::{Kept, Run, slices};
use crate::service::QueryService;

/// So many cells are read by name at once, and so many such calls are under way.
const CELLS: usize = 5_000;
const CALLS: usize = 4;
const MINUTES_PER_DAY: i32 = 1_440;

/// The sources that take records, and what is closed in all of them.
pub(super) struct World {
    pub(super) checkpoints: BTreeMap<Source, Checkpoint>,
    /// The clock of the source that has come farthest.
    clock: Millis,
    /// Minutes before it are closed.
    pub(super) closed: Minute,
}

impl QueryService {
    /// How the sources stand. To be read before any cell.
    ///
    /// # Errors
    /// 409 while a source of the log has no checkpoint.
    pub(super) async fn world(&self) -> Result<World, QueryError> {
        let all = self.store.read_checkpoints().await?;
        let marks = crate::read::Watermarks::of(&all, self.log.sources());
        let closed = marks.complete_through.map(Minute::of).ok_or_else(|| minute_open(None, None))?;
        let checkpoints: BTreeMap<Source, Checkpoint> = all.into_iter().filter(|(_, checkpoint)| !checkpoint.has_ended()).collect();
        Ok(World { checkpoints, clock: marks.clock, closed })
    }

    /// What is asked for as changes of which it is known where they may go.
    ///
    /// # Errors
    /// 409 if a minute is not closed, 410 if a range cuts what is only known whole, 400 if it is too much.
    pub(super) async fn wanted(&self, world: &World, additions: &[Addition], removals: &[Removal]) -> Result<Vec<Wanted>, QueryError> {
        if let Some(open) = additions.iter().map(|addition| addition.minute).filter(|minute| *minute >= world.closed).max() {
            return Err(minute_open(Some(open), Some((world, self.grace_ms()))).into());
        }
        let spaces = self
            .spaces(additions.iter().map(|one| (&one.video, &one.space)).chain(removals.iter().map(|one| (&one.video, &one.space))))
            .await?;
        let space = |video: &Arc<str>, space: &Space| match space {
            Space::Given(space) => space.clone(),
            Space::OfVideo => spaces.get(video).cloned().flatten(),
        };
        let holders = self.holders(world, additions).await?;
        let mut wanted = Vec::with_capacity(additions.len());
        for addition in additions {
            let home = self.home(world, &addition.video)?;
            let mut from: Vec<Source> =
                holders.get(&(Arc::clone(&addition.video), addition.minute)).into_iter().flatten().copied().collect();
            from.sort_by_key(|source| (*source != home, *source));
            wanted.push(Wanted {
                video: Arc::clone(&addition.video),
                space: space(&addition.video, &addition.space),
                minute: addition.minute,
                counts: addition.counts,
                // Where nothing is held, this is where it is said to lack.
                from: if from.is_empty() { vec![home] } else { from },
                to: home,
            });
        }
        for removal in removals {
            let space = space(&removal.video, &removal.space);
            self.removed(world, removal, space, &mut wanted).await?;
        }
        if wanted.len() > MOST_CHANGES { Err(too_large(MOST_CHANGES).into()) } else { Ok(wanted) }
    }

    /// The cells that changes would change.
    pub(super) async fn cells(&self, checkpoints: &BTreeMap<Source, Checkpoint>, wanted: &[Wanted]) -> Result<Cells, StoreError> {
        let mut keys = HashSet::new();
        for change in wanted {
            for source in change.from.iter().copied() {
                let Some(checkpoint) = checkpoints.get(&source) else { continue };
                let cells = cells_of(&change.video, change.space.as_deref(), change.minute, checkpoint);
                keys.extend(cells.map(|(entity, bucket)| CellKey { entity, bucket, source }));
            }
        }
        let keys: Vec<CellKey> = keys.into_iter().collect();
        let mut reads = Vec::new();
        for keys in keys.chunks(CELLS) {
            reads.push(async move { Ok::<_, StoreError>((keys, self.store.read_cells(keys.to_vec()).await?)) });
        }
        let mut cells = Cells::default();
        let mut reads = stream::iter(reads).buffer_unordered(CALLS);
        while let Some((keys, rows)) = reads.try_next().await? {
            for (key, row) in keys.iter().zip(rows) {
                if let Some(row) = row {
                    cells.set(key.entity.clone(), key.bucket, key.source, row.row.counts);
                }
            }
        }
        Ok(cells)
    }

    const fn grace_ms(&self) -> i64 {
        self.settings().grace_ms
    }

    fn home(&self, world: &World, video: &str) -> Result<Source, QueryError> {
        let settings = self.settings();
        let (Some(sources), Some(spread)) = (std::num::NonZeroU32::new(settings.sources), std::num::NonZeroU32::new(settings.spread))
        else {
            return Err(QueryError::Broken);
        };
        let home = Partitioner { sources, spread }.home(video);
        world.checkpoints.contains_key(&home).then_some(home).ok_or_else(|| minute_open(None, None).into())
    }

    /// The spaces of the videos whose metadata is to say so.
    async fn spaces<'a>(
        &self,
        changes: impl Iterator<Item = (&'a Arc<str>, &'a Space)>,
    ) -> Result<BTreeMap<Arc<str>, Option<Arc<str>>>, QueryError> {
        let videos: BTreeSet<Arc<str>> =
            changes.filter(|(_, space)| **space == Space::OfVideo).map(|(video, _)| Arc::clone(video)).collect();
        let mut reads = Vec::with_capacity(videos.len());
        for video in videos {
            reads.push(async move {
                let info = self.store.read_video(video.to_string()).await?;
                Ok::<_, QueryError>((video, info.and_then(|info| info.space_id).map(Into::into)))
            });
        }
        stream::iter(reads).buffer_unordered(self.limits.reads_at_once).try_collect().await
    }

    /// Which sources hold anything of a video's minute, as far as that is still kept.
    async fn holders(&self, world: &World, additions: &[Addition]) -> Result<BTreeMap<(Arc<str>, Minute), BTreeSet<Source>>, QueryError> {
        let kept = Kept { settings: self.settings(), clock: world.clock };
        let mut asked: BTreeMap<(Arc<str>, Tier, Minute), BTreeSet<Minute>> = BTreeMap::new();
        for Addition { video, minute, .. } in additions {
            let finest = [Tier::Minute, Tier::Hour].into_iter().find(|tier| tier.bucket(*minute).start >= kept.oldest(*tier));
            let (tier, day) = (finest.unwrap_or(Tier::Day), Tier::Day.bucket(*minute).start);
            asked.entry((Arc::clone(video), tier, day)).or_default().insert(*minute);
        }
        let mut reads = Vec::with_capacity(asked.len());
        for ((video, tier, _), minutes) in asked {
            reads.push(self.holders_of(video, tier, minutes));
        }
        let found: Vec<Vec<_>> = stream::iter(reads).buffer_unordered(self.limits.reads_at_once).try_collect().await?;
        let mut holders: BTreeMap<_, BTreeSet<Source>> = BTreeMap::new();
        for (video, minute, source) in found.into_iter().flatten().filter(|(.., source)| world.checkpoints.contains_key(source)) {
            holders.entry((video, minute)).or_default().insert(source);
        }
        Ok(holders)
    }

    /// Of minutes of one day.
    async fn holders_of(
        &self,
        video: Arc<str>,
        tier: Tier,
        minutes: BTreeSet<Minute>,
    ) -> Result<Vec<(Arc<str>, Minute, Source)>, QueryError> {
        let (Some(first), Some(last)) = (minutes.first(), minutes.last()) else { return Ok(Vec::new()) };
        let (start, end) = (tier.bucket(*first).start, tier.bucket(*last).end());
        let rows = self.slice(&video, tier, start, end).await?;
        let mut found = Vec::new();
        for minute in &minutes {
            let of = rows.iter().filter(|row| row.start == tier.bucket(*minute).start && row.stored.row.counts != Counts::ZERO);
            found.extend(of.map(|row| (Arc::clone(&video), *minute, row.source)));
        }
        Ok(found)
    }

    /// All that a video has in a range, from the sources that have it.
    async fn removed(&self, world: &World, removal: &Removal, space: Option<Arc<str>>, wanted: &mut Vec<Wanted>) -> Result<(), QueryError> {
        let end = removal.end.unwrap_or(world.closed);
        if end > world.closed {
            return Err(minute_open(Some(end.plus(-1)), Some((world, self.grace_ms()))).into());
        }
        if removal.start >= end {
            return Ok(());
        }
        let held = self.held(world, &removal.video, removal.start, end, MOST_CHANGES.saturating_sub(wanted.len())).await?;
        for (source, held) in held {
            let Some(checkpoint) = world.checkpoints.get(&source) else { return Err(has_ended(&removal.video).into()) };
            let kept = Kept { settings: &checkpoint.settings, clock: checkpoint.clock };
            let found = all_of(&held, removal.start, end, &kept).map_err(|torn| torn_apart(&removal.video, torn))?;
            wanted.extend(found.into_iter().map(|(minute, counts)| Wanted {
                video: Arc::clone(&removal.video),
                space: space.clone(),
                minute,
                counts: -counts,
                from: vec![source],
                to: source,
            }));
        }
        Ok(())
    }

    /// The cells of a video in the days of a range. Days first: minutes are asked for only where a day holds something.
    async fn held(
        &self,
        world: &World,
        video: &Arc<str>,
        start: Minute,
        end: Minute,
        most: usize,
    ) -> Result<BTreeMap<Source, Held>, QueryError> {
        let (first, last) = (Tier::Day.bucket(start).start, Tier::Day.bucket(end.plus(-1)).end());
        let mut held: BTreeMap<Source, Held> = BTreeMap::new();
        let mut days = BTreeSet::new();
        for row in self.slice(video, Tier::Day, first, last).await? {
            if row.stored.row.counts != Counts::ZERO {
                held.entry(row.source).or_default().days.insert(row.start, row.stored.row.counts);
                days.insert(row.start);
            }
        }
        let run = |tier: Tier| move |day: &Minute| Run { tier, start: *day, end: day.plus(MINUTES_PER_DAY) };
        let expire = world.checkpoints.values().any(|checkpoint| checkpoint.settings.minute_ttl_ms > 0);
        let hours = days.iter().filter(|_| expire).map(run(Tier::Hour)).collect();
        // Day by day: a run of minutes has no bound.
        let minutes = days.iter().map(run(Tier::Minute));
        let mut reads = Vec::new();
        for run in slices(hours).into_iter().chain(minutes) {
            reads.push(async move { Ok::<_, QueryError>((run.tier, self.slice(video, run.tier, run.start, run.end).await?)) });
        }
        let (mut reads, mut found) = (stream::iter(reads).buffer_unordered(self.limits.reads_at_once), 0);
        while let Some((tier, rows)) = reads.try_next().await? {
            for row in rows.into_iter().filter(|row| row.stored.row.counts != Counts::ZERO) {
                let held = held.entry(row.source).or_default();
                let cells = if tier == Tier::Hour { &mut held.hours } else { &mut held.minutes };
                cells.insert(row.start, row.stored.row.counts);
                found += usize::from(start <= row.start && row.start < end);
            }
            // Hours are as many again at most.
            if found > most.saturating_mul(2) {
                return Err(too_large(MOST_CHANGES).into());
            }
        }
        Ok(held)
    }

    async fn slice(&self, video: &Arc<str>, tier: Tier, start: Minute, end: Minute) -> Result<Vec<SliceRow>, StoreError> {
        let entity = Entity { dimension: Dimension::Video, id: Arc::clone(video) };
        self.store.read_slice(Slice { entity, tier, start, end }).await
    }
}

/// 409: a minute is still open, and when it will not be.
fn minute_open(minute: Option<Minute>, when: Option<(&World, i64)>) -> Problem {
    const TITLE: &str = "A minute is still open";
    let (Some(minute), Some((world, grace_ms))) = (minute, when) else {
        let detail = "a source of the log has not been counted yet, so nothing of it is closed; try again in a minute";
        return Problem::new(StatusCode::CONFLICT, "minute-open", TITLE, detail).retry_after(60);
    };
    // Its end, the grace, and a tick if nothing else moves the clock.
    let closes = minute.plus(1).start().plus(grace_ms + 60_000);
    let wait_s = closes.0.saturating_sub(Millis::now().0).div_euclid(1_000).saturating_add(1);
    let detail = format!(
        "minute {minute} is not closed yet: minutes before {} are. It will be by {} if events go on; then send the request again, or end the range before",
        world.closed,
        closes.to_rfc3339()
    );
    Problem::new(StatusCode::CONFLICT, "minute-open", TITLE, detail)
        .retry_after(u32::try_from(wait_s.max(1)).unwrap_or(u32::MAX))
        .with("closed_through", world.closed.to_string())
        .with("closes_by", closes.to_rfc3339())
}

fn has_ended(video: &str) -> Problem {
    let detail = format!(
        "video {video:?} has counts of a source that takes no more records (they were moved here): these cannot be changed; end the range after them"
    );
    Problem::new(StatusCode::CONFLICT, "source-ended", "The counts cannot be changed any more", detail)
}

fn torn_apart(video: &str, torn: Torn) -> Problem {
    let detail = format!("video {video:?}: {torn}");
    Problem::new(StatusCode::GONE, "resolution-gone", "This resolution is no longer kept so far back", detail)
        .with("oldest", torn.end.to_string())
        .with("start", torn.start.to_string())
        .with("end", torn.end.to_string())
}
