//! Making topics, and refusing those whose settings lose or misdate records.
//!
//! | setting | why |
//! |---|---|
//! | `message.timestamp.type=LogAppendTime` | the append time is the only clock that counting knows; a producer's own would decide what is late (benchmarks may want that: [`AppendTimes::Producer`]) |
//! | `cleanup.policy=delete` | compaction would remove events that share a key |
//! | `max.message.bytes` | a record of the collector must fit |
//! | `min.insync.replicas`, no unclean election | an acknowledged record survives the loss of a broker |

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::ANSWER_WITHIN;
use super::context::Context;
use super::description::{Description, describe};
use super::options::{AppendTimes, KafkaOptions};
use crate::log::LogError;

/// The least that a topic must take in one message: what the collector makes, with what surrounds it.
const MESSAGE_BYTES_MIN: usize = 1_000_000;
/// The most that this process appends in one message, whatever the topic takes: readers hold a whole one in memory.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// What a topic that is made here takes.
const MESSAGE_BYTES_MADE: &str = "2097152";
/// How long a new topic may take to have leaders.
const LEADERS_WITHIN: Duration = Duration::from_secs(15);

/// A topic as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it is made with: sources. It may have got more since.
    pub partitions: u32,
    /// How many brokers hold each partition.
    pub replication: u32,
    /// How many of them must have a record before it is acknowledged (`min.insync.replicas`).
    pub min_insync: u32,
    /// How long records are kept, in ms; -1 is for ever.
    pub retention_ms: i64,
}

impl TopicSpec {
    /// The settings that it is made with, and held to.
    fn settings(&self, append_times: AppendTimes) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("cleanup.policy", "delete".to_owned()),
            ("message.timestamp.type", append_times.timestamp_type().to_owned()),
            ("max.message.bytes", MESSAGE_BYTES_MADE.to_owned()),
            ("min.insync.replicas", self.min_insync.to_string()),
            ("retention.ms", self.retention_ms.to_string()),
            ("unclean.leader.election.enable", "false".to_owned()),
        ])
    }
}

/// Makes the topics that are not there and holds the others to what they should be. Returns what was done, a line for each topic.
/// Doing it again changes nothing. Blocks, for some seconds at most.
///
/// # Errors
/// [`LogError::Unavailable`] if the cluster does not answer; [`LogError::Open`] if a topic cannot be made, or exists with other
/// settings: it says which command mends that.
pub fn create(options: &KafkaOptions, topics: &[TopicSpec]) -> Result<Vec<String>, LogError> {
    options.check()?;
    let admin = connect(options)?;
    topics.iter().map(|spec| ensure(&admin, &KafkaOptions { topic: spec.name.clone(), ..options.clone() }, spec)).collect()
}

fn ensure(admin: &AdminClient<Context>, options: &KafkaOptions, spec: &TopicSpec) -> Result<String, LogError> {
    if let Some(found) = look(admin, options)? {
        hold_to(options, spec, &found, &settings(admin, options)?)?;
        let more = if found.partitions.get() > spec.partitions {
            format!("; {} were added, and producers go on choosing among {}", found.partitions.get() - spec.partitions, spec.partitions)
        } else {
            String::new()
        };
        return Ok(format!("topic {}: exists with {} partitions, as it should be{more}", spec.name, found.partitions));
    }
    let (partitions, replication) = match (i32::try_from(spec.partitions), i32::try_from(spec.replication)) {
        (Ok(partitions), Ok(replication)) => (partitions, replication),
        _ => return Err(options.refused("so many partitions or replicas cannot be")),
    };
    let settings = spec.settings(options.append_times);
    let mut topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(replication));
    for (key, value) in &settings {
        topic = topic.set(key, value);
    }
    let made = wait_for(admin.create_topics([&topic], &patience())).map_err(|error| unavailable(options, &error))?;
    match made.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
            return Err(options.refused(format!("it cannot be made with {partitions} partitions of {replication} replicas: {code}")));
        }
        // Another process may have made it just now: it is held to the same.
        _ => {}
    }
    let found = wait_until_there(admin, options, spec)?;
    hold_to(options, spec, &found, &settings_when_told(admin, options)?)?;
    Ok(format!("topic {}: made with {} partitions of {} replicas", spec.name, spec.partitions, spec.replication))
}

/// A topic that was made is not on every broker at once.
fn wait_until_there(admin: &AdminClient<Context>, options: &KafkaOptions, spec: &TopicSpec) -> Result<Description, LogError> {
    let deadline = Instant::now() + LEADERS_WITHIN;
    loop {
        let found = look(admin, options).ok().flatten();
        let led = admin.inner().fetch_metadata(Some(&options.topic), ANSWER_WITHIN).is_ok_and(|metadata| {
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            partitions.filter(|partition| partition.leader() >= 0).count() >= usize::try_from(spec.partitions).unwrap_or(usize::MAX)
        });
        match found {
            Some(found) if led => return Ok(found),
            Some(found) if found.partitions.get() < spec.partitions => return Ok(found),
            _ if Instant::now() >= deadline => {
                return Err(LogError::Unavailable(format!("the new topic {} has no leaders yet", spec.name)));
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The settings of a topic that was made just now: a broker that does not know it yet tells none.
fn settings_when_told(admin: &AdminClient<Context>, options: &KafkaOptions) -> Result<BTreeMap<String, String>, LogError> {
    let deadline = Instant::now() + LEADERS_WITHIN;
    loop {
        let told = settings(admin, options);
        if Instant::now() >= deadline || told.as_ref().is_ok_and(|settings| settings.contains_key("cleanup.policy")) {
            return told;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Refuses a topic that is not as it should be, with what mends it.
fn hold_to(options: &KafkaOptions, spec: &TopicSpec, found: &Description, settings: &BTreeMap<String, String>) -> Result<(), LogError> {
    let replication = u32::try_from(found.replication).unwrap_or(u32::MAX);
    if found.partitions.get() < spec.partitions {
        let detail =
            format!("it has {} partitions and should have {}; `{}` adds them", found.partitions, spec.partitions, more(options, spec));
        return Err(options.refused(detail));
    }
    if replication != spec.replication {
        return Err(options.refused(format!(
            "its partitions have {replication} replicas and should have {}; kafka-reassign-partitions.sh changes that, or ask for {replication}",
            spec.replication
        )));
    }
    let wanted = spec.settings(options.append_times);
    let wrong: Vec<(&str, String)> = wanted.into_iter().filter(|(key, value)| !fits(key, value, settings.get(*key))).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let is =
        wrong.iter().map(|(key, _)| format!("{key}={}", settings.get(*key).map_or("?", String::as_str))).collect::<Vec<_>>().join(", ");
    Err(options.refused(format!("it has {is}; `{}` mends that", mending(options, &wrong))))
}

/// Whether a topic's setting does.
fn fits(key: &str, wanted: &str, is: Option<&String>) -> bool {
    let Some(is) = is else { return false };
    match key {
        "max.message.bytes" => is.parse::<usize>().is_ok_and(|bytes| bytes >= MESSAGE_BYTES_MIN),
        _ => is == wanted,
    }
}

/// The command that gives a topic other settings.
fn mending(options: &KafkaOptions, settings: &[(&str, String)]) -> String {
    let settings = settings.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let KafkaOptions { brokers, topic, .. } = options;
    format!("kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} --add-config {settings}")
}

fn more(options: &KafkaOptions, spec: &TopicSpec) -> String {
    format!("kafka-topics.sh --bootstrap-server {} --alter --topic {} --partitions {}", options.brokers, spec.name, spec.partitions)
}

/// Refuses a topic that cannot be a log; warns of one that can lose records. Returns how large its messages may be, in bytes.
pub(super) fn check_settings(options: &KafkaOptions, replication: usize) -> Result<usize, LogError> {
    let settings = settings(&connect(options)?, options)?;
    let (refused, warnings) = judge(&settings, options.append_times, replication);
    for warning in warnings {
        tracing::warn!(topic = options.topic, "{warning}");
    }
    if let Some((wrong, why)) = refused {
        let is = settings.get(wrong.0).map_or("?", String::as_str);
        return Err(options.refused(format!(
            "it has {}={is}: {why}; `{}` mends that",
            wrong.0,
            mending(options, &[(wrong.0, wrong.1.to_owned())])
        )));
    }
    let bytes_max = settings.get("max.message.bytes").and_then(|value| value.parse().ok());
    Ok(bytes_max.unwrap_or(MESSAGE_BYTES_MIN).min(MESSAGE_BYTES_MAX))
}

type Refused = ((&'static str, &'static str), &'static str);

/// What is wrong with the topic's settings, as what must be and why; and what may become wrong.
fn judge(settings: &BTreeMap<String, String>, append_times: AppendTimes, replication: usize) -> (Option<Refused>, Vec<String>) {
    let is = |key: &str| settings.get(key).map_or("", String::as_str);
    let number = |key: &str| is(key).parse::<usize>().unwrap_or(0);
    let mut warnings = Vec::new();
    if replication >= 3 && number("min.insync.replicas") < 2 {
        warnings.push("min.insync.replicas is below 2: records that were acknowledged by one broker alone are lost with it".to_owned());
    }
    if is("unclean.leader.election.enable") == "true" {
        warnings.push("unclean.leader.election.enable is on: an election may lose records that were acknowledged and counted".to_owned());
    }
    let why_not_so_dated = match append_times {
        AppendTimes::Broker => "producers' clocks would decide which events are late",
        AppendTimes::Producer => "its records are to be dated by their producers",
    };
    let refused = if is("message.timestamp.type") != append_times.timestamp_type() {
        Some((("message.timestamp.type", append_times.timestamp_type()), why_not_so_dated))
    } else if is("cleanup.policy") != "delete" {
        Some((("cleanup.policy", "delete"), "compaction removes events before they are counted"))
    } else if number("max.message.bytes") < MESSAGE_BYTES_MIN {
        Some((("max.message.bytes", MESSAGE_BYTES_MADE), "records of the collector would not fit"))
    } else {
        None
    };
    (refused, warnings)
}

fn connect(options: &KafkaOptions) -> Result<AdminClient<Context>, LogError> {
    options.asking().create_with_context(Context { failure: None }).map_err(|error| options.refused_property(&error))
}

fn look(admin: &AdminClient<Context>, options: &KafkaOptions) -> Result<Option<Description>, LogError> {
    let described = describe(admin.inner(), &options.topic, ANSWER_WITHIN);
    described.map_err(|code| LogError::Unavailable(format!("{} does not describe its topics: {code}", options.brokers)))
}

/// All settings of the topic, defaults too.
fn settings(admin: &AdminClient<Context>, options: &KafkaOptions) -> Result<BTreeMap<String, String>, LogError> {
    let resource = ResourceSpecifier::Topic(&options.topic);
    let described = wait_for(admin.describe_configs([&resource], &patience())).map_err(|error| unavailable(options, &error))?;
    match described.into_iter().next() {
        Some(Ok(config)) => Ok(config.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()),
        Some(Err(code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed))) => {
            Err(options.refused(format!("its settings may not be read ({code}); allow DescribeConfigs on the topic")))
        }
        Some(Err(code)) => Err(LogError::Unavailable(format!("the settings of {} cannot be read: {code}", options.topic))),
        None => Err(LogError::Unavailable(format!("the settings of {} were not told", options.topic))),
    }
}

fn patience() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN))
}

fn unavailable(options: &KafkaOptions, error: &KafkaError) -> LogError {
    LogError::Unavailable(format!("{} does not answer: {error}", options.brokers))
}

/// Blocks this thread until the answer is there; the requests have timeouts of their own. Needs no runtime.
fn wait_for<F: Future>(answer: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut task = TaskContext::from_waker(&waker);
    let mut answer = pin!(answer);
    loop {
        match answer.as_mut().poll(&mut task) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a failed expectation is a panic")]
mod tests {
    use super::*;

    fn good() -> BTreeMap<String, String> {
        let spec = TopicSpec { name: "views".into(), partitions: 3, replication: 3, min_insync: 2, retention_ms: -1 };
        spec.settings(AppendTimes::Broker).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    #[test]
    fn a_topic_as_it_is_made_is_accepted_without_a_warning() {
        assert_eq!(judge(&good(), AppendTimes::Broker, 3), (None, Vec::new()));
    }

    #[test]
    fn settings_that_lose_or_misdate_records_are_refused_or_warned_of() {
        for (key, value, refused, warned) in [
            ("message.timestamp.type", "CreateTime", true, 0),
            ("cleanup.policy", "compact", true, 0),
            ("cleanup.policy", "compact,delete", true, 0),
            ("max.message.bytes", "500000", true, 0),
            ("max.message.bytes", "1048588", false, 0),
            ("min.insync.replicas", "1", false, 1),
            ("unclean.leader.election.enable", "true", false, 1),
        ] {
            let mut settings = good();
            settings.insert(key.into(), value.into());
            let (fault, warnings) = judge(&settings, AppendTimes::Broker, 3);
            assert_eq!((fault.map(|((key, _), _)| key), warnings.len()), (refused.then_some(key), warned), "{key}={value}");
        }
        let by_producers = judge(&good(), AppendTimes::Producer, 3).0;
        assert_eq!(by_producers.map(|(wrong, _)| wrong), Some(("message.timestamp.type", "CreateTime")), "a benchmark's topic is another");
        let mut alone = good();
        alone.insert("min.insync.replicas".into(), "1".into());
        assert_eq!(judge(&alone, AppendTimes::Broker, 1).1.len(), 0, "a single replica is a choice of its own");
    }
}
