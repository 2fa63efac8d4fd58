//! What all faults stand on: the clusters, how processes are told of them, and which form of the suite runs.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use test_servers::{CassandraCluster, KafkaCluster, Proxy};

use crate::report::Report;
use crate::support::{tallymark, text};

/// Partitions at the start.
pub(crate) const SOURCES: u32 = 6;
/// How long the group waits for a member that says nothing.
pub(crate) const SESSION: Duration = Duration::from_secs(6);
/// From the end of the session timeout to fresh answers.
pub(crate) const RECOVERY: Duration = Duration::from_secs(5);

/// Whether this is the long form.
pub(crate) fn long() -> bool {
    std::env::var("CHAOS").is_ok_and(|form| form == "long")
}

/// The first of the two in the short form, the second in the long one.
pub(crate) fn either<T>(short: T, in_long: T) -> T {
    if long() { in_long } else { short }
}

/// The seed of this run: `SEED` or always the same.
pub(crate) fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4)
}

/// The clusters; the first call starts them.
pub(crate) fn clusters() -> (&'static KafkaCluster, &'static CassandraCluster) {
    static CLUSTERS: OnceLock<(KafkaCluster, CassandraCluster)> = OnceLock::new();
    let (kafka, cassandra) = CLUSTERS.get_or_init(|| {
        let begun = Instant::now();
        let clusters = std::thread::scope(|scope| {
            let kafka = scope.spawn(|| KafkaCluster::start_behind_proxies(3));
            let cassandra = CassandraCluster::start_behind_proxies(3);
            (kafka.join().unwrap(), cassandra)
        });
        Report::say(&format!("three brokers and three nodes were up after {:.0} s", begun.elapsed().as_secs_f64()));
        clusters
    });
    (kafka, cassandra)
}

/// What all processes of a scene are told.
pub(crate) fn settings(name: &str) -> Vec<String> {
    let (kafka, cassandra) = clusters();
    let dedup = either(2, 10).to_string();
    let session = format!("session.timeout.ms={},heartbeat.interval.ms=1000", SESSION.as_millis());
    [
        ("--kafka-brokers", kafka.bootstrap().as_str()),
        ("--kafka-topic", name),
        ("--kafka-group", name),
        ("--kafka-properties", &session),
        ("--cassandra-nodes", &cassandra.contacts().join(",")),
        ("--cassandra-keyspace", name),
        ("--sources", &SOURCES.to_string()),
        ("--dedup-minutes", &dedup),
    ]
    .iter()
    .flat_map(|(key, value)| [(*key).to_owned(), (*value).to_owned()])
    .collect()
}

/// `tallymark migrate`: whether it succeeded, and what it said.
pub(crate) fn migrate(name: &str) -> (bool, String) {
    let settings = settings(name);
    let args: Vec<&str> = std::iter::once("migrate").chain(settings.iter().map(String::as_str)).collect();
    let output = tallymark(&args).output().unwrap();
    (output.status.success(), text(&output))
}

/// Makes topic and keyspace.
pub(crate) fn migrated(name: &str) {
    let (mut done, mut said) = migrate(name);
    for _ in 0..5 {
        if !done {
            Report::say(&format!("tallymark migrate failed and is tried again: {said}"));
            (done, said) = migrate(name);
        }
    }
    assert!(done, "tallymark migrate failed:\n{said}");
}

/// All servers up and all connections whole.
pub(crate) fn mend() {
    let (kafka, cassandra) = clusters();
    kafka.proxies().iter().chain(cassandra.proxies()).for_each(Proxy::heal);
    for node in 0..3 {
        kafka.resume(node);
        kafka.restart(node);
        cassandra.resume(node);
        cassandra.restart(node);
    }
    for node in 0..3 {
        kafka.wait_ready(node);
        cassandra.wait_ready(node);
    }
}
