//! Hot results: pieces of series as they were read, shared by all questions that need them.
//!
//! ```text
//! question ──plan──> chunks ──┬── held and usable ────────────────────────┐
//!                             ├── being read for another question: waits ─┼──> sum
//!                             └── else: claimed, read in few slices ──────┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`chunk`] | what a piece is of, and its packed form. Pure |
//! | [`shelf`] | the pieces of one entity |
//! | [`touches`] | which days have changed late. Pure |
//! | [`view`] | watermarks and touches, once for each epoch; whether the store is away |
//! | [`fill`] | reading what is missing, once for all who wait |
//! | `rendered` | answers as they went out, above all this |
//!
//! **What is exact.** A piece is read by the [`Reader`](crate::read::Reader), with watermarks that were read before it, so it is what
//! an answer without a cache would have summed. A chunk that ended before `complete_through` of those watermarks is *sealed*: its
//! rollups hold all its minutes, and only late changes alter it. All others are *open*.
//!
//! **What is fresh.** Time is cut into epochs of 200 ms; an open piece serves questions of the epoch that its reading was asked for in,
//! and those that found it being read. A sealed piece serves until a change of one of its days is announced (the announcements are looked at
//! each second, before an answer is given); what began to be read before that was noticed is thrown away with it.
//! So an event shows within an epoch of being stored, and a late one within a second of its announcement.
//!
//! **A visible count never falls.** A chunk is read by one task at a time, and what is held of it is what the last such task read. So of two
//! answers to one question, one begun after the other was given, the second uses for each chunk the same reading or a later one
//! that began when the earlier had ended; and of two such readings the later never says less (see [`crate::read`]). A sum of parts none of which
//! falls does not fall. `complete` is said by the oldest watermarks of all pieces that were open.
//!
//! **When the store is away**, what is held still answers, and says how old it is: sealed pieces from the last look at the
//! announcements, once that is 5 s ago; open pieces from when they were read. What is not held is an error at once.

mod chunk;
mod fill;
pub(crate) mod rendered;
mod shelf;
mod touches;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aggregator::{CountStore, StoreError};
use futures_util::future::{BoxFuture, Shared};
use ingest::EventLog;
use schemas::{Entity, FoldSettings, Millis, Minute};
use tokio::sync::watch;

use self::chunk::Chunk;
use self::fill::Claims;
use self::shelf::{Piece, Shelf};
use self::view::{EPOCH, Present, View};
use crate::QueryLimits;
use crate::metrics::CacheMetrics;
use crate::plan::Kept;
use crate::read::{Cells, Question, ReadError, Reader, Sums, horizon};

/// Late changes show within this time. A sealed piece is stale when nobody could look for changes for longer.
pub const LATE_CHANGES_SHOW_WITHIN: Duration = Duration::from_secs(5);

/// One entity takes at most this part of the cache.
const ENTITY_PART: usize = 8;

/// A reading that all who need it wait for.
type Flight<T> = Shared<BoxFuture<'static, Result<T, StoreError>>>;

/// Sums from pieces that are held, and from the store.
pub struct Cache {
    store: Arc<dyn CountStore>,
    log: Arc<dyn EventLog>,
    settings: FoldSettings,
    reads_at_once: usize,
    bytes: usize,
    metrics: CacheMetrics,
    began: Instant,
    present: Mutex<Present>,
    away: watch::Sender<bool>,
    shelves: moka::sync::Cache<Entity, Arc<Shelf>>,
    claims: Mutex<Claims>,
}

impl Cache {
    /// A cache of as many bytes as `limits` give to pieces. `settings` are the fold's; time is counted from `began`.
    pub fn new(
        store: Arc<dyn CountStore>,
        log: Arc<dyn EventLog>,
        settings: FoldSettings,
        limits: &QueryLimits,
        metrics: CacheMetrics,
        began: Instant,
    ) -> Self {
        let bytes = limits.cache_bytes / 4 * 3;
        let shelves = moka::sync::Cache::builder()
            .max_capacity(u64::try_from(bytes).unwrap_or(u64::MAX))
            .weigher(|_: &Entity, shelf: &Arc<Shelf>| shelf.weight())
            .time_to_idle(Duration::from_secs(3_600))
            .build();
        Self {
            store,
            log,
            settings,
            reads_at_once: limits.reads_at_once,
            bytes,
            metrics,
            began,
            present: Mutex::default(),
            away: watch::Sender::new(false),
            shelves,
            claims: Mutex::new(HashMap::new()),
        }
    }

    /// The counts of `entity` in each of the half-open `ranges`, as [`Reader::sums`] would tell them. `now` is the wall clock, and `at`
    /// the same moment on the clock that never goes back.
    ///
    /// # Errors
    /// If a range needs buckets whose time to live has passed, or something is needed that is not held and the store does not tell.
    pub async fn sums(self: &Arc<Self>, entity: &Entity, ranges: &[(Minute, Minute)], now: Millis, at: Instant) -> Result<Sums, ReadError> {
        let (view, is_fresh) = self.view(at).await?;
        let clock = now.max(view.marks.clock);
        let question = Question::plan(ranges, &Kept { settings: &self.settings, clock })?;
        let last = horizon(clock, &self.settings);
        let wanted: BTreeSet<Chunk> = question.runs().flat_map(|run| Chunk::of(run, last)).collect();
        let mut gathered = Gathered::new(wanted);
        if is_fresh {
            self.gather(entity, &mut gathered, &view, clock).await?;
        } else {
            self.fall_back(entity, &mut gathered, view.epoch).ok_or_else(view::away)?;
        }
        let known = self.known_at(&gathered, at);
        if known.is_some() {
            self.metrics.stale.inc();
        }
        Ok(gathered.answer(&question, &view, known.map(|known| at.saturating_duration_since(known))))
    }

    /// About how many bytes the pieces take.
    pub fn held_bytes(&self) -> u64 {
        self.shelves.run_pending_tasks();
        self.shelves.weighted_size()
    }

    fn reader(&self) -> Reader<'_> {
        Reader { store: &*self.store, settings: &self.settings, sources: self.log.sources(), reads_at_once: self.reads_at_once }
    }

    /// Takes whatever is held for what is still missing; `None` if not all of it is.
    fn fall_back(&self, entity: &Entity, gathered: &mut Gathered, epoch: u32) -> Option<()> {
        if gathered.is_complete() {
            return Some(());
        }
        let shelf = self.shelves.get(entity)?;
        gathered.take(&shelf, epoch, |_| true, true);
        gathered.is_complete().then_some(())
    }

    /// Since when what was fallen back to may not be true any more; `None` if it is as true as anything.
    fn known_at(&self, gathered: &Gathered, at: Instant) -> Option<Instant> {
        let present = self.present();
        let looked = present.touches.looked().unwrap_or(self.began);
        let of = |piece: &Piece| match &piece.open {
            Some(view) => Some(view.began),
            None if present.touches.changed(piece.chunk) > piece.generation => Some(self.began + EPOCH * piece.epoch),
            None => (at.saturating_duration_since(looked) > LATE_CHANGES_SHOW_WITHIN).then_some(looked),
        };
        gathered.fallen_back().filter_map(of).min()
    }
}

/// The pieces of an answer, as they are found.
struct Gathered(Vec<(Chunk, Option<Found>)>);

struct Found {
    piece: Piece,
    /// Taken for want of a better one.
    fallen_back: bool,
}

impl Gathered {
    fn new(wanted: BTreeSet<Chunk>) -> Self {
        Self(wanted.into_iter().map(|chunk| (chunk, None)).collect())
    }

    fn is_complete(&self) -> bool {
        self.0.iter().all(|(_, found)| found.is_some())
    }

    fn missing(&self) -> impl Iterator<Item = Chunk> {
        self.0.iter().filter(|(_, found)| found.is_none()).map(|(chunk, _)| *chunk)
    }

    /// Takes what is on a shelf and usable; says how many pieces that were.
    fn take(&mut self, shelf: &Shelf, epoch: u32, usable: impl Fn(&Piece) -> bool, fallen_back: bool) -> u64 {
        let held = shelf.find(self.missing(), epoch);
        let places = self.0.iter_mut().filter(|(_, found)| found.is_none());
        let mut taken = 0;
        for ((_, place), piece) in places.zip(held) {
            *place = piece.filter(&usable).map(|piece| Found { piece, fallen_back });
            taken += u64::from(place.is_some());
        }
        taken
    }

    /// Takes a piece that was read, if it is one of the missing.
    fn put(&mut self, piece: &Piece) {
        if let Ok(at) = self.0.binary_search_by_key(&piece.chunk, |(chunk, _)| *chunk)
            && let Some((_, place @ None)) = self.0.get_mut(at)
        {
            *place = Some(Found { piece: piece.clone(), fallen_back: false });
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter().filter_map(|(_, found)| found.as_ref()).map(|found| &found.piece)
    }

    fn fallen_back(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter().filter_map(|(_, found)| found.as_ref()).filter(|found| found.fallen_back).map(|found| &found.piece)
    }

    fn answer(&self, question: &Question, view: &Arc<View>, stale: Option<Duration>) -> Sums {
        let mut cells = Cells::default();
        self.pieces().for_each(|piece| piece.chunk.unpack(&piece.packed, &mut cells));
        let views = self.pieces().filter_map(|piece| piece.open.as_ref()).chain([view]);
        let oldest = views.min_by_key(|view| view.epoch).unwrap_or(view);
        question.answer(&cells, Arc::clone(&oldest.marks), stale)
    }
}

fn broke_off() -> StoreError {
    StoreError::Unavailable("the reading broke off".to_owned())
}
