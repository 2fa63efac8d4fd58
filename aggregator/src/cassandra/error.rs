//! What an error of the driver means to a caller: try again, give up, or damage; and whether the cluster had too much to do.

use std::fmt::Display;

use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};

use crate::store::StoreError;

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// The cluster answered too late or said that it has too much to do.
    pub(super) overload: bool,
}

impl Failure {
    /// What was read is not what any version writes.
    pub(super) fn damaged(what: &dyn Display, detail: &dyn Display) -> Self {
        Self { error: damaged(what, detail), overload: false }
    }
}

/// What was read is not what any version writes.
pub(super) fn damaged(what: &dyn Display, detail: &dyn Display) -> StoreError {
    StoreError::Corrupt(format!("{what}: {detail}"))
}

impl From<ExecutionError> for Failure {
    fn from(error: ExecutionError) -> Self {
        let class = match &error {
            ExecutionError::RequestTimeout(_) => Class::Overload,
            ExecutionError::LastAttemptError(attempt) => Class::of_attempt(attempt),
            ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt }) => Class::of_attempt(first_attempt),
            ExecutionError::BadQuery(_) | ExecutionError::PrepareError(PrepareError::PreparedStatementIdsMismatch) => Class::Lasting,
            // No connection, no node, no agreement: all of that may be otherwise in a moment.
            _ => Class::Passing,
        };
        Self { overload: matches!(class, Class::Overload), error: class.error(error.to_string()) }
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        ExecutionError::PrepareError(error).into()
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

#[derive(Clone, Copy)]
enum Class {
    Overload,
    Passing,
    Lasting,
}

impl Class {
    const fn of_attempt(error: &RequestAttemptError) -> Self {
        match error {
            RequestAttemptError::DbError(error, _) => Self::of_database(error),
            RequestAttemptError::UnableToAllocStreamId => Self::Overload,
            RequestAttemptError::BrokenConnectionError(_) => Self::Passing,
            _ => Self::Lasting,
        }
    }

    const fn of_database(error: &DbError) -> Self {
        match error {
            DbError::Overloaded
            | DbError::Unavailable { .. }
            | DbError::ReadTimeout { .. }
            | DbError::WriteTimeout { .. }
            | DbError::RateLimitReached { .. } => Self::Overload,
            // These stay so until a person or a new version does something about the statement.
            DbError::SyntaxError
            | DbError::Invalid
            | DbError::AlreadyExists { .. }
            | DbError::FunctionFailure { .. }
            | DbError::ConfigError
            | DbError::ProtocolError => Self::Lasting,
            // A role may be given its right again; a node that failed may be well again.
            _ => Self::Passing,
        }
    }

    const fn error(self, detail: String) -> StoreError {
        match self {
            Self::Overload | Self::Passing => StoreError::Unavailable(detail),
            Self::Lasting => StoreError::Failed(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::errors::{ConnectionError, ConnectionPoolError, WriteType};
    use scylla::frame::types::Consistency;

    use super::*;

    fn of(error: DbError) -> Failure {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, "said so".into())).into()
    }

    #[test]
    fn overload_passes_and_cuts_the_limit() {
        let consistency = Consistency::LocalQuorum;
        let overloads = [
            of(DbError::Overloaded),
            of(DbError::Unavailable { consistency, required: 2, alive: 1 }),
            of(DbError::WriteTimeout { consistency, received: 1, required: 2, write_type: WriteType::Simple }),
            ExecutionError::RequestTimeout(Duration::from_secs(5)).into(),
        ];
        for failure in overloads {
            assert!(failure.overload && matches!(failure.error, StoreError::Unavailable(_)), "{failure:?}");
        }
    }

    #[test]
    fn what_only_passes_leaves_the_limit_alone_and_what_stays_is_said_to_stay() {
        let broken = ConnectionPoolError::Broken { last_connection_error: ConnectionError::ConnectTimeout };
        let passing =
            [of(DbError::IsBootstrapping), of(DbError::ServerError), of(DbError::Unauthorized), ExecutionError::from(broken).into()];
        for failure in passing {
            assert!(!failure.overload && matches!(failure.error, StoreError::Unavailable(_)), "{failure:?}");
        }
        for failure in [of(DbError::Invalid), of(DbError::SyntaxError)] {
            assert!(!failure.overload && matches!(failure.error, StoreError::Failed(_)), "{failure:?}");
        }
    }
}
