//! The HTTP collector: `POST /v1/events[?historical=true]`, answered when the log has the events durably.
//!
//! ```text
//! query, headers ──> request::Ask          refused: 400 405 415
//! body ──> intake::Intake                  refused: 408 413 503
//!      ──> batch::sort_out ──> Batch       refused: 400 413, or single events in the answer
//!      ──> EventLog::append, all sources at once ──> 202, or 503 and when to come back
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`request`] | [`request::Ask`]: query string and headers |
//! | `intake` | the body under its limits |
//! | [`body`] | a JSON body as the raw bytes of its events, in any form |
//! | [`batch`] | what to append where, and a verdict on each event |
//! | [`error`] | [`CollectError`], and what it is in HTTP |
//! | `api` | what the OpenAPI document says of it |
//! | [`metrics`] | [`Metrics`] |
//! | `script` | `/t.js`, the collector's client in browsers |
//!
//! The answer to a good request is `{"accepted":n,"rejected_total":m,"rejected":[{"index":i,"reason":"..","detail":".."}]}`;
//! `rejected` names the first [`batch::MAX_REJECTED_SHOWN`] refused events.
//!
//! Memory: all bodies together have at most [`Limits::max_in_flight_bytes`] (in buffers that have room for up to twice
//! that), and the records made from them about as much again. There is no queue: what does not fit is refused with `Retry-After`.
//! Once a body is complete its events are appended whether or not the client stays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures_util::future::join_all;
use schemas::partition::Partitioner;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::{EventLog, LogError, Problem};

mod api;
pub mod batch;
pub mod body;
pub mod error;
mod intake;
pub mod metrics;
pub mod request;
mod script;

pub use error::CollectError;
pub use metrics::Metrics;

use batch::{Append, Batch, Rejected};
use intake::{Budget, Intake};
use request::{Ask, Content};

/// A body longer than this is decoded away from the threads that serve connections.
const INLINE_BODY_BYTES: usize = 256 * 1024;

/// How much the collector takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body of one request, in bytes.
    pub max_body_bytes: usize,
    /// The bytes that the bodies of all requests may hold together, from arrival to answer. Less than
    /// [`Limits::max_body_bytes`] and the longest bodies can never be taken.
    pub max_in_flight_bytes: u32,
    /// The most events of one request.
    pub max_events: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

impl Default for Limits {
    /// 8 MiB a body, 64 MiB of bodies, 50,000 events, 30 s.
    fn default() -> Self {
        Self {
            max_body_bytes: 8 * 1024 * 1024,
            max_in_flight_bytes: 64 * 1024 * 1024,
            max_events: 50_000,
            body_timeout: Duration::from_secs(30),
        }
    }
}

/// Takes events in over HTTP and puts them on the log.
pub struct Collector {
    log: Arc<dyn EventLog>,
    partitioner: Partitioner,
    limits: Limits,
    metrics: Metrics,
    budget: Budget,
    decoders: Semaphore,
}

/// The answer to a request of which at least one event was taken.
#[derive(Debug, Serialize)]
struct Accepted {
    accepted: u64,
    rejected_total: u64,
    rejected: Vec<Rejected>,
}

impl Collector {
    /// A collector for `log`; `partitioner` is the log's own.
    pub fn new(log: Arc<dyn EventLog>, partitioner: Partitioner, limits: Limits) -> Self {
        let metrics = Metrics::default();
        let budget = Budget::new(limits.max_in_flight_bytes, metrics.in_flight_bytes.clone());
        let decoders = Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from));
        Self { log, partitioner, limits, metrics, budget, decoders }
    }

    /// Its metrics, to be registered.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Resolves when no request is being worked on, also none whose client has gone. Call it after the server has stopped
    /// and before the log is closed.
    pub async fn drained(&self) {
        self.budget.all_free().await;
    }

    async fn collect(self: Arc<Self>, request: Request) -> Result<Accepted, CollectError> {
        let (head, body) = request.into_parts();
        let ask = Ask::read(&head.uri, &head.headers)?;
        let Limits { max_body_bytes, body_timeout, .. } = self.limits;
        let intake = Intake::read(ask, body, max_body_bytes, body_timeout, &self.budget).await?;
        self.metrics.body_read(intake.bytes.len());
        // A task of its own, so that the outcome does not depend on the connection.
        tokio::spawn(self.settle(ask, intake)).await.unwrap_or(Err(CollectError::Broken))
    }

    /// Sorts out a complete body and appends it.
    async fn settle(self: Arc<Self>, ask: Ask, intake: Intake) -> Result<Accepted, CollectError> {
        // The share is held until the records made from the bytes are the log's.
        let Intake { bytes, share: _share } = intake;
        let batch = if bytes.len() > INLINE_BODY_BYTES {
            // No more at a time than there are cores: others would only hold memory. Nobody closes the semaphore.
            let _core = self.decoders.acquire().await;
            let this = Arc::clone(&self);
            tokio::task::spawn_blocking(move || this.sort_out(ask, bytes)).await.unwrap_or(Err(CollectError::Broken))?
        } else {
            self.sort_out(ask, bytes)?
        };
        for (reason, events) in &batch.rejected.by_reason {
            self.metrics.rejected(reason, *events);
        }
        if batch.appends.is_empty() {
            return Err(CollectError::NoUsableEvent(batch.rejected));
        }
        let accepted = self.append(batch.appends).await?;
        Ok(Accepted { accepted, rejected_total: batch.rejected.total(), rejected: batch.rejected.shown })
    }

    /// Takes the bytes, so that they are gone before the log is waited for.
    fn sort_out(&self, ask: Ask, bytes: Vec<u8>) -> Result<Batch, CollectError> {
        let (partitioner, max_events) = (&self.partitioner, self.limits.max_events);
        Ok(match ask.content {
            Content::Json(form) => batch::sort_out(form, &bytes, partitioner, max_events, ask.historical)?,
            Content::ViewBatch => batch::sort_out_batch(&bytes, partitioner, max_events, ask.historical)?,
        })
    }

    /// Appends to all sources at once and waits for all of them; the number of events, if every source took its own.
    async fn append(&self, appends: Vec<Append>) -> Result<u64, CollectError> {
        let started = Instant::now();
        let outcomes = join_all(appends.into_iter().map(|Append { source, records, events }| async move {
            let outcome = self.log.append(source, records).await;
            outcome.map(|_| events)
        }))
        .await;
        self.metrics.appended(started.elapsed().as_secs_f64());
        let taken = outcomes.iter().flatten().sum();
        self.metrics.accepted(taken);
        // A log that failed says more than one that is busy.
        match outcomes.into_iter().filter_map(Result::err).min_by_key(|error| matches!(error, LogError::Busy { .. })) {
            None => Ok(taken),
            Some(error) => {
                tracing::warn!(%error, taken, "the log did not take a request's events");
                Err(CollectError::Log { error, partly: taken > 0 })
            }
        }
    }

    fn respond(&self, outcome: Result<Accepted, CollectError>) -> Response {
        let response = match outcome {
            Ok(accepted) => (StatusCode::ACCEPTED, Json(accepted)).into_response(),
            Err(error) => Problem::from(error).into_response(),
        };
        self.metrics.answered(response.status().as_u16());
        response
    }
}

/// The collector's routes, `/v1/events` and `/t.js`.
pub fn router(collector: Arc<Collector>) -> Router {
    Router::from(routes()).method_not_allowed_fallback(other_method).with_state(collector).merge(script::router())
}

/// What the OpenAPI document says of them.
pub fn openapi() -> OpenApi {
    let mut document = routes().into_openapi();
    document.merge(script::openapi());
    document
}

fn routes() -> OpenApiRouter<Arc<Collector>> {
    OpenApiRouter::new().routes(routes!(post_events))
}

/// Send events.
///
/// Takes one event or many, and answers when the log has them durably (on disk, or in as many replicas as Kafka was told).
/// Events are judged one by one: those that can be used are taken even if others are refused. Send a request again after any
/// failure; what is already there is recognised by its `event_id` and counted once.
///
/// The body is JSON (one event, an array, or `{"events": [...]}`), NDJSON with one event a line, or a columnar
/// `tallymark.v1.ViewBatch`. It is not compressed. A request has at most 8 MiB and 50,000 events unless it was configured otherwise.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "send_events",
    tag = "Events",
    params(
        ("historical" = Option<bool>, Query,
            description = "Whether the events may be older than `max_lateness` (7 days by default), as an import's are. Otherwise those that are too old are not counted.")
    ),
    request_body(content(
        (api::Events = "application/json"),
        (String = "application/x-ndjson"),
        ("application/x-protobuf; messageType=tallymark.v1.ViewBatch"),
    )),
    responses((status = 202, description = "The log has the events.", body = api::Accepted), api::Refusals)
)]
async fn post_events(State(collector): State<Arc<Collector>>, request: Request) -> Response {
    let outcome = Arc::clone(&collector).collect(request).await;
    collector.respond(outcome)
}

async fn other_method(State(collector): State<Arc<Collector>>) -> Response {
    collector.respond(Err(CollectError::Method))
}
