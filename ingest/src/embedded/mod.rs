//! The log on this machine's disk: an [`EventLog`] in one fjall database.
//!
//! ```text
//! append ──> queue ──> committer thread ──> fjall batch, synced ──> synced-end ──> ends published ──> acknowledged
//!           bounded    one batch at a time                                              │
//! read, first_at_or_after <── records below the published ends <───────────────────────┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `open` | finding or making the log in a directory, and refusing one that is damaged, shorter or in use |
//! | `queue` | the requests that wait |
//! | `committer` | the one thread that writes: offsets, append times, group commit |
//! | `value` | how a record lies in the database |
//! | `synced_end` | the side file that notices a log which came back shorter |
//! | `torn_tail` | cutting off a batch that a power cut left with a hole |
//! | `reading` | lending records, finding an append time |
//! | `retention` | giving up the oldest records |
//!
//! Invariants: a record is read only after it is synced, and acknowledged only after it can be read; append times never go
//! back, along a source or across the log; the first failed write is the last one (a later write could leave a hole).

mod committer;
mod open;
mod queue;
mod reading;
mod retention;
mod synced_end;
mod torn_tail;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{Database, Keyspace};
use futures_util::future::BoxFuture;
use schemas::{LogId, Millis, NewRecord, Offset, Record, Source};
use tokio::sync::watch;

use crate::log::{Appended, Ends, EventLog, LogError, ReadLimit};
use crate::membership::{Assignment, Membership};
use committer::Committer;
use queue::{Queue, Request};

/// The option of the program that sets [`LogOptions::accept_truncation`]; errors name it.
pub const ACCEPT_TRUNCATION_FLAG: &str = "--accept-truncated-log";

/// Where a log lies and how much memory it may take.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The directory; made if it is absent. One directory holds one log.
    pub dir: PathBuf,
    /// How many sources it has. Fixed when the log is made; another number is refused.
    pub sources: NonZeroU32,
    /// How many bytes of appends may wait before the next one is told [`LogError::Busy`].
    pub queue_bytes: usize,
    /// The database's cache for reads, in bytes.
    pub cache_bytes: u64,
    /// How many bytes of records the database gathers in memory before it writes a table. Fixed when the log is made.
    pub memtable_bytes: u64,
    /// Open only a log that is there, with as many sources as it has.
    pub existing: bool,
    /// Open even if records that were acknowledged are missing at the end, and forget that they were.
    pub accept_truncation: bool,
}

impl LogOptions {
    /// A log in `dir` with `sources` sources and default sizes.
    pub fn new(dir: impl Into<PathBuf>, sources: NonZeroU32) -> Self {
        let (queue_bytes, cache_bytes, memtable_bytes) = (64 << 20, 16 << 20, 16 << 20);
        Self { dir: dir.into(), sources, queue_bytes, cache_bytes, memtable_bytes, existing: false, accept_truncation: false }
    }
}

/// The log on this machine. Dropping it commits what waits and closes it.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// What the callers and the committer share.
struct Shared {
    id: LogId,
    extents: Vec<Extent>,
    /// The newest append time given, in ms.
    append_time: AtomicI64,
    queue: Queue,
    growth: Growth,
    failure: watch::Sender<Option<String>>,
    trimming: Mutex<()>,
    storage: Storage,
    /// Held as long as the database is open; fields drop in order, so it is let go last.
    _lock: open::DirLock,
}

/// The database and its keyspaces.
struct Storage {
    database: Database,
    records: Keyspace,
    metadata: Keyspace,
}

/// Where a source's readable records are.
struct Extent {
    start: AtomicU64,
    end: AtomicU64,
}

/// Counts the commits, so that readers can wait for the next.
#[derive(Default)]
struct Growth {
    commits: Mutex<u64>,
    grew: Condvar,
}

impl EmbeddedLog {
    /// Opens the log in `options.dir`, or makes it, and starts its committer.
    ///
    /// # Errors
    /// [`LogError::Open`] if the directory cannot be used, belongs to another process or to a log with another number of
    /// sources; [`LogError::Truncated`] if acknowledged records are missing at the end; [`LogError::Corrupt`] if a source's
    /// last record is damaged.
    pub fn open(options: &LogOptions) -> Result<Self, LogError> {
        let opened = open::open(options)?;
        let shared = Arc::new(Shared {
            id: opened.id,
            append_time: AtomicI64::new(opened.append_time.0),
            queue: Queue::new(options.queue_bytes),
            growth: Growth::starting(opened.extents.iter().any(|extent| extent.end() > Offset(0))),
            extents: opened.extents,
            failure: watch::Sender::new(None),
            trimming: Mutex::new(()),
            storage: opened.storage,
            _lock: opened.lock,
        });
        let committer = Committer::new(Arc::clone(&shared), opened.synced_end);
        let thread = committer.start().map_err(|error| LogError::Open {
            path: options.dir.display().to_string(),
            detail: format!("its committer thread cannot start: {error}"),
        })?;
        Ok(Self { shared, committer: Mutex::new(Some(thread)) })
    }

    /// Why the log can no longer be written, if it cannot.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.borrow().clone()
    }

    /// Resolves with the cause when the log fails; never if it closes well. The program should then exit.
    pub fn on_failure(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failure = self.shared.failure.subscribe();
        async move {
            let cause = failure.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
            match cause {
                Some(cause) => cause,
                None => std::future::pending().await,
            }
        }
    }

    /// Commits and acknowledges what waits, then takes no more. Blocks for as long as that takes. Reading goes on working.
    pub fn close(&self) {
        self.shared.queue.close();
        let thread = lock(&self.committer).take();
        if let Some(thread) = thread {
            // The committer turns its own panics into a failure of the log.
            let _ = thread.join();
        }
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl EventLog for EmbeddedLog {
    fn id(&self) -> LogId {
        self.shared.id.clone()
    }

    fn sources(&self) -> NonZeroU32 {
        let count = u32::try_from(self.shared.extents.len()).unwrap_or(u32::MAX);
        NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
    }

    /// The request is taken when this is called, not when the future is first polled; dropping the future does not take it back.
    fn append(&self, source: Source, records: Vec<NewRecord>) -> BoxFuture<'_, Result<Appended, LogError>> {
        let (request, answer) = Request::new(source, records);
        let taken = self.shared.extent(source).and_then(|_| self.shared.queue.push(request));
        Box::pin(async move {
            taken?;
            answer.await.unwrap_or_else(|_| Err(LogError::Failed("its committer thread died".into())))
        })
    }

    fn read(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.shared.read(source, from, limit, each)
    }

    fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        self.shared.growth.wait(seen, timeout)
    }

    fn first_at_or_after(&self, source: Source, at: Millis) -> Result<Offset, LogError> {
        self.shared.first_at_or_after(source, at)
    }

    fn ends(&self, source: Source) -> Result<Ends, LogError> {
        let extent = self.shared.extent(source)?;
        // The end first: a trim between the two could else show a start beyond the end.
        let end = extent.end();
        Ok(Ends { start: extent.start().min(end), end })
    }

    /// The directory is locked: no other process can fold this log.
    fn join(&self) -> Result<Arc<dyn Membership>, LogError> {
        Ok(Arc::new(SoleMember { sources: (0..self.sources().get()).map(Source).collect() }))
    }

    fn owners(&self) -> Result<BTreeMap<Source, String>, LogError> {
        Ok((0..self.sources().get()).map(|source| (Source(source), format!("process {}", std::process::id()))).collect())
    }

    fn failure(&self) -> Option<String> {
        self.failure()
    }

    fn on_failure(&self) -> BoxFuture<'static, String> {
        Box::pin(self.on_failure())
    }

    fn close(&self) {
        self.close();
    }
}

/// The one process that folds the log has all sources, for ever.
struct SoleMember {
    sources: BTreeSet<Source>,
}

impl Membership for SoleMember {
    fn assigned(&self, seen: u64, timeout: Duration) -> Assignment {
        const GENERATION: u64 = 1;
        if seen == GENERATION {
            std::thread::sleep(timeout);
        }
        Assignment { generation: GENERATION, sources: self.sources.clone() }
    }

    fn release(&self, _: Source) {}

    fn report(&self, _: Source, _: Offset) {}

    fn leave(&self) {}
}

impl Shared {
    fn extent(&self, source: Source) -> Result<&Extent, LogError> {
        let extent = usize::try_from(source.0).ok().and_then(|index| self.extents.get(index));
        extent.ok_or(LogError::NoSource(source))
    }

    /// Ends all writing: what waits and what comes is refused with the cause. The first cause stays.
    fn fail(&self, cause: &str) {
        let first = self.failure.send_if_modified(|failure| failure.is_none() && failure.replace(cause.to_owned()).is_none());
        if first {
            tracing::error!(cause, "the log cannot be written any more");
        }
        self.queue.fail(cause);
    }
}

impl Extent {
    const fn new(start: Offset, end: Offset) -> Self {
        Self { start: AtomicU64::new(start.0), end: AtomicU64::new(end.0) }
    }

    fn start(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }
}

impl Growth {
    fn starting(holds_records: bool) -> Self {
        Self { commits: Mutex::new(u64::from(holds_records)), grew: Condvar::new() }
    }

    fn grow(&self) {
        *lock(&self.commits) += 1;
        self.grew.notify_all();
    }

    fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let commits = lock(&self.commits);
        let same = |commits: &mut u64| *commits == seen;
        let (commits, _) = self.grew.wait_timeout_while(commits, timeout, same).unwrap_or_else(PoisonError::into_inner);
        *commits
    }
}

/// A panic while one of these locks is held leaves its plain data whole, so the poison mark says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went wrong in the database, for people.
fn cause(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => error.to_string(),
        fjall::Error::Poisoned => "the database stopped after an earlier I/O error (is the disk full or failing?)".into(),
        fjall::Error::Storage(error) => format!("{error:?}"),
        other => format!("{other:?}"),
    }
}
