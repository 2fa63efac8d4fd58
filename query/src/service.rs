//! The query service: its routes, and the limits that hold for every request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::CountStore;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, MatchedPath, Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use ingest::rate::Rate;
use ingest::{EventLog, Problem};
use schemas::id::check_id;
use schemas::{Entity, FoldSettings, Millis, Minute};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa::openapi::{OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admission::Admission;
use crate::cache::Cache;
use crate::cache::rendered::{Rendered, keep};
use crate::error::{Fault, QueryError};
use crate::live::Hub;
use crate::metrics::Metrics;
use crate::names::Names;

use crate::read::{Reader, Sums};
use crate::rejected::{self, Rejected};
use crate::top::Shelf;
use crate::{adjust, api, batch, bulk, days, event, imports, live, records, report, space, status, top, video, views};

/// The longest body about one thing, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest body about many things, in bytes.
pub const MAX_BULK_BYTES: usize = 1024 * 1024;

/// So many requests look through the logs at once.
const SEARCHES_AT_ONCE: usize = 8;

/// How much is answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// The most points of one answer, of all its entities together.
    pub points: usize,
    /// The most entities of one question, and the most videos set at once.
    pub entities: usize,
    /// The most requests worked on at once; more wait for a moment, and are then refused with 503.
    pub requests_at_once: usize,
    /// How long a request may wait to be worked on.
    pub wait: Duration,
    /// The most requests that one client may send each second; more are refused with 429. 0 is no limit.
    pub rate: u32,
    /// The most slices of the store that one request reads at once.
    pub reads_at_once: usize,
    /// The most record streams open at once.
    pub streams_at_once: usize,
    /// The most live streams open at once.
    pub live_streams: usize,
    /// About how many bytes of counts and answers are kept to be given again: three quarters counts, the rest answers. 0 keeps nothing.
    pub cache_bytes: usize,
    /// How long a request may take until its answer begins.
    pub timeout: Duration,
    /// The most entries of a top list.
    pub top_entries: usize,
    /// The most days that a top list is over.
    pub top_days: i32,
    /// The memory in which top lists are kept, and what makes the next one quick.
    pub top_bytes: u64,
}

impl Default for QueryLimits {
    /// 50,000 points, 1,000 entities, 64 requests of 16 reads, 0.25 s until they begin and 10 s until they are answered, 5,000 a second of one
    /// client, 16 streams of records and 10,000 of live counts, 128 MiB kept; top lists of 1,000 entries over 366 days, kept in 64 MiB.
    fn default() -> Self {
        Self {
            points: 50_000,
            entities: 1_000,
            requests_at_once: 64,
            wait: Duration::from_millis(250),
            rate: 5_000,
            reads_at_once: 16,
            streams_at_once: 16,
            live_streams: 10_000,
            cache_bytes: 128 << 20,
            timeout: Duration::from_secs(10),
            top_entries: 1_000,
            top_days: 366,
            top_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Answers questions from a store and a log.
pub struct QueryService {
    pub(crate) store: Arc<dyn CountStore>,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) limits: QueryLimits,
    pub(crate) metrics: Metrics,
    pub(crate) names: Names,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) stopped: watch::Sender<bool>,
    pub(crate) admission: Admission,
    pub(crate) live: Hub,
    pub(crate) tops: Shelf,
    rate: Option<Arc<Rate>>,
    settings: FoldSettings,
    cache: Option<Arc<Cache>>,
    pub(crate) rendered: Option<Rendered>,
    pub(crate) rejected: Option<Arc<Rejected>>,
    /// One adjustment is published at a time; those of other processes are kept apart by the log.
    pub(crate) adjusting: tokio::sync::Mutex<()>,
    /// Who looks through logs for single events takes a thread and the log's time.
    searches: Arc<Semaphore>,
}

impl QueryService {
    /// A service over the store of `log`'s counts; `settings` are the fold's.
    pub fn new(store: Arc<dyn CountStore>, log: Arc<dyn EventLog>, settings: FoldSettings, limits: QueryLimits) -> Self {
        let metrics = Metrics::default();
        let began = Instant::now();
        let cache = (limits.cache_bytes > 0).then(|| {
            let (store, log) = (Arc::clone(&store), Arc::clone(&log));
            Arc::new(Cache::new(store, log, settings.clone(), &limits, metrics.cache.clone(), began))
        });
        let rendered = cache.is_some().then(|| Rendered::new(limits.cache_bytes / 4, began));
        Self {
            names: Names::new(Arc::clone(&store)),
            store,
            log,
            limits,
            metrics,
            streams: Arc::new(Semaphore::new(limits.streams_at_once)),
            stopped: watch::Sender::new(false),
            admission: Admission::new(&limits),
            live: Hub::new(&limits),
            tops: Shelf::new(limits.top_bytes),
            rate: Rate::new(limits.rate),
            settings,
            cache,
            rendered,
            rejected: None,
            adjusting: tokio::sync::Mutex::default(),
            searches: Arc::new(Semaphore::new(SEARCHES_AT_ONCE)),
        }
    }

    /// The same, also for questions about refused events, which are in a log of their own.
    #[must_use]
    pub fn with_dead_letters(self, dead_letters: Arc<dyn EventLog>) -> Self {
        Self { rejected: Some(Arc::new(Rejected::new(dead_letters))), ..self }
    }

    /// Its metrics, to be registered.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Ends all streams, which would go on for ever; they notice within a second. For the start of a graceful shutdown.
    pub fn stop_streams(&self) {
        self.stopped.send_replace(true);
    }

    /// The fold's settings.
    pub(crate) const fn settings(&self) -> &FoldSettings {
        &self.settings
    }

    /// A place to look through the logs, held for as long as that goes on.
    ///
    /// # Errors
    /// 503 if all are taken.
    pub(crate) fn place_to_search(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = |_| Problem::unavailable(1, "as many look through the logs as may at once; try again in a moment");
        Arc::clone(&self.searches).try_acquire_owned().map_err(busy)
    }

    /// The counts of `entity` in each of the half-open `ranges`, and what they are worth. Every answer with counts comes through here.
    pub(crate) async fn sums(&self, entity: &Entity, ranges: &[(Minute, Minute)], now: Millis) -> Result<Sums, QueryError> {
        Ok(match &self.cache {
            Some(cache) => cache.sums(entity, ranges, now, Instant::now()).await?,
            None => self.reader().sums(entity, ranges, now).await?,
        })
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { store: &*self.store, settings: &self.settings, sources: self.log.sources(), reads_at_once: self.limits.reads_at_once }
    }

    /// Calls the log, which blocks, on a thread where that is no harm.
    pub(crate) async fn with_log<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<dyn EventLog>) -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || work(log)).await.map_err(|_| QueryError::Broken)
    }
}

/// All routes of the service. Paths that it does not know are left to the root's fallback: see [`not_found`].
pub fn router(service: Arc<QueryService>) -> Router {
    Router::from(routes())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .route_layer(from_fn_with_state(Arc::clone(&service), guard))
        .with_state(service)
}

/// What the OpenAPI document says of them.
pub fn openapi() -> OpenApi {
    let mut openapi = api::with_forms(routes().into_openapi());
    openapi.merge(OpenApiBuilder::new().components(Some(api::components())).build());
    openapi
}

/// A handler says its method and path itself, and what the OpenAPI document says of it.
fn routes() -> OpenApiRouter<Arc<QueryService>> {
    OpenApiRouter::new()
        .routes(routes!(views::of_video))
        .routes(routes!(views::of_space))
        .routes(routes!(views::of_site))
        .routes(routes!(live::of_video))
        .routes(routes!(live::of_space))
        .routes(routes!(live::of_site))
        .routes(routes!(video::show, video::set))
        .routes(routes!(top::videos))
        .routes(routes!(top::spaces))
        .routes(routes!(report::show))
        .routes(routes!(space::show, space::set))
        .routes(routes!(space::show_site))
        .routes(routes!(days::of_video))
        .routes(routes!(days::of_space))
        .routes(routes!(days::of_site))
        .merge(bulk_routes())
        .routes(routes!(status::show))
        .routes(routes!(records::stream))
        .routes(routes!(event::show))
        .routes(routes!(rejected::letters::list))
        .routes(routes!(rejected::letters::show))
        .routes(routes!(rejected::retry::retry))
        .routes(routes!(imports::show, imports::set))
        .routes(routes!(adjust::show::one))
        .routes(routes!(adjust::request::undo))
}

/// Those whose bodies are about many things.
fn bulk_routes() -> OpenApiRouter<Arc<QueryService>> {
    OpenApiRouter::new()
        .routes(routes!(batch::answer))
        .routes(routes!(bulk::set))
        .routes(routes!(adjust::show::list, adjust::request::create))
        .layer(DefaultBodyLimit::max(MAX_BULK_BYTES))
}

/// Counts a request and how it was answered, also one that was answered before it reached a handler, and refuses too many of one client.
///
/// What is kept and given again costs no place, but counts for its client. One layer for all, as each costs every request a copy of
/// those within.
async fn guard(State(service): State<Arc<QueryService>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let left = service.rate.as_ref().map_or(Ok(None), |rate| rate.count(&request, started));
    let (mut response, left) = match left {
        Ok(left) => (keep(&service, request, next).await, left),
        Err(refusal) => (refusal.into_response(), Some(0)),
    };
    if let (Some(rate), Some(left)) = (&service.rate, left) {
        rate.tell(left, response.headers_mut());
    }
    if let Some(fault) = response.extensions().get::<Fault>() {
        service.metrics.failed(*fault);
    }
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    service.metrics.answered(route, response.status().as_u16(), started.elapsed().as_secs_f64());
    response
}

/// The answer to a path that there is none of; the root router's fallback.
pub async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", format!("there is no {path}"))
}

/// The answer to a method that a path does not take; axum adds the `Allow` header.
pub async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("{} is not taken here; see the Allow header", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This method is not taken here", detail)
}

/// An id from a path segment, percent-decoded and checked.
pub(crate) fn path_id(name: &str, segment: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    checked_id(name, path_text(name, segment)?)
}

/// An id from a path, if it can be one.
pub(crate) fn checked_id(name: &str, id: String) -> Result<String, Problem> {
    check_id(&id).map_err(|error| Problem::bad_parameter(name, format!("the {name} id {error}")))?;
    Ok(id)
}

/// A path segment, percent-decoded.
pub(crate) fn path_text(name: &str, segment: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(text) = segment.map_err(|_| not_utf8(name))?;
    Ok(text)
}

/// 400 for a path that cannot be decoded.
pub(crate) fn not_utf8(name: &str) -> Problem {
    Problem::bad_parameter(name, format!("the {name} in the path is not UTF-8 after percent-decoding"))
}
