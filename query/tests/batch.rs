//! One question about many entities, and ranges compared with ranges before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use proptest::prelude::*;
use query::QueryLimits;
use schemas::{Dimension, Entity, FoldSettings, Minute};
use serde_json::{Value, json};
use site::{Site, answer, minute, video};
use tower::ServiceExt;

mod site;

const DAY: &str = "start=2026-05-05T00:00:00Z&end=2026-05-06T00:00:00Z";

async fn post(site: &Site, uri: &str, accept: &str, body: &str) -> Response {
    let request =
        Request::builder().method(Method::POST).uri(uri).header(header::ACCEPT, accept).body(Body::from(body.to_owned())).unwrap();
    site.router.clone().oneshot(request).await.unwrap()
}

async fn ask(site: &Site, body: &Value) -> (StatusCode, Value) {
    answer(post(site, "/v1/query", "*/*", &body.to_string()).await).await
}

async fn counted() -> Site {
    let site = Site::new();
    let hours = [("2026-05-04T10:30:00Z", 1), ("2026-05-05T10:30:00Z", 2), ("2026-05-05T20:00:00Z", 4)];
    site.count(&video("a"), &hours).await;
    site.count(&video("b"), &[("2026-05-05T11:00:00Z", 8)]).await;
    site.count(&Entity::new(Dimension::Space, "s"), &[("2026-05-05T11:00:00Z", 16)]).await;
    site.count(&Entity::site(), &[("2026-05-05T11:00:00Z", 32)]).await;
    site.close_all("2026-05-05T12:00:00Z").await;
    site
}

#[tokio::test]
async fn results_come_in_the_order_of_the_request_and_duplicates_twice() {
    let site = counted().await;
    let entities = json!([
        {"dimension": "video", "id": "b"}, {"dimension": "site"}, {"dimension": "video", "id": "a"},
        {"dimension": "space", "id": "s"}, {"dimension": "video", "id": "b"}, {"dimension": "video", "id": "never seen"},
    ]);
    let (status, body) =
        ask(&site, &json!({"entities": entities, "start": "2026-05-05T00:00:00Z", "end": 1_778_025_600, "step": "1d", "tz": "UTC"})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.iter().map(|result| result["total"].as_i64().unwrap()).collect::<Vec<_>>(), [8, 32, 6, 16, 8, 0]);
    assert_eq!(results[1]["entity"], json!({"dimension": "site", "id": "all"}));
    let points = json!([{"start": "2026-05-05T00:00:00+00:00", "views": 8, "complete": false, "final": false}]);
    assert_eq!(results[0]["points"], points);
    let common = json!({
        "start": "2026-05-05T00:00:00+00:00", "end": "2026-05-06T00:00:00+00:00", "step": "1d", "tz": "UTC", "metric": "gross",
        "complete_through": "2026-05-05T12:00:00+00:00",
    });
    for (name, value) in common.as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
}

/// What `GET .../views` says of one entity, without what a batch says once.
fn without_common(mut views: Value) -> Value {
    for name in ["start", "end", "step", "tz", "metric", "complete_through"] {
        views.as_object_mut().unwrap().remove(name);
    }
    views
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_batch_says_what_each_question_alone_says(
        start in 0i32..4_000, length in 1i32..4_000,
        step in prop::sample::select(vec!["5m", "1h", "1d", "1w", "all"]),
        metric in prop::sample::select(vec!["gross", "valid", "engaged"]),
        compare in prop::sample::select(vec!["", "previous_period", "previous_year"]),
        tz in prop::sample::select(vec!["UTC", "Europe/Berlin"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let site = counted().await;
            let start = Minute(minute("2026-05-03T00:00:00Z").0 + start);
            let (start, end) = (start.to_string(), Minute(start.0 + length).to_string());
            let mut body = json!({"start": start, "end": end, "step": step, "metric": metric, "tz": tz});
            let mut query = format!("start={start}&end={end}&step={step}&metric={metric}&tz={tz}");
            if !compare.is_empty() {
                body["compare"] = compare.into();
                query += &format!("&compare={compare}");
            }
            body["entities"] = json!([{"dimension": "video", "id": "a"}, {"dimension": "space", "id": "s"}, {"dimension": "site", "id": "all"}]);
            let (status, batch) = ask(&site, &body).await;
            assert_eq!(status, StatusCode::OK, "{batch}");
            for (place, path) in ["videos/a", "spaces/s", "site"].into_iter().enumerate() {
                let (_, alone) = site.get(&format!("/v1/{path}/views?{query}")).await;
                assert_eq!(batch["complete_through"], alone["complete_through"]);
                assert_eq!(batch["results"][place], without_common(alone));
            }
        });
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_named() {
    let site = Site::new();
    let one = json!([{"dimension": "video", "id": "v"}]);
    let many: Vec<Value> = (0..1_001).map(|id| json!({"dimension": "video", "id": id.to_string()})).collect();
    for (body, words) in [
        (json!({}), &["entities: it is missing", "1 to 1000"][..]),
        (json!([]), &["an object"]),
        (json!({"entities": []}), &["entities: it is empty"]),
        (json!({"entities": many}), &["it has 1001 items; it has at most 1000", "\"limit\":1000"]),
        (json!({"entities": [{"dimension": "video", "id": "v"}, {"dimension": "film", "id": "v"}]}), &["entities[1]", "film", "`video`"]),
        (json!({"entities": [{"id": "v"}]}), &["entities[0]: missing field `dimension`"]),
        (json!({"entities": [{"dimension": "video"}]}), &["entities[0].id: it is missing"]),
        (json!({"entities": [{"dimension": "video", "id": ""}]}), &["entities[0].id"]),
        (json!({"entities": [{"dimension": "site", "id": "mine"}]}), &["entities[0].id", "all"]),
        (json!({"entities": [{"dimension": "video", "id": "v", "title": "x"}]}), &["entities[0]", "title"]),
        (json!({"entities": one, "strat": 0}), &["did you mean start?", "\"member\":\"strat\""]),
        (json!({"entities": one, "start": {}}), &["\"member\":\"start\""]),
        (json!({"entities": one, "tz": "Europe/Berln"}), &["did you mean Europe/Berlin?"]),
        (json!({"entities": one, "compare": "last"}), &["previous_period, previous_year"]),
    ] {
        let (status, problem) = ask(&site, &body).await;
        let text = problem.to_string();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(words.iter().all(|word| text.replace("\\\"", "\"").contains(word)), "{words:?}: {text}");
    }
    assert_eq!(post(&site, "/v1/query?start=0", "*/*", "{}").await.status(), StatusCode::BAD_REQUEST, "it stands in the body");
    assert_eq!(post(&site, "/v1/query", "*/*", &" ".repeat(1_100_000)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let larger_than_one_thing = format!("{{\"entities\":[{{\"dimension\":\"site\"}}]{}}}", " ".repeat(100_000));
    assert_eq!(post(&site, "/v1/query", "*/*", &larger_than_one_thing).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_points_of_all_entities_are_limited_together() {
    let site = Site::open(FoldSettings::default(), QueryLimits { points: 240, ..QueryLimits::default() });
    let entities = |count: usize| (0..count).map(|id| json!({"dimension": "video", "id": id.to_string()})).collect::<Vec<_>>();
    let question = |count: usize, compare: Option<&str>, step: Option<&str>| json!({"entities": entities(count), "start": "2026-05-05T00:00:00Z", "end": "2026-05-06T00:00:00Z", "step": step, "compare": compare});
    assert_eq!(ask(&site, &question(10, None, Some("1h"))).await.0, StatusCode::OK);
    for refused in [question(11, None, Some("1h")), question(6, Some("previous_period"), Some("1h"))] {
        let (status, problem) = ask(&site, &refused).await;
        assert_eq!(
            (status, &problem["type"], &problem["limit"]),
            (StatusCode::BAD_REQUEST, &"/problems/too-many-points".into(), &240.into())
        );
        assert_eq!(problem["step"], "1d");
        assert!(problem["detail"].as_str().unwrap().contains("for fewer entities"), "{problem}");
    }
    assert_eq!(ask(&site, &question(5, Some("previous_period"), Some("1h"))).await.0, StatusCode::OK);
    for (count, compare, step) in
        [(1, None, "15m"), (5, None, "1h"), (11, None, "1d"), (30, Some("previous_year"), "1d"), (200, None, "all")]
    {
        let (status, body) = ask(&site, &question(count, compare, None)).await;
        assert_eq!((status, &body["step"]), (StatusCode::OK, &step.into()), "{count} entities without a step");
    }
}

#[tokio::test]
async fn a_range_is_compared_with_the_one_before_it() {
    let site = counted().await;
    let (_, body) = site.get(&format!("/v1/videos/a/views?{DAY}&step=1d&compare=previous_period")).await;
    let previous = json!({
        "start": "2026-05-04T00:00:00Z", "end": "2026-05-05T00:00:00Z", "total": 1,
        "points": [{"start": "2026-05-04T00:00:00Z", "views": 1, "complete": true, "final": false}],
    });
    assert_eq!((&body["total"], &body["previous"], &body["change"], &body["growth"]), (&6.into(), &previous, &5.into(), &5.0.into()));
    let (_, body) = site.get(&format!("/v1/videos/a/views?{DAY}&step=1d&compare=previous_year")).await;
    assert_eq!((&body["previous"]["start"], &body["previous"]["total"]), (&"2025-05-05T00:00:00Z".into(), &0.into()));
    assert_eq!((&body["change"], &body["growth"]), (&6.into(), &Value::Null), "nothing grows from nothing");
    assert!(body.as_object().unwrap().contains_key("growth"));
    let (_, body) = site.get(&format!("/v1/videos/a/views?{DAY}&step=1d")).await;
    assert!(
        !body.as_object().unwrap().contains_key("change")
            && !body.as_object().unwrap().contains_key("growth")
            && !body.as_object().unwrap().contains_key("previous")
    );
}

async fn csv(response: Response) -> Vec<Vec<String>> {
    assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/csv"));
    let body = to_bytes(response.into_body(), 1 << 26).await.unwrap();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&*body);
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn as_a_table_each_entity_and_point_is_a_row() {
    let site = counted().await;
    site.put("/v1/videos/a", json!({"title": "=A film", "space_id": "s", "space_name": "The Space"}).to_string()).await;
    let body = json!({
        "entities": [{"dimension": "video", "id": "a"}, {"dimension": "space", "id": "s"}], "step": "1d",
        "start": "2026-05-04T00:00:00Z", "end": "2026-05-06T00:00:00Z",
    });
    let rows = csv(post(&site, "/v1/query", "text/csv", &body.to_string()).await).await;
    let expected = [
        "dimension,id,title,space_id,space_name,name,start,views,complete,final",
        "video,a,'=A film,s,The Space,,2026-05-04T00:00:00Z,1,true,false",
        "video,a,'=A film,s,The Space,,2026-05-05T00:00:00Z,6,false,false",
        "space,s,,,,The Space,2026-05-04T00:00:00Z,0,true,false",
        "space,s,,,,The Space,2026-05-05T00:00:00Z,16,false,false",
    ];
    assert_eq!(rows.iter().map(|row| row.join(",")).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_table_of_compared_months_shows_the_days_without_a_counterpart() {
    let site = counted().await;
    let uri = "/v1/videos/a/views?start=2026-03-01T00:00:00Z&end=2026-04-01T00:00:00Z&step=1d&compare=previous_period";
    let rows = csv(site.ask(uri, "text/csv").await).await;
    assert_eq!(rows.len(), 32);
    assert_eq!(rows[28].join(","), "2026-03-28T00:00:00Z,0,true,true,2026-02-28T00:00:00Z,0");
    assert_eq!(rows[29].join(","), "2026-03-29T00:00:00Z,0,true,true,,", "February had 28 days");
    let uri = "/v1/videos/a/views?start=2026-02-01T00:00:00Z&end=2026-03-01T00:00:00Z&step=1d&compare=previous_period";
    let rows = csv(site.ask(uri, "text/csv").await).await;
    assert_eq!(rows[29].join(","), ",,,,2026-01-29T00:00:00Z,0");
    assert_eq!(rows.len(), 32);
}

#[tokio::test]
async fn a_thousand_entities_are_answered_in_any_form() {
    let site = counted().await;
    let entities: Vec<Value> =
        (0..1_000).map(|id| json!({"dimension": "video", "id": if id % 2 == 0 { "a".into() } else { id.to_string() }})).collect();
    let body = json!({"entities": entities, "start": "2026-05-05T00:00:00Z", "end": "2026-05-06T12:00:00Z", "step": "1h"});
    let (status, json) = ask(&site, &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(json["results"].as_array().unwrap().iter().filter(|result| result["total"] == 6).count(), 500);
    let rows = csv(post(&site, "/v1/query?format=csv", "*/*", &body.to_string()).await).await;
    assert_eq!(rows.len(), 1 + 36_000);
    let views: i64 = rows[1..].iter().map(|row| row[7].parse::<i64>().unwrap()).sum();
    assert_eq!(views, 3_000);
    let arrow = post(&site, "/v1/query?format=arrow", "*/*", &body.to_string()).await;
    let arrow = to_bytes(arrow.into_body(), 1 << 26).await.unwrap();
    let batches: Vec<_> = arrow::ipc::reader::StreamReader::try_new(&*arrow, None).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 36_000);
    assert!(batches.iter().all(|batch| batch.num_rows() <= 4_200), "batch by batch");
}
