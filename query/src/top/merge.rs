//! Sums over many lists of entities, each in the order of ids, with bounded memory.
//!
//! ```text
//! bucket 1, source 0   a a c │ f g         every feed that has more to come is filled to a page;
//! bucket 1, source 1   b c   │ m x         up to the least of their last ids all rows are there:
//! bucket 2, source 0   a c d │             they are summed, given out in order, and the feeds filled again
//! ```
//!
//! So no more than about a page of each feed is ever held, however many entities there are, and the reads of all feeds go on at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aggregator::{BucketPage, BucketRow, CountStore, StoreError};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemas::{Bucket, Counts, Dimension, Source};

use crate::params::Metric;

/// So many rows are held at once by all feeds together, as long as each has [`LEAST_PAGE`].
const ROWS_AT_ONCE: usize = 128 * 1024;
const LEAST_PAGE: usize = 16;
const LONGEST_PAGE: usize = 4_096;
/// Between two of these others get their turn: about half a millisecond.
const ROWS_AT_A_STRETCH: usize = 4_096;

/// An entity and its sums.
pub(crate) type Summed<const N: usize> = (Arc<str>, [i64; N]);

/// Where rows come from, in the order of ids.
pub(crate) enum Origin<const N: usize> {
    /// One source's cells of one bucket, and to which sums which of a cell's counts is added.
    Cells { bucket: Bucket, source: Source, adds: Vec<(usize, Metric)> },
    /// Rows that are at hand.
    Held(Box<dyn Iterator<Item = Summed<N>> + Send>),
}

struct Feed<const N: usize> {
    origin: Origin<N>,
    rows: VecDeque<Summed<N>>,
    /// The last row that was read.
    last: Option<Arc<str>>,
    /// Nothing comes after `rows`.
    ended: bool,
}

/// What was read of a feed, and whether there is more.
struct Page<const N: usize> {
    feed: usize,
    rows: Vec<Summed<N>>,
    ended: bool,
}

/// Reads feeds and sums them up by entity.
pub(crate) struct Merge<'a, const N: usize> {
    store: &'a dyn CountStore,
    dimension: Dimension,
    feeds: Vec<Feed<N>>,
    page: usize,
    reads_at_once: usize,
}

impl<'a, const N: usize> Merge<'a, N> {
    pub(crate) fn new(store: &'a dyn CountStore, dimension: Dimension, origins: Vec<Origin<N>>, reads_at_once: usize) -> Self {
        let page = ROWS_AT_ONCE.checked_div(origins.len()).unwrap_or(LEAST_PAGE).clamp(LEAST_PAGE, LONGEST_PAGE);
        Self::by_pages(store, dimension, origins, reads_at_once, page)
    }

    fn by_pages(store: &'a dyn CountStore, dimension: Dimension, origins: Vec<Origin<N>>, reads_at_once: usize, page: usize) -> Self {
        let feed = |origin| Feed { origin, rows: VecDeque::new(), last: None, ended: false };
        Self { store, dimension, feeds: origins.into_iter().map(feed).collect(), page, reads_at_once: reads_at_once.max(1) }
    }

    /// The next entities, in the order of ids; `None` at the end.
    ///
    /// # Errors
    /// If the store fails. The merge is then at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Summed<N>>>, StoreError> {
        self.fill().await?;
        let upto = self.feeds.iter().filter(|feed| !feed.ended).filter_map(|feed| feed.rows.back()).map(|(id, _)| Arc::clone(id)).min();
        let mut sums: HashMap<Arc<str>, [i64; N]> = HashMap::new();
        let mut stretch = 0;
        for feed in &mut self.feeds {
            while let Some((id, values)) = feed.rows.pop_front_if(|(id, _)| upto.as_ref().is_none_or(|upto| *id <= *upto)) {
                add(sums.entry(id).or_insert([0; N]), &values);
                stretch += 1;
                if stretch % ROWS_AT_A_STRETCH == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
        let mut sums: Vec<Summed<N>> = sums.into_iter().collect();
        sums.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok((!sums.is_empty()).then_some(sums))
    }

    /// Reads on wherever less than half a page is left.
    async fn fill(&mut self) -> Result<(), StoreError> {
        for feed in &mut self.feeds {
            if let Origin::Held(rows) = &mut feed.origin {
                feed.rows.extend(rows.by_ref().take(self.page.saturating_sub(feed.rows.len())));
                feed.ended = feed.rows.len() < self.page;
            }
        }
        let wanted = self.feeds.iter().enumerate().filter(|(_, feed)| !feed.ended && feed.rows.len() < self.page.div_ceil(2));
        let reads = wanted.filter_map(|(at, feed)| {
            let Origin::Cells { bucket, source, adds } = &feed.origin else { return None };
            let (dimension, limit, after) = (self.dimension, self.page, feed.last.clone());
            let page = BucketPage { dimension, bucket: *bucket, source: *source, after, limit };
            Some(read(self.store, at, page, adds))
        });
        let reads: Vec<_> = reads.collect();
        let pages: Vec<Page<N>> = stream::iter(reads).buffer_unordered(self.reads_at_once).try_collect().await?;
        for Page { feed, rows, ended } in pages {
            let Some(feed) = self.feeds.get_mut(feed) else { continue };
            feed.last = rows.last().map(|(id, _)| Arc::clone(id)).or(feed.last.take());
            feed.rows.extend(rows);
            feed.ended = ended;
        }
        Ok(())
    }
}

async fn read<const N: usize>(
    store: &dyn CountStore,
    feed: usize,
    page: BucketPage,
    adds: &[(usize, Metric)],
) -> Result<Page<N>, StoreError> {
    let limit = page.limit;
    let rows = store.read_bucket(page).await?;
    let ended = rows.len() < limit;
    let rows = rows.into_iter().map(|BucketRow { id, stored }| (id, values(stored.row.counts, adds))).collect();
    Ok(Page { feed, rows, ended })
}

fn values<const N: usize>(counts: Counts, adds: &[(usize, Metric)]) -> [i64; N] {
    let mut values = [0; N];
    for (sum, metric) in adds {
        if let Some(value) = values.get_mut(*sum) {
            *value = metric.of(counts);
        }
    }
    values
}

fn add<const N: usize>(sum: &mut [i64; N], values: &[i64; N]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aggregator::EmbeddedStore;
    use aggregator::embedded::StoreOptions;
    use proptest::prelude::*;
    use schemas::{CellKey, Entity, LogId, Minute, Offset, Row, Stamp, StoredRow, Tier};

    use super::*;

    fn cell(id: &str, day: i32, source: u32, gross: i64) -> (CellKey, StoredRow) {
        let bucket = Tier::Day.bucket(Minute(day * 1_440));
        let counts = Counts { gross, valid: gross * 2, engaged: gross * 3 };
        let row = Row { counts, version: Offset(1), through: schemas::Millis(0), mark: None };
        let key = CellKey { entity: Entity::new(Dimension::Video, id), bucket, source: Source(source) };
        (key, StoredRow { stamp: Stamp(1), row })
    }

    async fn all<const N: usize>(mut merge: Merge<'_, N>) -> Vec<Summed<N>> {
        let mut all = Vec::new();
        while let Some(part) = merge.next().await.unwrap() {
            all.extend(part);
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn it_gives_the_sums_of_all_rows_in_order_for_any_page(
            cells in prop::collection::btree_map(("[a-z]{1,3}|é[a-z]", 0i32..4, 0u32..3), -5i64..50, 0..200),
            held in prop::collection::btree_map("[a-z]{1,3}", 0i64..9, 0..50), page in 1usize..20, reads in 1usize..4,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let store = EmbeddedStore::open(StoreOptions::new(dir.path(), LogId("log".into()))).unwrap();
            let rows: Vec<_> = cells.iter().map(|((id, day, source), gross)| cell(id, *day, *source, *gross)).collect();
            runtime.block_on(store.write_rows(Arc::new(rows))).unwrap();
            // Days 0 and 1 are one sum, days 1 and 2 another, day 3 is not asked for.
            let mut origins: Vec<Origin<3>> = Vec::new();
            for (day, adds) in [(0, vec![(0, Metric::Gross)]), (1, vec![(0, Metric::Gross), (1, Metric::Valid)]), (2, vec![(1, Metric::Valid)])] {
                let bucket = Tier::Day.bucket(Minute(day * 1_440));
                origins.extend((0..3).map(|source| Origin::Cells { bucket, source: Source(source), adds: adds.clone() }));
            }
            let at_hand: Vec<Summed<3>> = held.iter().map(|(id, n)| (id.as_str().into(), [0, 0, *n])).collect();
            origins.push(Origin::Held(Box::new(at_hand.into_iter())));
            let got = runtime.block_on(all(Merge::by_pages(&store, Dimension::Video, origins, reads, page)));

            let mut expected: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
            for ((id, day, _), gross) in cells.iter().filter(|((_, day, _), _)| *day < 3) {
                let add = [if *day < 2 { *gross } else { 0 }, if *day > 0 { 2 * gross } else { 0 }, 0];
                super::add(expected.entry(id).or_default(), &add);
            }
            held.iter().for_each(|(id, n)| super::add(expected.entry(id).or_default(), &[0, 0, *n]));
            let got: Vec<(&str, [i64; 3])> = got.iter().map(|(id, sums)| (&**id, *sums)).collect();
            prop_assert_eq!(got, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
