//! What a request to the collector asks for, read from its query string and headers before any of its body. Pure.

use axum::http::{HeaderMap, HeaderName, Uri, header};

use schemas::Millis;
use schemas::json::MIN_NUMERIC_TS;
use schemas::view_batch::MESSAGE_TYPE;

use super::body::Form;
use super::coding::Coding;
use super::error::CollectError;

/// The content types that are taken, as an error names them.
pub const MEDIA_TYPES: &str =
    "application/json, application/x-ndjson, text/plain (taken as JSON), application/x-protobuf; messageType=tallymark.v1.ViewBatch";

/// What a body is, as its content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// JSON events.
    Json(Form),
    /// A columnar batch.
    ViewBatch,
}

/// A request, but for its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What the body is.
    pub content: Content,
    /// How it is compressed, if it is.
    pub coding: Option<Coding>,
    /// Whether the events are exempt from `too_old`.
    pub historical: bool,
    /// How many bytes the body says it has.
    pub content_length: Option<u64>,
    /// When the client sent this attempt, by its own clock.
    pub sent_at: Option<Millis>,
    /// The name under which the client will send the request again.
    pub idempotency_key: Option<Box<str>>,
}

/// The header that says when the client sent this attempt.
pub const SENT_AT: HeaderName = HeaderName::from_static("tallymark-sent-at");
/// The header that names a request for its retries.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// The query parameters. `key` is for what stands before the routes; here it is passed over.
const PARAMETERS: [&str; 3] = ["historical", "sent_at", "key"];

impl Ask {
    /// Reads it.
    ///
    /// # Errors
    /// A parameter, header, content type or encoding that is not taken.
    pub fn read(uri: &Uri, headers: &HeaderMap) -> Result<Self, CollectError> {
        let query = Query::read(uri)?;
        // A header goes before the parameter: that is for those who cannot set headers.
        let sent_at = match one(headers, &SENT_AT)? {
            Some(text) => Some(instant("tallymark-sent-at", &text)?),
            None => query.sent_at,
        };
        Ok(Self {
            content: content(headers)?,
            coding: coding(headers)?,
            historical: query.historical,
            content_length: text(headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            sent_at,
            idempotency_key: one(headers, &IDEMPOTENCY_KEY)?.map(|text| idempotency_key(&text)).transpose()?,
        })
    }
}

#[derive(Default)]
struct Query {
    historical: bool,
    sent_at: Option<Millis>,
}

impl Query {
    fn read(uri: &Uri) -> Result<Self, CollectError> {
        // What is said of it must not show it: it may hold a key.
        let unreadable = |_| refused("query", "the query string cannot be read: it is not percent-encoded UTF-8");
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(unreadable)?;
        let (mut query, mut seen) = (Self::default(), Vec::new());
        for (name, value) in pairs.0 {
            let Some(known) = PARAMETERS.into_iter().find(|known| *known == name) else { return Err(unknown_parameter(&name)) };
            if seen.contains(&known) {
                return Err(refused(known, &format!("{known} is given twice")));
            }
            seen.push(known);
            match known {
                "historical" => query.historical = switch(known, &value)?,
                "sent_at" => query.sent_at = Some(instant(known, &value)?),
                _ => {}
            }
        }
        Ok(query)
    }
}

fn refused(name: &str, detail: &str) -> CollectError {
    CollectError::Query { name: name.to_owned(), detail: detail.to_owned() }
}

fn switch(name: &str, text: &str) -> Result<bool, CollectError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(refused(name, &format!("{name} is true or false"))),
    }
}

/// Unix milliseconds. Seconds are refused as they are for `ts`, and so is what no clock says.
fn instant(name: &str, text: &str) -> Result<Millis, CollectError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let ms = digits.then(|| text.parse::<i64>().ok()).flatten().filter(|ms| *ms >= MIN_NUMERIC_TS);
    ms.map(Millis).filter(|at| at.is_representable()).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        refused(name, &format!("{name} {shown:?} is not the client's clock in Unix milliseconds, such as 1763640000000"))
    })
}

/// A string of RFC 9651 (in quotes), as the draft asks for, or the bare text.
fn idempotency_key(text: &str) -> Result<Box<str>, CollectError> {
    let bad = || {
        let detail = format!(
            "idempotency-key is 1 to {MAX_IDEMPOTENCY_KEY_BYTES} characters of visible ASCII in quotes, best a UUID, such as \"8e03978e-40d5-43dd-bc93-6894a57f9324\""
        );
        refused("idempotency-key", &detail)
    };
    let key = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or_else(bad)?,
        None => text,
    };
    let plain = key.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    if plain && (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len()) { Ok(key.into()) } else { Err(bad()) }
}

fn unknown_parameter(name: &str) -> CollectError {
    let lower = name.to_ascii_lowercase();
    let likeness = |known: &'static str| (known, strsim::jaro_winkler(&lower, known));
    let near = PARAMETERS.into_iter().map(likeness).filter(|(_, likeness)| *likeness > 0.7).max_by(|a, b| a.1.total_cmp(&b.1));
    let shown: String = name.chars().take(40).collect();
    let hint = near.map_or_else(|| format!("known here: {}", PARAMETERS.join(", ")), |(near, _)| format!("did you mean {near}?"));
    CollectError::Query { detail: format!("there is no parameter {shown:?}; {hint}"), name: shown }
}

/// How the body is compressed: by one coding at most, said once.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, CollectError> {
    let mut all = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let mut said = String::from_utf8_lossy(first.as_bytes()).trim().to_owned();
    for more in all {
        said = format!("{said}, {}", String::from_utf8_lossy(more.as_bytes()));
    }
    if said.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Coding::named(&said).map(Some).ok_or(CollectError::ContentEncoding(said))
}

/// JSON unless the content type says otherwise, as on the log.
fn content(headers: &HeaderMap) -> Result<Content, CollectError> {
    let Some(content_type) = text(headers, &header::CONTENT_TYPE) else { return Ok(Content::Json(Form::Json)) };
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let parameters = parts.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let mut parameters = parameters.map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches('"').to_ascii_lowercase()));
    let is_utf8 = |(name, value): (String, String)| name != "charset" || ["utf-8", "utf8"].contains(&value.as_str());
    let content = match media_type.as_str() {
        // What a browser's beacon sends without asking first.
        "application/json" | "text/plain" => parameters.all(is_utf8).then_some(Content::Json(Form::Json)),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
            parameters.all(is_utf8).then_some(Content::Json(Form::Ndjson))
        }
        "application/x-protobuf" => {
            parameters.any(|(name, value)| name == "messagetype" && value.eq_ignore_ascii_case(MESSAGE_TYPE)).then_some(Content::ViewBatch)
        }
        _ => None,
    };
    content.ok_or(CollectError::ContentType(content_type))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
}

/// A header that may be given once.
fn one(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, CollectError> {
    if headers.get_all(name).iter().nth(1).is_some() {
        return Err(refused(name.as_str(), &format!("{name} is given twice")));
    }
    Ok(text(headers, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &str, headers: &[(HeaderName, &'static str)]) -> Result<Ask, CollectError> {
        let uri: Uri = format!("/v1/events{query}").parse().unwrap();
        Ask::read(&uri, &headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect())
    }

    #[test]
    fn historical_is_true_or_false_and_given_once() {
        for (query, expected) in [("", false), ("?", false), ("?historical=true", true), ("?historical=false", false)] {
            assert_eq!(ask(query, &[]).unwrap().historical, expected, "{query}");
        }
        for (query, says) in [
            ("?historical", "true or false"),
            ("?historical=", "true or false"),
            ("?historical=TRUE", "true or false"),
            ("?historical=1", "true or false"),
            ("?historical=true&historical=true", "twice"),
            ("?historic=true", "did you mean historical?"),
            ("?Historical=true", "did you mean historical?"),
            ("?zone=UTC", "known here: historical, sent_at, key"),
            ("?sentat=1", "did you mean sent_at?"),
            ("?sent_at=", "Unix milliseconds"),
            ("?sent_at=-1763640000000", "Unix milliseconds"),
            ("?sent_at=+1763640000000", "Unix milliseconds"),
            ("?sent_at=1763640000", "Unix milliseconds"),
            ("?sent_at=99999999999999999999", "Unix milliseconds"),
            ("?sent_at=253402300800000", "Unix milliseconds"),
            ("?sent_at=1763640000000&sent_at=1763640000000", "twice"),
            ("?key=a&key=b", "key is given twice"),
        ] {
            let error = ask(query, &[]).unwrap_err();
            assert!(matches!(&error, CollectError::Query { detail, .. } if detail.contains(says)), "{query}: {error}");
        }
    }

    #[test]
    fn the_content_type_says_the_form() {
        for (content_type, form) in [
            ("application/json", Form::Json),
            ("Application/JSON; charset=UTF-8", Form::Json),
            ("application/json;charset=\"utf-8\"", Form::Json),
            ("application/x-ndjson", Form::Ndjson),
            ("application/ndjson", Form::Ndjson),
            ("application/jsonl", Form::Ndjson),
            ("text/plain", Form::Json),
            ("text/plain;charset=UTF-8", Form::Json),
        ] {
            assert_eq!(ask("", &[(header::CONTENT_TYPE, content_type)]).unwrap().content, Content::Json(form), "{content_type}");
        }
        for content_type in
            [schemas::RecordKind::ViewBatch.content_type(), "Application/X-Protobuf;v=1; messagetype=\"tallymark.v1.ViewBatch\""]
        {
            assert_eq!(ask("", &[(header::CONTENT_TYPE, content_type)]).unwrap().content, Content::ViewBatch, "{content_type}");
        }
        for content_type in [
            "text/plain; charset=utf-16",
            "text/html",
            "application/x-www-form-urlencoded",
            "",
            "json",
            "application/json; charset=latin1",
            "application/x-protobuf",
            "application/x-protobuf; messageType=tallymark.v2.ViewBatch",
        ] {
            let error = ask("", &[(header::CONTENT_TYPE, content_type)]).unwrap_err();
            assert!(matches!(error, CollectError::ContentType(_)), "{content_type}: {error}");
        }
        assert_eq!(ask("", &[]).unwrap().content, Content::Json(Form::Json));
    }

    #[test]
    fn a_body_is_compressed_once_in_a_way_that_is_taken() {
        for (encoding, coding) in [("identity", None), ("gzip", Some(Coding::Gzip)), ("ZSTD", Some(Coding::Zstd))] {
            assert_eq!(ask("", &[(header::CONTENT_ENCODING, encoding)]).unwrap().coding, coding, "{encoding}");
        }
        for encoding in ["br", "deflate", "identity, gzip", "gzip, gzip", ""] {
            assert!(matches!(ask("", &[(header::CONTENT_ENCODING, encoding)]), Err(CollectError::ContentEncoding(_))), "{encoding}");
        }
        let mut twice = HeaderMap::new();
        twice.append(header::CONTENT_ENCODING, "identity".parse().unwrap());
        twice.append(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert!(matches!(Ask::read(&Uri::from_static("/v1/events"), &twice), Err(CollectError::ContentEncoding(_))));
    }

    #[test]
    fn the_senders_clock_is_read_from_the_header_or_else_from_the_query() {
        let at = |query, headers: &[_]| ask(query, headers).unwrap().sent_at.map(|at| at.0);
        assert_eq!(at("", &[]), None);
        assert_eq!(at("?sent_at=1763640000001&historical=true", &[]), Some(1_763_640_000_001));
        assert_eq!(at("?sent_at=1763640000001", &[(SENT_AT, "1763640000002")]), Some(1_763_640_000_002));
        assert!(ask("", &[(SENT_AT, "yesterday")]).is_err());
        let mut twice = HeaderMap::new();
        twice.append(SENT_AT, "1763640000001".parse().unwrap());
        twice.append(SENT_AT, "1763640000002".parse().unwrap());
        assert!(Ask::read(&Uri::from_static("/v1/events"), &twice).is_err());
    }

    #[test]
    fn an_idempotency_key_is_a_short_word_in_quotes_or_bare() {
        let key = |text| ask("", &[(IDEMPOTENCY_KEY, text)]).map(|ask| ask.idempotency_key.unwrap().into_string());
        assert_eq!((key("\"a-1\"").unwrap(), key("a-1").unwrap()), ("a-1".to_owned(), "a-1".to_owned()));
        let long: &'static str = "x".repeat(256).leak();
        for bad in ["", "\"\"", "\"", "\"a", "a\"", "a b", "\"a\\\"\"", "caf\u{e9}", long] {
            assert!(matches!(key(bad), Err(CollectError::Query { .. })), "{bad}");
        }
        assert!(key(&long[1..]).is_ok());
    }

    #[test]
    fn a_key_in_the_query_is_passed_over_and_never_shown() {
        assert!(ask("?key=tm_a_secret&historical=true", &[]).unwrap().historical);
        for query in ["?key=tm_a_secret&key=tm_a_secret", "?key=tm_a_secret&x=%ff", "?key=tm_a_secret&hist=1"] {
            let said = ask(query, &[]).map_err(|error| error.to_string());
            assert!(said.as_ref().is_ok() || said.as_ref().is_err_and(|said| !said.contains("secret")), "{said:?}");
        }
    }
}
