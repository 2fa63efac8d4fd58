//! Which days change after they were closed: told to caches, which keep what is closed for long.
//!
//! A change is noted whether or not a cell takes it: after a crash the rows may be stored and the announcement not, and then the fold
//! reads the same records again.

use schemas::{Minute, Offset, Stamp};

use crate::store::{TOUCHED_TTL_S, Touched};

/// With more days than these within the life of an announcement, every further one is announced as all days: so what is read each second
/// stays small while years are imported. Without imports there are no more of them than days that may be late.
const MOST_DAYS: usize = 16;
const TTL_US: i64 = TOUCHED_TTL_S as i64 * 1_000_000;
const MINUTES_PER_DAY: i32 = 1_440;

/// The days that have changed lately, the one that changed last at the end.
#[derive(Default)]
pub(super) struct TouchedDays {
    days: Vec<Touched>,
    /// Changes below it are in a flush.
    taken: Offset,
}

impl TouchedDays {
    /// A minute's counts change with a record. Most changes are of the day of the one before.
    #[inline]
    pub(super) fn minute(&mut self, minute: Minute, record: Offset, stamp: Stamp) {
        self.day(minute.0.div_euclid(MINUTES_PER_DAY), record, stamp);
    }

    /// A day's counts, or those of all days, change with a record.
    #[inline]
    pub(super) fn day(&mut self, day: i32, record: Offset, stamp: Stamp) {
        let touched = Touched { day, version: record.next(), stamp };
        match self.days.last_mut() {
            Some(last) if last.day == day => *last = touched,
            _ => self.other(touched),
        }
    }

    fn other(&mut self, touched: Touched) {
        let find = |day| self.days.iter().position(|known| known.day == day);
        let day = if find(touched.day).is_none() && self.days.len() >= MOST_DAYS { Touched::ALL } else { touched.day };
        if let Some(known) = find(day) {
            self.days.swap_remove(known);
        }
        self.days.push(Touched { day, ..touched });
    }

    /// The days that have changed since the last time, by day. Forgets those whose announcement has passed at `now`.
    pub(super) fn take(&mut self, prefix: Offset, now: Stamp) -> Vec<Touched> {
        let mut changed: Vec<_> = self.days.iter().copied().filter(|touched| touched.version > self.taken).collect();
        changed.sort_unstable_by_key(|touched| touched.day);
        self.taken = prefix;
        self.days.retain(|touched| touched.stamp.0 >= now.0.saturating_sub(TTL_US));
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(touched: &[Touched]) -> Vec<(i32, u64)> {
        touched.iter().map(|touched| (touched.day, touched.version.0)).collect()
    }

    #[test]
    fn a_day_is_announced_once_with_its_last_change_and_again_after_another() {
        let mut touched = TouchedDays::default();
        for (offset, minute) in [(3, 0), (4, 1_439), (5, 1_440), (6, 0), (7, -1)] {
            touched.minute(Minute(minute), Offset(offset), Stamp(1));
        }
        assert_eq!(days(&touched.take(Offset(10), Stamp(1))), [(-1, 8), (0, 7), (1, 6)]);
        assert_eq!(touched.take(Offset(12), Stamp(1)), []);
        touched.minute(Minute(1_440), Offset(12), Stamp(1));
        assert_eq!(days(&touched.take(Offset(13), Stamp(1))), [(1, 13)]);
    }

    #[test]
    fn many_days_are_all_days_until_the_announcements_of_the_first_have_passed() {
        let mut touched = TouchedDays::default();
        for day in 0..16 {
            touched.day(day, Offset(1), Stamp(1));
        }
        assert_eq!(touched.take(Offset(2), Stamp(2)).len(), 16);
        // Through many flushes, no more than one further name.
        for day in 16_i32..1_000 {
            let offset = u64::from(day.unsigned_abs());
            touched.day(day, Offset(offset), Stamp(3));
            assert_eq!(days(&touched.take(Offset(offset + 1), Stamp(3))), [(Touched::ALL, offset + 1)]);
        }
        // Those that have a name keep it.
        touched.day(7, Offset(2_000), Stamp(4));
        touched.day(1_000, Offset(2_001), Stamp(4));
        assert_eq!(days(&touched.take(Offset(2_002), Stamp(TTL_US + 3))), [(Touched::ALL, 2_002), (7, 2_001)]);
        touched.day(1_000, Offset(2_002), Stamp(TTL_US + 3));
        assert_eq!(days(&touched.take(Offset(2_003), Stamp(TTL_US + 3))), [(1_000, 2_003)]);
    }
}
