//! The threads between a real log and a real store: what is appended is counted, and what was counted survives.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use aggregator::embedded::StoreOptions;
use aggregator::owner::OwnerOptions;
use aggregator::worker::SourceState;
use aggregator::{Backends, CountStore, EmbeddedStore, Slice, Workers};
use ingest::embedded::LogOptions;
use ingest::{Assignment, EmbeddedLog, EventLog, Membership};
use schemas::{Entity, FoldSettings, Millis, Minute, NewRecord, Offset, RecordKind, Source, Tier};
use tokio::runtime::Handle;

fn open(dir: &Path) -> Backends {
    let log = EmbeddedLog::open(&LogOptions::new(dir.join("views"), NonZeroU32::new(2).unwrap())).unwrap();
    let dead_letters = EmbeddedLog::open(&LogOptions::new(dir.join("rejected"), NonZeroU32::MIN)).unwrap();
    let store = EmbeddedStore::open(StoreOptions::new(dir.join("store"), log.id())).unwrap();
    Backends { log: Arc::new(log), dead_letters: Arc::new(dead_letters), store: Arc::new(store) }
}

fn start(backends: &Backends, settings: &FoldSettings) -> Workers {
    let options = OwnerOptions { flush_interval: Duration::from_millis(20), ..OwnerOptions::default() };
    Workers::start(backends, backends.log.join().unwrap(), settings, options, 2, &Handle::current()).unwrap()
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

/// A member whose sources the test deals out.
#[derive(Default)]
struct Dealt {
    hand: Mutex<Hand>,
    changed: Condvar,
}

#[derive(Default)]
struct Hand {
    assignment: Assignment,
    released: BTreeSet<Source>,
    reported: Vec<(Source, Offset)>,
}

impl Dealt {
    fn deal(&self, sources: &[u32]) {
        let mut hand = self.hand.lock().unwrap();
        hand.assignment.generation += 1;
        hand.assignment.sources = sources.iter().copied().map(Source).collect();
        let now = hand.assignment.sources.clone();
        hand.released.retain(|source| !now.contains(source));
        self.changed.notify_all();
    }

    fn await_release(&self, source: u32) {
        let hand = self.hand.lock().unwrap();
        let kept = |hand: &mut Hand| !hand.released.contains(&Source(source));
        let (_hand, timeout) = self.changed.wait_timeout_while(hand, Duration::from_secs(60), kept).unwrap();
        assert!(!timeout.timed_out(), "source {source} was not released");
    }
}

impl Membership for Dealt {
    fn assigned(&self, seen: u64, timeout: Duration) -> Assignment {
        let hand = self.hand.lock().unwrap();
        let same = |hand: &mut Hand| hand.assignment.generation == seen;
        self.changed.wait_timeout_while(hand, timeout, same).unwrap().0.assignment.clone()
    }

    fn release(&self, source: Source) {
        self.hand.lock().unwrap().released.insert(source);
        self.changed.notify_all();
    }

    fn report(&self, source: Source, next: Offset) {
        self.hand.lock().unwrap().reported.push((source, next));
    }

    fn leave(&self) {}
}

/// Waits until all that is in source 0 now has been read, if not stored; where it ended. A tick may come behind it.
async fn await_read(backends: &Backends, workers: &Workers) -> Offset {
    let end = backends.log.ends(Source(0)).unwrap().end;
    let read = async {
        while !matches!(workers.states().get(&Source(0)), Some(SourceState::Owned(status)) if status.position >= end) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(60), read).await;
    assert!(read.is_ok(), "source 0 is not read to {end}: {:?}", workers.states());
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_go_to_and_fro_between_two_processes_are_counted_once_and_handed_over_stored() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path());
    let settings = FoldSettings::default();
    let members = [Arc::new(Dealt::default()), Arc::new(Dealt::default())];
    let options = OwnerOptions { flush_interval: Duration::from_secs(30), ..OwnerOptions::default() };
    let start =
        |member: &Arc<Dealt>| Workers::start(&backends, Arc::clone(member) as _, &settings, options, 2, &Handle::current()).unwrap();
    let workers = [start(&members[0]), start(&members[1])];
    members[0].deal(&[0, 1]);
    let mut sent = 0;
    for round in 0..8u32 {
        for source in [0, 1] {
            append(&backends, source, sent..sent + 50).await;
        }
        sent += 50;
        // Source 0 goes from one to the other. It is released only when all that was appended before is stored or left in the log.
        let (from, to) = (round as usize % 2, (round as usize + 1) % 2);
        let end = await_read(&backends, &workers[from]).await;
        let keeps: &[u32] = if from == 0 { &[1] } else { &[] };
        members[from].deal(keeps);
        let member = Arc::clone(&members[from]);
        tokio::task::spawn_blocking(move || member.await_release(0)).await.unwrap();
        assert!(!workers[from].states().contains_key(&Source(0)));
        let checkpoints = backends.store.read_checkpoints().await.unwrap();
        let stored = checkpoints.iter().find(|(source, _)| *source == Source(0)).map(|(_, checkpoint)| checkpoint.next_offset);
        assert!(stored >= Some(end), "it was released at {stored:?}, before it was stored up to {end}");
        let gets: &[u32] = if to == 0 { &[0, 1] } else { &[0] };
        members[to].deal(gets);
    }
    let [first, second] = workers;
    let drained = tokio::task::spawn_blocking(move || (first.drain(Duration::from_secs(30)), second.drain(Duration::from_secs(30))));
    assert_eq!(drained.await.unwrap(), (true, true));
    // The next process reads the rest and loses or doubles nothing.
    let last = Arc::new(Dealt::default());
    last.deal(&[0, 1]);
    let options = OwnerOptions { flush_interval: Duration::from_millis(20), ..OwnerOptions::default() };
    let workers = Workers::start(&backends, Arc::clone(&last) as _, &settings, options, 1, &Handle::current()).unwrap();
    await_views(&*backends.store, 2 * i64::from(sent)).await;
    let ends = backends.log.ends(Source(0)).unwrap().end;
    let reported = async {
        while !last.hand.lock().unwrap().reported.iter().any(|(source, next)| *source == Source(0) && *next >= ends) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reported).await.unwrap();
    assert!(tokio::task::spawn_blocking(move || workers.drain(Duration::from_secs(30))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_taken_back_while_it_goes_is_folded_on() {
    let dir = tempfile::tempdir().unwrap();
    let backends = open(dir.path());
    let member = Arc::new(Dealt::default());
    let options = OwnerOptions { flush_interval: Duration::from_millis(20), ..OwnerOptions::default() };
    let workers = Workers::start(&backends, Arc::clone(&member) as _, &FoldSettings::default(), options, 2, &Handle::current()).unwrap();
    for round in 0..50u32 {
        member.deal(&[0, 1]);
        append(&backends, 0, round..round + 1).await;
        member.deal(&[]);
    }
    member.deal(&[0, 1]);
    await_views(&*backends.store, 50).await;
    assert!(tokio::task::spawn_blocking(move || workers.drain(Duration::from_secs(30))).await.unwrap());
}
