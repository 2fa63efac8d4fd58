//! Log and store in the data directory.

use std::num::NonZeroU32;
use std::sync::Arc;

use aggregator::EmbeddedStore;
use aggregator::embedded::StoreOptions;
use ingest::{EmbeddedLog, EventLog, LogOptions};

use super::BackendError;
use crate::config::Settings;

/// The logs in the data directory.
#[derive(Clone)]
pub(crate) struct EmbeddedLogs {
    pub(crate) events: Arc<EmbeddedLog>,
    pub(crate) rejected: Arc<EmbeddedLog>,
}

/// Opens the logs and the store, and makes them if they are not there.
pub(super) fn open(settings: &Settings) -> Result<(EmbeddedLogs, EmbeddedStore), BackendError> {
    open_as(settings, false)
}

/// Opens what is there, with as many sources as it has.
pub(super) fn open_existing(settings: &Settings) -> Result<(EmbeddedLogs, EmbeddedStore), BackendError> {
    open_as(settings, true)
}

fn open_as(settings: &Settings, existing: bool) -> Result<(EmbeddedLogs, EmbeddedStore), BackendError> {
    let open_log = |name: &str, sources| {
        let mut options = LogOptions::new(settings.data.join("log").join(name), sources);
        options.accept_truncation = settings.accept_truncated_log;
        options.existing = existing;
        EmbeddedLog::open(&options).map(Arc::new)
    };
    let sources = NonZeroU32::new(settings.fold.sources).unwrap_or(NonZeroU32::MIN);
    let logs = EmbeddedLogs { events: open_log("views", sources)?, rejected: open_log("rejected", NonZeroU32::MIN)? };
    let store = EmbeddedStore::open(StoreOptions::new(settings.data.join("store"), logs.events.id()))?;
    Ok((logs, store))
}
