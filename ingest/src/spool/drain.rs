//! Appending what is on disk to the log, each source by a task of its own.
//!
//! ```text
//! away? ──> append a tick, until the log takes it ──> away no more
//! a batch in flight? ──> what of it is in the log since? ──> append the rest ──> drained
//! more on disk? ──> note a batch in flight ──> append it ──> drained
//! ```
//!
//! A tick counts nothing, and what is answered after it comes after all that this producer sent before: a batch whose append failed
//! has arrived by then, or never will. A producer that has died may have left requests that a broker still reads; these have [`SETTLED`].

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use schemas::{Millis, NewRecord, Offset, RecordKind, Source};
use tokio::time::sleep;
use xxhash_rust::xxh3::Xxh3;

use super::progress::{Drained, InFlight};
use super::{Spool, lock, size};
use crate::{LogError, ReadLimit};

/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// So many bytes are appended at once.
const BATCH_BYTES: usize = 1 << 20;

/// Requests of a process that has died are with the log, or lost, so long after this one has begun.
const SETTLED: Duration = Duration::from_secs(5);

impl Spool {
    pub(super) async fn drain_forever(self: Arc<Self>, source: Source) {
        let mut wait = WAITS.0;
        let mut told = false;
        loop {
            match self.step(source).await {
                Ok(true) => (wait, told) = (WAITS.0, false),
                Ok(false) => match self.lot(source) {
                    Ok(lot) => lot.work.notified().await,
                    Err(_) => return,
                },
                Err(error) => {
                    // Once for each outage.
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, %source, "what is spooled waits for the log");
                    }
                    sleep(wait).await;
                    wait = (wait * 2).min(WAITS.1);
                }
            }
        }
    }

    /// Does what is next; false if there is nothing.
    async fn step(self: &Arc<Self>, source: Source) -> Result<bool, LogError> {
        let drained = lock(&self.progress).of(source);
        if lock(&self.lot(source)?.gate).is_away() {
            self.probe(source).await?;
            tracing::info!(%source, "the log is back");
            lock(&self.lot(source)?.gate).back();
            return Ok(true);
        }
        match drained.in_flight {
            Some(in_flight) => self.settle(source, drained.next, in_flight).await?,
            None => {
                let this = Arc::clone(self);
                let (records, end) = blocking(move || this.waiting(source, BATCH_BYTES)).await?;
                if records.is_empty() {
                    return Ok(false);
                }
                self.send(source, drained.next, records, end).await?;
            }
        }
        Ok(true)
    }

    /// Succeeds when the log takes something.
    async fn probe(&self, source: Source) -> Result<(), LogError> {
        self.log.append(source, vec![NewRecord::tick()]).await.map(drop)
    }

    /// Appends a batch that was never under way.
    async fn send(self: &Arc<Self>, source: Source, next: u64, records: Vec<NewRecord>, end: Offset) -> Result<(), LogError> {
        let this = Arc::clone(self);
        blocking(move || {
            let log_end = this.log.ends(source)?.end.0;
            let in_flight = InFlight { end: end.0, log_end, at_ms: Millis::now().0 };
            lock(&this.progress).note(source, Drained { next, in_flight: Some(in_flight) })
        })
        .await?;
        let bytes = records.iter().map(size).sum();
        self.log.append(source, records).await?;
        self.drained(source, end, bytes).await
    }

    /// Appends of a batch what has not arrived.
    async fn settle(self: &Arc<Self>, source: Source, next: u64, in_flight: InFlight) -> Result<(), LogError> {
        sleep(SETTLED.saturating_sub(self.opened.elapsed())).await;
        self.probe(source).await?;
        let this = Arc::clone(self);
        let (missing, bytes) = blocking(move || {
            let (batch, _) = this.on_disk(source, Offset(next), Offset(in_flight.end), usize::MAX)?;
            let bytes = batch.iter().map(size).sum();
            Ok((this.missing(source, batch, in_flight)?, bytes))
        })
        .await?;
        if !missing.is_empty() {
            // Still in flight: if this fails, too, it is looked for from the same offset on.
            self.log.append(source, missing).await?;
        }
        self.drained(source, Offset(in_flight.end), bytes).await
    }

    /// Which records of a batch are not in the log. Records with equal bytes stand for one another: their events are duplicates anyway.
    fn missing(&self, source: Source, batch: Vec<NewRecord>, in_flight: InFlight) -> Result<Vec<NewRecord>, LogError> {
        let ends = self.log.ends(source)?;
        let mut found: HashMap<u128, usize> = HashMap::new();
        let mut from = in_flight.log_end();
        if from < ends.start {
            tracing::error!(%source, %from, start = %ends.start, "the log no longer has the records among which a spooled batch may be: it is appended again, and may count twice");
            from = ends.start;
        }
        let limit = ReadLimit { records: 10_000, bytes: 4 << 20, patience: Duration::from_secs(5) };
        let mut late = false;
        while from < ends.end && !late {
            let next = self.log.read(source, from, limit, &mut |record| {
                late = record.append_time > in_flight.last_possible();
                *found.entry(digest(record.kind, record.historical, record.payload)).or_default() += 1;
                if late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if next == from {
                return Err(LogError::Unavailable(format!("no records came from offset {from} on")));
            }
            from = next;
        }
        let arrived = |record: &NewRecord| match found.get_mut(&digest(record.kind, record.historical, &record.payload)) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        };
        let mut arrived = arrived;
        Ok(batch.into_iter().filter(|record| !arrived(record)).collect())
    }

    /// The log has everything below `end`.
    async fn drained(self: &Arc<Self>, source: Source, end: Offset, bytes: u64) -> Result<(), LogError> {
        let this = Arc::clone(self);
        blocking(move || {
            lock(&this.progress).note(source, Drained { next: end.0, in_flight: None })?;
            this.release(bytes);
            this.disk.trim(source, end).map(drop)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(LogError::Failed("the work on the spool broke off".into())))
}

fn digest(kind: RecordKind, historical: bool, payload: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&[kind.code(), u8::from(historical)]);
    hasher.update(payload);
    hasher.digest128()
}
