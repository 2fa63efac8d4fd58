//! What the collector tells Prometheus. All names begin with `collect_` after the registry's own prefix.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::coding::Undecodable;
use super::error::CollectError;

/// The collector's metrics. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<StatusClass, Counter>,
    accepted: Counter,
    rejected: Family<ByReason, Counter>,
    moved: Counter,
    replayed: Counter,
    limited: Family<ByLimit, Counter>,
    body_bytes: Counter,
    decoded_bytes: Counter,
    pub(super) in_flight_bytes: Gauge,
    append_seconds: Histogram,
    spooled: Counter,
    /// Of the spool, if there is one.
    pub(super) spooled_bytes: Gauge,
    spool_max_bytes: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusClass {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    limit: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            accepted: Counter::default(),
            rejected: Family::default(),
            moved: Counter::default(),
            replayed: Counter::default(),
            limited: Family::default(),
            body_bytes: Counter::default(),
            decoded_bytes: Counter::default(),
            in_flight_bytes: Gauge::default(),
            // 0.5 ms to 16 s: from a fast disk's fsync to one in trouble.
            append_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            spooled: Counter::default(),
            spooled_bytes: Gauge::default(),
            spool_max_bytes: Gauge::default(),
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
        registry.register("events_clock_corrected", "Events whose instant was corrected by their client's clock", self.moved.clone());
        registry.register("requests_replayed", "Requests given the answer of the first with their Idempotency-Key", self.replayed.clone());
        registry.register("requests_limited", "Requests refused so that others are served, by limit", self.limited.clone());
        registry.register_with_unit("decoded_body", "Bytes that compressed bodies decoded to", Unit::Bytes, self.decoded_bytes.clone());
        registry.register_with_unit("body", "Body bytes read", Unit::Bytes, self.body_bytes.clone());
        registry.register_with_unit("in_flight_body", "Body bytes held now", Unit::Bytes, self.in_flight_bytes.clone());
        registry.register_with_unit("append", "From a decoded request to its durable events", Unit::Seconds, self.append_seconds.clone());
        registry.register("events_spooled", "Events accepted onto this machine's disk, because the log was away", self.spooled.clone());
        registry.register_with_unit("spooled", "What waits on disk for the log", Unit::Bytes, self.spooled_bytes.clone());
        registry.register_with_unit("spool_max", "The most that may wait there", Unit::Bytes, self.spool_max_bytes.clone());
    }

    /// So many bytes may wait on disk for the log.
    pub fn spool_may_hold(&self, bytes: u64) {
        self.spool_max_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
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

    pub(super) fn spooled(&self, events: u64) {
        self.spooled.inc_by(events);
    }

    pub(super) fn rejected(&self, reason: &'static str, events: u64) {
        self.rejected.get_or_create(&ByReason { reason }).inc_by(events);
    }

    pub(super) fn moved(&self, events: u64) {
        self.moved.inc_by(events);
    }

    pub(super) fn replayed(&self) {
        self.replayed.inc();
    }

    /// A request was refused: by a limit, perhaps.
    pub(super) fn refused(&self, error: &CollectError) {
        let limit = match error {
            CollectError::Quota { policy, .. } => policy,
            CollectError::Share { .. } => "share",
            CollectError::SourceFull(_) => "source",
            CollectError::Full => "memory",
            CollectError::BodyTooSlow { .. } => "pace",
            CollectError::BodyTooLarge { .. } | CollectError::DecodedTooLarge { .. } => "size",
            CollectError::Undecodable(Undecodable::Bomb { .. }) => "ratio",
            _ => return,
        };
        self.limited.get_or_create(&ByLimit { limit }).inc();
    }

    pub(super) fn decoded(&self, bytes: usize) {
        self.decoded_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn body_read(&self, bytes: usize) {
        self.body_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn appended(&self, seconds: f64) {
        self.append_seconds.observe(seconds);
    }
}
