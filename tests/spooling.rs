//! A collector with a spool while a real Kafka goes away, comes back, and the collector itself is killed: what was acknowledged is in the
//! log once.

#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ingest::kafka::topics::{self, TopicSpec};
use ingest::kafka::{AppendTimes, KafkaLog, KafkaOptions};
use ingest::{EventLog, ReadLimit};
use schemas::view_batch::EventId;
use schemas::{RecordKind, Source, ViewBatch};
use serde_json::{Value, json};
use support::{Server, await_some};
use test_servers::KafkaCluster;

const SOURCES: u32 = 2;
const EVENTS_IN_A_REQUEST: usize = 10;

/// Sends requests of new events, each once, and remembers what became of them.
#[derive(Default)]
struct Sender {
    sent: usize,
    acknowledged: BTreeSet<String>,
    spooled: u64,
}

impl Sender {
    /// One request; whether it was acknowledged.
    fn send(&mut self, http: &reqwest::blocking::Client, url: &str) -> bool {
        let ids: Vec<String> = (0..EVENTS_IN_A_REQUEST).map(|n| format!("e{}", self.sent + n)).collect();
        self.sent += EVENTS_IN_A_REQUEST;
        let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        let event = |(n, id): (usize, &String)| json!({ "event_id": id, "video_id": format!("v{}", n % 7), "ts": now_ms });
        let events: Vec<Value> = ids.iter().enumerate().map(event).collect();
        let Ok(answer) = http.post(url).json(&events).send() else { return false };
        if answer.status() != 202 {
            assert_eq!(answer.status(), 503);
            return false;
        }
        let answer: Value = answer.json().unwrap();
        self.spooled += answer["spooled"].as_u64().unwrap_or_default();
        self.acknowledged.extend(ids);
        true
    }

    /// Sends until `enough`, which must come about within a minute.
    fn until(&mut self, server: &Server, what: &str, enough: impl Fn(&Self) -> bool) {
        // An append that meets the outage is answered after 15 s; here nobody waits for that.
        let http = reqwest::blocking::Client::builder().timeout(Duration::from_secs(3)).build().unwrap();
        let (url, begun) = (server.url("/v1/events"), Instant::now());
        while !enough(self) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{what}: {} acknowledged, {} spooled",
                self.acknowledged.len(),
                self.spooled
            );
            self.send(&http, &url);
        }
    }
}

/// How often each event is in the log.
fn in_the_log(options: &KafkaOptions) -> BTreeMap<String, usize> {
    let log = KafkaLog::open(options.clone()).unwrap();
    let mut times = BTreeMap::new();
    for source in (0..SOURCES).map(Source) {
        let ends = log.ends(source).unwrap();
        let (mut from, limit) = (ends.start, ReadLimit { records: 1_000, bytes: 1 << 20, patience: Duration::from_secs(10) });
        while from < ends.end {
            let each = &mut |record: schemas::Record<'_>| {
                if record.kind == RecordKind::ViewBatch {
                    for id in ViewBatch::read(record.payload).unwrap().event_ids() {
                        let EventId::Text(id) = id else { panic!("{id:?}") };
                        *times.entry(id.to_owned()).or_default() += 1;
                    }
                }
                ControlFlow::Continue(())
            };
            from = log.read(source, from, limit, each).unwrap();
        }
    }
    log.close();
    times
}

#[test]
fn what_is_acknowledged_while_kafka_is_away_is_in_the_log_once_whoever_is_killed() {
    if test_servers::skipped() {
        return;
    }
    let kafka = KafkaCluster::start(1);
    let options = KafkaOptions {
        brokers: kafka.bootstrap(),
        topic: "spooled".to_owned(),
        group: "spooled".to_owned(),
        client_id: "test".to_owned(),
        properties: BTreeMap::new(),
        append_times: AppendTimes::Broker,
    };
    let spec = TopicSpec { name: options.topic.clone(), partitions: SOURCES, replication: 1, min_insync: 1, retention_ms: -1 };
    topics::create(&options, &[spec]).unwrap();
    let data = tempfile::tempdir().unwrap();
    let (sources, dir) = (NonZeroU32::new(SOURCES).unwrap().to_string(), data.path().to_str().unwrap().to_owned());
    let brokers = kafka.bootstrap();
    let settings = ["--kafka-brokers", &brokers, "--kafka-topic", "spooled", "--sources", &sources, "--data", &dir, "--spool-size", "8MiB"];
    let mut collector = Server::of(&[&["collect"], &settings[..]].concat());
    let mut sender = Sender::default();
    sender.until(&collector, "while all is well", |sender| sender.acknowledged.len() >= 200);
    assert_eq!(sender.spooled, 0);

    kafka.kill(0);
    sender.until(&collector, "while Kafka is away", |sender| sender.spooled >= 1_000);
    let spooled = collector.metric("tallymark_collect_spooled_bytes");
    assert!(spooled > 0.0 && spooled < collector.metric("tallymark_collect_spool_max_bytes"), "{spooled}");
    // It still takes events, and says so.
    await_some("readiness", || (collector.get("/readyz").status() == 200).then_some(()));
    // The spool is what is on disk, not what is in memory.
    collector.kill();

    kafka.restart(0);
    kafka.wait_ready(0);
    collector.restart();
    // In the middle of draining, or after it: both must be well.
    collector.kill();
    collector.restart();
    let acknowledged = sender.acknowledged.len();
    sender.until(&collector, "when Kafka is back", |sender| sender.acknowledged.len() >= acknowledged + 200);
    await_some("an empty spool", || (collector.metric("tallymark_collect_spooled_bytes") == 0.0).then_some(()));

    let times = in_the_log(&options);
    let lost: Vec<_> = sender.acknowledged.iter().filter(|id| !times.contains_key(*id)).collect();
    let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(lost.is_empty() && doubled.is_empty(), "lost {lost:?}, doubled {doubled:?}");
}
