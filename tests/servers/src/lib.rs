//! Real Kafka, Cassandra and S3 for tests: fetched once, started on loopback addresses of their own, stopped with the test process.
//!
//! - [`kafka`], [`cassandra`]: one small server each, shared by the tests of a process. Topics and keyspaces are the tests' own.
//! - [`KafkaCluster`], [`CassandraCluster`]: several nodes that can be killed, stopped, paused and started again.
//! - [`S3Server`]: a bucket.
//! - [`Proxy`]: a network between a client and a server that delays, drops, refuses and cuts.
//! - [`Process`], [`free_address`], [`Scratch`]: any other program and its files, gone with the test process.
//! - [`skipped`]: the first line of a test that needs a server.
//!
//! ```text
//! jars (Maven, cached) ──> java (watched: ends with this process) ──> kafka, cassandra ──> tests
//!                          place (addresses, ports, directories)       proxy
//! ```
//! Needs Linux (all of 127.0.0.0/8), Java 17 or newer and, the first time, Maven and the network.

#![allow(clippy::panic, clippy::expect_used, reason = "it is a part of tests: what it cannot do fails the test, with the reason")]

mod cassandra;
mod jars;
mod java;
mod kafka;
mod place;
mod process;
mod proxy;
mod s3;

use std::sync::OnceLock;

pub use cassandra::{CassandraCluster, CassandraPlan};
pub use kafka::{KafkaCluster, KafkaPlan};
pub use place::Scratch;
pub use process::Process;
pub use proxy::Proxy;
pub use s3::S3Server;

/// Set to `1`, tests that need servers do not run (and say so).
pub const WITHOUT: &str = "NO_SERVERS";

/// Whether this test shall not run because `NO_SERVERS=1` is set; if so its name is printed. Otherwise a test that cannot have its
/// servers fails with what is missing.
///
/// ```no_run
/// // #[test]
/// fn an_event_is_read_from_kafka() {
///     if test_servers::skipped() {
///         return;
///     }
///     let kafka = test_servers::kafka();
/// }
/// ```
#[must_use]
pub fn skipped() -> bool {
    let skipped = std::env::var_os(WITHOUT).is_some_and(|value| value == "1");
    if skipped {
        let thread = std::thread::current();
        // Past the test harness, which swallows what a passing test prints.
        let line = format!("{WITHOUT}=1: {} did not run\n", thread.name().unwrap_or("a test"));
        drop(std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()));
    }
    skipped
}

/// The broker that the tests of this process share.
///
/// # Panics
/// When it does not start, with the reason.
pub fn kafka() -> &'static KafkaCluster {
    static SHARED: OnceLock<KafkaCluster> = OnceLock::new();
    SHARED.get_or_init(|| KafkaCluster::start(1))
}

/// The Cassandra node that the tests of this process share; anybody may log in.
///
/// # Panics
/// When it does not start, with the reason.
pub fn cassandra() -> &'static CassandraCluster {
    static SHARED: OnceLock<CassandraCluster> = OnceLock::new();
    SHARED.get_or_init(|| CassandraCluster::start(1))
}

/// A loopback address of its own and a free port there, as `host:port`.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> String {
    match place::Place::find(1, 1) {
        Ok(place) => format!("{}:{}", place.host(1), place.port(0)),
        Err(reason) => panic!("{reason}"),
    }
}
