//! Opens what a role stands on: the log, the log of rejected events and the store.
//!
//! ```text
//! neither kafka_brokers nor cassandra_nodes ──> DATA/log/views, DATA/log/rejected, DATA/store      (embedded)
//! both                                      ──> topic TOPIC, topic TOPIC.rejected, keyspace        (kafka, cassandra)
//! ```
//!
//! From here on nobody knows which it is, but for `retention`: the embedded logs trim themselves, Kafka's does so by its topics' settings.

mod embedded;

#[cfg(not(all(feature = "kafka", feature = "cassandra")))]
mod absent;
#[cfg(feature = "cassandra")]
mod cassandra;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(not(feature = "cassandra"))]
use absent::cassandra;
#[cfg(not(feature = "kafka"))]
use absent::kafka;

#[cfg(any(feature = "kafka", feature = "cassandra"))]
use std::path::Path;
use std::sync::Arc;

use aggregator::{CountStore, StoreError};
use ingest::{EventLog, LogError};
use schemas::LogId;
use thiserror::Error;

use crate::config::Settings;
pub(crate) use embedded::EmbeddedLogs;

/// What a role stands on.
pub(crate) struct Backends {
    pub(crate) log: Arc<dyn EventLog>,
    /// For those that fold or answer.
    pub(crate) dead_letters: Option<Arc<dyn EventLog>>,
    /// For those that fold or answer.
    pub(crate) store: Option<Arc<dyn CountStore>>,
    /// The same logs, if they lie on this machine and so are ours to trim.
    pub(crate) to_trim: Option<EmbeddedLogs>,
}

/// What of it a role needs besides the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) dead_letters: bool,
    pub(crate) store: bool,
}

/// Where log and store are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the data directory.
    Embedded,
    /// On Kafka and Cassandra (or ScyllaDB).
    Cluster,
}

/// Why the backends cannot be used.
#[derive(Debug, Error)]
pub(crate) enum BackendError {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[cfg(not(all(feature = "kafka", feature = "cassandra")))]
    #[error("`{key}` is set, but this tallymark was built without {server}: build it with --features {feature}, or leave `{key}` out")]
    NotBuiltIn { key: &'static str, server: &'static str, feature: &'static str },
    #[error(
        "`{given}` is set and `{missing}` is not: log and store are both on this machine, or both elsewhere.\n\
         Set `{missing}` too (--{flag} host:port), or neither to keep everything in one directory.",
        flag = missing.replace('_', "-")
    )]
    Mixed { given: &'static str, missing: &'static str },
    #[cfg(any(feature = "kafka", feature = "cassandra"))]
    #[error(
        "{detail}\nNo {server} answers as a {what} should at {addresses} (`{key}`). Does it run there, and does its port take connections \
         from this machine (address, firewall, TLS)? Give another {what} with --{flag} host:port",
        flag = key.replace('_', "-")
    )]
    Unreachable { server: &'static str, what: &'static str, key: &'static str, addresses: String, detail: String },
    #[cfg(any(feature = "kafka", feature = "cassandra"))]
    #[error("cannot read `{key}` {path}: {detail}")]
    File { key: &'static str, path: String, detail: String },
    #[error(
        "the topic {topic} has {partitions} partitions, but `sources` is {sources}: collectors spread events over so many.\n\
         Set `sources` to what it was when the topic was made (it stays when partitions are added), or add the missing ones with:\n  \
         kafka-topics.sh --bootstrap-server {brokers} --alter --topic {topic} --partitions {sources}"
    )]
    FewPartitions { topic: String, brokers: String, partitions: u32, sources: u32 },
    #[cfg(any(feature = "kafka", feature = "cassandra"))]
    #[error("a thread that opened a backend broke off: {0}")]
    Broken(String),
}

impl BackendError {
    /// Whether the same may work later, without anybody changing a setting.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            #[cfg(any(feature = "kafka", feature = "cassandra"))]
            Self::Unreachable { .. } => true,
            Self::Store(error) => matches!(error, StoreError::Unavailable(_)),
            _ => false,
        }
    }
}

impl Place {
    /// Where the settings say that log and store are.
    ///
    /// # Errors
    /// If only one of them is elsewhere.
    pub(crate) fn of(settings: &Settings) -> Result<Self, BackendError> {
        match (settings.kafka.brokers.is_empty(), settings.cassandra.nodes.is_empty()) {
            (true, true) => Ok(Self::Embedded),
            (false, false) => Ok(Self::Cluster),
            (false, true) => Err(BackendError::Mixed { given: "kafka_brokers", missing: "cassandra_nodes" }),
            (true, false) => Err(BackendError::Mixed { given: "cassandra_nodes", missing: "kafka_brokers" }),
        }
    }
}

/// The two ends of a move, and the log whose counts are moved.
pub(crate) struct Moving {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) from: aggregator::EmbeddedStore,
    pub(crate) to: Arc<dyn CountStore>,
}

/// Opens what lies in the data directory and the cluster beside it; none if the settings name no cluster.
///
/// # Errors
/// If one of them cannot be opened, as when a server still runs on the data directory.
pub(crate) async fn open_both(settings: &Settings) -> Result<Option<Moving>, BackendError> {
    if Place::of(settings)? == Place::Embedded {
        return Ok(None);
    }
    let (logs, from) = embedded::open_existing(settings)?;
    let to = open_cluster(settings, Needs { dead_letters: false, store: true }).await?;
    Ok(to.store.map(|to| Moving { log: logs.events, from, to }))
}

/// Opens the embedded logs and the embedded store.
///
/// # Errors
/// If the data directory cannot be used, or what lies there is damaged.
pub(crate) fn open_embedded(settings: &Settings) -> Result<Backends, BackendError> {
    let (logs, store) = embedded::open(settings)?;
    Ok(Backends {
        log: Arc::clone(&logs.events) as _,
        dead_letters: Some(Arc::clone(&logs.rejected) as _),
        store: Some(Arc::new(store)),
        to_trim: Some(logs),
    })
}

/// Connects to Kafka and, as needed, to Cassandra.
///
/// # Errors
/// If one of them cannot be reached, or is not as `tallymark migrate` leaves it.
pub(crate) async fn open_cluster(settings: &Settings, needs: Needs) -> Result<Backends, BackendError> {
    let log = kafka::open(settings, &settings.kafka.topic).await?;
    let partitions = log.sources().get();
    if partitions < settings.fold.sources {
        let (topic, brokers) = (settings.kafka.topic.clone(), settings.kafka.brokers.clone());
        return Err(BackendError::FewPartitions { topic, brokers, partitions, sources: settings.fold.sources });
    }
    let dead_letters = if needs.dead_letters { Some(kafka::open(settings, &rejected_topic(settings)).await?) } else { None };
    let store = if needs.store { Some(cassandra::open(settings, log.id()).await?) } else { None };
    Ok(Backends { log, dead_letters, store, to_trim: None })
}

/// Connects to the keyspace of a log for its keys alone.
///
/// # Errors
/// If it cannot be reached, or is not as `tallymark migrate` leaves it.
pub(crate) async fn open_keys(settings: &Settings, log_id: LogId) -> Result<Arc<dyn CountStore>, BackendError> {
    cassandra::open(settings, log_id).await
}

/// Makes the topics and then the tables, as far as they are not there, and tells what was done: `tell` gets a line each.
/// `fill_lists`: the counts for lists of the most viewed are copied again.
///
/// # Errors
/// If a server cannot be reached, or holds something else under these names.
pub(crate) async fn migrate(settings: &Settings, fill_lists: bool, tell: impl Fn(String)) -> Result<(), BackendError> {
    kafka::create_topics(settings).await?.into_iter().for_each(&tell);
    let opened = open_cluster(settings, Needs { dead_letters: true, store: false }).await?;
    let log_id = opened.log.id();
    tell(format!("log: {log_id}, {} partitions", opened.log.sources()));
    cassandra::migrate(settings, log_id, fill_lists).await?.into_iter().for_each(tell);
    Ok(())
}

/// The topic of dead letters.
fn rejected_topic(settings: &Settings) -> String {
    format!("{}.rejected", settings.kafka.topic)
}

/// The text of a file that a key names.
#[cfg(any(feature = "kafka", feature = "cassandra"))]
fn read_named(key: &'static str, path: &Path) -> Result<String, BackendError> {
    std::fs::read_to_string(path).map_err(|error| BackendError::File { key, path: path.display().to_string(), detail: error.to_string() })
}

/// Runs what blocks where that is no harm.
#[cfg(feature = "kafka")]
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, BackendError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| BackendError::Broken(error.to_string()))?.map_err(BackendError::from)
}
