//! Adjustments that were interrupted are finished by whatever server there is: it looks at its start, and then several times a minute.

use std::sync::{Arc, Weak};
use std::time::Duration;

use schemas::Millis;

use super::publish::begin;
use crate::error::QueryError;
use crate::service::QueryService;

const EVERY: Duration = Duration::from_secs(20);
/// So many of the last adjustments are looked at.
const LOOKS_AT: usize = 100;
/// One whose last part ended later is believed to be in somebody's hands. What is believed costs no more than a record that is refused.
const FRESH_MS: i64 = 30_000;

impl QueryService {
    /// Finishes adjustments that were interrupted, for as long as the service is there.
    pub async fn finish_adjustments(service: Weak<Self>) {
        // At the start it may have been this very server's.
        let mut fresh_ms = 0;
        while let Some(service) = service.upgrade() {
            if service.rejected.is_some()
                && let Err(error) = finish(&service, fresh_ms).await
            {
                tracing::debug!(%error, "whether adjustments were interrupted is not known");
            }
            drop(service);
            fresh_ms = FRESH_MS;
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn finish(service: &Arc<QueryService>, fresh_ms: i64) -> Result<(), QueryError> {
    for entry in service.store.read_adjustments(None, LOOKS_AT).await? {
        let ends = service.store.read_adjustment_ends(entry.plan.clone()).await?;
        let last = ends.values().map(schemas::PartEnd::at).chain([entry.created_at]).max().unwrap_or(entry.created_at);
        if (ends.len() as u64) < u64::from(entry.parts) && last.plus(fresh_ms) < Millis::now() {
            tracing::info!(adjustment = entry.id, "an adjustment that was interrupted is gone on with");
            // It says itself what went wrong.
            let _ = begin(service, &entry).await;
        }
    }
    Ok(())
}
