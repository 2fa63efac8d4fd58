//! Raw events as what to append to each source, and a verdict on each event.
//!
//! ```text
//! raw event ──> json::decode ──> Partitioner ──> one more line in its source's record
//!                     └──> refused: index, reason, detail
//! ```
//!
//! Pure. The raw bytes go to the log as they came, but for line breaks between JSON tokens, which become spaces: one event
//! is one line. A good event costs no allocation beyond the growth of its record.

use std::collections::BTreeMap;

use schemas::partition::Partitioner;
use schemas::{NewRecord, RecordKind, Source, json};
use serde::Serialize;
use thiserror::Error;

use super::body::{self, Fault, Form};

/// A record is cut before it grows beyond this, so that it fits a Kafka message (1 MB by default) with room for its headers.
pub const MAX_RECORD_BYTES: usize = 900_000;

/// How many refused events an answer names.
pub const MAX_REJECTED_SHOWN: usize = 1_000;

/// The reason, beside those of [`schemas::Reason`], for an event that fits no record.
pub const EVENT_TOO_LARGE: &str = "event_too_large";

/// A request's events, sorted out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What to append, by source; each source once.
    pub appends: Vec<Append>,
    /// The refused events.
    pub rejected: RejectedEvents,
}

/// What one source gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Append {
    /// The source.
    pub source: Source,
    /// Its records, in order.
    pub records: Vec<NewRecord>,
    /// How many events they hold.
    pub events: u64,
}

/// The events of a request that were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectedEvents {
    /// The first [`MAX_REJECTED_SHOWN`] of them, in order.
    pub shown: Vec<Rejected>,
    /// How many there are of each reason.
    pub by_reason: BTreeMap<&'static str, u64>,
}

impl RejectedEvents {
    /// How many there are.
    pub fn total(&self) -> u64 {
        self.by_reason.values().sum()
    }

    fn push(&mut self, index: usize, reason: &'static str, detail: impl FnOnce() -> String) {
        *self.by_reason.entry(reason).or_default() += 1;
        if self.shown.len() < MAX_REJECTED_SHOWN {
            self.shown.push(Rejected { index, reason, detail: detail() });
        }
    }
}

/// One refused event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its place among the request's events, from 0.
    pub index: usize,
    /// The stable reason.
    pub reason: &'static str,
    /// What is wrong with it and what to do.
    pub detail: String,
}

/// Why a whole body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// It cannot be taken apart.
    #[error(transparent)]
    Frame(#[from] Fault),
    /// It has more events than a request may.
    #[error("more than {limit} events")]
    TooManyEvents {
        /// How many it may have.
        limit: usize,
    },
}

/// Sorts the events of `body` out: at most `max_events`, marked `historical` or not.
///
/// # Errors
/// If the body's frame is broken or it has too many events; then nothing of it is to be appended.
pub fn sort_out(form: Form, body: &[u8], partitioner: &Partitioner, max_events: usize, historical: bool) -> Result<Batch, Refused> {
    let mut lots: Vec<Lot> = Vec::new();
    lots.resize_with(usize::try_from(partitioner.sources.get()).unwrap_or(usize::MAX), Lot::default);
    let mut rejected = RejectedEvents::default();
    for (index, raw) in body::events(form, body)?.enumerate() {
        let raw = raw?;
        if index >= max_events {
            return Err(Refused::TooManyEvents { limit: max_events });
        }
        if raw.len() >= MAX_RECORD_BYTES {
            // Before it is decoded: the message of a refusal is made by a parser that takes many times the event's size.
            let bytes = raw.len();
            rejected.push(index, EVENT_TOO_LARGE, || format!("the event has {bytes} bytes; it may have {}", MAX_RECORD_BYTES - 1));
            continue;
        }
        match json::decode(raw) {
            Ok(event) => {
                let Source(source) = partitioner.source(&event);
                // The partitioner names only sources that there are.
                if let Some(lot) = usize::try_from(source).ok().and_then(|source| lots.get_mut(source)) {
                    lot.push(raw, historical);
                }
            }
            Err(rejection) => rejected.push(index, rejection.reason.as_str(), || rejection.detail),
        }
    }
    let appends = (0..).zip(lots).filter_map(|(source, lot)| lot.into_append(Source(source), historical)).collect();
    Ok(Batch { appends, rejected })
}

/// The records of one source while they grow.
#[derive(Default)]
struct Lot {
    full: Vec<NewRecord>,
    lines: Vec<u8>,
    events: u64,
}

impl Lot {
    fn push(&mut self, raw: &[u8], historical: bool) {
        if self.lines.len() + raw.len() >= MAX_RECORD_BYTES {
            self.full.push(record(std::mem::take(&mut self.lines), historical));
        }
        self.lines.extend(raw.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        self.lines.push(b'\n');
        self.events += 1;
    }

    fn into_append(self, source: Source, historical: bool) -> Option<Append> {
        let Self { full: mut records, lines, events } = self;
        if !lines.is_empty() {
            records.push(record(lines, historical));
        }
        (events > 0).then_some(Append { source, records, events })
    }
}

fn record(lines: Vec<u8>, historical: bool) -> NewRecord {
    NewRecord { kind: RecordKind::Ndjson, historical, payload: lines }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    fn partitioner(sources: u32) -> Partitioner {
        Partitioner { sources: NonZeroU32::new(sources).unwrap(), spread: NonZeroU32::MIN }
    }

    fn event(id: &str) -> String {
        format!(r#"{{"event_id":"{id}","video_id":"v{id}","ts":1763642096789}}"#)
    }

    fn sorted(form: Form, body: &str) -> Batch {
        sort_out(form, body.as_bytes(), &partitioner(4), 1_000, false).unwrap()
    }

    fn lines(batch: &Batch) -> Vec<(Source, Vec<String>)> {
        let of = |append: &Append| {
            let payloads: Vec<_> = append.records.iter().flat_map(|record| json::lines(&record.payload)).collect();
            payloads.into_iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
        };
        batch.appends.iter().map(|append| (append.source, of(append))).collect()
    }

    #[test]
    fn each_event_lands_where_the_partitioner_says_and_in_order() {
        let ids: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        let body = format!("[{}]", ids.iter().map(|id| event(id)).collect::<Vec<_>>().join(","));
        let batch = sorted(Form::Json, &body);
        assert_eq!(batch.appends.iter().map(|append| append.events).sum::<u64>(), 100);
        for (source, lines) in lines(&batch) {
            let expected: Vec<String> = ids
                .iter()
                .map(|id| event(id))
                .filter(|raw| partitioner(4).source(&json::decode(raw.as_bytes()).unwrap()) == source)
                .collect();
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn a_pretty_printed_event_is_one_line_that_means_the_same() {
        let pretty = "{\r\n  \"event_id\": \"e\\n\",\n \"video_id\":\"v\",\n \"ts\":1763642096789\n}";
        assert!(sorted(Form::Json, pretty).appends.is_empty(), "an id with a control character, escaped or not, is none");
        let pretty = pretty.replace("\\n", "");
        let batch = sorted(Form::Json, &pretty);
        let payload = &batch.appends[0].records[0].payload;
        assert_eq!(payload.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(json::decode(payload).unwrap(), json::decode(pretty.as_bytes()).unwrap());
    }

    #[test]
    fn the_historical_mark_is_on_every_record() {
        let batch = sort_out(Form::Ndjson, event("e").as_bytes(), &partitioner(1), 9, true).unwrap();
        assert!(batch.appends[0].records.iter().all(|record| record.historical && record.kind == RecordKind::Ndjson));
    }

    #[test]
    fn a_record_is_cut_before_it_outgrows_a_kafka_message() {
        let wide = |id: usize| format!(r#"{{"event_id":"{id}","video_id":"v","ts":1763642096789,"x":"{}"}}"#, "x".repeat(100_000));
        let body: Vec<String> = (0..40).map(wide).collect();
        let batch = sorted(Form::Ndjson, &body.join("\n"));
        assert_eq!(batch.appends.len(), 1);
        assert_eq!(batch.appends[0].events, 40);
        assert!(batch.appends[0].records.len() >= 5);
        assert!(batch.appends[0].records.iter().all(|record| record.payload.len() <= MAX_RECORD_BYTES));
        assert_eq!(lines(&batch)[0].1, body);
    }

    #[test]
    fn an_event_that_fits_no_record_is_refused_alone() {
        let room = MAX_RECORD_BYTES - 1 - event("e").len() - r#","x":"""#.len();
        let of = |len: usize| event("e").replace('}', &format!(r#","x":"{}"}}"#, "x".repeat(len)));
        let batch = sorted(Form::Json, &format!("[{},{},{}]", event("a"), of(room + 1), of(room)));
        assert_eq!(batch.appends.iter().map(|append| append.events).sum::<u64>(), 2);
        assert_eq!(batch.rejected.shown.iter().map(|r| (r.index, r.reason)).collect::<Vec<_>>(), vec![(1, EVENT_TOO_LARGE)]);
        assert!(batch.appends.iter().flat_map(|append| &append.records).all(|record| record.payload.len() <= MAX_RECORD_BYTES));
    }

    #[test]
    fn too_many_events_and_a_broken_frame_refuse_the_whole_body() {
        let many = format!("[{},{},{}]", event("a"), event("b"), event("c"));
        assert_eq!(sort_out(Form::Json, many.as_bytes(), &partitioner(1), 2, false), Err(Refused::TooManyEvents { limit: 2 }));
        assert!(sort_out(Form::Json, many.as_bytes(), &partitioner(1), 3, false).is_ok());
        assert!(matches!(
            sort_out(Form::Json, many.replace(']', ",]").as_bytes(), &partitioner(1), 9, false),
            Err(Refused::Frame(Fault { .. }))
        ));
    }

    #[test]
    fn only_the_first_thousand_refusals_are_named_and_all_are_counted() {
        let batch = sort_out(Form::Ndjson, "{}\n".repeat(1_500).as_bytes(), &partitioner(1), 2_000, false).unwrap();
        assert_eq!((batch.rejected.shown.len(), batch.rejected.total()), (MAX_REJECTED_SHOWN, 1_500));
        assert_eq!(batch.rejected.by_reason, BTreeMap::from([("missing_field", 1_500)]));
    }

    /// An event, good or bad, whose brackets and strings are in order: any form can carry it.
    fn any_event() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => (0u32..1_000).prop_map(|id| event(&id.to_string())),
            1 => Just(event("x").replace("1763642096789", "NaN")),
            1 => Just(event("x").replace("1763642096789", "\"0001-01-01T00:00:00Z\"")),
            1 => Just(event("x").replace("1763642096789", "1763642096")),
            1 => Just(event(&"x".repeat(129))),
            1 => Just(event("")),
            1 => Just(event("a\u{1}")),
            1 => Just(event("], [{\\\"")),
            1 => Just("{}".to_owned()),
            1 => Just("[[],{}]".to_owned()),
            1 => Just("null".to_owned()),
            1 => Just("{\"events\" [}]".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn a_line_break_anywhere_never_changes_what_an_event_means(at in 0usize..200, feed in "[\n\r]{1,3}") {
            let mut raw = r#"{"event_id":"e","video_id":"v","other":{"a":["x\\",1.5e3,true]},"ts":1763642096789,"space_id":"s"}"#.to_owned();
            let at = at % (raw.len() + 1);
            raw.insert_str(at, &feed);
            let decoded = json::decode(raw.as_bytes());
            let batch = sort_out(Form::Json, raw.as_bytes(), &partitioner(1), 9, false).unwrap_or_default();
            prop_assert_eq!(batch.appends.is_empty(), decoded.is_err());
            for append in &batch.appends {
                let payload = &append.records[0].payload;
                prop_assert_eq!(json::lines(payload).count(), 1);
                prop_assert_eq!(json::decode(payload).unwrap(), decoded.clone().unwrap());
            }
        }

        #[test]
        fn every_form_gives_the_same_verdicts_and_the_same_lines(events in proptest::collection::vec(any_event(), 1..40)) {
            let by_line = sorted(Form::Ndjson, &events.join("\n"));
            prop_assert_eq!(by_line.rejected.total() + by_line.appends.iter().map(|append| append.events).sum::<u64>(), events.len() as u64);
            for body in [
                format!("[{}]", events.join(",")),
                format!(" [\n {} ] ", events.join("\n,\t")),
                format!("{{\"events\":[{}]}}", events.join(", ")),
                format!("{{\"a\":[1],\"events\" :[{}],\"b\":\"]\"}}", events.join(",\r\n")),
            ] {
                prop_assert_eq!(&sorted(Form::Json, &body), &by_line);
            }
            for (index, event) in events.iter().enumerate() {
                // A list on its own is a list, not an event.
                if event.starts_with('{') {
                    let one = sorted(Form::Json, event);
                    prop_assert_eq!(one.appends.is_empty(), by_line.rejected.shown.iter().any(|rejected| rejected.index == index));
                }
            }
        }
    }
}
