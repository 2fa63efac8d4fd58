//! The real binary, driven as a user would: import end to end, queries, freshness.
//!
//! Freshness is the time from the acknowledgement of an event (`POST /v1/events` answered 202) until an answer holds it, while events
//! come at half of the rate at which the same server imports them on this machine, with its clients beside it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::events::{Generator, Shape};
use crate::lab::{Lab, Missing};
use crate::report::target_dir;
use crate::usage::cpu_seconds;

const QUERIES: usize = 5_000;
const FRESH_SECONDS: usize = 20;
/// Events are sent so many times a second, a marker with them.
const FRESH_POSTS: usize = 10;

const QUERY_NAMES: [[&str; 2]; 3] = [
    ["query_hit_1d_by_minute", "query_hit_1d_by_minute_p99"],
    ["query_hit_30d_by_day", "query_hit_30d_by_day_p99"],
    ["query_miss_30d_by_day", "query_miss_30d_by_day_p99"],
];

pub(crate) const NAMES: &[&str] = &[
    "import_end_to_end",
    "import_server",
    QUERY_NAMES[0][0],
    QUERY_NAMES[0][1],
    QUERY_NAMES[1][0],
    QUERY_NAMES[1][1],
    QUERY_NAMES[2][0],
    QUERY_NAMES[2][1],
    "freshness_p50",
    "freshness_p99",
];

pub(crate) fn run(lab: &mut Lab) -> Result<(), Missing> {
    let dir = tempfile::tempdir_in(target_dir()).unwrap();
    let file = dir.path().join("import.ndjson");
    let events = lab.options.events.min(1_000_000);
    write_file(&file, events);
    let queries = lab.wants(&QUERY_NAMES.concat());
    let mut peak = 0.0f64;
    lab.rounds("import and queries", |_| {
        let figures = import(&file, events, queries);
        peak = figures.iter().filter(|(name, _)| *name == "import_end_to_end").map(|(_, rate)| *rate).fold(peak, f64::max);
        figures
    });
    if lab.wants(&["freshness_p50", "freshness_p99"]) {
        let seconds = if lab.options.quick { 3 } else { FRESH_SECONDS };
        lab.some_rounds("freshness at half of the peak rate", lab.options.runs.min(3), |_| freshness(peak / 2.0, seconds));
    }
    Ok(())
}

/// One import of a file into an empty server, until every event is in the answers; then queries of what it counted.
fn import(file: &Path, events: u64, queries: bool) -> Vec<(&'static str, f64)> {
    let server = Server::start();
    let cpu = cpu_seconds(&server.pid());
    let began = Instant::now();
    server.import(file);
    server.await_counts(events);
    let (seconds, events) = (began.elapsed().as_secs_f64(), events as f64);
    let mut figures = vec![("import_end_to_end", events / seconds), ("import_server", events / (cpu_seconds(&server.pid()) - cpu))];
    if queries {
        let now = schemas::Millis::now().0 / 1_000;
        let of = |n: usize, range: &str| format!("/v1/videos/v{}/views?{range}", 100_000 + n % 100 * 7_919 % 100_000);
        let range = format!("start={}&end={now}&step=1m", now - 86_400);
        figures.extend(server.queries(QUERY_NAMES[0], |n| of(n, &range)));
        let range = format!("start={}&end={now}&step=1d", now - 30 * 86_400);
        figures.extend(server.queries(QUERY_NAMES[1], |n| of(n, &range)));
        figures.extend(server.queries(QUERY_NAMES[2], |n| format!("/v1/videos/unseen{n}/views?{range}")));
    }
    figures
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
    fn await_counts(&self, events: u64) {
        let mut connection = self.connect();
        let now = schemas::Millis::now().0 / 1_000;
        let path = format!("/v1/site/views?start={}&end={}&step=all", now - 86_400, now + 3_600);
        loop {
            let (_, answer) = request(&mut connection, "GET", &path, "", b"");
            if serde_json::from_slice::<Value>(&answer).unwrap()["total"].as_u64() == Some(events) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One client, one request after the other: requests per CPU-second of the server, and how long one takes.
    fn queries(&self, [name, p99]: [&'static str; 2], path: impl Fn(usize) -> String) -> [(&'static str, f64); 2] {
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
        times.sort_by(f64::total_cmp);
        [(name, QUERIES as f64 / (cpu_seconds(&self.pid()) - cpu).max(0.01)), (p99, times[QUERIES * 99 / 100])]
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
