//! Owners that fold random events into a store, one step at a time, and a cache over it that is asked in between.
//!
//! What an answer may say: all events whose flush was stored before the time within which changes show, and none that was not
//! read. Once all is stored and that time has passed the two are one. And never less than the same question was answered before.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::CountStore;
use aggregator::owner::{Now, Owner, OwnerOptions, WriteKind};
use chrono_tz::Tz;
use ingest::embedded::LogOptions;
use ingest::{EmbeddedLog, Ends};
use query::QueryLimits;
use query::cache::Cache;
use query::calendar::{Step, boundaries};
use query::metrics::CacheMetrics;
use query::read::{ReadError, Sums};
use schemas::{Dimension, Entity, FoldSettings, Millis, Minute, Offset, Record, RecordKind, Source};

const SOURCES: NonZeroU32 = NonZeroU32::new(2).unwrap();
const VIDEOS: [&str; 2] = ["v", "w"];
pub(crate) const DAY_MS: i64 = 86_400_000;

/// A change shows when the announcements are looked at next, a second after the last look, and its epoch has passed.
const SHOWS_WITHIN_MS: i64 = 1_200;

/// Something happens.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A batch of events of a video: how long before now each happened.
    Events { source: usize, video: usize, before_ms: Vec<i64>, twice: bool, historical: bool },
    /// Time passes, and sources tick.
    Wait(i64),
    /// An owner does so many steps of what it has to do.
    Work { source: usize, steps: usize },
    /// Owners store all they have, and it shows.
    Settle,
    /// A question: an entity, where the range ends before (or after) now, how long it is, in minutes.
    Ask { entity: usize, end: i32, length: i32, step: usize, zone: usize },
}

/// A counted event.
struct Event {
    minute: Minute,
    video: usize,
    source: usize,
    offset: u64,
    /// When it was stored and announced.
    stored_ms: Option<i64>,
}

struct Seat {
    owner: Owner,
    next: u64,
}

pub(crate) struct World {
    store: Arc<dyn CountStore>,
    cache: Arc<Cache>,
    began: Instant,
    t0: Millis,
    elapsed_ms: i64,
    seats: Vec<Seat>,
    events: Vec<Event>,
    ids: u64,
    /// What questions were answered before.
    answered: HashMap<(usize, Minute, Minute), i64>,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(store: Arc<dyn CountStore>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), SOURCES)).unwrap();
        let (began, settings) = (Instant::now(), FoldSettings::default());
        let (limits, metrics) = (QueryLimits::default(), CacheMetrics::default());
        let cache = Cache::new(Arc::clone(&store), Arc::new(log), settings.clone(), &limits, metrics, began);
        // The wall's, as times to live of a real store count from it.
        let t0 = Millis::now();
        let now = Now { wall: t0, elapsed: Duration::ZERO };
        let options = OwnerOptions { tick_after: Duration::from_secs(1_000_000), ..OwnerOptions::default() };
        let ends = Ends { start: Offset(0), end: Offset(0) };
        let seat = |source| Seat { owner: Owner::new(Source(source), settings.clone(), options, None, ends, now).unwrap(), next: 0 };
        let seats = (0..SOURCES.get()).map(seat).collect();
        let (events, answered) = (Vec::new(), HashMap::new());
        Self { store, cache: Arc::new(cache), began, t0, elapsed_ms: 0, seats, events, ids: 0, answered, _dir: dir }
    }

    pub(crate) async fn run(&mut self, acts: &[Act]) {
        for source in 0..self.seats.len() {
            self.append(source, RecordKind::Tick, false, String::new());
        }
        self.settle().await;
        for act in acts {
            match act {
                Act::Events { source, video, before_ms, twice, historical } => self.events(*source, *video, before_ms, *twice, *historical),
                Act::Wait(ms) => {
                    self.elapsed_ms += ms;
                    (0..self.seats.len()).for_each(|source| self.append(source, RecordKind::Tick, false, String::new()));
                }
                Act::Work { source, steps } => {
                    for _ in 0..*steps {
                        self.work(*source).await;
                    }
                }
                Act::Settle => self.settle().await,
                Act::Ask { entity, end, length, step, zone } => {
                    self.ask(*entity, *end, *length, Step::ALL[*step], chrono_tz::TZ_VARIANTS[*zone]).await;
                }
            }
        }
        self.settle().await;
        for entity in 0..4 {
            self.ask(entity, 60, 1_200_000, Step::All, Tz::UTC).await;
        }
    }

    fn now(&self) -> Now {
        let elapsed = Duration::from_millis(u64::try_from(self.elapsed_ms).unwrap());
        Now { wall: self.t0.plus(self.elapsed_ms), elapsed }
    }

    fn append(&mut self, source: usize, kind: RecordKind, historical: bool, payload: String) {
        let now = self.now();
        let seat = &mut self.seats[source];
        let record = Record { offset: Offset(seat.next), append_time: now.wall, kind, historical, payload: payload.as_bytes() };
        seat.owner.record(&record, now).unwrap();
        seat.next += 1;
    }

    fn events(&mut self, source: usize, video: usize, before_ms: &[i64], twice: bool, historical: bool) {
        for before in before_ms {
            let at = self.now().wall.plus(-before);
            self.ids += 1;
            let json = format!(r#"{{"event_id":"e{}","video_id":"{}","space_id":"s","ts":{}}}"#, self.ids, VIDEOS[video], at.0);
            let offset = self.seats[source].next;
            self.events.push(Event { minute: Minute::of(at), video, source, offset, stored_ms: None });
            for _ in 0..=u8::from(twice) {
                self.append(source, RecordKind::Json, historical, json.clone());
            }
        }
    }

    /// One load, or one step of a flush. Says whether there was something to do.
    async fn work(&mut self, source: usize) -> bool {
        let now = self.now();
        let owner = &mut self.seats[source].owner;
        if let Some(load) = owner.poll_load(now) {
            let rows = self.store.read_cells(load.keys.clone()).await.unwrap();
            owner.loaded(&load, &rows);
            return true;
        }
        let Some(write) = owner.poll_write(now) else { return false };
        let as_source = Source(u32::try_from(source).unwrap());
        match write.what {
            WriteKind::DeadLetters(letters) => panic!("all events are counted, or duplicates: {letters:?}"),
            WriteKind::Rows(rows) => self.store.write_rows(rows).await.unwrap(),
            WriteKind::Touched(days) => self.store.write_touched(as_source, days).await.unwrap(),
            WriteKind::Checkpoint(checkpoint) => {
                let below = checkpoint.next_offset.0;
                self.store.write_checkpoint(as_source, *checkpoint).await.unwrap();
                let stored = self.events.iter_mut().filter(|event| event.source == source && event.offset < below);
                stored.for_each(|event| event.stored_ms = event.stored_ms.or(Some(self.elapsed_ms)));
            }
        }
        owner.written(write.id, now);
        true
    }

    async fn settle(&mut self) {
        // A flush is due a second after the last, and what came while one was under way is for the next.
        for _ in 0..2 {
            self.elapsed_ms += 1_000;
            for source in 0..self.seats.len() {
                while self.work(source).await {}
            }
        }
        self.elapsed_ms += SHOWS_WITHIN_MS;
        assert!(self.events.iter().all(|event| event.stored_ms.is_some()), "a flush takes all that was read");
    }

    async fn ask(&mut self, entity: usize, end: i32, length: i32, step: Step, tz: Tz) {
        self.elapsed_ms += 7;
        let now = self.now();
        let end = Minute::of(now.wall).plus(end);
        let start = end.plus(-length);
        let Ok(bounds) = boundaries(step, tz, start, end, 5_000) else { return };
        let ranges: Vec<_> = bounds.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let named = match entity {
            2 => Entity::new(Dimension::Space, "s"),
            3 => Entity::site(),
            video => Entity::new(Dimension::Video, VIDEOS[video]),
        };
        let sums = self.cache.sums(&named, &ranges, now.wall, self.began + now.elapsed).await.unwrap();
        assert_eq!(sums.standing.stale, None);
        let (least, most) = self.bounds(entity, &bounds);
        for ((range, counts), (least, most)) in ranges.iter().zip(&sums.counts).zip(least.into_iter().zip(most)) {
            let (gross, what) = (counts.gross, || format!("{named} {range:?} by {step:?} in {tz} after {} ms", now.elapsed.as_millis()));
            assert!((least..=most).contains(&gross), "{gross} is not in {least}..={most}: {}", what());
            let before = self.answered.insert((entity, range.0, range.1), gross).unwrap_or_default();
            assert!(before <= gross, "{gross} was {before}: {}", what());
        }
    }

    /// What each range holds at least and at most.
    fn bounds(&self, entity: usize, bounds: &[Minute]) -> (Vec<i64>, Vec<i64>) {
        let (mut least, mut most) = (vec![0; bounds.len() - 1], vec![0; bounds.len() - 1]);
        for event in self.events.iter().filter(|event| entity > 1 || event.video == entity) {
            let point = bounds.partition_point(|bound| *bound <= event.minute);
            if (1..bounds.len()).contains(&point) {
                most[point - 1] += 1;
                least[point - 1] += i64::from(event.stored_ms.is_some_and(|stored| stored + SHOWS_WITHIN_MS <= self.elapsed_ms));
            }
        }
        (least, most)
    }
}

/// Some views of the first video.
#[allow(dead_code, reason = "not every test asks for it")]
pub(crate) fn some_views() -> Act {
    Act::Events { source: 0, video: 0, before_ms: vec![0, 90_000, 7_200_000, 5 * DAY_MS], twice: true, historical: false }
}

#[allow(dead_code, reason = "not every test asks")]
impl World {
    /// All views of the first video, and for how long that has been stale.
    pub(crate) async fn total(&self) -> Result<(i64, Option<Duration>), ReadError> {
        let sums = self.all_time(VIDEOS[0]).await?;
        Ok((sums.counts[0].gross, sums.standing.stale))
    }

    /// A question that nobody has asked.
    pub(crate) async fn never_asked(&self) -> Result<Sums, ReadError> {
        self.all_time("nobody").await
    }

    async fn all_time(&self, video: &str) -> Result<Sums, ReadError> {
        let (now, entity) = (self.now(), Entity::new(Dimension::Video, video));
        self.cache.sums(&entity, &[(Minute::MIN, Minute::MAX)], now.wall, self.began + now.elapsed).await
    }

    /// Time passes.
    pub(crate) const fn wait(&mut self, ms: i64) {
        self.elapsed_ms += ms;
    }
}
