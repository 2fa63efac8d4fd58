//! The log on Kafka: its options from the settings, its topics as `tallymark migrate` makes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ingest::kafka::topics::{self, TopicSpec};
use ingest::kafka::{AppendTimes, KafkaLog, KafkaOptions};
use ingest::{EventLog, LogError};

use super::{BackendError, blocking, read_named, rejected_topic};
use crate::config::{Settings, properties_file};

/// Connects to one topic.
pub(super) async fn open(settings: &Settings, topic: &str) -> Result<Arc<dyn EventLog>, BackendError> {
    let options = options(settings, topic)?;
    let log = blocking(move || KafkaLog::open(options)).await.map_err(|error| with_way_out(error, settings))?;
    Ok(Arc::new(log))
}

/// Makes both topics, or sees that they are as they should be.
pub(super) async fn create_topics(settings: &Settings) -> Result<Vec<String>, BackendError> {
    let options = options(settings, &settings.kafka.topic)?;
    let spec = |name: String, partitions| TopicSpec {
        name,
        partitions,
        replication: settings.replication,
        min_insync: min_insync(settings.replication),
        retention_ms: if settings.retention_ms == 0 { -1 } else { settings.retention_ms },
    };
    let specs = [spec(settings.kafka.topic.clone(), settings.fold.sources), spec(rejected_topic(settings), 1)];
    blocking(move || topics::create(&options, &specs)).await.map_err(|error| with_way_out(error, settings))
}

/// At the start of a program, brokers that do not answer are mostly the wrong ones.
fn with_way_out(error: BackendError, settings: &Settings) -> BackendError {
    match error {
        BackendError::Log(LogError::Unavailable(detail)) => {
            let addresses = settings.kafka.brokers.clone();
            BackendError::Unreachable { server: "Kafka", what: "broker", key: "kafka_brokers", addresses, detail }
        }
        other => other,
    }
}

/// So many copies of a record exist before it is acknowledged: half of them, rounded up. Of three, one may be lost and all goes on.
const fn min_insync(replication: u32) -> u32 {
    replication.div_ceil(2)
}

fn options(settings: &Settings, topic: &str) -> Result<KafkaOptions, BackendError> {
    let kafka = &settings.kafka;
    let client_id = if kafka.client_id.is_empty() { default_client_id() } else { kafka.client_id.clone() };
    Ok(KafkaOptions {
        brokers: kafka.brokers.clone(),
        topic: topic.to_owned(),
        group: kafka.group.clone(),
        client_id,
        properties: properties(settings)?,
        append_times: AppendTimes::Broker,
    })
}

/// The file's properties, and over them those of the configuration.
fn properties(settings: &Settings) -> Result<BTreeMap<String, String>, BackendError> {
    const KEY: &str = "kafka_properties_file";
    let mut properties = match &settings.kafka.properties_file {
        None => BTreeMap::new(),
        Some(path) => properties_file(&read_named(KEY, path)?).map_err(|line| BackendError::File {
            key: KEY,
            path: path.display().to_string(),
            detail: format!("line {line} is not NAME=VALUE"),
        })?,
    };
    properties.extend(settings.kafka.properties.clone());
    Ok(properties)
}

/// `HOST-PID`: two processes never have the same, and people find the one that is meant.
fn default_client_id() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    format!("{}-{}", host.as_deref().unwrap_or("tallymark"), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_three_copies_one_may_be_lost_and_two_hold_every_record() {
        assert_eq!([1, 2, 3, 5].map(min_insync), [1, 1, 2, 3]);
    }

    #[test]
    fn properties_of_the_configuration_go_over_those_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.properties");
        let mut settings = Settings::default();
        settings.kafka.properties = [("linger.ms".to_owned(), "1".to_owned())].into();
        settings.kafka.properties_file = Some(path.clone());
        let error = properties(&settings).unwrap_err().to_string();
        assert!(error.contains("kafka_properties_file") && error.contains("secret.properties"), "{error}");
        std::fs::write(&path, "linger.ms=9\nsasl.password=hunter2\n").unwrap();
        let read = properties(&settings).unwrap();
        assert_eq!((read["linger.ms"].as_str(), read["sasl.password"].as_str()), ("1", "hunter2"));
        std::fs::write(&path, "sasl.password hunter2\n").unwrap();
        let error = properties(&settings).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }
}
