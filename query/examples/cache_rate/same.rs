//! A store in which every entity has the counts of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregator::archive::{ArchiveChange, Manifest};
use aggregator::{
    BucketPage, BucketRow, CountStore, EmbeddedStore, ImportProgress, Slice, SliceRow, SpaceInfo, StoreError, Touched, VideoInfo,
};
use futures_util::future::BoxFuture;
use schemas::{
    AdjustmentEntry, AdjustmentPart, CellKey, Checkpoint, Dimension, Entity, KeyRecord, LogId, Millis, PartEnd, Source, StoredRow,
};

pub(crate) struct Same(pub(crate) EmbeddedStore);

/// The entity that has counts.
pub(crate) fn only() -> Entity {
    Entity::new(Dimension::Video, "only")
}

impl CountStore for Same {
    fn read_slice(&self, slice: Slice) -> BoxFuture<'_, Result<Vec<SliceRow>, StoreError>> {
        self.0.read_slice(Slice { entity: only(), ..slice })
    }
    fn read_checkpoints(&self) -> BoxFuture<'_, Result<Vec<(Source, Checkpoint)>, StoreError>> {
        self.0.read_checkpoints()
    }
    fn read_touched(&self) -> BoxFuture<'_, Result<Vec<(Source, Touched)>, StoreError>> {
        self.0.read_touched()
    }
    fn read_cells(&self, keys: Vec<CellKey>) -> BoxFuture<'_, Result<Vec<Option<StoredRow>>, StoreError>> {
        self.0.read_cells(keys)
    }
    fn read_bucket(&self, page: BucketPage) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>> {
        self.0.read_bucket(page)
    }
    fn write_touched(&self, source: Source, days: Vec<Touched>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.write_touched(source, days)
    }
    fn write_rows(&self, rows: Arc<Vec<(CellKey, StoredRow)>>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.write_rows(rows)
    }
    fn write_checkpoint(&self, source: Source, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.write_checkpoint(source, checkpoint)
    }
    fn read_video(&self, video_id: String) -> BoxFuture<'_, Result<Option<VideoInfo>, StoreError>> {
        self.0.read_video(video_id)
    }
    fn write_video(&self, video_id: String, info: VideoInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.write_video(video_id, info)
    }
    fn read_space(&self, space_id: String) -> BoxFuture<'_, Result<Option<SpaceInfo>, StoreError>> {
        self.0.read_space(space_id)
    }
    fn write_space(&self, space_id: String, info: SpaceInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.write_space(space_id, info)
    }
    fn read_import(&self, content: String) -> BoxFuture<'_, Result<Option<ImportProgress>, StoreError>> {
        self.0.read_import(content)
    }
    fn write_import(&self, content: String, progress: ImportProgress) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.write_import(content, progress)
    }
    fn read_keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>, StoreError>> {
        self.0.read_keys()
    }
    fn write_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.write_key(key)
    }
    fn read_archive(&self, source: Source) -> BoxFuture<'_, Result<Manifest, StoreError>> {
        self.0.read_archive(source)
    }
    fn commit_archive(&self, source: Source, change: ArchiveChange) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.0.commit_archive(source, change)
    }

    fn create_adjustment(
        &self,
        entry: AdjustmentEntry,
        parts: Arc<Vec<AdjustmentPart>>,
    ) -> BoxFuture<'_, Result<AdjustmentEntry, StoreError>> {
        self.0.create_adjustment(entry, parts)
    }
    fn read_adjustment(&self, id: String) -> BoxFuture<'_, Result<Option<AdjustmentEntry>, StoreError>> {
        self.0.read_adjustment(id)
    }
    fn read_adjustments(&self, before: Option<(Millis, String)>, limit: usize) -> BoxFuture<'_, Result<Vec<AdjustmentEntry>, StoreError>> {
        self.0.read_adjustments(before, limit)
    }
    fn read_adjustment_part(&self, plan: String, part: u32) -> BoxFuture<'_, Result<Option<AdjustmentPart>, StoreError>> {
        self.0.read_adjustment_part(plan, part)
    }
    fn end_adjustment_part(&self, plan: String, part: u32, end: PartEnd) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.end_adjustment_part(plan, part, end)
    }
    fn read_adjustment_ends(&self, plan: String) -> BoxFuture<'_, Result<BTreeMap<u32, PartEnd>, StoreError>> {
        self.0.read_adjustment_ends(plan)
    }
    fn failure(&self) -> Option<String> {
        CountStore::failure(&self.0)
    }
    fn on_failure(&self) -> BoxFuture<'static, String> {
        CountStore::on_failure(&self.0)
    }
    fn log_id(&self) -> LogId {
        self.0.log_id()
    }
}
