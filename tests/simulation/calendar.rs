//! Bucket arithmetic and date texts for the auditor, made apart from the program's own: years are walked, not computed.

pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const NEVER: i64 = i64::MIN;
/// Tiers by their stored code.
pub(crate) const MINUTE: u8 = 0;
pub(crate) const HOUR: u8 = 1;
pub(crate) const DAY: u8 = 2;
pub(crate) const YEAR: u8 = 3;

/// The minute that holds an instant.
pub(crate) const fn minute_of(ms: i64) -> i64 {
    ms.div_euclid(MINUTE_MS)
}

const fn days_in(year: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if leap { 366 } else { 365 }
}

/// The year that holds a day, and the day on which it begins.
const fn year_around(day: i64) -> (i64, i64) {
    let (mut year, mut first) = (1970, 0);
    while day < first {
        year -= 1;
        first -= days_in(year);
    }
    while day >= first + days_in(year) {
        first += days_in(year);
        year += 1;
    }
    (year, first)
}

/// The first minute of the bucket of a tier that holds `minute`.
pub(crate) const fn bucket(tier: u8, minute: i64) -> i64 {
    match tier {
        MINUTE => minute,
        HOUR => minute.div_euclid(60) * 60,
        DAY => minute.div_euclid(1_440) * 1_440,
        _ => year_around(minute.div_euclid(1_440)).1 * 1_440,
    }
}

/// The first minute after the bucket.
pub(crate) const fn bucket_end(tier: u8, start: i64) -> i64 {
    match tier {
        MINUTE => start + 1,
        HOUR => start + 60,
        DAY => start + 1_440,
        _ => {
            let (year, first) = year_around(start.div_euclid(1_440));
            (first + days_in(year)) * 1_440
        }
    }
}

/// An instant as RFC 3339 with an offset of whole minutes.
pub(crate) fn rfc3339(ms: i64, offset_minutes: i64) -> String {
    let local = ms + offset_minutes * MINUTE_MS;
    let (day, in_day) = (local.div_euclid(86_400_000), local.rem_euclid(86_400_000));
    let (year, first) = year_around(day);
    let february = days_in(year) - 337;
    let (mut month, mut rest) = (1, day - first);
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < len {
            break;
        }
        rest -= len;
        month += 1;
    }
    let (s, ms) = (in_day / 1_000, in_day % 1_000);
    let zone = match offset_minutes {
        0 => "Z".to_owned(),
        m => format!("{}{:02}:{:02}", if m < 0 { '-' } else { '+' }, m.abs() / 60, m.abs() % 60),
    };
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}{fraction}{zone}", rest + 1, s / 3_600, s / 60 % 60, s % 60)
}
