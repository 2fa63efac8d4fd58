//! What measurements share: how often to run, the servers, the topics, the report.
//!
//! Servers start when the first measurement asks for them, and topics are filled then; both are kept for the others. A measurement
//! whose servers cannot be had is left out, and said to be.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use test_servers::{CassandraCluster, KafkaCluster};

use crate::report::Report;
use crate::topic::{Plan, Topic};

/// What was asked for on the command line and in the environment.
pub(crate) struct Options {
    /// Only figures with one of these in their name; all if there are none.
    pub(crate) only: Vec<String>,
    /// Runs that count; one more goes before them.
    pub(crate) runs: usize,
    /// Events of a topic.
    pub(crate) events: u64,
    /// Whether this is to see that everything works, not how fast.
    pub(crate) quick: bool,
}

impl Options {
    pub(crate) fn read() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}")));
        let quick = args.iter().any(|arg| arg == "--quick");
        let only: Vec<String> = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
        // Other engines take minutes for each run, and their start weighs less with more events.
        let (runs, events) = if only == [crate::peers::WORD] { (2, 10_000_000) } else { (5, 4_000_000) };
        Self {
            only,
            runs: number("RUNS").map_or(if quick { 1 } else { runs }, |runs| runs as usize),
            events: number("EVENTS").unwrap_or(if quick { 200_000 } else { events }),
            quick,
        }
    }

    /// Whether any of these figures is asked for.
    pub(crate) fn wants(&self, names: &[&str]) -> bool {
        self.only.is_empty() || names.iter().any(|name| self.only.iter().any(|part| name.contains(part.as_str())))
    }
}

/// Why a measurement did not take place.
pub(crate) struct Missing(pub(crate) String);

/// What measurements share.
pub(crate) struct Lab {
    pub(crate) options: Options,
    pub(crate) report: Report,
    kafka: Option<Result<KafkaCluster, String>>,
    cassandra: Option<Result<CassandraCluster, String>>,
    topics: HashMap<String, Topic>,
}

impl Lab {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, report: Report::default(), kafka: None, cassandra: None, topics: HashMap::new() }
    }

    pub(crate) fn wants(&self, names: &[&str]) -> bool {
        self.options.wants(names)
    }

    /// Calls `round` once without noting anything, then once for each run. What it returns are figures by name.
    pub(crate) fn rounds(&mut self, what: &str, round: impl FnMut(usize) -> Vec<(&'static str, f64)>) {
        self.some_rounds(what, self.options.runs, round);
    }

    /// The same, with another number of runs.
    pub(crate) fn some_rounds(&mut self, what: &str, runs: usize, mut round: impl FnMut(usize) -> Vec<(&'static str, f64)>) {
        for run in 0..=runs {
            let warm = if run == 0 { " (not counted)" } else { "" };
            eprintln!("{what}: run {run} of {runs}{warm}");
            let figures = round(run);
            if run > 0 {
                figures.into_iter().for_each(|(name, value)| self.report.note(name, value));
            }
        }
    }

    /// A broker.
    pub(crate) fn kafka(&mut self) -> Result<&KafkaCluster, Missing> {
        let started = self.kafka.get_or_insert_with(|| {
            eprintln!("starting Kafka");
            started(|| KafkaCluster::start(1))
        });
        started.as_ref().map_err(|reason| Missing(reason.clone()))
    }

    /// A Cassandra node.
    pub(crate) fn cassandra(&mut self) -> Result<&CassandraCluster, Missing> {
        let started = self.cassandra.get_or_insert_with(|| {
            eprintln!("starting Cassandra");
            started(|| CassandraCluster::start(1))
        });
        started.as_ref().map_err(|reason| Missing(reason.clone()))
    }

    /// A topic that holds what a plan says.
    pub(crate) fn topic(&mut self, plan: &Plan) -> Result<Topic, Missing> {
        let key = format!("{plan:?}");
        if let Some(topic) = self.topics.get(&key) {
            return Ok(topic.clone());
        }
        let topic = Topic::filled(self.kafka()?, plan);
        self.topics.insert(key, topic.clone());
        Ok(topic)
    }
}

fn started<T>(start: impl FnOnce() -> T) -> Result<T, String> {
    if std::env::var_os(test_servers::WITHOUT).is_some_and(|value| value == "1") {
        return Err(format!("{}=1 is set", test_servers::WITHOUT));
    }
    catch_unwind(AssertUnwindSafe(start)).map_err(|panic| match panic.downcast::<String>() {
        Ok(reason) => *reason,
        Err(_) => "it did not start".into(),
    })
}
