//! Gives up raw events that are older than `retention`, but never what a restart has to read again.

use std::sync::Arc;
use std::time::Duration;

use aggregator::{CountStore, EmbeddedStore};
use ingest::{EmbeddedLog, EventLog};
use schemas::{Checkpoint, Millis, Offset, Source};

const EVERY: Duration = Duration::from_secs(60);

/// Trims both logs again and again, for ever.
pub(crate) async fn trim_forever(log: Arc<EmbeddedLog>, dead_letters: Arc<EmbeddedLog>, store: EmbeddedStore, retention_ms: i64) {
    if retention_ms == 0 {
        return;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        let keep_from = Millis::now().plus(-retention_ms);
        let Ok(checkpoints) = store.read_checkpoints().await else { continue };
        let (log, dead_letters) = (Arc::clone(&log), Arc::clone(&dead_letters));
        let trimmed = tokio::task::spawn_blocking(move || {
            for (source, checkpoint) in checkpoints {
                trim(&log, source, keep_from, needed_from(&checkpoint))?;
            }
            trim(&dead_letters, Source(0), keep_from, Offset(u64::MAX))
        });
        if let Ok(Err(error)) = trimmed.await {
            tracing::warn!(%error, "old records could not be removed from the log; it is tried again");
        }
    }
}

/// The first record that a restart reads: the warm-up range, and the last record, by which a recreated log is noticed.
fn needed_from(checkpoint: &Checkpoint) -> Offset {
    checkpoint.warm_from.min(Offset(checkpoint.next_offset.0.saturating_sub(1)))
}

fn trim(log: &EmbeddedLog, source: Source, keep_from: Millis, needed_from: Offset) -> Result<(), ingest::LogError> {
    let old_until = log.first_at_or_after(source, keep_from)?;
    log.trim(source, old_until.min(needed_from)).map(drop)
}
