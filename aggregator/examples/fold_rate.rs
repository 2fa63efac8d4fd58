//! What the fold costs for each event once its tables have their size, from memory, beside decoding alone: `cargo run --release --example fold_rate [events] [videos]`.

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

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().unwrap());
    let (events, videos) = (args.next().unwrap_or(3_000_000), args.next().unwrap_or(100_000));
    let mut random = Random(42);
    let cumulative: Vec<f64> = (1..=videos)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect();
    let (mut bytes, mut index): (Vec<u8>, Vec<(i64, Range<usize>)>) = (Vec::new(), Vec::new());
    for n in 0..events {
        let at = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * cumulative[videos - 1];
        let video = (cumulative.partition_point(|sum| *sum < at).min(videos - 1) * 7_919) % videos;
        let now = START_MS + n as i64 * 36 / 100;
        let ts = Millis(now - (random.next() % 2_000) as i64).to_rfc3339();
        let (a, b) = (random.next(), random.next());
        let start = bytes.len();
        write!(
            bytes,
            r#"{{"event_id":"{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}","video_id":"v{}","viewer_id":"u{}","ts":"{ts}","watch_ms":{},"space_id":"c{}"}}"#,
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 48 & 0x3fff | 0x8000,
            b & 0xffff_ffff_ffff,
            100_000 + video,
            10_000 + (b & 0xffff),
            1_000 + a % 300_000,
            100 + video % 900,
        )
        .unwrap();
        index.push((now, start..bytes.len()));
    }
    for _ in 0..3 {
        let began = cpu();
        for (_, range) in &index {
            black_box(json::decode(&bytes[range.clone()]).unwrap());
        }
        let decode = (cpu() - began) / events as f64;
        for dedup_minutes in std::env::var("DEDUP").map_or(vec![0, 10], |one| vec![one.parse().unwrap()]) {
            let settings = FoldSettings { dedup_minutes, ..FoldSettings::default() };
            let mut fold = Fold::new(
                Source(0),
                settings,
                FoldLimits {
                    pending_max: 2_000_000,
                    resident_cells: std::env::var("RESIDENT").map_or(500_000, |cells| cells.parse().unwrap()),
                    ..FoldLimits::default()
                },
                None,
                Offset(0),
            );
            let (mut rows, mut flushes) = (0, 0);
            let mut began = cpu();
            for (n, group) in index.chunks(RUN).enumerate() {
                let offsets = fold.position().0..;
                let records: Vec<Record<'_>> = offsets
                    .zip(group)
                    .map(|(offset, (append_time, range))| Record {
                        offset: Offset(offset),
                        append_time: Millis(*append_time),
                        kind: RecordKind::Json,
                        historical: false,
                        payload: &bytes[range.clone()],
                    })
                    .collect();
                fold.apply_run(&records);
                if n == index.len() / RUN / 2 {
                    (began, rows, flushes) = (cpu(), 0, 0);
                }
                if fold.is_heavy() || n % (1_000_000 / RUN) == 1 {
                    while let Some(load) = fold.poll_load() {
                        let nothing = vec![None; load.keys.len()];
                        fold.loaded(&load, &nothing);
                    }
                    let flush = fold.take_flush().unwrap();
                    (rows, flushes) = (rows + flush.rollups.len() + flush.minutes.len(), flushes + 1);
                    fold.recycle(black_box(flush.rollups));
                    fold.recycle(black_box(flush.minutes));
                    fold.flushed();
                }
            }
            let total = (cpu() - began) / (events / 2) as f64;
            assert_eq!(fold.tally().counted, events as u64);
            println!(
                "dedup {dedup_minutes}: {total:.0} ns an event, decode {decode:.0}, {:.2} rows an event in {flushes} flushes",
                rows as f64 / (events / 2) as f64
            );
        }
    }
}
