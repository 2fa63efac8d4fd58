//! `GET /v1/videos/{id}/views`, `/v1/spaces/{id}/views`, `/v1/site/views`: counts over a time range, point by point.
//!
//! A video or space that was never seen has zeros: whether it exists is not for a count to say. `complete` and `final` are said
//! of what a point counts, so a last point that `end` cuts is complete when its cut part is.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use schemas::{Dimension, Entity, Millis};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::api;
use crate::error::QueryError;
use crate::formats::{Format, Table, Tabular};
use crate::names::Named;
use crate::params::parse;
use crate::question::{Counted, Question, Range};
use crate::read::Sums;
use crate::series::{Progress, Time};
use crate::service::{QueryService, path_id};

/// Counts over a time range, point by point.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "entity": { "dimension": "video", "id": "v1" },
    "start": "2026-11-20T00:00:00Z",
    "end": "2026-11-20T02:00:00Z",
    "step": "1h",
    "tz": "UTC",
    "metric": "gross",
    "total": 42,
    "points": [
        { "start": "2026-11-20T00:00:00Z", "views": 30, "complete": true, "final": false },
        { "start": "2026-11-20T01:00:00Z", "views": 12, "complete": false, "final": false }
    ],
    "complete_through": "2026-11-20T01:37:00Z"
}))]
pub(crate) struct Views {
    #[schema(value_type = api::Entity)]
    entity: Entity,
    #[serde(flatten)]
    named: Named,
    #[serde(flatten)]
    range: Range,
    #[serde(flatten)]
    counted: Counted,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    complete_through: Option<Time>,
    #[serde(skip)]
    question: Question,
}

impl Tabular for Views {
    fn table(self) -> Table {
        let columns = self.question.columns(&self.counted.pairs().collect::<Vec<_>>());
        let table = Table::new(file_name(&self.entity, "views"), self.question.fields(), columns);
        let table = describe(table, &self.entity, self.named).with("total", Some(self.counted.series.total.0.to_string()));
        self.range.describe(table).with("complete_through", self.complete_through.map(|at| at.to_string()))
    }
}

/// Says of a table whom it is about.
pub(crate) fn describe(table: Table, entity: &Entity, named: Named) -> Table {
    let Named { title, space_id, space_name, name } = named;
    let table = table.with("dimension", Some(dimension_name(entity.dimension))).with("id", Some(&*entity.id));
    table.with("title", title).with("space_id", space_id).with("space_name", space_name).with("name", name)
}

/// What the file of a table about an entity is called.
pub(crate) fn file_name(entity: &Entity, what: &str) -> String {
    match entity.dimension {
        Dimension::Site => format!("site-{what}"),
        dimension => format!("{}-{}-{what}", dimension_name(dimension), entity.id),
    }
}

/// As in requests and answers.
pub(crate) const fn dimension_name(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Video => "video",
        Dimension::Space => "space",
        Dimension::Site => "site",
    }
}

/// Views of a video over time.
///
/// A video that was never viewed has zeros. The first and the last point are cut by `start` and `end`.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}/views",
    operation_id = "video_views",
    tag = "Videos",
    params(api::VideoId, api::Range, api::Form),
    responses((status = 200, description = "The counts.", body = Views), api::CountProblems)
)]
pub(crate) async fn of_video(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    answer(&service, Entity::new(Dimension::Video, &path_id("video", id)?), query.as_deref(), format).await
}

/// Views of a space over time.
///
/// The views of all its videos together, as their events named the space when they were viewed.
#[utoipa::path(
    get,
    path = "/v1/spaces/{id}/views",
    operation_id = "space_views",
    tag = "Spaces",
    params(api::SpaceId, api::Range, api::Form),
    responses((status = 200, description = "The counts.", body = Views), api::CountProblems)
)]
pub(crate) async fn of_space(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    answer(&service, Entity::new(Dimension::Space, &path_id("space", id)?), query.as_deref(), format).await
}

/// Views of everything over time.
#[utoipa::path(
    get,
    path = "/v1/site/views",
    operation_id = "site_views",
    tag = "Site",
    params(api::Range, api::Form),
    responses((status = 200, description = "The counts.", body = Views), api::CountProblems)
)]
pub(crate) async fn of_site(
    State(service): State<Arc<QueryService>>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    answer(&service, Entity::site(), query.as_deref(), format).await
}

async fn answer(service: &QueryService, entity: Entity, query: Option<&str>, format: Format) -> Result<Response, QueryError> {
    let now = Millis::now();
    let query = parse(query.unwrap_or_default(), now)?;
    let question = Question::new(query, 1, service.limits.points)?;
    let ranges = question.ranges();
    let (sums, named) = tokio::join!(service.sums(&entity, &ranges, now), service.names.of(&entity));
    let Sums { counts, marks, standing } = sums?;
    let progress = Progress::of(&marks);
    let (counted, complete_through) = (question.answer(&counts, progress), progress.shown(question.tz()));
    Answer { body: Views { entity, named, range: question.range(), counted, complete_through, question }, standing }.respond(format)
}
