//! What a request to the collector asks for, read from its query string and headers before any of its body. Pure.

use axum::http::{HeaderMap, HeaderName, Uri, header};

use schemas::view_batch::MESSAGE_TYPE;

use super::body::Form;
use super::error::CollectError;

/// The content types that are taken, as an error names them.
pub const MEDIA_TYPES: &str = "application/json, application/x-ndjson, application/x-protobuf; messageType=tallymark.v1.ViewBatch";

/// What a body is, as its content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// JSON events.
    Json(Form),
    /// A columnar batch.
    ViewBatch,
}

/// A request, but for its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What the body is.
    pub content: Content,
    /// Whether the events are exempt from `too_old`.
    pub historical: bool,
    /// How many bytes the body says it has.
    pub content_length: Option<u64>,
}

impl Ask {
    /// Reads it.
    ///
    /// # Errors
    /// A parameter, content type or encoding that is not taken.
    pub fn read(uri: &Uri, headers: &HeaderMap) -> Result<Self, CollectError> {
        Ok(Self {
            content: content(headers)?,
            historical: historical(uri)?,
            content_length: text(headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        })
    }
}

fn historical(uri: &Uri) -> Result<bool, CollectError> {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| CollectError::Query { name: "query".to_owned(), detail: format!("the query string cannot be read: {error}") })?;
    let mut found = None;
    for (name, value) in pairs.0 {
        // Whoever asks for keys has read it.
        if name == "key" {
            continue;
        }
        if name != "historical" {
            return Err(unknown_parameter(name));
        }
        let refuse = |detail: &str| CollectError::Query { name: "historical".to_owned(), detail: detail.to_owned() };
        let value = match value.as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(refuse("historical is true or false")),
        };
        if found.replace(value).is_some() {
            return Err(refuse("historical is given twice"));
        }
    }
    Ok(found.unwrap_or(false))
}

fn unknown_parameter(name: String) -> CollectError {
    let near = strsim::jaro_winkler(&name.to_ascii_lowercase(), "historical") > 0.7;
    let shown: String = name.chars().take(40).collect();
    let hint = if near { "did you mean historical?" } else { "the only one is historical" };
    CollectError::Query { detail: format!("there is no parameter {shown:?}; {hint}"), name: shown }
}

/// JSON unless the content type says otherwise, as on the log.
fn content(headers: &HeaderMap) -> Result<Content, CollectError> {
    if let Some(encoding) = text(headers, &header::CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(CollectError::ContentEncoding(encoding));
    }
    let Some(content_type) = text(headers, &header::CONTENT_TYPE) else { return Ok(Content::Json(Form::Json)) };
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let parameters = parts.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let mut parameters = parameters.map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches('"').to_ascii_lowercase()));
    let is_utf8 = |(name, value): (String, String)| name != "charset" || ["utf-8", "utf8"].contains(&value.as_str());
    let content = match media_type.as_str() {
        "application/json" => parameters.all(is_utf8).then_some(Content::Json(Form::Json)),
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
            ("?zone=UTC", "the only one is historical"),
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
        ] {
            assert_eq!(ask("", &[(header::CONTENT_TYPE, content_type)]).unwrap().content, Content::Json(form), "{content_type}");
        }
        for content_type in
            [schemas::RecordKind::ViewBatch.content_type(), "Application/X-Protobuf;v=1; messagetype=\"tallymark.v1.ViewBatch\""]
        {
            assert_eq!(ask("", &[(header::CONTENT_TYPE, content_type)]).unwrap().content, Content::ViewBatch, "{content_type}");
        }
        for content_type in [
            "text/plain",
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
    fn only_plain_bodies_are_taken() {
        assert!(ask("", &[(header::CONTENT_ENCODING, "identity")]).is_ok());
        for encoding in ["gzip", "br", "identity, gzip", ""] {
            assert!(matches!(ask("", &[(header::CONTENT_ENCODING, encoding)]), Err(CollectError::ContentEncoding(_))), "{encoding}");
        }
    }
}
