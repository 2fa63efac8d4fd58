//! The store on this machine: one fjall database in one directory.
//!
//! Rows come from the owners of sources ([`write_rows`](CountStore::write_rows)), and go to the planner
//! ([`read_slice`](CountStore::read_slice)) and back to owners that load a cell. Keys and values are those of
//! [`schemas::cell`] and [`schemas::checkpoint`]; videos and imports are a format byte and JSON.
//!
//! | module | holds |
//! |---|---|
//! | [`open`] | the directory, the settings, what belongs to which log |
//! | `table` | reading rows, and which of two stays: the higher stamp |
//! | `write` | writing rows, in batches |
//! | `adjustments` | the journal of adjustments |
//! | `by_bucket` | hour and day cells once more, those of one bucket side by side |
//! | `keys` | who may do what |
//! | `archive` | what is archived |
//! | `touched` | which days have changed after they were closed |
//! | `highest` | the highest stamp of each source: what is above it is written without a look |
//! | `journal` | noticing that the write-ahead journal has lost batches that were acknowledged |
//! | `expiry` | letting go of rows whose time to live has passed |
//! | `failure` | the first fault that nothing but a restart mends |
//!
//! Invariants: what was acknowledged is on disk; what can be read is on disk; a row never gives way to a lower or an
//! equal stamp, whoever writes; damage is an error that names what is damaged, never another number.

mod adjustments;
mod archive;
mod by_bucket;
mod expiry;
mod failure;
mod highest;
mod journal;
mod keys;
pub mod open;
mod table;
mod touched;
mod write;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use futures_util::future::BoxFuture;
use schemas::{AdjustmentEntry, AdjustmentPart, CellKey, Checkpoint, KeyRecord, LogId, Millis, PartEnd, Source, StoredRow};
use tokio::runtime::Handle;

use open::Inner;
pub use open::StoreOptions;
pub use table::Table;

use crate::archive::{ArchiveChange, Manifest};
use crate::store::{BucketPage, BucketRow, CountStore, ImportProgress, Slice, SliceRow, SpaceInfo, StoreError, Touched, VideoInfo};

/// The embedded store. A handle: clones share one database, which closes with the last of them.
#[derive(Clone)]
pub struct EmbeddedStore(Arc<Inner>);

impl EmbeddedStore {
    /// Opens the store in a directory, making it if there is none. Blocks while what a crash left is replayed.
    ///
    /// # Errors
    /// [`StoreError::OtherLog`] if it belongs to another log, [`StoreError::Corrupt`] if it has lost what it had
    /// acknowledged, [`StoreError::Open`] if another program has it open or the disk does not let us.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let (closing, closed) = mpsc::channel();
        let inner = Arc::new(Inner::open(options, closing)?);
        inner.learn_highest()?;
        inner.fill_by_bucket()?;
        inner.read_checkpoints()?.iter().for_each(|(_, checkpoint)| inner.expiry.advance(checkpoint));
        failure::watch(&inner, closed)?;
        Ok(Self(inner))
    }

    /// Every cell of a table with its row, by key: for audits and moves. Each may be one that cannot be read.
    pub fn scan(&self, table: Table) -> impl Iterator<Item = Result<(CellKey, StoredRow), StoreError>> + '_ {
        self.0.scan(table)
    }

    /// Every cell that is kept by bucket too with the row that it has there: for audits.
    pub fn scan_by_bucket(&self) -> impl Iterator<Item = Result<(CellKey, StoredRow), StoreError>> + '_ {
        self.0.scan_by_bucket()
    }

    /// Every video of which something is known.
    pub fn videos(&self) -> impl Iterator<Item = Result<(String, VideoInfo), StoreError>> + '_ {
        self.0.scan_notes(&self.0.videos, "video")
    }

    /// Every space of which something is known.
    pub fn spaces(&self) -> impl Iterator<Item = Result<(String, SpaceInfo), StoreError>> + '_ {
        self.0.scan_notes(&self.0.spaces, "space")
    }

    /// Every import.
    pub fn imports(&self) -> impl Iterator<Item = Result<(String, ImportProgress), StoreError>> + '_ {
        self.0.scan_notes(&self.0.imports, "import")
    }

    /// How often a row or checkpoint came with the stamp of the stored one and other bytes. Anything but 0 is a bug of an owner.
    pub fn conflicts(&self) -> u64 {
        self.0.conflicts.load(Ordering::Relaxed)
    }

    /// Why the store cannot write any more, if it cannot.
    pub fn failure(&self) -> Option<String> {
        self.0.failure.get()
    }

    /// Resolves with the reason when the store cannot write any more; never, as long as it can.
    pub fn on_failure(&self) -> impl Future<Output = String> + Send + 'static {
        self.0.failure.wait()
    }

    /// Writes what is in memory to table files and merges these. Not needed for durability.
    ///
    /// # Errors
    /// If the disk does not let us.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.0.compact()
    }

    /// Bytes on disk, journals included.
    ///
    /// # Errors
    /// If the disk cannot tell.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.0.disk_bytes()
    }

    /// Runs `work` where it may block: on the runtime's blocking threads if there is a runtime.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match Handle::try_current() {
                Ok(runtime) => {
                    let done = runtime.spawn_blocking(move || work(&inner)).await;
                    done.unwrap_or_else(|stopped| Err(self.0.failure.set(format!("a store operation stopped: {stopped}"))))
                }
                Err(_) => work(&inner),
            }
        })
    }
}

impl CountStore for EmbeddedStore {
    fn read_cells(&self, keys: Vec<CellKey>) -> BoxFuture<'_, Result<Vec<Option<StoredRow>>, StoreError>> {
        self.blocking(move |store| keys.iter().map(|key| store.read_cell(key)).collect())
    }

    fn read_slice(&self, slice: Slice) -> BoxFuture<'_, Result<Vec<SliceRow>, StoreError>> {
        self.blocking(move |store| store.read_slice(&slice))
    }

    fn read_bucket(&self, page: BucketPage) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>> {
        self.blocking(move |store| store.read_bucket(&page))
    }

    fn write_rows(&self, rows: Arc<Vec<(CellKey, StoredRow)>>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.blocking(move |store| store.write_rows(&rows))
    }

    fn read_checkpoints(&self) -> BoxFuture<'_, Result<Vec<(Source, Checkpoint)>, StoreError>> {
        self.blocking(Inner::read_checkpoints)
    }

    fn write_checkpoint(&self, source: Source, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), StoreError>> {
        self.blocking(move |store| store.write_checkpoint(source, &checkpoint))
    }

    fn write_touched(&self, source: Source, days: Vec<Touched>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.0.write_touched(source, &days);
            Ok(())
        })
    }

    fn read_touched(&self) -> BoxFuture<'_, Result<Vec<(Source, Touched)>, StoreError>> {
        Box::pin(async move { Ok(self.0.read_touched()) })
    }

    fn read_video(&self, video_id: String) -> BoxFuture<'_, Result<Option<VideoInfo>, StoreError>> {
        self.blocking(move |store| store.read_note(&store.videos, "video", &video_id))
    }

    fn write_video(&self, video_id: String, info: VideoInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        self.blocking(move |store| store.write_note(&store.videos, "video", &video_id, &info))
    }

    fn read_space(&self, space_id: String) -> BoxFuture<'_, Result<Option<SpaceInfo>, StoreError>> {
        self.blocking(move |store| store.read_note(&store.spaces, "space", &space_id))
    }

    fn write_space(&self, space_id: String, info: SpaceInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        self.blocking(move |store| store.write_note(&store.spaces, "space", &space_id, &info))
    }

    fn read_import(&self, content: String) -> BoxFuture<'_, Result<Option<ImportProgress>, StoreError>> {
        self.blocking(move |store| store.read_note(&store.imports, "import", &content))
    }

    fn write_import(&self, content: String, progress: ImportProgress) -> BoxFuture<'_, Result<(), StoreError>> {
        self.blocking(move |store| store.write_note(&store.imports, "import", &content, &progress))
    }

    fn read_keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>, StoreError>> {
        self.blocking(Inner::read_keys)
    }

    fn write_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.blocking(move |store| store.write_key(key))
    }

    fn read_archive(&self, source: Source) -> BoxFuture<'_, Result<Manifest, StoreError>> {
        self.blocking(move |store| store.read_archive(source))
    }

    fn commit_archive(&self, source: Source, change: ArchiveChange) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.blocking(move |store| store.commit_archive(source, &change))
    }

    fn create_adjustment(
        &self,
        entry: AdjustmentEntry,
        parts: Arc<Vec<AdjustmentPart>>,
    ) -> BoxFuture<'_, Result<AdjustmentEntry, StoreError>> {
        self.blocking(move |store| store.create_adjustment(entry, &parts))
    }

    fn read_adjustment(&self, id: String) -> BoxFuture<'_, Result<Option<AdjustmentEntry>, StoreError>> {
        self.blocking(move |store| store.read_adjustment(&id))
    }

    fn read_adjustments(&self, before: Option<(Millis, String)>, limit: usize) -> BoxFuture<'_, Result<Vec<AdjustmentEntry>, StoreError>> {
        self.blocking(move |store| store.read_adjustments(before.as_ref(), limit))
    }

    fn read_adjustment_part(&self, plan: String, part: u32) -> BoxFuture<'_, Result<Option<AdjustmentPart>, StoreError>> {
        self.blocking(move |store| store.read_adjustment_part(&plan, part))
    }

    fn end_adjustment_part(&self, plan: String, part: u32, end: PartEnd) -> BoxFuture<'_, Result<(), StoreError>> {
        self.blocking(move |store| store.end_adjustment_part(&plan, part, end))
    }

    fn read_adjustment_ends(&self, plan: String) -> BoxFuture<'_, Result<BTreeMap<u32, PartEnd>, StoreError>> {
        self.blocking(move |store| store.read_adjustment_ends(&plan))
    }

    fn log_id(&self) -> LogId {
        self.0.log_id.clone()
    }

    fn failure(&self) -> Option<String> {
        self.failure()
    }

    fn on_failure(&self) -> BoxFuture<'static, String> {
        Box::pin(self.on_failure())
    }
}
