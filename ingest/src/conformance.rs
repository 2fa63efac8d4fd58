//! What every log must do, as claims that any implementation can be held to.
//!
//! [`run`] makes a log for each claim and panics, naming the claim, where one does not hold. Retention, restarts and faults
//! are each implementation's own and not here.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a suite of tests: a claim that fails is a panic")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use schemas::{Millis, NewRecord, Offset, RecordKind, Source};

use crate::log::{Appended, Ends, EventLog, LogError, RUN_BYTES, RUN_RECORDS, ReadLimit};

/// A record as it was read, copied out of the log's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place.
    pub offset: Offset,
    /// When the log took it.
    pub append_time: Millis,
    /// All that was appended.
    pub record: NewRecord,
}

/// No limit.
pub const UNLIMITED: ReadLimit = ReadLimit { records: usize::MAX, bytes: usize::MAX, patience: LONG };
const A: Source = Source(0);
const B: Source = Source(1);
const LONG: Duration = Duration::from_secs(60);

/// Runs every claim over logs that `make` makes: each new, empty and of two sources or more.
pub async fn run(make: impl AsyncFn() -> Arc<dyn EventLog>) {
    an_empty_log_is_empty(&*make().await).await;
    records_come_back_in_order_at_dense_offsets(&*make().await).await;
    what_was_acknowledged_is_readable_at_once(&*make().await).await;
    every_kind_flag_and_size_survives(&*make().await).await;
    sources_are_apart(&*make().await).await;
    appends_of_many_at_once_are_atomic_and_in_one_order(&*make().await).await;
    an_append_of_nothing_changes_nothing(&*make().await).await;
    read_limits_and_breaks_are_honoured(&*make().await).await;
    runs_are_the_same_records(&*make().await).await;
    append_times_never_go_back(&*make().await).await;
    first_at_or_after_agrees_with_a_scan(&*make().await).await;
    unknown_sources_are_refused(&*make().await).await;
    waiting_ends_with_an_append_or_the_timeout(make().await).await;
    the_only_member_has_every_source(make().await).await;
}

/// All durable records of a source from `from` on.
///
/// # Errors
/// Those of [`EventLog::read`].
pub fn read_all(log: &dyn EventLog, source: Source, from: Offset) -> Result<Vec<Kept>, LogError> {
    let mut kept = Vec::new();
    let next = read_some(log, source, from, UNLIMITED, &mut kept)?;
    assert_eq!(next, kept.last().map_or(from, |last| last.offset.next()), "read returns the offset after the last record lent");
    Ok(kept)
}

fn read_some(log: &dyn EventLog, source: Source, from: Offset, limit: ReadLimit, kept: &mut Vec<Kept>) -> Result<Offset, LogError> {
    log.read(source, from, limit, &mut |record| {
        let new = NewRecord { kind: record.kind, historical: record.historical, payload: record.payload.to_vec() };
        kept.push(Kept { offset: record.offset, append_time: record.append_time, record: new });
        ControlFlow::Continue(())
    })
}

/// `count` records whose payloads say who made them and which they are.
fn numbered(maker: usize, count: usize) -> Vec<NewRecord> {
    (0..count).map(|n| NewRecord::new(RecordKind::Json, format!("{{\"maker\":{maker},\"n\":{n}}}"))).collect()
}

/// Appends, trying again while the log is busy.
async fn append(log: &dyn EventLog, source: Source, records: Vec<NewRecord>) -> Appended {
    loop {
        match log.append(source, records.clone()).await {
            Ok(appended) => return appended,
            Err(LogError::Busy { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("append: {error}"),
        }
    }
}

/// A new log has no records, and its ends say so.
async fn an_empty_log_is_empty(log: &dyn EventLog) {
    assert!(!log.id().0.is_empty());
    assert!(log.sources().get() >= 2);
    assert_eq!(log.ends(A).unwrap(), Ends { start: Offset(0), end: Offset(0) });
    assert_eq!(read_all(log, A, Offset(0)).unwrap(), []);
    assert_eq!(log.first_at_or_after(A, Millis::NEVER).unwrap(), Offset(0));
}

/// Offsets start at 0 and have no holes; records lie in the order in which they were appended; the ends follow.
async fn records_come_back_in_order_at_dense_offsets(log: &dyn EventLog) {
    let (mut sent, mut end) = (Vec::new(), 0);
    for (maker, count) in [1, 3, 1, 100, 2].into_iter().enumerate() {
        let records = numbered(maker, count);
        sent.extend(records.iter().cloned());
        let appended = append(log, A, records).await;
        let first = end;
        end += u64::try_from(count).unwrap();
        assert_eq!((appended.first, appended.next), (Offset(first), Offset(end)));
        assert_eq!(log.ends(A).unwrap(), Ends { start: Offset(0), end: Offset(end) });
    }
    let kept = read_all(log, A, Offset(0)).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.offset.0).collect::<Vec<_>>(), (0..end).collect::<Vec<_>>());
    assert_eq!(kept.iter().map(|kept| kept.record.clone()).collect::<Vec<_>>(), sent);
    for from in [0, 1, 57, end - 1, end, end + 10] {
        let tail: Vec<Kept> = kept.iter().filter(|kept| kept.offset.0 >= from).cloned().collect();
        assert_eq!(read_all(log, A, Offset(from)).unwrap(), tail, "from {from}");
    }
}

/// When `append` has resolved, `read` and `ends` show its records.
async fn what_was_acknowledged_is_readable_at_once(log: &dyn EventLog) {
    for n in 0..50 {
        let records = numbered(n, 2);
        let appended = append(log, A, records.clone()).await;
        assert!(log.ends(A).unwrap().end >= appended.next);
        let kept = read_all(log, A, appended.first).unwrap();
        assert_eq!(kept.iter().map(|kept| kept.record.clone()).collect::<Vec<_>>(), records);
        assert_eq!(kept.last().unwrap().append_time, appended.append_time);
    }
}

/// Kinds (also unknown ones), the historical flag, and payloads from nothing to 900 KB (the most that the collector makes) come back as they were.
async fn every_kind_flag_and_size_survives(log: &dyn EventLog) {
    let codes = [1, 2, 16, 17, 18, 19, 77].map(RecordKind::from_code);
    let mut sent = Vec::new();
    for (kind, size) in codes.into_iter().zip([0usize, 1, 100, 1_023, 1_024, 70_000, 900_000]) {
        for historical in [false, true] {
            // Bytes of every value, not to be compressed away.
            let payload = (0..size).map(|n| ((n * n) ^ (n >> 7)).to_le_bytes()[0]).collect();
            sent.push(NewRecord { kind, historical, payload });
        }
    }
    for record in &sent {
        append(log, A, vec![record.clone()]).await;
    }
    let kept: Vec<NewRecord> = read_all(log, A, Offset(0)).unwrap().into_iter().map(|kept| kept.record).collect();
    assert!(kept == sent, "a record came back changed");
}

/// Each source has its own offsets and records.
async fn sources_are_apart(log: &dyn EventLog) {
    append(log, A, numbered(0, 3)).await;
    let appended = append(log, B, numbered(1, 2)).await;
    assert_eq!((appended.first, appended.next), (Offset(0), Offset(2)));
    append(log, A, numbered(2, 1)).await;
    let payloads = |source| read_all(log, source, Offset(0)).unwrap().into_iter().map(|kept| kept.record).collect::<Vec<_>>();
    assert_eq!(payloads(A), [numbered(0, 3), numbered(2, 1)].concat());
    assert_eq!(payloads(B), numbered(1, 2));
}

/// Each append's records lie together and in order, and every append has one place that it was told.
async fn appends_of_many_at_once_are_atomic_and_in_one_order(log: &dyn EventLog) {
    let appends = (0..60).map(|maker| async move {
        let records = numbered(maker, 1 + maker % 7);
        (append(log, A, records.clone()).await, records)
    });
    let mut told = join_all(appends).await;
    told.sort_by_key(|(appended, _)| appended.first);
    let mut end = Offset(0);
    for (appended, _) in &told {
        assert_eq!(appended.first, end, "appends neither overlap nor leave holes");
        end = appended.next;
    }
    let kept: Vec<NewRecord> = read_all(log, A, Offset(0)).unwrap().into_iter().map(|kept| kept.record).collect();
    assert_eq!(kept, told.into_iter().flat_map(|(_, records)| records).collect::<Vec<_>>());
}

/// An append without records resolves at the end of the source and appends none.
async fn an_append_of_nothing_changes_nothing(log: &dyn EventLog) {
    append(log, A, numbered(0, 2)).await;
    let appended = append(log, A, Vec::new()).await;
    assert_eq!((appended.first, appended.next), (Offset(2), Offset(2)));
    assert_eq!(log.ends(A).unwrap().end, Offset(2));
}

/// A read stops at its limit of records, once its limit of bytes is reached, and when told to, each time after a whole record.
async fn read_limits_and_breaks_are_honoured(log: &dyn EventLog) {
    append(log, A, (0..10).map(|_| NewRecord::new(RecordKind::Json, vec![7; 100])).collect()).await;
    let lent = |records, bytes| {
        let mut kept = Vec::new();
        let next = read_some(log, A, Offset(2), ReadLimit { records, bytes, ..UNLIMITED }, &mut kept).unwrap();
        assert_eq!(next.0, 2 + u64::try_from(kept.len()).unwrap());
        kept.len()
    };
    assert_eq!([0, 1, 3, 8, 9].map(|records| lent(records, usize::MAX)), [0, 1, 3, 8, 8]);
    assert_eq!([1, 100, 101, 250, 10_000].map(|bytes| lent(usize::MAX, bytes)), [1, 1, 2, 3, 8]);
    assert_eq!(lent(2, 250), 2);
    let mut seen = 0;
    let next = log.read(A, Offset(0), UNLIMITED, &mut |record| {
        seen += 1;
        if record.offset == Offset(4) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((next.unwrap(), seen), (Offset(5), 5), "the record at which it breaks has been lent");
}

/// Reading in runs lends the same records under the same limits, and goes on where a break left it.
async fn runs_are_the_same_records(log: &dyn EventLog) {
    append(log, A, numbered(7, 2 * RUN_RECORDS + 10)).await;
    append(log, A, vec![NewRecord::new(RecordKind::Ndjson, vec![b' '; RUN_BYTES + 1])]).await;
    append(log, A, numbered(8, 10)).await;
    let kept = read_all(log, A, Offset(0)).unwrap();
    for limit in [UNLIMITED, ReadLimit { records: 5, ..UNLIMITED }, ReadLimit { bytes: 100, ..UNLIMITED }] {
        let (mut next, mut offsets) = (Offset(0), Vec::new());
        while offsets.len() < kept.len() {
            let (mut records, mut bytes, mut last, mut ended) = (0, 0, 0, false);
            let read = log.read_runs(A, next, limit, &mut |run| {
                assert!(!ended && !run.is_empty() && run.len() <= RUN_RECORDS);
                let run_bytes: usize = run.iter().map(|record| record.payload.len()).sum();
                assert!(run.len() == 1 || run_bytes <= RUN_BYTES, "{run_bytes} bytes in a run");
                (records, bytes) = (records + run.len(), bytes + run_bytes);
                last = run.last().map_or(0, |record| record.payload.len());
                for record in run {
                    assert_eq!(record.payload, kept[offsets.len()].record.payload);
                    offsets.push(record.offset);
                }
                // Every other read is broken off after a run.
                ended = offsets.len() % 2 == 1;
                if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            next = read.unwrap();
            assert_eq!(Some(next), offsets.last().map(|last| last.next()), "a run is taken whole");
            assert!(records <= limit.records && bytes - last < limit.bytes, "{records} records of {bytes} bytes");
        }
        assert!(offsets.iter().eq(kept.iter().map(|kept| &kept.offset)));
    }
}

/// Along a source, and what an append is told is what its records have.
async fn append_times_never_go_back(log: &dyn EventLog) {
    let before = Millis::now();
    let mut last = Millis::NEVER;
    for n in 0..100 {
        let appended = append(log, A, numbered(n, 1)).await;
        assert!(appended.append_time >= last);
        last = appended.append_time;
    }
    // Logs on other machines have clocks of their own: an hour is no disagreement.
    assert!((last.since(before)).abs() < 3_600_000, "append times are wall-clock times: {last} against {before}");
    let kept = read_all(log, A, Offset(0)).unwrap();
    assert!(kept.windows(2).all(|pair| pair[0].append_time <= pair[1].append_time));
}

/// For every append time there is, and those beside it.
async fn first_at_or_after_agrees_with_a_scan(log: &dyn EventLog) {
    for n in 0..40 {
        append(log, A, numbered(n, 1 + n % 3)).await;
        if n % 8 == 0 {
            // Let the clock move on, so that there are several times to find.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    append(log, B, numbered(0, 5)).await;
    let kept = read_all(log, A, Offset(0)).unwrap();
    let end = log.ends(A).unwrap().end;
    let mut times = vec![Millis::NEVER, Millis(0), Millis(i64::MAX)];
    kept.iter().for_each(|kept| times.extend([-1, 0, 1].map(|by| kept.append_time.plus(by))));
    for at in times {
        let scanned = kept.iter().find(|kept| kept.append_time >= at).map_or(end, |kept| kept.offset);
        assert_eq!(log.first_at_or_after(A, at).unwrap(), scanned, "at {at}");
    }
}

/// By every method that takes a source.
async fn unknown_sources_are_refused(log: &dyn EventLog) {
    for unknown in [Source(log.sources().get()), Source(u32::MAX)] {
        let refused =
            |error: Option<LogError>| assert!(matches!(error, Some(LogError::NoSource(source)) if source == unknown), "{error:?}");
        refused(log.append(unknown, numbered(0, 1)).await.err());
        refused(log.ends(unknown).err());
        refused(read_all(log, unknown, Offset(0)).err());
        refused(log.first_at_or_after(unknown, Millis(0)).err());
    }
}

/// `wait` returns when something is appended to a source that was read to its end, and misses nothing that came before it was called.
async fn waiting_ends_with_an_append_or_the_timeout(log: Arc<dyn EventLog>) {
    const ROUNDS: u64 = 5;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let reader = Arc::clone(&log);
    // Reads without patience, as a fold's worker does: what comes is noticed by waiting alone.
    let thread = std::thread::spawn(move || {
        let (mut next, mut seen, mut shown) = (Offset(0), 0, None);
        while next < Offset(ROUNDS) {
            if shown != Some(next) {
                tell.send(next).unwrap();
                shown = Some(next);
            }
            seen = reader.wait(seen, Duration::from_secs(1));
            let limit = ReadLimit { patience: Duration::ZERO, ..UNLIMITED };
            next = reader.read(B, next, limit, &mut |_| ControlFlow::Continue(())).unwrap();
        }
    });
    for _ in 0..ROUNDS {
        told.recv().await.unwrap();
        append(&*log, B, numbered(0, 1)).await;
    }
    tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    let mut seen = log.wait(0, Duration::ZERO);
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(50) {
        seen = log.wait(seen, Duration::from_millis(10));
    }
    append(&*log, B, numbered(0, 1)).await;
    let waiter = Arc::clone(&log);
    let grown = tokio::task::spawn_blocking(move || {
        let mut grown = seen;
        // Growth that came before the call is not missed; an early return without a new value is allowed.
        while grown == seen {
            let _ = waiter
                .read(B, Offset(ROUNDS), ReadLimit { patience: Duration::ZERO, records: 0, bytes: 1 }, &mut |_| ControlFlow::Continue(()));
            grown = waiter.wait(seen, LONG);
        }
        grown
    });
    assert_ne!(grown.await.unwrap(), seen);
}

/// A process that joins a log that nobody else folds is given every source, and hears nothing more while nothing changes.
async fn the_only_member_has_every_source(log: Arc<dyn EventLog>) {
    let membership = log.join().unwrap();
    let sources = log.sources().get();
    let waiter = Arc::clone(&membership);
    let assignment = tokio::task::spawn_blocking(move || {
        let mut assignment = waiter.assigned(0, LONG);
        while assignment.sources.len() < sources as usize {
            assignment = waiter.assigned(assignment.generation, LONG);
        }
        assert_eq!(waiter.assigned(assignment.generation, Duration::from_millis(10)), assignment);
        assignment
    });
    let assignment = assignment.await.unwrap();
    assert_eq!(assignment.sources, (0..sources).map(Source).collect());
    let owners = {
        let log = Arc::clone(&log);
        tokio::task::spawn_blocking(move || log.owners().unwrap()).await.unwrap()
    };
    assert_eq!(owners.len(), sources as usize, "{owners:?}");
    membership.report(A, Offset(0));
    tokio::task::spawn_blocking(move || membership.leave()).await.unwrap();
}
