//! What the embedded store costs: rows per CPU-second of `write_rows`, beside bare fjall with the same rows already encoded and sorted, in
//! the same batches, as durable; and what it costs to ask for cells that do not exist.
//!
//! Rows are counted as they are given. Of five given, the store writes two a second time, by bucket, and bare fjall does not: at the same
//! cost for each row written, the store's rate is 5/7 of the bare one.
//!
//! ```sh
//! cargo run --release --package tallymark-aggregator --example store_rate [-- ROUNDS]
//! ```
//!
//! A window ends when the database's own threads have come to rest, so that writing and merging files is in it. The two take turns.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

mod flushes;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aggregator::embedded::StoreOptions;
use aggregator::{CountStore, EmbeddedStore};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use flushes::{FIRST_MINUTE, Flush, Rows, cpu, flushes, median};
use futures_util::FutureExt;
use schemas::{CellKey, LogId, Minute, Source, Tier};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: u64 = 1_200_000;
const BATCH_ROWS: usize = 20_000;

fn options(dir: &Path) -> StoreOptions {
    StoreOptions::new(dir, LogId("log".into()))
}

fn store(dir: &Path, flushes: &[Flush]) -> f64 {
    let store = EmbeddedStore::open(options(dir)).unwrap();
    cpu_of(|| {
        for flush in flushes {
            store.write_rows(Arc::clone(&flush.rollups)).now_or_never().unwrap().unwrap();
            store.write_rows(Arc::clone(&flush.minutes)).now_or_never().unwrap().unwrap();
        }
    })
}

type Encoded = Vec<(Vec<u8>, Vec<u8>)>;

fn encode(rows: &Rows) -> Encoded {
    let exact = |mut bytes: Vec<u8>| {
        bytes.shrink_to_fit();
        bytes
    };
    let mut encoded: Encoded = rows.iter().map(|(key, row)| (exact(key.encode()), exact(row.encode()))).collect();
    encoded.sort_unstable();
    encoded
}

/// fjall's own defaults, with the store's bounds of memory and disk and as many threads: with two, one goes round without work.
fn bare(dir: &Path, flushes: &[Flush]) -> f64 {
    let sizes = options(dir);
    let db =
        Database::builder(dir).worker_threads(4).cache_size(sizes.cache_bytes).max_journaling_size(sizes.journal_bytes).open().unwrap();
    let keyspace = |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(sizes.memtable_bytes)).unwrap();
    let (rollups, minutes) = (keyspace("views_rollup"), keyspace("views_by_minute"));
    let encoded: Vec<_> =
        flushes.iter().flat_map(|flush| [(&rollups, encode(&flush.rollups)), (&minutes, encode(&flush.minutes))]).collect();
    cpu_of(|| {
        for (keyspace, rows) in encoded {
            let mut rows = rows.into_iter().peekable();
            while rows.peek().is_some() {
                let mut batch = db.batch().durability(Some(PersistMode::SyncData));
                rows.by_ref().take(BATCH_ROWS).for_each(|(key, value)| batch.insert(keyspace, key, value));
                batch.commit().unwrap();
            }
        }
    })
}

/// CPU seconds for each call of 10,000 cells that are not there, of a store that holds others of the same videos.
fn misses(dir: &Path, flushes: &[Flush]) -> f64 {
    let store = EmbeddedStore::open(options(dir)).unwrap();
    for flush in flushes {
        store.write_rows(Arc::clone(&flush.rollups)).now_or_never().unwrap().unwrap();
        store.write_rows(Arc::clone(&flush.minutes)).now_or_never().unwrap().unwrap();
    }
    rest();
    let later = |key: &CellKey, n: i32| CellKey { bucket: Tier::Hour.bucket(Minute(FIRST_MINUTE + 60 * (10 + n))), ..key.clone() };
    let calls: Vec<Vec<_>> =
        (0..100).map(|n| flushes[0].rollups.iter().step_by(3).take(10_000).map(|(key, _)| later(key, n)).collect()).collect();
    let count = calls.len();
    cpu_of(|| {
        for keys in calls {
            assert!(store.read_cells(keys).now_or_never().unwrap().unwrap().iter().all(Option::is_none));
        }
    }) / f64::from(u32::try_from(count).unwrap())
}

/// MiB that a call of 1,000,000 rows takes beside them, at the most.
fn memory_of_a_large_call() -> f64 {
    let mut rows = Vec::with_capacity(1_000_000);
    for (source, flush) in (0..).zip(flushes(5, 500_000)) {
        rows.extend(flush.minutes.iter().map(|(key, row)| (CellKey { source: Source(source), ..key.clone() }, *row)));
    }
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(options(dir.path())).unwrap();
    let resident = |name| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
    };
    rest();
    // Lets the peak begin anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = resident("VmRSS:");
    store.write_rows(Arc::new(rows)).now_or_never().unwrap().unwrap();
    resident("VmHWM:") - before
}

/// Waits until no thread has had anything to do for a while.
fn rest() {
    let mut quiet = 0;
    while quiet < 5 {
        let before = cpu();
        std::thread::sleep(Duration::from_millis(100));
        quiet = if cpu() > before { 0 } else { quiet + 1 };
    }
}

fn cpu_of(work: impl FnOnce()) -> f64 {
    let before = cpu();
    work();
    rest();
    cpu() - before
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(5, |rounds| rounds.parse().unwrap());
    println!("memory of a call of 1,000,000 rows, beside them: {:.0} MiB", memory_of_a_large_call());
    println!("rows per CPU-second, median of {rounds}");
    for size in [5_000, 50_000, 400_000] {
        let flushes = flushes(ROWS / size, size);
        let (mut stored, mut bared) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (rates, run) in [(&mut bared, bare as fn(&Path, &[Flush]) -> f64), (&mut stored, store)] {
                let dir = tempfile::tempdir().unwrap();
                rates.push(ROWS as f64 / run(dir.path(), &flushes));
            }
        }
        let (stored, bared) = (median(stored), median(bared));
        println!("flushes of {size:>7}: store {stored:>9.0}   bare fjall {bared:>9.0}   {:.2}", stored / bared);
    }
    let flushes = flushes(3, 400_000);
    let dir = tempfile::tempdir().unwrap();
    let times = (0..rounds).map(|n| misses(&dir.path().join(n.to_string()), &flushes)).collect();
    println!("a cell that is not there: {:.2} us", median(times) * 100.0);
}
