//! Where the whole program stands in a test: on a data directory, or on the Kafka and Cassandra that this test process shares.
//!
//! A claim that holds on both takes a [`Place`]; [`wherever_it_runs`] makes its tests.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test binary uses a part of it")]

use tempfile::TempDir;

use crate::support::Server;

/// A log and a store that nobody else has.
pub(crate) struct Place {
    settings: Vec<String>,
    dir: TempDir,
}

impl Place {
    /// In a data directory.
    pub(crate) fn embedded() -> Self {
        Self::with(&[])
    }

    /// A topic and a keyspace of their own, made with these settings too.
    #[cfg(all(feature = "kafka", feature = "cassandra"))]
    pub(crate) fn cluster(more: &[(&str, &str)]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};

        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("place{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (kafka, cassandra) = std::thread::scope(|scope| {
            let kafka = scope.spawn(test_servers::kafka);
            let cassandra = test_servers::cassandra();
            (kafka.join().unwrap(), cassandra)
        });
        let (brokers, node) = (kafka.bootstrap(), cassandra.contact());
        let own = [
            ("--kafka-brokers", &*brokers),
            ("--kafka-topic", &*name),
            ("--kafka-group", &*name),
            // Who is killed is missed soon.
            ("--kafka-properties", "session.timeout.ms=6000,heartbeat.interval.ms=1000"),
            ("--cassandra-nodes", &*node),
            ("--cassandra-keyspace", &*name),
            ("--replication", "1"),
        ];
        let place = Self::with(&[&own, more].concat());
        let migrated = crate::support::output(&place.args("migrate"));
        assert!(migrated.status.success(), "{}", crate::support::text(&migrated));
        place
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").to_str().unwrap().to_owned();
        let own = [("--data", &*data), ("--sources", "2")];
        let settings = own.iter().chain(settings).flat_map(|(key, value)| [(*key).to_owned(), (*value).to_owned()]).collect();
        Self { settings, dir }
    }

    /// The same log and store, reached by another setting.
    pub(crate) fn by(&self, key: &str, value: &str) -> Vec<String> {
        let at = self.settings.iter().position(|setting| setting == key).unwrap();
        let mut settings = self.settings.clone();
        settings[at + 1] = value.to_owned();
        settings
    }

    /// A command, told where it stands.
    pub(crate) fn args<'a>(&'a self, command: &'a str) -> Vec<&'a str> {
        std::iter::once(command).chain(self.settings.iter().map(String::as_str)).collect()
    }

    /// A process of a role, ready.
    pub(crate) fn role(&self, role: &str, more: &[&str]) -> Server {
        let server = Server::of(&[&self.args(role)[..], more].concat());
        server.await_ready();
        server
    }

    /// One process that does everything, ready.
    pub(crate) fn start(&self, more: &[&str]) -> Server {
        self.role("run", more)
    }

    /// A directory for what a test keeps; it goes with the place.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

/// Makes two tests of each claim (a function that takes a [`Place`]): on one machine, and on Kafka and Cassandra.
macro_rules! wherever_it_runs {
    ($($claim:ident),+ $(,)?) => {
        mod embedded {
            $(
                #[test]
                fn $claim() {
                    super::$claim(&super::Place::embedded());
                }
            )+
        }

        #[cfg(all(feature = "kafka", feature = "cassandra"))]
        mod on_kafka_and_cassandra {
            $(
                #[test]
                fn $claim() {
                    if !test_servers::skipped() {
                        super::$claim(&super::Place::cluster(&[]));
                    }
                }
            )+
        }
    };
}
pub(crate) use wherever_it_runs;
