//! `GET /v1/top/videos`, `/v1/top/spaces`: the most viewed, or those that rise most; exact.
//!
//! ```text
//! ask (hours, order) ──> shelf ──> list: which buckets ──> merge: sums by entity ──> rank
//!                          └ base: the sums of buckets at rest, from the making before
//! ```
//!
//! No list is kept by the folds. Hour and day cells are stored once more by bucket, and a list is the ranking of their sums over all
//! sources: exact for any spread of a video's events over sources. What is counted is everything below each source's watermark
//! (`complete_through` is the least of them); minutes that are still open come with their closing, about 70 s after they began.
//! How old a list may be is said in [`shelf`].

mod ask;
mod base;
mod late;
mod list;
pub(crate) mod merge;
mod rank;
mod shelf;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use schemas::{Dimension, Entity, Millis, Minute};
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::ask::parse_day;
use self::ask::{Ask, Comparison, Hours, Longest};
use self::list::Entry;
use self::shelf::Served;
pub(crate) use self::shelf::Shelf;
use crate::answer::Answer;
use crate::api;
use crate::error::QueryError;
use crate::formats::{Format, Table, Tabular, count, text};
use crate::names;
use crate::series::{Count, Time};
use crate::service::QueryService;
use crate::standing::Standing;
use crate::views::dimension_name;

/// A list of those that were viewed most, or that rise most, best first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TopList, example = json!({
    "dimension": "video",
    "window": "today",
    "start": "2026-11-20T00:00:00Z",
    "end": "2026-11-21T00:00:00Z",
    "metric": "gross",
    "sort": "views",
    "compared": { "start": "2026-11-20T00:00:00Z", "end": "2026-11-20T14:00:00Z" },
    "previous": { "start": "2026-11-19T00:00:00Z", "end": "2026-11-19T14:00:00Z" },
    "entries": [{
        "rank": 1,
        "id": "v1",
        "title": "How glass is made",
        "space_id": "channel-7",
        "space_name": "Workshops",
        "views": 1250,
        "compared": 1200,
        "previous": 960,
        "change": 240,
        "growth": 0.25
    }],
    "complete_through": "2026-11-20T14:37:00Z",
    "as_of": "2026-11-20T14:38:12.345Z"
}))]
pub(crate) struct Top {
    #[schema(value_type = api::Dimension)]
    dimension: Dimension,
    /// If the range was asked for by its name, or is the default.
    #[schema(value_type = Option<ask::Window>, required = true)]
    window: Option<&'static str>,
    #[serde(flatten)]
    range: Range,
    #[schema(value_type = api::Metric)]
    metric: &'static str,
    #[schema(value_type = ask::Sort)]
    sort: &'static str,
    /// The part of the range that is compared: its whole hours that are complete, or else the last complete hour. `null` if nothing is.
    #[schema(required = true)]
    compared: Option<Range>,
    /// What it is compared with; `null` if that is no longer kept.
    #[schema(required = true)]
    previous: Option<Range>,
    /// Best first. Of equal ones the lesser id in byte order comes first.
    entries: Vec<Ranked>,
    /// Minutes that start before this are counted; those that are still open come with their closing, about 70 s after they began.
    #[schema(required = true)]
    complete_through: Option<Time>,
    /// When the list was made.
    #[schema(format = "date-time")]
    as_of: String,
    /// For how long it has been out of date, because the store does not answer; left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_seconds: Option<u64>,
}

/// A range of whole hours.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = Hours)]
struct Range {
    /// Its beginning, inclusive.
    start: Time,
    /// Its end, exclusive.
    end: Time,
}

impl Range {
    const fn of(Hours { start, end }: Hours) -> Self {
        Self { start: Time(start, None), end: Time(end, None) }
    }
}

/// One of a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TopEntry)]
struct Ranked {
    /// Its place, from 1.
    #[schema(minimum = 1)]
    rank: i64,
    #[schema(value_type = String)]
    id: Arc<str>,
    #[serde(flatten)]
    names: Named,
    /// In the whole range.
    views: Count,
    /// The views of the compared part.
    #[schema(required = true)]
    compared: Option<Count>,
    /// The views of the range that it is compared with.
    #[schema(required = true)]
    previous: Option<Count>,
    /// How many more there are than before.
    #[schema(required = true)]
    change: Option<Count>,
    /// The change as a fraction of the previous views; `null` where there were none.
    #[schema(required = true)]
    growth: Option<f64>,
}

/// What is known of a video, or of a space; `null` where nothing is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = TopNames)]
enum Named {
    Video {
        #[schema(required = true)]
        title: Option<String>,
        #[schema(required = true)]
        space_id: Option<String>,
        #[schema(required = true)]
        space_name: Option<String>,
    },
    Space {
        #[schema(required = true)]
        name: Option<String>,
    },
}

impl Named {
    /// The columns of a table: what they are called, and this row's values.
    fn columns(dimension: Dimension) -> &'static [&'static str] {
        match dimension {
            Dimension::Space => &["name"],
            _ => &["title", "space_id", "space_name"],
        }
    }

    fn column(&self, name: &str) -> Option<&str> {
        match (self, name) {
            (Self::Video { title, .. }, "title") => title.as_deref(),
            (Self::Video { space_id, .. }, "space_id") => space_id.as_deref(),
            (Self::Video { space_name, .. }, "space_name") => space_name.as_deref(),
            (Self::Space { name }, "name") => name.as_deref(),
            _ => None,
        }
    }
}

impl Tabular for Top {
    fn table(self) -> Table {
        let named = Named::columns(self.dimension);
        let mut fields = vec![count("rank"), text("id")];
        fields.extend(named.iter().map(|name| text(name)));
        fields.extend(["views", "compared", "previous", "change"].map(count));
        fields.push(Field::new("growth", DataType::Float64, true));

        let entries = || self.entries.iter();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(entries().map(|entry| entry.rank))),
            Arc::new(StringArray::from_iter_values(entries().map(|entry| &*entry.id))),
        ];
        let texts = |name: &&str| Arc::new(entries().map(|entry| entry.names.column(name)).collect::<StringArray>()) as ArrayRef;
        columns.extend(named.iter().map(texts));
        let counts: [fn(&Ranked) -> Option<Count>; 4] =
            [|entry| Some(entry.views), |entry| entry.compared, |entry| entry.previous, |entry| entry.change];
        columns.extend(counts.map(|of| Arc::new(entries().map(|entry| of(entry).map(|n| n.0)).collect::<Int64Array>()) as ArrayRef));
        columns.push(Arc::new(entries().map(|entry| entry.growth).collect::<Float64Array>()));

        let shown = |time: Time| Some(time.to_string());
        let table = Table::new(format!("top-{}s", dimension_name(self.dimension)), fields, columns)
            .with("start", shown(self.range.start))
            .with("end", shown(self.range.end))
            .with("metric", Some(self.metric))
            .with("sort", Some(self.sort))
            .with("as_of", Some(self.as_of.as_str()))
            .with("complete_through", self.complete_through.and_then(shown));
        [("compared", self.compared), ("previous", self.previous)].into_iter().fold(table, |table, (name, range)| {
            table
                .with(&format!("{name}_start"), range.and_then(|range| shown(range.start)))
                .with(&format!("{name}_end"), range.and_then(|range| shown(range.end)))
        })
    }
}

/// The videos that were viewed most, or that rise most.
///
/// Exact: the sums over all sources, ranked. A list may be some seconds old, and one that takes long to make older; `as_of` says
/// when it was made.
#[utoipa::path(
    get,
    path = "/v1/top/videos",
    operation_id = "top_videos",
    tag = "Lists",
    params(ask::Asked, api::Form),
    responses((status = 200, description = "The list.", body = Top), api::ListProblems)
)]
pub(crate) async fn videos(
    State(service): State<Arc<QueryService>>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    answer(&service, Dimension::Video, query.as_deref(), format).await
}

/// The spaces that were viewed most, or that rise most.
///
/// Exact: the sums over all sources, ranked. A view counts for the space that its event named. A list may be some seconds old, and one that takes long to make older; `as_of` says
/// when it was made.
#[utoipa::path(
    get,
    path = "/v1/top/spaces",
    operation_id = "top_spaces",
    tag = "Lists",
    params(ask::Asked, api::Form),
    responses((status = 200, description = "The list.", body = Top), api::ListProblems)
)]
pub(crate) async fn spaces(
    State(service): State<Arc<QueryService>>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    answer(&service, Dimension::Space, query.as_deref(), format).await
}

async fn answer(service: &Arc<QueryService>, dimension: Dimension, query: Option<&str>, format: Format) -> Result<Response, QueryError> {
    let now = Millis::now();
    let longest = Longest { entries: service.limits.top_entries, days: service.limits.top_days };
    let ask = Ask::read(dimension, query.unwrap_or_default(), now, longest)?;
    let served = service.list(ask.key, now).await?;
    let standing = Standing { lasts: served.list.marks.lasts(ask.key.hours.end), stale: served.stale };
    let entities: Vec<Entity> =
        served.list.entries.iter().take(ask.limit).map(|entry| Entity { dimension, id: Arc::clone(&entry.id) }).collect();
    let names = service.names.of_all(&entities).await;
    Answer { body: top(&ask, &served, names), standing }.respond(format)
}

fn top(ask: &Ask, Served { list, stale }: &Served, names: Vec<names::Named>) -> Top {
    let comparison = list.comparison;
    Top {
        dimension: ask.key.dimension,
        window: ask.window.map(|window| window.as_str()),
        range: Range::of(ask.key.hours),
        metric: ask.key.metric.as_str(),
        sort: ask.key.sort.as_str(),
        compared: comparison.map(|Comparison { compared, .. }| Range::of(compared)),
        previous: comparison.map(|Comparison { previous, .. }| Range::of(previous)),
        entries: (1..)
            .zip(list.entries.iter().zip(names))
            .map(|(rank, (entry, names))| ranked(ask, rank, entry, names, comparison))
            .collect(),
        complete_through: list.marks.complete_through.map(|through| Time(Minute::of(through), None)),
        as_of: list.as_of.to_rfc3339(),
        stale_seconds: stale.map(|stale| stale.as_secs()),
    }
}

fn ranked(ask: &Ask, rank: i64, Entry { id, totals }: &Entry, names: names::Named, comparison: Option<Comparison>) -> Ranked {
    let names = match ask.key.dimension {
        Dimension::Space => Named::Space { name: names.name },
        _ => Named::Video { title: names.title, space_id: names.space_id, space_name: names.space_name },
    };
    let compared = comparison.map(|_| *totals);
    Ranked {
        rank,
        id: Arc::clone(id),
        names,
        views: Count(totals.views),
        compared: compared.map(|totals| Count(totals.compared)),
        previous: compared.map(|totals| Count(totals.previous)),
        change: compared.map(|totals| Count(totals.change())),
        growth: compared.and_then(|totals| totals.growth()),
    }
}
