//! The embedded store does what every store must do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use aggregator::conformance::{self, Store};
use aggregator::embedded::{StoreOptions, Table};
use aggregator::{CountStore, EmbeddedStore, StoreError};
use schemas::{Checkpoint, FoldSettings, LogId, Millis, Source};

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
    assert_eq!(store.read_cells(kept.to_vec()).await.unwrap().iter().flatten().count(), 3);
}
