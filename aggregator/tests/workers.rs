//! The threads between a real log and a real store: what is appended is counted, and what was counted survives.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aggregator::embedded::StoreOptions;
use aggregator::owner::OwnerOptions;
use aggregator::worker::SourceState;
use aggregator::{Backends, CountStore, EmbeddedStore, Slice, Workers};
use ingest::embedded::LogOptions;
use ingest::{EmbeddedLog, EventLog};
use schemas::{Entity, FoldSettings, Millis, Minute, NewRecord, RecordKind, Source, Tier};
use tokio::runtime::Handle;

fn open(dir: &Path) -> Backends {
    let log = EmbeddedLog::open(&LogOptions::new(dir.join("views"), NonZeroU32::new(2).unwrap())).unwrap();
    let dead_letters = EmbeddedLog::open(&LogOptions::new(dir.join("rejected"), NonZeroU32::MIN)).unwrap();
    let store = EmbeddedStore::open(StoreOptions::new(dir.join("store"), log.id())).unwrap();
    Backends { log: Arc::new(log), dead_letters: Arc::new(dead_letters), store: Arc::new(store) }
}

fn start(backends: &Backends, settings: &FoldSettings) -> Workers {
    let options = OwnerOptions { flush_interval: Duration::from_millis(20), ..OwnerOptions::default() };
    Workers::start(backends, settings, options, 2, &Handle::current()).unwrap()
}

async fn append(backends: &Backends, source: u32, ids: std::ops::Range<u32>) {
    let ts = Millis::now().to_rfc3339();
    let lines: String = ids.map(|id| format!("{{\"event_id\":\"e{source}-{id}\",\"video_id\":\"v\",\"ts\":\"{ts}\"}}\n")).collect();
    backends.log.append(Source(source), vec![NewRecord::new(RecordKind::Ndjson, lines)]).await.unwrap();
}

async fn views(store: &dyn CountStore) -> i64 {
    let slice = Slice { entity: Entity::site(), tier: Tier::Minute, start: Minute::MIN, end: Minute::MAX };
    store.read_slice(slice).await.unwrap().iter().map(|row| row.stored.row.counts.gross).sum()
}

/// Polls the store until it holds so many views; the test's own timeout is the bound.
async fn await_views(store: &dyn CountStore, expected: i64) {
    let counted = async {
        while views(store).await != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_counted_and_a_restart_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let settings = FoldSettings::default();
    {
        let backends = open(dir.path());
        let workers = start(&backends, &settings);
        for source in [0, 1] {
            append(&backends, source, 0..100).await;
        }
        await_views(&*backends.store, 200).await;
        append(&backends, 0, 50..150).await;
        let drained = tokio::task::spawn_blocking(move || workers.drain(Duration::from_secs(30))).await.unwrap();
        assert!(drained);
    }
    let backends = open(dir.path());
    let workers = start(&backends, &settings);
    append(&backends, 1, 90..110).await;
    await_views(&*backends.store, 260).await;
    assert!(tokio::task::spawn_blocking(move || workers.drain(Duration::from_secs(30))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_rules_changed_stops_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path());
    let workers = start(&backends, &FoldSettings::default());
    append(&backends, 0, 0..1).await;
    await_views(&*backends.store, 1).await;
    assert!(tokio::task::spawn_blocking(move || workers.drain(Duration::from_secs(30))).await.unwrap());

    let workers = start(&backends, &FoldSettings { grace_ms: 1, ..FoldSettings::default() });
    let stopped = async {
        loop {
            if let Some(SourceState::Stopped(error)) = workers.states().remove(&Source(0)) {
                return error.to_string();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(60), stopped).await.unwrap();
    assert!(error.contains("grace"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_events_reach_the_dead_letter_log_before_the_checkpoint_passes_them() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path());
    let workers = start(&backends, &FoldSettings::default());
    backends.log.append(Source(0), vec![NewRecord::new(RecordKind::Json, "{broken")]).await.unwrap();
    append(&backends, 0, 0..1).await;
    await_views(&*backends.store, 1).await;
    let letters = backends.dead_letters.ends(Source(0)).unwrap();
    assert_eq!(letters.end.0, 1);
    assert!(tokio::task::spawn_blocking(move || workers.drain(Duration::from_secs(30))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_is_ticked_at_once_so_that_its_watermark_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path());
    let workers = start(&backends, &FoldSettings::default());
    let both = async {
        while backends.store.read_checkpoints().await.unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Far below the minute after which an idle source is ticked.
    tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
    assert!(tokio::task::spawn_blocking(move || workers.drain(Duration::from_secs(30))).await.unwrap());
}
