//! The journal as it is shown: `GET /v1/adjustments`, the last first, and one of them with its parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ingest::Problem;
use schemas::{AdjustmentEntry, AdjustmentPart, Counts, Millis, Minute, PartEnd};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::ask::UNDO;
use super::plan::Short;
use crate::api;
use crate::error::QueryError;
use crate::params::Params;
use crate::series::{Count, Time};
use crate::service::{QueryService, path_id};

/// The most adjustments of a list.
const MOST: u64 = 1_000;
const DEFAULT: u64 = 100;

/// Which adjustments, and how many.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "Params reads it")]
pub(crate) struct Page {
    /// The most adjustments of the answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// The `cursor` of the answer before, to go on behind it.
    #[param(pattern = r"^-?[0-9]{1,18}\.[^\u0000-\u001f\u007f-\u009f]{1,128}$")]
    cursor: Option<String>,
}

/// The adjustment in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the handlers read it")]
pub(crate) struct Name {
    /// Its name, percent-encoded.
    #[param(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$", example = "ticket-4711")]
    id: String,
}

/// Adjustments, the last first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Adjustments {
    adjustments: Vec<Adjustment>,
    /// Where to go on; `null` at the end.
    cursor: Option<String>,
}

/// Counts that were taken away or added.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Adjustment {
    /// Its name; `null` of one that is only tried and has none.
    id: Option<String>,
    /// Whether it only says what would be done.
    dry_run: bool,
    /// How it stands. Of one that is not finished yet, the same request asks again, and goes on with it if it was interrupted.
    #[schema(value_type = api::AdjustmentState)]
    state: &'static str,
    /// When it was planned.
    #[schema(format = "date-time")]
    created_at: String,
    /// The id of the key that asked for it; `null` if no key was needed.
    by: Option<String>,
    /// Why.
    reason: String,
    /// What else its author says.
    note: Option<String>,
    /// The adjustment that it undoes.
    undoes: Option<String>,
    /// The adjustment that undoes it; see there whether that is taken.
    undone_by: Option<String>,
    /// What it adds to the site in all: fewer than zero are taken away.
    total: Sums,
    /// So many minutes of videos are changed, each source's for itself.
    changes: u64,
    /// The first minute that is changed.
    #[schema(value_type = String, format = "date-time")]
    start: Time,
    /// The end of the last minute that is changed.
    #[schema(value_type = String, format = "date-time")]
    end: Time,
    /// Its records, each of which is taken whole or not at all. Lists leave them out.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<Vec<Part>>,
}

/// Counts by metric.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct Sums {
    gross: Count,
    valid: Count,
    engaged: Count,
}

/// A record of an adjustment.
#[derive(Debug, Serialize, ToSchema)]
struct Part {
    /// Its place, from 0.
    part: u32,
    /// The source (partition) that it is appended to, and whose cells it changes.
    source: u32,
    /// How it stands.
    #[schema(value_type = api::PartState)]
    state: &'static str,
    /// Its record in the source, once it is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// What it adds in all.
    total: Sums,
    /// What it changes, by video.
    videos: Vec<PartVideo>,
}

/// What a record changes of a video.
#[derive(Debug, Serialize, ToSchema)]
struct PartVideo {
    video: String,
    /// The space whose counts change too.
    space: Option<String>,
    /// So many minutes.
    minutes: usize,
    /// The first minute.
    #[schema(value_type = String, format = "date-time")]
    start: Time,
    /// The end of the last.
    #[schema(value_type = String, format = "date-time")]
    end: Time,
    total: Sums,
}

impl From<Counts> for Sums {
    fn from(Counts { gross, valid, engaged }: Counts) -> Self {
        Self { gross: Count(gross), valid: Count(valid), engaged: Count(engaged) }
    }
}

impl Adjustment {
    fn of(entry: AdjustmentEntry, ends: &BTreeMap<u32, PartEnd>, undone_by: Option<String>) -> Self {
        Self {
            state: state(entry.parts, ends),
            dry_run: false,
            created_at: entry.created_at.to_rfc3339(),
            by: entry.author,
            reason: entry.reason,
            note: entry.note,
            undoes: entry.undoes,
            undone_by,
            total: entry.total.into(),
            changes: entry.changes,
            start: Time(entry.first, None),
            end: Time(entry.last.plus(1), None),
            parts: None,
            id: Some(entry.id),
        }
    }

    /// One that is only tried.
    pub(super) fn tried(entry: AdjustmentEntry, id: Option<String>, parts: &[AdjustmentPart]) -> Self {
        let shown = (0..).zip(parts).map(|(index, part)| Part::of(index, part, None)).collect();
        Self { id, dry_run: true, parts: Some(shown), ..Self::of(entry, &BTreeMap::new(), None) }
    }

    /// Whether nothing more is being done.
    pub(super) fn is_over(&self) -> bool {
        self.dry_run || !matches!(self.state, "planned" | "under_way")
    }
}

/// How an adjustment stands by its parts.
fn state(parts: u32, ends: &BTreeMap<u32, PartEnd>) -> &'static str {
    let ended = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    let count = |is: fn(&PartEnd) -> bool| ends.values().filter(|end| is(end)).count();
    let taken = count(|end| matches!(end, PartEnd::Taken { .. }));
    if ended < parts {
        return if ended == 0 { "planned" } else { "under_way" };
    }
    match (taken, count(|end| matches!(end, PartEnd::Unknown { .. }))) {
        (_, unknown) if unknown > 0 => "unknown",
        (0, _) => "refused",
        (taken, _) if taken == ends.len() => "taken",
        _ => "taken_in_part",
    }
}

impl Part {
    fn of(index: u32, part: &AdjustmentPart, end: Option<&PartEnd>) -> Self {
        let (state, offset, detail) = match end {
            None => ("planned", None, None),
            Some(PartEnd::Taken { offset, .. }) => ("taken", Some(offset.0), None),
            Some(PartEnd::Refused { detail, .. }) => ("refused", None, Some(detail.clone())),
            Some(PartEnd::Unknown { .. }) => ("unknown", None, None),
        };
        let video = |changes: &schemas::adjustment::VideoChanges| {
            let minutes = || changes.minutes.iter().map(|change| change.minute);
            PartVideo {
                video: changes.video.clone(),
                space: changes.space.clone(),
                minutes: changes.minutes.len(),
                start: Time(minutes().min().unwrap_or(Minute::MIN), None),
                end: Time(minutes().max().unwrap_or(Minute::MIN).plus(1), None),
                total: changes.minutes.iter().fold(Counts::ZERO, |sum, change| sum + change.counts).into(),
            }
        };
        Self {
            part: index,
            source: part.source.0,
            state,
            offset,
            detail,
            ended_at: end.map(|end| end.at().to_rfc3339()),
            total: part.total().into(),
            videos: part.videos.iter().map(video).collect(),
        }
    }
}

/// What is not there to be taken, for people.
pub(super) fn told(short: &Short) -> String {
    let Short { video, minute, entity, bucket, metric, wanted, holds } = short;
    let tier = format!("{:?}", bucket.tier).to_lowercase();
    format!(
        "video {video:?} at {minute}: {wanted} {metric} are to be taken and {holds} can be; the least is held by {entity} in the {tier} from {}",
        bucket.start
    )
}

/// Adjustments, the last first.
#[utoipa::path(
    get,
    path = "/v1/adjustments",
    operation_id = "adjustments",
    tag = "Operation",
    params(Page),
    responses((status = 200, description = "The adjustments.", body = Adjustments), api::AdjustmentListProblems)
)]
pub(crate) async fn list(State(service): State<Arc<QueryService>>, RawQuery(query): RawQuery) -> Result<Json<Adjustments>, QueryError> {
    let given = Params::read(query.as_deref().unwrap_or_default(), &["limit", "cursor"])?;
    let limit = given.number("limit", 1)?.unwrap_or(DEFAULT);
    if limit > MOST {
        return Err(Problem::bad_parameter("limit", format!("limit is a whole number of 1 to {MOST}")).into());
    }
    let before = given.get("cursor").map(|text| cursor(text)).transpose()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let entries = service.store.read_adjustments(before, limit).await?;
    let cursor = entries.last().filter(|_| entries.len() == limit).map(|last| format!("{}.{}", last.created_at.0, last.id));
    let mut shown = Vec::with_capacity(entries.len());
    for entry in entries {
        shown.push(service.listed(entry));
    }
    let adjustments = stream::iter(shown).buffered(service.limits.reads_at_once).try_collect().await?;
    Ok(Json(Adjustments { adjustments, cursor }))
}

fn cursor(text: &str) -> Result<(Millis, String), Problem> {
    let parts = text.split_once('.').and_then(|(at, id)| Some((Millis(at.parse().ok()?), id.to_owned())));
    parts.filter(|(_, id)| !id.is_empty()).ok_or_else(|| Problem::bad_parameter("cursor", "cursor is that of an answer before"))
}

/// An adjustment with its parts.
#[utoipa::path(
    get,
    path = "/v1/adjustments/{id}",
    operation_id = "adjustment",
    tag = "Operation",
    params(Name),
    responses((status = 200, description = "The adjustment.", body = Adjustment), api::AdjustmentProblems)
)]
pub(crate) async fn one(
    State(service): State<Arc<QueryService>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Adjustment>, QueryError> {
    let entry = service.adjustment(path_id("adjustment", id)?).await?;
    Ok(Json(service.shown(entry).await?))
}

impl QueryService {
    /// An adjustment by its name.
    ///
    /// # Errors
    /// 404 if there is none.
    pub(super) async fn adjustment(&self, id: String) -> Result<AdjustmentEntry, QueryError> {
        let detail = format!("there is no adjustment {id:?}; GET /v1/adjustments lists all");
        let unknown = || Problem::new(StatusCode::NOT_FOUND, "unknown-adjustment", "There is no such adjustment", detail);
        Ok(self.store.read_adjustment(id).await?.ok_or_else(unknown)?)
    }

    async fn listed(&self, entry: AdjustmentEntry) -> Result<Adjustment, QueryError> {
        let ends = self.store.read_adjustment_ends(entry.plan.clone()).await?;
        let undo = self.store.read_adjustment(format!("{UNDO}{}", entry.id)).await?;
        Ok(Adjustment::of(entry, &ends, undo.map(|undo| undo.id)))
    }

    /// An adjustment with its parts.
    pub(super) async fn shown(&self, entry: AdjustmentEntry) -> Result<Adjustment, QueryError> {
        let ends = self.store.read_adjustment_ends(entry.plan.clone()).await?;
        let mut parts = Vec::new();
        for index in 0..entry.parts {
            parts.push(Part::of(index, &self.part(&entry, index).await?, ends.get(&index)));
        }
        Ok(Adjustment { parts: Some(parts), ..self.listed(entry).await? })
    }
}

#[cfg(test)]
mod tests {
    use schemas::Offset;

    use super::*;

    #[test]
    fn an_adjustment_stands_as_its_parts_do() {
        let taken = PartEnd::Taken { offset: Offset(1), at: Millis(1) };
        let refused = PartEnd::Refused { detail: String::new(), at: Millis(1) };
        let unknown = PartEnd::Unknown { at: Millis(1) };
        let of = |ends: &[&PartEnd]| state(2, &(0..).zip(ends).map(|(index, end)| (index, (*end).clone())).collect());
        assert_eq!(
            [of(&[]), of(&[&taken]), of(&[&taken, &taken]), of(&[&refused, &refused]), of(&[&taken, &refused]), of(&[&unknown, &taken])],
            ["planned", "under_way", "taken", "refused", "taken_in_part", "unknown"]
        );
    }

    #[test]
    fn a_cursor_is_a_time_and_a_name() {
        assert_eq!(cursor("-5.a.b"), Ok((Millis(-5), "a.b".into())));
        assert!(["", "5", "5.", "x.a"].iter().all(|text| cursor(text).is_err()));
    }
}
