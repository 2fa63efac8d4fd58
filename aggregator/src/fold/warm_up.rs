//! Warm-up: records that a checkpoint holds already are read again for what it does not hold, the ids and the open minutes.

use schemas::view_batch::ViewBatch;
use schemas::{Counts, Dimension, Event, EventHash, Kind, Millis, Minute, Record, RecordKind, json};

use super::cell::Op;
use super::{Fold, classify};

/// What warm-up needs of an event.
struct Seen<'a> {
    id: EventHash,
    video: &'a str,
    space: Option<&'a str>,
    ts: Millis,
    kind: Kind,
}

impl<'a> Seen<'a> {
    fn of(event: &'a Event<'_>) -> Self {
        let id = EventHash::of(&event.event_id);
        Self { id, video: &event.video_id, space: event.space_id.as_deref(), ts: event.ts, kind: event.kind }
    }
}

impl Fold {
    /// Reads one record of the warm-up range: rebuilds the id set and the open minutes, and changes nothing else.
    pub fn warm_up(&mut self, record: &Record<'_>) {
        self.warm_clock = self.warm_clock.max(record.append_time);
        self.warm_index.note(self.warm_clock, record.offset);
        match record.kind {
            RecordKind::Json => self.warm_up_json(record, record.payload),
            RecordKind::Ndjson => json::lines(record.payload).for_each(|line| self.warm_up_json(record, line)),
            RecordKind::ViewBatch => self.warm_up_batch(record),
            _ => {}
        }
    }

    fn warm_up_json(&mut self, record: &Record<'_>, raw: &[u8]) {
        if let Ok(event) = json::decode(raw) {
            self.warm_up_event(record, &Seen::of(&event));
        }
    }

    fn warm_up_batch(&mut self, record: &Record<'_>) {
        let Ok(batch) = ViewBatch::read(record.payload) else { return };
        if !batch.ids_are_plain() {
            batch.events().flatten().for_each(|whole| self.warm_up_event(record, &Seen::of(&whole.event)));
            return;
        }
        let spaces: Vec<&str> = batch.spaces().collect();
        let space = |place: u32| spaces.get(place as usize).copied();
        let dictionary: Vec<_> = batch.entries().map(|entry| (entry.video, entry.space.and_then(space))).collect();
        for (view, id) in batch.views().zip(batch.event_ids()) {
            if let Some((video, space)) = dictionary.get(view.entry as usize) {
                self.warm_up_event(record, &Seen { id: id.hash(), video, space: *space, ts: view.ts, kind: view.kind });
            }
        }
    }

    fn warm_up_event(&mut self, record: &Record<'_>, event: &Seen<'_>) {
        let clock = self.warm_clock;
        if classify::refusal(event.ts, clock, record.historical, &self.settings).is_some() {
            return;
        }
        let rebuilds = self.at.closed != Minute::NEVER && clock >= self.at.closed.start().plus(-self.settings.max_skew_ms);
        let duplicate = self.ids.see(event.id, Minute::of(clock));
        let minute = Minute::of(event.ts);
        if duplicate || !rebuilds || minute < self.at.closed {
            return;
        }
        // Their stamps are not known here, nor needed: a row is written only after a new change, which brings its own.
        let change = self.change(record.offset, Minute::NEVER, Op::Add(Counts::of(event.kind)));
        let entities = &mut self.cells.entities;
        let video = entities.intern(Dimension::Video, event.video);
        let space = event.space.map(|id| entities.intern(Dimension::Space, id));
        for entity in [Some(video), space, Some(self.site)].into_iter().flatten() {
            let ix = self.cells.open_minute(entity, minute);
            self.cells.rebuild(ix, change);
        }
    }
}
