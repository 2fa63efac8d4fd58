//! The embedded log is a log: the suite that every implementation passes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a failed expectation is a panic"
)]

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use ingest::{EmbeddedLog, EventLog, LogOptions, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_does_what_every_log_must() {
    let dirs = Mutex::new(Vec::new());
    conformance::run(async || {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::new(3).unwrap())).unwrap();
        dirs.lock().unwrap().push(dir);
        Arc::new(log) as Arc<dyn EventLog>
    })
    .await;
}
