//! The seam to the log: append a batch, read from an offset, find an append time, and where a source begins and ends.
//!
//! One implementation is [`EmbeddedLog`](crate::EmbeddedLog); every implementation passes [`crate::conformance`].
//! Reading is synchronous and lends each record, because a fold's worker thread polls it and nothing is copied
//! between the log's buffer and the count. Appending is asynchronous, because collectors have many callers waiting.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemas::{LogId, Millis, NewRecord, Offset, Record, Source};
use thiserror::Error;

/// A log of records in sources that only grow at their ends.
pub trait EventLog: Send + Sync + 'static {
    /// The log's name for its life. A log that was deleted and made again has another.
    fn id(&self) -> LogId;

    /// How many sources it has; they are numbered from 0.
    fn sources(&self) -> NonZeroU32;

    /// Appends `records` to `source` in order, all or none, and resolves when they are durable.
    ///
    /// # Errors
    /// [`LogError::Busy`] if too much is waiting (nothing was taken), [`LogError::Failed`] if the log cannot write.
    /// After [`LogError::Failed`] the records may or may not be in the log: send them again, deduplication sorts it out.
    fn append(&self, source: Source, records: Vec<NewRecord>) -> BoxFuture<'_, Result<Appended, LogError>>;

    /// Lends the durable records of `source` from `from` on, in order, until `each` breaks, `limit` is reached or the log ends.
    /// Returns the offset after the last record lent, or `from` if there was none. Never blocks for new records.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if a record's bytes are damaged, [`LogError::Gone`] if `from` lies before the log's start.
    fn read(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError>;

    /// Waits until any source has grown since `seen`, or until `timeout`; returns the present value to wait on next.
    /// A first call with 0 returns at once if anything was ever appended.
    fn wait(&self, seen: u64, timeout: Duration) -> u64;

    /// The first offset whose record has an append time at or after `at`; the end if there is none.
    ///
    /// # Errors
    /// As [`EventLog::read`].
    fn first_at_or_after(&self, source: Source, at: Millis) -> Result<Offset, LogError>;

    /// Where the source starts and ends now.
    ///
    /// # Errors
    /// If the log cannot tell.
    fn ends(&self, source: Source) -> Result<Ends, LogError>;
}

/// What an append was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record.
    pub first: Offset,
    /// The offset after the last.
    pub next: Offset,
    /// The append time of them all.
    pub append_time: Millis,
}

/// How much one read may lend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// At most so many records.
    pub records: usize,
    /// No further record once so many payload bytes have been lent.
    pub bytes: usize,
}

/// The durable extent of a source: offsets in `[start, end)` can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The oldest record's offset.
    pub start: Offset,
    /// The offset that the next record will get.
    pub end: Offset,
}

/// Why the log did not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum LogError {
    /// Too much is waiting to be written. Nothing was taken; try again after a moment.
    #[error("the log has {waiting_bytes} bytes waiting to be written; try again in a moment")]
    Busy {
        /// How much is waiting.
        waiting_bytes: usize,
    },
    /// The log cannot write (disk full, I/O error, gone). It stays so until the program is restarted.
    #[error("the log cannot be written: {0}")]
    Failed(String),
    /// Stored bytes are damaged.
    #[error("the log is damaged at source {source_id}, offset {offset}: {detail}")]
    Corrupt {
        /// The source.
        source_id: Source,
        /// The damaged record.
        offset: Offset,
        /// What is wrong with it.
        detail: String,
    },
    /// The log ends before records that it had acknowledged.
    #[error("{0}")]
    Truncated(String),
    /// The records asked for are older than the log's start.
    #[error("source {source_id} starts at offset {start}; offset {asked} is gone (retention)")]
    Gone {
        /// The source.
        source_id: Source,
        /// What was asked for.
        asked: Offset,
        /// What there is.
        start: Offset,
    },
    /// There is no such source.
    #[error("there is no source {0} in this log")]
    NoSource(Source),
    /// The log cannot be opened.
    #[error("cannot open the log in {path}: {detail}")]
    Open {
        /// Where.
        path: String,
        /// Why, and what to do.
        detail: String,
    },
}
