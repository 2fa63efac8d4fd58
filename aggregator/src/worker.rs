//! The threads that act for owners: they read the log, hand loads and flushes to the store, and wait.
//!
//! ```text
//! log ──read──> worker thread (its owners, in turn) ──load, write──> runtime ──> store, dead-letter log
//!                      ▲                                                │
//!                      └────────────── inbox: what came of it ◄─────────┘
//! ```
//!
//! Each owner lives on one thread, so there is no lock on the way of an event. Nothing is decided here: what to do next
//! comes from [`Owner`], and what came of it goes back there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ingest::{EventLog, LogError};
use schemas::{FoldSettings, Millis, NewRecord, Record, Source, StoredRow};
use tokio::runtime::Handle;

use crate::fold::Load;
use crate::owner::{Now, Owner, OwnerOptions, OwnerStatus, Write, WriteKind};
use crate::recovery::SourceError;
use crate::store::{CountStore, StoreError};

/// The source of the dead-letter log, which has one.
const DEAD_LETTERS: Source = Source(0);
/// How long a watcher waits for the log before it looks whether it should stop.
const WATCH: Duration = Duration::from_millis(500);
/// How long after a failed tick, or a failed start of a source, it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often a busy worker shows its state.
const SHOW: Duration = Duration::from_millis(200);

/// What the workers work on.
#[derive(Clone)]
pub struct Backends {
    /// The log of events.
    pub log: Arc<dyn EventLog>,
    /// The log of refused events; it has one source.
    pub dead_letters: Arc<dyn EventLog>,
    /// The store of cells.
    pub store: Arc<dyn CountStore>,
}

/// The state of one source as its worker last saw it.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceState {
    /// Its checkpoint is being read.
    Starting,
    /// It recovers or runs.
    Owned(Box<OwnerStatus>),
    /// It stopped: the counts of this source do not go on until somebody acts.
    Stopped(SourceError),
}

/// The running workers.
pub struct Workers {
    states: Arc<Mutex<BTreeMap<Source, SourceState>>>,
    stop: Arc<AtomicBool>,
    inboxes: Vec<Sender<Message>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` worker threads that own all sources of the log between them.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        backends: &Backends,
        settings: &FoldSettings,
        options: OwnerOptions,
        threads: usize,
        runtime: &Handle,
    ) -> std::io::Result<Self> {
        let sources: Vec<Source> = (0..backends.log.sources().get()).map(Source).collect();
        let threads = threads.clamp(1, sources.len());
        let states = Arc::new(Mutex::new(sources.iter().map(|source| (*source, SourceState::Starting)).collect()));
        let mut workers = Self { states, stop: Arc::new(AtomicBool::new(false)), inboxes: Vec::new(), threads: Vec::new() };
        for index in 0..threads {
            let (inbox, mail) = channel();
            let mine = sources.iter().skip(index).step_by(threads).map(|source| Seat::new(*source)).collect();
            let worker = Worker {
                backends: backends.clone(),
                settings: settings.clone(),
                options,
                runtime: runtime.clone(),
                states: Arc::clone(&workers.states),
                stop: Arc::clone(&workers.stop),
                asleep: Arc::new(AtomicBool::new(false)),
                inbox: inbox.clone(),
                mail,
                seats: mine,
                began: Instant::now(),
            };
            workers.watch(&worker, &backends.log, index)?;
            workers.inboxes.push(inbox);
            workers.threads.push(std::thread::Builder::new().name(format!("fold-{index}")).spawn(move || worker.run())?);
        }
        Ok(workers)
    }

    /// Wakes a sleeping worker when the log grows.
    fn watch(&mut self, worker: &Worker, log: &Arc<dyn EventLog>, index: usize) -> std::io::Result<()> {
        let (log, stop, asleep, inbox) = (Arc::clone(log), Arc::clone(&self.stop), Arc::clone(&worker.asleep), worker.inbox.clone());
        let watch = move || {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let now = log.wait(seen, WATCH);
                let grown = now != seen;
                seen = now;
                if grown && asleep.swap(false, Ordering::AcqRel) && inbox.send(Message::LogGrew).is_err() {
                    return;
                }
            }
        };
        self.threads.push(std::thread::Builder::new().name(format!("log-watch-{index}")).spawn(watch)?);
        Ok(())
    }

    /// The state of every source.
    pub fn states(&self) -> BTreeMap<Source, SourceState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something that reads the states and outlives this handle, for metrics and readiness.
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.states))
    }

    /// Flushes and checkpoints everything that has been read, and ends the threads. Blocks until then, or until `patience` has passed.
    /// Returns whether everything was stored.
    pub fn drain(mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        for inbox in &self.inboxes {
            // A worker that has ended has nothing to drain.
            let _ = inbox.send(Message::Drain(deadline));
        }
        self.stop.store(true, Ordering::Relaxed);
        let mut clean = true;
        for thread in self.threads.drain(..) {
            clean &= thread.join().is_ok();
        }
        let stored = |state: &SourceState| match state {
            SourceState::Owned(status) => status.recovering > 0 || status.stored == status.position,
            SourceState::Starting => true,
            SourceState::Stopped(_) => false,
        };
        clean && self.states().values().all(stored)
    }
}

/// Reads the states of sources.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Mutex<BTreeMap<Source, SourceState>>>);

impl Observer {
    /// The state of every source.
    pub fn states(&self) -> BTreeMap<Source, SourceState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

enum Message {
    LogGrew,
    Started(Source, Result<Box<Owner>, StartFailure>),
    Loaded(Source, Load, Result<Vec<Option<StoredRow>>, StoreError>),
    Written(Source, u64, Result<(), WriteFailure>),
    TickFailed(Source),
    Drain(Instant),
}

enum StartFailure {
    /// The store or the log does not answer: try again.
    Later(String),
    /// It must not start.
    Never(SourceError),
}

enum WriteFailure {
    Later(String),
    Never(String),
}

/// One source and what is under way for it.
struct Seat {
    source: Source,
    owner: Option<Box<Owner>>,
    starting: bool,
    start_at: Duration,
    tick_at: Option<Duration>,
    stopped: bool,
}

impl Seat {
    const fn new(source: Source) -> Self {
        Self { source, owner: None, starting: false, start_at: Duration::ZERO, tick_at: None, stopped: false }
    }
}

struct Worker {
    backends: Backends,
    settings: FoldSettings,
    options: OwnerOptions,
    runtime: Handle,
    states: Arc<Mutex<BTreeMap<Source, SourceState>>>,
    stop: Arc<AtomicBool>,
    asleep: Arc<AtomicBool>,
    inbox: Sender<Message>,
    mail: Receiver<Message>,
    seats: Vec<Seat>,
    began: Instant,
}

impl Worker {
    fn run(mut self) {
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
            wanted.is_some_and(|(from, _)| self.backends.log.ends(seat.source).is_ok_and(|ends| ends.end > from))
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
                self.start_owner(seat.source);
            }
            return false;
        };
        if let Some(load) = owner.poll_load(now) {
            self.load(seat.source, load);
        }
        if let Some(write) = owner.poll_write(now) {
            self.write(seat.source, write);
        }
        if owner.poll_tick(now) || seat.tick_at.take_if(|at| *at <= now.elapsed).is_some() {
            self.tick(seat.source);
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
        let read = self.backends.log.read(source, from, limit, &mut each);
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

    fn start_owner(&self, source: Source) {
        let (backends, settings, options, inbox, now) =
            (self.backends.clone(), self.settings.clone(), self.options, self.inbox.clone(), self.now());
        self.runtime.spawn(async move {
            let outcome = open_owner(source, &backends, settings, options, now).await;
            // The worker may have ended meanwhile.
            let _ = inbox.send(Message::Started(source, outcome));
        });
    }

    fn load(&self, source: Source, load: Load) {
        let (store, inbox) = (Arc::clone(&self.backends.store), self.inbox.clone());
        self.runtime.spawn(async move {
            let rows = store.read_cells(load.keys.clone()).await;
            let _ = inbox.send(Message::Loaded(source, load, rows));
        });
    }

    fn write(&self, source: Source, write: Write) {
        let (backends, inbox) = (self.backends.clone(), self.inbox.clone());
        self.runtime.spawn(async move {
            let outcome = perform(source, write.what, &backends).await;
            let _ = inbox.send(Message::Written(source, write.id, outcome));
        });
    }

    fn tick(&self, source: Source) {
        let (log, inbox) = (Arc::clone(&self.backends.log), self.inbox.clone());
        self.runtime.spawn(async move {
            if let Err(error) = log.append(source, vec![NewRecord::tick()]).await {
                tracing::warn!(%source, %error, "a tick could not be appended");
                let _ = inbox.send(Message::TickFailed(source));
            }
        });
    }
}

async fn open_owner(
    source: Source,
    backends: &Backends,
    settings: FoldSettings,
    options: OwnerOptions,
    now: Now,
) -> Result<Box<Owner>, StartFailure> {
    let checkpoints = backends.store.read_checkpoints().await.map_err(|error| {
        let detail = error.to_string();
        if is_passing(&error) {
            StartFailure::Later(detail)
        } else {
            StartFailure::Never(SourceError::Failed { source_id: source, detail })
        }
    })?;
    let checkpoint = checkpoints.into_iter().find_map(|(owner, checkpoint)| (owner == source).then_some(checkpoint));
    let ends = backends.log.ends(source).map_err(|error| StartFailure::Later(error.to_string()))?;
    let owner = Owner::new(source, settings, options, checkpoint, ends, now).map_err(StartFailure::Never)?;
    Ok(Box::new(owner))
}

async fn perform(source: Source, what: WriteKind, backends: &Backends) -> Result<(), WriteFailure> {
    let of_store = |error: StoreError| {
        if is_passing(&error) { WriteFailure::Later(error.to_string()) } else { WriteFailure::Never(error.to_string()) }
    };
    match what {
        WriteKind::DeadLetters(letters) => match backends.dead_letters.append(DEAD_LETTERS, letters).await {
            Ok(_) => Ok(()),
            Err(error @ LogError::Busy { .. }) => Err(WriteFailure::Later(error.to_string())),
            Err(error) => Err(WriteFailure::Never(error.to_string())),
        },
        WriteKind::Rows(rows) => backends.store.write_rows(rows.to_vec()).await.map_err(of_store),
        WriteKind::Checkpoint(checkpoint) => backends.store.write_checkpoint(source, *checkpoint).await.map_err(of_store),
    }
}

const fn is_passing(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}

/// A fraction in `[0, 1)` that differs between callers: the low digits of the clock are random enough to part retries.
fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    f64::from(nanos % 1_000_000) / 1e6
}
