//! Which cluster and topic, and the configuration of each client.
//!
//! A client's configuration is what exactness needs, then what serves speed, then the caller's properties. A property that would
//! break exactness is refused, not overridden in silence.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::log::LogError;

/// Properties whose value decides whether counts are exact, with that value. Others are refused.
const BINDING: &[(&str, &str)] = &[
    ("acks", "all"),
    ("allow.auto.create.topics", "false"),
    ("auto.commit.enable", "false"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.idempotence", "true"),
    ("enable.partition.eof", "true"),
    ("group.protocol", "classic"),
    ("isolation.level", "read_committed"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("request.required.acks", "all"),
];

/// Properties that have an option of their own, or no place here.
const NOT_HERE: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is the option `brokers`"),
    ("client.id", "it is the option `client_id`"),
    ("group.id", "it is the option `group`"),
    ("metadata.broker.list", "it is the option `brokers`"),
    ("transactional.id", "the log needs no transactions"),
];

/// How much fetched and unread records may take, in KiB, of all partitions that one consumer reads; at least 1 MiB and at most 8 MiB each.
const FETCHED_KIB_MAX: u32 = 256 << 10;

/// How many records may wait, of all partitions that one consumer reads; at least 2,000 and at most 20,000 each.
const FETCHED_MESSAGES: u32 = 500_000;

/// How many bytes one fetch may bring, of all partitions that one consumer reads; at least 64 KiB and at most 256 KiB each.
const PIECES_BYTES: u32 = 16 << 20;

/// How often a client looks for new partitions and leaders unless told otherwise, in ms.
const REFRESH_MS: &str = "5000";

/// A topic on a cluster, and how to reach it.
#[derive(Clone)]
pub struct KafkaOptions {
    /// Some of the brokers: `host:port`, separated by commas.
    pub brokers: String,
    /// The topic that is the log.
    pub topic: String,
    /// The consumer group whose members share the sources.
    pub group: String,
    /// The name of this process, for people who look at the cluster.
    pub client_id: String,
    /// Any property of librdkafka; applied last, to every client.
    pub properties: BTreeMap<String, String>,
    /// Who dates the records.
    pub append_times: AppendTimes,
}

/// Who dates a topic's records: whose clock the append times are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendTimes {
    /// The brokers (`message.timestamp.type=LogAppendTime`). Any other topic is refused.
    #[default]
    Broker,
    /// The producers (`CreateTime`): for benchmarks, whose records stand for those of another time. Such a topic lets producers date
    /// records, so nothing stops them from breaking the log clock.
    Producer,
}

impl AppendTimes {
    /// The topic's `message.timestamp.type`.
    pub(super) const fn timestamp_type(self) -> &'static str {
        match self {
            Self::Broker => "LogAppendTime",
            Self::Producer => "CreateTime",
        }
    }
}

impl fmt::Debug for KafkaOptions {
    /// Leaves the values of properties out: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, topic, group, client_id, properties, append_times } = self;
        let properties: Vec<&String> = properties.keys().collect();
        let mut debug = f.debug_struct("KafkaOptions");
        debug.field("brokers", brokers).field("topic", topic).field("group", group);
        debug.field("client_id", client_id).field("properties", &properties).field("append_times", append_times).finish()
    }
}

impl KafkaOptions {
    /// Refuses what librdkafka does not know and what would break exactness.
    pub(super) fn check(&self) -> Result<(), LogError> {
        for (name, value) in [("brokers", &self.brokers), ("topic", &self.topic), ("group", &self.group)] {
            if value.trim().is_empty() {
                return Err(self.refused(format!("the option `{name}` is empty")));
            }
        }
        for (key, value) in &self.properties {
            if let Some((_, needed)) = BINDING.iter().find(|(name, needed)| name == key && !same_setting(value, needed)) {
                return Err(self.refused(format!("the property {key} must stay \"{needed}\": counts would not be exact otherwise")));
            }
            if let Some((_, why)) = NOT_HERE.iter().find(|(name, _)| name == key) {
                return Err(self.refused(format!("the property {key} cannot be set: {why}")));
            }
        }
        self.consumer(NonZeroU32::MIN).create_native_config().map(drop).map_err(|error| self.refused_property(&error))?;
        self.producer(1 << 20).create_native_config().map(drop).map_err(|error| self.refused_property(&error))
    }

    /// A client that asks and nothing more.
    pub(super) fn asking(&self) -> ClientConfig {
        self.with_properties(self.base())
    }

    /// A client whose partitions and positions are given by hand, for a topic of `partitions` partitions.
    pub(super) fn consumer(&self, partitions: NonZeroU32) -> ClientConfig {
        let mut config = self.consuming();
        // A broker answers one fetch at a time, for all partitions of it that want records, and waits so long if these have none: a
        // partition with records that had enough when the fetch was sent gets no more before it is answered, and a reader that wants
        // another position waits too.
        config.set("fetch.wait.max.ms", "20").set("fetch.error.backoff.ms", "100");
        // The default of a second starves a fold that has emptied its queue.
        config.set("fetch.queue.backoff.ms", "1");
        // What is taken apart in small pieces is still in the CPU's cache when it is read.
        let piece = (PIECES_BYTES / partitions).clamp(64 << 10, 256 << 10);
        config.set("max.partition.fetch.bytes", piece.to_string()).set("check.crcs", "true");
        // Of each partition, as each has a queue of its own. A reader takes messages out of it before it lends them, so that up to
        // twice as much may wait.
        let fetched_kib = (FETCHED_KIB_MAX / partitions).clamp(1 << 10, 8 << 10);
        config.set("queued.max.messages.kbytes", fetched_kib.to_string());
        // A small record takes half a KiB beside its bytes while it waits: the default of 100,000 would be most of the memory.
        config.set("queued.min.messages", (FETCHED_MESSAGES / partitions).clamp(2_000, 20_000).to_string());
        self.with_properties(config)
    }

    /// The consumer of folds. They have no use for being told that a partition ends, and would be woken by it.
    pub(super) fn folding_consumer(&self, partitions: NonZeroU32) -> ClientConfig {
        let mut config = self.consumer(partitions);
        config.set("enable.partition.eof", "false");
        config
    }

    /// A member of the group.
    pub(super) fn member(&self) -> ClientConfig {
        let mut config = self.consuming();
        // A member hears of a rebalance by its next heartbeat: a third of the default saves seconds when another has died.
        config
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "1000")
            .set("partition.assignment.strategy", "cooperative-sticky");
        self.with_properties(config)
    }

    /// What appends, records of up to `record_bytes_max` bytes with what surrounds them.
    pub(super) fn producer(&self, record_bytes_max: usize) -> ClientConfig {
        let mut config = self.base();
        config.set("enable.idempotence", "true").set("acks", "all");
        config.set("message.max.bytes", record_bytes_max.to_string());
        // Longer than a cluster needs to elect new leaders, shorter than callers of a collector wait.
        config.set("message.timeout.ms", "15000");
        // How much waits is bounded by the appender, before anything is taken.
        config.set("queue.buffering.max.messages", "1000000").set("queue.buffering.max.kbytes", "1048576");
        config.set("linger.ms", "5").set("compression.codec", "lz4");
        self.with_properties(config)
    }

    /// How often to ask whether the topic is still the one it was.
    pub(super) fn refresh_interval(&self) -> Duration {
        let set = self.properties.get("topic.metadata.refresh.interval.ms").and_then(|value| value.parse().ok());
        Duration::from_millis(set.or_else(|| REFRESH_MS.parse().ok()).unwrap_or(5_000).max(100))
    }

    /// An error of opening, about this topic.
    pub(super) fn refused(&self, detail: impl Into<String>) -> LogError {
        LogError::Open { path: format!("{} on {}", self.topic, self.brokers), detail: detail.into() }
    }

    /// Names the property; its value may be a secret.
    pub(super) fn refused_property(&self, error: &KafkaError) -> LogError {
        match error {
            KafkaError::ClientConfig(_, description, key, _) if is_secret(key) => {
                tracing::debug!(key, bytes = description.len(), "refused a secret property");
                self.refused(format!("the property {key} is not accepted"))
            }
            KafkaError::ClientConfig(_, description, key, _) => self.refused(format!("the property {key} is not accepted: {description}")),
            other => self.refused(other.to_string()),
        }
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("bootstrap.servers", &self.brokers).set("client.id", &self.client_id);
        config.set("topic.metadata.refresh.interval.ms", REFRESH_MS).set("allow.auto.create.topics", "false");
        config.set("reconnect.backoff.max.ms", "2000").set("socket.keepalive.enable", "true");
        config
    }

    fn consuming(&self) -> ClientConfig {
        let mut config = self.base();
        config.set("group.id", &self.group).set("auto.offset.reset", "error").set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false").set("enable.partition.eof", "true");
        config
    }

    fn with_properties(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
    }
}

fn same_setting(given: &str, needed: &str) -> bool {
    let given = given.trim();
    given.eq_ignore_ascii_case(needed) || (needed == "all" && given == "-1") || (needed == "error" && given == "none")
}

fn is_secret(key: &str) -> bool {
    ["password", "secret", "token", "key.pem", "jaas"].iter().any(|part| key.contains(part))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a failed expectation is a panic")]
mod tests {
    use super::*;

    fn with(properties: &[(&str, &str)]) -> KafkaOptions {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let [brokers, topic, group, client_id] = ["127.0.0.1:1", "views", "g", "me"].map(String::from);
        KafkaOptions { brokers, topic, group, client_id, properties, append_times: AppendTimes::Broker }
    }

    #[test]
    fn properties_that_break_exactness_are_refused_by_name() {
        for (key, value) in [
            ("enable.idempotence", "false"),
            ("acks", "1"),
            ("request.required.acks", "0"),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "true"),
            ("group.id", "other"),
            ("bootstrap.servers", "elsewhere:9092"),
            ("isolation.level", "read_uncommitted"),
        ] {
            let error = with(&[(key, value)]).check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        for (key, value) in
            [("acks", "-1"), ("acks", "all"), ("linger.ms", "20"), ("security.protocol", "ssl"), ("fetch.wait.max.ms", "50")]
        {
            with(&[(key, value)]).check().unwrap();
        }
    }

    #[test]
    fn an_unknown_property_is_refused_by_name_and_a_secret_is_never_shown() {
        let error = with(&[("lingerms", "1")]).check().unwrap_err().to_string();
        assert!(error.contains("lingerms") && error.contains("No such configuration property"), "{error}");
        let secret = with(&[("sasl.password", "hunter2"), ("sasl.password.typo", "hunter2")]);
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(!secret.check().unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn properties_come_last() {
        let config = with(&[("linger.ms", "77"), ("session.timeout.ms", "6000")]).producer(1_000_000);
        assert_eq!(config.get("linger.ms"), Some("77"));
        assert_eq!(with(&[("session.timeout.ms", "6000")]).member().get("session.timeout.ms"), Some("6000"));
        assert_eq!(with(&[("topic.metadata.refresh.interval.ms", "300")]).refresh_interval(), Duration::from_millis(300));
    }
}
