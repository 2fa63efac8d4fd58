//! The auditor: recounts the log from the definitions, and shares no code with the fold.
//!
//! It is told what each record means (never its bytes) in log order, and can say for every prefix: clock, stamp,
//! watermark and tally, which events were refused and why, and the state of every cell after each of its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::calendar::{DAY, HOUR, MINUTE, MINUTE_MS, NEVER, YEAR, bucket, bucket_end, minute_of};
use crate::cover::Cover;
use crate::meaning::{Cell, Counts, Entity, Meaning, Prefix, Refused, Said, State, Tally};

/// The rules, as numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) grace: i64,
    pub(crate) skew: i64,
    pub(crate) lateness: i64,
    pub(crate) dedup: i64,
    pub(crate) ttl: [i64; 4],
}

/// Days since 1970; `None` for more than one.
pub(crate) type Day = Option<i64>;

/// The auditor of one source.
pub(crate) struct Auditor {
    rules: Rules,
    /// By length.
    prefixes: Vec<Prefix>,
    cells: BTreeMap<Cell, Vec<State>>,
    /// The truth: what each record adds to each minute, whatever is stored where.
    deltas: BTreeMap<(Entity, i64), Vec<(u64, Counts)>>,
    by_minute: BTreeMap<i64, BTreeSet<Entity>>,
    /// By offset.
    changed: Vec<Vec<Cell>>,
    /// Days whose closed counts a record changes, by offset.
    late: Vec<BTreeSet<Day>>,
    refused: Vec<Vec<Refused>>,
    /// When (minute of the log clock) an id was read in an event that was not rejected.
    seen: BTreeMap<Rc<str>, Vec<i64>>,
    pub(crate) cover: Cover,
}

fn add(to: &mut Counts, more: Counts) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

impl Auditor {
    pub(crate) fn new(rules: Rules) -> Self {
        let empty = Prefix { clock: NEVER, stamp: 0, closed: NEVER, append_time: NEVER, adjustments: 0, tally: Tally::default() };
        Self {
            rules,
            prefixes: vec![empty],
            cells: BTreeMap::new(),
            deltas: BTreeMap::new(),
            by_minute: BTreeMap::new(),
            changed: Vec::new(),
            late: Vec::new(),
            refused: Vec::new(),
            seen: BTreeMap::new(),
            cover: Cover::default(),
        }
    }

    /// The prefix of so many records.
    pub(crate) fn prefix(&self, len: u64) -> &Prefix {
        &self.prefixes[len as usize]
    }

    pub(crate) fn last(&self) -> &Prefix {
        self.prefix(self.changed.len() as u64)
    }

    pub(crate) fn refused(&self, offset: u64) -> &[Refused] {
        &self.refused[offset as usize]
    }

    /// The cells that the record at `offset` changes.
    pub(crate) fn changed(&self, offset: u64) -> &[Cell] {
        &self.changed[offset as usize]
    }

    /// The days whose counts the record at `offset` changes after they were closed.
    pub(crate) fn late(&self, offset: u64) -> &BTreeSet<Day> {
        &self.late[offset as usize]
    }

    pub(crate) const fn cells(&self) -> &BTreeMap<Cell, Vec<State>> {
        &self.cells
    }

    /// The state of a cell that has changed last at `version - 1`, if it changed there.
    pub(crate) fn state(&self, cell: &Cell, version: u64) -> Option<&State> {
        let states = self.cells.get(cell)?;
        let found = states.binary_search_by_key(&version, |state| state.offset + 1).ok()?;
        states.get(found)
    }

    /// The counts of a cell as of the prefix of `len` records.
    pub(crate) fn counts_at(&self, cell: &Cell, len: u64) -> Counts {
        let states = self.cells.get(cell).map_or(&[][..], |states| states);
        let before = states.partition_point(|state| state.offset < len);
        before.checked_sub(1).map_or([0; 3], |last| states[last].counts)
    }

    /// The sum of what records below `len` add to the minutes of a bucket.
    pub(crate) fn truth(&self, entity: &Entity, tier: u8, start: i64, len: u64) -> Counts {
        self.truth_between(entity, start, bucket_end(tier, start), len)
    }

    /// The sum of what records below `len` add to the minutes in `[start, end)`.
    pub(crate) fn truth_between(&self, entity: &Entity, start: i64, end: i64, len: u64) -> Counts {
        let minutes = self.deltas.range((entity.clone(), start)..(entity.clone(), end));
        let mut sum = [0; 3];
        minutes.flat_map(|(_, deltas)| deltas).filter(|(offset, _)| *offset < len).for_each(|(_, counts)| add(&mut sum, *counts));
        sum
    }

    /// How many minute cells are open after so many records.
    pub(crate) fn open_cells(&self, len: u64) -> usize {
        let open = self.by_minute.range(minute_of(self.prefix(len).closed.max(-1 << 50))..);
        open.map(|(_, entities)| entities.len()).sum()
    }

    /// Whether the tier no longer keeps the bucket when the log clock stands at `clock`.
    pub(crate) fn is_expired(&self, tier: u8, start: i64, clock: i64) -> bool {
        let ttl = self.rules.ttl[tier as usize];
        ttl > 0 && bucket_end(tier, start) * MINUTE_MS + ttl <= clock
    }

    /// The first record that a recovery from the prefix has to read: the first whose append time is in or after the
    /// minute of `closed - skew`, less the minutes of deduplication.
    pub(crate) fn warm_from(&self, len: u64) -> u64 {
        let from = (minute_of(self.prefix(len).closed - self.rules.skew) - self.rules.dedup) * MINUTE_MS;
        let first = (0..len).find(|offset| self.prefix(offset + 1).append_time >= from);
        first.unwrap_or(len)
    }

    /// Takes in the record at the next offset.
    pub(crate) fn append(&mut self, append_time: i64, meaning: &Meaning, payload: &[u8]) {
        let offset = self.changed.len() as u64;
        let before = self.last().clone();
        let clock = before.clock.max(append_time);
        let stamp = (before.stamp + 1).max(clock * 1_000);
        let closed = before.closed.max(minute_of(clock - self.rules.grace) * MINUTE_MS);
        self.changed.push(Vec::new());
        self.late.push(BTreeSet::new());
        self.refused.push(Vec::new());
        self.cover.hit_if("append time goes back", append_time < before.append_time);
        let tally = before.tally;
        self.prefixes.push(Prefix { clock, stamp, closed, append_time, adjustments: before.adjustments, tally });
        if closed > before.closed {
            self.close(offset, before.closed, closed);
        }
        match meaning {
            Meaning::Events { historical, events } => {
                for (index, (bytes, said)) in (0..).zip(events) {
                    if let Some(reason) = self.event(offset, *historical, said) {
                        self.refuse(offset, index, reason, bytes);
                    }
                }
            }
            Meaning::Tick => {}
            Meaning::Unreadable(reason) => self.refuse(offset, 0, reason, payload),
            correction => match self.correct(offset, correction) {
                Some(reason) => self.refuse(offset, 0, reason, payload),
                None => self.here().tally.corrections += 1,
            },
        }
        if matches!(meaning, Meaning::Unreadable(_)) {
            self.here().tally.read += 1;
        }
    }

    fn here(&mut self) -> &mut Prefix {
        let last = self.prefixes.len() - 1;
        &mut self.prefixes[last]
    }

    fn refuse(&mut self, offset: u64, index: u32, reason: &'static str, bytes: &[u8]) {
        *self.here().tally.rejected.entry(reason).or_default() += 1;
        self.refused[offset as usize].push(Refused { index, reason, bytes: bytes.to_vec() });
        self.cover.hit(reason);
    }

    /// Each open minute that the watermark passes is added to its hour, day and year.
    fn close(&mut self, offset: u64, from: i64, to: i64) {
        let minutes = minute_of(from.max(-1 << 50))..minute_of(to);
        let closing: Vec<(i64, Entity)> =
            self.by_minute.range(minutes).flat_map(|(minute, entities)| entities.iter().map(|entity| (*minute, entity.clone()))).collect();
        for (minute, entity) in closing {
            let counts = self.truth(&entity, MINUTE, minute, offset);
            self.cover.hit("minute closed");
            self.roll_up(offset, &entity, minute, counts);
        }
    }

    fn event(&mut self, offset: u64, historical: bool, said: &Said) -> Option<&'static str> {
        self.here().tally.read += 1;
        let (id, entities, ts, engaged) = match said {
            Said::Malformed(reason) => return Some(reason),
            Said::Event { id, entities, ts, engaged } => (id, entities, *ts, *engaged),
        };
        let clock = self.here().clock;
        if ts > clock + self.rules.skew {
            self.cover.hit_if("historical event in the future", historical);
            return Some("in_future");
        }
        if ts < clock - self.rules.lateness && !historical {
            return Some("too_old");
        }
        let now = minute_of(clock);
        let seen = self.seen.entry(Rc::clone(id)).or_default();
        let oldest = now - self.rules.dedup;
        let duplicate = self.rules.dedup > 0 && seen.iter().any(|minute| *minute >= oldest);
        self.cover.hit_if("duplicate at the window's edge", duplicate && seen.last() == Some(&oldest));
        self.cover.hit_if("duplicate only by its last copy", duplicate && seen.first().is_some_and(|first| *first < oldest));
        self.cover.hit_if("same id just beyond the window", !duplicate && self.rules.dedup > 0 && seen.last() == Some(&(oldest - 1)));
        seen.push(now);
        if duplicate {
            self.here().tally.duplicate += 1;
            self.cover.hit("duplicate");
            return None;
        }
        self.here().tally.counted += 1;
        let counts = if engaged { [0, 0, 1] } else { [1, 1, 0] };
        entities.iter().for_each(|entity| self.count(offset, entity, minute_of(ts), counts));
        None
    }

    /// One change of a minute; of its hour, day and year too if it is closed.
    fn count(&mut self, offset: u64, entity: &Entity, minute: i64, counts: Counts) {
        self.deltas.entry((entity.clone(), minute)).or_default().push((offset, counts));
        self.by_minute.entry(minute).or_default().insert(entity.clone());
        self.change(offset, entity, MINUTE, minute, |state| add_to(state, counts));
        if minute * MINUTE_MS < self.here().closed {
            self.cover.hit("late event or adjustment");
            self.late[offset as usize].insert(Some(minute.div_euclid(1_440)));
            self.roll_up(offset, entity, minute, counts);
        }
    }

    fn roll_up(&mut self, offset: u64, entity: &Entity, minute: i64, counts: Counts) {
        for tier in [HOUR, DAY, YEAR] {
            self.change(offset, entity, tier, bucket(tier, minute), |state| add_to(state, counts));
        }
    }

    fn change(&mut self, offset: u64, entity: &Entity, tier: u8, start: i64, act: impl FnOnce(&mut State) -> bool) {
        let Prefix { clock, stamp, closed, .. } = *self.here();
        if self.is_expired(tier, start, clock) {
            self.cover.hit("change skipped by TTL");
            return;
        }
        let cell = Cell { entity: entity.clone(), tier, start };
        let states = self.cells.entry(cell.clone()).or_default();
        let empty = State { offset, counts: [0; 3], stamp, through: NEVER, mark: None };
        let mut state = states.last().cloned().unwrap_or(empty);
        if !act(&mut state) {
            if states.is_empty() {
                self.cells.remove(&cell);
            }
            return;
        }
        let through = if tier == MINUTE { NEVER } else { closed };
        (state.stamp, state.through) = (stamp, through);
        if states.last().is_some_and(|last| last.offset == offset) {
            states.pop();
        } else {
            self.changed[offset as usize].push(cell);
        }
        states.push(State { offset, ..state });
    }

    fn correct(&mut self, offset: u64, meaning: &Meaning) -> Option<&'static str> {
        let Prefix { closed, adjustments, .. } = *self.here();
        let ignores = |cell: &Cell| cell.tier == MINUTE && cell.start * MINUTE_MS >= closed;
        match meaning {
            Meaning::Adjustment { after, .. } if *after != adjustments => return Some("stale_adjustment"),
            Meaning::Adjustment { deltas, .. } if deltas.iter().any(|(minute, ..)| minute * MINUTE_MS >= closed) => {
                return Some("minute_open");
            }
            Meaning::Adjustment { deltas, .. } => {
                self.here().adjustments += 1;
                self.cover.hit("adjustment taken");
                for (minute, entities, counts) in deltas {
                    entities.iter().for_each(|entity| self.count(offset, entity, *minute, *counts));
                }
            }
            Meaning::Mark(cells) => {
                for cell in cells.iter().filter(|cell| !ignores(cell)) {
                    self.change(offset, &cell.entity, cell.tier, cell.start, |state| {
                        state.mark = Some((offset, [0; 3]));
                        true
                    });
                }
            }
            Meaning::Set { mark, cells } => {
                for (cell, values) in cells.iter().filter(|(cell, _)| !ignores(cell)) {
                    let mut taken = None;
                    self.change(offset, &cell.entity, cell.tier, cell.start, |state| {
                        taken = Some(state.mark.filter(|(at, _)| at == mark));
                        let Some(Some((_, since))) = taken else { return false };
                        state.counts = *values;
                        add(&mut state.counts, since);
                        true
                    });
                    if taken.flatten().is_some() {
                        self.late[offset as usize].insert((cell.tier != YEAR).then(|| cell.start.div_euclid(1_440)));
                    }
                    self.cover.hit_if("set without its mark", taken == Some(None));
                    self.cover.hit_if("repair over later changes", taken.flatten().is_some_and(|(_, since)| since != [0; 3]));
                }
            }
            _ => return Some("bad_correction"),
        }
        None
    }
}

fn add_to(state: &mut State, counts: Counts) -> bool {
    add(&mut state.counts, counts);
    if let Some((_, since)) = &mut state.mark {
        add(since, counts);
    }
    true
}
