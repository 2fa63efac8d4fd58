//! The only clock the fold knows: the log's own, and what follows from it.
//!
//! `clock` is the largest append time of a prefix and never goes back; the stamp rises with every record; `closed` is
//! the watermark that trails the clock by the grace. All three are functions of the log prefix alone.

use std::collections::VecDeque;

use schemas::{FoldSettings, Millis, Minute, Offset, Stamp};

/// Clock, stamp and watermark of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogClock {
    pub(crate) clock: Millis,
    pub(crate) stamp: Stamp,
    /// Minutes that start before it are rolled up; [`Minute::NEVER`] for the empty prefix.
    pub(crate) closed: Minute,
    /// The append time of the last record.
    pub(crate) append_time: Millis,
}

impl LogClock {
    pub(crate) const EMPTY: Self = Self { clock: Millis::NEVER, stamp: Stamp(0), closed: Minute::NEVER, append_time: Millis::NEVER };

    /// Moves on by one record, and returns the watermark as it was.
    pub(crate) fn advance(&mut self, append_time: Millis, grace_ms: i64) -> Minute {
        let before = self.closed;
        self.append_time = append_time;
        self.clock = self.clock.max(append_time);
        self.stamp = self.stamp.next(self.clock);
        self.closed = before.max(Minute::of(self.clock.plus(-grace_ms)));
        before
    }
}

/// The first minute of append time that a recovery from a prefix with this watermark has to read.
///
/// A *sum*: an event of an open minute can have been read when the clock stood at `closed - max_skew`, and telling whether
/// it was a duplicate needs the ids of `dedup_minutes` before that.
pub(crate) fn warm_up_minute(closed: Minute, settings: &FoldSettings) -> Minute {
    if closed == Minute::NEVER {
        return Minute::NEVER;
    }
    Minute::of(closed.start().plus(-settings.max_skew_ms)).plus(settings.dedup_minutes.saturating_neg())
}

/// Where each minute of log clock began: finds the first record of a warm-up range without asking the log.
///
/// The first record with an append time at or after a minute is the one with which the clock reached that minute, because
/// the clock is the largest append time so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct WarmIndex {
    /// (minute of clock, first offset at which the clock stood there), rising in both.
    minutes: VecDeque<(Minute, Offset)>,
}

impl WarmIndex {
    pub(crate) fn note(&mut self, clock: Millis, offset: Offset) {
        let minute = Minute::of(clock);
        if self.minutes.back().is_none_or(|(last, _)| *last < minute) {
            self.minutes.push_back((minute, offset));
        }
    }

    /// The first offset of the warm-up range that starts at `from`; `next` if no record is in it. Forgets what lies before.
    pub(crate) fn first_from(&mut self, from: Minute, next: Offset) -> Offset {
        while self.minutes.front().is_some_and(|(minute, _)| *minute < from) {
            self.minutes.pop_front();
        }
        self.minutes.front().map_or(next, |(_, offset)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_watermark_trails_by_the_grace_and_never_falls() {
        let mut at = LogClock::EMPTY;
        assert_eq!(at.advance(Millis(69_999), 10_000), Minute::NEVER);
        assert_eq!(at.closed, Minute(0));
        at.advance(Millis(70_000), 10_000);
        assert_eq!(at.closed, Minute(1));
        at.advance(Millis(5), 10_000);
        assert_eq!((at.closed, at.clock, at.append_time), (Minute(1), Millis(70_000), Millis(5)));
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_of_append_times_finds(steps in proptest::collection::vec((0i64..90_000, 0i64..100_000), 1..60)) {
            let mut index = WarmIndex::default();
            let (mut wall, mut clock, mut times) = (0, Millis::NEVER, Vec::new());
            for (offset, (step, back)) in (0..).zip(steps) {
                wall += step;
                let append_time = if back > 90_000 { wall - (back - 90_000) } else { wall };
                times.push(append_time);
                clock = clock.max(Millis(append_time));
                index.note(clock, Offset(offset));
                let from = Minute::of(clock).plus(-3);
                let scanned = times.iter().position(|t| *t >= from.start().0).unwrap();
                prop_assert_eq!(index.clone().first_from(from, Offset(offset + 1)), Offset(scanned as u64));
                index.first_from(from, Offset(offset + 1));
            }
        }
    }
}
