//! Why the collector refuses a request, and the one place where that becomes an HTTP [`Problem`].

use std::time::Duration;

use axum::http::StatusCode;
use schemas::Source;
use serde_json::json;
use thiserror::Error;

use super::batch::{Refused, RejectedEvents};
use super::coding::{ACCEPTED, MAX_RATIO, Undecodable};
use super::request::MEDIA_TYPES;
use crate::{LogError, Problem};

/// Why a request is refused.
#[derive(Clone, Debug, Error)]
pub enum CollectError {
    /// A query parameter that is unknown or has a value that it cannot have.
    #[error("{detail}")]
    Query {
        /// The parameter.
        name: String,
        /// What is wrong and what to send.
        detail: String,
    },
    /// A content type that is not taken.
    #[error("content-type {0:?} is not taken")]
    ContentType(String),
    /// A body that is compressed in a way that is not taken.
    #[error("content-encoding {0:?} is not taken")]
    ContentEncoding(String),
    /// Another method than POST.
    #[error("only POST is taken")]
    Method,
    /// The body is, or says it will be, too long.
    #[error("the body has more than {limit_bytes} bytes")]
    BodyTooLarge {
        /// How long it may be.
        limit_bytes: usize,
    },
    /// The body, decoded, is too long.
    #[error("the body has more than {limit_bytes} bytes once it is decoded")]
    DecodedTooLarge {
        /// How long it may be.
        limit_bytes: usize,
    },
    /// The body cannot be decoded.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The body did not come in time.
    #[error("{}", slow(.limit, *.received, *.bytes_per_second))]
    BodyTooSlow {
        /// How long it may take.
        limit: Duration,
        /// How many bytes had come.
        received: usize,
        /// The least that must come each second, if that was not kept.
        bytes_per_second: Option<u32>,
    },
    /// The connection failed, or its framing is broken, before the body was complete.
    #[error("the body ended early: {0}")]
    BodyCut(String),
    /// All bodies together hold as much memory as they may.
    #[error("the bodies of all requests hold as much memory as they may")]
    Full,
    /// The bodies of this caller hold as much memory as one caller's may.
    #[error("the bodies of this caller's requests hold {limit_bytes} bytes, as many as one caller's may")]
    Share {
        /// How much that is.
        limit_bytes: usize,
    },
    /// As much waits for a source as may.
    #[error("as much waits for source {0} of the log as may")]
    SourceFull(Source),
    /// A caller's quota is used up.
    #[error("this caller's quota {policy:?}, {per_second} {what} each second, is used up")]
    Quota {
        /// Its name in the headers.
        policy: &'static str,
        /// Of what.
        what: &'static str,
        /// How much each second.
        per_second: u32,
        /// When there will be room.
        retry_after_s: u32,
    },
    /// The key may not send historical events.
    #[error("this key may not send historical events")]
    MayNotImport,
    /// The first request of this idempotency key is being worked on.
    #[error("the first request with this Idempotency-Key is being worked on")]
    InProgress,
    /// The idempotency key came with another body.
    #[error("this Idempotency-Key came with another request before")]
    KeyReused,
    /// There is no random number to be had.
    #[error("the salt of the day cannot be made: {0}")]
    NoSalt(String),
    /// The body as a whole is refused.
    #[error(transparent)]
    Body(#[from] Refused),
    /// Not one event can be used.
    #[error("none of the {} events can be used", .0.total())]
    NoUsableEvent(RejectedEvents),
    /// The log took nothing, or not everything.
    #[error("{error}")]
    Log {
        /// What the log said first.
        error: LogError,
        /// Whether a part of the events is in the log.
        partly: bool,
    },
    /// A bug: the work on the request broke off.
    #[error("the work on the request broke off")]
    Broken,
}

fn slow(limit: &Duration, received: usize, bytes_per_second: Option<u32>) -> String {
    match bytes_per_second {
        Some(least) => format!("the body comes at less than {least} bytes a second: {received} bytes were there"),
        None => format!("the body was not complete within {limit:?}"),
    }
}

/// What deduplication makes of a request that is sent twice.
const RESEND: &str =
    "Send the whole request again: what is already in the log is deduplicated by event_id (within dedup_minutes, 10 by default)";

impl From<CollectError> for Problem {
    fn from(error: CollectError) -> Self {
        let says = error.to_string();
        match error {
            CollectError::Query { name, detail } => Self::bad_parameter(&name, detail),
            CollectError::ContentType(_) => {
                unsupported(format!("{says}; send one of {MEDIA_TYPES}, in UTF-8")).with("accepted", MEDIA_TYPES)
            }
            CollectError::ContentEncoding(_) => {
                let detail = format!("{says}; send the body in one of {ACCEPTED}, by one coding, or uncompressed (identity)");
                unsupported(detail).with("accepted_encodings", ACCEPTED)
            }
            CollectError::Method => Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This method is not taken here",
                "POST events to /v1/events",
            ),
            CollectError::Undecodable(Undecodable::Damaged { .. }) => {
                Self::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be used", format!("{says}; nothing of it was taken"))
            }
            CollectError::Undecodable(Undecodable::Bomb { .. }) => {
                let detail = format!("{says}; events do not compress so well: send them in other requests, or uncompressed");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-expands", "The body decodes to far more than it is", detail)
                    .with("limit_ratio", MAX_RATIO)
            }
            CollectError::BodyTooLarge { limit_bytes } | CollectError::DecodedTooLarge { limit_bytes } => {
                let detail = format!("{says}; send the events in smaller requests");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail).with("limit_bytes", limit_bytes)
            }
            CollectError::BodyTooSlow { .. } => {
                let detail = format!("{says}; send fewer events at once");
                Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body did not come in time", detail)
            }
            CollectError::BodyCut(_) => Self::new(StatusCode::BAD_REQUEST, "body-cut", "The body ended early", says),
            CollectError::Full => Self::unavailable(1, format!("{says}; nothing of this request was taken; send it again in a moment")),
            CollectError::SourceFull(_) => {
                Self::unavailable(1, format!("{says}; nothing of this request was taken; send it again in a moment"))
            }
            CollectError::NoSalt(_) => Self::unavailable(5, format!("{says}; nothing of this request was taken")),
            CollectError::Share { limit_bytes } => {
                let detail = format!("{says}; nothing of this request was taken; send it again in a moment, and fewer at once");
                too_much(detail, 1).with("limit_bytes", limit_bytes)
            }
            CollectError::Quota { policy, per_second, retry_after_s, .. } => {
                let detail = format!("{says}; nothing of this request was taken; send it again after {retry_after_s} s");
                too_much(detail, retry_after_s).with("limit", per_second).with("violated-policies", vec![policy])
            }
            CollectError::MayNotImport => {
                let detail = format!("{says}: it lacks the scope import; send without historical=true, or with a key that has it");
                Self::new(StatusCode::FORBIDDEN, "scope-lacking", "The key does not allow this", detail).with("scope", "import")
            }
            CollectError::InProgress => {
                let detail = format!("{says}; ask again in a moment to be given its answer");
                Self::new(StatusCode::CONFLICT, "request-in-progress", "The first request is being worked on", detail).retry_after(1)
            }
            CollectError::KeyReused => {
                let detail = format!("{says}; nothing of this one was taken; a request that differs needs a key of its own");
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency-key-reused",
                    "The Idempotency-Key belongs to another request",
                    detail,
                )
            }
            CollectError::Body(Refused::Frame(fault)) => {
                Self::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be used", says).with("at_byte", fault.at)
            }
            CollectError::Body(Refused::Batch(rejection)) => {
                let detail = format!("{}; nothing of it was taken", rejection.detail);
                Self::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be used", detail)
            }
            CollectError::Body(Refused::TooManyEvents { limit }) => {
                let detail = format!("the request has more than {limit} events; nothing of it was taken; send them in smaller requests");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-events", "The request has too many events", detail).with("limit", limit)
            }
            CollectError::NoUsableEvent(rejected) => no_usable_event(&rejected),
            CollectError::Log { error, partly } => log_unavailable(&error, partly),
            CollectError::Broken => {
                let detail = format!("{says}; some of the events may be in the log. {RESEND}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service failed", detail)
            }
        }
    }
}

fn too_much(detail: String, retry_after_s: u32) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota-exceeded", "Too much at once", detail).retry_after(retry_after_s)
}

fn unsupported(detail: String) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body has a form that is not taken", detail)
}

fn no_usable_event(rejected: &RejectedEvents) -> Problem {
    let detail = match rejected.total() {
        0 => "the request has no events".to_owned(),
        total => format!("all {total} events are refused; see rejected"),
    };
    Problem::new(StatusCode::BAD_REQUEST, "no-usable-event", "No event can be used", detail)
        .with("rejected", json!(rejected.shown))
        .with("rejected_total", rejected.total())
}

fn log_unavailable(error: &LogError, partly: bool) -> Problem {
    let (retry_after_s, taken) = match (error, partly) {
        (LogError::Busy { .. }, false) => (1, "nothing of this request was taken"),
        (LogError::Busy { .. }, true) => (1, "a part of the events is in the log"),
        (_, _) => (5, "some of the events may be in the log"),
    };
    Problem::unavailable(retry_after_s, format!("{error}; {taken}. {RESEND}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse;

    #[test]
    fn a_busy_log_asks_for_a_second_and_a_failed_one_for_five() {
        for (error, partly, seconds) in [
            (LogError::Busy { waiting_bytes: 9 }, false, "1"),
            (LogError::Busy { waiting_bytes: 9 }, true, "1"),
            (LogError::Failed("disk full".into()), false, "5"),
            (LogError::Failed("disk full".into()), true, "5"),
        ] {
            let response = Problem::from(CollectError::Log { error, partly }).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[RETRY_AFTER], seconds);
        }
    }
}
