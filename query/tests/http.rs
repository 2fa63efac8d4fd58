//! The routes of the query service over a real store and a real log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use aggregator::CountStore;
use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
use ingest::EventLog;
use prometheus_client::registry::Registry;
use query::QueryLimits;
use schemas::{
    Bucket, CellKey, Counts, Dimension, Entity, FoldSettings, Millis, Minute, NewRecord, Offset, RecordKind, Row, Source, Stamp, StoredRow,
    Tier,
};
use serde_json::{Value, json};
use site::{Site, answer, minute, video};

mod site;

#[tokio::test]
async fn a_series_shows_what_was_asked_and_how_complete_it_is() {
    let site = Site::new();
    site.count(&video("v"), &[("2026-05-05T10:00:00Z", 1), ("2026-05-05T10:59:00Z", 2), ("2026-05-05T12:30:00Z", 4)]).await;
    site.close(0, "2026-05-05T13:00:00Z", "2026-05-14T11:00:00.001Z").await;
    let uri = "/v1/videos/v/views?start=2026-05-05T10:00:30Z&end=2026-05-05T13:00:00Z&step=1h";
    let (_, before) = site.get(uri).await;
    assert_eq!(
        (&before["complete_through"], &before["points"][0]["complete"]),
        (&Value::Null, &false.into()),
        "source 1 has no checkpoint"
    );
    assert_eq!(before["total"], 7);
    site.close(1, "2026-05-05T12:00:00Z", "2026-05-12T11:00:00.001Z").await;
    let (status, body) = site.get(uri).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        json!({
            "entity": {"dimension": "video", "id": "v"},
            "start": "2026-05-05T10:00:00Z", "end": "2026-05-05T13:00:00Z", "step": "1h", "tz": "UTC", "metric": "gross",
            "total": 7,
            "points": [
                {"start": "2026-05-05T10:00:00Z", "views": 3, "complete": true, "final": true},
                {"start": "2026-05-05T11:00:00Z", "views": 0, "complete": true, "final": false},
                {"start": "2026-05-05T12:00:00Z", "views": 4, "complete": false, "final": false},
            ],
            "complete_through": "2026-05-05T12:00:00Z",
        })
    );
}

#[tokio::test]
async fn days_follow_the_zone_and_times_show_its_offset() {
    let site = Site::new();
    let minutes = [
        ("2026-03-28T22:59:00Z", 1),
        ("2026-03-28T23:00:00Z", 2),
        ("2026-03-29T21:59:00Z", 4),
        ("2026-03-29T22:00:00Z", 8),
        ("2026-10-24T22:00:00Z", 16),
        ("2026-10-25T22:59:00Z", 32),
        ("2026-10-25T23:00:00Z", 64),
    ];
    site.count(&Entity::site(), &minutes).await;
    site.close_all("2026-11-01T00:00:00Z").await;
    let berlin_spring = [("2026-03-29T00:00:00+01:00", 6), ("2026-03-30T00:00:00+02:00", 8)];
    let berlin_autumn = [("2026-10-25T00:00:00+02:00", 48), ("2026-10-26T00:00:00+01:00", 64)];
    let kolkata = [("2026-03-29T00:00:00+05:30", 3), ("2026-03-30T00:00:00+05:30", 12)];
    for (start, end, tz, step, expected) in [
        ("2026-03-28T23:00:00Z", "2026-03-30T22:00:00Z", "Europe/Berlin", "1d", &berlin_spring[..]),
        ("2026-10-24T22:00:00Z", "2026-10-26T23:00:00Z", "Europe/Berlin", "1d", &berlin_autumn),
        ("2026-03-28T18:30:00Z", "2026-03-30T18:30:00Z", "Asia/Kolkata", "1d", &kolkata),
        ("2026-03-01T00:00:00Z", "2026-11-01T00:00:00Z", "UTC", "all", &[("2026-03-01T00:00:00+00:00", 127)]),
    ] {
        let (_, body) = site.get(&format!("/v1/site/views?start={start}&end={end}&tz={tz}&step={step}")).await;
        let point = |point: &Value| (point["start"].as_str().unwrap().to_owned(), point["views"].as_i64().unwrap());
        let points: Vec<(String, i64)> = body["points"].as_array().unwrap().iter().map(point).collect();
        assert_eq!(points, expected.iter().map(|(at, views)| ((*at).to_owned(), *views)).collect::<Vec<_>>(), "{tz}");
        assert_eq!(body["tz"], tz);
    }
    let (_, hours) = site.get("/v1/site/views?start=2026-10-24T22:00:00Z&end=2026-10-25T23:00:00Z&tz=Europe/Berlin&step=1h").await;
    assert_eq!(hours["points"].as_array().unwrap().len(), 25);
}

#[tokio::test]
async fn ids_are_any_text_of_128_bytes() {
    let site = Site::new();
    site.count(&video("a/b c%é"), &[("2026-05-05T10:00:00Z", 3)]).await;
    site.count(&Entity::new(Dimension::Space, "s"), &[("2026-05-05T10:00:00Z", 9_007_199_254_740_993)]).await;
    site.close_all("2026-05-06T00:00:00Z").await;
    let range = "start=2026-05-05T00:00:00Z&end=2026-05-06T00:00:00Z";
    let (status, body) = site.get(&format!("/v1/videos/a%2Fb%20c%25%C3%A9/views?{range}")).await;
    assert_eq!((status, &body["total"], &body["entity"]["id"]), (StatusCode::OK, &3.into(), &"a/b c%é".into()));
    let (_, body) = site.get(&format!("/v1/spaces/s/views?{range}&metric=valid")).await;
    assert_eq!(body["total"], "9007199254740993", "above 2^53 a count is a string");
    let (_, body) = site.get(&format!("/v1/spaces/s/views?{range}&metric=engaged")).await;
    assert_eq!(body["total"], 0);
    let (status, body) = site.get(&format!("/v1/videos/never%20seen/views?{range}")).await;
    assert_eq!((status, &body["total"]), (StatusCode::OK, &0.into()));
    assert_eq!(site.get(&format!("/v1/videos/{}/views", "x".repeat(128))).await.0, StatusCode::OK);
    for id in ["x".repeat(129), "%00".into(), "a%0Ab".into(), "%FF".into()] {
        for uri in [format!("/v1/videos/{id}/views"), format!("/v1/spaces/{id}/views"), format!("/v1/videos/{id}")] {
            assert_eq!(site.problem(&uri).await, (400, "bad-parameter".into()), "{uri}");
        }
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let site = Site::open(FoldSettings { minute_ttl_ms: 86_400_000, ..FoldSettings::default() }, QueryLimits::default());
    for (uri, status, kind) in [
        ("/v1/site/views?start=NaN", 400, "bad-parameter"),
        ("/v1/site/views?strat=1", 400, "unknown-parameter"),
        ("/v1/site/views?start=2000-01-01T00:00:00Z&step=1m", 400, "too-many-points"),
        ("/v1/site/views?start=2026-01-01T00:00:00Z&end=2026-01-01T00:01:00Z", 410, "resolution-gone"),
        ("/v1/videos/nobody", 404, "unknown-video"),
        ("/v1/videos/v?tz=Mars/Olympus", 400, "bad-parameter"),
        ("/v1/imports/0123456789abcdef", 404, "unknown-import"),
        ("/v1/imports/xyz", 400, "bad-parameter"),
        ("/v1/records?source=2", 400, "bad-parameter"),
        ("/v1/records?from=5", 400, "bad-parameter"),
        ("/v1/status?x=1", 400, "unknown-parameter"),
        ("/v1/videos//views", 400, "bad-parameter"),
        ("/v2", 404, "not-found"),
    ] {
        assert_eq!(site.problem(uri).await, (status, kind.into()), "{uri}");
    }
    let response = site.send(Method::DELETE, "/v1/videos/v", Body::empty()).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(response.headers()[header::ALLOW].to_str().unwrap().contains("PUT"));
    assert_eq!(answer(response).await.1["type"], "/problems/method-not-allowed");
}

#[tokio::test]
async fn a_video_is_known_by_its_metadata_or_its_views() {
    let site = Site::new();
    let this_minute = Minute::of(Millis::now()).to_string();
    site.count(&video("v"), &[("1969-07-20T20:17:00Z", 5), (&this_minute, 2)]).await;
    site.close_all("2026-05-06T00:00:00Z").await;
    let (status, body) = site.get("/v1/videos/v?tz=Asia/Kolkata").await;
    assert_eq!((status, &body["metadata"]), (StatusCode::OK, &Value::Null));
    assert_eq!((&body["views"]["all_time"], &body["views"]["last_hour"]), (&7.into(), &2.into()));
    let info = json!({"title": "First steps", "space_id": "moon", "space_name": "The Moon", "published_at": "1969-07-20T20:17:40Z"});
    assert_eq!(site.put("/v1/videos/w", info.to_string()).await, (StatusCode::OK, info.clone()));
    let (status, body) = site.get("/v1/videos/w").await;
    assert_eq!((status, &body["metadata"], &body["views"]["all_time"]), (StatusCode::OK, &info, &0.into()));
    for (body, status, says) in [
        (json!({"titel": "x"}).to_string(), 400, "unknown field `titel`, expected one of `title`"),
        (json!({"title": ""}).to_string(), 400, "title has 0 bytes"),
        (json!({"title": "x".repeat(1_025)}).to_string(), 400, "title has 1025 bytes"),
        (json!({"space_name": "a\nb"}).to_string(), 400, "space_name holds a control character"),
        (json!({"space_id": "x".repeat(129)}).to_string(), 400, "space_id has 129 bytes"),
        (json!({"published_at": "yesterday"}).to_string(), 400, "published_at is not RFC 3339"),
        ("not json".into(), 400, "cannot be read"),
        (json!({"title": "x".repeat(70_000)}).to_string(), 413, "more than 65536 bytes"),
    ] {
        let (got, problem) = site.put("/v1/videos/w", body).await;
        assert_eq!(got.as_u16(), status);
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    assert_eq!(site.get("/v1/videos/w").await.1["metadata"], info, "what was refused changed nothing");
}

#[tokio::test]
async fn an_import_can_be_taken_up_where_it_was_left() {
    let site = Site::new();
    let progress = json!({"file": "views.csv.gz", "mapping": "video_id=item", "events": 5_000, "ends": [3, 4], "complete": false});
    assert_eq!(site.put("/v1/imports/0123456789ABCDEF", progress.to_string()).await, (StatusCode::OK, progress.clone()));
    assert_eq!(site.get("/v1/imports/0123456789abcdef").await, (StatusCode::OK, progress));
    assert_eq!(site.put("/v1/imports/0123456789abcdef", "{}").await.0, StatusCode::BAD_REQUEST);
}

fn event(id: &str, video: &str) -> String {
    format!("{{\"event_id\":\"{id}\",\"video_id\":\"{video}\",\"ts\":1763640000000}}")
}

async fn append(site: &Site, source: u32, kind: RecordKind, payload: &str) {
    site.log.append(Source(source), vec![NewRecord::new(kind, payload)]).await.unwrap();
}

#[tokio::test]
async fn status_says_how_far_each_source_has_come() {
    let site = Site::new();
    let (_, empty) = site.get("/v1/status").await;
    assert_eq!((&empty["complete_through"], &empty["totals"]["lag_seconds"]), (&Value::Null, &0.0.into()));
    append(&site, 0, RecordKind::Json, &event("a", "v")).await;
    append(&site, 1, RecordKind::Json, &event("b", "v")).await;
    append(&site, 1, RecordKind::Json, &event("c", "v")).await;
    site.close_all("2026-05-05T10:00:00Z").await;
    let (status, body) = site.get("/v1/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["log_id"], site.log.id().to_string());
    assert_eq!(body["complete_through"], "2026-05-05T10:00:00Z");
    let lags: Vec<_> = body["sources"].as_array().unwrap().iter().map(|source| source["lag_records"].as_u64().unwrap()).collect();
    assert_eq!(lags, [0, 1]);
    assert_eq!(body["sources"][0]["lag_seconds"], 0.0);
    assert!(body["sources"][1]["lag_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!((&body["totals"]["records"], &body["totals"]["lag_records"]), (&3.into(), &1.into()));
    let tally = json!({"events": 16, "counted": 10, "duplicate": 4, "rejected": 2, "rejected_by_reason": {"too_old": 2}, "corrections": 0});
    assert_eq!(body["totals"]["tally"], tally);
    assert_eq!(body["settings"]["dedup_minutes"], 10);
    assert_eq!(body["troubles"], json!([]));
    assert!(body["sources"][0]["owner"].as_str().unwrap().contains(&std::process::id().to_string()));
    assert!(body["sources"][0]["checkpoint"]["age_seconds"].as_f64().unwrap() > 0.0);
}

/// Lines from a stream until there are `count`.
async fn next_lines(body: &mut BodyDataStream, count: usize) -> Vec<Value> {
    let mut bytes = Vec::new();
    while bytes.iter().filter(|byte| **byte == b'\n').count() < count {
        let chunk = tokio::time::timeout(Duration::from_secs(30), body.next()).await.expect("lines in time").expect("more lines").unwrap();
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn records_are_shown_as_they_lie_in_the_log() {
    let site = Site::new();
    append(&site, 0, RecordKind::Ndjson, &format!("{}\nbroken\n{}", event("a", "v"), event("b", "w"))).await;
    append(&site, 1, RecordKind::Json, &event("c", "v")).await;
    append(&site, 1, RecordKind::Tick, "").await;
    for (query, expected) in [("", 5), ("?source=0", 3), ("?video=v", 2), ("?limit=2", 2), ("?source=1&from=1", 1), ("?from=end", 0)] {
        let response = site.send(Method::GET, &format!("/v1/records{query}"), Body::empty()).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-ndjson");
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_follower_sees_what_comes_and_ends_when_it_is_told() {
    let site = Site::open(FoldSettings::default(), QueryLimits { streams_at_once: 1, ..QueryLimits::default() });
    append(&site, 0, RecordKind::Json, &event("before", "v")).await;
    let mut body = site.send(Method::GET, "/v1/records?follow=true", Body::empty()).await.into_body().into_data_stream();
    assert_eq!(site.problem("/v1/records").await, (503, "unavailable".into()), "one stream at once");
    append(&site, 1, RecordKind::Json, &event("first", "v")).await;
    assert_eq!(next_lines(&mut body, 1).await[0]["event"]["event_id"], "first");
    append(&site, 0, RecordKind::Json, &event("second", "v")).await;
    assert_eq!(next_lines(&mut body, 1).await[0]["event"]["event_id"], "second");
    site.service.stop_streams();
    assert!(tokio::time::timeout(Duration::from_secs(30), body.next()).await.unwrap().is_none());
    drop(body);
    assert_eq!(site.send(Method::GET, "/v1/records", Body::empty()).await.status(), StatusCode::OK, "its place is free again");
}

fn assert_come_back(response: &Response) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn too_much_at_once_or_too_slow_is_refused_with_a_time_to_come_back() {
    let full = Site::open(FoldSettings::default(), QueryLimits { requests_at_once: 0, ..QueryLimits::default() });
    assert_come_back(&full.send(Method::GET, "/v1/site/views", Body::empty()).await);
    let hasty = Site::open(FoldSettings::default(), QueryLimits { timeout: Duration::from_millis(50), ..QueryLimits::default() });
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_come_back(&hasty.send(Method::PUT, "/v1/videos/v", endless).await);
}

#[tokio::test]
async fn what_was_answered_is_counted_by_route_and_status() {
    let site = Site::new();
    let mut registry = Registry::with_prefix("tallymark");
    site.service.metrics().register(&mut registry);
    site.get("/v1/videos/a/views").await;
    site.get("/v1/videos/b/views").await;
    site.get("/v1/videos/b/views?start=x").await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "tallymark_query_requests_total{route=\"/v1/videos/{id}/views\",status=\"200\"} 2",
        "tallymark_query_requests_total{route=\"/v1/videos/{id}/views\",status=\"400\"} 1",
        "tallymark_query_request_seconds_count{route=\"/v1/videos/{id}/views\"} 3",
        "tallymark_query_store_errors_total 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn minutes_still_open_are_counted_with_the_rollups() {
    let site = Site::new();
    let open = minute("2026-05-05T10:30:00Z");
    let row = |tier: Tier, gross| {
        let key = CellKey { entity: video("v"), bucket: Bucket { tier, start: tier.bucket(open).start }, source: Source(1) };
        let through = if tier == Tier::Minute { Millis::NEVER } else { open.start() };
        let counts = Counts { gross, valid: gross, engaged: 0 };
        (key, StoredRow { stamp: Stamp(1), row: Row { counts, version: Offset(1), through, mark: None } })
    };
    site.store
        .write_rows(Arc::new(vec![row(Tier::Minute, 7), row(Tier::Hour, 100), row(Tier::Day, 1_000), row(Tier::Year, 10_000)]))
        .await
        .unwrap();
    site.close_all("2026-05-05T10:30:00Z").await;
    for (range, total) in [
        ("start=2026-05-05T10:00:00Z&end=2026-05-05T11:00:00Z", 107),
        ("start=2026-05-05T00:00:00Z&end=2026-05-06T00:00:00Z", 1_007),
        ("start=2026-01-01T00:00:00Z&end=2027-01-01T00:00:00Z", 10_007),
        ("start=0001-01-01T00:00:00Z&end=6000-01-01T00:00:00Z", 10_007),
    ] {
        assert_eq!(site.get(&format!("/v1/videos/v/views?{range}&step=all")).await.1["total"], total, "{range}");
    }
}
