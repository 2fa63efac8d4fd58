//! What runs in a process of a role, and what it stands on: composed here, closed here.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aggregator::Workers;
use aggregator::fold::FoldLimits;
use aggregator::metrics::{self as fold_metrics, Seen};
use aggregator::owner::OwnerOptions;
use aggregator::recovery::SourceError;
use aggregator::worker::{Observer, SourceState};
use axum::Router;
use axum::middleware::from_fn_with_state;
use ingest::collect::{self, Collector, Limits};
use ingest::spool::{Draining, Spool, SpoolOptions};
use prometheus_client::registry::Registry;
use query::{QueryLimits, QueryService};
use schemas::partition::Partitioner;
use tokio::time::{sleep, timeout};

use super::health::{self, Health};
use super::probe::Probes;
use super::{Role, RoleError, api};
use crate::archive::Keeping;
use crate::backends::Backends;
use crate::config::Settings;
use crate::guard::{AccessLog, Guarded, Proxies, Refusals, admit, cors};
use crate::keys::{self, Keys};

/// How often the states of sources are looked at, to notice that all have stopped.
const LOOK: Duration = Duration::from_millis(500);

/// However many sources there are, each may have so many changed cells that are not stored.
const PENDING_MIN: usize = 20_000;

/// Everything that runs, and what it stands on.
pub(super) struct Parts {
    role: Role,
    backends: Backends,
    workers: Option<Workers>,
    collector: Option<Arc<Collector>>,
    spool: Option<(Arc<Spool>, Draining)>,
    queries: Option<Arc<QueryService>>,
    stopping: Arc<AtomicBool>,
    access_log: AccessLog,
    keys: Keys,
    proxies: Proxies,
    archive: Option<Keeping>,
}

impl Parts {
    /// Starts the parts of a role.
    ///
    /// # Errors
    /// If the log has no group to join, or a thread cannot be started.
    pub(super) fn start(
        role: Role,
        backends: Backends,
        keys: Keys,
        archive: Option<Keeping>,
        settings: &Settings,
    ) -> Result<Self, RoleError> {
        let workers = match (&backends.dead_letters, &backends.store) {
            (Some(dead_letters), Some(store)) if role.folds() => {
                let on = aggregator::Backends {
                    log: Arc::clone(&backends.log),
                    dead_letters: Arc::clone(dead_letters),
                    store: Arc::clone(store),
                };
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                let runtime = tokio::runtime::Handle::current();
                let membership = backends.log.join()?;
                Some(Workers::start(&on, membership, &settings.fold, owner_options(settings), threads, &runtime)?)
            }
            _ => None,
        };
        // An embedded log is never away while this process is there.
        let spool = match settings.spool_bytes {
            max_bytes if max_bytes > 0 && role.collects() && backends.to_trim.is_none() => {
                let options = SpoolOptions { dir: settings.data.join("spool"), max_bytes };
                let spool = Arc::new(Spool::open(&options, Arc::clone(&backends.log))?);
                Some((Arc::clone(&spool), spool.drain()))
            }
            _ => None,
        };
        let collector = role.collects().then(|| {
            let collector = collector(&backends, settings);
            Arc::new(match &spool {
                Some((spool, _)) => {
                    collector.metrics().spool_may_hold(settings.spool_bytes);
                    collector.spooling(Arc::clone(spool))
                }
                None => collector,
            })
        });
        if let Some(collector) = collector.as_ref().filter(|_| settings.enrichment.daily_viewers) {
            tokio::spawn(Collector::forget_salts(Arc::downgrade(collector)));
        }
        let queries = backends.store.as_ref().filter(|_| role.answers()).map(|store| {
            let (store, log) = (Arc::clone(store), Arc::clone(&backends.log));
            let service = QueryService::new(store, log, settings.fold.clone(), query_limits(settings));
            Arc::new(match &backends.dead_letters {
                Some(dead_letters) => service.with_dead_letters(Arc::clone(dead_letters)),
                None => service,
            })
        });
        if let Some(queries) = &queries {
            tokio::spawn(QueryService::finish_adjustments(Arc::downgrade(queries)));
        }
        let access_log = AccessLog(settings.access_log);
        let proxies = settings.trusted_proxies.as_slice().into();
        Ok(Self { role, backends, workers, collector, spool, queries, stopping: Arc::default(), access_log, keys, proxies, archive })
    }

    /// Waits until every source of an embedded log has begun (it may still recover). On Kafka sources come and go: nothing is waited for.
    ///
    /// # Errors
    /// If one of them must not: then nothing is served.
    pub(super) async fn settled(&self) -> Result<(), RoleError> {
        let (Some(observer), Some(logs)) = (self.observer(), &self.backends.to_trim) else { return Ok(()) };
        let sources = ingest::EventLog::sources(&*logs.events).get();
        loop {
            let states = observer.states();
            if let Some(error) = states.values().find_map(stopped) {
                return Err(RoleError::Source(error));
            }
            let owned = states.values().filter(|state| matches!(state, SourceState::Owned(_))).count();
            if u32::try_from(owned).is_ok_and(|owned| owned == sources) {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Resolves when the log or the store cannot be written any more, or all sources that a group gave to this process have stopped.
    pub(super) fn failures(&self) -> impl Future<Output = RoleError> + Send + 'static {
        let forever = || Box::pin(std::future::pending::<String>()) as futures_util::future::BoxFuture<'static, String>;
        // Who only answers goes on: counts need the store alone.
        let log = if self.role.answers_only() { forever() } else { self.backends.log.on_failure() };
        let rejected = self.backends.dead_letters.as_ref().filter(|_| self.role.folds()).map_or_else(forever, |log| log.on_failure());
        let store = self.backends.store.as_ref().map_or_else(forever, |store| store.on_failure());
        let shared = self.observer().filter(|_| self.backends.to_trim.is_none());
        async move {
            let (what, reason) = tokio::select! {
                reason = log => ("the log", reason),
                reason = rejected => ("the log of rejected events", reason),
                reason = store => ("the store", reason),
                error = all_stopped(shared) => {
                    tracing::error!(%error, "every source of this process has stopped; stopping");
                    return RoleError::AllStopped(error);
                }
            };
            tracing::error!(reason, "{what} cannot be written any more; stopping");
            RoleError::Failed { what, reason }
        }
    }

    /// The routes of the role, and the tasks that keep its readiness true.
    pub(super) fn router(&self) -> (Guarded, Probes) {
        let (observer, seen) = (self.observer(), Seen::default());
        let (probes, words) = Probes::start(Arc::clone(&self.backends.log), self.backends.store.clone(), observer.clone(), &seen);
        let mut registry = Registry::default();
        health::register(words.clone(), &mut registry);
        match &observer {
            Some(observer) => fold_metrics::register(observer.clone(), seen, &mut registry),
            None => fold_metrics::register_stored(seen, &mut registry),
        }
        let prefixed = registry.sub_registry_with_prefix("tallymark");
        if let Some(archive) = &self.archive {
            archive.metrics.register(prefixed);
        }
        let mut routes = Router::new();
        let mut events = Router::new();
        let refusals = Refusals::default();
        refusals.register(prefixed);
        let admitted = || from_fn_with_state((self.keys.clone(), refusals.clone()), admit);
        if let Some(collector) = &self.collector {
            collector.metrics().register(prefixed);
            events = collect::router(Arc::clone(collector)).layer(admitted()).layer(cors(self.keys.clone()));
        }
        if let Some(queries) = &self.queries {
            queries.metrics().register(prefixed);
            routes = routes.merge(query::router(Arc::clone(queries))).merge(keys::router(self.keys.clone()));
        }
        let health = Health {
            role: self.role,
            words,
            observer,
            log: Arc::clone(&self.backends.log),
            dead_letters: self.backends.dead_letters.clone(),
            store: self.backends.store.clone(),
            keys: self.keys.clone(),
            spool: self.spool.as_ref().map(|(spool, _)| Arc::clone(spool)),
            stopping: Arc::clone(&self.stopping),
            registry,
        };
        let documented = query::docs::router(&api::document(self.role));
        let routes = routes.merge(health::router(Arc::new(health))).merge(documented).fallback(query::not_found);
        (Guarded::new(routes.layer(admitted()).merge(events), self.access_log, Arc::clone(&self.proxies)), probes)
    }

    /// What prepares for a stop while requests are still served: no longer ready, for `delay`; then streams end.
    pub(super) fn wind_down(&self, delay: Duration) -> impl Future<Output = ()> + Send + 'static {
        let (stopping, queries) = (Arc::clone(&self.stopping), self.queries.clone());
        // Nobody sends requests to these, and what an aggregator folds should go to others at once.
        let delay = if matches!(self.role, Role::Aggregate | Role::Archive) { Duration::ZERO } else { delay };
        async move {
            stopping.store(true, Ordering::Relaxed);
            sleep(delay).await;
            if let Some(queries) = queries {
                queries.stop_streams();
            }
        }
    }

    /// Folds and stores what was appended, for at most `patience`, gives the sources to others, and closes everything.
    pub(super) async fn close(self, patience: Duration) {
        let Self { backends, workers, collector, spool, queries, archive, .. } = self;
        if let Some(archive) = archive {
            archive.stop().await;
        }
        if let Some(collector) = collector
            && timeout(patience, collector.drained()).await.is_err()
        {
            tracing::warn!("some appends had not ended");
        }
        // What is left of it waits for the next start.
        let spool = spool.map(|(spool, draining)| {
            drop(draining);
            spool
        });
        let closed = tokio::task::spawn_blocking(move || {
            if let Some(spool) = spool {
                spool.close();
            }
            let stored = workers.is_none_or(|workers| workers.drain(patience));
            backends.log.close();
            if let Some(dead_letters) = &backends.dead_letters {
                dead_letters.close();
            }
            drop((queries, backends));
            stored
        });
        if !closed.await.unwrap_or(false) {
            tracing::warn!("not everything was stored; whoever folds it next counts the rest from the log");
        }
    }

    fn observer(&self) -> Option<Observer> {
        self.workers.as_ref().map(Workers::observer)
    }
}

fn collector(backends: &Backends, settings: &Settings) -> Collector {
    let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    // Of the settings, not of the log: an event's source stays the same when partitions are added.
    let partitioner = Partitioner { sources: at_least_one(settings.fold.sources), spread: at_least_one(settings.fold.spread) };
    let limits = Limits {
        max_body_bytes: settings.max_body_bytes,
        max_decoded_bytes: settings.max_decoded_body_bytes,
        max_in_flight_bytes: settings.max_inflight_bytes,
        max_events: settings.max_events,
        body_timeout: settings.body_timeout,
        body_bytes_per_second: settings.body_bytes_per_second,
        quotas: settings.quotas,
    };
    Collector::new(Arc::clone(&backends.log), partitioner, limits).enriching(settings.enrichment)
}

fn query_limits(settings: &Settings) -> QueryLimits {
    let Settings { rate_limit, live_streams, cache_bytes, .. } = *settings;
    QueryLimits { rate: rate_limit, live_streams, cache_bytes, ..QueryLimits::default() }
}

fn owner_options(settings: &Settings) -> OwnerOptions {
    let sources = usize::try_from(settings.fold.sources).unwrap_or(usize::MAX).max(1);
    OwnerOptions {
        flush_interval: settings.flush_interval,
        limits: FoldLimits {
            resident_cells: settings.resident_cells / sources,
            // As many may wait for the store as may be resident: then a fold that catches up writes a cell once, not at every close.
            pending_max: (settings.resident_cells / sources).clamp(PENDING_MIN, FoldLimits::default().pending_max),
            ..FoldLimits::default()
        },
        accept_gap: settings.accept_gap,
        ..OwnerOptions::default()
    }
}

/// The first error, once every source of this process has stopped; never without sources.
async fn all_stopped(observer: Option<Observer>) -> SourceError {
    let Some(observer) = observer else { return std::future::pending().await };
    loop {
        let states = observer.states();
        let errors: Vec<SourceError> = states.values().filter_map(stopped).collect();
        match errors.into_iter().next() {
            Some(first) if states.values().all(|state| stopped(state).is_some()) => return first,
            _ => sleep(LOOK).await,
        }
    }
}

fn stopped(state: &SourceState) -> Option<SourceError> {
    match state {
        SourceState::Stopped(error) => Some(error.clone()),
        SourceState::Starting | SourceState::Owned(_) => None,
    }
}
