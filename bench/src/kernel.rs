//! Decoding and folding from memory, on one thread.

use std::hint::black_box;

use aggregator::fold::{Fold, FoldLimits};
use schemas::{FoldSettings, Millis, Offset, Record, RecordKind, Source, json};

use crate::Bench;
use crate::events::{self, Shape};
use crate::usage::per_cpu_second;

const EVENTS: usize = 1_000_000;
const EVENTS_PER_RECORD: usize = 500;
const SHAPE: Shape = Shape { events: EVENTS, videos: 100_000, start_ms: 1_763_640_000_000, span_ms: 600_000 };

struct Stored {
    append_time: i64,
    payload: Vec<u8>,
}

/// Records of `per_record` events each, NDJSON or single.
fn records(per_record: usize) -> Vec<Stored> {
    let mut records: Vec<Stored> = Vec::new();
    events::generate(SHAPE, |n, video, viewer, ts| {
        if n % per_record == 0 {
            records.push(Stored { append_time: 0, payload: Vec::new() });
        }
        let record = records.last_mut().unwrap();
        record.append_time = record.append_time.max(ts);
        events::write_json(&mut record.payload, n, video, viewer, ts);
        if per_record > 1 {
            record.payload.push(b'\n');
        }
    });
    records
}

/// Folds all records; what it flushes, whenever the owner would for its size, goes nowhere.
fn fold(records: &[Stored], kind: RecordKind, dedup_minutes: i32) {
    let settings = FoldSettings { dedup_minutes, ..FoldSettings::default() };
    let mut fold = Fold::new(Source(0), settings, FoldLimits::default(), None, Offset(0));
    for (offset, record) in (0..).zip(records) {
        let append_time = Millis(record.append_time);
        fold.apply(&Record { offset: Offset(offset), append_time, kind, historical: false, payload: &record.payload });
        if fold.is_heavy() {
            while let Some(load) = fold.poll_load() {
                let nothing = vec![None; load.keys.len()];
                fold.loaded(&load, &nothing);
            }
            black_box(fold.take_flush());
            fold.flushed();
        }
    }
    assert_eq!(fold.tally().counted, EVENTS as u64);
}

pub(crate) fn benches() -> Vec<Bench> {
    let batched = std::rc::Rc::new(records(EVENTS_PER_RECORD));
    let single = std::rc::Rc::new(records(1));
    let with = |records: &std::rc::Rc<Vec<Stored>>, kind, dedup| {
        let records = std::rc::Rc::clone(records);
        Box::new(move || per_cpu_second(EVENTS, || fold(&records, kind, dedup)))
    };
    let decode = {
        let records = std::rc::Rc::clone(&batched);
        Box::new(move || {
            per_cpu_second(EVENTS, || {
                for line in records.iter().flat_map(|record| json::lines(&record.payload)) {
                    black_box(json::decode(line).unwrap());
                }
            })
        })
    };
    let unit = "events/CPU-s";
    vec![
        ("decode", unit, None, decode),
        ("fold_dedup", unit, Some(1e6), with(&batched, RecordKind::Ndjson, 10)),
        ("fold_no_dedup", unit, Some(1e6), with(&batched, RecordKind::Ndjson, 0)),
        ("fold_single_events", unit, Some(1e6), with(&single, RecordKind::Json, 10)),
    ]
}
