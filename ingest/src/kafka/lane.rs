//! One reader's place in one partition: a queue of its own that a consumer fills from an offset on.
//!
//! The queue is split off *before* the partition is assigned. librdkafka then leaves it alone (its forwarding to the consumer's
//! common queue stays off), so that no record can come another way; those fetched for an earlier position are outdated by the new
//! assignment and are dropped in the queue.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use schemas::{Offset, Record};

use super::context::Context;
use super::growth::Growth;
use super::message;
use super::queue::{Fault, Queue};
use crate::log::{LogError, RUN_BYTES, RUN_RECORDS, ReadLimit};

/// The longest wait for a record without looking whether the log has failed.
const LOOK_UP_EVERY: Duration = Duration::from_millis(200);

/// A place in a partition. At most one of each consumer is assigned the partition.
pub(super) struct Lane {
    /// Which of the log's consumers fills it.
    pub(super) slot: usize,
    /// Whether it was last read without patience.
    pub(super) folds: bool,
    consumer: Arc<BaseConsumer<Context>>,
    topic: Arc<str>,
    partition: i32,
    queue: Option<Queue>,
    /// Between the two offsets is no record: the first lies after the last one lent, before the second all has been passed.
    stands: Option<(Offset, Offset)>,
    /// When it was last read.
    pub(super) used: Instant,
}

/// Why lending ended early.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The broker has no such offset.
    OutOfRange,
    /// Something that passes; what was said of it.
    Passing(String),
    /// The bytes at this offset are damaged.
    Damaged(Offset, String),
    /// The client cannot go on.
    Fatal(String),
}

impl Lane {
    pub(super) fn new(slot: usize, consumer: Arc<BaseConsumer<Context>>, topic: Arc<str>, partition: i32) -> Self {
        Self { slot, folds: false, consumer, topic, partition, queue: None, stands: None, used: Instant::now() }
    }

    /// Whether the next record that it lends is the first at or after `from`.
    pub(super) fn stands_at(&self, from: Offset) -> bool {
        self.stands.is_some_and(|(after, before)| after <= from && from <= before)
    }

    /// Whether it stands anywhere.
    pub(super) const fn stands(&self) -> bool {
        self.stands.is_some()
    }

    /// Whether nobody has read it for `time`.
    pub(super) fn is_unread(&self, now: Instant, time: Duration) -> bool {
        now.saturating_duration_since(self.used) >= time
    }

    /// Gives up its place if it is of no use.
    pub(super) fn rest_if(&mut self, useless: bool) {
        if useless {
            self.rest();
        }
    }

    /// Moves it to `from`.
    pub(super) fn place(&mut self, from: Offset, growth: &Arc<Growth>) -> Result<(), LogError> {
        self.rest();
        let unavailable = |what: &str| LogError::Unavailable(format!("partition {} cannot be read: {what}", self.partition));
        let queue = Queue::split(&self.consumer, &self.topic, self.partition, growth);
        let queue = queue.ok_or_else(|| unavailable("it has no queue"))?;
        let start = i64::try_from(from.0).map_err(|_| unavailable("the offset is too large"))?;
        let assigned = self.partition_list(Position::Offset(start)).and_then(|list| self.consumer.incremental_assign(&list));
        assigned.map_err(|error| unavailable(&error.to_string()))?;
        self.queue = Some(queue);
        self.stands = Some((from, from));
        Ok(())
    }

    /// Gives up its place and stops fetching.
    pub(super) fn rest(&mut self) {
        self.stands = None;
        // The queue's callback goes with it, also from a queue that is split off again: so it goes first.
        if self.queue.take().is_some() {
            let given_up = self.partition_list(Position::Invalid).and_then(|list| self.consumer.incremental_unassign(&list));
            if let Err(error) = given_up {
                tracing::debug!(%error, partition = self.partition, "a partition was not given up");
            }
        }
    }

    fn partition_list(&self, position: Position) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, self.partition, position)?;
        Ok(list)
    }

    /// Lends records from `from` on, where the lane must stand: up to `until`, waiting for what is not here yet, or without it just
    /// what is here. Returns the offset after the last record, or `until` if no more records lie before it.
    pub(super) fn lend(
        &mut self,
        from: Offset,
        until: Option<Offset>,
        limit: ReadLimit,
        most: usize,
        each: &mut dyn FnMut(&[Record<'_>]) -> ControlFlow<()>,
    ) -> (Offset, Option<Trouble>) {
        let deadline = until.and_then(|_| Instant::now().checked_add(limit.patience));
        let (mut next, mut records, mut bytes) = (from, 0, 0);
        let (Some(queue), Some((_, passed))) = (&mut self.queue, self.stands) else { return (from, None) };
        let mut passed = passed.max(from);
        let mut trouble = None;
        while records < limit.records && bytes < limit.bytes {
            if let Some(until) = until
                && passed >= until
            {
                next = next.max(until);
                break;
            }
            let Some(message) = queue.message(0) else {
                let wait = until.map_or(Duration::ZERO, |_| left(deadline).min(LOOK_UP_EVERY));
                if !queue.take(wait) && wait.is_zero() {
                    break;
                }
                continue;
            };
            if let Some(fault) = message.fault() {
                queue.pass(1);
                if fault.is(Code::PartitionEOF) {
                    passed = passed.max(fault.at.unwrap_or(passed));
                    continue;
                }
                let met = understand(fault, passed);
                let ends_it = !matches!(met, Trouble::Passing(_));
                trouble = Some(met);
                if ends_it {
                    break;
                }
                continue;
            }
            let (run, run_bytes) = run(queue, passed, most.min(limit.records - records), limit.bytes - bytes);
            let Some(last) = run.last().map(|record| record.offset) else {
                // A stale fetch may bring what lies before.
                queue.pass(1);
                continue;
            };
            (records, bytes) = (records + run.len(), bytes.saturating_add(run_bytes));
            (next, passed) = (last.next(), last.next());
            trouble = None;
            let (flow, count) = (each(&run), run.len());
            queue.pass(count);
            if flow.is_break() {
                break;
            }
        }
        self.stands = Some((next, passed));
        (next, trouble)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.rest();
    }
}

/// The records that come next without a gap in the queue and from `passed` on, and their payload bytes: at most so many, and no more
/// once they have so many bytes or, all together, more than a run. None if the first message lies before `passed`.
fn run(queue: &Queue, passed: Offset, most: usize, bytes_max: usize) -> (Vec<Record<'_>>, usize) {
    let (mut run, mut bytes, mut passed) = (Vec::with_capacity(most.min(RUN_RECORDS)), 0, passed);
    while run.len() < most
        && bytes < bytes_max
        && let Some(message) = queue.message(run.len())
        && message.fault().is_none()
        // An offset is never negative.
        && let Some(offset) = message.offset().filter(|offset| *offset >= passed)
        && (run.is_empty() || bytes + message.payload().len() <= RUN_BYTES)
    {
        bytes = bytes.saturating_add(message.payload().len());
        passed = offset.next();
        run.push(message::record(message, offset));
    }
    (run, bytes)
}

fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
}

/// What an error in a partition's queue means.
fn understand(fault: Fault, at: Offset) -> Trouble {
    let is = |codes: &[Code]| codes.iter().any(|code| fault.is(*code));
    if is(&[Code::Fatal]) {
        Trouble::Fatal(fault.text)
    } else if is(&[Code::AutoOffsetReset, Code::OffsetOutOfRange, Code::LogTruncation]) {
        Trouble::OutOfRange
    } else if is(&[Code::BadMessage, Code::BadCompression, Code::InvalidMessage, Code::InvalidRecord, Code::NotImplemented]) {
        Trouble::Damaged(at, fault.text)
    } else {
        Trouble::Passing(fault.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_a_queue_are_damage_a_wrong_offset_or_pass() {
        let met = |code: Code| understand(Fault { code: code as i32, at: None, text: String::new() }, Offset(7));
        assert!(matches!(met(Code::AutoOffsetReset), Trouble::OutOfRange));
        assert!(matches!(met(Code::BadMessage), Trouble::Damaged(Offset(7), _)));
        assert!(matches!(met(Code::LeaderNotAvailable), Trouble::Passing(_)));
        assert!(matches!(met(Code::Fatal), Trouble::Fatal(_)));
    }
}
