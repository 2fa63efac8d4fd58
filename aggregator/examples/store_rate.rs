//! What the embedded store costs: rows per CPU-second of `write_rows`, beside bare fjall with the same rows already encoded and sorted, in
//! the same batches, as durable; and what it costs to ask for cells that do not exist.
//!
//! ```sh
//! cargo run --release --package tallymark-aggregator --example store_rate [-- ROUNDS]
//! ```
//!
//! A window ends when the database's own threads have come to rest, so that writing and merging files is in it. The two take turns.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aggregator::conformance::row;
use aggregator::embedded::StoreOptions;
use aggregator::{CountStore, EmbeddedStore};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use futures_util::FutureExt;
use schemas::{CellKey, Dimension, Entity, LogId, Minute, Source, StoredRow, Tier};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Rows = Arc<Vec<(CellKey, StoredRow)>>;

const VIDEOS: u64 = 100_000;
const ROWS: u64 = 1_200_000;
const BATCH_ROWS: usize = 20_000;
const FIRST_MINUTE: i32 = 29_400_000;

/// What an owner writes at once: the rollup rows, and then the minute rows.
struct Flush {
    rollups: Rows,
    minutes: Rows,
}

/// Two minute rows and three rollup rows for each of `rows / 5` videos.
fn flush(entities: &[Entity], number: u64, rows: u64) -> Flush {
    let minute = Minute(FIRST_MINUTE + i32::try_from(number * rows / 400_000).unwrap());
    let (mut rollups, mut minutes) = (Vec::new(), Vec::new());
    for n in 0..rows / 5 {
        let entity = &entities[usize::try_from((n * 7_919 + number * 104_729) % VIDEOS).unwrap()];
        let stamp = i64::try_from(1_764_000_000_000_000 + number * 1_000_000 + n).unwrap();
        let cell = |tier: Tier, minute| {
            (CellKey { entity: entity.clone(), bucket: tier.bucket(minute), source: Source(0) }, row(stamp, i64::try_from(n).unwrap()))
        };
        rollups.extend(Tier::ROLLUPS.map(|tier| cell(tier, minute)));
        minutes.extend([cell(Tier::Minute, minute), cell(Tier::Minute, minute.plus(-1))]);
    }
    Flush { rollups: Arc::new(rollups), minutes: Arc::new(minutes) }
}

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

/// fjall's own defaults, with the store's bounds of memory and disk.
fn bare(dir: &Path, flushes: &[Flush]) -> f64 {
    let sizes = options(dir);
    let db = Database::builder(dir).cache_size(sizes.cache_bytes).max_journaling_size(sizes.journal_bytes).open().unwrap();
    let keyspace =
        |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(sizes.memtable_bytes)).unwrap();
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

/// CPU seconds of this process.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(5, |rounds| rounds.parse().unwrap());
    let entities: Vec<_> = (0..VIDEOS).map(|n| Entity::new(Dimension::Video, &format!("video-{n:06}"))).collect();
    println!("rows per CPU-second, median of {rounds}");
    for size in [5_000, 50_000, 400_000] {
        let flushes: Vec<_> = (0..ROWS / size).map(|number| flush(&entities, number, size)).collect();
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
    let flushes: Vec<_> = (0..3).map(|number| flush(&entities, number, 400_000)).collect();
    let dir = tempfile::tempdir().unwrap();
    let times = (0..rounds).map(|n| misses(&dir.path().join(n.to_string()), &flushes)).collect();
    println!("a cell that is not there: {:.2} us", median(times) * 100.0);
}
