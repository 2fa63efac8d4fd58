//! `GET /v1/videos/{id}/views`, `/v1/spaces/{id}/views`, `/v1/site/views`: counts over a time range, point by point.
//!
//! A video or space that was never seen has zeros: whether it exists is not for a count to say. `complete` and `final` are said
//! of what a point counts, so a last point that `end` cuts is complete when its cut part is.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use schemas::{Dimension, Entity, Millis, Minute};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::api;
use crate::calendar::boundaries;
use crate::error::QueryError;
use crate::formats::{Format, Table, Tabular};
use crate::params::{RangeQuery, parse};
use crate::read::Sums;
use crate::series::{Series, Time, point_columns, point_fields};
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
    range: Range,
    #[serde(flatten)]
    series: Series,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    complete_through: Option<Time>,
}

/// What was asked for, as it was understood.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Range {
    /// Where the range begins, inclusive.
    start: Time,
    /// Where the range ends, exclusive.
    end: Time,
    #[schema(value_type = api::Step)]
    step: &'static str,
    /// The time zone whose calendar the points follow.
    #[schema(value_type = String, example = "UTC")]
    tz: &'static str,
    #[schema(value_type = api::Metric)]
    metric: &'static str,
}

impl Range {
    pub(crate) fn of(query: &RangeQuery) -> Self {
        Self {
            start: Time(query.start, query.tz),
            end: Time(query.end, query.tz),
            step: query.step.as_str(),
            tz: query.zone().name(),
            metric: query.metric.as_str(),
        }
    }

    /// Says of a table what was asked for.
    pub(crate) fn describe(&self, table: Table) -> Table {
        let said = [("step", self.step), ("tz", self.tz), ("metric", self.metric)];
        let table = table.with("start", Some(self.start.to_string())).with("end", Some(self.end.to_string()));
        said.into_iter().fold(table, |table, (key, value)| table.with(key, Some(value)))
    }
}

impl Tabular for Views {
    fn table(&self) -> Table {
        let tz = self.range.start.zone();
        let table = Table::new(file_name(&self.entity, "views"), point_fields(tz), point_columns(tz, self.series.points.iter().map(Some)));
        let table = table.with("dimension", Some(dimension_name(self.entity.dimension))).with("id", Some(&*self.entity.id));
        self.range
            .describe(table)
            .with("total", Some(self.series.total.0.to_string()))
            .with("complete_through", self.complete_through.map(|at| at.to_string()))
    }
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
    let bounds = boundaries(query.step, query.zone(), query.start, query.end, service.limits.points)?;
    let ranges: Vec<(Minute, Minute)> = bounds.iter().copied().zip(bounds.iter().skip(1).copied()).collect();
    let sums = service.sums(&entity, &ranges, now).await?;
    Answer { standing: sums.standing, body: views(entity, &query, &ranges, &sums) }.respond(format)
}

fn views(entity: Entity, query: &RangeQuery, ranges: &[(Minute, Minute)], sums: &Sums) -> Views {
    Views {
        entity,
        range: Range::of(query),
        series: Series::new(ranges, sums, 0, &sums.marks, query.metric, query.tz),
        complete_through: sums.marks.complete_through.map(|through| Time(Minute::of(through), query.tz)),
    }
}
