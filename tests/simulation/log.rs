//! One source of a log in memory: records with append times that may go back, read in chunks by any number of owners.

use ingest::{Ends, ReadLimit};
use schemas::{Millis, Offset, Record, RecordKind};

/// One record.
pub(crate) struct Entry {
    pub(crate) append_time: i64,
    pub(crate) kind: RecordKind,
    pub(crate) historical: bool,
    pub(crate) payload: Vec<u8>,
}

/// The source.
#[derive(Default)]
pub(crate) struct Log {
    entries: Vec<Entry>,
    /// Records before it are gone.
    pub(crate) start: u64,
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn ends(&self) -> Ends {
        Ends { start: Offset(self.start), end: Offset(self.end()) }
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(crate) fn record(&self, offset: u64) -> Option<Record<'_>> {
        let entry = self.entries.get(usize::try_from(offset).ok()?)?;
        assert!(offset >= self.start, "read of offset {offset}, which is gone");
        Some(Record {
            offset: Offset(offset),
            append_time: Millis(entry.append_time),
            kind: entry.kind,
            historical: entry.historical,
            payload: &entry.payload,
        })
    }

    /// Lends records until `each` says no, the limit is reached or the log ends.
    pub(crate) fn read(&self, from: u64, limit: ReadLimit, mut each: impl FnMut(&Record<'_>) -> bool) {
        let mut bytes = 0;
        for offset in (from..self.end()).take(limit.records) {
            let Some(record) = self.record(offset) else { return };
            bytes += record.payload.len();
            if !each(&record) || bytes >= limit.bytes {
                return;
            }
        }
    }
}
