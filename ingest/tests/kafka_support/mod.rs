//! Topics and logs on the Kafka that the tests of a process share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a failed expectation is a panic; each test file uses a part"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ingest::kafka::topics::{TopicSpec, create};
use ingest::kafka::{AppendTimes, KafkaLog, KafkaOptions};
use ingest::{Appended, EventLog, LogError};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use schemas::{NewRecord, RecordKind, Source};

/// A name that no other test uses.
pub(crate) fn fresh(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn options(topic: &str) -> KafkaOptions {
    KafkaOptions {
        brokers: test_servers::kafka().bootstrap(),
        topic: topic.into(),
        group: format!("{topic}-group"),
        client_id: "tester".into(),
        properties: BTreeMap::new(),
        append_times: AppendTimes::Broker,
    }
}

pub(crate) fn with(options: &KafkaOptions, properties: &[(&str, &str)]) -> KafkaOptions {
    let mut options = options.clone();
    options.properties.extend(properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    options
}

pub(crate) fn named(options: &KafkaOptions, client_id: &str) -> KafkaOptions {
    KafkaOptions { client_id: client_id.into(), ..options.clone() }
}

pub(crate) fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec { name: name.into(), partitions, replication: 1, min_insync: 1, retention_ms: -1 }
}

/// A new topic of `partitions` partitions, and how to reach it.
pub(crate) async fn topic(partitions: u32) -> KafkaOptions {
    let options = options(&fresh("views"));
    let (making, spec) = (options.clone(), spec(&options.topic, partitions));
    tokio::task::spawn_blocking(move || create(&making, &[spec]).unwrap()).await.unwrap();
    options
}

pub(crate) async fn open(options: &KafkaOptions) -> Result<Arc<KafkaLog>, LogError> {
    let options = options.clone();
    tokio::task::spawn_blocking(move || KafkaLog::open(options).map(Arc::new)).await.unwrap()
}

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

/// Looks until `met` says yes.
pub(crate) async fn until(what: &str, within: Duration, mut met: impl FnMut() -> bool + Send + 'static) {
    let what = what.to_owned();
    blocking(move || {
        let began = Instant::now();
        while !met() {
            assert!(began.elapsed() < within, "{what}: not within {within:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    })
    .await;
}

/// The same payload for the same number, about 60 bytes.
pub(crate) fn numbered(n: u64) -> NewRecord {
    NewRecord::new(RecordKind::Json, format!("{{\"n\":{n},\"padding\":\"{:040}\"}}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Appends records 0 to `count` in batches.
pub(crate) async fn fill(log: &KafkaLog, source: Source, count: u64) {
    for from in (0..count).step_by(50_000) {
        let batches = (from..count.min(from + 50_000)).step_by(500).map(|first| {
            let records = (first..count.min(first + 500)).map(numbered).collect();
            log.append(source, records)
        });
        let _: Vec<Appended> = join_all(batches).await.into_iter().map(Result::unwrap).collect();
    }
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", test_servers::kafka().bootstrap()).create().unwrap()
}
