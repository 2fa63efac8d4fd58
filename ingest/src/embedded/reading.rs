//! Lending a source's records in order, and finding an append time.
//!
//! Offsets have no holes, so the record after `n` must be `n + 1`: one that is missing is damage (the database drops what it
//! cannot recover), unless retention took it meanwhile.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fjall::{UserKey, UserValue};
use schemas::{Millis, Offset, Record, Source};

use super::{Shared, cause, value};
use crate::log::{LogError, ReadLimit};

impl Shared {
    pub(super) fn read(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        let end = self.extent(source)?.end();
        self.check_kept(source, from)?;
        if from >= end || limit.records == 0 {
            return Ok(from);
        }
        let mut stored = self.storage.records.range(value::key(source, from)..value::key(source, end));
        let (mut next, mut lent, mut lent_bytes) = (from, 0, 0);
        while next < end {
            let (key, bytes) = self.fetched(source, next, || stored.next().map(fjall::Guard::into_inner).transpose())?;
            if value::offset_of(&key) != Some(next) {
                return Err(self.missing(source, next));
            }
            let record = value::decode(source, next, &bytes).map_err(|detail| corrupt(source, next, detail))?;
            next = next.next();
            lent += 1;
            lent_bytes += record.payload.len();
            if each(record).is_break() || lent >= limit.records || lent_bytes >= limit.bytes {
                break;
            }
        }
        Ok(next)
    }

    pub(super) fn first_at_or_after(&self, source: Source, at: Millis) -> Result<Offset, LogError> {
        let extent = self.extent(source)?;
        let (mut low, mut high) = (extent.start(), extent.end());
        while low < high {
            let middle = Offset(low.0 + (high.0 - low.0) / 2);
            match self.append_time_at(source, middle) {
                Ok(time) if time < at => low = middle.next(),
                Ok(_) => high = middle,
                Err(LogError::Gone { start, .. }) => (low, high) = (start, high.max(start)),
                Err(error) => return Err(error),
            }
        }
        Ok(low)
    }

    fn append_time_at(&self, source: Source, offset: Offset) -> Result<Millis, LogError> {
        let key = value::key(source, offset);
        let get = || self.storage.records.get(key).map(|found| found.map(|bytes| (UserKey::from(key), bytes)));
        let (_, bytes) = self.fetched(source, offset, get)?;
        value::decode(source, offset, &bytes).map(|record| record.append_time).map_err(|detail| corrupt(source, offset, detail))
    }

    /// What the database holds for an offset that lies between the source's ends.
    fn fetched(
        &self,
        source: Source,
        offset: Offset,
        fetch: impl FnOnce() -> fjall::Result<Option<(UserKey, UserValue)>>,
    ) -> Result<(UserKey, UserValue), LogError> {
        // Some damage makes the database panic where an error would do.
        match catch_unwind(AssertUnwindSafe(fetch)) {
            Ok(Ok(Some(found))) => Ok(found),
            Ok(Ok(None)) => Err(self.missing(source, offset)),
            Ok(Err(error)) => Err(corrupt(source, offset, format!("it cannot be read: {}", cause(&error)))),
            Err(_) => Err(corrupt(source, offset, "it cannot be read: the database panicked".into())),
        }
    }

    fn missing(&self, source: Source, offset: Offset) -> LogError {
        match self.check_kept(source, offset) {
            Err(gone) => gone,
            Ok(()) => corrupt(source, offset, "it is missing".into()),
        }
    }

    fn check_kept(&self, source: Source, asked: Offset) -> Result<(), LogError> {
        let start = self.extent(source)?.start();
        if asked < start { Err(LogError::Gone { source_id: source, asked, start }) } else { Ok(()) }
    }
}

fn corrupt(source_id: Source, offset: Offset, detail: String) -> LogError {
    LogError::Corrupt { source_id, offset, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::read_all;
    use crate::log::EventLog;
    use crate::{EmbeddedLog, LogOptions};
    use schemas::NewRecord;
    use std::num::NonZeroU32;

    const A: Source = Source(0);

    async fn ten_records(dir: &std::path::Path) -> EmbeddedLog {
        let log = EmbeddedLog::open(&LogOptions::new(dir, NonZeroU32::MIN)).unwrap();
        log.append(A, (0..10).map(|_| NewRecord::tick()).collect()).await.unwrap();
        log
    }

    fn damage_at(result: Result<impl std::fmt::Debug, LogError>) -> (Offset, String) {
        match result {
            Err(LogError::Corrupt { source_id: A, offset, detail }) => (offset, detail),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_record_missing_in_the_middle_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let log = ten_records(dir.path()).await;
        log.shared.storage.records.remove(value::key(A, Offset(5))).unwrap();
        assert_eq!(damage_at(read_all(&log, A, Offset(0))), (Offset(5), "it is missing".into()));
        assert_eq!(damage_at(read_all(&log, A, Offset(5))).0, Offset(5));
        assert_eq!(read_all(&log, A, Offset(6)).unwrap().len(), 4);
        assert_eq!(damage_at(log.first_at_or_after(A, Millis(0))).0, Offset(5));
    }

    #[tokio::test]
    async fn a_value_that_is_not_what_was_appended_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let log = ten_records(dir.path()).await;
        let records = &log.shared.storage.records;
        let other = records.get(value::key(A, Offset(4))).unwrap().unwrap();
        records.insert(value::key(A, Offset(3)), other).unwrap();
        let (offset, detail) = damage_at(read_all(&log, A, Offset(0)));
        assert!(offset == Offset(3) && detail.contains("checksum"), "{detail}");
    }
}
