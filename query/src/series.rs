//! A series: counts point by point.

use std::fmt;

use chrono_tz::Tz;
use schemas::{Millis, Minute};
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::calendar::rfc3339;
use crate::read::Watermarks;

/// The largest number that every JSON parser reads exactly.
const MAX_EXACT: u64 = 1 << 53;

/// A count in JSON: a number up to 2^53 (with or without sign), a string above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) i64);

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.unsigned_abs() <= MAX_EXACT { serializer.serialize_i64(self.0) } else { serializer.collect_str(&self.0) }
    }
}

impl PartialSchema for Count {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(-(1i64 << 53))).maximum(Some(1i64 << 53));
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^-?[0-9]{16,19}$"));
        let says = "A number up to 2^53, which every JSON parser reads exactly; a string above.";
        Schema::from(OneOfBuilder::new().item(number).item(text).description(Some(says)).examples([42])).into()
    }
}

impl ToSchema for Count {}

/// A minute in JSON: RFC 3339, in UTC or with a zone's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Minute, pub(crate) Option<Tz>);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rfc3339(self.0, self.1))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0, self.1))
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        let date_time = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        Schema::from(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(date_time))
                .description(Some("RFC 3339: in UTC, or with the offset of `tz` if that was given.")),
        )
        .into()
    }
}

impl ToSchema for Time {}

/// How far the folds had come, all of them: what was still to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) complete_through: Option<Millis>,
    final_before: Option<Millis>,
}

impl Progress {
    pub(crate) fn of(marks: &Watermarks) -> Self {
        Self { complete_through: marks.complete_through, final_before: marks.final_before }
    }

    /// Of an answer that was read in two parts. What nothing is known of comes last.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            complete_through: self.complete_through.min(other.complete_through),
            final_before: self.final_before.min(other.final_before),
        }
    }

    /// As answers show it.
    pub(crate) fn shown(self, tz: Option<Tz>) -> Option<Time> {
        self.complete_through.map(|through| Time(Minute::of(through), tz))
    }
}

/// Counts over a time range.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Series {
    /// The sum of the points.
    pub(crate) total: Count,
    pub(crate) points: Vec<Point>,
}

/// Counts from `start` to the start of the next point, or the end of the range.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Point {
    pub(crate) start: Time,
    pub(crate) views: Count,
    /// Whether only late events, imports and corrections still change it.
    pub(crate) complete: bool,
    /// Whether only imports and corrections still change it.
    pub(crate) r#final: bool,
}

impl Series {
    /// The series of the half-open `ranges` and their counts.
    pub(crate) fn new(ranges: &[(Minute, Minute)], counts: impl Iterator<Item = i64>, progress: Progress, tz: Option<Tz>) -> Self {
        let point = |((start, end), views): (&(Minute, Minute), i64)| Point {
            start: Time(*start, tz),
            views: Count(views),
            complete: progress.complete_through.is_some_and(|through| end.start() <= through),
            r#final: progress.final_before.is_some_and(|before| end.start() < before),
        };
        let points: Vec<Point> = ranges.iter().zip(counts).map(point).collect();
        Self { total: Count(points.iter().fold(0, |sum, point| sum.wrapping_add(point.views.0))), points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_numbers_as_long_as_every_parser_reads_them_exactly() {
        for (count, json) in [
            (0, "0"),
            (-7, "-7"),
            (1 << 53, "9007199254740992"),
            ((1 << 53) + 1, "\"9007199254740993\""),
            (-(1 << 53) - 1, "\"-9007199254740993\""),
            (i64::MIN, "\"-9223372036854775808\""),
        ] {
            assert_eq!(serde_json::to_string(&Count(count)).unwrap(), json);
        }
    }
}
