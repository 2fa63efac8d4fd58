//! The embedded log under faults: kills, torn and damaged files, a full disk. Nothing that was acknowledged is ever lost or
//! changed in silence.
//!
//! Some faults need a process of their own: this test binary starts itself again with `child` as its only test and a role in
//! the environment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a failed expectation is a panic"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ingest::conformance::read_all;
use ingest::{EmbeddedLog, EventLog, LogError, LogOptions};
use schemas::{NewRecord, Offset, RecordKind, Source};

const SOURCES: u32 = 3;
const ROLE: &str = "TALLYMARK_LOG_CHILD";
const DIR: &str = "TALLYMARK_LOG_DIR";

fn options(dir: &Path) -> LogOptions {
    LogOptions { memtable_bytes: 1 << 20, ..LogOptions::new(dir, NonZeroU32::new(SOURCES).unwrap()) }
}

/// The record that every test puts at a place: what is read back can be judged without having seen it written.
fn record_at(source: Source, offset: u64) -> NewRecord {
    let sizes = [0, 20, 300, 1_500, 40, 30_000, 900, 5];
    let size = sizes[usize::try_from((offset + u64::from(source.0)) % 8).unwrap()];
    let mut state = (offset << 8 | u64::from(source.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut payload = Vec::with_capacity(size + 8);
    while payload.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        payload.extend_from_slice(&state.to_le_bytes());
    }
    NewRecord { kind: RecordKind::Ndjson, historical: offset.is_multiple_of(3), payload }
}

async fn append(log: &EmbeddedLog, source: Source, count: u64) -> Result<Offset, LogError> {
    let first = log.ends(source)?.end.0;
    let appended = log.append(source, (first..first + count).map(|offset| record_at(source, offset)).collect()).await?;
    assert_eq!(appended.first, Offset(first), "each source has one appender here");
    Ok(appended.next)
}

/// A source's records up to where it can be read; panics at one that is not what was appended.
fn judge(log: &EmbeddedLog, source: Source) -> Result<u64, LogError> {
    let kept = read_all(log, source, Offset(0))?;
    for (kept, offset) in kept.iter().zip(0..) {
        assert!(kept.offset == Offset(offset) && kept.record == record_at(source, offset), "source {source}, offset {offset} is wrong");
    }
    Ok(u64::try_from(kept.len()).unwrap())
}

fn ends(log: &EmbeddedLog) -> Vec<u64> {
    (0..SOURCES).map(|source| log.ends(Source(source)).unwrap().end.0).collect()
}

/// A log whose every source holds `each` records, closed, and its journal cut to what is in it.
async fn closed_log(dir: &Path, each: u64) {
    let log = EmbeddedLog::open(&options(dir)).unwrap();
    for source in (0..SOURCES).map(Source) {
        for _ in 0..each {
            append(&log, source, 1).await.unwrap();
        }
    }
    drop(log);
    // A new journal is preallocated; opening it again cuts it to its content.
    drop(EmbeddedLog::open(&options(dir)).unwrap());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn journal(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("database")).unwrap().map(|entry| entry.unwrap().path());
    let mut journals: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).collect();
    assert_eq!(journals.len(), 1, "{journals:?}");
    journals.remove(0)
}

/// Opens a damaged log that had acknowledged `each` records of every source. Says whether the damage was noticed; panics if it
/// was neither noticed nor harmless.
fn judge_damaged(dir: &Path, each: u64, what: &str) -> bool {
    let log = match EmbeddedLog::open(&options(dir)) {
        Ok(log) => log,
        Err(LogError::Truncated(_) | LogError::Corrupt { .. } | LogError::Open { .. }) => return true,
        Err(error) => panic!("{what}: {error}"),
    };
    let noticed = (0..SOURCES).map(Source).filter(|source| match judge(&log, *source) {
        Ok(count) => {
            assert_eq!(count, each, "{what}: source {source} came back with another length");
            false
        }
        Err(LogError::Corrupt { source_id, offset, .. }) => {
            assert!(source_id == *source && offset.0 < each, "{what}");
            true
        }
        Err(error) => panic!("{what}: {error}"),
    });
    noticed.count() > 0
}

struct Appender {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Appender {
    fn start(mut command: Command, role: &str, dir: &Path) -> Self {
        command.env(ROLE, role).env(DIR, dir).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The next acknowledgement that it printed: a source and the offset after what was acknowledged.
    fn acknowledged(&mut self) -> Option<(usize, u64)> {
        loop {
            let line = self.lines.next()?.unwrap();
            let Some((_, place)) = line.split_once("acked ") else { continue };
            let (source, next) = place.split_once(' ')?;
            return Some((source.parse().unwrap(), next.strip_suffix('.')?.parse().unwrap()));
        }
    }
}

fn this_test() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command
}

/// Not a test of its own: what the other processes run.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var(DIR).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let log = std::sync::Arc::new(EmbeddedLog::open(&options(&dir)).unwrap());
    let appenders: Vec<_> = (0..SOURCES).map(Source).map(|source| runtime.spawn(append_until_it_fails(log.clone(), source))).collect();
    let causes: Vec<String> = appenders.into_iter().map(|appender| runtime.block_on(appender).unwrap()).collect();
    assert_eq!(role, "until the disk is full");
    let cause = runtime.block_on(log.on_failure());
    assert_eq!(log.failure(), Some(cause.clone()));
    assert!(causes.iter().all(|given| *given == cause), "{causes:?}");
    assert!(runtime.block_on(append(&log, Source(0), 1)).is_err(), "a failed log takes nothing more");
    (0..SOURCES).for_each(|source| assert_eq!(judge(&log, Source(source)).unwrap(), log.ends(Source(source)).unwrap().end.0));
    println!("failed: {cause}");
}

async fn append_until_it_fails(log: std::sync::Arc<EmbeddedLog>, source: Source) -> String {
    for count in (1..=4).cycle() {
        match append(&log, source, count).await {
            Ok(next) => println!("acked {source} {next}."),
            Err(LogError::Failed(cause)) => return cause,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the cycle has no end")
}

#[test]
fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = vec![0; 3];
    for acknowledgements in [1, 2, 5, 11, 40, 90, 170, 260, 400, 600] {
        let mut appender = Appender::start(this_test(), "until it is killed", dir.path());
        for _ in 0..acknowledgements {
            let (source, next) = appender.acknowledged().expect("the appender goes on");
            acknowledged[source] = next;
        }
        appender.process.kill().unwrap();
        appender.process.wait().unwrap();
        // What it had printed before it died was acknowledged too.
        while let Some((source, next)) = appender.acknowledged() {
            acknowledged[source] = next;
        }
        let log = EmbeddedLog::open(&options(dir.path())).unwrap();
        for source in 0..SOURCES {
            let end = judge(&log, Source(source)).unwrap();
            assert!(end >= acknowledged[source as usize], "source {source}: {end} of {acknowledged:?}");
        }
    }
}

#[test]
fn a_full_disk_fails_appends_by_name_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Made without the limit: a new journal is preallocated.
    drop(EmbeddedLog::open(&options(dir.path())).unwrap());
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\""]).arg(this_test().get_program()).args(this_test().get_args());
    let mut appender = Appender::start(limited, "until the disk is full", dir.path());
    let mut acknowledged = vec![0; 3];
    while let Some((source, next)) = appender.acknowledged() {
        acknowledged[source] = next;
    }
    assert!(appender.process.wait().unwrap().success(), "what the child saw is in its output");
    assert!(acknowledged.iter().all(|next| *next > 10), "{acknowledged:?}");
    let log = EmbeddedLog::open(&options(dir.path())).unwrap();
    for source in 0..SOURCES {
        assert!(judge(&log, Source(source)).unwrap() >= acknowledged[source as usize]);
    }
}

#[tokio::test]
async fn a_half_written_tail_is_cut_off_and_nothing_acknowledged_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, longer, torn) = (dir.path().join("whole"), dir.path().join("longer"), dir.path().join("torn"));
    closed_log(&whole, 20).await;
    let journal_bytes = fs::read(journal(&whole)).unwrap();
    copy(&whole, &longer);
    let log = EmbeddedLog::open(&options(&longer)).unwrap();
    append(&log, Source(1), 6).await.unwrap();
    drop(log);
    let longer_bytes = fs::read(journal(&longer)).unwrap();
    let tail = longer_bytes.strip_prefix(journal_bytes.as_slice()).expect("a journal only grows");
    let step = tail.len() / 40;
    let mut tails: Vec<Vec<u8>> = (1..tail.len()).step_by(step).map(|cut| tail[..cut].to_vec()).collect();
    // The same as the disk may leave it when the file's length came first; and a start that turned to rubbish.
    tails.extend((1..tail.len() - 1).step_by(step * 4).map(|cut| [&tail[..cut], &vec![0; tail.len() - cut]].concat()));
    // A page that never reached the disk while those around it did.
    tails.extend((1..tail.len() - 4_110).step_by(701).map(|hole| [&tail[..hole], &[0; 4_096], &tail[hole + 4_096..]].concat()));
    tails.extend([vec![0; 10_000], vec![0xff; 500], b"half a sentence".to_vec()]);
    for (n, tail) in tails.iter().enumerate() {
        let _ = fs::remove_dir_all(&torn);
        copy(&whole, &torn);
        fs::write(journal(&torn), [journal_bytes.as_slice(), tail].concat()).unwrap();
        let log = EmbeddedLog::open(&options(&torn)).unwrap_or_else(|error| panic!("tail {n}: {error}"));
        assert_eq!(ends(&log), [20, 20, 20], "tail {n}");
        append(&log, Source(1), 3).await.unwrap();
        drop(log);
        let log = EmbeddedLog::open(&options(&torn)).unwrap();
        assert_eq!(judge(&log, Source(1)).unwrap(), 23, "tail {n}");
    }
}

#[tokio::test]
async fn a_flipped_byte_in_the_journal_is_noticed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
    closed_log(&whole, 8).await;
    let bytes = fs::read(journal(&whole)).unwrap();
    let (mut noticed, mut flips) = (0, 0);
    // All of the small records at the end of the last source's cycle, and a sample of the rest.
    for at in (0..bytes.len()).step_by(bytes.len() / 90).chain((bytes.len() - 260..bytes.len()).step_by(3)) {
        let _ = fs::remove_dir_all(&damaged);
        copy(&whole, &damaged);
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x40;
        fs::write(journal(&damaged), bytes).unwrap();
        noticed += usize::from(judge_damaged(&damaged, 8, &format!("byte {at}")));
        flips += 1;
    }
    assert!(noticed * 10 >= flips * 8, "only {noticed} of {flips}");
}

#[tokio::test]
async fn a_flipped_byte_in_a_flushed_table_or_blob_is_noticed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
    let log = EmbeddedLog::open(&options(&whole)).unwrap();
    for source in (0..SOURCES).map(Source) {
        append(&log, source, 110).await.unwrap();
    }
    let files = flushed_files(&whole);
    drop(log);
    drop(EmbeddedLog::open(&options(&whole)).unwrap());
    assert!(!judge_damaged(&whole, 110, "no damage"));
    let mut noticed = 0;
    for file in &files {
        let len = fs::metadata(whole.join(file)).unwrap().len();
        for at in (0..12).map(|n| len * n / 12 + n).filter(|at| *at < len) {
            let _ = fs::remove_dir_all(&damaged);
            copy(&whole, &damaged);
            let mut bytes = fs::read(damaged.join(file)).unwrap();
            bytes[usize::try_from(at).unwrap()] ^= 0x04;
            fs::write(damaged.join(file), bytes).unwrap();
            noticed += usize::from(judge_damaged(&damaged, 110, &format!("byte {at} of {}", file.display())));
        }
    }
    assert!(noticed >= files.len() * 6, "only {noticed} in {files:?}");
}

/// The records' tables and blobs, once the database has written some.
fn flushed_files(dir: &Path) -> Vec<PathBuf> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found: Vec<PathBuf> = ["tables", "blobs"]
            .iter()
            .filter_map(|kind| fs::read_dir(dir.join("database/keyspaces/1").join(kind)).ok())
            .flatten()
            .map(|entry| entry.unwrap().path().strip_prefix(dir).unwrap().to_owned())
            .collect();
        if found.len() >= 2 {
            return found;
        }
        assert!(Instant::now() < deadline, "the database has flushed nothing: {found:?}");
        // The database tells nobody when it has flushed.
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_log_that_came_back_shorter_is_refused_until_the_loss_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (old, log_dir) = (dir.path().join("old"), dir.path().join("log"));
    closed_log(&log_dir, 4).await;
    copy(&log_dir, &old);
    let log = EmbeddedLog::open(&options(&log_dir)).unwrap();
    append(&log, Source(2), 3).await.unwrap();
    drop(log);
    // An older copy of the database under the newer note of what was acknowledged.
    fs::remove_dir_all(log_dir.join("database")).unwrap();
    copy(&old.join("database"), &log_dir.join("database"));
    let Err(LogError::Truncated(message)) = EmbeddedLog::open(&options(&log_dir)) else { panic!("not refused") };
    for part in ["source 2", "offset 4", "below 7", "--accept-truncated-log", log_dir.to_str().unwrap()] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    let accepting = LogOptions { accept_truncation: true, ..options(&log_dir) };
    assert_eq!(ends(&EmbeddedLog::open(&accepting).unwrap()), [4, 4, 4]);
    assert_eq!(ends(&EmbeddedLog::open(&options(&log_dir)).unwrap()), [4, 4, 4], "accepted once is accepted");

    fs::remove_dir_all(log_dir.join("database")).unwrap();
    assert!(matches!(EmbeddedLog::open(&options(&log_dir)), Err(LogError::Truncated(_))), "a database that is gone");
    fs::write(log_dir.join("synced-end"), [7; 100]).unwrap();
    assert!(matches!(EmbeddedLog::open(&options(&log_dir)), Err(LogError::Open { .. })), "a note that cannot be read");
}
