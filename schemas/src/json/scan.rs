//! Events as nearly all producers write them: a flat object of plain ASCII, read in a single pass.
//!
//! The scanner knows no errors. It gives an event only where [`parse`](super::parse) gives the very same one, and nothing where
//! it is not sure: escapes, characters beyond ASCII, nested values, numbers with an exponent, a field given twice, and
//! whatever is wrong.

use std::borrow::Cow;

use super::{Noted, numeric_ts};
use crate::event::{Event, Kind};
use crate::id::MAX_ID_BYTES;
use crate::time::Millis;

/// The event that `bytes` hold, if that is plain to see.
pub(super) fn event(bytes: &[u8]) -> Option<Noted<'_>> {
    let mut found = Found::default();
    let mut at = Cursor(std::str::from_utf8(bytes).ok()?).after_spaces().after("{")?;
    loop {
        at = at.after_spaces().member(&mut found)?.after_spaces();
        match at.after(",") {
            Some(next) => at = next,
            None => break,
        }
    }
    let rest = at.after("}")?.after_spaces();
    if rest.0.is_empty() { found.into_noted() } else { None }
}

/// The members read so far. A field that may be null is `Some(None)` after a null.
#[derive(Default)]
struct Found<'a> {
    event_id: Option<&'a str>,
    video_id: Option<&'a str>,
    ts: Option<Millis>,
    space_id: Option<Option<&'a str>>,
    viewer_id: Option<Option<&'a str>>,
    watch_ms: Option<Option<u64>>,
    kind: Option<Option<Kind>>,
    has_others: bool,
}

impl<'a> Found<'a> {
    fn into_noted(self) -> Option<Noted<'a>> {
        let event = Event {
            event_id: Cow::Borrowed(self.event_id?),
            video_id: Cow::Borrowed(self.video_id?),
            space_id: self.space_id.flatten().map(Cow::Borrowed),
            viewer_id: self.viewer_id.flatten().map(Cow::Borrowed),
            ts: self.ts?,
            watch_ms: self.watch_ms.flatten(),
            kind: self.kind.flatten().unwrap_or_default(),
        };
        Some(Noted { event, has_others: self.has_others })
    }
}

/// A value, and the text after it.
type Read<'a, T> = Option<(T, Cursor<'a>)>;

/// Puts a value that was read into a field that is not there yet.
fn fill<'a, T>(field: &mut Option<T>, read: Read<'a, T>) -> Option<Cursor<'a>> {
    let (value, after) = read?;
    field.replace(value).is_none().then_some(after)
}

/// The text that is still to be read; a step gives the text after what it has read.
///
/// Steps are inlined, two of them by force: what one gives back is too large for registers, and goes through memory if it is called.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    #[inline]
    fn after(self, token: &str) -> Option<Self> {
        self.0.strip_prefix(token).map(Self)
    }

    #[inline]
    fn after_spaces(self) -> Self {
        // A branch, because a predicted one costs nothing: with the bare loop, each later step would wait for the byte read here.
        if self.0.as_bytes().first().is_some_and(|byte| *byte <= b' ') { self.after_some_spaces() } else { self }
    }

    #[cold]
    fn after_some_spaces(self) -> Self {
        Self(self.0.trim_start_matches([' ', '\t', '\r', '\n']))
    }

    /// One member of the object. Whole names are compared, which is cheaper than to look for their ends.
    #[inline]
    fn member(self, found: &mut Found<'a>) -> Option<Self> {
        if let Some(at) = self.value_of(r#""event_id":"#) {
            fill(&mut found.event_id, at.id())
        } else if let Some(at) = self.value_of(r#""video_id":"#) {
            fill(&mut found.video_id, at.id())
        } else if let Some(at) = self.value_of(r#""ts":"#) {
            fill(&mut found.ts, at.ts())
        } else if let Some(at) = self.value_of(r#""space_id":"#) {
            fill(&mut found.space_id, at.or_null(Self::id))
        } else if let Some(at) = self.value_of(r#""viewer_id":"#) {
            fill(&mut found.viewer_id, at.or_null(Self::id))
        } else if let Some(at) = self.value_of(r#""watch_ms":"#) {
            fill(&mut found.watch_ms, at.or_null(Self::digits))
        } else if let Some(at) = self.value_of(r#""kind":"#) {
            fill(&mut found.kind, at.or_null(Self::kind))
        } else {
            found.has_others = true;
            self.after_other()
        }
    }

    #[inline]
    fn value_of(self, name: &str) -> Option<Self> {
        self.after(name).map(Self::after_spaces)
    }

    /// Passes over a member that is no field of an event.
    fn after_other(self) -> Option<Self> {
        // The name is none of those above: its end and the colon come as they do there.
        let (_, at) = self.string()?;
        let at = at.after(":")?.after_spaces();
        if let Some((_, at)) = at.string() {
            return Some(at);
        }
        if let Some(at) = ["true", "false", "null"].into_iter().find_map(|literal| at.after(literal)) {
            return Some(at);
        }
        let (_, at) = at.after("-").unwrap_or(at).digits()?;
        match at.after(".") {
            None => Some(at),
            Some(at) => Some(Self(at.0.trim_start_matches(|c: char| c.is_ascii_digit()))).filter(|after| after.0.len() < at.0.len()),
        }
    }

    #[inline(always)]
    fn or_null<T>(self, read: impl FnOnce(Self) -> Read<'a, T>) -> Read<'a, Option<T>> {
        match self.after("null") {
            Some(at) => Some((None, at)),
            None => read(self).map(|(value, at)| (Some(value), at)),
        }
    }

    /// A string of printable ASCII without escapes.
    #[inline]
    fn string(self) -> Read<'a, &'a str> {
        let rest = self.0.strip_prefix('"')?;
        let (text, rest) = rest.split_at_checked(special(rest.as_bytes())?)?;
        Some((text, Self(rest.strip_prefix('"')?)))
    }

    #[inline]
    fn id(self) -> Read<'a, &'a str> {
        self.string().filter(|(id, _)| (1..=MAX_ID_BYTES).contains(&id.len()))
    }

    #[inline]
    fn ts(self) -> Read<'a, Millis> {
        match self.string() {
            Some((text, at)) => Some((Millis::parse_rfc3339(text)?, at)),
            None => {
                let (number, at) = self.digits()?;
                Some((numeric_ts(i64::try_from(number).ok()?).ok()?, at))
            }
        }
    }

    fn kind(self) -> Read<'a, Kind> {
        match self.string()? {
            ("view", at) => Some((Kind::View, at)),
            ("engaged", at) => Some((Kind::Engaged, at)),
            _ => None,
        }
    }

    /// A whole number of at most 18 digits.
    #[inline(always)]
    fn digits(self) -> Read<'a, u64> {
        let (mut number, mut len) = (0, 0);
        for digit in self.0.bytes().take_while(u8::is_ascii_digit).take(19) {
            number = number * 10 + u64::from(digit - b'0');
            len += 1;
        }
        let has_form = len == 1 || (2..=18).contains(&len) && !self.0.starts_with('0');
        if has_form { Some((number, Self(self.0.get(len..)?))) } else { None }
    }
}

/// Where the first byte is that has no place inside a plain string: a quote, a backslash, a control character or no ASCII.
#[inline]
fn special(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let specials = specials(u64::from_le_bytes(*word));
        if specials != 0 {
            return Some(index * 8 + specials.trailing_zeros() as usize / 8);
        }
    }
    tail.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f..)).map(|at| words.len() * 8 + at)
}

/// The high bit of the first byte of `word` (from its low end) that is special, and of some after it.
const fn specials(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Flipping bit 1 turns the quote into the space, so that one subtraction finds it and the control characters.
    let quote_or_control = (word ^ (0x02 * ONES)).wrapping_sub(0x21 * ONES);
    let backslash = (word ^ (0x5c * ONES)).wrapping_sub(ONES);
    let delete = word.wrapping_add(ONES);
    (quote_or_control | backslash | delete | word) & (0x80 * ONES)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{encoded, event as any_event, members, other_member};
    use super::super::{decode, decode_noting, decode_without_scan, others};
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    fn is_plain(json: &str) -> bool {
        event(json.as_bytes()).is_some()
    }

    #[test]
    fn what_producers_write_is_plain() {
        let with = |rest: &str| format!(r#"{{"event_id":"0c5e0f3e","video_id":"v","ts":"2026-11-20T12:34:56.789Z"{rest}}}"#);
        for rest in [
            "",
            r#","space_id":"s","viewer_id":"u","watch_ms":0,"kind":"engaged""#,
            r#","space_id":null,"viewer_id":null,"watch_ms":null,"kind":null"#,
            r#", "kind": "view", "watch_ms": 999999999999999999"#,
            "\r\n,\t\"kind\":\n \"view\" ",
            r#","a":"text","b":true,"c":false,"d":null,"e":-1,"f":0,"g":0.05,"a":"again","":"~""#,
        ] {
            let json = with(rest);
            let noted = event(json.as_bytes()).expect(rest);
            assert_eq!(noted.has_others, rest.contains("\"a\""), "{rest}");
        }
        assert!(is_plain(r#" { "ts" : 1763642096789 , "video_id":"v","event_id":"e" }  "#.replace(" :", ":").as_str()));
        assert!(is_plain(&(with("") + "\r\n")));
    }

    #[test]
    fn what_is_not_sure_is_not_plain() {
        let with = |rest: &str| format!(r#"{{"event_id":"e","video_id":"v","ts":1763642096789{rest}}}"#);
        assert!(is_plain(&with("")));
        for rest in [
            ",",
            "}",
            r#","ts":1763642096789"#,
            r#","space_id":null,"space_id":"s""#,
            r#","event_id" :"x""#,
            r#","space_id":"""#,
            r#","space_id":"é""#,
            r#","space_id":"\u0041""#,
            "\u{b},\"a\":1",
            ",\"a\":\"\u{7f}\"",
            r#","watch_ms":01"#,
            r#","watch_ms":1000000000000000000"#,
            r#","watch_ms":1.0"#,
            r#","watch_ms":-1"#,
            r#","watch_ms":true"#,
            r#","kind":"viewer""#,
            r#","a":1e5"#,
            r#","a":1."#,
            r#","a":.1"#,
            r#","a":+1"#,
            r#","a":truer"#,
            r#","a":[]"#,
            r#","a":{}"#,
            r#","a":"#,
            r#","a""#,
        ] {
            assert!(!is_plain(&with(rest)), "{rest}");
        }
        for json in
            ["", "{}", "[]", r#"{"event_id":null,"video_id":"v","ts":1763642096789}"#, r#"{"event_id":"e","video_id":"v","ts":1763642096}"#]
        {
            assert!(!is_plain(json), "{json}");
        }
    }

    /// The members of an event and others, in any order, spaced in one of the usual ways, with nulls and either form of time.
    fn object() -> impl Strategy<Value = Vec<u8>> {
        let others = proptest::collection::vec(other_member(), 0..3);
        let nulls = proptest::sample::subsequence(vec!["space_id", "viewer_id", "watch_ms", "kind"], 0..=2);
        let spacing = select(vec![(",", ":"), (", ", ": "), (",\n  ", ": "), (" ,", " :")]);
        (any_event(), any::<bool>(), others, nulls, spacing)
            .prop_flat_map(|(event, text_time, others, nulls, spacing)| {
                let mut members = members(&event);
                if text_time {
                    members.retain(|member| !member.starts_with("\"ts\""));
                    members.push(format!("\"ts\":\"{}\"", event.ts));
                }
                members.extend(nulls.iter().map(|name| format!("\"{name}\":null")));
                members.extend(others);
                (Just(members).prop_shuffle(), Just(spacing))
            })
            .prop_map(|(members, (comma, colon))| {
                let members: Vec<_> = members.iter().map(|member| member.replacen("\":", &format!("\"{colon}"), 1)).collect();
                format!("{{{}}}", members.join(comma)).into_bytes()
            })
    }

    /// At a place, so many bytes give way to a piece of JSON, of something like it, or of anything.
    fn edit() -> impl Strategy<Value = (Index, usize, Vec<u8>)> {
        let cut = prop_oneof![8 => 0usize..3, 1 => 0usize..20, 1 => Just(usize::MAX)];
        let tokens = [
            "",
            "\"",
            "\\",
            "\\\"",
            "\\u0041",
            "\\ud800",
            "\u{7f}",
            "\u{85}",
            "\0",
            "é",
            ",",
            ":",
            " ",
            "\t",
            "\n",
            "\r",
            "\u{b}",
            "{",
            "}",
            "[",
            "]",
            "null",
            "true",
            "0",
            "00",
            "9",
            "-",
            "-0",
            ".",
            ".5",
            "e3",
            "18446744073709551616",
            "\"event_id\":\"x\",",
            ",\"video_id\":\"y\"",
            "\"ts\":1763642096789,",
            ",\"ts\":\"2026-11-20T12:34:56Z\"",
            ",\"kind\":\"view\"",
            ",\"kind\":{\"view\":null}",
            "\"space_id\":null,",
            ",\"watch_ms\":12",
            ",\"x\":1",
            "\"y\":\"z\",",
        ];
        let piece = prop_oneof![
            4 => select(tokens.map(|token| token.as_bytes().to_vec()).to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..3),
        ];
        (any::<Index>(), cut, piece)
    }

    proptest! {
        #[test]
        fn the_end_of_plain_text_is_found(
            plain in "[ !#-\\[\\]-~]{0,40}", end in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut bytes = plain.clone().into_bytes();
            prop_assert_eq!(special(&bytes), None);
            bytes.push(end);
            bytes.extend(rest);
            let is_special = !(b' '..=b'~').contains(&end) || end == b'"' || end == b'\\';
            prop_assert_eq!(special(&bytes) == Some(plain.len()), is_special);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn an_event_of_plain_text_is_plain(event in any_event()) {
            let bytes = encoded(&event);
            let is_plain_text = bytes.iter().all(|byte| matches!(byte, b' '..=b'~' if *byte != b'\\'));
            let has_few_digits = event.watch_ms.is_none_or(|watch_ms| watch_ms < 1_000_000_000_000_000_000);
            prop_assert_eq!(super::event(&bytes).is_some(), is_plain_text && has_few_digits);
        }

        #[test]
        fn whatever_is_scanned_is_read_the_same_without(json in object(), edits in proptest::collection::vec(edit(), 0..3)) {
            let mut json = json;
            for (place, cut, piece) in edits {
                let start = place.index(json.len() + 1);
                json.splice(start..start.saturating_add(cut).min(json.len()), piece);
            }
            let slowly = decode_without_scan(&json);
            prop_assert_eq!(decode(&json), slowly.clone());
            let slowly = slowly.map(|event| Noted { event, has_others: others(&json).is_some() });
            prop_assert_eq!(decode_noting(&json), slowly);
        }
    }
}
