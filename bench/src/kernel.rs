//! The fold alone, on one thread, from memory.
//!
//! All of these are steady traffic of one source, 100,000 events a second of log time (Zipf, exponent 1), in columnar batches of 500
//! without deduplication:
//!
//! - `fold_kernel_1k`, `fold_kernel_1m`: events per CPU-second of [`Fold::apply`](aggregator::fold::Fold::apply) over a minute and a
//!   half at 1,000 and at 1,000,000 videos: reading the batch, counting, and the closing of a minute. Taking the rows of a flush, each
//!   second of log time, is not in it; `..._flushed` has it too.
//! - `write_reduction`, `write_reduction_1k_10s`: events for each row that is flushed, over a minute of which one minute closes, at
//!   10,000 videos with a flush each second and at 1,000 videos with one in ten. These are counts, the same in every run.

use std::hint::black_box;

use schemas::FoldSettings;

use crate::encode::Form;
use crate::events::Shape;
use crate::lab::{Lab, Missing};
use crate::stream::{Folding, Stream};
use crate::usage::own_cpu_seconds;

const EVENTS_A_SECOND: u64 = 100_000;
const FORM: Form = Form::Batch(500);

const KERNELS: [(u64, [&str; 2]); 2] =
    [(1_000, ["fold_kernel_1k", "fold_kernel_1k_flushed"]), (1_000_000, ["fold_kernel_1m", "fold_kernel_1m_flushed"])];
const REDUCTIONS: [(u64, i64, &str); 2] = [(10_000, 1_000, "write_reduction"), (1_000, 10_000, "write_reduction_1k_10s")];

pub(crate) const NAMES: &[&str] = &[KERNELS[0].1[0], KERNELS[0].1[1], KERNELS[1].1[0], KERNELS[1].1[1], REDUCTIONS[0].2, REDUCTIONS[1].2];

pub(crate) fn run(lab: &mut Lab) -> Result<(), Missing> {
    let seconds = if lab.options.quick { 72 } else { 90 };
    let rate = if lab.options.quick { 5_000 } else { EVENTS_A_SECOND };
    for (videos, names) in KERNELS {
        if lab.wants(&names) {
            let stream = Stream::new(FORM, &steady(videos, seconds, rate));
            lab.rounds(&format!("the fold alone, {videos} videos"), |_| {
                let (apply, all) = kernel(&stream);
                let events = stream.events() as f64;
                vec![(names[0], events / apply), (names[1], events / all)]
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

/// Folds a stream with a flush each second of log time: CPU seconds of applying, and with the flushes.
fn kernel(stream: &Stream) -> (f64, f64) {
    let mut folding = Folding::new(settings());
    let began = own_cpu_seconds();
    let (mut flushing, mut flush_at) = (0.0, stream.records[0].append_time.plus(1_000));
    for record in &stream.records {
        if record.append_time >= flush_at {
            let before = own_cpu_seconds();
            drop(black_box(folding.flush()));
            flushing += own_cpu_seconds() - before;
            flush_at = flush_at.plus(1_000);
        }
        folding.apply(stream, record);
    }
    let all = own_cpu_seconds() - began;
    assert_eq!(folding.fold.tally().counted, stream.events());
    (all - flushing, all)
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
