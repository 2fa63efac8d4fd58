//! What an answer of the collector means for the batch that it answers. Pure.
//!
//! | answer | meaning |
//! |---|---|
//! | 202 | taken, but for the events it names |
//! | 400 `no-usable-event` | none of the events can be used |
//! | 400, 413, 422 otherwise | something in the request: its halves are tried apart |
//! | 415 for a compressed body | once more, as it is |
//! | 408, 5xx, no answer | once more; it may have been taken: *in doubt* |
//! | 429 | once more, when it says so |
//! | 401, 403, 404 and all others | kept and tried again: a key or an address can be mended, an event thrown away can not |

use std::time::Duration;

use serde_json::Value;

/// An event that the server refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Its place in the batch.
    pub(crate) index: usize,
    pub(crate) reason: String,
    pub(crate) detail: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All but the refused are durable. Some of the refused may not be named.
    Taken { refused_total: u64, refused: Vec<Refused> },
    /// Something in it cannot be taken.
    Split { reason: String, detail: String },
    /// Compressed bodies are not taken.
    Plain,
    /// Not now.
    Again(Again),
}

/// Why a batch is to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    pub(crate) cause: Cause,
    pub(crate) retry_after: Option<Duration>,
    /// Whether events of it may have been taken.
    pub(crate) in_doubt: bool,
}

/// Why a request has to be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// No answer: the server is away, or too slow.
    NoAnswer(String),
    /// The server cannot take it now.
    Busy {
        /// Of HTTP.
        status: u16,
        /// The server's words.
        detail: String,
    },
    /// The server, or what stands before it, does not want it: a wrong key (401, 403), a wrong address (404, a page instead of
    /// an answer). Somebody has to mend that; the events are kept meanwhile.
    Refused {
        /// Of HTTP.
        status: u16,
        /// The server's words.
        detail: String,
    },
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer(detail) => write!(f, "no answer: {detail}"),
            Self::Busy { status, detail } => write!(f, "the server cannot take events now ({status}): {detail}"),
            Self::Refused { status, detail } => write!(f, "the server refuses the request ({status}): {detail}"),
        }
    }
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

/// What it means for a batch of `events`, sent at `now_s` (seconds since 1970).
pub(crate) fn judge(answer: Answer<'_>, events: u32, compressed: bool, now_s: u64) -> Verdict {
    let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
    let status = answer.status;
    let retry_after = answer.retry_after.and_then(|text| retry_after(text, now_s));
    let again = |cause, in_doubt| Verdict::Again(Again { cause, retry_after, in_doubt });
    let detail = || detail(&body, answer.body);
    match status {
        202 => taken(&body, events).unwrap_or_else(|| again(Cause::Refused { status, detail: detail() }, true)),
        400 if is_of(&body, "no-usable-event") => Verdict::Taken { refused_total: u64::from(events), refused: refused(&body) },
        400 | 413 | 422 => Verdict::Split { reason: format!("http_{status}"), detail: detail() },
        415 if compressed => Verdict::Plain,
        429 => again(Cause::Busy { status, detail: detail() }, false),
        408 | 500..=599 => again(Cause::Busy { status, detail: detail() }, true),
        _ => again(Cause::Refused { status, detail: detail() }, false),
    }
}

fn taken(body: &Value, events: u32) -> Option<Verdict> {
    let accepted = body.get("accepted")?.as_u64()?;
    let refused_total = body.get("rejected_total").and_then(Value::as_u64).unwrap_or_default();
    // An answer about another number of events is not about this request.
    (accepted.checked_add(refused_total)? == u64::from(events)).then(|| Verdict::Taken { refused_total, refused: refused(body) })
}

fn refused(body: &Value) -> Vec<Refused> {
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let one = |of: &Value| {
        let index = of.get("index")?.as_u64().and_then(|index| usize::try_from(index).ok())?;
        Some(Refused { index, reason: text(of, "reason"), detail: text(of, "detail") })
    };
    body.get("rejected").and_then(Value::as_array).into_iter().flatten().filter_map(one).collect()
}

fn is_of(body: &Value, kind: &str) -> bool {
    body.get("type").and_then(Value::as_str).is_some_and(|of| of.rsplit(['/', '#', ':']).next() == Some(kind))
}

/// The server's own words, shortened.
fn detail(body: &Value, raw: &[u8]) -> String {
    const SHOWN: usize = 300;
    match body.get("detail").or_else(|| body.get("title")).and_then(Value::as_str) {
        Some(detail) => detail.chars().take(SHOWN).collect(),
        None => String::from_utf8_lossy(raw.get(..SHOWN).unwrap_or(raw)).into_owned(),
    }
}

/// Seconds, or a date as HTTP writes it (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now_s: u64) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => date_s(text).map(|at| Duration::from_secs(at.saturating_sub(now_s))),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970.
fn date_s(text: &str) -> Option<u64> {
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let months = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    // Years begin in March here, so that the leap day is their last.
    let month = u64::try_from(months.iter().position(|month| *month == name)?).ok()?;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let clock: Vec<u64> = words.next()?.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[hours, minutes, seconds] = clock.as_slice() else { return None };
    let fits = hours < 24 && minutes < 60 && seconds <= 60;
    let year = if month >= 10 { year - 1 } else { year };
    // Days since 1 March of the year 0; Hinnant, chrono-compatible low-level date algorithms.
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    const TO_1970: u64 = 719_468;
    (fits && words.next() == Some("GMT")).then(|| (days.saturating_sub(TO_1970) * 24 + hours) * 3_600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Verdict {
        judge(Answer { status, retry_after: None, body: body.as_bytes() }, 3, true, 0)
    }

    fn in_doubt(verdict: &Verdict) -> Option<bool> {
        if let Verdict::Again(again) = verdict { Some(again.in_doubt) } else { None }
    }

    #[test]
    fn a_202_is_taken_but_for_what_it_names() {
        assert_eq!(judged(202, r#"{"accepted":3,"rejected_total":0,"rejected":[]}"#), Verdict::Taken { refused_total: 0, refused: vec![] });
        let refused = vec![Refused { index: 1, reason: "bad_ts".into(), detail: "d".into() }];
        assert_eq!(
            judged(202, r#"{"accepted":1,"rejected_total":2,"rejected":[{"index":1,"reason":"bad_ts","detail":"d"}]}"#),
            Verdict::Taken { refused_total: 2, refused }
        );
    }

    #[test]
    fn an_answer_that_is_not_about_this_request_acknowledges_nothing() {
        for (status, body) in [
            (202, ""),
            (202, "<html>welcome to our hotel</html>"),
            (202, r#"{"accepted":2,"rejected_total":0,"rejected":[]}"#),
            (202, r#"{"accepted":18446744073709551615,"rejected_total":4}"#),
            (200, r#"{"accepted":3,"rejected_total":0,"rejected":[]}"#),
            (204, ""),
            (302, ""),
        ] {
            assert!(matches!(judged(status, body), Verdict::Again(Again { cause: Cause::Refused { .. }, .. })), "{status} {body}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_from_what_cannot_be_taken_now() {
        let unusable = r#"{"type":"/problems#no-usable-event","rejected":[{"index":0,"reason":"bad_id","detail":"d"}],"rejected_total":3}"#;
        for kind in ["no-usable-event", "urn:x:no-usable-event", "https://h/problems/no-usable-event"] {
            let body = unusable.replace("/problems#no-usable-event", kind);
            assert!(matches!(judged(400, &body), Verdict::Taken { refused_total: 3, refused } if refused.len() == 1), "{kind}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(judged(status, r#"{"detail":"too many"}"#), Verdict::Split { detail, .. } if detail == "too many"));
        }
        assert_eq!(judged(415, ""), Verdict::Plain);
        assert_eq!(in_doubt(&judge(Answer { status: 415, retry_after: None, body: b"" }, 3, false, 0)), Some(false));
    }

    #[test]
    fn a_batch_that_may_have_been_taken_is_in_doubt() {
        for (status, expected) in
            [(429, false), (401, false), (403, false), (404, false), (408, true), (500, true), (502, true), (503, true)]
        {
            assert_eq!(in_doubt(&judged(status, "")), Some(expected), "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(date_s(date), Some(784_111_777));
        assert_eq!(date_s("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        for (text, now_s, expected) in [
            ("120", 0, Some(120)),
            (" 0 ", 0, Some(0)),
            (date, 784_111_770, Some(7)),
            (date, 784_111_780, Some(0)),
            ("-1", 0, None),
            ("soon", 0, None),
            ("Sun, 06 Nov 1994 08:49:37", 0, None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", 0, None),
            ("Sun, 00 Nov 1994 05:49:37 GMT", 0, None),
            ("99999999999999999999999", 0, None),
        ] {
            assert_eq!(retry_after(text, now_s), expected.map(Duration::from_secs), "{text}");
        }
    }
}
