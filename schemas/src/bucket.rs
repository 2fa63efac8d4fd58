//! Bucket arithmetic: aligned, half-open intervals of event time in UTC, for any minute from year 1 to 6053.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::time::Millis;

const MS_PER_MINUTE: i64 = 60_000;
const MINUTES_PER_HOUR: i32 = 60;
const MINUTES_PER_DAY: i32 = 1_440;

/// The start of a minute: whole minutes since 1970-01-01T00:00Z, negative before.
///
/// An `i32` reaches from 2114 BC to 6053 AD. Later instants saturate; they are far beyond
/// [`max_skew`](crate::FoldSettings::max_skew_ms) of any log clock, so the fold refuses them before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Minute(pub i32);

impl Minute {
    /// Before every minute: the watermark of a source that has closed nothing.
    pub const NEVER: Self = Self(i32::MIN);
    /// 0001-01-01T00:00Z, the earliest minute that can be asked for.
    pub const MIN: Self = Self(-1_035_593_280);
    /// 6000-01-01T00:00Z, the end of what can be asked for.
    pub const MAX: Self = Self(2_119_574_880);

    /// The minute that holds `at`.
    ///
    /// ```
    /// use schemas::{Millis, Minute};
    /// assert_eq!(Minute::of(Millis(59_999)), Minute(0));
    /// assert_eq!(Minute::of(Millis(-1)), Minute(-1));
    /// ```
    pub fn of(at: Millis) -> Self {
        let minutes = at.0.div_euclid(MS_PER_MINUTE);
        Self(i32::try_from(minutes).unwrap_or(if minutes < 0 { i32::MIN } else { i32::MAX }))
    }

    /// The first instant of this minute; [`Millis::NEVER`] for [`Minute::NEVER`].
    pub fn start(self) -> Millis {
        if self == Self::NEVER { Millis::NEVER } else { Millis(i64::from(self.0) * MS_PER_MINUTE) }
    }

    /// This minute moved by whole minutes, saturating; [`Minute::NEVER`] stays itself.
    #[must_use]
    pub const fn plus(self, minutes: i32) -> Self {
        if self.0 == i32::MIN { self } else { Self(self.0.saturating_add(minutes)) }
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER { f.write_str("never") } else { self.start().fmt(f) }
    }
}

/// The length of a bucket. The order is fine to coarse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Tier {
    /// One minute, the unit in which events are counted.
    Minute = 0,
    /// One hour.
    Hour = 1,
    /// One UTC day.
    Day = 2,
    /// One UTC calendar year.
    Year = 3,
}

impl Tier {
    /// Every tier, fine to coarse.
    pub const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::Year];
    /// The tiers that minutes are rolled up into.
    pub const ROLLUPS: [Self; 3] = [Self::Hour, Self::Day, Self::Year];

    /// The code in stored keys.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The tier of a stored code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Minute),
            1 => Some(Self::Hour),
            2 => Some(Self::Day),
            3 => Some(Self::Year),
            _ => None,
        }
    }

    /// The bucket of this tier that holds `minute`. Saturates at the ends of [`Minute`].
    pub fn bucket(self, minute: Minute) -> Bucket {
        let start = match self {
            Self::Minute => minute,
            Self::Hour => floor(minute, MINUTES_PER_HOUR),
            Self::Day => floor(minute, MINUTES_PER_DAY),
            Self::Year => year_start(year_of(minute)),
        };
        Bucket { tier: self, start }
    }
}

/// The interval `[start, end)` of one tier that is aligned to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Its length.
    pub tier: Tier,
    /// Its first minute.
    pub start: Minute,
}

impl Bucket {
    /// The first minute after it.
    pub fn end(self) -> Minute {
        match self.tier {
            Tier::Minute => self.start.plus(1),
            Tier::Hour => self.start.plus(MINUTES_PER_HOUR),
            Tier::Day => self.start.plus(MINUTES_PER_DAY),
            Tier::Year => year_start(year_of(self.start) + 1),
        }
    }

    /// The bucket after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self { tier: self.tier, start: self.end() }
    }

    /// Whether `start` is where a bucket of `tier` begins.
    pub fn is_aligned(tier: Tier, start: Minute) -> bool {
        tier.bucket(start).start == start
    }

    /// Whether its time to live has passed when the clock stands at `clock`. `ttl_ms` 0 keeps it for ever.
    pub fn is_expired(self, clock: Millis, ttl_ms: i64) -> bool {
        ttl_ms > 0 && self.end().start().plus(ttl_ms) <= clock
    }
}

fn floor(minute: Minute, unit: i32) -> Minute {
    Minute(minute.0.saturating_sub(minute.0.rem_euclid(unit)))
}

fn year_of(minute: Minute) -> i32 {
    DateTime::from_timestamp_secs(i64::from(minute.0) * 60).map_or(0, |at| at.year())
}

fn year_start(year: i32) -> Minute {
    let days = NaiveDate::from_ymd_opt(year, 1, 1).map_or(0, |date| i64::from(date.to_epoch_days()));
    let minutes = days * i64::from(MINUTES_PER_DAY);
    Minute(i32::try_from(minutes).unwrap_or(if minutes < 0 { i32::MIN } else { i32::MAX }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn minute(text: &str) -> Minute {
        Minute::of(Millis::parse_rfc3339(text).unwrap())
    }

    #[test]
    fn the_named_ends_are_what_they_say() {
        assert_eq!(Minute::MIN, minute("0001-01-01T00:00:00Z"));
        assert_eq!(Minute::MAX, minute("6000-01-01T00:00:00Z"));
        assert_eq!(Minute::of(crate::time::MAX_MILLIS), Minute(i32::MAX));
    }

    #[test]
    fn buckets_of_a_late_evening() {
        let at = minute("2024-02-29T23:59:30Z");
        let start = |tier: Tier| tier.bucket(at).start.to_string();
        assert_eq!(start(Tier::Minute), "2024-02-29T23:59:00Z");
        assert_eq!(start(Tier::Hour), "2024-02-29T23:00:00Z");
        assert_eq!(start(Tier::Day), "2024-02-29T00:00:00Z");
        assert_eq!(start(Tier::Year), "2024-01-01T00:00:00Z");
        assert_eq!(Tier::Year.bucket(at).end().to_string(), "2025-01-01T00:00:00Z");
    }

    #[test]
    fn before_1970_buckets_still_start_before_their_minutes() {
        let at = minute("1969-12-31T23:59:00Z");
        assert_eq!(at, Minute(-1));
        assert_eq!(Tier::Hour.bucket(at).start, Minute(-60));
        assert_eq!(Tier::Day.bucket(at).start, Minute(-1_440));
        assert_eq!(Tier::Year.bucket(at).start, minute("1969-01-01T00:00:00Z"));
    }

    #[test]
    fn expiry_counts_from_the_end_of_the_bucket() {
        let hour = Tier::Hour.bucket(Minute(0));
        assert!(!hour.is_expired(Millis(3_600_000 + 999), 1_000));
        assert!(hour.is_expired(Millis(3_600_000 + 1_000), 1_000));
        assert!(!hour.is_expired(Millis(i64::MAX), 0));
        assert!(!hour.is_expired(Millis::NEVER, 1_000));
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_minute_and_meets_the_next(m in Minute::MIN.0..Minute::MAX.0) {
            for tier in Tier::ALL {
                let bucket = tier.bucket(Minute(m));
                prop_assert!(bucket.start <= Minute(m) && Minute(m) < bucket.end());
                prop_assert!(Bucket::is_aligned(tier, bucket.start));
                prop_assert_eq!(tier.bucket(bucket.end()), bucket.next());
                prop_assert_eq!(tier.bucket(bucket.end().plus(-1)), bucket);
                prop_assert_eq!(Tier::from_code(tier.code()), Some(tier));
            }
        }

        #[test]
        fn tiers_nest(m in Minute::MIN.0..Minute::MAX.0) {
            for (fine, coarse) in [(Tier::Minute, Tier::Hour), (Tier::Hour, Tier::Day), (Tier::Day, Tier::Year)] {
                let (fine, coarse) = (fine.bucket(Minute(m)), coarse.bucket(Minute(m)));
                prop_assert!(coarse.start <= fine.start && fine.end() <= coarse.end());
            }
        }

        #[test]
        fn any_instant_has_a_minute(ms in any::<i64>()) {
            let minute = Minute::of(Millis(ms));
            if minute.0 != i32::MAX && minute != Minute::NEVER {
                prop_assert!(minute.start().0 <= ms && ms - minute.start().0 < 60_000);
            }
        }
    }
}
