//! Events as what to append to each source, and a verdict on each of them.
//!
//! ```text
//! raw event ──> json::decode_noting ──┐
//!                                     ├──> Partitioner ──> one more event in its source's columnar batch
//! ViewBatch ──> its events, checked ──┘
//!                     └──> refused: index, reason, detail
//! ```
//!
//! Pure. Members of an event that are not its fields go to the log as they came. A good event costs no allocation beyond the
//! growth of its record.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemas::partition::Partitioner;
use schemas::view_batch::{self, Full, Writer};
use schemas::{Event, NewRecord, RecordKind, Rejection, Source, ViewBatch, json};
use serde::Serialize;
use thiserror::Error;

use super::body::{self, Fault, Form};
use super::enrich::Edge;
use super::request::Content;

/// A record is cut before it grows beyond this, so that it fits a Kafka message (1 MB by default) with room for its headers.
/// A raw event is shorter.
pub const MAX_RECORD_BYTES: usize = view_batch::MAX_BYTES;

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

    /// Refuses one that has no room in a record.
    pub(super) fn too_large(&mut self, index: usize) {
        self.push(index, EVENT_TOO_LARGE, || format!("the event has no room in a record of {MAX_RECORD_BYTES} bytes"));
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
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// It cannot be taken apart.
    #[error(transparent)]
    Frame(#[from] Fault),
    /// It is a columnar batch whose structure is broken.
    #[error("{}", .0.detail)]
    Batch(Rejection),
    /// It has more events than a request may.
    #[error("more than {limit} events")]
    TooManyEvents {
        /// How many it may have.
        limit: usize,
    },
}

/// Sorts the events of a `body` out into records: at most `max_events`, each to its own source and touched by the collector's `edge`.
///
/// # Errors
/// If the body's structure is broken or it has too many events; then nothing of it is to be appended.
pub fn sort_out(content: Content, body: &[u8], partitioner: &Partitioner, max_events: usize, edge: &Edge) -> Result<Batch, Refused> {
    let mut by_source: Vec<Option<Box<Lot>>> = Vec::new();
    by_source.resize_with(usize::try_from(partitioner.sources.get()).unwrap_or(usize::MAX), || None);
    let mut judge = Judge::new(partitioner, edge, |placed: Placed<'_>| {
        // The partitioner names only sources that there are.
        let lot = usize::try_from(placed.source.0).ok().and_then(|source| by_source.get_mut(source));
        lot.map_or(Ok(()), |lot| lot.get_or_insert_default().push(&placed.event, placed.others.as_deref()))
    });
    judge.judge(content, body, max_events)?;
    let rejected = judge.rejected;
    let lots = (0..).map(Source).zip(by_source).filter_map(|(source, lot)| lot?.into_append(source, edge.historical()));
    Ok(Batch { appends: lots.collect(), rejected })
}

/// The good events of a `body`, by source, and its refused ones; as [`sort_out`] would have them.
///
/// # Errors
/// As for [`sort_out`].
pub(super) fn place<'a>(
    content: Content,
    body: &'a [u8],
    partitioner: &Partitioner,
    max_events: usize,
    edge: &'a Edge,
) -> Result<(Vec<Placed<'a>>, RejectedEvents), Refused> {
    let mut all = Vec::new();
    let mut judge = Judge::new(partitioner, edge, |placed| {
        all.push(placed);
        Ok(())
    });
    judge.judge(content, body, max_events)?;
    let rejected = judge.rejected;
    // In order within a source.
    all.sort_by_key(|placed| placed.source);
    Ok((all, rejected))
}

/// A good event, and where it goes.
pub(super) struct Placed<'a> {
    pub(super) source: Source,
    /// Its place among the request's events.
    pub(super) index: usize,
    pub(super) event: Event<'a>,
    pub(super) others: Option<Cow<'a, str>>,
}

/// Judges events one by one and hands the good ones on.
struct Judge<'p, 'a, T> {
    partitioner: &'p Partitioner,
    edge: &'a Edge,
    take: T,
    rejected: RejectedEvents,
}

impl<'p, 'a, T: FnMut(Placed<'a>) -> Result<(), Full>> Judge<'p, 'a, T> {
    fn new(partitioner: &'p Partitioner, edge: &'a Edge, take: T) -> Self {
        Self { partitioner, edge, take, rejected: RejectedEvents::default() }
    }

    fn judge(&mut self, content: Content, body: &'a [u8], max_events: usize) -> Result<(), Refused> {
        match content {
            Content::Json(form) => self.judge_json(form, body, max_events),
            Content::ViewBatch => self.judge_batch(body, max_events),
        }
    }

    fn judge_json(&mut self, form: Form, body: &'a [u8], max_events: usize) -> Result<(), Refused> {
        for (index, raw) in body::events(form, body)?.enumerate() {
            let raw = raw?;
            if index >= max_events {
                return Err(Refused::TooManyEvents { limit: max_events });
            }
            if raw.len() >= MAX_RECORD_BYTES {
                // Before it is decoded: the message of a refusal is made by a parser that takes many times the event's size.
                let (bytes, most) = (raw.len(), MAX_RECORD_BYTES - 1);
                self.rejected.push(index, EVENT_TOO_LARGE, || format!("the event has {bytes} bytes; it may have {most}"));
                continue;
            }
            match json::decode_noting(raw) {
                Ok(noted) => {
                    let others = if noted.has_others { json::others_except(raw, self.edge.reserved()) } else { None };
                    self.good(index, noted.event, others.map(Cow::Owned));
                }
                Err(rejection) => self.bad(index, rejection),
            }
        }
        Ok(())
    }

    fn judge_batch(&mut self, body: &'a [u8], max_events: usize) -> Result<(), Refused> {
        let batch = ViewBatch::read(body).map_err(Refused::Batch)?;
        if batch.len() > max_events {
            return Err(Refused::TooManyEvents { limit: max_events });
        }
        for (index, whole) in batch.events().enumerate() {
            match whole {
                Ok(whole) => self.good(index, whole.event, self.edge.checked(whole.others)),
                Err(rejection) => self.bad(index, rejection),
            }
        }
        Ok(())
    }

    fn good(&mut self, index: usize, mut event: Event<'a>, others: Option<Cow<'a, str>>) {
        // By the event as it was sent: a retry must come to the same source, whatever the edge makes of it then.
        let source = self.partitioner.source(&event);
        self.edge.touch(&mut event);
        let others = self.edge.others(others);
        if (self.take)(Placed { source, index, event, others }).is_err() {
            self.rejected.too_large(index);
        }
    }

    fn bad(&mut self, index: usize, rejection: Rejection) {
        self.rejected.push(index, rejection.reason.as_str(), || rejection.detail);
    }
}

/// The records of one source while they grow.
#[derive(Default)]
struct Lot {
    full: Vec<Vec<u8>>,
    last: Writer,
    events: u64,
}

impl Lot {
    /// Adds an event, in a new record if it must be.
    fn push(&mut self, event: &Event<'_>, others: Option<&str>) -> Result<(), Full> {
        if self.last.push(event, others).is_err() {
            if self.last.is_empty() {
                return Err(Full);
            }
            self.full.push(self.last.finish());
            self.last.push(event, others)?;
        }
        self.events += 1;
        Ok(())
    }

    fn into_append(mut self: Box<Self>, source: Source, historical: bool) -> Option<Append> {
        if !self.last.is_empty() {
            self.full.push(self.last.finish());
        }
        let record = |payload| NewRecord { kind: RecordKind::ViewBatch, historical, payload };
        (self.events > 0).then(|| Append { source, records: self.full.into_iter().map(record).collect(), events: self.events })
    }
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
        sort_out(Content::Json(form), body.as_bytes(), &partitioner(4), 1_000, &Edge::plain(false)).unwrap()
    }

    /// Every event that is to be appended, as its JSON, by source.
    fn lines(batch: &Batch) -> Vec<(Source, Vec<String>)> {
        let of = |append: &Append| -> Vec<String> {
            let batches = append.records.iter().map(|record| ViewBatch::read(&record.payload).unwrap());
            batches.flat_map(|batch| batch.wholes().map(|whole| String::from_utf8(whole.to_json()).unwrap()).collect::<Vec<_>>()).collect()
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
    fn an_id_with_a_control_character_is_none_escaped_or_not() {
        for id in ["e\n", "e\\n"] {
            assert!(sorted(Form::Json, &event(id)).appends.is_empty(), "{id:?}");
        }
    }

    #[test]
    fn the_historical_mark_is_on_every_record() {
        let batch = sort_out(Content::Json(Form::Ndjson), event("e").as_bytes(), &partitioner(1), 9, &Edge::plain(true)).unwrap();
        assert!(batch.appends[0].records.iter().all(|record| record.historical && record.kind == RecordKind::ViewBatch));
        let batch = sort_out(Content::ViewBatch, &batch.appends[0].records[0].payload, &partitioner(1), 9, &Edge::plain(true)).unwrap();
        assert!(batch.appends[0].records.iter().all(|record| record.historical && record.kind == RecordKind::ViewBatch));
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
        assert_eq!(
            sort_out(Content::Json(Form::Json), many.as_bytes(), &partitioner(1), 2, &Edge::plain(false)),
            Err(Refused::TooManyEvents { limit: 2 })
        );
        assert!(sort_out(Content::Json(Form::Json), many.as_bytes(), &partitioner(1), 3, &Edge::plain(false)).is_ok());
        assert!(matches!(
            sort_out(Content::Json(Form::Json), many.replace(']', ",]").as_bytes(), &partitioner(1), 9, &Edge::plain(false)),
            Err(Refused::Frame(Fault { .. }))
        ));
    }

    #[test]
    fn a_columnar_body_has_a_verdict_on_each_event_or_is_refused_whole() {
        let mut writer = Writer::new();
        for id in ["one", "two", "six"] {
            writer.push(&json::decode(event(id).as_bytes()).unwrap(), Some("{\"x\":1}")).unwrap();
        }
        let payload = writer.finish();
        let at = payload.windows(3).rposition(|id| id == b"two").unwrap();
        let damaged = [&payload[..at], b"t\x07o", &payload[at + 3..]].concat();
        let batch = sort_out(Content::ViewBatch, &damaged, &partitioner(1), 3, &Edge::plain(false)).unwrap();
        assert_eq!(batch.rejected.shown.iter().map(|r| (r.index, r.reason)).collect::<Vec<_>>(), vec![(1, "bad_id")]);
        let of = |id: &str| event(id).replace('}', r#","x":1}"#);
        assert_eq!(lines(&batch), vec![(Source(0), vec![of("one"), of("six")])]);
        assert_eq!(
            sort_out(Content::ViewBatch, &payload, &partitioner(1), 2, &Edge::plain(false)),
            Err(Refused::TooManyEvents { limit: 2 })
        );
        assert!(matches!(sort_out(Content::ViewBatch, &payload[1..], &partitioner(1), 3, &Edge::plain(false)), Err(Refused::Batch(_))));
        assert_eq!(sort_out(Content::ViewBatch, &[], &partitioner(1), 3, &Edge::plain(false)), Ok(Batch::default()));
    }

    #[test]
    fn an_event_of_a_columnar_body_that_fits_no_record_is_refused_alone() {
        // By hand, because no writer makes one: fields that lead with their length.
        let varint = |mut n: usize| {
            let mut out = Vec::new();
            while n >= 128 {
                out.push(u8::try_from(n % 128).unwrap() | 128);
                n /= 128;
            }
            out.push(u8::try_from(n).unwrap());
            out
        };
        let field = |number: u8, bytes: &[u8]| [&[number * 8 + 2], varint(bytes.len()).as_slice(), bytes].concat();
        let texts = |a: &str, b: &str| {
            let lengths = [varint(a.len()), varint(b.len())].concat();
            [field(1, &lengths), field(2, format!("{a}{b}").as_bytes())].concat()
        };
        let body = |others: usize| {
            let others = field(14, &texts(&"x".repeat(others), "{}"));
            [field(1, &texts("v", "w")), field(4, &[0, 1]), field(6, &[0; 8]), field(10, &texts("e", "f")), others].concat()
        };
        let sorted = |others: usize| sort_out(Content::ViewBatch, &body(others), &partitioner(1), 3, &Edge::plain(false)).unwrap();
        assert_eq!(sorted(MAX_RECORD_BYTES - 100).rejected.total(), 0);
        let batch = sorted(MAX_RECORD_BYTES + 1);
        assert_eq!(batch.rejected.shown.iter().map(|r| (r.index, r.reason)).collect::<Vec<_>>(), vec![(0, EVENT_TOO_LARGE)]);
        assert_eq!(batch.appends[0].events, 1);
    }

    #[test]
    fn only_the_first_thousand_refusals_are_named_and_all_are_counted() {
        let batch =
            sort_out(Content::Json(Form::Ndjson), "{}\n".repeat(1_500).as_bytes(), &partitioner(1), 2_000, &Edge::plain(false)).unwrap();
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
            let batch = sort_out(Content::Json(Form::Json), raw.as_bytes(), &partitioner(1), 9, &Edge::plain(false)).unwrap_or_default();
            prop_assert_eq!(batch.appends.is_empty(), decoded.is_err());
            for append in &batch.appends {
                let batch = ViewBatch::read(&append.records[0].payload).unwrap();
                let events: Vec<_> = batch.events().map(Result::unwrap).collect();
                prop_assert_eq!((events.len(), &events[0].event), (1, &decoded.clone().unwrap()));
                let others = json::others(raw.as_bytes());
                prop_assert_eq!(events[0].others, others.as_deref(), "as it was sent");
            }
        }

        #[test]
        fn a_columnar_body_is_taken_as_its_events_are_in_json(events in proptest::collection::vec(any_event(), 1..40)) {
            let good: Vec<&str> = events.iter().map(String::as_str).filter(|raw| json::decode(raw.as_bytes()).is_ok()).collect();
            let mut writer = Writer::new();
            good.iter().for_each(|raw| writer.push(&json::decode(raw.as_bytes()).unwrap(), None).unwrap());
            let batch = sort_out(Content::ViewBatch, &writer.finish(), &partitioner(4), 1_000, &Edge::plain(false)).unwrap();
            prop_assert_eq!(batch.rejected.total(), 0);
            let by_line = sort_out(Content::Json(Form::Ndjson), good.join("\n").as_bytes(), &partitioner(4), 1_000, &Edge::plain(false)).unwrap_or_default();
            prop_assert_eq!(batch, by_line);
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
