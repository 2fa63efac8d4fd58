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

use crate::answer::Answer;
use crate::calendar::boundaries;
use crate::error::QueryError;
use crate::formats::{Format, Table, Tabular};
use crate::params::{RangeQuery, parse};
use crate::read::Sums;
use crate::series::{Series, Time, point_columns, point_fields};
use crate::service::{QueryService, path_id};

#[derive(Debug, Serialize)]
pub(crate) struct Views {
    entity: Entity,
    #[serde(flatten)]
    range: Range,
    #[serde(flatten)]
    series: Series,
    complete_through: Option<Time>,
}

/// What was asked for, as it was understood.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Range {
    start: Time,
    end: Time,
    step: &'static str,
    tz: &'static str,
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

pub(crate) async fn of_video(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    answer(&service, Entity::new(Dimension::Video, &path_id("video", id)?), query.as_deref(), format).await
}

pub(crate) async fn of_space(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    answer(&service, Entity::new(Dimension::Space, &path_id("space", id)?), query.as_deref(), format).await
}

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
