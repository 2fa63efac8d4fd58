//! What an interrupted import left uncertain, cleared up by looking into the log.
//!
//! Rows after the last barrier may or may not have reached the log, and deduplication forgets ids after some minutes.
//! But whatever reached the log lies at or behind the ends stored with the barrier: the ids found there are not sent again.

use std::collections::HashSet;

use schemas::EventHash;
use serde::Deserialize;

use super::ImportError;
use super::batch::Start;
use super::rows::Rows;
use super::send::MAX_UNCERTAIN_ROWS;
use super::standing::Standing;
use crate::client::{ClientError, Lines, RecordsAsk, Server};

/// More rows than can have been sent after a barrier: a batch may overshoot it.
const UNCERTAIN_ROWS: u64 = 2 * MAX_UNCERTAIN_ROWS;

/// Finds which events after row `after_row` the log already holds at or behind `ends`.
///
/// # Errors
/// If the log no longer holds these offsets, or the server or the file cannot be read.
pub(crate) async fn uncertain(
    server: &Server,
    standing: &Standing,
    mut rows: Rows,
    after_row: u64,
    ends: &[u64],
) -> Result<Start, ImportError> {
    if let Some((source, (end, at))) = ends.iter().zip(&standing.sources).enumerate().find(|(_, (end, at))| at.log_start > **end) {
        return Err(ImportError::LogGone { source_id: source, from: *end, start: at.log_start });
    }
    let grown = standing.sources.iter().enumerate().any(|(at, source)| source.log_end > ends.get(at).copied().unwrap_or_default());
    if !grown {
        return Ok(Start { after_row, already: HashSet::new() });
    }
    let candidates = tokio::task::spawn_blocking(move || candidates(&mut rows, after_row))
        .await
        .map_err(|error| ImportError::Broken(error.to_string()))??;
    let mut already = HashSet::new();
    for (source, at) in standing.sources.iter().enumerate() {
        let from = ends.get(source).copied().unwrap_or_default();
        if from < at.log_end {
            find(server, source, from, &candidates, &mut already).await?;
        }
    }
    Ok(Start { after_row, already })
}

/// The ids of the rows that can have been sent after the barrier.
fn candidates(rows: &mut Rows, after_row: u64) -> Result<HashSet<EventHash>, ImportError> {
    let mut ids = HashSet::new();
    while let Some(row) = rows.next()? {
        if row.row > after_row.saturating_add(UNCERTAIN_ROWS) {
            break;
        }
        if let Ok(event) = row.event
            && row.row > after_row
        {
            ids.insert(EventHash::of(&event.event_id));
        }
    }
    Ok(ids)
}

/// One line of `/v1/records`, as far as it matters here.
#[derive(Deserialize)]
struct RecordLine {
    event: Option<RecordEvent>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct RecordEvent {
    event_id: String,
}

/// Adds those of the candidates that the log of a source holds at or behind `from`.
async fn find(
    server: &Server,
    source: usize,
    from: u64,
    candidates: &HashSet<EventHash>,
    already: &mut HashSet<EventHash>,
) -> Result<(), ClientError> {
    let source = u32::try_from(source).unwrap_or(u32::MAX);
    let ask = RecordsAsk { source: Some(source), from: Some(from.to_string()), ..RecordsAsk::default() };
    let mut lines = Lines::of(server.records(&ask).await?);
    while let Some(line) = lines.next().await? {
        let record: RecordLine = serde_json::from_slice(&line).map_err(|error| lines.unexpected(&error.to_string()))?;
        if let Some(error) = record.error {
            return Err(lines.unexpected(&error));
        }
        already.extend(record.event.map(|event| EventHash::of(&event.event_id)).filter(|id| candidates.contains(id)));
    }
    Ok(())
}
