//! The client's thread: moves events from the queue to the server, by way of the spool when it must.
//!
//! ```text
//! queue ──> batcher ──> ready ──┬─ all is well ──────────────> request ──> answered
//!                               │                                 │ fails
//!                               └─ something waits or fails ──> spool (or, without one, `failed` in memory) ──> request ...
//! ```
//!
//! While anything waits in the spool or the server fails, new batches go behind it, so that the order holds. What is in doubt
//! is sent first. Everything that decides is pure and elsewhere ([`crate::batch`], [`crate::pace`], [`crate::answer`]); here is what waits.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinSet};

use crate::batch::{Batch, Batcher};
use crate::builder::Settings;
use crate::client::{Ended, Shared};
use crate::deliver::{Delivery, Http};
use crate::event::Event;
use crate::observer::{DropReason, Dropped, Observer};
use crate::pace::{Gate, Pace};
use crate::spool::{Slot, Spool};

mod intake;
mod requests;

/// How long what is in memory is still sent when nobody holds the client any more.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the handles ask for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Tell when the events below this number are out of memory.
    Flush {
        up_to: u64,
        done: oneshot::Sender<()>,
    },
    Shutdown {
        timeout: Duration,
        done: oneshot::Sender<Ended>,
    },
}

/// Where a request's events are kept until they are answered.
#[derive(Debug)]
enum Kept {
    Memory { body: Arc<Vec<u8>>, from_seq: u64 },
    Disk(Vec<Slot>),
}

/// A request that is under way.
#[derive(Debug)]
struct Flight {
    kept: Kept,
    events: u32,
    doubt_since_ms: Option<u64>,
    begun: Instant,
    begun_ms: u64,
}

#[derive(Debug)]
struct Closing {
    deadline: Instant,
    done: Option<oneshot::Sender<Ended>>,
}

pub(crate) struct Driver {
    settings: Settings,
    http: Arc<Http>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    spool: Option<Spool>,
    /// The spool is left alone until then.
    disk_rests_until: Option<Instant>,
    /// Taken from the queue, not yet in the batcher.
    taken: std::vec::IntoIter<Event>,
    /// The number of the next event that goes into the batcher.
    seq: u64,
    batcher: Batcher,
    /// What is in the queue is left there until then, unless it is enough for a batch: so it wakes this thread only once.
    linger_until: Option<Instant>,
    /// A batch that found no place yet.
    ready: Option<Batch>,
    /// Batches that failed and are in no spool, in order.
    failed: VecDeque<Batch>,
    pace: Pace,
    requests: JoinSet<Delivery>,
    flights: HashMap<Id, Flight>,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    closing: Option<Closing>,
    told_dropped: [u64; DropReason::ALL.len()],
}

impl Driver {
    pub(crate) fn new(
        settings: Settings,
        http: Http,
        spool: Option<(Spool, crate::spool::Found)>,
        shared: Arc<Shared>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let mut driver = Self {
            batcher: Batcher::new(settings.cut),
            pace: Pace::new(settings.backoff, settings.in_flight),
            settings,
            http: Arc::new(http),
            shared,
            commands,
            spool: None,
            disk_rests_until: None,
            taken: Vec::new().into_iter(),
            seq: 0,
            linger_until: None,
            ready: None,
            failed: VecDeque::new(),
            requests: JoinSet::new(),
            flights: HashMap::new(),
            flushes: Vec::new(),
            closing: None,
            told_dropped: [0; DropReason::ALL.len()],
        };
        if let Some((spool, found)) = spool {
            driver.shared.count.found.store(found.events, Ordering::Relaxed);
            driver.shared.count.on_disk.store(found.events, Ordering::Relaxed);
            driver.spool = Some(spool);
            if found.damaged_bytes > 0 {
                let what = format!(
                    "{} bytes of the spool are damaged and their events lost; its files are kept as *.damaged",
                    found.damaged_bytes
                );
                driver.tell(|observer| observer.trouble(&what));
            }
        }
        driver
    }

    /// Runs until the client is shut down or forgotten.
    pub(crate) async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.fill(now);
            self.dispatch(now);
            self.tell_dropped();
            self.answer_flushes();
            if self.has_ended(now) {
                break;
            }
            let wake_at = self.wake_at(now);
            tokio::select! {
                biased;
                Some(ended) = self.requests.join_next_with_id(), if !self.requests.is_empty() => self.settle(ended, Instant::now()),
                command = self.commands.recv(), if self.closing.is_none() => self.obey(command),
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at.unwrap_or(now).into()), if wake_at.is_some() => {}
            }
        }
        self.end();
    }

    fn obey(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Flush { up_to, done }) => self.flushes.push((up_to, done)),
            Some(Command::Shutdown { timeout, done }) => self.close(timeout, Some(done)),
            None => self.close(LAST_WORDS, None),
        }
    }

    fn close(&mut self, timeout: Duration, done: Option<oneshot::Sender<Ended>>) {
        self.shared.queue.close();
        let now = Instant::now();
        let latest = now + Duration::from_secs(24 * 3_600);
        let deadline = now.checked_add(timeout).map_or(latest, |deadline| deadline.min(latest));
        self.closing = Some(Closing { deadline, done });
    }

    /// When there is something to do if nothing happens.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let something_waits = self.ready.is_some() || !self.failed.is_empty() || self.spool.as_ref().is_some_and(|spool| !spool.is_idle());
        let gate = match self.pace.gate(now, self.requests.len()) {
            Gate::Until(at) if something_waits || self.closing.is_some() => Some(at),
            _ => None,
        };
        let due = self.linger_until.into_iter().chain(self.batcher.due()).filter(|_| self.ready.is_none());
        let disk = self.disk_rests_until.filter(|until| *until > now && something_waits);
        let deadline = self.closing.as_ref().map(|closing| closing.deadline);
        due.chain(gate).chain(disk).chain(deadline).min()
    }

    /// The number of the oldest event that is in memory only.
    fn oldest_in_memory(&self) -> Option<u64> {
        let flights = self.flights.values().filter_map(|flight| match flight.kept {
            Kept::Memory { from_seq, .. } => Some(from_seq),
            Kept::Disk(_) => None,
        });
        let batches = self.failed.iter().chain(&self.ready).map(|batch| batch.from_seq);
        let queued = (self.shared.queue.pushed() > self.seq).then_some(self.seq);
        flights.chain(batches).chain(self.batcher.first_seq()).chain(queued).min()
    }

    fn answer_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let oldest = self.oldest_in_memory().unwrap_or(u64::MAX);
        for (_, done) in self.flushes.extract_if(.., |(up_to, _)| *up_to <= oldest) {
            // Whoever asked may not wait any more.
            let _ = done.send(());
        }
    }

    fn has_ended(&self, now: Instant) -> bool {
        if self.closing.is_none() {
            return false;
        }
        let nothing_left = self.spool.as_ref().is_none_or(Spool::is_idle) || self.pace.failures() > 0;
        let all_safe = self.oldest_in_memory().is_none() && self.requests.is_empty() && nothing_left;
        all_safe || self.is_late(now)
    }

    /// Puts what is left on disk, or counts it as lost; then says so.
    fn end(&mut self) {
        let now = Instant::now();
        // Abandoned requests may have been taken.
        self.requests.abort_all();
        for flight in std::mem::take(&mut self.flights).into_values() {
            self.keep(flight, true, now);
        }
        let mut lost = 0;
        while let Some(batch) = self.failed.pop_front().or_else(|| self.ready.take()).or_else(|| self.gather(now)) {
            if let Err(batch) = self.put_on_disk(batch, now) {
                lost += u64::from(batch.events);
            }
        }
        self.shared.count.drop_events(DropReason::Shutdown, lost);
        self.tell_dropped();
        for (_, done) in self.flushes.drain(..) {
            let _ = done.send(());
        }
        let on_disk = self.spool.as_mut().map_or(0, |spool| {
            spool.close();
            spool.events()
        });
        // The lock goes before the answer: another client may be made right after it.
        self.spool = None;
        if let Some(done) = self.closing.take().and_then(|closing| closing.done) {
            let _ = done.send(Ended { on_disk, dropped: lost });
        }
    }

    /// Tells of what was dropped since the last time, also by the application's threads.
    fn tell_dropped(&mut self) {
        let dropped = self.shared.count.dropped();
        for ((reason, now), before) in DropReason::ALL.into_iter().zip(dropped).zip(self.told_dropped) {
            if now > before {
                self.tell(|observer| observer.dropped(&Dropped { events: now - before, reason }));
            }
        }
        self.told_dropped = dropped;
    }

    fn tell(&self, what: impl FnOnce(&dyn Observer)) {
        // What an observer does wrong is its own affair; sending goes on.
        let _ = catch_unwind(AssertUnwindSafe(|| what(&*self.settings.observer)));
    }
}
