//! What a process does: `tallymark run` everything, `collect`, `aggregate`, `query` and `archive` a part each.
//!
//! ```text
//!            run, on one machine or on Kafka and Cassandra
//! ┌──────────────────────────────────────────────────────────────┐
//! │ collect ──> log ──> aggregate ──> store ──> query ──> answers │
//! └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `parts` | what runs in the process: composed, and closed in the order of the data |
//! | `open_files` | how many connections the system lets us have |
//! | `listen` | the listener, the greeting, the signal |
//! | `health` | `/livez`, `/readyz`, `/metrics` |
//! | `probe` | whether log and store answer, asked every now and then |
//! | `retention` | trimming the embedded logs |
//! | `api` | its OpenAPI document |
//! | `error` | [`RoleError`] |
//!
//! Start: the listener, log and store, then what works on them. Stop: no longer ready, no new connections, open requests
//! end, what they appended is folded and stored (by this process if it folds), sources go to others, then the log closes.

mod api;
mod error;
mod health;
mod listen;
mod open_files;
mod parts;
mod probe;
mod retention;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ingest::{EventLog, LogError};
use schemas::{NewRecord, Source};

use crate::archive::{self, Keeping};
use crate::backends::{Backends, Needs, Place, open_cluster, open_embedded};
use crate::config::{Given, Settings, load};
use crate::keys::{Keys, Opening};
use crate::serve::{Bounds, serve};
use crate::tls::{Tls, TlsFiles};
pub(crate) use error::RoleError;
use parts::Parts;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything.
    Run,
    /// Takes events in.
    Collect,
    /// Folds events into counts.
    Aggregate,
    /// Answers.
    Query,
    /// Keeps the archive.
    Archive,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Collect => "collect",
            Self::Aggregate => "aggregate",
            Self::Query => "query",
            Self::Archive => "archive",
        }
    }

    const fn collects(self) -> bool {
        matches!(self, Self::Run | Self::Collect)
    }

    const fn folds(self) -> bool {
        matches!(self, Self::Run | Self::Aggregate)
    }

    const fn answers(self) -> bool {
        matches!(self, Self::Run | Self::Query)
    }

    const fn answers_only(self) -> bool {
        matches!(self, Self::Query)
    }

    const fn archives(self) -> bool {
        matches!(self, Self::Run | Self::Archive)
    }

    /// Whether it appends to the log.
    const fn appends(self) -> bool {
        matches!(self, Self::Run | Self::Collect | Self::Aggregate)
    }

    const fn needs(self) -> Needs {
        let counts = self.folds() || self.answers();
        Needs { dead_letters: counts, store: counts || self.archives() }
    }

    /// Where log and store are.
    fn place(self, settings: &Settings) -> Result<Place, RoleError> {
        if self == Self::Run {
            return Ok(Place::of(settings)?);
        }
        let on_kafka = !settings.kafka.brokers.is_empty();
        let on_cassandra = !settings.cassandra.nodes.is_empty();
        let (keys, flags) = if self.needs().store {
            ("`kafka_brokers` and `cassandra_nodes`", "--kafka-brokers host:9092 --cassandra-nodes host:9042")
        } else {
            ("`kafka_brokers`", "--kafka-brokers host:9092")
        };
        let enough = on_kafka && (on_cassandra || !self.needs().store);
        if enough { Ok(Place::Cluster) } else { Err(RoleError::Alone { role: self.name(), keys, flags }) }
    }
}

/// Runs a role until a signal or a failure.
///
/// # Errors
/// Why it could not start, or could not go on.
pub(crate) async fn run(role: Role, given: Given) -> Result<ExitCode, RoleError> {
    let settings = load(&given, std::env::vars_os())?.settings;
    crate::logging::start(&settings);
    let place = role.place(&settings)?;
    let bounds = bounds(&settings);
    let listener = listen::listen(&settings).await?;
    let tls = tls(&settings)?;
    let backends = match place {
        Place::Embedded => open_embedded(&settings)?,
        Place::Cluster => open_cluster(&settings, role.needs()).await?,
    };
    if place == Place::Cluster && role.appends() {
        prove_writable(role, &*backends.log, &settings).await?;
    }
    let opening = opening(&backends, &settings);
    let keys_can_be = !matches!(opening, Opening::Nowhere);
    let (keys, watch) = Keys::start(opening, listen::is_closed(&settings)).await?;
    listen::check_closed(&settings, &keys, keys_can_be)?;
    let keeping = keep_archive(role, &backends, &settings).await?;
    let trimming = trim(&backends, &settings);
    let parts = Parts::start(role, backends, keys.clone(), keeping, &settings)?;
    if let Err(error) = parts.settled().await {
        parts.close(Duration::ZERO).await;
        return Err(error);
    }
    let signal = listen::stop_signal()?;
    listen::greet(role, listener.local_addr()?, &settings, place == Place::Embedded, !keys.are_none());
    let (app, probes) = parts.router();
    let (why, stopped) = tokio::sync::oneshot::channel();
    let (failures, wind_down) = (parts.failures(), parts.wind_down(settings.stop_delay));
    let stop = async move {
        let reason = tokio::select! {
            signal = signal => Ok(signal),
            failure = failures => Err(failure),
        };
        wind_down.await;
        // The receiver waits for the server, which waits for this.
        let _ = why.send(reason);
    };
    serve(listener, app, bounds, tls, stop).await;
    drop((probes, watch, keys));
    if let Some(trimming) = trimming {
        trimming.abort();
    }
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

/// Where this process finds keys: in its store, or, if it only takes events in, in the one that the settings name.
fn opening(backends: &Backends, settings: &Settings) -> Opening {
    match &backends.store {
        Some(store) => Opening::Store(Arc::clone(store)),
        None if settings.cassandra.nodes.is_empty() => Opening::Nowhere,
        None => Opening::Keyspace(Box::new(settings.clone()), backends.log.id()),
    }
}

fn tls(settings: &Settings) -> Result<Option<Tls>, RoleError> {
    let files = settings.tls_cert.clone().zip(settings.tls_key.clone());
    Ok(files.map(|(certificate, key)| Tls::start(TlsFiles { certificate, key })).transpose()?)
}

fn bounds(settings: &Settings) -> Bounds {
    let max_connections = open_files::allow(settings.max_connections);
    Bounds { max_connections, header_timeout: settings.header_timeout, drain_timeout: settings.drain_timeout }
}

/// Begins to keep the archive, if the role does and the settings name one.
async fn keep_archive(role: Role, backends: &Backends, settings: &Settings) -> Result<Option<Keeping>, RoleError> {
    let Some(store) = backends.store.as_ref().filter(|_| role.archives()) else { return Ok(None) };
    match archive::open(settings, Arc::clone(&backends.log), Arc::clone(store))? {
        Some(archive) => Ok(Some(Keeping::start(archive).await?)),
        None if role == Role::Archive => Err(RoleError::NoArchive),
        None => Ok(None),
    }
}

/// Trims logs that are ours to trim, from now on.
fn trim(backends: &Backends, settings: &Settings) -> Option<tokio::task::JoinHandle<()>> {
    let (logs, store) = (backends.to_trim.clone()?, Arc::clone(backends.store.as_ref()?));
    let keeps_archive = settings.archive.place.is_some();
    Some(tokio::spawn(retention::trim_forever(logs, store, settings.retention_ms, keeps_archive)))
}

/// Appends a tick, which counts nothing: a process that may not write is told so at its start, and not when events or time pass.
async fn prove_writable(role: Role, log: &dyn EventLog, settings: &Settings) -> Result<(), RoleError> {
    match log.append(Source(0), vec![NewRecord::tick()]).await {
        Ok(_) => Ok(()),
        // Brokers that are away now are a matter of readiness.
        Err(error @ (LogError::Unavailable(_) | LogError::Busy { .. })) if !lacks_a_right(&error) => {
            tracing::warn!(%error, "whether this process may write to the log is not known yet");
            Ok(())
        }
        Err(error) => {
            let (topic, brokers) = (settings.kafka.topic.clone(), settings.kafka.brokers.clone());
            Err(RoleError::NoWrite { role: role.name(), topic, brokers, error })
        }
    }
}

/// Whether a broker's words say that a right is missing: a refusal that may end as soon as somebody grants it, and not before.
fn lacks_a_right(error: &LogError) -> bool {
    error.to_string().to_ascii_lowercase().contains("authorization failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(brokers: &str, nodes: &[&str]) -> Settings {
        let mut settings = Settings::default();
        settings.kafka.brokers = brokers.to_owned();
        settings.cassandra.nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        settings
    }

    #[test]
    fn a_part_needs_what_it_shares_and_run_works_alone() {
        let refused = |role: Role, brokers, nodes: &[&str]| role.place(&settings(brokers, nodes)).unwrap_err().to_string();
        assert_eq!(Role::Run.place(&settings("", &[])).unwrap(), Place::Embedded);
        assert_eq!(Role::Run.place(&settings("k:1", &["c:1"])).unwrap(), Place::Cluster);
        assert!(refused(Role::Run, "k:1", &[]).contains("--cassandra-nodes host:port"));
        assert!(refused(Role::Run, "", &["c:1"]).contains("--kafka-brokers host:port"));
        assert_eq!(Role::Collect.place(&settings("k:1", &[])).unwrap(), Place::Cluster);
        for role in [Role::Aggregate, Role::Query, Role::Archive] {
            assert_eq!(role.place(&settings("k:1", &["c:1"])).unwrap(), Place::Cluster);
            assert!(refused(role, "k:1", &[]).contains("cassandra_nodes") && refused(role, "", &["c:1"]).contains("kafka_brokers"));
        }
        let said = refused(Role::Collect, "", &[]);
        assert!(said.contains("tallymark run") && !said.contains("cassandra_nodes"), "{said}");
    }
}
