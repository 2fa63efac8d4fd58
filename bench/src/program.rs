//! The real binary, driven as a user would: import end to end, freshness.
//!
//! Freshness is the time from the acknowledgement of an event (`POST /v1/events` answered 202) until an answer holds it, while events
//! come at half of the rate at which the same server imports them on this machine, with its clients beside it.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::events::{Generator, Shape};
use crate::lab::{Lab, Missing};
use crate::report::target_dir;
use crate::server::{Server, request};
use crate::usage::cpu_seconds;

const FRESH_SECONDS: usize = 20;
/// Events are sent so many times a second, a marker with them.
const FRESH_POSTS: usize = 10;

pub(crate) const NAMES: &[&str] = &["import_end_to_end", "import_server", "freshness_p50", "freshness_p99"];

pub(crate) fn run(lab: &mut Lab) -> Result<(), Missing> {
    let dir = tempfile::tempdir_in(target_dir()).unwrap();
    let file = dir.path().join("import.ndjson");
    let events = lab.options.events.min(1_000_000);
    write_file(&file, events);
    let mut peak = 0.0f64;
    lab.rounds("import", |_| {
        let figures = import(&file, events);
        peak = figures.iter().filter(|(name, _)| *name == "import_end_to_end").map(|(_, rate)| *rate).fold(peak, f64::max);
        figures
    });
    if lab.wants(&["freshness_p50", "freshness_p99"]) {
        let seconds = if lab.options.quick { 3 } else { FRESH_SECONDS };
        lab.some_rounds("freshness at half of the peak rate", lab.options.runs.min(3), |_| freshness(peak / 2.0, seconds));
    }
    Ok(())
}

/// One import of a file into an empty server, until every event is in the answers.
fn import(file: &Path, events: u64) -> Vec<(&'static str, f64)> {
    let server = Server::start();
    let cpu = cpu_seconds(&server.pid());
    let began = Instant::now();
    server.import(file);
    server.await_counts(1, events);
    let (seconds, events) = (began.elapsed().as_secs_f64(), events as f64);
    vec![("import_end_to_end", events / seconds), ("import_server", events / (cpu_seconds(&server.pid()) - cpu))]
}

/// From an acknowledged event to an answer that holds it, while `rate` events a second come.
fn freshness(rate: f64, seconds: usize) -> Vec<(&'static str, f64)> {
    let server = Server::start();
    let mut generator = Generator::new(&Shape::traffic(1));
    let per_post = (rate / FRESH_POSTS as f64) as usize;
    eprintln!("  {rate:.0} events a second");
    let began = Instant::now();
    let pollers: Vec<_> = (0..seconds * FRESH_POSTS)
        .map(|post| {
            let marker = format!("fresh{post}");
            let mut body = Vec::new();
            let now = schemas::Millis::now().0;
            for _ in 0..per_post {
                generator.at(now).write_json(&mut body);
                body.push(b'\n');
            }
            writeln!(body, r#"{{"event_id":"{marker}","video_id":"{marker}","ts":{now}}}"#).unwrap();
            let due = Duration::from_secs(1) * u32::try_from(post).unwrap() / FRESH_POSTS as u32;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let mut connection = server.connect();
            std::thread::spawn(move || {
                let (status, answer) = request(&mut connection, "POST", "/v1/events", "application/x-ndjson", &body);
                assert_eq!(status, 202, "{}", String::from_utf8_lossy(&answer));
                let acknowledged = Instant::now();
                let path = format!("/v1/videos/{marker}/views?step=all");
                loop {
                    let (_, answer) = request(&mut connection, "GET", &path, "", b"");
                    if serde_json::from_slice::<Value>(&answer).unwrap()["total"] == 1 {
                        return acknowledged.elapsed().as_secs_f64();
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        })
        .collect();
    let sent = began.elapsed().as_secs_f64();
    assert!(sent < 1.1 * seconds as f64, "the client was too slow: {sent} s instead of {seconds}");
    let mut waits: Vec<f64> = pollers.into_iter().map(|poller| poller.join().unwrap()).collect();
    waits.sort_by(f64::total_cmp);
    vec![("freshness_p50", waits[waits.len() / 2]), ("freshness_p99", waits[waits.len() * 99 / 100])]
}

/// Events of the last hour, the newest just now.
fn write_file(path: &Path, events: u64) {
    let shape = Shape::traffic(events);
    let shape = Shape { start_ms: schemas::Millis::now().0 - shape.span_ms, ..shape };
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut line = Vec::new();
    for view in Generator::new(&shape) {
        line.clear();
        view.write_json(&mut line);
        line.push(b'\n');
        file.write_all(&line).unwrap();
    }
    file.flush().unwrap();
}
