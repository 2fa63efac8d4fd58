//! Real folds of several sources over any store, and beside them the plain list of what they count.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregator::fold::{Fold, FoldLimits};
use aggregator::{CountStore, Touched};
use schemas::correction::{Adjustment, Delta};
use schemas::{Counts, Dimension, Entity, FoldSettings, Millis, Minute, Offset, Record, RecordKind, Source};

/// One thing that comes to a source.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A view of a video at so many minutes from the log's clock, which has advanced by so many seconds.
    View { after_s: i64, video: u8, minutes: i32, engaged: bool },
    /// Views are taken away from, or added to, a closed minute so long ago.
    Adjust { video: u8, minutes_ago: i32, views: i64 },
    /// What was folded goes into the store.
    Flush,
}

/// One source: its fold, and what it has counted by (video, minute).
pub(crate) struct Folded {
    source: Source,
    fold: Fold,
    next: u64,
    clock: Millis,
    adjustments: u64,
    counted: BTreeMap<(u8, Minute), Counts>,
    touched: BTreeMap<i32, Offset>,
}

/// The space of a video.
pub(crate) fn space_of(video: u8) -> String {
    format!("s{}", video % 5)
}

/// The id of a video. Some begin another's, some sort oddly.
pub(crate) fn video_id(video: u8) -> String {
    match video % 4 {
        0 => format!("v{video}"),
        1 => format!("V-{video}"),
        2 => format!("é{video}"),
        _ => format!("v{video}/v"),
    }
}

impl Folded {
    pub(crate) fn new(source: u32, clock: Millis) -> Self {
        let source = Source(source);
        let fold = Fold::new(source, FoldSettings::default(), FoldLimits::default(), None, Offset(0));
        Self { source, fold, next: 0, clock, adjustments: 0, counted: BTreeMap::new(), touched: BTreeMap::new() }
    }

    pub(crate) async fn step(&mut self, step: &Step, store: &dyn CountStore) {
        match step {
            Step::View { after_s, video, minutes, engaged } => {
                self.clock = self.clock.plus(after_s * 1_000);
                let at = Minute::of(self.clock).plus((*minutes).min(0));
                let kind = if *engaged { "engaged" } else { "view" };
                let event = format!(
                    r#"{{"event_id":"{}-{}","video_id":"{}","space_id":"{}","ts":{},"kind":"{kind}"}}"#,
                    self.source,
                    self.next,
                    video_id(*video),
                    space_of(*video),
                    at.start().0
                );
                let counts = if *engaged { Counts::ENGAGED } else { Counts::VIEW };
                self.apply(RecordKind::Json, &event);
                self.count(*video, at, counts);
            }
            Step::Adjust { video, minutes_ago, views } => {
                let minute = Minute::of(self.clock).plus(-minutes_ago - 2);
                let counts = Counts { gross: *views, valid: *views, engaged: 0 };
                let entities = [(Dimension::Video, video_id(*video)), (Dimension::Space, space_of(*video))]
                    .map(|(dimension, id)| Entity::new(dimension, &id));
                let deltas = vec![Delta { minute, entities: entities.into(), counts }];
                let adjustment = Adjustment { after: self.adjustments, reason: "test".into(), deltas };
                if minute.start() >= self.fold.closed() {
                    return;
                }
                self.apply(RecordKind::Adjustment, &serde_json::to_string(&adjustment).unwrap());
                self.adjustments += 1;
                self.count(*video, minute, counts);
            }
            Step::Flush => self.flush(store).await,
        }
    }

    fn apply(&mut self, kind: RecordKind, payload: &str) {
        let record = Record { offset: Offset(self.next), append_time: self.clock, kind, historical: true, payload: payload.as_bytes() };
        self.fold.apply(&record);
        self.next += 1;
    }

    fn count(&mut self, video: u8, minute: Minute, counts: Counts) {
        *self.counted.entry((video, minute)).or_default() += counts;
        if minute.start() < self.fold.closed() {
            self.touched.insert(minute.0.div_euclid(1_440), Offset(self.next));
        }
    }

    /// As an owner does it: cells that are missing, rows, announcements, the checkpoint.
    pub(crate) async fn flush(&mut self, store: &dyn CountStore) {
        while let Some(load) = self.fold.poll_load() {
            let rows = store.read_cells(load.keys.clone()).await.unwrap();
            self.fold.loaded(&load, &rows);
        }
        let Some(flush) = self.fold.take_flush() else { return };
        store.write_rows(Arc::new(flush.rollups)).await.unwrap();
        store.write_rows(Arc::new(flush.minutes)).await.unwrap();
        let stamp = flush.checkpoint.stamp;
        let touched = std::mem::take(&mut self.touched).into_iter().map(|(day, version)| Touched { day, version, stamp }).collect();
        store.write_touched(self.source, touched).await.unwrap();
        store.write_checkpoint(self.source, flush.checkpoint).await.unwrap();
        self.fold.flushed();
    }

    /// The sums by video, or by space, of the minutes in `[start, end)` that are closed.
    pub(crate) fn sums(&self, dimension: Dimension, start: Minute, end: Minute) -> BTreeMap<String, Counts> {
        let closed = Minute::of(self.fold.closed());
        let mut sums = BTreeMap::new();
        for ((video, _), counts) in self.counted.iter().filter(|((_, at), _)| start <= *at && *at < end.min(closed)) {
            let id = if dimension == Dimension::Space { space_of(*video) } else { video_id(*video) };
            *sums.entry(id).or_insert(Counts::ZERO) += *counts;
        }
        sums
    }
}

/// The sums of several sources.
pub(crate) fn all_sums(sources: &[Folded], dimension: Dimension, start: Minute, end: Minute) -> BTreeMap<String, Counts> {
    let mut all = BTreeMap::new();
    for (id, counts) in sources.iter().flat_map(|source| source.sums(dimension, start, end)) {
        *all.entry(id).or_insert(Counts::ZERO) += counts;
    }
    all
}
