//! A request's body on its way in: no longer than it may be, no later, and all bodies together no larger than a budget.
//!
//! ```text
//! chunks as they arrive ──> length? pace? ──> decoded, if compressed ──> length? budget? ──> Intake: the whole body and its share
//! ```
//!
//! A body takes its share of the budget chunk by chunk, so a slow client holds what it has sent and no more. Nobody waits
//! for a share: without one the request is refused at once, and its client comes back.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::budget::{Budget, Share};
use super::coding::{Coding, Decoder, PIECE_BYTES};
use super::error::CollectError;
use crate::caller::Caller;

/// How long a refused client is listened to, so that it reads its answer instead of a reset connection.
const LINGER: Duration = Duration::from_secs(2);

/// A body that comes more slowly than it may is borne for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so many decoded bytes others have their turn.
const TURN_BYTES: usize = 256 << 10;

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// As it comes.
    pub(super) max_bytes: usize,
    /// Once it is decoded, if it is compressed.
    pub(super) max_decoded_bytes: usize,
    pub(super) timeout: Duration,
    /// The least that must come each second, after [`PATIENCE`]; 0 is any.
    pub(super) bytes_per_second: u32,
}

impl Bounds {
    /// When more must have come than `received`, after the beginning.
    fn due(&self, received: usize) -> Duration {
        let paced = u64::try_from(received).unwrap_or(u64::MAX).checked_div(self.bytes_per_second.into());
        paced.map_or(self.timeout, |seconds| PATIENCE.saturating_add(Duration::from_secs(seconds)).min(self.timeout))
    }

    const fn too_slow(&self, received: usize, due: Duration) -> CollectError {
        let least = if due.as_nanos() < self.timeout.as_nanos() { Some(self.bytes_per_second) } else { None };
        CollectError::BodyTooSlow { limit: self.timeout, received, bytes_per_second: least }
    }
}

/// A whole body, decoded. Its share is held for as long as anything made from its bytes is.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) bytes: Vec<u8>,
    /// How many bytes came.
    pub(super) received: usize,
    pub(super) share: Share,
}

impl Intake {
    /// Reads the `body` that says it has `announced` bytes in this coding.
    ///
    /// # Errors
    /// The limit that it passed, or how it broke off. What had come is forgotten then.
    pub(super) async fn read(
        body: Body,
        announced: Option<u64>,
        coding: Option<Coding>,
        bounds: &Bounds,
        budget: &Budget,
        caller: &Caller,
    ) -> Result<Self, CollectError> {
        let mut stream = body.into_data_stream();
        let mut intake = Self { bytes: Vec::new(), received: 0, share: budget.share(caller) };
        let too_long = announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > bounds.max_bytes));
        let outcome = match coding {
            _ if too_long => Err(CollectError::BodyTooLarge { limit_bytes: bounds.max_bytes }),
            None => intake.take(&mut stream, bounds).await,
            Some(coding) => intake.decode(&mut stream, coding, bounds, &mut budget.share(caller)).await,
        };
        match outcome {
            Ok(()) => Ok(intake),
            Err(error) => {
                linger(stream, bounds.max_bytes);
                Err(error)
            }
        }
    }

    /// Takes the body as it comes.
    async fn take(&mut self, stream: &mut BodyDataStream, bounds: &Bounds) -> Result<(), CollectError> {
        let mut arriving = Arriving::new(stream, bounds);
        while let Some(chunk) = arriving.next().await? {
            self.share.grow(chunk.len())?;
            self.bytes.extend_from_slice(&chunk);
        }
        self.received = arriving.received;
        Ok(())
    }

    /// Decodes the body while it comes; `workspace` is what that takes beside the decoded bytes.
    async fn decode(
        &mut self,
        stream: &mut BodyDataStream,
        coding: Coding,
        bounds: &Bounds,
        workspace: &mut Share,
    ) -> Result<(), CollectError> {
        let mut decoder = Decoder::new(coding)?;
        let mut arriving = Arriving::new(stream, bounds);
        let mut next_turn = TURN_BYTES;
        while let Some(chunk) = arriving.next().await? {
            for piece in chunk.chunks(PIECE_BYTES) {
                decoder.push(piece, &mut |part| self.add_decoded(part, bounds.max_decoded_bytes))?;
                workspace.grow(decoder.bytes().saturating_sub(workspace.bytes()))?;
                if self.bytes.len() >= next_turn {
                    next_turn = self.bytes.len() + TURN_BYTES;
                    tokio::task::yield_now().await;
                }
            }
        }
        self.received = arriving.received;
        Ok(decoder.finish()?)
    }

    fn add_decoded(&mut self, part: &[u8], limit_bytes: usize) -> Result<(), CollectError> {
        if self.bytes.len() + part.len() > limit_bytes {
            return Err(CollectError::DecodedTooLarge { limit_bytes });
        }
        self.share.grow(part.len())?;
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

/// A body's chunks, as long as they come as they must.
struct Arriving<'a> {
    stream: &'a mut BodyDataStream,
    bounds: &'a Bounds,
    begun: Instant,
    received: usize,
}

impl<'a> Arriving<'a> {
    fn new(stream: &'a mut BodyDataStream, bounds: &'a Bounds) -> Self {
        Self { stream, bounds, begun: Instant::now(), received: 0 }
    }

    async fn next(&mut self) -> Result<Option<axum::body::Bytes>, CollectError> {
        let due = self.bounds.due(self.received);
        let Ok(next) = timeout_at(self.begun + due, self.stream.next()).await else {
            return Err(self.bounds.too_slow(self.received, due));
        };
        let Some(chunk) = next else { return Ok(None) };
        let chunk = chunk.map_err(|error| CollectError::BodyCut(error.to_string()))?;
        self.received += chunk.len();
        if self.received > self.bounds.max_bytes {
            return Err(CollectError::BodyTooLarge { limit_bytes: self.bounds.max_bytes });
        }
        Ok(Some(chunk))
    }
}

/// Reads on for a while what a refused client still sends, so that it sees its answer.
pub(super) fn linger(stream: BodyDataStream, max_bytes: usize) {
    tokio::spawn(timeout(LINGER, discard(stream, max_bytes.saturating_mul(2))));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_due_by_its_pace_and_never_after_its_time() {
        let bounds = Bounds { max_bytes: 1, max_decoded_bytes: 1, timeout: Duration::from_secs(30), bytes_per_second: 1_000 };
        for (received, seconds) in [(0, 5), (999, 5), (10_000, 15), (25_000, 30), (8_000_000, 30), (usize::MAX, 30)] {
            assert_eq!(bounds.due(received), Duration::from_secs(seconds), "{received}");
        }
        assert_eq!(Bounds { bytes_per_second: 0, ..bounds }.due(0), Duration::from_secs(30));
    }
}
