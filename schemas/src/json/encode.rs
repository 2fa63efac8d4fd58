//! Writes an event as a JSON object.

use serde::{Serialize, Serializer};

use super::MIN_NUMERIC_TS;
use crate::event::{Event, Kind};
use crate::time::Millis;

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

/// A number where an event takes one, and text for an instant so early that its number would look like seconds.
struct TsOut(Millis);

impl Serialize for TsOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.0 < MIN_NUMERIC_TS { serializer.serialize_str(&self.0.to_rfc3339()) } else { serializer.serialize_i64(self.0.0) }
    }
}
