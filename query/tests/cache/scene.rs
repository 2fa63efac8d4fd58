//! A cache over a real store and log, whose clocks the test moves.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::embedded::StoreOptions;
use aggregator::{CountStore, EmbeddedStore, Touched};
use ingest::EmbeddedLog;
use ingest::embedded::LogOptions;
use query::QueryLimits;
use query::cache::Cache;
use query::metrics::CacheMetrics;
use query::read::{ReadError, Sums};
use schemas::{
    Bucket, CellKey, Checkpoint, Counts, Dimension, Entity, FoldSettings, LogId, Millis, Minute, Offset, Row, Source, Stamp, StoredRow,
    Tally, Tier,
};

use crate::gated::Gated;

pub(crate) struct Scene {
    pub(crate) store: Arc<Gated>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) metrics: CacheMetrics,
    pub(crate) began: Instant,
    stamp: std::sync::atomic::AtomicI64,
    _dir: tempfile::TempDir,
}

/// A directory in memory where there is one: these tests ask what is read, not what outlives a crash.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn minute(text: &str) -> Minute {
    Minute::of(Millis::parse_rfc3339(text).unwrap())
}

pub(crate) fn video(id: &str) -> Entity {
    Entity::new(Dimension::Video, id)
}

/// The wall's clock in these tests.
pub(crate) const NOW: &str = "2026-05-05T12:00:30Z";

impl Scene {
    pub(crate) fn new(limits: QueryLimits) -> Self {
        let dir = scratch();
        let log = EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::MIN)).unwrap();
        let store = EmbeddedStore::open(StoreOptions::new(dir.path().join("store"), LogId("log".into()))).unwrap();
        let store = Arc::new(Gated::new(Arc::new(store)));
        let (metrics, began) = (CacheMetrics::default(), Instant::now());
        let settings = FoldSettings { sources: 1, ..FoldSettings::default() };
        let cache = Cache::new(Arc::<Gated>::clone(&store), Arc::new(log), settings, &limits, metrics.clone(), began);
        Self { store, cache: Arc::new(cache), metrics, began, stamp: 1.into(), _dir: dir }
    }

    /// Sets what the one source holds of an entity's bucket.
    pub(crate) async fn write(&self, entity: &Entity, tier: Tier, start: &str, gross: i64) {
        let stamp = Stamp(self.stamp.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let counts = Counts { gross, valid: gross, engaged: 0 };
        let row = Row { counts, version: Offset(1), through: Millis::NEVER, mark: None };
        let key = CellKey { entity: entity.clone(), bucket: Bucket { tier, start: minute(start) }, source: Source(0) };
        self.store.write_rows(Arc::new(vec![(key, StoredRow { stamp, row })])).await.unwrap();
    }

    pub(crate) async fn close(&self, closed: &str) {
        let closed = minute(closed).start();
        let stamp = Stamp(self.stamp.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let checkpoint = Checkpoint {
            next_offset: Offset(1),
            warm_from: Offset(0),
            stamp,
            clock: closed,
            append_time: closed,
            closed,
            adjustments: 0,
            tally: Tally::default(),
            settings: FoldSettings::default(),
        };
        self.store.write_checkpoint(Source(0), checkpoint).await.unwrap();
    }

    pub(crate) async fn announce(&self, at: &str, version: u64) {
        let day = minute(at).0.div_euclid(1_440);
        let touched = Touched { day, version: Offset(version), stamp: Stamp(i64::try_from(version).unwrap()) };
        self.store.write_touched(Source(0), vec![touched]).await.unwrap();
    }

    pub(crate) async fn sums(&self, entity: &Entity, range: (&str, &str), at_ms: u64) -> Result<Sums, ReadError> {
        let at = self.began + Duration::from_millis(at_ms);
        let now = Millis::parse_rfc3339(NOW).unwrap();
        self.cache.sums(entity, &[(minute(range.0), minute(range.1))], now, at).await
    }

    /// The views in a range, asked `at_ms` after the beginning.
    pub(crate) async fn views(&self, entity: &Entity, range: (&str, &str), at_ms: u64) -> i64 {
        let sums = self.sums(entity, range, at_ms).await.unwrap();
        assert_eq!(sums.standing.stale, None);
        sums.counts[0].gross
    }
}
