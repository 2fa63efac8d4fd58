//! A spool before a real log that is made to look away: whatever happens, each record is in the log once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test should say where")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ingest::spool::Taken;
use ingest::{Appended, EmbeddedLog, Ends, EventLog, LogError, LogOptions, Membership, ReadLimit, Spool, SpoolOptions};
use schemas::{LogId, Millis, NewRecord, Offset, Record, RecordKind, Source};

const SOURCE: Source = Source(1);
const MIB: u64 = 1 << 20;

/// What becomes of an append.
#[derive(Clone, Copy)]
enum Mood {
    Well,
    /// Nothing arrives.
    Away,
    /// Of the next events the first record arrives and the answer does not; from then on it is away.
    Torn,
}

/// A real log behind a connection that can break.
struct Line {
    log: EmbeddedLog,
    mood: AtomicU8,
}

impl Line {
    fn open(dir: &Path) -> Arc<Self> {
        let log = EmbeddedLog::open(&LogOptions::new(dir.join("log"), NonZeroU32::new(2).unwrap())).unwrap();
        Arc::new(Self { log, mood: AtomicU8::new(0) })
    }

    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// The events in the log, in order.
    fn events(&self) -> Vec<String> {
        let mut events = Vec::new();
        let (ends, limit) =
            (self.log.ends(SOURCE).unwrap(), ReadLimit { records: usize::MAX, bytes: usize::MAX, patience: Duration::ZERO });
        if ends.start < ends.end {
            let each = &mut |record: Record<'_>| {
                if record.kind == RecordKind::Json {
                    events.push(String::from_utf8(record.payload.to_vec()).unwrap());
                }
                ControlFlow::Continue(())
            };
            self.log.read(SOURCE, ends.start, limit, each).unwrap();
        }
        events
    }

    async fn await_events(&self, expected: &[String]) {
        let waiting = async {
            while self.events().len() < expected.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(50), waiting).await;
        assert!(waited.is_ok(), "only {:?} came", self.events());
        assert_eq!(self.events(), expected);
    }
}

impl EventLog for Line {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn sources(&self) -> NonZeroU32 {
        self.log.sources()
    }

    fn append(&self, source: Source, mut records: Vec<NewRecord>) -> BoxFuture<'_, Result<Appended, LogError>> {
        let away = || LogError::Unavailable("the line is cut".into());
        match self.mood.load(Ordering::SeqCst) {
            mood if mood == Mood::Well as u8 => self.log.append(source, records),
            mood if mood == Mood::Torn as u8 && records.iter().all(|record| record.kind == RecordKind::Tick) => {
                self.log.append(source, records)
            }
            mood if mood == Mood::Away as u8 => Box::pin(async move { Err(away()) }),
            _ => Box::pin(async move {
                records.truncate(1);
                self.log.append(source, records).await?;
                self.set(Mood::Away);
                Err(away())
            }),
        }
    }

    fn read(
        &self,
        source: Source,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.log.read(source, from, limit, each)
    }

    fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        self.log.wait(seen, timeout)
    }

    fn first_at_or_after(&self, source: Source, at: Millis) -> Result<Offset, LogError> {
        self.log.first_at_or_after(source, at)
    }

    fn ends(&self, source: Source) -> Result<Ends, LogError> {
        self.log.ends(source)
    }

    fn join(&self) -> Result<Arc<dyn Membership>, LogError> {
        self.log.join()
    }

    fn owners(&self) -> Result<BTreeMap<Source, String>, LogError> {
        self.log.owners()
    }

    fn failure(&self) -> Option<String> {
        self.log.failure()
    }

    fn on_failure(&self) -> BoxFuture<'static, String> {
        Box::pin(self.log.on_failure())
    }

    fn close(&self) {
        EventLog::close(&self.log);
    }
}

fn spool(dir: &Path, line: &Arc<Line>, max_bytes: u64) -> Arc<Spool> {
    let options = SpoolOptions { dir: dir.join("spool"), max_bytes };
    Arc::new(Spool::open(&options, Arc::clone(line) as Arc<dyn EventLog>).unwrap())
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("event {n}")).collect()
}

fn record(name: &str) -> NewRecord {
    NewRecord::new(RecordKind::Json, name.as_bytes())
}

async fn send(spool: &Spool, name: &str) -> Result<Taken, LogError> {
    spool.append(SOURCE, vec![record(name)]).await
}

/// The append that meets the outage fails: whether it arrived is not known.
async fn cut(spool: &Spool, line: &Line) {
    line.set(Mood::Away);
    assert!(matches!(send(spool, "never").await, Err(LogError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_the_log_is_away_is_on_disk_and_then_in_the_log_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let line = Line::open(dir.path());
    let spool = spool(dir.path(), &line, MIB);
    let _draining = spool.drain();
    let all = names(0..60);
    assert_eq!(send(&spool, &all[0]).await.unwrap(), Taken::Logged);
    cut(&spool, &line).await;
    for name in &all[1..] {
        assert_eq!(send(&spool, name).await.unwrap(), Taken::Spooled);
    }
    assert_eq!(line.events(), all[..1]);
    assert!(spool.held().get() > 0);
    line.set(Mood::Well);
    line.await_events(&all).await;
    while send(&spool, "after").await.unwrap() == Taken::Spooled {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while spool.held().get() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_a_part_arrived_unheard_is_completed_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let line = Line::open(dir.path());
    let spool = spool(dir.path(), &line, MIB);
    cut(&spool, &line).await;
    // Two that are alike: each is to arrive.
    let all = [names(0..10), names(0..1), names(10..20)].concat();
    for name in &all {
        assert_eq!(send(&spool, name).await.unwrap(), Taken::Spooled);
    }
    line.set(Mood::Well);
    let _draining = spool.drain();
    line.await_events(&all).await;

    cut(&spool, &line).await;
    let more = names(20..25);
    for name in &more {
        assert_eq!(send(&spool, name).await.unwrap(), Taken::Spooled);
    }
    line.set(Mood::Torn);
    while line.mood.load(Ordering::SeqCst) != Mood::Away as u8 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(line.events().len(), all.len() + 1);
    line.set(Mood::Well);
    line.await_events(&[all, more].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_part_of_a_batch_had_arrived_when_the_process_died_the_next_one_appends_the_rest() {
    for arrived in [0, 1, 3, 5] {
        let dir = tempfile::tempdir().unwrap();
        let all = names(0..5);
        let line = Line::open(dir.path());
        {
            let spool = spool(dir.path(), &line, MIB);
            cut(&spool, &line).await;
            for name in &all {
                send(&spool, name).await.unwrap();
            }
            spool.close();
        }
        // As it is noted before the batch is appended.
        let ends = line.log.ends(SOURCE).unwrap();
        let file = dir.path().join("spool/drained.json");
        let mut noted: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        noted["sources"]["1"] = serde_json::json!({
            "next": 0, "in_flight": { "end": 5, "log_end": ends.end.0, "at_ms": Millis::now().0 }
        });
        std::fs::write(&file, noted.to_string()).unwrap();
        if arrived > 0 {
            line.log.append(SOURCE, all[..arrived].iter().map(|name| record(name)).collect()).await.unwrap();
        }
        line.set(Mood::Well);
        let spool = spool(dir.path(), &line, MIB);
        assert!(spool.held().get() > 0);
        let _draining = spool.drain();
        line.await_events(&all).await;
        while spool.held().get() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Nothing comes after that.
        assert_eq!(line.events(), all, "{arrived} had arrived");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_and_has_room_again_when_it_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let line = Line::open(dir.path());
    let spool = spool(dir.path(), &line, 1_000);
    cut(&spool, &line).await;
    let mut taken = Vec::new();
    let refusal = loop {
        let name = format!("event {}", taken.len());
        match send(&spool, &name).await {
            Ok(_) => taken.push(name),
            Err(error) => break error,
        }
    };
    assert!(refusal.to_string().contains("of 1000 bytes"), "{refusal}");
    assert!(taken.len() > 5 && taken.len() < 20, "{}", taken.len());
    let _draining = spool.drain();
    line.set(Mood::Well);
    line.await_events(&taken).await;
    while spool.held().get() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cut(&spool, &line).await;
    assert_eq!(send(&spool, "again").await.unwrap(), Taken::Spooled);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spooled_for_one_log_does_not_go_to_another() {
    let dir = tempfile::tempdir().unwrap();
    drop(spool(dir.path(), &Line::open(dir.path()), MIB));
    let other = Line::open(&dir.path().join("other"));
    let options = SpoolOptions { dir: dir.path().join("spool"), max_bytes: MIB };
    let error = Spool::open(&options, other).err().unwrap().to_string();
    assert!(error.contains("choose another directory"), "{error}");
}
