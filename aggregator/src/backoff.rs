//! How long to wait before a failed write or load is tried again: exponential, capped, with full jitter.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// The wait before try `attempt` (from 1); `jitter` in `[0, 1)` spreads owners that failed together.
///
/// At least half of the step is always waited, so that a store that is down is not hammered.
pub fn delay(attempt: u32, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let step = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    step.mul_f64(jitter.clamp(0.0, 1.0).mul_add(0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_50_ms_to_5_s_and_jitters_down_to_half() {
        let full = |attempt| delay(attempt, 1.0).as_millis();
        assert_eq!([1, 2, 3, 7, 8, 100].map(full), [50, 100, 200, 3_200, 5_000, 5_000]);
        assert_eq!(delay(1, 0.0).as_millis(), 25);
        assert_eq!(delay(u32::MAX, 0.0).as_millis(), 2_500);
    }
}
