//! What records do to cells, told as small stories. The simulation tests the same fold at random.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use aggregator::Touched;
use aggregator::fold::{Flush, Fold, FoldLimits};
use schemas::correction::{self, Adjustment, Delta, RepairCell, RepairMark, RepairSet};
use schemas::{
    CellKey, Checkpoint, Counts, Dimension, Entity, FoldSettings, Millis, Minute, Offset, Reason, Record, RecordKind, Source, StoredRow,
    Tier,
};

const T0: i64 = 1_763_640_000_000; // 2025-11-20T12:00:00Z

/// A fold with a store beside it.
struct Bench {
    fold: Fold,
    rows: BTreeMap<CellKey, StoredRow>,
    checkpoint: Option<Checkpoint>,
    log: Vec<(i64, RecordKind, bool, String)>,
}

impl Bench {
    fn new(settings: FoldSettings) -> Self {
        let fold = Fold::new(Source(0), settings, FoldLimits::default(), None, Offset(0));
        Self { fold, rows: BTreeMap::new(), checkpoint: None, log: Vec::new() }
    }

    fn append(&mut self, at: i64, kind: RecordKind, historical: bool, payload: &str) {
        self.log.push((T0 + at, kind, historical, payload.to_owned()));
        let offset = self.log.len() - 1;
        apply(&mut self.fold, &self.log, offset);
    }

    fn view(&mut self, at: i64, id: &str, video: &str, ts: i64) {
        let json = format!(r#"{{"event_id":"{id}","video_id":"{video}","space_id":"s","ts":{}}}"#, T0 + ts);
        self.append(at, RecordKind::Json, false, &json);
    }

    fn tick(&mut self, at: i64) {
        self.append(at, RecordKind::Tick, false, "");
    }

    fn flush(&mut self) -> Flush {
        while let Some(load) = self.fold.poll_load() {
            let rows: Vec<_> = load.keys.iter().map(|key| self.rows.get(key).copied()).collect();
            self.fold.loaded(&load, &rows);
        }
        let flush = self.fold.take_flush().unwrap();
        self.rows.extend(flush.rollups.iter().chain(&flush.minutes).cloned());
        self.checkpoint = Some(flush.checkpoint.clone());
        self.fold.flushed();
        flush
    }

    fn restart(&mut self) {
        let checkpoint = self.checkpoint.clone().unwrap();
        self.fold = Fold::new(Source(0), checkpoint.settings.clone(), FoldLimits::default(), Some(&checkpoint), Offset(0));
        for offset in checkpoint.warm_from.0..checkpoint.next_offset.0 {
            let (append_time, kind, historical, payload) = &self.log[offset as usize];
            self.fold.warm_up(&record(offset, *append_time, *kind, *historical, payload));
        }
        for offset in checkpoint.next_offset.0 as usize..self.log.len() {
            apply(&mut self.fold, &self.log, offset);
        }
    }

    fn views(&self, tier: Tier, video: &str, ts: i64) -> i64 {
        self.row(tier, &Entity::new(Dimension::Video, video), ts).map_or(0, |stored| stored.row.counts.gross)
    }

    fn row(&self, tier: Tier, entity: &Entity, ts: i64) -> Option<StoredRow> {
        let bucket = tier.bucket(Minute::of(Millis(T0 + ts)));
        self.rows.get(&CellKey { entity: entity.clone(), bucket, source: Source(0) }).copied()
    }
}

fn record(offset: u64, append_time: i64, kind: RecordKind, historical: bool, payload: &str) -> Record<'_> {
    Record { offset: Offset(offset), append_time: Millis(append_time), kind, historical, payload: payload.as_bytes() }
}

fn apply(fold: &mut Fold, log: &[(i64, RecordKind, bool, String)], offset: usize) {
    let (append_time, kind, historical, payload) = &log[offset];
    fold.apply(&record(offset as u64, *append_time, *kind, *historical, payload));
}

#[test]
fn an_open_minute_is_a_minute_row_and_a_closed_one_is_rolled_up() {
    let mut bench = Bench::new(FoldSettings::default());
    bench.view(1_000, "a", "v", 500);
    bench.view(2_000, "b", "v", 700);
    bench.flush();
    assert_eq!(bench.views(Tier::Minute, "v", 0), 2);
    assert_eq!(bench.views(Tier::Hour, "v", 0), 0);
    bench.tick(70_000);
    let flush = bench.flush();
    assert!(flush.minutes.is_empty(), "closing changes no minute");
    for tier in Tier::ROLLUPS {
        assert_eq!(bench.views(tier, "v", 0), 2, "{tier:?}");
    }
    for entity in [Entity::site(), Entity::new(Dimension::Space, "s")] {
        let row = bench.row(Tier::Day, &entity, 0).unwrap().row;
        assert_eq!((row.counts, row.through, row.version), (Counts { gross: 2, valid: 2, engaged: 0 }, Millis(T0 + 60_000), Offset(3)));
    }
}

#[test]
fn a_late_event_changes_all_tiers_at_once() {
    let mut bench = Bench::new(FoldSettings::default());
    bench.tick(200_000);
    bench.view(200_001, "a", "v", 500);
    bench.flush();
    for tier in Tier::ALL {
        assert_eq!(bench.views(tier, "v", 0), 1, "{tier:?}");
    }
}

#[test]
fn every_event_is_counted_or_duplicate_or_rejected() {
    let mut bench = Bench::new(FoldSettings { max_lateness_ms: 3_600_000, ..FoldSettings::default() });
    bench.view(0, "a", "v", 0);
    bench.view(0, "a", "v", 0);
    bench.view(0, "future", "v", 60_001);
    bench.view(0, "old", "v", -3_600_001);
    bench.append(0, RecordKind::Json, false, "{nonsense");
    bench.append(0, RecordKind::Unknown(99), false, "???");
    let old = format!(r#"{{"event_id":"old","video_id":"v","ts":{}}}"#, T0 - 3_600_001);
    bench.append(0, RecordKind::Ndjson, true, &format!("{old}\n\n{old}\n"));
    let flush = bench.flush();
    let tally = &flush.checkpoint.tally;
    assert_eq!((tally.counted, tally.duplicate, tally.rejected_events(), tally.events()), (2, 2, 4, 8));
    let letters: Vec<_> = flush.dead_letters.iter().map(|letter| (letter.offset.0, letter.reason)).collect();
    assert_eq!(letters, [(2, Reason::InFuture), (3, Reason::TooOld), (4, Reason::BadJson), (5, Reason::UnknownRecord)]);
    assert_eq!(bench.views(Tier::Minute, "v", -3_600_001), 1, "what was too old counts when it is sent as historical");
}

#[test]
fn a_duplicate_is_known_for_the_window_from_when_it_was_last_seen() {
    let mut bench = Bench::new(FoldSettings { dedup_minutes: 2, ..FoldSettings::default() });
    for (at, counted) in [(0, 1), (2 * 60_000, 1), (4 * 60_000, 1), (7 * 60_000, 2)] {
        bench.view(at, "a", "v", at);
        assert_eq!(bench.fold.tally().counted, counted, "at {at}");
    }
}

#[test]
fn a_restart_goes_on_as_if_nothing_had_happened() {
    let mut straight = Bench::new(FoldSettings::default());
    let mut broken = Bench::new(FoldSettings::default());
    for bench in [&mut straight, &mut broken] {
        bench.view(1_000, "a", "v", 500);
        bench.view(61_000, "b", "w", 60_500);
        bench.flush();
        bench.view(65_000, "c", "v", 64_000);
    }
    broken.restart();
    for bench in [&mut straight, &mut broken] {
        bench.view(66_000, "a", "v", 500);
        bench.view(140_000, "d", "v", 64_000);
        bench.flush();
    }
    assert_eq!(straight.rows, broken.rows);
    assert_eq!(straight.checkpoint, broken.checkpoint);
    assert_eq!(broken.checkpoint.unwrap().tally.duplicate, 1, "the id was known again");
}

#[test]
fn an_adjustment_is_taken_once_and_only_of_closed_minutes() {
    let mut bench = Bench::new(FoldSettings::default());
    bench.view(1_000, "a", "v", 500);
    let adjust = |after, minute: i64| {
        let entities = vec![Entity::new(Dimension::Video, "v"), Entity::site()];
        let deltas = vec![Delta { minute: Minute::of(Millis(T0 + minute)), entities, counts: -Counts::VIEW }];
        String::from_utf8(correction::encode(&Adjustment { after, reason: "fraud".into(), deltas })).unwrap()
    };
    bench.append(2_000, RecordKind::Adjustment, false, &adjust(0, 0));
    bench.tick(80_000);
    bench.append(80_000, RecordKind::Adjustment, false, &adjust(0, 0));
    bench.append(80_000, RecordKind::Adjustment, false, &adjust(0, 0));
    let flush = bench.flush();
    assert_eq!(flush.checkpoint.adjustments, 1);
    let reasons: Vec<_> = flush.dead_letters.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [Reason::MinuteOpen, Reason::StaleAdjustment]);
    for tier in Tier::ALL {
        assert_eq!(bench.views(tier, "v", 0), 0, "{tier:?}");
    }
}

#[test]
fn a_repair_restores_a_damaged_cell_and_keeps_what_came_meanwhile() {
    let mut bench = Bench::new(FoldSettings::default());
    bench.view(1_000, "a", "v", 500);
    bench.tick(80_000);
    bench.flush();
    let entity = Entity::new(Dimension::Video, "v");
    let bucket = Tier::Hour.bucket(Minute::of(Millis(T0)));
    bench.rows.get_mut(&CellKey { entity: entity.clone(), bucket, source: Source(0) }).unwrap().row.counts =
        Counts { gross: 77, valid: 3, engaged: 9 };
    bench.restart();
    let cell = RepairCell { tier: Tier::Hour, entity, start: bucket.start };
    let mark = String::from_utf8(correction::encode(&RepairMark { cells: vec![cell.clone()] })).unwrap();
    bench.append(80_000, RecordKind::Mark, false, &mark);
    let marked_at = Offset(bench.log.len() as u64 - 1);
    bench.view(80_001, "late", "v", 500);
    let set = correction::encode(&RepairSet { mark: marked_at, cells: vec![(cell, Counts::VIEW)] });
    bench.append(80_002, RecordKind::Set, false, &String::from_utf8(set).unwrap());
    bench.flush();
    assert_eq!(bench.views(Tier::Hour, "v", 0), 2);
}

#[test]
fn a_tier_skips_what_it_no_longer_keeps() {
    let day = 86_400_000;
    let mut bench = Bench::new(FoldSettings { minute_ttl_ms: 10 * day, hour_ttl_ms: 20 * day, ..FoldSettings::default() });
    let old = |days: i64| format!(r#"{{"event_id":"{days}","video_id":"v","ts":{}}}"#, T0 - days * day);
    bench.append(0, RecordKind::Ndjson, true, &format!("{}\n{}\n{}", old(9), old(19), old(29)));
    bench.flush();
    let stored = |days: i64| Tier::ALL.map(|tier| bench.views(tier, "v", -days * day) > 0);
    assert_eq!(stored(9), [true, true, true, true]);
    assert_eq!(stored(19), [false, true, true, true]);
    assert_eq!(stored(29), [false, false, true, true]);
}

const DAY_MS: i64 = 86_400_000;
const DAY: i32 = (T0 / DAY_MS) as i32;

/// Days by their distance from that of `T0`, with their versions.
fn touched(flush: &Flush) -> Vec<(i32, u64)> {
    flush
        .touched
        .iter()
        .map(|touched| (if touched.day == Touched::ALL { touched.day } else { touched.day - DAY }, touched.version.0))
        .collect()
}

#[test]
fn a_day_is_announced_when_closed_counts_of_it_change_and_closing_is_no_change() {
    let mut bench = Bench::new(FoldSettings::default());
    bench.view(0, "a", "v", 0);
    bench.view(1_000, "b", "v", 500);
    bench.tick(80_000);
    assert_eq!(touched(&bench.flush()), [], "closing");
    bench.view(80_000, "c", "v", 500);
    bench.view(80_001, "d", "v", 80_000);
    bench.view(80_002, "d", "v", 80_000);
    bench.view(80_003, "e", "v", -DAY_MS);
    let flush = bench.flush();
    assert_eq!(touched(&flush), [(-1, 7), (0, 4)], "late");
    let stamp = |tier, ts| bench.row(tier, &Entity::site(), ts).unwrap().stamp;
    assert_eq!(flush.touched.iter().map(|touched| touched.stamp).collect::<Vec<_>>(), [stamp(Tier::Day, -DAY_MS), stamp(Tier::Hour, 0)]);
    bench.view(80_004, "c", "v", 500);
    bench.view(80_005, "too old", "v", -8 * DAY_MS);
    bench.view(80_006, "in the future", "v", DAY_MS);
    assert_eq!(touched(&bench.flush()), [], "what is not counted changes nothing");
    bench.append(80_007, RecordKind::Json, true, &format!(r#"{{"event_id":"h","video_id":"v","ts":{}}}"#, T0 - 400 * DAY_MS));
    assert_eq!(touched(&bench.flush()), [(-400, 11)], "imported");
}

#[test]
fn corrections_of_closed_counts_are_announced_and_a_year_is_all_days() {
    let mut bench = Bench::new(FoldSettings::default());
    bench.view(1_000, "a", "v", 500);
    bench.tick(80_000);
    bench.flush();
    let entity = Entity::new(Dimension::Video, "v");
    let deltas = |ts: i64| vec![Delta { minute: Minute::of(Millis(T0 + ts)), entities: vec![entity.clone()], counts: -Counts::VIEW }];
    let adjust = |ts| String::from_utf8(correction::encode(&Adjustment { after: 0, reason: "fraud".into(), deltas: deltas(ts) })).unwrap();
    bench.append(80_000, RecordKind::Adjustment, false, &adjust(80_000));
    assert_eq!(touched(&bench.flush()), [], "refused: its minute is open");
    bench.append(80_000, RecordKind::Adjustment, false, &adjust(-2 * DAY_MS));
    assert_eq!(touched(&bench.flush()), [(-2, 4)]);
    for (tier, day) in [(Tier::Minute, 0), (Tier::Hour, 0), (Tier::Day, 0), (Tier::Year, Touched::ALL)] {
        let cell = RepairCell { tier, entity: entity.clone(), start: tier.bucket(Minute::of(Millis(T0))).start };
        let mark = correction::encode(&RepairMark { cells: vec![cell.clone()] });
        bench.append(80_000, RecordKind::Mark, false, &String::from_utf8(mark).unwrap());
        assert_eq!(touched(&bench.flush()), [], "a mark changes no count");
        let set = RepairSet { mark: Offset(bench.log.len() as u64 - 1), cells: vec![(cell, Counts::VIEW)] };
        bench.append(80_000, RecordKind::Set, false, &String::from_utf8(correction::encode(&set)).unwrap());
        let flush = bench.flush();
        assert_eq!(touched(&flush), [(day, bench.log.len() as u64)], "{tier:?}");
    }
}

#[test]
fn what_was_stored_and_not_announced_before_a_crash_is_announced_after_it() {
    let mut bench = Bench::new(FoldSettings::default());
    bench.tick(80_000);
    bench.flush();
    let checkpoint = bench.checkpoint.clone();
    bench.view(80_000, "late", "v", 500);
    assert_eq!(touched(&bench.flush()), [(0, 2)]);
    // The rows are stored; the rest of the flush is lost.
    bench.checkpoint = checkpoint;
    bench.restart();
    let flush = bench.flush();
    assert_eq!((flush.rollups, flush.minutes), (Vec::new(), Vec::new()), "no row changes");
    assert_eq!(touched(&bench.flush()), [], "once is enough");
    assert_eq!(flush.touched.iter().map(|touched| (touched.day, touched.version)).collect::<Vec<_>>(), [(DAY, Offset(2))]);
}
