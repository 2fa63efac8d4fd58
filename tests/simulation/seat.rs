//! Owners and the messages between them and the store, each of which may be late, lost, half done or done twice.

use std::collections::BTreeSet;

use aggregator::fold::Load;
use aggregator::owner::{Owner, OwnerStatus, Write, WriteKind};
use aggregator::recovery::SourceError;
use schemas::{CellKey, Checkpoint, Source, StoredRow};

use crate::auditor::Auditor;
use crate::cover::Cover;
use crate::disk;
use crate::workload::REPAIRED_MAX;
use crate::world::World;

/// A place for an owner.
pub(crate) struct Seat {
    /// Messages know owners by name.
    name: u64,
    pub(crate) state: State,
    /// What it has loaded.
    loaded: BTreeSet<CellKey>,
}

pub(crate) enum State {
    /// The checkpoint is to be read.
    Empty,
    /// It has been read, maybe long ago.
    Read(Option<Box<Checkpoint>>),
    Owned(Box<Owner>),
}

/// A message under way.
pub(crate) enum Mail {
    Load { to: u64, load: Load },
    Rows { to: u64, load: Load, rows: Option<Vec<Option<StoredRow>>> },
    Write { to: u64, write: Write },
    Written { to: u64, id: u64, ok: bool },
    Tick,
}

impl Seat {
    pub(crate) const fn name(&self) -> u64 {
        self.name
    }

    pub(crate) const fn owner(&self) -> Option<&Owner> {
        match &self.state {
            State::Owned(owner) => Some(owner),
            _ => None,
        }
    }
}

impl World<'_> {
    /// A new owner begins.
    pub(crate) fn seat(&mut self) {
        self.names += 1;
        self.cover.hit_if("two owners at once", !self.seats.is_empty());
        self.seats.push(Seat { name: self.names, state: State::Empty, loaded: BTreeSet::new() });
        self.trace.line(format_args!("owner {} begins", self.names));
    }

    /// An owner is asked to hand over: it stores what it has and goes.
    pub(crate) fn hand_over(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        self.trace.line(format_args!("owner {} is to hand over", seat.name));
        if let State::Owned(owner) = &mut seat.state {
            owner.drain();
        }
    }

    /// An owner is gone; what it has asked for is still under way.
    pub(crate) fn crash(&mut self, at: usize) {
        let seat = self.seats.swap_remove(at);
        self.trace.line(format_args!("owner {} crashes", seat.name));
        self.cover.hit("crash");
        if let Some(owner) = seat.owner() {
            let status = owner.status();
            self.cover.hit_if("crash while recovering", status.recovering > 0);
            self.cover.hit_if("crash with changes that are not stored", status.position > status.stored);
        }
    }

    /// Some of what an owner's worker does in a turn.
    pub(crate) fn turn(&mut self, at: usize) {
        let now = self.now();
        let seat = &mut self.seats[at];
        let name = seat.name;
        match &mut seat.state {
            State::Empty => {
                if !self.disk.is_out {
                    seat.state = State::Read(self.disk.checkpoint().map(Box::new));
                }
                return;
            }
            State::Read(checkpoint) => {
                if self.dice.percent(60) {
                    return;
                }
                let checkpoint = checkpoint.take().map(|checkpoint| *checkpoint);
                self.start(at, checkpoint);
                return;
            }
            State::Owned(owner) => {
                if self.dice.percent(80)
                    && let Some(load) = owner.poll_load(now)
                {
                    let cells: Vec<_> = load.keys.iter().map(disk::cell).collect();
                    self.trace.line(format_args!("owner {name} loads {cells:?}"));
                    self.cover.hit("load");
                    self.mail.push(Mail::Load { to: name, load });
                }
                if self.dice.percent(80)
                    && let Some(write) = owner.poll_write(now)
                {
                    self.trace.line(format_args!("owner {name} writes {}", write.id));
                    self.mail.push(Mail::Write { to: name, write });
                }
                if owner.poll_tick(now) {
                    self.mail.push(Mail::Tick);
                }
            }
        }
        if self.dice.percent(80) {
            self.read(at);
        }
        self.leave(at);
    }

    /// An owner that has handed over goes.
    pub(crate) fn leave(&mut self, at: usize) {
        let Some(owner) = self.seats.get(at).and_then(Seat::owner).filter(|owner| owner.is_drained()) else { return };
        let status = owner.status();
        assert!(status.recovering > 0 || status.stored == status.position, "a drained owner has stored what it read: {status:?}");
        self.seats.swap_remove(at);
        self.cover.hit("owner hands over");
    }

    fn start(&mut self, at: usize, checkpoint: Option<Checkpoint>) {
        let (ends, now) = (self.log.ends(), self.now());
        match Owner::new(self.disk.source, self.settings.clone(), self.options, checkpoint.clone(), ends, now) {
            Ok(owner) => {
                self.trace.line(format_args!("owner {} starts from {:?}", self.seats[at].name, anywhere(owner.status())));
                if let Some(checkpoint) = &checkpoint {
                    self.cover.hit_if("start from an overtaken checkpoint", Some(checkpoint) != self.disk.checkpoints.last());
                    warm_up_cases(checkpoint, &self.auditor, &mut self.cover);
                }
                self.seats[at].state = State::Owned(Box::new(owner));
            }
            Err(SourceError::Gap { .. } | SourceError::WarmUpGone { .. }) => {
                assert_ne!(checkpoint.as_ref(), self.disk.checkpoints.last(), "retention keeps what the newest checkpoint needs");
                self.cover.hit("start refused, overtaken by retention");
                self.seats.swap_remove(at);
            }
            Err(error) => panic!("a start is refused: {error}"),
        }
    }

    /// Lends records to an owner. Returns whether it took any.
    pub(crate) fn read(&mut self, at: usize) -> bool {
        let now = self.now();
        let State::Owned(owner) = &mut self.seats[at].state else { return false };
        let recovering = owner.status().recovering > 0;
        let Some((from, mut limit)) = owner.wants(now) else {
            self.cover.hit_if("pause by backpressure", owner.status().position.0 < self.log.end());
            return false;
        };
        limit.records = limit.records.min(1 + self.dice.below(12));
        if from.0 < self.log.start {
            self.trace.line(format_args!("owner {} lags behind retention", self.seats[at].name));
            self.cover.hit("owner overtaken by retention");
            self.seats.swap_remove(at);
            return true;
        }
        let mut taken = 0;
        self.log.read(from.0, limit, |record| {
            taken += 1;
            owner.record(record, now).unwrap_or_else(|error| panic!("a record is refused: {error}"))
        });
        let status = owner.status();
        let status = anywhere(status);
        self.trace.line(format_args!("owner {} read {taken} from {from}: {status:?}", self.seats[at].name));
        self.cover.add("record warmed up", if recovering { taken } else { 0 });
        self.check(&status);
        taken > 0
    }

    fn check(&self, status: &OwnerStatus) {
        let len = status.position.0;
        let prefix = self.auditor.prefix(len);
        assert_eq!((status.clock.0, status.closed.0), (prefix.clock, prefix.closed), "clock and watermark of {len}");
        let tally = disk::tally(&status.tally);
        assert_eq!(tally, prefix.tally, "I1: the tally of {len}");
        let rejected: u64 = status.tally.rejected_events();
        assert_eq!(tally.counted + tally.duplicate + rejected, tally.read, "I1: events are conserved");
        // Each of dirty and parked cells may pass its bound by what the last record changed, or named: a set may leave cells alone.
        let last = len.checked_sub(1).map_or(0, |last| self.auditor.changed(last).len().max(REPAIRED_MAX));
        let (sizes, limits) = (status.sizes, self.options.limits);
        // What must stay, and what eviction, which looks at a bounded number of cells a record, has not got to yet.
        let unstored: BTreeSet<_> = (status.stored.0..len).flat_map(|offset| self.auditor.changed(offset)).collect();
        let must_stay = self.auditor.open_cells(len) + unstored.len();
        let (resident, slack) = (sizes.resident_cells, limits.resident_cells / 2 + 2 * last + 60);
        assert!(resident <= limits.resident_cells + must_stay + slack, "{resident} resident cells, of which {must_stay} must stay");
        let pending = sizes.dirty_cells + sizes.parked_cells;
        assert!(pending <= 2 * limits.pending_max + last, "{pending} cells pend, with a limit of {}", limits.pending_max);
    }

    /// Some message gets one step further.
    pub(crate) fn deliver(&mut self) {
        if self.mail.is_empty() {
            return;
        }
        let at = self.dice.below(self.mail.len());
        match self.mail.swap_remove(at) {
            Mail::Tick => {
                if !self.dice.percent(self.plan.faults) {
                    self.tick();
                }
            }
            Mail::Load { to, load } => {
                let fails = self.disk.is_out || self.dice.percent(self.plan.faults);
                let rows = (!fails).then(|| self.disk.read(&load.keys));
                self.mail.push(Mail::Rows { to, load, rows });
            }
            Mail::Write { to, write } => self.write(to, write),
            Mail::Rows { to, load, rows } => self.rows(to, &load, rows.as_deref()),
            Mail::Written { to, id, ok } => {
                let (now, jitter) = (self.now(), self.dice.unit());
                self.trace.line(format_args!("owner {to} hears of write {id}: {ok}"));
                match self.seats.iter_mut().find(|seat| seat.name == to).map(|seat| &mut seat.state) {
                    Some(State::Owned(owner)) if ok => owner.written(id, now),
                    Some(State::Owned(owner)) => owner.write_failed(id, now, jitter),
                    _ => self.cover.hit("answer to the dead"),
                }
            }
        }
    }

    fn rows(&mut self, to: u64, load: &Load, rows: Option<&[Option<StoredRow>]>) {
        let (now, jitter) = (self.now(), self.dice.unit());
        let Some(seat) = self.seats.iter_mut().find(|seat| seat.name == to) else {
            return self.cover.hit("answer to the dead");
        };
        let State::Owned(owner) = &mut seat.state else { return };
        self.trace.line(format_args!("owner {to} hears of load {}: {rows:?}", load.ticket));
        let Some(rows) = rows else {
            self.cover.hit("failed load");
            return owner.load_failed(load, now, jitter);
        };
        let ahead = rows.iter().flatten().any(|row| row.row.version > owner.status().position);
        self.cover.hit_if("loaded row is ahead of its owner", ahead);
        owner.loaded(load, rows);
        for key in &load.keys {
            self.cover.hit_if("evicted cell comes back", !seat.loaded.insert(key.clone()));
        }
    }

    /// A write reaches the store, or not, or in part; and its owner hears the truth of it, or not, or has died.
    fn write(&mut self, to: u64, write: Write) {
        let Write { id, what } = write;
        let goes_wrong = self.dice.percent(self.plan.faults);
        // Of a call's rows, this share lands; of records and checkpoints all or none.
        let (share, ok) = match self.dice.below(6) {
            _ if self.disk.is_out => (0, false),
            _ if !goes_wrong => (100, true),
            0 => (0, false),
            1 | 2 => (100, false),
            3 => (90, false),
            _ => (40, false),
        };
        let all = !matches!(what, WriteKind::Rows(_)) || share == 100;
        if share > 0 {
            let mut left_out = 0;
            let dice = &mut self.dice;
            let lands = || {
                let lands = all || dice.percent(share);
                left_out += u64::from(!lands);
                lands
            };
            self.disk.write(&what, lands, &self.auditor, &mut self.cover, &mut self.trace);
            self.cover.hit_if("partial write", left_out > 0);
        }
        self.cover.hit_if("write reported as failed", !ok);
        if self.dice.percent(self.plan.faults / 2) {
            self.limbo.push(what);
        }
        let seat = self.seats.iter().position(|seat| seat.name == to);
        if let Some(at) = seat.filter(|_| self.dice.percent(self.plan.faults / 5)) {
            self.cover.hit("crash in the middle of a flush");
            return self.crash(at);
        }
        self.mail.push(Mail::Written { to, id, ok });
    }
}

/// What two runs of a seed have in common: all but the source.
const fn anywhere(status: OwnerStatus) -> OwnerStatus {
    OwnerStatus { source: Source(0), ..status }
}

/// Whether the warm-up from a checkpoint has to do what it is for.
fn warm_up_cases(checkpoint: &Checkpoint, auditor: &Auditor, cover: &mut Cover) {
    for offset in checkpoint.warm_from.0..checkpoint.next_offset.0 {
        let opens = |cell: &crate::meaning::Cell| cell.tier == 0 && cell.start * 60_000 >= checkpoint.closed.0;
        let rebuilt = auditor.changed(offset).iter().any(opens);
        cover.hit_if("warm-up rebuilds an open minute", rebuilt);
        cover
            .hit_if("warm-up rebuilds a minute of before the watermark", rebuilt && auditor.prefix(offset + 1).clock < checkpoint.closed.0);
    }
}
