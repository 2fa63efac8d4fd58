//! What answering tells Prometheus. All names begin with `query_` after the registry's own prefix.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::error::Fault;

/// The metrics of a query service. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Answered, Counter>,
    seconds: Family<ByRoute, Histogram, fn() -> Histogram>,
    store_errors: Counter,
    log_errors: Counter,
    pub(crate) streams: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    route: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // 0.2 ms to 13 s.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0002, 2.0, 17))),
            store_errors: Counter::default(),
            log_errors: Counter::default(),
            streams: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes them visible in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("query");
        registry.register("requests", "Requests answered, by route and status", self.requests.clone());
        registry.register_with_unit("request", "From a request to its answer's head, by route", Unit::Seconds, self.seconds.clone());
        registry.register("store_errors", "Answers that failed because of the store", self.store_errors.clone());
        registry.register("log_errors", "Answers that failed because of the log", self.log_errors.clone());
        registry.register("record_streams", "Open streams of records", self.streams.clone());
    }

    /// `route` is the pattern of the path, so there are few.
    pub(crate) fn answered(&self, route: &str, status: u16, seconds: f64) {
        self.requests.get_or_create(&Answered { route: route.to_owned(), status }).inc();
        self.seconds.get_or_create(&ByRoute { route: route.to_owned() }).observe(seconds);
    }

    pub(crate) fn failed(&self, fault: Fault) {
        match fault {
            Fault::Store => self.store_errors.inc(),
            Fault::Log => self.log_errors.inc(),
        };
    }
}
