//! Which source takes how much of a change, or what is not there to be taken. Pure.
//!
//! A change to a video's minute is one to its space's and to the site's, and to the hour, the day and the year of each: the cells of
//! one source. Of these the least says how much can be taken from that source. What is added goes to one source whatever it holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schemas::adjustment::entities;
use schemas::{Bucket, Checkpoint, Counts, Entity, FoldSettings, Minute, Source, Tier};

/// A change and where it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) video: Arc<str>,
    pub(super) space: Option<Arc<str>>,
    pub(super) minute: Minute,
    pub(super) counts: Counts,
    /// What is taken away is taken from these, the first of them first.
    pub(super) from: Vec<Source>,
    /// What is added is added here.
    pub(super) to: Source,
}

/// What one source is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) video: Arc<str>,
    pub(super) space: Option<Arc<str>>,
    pub(super) minute: Minute,
    pub(super) counts: Counts,
}

/// What is not there to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Short {
    /// The change.
    pub(super) video: Arc<str>,
    pub(super) minute: Minute,
    /// Which of its cells has too little: the least of them.
    pub(super) entity: Entity,
    pub(super) bucket: Bucket,
    pub(super) metric: &'static str,
    /// How much is to be taken.
    pub(super) wanted: i64,
    /// How much can be.
    pub(super) holds: i64,
}

/// The cells that a plan changes, as stored; one that is not here holds nothing.
#[derive(Debug, Default)]
pub(super) struct Cells(HashMap<(Entity, Bucket, Source), Counts>);

/// A plan is refused with no more examples than people read.
const MOST_SHORT: usize = 20;

const METRICS: [&str; 3] = ["gross", "valid", "engaged"];

/// The cells that a change of one source concerns: those that the source still keeps.
pub(super) fn cells_of<'a>(
    video: &str,
    space: Option<&str>,
    minute: Minute,
    checkpoint: &'a Checkpoint,
) -> impl Iterator<Item = (Entity, Bucket)> + 'a {
    let entities = entities(video, space);
    let kept = move |tier: &Tier| {
        let settings: &FoldSettings = &checkpoint.settings;
        !tier.bucket(minute).is_expired(checkpoint.clock, settings.ttl_ms(*tier))
    };
    let buckets = Tier::ALL.into_iter().filter(kept).map(move |tier| tier.bucket(minute));
    buckets.flat_map(move |bucket| entities.clone().into_iter().map(move |entity| (entity, bucket)))
}

/// Divides changes among the sources.
///
/// # Errors
/// What is not there to be taken: the first of it.
pub(super) fn plan(
    wanted: &[Wanted],
    mut cells: Cells,
    checkpoints: &BTreeMap<Source, Checkpoint>,
) -> Result<BTreeMap<Source, Vec<Change>>, Vec<Short>> {
    let mut plan: BTreeMap<Source, Vec<Change>> = BTreeMap::new();
    let mut short = Vec::new();
    for change in wanted {
        let mut left = parts(change.counts).map(|n| (-n).max(0));
        let added = parts(change.counts).map(|n| n.max(0));
        let asked = left;
        let could = if left == [0; 3] { Vec::new() } else { cells.could(change, checkpoints) };
        for source in &change.from {
            let Some(checkpoint) = checkpoints.get(source).filter(|_| left != [0; 3]) else { continue };
            let taken = cells.take(change, *source, checkpoint, left);
            if taken != [0; 3] {
                left = zip(left, taken, |left, taken| left - taken);
                push(&mut plan, *source, change, taken.map(|n| -n));
            }
        }
        if added != [0; 3] {
            push(&mut plan, change.to, change, added);
        }
        for (metric, ((name, left), asked)) in METRICS.into_iter().zip(left).zip(asked).enumerate() {
            if left > 0 && short.len() < MOST_SHORT {
                short.push(missing(change, name, asked, asked - left, &could, metric));
            }
        }
    }
    if short.is_empty() { Ok(plan) } else { Err(short) }
}

fn push(plan: &mut BTreeMap<Source, Vec<Change>>, source: Source, wanted: &Wanted, [gross, valid, engaged]: [i64; 3]) {
    let Wanted { video, space, minute, .. } = wanted;
    let counts = Counts { gross, valid, engaged };
    let changes = plan.entry(source).or_default();
    match changes.last_mut() {
        // What the same change takes away and adds.
        Some(last) if (&last.video, &last.space, last.minute) == (video, space, *minute) => last.counts += counts,
        _ => changes.push(Change { video: Arc::clone(video), space: space.clone(), minute: *minute, counts }),
    }
}

fn missing(change: &Wanted, metric: &'static str, wanted: i64, holds: i64, could: &[(Entity, Bucket, [i64; 3])], at: usize) -> Short {
    let of = |held: &[i64; 3]| held.get(at).copied().unwrap_or_default();
    let least = could.iter().min_by_key(|(_, _, held)| of(held));
    let (entity, bucket) = least.map_or_else(
        || (entities(&change.video, None).swap_remove(0), Tier::Minute.bucket(change.minute)),
        |(entity, bucket, _)| (entity.clone(), *bucket),
    );
    Short { video: Arc::clone(&change.video), minute: change.minute, entity, bucket, metric, wanted, holds }
}

impl Cells {
    /// Notes what a cell holds.
    pub(super) fn set(&mut self, entity: Entity, bucket: Bucket, source: Source, counts: Counts) {
        self.0.insert((entity, bucket, source), counts);
    }

    /// What a cell holds.
    pub(super) fn get(&self, entity: &Entity, bucket: Bucket, source: Source) -> Counts {
        self.0.get(&(entity.clone(), bucket, source)).copied().unwrap_or_default()
    }

    /// How much the cells of a change hold in all its sources together: to say which has too little.
    fn could(&self, change: &Wanted, checkpoints: &BTreeMap<Source, Checkpoint>) -> Vec<(Entity, Bucket, [i64; 3])> {
        let mut sums: BTreeMap<(Bucket, Entity), [i64; 3]> = BTreeMap::new();
        for source in &change.from {
            let Some(checkpoint) = checkpoints.get(source) else { continue };
            for (entity, bucket) in cells_of(&change.video, change.space.as_deref(), change.minute, checkpoint) {
                let held = parts(self.get(&entity, bucket, *source)).map(|n| n.max(0));
                let sum = sums.entry((bucket, entity)).or_default();
                *sum = zip(*sum, held, i64::saturating_add);
            }
        }
        sums.into_iter().map(|((bucket, entity), sum)| (entity, bucket, sum)).collect()
    }

    /// Takes as much of `wanted` as each cell of a change in one source has.
    fn take(&mut self, change: &Wanted, source: Source, checkpoint: &Checkpoint, wanted: [i64; 3]) -> [i64; 3] {
        let cells: Vec<_> = cells_of(&change.video, change.space.as_deref(), change.minute, checkpoint).collect();
        let least = |least, (entity, bucket): &(Entity, Bucket)| zip(least, parts(self.get(entity, *bucket, source)), i64::min);
        let taken = cells.iter().fold(wanted, least).map(|n| n.max(0));
        for (entity, bucket) in cells {
            let [gross, valid, engaged] = taken;
            *self.0.entry((entity, bucket, source)).or_default() += -Counts { gross, valid, engaged };
        }
        taken
    }
}

const fn parts(counts: Counts) -> [i64; 3] {
    [counts.gross, counts.valid, counts.engaged]
}

fn zip(a: [i64; 3], b: [i64; 3], with: impl Fn(i64, i64) -> i64) -> [i64; 3] {
    let [a0, a1, a2] = a;
    let [b0, b1, b2] = b;
    [with(a0, b0), with(a1, b1), with(a2, b2)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{Millis, Offset, Stamp, Tally};

    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            next_offset: Offset(1),
            warm_from: Offset(0),
            stamp: Stamp(1),
            clock: Millis(i64::from(i32::MAX)),
            append_time: Millis(1),
            closed: Millis(i64::from(i32::MAX)),
            adjustments: 0,
            tally: Tally::default(),
            settings: FoldSettings::default(),
        }
    }

    fn checkpoints() -> BTreeMap<Source, Checkpoint> {
        (0..3).map(|source| (Source(source), checkpoint())).collect()
    }

    /// Events as (source, video, minute, gross, engaged), in every cell that counts them.
    type Event = (u32, u8, i32, i64, i64);

    fn counted(events: &[Event]) -> Cells {
        let mut cells = Cells::default();
        let checkpoint = checkpoint();
        for (source, video, minute, gross, engaged) in events {
            for (entity, bucket) in cells_of(&name(*video), space(*video).as_deref(), Minute(*minute), &checkpoint) {
                let held = cells.get(&entity, bucket, Source(*source));
                cells.set(entity, bucket, Source(*source), held + Counts { gross: *gross, valid: *gross, engaged: *engaged });
            }
        }
        cells
    }

    fn name(video: u8) -> String {
        format!("v{video}")
    }

    /// Two videos share a space, one has none.
    fn space(video: u8) -> Option<String> {
        (video < 2).then(|| "s".to_owned())
    }

    fn wanted(video: u8, minute: i32, gross: i64, engaged: i64) -> Wanted {
        Wanted {
            video: name(video).into(),
            space: space(video).map(Into::into),
            minute: Minute(minute),
            counts: Counts { gross, valid: gross, engaged },
            from: (0..3).map(Source).collect(),
            to: Source(u32::from(video)),
        }
    }

    #[test]
    fn a_removal_is_taken_from_whoever_holds_it_and_an_addition_goes_home() {
        let events = [(0, 0, 5, 3, 0), (1, 0, 5, 4, 0), (1, 0, 6, 9, 2)];
        let plan = plan(&[wanted(0, 5, -6, 0), wanted(0, 6, 2, -1)], counted(&events), &checkpoints()).unwrap();
        let of = |source: u32| {
            plan[&Source(source)].iter().map(|change| (change.minute.0, change.counts.gross, change.counts.engaged)).collect::<Vec<_>>()
        };
        assert_eq!((of(0), of(1)), (vec![(5, -3, 0), (6, 2, 0)], vec![(5, -3, 0), (6, 0, -1)]));
        assert_eq!(plan.len(), 2);
    }

    #[test]
    fn what_is_not_there_is_refused_with_the_cell_that_has_too_little() {
        let cells = || counted(&[(0, 0, 5, 3, 0), (1, 1, 5, 4, 0)]);
        let short = plan(&[wanted(0, 5, -4, 0)], cells(), &checkpoints()).unwrap_err();
        let first = &short[0];
        assert_eq!((first.metric, first.wanted, first.holds, first.entity.to_string()), ("gross", 4, 3, "video v0".into()));
        assert_eq!(short.len(), 2, "gross and valid");
        // A space that the views did not name.
        let strange = Wanted { space: Some("other".into()), ..wanted(0, 5, -1, 0) };
        let short = plan(&[strange], cells(), &checkpoints()).unwrap_err();
        assert_eq!((short[0].holds, short[0].entity.to_string()), (0, "space other".into()));
        // Two changes of one minute together.
        let twice = [wanted(0, 5, -2, 0), Wanted { space: None, ..wanted(0, 5, -2, 0) }];
        assert_eq!(plan(&twice, cells(), &checkpoints()).unwrap_err()[0].holds, 1);
    }

    #[test]
    fn tiers_whose_time_has_passed_hold_nothing_and_lack_nothing() {
        let settings = FoldSettings { minute_ttl_ms: 60_000, ..FoldSettings::default() };
        let late = Checkpoint { clock: Minute(500).start(), settings, ..checkpoint() };
        let mut cells = counted(&[(0, 0, 65, 3, 0)]);
        cells.set(entities("v0", None).swap_remove(0), Tier::Minute.bucket(Minute(65)), Source(0), Counts::ZERO);
        let planned = plan(&[wanted(0, 60, -3, 0)], cells, &BTreeMap::from([(Source(0), late)])).unwrap();
        assert_eq!(planned[&Source(0)][0].counts.gross, -3);
    }

    proptest! {
        /// Whatever is asked for of whatever is there: the sources together do what is asked, and nothing falls below zero; or it is refused.
        #[test]
        fn a_plan_is_what_was_asked_for_and_leaves_no_cell_below_zero(
            events in proptest::collection::vec((0u32..3, 0u8..3, 0i32..130, 0i64..5, 0i64..3), 0..40),
            asked in proptest::collection::vec((0u8..3, 0i32..130, -6i64..4, -2i64..2), 1..12),
        ) {
            let wanted: Vec<Wanted> = asked.iter().map(|(video, minute, gross, engaged)| wanted(*video, *minute, *gross, *engaged)).collect();
            let checkpoints = checkpoints();
            match plan(&wanted, counted(&events), &checkpoints) {
                Ok(plan) => {
                    let mut after = counted(&events);
                    let mut done: BTreeMap<(Arc<str>, Minute), Counts> = BTreeMap::new();
                    for (source, changes) in &plan {
                        for change in changes {
                            *done.entry((Arc::clone(&change.video), change.minute)).or_default() += change.counts;
                            for (entity, bucket) in cells_of(&change.video, change.space.as_deref(), change.minute, &checkpoints[source]) {
                                let held = after.get(&entity, bucket, *source);
                                after.set(entity, bucket, *source, held + change.counts);
                            }
                        }
                    }
                    prop_assert!(after.0.values().all(|held| parts(*held).iter().all(|n| *n >= 0)));
                    let mut meant: BTreeMap<(Arc<str>, Minute), Counts> = BTreeMap::new();
                    for wanted in &wanted {
                        *meant.entry((Arc::clone(&wanted.video), wanted.minute)).or_default() += wanted.counts;
                    }
                    meant.retain(|_, counts| *counts != Counts::ZERO);
                    done.retain(|_, counts| *counts != Counts::ZERO);
                    prop_assert_eq!(done, meant);
                }
                Err(short) => prop_assert!(short.iter().all(|short| short.holds < short.wanted && short.holds >= 0)),
            }
        }

        /// A plan of one video's removals is refused only if there is less than is asked for.
        #[test]
        fn what_is_there_can_be_taken(
            events in proptest::collection::vec((0u32..3, 0u8..3, 0i32..130, 0i64..5, 0i64..3), 1..40), pick in 0usize..40, share in 0i64..=4,
        ) {
            let (_, video, minute, ..) = events[pick % events.len()];
            let held: i64 = events.iter().filter(|event| (event.1, event.2) == (video, minute)).map(|event| event.3).sum();
            let asked = held * share / 4;
            prop_assert!(plan(&[wanted(video, minute, -asked, 0)], counted(&events), &checkpoints()).is_ok());
            prop_assert!(plan(&[wanted(video, minute, -held - 1, 0)], counted(&events), &checkpoints()).is_err());
        }
    }
}
