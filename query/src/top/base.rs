//! Sums that are kept between two makings of a list: of the buckets that are complete and have come to rest.
//!
//! A list over 30 days reads thousands of pages, of which a minute later nearly all say the same. So the first making writes down, for
//! each entity, the sums of the buckets that will not change but by late changes; the next adds only the others. The sums hold for any
//! list that needs at least these buckets in the same places, until a late change to one of their days is announced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemas::{Bucket, Source};

use super::late::{LateChanges, day_of};
use super::merge::Summed;

/// A range of the list that a bucket is part of, as bits: the same bucket can be in several.
pub(crate) type Parts = u8;
/// Of the range that is listed.
pub(crate) const LISTED: Parts = 1;
/// Of the part of it that is compared.
pub(crate) const COMPARED: Parts = 2;
/// Of the range that it is compared with.
pub(crate) const PREVIOUS: Parts = 4;

/// The sums of each entity in the three parts.
#[derive(Debug)]
pub(crate) struct Base {
    covers: BTreeMap<Bucket, Parts>,
    sources: BTreeSet<Source>,
    /// What had been announced when the oldest of it was read.
    changes: LateChanges,
    ids: String,
    /// Where each id ends, and its sums.
    rows: Vec<(u32, [i64; 3])>,
}

impl Base {
    /// The parts of a list that it holds the sums of, if it holds nothing that the list does not need.
    pub(crate) fn covers(&self, needed: &BTreeMap<Bucket, Parts>) -> Option<&BTreeMap<Bucket, Parts>> {
        let is_needed = |(bucket, parts): (&Bucket, &Parts)| needed.get(bucket).is_some_and(|needed| parts & !needed == 0);
        self.covers.iter().all(is_needed).then_some(&self.covers)
    }

    /// Whether it is still true of these sources, as far as has been announced.
    pub(crate) fn holds(&self, sources: &BTreeSet<Source>, changes: &LateChanges) -> bool {
        let days: BTreeSet<i32> = self.covers.keys().map(|bucket| day_of(bucket.start)).collect();
        self.sources == *sources && changes.none_since(&self.changes, |day| days.contains(&day))
    }

    /// Its rows in the order of ids.
    pub(crate) fn rows<const N: usize>(self: Arc<Self>) -> impl Iterator<Item = Summed<N>> + Send {
        let mut start = 0;
        (0..self.rows.len()).map_while(move |at| {
            let (end, sums) = *self.rows.get(at)?;
            let end = usize::try_from(end).ok()?;
            let id = self.ids.get(start..end)?;
            start = end;
            let mut row = [0; N];
            row.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum);
            Some((id.into(), row))
        })
    }

    /// Its size in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.ids.capacity() + self.rows.capacity() * size_of::<(u32, [i64; 3])>() + self.covers.len() * 32
    }
}

/// Writes a base while a list is made; gives up when it would become too large.
pub(crate) struct BaseWriter {
    base: Base,
    most_bytes: usize,
    fits: bool,
}

impl BaseWriter {
    pub(crate) fn new(covers: BTreeMap<Bucket, Parts>, sources: BTreeSet<Source>, changes: LateChanges, most_bytes: usize) -> Self {
        let fits = !covers.is_empty();
        Self { base: Base { covers, sources, changes, ids: String::new(), rows: Vec::new() }, most_bytes, fits }
    }

    /// Adds an entity, in the order of ids.
    pub(crate) fn push(&mut self, id: &str, sums: [i64; 3]) {
        if !self.fits || sums == [0; 3] {
            return;
        }
        self.base.ids.push_str(id);
        let Ok(end) = u32::try_from(self.base.ids.len()) else { return self.give_up() };
        self.base.rows.push((end, sums));
        if self.base.bytes() > self.most_bytes {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.fits = false;
        (self.base.ids, self.base.rows) = (String::new(), Vec::new());
    }

    /// The base, if it did not become too large.
    pub(crate) fn finish(mut self) -> Option<Base> {
        self.base.ids.shrink_to_fit();
        self.base.rows.shrink_to_fit();
        self.fits.then_some(self.base)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use aggregator::Touched;
    use schemas::{Minute, Offset, Stamp, Tier};

    use super::*;

    fn day(day: i32) -> Bucket {
        Tier::Day.bucket(Minute(day * 1_440))
    }

    fn sources(sources: &[u32]) -> BTreeSet<Source> {
        sources.iter().copied().map(Source).collect()
    }

    fn base(most_bytes: usize, rows: usize) -> Option<Base> {
        let covers = [(day(3), LISTED), (day(4), LISTED | COMPARED)].into();
        let mut writer = BaseWriter::new(covers, sources(&[0, 1]), LateChanges::read(Instant::now(), &[]), most_bytes);
        for row in 0..rows {
            writer.push(&format!("é{row:06}"), [1, -2, i64::from(row == 7)]);
            writer.push("nothing", [0; 3]);
        }
        writer.finish()
    }

    #[test]
    fn rows_come_back_in_order_and_padded() {
        let rows: Vec<Summed<5>> = Arc::new(base(1 << 20, 9).expect("it fits")).rows().collect();
        assert_eq!(rows.len(), 9);
        assert_eq!(rows[7], ("é000007".into(), [1, -2, 1, 0, 0]));
    }

    #[test]
    fn it_serves_only_lists_that_need_all_of_it() {
        let base = base(1 << 20, 1).expect("it fits");
        let covered = |needed: &[(i32, Parts)]| base.covers(&needed.iter().map(|(at, parts)| (day(*at), *parts)).collect()).is_some();
        assert!(covered(&[(3, LISTED), (4, LISTED | COMPARED)]));
        assert!(covered(&[(2, LISTED), (3, LISTED | PREVIOUS), (4, LISTED | COMPARED)]));
        assert!(!covered(&[(3, LISTED), (4, LISTED)]) && !covered(&[(4, LISTED | COMPARED)]));
    }

    #[test]
    fn a_late_change_or_another_source_ends_it() {
        let base = base(1 << 20, 1).expect("it fits");
        let touched = |day| LateChanges::read(Instant::now(), &[(Source(0), Touched { day, version: Offset(1), stamp: Stamp(0) })]);
        assert!(base.holds(&sources(&[0, 1]), &touched(5)));
        assert!(!base.holds(&sources(&[0, 1]), &touched(4)) && !base.holds(&sources(&[0, 1, 2]), &touched(5)));
    }

    #[test]
    fn too_large_a_base_is_given_up() {
        assert!(base(100_000, 10_000).is_none());
        let base = base(1 << 20, 10_000).expect("it fits");
        assert!(base.bytes() < 500_000, "{}", base.bytes());
    }
}
