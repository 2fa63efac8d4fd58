//! What an interrupted import left uncertain, cleared up by looking into the log.
//!
//! Rows after the last barrier may or may not have reached the log, and deduplication forgets ids after some minutes.
//! But whatever reached the log lies at or behind the ends stored with the barrier: the ids found there are not sent again.

use std::collections::HashSet;

use futures_util::StreamExt;
use schemas::EventHash;
use serde::Deserialize;

use super::ImportError;
use super::batch::Start;
use super::rows::Rows;
use super::send::MAX_UNCERTAIN_ROWS;
use super::standing::Standing;
use crate::client::{ClientError, Server};

/// More rows than can have been sent after a barrier: a batch may overshoot it.
const UNCERTAIN_ROWS: u64 = 2 * MAX_UNCERTAIN_ROWS;
const RECORDS_AT_ONCE: usize = 10_000;

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
        find(server, source, from, at.log_end, &candidates, &mut already).await?;
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
    offset: u64,
    #[serde(default)]
    events: Vec<RecordEvent>,
}

#[derive(Deserialize)]
struct RecordEvent {
    #[serde(default)]
    event_id: Option<String>,
}

async fn find(
    server: &Server,
    source: usize,
    mut from: u64,
    end: u64,
    candidates: &HashSet<EventHash>,
    already: &mut HashSet<EventHash>,
) -> Result<(), ImportError> {
    let source = u32::try_from(source).unwrap_or(u32::MAX);
    while from < end {
        let before = from;
        let mut lines = Lines::of(server.records(source, from, RECORDS_AT_ONCE, None).await?);
        while let Some(line) = lines.next().await? {
            let record: RecordLine = serde_json::from_slice(&line).map_err(|error| lines.unexpected(&error.to_string()))?;
            from = record.offset + 1;
            let ids = record.events.into_iter().filter_map(|event| event.event_id);
            already.extend(ids.map(|id| EventHash::of(&id)).filter(|id| candidates.contains(id)));
        }
        if from == before {
            return Err(ImportError::Broken(format!("the log of source {source} ends at offset {from} although the status says {end}")));
        }
    }
    Ok(())
}

/// The lines of a response's body.
pub(crate) struct Lines {
    url: String,
    body: futures_util::stream::BoxStream<'static, Result<bytes::Bytes, reqwest::Error>>,
    buffer: Vec<u8>,
    read: usize,
}

impl Lines {
    pub(crate) fn of(response: reqwest::Response) -> Self {
        Self { url: response.url().to_string(), body: response.bytes_stream().boxed(), buffer: Vec::new(), read: 0 }
    }

    /// The next line without its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            let rest = self.buffer.get(self.read..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.get(..end).unwrap_or_default().to_vec();
                self.read += end + 1;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.read.min(self.buffer.len()));
            self.read = 0;
            match self.body.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(ClientError::Unreachable { url: self.url.clone(), detail: error.to_string() }),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer))),
            }
        }
    }

    pub(crate) fn unexpected(&self, detail: &str) -> ClientError {
        ClientError::Unexpected { url: self.url.clone(), detail: detail.to_owned() }
    }
}
