//! A request's body on its way in: no longer than it may be, no later, and all bodies together no larger than a budget.
//!
//! ```text
//! chunks as they arrive ──> length? budget? deadline? ──> Intake: the whole body and its share of the budget
//! ```
//!
//! A body takes its share of the budget chunk by chunk, so a slow client holds what it has sent and no more. Nobody waits
//! for a share: without one the request is refused at once, and its client comes back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::CollectError;
use super::request::Ask;

/// How long a refused client is listened to, so that it reads its answer instead of a reset connection.
const LINGER: Duration = Duration::from_secs(2);

/// The bytes that all bodies may hold together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    size: u32,
    in_flight_bytes: Gauge,
}

impl Budget {
    pub(super) fn new(size: u32, in_flight_bytes: Gauge) -> Self {
        let permits = usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(permits)), size, in_flight_bytes }
    }

    /// Takes `bytes` more for `share`, at once or not at all.
    fn take(&self, share: &mut Share, bytes: usize) -> Result<(), CollectError> {
        let count = u32::try_from(bytes).map_err(|_| CollectError::Full)?;
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(count).map_err(|_| CollectError::Full)?;
        match &mut share.permit {
            Some(held) => held.merge(permit),
            held @ None => *held = Some(permit),
        }
        share.bytes += i64::from(count);
        self.in_flight_bytes.inc_by(i64::from(count));
        Ok(())
    }

    /// Resolves when no body holds a share.
    pub(super) async fn all_free(&self) {
        // Only fails if the semaphore is closed, which nobody does.
        let _all = self.bytes.acquire_many(self.size).await;
    }
}

/// What one body holds of the budget; given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    permit: Option<OwnedSemaphorePermit>,
    bytes: i64,
    in_flight_bytes: Gauge,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.in_flight_bytes.dec_by(self.bytes);
    }
}

/// A whole body. Its share is held for as long as anything made from its bytes is.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) bytes: Vec<u8>,
    pub(super) share: Share,
}

impl Intake {
    /// Reads the `body` of what was asked: at most `max_bytes`, within `limit`.
    ///
    /// # Errors
    /// The limit that it passed, or how it broke off. What had come is forgotten then.
    pub(super) async fn read(ask: Ask, body: Body, max_bytes: usize, limit: Duration, budget: &Budget) -> Result<Self, CollectError> {
        let mut body = body.into_data_stream();
        let share = Share { permit: None, bytes: 0, in_flight_bytes: budget.in_flight_bytes.clone() };
        let mut intake = Self { bytes: Vec::new(), share };
        let announced = ask.content_length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max_bytes));
        let read = async {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| CollectError::BodyCut(error.to_string()))?;
                if intake.bytes.len() + chunk.len() > max_bytes {
                    return Err(CollectError::BodyTooLarge { limit_bytes: max_bytes });
                }
                budget.take(&mut intake.share, chunk.len())?;
                intake.bytes.extend_from_slice(&chunk);
            }
            Ok(())
        };
        let outcome = if announced {
            Err(CollectError::BodyTooLarge { limit_bytes: max_bytes })
        } else {
            timeout(limit, read).await.unwrap_or(Err(CollectError::BodyTooSlow { limit }))
        };
        match outcome {
            Ok(()) => Ok(intake),
            Err(error) => {
                tokio::spawn(timeout(LINGER, discard(body, max_bytes.saturating_mul(2))));
                Err(error)
            }
        }
    }
}

/// Reads on, and forgets, at most `max_bytes`.
async fn discard(mut body: BodyDataStream, max_bytes: usize) {
    let mut discarded = 0;
    while discarded <= max_bytes {
        match body.next().await {
            Some(Ok(chunk)) => discarded += chunk.len(),
            Some(Err(_)) | None => return,
        }
    }
}
