//! When to send a request again: exponential backoff with full jitter that honours `Retry-After`.
//!
//! Pure: randomness is an argument. The formula is "full jitter" of the AWS Architecture Blog's *Exponential Backoff
//! And Jitter* (2015): a uniform part of a ceiling that doubles. A server's own wish is a floor under it.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(50);
const CEILING: Duration = Duration::from_secs(5);

/// How long to wait before try `attempt + 1`, when try `attempt` (from 0) failed. `random` is any number.
pub(crate) fn delay(attempt: u32, retry_after: Option<Duration>, random: u64) -> Duration {
    let ceiling = BASE.saturating_mul(1 << attempt.min(20)).min(CEILING);
    let ceiling_us = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
    let jitter = Duration::from_micros(random % ceiling_us.saturating_add(1));
    retry_after.unwrap_or_default().saturating_add(jitter)
}

/// Whether the same request may succeed later.
pub(crate) const fn may_succeed_later(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_a_random_part_of_a_ceiling_that_doubles_to_5_s() {
        let longest = |attempt, ceiling_us: u64| delay(attempt, None, ceiling_us);
        for (attempt, ceiling_ms) in [(0, 50), (1, 100), (2, 200), (3, 400), (6, 3_200), (7, 5_000), (8, 5_000), (1_000, 5_000)] {
            assert_eq!(longest(attempt, ceiling_ms * 1_000), Duration::from_millis(ceiling_ms), "try {attempt}");
            assert_eq!(delay(attempt, None, 0), Duration::ZERO);
            assert!(delay(attempt, None, u64::MAX) <= Duration::from_millis(ceiling_ms));
        }
    }

    #[test]
    fn the_servers_wish_is_a_floor() {
        assert_eq!(delay(0, Some(Duration::from_secs(2)), 0), Duration::from_secs(2));
        assert!(delay(3, Some(Duration::from_secs(2)), 12_345) > Duration::from_secs(2));
    }

    #[test]
    fn only_refusals_that_pass_are_tried_again() {
        for (status, again) in [(200, false), (202, false), (400, false), (413, false), (404, false), (429, true), (503, true), (502, true)]
        {
            assert_eq!(may_succeed_later(status), again, "{status}");
        }
    }
}
