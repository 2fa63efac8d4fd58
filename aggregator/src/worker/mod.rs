//! The threads that act for owners: they read the log, hand loads and flushes to the store, and wait.
//!
//! ```text
//! log ──read──> worker thread (its owners, in turn) ──load, write──> runtime ──> store, dead-letter log
//!                      ▲                                                │
//!                      └────────────── inbox: what came of it ◄─────────┘
//! ```
//!
//! Which sources these are, the log's [`Membership`] says: they come and go as processes do (`sharing`).
//! Each owner lives on one thread, so there is no lock on the way of an event. Nothing is decided here: what to do next
//! comes from [`Owner`], and what came of it goes back there.

mod act;
mod seat;
mod sharing;
mod thread;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ingest::{EventLog, Membership};
use schemas::{FoldSettings, Source};
use tokio::runtime::Handle;

use crate::owner::{OwnerOptions, OwnerStatus};
use crate::recovery::SourceError;
use crate::store::CountStore;
use act::{Actor, Message};
use sharing::Sharing;
use thread::Worker;

/// How long a watcher waits for the log before it looks whether it should stop.
const WATCH: Duration = Duration::from_millis(500);

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
    membership: Arc<dyn Membership>,
    inboxes: Vec<Sender<Message>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` worker threads that fold between them the sources that `membership` gives to this process.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        backends: &Backends,
        membership: Arc<dyn Membership>,
        settings: &FoldSettings,
        options: OwnerOptions,
        threads: usize,
        runtime: &Handle,
    ) -> std::io::Result<Self> {
        let mut workers = Self {
            states: Arc::default(),
            stop: Arc::default(),
            membership: Arc::clone(&membership),
            inboxes: Vec::new(),
            threads: Vec::new(),
        };
        for index in 0..threads.max(1) {
            let (inbox, mail) = channel();
            let worker = Worker {
                actor: Actor { backends: backends.clone(), runtime: runtime.clone(), inbox: inbox.clone() },
                membership: Arc::clone(&membership),
                settings: settings.clone(),
                options,
                states: Arc::clone(&workers.states),
                stop: Arc::clone(&workers.stop),
                asleep: Arc::new(AtomicBool::new(false)),
                mail,
                seats: Vec::new(),
                seen: 0,
                began: Instant::now(),
            };
            workers.watch(&worker, &backends.log, index)?;
            workers.inboxes.push(inbox);
            workers.threads.push(std::thread::Builder::new().name(format!("fold-{index}")).spawn(move || worker.run())?);
        }
        let sharing = Sharing::new(membership, workers.inboxes.clone(), Arc::clone(&workers.states), Arc::clone(&workers.stop));
        workers.threads.push(std::thread::Builder::new().name("sharing".into()).spawn(move || sharing.run())?);
        Ok(workers)
    }

    /// Wakes a sleeping worker when the log grows.
    fn watch(&mut self, worker: &Worker, log: &Arc<dyn EventLog>, index: usize) -> std::io::Result<()> {
        let (log, stop, asleep, inbox) = (Arc::clone(log), Arc::clone(&self.stop), Arc::clone(&worker.asleep), worker.actor.inbox.clone());
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

    /// The state of every source of this process.
    pub fn states(&self) -> BTreeMap<Source, SourceState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something that reads the states and outlives this handle, for metrics and readiness.
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.states))
    }

    /// Flushes and checkpoints everything that has been read, ends the threads, and gives the sources up to other processes. Blocks
    /// until then, or until `patience` has passed. Returns whether everything was stored.
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
        self.membership.leave();
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
    /// The state of every source of this process.
    pub fn states(&self) -> BTreeMap<Source, SourceState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
