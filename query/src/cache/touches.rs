//! Which days have changed after they were closed, as the store's announcements say. Pure.
//!
//! Each look at the announcements that finds something new begins a generation, and notes it for the days that are named. What was
//! read in generation `g` holds all changes of a day that were announced up to `g`: rows are visible before they are announced. So it
//! may be used as long as none of its days has a later generation.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use aggregator::Touched;
use aggregator::store::TOUCHED_TTL_S;
use schemas::{Offset, Source};

use super::chunk::Chunk;

/// How often the announcements are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// More days than this are not told apart.
const DAYS_MAX: usize = 10_000;

/// What has been announced, and when it was noticed.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    announced: HashMap<(Source, i32), Offset>,
    days: BTreeMap<i32, u64>,
    /// The generation of what concerned every day.
    all: u64,
    generation: u64,
    looked: Option<Instant>,
}

impl Touches {
    /// The present generation.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// When the last look that succeeded began.
    pub(crate) const fn looked(&self) -> Option<Instant> {
        self.looked
    }

    /// Whether it is time to look again.
    pub(crate) fn is_due(&self, at: Instant) -> bool {
        self.looked.is_none_or(|looked| at.saturating_duration_since(looked) >= EVERY)
    }

    /// Takes what a look that began `at` has found.
    pub(crate) fn learn(&mut self, found: Vec<(Source, Touched)>, at: Instant) {
        let gap = self.looked.map(|looked| at.saturating_duration_since(looked));
        // An announcement may have come and gone.
        let missed = gap.is_none_or(|gap| gap.as_secs() >= u64::from(TOUCHED_TTL_S.unsigned_abs()) / 2);
        let found: HashMap<(Source, i32), Offset> =
            found.into_iter().map(|(source, Touched { day, version, .. })| ((source, day), version)).collect();
        let is_new = |(key, version): &(&(Source, i32), &Offset)| self.announced.get(*key) != Some(*version);
        let days: Vec<i32> = found.iter().filter(is_new).map(|((_, day), _)| *day).collect();
        if missed || days.contains(&Touched::ALL) || self.days.len() + days.len() > DAYS_MAX {
            self.drop_all();
        } else if !days.is_empty() {
            self.generation += 1;
            self.days.extend(days.into_iter().map(|day| (day, self.generation)));
        }
        self.announced = found;
        self.looked = Some(at);
    }

    /// Nothing that was read before may be used.
    pub(crate) fn drop_all(&mut self) {
        self.generation += 1;
        self.all = self.generation;
        self.days.clear();
    }

    /// The generation of the last change to a chunk.
    pub(crate) fn changed(&self, chunk: Chunk) -> u64 {
        let (first, end) = chunk.days();
        self.days.range(first..end).map(|(_, generation)| *generation).max().unwrap_or_default().max(self.all)
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Minute, Stamp, Tier};

    use super::*;
    use crate::plan::Run;

    fn touched(source: u32, day: i32, version: u64) -> (Source, Touched) {
        (Source(source), Touched { day, version: Offset(version), stamp: Stamp(0) })
    }

    /// The hours of a day.
    fn day(day: i32) -> Chunk {
        Chunk::of(Run { tier: Tier::Hour, start: Minute(day * 1_440), end: Minute(day * 1_440 + 60) }, Minute::MAX).next().unwrap()
    }

    #[test]
    fn a_day_changes_when_any_source_announces_another_version_of_it() {
        let start = Instant::now();
        let second = |n: u64| start + Duration::from_secs(n);
        let mut touches = Touches::default();
        assert!(touches.is_due(start));
        touches.learn(vec![touched(0, 5, 10)], start);
        let first = touches.generation();
        assert!(touches.changed(day(5)) == first && touches.changed(day(6)) == first, "before the first look anything may have changed");
        assert!(!touches.is_due(start + Duration::from_millis(999)) && touches.is_due(second(1)));
        touches.learn(vec![touched(0, 5, 10)], second(1));
        assert_eq!(touches.generation(), first);
        touches.learn(vec![touched(0, 5, 11), touched(1, 7, 1)], second(2));
        assert!(touches.changed(day(5)) == first + 1 && touches.changed(day(7)) == first + 1 && touches.changed(day(6)) == first);
        touches.learn(vec![touched(0, 5, 11), touched(1, 5, 11), touched(1, 7, 1)], second(3));
        assert!(touches.changed(day(5)) == first + 2 && touches.changed(day(7)) == first + 1);
        // It expired, and comes again.
        touches.learn(vec![touched(0, 5, 11)], second(4));
        assert_eq!(touches.generation(), first + 2);
        touches.learn(vec![touched(0, 5, 11), touched(1, 7, 1)], second(5));
        assert_eq!(touches.changed(day(7)), first + 3);
    }

    #[test]
    fn every_day_changes_when_it_is_said_so_and_when_nobody_looked_for_too_long() {
        let start = Instant::now();
        let mut touches = Touches::default();
        touches.learn(vec![], start);
        touches.learn(vec![touched(0, Touched::ALL, 9)], start + Duration::from_secs(1));
        assert_eq!((touches.changed(day(-700_000)), touches.generation()), (2, 2));
        touches.learn(vec![touched(0, Touched::ALL, 9)], start + Duration::from_secs(300));
        assert_eq!(touches.generation(), 2);
        touches.learn(vec![touched(0, Touched::ALL, 9)], start + Duration::from_secs(600));
        assert_eq!((touches.changed(day(5)), touches.generation()), (3, 3));
    }

    #[test]
    fn days_without_end_cost_no_memory_without_end() {
        let start = Instant::now();
        let mut touches = Touches::default();
        touches.learn(vec![], start);
        for n in 0..11 {
            let days = (0..1_000).map(|day| touched(0, n * 1_000 + day, 1)).collect();
            touches.learn(days, start + Duration::from_secs(1));
        }
        assert!(touches.days.len() <= DAYS_MAX);
        assert_eq!(touches.changed(day(0)), touches.generation());
    }
}
