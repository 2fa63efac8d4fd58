//! Many at once on the real program: thousands of live streams, a flood of slow questions, a client that asks too often, and requests
//! that nobody sends in good faith.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::{PATIENCE, Server, await_some, lines_of, tallymark};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const STREAMS: usize = 5_000;

fn click(id: &str) -> Value {
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    json!({"event_id": id, "video_id": "v", "ts": now_ms})
}

/// KiB that a process has in memory, and seconds of processor time that it has used.
fn used(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: Vec<f64> = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|ticks| ticks.parse().unwrap()).collect();
    (kib, (ticks[0] + ticks[1]) / 100.0)
}

/// An open stream and what it has told so far.
struct Listener {
    stream: TcpStream,
    told: Vec<u8>,
}

impl Listener {
    async fn open(address: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        Self { stream, told: Vec::new() }
    }

    /// Reads on until it was told this.
    async fn until(mut self, what: &str) -> Self {
        let mut chunk = [0; 4_096];
        while !self.told.windows(what.len()).any(|told| told == what.as_bytes()) {
            let read = timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("something comes").unwrap();
            assert!(read > 0, "the stream ended: {}", String::from_utf8_lossy(&self.told));
            self.told.extend_from_slice(&chunk[..read]);
        }
        self.told = Vec::new();
        self
    }

    async fn ended(mut self) {
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut self.told)).await.expect("it ends").unwrap();
        assert!(self.told.ends_with(b"0\r\n\r\n"), "a stream ends whole, after {read} bytes");
    }
}

fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[test]
fn five_thousand_streams_see_a_click_by_one_read_a_second_and_end_politely() {
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let address = server.address().to_owned();
    let (kib, _) = used(server.pid());
    let open = |_| async { Listener::open(&address, "/v1/videos/v/live").await.until("\"all_time\":0,").await };
    let listeners: Vec<Listener> = runtime.block_on(stream::iter(0..STREAMS).map(open).buffer_unordered(100).collect());
    let streams: f64 = STREAMS.to_string().parse().unwrap();
    println!("{:.1} KiB a stream", (used(server.pid()).0 - kib) / streams);
    assert_eq!((server.metric("tallymark_query_live_streams"), server.metric("tallymark_query_live_feeds")), (streams, 1.0));
    // A stream is no request at work: others are answered.
    assert_eq!(server.json("/v1/site/views?step=all&start=0")["total"], 0);

    let (reads, begun, (_, busy)) = (server.metric("tallymark_query_live_reads_total"), Instant::now(), used(server.pid()));
    server.post(&[click("a")]);
    let listeners: Vec<Listener> =
        runtime.block_on(stream::iter(listeners).map(|listener| listener.until("\"all_time\":1,")).buffer_unordered(STREAMS).collect());
    let reads = server.metric("tallymark_query_live_reads_total") - reads;
    let (seconds, busy) = (begun.elapsed().as_secs_f64(), used(server.pid()).1 - busy);
    println!("all saw it within {seconds:.2} s, {:.1} us of processor time a stream, {reads} reads", busy * 1e6 / streams);
    assert!(reads <= seconds + 2.0, "{reads} reads in {seconds} s");

    let ending = runtime.spawn(stream::iter(listeners).for_each_concurrent(STREAMS, Listener::ended));
    let begun = Instant::now();
    assert!(server.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(30), "it did not wait until streams were cut off");
    runtime.block_on(ending).unwrap();
}

#[test]
fn a_flood_of_slow_questions_takes_down_neither_the_collector_nor_health() {
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.post(&[click("first")]);
    server.counted();
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let ask = |n: usize| {
        // Each is another 34 days by minute.
        let request = http.get(server.url(&format!("/v1/site/views?start={}&end={}&step=1m", n * 60, 2_900_000 + n * 60)));
        async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            assert!(status == 200 || status == 503 && response.headers().contains_key("retry-after"), "{status}");
            let body = response.bytes().await.unwrap();
            assert!(status == 200 || body.len() < 1_000);
            status
        }
    };
    let flood = runtime.spawn(stream::iter((0..1_000).map(ask).collect::<Vec<_>>()).buffer_unordered(1_000).collect::<Vec<u16>>());
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while !flood.is_finished() || asked == 0 {
        let begun = Instant::now();
        assert_eq!(server.get("/readyz").status(), 200);
        server.post(&[click(&format!("during {asked}"))]);
        slowest = slowest.max(begun.elapsed());
        asked += 1;
    }
    let statuses = runtime.block_on(flood).unwrap();
    let answered = statuses.iter().filter(|status| **status == 200).count();
    println!("{answered} of 1,000 answered; meanwhile {asked} times ready and collected, the slowest within {slowest:?}");
    assert!(answered > 0, "those that are admitted are answered");
    server.counted();
    assert_eq!(server.json("/v1/videos/v")["views"]["all_time"], asked + 1);
}

#[test]
fn a_client_that_asks_too_often_is_told_and_others_routes_stay_open() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--rate-limit", "2"]);
    let refused = await_some("a request too many", || Some(server.get("/v1/site/views")).filter(|response| response.status() == 429));
    let header = |name: &str| refused.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((header("ratelimit-policy"), header("ratelimit")), ("\"default\";q=2;w=1".into(), "\"default\";r=0;t=1".into()));
    assert_eq!(header("retry-after"), "1");
    let problem: Value = refused.json().unwrap();
    assert_eq!((&problem["type"], &problem["violated-policies"]), (&"/problems/quota-exceeded".into(), &json!(["default"])));
    for _ in 0..10 {
        assert_eq!(server.get("/readyz").status(), 200);
        server.post(&[click("a")]);
    }
    let unlimited = Server::start(tempfile::tempdir().unwrap().path(), &["--rate-limit", "0"]);
    assert!(!unlimited.get("/v1/site/views").headers().contains_key("ratelimit"));
}

/// What comes back for bytes that were sent.
fn told(server: &Server, sent: &[u8]) -> String {
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be refused before it was sent.
    let _ = stream.write_all(sent);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_request_that_is_too_long_or_none_at_all_is_refused_and_the_next_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--header-timeout", "1s"]);
    let long = |length: usize| "x".repeat(length);
    for (sent, status) in [
        (format!("GET /v1/site/views?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", long(9_000)), "414"),
        (format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-much: {}\r\nconnection: close\r\n\r\n", long(20_000)), "431"),
        (format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-much: {}\r\n\r\n", long(200_000)), "431"),
        (format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(1_000)), "431"),
        ("\0\x01\x02 nonsense\r\n\r\n".to_owned(), "400"),
        ("GET /livez HTTP/1.1\r\nhost: x\r\nx-request-id: a b\r\nconnection: close\r\n\r\n".to_owned(), "200"),
        ("GET /v1/videos/%ff%fe/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = told(&server, sent.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:.60}: {answer}", sent);
    }
    assert_eq!(server.get("/livez").status(), 200);
}

#[test]
fn each_request_has_a_line_in_the_log_by_its_names_and_without_its_query() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = tallymark(&["run", "--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .args(["--access-log", "--log-format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let first = lines_of(&mut child).recv_timeout(PATIENCE).unwrap();
    let address = first.split_once("http://").unwrap().1.split(',').next().unwrap().to_owned();
    let http = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let response = http
        .get(format!("http://{address}/v1/videos/v/views?start=secret"))
        .header("x-request-id", "mine-7")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .send()
        .unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-request-id"]), (400, &"mine-7".parse().unwrap()));
    assert_eq!(response.json::<Value>().unwrap()["request_id"], "mine-7");
    support::signal(&child, "TERM");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    let line: Value = said.lines().filter(|line| line.contains("mine-7")).map(|line| serde_json::from_str(line).unwrap()).next().unwrap();
    assert!(!line.to_string().contains("secret"), "{line}");
    assert_eq!((&line["target"], &line["level"]), (&"access".into(), &"INFO".into()));
    assert_eq!((&line["span"]["request_id"], &line["span"]["trace_id"]), (&"mine-7".into(), &trace.into()));
    let fields = &line["fields"];
    assert_eq!((&fields["method"], &fields["status"], &fields["client"]), (&"GET".into(), &400.into(), &"127.0.0.1".into()));
    assert_eq!((&fields["route"], &fields["path"]), (&"/v1/videos/{id}/views".into(), &"/v1/videos/v/views".into()));
    assert!(fields["ms"].is_number() && fields["bytes"].is_number(), "{line}");
}
