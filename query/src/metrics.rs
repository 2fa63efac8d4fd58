//! What answering tells Prometheus. All names begin with `query_` after the registry's own prefix.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

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
    /// What is counted of each request, so that nothing is allocated for it.
    routes: Arc<RwLock<HashMap<Box<str>, Route>>>,
    store_errors: Counter,
    log_errors: Counter,
    pub(crate) streams: Gauge,
    pub(crate) live_streams: Gauge,
    pub(crate) live_feeds: Gauge,
    pub(crate) live_reads: Counter,
    lists: Histogram,
    pub(crate) letters_counted: Counter,
    pub(crate) cache: CacheMetrics,
}

/// What the cache of pieces tells. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) coalesced: Counter,
    pub(crate) stale: Counter,
    pub(crate) reads: Counter,
    pub(crate) bytes: Gauge,
}

impl CacheMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("store_reads", "Readings of missing pieces, each of few slices", self.reads.clone());
        registry.register("cache_hits", "Pieces of series that were held", self.hits.clone());
        registry.register("cache_misses", "Pieces of series that were read from the store", self.misses.clone());
        registry.register("cache_coalesced", "Pieces of series that were being read for another request", self.coalesced.clone());
        registry.register("cache_stale", "Sums that were older than they may be, because the store was away", self.stale.clone());
        registry.register_with_unit("cache_held", "About how much memory the pieces take", Unit::Bytes, self.bytes.clone());
    }

    /// So many pieces were held, were read, and were being read for another request.
    pub fn pieces(&self) -> (u64, u64, u64) {
        (self.hits.get(), self.misses.get(), self.coalesced.get())
    }
}

/// A route's own metrics.
#[derive(Clone, Debug)]
struct Route {
    ok: Counter,
    not_modified: Counter,
    seconds: Histogram,
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
            routes: Arc::default(),
            store_errors: Counter::default(),
            log_errors: Counter::default(),
            streams: Gauge::default(),
            live_streams: Gauge::default(),
            live_feeds: Gauge::default(),
            live_reads: Counter::default(),
            letters_counted: Counter::default(),
            cache: CacheMetrics::default(),
            // 0.2 ms to 26 s.
            lists: Histogram::new(exponential_buckets(0.0002, 2.0, 18)),
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
        registry.register_with_unit("top_list", "From the beginning to the end of making a top list", Unit::Seconds, self.lists.clone());
        registry.register("record_streams", "Open streams of records", self.streams.clone());
        registry.register("live_streams", "Open streams of live counts", self.live_streams.clone());
        registry.register("live_feeds", "Subjects that live streams are about, each read once a second", self.live_feeds.clone());
        registry.register("live_reads", "Reads for live streams", self.live_reads.clone());
        registry.register("letters_counted", "Refused events that retries through this process have counted", self.letters_counted.clone());
        self.cache.register(registry);
    }

    /// `route` is the pattern of the path, so there are few.
    pub(crate) fn answered(&self, route: &str, status: u16, seconds: f64) {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let count = |of: &Route| {
            of.seconds.observe(seconds);
            match status {
                200 => of.ok.inc(),
                304 => of.not_modified.inc(),
                _ => self.counter(route, status).inc(),
            };
        };
        if let Some(known) = known.get(route) {
            return count(known);
        }
        drop(known);
        let new = Route {
            ok: self.counter(route, 200),
            not_modified: self.counter(route, 304),
            seconds: self.seconds.get_or_create(&ByRoute { route: route.to_owned() }).clone(),
        };
        count(&new);
        self.routes.write().unwrap_or_else(PoisonError::into_inner).insert(route.into(), new);
    }

    fn counter(&self, route: &str, status: u16) -> Counter {
        self.requests.get_or_create(&Answered { route: route.to_owned(), status }).clone()
    }

    /// A top list was made.
    pub(crate) fn listed(&self, seconds: f64) {
        self.lists.observe(seconds);
    }

    pub(crate) fn failed(&self, fault: Fault) {
        match fault {
            Fault::Store => self.store_errors.inc(),
            Fault::Log => self.log_errors.inc(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_counted_once_under_its_route_and_status() {
        let metrics = Metrics::default();
        for status in [200, 304, 404, 200, 503, 200] {
            metrics.answered("/v1/site/views", status, 0.001);
        }
        metrics.clone().answered("/v1/status", 200, 0.001);
        let counts = [200, 304, 404, 503].map(|status| metrics.counter("/v1/site/views", status).get());
        assert_eq!(counts, [3, 1, 1, 1]);
        assert_eq!(metrics.counter("/v1/status", 200).get(), 1);
    }
}
