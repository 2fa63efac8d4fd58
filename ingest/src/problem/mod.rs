//! The one form of an HTTP error: RFC 9457 `application/problem+json` with a stable `type` and what to do about it.
//!
//! Every crate maps its own errors to a [`Problem`] in one place; only this module turns one into a response. [`kinds`] is the
//! table of all kinds, [`responses`] what the OpenAPI document says of them.

pub mod kinds;
pub mod responses;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// An HTTP error for people and programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    retry_after_s: Option<u32>,
    extra: Map<String, Value>,
}

impl Problem {
    /// A problem of a stable `kind` (its `type` is `/problems/{kind}`), with a title that does not change and a detail that says
    /// what is wrong, where, and what to do.
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, title, detail: detail.into(), retry_after_s: None, extra: Map::new() }
    }

    /// 400 for a request parameter that cannot be used.
    pub fn bad_parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-parameter", "A parameter cannot be used", detail).with("parameter", name)
    }

    /// 503 with `Retry-After`.
    pub fn unavailable(retry_after_s: u32, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service cannot do this now", detail);
        problem.retry_after(retry_after_s)
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The document as JSON.
    pub fn body(&self) -> String {
        let mut body = self.extra.clone();
        body.insert("type".into(), json!(format!("/problems/{}", self.kind)));
        body.insert("title".into(), json!(self.title));
        body.insert("status".into(), json!(self.status.as_u16()));
        body.insert("detail".into(), json!(self.detail));
        Value::Object(body).to_string()
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The last part of its `type`.
    pub const fn kind(&self) -> &'static str {
        self.kind
    }
}

impl IntoResponse for Problem {
    /// The response also carries the problem itself, so that what stands before the handlers can add to it ([`Problem::body`]).
    fn into_response(self) -> Response {
        let content_type: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let mut response = (self.status, [content_type], self.body()).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_its_type_and_when_to_come_back() {
        let response = Problem::unavailable(2, "the log is busy").with("waiting_bytes", 7).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
