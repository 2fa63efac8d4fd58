//! Instants: milliseconds of event and append time, microsecond stamps, and RFC 3339 in and out.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// An instant in Unix milliseconds (UTC, no leap seconds); negative before 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

/// `0001-01-01T00:00:00Z`, the earliest instant that RFC 3339 can write.
pub const MIN_MILLIS: Millis = Millis(-62_135_596_800_000);
/// `9999-12-31T23:59:59.999Z`, the latest instant that RFC 3339 can write.
pub const MAX_MILLIS: Millis = Millis(253_402_300_799_999);

impl Millis {
    /// Before every instant: the clock of an empty log.
    pub const NEVER: Self = Self(i64::MIN);

    /// The machine's wall clock. Only drivers call this; what decides takes time as an argument.
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
    }

    /// This instant moved by `millis`, saturating; [`Millis::NEVER`] stays itself.
    #[must_use]
    pub const fn plus(self, millis: i64) -> Self {
        if self.0 == i64::MIN { self } else { Self(self.0.saturating_add(millis)) }
    }

    /// Milliseconds from `earlier` to this instant, saturating.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether RFC 3339 can write it (years 1 to 9999).
    pub fn is_representable(self) -> bool {
        (MIN_MILLIS..=MAX_MILLIS).contains(&self)
    }

    /// Parses an RFC 3339 date and time: `2026-11-20T12:34:56.789Z`, any offset, `T` or a space between.
    ///
    /// Fractions below a millisecond are cut; second 60 is the first instant of the next minute.
    /// Years 1 to 9999. `None` for anything else.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        parse_rfc3339(text.as_bytes())
    }

    /// As RFC 3339 in UTC with as many fraction digits as are not zero, or the bare number outside years 1 to 9999.
    pub fn to_rfc3339(self) -> String {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(at) if self.is_representable() => at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            _ => self.0.to_string(),
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// A record's place in time in microseconds: strictly increasing along a source, close to the wall clock.
///
/// It is the write timestamp of every row that the record last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(pub i64);

impl Stamp {
    /// The stamp of the record after one stamped `self`, when the log clock stands at `clock`.
    ///
    /// ```
    /// use schemas::{Millis, Stamp};
    /// assert_eq!(Stamp(0).next(Millis(5)), Stamp(5_000));
    /// assert_eq!(Stamp(5_000).next(Millis(5)), Stamp(5_001));
    /// ```
    #[must_use]
    pub const fn next(self, clock: Millis) -> Self {
        let after = self.0.saturating_add(1);
        let clock_us = clock.0.saturating_mul(1_000);
        Self(if after > clock_us { after } else { clock_us })
    }
}

/// The number that ASCII digits write.
fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

/// The number that each two neighbouring bytes of `text` write, if it has digits where `form` has zeros, and is `form` elsewhere
/// (where `form` has other characters, these count as zeros).
#[inline]
fn pairs_of_form(text: [u8; 8], form: [u8; 8]) -> Option<[u8; 8]> {
    // All eight bytes at once: what is above its limit is what reaches the high bit when the limit's distance to it is added.
    let digits = u64::from_le_bytes(text) ^ u64::from_le_bytes(form);
    let distance = u64::from_le_bytes(form.map(|byte| if byte == b'0' { 0x7f - 9 } else { 0x7f }));
    let beyond = (digits | digits.wrapping_add(distance)) & 0x8080_8080_8080_8080;
    (beyond == 0).then(|| (digits * 10 + (digits >> 8)).to_le_bytes())
}

fn parse_rfc3339(text: &[u8]) -> Option<Millis> {
    let (year_month, rest) = text.split_first_chunk()?;
    let (&[d0 @ b'0'..=b'9', d1 @ b'0'..=b'9', b'T' | b't' | b' '], rest) = rest.split_first_chunk()? else { return None };
    let (time, rest) = rest.split_first_chunk()?;
    let [century, _, year, _, _, month, ..] = pairs_of_form(*year_month, *b"0000-00-")?.map(u32::from);
    let [hour, _, _, minute, _, _, second, _] = pairs_of_form(*time, *b"00:00:00")?.map(u32::from);
    let (year, day) = (century * 100 + year, u32::from(d0 - b'0') * 10 + u32::from(d1 - b'0'));
    if year < 1 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, zone) = fraction_ms(rest)?;
    let days = days_from_civil(year, month, day)?;
    let local_s = days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    let at = Millis((local_s - zone_offset_s(zone)?) * 1_000 + i64::from(fraction_ms));
    at.is_representable().then_some(at)
}

/// The fraction of a second in ms, 0 if there is none, and what comes after it.
#[inline]
fn fraction_ms(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(fraction) = text.strip_prefix(b".") else { return Some((0, text)) };
    let len = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = fraction.split_at_checked(len)?;
    let digit = |at: usize| digits.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    (len > 0).then(|| (digit(0) * 100 + digit(1) * 10 + digit(2), zone))
}

#[inline]
fn zone_offset_s(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (digits(&[h0, h1])?, digits(&[m0, m1])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3_600 + minutes * 60;
            Some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date; `None` if there is no such date.
fn days_from_civil(year: u32, month: u32, day: u32) -> Option<i64> {
    Some(i64::from(NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?.to_epoch_days()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    #[test]
    fn rfc3339_forms() {
        let ok = |text: &str, ms: i64| assert_eq!(Millis::parse_rfc3339(text), Some(Millis(ms)), "{text}");
        ok("1970-01-01T00:00:00Z", 0);
        ok("1970-01-01T00:00:00.001Z", 1);
        ok("1970-01-01T00:00:00.0019999Z", 1);
        ok("1969-12-31T23:59:59.9Z", -100);
        ok("1970-01-01t01:00:00+01:00", 0);
        ok("1969-12-31 19:00:00-05:00", 0);
        ok("2016-12-31T23:59:60Z", 1_483_228_800_000);
        ok("0001-01-01T00:00:00Z", MIN_MILLIS.0);
        ok("9999-12-31T23:59:59.999Z", MAX_MILLIS.0);
        for bad in [
            "",
            "1970",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-13-01T00:00:00Z",
            "1970-02-30T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:60:00Z",
            "1970-01-01T00:00:61Z",
            "0000-01-01T00:00:00Z",
            "1970-01-01T00:00:00+0100",
            "1970-01-01T00:00:00Z ",
            "+970-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01Tab:00:00Z",
            "9999-12-31T23:59:60Z",
            "١٩٧٠-01-01T00:00:00Z",
            "1970-01-01T00:00:éZ",
        ] {
            assert_eq!(Millis::parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn rfc3339_round_trips(ms in MIN_MILLIS.0..=MAX_MILLIS.0) {
            prop_assert_eq!(Millis::parse_rfc3339(&Millis(ms).to_rfc3339()), Some(Millis(ms)));
        }

        #[test]
        fn agrees_with_chrono(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5][0-9])",
            slips in proptest::collection::vec((any::<Index>(), prop_oneof![select(b"/:;09Ttz -+.".to_vec()), 0..=0x7f_u8]), 0..2),
        ) {
            let mut text = text.into_bytes();
            for (place, byte) in slips {
                let place = place.index(text.len());
                text[place] = byte;
            }
            let text = String::from_utf8(text).unwrap();
            let theirs = DateTime::parse_from_rfc3339(&text).ok().map(|t| Millis(t.timestamp_millis())).filter(|t| t.is_representable());
            // Year 0 is a date to chrono and not to us.
            let year_zero = text.starts_with("0000");
            prop_assert_eq!(Millis::parse_rfc3339(&text), if year_zero { None } else { theirs });
        }

        #[test]
        fn stamps_rise(clocks in proptest::collection::vec(0i64..10_000, 1..50)) {
            let mut clock = Millis(0);
            let mut last = Stamp(0);
            for c in clocks {
                clock = clock.max(Millis(c));
                let next = last.next(clock);
                prop_assert!(next > last && next.0 >= clock.0 * 1_000);
                last = next;
            }
        }
    }
}
