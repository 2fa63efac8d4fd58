//! One range of a source's records while it is gathered: where it ends, and the files that it becomes. Pure.
//!
//! Where a range ends is a function of the log and of where it begins: it is over when the log clock enters another period
//! (`archive_every`), or when it is full. So two archivers that begin alike write the same files under the same names.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemas::{Millis, Offset, Record, Source};

use super::day::day_for;
use super::error::ArchiveError;
use super::forget::Forgotten;
use super::manifest::ArchiveFile;
use super::piece::pieces;
use super::rows::{Rows, write_file};

/// How much one range may hold: it is full with the record that reaches one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeBounds {
    /// Rows.
    pub rows: usize,
    /// Bytes of payload.
    pub bytes: usize,
    /// Days that they are put into.
    pub days: usize,
}

impl Default for RangeBounds {
    /// About 200 MB of memory at most.
    fn default() -> Self {
        Self { rows: 500_000, bytes: 64 << 20, days: 256 }
    }
}

/// A range that is being gathered.
pub struct Draft {
    source: Source,
    from: Offset,
    next: Offset,
    clock: Option<Millis>,
    bounds: RangeBounds,
    rows: usize,
    bytes: usize,
    days: BTreeMap<i32, Rows>,
    forgotten: Forgotten,
}

/// A file that is to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftFile {
    /// What the manifest will say of it.
    pub file: ArchiveFile,
    /// Its content.
    pub content: Bytes,
}

impl Draft {
    /// An empty range from `from` on, which the log clock stands before at `clock`. What is to be forgotten is left out.
    pub fn new(source: Source, from: Offset, clock: Option<Millis>, bounds: RangeBounds, forgotten: Forgotten) -> Self {
        Self { source, from, next: from, clock, bounds, rows: 0, bytes: 0, days: BTreeMap::new(), forgotten }
    }

    /// Its first offset.
    pub const fn from(&self) -> Offset {
        self.from
    }

    /// The offset after its last record.
    pub const fn next(&self) -> Offset {
        self.next
    }

    /// The log clock after its last record.
    pub const fn clock(&self) -> Option<Millis> {
        self.clock
    }

    /// How many rows it has.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it takes no further record.
    pub fn is_full(&self) -> bool {
        self.rows >= self.bounds.rows || self.bytes >= self.bounds.bytes || self.days.len() >= self.bounds.days
    }

    /// Adds the next record.
    pub fn push(&mut self, record: &Record<'_>) {
        let mut index = 0;
        pieces(record, |piece| {
            let piece = self.forgotten.without(record, piece);
            self.days.entry(day_for(record, &piece)).or_default().push(self.source, record, index, &piece);
            index += 1;
        });
        self.rows += index as usize;
        self.bytes += record.payload.len();
        self.next = record.offset.next();
        self.clock = Some(self.clock.map_or(record.append_time, |clock| clock.max(record.append_time)));
    }

    /// The range as files, one for each day.
    ///
    /// # Errors
    /// If the rows cannot be written as Parquet, which would be a bug.
    pub fn finish(self) -> Result<Vec<DraftFile>, ArchiveError> {
        let Self { from, next, days, .. } = self;
        let file = |(day, rows): (i32, Rows)| {
            let (batch, extent) = rows.finish()?;
            let (content, hash) = write_file([Ok(batch)])?;
            Ok(draft_file(day, (from, next), extent, content, hash))
        };
        days.into_iter().map(file).collect()
    }
}

/// A file of a day and a range.
pub(super) fn draft_file(day: i32, (from, to): (Offset, Offset), extent: super::rows::Extent, content: Vec<u8>, hash: String) -> DraftFile {
    let super::rows::Extent { rows, events, ts, append_time } = extent;
    let file = ArchiveFile { day, from, to, hash, rows, events, bytes: content.len() as u64, ts, append_time };
    DraftFile { file, content: Bytes::from(content) }
}

/// The period of log time, each `every_ms` long, that begins after the one in which `clock` lies.
pub fn next_period(clock: Millis, every_ms: i64) -> Millis {
    let every_ms = every_ms.max(1);
    Millis(clock.0.div_euclid(every_ms).saturating_add(1).saturating_mul(every_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_aligned_and_half_open() {
        assert_eq!(next_period(Millis(0), 60), Millis(60));
        assert_eq!(next_period(Millis(59), 60), Millis(60));
        assert_eq!(next_period(Millis(60), 60), Millis(120));
        assert_eq!(next_period(Millis(-1), 60), Millis(0));
    }
}
