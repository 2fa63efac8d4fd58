//! What happens to a topic: partitions added, bytes that are no event, made anew, cut short by retention.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use schemas::DeadLetter;
use serde_json::Value;

use crate::notes::{Click, now_ms};
use crate::recount::Messages;
use crate::scene::{Bounds, Scene, alone, under_load};
use crate::small::Small;
use crate::stage::{SOURCES, clusters, migrate};
use crate::support::await_some;
use crate::verdict::get;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const BOUNDS: Bounds =
    Bounds { fresh: Duration::from_secs(10), silence_of_log: Duration::from_secs(5), silence_of_answers: Duration::from_secs(3) };

/// A plain producer, as any other program may have one.
struct Plain {
    producer: BaseProducer,
    topic: String,
}

impl Plain {
    fn new(topic: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", clusters().0.direct()).set("acks", "all");
        Self { producer: config.create().unwrap(), topic: topic.to_owned() }
    }

    /// Puts bytes into a partition.
    fn put(&self, partition: i32, content_type: Option<&str>, payload: &[u8]) {
        let mut record = BaseRecord::<(), [u8]>::to(&self.topic).partition(partition).payload(payload);
        if let Some(content_type) = content_type {
            record = record.headers(OwnedHeaders::new().insert(Header { key: "content-type", value: Some(content_type) }));
        }
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// An event, noted.
    fn put_click(&self, scene: &Scene, partition: i32, id: &str) {
        let click = Click { id: format!("{}-{id}", self.topic), video: "direct".into(), space: None, ts_ms: now_ms() };
        scene.notes.sent(std::slice::from_ref(&click));
        self.put(partition, None, click.json().trim_end().as_bytes());
        scene.notes.acknowledged(1);
    }
}

#[test]
fn partitions_that_are_added_while_it_runs_are_counted() {
    under_load("partitions added", BOUNDS, |scene| {
        let (kafka, _) = clusters();
        let struck = Instant::now();
        kafka.tool(TOPICS, &["--alter", "--topic", &scene.name, "--partitions", &(SOURCES + 2).to_string()]).unwrap();
        let plain = Plain::new(&scene.name);
        for partition in SOURCES..SOURCES + 2 {
            for number in 0..50 {
                plain.put_click(scene, i32::try_from(partition).unwrap(), &format!("added-{partition}-{number}"));
            }
        }
        scene.struck(struck);
        await_some("the new partitions have owners", || (scene.owners().iter().flatten().count() == 8).then_some(()));
    });
}

#[test]
fn a_poisoned_record_is_a_dead_letter_and_its_neighbours_count() {
    under_load("poisoned records", BOUNDS, |scene| {
        const POISONS: [(Option<&str>, &[u8]); 4] = [
            (None, b"\xff\xfe no json at all \x00"),
            (None, b"{\"event_id\":\"half"),
            (Some("application/json"), b""),
            (Some("application/x-nobody-knows-poison"), b"\x01\x02\x03 poison of an unknown type"),
        ];
        let rejected =
            |scene: &Scene| get(scene.query.address(), "/v1/status").pointer("/totals/tally/rejected").and_then(Value::as_u64).unwrap();
        let before = rejected(scene);
        let plain = Plain::new(&scene.name);
        let struck = Instant::now();
        for (number, (content_type, poison)) in POISONS.iter().enumerate() {
            plain.put_click(scene, 2, &format!("before-{number}"));
            plain.put(2, *content_type, poison);
            plain.put_click(scene, 2, &format!("after-{number}"));
        }
        let good = Click { id: format!("{}-among-lines", scene.name), video: "direct".into(), space: None, ts_ms: now_ms() };
        scene.notes.sent(std::slice::from_ref(&good));
        plain.put(2, Some("application/x-ndjson"), format!("not a line of json\n{}\n", good.json().trim_end()).as_bytes());
        scene.notes.acknowledged(1);
        scene.struck(struck);
        await_some("the poison is rejected", || (rejected(scene) == before + 5).then_some(()));
        let letters = Messages::new(&clusters().0.direct(), &format!("{}.rejected", scene.name)).all();
        let letters: Vec<DeadLetter> = letters.iter().map(|payload| DeadLetter::decode(payload).unwrap()).collect();
        for poison in POISONS.iter().map(|(_, poison)| *poison).chain([b"not a line of json".as_slice()]) {
            let kept = letters.iter().any(|letter| letter.original.bytes().is_some_and(|bytes| *bytes == *poison));
            assert!(kept, "{:?} is in no dead letter: {letters:#?}", String::from_utf8_lossy(poison));
        }
    });
}

#[test]
fn a_topic_that_was_deleted_and_made_anew_is_refused_loudly() {
    alone(|| {
        let (kafka, _) = clusters();
        let mut small = Small::start("recreated");
        small.send(2_000);
        small.await_counted(2_000);
        kafka.tool(TOPICS, &["--delete", "--topic", &small.name]).unwrap();
        await_some("the topic is gone", || {
            (!kafka.tool(TOPICS, &["--list"]).unwrap().lines().any(|topic| topic == small.name)).then_some(())
        });
        let create = ["--create", "--topic", &small.name, "--partitions", "6", "--config", "message.timestamp.type=LogAppendTime"];
        kafka.tool(TOPICS, &create).unwrap();
        let struck = Instant::now();

        // Who runs must not go on as if nothing had happened.
        let (status, said) = await_some("the aggregator gives up", || small.aggregator.ended());
        assert!(!status.success() && said.contains(&small.name), "{status}: {said}");
        // Nor may a collector go on for longer than it takes to notice: what it acknowledges now is in a topic that nobody counts.
        let refusal = await_some("the collector refuses events", || small.try_send(1).err());
        let noticed = struck.elapsed();
        assert!(noticed < Duration::from_secs(20), "the collector took {noticed:?} to notice: {refusal}");
        // Nor who starts.
        small.aggregator.start();
        let (status, said) = await_some("the aggregator refuses to start", || small.aggregator.ended());
        assert!(!status.success() && said.contains("belongs to log"), "{status}: {said}");
        let (done, said) = migrate(&small.name);
        assert!(!done && said.contains("belongs to log"), "{said}");
        // A query goes on: what was counted before needs no log.
        assert_eq!(small.counted(), 2_000, "the counts have changed");
        small.query.await_ready();
    });
}

#[test]
fn retention_that_overtakes_the_checkpoint_is_refused_loudly_until_the_gap_is_accepted() {
    alone(|| {
        let (kafka, _) = clusters();
        let mut small = Small::start("overtaken");
        // Of a minute that is closed: what is counted of an open one goes with the records that it would be rebuilt from.
        small.send_late(1_000, 3_600_000);
        small.await_counted(1_000);
        small.aggregator.stop();
        small.send(1_000);
        let partitions: Vec<String> =
            (0..SOURCES).map(|partition| format!("{{\"topic\":\"{}\",\"partition\":{partition},\"offset\":-1}}", small.name)).collect();
        let file = small.directory.path().join("delete.json");
        std::fs::write(&file, format!("{{\"version\":1,\"partitions\":[{}]}}", partitions.join(","))).unwrap();
        kafka.tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", file.to_str().unwrap()]).unwrap();

        small.aggregator.start();
        let (status, said) = await_some("the aggregator refuses to start", || small.aggregator.ended());
        assert!(!status.success() && said.contains("accept-gap") && said.contains("offset"), "{status}: {said}");
        assert_eq!(small.counted(), 1_000);

        small.aggregator.add("--accept-gap");
        small.aggregator.start_ready();
        small.send(500);
        small.await_counted(1_500);
    });
}
