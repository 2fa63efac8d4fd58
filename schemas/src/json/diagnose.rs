//! Finds out what is wrong with bytes that are no event; only refused events pay for it.

use serde_json::Value;

use super::numeric_ts;
use crate::event::{Reason, Rejection};
use crate::id::check_id;
use crate::time::Millis;

/// The first thing wrong with bytes that [`decode`](super::decode) refused.
pub(super) fn diagnose(bytes: &[u8]) -> Rejection {
    // serde_json, because it bounds the depth of nesting; see [`parse`](super::parse).
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
