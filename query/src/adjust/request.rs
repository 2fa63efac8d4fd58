//! The requests that change counts: `POST /v1/adjustments`, and `.../{id}/undo`.
//!
//! The work goes on when its client has gone, and the answer is given after a few seconds whatever is left to be done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use ingest::{CallerKey, Problem};
use schemas::id::check_id;
use schemas::{AdjustmentEntry, AdjustmentPart, Counts, Millis, Minute, PartEnd};
use serde_json::json;
use tokio::time::timeout;

use super::ask::{Adjust, Asked, UNDO, Undo, checked_note, checked_reason};
use super::parts::{negated, parts};
use super::plan::{Short, Wanted, plan};
use super::publish::begin;
use super::show::{Adjustment, Name, told};
use super::world::World;
use crate::api;
use crate::body::{bad_body, json_body, whole};
use crate::error::QueryError;
use crate::service::{MAX_BODY_BYTES, MAX_BULK_BYTES, QueryService, path_id};

/// So long after the beginning the answer is given, whatever is still to be done.
const ANSWERS_AFTER: Duration = Duration::from_secs(8);

/// Take counts away, or add them.
///
/// For what was counted and should not have been: traffic of bots, a video that goes. Each change is of one minute of a video, or takes
/// away all that there is in a range; it changes the video's space and the site too, in every tier and list, within seconds. Only
/// minutes that are closed can be changed, and nothing falls below zero: then the whole is refused, with the amounts. Without
/// `dry_run: false` nothing is done but said. Sent again with the same `id`, it is the same adjustment and is done once; one that was
/// interrupted is gone on with. It is journalled for ever, and can be undone.
#[utoipa::path(
    post,
    path = "/v1/adjustments",
    operation_id = "adjust",
    tag = "Operation",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 100, pattern = "^[!-~]+$", description = "The same as `id`.")),
    request_body = Adjust,
    responses(
        (status = 200, description = "It has ended: `state` says how. Or what it would be, if it is only tried.", body = Adjustment),
        (status = 202, description = "It is journalled and being done: ask for it, or send the request again.", body = Adjustment),
        api::AdjustProblems
    )
)]
pub(crate) async fn create(
    State(service): State<Arc<QueryService>>,
    caller: Option<Extension<CallerKey>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, QueryError> {
    let key = headers.get("idempotency-key").map(|value| value.to_str().map(str::to_owned)).transpose();
    let key = key
        .map_err(|_| Problem::bad_parameter("Idempotency-Key", "the header Idempotency-Key is not printable ASCII; give id in the body"))?;
    let asked = Asked::read(json_body(body, MAX_BULK_BYTES)?, key)?;
    let author = caller.map(|Extension(caller)| caller.id.to_string());
    // Of its own, so that a client that goes away does not stop it half way.
    respond(tokio::spawn(async move { adjust(&service, asked, author).await }).await)
}

/// Undo an adjustment.
///
/// What was taken of it is put back, or taken away again, by an adjustment of its own, whose `id` is `undo:` and the first one's: so it is
/// done once, however often it is asked for. Without `dry_run: false` nothing is done but said.
#[utoipa::path(
    post,
    path = "/v1/adjustments/{id}/undo",
    operation_id = "undo_adjustment",
    tag = "Operation",
    params(Name),
    request_body = Undo,
    responses(
        (status = 200, description = "It has ended: `state` says how. Or what it would be, if it is only tried.", body = Adjustment),
        (status = 202, description = "It is journalled and being done: ask for it, or send the request again.", body = Adjustment),
        api::UndoProblems
    )
)]
pub(crate) async fn undo(
    State(service): State<Arc<QueryService>>,
    caller: Option<Extension<CallerKey>>,
    id: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, QueryError> {
    let id = path_id("adjustment", id)?;
    let body = whole(body, MAX_BODY_BYTES)?;
    let asked = if body.is_empty() { Undo::default() } else { json_body(Ok(body), MAX_BODY_BYTES)? };
    let author = caller.map(|Extension(caller)| caller.id.to_string());
    respond(tokio::spawn(async move { negate(&service, id, asked, author).await }).await)
}

fn respond(done: Result<Result<Adjustment, QueryError>, tokio::task::JoinError>) -> Result<Response, QueryError> {
    let adjustment = done.map_err(|_| QueryError::Broken)??;
    let is_over = adjustment.is_over();
    Ok((if is_over { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(adjustment)).into_response())
}

/// Who asks for what, and why.
struct New {
    id: Option<String>,
    author: Option<String>,
    reason: String,
    note: Option<String>,
    request: String,
    undoes: Option<String>,
    dry_run: bool,
}

async fn adjust(service: &Arc<QueryService>, asked: Asked, author: Option<String>) -> Result<Adjustment, QueryError> {
    let deadline = Instant::now() + ANSWERS_AFTER;
    service.rejected()?;
    if let Some(known) = known(service, asked.id.as_deref(), &asked.request).await? {
        return finish(service, known, deadline).await;
    }
    let world = service.world().await?;
    let wanted = service.wanted(&world, &asked.additions, &asked.removals).await?;
    let Asked { id, reason, note, dry_run, request, .. } = asked;
    make(service, &world, &wanted, New { id, author, reason, note, request, undoes: None, dry_run }, deadline).await
}

async fn negate(service: &Arc<QueryService>, of: String, asked: Undo, author: Option<String>) -> Result<Adjustment, QueryError> {
    let deadline = Instant::now() + ANSWERS_AFTER;
    service.rejected()?;
    let undone = service.adjustment(of).await?;
    let id = format!("{UNDO}{}", undone.id);
    check_id(&id).map_err(|_| bad_body(format!("undoing {:?} would have too long a name; make a new adjustment", undone.id)))?;
    let request = format!("undo of {}", undone.plan);
    if let Some(known) = known(service, Some(&id), &request).await? {
        return finish(service, known, deadline).await;
    }
    let (reason, note) = (asked.reason.map(checked_reason).transpose()?, checked_note(asked.note)?);
    let reason = reason.unwrap_or_else(|| clipped(format!("undo of {}: {}", undone.id, undone.reason)));
    let world = service.world().await?;
    let wanted = taken_of(service, &undone, &world).await?;
    let new = New { id: Some(id), author, reason, note, request, undoes: Some(undone.id), dry_run: asked.dry_run.unwrap_or(true) };
    make(service, &world, &wanted, new, deadline).await
}

/// As long as a reason may be.
fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(500));
    text
}

/// What was taken of an adjustment, negated.
async fn taken_of(service: &QueryService, undone: &AdjustmentEntry, world: &World) -> Result<Vec<Wanted>, QueryError> {
    let ends = service.store.read_adjustment_ends(undone.plan.clone()).await?;
    if (ends.len() as u64) < u64::from(undone.parts) {
        let detail = format!("adjustment {:?} is still being done; wait until it has ended, then undo it", undone.id);
        return Err(Problem::new(StatusCode::CONFLICT, "unfinished-adjustment", "The adjustment is still being done", detail)
            .retry_after(5)
            .into());
    }
    let mut wanted = Vec::new();
    for (index, _) in ends.iter().filter(|(_, end)| matches!(end, PartEnd::Taken { .. })) {
        let part = service.part(undone, *index).await?;
        if !world.checkpoints.contains_key(&part.source) {
            let detail = format!("source {} takes no more records: what it counts cannot be changed", part.source);
            return Err(Problem::new(StatusCode::CONFLICT, "source-ended", "The counts cannot be changed any more", detail).into());
        }
        wanted.extend(negated(&part));
    }
    Ok(wanted)
}

/// The adjustment of a name, if there is one.
async fn known(service: &QueryService, id: Option<&str>, request: &str) -> Result<Option<AdjustmentEntry>, QueryError> {
    let Some(id) = id else { return Ok(None) };
    let known = service.store.read_adjustment(id.to_owned()).await?;
    if known.as_ref().is_some_and(|known| known.request != request) {
        let detail = format!("there is an adjustment {id:?} that asks for something else; give this one another id");
        return Err(Problem::new(StatusCode::CONFLICT, "other-adjustment", "The id belongs to another adjustment", detail).into());
    }
    Ok(known)
}

/// Plans it, journals it, and does it.
async fn make(
    service: &Arc<QueryService>,
    world: &World,
    wanted: &[Wanted],
    new: New,
    deadline: Instant,
) -> Result<Adjustment, QueryError> {
    if wanted.is_empty() {
        let detail = "nothing is counted there that could be taken away; counts of minutes that are still open are not among it";
        return Err(Problem::new(StatusCode::CONFLICT, "nothing-to-adjust", "There is nothing to change", detail).into());
    }
    let cells = service.cells(&world.checkpoints, wanted).await?;
    let planned = match plan(wanted, cells, &world.checkpoints) {
        Ok(planned) => planned,
        // The very same request may have been first, on another server, and have taken it.
        Err(short) => match known(service, new.id.as_deref(), &new.request).await? {
            Some(known) => return finish(service, known, deadline).await,
            None => return Err(below_zero(&short).into()),
        },
    };
    let parts = parts(planned, &world.checkpoints);
    let (id, request, dry_run) = (new.id.clone(), new.request.clone(), new.dry_run);
    let entry = entry(new, &parts);
    if dry_run {
        return Ok(Adjustment::tried(entry, id, &parts));
    }
    let by = entry.author.clone().unwrap_or_default();
    tracing::info!(adjustment = entry.id, by, reason = entry.reason, gross = entry.total.gross, "counts are adjusted");
    let kept = service.store.create_adjustment(entry, Arc::new(parts)).await?;
    if kept.request != request {
        known(service, id.as_deref(), &request).await?;
    }
    finish(service, kept, deadline).await
}

fn entry(new: New, parts: &[AdjustmentPart]) -> AdjustmentEntry {
    let minutes = || parts.iter().flat_map(AdjustmentPart::minutes).map(|change| change.minute);
    AdjustmentEntry {
        id: new.id.unwrap_or_default(),
        plan: uuid::Uuid::now_v7().simple().to_string(),
        created_at: Millis::now(),
        author: new.author,
        reason: new.reason,
        note: new.note,
        request: new.request,
        undoes: new.undoes,
        parts: u32::try_from(parts.len()).unwrap_or(u32::MAX),
        changes: parts.iter().map(|part| part.changes() as u64).sum(),
        first: minutes().min().unwrap_or(Minute::MIN),
        last: minutes().max().unwrap_or(Minute::MIN),
        total: parts.iter().fold(Counts::ZERO, |sum, part| sum + part.total()),
    }
}

/// Does what is left of it, and says how it stands when that has ended or the time is over.
async fn finish(service: &Arc<QueryService>, entry: AdjustmentEntry, deadline: Instant) -> Result<Adjustment, QueryError> {
    let ends = service.store.read_adjustment_ends(entry.plan.clone()).await?;
    if (ends.len() as u64) < u64::from(entry.parts) {
        let left = deadline.saturating_duration_since(Instant::now());
        // What goes wrong is told there: it is journalled, and somebody goes on with it.
        let _ = timeout(left, begin(service, &entry)).await;
    }
    service.shown(entry).await
}

fn below_zero(short: &[Short]) -> Problem {
    let first = short.first().map_or_else(String::new, told);
    let detail = format!("a count would fall below zero: {first}. Take away less, or name the space that these views named");
    let of = |short: &Short| {
        json!({
            "video": &*short.video, "minute": short.minute.to_string(), "metric": short.metric, "wanted": short.wanted, "holds": short.holds,
            "least": {"entity": short.entity.to_string(), "tier": short.bucket.tier, "start": short.bucket.start.to_string()},
        })
    };
    let lacking: Vec<_> = short.iter().map(of).collect();
    Problem::new(StatusCode::CONFLICT, "below-zero", "A count would fall below zero", detail).with("lacking", lacking)
}
