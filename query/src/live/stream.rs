//! One listener's events: the body of an answer that goes on until the listener leaves or the process stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use ingest::Problem;
use tokio::sync::watch;
use tokio::time::sleep;

use super::hub::{Shown, Told};
use super::snapshot::Subject;
use crate::error::QueryError;
use crate::records::Open;
use crate::service::QueryService;

/// After so long without an event there is a comment, so that neither proxies nor readers take the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Who listens.
pub(super) struct Listener {
    told: watch::Receiver<Told>,
    stopped: watch::Receiver<bool>,
    /// The event that the reader has.
    since: i64,
    greeting: Option<Bytes>,
    _open: Open,
}

impl Listener {
    /// Begins to listen, once there is something to tell. `resume` is the last event that the reader says it has.
    ///
    /// # Errors
    /// If as many streams as may be are open, or the counts cannot be read.
    pub(super) async fn begin(service: &Arc<QueryService>, subject: Subject, resume: Option<i64>) -> Result<Self, QueryError> {
        let limit = service.limits.live_streams;
        let place = Arc::clone(&service.live.places).try_acquire_owned().map_err(|_| {
            Problem::unavailable(5, format!("{limit} live streams are open, as many as may be; try again later")).with("limit", limit)
        })?;
        let open = Open::new(place, service.metrics.live_streams.clone());
        let stopped = service.stopped.subscribe();
        let mut told = service.live.listen(service, &subject);
        let first = told.wait_for(Option::is_some).await.map_err(|_| QueryError::Broken)?.clone();
        let Some(first) = first else { return Err(QueryError::Broken) };
        let since = first?.snapshot.since(resume);
        told.mark_changed();
        Ok(Self { told, stopped, since, greeting: Some(greeting()), _open: open })
    }

    /// Its events.
    pub(super) fn body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut listener| async move {
            let bytes = listener.next().await?;
            Some((Ok::<_, Infallible>(bytes), listener))
        }))
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        if *self.stopped.borrow_and_update() {
            return None;
        }
        tokio::select! {
            // The service is stopping, or gone.
            _ = self.stopped.changed() => None,
            changed = self.told.changed() => {
                changed.ok()?;
                let told = self.told.borrow_and_update().clone();
                Some(self.event(&*told?.ok()?))
            }
            () = sleep(HEARTBEAT) => Some(Bytes::from_static(b":\n\n")),
        }
    }

    fn event(&mut self, shown: &Shown) -> Bytes {
        let event = shown.event(self.since);
        self.since = shown.snapshot.id;
        event
    }
}

/// When to come again after a cut: 1 to 5 s, so that not all come at once when a server starts again.
fn greeting() -> Bytes {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Neighbours get times far apart (Knuth's multiplicative hashing).
    let spread_ms = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761) >> 20;
    format!("retry: {}\n\n", 1_000 + spread_ms).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_come_again_at_different_times() {
        let times: Vec<u32> = (0..100).map(|_| std::str::from_utf8(&greeting()).unwrap()[7..].trim_end().parse().unwrap()).collect();
        assert!(times.iter().all(|ms| (1_000..5_096).contains(ms)), "{times:?}");
        assert!([1_000, 2_000, 3_000, 4_000].iter().all(|from| times.iter().any(|ms| (*from..from + 1_000).contains(ms))), "{times:?}");
    }
}
