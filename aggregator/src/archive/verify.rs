//! Whether the archive is the log: every committed file is what it was, and for every offset that the log still has, the archive's rows
//! say what the record says.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ingest::{EventLog, LogError, ReadLimit};
use schemas::view_batch::Whole;
use schemas::{Event, Millis, Offset, Record, RecordKind, Source};
use serde::Serialize;

use super::archiver::Archive;
use super::error::ArchiveError;
use super::manifest::Manifest;
use super::piece::{Piece, pieces};
use super::reader::{Reader, batches};
use super::rows::file_hash;

const READ: ReadLimit = ReadLimit { records: 2_000, bytes: 8 << 20, patience: Duration::from_secs(2) };

/// What was found of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files that are what the manifest says.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Records that the log still has and that were compared.
    pub compared: u64,
    /// Events of them that are the same but for somebody who was forgotten.
    pub forgotten: u64,
    /// What is wrong, the first of it.
    pub faults: Vec<String>,
}

/// So many faults are told.
const TOLD: usize = 20;

/// A record, owned.
struct Owned {
    offset: Offset,
    append_time: Millis,
    kind: RecordKind,
    historical: bool,
    payload: Vec<u8>,
}

impl Owned {
    fn of(record: &Record<'_>) -> Self {
        let Record { offset, append_time, kind, historical, payload } = *record;
        Self { offset, append_time, kind, historical, payload: payload.to_vec() }
    }

    fn record(&self) -> Record<'_> {
        let Self { offset, append_time, kind, historical, ref payload } = *self;
        Record { offset, append_time, kind, historical, payload }
    }
}

impl Archive {
    /// Reads a source's whole archive, and the log as far as both have it.
    ///
    /// # Errors
    /// If one of them cannot be read. What is read and wrong is told in the answer.
    pub async fn verify(&self, source: Source) -> Result<Verified, ArchiveError> {
        let manifest = self.store.read_archive(source).await?;
        let mut found = Verified::default();
        self.verify_files(source, &manifest, &mut found).await?;
        if found.faults.is_empty() {
            self.compare(source, &manifest, &mut found).await?;
        }
        Ok(found)
    }

    async fn verify_files(&self, source: Source, manifest: &Manifest, found: &mut Verified) -> Result<(), ArchiveError> {
        for file in &manifest.files {
            let path = file.path(source);
            let content = match self.shelf.get(&path).await {
                Ok(content) => content,
                Err(error @ ArchiveError::Damaged { .. }) => {
                    found.fault(error.to_string());
                    continue;
                }
                Err(other) => return Err(other),
            };
            if content.len() as u64 != file.bytes || file_hash(&content) != file.hash {
                found.fault(format!("{path}: its bytes are not those that were written; restore it from a backup"));
                continue;
            }
            let counted = batches(&path, content)?.try_fold(0, |rows, batch| batch.map(|batch| rows + batch.num_rows() as u64))?;
            if counted != file.rows {
                found.fault(format!("{path}: it has {counted} rows and should have {}", file.rows));
            }
            (found.files, found.rows) = (found.files + 1, found.rows + counted);
        }
        Ok(())
    }

    /// Compares records with rows, offset by offset.
    async fn compare(&self, source: Source, manifest: &Manifest, found: &mut Verified) -> Result<(), ArchiveError> {
        let log = Arc::clone(&self.log);
        let ends = blocking(move || Ok(log.ends(source)?)).await?;
        let after_gaps = manifest.head.gaps.iter().map(|(_, to)| *to).max().unwrap_or_default();
        let from = manifest.head.complete_from.max(ends.start).max(after_gaps);
        let to = manifest.head.end.min(ends.end);
        let mut reader = Reader::new(self.shelf.clone(), source, manifest, from.min(to), to)?;
        let mut position = from;
        while position < to {
            let log = Arc::clone(&self.log);
            let (records, next) = blocking(move || read(&*log, source, position, to)).await?;
            position = next;
            let mut expected: VecDeque<Owned> = records.into();
            let mut faults = Vec::new();
            let (mut forgotten, count) = (0, expected.len());
            reader
                .lend(count, &mut |archived| {
                    if let Some(record) = expected.pop_front() {
                        match differ(&record.record(), &archived) {
                            Ok(gone) => forgotten += gone,
                            Err(fault) => faults.push(fault),
                        }
                    }
                    ControlFlow::Continue(())
                })
                .await?;
            found.compared += (count - expected.len()) as u64;
            found.forgotten += forgotten;
            expected.iter().for_each(|record| faults.push(format!("offset {}: it is not archived", record.offset)));
            faults.into_iter().for_each(|fault| found.fault(format!("source {source}, {fault}")));
        }
        Ok(())
    }
}

impl Verified {
    fn fault(&mut self, fault: String) {
        if self.faults.len() < TOLD {
            self.faults.push(fault);
        }
    }
}

/// The records of the log from an offset on, and the offset after them.
fn read(log: &dyn EventLog, source: Source, from: Offset, to: Offset) -> Result<(Vec<Owned>, Offset), ArchiveError> {
    let mut records = Vec::new();
    let mut next = log.read(source, from, READ, &mut |record| {
        if record.offset >= to {
            return ControlFlow::Break(());
        }
        records.push(Owned::of(&record));
        ControlFlow::Continue(())
    })?;
    if records.is_empty() {
        if next == from {
            return Err(LogError::Unavailable(format!("source {source} gave no records from {from} on")).into());
        }
        next = to;
    }
    Ok((records, next))
}

/// Whether a record came back as what it was: how many of its events are without their viewer, or what differs.
fn differ(record: &Record<'_>, archived: &Record<'_>) -> Result<u64, String> {
    let offset = record.offset;
    if (archived.offset, archived.append_time, archived.historical) != (offset, record.append_time, record.historical) {
        return Err(format!("offset {offset}: its place, append time or mark as historical differs (archived: {})", archived.offset));
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    pieces(record, |piece| ours.push(piece));
    pieces(archived, |piece| theirs.push(piece));
    if ours.len() != theirs.len() {
        return Err(format!("offset {offset}: the archive has {} rows of it and it has {}", theirs.len(), ours.len()));
    }
    let mut forgotten = 0;
    for (index, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        // An event of a batch that comes back as lines is written as a line.
        let is_same = ours == theirs || (archived.kind != record.kind && as_line(&ours).is_some_and(|line| Some(line) == as_line(&theirs)));
        if is_same {
            continue;
        }
        if !is_forgotten(&ours, &theirs) {
            return Err(format!("offset {offset}, event {index}: it differs"));
        }
        forgotten += 1;
    }
    Ok(forgotten)
}

fn as_line(piece: &Piece<'_>) -> Option<Vec<u8>> {
    match piece {
        Piece::Event(event, others) => Some(Whole { event: event.clone(), others: others.as_deref() }.to_json()),
        Piece::Rejected(..) | Piece::Payload(_) => None,
    }
}

/// Whether the one is the other without its viewer.
fn is_forgotten(event: &Piece<'_>, archived: &Piece<'_>) -> bool {
    match (event, archived) {
        (Piece::Event(event, _), Piece::Event(archived, None)) => *archived == Event { viewer_id: None, ..event.clone() },
        (Piece::Rejected(..), Piece::Rejected(_, raw)) => raw.as_ref() == b"null" || raw.len() <= 1,
        _ => false,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ArchiveError::Stopped(error.to_string()))?
}
