//! A real store behind a gate: reads are counted, and wait or fail while the gate is not open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aggregator::archive::{ArchiveChange, Manifest};
use aggregator::{BucketPage, BucketRow, CountStore, ImportProgress, Slice, SliceRow, SpaceInfo, StoreError, Touched, VideoInfo};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemas::{AdjustmentEntry, AdjustmentPart, CellKey, Checkpoint, KeyRecord, LogId, Millis, PartEnd, Source, StoredRow};
use tokio::sync::watch;

/// What becomes of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Reads wait until it is not shut.
    Shut,
    /// Slices wait, everything else is read.
    ShutForSlices,
    Broken,
    /// What things are called is not read, nor written of ids that begin with `lost`; the rest is as when it is open.
    #[allow(dead_code, reason = "each test uses what it needs")]
    BrokenForNames,
}

pub(crate) struct Gated {
    pub(crate) store: Arc<dyn CountStore>,
    gate: watch::Sender<Gate>,
    slices: AtomicUsize,
    checkpoints: AtomicUsize,
}

impl Gated {
    pub(crate) fn new(store: Arc<dyn CountStore>) -> Self {
        Self { store, gate: watch::Sender::new(Gate::Open), slices: AtomicUsize::new(0), checkpoints: AtomicUsize::new(0) }
    }

    pub(crate) fn set(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    /// Slices that were begun to be read since this was last asked.
    pub(crate) fn slices(&self) -> usize {
        self.slices.swap(0, Ordering::Relaxed)
    }

    /// How often checkpoints were begun to be read since this was last asked.
    pub(crate) fn checkpoints(&self) -> usize {
        self.checkpoints.swap(0, Ordering::Relaxed)
    }

    async fn pass(&self, is_slice: bool) -> Result<(), StoreError> {
        let waits = |gate: Gate| gate == Gate::Shut || gate == Gate::ShutForSlices && is_slice;
        let mut gate = self.gate.subscribe();
        let gate = gate.wait_for(|gate| !waits(*gate)).await.map(|gate| *gate);
        if gate.is_ok_and(|gate| gate != Gate::Broken) { Ok(()) } else { Err(StoreError::Unavailable("broken".into())) }
    }

    fn names(&self, are_asked: bool) -> Result<(), StoreError> {
        let is_broken = *self.gate.borrow() == Gate::BrokenForNames && are_asked;
        if is_broken { Err(StoreError::Unavailable("no names".into())) } else { Ok(()) }
    }
}

impl CountStore for Gated {
    fn read_slice(&self, slice: Slice) -> BoxFuture<'_, Result<Vec<SliceRow>, StoreError>> {
        async move {
            self.slices.fetch_add(1, Ordering::Relaxed);
            self.pass(true).await?;
            self.store.read_slice(slice).await
        }
        .boxed()
    }
    fn read_checkpoints(&self) -> BoxFuture<'_, Result<Vec<(Source, Checkpoint)>, StoreError>> {
        async move {
            self.checkpoints.fetch_add(1, Ordering::Relaxed);
            self.pass(false).await?;
            self.store.read_checkpoints().await
        }
        .boxed()
    }
    fn read_touched(&self) -> BoxFuture<'_, Result<Vec<(Source, Touched)>, StoreError>> {
        async move {
            self.pass(false).await?;
            self.store.read_touched().await
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
    fn write_rows(&self, rows: Arc<Vec<(CellKey, StoredRow)>>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_rows(rows)
    }
    fn write_checkpoint(&self, source: Source, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.write_checkpoint(source, checkpoint)
    }
    fn read_video(&self, video_id: String) -> BoxFuture<'_, Result<Option<VideoInfo>, StoreError>> {
        async move {
            self.names(true)?;
            self.store.read_video(video_id).await
        }
        .boxed()
    }
    fn write_video(&self, video_id: String, info: VideoInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.names(video_id.starts_with("lost"))?;
            self.store.write_video(video_id, info).await
        }
        .boxed()
    }
    fn read_space(&self, space_id: String) -> BoxFuture<'_, Result<Option<SpaceInfo>, StoreError>> {
        async move {
            self.names(true)?;
            self.store.read_space(space_id).await
        }
        .boxed()
    }
    fn write_space(&self, space_id: String, info: SpaceInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.names(space_id.starts_with("lost"))?;
            self.store.write_space(space_id, info).await
        }
        .boxed()
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
        self.store.on_failure()
    }
    fn log_id(&self) -> LogId {
        self.store.log_id()
    }
}
