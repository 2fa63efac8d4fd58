//! Why an archive could not be written or read.

use ingest::LogError;
use schemas::{Offset, Source};
use thiserror::Error;

use crate::store::StoreError;

/// A failure of the archive, with what to do.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The place of the files does not do what it is asked; the same call may succeed later.
    #[error("the archive's files: {0}")]
    Files(#[from] object_store::Error),
    /// A file is not what its manifest says, or is gone.
    #[error("the archive is damaged at {path}: {detail}; restore that file from a backup")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Rows cannot be written or read as Parquet.
    #[error("the archive's format: {0}")]
    Format(#[from] parquet::errors::ParquetError),
    /// As [`ArchiveError::Format`], of what is in memory.
    #[error("the archive's rows: {0}")]
    Rows(#[from] arrow::error::ArrowError),
    /// The store, which keeps the manifests.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The log, which is archived.
    #[error("{0}")]
    Log(#[from] LogError),
    /// What is asked for is not in the archive.
    #[error("source {source_id}: offset {asked} is not archived; the archive holds {from} to {end}{gap}", gap = .gap.map_or_else(String::new, |(from, to)| format!(" without {from} to {to}, which the log had lost")))]
    Missing {
        /// The source.
        source_id: Source,
        /// What was asked for.
        asked: Offset,
        /// What there is.
        from: Offset,
        /// What comes next.
        end: Offset,
        /// The gap that it lies in, if it does.
        gap: Option<(Offset, Offset)>,
    },
    /// The files there are another log's.
    #[error("{place} holds the archive of log {stored}, not of {asked}; give each log a place of its own (`archive`)")]
    OtherLog {
        /// The place.
        place: String,
        /// Whose it is.
        stored: String,
        /// Whose it should be.
        asked: String,
    },
    /// The place cannot be used as it is named.
    #[error("the archive cannot lie at {place}: {detail}")]
    Place {
        /// As it was named.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Work that was begun on another thread did not end.
    #[error("archiving stopped: {0}")]
    Stopped(String),
}
