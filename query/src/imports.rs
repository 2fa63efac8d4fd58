//! `GET` and `PUT /v1/imports/{content}`: how far a file has been imported, known by a hash of its content.
//!
//! An importer notes its progress here, beside the counts that came of it, so that any machine can take an import up again.

use std::sync::Arc;

use aggregator::ImportProgress;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ingest::Problem;

use crate::api;
use crate::body::{bad_body, json_body};
use crate::error::QueryError;
use crate::service::{MAX_BODY_BYTES, QueryService, path_text};

/// The content in the path.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "content_hash reads it")]
struct Content {
    /// A hash of the file's content: 16 to 64 hexadecimal digits.
    #[param(pattern = "^[0-9a-fA-F]{16,64}$", example = "9f86d081884c7d659a2feaa0c55ad015")]
    content: String,
}

/// The longest file name or mapping, in bytes.
const MAX_TEXT_BYTES: usize = 4_096;

/// How far a file has been imported.
#[utoipa::path(
    get,
    path = "/v1/imports/{content}",
    operation_id = "get_import",
    tag = "Operation",
    params(Content),
    responses((status = 200, description = "Its progress.", body = api::ImportProgress), api::ImportProblems)
)]
pub(crate) async fn show(
    State(service): State<Arc<QueryService>>,
    content: Result<Path<String>, PathRejection>,
) -> Result<Json<ImportProgress>, QueryError> {
    let content = content_hash(content)?;
    match service.store.read_import(content.clone()).await? {
        Some(progress) => Ok(Json(progress)),
        None => {
            let detail = format!("no import of content {content} was begun");
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown-import", "There is no such import", detail).into())
        }
    }
}

/// Note how far a file has been imported.
///
/// An importer notes its progress here, so that any machine can take the import up again; `tallymark import` does.
#[utoipa::path(
    put,
    path = "/v1/imports/{content}",
    operation_id = "set_import",
    tag = "Operation",
    params(Content),
    request_body = api::ImportProgress,
    responses((status = 200, description = "The progress as noted.", body = api::ImportProgress), api::StoringProblems)
)]
pub(crate) async fn set(
    State(service): State<Arc<QueryService>>,
    content: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ImportProgress>, QueryError> {
    let content = content_hash(content)?;
    let progress: ImportProgress = json_body(body, MAX_BODY_BYTES)?;
    for (name, text) in [("file", &progress.file), ("mapping", &progress.mapping)] {
        if text.len() > MAX_TEXT_BYTES {
            return Err(bad_body(format!("{name} has {} bytes; it has at most {MAX_TEXT_BYTES}", text.len())).into());
        }
    }
    if progress.ends.iter().chain([&progress.events]).any(|number| i64::try_from(*number).is_err()) {
        return Err(bad_body(format!("events and ends are at most {}", i64::MAX)).into());
    }
    service.store.write_import(content, progress.clone()).await?;
    Ok(Json(progress))
}

fn content_hash(segment: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let text = path_text("content", segment)?;
    if (16..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Problem::bad_parameter("content", "content is a hash of 16 to 64 hexadecimal digits"))
    }
}
