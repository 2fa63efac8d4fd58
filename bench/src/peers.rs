//! Kafka Streams and Flink doing the same job on the same topic: `make bench-peers`.
//!
//! The jobs lie in `bench/peers` (Java, built by Maven). Each reads the topic from its start to its end with two threads or slots, counts
//! events by video and minute of event time, commits each second, and must come to the counts that were sent. They count videos alone,
//! where Tallymark also counts spaces and the site, and each of them in minutes, hours, days and years.
//!
//! What is compared is CPU time. That of Java is of the whole process, with its start and its compilation: with fewer events than
//! the 10 M of the default it would weigh more. Their medians are kept beside the summary, so that later runs of `make bench` can be
//! compared with them.
//!
//! | figure | Tallymark | beside |
//! |---|---|---|
//! | `json_vs_flink_heap` | a store that keeps nothing | Flink, state on the heap, no sink |
//! | `json_stored_vs_flink_rocksdb` | the embedded store | Flink, state in RocksDB, no sink |
//! | `json_stored_vs_kstreams_rocksdb_eos` | the embedded store | Kafka Streams, state in RocksDB and its changelog, exactly-once |
//! | `cassandra_vs_flink` | Cassandra, rows written | Flink, state on the heap, upserts into Cassandra; a fifth of the events |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::aggregate::{self, Outcome, Store};
use crate::child::Task;
use crate::encode::Form;
use crate::events::{Expected, Shape};
use crate::lab::{Lab, Missing};
use crate::report::{median, results_dir, show, target_dir};
use crate::topic::{self, Topic};

/// The word that asks for this.
pub(crate) const WORD: &str = "peers";

/// A job: its name here, its module and class, its arguments.
struct Job {
    name: &'static str,
    module: &'static str,
    class: &'static str,
    args: &'static [&'static str],
}

const JOBS: [Job; 4] = [
    Job { name: "flink_heap", module: "flink", class: "peers.FlinkJob", args: &["hashmap", "none"] },
    Job { name: "flink_rocksdb", module: "flink", class: "peers.FlinkJob", args: &["rocksdb", "none"] },
    Job { name: "kstreams_rocksdb_eos", module: "kstreams", class: "peers.KStreams", args: &["rocksdb", "eos"] },
    Job { name: "flink_cassandra", module: "flink", class: "peers.FlinkJob", args: &["hashmap", "cassandra"] },
];

/// What a job reports.
#[derive(Deserialize)]
struct Report {
    events: u64,
    rows: u64,
    checksum: u64,
    cpu_s: f64,
}

/// What other engines reached here, by name: events per CPU-second; of those with a sink, rows.
pub(crate) struct Kept(BTreeMap<String, f64>);

impl Kept {
    /// What the last `make bench-peers` measured, if it was run.
    pub(crate) fn read() -> Self {
        let written = std::fs::read(results_dir().join("peers.json")).ok();
        Self(written.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Our rate beside a peer's, as a figure; none if the peer's is not known.
    pub(crate) fn beside(&self, figure: &'static str, peer: &str, rate: f64) -> Option<(&'static str, f64)> {
        self.0.get(peer).map(|theirs| (figure, rate / theirs))
    }
}

/// The figures of each rate of ours.
pub(crate) const PLAIN: [(&str, &str); 1] = [("json_vs_flink_heap", "flink_heap")];
pub(crate) const STORED: [(&str, &str); 2] =
    [("json_stored_vs_flink_rocksdb", "flink_rocksdb"), ("json_stored_vs_kstreams_rocksdb_eos", "kstreams_rocksdb_eos")];
pub(crate) const CASSANDRA: [(&str, &str); 1] = [("cassandra_vs_flink", "flink_cassandra")];

/// Runs all, in turn with ours.
pub(crate) fn run(lab: &mut Lab) -> Result<(), Missing> {
    build()?;
    let topic = lab.topic(&topic::Plan::of(Form::Json, Shape::traffic(lab.options.events)))?;
    // A node beside the engines on the same machine takes some thousand rows a second.
    let few = lab.topic(&topic::Plan::of(Form::Json, Shape::traffic(lab.options.events / 5)))?;
    let node = lab.cassandra()?.contact();
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in 1..=lab.options.runs {
        eprintln!("other engines: run {run} of {}", lab.options.runs);
        let dir = tempfile::tempdir_in(target_dir()).unwrap();
        let ours = |topic, store| Task::Aggregate(aggregate::Plan::of(topic, store)).run::<Outcome>();
        let of = |name: &str| {
            let job = JOBS.iter().find(|job| job.name == name).unwrap();
            let sinks = name.ends_with("cassandra");
            let report = job.run(if sinks { &few } else { &topic }, &node, dir.path());
            let rate = if sinks { report.rows } else { report.events } as f64 / report.cpu_s;
            eprintln!("  {name}: {} per CPU-second", show(rate));
            rate
        };
        let plain = ours(&topic, Store::Discard).events_per_cpu_second();
        let mut note = |figures: &[(&'static str, &'static str)], rate: f64| {
            for (figure, peer) in figures {
                let theirs = of(peer);
                rates.entry(peer).or_default().push(theirs);
                lab.report.note(figure, rate / theirs);
            }
        };
        note(&PLAIN, plain);
        note(&STORED, ours(&topic, Store::Embedded(dir.path().join("store"))).events_per_cpu_second());
        let cassandra = ours(&few, Store::Cassandra(node.clone(), format!("beside_{run}")));
        note(&CASSANDRA, cassandra.rows as f64 / cassandra.cpu_s);
        keep(&rates);
    }
    Ok(())
}

/// Keeps the medians for later runs of `make bench`.
fn keep(rates: &BTreeMap<&str, Vec<f64>>) {
    let medians: BTreeMap<&str, f64> = rates.iter().map(|(name, values)| (*name, median(values))).collect();
    std::fs::create_dir_all(results_dir()).unwrap();
    std::fs::write(results_dir().join("peers.json"), serde_json::to_vec_pretty(&medians).unwrap()).unwrap();
}

/// Where Maven puts what it builds.
fn built() -> PathBuf {
    results_dir().join("peers")
}

/// Has Maven build the jobs.
fn build() -> Result<(), Missing> {
    eprintln!("building the jobs of other engines");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "package"]).arg(format!("-Dout={}", built().display())).current_dir(source);
    match maven.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Missing(format!("Maven could not build bench/peers ({status})"))),
        Err(error) => Err(Missing(format!("Maven is missing (mvn: {error}); install it with: sudo apt-get install -y maven"))),
    }
}

impl Job {
    /// Runs it to its end.
    fn run(&self, topic: &Topic, cassandra: &str, dir: &Path) -> Report {
        let module = built().join(self.module);
        let jars = format!("{0}/{1}-1.jar:{0}/lib/*", module.display(), self.module);
        let work = dir.join(self.name);
        std::fs::create_dir_all(&work).unwrap();
        let mut java = Command::new("java");
        java.args(["-Xmx2g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"])
            .args(["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"])
            .args(["-cp", &jars, self.class])
            .args(self.args)
            .env("KAFKA", &topic.brokers)
            .env("TOPIC", &topic.name)
            .env("EVENTS", topic.expected.events.to_string())
            .env("CASSANDRA", cassandra)
            .env("WORK", &work);
        let output = java.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{} failed: {}", self.name, output.status);
        let said = String::from_utf8(output.stdout).unwrap();
        let report: Report = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap();
        let counted = Expected { events: report.events, checksum: report.checksum };
        assert_eq!(counted, topic.expected, "{} has not counted what was sent", self.name);
        report
    }
}
