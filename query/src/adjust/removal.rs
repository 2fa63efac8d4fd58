//! All that a video counts in a range, in one source: whatever of it is still kept by minute. Pure.
//!
//! Minutes and hours are kept for a time, days for ever. What is kept by minute is removed minute by minute. Of an hour whose minutes have
//! gone there is only the whole; it is removed at its first minute, where an adjustment changes no minute any more but the hour, the day and
//! the year (a change to a bucket whose time to live has passed skips that tier). So with days whose hours have gone.
//!
//! ```text
//! days ........ | hours ........ | minutes ........ now
//!               oldest hour      oldest minute
//! ```

use std::collections::BTreeMap;

use schemas::{Bucket, Counts, Minute, Tier};
use thiserror::Error;

use crate::plan::Kept;

/// The stored cells of one video and one source, by tier, where they hold anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) minutes: BTreeMap<Minute, Counts>,
    pub(super) hours: BTreeMap<Minute, Counts>,
    pub(super) days: BTreeMap<Minute, Counts>,
}

/// The range begins or ends within a bucket of which only the whole is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("of {start} to {end} only the whole is kept; begin or end the range there, not between")]
pub(super) struct Torn {
    pub(super) start: Minute,
    pub(super) end: Minute,
}

/// What there is in `[start, end)`, by the minutes at which it is to be removed.
pub(super) fn all_of(held: &Held, start: Minute, end: Minute, kept: &Kept<'_>) -> Result<Vec<(Minute, Counts)>, Torn> {
    let (by_minute, by_hour) = (kept.oldest(Tier::Minute), kept.oldest(Tier::Hour));
    let mut found: BTreeMap<Minute, Counts> = BTreeMap::new();
    let mut add = |at: Minute, counts: Counts| {
        let counts = at_least_zero(counts);
        if counts != Counts::ZERO {
            *found.entry(at).or_default() += counts;
        }
    };
    let is_in = |part: Part| part.of(start, end);
    for (at, counts) in held.minutes.range(start.max(by_minute)..end.max(start.max(by_minute))) {
        add(*at, *counts);
    }
    let minutes_of = |from: Minute, to: Minute| sum(&held.minutes, from.max(by_minute), to);
    for (at, counts) in held.hours.range(by_hour..by_minute.max(by_hour)) {
        let hour = Bucket { tier: Tier::Hour, start: *at };
        let rest = *counts - minutes_of(*at, hour.end());
        if at_least_zero(rest) != Counts::ZERO && is_in(Part { start: *at, end: hour.end().min(by_minute) })? {
            add(*at, rest);
        }
    }
    let gone = by_minute.min(by_hour);
    for (at, counts) in held.days.range(..gone) {
        let day = Bucket { tier: Tier::Day, start: *at };
        // Hours hold their minutes; of hours that have gone there may be minutes, if those are kept for longer.
        let hours = sum(&held.hours, (*at).max(by_hour), day.end());
        let minutes = minutes_of(*at, day.end().min(by_hour));
        let rest = *counts - hours - minutes;
        if at_least_zero(rest) != Counts::ZERO && is_in(Part { start: *at, end: day.end().min(gone) })? {
            add(*at, rest);
        }
    }
    Ok(found.into_iter().collect())
}

/// A part of time of which only the whole is known.
#[derive(Clone, Copy)]
struct Part {
    start: Minute,
    end: Minute,
}

impl Part {
    /// Whether it lies in the range; an error if it lies in it in part.
    fn of(self, start: Minute, end: Minute) -> Result<bool, Torn> {
        if end <= self.start || self.end <= start {
            return Ok(false);
        }
        if start <= self.start && self.end <= end { Ok(true) } else { Err(Torn { start: self.start, end: self.end }) }
    }
}

fn sum(cells: &BTreeMap<Minute, Counts>, from: Minute, to: Minute) -> Counts {
    if from >= to {
        return Counts::ZERO;
    }
    cells.range(from..to).fold(Counts::ZERO, |sum, (_, counts)| sum + *counts)
}

/// Damage may leave a sum that is larger than its whole.
fn at_least_zero(counts: Counts) -> Counts {
    Counts { gross: counts.gross.max(0), valid: counts.valid.max(0), engaged: counts.engaged.max(0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{FoldSettings, Millis};

    use super::*;

    /// Minutes since 1970 that all this happens in: three days.
    const SPAN: i32 = 3 * 1_440;

    fn views(n: i64) -> Counts {
        Counts { gross: n, valid: n, engaged: 0 }
    }

    /// What a store holds of events when some of it has gone.
    fn held(events: &BTreeMap<Minute, Counts>, kept: &Kept<'_>) -> Held {
        let tier = |tier: Tier| {
            let mut cells: BTreeMap<Minute, Counts> = BTreeMap::new();
            for (at, counts) in events {
                *cells.entry(tier.bucket(*at).start).or_default() += *counts;
            }
            cells.split_off(&kept.oldest(tier))
        };
        Held { minutes: tier(Tier::Minute), hours: tier(Tier::Hour), days: tier(Tier::Day) }
    }

    /// The same after an adjustment, by the rule of the fold: a change skips tiers whose time has passed.
    fn after(mut held: Held, removed: &[(Minute, Counts)], kept: &Kept<'_>) -> Held {
        for (at, counts) in removed {
            for (tier, cells) in [(Tier::Minute, &mut held.minutes), (Tier::Hour, &mut held.hours), (Tier::Day, &mut held.days)] {
                let bucket = tier.bucket(*at);
                if !bucket.is_expired(kept.clock, kept.settings.ttl_ms(tier)) {
                    *cells.entry(bucket.start).or_default() += -*counts;
                }
            }
        }
        held
    }

    fn settings(minute_ttl: i64, hour_ttl: i64) -> FoldSettings {
        FoldSettings { minute_ttl_ms: minute_ttl * 60_000, hour_ttl_ms: hour_ttl * 60_000, ..FoldSettings::default() }
    }

    #[test]
    fn what_is_known_only_whole_is_removed_whole_or_not_at_all() {
        let settings = settings(60, 0);
        let kept = Kept { settings: &settings, clock: Minute(190).start() };
        let events = BTreeMap::from([(Minute(5), views(1)), (Minute(125), views(2)), (Minute(135), views(4))]);
        let held = held(&events, &kept);
        // Minutes are kept from 130 on.
        assert_eq!(held.minutes.keys().collect::<Vec<_>>(), [&Minute(135)]);
        let all = all_of(&held, Minute::MIN, Minute(200), &kept).unwrap();
        assert_eq!(all, [(Minute(0), views(1)), (Minute(120), views(2)), (Minute(135), views(4))]);
        assert_eq!(all_of(&held, Minute(130), Minute(200), &kept).unwrap(), [(Minute(135), views(4))]);
        assert_eq!(all_of(&held, Minute(120), Minute(130), &kept).unwrap(), [(Minute(120), views(2))]);
        assert_eq!(all_of(&held, Minute(60), Minute(126), &kept), Err(Torn { start: Minute(120), end: Minute(130) }));
        assert_eq!(all_of(&held, Minute(30), Minute(120), &kept), Err(Torn { start: Minute(0), end: Minute(60) }));
        assert_eq!(all_of(&held, Minute(61), Minute(119), &kept).unwrap(), [], "what holds nothing is not torn");
    }

    proptest! {
        #[test]
        fn all_that_is_removed_leaves_nothing_in_any_tier(
            events in proptest::collection::btree_map(0..SPAN, 1i64..9, 0..40),
            clock in 0..SPAN + 500, minute_ttl in prop_oneof![Just(0i64), 1i64..3_000], hour_ttl in prop_oneof![Just(0i64), 60i64..4_000],
        ) {
            let settings = settings(minute_ttl, hour_ttl);
            let kept = Kept { settings: &settings, clock: Millis(i64::from(clock) * 60_000) };
            let events: BTreeMap<Minute, Counts> = events.into_iter().map(|(at, n)| (Minute(at), views(n))).collect();
            let held = held(&events, &kept);
            let removed = all_of(&held, Minute::MIN, Minute(SPAN), &kept).unwrap();
            let total = removed.iter().fold(Counts::ZERO, |sum, (_, counts)| sum + *counts);
            prop_assert_eq!(total, events.values().fold(Counts::ZERO, |sum, counts| sum + *counts));
            let Held { minutes, hours, days } = after(held, &removed, &kept);
            prop_assert!(minutes.values().chain(hours.values()).chain(days.values()).all(|counts| *counts == Counts::ZERO));
        }

        #[test]
        fn a_range_takes_what_is_in_it_and_leaves_the_rest(
            events in proptest::collection::btree_map(0..SPAN, 1i64..9, 0..40),
            range in (0..SPAN, 0..SPAN), clock in 0..SPAN + 500, minute_ttl in prop_oneof![Just(0i64), 1i64..3_000],
        ) {
            let settings = settings(minute_ttl, 0);
            let kept = Kept { settings: &settings, clock: Millis(i64::from(clock) * 60_000) };
            let events: BTreeMap<Minute, Counts> = events.into_iter().map(|(at, n)| (Minute(at), views(n))).collect();
            let (start, end) = (Minute(range.0.min(range.1)), Minute(range.0.max(range.1)));
            if let Ok(removed) = all_of(&held(&events, &kept), start, end, &kept) {
                let total = removed.iter().fold(Counts::ZERO, |sum, (_, counts)| sum + *counts);
                prop_assert_eq!(total, sum(&events, start, end));
            }
        }
    }
}
