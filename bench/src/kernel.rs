//! The fold alone, on one thread, from memory.
//!
//! All of these are steady traffic of one source, 100,000 events a second of log time (Zipf, exponent 1), in columnar batches
//! without deduplication:
//!
//! - `fold_kernel_1k`, `fold_kernel_1m`: events per CPU-second of [`Fold::apply`](aggregator::fold::Fold::apply) at 1,000 and at
//!   1,000,000 videos, batches of 5,000: reading and counting 50 seconds of traffic into an open minute whose cells are there, because
//!   the same traffic came before. `..._new`: that first time, in which every entity and cell is made.
//! - `write_reduction`, `write_reduction_1k_10s`: events for each row that is flushed, over a minute of which one minute closes, at
//!   10,000 videos with a flush each second and at 1,000 videos with one in ten. These are counts, the same in every run.

use schemas::{FoldSettings, Millis};

use crate::encode::Form;
use crate::events::Shape;
use crate::lab::{Lab, Missing};
use crate::stream::{Folding, Stream};
use crate::usage::own_cpu_seconds;

const EVENTS_A_SECOND: u64 = 100_000;
const FORM: Form = Form::Batch(500);
const LARGE: Form = Form::Batch(5_000);
/// They fall into one minute.
const KERNEL_SECONDS: u64 = 50;

const KERNELS: [(u64, [&str; 2]); 2] =
    [(1_000, ["fold_kernel_1k", "fold_kernel_1k_new"]), (1_000_000, ["fold_kernel_1m", "fold_kernel_1m_new"])];
const REDUCTIONS: [(u64, i64, &str); 2] = [(10_000, 1_000, "write_reduction"), (1_000, 10_000, "write_reduction_1k_10s")];

pub(crate) const NAMES: &[&str] = &[KERNELS[0].1[0], KERNELS[0].1[1], KERNELS[1].1[0], KERNELS[1].1[1], REDUCTIONS[0].2, REDUCTIONS[1].2];

pub(crate) fn run(lab: &mut Lab) -> Result<(), Missing> {
    let rate = if lab.options.quick { 5_000 } else { EVENTS_A_SECOND };
    for (videos, names) in KERNELS {
        if lab.wants(&names) {
            let stream = Stream::new(LARGE, &steady(videos, KERNEL_SECONDS, rate));
            lab.rounds(&format!("the fold alone, {videos} videos"), |_| {
                let [new, again] = kernel(&stream);
                let events = stream.events() as f64;
                vec![(names[0], events / again), (names[1], events / new)]
            });
        }
    }
    for (videos, flush_ms, name) in REDUCTIONS {
        if lab.wants(&[name]) {
            eprintln!("rows of {videos} videos, a flush each {flush_ms} ms");
            let stream = Stream::new(FORM, &steady(videos, 130, EVENTS_A_SECOND));
            lab.report.note(name, reduction(&stream, flush_ms));
        }
    }
    Ok(())
}

fn steady(videos: u64, seconds: u64, rate: u64) -> Shape {
    Shape { videos, span_ms: (seconds * 1_000) as i64, ..Shape::traffic(seconds * rate) }
}

fn settings() -> FoldSettings {
    FoldSettings { dedup_minutes: 0, sources: 1, ..FoldSettings::default() }
}

/// Folds a stream twice within a minute: CPU seconds of the first time and of the second.
fn kernel(stream: &Stream) -> [f64; 2] {
    let mut folding = Folding::new(settings());
    let mut pass = |at: Option<Millis>| {
        let began = own_cpu_seconds();
        stream.records.iter().for_each(|record| folding.apply_at(stream, record, at.unwrap_or(record.append_time)));
        own_cpu_seconds() - began
    };
    let taken = [pass(None), pass(stream.records.last().map(|last| last.append_time))];
    assert_eq!(folding.fold.tally().counted, 2 * stream.events());
    taken
}

/// Events for each row in the second minute, when there is as much to close as ever.
fn reduction(stream: &Stream, flush_ms: i64) -> f64 {
    let mut folding = Folding::new(settings());
    let start = stream.records[0].append_time;
    // The first minute closes ten seconds after its end, the second after this window.
    let window = start.plus(65_000)..start.plus(125_000);
    let (mut events, mut rows, mut flush_at) = (0, 0, start.plus(flush_ms));
    for record in &stream.records {
        let counts = window.contains(&record.append_time);
        if record.append_time >= flush_at || folding.is_heavy() {
            let flush = folding.flush();
            rows += if counts { flush.rollups.len() + flush.minutes.len() } else { 0 };
            flush_at = flush_at.max(record.append_time).plus(flush_ms);
        }
        folding.apply(stream, record);
        events += if counts { record.events } else { 0 };
    }
    events as f64 / rows as f64
}
