//! The seam to the store of cells: read cells, a slice of a series or a page of a bucket; write rows with their versions, checkpoints, and
//! which days changed late.
//!
//! Its implementations are [`EmbeddedStore`](crate::EmbeddedStore) and `CassandraStore` (feature `cassandra`); each passes
//! [`crate::conformance`]. Rows of one cell with equal stamps are equal. A row with a lower stamp never replaces one with a higher, so any write may be repeated, late or reordered.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::{
    AdjustmentEntry, AdjustmentPart, Bucket, CellKey, Checkpoint, Dimension, Entity, KeyRecord, LogId, Millis, Minute, Offset, PartEnd,
    Source, Stamp, StoredRow, Tier,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::archive::{ArchiveChange, Manifest};

/// Stored cells of one log, its checkpoints, what is known of videos and imports, the keys that are asked for,
/// what is archived, and the journal of adjustments.
pub trait CountStore: Send + Sync + 'static {
    /// Reads cells by name: one answer for each key, in order, `None` where there is no row. What is read is durable.
    ///
    /// # Errors
    /// If any of them cannot be read.
    fn read_cells(&self, keys: Vec<CellKey>) -> BoxFuture<'_, Result<Vec<Option<StoredRow>>, StoreError>>;

    /// Reads all sources' cells of one entity and tier whose buckets start in the slice, by bucket and then source.
    ///
    /// # Errors
    /// If it cannot be read whole.
    fn read_slice(&self, slice: Slice) -> BoxFuture<'_, Result<Vec<SliceRow>, StoreError>>;

    /// Reads a page of one source's cells of one bucket, by entity id in byte order. Shorter than its limit, it is the last.
    /// Hour and day cells of videos and spaces are kept so; of others there are none.
    ///
    /// # Errors
    /// If it cannot be read whole.
    fn read_bucket(&self, page: BucketPage) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>>;

    /// Writes rows, each unless the store holds one of the same cell with an equal or higher stamp. Resolves when all are durable.
    /// The rows may land one by one in any order; a failed call may have written some. Shared, because a call that failed is repeated.
    ///
    /// # Errors
    /// If any of them is not known to be durable.
    fn write_rows(&self, rows: Arc<Vec<(CellKey, StoredRow)>>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All checkpoints of the log, by source.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_checkpoints(&self) -> BoxFuture<'_, Result<Vec<(Source, Checkpoint)>, StoreError>>;

    /// Writes a checkpoint unless the store holds one of the source with an equal or higher stamp. Resolves when it is durable.
    ///
    /// # Errors
    /// If it is not known to be durable.
    fn write_checkpoint(&self, source: Source, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Announces days of a source whose counts have changed after they were closed, each unless one with an equal or higher stamp is there.
    /// The rows that changed have been written before: whoever reads the announcement reads them.
    ///
    /// # Errors
    /// If any of them is not known to be there for all readers.
    fn write_touched(&self, source: Source, days: Vec<Touched>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What has been announced in the last [`TOUCHED_TTL_S`] seconds at least, by source and day.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_touched(&self) -> BoxFuture<'_, Result<Vec<(Source, Touched)>, StoreError>>;

    /// What is known of a video.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_video(&self, video_id: String) -> BoxFuture<'_, Result<Option<VideoInfo>, StoreError>>;

    /// Sets what is known of a video; the last write stays.
    ///
    /// # Errors
    /// If it is not known to be durable.
    fn write_video(&self, video_id: String, info: VideoInfo) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What is known of a space.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_space(&self, space_id: String) -> BoxFuture<'_, Result<Option<SpaceInfo>, StoreError>>;

    /// Sets what is known of a space; the last write stays.
    ///
    /// # Errors
    /// If it is not known to be durable.
    fn write_space(&self, space_id: String, info: SpaceInfo) -> BoxFuture<'_, Result<(), StoreError>>;

    /// How far a file, known by the hash of its content, has been imported.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_import(&self, content: String) -> BoxFuture<'_, Result<Option<ImportProgress>, StoreError>>;

    /// Notes how far a file has been imported; the last write stays.
    ///
    /// # Errors
    /// If it is not known to be durable.
    fn write_import(&self, content: String, progress: ImportProgress) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All keys, by id, those that have ended among them: [`schemas::key::MAX_KEYS`] at most, to which whoever makes them sees.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>, StoreError>>;

    /// Notes a key. Nothing of one that is there changes but that it is revoked; a write that does not say so does not take it back.
    ///
    /// # Errors
    /// If it is not known to be durable.
    fn write_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What is archived of a source; empty if nothing is. What is read has been committed, and no part of it is of another version.
    ///
    /// # Errors
    /// If it cannot be read whole.
    fn read_archive(&self, source: Source) -> BoxFuture<'_, Result<Manifest, StoreError>>;

    /// Changes what is archived of a source, whole or not at all, if the manifest is still of the version before that of the change;
    /// else `false`: look again. It resolves when the change is durable.
    ///
    /// # Errors
    /// If it is not known whether it was made: read, and see.
    fn commit_archive(&self, source: Source, change: ArchiveChange) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Notes an adjustment with its parts, unless there is one of its name: the one that is there now. An entry that can be read has all its
    /// parts; of those that were not kept nothing can be found.
    ///
    /// # Errors
    /// If it is not known which one is kept.
    fn create_adjustment(
        &self,
        entry: AdjustmentEntry,
        parts: Arc<Vec<AdjustmentPart>>,
    ) -> BoxFuture<'_, Result<AdjustmentEntry, StoreError>>;

    /// An adjustment by its name.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_adjustment(&self, id: String) -> BoxFuture<'_, Result<Option<AdjustmentEntry>, StoreError>>;

    /// Adjustments by time and then name, the last first: at most so many, and only those before a time and a name.
    /// Fewer than the limit are the last.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_adjustments(&self, before: Option<(Millis, String)>, limit: usize) -> BoxFuture<'_, Result<Vec<AdjustmentEntry>, StoreError>>;

    /// A part of a plan.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_adjustment_part(&self, plan: String, part: u32) -> BoxFuture<'_, Result<Option<AdjustmentPart>, StoreError>>;

    /// Notes how a part has ended. That it was taken stays, whatever is written before or after it; else the last write does.
    ///
    /// # Errors
    /// If it is not known to be durable.
    fn end_adjustment_part(&self, plan: String, part: u32, end: PartEnd) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The parts of a plan that have ended, and how.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read_adjustment_ends(&self, plan: String) -> BoxFuture<'_, Result<BTreeMap<u32, PartEnd>, StoreError>>;

    /// The log that the store belongs to.
    fn log_id(&self) -> LogId;

    /// Why nothing can be written any more until the program is started again; `None` as long as all is well.
    fn failure(&self) -> Option<String>;

    /// Resolves with [`CountStore::failure`] when there is one. The program should then exit.
    fn on_failure(&self) -> BoxFuture<'static, String>;
}

/// Buckets that start in `[start, end)` of one entity's series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// What is counted.
    pub entity: Entity,
    /// In which tier.
    pub tier: Tier,
    /// The first bucket may start here.
    pub start: Minute,
    /// No bucket starts at or after this.
    pub end: Minute,
}

/// One cell of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceRow {
    /// Where its bucket starts.
    pub start: Minute,
    /// Whose cell it is.
    pub source: Source,
    /// Its state.
    pub stored: StoredRow,
}

/// A part of one source's cells of one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketPage {
    /// Cells of what.
    pub dimension: Dimension,
    /// Of which hour or day.
    pub bucket: Bucket,
    /// Whose.
    pub source: Source,
    /// Only of entities behind this one; `None` from the first on.
    pub after: Option<Arc<str>>,
    /// At most so many.
    pub limit: usize,
}

/// One cell of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRow {
    /// Whose counts these are: the id in the dimension that was asked for.
    pub id: Arc<str>,
    /// Its state.
    pub stored: StoredRow,
}

/// Whether a cell is kept by its bucket too, where [`CountStore::read_bucket`] finds it.
pub const fn is_kept_by_bucket(key: &CellKey) -> bool {
    matches!(key.bucket.tier, Tier::Hour | Tier::Day) && !matches!(key.entity.dimension, Dimension::Site)
}

/// An announcement can be read for so many seconds at least. Who has not looked for half as long takes everything for changed.
pub const TOUCHED_TTL_S: i32 = 600;

/// Minutes of a UTC day have changed after they were closed: late events, imports, corrections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Touched {
    /// Days since 1970, or [`Touched::ALL`].
    pub day: i32,
    /// The offset after the last record that changed them.
    pub version: Offset,
    /// The stamp of that record.
    pub stamp: Stamp,
}

impl Touched {
    /// Stands for every day.
    pub const ALL: i32 = i32::MIN;
}

/// What is known of a video, set by `PUT /v1/videos/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoInfo {
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The id of its space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_id: Option<String>,
    /// The name of its space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_name: Option<String>,
    /// When it was published, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<String>,
}

/// What is known of a space, set by `PUT /v1/spaces/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceInfo {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How far a file has been imported. Written at barriers, when everything sent before has been acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportProgress {
    /// The file's name when it was first imported, for people.
    pub file: String,
    /// How its columns were read: another mapping is another import.
    pub mapping: String,
    /// So many events from the file's start are in the log for certain.
    pub events: u64,
    /// The log's ends, by source, when those were: what was sent after them lies at or behind these offsets.
    pub ends: Vec<u64>,
    /// Whether the whole file is in.
    pub complete: bool,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// It cannot be reached or cannot write now; the same call may succeed later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Its disk or memory is broken; it stays so until the program is restarted.
    #[error("the store cannot be written: {0}")]
    Failed(String),
    /// Stored bytes are damaged or from a newer program.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The store was made by other rules, or with other tables, than this program is to use.
    #[error("{0}")]
    Mismatch(String),
    /// The store belongs to another log.
    #[error(
        "this store belongs to log {stored}, not to {asked}; a store counts one log only: give the log a data directory or a keyspace of its own"
    )]
    OtherLog {
        /// The log it belongs to.
        stored: LogId,
        /// The log it was opened for.
        asked: LogId,
    },
    /// The store cannot be opened.
    #[error("cannot open the store {path}: {detail}")]
    Open {
        /// Where.
        path: String,
        /// Why, and what to do.
        detail: String,
    },
}
