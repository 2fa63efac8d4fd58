//! How fast records are read from Kafka: `KafkaLog::read` beside a bare librdkafka consumer that only takes batches and counts.
//!
//! ```sh
//! cargo run --release -p tallymark-test-servers --example serve                    # a Kafka, if there is none
//! cargo run --release -p tallymark-ingest --example read_rate -- BROKERS TOPIC fill=3000000
//! cargo run --release -p tallymark-ingest --example read_rate -- BROKERS TOPIC rounds=5 log bare bare,check.crcs=true
//! ```
//!
//! Each word after the topic is a run, with properties of librdkafka's; all runs are repeated in turn. Prints for each the median of
//! the events per second of this process's CPU, from the first read on, and how it compares with the last run named. `fill=N,P,H`
//! first makes the topic with P partitions (2) and puts N JSON records of 160 bytes in the first H of them (all). `work=NS` has each
//! record of the log cost so many nanoseconds more, as a fold would: then look at the seconds, which say whether it starves.
//!
//! glibc gives memory back to the system whenever a queue is emptied, and asks for it again, which can be a third of all CPU; with
//! `MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=33554432` set, it does not, and runs are compared without that.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement: what fails ends it")]
#![allow(unsafe_code, reason = "the bare consumer is librdkafka's C API")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ingest::kafka::topics::{TopicSpec, create};
use ingest::kafka::{AppendTimes, KafkaLog, KafkaOptions};
use ingest::{EventLog, ReadLimit};
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset as Position, TopicPartitionList};
use schemas::{NewRecord, Offset, RecordKind, Source};

/// What the fold asks for.
const LIMIT: ReadLimit = ReadLimit { records: 1_000, bytes: 1 << 20, patience: Duration::ZERO };
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct Rate {
    events: u64,
    bytes: u64,
    cpu: f64,
    wall: f64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, rest @ ..] = words.as_slice() else { panic_usage() };
    let options = |properties: &str| {
        let properties = properties.split(',').filter_map(|pair| pair.split_once('='));
        let properties: BTreeMap<String, String> = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let (name, append_times) = ("read-rate".to_owned(), AppendTimes::Broker);
        KafkaOptions { brokers: brokers.clone(), topic: topic.clone(), group: name.clone(), client_id: name, properties, append_times }
    };
    let (mut rounds, mut work, mut runs) = (3, Duration::ZERO, Vec::new());
    for word in rest {
        match word.split_once('=') {
            Some(("rounds", count)) => rounds = count.parse().unwrap(),
            Some(("work", nanos)) => work = Duration::from_nanos(nanos.parse().unwrap()),
            Some(("fill", counts)) => fill(&options(""), &counts.split(',').map(|count| count.parse().unwrap()).collect::<Vec<_>>()),
            _ => runs.push(word.as_str()),
        }
    }
    let mut rates: Vec<Vec<Rate>> = vec![Vec::new(); runs.len()];
    for _ in 0..rounds {
        for (run, rates) in runs.iter().zip(&mut rates) {
            let (kind, properties) = run.split_once(',').unwrap_or((run, ""));
            rates.push(if kind == "log" { through_log(options(properties), work) } else { bare(&options(properties), kind) });
        }
    }
    let median = |rates: &[Rate], of: fn(&Rate) -> f64| {
        let mut values: Vec<f64> = rates.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let per_cpu = |rate: &Rate| as_f64(rate.events) / rate.cpu;
    for (run, of_run) in runs.iter().zip(&rates) {
        let rate = of_run[0];
        println!(
            "{run}: {:.0} events per CPU-second ({:.3} of the last), {:.2} s, {} events, {} bytes",
            median(of_run, per_cpu),
            median(of_run, per_cpu) / median(rates.last().unwrap(), per_cpu),
            median(of_run, |rate| rate.wall),
            rate.events,
            rate.bytes
        );
    }
}

/// Reads every source from its start to its end, as a fold does.
fn through_log(options: KafkaOptions, work: Duration) -> Rate {
    let log = KafkaLog::open(options).unwrap();
    let mut places: Vec<(Source, Offset, Offset)> = (0..log.sources().get())
        .map(|source| {
            let ends = log.ends(Source(source)).unwrap();
            (Source(source), ends.start, ends.end)
        })
        .collect();
    let (mut events, mut bytes, mut seen) = (0, 0, 0);
    let (began, cpu) = (Instant::now(), cpu_seconds());
    while places.iter().any(|(_, next, end)| next < end) {
        seen = log.wait(seen, Duration::ZERO);
        let mut moved = false;
        for (source, next, _) in &mut places {
            let after = log.read(*source, *next, LIMIT, &mut |record| {
                events += 1;
                bytes += as_u64(record.payload.len());
                spin(work);
                ControlFlow::Continue(())
            });
            let after = after.unwrap();
            moved |= after > *next;
            *next = after;
        }
        if !moved {
            log.wait(seen, Duration::from_secs(1));
        }
    }
    Rate { events, bytes, cpu: cpu_seconds() - cpu, wall: began.elapsed().as_secs_f64() }
}

fn spin(time: Duration) {
    if !time.is_zero() {
        let began = Instant::now();
        while began.elapsed() < time {}
    }
}

/// Takes batches of all partitions from the consumer's one queue, or has them called back.
fn bare(options: &KafkaOptions, kind: &str) -> Rate {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.brokers).set("group.id", "read-rate-bare");
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("max.partition.fetch.bytes", "262144").set("queued.min.messages", "20000").set("fetch.queue.backoff.ms", "1");
    for (key, value) in &options.properties {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(&options.topic), ANSWER_WITHIN).unwrap();
    let (mut assignment, mut expected) = (TopicPartitionList::new(), 0);
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(&options.topic, partition.id(), ANSWER_WITHIN).unwrap();
        expected += u64::try_from(high - low).unwrap();
        assignment.add_partition_offset(&options.topic, partition.id(), Position::Offset(low)).unwrap();
    }
    let (began, cpu) = (Instant::now(), cpu_seconds());
    consumer.assign(&assignment).unwrap();
    let (mut count, mut messages) = ([0; 2], vec![std::ptr::null_mut(); 10_000]);
    // SAFETY: The queue is the consumer's, which outlives it. `messages` has room for as many as are asked for; each of those that
    // are given is live until it is destroyed, once. The callback's argument is `count`, which it alone uses while it is called.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        while count[0] < expected {
            if kind == "callback" {
                sys::rd_kafka_consume_callback_queue(queue, 100, Some(called_back), (&raw mut count).cast());
                continue;
            }
            let got = sys::rd_kafka_consume_batch_queue(queue, 100, messages.as_mut_ptr(), messages.len());
            for message in &messages[..usize::try_from(got).unwrap()] {
                called_back(*message, (&raw mut count).cast());
                sys::rd_kafka_message_destroy(*message);
            }
        }
        sys::rd_kafka_queue_destroy(queue);
    }
    Rate { events: count[0], bytes: count[1], cpu: cpu_seconds() - cpu, wall: began.elapsed().as_secs_f64() }
}

/// Counts a message and its bytes.
unsafe extern "C" fn called_back(message: *mut sys::rd_kafka_message_t, count: *mut std::ffi::c_void) {
    // SAFETY: Both are what `bare` says, and nobody else uses them now.
    unsafe {
        let count = &mut *count.cast::<[u64; 2]>();
        count[0] += 1;
        count[1] += as_u64((*message).len);
    }
}

/// Makes the topic and appends records to it: how many, to how many partitions, to how many of these.
fn fill(options: &KafkaOptions, counts: &[u64]) {
    let count = counts[0];
    let partitions = counts.get(1).copied().unwrap_or(2);
    let hot = counts.get(2).copied().unwrap_or(partitions);
    let partitions = u32::try_from(partitions).unwrap();
    let spec = TopicSpec { name: options.topic.clone(), partitions, replication: 1, min_insync: 1, retention_ms: -1 };
    create(options, &[spec]).unwrap();
    let log = KafkaLog::open(options.clone()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for from in (0..count).step_by(50_000) {
            let batches = (from..count.min(from + 50_000)).step_by(500).map(|first| {
                let records = (first..count.min(first + 500)).map(|n| NewRecord::new(RecordKind::Json, event(n))).collect();
                log.append(Source(u32::try_from(first / 500 % hot).unwrap()), records)
            });
            assert!(join_all(batches).await.iter().all(Result::is_ok), "an append failed");
        }
    });
    log.close();
}

/// An event whose ids compress no better than real ones.
fn event(n: u64) -> String {
    let random = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (video, viewer) = (random >> 45, random.rotate_left(29) % 10_000_000);
    let event = format!(
        "{{\"event_id\":\"0190b5e2-7a4e-7c11-{:04x}-{:012x}\",\"video_id\":\"v{video}\",\"ts\":\"2026-11-20T12:{:02}:{:02}.{:03}Z\",\"viewer_id\":\"u{viewer}\"}}",
        random & 0xffff,
        random >> 16,
        n / 60_000 % 60,
        n / 1_000 % 60,
        n % 1_000
    );
    format!("{event:160}")
}

/// What this process has used of the CPU, in seconds: user's and system's, to a hundredth.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    after_name.split_ascii_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn as_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn panic_usage() -> ! {
    eprintln!("read_rate BROKERS TOPIC [fill=N[,PARTITIONS[,HOT]]] [rounds=N] [work=NS] [log|bare|callback][,PROPERTY=VALUE]...");
    std::process::exit(2)
}
