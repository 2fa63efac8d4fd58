//! `GET /v1/status`: who folds each source, how far it has been counted, and what became of its events.
//!
//! The store must answer; what the log and the group of aggregators do not tell within a few seconds is `null`, and `troubles` says why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{RawQuery, State};
use ingest::{Ends, EventLog, LogError};
use schemas::{Checkpoint, FoldSettings, Millis, Reason, Source, Tally};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::api;
use crate::error::QueryError;
use crate::params::Params;
use crate::read::Watermarks;
use crate::service::QueryService;

/// How long the log and the group are waited for.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// The log whose events are counted.
    log_id: String,
    #[schema(format = "date-time")]
    now: String,
    /// Minutes that start before this are complete, but for late events; `null` until everything has been counted once.
    #[schema(format = "date-time")]
    complete_through: Option<String>,
    /// Why it does not work, or why that is not known; empty if all is well. Lag is judged by whoever reads this.
    troubles: Vec<String>,
    /// The rules by which events are counted.
    #[schema(value_type = api::FoldSettings)]
    settings: FoldSettings,
    sources: Vec<SourceStatus>,
    totals: Totals,
}

#[derive(Debug, Serialize, ToSchema)]
struct SourceStatus {
    source: u32,
    /// The process that folds it; `null` if nobody does or that is not known (then `troubles` says so).
    owner: Option<String>,
    /// The oldest record that the log holds, and the offset after the newest; `null` if the log does not answer.
    start: Option<u64>,
    end: Option<u64>,
    lag_records: Option<u64>,
    /// How long ago the last counted record was appended, 0 if it is the newest; `null` if there is none but there are records.
    lag_seconds: Option<f64>,
    checkpoint: Option<CheckpointStatus>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CheckpointStatus {
    next_offset: u64,
    /// How long ago its last record was appended. An idle source gets a record each minute.
    age_seconds: f64,
    /// The log's time there.
    #[schema(format = "date-time")]
    clock: String,
    /// Minutes that start before this are closed.
    #[schema(format = "date-time")]
    closed: String,
    /// When its last record was appended.
    #[schema(format = "date-time")]
    append_time: String,
    /// How many corrections by adjustment it holds.
    adjustments: u64,
    tally: TallyStatus,
}

#[derive(Debug, Serialize, ToSchema)]
struct TallyStatus {
    events: u64,
    counted: u64,
    duplicate: u64,
    rejected: u64,
    #[schema(value_type = BTreeMap<String, u64>)]
    rejected_by_reason: BTreeMap<&'static str, u64>,
    corrections: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Totals {
    records: Option<u64>,
    lag_records: Option<u64>,
    lag_seconds: Option<f64>,
    tally: TallyStatus,
}

/// How far everything is counted.
///
/// Who folds each source of the log, how far it has come, and what became of its events. The store must answer; what the log and
/// the group of aggregators do not tell within a few seconds is `null`, and `troubles` says why.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "status",
    tag = "Operation",
    responses((status = 200, description = "The status.", body = Status), api::StatusProblems)
)]
pub(crate) async fn show(State(service): State<Arc<QueryService>>, RawQuery(query): RawQuery) -> Result<Json<Status>, QueryError> {
    Params::read(query.as_deref().unwrap_or_default(), &[])?;
    // Checkpoints before ends: a checkpoint read first never leads the end read after it.
    let checkpoints = service.store.read_checkpoints().await?;
    let sources: Vec<Source> = (0..service.log.sources().get()).map(Source).collect();
    let (ends, owners) = tokio::join!(all_ends(&service, sources.clone()), all_owners(&service));
    let now = Millis::now();
    let marks = Watermarks::of(&checkpoints, service.log.sources());
    let by_source: BTreeMap<Source, Checkpoint> = checkpoints.into_iter().collect();
    let troubles = troubles(&sources, &ends, &owners);
    let owners = owners.unwrap_or_default();
    let sources: Vec<SourceStatus> = sources
        .iter()
        .map(|source| source_status(*source, ends.known.get(source).copied(), owners.get(source).cloned(), by_source.get(source), now))
        .collect();
    let mut tally = Tally::default();
    by_source.values().for_each(|checkpoint| tally.add(&checkpoint.tally));
    Ok(Json(Status {
        log_id: service.log.id().to_string(),
        settings: service.reader().settings.clone(),
        now: now.to_rfc3339(),
        complete_through: marks.complete_through.map(Millis::to_rfc3339),
        troubles,
        totals: Totals {
            records: sources.iter().map(|source| source.end).sum(),
            lag_records: sources.iter().map(|source| source.lag_records).sum(),
            lag_seconds: sources.iter().map(|source| source.lag_seconds).try_fold(0.0, |most: f64, lag| lag.map(|lag| most.max(lag))),
            tally: tally_status(&tally),
        },
        sources,
    }))
}

/// The ends that the log told in time, and why there are no more of them.
#[derive(Debug, Default)]
struct KnownEnds {
    known: BTreeMap<Source, Ends>,
    trouble: Option<String>,
}

/// Asks the log for every source's ends, until the time is over: a broker that is gone hides only its own sources, if they come last.
async fn all_ends(service: &QueryService, sources: Vec<Source>) -> KnownEnds {
    let answers: Arc<Mutex<KnownEnds>> = Arc::default();
    let (told, until) = (Arc::clone(&answers), Instant::now() + PATIENCE);
    let asked = service.with_log(move |log| {
        for source in sources {
            let ends = log.ends(source);
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            match ends {
                Ok(ends) => {
                    told.known.insert(source, ends);
                }
                Err(error) => told.trouble = Some(error.to_string()),
            }
            if Instant::now() > until {
                return;
            }
        }
    });
    let in_time = matches!(timeout(PATIENCE, asked).await, Ok(Ok(())));
    let mut ends = std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner));
    if !in_time && ends.trouble.is_none() {
        ends.trouble = Some(no_answer());
    }
    ends
}

/// Who folds what, or why that is not known.
async fn all_owners(service: &QueryService) -> Result<BTreeMap<Source, String>, String> {
    match timeout(PATIENCE, service.with_log(|log: Arc<dyn EventLog>| log.owners())).await {
        Ok(Ok(owners)) => owners.map_err(|error: LogError| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(no_answer()),
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

fn troubles(sources: &[Source], ends: &KnownEnds, owners: &Result<BTreeMap<Source, String>, String>) -> Vec<String> {
    let unknown = ends.known.len() < sources.len();
    let log = ends.trouble.as_ref().filter(|_| unknown).map(|why| format!("the log does not tell where every source ends: {why}"));
    let group = match owners {
        Err(why) => Some(format!("who folds the sources is not known: {why}")),
        Ok(owners) => {
            let free: Vec<String> = sources.iter().filter(|source| !owners.contains_key(source)).map(Source::to_string).collect();
            (!free.is_empty()).then(|| format!("nobody folds {} {}", if free.len() == 1 { "source" } else { "sources" }, free.join(", ")))
        }
    };
    log.into_iter().chain(group).collect()
}

fn source_status(source: Source, ends: Option<Ends>, owner: Option<String>, checkpoint: Option<&Checkpoint>, now: Millis) -> SourceStatus {
    let lag_records = ends.map(|ends| ends.end.0.saturating_sub(checkpoint.map_or(ends.start, |checkpoint| checkpoint.next_offset).0));
    let lag_seconds = match (lag_records, checkpoint) {
        (Some(0), _) => Some(0.0),
        (_, None) | (None, _) => None,
        (_, Some(checkpoint)) => Some(seconds(now.since(checkpoint.append_time))),
    };
    SourceStatus {
        source: source.0,
        owner,
        start: ends.map(|ends| ends.start.0),
        end: ends.map(|ends| ends.end.0),
        lag_records,
        lag_seconds,
        checkpoint: checkpoint.map(|checkpoint| CheckpointStatus {
            next_offset: checkpoint.next_offset.0,
            age_seconds: seconds(now.since(Millis(checkpoint.stamp.0 / 1_000))),
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

#[cfg(test)]
mod tests {
    use schemas::Offset;

    use super::*;

    #[test]
    fn what_is_not_known_and_what_nobody_does_is_said() {
        let sources: Vec<Source> = (0..3).map(Source).collect();
        let ends = |known: u32, trouble: Option<&str>| KnownEnds {
            known: (0..known).map(|n| (Source(n), Ends { start: Offset(0), end: Offset(9) })).collect(),
            trouble: trouble.map(str::to_owned),
        };
        let owners = |of: &[u32]| Ok(of.iter().map(|n| (Source(*n), "a".to_owned())).collect());
        assert_eq!(troubles(&sources, &ends(3, None), &owners(&[0, 1, 2])), [""; 0]);
        assert_eq!(troubles(&sources, &ends(3, None), &owners(&[1])), ["nobody folds sources 0, 2"]);
        let said = troubles(&sources, &ends(2, Some("gone")), &Err("cut".to_owned()));
        assert_eq!(said, ["the log does not tell where every source ends: gone", "who folds the sources is not known: cut"]);
    }

    #[test]
    fn a_source_whose_end_is_not_known_still_shows_its_checkpoint() {
        let checkpoint = Checkpoint {
            next_offset: Offset(5),
            warm_from: Offset(0),
            stamp: schemas::Stamp(7_000_000),
            clock: Millis(7_000),
            append_time: Millis(7_000),
            closed: Millis(0),
            adjustments: 0,
            tally: Tally::default(),
            settings: FoldSettings::default(),
        };
        let status = source_status(Source(0), None, None, Some(&checkpoint), Millis(10_000));
        assert_eq!((status.end, status.lag_records, status.lag_seconds), (None, None, None));
        assert_eq!(status.checkpoint.unwrap().age_seconds, 3.0);
        let ends = Ends { start: Offset(2), end: Offset(6) };
        let status = source_status(Source(0), Some(ends), None, Some(&checkpoint), Millis(10_000));
        assert_eq!((status.lag_records, status.lag_seconds), (Some(1), Some(3.0)));
        assert_eq!(source_status(Source(0), Some(ends), None, None, Millis(0)).lag_records, Some(4));
    }
}
