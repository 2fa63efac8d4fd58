//! Adjustments that people ask for: what the journal keeps of them, and the records that they become.
//!
//! ```text
//! journal   entry: who, when, why, how much ──┬── part 0: of source 0 ── taken at offset 70
//!                                             └── part 1: of source 3 ── refused
//! source 0  ... adjustment "PLAN/0" (taken) ... adjustment "PLAN/0" (a copy: stale) ...
//! ```
//!
//! The journal has an entry before the first record of it is published, and the parts say what each record is. A part is taken once
//! at most, whoever publishes it and however often: its record comes after as many others as its author has seen. It is known again by the
//! beginning of its reason, which no other part has. An entry never changes; that a part has ended is noted beside it.

use serde::{Deserialize, Serialize};

use crate::bucket::Minute;
use crate::cell::{Counts, Dimension, Entity};
use crate::correction::{Adjustment, Delta};
use crate::position::{Offset, Source};
use crate::time::Millis;

/// The most bytes of a part's record: below what logs and the log of refused records take whole.
pub const MAX_PART_BYTES: usize = 256 * 1024;

/// What an adjustment is for, by whom, and how much it is in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdjustmentEntry {
    /// Its name, given by who asked for it: of two with one name the first is kept.
    pub id: String,
    /// The name of its parts, which nothing else has.
    pub plan: String,
    /// When it was planned, Unix ms.
    pub created_at: Millis,
    /// The public name of the key that asked for it, if keys were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why.
    pub reason: String,
    /// What else its author says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// A hash of what was asked for: the same name with another hash is another request.
    pub request: String,
    /// The adjustment that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
    /// How many parts it has.
    pub parts: u32,
    /// How many minutes of videos it changes, each source's for itself.
    pub changes: u64,
    /// The first minute that it changes.
    pub first: Minute,
    /// The last one.
    pub last: Minute,
    /// What it adds to the site in all.
    pub total: Counts,
}

/// What one record of an adjustment changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdjustmentPart {
    /// The source that it is appended to.
    pub source: Source,
    /// No record of it lies before this offset.
    pub from: Offset,
    /// Its changes.
    pub videos: Vec<VideoChanges>,
}

/// Changes of one video's minutes, which are those of its space and of the site too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoChanges {
    /// The video.
    pub video: String,
    /// The space, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// What is added to each minute.
    pub minutes: Vec<MinuteChange>,
}

/// What is added to a minute: `[minute, gross, valid, engaged]` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Minute, i64, i64, i64)", into = "(Minute, i64, i64, i64)")]
pub struct MinuteChange {
    /// The minute.
    pub minute: Minute,
    /// What to add, signed.
    pub counts: Counts,
}

impl From<(Minute, i64, i64, i64)> for MinuteChange {
    fn from((minute, gross, valid, engaged): (Minute, i64, i64, i64)) -> Self {
        Self { minute, counts: Counts { gross, valid, engaged } }
    }
}

impl From<MinuteChange> for (Minute, i64, i64, i64) {
    fn from(MinuteChange { minute, counts }: MinuteChange) -> Self {
        (minute, counts.gross, counts.valid, counts.engaged)
    }
}

/// How a part has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PartEnd {
    /// It counts. This is a fact of the log, and stands above whatever else is noted.
    Taken {
        /// Its record.
        offset: Offset,
        /// When that was found, Unix ms.
        at: Millis,
    },
    /// It does not count and will not: why.
    Refused {
        /// For people.
        detail: String,
        /// When that was decided, Unix ms.
        at: Millis,
    },
    /// The log has given up the records that would tell whether it counts. It is left alone.
    Unknown {
        /// When that was found, Unix ms.
        at: Millis,
    },
}

impl PartEnd {
    /// What is kept of two notes on one part: that it was taken, or else the later one.
    #[must_use]
    pub fn kept_with(self, stored: Option<Self>) -> Self {
        match stored {
            Some(taken @ Self::Taken { .. }) => taken,
            _ => self,
        }
    }

    /// When it was noted.
    pub const fn at(&self) -> Millis {
        match self {
            Self::Taken { at, .. } | Self::Refused { at, .. } | Self::Unknown { at } => *at,
        }
    }
}

const REASON: &str = "adjustment ";

/// Whether a correction is a part of an adjustment that the journal has.
pub fn is_journalled(reason: &str) -> bool {
    reason.starts_with(REASON)
}

impl AdjustmentEntry {
    /// How the reasons of all its parts begin, and no other's.
    pub fn mark(&self) -> String {
        format!("{REASON}{}/", self.plan)
    }

    /// How the reason of a part begins, and no other's.
    pub fn mark_of(&self, part: u32) -> String {
        format!("{}{part} ", self.mark())
    }

    /// The adjustment that a part is, if it comes after `after` others.
    pub fn adjustment(&self, index: u32, part: &AdjustmentPart, after: u64) -> Adjustment {
        let reason = format!("{}({}): {}", self.mark_of(index), self.id, self.reason);
        Adjustment { after, reason, deltas: part.deltas().collect() }
    }
}

impl AdjustmentPart {
    /// Each of its changes, as the record says it.
    pub fn deltas(&self) -> impl Iterator<Item = Delta> + '_ {
        self.videos.iter().flat_map(|changes| {
            let entities = changes.entities();
            changes.minutes.iter().map(move |change| Delta { minute: change.minute, entities: entities.clone(), counts: change.counts })
        })
    }

    /// How many minutes it changes.
    pub fn changes(&self) -> usize {
        self.videos.iter().map(|changes| changes.minutes.len()).sum()
    }

    /// What it adds in all.
    pub fn total(&self) -> Counts {
        self.minutes().fold(Counts::ZERO, |sum, change| sum + change.counts)
    }

    /// Its minutes.
    pub fn minutes(&self) -> impl Iterator<Item = &MinuteChange> {
        self.videos.iter().flat_map(|changes| &changes.minutes)
    }
}

impl VideoChanges {
    /// What counts these changes: the video, its space, the site.
    pub fn entities(&self) -> Vec<Entity> {
        entities(&self.video, self.space.as_deref())
    }
}

/// What counts a view of a video: the video, its space, the site.
pub fn entities(video: &str, space: Option<&str>) -> Vec<Entity> {
    let space = space.map(|space| Entity::new(Dimension::Space, space));
    [Some(Entity::new(Dimension::Video, video)), space, Some(Entity::site())].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> AdjustmentEntry {
        AdjustmentEntry {
            id: "ticket 7".into(),
            plan: "p".into(),
            created_at: Millis(1),
            author: None,
            reason: "bots".into(),
            note: None,
            request: "00".into(),
            undoes: None,
            parts: 12,
            changes: 1,
            first: Minute(5),
            last: Minute(5),
            total: -Counts::VIEW,
        }
    }

    #[test]
    fn a_part_is_a_record_that_says_whose_it_is() {
        let minutes = vec![MinuteChange { minute: Minute(5), counts: -Counts::VIEW }];
        let videos = vec![VideoChanges { video: "v".into(), space: Some("s".into()), minutes }];
        let part = AdjustmentPart { source: Source(3), from: Offset(9), videos };
        let record = entry().adjustment(1, &part, 4);
        assert_eq!((record.after, &*record.reason), (4, "adjustment p/1 (ticket 7): bots"));
        assert!(is_journalled(&record.reason) && !is_journalled("bots"));
        assert!(
            record.reason.starts_with(&entry().mark_of(1)) && !entry().adjustment(11, &part, 4).reason.starts_with(&entry().mark_of(1))
        );
        let named: Vec<String> = record.deltas[0].entities.iter().map(ToString::to_string).collect();
        assert_eq!(named, ["video v", "space s", "site"]);
        let text = serde_json::to_string(&part).unwrap();
        assert!(text.contains("[5,-1,-1,0]"), "{text}");
        assert_eq!(serde_json::from_str::<AdjustmentPart>(&text).unwrap(), part);
        assert_eq!((part.changes(), part.total()), (1, -Counts::VIEW));
    }

    #[test]
    fn that_a_part_was_taken_stays() {
        let taken = PartEnd::Taken { offset: Offset(7), at: Millis(2) };
        let refused = PartEnd::Refused { detail: "no".into(), at: Millis(3) };
        assert_eq!(refused.clone().kept_with(Some(taken.clone())), taken);
        assert_eq!(taken.clone().kept_with(Some(refused.clone())), taken);
        assert_eq!(PartEnd::Unknown { at: Millis(4) }.kept_with(Some(refused)), PartEnd::Unknown { at: Millis(4) });
    }
}
