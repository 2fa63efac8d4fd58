//! What became of one event id along a part of a source: the fold's own rules, for one event instead of all.
//!
//! Exact from a place on at which the log clock is known and the ids of a whole deduplication window before it have been read: the same
//! that warm-up needs. The first record with an append time at or after an instant is such a place for the clock, because the clock is
//! the largest append time so far.

use schemas::view_batch::{EventId, ViewBatch};
use schemas::{EventHash, FoldSettings, Millis, Minute, Offset, Record, RecordKind, Rejection, Stage, json};
use serde::Deserialize;

use super::classify;
use super::ids::SeenIds;

/// The place of an event in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its record.
    pub offset: Offset,
    /// Its place in the record, from 0.
    pub index: u32,
}

/// What the rules say of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Counted,
    /// Its id was read before within the deduplication window: last here.
    Duplicate(Place),
    /// It is refused.
    Rejected(Stage, Rejection),
}

/// An event that bears the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Where.
    pub place: Place,
    /// When its record was appended.
    pub append_time: Millis,
    /// Whether its record is historical.
    pub historical: bool,
    /// What it is a view of, if that can be read.
    pub video_id: Option<String>,
    /// When it happened, if that can be read.
    pub ts: Option<Millis>,
    /// What the rules say of it.
    pub verdict: Verdict,
}

/// Follows one event id along a source.
pub struct Trace<'a> {
    event_id: &'a str,
    hash: EventHash,
    settings: &'a FoldSettings,
    clock: Millis,
    ids: SeenIds,
    last: Option<Place>,
}

/// An event that bears the id, as it is found.
struct Found {
    index: u32,
    video_id: Option<String>,
    ts: Option<Millis>,
    sound: Result<Millis, Rejection>,
}

impl<'a> Trace<'a> {
    /// Of this id, by these rules.
    pub fn new(event_id: &'a str, settings: &'a FoldSettings) -> Self {
        let ids = SeenIds::new(settings.dedup_minutes);
        Self { event_id, hash: EventHash::of(event_id), settings, clock: Millis::NEVER, ids, last: None }
    }

    /// Reads the next record, and gives each event in it that bears the id.
    pub fn read(&mut self, record: &Record<'_>, mut each: impl FnMut(Occurrence)) {
        self.clock = self.clock.max(record.append_time);
        match record.kind {
            RecordKind::Json => self.settle_all(record, self.in_json(0, record.payload), &mut each),
            RecordKind::Ndjson => {
                for (index, line) in (0..).zip(json::lines(record.payload)) {
                    self.settle_all(record, self.in_json(index, line), &mut each);
                }
            }
            RecordKind::ViewBatch => {
                for found in self.in_batch(record.payload) {
                    self.settle_all(record, Some(found), &mut each);
                }
            }
            _ => {}
        }
    }

    fn settle_all(&mut self, record: &Record<'_>, found: Option<Found>, each: &mut impl FnMut(Occurrence)) {
        let Some(Found { index, video_id, ts, sound }) = found else { return };
        let place = Place { offset: record.offset, index };
        let verdict = self.settle(place, record.historical, sound);
        each(Occurrence { place, append_time: record.append_time, historical: record.historical, video_id, ts, verdict });
    }

    /// In the fold's order: can it be read, does the clock let it count, has it been seen.
    fn settle(&mut self, place: Place, historical: bool, sound: Result<Millis, Rejection>) -> Verdict {
        let ts = match sound {
            Ok(ts) => ts,
            Err(rejection) => return Verdict::Rejected(Stage::Decode, rejection),
        };
        if let Err(rejection) = classify::judge(ts, self.clock, historical, self.settings) {
            return Verdict::Rejected(Stage::Classify, rejection);
        }
        let is_duplicate = self.ids.see(self.hash, Minute::of(self.clock));
        match self.last.replace(place).filter(|_| is_duplicate) {
            Some(before) => Verdict::Duplicate(before),
            None => Verdict::Counted,
        }
    }

    /// An event that cannot be used may still tell its id.
    fn in_json(&self, index: u32, raw: &[u8]) -> Option<Found> {
        match json::decode(raw) {
            Ok(event) if event.event_id == self.event_id => {
                Some(Found { index, video_id: Some(event.video_id.into_owned()), ts: Some(event.ts), sound: Ok(event.ts) })
            }
            Ok(_) => None,
            Err(rejection) => {
                #[derive(Deserialize)]
                struct Named {
                    event_id: String,
                    #[serde(default)]
                    video_id: serde_json::Value,
                }
                let named: Named = serde_json::from_slice(raw).ok()?;
                let video_id = named.video_id.as_str().map(str::to_owned);
                (named.event_id == self.event_id).then_some(Found { index, video_id, ts: None, sound: Err(rejection) })
            }
        }
    }

    fn in_batch(&self, payload: &[u8]) -> Vec<Found> {
        let Ok(batch) = ViewBatch::read(payload) else { return Vec::new() };
        let is_it = |id: EventId<'_>| match id {
            EventId::Text(text) => text == self.event_id,
            EventId::Uuid(_) => id.hash() == self.hash,
        };
        // Ids alone are a walk along their column.
        if !batch.event_ids().any(is_it) {
            return Vec::new();
        }
        let found = (0..).zip(batch.wholes()).filter(|(_, whole)| whole.event.event_id == self.event_id);
        let found = found.map(|(index, whole)| {
            let (video_id, ts) = (Some(whole.event.video_id.clone().into_owned()), whole.event.ts);
            Found { index, video_id, ts: Some(ts), sound: whole.check().map(|()| ts) }
        });
        found.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::view_batch::Writer;
    use schemas::{NewRecord, Reason, Source};

    use super::super::{Fold, FoldLimits};
    use super::*;

    const START: i64 = 1_763_640_000_000;

    fn event(id: u8, ts: i64) -> String {
        format!(r#"{{"event_id":"e{id}","video_id":"v","ts":{ts}}}"#)
    }

    fn record(form: u8, events: &[String], historical: bool) -> NewRecord {
        let record = match form {
            0 => NewRecord::new(RecordKind::Json, events[0].clone()),
            1 => NewRecord::new(RecordKind::Ndjson, events.join("\n")),
            _ => {
                let mut writer = Writer::new();
                events.iter().for_each(|event| writer.push(&json::decode(event.as_bytes()).unwrap(), None).unwrap());
                NewRecord::new(RecordKind::ViewBatch, writer.finish())
            }
        };
        NewRecord { historical, ..record }
    }

    #[test]
    fn an_event_that_cannot_be_used_is_found_by_its_id_if_that_can_be_read() {
        let settings = FoldSettings::default();
        let mut trace = Trace::new("e", &settings);
        let mut found = Vec::new();
        for (offset, raw) in (0..).zip([r#"{"event_id":"e","video_id":"v","ts":"soon"}"#, r#"{"event_id":"e"}"#, r#"{"event_id":"#, "7"]) {
            let record = Record {
                offset: Offset(offset),
                append_time: Millis(START),
                kind: RecordKind::Json,
                historical: false,
                payload: raw.as_bytes(),
            };
            trace.read(&record, |occurrence| found.push(occurrence));
        }
        let reasons: Vec<_> = found
            .iter()
            .map(|occurrence| match &occurrence.verdict {
                Verdict::Rejected(Stage::Decode, rejection) => rejection.reason,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(reasons, [Reason::BadTs, Reason::MissingField]);
    }

    proptest! {
        /// The traces of all ids together say of every event what the fold's tally says.
        #[test]
        fn it_says_what_the_fold_does(
            steps in proptest::collection::vec((0i64..200_000, 0u8..3, proptest::collection::vec((0u8..4, -70i64..12), 1..4), any::<bool>()), 1..40),
            dedup_minutes in 0i32..4,
        ) {
            let settings = FoldSettings { dedup_minutes, max_lateness_ms: 3_600_000, ..FoldSettings::default() };
            let (mut at, mut records) = (START, Vec::new());
            for (step, form, events, historical) in steps {
                at += step;
                let events: Vec<String> = events.into_iter().map(|(id, minutes)| event(id, at + minutes * 60_000)).collect();
                records.push((at, record(form, &events, historical)));
            }
            let mut fold = Fold::new(Source(0), settings.clone(), FoldLimits::default(), None, Offset(0));
            let lent = |(offset, (at, new)): (u64, &'_ (i64, NewRecord))| Record {
                offset: Offset(offset), append_time: Millis(*at), kind: new.kind, historical: new.historical,
                // The test's records outlive it.
                payload: Box::leak(new.payload.clone().into_boxed_slice()),
            };
            let records: Vec<Record<'_>> = (0..).zip(&records).map(lent).collect();
            let mut said = schemas::Tally::default();
            for record in &records {
                fold.apply(record);
            }
            for id in 0..4 {
                let id = format!("e{id}");
                let mut trace = Trace::new(&id, &settings);
                for record in &records {
                    trace.read(record, |occurrence| match occurrence.verdict {
                        Verdict::Counted => said.counted += 1,
                        Verdict::Duplicate(before) => {
                            assert!(before < occurrence.place);
                            said.duplicate += 1;
                        }
                        Verdict::Rejected(_, rejection) => said.reject(rejection.reason),
                    });
                }
            }
            prop_assert_eq!(&said, fold.tally());
        }
    }
}
