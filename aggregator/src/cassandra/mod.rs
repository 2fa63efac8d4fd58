//! The store on a cluster: Cassandra 5 or ScyllaDB, by CQL.
//!
//! Rows come from the owners of sources and go to the planner, as with [`EmbeddedStore`](crate::EmbeddedStore). Every cell and checkpoint is
//! written under the stamp of the record that last changed it, as its write timestamp: the servers themselves keep the highest, whoever writes,
//! however often, in whatever order.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | where the cluster is, and what a keyspace is made for |
//! | [`migrate`](fn@migrate) | making the keyspace, and leading its tables from version to version |
//! | `schema` | the tables, step by step |
//! | `fill` | copying what was there before a table |
//! | `meta` | what a keyspace says of itself, and whether that is what we came for |
//! | `session`, `tls` | connecting; consistency, patience, data centre |
//! | `statements` | the prepared statements |
//! | `cells` | writing and reading cells, a partition at a time |
//! | `adjustments` | the journal of adjustments |
//! | `by_bucket` | hour and day cells once more, by bucket |
//! | `keys` | who may do what |
//! | `touched` | which days have changed after they were closed |
//! | `row`, `checkpoint`, `notes` | rows as bound values and back |
//! | `ttl` | how long a row lives. Pure |
//! | `gate`, `limit` | how many requests at once: as many as the cluster bears |
//! | `error` | what an error of the driver means |
//!
//! Invariants: what was acknowledged was acknowledged by a quorum, and a read asks a quorum; no null is ever bound; a request that failed may
//! be repeated.

mod adjustments;
mod archive;
mod by_bucket;
mod cells;
mod checkpoint;
mod error;
mod fill;
mod gate;
mod keys;
mod limit;
mod meta;
mod migrate;
mod notes;
pub mod options;
mod row;
mod schema;
mod session;
mod statements;
mod tls;
mod touched;
mod ttl;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::{AdjustmentEntry, AdjustmentPart, CellKey, Checkpoint, FoldSettings, KeyRecord, LogId, Millis, PartEnd, Source, StoredRow};
use scylla::client::session::Session;

pub use migrate::migrate;
pub use options::{CassandraOptions, DEFAULT_KEYSPACE, MigratePlan, TlsFiles};

use crate::archive::{ArchiveChange, Manifest};
use crate::store::{BucketPage, BucketRow, CountStore, ImportProgress, Slice, SliceRow, SpaceInfo, StoreError, Touched, VideoInfo};
use gate::Gate;
use limit::Limit;
use statements::Statements;

/// So many requests run at once at first, and at most.
const FIRST_LIMIT: u32 = 32;
const MOST: u32 = 256;

/// A store on a cluster. A handle: clones share one session, which reconnects by itself and closes with the last of them.
#[derive(Clone)]
pub struct CassandraStore(Arc<Inner>);

struct Inner {
    session: Session,
    statements: Statements,
    log_id: LogId,
    settings: FoldSettings,
    writes: Gate,
    reads: Gate,
}

impl CassandraStore {
    /// Opens a keyspace that [`migrate`](fn@migrate) has made, for a log and the rules by which it is counted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the cluster does not answer: the same call may succeed later. [`StoreError::OtherLog`] and
    /// [`StoreError::Mismatch`] if the keyspace is for another log, data centre or settings, or of a newer schema. [`StoreError::Open`] if
    /// there is no such keyspace or it is of an older schema, or the options cannot be right. Each says what to do.
    pub async fn open(options: CassandraOptions, log_id: LogId, settings: &FoldSettings) -> Result<Self, StoreError> {
        let session = session::connect(&options).await?;
        let consistency = session::consistency(options.datacenter.as_deref());
        let meta = meta::read(&session, &options, consistency).await?;
        let Some(meta) = meta.filter(|meta| meta.schema_version >= schema::VERSION) else {
            return Err(options.cannot_open("it is not there or not of this version; run: tallymark migrate"));
        };
        meta.check(&options, &log_id, settings)?;
        session::use_datacenter(&session, meta.datacenter.as_deref());
        let statements = Statements::prepare(&session, &options.keyspace, meta.datacenter.as_deref()).await?;
        let gate = || Gate::new(Limit::new(FIRST_LIMIT, MOST));
        let settings = settings.clone();
        Ok(Self(Arc::new(Inner { session, statements, log_id, settings, writes: gate(), reads: gate() })))
    }

    /// How many write requests the cluster is thought to bear at once: for metrics. Falls when it is overloaded.
    pub fn write_limit(&self) -> u32 {
        self.0.writes.limit()
    }

    /// How many read requests the cluster is thought to bear at once.
    pub fn read_limit(&self) -> u32 {
        self.0.reads.limit()
    }
}

impl CountStore for CassandraStore {
    fn read_cells(&self, keys: Vec<CellKey>) -> BoxFuture<'_, Result<Vec<Option<StoredRow>>, StoreError>> {
        Box::pin(async move { self.0.read_cells(&keys).await })
    }

    fn read_slice(&self, slice: Slice) -> BoxFuture<'_, Result<Vec<SliceRow>, StoreError>> {
        Box::pin(async move { self.0.read_slice(&slice).await })
    }

    fn read_bucket(&self, page: BucketPage) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>> {
        Box::pin(async move { self.0.read_bucket(&page).await })
    }

    fn write_rows(&self, rows: Arc<Vec<(CellKey, StoredRow)>>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.write_rows(&rows).await })
    }

    fn read_checkpoints(&self) -> BoxFuture<'_, Result<Vec<(Source, Checkpoint)>, StoreError>> {
        Box::pin(self.0.read_checkpoints())
    }

    fn write_checkpoint(&self, source: Source, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.write_checkpoint(source, &checkpoint).await })
    }

    fn write_touched(&self, source: Source, days: Vec<Touched>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.write_touched(source, &days).await })
    }

    fn read_touched(&self) -> BoxFuture<'_, Result<Vec<(Source, Touched)>, StoreError>> {
        Box::pin(self.0.read_touched())
    }

    fn read_video(&self, video_id: String) -> BoxFuture<'_, Result<Option<VideoInfo>, StoreError>> {
        Box::pin(async move { self.0.read_video(&video_id).await })
    }

    fn write_video(&self, video_id: String, info: VideoInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.write_video(&video_id, &info).await })
    }

    fn read_space(&self, space_id: String) -> BoxFuture<'_, Result<Option<SpaceInfo>, StoreError>> {
        Box::pin(async move { self.0.read_space(&space_id).await })
    }

    fn write_space(&self, space_id: String, info: SpaceInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.write_space(&space_id, &info).await })
    }

    fn read_import(&self, content: String) -> BoxFuture<'_, Result<Option<ImportProgress>, StoreError>> {
        Box::pin(async move { self.0.read_import(&content).await })
    }

    fn write_import(&self, content: String, progress: ImportProgress) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.write_import(&content, &progress).await })
    }

    fn read_keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>, StoreError>> {
        Box::pin(self.0.read_keys())
    }

    fn write_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.write_key(&key).await })
    }

    fn read_archive(&self, source: Source) -> BoxFuture<'_, Result<Manifest, StoreError>> {
        Box::pin(self.0.read_archive(source))
    }

    fn commit_archive(&self, source: Source, change: ArchiveChange) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { self.0.commit_archive(source, &change).await })
    }

    fn create_adjustment(
        &self,
        entry: AdjustmentEntry,
        parts: Arc<Vec<AdjustmentPart>>,
    ) -> BoxFuture<'_, Result<AdjustmentEntry, StoreError>> {
        Box::pin(async move { self.0.create_adjustment(entry, &parts).await })
    }

    fn read_adjustment(&self, id: String) -> BoxFuture<'_, Result<Option<AdjustmentEntry>, StoreError>> {
        Box::pin(async move { self.0.read_adjustment(&id).await })
    }

    fn read_adjustments(&self, before: Option<(Millis, String)>, limit: usize) -> BoxFuture<'_, Result<Vec<AdjustmentEntry>, StoreError>> {
        Box::pin(async move { self.0.read_adjustments(before, limit).await })
    }

    fn read_adjustment_part(&self, plan: String, part: u32) -> BoxFuture<'_, Result<Option<AdjustmentPart>, StoreError>> {
        Box::pin(async move { self.0.read_adjustment_part(&plan, part).await })
    }

    fn end_adjustment_part(&self, plan: String, part: u32, end: PartEnd) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.end_adjustment_part(&plan, part, &end).await })
    }

    fn read_adjustment_ends(&self, plan: String) -> BoxFuture<'_, Result<BTreeMap<u32, PartEnd>, StoreError>> {
        Box::pin(async move { self.0.read_adjustment_ends(&plan).await })
    }

    fn log_id(&self) -> LogId {
        self.0.log_id.clone()
    }

    fn failure(&self) -> Option<String> {
        // A cluster comes back without us: nothing that a restart of this process would mend.
        None
    }

    fn on_failure(&self) -> BoxFuture<'static, String> {
        Box::pin(std::future::pending())
    }
}
