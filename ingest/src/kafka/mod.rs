//! The log on Kafka: an [`EventLog`] over one topic, a source for each of its partitions.
//!
//! ```text
//! append ──> producing (idempotent, acks=all) ──> topic ──> lanes (one queue a partition) ──> read
//! join   ──> group (shares the sources, fetches nothing) ──> assigned / release / report
//!            watching (each few seconds: is it still the same topic, has it more partitions?) ──> failure, sources
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `options` | [`KafkaOptions`], and the configuration of each client |
//! | `message` | a record as a Kafka message and back |
//! | `producing` | appends and their delivery reports |
//! | `lanes`, `lane` | where readers stand in a partition, and lending records from there |
//! | `header` | a message's headers, read where they lie |
//! | `queue` | a partition's queue and the messages in it, taken many at once |
//! | `group` | [`Membership`] by a consumer group |
//! | `owners` | who holds which partition, read from the group |
//! | [`topics`] | making topics and refusing those with settings that lose or misdate records |
//! | `description` | a topic's id and partitions, asked of the cluster |
//! | `watching` | noticing more partitions and a topic that was made again |
//! | `context` | what librdkafka says, as log lines and failures |
//! | `failure` | why the log cannot go on |
//! | `growth` | waking readers that wait for records |
//!
//! Invariants: positions are the readers', never the group's; a record that the topic did not give to the queue it was asked for
//! fails the log loudly; trouble that passes (a broker is gone) is never a failure.

mod context;
mod description;
mod failure;
mod group;
mod growth;
mod header;
mod lane;
mod lanes;
mod message;
mod options;
mod owners;
mod producing;
mod queue;
pub mod topics;
mod watching;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemas::{LogId, Millis, NewRecord, Offset, Record, Source};

pub use options::{AppendTimes, KafkaOptions};

use crate::log::{Appended, Ends, EventLog, LogError, RUN_RECORDS, ReadLimit};
use crate::membership::Membership;
use failure::Failure;
use lanes::Lanes;
use producing::Appender;
use watching::{Clients, Watch, Watched};

/// How long the cluster may take to answer a question before it counts as not available.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The log on Kafka. Dropping it ends its clients; [`EventLog::close`] first makes what waits durable.
pub struct KafkaLog {
    options: KafkaOptions,
    id: LogId,
    /// The largest record that the topic takes, in bytes.
    record_bytes_max: usize,
    failure: Failure,
    watched: Arc<Watched>,
    lanes: Arc<Lanes>,
    appender: Arc<OnceLock<Appender>>,
    starting: Mutex<()>,
    _watch: Watch,
}

impl KafkaLog {
    /// Connects to the cluster and checks the topic. Blocks for up to some ten seconds.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if no broker answers; [`LogError::Open`] if an option cannot be used, there is no such topic, or
    /// its settings would lose or misdate records: it says which command mends that.
    pub fn open(options: KafkaOptions) -> Result<Self, LogError> {
        options.check()?;
        let failure = Failure::new();
        let (lanes, description) = Lanes::connect(&options, &failure)?;
        let lanes = Arc::new(lanes);
        let cluster = lanes.ask(|client| client.fetch_cluster_id(ANSWER_WITHIN));
        let cluster = cluster.ok_or_else(|| LogError::Unavailable(format!("{} does not tell its cluster id", options.brokers)))?;
        let record_bytes_max = topics::check_settings(&options, description.replication)?;
        let id = LogId(format!("kafka:{cluster}/{}", description.id).into());
        let watched = Arc::new(Watched::new(description));
        let appender = Arc::new(OnceLock::new());
        let clients = Clients { lanes: Arc::clone(&lanes), appender: Arc::clone(&appender) };
        let watch = Watch::start(&options, &watched, clients, &failure)?;
        let starting = Mutex::new(());
        Ok(Self { options, id, record_bytes_max, failure, watched, lanes, appender, starting, _watch: watch })
    }

    /// What appends; made by the first append, so that a process that only reads needs no right to write.
    fn appender(&self) -> Result<&Appender, LogError> {
        if let Some(appender) = self.appender.get() {
            return Ok(appender);
        }
        let _one = lock(&self.starting);
        if self.appender.get().is_none() {
            let appender = Appender::start(&self.options, self.record_bytes_max, &self.failure, &self.watched)?;
            let _ = self.appender.set(appender);
        }
        self.appender.get().ok_or_else(|| LogError::Unavailable("its producer has not started".into()))
    }

    fn read_some(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        most: usize,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.failure.check()?;
        self.partition(source)?;
        self.lanes.read(source, from, limit, most, each)
    }

    fn partition(&self, source: Source) -> Result<i32, LogError> {
        if source.0 >= self.sources().get() {
            return Err(LogError::NoSource(source));
        }
        i32::try_from(source.0).map_err(|_| LogError::NoSource(source))
    }
}

impl EventLog for KafkaLog {
    fn id(&self) -> LogId {
        self.id.clone()
    }

    fn sources(&self) -> NonZeroU32 {
        self.watched.partitions()
    }

    /// The records are taken when this is called, not when the future is first polled; dropping the future does not take them back.
    fn append(&self, source: Source, records: Vec<NewRecord>) -> BoxFuture<'_, Result<Appended, LogError>> {
        let taken = self.failure.check().and_then(|()| self.partition(source));
        let taken =
            taken.and_then(|partition| if records.is_empty() { Ok(None) } else { self.appender()?.append(partition, records).map(Some) });
        Box::pin(async move {
            match taken? {
                Some(answer) => answer.await.unwrap_or_else(|_| Err(LogError::Unavailable("its producer was closed".into()))),
                None => {
                    let lanes = Arc::clone(&self.lanes);
                    let ends = tokio::task::spawn_blocking(move || lanes.ends(source)).await;
                    let end = ends.map_err(|_| LogError::Unavailable("its end could not be asked for".into()))??.end;
                    Ok(Appended { first: end, next: end, append_time: self.watched.append_time() })
                }
            }
        })
    }

    fn read(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.read_some(source, from, limit, 1, &mut |run| run.iter().try_for_each(|record| each(*record)))
    }

    fn read_runs(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.read_some(source, from, limit, RUN_RECORDS, each)
    }

    fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        self.lanes.wait(seen, timeout)
    }

    fn first_at_or_after(&self, source: Source, at: Millis) -> Result<Offset, LogError> {
        self.failure.check()?;
        self.partition(source)?;
        self.lanes.first_at_or_after(source, at)
    }

    fn ends(&self, source: Source) -> Result<Ends, LogError> {
        self.failure.check()?;
        self.partition(source)?;
        self.lanes.ends(source)
    }

    fn join(&self) -> Result<Arc<dyn Membership>, LogError> {
        self.failure.check()?;
        Ok(Arc::new(group::Member::join(&self.options)?))
    }

    fn owners(&self) -> Result<BTreeMap<Source, String>, LogError> {
        self.lanes.ask(|client| owners::ask(client, &self.options))
    }

    fn failure(&self) -> Option<String> {
        self.failure.cause()
    }

    fn on_failure(&self) -> BoxFuture<'static, String> {
        self.failure.on_failure()
    }

    fn close(&self) {
        let _one = lock(&self.starting);
        if let Some(appender) = self.appender.get() {
            appender.close();
        }
    }
}

/// A panic while one of these locks is held leaves its plain data whole, so the poison mark says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
