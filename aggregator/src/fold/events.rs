//! Events of JSON records, one a record or one a line: decoded, classified by the log clock, known as duplicates, counted.
//!
//! An event that is counted waits for memory four times: for its id, its entities' places, the entities and their cells. So a few
//! events are decoded ahead, and what each will need is touched in steps before the first of them is taken in its turn. What is
//! found ahead is a hint: it is looked at again before it is believed.

use schemas::{Counts, Dimension, Event, EventHash, Minute, Record, Rejection, Stage, json};

use super::cells::AHEAD;
use super::entities::EntityIx;
use super::{Fold, classify};

/// An event, and where to look for what it needs.
pub(super) struct Decoded<'a> {
    event: Event<'a>,
    id: EventHash,
    video: Hint,
    space: Hint,
}

/// The hash of an entity's name, and the place where that was last seen.
#[derive(Clone, Copy)]
pub(super) struct Hint {
    pub(super) hash: u32,
    pub(super) place: EntityIx,
}

impl Hint {
    pub(super) const NONE: Self = Self { hash: 0, place: EntityIx::MAX };
}

pub(super) type Outcome<'a> = Result<Decoded<'a>, Rejection>;

impl Fold {
    /// Folds records of one event each.
    pub(super) fn apply_singles(&mut self, records: &[Record<'_>]) {
        let mut ahead: Vec<Outcome<'_>> = records.iter().map(|record| self.decode(record.payload)).collect();
        self.look_ahead(&mut ahead);
        for (record, decoded) in records.iter().zip(ahead) {
            self.begin(record);
            self.settle_raw(record, 0, record.payload, decoded);
            self.end(record);
        }
    }

    /// Folds the events of a record that has one on each line.
    pub(super) fn apply_lines(&mut self, record: &Record<'_>) {
        let mut lines = (0u32..).zip(json::lines(record.payload));
        let (mut raw, mut ahead) = (Vec::with_capacity(AHEAD), Vec::with_capacity(AHEAD));
        loop {
            raw.extend(lines.by_ref().take(AHEAD));
            if raw.is_empty() {
                return;
            }
            ahead.extend(raw.iter().map(|(_, raw)| self.decode(raw)));
            self.look_ahead(&mut ahead);
            for ((index, raw), decoded) in raw.drain(..).zip(ahead.drain(..)) {
                self.settle_raw(record, index, raw, decoded);
            }
        }
    }

    pub(super) fn decode<'a>(&self, raw: &'a [u8]) -> Outcome<'a> {
        json::decode(raw).map(|event| self.prepare(event))
    }

    pub(super) fn prepare<'a>(&self, event: Event<'a>) -> Decoded<'a> {
        let entities = &self.cells.entities;
        let hint = |dimension, id: &str| Hint { hash: entities.hash(dimension, id), ..Hint::NONE };
        let video = hint(Dimension::Video, &event.video_id);
        let space = event.space_id.as_deref().map_or(Hint::NONE, |id| hint(Dimension::Space, id));
        let id = if self.ids.is_off() { EventHash(0) } else { EventHash::of(&event.event_id) };
        Decoded { event, id, video, space }
    }

    /// Touches what these events need, step by step, so that the waits for memory overlap.
    fn look_ahead(&self, ahead: &mut [Outcome<'_>]) {
        let entities = &self.cells.entities;
        for decoded in ahead.iter_mut().flatten() {
            self.ids.touch(decoded.id);
            decoded.video.place = entities.likely(decoded.video.hash);
            if decoded.event.space_id.is_some() {
                decoded.space.place = entities.likely(decoded.space.hash);
            }
        }
        for decoded in ahead.iter().flatten() {
            entities.touch(decoded.video.place);
            entities.touch(decoded.space.place);
        }
        for decoded in ahead.iter().flatten() {
            self.cells.touch_latest_minute(decoded.video.place);
            self.cells.touch_latest_minute(decoded.space.place);
        }
    }

    /// As [`Fold::settle`]; a refused event is rejected with its bytes.
    #[inline]
    pub(super) fn settle_raw(&mut self, record: &Record<'_>, index: u32, raw: &[u8], decoded: Outcome<'_>) {
        if let Err((stage, rejection)) = self.settle(record, decoded) {
            self.reject(record, index, stage, rejection, raw);
        }
    }

    /// Counts an event or knows it as a duplicate; or says in which stage it is refused, and why.
    #[inline]
    pub(super) fn settle(&mut self, record: &Record<'_>, decoded: Outcome<'_>) -> Result<(), (Stage, Rejection)> {
        let decoded = decoded.map_err(|rejection| (Stage::Decode, rejection))?;
        self.apply_event(record, &decoded).map_err(|rejection| (Stage::Classify, rejection))
    }

    fn apply_event(&mut self, record: &Record<'_>, decoded: &Decoded<'_>) -> Result<(), Rejection> {
        let Decoded { event, id, .. } = decoded;
        let clock = self.at.clock;
        classify::judge(event.ts, clock, record.historical, &self.settings)?;
        if self.ids.see(*id, Minute::of(clock)) {
            self.tally.duplicate += 1;
            return Ok(());
        }
        self.tally.counted += 1;
        let minute = Minute::of(event.ts);
        for entity in self.entities_of(decoded).into_iter().flatten() {
            self.count(entity, minute, record.offset, Counts::of(event.kind));
        }
        Ok(())
    }

    fn entities_of(&mut self, Decoded { event, video, space, .. }: &Decoded<'_>) -> [Option<EntityIx>; 3] {
        let entities = &mut self.cells.entities;
        let video = entities.intern_at(*video, Dimension::Video, &event.video_id);
        let space = event.space_id.as_deref().map(|id| entities.intern_at(*space, Dimension::Space, id));
        [Some(video), space, Some(self.site)]
    }
}
