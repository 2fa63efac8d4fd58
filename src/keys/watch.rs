//! The ring of this process, kept as the store has it: read every two seconds, and at once after a change made here.
//!
//! While the store is away, what was known last holds: who was let in is let in, and a revocation takes effect when the store is back.
//! Before anything was read, nobody is let in.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use aggregator::CountStore;
use schemas::{KeyId, KeyRecord, LogId, Millis, NewKey, Token};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Book, KeysError, Ring};
use crate::backends::{BackendError, open_keys};
use crate::config::Settings;

/// A revocation takes effect everywhere within this and an answer of the store.
const EVERY: Duration = Duration::from_secs(2);
/// A store that has not answered for so long is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
// What is promised of revocations while the store answers.
const _: () = assert!(EVERY.as_millis() + PATIENCE.as_millis() < 5_000);

/// Where keys are.
pub(crate) enum Opening {
    /// In a store that is open.
    Store(Arc<dyn CountStore>),
    /// In the keyspace of the settings, which is opened for them alone.
    Keyspace(Box<Settings>, LogId),
    /// Nowhere: this process knows of none.
    Nowhere,
}

/// What is known of keys.
#[derive(Clone)]
pub(crate) enum Known {
    /// Nothing yet, and why.
    Nothing(Arc<str>),
    /// These.
    Ring(Arc<Ring>),
}

/// The keys of this process. A handle.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    book: OnceLock<Book>,
    known: RwLock<Known>,
    /// Requests need a key also if there is none: others can reach this process.
    is_closed: bool,
    /// One change at a time, so that only one key is the first.
    changing: Mutex<()>,
}

/// The task that reads; it ends with this.
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Keys {
    /// Reads the keys, and goes on reading. `is_closed`: requests need a key also if there is none.
    ///
    /// # Errors
    /// If they cannot be read for a reason that does not pass by itself.
    pub(crate) async fn start(opening: Opening, is_closed: bool) -> Result<(Self, Watch), BackendError> {
        let nothing = Known::Nothing("the store of keys has not answered yet".into());
        let keys = Self(Arc::new(Inner { book: OnceLock::new(), known: RwLock::new(nothing), is_closed, changing: Mutex::new(()) }));
        let keyspace = match opening {
            Opening::Nowhere => {
                keys.know(Known::Ring(Arc::new(Ring::new(Vec::new(), is_closed))));
                return Ok((keys, Watch(tokio::spawn(std::future::ready(())))));
            }
            Opening::Store(store) => {
                keys.0.book.get_or_init(|| Book(store));
                None
            }
            Opening::Keyspace(settings, log_id) => {
                match keys.open(&settings, &log_id).await {
                    Ok(()) => {}
                    // A collector takes events in while Cassandra is away, as soon as it knows who may send any.
                    Err(error) if error.may_pass() => tracing::warn!(%error, "keys are not known yet; nobody is let in until they are"),
                    Err(error) => return Err(error),
                }
                Some((settings, log_id))
            }
        };
        keys.refresh().await;
        let watching = keys.clone();
        let task = tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                if let (None, Some((settings, log_id))) = (watching.0.book.get(), &keyspace)
                    && let Err(error) = watching.open(settings, log_id).await
                {
                    watching.trouble(&error.to_string());
                    continue;
                }
                watching.refresh().await;
            }
        });
        Ok((keys, Watch(task)))
    }

    async fn open(&self, settings: &Settings, log_id: &LogId) -> Result<(), BackendError> {
        let store = open_keys(settings, log_id.clone()).await?;
        self.0.book.get_or_init(|| Book(store));
        Ok(())
    }

    /// Reads the keys now.
    async fn refresh(&self) {
        let Some(book) = self.0.book.get() else { return };
        match timeout(PATIENCE, book.0.read_keys()).await {
            Ok(Ok(keys)) => self.learn(keys),
            Ok(Err(error)) => self.trouble(&error.to_string()),
            Err(_) => self.trouble("no answer in time"),
        }
    }

    fn learn(&self, keys: Vec<KeyRecord>) {
        let before = self.known();
        let was_needed = matches!(&before, Known::Ring(ring) if ring.is_needed());
        if keys.is_empty() && matches!(&before, Known::Ring(ring) if !ring.is_empty()) {
            tracing::warn!("the store has lost all keys; nobody is let in until there is one again, or this process is started again");
        }
        self.know(Known::Ring(Arc::new(Ring::new(keys, self.0.is_closed || was_needed))));
    }

    fn trouble(&self, why: &str) {
        if matches!(self.known(), Known::Nothing(_)) {
            self.know(Known::Nothing(why.into()));
        }
        tracing::debug!(why, "keys could not be read; those that were known last hold");
    }

    fn know(&self, known: Known) {
        *self.0.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// What is known now.
    pub(crate) fn known(&self) -> Known {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves when a key that was good no longer is.
    pub(crate) async fn ended(&self, id: &str) {
        let Some(id) = KeyId::parse(id) else { return };
        while matches!(self.known(), Known::Ring(ring) if ring.still_holds(&id, Millis::now())) {
            sleep(EVERY / 2).await;
        }
    }

    /// Whether there is not one key, as far as is known.
    pub(crate) fn are_none(&self) -> bool {
        matches!(self.known(), Known::Ring(ring) if ring.is_empty())
    }

    /// Whether a page of this origin may send events.
    pub(crate) fn lists_origin(&self, origin: &str) -> bool {
        matches!(self.known(), Known::Ring(ring) if ring.lists_origin(origin, Millis::now()))
    }

    /// Makes a key, which this process knows when it is answered.
    ///
    /// # Errors
    /// As [`Book::create`].
    pub(super) async fn create(&self, new: NewKey) -> Result<(KeyRecord, Token), KeysError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let made = self.book()?.create(new, Millis::now()).await?;
        self.refresh().await;
        Ok(made)
    }

    /// Revokes a key, which this process no longer takes when it is answered.
    ///
    /// # Errors
    /// As [`Book::revoke`].
    pub(super) async fn revoke(&self, id: &str) -> Result<KeyRecord, KeysError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let revoked = self.book()?.revoke(id, Millis::now()).await?;
        self.refresh().await;
        Ok(revoked)
    }

    /// All keys, as the store has them.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) async fn list(&self) -> Result<Vec<KeyRecord>, KeysError> {
        Ok(self.book()?.list().await?)
    }

    fn book(&self) -> Result<&Book, KeysError> {
        let away = || aggregator::StoreError::Unavailable("the store of keys has not answered yet".into());
        Ok(self.0.book.get().ok_or_else(away)?)
    }
}

#[cfg(test)]
mod tests {
    use aggregator::EmbeddedStore;
    use aggregator::embedded::StoreOptions;
    use schemas::Scope;

    use super::*;

    fn store(dir: &std::path::Path) -> Arc<dyn CountStore> {
        Arc::new(EmbeddedStore::open(StoreOptions::new(dir, LogId("log".into()))).unwrap())
    }

    fn ring(keys: &Keys) -> Arc<Ring> {
        match keys.known() {
            Known::Ring(ring) => ring,
            Known::Nothing(why) => panic!("{why}"),
        }
    }

    fn admin() -> NewKey {
        NewKey { name: "a".into(), scopes: [Scope::Admin].into(), ..NewKey::default() }
    }

    #[tokio::test]
    async fn what_was_changed_here_holds_at_once_and_what_was_changed_elsewhere_soon() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let (keys, _watch) = Keys::start(Opening::Store(Arc::clone(&store)), false).await.unwrap();
        assert!(keys.are_none() && !ring(&keys).is_needed());
        let (record, token) = keys.create(admin()).await.unwrap();
        assert!(ring(&keys).find(&token, Millis::now()).is_ok() && ring(&keys).is_needed());
        // As another process does it.
        let elsewhere = Book(store);
        let (_, other) = elsewhere.create(admin(), Millis::now()).await.unwrap();
        elsewhere.revoke(record.id.as_str(), Millis::now()).await.unwrap();
        let begun = std::time::Instant::now();
        while ring(&keys).find(&token, Millis::now()).is_ok() || ring(&keys).find(&other, Millis::now()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(5), "not within 5 s");
            sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_ring_that_has_had_a_key_does_not_open_when_the_store_loses_it() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, _watch) = Keys::start(Opening::Store(store(dir.path())), false).await.unwrap();
        keys.create(admin()).await.unwrap();
        keys.learn(Vec::new());
        assert!(ring(&keys).is_empty() && ring(&keys).is_needed());
        keys.learn(Vec::new());
        assert!(ring(&keys).is_needed(), "nor at the second look");
    }

    #[tokio::test]
    async fn the_first_key_can_make_others_and_only_one_of_many_at_once_is_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, _watch) = Keys::start(Opening::Store(store(dir.path())), false).await.unwrap();
        let reader = NewKey { scopes: [Scope::Read].into(), ..admin() };
        assert!(matches!(keys.create(reader.clone()).await, Err(KeysError::Bad(_))));
        let (a, b) = tokio::join!(keys.create(admin()), keys.create(reader));
        assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
        assert_eq!(keys.list().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn without_a_store_a_closed_process_lets_nobody_in() {
        let (open, _watch) = Keys::start(Opening::Nowhere, false).await.unwrap();
        let (closed, _watch) = Keys::start(Opening::Nowhere, true).await.unwrap();
        assert!(!ring(&open).is_needed() && ring(&closed).is_needed());
    }
}
