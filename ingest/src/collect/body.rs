//! A JSON body as the raw bytes of its events, in any of the forms it may come in; nothing is decoded here.
//!
//! ```text
//! {..}   [{..},{..}]   {"events":[{..},{..}]}   {..}\n{..}\n   ──> events() ──> the bytes of each event, in order
//! ```
//!
//! Framing looks only at strings and brackets, so that an event with bad JSON of its own (`NaN`, bytes that are not UTF-8)
//! is one bad event among its neighbours. Depth is a number here, not recursion: a million open brackets are a [`Fault`].

use schemas::json;
use thiserror::Error;

/// How a JSON body's events are laid out, as its content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON value: an event, an array of events, or an object whose `events` is one.
    Json,
    /// One event a line; blank lines are none.
    Ndjson,
}

/// Where and why a body cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what} (at byte {at} of the body)")]
pub struct Fault {
    /// The offset in the body, in bytes from 0.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// The events of a body, in order and without the white space around them. After a [`Fault`] there is nothing more.
///
/// An object is a list of events if it has a member `events` and no member `event_id`; its other members are ignored.
///
/// # Errors
/// The first fault, if the body is not one JSON object or array. Faults inside a list come from the iterator.
pub fn events(form: Form, body: &[u8]) -> Result<Events<'_>, Fault> {
    let body_start = if body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let text = Part { bytes: body, at: body_start }.trimmed();
    if text.rest().is_empty() {
        return Err(text.fault("the body is empty; send an event, a list of events, or one event a line"));
    }
    if form == Form::Ndjson {
        return Ok(Events::Lines(Box::new(json::lines(text.rest()))));
    }
    let after = text.after_value()?;
    if !after.trimmed().rest().is_empty() {
        return Err(after.trimmed().fault("a second value follows the first; for one event a line send content-type application/x-ndjson"));
    }
    match text.peek() {
        Some(b'[') => Ok(Events::list(text)),
        Some(b'{') => match events_member(text)? {
            Some(list) if list.peek() == Some(b'[') => Ok(Events::list(list)),
            Some(other) => Err(other.fault("`events` is not an array")),
            None => Ok(Events::One(text.rest().trim_ascii())),
        },
        _ => Err(text.fault("the body is neither a JSON object nor an array")),
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The raw bytes of each event of a body.
pub enum Events<'a> {
    /// The whole body is the event.
    One(&'a [u8]),
    /// What is left of an NDJSON body.
    Lines(Box<dyn Iterator<Item = &'a [u8]> + 'a>),
    /// What is left of a list: its opening bracket, or the comma or closing bracket after an event.
    List(Part<'a>),
    /// Nothing is left.
    Done,
}

impl<'a> Events<'a> {
    fn list(at_bracket: Part<'a>) -> Self {
        // `[]` has no events; everything else has one after the bracket, as after each comma.
        let inside = at_bracket.skip(1).trimmed();
        if inside.peek() == Some(b']') { Self::Done } else { Self::List(at_bracket) }
    }

    fn next_of_list(&mut self, at: Part<'a>) -> Option<Result<&'a [u8], Fault>> {
        *self = Self::Done;
        match at.peek() {
            Some(b'[' | b',') => {
                let value = at.skip(1).trimmed();
                let after = match value.after_value() {
                    Ok(after) => after,
                    Err(fault) => return Some(Err(fault)),
                };
                *self = Self::List(after.trimmed());
                Some(Ok(value.until(after)))
            }
            Some(b']') => None,
            _ => Some(Err(at.fault("expected a comma or the end of the array after an event"))),
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<&'a [u8], Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::One(event) => {
                let event = *event;
                *self = Self::Done;
                Some(Ok(event))
            }
            Self::Lines(lines) => lines.next().map(|line| Ok(line.trim_ascii())),
            Self::List(at) => {
                let at = *at;
                self.next_of_list(at)
            }
            Self::Done => None,
        }
    }
}

/// A place in the body.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Part<'a> {
    fn rest(self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn peek(self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn skip(self, count: usize) -> Self {
        Self { at: self.at + count, ..self }
    }

    fn trimmed(self) -> Self {
        self.skip(self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count())
    }

    fn until(self, end: Self) -> &'a [u8] {
        self.bytes.get(self.at..end.at).unwrap_or_default()
    }

    const fn fault(self, what: &'static str) -> Fault {
        Fault { at: self.at, what }
    }

    /// The place after the value that starts here. A bare word (a number, `true`, `NaN`) ends where it must; decoding judges it.
    fn after_value(self) -> Result<Self, Fault> {
        let bytes = self.rest();
        let len = match self.peek() {
            Some(b'{' | b'[') => container_len(bytes).ok_or_else(|| self.fault("a value starts here that does not end"))?,
            Some(b'"') => string_len(bytes).ok_or_else(|| self.fault("a string starts here that does not end"))?,
            _ => bytes.iter().take_while(|byte| !byte.is_ascii_whitespace() && !b",:[]{}\"".contains(byte)).count(),
        };
        if len == 0 { Err(self.fault("expected a value")) } else { Ok(self.skip(len)) }
    }
}

/// The length of the object or array that `bytes` start with, up to the bracket that closes it. Which kind of bracket closes
/// which is left to the decoder: it only matters inside one event.
fn container_len(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        match rest.first()? {
            b'"' => at += string_len(rest)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
}

/// The length of the string that `bytes` start with, both quotes included.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let end = bytes.iter().skip(1).position(|byte| match byte {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        byte => *byte == b'"',
    })?;
    Some(end + 2)
}

/// The value of the member `events` of the object here, unless the object is an event itself (has an `event_id`) or is
/// not well formed (then it is one event with bad JSON).
fn events_member(object: Part<'_>) -> Result<Option<Part<'_>>, Fault> {
    let mut events = None;
    let mut at = object;
    while matches!(at.peek(), Some(b'{' | b',')) {
        let Some((key, value, after)) = member(at.skip(1).trimmed()) else { return Ok(None) };
        match key {
            b"\"event_id\"" => return Ok(None),
            b"\"events\"" if events.replace(value).is_some() => return Err(value.fault("`events` is given twice")),
            _ => at = after,
        }
    }
    Ok(events.filter(|_| at.peek() == Some(b'}')))
}

/// The key and the value of the member here, and what follows it.
fn member(at: Part<'_>) -> Option<(&[u8], Part<'_>, Part<'_>)> {
    let after_key = at.after_value().ok()?;
    let colon = after_key.trimmed();
    let value = (colon.peek()? == b':').then(|| colon.skip(1).trimmed())?;
    Some((at.until(after_key), value, value.after_value().ok()?.trimmed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(form: Form, body: &str) -> Result<Vec<String>, Fault> {
        events(form, body.as_bytes())?.map(|event| event.map(|bytes| String::from_utf8_lossy(bytes).into_owned())).collect()
    }

    #[test]
    fn every_form_gives_its_events() {
        let cases = [
            (Form::Json, " {\"a\":1}\n", vec!["{\"a\":1}"]),
            (Form::Json, "\u{feff}{\"a\":1}", vec!["{\"a\":1}"]),
            (Form::Json, "[]", vec![]),
            (Form::Json, " [ ] ", vec![]),
            (Form::Json, "[{}]", vec!["{}"]),
            (
                Form::Json,
                "[ {\"a\":\"],[\"} ,\n 5,NaN ,\"x,]\\\"\" , [1,[2]]]",
                vec!["{\"a\":\"],[\"}", "5", "NaN", "\"x,]\\\"\"", "[1,[2]]"],
            ),
            (Form::Json, "{\"events\":[]}", vec![]),
            (Form::Json, "{ \"events\" : [ {} , {\"b\":2} ] }", vec!["{}", "{\"b\":2}"]),
            (Form::Json, "{\"sent\":{\"events\":1},\"events\":[{}],\"z\":[]}", vec!["{}"]),
            (Form::Json, "{\"events\":[{}],\"event_id\":\"e\"}", vec!["{\"events\":[{}],\"event_id\":\"e\"}"]),
            (Form::Json, "{\"x\":{\"events\":[{}]}}", vec!["{\"x\":{\"events\":[{}]}}"]),
            (Form::Json, "{\"events\":[{}] 5}", vec!["{\"events\":[{}] 5}"]),
            (Form::Json, "{\"events\" [{}]}", vec!["{\"events\" [{}]}"]),
            (Form::Json, "{}", vec!["{}"]),
            (Form::Ndjson, "{}\n\n  \r\n {\"a\":1} \r\nnot json\n", vec!["{}", "{\"a\":1}", "not json"]),
            (Form::Ndjson, "{}", vec!["{}"]),
        ];
        for (form, body, expected) in cases {
            assert_eq!(framed(form, body), Ok(expected.into_iter().map(str::to_owned).collect()), "{body}");
        }
    }

    #[test]
    fn a_broken_frame_says_where() {
        let cases = [
            (Form::Json, "", 0),
            (Form::Json, " \n", 2),
            (Form::Ndjson, "\n\n", 2),
            (Form::Json, "5", 0),
            (Form::Json, "\"text\"", 0),
            (Form::Json, "]", 0),
            (Form::Json, " [{}", 1),
            (Form::Json, "{\"a\":\"x}", 0),
            (Form::Json, "{}\n{}", 3),
            (Form::Json, "[{}]]", 4),
            (Form::Json, "[,]", 1),
            (Form::Json, "[{},]", 4),
            (Form::Json, "[{} {}]", 4),
            (Form::Json, "[{}:{}]", 3),
            (Form::Json, "{\"events\":{}}", 10),
            (Form::Json, "{\"events\":[{},]}", 14),
            (Form::Json, "{\"events\":[{}],\"events\":[]}", 24),
        ];
        for (form, body, at) in cases {
            assert_eq!(framed(form, body).map_err(|fault| fault.at), Err(at), "{body}");
        }
    }

    #[test]
    fn bad_json_inside_one_event_leaves_its_neighbours_alone() {
        let body = b"[{\"a\":NaN},{\"b\":\"\xff\"},{\"c\":1},{\"d\":[1}},{\"e\":\"\n\"}]";
        let found: Vec<_> = events(Form::Json, body).unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), 5);
        assert_eq!(found[2], b"{\"c\":1}");
    }

    #[test]
    fn a_million_open_brackets_are_a_fault_or_a_bad_event_in_every_form() {
        for open in ["[", "{", "{\"a\":", "[{\"a\":"] {
            let deep = open.repeat(1_000_000);
            assert!(framed(Form::Json, &deep).is_err());
            assert!(framed(Form::Json, &format!("[{deep}]")).is_err());
            assert!(framed(Form::Json, &format!("{{\"events\":[{deep}]}}")).is_err());
            let line = framed(Form::Ndjson, &deep).unwrap();
            assert!(json::decode(line[0].as_bytes()).is_err());
        }
        let closed = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        for event in framed(Form::Json, &closed).unwrap() {
            assert!(json::decode(event.as_bytes()).is_err());
        }
        let field = format!("{{\"event_id\":\"e\",\"video_id\":\"v\",\"ts\":1763642096789,\"x\":{closed}}}");
        for body in [field.clone(), format!("[{field}]"), format!("{{\"events\":[{field}]}}")] {
            for event in framed(Form::Json, &body).unwrap() {
                let _ = json::decode(event.as_bytes());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_framed_or_a_fault(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            for form in [Form::Json, Form::Ndjson] {
                let _ = events(form, &body).map(Iterator::count);
            }
        }

        #[test]
        fn any_brackets_are_framed_or_a_fault(body in "[\\[\\]{}\",: a\\\\]{0,40}") {
            let found = events(Form::Json, body.as_bytes()).map(|events| events.take(50).count());
            proptest::prop_assert!(found.unwrap_or(0) <= body.len());
        }
    }
}
