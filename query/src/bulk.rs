//! `PUT /v1/videos`: what is known of many videos, set at once.
//!
//! ```json
//! {"videos": [{"id": "v1", "title": "First steps", "space_id": "moon", "space_name": "The Moon"}, {"id": "v2"}]}
//! ```
//!
//! All are checked before any is written, so a mistake changes nothing. Where the store fails on the way, the answer says which videos are not
//! known to be written; setting is repeatable, so these, or all, may be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregator::{SpaceInfo, StoreError, VideoInfo};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use futures_util::stream::{self, StreamExt};
use ingest::Problem;
use schemas::id::check_id;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::api;
use crate::body::{Members, bad_member, item, whole};
use crate::error::QueryError;
use crate::names::Names;
use crate::service::{MAX_BULK_BYTES, QueryService};
use crate::video::check;

/// So many are written at once for one request.
const WRITES_AT_ONCE: usize = 16;

/// The store failed when some videos were written and some were not.
#[derive(Clone, Debug, Error)]
#[error("{error}; {} of {} videos are not known to be written: send them again", not_written.len(), not_written.len() + written)]
pub struct PartlyWritten {
    /// So many are written.
    pub written: usize,
    /// The ids of the others, in the order of the request.
    pub not_written: Vec<String>,
    /// The first failure.
    pub error: StoreError,
}

/// That all were written.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Written {
    /// So many videos.
    written: usize,
}

/// A video as a request names it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedVideo {
    id: String,
    title: Option<String>,
    space_id: Option<String>,
    space_name: Option<String>,
    published_at: Option<String>,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Bulk {
    videos: Vec<(String, VideoInfo)>,
    spaces: BTreeMap<String, String>,
}

/// Set what is known of many videos.
///
/// All are checked before any is written. If the store fails on the way, the problem's member `not_written` names the videos to send again.
#[utoipa::path(
    put,
    path = "/v1/videos",
    operation_id = "set_videos",
    tag = "Videos",
    request_body = api::Videos,
    responses((status = 200, description = "All are written.", body = Written), api::StoringProblems)
)]
pub(crate) async fn set(
    State(service): State<Arc<QueryService>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Written>, QueryError> {
    let bulk = read(&whole(body, MAX_BULK_BYTES)?, service.limits.entities)?;
    let written = bulk.videos.len();
    write(&service.names, bulk).await?;
    Ok(Json(Written { written }))
}

fn read(body: &[u8], most: usize) -> Result<Bulk, Problem> {
    let mut bulk = Bulk::default();
    let (mut places, mut naming) = (BTreeMap::new(), BTreeMap::new());
    for (place, value) in Members::read(body, &["videos"])?.list("videos", most)?.into_iter().enumerate() {
        let NamedVideo { id, title, space_id, space_name, published_at } = item("videos", place, value)?;
        let bad = |detail: String| bad_member(&format!("videos[{place}]"), detail);
        check_id(&id).map_err(|error| bad(format!("id {error}")))?;
        if let Some(first) = places.insert(id.clone(), place) {
            return Err(bad(format!("id {id:?} is that of videos[{first}] too; give it once")));
        }
        let info = VideoInfo { title, space_id, space_name, published_at };
        check(&info).map_err(bad)?;
        if let (Some(space_id), Some(name)) = (&info.space_id, &info.space_name) {
            let named = bulk.spaces.entry(space_id.clone()).or_insert_with(|| name.clone());
            let first = naming.entry(space_id.clone()).or_insert(place);
            if named != name {
                return Err(bad(format!("space_name {name:?} differs from that of videos[{first}], which is in the same space")));
            }
        }
        bulk.videos.push((id, info));
    }
    Ok(bulk)
}

/// Writes the names of spaces, then the videos.
async fn write(names: &Names, Bulk { videos, spaces }: Bulk) -> Result<(), PartlyWritten> {
    let ids: Vec<String> = videos.iter().map(|(id, _)| id.clone()).collect();
    let spaces: Vec<_> = spaces.into_iter().map(|(id, name)| names.set_space(id, SpaceInfo { name: Some(name) })).collect();
    let spaces: Vec<Result<(), StoreError>> = stream::iter(spaces).buffered(WRITES_AT_ONCE).collect().await;
    if let Some(error) = spaces.into_iter().find_map(Result::err) {
        return Err(PartlyWritten { written: 0, not_written: ids, error });
    }
    let videos: Vec<_> = videos.into_iter().map(|(id, info)| names.set_video(id, info)).collect();
    let videos: Vec<Result<(), StoreError>> = stream::iter(videos).buffered(WRITES_AT_ONCE).collect().await;
    let not_written: Vec<String> = ids.into_iter().zip(&videos).filter(|(_, result)| result.is_err()).map(|(id, _)| id).collect();
    let written = videos.len() - not_written.len();
    match videos.into_iter().find_map(Result::err) {
        Some(error) => Err(PartlyWritten { written, not_written, error }),
        None => Ok(()),
    }
}
