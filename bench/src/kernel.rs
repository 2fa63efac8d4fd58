//! Decoding and folding from memory, on one thread.
//!
//! The log goes at 10,000 events a second over 100,000 videos (Zipf, exponent 1), and the first half is not measured: tables have
//! their size then, as in a program that has run for a while. What the fold flushes, whenever its owner would for its size, goes
//! nowhere.

use std::hint::black_box;
use std::ops::Range;
use std::rc::Rc;

use aggregator::fold::{Fold, FoldLimits};
use schemas::{FoldSettings, Millis, Offset, Record, RecordKind, Source, json};

use crate::Bench;
use crate::events::{self, Shape};
use crate::usage::per_cpu_second;

/// Events that are measured; as many go before them.
const EVENTS: usize = 1_000_000;
const EVENTS_PER_RECORD: usize = 500;
const SHAPE: Shape = Shape { events: 2 * EVENTS, videos: 100_000, start_ms: 1_763_640_000_000, span_ms: 200_000 };

/// Records side by side in one buffer, as a consumer fetches them.
struct Records {
    bytes: Vec<u8>,
    /// Append time, and where the payload lies.
    index: Vec<(i64, Range<usize>)>,
}

impl Records {
    /// Records of `per_record` events each: NDJSON, or one object.
    fn generate(per_record: usize) -> Self {
        let mut records = Self { bytes: Vec::new(), index: Vec::new() };
        events::generate(SHAPE, |n, video, viewer, ts| {
            let start = records.bytes.len();
            events::write_json(&mut records.bytes, n, video, viewer, ts);
            if per_record > 1 {
                records.bytes.push(b'\n');
            }
            let end = records.bytes.len();
            match records.index.last_mut().filter(|_| n % per_record != 0) {
                Some((append_time, range)) => (*append_time, range.end) = ((*append_time).max(ts), end),
                None => records.index.push((ts, start..end)),
            }
        });
        records
    }
}

/// Folds all records, and returns the events of the second half per CPU-second.
fn fold(records: &Records, kind: RecordKind, dedup_minutes: i32) -> f64 {
    let settings = FoldSettings { dedup_minutes, ..FoldSettings::default() };
    let mut fold = Fold::new(Source(0), settings, FoldLimits::default(), None, Offset(0));
    let half = records.index.len() / 2;
    let apply = |fold: &mut Fold, part: &[(i64, Range<usize>)]| {
        for (append_time, range) in part {
            let (offset, append_time, payload) = (fold.position(), Millis(*append_time), &records.bytes[range.clone()]);
            fold.apply(&Record { offset, append_time, kind, historical: false, payload });
            if fold.is_heavy() {
                flush(fold);
            }
        }
    };
    apply(&mut fold, &records.index[..half]);
    let rate = per_cpu_second(EVENTS, || apply(&mut fold, &records.index[half..]));
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
    let batched = Rc::new(Records::generate(EVENTS_PER_RECORD));
    let single = Rc::new(Records::generate(1));
    let with = |records: &Rc<Records>, kind, dedup| {
        let records = Rc::clone(records);
        Box::new(move || fold(&records, kind, dedup))
    };
    let decode = {
        let records = Rc::clone(&batched);
        Box::new(move || {
            per_cpu_second(2 * EVENTS, || {
                for line in json::lines(&records.bytes) {
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
        ("fold_single_events", unit, None, with(&single, RecordKind::Json, 10)),
    ]
}
