//! Why the log cannot go on: set once, seen by every caller, awaited by the program.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::log::LogError;

/// The log's failure, shared by all of its clients. The first cause stays.
#[derive(Clone)]
pub(super) struct Failure {
    cause: Arc<watch::Sender<Option<String>>>,
}

impl Failure {
    pub(super) fn new() -> Self {
        Self { cause: Arc::new(watch::Sender::new(None)) }
    }

    pub(super) fn fail(&self, cause: impl Into<String>) {
        let cause = cause.into();
        let first = self.cause.send_if_modified(|held| held.is_none() && held.replace(cause.clone()).is_none());
        if first {
            tracing::error!(cause, "the log on Kafka cannot go on");
        }
    }

    pub(super) fn cause(&self) -> Option<String> {
        self.cause.borrow().clone()
    }

    pub(super) fn check(&self) -> Result<(), LogError> {
        self.cause().map_or(Ok(()), |cause| Err(LogError::Failed(cause)))
    }

    pub(super) fn on_failure(&self) -> BoxFuture<'static, String> {
        let mut cause = self.cause.subscribe();
        Box::pin(async move {
            let cause = cause.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
            match cause {
                Some(cause) => cause,
                None => std::future::pending().await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cause_stays_and_is_told() {
        let failure = Failure::new();
        let told = failure.on_failure();
        assert!(failure.check().is_ok());
        failure.fail("first");
        failure.fail("second");
        assert_eq!(told.await, "first");
        assert!(matches!(failure.check(), Err(LogError::Failed(cause)) if cause == "first"));
    }
}
