//! What it costs to write rows durably and do nothing else: a bare fjall database, given the rows that folds flush, encoded and
//! sorted before the clock starts, in batches as large and as durable as the store's, with as much memory.
//!
//! Each row is written once. The store writes hour and day rows of videos and spaces a second time, by bucket, for the lists of the most
//! viewed; that is a choice of how to answer them, so its cost shows as the store's, and the bare side is not given those rows.

use std::path::PathBuf;

use aggregator::embedded::StoreOptions;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use schemas::{FoldSettings, LogId, Tier};
use serde::{Deserialize, Serialize};

use crate::encode::Form;
use crate::events::Shape;
use crate::stream::{Folding, Stream};
use crate::usage::{own_cpu_seconds, rest};

/// The events whose rows are written.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// A directory that is not there yet.
    pub(crate) dir: PathBuf,
    /// Of one source.
    pub(crate) shape: Shape,
    /// After so many events the rows are flushed.
    pub(crate) flush_events: u64,
}

/// The store makes so many rows durable at once.
const BATCH_ROWS: usize = 20_000;

type Encoded = Vec<(Vec<u8>, Vec<u8>)>;

/// Writes them: rows per CPU-second.
pub(crate) fn run(plan: &Plan) -> f64 {
    let flushes = flushes(plan);
    let rows: usize = flushes.iter().flatten().map(Vec::len).sum();
    let sizes = StoreOptions::new(&plan.dir, LogId("bench".into()));
    let db = Database::builder(&plan.dir).cache_size(sizes.cache_bytes).max_journaling_size(sizes.journal_bytes).open().unwrap();
    let keyspace = |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(sizes.memtable_bytes)).unwrap();
    let tables = [keyspace("views_rollup"), keyspace("views_by_minute")];
    let cpu = own_cpu_seconds();
    for flush in flushes {
        for (table, rows) in tables.iter().zip(flush) {
            let mut rows = rows.into_iter().peekable();
            while rows.peek().is_some() {
                let mut batch = db.batch().durability(Some(PersistMode::SyncData));
                rows.by_ref().take(BATCH_ROWS).for_each(|(key, value)| batch.insert(table, key, value));
                batch.commit().unwrap();
            }
        }
    }
    // What its own threads do later is its cost too.
    rest();
    rows as f64 / (own_cpu_seconds() - cpu)
}

/// The rows of each flush: rollups, and minutes.
fn flushes(plan: &Plan) -> Vec<[Encoded; 2]> {
    let stream = Stream::new(Form::Json, &plan.shape);
    let mut folding = Folding::new(FoldSettings { dedup_minutes: 0, sources: 1, ..FoldSettings::default() });
    let mut flushes = Vec::new();
    let mut since = 0;
    for record in &stream.records {
        folding.apply(&stream, record);
        since += record.events;
        if since >= plan.flush_events {
            since = 0;
            let flush = folding.flush();
            let encode = |rows: &[(schemas::CellKey, schemas::StoredRow)]| {
                let mut encoded: Encoded = rows.iter().map(|(key, row)| (key.encode(), row.encode())).collect();
                encoded.sort_unstable();
                encoded
            };
            debug_assert!(flush.minutes.iter().all(|(key, _)| key.bucket.tier == Tier::Minute));
            flushes.push([encode(&flush.rollups), encode(&flush.minutes)]);
        }
    }
    flushes
}
