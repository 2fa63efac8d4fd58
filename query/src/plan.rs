//! The planner: a time range as the fewest stored buckets. Pure.
//!
//! ```text
//! 2024-12-31T22:30 ........................................... 2026-01-02T01:10
//!   minutes  hours | year 2025 | day | hour | minutes
//! ```
//!
//! Buckets nest, so the fewest pieces are the largest buckets that lie whole in the range. A tier is used only for buckets
//! whose time to live has not passed; where that takes a tier away, finer ones stand in, and where none is left the
//! resolution is gone.

use schemas::{Bucket, FoldSettings, Millis, Minute, Tier};
use thiserror::Error;

/// Contiguous buckets of one tier: one slice of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Their length.
    pub tier: Tier,
    /// Where the first starts.
    pub start: Minute,
    /// Where the last ends.
    pub end: Minute,
}

impl Run {
    /// The part of it before `last`, if there is one. Of minutes only: it cuts where it is told.
    pub fn until(self, last: Minute) -> Option<Self> {
        (self.start < last).then_some(Self { end: self.end.min(last), ..self })
    }
}

/// A part of a range can only be answered by buckets that are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("counts by {} from {start} to {end} are no longer kept; they begin at {oldest}", tier_name(*tier))]
pub struct Gone {
    /// The coarsest tier that could answer.
    pub tier: Tier,
    /// The part's start.
    pub start: Minute,
    /// The part's end.
    pub end: Minute,
    /// From here on there are counts of that tier or a finer one.
    pub oldest: Minute,
}

const fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Minute => "minute",
        Tier::Hour => "hour",
        Tier::Day => "day",
        Tier::Year => "year",
    }
}

/// What is still kept: the fold's times to live at a clock, the later of the wall's and the log's.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The times to live.
    pub settings: &'a FoldSettings,
    /// The clock.
    pub clock: Millis,
}

impl Kept<'_> {
    /// The start of the first bucket of a tier whose time to live has not passed; [`Minute::NEVER`] if all are kept.
    pub fn oldest(&self, tier: Tier) -> Minute {
        match self.settings.ttl_ms(tier) {
            ttl_ms if ttl_ms > 0 => tier.bucket(Minute::of(self.clock.plus(-ttl_ms))).start,
            _ => Minute::NEVER,
        }
    }
}

/// Tiles `[start, end)` with the fewest buckets that are kept, in order of time.
///
/// # Errors
/// If a part of it is covered by no bucket that is kept.
pub fn plan(start: Minute, end: Minute, kept: &Kept<'_>) -> Result<Vec<Run>, Gone> {
    plan_by(&[Tier::Year, Tier::Day, Tier::Hour, Tier::Minute], start, end, kept)
}

/// The same with some tiers only, coarse to fine.
///
/// # Errors
/// If a part of it is covered by no bucket of these tiers that is kept.
pub fn plan_by(tiers: &[Tier], start: Minute, end: Minute, kept: &Kept<'_>) -> Result<Vec<Run>, Gone> {
    let mut runs = Vec::new();
    cover(start, end, tiers, kept, &mut runs).map_err(|(start, end)| gone(start, end, tiers, kept))?;
    Ok(runs)
}

/// Takes what the coarsest of `tiers` can, and leaves both ends to the finer ones. The error is the part that none covers.
fn cover(start: Minute, end: Minute, tiers: &[Tier], kept: &Kept<'_>, runs: &mut Vec<Run>) -> Result<(), (Minute, Minute)> {
    if start >= end {
        return Ok(());
    }
    let Some((&tier, finer)) = tiers.split_first() else { return Err((start, end)) };
    // Most ranges are points of a series, shorter than any coarse bucket.
    if i64::from(end.0) - i64::from(start.0) < least_minutes(tier) {
        return cover(start, end, finer, kept, runs);
    }
    let (from, to) = (first_at_or_after(tier, start).max(kept.oldest(tier)), tier.bucket(end).start);
    if from >= to {
        return cover(start, end, finer, kept, runs);
    }
    cover(start, from, finer, kept, runs)?;
    runs.push(Run { tier, start: from, end: to });
    cover(to, end, finer, kept, runs)
}

/// How long its shortest bucket is.
const fn least_minutes(tier: Tier) -> i64 {
    match tier {
        Tier::Minute => 1,
        Tier::Hour => 60,
        Tier::Day => 1_440,
        Tier::Year => 365 * 1_440,
    }
}

fn first_at_or_after(tier: Tier, minute: Minute) -> Minute {
    let bucket = tier.bucket(minute);
    if bucket.start == minute { minute } else { bucket.end() }
}

fn gone(start: Minute, end: Minute, tiers: &[Tier], kept: &Kept<'_>) -> Gone {
    let whole = |tier: &Tier| Bucket::is_aligned(*tier, start) && Bucket::is_aligned(*tier, end);
    let tier = tiers.iter().copied().find(whole).unwrap_or(Tier::Minute);
    let finer = tiers.iter().copied().filter(|other| *other <= tier);
    Gone { tier, start, end, oldest: finer.map(|tier| kept.oldest(tier)).min().unwrap_or(Minute::NEVER) }
}

/// The slices to read for many runs: runs of a tier that touch, overlap or nearly touch are read as one.
///
/// Reading a few buckets too many costs less than another read; whoever sums takes only what its runs name.
pub fn slices(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable();
    let mut merged: Vec<Run> = Vec::new();
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.tier == run.tier && run.start <= last.end.plus(near(run.tier)) => last.end = last.end.max(run.end),
            _ => merged.push(run),
        }
    }
    merged
}

/// How many minutes may lie between two runs that are read as one: a day of hours has a gap of one in zones with half-hour offsets.
const fn near(tier: Tier) -> i32 {
    match tier {
        Tier::Minute => 60,
        Tier::Hour => 24 * 60,
        Tier::Day => 31 * 1_440,
        Tier::Year => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minute(text: &str) -> Minute {
        Minute::of(Millis::parse_rfc3339(text).expect("a time"))
    }

    fn settings(minute_ttl_ms: i64, hour_ttl_ms: i64) -> FoldSettings {
        FoldSettings { minute_ttl_ms, hour_ttl_ms, ..FoldSettings::default() }
    }

    fn pieces(run: &Run) -> impl Iterator<Item = Bucket> {
        let first = Bucket { tier: run.tier, start: run.start };
        let end = run.end;
        std::iter::successors(Some(first), |bucket| Some(bucket.next())).take_while(move |bucket| bucket.start < end)
    }

    #[test]
    fn a_range_is_the_largest_buckets_that_lie_whole_in_it() {
        let settings = settings(0, 0);
        let kept = Kept { settings: &settings, clock: Millis::NEVER };
        let runs = plan(minute("2024-12-30T22:30:00Z"), minute("2026-01-02T01:10:00Z"), &kept).expect("all is kept");
        let tiers: Vec<(Tier, usize)> = runs.iter().map(|run| (run.tier, pieces(run).count())).collect();
        let expected =
            [(Tier::Minute, 30), (Tier::Hour, 1), (Tier::Day, 1), (Tier::Year, 1), (Tier::Day, 1), (Tier::Hour, 1), (Tier::Minute, 10)];
        assert_eq!(tiers, expected);
        let always = plan(Minute::MIN, Minute::MAX, &kept).expect("all is kept");
        assert_eq!(always, [Run { tier: Tier::Year, start: Minute::MIN, end: Minute::MAX }]);
        assert_eq!(plan(Minute(5), Minute(5), &kept), Ok(vec![]));
    }

    #[test]
    fn a_resolution_that_is_gone_says_from_when_there_is_one() {
        let settings = settings(90 * 86_400_000, 400 * 86_400_000);
        let clock = Millis::parse_rfc3339("2026-11-20T12:34:56Z").expect("a time");
        let kept = Kept { settings: &settings, clock };
        let oldest_minute = minute("2026-08-22T12:34:00Z");
        let table = [
            ("2026-08-22T12:34:00Z", "2026-08-22T12:35:00Z", Ok(Tier::Minute)),
            ("2026-08-22T12:33:00Z", "2026-08-22T12:34:00Z", Err((Tier::Minute, oldest_minute))),
            ("2026-01-05T10:00:00Z", "2026-01-05T11:00:00Z", Ok(Tier::Hour)),
            ("2026-01-05T10:00:00Z", "2026-01-05T11:01:00Z", Err((Tier::Minute, oldest_minute))),
            ("2024-01-05T10:00:00Z", "2024-01-05T11:00:00Z", Err((Tier::Hour, minute("2025-10-16T12:00:00Z")))),
            ("2024-01-05T00:00:00Z", "2024-01-06T00:00:00Z", Ok(Tier::Day)),
        ];
        for (start, end, expected) in table {
            let got = plan(minute(start), minute(end), &kept);
            assert_eq!(got.map(|runs| runs[0].tier).map_err(|gone| (gone.tier, gone.oldest)), expected, "{start}");
        }
    }

    #[test]
    fn nearly_touching_runs_are_one_slice() {
        let run = |tier, start, end| Run { tier, start: Minute(start), end: Minute(end) };
        let runs =
            vec![run(Tier::Hour, 60, 1_440), run(Tier::Minute, 30, 60), run(Tier::Hour, 1_500, 2_880), run(Tier::Minute, 1_440, 1_500)];
        assert_eq!(slices(runs), [run(Tier::Minute, 30, 60), run(Tier::Minute, 1_440, 1_500), run(Tier::Hour, 60, 2_880)]);
    }

    /// The fewest usable buckets that tile the range, by trying every bucket at every minute.
    fn fewest(start: Minute, end: Minute, kept: &Kept<'_>) -> Option<u32> {
        let length = usize::try_from(end.0 - start.0).expect("a range");
        let mut best = vec![None; length + 1];
        best[0] = Some(0u32);
        for at in 0..length {
            let Some(count) = best[at] else { continue };
            let here = start.plus(i32::try_from(at).expect("small"));
            for tier in Tier::ALL.into_iter().filter(|tier| Bucket::is_aligned(*tier, here)) {
                let bucket = Bucket { tier, start: here };
                if bucket.is_expired(kept.clock, kept.settings.ttl_ms(tier)) || bucket.end() > end {
                    continue;
                }
                let slot = &mut best[usize::try_from(bucket.end().0 - start.0).expect("in range")];
                *slot = Some(slot.map_or(count + 1, |other: u32| other.min(count + 1)));
            }
        }
        best[length]
    }

    proptest! {
        #[test]
        fn pieces_tile_the_range_and_are_the_fewest(
            near_year in any::<bool>(), start in -5_000i32..5_000, length in 1i32..9_000, round in 0u8..3,
            minute_ttl in 0i64..4_000, hour_ttl in 0i64..4_000, clock in -8_000i64..9_000,
        ) {
            let base = if near_year { minute("2026-01-01T00:00:00Z").0 } else { minute("2026-05-05T00:00:00Z").0 };
            let unit = [1, 60, 1_440][usize::from(round)];
            let start = Minute(base + start / unit * unit);
            let end = start.plus((length / unit).max(1) * unit);
            // A time to live below 400 minutes stands for "for ever".
            let ttl = |minutes: i64| if minutes < 400 { 0 } else { minutes * 60_000 };
            let settings = settings(ttl(minute_ttl), ttl(hour_ttl));
            let kept = Kept { settings: &settings, clock: Millis((i64::from(base) + clock) * 60_000 + 17) };
            let planned = plan(start, end, &kept);
            let count = planned.as_ref().ok().map(|runs| u32::try_from(runs.iter().flat_map(pieces).count()).expect("few"));
            prop_assert_eq!(count, fewest(start, end, &kept));
            if let Ok(runs) = planned {
                let mut at = start;
                for bucket in runs.iter().flat_map(pieces) {
                    prop_assert_eq!(bucket.start, at);
                    prop_assert!(Bucket::is_aligned(bucket.tier, bucket.start));
                    prop_assert!(!bucket.is_expired(kept.clock, settings.ttl_ms(bucket.tier)));
                    at = bucket.end();
                }
                prop_assert_eq!(at, end);
                prop_assert!(runs.windows(2).all(|pair| pair[0].tier != pair[1].tier), "adjacent buckets of a tier are one run");
            }
        }
    }
}
