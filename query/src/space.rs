//! `GET` and `PUT /v1/spaces/{id}`, `GET /v1/site`: what is known of a space, and how often a space or everything was viewed.
//!
//! A space with a name or views is known; any other id is a 404. Setting a video with the id and the name of its space names the space too.

use std::sync::Arc;

use aggregator::SpaceInfo;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use ingest::Problem;
use schemas::{Dimension, Entity};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::api;
use crate::body::{bad_member, json_body};
use crate::error::QueryError;
use crate::recent::{Lately, Recent, lately};
use crate::series::Time;
use crate::service::{MAX_BODY_BYTES, QueryService, path_id};
use crate::video::check_name;

/// A space: what is known of it, and its views.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "channel-7",
    "metadata": { "name": "Workshops" },
    "views": { "all_time": 951_204, "today": 8_120, "last_hour": 420 },
    "complete_through": "2026-11-20T12:37:00Z"
}))]
pub(crate) struct Space {
    id: String,
    /// `null` if none was set.
    #[schema(value_type = Option<api::SpaceInfo>)]
    metadata: Option<SpaceInfo>,
    views: Recent,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    complete_through: Option<Time>,
}

/// Everything together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Site {
    views: Recent,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    complete_through: Option<Time>,
}

/// A space and its views so far.
///
/// A space with a name or views is known; any other id is a 404.
#[utoipa::path(
    get,
    path = "/v1/spaces/{id}",
    operation_id = "get_space",
    tag = "Spaces",
    params(api::SpaceId, api::Zone),
    responses((status = 200, description = "The space.", body = Space), api::SpaceProblems)
)]
pub(crate) async fn show(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Answer<Space>, QueryError> {
    let id = path_id("space", id)?;
    let entity = Entity::new(Dimension::Space, &id);
    let (lately, metadata) = tokio::join!(lately(&service, &entity, query.as_deref()), service.names.space(&id));
    let (Lately { views, complete_through, standing, was_seen }, metadata) = (lately?, metadata?);
    if metadata.is_none() && !was_seen {
        let detail = format!("the space {id:?} has neither views nor a name; counts follow an event within seconds");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-space", "There is no such space", detail).into());
    }
    Ok(Answer { body: Space { id, metadata, views, complete_through }, standing })
}

/// Set what is known of a space.
///
/// Setting a video with the id and the name of its space names the space too; the last name stays.
#[utoipa::path(
    put,
    path = "/v1/spaces/{id}",
    operation_id = "set_space",
    tag = "Spaces",
    params(api::SpaceId),
    request_body = api::SpaceInfo,
    responses((status = 200, description = "What is now known of it.", body = api::SpaceInfo), api::StoringProblems)
)]
pub(crate) async fn set(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<SpaceInfo>, QueryError> {
    let id = path_id("space", id)?;
    let info: SpaceInfo = json_body(body, MAX_BODY_BYTES)?;
    check_name(info.name.as_deref()).map_err(|error| bad_member("name", error))?;
    service.names.set_space(id, info.clone()).await?;
    Ok(Json(info))
}

/// The views of everything so far.
#[utoipa::path(
    get,
    path = "/v1/site",
    operation_id = "get_site",
    tag = "Site",
    params(api::Zone),
    responses((status = 200, description = "The site.", body = Site), api::SiteProblems)
)]
pub(crate) async fn show_site(State(service): State<Arc<QueryService>>, RawQuery(query): RawQuery) -> Result<Answer<Site>, QueryError> {
    let Lately { views, complete_through, standing, .. } = lately(&service, &Entity::site(), query.as_deref()).await?;
    Ok(Answer { body: Site { views, complete_through }, standing })
}
