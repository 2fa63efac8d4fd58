//! Checkpoints as rows: numbers as numbers, the tally and the settings as JSON that people can read.

use std::collections::BTreeMap;
use std::fmt::Display;

use schemas::{Checkpoint, Millis, Offset, Reason, Source, Stamp, Tally};
use scylla::DeserializeRow;
use serde::{Deserialize, Serialize};

use super::Inner;
use super::error::{Failure, damaged};
use super::row::{bigint, source};
use crate::store::StoreError;

/// `log, source, next_offset, warm_from, clock, append_time, closed, adjustments, tally, settings, timestamp`
type Values<'a> = (&'a str, i32, i64, i64, i64, i64, i64, i64, String, String, i64);

#[derive(DeserializeRow)]
struct Stored {
    source: i32,
    next_offset: Option<i64>,
    warm_from: Option<i64>,
    clock: Option<i64>,
    append_time: Option<i64>,
    closed: Option<i64>,
    adjustments: Option<i64>,
    tally: Option<String>,
    settings: Option<String>,
    stamp: Option<i64>,
}

/// A tally by names, so that a reason that an older version does not have is noticed and not misread.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTally {
    counted: u64,
    duplicate: u64,
    corrections: u64,
    /// Those that are not 0.
    rejected: BTreeMap<String, u64>,
}

impl Inner {
    pub(super) async fn read_checkpoints(&self) -> Result<Vec<(Source, Checkpoint)>, StoreError> {
        let what = format!("the checkpoints of log {}", self.log_id);
        let found = self.session.execute_unpaged(&self.statements.read_checkpoints, (&*self.log_id.0,)).await.map_err(Failure::from)?;
        let rows = found.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let rows = rows.rows::<Stored>().map_err(|error| damaged(&what, &error))?;
        rows.map(|row| decode(row.map_err(|error| damaged(&what, &error))?)).collect()
    }

    pub(super) async fn write_checkpoint(&self, source: Source, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let values = encode(&self.log_id.0, source, checkpoint)?;
        self.session.execute_unpaged(&self.statements.write_checkpoint, values).await.map_err(Failure::from)?;
        Ok(())
    }
}

fn encode<'a>(log: &'a str, of: Source, checkpoint: &Checkpoint) -> Result<Values<'a>, StoreError> {
    let Checkpoint { next_offset, warm_from, stamp, clock, append_time, closed, adjustments, tally, settings } = checkpoint;
    let what = format!("the checkpoint of source {of}:");
    let as_text = |error: serde_json::Error| StoreError::Failed(format!("{what} {error}"));
    Ok((
        log,
        source(of)?,
        bigint(&what, next_offset.0)?,
        bigint(&what, warm_from.0)?,
        clock.0,
        append_time.0,
        closed.0,
        bigint(&what, *adjustments)?,
        serde_json::to_string(&StoredTally::of(tally)).map_err(as_text)?,
        serde_json::to_string(settings).map_err(as_text)?,
        stamp.0,
    ))
}

fn decode(stored: Stored) -> Result<(Source, Checkpoint), StoreError> {
    let what = format!("the checkpoint of source {}", stored.source);
    let source = u32::try_from(stored.source).map_err(|error| damaged(&what, &error))?;
    let number = |column: &str, value: Option<i64>| value.ok_or_else(|| damaged(&what, &format!("it has no {column}")));
    let unsigned =
        |column: &str, value| u64::try_from(number(column, value)?).map_err(|error| damaged(&what, &format!("{column}: {error}")));
    let newer = |error: &dyn Display| damaged(&what, &format!("{error}; was it written by a newer tallymark?"));
    let tally: StoredTally = serde_json::from_str(stored.tally.as_deref().unwrap_or_default()).map_err(|error| newer(&error))?;
    let checkpoint = Checkpoint {
        next_offset: Offset(unsigned("next_offset", stored.next_offset)?),
        warm_from: Offset(unsigned("warm_from", stored.warm_from)?),
        stamp: Stamp(number("stamp", stored.stamp)?),
        clock: Millis(number("clock", stored.clock)?),
        append_time: Millis(number("append_time", stored.append_time)?),
        closed: Millis(number("closed", stored.closed)?),
        adjustments: unsigned("adjustments", stored.adjustments)?,
        tally: tally.read().map_err(|reason| newer(&format!("reason {reason} is not known")))?,
        settings: serde_json::from_str(stored.settings.as_deref().unwrap_or_default()).map_err(|error| newer(&error))?,
    };
    Ok((Source(source), checkpoint))
}

impl StoredTally {
    fn of(tally: &Tally) -> Self {
        let counts = Reason::ALL.into_iter().map(|reason| (reason.as_str().to_owned(), tally.rejected_for(reason)));
        let Tally { counted, duplicate, corrections, .. } = *tally;
        Self { counted, duplicate, corrections, rejected: counts.filter(|(_, count)| *count > 0).collect() }
    }

    /// The tally, or a reason that this version does not know.
    fn read(self) -> Result<Tally, String> {
        let Self { counted, duplicate, corrections, rejected } = self;
        let mut tally = Tally { counted, duplicate, corrections, ..Tally::default() };
        for (name, count) in rejected {
            let place = Reason::ALL.into_iter().position(|reason| reason.as_str() == name);
            match place.and_then(|place| tally.rejected.get_mut(place)) {
                Some(kept) => *kept = count,
                None => return Err(name),
            }
        }
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;
    use schemas::FoldSettings;

    use super::*;

    fn stored(values: Values<'_>) -> Stored {
        let (_, source, next_offset, warm_from, clock, append_time, closed, adjustments, tally, settings, stamp) = values;
        Stored {
            source,
            next_offset: Some(next_offset),
            warm_from: Some(warm_from),
            clock: Some(clock),
            append_time: Some(append_time),
            closed: Some(closed),
            adjustments: Some(adjustments),
            tally: Some(tally),
            settings: Some(settings),
            stamp: Some(stamp),
        }
    }

    proptest! {
        #[test]
        fn bound_values_read_back(words in any::<[u64; 3]>().prop_map(|words| words.map(|word| word >> 1)), tally: [u64; 3], times: [i64; 9],
                                  rejected: [u64; Reason::ALL.len()], small: [u32; 3], dedup_minutes: i32) {
            let checkpoint = Checkpoint {
                next_offset: Offset(words[0]), warm_from: Offset(words[1]), adjustments: words[2],
                tally: Tally { counted: tally[0], duplicate: tally[1], rejected, corrections: tally[2] },
                stamp: Stamp(times[0]), clock: Millis(times[1]), append_time: Millis(times[2]), closed: Millis(times[3]),
                settings: FoldSettings {
                    fold_version: small[0], sources: small[1], spread: small[2], dedup_minutes, grace_ms: times[4],
                    max_skew_ms: times[5], max_lateness_ms: times[6], minute_ttl_ms: times[7], hour_ttl_ms: times[8],
                },
            };
            let values = encode("log", Source(7), &checkpoint).unwrap();
            prop_assert_eq!(decode(stored(values)).unwrap(), (Source(7), checkpoint));
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_named_and_not_misread() {
        let values = || stored(encode("log", Source(0), &crate::conformance::checkpoint(1, 1)).unwrap());
        let tally = r#"{"counted":1,"duplicate":0,"corrections":0,"rejected":{"bored":3}}"#;
        let error = decode(Stored { tally: Some(tally.into()), ..values() }).unwrap_err().to_string();
        assert!(error.contains("bored") && error.contains("newer tallymark"), "{error}");
        let error = decode(Stored { settings: Some(r#"{"phase":"moon"}"#.into()), ..values() }).unwrap_err().to_string();
        assert!(error.contains("phase") && error.contains("newer tallymark"), "{error}");
        assert!(decode(Stored { closed: None, ..values() }).unwrap_err().to_string().contains("no closed"));
    }
}
