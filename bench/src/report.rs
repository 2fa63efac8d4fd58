//! The figures: what each is called, what it should be, its median and spread, the table and the summary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

/// What a figure should be.
#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    None,
}
use Goal::{AtLeast, AtMost};

/// Names, units and goals, in the order of the table. Those with a goal say how Tallymark does; the others are what they are
/// made of, or stand beside them for people.
const FIGURES: &[(&str, &str, Goal)] = &[
    ("json_vs_wire", "share of reading and decoding alone", AtLeast(0.80)),
    ("json_vs_flink_heap", "x", AtLeast(4.0)),
    ("json_stored", "share of reading, decoding and storing alone", AtLeast(0.75)),
    ("json_stored_vs_flink_rocksdb", "x", AtLeast(6.0)),
    ("json_stored_vs_kstreams_rocksdb_eos", "x", AtLeast(6.0)),
    ("json_dedup", "share of without", AtLeast(0.65)),
    ("batch_events", "events/CPU-s", AtLeast(6e6)),
    ("batch_events_dedup", "events/CPU-s", AtLeast(3e6)),
    ("fold_kernel_1k", "events/CPU-s", AtLeast(30e6)),
    ("fold_kernel_1m", "events/CPU-s", AtLeast(5e6)),
    ("checkpoint_tax", "x", AtMost(1.3)),
    ("hot_video", "share of uniform", AtLeast(0.90)),
    ("cassandra_rows", "rows/CPU-s", AtLeast(50e3)),
    ("cassandra_vs_flink", "x", AtLeast(2.0)),
    ("write_reduction", "events/row", AtLeast(8.0)),
    ("write_reduction_1k_10s", "events/row", AtLeast(300.0)),
    ("freshness_p99", "s", AtMost(2.0)),
    ("replay_rate", "share of live", AtLeast(0.95)),
    ("memory", "MiB", AtMost(1_024.0)),
    ("collect_single_embedded", "events/CPU-s", AtLeast(20e3)),
    ("collect_single_kafka", "events/CPU-s", AtLeast(20e3)),
    ("collect_batch_embedded_vs_parse", "share of decoding alone", AtLeast(0.70)),
    ("collect_batch_kafka_vs_parse", "share of decoding alone", AtLeast(0.70)),
    ("sdk_call", "ns", AtMost(1_000.0)),
    ("sdk_rate", "events/s", AtLeast(200e3)),
    ("sdk_rate_gzip", "events/s", AtLeast(200e3)),
    ("cached_vs_bare", "share of a bare handler", AtLeast(0.80)),
    ("cached_p99", "ms", AtMost(1.0)),
    ("miss_embedded_30d_p99", "ms", AtMost(2.0)),
    ("miss_embedded_24h_p99", "ms", AtMost(2.0)),
    ("miss_cassandra_30d_p99", "ms", AtMost(10.0)),
    ("miss_cassandra_24h_p99", "ms", AtMost(10.0)),
    ("hot_videos_memory", "MiB", AtMost(256.0)),
    ("coalesced_reads", "reads", AtMost(1.0)),
    ("wire_bare", "records/CPU-s", Goal::None),
    ("json_decode", "events/CPU-s", Goal::None),
    ("json_events", "events/CPU-s", Goal::None),
    ("json_dedup_events", "events/CPU-s", Goal::None),
    ("json_stored_events", "events/CPU-s", Goal::None),
    ("cassandra_events", "events/CPU-s", Goal::None),
    ("rows_bare", "rows/CPU-s", Goal::None),
    ("rows_per_event", "rows/event", Goal::None),
    ("fold_kernel_1k_new", "events/CPU-s", Goal::None),
    ("fold_kernel_1m_new", "events/CPU-s", Goal::None),
    ("embedded_append", "events/CPU-s", Goal::None),
    ("import_end_to_end", "events/s", AtLeast(100e3)),
    ("import_server", "events/CPU-s", Goal::None),
    ("freshness_p50", "s", Goal::None),
    ("collect_single_embedded_rate", "events/s", Goal::None),
    ("collect_single_kafka_rate", "events/s", Goal::None),
    ("collect_batch_embedded", "events/CPU-s", Goal::None),
    ("collect_batch_kafka", "events/CPU-s", Goal::None),
    ("cached_answers", "requests/CPU-s", Goal::None),
    ("cached_vs_bare_cpu", "share of a bare handler", Goal::None),
];

/// The runs of one measurement.
#[derive(Default)]
struct Figure {
    unit: String,
    values: Vec<f64>,
}

impl Figure {
    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }
}

/// The middle of some values; of an even number of them, between the middle two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

/// A number as people read it.
pub(crate) fn show(value: f64) -> String {
    match value {
        v if v >= 10_000_000.0 => format!("{:.1} M", v / 1e6),
        v if v >= 1_000_000.0 => format!("{:.2} M", v / 1e6),
        v if v >= 10_000.0 => format!("{:.0} K", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

/// All measurements of this start.
#[derive(Default)]
pub(crate) struct Report(BTreeMap<String, Figure>);

impl Report {
    /// Notes one run of a measurement that has a place in the table.
    pub(crate) fn note(&mut self, name: &str, value: f64) {
        let (_, unit, _) = FIGURES.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("the figure {name} is not known"));
        self.note_as(name, unit, value);
    }

    /// Notes one run of another measurement.
    pub(crate) fn note_as(&mut self, name: &str, unit: &str, value: f64) {
        eprintln!("  {name}: {} {unit}", show(value));
        let figure = self.0.entry(name.to_owned()).or_default();
        unit.clone_into(&mut figure.unit);
        figure.values.push(value);
    }

    /// Whether nothing was noted.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Prints the table and writes the summary. With `only` some of the figures measured, the others stay in it as they were.
    pub(crate) fn finish(&self, only: bool) {
        let mut summary = if only { kept() } else { serde_json::Map::new() };
        println!("\n{:<36} {:>9} {:>21} {:>11}  unit", "name", "median", "min .. max", "target");
        for (name, unit, goal) in FIGURES.iter().filter(|(name, ..)| !only && !self.0.contains_key(*name)) {
            let (AtLeast(target) | AtMost(target)) = *goal else { continue };
            println!("{name:<36} not measured");
            summary.insert((*name).to_owned(), json!({"value": null, "unit": unit, "target": target, "ok": null}));
        }
        let order = |name: &str| FIGURES.iter().position(|(known, ..)| *known == name).unwrap_or(FIGURES.len());
        let mut figures: Vec<_> = self.0.iter().collect();
        figures.sort_by_key(|(name, _)| (order(name), *name));
        for (name, figure) in figures {
            let goal = FIGURES.get(order(name)).map_or(Goal::None, |(.., goal)| *goal);
            let values = figure.sorted();
            let (min, median, max) = (values[0], median(&values), values[values.len() - 1]);
            let (target, ok) = match goal {
                AtLeast(target) => (Some(target), Some(median >= target)),
                AtMost(target) => (Some(target), Some(median <= target)),
                Goal::None => (None, None),
            };
            let sign = if matches!(goal, AtMost(_)) { "<=" } else { ">=" };
            let shown = target.map_or_else(String::new, |target| format!("{sign} {}", show(target)));
            let verdict = if ok == Some(false) { "  MISSED" } else { "" };
            let spread = format!("{} .. {}", show(min), show(max));
            println!("{name:<36} {:>9} {spread:>21} {shown:>11}  {}{verdict}", show(median), figure.unit);
            let (unit, runs) = (&figure.unit, values.len());
            let figure = json!({"value": median, "unit": unit, "target": target, "ok": ok, "min": min, "max": max, "runs": runs});
            summary.insert(name.clone(), figure);
        }
        std::fs::create_dir_all(results_dir()).unwrap();
        let path = results_dir().join("summary.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&summary).unwrap()).unwrap();
        println!("\nwritten to {}", path.display());
    }
}

/// The summary that was written before.
fn kept() -> serde_json::Map<String, Value> {
    let written = std::fs::read(results_dir().join("summary.json")).ok();
    written.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Where results are written.
pub(crate) fn results_dir() -> PathBuf {
    target_dir().join("bench")
}

/// The cargo target directory: this program lies in `TARGET/release`.
pub(crate) fn target_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().parent().unwrap().to_path_buf()
}
