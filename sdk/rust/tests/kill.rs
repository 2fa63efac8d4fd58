//! `kill -9`, for real: a child process sends into its spool and is killed, again and again; the next goes on. What the spool
//! had is delivered, all of it, and under the ids it had.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tallymark_client::{Client, Durability};

/// How often each event arrived.
type Arrived = Arc<Mutex<HashMap<String, u32>>>;

/// A collector that keeps what arrives, and answers after a while, so that a kill finds requests under way.
async fn collector() -> (String, Arrived) {
    let arrived = Arrived::default();
    let take = async |State(arrived): State<Arrived>, body: Bytes| {
        let ids: Vec<String> = std::str::from_utf8(&body).unwrap().lines().map(|line| line.split('"').nth(3).unwrap().to_owned()).collect();
        let events = ids.len();
        ids.into_iter().for_each(|id| *arrived.lock().unwrap().entry(id).or_default() += 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        (StatusCode::ACCEPTED, format!(r#"{{"accepted":{events},"rejected_total":0,"rejected":[]}}"#))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/v1/events", post(take)).with_state(Arc::clone(&arrived));
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    (url, arrived)
}

fn client(url: &str, spool: &Path) -> Client {
    let builder = Client::builder(url).spool(spool).spool_first(true).durability(Durability::Process).gzip(false);
    builder
        .batch(20, 1 << 20)
        .linger(Duration::from_millis(5))
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .build()
        .unwrap()
}

/// Not a test of its own: what the child does. It says which events are safe.
#[tokio::test]
#[ignore = "the child of the other test"]
async fn child() {
    let (Ok(url), Ok(dir), Ok(name)) = (std::env::var("CHILD_URL"), std::env::var("CHILD_SPOOL"), std::env::var("CHILD_NAME")) else {
        return;
    };
    let client = client(&url, Path::new(&dir));
    for n in 0.. {
        client.view("v").event_id(format!("{name}-{n}")).send();
        if n % 10 == 9 {
            client.flush().await;
            println!("safe {}", n + 1);
        }
    }
}

fn spawn(url: &str, spool: &Path, name: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("CHILD_URL", url).env("CHILD_SPOOL", spool).env("CHILD_NAME", name).spawn().unwrap()
}

/// Lets a child say that `enough` events are safe, kills it, and reads what it said last.
fn killed(mut child: Child, enough: u32) -> u32 {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = |line: String| line.strip_prefix("safe ").and_then(|n| n.parse::<u32>().ok());
    let mut safe = 0;
    while safe < enough {
        safe = lines.next().expect("the child goes on").ok().and_then(said).unwrap_or(safe);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    lines.map_while(Result::ok).filter_map(said).last().unwrap_or(safe)
}

#[tokio::test]
async fn what_the_spool_had_when_the_process_was_killed_is_delivered_exactly() {
    let (dir, (url, arrived)) = (tempfile::tempdir().unwrap(), collector().await);
    // Port 9 answers nobody: offline.
    let runs = [
        ("offline", "http://127.0.0.1:9", 300),
        ("a", url.as_str(), 3_000),
        ("b", url.as_str(), 6_000),
        ("off", "http://127.0.0.1:9", 100),
    ];
    let mut safe = Vec::new();
    for (name, url, enough) in runs {
        let child = spawn(url, dir.path(), name);
        safe.push((name, tokio::task::spawn_blocking(move || killed(child, enough)).await.unwrap()));
    }
    let client = client(&url, dir.path());
    let found = client.stats().found;
    let ended = client.shutdown(Duration::from_secs(30)).await;
    assert_eq!((ended.on_disk, ended.dropped, client.stats().pending()), (0, 0, 0), "{:?}", client.stats());
    let arrived = arrived.lock().unwrap();
    for (name, safe) in &safe {
        let missing: Vec<u32> = (0..*safe).filter(|n| !arrived.contains_key(&format!("{name}-{n}"))).collect();
        assert!(missing.is_empty(), "{name}: {missing:?} of {safe} are missing");
    }
    // More than was said to be safe may have arrived, and some twice under the same id: those that a kill found under way.
    let twice: u32 = arrived.values().map(|n| n - 1).sum();
    let under_way = 4 * 20 * 3;
    assert!(twice <= under_way, "{twice} events arrived again");
    println!("safe: {safe:?}; the last found {found}; {} ids arrived, {twice} of them again", arrived.len());
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}
