//! Gives up raw events that are older than `retention`, but never what a restart has to read again, or what is still to be archived.

use std::sync::Arc;
use std::time::Duration;

use aggregator::CountStore;
use ingest::{EmbeddedLog, EventLog, LogError};
use schemas::{Checkpoint, Millis, Offset, Source};

use crate::backends::EmbeddedLogs;

const EVERY: Duration = Duration::from_secs(60);

/// Trims both logs again and again, for ever.
pub(super) async fn trim_forever(logs: EmbeddedLogs, store: Arc<dyn CountStore>, retention_ms: i64, keeps_archive: bool) {
    if retention_ms == 0 {
        return;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        let keep_from = Millis::now().plus(-retention_ms);
        if let Err(detail) = trim_once(&logs, &*store, keep_from, keeps_archive).await {
            tracing::warn!(detail, "old records could not be removed from the log; it is tried again");
        }
    }
}

/// Removes what was appended before `keep_from`, as far as no restart and no archive needs it. A source without a checkpoint keeps everything.
async fn trim_once(logs: &EmbeddedLogs, store: &dyn CountStore, keep_from: Millis, keeps_archive: bool) -> Result<(), String> {
    let checkpoints = store.read_checkpoints().await.map_err(|error| error.to_string())?;
    let mut needed = Vec::with_capacity(checkpoints.len());
    for (source, checkpoint) in checkpoints {
        let archived =
            if keeps_archive { store.read_archive(source).await.map_err(|error| error.to_string())?.head.end } else { Offset(u64::MAX) };
        needed.push((source, needed_from(&checkpoint).min(archived)));
    }
    let EmbeddedLogs { events, rejected } = logs.clone();
    let trimmed = tokio::task::spawn_blocking(move || {
        for (source, needed_from) in needed {
            trim(&events, source, keep_from, needed_from)?;
        }
        trim(&rejected, Source(0), keep_from, Offset(u64::MAX))
    });
    trimmed.await.map_err(|error| error.to_string())?.map_err(|error: LogError| error.to_string())
}

/// The first record that a restart reads: the warm-up range, and the last record, by which a recreated log is noticed.
fn needed_from(checkpoint: &Checkpoint) -> Offset {
    checkpoint.warm_from.min(Offset(checkpoint.next_offset.0.saturating_sub(1)))
}

fn trim(log: &EmbeddedLog, source: Source, keep_from: Millis, needed_from: Offset) -> Result<(), LogError> {
    let old_until = log.first_at_or_after(source, keep_from)?;
    log.trim(source, old_until.min(needed_from)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use aggregator::EmbeddedStore;
    use aggregator::archive::{ArchiveChange, ArchiveHead};
    use aggregator::embedded::StoreOptions;
    use ingest::LogOptions;
    use schemas::{FoldSettings, NewRecord, Stamp, Tally};

    use super::*;

    #[tokio::test]
    async fn old_records_go_but_none_that_a_restart_needs() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, sources| {
            Arc::new(EmbeddedLog::open(&LogOptions::new(dir.path().join(name), NonZeroU32::new(sources).unwrap())).unwrap())
        };
        let (log, dead_letters) = (open("views", 3), open("rejected", 1));
        let store = EmbeddedStore::open(StoreOptions::new(dir.path().join("store"), log.id())).unwrap();
        for log_source in [(&log, 0), (&log, 1), (&log, 2), (&dead_letters, 0)] {
            log_source.0.append(Source(log_source.1), vec![NewRecord::tick(); 10]).await.unwrap();
        }
        let checkpoint = |warm_from, next_offset| Checkpoint {
            next_offset: Offset(next_offset),
            warm_from: Offset(warm_from),
            stamp: Stamp(1),
            clock: Millis(1),
            append_time: Millis(1),
            closed: Millis(0),
            adjustments: 0,
            tally: Tally::default(),
            settings: FoldSettings::default(),
        };
        store.write_checkpoint(Source(0), checkpoint(4, 8)).await.unwrap();
        store.write_checkpoint(Source(1), checkpoint(10, 10)).await.unwrap();
        let starts = || -> Vec<u64> {
            let start = |log: &EmbeddedLog, source| log.ends(Source(source)).unwrap().start.0;
            vec![start(&log, 0), start(&log, 1), start(&log, 2), start(&dead_letters, 0)]
        };
        let logs = EmbeddedLogs { events: Arc::clone(&log), rejected: Arc::clone(&dead_letters) };
        trim_once(&logs, &store, Millis(0), false).await.unwrap();
        assert_eq!(starts(), [0, 0, 0, 0], "nothing is so old");
        let archived = ArchiveHead { version: 1, end: Offset(2), ..ArchiveHead::default() };
        let change = ArchiveChange { head: archived, added: Vec::new(), removed: Vec::new() };
        assert!(store.commit_archive(Source(0), change).await.unwrap());
        trim_once(&logs, &store, Millis(i64::MAX), true).await.unwrap();
        assert_eq!(starts(), [2, 0, 0, 10], "what is not archived stays");
        trim_once(&logs, &store, Millis(i64::MAX), false).await.unwrap();
        assert_eq!(starts(), [4, 9, 0, 10], "warm-up, the record before the checkpoint, and what is not counted yet stay");
    }
}
