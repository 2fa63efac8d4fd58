//! Top lists and reports on real Cassandra: as exact as on the embedded store, and the last list goes on when the cluster is away.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::cassandra::{CassandraOptions, CassandraStore, MigratePlan, migrate};
use ingest::EventLog;
use ingest::embedded::{EmbeddedLog, LogOptions};
use query::{QueryLimits, QueryService, router};
use schemas::{Dimension, FoldSettings, Millis, Minute};
use serde_json::Value;
use test_servers::CassandraCluster;

use crate::folded::{Folded, Step, all_sums};

const SOURCES: u32 = 2;

fn minute(text: &str) -> Minute {
    Minute::of(Millis::parse_rfc3339(text).unwrap())
}

/// Serves the routes of a service on a free port, until the runtime ends.
async fn serve(service: QueryService) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router(Arc::new(service))).await });
    format!("http://{address}")
}

fn ranked(sources: &[Folded], dimension: Dimension, start: Minute, end: Minute) -> Vec<(String, i64)> {
    let sums = all_sums(sources, dimension, start, end);
    let mut all: Vec<(String, i64)> = sums.into_iter().map(|(id, counts)| (id, counts.gross)).filter(|(_, views)| *views > 0).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    all
}

fn entries(list: &Value) -> Vec<(String, i64)> {
    let entries = list["entries"].as_array().unwrap().iter();
    entries.map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry["views"].as_i64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_exact_on_cassandra_and_go_on_when_it_is_away() {
    if test_servers::skipped() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| CassandraCluster::start_behind_proxies(1)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(EmbeddedLog::open(&LogOptions::new(dir.path().join("log"), NonZeroU32::new(SOURCES).unwrap())).unwrap());
    let options = CassandraOptions { nodes: cluster.contacts(), keyspace: "top".into(), ..CassandraOptions::default() };
    let settings = FoldSettings::default();
    migrate(&options, &MigratePlan { replication: 1, log_id: log.id(), settings: settings.clone(), fill_lists: false }).await.unwrap();
    let store = Arc::new(CassandraStore::open(options, log.id(), &settings).await.unwrap());

    let mut sources: Vec<Folded> = (0..SOURCES).map(|source| Folded::new(source, minute("2026-05-05T08:00:00Z").start())).collect();
    for n in 0..400u32 {
        let video = u8::try_from((n * n) % 60).unwrap();
        let minutes = if n % 7 == 0 { -90 } else { 0 };
        let source = &mut sources[usize::try_from(n % SOURCES).unwrap()];
        source.step(&Step::View { after_s: 600, video, minutes, engaged: n % 11 == 0 }, &*store).await;
        if n % 50 == 0 {
            source.step(&Step::Adjust { video, minutes_ago: 700, views: -1 }, &*store).await;
            source.step(&Step::Flush, &*store).await;
        }
    }
    for source in &mut sources {
        source.flush(&*store).await;
    }

    let base = serve(QueryService::new(store, log, settings, QueryLimits::default())).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |uri: &str| http.get(format!("{base}{uri}")).send().await.unwrap();
    let json = async |uri: &str| get(uri).await.error_for_status().unwrap().json::<Value>().await.unwrap();
    let (start, end) = (minute("2026-05-05T10:00:00Z"), minute("2026-05-06T14:00:00Z"));
    let list = "/v1/top/videos?start=2026-05-05T10:00:00Z&end=2026-05-06T14:00:00Z&limit=100";
    assert_eq!(entries(&json(list).await), ranked(&sources, Dimension::Video, start, end));
    assert_eq!(entries(&json(&list.replace("videos", "spaces")).await), ranked(&sources, Dimension::Space, start, end));
    let report = json("/v1/reports/2026-05-05").await;
    let of_day = all_sums(&sources, Dimension::Video, minute("2026-05-05T00:00:00Z"), minute("2026-05-06T00:00:00Z"));
    let rows = report["videos"].as_array().unwrap().iter();
    let read: Vec<(String, i64)> = rows.map(|row| (row["video_id"].as_str().unwrap().to_owned(), row["views"].as_i64().unwrap())).collect();
    assert_eq!(read, of_day.into_iter().map(|(id, counts)| (id, counts.gross)).collect::<Vec<_>>());

    cluster.proxy(0).refuse(true);
    cluster.proxy(0).sever();
    // A list that was never made has no answer.
    assert_eq!(get("/v1/top/videos?start=2026-05-05T10:00:00Z&end=2026-05-05T11:00:00Z").await.status(), 503);
    let begun = Instant::now();
    let stale = loop {
        let answer = get(list).await;
        assert_eq!(answer.status(), 200);
        if answer.headers().contains_key("tallymark-stale") {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "it never became stale");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(stale.headers()["cache-control"], "no-store");
    let stale: Value = stale.json().await.unwrap();
    assert!(stale["stale_seconds"].as_u64().unwrap() >= 2);
    assert_eq!(entries(&stale), ranked(&sources, Dimension::Video, start, end), "it is the list of before");
}
