//! What a client's wrong clock is corrected by. Pure.
//!
//! ```text
//! client's clock   ts ........ sent_at
//! our clock                    received      skew = received - sent_at; corrected ts = ts + skew
//! ```
//!
//! The client says when it sent this very attempt by the clock that its events were stamped with. What lies between that and the
//! arrival here is its clock's error and the way of the request, so a small difference is left alone: correcting it would only add
//! the network's noise. Each attempt says its own time, so the events of a retry are corrected by the retry's difference. A request
//! that was under way for long is taken for one of a slow clock: its events are then late by that time too much.

use schemas::{Millis, time};

/// A difference up to this is the way of the request, and clocks as good as they are.
pub const TOLERANCE_MS: i64 = 2_000;

/// By how much to move the events of a request: 0 if its client's clock is right.
///
/// ```
/// use ingest::collect::skew::skew_ms;
/// use schemas::Millis;
/// assert_eq!(skew_ms(Millis(1_763_642_100_000), Millis(1_763_642_098_000)), 0);
/// assert_eq!(skew_ms(Millis(1_763_642_100_000), Millis(1_763_638_500_000)), 3_600_000);
/// ```
pub const fn skew_ms(received: Millis, sent_at: Millis) -> i64 {
    let skew_ms = received.since(sent_at);
    if skew_ms.saturating_abs() > TOLERANCE_MS { skew_ms } else { 0 }
}

/// An event's instant by our clock. One that would leave the years that can be written stays as it is.
pub fn corrected(ts: Millis, skew_ms: i64) -> Millis {
    let moved = ts.plus(skew_ms);
    if (time::MIN_MILLIS..=time::MAX_MILLIS).contains(&moved) { moved } else { ts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::time::{MAX_MILLIS, MIN_MILLIS};

    const NOW: i64 = 1_763_642_100_000;

    #[test]
    fn a_clock_is_corrected_beyond_two_seconds_either_way() {
        for (sent_at, skew) in [
            (NOW, 0),
            (NOW - 2_000, 0),
            (NOW + 2_000, 0),
            (NOW - 2_001, 2_001),
            (NOW + 2_001, -2_001),
            (NOW + 86_400_000, -86_400_000),
            (100_000_000_000, NOW - 100_000_000_000),
            (i64::MAX, NOW - i64::MAX),
            (i64::MIN, i64::MAX),
        ] {
            assert_eq!(skew_ms(Millis(NOW), Millis(sent_at)), skew, "{sent_at}");
        }
    }

    #[test]
    fn an_event_is_moved_by_the_difference_and_never_out_of_time() {
        for (ts, skew, expected) in [
            (NOW, 0, NOW),
            (NOW - 5_000, 3_600_000, NOW + 3_595_000),
            (NOW, -3_600_000, NOW - 3_600_000),
            (MAX_MILLIS.0, 1, MAX_MILLIS.0),
            (MAX_MILLIS.0, -1, MAX_MILLIS.0 - 1),
            (MIN_MILLIS.0, -1, MIN_MILLIS.0),
            (NOW, i64::MAX, NOW),
            (NOW, i64::MIN, NOW),
        ] {
            assert_eq!(corrected(Millis(ts), skew), Millis(expected), "{ts} {skew}");
        }
    }
}
