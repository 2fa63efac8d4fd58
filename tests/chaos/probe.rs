//! Asks all the time: how long after it was sent is an event in the answers, do answers come, do counts never fall.
//!
//! Each half second a round is sent: one event for a video of every source. A round is visible when each of these videos has as many views as
//! there were rounds, so that a source which nobody folds keeps it back.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use schemas::partition::positive_murmur2;
use serde_json::Value;

use crate::gap::Gap;
use crate::load::Door;
use crate::notes::{Click, Notes, now_ms};
use crate::program::client;
use crate::support::await_some;

const EVERY: Duration = Duration::from_millis(500);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The prober; it ends with this.
pub(crate) struct Probe {
    shared: Arc<Shared>,
    pub(crate) videos: Vec<String>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    running: AtomicBool,
    sending: AtomicBool,
    over: AtomicBool,
    /// When each round was sent.
    rounds: Mutex<Vec<Instant>>,
    /// When each round was seen in full; no longer than `rounds`.
    seen: Mutex<Vec<Instant>>,
    answers: Gap,
    /// What must never be, such as a count that fell.
    wrong: Mutex<Vec<String>>,
}

impl Probe {
    /// A prober of a log of so many sources that waits to be told to run.
    pub(crate) fn new(name: &str, sources: u32, door: &Door, query: &str, notes: &Notes) -> Self {
        let shared = Arc::new(Shared::default());
        let videos = videos(sources);
        let sender = {
            let (shared, door, notes, videos, name) = (Arc::clone(&shared), door.clone(), notes.clone(), videos.clone(), name.to_owned());
            thread::spawn(move || send(&shared, &door, &notes, &videos, &name))
        };
        let start_s = now_ms() / 1_000 - 3_600;
        let urls = videos
            .iter()
            .map(|video| format!("http://{query}/v1/videos/{video}/views?step=all&start={start_s}&end={}", start_s + 86_400))
            .collect::<Vec<_>>();
        let asker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || ask(&shared, &urls))
        };
        Self { shared, videos, threads: vec![sender, asker] }
    }

    /// Begins; the gap of answers is counted from now.
    pub(crate) fn run(&self) {
        self.shared.answers.begin();
        self.shared.running.store(true, Ordering::SeqCst);
    }

    /// Stops, and waits until what was sent is acknowledged.
    pub(crate) fn pause(&self) {
        self.shared.running.store(false, Ordering::SeqCst);
        await_some("the probes are acknowledged", || (!self.shared.sending.load(Ordering::SeqCst)).then_some(()));
    }

    /// Waits until an event that was sent after `struck` is in the answers for every source: how long after `struck` that was.
    pub(crate) fn fresh_after(&self, struck: Instant) -> Duration {
        await_some("there is a fresh answer", || {
            self.complain();
            let round = self.shared.rounds.lock().unwrap().iter().position(|sent| *sent > struck)?;
            self.shared.seen.lock().unwrap().get(round).map(|seen| seen.duration_since(struck))
        })
    }

    /// The longest time without an answer since the run began.
    pub(crate) fn longest_silence(&self) -> Duration {
        self.shared.answers.longest()
    }

    /// Panics with what was seen that must never be.
    pub(crate) fn complain(&self) {
        let wrong = self.shared.wrong.lock().unwrap().clone();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// A video of each source, by the hash that spreads them.
fn videos(sources: u32) -> Vec<String> {
    let sources = NonZeroU32::new(sources).unwrap();
    let of =
        |source: u32| (0..).map(|number| format!("probe{number}")).find(|video| positive_murmur2(video.as_bytes()) % sources == source);
    (0..sources.get()).filter_map(of).collect()
}

fn send(shared: &Shared, door: &Door, notes: &Notes, videos: &[String], name: &str) {
    for round in 0.. {
        while !shared.running.load(Ordering::SeqCst) && !shared.over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        shared.sending.store(true, Ordering::SeqCst);
        let (sent, ts_ms) = (Instant::now(), now_ms());
        let click = |video: &String| Click { id: format!("{name}-{video}-{round}"), video: video.clone(), space: None, ts_ms };
        let clicks: Vec<Click> = videos.iter().map(click).collect();
        notes.sent(&clicks);
        shared.rounds.lock().unwrap().push(sent);
        let body: String = clicks.iter().map(Click::json).collect();
        if door.send(&body, round, &shared.over) {
            notes.acknowledged(clicks.len());
        }
        shared.sending.store(false, Ordering::SeqCst);
        thread::sleep(EVERY.saturating_sub(sent.elapsed()));
    }
}

fn ask(shared: &Shared, urls: &[String]) {
    let http = client(10);
    let mut counts = vec![0; urls.len()];
    while !shared.over.load(Ordering::SeqCst) {
        for (url, count) in urls.iter().zip(&mut counts) {
            let Some(views) = http.get(url).send().ok().and_then(|answer| answer.json::<Value>().ok()?["total"].as_i64()) else { continue };
            shared.answers.beat();
            if views < *count {
                shared.wrong.lock().unwrap().push(format!("a visible count fell from {count} to {views}: {url}"));
            }
            *count = views;
        }
        let visible = usize::try_from(counts.iter().copied().min().unwrap_or(0)).unwrap();
        let mut seen = shared.seen.lock().unwrap();
        let rounds = shared.rounds.lock().unwrap().len();
        if visible > rounds {
            shared.wrong.lock().unwrap().push(format!("{visible} rounds are visible of {rounds} that were sent"));
        }
        while seen.len() < visible {
            seen.push(Instant::now());
        }
        drop(seen);
        thread::sleep(ASK_EVERY);
    }
}
