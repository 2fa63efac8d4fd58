//! How far a source has been folded into the store, and by which rules.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bucket::Tier;
use crate::codec::{CodecError, Reader};
use crate::event::Reason;
use crate::position::Offset;
use crate::time::{Millis, Stamp};

/// The name of a log for its life: a store belongs to one log, and refuses a second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub Box<str>);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rules that decide what a record means. They are part of the log's identity: two owners that fold one source by
/// different rules would write different rows for one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldSettings {
    /// Which program of the fold: a binary that does not know it stops.
    pub fold_version: u32,
    /// How long after its end a minute stays open, in ms of log clock.
    pub grace_ms: i64,
    /// How far ahead of the log clock an event may be, in ms.
    pub max_skew_ms: i64,
    /// How far behind the log clock an event may be, in ms, unless it is historical.
    pub max_lateness_ms: i64,
    /// For how many minutes of log clock an event id is remembered; 0 turns deduplication off.
    pub dedup_minutes: i32,
    /// How long minute cells are kept, in ms from their end; 0 for ever.
    pub minute_ttl_ms: i64,
    /// How long hour cells are kept, in ms from their end; 0 for ever.
    pub hour_ttl_ms: i64,
    /// The number of sources of the log.
    pub sources: u32,
    /// Over how many sources one video's events are spread.
    pub spread: u32,
}

/// The fold that this program is.
pub const FOLD_VERSION: u32 = 1;

impl Default for FoldSettings {
    fn default() -> Self {
        Self {
            fold_version: FOLD_VERSION,
            grace_ms: 10_000,
            max_skew_ms: 60_000,
            max_lateness_ms: 7 * 86_400_000,
            dedup_minutes: 10,
            minute_ttl_ms: 0,
            hour_ttl_ms: 0,
            sources: 2,
            spread: 1,
        }
    }
}

impl FoldSettings {
    /// How long a tier's buckets are kept after their end, in ms; 0 for ever.
    pub const fn ttl_ms(&self, tier: Tier) -> i64 {
        match tier {
            Tier::Minute => self.minute_ttl_ms,
            Tier::Hour => self.hour_ttl_ms,
            Tier::Day | Tier::Year => 0,
        }
    }
}

/// What became of a source's events up to an offset: `counted + duplicate + rejected` is all that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that count.
    pub counted: u64,
    /// Events whose id had been seen.
    pub duplicate: u64,
    /// Events refused, by reason, in the order of [`Reason::ALL`].
    pub rejected: [u64; Reason::ALL.len()],
    /// Corrections taken (adjustments, marks and sets).
    pub corrections: u64,
}

impl Tally {
    /// All events read.
    pub fn events(&self) -> u64 {
        self.counted + self.duplicate + self.rejected_events()
    }

    /// All events refused; refused corrections are not events.
    pub fn rejected_events(&self) -> u64 {
        Reason::ALL.into_iter().filter(|reason| !is_correction(*reason)).map(|reason| self.rejected_for(reason)).sum()
    }

    /// How many were refused for a reason.
    pub fn rejected_for(&self, reason: Reason) -> u64 {
        self.rejected.get(reason as usize).copied().unwrap_or_default()
    }

    /// Counts one refusal.
    pub fn reject(&mut self, reason: Reason) {
        if let Some(count) = self.rejected.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// Adds another source's.
    pub fn add(&mut self, other: &Self) {
        self.counted += other.counted;
        self.duplicate += other.duplicate;
        self.corrections += other.corrections;
        for (mine, theirs) in self.rejected.iter_mut().zip(other.rejected) {
            *mine += theirs;
        }
    }
}

const fn is_correction(reason: Reason) -> bool {
    matches!(reason, Reason::BadCorrection | Reason::StaleAdjustment | Reason::MinuteOpen)
}

/// The state of a source's fold at `next_offset`, from which it goes on after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The first offset that is not in the store yet. Every cell holds all changes below it.
    pub next_offset: Offset,
    /// The first record of the warm-up range: recovery reads from here.
    pub warm_from: Offset,
    /// The stamp of the last record.
    pub stamp: Stamp,
    /// The log clock.
    pub clock: Millis,
    /// The append time of the last record: how a recreated log is noticed.
    pub append_time: Millis,
    /// The watermark: minutes that start before it are rolled up.
    pub closed: Millis,
    /// How many adjustments the source has taken.
    pub adjustments: u64,
    /// What became of the events below `next_offset`.
    pub tally: Tally,
    /// The rules by which all this was folded.
    pub settings: FoldSettings,
}

const CHECKPOINT_FORMAT: u8 = 1;

/// The watermark of a source that has ended: it gets no more records, and all its minutes are rolled up.
pub const ENDED: Millis = Millis(i64::MAX);

impl Checkpoint {
    /// Whether its source has ended: it counts, and nothing waits for it.
    pub fn has_ended(&self) -> bool {
        self.closed == ENDED
    }

    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![CHECKPOINT_FORMAT];
        let words =
            [self.next_offset.0, self.warm_from.0, self.adjustments, self.tally.counted, self.tally.duplicate, self.tally.corrections];
        words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
        let times = [self.stamp.0, self.clock.0, self.append_time.0, self.closed.0];
        times.iter().for_each(|time| out.extend_from_slice(&time.to_be_bytes()));
        // The number of reasons grows with versions: an older row reads as zeros for the newer ones.
        out.push(u8::try_from(self.tally.rejected.len()).unwrap_or(u8::MAX));
        self.tally.rejected.iter().for_each(|count| out.extend_from_slice(&count.to_be_bytes()));
        let s = &self.settings;
        for word in [s.fold_version, s.sources, s.spread] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&s.dedup_minutes.to_be_bytes());
        for ms in [s.grace_ms, s.max_skew_ms, s.max_lateness_ms, s.minute_ttl_ms, s.hour_ttl_ms] {
            out.extend_from_slice(&ms.to_be_bytes());
        }
        out
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// If it is not a value that [`Checkpoint::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("checkpoint", bytes);
        r.format(CHECKPOINT_FORMAT)?;
        let (next_offset, warm_from, adjustments) = (Offset(r.u64()?), Offset(r.u64()?), r.u64()?);
        let mut tally = Tally { counted: r.u64()?, duplicate: r.u64()?, corrections: r.u64()?, ..Tally::default() };
        let (stamp, clock, append_time, closed) = (Stamp(r.i64()?), Millis(r.i64()?), Millis(r.i64()?), Millis(r.i64()?));
        let reasons = usize::from(r.u8()?);
        if reasons > tally.rejected.len() {
            return Err(r.error("number of reasons"));
        }
        for count in tally.rejected.iter_mut().take(reasons) {
            *count = r.u64()?;
        }
        let (fold_version, sources, spread, dedup_minutes) = (r.u32()?, r.u32()?, r.u32()?, r.i32()?);
        let settings = FoldSettings {
            fold_version,
            sources,
            spread,
            dedup_minutes,
            grace_ms: r.i64()?,
            max_skew_ms: r.i64()?,
            max_lateness_ms: r.i64()?,
            minute_ttl_ms: r.i64()?,
            hour_ttl_ms: r.i64()?,
        };
        r.end()?;
        Ok(Self { next_offset, warm_from, stamp, clock, append_time, closed, adjustments, tally, settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn checkpoints_round_trip(words: [u64; 6], times: [i64; 9], rejected: [u64; Reason::ALL.len()], small: [u32; 3], dedup_minutes: i32) {
            let checkpoint = Checkpoint {
                next_offset: Offset(words[0]), warm_from: Offset(words[1]), adjustments: words[2],
                tally: Tally { counted: words[3], duplicate: words[4], rejected, corrections: words[5] },
                stamp: Stamp(times[0]), clock: Millis(times[1]), append_time: Millis(times[2]), closed: Millis(times[3]),
                settings: FoldSettings {
                    fold_version: small[0], sources: small[1], spread: small[2], dedup_minutes, grace_ms: times[4],
                    max_skew_ms: times[5], max_lateness_ms: times[6], minute_ttl_ms: times[7], hour_ttl_ms: times[8],
                },
            };
            prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()).unwrap(), checkpoint);
        }

        #[test]
        fn any_bytes_are_a_checkpoint_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Checkpoint::decode(&bytes);
        }
    }

    #[test]
    fn a_tally_conserves_events_and_keeps_corrections_apart() {
        let mut tally = Tally { counted: 3, duplicate: 2, ..Tally::default() };
        Reason::ALL.into_iter().for_each(|reason| tally.reject(reason));
        assert_eq!(tally.rejected_events(), 11);
        assert_eq!(tally.events(), 16);
    }
}
