//! What videos and spaces are called: read from the store, held for a while, shown in answers.
//!
//! A name that was set elsewhere is seen within [`FRESH`]; one that was set here, as soon as answers that are kept whole have gone, within a second. A space has one name, whoever names it: that of
//! [`CountStore::read_space`] goes before what a video says of its space. Names never keep counts back: where the store does not answer, the name
//! that was last known is shown, or none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::{CountStore, SpaceInfo, StoreError, VideoInfo};
use futures_util::stream::{self, StreamExt};
use moka::sync::Cache;
use schemas::{Dimension, Entity};
use serde::Serialize;
use tokio::time::{timeout, timeout_at};
use utoipa::ToSchema;

/// So old may a name be.
const FRESH: Duration = Duration::from_secs(5);
/// So long is a name waited for where it is only shown beside counts.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of names held, for videos and for spaces each.
const HELD_BYTES: u64 = 16 << 20;
/// What holding a name costs beside its text, about.
const ENTRY_BYTES: usize = 200;
/// So many names are read at once.
const READS_AT_ONCE: usize = 16;

/// What an entity is called. Of a video: its title and its space; of a space: its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Named {
    /// Of a video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<String>,
    /// The id of a video's space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) space_id: Option<String>,
    /// The name of a video's space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) space_name: Option<String>,
    /// Of a space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

/// Names from a store, held.
pub(crate) struct Names {
    store: Arc<dyn CountStore>,
    videos: Shelf<VideoInfo>,
    spaces: Shelf<SpaceInfo>,
}

impl Names {
    pub(crate) fn new(store: Arc<dyn CountStore>) -> Self {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let video = move |info: &VideoInfo| text(&info.title) + text(&info.space_id) + text(&info.space_name) + text(&info.published_at);
        Self { store, videos: Shelf::new(video), spaces: Shelf::new(move |info: &SpaceInfo| text(&info.name)) }
    }

    /// What is known of a video, with the name of its space as it is now.
    ///
    /// # Errors
    /// If the store does not say and nothing is held.
    pub(crate) async fn video(&self, id: &str) -> Result<Option<VideoInfo>, StoreError> {
        let Some(info) = self.videos.get(id, Instant::now(), || self.store.read_video(id.to_owned())).await? else { return Ok(None) };
        let mut info = VideoInfo::clone(&info);
        if let Some(space_id) = &info.space_id
            && let Some(name) = self.space(space_id).await?.and_then(|space| space.name)
        {
            info.space_name = Some(name);
        }
        Ok(Some(info))
    }

    /// What is known of a space.
    ///
    /// # Errors
    /// If the store does not say and nothing is held.
    pub(crate) async fn space(&self, id: &str) -> Result<Option<SpaceInfo>, StoreError> {
        let info = self.spaces.get(id, Instant::now(), || self.store.read_space(id.to_owned())).await?;
        Ok(info.map(|info| SpaceInfo::clone(&info)))
    }

    /// Sets what is known of a video.
    ///
    /// # Errors
    /// If it is not known to be durable.
    pub(crate) async fn set_video(&self, id: String, info: VideoInfo) -> Result<(), StoreError> {
        self.store.write_video(id.clone(), info.clone()).await?;
        self.videos.put(&id, Instant::now(), Some(Arc::new(info)));
        Ok(())
    }

    /// Sets what is known of a space.
    ///
    /// # Errors
    /// If it is not known to be durable.
    pub(crate) async fn set_space(&self, id: String, info: SpaceInfo) -> Result<(), StoreError> {
        self.store.write_space(id.clone(), info.clone()).await?;
        self.spaces.put(&id, Instant::now(), Some(Arc::new(info)));
        Ok(())
    }

    /// What an entity is called, as far as it is known in time.
    pub(crate) async fn of(&self, entity: &Entity) -> Named {
        self.of_until(entity, tokio::time::Instant::now() + PATIENCE).await
    }

    async fn of_until(&self, entity: &Entity, deadline: tokio::time::Instant) -> Named {
        let named = async {
            Ok::<_, StoreError>(match entity.dimension {
                Dimension::Video => {
                    let VideoInfo { title, space_id, space_name, .. } = self.video(&entity.id).await?.unwrap_or_default();
                    Named { title, space_id, space_name, name: None }
                }
                Dimension::Space => Named { name: self.space(&entity.id).await?.and_then(|space| space.name), ..Named::default() },
                Dimension::Site => Named::default(),
            })
        };
        timeout_at(deadline, named).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// What entities are called, in their order. However many there are, they are waited for no longer than one.
    pub(crate) async fn of_all(&self, entities: &[Entity]) -> Vec<Named> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let names: Vec<_> = entities.iter().map(|entity| self.of_until(entity, deadline)).collect();
        stream::iter(names).buffered(READS_AT_ONCE).collect().await
    }
}

/// What is known of things of one kind, by id.
struct Shelf<T> {
    held: Cache<Arc<str>, Held<T>>,
}

struct Held<T> {
    read: Instant,
    info: Option<Arc<T>>,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self { read: self.read, info: self.info.clone() }
    }
}

impl<T: Send + Sync + 'static> Shelf<T> {
    fn new(text_bytes: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        let weigh = move |id: &Arc<str>, held: &Held<T>| {
            let bytes = ENTRY_BYTES + id.len() + held.info.as_deref().map_or(0, &text_bytes);
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self { held: Cache::builder().max_capacity(HELD_BYTES).weigher(weigh).build() }
    }

    fn put(&self, id: &str, read: Instant, info: Option<Arc<T>>) {
        self.held.insert(id.into(), Held { read, info });
    }

    /// What is held if it is fresh, else what `read` says, else what is held.
    async fn get<F: Future<Output = Result<Option<T>, StoreError>>>(
        &self,
        id: &str,
        now: Instant,
        read: impl FnOnce() -> F,
    ) -> Result<Option<Arc<T>>, StoreError> {
        let info = match self.held.get(id) {
            Some(held) if now.saturating_duration_since(held.read) < FRESH => return Ok(held.info),
            Some(held) => match timeout(PATIENCE, read()).await {
                Ok(Ok(info)) => info.map(Arc::new),
                // Asked again when this is no longer fresh, not by every request.
                _ => held.info,
            },
            None => read().await?.map(Arc::new),
        };
        self.put(id, now, info.clone());
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_read_again_when_it_is_no_longer_fresh_and_stays_where_it_cannot_be() {
        let shelf: Shelf<String> = Shelf::new(String::len);
        let begun = Instant::now();
        let read = |after: Duration, said: Result<Option<&'static str>, ()>| {
            let said = said.map(|name| name.map(str::to_owned)).map_err(|()| StoreError::Unavailable("away".into()));
            let shelf = &shelf;
            async move { shelf.get("v", begun + after, || std::future::ready(said)).await.map(|name| name.as_deref().cloned()) }
        };
        let name = |text: &str| Some(text.to_owned());
        assert!(read(Duration::ZERO, Err(())).await.is_err(), "nothing is held");
        assert_eq!(read(Duration::ZERO, Ok(Some("first"))).await.unwrap(), name("first"));
        assert_eq!(read(FRESH - Duration::from_millis(1), Ok(Some("second"))).await.unwrap(), name("first"));
        assert_eq!(read(FRESH, Err(())).await.unwrap(), name("first"), "the store is away");
        assert_eq!(read(FRESH * 2, Ok(Some("second"))).await.unwrap(), name("second"));
        assert_eq!(read(FRESH * 3, Ok(None)).await.unwrap(), None);
        let stuck = shelf.get("v", begun + FRESH * 4, std::future::pending);
        assert_eq!(stuck.await.unwrap(), None, "it does not wait for ever");
    }
}
