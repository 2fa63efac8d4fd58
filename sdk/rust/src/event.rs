//! One view as the collector takes it: its fields, and its line of JSON.
//!
//! The line is what is sent, spooled and sent again; it is made once, so that every attempt has the same bytes.

use std::fmt;

use uuid::Uuid;

/// What an event says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Somebody viewed the video.
    #[default]
    View,
    /// Somebody who viewed it was engaged, by your own rule. It is counted apart from views.
    Engaged,
}

/// What makes an event the same event when it is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventId {
    Uuid(Uuid),
    Own(String),
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(id) => id.as_hyphenated().fmt(f),
            Self::Own(id) => f.write_str(id),
        }
    }
}

/// A view as `before_send` sees it. Everything but its id may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub(crate) event_id: EventId,
    /// What was viewed; 1 to 128 bytes without control characters, as every id.
    pub video_id: String,
    /// When, in milliseconds since 1970, by this machine's clock.
    pub ts_ms: i64,
    /// The channel it was viewed in.
    pub space_id: Option<String>,
    /// Who viewed it. It only spreads load: unique viewers are not counted.
    pub viewer_id: Option<String>,
    /// For how long, in milliseconds.
    pub watch_ms: Option<u64>,
    /// A view or an engagement.
    pub kind: Kind,
}

impl Event {
    /// The id under which it is counted once.
    pub fn event_id(&self) -> String {
        self.event_id.to_string()
    }

    /// About as many bytes as its line has.
    pub(crate) fn weight(&self) -> usize {
        const FRAME: usize = 128;
        let own = if let EventId::Own(id) = &self.event_id { id.len() } else { 0 };
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        FRAME + own + self.video_id.len() + text(&self.space_id) + text(&self.viewer_id)
    }

    /// Appends its line, with the line feed.
    pub(crate) fn write_line(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(br#"{"event_id":"#);
        match &self.event_id {
            EventId::Uuid(id) => {
                line.push(b'"');
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                line.extend_from_slice(id.as_hyphenated().encode_lower(&mut text).as_bytes());
                line.push(b'"');
            }
            EventId::Own(id) => write_text(id, line),
        }
        line.extend_from_slice(br#","video_id":"#);
        write_text(&self.video_id, line);
        line.extend_from_slice(br#","ts":"#);
        write_number(self.ts_ms, line);
        for (name, text) in [(&br#","space_id":"#[..], &self.space_id), (&br#","viewer_id":"#[..], &self.viewer_id)] {
            if let Some(text) = text {
                line.extend_from_slice(name);
                write_text(text, line);
            }
        }
        if let Some(watch_ms) = self.watch_ms {
            line.extend_from_slice(br#","watch_ms":"#);
            write_number(watch_ms, line);
        }
        if self.kind == Kind::Engaged {
            line.extend_from_slice(br#","kind":"engaged""#);
        }
        line.extend_from_slice(b"}\n");
    }
}

fn write_number(number: impl fmt::Display, line: &mut Vec<u8>) {
    use std::io::Write;
    // A vector takes everything.
    let _ = write!(line, "{number}");
}

/// A JSON string. Most ids need no escapes.
fn write_text(text: &str, line: &mut Vec<u8>) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        // A string can always be written to a vector.
        let _ = serde_json::to_writer(line, text);
    } else {
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
    }
}

/// The id and the video of a line, for people.
pub(crate) fn named(line: &[u8]) -> (String, String) {
    let event: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let member = |name: &str| event.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    (member("event_id"), member("video_id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            event_id: EventId::Uuid(Uuid::from_u128(0x0192_f000_0000_7000_8000_0000_0000_0001)),
            video_id: "cats".into(),
            ts_ms: 1_763_642_096_789,
            space_id: None,
            viewer_id: None,
            watch_ms: None,
            kind: Kind::View,
        }
    }

    fn line(event: &Event) -> String {
        let mut line = Vec::new();
        event.write_line(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_has_only_what_was_given() {
        let id = "0192f000-0000-7000-8000-000000000001";
        assert_eq!(line(&event()), format!("{{\"event_id\":\"{id}\",\"video_id\":\"cats\",\"ts\":1763642096789}}\n"));
        let whole =
            Event { space_id: Some("pets".into()), viewer_id: Some("u".into()), watch_ms: Some(u64::MAX), kind: Kind::Engaged, ..event() };
        let rest = r#""space_id":"pets","viewer_id":"u","watch_ms":18446744073709551615,"kind":"engaged"}"#;
        assert!(line(&whole).ends_with(&format!("{rest}\n")), "{}", line(&whole));
    }

    #[test]
    fn any_text_is_one_line_of_json_that_reads_back() {
        for text in ["", "\"", "\\", "a\nb", "\u{0}\u{1f}", "\u{2028}é猫", "</script>"] {
            let event = Event { event_id: EventId::Own(text.into()), video_id: text.into(), space_id: Some(text.into()), ..event() };
            let line = line(&event);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((value["video_id"].as_str(), value["space_id"].as_str()), (Some(text), Some(text)));
            assert_eq!(named(line.as_bytes()), (text.to_owned(), text.to_owned()));
        }
    }
}
