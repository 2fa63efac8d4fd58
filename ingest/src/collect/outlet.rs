//! Where events go: the log, or on disk while it is away.

use std::sync::Arc;

use schemas::{NewRecord, Source};

use crate::spool::{Spool, Taken};
use crate::{EventLog, LogError};

/// Where events go.
pub(super) enum Outlet {
    Log(Arc<dyn EventLog>),
    /// On disk while the log is away.
    Spooling(Arc<Spool>),
}

impl Outlet {
    /// Resolves when all records are durable.
    pub(super) async fn append(&self, source: Source, records: Vec<NewRecord>) -> Result<Taken, LogError> {
        match self {
            Self::Log(log) => log.append(source, records).await.map(|_| Taken::Logged),
            Self::Spooling(spool) => spool.append(source, records).await,
        }
    }
}
