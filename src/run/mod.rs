//! `tallymark run`: every role in one process, on this machine's disk.
//!
//! ```text
//! DATA/log/views ──> workers ──> DATA/store ──> query ─┐
//!      ▲                └──> DATA/log/rejected         ├─ one HTTP server
//!      └──────────────────────── collector <───────────┘
//! ```
//!
//! Start: log, dead-letter log, store, workers, then the listener. Stop, in the opposite order of the data: no new
//! connections, open requests end, what they appended is folded and stored, then the log closes.

mod health;
mod retention;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aggregator::embedded::StoreOptions;
use aggregator::fold::FoldLimits;
use aggregator::owner::OwnerOptions;
use aggregator::recovery::SourceError;
use aggregator::worker::{Observer, SourceState};
use aggregator::{Backends, EmbeddedStore, StoreError, Workers};
use axum::Router;
use ingest::collect::{self, Collector, Limits};
use ingest::{EmbeddedLog, EventLog, LogError, LogOptions};
use prometheus_client::registry::Registry;
use query::{QueryLimits, QueryService};
use schemas::partition::Partitioner;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{ConfigError, Given, Settings, load};
use crate::serve::{Bounds, serve};

/// Why the program does not run (any longer).
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(
        "listen = {listen} is reachable from other machines, and nothing asks for a key yet: anyone who can connect could write \
         and read counts.\nListen on 127.0.0.1, or behind a proxy that asks; or say --insecure if the network keeps others out."
    )]
    Exposed { listen: SocketAddr },
    #[error("cannot listen on {listen}: {error}.\n{way_out}")]
    Listen { listen: SocketAddr, error: std::io::Error, way_out: &'static str },
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Source(SourceError),
    #[error(
        "{what} failed while running: {reason}\nWhat was acknowledged is safe. Mend the cause (disk full? permissions?) and start again."
    )]
    Failed { what: &'static str, reason: String },
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Runs everything until a signal or a failure.
///
/// # Errors
/// Why it could not start, or could not go on.
pub(crate) async fn run(given: Given) -> Result<ExitCode, RunError> {
    let settings = load(&given, std::env::vars_os())?.settings;
    crate::logging::start(&settings);
    let listener = listen(&settings).await?;
    let parts = Parts::open(&settings)?;
    let started = parts.settled().await;
    if let Err(error) = started {
        parts.close(Duration::ZERO).await;
        return Err(error);
    }
    let address = listener.local_addr()?;
    greet(address, &settings);
    let bounds = Bounds {
        max_connections: settings.max_connections,
        header_timeout: settings.header_timeout,
        drain_timeout: settings.drain_timeout,
    };
    let trimming =
        retention::trim_forever(Arc::clone(&parts.log), Arc::clone(&parts.dead_letters), parts.store.clone(), settings.retention_ms);
    let trimming = tokio::spawn(trimming);
    let (why, stopped) = tokio::sync::oneshot::channel();
    let failures = parts.failures();
    let queries = Arc::clone(&parts.queries);
    let stop = async move {
        let reason = tokio::select! {
            signal = stop_signal() => signal.map_err(RunError::from),
            failure = failures => Err(failure),
        };
        queries.stop_streams();
        // The receiver waits for the server, which waits for this.
        let _ = why.send(reason);
    };
    serve(listener, parts.router(), bounds, stop).await;
    trimming.abort();
    parts.close(settings.drain_timeout).await;
    match stopped.await {
        Ok(Ok(signal)) => {
            tracing::info!(signal, "stopped");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(ExitCode::SUCCESS),
    }
}

async fn listen(settings: &Settings) -> Result<TcpListener, RunError> {
    // The table of keys always gives one.
    let listen = settings.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
    if !listen.ip().to_canonical().is_loopback() && !settings.insecure {
        return Err(RunError::Exposed { listen });
    }
    TcpListener::bind(listen).await.map_err(|error| {
        let way_out = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "Another program has that port (another tallymark?). Stop it, or choose another port with --listen 127.0.0.1:8081"
            }
            std::io::ErrorKind::PermissionDenied => "Ports below 1024 need permission: choose another with --listen 127.0.0.1:8080",
            std::io::ErrorKind::AddrNotAvailable => {
                "This machine has no such address: --listen takes one of its own, such as 127.0.0.1:8080"
            }
            _ => "Choose another address with --listen",
        };
        RunError::Listen { listen, error, way_out }
    })
}

/// The first SIGTERM or SIGINT.
async fn stop_signal() -> std::io::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

fn greet(address: SocketAddr, settings: &Settings) {
    let data = std::fs::canonicalize(&settings.data).unwrap_or_else(|_| settings.data.clone());
    let now = schemas::Millis::now().to_rfc3339();
    println!(
        "Tallymark listens on http://{address}, data in {}\n\nTry:\n  \
         curl http://{address}/v1/events -H 'content-type: application/json' -d '{{\"event_id\":\"e1\",\"video_id\":\"v1\",\"ts\":\"{now}\"}}'\n  \
         curl http://{address}/v1/videos/v1\n  \
         curl http://{address}/v1/status\n",
        data.display()
    );
}

/// Everything that runs, and what it stands on.
struct Parts {
    log: Arc<EmbeddedLog>,
    dead_letters: Arc<EmbeddedLog>,
    store: EmbeddedStore,
    workers: Workers,
    collector: Arc<Collector>,
    queries: Arc<QueryService>,
}

impl Parts {
    fn open(settings: &Settings) -> Result<Self, RunError> {
        let sources = NonZeroU32::new(settings.fold.sources).unwrap_or(NonZeroU32::MIN);
        let open_log = |name: &str, sources| {
            let mut options = LogOptions::new(settings.data.join("log").join(name), sources);
            options.accept_truncation = settings.accept_truncated_log;
            EmbeddedLog::open(&options).map(Arc::new)
        };
        let log = open_log("views", sources)?;
        let dead_letters = open_log("rejected", NonZeroU32::MIN)?;
        let store = EmbeddedStore::open(StoreOptions::new(settings.data.join("store"), log.id()))?;
        let backends =
            Backends { log: Arc::clone(&log) as _, dead_letters: Arc::clone(&dead_letters) as _, store: Arc::new(store.clone()) };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Handle::current();
        let workers = Workers::start(&backends, &settings.fold, owner_options(settings), threads, &runtime)?;
        let spread = NonZeroU32::new(settings.fold.spread).unwrap_or(NonZeroU32::MIN);
        let limits = Limits {
            max_body_bytes: settings.max_body_bytes,
            max_in_flight_bytes: settings.max_inflight_bytes,
            max_events: settings.max_events,
            ..Limits::default()
        };
        let collector = Collector::new(Arc::clone(&log) as _, Partitioner { sources, spread }, limits);
        let queries = QueryService::new(backends.store, Arc::clone(&log) as _, settings.fold.clone(), QueryLimits::default());
        Ok(Self { log, dead_letters, store, workers, collector: Arc::new(collector), queries: Arc::new(queries) })
    }

    /// Waits until every source has begun (it may still recover).
    ///
    /// # Errors
    /// If one of them must not: then nothing is served.
    async fn settled(&self) -> Result<(), RunError> {
        let observer = self.workers.observer();
        loop {
            let states = observer.states();
            if let Some(error) = states.values().find_map(stopped) {
                return Err(RunError::Source(error));
            }
            if states.values().all(|state| matches!(state, SourceState::Owned(_))) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Resolves when the log or the store cannot be written any more.
    fn failures(&self) -> impl Future<Output = RunError> + Send + 'static {
        let (log, rejected, store) = (self.log.on_failure(), self.dead_letters.on_failure(), self.store.on_failure());
        async move {
            let (what, reason) = tokio::select! {
                reason = log => ("the log", reason),
                reason = rejected => ("the log of rejected events", reason),
                reason = store => ("the store", reason),
            };
            tracing::error!(reason, "{what} cannot be written any more; stopping");
            RunError::Failed { what, reason }
        }
    }

    fn router(&self) -> Router {
        let mut registry = Registry::default();
        let observer: Observer = self.workers.observer();
        aggregator::metrics::register(observer.clone(), &mut registry);
        let prefixed = registry.sub_registry_with_prefix("tallymark");
        self.collector.metrics().register(prefixed);
        self.queries.metrics().register(prefixed);
        let health = health::Health {
            observer,
            log: Arc::clone(&self.log),
            dead_letters: Arc::clone(&self.dead_letters),
            store: self.store.clone(),
            registry,
        };
        collect::router(Arc::clone(&self.collector))
            .merge(query::router(Arc::clone(&self.queries)))
            .merge(health::router(Arc::new(health)))
            .fallback(query::not_found)
    }

    /// Folds and stores what was appended, for at most `patience`, and closes everything.
    async fn close(self, patience: Duration) {
        let Self { log, dead_letters, store, workers, collector, queries } = self;
        if tokio::time::timeout(patience, collector.drained()).await.is_err() {
            tracing::warn!("some appends had not ended");
        }
        let closed = tokio::task::spawn_blocking(move || {
            let stored = workers.drain(patience);
            log.close();
            dead_letters.close();
            drop((queries, store));
            stored
        });
        if !closed.await.unwrap_or(false) {
            tracing::warn!("not everything was stored; the next start counts the rest from the log");
        }
    }
}

fn stopped(state: &SourceState) -> Option<SourceError> {
    match state {
        SourceState::Stopped(error) => Some(error.clone()),
        SourceState::Starting | SourceState::Owned(_) => None,
    }
}

fn owner_options(settings: &Settings) -> OwnerOptions {
    let sources = usize::try_from(settings.fold.sources).unwrap_or(usize::MAX).max(1);
    OwnerOptions {
        flush_interval: settings.flush_interval,
        limits: FoldLimits { resident_cells: settings.resident_cells / sources, ..FoldLimits::default() },
        accept_gap: settings.accept_gap,
        ..OwnerOptions::default()
    }
}
