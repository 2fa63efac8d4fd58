//! What writing to a cluster costs this process: rows and mutations per CPU-second, against one Cassandra on this machine.
//!
//! ```sh
//! cargo run --release --package tallymark-aggregator --example cql_rate [-- ROUNDS]
//! ```

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

mod flushes;

use std::sync::Arc;

use aggregator::CountStore;
use aggregator::cassandra::{CassandraOptions, CassandraStore, MigratePlan, migrate};
use flushes::{Flush, cpu, flushes, median};
use schemas::{FoldSettings, LogId};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

async fn store() -> CassandraStore {
    let options = CassandraOptions { nodes: vec![test_servers::cassandra().contact()], ..CassandraOptions::default() };
    let (log_id, settings) = (LogId("log".into()), FoldSettings::default());
    migrate(&options, &MigratePlan { replication: 1, log_id: log_id.clone(), settings: settings.clone(), fill_lists: false })
        .await
        .unwrap();
    CassandraStore::open(options, log_id, &settings).await.unwrap()
}

async fn write(store: &CassandraStore, flushes: &[Flush]) {
    for flush in flushes {
        store.write_rows(Arc::clone(&flush.rollups)).await.unwrap();
        store.write_rows(Arc::clone(&flush.minutes)).await.unwrap();
    }
}

#[tokio::main]
async fn main() {
    let rounds: u32 = std::env::args().nth(1).map_or(5, |rounds| rounds.parse().unwrap());
    let store = store().await;
    // The server compiles what it runs often.
    write(&store, &flushes(2, 50_000)).await;
    for size in [5_000, 50_000] {
        let flushes = flushes(200_000 / size, size);
        let mut rates = Vec::new();
        for _ in 0..rounds {
            let before = cpu();
            write(&store, &flushes).await;
            rates.push(200_000.0 / (cpu() - before));
        }
        let rate = median(rates);
        // The rows of a video go in two mutations: three rollups, and two minutes.
        println!(
            "flushes of {size:>6}: {rate:>8.0} rows and {:>8.0} mutations per CPU-second; limit {}",
            rate * 2.0 / 5.0,
            store.write_limit()
        );
    }
}
