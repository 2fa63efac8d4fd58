//! From the queue to a batch, and to the spool if that is its way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Driver;
use crate::batch::Batch;
use crate::event::Event;
use crate::observer::DropReason;
use crate::spool::SpoolError;

/// Longer events are none: every id has at most 128 bytes.
const MAX_EVENT_BYTES: usize = 64 * 1024;
/// A disk that failed is tried again after this.
const DISK_REST: Duration = Duration::from_secs(5);

impl Driver {
    /// Makes batches, and puts them into the spool if that is their way. Afterwards at most one is ready for a request.
    pub(super) fn fill(&mut self, now: Instant) {
        loop {
            if self.ready.is_none() {
                self.ready = self.gather(now);
            }
            let by_spool = self.goes_by_spool(now);
            let (Some(batch), true) = (self.ready.take_if(|_| by_spool), by_spool) else { break };
            if let Err(batch) = self.put_on_disk(batch, now) {
                self.ready = Some(batch);
                if self.spool_works(now) {
                    // It is full: when something was answered there is room again.
                    break;
                }
            }
        }
    }

    /// The next batch that is full or due.
    pub(super) fn gather(&mut self, now: Instant) -> Option<Batch> {
        let due = self.is_due(now);
        if !due && !self.is_enough_for_a_batch() {
            if self.linger_until.is_none() && self.shared.queue.len() > 0 {
                self.linger_until = Some(now + self.settings.cut.linger);
            }
            return None;
        }
        loop {
            let Some(event) = self.taken.next() else {
                let chunk = self.shared.queue.take();
                if chunk.is_empty() {
                    break;
                }
                self.taken = chunk.into_iter();
                continue;
            };
            let seq = self.seq;
            self.seq += 1;
            if let Some(full) = self.screened(event).and_then(|event| self.batcher.push(&event, seq, now)) {
                return Some(full);
            }
        }
        self.linger_until = None;
        if due { self.batcher.take() } else { None }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        let hurry = self.closing.is_some() || !self.flushes.is_empty();
        hurry || self.linger_until.into_iter().chain(self.batcher.due()).any(|due| due <= now)
    }

    pub(super) fn is_enough_for_a_batch(&self) -> bool {
        let batch = usize::try_from(self.settings.cut.events).unwrap_or(usize::MAX);
        let begun = usize::try_from(self.batcher.events()).unwrap_or(usize::MAX);
        self.taken.len() + begun + self.shared.queue.len() >= batch
    }

    /// The event as it is to be sent, if it is.
    pub(super) fn screened(&self, event: Event) -> Option<Event> {
        let event = match &self.settings.before_send {
            None => Some(event),
            Some(hook) => catch_unwind(AssertUnwindSafe(|| hook(event))).unwrap_or(None),
        };
        let Some(event) = event else {
            self.shared.count.drop_events(DropReason::BeforeSend, 1);
            return None;
        };
        if event.weight() > MAX_EVENT_BYTES {
            self.shared.count.drop_events(DropReason::TooLarge, 1);
            return None;
        }
        Some(event)
    }

    pub(super) fn spool_works(&self, now: Instant) -> bool {
        self.spool.is_some() && self.disk_rests_until.is_none_or(|until| until <= now)
    }

    pub(super) fn goes_by_spool(&self, now: Instant) -> bool {
        let waits = self.settings.spool_first
            || self.pace.failures() > 0
            || self.spool.as_ref().is_some_and(|spool| !spool.is_idle())
            || self.is_late(now);
        waits && self.spool_works(now)
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.deadline <= now)
    }

    /// Puts a batch on disk; gives it back if that cannot be done now.
    pub(super) fn put_on_disk(&mut self, batch: Batch, now: Instant) -> Result<(), Batch> {
        let Some(spool) = &mut self.spool else { return Err(batch) };
        match spool.append(&batch) {
            Ok(()) => {
                let events = u64::from(batch.events);
                self.shared.count.on_disk.store(spool.events(), Ordering::Relaxed);
                self.tell(|observer| observer.spooled(events));
                Ok(())
            }
            Err(SpoolError::Full) => Err(batch),
            Err(error) => {
                self.rest_disk(&error, now);
                Err(batch)
            }
        }
    }

    pub(super) fn rest_disk(&mut self, error: &SpoolError, now: Instant) {
        self.disk_rests_until = Some(now + DISK_REST);
        let what = error.to_string();
        self.tell(|observer| observer.trouble(&what));
    }
}
