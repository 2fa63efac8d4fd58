//! `/livez`, `/readyz`, `/metrics`: for supervisors, load balancers and Prometheus.
//!
//! `/livez` is about this process alone: restarting it mends nothing that is wrong elsewhere. `/readyz` is 200 while requests (or, of an
//! aggregator, sources) are in good hands here:
//!
//! | role | is ready while |
//! |---|---|
//! | collect | the log answers, or there is room in its spool |
//! | query | the store answers; a log that does not is told as a note, because counts do not need it |
//! | aggregate | log and store answer, and each of its sources runs (no source at all is well: it waits for its turn) |
//! | archive | log and store answer; failures of the archive itself are metrics and lag |
//! | run | all of this |

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aggregator::CountStore;
use aggregator::worker::{Observer, SourceState};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use ingest::problem::responses::ANY;
use ingest::{EventLog, Problem, Spool};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Role;
use super::probe::{Word, Words};
use crate::keys::{Keys, Known};

/// What tells whether the process is well.
pub(super) struct Health {
    pub(super) role: Role,
    pub(super) words: Words,
    pub(super) observer: Option<Observer>,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) dead_letters: Option<Arc<dyn EventLog>>,
    pub(super) store: Option<Arc<dyn CountStore>>,
    pub(super) keys: Keys,
    pub(super) spool: Option<Arc<Spool>>,
    /// Raised when the process begins to stop.
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) registry: Registry,
}

impl Health {
    /// Why requests should not come here now; none if they should.
    fn reasons(&self) -> Vec<String> {
        let stopping = self.stopping.load(Ordering::Relaxed).then(|| "this process is stopping".to_owned());
        let store_word = self.words.store().and_then(|word| word.trouble("the store"));
        let log_word = self.words.log().trouble("the log").filter(|_| self.needs_log());
        let states = self.observer.as_ref().map(Observer::states).unwrap_or_default();
        let sources = states.iter().filter_map(|(source, state)| match state {
            SourceState::Starting => Some(format!("source {source} is starting")),
            SourceState::Owned(status) if status.recovering > 0 => {
                Some(format!("source {source} recovers: {} records to go", status.recovering))
            }
            SourceState::Owned(_) => None,
            SourceState::Stopped(error) => Some(format!("source {source} has stopped: {error}")),
        });
        let keys = match self.keys.known() {
            Known::Nothing(why) => Some(format!("which keys there are is not known yet: {why}")),
            Known::Ring(_) => None,
        };
        stopping.into_iter().chain(self.failures()).chain(keys).chain(log_word).chain(store_word).chain(sources).collect()
    }

    /// Whether requests are in bad hands here while the log is away.
    fn needs_log(&self) -> bool {
        let spools = self.role == Role::Collect && self.spool.as_ref().is_some_and(|spool| spool.has_room());
        !self.role.answers_only() && !spools
    }

    /// What will not mend without a restart.
    fn failures(&self) -> impl Iterator<Item = String> {
        let failures = [
            ("the log", self.log.failure().filter(|_| !self.role.answers_only())),
            ("the log of rejected events", self.dead_letters.as_ref().and_then(|log| log.failure()).filter(|_| !self.role.answers_only())),
            ("the store", self.store.as_ref().and_then(|store| store.failure())),
            ("the spool", self.spool.as_ref().and_then(|spool| spool.failure())),
        ];
        failures.into_iter().filter_map(|(what, failure)| Some(format!("{what} cannot be written: {}", failure?)))
    }

    /// What is wrong and no reason to send requests elsewhere.
    fn notes(&self) -> Vec<String> {
        let told = || self.log.failure().or_else(|| self.words.log().trouble("the log"));
        if self.needs_log() { Vec::new() } else { told().into_iter().collect() }
    }
}

ingest::answers_with!(
    /// How a process that is not ready says so.
    NotReady = [&["unavailable"]]
);
ingest::answers_with!(
    /// How metrics fail.
    NoMetrics = [ANY, &["metrics"]]
);

/// Requests are in good hands here.
#[derive(serde::Serialize, utoipa::ToSchema)]
struct Ready {
    ready: bool,
    /// What is wrong and no reason to send requests elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// The routes.
pub(super) fn router(health: Arc<Health>) -> Router {
    Router::from(routes()).method_not_allowed_fallback(query::method_not_allowed).with_state(health)
}

/// What the OpenAPI document says of them.
pub(super) fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<Arc<Health>> {
    OpenApiRouter::new().routes(routes!(livez)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// Whether the process runs.
///
/// It says nothing of anything else: restarting a process mends nothing that is wrong elsewhere.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "livez",
    tag = "Operation",
    responses((status = 200, description = "It runs.", body = String))
)]
async fn livez() -> &'static str {
    "ok\n"
}

/// Whether requests should come here.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "Operation",
    responses((status = 200, description = "They should.", body = Ready), NotReady)
)]
async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let (reasons, notes) = (health.reasons(), health.notes());
    if !reasons.is_empty() {
        return Problem::unavailable(1, reasons.join("; ")).with("ready", false).with("reasons", reasons).into_response();
    }
    Json(Ready { ready: true, notes }).into_response()
}

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Operation",
    responses((status = 200, description = "The metrics.", body = String, content_type = "application/openmetrics-text"), NoMetrics)
)]
async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &health.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", "The metrics cannot be written", "this is a bug").into_response()
        }
    }
}

/// Registers `tallymark_log_up` and `tallymark_store_up`: 1 while it answers.
pub(super) fn register(words: Words, registry: &mut Registry) {
    registry.register_collector(Box::new(Up(words)));
}

struct Up(Words);

impl fmt::Debug for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Up").finish_non_exhaustive()
    }
}

impl Collector for Up {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, word: &Word| {
            let metric = ConstGauge::new(i64::from(*word == Word::Well));
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge("tallymark_log_up", "1 while the log answers this process", &self.0.log())?;
        match self.0.store() {
            Some(word) => gauge("tallymark_store_up", "1 while the store answers this process", &word),
            None => Ok(()),
        }
    }
}
