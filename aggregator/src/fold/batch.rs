//! Columnar batches: counted by the places of their dictionary, so that what many events of a video share is done once.
//!
//! ```text
//! views, ids ──> classified, known as duplicates ──> a sum for each dictionary entry ──> videos ──> spaces
//!                                                └──> the site
//! ```
//!
//! Sums are by minute: an entry has the one that its last event fell into, and what it had of another spills into a list.
//! A batch with an id that is not plain text, good or bad, takes the slow way: event by event, as JSON does.

use schemas::view_batch::{EventId, View, ViewBatch};
use schemas::{Counts, Dimension, EventHash, Kind, Millis, Minute, Reason, Record, Rejection, Stage};

use super::cells::AHEAD;
use super::entities::EntityIx;
use super::events::Hint;
use super::{Fold, classify};

/// What events of one minute add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    minute: Minute,
    views: u32,
    engaged: u32,
}

impl Sum {
    const NONE: Self = Self { minute: Minute::NEVER, views: 0, engaged: 0 };

    fn counts(self) -> Counts {
        let views = i64::from(self.views);
        Counts { gross: views, valid: views, engaged: self.engaged.into() }
    }

    /// Adds what is of the same minute. What is of another replaces it, and the old one is returned.
    #[inline]
    fn add(&mut self, more: Self) -> Option<Self> {
        if self.minute == more.minute {
            self.views += more.views;
            self.engaged += more.engaged;
            return None;
        }
        let before = std::mem::replace(self, more);
        (before != Self::NONE).then_some(before)
    }
}

/// Sums by a place of a dictionary.
#[derive(Default)]
struct Sums {
    latest: Vec<Sum>,
    spilled: Vec<(u32, Sum)>,
}

impl Sums {
    fn clear(&mut self, places: usize) {
        self.latest.clear();
        self.latest.resize(places, Sum::NONE);
        self.spilled.clear();
    }

    #[inline]
    fn add(&mut self, place: u32, sum: Sum) {
        if let Some(before) = self.latest.get_mut(place as usize).and_then(|latest| latest.add(sum)) {
            self.spilled.push((place, before));
        }
    }

    /// All sums, each with its place; a place may have several, of different minutes.
    fn iter(&self) -> impl Iterator<Item = (u32, Sum)> + '_ {
        let latest = (0..).zip(self.latest.iter().copied()).filter(|(_, sum)| *sum != Sum::NONE);
        latest.chain(self.spilled.iter().copied())
    }
}

/// Room that every batch uses again.
#[derive(Default)]
pub(super) struct Room {
    entries: Sums,
    spaces: Sums,
    refused: Vec<(u32, Reason)>,
}

/// A sum on its way to the cell of its minute.
struct Due<'a> {
    name: &'a str,
    hint: Hint,
    sum: Sum,
}

impl Fold {
    /// Folds the events of a batch.
    pub(super) fn apply_batch(&mut self, record: &Record<'_>) {
        match ViewBatch::read(record.payload) {
            Ok(batch) if batch.ids_are_plain() => self.apply_columns(record, &batch),
            Ok(batch) => self.apply_wholes(record, &batch),
            Err(rejection) => self.reject(record, 0, Stage::Decode, rejection, record.payload),
        }
    }

    fn apply_wholes(&mut self, record: &Record<'_>, batch: &ViewBatch<'_>) {
        for (index, whole) in (0..).zip(batch.wholes()) {
            let decoded = whole.check().map(|()| self.prepare(whole.event.clone()));
            if let Err((stage, rejection)) = self.settle(record, decoded) {
                self.reject(record, index, stage, rejection, &whole.to_json());
            }
        }
    }

    fn apply_columns(&mut self, record: &Record<'_>, batch: &ViewBatch<'_>) {
        let mut room = std::mem::take(&mut self.room);
        room.entries.clear(batch.entries().len());
        room.refused.clear();
        self.sum_up(record, batch, &mut room);
        self.count_entries(record, batch, &mut room);
        if !room.refused.is_empty() {
            self.reject_some(record, batch, &room.refused);
        }
        self.room = room;
    }

    /// Classifies the events of a batch and adds up those that count: the site's at once, the others' by dictionary entry.
    fn sum_up(&mut self, record: &Record<'_>, batch: &ViewBatch<'_>, room: &mut Room) {
        let clock = self.at.clock;
        let accepted = classify::accepted(clock, record.historical, &self.settings);
        let (mut site, mut minute) = (Sum::NONE, Within::nothing());
        let (mut views, mut ids) = ((0u32..).zip(batch.views()), batch.event_ids());
        let mut duplicates = [false; AHEAD];
        let mut counted = 0;
        loop {
            let group: [Option<(u32, View)>; AHEAD] = std::array::from_fn(|_| views.next());
            if group.first().is_none_or(Option::is_none) {
                break;
            }
            if !self.ids.is_off() {
                duplicates = self.see(&mut ids, &group, &accepted);
            }
            for ((index, view), is_duplicate) in group.into_iter().flatten().zip(duplicates) {
                if !accepted.contains(&view.ts) {
                    room.refused.extend(classify::refusal(view.ts, clock, record.historical, &self.settings).map(|reason| (index, reason)));
                } else if is_duplicate {
                    self.tally.duplicate += 1;
                } else {
                    counted += 1;
                    let minute = minute.of(view.ts);
                    let sum = match view.kind {
                        Kind::View => Sum { minute, views: 1, engaged: 0 },
                        Kind::Engaged => Sum { minute, views: 0, engaged: 1 },
                    };
                    room.entries.add(view.entry, sum);
                    if let Some(before) = site.add(sum) {
                        self.count(self.site, before.minute, record.offset, before.counts());
                    }
                }
            }
        }
        self.tally.counted += counted;
        if site != Sum::NONE {
            self.count(self.site, site.minute, record.offset, site.counts());
        }
    }

    /// Which events of a group have been seen before. Those that are refused are not remembered.
    fn see<'a>(
        &mut self,
        ids: &mut impl Iterator<Item = EventId<'a>>,
        group: &[Option<(u32, View)>; AHEAD],
        accepted: &std::ops::RangeInclusive<Millis>,
    ) -> [bool; AHEAD] {
        let hashes = group.map(|view| view.and_then(|_| Some(ids.next()?.hash())).unwrap_or(EventHash(0)));
        hashes.iter().for_each(|hash| self.ids.touch(*hash));
        let now = Minute::of(self.at.clock);
        let mut duplicates = [false; AHEAD];
        for ((duplicate, hash), (_, view)) in duplicates.iter_mut().zip(hashes).zip(group.iter().flatten()) {
            *duplicate = accepted.contains(&view.ts) && self.ids.see(hash, now);
        }
        duplicates
    }

    /// Counts the sums of the dictionary's entries: of their videos, and together of their spaces.
    fn count_entries(&mut self, record: &Record<'_>, batch: &ViewBatch<'_>, Room { entries, spaces, .. }: &mut Room) {
        let (dictionary, names): (Vec<_>, Vec<_>) = (batch.entries().collect(), batch.spaces().collect());
        spaces.clear(names.len());
        let mut due = Vec::with_capacity(dictionary.len());
        for (place, sum) in entries.iter() {
            let Some(entry) = dictionary.get(place as usize) else { continue };
            due.push(Due::of(entry.video, sum));
            if let Some(space) = entry.space {
                spaces.add(space, sum);
            }
        }
        self.count_all(record, Dimension::Video, &mut due);
        due.clear();
        due.extend(spaces.iter().filter_map(|(place, sum)| Some(Due::of(names.get(place as usize)?, sum))));
        self.count_all(record, Dimension::Space, &mut due);
    }

    /// Counts sums of entities of one dimension, touching ahead what a group of them will need.
    fn count_all(&mut self, record: &Record<'_>, dimension: Dimension, due: &mut [Due<'_>]) {
        for group in due.chunks_mut(AHEAD) {
            let entities = &self.cells.entities;
            for due in group.iter_mut() {
                due.hint.hash = entities.hash(dimension, due.name);
                due.hint.place = entities.likely(due.hint.hash);
            }
            group.iter().for_each(|due| entities.touch(due.hint.place));
            group.iter().for_each(|due| self.cells.touch_latest_minute(due.hint.place));
            for Due { name, hint, sum } in group {
                let entity: EntityIx = self.cells.entities.intern_at(*hint, dimension, name);
                self.count(entity, sum.minute, record.offset, sum.counts());
            }
        }
    }

    fn reject_some(&mut self, record: &Record<'_>, batch: &ViewBatch<'_>, refused: &[(u32, Reason)]) {
        let mut wholes = (0..).zip(batch.wholes());
        for (index, reason) in refused {
            let Some((_, whole)) = wholes.find(|(at, _)| at == index) else { return };
            let detail = classify::explain(*reason, whole.event.ts, self.at.clock, &self.settings);
            self.reject(record, *index, Stage::Classify, Rejection::new(*reason, detail), &whole.to_json());
        }
    }
}

impl<'a> Due<'a> {
    const fn of(name: &'a str, sum: Sum) -> Self {
        Self { name, hint: Hint::NONE, sum }
    }
}

/// The minute of an instant, without a division while instants stay within it.
struct Within {
    minute: Minute,
    start: Millis,
    end: Millis,
}

impl Within {
    const fn nothing() -> Self {
        Self { minute: Minute::NEVER, start: Millis(0), end: Millis(0) }
    }

    #[inline]
    fn of(&mut self, at: Millis) -> Minute {
        if at < self.start || at >= self.end {
            self.minute = Minute::of(at);
            (self.start, self.end) = (self.minute.start(), self.minute.plus(1).start());
        }
        self.minute
    }
}
