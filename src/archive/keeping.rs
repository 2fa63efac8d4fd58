//! Archives what is over, for ever: a failure is told, counted and tried again, and nothing is lost by it, because the log keeps what is
//! not archived.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use aggregator::archive::{Archive, ArchiveError, ArchiveMetrics, ArchiveOptions, RangeBounds, Shelf};
use aggregator::{CountStore, backoff};
use ingest::EventLog;
use schemas::Millis;
use tokio::task::JoinHandle;

use crate::config::Settings;

/// How often what no manifest names is looked for.
const SWEEP_MS: i64 = 6 * 3_600_000;
/// It is looked whether a period is over at least and at most so often.
const LOOK_MS: std::ops::RangeInclusive<u64> = 1_000..=30_000;

/// The archive of the settings, if they name one.
///
/// # Errors
/// If there can be none at that place.
pub(crate) fn open(settings: &Settings, log: Arc<dyn EventLog>, store: Arc<dyn CountStore>) -> Result<Option<Archive>, ArchiveError> {
    let Some(place) = &settings.archive.place else { return Ok(None) };
    let shelf = Shelf::open(place, &settings.archive.bucket)?;
    let (every_ms, retention_ms) = (settings.archive.every_ms, settings.archive.retention_ms);
    let options = ArchiveOptions { every_ms, retention_ms, bounds: RangeBounds::default() };
    Ok(Some(Archive { log, store, shelf, options, metrics: ArchiveMetrics::default() }))
}

/// An archive that is being kept.
pub(crate) struct Keeping {
    pub(crate) metrics: ArchiveMetrics,
    task: JoinHandle<()>,
}

/// A stop does not wait for what is half done: it is thrown away and done again.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

impl Keeping {
    /// Begins, if the place is ours. One that cannot be reached now is a matter of trying again.
    ///
    /// # Errors
    /// If the place holds another log's archive.
    pub(crate) async fn start(archive: Archive) -> Result<Self, ArchiveError> {
        let is_claimed = match archive.shelf.claim(&archive.log.id()).await {
            Ok(()) => true,
            Err(error @ ArchiveError::OtherLog { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the archive cannot be reached; it is tried again");
                false
            }
        };
        let metrics = archive.metrics.clone();
        Ok(Self { metrics, task: tokio::spawn(keep(archive, is_claimed)) })
    }

    /// Stops, and lets log and store go.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = tokio::time::timeout(STOP_PATIENCE, self.task).await;
    }
}

async fn keep(archive: Archive, mut is_claimed: bool) {
    let look =
        Duration::from_millis(u64::try_from(archive.options.every_ms / 10).unwrap_or_default().clamp(*LOOK_MS.start(), *LOOK_MS.end()));
    let (mut failed, mut swept) = (0, Millis::NEVER);
    loop {
        let wait = match once(&archive, &mut is_claimed, &mut swept).await {
            Ok(true) => Duration::ZERO,
            Ok(false) => {
                failed = 0;
                look
            }
            Err(error) => {
                archive.metrics.failed();
                tracing::warn!(%error, "archiving failed; it is tried again, and the log keeps what is not archived for its retention");
                failed += 1;
                backoff::delay(failed, jitter())
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Whether there is more to do at once.
async fn once(archive: &Archive, is_claimed: &mut bool, swept: &mut Millis) -> Result<bool, ArchiveError> {
    let now = Millis::now();
    if !*is_claimed {
        archive.shelf.claim(&archive.log.id()).await?;
        *is_claimed = true;
    }
    let is_more = archive.turn(now).await?;
    if !is_more && swept.plus(SWEEP_MS) <= now {
        let files = archive.sweep(now).await?;
        if files > 0 {
            tracing::info!(files, "removed files of the archive that were never committed");
        }
        *swept = now;
    }
    Ok(is_more)
}

/// Differs between processes that failed together.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(());
    f64::from(u16::try_from(random % 1_000).unwrap_or_default()) / 1_000.0
}
