//! Requests: what is sent next, and what an answer, or none, does to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinError};

use super::{Driver, Flight, Kept};
use crate::answer::{Again, Cause};
use crate::batch::Batch;
use crate::deliver::Delivery;
use crate::observer::{DropReason, LateRetry, Retrying};
use crate::pace::Gate;
use crate::spool::{Slot, earliest};
use crate::view::now_ms;

impl Driver {
    /// Starts as many requests as may be under way.
    pub(super) fn dispatch(&mut self, now: Instant) {
        while self.pace.gate(now, self.requests.len()) == Gate::Open && !self.is_late(now) {
            let Some((batch, slots)) = self.next_batch(now) else { break };
            self.start(batch, slots, now);
            self.fill(now);
        }
    }

    /// What is sent next, and where it lies on disk: first what failed, then the spool, then what is new.
    pub(super) fn next_batch(&mut self, now: Instant) -> Option<(Batch, Option<Vec<Slot>>)> {
        if let Some(batch) = self.failed.pop_front() {
            return Some((batch, None));
        }
        if self.spool_works(now)
            && let Some((batch, slots)) = self.take_from_disk(now)
        {
            return Some((batch, Some(slots)));
        }
        // If the spool is full, what is in it is older; if it is empty, this is more than ever fits it.
        let is_next = !self.goes_by_spool(now) || self.spool.as_ref().is_some_and(|spool| spool.events() == 0);
        self.ready.take_if(|_| is_next).map(|batch| (batch, None))
    }

    pub(super) fn take_from_disk(&mut self, now: Instant) -> Option<(Batch, Vec<Slot>)> {
        loop {
            let spool = self.spool.as_mut()?;
            let parcel = match spool.next(self.settings.cut.events, self.settings.cut.bytes) {
                Ok(parcel) => parcel?,
                Err(error) => {
                    self.rest_disk(&error, now);
                    return None;
                }
            };
            let damaged = parcel.damaged.iter().map(|slot| u64::from(slot.events)).sum();
            let noted = spool.sending(&parcel.slots, now_ms());
            if noted.is_err() {
                spool.put_back(&parcel.slots, parcel.batch.doubt_since_ms, now_ms());
            }
            if damaged > 0 {
                self.shared.count.drop_events(DropReason::SpoolDamaged, damaged);
                self.done_on_disk(&parcel.damaged, now);
            }
            match noted {
                Ok(()) if parcel.slots.is_empty() => {}
                Ok(()) => return Some((parcel.batch, parcel.slots)),
                Err(error) => {
                    self.rest_disk(&error, now);
                    return None;
                }
            }
        }
    }

    pub(super) fn start(&mut self, batch: Batch, slots: Option<Vec<Slot>>, now: Instant) {
        let Batch { body, events, from_seq, doubt_since_ms } = batch;
        let begun_ms = now_ms();
        if let Some(in_doubt_for) = doubt_since_ms.map(|since| Duration::from_millis(begun_ms.saturating_sub(since)))
            && in_doubt_for > self.settings.dedup_window
        {
            let late = LateRetry { events: events.into(), in_doubt_for };
            self.tell(|observer| observer.late_retry(&late));
        }
        let body = Arc::new(body);
        let request = self.requests.spawn(Arc::clone(&self.http).deliver(Arc::clone(&body), events));
        let kept = slots.map_or(Kept::Memory { body, from_seq }, Kept::Disk);
        self.flights.insert(request.id(), Flight { kept, events, doubt_since_ms, begun: now, begun_ms });
    }

    /// A request has ended.
    pub(super) fn settle(&mut self, ended: Result<(Id, Delivery), JoinError>, now: Instant) {
        let (id, delivery) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let cause = Cause::NoAnswer(format!("the request was broken off: {error}"));
                (error.id(), Delivery::Again(Again { cause, retry_after: None, in_doubt: true }))
            }
        };
        let Some(flight) = self.flights.remove(&id) else { return };
        match delivery {
            Delivery::Again(again) => self.again(flight, again, now),
            Delivery::Answered { accepted, rejected_total, rejected } => {
                self.pace.succeeded(flight.begun);
                if let Kept::Disk(slots) = &flight.kept {
                    self.done_on_disk(slots, now);
                }
                self.shared.count.accepted.fetch_add(accepted, Ordering::Relaxed);
                self.shared.count.rejected.fetch_add(rejected_total, Ordering::Relaxed);
                self.tell(|observer| {
                    if accepted > 0 {
                        observer.accepted(accepted);
                    }
                    rejected.iter().for_each(|rejected| observer.rejected(rejected));
                });
            }
        }
    }

    pub(super) fn done_on_disk(&mut self, slots: &[Slot], now: Instant) {
        let Some(spool) = &mut self.spool else { return };
        let done = spool.done(slots, now_ms());
        self.shared.count.on_disk.store(spool.events(), Ordering::Relaxed);
        if let Err(error) = done {
            self.rest_disk(&error, now);
        }
    }

    /// A request failed: its events wait for the next try, on disk if that is possible.
    pub(super) fn again(&mut self, flight: Flight, again: Again, now: Instant) {
        let Again { cause, retry_after, in_doubt } = again;
        let wait = self.pace.failed(flight.begun, now, retry_after, random());
        let retry = Retrying { events: flight.events.into(), failures: self.pace.failures(), wait, cause, in_doubt };
        self.tell(|observer| observer.retrying(&retry));
        self.keep(flight, in_doubt, now);
    }

    pub(super) fn keep(&mut self, flight: Flight, in_doubt: bool, now: Instant) {
        let Flight { kept, events, doubt_since_ms, begun_ms, .. } = flight;
        let doubt_since_ms = earliest(doubt_since_ms, in_doubt.then_some(begun_ms));
        match kept {
            Kept::Disk(slots) => {
                if let Some(spool) = &mut self.spool {
                    spool.put_back(&slots, doubt_since_ms, now_ms());
                }
            }
            Kept::Memory { body, from_seq } => {
                let body = Arc::try_unwrap(body).unwrap_or_else(|shared| shared.to_vec());
                let batch = Batch { body, events, from_seq, doubt_since_ms };
                let kept = if self.spool_works(now) { self.put_on_disk(batch, now) } else { Err(batch) };
                if let Err(batch) = kept {
                    let place = self.failed.partition_point(|other| other.from_seq < batch.from_seq);
                    self.failed.insert(place, batch);
                }
            }
        }
    }
}

/// Any number, for the jitter.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
