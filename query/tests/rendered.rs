//! Answers that are given again: the same bytes for as long as they are true, and 304 to whoever has them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "what the site can do is shared")]

mod site;

use std::sync::Arc;

use aggregator::{CountStore, Touched};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use prometheus_client::registry::Registry;
use query::QueryLimits;
use schemas::{CellKey, Counts, FoldSettings, Millis, Offset, Row, Source, Stamp, StoredRow, Tier};
use tower::ServiceExt;

use site::{Site, minute, video};

const COMPLETE: &str = "/v1/videos/v/views?start=2026-05-05T10:00:00Z&end=2026-05-05T12:00:00Z&step=1h";

async fn site() -> Site {
    let site = Site::open(FoldSettings::default(), QueryLimits::default());
    site.count(&video("v"), &[("2026-05-05T10:00:00Z", 1), ("2026-05-05T11:59:00Z", 2)]).await;
    site.close_all("2026-05-05T13:00:00Z").await;
    site
}

impl Site {
    async fn having(&self, uri: &str, tag: &str) -> (StatusCode, HeaderMap, Bytes) {
        let request = Request::builder().uri(uri).header(header::IF_NONE_MATCH, tag).body(Body::empty()).unwrap();
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        (head.status, head.headers, to_bytes(body, 1 << 20).await.unwrap())
    }

    /// The hour's row of a late event.
    async fn count_late(&self, at: &str, gross: i64) {
        let key = CellKey { entity: video("v"), bucket: Tier::Hour.bucket(minute(at)), source: Source(0) };
        let counts = Counts { gross, valid: gross, engaged: 0 };
        let row = Row { counts, version: Offset(2), through: Millis(i64::MAX), mark: None };
        self.store.write_rows(Arc::new(vec![(key, StoredRow { stamp: Stamp(2), row })])).await.unwrap();
    }

    fn hits_and_misses(&self) -> (u64, u64) {
        let mut registry = Registry::default();
        self.service.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap();
        (of("query_cache_hits_total"), of("query_cache_misses_total"))
    }
}

#[tokio::test]
async fn who_has_an_answer_is_told_so_whether_it_was_held_or_not() {
    let site = site().await;
    let (status, headers, body) = site.having(COMPLETE, "\"other\"").await;
    assert_eq!((status, headers[header::VARY].to_str().unwrap()), (StatusCode::OK, "accept"));
    assert!(String::from_utf8_lossy(&body).contains("\"total\":3"));
    let tag = headers[header::ETAG].to_str().unwrap().to_owned();
    for uri in [COMPLETE.to_owned(), format!("{COMPLETE}&")] {
        let (status, again, body) = site.having(&uri, &tag).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{uri}");
        assert_eq!((&again[header::ETAG], &again[header::CACHE_CONTROL]), (&headers[header::ETAG], &headers[header::CACHE_CONTROL]));
        assert!(!again.contains_key(header::CONTENT_TYPE));
    }
    assert_eq!(site.hits_and_misses(), (1, 1), "one question was asked twice and another once, of the same piece");
}

#[tokio::test]
async fn what_is_accepted_is_part_of_the_question() {
    let site = site().await;
    for accept in ["application/json", "text/csv", "application/json", "application/vnd.apache.arrow.stream"] {
        let response = site.ask(COMPLETE, accept).await;
        assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with(accept));
    }
    assert_eq!(site.ask(COMPLETE, "image/png").await.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn errors_are_not_kept_and_have_no_tag() {
    let site = site().await;
    let (status, headers, _) = site.having("/v1/videos/nobody", "*").await;
    assert_eq!((status, headers.get(header::ETAG)), (StatusCode::NOT_FOUND, None));
    site.count(&video("nobody"), &[("2026-05-05T10:00:00Z", 1)]).await;
    // The pieces of nobody were open, and may serve for the rest of an epoch.
    let asked = std::time::Instant::now();
    while site.get("/v1/videos/nobody").await.0 == StatusCode::NOT_FOUND {
        assert!(asked.elapsed().as_secs() < 5);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_late_event_shows_within_five_seconds_and_has_another_tag() {
    let site = site().await;
    let (_, before, _) = site.having(COMPLETE, "").await;
    let tag = before[header::ETAG].to_str().unwrap().to_owned();
    let touched = Touched { day: minute("2026-05-05T00:00:00Z").0.div_euclid(1_440), version: Offset(2), stamp: Stamp(2) };
    site.count_late("2026-05-05T10:00:00Z", 5).await;
    site.store.write_touched(Source(0), vec![touched]).await.unwrap();
    let announced = std::time::Instant::now();
    while site.having(COMPLETE, &tag).await.0 == StatusCode::NOT_MODIFIED {
        assert!(announced.elapsed().as_secs() < 5);
        tokio::task::yield_now().await;
    }
    let (_, body) = site.get(COMPLETE).await;
    assert_eq!(body["total"], 7);
}
