//! Events as JSON and NDJSON.
//!
//! ```text
//! bytes ──> scan: a plain object ──> Event
//!             └──> parse: any object ──> Event
//!                    └──> diagnose ──> Rejection
//! ```
//!
//! [`decode`] is on the hot path, so each stage leaves what is rarer to the next, which is slower and says the same of
//! all that the one before it was sure of. Fields are borrowed from the input; only strings with escapes are copied.

mod diagnose;
mod encode;
mod parse;
mod scan;

use diagnose::diagnose;
pub use encode::encode;

use crate::event::{Event, Reason, Rejection};
use crate::time::Millis;

/// A numeric `ts` below this is seconds, not milliseconds (it would be before March 1973).
pub const MIN_NUMERIC_TS: i64 = 100_000_000_000;

/// Decodes one event from one JSON object.
///
/// # Errors
/// The typed reason, and what to do, of the first thing wrong with it.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, Rejection> {
    match scan::event(bytes) {
        Some(noted) => Ok(noted.event),
        None => decode_without_scan(bytes),
    }
}

/// An event, and whether its object holds more than the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted<'a> {
    /// The event.
    pub event: Event<'a>,
    /// Whether its object has members that are not fields of an event: those that [`others`] gives.
    pub has_others: bool,
}

/// Decodes as [`decode`] does, and notes whether there is more than the event.
///
/// # Errors
/// As [`decode`].
#[inline]
pub fn decode_noting(bytes: &[u8]) -> Result<Noted<'_>, Rejection> {
    match scan::event(bytes) {
        Some(noted) => Ok(noted),
        None => decode_without_scan(bytes).map(|event| Noted { event, has_others: others(bytes).is_some() }),
    }
}

/// What [`decode`] gives, the slow way: what tests hold it against.
///
/// # Errors
/// As [`decode`].
#[doc(hidden)]
pub fn decode_without_scan(bytes: &[u8]) -> Result<Event<'_>, Rejection> {
    parse::event(bytes).ok_or_else(|| diagnose(bytes))
}

/// The members of an event's object that are not fields of an event, as one JSON object: in order, names that are given
/// twice as often as they are given, values verbatim. `None` if there are none.
///
/// It reads the object a second time, so ask [`Noted::has_others`] first.
///
/// ```
/// let json = br#"{"event_id":"e","video_id":"v","ts":1763642096789,"player":{"zoom": 1.50},"ab":"x"}"#;
/// assert_eq!(schemas::json::others(json).unwrap(), r#"{"player":{"zoom": 1.50},"ab":"x"}"#);
/// ```
pub fn others(bytes: &[u8]) -> Option<String> {
    parse::others(bytes, &[])
}

/// What [`others`] gives, without the members that have one of these names, however they are escaped.
///
/// ```
/// let json = br#"{"event_id":"e","video_id":"v","ts":1763642096789,"client\u005fip":"x","ab":"y"}"#;
/// assert_eq!(schemas::json::others_except(json, &["client_ip"]).unwrap(), r#"{"ab":"y"}"#);
/// ```
pub fn others_except(bytes: &[u8], names: &[&str]) -> Option<String> {
    parse::others(bytes, names)
}

/// Whether the bytes are one JSON object.
pub fn is_object(bytes: &[u8]) -> bool {
    // serde_json, because it bounds the depth of nesting.
    serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok_and(|value| value.get().starts_with('{'))
}

/// The lines of an NDJSON payload that are not blank.
pub fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    Lines { rest: payload }.filter(|line| !line.trim_ascii().is_empty())
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

fn numeric_ts(ms: i64) -> Result<Millis, Rejection> {
    if ms < MIN_NUMERIC_TS {
        return Err(Rejection::new(Reason::TsInSeconds, format!("ts {ms} looks like seconds; send Unix milliseconds or RFC 3339")));
    }
    Some(Millis(ms))
        .filter(|at| at.is_representable())
        .ok_or_else(|| Rejection::new(Reason::BadTs, format!("ts {ms} is after the year 9999; send Unix milliseconds")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::id::check_id;
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;
    use std::borrow::Cow;
    use std::collections::BTreeMap;

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

    fn id() -> impl Strategy<Value = String> {
        prop_oneof!["[ -~]{1,40}", "[a-z0-9-]{1,128}", "\\PC{1,32}"].prop_filter("an id", |id| check_id(id).is_ok())
    }

    /// Any event.
    pub(super) fn event() -> impl Strategy<Value = Event<'static>> {
        let optional_id = || proptest::option::of(id());
        let ts = crate::time::MIN_MILLIS.0..=crate::time::MAX_MILLIS.0;
        (id(), id(), optional_id(), optional_id(), ts, proptest::option::of(any::<u64>()), any::<bool>()).prop_map(
            |(event_id, video_id, space_id, viewer_id, ts, watch_ms, engaged)| Event {
                event_id: event_id.into(),
                video_id: video_id.into(),
                space_id: space_id.map(Cow::from),
                viewer_id: viewer_id.map(Cow::from),
                ts: Millis(ts),
                watch_ms,
                kind: if engaged { Kind::Engaged } else { Kind::View },
            },
        )
    }

    pub(super) fn encoded(event: &Event<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(event, &mut bytes);
        bytes
    }

    /// The members of an event's object, as text.
    pub(super) fn members(event: &Event<'_>) -> Vec<String> {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&encoded(event)).unwrap();
        fields.iter().map(|(name, value)| format!("{name:?}:{}", value.get())).collect()
    }

    /// A member that is no field of an event, as text.
    pub(super) fn other_member() -> impl Strategy<Value = String> {
        let string = || prop_oneof!["[ -~]{0,20}", any::<String>()].prop_map(|text| Value::from(text).to_string());
        let name = string().prop_filter("no field", |name| !members(&FULL).iter().any(|member| member.starts_with(&format!("{name}:"))));
        let value = prop_oneof![
            string(),
            "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
            proptest::sample::select(vec!["null", "true", "false", "[]", "{ }", r#"{"event_id":[1, "\u00e9\"}"]}"#, r#""\ud83d\ude00\/""#])
                .prop_map(str::to_owned),
            (0usize..100).prop_map(|depth| format!("{}0{}", "[".repeat(depth), "]".repeat(depth))),
        ];
        (name, value).prop_map(|(name, value)| format!("{name}:{value}"))
    }

    const FULL: Event<'_> = Event {
        event_id: Cow::Borrowed("e"),
        video_id: Cow::Borrowed("v"),
        space_id: Some(Cow::Borrowed("s")),
        viewer_id: Some(Cow::Borrowed("u")),
        ts: Millis(1_763_642_096_789),
        watch_ms: Some(1),
        kind: Kind::Engaged,
    };

    #[test]
    fn others_keep_order_and_repetition_and_bytes() {
        let json =
            br#"{"a":1.0e0, "event_id":"e" ,"b\u0020":{"event_id" : [ ]},"video_id":"v","a":"\u0041","ts":1763642096789,"Kind":null}"#;
        assert_eq!(others(json).as_deref(), Some(r#"{"a":1.0e0,"b ":{"event_id" : [ ]},"a":"\u0041","Kind":null}"#));
        assert!(decode_noting(json).unwrap().has_others);
    }

    proptest! {
        #[test]
        fn events_round_trip(event in event()) {
            let bytes = encoded(&event);
            prop_assert!(!bytes.contains(&b'\n'));
            prop_assert_eq!(decode(&bytes), Ok(event.clone()));
            prop_assert_eq!(decode_noting(&bytes), Ok(Noted { event, has_others: false }));
            prop_assert_eq!(others(&bytes), None);
        }

        #[test]
        fn others_are_exactly_what_is_no_field(
            event in event(), added in proptest::collection::vec((any::<proptest::sample::Index>(), other_member()), 1..5),
        ) {
            let mut members = members(&event);
            let mut at = 0;
            for (place, member) in &added {
                at += place.index(members.len() - at + 1);
                members.insert(at, member.clone());
                at += 1;
            }
            let json = format!("{{{}}}", members.join(","));
            let expected = format!("{{{}}}", added.iter().map(|(_, member)| member.as_str()).collect::<Vec<_>>().join(","));
            prop_assert_eq!(decode_noting(json.as_bytes()), Ok(Noted { event, has_others: true }));
            prop_assert_eq!(others(json.as_bytes()), Some(expected));
        }

        #[test]
        fn any_bytes_are_an_event_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
