//! Who hears what became of events.

use std::time::Duration;

use crate::answer::Cause;

/// Hears what becomes of events, on the client's own thread. Every method does nothing unless you write it.
///
/// Do not do long work in here: nothing is sent meanwhile. A panic is caught and forgotten.
pub trait Observer: Send + Sync + 'static {
    /// So many events are durable in Tallymark's log.
    fn accepted(&self, events: u64) {
        let _ = events;
    }

    /// The server refused one event for good, and says why.
    fn rejected(&self, rejected: &Rejected) {
        let _ = rejected;
    }

    /// Events are lost, or were thrown away on purpose.
    fn dropped(&self, dropped: &Dropped) {
        let _ = dropped;
    }

    /// A request failed and will be sent again.
    fn retrying(&self, retry: &Retrying) {
        let _ = retry;
    }

    /// So many events are on disk now and will be sent later, by this process or the next.
    fn spooled(&self, events: u64) {
        let _ = events;
    }

    /// Events are sent again longer after a try of unknown outcome than the server may remember their ids
    /// ([`Builder::dedup_window`](crate::Builder::dedup_window)): if that try arrived, they count twice.
    fn late_retry(&self, late: &LateRetry) {
        let _ = late;
    }

    /// Something is wrong on this side, with the spool's files for instance. Sending goes on as well as it can.
    fn trouble(&self, what: &str) {
        let _ = what;
    }
}

/// An event that the server refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// Its id.
    pub event_id: String,
    /// What was viewed.
    pub video_id: String,
    /// The server's typed reason, `bad_id` for instance; `http_400`, `http_413` if it named none.
    pub reason: String,
    /// What is wrong, and what to do.
    pub detail: String,
}

/// Why events were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue was full, and so was the spool, if there is one.
    QueueFull,
    /// They came after `shutdown`.
    Closed,
    /// `before_send` said so (or panicked).
    BeforeSend,
    /// One event of more than 64 KiB, which no collector takes.
    TooLarge,
    /// They were still in memory when `shutdown` ran out of time, and there is no spool, or it is full.
    Shutdown,
    /// A file of the spool was damaged.
    SpoolDamaged,
}

impl DropReason {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [Self::QueueFull, Self::Closed, Self::BeforeSend, Self::TooLarge, Self::Shutdown, Self::SpoolDamaged];
}

/// Events that were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// So many.
    pub events: u64,
    /// And why.
    pub reason: DropReason,
}

/// A request that failed and will be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retrying {
    /// In the request.
    pub events: u64,
    /// Failures in a row, of this request or others.
    pub failures: u32,
    /// Nothing is sent for so long.
    pub wait: Duration,
    /// What happened.
    pub cause: Cause,
    /// Whether the server may have taken events of it all the same.
    pub in_doubt: bool,
}

/// Events that may count twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LateRetry {
    /// In the request.
    pub events: u64,
    /// Since the first try whose outcome is not known.
    pub in_doubt_for: Duration,
}

/// Logs what is lost, refused or late, with `tracing`.
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Log;

#[cfg(feature = "tracing")]
impl Observer for Log {
    fn rejected(&self, rejected: &Rejected) {
        let Rejected { event_id, video_id, reason, detail } = rejected;
        tracing::warn!(event_id, video_id, reason, detail, "tallymark refused an event");
    }

    fn dropped(&self, dropped: &Dropped) {
        if dropped.reason != DropReason::BeforeSend {
            tracing::error!(events = dropped.events, reason = ?dropped.reason, "events are lost");
        }
    }

    fn retrying(&self, retry: &Retrying) {
        let Retrying { events, failures, wait, cause, .. } = retry;
        tracing::warn!(events, failures, ?wait, %cause, "events will be sent again");
    }

    fn late_retry(&self, late: &LateRetry) {
        tracing::warn!(events = late.events, in_doubt_for = ?late.in_doubt_for, "events are sent again that may count twice");
    }

    fn trouble(&self, what: &str) {
        tracing::error!(what, "the client has a problem");
    }
}

/// Hears nothing.
#[cfg(not(feature = "tracing"))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Log;

#[cfg(not(feature = "tracing"))]
impl Observer for Log {}
