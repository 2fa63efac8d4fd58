//! `GET /v1/reports/{day}`: every video that was viewed on a UTC day, one row each, in the byte order of ids.
//!
//! ```text
//! day cells of each source ──> merge ──> names ──> bounded channel ──> JSON, CSV or Arrow, as fast as the client reads
//! ```
//!
//! However many videos there are, a few pages of them are in memory. `final` says whether only imports and corrections still change the
//! report; what is counted is everything below each source's watermark. A report that breaks off on its way is cut: CSV and JSON without
//! their last chunk, Arrow and JSON without their end, so that no one takes a part for the whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::Field;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use ingest::Problem;
use prometheus_client::metrics::gauge::Gauge;
use schemas::{Dimension, Millis, Minute, Source, Tier};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use utoipa::{IntoParams, ToSchema};

use crate::answer::cache_control;
use crate::api;
use crate::error::QueryError;
use crate::formats::{Format, Table, count, text};
use crate::params::{Metric, Params, choice};
use crate::read::Watermarks;
use crate::series::{Count, Time};
use crate::service::{QueryService, path_text};
use crate::standing::Standing;
use crate::top::merge::{Merge, Origin, Summed};
use crate::top::parse_day;

/// So many rows are given out at once.
const ROWS_AT_ONCE: usize = 4_096;
/// So many of these wait for the client.
const WAITING: usize = 2;
/// Whether only imports and corrections still change the report, for those who read rows only.
const FINAL: HeaderName = HeaderName::from_static("tallymark-final");

/// What is asked for.
#[derive(Clone, Copy, Debug)]
struct Ask {
    day: Minute,
    with_names: bool,
}

impl Ask {
    fn read(day: &str, query: &str, now: Millis) -> Result<Self, Problem> {
        let given = Params::read(query, &["names", "format"])?;
        let with_names = given.get("names").map_or(Ok(true), |text| choice("names", text, &[("true", true), ("false", false)]))?;
        let date = parse_day("day", day)?;
        if date.start() > now {
            let detail = format!("the day {day} has not begun (UTC); it is {} now", now.to_rfc3339());
            return Err(Problem::bad_parameter("day", detail));
        }
        Ok(Self { day: date, with_names })
    }

    fn date(self) -> String {
        self.day.to_string().chars().take(10).collect()
    }
}

/// The report of a day.
#[derive(ToSchema)]
#[schema(example = json!({
    "day": "2026-11-20",
    "final": false,
    "complete": true,
    "complete_through": "2026-11-21T14:37:00Z",
    "videos": [{ "video_id": "v1", "title": "How glass is made", "space_id": "channel-7", "views": 42, "valid": 42, "engaged": 7 }]
}))]
#[expect(dead_code, reason = "it describes what is streamed")]
pub(crate) struct Report {
    /// The UTC day.
    #[schema(format = "date")]
    day: String,
    /// Whether only imports and corrections still change it.
    r#final: bool,
    /// Whether every source has closed the day; late events may still come.
    complete: bool,
    /// Minutes that start before this are counted.
    #[schema(required = true)]
    complete_through: Option<Time>,
    /// In the byte order of ids.
    videos: Vec<Row>,
}

/// One video of a day.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ReportRow)]
struct Row {
    #[schema(value_type = String)]
    video_id: Arc<str>,
    #[serde(flatten)]
    known: Option<Known>,
    /// Every counted view.
    views: Count,
    /// Those that no rule took away.
    valid: Count,
    /// Events of that kind.
    engaged: Count,
}

/// What is known of a video; left out with `names=false`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ReportNames)]
struct Known {
    title: Option<String>,
    space_id: Option<String>,
}

/// Some rows, or the end of the report. Who hears no end has not seen all.
type Part = Result<Option<Vec<Row>>, QueryError>;

/// The day in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "Ask reads it")]
pub(crate) struct Day {
    /// The UTC day, not one to come.
    #[param(format = "date", example = "2026-11-20")]
    day: String,
}

/// What the query string may hold.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "Ask reads it")]
pub(crate) struct Asked {
    /// Whether to say each video's title and space. They are looked up one by one; a report of a million videos is quicker without.
    #[param(default = true)]
    names: Option<bool>,
}

/// Every video of a day.
///
/// One row for each video that was viewed on the UTC day, streamed, so that it may hold millions. In CSV and Arrow the header
/// `Tallymark-Final` says whether only imports and corrections still change it. A report that breaks off on its way ends without its end.
#[utoipa::path(
    get,
    path = "/v1/reports/{day}",
    operation_id = "report",
    tag = "Lists",
    params(Day, Asked, api::Form),
    responses((status = 200, description = "The report.", body = Report), api::ListProblems)
)]
pub(crate) async fn show(
    State(service): State<Arc<QueryService>>,
    day: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    let ask = Ask::read(&path_text("day", day)?, query.as_deref().unwrap_or_default(), Millis::now())?;
    let permit = Arc::clone(&service.streams).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable(5, "as many streams as may be are open; close one, or try again later"))?;
    let checkpoints = service.store.read_checkpoints().await?;
    let marks = Watermarks::of(&checkpoints, service.log.sources());
    let sources: BTreeSet<Source> = checkpoints.iter().map(|(source, _)| *source).collect();

    let (sender, mut parts) = mpsc::channel(WAITING);
    let open = Open::new(permit, service.metrics.streams.clone());
    tokio::spawn(write(service, ask, sources, sender, open));
    // A store that does not answer at all is a problem; one that stops on the way cuts the report off.
    let first = parts.recv().await.unwrap_or(Err(QueryError::Broken))?;
    let rows = stream::unfold((Some(Ok(first)), parts), |(ready, mut parts)| async move {
        let part = match ready {
            Some(part) => part,
            None => parts.recv().await.unwrap_or(Err(QueryError::Broken)),
        };
        Some((part.transpose()?, (None, parts)))
    });
    respond(ask, &marks, format, rows)
}

/// Counts an open stream for as long as it lives.
struct Open {
    _permit: OwnedSemaphorePermit,
    streams: Gauge,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit, streams: Gauge) -> Self {
        streams.inc();
        Self { _permit: permit, streams }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.dec();
    }
}

/// Reads the report and hands it on, until its end or until nobody wants it any more.
async fn write(service: Arc<QueryService>, ask: Ask, sources: BTreeSet<Source>, parts: mpsc::Sender<Part>, _open: Open) {
    let mut stopped = service.stopped.subscribe();
    let ended = tokio::select! {
        ended = write_rows(&service, ask, sources, &parts) => ended,
        _ = stopped.wait_for(|stopped| *stopped) => Err(QueryError::Broken),
        () = parts.closed() => return,
    };
    let end = ended.map(|()| None).inspect_err(|error| tracing::warn!(%error, "a report ended early"));
    // Nobody may listen any more.
    let _ = parts.send(end).await;
}

async fn write_rows(service: &QueryService, ask: Ask, sources: BTreeSet<Source>, parts: &mpsc::Sender<Part>) -> Result<(), QueryError> {
    let bucket = Tier::Day.bucket(ask.day);
    let adds: Vec<(usize, Metric)> = (0..).zip(Metric::ALL).collect();
    let origins = sources.into_iter().map(|source| Origin::Cells { bucket, source, adds: adds.clone() }).collect();
    let mut merge: Merge<'_, 3> = Merge::new(&*service.store, Dimension::Video, origins, service.limits.reads_at_once);
    while let Some(summed) = merge.next().await? {
        let mut summed = summed.into_iter().filter(|(_, sums)| *sums != [0; 3]).peekable();
        while summed.peek().is_some() {
            let rows = rows(service, ask, summed.by_ref().take(ROWS_AT_ONCE)).await?;
            if parts.send(Ok(Some(rows))).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn rows(service: &QueryService, ask: Ask, summed: impl Iterator<Item = Summed<3>>) -> Result<Vec<Row>, QueryError> {
    let row = |(video_id, [gross, valid, engaged]): Summed<3>| async move {
        let known = match ask.with_names {
            true => {
                let info = service.names.video(&video_id).await?.unwrap_or_default();
                Some(Known { title: info.title, space_id: info.space_id })
            }
            false => None,
        };
        Ok(Row { video_id, known, views: Count(gross), valid: Count(valid), engaged: Count(engaged) })
    };
    stream::iter(summed.map(row)).buffered(service.limits.reads_at_once.max(1)).try_collect().await
}

fn respond(
    ask: Ask,
    marks: &Watermarks,
    format: Format,
    rows: impl Stream<Item = Result<Vec<Row>, QueryError>> + Send + 'static,
) -> Result<Response, QueryError> {
    let end = Tier::Day.bucket(ask.day).end();
    let is_final = marks.is_final(end);
    let through = marks.complete_through.map(|through| Time(Minute::of(through), None));
    let mut response = match format {
        Format::Json => {
            let head = json!({"day": ask.date(), "final": is_final, "complete": marks.is_complete(end), "complete_through": through});
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(json_chunks(&head, rows))).into_response()
        }
        Format::Table(format) => {
            let batches = rows.map_ok(move |rows| columns(ask, &rows));
            let table = Table::streamed(format!("views-{}", ask.date()), fields(ask), batches)
                .with("day", Some(ask.date()))
                .with("final", Some(is_final.to_string()))
                .with("complete_through", through.map(|through| through.to_string()));
            table.response(format)?
        }
    };
    let headers = response.headers_mut();
    headers.insert(FINAL, HeaderValue::from_static(if is_final { "true" } else { "false" }));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control(Standing::fresh(marks.lasts(end)))));
    Ok(response)
}

/// The members of `head`, and as the last one the rows.
fn json_chunks(
    head: &serde_json::Value,
    rows: impl Stream<Item = Result<Vec<Row>, QueryError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, QueryError>> + Send + 'static {
    let head = head.to_string();
    let head = format!("{},\"videos\":[", head.trim_end_matches('}'));
    let mut is_first = true;
    let chunk = move |rows: Vec<Row>| {
        let mut out = Vec::with_capacity(rows.len() * 96);
        for row in rows {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            out.push(b'\n');
            serde_json::to_writer(&mut out, &row).map_err(|_| QueryError::Broken)?;
        }
        Ok(Bytes::from(out))
    };
    // Behind a failure comes nothing, least of all an end.
    let steps = rows.map(Some).chain(stream::once(async { None }));
    let body = steps.scan((false, chunk), |(failed, chunk), rows| {
        let next = match rows {
            _ if *failed => None,
            Some(rows) => Some(rows.and_then(&mut *chunk)),
            None => Some(Ok(Bytes::from_static(b"\n]}\n"))),
        };
        *failed |= next.as_ref().is_none_or(Result::is_err);
        std::future::ready(next)
    });
    stream::once(async { Ok(Bytes::from(head)) }).chain(body)
}

fn fields(ask: Ask) -> Vec<Field> {
    let mut fields = vec![text("video_id")];
    if ask.with_names {
        fields.extend(["title", "space_id"].map(text));
    }
    fields.extend(["views", "valid", "engaged"].map(count));
    fields
}

fn columns(ask: Ask, rows: &[Row]) -> Vec<ArrayRef> {
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &*row.video_id)))];
    if ask.with_names {
        let texts: [fn(&Known) -> Option<&str>; 2] = [|known| known.title.as_deref(), |known| known.space_id.as_deref()];
        let column = |of: fn(&Known) -> Option<&str>| rows.iter().map(|row| row.known.as_ref().and_then(of)).collect::<StringArray>();
        columns.extend(texts.map(|of| Arc::new(column(of)) as ArrayRef));
    }
    let counts: [fn(&Row) -> i64; 3] = [|row| row.views.0, |row| row.valid.0, |row| row.engaged.0];
    columns.extend(counts.map(|of| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef));
    columns
}
