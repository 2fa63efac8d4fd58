//! What a long top list costs on the embedded store: its first making, one with the sums of the days at rest kept, and what others wait meanwhile.
//!
//! ```sh
//! cargo run --release --package tallymark-query --example top_rate [-- VIDEOS DAYS SOURCES]
//! ```
//!
//! Every video has views on every day in every source. Asked is for a list over these days, which is compared with as many before.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::embedded::StoreOptions;
use aggregator::{CountStore, EmbeddedStore};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use ingest::EmbeddedLog;
use ingest::EventLog;
use ingest::embedded::LogOptions;
use query::{QueryLimits, QueryService, router};
use schemas::{
    CellKey, Checkpoint, Counts, Dimension, Entity, FoldSettings, Millis, Minute, Offset, Row, Source, Stamp, StoredRow, Tally, Tier,
};
use tower::ServiceExt;

const DAY: i32 = 1_440;
const BATCH_ROWS: u32 = 20_000;

#[tokio::main]
async fn main() {
    let args: Vec<u32> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let (videos, days, sources) = (arg(&args, 0, 100_000), arg(&args, 1, 30), arg(&args, 2, 2));
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (app, end) = filled(dir.path(), videos, days, sources).await;
    let begin = end.plus(-i32::try_from(days).unwrap() * DAY);
    println!("{videos} videos, {days} days, {sources} sources: {} rows; {} MiB resident", videos * days * sources, resident_mib());

    let uri = format!("/v1/top/videos?start={}&end={}", begin.start().0 / 1_000, end.start().0 / 1_000);
    let others = tokio::spawn(ask_others(app.clone()));
    let first = time(&app, &uri).await;
    let mut waits = others.await.unwrap();
    waits.sort_unstable();
    println!("first making: {:.2} s; {} MiB resident", first.as_secs_f64(), resident_mib());
    let of = |part: usize| waits.get(waits.len() * part / 1_000).copied().unwrap_or_default().as_secs_f64() * 1_000.0;
    println!("{} others asked meanwhile: median {:.2} ms, 99 % {:.2} ms, longest {:.2} ms", waits.len(), of(500), of(990), of(999));
    println!("kept: {:.3} ms", time(&app, &uri).await.as_secs_f64() * 1_000.0);
    // Another order is another list, of the same sums.
    let again = time(&app, &format!("{uri}&sort=rising&limit=100")).await;
    println!("made again with the days at rest kept: {:.3} s; {} MiB resident", again.as_secs_f64(), resident_mib());
    let report = time(&app, &format!("/v1/reports/{}?names=false&format=csv", &begin.to_string()[..10])).await;
    println!("report of a day as CSV: {:.2} s; {} MiB resident", report.as_secs_f64(), resident_mib());
}

fn arg(args: &[u32], at: usize, default: u32) -> u32 {
    args.get(at).copied().unwrap_or(default)
}

/// The service over a store with a day cell for each video, day and source, and the end of the last day.
async fn filled(dir: &Path, videos: u32, days: u32, sources: u32) -> (Router, Minute) {
    let log = Arc::new(EmbeddedLog::open(&LogOptions::new(dir.join("log"), NonZeroU32::new(sources).unwrap())).unwrap());
    let store = Arc::new(EmbeddedStore::open(StoreOptions::new(dir.join("store"), log.id())).unwrap());
    let end = Tier::Day.bucket(Minute::of(Millis::now())).start;
    for day in 1..=i32::try_from(days).unwrap() {
        let start = end.plus(-day * DAY);
        for source in 0..sources {
            for first in (0..videos).step_by(usize::try_from(BATCH_ROWS).unwrap()) {
                let rows = (first..(first + BATCH_ROWS).min(videos)).map(|video| cell(video, start, source));
                store.write_rows(Arc::new(rows.collect())).await.unwrap();
            }
        }
    }
    for source in 0..sources {
        store.write_checkpoint(Source(source), checkpoint(end)).await.unwrap();
    }
    let limits = QueryLimits { timeout: Duration::from_secs(600), ..QueryLimits::default() };
    (router(Arc::new(QueryService::new(store, log, FoldSettings::default(), limits))), end)
}

fn cell(video: u32, start: Minute, source: u32) -> (CellKey, StoredRow) {
    let views = i64::from(video.wrapping_mul(2_654_435_761) % 1_000) + 1;
    let counts = Counts { gross: views, valid: views, engaged: 0 };
    let bucket = Tier::Day.bucket(start);
    let row = Row { counts, version: Offset(1), through: bucket.end().start(), mark: None };
    let key = CellKey { entity: Entity::new(Dimension::Video, &format!("video-{video:07}")), bucket, source: Source(source) };
    (key, StoredRow { stamp: Stamp(1), row })
}

fn checkpoint(closed: Minute) -> Checkpoint {
    let at = closed.start();
    Checkpoint {
        next_offset: Offset(1),
        warm_from: Offset(0),
        stamp: Stamp(1),
        clock: at,
        append_time: at,
        closed: at,
        adjustments: 0,
        tally: Tally::default(),
        settings: FoldSettings::default(),
    }
}

async fn time(app: &Router, uri: &str) -> Duration {
    let begun = Instant::now();
    let response = app.clone().oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{uri}");
    to_bytes(response.into_body(), usize::MAX).await.unwrap();
    begun.elapsed()
}

/// Asks for the views of other videos for two seconds: how long each waited.
async fn ask_others(app: Router) -> Vec<Duration> {
    let begun = Instant::now();
    let mut waits = Vec::new();
    for video in 0u32.. {
        if begun.elapsed() > Duration::from_secs(2) {
            break;
        }
        waits.push(
            time(
                &app,
                &format!("/v1/videos/video-{video:07}/views?step=1d&start={}", Minute::of(Millis::now()).plus(-7 * DAY).start().0 / 1_000),
            )
            .await,
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    waits
}

/// This process's memory.
fn resident_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * 4 / 1_024)
}
