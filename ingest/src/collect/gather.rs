//! Small requests share records: while some of a source are on their way to the log, the events of others gather into the next ones.
//!
//! ```text
//! requests' events ──> gathering ──(fewer than UNDER_WAY appends of the lane)──> EventLog::append ──> every request that has events in it
//! ```
//!
//! So what an append costs is shared by all who wait for it: a thousand clients with one event each are a few records, and no
//! request waits for longer than the append before it. A lane holds the live or the historical events of one source.
//!
//! An append that fails, fails for all whose events are in it; each sends its request again, and deduplication sorts it out. Each
//! holds its part of the memory for bodies until then, so what gathers is bounded as they are.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use schemas::view_batch::{Full, Writer};
use schemas::{NewRecord, RecordKind, Source};
use tokio::sync::oneshot;

use super::batch::Placed;
use super::outlet::Outlet;
use crate::LogError;
use crate::spool::Taken;

/// So many appends of one lane are on their way at once: while one is acknowledged the next is there already.
const UNDER_WAY: usize = 2;

/// A shared record grows no further than this and one request: enough to share costs, and far below what a topic takes.
const RECORD_BYTES: usize = 64 << 10;

/// What became of the append that an event was in.
type Outcome = Result<Taken, LogError>;

/// What gathers, for all sources.
pub(super) struct Gathering {
    outlet: Arc<Outlet>,
    /// For each source what is live, then what is historical.
    lanes: Vec<Mutex<Lane>>,
}

#[derive(Default)]
struct Lane {
    gathered: Vec<Vec<u8>>,
    last: Writer,
    waiting: Vec<oneshot::Sender<Outcome>>,
    under_way: usize,
}

/// What goes to the log at once.
struct Group {
    records: Vec<NewRecord>,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

impl Gathering {
    pub(super) fn new(outlet: Arc<Outlet>, sources: u32) -> Self {
        let lanes = 2 * usize::try_from(sources).unwrap_or(usize::MAX / 2);
        Self { outlet, lanes: (0..lanes).map(|_| Mutex::default()).collect() }
    }

    /// Has a request's events for one source appended with others' and tells here how that ended. `too_large` is given those
    /// that fit no record.
    pub(super) fn append<'a>(
        self: &Arc<Self>,
        source: Source,
        historical: bool,
        events: impl Iterator<Item = &'a Placed<'a>>,
        too_large: impl FnMut(&Placed<'_>),
    ) -> Option<oneshot::Receiver<Outcome>> {
        let at = 2 * usize::try_from(source.0).ok()? + usize::from(historical);
        let (tell, told) = oneshot::channel();
        let mut lane = self.lane(at)?;
        lane.join(events, too_large);
        lane.waiting.push(tell);
        if lane.under_way < UNDER_WAY {
            lane.under_way += 1;
            let group = lane.take(historical);
            drop(lane);
            tokio::spawn(Arc::clone(self).carry(at, source, historical, group));
        }
        Some(told)
    }

    /// Brings one group after the other to the log, until nothing has gathered meanwhile.
    async fn carry(self: Arc<Self>, at: usize, source: Source, historical: bool, mut group: Group) {
        loop {
            let Group { records, waiting } = group;
            let outcome = match records.is_empty() {
                // Nothing of it fits a record; each is told so by its request.
                true => Ok(Taken::Logged),
                // A lane must go on, whatever happens.
                false => AssertUnwindSafe(self.outlet.append(source, records)).catch_unwind().await.unwrap_or_else(|_| Err(broke_off())),
            };
            // Whoever does not listen any more has gone with the process's runtime.
            waiting.into_iter().for_each(|waiting| drop(waiting.send(outcome.clone())));
            let Some(mut lane) = self.lane(at) else { return };
            if lane.waiting.is_empty() {
                lane.under_way -= 1;
                return;
            }
            group = lane.take(historical);
        }
    }

    fn lane(&self, at: usize) -> Option<MutexGuard<'_, Lane>> {
        Some(self.lanes.get(at)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn broke_off() -> LogError {
    LogError::Unavailable("the append broke off: this is a bug".to_owned())
}

impl Lane {
    fn join<'a>(&mut self, events: impl Iterator<Item = &'a Placed<'a>>, mut too_large: impl FnMut(&Placed<'_>)) {
        for placed in events {
            if self.push(placed).is_err() {
                too_large(placed);
            }
        }
        if self.last.bytes() >= RECORD_BYTES {
            self.gathered.push(self.last.finish());
        }
    }

    fn push(&mut self, placed: &Placed<'_>) -> Result<(), Full> {
        let others = placed.others.as_deref();
        self.last.push(&placed.event, others).or_else(|full| {
            if self.last.is_empty() {
                return Err(full);
            }
            self.gathered.push(self.last.finish());
            self.last.push(&placed.event, others)
        })
    }

    fn take(&mut self, historical: bool) -> Group {
        if !self.last.is_empty() {
            self.gathered.push(self.last.finish());
        }
        let record = |payload| NewRecord { kind: RecordKind::ViewBatch, historical, payload };
        let records = std::mem::take(&mut self.gathered).into_iter().map(record).collect();
        Group { records, waiting: std::mem::take(&mut self.waiting) }
    }
}
