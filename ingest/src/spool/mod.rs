//! A bounded place on this machine's disk for events while the log is away: accepted there, durably, and appended to the log when it is back.
//!
//! ```text
//!            the log is there
//! append ──<──────────────────────> EventLog ──> acknowledged
//!            it is away                 ^
//!           ──> disk, synced ──> acknowledged
//!                   └── drain, in order, one batch of a source at a time
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `gate` | whether a source's records go to the log or to disk |
//! | `progress` | how far each source is drained, and which batch may be under way |
//! | `drain` | appending what is on disk |
//!
//! Nothing that was spooled is appended twice: a batch is noted before it is appended, and after a crash or a failure the log itself is
//! asked what of it has arrived. Nothing that was handed to the log is spooled: its fate is not known.
//!
//! What it cannot know is a client that did not hear its acknowledgement and sends again, elsewhere: its events are duplicates if the
//! spool is drained within the log's deduplication window of that.

mod drain;
mod gate;
mod progress;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use schemas::{NewRecord, Offset, Source};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::{EmbeddedLog, EventLog, LogError, LogOptions, ReadLimit};
use gate::{Gate, Outcome, Way};
use progress::Progress;

/// What a record takes beyond its payload, about.
const RECORD_BYTES: u64 = 64;

/// Where a spool lies and how large it may get.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// The directory; made if it is absent. One process has it at a time.
    pub dir: PathBuf,
    /// About how many bytes of records it holds at most.
    pub max_bytes: u64,
}

/// Where records were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The log has them.
    Logged,
    /// The spool has them, for the log.
    Spooled,
}

/// A log, and a disk for the time that it is away.
pub struct Spool {
    log: Arc<dyn EventLog>,
    disk: EmbeddedLog,
    lots: Vec<Lot>,
    progress: Mutex<Progress>,
    held: AtomicU64,
    max_bytes: u64,
    /// What is held, for the metrics.
    gauge: Gauge,
    opened: Instant,
}

/// What belongs to one source.
#[derive(Default)]
struct Lot {
    gate: Mutex<Gate>,
    /// There is something to drain, or a log to be looked for.
    work: Notify,
}

/// The tasks that drain a spool; they end with this.
pub struct Draining {
    _tasks: JoinSet<()>,
}

impl Spool {
    /// Opens the spool of `log`, with what an earlier process left in it.
    ///
    /// # Errors
    /// If the directory cannot be used, is damaged, or holds what was spooled for another log.
    pub fn open(options: &SpoolOptions, log: Arc<dyn EventLog>) -> Result<Self, LogError> {
        let mut disk = LogOptions::new(options.dir.join("records"), log.sources());
        // With as many sources as it was made with: which of them gets an event does not depend on partitions that are added.
        disk.existing = disk.dir.exists();
        let disk = EmbeddedLog::open(&disk)?;
        let progress = Progress::open(&options.dir, &log.id())?;
        let lots = (0..disk.sources().get()).map(|_| Lot::default()).collect();
        let spool = Self {
            log,
            disk,
            lots,
            progress: Mutex::new(progress),
            held: AtomicU64::new(0),
            max_bytes: options.max_bytes,
            gauge: Gauge::default(),
            opened: Instant::now(),
        };
        for source in spool.sources() {
            spool.hold(spool.waiting_bytes(source)?);
        }
        Ok(spool)
    }

    /// About how many bytes wait for the log; clones share the value.
    pub fn held(&self) -> Gauge {
        self.gauge.clone()
    }

    /// Whether more can be taken while the log is away.
    pub fn has_room(&self) -> bool {
        self.held.load(Ordering::Relaxed) < self.max_bytes
    }

    /// Puts records on the log or, while it is away, on disk. The records of one call go the same way.
    ///
    /// # Errors
    /// As [`EventLog::append`]; [`LogError::Unavailable`] also if the spool is full.
    pub async fn append(&self, source: Source, records: Vec<NewRecord>) -> Result<Taken, LogError> {
        let lot = self.lot(source)?;
        let way = lock(&lot.gate).begin(Instant::now());
        match way {
            Way::Log => {
                let mut under_way = UnderWay { lot, outcome: Outcome::Refused };
                let appended = self.log.append(source, records).await;
                under_way.outcome = match &appended {
                    Ok(_) => Outcome::Acknowledged,
                    Err(LogError::Unavailable(_)) => Outcome::Away,
                    Err(_) => Outcome::Refused,
                };
                appended.map(|_| Taken::Logged)
            }
            Way::Disk => {
                // Whoever looks for the log finds it.
                lot.work.notify_one();
                self.spool(source, records).await
            }
        }
    }

    async fn spool(&self, source: Source, records: Vec<NewRecord>) -> Result<Taken, LogError> {
        let bytes: u64 = records.iter().map(size).sum();
        let before = self.hold(bytes);
        if before.saturating_add(bytes) > self.max_bytes {
            self.release(bytes);
            let max = self.max_bytes;
            return Err(LogError::Unavailable(format!("it is away, and the spool is full ({before} of {max} bytes wait for it)")));
        }
        let spooled = self.disk.append(source, records).await;
        if spooled.is_err() {
            self.release(bytes);
        }
        spooled.map(|_| Taken::Spooled)
    }

    /// Drains it from now on, whenever there is something and the log is there.
    pub fn drain(self: &Arc<Self>) -> Draining {
        let mut tasks = JoinSet::new();
        for source in self.sources() {
            tasks.spawn(Arc::clone(self).drain_forever(source));
        }
        Draining { _tasks: tasks }
    }

    /// Why its disk cannot be written any more; none as long as it can.
    pub fn failure(&self) -> Option<String> {
        self.disk.failure()
    }

    /// Ends what is under way on disk. What waits for the log is there at the next start.
    pub fn close(&self) {
        self.disk.close();
    }

    fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        (0..self.disk.sources().get()).map(Source)
    }

    fn lot(&self, source: Source) -> Result<&Lot, LogError> {
        usize::try_from(source.0).ok().and_then(|at| self.lots.get(at)).ok_or(LogError::NoSource(source))
    }

    /// How much waits. A spool may be larger than memory: nothing of it is kept.
    fn waiting_bytes(&self, source: Source) -> Result<u64, LogError> {
        let ends = self.disk.ends(source)?;
        let mut from = Offset(lock(&self.progress).of(source).next).max(ends.start);
        let (mut bytes, limit) = (0_u64, ReadLimit { records: 10_000, bytes: 4 << 20, patience: Duration::ZERO });
        while from < ends.end {
            let next = self.disk.read(source, from, limit, &mut |record| {
                bytes = bytes.saturating_add(size_of_payload(record.payload.len()));
                std::ops::ControlFlow::Continue(())
            })?;
            if next == from {
                break;
            }
            from = next;
        }
        Ok(bytes)
    }

    /// The records that wait, at most so many bytes of them (but one at least), and where they end.
    fn waiting(&self, source: Source, bytes: usize) -> Result<(Vec<NewRecord>, Offset), LogError> {
        let next = Offset(lock(&self.progress).of(source).next).max(self.disk.ends(source)?.start);
        self.on_disk(source, next, Offset(u64::MAX), bytes)
    }

    fn on_disk(&self, source: Source, from: Offset, to: Offset, bytes: usize) -> Result<(Vec<NewRecord>, Offset), LogError> {
        let mut records = Vec::new();
        let to = to.min(self.disk.ends(source)?.end);
        let count = usize::try_from(to.0.saturating_sub(from.0)).unwrap_or(usize::MAX);
        if count == 0 {
            return Ok((records, from));
        }
        let limit = ReadLimit { records: count, bytes, patience: Duration::ZERO };
        let end = self.disk.read(source, from, limit, &mut |record| {
            records.push(NewRecord { kind: record.kind, historical: record.historical, payload: record.payload.to_vec() });
            std::ops::ControlFlow::Continue(())
        })?;
        Ok((records, end))
    }

    /// Counts bytes as held; how many were held before.
    fn hold(&self, bytes: u64) -> u64 {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        self.show();
        before
    }

    fn release(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.show();
    }

    fn show(&self) {
        self.gauge.set(i64::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    }
}

/// An append that went to the log; tells its gate when it has ended, also if nobody waited for that.
struct UnderWay<'a> {
    lot: &'a Lot,
    outcome: Outcome,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.lot.gate).ended(self.outcome, Instant::now());
        if self.outcome == Outcome::Away {
            self.lot.work.notify_one();
        }
    }
}

fn size(record: &NewRecord) -> u64 {
    size_of_payload(record.payload.len())
}

fn size_of_payload(bytes: usize) -> u64 {
    RECORD_BYTES.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
