//! Decoding and folding from memory, on one thread.
//!
//! The log goes at 10,000 events a second over 100,000 videos (Zipf, exponent 1), and the first half is not measured: tables have
//! their size then, as in a program that has run for a while. What the fold flushes, whenever its owner would for its size, goes
//! nowhere.

use std::hint::black_box;

use aggregator::fold::{Fold, FoldLimits};
use schemas::{FoldSettings, Millis, Offset, Record, RecordKind, Source, json};

use crate::Bench;
use crate::events::{self, Shape};
use crate::usage::per_cpu_second;

/// Events that are measured; as many go before them.
const EVENTS: usize = 1_000_000;
const EVENTS_PER_RECORD: usize = 500;
const SHAPE: Shape = Shape { events: 2 * EVENTS, videos: 100_000, start_ms: 1_763_640_000_000, span_ms: 200_000 };

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

/// Folds all records, and returns the events of the second half per CPU-second.
fn fold(records: &[Stored], kind: RecordKind, dedup_minutes: i32) -> f64 {
    let settings = FoldSettings { dedup_minutes, ..FoldSettings::default() };
    let mut fold = Fold::new(Source(0), settings, FoldLimits::default(), None, Offset(0));
    let half = records.len() / 2;
    let mut records = (0..).zip(records);
    let apply = |fold: &mut Fold, records: usize, source: &mut dyn Iterator<Item = (u64, &Stored)>| {
        for (offset, record) in source.take(records) {
            let append_time = Millis(record.append_time);
            fold.apply(&Record { offset: Offset(offset), append_time, kind, historical: false, payload: &record.payload });
            if fold.is_heavy() {
                flush(fold);
            }
        }
    };
    apply(&mut fold, half, &mut records);
    let rate = per_cpu_second(EVENTS, || apply(&mut fold, half, &mut records));
    assert_eq!(fold.tally().counted, 2 * EVENTS as u64);
    rate
}

fn flush(fold: &mut Fold) {
    while let Some(load) = fold.poll_load() {
        let nothing = vec![None; load.keys.len()];
        fold.loaded(&load, &nothing);
    }
    black_box(fold.take_flush());
    fold.flushed();
}

pub(crate) fn benches() -> Vec<Bench> {
    let batched = std::rc::Rc::new(records(EVENTS_PER_RECORD));
    let single = std::rc::Rc::new(records(1));
    let with = |records: &std::rc::Rc<Vec<Stored>>, kind, dedup| {
        let records = std::rc::Rc::clone(records);
        Box::new(move || fold(&records, kind, dedup))
    };
    let decode = {
        let records = std::rc::Rc::clone(&batched);
        Box::new(move || {
            per_cpu_second(2 * EVENTS, || {
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
