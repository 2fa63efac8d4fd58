//! One run: a log that grows, owners that come, go on and die, a store that fails, and a reader, in an order of chance.
//!
//! The owners are the program's own; the world acts for them as a worker would ([`crate::seat`]), and badly.

use std::time::Duration;

use aggregator::fold::FoldLimits;
use aggregator::owner::{Now, OwnerOptions, WriteKind};
use ingest::ReadLimit;
use schemas::{FoldSettings, Millis, RecordKind};

use crate::auditor::{Auditor, Rules};
use crate::calendar::{bucket, minute_of};
use crate::cover::Cover;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::log::{Entry, Log};
use crate::meaning::{Cell, Meaning};
use crate::reader::Reader;
use crate::seat::{Mail, Seat};
use crate::trace::Trace;
use crate::workload::{Sent, Workload};

/// What differs from seed to seed besides the events.
pub(crate) struct Plan {
    steps: usize,
    owners_max: usize,
    /// Of 100 messages to the store, so many go wrong.
    pub(crate) faults: usize,
    crashes: usize,
    pub(crate) adjustments: bool,
    repairs: bool,
    appends: usize,
    reads: usize,
}

/// Everything there is in one run.
pub(crate) struct World<'s> {
    pub(crate) dice: Dice,
    pub(crate) plan: Plan,
    pub(crate) settings: FoldSettings,
    pub(crate) options: OwnerOptions,
    pub(crate) log: Log,
    pub(crate) auditor: Auditor,
    pub(crate) disk: Disk<'s>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) mail: Vec<Mail>,
    /// Writes that arrive (again) at any time.
    pub(crate) limbo: Vec<WriteKind>,
    pub(crate) cover: Cover,
    pub(crate) trace: Trace,
    pub(crate) workload: Workload,
    pub(crate) elapsed: Duration,
    pub(crate) names: u64,
    /// The store holds no other copy of this log.
    pub(crate) is_alone: bool,
    /// The broker's clock.
    wall: i64,
    reader: Reader,
    asked: Option<Cell>,
    /// Marks whose sets have not been published: the mark's offset and its cells.
    marks: Vec<(u64, Vec<Cell>)>,
}

/// Half an hour before a year ends, minutes before a leap day, and noon.
const BEGINNINGS: [i64; 3] = [1_798_756_200_000, 1_835_394_600_000, 1_795_176_000_000];

fn settings(dice: &mut Dice) -> FoldSettings {
    let max_lateness_ms = dice.pick(&[300_000, 3_600_000, 7 * 86_400_000]);
    // A TTL is legal if it is longer than what may be late.
    let ttl = |dice: &mut Dice| if dice.percent(60) { 0 } else { max_lateness_ms + dice.pick(&[1, 60_000, 4_000_000]) };
    FoldSettings {
        grace_ms: dice.pick(&[0, 1_000, 10_000, 90_000]),
        max_skew_ms: dice.pick(&[0, 5_000, 60_000, 150_000, 150_000]),
        max_lateness_ms,
        dedup_minutes: dice.pick(&[0, 1, 2, 10]),
        minute_ttl_ms: ttl(dice),
        hour_ttl_ms: ttl(dice),
        ..FoldSettings::default()
    }
}

fn options(dice: &mut Dice) -> OwnerOptions {
    OwnerOptions {
        flush_interval: Duration::from_millis(dice.pick(&[0, 50, 300, 1_000])),
        tick_after: Duration::from_secs(dice.pick(&[2, 60, 600])),
        read: ReadLimit { records: dice.pick(&[1, 10, 1_000]), bytes: dice.pick(&[1, 1 << 20, 1 << 20]), patience: Duration::ZERO },
        limits: FoldLimits {
            resident_cells: dice.pick(&[1, 8, 30, 1_000_000]),
            pending_max: dice.pick(&[2, 20, 60, 200_000, 200_000]),
            dead_letter_bytes: dice.pick(&[200, 1 << 20, 1 << 20]),
            load_cells: dice.pick(&[1, 7, 10_000, 10_000]),
        },
        accept_gap: false,
    }
}

impl<'s> World<'s> {
    pub(crate) fn new(seed: u64, disk: Disk<'s>, verbose: bool) -> Self {
        let mut dice = Dice::new(seed);
        let settings = settings(&mut dice);
        let options = options(&mut dice);
        let rules = Rules {
            grace: settings.grace_ms,
            skew: settings.max_skew_ms,
            lateness: settings.max_lateness_ms,
            dedup: settings.dedup_minutes.into(),
            ttl: [settings.minute_ttl_ms, settings.hour_ttl_ms, 0, 0],
        };
        let plan = Plan {
            steps: dice.pick(&[200, 800, 2_000]),
            owners_max: dice.pick(&[1, 2, 2, 3]),
            faults: dice.pick(&[0, 15, 40]),
            crashes: dice.pick(&[0, 2, 5]),
            adjustments: seed.is_multiple_of(3),
            repairs: seed.is_multiple_of(2),
            appends: dice.pick(&[8, 20, 35]),
            reads: dice.pick(&[2, 10, 25]),
        };
        let workload = Workload::new(seed, rules.clone(), &mut dice);
        Self {
            wall: dice.pick(&BEGINNINGS),
            plan,
            settings,
            options,
            log: Log::default(),
            auditor: Auditor::new(rules),
            disk,
            seats: Vec::new(),
            mail: Vec::new(),
            limbo: Vec::new(),
            cover: Cover::default(),
            trace: Trace::new(verbose),
            workload,
            elapsed: Duration::from_secs(100),
            names: 0,
            is_alone: true,
            reader: Reader::default(),
            asked: None,
            marks: Vec::new(),
            dice,
        }
    }

    pub(crate) const fn now(&self) -> Now {
        Now { wall: Millis(self.wall), elapsed: self.elapsed }
    }

    /// The run up to its quiet end.
    pub(crate) fn run(&mut self) {
        self.trace.line(format_args!("{:?} {:?}", self.settings, self.options));
        for _ in 0..self.plan.steps {
            self.elapsed += Duration::from_millis(self.dice.below(30) as u64);
            self.wall += self.dice.between(0, 30);
            self.step();
        }
    }

    fn step(&mut self) {
        let Plan { appends, reads, crashes, .. } = self.plan;
        let kinds = [appends, 5, crashes, 2, 45, 45, reads, 3, 3, 1, 3];
        let mut at = self.dice.below(kinds.iter().sum());
        let kind = kinds.iter().position(|weight| {
            let here = at < *weight;
            at = at.wrapping_sub(*weight);
            here
        });
        match kind {
            Some(0) => self.produce(),
            Some(1) if self.seats.len() < self.plan.owners_max => self.seat(),
            Some(2) if !self.seats.is_empty() => {
                let at = self.dice.below(self.seats.len());
                if self.dice.percent(30) { self.hand_over(at) } else { self.crash(at) }
            }
            Some(3) => self.repeat(),
            Some(4) => self.deliver(),
            Some(5) if !self.seats.is_empty() => {
                let at = self.dice.below(self.seats.len());
                self.turn(at);
            }
            Some(6) => self.query(),
            Some(7) => {
                let ms = self.dice.pick(&[50, 500, 3_000, 70_000]);
                self.elapsed += Duration::from_millis(self.dice.below(ms) as u64);
            }
            Some(8) => self.trim(),
            Some(9) => {
                self.disk.is_out = !self.disk.is_out && self.plan.faults > 0;
                self.cover.hit_if("store outage", self.disk.is_out);
            }
            Some(10) => self.correct(),
            _ => {}
        }
    }

    /// What the log clock will be once a record with this append time is in.
    fn clock_with(&self, append_time: i64) -> i64 {
        self.auditor.last().clock.max(append_time)
    }

    fn append_time(&mut self) -> i64 {
        let jump = match self.dice.below(100) {
            0..=59 => self.dice.between(0, 3_000),
            60..=89 => self.dice.between(3_000, 30_000),
            90..=97 => self.dice.between(60_000, 180_000),
            98 => self.dice.between(300_000, 3_600_000),
            _ => self.dice.between(3_600_000, 4 * 3_600_000),
        };
        self.wall += jump;
        let back = if self.dice.percent(8) { self.dice.pick(&[1, 5_000, 70_000, 200_000]) } else { 0 };
        self.wall - self.dice.between(0, back)
    }

    fn produce(&mut self) {
        let append_time = self.append_time();
        let sent = if self.dice.percent(2) {
            Workload::unknown(&mut self.dice)
        } else {
            let clock = self.clock_with(append_time);
            self.workload.events(clock, &mut self.dice)
        };
        self.append(append_time, sent);
    }

    fn append(&mut self, append_time: i64, sent: Sent) {
        self.auditor.append(append_time, &sent.meaning, &sent.payload);
        let Sent { kind, historical, payload, meaning } = sent;
        self.trace.line(format_args!("append {} at {append_time}: {kind:?} {historical} {meaning:?}", self.log.end()));
        self.log.append(Entry { append_time, kind, historical, payload });
    }

    /// A tick that an owner asked for.
    pub(crate) fn tick(&mut self) {
        let append_time = self.wall;
        self.append(append_time, Sent { kind: RecordKind::Tick, historical: false, payload: Vec::new(), meaning: Meaning::Tick });
        self.cover.hit("tick");
    }

    fn correct(&mut self) {
        let append_time = self.append_time();
        if self.plan.adjustments && self.dice.percent(50) {
            // Their author reads how many have been taken in a checkpoint, which may lag or be an old one by now.
            let after = match self.dice.below(10) {
                0 => self.disk.older(&mut self.dice).map_or(0, |checkpoint| checkpoint.adjustments),
                1..=3 => self.disk.checkpoints.last().map_or(0, |checkpoint| checkpoint.adjustments),
                _ => self.auditor.last().adjustments,
            };
            let clock = self.clock_with(append_time);
            for _ in 0..self.dice.pick(&[1, 1, 2]) {
                let sent = self.workload.adjustment(after, clock, &mut self.dice);
                self.append(append_time, sent);
            }
        } else if self.plan.repairs && self.log.end() > 0 {
            if self.marks.is_empty() || self.dice.percent(40) {
                let (sent, cells) = self.workload.mark(&self.auditor, &mut self.dice);
                self.marks.push((self.log.end(), cells));
                self.append(append_time, sent);
            } else {
                let at = self.dice.below(self.marks.len());
                // Some are published again later.
                let (mark, cells) = if self.dice.percent(25) { self.marks[at].clone() } else { self.marks.swap_remove(at) };
                let sent = Workload::set(mark, &cells, &self.auditor);
                self.append(append_time, sent);
            }
        }
    }

    /// A write arrives that nobody waits for any more.
    fn repeat(&mut self) {
        if self.limbo.is_empty() {
            return;
        }
        let what = self.limbo.swap_remove(self.dice.below(self.limbo.len()));
        self.trace.line(format_args!("a late write arrives"));
        self.cover.hit("repeated or late write");
        self.disk.write(&what, || true, &self.auditor, &mut self.cover, &mut self.trace);
    }

    /// Retention removes records that no recovery from the stored checkpoint reads.
    fn trim(&mut self) {
        let Some(checkpoint) = self.disk.checkpoints.last() else { return };
        self.log.start = self.log.start.max(checkpoint.warm_from.0.saturating_sub(self.dice.pick(&[0, 0, 3, 20])));
    }

    fn query(&mut self) {
        if self.dice.percent(10) {
            return self.query_now();
        }
        if self.reader.is_idle() {
            let again = self.asked.take().filter(|_| self.dice.percent(60));
            let entities = self.workload.entities();
            let entity = entities[self.dice.below(entities.len().min(8))].clone();
            let tier = self.dice.pick(&[1, 1, 2, 3]);
            let minute = minute_of(self.auditor.last().clock.max(0)) - self.dice.pick(&[0, 0, 1, 5, 60]);
            let cell = again.unwrap_or_else(|| Cell { entity, tier, start: bucket(tier, minute) });
            self.asked = Some(cell.clone());
            self.reader.ask(cell);
        }
        let rises = !self.plan.adjustments;
        if let Some(answer) = self.reader.step(&self.disk, &self.auditor, rises, &mut self.dice, &mut self.cover) {
            self.trace.line(format_args!("the reader says {answer:?}"));
        }
    }
}
