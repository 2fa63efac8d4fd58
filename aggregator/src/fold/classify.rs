//! Whether the log clock lets an event count. The same function decides live, in warm-up, and for whoever asks what became of an event.

use std::ops::RangeInclusive;

use schemas::{FoldSettings, Millis, Reason, Rejection};

/// The reason to refuse an event that happened at `ts`, read when the log clock stood at `clock`.
///
/// The future is refused without exception, for historical records too: recovery depends on it.
pub(crate) fn refusal(ts: Millis, clock: Millis, historical: bool, settings: &FoldSettings) -> Option<Reason> {
    if ts > clock.plus(settings.max_skew_ms) {
        Some(Reason::InFuture)
    } else if !historical && ts < clock.plus(-settings.max_lateness_ms) {
        Some(Reason::TooOld)
    } else {
        None
    }
}

/// Lets an event count or refuses it, as [`refusal`] does, with an explanation for people.
///
/// # Errors
/// The refusal.
pub fn judge(ts: Millis, clock: Millis, historical: bool, settings: &FoldSettings) -> Result<(), Rejection> {
    match refusal(ts, clock, historical, settings) {
        None => Ok(()),
        Some(reason) => Err(Rejection::new(reason, explain(reason, ts, clock, settings))),
    }
}

/// The instants at which [`refusal`] refuses nothing.
pub(crate) fn accepted(clock: Millis, historical: bool, settings: &FoldSettings) -> RangeInclusive<Millis> {
    let first = if historical { Millis(i64::MIN) } else { clock.plus(-settings.max_lateness_ms) };
    first..=clock.plus(settings.max_skew_ms)
}

/// The refusal for people.
pub(crate) fn explain(reason: Reason, ts: Millis, clock: Millis, settings: &FoldSettings) -> String {
    if reason == Reason::InFuture {
        let limit_s = settings.max_skew_ms / 1_000;
        format!("ts {ts} is more than {limit_s} s after the log clock {clock}; check the producer's clock")
    } else {
        let limit_h = settings.max_lateness_ms / 3_600_000;
        format!("ts {ts} is more than {limit_h} h before the log clock {clock}; send it as historical to count it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_are_inclusive() {
        let settings = FoldSettings { max_skew_ms: 60, max_lateness_ms: 700, ..FoldSettings::default() };
        let at = |ts, historical| refusal(Millis(ts), Millis(1_000), historical, &settings);
        assert_eq!(at(1_060, false), None);
        assert_eq!(at(1_061, false), Some(Reason::InFuture));
        assert_eq!(at(1_061, true), Some(Reason::InFuture));
        assert_eq!(at(300, false), None);
        assert_eq!(at(299, false), Some(Reason::TooOld));
        assert_eq!(at(299, true), None);
        for (ts, historical) in (200..1_200).flat_map(|ts| [(ts, false), (ts, true)]) {
            assert_eq!(accepted(Millis(1_000), historical, &settings).contains(&Millis(ts)), at(ts, historical).is_none(), "{ts}");
        }
    }
}
