//! A cell as bound values, and back. Pure.
//!
//! The stamp is the write timestamp. Absent values are unset: a null would be a tombstone. A mark counts only if it was written together
//! with the row (equal `WRITETIME`); an older one belongs to a state that is gone.

use std::fmt::Display;

use schemas::{CellKey, Counts, Dimension, Mark, Millis, Minute, Offset, Row, Source, Stamp, StoredRow, Tier};
use scylla::value::MaybeUnset;

use super::error::damaged;
use crate::store::StoreError;

/// The columns of every cell but its bucket, in the order of [`MinuteRow`].
pub(super) const COLUMNS: &str = "source, gross, valid, engaged, version, WRITETIME(version) AS stamp, \
     mark, since_gross, since_valid, since_engaged, WRITETIME(mark) AS mark_stamp";

const MINUTES_PER_DAY: i32 = 1_440;

/// `dimension, entity, day, minute, source, gross, valid, engaged, version, mark, since_*, timestamp, ttl`
pub(super) type MinuteValues<'a> = (
    &'static str,
    &'a str,
    i32,
    i32,
    i32,
    i64,
    i64,
    i64,
    i64,
    MaybeUnset<i64>,
    MaybeUnset<i64>,
    MaybeUnset<i64>,
    MaybeUnset<i64>,
    i64,
    i32,
);

/// `dimension, entity, tier, bucket, source, gross, valid, engaged, version, through, mark, since_*, timestamp, ttl`
pub(super) type RollupValues<'a> = (
    &'static str,
    &'a str,
    &'static str,
    i32,
    i32,
    i64,
    i64,
    i64,
    i64,
    i64,
    MaybeUnset<i64>,
    MaybeUnset<i64>,
    MaybeUnset<i64>,
    MaybeUnset<i64>,
    i64,
    i32,
);

/// The partition of a minute.
pub(super) const fn day_of(minute: Minute) -> i32 {
    minute.0.div_euclid(MINUTES_PER_DAY)
}

/// How a dimension is written.
pub(super) const fn dimension(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Video => "video",
        Dimension::Space => "space",
        Dimension::Site => "site",
    }
}

/// How a tier is written.
pub(super) const fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Minute => "minute",
        Tier::Hour => "hour",
        Tier::Day => "day",
        Tier::Year => "year",
    }
}

/// The number of a source, as the tables hold it.
pub(super) fn source(source: Source) -> Result<i32, StoreError> {
    i32::try_from(source.0).map_err(|_| too_large(&"source", source.0.into()))
}

/// An offset or a count, as the tables hold it.
pub(super) fn bigint(what: &dyn Display, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| too_large(what, value))
}

fn too_large(what: &dyn Display, value: u64) -> StoreError {
    StoreError::Failed(format!("{what} {value} is larger than the tables can hold"))
}

pub(super) fn minute_values<'a>(key: &'a CellKey, stored: &StoredRow, ttl_s: i32) -> Result<MinuteValues<'a>, StoreError> {
    let StoredRow { stamp, row } = stored;
    let (mark, since) = mark_values(key, row.mark)?;
    let version = bigint(&format_args!("the version of {key}:"), row.version.0)?;
    let Counts { gross, valid, engaged } = row.counts;
    let CellKey { entity, bucket, .. } = key;
    let (start, source) = (bucket.start, source(key.source)?);
    let [a, b, c] = since;
    Ok((
        dimension(entity.dimension),
        &entity.id,
        day_of(start),
        start.0,
        source,
        gross,
        valid,
        engaged,
        version,
        mark,
        a,
        b,
        c,
        stamp.0,
        ttl_s,
    ))
}

pub(super) fn rollup_values<'a>(key: &'a CellKey, stored: &StoredRow, ttl_s: i32) -> Result<RollupValues<'a>, StoreError> {
    let (dimension, entity, _, start, source, gross, valid, engaged, version, mark, a, b, c, stamp, ttl) =
        minute_values(key, stored, ttl_s)?;
    let (tier, through) = (tier(key.bucket.tier), stored.row.through.0);
    Ok((dimension, entity, tier, start, source, gross, valid, engaged, version, through, mark, a, b, c, stamp, ttl))
}

fn mark_values(key: &CellKey, mark: Option<Mark>) -> Result<(MaybeUnset<i64>, [MaybeUnset<i64>; 3]), StoreError> {
    let Some(Mark { offset, since }) = mark else { return Ok((MaybeUnset::Unset, [const { MaybeUnset::Unset }; 3])) };
    let offset = bigint(&format_args!("the mark of {key}:"), offset.0)?;
    Ok((MaybeUnset::Set(offset), [since.gross, since.valid, since.engaged].map(MaybeUnset::Set)))
}

type Number = Option<i64>;
/// A minute as it is answered: its start, then [`COLUMNS`].
pub(super) type MinuteRow = (i32, i32, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number);
/// A rollup cell as it is answered: `tier, through`, then as a minute.
pub(super) type RollupRow = (String, Number, i32, i32, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number);

/// A cell as it was read.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The minute, or the bucket.
    pub(super) start: i32,
    /// Of rollups alone.
    tier: Option<String>,
    source: i32,
    gross: Option<i64>,
    valid: Option<i64>,
    engaged: Option<i64>,
    version: Option<i64>,
    through: Option<i64>,
    stamp: Option<i64>,
    mark: Option<i64>,
    since_gross: Option<i64>,
    since_valid: Option<i64>,
    since_engaged: Option<i64>,
    mark_stamp: Option<i64>,
}

impl From<MinuteRow> for Stored {
    fn from(row: MinuteRow) -> Self {
        let (start, source, gross, valid, engaged, version, stamp, mark, since_gross, since_valid, since_engaged, mark_stamp) = row;
        let (tier, through) = (None, None);
        Self {
            start,
            tier,
            source,
            gross,
            valid,
            engaged,
            version,
            through,
            stamp,
            mark,
            since_gross,
            since_valid,
            since_engaged,
            mark_stamp,
        }
    }
}

impl From<RollupRow> for Stored {
    fn from(row: RollupRow) -> Self {
        let (tier, through, start, source, gross, valid, engaged, version, stamp, mark, a, b, c, mark_stamp) = row;
        let minute = Self::from((start, source, gross, valid, engaged, version, stamp, mark, a, b, c, mark_stamp));
        Self { tier: Some(tier), through, ..minute }
    }
}

impl Stored {
    /// The bucket's tier in an answer from the rollup table; minutes otherwise.
    pub(super) fn tier(&self, what: &dyn Display) -> Result<Tier, StoreError> {
        let Some(name) = self.tier.as_deref() else { return Ok(Tier::Minute) };
        let known = Tier::ROLLUPS.into_iter().find(|known| tier(*known) == name);
        known.ok_or_else(|| damaged(what, &format!("tier {name} is not known")))
    }

    /// Whose cell it is.
    pub(super) fn source(&self, what: &dyn Display) -> Result<Source, StoreError> {
        u32::try_from(self.source).map(Source).map_err(|_| damaged(what, &format!("source {}", self.source)))
    }

    /// Its state.
    pub(super) fn decode(&self, tier: Tier, what: &dyn Display) -> Result<StoredRow, StoreError> {
        let absent = |column: &str| damaged(what, &format!("minute {} of source {} has no {column}", self.start, self.source));
        let needed = |column: &str, value: Option<i64>| value.ok_or_else(|| absent(column));
        let offset = |column: &str, value: i64| u64::try_from(value).map(Offset).map_err(|_| damaged(what, &format!("{column} {value}")));
        let stamp = needed("version", self.stamp)?;
        let counts =
            Counts { gross: needed("gross", self.gross)?, valid: needed("valid", self.valid)?, engaged: needed("engaged", self.engaged)? };
        let mark = match self.mark {
            Some(mark) if self.mark_stamp == Some(stamp) => Some(Mark {
                offset: offset("mark", mark)?,
                since: Counts {
                    gross: needed("since_gross", self.since_gross)?,
                    valid: needed("since_valid", self.since_valid)?,
                    engaged: needed("since_engaged", self.since_engaged)?,
                },
            }),
            _ => None,
        };
        let through = if tier == Tier::Minute { Millis::NEVER } else { Millis(needed("through", self.through)?) };
        let version = offset("version", needed("version", self.version)?)?;
        Ok(StoredRow { stamp: Stamp(stamp), row: Row { counts, version, through, mark } })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use proptest::prelude::*;
    use schemas::Entity;

    use super::*;

    fn option(value: MaybeUnset<i64>) -> Option<i64> {
        match value {
            MaybeUnset::Set(value) => Some(value),
            MaybeUnset::Unset => None,
        }
    }

    /// What a server answers that holds nothing but these values.
    fn stored(values: RollupValues<'_>) -> Stored {
        let (_, _, tier, start, source, gross, valid, engaged, version, through, mark, a, b, c, stamp, _) = values;
        let mark = option(mark);
        Stored {
            start,
            tier: Some(tier.to_owned()).filter(|tier| tier != "minute"),
            source,
            gross: Some(gross),
            valid: Some(valid),
            engaged: Some(engaged),
            version: Some(version),
            through: Some(through),
            stamp: Some(stamp),
            mark,
            since_gross: option(a),
            since_valid: option(b),
            since_engaged: option(c),
            mark_stamp: mark.map(|_| stamp),
        }
    }

    prop_compose! {
        fn cell()(dimension in 0u8..3, tier in 0u8..4, minute in Minute::MIN.0..Minute::MAX.0, source in 0u32..=i32::MAX.cast_unsigned(),
                  counts: [i64; 3], since: [i64; 3], version in 0..=i64::MAX.cast_unsigned(), mark in proptest::option::of(0..=i64::MAX.cast_unsigned()),
                  stamp in i64::MIN + 1.., through: i64) -> (CellKey, StoredRow) {
            let tier = Tier::from_code(tier).unwrap();
            let of = |[gross, valid, engaged]: [i64; 3]| Counts { gross, valid, engaged };
            let key = CellKey {
                entity: Entity::new(Dimension::from_code(dimension).unwrap(), "e"), bucket: tier.bucket(Minute(minute)), source: Source(source),
            };
            let through = if tier == Tier::Minute { Millis::NEVER } else { Millis(through) };
            let mark = mark.map(|offset| Mark { offset: Offset(offset), since: of(since) });
            (key, StoredRow { stamp: Stamp(stamp), row: Row { counts: of(counts), version: Offset(version), through, mark } })
        }
    }

    proptest! {
        #[test]
        fn bound_values_read_back((key, written) in cell(), earlier: i64) {
            let read = stored(rollup_values(&key, &written, 0).unwrap());
            let tier = read.tier(&key).unwrap();
            prop_assert_eq!((tier, read.start), (key.bucket.tier, key.bucket.start.0));
            prop_assert_eq!(read.source(&key).unwrap(), key.source);
            prop_assert_eq!(read.decode(tier, &key).unwrap(), written);
            // A mark that an earlier state left behind is no part of a later state without one.
            if written.row.mark.is_none() && earlier < written.stamp.0 {
                let left = Stored { mark: Some(7), since_gross: Some(1), since_valid: Some(1), since_engaged: Some(1), mark_stamp: Some(earlier), ..read };
                prop_assert_eq!(left.decode(tier, &key).unwrap(), written);
            }
        }

        #[test]
        fn a_minute_lies_in_the_partition_of_its_day((key, written) in cell()) {
            let (_, _, day, minute, ..) = minute_values(&key, &written, 0).unwrap();
            prop_assert!((day * MINUTES_PER_DAY..=day * MINUTES_PER_DAY + (MINUTES_PER_DAY - 1)).contains(&minute));
        }
    }

    #[test]
    fn a_row_without_a_mark_binds_no_value_for_it_not_even_null() {
        let key = crate::conformance::minute("v", 0, 0);
        let (.., mark, a, b, c, _, _) = minute_values(&key, &crate::conformance::row(1, 1), 0).unwrap();
        assert!([mark, a, b, c].into_iter().all(|value| matches!(value, MaybeUnset::Unset)));
    }

    #[test]
    fn what_the_tables_cannot_hold_is_refused_and_half_a_row_is_damage() {
        let (key, row) = (crate::conformance::minute("v", 0, u32::MAX), crate::conformance::row(1, 1));
        assert!(matches!(minute_values(&key, &row, 0), Err(StoreError::Failed(_))));
        let key = crate::conformance::minute("v", 0, 0);
        let far = StoredRow { row: Row { version: Offset(u64::MAX), ..row.row }, ..row };
        assert!(matches!(minute_values(&key, &far, 0), Err(StoreError::Failed(_))));
        let whole = stored(rollup_values(&key, &row, 0).unwrap());
        for half in [
            Stored { gross: None, ..whole.clone() },
            Stored { version: Some(-1), ..whole.clone() },
            Stored { stamp: None, ..whole.clone() },
        ] {
            assert!(matches!(half.decode(Tier::Minute, &key), Err(StoreError::Corrupt(_))));
        }
        assert!(matches!(Stored { source: -1, ..whole.clone() }.source(&key), Err(StoreError::Corrupt(_))));
        assert!(matches!(Stored { tier: Some("week".into()), ..whole }.tier(&key), Err(StoreError::Corrupt(_))));
    }
}
