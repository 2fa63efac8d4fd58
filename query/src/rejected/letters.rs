//! Letters as they are shown: `GET /v1/rejected`, newest first, and one of them with its original.
//!
//! As a table a list has no place for its `cursor`: the header `Tallymark-Cursor` says it.
//!
//! A list is read backwards from the log's end, for so long and so many as one request may; `cursor` goes on behind it. A restart may
//! write a letter twice: then it is in the list twice, under one name.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, BooleanArray, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono_tz::Tz;
use ingest::Problem;
use schemas::{LetterId, Millis, Offset, Source};
use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Extent;
use super::filter::{FILTER, Filter};
use super::judge::told;
use super::ledger::State as Standing;
use super::reading::{LOOKS_FOR, Read};
use crate::api;
use crate::error::QueryError;
use crate::formats::{Format, Table, Tabular, flag, text, time};
use crate::params::Params;
use crate::service::QueryService;

/// The most letters of a list.
const MOST: u64 = 1_000;
const DEFAULT: u64 = 100;
/// Where to go on, for those who read rows only.
const CURSOR: HeaderName = HeaderName::from_static("tallymark-cursor");

/// Which letters, and how many.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "Params reads it")]
pub(crate) struct Asked {
    /// Only those refused for this reason.
    #[param(value_type = Option<api::Reason>)]
    reason: Option<String>,
    /// Only those refused in this stage.
    #[param(value_type = Option<api::Stage>)]
    stage: Option<String>,
    /// Only those of this source (partition) of the log.
    #[param(minimum = 0)]
    source: Option<u32>,
    /// Only those refused at or after: RFC 3339 or Unix seconds.
    #[param(value_type = Option<api::Instant>)]
    start: Option<String>,
    /// Only those refused before: RFC 3339 or Unix seconds.
    #[param(value_type = Option<api::Instant>)]
    end: Option<String>,
    /// The most letters of the answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// The `cursor` of the answer before, to go on behind it.
    #[param(minimum = 0)]
    cursor: Option<u64>,
}

/// Letters, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Letters {
    letters: Vec<Letter>,
    /// So many letters were looked at.
    looked_at: u64,
    /// Whether there are older ones to look at: ask again with `cursor`. There may be no letter among them that is meant.
    more: bool,
    /// Where to go on; `null` at the end.
    cursor: Option<u64>,
}

/// A refused event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Letter {
    /// Its name: `source/offset/index`.
    #[schema(example = "0/1234/0")]
    letter: String,
    /// The source that it was read from.
    source: u32,
    /// Its record.
    offset: u64,
    /// Its place in the record, from 0.
    index: u32,
    /// Its place in the dead-letter log.
    at: u64,
    /// When it was refused.
    #[schema(value_type = String, format = "date-time")]
    #[serde(serialize_with = "rfc3339")]
    rejected_at: Millis,
    #[schema(value_type = api::Stage)]
    stage: &'static str,
    #[schema(value_type = api::Reason)]
    reason: &'static str,
    /// What is wrong, and what to do.
    detail: String,
    /// Whether it was sent as historical.
    historical: bool,
    /// What has become of it since: `open` it was not retried, `claimed` somebody is counting it or was interrupted (a retry
    /// finishes it), `counted` it is counted, `unknown` the log no longer tells whether an interrupted retry counted it.
    #[schema(value_type = api::LetterState)]
    state: &'static str,
    /// The adjustment that counts it: the offset of its record in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_by: Option<u64>,
    /// The event's id, if it can be told.
    #[schema(value_type = Option<String>)]
    event_id: Option<Value>,
    /// Its video, if it can be told.
    #[schema(value_type = Option<String>)]
    video_id: Option<Value>,
    /// Its time as it was sent, if it can be told.
    ts: Option<Value>,
}

/// A refused event with its original bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeLetter {
    #[serde(flatten)]
    letter: Letter,
    /// The original, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The original in hexadecimal digits, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// How many bytes there were, if the original is not all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    whole_bytes: Option<u64>,
}

impl Letter {
    /// A letter, and how it stands.
    fn of(read: &Read, standing: Standing) -> Self {
        let Read { at, time, letter } = read;
        let [event_id, video_id, ts] = told(&letter.original);
        Self {
            letter: letter.id().to_string(),
            source: letter.source.0,
            offset: letter.offset.0,
            index: letter.index,
            at: at.0,
            rejected_at: *time,
            stage: letter.stage.as_str(),
            reason: letter.reason.as_str(),
            detail: letter.detail.clone(),
            historical: letter.historical,
            state: standing.name(),
            counted_by: if let Standing::Counted(_, offset) = standing { Some(offset.0) } else { None },
            event_id,
            video_id,
            ts,
        }
    }
}

fn rfc3339<S: Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339())
}

impl Tabular for Letters {
    fn table(self) -> Table {
        let letters = &self.letters;
        let texts = |of: fn(&Letter) -> &str| Arc::new(letters.iter().map(|letter| Some(of(letter))).collect::<StringArray>()) as ArrayRef;
        let numbers = |of: fn(&Letter) -> Option<u64>| Arc::new(letters.iter().map(of).collect::<UInt64Array>()) as ArrayRef;
        // What was sent may be a text or a number: a column is one of them.
        let sent = |of: fn(&Letter) -> Option<&Value>| {
            let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Arc::new(letters.iter().map(|letter| of(letter).map(shown)).collect::<StringArray>()) as ArrayRef
        };
        let times: TimestampMillisecondArray = letters.iter().map(|letter| Some(letter.rejected_at.0)).collect();
        let historical: BooleanArray = letters.iter().map(|letter| Some(letter.historical)).collect();
        let number = |name: &str| Field::new(name, DataType::UInt64, true);
        let columns = [
            (text("letter"), texts(|letter| &letter.letter)),
            (time("rejected_at", Tz::UTC), Arc::new(times.with_timezone(Tz::UTC.name())) as ArrayRef),
            (text("stage"), texts(|letter| letter.stage)),
            (text("reason"), texts(|letter| letter.reason)),
            (text("detail"), texts(|letter| &letter.detail)),
            (text("state"), texts(|letter| letter.state)),
            (number("counted_by"), numbers(|letter| letter.counted_by)),
            (text("event_id"), sent(|letter| letter.event_id.as_ref())),
            (text("video_id"), sent(|letter| letter.video_id.as_ref())),
            (text("ts"), sent(|letter| letter.ts.as_ref())),
            (flag("historical"), Arc::new(historical) as ArrayRef),
            (number("source"), numbers(|letter| Some(letter.source.into()))),
            (number("offset"), numbers(|letter| Some(letter.offset))),
            (number("index"), numbers(|letter| Some(letter.index.into()))),
            (number("at"), numbers(|letter| Some(letter.at))),
        ];
        let (fields, columns) = columns.into_iter().unzip();
        Table::new("rejected", fields, columns).with("cursor", self.cursor.map(|cursor| cursor.to_string()))
    }
}

impl Letters {
    fn respond(self, format: Format) -> Result<Response, QueryError> {
        let cursor = self.cursor;
        let mut response = match format {
            Format::Json => Json(self).into_response(),
            Format::Table(format) => self.table().response(format)?,
        };
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        response.headers_mut().extend(cursor.map(|cursor| (CURSOR, HeaderValue::from(cursor))));
        Ok(response)
    }
}

/// Refused events, newest first.
///
/// What was taken in and then could not be counted is kept with its reason and its original bytes for as long as the dead-letter log
/// keeps it. An answer looks through a limited part of the log: with `more` there is more to look at.
#[utoipa::path(
    get,
    path = "/v1/rejected",
    operation_id = "rejected",
    tag = "Operation",
    params(Asked, api::Form),
    responses(
        (
            status = 200,
            description = "The letters.",
            body = Letters,
            headers(("Tallymark-Cursor" = u64, description = "The `cursor` to go on with, if there are older ones to look at."))
        ),
        api::LetterProblems
    )
)]
pub(crate) async fn list(
    State(service): State<Arc<QueryService>>,
    RawQuery(query): RawQuery,
    format: Format,
) -> Result<Response, QueryError> {
    let [reason, stage, source, start, end] = FILTER;
    let given = Params::read(query.as_deref().unwrap_or_default(), &[reason, stage, source, start, end, "limit", "cursor", "format"])?;
    let filter = Filter::read(&given)?;
    let limit = given.number("limit", 1)?.unwrap_or(DEFAULT);
    if limit > MOST {
        return Err(Problem::bad_parameter("limit", format!("limit is a whole number of 1 to {MOST}")).into());
    }
    let cursor = given.number("cursor", 0)?;
    if let Some(cursor) = cursor.filter(|cursor| i64::try_from(*cursor).is_err()) {
        return Err(Problem::bad_parameter("cursor", format!("cursor {cursor} is none that an answer gave")).into());
    }
    let cursor = cursor.map(Offset);
    let place = service.place_to_search()?;
    let letters = service
        .with_rejected(move |rejected| {
            let _place = place;
            rejected.catch_up()?;
            let Extent { from, to } = rejected.extent(&filter)?;
            let to = cursor.map_or(to, |cursor| cursor.min(to)).max(from);
            let page = rejected.backwards(&filter, Extent { from, to }, limit)?;
            let ledger = rejected.ledger();
            let letters = page.letters.iter().map(|read| Letter::of(read, ledger.state(&read.letter.id()))).collect();
            let more = page.next > from;
            Ok(Letters { letters, looked_at: page.looked_at, more, cursor: more.then_some(page.next.0) })
        })
        .await?;
    letters.respond(format)
}

/// The letter in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "show reads it")]
pub(crate) struct Name {
    /// The source that its event was read from.
    #[param(minimum = 0, example = 0)]
    source: u32,
    /// The record of its event.
    #[param(minimum = 0, example = 1234)]
    offset: u64,
    /// The place of its event in the record, from 0.
    #[param(minimum = 0, example = 0)]
    index: u32,
}

/// Where the letter is.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "Params reads it")]
pub(crate) struct Hint {
    /// The letter's `at`, as lists say it: it is then found at once.
    #[param(minimum = 0)]
    at: Option<u64>,
}

/// A refused event with its original.
///
/// It is looked for from the time on when its event was taken in, or where `at` says.
#[utoipa::path(
    get,
    path = "/v1/rejected/{source}/{offset}/{index}",
    operation_id = "rejected_event",
    tag = "Operation",
    params(Name, Hint),
    responses((status = 200, description = "The letter.", body = WholeLetter), api::OneLetterProblems)
)]
pub(crate) async fn show(
    State(service): State<Arc<QueryService>>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Json<WholeLetter>, QueryError> {
    let id = name(path)?;
    let at = Params::read(query.as_deref().unwrap_or_default(), &["at"])?.number("at", 0)?.map(Offset);
    let events = Arc::clone(&service.log);
    let place = service.place_to_search()?;
    let letter = service.with_rejected(move |rejected| {
        let _place = place;
        rejected.catch_up()?;
        let read = rejected.find(&*events, id, at, Instant::now() + LOOKS_FOR)?;
        let letter = Letter::of(&read, rejected.ledger().state(&id));
        let (text, hex) = match read.letter.original {
            schemas::dead_letter::Original::Text(text) => (Some(text), None),
            schemas::dead_letter::Original::Hex(hex) => (None, Some(hex)),
        };
        Ok(WholeLetter { letter, text, hex, whole_bytes: read.letter.whole_bytes })
    });
    Ok(Json(letter.await?))
}

fn name(path: Result<Path<(String, String, String)>, PathRejection>) -> Result<LetterId, Problem> {
    let part = |name: &str, text: &str| -> Result<u64, Problem> {
        let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        number.ok_or_else(|| Problem::bad_parameter(name, format!("{name} is a whole number from 0")))
    };
    // A number that is too large for one is that of no letter.
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let Path((source, offset, index)) = path.map_err(|_| crate::service::not_utf8("letter"))?;
    let (source, offset) = (Source(small(part("source", &source)?)), Offset(part("offset", &offset)?));
    Ok(LetterId { source, offset, index: small(part("index", &index)?) })
}
