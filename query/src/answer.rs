//! An answer on its way out: what it says, what it is worth, and from both the response.
//!
//! Every handler that answers with counts returns an [`Answer`], so that headers are the same everywhere:
//!
//! | standing | `Cache-Control` |
//! |---|---|
//! | open | `public, max-age=1` |
//! | complete | `public, max-age=5`: the bound within which late events show |
//! | final | `public, max-age=60` |
//! | stale | `no-store`, and `Tallymark-Stale` and the body's `stale_seconds` say for how many seconds |

use axum::Json;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::QueryError;
use crate::formats::{Format, Tabular};
use crate::standing::{Lasts, Standing};

/// For how many seconds an answer has been out of date.
pub(crate) const STALE: HeaderName = HeaderName::from_static("tallymark-stale");

/// A body and what it is worth.
pub(crate) struct Answer<T> {
    pub(crate) body: T,
    pub(crate) standing: Standing,
}

impl<T: Serialize + Tabular> Answer<T> {
    /// The answer in the form that was asked for.
    ///
    /// # Errors
    /// [`QueryError::Broken`] if it makes no table.
    pub(crate) fn respond(self, format: Format) -> Result<Response, QueryError> {
        let mut response = match format {
            Format::Json => self.into_response(),
            Format::Table(format) => {
                let stale = self.standing.stale_seconds().map(|stale| stale.to_string());
                let response = self.body.table().with("stale_seconds", stale).response(format)?;
                worth(response, self.standing)
            }
        };
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let response = match self.standing.stale_seconds() {
            None => Json(self.body).into_response(),
            Some(stale_seconds) => Json(Stale { body: self.body, stale_seconds }).into_response(),
        };
        worth(response, self.standing)
    }
}

/// A body that says that it is out of date.
#[derive(Serialize)]
struct Stale<T> {
    #[serde(flatten)]
    body: T,
    stale_seconds: u64,
}

/// Says of a response what it is worth.
fn worth(mut response: Response, standing: Standing) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control(standing)));
    if let Some(stale) = standing.stale_seconds() {
        headers.insert(STALE, HeaderValue::from(stale));
    }
    // For whoever keeps rendered answers.
    response.extensions_mut().insert(standing);
    response
}

/// For how long an answer may be kept by others.
pub(crate) const fn cache_control(standing: Standing) -> &'static str {
    match standing {
        Standing { stale: Some(_), .. } => "no-store",
        Standing { lasts: Lasts::Open, .. } => "public, max-age=1",
        Standing { lasts: Lasts::Complete, .. } => "public, max-age=5",
        Standing { lasts: Lasts::Final, .. } => "public, max-age=60",
    }
}
