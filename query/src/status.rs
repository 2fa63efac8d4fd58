//! `GET /v1/status`: how far each source has been counted, and what became of its events.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use ingest::{Ends, EventLog, LogError};
use schemas::{Checkpoint, FoldSettings, Millis, Reason, Source, Tally};
use serde::Serialize;

use crate::error::QueryError;
use crate::params::Params;
use crate::read::Watermarks;
use crate::service::QueryService;

#[derive(Debug, Serialize)]
pub(crate) struct Status {
    log_id: String,
    now: String,
    complete_through: Option<String>,
    /// The rules by which events are counted.
    settings: FoldSettings,
    sources: Vec<SourceStatus>,
    totals: Totals,
}

#[derive(Debug, Serialize)]
struct SourceStatus {
    source: u32,
    /// The oldest record that the log holds, and the offset after the newest.
    start: u64,
    end: u64,
    lag_records: u64,
    /// How long ago the last counted record was appended, 0 if it is the newest; `null` if there is none but there are records.
    lag_seconds: Option<f64>,
    checkpoint: Option<CheckpointStatus>,
}

#[derive(Debug, Serialize)]
struct CheckpointStatus {
    next_offset: u64,
    clock: String,
    closed: String,
    append_time: String,
    adjustments: u64,
    tally: TallyStatus,
}

#[derive(Debug, Serialize)]
struct TallyStatus {
    events: u64,
    counted: u64,
    duplicate: u64,
    rejected: u64,
    rejected_by_reason: BTreeMap<&'static str, u64>,
    corrections: u64,
}

#[derive(Debug, Serialize)]
struct Totals {
    records: u64,
    lag_records: u64,
    lag_seconds: Option<f64>,
    tally: TallyStatus,
}

pub(crate) async fn show(State(service): State<Arc<QueryService>>, RawQuery(query): RawQuery) -> Result<Json<Status>, QueryError> {
    Params::read(query.as_deref().unwrap_or_default(), &[])?;
    // Checkpoints before ends: a checkpoint read first never leads the end read after it.
    let checkpoints = service.store.read_checkpoints().await?;
    let ends = service.with_log(|log| all_ends(&*log)).await??;
    let now = Millis::now();
    let marks = Watermarks::of(&checkpoints, service.log.sources());
    let by_source: BTreeMap<Source, Checkpoint> = checkpoints.into_iter().collect();
    let sources: Vec<SourceStatus> = ends.iter().map(|(source, ends)| source_status(*source, *ends, by_source.get(source), now)).collect();
    let mut tally = Tally::default();
    by_source.values().for_each(|checkpoint| tally.add(&checkpoint.tally));
    Ok(Json(Status {
        log_id: service.log.id().to_string(),
        settings: service.reader().settings.clone(),
        now: now.to_rfc3339(),
        complete_through: marks.complete_through.map(Millis::to_rfc3339),
        totals: Totals {
            records: ends.iter().map(|(_, ends)| ends.end.0).sum(),
            lag_records: sources.iter().map(|source| source.lag_records).sum(),
            lag_seconds: sources.iter().map(|source| source.lag_seconds).try_fold(0.0, |most: f64, lag| lag.map(|lag| most.max(lag))),
            tally: tally_status(&tally),
        },
        sources,
    }))
}

fn all_ends(log: &dyn EventLog) -> Result<Vec<(Source, Ends)>, LogError> {
    (0..log.sources().get()).map(Source).map(|source| Ok((source, log.ends(source)?))).collect()
}

fn source_status(source: Source, ends: Ends, checkpoint: Option<&Checkpoint>, now: Millis) -> SourceStatus {
    let lag_records = ends.end.0.saturating_sub(checkpoint.map_or(ends.start, |checkpoint| checkpoint.next_offset).0);
    let lag_seconds = match (lag_records, checkpoint) {
        (0, _) => Some(0.0),
        (_, None) => None,
        (_, Some(checkpoint)) => Some(seconds(now.since(checkpoint.append_time))),
    };
    SourceStatus {
        source: source.0,
        start: ends.start.0,
        end: ends.end.0,
        lag_records,
        lag_seconds,
        checkpoint: checkpoint.map(|checkpoint| CheckpointStatus {
            next_offset: checkpoint.next_offset.0,
            clock: checkpoint.clock.to_rfc3339(),
            closed: checkpoint.closed.to_rfc3339(),
            append_time: checkpoint.append_time.to_rfc3339(),
            adjustments: checkpoint.adjustments,
            tally: tally_status(&checkpoint.tally),
        }),
    }
}

/// Seconds with three digits, at least 0.
fn seconds(millis: i64) -> f64 {
    std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0)).as_secs_f64()
}

fn tally_status(tally: &Tally) -> TallyStatus {
    let by_reason = Reason::ALL.into_iter().map(|reason| (reason.as_str(), tally.rejected_for(reason)));
    TallyStatus {
        events: tally.events(),
        counted: tally.counted,
        duplicate: tally.duplicate,
        rejected: tally.rejected_events(),
        rejected_by_reason: by_reason.filter(|(_, count)| *count > 0).collect(),
        corrections: tally.corrections,
    }
}
