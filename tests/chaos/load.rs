//! A steady load: producers that each send a batch every 0.8 s and send it again until it is acknowledged.
//!
//! When acknowledgements stop for a while, the batches that were due follow at once: the rate holds on average.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::Value;

use crate::gap::Gap;
use crate::notes::{Click, Notes, now_ms};
use crate::program::client;
use crate::support::{Dice, await_some};

pub(crate) const VIDEOS: u64 = 24;
pub(crate) const SPACES: u64 = 5;
const PRODUCERS: u64 = 16;
const INTERVAL: Duration = Duration::from_millis(800);
/// Sixteen of these each 0.8 s are 5,200 events a second.
const BATCH: usize = 260;
/// A producer may repeat an event of so many batches before: of the last 24 s, and of the outage that lies between.
const RECENT: usize = 30;
/// Late events fall into so many minutes of the last day and a bit.
const LATE_MINUTES: u64 = 40;

/// The producers; they end with this.
pub(crate) struct Load {
    orders: Arc<Orders>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Orders {
    running: AtomicBool,
    over: AtomicBool,
    idle: AtomicUsize,
}

impl Load {
    /// Producers that wait to be told to run. Ids begin with `name`.
    pub(crate) fn new(name: &str, seed: u64, door: &Door, notes: &Notes) -> Self {
        let orders = Arc::new(Orders::default());
        let mut dice = Dice(seed);
        let late: Vec<i64> = (0..LATE_MINUTES).map(|_| now_ms() - i64::try_from(dice.below(26 * 3_600_000)).unwrap()).collect();
        let threads = (0..PRODUCERS)
            .map(|number| {
                let producer = Producer {
                    name: format!("{name}-{number}"),
                    dice: Dice(dice.roll()),
                    door: door.clone(),
                    notes: notes.clone(),
                    late: late.clone(),
                    recent: VecDeque::new(),
                    made: 0,
                };
                let orders = Arc::clone(&orders);
                thread::spawn(move || producer.run(&orders))
            })
            .collect();
        Self { orders, threads }
    }

    pub(crate) fn run(&self) {
        self.orders.running.store(true, Ordering::SeqCst);
    }

    /// Stops, and waits until everything sent is acknowledged.
    pub(crate) fn pause(&self) {
        self.orders.running.store(false, Ordering::SeqCst);
        await_some("all that was sent is acknowledged", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a producer has failed: see above");
            (self.orders.idle.load(Ordering::SeqCst) == self.threads.len()).then_some(())
        });
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.orders.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// Where events go in: some collectors, and what is known of their acknowledgements.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) urls: Vec<String>,
    pub(crate) http: Client,
    pub(crate) gap: Gap,
}

impl Door {
    /// Collectors at these addresses.
    pub(crate) fn new(addresses: &[String]) -> Self {
        let urls = addresses.iter().map(|address| format!("http://{address}/v1/events")).collect();
        Self { urls, http: client(10), gap: Gap::default() }
    }

    /// Sends until it is acknowledged or `over` is raised, to one collector after the other. Everything in it must be accepted.
    pub(crate) fn send(&self, body: &str, first: usize, over: &AtomicBool) -> bool {
        let events = body.lines().count();
        for attempt in first.. {
            let url = &self.urls[attempt % self.urls.len()];
            let answer = self.http.post(url).header("content-type", "application/x-ndjson").body(body.to_owned()).send();
            if let Some(answer) = answer.ok().filter(|answer| answer.status() == 202)
                && let Ok(text) = answer.text()
            {
                let said: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(said["accepted"].as_u64(), Some(events as u64), "{text}");
                self.gap.beat();
                return true;
            }
            if over.load(Ordering::SeqCst) {
                return false;
            }
            // A producer of good manners waits a little before it tries again.
            thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

struct Producer {
    name: String,
    dice: Dice,
    door: Door,
    notes: Notes,
    late: Vec<i64>,
    /// One of each of the last batches: no older than deduplication reaches.
    recent: VecDeque<Click>,
    made: u64,
}

impl Producer {
    fn run(mut self, orders: &Orders) {
        let mut due = Instant::now();
        let mut idle = false;
        while !orders.over.load(Ordering::SeqCst) {
            if !orders.running.load(Ordering::SeqCst) {
                if !idle {
                    idle = true;
                    orders.idle.fetch_add(1, Ordering::SeqCst);
                }
                thread::sleep(Duration::from_millis(5));
                due = Instant::now();
                continue;
            }
            if idle {
                idle = false;
                orders.idle.fetch_sub(1, Ordering::SeqCst);
            }
            let (clicks, body) = self.batch();
            self.notes.sent(&clicks);
            let door = usize::try_from(self.dice.below(8)).unwrap();
            if self.door.send(&body, door, &orders.over) {
                self.notes.acknowledged(clicks.len());
            }
            due += INTERVAL;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    /// New clicks, and the body that holds them and a few that were sent before: a producer that was not sure.
    fn batch(&mut self) -> (Vec<Click>, String) {
        let clicks: Vec<Click> = (0..BATCH).map(|_| self.click()).collect();
        let mut body: String = clicks.iter().map(Click::json).collect();
        for _ in 0..self.dice.below(8) {
            if let Some(again) = self.recent.get(usize::try_from(self.dice.below(RECENT as u64)).unwrap()) {
                body.push_str(&again.json());
            }
        }
        self.recent.push_back(clicks[0].clone());
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        (clicks, body)
    }

    /// Mostly of this moment, some late by minutes or a day, some a little ahead.
    fn click(&mut self) -> Click {
        let ts_ms = match self.dice.below(100) {
            0 | 1 => self.late[usize::try_from(self.dice.below(LATE_MINUTES)).unwrap()],
            2 => now_ms() + i64::try_from(self.dice.below(20_000)).unwrap(),
            3 => now_ms() - i64::try_from(self.dice.below(180_000)).unwrap(),
            _ => now_ms(),
        };
        let video = self.dice.below(VIDEOS).min(self.dice.below(VIDEOS));
        self.made += 1;
        let space = (video % 7 != 6).then(|| format!("s{}", video % SPACES));
        Click { id: format!("{}-{}", self.name, self.made), video: format!("v{video}"), space, ts_ms }
    }
}
