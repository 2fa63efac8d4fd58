//! Why a question has no answer, and the one place where that becomes an HTTP [`Problem`].

use aggregator::StoreError;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ingest::{LogError, Problem};
use thiserror::Error;

use crate::bulk::PartlyWritten;
use crate::calendar::{Step, TooManyPoints};
use crate::plan::Gone;
use crate::question::TooManyInAll;
use crate::read::ReadError;

/// Why a question has no answer.
#[derive(Clone, Debug, Error)]
pub enum QueryError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log did not do it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The counts are kept in coarser buckets only.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The answer would be too long.
    #[error(transparent)]
    TooManyPoints(#[from] TooManyPoints),
    /// The answer about many entities would be too long.
    #[error(transparent)]
    TooManyInAll(#[from] TooManyInAll),
    /// The store did some of it.
    #[error(transparent)]
    PartlyWritten(#[from] PartlyWritten),
    /// The request cannot be used.
    #[error("the request cannot be used")]
    Refused(Box<Problem>),
    /// A bug: the work on the request broke off.
    #[error("the work on the request broke off")]
    Broken,
}

impl From<Problem> for QueryError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl From<ReadError> for QueryError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Self::Store(error),
            ReadError::Gone(gone) => Self::Gone(gone),
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let says = error.to_string();
        match error {
            QueryError::Store(error) => store_problem(&error, says),
            QueryError::PartlyWritten(PartlyWritten { written, not_written, error }) => {
                store_problem(&error, says).with("written", written).with("not_written", not_written)
            }
            QueryError::Log(error) => log_problem(&error),
            QueryError::Gone(gone) => {
                let detail = format!("{says}; ask for a later start, for a coarser step, or for whole UTC days, which are kept for ever");
                let title = "This resolution is no longer kept so far back";
                Self::new(StatusCode::GONE, "resolution-gone", title, detail).with("oldest", gone.oldest.to_string())
            }
            QueryError::TooManyPoints(TooManyPoints { limit, coarser, .. }) => too_many_points(says, limit, coarser),
            QueryError::TooManyInAll(TooManyInAll { limit, each, .. }) => too_many_points(says, limit, each.coarser),
            QueryError::Refused(problem) => *problem,
            QueryError::Broken => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service failed", says),
        }
    }
}

fn too_many_points(says: String, limit: usize, coarser: Step) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "too-many-points", "The answer would have too many points", says)
        .with("parameter", "step")
        .with("limit", limit)
        .with("step", coarser.as_str())
}

fn store_problem(error: &StoreError, says: String) -> Problem {
    match error {
        StoreError::Unavailable(_) => Problem::unavailable(1, format!("{says}; try again in a moment")),
        StoreError::Failed(_) | StoreError::Open { .. } | StoreError::Mismatch(_) | StoreError::OtherLog { .. } => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store-failed", "The store has failed", says)
        }
        StoreError::Corrupt(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "store-damaged", "The store is damaged", says),
    }
}

fn log_problem(error: &LogError) -> Problem {
    let says = error.to_string();
    match error {
        LogError::Busy { .. } => Problem::unavailable(1, says),
        LogError::Unavailable(_) => Problem::unavailable(1, format!("{says}; try again in a moment")),
        LogError::Failed(_) | LogError::TooLarge { .. } | LogError::Truncated(_) | LogError::Open { .. } => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "log-failed", "The log has failed", says)
        }
        LogError::Corrupt { .. } => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "log-damaged", "The log is damaged", says),
        LogError::Gone { start, .. } => {
            Problem::new(StatusCode::GONE, "records-gone", "The records are no longer kept", says).with("start", start.0)
        }
        LogError::NoSource(_) => Problem::bad_parameter("source", says),
    }
}

/// What failed underneath a response, for whoever counts failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Store,
    Log,
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let fault = match &self {
            Self::Store(error) | Self::PartlyWritten(PartlyWritten { error, .. }) => Some((Fault::Store, error.to_string())),
            Self::Log(error) if !matches!(error, LogError::Gone { .. } | LogError::NoSource(_)) => Some((Fault::Log, error.to_string())),
            _ => None,
        };
        let mut response = Problem::from(self).into_response();
        if let Some((fault, error)) = fault {
            tracing::error!(%error, "a question could not be answered");
            response.extensions_mut().insert(fault);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Minute, Offset, Source, Tier};

    use super::*;

    #[test]
    fn each_failure_has_its_status() {
        let gone = Gone { tier: Tier::Hour, start: Minute(0), end: Minute(60), oldest: Minute(120) };
        for (error, status, kind) in [
            (StoreError::Unavailable("x".into()).into(), 503, "unavailable"),
            (StoreError::Failed("x".into()).into(), 503, "store-failed"),
            (StoreError::Corrupt("x".into()).into(), 500, "store-damaged"),
            (LogError::Failed("x".into()).into(), 503, "log-failed"),
            (LogError::Gone { source_id: Source(0), asked: Offset(1), start: Offset(5) }.into(), 410, "records-gone"),
            (QueryError::from(gone), 410, "resolution-gone"),
        ] {
            let problem = Problem::from(error);
            assert_eq!((problem.status().as_u16(), problem.kind()), (status, kind));
        }
        assert!(QueryError::from(StoreError::Unavailable("x".into())).into_response().headers().contains_key("retry-after"));
    }
}
