//! What is known of videos, spaces and imports: small rows, the last write stays.
//!
//! A field of a video or a space that is not given is left unset, not null. Then what an earlier write left in it is older than `updated_at`, which every
//! write sets, and does not count.

use schemas::Millis;
use scylla::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::MaybeUnset;

use super::Inner;
use super::error::{Failure, damaged};
use super::row::bigint;
use crate::store::{ImportProgress, SpaceInfo, StoreError, VideoInfo};

#[derive(DeserializeRow)]
struct StoredVideo {
    title: Option<String>,
    title_at: Option<i64>,
    space_id: Option<String>,
    space_id_at: Option<i64>,
    space_name: Option<String>,
    space_name_at: Option<i64>,
    published_at: Option<String>,
    published_at_at: Option<i64>,
    updated_at: Option<i64>,
}

#[derive(DeserializeRow)]
struct StoredImport {
    file: Option<String>,
    mapping: Option<String>,
    events: Option<i64>,
    ends: Option<Vec<i64>>,
    complete: Option<bool>,
}

impl Inner {
    pub(super) async fn read_video(&self, video_id: &str) -> Result<Option<VideoInfo>, StoreError> {
        let what = format!("video {video_id}");
        let Some(stored) = self.note::<StoredVideo>(&self.statements.read_video, (video_id,), &what).await? else { return Ok(None) };
        let current = |field: Option<String>, at: Option<i64>| field.filter(|_| at == stored.updated_at);
        Ok(Some(VideoInfo {
            title: current(stored.title, stored.title_at),
            space_id: current(stored.space_id, stored.space_id_at),
            space_name: current(stored.space_name, stored.space_name_at),
            published_at: current(stored.published_at, stored.published_at_at),
        }))
    }

    pub(super) async fn write_video(&self, video_id: &str, info: &VideoInfo) -> Result<(), StoreError> {
        let VideoInfo { title, space_id, space_name, published_at } = info;
        let given = |field: &'_ Option<String>| field.clone().map_or(MaybeUnset::Unset, MaybeUnset::Set);
        let values = (video_id, given(title), given(space_id), given(space_name), given(published_at), Millis::now().0);
        self.session.execute_unpaged(&self.statements.write_video, values).await.map_err(Failure::from)?;
        Ok(())
    }

    pub(super) async fn read_space(&self, space_id: &str) -> Result<Option<SpaceInfo>, StoreError> {
        type Stored = (Option<String>, Option<i64>, Option<i64>);
        let what = format!("space {space_id}");
        let stored = self.note::<Stored>(&self.statements.read_space, (space_id,), &what).await?;
        Ok(stored.map(|(name, name_at, updated_at)| SpaceInfo { name: name.filter(|_| name_at == updated_at) }))
    }

    pub(super) async fn write_space(&self, space_id: &str, info: &SpaceInfo) -> Result<(), StoreError> {
        let values = (space_id, MaybeUnset::from_option(info.name.as_deref()), Millis::now().0);
        self.session.execute_unpaged(&self.statements.write_space, values).await.map_err(Failure::from)?;
        Ok(())
    }

    pub(super) async fn read_import(&self, content: &str) -> Result<Option<ImportProgress>, StoreError> {
        let what = format!("import {content}");
        let Some(stored) = self.note::<StoredImport>(&self.statements.read_import, (content,), &what).await? else { return Ok(None) };
        let StoredImport { file: Some(file), mapping: Some(mapping), events: Some(events), ends, complete: Some(complete) } = stored else {
            return Err(damaged(&what, &"its row is not whole"));
        };
        let unsigned = |value: i64| u64::try_from(value).map_err(|error| damaged(&what, &error));
        let ends = ends.unwrap_or_default().into_iter().map(unsigned).collect::<Result<_, _>>()?;
        Ok(Some(ImportProgress { file, mapping, events: unsigned(events)?, ends, complete }))
    }

    pub(super) async fn write_import(&self, content: &str, progress: &ImportProgress) -> Result<(), StoreError> {
        let ImportProgress { file, mapping, events, ends, complete } = progress;
        let what = format!("import {content}:");
        let ends = ends.iter().map(|end| bigint(&what, *end)).collect::<Result<Vec<_>, _>>()?;
        let values = (content, file, mapping, bigint(&what, *events)?, ends, *complete);
        self.session.execute_unpaged(&self.statements.write_import, values).await.map_err(Failure::from)?;
        Ok(())
    }

    async fn note<T>(&self, statement: &PreparedStatement, key: impl SerializeRow, what: &str) -> Result<Option<T>, StoreError>
    where
        T: for<'f> scylla::deserialize::row::DeserializeRow<'f, 'f>,
    {
        let found = self.session.execute_unpaged(statement, key).await.map_err(Failure::from)?;
        let rows = found.into_rows_result().map_err(|error| damaged(&what, &error))?;
        rows.maybe_first_row::<T>().map_err(|error| damaged(&what, &error))
    }
}
