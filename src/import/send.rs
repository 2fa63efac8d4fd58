//! Sends batches, a few at a time, and keeps on the server how far it is for certain.
//!
//! At a *barrier* nothing is in flight: every row up to it has been acknowledged. The barrier and the log's ends at
//! that moment are stored on the server, so that a later run knows exactly which rows are uncertain and behind which
//! offsets they would be. Everything here can be thrown away at any time: the barrier is the only truth.

use std::time::{Duration, Instant};

use aggregator::ImportProgress;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};

use super::ImportError;
use super::batch::{Batch, Unusable};
use super::retry;
use super::standing::Standing;
use crate::client::{ClientError, Server};

/// At most so many rows are uncertain after an interruption.
pub(crate) const MAX_UNCERTAIN_ROWS: u64 = 1_000_000;
const BARRIER_EVERY: Duration = Duration::from_secs(2);

/// What has become of the rows, as far as they were acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Rows up to this number are done.
    pub(crate) last_row: u64,
    /// Events that the log took in this run.
    pub(crate) accepted: u64,
    /// Events left out because the log held them.
    pub(crate) already: u64,
    /// Requests that were sent again without knowing what became of them.
    pub(crate) repeated: u64,
    /// Rows that cannot be used, by this program's or the server's word.
    pub(crate) unusable: Unusable,
}

/// How a stretch of sending ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The whole file is in; the barrier says so.
    Complete,
    /// It was asked to stop, and stored a barrier.
    Stopped,
    /// The server did not answer for too long: go back to the last barrier.
    Outage(ClientError),
}

/// What a stretch of sending needs.
pub(crate) struct Sender<'a> {
    pub(crate) server: &'a Server,
    pub(crate) historical: bool,
    pub(crate) in_flight: usize,
    /// For how long one request is sent again before its fate is looked up in the log instead. Deduplication must reach
    /// farther than this.
    pub(crate) retry_in_place: Duration,
    /// What the barriers are stored under, and their text.
    pub(crate) content: &'a str,
    pub(crate) progress: &'a mut ImportProgress,
    /// Turns true when the user wants to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Sender<'_> {
    /// Sends `batches` until they end; `sent` is as of the last barrier afterwards, and `seen` hears of every batch.
    ///
    /// # Errors
    /// If the file cannot be read on, or the server refuses for good.
    pub(crate) async fn run(
        &mut self,
        mut batches: mpsc::Receiver<Result<Batch, ImportError>>,
        sent: &mut Sent,
        seen: &mut dyn FnMut(&Sent),
    ) -> Result<Ending, ImportError> {
        let mut now = sent.clone();
        let (mut in_flight, mut ended, mut dispatched) = (FuturesUnordered::new(), false, sent.last_row);
        let mut barrier_at = Instant::now();
        let (mut broken, mut stop) = (None, self.stop.clone());
        loop {
            let stopping = *self.stop.borrow() || broken.is_some();
            let due = barrier_at.elapsed() >= BARRIER_EVERY || dispatched - sent.last_row >= MAX_UNCERTAIN_ROWS;
            if in_flight.is_empty() && (due || ended || stopping) {
                now.last_row = dispatched;
                let complete = ended && broken.is_none();
                if let Err(error) = self.barrier(&now, complete).await {
                    return lost(error);
                }
                sent.clone_from(&now);
                barrier_at = Instant::now();
                match broken.take() {
                    Some(error) => return Err(error),
                    None if complete => return Ok(Ending::Complete),
                    None if stopping => return Ok(Ending::Stopped),
                    None => continue,
                }
            }
            let may_send = !due && !ended && !stopping && in_flight.len() < self.in_flight;
            tokio::select! {
                biased;
                Some(done) = in_flight.next(), if !in_flight.is_empty() => match done {
                    Ok((batch, answer)) => {
                        account(&mut now, batch, answer);
                        seen(&now);
                    }
                    Err(error) => return lost(error),
                },
                batch = batches.recv(), if may_send => match batch {
                    None => ended = true,
                    Some(Err(error)) => broken = Some(error),
                    Some(Ok(batch)) => {
                        dispatched = batch.last_row;
                        in_flight.push(self.deliver(batch));
                    }
                },
                _ = stop.wait_for(|stop| *stop), if !stopping && may_send => {}
            }
        }
    }

    /// Sends one batch until the server has taken it.
    fn deliver(&self, batch: Batch) -> impl Future<Output = Result<(Batch, Answer), ClientError>> + use<> {
        let (server, historical, budget, stop) = (self.server.clone(), self.historical, self.retry_in_place, self.stop.clone());
        async move {
            if batch.lines.is_empty() {
                return Ok((batch, Answer::default()));
            }
            let (begun, mut attempt, mut repeated) = (Instant::now(), 0, 0);
            loop {
                let error = match server.post_events(batch.body.clone(), historical).await {
                    Ok(accepted) => return Ok((batch, Answer { accepted, repeated })),
                    Err(error) => error,
                };
                let retry_after = match &error {
                    ClientError::Unreachable { .. } => None,
                    ClientError::Refused { status, retry_after, .. } if retry::may_succeed_later(*status) => *retry_after,
                    _ => return Err(error),
                };
                let wait = retry::delay(attempt, retry_after, random());
                if *stop.borrow() || begun.elapsed() + wait > budget {
                    return Err(error);
                }
                tokio::time::sleep(wait).await;
                attempt += 1;
                repeated += 1;
            }
        }
    }

    /// Notes on the server that everything up to `now` is in the log, below its present ends.
    async fn barrier(&mut self, now: &Sent, complete: bool) -> Result<(), ClientError> {
        let standing = Standing::ask(self.server).await?;
        let barrier = ImportProgress { events: now.last_row, ends: standing.ends(), complete, ..self.progress.clone() };
        self.server.put_import_progress(self.content, &barrier).await?;
        *self.progress = barrier;
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Answer {
    accepted: crate::client::Accepted,
    repeated: u64,
}

fn account(now: &mut Sent, batch: Batch, answer: Answer) {
    now.accepted += answer.accepted.accepted;
    now.already += batch.already;
    now.repeated += answer.repeated;
    now.unusable.merge(batch.unusable);
    let shown = answer.accepted.rejected.len() as u64;
    now.unusable.add_many("refused", answer.accepted.rejected_total.saturating_sub(shown));
    for rejected in answer.accepted.rejected {
        let line = batch.lines.get(rejected.index).copied().unwrap_or_default();
        now.unusable.add(&rejected.reason, line, &rejected.detail);
    }
}

/// An error that time may heal is an outage; any other ends the import.
fn lost(error: ClientError) -> Result<Ending, ImportError> {
    if is_outage(&error) { Ok(Ending::Outage(error)) } else { Err(ImportError::Server(error)) }
}

/// Whether time may heal it.
pub(crate) const fn is_outage(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => retry::may_succeed_later(*status),
        _ => false,
    }
}

/// Any number, for the jitter of retries.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
