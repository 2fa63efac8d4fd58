//! `GET /v1/videos/{id}/views`, `/v1/spaces/{id}/views`, `/v1/site/views`: counts over a time range, point by point.
//!
//! A video or space that was never seen has zeros: whether it exists is not for a count to say. `complete` and `final` are said
//! of what a point counts, so a last point that `end` cuts is complete when its cut part is.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use schemas::{Dimension, Entity, Millis, Minute};
use serde::{Serialize, Serializer};

use crate::answer::Answer;
use crate::calendar::{boundaries, rfc3339};
use crate::error::QueryError;
use crate::params::{RangeQuery, parse};
use crate::read::Sums;
use crate::service::{QueryService, path_id};

/// The largest number that every JSON parser reads exactly.
const MAX_EXACT: u64 = 1 << 53;

/// A count in JSON: a number up to 2^53 (with or without sign), a string above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) i64);

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.unsigned_abs() <= MAX_EXACT { serializer.serialize_i64(self.0) } else { serializer.collect_str(&self.0) }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Views {
    entity: Entity,
    start: String,
    end: String,
    step: &'static str,
    tz: &'static str,
    metric: &'static str,
    total: Count,
    points: Vec<Point>,
    complete_through: Option<String>,
}

#[derive(Debug, Serialize)]
struct Point {
    start: String,
    views: Count,
    complete: bool,
    r#final: bool,
}

pub(crate) async fn of_video(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Answer<Views>, QueryError> {
    answer(&service, Entity::new(Dimension::Video, &path_id("video", id)?), query.as_deref()).await
}

pub(crate) async fn of_space(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Answer<Views>, QueryError> {
    answer(&service, Entity::new(Dimension::Space, &path_id("space", id)?), query.as_deref()).await
}

pub(crate) async fn of_site(State(service): State<Arc<QueryService>>, RawQuery(query): RawQuery) -> Result<Answer<Views>, QueryError> {
    answer(&service, Entity::site(), query.as_deref()).await
}

async fn answer(service: &QueryService, entity: Entity, query: Option<&str>) -> Result<Answer<Views>, QueryError> {
    let now = Millis::now();
    let query = parse(query.unwrap_or_default(), now)?;
    let bounds = boundaries(query.step, query.zone(), query.start, query.end, service.limits.points)?;
    let ranges: Vec<(Minute, Minute)> = bounds.iter().copied().zip(bounds.iter().skip(1).copied()).collect();
    let sums = service.sums(&entity, &ranges, now).await?;
    Ok(Answer { standing: sums.standing, body: views(entity, &query, &ranges, &sums) })
}

fn views(entity: Entity, query: &RangeQuery, ranges: &[(Minute, Minute)], sums: &Sums) -> Views {
    let shown = |at: Minute| rfc3339(at, query.tz);
    let values: Vec<i64> = sums.counts.iter().map(|counts| query.metric.of(*counts)).collect();
    let point = |((start, end), views): (&(Minute, Minute), &i64)| Point {
        start: shown(*start),
        views: Count(*views),
        complete: sums.marks.is_complete(*end),
        r#final: sums.marks.is_final(*end),
    };
    Views {
        entity,
        start: shown(query.start),
        end: shown(query.end),
        step: query.step.as_str(),
        tz: query.zone().name(),
        metric: query.metric.as_str(),
        total: Count(values.iter().fold(0, |sum, views| sum.wrapping_add(*views))),
        points: ranges.iter().zip(&values).map(point).collect(),
        complete_through: sums.marks.complete_through.map(|through| shown(Minute::of(through))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_numbers_as_long_as_every_parser_reads_them_exactly() {
        for (count, json) in [
            (0, "0"),
            (-7, "-7"),
            (1 << 53, "9007199254740992"),
            ((1 << 53) + 1, "\"9007199254740993\""),
            (-(1 << 53) - 1, "\"-9007199254740993\""),
            (i64::MIN, "\"-9223372036854775808\""),
        ] {
            assert_eq!(serde_json::to_string(&Count(count)).unwrap(), json);
        }
    }
}
