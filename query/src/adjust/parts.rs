//! Changes as the records that make them, each within what a log takes, and their negation. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::adjustment::{MAX_PART_BYTES, MinuteChange, VideoChanges};
use schemas::correction::Delta;
use schemas::{AdjustmentPart, Checkpoint, Offset, Source};

use super::plan::{Change, Wanted};

/// What a record has beside its changes, with room to spare: the reason and the name.
const AROUND_BYTES: usize = 4 * 1024;

/// The parts of a plan, by source; each source's begin to be published where its checkpoint is.
pub(super) fn parts(plan: BTreeMap<Source, Vec<Change>>, checkpoints: &BTreeMap<Source, Checkpoint>) -> Vec<AdjustmentPart> {
    let mut parts = Vec::new();
    for (source, mut changes) in plan {
        changes.sort_by(|a, b| (&a.video, &a.space, a.minute).cmp(&(&b.video, &b.space, b.minute)));
        let from = checkpoints.get(&source).map_or(Offset(0), |checkpoint| checkpoint.next_offset);
        let begun = || AdjustmentPart { source, from, videos: Vec::new() };
        let (mut part, mut bytes) = (begun(), AROUND_BYTES);
        for change in changes {
            let one = of_one(&change);
            let size = size(&one);
            if bytes + size > MAX_PART_BYTES && !part.videos.is_empty() {
                parts.push(std::mem::replace(&mut part, begun()));
                bytes = AROUND_BYTES;
            }
            bytes += size;
            match part.videos.last_mut() {
                Some(last) if (&last.video, &last.space) == (&one.video, &one.space) => last.minutes.extend(one.minutes),
                _ => part.videos.push(one),
            }
        }
        parts.push(part);
    }
    parts
}

fn of_one(change: &Change) -> VideoChanges {
    VideoChanges {
        video: change.video.to_string(),
        space: change.space.as_deref().map(str::to_owned),
        minutes: vec![MinuteChange { minute: change.minute, counts: change.counts }],
    }
}

/// The bytes of a change in its record.
fn size(change: &VideoChanges) -> usize {
    let deltas = change.minutes.iter().map(|minute| Delta { minute: minute.minute, entities: change.entities(), counts: minute.counts });
    deltas.map(|delta| serde_json::to_vec(&delta).map_or(0, |bytes| bytes.len() + 1)).sum()
}

/// A part as what is wanted of its source.
pub(super) fn wanted(part: &AdjustmentPart) -> Vec<Wanted> {
    wanted_of(part, |change| change.counts)
}

/// What undoes a part, of the same source.
pub(super) fn negated(part: &AdjustmentPart) -> Vec<Wanted> {
    wanted_of(part, |change| -change.counts)
}

fn wanted_of(part: &AdjustmentPart, counts: impl Fn(&MinuteChange) -> schemas::Counts) -> Vec<Wanted> {
    let mut wanted = Vec::with_capacity(part.changes());
    for changes in &part.videos {
        let (video, space): (Arc<str>, Option<Arc<str>>) = (changes.video.as_str().into(), changes.space.as_deref().map(Into::into));
        wanted.extend(changes.minutes.iter().map(|change| Wanted {
            video: Arc::clone(&video),
            space: space.clone(),
            minute: change.minute,
            counts: counts(change),
            from: vec![part.source],
            to: part.source,
        }));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use schemas::{AdjustmentEntry, Counts, Millis, Minute, correction};

    use super::*;

    fn entry() -> AdjustmentEntry {
        AdjustmentEntry {
            id: "i".repeat(128),
            plan: "p".repeat(32),
            created_at: Millis(1),
            author: None,
            reason: "\"".repeat(500),
            note: None,
            request: String::new(),
            undoes: None,
            parts: 1,
            changes: 1,
            first: Minute(0),
            last: Minute(0),
            total: Counts::ZERO,
        }
    }

    #[test]
    fn large_plans_are_records_that_logs_take_and_nothing_is_lost_between_them() {
        let change = |n: i32| Change {
            video: ["\"".repeat(128), "v".into()][usize::from(n % 2 == 0)].as_str().into(),
            space: (n % 3 == 0).then(|| "s".repeat(128).into()),
            minute: Minute(n),
            counts: Counts { gross: i64::from(n), valid: -1_000_000_000_000, engaged: 1 },
        };
        let plan = BTreeMap::from([(Source(0), (0..9_000).map(change).collect()), (Source(7), vec![change(1)])]);
        let parts = parts(plan.clone(), &BTreeMap::new());
        assert!(parts.len() > 5 && parts.last().unwrap().source == Source(7));
        let largest = parts.iter().map(|part| correction::encode(&entry().adjustment(u32::MAX, part, u64::MAX)).len()).max().unwrap();
        assert!((MAX_PART_BYTES / 2..=MAX_PART_BYTES).contains(&largest), "{largest}");
        let mut back: Vec<_> =
            parts.iter().filter(|part| part.source == Source(0)).flat_map(wanted).map(|one| (one.minute, one.counts)).collect();
        back.sort_by_key(|(minute, _)| *minute);
        assert_eq!(back, plan[&Source(0)].iter().map(|change| (change.minute, change.counts)).collect::<Vec<_>>());
        let undone: Vec<_> = negated(parts.last().unwrap()).into_iter().map(|one| (one.from, one.to, one.counts)).collect();
        assert_eq!(undone, [(vec![Source(7)], Source(7), Counts { gross: -1, valid: 1_000_000_000_000, engaged: -1 })]);
    }
}
