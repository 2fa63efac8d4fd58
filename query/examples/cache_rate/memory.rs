//! What the counts of hot videos take of memory: everything that a dashboard asks of each, held at once.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use chrono_tz::Tz;
use ingest::EmbeddedLog;
use query::QueryLimits;
use query::cache::Cache;
use query::calendar::{Step, boundaries};
use query::metrics::CacheMetrics;
use schemas::{Dimension, Entity, Minute, Tier};

use crate::{DAY, Place};

/// What the pieces of an instance may take here, in bytes.
const BYTES: usize = 256 << 20;

/// What was found.
pub(crate) struct Memory {
    videos: u64,
    /// What the process grows by with each video, in bytes.
    grown: f64,
    /// What the cache says that it holds of each video, in bytes.
    held: f64,
    /// The pieces of each video.
    pieces: f64,
    /// Which part of the pieces was still held when all had been asked for.
    kept: f64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: f64| bytes * self.videos as f64 / f64::from(1 << 20);
        write!(
            f,
            "hot_videos_memory {:.1} MiB for {} videos, {:.1} by the cache's own weight ",
            mib(self.grown),
            self.videos,
            mib(self.held)
        )?;
        write!(f, "({:.0} and {:.0} bytes each); {:.1} pieces of each, ", self.grown, self.held, self.pieces)?;
        write!(f, "{:.2} % of them still held in {} MiB", self.kept * 100.0, BYTES >> 20)
    }
}

/// Asks a cache for what is hot of so many videos, by so many of a dashboard's questions, and then once more.
///
/// The growth is that of the last nine tenths: by then the store, the runtime and the allocator have what they need for themselves.
pub(crate) async fn measure(place: &Place, videos: u64, asked: usize) -> Memory {
    let (metrics, began) = (CacheMetrics::default(), Instant::now());
    // A quarter goes to rendered answers.
    let limits = QueryLimits { cache_bytes: BYTES / 3 * 4, ..QueryLimits::default() };
    let log = Arc::<EmbeddedLog>::clone(&place.log);
    let cache = Arc::new(Cache::new(Arc::clone(&place.store), log, place.settings.clone(), &limits, metrics.clone(), began));
    let questions = questions(Minute::of(place.now).plus(1));
    let ask = async |videos: Range<u64>| {
        for n in videos {
            let entity = Entity::new(Dimension::Video, &format!("video-{n:06}"));
            for ranges in questions.iter().take(asked) {
                // Always in the first epoch: what is held is hit, open or not.
                cache.sums(&entity, ranges, place.now, began).await.unwrap();
            }
        }
        (resident_bytes(), cache.held_bytes() as f64, metrics.pieces().1 as f64)
    };
    let first = videos / 10;
    let (grown_first, held_first, _) = ask(0..first).await;
    let (grown, held, read) = ask(first..videos).await;
    let (_, _, read_again) = ask(0..videos).await;
    let rest = (videos - first) as f64;
    Memory {
        videos,
        grown: (grown - grown_first) / rest,
        held: (held - held_first) / rest,
        pieces: read / videos as f64,
        kept: 1.0 - (read_again - read) / read,
    }
}

/// What a dashboard asks of a video: all time, today and the last hour; a day by hour; 30 days by day.
fn questions(end: Minute) -> [Vec<(Minute, Minute)>; 3] {
    let today = Tier::Day.bucket(end).start;
    let by = |step: Step, start: Minute| {
        let all = boundaries(step, Tz::UTC, start, end, 1_000).unwrap();
        all.windows(2).map(|pair| (pair[0], pair[1])).collect()
    };
    [
        vec![(Minute::MIN, Minute::MAX), (today, today.plus(DAY)), (end.plus(-60), end)],
        by(Step::Hour, end.plus(-DAY)),
        by(Step::Day, end.plus(-30 * DAY)),
    ]
}

/// What the process has in memory.
fn resident_bytes() -> f64 {
    let pages: f64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096.0
}
