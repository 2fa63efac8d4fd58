//! What the collector tells Prometheus. All names begin with `collect_` after the registry's own prefix.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The collector's metrics. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<StatusClass, Counter>,
    accepted: Counter,
    rejected: Family<ByReason, Counter>,
    body_bytes: Counter,
    pub(super) in_flight_bytes: Gauge,
    append_seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusClass {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            accepted: Counter::default(),
            rejected: Family::default(),
            body_bytes: Counter::default(),
            in_flight_bytes: Gauge::default(),
            // 0.5 ms to 16 s: from a fast disk's fsync to one in trouble.
            append_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
        }
    }
}

impl Metrics {
    /// Makes them visible in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("collect");
        registry.register("requests", "Requests answered, by class of status", self.requests.clone());
        registry.register("events_accepted", "Events that the log has durably", self.accepted.clone());
        registry.register("events_rejected", "Events refused before the log, by reason", self.rejected.clone());
        registry.register_with_unit("body", "Body bytes read", Unit::Bytes, self.body_bytes.clone());
        registry.register_with_unit("in_flight_body", "Body bytes held now", Unit::Bytes, self.in_flight_bytes.clone());
        registry.register_with_unit("append", "From a decoded request to its durable events", Unit::Seconds, self.append_seconds.clone());
    }

    pub(super) fn answered(&self, status: u16) {
        let status = match status {
            ..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.requests.get_or_create(&StatusClass { status }).inc();
    }

    pub(super) fn accepted(&self, events: u64) {
        self.accepted.inc_by(events);
    }

    pub(super) fn rejected(&self, reason: &'static str, events: u64) {
        self.rejected.get_or_create(&ByReason { reason }).inc_by(events);
    }

    pub(super) fn body_read(&self, bytes: usize) {
        self.body_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn appended(&self, seconds: f64) {
        self.append_seconds.observe(seconds);
    }
}
