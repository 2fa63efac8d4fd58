//! The seam to the log: append a batch, read from an offset, find an append time, and where a source begins and ends.
//!
//! Its implementations are [`EmbeddedLog`](crate::EmbeddedLog) and `KafkaLog` (feature `kafka`); each passes [`crate::conformance`].
//! Reading is synchronous and lends each record, because a fold's worker thread polls it and nothing is copied
//! between the log's buffer and the count. Appending is asynchronous, because collectors have many callers waiting.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemas::{LogId, Millis, NewRecord, Offset, Record, Source};
use thiserror::Error;

use crate::membership::Membership;

/// A log of records in sources that only grow at their ends.
pub trait EventLog: Send + Sync + 'static {
    /// The log's name for its life. A log that was deleted and made again has another.
    fn id(&self) -> LogId;

    /// How many sources it has now; they are numbered from 0. It may grow while the program runs, and never shrinks.
    fn sources(&self) -> NonZeroU32;

    /// Appends `records` to `source` in order and resolves when all are durable. Between them lies nothing that the same
    /// process appends; what other processes append may.
    ///
    /// # Errors
    /// [`LogError::Busy`] if too much is waiting and [`LogError::TooLarge`] (nothing was taken), [`LogError::Unavailable`] or
    /// [`LogError::Failed`] if the log cannot write. After these two, any of the records may or may not be in the log:
    /// send them again, deduplication sorts it out.
    fn append(&self, source: Source, records: Vec<NewRecord>) -> BoxFuture<'_, Result<Appended, LogError>>;

    /// Lends the durable records of `source` from `from` on, in order, until `each` breaks, `limit` is reached or the log ends.
    /// Returns the offset after the last record lent, or `from` if there was none. Never blocks for new records; for those
    /// that are there but have to be brought from another machine it waits as long as [`ReadLimit::patience`] says.
    /// Offsets grow along a source, mostly by one.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if a record's bytes are damaged, [`LogError::Gone`] if `from` lies before the log's start,
    /// [`LogError::Unavailable`] if there are records and none came in time (without patience, none is no error).
    fn read(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError>;

    /// As [`EventLog::read`], in runs: records that are at hand together are lent together, at most [`RUN_RECORDS`], and no more of
    /// them than make [`RUN_BYTES`] (one record may have more). A run is taken whole: `each` breaks after it.
    ///
    /// # Errors
    /// As [`EventLog::read`].
    fn read_runs(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.read(source, from, limit, &mut |record| each(std::slice::from_ref(&record)))
    }

    /// Waits until a source that has been read to its end has grown since `seen`, or until `timeout`; returns the value to wait
    /// on next. It may return early, with or without a new value: read, and see.
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

    /// Takes part in sharing the sources among all processes that fold this log. To be called once.
    ///
    /// # Errors
    /// If there is no such group to be had.
    fn join(&self) -> Result<Arc<dyn Membership>, LogError>;

    /// Who folds which source now, as far as it is known: a name for people. Sources that nobody folds are left out.
    ///
    /// # Errors
    /// If the log cannot tell.
    fn owners(&self) -> Result<BTreeMap<Source, String>, LogError>;

    /// Why nothing can be appended any more until the program is started again; `None` as long as all is well.
    fn failure(&self) -> Option<String>;

    /// Resolves with [`EventLog::failure`] when there is one. The program should then exit.
    fn on_failure(&self) -> BoxFuture<'static, String>;

    /// Makes what waits durable and acknowledges it, then takes no more. Blocks for as long as that takes.
    fn close(&self);
}

/// How many records a run has at most.
pub const RUN_RECORDS: usize = 64;

/// How many payload bytes a run has at most, unless one record has more: small records alone gain from being folded together.
pub const RUN_BYTES: usize = 32 << 10;

/// What an append was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record.
    pub first: Offset,
    /// The offset after the last.
    pub next: Offset,
    /// The append time of the last.
    pub append_time: Millis,
}

/// How much one read may lend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// At most so many records.
    pub records: usize,
    /// No further record once so many payload bytes have been lent.
    pub bytes: usize,
    /// How long to wait for records that are in the log but not on this machine yet. Without it, `read` lends what is here.
    pub patience: Duration,
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
    /// The log does not answer now (a broker is gone, the network is cut). The same call may succeed later.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// A record is larger than the log takes. Nothing was taken.
    #[error("a record of {bytes} bytes is larger than the log takes ({limit} bytes)")]
    TooLarge {
        /// The record's size.
        bytes: usize,
        /// The largest that would be taken.
        limit: usize,
    },
    /// The log cannot write (disk full, I/O error, made anew). It stays so until the program is restarted.
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
    #[error("cannot open the log {path}: {detail}")]
    Open {
        /// Where.
        path: String,
        /// Why, and what to do.
        detail: String,
    },
}
