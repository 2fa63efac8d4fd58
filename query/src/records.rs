//! `GET /v1/records?source=&from=&limit=&video=&follow=true`: the log's records, decoded, as NDJSON.
//!
//! Without `source` it is every source, a batch of each in turn. `from` is an offset, `start` (the default) or `end` (the default
//! with `follow`); `limit` bounds the lines, `video` keeps the events of one video. Without `follow` the answer ends where the
//! log ended when it began. A failure after the first byte is a last line with a member `error`.
//!
//! Each line is one event, or one record that is none. Records are read in bounded batches on threads that may block; a client
//! that has gone is noticed within a second.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use ingest::{Ends, EventLog, LogError, Problem, ReadLimit};
use prometheus_client::metrics::gauge::Gauge;
use schemas::dead_letter::Original;
use schemas::id::check_id;
use schemas::{Millis, Offset, Record, RecordKind, Rejection, Source, ViewBatch, json};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::api;
use crate::error::QueryError;
use crate::params::Params;
use crate::service::QueryService;

const BATCH: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024, patience: Duration::from_secs(5) };
const WAIT: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    source: Option<Source>,
    from: Begin,
    limit: Option<u64>,
    video: Option<String>,
    follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    Start,
    End,
    Offset(Offset),
}

impl Ask {
    fn read(query: &str, sources: u32) -> Result<Self, Problem> {
        let given = Params::read(query, &["source", "from", "limit", "video", "follow"])?;
        let source = given.number("source", 0)?.map(|number| {
            let known = u32::try_from(number).ok().filter(|source| *source < sources);
            known
                .map(Source)
                .ok_or_else(|| Problem::bad_parameter("source", format!("there is no source {number}; the log has {sources}, from 0")))
        });
        let follow = match given.get("follow").map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Problem::bad_parameter("follow", "follow is true or false")),
        };
        let from = match given.get("from").map(String::as_str) {
            None if follow => Begin::End,
            None | Some("start") => Begin::Start,
            Some("end") => Begin::End,
            Some(text) => {
                Begin::Offset(Offset(text.parse().map_err(|_| Problem::bad_parameter("from", "from is an offset, start or end"))?))
            }
        };
        let video = given.get("video").cloned();
        if let Some(error) = video.as_deref().and_then(|id| check_id(id).err()) {
            return Err(Problem::bad_parameter("video", format!("video {error}")));
        }
        Ok(Self { source: source.transpose()?, from, limit: given.number("limit", 1)?, video, follow })
    }
}

/// What the query string may hold.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "Ask reads it")]
struct Asked {
    /// One source (partition) of the log. All of them, a batch of each in turn, if left out.
    #[param(minimum = 0)]
    source: Option<u32>,
    /// Where to begin: an offset, `start` or `end`. `start` if left out; with `follow` it is `end`.
    #[param(pattern = "^(start|end|[0-9]{1,18})$", example = "start")]
    from: Option<String>,
    /// The most lines of the answer. No limit if left out.
    #[param(minimum = 1)]
    limit: Option<u64>,
    /// Only the events of this video.
    #[param(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    video: Option<String>,
    /// Whether to go on with records as they come. Otherwise the answer ends where the log ended when it began.
    #[param(default = false)]
    follow: Option<bool>,
}

/// The records of the log.
///
/// As they were sent, one JSON object a line: one event, or one record that holds none. A failure after the first line is a last
/// line with a member `error`.
#[utoipa::path(
    get,
    path = "/v1/records",
    operation_id = "records",
    tag = "Operation",
    params(Asked),
    responses((status = 200, description = "The records.", body = String, content_type = "application/x-ndjson"), api::RecordProblems)
)]
pub(crate) async fn stream(State(service): State<Arc<QueryService>>, RawQuery(query): RawQuery) -> Result<Response, QueryError> {
    let ask = Ask::read(query.as_deref().unwrap_or_default(), service.log.sources().get())?;
    let permit = Arc::clone(&service.streams).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable(5, "as many record streams as may be are open; close one, or try again later"))?;
    let tap = service.with_log(move |log| Tap::begin(log, &ask)).await??;
    let open = Open::new(permit, service.metrics.streams.clone());
    let stopped = service.stopped.subscribe();
    let body = Body::from_stream(stream::unfold((Some(tap), open, stopped), |(tap, open, stopped)| async move {
        let (tap, chunk) = next_chunk(tap?, &stopped).await?;
        Some((Ok::<_, Infallible>(chunk), (tap, open, stopped)))
    }));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// The next lines, and the tap to go on with; `None` at the end.
async fn next_chunk(mut tap: Tap, stopped: &watch::Receiver<bool>) -> Option<(Option<Tap>, Bytes)> {
    while !tap.is_done() && !*stopped.borrow() {
        let (back, read) = tokio::task::spawn_blocking(move || {
            let read = tap.read();
            (tap, read)
        })
        .await
        .ok()?;
        tap = back;
        match read {
            Ok(lines) if lines.is_empty() => {}
            Ok(lines) => return Some((Some(tap), lines.into())),
            Err(error) => return Some((None, error_line(&error))),
        }
    }
    None
}

fn error_line(error: &LogError) -> Bytes {
    tracing::warn!(%error, "a record stream ended early");
    format!("{}\n", serde_json::json!({ "error": error.to_string() })).into()
}

/// Counts an open stream for as long as it lives.
pub(crate) struct Open {
    _permit: OwnedSemaphorePermit,
    streams: Gauge,
}

impl Open {
    pub(crate) fn new(permit: OwnedSemaphorePermit, streams: Gauge) -> Self {
        streams.inc();
        Self { _permit: permit, streams }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.dec();
    }
}

/// A reader of some sources.
struct Tap {
    log: Arc<dyn EventLog>,
    cursors: Vec<Cursor>,
    video: Option<String>,
    follow: bool,
    left: u64,
    seen: u64,
}

struct Cursor {
    source: Source,
    next: Offset,
    /// Where it ends, without `follow`.
    end: Offset,
}

impl Tap {
    fn begin(log: Arc<dyn EventLog>, ask: &Ask) -> Result<Self, QueryError> {
        let sources = ask.source.map_or_else(|| (0..log.sources().get()).map(Source).collect(), |source| vec![source]);
        let cursor = |source| {
            let Ends { start, end } = log.ends(source)?;
            let next = match ask.from {
                Begin::Start => start,
                Begin::End => end,
                Begin::Offset(asked) if asked < start => return Err(LogError::Gone { source_id: source, asked, start }.into()),
                Begin::Offset(asked) if asked > end => {
                    let detail = format!("source {source} ends at offset {end}; {asked} is beyond");
                    return Err(Problem::bad_parameter("from", detail).into());
                }
                Begin::Offset(asked) => asked,
            };
            Ok::<_, QueryError>(Cursor { source, next, end })
        };
        let cursors = sources.into_iter().map(cursor).collect::<Result<_, _>>()?;
        Ok(Self { log, cursors, video: ask.video.clone(), follow: ask.follow, left: ask.limit.unwrap_or(u64::MAX), seen: 0 })
    }

    fn is_done(&self) -> bool {
        self.left == 0 || !(self.follow || self.cursors.iter().any(|cursor| cursor.next < cursor.end))
    }

    /// A batch of each source as lines. Blocks for up to [`WAIT`] when it follows and there is nothing new.
    fn read(&mut self) -> Result<Vec<u8>, LogError> {
        let mut out = Vec::new();
        let mut grew = false;
        for cursor in &mut self.cursors {
            let (video, left, end) = (self.video.as_deref(), &mut self.left, if self.follow { Offset(u64::MAX) } else { cursor.end });
            let next = self.log.read(cursor.source, cursor.next, BATCH, &mut |record| {
                if record.offset >= end || *left == 0 {
                    return ControlFlow::Break(());
                }
                lines(cursor.source, &record, video, left, &mut out);
                ControlFlow::Continue(())
            })?;
            grew |= next > cursor.next;
            cursor.next = next;
        }
        if self.follow && !grew {
            self.seen = self.log.wait(self.seen, WAIT);
        }
        Ok(out)
    }
}

/// One line of the answer. Members that say nothing are left out.
#[derive(Debug, Serialize)]
struct Line<'a> {
    source: Source,
    offset: Offset,
    append_time: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    historical: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(flatten)]
    original: Option<Original>,
}

const fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Json => "json",
        RecordKind::Ndjson => "ndjson",
        RecordKind::ViewBatch => "view_batch",
        RecordKind::Tick => "tick",
        RecordKind::Adjustment => "adjustment",
        RecordKind::Mark => "repair_mark",
        RecordKind::Set => "repair_set",
        RecordKind::Unknown(_) => "unknown",
    }
}

/// Appends a record's lines, as many as are `left`. With `video` only the events of that video.
fn lines(source: Source, record: &Record<'_>, video: Option<&str>, left: &mut u64, out: &mut Vec<u8>) {
    match record.kind {
        RecordKind::Json => event_line(source, record, 0, record.payload, video, left, out),
        RecordKind::Ndjson => {
            for (index, payload) in (0..).zip(json::lines(record.payload)) {
                event_line(source, record, index, payload, video, left, out);
            }
        }
        RecordKind::ViewBatch => batch_lines(source, record, video, left, out),
        _ if video.is_some() => {}
        RecordKind::Tick => write(&line(source, record), left, out),
        _ => write(&Line { original: Some(Original::of(record.payload)), ..line(source, record) }, left, out),
    }
}

fn event_line(source: Source, record: &Record<'_>, index: u32, payload: &[u8], video: Option<&str>, left: &mut u64, out: &mut Vec<u8>) {
    match json::decode(payload) {
        Ok(event) if video.is_none_or(|video| event.video_id == video) => {
            event_shown(source, record, index, &one_line(payload), left, out);
        }
        Ok(_) => {}
        Err(_) if video.is_some() => {}
        Err(rejection) => write(&refused(source, record, index, rejection, payload), left, out),
    }
}

fn event_shown(source: Source, record: &Record<'_>, index: u32, event: &[u8], left: &mut u64, out: &mut Vec<u8>) {
    let event: Option<&RawValue> = serde_json::from_slice(event).ok();
    write(&Line { index: Some(index), event, ..line(source, record) }, left, out);
}

/// The events of a columnar batch, each as the JSON that it could have come as; or, if no event of it can be told, why.
fn batch_lines(source: Source, record: &Record<'_>, video: Option<&str>, left: &mut u64, out: &mut Vec<u8>) {
    let batch = match ViewBatch::read(record.payload) {
        Ok(batch) => batch,
        Err(_) if video.is_some() => return,
        Err(rejection) => return write(&refused(source, record, 0, rejection, record.payload), left, out),
    };
    for (index, whole) in (0..).zip(batch.wholes()) {
        if *left == 0 {
            return;
        }
        match whole.check() {
            Ok(()) if video.is_none_or(|video| whole.event.video_id == video) => {
                event_shown(source, record, index, &whole.to_json(), left, out);
            }
            Ok(()) => {}
            Err(_) if video.is_some() => {}
            Err(rejection) => write(&refused(source, record, index, rejection, &whole.to_json()), left, out),
        }
    }
}

fn refused<'a>(source: Source, record: &Record<'_>, index: u32, rejection: Rejection, original: &[u8]) -> Line<'a> {
    let Rejection { reason, detail } = rejection;
    let original = Some(Original::of(original));
    Line { index: Some(index), rejected: Some(reason.as_str()), detail: Some(detail), original, ..line(source, record) }
}

/// JSON on one line: a newline in it can only stand between its parts.
fn one_line(payload: &[u8]) -> Vec<u8> {
    payload.trim_ascii().iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

fn line<'a>(source: Source, record: &Record<'_>) -> Line<'a> {
    let Record { offset, append_time, kind, historical, .. } = *record;
    let append_time = Millis::to_rfc3339(append_time);
    Line {
        source,
        offset,
        append_time,
        kind: kind_name(kind),
        historical,
        index: None,
        event: None,
        rejected: None,
        detail: None,
        original: None,
    }
}

fn write(line: &Line<'_>, left: &mut u64, out: &mut Vec<u8>) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    // Strings and numbers always have a JSON form, and memory takes it.
    let written = serde_json::to_writer(&mut *out, line);
    debug_assert!(written.is_ok());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: RecordKind, payload: &[u8], video: Option<&str>, mut left: u64) -> Vec<serde_json::Value> {
        let record = Record { offset: Offset(7), append_time: Millis(1_000), kind, historical: true, payload };
        let mut out = Vec::new();
        lines(Source(1), &record, video, &mut left, &mut out);
        out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_shown_as_it_was_sent_on_one_line() {
        let sent = b" {\"event_id\":\"e\",\r\n\"video_id\":\"v\",\"ts\":1763640000000,\"more\":{\"b\":1.50}} ";
        let lines = shown(RecordKind::Json, sent, Some("v"), 9);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["event"]["more"]["b"], 1.5);
        assert_eq!((&lines[0]["source"], &lines[0]["offset"], &lines[0]["index"]), (&1.into(), &7.into(), &0.into()));
        assert_eq!((&lines[0]["historical"], &lines[0]["append_time"]), (&true.into(), &"1970-01-01T00:00:01Z".into()));
        assert!(shown(RecordKind::Json, sent, Some("w"), 9).is_empty());
    }

    #[test]
    fn each_line_of_a_batch_has_its_index_and_what_is_refused_its_reason() {
        let batch = b"{\"event_id\":\"e\",\"video_id\":\"v\",\"ts\":1763640000000}\n\nnot json\n{\"event_id\":\"f\",\"video_id\":\"w\",\"ts\":1}\n\xff";
        let all = shown(RecordKind::Ndjson, batch, None, 9);
        let told: Vec<(u64, &str)> =
            all.iter().map(|line| (line["index"].as_u64().unwrap(), line["rejected"].as_str().unwrap_or("event"))).collect();
        assert_eq!(told, [(0, "event"), (1, "bad_json"), (2, "ts_in_seconds"), (3, "bad_json")]);
        assert_eq!((&all[1]["text"], &all[3]["hex"]), (&"not json".into(), &"ff".into()));
        assert_eq!(shown(RecordKind::Ndjson, batch, None, 2).len(), 2);
        assert_eq!(shown(RecordKind::Ndjson, batch, Some("v"), 9).len(), 1);
    }

    #[test]
    fn each_event_of_a_columnar_batch_is_shown_as_json() {
        let events: [(&[u8], _); 3] = [
            (br#"{"event_id":"e","video_id":"v","ts":1763640000000}"#, None),
            (br#"{"event_id":"550e8400-e29b-41d4-a716-446655440000","video_id":"w","space_id":"s","ts":1763640000001}"#, None),
            (br#"{"event_id":"f","video_id":"v","ts":1763640000002,"watch_ms":7}"#, Some("{\"more\":{\"b\":\n1.50}}")),
        ];
        let mut writer = schemas::view_batch::Writer::new();
        for (event, others) in &events {
            writer.push(&json::decode(event).unwrap(), *others).unwrap();
        }
        let payload = writer.finish();
        let all = shown(RecordKind::ViewBatch, &payload, None, 9);
        for (line, (event, others)) in all.iter().zip(&events) {
            let mut event: serde_json::Value = serde_json::from_slice(event).unwrap();
            if others.is_some() {
                event["more"]["b"] = 1.5.into();
            }
            assert_eq!((&line["event"], &line["kind"]), (&event, &"view_batch".into()));
        }
        assert_eq!(all.iter().map(|line| line["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(shown(RecordKind::ViewBatch, &payload, Some("v"), 9).len(), 2);
        assert_eq!(shown(RecordKind::ViewBatch, &payload, None, 2).len(), 2);
        // Its first text id is `e`; a control character in its place is that event's fault alone.
        let at = payload.windows(2).position(|pair| pair == b"ef").unwrap();
        let damaged = [&payload[..at], b"\x07", &payload[at + 1..]].concat();
        let told: Vec<_> = shown(RecordKind::ViewBatch, &damaged, None, 9).iter().map(|line| line["rejected"].clone()).collect();
        assert_eq!(told, ["bad_id".into(), serde_json::Value::Null, serde_json::Value::Null]);
        let broken = shown(RecordKind::ViewBatch, &payload[1..], None, 9);
        assert_eq!((broken.len(), &broken[0]["rejected"]), (1, &"bad_batch".into()));
        assert!(shown(RecordKind::ViewBatch, &payload[1..], Some("v"), 9).is_empty());
    }

    #[test]
    fn a_tick_is_a_line_without_an_event() {
        assert_eq!(shown(RecordKind::Tick, b"", None, 9)[0]["kind"], "tick");
        assert!(shown(RecordKind::Tick, b"", Some("v"), 9).is_empty());
        assert_eq!(shown(RecordKind::Unknown(99), b"x", None, 9)[0]["text"], "x");
    }

    #[test]
    fn what_is_asked_for_is_checked() {
        let ask = Ask::read("source=1&from=7&limit=5&video=v&follow=true", 2).unwrap();
        let from = Begin::Offset(Offset(7));
        assert_eq!(ask, Ask { source: Some(Source(1)), from, limit: Some(5), video: Some("v".into()), follow: true });
        assert_eq!(Ask::read("follow=true", 2).unwrap().from, Begin::End);
        assert_eq!(Ask::read("", 2).unwrap().from, Begin::Start);
        for bad in ["source=2", "source=x", "from=-1", "limit=0", "video=", "follow=1", "form=3"] {
            assert_eq!(Ask::read(bad, 2).unwrap_err().status(), 400, "{bad}");
        }
    }
}
