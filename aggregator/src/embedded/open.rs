//! Opening the store: its directory, its settings, and whose it is.
//!
//! ```text
//! DIR/db        the fjall database; made as db.new and renamed, so that a crash in the making leaves none
//! DIR/lock      held while the store is open
//! DIR/synced    where the journal was when the last batch was acknowledged
//! ```

use std::fs::{self, File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use schemas::LogId;

use super::by_bucket::BY_BUCKET_KEY;
use super::expiry::Expiry;
use super::failure::Failure;
use super::highest::{Highest, NOTED_KEY};
use super::journal::{self, BATCH_KEY};
use super::touched::TouchedDays;
use crate::store::StoreError;

/// How and where to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its directory; made if it is not there.
    pub dir: PathBuf,
    /// The log whose cells it holds.
    pub log_id: LogId,
    /// How much of the table files is kept in memory, in bytes.
    pub cache_bytes: u64,
    /// How much each table gathers in memory before it writes a file, in bytes.
    pub memtable_bytes: u64,
    /// About how large the journal may grow, in bytes; at least 64 MiB.
    pub journal_bytes: u64,
}

const MIB: u64 = 1024 * 1024;

impl StoreOptions {
    /// The usual sizes, for a store of `log_id` in `dir`.
    pub fn new(dir: impl Into<PathBuf>, log_id: LogId) -> Self {
        Self { dir: dir.into(), log_id, cache_bytes: 48 * MIB, memtable_bytes: 16 * MIB, journal_bytes: 128 * MIB }
    }
}

/// The open database.
pub(super) struct Inner {
    pub(super) db: Database,
    pub(super) meta: Keyspace,
    pub(super) views_by_minute: Keyspace,
    pub(super) views_rollup: Keyspace,
    pub(super) views_by_bucket: Keyspace,
    pub(super) checkpoints: Keyspace,
    pub(super) videos: Keyspace,
    pub(super) spaces: Keyspace,
    pub(super) imports: Keyspace,
    pub(super) keys: Keyspace,
    pub(super) archive: Keyspace,
    pub(super) adjustments: Keyspace,
    pub(super) dir: PathBuf,
    pub(super) log_id: LogId,
    pub(super) failure: Failure,
    pub(super) expiry: Expiry,
    pub(super) conflicts: AtomicU64,
    pub(super) touched: Mutex<TouchedDays>,
    /// One writer at a time: a row is compared and written under this lock, whoever owns its source.
    writer: Mutex<Writer>,
    /// Goes with the database, and so tells the watch to end.
    _closing: Sender<()>,
    /// Held as long as the database is open; fields drop in order, so it is let go last.
    _lock: File,
}

/// What the one writer knows.
pub(super) struct Writer {
    /// The number of the next batch.
    pub(super) next_batch: u64,
    /// Above these, a row is new.
    pub(super) highest: Highest,
    /// `views_by_bucket` holds all that it should.
    pub(super) by_bucket_is_whole: bool,
}

/// Threads of the database, which write and merge files. The first of them never merges: while all others do and more is asked for,
/// it passes the request round without rest, so there must be more of these than merges at once.
const THREADS: usize = 4;
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(5);
const FORMAT: u8 = 1;
const FORMAT_KEY: &[u8] = b"format";
const LOG_ID_KEY: &[u8] = b"log_id";

impl Inner {
    pub(super) fn open(options: StoreOptions, closing: Sender<()>) -> Result<Self, StoreError> {
        let StoreOptions { dir, log_id, .. } = &options;
        let path = dir.join("db");
        let lock = lock(dir)?;
        if !path.try_exists().map_err(|error| cannot_open(dir, &error))? {
            create(&options, &path)?;
        }
        journal::check(dir, &path)?;
        let expiry = Expiry::default();
        let db = database(&options, &path, &expiry)?;
        let keyspace = |name| keyspace(&options, &db, name).map_err(|error| cannot_open_database(dir, &error));
        let meta = keyspace("meta")?;
        check_owner(&meta, dir, log_id)?;
        let next_batch = next_batch(&meta, dir)?;
        Ok(Self {
            views_by_minute: keyspace("views_by_minute")?,
            views_rollup: keyspace("views_rollup")?,
            views_by_bucket: keyspace("views_by_bucket")?,
            checkpoints: keyspace("checkpoints")?,
            videos: keyspace("videos")?,
            spaces: keyspace("spaces")?,
            imports: keyspace("imports")?,
            keys: keyspace("keys")?,
            archive: keyspace("archive")?,
            adjustments: keyspace("adjustments")?,
            meta,
            dir: dir.clone(),
            log_id: log_id.clone(),
            failure: Failure::new(),
            expiry,
            conflicts: AtomicU64::new(0),
            touched: Mutex::default(),
            writer: Mutex::new(Writer { next_batch, highest: Highest::default(), by_bucket_is_whole: false }),
            _closing: closing,
            db,
            _lock: lock,
        })
    }

    /// The right to write, unless a write has failed.
    pub(super) fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        self.failure.check()?;
        let writer = self.writer.lock().map_err(|_| self.failure.set("a write was broken off by a bug".into()))?;
        // The write before may have failed while this one waited.
        self.failure.check()?;
        Ok(writer)
    }
}

/// Keeps all others out. An owner in this process that is just closing is waited for.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let open = || {
        fs::create_dir_all(dir)?;
        File::options().write(true).create(true).truncate(false).open(dir.join("lock"))
    };
    let file = open().map_err(|error| cannot_open(dir, &format!("{error}; check the directory's owner and permissions")))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => return Err(cannot_open_database(dir, &fjall::Error::Locked)),
            Err(TryLockError::Error(error)) => return Err(cannot_open(dir, &format!("it cannot be locked: {error}"))),
        }
    }
}

/// Makes the database aside and moves it into place whole.
fn create(options: &StoreOptions, path: &Path) -> Result<(), StoreError> {
    let dir = &options.dir;
    let aside = dir.join("db.new");
    let io = |error: std::io::Error| cannot_open(dir, &error);
    if aside.try_exists().map_err(io)? {
        fs::remove_dir_all(&aside).map_err(io)?;
    }
    let db = database(options, &aside, &Expiry::default())?;
    let made = (|| {
        let meta = keyspace(options, &db, "meta")?;
        for name in [
            "views_by_minute",
            "views_rollup",
            "views_by_bucket",
            "checkpoints",
            "videos",
            "spaces",
            "imports",
            "keys",
            "archive",
            "adjustments",
        ] {
            keyspace(options, &db, name)?;
        }
        let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&meta, BATCH_KEY, 0u64.to_be_bytes());
        batch.insert(&meta, NOTED_KEY, 0u64.to_be_bytes());
        batch.insert(&meta, BY_BUCKET_KEY, 0u64.to_be_bytes());
        batch.insert(&meta, FORMAT_KEY, [FORMAT]);
        batch.insert(&meta, LOG_ID_KEY, options.log_id.0.as_bytes());
        batch.commit()
    })();
    drop(db);
    made.map_err(|error| cannot_open_database(dir, &error))?;
    fs::rename(&aside, path).and_then(|()| File::open(dir)?.sync_all()).map_err(io)
}

fn database(options: &StoreOptions, path: &Path, expiry: &Expiry) -> Result<Database, StoreError> {
    let open = || {
        let expiry = expiry.clone();
        Database::builder(path)
            .cache_size(options.cache_bytes)
            .worker_threads(THREADS)
            .max_journaling_size(options.journal_bytes.max(64 * MIB))
            .journal_compression(CompressionType::None)
            .with_compaction_filter_factories(Arc::new(move |table| expiry.filter_of(table)))
            .open()
    };
    // Some damage makes the database panic where an error would do.
    let opened = catch_unwind(AssertUnwindSafe(open)).unwrap_or(Err(fjall::Error::Unrecoverable));
    opened.map_err(|error| cannot_open_database(&options.dir, &error))
}

fn keyspace(options: &StoreOptions, db: &Database, name: &str) -> fjall::Result<Keyspace> {
    let settings = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(options.memtable_bytes)
            // Most cells that an owner loads are not there yet: filters on every level answer that from memory.
            .expect_point_read_hits(false)
            .filter_policy(FilterPolicy::new([
                FilterPolicyEntry::Bloom(BloomConstructionPolicy::FalsePositiveRate(0.000_1)),
                FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0)),
            ]))
    };
    db.keyspace(name, settings)
}

fn check_owner(meta: &Keyspace, dir: &Path, asked: &LogId) -> Result<(), StoreError> {
    let get = |key| meta.get(key).map_err(|error| cannot_open_database(dir, &error));
    match get(FORMAT_KEY)?.as_deref() {
        Some([FORMAT]) => {}
        Some(newer) => {
            let detail = format!("its format is {newer:?} and this program knows {FORMAT}; was it written by a newer tallymark?");
            return Err(cannot_open(dir, &detail));
        }
        None => return Err(StoreError::Corrupt(format!("{} does not say which format it has", dir.display()))),
    }
    let stored = get(LOG_ID_KEY)?;
    let Some(stored) = stored.as_deref().and_then(|id| std::str::from_utf8(id).ok()) else {
        return Err(StoreError::Corrupt(format!("{} does not say which log it counts", dir.display())));
    };
    if stored == &*asked.0 {
        return Ok(());
    }
    Err(StoreError::OtherLog { stored: LogId(stored.into()), asked: asked.clone() })
}

fn next_batch(meta: &Keyspace, dir: &Path) -> Result<u64, StoreError> {
    let last = meta.get(BATCH_KEY).map_err(|error| cannot_open_database(dir, &error))?;
    let last = last.as_deref().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    let last = last.ok_or_else(|| StoreError::Corrupt(format!("{} does not say how many batches it holds", dir.display())))?;
    Ok(u64::from_be_bytes(last).saturating_add(1))
}

pub(super) fn cannot_open(dir: &Path, detail: &dyn std::fmt::Display) -> StoreError {
    StoreError::Open { path: dir.display().to_string(), detail: detail.to_string() }
}

fn cannot_open_database(dir: &Path, error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Locked => {
            cannot_open(dir, &"another tallymark has it open; stop that one, or give this one a data directory of its own")
        }
        fjall::Error::Io(error) => cannot_open(dir, error),
        fjall::Error::Storage(fjall::LsmError::Io(error)) => cannot_open(dir, error),
        error => {
            StoreError::Corrupt(format!("{}: {error}; restore it from a backup, or remove it to count again from the log", dir.display()))
        }
    }
}
