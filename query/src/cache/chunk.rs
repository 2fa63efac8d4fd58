//! Chunks: aligned stretches of a series, the unit in which what was read is kept, and their packed form. Pure.
//!
//! | tier | a chunk is |
//! |---|---|
//! | minute | a UTC hour |
//! | hour | a UTC day |
//! | day | 32 days from 1970 on |
//! | year | all there is |
//!
//! Questions about other ranges, by other steps or in other zones need the same chunks, and so share them.

use schemas::{Counts, Minute, Tier};

use crate::plan::Run;
use crate::read::Cells;

const HOUR: i32 = 60;
const DAY: i32 = 24 * HOUR;
const DAYS: i32 = 32 * DAY;

/// The name of a chunk within a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Chunk {
    /// Of which tier its buckets are.
    pub(crate) tier: Tier,
    start: Minute,
}

impl Chunk {
    /// The chunk that holds the bucket of `tier` that starts at `at`.
    fn holding(tier: Tier, at: Minute) -> Self {
        let start = match tier {
            Tier::Minute => floor(at, HOUR),
            Tier::Hour => floor(at, DAY),
            Tier::Day => floor(at, DAYS),
            Tier::Year => Minute::MIN,
        };
        Self { tier, start }
    }

    /// The chunks that hold the buckets of `run` that start before `last`.
    pub(crate) fn of(run: Run, last: Minute) -> impl Iterator<Item = Self> {
        let first = (run.start < last).then(|| Self::holding(run.tier, run.start));
        std::iter::successors(first, |chunk| (chunk.tier != Tier::Year).then(|| Self { start: chunk.end(), ..*chunk }))
            .take_while(move |chunk| chunk.start < run.end.min(last))
    }

    /// The first minute after it.
    pub(crate) fn end(self) -> Minute {
        match self.tier {
            Tier::Minute => self.start.plus(HOUR),
            Tier::Hour => self.start.plus(DAY),
            Tier::Day => self.start.plus(DAYS),
            Tier::Year => Minute::MAX,
        }
    }

    /// Its buckets.
    pub(crate) fn run(self) -> Run {
        Run { tier: self.tier, start: self.start, end: self.end() }
    }

    /// The UTC days that it touches, counted from 1970: the first, and the one after the last.
    pub(crate) fn days(self) -> (i32, i32) {
        (self.start.0.div_euclid(DAY), self.end().plus(DAY - 1).0.div_euclid(DAY))
    }

    /// How far apart its buckets start at least, in minutes. Years start where days do.
    const fn unit(self) -> i32 {
        match self.tier {
            Tier::Minute => 1,
            Tier::Hour => HOUR,
            Tier::Day | Tier::Year => DAY,
        }
    }

    /// What its buckets hold, packed: empty ones cost nothing, and most others two or three bytes.
    ///
    /// For each bucket that holds anything a number whose lowest bit says whether it holds views only, all of them valid, and whose
    /// other bits how many units lie between it and the end of the bucket before; then `gross`, and unless it is plain `gross - valid` and `engaged`.
    pub(crate) fn pack(self, cells: &Cells) -> Vec<u8> {
        let mut out = Vec::new();
        let mut expected = self.start;
        for ((_, start), counts) in cells.of(&self.run()).iter().filter(|(_, counts)| *counts != Counts::ZERO) {
            let gap = u64::from(start.0.abs_diff(expected.0) / self.unit().unsigned_abs());
            let plain = counts.valid == counts.gross && counts.engaged == 0;
            put(&mut out, gap << 1 | u64::from(plain));
            put_signed(&mut out, counts.gross);
            if !plain {
                put_signed(&mut out, counts.gross.wrapping_sub(counts.valid));
                put_signed(&mut out, counts.engaged);
            }
            expected = start.plus(self.unit());
        }
        out
    }

    /// Adds what was packed to `cells`, which hold earlier buckets only.
    pub(crate) fn unpack(self, mut packed: &[u8], cells: &mut Cells) {
        let mut expected = self.start;
        while !packed.is_empty() {
            let head = take(&mut packed);
            let gap = i32::try_from(head >> 1).unwrap_or(i32::MAX);
            let start = expected.plus(gap.saturating_mul(self.unit()));
            let gross = take_signed(&mut packed);
            let (invalid, engaged) = if head & 1 == 1 { (0, 0) } else { (take_signed(&mut packed), take_signed(&mut packed)) };
            cells.push(self.tier, start, Counts { gross, valid: gross.wrapping_sub(invalid), engaged });
            expected = start.plus(self.unit());
        }
    }
}

fn floor(at: Minute, unit: i32) -> Minute {
    Minute(at.0.saturating_sub(at.0.rem_euclid(unit)))
}

/// Seven bits in a byte, the lowest first; the highest bit says that more follow.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn take(packed: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = packed.split_first() else { break };
        *packed = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// Signs go to the lowest bit, so that small numbers of either sign stay short.
fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned());
}

fn take_signed(packed: &mut &[u8]) -> i64 {
    let number = take(packed);
    (number >> 1).cast_signed() ^ (number & 1).cast_signed().wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::Millis;

    use super::*;

    fn minute(text: &str) -> Minute {
        Minute::of(Millis::parse_rfc3339(text).unwrap())
    }

    #[test]
    fn a_run_is_held_by_aligned_chunks_and_nothing_lies_behind_the_last_minute() {
        let run = |tier, start, end| Run { tier, start: minute(start), end: minute(end) };
        let starts = |run: Run, last: &str| Chunk::of(run, minute(last)).map(|chunk| chunk.start.to_string()).collect::<Vec<_>>();
        let hours = run(Tier::Hour, "2026-05-05T23:00:00Z", "2026-05-07T01:00:00Z");
        assert_eq!(starts(hours, "2027-01-01T00:00:00Z"), ["2026-05-05T00:00:00Z", "2026-05-06T00:00:00Z", "2026-05-07T00:00:00Z"]);
        assert_eq!(starts(hours, "2026-05-06T00:01:00Z"), ["2026-05-05T00:00:00Z", "2026-05-06T00:00:00Z"]);
        assert_eq!(starts(hours, "2026-05-05T00:00:00Z"), [""; 0]);
        let minutes = run(Tier::Minute, "1969-12-31T23:59:00Z", "1970-01-01T01:00:00Z");
        assert_eq!(starts(minutes, "2027-01-01T00:00:00Z"), ["1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"]);
        let years = Run { tier: Tier::Year, start: minute("2020-01-01T00:00:00Z"), end: Minute::MAX };
        assert_eq!(Chunk::of(years, Minute::MAX).map(Chunk::end).collect::<Vec<_>>(), [Minute::MAX]);
        let days = Chunk::of(run(Tier::Day, "1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z"), Minute::MAX).next().unwrap();
        assert_eq!((days.days(), days.end()), ((0, 32), minute("1970-02-02T00:00:00Z")));
        assert_eq!(Chunk::holding(Tier::Minute, minute("1970-01-03T23:59:00Z")).days(), (2, 3));
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(
            tier in 0u8..4, at in -200_000i32..60_000_000,
            held in prop::collection::btree_map(0i32..60, (any::<i64>(), prop_oneof![Just(0i64), any::<i64>()], prop_oneof![Just(0i64), 0i64..9]), 0..40),
        ) {
            let tier = Tier::from_code(tier).unwrap();
            let chunk = Chunk::holding(tier, Minute(at));
            let first = if tier == Tier::Year { tier.bucket(Minute(at)).start } else { chunk.start };
            let mut cells = Cells::default();
            for (n, (gross, invalid, engaged)) in held {
                let buckets = std::iter::successors(Some(schemas::Bucket { tier, start: first }), |bucket| Some(bucket.next()));
                let start = buckets.map(|bucket| bucket.start).nth(usize::try_from(n).unwrap()).unwrap();
                let counts = Counts { gross, valid: gross.wrapping_sub(invalid), engaged };
                if start < chunk.end() && counts != Counts::ZERO {
                    cells.push(tier, start, counts);
                }
            }
            let mut back = Cells::default();
            chunk.unpack(&chunk.pack(&cells), &mut back);
            let all = chunk.run();
            prop_assert_eq!(back.of(&all), cells.of(&all));
        }
    }
}
