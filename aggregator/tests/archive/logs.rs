//! Logs of every kind of record, and what a fold makes of them.

use std::collections::BTreeMap;

use aggregator::Touched;
use aggregator::fold::{Flush, Fold, FoldLimits};
use proptest::prelude::*;
use proptest::sample::select;
use schemas::correction::{Adjustment, encode};
use schemas::view_batch::Writer;
use schemas::{CellKey, Checkpoint, Event, FoldSettings, Kind, Millis, Offset, Reason, Record, RecordKind, Source, StoredRow, json};

/// A record before it has an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) append_time: i64,
    pub(crate) kind: RecordKind,
    pub(crate) historical: bool,
    pub(crate) payload: Vec<u8>,
}

impl Entry {
    pub(crate) fn of(record: &Record<'_>) -> Self {
        let Record { append_time, kind, historical, payload, .. } = *record;
        Self { append_time: append_time.0, kind, historical, payload: payload.to_vec() }
    }

    pub(crate) fn at(&self, offset: u64) -> Record<'_> {
        let Self { append_time, kind, historical, ref payload } = *self;
        Record { offset: Offset(offset), append_time: Millis(append_time), kind, historical, payload }
    }
}

/// A quarter of an hour before midnight, so that days change.
pub(crate) const T0: i64 = 1_763_682_300_000;

fn event() -> impl Strategy<Value = (Event<'static>, Option<String>)> {
    let id = prop_oneof![
        (0u8..40).prop_map(|n| format!("00000000-0000-4000-8000-0000000000{n:02x}")),
        (0u8..40).prop_map(|n| format!("e{n}")),
        Just("é".to_owned()),
    ];
    let video = prop_oneof![9 => (0u8..12).prop_map(|n| format!("v{n}")), 1 => Just("a \"video\" with a name".to_owned())];
    let space = select(vec![None, Some("s1"), Some("s2")]);
    // Now, late, too old, of other days and far ones, in the future.
    let ago = prop_oneof![
        8 => -500i64..2_000, 2 => 0i64..400_000, 1 => Just(3_700_000i64), 1 => 0i64..9_000_000_000, 1 => Just(-61_000i64), 1 => Just(60_000_000_000_000i64)
    ];
    let others = select(vec![
        None,
        Some(r#"{"player":{"zoom": 1.50}}"#),
        Some(r#"{"client_ip":"10.0.0.0","received_at":17}"#),
        Some(r#"{"a":1,"client_ip":"10.0.0.0","user_agent":"x \"y\""}"#),
        Some(r#"{"received_at":"no number"}"#),
    ]);
    (id, video, space, ago, any::<bool>(), proptest::option::of(any::<u64>()), others).prop_map(
        |(id, video, space, ago, engaged, watch_ms, others)| {
            let event = Event {
                event_id: id.into(),
                video_id: video.into(),
                space_id: space.map(Into::into),
                viewer_id: watch_ms.map(|n| format!("u{}", n % 5).into()),
                ts: Millis(-ago),
                watch_ms,
                kind: if engaged { Kind::Engaged } else { Kind::View },
            };
            (event, others.map(str::to_owned))
        },
    )
}

fn line(event: &Event<'_>, others: Option<&str>) -> Vec<u8> {
    let mut line = Vec::new();
    json::encode(event, &mut line);
    if let Some(others) = others {
        line.pop();
        line.push(b',');
        line.extend_from_slice(&others.as_bytes()[1..]);
    }
    line
}

fn batch(events: &[(Event<'_>, Option<String>)], spoiled: bool) -> Vec<u8> {
    let mut writer = Writer::default();
    for (event, others) in events {
        writer.push(event, others.as_deref()).unwrap();
    }
    let mut payload = writer.finish();
    // Some events' ids are none, and the batch is whole.
    while let Some(at) = payload.windows(2).position(|two| two == b"e7").filter(|_| spoiled) {
        payload[at + 1] = 1;
    }
    payload
}

fn odd() -> impl Strategy<Value = (RecordKind, Vec<u8>)> {
    let adjustment = encode(&Adjustment { after: 0, reason: "fraud".into(), deltas: Vec::new() });
    select(vec![
        (RecordKind::Tick, Vec::new()),
        (RecordKind::Adjustment, b"none".to_vec()),
        (RecordKind::Adjustment, adjustment),
        (RecordKind::Mark, b"none".to_vec()),
        (RecordKind::Unknown(99), b"\x00\xffanything".to_vec()),
        (RecordKind::ViewBatch, Vec::new()),
        (RecordKind::ViewBatch, vec![0xff, 0xff]),
        (RecordKind::Ndjson, b"\n \n".to_vec()),
        (RecordKind::Ndjson, Vec::new()),
        (RecordKind::Json, b"{\"event_id\":\"u1\xff\"".to_vec()),
        (RecordKind::Json, Vec::new()),
    ])
}

type Events = (RecordKind, Vec<(Event<'static>, Option<String>)>, bool);
type Content = Result<Events, (RecordKind, Vec<u8>)>;

/// A log from [`T0`] on, whose clock may go back.
pub(crate) fn log() -> impl Strategy<Value = Vec<Entry>> {
    let form = select(vec![RecordKind::Json, RecordKind::Ndjson, RecordKind::ViewBatch]);
    let events = (form, proptest::collection::vec(event(), 1..30), any::<bool>());
    let content = prop_oneof![4 => events.prop_map(Ok), 1 => odd().prop_map(Err)];
    let step = prop_oneof![Just(0i64), 0i64..3_000, 0i64..400_000, Just(-2_000i64)];
    proptest::collection::vec((step, proptest::bool::weighted(0.2), content), 1..25).prop_map(|records| {
        let mut now = T0;
        let entry = |(step, historical, content): (i64, bool, Content)| {
            now += step;
            let (kind, payload) = match content {
                Err(odd) => odd,
                Ok((kind, mut events, spoiled)) => {
                    events.iter_mut().for_each(|(event, _)| event.ts = event.ts.plus(now));
                    (kind, payload(kind, &events, spoiled))
                }
            };
            Entry { append_time: now, kind, historical, payload }
        };
        records.into_iter().map(entry).collect()
    })
}

fn payload(kind: RecordKind, events: &[(Event<'_>, Option<String>)], spoiled: bool) -> Vec<u8> {
    match kind {
        RecordKind::ViewBatch => batch(events, spoiled),
        RecordKind::Json => events.first().map(|(event, others)| line(event, others.as_deref())).unwrap(),
        _ => {
            let mut lines: Vec<_> = events.iter().map(|(event, others)| line(event, others.as_deref())).collect();
            if spoiled {
                lines.insert(lines.len() / 2, b"\"u1\" is no event \xff".to_vec());
                lines.insert(0, b" ".to_vec());
            }
            lines.join(&b'\n')
        }
    }
}

/// Everything that a fold leaves: rows, what is announced, the checkpoint with its tally, and which events were refused and why.
pub(crate) type Outcome = (BTreeMap<CellKey, StoredRow>, Vec<Touched>, Checkpoint, Vec<(Offset, u32, Reason)>);

/// Folds a log.
pub(crate) fn fold<'a>(records: impl IntoIterator<Item = Record<'a>>) -> Outcome {
    let settings = FoldSettings { dedup_minutes: 2, max_lateness_ms: 3_600_000, ..FoldSettings::default() };
    let mut fold = Fold::new(Source(0), settings, FoldLimits::default(), None, Offset(0));
    records.into_iter().for_each(|record| fold.apply(&record));
    while let Some(load) = fold.poll_load() {
        let nothing = vec![None; load.keys.len()];
        fold.loaded(&load, &nothing);
    }
    let Flush { rollups, minutes, touched, dead_letters, checkpoint } = fold.take_flush().unwrap();
    let letters = dead_letters.into_iter().map(|letter| (letter.offset, letter.index, letter.reason)).collect();
    (rollups.into_iter().chain(minutes).collect(), touched, checkpoint, letters)
}
