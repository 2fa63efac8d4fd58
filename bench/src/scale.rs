//! What an event costs as the load changes its shape: `make bench-scale`.
//!
//! All but the last are folds alone, from memory, on one thread: 100 seconds of 50,000 events a second in columnar batches of 500,
//! without deduplication, with a flush each second of log time and a minute that closes. The partitions are those of a topic of JSON
//! records, through the whole aggregator, with a store that keeps nothing.
//!
//! | column | per CPU-second |
//! |---|---|
//! | events | events folded, their rows taken |
//! | cells | changes of cells: each event changes three minutes (its video's, its space's, the site's); a minute that closes changes three rollup cells |
//! | rows | rows to be stored |
//!
//! One run of each, after one that does not count for those from memory: these are curves, and a point that is off is seen. Also written to `bench/scale.json`.

use schemas::FoldSettings;
use serde_json::{Value, json};

use crate::aggregate::{Outcome, Plan, Store};
use crate::child::Task;
use crate::encode::Form;
use crate::events::Shape;
use crate::lab::{Lab, Missing};
use crate::report::{results_dir, show};
use crate::stream::{Folding, Stream};
use crate::topic;
use crate::usage::own_cpu_seconds;

/// The word that asks for this.
pub(crate) const WORD: &str = "scale";

const SECONDS: u64 = 100;

/// Measures and prints all.
pub(crate) fn run(lab: &mut Lab) -> Result<(), Missing> {
    let rate = if lab.options.quick { 1_000 } else { 50_000 };
    let base = Shape { span_ms: (SECONDS * 1_000) as i64, ..Shape::traffic(SECONDS * rate) };
    let mut points = Vec::new();
    println!("{:<24} {:>10} {:>12} {:>12} {:>12} {:>10}", "what", "", "events/s", "cells/s", "rows/s", "rows/event");
    let mut note = |what: &str, value: String, [events, cells, rows]: [f64; 3]| {
        let shown = [events, cells, rows].map(show);
        println!("{what:<24} {value:>10} {:>12} {:>12} {:>12} {:>10.3}", shown[0], shown[1], shown[2], rows / events);
        points.push(json!({"what": what, "value": value, "events_per_cpu_s": events, "cells_per_cpu_s": cells, "rows_per_cpu_s": rows}));
    };
    for videos in [1_000, 10_000, 100_000, 1_000_000, 10_000_000] {
        note("videos", show(videos as f64), fold(&Shape { videos, ..base.clone() }));
    }
    for exponent in [0.0, 0.5, 1.0, 1.5] {
        note("Zipf exponent", format!("{exponent}"), fold(&Shape { exponent, ..base.clone() }));
    }
    for percent in [0, 1, 5, 20] {
        note("late events", format!("{percent} %"), fold(&Shape { late: f64::from(percent) / 100.0, ..base.clone() }));
    }
    note("one video has", "50 %".into(), fold(&Shape { hot: 0.5, ..base.clone() }));
    for partitions in [1, 4, 16, 64, 256] {
        let shape = Shape::traffic(lab.options.events / 2);
        let topic = lab.topic(&topic::Plan { partitions, ..topic::Plan::of(Form::Json, shape) })?;
        let outcome: Outcome = Task::Aggregate(Plan::of(&topic, Store::Discard)).run();
        let events = outcome.events_per_cpu_second();
        note("partitions (JSON, Kafka)", partitions.to_string(), [events, 3.0 * events, outcome.rows as f64 / outcome.cpu_s]);
    }
    std::fs::create_dir_all(results_dir()).unwrap();
    let path = results_dir().join("scale.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&Value::Array(points)).unwrap()).unwrap();
    println!("\nwritten to {}", path.display());
    Ok(())
}

/// Events, changes of cells and rows per CPU-second.
fn fold(shape: &Shape) -> [f64; 3] {
    let stream = Stream::new(Form::Batch(500), shape);
    // The first time, the memory that it takes is new to the process.
    fold_once(&stream);
    fold_once(&stream)
}

fn fold_once(stream: &Stream) -> [f64; 3] {
    let mut folding = Folding::new(FoldSettings { dedup_minutes: 0, sources: 1, ..FoldSettings::default() });
    let (mut rollups, mut rows) = (0, 0);
    let mut flush_at = stream.records[0].append_time.plus(1_000);
    let cpu = own_cpu_seconds();
    for record in &stream.records {
        if record.append_time >= flush_at || folding.is_heavy() {
            let flush = folding.flush();
            rollups += flush.rollups.len();
            rows += flush.rollups.len() + flush.minutes.len();
            flush_at = record.append_time.plus(1_000);
        }
        folding.apply(stream, record);
    }
    let cpu = own_cpu_seconds() - cpu;
    let events = stream.events() as usize;
    assert_eq!(folding.fold.tally().counted, events as u64);
    [events, 3 * events + rollups, rows].map(|count| count as f64 / cpu)
}
