//! The embedded store under faults: kills, torn and damaged files, a full disk, a directory in use. What was acknowledged is
//! there, or an error says what is not; a damaged file never changes a number in silence.
//!
//! Some faults need a process of their own: this test binary starts itself again with `child` as its only test and a role in
//! the environment.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use aggregator::conformance::{checkpoint, hour, minute, row};
use aggregator::embedded::{StoreOptions, Table};
use aggregator::{CountStore, EmbeddedStore, Slice, StoreError, VideoInfo};
use schemas::{CellKey, LogId, Minute, Source, StoredRow, Tier};

const ROLE: &str = "TALLYMARK_STORE_CHILD";
const DIR: &str = "TALLYMARK_STORE_DIR";
const CELLS: i32 = 60;

fn open(dir: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(StoreOptions { memtable_bytes: 1 << 20, ..StoreOptions::new(dir, LogId("log".into())) })
}

fn key(cell: i32) -> CellKey {
    if cell % 3 == 0 { hour("v", cell * 60, 0) } else { minute(&format!("v{}", cell % 5), cell, 0) }
}

/// What every test writes: rows of a round can be judged without having seen them written.
fn round(round: i64) -> Vec<(CellKey, StoredRow)> {
    (0..CELLS).map(|cell| (key(cell), row(round, round * 1_000 + i64::from(cell)))).collect()
}

async fn write_round(store: &EmbeddedStore, number: i64) -> Result<(), StoreError> {
    store.write_rows(Arc::new(round(number))).await?;
    store.write_checkpoint(Source(0), checkpoint(number, number.unsigned_abs())).await
}

/// The round of the checkpoint, or `None` before the first; panics if a cell is older than it, or is no round's.
async fn judge(store: &EmbeddedStore) -> Result<Option<i64>, StoreError> {
    let checkpoints = store.read_checkpoints().await?;
    let covered = checkpoints.first().map(|(_, checkpoint)| checkpoint.stamp.0);
    assert_eq!(checkpoints, Vec::from_iter(covered.map(|round| (Source(0), checkpoint(round, round.unsigned_abs())))));
    let rows = store.read_cells((0..CELLS).map(key).collect()).await?;
    for (row, cell) in rows.iter().zip(0..) {
        let stamp = row.map_or(i64::MIN, |row| row.stamp.0);
        assert!(stamp >= covered.unwrap_or(i64::MIN), "{}: the checkpoint of round {covered:?} leads a cell of {stamp}", key(cell));
        assert!(row.is_none_or(|row| round(stamp).contains(&(key(cell), row))), "{}: {row:?} is no round's", key(cell));
    }
    let scanned = store.scan(Table::Rollup).chain(store.scan(Table::ByMinute)).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(scanned.len(), rows.iter().flatten().count(), "a scan finds what reads find");
    let by_bucket = store.scan_by_bucket().collect::<Result<BTreeMap<_, _>, _>>()?;
    assert_eq!(by_bucket, scanned.iter().filter(|(key, _)| key.bucket.tier == Tier::Hour).cloned().collect(), "hours by bucket");
    let slice = Slice { entity: key(0).entity, tier: Tier::Hour, start: Minute(0), end: Minute(CELLS * 60) };
    assert_eq!(store.read_slice(slice).await?.len(), scanned.iter().filter(|(key, _)| key.bucket.tier == Tier::Hour).count());
    Ok(covered)
}

/// A closed store of three rounds; opening it once more has cut its journal to what is in it.
async fn closed_store(dir: &Path, in_tables: bool) {
    let store = open(dir).unwrap();
    store.write_video("v".into(), VideoInfo::default()).await.unwrap();
    for number in 1..=3 {
        write_round(&store, number).await.unwrap();
    }
    drop(store);
    let store = open(dir).unwrap();
    if in_tables {
        store.compact().unwrap();
    }
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
    let files = fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let journals: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).collect();
    assert_eq!(journals.len(), 1, "{journals:?}");
    journals[0].clone()
}

/// Opens a damaged store of three rounds. Whether the damage was noticed; panics if it was neither noticed nor harmless.
async fn is_noticed(dir: &Path, what: &str) -> bool {
    let read = match open(dir) {
        Ok(store) => judge(&store).await,
        Err(error) => Err(error),
    };
    match read {
        Ok(covered) => {
            assert_eq!(covered, Some(3), "{what}");
            false
        }
        Err(StoreError::Corrupt(_) | StoreError::Open { .. }) => true,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// The rounds that a child says were acknowledged, as it says so.
struct Writer {
    process: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Writer {
    fn start(mut command: Command, role: &str, dir: &Path) -> Self {
        let mut process = command.env(ROLE, role).env(DIR, dir).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn acknowledged(&mut self) -> Option<i64> {
        loop {
            let line = self.lines.next()?.unwrap();
            // A line that a kill has cut has no full stop.
            if let Some(round) = line.split_once("acked ").and_then(|(_, round)| round.strip_suffix('.')) {
                return Some(round.parse().unwrap());
            }
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let store = open(&dir).unwrap();
    let cause = runtime.block_on(async {
        let mut number = judge(&store).await.unwrap().unwrap_or(0);
        loop {
            number += 1;
            match write_round(&store, number).await {
                Ok(()) => println!("acked {number}."),
                Err(StoreError::Failed(cause)) => return cause,
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(role, "until the disk is full");
    assert_eq!(runtime.block_on(store.on_failure()), cause);
    assert_eq!(store.failure(), Some(cause.clone()));
    let again = runtime.block_on(store.write_video("v".into(), VideoInfo::default()));
    assert!(matches!(again, Err(StoreError::Failed(again)) if again == cause), "a failed store takes nothing more");
    runtime.block_on(judge(&store)).expect("what is there can be read");
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for rounds in [1, 2, 5, 11, 40, 90, 170, 300] {
        let mut writer = Writer::start(this_test(), "until it is killed", dir.path());
        for _ in 0..rounds {
            acknowledged = Some(writer.acknowledged().expect("the writer goes on"));
        }
        writer.process.kill().unwrap();
        writer.process.wait().unwrap();
        // What it had printed before it died was acknowledged too.
        while let Some(round) = writer.acknowledged() {
            acknowledged = Some(round);
        }
        let store = open(dir.path()).unwrap();
        let found = judge(&store).await.unwrap();
        assert!(found >= acknowledged, "{acknowledged:?}");
        // A zombie's rows come late.
        store.write_rows(Arc::new(round(acknowledged.unwrap() - 1))).await.unwrap();
        assert_eq!(judge(&store).await.unwrap(), found);
    }
}

#[tokio::test]
async fn a_full_disk_fails_writes_by_name_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Made and opened again without the limit: a new journal is preallocated, and then cut.
    closed_store(dir.path(), false).await;
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""]).arg(this_test().get_program()).args(this_test().get_args());
    let mut writer = Writer::start(limited, "until the disk is full", dir.path());
    let mut acknowledged = None;
    while let Some(round) = writer.acknowledged() {
        acknowledged = Some(round);
    }
    assert!(writer.process.wait().unwrap().success(), "what the child saw is in its output");
    assert!(acknowledged > Some(20), "{acknowledged:?}");
    let store = open(dir.path()).unwrap();
    assert!(judge(&store).await.unwrap() >= acknowledged, "{acknowledged:?}");
    write_round(&store, 1_000_000).await.unwrap();
}

#[tokio::test]
async fn a_half_written_end_is_cut_off_and_nothing_acknowledged_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, longer, torn) = (dir.path().join("whole"), dir.path().join("longer"), dir.path().join("torn"));
    closed_store(&whole, false).await;
    copy(&whole, &longer);
    write_round(&open(&longer).unwrap(), 4).await.unwrap();
    let bytes = fs::read(journal(&whole)).unwrap();
    let longer = fs::read(journal(&longer)).unwrap();
    let tail = longer.strip_prefix(bytes.as_slice()).expect("a journal only grows");
    // The last of these is the round's rows without its checkpoint.
    let mut tails: Vec<Vec<u8>> = (1..tail.len()).step_by(tail.len() / 25).map(|cut| tail[..cut].to_vec()).collect();
    tails.extend([vec![0; 10_000], vec![0xff; 500], b"half a sentence".to_vec()]);
    // The rows with their end on the disk, and bytes of their middle not.
    let rows = tail.windows(5).position(|bytes| bytes == b"FJL\x03\x01").expect("the rows end where the checkpoint starts") + 4;
    tails.extend((30..rows - 30).step_by(rows / 15).map(|hole| [&tail[..hole], &[0xaa; 3], &tail[hole + 3..rows]].concat()));
    for (n, tail) in tails.iter().enumerate() {
        let _ = fs::remove_dir_all(&torn);
        copy(&whole, &torn);
        fs::write(journal(&torn), [bytes.as_slice(), tail].concat()).unwrap();
        let store = open(&torn).unwrap_or_else(|error| panic!("end {n}: {error}"));
        assert_eq!(judge(&store).await.unwrap(), Some(3), "end {n}");
        write_round(&store, 5).await.unwrap();
        drop(store);
        assert_eq!(judge(&open(&torn).unwrap()).await.unwrap(), Some(5), "end {n}");
    }
}

#[tokio::test]
async fn a_flipped_byte_in_the_journal_is_noticed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
    closed_store(&whole, false).await;
    let bytes = fs::read(journal(&whole)).unwrap();
    let (mut noticed, mut flips) = (0, 0);
    // A sample, the end, and all of where each batch after the first begins: its order among the writes has no checksum.
    let starts = (17..bytes.len()).filter(|at| bytes[at - 17..].starts_with(b"FJL\x03\x01"));
    let starts: Vec<usize> = starts.flat_map(|after| after - 13..after).collect();
    assert!(starts.len() >= 7 * 13, "{starts:?}");
    let last = starts[starts.len() - 13];
    for at in (0..bytes.len()).step_by(bytes.len() / 120).chain(bytes.len() - 30..bytes.len()).chain(starts) {
        let _ = fs::remove_dir_all(&damaged);
        copy(&whole, &damaged);
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x40;
        fs::write(journal(&damaged), &bytes).unwrap();
        noticed += usize::from(is_noticed(&damaged, &format!("byte {at}")).await);
        flips += 1;
        // Without the note, only the last batch can be taken for one that was torn.
        if at + 5 < last {
            fs::write(journal(&damaged), &bytes).unwrap();
            fs::remove_file(damaged.join("synced")).unwrap();
            is_noticed(&damaged, &format!("byte {at}, without a note")).await;
        }
    }
    assert!(noticed * 10 >= flips * 8, "only {noticed} of {flips}");
}

#[tokio::test]
async fn a_flipped_byte_in_a_table_is_noticed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
    closed_store(&whole, true).await;
    let tables: Vec<PathBuf> = (1..=8)
        .filter_map(|keyspace| fs::read_dir(whole.join(format!("db/keyspaces/{keyspace}/tables"))).ok())
        .flatten()
        .map(|entry| entry.unwrap().path().strip_prefix(&whole).unwrap().to_owned())
        .collect();
    assert!(tables.len() >= 4, "{tables:?}");
    assert!(!is_noticed(&whole, "no damage").await);
    let (mut noticed, mut flips) = (0, 0);
    for table in &tables {
        let len = fs::metadata(whole.join(table)).unwrap().len();
        for at in (0..30).map(|n| len * n / 30 + n % 3).filter(|at| *at < len) {
            let _ = fs::remove_dir_all(&damaged);
            copy(&whole, &damaged);
            let mut bytes = fs::read(damaged.join(table)).unwrap();
            bytes[usize::try_from(at).unwrap()] ^= 0x04;
            fs::write(damaged.join(table), bytes).unwrap();
            noticed += usize::from(is_noticed(&damaged, &format!("byte {at} of {len} of {}", table.display())).await);
            flips += 1;
        }
    }
    assert!(noticed * 2 >= flips, "only {noticed} of {flips}");
}

#[tokio::test]
async fn a_journal_that_came_back_shorter_is_refused_before_anything_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
    closed_store(&whole, false).await;
    let len = fs::metadata(journal(&whole)).unwrap().len();
    for cut in [0, len / 2, len - 1] {
        let _ = fs::remove_dir_all(&damaged);
        copy(&whole, &damaged);
        fs::File::options().write(true).open(journal(&damaged)).unwrap().set_len(cut).unwrap();
        // However often it is tried.
        for _ in 0..2 {
            let error = open(&damaged).err().expect("it is refused");
            assert!(matches!(&error, StoreError::Corrupt(detail) if detail.contains(".jnl ends with batch")), "{error}");
        }
        assert_eq!(fs::metadata(journal(&damaged)).unwrap().len(), cut);
    }
    fs::remove_file(journal(&damaged)).unwrap();
    let error = open(&damaged).err().expect("it is refused");
    assert!(error.to_string().contains("has no journal"), "{error}");
    // A hole between two journals is as bad as an end too soon.
    let _ = fs::remove_dir_all(&damaged);
    copy(&whole, &damaged);
    let bytes = fs::read(journal(&whole)).unwrap();
    write_round(&open(&whole).unwrap(), 4).await.unwrap();
    let longer = fs::read(journal(&whole)).unwrap();
    fs::write(journal(&damaged).with_file_name("1.jnl"), &longer[bytes.len()..]).unwrap();
    fs::File::options().write(true).open(damaged.join("db/0.jnl")).unwrap().set_len(len - 1).unwrap();
    fs::copy(whole.join("synced"), damaged.join("synced")).unwrap();
    let error = open(&damaged).err().expect("it is refused");
    assert!(error.to_string().contains("1.jnl goes on with batch"), "{error}");
}

#[tokio::test]
async fn journals_are_rotated_and_removed_without_a_false_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |round: i32| (0..18_000).map(move |n| (minute(&format!("{n:0>120}"), round, 0), row(round.into(), n))).collect::<Vec<_>>();
    let journals = || fs::read_dir(dir.path().join("db")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let newest = || journals().filter_map(|name| name.strip_suffix(".jnl")?.parse::<u32>().ok()).max();
    let mut store = open(dir.path()).unwrap();
    for round in 0.. {
        store.write_rows(Arc::new(rows(round))).await.unwrap();
        if round % 15 == 14 {
            drop(store);
            store = open(dir.path()).unwrap();
        }
        if newest() >= Some(1) && !journals().any(|name| name == "0.jnl") {
            break;
        }
        assert!(round < 300, "no journal was removed: {:?}", journals().collect::<Vec<_>>());
    }
    drop(store);
    let store = open(dir.path()).unwrap();
    let keys = rows(3).into_iter().map(|(key, _)| key).collect();
    let expected: Vec<_> = rows(3).into_iter().map(|(_, row)| Some(row)).collect();
    assert!(store.read_cells(keys).await.unwrap() == expected);
}

#[tokio::test]
async fn a_lost_or_torn_note_of_what_was_synced_keeps_no_store_closed() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), false).await;
    for torn in ["", "0 9", "0 999 0123456789abcdef\n"] {
        fs::write(dir.path().join("synced"), torn).unwrap();
        assert_eq!(judge(&open(dir.path()).unwrap()).await.unwrap(), Some(3));
    }
    fs::remove_file(dir.path().join("synced")).unwrap();
    assert_eq!(judge(&open(dir.path()).unwrap()).await.unwrap(), Some(3));
}

#[tokio::test]
async fn a_directory_in_use_or_of_another_kind_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let error = open(dir.path()).err().expect("it is in use").to_string();
    for part in [dir.path().to_str().unwrap(), "another tallymark has it open", "stop that one"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    write_round(&store, 1).await.unwrap();
    let file = dir.path().join("a file");
    fs::write(&file, "").unwrap();
    let error = open(&file).err().expect("it is no directory");
    assert!(matches!(&error, StoreError::Open { path, .. } if *path == file.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_crash_while_it_was_made_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join("db.new");
    fs::create_dir_all(half.join("keyspaces")).unwrap();
    fs::write(half.join("0.jnl"), [0; 10]).unwrap();
    write_round(&open(dir.path()).unwrap(), 1).await.unwrap();
    assert_eq!(judge(&open(dir.path()).unwrap()).await.unwrap(), Some(1));
    assert!(!half.exists());
}
