//! The archiver on a real log and store: ranges, manifests, compaction, retention, forgetting, and crashes between.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use aggregator::EmbeddedStore;
use aggregator::archive::{
    Archive, ArchiveChange, ArchiveError, ArchiveMetrics, ArchiveOptions, BucketOptions, RangeBounds, Reader, Shelf, Step,
};
use aggregator::embedded::StoreOptions;
use ingest::{EmbeddedLog, EventLog, LogOptions};
use schemas::{Millis, NewRecord, Offset, RecordKind, Source};
use tempfile::TempDir;

const SOURCE: Source = Source(0);

struct Scene {
    dir: TempDir,
    archive: Archive,
    log: Arc<EmbeddedLog>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::MIN)).unwrap());
        let store = Arc::new(EmbeddedStore::open(StoreOptions::new(dir.path().join("store"), log.id())).unwrap());
        let shelf = Shelf::open(dir.path().join("archive").to_str().unwrap(), &BucketOptions::default()).unwrap();
        let options = ArchiveOptions { every_ms: 1, retention_ms: 0, bounds: RangeBounds { rows: 40, ..RangeBounds::default() } };
        let archive = Archive { log: Arc::clone(&log) as _, store, shelf, options, metrics: ArchiveMetrics::default() };
        Self { dir, archive, log }
    }

    /// Appends records of a few events each, of two viewers and two days, and a tick in a later period.
    async fn append(&self, records: u64) {
        let now = Millis::now().0;
        let line = |n: u64, day: i64| {
            let ts = now - day * 86_400_000;
            format!(r#"{{"event_id":"{now}-{n}-{day}","video_id":"v{}","viewer_id":"u{}","ts":{ts},"x":{n}}}"#, n % 3, n % 2)
        };
        let record = |n| NewRecord::new(RecordKind::Ndjson, format!("{}\n{}\nu1 is no event", line(n, 0), line(n, 1)));
        for n in 0..records {
            self.log.append(SOURCE, vec![record(n)]).await.unwrap();
        }
        let last = Millis::now();
        while Millis::now() <= last {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.log.append(SOURCE, vec![NewRecord::tick()]).await.unwrap();
    }

    fn end(&self) -> u64 {
        self.log.ends(SOURCE).unwrap().end.0
    }

    async fn settle(&self, now: Millis) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            match self.archive.step(SOURCE, now).await.unwrap() {
                Step::Nothing => return steps,
                step => steps.push(step),
            }
            assert!(steps.len() < 1_000, "{steps:?}");
        }
    }

    async fn assert_sound(&self) -> u64 {
        let verified = self.archive.verify(SOURCE).await.unwrap();
        assert_eq!(verified.faults, Vec::<String>::new());
        verified.compared
    }

    fn lying(&self) -> usize {
        let mut found = 0;
        let mut dirs = vec![self.dir.path().join("archive")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|name| name == "parquet") {
                    found += 1;
                }
            }
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_the_period_that_is_not_over_is_archived_once_and_compacted() {
    let scene = Scene::new();
    scene.append(60).await;
    let steps = scene.settle(Millis::now()).await;
    assert!(steps.contains(&Step::Archived) && steps.contains(&Step::Compacted), "{steps:?}");
    assert_eq!(scene.assert_sound().await, scene.end() - 1, "the last record may not be the last of its period");
    let manifest = scene.archive.store.read_archive(SOURCE).await.unwrap();
    assert_eq!(manifest.totals().1, 60 * 3);
    assert_eq!(manifest.files.iter().map(|file| file.events).sum::<u64>(), 60 * 2);
    assert!(manifest.files.len() < 30, "{}", manifest.files.len());
    assert!(scene.lying() > manifest.files.len(), "readers that have begun find what was replaced");
    let later = Millis::now().plus(2 * 3_600_000);
    scene.settle(later).await;
    assert_eq!(scene.lying(), scene.archive.store.read_archive(SOURCE).await.unwrap().files.len());
    assert_eq!(scene.settle(later).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_archivers_at_once_archive_each_record_once() {
    let scene = Scene::new();
    scene.append(100).await;
    let run = |archive: Archive| {
        tokio::spawn(async move {
            let mut refused = 0;
            for _ in 0..300 {
                match archive.step(SOURCE, Millis::now()).await {
                    Ok(Step::Nothing) => return refused,
                    Ok(Step::Refused) => refused += 1,
                    // The other has removed what this one was about to read.
                    Ok(_) | Err(ArchiveError::Damaged { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            panic!("it did not end")
        })
    };
    let others: Vec<_> = (0..3).map(|_| run(scene.archive.clone())).collect();
    for other in others {
        other.await.unwrap();
    }
    scene.settle(Millis::now()).await;
    scene.assert_sound().await;
    assert_eq!(scene.archive.store.read_archive(SOURCE).await.unwrap().totals().1, 100 * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_not_committed_are_seen_by_nobody_and_swept_up() {
    let scene = Scene::new();
    scene.append(5).await;
    // Killed between the files and the commit.
    let manifest = scene.archive.store.read_archive(SOURCE).await.unwrap();
    assert_eq!(scene.archive.step(SOURCE, Millis::now()).await.unwrap(), Step::Archived);
    let committed = scene.archive.store.read_archive(SOURCE).await.unwrap();
    let unseen = committed.files[0].path(SOURCE).replace(&committed.files[0].hash, "00000000000000ff");
    scene.archive.shelf.put(&unseen, bytes::Bytes::from_static(b"half")).await.unwrap();
    scene.settle(Millis::now()).await;
    scene.assert_sound().await;
    assert_eq!(scene.archive.sweep(Millis::now()).await.unwrap(), 0, "it may be about to be committed");
    assert_eq!(scene.archive.sweep(Millis::now().plus(25 * 3_600_000)).await.unwrap(), 1);
    scene.assert_sound().await;
    // A commit from a manifest that is not the last one is refused.
    let stale = ArchiveChange { head: aggregator::archive::ArchiveHead { version: 1, ..manifest.head }, added: vec![], removed: vec![] };
    assert!(!scene.archive.store.commit_archive(SOURCE, stale).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_forgotten_leaves_every_file_that_is_there_and_those_to_come() {
    let scene = Scene::new();
    scene.append(30).await;
    scene.settle(Millis::now()).await;
    scene.append(10).await;
    scene.archive.ask_to_forget("u1", Millis::now()).await.unwrap();
    let steps = scene.settle(Millis::now()).await;
    assert_eq!(steps.first(), Some(&Step::Forgot), "{steps:?}");
    scene.settle(Millis::now().plus(2 * 3_600_000)).await;
    let manifest = scene.archive.store.read_archive(SOURCE).await.unwrap();
    for file in &manifest.files {
        let content = scene.archive.shelf.get(&file.path(SOURCE)).await.unwrap();
        assert!(!content.windows(2).any(|two| two == b"u1"), "{file:?}");
    }
    let verified = scene.archive.verify(SOURCE).await.unwrap();
    assert_eq!(verified.faults, Vec::<String>::new());
    assert_eq!(verified.forgotten, 20 * 2 + 40, "of odd records both events, and each line that names it and is none");
    assert_eq!(verified.rows, 40 * 3 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_days_go_and_what_is_gone_is_told() {
    let mut scene = Scene::new();
    scene.append(3).await;
    scene.settle(Millis::now()).await;
    // Nothing is so old.
    scene.archive.options.retention_ms = 86_400_000 * 3;
    assert_eq!(scene.settle(Millis::now()).await, []);
    // By a log clock that is days ahead.
    let mut manifest = scene.archive.store.read_archive(SOURCE).await.unwrap();
    manifest.head.clock = Some(Millis::now().plus(86_400_000 * 9));
    manifest.head.version += 1;
    let ahead = ArchiveChange { head: manifest.head, added: vec![], removed: vec![] };
    assert!(scene.archive.store.commit_archive(SOURCE, ahead).await.unwrap());
    assert!(scene.settle(Millis::now()).await.contains(&Step::Removed));
    let manifest = scene.archive.store.read_archive(SOURCE).await.unwrap();
    assert_eq!((manifest.files.len(), manifest.head.complete_from), (0, manifest.head.end));
    let gone = Reader::new(scene.archive.shelf.clone(), SOURCE, &manifest, Offset(0), manifest.head.end).map(drop);
    assert!(matches!(gone, Err(ArchiveError::Missing { asked: Offset(0), .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_lost_before_it_was_archived_is_a_gap_that_is_told() {
    let scene = Scene::new();
    scene.append(3).await;
    scene.settle(Millis::now()).await;
    let end = scene.archive.store.read_archive(SOURCE).await.unwrap().head.end;
    scene.append(3).await;
    let lost = Offset(end.0 + 2);
    scene.log.trim(SOURCE, lost).unwrap();
    scene.settle(Millis::now()).await;
    let manifest = scene.archive.store.read_archive(SOURCE).await.unwrap();
    assert_eq!(manifest.head.gaps, [(end, lost)]);
    scene.assert_sound().await;
    let read = |from, to| Reader::new(scene.archive.shelf.clone(), SOURCE, &manifest, from, to).map(drop);
    assert!(matches!(read(Offset(0), manifest.head.end), Err(ArchiveError::Missing { gap: Some(_), .. })));
    read(Offset(0), end).unwrap();
    read(lost, manifest.head.end).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_named() {
    let scene = Scene::new();
    scene.append(10).await;
    scene.settle(Millis::now()).await;
    let manifest = scene.archive.store.read_archive(SOURCE).await.unwrap();
    let path = manifest.files[0].path(SOURCE);
    let on_disk = scene.dir.path().join("archive").join(&path);
    let whole = std::fs::read(&on_disk).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    std::fs::write(&on_disk, bytes).unwrap();
    let faults = scene.archive.verify(SOURCE).await.unwrap().faults;
    assert!(faults.len() == 1 && faults[0].contains(&path), "{faults:?}");
    std::fs::remove_file(&on_disk).unwrap();
    let faults = scene.archive.verify(SOURCE).await.unwrap().faults;
    assert!(faults.len() == 1 && faults[0].contains("it is not there"), "{faults:?}");
    std::fs::write(&on_disk, whole).unwrap();
    scene.assert_sound().await;
}
