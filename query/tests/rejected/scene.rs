//! Real folds over real logs and a real store, and two query services over them, as two processes would have.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use aggregator::embedded::StoreOptions;
use aggregator::owner::OwnerOptions;
use aggregator::{Backends, EmbeddedStore, Workers};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use ingest::embedded::LogOptions;
use ingest::{Appended, EmbeddedLog, EventLog};
use query::{QueryLimits, QueryService, not_found, router};
use schemas::{FoldSettings, Millis, NewRecord, RecordKind, Source};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tower::ServiceExt;

pub(crate) const DAY_MS: i64 = 86_400_000;
const LETTERS: Source = Source(0);

pub(crate) struct Scene {
    pub(crate) backends: Backends,
    #[allow(dead_code, reason = "another test needs it")]
    pub(crate) services: [Arc<QueryService>; 2],
    workers: Option<Workers>,
    routers: [Router; 2],
    _dir: tempfile::TempDir,
}

pub(crate) fn now() -> i64 {
    Millis::now().0
}

/// An event that was viewed at some time.
pub(crate) fn event(id: &str, video: &str, ts: i64) -> Value {
    json!({"event_id": id, "video_id": video, "ts": ts})
}

impl Scene {
    /// Two sources, each of which has one record: the tick of a source that was empty.
    pub(crate) async fn start() -> Self {
        Self::with(FoldSettings { sources: 2, ..FoldSettings::default() }).await
    }

    /// The same by other rules.
    pub(crate) async fn with(settings: FoldSettings) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let log = EmbeddedLog::open(&LogOptions::new(dir.path().join("views"), NonZeroU32::new(2).unwrap())).unwrap();
        let dead_letters = EmbeddedLog::open(&LogOptions::new(dir.path().join("rejected"), NonZeroU32::MIN)).unwrap();
        let store = EmbeddedStore::open(StoreOptions::new(dir.path().join("store"), log.id())).unwrap();
        let backends = Backends { log: Arc::new(log), dead_letters: Arc::new(dead_letters), store: Arc::new(store) };
        let service = || {
            let limits = QueryLimits { cache_bytes: 0, ..QueryLimits::default() };
            let service = QueryService::new(Arc::clone(&backends.store), Arc::clone(&backends.log), settings.clone(), limits);
            Arc::new(service.with_dead_letters(Arc::clone(&backends.dead_letters)))
        };
        let services = [service(), service()];
        let routers = services.clone().map(|service| router(service).fallback(not_found));
        let options = OwnerOptions { flush_interval: Duration::from_millis(20), ..OwnerOptions::default() };
        let workers = Workers::start(&backends, backends.log.join().unwrap(), &settings, options, 2, &Handle::current()).unwrap();
        let scene = Self { backends, services, workers: Some(workers), routers, _dir: dir };
        let ticked = async {
            while (0..2).any(|source| scene.backends.log.ends(Source(source)).unwrap().end.0 == 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(50), ticked).await.unwrap();
        scene
    }

    /// Appends events to a source, each a line of one record.
    pub(crate) async fn append(&self, source: u32, events: &[Value]) -> Appended {
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        self.append_raw(source, RecordKind::Ndjson, lines.as_bytes()).await
    }

    pub(crate) async fn append_raw(&self, source: u32, kind: RecordKind, payload: &[u8]) -> Appended {
        self.backends.log.append(Source(source), vec![NewRecord::new(kind, payload)]).await.unwrap()
    }

    /// Appends to the dead-letter log.
    pub(crate) async fn note(&self, payload: Vec<u8>) {
        self.backends.dead_letters.append(LETTERS, vec![NewRecord::new(RecordKind::Json, payload)]).await.unwrap();
    }

    /// Waits until everything in the log is counted.
    pub(crate) async fn counted(&self) {
        let ends = [0, 1].map(|source| self.backends.log.ends(Source(source)).unwrap().end);
        let all = async {
            loop {
                let checkpoints = self.backends.store.read_checkpoints().await.unwrap();
                let next = |source: u32| checkpoints.iter().find(|(of, _)| of.0 == source).map(|(_, checkpoint)| checkpoint.next_offset);
                if (0..2).zip(ends).all(|(source, end)| next(source) >= Some(end)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(50), all).await.unwrap();
    }

    /// No more folding, as if all aggregators had died.
    pub(crate) async fn stop_folding(&mut self) {
        let workers = self.workers.take().unwrap();
        assert!(tokio::task::spawn_blocking(move || workers.drain(Duration::from_secs(30))).await.unwrap());
    }

    /// Asks the first or the second service.
    pub(crate) async fn send(&self, service: usize, method: Method, uri: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json");
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.routers[service].clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// An answer of another form than JSON.
    pub(crate) async fn bytes(&self, uri: &str) -> (HeaderMap, Bytes) {
        let response = self.routers[0].clone().oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200, "{uri}");
        let headers = response.headers().clone();
        (headers, to_bytes(response.into_body(), 1 << 24).await.unwrap())
    }

    pub(crate) async fn get(&self, uri: &str) -> Value {
        let (status, body) = self.send(0, Method::GET, uri, None).await;
        assert_eq!(status, 200, "{uri}: {body}");
        body
    }

    /// One request to retry.
    pub(crate) async fn retry(&self, service: usize, ask: Value) -> Value {
        let (status, body) = self.send(service, Method::POST, "/v1/rejected/retry", Some(ask.clone())).await;
        assert_eq!(status, 200, "{ask}: {body}");
        body
    }

    /// Retries until nothing is left undone, as the command does.
    pub(crate) async fn retry_all(&self, service: usize, ask: Value) {
        let mut ask = ask;
        ask["dry_run"] = json!(false);
        loop {
            let (status, answer) = self.send(service, Method::POST, "/v1/rejected/retry", Some(ask.clone())).await;
            if status == 503 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            assert_eq!(status, 200, "{answer}");
            ask["cursor"] = answer["cursor"].clone();
            if answer["cursor"].is_null() {
                if answer["unfinished"] == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// All views ever counted of a video.
    pub(crate) async fn views(&self, video: &str) -> i64 {
        self.get(&format!("/v1/videos/{video}")).await["views"]["all_time"].as_i64().unwrap()
    }

    /// What became of the events of both sources by the tally: counted, duplicate, rejected.
    pub(crate) async fn tally(&self) -> [i64; 3] {
        let status = self.get("/v1/status").await;
        ["counted", "duplicate", "rejected"].map(|name| status["totals"]["tally"][name].as_i64().unwrap())
    }
}
