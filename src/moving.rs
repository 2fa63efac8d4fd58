//! `tallymark move`: takes the counts of a data directory along to Kafka and Cassandra.
//!
//! ```text
//! DATA/store, stopped and whole ──> cells under source numbers of their own ──> keyspace ──> answers: old + new
//! ```
//!
//! The sources of the data directory become sources of the keyspace that have ended: their cells count, and nothing waits for
//! them. Rows keep their stamps, so that a move that was interrupted is simply made again. The raw events stay where they are.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aggregator::embedded::Table;
use aggregator::ending::{self, Ending};
use aggregator::{CountStore, EmbeddedStore, ImportProgress, StoreError};
use indicatif::ProgressBar;
use ingest::{EventLog, LogError};
use schemas::{CellKey, Checkpoint, Millis, Source, StoredRow};
use thiserror::Error;

use crate::backends::{self, BackendError, Moving};
use crate::config::{ConfigError, Given, load};

/// Sources of Kafka are below this, those that were moved above.
const FIRST_MOVED: u32 = 1 << 30;
/// So many numbers for each data directory; it has no more sources.
const NUMBERS_EACH: u32 = 1_024;
/// So many rows are written at once.
const ROWS_AT_ONCE: usize = 5_000;

/// Why nothing was moved, or not all.
#[derive(Debug, Error)]
pub(crate) enum MoveError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Backend(#[from] BackendError),
    #[error("{0}\nWhat was moved may be moved again: run the same command once more.")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error(
        "where to? Say where Kafka and Cassandra are, as for `tallymark migrate`:\n  \
         tallymark move --data ./data --kafka-brokers k1:9092 --cassandra-nodes c1:9042"
    )]
    Nowhere,
    #[error(
        "{left} records of {data} are not counted yet. Start `tallymark run --data {data}` once more, wait until `tallymark status` says \
         that counting is up to date, and stop it with SIGTERM or Ctrl-C; then move"
    )]
    NotCounted { left: u64, data: String },
    #[error("the keyspace has no room for another data directory")]
    NoRoom,
}

/// Moves everything that is counted.
///
/// # Errors
/// Why it could not.
pub(crate) async fn move_up(given: Given) -> Result<ExitCode, MoveError> {
    let settings = load(&given, std::env::vars_os())?.settings;
    crate::logging::start(&settings);
    let Moving { log, from, to } = backends::open_both(&settings).await?.ok_or(MoveError::Nowhere)?;
    let checkpoints = from.read_checkpoints().await?;
    check_counted(&*log, &checkpoints, settings.data.display().to_string())?;
    let name = format!("moved:{}", log.id());
    let base = numbers(&*to, &name, &checkpoints).await?;
    let mover = Mover { to: Arc::clone(&to), base, bar: bar() };
    let cells = mover.cells(&from, &checkpoints).await?;
    let notes = mover.notes(&from).await?;
    for (source, checkpoint) in &checkpoints {
        to.write_checkpoint(mover.number(*source), ending::checkpoint(checkpoint)).await?;
    }
    let counted: u64 = checkpoints.iter().map(|(_, checkpoint)| checkpoint.tally.counted).sum();
    mover.bar.finish_and_clear();
    println!(
        "Moved {counted} counted events: {cells} cells of {} sources, {notes} notes on videos, spaces, imports and keys.\n\
         The raw events stay in {}: keep it for as long as you may want to recount them. New events belong to the new servers only.",
        checkpoints.len(),
        settings.data.join("log").display()
    );
    Ok(ExitCode::SUCCESS)
}

/// A row that is moved must be final: its source's checkpoint is at the end of its log.
fn check_counted(log: &dyn EventLog, checkpoints: &[(Source, Checkpoint)], data: String) -> Result<(), MoveError> {
    let next: BTreeMap<Source, u64> = checkpoints.iter().map(|(source, checkpoint)| (*source, checkpoint.next_offset.0)).collect();
    let mut left = 0;
    for source in (0..log.sources().get()).map(Source) {
        let ends = log.ends(source)?;
        left += ends.end.0.saturating_sub(next.get(&source).copied().unwrap_or(ends.start.0));
    }
    if left == 0 { Ok(()) } else { Err(MoveError::NotCounted { left, data }) }
}

/// The number that the directory's source 0 gets: the one it was given before, or else the next free one.
async fn numbers(to: &dyn CountStore, name: &str, moved: &[(Source, Checkpoint)]) -> Result<u32, MoveError> {
    if let Some(before) = to.read_import(name.to_owned()).await? {
        return u32::try_from(before.events).map_err(|_| MoveError::NoRoom);
    }
    let there = to.read_checkpoints().await?;
    let base = next_numbers(there.iter().map(|(source, _)| source.0)).ok_or(MoveError::NoRoom)?;
    let ends = moved.iter().map(|(_, checkpoint)| checkpoint.next_offset.0).collect();
    let note = ImportProgress { file: name.to_owned(), mapping: "move".to_owned(), events: base.into(), ends, complete: false };
    to.write_import(name.to_owned(), note).await?;
    Ok(base)
}

fn next_numbers(taken: impl Iterator<Item = u32>) -> Option<u32> {
    let last = taken.filter(|source| *source >= FIRST_MOVED).max();
    let base = last.map_or(Some(FIRST_MOVED), |last| (last - last % NUMBERS_EACH).checked_add(NUMBERS_EACH))?;
    // CQL keeps a source as a signed number.
    (base.checked_add(NUMBERS_EACH)? <= 1 << 31).then_some(base)
}

fn bar() -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Writes what is moved.
struct Mover {
    to: Arc<dyn CountStore>,
    base: u32,
    bar: ProgressBar,
}

impl Mover {
    fn number(&self, source: Source) -> Source {
        Source(self.base.saturating_add(source.0))
    }

    /// All cells of sources with a checkpoint, with their open minutes rolled up; how many.
    async fn cells(&self, from: &EmbeddedStore, checkpoints: &[(Source, Checkpoint)]) -> Result<u64, StoreError> {
        let closed: BTreeMap<Source, Millis> = checkpoints.iter().map(|(source, checkpoint)| (*source, checkpoint.closed)).collect();
        let mut ending = Ending::default();
        for cell in from.scan(Table::ByMinute) {
            let (key, row) = cell?;
            if let Some(closed) = closed.get(&key.source) {
                ending.minute(*closed, &key, row);
            }
        }
        let changed: Vec<CellKey> = ending.keys().cloned().collect();
        let now = from.read_cells(changed.clone()).await?;
        let rolled_up = changed.iter().zip(now).filter_map(|(key, now)| {
            let closed = closed.get(&key.source)?;
            Some(Ok((key.clone(), ending.row(*closed, key, now)?)))
        });
        // Rollups before minutes, as a fold writes them.
        let rollups = from.scan(Table::Rollup).filter(|cell| cell.as_ref().map_or(true, |(key, _)| !ending.changes(key)));
        let all = rolled_up.chain(rollups).chain(from.scan(Table::ByMinute));
        let known = all.filter(|cell| cell.as_ref().map_or(true, |(key, _)| closed.contains_key(&key.source)));
        let (mut rows, mut moved) = (Vec::with_capacity(ROWS_AT_ONCE), 0);
        for cell in known {
            let (key, row) = cell?;
            rows.push((CellKey { source: self.number(key.source), ..key }, row));
            if rows.len() == ROWS_AT_ONCE {
                moved += self.write(std::mem::replace(&mut rows, Vec::with_capacity(ROWS_AT_ONCE))).await?;
                self.bar.set_message(format!("{moved} cells"));
            }
        }
        Ok(moved + self.write(rows).await?)
    }

    /// A cluster that is busy for a moment does not end a long move.
    async fn write(&self, rows: Vec<(CellKey, StoredRow)>) -> Result<u64, StoreError> {
        const TRIES: u32 = 8;
        let rows = Arc::new(rows);
        let mut tries = 0;
        loop {
            match self.to.write_rows(Arc::clone(&rows)).await {
                Ok(()) => return Ok(rows.len() as u64),
                Err(StoreError::Unavailable(_)) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(aggregator::backoff::delay(tries, 0.5)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What is known of videos, spaces and imports, where the keyspace knows nothing yet, and all keys; how many.
    async fn notes(&self, from: &EmbeddedStore) -> Result<u64, StoreError> {
        let mut moved = 0;
        for video in from.videos() {
            let (id, info) = video?;
            if self.to.read_video(id.clone()).await?.is_none() {
                self.to.write_video(id, info).await?;
                moved += 1;
            }
        }
        for space in from.spaces() {
            let (id, info) = space?;
            if self.to.read_space(id.clone()).await?.is_none() {
                self.to.write_space(id, info).await?;
                moved += 1;
            }
        }
        // Else a server that asked for keys would open its doors by moving.
        for key in from.read_keys().await? {
            self.to.write_key(key).await?;
            moved += 1;
        }
        for import in from.imports() {
            let (content, progress) = import?;
            // How far an unfinished one has come is said in offsets of the old log: begun again, it counts twice. It is finished first.
            if progress.complete && self.to.read_import(content.clone()).await?.is_none() {
                self.to.write_import(content, progress).await?;
                moved += 1;
            }
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_gets_numbers_of_its_own_above_those_of_kafka() {
        assert_eq!(next_numbers([0, 1, 17].into_iter()), Some(FIRST_MOVED));
        assert_eq!(next_numbers([0, FIRST_MOVED, FIRST_MOVED + 3].into_iter()), Some(FIRST_MOVED + NUMBERS_EACH));
        assert_eq!(next_numbers([(1 << 31) - 1].into_iter()), None);
    }
}
