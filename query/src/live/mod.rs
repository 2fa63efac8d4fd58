//! `GET /v1/videos/{id}/live`, `/v1/spaces/{id}/live`, `/v1/site/live`: counts as they change, as server-sent events.
//!
//! ```text
//! service.sums ──each second──> feed (one for each subject that is listened to) ──shared bytes──> any number of streams
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `snapshot` | what is told, and what changed since it was told last; pure |
//! | `hub` | the feeds: one task for each subject, as long as somebody listens |
//! | `stream` | one listener's events |
//!
//! An event `views` has absolute values, so a reader that missed some is right again with the next one. Its `minutes` are those that
//! changed since the event before; the first event has the last 60, or, with `Last-Event-ID` (or `last_event_id`), what changed since
//! then. It is looked each second and told only what changed; a comment every 15 s keeps proxies awake. While the store cannot be
//! asked, the last counts stand, marked by `stale_seconds`.

mod hub;
mod snapshot;
mod stream;

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use ingest::Problem;
use schemas::{Dimension, Entity};

use crate::api;
use crate::error::QueryError;
use crate::params::{Metric, Params, choice, parse_zone, shown};
use crate::service::{QueryService, path_id};
pub(crate) use hub::Hub;
use snapshot::{LiveViews, Subject};
use stream::Listener;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Views of a video as they change.
///
/// Server-sent events, for `EventSource` of browsers. Each event `views` has absolute values (its data is the schema given here), so a
/// reader that missed some is right again with the next. It is sent when something changed, at most once a second; its `minutes` are
/// those that changed since the event before, and of the first event all 60. Every 15 s without an event there is a comment. Events in a
/// row: `id: 1795176000000`, `event: views`, `data: {...}`, and an empty line.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}/live",
    operation_id = "video_live",
    tag = "Videos",
    params(api::VideoId, api::Live),
    responses((status = 200, description = "Events, until either side ends the stream.", content_type = "text/event-stream", body = LiveViews), api::LiveProblems)
)]
pub(crate) async fn of_video(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, QueryError> {
    answer(service, Entity::new(Dimension::Video, &path_id("video", id)?), query.as_deref(), &headers).await
}

/// Views of a space as they change.
///
/// The views of all its videos together, as server-sent events: see the same of a video.
#[utoipa::path(
    get,
    path = "/v1/spaces/{id}/live",
    operation_id = "space_live",
    tag = "Spaces",
    params(api::SpaceId, api::Live),
    responses((status = 200, description = "Events, until either side ends the stream.", content_type = "text/event-stream", body = LiveViews), api::LiveProblems)
)]
pub(crate) async fn of_space(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, QueryError> {
    answer(service, Entity::new(Dimension::Space, &path_id("space", id)?), query.as_deref(), &headers).await
}

/// Views of everything as they change.
///
/// As server-sent events: see the same of a video.
#[utoipa::path(
    get,
    path = "/v1/site/live",
    operation_id = "site_live",
    tag = "Site",
    params(api::Live),
    responses((status = 200, description = "Events, until either side ends the stream.", content_type = "text/event-stream", body = LiveViews), api::LiveProblems)
)]
pub(crate) async fn of_site(
    State(service): State<Arc<QueryService>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, QueryError> {
    answer(service, Entity::site(), query.as_deref(), &headers).await
}

async fn answer(service: Arc<QueryService>, entity: Entity, query: Option<&str>, headers: &HeaderMap) -> Result<Response, QueryError> {
    let (subject, resume) = read(entity, query.unwrap_or_default(), headers)?;
    let listener = Listener::begin(&service, subject, resume).await?;
    // Proxies pass events on at once, and nobody keeps them.
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store"), (X_ACCEL_BUFFERING, "no")];
    Ok((headers, listener.body()).into_response())
}

/// nginx holds back what it passes on, unless it is told not to.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What is asked about, and the last event that the reader has.
fn read(entity: Entity, query: &str, headers: &HeaderMap) -> Result<(Subject, Option<i64>), Problem> {
    let given = Params::read(query, &["tz", "metric", "last_event_id"])?;
    let tz = given.get("tz").map(|text| parse_zone(text)).transpose()?;
    let metric = match given.get("metric") {
        Some(text) => choice("metric", text, &Metric::ALL.map(|metric| (metric.as_str(), metric)))?,
        None => Metric::Gross,
    };
    // A browser that connects again sends the header; it knows better than the address, which it has from the start.
    let header = headers.get(&LAST_EVENT_ID).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let resume = header.as_deref().or_else(|| given.get("last_event_id").map(String::as_str)).filter(|text| !text.is_empty());
    Ok((Subject { entity, metric, tz }, resume.map(event_id).transpose()?))
}

fn event_id(text: &str) -> Result<i64, Problem> {
    text.parse().ok().filter(|id| *id >= 0).ok_or_else(|| {
        let detail =
            format!("last_event_id {} is not the id of an event: give back what an event had as its id, or leave it out", shown(text));
        Problem::bad_parameter("last_event_id", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resume(query: &str, header: Option<&str>) -> Result<Option<i64>, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(LAST_EVENT_ID, header.parse().unwrap());
        }
        read(Entity::site(), query, &headers).map(|(_, resume)| resume)
    }

    #[test]
    fn a_reader_that_comes_again_says_what_it_has_in_a_header_or_in_the_address() {
        assert_eq!(resume("", None), Ok(None));
        assert_eq!(resume("last_event_id=", Some("")), Ok(None));
        assert_eq!(resume("last_event_id=17", None), Ok(Some(17)));
        assert_eq!(resume("last_event_id=17", Some("18")), Ok(Some(18)));
        for bad in ["x", "-1", "1.5", "99999999999999999999"] {
            assert!(resume(&format!("last_event_id={bad}"), None).is_err() && resume("", Some(bad)).is_err(), "{bad}");
        }
    }
}
