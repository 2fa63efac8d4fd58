//! One answer in three forms: what JSON, CSV and Arrow say is the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use arrow::ipc::reader::StreamReader;
use axum::body::{Body, to_bytes};
use axum::http::{Method, StatusCode, header};
use proptest::prelude::*;
use schemas::{Millis, Minute};
use serde_json::Value;
use site::{Site, video};

mod site;

const ARROW: &str = "application/vnd.apache.arrow.stream";

async fn body(site: &Site, uri: &str, accept: &str) -> Vec<u8> {
    let response = site.ask(uri, accept).await;
    assert_eq!(response.status(), StatusCode::OK, "{uri}");
    assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with(accept), "{uri}");
    assert_eq!(response.headers()[header::VARY], "accept");
    to_bytes(response.into_body(), 1 << 26).await.unwrap().to_vec()
}

/// One point in any form: start in ms, views, complete, final.
type Told = (i64, i64, bool, bool);

fn ms(text: &str) -> i64 {
    Millis::parse_rfc3339(text).unwrap().0
}

fn told_json(body: &[u8]) -> Vec<Told> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let point = |point: &Value| {
        let views = point["views"].as_i64().unwrap_or_else(|| point["views"].as_str().unwrap().parse().unwrap());
        (ms(point["start"].as_str().unwrap()), views, point["complete"].as_bool().unwrap(), point["final"].as_bool().unwrap())
    };
    body["points"].as_array().unwrap().iter().map(point).collect()
}

fn told_csv(body: &[u8]) -> Vec<Told> {
    let mut reader = csv::Reader::from_reader(body);
    assert_eq!(reader.headers().unwrap(), &["start", "views", "complete", "final"][..]);
    let rows = reader.records().map(Result::unwrap);
    rows.map(|row| (ms(&row[0]), row[1].parse().unwrap(), row[2].parse().unwrap(), row[3].parse().unwrap())).collect()
}

fn batches(body: &[u8]) -> Vec<RecordBatch> {
    StreamReader::try_new(body, None).unwrap().map(Result::unwrap).collect()
}

fn told_arrow(body: &[u8]) -> Vec<Told> {
    let of_batch = |batch: RecordBatch| {
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        let (starts, views) = (column("start"), column("views"));
        let (complete, last) = (column("complete"), column("final"));
        let rows = 0..batch.num_rows();
        rows.map(|row| {
            let start = starts.as_primitive::<TimestampMillisecondType>().value(row);
            (start, views.as_primitive::<Int64Type>().value(row), complete.as_boolean().value(row), last.as_boolean().value(row))
        })
        .collect::<Vec<_>>()
    };
    batches(body).into_iter().flat_map(of_batch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_form_tells_the_same_points(
        views in prop::collection::vec((0i32..20_000, prop_oneof![1i64..1_000, Just(1 << 55)]), 0..20),
        start in 0i32..20_000, length in 1i32..9_000, closed in 0i32..20_000,
        step in prop::sample::select(vec!["1m", "5m", "1h", "1d", "all"]),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let at = |offset: i32| Minute(site::minute("2026-03-25T00:00:00Z").0 + offset).to_string();
            let site = Site::new();
            let minutes: std::collections::BTreeMap<i32, i64> = views.into_iter().collect();
            let counted: Vec<(String, i64)> = minutes.into_iter().map(|(minute, views)| (at(minute), views)).collect();
            site.count(&video("v"), &counted.iter().map(|(at, views)| (at.as_str(), *views)).collect::<Vec<_>>()).await;
            site.close_all(&at(closed)).await;
            let uri = format!("/v1/videos/v/views?start={}&end={}&step={step}&tz={zone}", at(start), at(start + length));
            let json = told_json(&body(&site, &uri, "application/json").await);
            assert_eq!(told_csv(&body(&site, &uri, "text/csv").await), json);
            assert_eq!(told_arrow(&body(&site, &uri, ARROW).await), json);
        });
    }
}

#[tokio::test]
async fn csv_is_lines_of_rfc_4180_with_times_in_the_zone() {
    let site = Site::new();
    site.count(&video("v/1"), &[("2026-03-29T00:30:00Z", 3), ("2026-03-29T01:30:00Z", 4)]).await;
    site.close_all("2026-03-29T01:00:00Z").await;
    let uri = "/v1/videos/v%2F1/views?start=2026-03-29T00:00:00Z&end=2026-03-29T02:00:00Z&step=1h&tz=Europe/Berlin";
    let response = site.ask(uri, "text/csv").await;
    let headers = response.headers().clone();
    assert_eq!(headers[header::CONTENT_DISPOSITION], "attachment; filename=\"video-v_1-views.csv\"");
    assert_eq!(headers["tallymark-complete-through"], "2026-03-29T03:00:00+02:00");
    assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=1");
    let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let lines = "start,views,complete,final\r\n2026-03-29T01:00:00+01:00,3,true,false\r\n2026-03-29T03:00:00+02:00,4,false,false\r\n";
    assert_eq!(text, lines);
}

#[tokio::test]
async fn an_arrow_stream_says_in_its_schema_what_json_says_beside_the_points() {
    let site = Site::new();
    site.count(&video("v"), &[("2026-05-05T10:30:00Z", 3)]).await;
    site.close_all("2026-05-05T12:00:00Z").await;
    let uri = "/v1/videos/v/views?start=2026-05-05T10:00:00Z&end=2026-05-05T12:00:00Z&step=1h&tz=Asia/Tokyo&metric=valid";
    let batches = batches(&body(&site, uri, ARROW).await);
    let schema = batches[0].schema();
    for (key, value) in [
        ("dimension", "video"),
        ("id", "v"),
        ("start", "2026-05-05T19:00:00+09:00"),
        ("end", "2026-05-05T21:00:00+09:00"),
        ("step", "1h"),
        ("tz", "Asia/Tokyo"),
        ("metric", "valid"),
        ("total", "3"),
        ("complete_through", "2026-05-05T21:00:00+09:00"),
    ] {
        assert_eq!(schema.metadata()[key], value, "{key}");
    }
    assert_eq!(schema.field_with_name("start").unwrap().data_type().to_string(), "Timestamp(ms, \"Asia/Tokyo\")");
}

#[tokio::test]
async fn a_browser_may_say_the_form_in_the_address() {
    let site = Site::new();
    let range = "start=2026-05-05T10:00:00Z&end=2026-05-05T12:00:00Z";
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (uri, content_type) in [
        (format!("/v1/site/views?{range}"), "application/json"),
        (format!("/v1/site/views?{range}&format=csv"), "text/csv; charset=utf-8; header=present"),
        (format!("/v1/site/views?format=arrow&{range}"), ARROW),
        (format!("/v1/site/views?{range}&format=json"), "application/json"),
    ] {
        assert_eq!(site.ask(&uri, browser).await.headers()[header::CONTENT_TYPE], content_type, "{uri}");
    }
    assert_eq!(site.problem(&format!("/v1/site/views?{range}&format=xls")).await, (400, "bad-parameter".into()));
    let refused = site.ask("/v1/site/views", "image/png").await;
    assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
    let (_, problem) = site::answer(refused).await;
    assert_eq!(problem["types"][1], "text/csv");
    let head = site.send(Method::HEAD, &format!("/v1/site/views?{range}&format=csv"), Body::empty()).await;
    assert!(head.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/csv"));
}
