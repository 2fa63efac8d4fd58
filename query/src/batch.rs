//! `POST /v1/query`: the same question about many entities at once.
//!
//! ```json
//! {"entities": [{"dimension": "video", "id": "v1"}, {"dimension": "site"}], "start": "2026-11-20T00:00:00Z", "step": "1h", "compare": "previous_period"}
//! ```
//!
//! All but `entities` means what it means in `GET .../views`, with the same defaults; a step that is left out is one with which the points of all
//! entities fit. Results come in the order of the request; an entity that is named twice is answered twice. `complete` and `final` are said of
//! all results alike, by what was known for the one that was read first. If one entity cannot be read there is no answer.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::Field;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ingest::Problem;
use schemas::cell::SITE;
use schemas::id::check_id;
use schemas::{Counts, Dimension, Entity, Millis, Minute};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::api;
use crate::body::{Members, bad_member, item, whole};
use crate::compare::Compare;
use crate::error::QueryError;
use crate::formats::{Format, Table, Tabular, text};
use crate::names::Named;
use crate::params::{self, Params, RANGE, RangeQuery};
use crate::question::{Counted, Pair, Question, Range, points_each};
use crate::series::{Progress, Time};
use crate::service::{MAX_BULK_BYTES, QueryLimits, QueryService};
use crate::standing::Standing;
use crate::views::dimension_name;

const KNOWN: [&str; 7] = {
    let [start, end, step, tz, metric, compare] = RANGE;
    ["entities", start, end, step, tz, metric, compare]
};

/// So many entities are read at once for one request.
const ENTITIES_AT_ONCE: usize = 16;

/// So many rows, about, are one batch of a table.
const ROWS_AT_ONCE: usize = 4_096;

/// The answers about many entities.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Batch {
    #[serde(flatten)]
    range: Range,
    /// In the order of the request.
    results: Vec<EntityViews>,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    complete_through: Option<Time>,
    #[serde(skip)]
    question: Question,
}

/// What was counted of one entity, and what it is called.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct EntityViews {
    #[schema(value_type = api::Entity)]
    pub(crate) entity: Entity,
    #[serde(flatten)]
    pub(crate) named: Named,
    #[serde(flatten)]
    pub(crate) counted: Counted,
}

/// Views of many entities over time.
///
/// The same question about up to 1,000 videos, spaces or the site, with the words and defaults of `.../views`. The points of all entities
/// together are limited to those of one answer; a step that is left out is one with which they fit. An entity that is named twice is answered twice.
#[utoipa::path(
    post,
    path = "/v1/query",
    operation_id = "query",
    tag = "Many at once",
    params(api::Form),
    request_body = api::BatchQuestion,
    responses((status = 200, description = "The counts.", body = Batch), api::BatchProblems)
)]
pub(crate) async fn answer(
    State(service): State<Arc<QueryService>>,
    RawQuery(query): RawQuery,
    format: Format,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, QueryError> {
    Params::read(query.as_deref().unwrap_or_default(), &["format"])?;
    let now = Millis::now();
    let (entities, query) = read(&whole(body, MAX_BULK_BYTES)?, now, &service.limits)?;
    let question = Question::new(query, entities.len(), service.limits.points)?;
    let ranges = question.ranges();
    let reads: Vec<_> = entities.iter().map(|entity| sums(&service, entity, &ranges, now)).collect();
    let reads = stream::iter(reads).buffered(ENTITIES_AT_ONCE).try_collect::<Vec<_>>();
    let (read, named) = tokio::join!(reads, service.names.of_all(&entities));
    let read: Vec<(Vec<Counts>, Progress, Standing)> = read?;
    let worst = read.iter().map(|(_, progress, standing)| (*progress, *standing)).reduce(|a, b| (a.0.and(b.0), a.1.and(b.1)));
    let (progress, standing) = worst.ok_or(QueryError::Broken)?;
    let results = entities.into_iter().zip(named).zip(&read);
    let results =
        results.map(|((entity, named), (counts, ..))| EntityViews { entity, named, counted: question.answer(counts, progress) }).collect();
    let body = Batch { range: question.range(), results, complete_through: progress.shown(question.tz()), question };
    Answer { body, standing }.respond(format)
}

async fn sums(
    service: &QueryService,
    entity: &Entity,
    ranges: &[(Minute, Minute)],
    now: Millis,
) -> Result<(Vec<Counts>, Progress, Standing), QueryError> {
    let sums = service.sums(entity, ranges, now).await?;
    Ok((sums.counts, Progress::of(&sums.marks), sums.standing))
}

/// Takes a body apart.
fn read(body: &[u8], now: Millis, limits: &QueryLimits) -> Result<(Vec<Entity>, RangeQuery), Problem> {
    let members = Members::read(body, &KNOWN)?;
    let entities = members.list("entities", limits.entities)?.into_iter().enumerate();
    let entities: Vec<Entity> = entities.map(|(place, value)| entity(place, item("entities", place, value)?)).collect::<Result<_, _>>()?;
    let most_points = |compare: Option<Compare>| points_each(limits.points, entities.len() * (1 + usize::from(compare.is_some())));
    let query = params::range(&members.params("entities")?, now, most_points)?;
    Ok((entities, query))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedEntity {
    dimension: Dimension,
    id: Option<String>,
}

/// An entity as a request names it. The site may be named without an id.
fn entity(place: usize, NamedEntity { dimension, id }: NamedEntity) -> Result<Entity, Problem> {
    let name = format!("entities[{place}].id");
    match (dimension, id.as_deref()) {
        (Dimension::Site, None | Some(SITE)) => Ok(Entity::site()),
        (Dimension::Site, Some(_)) => Err(bad_member(&name, format!("the site has no id but {SITE:?}; it may be left out"))),
        (_, None) => Err(bad_member(&name, "it is missing")),
        (_, Some(id)) => match check_id(id) {
            Ok(()) => Ok(Entity::new(dimension, id)),
            Err(error) => Err(bad_member(&name, format!("it {error}"))),
        },
    }
}

impl Tabular for Batch {
    fn table(self) -> Table {
        let Self { range, results, complete_through, question } = self;
        let through = complete_through.map(|through| through.to_string());
        let fields = entity_fields().into_iter().chain(question.fields()).collect();
        let groups = stream::iter(groups(results));
        let table = Table::streamed("views", fields, groups.map(move |group| Ok(columns(&question, &group))));
        range.describe(table).with("complete_through", through)
    }
}

/// Results cut into batches of rows.
fn groups(results: Vec<EntityViews>) -> Vec<Vec<EntityViews>> {
    let mut groups: Vec<Vec<EntityViews>> = Vec::new();
    let mut rows = ROWS_AT_ONCE;
    for result in results {
        if rows >= ROWS_AT_ONCE {
            groups.push(Vec::new());
            rows = 0;
        }
        rows += result.counted.pairs().count();
        if let Some(group) = groups.last_mut() {
            group.push(result);
        }
    }
    groups
}

/// The columns that say whose row it is.
fn entity_fields() -> Vec<Field> {
    ["dimension", "id", "title", "space_id", "space_name", "name"].map(text).to_vec()
}

fn columns(question: &Question, results: &[EntityViews]) -> Vec<ArrayRef> {
    let pairs: Vec<(&EntityViews, Pair<'_>)> =
        results.iter().flat_map(|result| result.counted.pairs().map(move |pair| (result, pair))).collect();
    let column =
        |of: fn(&EntityViews) -> Option<&str>| Arc::new(pairs.iter().map(|(result, _)| of(result)).collect::<StringArray>()) as ArrayRef;
    let mut columns = vec![
        column(|result| Some(dimension_name(result.entity.dimension))),
        column(|result| Some(&result.entity.id)),
        column(|result| result.named.title.as_deref()),
        column(|result| result.named.space_id.as_deref()),
        column(|result| result.named.space_name.as_deref()),
        column(|result| result.named.name.as_deref()),
    ];
    columns.extend(question.columns(&pairs.iter().map(|(_, pair)| *pair).collect::<Vec<_>>()));
    columns
}
