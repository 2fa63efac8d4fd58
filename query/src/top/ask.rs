//! What a list is asked for: which hours, what ranks it, how long it is. Pure, and safe with any bytes.
//!
//! The range is a window (UTC), a day, or `start` and `end`, which lie on the hour, because hours and days are what lists are made of:
//!
//! | window | range |
//! |---|---|
//! | `hour` | this hour |
//! | `today` | this day; the default |
//! | `yesterday` | the day before |
//! | `7d`, `30d` | the last 7 or 30 days, the last of which is this day |
//!
//! **Change.** A range that still runs is compared as far as it is complete in whole hours, with the hours that lie its full length
//! before: this day until 14:00 with the day before until 14:00. While it has no such hour (in the first hour of a day, and for `hour`
//! always) the last complete hour is compared with the one before it. The answer says both ranges.

use ingest::Problem;
use schemas::{Bucket, Dimension, Millis, Minute, Tier};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::api;
use crate::params::{Metric, Params, choice, minute_up, parse_time, shown};

const HOUR: i32 = 60;
const DAY: i32 = 1_440;
/// How long a list is when that is not said.
const DEFAULT_LIMIT: usize = 10;

/// A range of whole hours, `start < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hours {
    pub(crate) start: Minute,
    pub(crate) end: Minute,
}

impl Hours {
    /// A whole UTC day.
    pub(crate) const fn day(start: Minute) -> Self {
        Self { start, end: start.plus(DAY) }
    }

    /// The same hours so many minutes earlier.
    const fn earlier(self, minutes: i32) -> Self {
        Self { start: self.start.plus(-minutes), end: self.end.plus(-minutes) }
    }

    const fn minutes(self) -> i32 {
        self.end.0.saturating_sub(self.start.0)
    }
}

/// A range by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Hour,
    Today,
    Yesterday,
    Week,
    Month,
}

impl Window {
    const ALL: [Self; 5] = [Self::Hour, Self::Today, Self::Yesterday, Self::Week, Self::Month];

    /// Its name in requests and answers.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Today => "today",
            Self::Yesterday => "yesterday",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    fn hours(self, now: Millis) -> Hours {
        // As far as there are times that can be asked for.
        let now = Minute::of(now).clamp(Minute::MIN.plus(30 * DAY), Minute::MAX.plus(-1));
        let hour = Tier::Hour.bucket(now).start;
        let today = Hours::day(Tier::Day.bucket(now).start);
        match self {
            Self::Hour => Hours { start: hour, end: hour.plus(HOUR) },
            Self::Today => today,
            Self::Yesterday => today.earlier(DAY),
            Self::Week => Hours { start: today.start.plus(-6 * DAY), ..today },
            Self::Month => Hours { start: today.start.plus(-29 * DAY), ..today },
        }
    }
}

/// What ranks a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sort {
    /// The most viewed.
    Views,
    /// Those that gained most over the range before.
    Rising,
}

impl Sort {
    const ALL: [Self; 2] = [Self::Views, Self::Rising];

    /// Its name in requests and answers.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Views => "views",
            Self::Rising => "rising",
        }
    }
}

impl ToSchema for Window {}

impl PartialSchema for Window {
    fn schema() -> RefOr<Schema> {
        let says = "A range by its name, in UTC: this hour, this day, the day before, the last 7 or 30 days with this one.";
        api::one_of(Self::ALL.map(Self::as_str), says)
    }
}

impl ToSchema for Sort {}

impl PartialSchema for Sort {
    fn schema() -> RefOr<Schema> {
        api::one_of(Self::ALL.map(Self::as_str), "What ranks a list: views, or how many more there are than in the range before.")
    }
}

/// What the query string may hold.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "Ask reads it")]
pub(crate) struct Asked {
    /// The range by its name. `today` if neither this, nor `day`, nor `start` is given; only one of them may be.
    #[param(inline, value_type = Option<Window>)]
    window: Option<String>,
    /// The range as one UTC day.
    #[param(format = "date", example = "2026-11-20")]
    day: Option<String>,
    /// Where the range begins (inclusive): RFC 3339 or Unix seconds, on the hour in UTC, at most 366 days before `end`.
    #[param(value_type = Option<api::Instant>)]
    start: Option<String>,
    /// Where the range ends (exclusive), on the hour in UTC. The end of the present hour if left out.
    #[param(value_type = Option<api::Instant>)]
    end: Option<String>,
    /// The most entries. 10 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// What to count. `gross` if left out.
    #[param(value_type = Option<api::Metric>)]
    metric: Option<String>,
    /// What ranks the list. `views` if left out.
    #[param(inline, value_type = Option<Sort>)]
    sort: Option<String>,
}

/// The longest lists that are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Longest {
    pub(crate) entries: usize,
    pub(crate) days: i32,
}

/// What makes one list another: lists are made and kept by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListKey {
    pub(crate) dimension: Dimension,
    pub(crate) hours: Hours,
    pub(crate) metric: Metric,
    pub(crate) sort: Sort,
    /// So many entries: one of a few sizes, so that lists of nearly the same length are one.
    pub(crate) entries: usize,
}

/// A question for a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) key: ListKey,
    pub(crate) window: Option<Window>,
    pub(crate) limit: usize,
}

impl Ask {
    /// Reads the query string of `GET /v1/top/...`.
    pub(crate) fn read(dimension: Dimension, query: &str, now: Millis, longest: Longest) -> Result<Self, Problem> {
        let given = Params::read(query, &["window", "day", "start", "end", "limit", "metric", "sort", "format"])?;
        let (window, hours) = range(&given, now)?;
        check(&given, hours, now, longest.days)?;
        let limit = limit(&given, longest.entries)?;
        let metric = match given.get("metric") {
            Some(text) => choice("metric", text, &Metric::ALL.map(|metric| (metric.as_str(), metric)))?,
            None => Metric::Gross,
        };
        let sort = match given.get("sort") {
            Some(text) => choice("sort", text, &Sort::ALL.map(|sort| (sort.as_str(), sort)))?,
            None => Sort::Views,
        };
        let entries = [10, 100].into_iter().find(|size| limit <= *size).unwrap_or(longest.entries);
        Ok(Self { key: ListKey { dimension, hours, metric, sort, entries }, window, limit })
    }
}

fn limit(given: &Params, most: usize) -> Result<usize, Problem> {
    let Some(number) = given.number("limit", 1)? else { return Ok(DEFAULT_LIMIT.min(most)) };
    usize::try_from(number).ok().filter(|limit| *limit <= most).ok_or_else(|| {
        let detail = format!("limit {number} is more than the {most} entries that a list has at most; a report of a day holds every video");
        Problem::bad_parameter("limit", detail).with("limit", most)
    })
}

/// The range by the one way in which it is given.
fn range(given: &Params, now: Millis) -> Result<(Option<Window>, Hours), Problem> {
    let ways: Vec<&str> = ["window", "day", "start", "end"].into_iter().filter(|name| given.get(name).is_some()).collect();
    match *ways.as_slice() {
        [] => Ok((Some(Window::Today), Window::Today.hours(now))),
        ["window"] => {
            let text = given.get("window").map_or("", String::as_str);
            let window = choice("window", text, &Window::ALL.map(|window| (window.as_str(), window)))?;
            Ok((Some(window), window.hours(now)))
        }
        ["day"] => Ok((None, Hours::day(parse_day("day", given.get("day").map_or("", String::as_str))?))),
        ["start"] | ["start", "end"] => Ok((None, start_and_end(given, now)?)),
        ["end"] => Err(Problem::bad_parameter("start", "end is given without start; give both, or a window or a day")),
        [_, second, ..] => {
            let detail = format!("{} are given; give one of window, day, or start and end", ways.join(" and "));
            Err(Problem::bad_parameter(second, detail))
        }
        [other] => Err(Problem::bad_parameter(other, "give one of window, day, or start and end")),
    }
}

fn start_and_end(given: &Params, now: Millis) -> Result<Hours, Problem> {
    let on_the_hour = |name: &str, at: Millis| {
        let minute = minute_up(name, at)?;
        if Bucket::is_aligned(Tier::Hour, minute) && minute.start() == at {
            return Ok(minute);
        }
        let before = Tier::Hour.bucket(Minute::of(at));
        let detail = format!(
            "{name} {} is not on the hour in UTC, and hours are what lists are made of; ask for {} or {}",
            at.to_rfc3339(),
            before.start,
            before.end()
        );
        Err(Problem::bad_parameter(name, detail))
    };
    let text = |name: &str| given.get(name).map_or("", String::as_str);
    let start = on_the_hour("start", parse_time("start", text("start"))?)?;
    let end = match given.get("end") {
        Some(text) => on_the_hour("end", parse_time("end", text)?)?,
        None => Window::Hour.hours(now).end.max(start.plus(HOUR)),
    };
    Ok(Hours { start, end })
}

fn check(given: &Params, hours: Hours, now: Millis, most_days: i32) -> Result<(), Problem> {
    let name = if given.get("day").is_some() { "day" } else { "start" };
    let Hours { start, end } = hours;
    if start >= end {
        let detail = format!("start {start} is not before end {end}; start is inclusive and end exclusive");
        return Err(Problem::bad_parameter(name, detail));
    }
    if start.start() > now {
        return Err(Problem::bad_parameter(name, format!("{name} {start} is in the future; it is {} now", now.to_rfc3339())));
    }
    if hours.minutes() > most_days.saturating_mul(DAY) {
        let detail = format!("from {start} to {end} is more than the {most_days} days that a list is over at most; ask for less");
        return Err(Problem::bad_parameter(name, detail).with("limit", most_days));
    }
    Ok(())
}

/// The first minute of a UTC day.
///
/// # Errors
/// A 400 problem that names the parameter.
pub(crate) fn parse_day(name: &str, text: &str) -> Result<Minute, Problem> {
    let midnight = if text.len() == 10 { Millis::parse_rfc3339(&format!("{text}T00:00:00Z")) } else { None };
    midnight.map(Minute::of).filter(|day| *day < Minute::MAX).ok_or_else(|| {
        Problem::bad_parameter(name, format!("{name} {} is no day; give one such as 2026-11-20 (UTC, years 1 to 5999)", shown(text)))
    })
}

/// Two ranges of equal length whose difference is the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// The later one.
    pub(crate) compared: Hours,
    /// The earlier one.
    pub(crate) previous: Hours,
}

impl Comparison {
    /// What is compared of a range when all sources are complete up to `through`.
    pub(crate) fn of(hours: Hours, through: Millis) -> Self {
        let whole = Tier::Hour.bucket(Minute::of(through)).start;
        let end = hours.end.min(whole);
        if end > hours.start {
            let compared = Hours { start: hours.start, end };
            return Self { compared, previous: compared.earlier(hours.minutes()) };
        }
        let compared = Hours { start: whole.plus(-HOUR), end: whole };
        Self { compared, previous: compared.earlier(HOUR) }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::response::IntoResponse;
    use proptest::prelude::*;

    use super::*;

    const LONGEST: Longest = Longest { entries: 1_000, days: 366 };

    fn now() -> Millis {
        Millis::parse_rfc3339("2026-11-20T14:34:56.789Z").unwrap()
    }

    fn minute(text: &str) -> Minute {
        Minute::of(Millis::parse_rfc3339(text).unwrap())
    }

    fn hours(start: &str, end: &str) -> Hours {
        Hours { start: minute(start), end: minute(end) }
    }

    fn read(query: &str) -> Result<Ask, Problem> {
        Ask::read(Dimension::Video, query, now(), LONGEST)
    }

    #[test]
    fn a_range_is_given_in_one_of_several_ways() {
        for (query, start, end) in [
            ("", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"),
            ("window=hour", "2026-11-20T14:00:00Z", "2026-11-20T15:00:00Z"),
            ("window=today", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"),
            ("window=yesterday", "2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z"),
            ("window=7d", "2026-11-14T00:00:00Z", "2026-11-21T00:00:00Z"),
            ("window=30d", "2026-10-22T00:00:00Z", "2026-11-21T00:00:00Z"),
            ("day=2024-02-29", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("day=2026-11-20", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"),
            ("start=2026-11-20T12:00:00Z&end=1795190400", "2026-11-20T12:00:00Z", "2026-11-20T16:00:00Z"),
            ("start=2026-11-20T12:00:00%2B02:00", "2026-11-20T10:00:00Z", "2026-11-20T15:00:00Z"),
            ("start=0001-01-02T00:00:00Z&end=0001-01-02T01:00:00Z", "0001-01-02T00:00:00Z", "0001-01-02T01:00:00Z"),
        ] {
            assert_eq!(read(query).expect(query).key.hours, hours(start, end), "{query}");
        }
    }

    #[test]
    fn lists_of_nearly_the_same_length_are_one() {
        for (query, limit, entries) in
            [("", 10, 10), ("limit=1", 1, 10), ("limit=11", 11, 100), ("limit=101", 101, 1_000), ("limit=1000", 1_000, 1_000)]
        {
            let ask = read(query).expect(query);
            assert_eq!((ask.limit, ask.key.entries), (limit, entries), "{query}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named_with_what_it_may_be() {
        for (query, words) in [
            ("window=week", &["\"parameter\":\"window\"", "hour, today, yesterday, 7d, 30d"][..]),
            ("window=today&day=2026-11-20", &["window and day are given"]),
            ("day=2026-11-20&start=0&end=3600", &["day and start and end are given"]),
            ("end=3600", &["\"parameter\":\"start\"", "end is given without start"]),
            ("start=2026-11-20T12:30:00Z", &["not on the hour", "2026-11-20T12:00:00Z or 2026-11-20T13:00:00Z"]),
            ("start=2026-11-20T12:00:00Z&end=2026-11-20T12:59:59.999Z", &["\"parameter\":\"end\"", "or 2026-11-20T13:00:00Z"]),
            ("start=2026-11-20T12:00:00%2B05:30", &["not on the hour in UTC"]),
            ("start=7200&end=3600", &["not before end"]),
            ("day=2026-11-21", &["\"parameter\":\"day\"", "in the future"]),
            ("start=2026-11-20T15:00:00Z", &["in the future"]),
            ("day=2026-02-29", &["is no day"]),
            ("day=6000-01-01", &["years 1 to 5999"]),
            ("day=today", &["2026-11-20"]),
            ("start=2020-01-01T00:00:00Z&end=2026-01-01T00:00:00Z", &["more than the 366 days", "\"limit\":366"]),
            ("limit=1001", &["\"limit\":1000"]),
            ("limit=0", &["whole number from 1"]),
            ("limit=99999999999999999999999", &["limit"]),
            ("sort=growth", &["views, rising"]),
            ("metric=net", &["gross, valid, engaged"]),
            ("windw=7d", &["did you mean window?"]),
        ] {
            let response = read(query).expect_err(query).into_response();
            let body = String::from_utf8(to_bytes(response.into_body(), 10_000).await.unwrap().to_vec()).unwrap();
            assert!(words.iter().all(|word| body.contains(word)), "{query}: {body}");
        }
    }

    #[test]
    fn equal_lengths_are_compared() {
        let through = Millis::parse_rfc3339("2026-11-20T14:33:00Z").unwrap();
        for (query, compared, previous) in [
            ("window=today", ("2026-11-20T00:00:00Z", "2026-11-20T14:00:00Z"), ("2026-11-19T00:00:00Z", "2026-11-19T14:00:00Z")),
            ("window=yesterday", ("2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z"), ("2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z")),
            ("window=7d", ("2026-11-14T00:00:00Z", "2026-11-20T14:00:00Z"), ("2026-11-07T00:00:00Z", "2026-11-13T14:00:00Z")),
            ("window=hour", ("2026-11-20T13:00:00Z", "2026-11-20T14:00:00Z"), ("2026-11-20T12:00:00Z", "2026-11-20T13:00:00Z")),
            ("day=2024-03-01", ("2024-03-01T00:00:00Z", "2024-03-02T00:00:00Z"), ("2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z")),
        ] {
            let Comparison { compared: got, previous: before } = Comparison::of(read(query).expect(query).key.hours, through);
            assert_eq!((got, before), (hours(compared.0, compared.1), hours(previous.0, previous.1)), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_query_string_panics_and_every_range_is_of_hours(text in "(window=|7d|day=|2026-11-1[0-9]|start=|end=|&|[0-9]{1,12}|\\PC){0,8}", now in any::<i64>()) {
            if let Ok(ask) = Ask::read(Dimension::Space, &text, Millis(now), LONGEST) {
                let Hours { start, end } = ask.key.hours;
                prop_assert!(start < end && Bucket::is_aligned(Tier::Hour, start) && Bucket::is_aligned(Tier::Hour, end));
                let through = Millis(now).max(Minute::MIN.start()).min(Minute::MAX.start());
                let Comparison { compared, previous } = Comparison::of(ask.key.hours, through);
                prop_assert_eq!(compared.minutes(), previous.minutes());
            }
        }
    }
}
