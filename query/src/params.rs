//! The query string of a range query. Pure, and safe with any bytes: the fuzz target `query_string` calls [`parse`].
//!
//! `start` rounds down to a whole minute and `end` rounds up, because a minute is what is counted; the answer shows what was used.
//! Without `end` it is the end of the present minute, without `start` it is 24 hours before `end`. `+` stands for itself, so that
//! `12:00:00+02:00` may be sent as it is.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use chrono_tz::Tz;
use ingest::Problem;
use percent_encoding::percent_decode_str;
use schemas::{Counts, Millis, Minute};

use crate::calendar::Step;
use crate::compare::Compare;

const MS_PER_MINUTE: i64 = 60_000;
const DAY_MINUTES: i32 = 1_440;

/// Which count of a cell is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Metric {
    /// Every counted view.
    #[default]
    Gross,
    /// Views that no rule took away.
    Valid,
    /// Events of kind `engaged`.
    Engaged,
}

impl Metric {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Gross, Self::Valid, Self::Engaged];

    /// Its name in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gross => "gross",
            Self::Valid => "valid",
            Self::Engaged => "engaged",
        }
    }

    /// That of a request, or gross.
    pub(crate) fn given(given: &Params) -> Result<Self, Problem> {
        Ok(given.choice("metric", &Self::ALL.map(|metric| (metric.as_str(), metric)))?.unwrap_or_default())
    }

    /// The one of a cell's counts.
    pub const fn of(self, counts: Counts) -> i64 {
        match self {
            Self::Gross => counts.gross,
            Self::Valid => counts.valid,
            Self::Engaged => counts.engaged,
        }
    }
}

/// What a range query asks for: `start < end`, both between the years 1 and 6000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// The first minute.
    pub start: Minute,
    /// The minute after the last.
    pub end: Minute,
    /// The length of a point.
    pub step: Step,
    /// The zone whose calendar the points follow; `None` is UTC, and times are then written with `Z`.
    pub tz: Option<Tz>,
    /// What to count.
    pub metric: Metric,
    /// The range that it is to be compared with.
    pub compared: Option<(Minute, Minute)>,
}

impl RangeQuery {
    /// The zone whose calendar the points follow.
    pub fn zone(&self) -> Tz {
        self.tz.unwrap_or(Tz::UTC)
    }
}

/// The names of what a range query may say.
pub const RANGE: [&str; 6] = ["start", "end", "step", "tz", "metric", "compare"];

/// Reads the query string of `GET .../views`. `now` stands in for an absent `end`.
///
/// # Errors
/// A 400 problem that names the parameter and what it may be.
pub fn parse(query_string: &str, now: Millis) -> Result<RangeQuery, Problem> {
    let [start, end, step, tz, metric, compare] = RANGE;
    range(&Params::read(query_string, &[start, end, step, tz, metric, compare, "format"])?, now, |_| usize::MAX)
}

/// Reads a range query, wherever its parameters were given. Without a step it is one that fits; `most_points` says how many points there may be, compared or not.
///
/// # Errors
/// A 400 problem that names the parameter and what it may be.
pub(crate) fn range(given: &Params, now: Millis, most_points: impl Fn(Option<Compare>) -> usize) -> Result<RangeQuery, Problem> {
    let (start, end) = start_and_end(given, now)?;
    let compare = given.choice("compare", &Compare::ALL.map(|compare| (compare.as_str(), compare)))?;
    let step = given.choice("step", &Step::ALL.map(|step| (step.as_str(), step)))?;
    let step = step.unwrap_or_else(|| Step::fitting(start, end, most_points(compare)));
    let tz = given.get("tz").map(|text| parse_zone(text)).transpose()?;
    let metric = Metric::given(given)?;
    let before = |compare: Compare| {
        let detail = || format!("there is no {compare} to compare with: it would begin before the year 1; give a later start");
        compare.range(start, end, tz.unwrap_or(Tz::UTC)).ok_or_else(|| Problem::bad_parameter("compare", detail()))
    };
    let compared = compare.map(before).transpose()?;
    Ok(RangeQuery { start, end, step, tz, metric, compared })
}

fn start_and_end(given: &Params, now: Millis) -> Result<(Minute, Minute), Problem> {
    let end = match given.get("end") {
        Some(text) => minute_up("end", parse_time("end", text)?)?,
        None => minute_up("end", now.plus(1))?,
    };
    let start = match given.get("start") {
        Some(text) => Minute::of(parse_time("start", text)?),
        None => end.plus(-DAY_MINUTES).max(Minute::MIN),
    };
    if start < Minute::MIN || start >= Minute::MAX {
        return Err(out_of_range("start"));
    }
    if start >= end {
        let detail = format!("start {start} is not before end {end}; start is inclusive and end exclusive");
        return Err(Problem::bad_parameter("start", detail));
    }
    Ok((start, end))
}

/// The parameters of a query string: each known and given at most once.
#[derive(Debug)]
pub struct Params(BTreeMap<&'static str, String>);

impl Params {
    /// Splits and decodes a query string.
    ///
    /// # Errors
    /// A 400 problem for a name that is not in `known`, a second value for one, or bytes that are not UTF-8.
    pub fn read(query_string: &str, known: &[&'static str]) -> Result<Self, Problem> {
        let mut given = BTreeMap::new();
        for pair in query_string.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode_str(name).decode_utf8_lossy();
            let Some(&name) = known.iter().find(|known| **known == name) else { return Err(unknown(&name, known)) };
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| Problem::bad_parameter(name, format!("{name} is not UTF-8 after percent-decoding")))?;
            if given.insert(name, value.into_owned()).is_some() {
                return Err(Problem::bad_parameter(name, format!("{name} is given twice; give it once")));
            }
        }
        Ok(Self(given))
    }

    /// Parameters that were given elsewhere than in a query string.
    pub(crate) const fn of(given: BTreeMap<&'static str, String>) -> Self {
        Self(given)
    }

    /// The value of a parameter that is one of some names.
    fn choice<T: Copy>(&self, name: &str, choices: &[(&'static str, T)]) -> Result<Option<T>, Problem> {
        self.get(name).map(|text| choice(name, text, choices)).transpose()
    }

    /// The value of a parameter, if it was given.
    pub fn get(&self, name: &str) -> Option<&String> {
        self.0.get(name)
    }

    /// A parameter that is a whole number from `least`.
    ///
    /// # Errors
    /// A 400 problem if it is not.
    pub fn number(&self, name: &str, least: u64) -> Result<Option<u64>, Problem> {
        let parse = |text: &String| text.parse().ok().filter(|number| *number >= least);
        let bad = |text: &String| format!("{name} {} is not a whole number from {least}", shown(text));
        self.get(name).map(|text| parse(text).ok_or_else(|| Problem::bad_parameter(name, bad(text)))).transpose()
    }
}

fn unknown(name: &str, known: &[&'static str]) -> Problem {
    let detail = no_such("parameter", name, known);
    Problem::new(StatusCode::BAD_REQUEST, "unknown-parameter", "There is no such parameter", detail).with("parameter", clipped(name))
}

/// What is said of a name that there is not, with the one that may be meant.
pub(crate) fn no_such(what: &str, name: &str, known: &[&'static str]) -> String {
    let did_you_mean = nearest(name, known.iter().copied()).map(|near| format!("did you mean {near}? ")).unwrap_or_default();
    format!("there is no {what} {}; {did_you_mean}Known here: {}", shown(name), known.join(", "))
}

/// An instant: RFC 3339 or Unix seconds.
///
/// # Errors
/// A 400 problem that names the parameter.
pub fn parse_time(name: &str, text: &str) -> Result<Millis, Problem> {
    if let Some(at) = parse_seconds(text) {
        return at.ok_or_else(|| out_of_range(name));
    }
    // A form encoder writes the space between date and time as `+`.
    let spaced = match text.as_bytes().get(10) {
        Some(b'+') => text.replacen('+', " ", 1),
        _ => text.to_owned(),
    };
    Millis::parse_rfc3339(&spaced).ok_or_else(|| {
        let detail = format!(
            "{name} {} is no time; give RFC 3339 such as 2026-11-20T12:00:00Z (years 1 to 5999; before 1970 only so) or Unix seconds such as 1763640000",
            shown(text)
        );
        Problem::bad_parameter(name, detail)
    })
}

/// Unix seconds, with a fraction or not: `None` if it is no such number, `Some(None)` if it is beyond what can be asked for.
#[expect(clippy::option_option, reason = "no number and too large a number are told apart")]
fn parse_seconds(text: &str) -> Option<Option<Millis>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction_ms: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let at = whole.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1_000)?.checked_add(fraction_ms)).map(Millis);
    Some(at.filter(|at| *at <= Minute::MAX.start()))
}

fn out_of_range(name: &str) -> Problem {
    let detail = format!("{name} is outside the years 1 to 5999; numbers are Unix seconds, not milliseconds");
    Problem::bad_parameter(name, detail)
}

/// The first whole minute at or after an instant, from year 1 to 6000.
pub(crate) fn minute_up(name: &str, at: Millis) -> Result<Minute, Problem> {
    let minute = Minute::of(at.plus(MS_PER_MINUTE - 1));
    if minute > Minute::MIN && minute <= Minute::MAX { Ok(minute) } else { Err(out_of_range(name)) }
}

/// An IANA zone by its exact name.
///
/// # Errors
/// A 400 problem with the nearest name there is.
pub fn parse_zone(text: &str) -> Result<Tz, Problem> {
    text.parse().map_err(|_| {
        let near = nearest(text, chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name()));
        let hint = near.map_or_else(|| "such as Europe/Berlin or UTC".to_owned(), |near| format!("did you mean {near}?"));
        Problem::bad_parameter("tz", format!("tz {} is not an IANA time zone; {hint}", shown(text)))
    })
}

pub(crate) fn choice<T: Copy>(name: &str, text: &str, choices: &[(&'static str, T)]) -> Result<T, Problem> {
    choices.iter().find(|(known, _)| *known == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
        Problem::bad_parameter(name, format!("{name} {} is none of {}", shown(text), known.join(", ")))
    })
}

/// The known name that is most like `text`, if one is much like it.
fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = clipped(text).to_lowercase();
    let scored = known.map(|name| (strsim::jaro_winkler(&text, &name.to_lowercase()), name));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// What was sent, quoted and no longer than people read.
pub(crate) fn shown(text: &str) -> String {
    format!("{:?}", clipped(text))
}

pub(crate) fn clipped(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::response::IntoResponse;
    use proptest::prelude::*;

    use super::*;

    const NOW: &str = "2026-11-20T12:34:56.789Z";

    fn now() -> Millis {
        Millis::parse_rfc3339(NOW).expect("a time")
    }

    fn minute(text: &str) -> Minute {
        Minute::of(Millis::parse_rfc3339(text).expect("a time"))
    }

    /// The problem's whole body.
    fn problem(query: &str) -> String {
        let response = parse(query, now()).expect_err(query).into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let body = runtime.block_on(to_bytes(response.into_body(), 10_000)).expect("a body");
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[test]
    fn without_parameters_it_is_the_last_24_hours_to_the_end_of_this_minute() {
        let query = parse("", now()).expect("defaults");
        assert_eq!((query.start, query.end), (minute("2026-11-19T12:35:00Z"), minute("2026-11-20T12:35:00Z")));
        assert_eq!((query.step, query.tz, query.metric), (Step::QuarterHour, None, Metric::Gross));
    }

    #[test]
    fn start_rounds_down_and_end_rounds_up_to_the_minute() {
        for (query, start, end) in [
            ("start=2026-01-01T10:00:59Z&end=2026-01-01T11:00:00.001Z", "2026-01-01T10:00:00Z", "2026-01-01T11:01:00Z"),
            ("start=2026-01-01T10:00:00Z&end=2026-01-01T11:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"),
            ("start=2026-01-01T12:00:00+02:00&end=2026-01-01+11:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"),
            ("start=2026-01-01T12%3A00%3A00%2B02%3A00&end=1767265200", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"),
            ("start=1767261659.9&end=1767265140.001", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"),
            ("start=0&end=60", "1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z"),
            ("start=0001-01-01T00:00:00Z&end=6000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "6000-01-01T00:00:00Z"),
        ] {
            let got = parse(query, now()).expect(query);
            assert_eq!((got.start, got.end), (minute(start), minute(end)), "{query}");
        }
    }

    #[test]
    fn the_step_fits_the_range_and_zones_have_any_name() {
        for (query, step) in [
            ("start=0&end=7200", Step::Minute),
            ("start=0&end=43200", Step::FiveMinutes),
            ("start=0&end=604800", Step::Hour),
            ("start=0&end=2592000", Step::Day),
            ("start=0&end=63072000", Step::Week),
            ("start=0&end=315360000", Step::Month),
            ("start=0001-01-01T00:00:00Z", Step::Year),
            ("start=0&end=60&step=all&tz=Etc/GMT+5&metric=engaged", Step::All),
        ] {
            assert_eq!(parse(query, now()).expect(query).step, step, "{query}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_it_may_be() {
        for (query, words) in [
            ("start=NaN", &["\"parameter\":\"start\"", "RFC 3339"][..]),
            ("start=-5", &["start", "before 1970 only so"]),
            ("end=9999-12-31T23:59:59Z", &["end", "years 1 to 5999"]),
            ("end=0000-01-01T00:00:00Z", &["end", "is no time"]),
            ("start=9999-12-31T23:59:59Z", &["start", "years 1 to 5999"]),
            ("start=1763640000000", &["start", "not milliseconds"]),
            ("start=99999999999999999999999999", &["start", "not milliseconds"]),
            ("start=120&end=60", &["not before end"]),
            ("start=60&end=60", &["not before end"]),
            ("start=60&start=60", &["start is given twice"]),
            ("strat=60", &["unknown-parameter", "did you mean start?"]),
            ("xyzzy=60", &["Known here: start, end, step, tz, metric"]),
            ("step=2h", &["1m, 5m, 15m, 1h, 1d, 1w, 1mo, 1y, all"]),
            ("step=", &["step"]),
            ("tz=Europe/Berln", &["did you mean Europe/Berlin?"]),
            ("tz=europe/berlin", &["did you mean Europe/Berlin?"]),
            ("metric=net", &["gross, valid, engaged"]),
            ("compare=last_year", &["previous_period, previous_year"]),
            ("start=0001-01-01T00:00:00Z&compare=previous_year", &["\"parameter\":\"compare\"", "before the year 1"]),
            ("tz=%ff", &["tz is not UTF-8"]),
            ("start", &["start", "is no time"]),
        ] {
            let body = problem(query);
            assert!(words.iter().all(|word| body.contains(word)), "{query}: {body}");
        }
    }

    proptest! {
        #[test]
        fn no_query_string_panics_and_every_answer_is_a_range(text in "([a-z%+&=.:0-9T-]|start=|end=|&|step=|tz=|\\PC){0,60}", now in any::<i64>()) {
            if let Ok(query) = parse(&text, Millis(now)) {
                prop_assert!(Minute::MIN <= query.start && query.start < query.end && query.end <= Minute::MAX);
            }
        }
    }
}
