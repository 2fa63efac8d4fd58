//! Every plan of tiers gives the sum of the minute cells, over a real store in any state that a fold may leave it in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use aggregator::embedded::StoreOptions;
use aggregator::{CountStore, EmbeddedStore};
use proptest::prelude::*;
use query::calendar::{Step, boundaries};
use query::plan::Gone;
use query::read::{ReadError, Reader};
use schemas::{
    Bucket, CellKey, Checkpoint, Counts, Dimension, Entity, FoldSettings, LogId, Millis, Minute, Offset, Row, Source, Stamp, StoredRow,
    Tally, Tier,
};

const SOURCES: NonZeroU32 = NonZeroU32::new(3).unwrap();

/// A directory in memory where there is one: these tests ask what is read, not what outlives a crash.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn minute(text: &str) -> Minute {
    Minute::of(Millis::parse_rfc3339(text).unwrap())
}

fn entity() -> Entity {
    Entity::new(Dimension::Video, "v")
}

fn checkpoint(closed: Minute) -> Checkpoint {
    Checkpoint {
        next_offset: Offset(1),
        warm_from: Offset(0),
        stamp: Stamp(1),
        clock: closed.start().plus(10_000),
        append_time: closed.start().plus(10_000),
        closed: closed.start(),
        adjustments: 0,
        tally: Tally::default(),
        settings: FoldSettings::default(),
    }
}

fn row(tier: Tier, start: Minute, source: Source, counts: Counts, through: Millis) -> (CellKey, StoredRow) {
    let key = CellKey { entity: entity(), bucket: Bucket { tier, start }, source };
    (key, StoredRow { stamp: Stamp(1), row: Row { counts, version: Offset(1), through, mark: None } })
}

fn store(dir: &tempfile::TempDir) -> EmbeddedStore {
    EmbeddedStore::open(StoreOptions::new(dir.path(), LogId("log".into()))).unwrap()
}

/// One source: its counted minutes, what its checkpoint has closed, and how far each rollup row is ahead of that.
#[derive(Clone, Debug)]
struct Folded {
    minutes: BTreeMap<i32, i64>,
    closed: Option<i32>,
    /// How far the fold had closed, beyond the checkpoint, when a row was written; and how far below that its `through` may lie.
    ahead: Vec<(i32, i32)>,
}

/// The minutes lie within a few days around a new year.
const SPAN: i32 = 4 * 1_440;

fn folded() -> impl Strategy<Value = Folded> {
    let at = prop_oneof![0..SPAN, 1_300..1_600i32, 2 * 1_440 - 90..2 * 1_440 + 90];
    let minutes = prop::collection::btree_map(at.clone(), 1i64..1_000, 0..60);
    let ahead = prop::collection::vec((prop_oneof![Just(0), 0..90i32], 0..200i32), 1..8);
    let closed = prop_oneof![9 => at.prop_map(Some), 1 => Just(None)];
    (minutes, closed, ahead).prop_map(|(minutes, closed, ahead)| Folded { minutes, closed, ahead })
}

/// The rows that the protocol would leave: a rollup row holds all minutes that were closed when it was last changed.
fn rows(base: Minute, source: Source, folded: &Folded) -> Vec<(CellKey, StoredRow)> {
    let views = |gross| Counts { gross, valid: gross, engaged: gross / 2 };
    let counted: Vec<(Minute, i64)> = folded.minutes.iter().map(|(at, views)| (base.plus(*at), *views)).collect();
    let mut all: Vec<_> = counted.iter().map(|(at, n)| row(Tier::Minute, *at, source, views(*n), Millis::NEVER)).collect();
    let buckets: BTreeSet<Bucket> = counted.iter().flat_map(|(at, _)| Tier::ROLLUPS.map(|tier| tier.bucket(*at))).collect();
    for (bucket, (ahead, below)) in buckets.into_iter().zip(folded.ahead.iter().cycle()) {
        // Without a checkpoint there may be rows all the same: the first flush is under way.
        let closed = base.plus(folded.closed.unwrap_or(SPAN) + ahead);
        let held: Vec<_> = counted.iter().filter(|(at, _)| (bucket.start..bucket.end().min(closed)).contains(at)).collect();
        let Some((last, _)) = held.last() else { continue };
        let sum = held.iter().fold(Counts::ZERO, |sum, (_, n)| sum + views(*n));
        all.push(row(bucket.tier, bucket.start, source, sum, closed.plus(-below).max(last.plus(1)).start()));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_answer_is_the_sum_of_the_minute_cells(
        sources in prop::collection::vec(folded(), 3),
        asked in prop::collection::vec((-3_000..SPAN, 1..2 * SPAN, 0usize..9, 0..chrono_tz::TZ_VARIANTS.len()), 12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = scratch();
        let (store, settings) = (store(&dir), FoldSettings::default());
        let base = minute("2025-12-30T00:00:00Z");
        runtime.block_on(async {
            for (source, folded) in (0..).map(Source).zip(&sources) {
                store.write_rows(Arc::new(rows(base, source, folded))).await.unwrap();
                if let Some(closed) = folded.closed {
                    store.write_checkpoint(source, checkpoint(base.plus(closed))).await.unwrap();
                }
            }
        });
        let reader = Reader { store: &store, settings: &settings, sources: SOURCES, reads_at_once: 16 };
        for (start, length, step, zone) in asked {
            let (start, end) = (base.plus(start), base.plus(start + length));
            let bounds = boundaries(Step::ALL[step], chrono_tz::TZ_VARIANTS[zone], start, end, 50_000).unwrap();
            let ranges: Vec<_> = bounds.windows(2).map(|pair| (pair[0], pair[1])).collect();
            let sums = runtime.block_on(reader.sums(&entity(), &ranges, base.plus(SPAN).start())).unwrap();
            let mut expected = vec![0; ranges.len()];
            for folded in sources.iter().filter(|folded| folded.closed.is_some()) {
                for (at, views) in &folded.minutes {
                    let point = bounds.partition_point(|bound| *bound <= base.plus(*at));
                    if (1..bounds.len()).contains(&point) {
                        expected[point - 1] += views;
                    }
                }
            }
            let got: Vec<i64> = sums.counts.iter().map(|counts| counts.gross).collect();
            prop_assert_eq!(got, expected, "{} to {} by {} in {}", start, end, Step::ALL[step], chrono_tz::TZ_VARIANTS[zone]);
            let least = sources.iter().map(|folded| folded.closed.map(|closed| base.plus(closed).start())).min().unwrap();
            prop_assert_eq!(sums.marks.complete_through, least);
        }
    }
}

#[tokio::test]
async fn ranges_may_overlap_and_reach_over_all_time() {
    let dir = scratch();
    let (store, settings) = (store(&dir), FoldSettings::default());
    let base = minute("2026-05-05T00:00:00Z");
    let folded = Folded { minutes: [(5, 1), (70, 10), (1_500, 100)].into(), closed: Some(65), ahead: vec![(0, 0)] };
    store.write_rows(Arc::new(rows(base, Source(0), &folded))).await.unwrap();
    store.write_checkpoint(Source(0), checkpoint(base.plus(65))).await.unwrap();
    let reader = Reader { store: &store, settings: &settings, sources: NonZeroU32::MIN, reads_at_once: 1 };
    let ranges = [(Minute::MIN, Minute::MAX), (base, base.plus(1_440)), (base.plus(60), base.plus(71)), (base.plus(71), base.plus(1_500))];
    let sums = reader.sums(&entity(), &ranges, base.plus(1_500).start()).await.unwrap();
    assert_eq!(sums.counts.iter().map(|counts| counts.gross).collect::<Vec<_>>(), [111, 11, 10, 0]);
    assert_eq!(sums.counts[0], Counts { gross: 111, valid: 111, engaged: 55 });
}

#[tokio::test]
async fn minutes_are_read_as_far_as_an_event_can_lie_ahead_and_no_further() {
    let dir = scratch();
    let (store, settings) = (store(&dir), FoldSettings::default());
    let closed = minute("2026-05-05T12:00:00Z");
    // Of the later clock, here the log's: an hour that it may be ahead of a wall clock, and a minute of skew.
    let last = closed.plus(61);
    let cell = |at: Minute| row(Tier::Minute, at, Source(0), Counts { gross: 1, valid: 1, engaged: 0 }, Millis::NEVER);
    store.write_rows(Arc::new(vec![cell(closed), cell(last), cell(last.plus(1))])).await.unwrap();
    store.write_checkpoint(Source(0), checkpoint(closed)).await.unwrap();
    let reader = Reader { store: &store, settings: &settings, sources: NonZeroU32::MIN, reads_at_once: 1 };
    let days = |n: i32| (closed, closed.plus(n * 1_440));
    // To the end of this day by minutes, and of all days by rollups with what is open of them.
    let ranges = [days(1), (minute("2026-01-01T00:00:00Z"), minute("2200-01-01T00:00:00Z"))];
    let gross = |sums: query::read::Sums| sums.counts.iter().map(|counts| counts.gross).collect::<Vec<_>>();
    assert_eq!(gross(reader.sums(&entity(), &ranges, Millis(0)).await.unwrap()), [2, 2]);
    assert_eq!(gross(reader.sums(&entity(), &ranges, closed.plus(2).start()).await.unwrap()), [3, 3], "the wall's clock is the later");
}

#[tokio::test]
async fn a_range_that_needs_minutes_no_longer_kept_says_so_by_the_later_clock() {
    let dir = scratch();
    let store = store(&dir);
    let settings = FoldSettings { minute_ttl_ms: 60 * 60_000, ..FoldSettings::default() };
    let closed = minute("2026-05-05T12:00:00Z");
    store.write_checkpoint(Source(0), checkpoint(closed)).await.unwrap();
    let reader = Reader { store: &store, settings: &settings, sources: NonZeroU32::MIN, reads_at_once: 1 };
    let range = |from: i32, to: i32| [(closed.plus(from), closed.plus(to))];
    assert!(reader.sums(&entity(), &range(-60, -1), Millis(0)).await.is_ok(), "the log's clock is the later");
    let error = reader.sums(&entity(), &range(-61, -1), Millis(0)).await.unwrap_err();
    assert!(matches!(error, ReadError::Gone(Gone { tier: Tier::Minute, oldest, .. }) if oldest == closed.plus(-60)), "{error}");
    assert!(reader.sums(&entity(), &range(-60, -1), closed.plus(5).start()).await.is_err(), "the wall's clock is the later");
    assert!(reader.sums(&entity(), &range(-120, -60), closed.plus(5).start()).await.is_ok(), "a whole hour");
}
