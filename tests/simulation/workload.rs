//! What producers send: events of every sort, well-formed or not, and now and then a correction.
//!
//! Each record is made twice, as the bytes for the log and as the [`Meaning`] for the auditor.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use schemas::view_batch::Writer;
use schemas::{Event, Kind, Millis, RecordKind};

use crate::auditor::{Auditor, Rules};
use crate::calendar::{MINUTE, bucket, minute_of};
use crate::dice::Dice;
use crate::json::{self, Fields};
use crate::meaning::{Cell, Counts, Entity, Meaning, Said};

/// A record to append.
pub(crate) struct Sent {
    pub(crate) kind: RecordKind,
    pub(crate) historical: bool,
    pub(crate) payload: Vec<u8>,
    pub(crate) meaning: Meaning,
}

/// At most so many cells are repaired at once.
pub(crate) const REPAIRED_MAX: usize = 6;

/// The producers of one run.
pub(crate) struct Workload {
    rules: Rules,
    /// Makes the names of this seed its own.
    prefix: String,
    /// Running sums of the Zipf weights of the videos.
    zipf: Vec<f64>,
    spaces: usize,
    next_id: u64,
    /// Ids by the minute of the log clock in which they were last sent.
    sent: BTreeMap<i64, Vec<Rc<str>>>,
    /// Ids of events that will have been rejected.
    refused: Vec<Rc<str>>,
    duplicates: usize,
    malformed: usize,
}

impl Workload {
    pub(crate) fn new(seed: u64, rules: Rules, dice: &mut Dice) -> Self {
        let videos = dice.pick(&[2, 5, 20, 200]);
        let mut total = 0.0;
        let zipf = (1..=videos).map(|rank| {
            total += 1.0 / f64::from(rank);
            total
        });
        Self {
            rules,
            prefix: format!("s{seed}"),
            zipf: zipf.collect(),
            spaces: dice.pick(&[0, 1, 3]),
            next_id: 0,
            sent: BTreeMap::new(),
            refused: Vec::new(),
            duplicates: dice.pick(&[3, 15, 40]),
            malformed: dice.pick(&[0, 3, 15]),
        }
    }

    /// Every entity that is counted, the most frequent first.
    pub(crate) fn entities(&self) -> Vec<Entity> {
        let videos = (0..self.zipf.len()).map(|n| self.video(n));
        let spaces = (0..self.spaces).map(|n| self.entity(1, &format!("space {n}")));
        [Entity { dimension: 2, id: "all".into() }].into_iter().chain(spaces).chain(videos).collect()
    }

    fn entity(&self, dimension: u8, name: &str) -> Entity {
        Entity { dimension, id: format!("{}-{name}", self.prefix).into() }
    }

    fn video(&self, n: usize) -> Entity {
        let name = ["v", "vidéo/", "v?&#"][n % 3];
        self.entity(0, &format!("{name}{n}"))
    }

    /// The entities of a view of some video. Some videos have no space.
    fn viewed(&self, dice: &mut Dice) -> Vec<Entity> {
        let at = dice.unit() * self.zipf.last().copied().unwrap_or_default();
        let n = self.zipf.partition_point(|sum| *sum <= at).min(self.zipf.len() - 1);
        let space = (self.spaces > 0 && n % 4 != 3).then(|| self.entity(1, &format!("space {}", n % self.spaces.max(1))));
        [Some(self.video(n)), space, Some(Entity { dimension: 2, id: "all".into() })].into_iter().flatten().collect()
    }

    /// A record of events, for a log whose clock will then stand at `clock`.
    pub(crate) fn events(&mut self, clock: i64, dice: &mut Dice) -> Sent {
        let historical = dice.percent(10);
        if dice.percent(25) {
            return self.batch(clock, historical, dice);
        }
        if dice.percent(60) {
            let (payload, said) = self.event(clock, historical, dice);
            let meaning = Meaning::Events { historical, events: vec![(payload.clone(), said)] };
            return Sent { kind: RecordKind::Json, historical, payload, meaning };
        }
        let mut payload = Vec::new();
        let mut events = Vec::new();
        for _ in 0..dice.below(7) {
            let (mut bytes, said) = self.event(clock, historical, dice);
            if dice.percent(5) {
                bytes.push(b'\r');
            }
            payload.extend_from_slice(&bytes);
            payload.push(b'\n');
            if dice.percent(5) {
                payload.extend_from_slice(b" \t\n\n");
            }
            events.push((bytes, said));
        }
        if dice.percent(50) {
            payload.pop();
        }
        Sent { kind: RecordKind::Ndjson, historical, payload, meaning: Meaning::Events { historical, events } }
    }

    /// A columnar batch. It cannot hold what is malformed as JSON.
    fn batch(&mut self, clock: i64, historical: bool, dice: &mut Dice) -> Sent {
        let mut writer = Writer::new();
        let mut events = Vec::new();
        for _ in 0..dice.below(20) {
            let (_, said) = self.event(clock, historical, dice);
            let Said::Event { id, entities, ts, engaged } = &said else { continue };
            let event = Event {
                event_id: Cow::from(&**id),
                video_id: Cow::from(&*entities[0].id),
                space_id: entities.iter().find(|entity| entity.dimension == 1).map(|entity| Cow::from(&*entity.id)),
                viewer_id: None,
                ts: Millis(*ts),
                watch_ms: None,
                kind: if *engaged { Kind::Engaged } else { Kind::View },
            };
            writer.push(&event, None).expect("a small batch takes any event");
            // What its dead letter holds.
            let mut bytes = Vec::new();
            schemas::json::encode(&event, &mut bytes);
            events.push((bytes, said));
        }
        Sent { kind: RecordKind::ViewBatch, historical, payload: writer.finish(), meaning: Meaning::Events { historical, events } }
    }

    fn event(&mut self, clock: i64, historical: bool, dice: &mut Dice) -> (Vec<u8>, Said) {
        let id = self.id(clock, dice);
        let ts = self.ts(clock, historical, dice);
        if dice.percent(self.malformed) {
            let (bytes, reason) = json::malformed(&id, clock, dice);
            self.refused.push(id);
            return (bytes, Said::Malformed(reason));
        }
        if ts > clock + self.rules.skew || (!historical && ts < clock - self.rules.lateness) {
            self.refused.push(Rc::clone(&id));
        } else {
            self.sent.entry(minute_of(clock)).or_default().push(Rc::clone(&id));
        }
        let entities = self.viewed(dice);
        let engaged = dice.percent(15);
        let space = entities.iter().find(|entity| entity.dimension == 1).map(|entity| &*entity.id);
        let bytes = json::event(&Fields { id: &id, video: &entities[0].id, space, ts, engaged }, dice);
        (bytes, Said::Event { id, entities, ts, engaged })
    }

    /// A new id, one that was sent some minutes of log clock ago (at the window's edge above all), or one that was rejected.
    fn id(&mut self, clock: i64, dice: &mut Dice) -> Rc<str> {
        if dice.percent(self.duplicates) {
            let window = self.rules.dedup;
            let age = dice.pick(&[0, 0, 1, window - 1, window, window, window, window + 1, window + 1, window + 4]);
            let then = minute_of(clock) - age;
            if let Some(ids) = self.sent.get_mut(&then) {
                let at = dice.below(ids.len());
                if !ids.is_empty() {
                    return ids.swap_remove(at);
                }
            }
        }
        if !self.refused.is_empty() && dice.percent(4) {
            return Rc::clone(&self.refused[dice.below(self.refused.len())]);
        }
        self.next_id += 1;
        format!("{}-e{}", self.prefix, self.next_id).into()
    }

    fn ts(&self, clock: i64, historical: bool, dice: &mut Dice) -> i64 {
        let Rules { skew, lateness, grace, .. } = self.rules;
        if historical && dice.percent(70) {
            let back = dice.pick(&[3_600_000, 26 * 3_600_000, 40 * 86_400_000, 800 * 86_400_000]);
            return clock - dice.between(0, back);
        }
        match dice.below(16) {
            0..=5 => clock - dice.between(0, 3_000),
            6..=8 => clock + dice.between(0, skew),
            9 => clock + skew + dice.pick(&[0, 1, 30_000, 3_600_000]),
            10 | 11 => clock - grace - dice.between(0, 70_000),
            12 | 13 => clock - dice.between(0, lateness.min(7_200_000)),
            14 => clock - lateness + dice.pick(&[0, -1, 1_000]),
            _ => clock - lateness - dice.between(0, 90_000_000),
        }
    }

    /// A record that cannot be read as anything.
    pub(crate) fn unknown(dice: &mut Dice) -> Sent {
        let mut payload: Vec<u8> = (0..dice.below(9)).map(|_| dice.below(256) as u8).collect();
        let kind = RecordKind::from_code(dice.pick(&[0, 3, 4, 77, 255]));
        if kind == RecordKind::ViewBatch {
            // A field that is longer than the payload.
            payload.splice(..0, [0x0a, 0x7f]);
            return Sent { kind, historical: false, payload, meaning: Meaning::Unreadable("bad_batch") };
        }
        Sent { kind, historical: false, payload, meaning: Meaning::Unreadable("unknown_record") }
    }

    /// An adjustment whose author has read `after`; some are of minutes that are still open.
    pub(crate) fn adjustment(&self, after: u64, clock: i64, dice: &mut Dice) -> Sent {
        if dice.percent(5) {
            let payload = b"{\"after\":0}".to_vec();
            return Sent { kind: RecordKind::Adjustment, historical: false, payload, meaning: Meaning::BadCorrection };
        }
        let delta = |dice: &mut Dice| {
            let back = dice.pick(&[0, 60_000, 400_000, 4_000_000, 100_000_000]);
            let minute = minute_of(clock - self.rules.grace - dice.between(0, back)) - 1 + i64::from(dice.percent(15)) * 2;
            let counts = dice.pick(&[[-1, -1, 0], [2, 2, 0], [0, 0, 1], [0, 0, 0]]);
            (minute, self.viewed(dice), counts)
        };
        let deltas: Vec<_> = (0..=dice.below(3)).map(|_| delta(dice)).collect();
        let payload = json::adjustment(after, &deltas);
        Sent { kind: RecordKind::Adjustment, historical: false, payload, meaning: Meaning::Adjustment { after, deltas } }
    }

    /// The first half of a repair of some cells, most of which exist.
    pub(crate) fn mark(&self, auditor: &Auditor, dice: &mut Dice) -> (Sent, Vec<Cell>) {
        let mut cells = Vec::new();
        let all = auditor.cells().len();
        for _ in 0..=dice.below(REPAIRED_MAX - 1) {
            if all > 0 && dice.percent(90) {
                cells.extend(auditor.cells().keys().nth(dice.below(all)).cloned());
            } else {
                let tier = dice.below(4) as u8;
                let start = bucket(tier, minute_of(auditor.last().clock) - dice.between(0, 3_000));
                cells.push(Cell { entity: self.viewed(dice)[0].clone(), tier, start });
            }
        }
        // The newest minutes too: those that are open ignore it.
        if dice.percent(30) {
            cells.extend(auditor.cells().keys().rev().find(|cell| cell.tier == MINUTE).cloned());
        }
        cells.sort();
        cells.dedup();
        let (payload, meaning) = (json::mark(&cells), Meaning::Mark(cells.clone()));
        (Sent { kind: RecordKind::Mark, historical: false, payload, meaning }, cells)
    }

    /// The second half: the true counts of the cells as of the mark.
    pub(crate) fn set(mark: u64, cells: &[Cell], auditor: &Auditor) -> Sent {
        let cells: Vec<(Cell, Counts)> = cells.iter().map(|cell| (cell.clone(), auditor.counts_at(cell, mark + 1))).collect();
        let (payload, meaning) = (json::set(mark, &cells), Meaning::Set { mark, cells });
        Sent { kind: RecordKind::Set, historical: false, payload, meaning }
    }
}
