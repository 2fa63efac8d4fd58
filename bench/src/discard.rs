//! A store that keeps nothing: what the fold costs without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregator::archive::{ArchiveChange, Manifest};
use aggregator::{BucketPage, BucketRow, CountStore, ImportProgress, Slice, SliceRow, SpaceInfo, StoreError, Touched, VideoInfo};
use futures_util::future::{BoxFuture, pending, ready};
use schemas::{AdjustmentEntry, AdjustmentPart, CellKey, Checkpoint, KeyRecord, LogId, Millis, PartEnd, Source, StoredRow};

/// Finds nothing, and throws away what it is given.
pub(crate) struct Discard(pub(crate) LogId);

impl CountStore for Discard {
    fn read_cells(&self, keys: Vec<CellKey>) -> BoxFuture<'_, Result<Vec<Option<StoredRow>>, StoreError>> {
        Box::pin(ready(Ok(vec![None; keys.len()])))
    }

    fn read_slice(&self, _: Slice) -> BoxFuture<'_, Result<Vec<SliceRow>, StoreError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn read_bucket(&self, _: BucketPage) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn write_touched(&self, _: Source, _: Vec<Touched>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn read_touched(&self) -> BoxFuture<'_, Result<Vec<(Source, Touched)>, StoreError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn write_rows(&self, _: Arc<Vec<(CellKey, StoredRow)>>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn read_checkpoints(&self) -> BoxFuture<'_, Result<Vec<(Source, Checkpoint)>, StoreError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn write_checkpoint(&self, _: Source, _: Checkpoint) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn read_video(&self, _: String) -> BoxFuture<'_, Result<Option<VideoInfo>, StoreError>> {
        Box::pin(ready(Ok(None)))
    }

    fn write_video(&self, _: String, _: VideoInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn read_space(&self, _: String) -> BoxFuture<'_, Result<Option<SpaceInfo>, StoreError>> {
        Box::pin(ready(Ok(None)))
    }

    fn write_space(&self, _: String, _: SpaceInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn read_import(&self, _: String) -> BoxFuture<'_, Result<Option<ImportProgress>, StoreError>> {
        Box::pin(ready(Ok(None)))
    }

    fn write_import(&self, _: String, _: ImportProgress) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn read_keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>, StoreError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn write_key(&self, _: KeyRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn read_archive(&self, _: Source) -> BoxFuture<'_, Result<Manifest, StoreError>> {
        Box::pin(ready(Ok(Manifest::default())))
    }

    fn commit_archive(&self, _: Source, _: ArchiveChange) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(ready(Ok(false)))
    }

    fn create_adjustment(&self, entry: AdjustmentEntry, _: Arc<Vec<AdjustmentPart>>) -> BoxFuture<'_, Result<AdjustmentEntry, StoreError>> {
        Box::pin(ready(Ok(entry)))
    }

    fn read_adjustment(&self, _: String) -> BoxFuture<'_, Result<Option<AdjustmentEntry>, StoreError>> {
        Box::pin(ready(Ok(None)))
    }

    fn read_adjustments(&self, _: Option<(Millis, String)>, _: usize) -> BoxFuture<'_, Result<Vec<AdjustmentEntry>, StoreError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn read_adjustment_part(&self, _: String, _: u32) -> BoxFuture<'_, Result<Option<AdjustmentPart>, StoreError>> {
        Box::pin(ready(Ok(None)))
    }

    fn end_adjustment_part(&self, _: String, _: u32, _: PartEnd) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn read_adjustment_ends(&self, _: String) -> BoxFuture<'_, Result<BTreeMap<u32, PartEnd>, StoreError>> {
        Box::pin(ready(Ok(BTreeMap::new())))
    }

    fn log_id(&self) -> LogId {
        self.0.clone()
    }

    fn failure(&self) -> Option<String> {
        None
    }

    fn on_failure(&self) -> BoxFuture<'static, String> {
        Box::pin(pending())
    }
}
