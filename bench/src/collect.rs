//! The collector of the real binary: events acknowledged durably, one to a request and by the hundred, on the embedded log and on Kafka.
//!
//! - `collect_single_*`: requests of one event each that are answered 202, for each CPU-second of the server, from 256 connections.
//!   `collect_single_*_rate` is how many that were in a second, with the clients (and the broker) on the same machine.
//! - `collect_batch_*_vs_parse`: events of requests of 100 each, per CPU-second, over those of a bare axum handler that takes the same
//!   requests in turn, decodes each event with the same decoder and keeps nothing.
//! - `sdk_call`, `sdk_rate`: what sending an event costs the program that does it, and how many events one process gets acknowledged by a
//!   collector that only counts lines (the example `rate` of the client).
//!
//! Embedded, the server is `tallymark run`: the same process also folds and stores what it took, and its CPU time is counted. On Kafka
//! it is `tallymark collect`.

use std::process::Command;
use std::time::Duration;

use schemas::Millis;

use crate::child::Task;
use crate::events::{Generator, Shape};
use crate::lab::{Lab, Missing};
use crate::load::{Load, Requests};
use crate::report::target_dir;
use crate::server::{Server, on_cluster};
use crate::usage::{cpu_seconds, settle};

/// A collector that is worth measuring has many clients: with few, what is measured is waking up for each.
const SINGLE_CONNECTIONS: usize = 256;
const BATCH_CONNECTIONS: usize = 64;
const BATCH: usize = 100;
/// So many different bodies are sent, each again and again with other event ids.
const BODIES: usize = 200;
/// All clients have one address here.
const UNLIMITED: [&str; 4] = ["--address-requests", "0", "--address-events", "0"];
/// The digits of an event id that number it: the last group of a UUID.
const DIGITS: usize = 12;

pub(crate) const EMBEDDED: &[&str] =
    &["collect_single_embedded", "collect_single_embedded_rate", "collect_batch_embedded_vs_parse", "collect_batch_embedded"];
pub(crate) const KAFKA: &[&str] =
    &["collect_single_kafka", "collect_single_kafka_rate", "collect_batch_kafka_vs_parse", "collect_batch_kafka"];

/// On the embedded log.
pub(crate) fn embedded(lab: &mut Lab) -> Result<(), Missing> {
    let server = Server::with(&UNLIMITED.map(str::to_owned));
    let mut sent = 0;
    rounds(lab, "the collector, embedded", &server, EMBEDDED, |more| {
        sent += more;
        server.await_counts(1, sent);
    });
    Ok(())
}

/// On Kafka.
pub(crate) fn kafka(lab: &mut Lab) -> Result<(), Missing> {
    let (brokers, node) = (lab.kafka()?.bootstrap(), lab.cassandra()?.contact());
    let args = [on_cluster(&brokers, &node, "collected"), UNLIMITED.map(str::to_owned).to_vec()].concat();
    let server = Server::playing("collect", &args);
    rounds(lab, "the collector, on Kafka", &server, KAFKA, |_| {});
    Ok(())
}

/// What both places have in common; `counted` is told how many events more were acknowledged, and waits until they are worked on.
fn rounds(lab: &mut Lab, what: &str, server: &Server, names: &[&'static str], mut counted: impl FnMut(u64)) {
    let lasting = Duration::from_secs(if lab.options.quick { 1 } else { 5 });
    let mut parse_only = Task::Parse.start();
    let parse_address = parse_only.line();
    lab.rounds(what, |run| {
        // Made anew, so that their times are of just now.
        let (single, batch) = (Bodies::new(1), Bodies::new(BATCH));
        let mut measured = |bodies: &Bodies, connections, address: &str, pid: &str, own: bool| {
            let cpu = cpu_seconds(pid);
            let (answers, seconds) = bodies.load(connections, run).flood(address, lasting);
            let events = answers * bodies.events as f64;
            if own {
                counted(events as u64);
            }
            settle(pid);
            (events / seconds, events / (cpu_seconds(pid) - cpu))
        };
        let (single_rate, single_cpu) = measured(&single, SINGLE_CONNECTIONS, &server.address, &server.pid(), true);
        let (_, batch_cpu) = measured(&batch, BATCH_CONNECTIONS, &server.address, &server.pid(), true);
        let (_, parse_cpu) = measured(&batch, BATCH_CONNECTIONS, &parse_address, &parse_only.pid(), false);
        vec![(names[0], single_cpu), (names[1], single_rate), (names[2], batch_cpu / parse_cpu), (names[3], batch_cpu)]
    });
}

/// Requests that are made before they are sent.
struct Bodies {
    events: usize,
    /// Whole requests, and where in each the numbers of its events are.
    requests: Vec<(Vec<u8>, Vec<usize>)>,
}

impl Bodies {
    fn new(events: usize) -> Self {
        let mut generator = Generator::new(&Shape::traffic(1));
        let now = Millis::now().0;
        let request = |_| {
            let mut body = Vec::new();
            let mut numbers = Vec::new();
            for _ in 0..events {
                let view = generator.at(now);
                numbers.push(body.len() + r#"{"event_id":""#.len() + view.event_id().to_string().len() - DIGITS);
                view.write_json(&mut body);
                body.push(b'\n');
            }
            let head = "POST /v1/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-ndjson\r\n";
            let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
            numbers.iter_mut().for_each(|at| *at += head.len());
            ([head.as_bytes(), &body].concat(), numbers)
        };
        Self { events, requests: (0..BODIES).map(request).collect() }
    }

    /// Every event has an id that no other of this and of other runs has.
    fn load<'a>(&'a self, connections: usize, run: usize) -> Load<impl Fn(usize) -> Requests<'a> + Sync + use<'a>> {
        let requests = move |connection: usize| -> Requests<'a> {
            let mut number = ((self.events << 8 | run) << 12 | connection) << 20;
            Box::new(move |out| {
                let (request, numbers) = &self.requests[(number + connection) % self.requests.len()];
                out.extend_from_slice(request);
                for at in numbers {
                    number += 1;
                    let digits = format!("{number:012x}");
                    out[*at..*at + DIGITS].copy_from_slice(&digits.as_bytes()[digits.len() - DIGITS..]);
                }
            })
        };
        Load { connections, status: 202, requests }
    }
}

pub(crate) const SDK: &[&str] = &["sdk_call", "sdk_rate", "sdk_rate_gzip"];

/// The Rust client.
pub(crate) fn sdk(lab: &mut Lab) -> Result<(), Missing> {
    let program = target_dir().join("release/examples/rate");
    lab.rounds("the Rust client", |_| {
        let output = Command::new(&program).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}; `make bench` builds it", program.display()));
        let said = String::from_utf8(output.stdout).unwrap();
        let figure = |name: &'static str| {
            let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next()?.parse().ok());
            (name, value.unwrap_or_else(|| panic!("it said {said:?}")))
        };
        SDK.iter().map(|name| figure(name)).collect()
    });
    Ok(())
}
