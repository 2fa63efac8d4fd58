//! The HTTP collector: `POST /v1/events[?historical=true]`, answered when the log has the events durably.
//!
//! ```text
//! query, headers ──> request::Ask          refused: 400 403 405 415
//! caller ──> quota                         refused: 429
//! body ──> intake::Intake                  refused: 400 408 413 429 503
//!      ──> idempotency                     answered as before, or refused: 409 422
//!      ──> batch ──> events by source      refused: 400 413 429, or single events in the answer
//!      ──> small: gathered with others' ─┐
//!      ──> large: records of their own ──┴─> EventLog::append, all sources at once ──> 202, or 503 and when to come back
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`request`] | [`request::Ask`]: query string and headers |
//! | [`quota`] | how much of one caller is taken each second |
//! | `intake` | the body under its limits |
//! | `budget` | the memory for all bodies, and one caller's part of it |
//! | [`coding`] | a compressed body, decoded while it arrives |
//! | [`idempotency`] | the answer of the first for a request that is sent again |
//! | [`body`] | a JSON body as the raw bytes of its events, in any form |
//! | [`batch`] | what to append where, and a verdict on each event |
//! | `gather` | the events of small requests, until they are records together |
//! | `outlet` | the log, or on disk while it is away |
//! | [`skew`] | what a client's wrong clock is corrected by |
//! | [`enrich`] | what the collector itself puts on an event |
//! | `waiting` | how much waits for each source |
//! | [`error`] | [`CollectError`], and what it is in HTTP |
//! | `api` | what the OpenAPI document says of it |
//! | [`metrics`] | [`Metrics`] |
//! | `script` | `/t.js`, the collector's client in browsers |
//!
//! The answer to a good request is `{"accepted":n,"rejected_total":m,"rejected":[{"index":i,"reason":"..","detail":".."}]}`, with
//! `"spooled":k` if so many of the accepted went to a [`Spool`], because the log is away; `rejected` names the first [`batch::MAX_REJECTED_SHOWN`] refused events.
//!
//! Memory: all bodies together, decoded, have at most [`Limits::max_in_flight_bytes`] (in buffers that have room for up to twice
//! that), and the records made from them about as much again; one caller has at most half. What gathers for a source is of requests that hold their part of it; nothing else waits, and what does not fit is
//! refused with `Retry-After`. Once a body is complete its events are appended whether or not the client stays.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use schemas::Millis;
use schemas::Source;
use schemas::partition::Partitioner;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::caller::Caller;
use crate::spool::{Spool, Taken};
use crate::{EventLog, LogError, Problem};

mod api;
pub mod batch;
pub mod body;
mod budget;
pub mod coding;
pub mod enrich;
pub mod error;
mod gather;
pub mod idempotency;
mod intake;
pub mod metrics;
mod outlet;
pub mod quota;
pub mod request;
mod script;
pub mod skew;
mod waiting;

pub use error::CollectError;
pub use metrics::Metrics;

use batch::{Append, Batch, Rejected, RejectedEvents};
use budget::{Budget, Share};
use enrich::{DailySalt, Edge, Enrichment, Sender};
use gather::Gathering;
use idempotency::{Answers, Begun, Fingerprint};
use intake::{Bounds, Intake, linger};
use outlet::Outlet;
use quota::{Meters, Quotas};
use request::Ask;
use waiting::{Turn, Waiting};

/// Says that an answer is that of the first request with the same `Idempotency-Key`.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A body longer than this is decoded away from the threads that serve connections, and its events share no records with others'.
const SMALL_BODY_BYTES: usize = 256 * 1024;

/// How an append ended that a request has a part in.
type Told = tokio::sync::oneshot::Receiver<Result<Taken, LogError>>;

/// A small request's events on their way.
struct Gathered {
    /// For each source how many, and who tells how it ended.
    parts: Vec<(u64, Told)>,
    rejected: RejectedEvents,
    _waits: Turn,
}

/// How much the collector takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body of one request as it comes, in bytes.
    pub max_body_bytes: usize,
    /// The longest body once it is decoded, if it is compressed; at most what fits into [`Limits::max_in_flight_bytes`] together
    /// with what decoding takes.
    pub max_decoded_bytes: usize,
    /// The bytes that the bodies of all requests may hold together, from arrival to answer. Less than
    /// the longest body, and that can never be taken.
    pub max_in_flight_bytes: u32,
    /// The most events of one request.
    pub max_events: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How many bytes of a body must come each second, after a few seconds of patience; 0 is any.
    pub body_bytes_per_second: u32,
    /// How much of one caller is taken each second.
    pub quotas: Quotas,
}

impl Default for Limits {
    /// 8 MiB a body, also decoded, 64 MiB of bodies, 50,000 events, 30 s and at least 1 KiB a second; as much of a caller as comes.
    fn default() -> Self {
        Self {
            max_body_bytes: 8 * 1024 * 1024,
            max_decoded_bytes: 8 * 1024 * 1024,
            max_in_flight_bytes: 64 * 1024 * 1024,
            max_events: 50_000,
            body_timeout: Duration::from_secs(30),
            body_bytes_per_second: 1_024,
            quotas: Quotas::default(),
        }
    }
}

/// Takes events in over HTTP and puts them on the log.
pub struct Collector {
    outlet: Arc<Outlet>,
    gathering: Arc<Gathering>,
    partitioner: Partitioner,
    limits: Limits,
    enrichment: Enrichment,
    metrics: Metrics,
    meters: Meters,
    budget: Budget,
    answers: Arc<Answers>,
    waiting: Arc<Waiting>,
    salts: DailySalt,
    decoders: Semaphore,
}

/// The answer to a request of which at least one event was taken.
#[derive(Debug, Serialize)]
struct Accepted {
    accepted: u64,
    rejected_total: u64,
    rejected: Vec<Rejected>,
    /// So many of the accepted are on this machine's disk, for the log that is away.
    #[serde(skip_serializing_if = "is_zero")]
    spooled: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many events of a request were taken, and how many of them are on disk.
#[derive(Clone, Copy, Debug, Default)]
struct Appended {
    events: u64,
    spooled: u64,
}

impl Appended {
    fn of(events: u64, taken: Taken) -> Self {
        Self { events, spooled: if taken == Taken::Spooled { events } else { 0 } }
    }
}

/// A good answer: its bytes, and whether they were given before.
struct Answer {
    bytes: Bytes,
    again: bool,
}

/// A request but for its body, and what is to be done to its events.
struct Work {
    ask: Ask,
    edge: Edge,
    caller: Caller,
}

impl Collector {
    /// A collector for `log`; `partitioner` is the log's own. It puts nothing on events: see [`Collector::enriching`].
    pub fn new(log: Arc<dyn EventLog>, partitioner: Partitioner, mut limits: Limits) -> Self {
        let metrics = Metrics::default();
        limits.max_decoded_bytes = coding::most_decoded(limits.max_decoded_bytes, limits.max_in_flight_bytes);
        let one_body = limits.max_body_bytes.max(coding::memory(limits.max_decoded_bytes));
        let outlet = Arc::new(Outlet::Log(log));
        Self {
            gathering: Arc::new(Gathering::new(Arc::clone(&outlet), partitioner.sources.get())),
            outlet,
            partitioner,
            limits,
            enrichment: Enrichment::default(),
            meters: Meters::new(limits.quotas, Instant::now()),
            budget: Budget::new(limits.max_in_flight_bytes, one_body, metrics.in_flight_bytes.clone()),
            answers: Arc::new(Answers::new()),
            waiting: Arc::new(Waiting::new(partitioner.sources.get(), limits.max_in_flight_bytes)),
            salts: DailySalt::default(),
            decoders: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            metrics,
        }
    }

    /// It puts this on each event.
    #[must_use]
    pub fn enriching(self, enrichment: Enrichment) -> Self {
        Self { enrichment, ..self }
    }

    /// The same with a spool before its log.
    #[must_use]
    pub fn spooling(mut self, spool: Arc<Spool>) -> Self {
        self.metrics.spooled_bytes = spool.held();
        self.outlet = Arc::new(Outlet::Spooling(spool));
        self.gathering = Arc::new(Gathering::new(Arc::clone(&self.outlet), self.partitioner.sources.get()));
        self
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

    /// Forgets the salt of each day when it is over, also where no request comes then; until the collector is gone.
    pub async fn forget_salts(collector: Weak<Self>) {
        loop {
            let rest_ms = u64::try_from(enrich::until_midnight_ms(Millis::now())).unwrap_or(1);
            tokio::time::sleep(Duration::from_millis(rest_ms)).await;
            let Some(collector) = collector.upgrade() else { return };
            collector.salts.forget_before(Millis::now());
        }
    }

    async fn collect(self: Arc<Self>, request: Request, caller: Caller) -> Result<Answer, CollectError> {
        let received = Millis::now();
        let (head, body) = request.into_parts();
        let ask = Ask::read(&head.uri, &head.headers)?;
        if let Err(error) = self.admit(&ask, &caller) {
            linger(body.into_data_stream(), self.limits.max_body_bytes);
            return Err(error);
        }
        let edge = self.edge(&ask, &caller, &head.headers, received)?;
        let Limits { max_body_bytes: max_bytes, max_decoded_bytes, body_timeout: timeout, body_bytes_per_second, .. } = self.limits;
        let bounds = Bounds { max_bytes, max_decoded_bytes, timeout, bytes_per_second: body_bytes_per_second };
        let intake = Intake::read(body, ask.content_length, ask.coding, &bounds, &self.budget, &caller).await?;
        self.metrics.body_read(intake.received);
        if ask.coding.is_some() {
            self.metrics.decoded(intake.bytes.len());
        }
        // A task of its own, so that the outcome does not depend on the connection.
        // Boxed: tokio aligns tasks to two cache lines, which the allocator does slowly for large ones.
        tokio::spawn(Box::pin(self.settle(Arc::new(Work { ask, edge, caller }), intake))).await.unwrap_or(Err(CollectError::Broken))
    }

    /// Whether the body is read at all.
    fn admit(&self, ask: &Ask, caller: &Caller) -> Result<(), CollectError> {
        if ask.historical && caller.key.as_ref().is_some_and(|key| !key.may_import) {
            return Err(CollectError::MayNotImport);
        }
        self.meters.admit(caller, Instant::now())
    }

    /// What is to be done to the events of a request that came at `received`.
    fn edge(&self, ask: &Ask, caller: &Caller, headers: &HeaderMap, received: Millis) -> Result<Edge, CollectError> {
        let skew_ms = ask.sent_at.map_or(0, |sent_at| skew::skew_ms(received, sent_at));
        let salt = self.enrichment.daily_viewers.then(|| self.salts.of(received)).transpose();
        let salt = salt.map_err(|error| CollectError::NoSalt(error.to_string()))?;
        let user_agent = headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let sender = Sender { address: caller.address, user_agent: user_agent.as_deref(), received };
        Ok(Edge::new(ask.historical, skew_ms, &self.enrichment, salt, &sender))
    }

    /// Sorts out a complete body and appends it.
    async fn settle(self: Arc<Self>, work: Arc<Work>, intake: Intake) -> Result<Answer, CollectError> {
        // The share is held until the records made from the bytes are the log's.
        let Intake { bytes, share, .. } = intake;
        let turn = match &work.ask.idempotency_key {
            None => None,
            Some(key) => match self.answers.begin(&work.caller, key, Fingerprint::of(work.ask.historical, &bytes))? {
                Begun::New(turn) => Some(turn),
                Begun::Answered(bytes) => {
                    self.metrics.replayed();
                    return Ok(Answer { bytes, again: true });
                }
            },
        };
        let (appended, rejected) = if bytes.len() <= SMALL_BODY_BYTES {
            self.append_with_others(&work, bytes, &share).await
        } else {
            self.append_apart(&work, bytes, &share).await
        }?;
        let Appended { events: accepted, spooled } = appended;
        if work.edge.skew_ms() != 0 {
            self.metrics.moved(accepted);
        }
        let accepted = Accepted { accepted, rejected_total: rejected.total(), rejected: rejected.shown, spooled };
        let bytes = Bytes::from(serde_json::to_vec(&accepted).map_err(|_| CollectError::Broken)?);
        if let Some(turn) = turn {
            turn.keep(bytes.clone());
        }
        Ok(Answer { bytes, again: false })
    }

    /// A small body: its events go to the log together with those of other requests.
    async fn append_with_others(&self, work: &Work, bytes: Vec<u8>, share: &Share) -> Result<(Appended, RejectedEvents), CollectError> {
        let Gathered { parts, rejected, _waits } = self.gather(work, &bytes, share)?;
        let started = Instant::now();
        // They are records now, or will be.
        drop(bytes);
        let mut outcomes = Vec::with_capacity(parts.len());
        for (events, told) in parts {
            let taken = told.await.map_err(|_| CollectError::Broken)?;
            outcomes.push(taken.map(|taken| Appended::of(events, taken)));
        }
        Ok((self.appended(&outcomes, started)?, rejected))
    }

    /// Hands a small body's events to what gathers for each source; who tells when how many of them are there.
    fn gather(&self, work: &Work, bytes: &[u8], share: &Share) -> Result<Gathered, CollectError> {
        let (placed, mut rejected) = batch::place(work.ask.content, bytes, &self.partitioner, self.limits.max_events, &work.edge)?;
        let by_source = || placed.chunk_by(|a, b| a.source == b.source).filter_map(|events| Some((events.first()?.source, events)));
        let _waits = self.admit_events(work, placed.len(), &rejected, by_source().map(|(source, _)| source), share)?;
        let mut parts = Vec::new();
        for (source, events) in by_source() {
            let mut good = events.len();
            let told = self.gathering.append(source, work.edge.historical(), events.iter(), |placed| {
                rejected.too_large(placed.index);
                good -= 1;
            });
            parts.push((u64::try_from(good).unwrap_or_default(), told.ok_or(CollectError::Broken)?));
        }
        Ok(Gathered { parts, rejected, _waits })
    }

    /// A large body: its events are records of their own.
    async fn append_apart(
        self: &Arc<Self>,
        work: &Arc<Work>,
        bytes: Vec<u8>,
        share: &Share,
    ) -> Result<(Appended, RejectedEvents), CollectError> {
        let Batch { appends, rejected } = self.sorted_out(work, bytes).await?;
        let events: u64 = appends.iter().map(|append| append.events).sum();
        let events = usize::try_from(events).unwrap_or(usize::MAX);
        let _waits = self.admit_events(work, events, &rejected, appends.iter().map(|append| append.source), share)?;
        let started = Instant::now();
        let outcomes = join_all(appends.into_iter().map(|Append { source, records, events }| async move {
            self.outlet.append(source, records).await.map(|taken| Appended::of(events, taken))
        }))
        .await;
        Ok((self.appended(&outcomes, started)?, rejected))
    }

    /// Whether so many good events, for these sources, may go to the log.
    fn admit_events(
        &self,
        work: &Work,
        good: usize,
        rejected: &RejectedEvents,
        sources: impl Iterator<Item = Source>,
        share: &Share,
    ) -> Result<Turn, CollectError> {
        for (reason, events) in &rejected.by_reason {
            self.metrics.rejected(reason, *events);
        }
        if good == 0 {
            return Err(CollectError::NoUsableEvent(rejected.clone()));
        }
        self.meters.events(&work.caller, u64::try_from(good).unwrap_or(u64::MAX), Instant::now())?;
        self.waiting.enter(sources, share.bytes()).map_err(CollectError::SourceFull)
    }

    /// Sorts a large body out, away from the threads that serve connections.
    async fn sorted_out(self: &Arc<Self>, work: &Arc<Work>, bytes: Vec<u8>) -> Result<Batch, CollectError> {
        // No more at a time than there are cores: others would only hold memory. Nobody closes the semaphore.
        let _core = self.decoders.acquire().await;
        let (this, work) = (Arc::clone(self), Arc::clone(work));
        let sorted_out = move || batch::sort_out(work.ask.content, &bytes, &this.partitioner, this.limits.max_events, &work.edge);
        // The bytes are gone before the log is waited for.
        Ok(tokio::task::spawn_blocking(sorted_out).await.map_err(|_| CollectError::Broken)??)
    }

    /// The number of events, if every source took its own.
    fn appended(&self, outcomes: &[Result<Appended, LogError>], started: Instant) -> Result<Appended, CollectError> {
        self.metrics.appended(started.elapsed().as_secs_f64());
        let taken: Appended = outcomes
            .iter()
            .flatten()
            .fold(Appended::default(), |sum, part| Appended { events: sum.events + part.events, spooled: sum.spooled + part.spooled });
        self.metrics.accepted(taken.events);
        self.metrics.spooled(taken.spooled);
        // A log that failed says more than one that is busy.
        match outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).min_by_key(|error| matches!(error, LogError::Busy { .. })) {
            None => Ok(taken),
            Some(error) => {
                tracing::warn!(%error, taken = taken.events, "the log did not take a request's events");
                Err(CollectError::Log { error: error.clone(), partly: taken.events > 0 })
            }
        }
    }

    fn respond(&self, outcome: Result<Answer, CollectError>) -> Response {
        let response = match outcome {
            Ok(Answer { bytes, again }) => {
                let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let mut response = (StatusCode::ACCEPTED, [json], bytes).into_response();
                if again {
                    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                }
                response
            }
            Err(error) => {
                self.metrics.refused(&error);
                let mut response = Problem::from(error).into_response();
                if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
                    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding::ACCEPTED));
                }
                response
            }
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
/// The body is JSON (one event, an array, or `{"events": [...]}`; `text/plain` is taken as JSON too, as a browser's beacon sends it),
/// NDJSON with one event a line, or a columnar `tallymark.v1.ViewBatch`. It may be compressed: `Content-Encoding: gzip` or `zstd`. A
/// request has at most 8 MiB, also once decoded, and 50,000 events unless it was configured otherwise.
///
/// Callers may have quotas: then every answer has `RateLimit-Policy` and `RateLimit`, and who passes one is answered 429.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "send_events",
    tag = "Events",
    params(
        ("historical" = Option<bool>, Query,
            description = "Whether the events may be older than `max_lateness` (7 days by default), as an import's are. Otherwise those that are too old are not counted."),
        ("sent_at" = Option<i64>, Query, minimum = 100_000_000_000i64, maximum = 253_402_300_799_999i64,
            description = "The same as the header `Tallymark-Sent-At`, for who cannot set headers; the header goes before it."),
        api::Headers
    ),
    request_body(content(
        (api::Events = "application/json"),
        (String = "application/x-ndjson"),
        ("application/x-protobuf; messageType=tallymark.v1.ViewBatch"),
    )),
    responses((status = 202, description = "The log has the events.", body = api::Accepted), api::Refusals)
)]
async fn post_events(State(collector): State<Arc<Collector>>, request: Request) -> Response {
    let caller = Caller::of(request.extensions());
    let outcome = Arc::clone(&collector).collect(request, caller.clone()).await;
    let mut response = collector.respond(outcome);
    collector.meters.tell(&caller, Instant::now(), response.headers_mut());
    response
}

async fn other_method(State(collector): State<Arc<Collector>>) -> Response {
    collector.respond(Err(CollectError::Method))
}
