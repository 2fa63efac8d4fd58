//! A question about counts over a range: what it asks of the store, and what of the store's sums is its answer. Pure.
//!
//! A series is the points of the range, and with `compare` also those of the range before; both are read at once, so that they fit together.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::Field;
use chrono_tz::Tz;
use schemas::{Counts, Minute};
use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;

use crate::api;
use crate::calendar::{TooManyPoints, boundaries};
use crate::compare::growth;
use crate::error::QueryError;
use crate::formats::{Table, count, flag, time, times};
use crate::params::RangeQuery;
use crate::series::{Count, Point, Progress, Series, Time};

/// The points of many series are more than one answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{series} series of more than {} points of {} each are more than the {limit} points of one answer; {}", each.limit, each.step, ask_less(*each))]
pub struct TooManyInAll {
    /// The most points of one answer.
    pub limit: usize,
    /// So many series: one for each entity, and one more for each with what it is compared with.
    pub series: usize,
    /// The most points of one of them.
    pub each: TooManyPoints,
}

fn ask_less(each: TooManyPoints) -> String {
    format!("ask for step={}, for a shorter range or for fewer entities", each.coarser)
}

/// A range with the ranges of its points.
#[derive(Clone, Debug)]
struct Points {
    start: Minute,
    end: Minute,
    ranges: Vec<(Minute, Minute)>,
}

/// A question about one or more entities.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    query: RangeQuery,
    now: Points,
    before: Option<Points>,
}

/// So many points may each of the series have, for an answer of `limit` points in all.
pub(crate) fn points_each(limit: usize, series: usize) -> usize {
    limit / series.max(1)
}

impl Question {
    /// # Errors
    /// If the answer about so many `entities` would have more than `limit` points.
    pub(crate) fn new(query: RangeQuery, entities: usize, limit: usize) -> Result<Self, QueryError> {
        let series = entities * (1 + usize::from(query.compared.is_some()));
        let each = points_each(limit, series);
        let points = |start: Minute, end: Minute| -> Result<Points, QueryError> {
            let bounds = boundaries(query.step, query.zone(), start, end, each).map_err(|error| match series {
                1 => QueryError::TooManyPoints(error),
                _ => TooManyInAll { limit, series, each: error }.into(),
            })?;
            let ranges = bounds.iter().copied().zip(bounds.iter().skip(1).copied()).collect();
            Ok(Points { start, end, ranges })
        };
        let now = points(query.start, query.end)?;
        let before = query.compared.map(|(start, end)| points(start, end)).transpose()?;
        Ok(Self { query, now, before })
    }

    /// What is to be summed.
    pub(crate) fn ranges(&self) -> Vec<(Minute, Minute)> {
        self.now.ranges.iter().chain(self.before.iter().flat_map(|before| &before.ranges)).copied().collect()
    }

    /// The answer, from the sums of [`Question::ranges`].
    pub(crate) fn answer(&self, counts: &[Counts], progress: Progress) -> Counted {
        let (metric, tz) = (self.query.metric, self.query.tz);
        let series =
            |points: &Points, counts: &[Counts]| Series::new(&points.ranges, counts.iter().map(|counts| metric.of(*counts)), progress, tz);
        let (now, before) = counts.split_at(self.now.ranges.len().min(counts.len()));
        let now = series(&self.now, now);
        let previous = self.before.as_ref().map(|points| {
            let series = series(points, before);
            Previous { start: Time(points.start, tz), end: Time(points.end, tz), series }
        });
        let totals = previous.as_ref().map(|previous| (previous.series.total.0, now.total.0));
        let change = totals.map(|(before, now)| Count(now.wrapping_sub(before)));
        Counted { series: now, previous, change, growth: totals.map(|(before, now)| Growth(growth(before, now))) }
    }

    /// The zone in which its answer shows times.
    pub(crate) const fn tz(&self) -> Option<Tz> {
        self.query.tz
    }

    /// What was asked for, as it was understood.
    pub(crate) fn range(&self) -> Range {
        let RangeQuery { start, end, step, tz, metric, .. } = self.query;
        Range { start: Time(start, tz), end: Time(end, tz), step: step.as_str(), tz: self.query.zone().name(), metric: metric.as_str() }
    }
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
    /// Says of a table what was asked for.
    pub(crate) fn describe(&self, table: Table) -> Table {
        let said = [("step", self.step), ("tz", self.tz), ("metric", self.metric)];
        let table = table.with("start", Some(self.start.to_string())).with("end", Some(self.end.to_string()));
        said.into_iter().fold(table, |table, (key, value)| table.with(key, Some(value)))
    }
}

/// The counts of one entity.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Counted {
    #[serde(flatten)]
    pub(crate) series: Series,
    /// With `compare`: the range before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Previous>,
    /// With `compare`: how many more there are than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Count>,
    /// With `compare`: the change as a fraction of the previous total; `null` where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, example = 0.25)]
    growth: Option<Growth>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Growth(Option<f64>);

/// The counts that others are compared with. Points are compared by their place.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Previous {
    /// Where the range before begins, inclusive.
    start: Time,
    /// Where the range before ends, exclusive.
    end: Time,
    #[serde(flatten)]
    series: Series,
}

/// A point and its counterpart, as a row of a table.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'a>(Option<&'a Point>, Option<&'a Point>);

impl Counted {
    /// Its rows: points beside those that they are compared with.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        let (now, before) = (&self.series.points, self.previous.as_ref().map(|previous| &previous.series.points));
        (0..now.len().max(before.map_or(0, Vec::len))).map(move |place| Pair(now.get(place), before.and_then(|before| before.get(place))))
    }
}

impl Question {
    /// The columns of its table.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let tz = self.query.zone();
        let compared = self.before.iter().flat_map(|_| [time("previous_start", tz), count("previous_views")]);
        [time("start", tz), count("views"), flag("complete"), flag("final")].into_iter().chain(compared).collect()
    }

    /// The rows of its table.
    pub(crate) fn columns(&self, pairs: &[Pair<'_>]) -> Vec<ArrayRef> {
        let (tz, now) = (self.query.zone(), || pairs.iter().map(|pair| pair.0));
        let mut columns: Vec<ArrayRef> = vec![
            times(tz, now().map(|point| point.map(|point| point.start.0))),
            Arc::new(now().map(|point| point.map(|point| point.views.0)).collect::<Int64Array>()),
            Arc::new(now().map(|point| point.map(|point| point.complete)).collect::<BooleanArray>()),
            Arc::new(now().map(|point| point.map(|point| point.r#final)).collect::<BooleanArray>()),
        ];
        if self.before.is_some() {
            let before = || pairs.iter().map(|pair| pair.1);
            columns.push(times(tz, before().map(|point| point.map(|point| point.start.0))));
            columns.push(Arc::new(before().map(|point| point.map(|point| point.views.0)).collect::<Int64Array>()));
        }
        columns
    }
}
