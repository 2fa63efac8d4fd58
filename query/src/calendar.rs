//! Where the points of a series begin: calendar boundaries in any IANA zone, as UTC minutes. Pure.
//!
//! * Steps of less than a day begin where the zone's clock shows a multiple of the step, and where that clock jumps. So no
//!   point is longer than its step, and the day on which clocks change has 23 or 25 hours (on Lord Howe half an hour more or less).
//! * Days, weeks (from Monday), months and years begin at the first instant of their first day: where clocks jump over midnight
//!   that is later than 00:00, where they show midnight twice it is the earlier one. A day that a zone skipped has no point.
//! * Every boundary is a whole UTC minute. Local times before 1972 or so may be off UTC by odd seconds; those boundaries are rounded down.
//! * Zone rules are those of the IANA data that the program was built with; beyond its last transition the last offset stays.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, FixedOffset, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, SecondsFormat, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use schemas::{Millis, Minute};
use thiserror::Error;

/// The length of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// One minute.
    Minute,
    /// Five minutes.
    FiveMinutes,
    /// A quarter of an hour.
    QuarterHour,
    /// One hour.
    Hour,
    /// One calendar day.
    Day,
    /// Monday to Sunday.
    Week,
    /// One calendar month.
    Month,
    /// One calendar year.
    Year,
    /// The whole range as one point.
    All,
}

impl Step {
    /// Every step, fine to coarse.
    pub const ALL: [Self; 9] =
        [Self::Minute, Self::FiveMinutes, Self::QuarterHour, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year, Self::All];

    /// Its name in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::QuarterHour => "15m",
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::Week => "1w",
            Self::Month => "1mo",
            Self::Year => "1y",
            Self::All => "all",
        }
    }

    /// Its length in minutes where clocks do not change, at the longest; 0 for [`Step::All`].
    const fn nominal_minutes(self) -> i64 {
        match self {
            Self::Minute => 1,
            Self::FiveMinutes => 5,
            Self::QuarterHour => 15,
            Self::Hour => 60,
            Self::Day => 1_440,
            Self::Week => 7 * 1_440,
            Self::Month => 31 * 1_440,
            Self::Year => 366 * 1_440,
            Self::All => 0,
        }
    }

    /// About how many points a range has, rather too few than too many.
    fn estimate(self, start: Minute, end: Minute) -> i64 {
        (i64::from(end.0) - i64::from(start.0)).checked_div(self.nominal_minutes()).unwrap_or(1)
    }

    /// The finest step for which a range has at most about 180 points, what a chart can show, and surely no more than `most`.
    pub fn fitting(start: Minute, end: Minute, most: usize) -> Self {
        // Both ends may be cut, and a clock that jumps adds a point.
        let most = i64::try_from(most).unwrap_or(i64::MAX).saturating_sub(3);
        let fits = |step: Self, points: i64| step.estimate(start, end) <= points.min(most);
        let fitting = Self::ALL.into_iter().find(|step| *step < Self::All && fits(*step, 180));
        fitting.unwrap_or(if fits(Self::Year, most) { Self::Year } else { Self::All })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Step {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|step| step.as_str() == text).ok_or(())
    }
}

/// A range has more points of a step than one answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the range has more than {limit} points of {step}; ask for step={coarser} or for a shorter range")]
pub struct TooManyPoints {
    /// The most points of one answer.
    pub limit: usize,
    /// The step that was asked for.
    pub step: Step,
    /// The finest step with which the range fits.
    pub coarser: Step,
}

/// The boundaries of the points of `[start, end)`: `start`, every boundary of `step` between, `end`. One more than there are points.
///
/// # Errors
/// If there are more than `limit` points; no more than that are ever computed.
pub fn boundaries(step: Step, tz: Tz, start: Minute, end: Minute, limit: usize) -> Result<Vec<Minute>, TooManyPoints> {
    let fits = |step: Step| usize::try_from(step.estimate(start, end)).is_ok_and(|points| points <= limit);
    let too_many = || {
        let coarser = Step::ALL.into_iter().find(|other| *other > step && fits(*other)).unwrap_or(Step::All);
        TooManyPoints { limit, step, coarser }
    };
    if !fits(step) {
        return Err(too_many());
    }
    let mut all = vec![start];
    let (mut last, mut at_s) = (start, i64::from(start.0) * 60);
    loop {
        at_s = next_boundary(step, tz, at_s);
        let boundary = Minute::of(Millis(at_s.saturating_mul(1_000)));
        if boundary >= end {
            break;
        }
        if boundary > last {
            if all.len() >= limit {
                return Err(too_many());
            }
            all.push(boundary);
            last = boundary;
        }
    }
    all.push(end);
    Ok(all)
}

/// The first boundary of `step` after an instant, both in Unix seconds.
fn next_boundary(step: Step, tz: Tz, after_s: i64) -> i64 {
    match step {
        Step::Minute | Step::FiveMinutes | Step::QuarterHour | Step::Hour => next_on_the_clock(step.nominal_minutes() * 60, tz, after_s),
        Step::Day | Step::Week | Step::Month | Step::Year => next_on_the_calendar(step, tz, after_s),
        Step::All => i64::MAX,
    }
}

fn next_on_the_clock(step_s: i64, tz: Tz, after_s: i64) -> i64 {
    let offset_s = utc_offset_s(tz, after_s);
    let multiple_s = after_s + step_s - (after_s + offset_s).rem_euclid(step_s);
    if utc_offset_s(tz, multiple_s) == offset_s {
        return multiple_s;
    }
    // The clock jumps in (after, multiple]: find the first second of the new offset.
    let (mut old_s, mut new_s) = (after_s, multiple_s);
    while new_s - old_s > 1 {
        let middle_s = old_s + (new_s - old_s) / 2;
        if utc_offset_s(tz, middle_s) == offset_s { old_s = middle_s } else { new_s = middle_s }
    }
    new_s
}

fn next_on_the_calendar(step: Step, tz: Tz, after_s: i64) -> i64 {
    let mut date = utc(after_s + utc_offset_s(tz, after_s)).date();
    loop {
        let Some(next) = next_first_day(step, date) else { return i64::MAX };
        let begins_s = first_instant_s(tz, next);
        // Where clocks went back over midnight, the next day may have begun before `after`.
        if begins_s > after_s {
            return begins_s;
        }
        date = next;
    }
}

/// The first day of the week, month or year after the one that holds `date`.
fn next_first_day(step: Step, date: NaiveDate) -> Option<NaiveDate> {
    match step {
        Step::Week => date.checked_add_days(Days::new(7 - u64::from(date.weekday().num_days_from_monday()))),
        Step::Month => date.with_day(1)?.checked_add_months(Months::new(1)),
        Step::Year => NaiveDate::from_ymd_opt(date.year() + 1, 1, 1),
        _ => date.checked_add_days(Days::new(1)),
    }
}

/// The first instant of a day in a zone, in Unix seconds. For a day that was skipped: where the next begins.
fn first_instant_s(tz: Tz, date: NaiveDate) -> i64 {
    instant_s(tz, date.and_time(NaiveTime::MIN))
}

/// The first instant at which a zone's clock shows a time, in Unix seconds. For a time that was skipped: where the clock jumped to.
fn instant_s(tz: Tz, shown: NaiveDateTime) -> i64 {
    let first = tz.from_local_datetime(&shown).earliest().or_else(|| GapInfo::new(&shown, &tz)?.end);
    first.map_or_else(|| shown.and_utc().timestamp(), |at| at.timestamp())
}

/// What a zone's clock shows at a minute.
pub fn local(tz: Tz, at: Minute) -> NaiveDateTime {
    let at_s = i64::from(at.0) * 60;
    utc(at_s + utc_offset_s(tz, at_s))
}

/// The first minute at which a zone's clock shows a time.
pub fn of_local(tz: Tz, shown: NaiveDateTime) -> Minute {
    Minute::of(Millis(instant_s(tz, shown).saturating_mul(1_000)))
}

/// The first minute of a day in a zone.
pub fn first_minute(tz: Tz, date: NaiveDate) -> Minute {
    of_local(tz, date.and_time(NaiveTime::MIN))
}

/// The day that begins in a zone at a minute, if one does.
pub fn begun_day(tz: Tz, at: Minute) -> Option<NaiveDate> {
    let date = local(tz, at).date();
    // A midnight at odd seconds is rounded down, into the day before.
    [Some(date), date.succ_opt()].into_iter().flatten().find(|date| first_minute(tz, *date) == at)
}

fn utc(at_s: i64) -> NaiveDateTime {
    // Every minute that can be asked for lies in chrono's range.
    DateTime::<Utc>::from_timestamp_secs(at_s).unwrap_or_default().naive_utc()
}

fn utc_offset_s(tz: Tz, at_s: i64) -> i64 {
    if tz == Tz::UTC {
        return 0;
    }
    i64::from(tz.offset_from_utc_datetime(&utc(at_s)).fix().local_minus_utc())
}

/// The first minute of the day that holds `now` in a zone, and the first minute of the day after.
pub fn today(tz: Tz, now: Millis) -> (Minute, Minute) {
    let now_s = now.0.div_euclid(1_000);
    let date = utc(now_s + utc_offset_s(tz, now_s)).date();
    let minute = |at_s: i64| Minute::of(Millis(at_s.saturating_mul(1_000)));
    (minute(first_instant_s(tz, date)), minute(next_boundary(Step::Day, tz, now_s)))
}

/// RFC 3339: in UTC, or with a zone's offset (its odd seconds left out, the instant kept).
pub fn rfc3339(at: Minute, tz: Option<Tz>) -> String {
    let at_s = i64::from(at.0) * 60;
    let naive = utc(at_s);
    match tz {
        None => naive.and_utc().to_rfc3339_opts(SecondsFormat::Secs, true),
        Some(tz) => {
            let offset_s = tz.offset_from_utc_datetime(&naive).fix().local_minus_utc();
            let whole = FixedOffset::east_opt(offset_s - offset_s % 60).unwrap_or_else(|| Utc.fix());
            naive.and_utc().with_timezone(&whole).to_rfc3339_opts(SecondsFormat::Secs, false)
        }
    }
}

/// An instant with its milliseconds, as [`rfc3339`] shows a minute.
pub fn instant(at: Millis, tz: Option<Tz>) -> String {
    let (Some(tz), Some(shown)) = (tz, DateTime::<Utc>::from_timestamp_millis(at.0)) else { return at.to_rfc3339() };
    shown.with_timezone(&tz).to_rfc3339_opts(SecondsFormat::AutoSi, false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minute(text: &str) -> Minute {
        Minute::of(Millis::parse_rfc3339(text).expect("a time"))
    }

    fn tz(name: &str) -> Tz {
        name.parse().expect("a zone")
    }

    /// The points' lengths in minutes.
    fn lengths(step: Step, zone: &str, start: &str, end: &str) -> Vec<i32> {
        let all = boundaries(step, tz(zone), minute(start), minute(end), 50_000).expect("few points");
        all.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    #[test]
    fn days_have_the_hours_that_their_zone_gave_them() {
        for (zone, start, end, hours) in [
            ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23),
            ("Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25),
            ("Europe/Berlin", "2026-06-30T22:00:00Z", "2026-07-01T22:00:00Z", 24),
            ("Asia/Kolkata", "2026-03-28T18:30:00Z", "2026-03-29T18:30:00Z", 24),
            ("Asia/Kathmandu", "2026-03-28T18:15:00Z", "2026-03-29T18:15:00Z", 24),
            // 2018-11-04 begins at 01:00: its midnight does not exist.
            ("America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z", 23),
            ("America/Sao_Paulo", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z", 25),
            ("Asia/Beirut", "2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z", 23),
        ] {
            let (begin, until) = (minute(start).plus(-1_440), minute(end).plus(1_440));
            let days = boundaries(Step::Day, tz(zone), begin, until, 10).expect("few points");
            assert!(days.contains(&minute(start)) && days.contains(&minute(end)), "{zone} {start} {days:?}");
            assert!(!days.iter().any(|at| minute(start) < *at && *at < minute(end)), "{zone} {start}");
            assert_eq!(lengths(Step::Hour, zone, start, end), vec![60; hours], "{zone} {start}");
        }
    }

    #[test]
    fn half_an_hour_of_daylight_saving_makes_a_half_hour_point() {
        // Lord Howe: +11 to +10:30 on 2026-04-05 at 02:00, back on 2026-10-04 at 02:00.
        let back = lengths(Step::Hour, "Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z");
        assert_eq!((back.len(), back[1], back[2], back[3]), (25, 60, 30, 60));
        let forth = lengths(Step::Hour, "Australia/Lord_Howe", "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z");
        assert_eq!((forth.len(), forth[1], forth[2], forth[3]), (24, 60, 30, 60));
        assert_eq!(lengths(Step::Day, "Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"), [1_470]);
    }

    #[test]
    fn a_skipped_day_has_no_point() {
        // Samoa went from 2011-12-29 24:00 (-10) straight to 2011-12-31 00:00 (+14).
        assert_eq!(lengths(Step::Day, "Pacific/Apia", "2011-12-28T10:00:00Z", "2012-01-01T10:00:00Z"), vec![1_440; 4]);
    }

    #[test]
    fn a_midnight_shown_twice_begins_its_day_once() {
        // St John's went back from 00:01 to 23:01: the second 23:01 to 00:01 belongs to the day that had begun.
        let days = lengths(Step::Day, "America/St_Johns", "2010-11-06T02:30:00Z", "2010-11-08T03:30:00Z");
        assert_eq!(days, [1_440, 1_500]);
    }

    #[test]
    fn a_jump_within_an_hour_is_a_boundary() {
        // St John's went back an hour one minute after midnight.
        let hours = lengths(Step::Hour, "America/St_Johns", "2010-11-07T01:30:00Z", "2010-11-07T04:30:00Z");
        assert_eq!(hours, [60, 1, 59, 60]);
    }

    #[test]
    fn weeks_begin_on_monday_and_start_and_end_cut() {
        let berlin = lengths(Step::Week, "Europe/Berlin", "2026-03-25T10:00:00Z", "2026-04-08T10:00:00Z");
        assert_eq!(berlin, [6_480, 7 * 1_440, 3_600], "from Sunday 22:00 UTC, before the clocks changed and after");
        let all = boundaries(Step::Month, Tz::UTC, minute("2026-01-31T23:59:00Z"), minute("2026-03-01T00:01:00Z"), 9).expect("few");
        assert_eq!(all[1..3], [minute("2026-02-01T00:00:00Z"), minute("2026-03-01T00:00:00Z")]);
        let years = boundaries(Step::Year, tz("Asia/Tokyo"), Minute::MIN, Minute::MAX, 6_000).expect("few");
        assert_eq!(years.len(), 6_001);
    }

    #[test]
    fn odd_seconds_are_rounded_down() {
        // Amsterdam was 19 min 32 s ahead of UTC until 1937-07-01; New Year's midnight was 23:40:28 UTC.
        let all = boundaries(Step::Year, tz("Europe/Amsterdam"), minute("1929-06-01T00:00:00Z"), minute("1930-06-01T00:00:00Z"), 9);
        let monrovia = boundaries(Step::Year, tz("Africa/Monrovia"), minute("1959-06-01T00:00:00Z"), minute("1960-06-01T00:00:00Z"), 9);
        assert_eq!(monrovia.expect("few")[1], minute("1960-01-01T00:44:00Z"), "Monrovia was 44 min 30 s behind");
        assert_eq!(all.expect("few").len(), 3);
        assert_eq!(rfc3339(minute("1960-01-01T00:44:00Z"), Some(tz("Africa/Monrovia"))), "1960-01-01T00:00:00-00:44");
    }

    #[test]
    fn too_many_points_name_the_limit_and_the_next_step_that_fits() {
        let error = boundaries(Step::Minute, Tz::UTC, minute("2020-01-01T00:00:00Z"), minute("2026-01-01T00:00:00Z"), 50_000);
        let error = error.expect_err("3 million points");
        assert_eq!((error.limit, error.coarser), (50_000, Step::Day));
        assert!(boundaries(Step::Minute, Tz::UTC, Minute(0), Minute(50_000), 50_000).is_ok());
        assert!(boundaries(Step::Minute, Tz::UTC, Minute(0), Minute(50_001), 50_000).is_err());
        assert!(boundaries(Step::Month, Tz::UTC, Minute(0), minute("1971-01-01T00:00:00Z"), 11).is_err(), "12 months");
    }

    #[test]
    fn times_are_written_in_the_zone_that_was_asked_for() {
        let at = minute("2026-03-29T22:00:00Z");
        assert_eq!(rfc3339(at, None), "2026-03-29T22:00:00Z");
        assert_eq!(rfc3339(at, Some(tz("Europe/Berlin"))), "2026-03-30T00:00:00+02:00");
        assert_eq!(rfc3339(at, Some(Tz::UTC)), "2026-03-29T22:00:00+00:00");
        assert_eq!(rfc3339(Minute::MIN, None), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn today_is_the_day_of_the_zone() {
        let now = Millis::parse_rfc3339("2018-11-04T15:00:00Z").expect("a time");
        assert_eq!(today(tz("America/Sao_Paulo"), now), (minute("2018-11-04T03:00:00Z"), minute("2018-11-05T02:00:00Z")));
        assert_eq!(today(Tz::UTC, now), (minute("2018-11-04T00:00:00Z"), minute("2018-11-05T00:00:00Z")));
    }

    proptest! {
        #[test]
        fn boundaries_rise_from_start_to_end_and_are_the_same_from_wherever_one_looks(
            zone in 0..chrono_tz::TZ_VARIANTS.len(), step in 0usize..9, start in Minute::MIN.0..Minute::MAX.0, recent in any::<bool>(),
            points in 1i32..40, cut in 0.0f64..1.0,
        ) {
            let (tz, step) = (chrono_tz::TZ_VARIANTS[zone], Step::ALL[step]);
            let start = if recent { 30_000_000 - start.rem_euclid(70_000_000) } else { start };
            let length = points * i32::try_from(step.nominal_minutes().max(1)).expect("small");
            let (start, end) = (Minute(start), Minute(start.saturating_add(length).min(Minute::MAX.0)));
            prop_assume!(start < end);
            let all = boundaries(step, tz, start, end, 1_000).expect("few points");
            prop_assert_eq!((all[0], all[all.len() - 1]), (start, end));
            prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
            // A later start sees the same boundaries.
            #[expect(clippy::cast_possible_truncation, reason = "a place within the range")]
            let later = Minute(start.0 + (f64::from(end.0 - start.0 - 1) * cut) as i32);
            let rest = boundaries(step, tz, later, end, 1_000).expect("few points");
            let expected: Vec<Minute> = all.into_iter().filter(|at| *at > later).collect();
            prop_assert_eq!(&rest[1..], &expected[..]);
        }
    }
}
