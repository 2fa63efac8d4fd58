//! What stands in for a backend that this program was built without: it refuses, and says so.

#[cfg(not(feature = "kafka"))]
pub(super) mod kafka {
    use std::sync::Arc;

    use ingest::EventLog;

    use super::super::BackendError;
    use crate::config::Settings;

    const ABSENT: BackendError = BackendError::NotBuiltIn { key: "kafka_brokers", server: "Kafka", feature: "kafka" };

    pub(in super::super) async fn open(_: &Settings, _: &str) -> Result<Arc<dyn EventLog>, BackendError> {
        Err(ABSENT)
    }

    pub(in super::super) async fn create_topics(_: &Settings) -> Result<Vec<String>, BackendError> {
        Err(ABSENT)
    }
}

#[cfg(not(feature = "cassandra"))]
pub(super) mod cassandra {
    use std::sync::Arc;

    use aggregator::CountStore;
    use schemas::LogId;

    use super::super::BackendError;
    use crate::config::Settings;

    const ABSENT: BackendError = BackendError::NotBuiltIn { key: "cassandra_nodes", server: "Cassandra", feature: "cassandra" };

    pub(in super::super) async fn open(_: &Settings, _: LogId) -> Result<Arc<dyn CountStore>, BackendError> {
        Err(ABSENT)
    }

    pub(in super::super) async fn migrate(_: &Settings, _: LogId, _: bool) -> Result<Vec<String>, BackendError> {
        Err(ABSENT)
    }
}
