//! The log on Kafka where it differs from others: topics, foreign producers, several readers, faults of the cluster.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "in a test a failed expectation is a panic"
)]

mod kafka_support;

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest::conformance::{UNLIMITED, read_all};
use ingest::kafka::topics::{TopicSpec, create};
use ingest::kafka::{AppendTimes, KafkaLog, KafkaOptions};
use ingest::{EventLog, LogError, ReadLimit};
use kafka_support::{admin, blocking, fill, fresh, numbered, open, options, spec, topic, until, with};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use schemas::{Millis, NewRecord, Offset, RecordKind, Source};

const A: Source = Source(0);
const B: Source = Source(1);
const SOON: Duration = Duration::from_secs(20);
const HERE: ReadLimit = ReadLimit { patience: Duration::ZERO, ..UNLIMITED };

/// Reads what is here without patience until `end`, as a fold does; each record must be `numbered` by its offset.
fn read_like_a_fold(log: &KafkaLog, source: Source, mut next: Offset, end: Offset) -> u64 {
    let (mut read, mut seen) = (0, 0);
    let began = Instant::now();
    while next < end {
        assert!(began.elapsed() < SOON * 2, "stands at {next} of {end}");
        let after = log
            .read(source, next, HERE, &mut |record| {
                assert_eq!(record.payload, numbered(record.offset.0).payload, "offset {}", record.offset);
                read += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        if after == next {
            seen = log.wait(seen, Duration::from_millis(100));
        }
        next = after;
    }
    read
}

fn producer(properties: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", test_servers::kafka().bootstrap());
    for (key, value) in properties {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_a_source_at_other_places_do_not_disturb_each_other() {
    if test_servers::skipped() {
        return;
    }
    const COUNT: u64 = 100_000;
    let log = open(&topic(2).await).await.unwrap();
    fill(&log, A, COUNT).await;
    let fold = {
        let log = Arc::clone(&log);
        std::thread::spawn(move || (0..3).map(|_| read_like_a_fold(&log, A, Offset(0), Offset(COUNT))).collect::<Vec<_>>())
    };
    // More readers than there are lanes, each of them leaping about.
    let visitors: Vec<_> = (0..6u64)
        .map(|visitor| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for n in 0..25u64 {
                    let from = (visitor.wrapping_mul(7_919).wrapping_add(n.wrapping_mul(104_729))) % (COUNT - 10);
                    let limit = ReadLimit { records: 1 + (n as usize * 37) % 900, patience: SOON, ..UNLIMITED };
                    let (mut expected, mut lent) = (from, 0);
                    let next = log.read(A, Offset(from), limit, &mut |record| {
                        assert_eq!((record.offset.0, record.payload), (expected, &*numbered(expected).payload));
                        expected += 1;
                        lent += 1;
                        ControlFlow::Continue(())
                    });
                    assert_eq!(next.unwrap(), Offset(expected));
                    assert!(lent > 0);
                }
            })
        })
        .collect();
    blocking(move || visitors.into_iter().for_each(|visitor| visitor.join().unwrap())).await;
    assert_eq!(blocking(move || fold.join().unwrap()).await, [COUNT; 3]);
    assert_eq!(log.failure(), None, "no record came past its reader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_million_records_are_read_in_one_go() {
    if test_servers::skipped() {
        return;
    }
    const COUNT: u64 = 500_000;
    let log = open(&topic(1).await).await.unwrap();
    fill(&log, A, COUNT).await;
    let reader = Arc::clone(&log);
    let took = blocking(move || {
        let began = Instant::now();
        assert_eq!(read_like_a_fold(&reader, A, Offset(0), Offset(COUNT)), COUNT);
        began.elapsed()
    })
    .await;
    println!("{COUNT} records read in {took:?}");
    assert!(took < SOON, "a fetch that waits for nothing takes this long: {took:?}");
}

/// Records 0 to `COUNT`, which are more than a reader takes from librdkafka at once; and a log that has not read them yet.
async fn taken_in_several_goes() -> (Arc<KafkaLog>, u64) {
    const COUNT: u64 = 5_000;
    let log = open(&topic(2).await).await.unwrap();
    fill(&log, A, COUNT).await;
    (log, COUNT)
}

/// Lends records until `stop` says yes, and returns their offsets. They must be `numbered` by these.
fn lend_until(log: &KafkaLog, from: u64, limit: ReadLimit, mut stop: impl FnMut(u64) -> bool) -> Vec<u64> {
    let mut lent = Vec::new();
    let next = log.read(A, Offset(from), limit, &mut |record| {
        assert_eq!(record.payload, numbered(record.offset.0).payload);
        lent.push(record.offset.0);
        if stop(record.offset.0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(next.unwrap().0, lent.last().map_or(from, |last| last + 1));
    lent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_anywhere_goes_on_there_and_nothing_is_lost_or_lent_twice() {
    if test_servers::skipped() {
        return;
    }
    let (log, count) = taken_in_several_goes().await;
    blocking(move || {
        let few = |records, bytes| ReadLimit { records, bytes, ..UNLIMITED };
        for patience in [SOON, Duration::ZERO] {
            let (mut lent, mut step, began) = (Vec::new(), 0, Instant::now());
            while (lent.len() as u64) < count {
                assert!(began.elapsed() < SOON, "stands at {}", lent.len());
                step += 1;
                // By a break after 1 to 700 records, by their number, or by their bytes.
                let stop_at = lent.len() as u64 + step * 97 % 700;
                let limit = match step % 3 {
                    0 => UNLIMITED,
                    1 => few(1 + step as usize * 31 % 600, usize::MAX),
                    _ => few(usize::MAX, 1 + step as usize * 7_919 % 40_000),
                };
                lent.extend(lend_until(&log, lent.len() as u64, ReadLimit { patience, ..limit }, |offset| offset >= stop_at));
            }
            assert_eq!(lent, (0..count).collect::<Vec<_>>());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_leaps_gets_what_is_there_and_nothing_of_where_it_was() {
    if test_servers::skipped() {
        return;
    }
    let (log, count) = taken_in_several_goes().await;
    blocking(move || {
        for patience in [SOON, Duration::ZERO] {
            // Forwards by little (what is there has been taken already), forwards by much, and back.
            for from in [0, 3, 40, 4_000, 10, 11, 700, 0, count - 1, 0] {
                let (limit, began) = (ReadLimit { patience, ..UNLIMITED }, Instant::now());
                let mut lent = Vec::new();
                while lent.is_empty() {
                    assert!(began.elapsed() < SOON, "nothing at {from}");
                    lent = lend_until(&log, from, limit, |offset| offset > from);
                }
                assert!([from, from + 1].starts_with(&lent), "{lent:?} at {from}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_benchmarks_topic_keeps_the_times_of_its_producer() {
    if test_servers::skipped() {
        return;
    }
    let by_producers = KafkaOptions { append_times: AppendTimes::Producer, ..options(&fresh("dated")) };
    let (making, spec) = (by_producers.clone(), spec(&by_producers.topic, 2));
    blocking(move || create(&making, &[spec]).unwrap()).await;
    let by_brokers = KafkaOptions { append_times: AppendTimes::Broker, ..by_producers.clone() };
    let refused = open(&by_brokers).await.err().unwrap();
    assert!(matches!(&refused, LogError::Open { detail, .. } if detail.contains("LogAppendTime")), "{refused}");
    let log = open(&by_producers).await.unwrap();
    let foreign = producer(&[]);
    for time in [1_000_000, 2_000_000] {
        let record = BaseRecord::<(), str>::to(&by_producers.topic).partition(0).payload("{}").timestamp(time);
        foreign.send(record).map_err(|(error, _)| error).unwrap();
    }
    blocking(move || {
        foreign.flush(SOON).unwrap();
        let times: Vec<_> = read_all(&*log, A, Offset(0)).unwrap().iter().map(|kept| kept.append_time).collect();
        assert_eq!(times, [Millis(1_000_000), Millis(2_000_000)]);
        assert_eq!(log.first_at_or_after(A, Millis(1_500_000)).unwrap(), Offset(1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_any_producer_are_records() {
    if test_servers::skipped() {
        return;
    }
    const LONG: &str = concat!(
        "a-header-whose-key-and-value-are-longer-than-a-length-of-one-byte-can-say-which-is-sixty-three-bytes-",
        "and-so-takes-two-bytes-of-length-before-each-of-them"
    );
    let options = topic(2).await;
    let log = open(&options).await.unwrap();
    let foreign = producer(&[]);
    let send = |headers: Option<OwnedHeaders>, payload: Option<&str>| {
        let mut record = BaseRecord::<str, str>::to(&options.topic).partition(0).key("a key");
        record.payload = payload;
        record.headers = headers;
        foreign.send(record).map_err(|(error, _)| error).unwrap();
    };
    let header = |key, value: &'static str| Header { key, value: Some(value) };
    send(None, Some("{\"plain\":1}"));
    send(Some(OwnedHeaders::new().insert(header("traceparent", "00-1"))), Some("{\"traced\":1}"));
    send(Some(OwnedHeaders::new().insert(header("Content-Type", "application/x-ndjson"))), Some("{}\n{}"));
    send(Some(OwnedHeaders::new().insert(header("tallymark-historical", "1"))), Some("{\"old\":1}"));
    send(Some(OwnedHeaders::new().insert(header("content-type", "image/png"))), Some("PNG"));
    // Lengths of two bytes, a value that is null and one that is empty, and then what counts.
    let many = OwnedHeaders::new().insert(header(LONG, LONG)).insert(Header::<&str> { key: "null", value: None }).insert(header("", ""));
    send(Some(many.insert(header("content-type", "application/x-ndjson"))), Some("{}"));
    send(None, None);
    blocking(move || foreign.flush(SOON).unwrap()).await;
    let reader = Arc::clone(&log);
    let kept = blocking(move || read_all(&*reader, A, Offset(0)).unwrap()).await;
    let read: Vec<_> = kept.iter().map(|kept| (kept.record.kind, kept.record.historical, kept.record.payload.as_slice())).collect();
    assert_eq!(
        read,
        [
            (RecordKind::Json, false, &b"{\"plain\":1}"[..]),
            (RecordKind::Json, false, b"{\"traced\":1}"),
            (RecordKind::Ndjson, false, b"{}\n{}"),
            (RecordKind::Json, true, b"{\"old\":1}"),
            (RecordKind::Unknown(0), false, b"PNG"),
            (RecordKind::Ndjson, false, b"{}"),
            (RecordKind::Json, false, b""),
        ]
    );
    assert!(kept[0].append_time.since(Millis::now()).abs() < 3_600_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kcat_sends_is_read() {
    if test_servers::skipped() {
        return;
    }
    let options = topic(2).await;
    let log = open(&options).await.unwrap();
    let kcat =
        Command::new("kcat").args(["-P", "-b", &options.brokers, "-t", &options.topic, "-p", "1", "-K", ":"]).stdin(Stdio::piped()).spawn();
    let Ok(mut kcat) = kcat else {
        eprintln!("kcat is not installed: what_kcat_sends_is_read did not run");
        return;
    };
    kcat.stdin.take().unwrap().write_all(b"k1:{\"event_id\":\"1\"}\nk2:{\"event_id\":\"2\"}\n").unwrap();
    assert!(kcat.wait().unwrap().success());
    let kept = blocking(move || read_all(&*log, B, Offset(0)).unwrap()).await;
    let read: Vec<NewRecord> = kept.into_iter().map(|kept| kept.record).collect();
    assert_eq!(read, ["{\"event_id\":\"1\"}", "{\"event_id\":\"2\"}"].map(|json| NewRecord::new(RecordKind::Json, json)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_cannot_be_a_log_are_refused_with_what_mends_it() {
    if test_servers::skipped() {
        return;
    }
    let missing = open(&options(&fresh("missing"))).await.err().unwrap();
    assert!(matches!(&missing, LogError::Open { detail, .. } if detail.contains("tallymark migrate")), "{missing}");
    for (key, value, mends) in [
        ("message.timestamp.type", "CreateTime", "--add-config message.timestamp.type=LogAppendTime"),
        ("cleanup.policy", "compact", "--add-config cleanup.policy=delete"),
        ("max.message.bytes", "100000", "--add-config max.message.bytes=2097152"),
    ] {
        let options = options(&fresh("wrong"));
        let mut settings = BTreeMap::from([("message.timestamp.type", "LogAppendTime")]);
        settings.insert(key, value);
        let mut new = NewTopic::new(&options.topic, 2, TopicReplication::Fixed(1));
        new.config = settings.into_iter().collect();
        assert!(admin().create_topics([&new], &AdminOptions::new()).await.unwrap()[0].is_ok());
        let reader = options.clone();
        until(
            "the topic is there",
            SOON,
            move || matches!(KafkaLog::open(reader.clone()), Err(LogError::Open { detail, .. }) if detail.contains(mends)),
        )
        .await;
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(&options.topic));
        for (key, value) in [("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "delete"), ("max.message.bytes", "2097152")] {
            alter = alter.set(key, value);
        }
        assert!(admin().alter_configs([&alter], &AdminOptions::new()).await.unwrap()[0].is_ok());
        until("the mended topic opens", SOON, move || KafkaLog::open(options.clone()).is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_once_and_held_to_what_they_should_be() {
    if test_servers::skipped() {
        return;
    }
    let options = options(&fresh("made"));
    let good = spec(&options.topic, 3);
    let make = |spec: TopicSpec| {
        let options = options.clone();
        blocking(move || create(&options, &[spec]))
    };
    assert!(make(good.clone()).await.unwrap()[0].contains("made with 3 partitions"));
    assert!(make(good.clone()).await.unwrap()[0].contains("exists"));
    assert!(
        make(TopicSpec { partitions: 2, ..good.clone() }).await.unwrap()[0].contains("1 were added"),
        "partitions may be added to a topic"
    );
    for (other, mends) in [
        (TopicSpec { partitions: 5, ..good.clone() }, "--partitions 5"),
        (TopicSpec { retention_ms: 1_000_000, ..good.clone() }, "--add-config retention.ms=1000000"),
        (TopicSpec { replication: 3, ..good.clone() }, "ask for 1"),
    ] {
        let error = make(other).await.unwrap_err();
        assert!(matches!(&error, LogError::Open { detail, .. } if detail.contains(mends)), "{error}");
    }
    let too_many = make(TopicSpec { name: fresh("made"), replication: 3, ..good }).await.unwrap_err();
    assert!(matches!(too_many, LogError::Open { .. }), "{too_many}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_again_fails_the_log() {
    if test_servers::skipped() {
        return;
    }
    let options = with(&topic(2).await, &[("topic.metadata.refresh.interval.ms", "300")]);
    let log = open(&options).await.unwrap();
    let first_id = log.id();
    fill(&log, A, 10).await;
    let failed = log.on_failure();
    assert!(admin().delete_topics(&[&options.topic], &AdminOptions::new()).await.unwrap()[0].is_ok());
    let (making, again) = (options.clone(), spec(&options.topic, 2));
    until("it is made again", SOON, move || create(&making, std::slice::from_ref(&again)).is_ok()).await;
    let cause = tokio::time::timeout(SOON, failed).await.unwrap();
    assert!(cause.contains("made again"), "{cause}");
    assert!(matches!(log.append(A, vec![numbered(0)]).await, Err(LogError::Failed(_))));
    let reader = Arc::clone(&log);
    assert!(blocking(move || matches!(reader.read(A, Offset(0), HERE, &mut |_| panic!("lent")), Err(LogError::Failed(_)))).await);
    assert_ne!(open(&options).await.unwrap().id(), first_id, "another log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_become_sources() {
    if test_servers::skipped() {
        return;
    }
    let options = with(&topic(2).await, &[("topic.metadata.refresh.interval.ms", "300")]);
    let log = open(&options).await.unwrap();
    fill(&log, A, 10).await;
    let membership = log.join().unwrap();
    assert!(matches!(log.append(Source(4), vec![numbered(0)]).await, Err(LogError::NoSource(_))));
    assert!(admin().create_partitions([&NewPartitions::new(&options.topic, 5)], &AdminOptions::new()).await.unwrap()[0].is_ok());
    let grown = Arc::clone(&log);
    until("five sources", SOON, move || grown.sources().get() == 5).await;
    fill(&log, Source(4), 10).await;
    let reader = Arc::clone(&log);
    assert_eq!(blocking(move || read_like_a_fold(&reader, Source(4), Offset(0), Offset(10))).await, 10);
    until("all are assigned", SOON, move || membership.assigned(0, Duration::ZERO).sources.len() == 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_were_deleted_are_gone_and_an_end_that_fell_is_a_truncation() {
    if test_servers::skipped() {
        return;
    }
    let options = topic(2).await;
    let log = open(&options).await.unwrap();
    fill(&log, A, 1_000).await;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&options.topic, 0, Position::Offset(600)).unwrap();
    admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    blocking(move || {
        let none = |error: Result<Offset, LogError>| error.err().unwrap();
        assert!(matches!(none(log.read(A, Offset(599), UNLIMITED, &mut |_| panic!("lent"))), LogError::Gone { start: Offset(600), .. }));
        assert_eq!(log.ends(A).unwrap().start, Offset(600));
        assert_eq!(log.first_at_or_after(A, Millis::NEVER).unwrap(), Offset(600));
        // Without patience the broker's answer comes later.
        let told = |from| {
            let (began, mut seen) = (Instant::now(), 0);
            loop {
                match log.read(A, from, HERE, &mut |_| panic!("lent")) {
                    Ok(_) => seen = log.wait(seen, Duration::from_millis(100)),
                    Err(error) => return error,
                }
                assert!(began.elapsed() < SOON, "nothing was told");
            }
        };
        assert!(matches!(told(Offset(10)), LogError::Gone { asked: Offset(10), start: Offset(600), .. }));
        assert!(matches!(told(Offset(2_000)), LogError::Truncated(_)));
        assert_eq!(read_like_a_fold(&log, A, Offset(600), Offset(1_000)), 400);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_that_transactions_leave_are_passed() {
    if test_servers::skipped() {
        return;
    }
    let options = topic(2).await;
    let log = open(&options).await.unwrap();
    blocking(move || {
        let producer = producer(&[("transactional.id", &options.topic)]);
        producer.init_transactions(SOON).unwrap();
        // Records at 0, 2 and 4, markers after each; the second is aborted.
        for n in 0..3 {
            producer.begin_transaction().unwrap();
            let payload = format!("{{\"n\":{n}}}");
            producer.send(BaseRecord::<(), str>::to(&options.topic).partition(0).payload(&payload)).map_err(|(error, _)| error).unwrap();
            producer.flush(SOON).unwrap();
            if n == 1 { producer.abort_transaction(SOON).unwrap() } else { producer.commit_transaction(SOON).unwrap() }
        }
        until_ends_at(&log, Offset(6));
        for _ in 0..3 {
            for from in 0..6 {
                let mut lent = Vec::new();
                let next = log.read(A, Offset(from), UNLIMITED, &mut |record| {
                    lent.push(record.offset.0);
                    ControlFlow::Continue(())
                });
                assert_eq!(next.unwrap(), Offset(6), "all below the end has been passed");
                assert_eq!(lent, [0, 4].into_iter().filter(|offset| *offset >= from).collect::<Vec<_>>());
            }
        }
    })
    .await;
}

fn until_ends_at(log: &KafkaLog, end: Offset) {
    let began = Instant::now();
    while log.ends(A).unwrap().end < end {
        assert!(began.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_is_refused_whole_when_it_is_too_large_or_too_much_waits() {
    if test_servers::skipped() {
        return;
    }
    // Nothing leaves before a second has passed: what is appended waits.
    let slow = [("linger.ms", "1000"), ("queue.buffering.max.kbytes", "100")];
    let log = open(&with(&topic(2).await, &slow)).await.unwrap();
    let large = NewRecord::new(RecordKind::Json, vec![b'x'; 3 << 20]);
    let refused = log.append(A, vec![numbered(0), large]).await;
    assert!(matches!(refused, Err(LogError::TooLarge { bytes: 3_145_728, .. })), "{refused:?}");
    let part = || (0..100).map(numbered).collect::<Vec<_>>();
    let (first, second) = (log.append(A, part()), log.append(A, part()));
    let busy = log.append(A, [part(), part()].concat()).await;
    assert!(matches!(busy, Err(LogError::Busy { waiting_bytes: 1.. })), "{busy:?}");
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.first, first.next, second.next), (Offset(0), Offset(100), Offset(200)));
    assert_eq!(blocking(move || log.ends(A).unwrap().end).await, Offset(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_writes_what_waits_and_takes_no_more() {
    if test_servers::skipped() {
        return;
    }
    let log = open(&with(&topic(2).await, &[("linger.ms", "500")])).await.unwrap();
    let waiting = log.append(A, vec![numbered(0)]);
    let closing = Arc::clone(&log);
    blocking(move || closing.close()).await;
    assert_eq!(waiting.await.unwrap().next, Offset(1));
    assert!(matches!(log.append(A, vec![numbered(1)]).await, Err(LogError::Failed(_))));
    assert_eq!(log.failure(), None, "closing well is no failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_away_is_unavailable_and_nothing_has_failed_when_it_is_back() {
    if test_servers::skipped() {
        return;
    }
    let away = KafkaOptions { brokers: "127.0.0.1:1".into(), ..options("views") };
    assert!(matches!(open(&away).await, Err(LogError::Unavailable(_))));
    let cluster = Arc::new(blocking(|| test_servers::KafkaCluster::start(1)).await);
    let options = KafkaOptions { brokers: cluster.bootstrap(), ..options(&fresh("away")) };
    let options = with(&options, &[("message.timeout.ms", "3000")]);
    let (making, spec) = (options.clone(), spec(&options.topic, 2));
    blocking(move || create(&making, &[spec]).unwrap()).await;
    let log = open(&options).await.unwrap();
    fill(&log, A, 100).await;
    let reader = Arc::clone(&log);
    assert_eq!(blocking(move || read_like_a_fold(&reader, A, Offset(0), Offset(100))).await, 100);
    cluster.kill(0);
    let began = Instant::now();
    let refused = log.append(A, vec![numbered(100)]).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < SOON);
    let reader = Arc::clone(&log);
    blocking(move || {
        assert_eq!(reader.read(A, Offset(100), HERE, &mut |_| panic!("lent")).unwrap(), Offset(100), "without patience, none is no error");
        assert!(matches!(reader.read(A, Offset(0), UNLIMITED, &mut |_| panic!("lent")), Err(LogError::Unavailable(_))));
        assert!(matches!(reader.ends(A), Err(LogError::Unavailable(_))));
    })
    .await;
    assert_eq!(log.failure(), None);
    let back = Arc::clone(&cluster);
    blocking(move || {
        back.restart(0);
        back.wait_ready(0);
    })
    .await;
    let appended = loop {
        match log.append(A, vec![numbered(100)]).await {
            Ok(appended) => break appended,
            Err(LogError::Unavailable(_)) if began.elapsed() < SOON * 3 => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(blocking(move || read_like_a_fold(&log, A, Offset(0), Offset(appended.next.0.min(101)))).await, 101);
}
