//! Which form is asked for, from `Accept` and `?format`. Pure, and safe with any bytes.
//!
//! `Accept` as in RFC 9110: of each of our types the most specific range that names it gives its quality, and the highest
//! quality wins; among equals the one that was named most exactly, then JSON, CSV, Arrow. No header, an empty one, or one of which nothing can be read
//! asks for nothing in particular. `format=json|csv|arrow` stands above the header, for those whose browser writes it.

use std::cmp::Reverse;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use ingest::Problem;
use percent_encoding::percent_decode_str;

use crate::params::choice;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    Json,
    Table(TableFormat),
}

/// The form of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TableFormat {
    Csv,
    Arrow,
}

impl TableFormat {
    /// As the `Content-Type` of an answer.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Of a file's name.
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Arrow => "arrows",
        }
    }
}

/// In the order in which they are preferred.
const OFFERED: [(Format, &str, &str); 3] = [
    (Format::Json, "application", "json"),
    (Format::Table(TableFormat::Csv), "text", "csv"),
    (Format::Table(TableFormat::Arrow), "application", "vnd.apache.arrow.stream"),
];

impl Format {
    /// The form that a request asks for.
    ///
    /// # Errors
    /// 406 if it accepts none of ours, 400 for a `format` that there is none of.
    pub(crate) fn asked(headers: &HeaderMap, query_string: Option<&str>) -> Result<Self, Problem> {
        let [json, csv, arrow] = OFFERED.map(|(format, ..)| format);
        if let Some(name) = query_string.and_then(parameter) {
            return choice("format", &percent_decode_str(name).decode_utf8_lossy(), &[("json", json), ("csv", csv), ("arrow", arrow)]);
        }
        let lists = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<Range<'_>> = lists.flat_map(|list| list.split(',')).filter_map(Range::read).collect();
        if ranges.is_empty() {
            return Ok(Self::Json);
        }
        let wanted = OFFERED.iter().filter_map(|(format, kind, subtype)| {
            let nearest = ranges
                .iter()
                .filter_map(|range| Some((range.names(kind, subtype)?, range.quality)))
                .max_by_key(|(exactness, _)| *exactness);
            nearest.filter(|(_, quality)| *quality > 0).map(|(exactness, quality)| (*format, quality, exactness))
        });
        // Of equals the first stays.
        wanted.min_by_key(|(_, quality, exactness)| Reverse((*quality, *exactness))).map(|(format, ..)| format).ok_or_else(not_acceptable)
    }
}

impl<S: Sync> FromRequestParts<S> for Format {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::asked(&parts.headers, parts.uri.query())
    }
}

/// The value of `format` in a query string, as it was sent.
fn parameter(query_string: &str) -> Option<&str> {
    query_string.split('&').find_map(|pair| pair.strip_prefix("format="))
}

fn not_acceptable() -> Problem {
    let types = OFFERED.map(|(_, kind, subtype)| format!("{kind}/{subtype}"));
    let detail = format!("this can be had as {}; accept one of them, or add format=json, csv or arrow", types.join(", "));
    Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "None of the accepted types can be had", detail)
        .with("types", types.to_vec())
}

/// One media range of an `Accept` header, with its quality in thousandths.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let weight = parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")));
        Some(Self { kind, subtype, quality: weight.map_or(Some(1_000), thousandths)? })
    }

    /// How exactly it names a type; `None` if it does not.
    fn names(&self, kind: &str, subtype: &str) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (its, "*") if its.eq_ignore_ascii_case(kind) => Some(1),
            (its, sub) if its.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => Some(2),
            _ => None,
        }
    }
}

/// A quality as RFC 9110 writes it, `0` to `1` with up to three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let quality: u16 = format!("{whole}{decimals:0<3}").parse().ok()?;
    (quality <= 1_000).then_some(quality)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CSV: Format = Format::Table(TableFormat::Csv);
    const ARROW: Format = Format::Table(TableFormat::Arrow);

    fn asked(accept: &[&str], query: Option<&str>) -> Result<Format, u16> {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        Format::asked(&headers, query).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn the_highest_quality_wins_then_the_most_exact_name_then_json() {
        for (accept, format) in [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Json),
            ("text/csv", CSV),
            ("TEXT/CSV; header=present", CSV),
            ("text/*", CSV),
            ("text/csv, */*", CSV),
            ("*/*, application/vnd.apache.arrow.stream", ARROW),
            ("application/*", Format::Json),
            ("text/csv, application/json", Format::Json),
            ("text/csv, application/json;q=0.9", CSV),
            ("text/csv;q=0.3, application/json;q=0.2, application/vnd.apache.arrow.stream;q=0.301", ARROW),
            ("application/json;q=0, */*;q=0.1", CSV),
            ("application/*;q=1, application/json;q=0.1", ARROW),
            ("nonsense, ;;q=, text/csv;q=7", Format::Json),
            ("nonsense, text/csv;q=0.001", CSV),
        ] {
            assert_eq!(asked(&[accept], None), Ok(format), "{accept}");
        }
        assert_eq!(asked(&[], None), Ok(Format::Json));
        assert_eq!(asked(&["text/html;q=0.9", "text/csv;q=0.5"], None), Ok(CSV), "a list may be cut into many headers");
    }

    #[test]
    fn what_is_not_to_be_had_is_406_and_names_what_is() {
        for accept in ["text/html", "application/problem+json", "*/*;q=0", "text/csv;q=0.0, image/*"] {
            assert_eq!(asked(&[accept], None), Err(406), "{accept}");
        }
    }

    #[test]
    fn the_parameter_stands_above_the_header() {
        for (query, format) in [
            ("format=csv", Ok(CSV)),
            ("start=0&format=arrow", Ok(ARROW)),
            ("format=json", Ok(Format::Json)),
            ("format=%63sv", Ok(CSV)),
            ("format=xml", Err(400)),
            ("format=", Err(400)),
            ("informat=csv", Err(406)),
        ] {
            assert_eq!(asked(&["text/html"], Some(query)), format, "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(accept in "([a-z*/;=q.,0-9 ]|text/csv|application/json|;q=0\\.|,){0,40}", query in "[ -~]{0,30}") {
            let _ = asked(&[&accept], Some(&query));
        }
    }
}
