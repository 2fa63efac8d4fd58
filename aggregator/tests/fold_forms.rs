//! The form that events come in decides nothing: one a record, one a line or by columns, one record at a time or in runs,
//! they leave the same rows, tallies and dead letters.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use aggregator::Touched;
use aggregator::fold::{Flush, Fold, FoldLimits};
use proptest::prelude::*;
use proptest::sample::select;
use schemas::dead_letter::Original;
use schemas::view_batch::Writer;
use schemas::{CellKey, Checkpoint, Event, FoldSettings, Kind, Millis, Offset, Reason, Record, RecordKind, Source, StoredRow, json};

const T0: i64 = 1_763_640_000_000;

type Forms = Vec<(i64, bool, RecordKind, Vec<u8>)>;
type Letters = Vec<(Offset, u32, Reason, Original)>;

/// A fold with a store beside it, which is flushed when told.
struct Bench {
    fold: Fold,
    rows: BTreeMap<CellKey, StoredRow>,
    letters: Letters,
    touched: Vec<Vec<Touched>>,
    checkpoint: Option<Checkpoint>,
}

fn settings() -> FoldSettings {
    FoldSettings { dedup_minutes: 2, max_lateness_ms: 3_600_000, ..FoldSettings::default() }
}

const LIMITS: FoldLimits = FoldLimits { resident_cells: 20, pending_max: 1_000_000, dead_letter_bytes: 1 << 30, load_cells: 7 };

impl Bench {
    fn new() -> Self {
        let fold = Fold::new(Source(0), settings(), LIMITS, None, Offset(0));
        Self { fold, rows: BTreeMap::new(), letters: Vec::new(), touched: Vec::new(), checkpoint: None }
    }

    fn flush(&mut self) {
        while let Some(load) = self.fold.poll_load() {
            let rows: Vec<_> = load.keys.iter().map(|key| self.rows.get(key).copied()).collect();
            self.fold.loaded(&load, &rows);
        }
        let Flush { rollups, minutes, touched, dead_letters, checkpoint } = self.fold.take_flush().unwrap();
        self.rows.extend(rollups.iter().chain(&minutes).cloned());
        self.letters.extend(dead_letters.into_iter().map(|letter| (letter.offset, letter.index, letter.reason, letter.original)));
        self.touched.push(touched);
        self.checkpoint = Some(checkpoint);
        self.fold.recycle(rollups);
        self.fold.recycle(minutes);
        self.fold.flushed();
    }

    /// Starts again from the last checkpoint, `log` being what was folded up to it.
    fn restart(&mut self, log: &Forms) {
        let checkpoint = self.checkpoint.clone().unwrap();
        self.fold = Fold::new(Source(0), settings(), LIMITS, Some(&checkpoint), Offset(0));
        for record in &records(log, 0)[checkpoint.warm_from.0 as usize..checkpoint.next_offset.0 as usize] {
            self.fold.warm_up(record);
        }
    }

    fn end(mut self) -> (BTreeMap<CellKey, StoredRow>, Letters, Vec<Vec<Touched>>, Checkpoint) {
        self.flush();
        (self.rows, self.letters, self.touched, self.checkpoint.unwrap())
    }
}

fn records(log: &Forms, first: u64) -> Vec<Record<'_>> {
    (first..)
        .zip(log)
        .map(|(offset, (append_time, historical, kind, payload))| Record {
            offset: Offset(offset),
            append_time: Millis(*append_time),
            kind: *kind,
            historical: *historical,
            payload,
        })
        .collect()
}

fn event() -> impl Strategy<Value = Event<'static>> {
    let id = prop_oneof![
        (0u8..40).prop_map(|n| format!("00000000-0000-4000-8000-0000000000{n:02x}")),
        (0u8..40).prop_map(|n| format!("e{n}")),
        Just("é".to_owned()),
    ];
    let video = prop_oneof![9 => (0u8..12).prop_map(|n| format!("v{n}")), 1 => Just("a-video-with-a-name-that-is-long".to_owned())];
    let space = select(vec![None, Some("s1"), Some("s2")]);
    // Now, late, too old, in the future.
    let ago = prop_oneof![8 => -500i64..2_000, 2 => 0i64..400_000, 1 => Just(3_700_000i64), 1 => Just(-61_000i64)];
    (id, video, space, ago, any::<bool>(), proptest::option::of(0u64..9)).prop_map(|(id, video, space, ago, engaged, watch_ms)| Event {
        event_id: id.into(),
        video_id: video.into(),
        space_id: space.map(Into::into),
        viewer_id: watch_ms.map(|n| format!("u{n}").into()),
        ts: Millis(-ago),
        watch_ms,
        kind: if engaged { Kind::Engaged } else { Kind::View },
    })
}

/// Records by step of time, whether historical, and their events with `ts` from the append time on.
fn log() -> impl Strategy<Value = Vec<(i64, bool, Vec<Event<'static>>)>> {
    let record =
        (prop_oneof![Just(0i64), 0i64..3_000, 0i64..70_000], proptest::bool::weighted(0.1), proptest::collection::vec(event(), 1..50));
    proptest::collection::vec(record, 1..20).prop_map(|records| {
        let mut now = T0;
        let at = |(step, historical, mut events): (i64, bool, Vec<Event<'static>>)| {
            now += step;
            events.iter_mut().for_each(|event| event.ts = event.ts.plus(now));
            (now, historical, events)
        };
        records.into_iter().map(at).collect()
    })
}

fn lines(log: &[(i64, bool, Vec<Event<'_>>)]) -> Forms {
    let payload = |events: &[Event<'_>]| {
        let mut payload = Vec::new();
        for event in events {
            json::encode(event, &mut payload);
            payload.push(b'\n');
        }
        payload
    };
    log.iter().map(|(at, historical, events)| (*at, *historical, RecordKind::Ndjson, payload(events))).collect()
}

fn columns(log: &[(i64, bool, Vec<Event<'_>>)]) -> Forms {
    let payload = |events: &[Event<'_>]| {
        let mut writer = Writer::default();
        events.iter().for_each(|event| writer.push(event, None).unwrap());
        writer.finish()
    };
    log.iter().map(|(at, historical, events)| (*at, *historical, RecordKind::ViewBatch, payload(events))).collect()
}

fn singles(log: &[(i64, bool, Vec<Event<'_>>)]) -> Forms {
    let single = |at, historical, event: &Event<'_>| {
        let mut payload = Vec::new();
        json::encode(event, &mut payload);
        (at, historical, RecordKind::Json, payload)
    };
    log.iter().flat_map(|(at, historical, events)| events.iter().map(|event| single(*at, *historical, event))).collect()
}

proptest! {
    #[test]
    fn columns_are_folded_as_lines_are(log in log(), flushes in any::<u32>(), restarts in any::<u32>()) {
        let outcome = |forms: &Forms| {
            let mut bench = Bench::new();
            for (n, record) in (0..32).zip(records(forms, 0)) {
                bench.fold.apply(&record);
                if flushes >> n & 1 == 1 {
                    bench.flush();
                    if restarts >> n & 1 == 1 {
                        bench.restart(forms);
                    }
                }
            }
            bench.end()
        };
        prop_assert_eq!(outcome(&lines(&log)), outcome(&columns(&log)));
    }

    #[test]
    fn a_run_is_folded_as_its_records_one_by_one(log in log(), cuts in proptest::collection::vec(1usize..40, 1..40)) {
        // Runs of singles, with a record of another kind here and there.
        let mut forms = singles(&log);
        let others = columns(&log);
        for (n, other) in others.into_iter().enumerate() {
            let at = forms.len() * n / log.len();
            let time = forms.get(at.saturating_sub(1)).map_or(T0, |before| before.0);
            forms.insert(at, (time, other.1, other.2, other.3));
        }
        let outcome = |apply: fn(&mut Fold, &[Record<'_>])| {
            let mut bench = Bench::new();
            let records = records(&forms, 0);
            let (mut rest, mut cuts) = (records.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (run, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                apply(&mut bench.fold, run);
                bench.flush();
                rest = after;
            }
            bench.end()
        };
        prop_assert_eq!(outcome(|fold, run| fold.apply_run(run)), outcome(|fold, run| run.iter().for_each(|record| fold.apply(record))));
    }
}
