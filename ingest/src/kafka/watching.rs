//! Noticing that the topic has more partitions, or is no longer the topic it was.
//!
//! A topic that was deleted and made again has the name and perhaps even the offsets of the old one, but other records: counting on
//! would be wrong without a trace. Its id differs, so it is asked for every few seconds.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use schemas::Millis;

use super::ANSWER_WITHIN;
use super::description::{Description, describe};
use super::failure::Failure;
use super::lanes::Lanes;
use super::options::KafkaOptions;
use super::producing::Appender;
use crate::log::LogError;

/// What is known of the topic.
pub(super) struct Watched {
    id: String,
    partitions: AtomicU32,
    /// The newest append time that this process was told, in ms.
    append_time: AtomicI64,
}

impl Watched {
    pub(super) fn new(description: Description) -> Self {
        let partitions = AtomicU32::new(description.partitions.get());
        Self { id: description.id, partitions, append_time: AtomicI64::new(Millis::NEVER.0) }
    }

    pub(super) fn partitions(&self) -> NonZeroU32 {
        NonZeroU32::new(self.partitions.load(Ordering::Acquire)).unwrap_or(NonZeroU32::MIN)
    }

    pub(super) fn append_time(&self) -> Millis {
        Millis(self.append_time.load(Ordering::Relaxed))
    }

    pub(super) fn appended_at(&self, time: Millis) {
        self.append_time.fetch_max(time.0, Ordering::Relaxed);
    }
}

/// What a new description means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Grown(NonZeroU32),
    Failed(String),
}

/// Compares the topic with what it was.
fn compare(topic: &str, id: &str, partitions: NonZeroU32, now: &Description) -> Verdict {
    if now.id != id {
        return Verdict::Failed(format!(
            "the topic {topic} was deleted and made again (its id was {id} and is {}): its records are others, and counts \
             of the old ones must not be mixed with them. Use a new keyspace, or bring the old topic back",
            now.id
        ));
    }
    match now.partitions.cmp(&partitions) {
        std::cmp::Ordering::Equal => Verdict::Same,
        std::cmp::Ordering::Greater => Verdict::Grown(now.partitions),
        std::cmp::Ordering::Less => Verdict::Failed(format!("the topic {topic} has {} partitions and had {partitions}", now.partitions)),
    }
}

/// The clients that are to know the topic as it is.
pub(super) struct Clients {
    pub(super) lanes: Arc<Lanes>,
    pub(super) appender: Arc<OnceLock<Appender>>,
}

/// The thread that asks. Dropping it ends the thread.
pub(super) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(options: &KafkaOptions, watched: &Arc<Watched>, clients: Clients, failure: &Failure) -> Result<Self, LogError> {
        let (stop, stopped) = channel::<()>();
        let (topic, every) = (options.topic.clone(), options.refresh_interval());
        let (watched, failure) = (Arc::clone(watched), failure.clone());
        let thread = std::thread::Builder::new().name("kafka-topic".into()).spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                look(&topic, &watched, &clients, &failure);
            }
        });
        let thread = thread.map_err(|error| options.refused(format!("a thread cannot start: {error}")))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(topic: &str, watched: &Watched, clients: &Clients, failure: &Failure) {
    let lanes = &clients.lanes;
    let described = lanes.ask(|client| describe(client, topic, ANSWER_WITHIN));
    match described {
        Ok(Some(now)) => match compare(topic, &watched.id, watched.partitions(), &now) {
            Verdict::Same => {}
            Verdict::Grown(partitions) => {
                // The clients are to know the new ones before anybody asks for them.
                if lanes.refresh() && clients.appender.get().is_none_or(Appender::refresh) {
                    tracing::info!(topic, partitions, "the topic has more partitions");
                    watched.partitions.store(partitions.get(), Ordering::Release);
                }
            }
            Verdict::Failed(cause) => failure.fail(cause),
        },
        // It may come back as it was, if the cluster was asked at a bad moment; if not, it comes back with another id.
        Ok(None) => tracing::warn!(topic, "the cluster knows no such topic now"),
        Err(error) => tracing::debug!(topic, %error, "the topic cannot be looked at now"),
    }
    lanes.rest_idle();
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a failed expectation is a panic")]
mod tests {
    use super::*;

    #[test]
    fn another_id_or_fewer_partitions_is_a_failure_and_more_is_growth() {
        let count = |n| NonZeroU32::new(n).unwrap();
        let now = |id: &str, partitions| Description { id: id.into(), partitions: count(partitions), replication: 1 };
        assert_eq!(compare("views", "a", count(3), &now("a", 3)), Verdict::Same);
        assert_eq!(compare("views", "a", count(3), &now("a", 5)), Verdict::Grown(count(5)));
        assert!(matches!(compare("views", "a", count(3), &now("a", 2)), Verdict::Failed(_)));
        assert!(matches!(compare("views", "a", count(3), &now("b", 3)), Verdict::Failed(cause) if cause.contains("made again")));
    }
}
