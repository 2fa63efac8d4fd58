//! Topics through the aggregator, beside what reading and decoding the same bytes costs alone.
//!
//! With B records per CPU-second that a bare consumer reads, D events per CPU-second that are decoded from memory, and W rows per
//! CPU-second that a bare database takes durably, of which an event makes r, nobody who does these things does more than
//!
//! ```text
//! S = 1 / (1/B + 1/D)                 events per CPU-second, stored nowhere
//! T = 1 / (1/B + 1/D + r/W)           events per CPU-second, stored
//! ```
//!
//! The aggregator's share of these says what everything else costs: folding, rows and checkpoints each second, and the program around
//! it. All are measured in turn in each run, and compared within the run.
//!
//! - `json_vs_wire`: JSON records, a store that keeps nothing, no deduplication: share of S. `json_dedup`: with deduplication of ten
//!   minutes, share of without.
//! - `json_stored`: the same into the embedded store: share of T. What the database's threads still do afterwards is in it.
//! - `batch_events`, `batch_events_dedup`: columnar batches of 500 and a store that keeps nothing, events per CPU-second.
//! - `hot_video`: half of all events are views of one video, which is spread over both partitions. What then bounds the throughput is
//!   the busiest of the threads that fold: its CPU time for each event with uniform traffic, over that with the hot video.
//! - `cassandra_rows`: rows written to one Cassandra node for each CPU-second of the aggregator, in which everything else that it does is.

use crate::aggregate::{Outcome, Plan, Store};
use crate::bare;
use crate::child::Task;
use crate::encode::Form;
use crate::events::Shape;
use crate::lab::{Lab, Missing};
use crate::peers::{self, Kept};
use crate::report::target_dir;
use crate::rows;
use crate::topic;

/// So many events are enough to see what decoding costs: they are far more than the caches hold.
const DECODE_EVENTS: u64 = 1_000_000;
const BATCH: Form = Form::Batch(500);

pub(crate) const JSON: &[&str] = &["json_vs_wire", "json_dedup", "wire_bare", "json_decode", "json_events", "json_dedup_events"];

/// Stored nowhere, with deduplication and without.
pub(crate) fn json(lab: &mut Lab) -> Result<(), Missing> {
    let topic = lab.topic(&topic::Plan::of(Form::Json, Shape::traffic(lab.options.events)))?;
    let (bare, decode) = (Task::Bare(bare::Plan::of(&topic)), decode(lab));
    let plain = Plan::of(&topic, Store::Discard);
    let dedup = Task::Aggregate(Plan { dedup_minutes: 10, ..plain.clone() });
    let plain = Task::Aggregate(plain);
    let peers = Kept::read();
    lab.rounds("JSON records", |_| {
        let (b, plain): (f64, Outcome) = (bare.run(), plain.run());
        let (d, dedup): (f64, Outcome) = (decode.run(), dedup.run());
        let s = 1.0 / (1.0 / b + 1.0 / d);
        let (plain, dedup) = (plain.events_per_cpu_second(), dedup.events_per_cpu_second());
        let mut figures = vec![
            ("wire_bare", b),
            ("json_decode", d),
            ("json_events", plain),
            ("json_vs_wire", plain / s),
            ("json_dedup_events", dedup),
            ("json_dedup", dedup / plain),
        ];
        figures.extend(peers::PLAIN.iter().filter_map(|(figure, peer)| peers.beside(figure, peer, plain)));
        figures
    });
    Ok(())
}

pub(crate) const STORED: &[&str] = &["json_stored", "json_stored_events", "rows_bare", "rows_per_event"];

/// Stored in the embedded store.
pub(crate) fn stored(lab: &mut Lab) -> Result<(), Missing> {
    let shape = Shape::traffic(lab.options.events);
    let topic = lab.topic(&topic::Plan::of(Form::Json, shape.clone()))?;
    let (bare, decode) = (Task::Bare(bare::Plan::of(&topic)), decode(lab));
    let peers = Kept::read();
    lab.rounds("JSON records, stored", |_| {
        let dir = tempfile::tempdir_in(target_dir()).unwrap();
        let stored: Outcome = Task::Aggregate(Plan::of(&topic, Store::Embedded(dir.path().join("store")))).run();
        // Of one source, as many events as a source had between two flushes.
        let flush_events = stored.events / stored.flushes;
        let rows = rows::Plan { dir: dir.path().join("bare"), shape: shape.clone().part(flush_events * 10), flush_events };
        let (b, d, w): (f64, f64, f64) = (bare.run(), decode.run(), Task::Rows(rows).run());
        let t = 1.0 / (1.0 / b + 1.0 / d + stored.rows_per_event() / w);
        let rate = stored.events_per_cpu_second();
        let r = stored.rows_per_event();
        let mut figures = vec![("json_stored", rate / t), ("json_stored_events", rate), ("rows_bare", w), ("rows_per_event", r)];
        figures.extend(peers::STORED.iter().filter_map(|(figure, peer)| peers.beside(figure, peer, rate)));
        figures
    });
    Ok(())
}

pub(crate) const BATCHES: &[&str] = &["batch_events", "batch_events_dedup"];

/// Columnar batches.
pub(crate) fn batches(lab: &mut Lab) -> Result<(), Missing> {
    let topic = lab.topic(&topic::Plan::of(BATCH, Shape::traffic(lab.options.events)))?;
    let plain = Plan::of(&topic, Store::Discard);
    let dedup = Task::Aggregate(Plan { dedup_minutes: 10, ..plain.clone() });
    let plain = Task::Aggregate(plain);
    lab.rounds("columnar batches", |_| {
        let (plain, dedup): (Outcome, Outcome) = (plain.run(), dedup.run());
        vec![("batch_events", plain.events_per_cpu_second()), ("batch_events_dedup", dedup.events_per_cpu_second())]
    });
    Ok(())
}

pub(crate) const HOT: &[&str] = &["hot_video"];

/// One video with half of all traffic.
pub(crate) fn hot(lab: &mut Lab) -> Result<(), Missing> {
    let shape = Shape::traffic(lab.options.events);
    let uniform = topic::Plan::of(Form::Json, shape.clone());
    let hot = topic::Plan { spread: uniform.partitions, shape: Shape { hot: 0.5, ..shape }, ..uniform.clone() };
    let [uniform, hot] = [lab.topic(&uniform)?, lab.topic(&hot)?].map(|topic| Task::Aggregate(Plan::of(&topic, Store::Discard)));
    lab.rounds("one hot video", |_| {
        let (uniform, hot): (Outcome, Outcome) = (uniform.run(), hot.run());
        vec![("hot_video", uniform.busiest_fold_cpu_s / hot.busiest_fold_cpu_s)]
    });
    Ok(())
}

pub(crate) const CASSANDRA: &[&str] = &["cassandra_rows", "cassandra_events"];

/// Stored in Cassandra.
pub(crate) fn cassandra(lab: &mut Lab) -> Result<(), Missing> {
    // A node beside the aggregator on the same machine takes some thousand rows a second.
    let topic = lab.topic(&topic::Plan::of(Form::Json, Shape::traffic(lab.options.events / 16)))?;
    let node = lab.cassandra()?.contact();
    let peers = Kept::read();
    lab.rounds("JSON records, into Cassandra", |run| {
        let task = Task::Aggregate(Plan::of(&topic, Store::Cassandra(node.clone(), format!("bench_{run}"))));
        let outcome: Outcome = task.run();
        let rows = outcome.rows as f64 / outcome.cpu_s;
        let mut figures = vec![("cassandra_rows", rows), ("cassandra_events", outcome.events_per_cpu_second())];
        figures.extend(peers::CASSANDRA.iter().filter_map(|(figure, peer)| peers.beside(figure, peer, rows)));
        figures
    });
    Ok(())
}

pub(crate) const MEMORY: &[&str] = &["memory"];

/// The most memory that the aggregator takes when 10 M events of one minute have come, ten for each of a million videos, all within the
/// reach of deduplication: a million open cells, ten million ids, the client's buffers and all else.
pub(crate) fn memory(lab: &mut Lab) -> Result<(), Missing> {
    let events = if lab.options.quick { 100_000 } else { 10_000_000 };
    let shape = Shape { videos: events / 10, exponent: 0.0, span_ms: 55_000, ..Shape::traffic(events) };
    let topic = lab.topic(&topic::Plan::of(BATCH, shape))?;
    let task = Task::Aggregate(Plan { dedup_minutes: 10, ..Plan::of(&topic, Store::Discard) });
    let runs = lab.options.runs.min(2);
    lab.some_rounds("memory", runs, |_| vec![("memory", task.run::<Outcome>().peak_rss_mib)]);
    Ok(())
}

fn decode(lab: &Lab) -> Task {
    Task::Decode(Shape::traffic(lab.options.events.min(DECODE_EVENTS)))
}
