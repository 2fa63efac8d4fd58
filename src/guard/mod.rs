//! What stands before every route: names each request, bounds its head, tells of it in the log, and turns a panic into an answer.
//!
//! ```text
//! request ──> client's address ──> request id, trace id ──> head too long? ──> cors (events) ──> key ──> routes (a panic is a 500) ──> request id into the answer ──> one line in the log
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `address` | who the client is, behind trusted proxies too |
//! | `keys` | who may pass: each request shows a key with the scope that it needs |
//! | `access` | which scope a route needs. Pure |
//! | `documented` | what the API's document says of that |
//! | `presented` | the key that a request shows. Pure |
//! | `metrics` | how many were refused, and why |
//! | `cors` | which pages browsers let send events |
//! | `request_id` | the name of a request, its client's or one made here |
//! | `trace` | the W3C trace that a request belongs to |
//!
//! The line says method, path without its query (which may hold what nobody else should read), route, status, milliseconds until the
//! answer's head, its bytes if they are known, client, the id of the key. It is at `debug`, with `access_log` at `info`, and at `warn` when the service
//! failed and said not when to come back. The line, and whatever else is said while the request is worked on, bears its request id and trace id.

mod access;
mod address;
mod cors;
mod documented;
mod keys;
mod metrics;
mod presented;
mod request_id;
mod trace;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use ingest::{CallerKey, ClientAddress, Problem};
use tower::Service;
use tracing::{Instrument, Level, Span};

pub(crate) use address::Proxies;
use address::client;
pub(crate) use cors::cors;
pub(crate) use documented::document_keys;
pub(crate) use keys::admit;
pub(crate) use metrics::Refusals;
use request_id::RequestId;
use trace::trace_id;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest path with its query, in bytes. What is longer belongs into a body.
const MAX_TARGET_BYTES: usize = 8 * 1024;
/// The longest headers, names and values together, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The longest head that is read at all: what is longer is refused by the server loop, with a status alone.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// So much of a path is told.
const SHOWN_PATH_BYTES: usize = 200;

/// Whether each request is told of at `info`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessLog(pub(crate) bool);

/// The routes behind what stands before them.
///
/// Not layers of the router: each layer is copied for each request, with all that is within it.
#[derive(Clone)]
pub(crate) struct Guarded {
    routes: Router,
    access_log: AccessLog,
    proxies: Proxies,
}

impl Guarded {
    pub(crate) const fn new(routes: Router, access_log: AccessLog, proxies: Proxies) -> Self {
        Self { routes, access_log, proxies }
    }

    /// Answers a request that came from `peer`.
    pub(crate) async fn answer(self, mut request: Request, peer: SocketAddr) -> Response {
        let Self { mut routes, access_log, proxies } = self;
        let started = Instant::now();
        let client = client(peer.ip(), request.headers(), &proxies);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(ClientAddress(client));
        let id = RequestId::of(request.headers().get(&REQUEST_ID));
        let span = span(&id, request.headers());
        let asked = Asked { method: request.method().clone(), uri: request.uri().clone(), client };
        let answering = async {
            match too_long(&request) {
                Some(problem) => problem.into_response(),
                // A router is always ready, and its error cannot be.
                None => AssertUnwindSafe(routes.call(request)).catch_unwind().await.map_or_else(|_| panicked(), |Ok(response)| response),
            }
        };
        let response = named(answering.instrument(span.clone()).await, &id);
        span.in_scope(|| asked.tell(&response, started, access_log));
        response
    }
}

fn span(id: &RequestId, headers: &HeaderMap) -> Span {
    match trace_id(headers) {
        Some(trace_id) => tracing::info_span!("request", request_id = id.as_str(), trace_id),
        None => tracing::info_span!("request", request_id = id.as_str()),
    }
}

fn too_long(request: &Request) -> Option<Problem> {
    let target_bytes = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target_bytes > MAX_TARGET_BYTES {
        let detail = format!("the path and its query have {target_bytes} bytes; they have at most {MAX_TARGET_BYTES}");
        let problem = Problem::new(StatusCode::URI_TOO_LONG, "target-too-long", "The path and its query are too long", detail);
        return Some(problem.with("limit_bytes", MAX_TARGET_BYTES));
    }
    let header_bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (header_bytes > MAX_HEADER_BYTES).then(|| {
        let detail = format!("the headers have {header_bytes} bytes; they have at most {MAX_HEADER_BYTES}");
        let problem = Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-long", "The headers are too long", detail);
        problem.with("limit_bytes", MAX_HEADER_BYTES)
    })
}

fn panicked() -> Response {
    // What broke was told by the panic itself.
    tracing::error!("the work on a request broke off: this is a bug");
    let detail = "the work on the request broke off; this is a bug: please report it with the request id and the log of the server";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service failed", detail).into_response()
}

/// The response with the request's id in its headers, and in its problem document if it is one.
fn named(mut response: Response, id: &RequestId) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = Body::from(problem.with("request_id", id.as_str()).body());
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response.headers_mut().insert(REQUEST_ID, id.value());
    response
}

/// What is kept of a request to tell of it.
struct Asked {
    method: Method,
    uri: Uri,
    client: IpAddr,
}

impl Asked {
    fn tell(&self, response: &Response, started: Instant, AccessLog(at_info): AccessLog) {
        /// A level is part of what a line is made of, so each has its own.
        macro_rules! told_at {
            ($level:expr) => {{
                let ms = started.elapsed().as_secs_f64() * 1_000.0;
                // Put there by [`admit`].
                let route = response.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
                let (path, client) = (shown_path(&self.uri), tracing::field::display(self.client));
                let key = response.extensions().get::<CallerKey>().map(|caller| &*caller.id);
                let (status, bytes) = (response.status().as_u16(), response.body().size_hint().exact());
                tracing::event!(target: "access", $level, method = %self.method, path, route, status, ms, bytes, client, key, "answered")
            }};
        }
        match level(response, at_info) {
            Level::WARN => told_at!(Level::WARN),
            Level::INFO => told_at!(Level::INFO),
            _ => told_at!(Level::DEBUG),
        }
    }
}

/// Who is told to come back meets a service that is busy or waits for another, and thousands may: that is for the metrics.
fn level(response: &Response, at_info: bool) -> Level {
    if response.status().is_server_error() && !response.headers().contains_key(header::RETRY_AFTER) {
        Level::WARN
    } else if at_info {
        Level::INFO
    } else {
        Level::DEBUG
    }
}

/// The path, or its beginning. It is ASCII, as everything in a request's first line.
fn shown_path(uri: &Uri) -> &str {
    uri.path().get(..SHOWN_PATH_BYTES).unwrap_or(uri.path())
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::routing::get;
    use serde_json::Value;

    use super::*;

    async fn ask(request: axum::http::request::Builder) -> (StatusCode, HeaderMap, Value) {
        let app = Router::new()
            .route("/well", get(|| async { "\"well\"" }))
            .route("/bug", get(|| async { panic!("on purpose") as &str }))
            .fallback(query::not_found)
            .method_not_allowed_fallback(query::method_not_allowed);
        let guarded = Guarded::new(app, AccessLog(true), Proxies::from([]));
        let (head, body) = guarded.answer(request.body(Body::empty()).unwrap(), ([127, 0, 0, 1], 1_234).into()).await.into_parts();
        let body = to_bytes(body, 10_000).await.unwrap();
        assert!(head.headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == &body.len().to_string()));
        (head.status, head.headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn every_answer_bears_the_id_that_its_client_gave_or_one_of_its_own() {
        let (_, first, _) = ask(Request::get("/well")).await;
        let (_, second, _) = ask(Request::get("/well").header("x-request-id", "two words, or more")).await;
        assert_ne!(first[&REQUEST_ID], second[&REQUEST_ID]);
        for (method, path, status) in [("GET", "/well", 200), ("GET", "/none", 404), ("PUT", "/well", 405), ("GET", "/bug", 500)] {
            let (got, headers, body) = ask(Request::builder().method(method).uri(path).header("x-request-id", "abc-7")).await;
            assert_eq!((got.as_u16(), &headers[&REQUEST_ID]), (status, &"abc-7".parse().unwrap()));
            assert!(status == 200 || body["request_id"] == "abc-7", "{body}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let (status, headers, body) = ask(Request::get("/bug")).await;
        assert_eq!((status.as_u16(), &body["type"]), (500, &"/problems/internal".into()));
        assert_eq!(headers["content-type"], "application/problem+json");
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused_with_how_long_it_may_be() {
        let (status, _, body) = ask(Request::get(format!("/well?{}", "x".repeat(MAX_TARGET_BYTES)))).await;
        assert_eq!((status.as_u16(), &body["limit_bytes"]), (414, &MAX_TARGET_BYTES.into()));
        let (status, _, body) = ask(Request::get("/well").header("x-much", "x".repeat(MAX_HEADER_BYTES))).await;
        assert_eq!((status.as_u16(), &body["limit_bytes"]), (431, &MAX_HEADER_BYTES.into()));
        let most = MAX_TARGET_BYTES - "/well?".len();
        assert_eq!(ask(Request::get(format!("/well?{}", "x".repeat(most)))).await.0, 200);
    }

    #[test]
    fn a_failure_is_told_at_warn_and_a_flood_is_not() {
        let failed = (StatusCode::INTERNAL_SERVER_ERROR, "").into_response();
        let busy = Problem::unavailable(1, "busy").into_response();
        assert_eq!([level(&failed, false), level(&failed, true)], [Level::WARN; 2]);
        assert_eq!([level(&busy, false), level(&busy, true)], [Level::DEBUG, Level::INFO]);
    }

    #[test]
    fn a_long_path_is_shown_in_part_and_never_its_query() {
        let uri: Uri = format!("/{}?secret", "x".repeat(5_000)).parse().unwrap();
        assert_eq!(shown_path(&uri).len(), SHOWN_PATH_BYTES);
        assert_eq!(shown_path(&"/v1/a?key=secret".parse().unwrap()), "/v1/a");
    }
}
