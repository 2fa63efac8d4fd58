//! Lets as many requests run at once as the cluster bears, and hears from each how it went.
//!
//! Jobs come from one call and share the gate with all other calls of the process. When a job fails, its call starts no other, waits for
//! those that run (they load the cluster until they end), and fails.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;

use super::error::Failure;
use super::limit::Limit;
use crate::store::StoreError;

/// The gate of one kind of request.
pub(super) struct Gate {
    state: Mutex<State>,
    /// There may be room for one more.
    room: Notify,
}

struct State {
    limit: Limit,
    running: u32,
}

impl Gate {
    pub(super) fn new(limit: Limit) -> Self {
        Self { state: Mutex::new(State { limit, running: 0 }), room: Notify::new() }
    }

    /// So many requests may run now.
    pub(super) fn limit(&self) -> u32 {
        self.state().limit.current()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self) -> Permit<'_> {
        loop {
            {
                let mut state = self.state();
                if state.running < state.limit.current() {
                    state.running += 1;
                    if state.running < state.limit.current() {
                        self.room.notify_one();
                    }
                    return Permit { gate: self, started: Instant::now() };
                }
            }
            self.room.notified().await;
        }
    }

    /// Runs every job, as many at once as there is room for, and returns their results in the jobs' order.
    ///
    /// # Errors
    /// The first that failed.
    pub(super) async fn run<J, T, F>(&self, jobs: impl IntoIterator<Item = J>, work: impl Fn(J) -> F) -> Result<Vec<T>, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut jobs = jobs.into_iter().enumerate();
        let mut next = jobs.next();
        let (mut running, mut done, mut failed) = (FuturesUnordered::new(), Vec::new(), None);
        loop {
            tokio::select! {
                biased;
                Some((n, outcome)) = running.next(), if !running.is_empty() => match outcome {
                    Ok(result) => done.push((n, result)),
                    Err(error) => {
                        failed.get_or_insert(error);
                        next = None;
                    }
                },
                permit = self.enter(), if next.is_some() => {
                    if let Some((n, job)) = next.take() {
                        let working = work(job);
                        running.push(async move { (n, permit.leave(working.await)) });
                        next = jobs.next();
                    }
                }
                else => break,
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        done.sort_unstable_by_key(|(n, _)| *n);
        Ok(done.into_iter().map(|(_, result)| result).collect())
    }
}

/// The right to have one request under way. Dropped without [`Permit::leave`], it says nothing of the cluster.
struct Permit<'a> {
    gate: &'a Gate,
    started: Instant,
}

impl Permit<'_> {
    fn leave<T>(self, outcome: Result<T, Failure>) -> Result<T, StoreError> {
        let mut state = self.gate.state();
        let running = state.running;
        match &outcome {
            Ok(_) => state.limit.succeeded(self.started, running),
            Err(failure) if failure.overload => state.limit.overloaded(self.started, Instant::now()),
            Err(_) => {}
        }
        drop(state);
        outcome.map_err(|failure| failure.error)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.gate.state().running -= 1;
        self.gate.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn failure(overload: bool) -> Failure {
        Failure { error: StoreError::Unavailable("no".into()), overload }
    }

    #[tokio::test]
    async fn results_come_in_order_and_never_more_run_than_the_limit_lets() {
        let gate = Gate::new(Limit::new(3, 3));
        let (running, most) = (AtomicU32::new(0), AtomicU32::new(0));
        let work = async |n: u32| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..(n % 7) {
                tokio::task::yield_now().await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(n)
        };
        let (a, b) = tokio::join!(gate.run(0..100, work), gate.run(100..200, work));
        assert_eq!(a.unwrap().into_iter().chain(b.unwrap()).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn after_a_failure_nothing_more_is_started_and_the_limit_is_halved_by_overload_alone() {
        for (overload, limit) in [(true, 2), (false, 4)] {
            let gate = Gate::new(Limit::new(4, 4));
            let started = AtomicU32::new(0);
            let outcome = gate
                .run(0..1_000, async |n: u32| {
                    started.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    if n == 10 { Err(failure(overload)) } else { Ok(()) }
                })
                .await;
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))));
            assert!((11..20).contains(&started.load(Ordering::SeqCst)), "{started:?}");
            assert_eq!((gate.limit(), gate.state().running), (limit, 0));
        }
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_its_room_to_others() {
        let gate = Gate::new(Limit::new(1, 1));
        {
            let mut stuck = std::pin::pin!(gate.run(0..2, |_| std::future::pending::<Result<(), Failure>>()));
            assert!(futures_util::poll!(stuck.as_mut()).is_pending());
            assert_eq!(gate.state().running, 1);
        }
        assert_eq!(gate.run(0..5, async |n: u32| Ok(n)).await.unwrap(), [0, 1, 2, 3, 4]);
    }
}
