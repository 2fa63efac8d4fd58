//! Where a source's fold begins again: decided from its checkpoint, the log's ends and the configured rules.
//!
//! A start that could count wrongly is refused, with the offsets and the way out, before anything is read.

use ingest::Ends;
use schemas::checkpoint::FOLD_VERSION;
use schemas::{Checkpoint, FoldSettings, Millis, Offset, Source};
use thiserror::Error;

/// What to read before the fold goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first record to read. It lies before `warm_from` if only the record before the checkpoint has to be looked at.
    pub read_from: Offset,
    /// The first record of the warm-up range.
    pub warm_from: Offset,
    /// The first record to fold.
    pub next_offset: Offset,
    /// Records that were removed before they were folded; 0 unless a gap was accepted.
    pub lost: u64,
    /// Records that were folded and would have been read again, but are gone; 0 unless a gap was accepted. The minutes that were open
    /// cannot be rebuilt: what the store holds of them is replaced by what comes from now on.
    pub unwarmed: u64,
}

/// Why a source cannot be folded (further).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    /// The log ends before the checkpoint.
    #[error(
        "source {source_id}: the checkpoint is at offset {next_offset}, but the log ends at {end}. The log was cut or replaced. \
         Restore it, or start with an empty data directory"
    )]
    BeyondEnd {
        /// The source.
        source_id: Source,
        /// The checkpoint's.
        next_offset: Offset,
        /// The log's.
        end: Offset,
    },
    /// The log no longer has records that were not folded yet.
    #[error(
        "source {source_id}: the log starts at offset {start}, but the checkpoint is at {next_offset}: {} records were removed before \
         they were counted. Restore them, or accept the loss with --accept-gap",
        start.0.saturating_sub(next_offset.0)
    )]
    Gap {
        /// The source.
        source_id: Source,
        /// The checkpoint's.
        next_offset: Offset,
        /// The log's.
        start: Offset,
    },
    /// The log no longer has records that recovery has to read again.
    #[error(
        "source {source_id}: recovery reads again from offset {warm_from}, but the log starts at {start}. Open minutes and duplicates \
         could be counted wrongly. Restore the records, or accept with --accept-gap that the last minutes before the checkpoint count too little"
    )]
    WarmUpGone {
        /// The source.
        source_id: Source,
        /// Where warm-up begins.
        warm_from: Offset,
        /// The log's.
        start: Offset,
    },
    /// The record before the checkpoint is another one than it was.
    #[error(
        "source {source_id}: the record before offset {next_offset} was appended at {found}, but the checkpoint says {expected}. The \
         log was made anew. Restore it, or start with an empty data directory"
    )]
    Recreated {
        /// The source.
        source_id: Source,
        /// The checkpoint's.
        next_offset: Offset,
        /// The append time that the checkpoint holds.
        expected: Millis,
        /// The append time in the log.
        found: Millis,
    },
    /// The rules differ from those that the counts were made by.
    #[error(
        "source {source_id}: {name} is {configured}, but the counts were made with {stored}. It is fixed for the life of the data: set \
         it back to {stored}, or start with an empty data directory"
    )]
    SettingDiffers {
        /// The source.
        source_id: Source,
        /// The setting.
        name: &'static str,
        /// What it is now.
        configured: i64,
        /// What it was.
        stored: i64,
    },
    /// The counts were made by a newer program.
    #[error("source {source_id}: the counts were made by fold version {stored}, this tallymark knows {FOLD_VERSION}; use a newer one")]
    FoldVersion {
        /// The source.
        source_id: Source,
        /// The version of the program that made them.
        stored: u32,
    },
    /// A record claims to come from the future.
    #[error(
        "source {source_id}: the record at offset {offset} was appended at {append_time}, more than an hour after this machine's clock \
         ({now}). Broker clock: set the clocks right, then restart"
    )]
    BrokerClock {
        /// The source.
        source_id: Source,
        /// The record.
        offset: Offset,
        /// Its append time.
        append_time: Millis,
        /// This machine's clock.
        now: Millis,
    },
    /// The log or the store failed for good.
    #[error("source {source_id}: {detail}")]
    Failed {
        /// The source.
        source_id: Source,
        /// What it said.
        detail: String,
    },
}

/// Where to begin. `accept_gap` starts behind records that are gone, and counts without them.
///
/// # Errors
/// Whatever makes the checkpoint, the log and the settings not belong together.
pub fn plan(
    source_id: Source,
    checkpoint: Option<&Checkpoint>,
    ends: Ends,
    settings: &FoldSettings,
    accept_gap: bool,
) -> Result<Start, SourceError> {
    let (next_offset, warm_from) = match checkpoint {
        Some(checkpoint) => {
            check_settings(source_id, settings, &checkpoint.settings)?;
            (checkpoint.next_offset, checkpoint.warm_from)
        }
        None => (Offset(0), Offset(0)),
    };
    if next_offset > ends.end {
        return Err(SourceError::BeyondEnd { source_id, next_offset, end: ends.end });
    }
    if ends.start > next_offset && !accept_gap {
        return Err(SourceError::Gap { source_id, next_offset, start: ends.start });
    }
    if ends.start > warm_from && ends.start <= next_offset && !accept_gap {
        return Err(SourceError::WarmUpGone { source_id, warm_from, start: ends.start });
    }
    // The record before the checkpoint is looked at even if nothing has to be warmed up.
    let before = Offset(next_offset.0.saturating_sub(1));
    Ok(Start {
        read_from: warm_from.min(before).max(ends.start),
        warm_from: warm_from.max(ends.start),
        next_offset: next_offset.max(ends.start),
        lost: ends.start.0.saturating_sub(next_offset.0),
        unwarmed: ends.start.min(next_offset).0.saturating_sub(warm_from.0),
    })
}

fn check_settings(source_id: Source, configured: &FoldSettings, stored: &FoldSettings) -> Result<(), SourceError> {
    if stored.fold_version != configured.fold_version {
        return Err(SourceError::FoldVersion { source_id, stored: stored.fold_version });
    }
    let named = |s: &FoldSettings| {
        [
            ("grace (ms)", s.grace_ms),
            ("max_skew (ms)", s.max_skew_ms),
            ("max_lateness (ms)", s.max_lateness_ms),
            ("dedup_minutes", s.dedup_minutes.into()),
            ("minute_ttl (ms)", s.minute_ttl_ms),
            ("hour_ttl (ms)", s.hour_ttl_ms),
            ("sources", s.sources.into()),
            ("spread", s.spread.into()),
        ]
    };
    let differs = named(configured).into_iter().zip(named(stored)).find(|(now, then)| now.1 != then.1);
    match differs {
        Some(((name, configured), (_, stored))) => Err(SourceError::SettingDiffers { source_id, name, configured, stored }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{Stamp, Tally};

    fn checkpoint(next: u64, warm: u64) -> Checkpoint {
        Checkpoint {
            next_offset: Offset(next),
            warm_from: Offset(warm),
            stamp: Stamp(1),
            clock: Millis(1),
            append_time: Millis(1),
            closed: Millis(0),
            adjustments: 0,
            tally: Tally::default(),
            settings: FoldSettings::default(),
        }
    }

    fn start(checkpoint: Option<Checkpoint>, log: std::ops::Range<u64>, accept_gap: bool) -> Result<(u64, u64, u64), SourceError> {
        let ends = Ends { start: Offset(log.start), end: Offset(log.end) };
        plan(Source(0), checkpoint.as_ref(), ends, &FoldSettings::default(), accept_gap)
            .map(|s| (s.read_from.0, s.warm_from.0, s.next_offset.0))
    }

    #[test]
    fn where_a_start_begins() {
        assert_eq!(start(None, 0..0, false), Ok((0, 0, 0)));
        assert_eq!(start(None, 0..9, false), Ok((0, 0, 0)));
        assert_eq!(start(Some(checkpoint(5, 2)), 0..9, false), Ok((2, 2, 5)));
        assert_eq!(start(Some(checkpoint(5, 5)), 0..5, false), Ok((4, 5, 5)), "the last record is looked at");
        assert_eq!(start(Some(checkpoint(5, 2)), 2..9, false), Ok((2, 2, 5)));
    }

    #[test]
    fn what_a_start_refuses_and_what_can_be_accepted() {
        assert!(matches!(start(Some(checkpoint(5, 2)), 0..4, true), Err(SourceError::BeyondEnd { .. })));
        assert!(matches!(start(Some(checkpoint(5, 2)), 3..9, false), Err(SourceError::WarmUpGone { .. })));
        assert!(matches!(start(Some(checkpoint(5, 2)), 6..9, false), Err(SourceError::Gap { .. })));
        assert!(matches!(start(None, 1..9, false), Err(SourceError::Gap { .. })));
        assert_eq!(start(Some(checkpoint(5, 2)), 3..9, true), Ok((4, 3, 5)).map(|(_, w, n)| (3, w, n)));
        assert_eq!(start(Some(checkpoint(5, 2)), 6..9, true), Ok((6, 6, 6)));
        assert_eq!(start(None, 1..9, true), Ok((1, 1, 1)));
        let gone = |log_start| {
            let ends = Ends { start: Offset(log_start), end: Offset(9) };
            let start = plan(Source(0), Some(&checkpoint(5, 2)), ends, &FoldSettings::default(), true).unwrap();
            (start.unwarmed, start.lost)
        };
        assert_eq!([2, 3, 5, 6].map(gone), [(0, 0), (1, 0), (3, 0), (3, 1)], "what is said to be missing");
    }

    #[test]
    fn a_changed_rule_is_named() {
        let mut stored = checkpoint(0, 0);
        stored.settings.grace_ms = 5;
        let error = start(Some(stored), 0..0, false).unwrap_err();
        assert!(error.to_string().contains("grace"), "{error}");
        let mut newer = checkpoint(0, 0);
        newer.settings.fold_version += 1;
        assert!(matches!(start(Some(newer), 0..0, false), Err(SourceError::FoldVersion { .. })));
    }
}
