//! Events as JSON and NDJSON.
//!
//! [`decode`] is on the hot path: a SIMD parser, fields borrowed from the input, no allocation for an event whose
//! strings hold no escapes. What went wrong is found out by a second, slow look ([`diagnose`]) that only refused events pay for.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::event::{Event, Kind, Reason, Rejection};
use crate::id::check_id;
use crate::time::Millis;

/// A numeric `ts` below this is seconds, not milliseconds (it would be before March 1973).
pub const MIN_NUMERIC_TS: i64 = 100_000_000_000;

/// Decodes one event from one JSON object.
///
/// # Errors
/// The typed reason, and what to do, of the first thing wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, Rejection> {
    match parse(bytes).and_then(Wire::into_event) {
        Some(event) => Ok(event),
        None => Err(diagnose(bytes)),
    }
}

/// An event that opens more containers than this is read by a parser that bounds the depth of nesting.
const MANY_CONTAINERS: usize = 64;

/// sonic-rs skips unknown fields by recursion without a bound, so a hostile event could overflow the stack;
/// counting the characters that could open a container costs a few nanoseconds and needs no parsing.
fn parse(bytes: &[u8]) -> Option<Wire<'_>> {
    if memchr::memchr2_iter(b'[', b'{', bytes).nth(MANY_CONTAINERS).is_none() {
        sonic_rs::from_slice(bytes).ok()
    } else {
        serde_json::from_slice(bytes).ok()
    }
}

/// The lines of an NDJSON payload that are not blank, each with its number from 0.
pub fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    Lines { rest: payload }.filter(|line| !line.trim_ascii().is_empty())
}

/// Appends `event` as one line of JSON without the newline.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    let wire = WireOut {
        event_id: &event.event_id,
        video_id: &event.video_id,
        ts: TsOut(event.ts),
        space_id: event.space_id.as_deref(),
        viewer_id: event.viewer_id.as_deref(),
        watch_ms: event.watch_ms,
        kind: (event.kind != Kind::View).then_some(event.kind),
    };
    // Writing a struct of strings and numbers to memory cannot fail.
    let written = sonic_rs::to_writer(out, &wire);
    debug_assert!(written.is_ok());
}

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Some(line)
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    event_id: Text<'a>,
    #[serde(borrow)]
    video_id: Text<'a>,
    ts: Ts,
    #[serde(borrow, default)]
    space_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    viewer_id: Option<Text<'a>>,
    #[serde(default)]
    watch_ms: Option<u64>,
    #[serde(default)]
    kind: Option<Kind>,
}

impl<'a> Wire<'a> {
    fn into_event(self) -> Option<Event<'a>> {
        let optional_ok = |id: &Option<Text<'_>>| id.as_ref().is_none_or(|id| check_id(&id.0).is_ok());
        let ids_ok = check_id(&self.event_id.0).is_ok()
            && check_id(&self.video_id.0).is_ok()
            && optional_ok(&self.space_id)
            && optional_ok(&self.viewer_id);
        ids_ok.then(|| Event {
            event_id: self.event_id.0,
            video_id: self.video_id.0,
            space_id: self.space_id.map(|id| id.0),
            viewer_id: self.viewer_id.map(|id| id.0),
            ts: self.ts.0,
            watch_ms: self.watch_ms,
            kind: self.kind.unwrap_or_default(),
        })
    }
}

#[derive(Serialize)]
struct WireOut<'a> {
    event_id: &'a str,
    video_id: &'a str,
    ts: TsOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    space_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    viewer_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watch_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
}

/// A string, borrowed unless it holds escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// `ts`: RFC 3339 text or Unix milliseconds.
struct Ts(Millis);

impl<'de> Deserialize<'de> for Ts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TsVisitor;
        impl Visitor<'_> for TsVisitor {
            type Value = Ts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("RFC 3339 text or Unix milliseconds")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ts, E> {
                Millis::parse_rfc3339(text).map(Ts).ok_or_else(|| E::custom("bad ts"))
            }
            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Ts, E> {
                numeric_ts(ms).map(Ts).map_err(|_| E::custom("bad ts"))
            }
            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Ts, E> {
                self.visit_i64(i64::try_from(ms).unwrap_or(i64::MAX))
            }
        }
        deserializer.deserialize_any(TsVisitor)
    }
}

/// A number where [`Ts`] takes one, and text for an instant so early that its number would look like seconds.
struct TsOut(Millis);

impl Serialize for TsOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.0 < MIN_NUMERIC_TS { serializer.serialize_str(&self.0.to_rfc3339()) } else { serializer.serialize_i64(self.0.0) }
    }
}

fn numeric_ts(ms: i64) -> Result<Millis, Rejection> {
    if ms < MIN_NUMERIC_TS {
        return Err(Rejection::new(Reason::TsInSeconds, format!("ts {ms} looks like seconds; send Unix milliseconds or RFC 3339")));
    }
    Some(Millis(ms))
        .filter(|at| at.is_representable())
        .ok_or_else(|| Rejection::new(Reason::BadTs, format!("ts {ms} is after the year 9999; send Unix milliseconds")))
}

/// Finds out what is wrong with bytes that [`decode`] refused.
fn diagnose(bytes: &[u8]) -> Rejection {
    // serde_json, because it bounds the depth of nesting; see [`parse`].
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return Rejection::new(Reason::BadJson, format!("not JSON: {}", first_line(&error.to_string()))),
    };
    let Some(object) = value.as_object() else {
        return Rejection::new(Reason::BadJson, "an event is a JSON object with event_id, video_id and ts");
    };
    let field = |name: &str| object.get(name).filter(|value| !value.is_null());
    ["event_id", "video_id"]
        .into_iter()
        .find_map(|name| match field(name) {
            None => Some(Rejection::new(Reason::MissingField, format!("{name} is required"))),
            Some(value) => id_fault(name, value),
        })
        .or_else(|| ts_fault(field("ts")))
        .or_else(|| ["space_id", "viewer_id"].into_iter().find_map(|name| id_fault(name, field(name)?)))
        .or_else(|| {
            let wrong = field("watch_ms").is_some_and(|watch| watch.as_u64().is_none());
            wrong.then(|| Rejection::new(Reason::WrongType, "watch_ms is a whole number of milliseconds from 0"))
        })
        .or_else(|| kind_fault(field("kind")?))
        .unwrap_or_else(|| Rejection::new(Reason::BadJson, "a field is given twice"))
}

fn id_fault(name: &str, value: &Value) -> Option<Rejection> {
    match value.as_str() {
        None => Some(Rejection::new(Reason::WrongType, format!("{name} is a string"))),
        Some(text) => check_id(text).err().map(|bad| Rejection::new(Reason::BadId, format!("{name} {bad}"))),
    }
}

fn ts_fault(value: Option<&Value>) -> Option<Rejection> {
    let Some(value) = value else {
        return Some(Rejection::new(Reason::MissingField, "ts is required: RFC 3339 or Unix milliseconds"));
    };
    if let Some(text) = value.as_str() {
        let bad = Millis::parse_rfc3339(text).is_none();
        return bad.then(|| {
            let shown: String = text.chars().take(40).collect();
            Rejection::new(
                Reason::BadTs,
                format!("ts {shown:?} is not RFC 3339 between the years 1 and 9999, such as 2026-11-20T12:34:56.789Z"),
            )
        });
    }
    match (value.as_i64(), value.is_number()) {
        (Some(ms), _) => numeric_ts(ms).err(),
        (None, true) => Some(Rejection::new(Reason::BadTs, "a numeric ts is a whole number of Unix milliseconds")),
        (None, false) => Some(Rejection::new(Reason::WrongType, "ts is RFC 3339 text or a whole number of Unix milliseconds")),
    }
}

fn kind_fault(value: &Value) -> Option<Rejection> {
    match value.as_str() {
        Some("view" | "engaged") => None,
        Some(_) => Some(Rejection::new(Reason::UnknownKind, "kind is \"view\" or \"engaged\"")),
        None => Some(Rejection::new(Reason::WrongType, "kind is a string")),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(json: &str) -> Reason {
        decode(json.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn a_whole_event() {
        let json = br#"{"event_id":"e1","video_id":"v1","ts":"2026-11-20T12:34:56.789Z","space_id":"s","viewer_id":"u","watch_ms":12000,"kind":"engaged","extra":{"a":[1,2]}}"#;
        let event = decode(json).unwrap();
        assert_eq!(event.event_id, "e1");
        assert_eq!(event.space_id.as_deref(), Some("s"));
        assert_eq!(event.ts, Millis::parse_rfc3339("2026-11-20T12:34:56.789Z").unwrap());
        assert_eq!((event.watch_ms, event.kind), (Some(12_000), Kind::Engaged));
        assert!(matches!(event.video_id, Cow::Borrowed(_)), "no escapes, no copy");
    }

    #[test]
    fn escapes_nulls_and_numbers() {
        let event = decode(br#"{"event_id":"a\u0062c","video_id":"\"q\"","ts":1763642096789,"space_id":null}"#).unwrap();
        assert_eq!((event.event_id.as_ref(), event.video_id.as_ref()), ("abc", "\"q\""));
        assert_eq!((event.ts, event.space_id), (Millis(1_763_642_096_789), None));
    }

    #[test]
    fn every_fault_has_its_reason() {
        let with = |rest: &str| format!(r#"{{"event_id":"e","video_id":"v","ts":1763642096789{rest}}}"#);
        assert!(decode(with("").as_bytes()).is_ok());
        assert_eq!(reason(""), Reason::BadJson);
        assert_eq!(reason("{"), Reason::BadJson);
        assert_eq!(reason("[]"), Reason::BadJson);
        assert_eq!(reason("NaN"), Reason::BadJson);
        assert_eq!(reason(&with(r#","watch_ms":NaN"#)), Reason::BadJson);
        assert_eq!(reason(&with("} trailing")), Reason::BadJson);
        assert_eq!(reason(&with(r#","ts":1763642096789"#)), Reason::BadJson);
        assert_eq!(reason(r#"{"video_id":"v","ts":1763642096789}"#), Reason::MissingField);
        assert_eq!(reason(r#"{"event_id":"e","ts":1763642096789}"#), Reason::MissingField);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v"}"#), Reason::MissingField);
        assert_eq!(reason(r#"{"event_id":null,"video_id":"v","ts":1}"#), Reason::MissingField);
        assert_eq!(reason(r#"{"event_id":1,"video_id":"v","ts":1763642096789}"#), Reason::WrongType);
        assert_eq!(reason(r#"{"event_id":"e","video_id":["v"],"ts":1763642096789}"#), Reason::WrongType);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":true}"#), Reason::WrongType);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":{}}"#), Reason::WrongType);
        assert_eq!(reason(&with(r#","space_id":7"#)), Reason::WrongType);
        assert_eq!(reason(&with(r#","watch_ms":-1"#)), Reason::WrongType);
        assert_eq!(reason(&with(r#","watch_ms":1.5"#)), Reason::WrongType);
        assert_eq!(reason(&with(r#","kind":3"#)), Reason::WrongType);
        assert_eq!(reason(&with(r#","kind":"clap""#)), Reason::UnknownKind);
        assert_eq!(reason(r#"{"event_id":"","video_id":"v","ts":1763642096789}"#), Reason::BadId);
        assert_eq!(reason(&format!(r#"{{"event_id":"e","video_id":"{}","ts":1763642096789}}"#, "v".repeat(129))), Reason::BadId);
        assert_eq!(reason(&with(r#","viewer_id":"a\u0000""#)), Reason::BadId);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":"yesterday"}"#), Reason::BadTs);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":"0000-01-01T00:00:00Z"}"#), Reason::BadTs);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":1763642096789.5}"#), Reason::BadTs);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":253402300800000}"#), Reason::BadTs);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":1e300}"#), Reason::BadTs);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":18446744073709551615}"#), Reason::BadTs);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":1763642096}"#), Reason::TsInSeconds);
        assert_eq!(reason(r#"{"event_id":"e","video_id":"v","ts":-5}"#), Reason::TsInSeconds);
    }

    #[test]
    fn far_years_decode() {
        for ts in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            assert!(decode(format!(r#"{{"event_id":"e","video_id":"v","ts":"{ts}"}}"#).as_bytes()).is_ok());
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_bad_json() {
        assert_eq!(decode(b"{\"event_id\":\"\xff\",\"video_id\":\"v\",\"ts\":1763642096789}").unwrap_err().reason, Reason::BadJson);
    }

    #[test]
    fn deep_nesting_is_refused_without_a_crash() {
        let deep = format!(r#"{{"event_id":"e","video_id":"v","ts":1763642096789,"x":{}}}"#, "[".repeat(200_000));
        assert_eq!(reason(&deep), Reason::BadJson);
    }

    #[test]
    fn many_containers_that_are_not_deep_are_an_event() {
        let wide = format!(r#"{{"event_id":"e","video_id":"v","ts":1763642096789,"x":[{}[]]}}"#, "[],".repeat(1_000));
        assert_eq!(decode(wide.as_bytes()).unwrap().event_id, "e");
    }

    #[test]
    fn blank_lines_are_no_events() {
        assert_eq!(lines(b"\n a \r\n\n  \nb").collect::<Vec<_>>(), vec![b" a \r".as_slice(), b"b"]);
        assert_eq!(lines(b"").count(), 0);
    }

    pub(crate) fn id() -> impl Strategy<Value = String> {
        "\\PC{1,32}".prop_filter("an id", |id| check_id(id).is_ok())
    }

    proptest! {
        #[test]
        fn events_round_trip(
            event_id in id(), video_id in id(), space_id in proptest::option::of(id()), viewer_id in proptest::option::of(id()),
            ts in crate::time::MIN_MILLIS.0..=crate::time::MAX_MILLIS.0, watch_ms in proptest::option::of(any::<u64>()), engaged in any::<bool>(),
        ) {
            let event = Event {
                event_id: event_id.into(), video_id: video_id.into(), space_id: space_id.map(Cow::from), viewer_id: viewer_id.map(Cow::from),
                ts: Millis(ts), watch_ms, kind: if engaged { Kind::Engaged } else { Kind::View },
            };
            let mut bytes = Vec::new();
            encode(&event, &mut bytes);
            prop_assert!(!bytes.contains(&b'\n'));
            prop_assert_eq!(decode(&bytes).unwrap(), event);
        }

        #[test]
        fn any_bytes_are_an_event_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
