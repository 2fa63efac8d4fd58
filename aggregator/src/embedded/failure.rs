//! The first fault that nothing but a restart mends: after a failed write or sync nobody knows what is on disk.
//!
//! It is set by the operation that meets it, and by a watch over the database's own threads, which write tables in
//! the background and would else fail unseen. The program waits for it and exits non-zero.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use fjall::PersistMode;
use tokio::sync::watch;

use super::open::Inner;
use crate::store::StoreError;

/// How often the background threads are looked after.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Set once, then for good.
pub(super) struct Failure(watch::Sender<Option<String>>);

impl Failure {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Notes a fault. The first one stays, and is what is returned.
    pub(super) fn set(&self, detail: String) -> StoreError {
        let first = self.0.send_if_modified(|state| {
            let first = state.is_none();
            state.get_or_insert_with(|| detail.clone());
            first
        });
        if first {
            tracing::error!(detail, "the store has failed; it takes no more writes until a restart");
        }
        StoreError::Failed(self.get().unwrap_or(detail))
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.get().map_or(Ok(()), |detail| Err(StoreError::Failed(detail)))
    }

    pub(super) fn wait(&self) -> impl Future<Output = String> + Send + 'static {
        let mut receiver = self.0.subscribe();
        async move {
            let detail = receiver.wait_for(Option::is_some).await.ok().and_then(|state| state.clone());
            match detail {
                Some(detail) => detail,
                // The store was closed whole.
                None => std::future::pending().await,
            }
        }
    }
}

/// Looks after the database until its last handle is gone.
pub(super) fn watch(inner: &Arc<Inner>, closed: Receiver<()>) -> Result<(), StoreError> {
    let weak = Arc::downgrade(inner);
    let look = move || {
        loop {
            // Nothing is ever sent: the sender goes when the store closes.
            if !matches!(closed.recv_timeout(WATCH_EVERY), Err(RecvTimeoutError::Timeout)) {
                return;
            }
            let Some(inner) = weak.upgrade() else { return };
            // Syncs nothing; it fails if a background thread has failed.
            if let Err(error) = inner.db.persist(PersistMode::Buffer) {
                inner.failure.set(format!("{error}; is the disk full or broken?"));
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("store-watch".into()).spawn(look);
    spawned.map(drop).map_err(|error| StoreError::Unavailable(format!("cannot start a thread: {error}")))
}
