//! A record as a Kafka message and back.
//!
//! | header | means |
//! |---|---|
//! | `content-type` | what the payload is; absent: one JSON event, so that any producer's messages count |
//! | `tallymark-historical: 1` | its events are exempt from `too_old` |
//!
//! The key is not looked at, and a message without a payload (a tombstone) is an empty one.

use rdkafka::message::{Header, OwnedHeaders};
use schemas::{Millis, Offset, Record, RecordKind, view_batch};

use super::queue::Message;

const CONTENT_TYPE: &str = "content-type";
const HISTORICAL: &str = "tallymark-historical";
/// The media type of what is ours alone; its parameter says what it is.
const OWN_TYPE: &str = "application/x-tallymark";
const OWN_PARAMETER: &str = "messagetype=";
/// The media type of every protobuf message; the same parameter says which.
const PROTOBUF_TYPE: &str = "application/x-protobuf";
/// What cannot be read by this version and has no code.
const FOREIGN: RecordKind = RecordKind::Unknown(0);

/// The headers to send with a record; none for an ordinary event.
pub(super) fn headers(kind: RecordKind, historical: bool) -> Option<OwnedHeaders> {
    let content_type = content_type(kind);
    if content_type.is_none() && !historical {
        return None;
    }
    let mut headers = OwnedHeaders::new();
    if let Some(content_type) = content_type {
        headers = headers.insert(Header { key: CONTENT_TYPE, value: Some(&content_type) });
    }
    if historical {
        headers = headers.insert(Header { key: HISTORICAL, value: Some("1") });
    }
    Some(headers)
}

/// About how many bytes the headers add to a message.
pub(super) const HEADER_BYTES: usize = 128;

/// A message as the record it is; borrowed from it. The append time is the message's timestamp: the topic says whose that is.
pub(super) fn record(message: Message<'_>, offset: Offset) -> Record<'_> {
    let (mut kind, mut historical) = (RecordKind::Json, false);
    message.headers(&mut |key, value| {
        if key.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes()) {
            kind = value.map_or(RecordKind::Json, self::kind);
        } else if key.eq_ignore_ascii_case(HISTORICAL.as_bytes()) {
            historical = value == Some(b"1");
        }
    });
    let append_time = message.timestamp_ms().map_or(Millis::NEVER, Millis);
    Record { offset, append_time, kind, historical, payload: message.payload() }
}

/// The content type to send; none for JSON, which needs none.
fn content_type(kind: RecordKind) -> Option<String> {
    match kind {
        RecordKind::Json => None,
        RecordKind::Unknown(code) => Some(format!("{OWN_TYPE}; messageType={code}")),
        known => Some(known.content_type().to_owned()),
    }
}

/// What a content type says that the payload is.
fn kind(content_type: &[u8]) -> RecordKind {
    // Those that nearly every record has, as this program writes them.
    match content_type {
        b"application/json" | b"" => return RecordKind::Json,
        b"application/x-ndjson" => return RecordKind::Ndjson,
        _ if content_type == RecordKind::ViewBatch.content_type().as_bytes() => return RecordKind::ViewBatch,
        _ => {}
    }
    let Ok(text) = std::str::from_utf8(content_type) else { return FOREIGN };
    let text = text.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    match parts.next() {
        Some("application/json" | "") => RecordKind::Json,
        Some("application/x-ndjson") => RecordKind::Ndjson,
        Some(OWN_TYPE) => parts.find_map(|part| part.strip_prefix(OWN_PARAMETER)).map_or(FOREIGN, own_kind),
        Some(PROTOBUF_TYPE) => parts.find_map(|part| part.strip_prefix(OWN_PARAMETER)).map_or(FOREIGN, protobuf_kind),
        _ => FOREIGN,
    }
}

fn own_kind(name: &str) -> RecordKind {
    match name.trim_matches('"') {
        "tick" => RecordKind::Tick,
        "adjustment" => RecordKind::Adjustment,
        "repair-mark" => RecordKind::Mark,
        "repair-set" => RecordKind::Set,
        code => code.parse().map_or(FOREIGN, RecordKind::from_code),
    }
}

fn protobuf_kind(name: &str) -> RecordKind {
    if name.trim_matches('"').eq_ignore_ascii_case(view_batch::MESSAGE_TYPE) { RecordKind::ViewBatch } else { FOREIGN }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a failed expectation is a panic")]
mod tests {
    use rdkafka::message::Headers;

    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_content_type() {
        for code in 0..=u8::MAX {
            let sent = RecordKind::from_code(code);
            let back = content_type(sent).map_or(RecordKind::Json, |text| kind(text.as_bytes()));
            assert_eq!(back, sent);
        }
    }

    #[test]
    fn content_types_of_others_are_understood_or_unknown() {
        for (text, meant) in [
            ("application/json", RecordKind::Json),
            ("Application/JSON; charset=utf-8", RecordKind::Json),
            ("", RecordKind::Json),
            ("application/x-ndjson ;charset=utf-8", RecordKind::Ndjson),
            ("application/x-tallymark;messageType=tick", RecordKind::Tick),
            ("application/x-tallymark; v=2; messageType=\"repair-set\"", RecordKind::Set),
            ("application/x-tallymark", FOREIGN),
            ("application/x-tallymark; messageType=new-thing", FOREIGN),
            ("application/x-tallymark; messageType=300", FOREIGN),
            ("application/x-protobuf; messageType=tallymark.v1.ViewBatch", RecordKind::ViewBatch),
            ("Application/X-Protobuf;messagetype=\"tallymark.v1.ViewBatch\"", RecordKind::ViewBatch),
            ("application/x-protobuf; messageType=tallymark.v2.ViewBatch", FOREIGN),
            ("application/x-protobuf", FOREIGN),
            ("text/plain", FOREIGN),
        ] {
            assert_eq!(kind(text.as_bytes()), meant, "{text}");
        }
        assert_eq!(kind(&[0xff, 0xfe]), FOREIGN);
    }

    #[test]
    fn an_ordinary_event_has_no_headers() {
        assert!(headers(RecordKind::Json, false).is_none());
        let marked = headers(RecordKind::Json, true).unwrap();
        assert_eq!(marked.count(), 1);
        assert_eq!(headers(RecordKind::Ndjson, true).unwrap().count(), 2);
    }
}
