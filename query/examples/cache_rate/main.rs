//! What the cache costs and saves, on this machine:
//!
//! ```text
//! cargo run --release -p tallymark-query --example cache_rate            # requests a second, beside a bare handler
//! cargo run --release -p tallymark-query --example cache_rate -- memory  # 100,000 hot videos; or so many, by so many questions: memory 50000 1
//! ```
//!
//! The first asks the whole router for 30 days by day, in one thread and without a network: what is left beside it is the server's own work
//! on a connection. The second fills a cache of 256 MiB with what a dashboard asks of each video (all time, today, the last hour, 24 hours by hour, 30 days by
//! day), and says in one line what the process has grown by, what the cache believes, and how many of the pieces are still held.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measurement stops by panicking"
)]

mod memory;
mod same;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use aggregator::embedded::StoreOptions;
use aggregator::{CountStore, EmbeddedStore};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use axum::routing::get;
use ingest::embedded::LogOptions;
use ingest::{EmbeddedLog, EventLog};
use query::{QueryLimits, QueryService, router};
use schemas::{CellKey, Checkpoint, Counts, FoldSettings, Millis, Minute, Offset, Row, Source, Stamp, StoredRow, Tally, Tier};
use tower::ServiceExt;

use same::Same;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Unless another number is given.
const VIDEOS: u64 = 100_000;
const DAY: i32 = 1_440;

/// A store in which each video has some views in every minute of the last 31 days.
struct Place {
    log: Arc<EmbeddedLog>,
    store: Arc<dyn CountStore>,
    settings: FoldSettings,
    now: Millis,
    _dir: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::MIN)).unwrap());
        let store = EmbeddedStore::open(StoreOptions::new(dir.path().join("store"), log.id())).unwrap();
        let (now, settings) = (Millis::now(), FoldSettings { sources: 1, ..FoldSettings::default() });
        let closed = Minute::of(now);
        for tier in Tier::ALL {
            let (mut bucket, mut rows) = (tier.bucket(closed.plus(-31 * DAY)), Vec::new());
            while bucket.start <= closed {
                let minutes = i64::from(bucket.end().min(closed).0 - bucket.start.0).max(1);
                // From 50 to 250 views in a minute: two bytes, as of a video that is hot.
                let gross = minutes * 100 + i64::from(bucket.start.0 / 60 % 100) * minutes;
                let row =
                    Row { counts: Counts { gross, valid: gross, engaged: 0 }, version: Offset(1), through: closed.start(), mark: None };
                rows.push((CellKey { entity: same::only(), bucket, source: Source(0) }, StoredRow { stamp: Stamp(1), row }));
                bucket = bucket.next();
            }
            store.write_rows(Arc::new(rows)).await.unwrap();
        }
        store.write_checkpoint(Source(0), checkpoint(closed, now, &settings)).await.unwrap();
        Self { log, store: Arc::new(Same(store)), settings, now, _dir: dir }
    }
}

fn checkpoint(closed: Minute, now: Millis, settings: &FoldSettings) -> Checkpoint {
    Checkpoint {
        next_offset: Offset(1),
        warm_from: Offset(0),
        stamp: Stamp(1),
        clock: now,
        append_time: now,
        closed: closed.start(),
        adjustments: 0,
        tally: Tally::default(),
        settings: settings.clone(),
    }
}

async fn rate(place: &Place) {
    let (store, log) = (Arc::clone(&place.store), Arc::<EmbeddedLog>::clone(&place.log));
    let service = Arc::new(QueryService::new(store, log, place.settings.clone(), QueryLimits::default()));
    let ours = router(service);
    let end = place.now.0 / 1_000;
    let path = format!("/v1/videos/v/views?start={}&end={end}&step=1d", end - 30 * 86_400);
    let request = || Request::builder().uri(&path).header(header::ACCEPT, "*/*").body(Body::empty()).unwrap();
    let bytes = to_bytes(ours.clone().oneshot(request()).await.unwrap().into_body(), 1 << 20).await.unwrap();
    println!("an answer of {} bytes", bytes.len());
    let body = bytes.clone();
    let bare = Router::new().route("/v1/videos/{id}/views", get(async move || ([(header::CONTENT_TYPE, "application/json")], body)));
    for round in 0..5 {
        for (name, router) in [("bare", &bare), ("ours", &ours)] {
            const REQUESTS: u32 = 200_000;
            let began = Instant::now();
            for _ in 0..REQUESTS {
                let response = router.clone().oneshot(request()).await.unwrap();
                assert!(response.status().is_success());
            }
            println!("round {round}: {name} {:.0} ns a request", began.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS));
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let place = Place::new().await;
        let number = |at: usize| std::env::args().nth(at).map(|number| number.parse::<u32>().unwrap());
        let (videos, asked) = (number(2).map_or(VIDEOS, u64::from), number(3).map_or(usize::MAX, |asked| usize::try_from(asked).unwrap()));
        if std::env::args().nth(1).as_deref() == Some("memory") {
            println!("{}", memory::measure(&place, videos, asked).await);
        } else {
            rate(&place).await;
        }
    });
}
