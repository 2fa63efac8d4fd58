//! The real binary, driven as a user would: import end to end, queries, freshness, memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::events::{self, Shape};
use crate::report::{Report, target_dir};
use crate::usage::{cpu_seconds, peak_rss_mib};

const IMPORT_EVENTS: usize = 1_000_000;
const MEMORY_EVENTS: usize = 5_000_000;
const MEMORY_VIDEOS: usize = 200_000;
const QUERIES: usize = 5_000;
const FRESH_SECONDS: usize = 20;
const FRESH_RATE: usize = 5_000;

/// Runs the measurements that are wanted.
pub(crate) fn run(wanted: &impl Fn(&str) -> bool, runs: usize, report: &mut Report) {
    let dir = tempfile::tempdir_in(target_dir()).unwrap();
    if wanted("import") || wanted("query") {
        let file = dir.path().join("import.ndjson");
        write_file(&file, IMPORT_EVENTS, 100_000);
        for _ in 0..runs {
            import(&file, wanted("query"), report);
        }
    }
    if wanted("freshness") {
        freshness(report);
    }
    if wanted("memory") {
        memory(dir.path(), report);
    }
}

/// One import of a file into an empty server, until every event is in the answers; then queries of what it counted.
fn import(file: &Path, queries: bool, report: &mut Report) {
    let server = Server::start();
    let cpu = cpu_seconds(&server.pid());
    let began = Instant::now();
    server.import(file);
    server.await_counts(IMPORT_EVENTS);
    let seconds = began.elapsed().as_secs_f64();
    let events = IMPORT_EVENTS as f64;
    report.note("import_end_to_end", "events/s", Some(100_000.0), events / seconds);
    report.note("import_server", "events/CPU-s", None, events / (cpu_seconds(&server.pid()) - cpu));
    if queries {
        let now = schemas::Millis::now().0 / 1_000;
        let range = format!("start={}&end={now}&step=1m", now - 86_400);
        server.queries("query_hit_1d_by_minute", |n| format!("/v1/videos/v{}/views?{range}", n % 100), report);
        let range = format!("start={}&end={now}&step=1d", now - 30 * 86_400);
        server.queries("query_hit_30d_by_day", |n| format!("/v1/videos/v{}/views?{range}", n % 100), report);
        server.queries("query_miss_30d_by_day", |n| format!("/v1/videos/unseen{n}/views?{range}"), report);
    }
}

/// From an acknowledged event to an answer that holds it, while 5,000 events a second flow.
fn freshness(report: &mut Report) {
    let server = Server::start();
    let mut waits: Vec<f64> = Vec::new();
    let began = Instant::now();
    let pollers: Vec<_> = (0..FRESH_SECONDS * 10)
        .map(|batch| {
            let due = Duration::from_millis(100) * u32::try_from(batch).unwrap();
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let marker = format!("fresh{batch}");
            let mut body = Vec::new();
            let now = schemas::Millis::now().0;
            for n in 0..FRESH_RATE / 10 {
                events::write_json(&mut body, batch * FRESH_RATE + n, n * 7, n as u64, now);
                body.push(b'\n');
            }
            writeln!(body, r#"{{"event_id":"{marker}","video_id":"{marker}","ts":{now}}}"#).unwrap();
            let mut connection = server.connect();
            let (status, _) = request(&mut connection, "POST", "/v1/events", "application/x-ndjson", &body);
            assert_eq!(status, 202);
            let acknowledged = Instant::now();
            std::thread::spawn(move || {
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
    waits.extend(pollers.into_iter().map(|poller| poller.join().unwrap()));
    waits.sort_by(f64::total_cmp);
    report.note_ceiling("freshness_p50", "s", None, waits[waits.len() / 2]);
    report.note_ceiling("freshness_p99", "s", Some(2.0), waits[waits.len() * 99 / 100]);
}

/// The most memory that the server takes while 5 M events over 200 K videos are imported.
fn memory(dir: &Path, report: &mut Report) {
    let file = dir.join("memory.ndjson");
    write_file(&file, MEMORY_EVENTS, MEMORY_VIDEOS);
    let server = Server::start();
    server.import(&file);
    server.await_counts(MEMORY_EVENTS);
    report.note_ceiling("memory_import_5m", "MiB", Some(1_024.0), peak_rss_mib(&server.pid()));
}

/// Events of the last hour, the newest just now.
fn write_file(path: &Path, events: usize, videos: usize) {
    let span_ms = 3_600_000;
    let shape = Shape { events, videos, start_ms: schemas::Millis::now().0 - span_ms, span_ms };
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut line = Vec::new();
    events::generate(shape, |n, video, viewer, ts| {
        line.clear();
        events::write_json(&mut line, n, video, viewer, ts);
        line.push(b'\n');
        file.write_all(&line).unwrap();
    });
    file.flush().unwrap();
}

/// A running `tallymark run` with data of its own.
struct Server {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let data = tempfile::tempdir_in(target_dir()).unwrap();
        let mut child = Command::new(binary())
            .args(["run", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("build the program first: cargo build --release");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            lines.by_ref().map(Result::unwrap).find_map(|line| Some(line.split_once("http://")?.1.split([',', ' ']).next()?.to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { child, address: address.expect("it prints its address"), _data: data };
        while request(&mut server.connect(), "GET", "/readyz", "", b"").0 != 200 {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(&self.address).unwrap();
        connection.set_nodelay(true).unwrap();
        connection
    }

    fn import(&self, file: &Path) {
        let url = format!("http://{}", self.address);
        let done = Command::new(binary()).arg("import").arg(file).args(["--to", &url]).stderr(Stdio::null()).stdout(Stdio::null()).status();
        assert!(done.unwrap().success());
    }

    /// Waits until the answers hold so many views.
    fn await_counts(&self, events: usize) {
        let mut connection = self.connect();
        let now = schemas::Millis::now().0 / 1_000;
        let path = format!("/v1/site/views?start={}&end={}&step=all", now - 86_400, now + 3_600);
        loop {
            let (_, answer) = request(&mut connection, "GET", &path, "", b"");
            if serde_json::from_slice::<Value>(&answer).unwrap()["total"].as_u64() == Some(events as u64) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One client, one request after the other: requests per CPU-second of the server, and how long one takes.
    fn queries(&self, name: &str, path: impl Fn(usize) -> String, report: &mut Report) {
        let mut connection = self.connect();
        let cpu = cpu_seconds(&self.pid());
        let mut times: Vec<f64> = (0..QUERIES)
            .map(|n| {
                let began = Instant::now();
                let (status, body) = request(&mut connection, "GET", &path(n), "", b"");
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        report.note(name, "requests/CPU-s", None, QUERIES as f64 / (cpu_seconds(&self.pid()) - cpu).max(0.01));
        times.sort_by(f64::total_cmp);
        report.note_ceiling(&format!("{name}_p99"), "ms", None, times[QUERIES * 99 / 100]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    target_dir().join("release").join("tallymark")
}

/// One HTTP/1.1 request over a connection that stays open: the status and the body.
fn request(connection: &mut TcpStream, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let kind = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{kind}Content-Length: {}\r\n\r\n", body.len());
    connection.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (status, body)
}
