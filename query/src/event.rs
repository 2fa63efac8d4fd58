//! `GET /v1/events/{event_id}`: was this event counted, and if not, why?
//!
//! ```text
//! the log of a source:   ── dedup_minutes ──┬──── within ────┬ now
//!                        ids are learned     what is told of
//! ```
//!
//! The log's last minutes are read and judged by the fold's own rules ([`aggregator::fold::Trace`]): so it is said of each event with
//! this id, in each source, what was or will be done with it. Reading is limited in time; an answer says how far it went.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::fold::{Occurrence, Place, Trace, Verdict};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use ingest::{EventLog, LogError, Problem, ReadLimit};
use schemas::id::check_id;
use schemas::partition::positive_murmur2;
use schemas::{Checkpoint, FoldSettings, LetterId, Millis, Minute, Offset, Source};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use crate::api;
use crate::error::QueryError;
use crate::params::{Params, shown};
use crate::service::{QueryService, path_id};

const DEFAULT: Duration = Duration::from_secs(15 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// The log is read for so long.
const READS_FOR: Duration = Duration::from_secs(6);
/// So many sources are read at once.
const SOURCES_AT_ONCE: usize = 4;
/// So many events with one id are told of each source; others are only counted.
const TOLD: usize = 50;

const BATCH: ReadLimit = ReadLimit { records: 2_000, bytes: 4 * 1024 * 1024, patience: Duration::from_secs(2) };

/// The event in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "path_id reads it")]
pub(crate) struct EventId {
    /// The event's id, as it was sent: at most 128 bytes, percent-encoded.
    #[param(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$", example = "e1")]
    event_id: String,
}

/// Where and how far back to look.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "Ask reads it")]
pub(crate) struct Asked {
    /// The event's video: only the parts of the log that its events go to are read. Leave it out if a producer puts events elsewhere.
    #[param(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$", example = "v1")]
    video_id: Option<String>,
    /// How far back to look: a number with `s`, `m` or `h`, at most 24 hours.
    #[param(pattern = "^([1-9][0-9]{0,2}[sm]|(1[0-9]|2[0-4]|[1-9])h)$", default = "15m", example = "1h")]
    within: Option<String>,
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventFate)]
pub(crate) struct Event {
    event_id: String,
    /// What became of it in all: `counted` it is, `pending` it is not folded yet, `rejected` it was refused each time.
    #[schema(value_type = api::EventState)]
    state: &'static str,
    /// Each event with this id that was found, by source and then in the order of the log. At most 50 of a source are told of.
    occurrences: Vec<Told>,
    /// How many there are.
    found: usize,
    searched: Searched,
}

/// Where was looked.
#[derive(Debug, Serialize, ToSchema)]
struct Searched {
    /// Among events that were taken in at or after this.
    #[schema(format = "date-time")]
    since: String,
    /// In so many sources (partitions) of the log.
    sources: usize,
    /// Whether all that was to be read was read: else there was no time, and what was taken in last is missing.
    complete: bool,
}

/// One event with the id.
#[derive(Debug, Serialize, ToSchema)]
struct Told {
    source: u32,
    /// Its record.
    offset: u64,
    /// Its place in the record, from 0.
    index: u32,
    /// When it was taken in.
    #[schema(format = "date-time")]
    append_time: String,
    /// Whether it was sent as historical.
    historical: bool,
    video_id: Option<String>,
    /// When it happened, if that can be read.
    #[schema(format = "date-time")]
    ts: Option<String>,
    /// `counted` it counts, `duplicate` its id had been seen, `rejected` it was refused, `pending` it is not folded yet.
    #[schema(value_type = api::EventState)]
    state: &'static str,
    /// Of a duplicate: where its id was seen last before.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate_of: Option<Seen>,
    /// Of a refused event: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
}

/// A place in a source.
#[derive(Debug, Serialize, ToSchema)]
struct Seen {
    source: u32,
    offset: u64,
    index: u32,
}

/// Why an event was refused, and what became of it since.
#[derive(Debug, Serialize, ToSchema)]
struct Refused {
    #[schema(value_type = api::Stage)]
    stage: &'static str,
    #[schema(value_type = api::Reason)]
    reason: &'static str,
    detail: String,
    /// Its dead letter: what `GET /v1/rejected/{letter}` shows.
    #[schema(example = "0/1234/0")]
    letter: String,
    /// How the letter stands; `null` if that is not known now.
    #[schema(value_type = Option<api::LetterState>)]
    letter_state: Option<&'static str>,
}

/// Whether an event was counted, and if not, why.
///
/// The log's last minutes are looked through for events with this id, and it is said of each what became of it: what `tallymark` does
/// with an event follows from the log alone. An event whose id could not be read is not found here; it is among `/v1/rejected`.
#[utoipa::path(
    get,
    path = "/v1/events/{event_id}",
    operation_id = "event",
    tag = "Events",
    params(EventId, Asked),
    responses((status = 200, description = "What became of it.", body = Event), api::EventProblems)
)]
pub(crate) async fn show(
    State(service): State<Arc<QueryService>>,
    event_id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Json<Event>, QueryError> {
    let event_id = path_id("event", event_id)?;
    let given = Params::read(query.as_deref().unwrap_or_default(), &["video_id", "within"])?;
    let within = given.get("within").map_or(Ok(DEFAULT), |text| duration(text))?;
    let settings = service.reader().settings.clone();
    let sources = match given.get("video_id") {
        None => (0..service.log.sources().get()).map(Source).collect(),
        Some(video) => {
            check_id(video).map_err(|error| Problem::bad_parameter("video_id", format!("video_id {error}")))?;
            sources_of(video, &settings, service.log.sources().get())
        }
    };
    // Before the log's ends: what a checkpoint has passed is in the log.
    let checkpoints = service.store.read_checkpoints().await?;
    let since = Millis::now().plus(-i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
    let place = Arc::new(service.place_to_search()?);
    let deadline = Instant::now() + READS_FOR;
    let search = Search { event_id: event_id.into(), settings: Arc::new(settings), since, deadline, _place: place };
    let count = sources.len();
    let traces = sources.into_iter().map(|source| trace(&service, search.clone(), source));
    let traced: Vec<(Source, Traced)> = stream::iter(traces).buffered(SOURCES_AT_ONCE).try_collect().await?;
    let searched = Searched { since: since.to_rfc3339(), sources: count, complete: traced.iter().all(|(_, traced)| traced.complete) };
    let found = traced.iter().map(|(_, traced)| traced.found).sum();
    let next = |source: Source| {
        checkpoints.iter().find(|(of, _)| *of == source).map_or(Offset(0), |(_, Checkpoint { next_offset, .. })| *next_offset)
    };
    let told = traced.into_iter().flat_map(|(source, traced)| traced.told.into_iter().map(move |occurrence| (source, occurrence)));
    let mut occurrences: Vec<Told> = told.map(|(source, occurrence)| Told::of(source, occurrence, next(source))).collect();
    if occurrences.is_empty() {
        return Err(not_found(&search.event_id, &searched).into());
    }
    letters(&service, &mut occurrences).await;
    let state = in_all(&occurrences);
    Ok(Json(Event { event_id: search.event_id.to_string(), state, occurrences, found, searched }))
}

fn not_found(event_id: &str, searched: &Searched) -> Problem {
    let Searched { since, sources, complete } = searched;
    let cut = if *complete { "" } else { ", as far as there was time to read them: give video_id, or a shorter within" };
    let detail = format!("no event {} was taken in since {since} in {sources} sources of the log{cut}", shown(event_id));
    let problem = Problem::new(StatusCode::NOT_FOUND, "unknown-event", "There is no such event", detail);
    problem.with("since", since.as_str()).with("complete", *complete)
}

/// What became of it in all.
fn in_all(occurrences: &[Told]) -> &'static str {
    let has = |state: &str| occurrences.iter().any(|told| told.state == state);
    // A duplicate counts by what it is a duplicate of.
    if has(COUNTED) || has(DUPLICATE) {
        COUNTED
    } else if has(PENDING) {
        PENDING
    } else {
        REJECTED
    }
}

const COUNTED: &str = "counted";
const DUPLICATE: &str = "duplicate";
const REJECTED: &str = "rejected";
const PENDING: &str = "pending";

/// The sources that a video's events go to.
fn sources_of(video: &str, settings: &FoldSettings, there_are: u32) -> Vec<Source> {
    let sources = settings.sources.clamp(1, there_are);
    let first = u64::from(positive_murmur2(video.as_bytes()));
    let slots = (0..u64::from(settings.spread.clamp(1, sources))).map(|slot| (first + slot) % u64::from(sources));
    let mut sources: Vec<Source> = slots.filter_map(|slot| u32::try_from(slot).ok().map(Source)).collect();
    sources.sort_unstable();
    sources
}

/// A number with `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, Problem> {
    let bad = || Problem::bad_parameter("within", format!("within {} is none such as 90s, 15m or 2h, at most 24h", shown(text)));
    let seconds = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3_600,
        _ => return Err(bad()),
    };
    let number = text.get(..text.len() - 1).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number: u64 = number.and_then(|digits| digits.parse().ok()).ok_or_else(bad)?;
    let duration = Duration::from_secs(number.saturating_mul(seconds));
    if duration.is_zero() || duration > LONGEST { Err(bad()) } else { Ok(duration) }
}

/// What is looked for.
#[derive(Clone)]
struct Search {
    event_id: Arc<str>,
    settings: Arc<FoldSettings>,
    since: Millis,
    deadline: Instant,
    _place: Arc<OwnedSemaphorePermit>,
}

/// What was found in a source.
struct Traced {
    told: Vec<Occurrence>,
    found: usize,
    complete: bool,
}

async fn trace(service: &QueryService, search: Search, source: Source) -> Result<(Source, Traced), QueryError> {
    let traced = service.with_log(move |log| trace_source(&*log, &search, source)).await??;
    Ok((source, traced))
}

/// Reads a source from where its clock and the ids of a whole window can be known. Blocks.
fn trace_source(log: &dyn EventLog, search: &Search, source: Source) -> Result<Traced, LogError> {
    let Search { event_id, settings, since, deadline, .. } = search;
    let end = log.ends(source)?.end;
    let first = Minute::of(*since).plus(settings.dedup_minutes.saturating_neg());
    let mut next = log.first_at_or_after(source, first.start())?;
    let mut trace = Trace::new(event_id, settings);
    let (mut told, mut found) = (Vec::new(), 0);
    while next < end && Instant::now() < *deadline {
        let read = log.read(source, next, BATCH, &mut |record| {
            if record.offset >= end {
                return ControlFlow::Break(());
            }
            trace.read(&record, |occurrence| {
                if occurrence.append_time >= *since {
                    found += 1;
                    if told.len() < TOLD {
                        told.push(occurrence);
                    }
                }
            });
            ControlFlow::Continue(())
        });
        next = match read {
            Ok(to) if to == next => break,
            Ok(to) => to,
            Err(LogError::Gone { start, .. }) => start,
            Err(error) => return Err(error),
        };
    }
    Ok(Traced { told, found, complete: next >= end })
}

impl Told {
    /// `next` is the first record that is not stored as folded.
    fn of(source: Source, occurrence: Occurrence, next: Offset) -> Self {
        let Occurrence { place: Place { offset, index }, append_time, historical, video_id, ts, verdict } = occurrence;
        let (state, duplicate_of, refused) = match verdict {
            _ if offset >= next => (PENDING, None, None),
            Verdict::Counted => (COUNTED, None, None),
            Verdict::Duplicate(of) => (DUPLICATE, Some(Seen { source: source.0, offset: of.offset.0, index: of.index }), None),
            Verdict::Rejected(stage, rejection) => {
                let letter = LetterId { source, offset, index }.to_string();
                let (reason, detail) = (rejection.reason.as_str(), rejection.detail);
                (REJECTED, None, Some(Refused { stage: stage.as_str(), reason, detail, letter, letter_state: None }))
            }
        };
        Self {
            source: source.0,
            offset: offset.0,
            index,
            append_time: append_time.to_rfc3339(),
            historical,
            video_id,
            ts: ts.map(Millis::to_rfc3339),
            state,
            duplicate_of,
            refused,
        }
    }
}

/// Says how the letters of refused events stand; where that cannot be had soon it stays unsaid.
async fn letters(service: &QueryService, occurrences: &mut [Told]) {
    let Ok(rejected) = service.rejected() else { return };
    let letters: Vec<Option<LetterId>> =
        occurrences.iter().map(|told| told.refused.as_ref().and_then(|refused| refused.letter.parse().ok())).collect();
    if letters.iter().all(Option::is_none) {
        return;
    }
    let states = tokio::task::spawn_blocking(move || rejected.states(&letters)).await;
    let Ok(Ok(states)) = states else { return };
    for (told, state) in occurrences.iter_mut().zip(states) {
        if let Some(refused) = &mut told.refused {
            refused.letter_state = state;
            if state == Some(COUNTED) {
                told.state = COUNTED;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_back_is_a_number_of_seconds_minutes_or_hours() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("24h", 86_400), ("1440m", 86_400)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds);
        }
        for bad in
            ["", "m", "0m", "25h", "86401s", "-1m", "+1m", "1.5h", "15", "15 m", "99999999999999999999h", "18446744073709551615h", "1é"]
        {
            assert!(duration(bad).unwrap_err().body().contains("24h"), "{bad:?}");
        }
    }

    #[test]
    fn a_video_is_looked_for_where_the_partitioner_puts_it() {
        use schemas::partition::Partitioner;
        use std::num::NonZeroU32;
        for (sources, spread) in [(1, 1), (8, 1), (8, 3), (8, 8), (3, 8)] {
            let settings = FoldSettings { sources, spread, ..FoldSettings::default() };
            let partitioner = Partitioner { sources: NonZeroU32::new(sources).unwrap(), spread: NonZeroU32::new(spread).unwrap() };
            for n in 0..200 {
                let event = format!(r#"{{"event_id":"e{n}","video_id":"v{}","ts":1763642096789}}"#, n % 7);
                let event = schemas::json::decode(event.as_bytes()).unwrap();
                let looked = sources_of(&event.video_id, &settings, 12);
                assert!(looked.contains(&partitioner.source(&event)) && looked.len() <= usize::try_from(spread).unwrap());
            }
        }
    }
}
