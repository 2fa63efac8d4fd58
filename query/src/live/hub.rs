//! The feeds: for each subject that somebody listens to there is one task that looks each second and tells all listeners.
//!
//! A feed begins with the first listener and ends with the last. Both are decided under one lock, so nobody joins a feed that ends.
//! What is told is rendered once; listeners share its bytes. A listener that does not keep up holds nothing back: the feed keeps the
//! last snapshot alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aggregator::StoreError;
use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use schemas::{Millis, Minute};
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::snapshot::{Snapshot, Subject};
use crate::error::QueryError;
use crate::read::Sums;
use crate::service::{QueryLimits, QueryService};

/// A feed looks so often.
const LOOK: Duration = Duration::from_secs(1);

/// Nothing until the first look; an error only if that failed.
pub(super) type Told = Option<Result<Arc<Shown>, QueryError>>;

/// All feeds.
pub(crate) struct Hub {
    feeds: Mutex<HashMap<Subject, Arc<watch::Sender<Told>>>>,
    /// For each open stream.
    pub(super) places: Arc<Semaphore>,
    /// However many feeds there are, so many read at once: the others' looks come later then.
    reads: Semaphore,
}

impl Hub {
    pub(crate) fn new(limits: &QueryLimits) -> Self {
        let places = limits.live_streams.min(Semaphore::MAX_PERMITS);
        Self { feeds: Mutex::default(), places: Arc::new(Semaphore::new(places)), reads: Semaphore::new(limits.reads_at_once.max(1)) }
    }

    /// Listens to a subject.
    pub(super) fn listen(&self, service: &Arc<QueryService>, subject: &Subject) -> watch::Receiver<Told> {
        let (listener, begun) = self.join(service, subject);
        if let Some(feed) = begun {
            tokio::spawn(feed.run());
        }
        listener
    }

    /// Joins the feed of a subject, or begins one, which is then to be run.
    fn join(&self, service: &Arc<QueryService>, subject: &Subject) -> (watch::Receiver<Told>, Option<Feed>) {
        let mut feeds = self.feeds();
        if let Some(feed) = feeds.get(subject) {
            return (feed.subscribe(), None);
        }
        let (feed, listener) = watch::channel(None);
        let feed = Arc::new(feed);
        feeds.insert(subject.clone(), Arc::clone(&feed));
        let open = service.metrics.live_feeds.clone();
        open.inc();
        (listener, Some(Feed { service: Arc::clone(service), subject: subject.clone(), feed, open }))
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<Subject, Arc<watch::Sender<Told>>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One feed's task.
struct Feed {
    service: Arc<QueryService>,
    subject: Subject,
    feed: Arc<watch::Sender<Told>>,
    open: Gauge,
}

impl Feed {
    async fn run(self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            let look = async {
                looks.tick().await;
                self.read().await
            };
            tokio::select! {
                () = self.feed.closed() => {
                    if self.leave() {
                        return;
                    }
                }
                read = look => self.tell(read, &mut last),
            }
        }
    }

    /// Ends the feed, if still nobody listens.
    fn leave(&self) -> bool {
        let mut feeds = self.service.live.feeds();
        let alone = self.feed.receiver_count() == 0;
        if alone {
            feeds.remove(&self.subject);
        }
        alone
    }

    async fn read(&self) -> Result<Look, QueryError> {
        let service = &*self.service;
        let _turn = service.live.reads.acquire().await;
        let now = Millis::now();
        let ranges = self.subject.ranges(now);
        service.metrics.live_reads.inc();
        let patience = service.limits.timeout;
        let sums = timeout(patience, service.sums(&self.subject.entity, &ranges, now)).await;
        let sums = sums.map_err(|_| StoreError::Unavailable(format!("there was no answer within {} s", patience.as_secs())))??;
        Ok(Look { now, ranges, sums })
    }

    fn tell(&self, read: Result<Look, QueryError>, last: &mut Option<Arc<Shown>>) {
        let before = last.as_ref().map(|shown| &shown.snapshot);
        let snapshot = match (read, before) {
            (Ok(Look { now, ranges, sums }), before) => Snapshot::of(&self.subject, &ranges, &sums, now, before),
            (Err(error), Some(before)) => {
                tracing::debug!(%error, "live counts could not be read");
                before.gone_stale(Millis::now())
            }
            (Err(error), None) => {
                self.feed.send_replace(Some(Err(error)));
                None
            }
        };
        if let Some(snapshot) = snapshot {
            let shown = Arc::new(Shown::new(self.subject.clone(), snapshot, before.map_or(i64::MIN, |before| before.id)));
            self.feed.send_replace(Some(Ok(Arc::clone(&shown))));
            *last = Some(shown);
        }
    }
}

impl Drop for Feed {
    /// However it ended, nobody joins it any more; those who listen still see it end, and come again.
    fn drop(&mut self) {
        self.open.dec();
        let mut feeds = self.service.live.feeds();
        if feeds.get(&self.subject).is_some_and(|feed| Arc::ptr_eq(feed, &self.feed)) {
            feeds.remove(&self.subject);
        }
    }
}

/// What a look found.
struct Look {
    now: Millis,
    ranges: Vec<(Minute, Minute)>,
    sums: Sums,
}

/// A snapshot and its rendered events.
#[derive(Debug)]
pub(super) struct Shown {
    subject: Subject,
    pub(super) snapshot: Snapshot,
    /// For those who have the event before: nearly everybody.
    before: i64,
    next: Bytes,
    /// For those who have nothing.
    whole: OnceLock<Bytes>,
}

impl Shown {
    pub(super) fn new(subject: Subject, snapshot: Snapshot, before: i64) -> Self {
        let next = snapshot.event(&subject, before);
        Self { subject, snapshot, before, next, whole: OnceLock::new() }
    }

    /// The event for a reader that has the event `since`.
    pub(super) fn event(&self, since: i64) -> Bytes {
        if since == self.before {
            self.next.clone()
        } else if self.snapshot.is_all_new(since) {
            self.whole.get_or_init(|| self.snapshot.event(&self.subject, i64::MIN)).clone()
        } else {
            self.snapshot.event(&self.subject, since)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use aggregator::EmbeddedStore;
    use aggregator::embedded::StoreOptions;
    use ingest::embedded::LogOptions;
    use ingest::{EmbeddedLog, EventLog};
    use schemas::{Entity, FoldSettings};

    use super::*;
    use crate::params::Metric;

    #[tokio::test]
    async fn a_feed_that_somebody_joined_at_the_last_moment_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::MIN)).unwrap());
        let store = Arc::new(EmbeddedStore::open(StoreOptions::new(dir.path().join("store"), log.id())).unwrap());
        let service = Arc::new(QueryService::new(store, log, FoldSettings::default(), QueryLimits::default()));
        let subject = Subject { entity: Entity::site(), metric: Metric::Gross, tz: None };

        let (first, feed) = service.live.join(&service, &subject);
        let feed = feed.unwrap();
        drop(first);
        feed.feed.closed().await;
        let (second, begun) = service.live.join(&service, &subject);
        assert!(begun.is_none() && !feed.leave(), "somebody listens again");
        drop(second);
        assert!(feed.leave());
        let (_third, other) = service.live.join(&service, &subject);
        drop(feed);
        assert!(other.is_some() && service.live.join(&service, &subject).1.is_none(), "the end of the old one does not end the new one");
        drop(other);
        assert!(service.live.feeds().is_empty(), "a feed that broke off is not joined");
    }
}
