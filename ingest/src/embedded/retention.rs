//! Giving up the oldest records of a source. The caller decides what may go: never what a recovery or an archive still needs.

use std::sync::atomic::Ordering;

use fjall::PersistMode;
use schemas::codec::CodecError;
use schemas::{Millis, Offset, Source};

use super::{EmbeddedLog, Shared, cause, lock, value};
use crate::log::LogError;

/// Records removed in one commit.
const TRIM_RECORDS: u64 = 10_000;
const FORMAT: u8 = 1;

/// Where a trimmed source starts, kept in the metadata: the records themselves can no longer tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) offset: Offset,
    /// An append time that no removed record passes, so that times do not go back when all records are gone.
    pub(super) append_time: Millis,
}

impl EmbeddedLog {
    /// Removes the records of `source` below `before` (at most all there are) and returns where it starts now.
    ///
    /// # Errors
    /// [`LogError::NoSource`], or [`LogError::Failed`] if it cannot be written.
    pub fn trim(&self, source: Source, before: Offset) -> Result<Offset, LogError> {
        self.shared.trim(source, before)
    }
}

impl Shared {
    fn trim(&self, source: Source, before: Offset) -> Result<Offset, LogError> {
        let extent = self.extent(source)?;
        let _one_at_a_time = lock(&self.trimming);
        let mut start = extent.start();
        // The end before the time: the time is then at or after that of every record below the end.
        let target = before.min(extent.end());
        let append_time = Millis(self.append_time.load(Ordering::Acquire));
        while start < target {
            let next = Offset(start.0.saturating_add(TRIM_RECORDS)).min(target);
            // Readers must find that a record is gone before they find it missing.
            extent.start.store(next.0, Ordering::Release);
            self.remove(source, start, Start { offset: next, append_time }).map_err(|error| {
                self.fail(&cause(&error));
                LogError::Failed(cause(&error))
            })?;
            start = next;
        }
        Ok(start)
    }

    fn remove(&self, source: Source, from: Offset, start: Start) -> fjall::Result<()> {
        // Synced, as every batch is: only the last one in the journal can be torn.
        let mut batch = self.storage.database.batch().durability(Some(PersistMode::SyncData));
        (from.0..start.offset.0).for_each(|offset| batch.remove(&self.storage.records, value::key(source, Offset(offset))));
        batch.insert(&self.storage.metadata, start_key(source), start.encode());
        batch.commit()
    }
}

/// The metadata key of a source's start.
pub(super) fn start_key(source: Source) -> Vec<u8> {
    [b"start".as_slice(), &source.0.to_be_bytes()].concat()
}

impl Start {
    fn encode(self) -> Vec<u8> {
        [&[FORMAT], self.offset.0.to_be_bytes().as_slice(), &self.append_time.0.to_be_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let length = || CodecError::Length { what: "log start", len: bytes.len() };
        let (&[format], rest) = bytes.split_first_chunk::<1>().ok_or_else(length)?;
        if format != FORMAT {
            return Err(CodecError::Format { what: "log start", format });
        }
        let (offset, rest) = rest.split_first_chunk::<8>().ok_or_else(length)?;
        let append_time = rest.try_into().map_err(|_| length())?;
        Ok(Self { offset: Offset(u64::from_be_bytes(*offset)), append_time: Millis(i64::from_be_bytes(append_time)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn starts_round_trip(offset: u64, time: i64) {
            let start = Start { offset: Offset(offset), append_time: Millis(time) };
            prop_assert_eq!(Start::decode(&start.encode()).unwrap(), start);
        }

        #[test]
        fn any_bytes_are_a_start_or_an_error(bytes: Vec<u8>) {
            let _ = Start::decode(&bytes);
        }
    }
}
