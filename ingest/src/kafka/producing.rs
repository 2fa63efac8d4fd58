//! Appends: what was handed over, until the brokers have reported every record of it.
//!
//! ```text
//! append ──> room? ──> all records enqueued under the source's lock ──> librdkafka ──> brokers
//!                                                       delivery reports ──> Batch ──> the caller
//! ```
//!
//! Invariants: nothing is enqueued of an append that is refused; the records of one append follow each other in the topic, with
//! none of another append of this process between them; an append is answered once, after its last report.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use schemas::{Millis, NewRecord, Offset};
use tokio::sync::oneshot;

use super::failure::Failure;
use super::options::KafkaOptions;
use super::watching::Watched;
use super::{ANSWER_WITHIN, context, lock, message};
use crate::log::{Appended, LogError};

/// How much may wait for the brokers before the next append is told to come back, unless a property allows less.
const WAITING_BYTES_MAX: usize = 64 << 20;
const WAITING_RECORDS_MAX: usize = 500_000;
/// Sources share this many locks: more than threads that append at once.
const LOCKS: usize = 64;
/// What a batch of one record has around it, at most.
const ENVELOPE_BYTES: usize = 1_024;

/// What is told how an append went.
pub(super) type Answer = oneshot::Receiver<Result<Appended, LogError>>;

/// Takes records and hands them to the brokers.
pub(super) struct Appender {
    producer: ThreadedProducer<Reports>,
    topic: String,
    record_bytes_max: usize,
    waiting: Arc<Waiting>,
    locks: Vec<Mutex<()>>,
    failure: Failure,
    /// How long a record may wait for the brokers.
    patience: Duration,
}

impl Appender {
    pub(super) fn start(
        options: &KafkaOptions,
        record_bytes_max: usize,
        failure: &Failure,
        watched: &Arc<Watched>,
    ) -> Result<Self, LogError> {
        let config = options.producer(record_bytes_max);
        let setting = |key: &str| config.get(key).and_then(|value| value.parse::<usize>().ok());
        let waiting = Arc::new(Waiting {
            bytes: AtomicUsize::new(0),
            records: AtomicUsize::new(0),
            // Half of what librdkafka takes, as it counts the headers too.
            bytes_max: setting("queue.buffering.max.kbytes").map_or(WAITING_BYTES_MAX, |max| (max << 9).min(WAITING_BYTES_MAX)),
            records_max: setting("queue.buffering.max.messages").map_or(WAITING_RECORDS_MAX, |max| (max / 2).min(WAITING_RECORDS_MAX)),
            closed: false.into(),
        });
        let patience = setting("message.timeout.ms").map_or(Duration::from_secs(300), |ms| Duration::from_millis(ms as u64));
        let reports = Reports { failure: failure.clone(), watched: Arc::clone(watched), record_bytes_max };
        let producer = config.create_with_context(reports).map_err(|error| options.refused_property(&error))?;
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        let (topic, failure) = (options.topic.clone(), failure.clone());
        Ok(Self { producer, topic, record_bytes_max: record_bytes_max.saturating_sub(ENVELOPE_BYTES), waiting, locks, failure, patience })
    }

    /// Enqueues all records or none.
    pub(super) fn append(&self, partition: i32, records: Vec<NewRecord>) -> Result<Answer, LogError> {
        let sizes = records.iter().map(|record| record.payload.len());
        if let Some(bytes) = sizes.clone().find(|bytes| *bytes > self.record_bytes_max) {
            return Err(LogError::TooLarge { bytes, limit: self.record_bytes_max });
        }
        let room =
            self.waiting.take(sizes.sum::<usize>().saturating_add(records.len().saturating_mul(message::HEADER_BYTES)), records.len())?;
        let (tell, answer) = oneshot::channel();
        let batch = Arc::new(Batch { progress: Mutex::new(Progress::new(records.len())), tell: Mutex::new(Some(tell)), _room: room });
        let stripe = usize::try_from(partition).unwrap_or(0) % LOCKS;
        let _together = self.locks.get(stripe).map(lock);
        for (at, record) in records.iter().enumerate() {
            if let Err(error) = self.enqueue(partition, record, &batch) {
                // What is left was not taken. Before the first one, nothing was.
                tracing::debug!(%error, at, "a record was not enqueued");
                batch.not_enqueued(records.len() - at, self.answer_to(&error));
                break;
            }
        }
        Ok(answer)
    }

    fn enqueue(&self, partition: i32, record: &NewRecord, batch: &Arc<Batch>) -> Result<(), KafkaError> {
        let mut out = BaseRecord::<(), [u8], Arc<Batch>>::with_opaque_to(&self.topic, Arc::clone(batch)).partition(partition);
        out = out.payload(&record.payload);
        out.headers = message::headers(record.kind, record.historical);
        self.producer.send(out).map_err(|(error, _)| error)
    }

    fn answer_to(&self, error: &KafkaError) -> LogError {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::Fatal) {
            let cause = self.producer.client().fatal_error().map_or_else(|| error.to_string(), |(_, text)| text);
            self.failure.fail(format!("its producer met a fatal error: {cause}"));
        }
        answer(code, &error.to_string(), self.record_bytes_max)
    }

    /// Has the producer learn of partitions that were added.
    pub(super) fn refresh(&self) -> bool {
        self.producer.client().fetch_metadata(Some(&self.topic), ANSWER_WITHIN).is_ok()
    }

    /// Waits until all is reported, then takes no more.
    pub(super) fn close(&self) {
        self.waiting.closed.store(true, Ordering::Release);
        // Every record is reported within its timeout, so that this ends.
        if let Err(error) = self.producer.flush(self.patience.saturating_add(Duration::from_secs(1))) {
            tracing::warn!(%error, "not all that was waiting has been written");
        }
    }
}

/// How much waits for the brokers.
struct Waiting {
    bytes: AtomicUsize,
    records: AtomicUsize,
    bytes_max: usize,
    records_max: usize,
    closed: std::sync::atomic::AtomicBool,
}

/// A part of the room; given back when dropped.
struct Room {
    waiting: Arc<Waiting>,
    bytes: usize,
    records: usize,
}

impl Waiting {
    /// Takes room for an append. One that is larger than all the room is taken when nothing else waits.
    fn take(self: &Arc<Self>, bytes: usize, records: usize) -> Result<Room, LogError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(LogError::Failed("it is closed".into()));
        }
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let records_before = self.records.fetch_add(records, Ordering::AcqRel);
        let room = Room { waiting: Arc::clone(self), bytes, records };
        let fits = bytes_before.saturating_add(bytes) <= self.bytes_max && records_before.saturating_add(records) <= self.records_max;
        if fits || records_before == 0 { Ok(room) } else { Err(LogError::Busy { waiting_bytes: bytes_before }) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.waiting.records.fetch_sub(self.records, Ordering::AcqRel);
    }
}

/// One append on its way.
pub(super) struct Batch {
    progress: Mutex<Progress>,
    tell: Mutex<Option<oneshot::Sender<Result<Appended, LogError>>>>,
    _room: Room,
}

/// What has been reported of it.
struct Progress {
    left: usize,
    first: Option<Offset>,
    last: Option<(Offset, Millis)>,
    error: Option<LogError>,
}

impl Progress {
    const fn new(records: usize) -> Self {
        Self { left: records, first: None, last: None, error: None }
    }

    fn written(&mut self, offset: Offset, time: Millis) {
        self.first = Some(self.first.map_or(offset, |first| first.min(offset)));
        if self.last.is_none_or(|(last, _)| offset > last) {
            self.last = Some((offset, time));
        }
    }

    /// How it went, once all is reported.
    fn result(&mut self) -> Result<Appended, LogError> {
        match (self.error.take(), self.first, self.last) {
            (Some(error), ..) => Err(error),
            (None, Some(first), Some((last, append_time))) => Ok(Appended { first, next: last.next(), append_time }),
            _ => Err(LogError::Unavailable("the brokers did not tell where the records lie".into())),
        }
    }
}

impl Batch {
    fn reported(&self, outcome: Result<(Offset, Millis), LogError>) {
        let mut progress = lock(&self.progress);
        progress.left = progress.left.saturating_sub(1);
        match outcome {
            Ok((offset, time)) => progress.written(offset, time),
            Err(error) => progress.error = Some(progress.error.take().unwrap_or(error)),
        }
        self.tell_if_done(&mut progress);
    }

    fn not_enqueued(&self, records: usize, error: LogError) {
        let mut progress = lock(&self.progress);
        progress.left = progress.left.saturating_sub(records);
        progress.error = Some(error);
        self.tell_if_done(&mut progress);
    }

    fn tell_if_done(&self, progress: &mut Progress) {
        if progress.left == 0
            && let Some(tell) = lock(&self.tell).take()
        {
            // The caller may have gone; the records stay.
            let _ = tell.send(progress.result());
        }
    }
}

/// Where the delivery reports come in.
struct Reports {
    failure: Failure,
    watched: Arc<Watched>,
    record_bytes_max: usize,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.failure.fail(format!("its producer met a fatal error: {reason}")),
            _ => tracing::debug!(%error, reason, "Kafka producer"),
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        batch.reported(match result {
            Ok(message) => match u64::try_from(message.offset()) {
                Ok(offset) => {
                    let time = message.timestamp().to_millis().map_or(Millis::NEVER, Millis);
                    self.watched.appended_at(time);
                    Ok((Offset(offset), time))
                }
                // A retry of what an earlier leader had taken already: durable, but its place was forgotten.
                Err(_) => Err(LogError::Unavailable("the brokers have the records but do not tell where".into())),
            },
            Err((error, _)) => Err(answer(error.rdkafka_error_code(), &error.to_string(), self.record_bytes_max)),
        });
    }
}

/// What a producer's error means to the caller.
fn answer(code: Option<RDKafkaErrorCode>, text: &str, record_bytes_max: usize) -> LogError {
    use RDKafkaErrorCode as Code;
    match code {
        Some(Code::MessageSizeTooLarge) => LogError::TooLarge { bytes: record_bytes_max, limit: record_bytes_max },
        Some(Code::Fatal | Code::PurgeQueue | Code::PurgeInflight) => LogError::Failed(text.to_owned()),
        Some(Code::MessageTimedOut) => LogError::Unavailable("no broker has confirmed the records in time".into()),
        Some(Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend) => {
            LogError::Unavailable("fewer brokers than `min.insync.replicas` have the partition".into())
        }
        _ => LogError::Unavailable(text.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a failed expectation is a panic")]
mod tests {
    use super::*;

    fn waiting(bytes_max: usize) -> Arc<Waiting> {
        Arc::new(Waiting { bytes: 0.into(), records: 0.into(), bytes_max, records_max: 10, closed: false.into() })
    }

    fn batch(records: usize) -> (Batch, Answer) {
        let (tell, answer) = oneshot::channel();
        let room = waiting(100).take(1, records).unwrap();
        (Batch { progress: Mutex::new(Progress::new(records)), tell: Mutex::new(Some(tell)), _room: room }, answer)
    }

    #[test]
    fn room_is_bounded_given_back_and_never_too_small_for_one() {
        let waiting = waiting(100);
        let large = waiting.take(1_000, 1).unwrap();
        assert!(matches!(waiting.take(1, 1), Err(LogError::Busy { waiting_bytes: 1_000 })));
        drop(large);
        let most = waiting.take(90, 9).unwrap();
        assert!(waiting.take(11, 1).is_err() && waiting.take(1, 2).is_err());
        drop(most);
        assert!(waiting.take(100, 10).is_ok());
        assert_eq!(waiting.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_append_is_answered_with_its_extent_after_its_last_report() {
        let (batch, mut answer) = batch(3);
        for (offset, time) in [(8, 5), (7, 4)] {
            batch.reported(Ok((Offset(offset), Millis(time))));
            assert!(answer.try_recv().is_err());
        }
        batch.reported(Ok((Offset(9), Millis(6))));
        assert_eq!(answer.try_recv().unwrap().unwrap(), Appended { first: Offset(7), next: Offset(10), append_time: Millis(6) });
    }

    #[test]
    fn one_failed_record_fails_the_append_after_its_last_report() {
        let (batch, mut answer) = batch(3);
        batch.reported(Err(LogError::Unavailable("first".into())));
        batch.reported(Ok((Offset(1), Millis(1))));
        assert!(answer.try_recv().is_err());
        batch.not_enqueued(1, LogError::Unavailable("rest".into()));
        assert!(matches!(answer.try_recv().unwrap(), Err(LogError::Unavailable(_))));
    }
}
