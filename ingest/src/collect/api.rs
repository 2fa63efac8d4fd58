//! What the OpenAPI document says of `POST /v1/events`: the shapes of its bodies. [`schemas::json`] reads them.
#![expect(dead_code, reason = "the shapes are only described here")]

use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

crate::answers_with!(
    /// How the collector refuses a request.
    pub(super) Refusals = [
        crate::problem::responses::ANY,
        &["bad-parameter", "bad-body", "body-cut", "no-usable-event", "body-too-slow", "body-too-large", "too-many-events"],
        &["unsupported-media-type", "body-expands", "origin-refused", "request-in-progress", "idempotency-key-reused", "quota-exceeded"],
    ]
);

/// One click. Members that are unknown are kept in the log and ignored.
#[derive(ToSchema)]
#[schema(example = json!({
    "event_id": "3f2b8c1e-5a77-4d0e-9c1b-8f6f2f6a1d20",
    "video_id": "v1",
    "ts": "2026-11-20T12:34:56.789Z",
    "space_id": "channel-7",
    "viewer_id": "u-42",
    "watch_ms": 12_000
}))]
pub(super) struct Event {
    /// What makes the event unique: a second one with the same id, within the deduplication window (10 minutes of log time by
    /// default), does not count. A UUID is a good choice. At most 128 bytes.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    event_id: String,
    /// What was viewed. At most 128 bytes.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    video_id: String,
    #[schema(schema_with = instant)]
    ts: String,
    /// The space (channel) that the video belongs to. At most 128 bytes.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    space_id: Option<String>,
    /// Who viewed, if that is known. It is not counted; it only spreads a hot video over partitions. At most 128 bytes.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    viewer_id: Option<String>,
    /// How long it was watched, in milliseconds.
    #[schema(minimum = 0)]
    watch_ms: Option<u64>,
    /// What happened: a view counts as `gross` and `valid`, `engaged` (the viewer stayed; an event with an id of its own) as
    /// `engaged` only. A view if left out.
    kind: Option<Kind>,
}

/// RFC 3339, or Unix time in milliseconds.
fn instant() -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let millis = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(100_000_000_000i64)).maximum(Some(253_402_300_799_999i64));
    let says = "When it was viewed, by the producer's clock: RFC 3339, or milliseconds since 1970 (below 10^11 they are taken for seconds and refused).";
    OneOfBuilder::new().item(text).item(millis).description(Some(says)).into()
}

/// What an event says happened.
#[derive(ToSchema)]
#[schema(as = EventKind, rename_all = "snake_case")]
pub(super) enum Kind {
    View,
    Engaged,
}

/// One event, an array of events, or an object that holds one.
pub(super) struct Events;

impl PartialSchema for Events {
    fn schema() -> RefOr<Schema> {
        let event = || Ref::from_schema_name(Event::name());
        let array = || ArrayBuilder::new().items(event()).min_items(Some(1));
        let object = ObjectBuilder::new().schema_type(Type::Object).property("events", array()).required("events");
        Schema::from(AnyOfBuilder::new().item(event()).item(array()).item(object).description(Some("One event, or many."))).into()
    }
}

impl ToSchema for Events {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Event::name().into_owned(), Event::schema()));
        Event::schemas(schemas);
    }
}

/// The headers that say more of a request.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "they are read where they are used")]
pub(super) struct Headers {
    /// When this attempt was sent, by the clock that the events were stamped with, in Unix milliseconds. If that is more than 2 s
    /// from its arrival, the `ts` of its events is moved by the difference. Historical events never are.
    #[param(rename = "Tallymark-Sent-At", required = false, minimum = 100_000_000_000i64, maximum = 253_402_300_799_999i64)]
    sent_at: i64,
    /// A name for this request (a UUID), in quotes or bare. Sent again with the same body within 10 minutes, it is given the answer
    /// of the first (with `Idempotent-Replayed: true`) and nothing is appended again; while the first is being worked on it is
    /// answered 409, with another body 422. Answers other than 202 are not kept. This is the memory of one instance: on another,
    /// after a restart or when there are very many, the events are appended again, and counted once by their `event_id`.
    #[param(rename = "Idempotency-Key", required = false, min_length = 1, max_length = 253, pattern = "^[A-Za-z0-9-]+$")]
    idempotency_key: String,
}

/// What became of a request's events.
#[derive(ToSchema)]
#[schema(example = json!({
    "accepted": 1,
    "rejected_total": 1,
    "rejected": [{ "index": 1, "reason": "missing_field", "detail": "video_id is missing; it is a string of 1 to 128 bytes" }]
}))]
pub(super) struct Accepted {
    /// So many events are in the log, durably. Each is counted once, or else shows up in the log of rejected events.
    #[schema(minimum = 1)]
    accepted: u64,
    /// So many events were refused.
    #[schema(minimum = 0)]
    rejected_total: u64,
    /// The first 1,000 that were refused.
    rejected: Vec<RejectedEvent>,
    /// So many of the accepted are on the collector's disk and go to the log when it is back: Kafka is away. Left out if there are none.
    #[schema(minimum = 1)]
    spooled: Option<u64>,
}

/// An event that was refused.
#[derive(ToSchema)]
pub(super) struct RejectedEvent {
    /// Its place among the request's events, from 0.
    #[schema(minimum = 0)]
    index: u64,
    /// Why: one of a few stable words, such as `missing_field`, `bad_ts` or `ts_in_seconds`.
    reason: String,
    /// What is wrong with it, and what to do.
    detail: String,
}
