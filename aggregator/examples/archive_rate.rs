//! How large typical events are in the archive, by column, and what writing, reading back and folding them costs:
//! `cargo run --release --example archive_rate [events] [videos]`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a measurement that goes wrong should stop with a trace"
)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use aggregator::archive::draft::DraftFile;
use aggregator::archive::forget::Forgotten;
use aggregator::archive::{ArchiveHead, BucketOptions, Draft, Manifest, RangeBounds, Reader, Shelf};
use aggregator::fold::{Fold, FoldLimits};
use parquet::file::reader::{FileReader, SerializedFileReader};
use schemas::view_batch::Writer;
use schemas::{Event, FoldSettings, Kind, Millis, Offset, Record, RecordKind, Source};

const START_MS: i64 = 1_795_176_000_000;
/// Events in one record: what a busy collector writes.
const BATCH: usize = 500;

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

/// Batches of events with random UUIDs, videos by Zipf (exponent 1), 65,536 viewers, up to two seconds out of order.
fn batches(events: usize, videos: usize) -> Vec<(i64, Vec<u8>)> {
    let mut random = Random(42);
    let add = |sum: &mut f64, rank| {
        *sum += 1.0 / rank as f64;
        Some(*sum)
    };
    let cumulative: Vec<f64> = (1..=videos).scan(0.0, add).collect();
    let mut writer = Writer::new();
    let mut batches = Vec::new();
    for n in 0..events {
        let at = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * cumulative[videos - 1];
        let video = (cumulative.partition_point(|sum| *sum < at).min(videos - 1) * 7_919) % videos;
        let now = START_MS + n as i64 * 36 / 100;
        let (a, b) = (random.next(), random.next());
        let id = format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 48 & 0x3fff | 0x8000,
            b & 0xffff_ffff_ffff
        );
        let event = Event {
            event_id: id.into(),
            video_id: format!("v{}", 100_000 + video).into(),
            space_id: Some(format!("c{}", 100 + video % 900).into()),
            viewer_id: Some(format!("u{}", 10_000 + (b & 0xffff)).into()),
            ts: Millis(now - (random.next() % 2_000) as i64),
            watch_ms: Some(1_000 + a % 300_000),
            kind: Kind::View,
        };
        writer.push(&event, None).unwrap();
        if writer.len() == BATCH {
            batches.push((now, writer.finish()));
        }
    }
    batches
}

fn record(offset: u64, (append_time, payload): &(i64, Vec<u8>)) -> Record<'_> {
    Record { offset: Offset(offset), append_time: Millis(*append_time), kind: RecordKind::ViewBatch, historical: false, payload }
}

fn new_fold() -> Fold {
    Fold::new(Source(0), FoldSettings::default(), FoldLimits { pending_max: usize::MAX, ..FoldLimits::default() }, None, Offset(0))
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().unwrap());
    let (events, videos) = (args.next().unwrap_or(1_000_000), args.next().unwrap_or(100_000));
    let log = batches(events, videos);
    let events = (log.len() * BATCH) as f64;
    let payload: usize = log.iter().map(|(_, payload)| payload.len()).sum();
    println!("log: {:.1} bytes an event", payload as f64 / events);

    let began = cpu();
    let mut files = Vec::new();
    let new = |from, clock| Draft::new(Source(0), from, clock, RangeBounds::default(), Forgotten::default());
    let mut draft = new(Offset(0), None);
    for (offset, entry) in (0..).zip(&log) {
        draft.push(&record(offset, entry));
        if draft.is_full() {
            let next = new(draft.next(), draft.clock());
            files.extend(std::mem::replace(&mut draft, next).finish().unwrap());
        }
    }
    files.extend(draft.finish().unwrap());
    let bytes: u64 = files.iter().map(|file| file.file.bytes).sum();
    println!(
        "archive: {:.1} bytes an event, {} files, written in {:.0} ns an event",
        bytes as f64 / events,
        files.len(),
        (cpu() - began) / events
    );
    by_column(&files, events);

    let began = cpu();
    let mut live = new_fold();
    (0..).zip(&log).for_each(|(offset, entry)| live.apply(&record(offset, entry)));
    println!("fold of the log: {:.0} ns an event", (cpu() - began) / events);
    let (read, folded) = read_back(files, log.len() as u64, events);
    println!("read back: {read:.0} ns an event; with the fold {folded:.0}");
}

fn by_column(files: &[DraftFile], events: f64) {
    let mut columns: BTreeMap<String, i64> = BTreeMap::new();
    for file in files {
        for group in SerializedFileReader::new(file.content.clone()).unwrap().metadata().row_groups() {
            for column in group.columns() {
                *columns.entry(column.column_path().string()).or_default() += column.compressed_size();
            }
        }
    }
    let mut columns: Vec<_> = columns.into_iter().collect();
    columns.sort_by_key(|(_, bytes)| -bytes);
    let shown: Vec<_> = columns.iter().take(9).map(|(name, bytes)| format!("{name} {:.2}", *bytes as f64 / events)).collect();
    println!("  {}", shown.join(", "));
}

/// ns for each event of reading alone, and of reading and folding.
fn read_back(files: Vec<DraftFile>, end: u64, events: f64) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path().to_str().unwrap(), &BucketOptions::default()).unwrap();
    let mut manifest = Manifest { head: ArchiveHead { end: Offset(end), ..ArchiveHead::default() }, files: Vec::new() };
    for DraftFile { file, content } in files {
        runtime.block_on(shelf.put(&file.path(Source(0)), content)).unwrap();
        manifest.files.push(file);
    }
    let read = |each: &mut (dyn FnMut(Record<'_>) -> ControlFlow<()> + Send)| {
        let began = cpu();
        let mut reader = Reader::new(shelf.clone(), Source(0), &manifest, Offset(0), Offset(end)).unwrap();
        while runtime.block_on(reader.lend(usize::MAX, each)).unwrap() {}
        (cpu() - began) / events
    };
    let alone = read(&mut |_| ControlFlow::Continue(()));
    let mut fold = new_fold();
    let folded = read(&mut |record| {
        fold.apply(&record);
        ControlFlow::Continue(())
    });
    (alone, folded)
}
