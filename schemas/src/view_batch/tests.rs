//! What holds for batches as a whole: what goes in comes out, bounds are kept, and bad bytes are refused and nothing worse.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::Value;

use super::wire::{put_bytes, put_tag, put_varint};
use super::*;
use crate::event::{Event, Kind};
use crate::id::{EventHash, check_id};
use crate::json;
use crate::time::{MAX_MILLIS, MIN_MILLIS, Millis};

fn id() -> impl Strategy<Value = String> {
    "\\PC{1,32}".prop_filter("an id", |id| check_id(id).is_ok())
}

fn event_id() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => any::<[u8; 16]>().prop_map(|uuid| String::from_utf8(uuid::text(&uuid).to_vec()).unwrap()),
        1 => any::<[u8; 16]>().prop_map(|uuid| String::from_utf8(uuid::text(&uuid).to_vec()).unwrap().to_uppercase()),
        1 => id(),
    ]
}

/// Few of them, so that they meet again.
fn name(letter: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![4 => (0u32..5).prop_map(move |n| format!("{letter}{n}")), 1 => id()]
}

/// Any event.
pub(super) fn event() -> impl Strategy<Value = Event<'static>> {
    let ts = MIN_MILLIS.0..=MAX_MILLIS.0;
    let space = proptest::option::of(name("s"));
    (event_id(), name("v"), space, proptest::option::of(name("u")), ts, proptest::option::of(any::<u64>()), any::<bool>()).prop_map(
        |(event_id, video_id, space_id, viewer_id, ts, watch_ms, engaged)| Event {
            event_id: event_id.into(),
            video_id: video_id.into(),
            space_id: space_id.map(Cow::from),
            viewer_id: viewer_id.map(Cow::from),
            ts: Millis(ts),
            watch_ms,
            kind: if engaged { Kind::Engaged } else { Kind::View },
        },
    )
}

/// What else an event may say.
pub(super) fn others() -> impl Strategy<Value = Option<String>> {
    let value = prop_oneof![Just("[1, {\"ts\":\n2}]".to_owned()), "\\PC{0,9}".prop_map(|text| Value::from(text).to_string())];
    proptest::option::weighted(0.2, ("x[a-z]{0,5}", value).prop_map(|(name, value)| format!("{{\"{name}\":{value}}}")))
}

pub(super) type Said = (Event<'static>, Option<String>);

/// Events of which all, or none, or some have what is optional: columns come and go.
pub(super) fn said() -> impl Strategy<Value = Vec<Said>> {
    (proptest::collection::vec((event(), others()), 0..40), any::<[Option<bool>; 5]>()).prop_map(
        |(mut said, [views, uuids, watch, viewers, far])| {
            for (event, _) in &mut said {
                if far != Some(true) {
                    event.ts = Millis(1_763_640_000_000 + event.ts.0.rem_euclid(100_000));
                }
                if views == Some(true) {
                    event.kind = Kind::View;
                }
                match (uuids, uuid::pack(&event.event_id)) {
                    (Some(true), None) => event.event_id = "550e8400-e29b-41d4-a716-446655440000".into(),
                    (Some(false), Some(_)) => event.event_id.to_mut().insert(0, '+'),
                    _ => {}
                }
                match watch {
                    Some(true) => event.watch_ms = event.watch_ms.or(Some(u64::MAX)),
                    Some(false) => event.watch_ms = None,
                    None => {}
                }
                if viewers == Some(false) {
                    event.viewer_id = None;
                }
            }
            said
        },
    )
}

/// All of them as batches.
pub(super) fn written(said: &[Said]) -> Vec<Vec<u8>> {
    let (mut writer, mut payloads) = (Writer::new(), Vec::new());
    for (event, others) in said {
        if writer.push(event, others.as_deref()) == Err(Full) {
            payloads.push(writer.finish());
            assert!(writer.is_empty());
            writer.push(event, others.as_deref()).unwrap();
        }
    }
    payloads.push(writer.finish());
    payloads
}

fn whole_events(payloads: &[Vec<u8>]) -> Vec<Said> {
    let batches = payloads.iter().map(|payload| ViewBatch::read(payload).unwrap());
    batches.flat_map(|batch| batch.events().map(|whole| owned(whole.unwrap())).collect::<Vec<_>>()).collect()
}

pub(super) fn owned(Whole { event, others }: Whole<'_>) -> Said {
    let own = |text: Cow<'_, str>| Cow::from(text.into_owned());
    let event = Event {
        event_id: own(event.event_id),
        video_id: own(event.video_id),
        space_id: event.space_id.map(own),
        viewer_id: event.viewer_id.map(own),
        ..event
    };
    (event, others.map(str::to_owned))
}

/// What the three ways to look at a batch say is one thing, and no index leads out of it.
fn assert_consistent(batch: &ViewBatch<'_>) {
    let (entries, spaces): (Vec<_>, Vec<_>) = (batch.entries().collect(), batch.spaces().collect());
    assert_eq!((entries.len(), spaces.len()), (batch.entries().len(), batch.spaces().len()));
    let (views, ids, wholes): (Vec<_>, Vec<_>, Vec<_>) = (batch.views().collect(), batch.event_ids().collect(), batch.wholes().collect());
    assert_eq!([views.len(), ids.len(), wholes.len()], [batch.len(); 3]);
    for ((view, id), Whole { event, .. }) in views.iter().zip(&ids).zip(&wholes) {
        let entry = entries[view.entry as usize];
        let space = entry.space.map(|space| spaces[space as usize]);
        assert_eq!((entry.video, space, view.ts, view.kind), (&*event.video_id, event.space_id.as_deref(), event.ts, event.kind));
        assert_eq!((id.hash(), id.check()), (EventHash::of(&event.event_id), check_id(&event.event_id)));
        assert!(view.ts.is_representable());
    }
}

fn reads_or_is_refused(bytes: &[u8]) {
    match ViewBatch::read(bytes) {
        Ok(batch) => assert_consistent(&batch),
        Err(rejection) => assert!(rejection.reason == Reason::BadBatch && !rejection.detail.is_empty(), "{rejection:?}"),
    }
}

/// Two events by hand, one with a text id, to be broken in one place: what the field holds instead.
fn with(field: Field, value: &[u8]) -> Vec<u8> {
    let texts = |lengths: &[u8], text: &[u8]| {
        let mut message = Vec::new();
        put_bytes(&mut message, field::LENGTHS, lengths);
        put_bytes(&mut message, field::TEXT, text);
        message
    };
    let good = [
        (field::VIDEOS, texts(&[1, 2], "vé".as_bytes())),
        (field::SPACES, texts(&[1], b"s")),
        (field::ENTRY_SPACE, vec![0, 1]),
        (field::ENTRY, vec![1, 0]),
        (field::TS_OFFSET_MS, vec![0, 0, 0, 0, 1, 0, 0, 0]),
        (field::KIND, vec![0, 1]),
        (field::UUIDS, vec![7; 16]),
        (field::TEXT_IDS, texts(&[0, 2], b"id")),
        (field::VIEWERS, texts(&[1, 0], b"u")),
        (field::WATCHED, vec![0, 1]),
        (field::WATCH_MS, vec![9]),
        (field::OTHERS, texts(&[0, 2], b"{}")),
    ];
    let mut out = Vec::new();
    for (number, bytes) in &good {
        put_bytes(&mut out, *number, if number.number == field.number { value } else { bytes });
    }
    out
}

#[test]
fn every_rule_has_its_words() {
    assert_consistent(&ViewBatch::read(&with(field::BASE_TS_MS, &[])).unwrap());
    let texts = |bytes: &[u8]| bytes.to_vec();
    let long_video = [&[0x0a, 3, 1, 0x81, 8, 0x12, 0x82, 8][..], &[b'v'; 1026]].concat();
    for (field, value, says) in [
        (field::ENTRY, vec![1, 2], "entry names 2 of a dictionary of 2 videos"),
        (field::ENTRY, vec![1, 0x80], "entry: what stands in place 1 is no whole number"),
        (field::ENTRY, vec![1], "a dictionary of 2 videos and 1 spaces is larger than a batch of 1 events"),
        (field::ENTRY, vec![0, 1, 1], "the instants have 8 bytes, which is not 4 (ts_offset_ms) or 8 (ts_ms) for each of 3 events"),
        (field::ENTRY_SPACE, vec![0, 2], "entry_space names the space before 2 and there are 1"),
        (field::ENTRY_SPACE, vec![1], "entry_space has 1 values for 2 videos"),
        (field::TS_OFFSET_MS, vec![0; 7], "the instants have 7 bytes"),
        (field::KIND, vec![0], "kind has 1 values for 2 events"),
        (field::KIND, vec![0, 2], "kind holds a value that is neither 0 nor 1"),
        (field::UUIDS, vec![0; 15], "uuids has 15 bytes"),
        (field::UUIDS, vec![0; 32], "there are 2 uuids for 1 events"),
        (field::TEXT_IDS, vec![], "there are 1 uuids for 2 events"),
        (field::VIEWERS, texts(&[0x0a, 1, 1, 0x12, 1, b'u']), "viewers has 1 values for 2 events"),
        (field::WATCHED, vec![0, 0], "watch_ms has 1 values for 0 events"),
        (field::WATCHED, vec![], "watch_ms has 1 values for 2 events"),
        (field::WATCHED, vec![0, 0x81], "watched holds a value"),
        (field::VIDEOS, texts(&[0x0a, 2, 1, 1, 0x12, 3, b'a', b'b', b'c']), "videos: its lengths add up to 2 bytes, and its text has 3"),
        (field::VIDEOS, texts(&[0x0a, 2, 2, 1, 0x12, 3, b'a', 0xc3, 0xa9]), "videos: its text 0 begins or ends inside a character"),
        (field::VIDEOS, texts(&[0x0a, 2, 1, 1, 0x12, 2, b'a', 0xff]), "videos: its text is not UTF-8 from byte 1"),
        (field::VIDEOS, texts(&[0x0a, 9]), "videos: what starts at its byte 0 is no whole field"),
        (field::VIDEOS, texts(&[0x12, 0, 0x12, 0]), "videos: text is not in one packed piece"),
        (field::VIDEOS, long_video, "a text of more than 1024 bytes"),
        (field::SPACES, texts(&[0x0a, 3, 0, 0, 1, 0x12, 1, b's']), "a dictionary of 2 videos and 3 spaces"),
    ] {
        let rejection = ViewBatch::read(&with(field, &value)).unwrap_err();
        assert_eq!(rejection.reason, Reason::BadBatch);
        assert!(rejection.detail.contains(says), "{says}: {}", rejection.detail);
    }
}

#[test]
fn unknown_fields_are_skipped_and_known_ones_come_once_and_packed() {
    let good = with(field::BASE_TS_MS, &[]);
    let and = |more: &[u8]| ViewBatch::read(&[&good, more].concat()).map(|batch| batch.len()).map_err(|rejection| rejection.detail);
    // Fields 15 to 18 of every type, and one whose number is beyond all.
    assert_eq!(and(&[0x78, 0x80, 1, 0x81, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x8a, 1, 2, 9, 9, 0x95, 1, 1, 2, 3, 4]), Ok(2));
    assert_eq!(and(&[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]), Ok(2));
    assert!(and(&[0x42, 2, 0, 0]).unwrap_err().contains("kind is not in one packed piece"), "twice");
    assert!(and(&[0x40, 0]).unwrap_err().contains("kind is not in one packed piece"), "not packed");
    assert!(and(&[0x7b]).unwrap_err().contains("no whole field"), "a group");
    assert!(and(&[0x00, 0]).unwrap_err().contains("no whole field"), "field 0");
    assert!(and(&[0x7a, 5, 0]).unwrap_err().contains("no whole field"), "cut short");
    assert_eq!(ViewBatch::read(&[]).unwrap().len(), 0, "no events are a batch");
}

#[test]
fn instants_stay_within_the_years() {
    let second =
        |payload: &[u8]| ViewBatch::read(payload).map(|batch| batch.views().nth(1).unwrap().ts).map_err(|rejection| rejection.detail);
    let near = |base: i64, offset: i32| {
        let mut payload = with(field::TS_OFFSET_MS, &[0i32.to_le_bytes(), offset.to_le_bytes()].concat());
        put_tag(&mut payload, field::BASE_TS_MS);
        put_varint(&mut payload, wire::zigzag(base));
        second(&payload)
    };
    assert_eq!(near(MIN_MILLIS.0, 5), Ok(Millis(MIN_MILLIS.0 + 5)));
    assert_eq!(near(MAX_MILLIS.0, i32::MIN), Ok(Millis(MAX_MILLIS.0 + i64::from(i32::MIN))));
    for (base, offset) in [(MIN_MILLIS.0, -1), (MAX_MILLIS.0, 1), (i64::MAX, 1), (i64::MIN, -1)] {
        assert!(near(base, offset).unwrap_err().contains("leave the years"), "{base} {offset}");
    }
    let far = |ts: i64| {
        let mut payload = with(field::TS_OFFSET_MS, &[]);
        put_bytes(&mut payload, field::TS_MS, &[0i64.to_le_bytes(), ts.to_le_bytes()].concat());
        payload
    };
    assert_eq!(second(&far(MAX_MILLIS.0)), Ok(MAX_MILLIS));
    for ts in [MIN_MILLIS.0 - 1, MAX_MILLIS.0 + 1, i64::MIN] {
        assert!(second(&far(ts)).unwrap_err().contains("leave the years"), "{ts}");
    }
    let mut both = with(field::BASE_TS_MS, &[]);
    put_bytes(&mut both, field::TS_MS, &[0; 16]);
    assert!(second(&both).unwrap_err().contains("one is enough"));
    let mut base_too = far(0);
    put_tag(&mut base_too, field::BASE_TS_MS);
    base_too.push(0);
    assert!(second(&base_too).unwrap_err().contains("one is enough"));
}

#[test]
fn a_bad_id_is_its_own_events_fault() {
    let payload = with(field::TEXT_IDS, &[0x0a, 2, 0, 1, 0x12, 1, 7]);
    let batch = ViewBatch::read(&payload).unwrap();
    let events: Vec<_> = batch.events().collect();
    assert!(events[0].is_ok());
    let rejection = events[1].clone().unwrap_err();
    assert_eq!(rejection, Rejection::new(Reason::BadId, "event_id holds a control character; ids are plain text"));
    assert_consistent(&batch);
}

#[test]
fn batches_are_cut_at_each_bound() {
    let said = |n: i64, ts: i64, others: usize| -> Said {
        let event = Event {
            event_id: format!("e{n}").into(),
            video_id: format!("v{n}").into(),
            space_id: None,
            viewer_id: None,
            ts: Millis(ts),
            watch_ms: None,
            kind: Kind::View,
        };
        (event, (others > 0).then(|| format!("{{\"x\":\"{}\"}}", "x".repeat(others))))
    };
    let many: Vec<_> = (0..25_000).map(|n| said(n, 1_763_640_000_000, 0)).collect();
    let large: Vec<_> = (0..40).map(|n| said(n, 1_763_640_000_000, 100_000)).collect();
    let far: Vec<_> = (0..10).map(|n| said(n, n * 1_000_000_000, 0)).collect();
    for (all, batches) in [(many, 3), (large, 5), (far, 1)] {
        let payloads = written(&all);
        assert_eq!(payloads.len(), batches);
        assert!(payloads.iter().all(|payload| payload.len() <= MAX_BYTES && ViewBatch::read(payload).unwrap().len() <= MAX_EVENTS));
        assert_eq!(whole_events(&payloads), all);
    }
}

#[test]
fn a_batch_of_one_is_as_large_as_it_may_be_and_no_larger() {
    let event = event_of("e");
    let (mut writer, mut largest) = (Writer::new(), 0);
    for len in MAX_BYTES - 200..MAX_BYTES {
        match writer.push(&event, Some(&"x".repeat(len))) {
            Ok(()) => largest = writer.finish().len(),
            Err(Full) => assert!(writer.is_empty()),
        }
    }
    assert_eq!(largest, MAX_BYTES);
    writer.push(&event, None).unwrap();
    assert_eq!(writer.push(&event, Some(&"x".repeat(MAX_BYTES - 200))), Err(Full));
    assert_eq!(ViewBatch::read(&writer.finish()).unwrap().len(), 1, "as it was");
}

fn event_of(id: &str) -> Event<'_> {
    Event {
        event_id: id.into(),
        video_id: "v".into(),
        space_id: None,
        viewer_id: None,
        ts: Millis(1_763_640_000_000),
        watch_ms: None,
        kind: Kind::View,
    }
}

#[test]
fn what_else_an_event_said_is_part_of_its_json_whatever_it_is() {
    let json = |others| String::from_utf8(Whole { event: event_of("e"), others: Some(others) }.to_json()).unwrap();
    let event = r#"{"event_id":"e","video_id":"v","ts":1763640000000"#;
    assert_eq!(json("{\"a\": [1,\r\n2]}"), format!(r#"{event},"a":[1,  2]}}"#));
    for odd in ["{}", "", "[1]", "{\"a\":", "\"\n", "{\"event_id\":\"f\"}"] {
        assert_eq!(json(odd), format!(r#"{event},"others":{}}}"#, Value::from(odd)));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(said in said()) {
        let payloads = written(&said);
        prop_assert_eq!(whole_events(&payloads), said);
        for payload in &payloads {
            let batch = ViewBatch::read(payload).unwrap();
            assert_consistent(&batch);
            let mut pairs: Vec<_> = batch.entries().map(|entry| (entry.video, entry.space)).collect();
            pairs.sort_unstable();
            pairs.dedup();
            prop_assert_eq!(pairs.len(), batch.entries().len(), "the dictionary holds each pair once");
        }
    }

    #[test]
    fn a_json_event_comes_out_as_the_same_json_event(event in event(), others in others()) {
        let json = Whole { event: event.clone(), others: others.as_deref() }.to_json();
        prop_assert!(!json.contains(&b'\n'));
        let noted = json::decode_noting(&json).unwrap();
        prop_assert_eq!((&noted.event, noted.has_others), (&event, others.is_some()));
        let mut writer = Writer::new();
        writer.push(&noted.event, json::others(&json).as_deref()).unwrap();
        let payload = writer.finish();
        let again = ViewBatch::read(&payload).unwrap().wholes().next().unwrap().to_json();
        prop_assert_eq!(again, json);
    }

    #[test]
    fn any_others_give_json(others: String) {
        let json = Whole { event: event_of("e"), others: Some(&others) }.to_json();
        prop_assert!(serde_json::from_slice::<Value>(&json).is_ok() && !json.contains(&b'\n'));
        prop_assert_eq!(json::decode(&json), Ok(event_of("e")));
    }

    #[test]
    fn the_writer_never_passes_its_own_estimate(said in said()) {
        let mut writer = Writer::new();
        for (event, others) in &said {
            let before = writer.bytes();
            if writer.push(event, others.as_deref()).is_ok() {
                let others = others.as_deref().map_or(0, str::len);
                let ids = [Some(&event.event_id), Some(&event.video_id), event.space_id.as_ref(), event.viewer_id.as_ref()];
                let texts: usize = ids.into_iter().flatten().map(|id| id.len()).sum();
                prop_assert!(writer.bytes() <= before + 64 + texts + others);
            }
        }
        let most = writer.bytes();
        prop_assert!(writer.finish().len() <= most);
    }

    #[test]
    fn any_bytes_are_a_batch_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        reads_or_is_refused(&bytes);
    }

    #[test]
    fn a_damaged_batch_is_a_batch_or_a_refusal(
        said in said(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        for mut payload in written(&said) {
            for (at, byte, how) in &damage {
                let at = at.index(payload.len() + 1);
                match how {
                    0 => payload.insert(at, *byte),
                    1 if at < payload.len() => payload[at] = *byte,
                    2 if at < payload.len() => drop(payload.remove(at)),
                    _ => payload.truncate(at),
                }
            }
            reads_or_is_refused(&payload);
        }
    }
}
