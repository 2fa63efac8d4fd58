//! Three nodes, three copies of each row: whichever node is lost, writes and reads go on.

#![cfg(feature = "cassandra")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::cassandra::{CassandraOptions, CassandraStore, MigratePlan, migrate};
use aggregator::{CountStore, StoreError, conformance};
use schemas::{CellKey, FoldSettings, LogId, Source, StoredRow};
use test_servers::CassandraCluster;

/// Cells of many partitions, so that every node is asked; each round has a later stamp.
fn rows(round: i64) -> Vec<(CellKey, StoredRow)> {
    let keys = (0..50).map(|n| format!("v{n}")).flat_map(|video| [conformance::minute(&video, 0, 0), conformance::hour(&video, 0, 0)]);
    keys.map(|key| (key, conformance::row(round, round))).collect()
}

/// Writes a round and reads it back.
async fn round(store: &CassandraStore, round: i64) -> Result<(), StoreError> {
    let rows = rows(round);
    store.write_rows(Arc::new(rows.clone())).await?;
    store.write_checkpoint(Source(0), conformance::checkpoint(round, 1)).await?;
    let (keys, expected): (Vec<_>, Vec<_>) = rows.into_iter().map(|(key, row)| (key, Some(row))).unzip();
    assert_eq!(store.read_cells(keys).await?, expected);
    assert_eq!(store.read_checkpoints().await?, [(Source(0), conformance::checkpoint(round, 1))]);
    Ok(())
}

/// As an owner does: repeats the round until it succeeds.
async fn goes_on(store: &CassandraStore, number: i64) {
    let started = Instant::now();
    while let Err(error) = round(store, number).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(60), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_node_is_lost_writes_and_reads_go_on() {
    if test_servers::skipped() {
        return;
    }
    let cluster = Arc::new(blocking(|| CassandraCluster::start(3)).await);
    let plan = MigratePlan { replication: 3, log_id: LogId("log".into()), settings: FoldSettings::default(), fill_lists: false };
    // Migrations at once, each through another node; the cluster has just started.
    let through = |node| CassandraOptions { nodes: vec![node], ..CassandraOptions::default() };
    let each: Vec<_> = cluster.contacts().into_iter().map(through).collect();
    let outcomes = futures_util::future::join_all(each.iter().map(|options| migrate(options, &plan))).await;
    outcomes.into_iter().for_each(|outcome| assert!(!outcome.unwrap().is_empty()));
    // Whoever knows one node knows them all.
    let store = CassandraStore::open(each.into_iter().next().unwrap(), plan.log_id, &plan.settings).await.unwrap();
    round(&store, 1).await.unwrap();

    cluster.kill(0);
    goes_on(&store, 2).await;
    goes_on(&store, 3).await;
    let node = Arc::clone(&cluster);
    blocking(move || {
        node.restart(0);
        node.wait_ready(0);
    })
    .await;
    goes_on(&store, 4).await;

    cluster.pause(1);
    goes_on(&store, 5).await;
    goes_on(&store, 6).await;
    cluster.resume(1);
    goes_on(&store, 7).await;
}
