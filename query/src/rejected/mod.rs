//! Refused events, for people: `GET /v1/rejected`, one of them, and `POST /v1/rejected/retry`.
//!
//! ```text
//! dead-letter log ──notes──> ledger ──────────────┐ (who has claimed what)
//!                 ──letters─> filter ─> judge ─> claim ─> adjustment ─> settled
//! ```
//!
//! A letter is counted at most once, whoever retries it, how often and whenever, and once if its retry ends well (`schemas::retry`): its
//! claim is a record of the dead-letter log, where the first one wins, and it is counted by an adjustment, of which those that name one
//! claim are taken once at most. What a retry leaves undone (it was killed, the log was away) the next one finishes: it looks in the
//! source's log, from where the claim began, for an adjustment that was taken, and appends one if there is none.
//!
//! | module | holds |
//! |---|---|
//! | `ledger` | which letters are claimed and counted. Pure |
//! | `filter` | which letters are meant. Pure |
//! | `judge` | whether a letter can be counted now. Pure |
//! | `reading` | letters as they are read, within bounds |
//! | `letters` | letters as they are shown: the list, and one of them |
//! | `ask` | the body of a retry. Pure |
//! | `retry` | the request that counts letters |
//! | `settle` | how a claim is counted, or an adjustment published: once |

mod ask;
mod filter;
mod judge;
mod ledger;
pub(crate) mod letters;
mod reading;
pub(crate) mod retry;
pub(crate) mod settle;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ingest::{EventLog, LogError, Problem, ReadLimit};
use schemas::{LetterId, Offset, Source};

use crate::error::QueryError;
use crate::service::QueryService;
use ledger::{Ledger, State};

/// The source of the dead-letter log, which has one.
const LETTERS: Source = Source(0);

/// So much is read at once.
const BATCH: ReadLimit = ReadLimit { records: 512, bytes: 4 * 1024 * 1024, patience: Duration::from_secs(2) };

/// One request reads the dead-letter log for so long; the next goes on where it ended.
const READS_FOR: Duration = Duration::from_secs(4);

/// The dead-letter log, and what is known of it.
pub(crate) struct Rejected {
    log: Arc<dyn EventLog>,
    ledger: Mutex<Ledger>,
    /// One retry at a time; those of other processes are kept apart by the logs.
    retrying: tokio::sync::Mutex<()>,
    /// How far the sources' logs have been searched for the adjustments of claims that are not settled.
    searched: Mutex<HashMap<String, settle::Searched>>,
}

impl Rejected {
    pub(crate) fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log, ledger: Mutex::default(), retrying: tokio::sync::Mutex::default(), searched: Mutex::default() }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets how far the log has been searched for adjustments of a name.
    pub(crate) fn forget(&self, name: &str) {
        self.searched.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// How letters stand. Blocks.
    ///
    /// # Errors
    /// As [`Rejected::catch_up`].
    pub(crate) fn states(&self, letters: &[Option<LetterId>]) -> Result<Vec<Option<&'static str>>, QueryError> {
        self.catch_up()?;
        let ledger = self.ledger();
        Ok(letters.iter().map(|letter| letter.map(|letter| ledger.state(&letter).name())).collect())
    }

    /// Reads the notes up to the log's end. Blocks.
    ///
    /// # Errors
    /// If the log does not do it, and 503 if there is more to read than one request may: the next one goes on there.
    fn catch_up(&self) -> Result<(), QueryError> {
        let begun = Instant::now();
        let ends = self.log.ends(LETTERS)?;
        let mut ledger = self.ledger();
        ledger.start_at(ends.start);
        while ledger.next() < ends.end {
            if begun.elapsed() > READS_FOR {
                let (done, of) = (ledger.next().0.saturating_sub(ends.start.0), ends.end.0.saturating_sub(ends.start.0));
                let detail = format!("the dead-letter log is being read for the first time ({done} of {of} records); ask again");
                return Err(Problem::unavailable(1, detail).with("read", done).with("records", of).into());
            }
            let from = ledger.next();
            let next = self.log.read(LETTERS, from, BATCH, &mut |record| {
                ledger.read(&record);
                ControlFlow::Continue(())
            });
            match next {
                // Compaction or a transaction's mark may leave offsets without a record.
                Ok(next) if next == from => return Err(LogError::Unavailable("the dead-letter log gave no record in time".into()).into()),
                Ok(_) => {}
                Err(LogError::Gone { start, .. }) => ledger.start_at(start),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed => "claimed",
            Self::Unknown => "unknown",
            Self::Counted(..) => "counted",
        }
    }
}

impl QueryService {
    /// The dead-letter log of this service.
    pub(crate) fn rejected(&self) -> Result<Arc<Rejected>, QueryError> {
        self.rejected.clone().ok_or_else(|| Problem::unavailable(60, "this server has no log of rejected events").into())
    }

    /// Calls the dead-letter log, which blocks, on a thread where that is no harm.
    async fn with_rejected<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rejected) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let rejected = self.rejected()?;
        tokio::task::spawn_blocking(move || work(&rejected)).await.map_err(|_| QueryError::Broken)?
    }
}

/// A part of the dead-letter log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    from: Offset,
    to: Offset,
}

impl Rejected {
    /// The part of the log whose letters were refused in a time. Blocks.
    fn extent(&self, filter: &filter::Filter) -> Result<Extent, LogError> {
        let ends = self.log.ends(LETTERS)?;
        let at = |instant| self.log.first_at_or_after(LETTERS, instant);
        let from = filter.start.map_or(Ok(ends.start), at)?.max(ends.start);
        let to = filter.end.map_or(Ok(ends.end), at)?.min(ends.end);
        Ok(Extent { from, to: to.max(from) })
    }
}
