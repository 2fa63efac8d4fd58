//! What librdkafka says: log lines go to `tracing`, fatal errors fail the log.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::failure::Failure;

/// The ears of a client.
pub(super) struct Context {
    /// Set if a fatal error of this client is the end of the log.
    pub(super) failure: Option<Failure>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match (&self.failure, error.rdkafka_error_code()) {
            (Some(failure), Some(RDKafkaErrorCode::Fatal)) => failure.fail(format!("its client met a fatal error: {reason}")),
            // librdkafka goes on by itself, and has said the same as a log line.
            _ => tracing::debug!(%error, reason, "Kafka client"),
        }
    }
}

impl ConsumerContext for Context {}

/// Passes a line on. Every property goes to every client, so that one which does not concern a client is no news.
pub(super) fn say(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel as Level;
    match level {
        _ if facility == "CONFWARN" => tracing::debug!(facility, "Kafka client: {message}"),
        Level::Emerg | Level::Alert | Level::Critical => tracing::error!(facility, "Kafka client: {message}"),
        Level::Error | Level::Warning => tracing::warn!(facility, "Kafka client: {message}"),
        Level::Notice | Level::Info => tracing::info!(facility, "Kafka client: {message}"),
        Level::Debug => tracing::debug!(facility, "Kafka client: {message}"),
    }
}
