//! One worker thread: gives its owners their turns, sleeps when none can move, and takes the mail.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ingest::{LogError, Membership};
use schemas::{FoldSettings, Millis, Record, Source};

use super::act::{Actor, Message, StartFailure, WriteFailure, is_passing};
use super::seat::{Seat, SeatId};
use super::{SourceState, WATCH};
use crate::owner::{Now, Owner, OwnerOptions};
use crate::recovery::SourceError;
use crate::store::StoreError;

/// How long after a failed tick, start or read of a source it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often a busy worker shows its state.
const SHOW: Duration = Duration::from_millis(200);

pub(super) struct Worker {
    pub(super) actor: Actor,
    pub(super) membership: Arc<dyn Membership>,
    pub(super) settings: FoldSettings,
    pub(super) options: OwnerOptions,
    pub(super) states: Arc<Mutex<BTreeMap<Source, SourceState>>>,
    pub(super) stop: Arc<AtomicBool>,
    /// Raised while the worker sleeps: whoever lowers it has to wake it.
    pub(super) asleep: Arc<AtomicBool>,
    pub(super) mail: Receiver<Message>,
    pub(super) seats: Vec<Seat>,
    /// The growth of the log that has been read.
    pub(super) seen: u64,
    pub(super) began: Instant,
}

impl Worker {
    pub(super) fn run(mut self) {
        let mut drain_until = None;
        let mut shown = Instant::now();
        loop {
            if shown.elapsed() >= SHOW {
                self.publish();
                shown = Instant::now();
            }
            while let Ok(message) = self.mail.try_recv() {
                self.take(message, &mut drain_until);
            }
            if drain_until.is_some_and(|until| Instant::now() >= until || self.is_drained()) {
                break;
            }
            self.let_go();
            // Looked at before the log is read: what comes later is growth.
            self.seen = self.actor.backends.log.wait(self.seen, Duration::ZERO);
            let mut seats = std::mem::take(&mut self.seats);
            let moved = seats.iter_mut().map(|seat| self.turn(seat)).fold(false, |moved, turn| moved | turn);
            self.seats = seats;
            if !moved {
                self.sleep(&mut drain_until);
            }
        }
        self.publish();
    }

    fn now(&self) -> Now {
        Now { wall: Millis::now(), elapsed: self.began.elapsed() }
    }

    /// Sleeps until there is mail, the log has grown, or an owner has something to do by the clock.
    fn sleep(&mut self, drain_until: &mut Option<Instant>) {
        self.publish();
        // Announced before the last look at the log, so that growth in between wakes it.
        self.asleep.store(true, Ordering::Release);
        let deadline = self.seats.iter().map(Seat::deadline).min().unwrap_or(Duration::MAX);
        let wait = deadline.saturating_sub(self.now().elapsed).min(WATCH);
        if self.actor.backends.log.wait(self.seen, Duration::ZERO) == self.seen {
            match self.mail.recv_timeout(wait) {
                Ok(message) => self.take(message, drain_until),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        self.asleep.store(false, Ordering::Release);
    }

    fn is_drained(&self) -> bool {
        self.seats.iter().all(Seat::is_drained)
    }

    /// Lets go of the sources that are given away and have stored what they had.
    fn let_go(&mut self) {
        let now = Instant::now();
        for seat in self.seats.extract_if(.., |seat| seat.is_done(now)).collect::<Vec<_>>() {
            if !seat.is_drained() {
                tracing::warn!(source = %seat.id.source, "not everything was stored in time; the next owner reads the rest again");
            }
            self.report(&seat);
            self.states.lock().unwrap_or_else(PoisonError::into_inner).remove(&seat.id.source);
            self.membership.release(seat.id.source);
            if let Some(id) = seat.next {
                self.seat(id);
            }
        }
    }

    fn seat(&mut self, id: SeatId) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(id.source, SourceState::Starting);
        self.seats.push(Seat::new(id));
    }

    /// Tells lag tools how far a source is stored.
    fn report(&self, seat: &Seat) {
        if let Some(owner) = seat.owner.as_ref().filter(|owner| seat.reported != Some(owner.stored())) {
            self.membership.report(seat.id.source, owner.stored());
        }
    }

    /// One turn of a source: whatever can be done now, without waiting. Returns whether it read anything.
    fn turn(&self, seat: &mut Seat) -> bool {
        let now = self.now();
        if seat.stopped {
            return false;
        }
        let Some(owner) = &mut seat.owner else {
            if !seat.starting && seat.start_at <= now.elapsed && !self.stop.load(Ordering::Relaxed) {
                seat.starting = true;
                self.actor.start_owner(seat.id, self.settings.clone(), self.options, now);
            }
            return false;
        };
        if let Some(load) = owner.poll_load(now) {
            self.actor.load(seat.id, load);
        }
        if let Some(write) = owner.poll_write(now) {
            self.actor.write(seat.id, write);
        }
        if owner.poll_tick(now) || seat.tick_at.take_if(|at| *at <= now.elapsed).is_some() {
            self.actor.tick(seat.id);
        }
        if seat.read_at > now.elapsed {
            return false;
        }
        match self.read(seat.id.source, owner, now) {
            Ok(Read::Some) => {
                seat.read_at = Duration::ZERO;
                true
            }
            Ok(Read::None) => {
                seat.read_at = Duration::ZERO;
                false
            }
            Ok(Read::Later) => {
                seat.read_at = now.elapsed + TRY_AGAIN;
                false
            }
            Err(error) => {
                self.stop_source(seat, error);
                false
            }
        }
    }

    fn read(&self, source: Source, owner: &mut Owner, now: Now) -> Result<Read, SourceError> {
        let Some((from, limit)) = owner.wants(now) else { return Ok(Read::None) };
        let mut refused = None;
        let mut each = |records: &[Record<'_>]| match owner.records(records, now) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        };
        let read = self.actor.backends.log.read_runs(source, from, limit, &mut each);
        match (refused, read) {
            (Some(error), _) => Err(error),
            (None, Ok(next)) if next > from => Ok(Read::Some),
            (None, Ok(_)) => Ok(Read::None),
            (None, Err(error @ (LogError::Busy { .. } | LogError::Unavailable(_) | LogError::Failed(_)))) => {
                tracing::warn!(%source, %error, "the log cannot be read now; it is tried again");
                Ok(Read::Later)
            }
            (None, Err(LogError::Gone { source_id, asked, start })) => Err(SourceError::Gap { source_id, next_offset: asked, start }),
            (None, Err(error)) => Err(SourceError::Failed { source_id: source, detail: error.to_string() }),
        }
    }

    fn take(&mut self, message: Message, drain_until: &mut Option<Instant>) {
        let now = self.now();
        let jitter = jitter();
        match message {
            Message::LogGrew => {}
            Message::Take(id) => match self.seats.iter_mut().find(|seat| seat.id.source == id.source) {
                Some(leaving) => leaving.next = Some(id),
                None => self.seat(id),
            },
            Message::Give(source, until) => self.give(source, until),
            Message::Started(id, outcome) => self.seated(id, outcome, now),
            Message::Loaded(id, load, rows) => {
                self.with(id, |owner| match &rows {
                    Ok(rows) => owner.loaded(&load, rows),
                    Err(_) => owner.load_failed(&load, now, jitter),
                });
                if let Err(error) = rows {
                    self.store_failed(id, &error);
                }
            }
            Message::Written(id, write, outcome) => {
                self.with(id, |owner| match outcome {
                    Ok(()) => owner.written(write, now),
                    Err(_) => owner.write_failed(write, now, jitter),
                });
                match outcome {
                    Ok(()) => {}
                    Err(WriteFailure::Later(detail)) => {
                        tracing::warn!(source = %id.source, detail, "a flush could not be written; it is tried again");
                    }
                    Err(WriteFailure::Never(detail)) => self.fail(id, detail),
                }
            }
            Message::TickFailed(id) => {
                if let Some(seat) = self.find(id) {
                    seat.tick_at = Some(now.elapsed + TRY_AGAIN);
                }
            }
            Message::Drain(until) => {
                *drain_until = Some(until);
                self.seats.iter_mut().filter_map(|seat| seat.owner.as_mut()).for_each(|owner| owner.drain());
            }
        }
    }

    /// The seat of that term, if it has not been let go.
    fn find(&mut self, id: SeatId) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.id == id)
    }

    fn with(&mut self, id: SeatId, act: impl FnOnce(&mut Owner)) {
        if let Some(owner) = self.find(id).and_then(|seat| seat.owner.as_mut()) {
            act(owner);
        }
    }

    fn give(&mut self, source: Source, until: Instant) {
        let Some(seat) = self.seats.iter_mut().find(|seat| seat.id.source == source) else {
            self.membership.release(source);
            return;
        };
        seat.next = None;
        if seat.leaving.is_none() {
            seat.leaving = Some(until);
            if let Some(owner) = &mut seat.owner {
                owner.drain();
            }
        }
    }

    fn seated(&mut self, id: SeatId, outcome: Result<Box<Owner>, StartFailure>, now: Now) {
        let Some(seat) = self.find(id) else { return };
        seat.starting = false;
        match outcome {
            Ok(mut owner) => {
                if seat.leaving.is_some() {
                    owner.drain();
                }
                seat.owner = Some(owner);
            }
            Err(StartFailure::Later(detail)) => {
                tracing::warn!(source = %id.source, detail, "the source cannot start yet; it is tried again");
                seat.start_at = now.elapsed + TRY_AGAIN;
            }
            Err(StartFailure::Never(error)) => self.stop(id, error),
        }
    }

    fn store_failed(&mut self, id: SeatId, error: &StoreError) {
        if is_passing(error) {
            tracing::warn!(source = %id.source, %error, "cells could not be read; it is tried again");
        } else {
            self.fail(id, error.to_string());
        }
    }

    fn fail(&mut self, id: SeatId, detail: String) {
        self.stop(id, SourceError::Failed { source_id: id.source, detail });
    }

    fn stop(&mut self, id: SeatId, error: SourceError) {
        let mut seats = std::mem::take(&mut self.seats);
        if let Some(seat) = seats.iter_mut().find(|seat| seat.id == id) {
            self.stop_source(seat, error);
        }
        self.seats = seats;
    }

    fn stop_source(&self, seat: &mut Seat, error: SourceError) {
        tracing::error!(source = %seat.id.source, %error, "the source has stopped");
        seat.stopped = true;
        seat.owner = None;
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(seat.id.source, SourceState::Stopped(error));
    }

    fn publish(&mut self) {
        let mut seats = std::mem::take(&mut self.seats);
        for seat in &mut seats {
            self.report(seat);
            if let Some(owner) = &seat.owner {
                seat.reported = Some(owner.stored());
                let status = SourceState::Owned(Box::new(owner.status()));
                self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(seat.id.source, status);
            }
        }
        self.seats = seats;
    }
}

/// What came of a turn at the log.
enum Read {
    Some,
    None,
    /// It does not answer now.
    Later,
}

/// A fraction in `[0, 1)` that differs between callers: the low digits of the clock are random enough to part retries.
fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    f64::from(nanos % 1_000_000) / 1e6
}
