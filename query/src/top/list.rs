//! Making a list: announcements, checkpoints, then the cells of all its buckets, summed and ranked in one pass.
//!
//! The order of reads is the protocol's. A checkpoint never leads its cells, so what is read after it holds at least every minute below
//! its source's watermark; minutes that are still open come with their closing. Rows of sources without a checkpoint are not counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::{Bucket, FoldSettings, Millis, Minute, Source, Tier};

use super::ask::{Comparison, Hours, ListKey, Sort};
use super::base::{Base, BaseWriter, COMPARED, LISTED, PREVIOUS, Parts};
use super::late::{LateChanges, day_of};
use super::merge::{Merge, Origin};
use super::rank::{Ranking, Totals};
use crate::error::QueryError;
use crate::params::Metric;
use crate::plan::{Gone, Kept, Run, plan_by};
use crate::read::{Reader, Watermarks, horizon};

/// What a list says of one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: Arc<str>,
    pub(crate) totals: Totals,
}

/// A list as it was at a moment.
#[derive(Clone, Debug)]
pub(crate) struct List {
    /// Best first.
    pub(crate) entries: Vec<Entry>,
    /// `None` if the earlier range is no longer kept.
    pub(crate) comparison: Option<Comparison>,
    pub(crate) marks: Watermarks,
    /// When its making began, by the wall clock and by this process's.
    pub(crate) as_of: Millis,
    pub(crate) begun: Instant,
    pub(crate) took: Duration,
}

impl List {
    /// Its size in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.entries.iter().map(|entry| size_of::<Entry>() + entry.id.len()).sum::<usize>()
    }
}

/// Makes a list; `base` spares reading what it covers, if it still holds. Gives the list and a base for the next making.
pub(crate) async fn make(
    reader: Reader<'_>,
    key: ListKey,
    base: Option<Arc<Base>>,
    most_base_bytes: usize,
    now: Millis,
) -> Result<(List, Option<Base>), QueryError> {
    let begun = Instant::now();
    let changes = LateChanges::read(begun, &reader.store.read_touched().await?);
    let checkpoints = reader.store.read_checkpoints().await?;
    let marks = Watermarks::of(&checkpoints, reader.sources);
    let sources: BTreeSet<Source> = checkpoints.iter().map(|(source, _)| *source).collect();
    let (needed, comparison) = needed(&key, &marks, reader.settings, now)?;

    let base = base.filter(|base| base.holds(&sources, &changes));
    let (base, covered) = match base.as_ref().and_then(|base| base.covers(&needed)) {
        Some(covered) => (base.clone(), covered.clone()),
        None => (None, BTreeMap::new()),
    };
    let at_rest = |bucket: &Bucket| marks.is_complete(bucket.end()) && !changes.is_restless(day_of(bucket.start), marks.clock);
    let kept: BTreeMap<Bucket, Parts> = needed
        .iter()
        .map(|(bucket, parts)| (*bucket, *parts))
        .filter(|(bucket, _)| covered.contains_key(bucket) || at_rest(bucket))
        .collect();

    let mut origins = origins(&needed, &covered, &kept, &sources, key.metric);
    if let Some(base) = base {
        origins.push(Origin::Held(Box::new(base.rows())));
    }
    let mut writer = BaseWriter::new(kept, sources, changes, most_base_bytes);
    let mut ranking = Ranking::new(key.sort, key.entries);
    let mut merge = Merge::new(reader.store, key.dimension, origins, reader.reads_at_once);
    while let Some(part) = merge.next().await? {
        for (id, [listed, compared, previous, open_listed, open_compared, open_previous]) in part {
            writer.push(&id, [listed, compared, previous]);
            let totals = Totals {
                views: listed.wrapping_add(open_listed),
                compared: compared.wrapping_add(open_compared),
                previous: previous.wrapping_add(open_previous),
            };
            ranking.offer(&id, totals);
        }
    }
    let entries = ranking.best().into_iter().map(|(id, totals)| Entry { id, totals }).collect();
    Ok((List { entries, comparison, marks, as_of: now, begun, took: begun.elapsed() }, writer.finish()))
}

/// The buckets that a list is made of, each with the parts that it is in; and what is compared.
fn needed(
    key: &ListKey,
    marks: &Watermarks,
    settings: &FoldSettings,
    now: Millis,
) -> Result<(BTreeMap<Bucket, Parts>, Option<Comparison>), Gone> {
    let kept = Kept { settings, clock: now.max(marks.clock) };
    let last = horizon(kept.clock, settings);
    let mut needed: BTreeMap<Bucket, Parts> = BTreeMap::new();
    let mut need = |hours: Hours, part: Parts| {
        let runs = plan_by(&[Tier::Day, Tier::Hour], hours.start, hours.end, &kept)?;
        for bucket in runs.iter().flat_map(|run| buckets(*run, last)) {
            *needed.entry(bucket).or_default() |= part;
        }
        Ok::<_, Gone>(())
    };
    need(key.hours, LISTED)?;
    let through = marks.complete_through.unwrap_or(marks.clock).max(Minute::MIN.start());
    let comparison = Comparison::of(key.hours, through);
    // The earlier range first: if it is gone, nothing is compared.
    let compared = need(comparison.previous, PREVIOUS).and_then(|()| need(comparison.compared, COMPARED));
    match compared {
        Ok(()) => Ok((needed, Some(comparison))),
        Err(gone) if key.sort == Sort::Rising => Err(gone),
        Err(_) => Ok((needed, None)),
    }
}

/// The buckets of a run that start before `last`.
fn buckets(run: Run, last: Minute) -> impl Iterator<Item = Bucket> {
    let first = Bucket { tier: run.tier, start: run.start };
    std::iter::successors(Some(first), |bucket| Some(bucket.next())).take_while(move |bucket| bucket.start < run.end.min(last))
}

/// What is to be read: of each bucket and source the parts that the base does not hold. The sums of `kept` buckets come first, those of
/// the others behind them.
fn origins(
    needed: &BTreeMap<Bucket, Parts>,
    covered: &BTreeMap<Bucket, Parts>,
    kept: &BTreeMap<Bucket, Parts>,
    sources: &BTreeSet<Source>,
    metric: Metric,
) -> Vec<Origin<6>> {
    let mut origins = Vec::new();
    for (bucket, parts) in needed {
        let parts = parts & !covered.get(bucket).copied().unwrap_or_default();
        let first = if kept.contains_key(bucket) { 0 } else { 3 };
        let places = [LISTED, COMPARED, PREVIOUS].into_iter().enumerate().filter(|(_, part)| parts & part != 0);
        let adds: Vec<(usize, Metric)> = places.map(|(place, _)| (first + place, metric)).collect();
        if !adds.is_empty() {
            origins.extend(sources.iter().map(|source| Origin::Cells { bucket: *bucket, source: *source, adds: adds.clone() }));
        }
    }
    origins
}
