//! Top lists and reports over real folds of three sources, as they are asked for over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use aggregator::embedded::StoreOptions;
use aggregator::{CountStore, EmbeddedStore, SpaceInfo, VideoInfo};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use ingest::embedded::LogOptions;
use ingest::{EmbeddedLog, EventLog};
use prometheus_client::registry::Registry;
use query::{QueryLimits, QueryService, router};
use schemas::{Counts, Dimension, FoldSettings, Millis, Minute};
use serde_json::Value;

mod folded;
use folded::{Folded, Step, all_sums, space_of, video_id};

const SOURCES: u32 = 3;

struct Site {
    store: Arc<EmbeddedStore>,
    service: Arc<QueryService>,
    router: Router,
    sources: Vec<Folded>,
    _dir: tempfile::TempDir,
}

impl Site {
    /// Some hundred views of 50 videos in the 30 hours before `end`, some of them late, all minutes but the last closed.
    async fn filled(end: Millis) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let log = Arc::new(EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::new(SOURCES).unwrap())).unwrap());
        let store = Arc::new(EmbeddedStore::open(StoreOptions::new(dir.path().join("store"), log.id())).unwrap());
        let service = Arc::new(QueryService::new(store.clone(), log, FoldSettings::default(), QueryLimits::default()));
        let router = router(Arc::clone(&service));
        let mut sources: Vec<Folded> = (0..SOURCES).map(|source| Folded::new(source, end.plus(-30 * 3_600_000))).collect();
        for n in 0..900u32 {
            let video = u8::try_from((n * n) % 50).unwrap();
            let minutes = if n % 7 == 0 { -90 } else { 0 };
            let view = Step::View { after_s: 360, video, minutes, engaged: n % 11 == 0 };
            let source = &mut sources[usize::try_from(n % SOURCES).unwrap()];
            source.step(&view, &*store).await;
            if n % 100 == 0 {
                source.step(&Step::Adjust { video, minutes_ago: 500, views: -1 }, &*store).await;
                source.step(&Step::Flush, &*store).await;
            }
        }
        for source in &mut sources {
            source.flush(&*store).await;
        }
        Self { store, service, router, sources, _dir: dir }
    }

    async fn send(&self, uri: &str, accept: &str) -> (StatusCode, axum::http::HeaderMap, Bytes) {
        let request = Request::builder().uri(uri).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(self.router.clone(), request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, to_bytes(body, 1 << 24).await.unwrap())
    }

    async fn json(&self, uri: &str) -> Value {
        let (status, _, body) = self.send(uri, "application/json").await;
        assert_eq!(status, StatusCode::OK, "{uri}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    fn sums(&self, dimension: Dimension, start: Minute, end: Minute) -> BTreeMap<String, Counts> {
        all_sums(&self.sources, dimension, start, end)
    }
}

fn time(text: &str) -> Millis {
    Millis::parse_rfc3339(text).unwrap()
}

fn minute(text: &str) -> Minute {
    Minute::of(time(text))
}

/// (id, views) as they are to be ranked.
fn ranked(sums: &BTreeMap<String, Counts>) -> Vec<(String, i64)> {
    let mut all: Vec<(String, i64)> = sums.iter().map(|(id, counts)| (id.clone(), counts.gross)).filter(|(_, views)| *views > 0).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    all
}

fn entries(list: &Value) -> Vec<(String, i64)> {
    let entries = list["entries"].as_array().unwrap().iter();
    entries.map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry["views"].as_i64().unwrap())).collect()
}

fn csv_rows(body: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(body);
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn a_list_ranks_exactly_and_says_what_it_is_of() {
    let site = Site::filled(time("2026-05-06T12:30:00Z")).await;
    let known = VideoInfo { title: Some("Cats".into()), space_id: Some("s0".into()), ..VideoInfo::default() };
    let range = (minute("2026-05-05T10:00:00Z"), minute("2026-05-06T10:00:00Z"));
    let videos = ranked(&site.sums(Dimension::Video, range.0, range.1));
    site.store.write_video(videos[0].0.clone(), known).await.unwrap();
    let uri = "start=2026-05-05T10:00:00Z&end=2026-05-06T10:00:00Z&limit=1000";
    let list = site.json(&format!("/v1/top/videos?{uri}")).await;
    assert!(videos.len() > 20, "{videos:?}");
    assert_eq!(entries(&list), videos);
    let first = &list["entries"][0];
    assert_eq!((first["rank"].as_i64(), first["title"].as_str(), first["space_id"].as_str()), (Some(1), Some("Cats"), Some("s0")));
    assert_eq!((list["start"].as_str(), list["end"].as_str()), (Some("2026-05-05T10:00:00Z"), Some("2026-05-06T10:00:00Z")));
    assert_eq!(list["previous"]["start"], "2026-05-04T10:00:00Z");
    assert_eq!((list["dimension"].as_str(), list["sort"].as_str(), list["metric"].as_str()), (Some("video"), Some("views"), Some("gross")));
    assert!(list["complete_through"].is_string() && list["as_of"].is_string() && list.get("stale_seconds").is_none());

    site.store.write_space("s1".into(), SpaceInfo { name: Some("Dogs".into()) }).await.unwrap();
    let spaces = site.json(&format!("/v1/top/spaces?{uri}")).await;
    assert_eq!(entries(&spaces), ranked(&site.sums(Dimension::Space, range.0, range.1)));
    let named: Vec<&Value> = spaces["entries"].as_array().unwrap().iter().filter(|entry| entry["name"] == "Dogs").collect();
    assert_eq!((named.len(), named[0]["id"].as_str()), (1, Some("s1")));

    let three = site.json(&format!("/v1/top/videos?{}", uri.replace("1000", "3"))).await;
    assert_eq!(entries(&three), videos[..3]);
}

#[tokio::test]
async fn a_rising_list_compares_equal_lengths() {
    let site = Site::filled(time("2026-05-06T12:30:00Z")).await;
    let list = site.json("/v1/top/videos?day=2026-05-06&sort=rising&limit=1000").await;
    assert_eq!(
        (list["compared"]["end"].as_str(), list["previous"]["end"].as_str()),
        (Some("2026-05-06T12:00:00Z"), Some("2026-05-05T12:00:00Z"))
    );
    let now = site.sums(Dimension::Video, minute("2026-05-06T00:00:00Z"), minute("2026-05-06T12:00:00Z"));
    let before = site.sums(Dimension::Video, minute("2026-05-05T00:00:00Z"), minute("2026-05-05T12:00:00Z"));
    let of = |sums: &BTreeMap<String, Counts>, id: &str| sums.get(id).map_or(0, |counts| counts.gross);
    let rows = list["entries"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.windows(2).all(|pair| pair[0]["change"].as_i64() >= pair[1]["change"].as_i64()));
    for row in rows {
        let id = row["id"].as_str().unwrap();
        let (compared, previous) = (of(&now, id), of(&before, id));
        assert_eq!((row["compared"].as_i64(), row["previous"].as_i64()), (Some(compared), Some(previous)), "{id}");
        assert_eq!(row["change"].as_i64(), Some(compared - previous));
        let growth = (previous > 0).then(|| (compared - previous) as f64 / previous as f64);
        let near = |(a, b): (f64, f64)| (a - b).abs() < 1e-9;
        assert!(row["growth"].as_f64().zip(growth).is_none_or(near) && row["growth"].is_null() == growth.is_none(), "{row}");
    }
}

#[tokio::test]
async fn windows_are_of_this_moment() {
    let site = Site::filled(Millis::now()).await;
    let list = site.json("/v1/top/videos?window=7d&limit=1000").await;
    let (start, end) = (minute(list["start"].as_str().unwrap()), minute(list["end"].as_str().unwrap()));
    assert_eq!((list["window"].as_str(), end.0 - start.0), (Some("7d"), 7 * 1_440));
    assert_eq!(entries(&list), ranked(&site.sums(Dimension::Video, start, end)));
    let spaces = site.json("/v1/top/spaces").await;
    assert_eq!((spaces["window"].as_str(), spaces["entries"].as_array().map(|all| all.len() <= 5)), (Some("today"), Some(true)));
    for uri in ["/v1/top/videos?window=week", "/v1/top/videos?day=2999-01-01", "/v1/top/spaces?limit=1001", "/v1/top/videos?sort=up"] {
        assert_eq!(site.send(uri, "*/*").await.0, StatusCode::BAD_REQUEST, "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_made_once_however_many_ask() {
    let site = Site::filled(time("2026-05-06T12:30:00Z")).await;
    let uri = "/v1/top/videos?start=2026-05-05T00:00:00Z&end=2026-05-06T00:00:00Z&limit=20";
    let answers = futures_util::future::join_all((0..50).map(|_| site.json(uri))).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let mut registry = Registry::default();
    site.service.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("query_top_list_seconds_count 1\n"), "{text}");
}

#[tokio::test]
async fn a_list_is_the_same_in_every_form() {
    let site = Site::filled(time("2026-05-06T12:30:00Z")).await;
    let uri = "/v1/top/videos?day=2026-05-05&limit=100";
    let videos = entries(&site.json(uri).await);
    let (_, headers, body) = site.send(uri, "text/csv").await;
    assert_eq!(headers[header::CONTENT_DISPOSITION], "attachment; filename=\"top-videos.csv\"");
    let rows = csv_rows(&body);
    assert_eq!(rows[0], ["rank", "id", "title", "space_id", "space_name", "views", "compared", "previous", "change", "growth"]);
    let read: Vec<(String, i64)> = rows[1..].iter().map(|row| (row[1].clone(), row[5].parse().unwrap())).collect();
    assert_eq!(read, videos);
    let (_, _, body) = site.send(uri, "application/vnd.apache.arrow.stream").await;
    let batch = StreamReader::try_new(&*body, None).unwrap().next().unwrap().unwrap();
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let (ids, views) = (column("id").as_string::<i32>(), column("views").as_primitive::<Int64Type>());
    let read: Vec<(String, i64)> = (0..ids.len()).map(|at| (ids.value(at).to_owned(), views.value(at))).collect();
    assert_eq!(read, videos);
}

#[tokio::test]
async fn a_report_holds_every_video_of_its_day_in_every_form() {
    let site = Site::filled(time("2026-05-06T12:30:00Z")).await;
    let known = VideoInfo { title: Some("=Cats, \"dogs\"".into()), space_id: Some(space_of(4)), ..VideoInfo::default() };
    site.store.write_video(video_id(4), known).await.unwrap();
    let sums = site.sums(Dimension::Video, minute("2026-05-05T00:00:00Z"), minute("2026-05-06T00:00:00Z"));
    let expected: Vec<(String, i64, i64, i64)> =
        sums.iter().map(|(id, counts)| (id.clone(), counts.gross, counts.valid, counts.engaged)).collect();
    assert!(expected.len() > 20);

    let report = site.json("/v1/reports/2026-05-05").await;
    assert_eq!(
        (report["day"].as_str(), report["final"].as_bool(), report["complete"].as_bool()),
        (Some("2026-05-05"), Some(false), Some(true))
    );
    let rows = report["videos"].as_array().unwrap();
    let number = |row: &Value, name: &str| row[name].as_i64().unwrap();
    let read: Vec<_> = rows
        .iter()
        .map(|row| (row["video_id"].as_str().unwrap().to_owned(), number(row, "views"), number(row, "valid"), number(row, "engaged")))
        .collect();
    assert_eq!(read, expected, "in the byte order of ids");
    let titled: Vec<&Value> = rows.iter().filter(|row| !row["title"].is_null()).collect();
    assert_eq!((titled.len(), &titled[0]["video_id"]), (1, &Value::from(video_id(4))));

    let (_, headers, body) = site.send("/v1/reports/2026-05-05", "text/csv").await;
    assert_eq!(
        (&headers["tallymark-final"], &headers[header::CACHE_CONTROL]),
        (&"false".parse().unwrap(), &"public, max-age=5".parse().unwrap())
    );
    let rows = csv_rows(&body);
    assert_eq!(rows[0], ["video_id", "title", "space_id", "views", "valid", "engaged"]);
    let read: Vec<_> =
        rows[1..].iter().map(|row| (row[0].clone(), row[3].parse().unwrap(), row[4].parse().unwrap(), row[5].parse().unwrap())).collect();
    assert_eq!(read, expected);
    let (_, _, body) = site.send("/v1/reports/2026-05-05?names=false&format=csv", "*/*").await;
    assert_eq!(csv_rows(&body)[0], ["video_id", "views", "valid", "engaged"]);

    let (_, _, body) = site.send("/v1/reports/2026-05-05", "application/vnd.apache.arrow.stream").await;
    let reader = StreamReader::try_new(&*body, None).unwrap();
    assert_eq!(reader.schema().metadata()["final"], "false");
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), expected.len());
}

#[tokio::test]
async fn a_report_of_a_day_without_views_is_empty_and_of_a_day_to_come_refused() {
    let site = Site::filled(time("2026-05-06T12:30:00Z")).await;
    let empty = site.json("/v1/reports/2026-04-20").await;
    assert_eq!((empty["videos"].as_array().map(Vec::len), empty["final"].as_bool()), (Some(0), Some(true)));
    assert_eq!(csv_rows(&site.send("/v1/reports/2026-04-20", "text/csv").await.2).len(), 1);
    for (uri, says) in [
        ("/v1/reports/2999-01-01", "has not begun"),
        ("/v1/reports/yesterday", "such as 2026-11-20"),
        ("/v1/reports/2026-02-30", "no day"),
        ("/v1/reports/2026-05-05?name=false", "did you mean names?"),
    ] {
        let (status, _, body) = site.send(uri, "*/*").await;
        assert!(status == StatusCode::BAD_REQUEST && String::from_utf8_lossy(&body).contains(says), "{uri}: {body:?}");
    }
}
