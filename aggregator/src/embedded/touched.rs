//! Which days of which source have changed after they were closed. In memory only: what reads it lives and dies with this process, and its
//! cache with it.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use schemas::Source;

use super::open::Inner;
use crate::store::Touched;

/// Of a source with more days than these, every day is said to have changed. Folds announce fewer.
const MOST_DAYS: usize = 64;

/// By source and day.
#[derive(Default)]
pub(super) struct TouchedDays(BTreeMap<Source, BTreeMap<i32, Touched>>);

impl TouchedDays {
    fn add(&mut self, source: Source, touched: Touched) {
        let days = self.0.entry(source).or_default();
        let known = days.entry(touched.day).or_insert(touched);
        if known.stamp < touched.stamp {
            *known = touched;
        }
        if days.len() > MOST_DAYS {
            let newest = days.values().copied().max_by_key(|touched| touched.stamp);
            *days = newest.into_iter().map(|newest| (Touched::ALL, Touched { day: Touched::ALL, ..newest })).collect();
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Source, Touched)> + '_ {
        self.0.iter().flat_map(|(source, days)| days.values().map(|touched| (*source, *touched)))
    }
}

impl Inner {
    pub(super) fn write_touched(&self, source: Source, days: &[Touched]) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        days.iter().for_each(|day| touched.add(source, *day));
    }

    pub(super) fn read_touched(&self) -> Vec<(Source, Touched)> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Offset, Stamp};

    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_the_newest_change_stays_announced() {
        let mut touched = TouchedDays::default();
        for n in 0..1_000_i32 {
            let version = Offset(u64::from(n.unsigned_abs()) + 1);
            touched.add(Source(0), Touched { day: n, version, stamp: Stamp(n.into()) });
            assert!(touched.iter().count() <= MOST_DAYS);
            let is_said = |(_, said): (Source, Touched)| said.version == version && (said.day == n || said.day == Touched::ALL);
            assert!(touched.iter().any(is_said), "{n}");
        }
    }
}
