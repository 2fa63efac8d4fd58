//! How far folds have come and what has been touched, read once in each epoch for whoever asks in it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use aggregator::StoreError;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::touches::Touches;
use super::{Cache, Flight, broke_off};
use crate::read::Watermarks;

/// What is open is read anew in each stretch of wall time of this length.
pub(crate) const EPOCH: Duration = Duration::from_millis(200);

/// A store that has not said how far it is within this time is away.
const PATIENCE: Duration = Duration::from_secs(1);

/// While the store is away, the request that asks it again waits for no longer than this, and all others not at all.
const BRIEF: Duration = Duration::from_millis(50);

/// What was known before anything else was read.
#[derive(Debug)]
pub(crate) struct View {
    /// How far the folds had come.
    pub(crate) marks: Arc<Watermarks>,
    /// In which epoch it was asked for.
    pub(crate) epoch: u32,
    /// When.
    pub(crate) began: Instant,
    /// The generation of changes that whatever is read from now on holds.
    pub(crate) generation: u64,
}

/// The view that all share.
#[derive(Debug, Default)]
pub(super) struct Present {
    pub(super) touches: Touches,
    view: Option<Arc<View>>,
    refreshing: Option<Flight<Arc<View>>>,
}

/// Ends a refresh, however it ends.
struct Refreshing(Arc<Cache>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.present().refreshing = None;
    }
}

impl Cache {
    pub(super) fn present(&self) -> std::sync::MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn epoch(&self, at: Instant) -> u32 {
        epoch(self.began, at)
    }

    /// The view of the epoch that `at` lies in, or else, if the store is away, the last there was; and whether it is the former.
    pub(super) async fn view(self: &Arc<Self>, at: Instant) -> Result<(Arc<View>, bool), StoreError> {
        let (flight, started) = {
            let mut present = self.present();
            match (&present.view, &present.refreshing) {
                (Some(view), _) if view.epoch >= self.epoch(at) => return Ok((Arc::clone(view), true)),
                (_, Some(flight)) => (flight.clone(), false),
                _ => (present.refreshing.insert(self.start_refresh(at)).clone(), true),
            }
        };
        let is_away = *self.away.borrow();
        let read = match (is_away, started) {
            (false, _) => flight.await,
            (true, true) => timeout(BRIEF, flight).await.unwrap_or_else(|_| Err(away())),
            (true, false) => Err(away()),
        };
        read.map(|view| (view, true)).or_else(|error| self.present().view.clone().map(|view| (view, false)).ok_or(error))
    }

    fn start_refresh(self: &Arc<Self>, at: Instant) -> Flight<Arc<View>> {
        let cache = Arc::clone(self);
        let task = tokio::spawn(async move {
            let refreshing = Refreshing(cache);
            let read = refreshing.0.refresh(at).await;
            refreshing.0.away.send_if_modified(|away| std::mem::replace(away, read.is_err()) != read.is_err());
            read
        });
        task.map(|done| done.unwrap_or_else(|_| Err(broke_off()))).boxed().shared()
    }

    async fn refresh(&self, at: Instant) -> Result<Arc<View>, StoreError> {
        let is_due = self.present().touches.is_due(at);
        let touched = async { if is_due { self.store.read_touched().await.map(Some) } else { Ok(None) } };
        let read = futures_util::future::try_join(self.store.read_checkpoints(), touched);
        let (checkpoints, touched) = timeout(PATIENCE, read).await.unwrap_or_else(|_| Err(away()))?;
        let marks = Arc::new(Watermarks::of(&checkpoints, self.log.sources()));
        let mut present = self.present();
        if let Some(touched) = touched {
            present.touches.learn(touched, at);
        }
        if present.view.as_ref().is_some_and(|before| !before.marks.is_of_same_sources(&marks)) {
            present.touches.drop_all();
        }
        let view = Arc::new(View { marks, epoch: self.epoch(at), began: at, generation: present.touches.generation() });
        present.view = Some(Arc::clone(&view));
        Ok(view)
    }
}

/// The epochs that have passed between two moments.
fn epoch(began: Instant, at: Instant) -> u32 {
    u32::try_from(at.saturating_duration_since(began).as_millis() / EPOCH.as_millis()).unwrap_or(u32::MAX)
}

/// When the epoch ends that a moment lies in.
pub(super) fn epoch_end(began: Instant, at: Instant) -> Instant {
    began + EPOCH * epoch(began, at).saturating_add(1)
}

pub(super) fn away() -> StoreError {
    StoreError::Unavailable("it does not answer".to_owned())
}
