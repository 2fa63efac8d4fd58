//! How many requests are worked on at once, and what becomes of those beyond.
//!
//! ```text
//!            a place is free ────────────────────────────> worked on, for at most `timeout`
//! request ──<                      a place within `wait` ──┘
//!            all are taken ──────<
//!                                  else, or too many wait ─> 503 + Retry-After
//! ```
//!
//! A place is held until the answer's head is there: a stream that goes on for hours holds none.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ingest::Problem;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::service::{QueryLimits, QueryService};

/// For each place so many requests may wait.
const WAITING_PER_PLACE: usize = 4;

/// The places where requests are worked on.
pub(crate) struct Admission {
    places: Semaphore,
    waiting: Semaphore,
    wait: Duration,
}

impl Admission {
    pub(crate) fn new(limits: &QueryLimits) -> Self {
        let waiting = limits.requests_at_once.saturating_mul(WAITING_PER_PLACE).min(Semaphore::MAX_PERMITS);
        Self { places: Semaphore::new(limits.requests_at_once), waiting: Semaphore::new(waiting), wait: limits.wait }
    }

    /// A place, if there is one soon.
    async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        let _turn = self.waiting.try_acquire().ok()?;
        timeout(self.wait, self.places.acquire()).await.ok()?.ok()
    }
}

/// Admits a request or refuses it soon, and bounds its time.
pub(crate) async fn admit(service: &QueryService, request: Request, next: Next) -> Response {
    let QueryLimits { timeout: patience, requests_at_once, .. } = service.limits;
    let Some(_place) = service.admission.enter().await else {
        let detail = format!("{requests_at_once} requests are being worked on, as many as may be; try again in a moment");
        return Problem::unavailable(1, detail).with("limit", requests_at_once).into_response();
    };
    timeout(patience, next.run(request)).await.unwrap_or_else(|_| {
        let seconds = patience.as_secs();
        Problem::unavailable(5, format!("there was no answer within {seconds} s; ask for less, or try again later")).into_response()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn admission(wait: Duration) -> Admission {
        Admission::new(&QueryLimits { requests_at_once: 1, wait, ..QueryLimits::default() })
    }

    #[tokio::test]
    async fn who_comes_when_all_is_taken_waits_for_a_place_and_gets_it() {
        let admission = Arc::new(admission(Duration::from_secs(60)));
        let place = admission.enter().await.unwrap();
        let other = Arc::clone(&admission);
        let waiting = tokio::spawn(async move { other.enter().await.is_some() });
        while admission.waiting.available_permits() == WAITING_PER_PLACE {
            tokio::task::yield_now().await;
        }
        drop(place);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_may_be_and_no_more_than_may_be() {
        let short = admission(Duration::from_millis(1));
        let _place = short.enter().await.unwrap();
        assert!(short.enter().await.is_none());

        let crowded = Arc::new(admission(Duration::from_secs(60)));
        let _place = crowded.enter().await.unwrap();
        let waiting: Vec<_> = (0..WAITING_PER_PLACE)
            .map(|_| {
                let crowded = Arc::clone(&crowded);
                tokio::spawn(async move { crowded.enter().await.is_some() })
            })
            .collect();
        while crowded.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(crowded.enter().await.is_none());
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
