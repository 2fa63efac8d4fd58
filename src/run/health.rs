//! `/livez`, `/readyz`, `/metrics`: for supervisors, load balancers and Prometheus.

use std::sync::Arc;

use aggregator::EmbeddedStore;
use aggregator::worker::{Observer, SourceState};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ingest::{EmbeddedLog, Problem};
use prometheus_client::registry::Registry;
use serde_json::json;

/// What tells whether the program is well.
pub(crate) struct Health {
    pub(crate) observer: Observer,
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) dead_letters: Arc<EmbeddedLog>,
    pub(crate) store: EmbeddedStore,
    pub(crate) registry: Registry,
}

impl Health {
    /// Why requests should not come here now; none if they should.
    fn reasons(&self) -> Vec<String> {
        let failures = [
            ("the log", self.log.failure()),
            ("the log of rejected events", self.dead_letters.failure()),
            ("the store", self.store.failure()),
        ];
        let failures = failures.into_iter().filter_map(|(what, failure)| Some(format!("{what} cannot be written: {}", failure?)));
        let states = self.observer.states();
        let sources = states.iter().filter_map(|(source, state)| match state {
            SourceState::Starting => Some(format!("source {source} is starting")),
            SourceState::Owned(status) if status.recovering > 0 => {
                Some(format!("source {source} recovers: {} records to go", status.recovering))
            }
            SourceState::Owned(_) => None,
            SourceState::Stopped(error) => Some(format!("source {source} has stopped: {error}")),
        });
        failures.chain(sources).collect()
    }
}

/// The routes.
pub(crate) fn router(health: Arc<Health>) -> Router {
    Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(readyz)).route("/metrics", get(metrics)).with_state(health)
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let reasons = health.reasons();
    if reasons.is_empty() {
        return Json(json!({ "ready": true })).into_response();
    }
    Problem::unavailable(1, reasons.join("; ")).with("ready", false).with("reasons", reasons).into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &health.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", "The metrics cannot be written", "this is a bug").into_response()
        }
    }
}
