//! `GET` and `PUT /v1/videos/{id}`: what is known of a video, and how often it was viewed.
//!
//! A video with metadata or views is known; any other id is a 404. Metadata may be set before the first view and is never required.

use std::sync::Arc;

use aggregator::{SpaceInfo, VideoInfo};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use ingest::Problem;
use schemas::id::check_id;
use schemas::{Dimension, Entity, Millis};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::api;
use crate::body::{bad_body, json_body};
use crate::error::QueryError;
use crate::recent::{Lately, Recent, lately};
use crate::series::Time;
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
    complete_through: Option<Time>,
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
    let entity = Entity::new(Dimension::Video, &id);
    let (lately, metadata) = tokio::join!(lately(&service, &entity, query.as_deref()), service.names.video(&id));
    let (Lately { views, complete_through, standing, was_seen }, metadata) = (lately?, metadata?);
    if metadata.is_none() && !was_seen {
        let detail = format!("the video {id:?} has neither views nor metadata; counts follow an event within seconds");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-video", "There is no such video", detail).into());
    }
    Ok(Answer { body: Video { id, metadata, views, complete_through }, standing })
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
    let info: VideoInfo = json_body(body, MAX_BODY_BYTES)?;
    check(&info).map_err(bad_body)?;
    if let (Some(space_id), Some(name)) = (&info.space_id, &info.space_name) {
        service.names.set_space(space_id.clone(), SpaceInfo { name: Some(name.clone()) }).await?;
    }
    service.names.set_video(id, info.clone()).await?;
    Ok(Json(info))
}

/// What is wrong with what is to be known of a video.
pub(crate) fn check(info: &VideoInfo) -> Result<(), String> {
    for (name, value) in [("title", &info.title), ("space_name", &info.space_name)] {
        check_name(value.as_deref()).map_err(|error| format!("{name} {error}"))?;
    }
    if let Some(space_id) = &info.space_id {
        check_id(space_id).map_err(|error| format!("space_id {error}"))?;
    }
    match &info.published_at {
        Some(text) if Millis::parse_rfc3339(text).is_none() => Err("published_at is not RFC 3339 such as 2026-11-20T12:00:00Z".to_owned()),
        _ => Ok(()),
    }
}

/// What is wrong with a title or a name.
pub(crate) fn check_name(text: Option<&str>) -> Result<(), String> {
    match text {
        Some(text) if text.is_empty() || text.len() > MAX_NAME_BYTES => {
            Err(format!("has {} bytes; it has 1 to {MAX_NAME_BYTES}, or is left out", text.len()))
        }
        Some(text) if text.chars().any(char::is_control) => Err("holds a control character; it is plain text of one line".to_owned()),
        _ => Ok(()),
    }
}
