//! Which pages browsers let send events: those that some live public key lists (Cross-Origin Resource Sharing, the Fetch standard).
//!
//! It is a courtesy of browsers to their users, and no lock: what a page may do is decided by the key of the request itself. A preflight
//! carries no key, so it is answered for all keys together. Nothing is ever allowed with credentials: there are no cookies here.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::keys::Keys;

/// How long a browser may remember that it may.
const MAX_AGE: Duration = Duration::from_secs(600);
/// What a page may send.
const ALLOWED: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("tallymark-sent-at"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
];
/// What a page may read of an answer.
const EXPOSED: [HeaderName; 4] = [
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    header::RETRY_AFTER,
    HeaderName::from_static("x-request-id"),
];

/// The layer of `POST /v1/events`. It stands before [`super::admit`], so that a page can read why it was refused.
pub(crate) fn cors(keys: Keys) -> CorsLayer {
    let is_listed =
        move |origin: &HeaderValue, _: &axum::http::request::Parts| origin.to_str().is_ok_and(|origin| keys.lists_origin(origin));
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_listed))
        .allow_methods([Method::POST])
        .allow_headers(ALLOWED)
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE)
}
