//! The requests that wait for the committer: bounded by their bytes, never by time.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::{NewRecord, Source};
use tokio::sync::oneshot;

use crate::log::{Appended, LogError};

/// What a record costs while it waits, besides its payload: an allowance for its key, header and bookkeeping.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// One append that waits.
pub(super) struct Request {
    pub(super) source: Source,
    pub(super) records: Vec<NewRecord>,
    pub(super) bytes: usize,
    pub(super) done: oneshot::Sender<Result<Appended, LogError>>,
}

impl Request {
    pub(super) fn new(source: Source, records: Vec<NewRecord>) -> (Self, oneshot::Receiver<Result<Appended, LogError>>) {
        let bytes = records.iter().map(|record| record.payload.len() + RECORD_OVERHEAD_BYTES).sum();
        let (done, answer) = oneshot::channel();
        (Self { source, records, bytes, done }, answer)
    }

    /// Answers the one who waits, if there still is one.
    pub(super) fn answer(self, answer: Result<Appended, LogError>) {
        let _ = self.done.send(answer);
    }
}

/// What the committer does next.
pub(super) enum Next {
    /// Commit these, in this order.
    Batch(Vec<Request>),
    /// Nothing came for a while.
    Idle,
    /// The log is closed and all is done.
    Closed,
}

/// The queue. `bytes` counts what waits and what is being committed: it is the memory that appends hold.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: usize,
}

struct State {
    waiting: VecDeque<Request>,
    bytes: usize,
    phase: Phase,
}

enum Phase {
    Open,
    Closed,
    Failed(String),
}

impl Queue {
    pub(super) const fn new(bytes_max: usize) -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, phase: Phase::Open };
        Self { state: Mutex::new(state), changed: Condvar::new(), bytes_max }
    }

    /// Takes a request, or says at once why not. A request of any size is taken when nothing else waits.
    pub(super) fn push(&self, request: Request) -> Result<(), LogError> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Open => {}
            Phase::Closed => return Err(LogError::Failed("it is closed".into())),
            Phase::Failed(cause) => return Err(LogError::Failed(cause.clone())),
        }
        let bytes = state.bytes.saturating_add(request.bytes);
        if bytes > self.bytes_max && state.bytes > 0 {
            return Err(LogError::Busy { waiting_bytes: state.bytes });
        }
        state.bytes = bytes;
        state.waiting.push_back(request);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes the oldest requests, up to `bytes_max` of them but at least one; waits for up to `idle` for the first.
    pub(super) fn take(&self, bytes_max: usize, idle: Duration) -> Next {
        let state = self.lock();
        let quiet = |state: &mut State| state.waiting.is_empty() && matches!(state.phase, Phase::Open);
        let (mut state, _) = self.changed.wait_timeout_while(state, idle, quiet).unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut bytes) = (Vec::new(), 0usize);
        while let Some(request) = state.waiting.pop_front() {
            if !batch.is_empty() && bytes + request.bytes > bytes_max {
                state.waiting.push_front(request);
                break;
            }
            bytes += request.bytes;
            batch.push(request);
        }
        match state.phase {
            _ if !batch.is_empty() => Next::Batch(batch),
            Phase::Open => Next::Idle,
            Phase::Closed | Phase::Failed(_) => Next::Closed,
        }
    }

    /// Gives back the bytes of requests that were answered.
    pub(super) fn settle(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Takes no more requests; those that wait are still committed.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closed;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Refuses all that waits and all that will come.
    pub(super) fn fail(&self, cause: &str) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Failed(_)) {
            state.phase = Phase::Failed(cause.to_owned());
        }
        let waiting = std::mem::take(&mut state.waiting);
        state.bytes = 0;
        drop(state);
        self.changed.notify_all();
        waiting.into_iter().for_each(|request| request.answer(Err(LogError::Failed(cause.to_owned()))));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::RecordKind;

    fn request(payload_bytes: usize) -> Request {
        Request::new(Source(0), vec![NewRecord::new(RecordKind::Json, vec![0; payload_bytes])]).0
    }

    fn taken(queue: &Queue, bytes_max: usize) -> usize {
        match queue.take(bytes_max, Duration::ZERO) {
            Next::Batch(batch) => {
                queue.settle(batch.iter().map(|request| request.bytes).sum());
                batch.len()
            }
            Next::Idle | Next::Closed => 0,
        }
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_an_empty_one_takes_anything() {
        let queue = Queue::new(1_000);
        queue.push(request(5_000)).unwrap();
        assert!(matches!(queue.push(request(1)), Err(LogError::Busy { waiting_bytes }) if waiting_bytes == 5_000 + RECORD_OVERHEAD_BYTES));
        assert_eq!(taken(&queue, 10_000), 1);
        queue.push(request(300)).unwrap();
        queue.push(request(300)).unwrap();
        assert!(matches!(queue.push(request(300)), Err(LogError::Busy { .. })));
    }

    #[test]
    fn what_is_being_committed_counts_as_waiting() {
        let queue = Queue::new(1_000);
        queue.push(request(800)).unwrap();
        let Next::Batch(batch) = queue.take(10_000, Duration::ZERO) else { panic!("there was one") };
        assert!(matches!(queue.push(request(800)), Err(LogError::Busy { .. })));
        queue.settle(batch[0].bytes);
        queue.push(request(800)).unwrap();
    }

    #[test]
    fn a_batch_is_bounded_and_holds_at_least_one() {
        let queue = Queue::new(1_000_000);
        (0..5).for_each(|_| queue.push(request(1_000)).unwrap());
        assert_eq!([taken(&queue, 2_500), taken(&queue, 1), taken(&queue, 10_000), taken(&queue, 1)], [2, 1, 2, 0]);
    }

    #[test]
    fn closing_keeps_what_waits_and_failing_refuses_it() {
        let queue = Queue::new(1_000_000);
        queue.push(request(1)).unwrap();
        queue.close();
        assert!(matches!(queue.push(request(1)), Err(LogError::Failed(_))));
        assert_eq!(taken(&queue, 1), 1);
        assert!(matches!(queue.take(1, Duration::from_secs(60)), Next::Closed));

        let queue = Queue::new(1_000_000);
        let (waiting, mut answer) = Request::new(Source(0), vec![NewRecord::tick()]);
        queue.push(waiting).unwrap();
        queue.fail("disk full");
        assert!(matches!(answer.try_recv(), Ok(Err(LogError::Failed(cause))) if cause == "disk full"));
        assert!(matches!(queue.push(request(1)), Err(LogError::Failed(cause)) if cause == "disk full"));
    }
}
