//! What the tests of the collector share: it over a real log, and questions to it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use ingest::collect::enrich::Enrichment;
use ingest::collect::{self, Collector, Limits};
use ingest::embedded::LogOptions;
use ingest::{EmbeddedLog, EventLog, conformance};
use prometheus_client::registry::Registry;
use schemas::partition::Partitioner;
use schemas::view_batch::Whole;
use schemas::{Offset, RecordKind, Source, ViewBatch};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tower::ServiceExt;

pub(crate) const SOURCES: NonZeroU32 = NonZeroU32::new(4).unwrap();

pub(crate) struct Rig {
    pub(crate) collector: Arc<Collector>,
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) registry: Registry,
    _dir: TempDir,
}

pub(crate) fn rig(limits: Limits) -> Rig {
    rig_with_queue(limits, 64 << 20)
}

pub(crate) fn rig_with_queue(limits: Limits, queue_bytes: usize) -> Rig {
    rig_of(limits, queue_bytes, NonZeroU32::MIN, Enrichment::default(), |log| log)
}

/// A collector that spreads a video's events, enriches them, and reaches the log as `reach` says.
pub(crate) fn rig_of(
    limits: Limits,
    queue_bytes: usize,
    spread: NonZeroU32,
    enrichment: Enrichment,
    reach: impl FnOnce(Arc<dyn EventLog>) -> Arc<dyn EventLog>,
) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(EmbeddedLog::open(&LogOptions { queue_bytes, ..LogOptions::new(dir.path(), SOURCES) }).unwrap());
    let partitioner = Partitioner { sources: SOURCES, spread };
    let collector = Arc::new(Collector::new(reach(Arc::clone(&log) as Arc<dyn EventLog>), partitioner, limits).enriching(enrichment));
    let mut registry = Registry::default();
    collector.metrics().register(&mut registry);
    Rig { collector, log, registry, _dir: dir }
}

impl Rig {
    pub(crate) async fn post(&self, query: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(format!("/v1/events{query}")).header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap();
        self.send(request).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(collect::router(Arc::clone(&self.collector)).oneshot(request).await.unwrap()).await
    }

    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = collect::router(Arc::clone(&self.collector));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// Every event in the log: its source, whether it is historical, and its JSON.
    pub(crate) fn lines(&self) -> Vec<(Source, bool, String)> {
        let mut found = Vec::new();
        for source in (0..SOURCES.get()).map(Source) {
            let limit = conformance::UNLIMITED;
            self.log
                .read(source, Offset(0), limit, &mut |record| {
                    assert_eq!(record.kind, RecordKind::ViewBatch);
                    let text = |whole: Whole<'_>| (source, record.historical, String::from_utf8(whole.to_json()).unwrap());
                    found.extend(ViewBatch::read(record.payload).unwrap().wholes().map(text));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        found
    }

    pub(crate) fn metric(&self, line_start: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(line_start)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) async fn until_metric(&self, line_start: &str, enough: impl Fn(u64) -> bool) {
        let reached = async {
            while !enough(self.metric(line_start)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect(line_start);
    }
}

pub(crate) const IN_FLIGHT: &str = "collect_in_flight_body_bytes";

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<String>,
    pub(crate) allow: Option<String>,
    pub(crate) content_type: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    async fn of(response: Response<Body>) -> Self {
        let text = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (retry_after, allow) = (text(header::RETRY_AFTER), text(header::ALLOW));
        let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Self { status, retry_after, allow, content_type, headers, body: serde_json::from_slice(&bytes).unwrap() }
    }

    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, kind: &str) {
        assert_eq!((self.status.as_u16(), self.body["type"].as_str()), (status, Some(format!("/problems/{kind}").as_str())), "{self:?}");
        assert_eq!(self.content_type, "application/problem+json");
    }
}

pub(crate) fn event(id: &str) -> String {
    format!(r#"{{"event_id":"{id}","video_id":"v{id}","ts":1763642096789}}"#)
}

pub(crate) fn small() -> Limits {
    Limits {
        max_body_bytes: 64 * 1024,
        max_decoded_bytes: 64 * 1024,
        max_in_flight_bytes: 128 * 1024,
        max_events: 100,
        body_timeout: Duration::from_secs(20),
        ..Limits::default()
    }
}
