//! The one thread that writes records: it gives offsets and append times, and commits what waits as one synced batch.
//!
//! While a batch is being synced the next one gathers in the queue, so the cost of a sync is shared by all who wait for it.
//! The order in a batch is the order in the queue, and a request's records stay together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use fjall::{AbstractTree, OwnedWriteBatch, PersistMode};
use schemas::{Millis, Offset};

use super::queue::{Next, Request};
use super::synced_end::SyncedEnd;
use super::{Shared, cause, value};
use crate::log::{Appended, LogError};

/// Requests are gathered up to so many bytes into one commit.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How often an idle committer looks whether the database still lives.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// The database's flushes may lag so far behind the commits.
const MEMTABLE_BYTES_MAX: u64 = 32 << 20;
const SEALED_MEMTABLES_MAX: usize = 2;
const L0_RUNS_MAX: usize = 20;
const ROOM_POLL: Duration = Duration::from_millis(2);

/// The writer's own state. The shared ends follow `ends` after each durable commit.
pub(super) struct Committer {
    shared: Arc<Shared>,
    synced_end: SyncedEnd,
    ends: Vec<Offset>,
    append_time: Millis,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, synced_end: SyncedEnd) -> Self {
        let ends = shared.extents.iter().map(super::Extent::end).collect();
        let append_time = Millis(shared.append_time.load(Ordering::Acquire));
        Self { shared, synced_end, ends, append_time }
    }

    pub(super) fn start(mut self) -> std::io::Result<JoinHandle<()>> {
        Builder::new().name("log-committer".into()).spawn(move || {
            let shared = Arc::clone(&self.shared);
            let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => shared.fail(&cause),
                Err(_) => shared.fail("its committer thread panicked"),
            }
        })
    }

    /// Commits until the log is closed. An error is the end of all writing.
    fn run(&mut self) -> Result<(), String> {
        loop {
            match self.shared.queue.take(BATCH_BYTES_MAX, HEALTH_EVERY) {
                Next::Batch(requests) => self.serve(requests)?,
                Next::Idle => self.check_health()?,
                Next::Closed => break,
            }
        }
        let persisted = self.shared.storage.database.persist(PersistMode::SyncAll);
        persisted.map_err(|error| cause(&error))?;
        self.synced_end.sync().map_err(|error| format!("synced-end: {error}"))
    }

    fn serve(&mut self, requests: Vec<Request>) -> Result<(), String> {
        match self.commit(&requests) {
            Ok(appended) => {
                self.shared.queue.settle(requests.iter().map(|request| request.bytes).sum());
                requests.into_iter().zip(appended).for_each(|(request, appended)| request.answer(Ok(appended)));
                Ok(())
            }
            Err(cause) => {
                // Refuse what comes before answering these, so that nobody sees a later append succeed.
                self.shared.fail(&cause);
                requests.into_iter().for_each(|request| request.answer(Err(LogError::Failed(cause.clone()))));
                Err(cause)
            }
        }
    }

    /// Makes the requests durable and readable, and returns where each went.
    fn commit(&mut self, requests: &[Request]) -> Result<Vec<Appended>, String> {
        self.await_room()?;
        self.append_time = self.append_time.max(Millis::now());
        let storage = &self.shared.storage;
        let records = requests.iter().map(|request| request.records.len()).sum();
        let batch = OwnedWriteBatch::with_capacity(storage.database.clone(), records);
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        let mut appended = Vec::with_capacity(requests.len());
        for request in requests {
            let index = usize::try_from(request.source.0).map_err(|error| error.to_string())?;
            let end = self.ends.get_mut(index).ok_or("a request for no source")?;
            let first = *end;
            for record in &request.records {
                let key = value::key(request.source, *end);
                batch.insert(&storage.records, key, value::encode(key, self.append_time, record));
                *end = end.next();
            }
            appended.push(Appended { first, next: *end, append_time: self.append_time });
        }
        batch.commit().map_err(|error| cause(&error))?;
        self.synced_end.note(&self.ends).map_err(|error| format!("synced-end: {error}"))?;
        self.publish();
        Ok(appended)
    }

    fn publish(&self) {
        self.shared.append_time.store(self.append_time.0, Ordering::Release);
        for (extent, end) in self.shared.extents.iter().zip(&self.ends) {
            extent.end.store(end.0, Ordering::Release);
        }
        self.shared.growth.grow();
    }

    /// Waits until the database has caught up with its flushes.
    ///
    /// The database would itself wait inside a commit, but for ever if its worker has died; here that is noticed. It offers
    /// nothing to await.
    fn await_room(&self) -> Result<(), String> {
        let records = &self.shared.storage.records;
        loop {
            let memtable_is_full = records.tree.active_memtable().size() >= MEMTABLE_BYTES_MAX;
            let flushes_lag = records.sealed_memtable_count() >= SEALED_MEMTABLES_MAX || records.tree.l0_run_count() >= L0_RUNS_MAX;
            if flushes_lag {
                self.check_health()?;
                std::thread::sleep(ROOM_POLL);
            } else if memtable_is_full {
                records.rotate_memtable().map_err(|error| cause(&error))?;
            } else {
                return Ok(());
            }
        }
    }

    /// Whether a background worker of the database has failed meanwhile.
    fn check_health(&self) -> Result<(), String> {
        self.shared.storage.database.persist(PersistMode::Buffer).map_err(|error| cause(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::EventLog;
    use crate::{EmbeddedLog, LogOptions};
    use schemas::{NewRecord, Source};
    use std::num::NonZeroU32;

    #[tokio::test]
    async fn append_times_do_not_go_back_when_the_wall_clock_did() {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions::new(dir.path(), NonZeroU32::new(2).unwrap());
        let log = EmbeddedLog::open(&options).unwrap();
        log.append(Source(0), vec![NewRecord::tick()]).await.unwrap();
        // As if the last append had been made while the clock stood an hour ahead; the trim keeps that time.
        let ahead = Millis::now().plus(3_600_000);
        log.shared.append_time.store(ahead.0, Ordering::Release);
        log.trim(Source(0), Offset(1)).unwrap();
        drop(log);
        let log = EmbeddedLog::open(&options).unwrap();
        for source in [Source(0), Source(1)] {
            assert_eq!(log.append(source, vec![NewRecord::tick()]).await.unwrap().append_time, ahead);
        }
        drop(log);
        // Now a record itself has that time.
        let log = EmbeddedLog::open(&options).unwrap();
        assert_eq!(log.append(Source(1), vec![NewRecord::tick()]).await.unwrap().append_time, ahead);
    }
}
