//! Where the readers of each partition stand.
//!
//! ```text
//! read(source, from) ──> a lane of the source that stands at `from` ──> else one that is idle, a new one, or the longest unread
//! consumer 0: a lane of each source, for folds (they read without patience)
//! consumers 1 to 3: further lanes, for whoever reads (a warm-up, a tap, an import, a replay)
//! a client without lanes: where a source ends, what the topic is (a broker answers a connection in order, and fetches wait)
//! ```
//!
//! A lane is taken out of its source's place while it is read, so that readers share no lock on the way of the records. Consumers
//! are made when they are first needed. A lane that nobody reads stops fetching after a while.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use schemas::{Millis, Offset, Record, Source};

use super::context::Context;
use super::description::{Description, describe_existing};
use super::failure::Failure;
use super::growth::Growth;
use super::lane::{Lane, Trouble};
use super::options::KafkaOptions;
use super::{ANSWER_WITHIN, lock};
use crate::log::{Ends, LogError, ReadLimit};

/// How many readers of one source have a lane of their own.
const SLOTS: usize = 4;
/// The slot that only readers without patience use: those with patience cannot keep a fold waiting, however many they are.
const FOLDS: usize = 0;
/// A lane unread for so long is another reader's for the taking.
const SPARE_AFTER: Duration = Duration::from_secs(3);
/// A lane unread for so long stops fetching.
const REST_AFTER: Duration = Duration::from_secs(30);
/// How long a reader without patience waits for a lane when all are being read.
const LANE_WITHIN: Duration = Duration::from_millis(100);

/// All lanes and the consumers that fill them.
pub(super) struct Lanes {
    options: KafkaOptions,
    topic: Arc<str>,
    failure: Failure,
    growth: Arc<Growth>,
    places: RwLock<Vec<Arc<Place>>>,
    asker: Feed,
    /// How many partitions the topic had when it was opened.
    partitions: NonZeroU32,
    feeds: [OnceLock<Feed>; SLOTS],
    starting: Mutex<()>,
}

/// The lanes of a source.
#[derive(Default)]
struct Place {
    parked: Mutex<Parked>,
    returned: Condvar,
}

#[derive(Default)]
struct Parked {
    lanes: Vec<Lane>,
    /// Which slots' lanes exist, also those taken out.
    made: [bool; SLOTS],
    /// How many wait for one to be put back.
    waiting: usize,
}

/// A consumer with the thread that serves what is not records.
struct Feed {
    consumer: Arc<BaseConsumer<Context>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lanes {
    /// Lanes in the topic, with what is known of it.
    pub(super) fn connect(options: &KafkaOptions, failure: &Failure) -> Result<(Self, Description), LogError> {
        let asker = Feed::start(options, &options.asking(), failure)?;
        let description = describe_existing(asker.consumer.client(), options)?;
        let partitions = description.partitions;
        let lanes = Self {
            asker,
            partitions,
            options: options.clone(),
            topic: options.topic.as_str().into(),
            failure: failure.clone(),
            growth: Arc::new(Growth::new()),
            places: RwLock::default(),
            feeds: Default::default(),
            starting: Mutex::new(()),
        };
        Ok((lanes, description))
    }

    /// Asks the cluster something.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Client<Context>) -> T) -> T {
        ask(self.asker.consumer.client())
    }

    /// Has the consumers learn of partitions that were added.
    pub(super) fn refresh(&self) -> bool {
        let mut feeds = self.feeds.iter().filter_map(OnceLock::get).chain([&self.asker]);
        feeds.all(|feed| feed.consumer.fetch_metadata(Some(&self.topic), ANSWER_WITHIN).is_ok())
    }

    pub(super) fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        self.growth.wait(seen, timeout)
    }

    pub(super) fn ends(&self, source: Source) -> Result<Ends, LogError> {
        let watermarks = self.asker.consumer.fetch_watermarks(&self.topic, partition(source)?, ANSWER_WITHIN);
        let (low, high) = watermarks.map_err(|error| unavailable("the ends", source, &error))?;
        let offset =
            |raw: i64| u64::try_from(raw).map(Offset).map_err(|_| LogError::Unavailable(format!("source {source} has no ends now")));
        Ok(Ends { start: offset(low)?, end: offset(high)? })
    }

    pub(super) fn first_at_or_after(&self, source: Source, at: Millis) -> Result<Offset, LogError> {
        if at.0 <= 0 {
            return Ok(self.ends(source)?.start);
        }
        // The end before the search: what is appended after it would be found by another.
        let end = self.ends(source)?.end;
        let mut asked = TopicPartitionList::with_capacity(1);
        let added = asked.add_partition_offset(&self.topic, partition(source)?, Position::Offset(at.0));
        let found = added.and_then(|()| self.asker.consumer.offsets_for_times(asked, ANSWER_WITHIN));
        let found = found.map_err(|error| unavailable("an append time", source, &error))?;
        let elements = found.elements();
        let element = elements.first().ok_or_else(|| LogError::Unavailable(format!("source {source} was not searched")))?;
        element.error().map_err(|error| unavailable("an append time", source, &error))?;
        match element.offset() {
            Position::Offset(raw) => Ok(u64::try_from(raw).map_or(end, Offset)),
            _ => Ok(end),
        }
    }

    /// Lends runs of at most `most` records.
    pub(super) fn read(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        most: usize,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        let until = if limit.patience.is_zero() {
            None
        } else {
            let ends = self.ends(source)?;
            if from < ends.start {
                return Err(LogError::Gone { source_id: source, asked: from, start: ends.start });
            }
            if from > ends.end {
                return Ok(from);
            }
            Some(ends.end)
        };
        let place = self.place(source)?;
        let Some(mut lane) = self.take(&place, source, from, limit.patience)? else { return Ok(from) };
        let (next, trouble) = lane.lend(from, until, limit, most, each);
        let result = match trouble {
            None => Ok(next),
            Some(trouble) => {
                lane.rest_if(!matches!(trouble, Trouble::Passing(_)));
                self.answer_to(trouble, source, from, next, until)
            }
        };
        lane.folds = until.is_none();
        place.put(lane);
        self.failure.check()?;
        match (result, until) {
            (Ok(next), Some(until)) if next == from && from < until && limit.records > 0 && limit.bytes > 0 => {
                Err(LogError::Unavailable(format!("the records of source {source} from offset {from} have not come in time")))
            }
            (result, _) => result,
        }
    }

    /// What the reader is told when lending ended early. Records that were lent count; what comes after is met again.
    fn answer_to(&self, trouble: Trouble, source: Source, from: Offset, next: Offset, until: Option<Offset>) -> Result<Offset, LogError> {
        if next > from && !matches!(trouble, Trouble::Fatal(_)) {
            return Ok(next);
        }
        match trouble {
            Trouble::Passing(detail) => {
                tracing::debug!(%source, detail, "a partition cannot be read now");
                if until.is_some() { Err(LogError::Unavailable(format!("source {source}: {detail}"))) } else { Ok(next) }
            }
            Trouble::Damaged(offset, detail) => Err(LogError::Corrupt { source_id: source, offset, detail }),
            Trouble::Fatal(detail) => {
                self.failure.fail(format!("its consumer met a fatal error: {detail}"));
                Err(LogError::Failed(detail))
            }
            Trouble::OutOfRange => {
                let ends = self.ends(source)?;
                if next < ends.start {
                    Err(LogError::Gone { source_id: source, asked: next, start: ends.start })
                } else if next > ends.end {
                    Err(LogError::Truncated(format!(
                        "source {source} of {} ends at offset {}, before offset {next} that has been read: the topic has lost \
                         records (an unclean leader election, or it was made again)",
                        self.topic, ends.end
                    )))
                } else {
                    // It was out of range and is not any more, or another reader's place was.
                    Ok(next)
                }
            }
        }
    }

    fn place(&self, source: Source) -> Result<Arc<Place>, LogError> {
        let index = usize::try_from(source.0).map_err(|_| LogError::NoSource(source))?;
        if let Some(place) = self.places.read().unwrap_or_else(PoisonError::into_inner).get(index) {
            return Ok(Arc::clone(place));
        }
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if places.len() <= index {
            places.resize_with(index + 1, Arc::default);
        }
        places.get(index).map(Arc::clone).ok_or(LogError::NoSource(source))
    }

    /// Takes a lane that stands at `from`. A reader without patience that would have to wait for one gets none.
    fn take(&self, place: &Place, source: Source, from: Offset, patience: Duration) -> Result<Option<Lane>, LogError> {
        let patient = !patience.is_zero();
        let mut parked = lock(&place.parked);
        let mut deadline = None;
        let (mut lane, standing) = loop {
            if let Some(found) = parked.find(from, patient) {
                break found;
            }
            if let Some(slot) = parked.make(patient) {
                match self.consumer(slot) {
                    Ok(consumer) => break (Lane::new(slot, consumer, Arc::clone(&self.topic), partition(source)?), false),
                    Err(error) => {
                        parked.unmake(slot);
                        return Err(error);
                    }
                }
            }
            if let Some(lane) = parked.take_longest_unread(patient) {
                break (lane, false);
            }
            let now = Instant::now();
            let left = deadline.get_or_insert_with(|| now.checked_add(patience.max(LANE_WITHIN)));
            let left = left.map_or(ANSWER_WITHIN, |deadline| deadline.saturating_duration_since(now));
            if left.is_zero() {
                return if patient { Err(LogError::Unavailable(format!("source {source} has {SLOTS} readers already"))) } else { Ok(None) };
            }
            parked.waiting += 1;
            parked = place.returned.wait_timeout(parked, left).unwrap_or_else(PoisonError::into_inner).0;
            parked.waiting -= 1;
        };
        drop(parked);
        if !standing && let Err(error) = lane.place(from, &self.growth) {
            place.put(lane);
            return Err(error);
        }
        Ok(Some(lane))
    }

    fn consumer(&self, slot: usize) -> Result<Arc<BaseConsumer<Context>>, LogError> {
        let missing = || LogError::Unavailable("a consumer has not started".into());
        let cell = self.feeds.get(slot).ok_or_else(missing)?;
        let _one = lock(&self.starting);
        if cell.get().is_none() {
            // Only readers with patience need to know where a partition ends, and they use the other slots.
            let config =
                if slot == FOLDS { self.options.folding_consumer(self.partitions) } else { self.options.consumer(self.partitions) };
            let _ = cell.set(Feed::start(&self.options, &config, &self.failure)?);
        }
        cell.get().map(|feed| Arc::clone(&feed.consumer)).ok_or_else(missing)
    }

    /// Stops fetching for readers that have gone.
    pub(super) fn rest_idle(&self) {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner).clone();
        for place in places {
            let now = Instant::now();
            lock(&place.parked).lanes.iter_mut().filter(|lane| lane.is_unread(now, REST_AFTER)).for_each(Lane::rest);
        }
    }
}

impl Place {
    fn put(&self, mut lane: Lane) {
        lane.used = Instant::now();
        let mut parked = lock(&self.parked);
        parked.lanes.push(lane);
        // Nearly always nobody does, and to wake nobody is a call of the system too.
        if parked.waiting > 0 {
            self.returned.notify_all();
        }
    }
}

impl Parked {
    /// A lane that stands at `from`, with true; else one that stands nowhere or that nobody has read for a while.
    fn find(&mut self, from: Offset, patient: bool) -> Option<(Lane, bool)> {
        if let Some(lane) = self.take(patient, |lane| lane.stands_at(from)) {
            return Some((lane, true));
        }
        let now = Instant::now();
        self.take(patient, |lane| !lane.stands() || lane.is_unread(now, SPARE_AFTER)).map(|lane| (lane, false))
    }

    fn take(&mut self, patient: bool, fits: impl Fn(&Lane) -> bool) -> Option<Lane> {
        let at = self.lanes.iter().position(|lane| may_take(lane, patient) && fits(lane))?;
        Some(self.lanes.swap_remove(at))
    }

    /// The lane that has been left alone the longest; never a fold's for one with patience.
    fn take_longest_unread(&mut self, patient: bool) -> Option<Lane> {
        let candidates = self.lanes.iter().enumerate().filter(|(_, lane)| may_take(lane, patient) && !(patient && lane.folds));
        let (at, _) = candidates.min_by_key(|(_, lane)| lane.used)?;
        Some(self.lanes.swap_remove(at))
    }

    /// Claims a slot that has no lane yet.
    fn make(&mut self, patient: bool) -> Option<usize> {
        let (slot, made) = self.made.iter_mut().enumerate().find(|(slot, made)| !(**made || (patient && *slot == FOLDS)))?;
        *made = true;
        Some(slot)
    }

    fn unmake(&mut self, slot: usize) {
        if let Some(made) = self.made.get_mut(slot) {
            *made = false;
        }
    }
}

const fn may_take(lane: &Lane, patient: bool) -> bool {
    !(patient && lane.slot == FOLDS)
}

impl Feed {
    fn start(options: &KafkaOptions, config: &ClientConfig, failure: &Failure) -> Result<Self, LogError> {
        let context = Context { failure: Some(failure.clone()) };
        let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(|error| options.refused_property(&error))?;
        let (consumer, stop) = (Arc::new(consumer), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (consumer, stop, failure) = (Arc::clone(&consumer), Arc::clone(&stop), failure.clone());
            std::thread::Builder::new().name("kafka-serve".into()).spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    serve(&consumer, &failure);
                }
            })
        };
        let thread = thread.map_err(|error| options.refused(format!("a thread cannot start: {error}")))?;
        Ok(Self { consumer, stop, thread: Some(thread) })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves a consumer's common queue: callbacks and errors, never records.
fn serve(consumer: &BaseConsumer<Context>, failure: &Failure) {
    match consumer.poll(Duration::from_millis(100)) {
        None => {}
        Some(Ok(message)) => {
            let (partition, offset) = (message.partition(), message.offset());
            failure.fail(format!("the record at offset {offset} of source {partition} came past its reader; this is a bug"));
        }
        Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => failure.fail(error.to_string()),
        Some(Err(error)) => tracing::debug!(%error, "Kafka consumer"),
    }
}

fn partition(source: Source) -> Result<i32, LogError> {
    i32::try_from(source.0).map_err(|_| LogError::NoSource(source))
}

fn unavailable(what: &str, source: Source, error: &KafkaError) -> LogError {
    LogError::Unavailable(format!("{what} of source {source} cannot be asked for: {error}"))
}
