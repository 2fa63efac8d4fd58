//! The log on Kafka is a log: the suite that every implementation passes.
#![cfg(feature = "kafka")]

mod kafka_support;

use std::sync::Arc;

use ingest::{EventLog, conformance};
use kafka_support::{open, topic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_on_kafka_does_what_every_log_must() {
    if test_servers::skipped() {
        return;
    }
    conformance::run(async || open(&topic(3).await).await.map(|log| log as Arc<dyn EventLog>).unwrap_or_else(|error| panic!("{error}")))
        .await;
}
