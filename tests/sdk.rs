//! The Rust SDK against the real program, on one machine and on Kafka and Cassandra: killed and started again, slow, refusing, losing
//! its answers, away, asked by a machine whose clock is wrong. Totals are exact each time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod place;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use place::{Place, wherever_it_runs};
use serde_json::Value;
use support::{Server, await_some, output, text};
use tallymark_client::blocking::Client;
use tallymark_client::{Builder, Outcome};

const PATIENCE: Duration = Duration::from_secs(50);

fn builder(url: &str) -> Builder {
    let client = tallymark_client::Client::builder(url).linger(Duration::from_millis(5)).batch(200, 1 << 20);
    client.backoff(Duration::from_millis(5), Duration::from_millis(200)).request_timeout(Duration::from_secs(5))
}

/// Sends views of ten videos, spread over a time.
fn send(client: &Client, views: u64, over: Duration) {
    let begun = Instant::now();
    for n in 0..views {
        while begun.elapsed() < over.mul_f64(n as f64 / views as f64) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let view = client.view(format!("video-{}", n % 10)).space("pets").viewer(format!("viewer-{n}"));
        assert_eq!(view.send(), Outcome::Queued);
    }
}

/// Every video has its share of the views, and nothing else was counted.
fn assert_exact(server: &Server, views: u64) -> Value {
    let tally = server.counted()["totals"]["tally"].clone();
    assert_eq!(tally["counted"], views, "{tally}");
    for video in 0..10 {
        await_some("the answers show it", || {
            (server.json(&format!("/v1/videos/video-{video}"))["views"]["all_time"].as_u64()? == views / 10).then_some(())
        });
    }
    tally
}

fn shut_down(client: &Client, accepted: u64) {
    let ended = client.shutdown(PATIENCE);
    let stats = client.stats();
    assert_eq!((ended.on_disk, ended.dropped, stats.accepted, stats.pending()), (0, 0, accepted, 0), "{stats:?}");
}

/// Stands before a server and does to each request what a bad network would.
struct Gate {
    to: String,
    http: reqwest::Client,
    requests: AtomicU64,
    faults: bool,
    /// How far the sender's clock is ahead.
    ahead_ms: AtomicI64,
}

impl Gate {
    /// Its address, and itself.
    fn before(server: &Server, faults: bool) -> (String, Arc<Self>) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let gate = Self { to: server.url("/v1/events"), http, requests: AtomicU64::new(0), faults, ahead_ms: AtomicI64::new(0) };
        let gate = Arc::new(gate);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/events", post(pass)).with_state(Arc::clone(&gate));
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
            });
        });
        (url, gate)
    }

    async fn forward(&self, headers: &HeaderMap, body: Bytes) -> Response {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        let mut request = self.http.post(&self.to);
        for (name, value) in headers.iter().filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length")) {
            request = match name.as_str() {
                "tallymark-sent-at" => request.header(name, value.to_str().unwrap().parse::<i64>().unwrap() + ahead),
                _ => request.header(name, value),
            };
        }
        let body = if ahead == 0 { body } else { moved(&body, ahead) };
        match request.body(body).send().await {
            Ok(answer) => {
                let status = answer.status();
                (status, answer.text().await.unwrap_or_default()).into_response()
            }
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
}

/// The events as a machine sends them whose clock is so far ahead.
fn moved(body: &Bytes, ahead_ms: i64) -> Bytes {
    let line = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        event["ts"] = (event["ts"].as_i64().unwrap() + ahead_ms).into();
        format!("{event}\n")
    };
    std::str::from_utf8(body).unwrap().lines().map(line).collect::<String>().into()
}

async fn pass(State(gate): State<Arc<Gate>>, headers: HeaderMap, body: Bytes) -> Response {
    let n = gate.requests.fetch_add(1, Ordering::Relaxed);
    let fault = if gate.faults { n % 8 } else { 0 };
    match fault {
        1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]).into_response(),
        2 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        // Taken, but nobody hears of it.
        3 | 4 => {
            gate.forward(&headers, body).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        5 => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            gate.forward(&headers, body).await
        }
        _ => gate.forward(&headers, body).await,
    }
}

wherever_it_runs! {
    a_server_that_is_killed_under_load_counts_everything_once,
    refusals_delays_and_lost_answers_change_no_count,
    what_was_sent_offline_is_counted_when_the_server_is_there,
    a_clock_that_is_off_by_an_hour_moves_no_view,
    the_demo_knows_its_totals_and_finds_what_differs,
}

fn a_server_that_is_killed_under_load_counts_everything_once(place: &Place) {
    let (spool, mut server) = (place.dir().join("spool"), place.start(&[]));
    let client = Client::new(builder(&server.url("")).spool(&spool).build().unwrap());
    let sender = client.clone();
    let sending = std::thread::spawn(move || send(&sender, 20_000, Duration::from_secs(4)));
    for n in 1..=2 {
        await_some("some are acknowledged", || (client.stats().accepted > 5_000 * n).then_some(()));
        server.kill();
        await_some("some are spooled", || (client.stats().on_disk > 0).then_some(()));
        server.restart();
    }
    sending.join().unwrap();
    shut_down(&client, 20_000);
    assert_exact(&server, 20_000);
}

fn refusals_delays_and_lost_answers_change_no_count(place: &Place) {
    let server = place.start(&[]);
    let (url, gate) = Gate::before(&server, true);
    // Without a spool: what fails is kept in memory.
    let client = Client::new(builder(&url).build().unwrap());
    send(&client, 10_000, Duration::from_millis(500));
    shut_down(&client, 10_000);
    let tally = assert_exact(&server, 10_000);
    assert!(tally["duplicate"].as_u64().unwrap() > 0 && gate.requests.load(Ordering::Relaxed) > 50, "{tally}");
}

fn what_was_sent_offline_is_counted_when_the_server_is_there(place: &Place) {
    let (spool, mut server) = (place.dir().join("spool"), place.start(&[]));
    let url = server.url("");
    assert!(server.stop().success());
    // A process that ends offline, and the next.
    for part in 1..=2 {
        let client = Client::new(builder(&url).spool(&spool).build().unwrap());
        send(&client, 5_000, Duration::ZERO);
        assert_eq!(client.shutdown(PATIENCE).on_disk, part * 5_000);
    }
    server.restart();
    let client = Client::new(builder(&url).spool(&spool).build().unwrap());
    assert_eq!(client.stats().found, 10_000);
    shut_down(&client, 10_000);
    assert_exact(&server, 10_000);
}

fn a_clock_that_is_off_by_an_hour_moves_no_view(place: &Place) {
    let server = place.start(&[]);
    let (url, gate) = Gate::before(&server, false);
    let minute_of = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 60 * 60;
    let first = minute_of(SystemTime::now());
    for hours in [1, -1] {
        gate.ahead_ms.store(hours * 3_600_000, Ordering::Relaxed);
        let client = Client::new(builder(&url).gzip(false).build().unwrap());
        send(&client, 1_000, Duration::ZERO);
        shut_down(&client, 1_000);
    }
    let end = minute_of(SystemTime::now()) + 60;
    let tally = assert_exact(&server, 2_000);
    assert_eq!(tally["duplicate"], 0, "{tally}");
    let now: i64 = server.views("site", &first.to_string(), &end.to_string(), "1m").iter().map(|(_, views)| views).sum();
    assert_eq!(now, 2_000, "all of them in the minutes in which they were sent");
}

fn the_demo_knows_its_totals_and_finds_what_differs(place: &Place) {
    let server = place.start(&[]);
    let url = server.url("");
    let flags = ["--rate", "2000", "--duration", "3s", "--day", "3s", "--duplicates", "5", "--late", "20", "--verify"];
    let demo = output(&[&["demo", "--url", &url], &flags[..]].concat());
    let said = text(&demo);
    assert!(demo.status.success() && said.contains("Exact: "), "{said}");
    assert!(server.json("/v1/status")["totals"]["tally"]["duplicate"].as_u64().unwrap() > 50);
    // Nobody there: an error that says what to do.
    let nobody = output(&["demo", "--url", "http://127.0.0.1:9", "--duration", "1s"]);
    assert!(nobody.status.code() == Some(1) && text(&nobody).contains("tallymark run"), "{}", text(&nobody));
}
