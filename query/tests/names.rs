//! What videos and spaces are called: set, shown beside counts, seen everywhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use gated::{Gate, Gated};
use query::{QueryLimits, QueryService, not_found, router};
use schemas::{Dimension, Entity, FoldSettings};
use serde_json::{Value, json};
use site::{Site, answer, video};

#[path = "cache/gated.rs"]
#[allow(dead_code, reason = "the tests of the cache use the rest")]
mod gated;
mod site;

/// A site whose store is behind a gate.
fn gated() -> (Site, Arc<Gated>) {
    let mut site = Site::new();
    let gated = Arc::new(Gated::new(site.store.clone()));
    let limits = QueryLimits { cache_bytes: 0, ..QueryLimits::default() };
    site.router = router(Arc::new(QueryService::new(gated.clone(), site.log.clone(), FoldSettings::default(), limits))).fallback(not_found);
    (site, gated)
}

#[tokio::test]
async fn names_that_cannot_be_read_keep_no_counts_back() {
    let (site, gate) = gated();
    site.count(&video("known"), &[("2026-05-05T10:00:00Z", 3)]).await;
    site.count(&video("other"), &[("2026-05-05T10:00:00Z", 4)]).await;
    site.close_all("2026-05-06T00:00:00Z").await;
    site.put("/v1/videos/known", "{\"title\":\"Known\"}").await;
    gate.set(Gate::BrokenForNames);
    let day = |id: &str| format!("/v1/videos/{id}/views?start=2026-05-05T00:00:00Z&end=2026-05-06T00:00:00Z");
    let (_, body) = site.get(&day("known")).await;
    assert_eq!((&body["total"], &body["title"]), (&3.into(), &"Known".into()));
    let (status, body) = site.get(&day("other")).await;
    assert_eq!((status, &body["total"], body.get("title")), (StatusCode::OK, &4.into(), None));
    assert_eq!(site.problem("/v1/videos/other").await, (503, "unavailable".into()), "whether it has metadata is not known");
}

#[tokio::test]
async fn videos_that_were_not_written_are_named() {
    let (site, gate) = gated();
    gate.set(Gate::BrokenForNames);
    let videos = json!([{"id": "a"}, {"id": "lost 1"}, {"id": "b", "title": "B"}, {"id": "lost 2"}]);
    let (status, problem) = site.put("/v1/videos", json!({"videos": videos}).to_string()).await;
    assert_eq!((status, &problem["type"]), (StatusCode::SERVICE_UNAVAILABLE, &"/problems/unavailable".into()));
    assert_eq!((&problem["written"], &problem["not_written"]), (&2.into(), &json!(["lost 1", "lost 2"])));
    assert!(problem["detail"].as_str().unwrap().contains("2 of 4 videos are not known to be written: send them again"), "{problem}");
    let videos = json!([{"id": "c", "space_id": "lost", "space_name": "Lost"}]);
    let (_, problem) = site.put("/v1/videos", json!({"videos": videos}).to_string()).await;
    assert_eq!((&problem["written"], &problem["not_written"]), (&0.into(), &json!(["c"])), "its space was not named");
    gate.set(Gate::Open);
    assert_eq!(site.get("/v1/videos/b").await.1["metadata"]["title"], "B");
    assert_eq!(site.problem("/v1/videos/c").await, (404, "unknown-video".into()));
}

#[tokio::test]
async fn spaces_and_the_site_are_shown_like_videos() {
    let site = Site::new();
    site.count(&Entity::new(Dimension::Space, "s"), &[("1969-07-20T20:17:00Z", 5)]).await;
    site.count(&Entity::site(), &[("1969-07-20T20:17:00Z", 7)]).await;
    site.close_all("2026-05-06T00:00:00Z").await;
    let views = |all_time: i64| json!({"all_time": all_time, "today": 0, "last_hour": 0});
    let through = "2026-05-06T00:00:00Z";
    let (status, body) = site.get("/v1/spaces/s").await;
    assert_eq!((status, body), (StatusCode::OK, json!({"id": "s", "metadata": null, "views": views(5), "complete_through": through})));
    assert_eq!(site.put("/v1/spaces/s", "{\"name\":\"The Moon\"}").await, (StatusCode::OK, json!({"name": "The Moon"})));
    assert_eq!(site.get("/v1/spaces/s").await.1["metadata"], json!({"name": "The Moon"}));
    assert_eq!(site.get("/v1/site").await, (StatusCode::OK, json!({"views": views(7), "complete_through": through})));
    assert_eq!(site.problem("/v1/spaces/nobody").await, (404, "unknown-space".into()));
    assert_eq!(site.problem("/v1/site?step=1h").await, (400, "unknown-parameter".into()));
    for body in ["{\"name\":\"\"}", "{\"name\":\"a\\nb\"}", "{\"title\":\"x\"}", "[]"] {
        assert_eq!(site.put("/v1/spaces/s", body).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn answers_carry_names_as_they_are_now() {
    let site = Site::new();
    site.close_all("2026-05-06T00:00:00Z").await;
    let names =
        |body: Value| ["title", "space_id", "space_name", "name"].map(|name| body.get(name).and_then(Value::as_str).map(str::to_owned));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(names(site.get("/v1/videos/v/views").await.1), [None, None, None, None]);
    site.put("/v1/videos/v", json!({"title": "First steps", "space_id": "s", "space_name": "Moon"}).to_string()).await;
    assert_eq!(names(site.get("/v1/videos/v/views").await.1), [some("First steps"), some("s"), some("Moon"), None]);
    assert_eq!(names(site.get("/v1/spaces/s/views").await.1), [None, None, None, some("Moon")], "setting a video named its space");
    site.put("/v1/spaces/s", "{\"name\":\"The Moon\"}").await;
    for uri in ["/v1/videos/v/views", "/v1/videos/v/days/2026-05-05"] {
        assert_eq!(names(site.get(uri).await.1), [some("First steps"), some("s"), some("The Moon"), None], "{uri}");
    }
    assert_eq!(site.get("/v1/videos/v").await.1["metadata"]["space_name"], "The Moon");
    assert_eq!(names(site.get("/v1/site/views").await.1), [None, None, None, None]);
}

#[tokio::test]
async fn many_videos_are_set_at_once() {
    let site = Site::new();
    let videos: Vec<Value> = (0..1_000)
        .map(|id| json!({"id": format!("v{id}"), "title": format!("Title {id}"), "space_id": format!("s{}", id % 7), "space_name": format!("Space {}", id % 7)}))
        .collect();
    assert_eq!(site.put("/v1/videos", json!({"videos": videos}).to_string()).await, (StatusCode::OK, json!({"written": 1_000})));
    let metadata = json!({"title": "Title 999", "space_id": "s5", "space_name": "Space 5"});
    assert_eq!(site.get("/v1/videos/v999").await.1["metadata"], metadata);
    assert_eq!(site.get("/v1/spaces/s6").await.1["metadata"]["name"], "Space 6");
    assert_eq!(site.put("/v1/videos", json!({"videos": [{"id": "v999"}]}).to_string()).await.0, StatusCode::OK);
    assert_eq!(site.get("/v1/videos/v999").await.1["metadata"], json!({}), "what is left out is forgotten");
}

#[tokio::test]
async fn a_mistake_among_many_changes_nothing() {
    let site = Site::new();
    let good = json!({"id": "good", "title": "Good", "space_id": "s", "space_name": "S"});
    for (bad, words) in [
        (json!({"title": "no id"}), "videos[1]: missing field `id`"),
        (json!({"id": "good"}), "is that of videos[0] too"),
        (json!({"id": "x".repeat(129)}), "videos[1]: id"),
        (json!({"id": "b", "title": ""}), "videos[1]: title has 0 bytes"),
        (json!({"id": "b", "titel": "x"}), "videos[1]: unknown field `titel`"),
        (json!({"id": "b", "space_id": "s", "space_name": "Other"}), "differs from that of videos[0]"),
        (json!({"id": "b", "published_at": "yesterday"}), "videos[1]: published_at"),
        (json!(7), "videos[1]: it is not an object"),
        (json!(["b"]), "videos[1]: it is not an object"),
    ] {
        let (status, problem) = site.put("/v1/videos", json!({"videos": [good, bad]}).to_string()).await;
        assert_eq!((status, &problem["member"]), (StatusCode::BAD_REQUEST, &"videos[1]".into()), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{words}: {problem}");
    }
    let many: Vec<Value> = (0..1_001).map(|id| json!({"id": id.to_string()})).collect();
    let (_, problem) = site.put("/v1/videos", json!({"videos": many}).to_string()).await;
    assert_eq!((&problem["member"], &problem["limit"]), (&"videos".into(), &1_000.into()));
    assert_eq!(site.put("/v1/videos", "x".repeat(2 << 20)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(site.problem("/v1/videos/good").await, (404, "unknown-video".into()));
    let response = site.send(Method::GET, "/v1/videos", Body::empty()).await;
    assert_eq!((response.status(), &response.headers()[header::ALLOW]), (StatusCode::METHOD_NOT_ALLOWED, &"PUT".parse().unwrap()));
}

#[tokio::test]
async fn a_day_is_one_wide_row() {
    let site = Site::new();
    site.count(&video("v"), &[("2026-05-05T00:00:00Z", 1), ("2026-05-05T23:59:00Z", 2), ("2026-05-06T00:00:00Z", 4)]).await;
    site.close_all("2026-05-06T00:00:00Z").await;
    site.put("/v1/videos/v", json!({"title": "A, film", "space_id": "s", "space_name": "Space"}).to_string()).await;
    let (status, body) = site.get("/v1/videos/v/days/2026-05-05").await;
    assert_eq!((status, &body["date"], &body["total"]), (StatusCode::OK, &"2026-05-05".into(), &3.into()));
    let minutes = body["minutes"].as_array().unwrap();
    assert_eq!((minutes.len(), &minutes[0], &minutes[1], &minutes[1_439]), (1_440, &1.into(), &0.into(), &2.into()));
    assert_eq!(body["complete_through"], "2026-05-06T00:00:00Z");
    let response = site.ask("/v1/videos/v/days/2026-05-05", "text/csv").await;
    assert_eq!(response.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"video-v-2026-05-05.csv\"");
    let csv = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let csv = String::from_utf8(csv.to_vec()).unwrap();
    let (head, row) = csv.split_once("\r\n").unwrap();
    assert!(head.starts_with("id,date,space_name,title,00:00,00:01,") && head.ends_with(",23:58,23:59"), "{head}");
    assert!(row.starts_with("v,2026-05-05,Space,\"A, film\",1,0,") && row.ends_with(",0,2\r\n"), "{row}");
    for (uri, total) in
        [("/v1/spaces/s/days/2026-05-05", 0), ("/v1/site/days/0001-01-01", 0), ("/v1/videos/v/days/2026-05-06?metric=valid", 4)]
    {
        let (status, body) = site.get(uri).await;
        assert_eq!((status, &body["total"]), (StatusCode::OK, &total.into()), "{uri} {body}");
    }
}

#[tokio::test]
async fn a_day_that_is_none_or_no_longer_kept_is_refused() {
    let settings = FoldSettings { minute_ttl_ms: 90 * 86_400_000, ..FoldSettings::default() };
    let site = Site::open(settings, QueryLimits::default());
    site.close_all("2026-05-06T00:00:00Z").await;
    for (uri, refused) in [
        ("/v1/videos/v/days/2026-02-30", (400, "bad-parameter")),
        ("/v1/videos/v/days/2026-5-05", (400, "bad-parameter")),
        ("/v1/videos/v/days/today", (400, "bad-parameter")),
        ("/v1/videos/v/days/0000-01-01", (400, "bad-parameter")),
        ("/v1/videos/v/days/6000-01-01", (400, "bad-parameter")),
        ("/v1/videos/v/days/%FF", (400, "bad-parameter")),
        ("/v1/videos/%00/days/2026-05-05", (400, "bad-parameter")),
        ("/v1/videos/v/days/2026-05-05?tz=Europe/Berlin", (400, "bad-parameter")),
        ("/v1/videos/v/days/2026-05-05?step=1h", (400, "unknown-parameter")),
        ("/v1/site/days/2025-01-01", (410, "resolution-gone")),
    ] {
        let (status, kind) = site.problem(uri).await;
        assert_eq!((status, kind.as_str()), refused, "{uri}");
    }
    let (status, _) = answer(site.ask("/v1/site/days/2026-05-05", "image/png").await).await;
    assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
}
