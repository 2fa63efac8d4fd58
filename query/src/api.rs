//! The words that operations share in the OpenAPI document: parameters, problems, and shapes of what other crates own.
//!
//! Each operation is described where it is handled (`#[utoipa::path]`); `docs` serves the whole.
#![expect(dead_code, reason = "parameters and shapes are only described here: `params` reads them")]

use utoipa::openapi::schema::{AnyOfBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Components, ComponentsBuilder, Content, HeaderBuilder, OpenApi, RefOr, ResponseBuilder, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use ingest::answers_with;
use ingest::problem::responses::ANY;

use crate::{calendar, compare, params};

const ASKED: &[&str] = &["bad-parameter", "unknown-parameter", "quota-exceeded"];
const STORE: &[&str] = &["store-damaged", "store-failed"];
const LOG: &[&str] = &["log-damaged", "log-failed"];
const BODY: &[&str] = &["bad-body", "body-cut", "body-too-large"];

answers_with!(
    /// How an answer with counts is refused.
    pub(crate) CountProblems = [ANY, ASKED, STORE, &["not-acceptable", "too-many-points", "resolution-gone"]]
);
answers_with!(
    /// How a live stream is refused.
    pub(crate) LiveProblems = [ANY, ASKED, STORE]
);
answers_with!(
    /// How a list or a report is refused.
    pub(crate) ListProblems = [ANY, ASKED, STORE, &["resolution-gone", "not-acceptable"]]
);
answers_with!(
    /// How an answer about one video is refused.
    pub(crate) VideoProblems = [ANY, ASKED, STORE, &["unknown-video"]]
);
answers_with!(
    /// How an answer about one space is refused.
    pub(crate) SpaceProblems = [ANY, ASKED, STORE, &["unknown-space"]]
);
answers_with!(
    /// How an answer about the site is refused.
    pub(crate) SiteProblems = [ANY, ASKED, STORE]
);
answers_with!(
    /// How an answer about a day is refused.
    pub(crate) DayProblems = [ANY, ASKED, STORE, &["not-acceptable", "resolution-gone"]]
);
answers_with!(
    /// How an answer about many entities is refused.
    pub(crate) BatchProblems = [ANY, ASKED, BODY, STORE, &["not-acceptable", "too-many-points", "resolution-gone"]]
);
answers_with!(
    /// How something that is to be stored is refused.
    pub(crate) StoringProblems = [ANY, &["bad-parameter", "quota-exceeded"], BODY, STORE]
);
answers_with!(
    /// How an answer about an import is refused.
    pub(crate) ImportProblems = [ANY, &["bad-parameter", "quota-exceeded"], STORE, &["unknown-import"]]
);
answers_with!(
    /// How an answer about the log and the store is refused.
    pub(crate) StatusProblems = [ANY, &["unknown-parameter", "quota-exceeded"], STORE]
);
answers_with!(
    /// How an answer with records is refused.
    pub(crate) RecordProblems = [ANY, ASKED, LOG, &["records-gone"]]
);
answers_with!(
    /// How a list of refused events is refused.
    pub(crate) LetterProblems = [ANY, ASKED, LOG, &["not-acceptable"]]
);
answers_with!(
    /// How an answer about one refused event is refused.
    pub(crate) OneLetterProblems = [ANY, ASKED, LOG, &["unknown-letter"]]
);
answers_with!(
    /// How a retry is refused.
    pub(crate) RetryProblems = [ANY, &["bad-parameter", "quota-exceeded"], BODY, LOG, STORE, &["unknown-letter"]]
);
answers_with!(
    /// How a list of adjustments is refused.
    pub(crate) AdjustmentListProblems = [ANY, ASKED, STORE]
);
answers_with!(
    /// How an answer about an adjustment is refused.
    pub(crate) AdjustmentProblems = [ANY, ASKED, STORE, &["unknown-adjustment"]]
);
answers_with!(
    /// How an adjustment is refused.
    pub(crate) AdjustProblems = [
        ANY,
        &["bad-parameter", "quota-exceeded"],
        BODY,
        LOG,
        STORE,
        &["below-zero", "minute-open", "nothing-to-adjust", "other-adjustment", "source-ended", "resolution-gone"],
    ]
);
answers_with!(
    /// How an undoing is refused.
    pub(crate) UndoProblems = [
        ANY,
        &["bad-parameter", "quota-exceeded"],
        BODY,
        LOG,
        STORE,
        &["below-zero", "nothing-to-adjust", "source-ended", "unknown-adjustment", "unfinished-adjustment"],
    ]
);
answers_with!(
    /// How an answer about one event is refused.
    pub(crate) EventProblems = [ANY, ASKED, LOG, STORE, &["unknown-event"]]
);

/// The video in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct VideoId {
    /// The video's id, as events name it: at most 128 bytes, percent-encoded.
    #[param(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$", example = "v1")]
    id: String,
}

/// The space in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct SpaceId {
    /// The space's (channel's) id, as events name it: at most 128 bytes, percent-encoded.
    #[param(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$", example = "channel-7")]
    id: String,
}

/// What counts are shown in: a time zone.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Zone {
    /// The IANA time zone whose days are meant and whose offset times are written with, such as `Europe/Berlin`. UTC if left out.
    #[param(value_type = Option<TimeZone>)]
    tz: Option<String>,
}

/// A time range and how it is divided.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Range {
    /// Where the range begins (inclusive): RFC 3339 or Unix seconds, rounded down to the minute. 24 hours before `end` if left out.
    #[param(value_type = Option<Instant>, example = "2026-11-20T00:00:00Z")]
    start: Option<String>,
    /// Where the range ends (exclusive): RFC 3339 or Unix seconds, rounded up to the minute. The end of the present minute if left out.
    #[param(value_type = Option<Instant>, example = "2026-11-21T00:00:00Z")]
    end: Option<String>,
    /// The length of a point, along the calendar of `tz`; weeks begin on Monday, and `all` makes the range one point. If left out,
    /// the finest step with at most about 180 points.
    #[param(value_type = Option<Step>, example = "1h")]
    step: Option<String>,
    /// The IANA time zone whose calendar the points follow and whose offset times are written with, such as `Europe/Berlin`. UTC if left out.
    #[param(value_type = Option<TimeZone>)]
    tz: Option<String>,
    /// What to count. `gross` if left out.
    #[param(value_type = Option<Metric>)]
    metric: Option<String>,
    /// A range before, whose counts are given too. Nothing if left out.
    #[param(value_type = Option<Compare>)]
    compare: Option<String>,
}

/// The day in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Date {
    /// A day of UTC, of the years 1 to 5999.
    #[param(format = "date", example = "2026-11-20")]
    date: String,
}

/// What a day is asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DayQuery {
    /// What to count. `gross` if left out.
    #[param(value_type = Option<Metric>)]
    metric: Option<String>,
    /// A row is a day of UTC; no other zone is taken. For the day of a zone ask `.../views` with `step=1m`.
    #[param(pattern = "^UTC$")]
    tz: Option<String>,
}

/// What a live stream tells of.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Live {
    /// The IANA time zone whose today is meant and whose offset times are written with, such as `Europe/Berlin`. UTC if left out.
    #[param(value_type = Option<TimeZone>)]
    tz: Option<String>,
    /// What to count. `gross` if left out.
    #[param(value_type = Option<Metric>)]
    metric: Option<String>,
    /// The `id` of the last event that the reader has: the first event then has the minutes that changed since. The header
    /// `Last-Event-ID`, which `EventSource` sends when it connects again, says the same and stands above it.
    #[param(minimum = 0)]
    last_event_id: Option<i64>,
}

/// The form of the answer.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Form {
    /// The form of the answer, for those who cannot set the `Accept` header; it stands above that. `json` if neither asks for another.
    #[param(value_type = Option<Format>)]
    format: Option<String>,
}

/// Says of every operation that takes `format` which forms its answer has, and, if it answers with counts, with which headers it comes.
pub(crate) fn with_forms(mut openapi: OpenApi) -> OpenApi {
    let items = openapi.paths.paths.values_mut();
    for operation in items.flat_map(|item| [&mut item.get, &mut item.post]).flatten() {
        let mut parameters = operation.parameters.iter().flatten();
        if parameters.any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == "format"))
            && let Some(RefOr::T(response)) = operation.responses.responses.get_mut("200")
        {
            let unchanged = ResponseBuilder::new().description("Nothing has changed since the answer that `If-None-Match` names.").build();
            for form in ["text/csv", "application/vnd.apache.arrow.stream"] {
                response.content.insert(form.to_owned(), Content::default().into());
            }
            if operation.tags.iter().flatten().any(|tag| tag == "Operation") {
                continue;
            }
            for (name, says) in HEADERS {
                let text = ObjectBuilder::new().schema_type(Type::String);
                response
                    .headers
                    .insert((*name).to_owned(), HeaderBuilder::new().schema(Some(text)).description(Some(*says)).build().into());
            }
            operation.responses.responses.insert("304".to_owned(), unchanged.into());
        }
    }
    openapi
}

/// The headers of an answer with counts.
const HEADERS: &[(&str, &str)] = &[
    (
        "Cache-Control",
        "For how long the answer may be given again: 1 s while its counts are open, 5 s when they are complete, 60 s when they are final.",
    ),
    ("ETag", "Names these very bytes: sent back as `If-None-Match` it is answered with 304 for as long as they are true."),
    ("Tallymark-Stale", "Only if the store could not be asked: for how many seconds the answer has been out of date."),
    ("RateLimit-Policy", "How many requests a client may send (draft-ietf-httpapi-ratelimit-headers)."),
    ("RateLimit", "How many of them are left."),
];

/// Schemas of parameters, which the operations only refer to.
pub(crate) fn components() -> Components {
    fn named<T: ToSchema>() -> (String, RefOr<Schema>) {
        (T::name().into_owned(), T::schema())
    }
    ComponentsBuilder::new()
        .schemas_from_iter([
            named::<Instant>(),
            named::<Step>(),
            named::<TimeZone>(),
            named::<Metric>(),
            named::<Compare>(),
            named::<Format>(),
            named::<Reason>(),
            named::<Stage>(),
            named::<LetterState>(),
            named::<AdjustmentState>(),
            named::<PartState>(),
            named::<EventState>(),
        ])
        .build()
}

/// An instant as it stands in a query string.
pub(crate) struct Instant;

impl ToSchema for Instant {}

impl PartialSchema for Instant {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        let seconds = ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[0-9]{1,11}(\.[0-9]{1,9})?$"));
        let says = "RFC 3339 between the years 1 and 5999, or Unix seconds.";
        Schema::from(AnyOfBuilder::new().item(text).item(seconds).description(Some(says)).examples(["2026-11-20T00:00:00Z", "1763596800"]))
            .into()
    }
}

/// The length of a point.
pub(crate) struct Step;

impl ToSchema for Step {}

impl PartialSchema for Step {
    fn schema() -> RefOr<Schema> {
        one_of(
            calendar::Step::ALL.map(calendar::Step::as_str),
            "The length of a point: minutes, hours, days, weeks, months, years, or `all` of the range.",
        )
    }
}

/// An IANA time zone.
pub(crate) struct TimeZone;

impl ToSchema for TimeZone {}

impl PartialSchema for TimeZone {
    fn schema() -> RefOr<Schema> {
        one_of(chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name()), "The name of an IANA time zone, such as `Europe/Berlin`.")
    }
}

/// Which count is meant.
pub(crate) struct Metric;

impl ToSchema for Metric {}

impl PartialSchema for Metric {
    fn schema() -> RefOr<Schema> {
        let says = "`gross` is every counted view, `valid` those that no rule took away, `engaged` the events of that kind.";
        one_of(params::Metric::ALL.map(params::Metric::as_str), says)
    }
}

/// With what a range is compared.
pub(crate) struct Compare;

impl ToSchema for Compare {}

impl PartialSchema for Compare {
    fn schema() -> RefOr<Schema> {
        let says = "`previous_period` is the period of equal length directly before: of whole months as many whole months, of whole days as \
            many days. `previous_year` is the same period a year before, by the calendar; the 29th of February is compared with the 28th.";
        one_of(compare::Compare::ALL.map(compare::Compare::as_str), says)
    }
}

/// The form of an answer.
pub(crate) struct Format;

impl ToSchema for Format {}

impl PartialSchema for Format {
    fn schema() -> RefOr<Schema> {
        one_of(["json", "csv", "arrow"], "The form of an answer: JSON, CSV, or an Arrow IPC stream.")
    }
}

/// Why an event is refused.
pub(crate) struct Reason;

impl ToSchema for Reason {}

impl PartialSchema for Reason {
    fn schema() -> RefOr<Schema> {
        one_of(schemas::Reason::ALL.map(schemas::Reason::as_str), "Why an event is refused.")
    }
}

/// Where an event is refused.
pub(crate) struct Stage;

impl ToSchema for Stage {}

impl PartialSchema for Stage {
    fn schema() -> RefOr<Schema> {
        let says = "Where it was refused: `decode` its bytes could not be read, `classify` the log's time refused it, `correct` it is a \
            correction that was not taken. Each reason belongs to one.";
        one_of(schemas::Stage::ALL.map(schemas::Stage::as_str), says)
    }
}

/// How a refused event stands.
pub(crate) struct LetterState;

impl ToSchema for LetterState {}

impl PartialSchema for LetterState {
    fn schema() -> RefOr<Schema> {
        one_of(["open", "claimed", "counted", "unknown"], "What has become of a refused event since.")
    }
}

/// How an adjustment stands.
pub(crate) struct AdjustmentState;

impl ToSchema for AdjustmentState {}

impl PartialSchema for AdjustmentState {
    fn schema() -> RefOr<Schema> {
        let says = "`planned`: none of its parts has ended. `under_way`: some have. `taken`: it counts. `refused`: it does not, and will not. \
                    `taken_in_part`: other adjustments came between, and some of its parts were refused. `unknown`: it was interrupted so long ago \
                    that the log no longer tells whether some of its parts count.";
        one_of(["planned", "under_way", "taken", "refused", "taken_in_part", "unknown"], says)
    }
}

/// How a part of an adjustment stands.
pub(crate) struct PartState;

impl ToSchema for PartState {}

impl PartialSchema for PartState {
    fn schema() -> RefOr<Schema> {
        one_of(["planned", "taken", "refused", "unknown"], "Whether a part of an adjustment counts.")
    }
}

/// What became of an event.
pub(crate) struct EventState;

impl ToSchema for EventState {}

impl PartialSchema for EventState {
    fn schema() -> RefOr<Schema> {
        one_of(["counted", "duplicate", "rejected", "pending"], "What became of an event.")
    }
}

/// A text that is one of some.
pub(crate) fn one_of(names: impl IntoIterator<Item = &'static str>, says: &str) -> RefOr<Schema> {
    Schema::from(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).description(Some(says))).into()
}

/// What is counted.
#[derive(ToSchema)]
pub(crate) struct Entity {
    /// What kind of thing.
    dimension: Dimension,
    /// Which one; `all` for the site.
    id: String,
}

/// A kind of thing that is counted: one video, all videos of a space, or everything.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Dimension {
    Video,
    Space,
    Site,
}

/// What is known of a video. All members are optional.
#[derive(ToSchema)]
#[schema(as = VideoMetadata, example = json!({
    "title": "How glass is made",
    "space_id": "channel-7",
    "space_name": "Workshops",
    "published_at": "2026-11-01T09:00:00Z"
}))]
#[serde(deny_unknown_fields)]
pub(crate) struct VideoInfo {
    /// Its title: one line of at most 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    title: Option<String>,
    /// The id of its space.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    space_id: Option<String>,
    /// The name of its space: one line of at most 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    space_name: Option<String>,
    /// When it was published.
    #[schema(format = "date-time")]
    published_at: Option<String>,
}

/// What is known of a space.
#[derive(ToSchema)]
#[schema(as = SpaceMetadata, example = json!({ "name": "Workshops" }))]
#[serde(deny_unknown_fields)]
pub(crate) struct SpaceInfo {
    /// Its name: one line of at most 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    name: Option<String>,
}

/// What is to be known of many videos.
#[derive(ToSchema)]
#[schema(example = json!({ "videos": [
    { "id": "v1", "title": "How glass is made", "space_id": "channel-7", "space_name": "Workshops" },
    { "id": "v2", "title": "How bread is made" }
] }))]
#[serde(deny_unknown_fields)]
pub(crate) struct Videos {
    /// Each id once.
    #[schema(min_items = 1, max_items = 1000)]
    videos: Vec<NamedVideo>,
}

/// A video and what is to be known of it: as in `VideoMetadata`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedVideo {
    /// Its id, as events name it.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    id: String,
    /// Its title: one line of at most 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    title: Option<String>,
    /// The id of its space.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    space_id: Option<String>,
    /// The name of its space, which names the space too.
    #[schema(min_length = 1, max_length = 1024, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    space_name: Option<String>,
    /// When it was published.
    #[schema(format = "date-time")]
    published_at: Option<String>,
}

/// A question about many entities. All but `entities` is as in the query string of `.../views`.
#[derive(ToSchema)]
#[schema(example = json!({
    "entities": [{ "dimension": "video", "id": "v1" }, { "dimension": "site" }],
    "start": "2026-11-20T00:00:00Z",
    "end": "2026-11-21T00:00:00Z",
    "step": "1h",
    "compare": "previous_period"
}))]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchQuestion {
    #[schema(min_items = 1, max_items = 1000)]
    entities: Vec<AskedEntity>,
    /// RFC 3339 or Unix seconds. 24 hours before `end` if left out.
    #[schema(value_type = Option<Instant>)]
    start: Option<String>,
    /// RFC 3339 or Unix seconds. The end of the present minute if left out.
    #[schema(value_type = Option<Instant>)]
    end: Option<String>,
    #[schema(value_type = Option<Step>)]
    step: Option<String>,
    #[schema(value_type = Option<TimeZone>)]
    tz: Option<String>,
    #[schema(value_type = Option<Metric>)]
    metric: Option<String>,
    #[schema(value_type = Option<Compare>)]
    compare: Option<String>,
}

/// An entity that is asked about.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskedEntity {
    dimension: Dimension,
    /// Of the site it is `all`, or left out.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    id: Option<String>,
}

/// How far a file has been imported.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportProgress {
    /// The file's name when it was first imported, for people.
    #[schema(max_length = 4096, example = "views.csv")]
    file: String,
    /// How its columns were read: another mapping is another import.
    #[schema(max_length = 4096, example = "")]
    mapping: String,
    /// So many events from the file's start are in the log for certain.
    #[schema(minimum = 0, example = 250_000)]
    events: u64,
    /// The log's ends, by source, when those were: what was sent after them lies at or behind these offsets.
    ends: Vec<u64>,
    /// Whether the whole file is in.
    complete: bool,
}

/// The rules by which events are counted.
#[derive(ToSchema)]
pub(crate) struct FoldSettings {
    /// Which program of the fold.
    fold_version: u32,
    /// How long after its end a minute stays open, in ms of log time.
    grace_ms: i64,
    /// How far ahead of the log's time an event may be, in ms.
    max_skew_ms: i64,
    /// How far behind the log's time an event may be, in ms, unless it is historical.
    max_lateness_ms: i64,
    /// For how many minutes of log time an event id is remembered; 0 turns deduplication off.
    dedup_minutes: i32,
    /// How long counts by minute are kept, in ms; 0 for ever.
    minute_ttl_ms: i64,
    /// How long counts by hour are kept, in ms; 0 for ever.
    hour_ttl_ms: i64,
    /// The number of sources (partitions) of the log.
    sources: u32,
    /// Over how many sources one video's events are spread.
    spread: u32,
}
