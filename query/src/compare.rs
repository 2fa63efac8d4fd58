//! The range that a range is compared with: the period before it, or the year before. Pure.
//!
//! | `compare` | range | is compared with |
//! |---|---|---|
//! | `previous_period` | whole months of `tz` (so also quarters and years) | as many whole months directly before |
//! | | whole days of `tz` (so also weeks) | as many days directly before |
//! | | any other | the same length directly before |
//! | `previous_year` | whole months of `tz` | the same months a year before |
//! | | whole days of `tz` | from the same day of the year before to the same day |
//! | | any other | from the same time of the year before to the same time |
//!
//! The 29th of February is compared with the 28th. So March is compared with February, though it is longer, and a day on which clocks change with
//! the whole day before. Points are compared by their place: where the periods have different numbers of points, some have no counterpart.

use std::fmt;

use chrono::{Datelike, Days, Months, NaiveDate, NaiveDateTime};
use chrono_tz::Tz;
use schemas::Minute;

use crate::calendar::{begun_day, first_minute, local, of_local};

/// What a range is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// The period of equal length directly before.
    PreviousPeriod,
    /// The same period of the year before.
    PreviousYear,
}

impl Compare {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::PreviousPeriod, Self::PreviousYear];

    /// Its name in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreviousPeriod => "previous_period",
            Self::PreviousYear => "previous_year",
        }
    }

    /// The range that `[start, end)` is compared with; `None` if it would begin before the year 1.
    pub fn range(self, start: Minute, end: Minute, tz: Tz) -> Option<(Minute, Minute)> {
        let (from, to) = match (self, begun_day(tz, start).zip(begun_day(tz, end))) {
            (Self::PreviousPeriod, Some((first, next))) => (days_before(tz, start, first, next)?, start),
            (Self::PreviousPeriod, None) => (later(start, length(start, end).checked_neg()?)?, start),
            (Self::PreviousYear, Some((first, next))) => days_of_last_year(tz, first, next)?,
            (Self::PreviousYear, None) => time_of_last_year(tz, start, end)?,
        };
        (Minute::MIN <= from && from < to).then_some((from, to))
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By which fraction a count has grown; `None` where there was nothing to grow from.
#[expect(clippy::cast_precision_loss, reason = "a fraction for people")]
pub fn growth(before: i64, now: i64) -> Option<f64> {
    (before > 0).then(|| (now as f64 - before as f64) / before as f64)
}

fn length(start: Minute, end: Minute) -> i64 {
    i64::from(end.0) - i64::from(start.0)
}

fn later(at: Minute, minutes: i64) -> Option<Minute> {
    i32::try_from(i64::from(at.0) + minutes).ok().map(Minute)
}

/// Where the months or days before `[first, next)` begin, as many as it has.
fn days_before(tz: Tz, start: Minute, first: NaiveDate, next: NaiveDate) -> Option<Minute> {
    if let Some(months) = whole_months(first, next) {
        return Some(first_minute(tz, first.checked_sub_months(months)?));
    }
    let days = u64::try_from(next.signed_duration_since(first).num_days()).ok()?;
    let from = first_minute(tz, first.checked_sub_days(Days::new(days))?);
    // The day before was skipped by the zone: the day before that one.
    if from < start { Some(from) } else { Some(first_minute(tz, first.checked_sub_days(Days::new(days + 1))?)) }
}

fn whole_months(first: NaiveDate, next: NaiveDate) -> Option<Months> {
    let months = (next.year() - first.year()) * 12 + next.month().cast_signed() - first.month().cast_signed();
    (first.day() == 1 && next.day() == 1).then(|| u32::try_from(months).ok().map(Months::new))?
}

fn days_of_last_year(tz: Tz, first: NaiveDate, next: NaiveDate) -> Option<(Minute, Minute)> {
    const YEAR: Months = Months::new(12);
    let to = match whole_months(first, next) {
        Some(_) => next.checked_sub_months(YEAR)?,
        // By the last day, so that what ends with the 28th of February does not end before it where the year before has a 29th.
        None => next.pred_opt()?.checked_sub_months(YEAR)?.succ_opt()?,
    };
    Some((first_minute(tz, first.checked_sub_months(YEAR)?), first_minute(tz, to)))
}

fn time_of_last_year(tz: Tz, start: Minute, end: Minute) -> Option<(Minute, Minute)> {
    let year_before = |at: NaiveDateTime| at.checked_sub_months(Months::new(12));
    let from = of_local(tz, year_before(local(tz, start))?);
    let to = of_local(tz, year_before(local(tz, end))?);
    // Around the 29th of February, or where clocks jumped, nothing may be left of it.
    Some((from, if from < to { to } else { later(from, length(start, end))? }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::Millis;

    use super::*;

    fn minute(text: &str) -> Minute {
        Minute::of(Millis::parse_rfc3339(text).expect("a time"))
    }

    fn tz(name: &str) -> Tz {
        name.parse().expect("a zone")
    }

    fn compared(compare: Compare, cases: &[(&str, &str, &str, &str, &str)]) {
        for (zone, start, end, from, to) in cases {
            let got = compare.range(minute(start), minute(end), tz(zone));
            let shown = got.map(|(from, to)| (from.to_string(), to.to_string()));
            assert_eq!(got, Some((minute(from), minute(to))), "{compare} of {start} to {end} in {zone}: {shown:?}");
        }
    }

    #[test]
    fn the_previous_period_is_as_many_months_days_or_minutes_directly_before() {
        compared(
            Compare::PreviousPeriod,
            &[
                ("UTC", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
                ("UTC", "2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z", "2025-10-01T00:00:00Z", "2026-01-01T00:00:00Z"),
                ("UTC", "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
                ("UTC", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"),
                ("UTC", "2026-03-01T00:00:00Z", "2026-03-31T00:00:00Z", "2026-01-30T00:00:00Z", "2026-03-01T00:00:00Z"),
                ("UTC", "2026-03-01T10:07:00Z", "2026-03-01T12:00:00Z", "2026-03-01T08:14:00Z", "2026-03-01T10:07:00Z"),
                // Berlin's clocks changed on 2026-03-29: its day has 23 hours, the day before 24.
                ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z"),
                ("Europe/Berlin", "2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
                ("Europe/Berlin", "2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"),
                // A month of UTC is none of Berlin's: the same length.
                ("Europe/Berlin", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", "2026-01-29T00:00:00Z", "2026-03-01T00:00:00Z"),
                // Samoa skipped 2011-12-30.
                ("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
                // Monrovia was 44 min 30 s behind; its midnights are rounded down to the minute.
                ("Africa/Monrovia", "1960-01-02T00:44:00Z", "1960-01-03T00:44:00Z", "1960-01-01T00:44:00Z", "1960-01-02T00:44:00Z"),
                ("Africa/Monrovia", "1960-02-01T00:44:00Z", "1960-03-01T00:44:00Z", "1960-01-01T00:44:00Z", "1960-02-01T00:44:00Z"),
            ],
        );
    }

    #[test]
    fn the_previous_year_is_by_the_calendar_with_leap_days() {
        compared(
            Compare::PreviousYear,
            &[
                ("UTC", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", "2025-03-01T00:00:00Z", "2025-04-01T00:00:00Z"),
                ("UTC", "2025-02-01T00:00:00Z", "2025-03-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
                ("UTC", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z", "2023-02-01T00:00:00Z", "2023-03-01T00:00:00Z"),
                ("UTC", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z", "2023-02-28T00:00:00Z", "2023-03-01T00:00:00Z"),
                ("UTC", "2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z", "2023-02-28T00:00:00Z", "2023-03-01T00:00:00Z"),
                ("UTC", "2025-02-28T00:00:00Z", "2025-03-01T00:00:00Z", "2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z"),
                ("UTC", "2024-02-28T12:00:00Z", "2024-02-29T10:00:00Z", "2023-02-28T12:00:00Z", "2023-03-01T10:00:00Z"),
                ("UTC", "2026-01-01T00:00:00Z", "2026-11-21T20:30:00Z", "2025-01-01T00:00:00Z", "2025-11-21T20:30:00Z"),
                ("UTC", "2024-01-01T00:00:00Z", "2024-11-21T20:30:00Z", "2023-01-01T00:00:00Z", "2023-11-21T20:30:00Z"),
                // The same local day, whatever offset it had.
                ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2025-03-28T23:00:00Z", "2025-03-29T23:00:00Z"),
                ("Europe/Berlin", "2026-03-29T08:00:00Z", "2026-03-29T09:00:00Z", "2025-03-29T09:00:00Z", "2025-03-29T10:00:00Z"),
                // 02:30 did not exist on 2025-03-30: from the instant that clocks jumped to.
                ("Europe/Berlin", "2026-03-30T00:30:00Z", "2026-03-30T02:00:00Z", "2025-03-30T01:00:00Z", "2025-03-30T02:00:00Z"),
            ],
        );
    }

    #[test]
    fn before_the_year_1_there_is_nothing() {
        for compare in Compare::ALL {
            assert_eq!(compare.range(Minute::MIN, Minute(0), Tz::UTC), None);
            assert_eq!(compare.range(Minute::MIN, Minute::MAX, Tz::UTC), None);
            assert_eq!(compare.range(Minute::MIN.plus(1), Minute::MAX, tz("Asia/Tokyo")), None);
        }
    }

    #[test]
    fn growth_is_a_fraction_of_what_was() {
        for (before, now, expected) in [(100, 150, Some(0.5)), (4, 1, Some(-0.75)), (7, 7, Some(0.0)), (0, 5, None), (-1, 5, None)] {
            assert_eq!(growth(before, now), expected);
        }
        assert!(growth(1, i64::MAX).is_some_and(f64::is_finite) && growth(i64::MAX, i64::MIN).is_some_and(f64::is_finite));
    }

    proptest! {
        #[test]
        fn a_period_before_ends_where_the_range_begins_and_is_about_as_long(
            zone in 0..chrono_tz::TZ_VARIANTS.len(), start in 0i32..40_000_000, length in 1i32..600_000,
        ) {
            let (start, end) = (Minute(start), Minute(start + length));
            let (from, to) = Compare::PreviousPeriod.range(start, end, chrono_tz::TZ_VARIANTS[zone]).expect("after the year 1");
            prop_assert_eq!(to, start);
            // Months differ by three days, days by as much as a zone has moved.
            prop_assert!((length - (to.0 - from.0)).abs() <= 5 * 1_440, "{} {}", from, to);
            let (from, to) = Compare::PreviousYear.range(start, end, chrono_tz::TZ_VARIANTS[zone]).expect("after the year 1");
            prop_assert!(from < to && (start.0 - from.0 - 365 * 1_440).abs() <= 3 * 1_440);
        }
    }
}
