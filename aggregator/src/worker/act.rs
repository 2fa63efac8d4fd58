//! What a worker hands to the runtime: starting an owner, loads, writes and ticks. Each reports to the worker's inbox.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use ingest::LogError;
use schemas::{FoldSettings, NewRecord, Source, StoredRow};
use tokio::runtime::Handle;

use super::Backends;
use super::seat::SeatId;
use crate::fold::Load;
use crate::owner::{Now, Owner, OwnerOptions, Write, WriteKind};
use crate::recovery::SourceError;
use crate::store::StoreError;

/// The source of the dead-letter log, which has one.
const DEAD_LETTERS: Source = Source(0);

/// What comes to a worker's inbox. It may come after the seat, or the worker, has ended; then nobody needs it.
pub(super) enum Message {
    LogGrew,
    /// Fold this source from now on.
    Take(SeatId),
    /// Another process is to fold it: store what there is, until then at most, and let go.
    Give(Source, Instant),
    Started(SeatId, Result<Box<Owner>, StartFailure>),
    Loaded(SeatId, Load, Result<Vec<Option<StoredRow>>, StoreError>),
    Written(SeatId, u64, Result<(), WriteFailure>),
    TickFailed(SeatId),
    /// Store everything that was read, until then at most, and end.
    Drain(Instant),
}

pub(super) enum StartFailure {
    /// The store or the log does not answer: try again.
    Later(String),
    /// It must not start.
    Never(SourceError),
}

pub(super) enum WriteFailure {
    Later(String),
    Never(String),
}

/// The way from a worker to the runtime and back.
#[derive(Clone)]
pub(super) struct Actor {
    pub(super) backends: Backends,
    pub(super) runtime: Handle,
    pub(super) inbox: Sender<Message>,
}

impl Actor {
    pub(super) fn start_owner(&self, seat: SeatId, settings: FoldSettings, options: OwnerOptions, now: Now) {
        let Self { backends, runtime, inbox } = self.clone();
        runtime.spawn(async move {
            let outcome = open_owner(seat.source, &backends, settings, options, now).await;
            let _ = inbox.send(Message::Started(seat, outcome));
        });
    }

    pub(super) fn load(&self, seat: SeatId, load: Load) {
        let (store, inbox) = (Arc::clone(&self.backends.store), self.inbox.clone());
        self.runtime.spawn(async move {
            let rows = store.read_cells(load.keys.clone()).await;
            let _ = inbox.send(Message::Loaded(seat, load, rows));
        });
    }

    pub(super) fn write(&self, seat: SeatId, write: Write) {
        let Self { backends, runtime, inbox } = self.clone();
        runtime.spawn(async move {
            let outcome = perform(seat.source, write.what, &backends).await;
            let _ = inbox.send(Message::Written(seat, write.id, outcome));
        });
    }

    pub(super) fn tick(&self, seat: SeatId) {
        let (log, inbox) = (Arc::clone(&self.backends.log), self.inbox.clone());
        self.runtime.spawn(async move {
            if let Err(error) = log.append(seat.source, vec![NewRecord::tick()]).await {
                tracing::warn!(source = %seat.source, %error, "a tick could not be appended");
                let _ = inbox.send(Message::TickFailed(seat));
            }
        });
    }
}

async fn open_owner(
    source: Source,
    backends: &Backends,
    settings: FoldSettings,
    options: OwnerOptions,
    now: Now,
) -> Result<Box<Owner>, StartFailure> {
    let checkpoints = backends.store.read_checkpoints().await.map_err(|error| {
        let detail = error.to_string();
        if is_passing(&error) {
            StartFailure::Later(detail)
        } else {
            StartFailure::Never(SourceError::Failed { source_id: source, detail })
        }
    })?;
    let checkpoint = checkpoints.into_iter().find_map(|(owner, checkpoint)| (owner == source).then_some(checkpoint));
    let log = Arc::clone(&backends.log);
    let ends = tokio::task::spawn_blocking(move || log.ends(source)).await.map_err(|stopped| StartFailure::Later(stopped.to_string()))?;
    let ends = ends.map_err(|error| StartFailure::Later(error.to_string()))?;
    let owner = Owner::new(source, settings, options, checkpoint, ends, now).map_err(StartFailure::Never)?;
    let status = owner.status();
    if status.lost > 0 {
        tracing::warn!(%source, lost = status.lost, "records were removed before they were counted, and the loss was accepted");
    }
    if status.unwarmed > 0 {
        let (unwarmed, closed) = (status.unwarmed, status.closed);
        tracing::warn!(%source, unwarmed, %closed, "minutes that were open cannot be rebuilt and count too little from here on; that was accepted");
    }
    Ok(Box::new(owner))
}

async fn perform(source: Source, what: WriteKind, backends: &Backends) -> Result<(), WriteFailure> {
    let of_store = |error: StoreError| {
        if is_passing(&error) { WriteFailure::Later(error.to_string()) } else { WriteFailure::Never(error.to_string()) }
    };
    match what {
        WriteKind::DeadLetters(letters) => match backends.dead_letters.append(DEAD_LETTERS, letters).await {
            Ok(_) => Ok(()),
            Err(error @ (LogError::Busy { .. } | LogError::Unavailable(_))) => Err(WriteFailure::Later(error.to_string())),
            Err(error) => Err(WriteFailure::Never(error.to_string())),
        },
        WriteKind::Rows(rows) => backends.store.write_rows(rows).await.map_err(of_store),
        WriteKind::Touched(days) => backends.store.write_touched(source, days).await.map_err(of_store),
        WriteKind::Checkpoint(checkpoint) => backends.store.write_checkpoint(source, *checkpoint).await.map_err(of_store),
    }
}

/// Whether the same call may succeed later.
pub(super) const fn is_passing(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}
