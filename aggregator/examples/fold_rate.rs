//! What the fold costs for each event once its tables have their size, from memory, beside decoding alone:
//! `cargo run --release --example fold_rate [events] [videos] [resident cells]`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a measurement that goes wrong should stop with a trace"
)]

use std::hint::black_box;
use std::io::Write;
use std::ops::Range;

use aggregator::fold::{Fold, FoldLimits};
use schemas::{FoldSettings, Millis, Offset, Record, RecordKind, Source, json};

/// Records in one run.
const RUN: usize = 64;
const START_MS: i64 = 1_795_176_000_000;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap()
}

/// Records of one event each, side by side, as a consumer fetches them: their bytes, and of each its append time and place.
struct Records {
    bytes: Vec<u8>,
    index: Vec<(i64, Range<usize>)>,
}

impl Records {
    /// As many events as 10 M an hour bring, Zipf (exponent 1), up to two seconds out of order.
    fn generate(events: usize, videos: usize) -> Self {
        let mut random = Random(42);
        let add = |sum: &mut f64, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        };
        let cumulative: Vec<f64> = (1..=videos).scan(0.0, add).collect();
        let (mut bytes, mut index) = (Vec::new(), Vec::new());
        for n in 0..events {
            let at = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * cumulative[videos - 1];
            let video = (cumulative.partition_point(|sum| *sum < at).min(videos - 1) * 7_919) % videos;
            let now = START_MS + n as i64 * 36 / 100;
            let start = bytes.len();
            write_event(&mut bytes, video, Millis(now - (random.next() % 2_000) as i64), [random.next(), random.next()]);
            index.push((now, start..bytes.len()));
        }
        Self { bytes, index }
    }

    fn run(&self, first: Offset, places: &[(i64, Range<usize>)]) -> Vec<Record<'_>> {
        let record = |(offset, (append_time, range)): (u64, &(i64, Range<usize>))| Record {
            offset: Offset(offset),
            append_time: Millis(*append_time),
            kind: RecordKind::Json,
            historical: false,
            payload: &self.bytes[range.clone()],
        };
        (first.0..).zip(places).map(record).collect()
    }
}

fn write_event(out: &mut Vec<u8>, video: usize, ts: Millis, [a, b]: [u64; 2]) {
    write!(
        out,
        r#"{{"event_id":"{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}","video_id":"v{}","viewer_id":"u{}","ts":"{}","watch_ms":{},"space_id":"c{}"}}"#,
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 48 & 0x3fff | 0x8000,
        b & 0xffff_ffff_ffff,
        100_000 + video,
        10_000 + (b & 0xffff),
        ts.to_rfc3339(),
        1_000 + a % 300_000,
        100 + video % 900,
    )
    .unwrap();
}

/// Takes a flush, as of a store that has no row yet, and gives its memory back: how many rows it had.
fn flush(fold: &mut Fold) -> usize {
    while let Some(load) = fold.poll_load() {
        fold.loaded(&load, &vec![None; load.keys.len()]);
    }
    let flush = fold.take_flush().unwrap();
    let rows = flush.rollups.len() + flush.minutes.len();
    fold.recycle(black_box(flush.rollups));
    fold.recycle(black_box(flush.minutes));
    fold.flushed();
    rows
}

/// Folds all records: ns and rows for each event of the second half.
fn fold(records: &Records, dedup_minutes: i32, resident_cells: usize) -> (f64, f64) {
    let settings = FoldSettings { dedup_minutes, ..FoldSettings::default() };
    let limits = FoldLimits { pending_max: 2_000_000, resident_cells, ..FoldLimits::default() };
    let mut fold = Fold::new(Source(0), settings, limits, None, Offset(0));
    let (mut rows, mut began) = (0, cpu());
    for (n, places) in records.index.chunks(RUN).enumerate() {
        fold.apply_run(&records.run(fold.position(), places));
        if n == records.index.len() / RUN / 2 {
            (began, rows) = (cpu(), 0);
        }
        if fold.is_heavy() || n % (1_000_000 / RUN) == 1 {
            rows += flush(&mut fold);
        }
    }
    let half = (records.index.len() / 2) as f64;
    assert_eq!(fold.tally().counted, records.index.len() as u64);
    ((cpu() - began) / half, rows as f64 / half)
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().unwrap());
    let (events, videos) = (args.next().unwrap_or(3_000_000), args.next().unwrap_or(100_000));
    let resident_cells = args.next().unwrap_or(500_000);
    let records = Records::generate(events, videos);
    for _ in 0..3 {
        let began = cpu();
        for (_, range) in &records.index {
            black_box(json::decode(&records.bytes[range.clone()]).unwrap());
        }
        let decode = (cpu() - began) / events as f64;
        for dedup_minutes in [0, 10] {
            let (ns, rows) = fold(&records, dedup_minutes, resident_cells);
            println!("dedup {dedup_minutes}: {ns:.0} ns an event, decode {decode:.0}, {rows:.2} rows an event");
        }
    }
}
