//! When to send: how many requests at once while all is well, and one at a time, later and later, while it is not. Pure.
//!
//! The wait is exponential with "full jitter" (AWS Architecture Blog, *Exponential Backoff And Jitter*, 2015): a uniform part
//! of a ceiling that doubles. What the server asks for with `Retry-After` is a floor under it, so that a thousand processes
//! that were told the same second do not come back in the same millisecond.

use std::time::{Duration, Instant};

/// A server's wish is followed for so long at most: none may silence a producer for good.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// How long to wait after the `attempt`th failure in a row (from 0). `random` is any number.
    pub(crate) fn wait(&self, attempt: u32, retry_after: Option<Duration>, random: u64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << attempt.min(20)).min(self.longest);
        let ceiling_us = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        let jitter = Duration::from_micros(random % ceiling_us.saturating_add(1));
        retry_after.unwrap_or_default().min(MAX_RETRY_AFTER).saturating_add(jitter)
    }
}

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// When one that is under way has ended.
    Busy,
    Until(Instant),
}

#[derive(Debug)]
pub(crate) struct Pace {
    backoff: Backoff,
    max_in_flight: usize,
    failures: u32,
    not_before: Option<Instant>,
    last_failure: Option<Instant>,
}

impl Pace {
    pub(crate) const fn new(backoff: Backoff, max_in_flight: usize) -> Self {
        Self { backoff, max_in_flight, failures: 0, not_before: None, last_failure: None }
    }

    pub(crate) fn gate(&self, now: Instant, in_flight: usize) -> Gate {
        match self.not_before {
            Some(at) if at > now => Gate::Until(at),
            // One request finds out whether it works again.
            _ if self.failures > 0 && in_flight > 0 => Gate::Busy,
            _ if in_flight >= self.max_in_flight => Gate::Busy,
            _ => Gate::Open,
        }
    }

    /// A request that began at `begun` failed; how long nothing is sent now.
    ///
    /// Requests that were under way together fail together: that is one failure.
    pub(crate) fn failed(&mut self, begun: Instant, now: Instant, retry_after: Option<Duration>, random: u64) -> Duration {
        let is_news = self.last_failure.is_none_or(|last| begun >= last);
        let attempt = if is_news { self.failures } else { self.failures.saturating_sub(1) };
        let until = now + self.backoff.wait(attempt, retry_after, random);
        if is_news {
            self.failures = self.failures.saturating_add(1);
            self.last_failure = Some(now);
        }
        let until = self.not_before.map_or(until, |before| before.max(until));
        self.not_before = Some(until);
        until.saturating_duration_since(now)
    }

    /// A request that began at `begun` was answered as it should. What began before the last failure says nothing about now.
    pub(crate) fn succeeded(&mut self, begun: Instant) {
        if self.last_failure.is_none_or(|last| begun >= last) {
            (self.failures, self.not_before, self.last_failure) = (0, None, None);
        }
    }

    /// How many failures there were since the last success.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(30) };

    #[test]
    fn the_wait_is_a_random_part_of_a_ceiling_that_doubles() {
        for (attempt, ceiling_ms) in [(0, 100), (1, 200), (2, 400), (8, 25_600), (9, 30_000), (1_000, 30_000)] {
            assert_eq!(BACKOFF.wait(attempt, None, ceiling_ms * 1_000), Duration::from_millis(ceiling_ms), "failure {attempt}");
            assert_eq!(BACKOFF.wait(attempt, None, 0), Duration::ZERO);
            assert!(BACKOFF.wait(attempt, None, u64::MAX) <= Duration::from_millis(ceiling_ms));
        }
    }

    #[test]
    fn the_servers_wish_is_a_floor_of_an_hour_at_most() {
        let second = Duration::from_secs(1);
        assert_eq!(BACKOFF.wait(0, Some(second), 0), second);
        assert!(BACKOFF.wait(3, Some(second), 12_345) > second);
        assert_eq!(BACKOFF.wait(0, Some(Duration::from_secs(1 << 40)), 0), MAX_RETRY_AFTER);
    }

    #[test]
    fn after_a_failure_one_request_at_a_time_tries_until_one_succeeds() {
        let (start, mut pace) = (Instant::now(), Pace::new(BACKOFF, 4));
        assert_eq!((pace.gate(start, 3), pace.gate(start, 4)), (Gate::Open, Gate::Busy));
        let wait = pace.failed(start, start, None, 50_000);
        let later = start + wait;
        assert_eq!((wait.as_millis(), pace.gate(start, 0)), (50, Gate::Until(later)));
        assert_eq!((pace.gate(later, 0), pace.gate(later, 1)), (Gate::Open, Gate::Busy));
        pace.succeeded(later);
        assert_eq!((pace.gate(later, 3), pace.failures()), (Gate::Open, 0));
    }

    #[test]
    fn requests_that_fail_together_are_one_failure_and_the_longest_wait_holds() {
        let (start, mut pace) = (Instant::now(), Pace::new(BACKOFF, 4));
        let now = start + Duration::from_millis(1);
        pace.failed(start, now, Some(Duration::from_secs(2)), 0);
        pace.failed(start, now, None, 0);
        pace.failed(start, now, None, 0);
        assert_eq!((pace.failures(), pace.gate(now, 0)), (1, Gate::Until(now + Duration::from_secs(2))));
        pace.succeeded(start);
        assert_eq!(pace.failures(), 1, "a success from before the failure is no news");
        pace.failed(now, now, None, 0);
        assert_eq!(pace.failures(), 2);
    }
}
