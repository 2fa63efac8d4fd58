//! A query service over a store and a log of its own, and what the tests do to it.

#![allow(dead_code, unreachable_pub, reason = "each test uses what it needs")]
#![allow(clippy::missing_panics_doc, missing_docs, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::sync::Arc;

use aggregator::embedded::StoreOptions;
use aggregator::{CountStore, EmbeddedStore};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use ingest::embedded::LogOptions;
use ingest::{EmbeddedLog, EventLog};
use query::{QueryLimits, QueryService, not_found, router};
use schemas::{
    CellKey, Checkpoint, Counts, Dimension, Entity, FoldSettings, Millis, Minute, Offset, Reason, Row, Source, Stamp, StoredRow, Tally,
    Tier,
};
use serde_json::Value;
use tower::ServiceExt;

/// A directory in memory where there is one: these tests ask what is read, not what outlives a crash.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub struct Site {
    pub store: Arc<EmbeddedStore>,
    pub log: Arc<EmbeddedLog>,
    pub service: Arc<QueryService>,
    pub router: Router,
    _dir: tempfile::TempDir,
}

impl Site {
    pub fn open(settings: FoldSettings, limits: QueryLimits) -> Self {
        let dir = scratch();
        let log = Arc::new(EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::new(2).unwrap())).unwrap());
        let store = Arc::new(EmbeddedStore::open(StoreOptions::new(dir.path().join("store"), log.id())).unwrap());
        let service = Arc::new(QueryService::new(store.clone(), log.clone(), settings, limits));
        let router = router(Arc::clone(&service)).fallback(not_found);
        Self { store, log, service, router, _dir: dir }
    }

    pub fn new() -> Self {
        Self::open(FoldSettings::default(), QueryLimits { cache_bytes: 0, ..QueryLimits::default() })
    }

    /// Writes the cells of an entity of source 0 in every tier, as if it had closed all its minutes.
    pub async fn count(&self, entity: &Entity, minutes: &[(&str, i64)]) {
        for (at, _) in minutes {
            for tier in Tier::ALL {
                let bucket = tier.bucket(minute(at));
                let held = minutes.iter().filter(|(other, _)| tier.bucket(minute(other)) == bucket).map(|(_, views)| views).sum();
                let through = if tier == Tier::Minute { Millis::NEVER } else { Millis(i64::MAX) };
                let counts = Counts { gross: held, valid: held, engaged: 0 };
                let key = CellKey { entity: entity.clone(), bucket, source: Source(0) };
                let row = StoredRow { stamp: Stamp(1), row: Row { counts, version: Offset(1), through, mark: None } };
                self.store.write_rows(Arc::new(vec![(key, row)])).await.unwrap();
            }
        }
    }

    pub async fn close(&self, source: u32, closed: &str, clock: &str) {
        let (closed, clock) = (time(closed), time(clock));
        let mut tally = Tally { counted: 5, duplicate: 2, ..Tally::default() };
        tally.reject(Reason::TooOld);
        let checkpoint = Checkpoint {
            next_offset: Offset(1),
            warm_from: Offset(0),
            stamp: Stamp(clock.0 * 1_000),
            clock,
            append_time: clock,
            closed,
            adjustments: 0,
            tally,
            settings: FoldSettings::default(),
        };
        self.store.write_checkpoint(Source(source), checkpoint).await.unwrap();
    }

    pub async fn close_all(&self, closed: &str) {
        for source in 0..2 {
            self.close(source, closed, closed).await;
        }
    }

    pub async fn ask(&self, uri: &str, accept: &str) -> Response {
        let request = Request::builder().uri(uri).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(&self, method: Method, uri: &str, body: impl Into<Body>) -> Response {
        let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, uri: &str) -> (StatusCode, Value) {
        answer(self.send(Method::GET, uri, Body::empty()).await).await
    }

    pub async fn put(&self, uri: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        answer(self.send(Method::PUT, uri, body).await).await
    }

    /// A problem's status and the last part of its type.
    pub async fn problem(&self, uri: &str) -> (u16, String) {
        let response = self.send(Method::GET, uri, Body::empty()).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{uri}");
        let (status, body) = answer(response).await;
        assert_eq!(body["status"], status.as_u16(), "{uri}");
        (status.as_u16(), body["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned())
    }
}

pub async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

pub fn time(text: &str) -> Millis {
    Millis::parse_rfc3339(text).unwrap()
}

pub fn minute(text: &str) -> Minute {
    Minute::of(time(text))
}

pub fn video(id: &str) -> Entity {
    Entity::new(Dimension::Video, id)
}
