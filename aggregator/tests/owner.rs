//! What an owner refuses, and what it goes on with when told to. The simulation tests the rest of it at random.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use aggregator::owner::{Now, Owner, OwnerOptions, WriteKind};
use aggregator::recovery::SourceError;
use ingest::Ends;
use schemas::{Checkpoint, FoldSettings, Millis, Offset, Record, RecordKind, Source};

const T0: i64 = 1_763_640_000_000;

fn now(seconds: u64) -> Now {
    Now { wall: Millis(T0 + i64::try_from(seconds).unwrap() * 1_000), elapsed: Duration::from_secs(seconds) }
}

fn tick(offset: u64, append_time: i64) -> Record<'static> {
    Record { offset: Offset(offset), append_time: Millis(append_time), kind: RecordKind::Tick, historical: false, payload: &[] }
}

fn owner(checkpoint: Option<Checkpoint>, log: std::ops::Range<u64>, accept_gap: bool) -> Result<Owner, SourceError> {
    let options = OwnerOptions { accept_gap, ..OwnerOptions::default() };
    let ends = Ends { start: Offset(log.start), end: Offset(log.end) };
    Owner::new(Source(0), FoldSettings::default(), options, checkpoint, ends, now(0))
}

/// The checkpoint of a source whose records, all ticks, were appended at these times.
fn checkpoint(append_times: &[i64]) -> Checkpoint {
    let mut owner = owner(None, 0..append_times.len() as u64, false).unwrap();
    for (offset, append_time) in (0..).zip(append_times) {
        owner.record(&tick(offset, *append_time), now(1)).unwrap();
    }
    let write = owner.poll_write(now(2)).unwrap();
    let WriteKind::Checkpoint(checkpoint) = write.what else { panic!("ticks change no cell: {write:?}") };
    *checkpoint
}

#[test]
fn a_record_from_more_than_an_hour_ahead_stops_the_source_before_it_decides_anything() {
    let mut owner = owner(None, 0..2, false).unwrap();
    owner.record(&tick(0, T0 + 3_600_000), now(0)).unwrap();
    let error = owner.record(&tick(1, T0 + 3_600_001), now(0)).unwrap_err();
    assert!(matches!(error, SourceError::BrokerClock { offset: Offset(1), .. }), "{error}");
    assert!(error.to_string().contains("clock"), "{error}");
    assert_eq!(owner.status().clock, Millis(T0 + 3_600_000));
}

#[test]
fn a_log_that_was_made_anew_is_refused() {
    let before = checkpoint(&[T0, T0 + 70_000, T0 + 80_000]);
    for (found, what) in [(T0 + 80_001, "its last record was appended at another time"), (T0 + 79_999, "and so here")] {
        let mut owner = owner(Some(before.clone()), 0..3, false).unwrap();
        let (from, _) = owner.wants(now(0)).unwrap();
        let records = [tick(0, T0), tick(1, T0 + 70_000), tick(2, found)];
        let refused = records.iter().filter(|record| record.offset >= from).find_map(|record| owner.record(record, now(0)).err());
        assert!(matches!(refused, Some(SourceError::Recreated { .. })), "{what}: {refused:?}");
    }
    let mut other_past = owner(Some(before), 0..3, false).unwrap();
    let mut refused = None;
    for record in [tick(0, T0), tick(1, T0 + 90_000), tick(2, T0 + 80_000)] {
        refused = refused.or(other_past.record(&record, now(0)).err());
    }
    assert!(matches!(refused, Some(SourceError::Recreated { .. })), "a clock that was never read: {refused:?}");
}

#[test]
fn a_gap_is_refused_unless_it_is_accepted_and_then_counting_starts_behind_it() {
    let before = checkpoint(&[T0, T0 + 70_000]);
    assert!(matches!(owner(Some(before.clone()), 5..9, false), Err(SourceError::Gap { .. })));
    let mut owner = owner(Some(before), 5..9, true).unwrap();
    assert_eq!(owner.wants(now(0)).unwrap().0, Offset(5));
    owner.record(&tick(5, T0 + 71_000), now(0)).unwrap();
    assert_eq!((owner.status().position, owner.status().lost), (Offset(6), 3), "what is gone is counted as lost");
}

#[test]
fn a_failed_step_of_a_flush_is_asked_for_again_after_its_wait_and_an_answer_to_the_old_one_does_not_count() {
    let mut owner = owner(None, 0..1, false).unwrap();
    owner.record(&tick(0, T0), now(0)).unwrap();
    let first = owner.poll_write(now(2)).unwrap();
    owner.write_failed(first.id, now(2), 1.0);
    assert_eq!(owner.poll_write(now(2)), None, "not at once");
    assert!(owner.deadline() > now(2).elapsed && owner.deadline() < now(3).elapsed);
    let again = owner.poll_write(now(3)).unwrap();
    assert_eq!(again.what, first.what);
    owner.written(first.id, now(3));
    assert_eq!(owner.status().stored, Offset(0));
    owner.written(again.id, now(3));
    assert_eq!((owner.status().stored, owner.status().failures), (Offset(1), 1));
}
