//! `make bench`: what Tallymark costs on this machine, beside what the same work costs without it.
//!
//! Every figure is the median of several runs after one that does not count, with its spread, and every run takes its yardstick in
//! turn with what is compared with it, so that a slow spell of the machine falls on both. Cost is CPU time: user plus system, of the
//! process that is measured alone. Ends with a table, and with `bench/summary.json` in the target directory.
//!
//! ```text
//! tallymark-bench [--quick] [NAME...]      only figures with one of these in their name
//! tallymark-bench [--quick] scale          tables of what an event costs as the load changes
//! tallymark-bench [--quick] peers          Kafka Streams and Flink on the same topic
//! RUNS=5 EVENTS=4000000                    runs that count; events of a topic
//! ```
//!
//! | module | measures |
//! |---|---|
//! | [`wire`] | topics through the aggregator, beside a bare consumer, decoding alone and a bare database; memory |
//! | [`kernel`] | the fold alone, from memory |
//! | [`live`] | topics that grow while they are folded |
//! | [`log`] | appending to the embedded log |
//! | [`program`] | the real binary: import, freshness |
//! | [`collect`] | the real binary: events over HTTP, beside decoding them; the Rust client |
//! | [`answers`] | the real binary: questions, beside a bare handler |
//! | [`scale`] | what an event costs as the load changes its shape |
//! | [`peers`] | Kafka Streams and Flink doing the same job |
//!
//! | module | helps |
//! |---|---|
//! | [`events`], [`encode`] | make events, and payloads of them |
//! | [`topic`], [`stream`] | fill topics, and memory |
//! | [`child`] | runs what is measured in a process of its own: [`aggregate`], [`bare`], [`bare_http`], [`decode`], [`rows`] |
//! | [`server`], [`load`] | the real binary as a server, and clients of it |
//! | [`discard`] | a store that keeps nothing |
//! | [`lab`] | runs, servers, topics |
//! | [`usage`] | reads CPU time and memory |
//! | [`report`] | names, targets, medians, the table and the summary |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a measurement that goes wrong should stop with a trace; its figures are approximate by nature"
)]

mod aggregate;
mod answers;
mod bare;
mod bare_http;
mod child;
mod collect;
mod decode;
mod discard;
mod encode;
mod events;
mod kernel;
mod lab;
mod live;
mod load;
mod log;
mod peers;
mod program;
mod report;
mod rows;
mod scale;
mod server;
mod stream;
mod topic;
mod usage;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use lab::{Lab, Missing, Options};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A group of measurements that are taken together: what it is about, its figures, and what takes them.
type Group = (&'static str, &'static [&'static str], fn(&mut Lab) -> Result<(), Missing>);

const GROUPS: &[Group] = &[
    ("JSON records", wire::JSON, wire::json),
    ("JSON records, stored", wire::STORED, wire::stored),
    ("columnar batches", wire::BATCHES, wire::batches),
    ("the fold alone", kernel::NAMES, kernel::run),
    ("one hot video", wire::HOT, wire::hot),
    ("JSON records, into Cassandra", wire::CASSANDRA, wire::cassandra),
    ("live and replay", live::REPLAY, live::replay),
    ("flushing each second", live::TAX, live::tax),
    ("memory", wire::MEMORY, wire::memory),
    ("the embedded log", log::NAMES, log::run),
    ("the collector, embedded", collect::EMBEDDED, collect::embedded),
    ("the collector, on Kafka", collect::KAFKA, collect::kafka),
    ("the Rust client", collect::SDK, collect::sdk),
    ("answers that are held", answers::CACHED, answers::cached),
    ("the memory of what is held", answers::MEMORY, answers::memory),
    ("answers that are not held", answers::EMBEDDED, answers::embedded),
    ("answers that are not held, of Cassandra", answers::CASSANDRA, answers::cassandra),
    ("the program", program::NAMES, program::run),
];

/// What takes place only when it is asked for by its whole name.
const ALONE: &[Group] = &[("the scale tables", &[scale::WORD], scale::run), ("other engines", &[peers::WORD], peers::run)];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().is_some_and(|word| word == child::WORD) {
        child::Task::perform(&args.next().unwrap());
    }
    let mut lab = Lab::new(Options::read());
    let alone = ALONE.iter().find(|(_, names, _)| lab.options.only == **names);
    let mut gone_wrong = Vec::new();
    for (what, names, run) in alone.map_or(GROUPS, std::slice::from_ref) {
        if alone.is_none() && !lab.wants(names) {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| run(&mut lab))) {
            Ok(Ok(())) => {}
            Ok(Err(Missing(reason))) => gone_wrong.push((*what, format!("left out: {reason}"), true)),
            Err(_) => gone_wrong.push((*what, "FAILED, see above".to_owned(), false)),
        }
    }
    if !lab.report.is_empty() {
        lab.report.finish(!lab.options.only.is_empty());
    }
    for (what, reason, _) in &gone_wrong {
        println!("{what}: {reason}");
    }
    if gone_wrong.iter().all(|(.., harmless)| *harmless) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
