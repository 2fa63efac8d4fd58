//! Sharing the sources: a member of the consumer group that fetches nothing.
//!
//! ```text
//! assigned by the group ──> published ──> the workers fold
//! revoked ──> published ──> the workers store what they have and `release` ──> given up (or after a few seconds without)
//! report ──> offsets committed once a second, for lag tools; recovery never reads them
//! ```
//!
//! The partitions are assigned to this client paused, at the end: records come through the lanes, from positions of our own.
//! Rebalancing is cooperative, so that only what moves is taken. An assignment that was lost (the process slept, the network was cut)
//! is given up without waiting, as another member has it already; the client joins again by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use schemas::{Offset, Source};

use super::options::KafkaOptions;
use super::{context, lock};
use crate::log::LogError;
use crate::membership::{Assignment, Membership};

/// How long the next owner waits for this one to store what it has.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const POLL_FOR: Duration = Duration::from_millis(100);

/// A membership in the group, and the thread that keeps it.
pub(super) struct Member {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the callers and the thread share.
struct Shared {
    topic: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    assignment: Assignment,
    /// Sources that were taken from this process and that it has not released yet.
    releasing: BTreeSet<Source>,
    /// How far the sources have been counted, if that has not been committed yet.
    reports: BTreeMap<Source, Offset>,
    leaving: bool,
}

impl Member {
    pub(super) fn join(options: &KafkaOptions) -> Result<Self, LogError> {
        let assignment = Assignment { generation: 1, sources: BTreeSet::new() };
        let state = State { assignment, releasing: BTreeSet::new(), reports: BTreeMap::new(), leaving: false };
        let shared = Arc::new(Shared { topic: options.topic.clone(), state: Mutex::new(state), changed: Condvar::new() });
        let callbacks = Callbacks { shared: Arc::clone(&shared) };
        let consumer: BaseConsumer<Callbacks> =
            options.member().create_with_context(callbacks).map_err(|error| options.refused_property(&error))?;
        consumer.subscribe(&[&options.topic]).map_err(|error| options.refused(error.to_string()))?;
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("kafka-group".into()).spawn(move || keep(&shared, consumer))
        };
        let thread = thread.map_err(|error| options.refused(format!("a thread cannot start: {error}")))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }
}

impl Membership for Member {
    fn assigned(&self, seen: u64, timeout: Duration) -> Assignment {
        let state = self.shared.wait_while(timeout, |state| state.assignment.generation == seen);
        state.assignment.clone()
    }

    fn release(&self, source: Source) {
        self.shared.change(|state| state.releasing.remove(&source));
    }

    fn report(&self, source: Source, next: Offset) {
        lock(&self.shared.state).reports.insert(source, next);
    }

    fn leave(&self) {
        self.shared.change(|state| state.leaving = true);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut lock(&self.state));
        self.changed.notify_all();
        changed
    }

    fn wait_while(&self, timeout: Duration, mut same: impl FnMut(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_timeout_while(lock(&self.state), timeout, |state| same(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn given(&self, sources: &BTreeSet<Source>) {
        self.change(|state| {
            state.releasing.retain(|source| !sources.contains(source));
            state.assignment.sources.extend(sources);
            state.assignment.generation += 1;
        });
    }

    /// Publishes that the sources are no longer this process's, and waits until it has stored what it read of them.
    fn taken(&self, sources: &BTreeSet<Source>, lost: bool) {
        self.change(|state| {
            state.assignment.sources.retain(|source| !sources.contains(source));
            state.assignment.generation += 1;
            state.releasing.extend(sources);
        });
        if !lost {
            drop(self.wait_while(RELEASE_WITHIN, |state| !state.leaving && !state.releasing.is_disjoint(sources)));
        }
        self.change(|state| state.releasing.retain(|source| !sources.contains(source)));
    }

    /// Takes what is to be committed of the sources that `held` names.
    fn reports(&self, held: impl Fn(&State, Source) -> bool) -> BTreeMap<Source, Offset> {
        let mut state = lock(&self.state);
        let (ours, others) = std::mem::take(&mut state.reports).into_iter().partition(|(source, _)| held(&state, *source));
        state.reports = others;
        ours
    }

    fn list(&self, sources: impl IntoIterator<Item = (Source, Position)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (source, position) in sources {
            if let Ok(partition) = i32::try_from(source.0)
                && let Err(error) = list.add_partition_offset(&self.topic, partition, position)
            {
                tracing::debug!(%source, %error, "a partition was left out");
            }
        }
        list
    }

    /// For lag tools: it may fail.
    fn commit(&self, consumer: &BaseConsumer<Callbacks>, reports: BTreeMap<Source, Offset>) {
        let positions = reports.into_iter().filter_map(|(source, next)| Some((source, Position::Offset(i64::try_from(next.0).ok()?))));
        let list = self.list(positions);
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "offsets for lag tools were not committed");
        }
    }
}

/// The thread: serves the group until the member leaves.
fn keep(shared: &Shared, consumer: BaseConsumer<Callbacks>) {
    let mut committed = Instant::now();
    while !lock(&shared.state).leaving {
        match consumer.poll(POLL_FOR) {
            // Paused partitions bring no records; one that slipped through is not ours to count.
            None | Some(Ok(_)) => {}
            Some(Err(error)) => tracing::warn!(%error, "the consumer group has trouble; it goes on"),
        }
        if committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            shared.commit(&consumer, shared.reports(|state, source| state.assignment.sources.contains(&source)));
        }
    }
    shared.commit(&consumer, shared.reports(|state, source| state.assignment.sources.contains(&source)));
    consumer.unsubscribe();
    // Closing gives the partitions up and tells the coordinator, so that the others need not wait for the session to end.
    drop(consumer);
    shared.change(|state| {
        state.assignment.sources.clear();
        state.assignment.generation += 1;
    });
}

/// What the group's client calls on the thread that polls.
struct Callbacks {
    shared: Arc<Shared>,
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka consumer group");
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let elements = list.elements();
        let partitions = elements.iter().filter(|element| element.topic() == self.shared.topic);
        let sources: BTreeSet<Source> = partitions.filter_map(|element| u32::try_from(element.partition()).ok().map(Source)).collect();
        let result = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            tracing::info!(?sources, "sources were assigned");
            let at_end = self.shared.list(sources.iter().map(|source| (*source, Position::End)));
            let assigned = consumer.incremental_assign(&at_end).and_then(|()| consumer.pause(&at_end));
            self.shared.given(&sources);
            assigned
        } else {
            let lost = consumer.assignment_lost();
            tracing::info!(?sources, lost, "sources were revoked");
            self.shared.taken(&sources, lost);
            if !lost {
                self.shared.commit(consumer, self.shared.reports(|_, source| sources.contains(&source)));
            }
            consumer.incremental_unassign(list)
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the consumer group's client refused an assignment");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets for lag tools were not committed");
        }
    }
}
