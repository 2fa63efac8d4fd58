//! `GET /v1/videos/{id}/days/{date}` and the same of a space and the site: a day of UTC, minute by minute, as one wide row.
//!
//! As a table it is one row: what it is about, the date, its names, and a column for each minute from `00:00` to `23:59`. The days of other
//! zones may have 1,380 or 1,500 minutes; `GET .../views?step=1m` gives these point by point. Minutes that have not come are zero.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, StringArray};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use chrono::{Datelike, NaiveDate};
use chrono_tz::Tz;
use ingest::Problem;
use schemas::{Dimension, Entity, Millis, Minute};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::api;
use crate::calendar::first_minute;
use crate::error::QueryError;
use crate::formats::{Format, Table, Tabular, count, date, text};
use crate::names::Named;
use crate::params::{Metric, Params, shown};
use crate::read::Sums;
use crate::series::{Count, Progress, Time};
use crate::service::{QueryService, checked_id, not_utf8, path_text};
use crate::views::{describe, file_name};

const DAY_MINUTES: i32 = 1_440;

/// A day of UTC, minute by minute.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Day {
    #[schema(value_type = api::Entity)]
    entity: Entity,
    #[serde(flatten)]
    named: Named,
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String, format = "date", example = "2026-11-20")]
    date: NaiveDate,
    #[schema(value_type = api::Metric)]
    metric: &'static str,
    /// The sum of the minutes.
    total: Count,
    /// From 00:00 to 23:59.
    #[schema(min_items = 1440, max_items = 1440)]
    minutes: Vec<Count>,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    complete_through: Option<Time>,
}

fn as_text<S: Serializer>(date: &NaiveDate, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(date)
}

type TwoSegments = Result<Path<(String, String)>, PathRejection>;

/// A day of a video, minute by minute.
///
/// As CSV or Arrow it is one wide row, with a column for each minute of the day.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}/days/{date}",
    operation_id = "video_day",
    tag = "Videos",
    params(api::VideoId, api::Date, api::DayQuery, api::Form),
    responses((status = 200, description = "The day.", body = Day), api::DayProblems)
)]
pub(crate) async fn of_video(
    State(service): State<Arc<QueryService>>,
    path: TwoSegments,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    let (id, date) = id_and_date("video", path)?;
    answer(&service, Entity::new(Dimension::Video, &id), date, query.as_deref(), format).await
}

/// A day of a space, minute by minute.
///
/// As CSV or Arrow it is one wide row, with a column for each minute of the day.
#[utoipa::path(
    get,
    path = "/v1/spaces/{id}/days/{date}",
    operation_id = "space_day",
    tag = "Spaces",
    params(api::SpaceId, api::Date, api::DayQuery, api::Form),
    responses((status = 200, description = "The day.", body = Day), api::DayProblems)
)]
pub(crate) async fn of_space(
    State(service): State<Arc<QueryService>>,
    path: TwoSegments,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    let (id, date) = id_and_date("space", path)?;
    answer(&service, Entity::new(Dimension::Space, &id), date, query.as_deref(), format).await
}

/// A day of everything, minute by minute.
///
/// As CSV or Arrow it is one wide row, with a column for each minute of the day.
#[utoipa::path(
    get,
    path = "/v1/site/days/{date}",
    operation_id = "site_day",
    tag = "Site",
    params(api::Date, api::DayQuery, api::Form),
    responses((status = 200, description = "The day.", body = Day), api::DayProblems)
)]
pub(crate) async fn of_site(
    State(service): State<Arc<QueryService>>,
    date: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    let date = read_date(&path_text("date", date)?)?;
    answer(&service, Entity::site(), date, query.as_deref(), format).await
}

fn id_and_date(name: &str, path: TwoSegments) -> Result<(String, NaiveDate), Problem> {
    let Path((id, date)) = path.map_err(|_| not_utf8(&format!("{name} or the date")))?;
    Ok((checked_id(name, id)?, read_date(&date)?))
}

/// A day as `2026-11-20`, of the years 1 to 5999.
fn read_date(text: &str) -> Result<NaiveDate, Problem> {
    let is_iso = text.len() == 10
        && text.bytes().enumerate().all(|(place, byte)| if matches!(place, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() });
    let date = is_iso.then(|| text.parse::<NaiveDate>().ok()).flatten();
    date.filter(|date| (1..6_000).contains(&date.year())).ok_or_else(|| {
        Problem::bad_parameter("date", format!("date {} is no day of the years 1 to 5999; give it as 2026-11-20", shown(text)))
    })
}

async fn answer(
    service: &QueryService,
    entity: Entity,
    date: NaiveDate,
    query: Option<&str>,
    format: Format,
) -> Result<Response, QueryError> {
    let given = Params::read(query.unwrap_or_default(), &["metric", "tz", "format"])?;
    if given.get("tz").is_some_and(|tz| tz != "UTC") {
        let detail = "a row is a day of UTC, which has 1,440 minutes; for the day of a zone ask .../views with step=1m, tz, and the day's start and end";
        return Err(Problem::bad_parameter("tz", detail).into());
    }
    let metric = Metric::given(&given)?;
    let start = first_minute(Tz::UTC, date);
    let ranges: Vec<(Minute, Minute)> = (0..DAY_MINUTES).map(|minute| (start.plus(minute), start.plus(minute + 1))).collect();
    let (sums, named) = tokio::join!(service.sums(&entity, &ranges, Millis::now()), service.names.of(&entity));
    let Sums { counts, marks, standing } = sums?;
    let minutes: Vec<Count> = counts.iter().map(|counts| Count(metric.of(*counts))).collect();
    let total = Count(minutes.iter().fold(0, |sum, views| sum.wrapping_add(views.0)));
    let complete_through = Progress::of(&marks).shown(None);
    Answer { body: Day { entity, named, date, metric: metric.as_str(), total, minutes, complete_through }, standing }.respond(format)
}

impl Tabular for Day {
    fn table(self) -> Table {
        let Self { entity, named, date: day, metric, total, minutes, complete_through } = self;
        let one = |text: Option<&str>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let names = match entity.dimension {
            Dimension::Video => vec![("space_name", one(named.space_name.as_deref())), ("title", one(named.title.as_deref()))],
            Dimension::Space => vec![("name", one(named.name.as_deref()))],
            Dimension::Site => vec![],
        };
        let days = i32::try_from(day.signed_duration_since(NaiveDate::default()).num_days()).ok();
        let mut fields = vec![text("id"), date("date")];
        let mut columns: Vec<ArrayRef> = vec![one(Some(&entity.id)), Arc::new(Date32Array::from(vec![days]))];
        for (name, column) in names {
            fields.push(text(name));
            columns.push(column);
        }
        for (minute, views) in minutes.into_iter().enumerate() {
            fields.push(count(&format!("{:02}:{:02}", minute / 60, minute % 60)));
            columns.push(Arc::new(Int64Array::from(vec![views.0])));
        }
        let table = Table::new(file_name(&entity, &day.to_string()), fields, columns).with("metric", Some(metric));
        describe(table, &entity, named)
            .with("total", Some(total.0.to_string()))
            .with("complete_through", complete_through.map(|through| through.to_string()))
    }
}
