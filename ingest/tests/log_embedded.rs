//! What the embedded log does beyond what every log must: retention, backpressure, closing and reopening, refusing a directory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a failed expectation is a panic"
)]

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use futures_util::future::join_all;
use ingest::conformance::read_all;
use ingest::{EmbeddedLog, Ends, EventLog, LogError, LogOptions};
use schemas::{Millis, NewRecord, Offset, RecordKind, Source};

const A: Source = Source(0);
const B: Source = Source(1);

fn options(dir: &Path) -> LogOptions {
    LogOptions::new(dir.join("data/log/views"), NonZeroU32::new(2).unwrap())
}

fn records(first: u64, count: u64) -> Vec<NewRecord> {
    (first..first + count).map(|n| NewRecord::new(RecordKind::Json, format!("record {n}"))).collect()
}

fn refusal(options: &LogOptions) -> String {
    EmbeddedLog::open(options).err().expect("this open must be refused").to_string()
}

#[tokio::test]
async fn trimmed_records_are_gone_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&options(dir.path())).unwrap();
    log.append(A, records(0, 25_000)).await.unwrap();
    log.append(B, records(0, 10)).await.unwrap();
    let before = read_all(&log, A, Offset(21_000)).unwrap();
    assert_eq!(log.trim(A, Offset(21_000)).unwrap(), Offset(21_000));
    assert_eq!(log.trim(A, Offset(20)).unwrap(), Offset(21_000), "a start never goes back");
    let check = |log: &EmbeddedLog| {
        assert_eq!(log.ends(A).unwrap(), Ends { start: Offset(21_000), end: Offset(25_000) });
        assert_eq!(log.ends(B).unwrap(), Ends { start: Offset(0), end: Offset(10) });
        let gone = read_all(log, A, Offset(20_999)).unwrap_err();
        assert!(matches!(gone, LogError::Gone { source_id: A, asked: Offset(20_999), start: Offset(21_000) }), "{gone}");
        assert_eq!(read_all(log, A, Offset(21_000)).unwrap(), before);
        assert_eq!(log.first_at_or_after(A, Millis::NEVER).unwrap(), Offset(21_000));
    };
    check(&log);
    drop(log);
    check(&EmbeddedLog::open(&options(dir.path())).unwrap());
}

#[tokio::test]
async fn a_source_that_was_trimmed_whole_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&options(dir.path())).unwrap();
    let last = log.append(A, records(0, 100)).await.unwrap();
    assert_eq!(log.trim(A, Offset(u64::MAX)).unwrap(), Offset(100));
    drop(log);
    let log = EmbeddedLog::open(&options(dir.path())).unwrap();
    assert_eq!(log.ends(A).unwrap(), Ends { start: Offset(100), end: Offset(100) });
    assert_eq!(log.first_at_or_after(A, Millis(0)).unwrap(), Offset(100));
    let appended = log.append(A, records(100, 1)).await.unwrap();
    assert_eq!(appended.first, Offset(100));
    assert!(appended.append_time >= last.append_time);
    assert!(matches!(log.trim(Source(9), Offset(1)), Err(LogError::NoSource(Source(9)))));
}

#[tokio::test]
async fn reading_while_trimming_says_gone_and_never_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&options(dir.path())).unwrap();
    log.append(A, records(0, 30_000)).await.unwrap();
    std::thread::scope(|scope| {
        let trimmer = scope.spawn(|| {
            for n in 0..=30 {
                log.trim(A, Offset(n * 1_000)).unwrap();
            }
        });
        while !trimmer.is_finished() {
            let from = log.ends(A).unwrap().start;
            match read_all(&log, A, from) {
                Ok(_) | Err(LogError::Gone { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            log.first_at_or_after(A, Millis::now()).unwrap();
        }
    });
}

#[tokio::test]
async fn when_too_much_waits_an_append_is_refused_at_once_and_nothing_of_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&LogOptions { queue_bytes: 300_000, ..options(dir.path()) }).unwrap();
    // More than the queue holds, but nothing else waits.
    log.append(B, vec![NewRecord::new(RecordKind::Ndjson, vec![1; 1_000_000])]).await.unwrap();
    let appends = (0..200u32).map(|n| {
        let answer = log.append(A, vec![NewRecord::new(RecordKind::Json, [n.to_be_bytes().as_slice(), &[0; 9_996]].concat())]);
        async move { (n, answer.await) }
    });
    let answers = join_all(appends).await;
    let taken: Vec<u32> = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(n, _)| *n).collect();
    let busy = answers.iter().filter(|(_, answer)| matches!(answer, Err(LogError::Busy { waiting_bytes }) if *waiting_bytes <= 300_000));
    assert!(taken.len() >= 29, "{} fit in the queue", taken.len());
    assert_eq!(busy.count(), 200 - taken.len());
    assert!(taken.len() < 200, "a queue without a bound");
    let kept = read_all(&log, A, Offset(0)).unwrap();
    let kept: Vec<u32> = kept.iter().map(|kept| u32::from_be_bytes(kept.record.payload[..4].try_into().unwrap())).collect();
    assert_eq!(kept, taken, "in the order of the calls");
}

#[tokio::test]
async fn closing_commits_what_waits_and_reading_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&options(dir.path())).unwrap();
    let waiting: Vec<_> = (0..20).map(|n| log.append(A, records(n, 1))).collect();
    log.close();
    for answer in join_all(waiting).await {
        answer.unwrap();
    }
    assert!(matches!(log.append(A, records(0, 1)).await, Err(LogError::Failed(_))));
    assert_eq!(read_all(&log, A, Offset(0)).unwrap().len(), 20);
    assert_eq!(log.failure(), None, "closing is no failure");
}

#[tokio::test]
async fn a_reopened_log_is_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = records(0, 0);
    let mut seen = None;
    for round in 0..4 {
        let log = EmbeddedLog::open(&options(dir.path())).unwrap();
        let (id, last) = seen.get_or_insert((log.id(), Millis::NEVER));
        assert_eq!(log.id(), *id);
        let kept = read_all(&log, A, Offset(0)).unwrap();
        assert_eq!(kept.into_iter().map(|kept| kept.record).collect::<Vec<_>>(), all);
        let more = records(round * 50, 50);
        let appended = log.append(A, more.clone()).await.unwrap();
        assert_eq!(appended.first, Offset(round * 50));
        assert!(appended.append_time >= *last);
        *last = appended.append_time;
        all.extend(more);
    }
    let other = tempfile::tempdir().unwrap();
    assert_ne!(EmbeddedLog::open(&options(other.path())).unwrap().id(), seen.unwrap().0);
}

#[test]
fn a_directory_that_cannot_hold_the_log_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    fs::create_dir_all(options.dir.parent().unwrap()).unwrap();
    fs::write(&options.dir, "not a directory").unwrap();
    let message = refusal(&options);
    assert!(message.contains("data/log/views") && message.contains("cannot be made"), "{message}");
    fs::remove_file(&options.dir).unwrap();

    let _log = EmbeddedLog::open(&options).unwrap();
    let message = refusal(&options);
    assert!(message.contains("another tallymark is running on this directory"), "{message}");
}

#[test]
fn another_number_of_sources_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(&options(dir.path())).unwrap());
    let message = refusal(&LogOptions { sources: NonZeroU32::new(5).unwrap(), ..options(dir.path()) });
    assert!(message.contains("has 2 sources and 5 were asked for"), "{message}");
}

#[test]
fn a_log_that_was_never_finished_being_made_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    // As a crash in the middle of the first start leaves it.
    fs::create_dir_all(options.dir.join("database/keyspaces")).unwrap();
    fs::write(options.dir.join("database/0.jnl"), [0; 100]).unwrap();
    fs::write(options.dir.join("synced-end"), []).unwrap();
    assert_eq!(EmbeddedLog::open(&options).unwrap().ends(A).unwrap().end, Offset(0));
}

#[tokio::test]
async fn trimmed_records_give_their_disk_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { memtable_bytes: 1 << 20, ..options(dir.path()) };
    let log = EmbeddedLog::open(&options).unwrap();
    let mut state = 1u64;
    // Two MiB that do not compress.
    let mut payloads = || -> Vec<NewRecord> {
        let mut words = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 16).to_le_bytes()
        };
        (0..64).map(|_| NewRecord::new(RecordKind::Ndjson, (0..4096).flat_map(|_| words()).collect::<Vec<u8>>())).collect()
    };
    let mut written_mib = 0;
    // The space comes back while the log goes on, when the database gets to it: a slow machine needs more rounds.
    for on_disk in std::iter::repeat_with(|| bytes_in(&options.dir.join("database/keyspaces"))) {
        if written_mib >= 80 && on_disk < 45 << 20 {
            break;
        }
        assert!(written_mib < 2_000, "10 MiB are kept of {written_mib} MiB, and {on_disk} bytes are on the disk");
        let next = log.append(A, payloads()).await.unwrap().next;
        log.trim(A, Offset(next.0.saturating_sub(320))).unwrap();
        written_mib += 2;
    }
    assert_eq!(read_all(&log, A, log.ends(A).unwrap().start).unwrap().len(), 320);
}

fn bytes_in(dir: &Path) -> u64 {
    let bytes = |path: &Path| fs::metadata(path).map(|found| if found.is_dir() { bytes_in(path) } else { found.len() });
    // Files come and go while the database compacts.
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| bytes(&entry.path()).unwrap_or(0)).sum()
}
