//! The client: a handle that is cheap to clone, and what it shares with its thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::builder::{BuildError, Builder, Settings, Target};
use crate::deliver::Http;
use crate::driver::{Command, Driver};
use crate::event::Event;
use crate::observer::DropReason;
use crate::queue::{Push, Queue};
use crate::spool::Spool;
use crate::view::{Outcome, View};

/// Sends views. Make one for the whole program and clone it: clones share everything.
///
/// When the last clone is dropped, what is in memory is still sent for up to 5 seconds by the client's thread, and then put into the
/// spool; but nobody waits for that, so call [`shutdown`](Self::shutdown) before the program ends.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

/// What the handles and the thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) wake: tokio::sync::Notify,
    pub(crate) count: Counters,
}

/// Since the client was made.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) found: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) on_disk: AtomicU64,
    /// By [`DropReason`], in the order of [`DropReason::ALL`].
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
    pub(crate) fn drop_events(&self, reason: DropReason, events: u64) {
        if let Some((_, counter)) = DropReason::ALL.iter().zip(&self.dropped).find(|(of, _)| **of == reason) {
            counter.fetch_add(events, Ordering::Relaxed);
        }
    }

    pub(crate) fn dropped(&self) -> [u64; DropReason::ALL.len()] {
        self.dropped.each_ref().map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// What became of events since the client was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls of `send()`.
    pub sent: u64,
    /// Events that an earlier process left in the spool.
    pub found: u64,
    /// Durable in Tallymark's log.
    pub accepted: u64,
    /// Refused by the server for good.
    pub rejected: u64,
    /// Lost or thrown away on this side.
    pub dropped: u64,
    /// In the spool now.
    pub on_disk: u64,
}

impl Stats {
    /// Events whose fate is open: in memory, in the spool, or under way.
    pub const fn pending(&self) -> u64 {
        (self.sent + self.found).saturating_sub(self.accepted + self.rejected + self.dropped)
    }
}

/// What a shutdown left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// Events in the spool, which the next client sends.
    pub on_disk: u64,
    /// Events that were lost by the shutdown, because there is no spool, or it is full.
    pub dropped: u64,
}

impl Client {
    /// A builder for a client of the server (the collector) at `url`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }

    pub(crate) fn start(settings: Settings, target: Target) -> Result<Self, BuildError> {
        let spool = settings.spool.as_ref().map(|dir| Spool::open(dir, settings.spool_bytes, settings.durability)).transpose()?;
        let http = Http::new(target, settings.request_timeout, settings.gzip)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(settings.queue_events, settings.queue_bytes, settings.cut.events.into()),
            wake: tokio::sync::Notify::new(),
            count: Counters::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| BuildError::Start(error.to_string()))?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let driver = Driver::new(settings, http, spool, Arc::clone(&shared), receiver);
        let thread = std::thread::Builder::new().name("tallymark".into());
        thread.spawn(move || runtime.block_on(driver.run())).map_err(|error| BuildError::Start(error.to_string()))?;
        Ok(Self { shared, commands })
    }

    /// A view of a video, to be ended by [`View::send`].
    pub fn view(&self, video_id: impl Into<String>) -> View<'_> {
        View::new(self, video_id.into())
    }

    pub(crate) fn push(&self, event: Event) -> Outcome {
        let lost = |reason, outcome| {
            self.shared.count.drop_events(reason, 1);
            outcome
        };
        match self.shared.queue.push(event) {
            Push::In => Outcome::Queued,
            Push::Wake => {
                self.shared.wake.notify_one();
                Outcome::Queued
            }
            Push::Full => lost(DropReason::QueueFull, Outcome::QueueFull),
            Push::Closed => lost(DropReason::Closed, Outcome::Closed),
        }
    }

    /// Sends what is in memory without waiting for more, and returns when every event that was sent before is acknowledged,
    /// refused, dropped, or in the spool. Without a spool that takes as long as the server is away.
    ///
    /// Works in any async runtime, and may be given up at any time.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        let up_to = self.shared.queue.pushed();
        // If the thread has ended there is nothing to wait for.
        if self.commands.send(Command::Flush { up_to, done }).is_ok() {
            let _ = is_done.await;
        }
    }

    /// Takes nothing more, and sends what is there for up to `timeout`. What is left then goes to the spool, and without one it is
    /// dropped. Returns early when all is sent, or when the rest is in the spool and the server does not answer.
    pub async fn shutdown(&self, timeout: Duration) -> Ended {
        let (done, is_done) = oneshot::channel();
        self.shared.queue.close();
        if self.commands.send(Command::Shutdown { timeout, done }).is_err() {
            return Ended::default();
        }
        is_done.await.unwrap_or_default()
    }

    /// What became of events so far.
    pub fn stats(&self) -> Stats {
        let count = &self.shared.count;
        let dropped = count.dropped();
        let full_or_closed = DropReason::ALL.iter().zip(dropped);
        let not_queued: u64 =
            full_or_closed.filter(|(reason, _)| matches!(reason, DropReason::QueueFull | DropReason::Closed)).map(|(_, n)| n).sum();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (accepted, rejected, on_disk) = (load(&count.accepted), load(&count.rejected), load(&count.on_disk));
        // Read last, so that nothing seems to be answered before it was sent.
        let sent = self.shared.queue.pushed() + not_queued;
        Stats { sent, found: load(&count.found), accepted, rejected, dropped: dropped.iter().sum(), on_disk }
    }
}
