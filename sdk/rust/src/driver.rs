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
use tokio::task::{Id, JoinError, JoinSet};

use crate::answer::{Again, Cause};
use crate::batch::{Batch, Batcher};
use crate::builder::Settings;
use crate::client::{Ended, Shared};
use crate::deliver::{Delivery, Http};
use crate::event::Event;
use crate::observer::{DropReason, Dropped, LateRetry, Observer, Retrying};
use crate::pace::{Gate, Pace};
use crate::spool::{Slot, Spool, SpoolError, earliest};
use crate::view::now_ms;

/// Longer events are none: every id has at most 128 bytes.
const MAX_EVENT_BYTES: usize = 64 * 1024;
/// How long what is in memory is still sent when nobody holds the client any more.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// A disk that failed is tried again after this.
const DISK_REST: Duration = Duration::from_secs(5);

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

    // ---- from the queue to a batch, and to the spool ----

    /// Makes batches, and puts them into the spool if that is their way. Afterwards at most one is ready for a request.
    fn fill(&mut self, now: Instant) {
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
    fn gather(&mut self, now: Instant) -> Option<Batch> {
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

    fn is_due(&self, now: Instant) -> bool {
        let hurry = self.closing.is_some() || !self.flushes.is_empty();
        hurry || self.linger_until.into_iter().chain(self.batcher.due()).any(|due| due <= now)
    }

    fn is_enough_for_a_batch(&self) -> bool {
        let batch = usize::try_from(self.settings.cut.events).unwrap_or(usize::MAX);
        let begun = usize::try_from(self.batcher.events()).unwrap_or(usize::MAX);
        self.taken.len() + begun + self.shared.queue.len() >= batch
    }

    /// The event as it is to be sent, if it is.
    fn screened(&self, event: Event) -> Option<Event> {
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

    fn spool_works(&self, now: Instant) -> bool {
        self.spool.is_some() && self.disk_rests_until.is_none_or(|until| until <= now)
    }

    fn goes_by_spool(&self, now: Instant) -> bool {
        let waits = self.settings.spool_first
            || self.pace.failures() > 0
            || self.spool.as_ref().is_some_and(|spool| !spool.is_idle())
            || self.is_late(now);
        waits && self.spool_works(now)
    }

    fn is_late(&self, now: Instant) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.deadline <= now)
    }

    /// Puts a batch on disk; gives it back if that cannot be done now.
    fn put_on_disk(&mut self, batch: Batch, now: Instant) -> Result<(), Batch> {
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

    fn rest_disk(&mut self, error: &SpoolError, now: Instant) {
        self.disk_rests_until = Some(now + DISK_REST);
        let what = error.to_string();
        self.tell(|observer| observer.trouble(&what));
    }

    // ---- requests ----

    /// Starts as many requests as may be under way.
    fn dispatch(&mut self, now: Instant) {
        while self.pace.gate(now, self.requests.len()) == Gate::Open && !self.is_late(now) {
            let Some((batch, slots)) = self.next_batch(now) else { break };
            self.start(batch, slots, now);
            self.fill(now);
        }
    }

    /// What is sent next, and where it lies on disk: first what failed, then the spool, then what is new.
    fn next_batch(&mut self, now: Instant) -> Option<(Batch, Option<Vec<Slot>>)> {
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

    fn take_from_disk(&mut self, now: Instant) -> Option<(Batch, Vec<Slot>)> {
        let spool = self.spool.as_mut()?;
        let next = spool.next(self.settings.cut.events, self.settings.cut.bytes);
        let noted = next.and_then(|parcel| {
            let Some(parcel) = parcel else { return Ok(None) };
            match spool.sending(&parcel.slots, now_ms()) {
                Ok(()) => Ok(Some(parcel)),
                Err(error) => {
                    spool.put_back(&parcel.slots, parcel.batch.doubt_since_ms, now_ms());
                    Err(error)
                }
            }
        });
        match noted {
            Ok(parcel) => {
                let parcel = parcel?;
                self.shared.count.drop_events(DropReason::SpoolDamaged, parcel.damaged_events.into());
                Some((parcel.batch, parcel.slots))
            }
            Err(error) => {
                self.rest_disk(&error, now);
                None
            }
        }
    }

    fn start(&mut self, batch: Batch, slots: Option<Vec<Slot>>, now: Instant) {
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
    fn settle(&mut self, ended: Result<(Id, Delivery), JoinError>, now: Instant) {
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

    fn done_on_disk(&mut self, slots: &[Slot], now: Instant) {
        let Some(spool) = &mut self.spool else { return };
        let done = spool.done(slots, now_ms());
        self.shared.count.on_disk.store(spool.events(), Ordering::Relaxed);
        if let Err(error) = done {
            self.rest_disk(&error, now);
        }
    }

    /// A request failed: its events wait for the next try, on disk if that is possible.
    fn again(&mut self, flight: Flight, again: Again, now: Instant) {
        let Again { cause, retry_after, in_doubt } = again;
        let wait = self.pace.failed(flight.begun, now, retry_after, random());
        let retry = Retrying { events: flight.events.into(), failures: self.pace.failures(), wait, cause, in_doubt };
        self.tell(|observer| observer.retrying(&retry));
        self.keep(flight, in_doubt, now);
    }

    fn keep(&mut self, flight: Flight, in_doubt: bool, now: Instant) {
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

    // ---- waiting, and the end ----

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

/// Any number, for the jitter.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
