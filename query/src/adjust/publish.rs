//! Parts into the logs of their sources: each is taken once, or it is known why not.
//!
//! ```text
//!            ┌──────────────────────────────────────────────────────────┐
//! checkpoint ─> was it taken? ─ no ─> do the cells hold it? ─ yes ─> append ─> wait for a checkpoint behind it
//!                 └ yes: noted           └ no, twice: refused
//! ```
//!
//! The parts of one source go one after the other: each is checked against cells that hold the ones before. What the log has of a part
//! (from a server that died, or from another that is at it too) is found before anything is appended. Whoever finds too little in
//! the cells may see what a copy of this very part has taken: so it waits until all that the log had is counted, and looks once more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use schemas::{AdjustmentEntry, AdjustmentPart, Checkpoint, Millis, NewRecord, Offset, PartEnd, RecordKind, Source, correction};
use tokio::time::sleep;

use super::parts::wanted;
use super::plan::{Short, plan};
use super::show::told;
use crate::error::QueryError;
use crate::rejected::settle::{Once, Stands};
use crate::service::QueryService;

/// How often the checkpoint is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Nobody waits longer for one part: whoever comes next goes on.
const PART_WITHIN: Duration = Duration::from_secs(60);

impl QueryService {
    /// Publishes what is left of an adjustment, until it has ended or a source does not go on. One at a time in this process.
    pub(super) async fn publish(&self, entry: &AdjustmentEntry) -> Result<(), QueryError> {
        let _one = self.adjusting.lock().await;
        let ends = self.store.read_adjustment_ends(entry.plan.clone()).await?;
        let mut left: BTreeMap<Source, Vec<u32>> = BTreeMap::new();
        for index in (0..entry.parts).filter(|index| !ends.contains_key(index)) {
            left.entry(self.part(entry, index).await?.source).or_default().push(index);
        }
        let mut sources = Vec::with_capacity(left.len());
        for (source, parts) in left {
            sources.push(self.publish_to(entry, source, parts));
        }
        join_all(sources).await.into_iter().collect()
    }

    /// A part of an entry that the journal has.
    pub(super) async fn part(&self, entry: &AdjustmentEntry, index: u32) -> Result<AdjustmentPart, QueryError> {
        let part = self.store.read_adjustment_part(entry.plan.clone(), index).await?;
        let missing = || aggregator::StoreError::Corrupt(format!("part {index} of adjustment {} is not there", entry.id));
        Ok(part.ok_or_else(missing)?)
    }

    async fn publish_to(&self, entry: &AdjustmentEntry, source: Source, parts: Vec<u32>) -> Result<(), QueryError> {
        let name = format!("{}{source}", entry.mark());
        for index in parts {
            let part = self.part(entry, index).await?;
            let Some(end) = self.publish_part(entry, &name, index, &part).await? else { break };
            self.store.end_adjustment_part(entry.plan.clone(), index, end).await?;
        }
        self.rejected()?.forget(&name);
        Ok(())
    }

    /// Sees to it that a part ends; `None` if its source does not go on.
    async fn publish_part(
        &self,
        entry: &AdjustmentEntry,
        name: &str,
        index: u32,
        part: &AdjustmentPart,
    ) -> Result<Option<PartEnd>, QueryError> {
        let deadline = Instant::now() + PART_WITHIN;
        let once = Once { name: name.to_owned(), source: part.source, from: part.from, begins: entry.mark(), reason: entry.mark_of(index) };
        // The last record that a checkpoint must have passed before it is looked again.
        let mut passed: Option<Offset> = None;
        let mut doubted = false;
        while Instant::now() < deadline {
            match self.stands(&once, passed, deadline).await? {
                Stands::Waiting => sleep(LOOK).await,
                Stands::Unfinished => break,
                Stands::Unknown => return Ok(Some(PartEnd::Unknown { at: Millis::now() })),
                Stands::Taken(offset) => return Ok(Some(PartEnd::Taken { offset, at: Millis::now() })),
                Stands::Free(checkpoint) => match self.holds(part, &checkpoint).await? {
                    Ok(()) => {
                        let payload = correction::encode(&entry.adjustment(index, part, checkpoint.adjustments));
                        passed = Some(self.log.append(part.source, vec![NewRecord::new(RecordKind::Adjustment, payload)]).await?.first);
                    }
                    Err(short) if doubted => {
                        let detail = short.first().map_or_else(String::new, told);
                        return Ok(Some(PartEnd::Refused { detail, at: Millis::now() }));
                    }
                    Err(_) => {
                        doubted = true;
                        let source = part.source;
                        let end = self.with_log(move |log| log.ends(source)).await??.end;
                        passed = end.0.checked_sub(1).map(Offset);
                    }
                },
            }
        }
        Ok(None)
    }

    /// Whether the cells of a part hold what it takes, by a checkpoint that was read before.
    async fn holds(&self, part: &AdjustmentPart, checkpoint: &Checkpoint) -> Result<Result<(), Vec<Short>>, QueryError> {
        let wanted = wanted(part);
        let checkpoints = BTreeMap::from([(part.source, checkpoint.clone())]);
        let cells = self.cells(&checkpoints, &wanted).await?;
        Ok(plan(&wanted, cells, &checkpoints).map(drop))
    }
}

/// Goes on with an adjustment by itself: its client may go away meanwhile.
pub(super) fn begin(service: &Arc<QueryService>, entry: &AdjustmentEntry) -> tokio::task::JoinHandle<Result<(), QueryError>> {
    let (service, entry) = (Arc::clone(service), entry.clone());
    tokio::spawn(async move {
        let done = service.publish(&entry).await;
        if let Err(error) = &done {
            tracing::warn!(adjustment = entry.id, %error, "an adjustment was interrupted; it is gone on with within a minute");
        }
        done
    })
}
