//! Live streams over a real store: what they tell, how many reads they cost, and how they begin and end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod site;

use std::sync::Arc;
use std::time::Duration;

use aggregator::CountStore;
use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request, StatusCode, header};
use futures_util::StreamExt;
use prometheus_client::registry::Registry;
use query::QueryLimits;
use schemas::{CellKey, Counts, Dimension, Entity, FoldSettings, Millis, Minute, Offset, Row, Source, Stamp, StoredRow, Tier};
use serde_json::Value;
use site::Site;
use tokio::time::timeout;
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(60);

/// An open stream.
struct Reader {
    body: BodyDataStream,
    text: String,
}

/// One event.
#[derive(Debug)]
struct Event {
    id: String,
    data: Value,
}

impl Reader {
    async fn open(site: &Site, uri: &str) -> Self {
        let response = site.send(Method::GET, uri, Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next block of lines; none when the stream has ended.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let bytes = timeout(PATIENCE, self.body.next()).await.expect("something comes")?.unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next event; none when the stream has ended.
    async fn event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
            if field("event").is_some_and(|event| event == "views") {
                return Some(Event { id: field("id").unwrap(), data: serde_json::from_str(&field("data").unwrap()).unwrap() });
            }
        }
    }

    /// The first event with this count of all time.
    async fn until(&mut self, all_time: i64) -> Event {
        let coming = async {
            loop {
                let event = self.event().await.expect("the stream goes on");
                if event.data["all_time"] == all_time {
                    return event;
                }
            }
        };
        timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("{all_time} was never told"))
    }
}

/// So many minutes before the one that runs.
fn ago(minutes: i32) -> Minute {
    Minute::of(Millis::now()).plus(-minutes)
}

/// Both sources have begun, and closed nothing of the last two hours.
async fn begin(site: &Site) {
    site.close_all(&ago(120).start().to_rfc3339()).await;
}

/// Writes counts of open minutes. Each write is newer than the one before.
async fn count(site: &Site, entity: &Entity, minutes: &[(Minute, i64)], stamp: i64) {
    let rows = minutes.iter().map(|(minute, views)| {
        let counts = Counts { gross: *views, valid: *views, engaged: 0 };
        let key = CellKey { entity: entity.clone(), bucket: Tier::Minute.bucket(*minute), source: Source(0) };
        let row = Row { counts, version: Offset(1), through: Millis::NEVER, mark: None };
        (key, StoredRow { stamp: Stamp(stamp), row })
    });
    site.store.write_rows(Arc::new(rows.collect())).await.unwrap();
}

fn metric(site: &Site, name: &str) -> u64 {
    let mut registry = Registry::default();
    site.service.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("query_{name} "))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn until_no_feed_is_left(site: &Site) {
    let done = async {
        while metric(site, "live_feeds") > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, done).await.expect("feeds end with their last listener");
    assert_eq!(metric(site, "live_streams"), 0);
}

fn changed(event: &Event) -> Vec<i64> {
    event.data["minutes"].as_array().unwrap().iter().map(|minute| minute["views"].as_i64().unwrap()).filter(|views| *views > 0).collect()
}

#[tokio::test]
async fn counts_come_as_they_change_and_a_reader_that_comes_again_gets_what_it_missed() {
    let site = Site::new();
    let (video, minute) = (Entity::new(Dimension::Video, "v"), ago(5));
    count(&site, &video, &[(minute, 3)], 1).await;
    let mut reader = Reader::open(&site, "/v1/videos/v/live?tz=Asia/Tokyo").await;
    assert!(reader.block().await.unwrap().starts_with("retry: "));
    let first = reader.event().await.unwrap();
    // No source has a checkpoint, so nothing is counted yet.
    assert_eq!((first.data["minutes"].as_array().unwrap().len(), &first.data["all_time"]), (60, &0.into()));
    assert_eq!(
        (&first.data["entity"]["id"], &first.data["tz"], &first.data["metric"]),
        (&"v".into(), &"Asia/Tokyo".into(), &"gross".into())
    );
    assert!(first.data["as_of"].as_str().unwrap().ends_with("+09:00"));

    begin(&site).await;
    assert_eq!(reader.until(3).await.data["last_hour"], 3);
    count(&site, &video, &[(minute, 4), (minute.plus(-1), 5), (minute.plus(4), 6)], 2).await;
    let seen = reader.until(15).await;
    assert!(seen.data["minutes"].as_array().unwrap().len() < 60);
    let mut resumed = Reader::open(&site, &format!("/v1/videos/v/live?last_event_id={}", seen.id)).await;
    let mut whole = Reader::open(&site, "/v1/videos/v/live?last_event_id=7").await;
    assert_eq!(changed(&whole.event().await.unwrap()), [5, 4, 6], "what was changed, oldest first");
    assert_eq!(resumed.event().await.unwrap().data["all_time"], 15);
    drop((reader, resumed, whole));
    until_no_feed_is_left(&site).await;
}

#[tokio::test]
async fn however_many_listen_there_is_one_feed_and_it_reads_once_a_second() {
    let site = Site::new();
    begin(&site).await;
    let begun = std::time::Instant::now();
    let mut readers = Vec::new();
    for _ in 0..500 {
        readers.push(Reader::open(&site, "/v1/site/live").await);
    }
    assert_eq!((metric(&site, "live_streams"), metric(&site, "live_feeds")), (500, 1));
    count(&site, &Entity::site(), &[(ago(1), 7)], 1).await;
    for reader in &mut readers {
        reader.until(7).await;
    }
    let (reads, seconds) = (metric(&site, "live_reads_total"), begun.elapsed().as_secs());
    assert!(reads <= seconds + 2, "{reads} reads in {seconds} s");
    // Another zone has another today.
    let mut other = Reader::open(&site, "/v1/site/live?tz=Asia/Tokyo").await;
    assert_eq!(other.event().await.unwrap().data["all_time"], 7);
    assert_eq!(metric(&site, "live_feeds"), 2);
    drop((readers, other));
    until_no_feed_is_left(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_comes_while_the_last_one_goes_is_served() {
    let site = Arc::new(Site::new());
    begin(&site).await;
    let listeners = (0..8).map(|_| {
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            for _ in 0..200 {
                let mut reader = Reader::open(&site, "/v1/site/live").await;
                assert_eq!(reader.event().await.unwrap().data["all_time"], 0);
            }
        })
    });
    for listener in listeners.collect::<Vec<_>>() {
        listener.await.unwrap();
    }
    until_no_feed_is_left(&site).await;
}

#[tokio::test]
async fn a_stop_ends_streams_and_one_more_than_may_be_is_told_to_come_back() {
    let site = Site::open(FoldSettings::default(), QueryLimits { live_streams: 1, requests_at_once: 1, ..QueryLimits::default() });
    let mut reader = Reader::open(&site, "/v1/site/live").await;
    let response = site.send(Method::GET, "/v1/videos/v/live", Body::empty()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    // A stream holds no place of a request at work.
    assert_eq!(site.get("/v1/site/views").await.0, StatusCode::OK);
    reader.event().await.unwrap();
    site.service.stop_streams();
    assert!(reader.event().await.is_none());
    drop(reader);
    until_no_feed_is_left(&site).await;
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_by_name() {
    let site = Site::new();
    for (uri, kind) in [
        ("/v1/site/live?metrik=gross", "unknown-parameter"),
        ("/v1/site/live?metric=net", "bad-parameter"),
        ("/v1/site/live?tz=Europe/Berln", "bad-parameter"),
        ("/v1/site/live?last_event_id=yesterday", "bad-parameter"),
        ("/v1/videos/%00/live", "bad-parameter"),
    ] {
        assert_eq!(site.problem(uri).await, (400, kind.to_owned()), "{uri}");
    }
    let request = Request::get("/v1/site/live").header("last-event-id", &b"caf\xe9"[..]).body(Body::empty()).unwrap();
    assert_eq!(site.router.clone().oneshot(request).await.unwrap().status(), StatusCode::BAD_REQUEST);
}
