//! One worker thread: gives its owners their turns, sleeps when none can move, and takes the mail.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ingest::LogError;
use schemas::{FoldSettings, Millis, Record, Source};

use super::act::{Actor, Message, StartFailure, WriteFailure, is_passing};
use super::{SourceState, WATCH};
use crate::owner::{Now, Owner, OwnerOptions};
use crate::recovery::SourceError;
use crate::store::StoreError;

/// How long after a failed tick, or a failed start of a source, it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often a busy worker shows its state.
const SHOW: Duration = Duration::from_millis(200);

/// One source and what is under way for it.
pub(super) struct Seat {
    source: Source,
    owner: Option<Box<Owner>>,
    starting: bool,
    start_at: Duration,
    tick_at: Option<Duration>,
    stopped: bool,
}

impl Seat {
    pub(super) const fn new(source: Source) -> Self {
        Self { source, owner: None, starting: false, start_at: Duration::ZERO, tick_at: None, stopped: false }
    }
}

pub(super) struct Worker {
    pub(super) actor: Actor,
    pub(super) settings: FoldSettings,
    pub(super) options: OwnerOptions,
    pub(super) states: Arc<Mutex<BTreeMap<Source, SourceState>>>,
    pub(super) stop: Arc<AtomicBool>,
    /// Raised while the worker sleeps: whoever lowers it has to wake it.
    pub(super) asleep: Arc<AtomicBool>,
    pub(super) mail: Receiver<Message>,
    pub(super) seats: Vec<Seat>,
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
        let now = self.now();
        let deadline = self.seats.iter().filter(|seat| !seat.stopped).map(|seat| match &seat.owner {
            Some(owner) => seat.tick_at.map_or(owner.deadline(), |tick| tick.min(owner.deadline())),
            None if seat.starting => Duration::MAX,
            None => seat.start_at,
        });
        let wait = deadline.min().unwrap_or(WATCH).saturating_sub(now.elapsed).min(WATCH);
        if !self.log_has_more(now) {
            match self.mail.recv_timeout(wait) {
                Ok(message) => self.take(message, drain_until),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        self.asleep.store(false, Ordering::Release);
    }

    fn log_has_more(&self, now: Now) -> bool {
        self.seats.iter().any(|seat| {
            let wanted = seat.owner.as_ref().and_then(|owner| owner.wants(now));
            wanted.is_some_and(|(from, _)| self.actor.backends.log.ends(seat.source).is_ok_and(|ends| ends.end > from))
        })
    }

    fn is_drained(&self) -> bool {
        self.seats.iter().all(|seat| seat.stopped || seat.owner.as_ref().is_none_or(|owner| owner.is_drained()))
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
                self.actor.start_owner(seat.source, self.settings.clone(), self.options, now);
            }
            return false;
        };
        if let Some(load) = owner.poll_load(now) {
            self.actor.load(seat.source, load);
        }
        if let Some(write) = owner.poll_write(now) {
            self.actor.write(seat.source, write);
        }
        if owner.poll_tick(now) || seat.tick_at.take_if(|at| *at <= now.elapsed).is_some() {
            self.actor.tick(seat.source);
        }
        match self.read(seat.source, owner, now) {
            Ok(read) => read,
            Err(error) => {
                self.stop_source(seat, error);
                false
            }
        }
    }

    fn read(&self, source: Source, owner: &mut Owner, now: Now) -> Result<bool, SourceError> {
        let Some((from, limit)) = owner.wants(now) else { return Ok(false) };
        let mut refused = None;
        let mut each = |record: Record<'_>| match owner.record(&record, now) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        };
        let read = self.actor.backends.log.read(source, from, limit, &mut each);
        match (refused, read) {
            (Some(error), _) => Err(error),
            (None, Ok(next)) => Ok(next > from),
            (None, Err(error @ (LogError::Busy { .. } | LogError::Failed(_)))) => {
                tracing::warn!(%source, %error, "the log cannot be read now");
                Ok(false)
            }
            (None, Err(error)) => Err(SourceError::Failed { source_id: source, detail: error.to_string() }),
        }
    }

    fn take(&mut self, message: Message, drain_until: &mut Option<Instant>) {
        let now = self.now();
        let jitter = jitter();
        match message {
            Message::LogGrew => {}
            Message::Started(source, outcome) => self.seated(source, outcome, now),
            Message::Loaded(source, load, rows) => {
                self.with(source, |owner| match &rows {
                    Ok(rows) => owner.loaded(&load, rows),
                    Err(_) => owner.load_failed(&load, now, jitter),
                });
                if let Err(error) = rows {
                    self.store_failed(source, &error);
                }
            }
            Message::Written(source, id, outcome) => {
                self.with(source, |owner| match outcome {
                    Ok(()) => owner.written(id, now),
                    Err(_) => owner.write_failed(id, now, jitter),
                });
                match outcome {
                    Ok(()) => {}
                    Err(WriteFailure::Later(detail)) => tracing::warn!(%source, detail, "a flush could not be written; it is tried again"),
                    Err(WriteFailure::Never(detail)) => self.fail(source, detail),
                }
            }
            Message::TickFailed(source) => {
                if let Some(seat) = self.seats.iter_mut().find(|seat| seat.source == source) {
                    seat.tick_at = Some(now.elapsed + TRY_AGAIN);
                }
            }
            Message::Drain(until) => {
                *drain_until = Some(until);
                self.seats.iter_mut().filter_map(|seat| seat.owner.as_mut()).for_each(|owner| owner.drain());
            }
        }
    }

    fn with(&mut self, source: Source, act: impl FnOnce(&mut Owner)) {
        if let Some(owner) = self.seats.iter_mut().find(|seat| seat.source == source).and_then(|seat| seat.owner.as_mut()) {
            act(owner);
        }
    }

    fn seated(&mut self, source: Source, outcome: Result<Box<Owner>, StartFailure>, now: Now) {
        let Some(seat) = self.seats.iter_mut().find(|seat| seat.source == source) else { return };
        seat.starting = false;
        match outcome {
            Ok(owner) => seat.owner = Some(owner),
            Err(StartFailure::Later(detail)) => {
                tracing::warn!(%source, detail, "the source cannot start yet; it is tried again");
                seat.start_at = now.elapsed + TRY_AGAIN;
            }
            Err(StartFailure::Never(error)) => {
                let mut seats = std::mem::take(&mut self.seats);
                if let Some(seat) = seats.iter_mut().find(|seat| seat.source == source) {
                    self.stop_source(seat, error);
                }
                self.seats = seats;
            }
        }
    }

    fn store_failed(&mut self, source: Source, error: &StoreError) {
        if is_passing(error) {
            tracing::warn!(%source, %error, "cells could not be read; it is tried again");
        } else {
            self.fail(source, error.to_string());
        }
    }

    fn fail(&mut self, source: Source, detail: String) {
        let mut seats = std::mem::take(&mut self.seats);
        if let Some(seat) = seats.iter_mut().find(|seat| seat.source == source) {
            self.stop_source(seat, SourceError::Failed { source_id: source, detail });
        }
        self.seats = seats;
    }

    fn stop_source(&self, seat: &mut Seat, error: SourceError) {
        tracing::error!(source = %seat.source, %error, "the source has stopped");
        seat.stopped = true;
        seat.owner = None;
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(seat.source, SourceState::Stopped(error));
    }

    fn publish(&self) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        for seat in &self.seats {
            if let Some(owner) = &seat.owner {
                states.insert(seat.source, SourceState::Owned(Box::new(owner.status())));
            }
        }
    }
}

/// A fraction in `[0, 1)` that differs between callers: the low digits of the clock are random enough to part retries.
fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    f64::from(nanos % 1_000_000) / 1e6
}
