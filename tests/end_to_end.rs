//! Events flow over HTTP from several producers while the server is killed again and again; in the end every count of
//! every minute, hour and day equals what the producers themselves have noted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use support::{Dice, Server, await_some};

const VIDEOS: u64 = 12;
const SPACES: u64 = 3;
const DAY_S: u64 = 86_400;
const STEPS: [(&str, u64); 3] = [("1m", 60), ("1h", 3_600), ("1d", DAY_S)];

/// Views by entity path, step in seconds and start of the point in Unix seconds.
type Totals = BTreeMap<(String, u64, u64), i64>;

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// One producer: sends requests until told to stop, each again and again until it is acknowledged, and notes what it sent.
struct Producer {
    name: u64,
    dice: Dice,
    http: Client,
    url: String,
    totals: Totals,
    sent: u64,
    last: Option<Value>,
}

impl Producer {
    fn new(name: u64, server: &Server) -> Self {
        let http = Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().unwrap();
        Self { name, dice: Dice(name), http, url: server.url("/v1/events"), totals: Totals::new(), sent: 0, last: None }
    }

    /// Some new events, now and then one a second time: mostly of this moment, some hours or days late, some ahead.
    fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        for _ in 0..=self.dice.below(40) {
            let ts = match self.dice.below(10) {
                0 => now_ms() - self.dice.below(6 * DAY_S * 1_000),
                1 => now_ms() - self.dice.below(3_600_000),
                2 => now_ms() + self.dice.below(20_000),
                _ => now_ms(),
            };
            let video = self.dice.below(VIDEOS).min(self.dice.below(VIDEOS));
            self.sent += 1;
            let event = json!({"event_id": format!("p{}-{}", self.name, self.sent), "video_id": format!("v/{video}"), "ts": ts,
                               "space_id": format!("s{}", video % SPACES), "viewer_id": format!("u{}", self.dice.below(100))});
            self.note(&format!("videos/v%2F{video}"), ts);
            self.note(&format!("spaces/s{}", video % SPACES), ts);
            self.note("site", ts);
            events.push(event);
        }
        if self.dice.below(3) == 0 {
            // A producer that is not sure whether it sent this.
            events.extend(self.last.clone());
        }
        self.last = events.first().cloned();
        events
    }

    fn note(&mut self, entity: &str, ts_ms: u64) {
        for (_, step_s) in STEPS {
            let start_s = ts_ms / 1_000 / step_s * step_s;
            *self.totals.entry((entity.to_owned(), step_s, start_s)).or_default() += 1;
        }
    }

    fn send(&self, events: &[Value], historical: bool) {
        let body: String = events.iter().map(|event| format!("{event}\n")).collect();
        let url = if historical { format!("{}?historical=true", self.url) } else { self.url.clone() };
        await_some("a request is acknowledged", || {
            let answer = self.http.post(&url).header("content-type", "application/x-ndjson").body(body.clone()).send().ok()?;
            (answer.status() == 202).then_some(())
        });
    }
}

#[test]
fn no_kill_at_any_moment_loses_or_doubles_an_acknowledged_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--flush-interval", "200ms", "--grace", "1s"]);
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut dice = Dice(2026);
    let mut totals = Totals::new();
    let producers: Vec<Producer> = (0..3).map(|name| Producer::new(name, &server)).collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = producers
            .into_iter()
            .map(|mut producer| {
                let (stop, acknowledged) = (&stop, &acknowledged);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let events = producer.events();
                        let historical = producer.dice.below(8) == 0;
                        producer.send(&events, historical);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    producer.totals
                })
            })
            .collect();
        for kill in 1..=6 {
            let until = acknowledged.load(Ordering::Relaxed) + 20 + dice.below(150);
            await_some("requests are acknowledged", || (acknowledged.load(Ordering::Relaxed) >= until).then_some(()));
            if kill == 3 {
                assert!(server.stop().success());
            } else {
                server.kill();
            }
            server.restart();
        }
        let until = acknowledged.load(Ordering::Relaxed) + 50;
        await_some("requests are acknowledged", || (acknowledged.load(Ordering::Relaxed) >= until).then_some(()));
        stop.store(true, Ordering::Relaxed);
        for producer in running {
            for (point, count) in producer.join().unwrap() {
                *totals.entry(point).or_default() += count;
            }
        }
    });
    let status = server.counted();
    let tally = &status["totals"]["tally"];
    let events: i64 = totals.iter().filter(|((entity, step, _), _)| entity == "site" && *step == DAY_S).map(|(_, count)| count).sum();
    assert_eq!(tally["counted"].as_i64().unwrap(), events, "{tally}");
    assert_eq!(tally["rejected"], 0, "{tally}");
    compare(&server, &totals);
    // And once more from what is stored alone, with every minute of the test closed.
    assert!(server.stop().success());
    server.restart();
    compare(&server, &totals);
}

/// Every point of every entity, also those that must be zero.
fn compare(server: &Server, totals: &Totals) {
    let day = now_ms() / 1_000 / DAY_S;
    let (start_s, end_s) = ((day - 8) * DAY_S, (day + 2) * DAY_S);
    let videos = (0..VIDEOS).map(|video| format!("videos/v%2F{video}"));
    let spaces = (0..SPACES).map(|space| format!("spaces/s{space}"));
    for entity in videos.chain(spaces).chain(["site".to_owned()]) {
        for (step, step_s) in STEPS {
            let answer = server.json(&format!("/v1/{entity}/views?start={start_s}&end={end_s}&step={step}"));
            let points = answer["points"].as_array().unwrap();
            assert_eq!(points.len() as u64, (end_s - start_s) / step_s);
            for (point, at_s) in points.iter().zip((start_s..).step_by(usize::try_from(step_s).unwrap())) {
                let expected = totals.get(&(entity.clone(), step_s, at_s)).copied().unwrap_or_default();
                assert_eq!(point["views"].as_i64().unwrap(), expected, "{entity} {step} {point}");
            }
        }
    }
}
