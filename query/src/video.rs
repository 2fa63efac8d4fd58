//! `GET` and `PUT /v1/videos/{id}`: what is known of a video, and how often it was viewed.
//!
//! A video with metadata or views is known; any other id is a 404. Metadata may be set before the first view and is never required.

use std::sync::Arc;

use aggregator::VideoInfo;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use chrono_tz::Tz;
use ingest::Problem;
use schemas::id::check_id;
use schemas::{Counts, Dimension, Entity, Millis, Minute};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::api;
use crate::calendar::{rfc3339, today};
use crate::error::QueryError;
use crate::params::{Params, parse_zone};
use crate::series::Count;
use crate::service::{MAX_BODY_BYTES, QueryService, path_id};

/// The longest title or name, in bytes.
const MAX_NAME_BYTES: usize = 1_024;

/// A video: what is known of it, and its views.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "v1",
    "metadata": { "title": "How glass is made", "space_id": "channel-7", "space_name": "Workshops" },
    "views": { "all_time": 51_204, "today": 812, "last_hour": 42 },
    "complete_through": "2026-11-20T12:37:00Z"
}))]
pub(crate) struct Video {
    id: String,
    /// `null` if none was set.
    #[schema(value_type = Option<api::VideoInfo>)]
    metadata: Option<VideoInfo>,
    views: Recent,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    #[schema(format = "date-time")]
    complete_through: Option<String>,
}

/// Gross counts.
#[derive(Debug, Serialize, ToSchema)]
struct Recent {
    /// Since counting began.
    all_time: Count,
    /// Since midnight in `tz`.
    today: Count,
    /// Of the present minute and the 59 before it.
    last_hour: Count,
}

/// A video and its views so far.
///
/// A video with metadata or views is known; any other id is a 404.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}",
    operation_id = "get_video",
    tag = "Videos",
    params(api::VideoId, api::Zone),
    responses((status = 200, description = "The video.", body = Video), api::VideoProblems)
)]
pub(crate) async fn show(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Answer<Video>, QueryError> {
    let id = path_id("video", id)?;
    let given = Params::read(query.as_deref().unwrap_or_default(), &["tz"])?;
    let tz = given.get("tz").map(|text| parse_zone(text)).transpose()?;
    let now = Millis::now();
    // The present minute counts, so the last hour is its last 60 minutes with the one that runs.
    let hour_end = Minute::of(now).plus(1);
    let ranges = [(Minute::MIN, Minute::MAX), today(tz.unwrap_or(Tz::UTC), now), (hour_end.plus(-60), hour_end)];
    let sums = service.sums(&Entity::new(Dimension::Video, &id), &ranges, now).await?;
    let metadata = service.store.read_video(id.clone()).await?;
    if metadata.is_none() && sums.counts.iter().all(|counts| *counts == Counts::ZERO) {
        let detail = format!("the video {id:?} has neither views nor metadata; counts follow an event within seconds");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-video", "There is no such video", detail).into());
    }
    let mut gross = sums.counts.iter().map(|counts| Count(counts.gross));
    let mut next = || gross.next().unwrap_or(Count(0));
    let views = Recent { all_time: next(), today: next(), last_hour: next() };
    let complete_through = sums.marks.complete_through.map(|through| rfc3339(Minute::of(through), tz));
    Ok(Answer { body: Video { id, metadata, views, complete_through }, standing: sums.standing })
}

/// Set what is known of a video.
///
/// Replaces all of it: what is left out is forgotten. Metadata may be set before the first view and is never required.
#[utoipa::path(
    put,
    path = "/v1/videos/{id}",
    operation_id = "set_video",
    tag = "Videos",
    params(api::VideoId),
    request_body = api::VideoInfo,
    responses((status = 200, description = "What is now known of it.", body = api::VideoInfo), api::StoringProblems)
)]
pub(crate) async fn set(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<VideoInfo>, QueryError> {
    let id = path_id("video", id)?;
    let info: VideoInfo = json_body(body)?;
    check(&info).map_err(bad_body)?;
    service.store.write_video(id, info.clone()).await?;
    Ok(Json(info))
}

fn check(info: &VideoInfo) -> Result<(), String> {
    for (name, value) in [("title", &info.title), ("space_name", &info.space_name)] {
        let Some(text) = value else { continue };
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
            return Err(format!("{name} has {} bytes; it has 1 to {MAX_NAME_BYTES}, or is left out", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{name} holds a control character; it is plain text of one line"));
        }
    }
    if let Some(space_id) = &info.space_id {
        check_id(space_id).map_err(|error| format!("space_id {error}"))?;
    }
    match &info.published_at {
        Some(text) if Millis::parse_rfc3339(text).is_none() => Err("published_at is not RFC 3339 such as 2026-11-20T12:00:00Z".to_owned()),
        _ => Ok(()),
    }
}

/// The body of a PUT as JSON.
pub(crate) fn json_body<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("the body has more than {MAX_BODY_BYTES} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail)
                .with("limit_bytes", MAX_BODY_BYTES)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "body-cut", "The body ended early", "the connection failed before the body was complete")
        }
    })?;
    serde_json::from_slice(&body).map_err(|error| bad_body(format!("the body cannot be read: {error}")))
}

pub(crate) fn bad_body(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be used", detail)
}
