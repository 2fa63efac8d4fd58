//! The quiet end of a run: owners reach the end of the log, and everything is compared with the auditor.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aggregator::owner::{Now, Owner, OwnerOptions};
use aggregator::{CountStore, Slice};
use futures_util::FutureExt;
use query::read::ReadError;
use schemas::{Checkpoint, Millis, Minute, Tier};

use crate::calendar::{DAY, HOUR, MINUTE, YEAR, bucket, minute_of};
use crate::cover::Cover;
use crate::disk::{self, Disk};
use crate::meaning::{Cell, Counts, Entity};
use crate::reader::Reading;
use crate::seat::{Mail, State};
use crate::world::World;

/// More turns than this without an end is a livelock.
const TURNS_MAX: usize = 100_000;
/// No failed call is tried again later than this.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// Range queries at the end of a run.
const QUERIES: usize = 8;

impl World<'_> {
    /// No more faults: every owner reads to the end of the log and stores all of it.
    pub(crate) fn settle(&mut self) {
        self.disk.is_out = false;
        self.plan.faults = 0;
        if self.dice.percent(50) {
            self.seats.clear();
        }
        self.mail.retain(|mail| !matches!(mail, Mail::Tick));
        let end = self.log.end();
        // Whether they store the last of it in their own time, or are asked to.
        let patient = self.dice.percent(50);
        for _ in 0..TURNS_MAX {
            if self.seats.is_empty() {
                self.seat();
            }
            let mut moved = !self.mail.is_empty();
            while !self.mail.is_empty() {
                self.deliver();
            }
            for at in (0..self.seats.len()).rev() {
                let Some(status) = self.seats[at].owner().map(Owner::status) else {
                    self.turn(at);
                    moved = true;
                    continue;
                };
                // One that was asked to hand over before it was here leaves the rest to the next.
                let early = status.position.0 < end || status.recovering > 0;
                if early && self.seats[at].owner().is_some_and(Owner::is_drained) {
                    self.leave(at);
                    moved = true;
                    continue;
                }
                let State::Owned(owner) = &mut self.seats[at].state else { continue };
                if status.position.0 == end && status.recovering == 0 && (status.stored.0 == end || !patient) {
                    owner.drain();
                }
                let now = Now { wall: Millis(self.wall()), elapsed: self.elapsed };
                let name = self.seats[at].name();
                let State::Owned(owner) = &mut self.seats[at].state else { continue };
                let asked = owner.poll_load(now).map(|load| Mail::Load { to: name, load });
                let asked = asked.into_iter().chain(owner.poll_write(now).map(|write| Mail::Write { to: name, write }));
                let before = self.mail.len();
                self.mail.extend(asked);
                moved |= self.mail.len() > before;
                // Ticks would move the end that it is to reach.
                owner.poll_tick(now);
                moved |= self.read(at);
            }
            if !self.seats.is_empty() && self.seats.iter().all(|seat| seat.owner().is_some_and(Owner::is_drained)) {
                return self.settled(end);
            }
            if !moved {
                self.sleep();
            }
        }
        panic!("an owner does not come to an end in {TURNS_MAX} turns");
    }

    /// Nothing can be done now: the earliest deadline must be in the future, and there must be one.
    fn sleep(&mut self) {
        let deadline = self.seats.iter().filter_map(|seat| seat.owner()).filter(|owner| !owner.is_drained()).map(Owner::deadline).min();
        let Some(deadline) = deadline.filter(|at| *at < Duration::MAX) else { panic!("an owner waits for nothing") };
        let unstored = self.seats.iter().filter_map(|seat| seat.owner()).map(Owner::status).any(|status| status.position > status.stored);
        let latest = self.elapsed + self.options.flush_interval + LONGEST_RETRY;
        assert!(!unstored || deadline <= latest, "changes wait to be stored until {deadline:?}");
        assert!(deadline > self.elapsed, "an owner wants a turn and does nothing with it");
        self.elapsed = deadline;
    }

    fn settled(&mut self, end: u64) {
        for seat in &self.seats {
            let status = seat.owner().expect("every seat is taken").status();
            assert_eq!((status.position.0, status.stored.0, status.recovering), (end, end, 0), "a drained owner has stored the log");
        }
        self.trace.line(format_args!("settled at {end}"));
        for what in std::mem::take(&mut self.limbo) {
            self.disk.write(&what, || true, &self.auditor, &mut self.cover, &mut self.trace);
        }
        self.seats.clear();
    }

    /// Everything that must hold at the end. The store will then hold so many `copies` of this log, each as a source.
    pub(crate) fn judge(&mut self, undisturbed: Disk<'_>, copies: i64) {
        if self.log.end() == 0 {
            return;
        }
        self.judge_rows();
        self.judge_sums();
        self.judge_rereading();
        self.judge_undisturbed(undisturbed);
        self.judge_stored();
        self.judge_by_bucket();
        self.judge_queries(copies);
        assert_eq!(self.disk.store.conflicts(), 0, "I5: equal stamps, other bytes");
    }

    /// Every cell is stored as it is after its last change.
    fn judge_rows(&self) {
        assert_eq!(self.disk.rows.len(), self.auditor.cells().len(), "cells stored");
        for (cell, states) in self.auditor.cells() {
            let last = states.last().expect("a cell has changed");
            assert_eq!(self.disk.rows.get(cell).map(disk::state).as_ref(), Some(last), "the last row of {cell:?}");
        }
    }

    /// I7: hours, days and years are the sum of their minutes, and both are the truth.
    fn judge_sums(&mut self) {
        let clock = self.auditor.last().clock;
        let minutes: Vec<Cell> = self.auditor.cells().keys().filter(|cell| cell.tier == MINUTE).cloned().collect();
        let mut sums: BTreeMap<Cell, [i64; 3]> = BTreeMap::new();
        for minute in &minutes {
            let truth = self.auditor.truth(&minute.entity, MINUTE, minute.start, u64::MAX);
            if !self.auditor.is_expired(MINUTE, minute.start, clock) {
                assert_eq!(self.disk.rows.get(minute).map(|row| disk::counts(row.row.counts)), Some(truth), "I7: {minute:?}");
            }
            for tier in [HOUR, DAY, YEAR] {
                let start = bucket(tier, minute.start);
                let truth = self.auditor.truth(&minute.entity, tier, start, u64::MAX);
                sums.insert(Cell { entity: minute.entity.clone(), tier, start }, truth);
            }
        }
        for (cell, truth) in sums {
            if !self.auditor.is_expired(cell.tier, cell.start, clock) {
                assert_eq!(Reading::answer(cell.clone(), &self.disk, &mut self.dice), truth, "I7: {cell:?}");
            }
        }
    }

    /// I2: owners that start from older checkpoints, or from none, change no row.
    fn judge_rereading(&mut self) {
        self.log.start = 0;
        let rows = self.disk.rows.clone();
        for _ in 0..2 {
            let from = self.disk.older(&mut self.dice);
            self.refold(from, self.options, None);
            assert!(self.disk.rows == rows, "I2: re-reading changes rows");
        }
    }

    /// I5: one owner that nothing ever happens to leaves the same rows.
    fn judge_undisturbed(&mut self, mut undisturbed: Disk<'_>) {
        self.refold(None, OwnerOptions::default(), Some(&mut undisturbed));
        assert!(undisturbed.rows == self.disk.rows, "I5: an undisturbed owner leaves other rows");
    }

    /// The real store holds these rows and no other.
    fn judge_stored(&self) {
        let mut stored = 0;
        for entity in self.workload.entities() {
            for tier in Tier::ALL {
                let key = disk::key(&Cell { entity: entity.clone(), tier: tier.code(), start: 0 }, self.disk.source);
                let slice = Slice { entity: key.entity, tier, start: Minute::MIN, end: Minute::MAX };
                let rows = self.disk.store.read_slice(slice).now_or_never().expect("the store answers at once").expect("a slice");
                for row in rows.iter().filter(|row| row.source == self.disk.source) {
                    let cell = Cell { entity: entity.clone(), tier: tier.code(), start: row.start.0.into() };
                    assert_eq!(self.disk.rows.get(&cell), Some(&row.stored), "the stored row of {cell:?}");
                    stored += 1;
                }
            }
        }
        assert_eq!(stored, self.disk.rows.len(), "rows in the store");
    }

    /// The hour and day rows of videos and spaces are kept by bucket as they are, and no others.
    fn judge_by_bucket(&self) {
        let kept: BTreeMap<_, _> = self.disk.store.scan_by_bucket().map(|cell| cell.expect("a cell by bucket")).collect();
        let kept = kept.into_iter().filter(|(key, _)| key.source == self.disk.source).map(|(key, row)| (disk::cell(&key), row));
        let belongs = |cell: &Cell| [HOUR, DAY].contains(&cell.tier) && cell.entity.dimension < 2;
        let rows = self.disk.rows.iter().filter(|(cell, _)| belongs(cell)).map(|(cell, row)| (cell.clone(), *row));
        assert_eq!(kept.collect::<BTreeMap<_, _>>(), rows.collect(), "rows by bucket");
    }

    /// I7: whatever tiers the query planner takes for a range, its answer is the truth, over all sources.
    fn judge_queries(&mut self, copies: i64) {
        for _ in 0..QUERIES {
            let Some((entity, start, end, sum)) = self.query_range() else { continue };
            let truth = self.auditor.truth_between(&entity, start, end, u64::MAX).map(|count| count * copies);
            assert_eq!(sum, truth, "I7: a query of {entity:?} from {start} to {end}");
        }
    }

    /// A query in the middle of the run, whatever half of a flush is stored.
    pub(crate) fn query_now(&mut self) {
        let least = self.disk.checkpoints.last().map_or(0, |checkpoint| checkpoint.next_offset.0);
        let Some((entity, start, end, sum)) = self.query_range() else { return };
        // With other copies of the log in the store, or corrections, there are no such bounds.
        if !self.is_alone || self.plan.adjustments {
            return;
        }
        let low = self.auditor.truth_between(&entity, start, end, least);
        let high = self.auditor.truth_between(&entity, start, end, u64::MAX);
        let inside = (0..3).all(|metric| (low[metric]..=high[metric]).contains(&sum[metric]));
        assert!(inside, "I3: a query of {entity:?} from {start} to {end} says {sum:?}, not {low:?} to {high:?}");
    }

    /// Asks the query planner for some entity's counts in some minutes. `None` if they are no longer kept.
    fn query_range(&mut self) -> Option<(Entity, i64, i64, Counts)> {
        let now = minute_of(self.auditor.last().clock.max(0));
        // The site is one for all seeds; what these have named themselves is their own.
        let entities: Vec<_> = self.workload.entities().into_iter().filter(|entity| entity.dimension < 2).collect();
        let entity = entities[self.dice.below(entities.len().min(12))].clone();
        let back = self.dice.pick(&[90, 3_000, 100_000, 2_000_000]);
        let start = now + 5 - self.dice.between(0, back);
        let end = start + self.dice.between(0, back);
        let (store, settings, sources) = (self.disk.store, &self.settings, NonZeroU32::MIN);
        let query = query::read::Reader { store, settings, sources, reads_at_once: 4 };
        let key = disk::key(&Cell { entity: entity.clone(), tier: MINUTE, start }, self.disk.source);
        let range = (Minute(start as i32), Minute(end as i32));
        match ready(query.sums(&key.entity, &[range], Millis(self.wall()))) {
            Ok(sums) => {
                self.cover.hit("range queried");
                Some((entity, start, end, disk::counts(sums.counts[0])))
            }
            Err(ReadError::Gone(_)) => {
                self.cover.hit("range that is no longer kept");
                None
            }
            Err(error) => panic!("a query fails: {error}"),
        }
    }

    /// One owner folds from a checkpoint to the end of the log; every message arrives at once.
    fn refold(&mut self, from: Option<Checkpoint>, options: OwnerOptions, other: Option<&mut Disk<'_>>) {
        let wall = Millis(self.wall());
        let mut now = Now { wall, elapsed: Duration::ZERO };
        let Self { disk, auditor, log, trace, settings, .. } = self;
        let cover = &mut Cover::default();
        let mut other = other;
        let source = other.as_ref().map_or(disk.source, |other| other.source);
        let mut owner = Owner::new(source, settings.clone(), options, from, log.ends(), now).expect("a start from an older checkpoint");
        for _ in 0..TURNS_MAX {
            now.elapsed += Duration::from_millis(100);
            if owner.status().position.0 == log.end() && owner.status().recovering == 0 {
                owner.drain();
            }
            if owner.is_drained() {
                return;
            }
            if let Some(load) = owner.poll_load(now) {
                let rows = other.as_ref().map_or_else(|| disk.read(&load.keys), |other| other.read(&load.keys));
                owner.loaded(&load, &rows);
            }
            if let Some(write) = owner.poll_write(now) {
                match &mut other {
                    Some(other) => other.write(&write.what, || true, auditor, cover, trace),
                    None => disk.write(&write.what, || true, auditor, cover, trace),
                }
                owner.written(write.id, now);
            }
            if let Some((next, limit)) = owner.wants(now) {
                log.read(next.0, limit, |record| owner.record(record, now).unwrap_or_else(|error| panic!("a record is refused: {error}")));
            }
        }
        panic!("an undisturbed owner does not come to an end in {TURNS_MAX} turns");
    }

    fn wall(&self) -> i64 {
        self.now().wall.0
    }
}

/// The outcome of a future that waits for nothing, though it may ask to be polled again.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(outcome) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return outcome;
        }
    }
    panic!("a read of the store waits for something")
}
