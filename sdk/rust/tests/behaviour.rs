//! What the client does with every answer, and with none: a real HTTP server gives them, one after the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tallymark_client::{Builder, Client, DropReason, Dropped, LateRetry, Observer, Outcome, Rejected, Retrying};

const PATIENCE: Duration = Duration::from_secs(20);

/// One scripted answer.
#[derive(Clone)]
enum Say {
    /// As a collector does.
    Take,
    Status(u16, &'static str),
    After(u16, &'static str),
    /// Takes the events, but the answer is lost.
    TakeAndFail,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    headers: HeaderMap,
    body: String,
}

#[derive(Default)]
struct Script {
    says: Mutex<VecDeque<Say>>,
    seen: Mutex<Vec<Seen>>,
    taken: Mutex<HashMap<String, u32>>,
}

impl Script {
    fn take(&self, body: &str) -> Response {
        let mut taken = self.taken.lock().unwrap();
        body.lines().for_each(|line| *taken.entry(line.split('"').nth(3).unwrap().to_owned()).or_default() += 1);
        (StatusCode::ACCEPTED, format!(r#"{{"accepted":{},"rejected_total":0,"rejected":[]}}"#, body.lines().count())).into_response()
    }

    fn answer(&self, say: Say, body: &str) -> Response {
        let status = |status| StatusCode::from_u16(status).unwrap();
        match say {
            Say::Take => self.take(body),
            Say::Status(code, text) => (status(code), text).into_response(),
            Say::After(code, wait) => (status(code), [("retry-after", wait)], "later").into_response(),
            Say::TakeAndFail => {
                self.take(body);
                StatusCode::BAD_GATEWAY.into_response()
            }
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many different events were taken, and how many more than once.
    fn taken(&self) -> (usize, usize) {
        let taken = self.taken.lock().unwrap();
        (taken.len(), taken.values().filter(|n| **n > 1).count())
    }
}

async fn server(says: impl IntoIterator<Item = Say>) -> (String, Arc<Script>) {
    let script = Arc::new(Script { says: Mutex::new(says.into_iter().collect()), ..Script::default() });
    let answer = async |State(script): State<Arc<Script>>, headers: HeaderMap, body: Bytes| {
        let body = String::from_utf8_lossy(&body).into_owned();
        script.seen.lock().unwrap().push(Seen { at: Instant::now(), headers, body: body.clone() });
        let say = script.says.lock().unwrap().pop_front().unwrap_or(Say::Take);
        script.answer(say, &body)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/v1/events", post(answer)).with_state(Arc::clone(&script));
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    (url, script)
}

/// Keeps what it hears.
#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Heard>>);

#[derive(Clone, Default)]
struct Heard {
    accepted: u64,
    rejected: Vec<Rejected>,
    dropped: HashMap<DropReason, u64>,
    retries: Vec<Retrying>,
    late: Vec<LateRetry>,
    spooled: u64,
}

impl Ears {
    fn heard(&self) -> Heard {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Ears {
    fn accepted(&self, events: u64) {
        self.0.lock().unwrap().accepted += events;
    }

    fn rejected(&self, rejected: &Rejected) {
        self.0.lock().unwrap().rejected.push(rejected.clone());
    }

    fn dropped(&self, dropped: &Dropped) {
        *self.0.lock().unwrap().dropped.entry(dropped.reason).or_default() += dropped.events;
    }

    fn retrying(&self, retry: &Retrying) {
        self.0.lock().unwrap().retries.push(retry.clone());
    }

    fn late_retry(&self, late: &LateRetry) {
        self.0.lock().unwrap().late.push(*late);
    }

    fn spooled(&self, events: u64) {
        self.0.lock().unwrap().spooled += events;
    }
}

fn quick(url: &str, ears: &Ears) -> Builder {
    let waits = (Duration::from_millis(1), Duration::from_millis(20));
    Client::builder(url).gzip(false).linger(Duration::from_millis(5)).backoff(waits.0, waits.1).observer(ears.clone())
}

fn send(client: &Client, views: usize) {
    (0..views).for_each(|n| assert_eq!(client.view(format!("v{n}")).send(), Outcome::Queued));
}

#[tokio::test]
async fn a_retry_has_the_same_events_under_the_same_ids_and_says_anew_when_it_was_sent() {
    let (url, script) = server([Say::TakeAndFail, Say::Status(503, ""), Say::Status(500, "")]).await;
    let ears = Ears::default();
    let client = quick(&url, &ears).key("tm_a_b").build().unwrap();
    send(&client, 3);
    client.shutdown(PATIENCE).await;
    let seen = script.seen();
    assert_eq!((seen.len(), script.taken(), client.stats().accepted), (4, (3, 3), 3));
    assert!(seen.iter().all(|request| request.body == seen[0].body && request.headers["authorization"] == "Bearer tm_a_b"));
    let sent_at: Vec<u64> = seen.iter().map(|request| request.headers["tallymark-sent-at"].to_str().unwrap().parse().unwrap()).collect();
    assert!(sent_at.is_sorted() && sent_at[0] > 1_700_000_000_000, "{sent_at:?}");
    assert!(ears.heard().retries.iter().all(|retry| retry.in_doubt) && ears.heard().late.is_empty());
}

#[tokio::test]
async fn retry_after_is_honoured_by_all_that_wait() {
    let (url, script) = server([Say::After(429, "1")]).await;
    let ears = Ears::default();
    let client = quick(&url, &ears).build().unwrap();
    send(&client, 1);
    client.flush().await;
    send(&client, 1);
    client.shutdown(PATIENCE).await;
    let seen = script.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
    assert_eq!((script.taken(), ears.heard().retries[0].in_doubt), ((2, 0), false));
}

#[tokio::test]
async fn what_the_server_refuses_is_named_and_the_rest_is_taken() {
    let some = r#"{"accepted":1,"rejected_total":1,"rejected":[{"index":1,"reason":"bad_id","detail":"too long"}]}"#;
    let none = r#"{"type":"/problems#no-usable-event","rejected":[{"index":0,"reason":"bad_ts","detail":"d"}],"rejected_total":1}"#;
    let (url, _) = server([Say::Status(202, some), Say::Status(400, none)]).await;
    let ears = Ears::default();
    let client = quick(&url, &ears).build().unwrap();
    client.view("good").event_id("a").send();
    client.view("bad").event_id("b").send();
    client.flush().await;
    client.view("worse").event_id("c").send();
    client.shutdown(PATIENCE).await;
    let (heard, stats) = (ears.heard(), client.stats());
    let rejected: Vec<_> = heard.rejected.iter().map(|r| (&*r.event_id, &*r.video_id, &*r.reason)).collect();
    assert_eq!(rejected, [("b", "bad", "bad_id"), ("c", "worse", "bad_ts")]);
    assert_eq!((stats.accepted, stats.rejected, heard.accepted, stats.pending()), (1, 2, 1, 0));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_until_it_fits_and_a_single_event_is_rejected() {
    // All, the first half, its first event.
    let (url, script) = server([Say::Status(413, "big"), Say::Status(413, "big"), Say::Status(413, "big")]).await;
    let ears = Ears::default();
    let client = quick(&url, &ears).build().unwrap();
    send(&client, 4);
    client.shutdown(PATIENCE).await;
    assert_eq!((script.taken(), client.stats().accepted, client.stats().rejected), ((3, 0), 3, 1));
    assert_eq!((&*ears.heard().rejected[0].reason, &*ears.heard().rejected[0].video_id), ("http_413", "v0"));
}

#[tokio::test]
async fn a_server_that_takes_nothing_compressed_gets_it_plain() {
    let (url, script) = server([Say::Status(415, "")]).await;
    let client = quick(&url, &Ears::default()).gzip(true).build().unwrap();
    send(&client, 100);
    client.flush().await;
    send(&client, 100);
    client.shutdown(PATIENCE).await;
    let encoded: Vec<bool> = script.seen().iter().map(|request| request.headers.contains_key("content-encoding")).collect();
    assert_eq!((encoded, script.taken().0), (vec![true, false, false], 200));
}

#[tokio::test]
async fn a_wrong_key_loses_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (url, script) = server([Say::Status(401, r#"{"detail":"no such key"}"#), Say::Status(403, ""), Say::Status(404, "")]).await;
    let ears = Ears::default();
    let client = quick(&url, &ears).spool(dir.path()).build().unwrap();
    send(&client, 5);
    while client.stats().accepted < 5 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let heard = ears.heard();
    assert!(heard.retries[0].cause.to_string().contains("no such key"), "{}", heard.retries[0].cause);
    assert_eq!((script.taken(), heard.spooled, heard.retries.len(), client.stats().on_disk), ((5, 0), 5, 3, 0));
}

#[tokio::test]
async fn offline_it_all_goes_to_the_spool_in_order_and_the_next_client_sends_it() {
    let dir = tempfile::tempdir().unwrap();
    let ears = Ears::default();
    let client = quick("http://127.0.0.1:9", &ears).spool(dir.path()).build().unwrap();
    for _ in 0..5 {
        send(&client, 100);
        client.flush().await;
    }
    let ended = client.shutdown(PATIENCE).await;
    assert_eq!((ended.on_disk, ended.dropped, ears.heard().spooled, client.view("v").send()), (500, 0, 500, Outcome::Closed));
    let (url, script) = server([]).await;
    let client = quick(&url, &ears).spool(dir.path()).in_flight(1).build().unwrap();
    assert_eq!(client.stats().found, 500);
    send(&client, 1);
    assert_eq!(client.shutdown(PATIENCE).await.on_disk, 0);
    let bodies: String = script.seen().into_iter().map(|request| request.body).collect();
    let numbers: Vec<String> = bodies.lines().map(|line| line.split('"').nth(7).unwrap().to_owned()).collect();
    let expected: Vec<String> = (0..5).flat_map(|_| 0..100).chain([0]).map(|n| format!("v{n}")).collect();
    assert_eq!((numbers, script.taken()), (expected, (501, 0)));
}

#[tokio::test]
async fn what_finds_no_place_is_counted_and_told() {
    let ears = Ears::default();
    let client = quick("http://127.0.0.1:9", &ears).queue(10, 1 << 20).batch(1, 1_000).in_flight(1).build().unwrap();
    let full = (0..1_000).filter(|n| client.view(format!("v{n}")).send() == Outcome::QueueFull).count() as u64;
    assert!(full > 900, "{full}");
    let ended = client.shutdown(Duration::from_millis(50)).await;
    client.view("v").send();
    let (dropped, stats) = (ears.heard().dropped, client.stats());
    assert_eq!((dropped[&DropReason::QueueFull], dropped[&DropReason::Shutdown]), (full, ended.dropped));
    assert_eq!((stats.sent, full + ended.dropped, stats.dropped, stats.pending()), (1_001, 1_000, 1_001, 0));
}

#[tokio::test]
async fn before_send_changes_and_drops_and_neither_its_panics_nor_an_observers_do_harm() {
    struct Panics;
    impl Observer for Panics {
        fn accepted(&self, _: u64) {
            panic!("an observer's fault");
        }
    }
    let (url, script) = server([]).await;
    let builder = quick(&url, &Ears::default()).observer(Panics).before_send(|mut event| {
        event.viewer_id = None;
        assert_ne!(event.video_id, "panic");
        (event.video_id != "secret").then_some(event)
    });
    let client = builder.build().unwrap();
    for video in ["cats", "secret", "panic", "dogs"] {
        client.view(video).viewer("u").send();
    }
    client.flush().await;
    client.view("x".repeat(70_000)).send();
    client.shutdown(PATIENCE).await;
    assert_eq!((script.taken(), client.stats().dropped, client.stats().pending()), ((2, 0), 3, 0));
    assert!(script.seen().iter().all(|request| !request.body.contains("viewer_id")));
}

#[tokio::test]
async fn events_that_were_in_doubt_for_too_long_are_announced_before_they_are_sent_again() {
    let (url, script) = server([Say::TakeAndFail, Say::Status(429, "")]).await;
    let ears = Ears::default();
    let window = Duration::from_millis(1);
    let waits = Duration::from_millis(50);
    let client = quick(&url, &ears).dedup_window(window).backoff(waits, waits).build().unwrap();
    send(&client, 2);
    client.shutdown(PATIENCE).await;
    let late = ears.heard().late;
    assert!(!late.is_empty() && late.iter().all(|late| late.events == 2 && late.in_doubt_for > window), "{late:?}");
    assert_eq!(script.taken(), (2, 2));
}

#[tokio::test]
async fn a_slow_answer_is_given_up_and_asked_for_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, ears) = (format!("http://{}", listener.local_addr().unwrap()), Ears::default());
    let client = quick(&url, &ears).request_timeout(Duration::from_millis(50)).build().unwrap();
    send(&client, 1);
    // Accepts, and never answers.
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(listener.accept().await.unwrap());
    }
    let begun = Instant::now();
    let ended = client.shutdown(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_secs(5) && ended.dropped == 1 && ears.heard().retries[0].in_doubt);
}

#[tokio::test]
async fn a_full_spool_keeps_its_bound_and_drains_when_the_server_is_back() {
    let (dir, ears) = (tempfile::tempdir().unwrap(), Ears::default());
    let (url, script) = server(std::iter::repeat_n(Say::Status(503, ""), 30)).await;
    let builder = quick(&url, &ears).spool(dir.path()).spool_max_bytes(1 << 20).queue(1_000, 1 << 20).batch(100, 1 << 20);
    let client = builder.durability(tallymark_client::Durability::Process).build().unwrap();
    let mut queued = 0;
    let long = "x".repeat(100);
    while queued < 12_000 {
        match client.view(&*long).send() {
            Outcome::Queued => queued += 1,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    client.shutdown(PATIENCE).await;
    assert_eq!((script.taken().0, client.stats().accepted, client.stats().on_disk), (12_000, 12_000, 0));
    assert_eq!(
        ears.heard().dropped.keys().collect::<Vec<_>>(),
        ears.heard().dropped.keys().filter(|r| **r == DropReason::QueueFull).collect::<Vec<_>>()
    );
}

#[test]
fn the_blocking_flavour_waits_without_a_runtime() {
    let client = tallymark_client::blocking::Client::new(quick("http://127.0.0.1:9", &Ears::default()).build().unwrap());
    client.view("v").send();
    assert!(!client.flush(Duration::from_millis(20)), "nobody is there");
    assert_eq!(client.shutdown(Duration::from_millis(20)).dropped, 1);
    assert!(client.flush(Duration::from_secs(1)), "there is nothing to wait for any more");
}
