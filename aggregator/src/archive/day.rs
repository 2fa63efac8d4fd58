//! Which day an archived row belongs to. Pure.

use schemas::time::{MAX_MILLIS, MIN_MILLIS};
use schemas::{Millis, Record};

use super::piece::Piece;

const DAY_MS: i64 = 86_400_000;

/// An event that is not historical is put with its own day only if that is so near to its append time, in days. The fold refuses what
/// is further (`max_lateness` may be set higher, and then it is merely found under another day); a producer with a wild clock would
/// otherwise make a file for each event.
const NEAR_DAYS: i32 = 31;

/// The day of an instant, counted from 1970.
pub fn day_of(at: Millis) -> i32 {
    let at = at.clamp(MIN_MILLIS, MAX_MILLIS);
    i32::try_from(at.0.div_euclid(DAY_MS)).unwrap_or_default()
}

/// Its first instant.
pub fn day_start(day: i32) -> Millis {
    Millis(i64::from(day) * DAY_MS)
}

/// Its name, such as 2026-11-22.
pub fn day_name(day: i32) -> String {
    day_start(day).to_rfc3339().chars().take(10).collect()
}

/// The day that a piece of a record is put into: the event's, or that of the append time for what has none.
pub(super) fn day_for(record: &Record<'_>, piece: &Piece<'_>) -> i32 {
    let appended = day_of(record.append_time);
    match piece {
        Piece::Event(event, _) => {
            let own = day_of(event.ts);
            if record.historical || own.abs_diff(appended) <= NEAR_DAYS.unsigned_abs() { own } else { appended }
        }
        Piece::Rejected(..) | Piece::Payload(_) => appended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_names() {
        assert_eq!(day_name(0), "1970-01-01");
        assert_eq!(day_name(-1), "1969-12-31");
        assert_eq!(day_name(day_of(Millis(i64::MAX))), "9999-12-31");
        assert_eq!(day_name(day_of(Millis::NEVER)), "0001-01-01");
    }
}
