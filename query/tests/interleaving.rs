//! An answer is exact while a fold goes on: between any two reads of one answer minutes close, rollups grow and the checkpoint follows.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use aggregator::archive::{ArchiveChange, Manifest};
use aggregator::embedded::StoreOptions;
use aggregator::{
    BucketPage, BucketRow, CountStore, EmbeddedStore, ImportProgress, Slice, SliceRow, SpaceInfo, StoreError, Touched, VideoInfo,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use query::read::Reader;
use schemas::{
    AdjustmentEntry, AdjustmentPart, Bucket, CellKey, Checkpoint, Counts, Dimension, Entity, FoldSettings, KeyRecord, LogId, Millis,
    Minute, Offset, PartEnd, Row, Source, Stamp, StoredRow, Tally, Tier,
};

/// A directory in memory where there is one: these tests ask what is read, not what outlives a crash.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn entity() -> Entity {
    Entity::new(Dimension::Video, "v")
}

/// A store that a fold of one source writes to before each read: the minutes are all there, closing them goes on.
struct Busy {
    store: EmbeddedStore,
    minutes: BTreeMap<Minute, i64>,
    /// Before each read, in turn: by how many minutes `closed` advances, and how many of the rows and the checkpoint then land.
    steps: Mutex<Vec<(i32, usize)>>,
    closed: Mutex<Minute>,
    /// Writes of the present flush that have not landed.
    flush: Mutex<Vec<Write>>,
}

enum Write {
    Row(CellKey, StoredRow),
    Checkpoint(Checkpoint),
}

fn stored(bucket: Bucket, gross: i64, through: Minute) -> (CellKey, StoredRow) {
    let counts = Counts { gross, valid: gross, engaged: 0 };
    let row = Row { counts, version: Offset(1), through: through.start(), mark: None };
    (CellKey { entity: entity(), bucket, source: Source(0) }, StoredRow { stamp: Stamp(i64::from(through.0)), row })
}

impl Busy {
    async fn step(&self) -> Result<(), StoreError> {
        let Some((advance, landing)) = self.steps.lock().unwrap().pop() else { return Ok(()) };
        if self.flush.lock().unwrap().is_empty() {
            self.close(advance);
        }
        for _ in 0..landing {
            let next = self.flush.lock().unwrap().pop();
            match next {
                None => break,
                Some(Write::Row(key, row)) => self.store.write_rows(Arc::new(vec![(key, row)])).await?,
                Some(Write::Checkpoint(checkpoint)) => self.store.write_checkpoint(Source(0), checkpoint).await?,
            }
        }
        Ok(())
    }

    /// Closes minutes and fixes a flush: the rollup rows that change, and then the checkpoint.
    fn close(&self, advance: i32) {
        let mut closed = self.closed.lock().unwrap();
        let before = *closed;
        *closed = before.plus(advance);
        let changed: BTreeSet<Bucket> =
            self.minutes.range(before..*closed).flat_map(|(at, _)| Tier::ROLLUPS.map(|tier| tier.bucket(*at))).collect();
        let row = |bucket: Bucket| {
            let held = self.minutes.range(bucket.start..bucket.end().min(*closed));
            let (key, row) = stored(bucket, held.map(|(_, views)| views).sum(), *closed);
            Write::Row(key, row)
        };
        let mut writes = vec![Write::Checkpoint(checkpoint(*closed))];
        writes.extend(changed.into_iter().map(row));
        *self.flush.lock().unwrap() = writes;
    }
}

fn checkpoint(closed: Minute) -> Checkpoint {
    Checkpoint {
        next_offset: Offset(1),
        warm_from: Offset(0),
        stamp: Stamp(i64::from(closed.0)),
        clock: closed.start(),
        append_time: closed.start(),
        closed: closed.start(),
        adjustments: 0,
        tally: Tally::default(),
        settings: FoldSettings::default(),
    }
}

impl CountStore for Busy {
    fn read_slice(&self, slice: Slice) -> BoxFuture<'_, Result<Vec<SliceRow>, StoreError>> {
        async move {
            self.step().await?;
            self.store.read_slice(slice).await
        }
        .boxed()
    }
    fn read_checkpoints(&self) -> BoxFuture<'_, Result<Vec<(Source, Checkpoint)>, StoreError>> {
        async move {
            self.step().await?;
            self.store.read_checkpoints().await
        }
        .boxed()
    }
    fn read_cells(&self, keys: Vec<CellKey>) -> BoxFuture<'_, Result<Vec<Option<StoredRow>>, StoreError>> {
        self.store.read_cells(keys)
    }
    fn read_bucket(&self, page: BucketPage) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>> {
        self.store.read_bucket(page)
    }
    fn write_touched(&self, source: Source, days: Vec<Touched>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_touched(source, days)
    }
    fn read_touched(&self) -> BoxFuture<'_, Result<Vec<(Source, Touched)>, StoreError>> {
        self.store.read_touched()
    }
    fn write_rows(&self, rows: Arc<Vec<(CellKey, StoredRow)>>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_rows(rows)
    }
    fn write_checkpoint(&self, source: Source, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_checkpoint(source, checkpoint)
    }
    fn read_video(&self, video_id: String) -> BoxFuture<'_, Result<Option<VideoInfo>, StoreError>> {
        self.store.read_video(video_id)
    }
    fn write_video(&self, video_id: String, info: VideoInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_video(video_id, info)
    }
    fn read_space(&self, space_id: String) -> BoxFuture<'_, Result<Option<SpaceInfo>, StoreError>> {
        self.store.read_space(space_id)
    }
    fn write_space(&self, space_id: String, info: SpaceInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_space(space_id, info)
    }
    fn read_import(&self, content: String) -> BoxFuture<'_, Result<Option<ImportProgress>, StoreError>> {
        self.store.read_import(content)
    }
    fn write_import(&self, content: String, progress: ImportProgress) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_import(content, progress)
    }
    fn read_keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>, StoreError>> {
        self.store.read_keys()
    }
    fn write_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_key(key)
    }
    fn read_archive(&self, source: Source) -> BoxFuture<'_, Result<Manifest, StoreError>> {
        self.store.read_archive(source)
    }
    fn commit_archive(&self, source: Source, change: ArchiveChange) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.store.commit_archive(source, change)
    }

    fn create_adjustment(
        &self,
        entry: AdjustmentEntry,
        parts: Arc<Vec<AdjustmentPart>>,
    ) -> BoxFuture<'_, Result<AdjustmentEntry, StoreError>> {
        self.store.create_adjustment(entry, parts)
    }
    fn read_adjustment(&self, id: String) -> BoxFuture<'_, Result<Option<AdjustmentEntry>, StoreError>> {
        self.store.read_adjustment(id)
    }
    fn read_adjustments(&self, before: Option<(Millis, String)>, limit: usize) -> BoxFuture<'_, Result<Vec<AdjustmentEntry>, StoreError>> {
        self.store.read_adjustments(before, limit)
    }
    fn read_adjustment_part(&self, plan: String, part: u32) -> BoxFuture<'_, Result<Option<AdjustmentPart>, StoreError>> {
        self.store.read_adjustment_part(plan, part)
    }
    fn end_adjustment_part(&self, plan: String, part: u32, end: PartEnd) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.end_adjustment_part(plan, part, end)
    }
    fn read_adjustment_ends(&self, plan: String) -> BoxFuture<'_, Result<BTreeMap<u32, PartEnd>, StoreError>> {
        self.store.read_adjustment_ends(plan)
    }
    fn failure(&self) -> Option<String> {
        self.store.failure()
    }
    fn on_failure(&self) -> BoxFuture<'static, String> {
        CountStore::on_failure(&self.store)
    }
    fn log_id(&self) -> LogId {
        self.store.log_id()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn closing_minutes_between_the_reads_changes_no_answer(
        minutes in prop::collection::btree_map(0..3_000i32, 1i64..1_000, 1..80),
        steps in prop::collection::vec((0..200i32, 0usize..8), 60),
        asked in prop::collection::vec((0..2_990i32, 1..3_000i32), 15),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = scratch();
        let store = EmbeddedStore::open(StoreOptions::new(dir.path(), LogId("log".into()))).unwrap();
        let base = Minute::of(Millis::parse_rfc3339("2025-12-31T00:00:00Z").unwrap());
        let minutes: BTreeMap<Minute, i64> = minutes.into_iter().map(|(at, views)| (base.plus(at), views)).collect();
        let cells = minutes.iter().map(|(at, views)| {
            let (key, mut row) = stored(Tier::Minute.bucket(*at), *views, *at);
            row.row.through = Millis::NEVER;
            (key, row)
        });
        runtime.block_on(store.write_rows(Arc::new(cells.collect()))).unwrap();
        runtime.block_on(store.write_checkpoint(Source(0), checkpoint(base))).unwrap();
        let busy = Busy { store, minutes, steps: Mutex::new(steps), closed: Mutex::new(base), flush: Mutex::default() };
        let settings = FoldSettings::default();
        let reader = Reader { store: &busy, settings: &settings, sources: NonZeroU32::MIN, reads_at_once: 2 };
        for (start, length) in asked {
            let (start, end) = (base.plus(start), base.plus(start + length));
            // The middle makes slices of every tier that are read one after another.
            let middle = start.plus(length / 2);
            let sums = runtime.block_on(reader.sums(&entity(), &[(start, end), (middle, end)], base.plus(3_000).start())).unwrap();
            for (from, got) in [(start, sums.counts[0]), (middle, sums.counts[1])] {
                let expected: i64 = busy.minutes.range(from..end).map(|(_, views)| views).sum();
                prop_assert_eq!(got.gross, expected, "{} to {}", from, end);
            }
        }
    }
}
