//! Waking readers: a count that rises whenever a partition's queue stops being empty.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;

/// Counts arrivals, from 1.
pub(super) struct Growth {
    arrivals: Mutex<u64>,
    grew: Condvar,
}

impl Growth {
    pub(super) const fn new() -> Self {
        Self { arrivals: Mutex::new(1), grew: Condvar::new() }
    }

    /// Called by librdkafka's threads with one of their locks held: it must do nothing slow.
    pub(super) fn grow(&self) {
        *lock(&self.arrivals) += 1;
        self.grew.notify_all();
    }

    pub(super) fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let arrivals = lock(&self.arrivals);
        let same = |arrivals: &mut u64| *arrivals == seen;
        let (arrivals, _) = self.grew.wait_timeout_while(arrivals, timeout, same).unwrap_or_else(PoisonError::into_inner);
        *arrivals
    }
}
