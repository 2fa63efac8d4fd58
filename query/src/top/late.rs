//! Which days late changes have touched, from the store's announcements: whether sums that were made earlier still hold. Pure.
//!
//! A change is announced after its rows can be read. So what is read after the announcements were, holds every change that they do not
//! show; and sums hold as long as no later look shows a new version for one of their days.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aggregator::Touched;
use aggregator::store::TOUCHED_TTL_S;
use schemas::{Millis, Minute, Offset, Source};

/// Announcements last for [`TOUCHED_TTL_S`]; two looks further apart than half of that may have missed one.
const LONGEST_BLINK: Duration = Duration::from_secs(TOUCHED_TTL_S.unsigned_abs() as u64 / 2);
/// A day that was touched in the last ten minutes is likely to be touched again.
const RESTLESS_MS: i64 = 600_000;
const DAY_MINUTES: i32 = 1_440;

/// The UTC day that holds a minute, counted from 1970.
pub(crate) const fn day_of(minute: Minute) -> i32 {
    minute.0.div_euclid(DAY_MINUTES)
}

/// What was announced when one looked.
#[derive(Clone, Debug)]
pub(crate) struct LateChanges {
    at: Instant,
    seen: BTreeMap<(Source, i32), Touched>,
}

impl LateChanges {
    /// What was read at a moment; the reading began after it.
    pub(crate) fn read(at: Instant, touched: &[(Source, Touched)]) -> Self {
        Self { at, seen: touched.iter().map(|(source, touched)| ((*source, touched.day), *touched)).collect() }
    }

    /// Whether no change of any of `days` has been announced between an earlier look and this one, for certain.
    pub(crate) fn none_since(&self, earlier: &Self, days: impl Fn(i32) -> bool) -> bool {
        let version = |changes: &Self, key| changes.seen.get(key).map_or(Offset(0), |touched| touched.version);
        let mut concerned = self.seen.iter().filter(|((_, day), _)| *day == Touched::ALL || days(*day));
        self.at.saturating_duration_since(earlier.at) < LONGEST_BLINK
            && concerned.all(|(key, touched)| touched.version <= version(earlier, key))
    }

    /// Whether a day has been touched lately, by the log's `clock`.
    pub(crate) fn is_restless(&self, day: i32, clock: Millis) -> bool {
        let since_us = clock.plus(-RESTLESS_MS).0.saturating_mul(1_000);
        self.seen.values().any(|touched| (touched.day == day || touched.day == Touched::ALL) && touched.stamp.0 > since_us)
    }
}

#[cfg(test)]
mod tests {
    use schemas::Stamp;

    use super::*;

    fn looks(at: Instant, touched: &[(u32, i32, u64)]) -> LateChanges {
        let touched: Vec<_> = touched
            .iter()
            .map(|(source, day, version)| (Source(*source), Touched { day: *day, version: Offset(*version), stamp: Stamp(1_000_000_000) }))
            .collect();
        LateChanges::read(at, &touched)
    }

    #[test]
    fn sums_hold_until_one_of_their_days_is_touched() {
        let begun = Instant::now();
        let before = looks(begun, &[(0, 5, 10)]);
        let day_5 = |day| day == 5;
        for (seconds, now, hold) in [
            (1, vec![], true),
            (1, vec![(0, 5, 10)], true),
            (1, vec![(0, 5, 11)], false),
            (1, vec![(0, 6, 11)], true),
            (1, vec![(1, 5, 3)], false),
            (1, vec![(0, 5, 10), (0, Touched::ALL, 3)], false),
            (299, vec![(0, 5, 10)], true),
            (300, vec![(0, 5, 10)], false),
        ] {
            assert_eq!(looks(begun + Duration::from_secs(seconds), &now).none_since(&before, day_5), hold, "{seconds} {now:?}");
        }
    }

    #[test]
    fn a_day_comes_to_rest_ten_minutes_after_it_was_touched() {
        let (one, all) = (looks(Instant::now(), &[(0, 5, 10)]), looks(Instant::now(), &[(0, Touched::ALL, 10)]));
        let stamp_ms = 1_000_000;
        assert!(one.is_restless(5, Millis(stamp_ms + 599_999)) && !one.is_restless(5, Millis(stamp_ms + 600_000)));
        assert!(!one.is_restless(6, Millis(stamp_ms)) && all.is_restless(6, Millis(stamp_ms)));
    }
}
