//! The aggregator, composed of the parts that the program composes (log, workers, store), over one topic, until it has folded,
//! flushed and checkpointed a given number of events. What it counted is compared with what it should have counted.
//!
//! Its CPU time is taken from the moment its sources are given to it, so neither the connections nor the store's opening is in it,
//! until the last checkpoint. All threads are in it: those of the fold, of the client library, of the runtime, of the store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::cassandra::{CassandraOptions, MigratePlan, migrate};
use aggregator::embedded::{StoreOptions, Table};
use aggregator::fold::FoldLimits;
use aggregator::owner::{OwnerOptions, OwnerStatus};
use aggregator::worker::{Observer, SourceState};
use aggregator::{Backends, CassandraStore, CountStore, EmbeddedStore, Workers};
use ingest::EventLog;
use ingest::kafka::{AppendTimes, KafkaLog, KafkaOptions};
use schemas::{Dimension, FoldSettings};
use serde::{Deserialize, Serialize};

use crate::discard::Discard;
use crate::events::Expected;
use crate::topic::Topic;
use crate::usage::{own_cpu_seconds, peak_rss_mib, rest, thread_cpu_seconds};

/// Where rows go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Store {
    Discard,
    /// A directory that is not there yet.
    Embedded(PathBuf),
    /// A contact point, and a keyspace that is not there yet.
    Cassandra(String, String),
}

/// What to fold, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) rejected: String,
    pub(crate) partitions: u32,
    pub(crate) spread: u32,
    pub(crate) expected: Expected,
    pub(crate) store: Store,
    pub(crate) dedup_minutes: i32,
    pub(crate) flush_ms: u64,
    /// Whether the events are not known yet, only how many they will be.
    pub(crate) live: bool,
}

impl Plan {
    /// Without deduplication, flushing each second.
    pub(crate) fn of(topic: &Topic, store: Store) -> Self {
        let Topic { brokers, name, partitions, spread, expected, .. } = topic.clone();
        let rejected = topic.rejected();
        Self { brokers, topic: name, rejected, partitions, spread, expected, store, dedup_minutes: 0, flush_ms: 1_000, live: false }
    }
}

/// What it cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) events: u64,
    pub(crate) rows: u64,
    pub(crate) flushes: u64,
    pub(crate) cpu_s: f64,
    /// Of the busiest of the threads that fold.
    pub(crate) busiest_fold_cpu_s: f64,
    /// Until the last record was folded.
    pub(crate) wall_s: f64,
    pub(crate) peak_rss_mib: f64,
}

impl Outcome {
    pub(crate) fn events_per_cpu_second(&self) -> f64 {
        self.events as f64 / self.cpu_s
    }

    pub(crate) fn rows_per_event(&self) -> f64 {
        self.rows as f64 / self.events as f64
    }
}

/// A source that ticks would append to the topic that others are to read.
const NEVER: Duration = Duration::from_secs(1 << 60);
/// How long storing the rest may take: a store on the same machine, with other work beside it, can be far behind.
const PATIENCE: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(5);

/// Folds it.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let settings =
        FoldSettings { dedup_minutes: plan.dedup_minutes, sources: plan.partitions, spread: plan.spread, ..FoldSettings::default() };
    let log: Arc<dyn EventLog> = Arc::new(KafkaLog::open(kafka(plan, &plan.topic)).unwrap());
    let dead_letters = Arc::new(KafkaLog::open(kafka(plan, &plan.rejected)).unwrap());
    let embedded = match &plan.store {
        Store::Embedded(dir) => Some(EmbeddedStore::open(StoreOptions::new(dir, log.id())).unwrap()),
        _ => None,
    };
    let store: Arc<dyn CountStore> = match &plan.store {
        Store::Discard => Arc::new(Discard(log.id())),
        Store::Embedded(_) => Arc::new(embedded.clone().unwrap()),
        Store::Cassandra(node, keyspace) => Arc::new(runtime.block_on(cassandra(node, keyspace, &log, &settings))),
    };
    let membership = log.join().unwrap();
    let limits = FoldLimits { resident_cells: 1_000_000 / plan.partitions as usize, ..FoldLimits::default() };
    let flush_interval = Duration::from_millis(plan.flush_ms);
    let options = OwnerOptions { flush_interval, tick_after: NEVER, limits, ..OwnerOptions::default() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let backends = Backends { log, dead_letters, store };
    let workers = Workers::start(&backends, membership, &settings, options, threads, runtime.handle()).unwrap();
    let outcome = follow(workers, plan);
    if let Some(store) = embedded {
        let stored = counted(&store);
        assert_eq!(stored.events, plan.expected.events, "what is stored is not what was sent");
        assert!(stored == plan.expected || plan.live, "what is stored is not what was sent");
    }
    outcome
}

/// Waits for the sources, until they have folded all events, and until all is stored.
fn follow(workers: Workers, plan: &Plan) -> Outcome {
    while workers.states().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (began, cpu) = (Instant::now(), own_cpu_seconds());
    let observer = workers.observer();
    while events(&observer) < plan.expected.events {
        std::thread::sleep(LOOK);
    }
    let (wall_s, fold_threads) = (began.elapsed().as_secs_f64(), thread_cpu_seconds("fold-"));
    assert!(workers.drain(PATIENCE), "not everything was stored");
    if matches!(plan.store, Store::Embedded(_)) {
        // What the database's own threads do later is its cost too.
        rest();
    }
    let cpu_s = own_cpu_seconds() - cpu;
    let owned = statuses(&observer).unwrap();
    let sum = |of: fn(&OwnerStatus) -> u64| owned.iter().map(of).sum();
    assert_eq!(sum(|status| status.tally.counted), plan.expected.events, "events counted: {owned:?}");
    Outcome {
        events: plan.expected.events,
        rows: sum(|status| status.rows),
        flushes: sum(|status| status.flushes),
        cpu_s,
        busiest_fold_cpu_s: fold_threads.into_iter().fold(0.0, f64::max),
        wall_s,
        peak_rss_mib: peak_rss_mib("self"),
    }
}

/// How many events all sources have folded.
fn events(observer: &Observer) -> u64 {
    statuses(observer).unwrap_or_default().iter().map(|status| status.tally.events()).sum()
}

/// The states of all sources, once all have begun.
fn statuses(observer: &Observer) -> Option<Vec<OwnerStatus>> {
    let status = |state| match state {
        SourceState::Owned(status) => Some(*status),
        SourceState::Starting => None,
        SourceState::Stopped(error) => panic!("{error}"),
    };
    observer.states().into_values().map(status).collect()
}

/// The sum over all rows of videos.
fn counted(store: &EmbeddedStore) -> Expected {
    let mut sum = Expected::default();
    for entry in store.scan(Table::ByMinute) {
        let (key, stored) = entry.unwrap();
        if key.entity.dimension == Dimension::Video {
            let video = key.entity.id.trim_start_matches('v').parse().unwrap();
            sum.add_row(video, key.bucket.start.0.into(), stored.row.counts.gross.unsigned_abs());
        }
    }
    sum
}

fn kafka(plan: &Plan, topic: &str) -> KafkaOptions {
    let (brokers, topic) = (plan.brokers.clone(), topic.to_owned());
    // A group of its own, so that it does not wait for the members of the run before.
    let group = format!("bench-{}", std::process::id());
    KafkaOptions { brokers, topic, client_id: group.clone(), group, properties: BTreeMap::new(), append_times: AppendTimes::Broker }
}

async fn cassandra(node: &str, keyspace: &str, log: &Arc<dyn EventLog>, settings: &FoldSettings) -> CassandraStore {
    let options = CassandraOptions { nodes: vec![node.to_owned()], keyspace: keyspace.to_owned(), ..CassandraOptions::default() };
    let plan = MigratePlan { replication: 1, log_id: log.id(), settings: settings.clone(), fill_lists: false };
    migrate(&options, &plan).await.unwrap();
    CassandraStore::open(options, log.id(), settings).await.unwrap()
}
