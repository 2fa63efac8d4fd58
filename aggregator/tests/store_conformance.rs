//! The embedded store does what every store must do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aggregator::conformance::{self, Store};
use aggregator::embedded::{StoreOptions, Table};
use aggregator::{CountStore, EmbeddedStore, StoreError};
use schemas::{CellKey, Checkpoint, Dimension, FoldSettings, LogId, Millis, Minute, Source, StoredRow, Tier};

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(StoreOptions::new(dir, LogId("log".into()))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_every_claim() {
    let dir = tempfile::tempdir().unwrap();
    let opened = std::cell::Cell::new(0);
    conformance::all(async || {
        opened.set(opened.get() + 1);
        let store: Store = Arc::new(open(&dir.path().join(opened.get().to_string())));
        store
    })
    .await;
}

#[tokio::test]
async fn everything_survives_a_reopening_and_being_moved_to_tables() {
    let dir = tempfile::tempdir().unwrap();
    conformance::fill(Arc::new(open(dir.path()))).await;
    conformance::is_filled(Arc::new(open(dir.path()))).await;
    let store = open(dir.path());
    store.compact().unwrap();
    conformance::is_filled(Arc::new(store)).await;
    conformance::is_filled(Arc::new(open(dir.path()))).await;
}

#[tokio::test]
async fn a_call_of_many_batches_keeps_the_highest_stamp_of_each_cell() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // Each cell comes about three times, anywhere among 90,000 rows; a second call is partly older.
    let cells = 30_000_i64;
    for call in 0..2 {
        let rows: Vec<_> = (0..90_000_i64)
            .map(|n| {
                let (cell, stamp) = (n * 7_919 % cells, (n * 104_729 + call * 31_337) % 90_000 + call * 45_000);
                (conformance::minute(&format!("v{}", cell % 997), i32::try_from(cell / 997).unwrap(), 0), conformance::row(stamp, stamp))
            })
            .collect();
        let mut expected: BTreeMap<_, StoredRow> = store.scan(Table::ByMinute).collect::<Result<_, _>>().unwrap();
        for (key, row) in &rows {
            let kept = expected.entry(key.clone()).or_insert(*row);
            if kept.stamp < row.stamp {
                *kept = *row;
            }
        }
        store.write_rows(Arc::new(rows)).await.unwrap();
        assert_eq!(store.scan(Table::ByMinute).collect::<Result<BTreeMap<_, _>, _>>().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_row_just_below_the_last_is_old_after_a_reopening_too() {
    let dir = tempfile::tempdir().unwrap();
    let keys = |source| [conformance::minute("v", 61, source), conformance::hour("v", 61, source), conformance::hour("w", 61, source)];
    for n in 1..9 {
        // Sources and tables have stamps of their own, and more or fewer batches come between.
        for source in 0..2 {
            let stamp = 10 * n + 1_000 * i64::from(source);
            for part in keys(source).chunks(usize::try_from(1 + n % 3).unwrap()) {
                let write = |stamp: i64| Arc::new(part.iter().map(|key| (key.clone(), conformance::row(stamp, stamp))).collect());
                open(dir.path()).write_rows(write(stamp)).await.unwrap();
                let store = open(dir.path());
                store.write_rows(write(stamp - 5)).await.unwrap();
                let read = store.read_cells(part.to_vec()).await.unwrap();
                assert_eq!(read, vec![Some(conformance::row(stamp, stamp)); part.len()], "{n}");
            }
        }
    }
}

/// Opens the database as it lies there, and does something in one batch of this number.
fn in_a_batch(dir: &Path, number: u64, act: impl FnOnce(&mut fjall::OwnedWriteBatch, &dyn Fn(&str) -> fjall::Keyspace)) {
    let db = fjall::Database::builder(dir.join("db")).open().unwrap();
    let keyspace = |name: &str| db.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
    let mut batch = db.batch().durability(Some(fjall::PersistMode::SyncData));
    batch.insert(&keyspace("meta"), "batch", number.to_be_bytes());
    act(&mut batch, &keyspace);
    batch.commit().unwrap();
}

/// Writes a row as version 0.1.0 did: a numbered batch, nothing said of the highest stamp, and nothing by bucket.
fn write_as_before(dir: &Path, number: u64, key: &CellKey, row: StoredRow) {
    let table = if key.bucket.tier == Tier::Minute { "views_by_minute" } else { "views_rollup" };
    in_a_batch(dir, number, |batch, keyspace| batch.insert(&keyspace(table), key.encode(), row.encode()));
}

async fn is_whole_by_bucket(store: &EmbeddedStore) {
    let keys: Vec<_> = store.scan(Table::Rollup).map(|cell| cell.unwrap().0).collect();
    let kept = |key: &&CellKey| matches!(key.bucket.tier, Tier::Hour | Tier::Day) && key.entity.dimension != Dimension::Site;
    assert_eq!(store.scan_by_bucket().count(), keys.iter().filter(kept).count());
    conformance::assert_kept_by_bucket(&(Arc::new(store.clone()) as Store), &keys).await;
}

#[tokio::test]
async fn hours_that_an_older_version_wrote_are_kept_by_bucket_from_the_next_opening_on() {
    let dir = tempfile::tempdir().unwrap();
    let (old, both) = (conformance::hour("old", 0, 7), conformance::hour("both", 0, 0));
    open(dir.path()).write_rows(Arc::new(vec![(both.clone(), conformance::row(10, 1))])).await.unwrap();
    write_as_before(dir.path(), 2, &both, conformance::row(30, 3));
    write_as_before(dir.path(), 3, &old, conformance::row(20, 2));
    for _ in 0..2 {
        let store = open(dir.path());
        assert_eq!(store.scan_by_bucket().count(), 2);
        is_whole_by_bucket(&store).await;
    }
}

#[tokio::test]
async fn a_store_of_before_that_table_is_copied_once_also_if_the_copy_is_broken_off() {
    let dir = tempfile::tempdir().unwrap();
    let tables = ["meta", "views_by_minute", "views_rollup", "checkpoints", "videos", "imports"];
    in_a_batch(dir.path(), 0, |batch, keyspace| {
        tables.into_iter().for_each(|name| drop(keyspace(name)));
        batch.insert(&keyspace("meta"), "format", [1]);
        batch.insert(&keyspace("meta"), "log_id", "log");
    });
    // More than two batches of the copy, and what does not belong there.
    in_a_batch(dir.path(), 1, |batch, keyspace| {
        for n in 0..21_000_i32 {
            for tier in Tier::ROLLUPS {
                let key = CellKey { bucket: tier.bucket(Minute(0)), ..conformance::hour(&format!("v{n}"), 0, 0) };
                batch.insert(&keyspace("views_rollup"), key.encode(), conformance::row(i64::from(n) + 1, 1).encode());
            }
        }
    });
    let store = open(dir.path());
    assert_eq!(store.scan_by_bucket().count(), 42_000);
    is_whole_by_bucket(&store).await;
    drop(store);
    // As a kill in the middle leaves it: some rows, and no note. The copy took three batches, and noting the highest stamps one.
    in_a_batch(dir.path(), 6, |batch, keyspace| {
        batch.remove(&keyspace("meta"), "by_bucket");
        for row in keyspace("views_by_bucket").iter().step_by(3) {
            batch.remove(&keyspace("views_by_bucket"), row.key().unwrap());
        }
    });
    let store = open(dir.path());
    is_whole_by_bucket(&store).await;
    store.write_rows(Arc::new(vec![(conformance::hour("v7", 0, 0), conformance::row(1_000_000, 9))])).await.unwrap();
    drop(store);
    is_whole_by_bucket(&open(dir.path())).await;
}

#[tokio::test]
async fn rows_that_an_older_version_wrote_are_not_replaced_by_older_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (old, both) = (conformance::minute("old", 0, 7), conformance::minute("both", 0, 0));
    open(dir.path()).write_rows(Arc::new(vec![(both.clone(), conformance::row(10, 1))])).await.unwrap();
    // The batches before these are the row and what was noted at its side.
    write_as_before(dir.path(), 2, &both, conformance::row(30, 3));
    write_as_before(dir.path(), 3, &old, conformance::row(20, 2));
    for _ in 0..2 {
        let store = open(dir.path());
        let stale = [(&old, 19), (&both, 11), (&both, 29)].map(|(key, stamp)| (key.clone(), conformance::row(stamp, 9)));
        store.write_rows(Arc::new(stale.to_vec())).await.unwrap();
        let read = store.read_cells(vec![old.clone(), both.clone()]).await.unwrap();
        assert_eq!(read, [Some(conformance::row(20, 2)), Some(conformance::row(30, 3))]);
    }
}

#[tokio::test]
async fn a_store_of_another_log_is_refused_by_both_names() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let error = EmbeddedStore::open(StoreOptions::new(dir.path(), LogId("other".into()))).err().unwrap();
    assert!(matches!(&error, StoreError::OtherLog { stored, asked } if &*stored.0 == "log" && &*asked.0 == "other"), "{error}");
    assert_eq!(open(dir.path()).log_id(), LogId("log".into()));
}

#[tokio::test]
async fn a_scan_finds_all_cells_and_conflicts_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (minute, hour) = (conformance::minute("v", 61, 0), conformance::hour("v", 61, 0));
    let rows = vec![(minute.clone(), conformance::row(1, 1)), (hour.clone(), conformance::row(1, 2))];
    store.write_rows(Arc::new(rows.clone())).await.unwrap();
    store.write_rows(Arc::new(rows)).await.unwrap();
    assert_eq!(store.conflicts(), 0);
    store.write_rows(Arc::new(vec![(minute.clone(), conformance::row(1, 9))])).await.unwrap();
    store.write_checkpoint(Source(0), conformance::checkpoint(1, 1)).await.unwrap();
    store.write_checkpoint(Source(0), conformance::checkpoint(1, 2)).await.unwrap();
    assert_eq!(store.conflicts(), 2);
    assert_eq!(store.scan(Table::ByMinute).collect::<Result<Vec<_>, _>>().unwrap(), [(minute, conformance::row(1, 1))]);
    assert_eq!(store.scan(Table::Rollup).collect::<Result<Vec<_>, _>>().unwrap(), [(hour, conformance::row(1, 2))]);
}

#[test]
fn without_a_runtime_calls_block() {
    let dir = tempfile::tempdir().unwrap();
    let store: Store = Arc::new(open(dir.path()));
    let call = std::pin::pin!(conformance::fill(Arc::clone(&store)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(call.poll(&mut context).is_ready());
}

#[tokio::test]
async fn rows_whose_time_has_passed_go_when_files_are_merged_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let day = 86_400_000;
    let settings = FoldSettings { minute_ttl_ms: 10 * day, hour_ttl_ms: 20 * day, ..FoldSettings::default() };
    let days = |days: i32| days * 1_440;
    // The log clock stands at day 100: minutes are kept from day 90, hours from day 80, and all a day longer on disk.
    let kept = [conformance::minute("v", days(90), 0), conformance::hour("v", days(80), 0), conformance::minute("v", days(89), 0)];
    let gone = [conformance::minute("v", days(88), 0), conformance::hour("v", days(78), 0)];
    let store = open(dir.path());
    store.write_rows(Arc::new(kept.iter().chain(&gone).map(|key| (key.clone(), conformance::row(1, 1))).collect())).await.unwrap();
    store.compact().unwrap();
    assert_eq!(store.read_cells(gone.to_vec()).await.unwrap().iter().flatten().count(), 2, "without a checkpoint nothing goes");

    let checkpoint = Checkpoint { clock: Millis(100 * day), settings, ..conformance::checkpoint(1, 1) };
    store.write_checkpoint(Source(0), checkpoint).await.unwrap();
    drop(store);
    let store = open(dir.path());
    store.compact().unwrap();
    assert_eq!(store.read_cells(gone.to_vec()).await.unwrap(), [None, None]);
    is_whole_by_bucket(&store).await;
    assert_eq!(store.scan_by_bucket().count(), 1, "by bucket, too");
    assert_eq!(store.read_cells(kept.to_vec()).await.unwrap().iter().flatten().count(), 3);
}
