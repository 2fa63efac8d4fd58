//! The collector of the real program as the internet meets it: what its settings make of requests, and that crowds of clients that
//! are slow, silent or too many cost it little.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::{PATIENCE, Server, await_some, output, text};

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn click(id: &str) -> Value {
    json!({"event_id": id, "video_id": "v", "viewer_id": "alice", "ts": now_ms()})
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn resident_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let kib: u64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1_024
}

#[test]
fn an_event_comes_in_compressed_late_by_its_clock_twice_and_through_a_proxy_and_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["--trusted-proxies", "127.0.0.0/8", "--enrich", "ip,user_agent,received", "--viewer-salt", "daily"];
    let server = Server::start(dir.path(), &settings);
    // An hour slow: counted in the wrong hour if nobody corrected it.
    let (hour_ms, now) = (3_600_000, now_ms());
    let event = json!({"event_id": "e", "video_id": "v", "viewer_id": "alice", "client_ip": "6.6.6.6", "ts": now - hour_ms});
    let send = || {
        let request = server.http.post(server.url("/v1/events")).header("content-encoding", "gzip").header("content-type", "text/plain");
        let request = request.header("tallymark-sent-at", (now_ms() - hour_ms).to_string()).header("idempotency-key", "\"k\"");
        let request = request.header("x-forwarded-for", "6.6.6.6, 203.0.113.77").header("user-agent", "phone/1");
        request.body(gzip(event.to_string().as_bytes())).send().unwrap()
    };
    let (first, second) = (send(), send());
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (202, 202));
    assert_eq!((first.headers().get("idempotent-replayed"), &second.headers()["idempotent-replayed"]), (None, &"true".parse().unwrap()));
    server.post(&[click("f")]);
    server.counted();
    assert_eq!(server.json("/v1/videos/v")["views"]["last_hour"], 2);
    assert_eq!(server.metric("tallymark_collect_events_clock_corrected_total"), 1.0);
    let tapped = text(&output(&["tap", "--url", &server.url(""), "--from", "start", "--video", "v"]));
    let line = tapped.lines().find(|line| line.contains("phone/1")).unwrap_or_else(|| panic!("{tapped}"));
    assert!(line.contains("203.0.113.0") && line.contains("received_at"), "{line}");
    assert!(!tapped.contains("6.6.6.6") && !tapped.contains("alice"), "{tapped}");
}

#[test]
fn a_client_over_its_quota_is_told_so_and_a_forged_address_does_not_help() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--address-requests", "2", "--address-events", "100"]);
    let mut forged = 0;
    let refused = await_some("a request too many", || {
        forged += 1;
        let request = server.http.post(server.url("/v1/events")).header("x-forwarded-for", format!("203.0.113.{forged}"));
        Some(request.json(&click("a")).send().unwrap()).filter(|response| response.status() == 429)
    });
    assert!(forged < 100);
    let header = |name: &str| refused.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("ratelimit-policy"), "\"address-requests\";q=2;w=1, \"address-events\";q=100;w=1");
    assert_eq!(header("retry-after"), "1");
    assert_eq!(refused.json::<Value>().unwrap()["violated-policies"], json!(["address-requests"]));
    assert_eq!(server.get("/readyz").status(), 200);
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_name() {
    for (flag, value) in [
        ("--trusted-proxies", "10.0.0.0/40"),
        ("--enrich", "everything"),
        ("--client-ip", "half"),
        ("--viewer-salt", "weekly"),
        ("--key-events", "many"),
    ] {
        let said = output(&["run", flag, value, "--listen", "127.0.0.1:0"]);
        assert!(!said.status.success());
        let name = flag.trim_start_matches("--").replace('-', "_");
        assert!(text(&said).contains(&name) && text(&said).contains(value), "{}", text(&said));
    }
}

/// Connections that have sent this.
fn crowd(server: &Server, size: usize, sent: &[u8]) -> Vec<TcpStream> {
    let connect = || {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // It may be refused before all is sent.
        let _ = stream.write_all(sent);
        stream
    };
    (0..size).map(|_| connect()).collect()
}

/// The status of the answer, if there is one before the end.
fn status(stream: &mut TcpStream) -> Option<String> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned)
}

fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[test]
fn slow_heads_slow_bodies_and_silent_connections_end_and_others_are_served_meanwhile() {
    allow_many_files();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--header-timeout", "2s"]);
    let begun = Instant::now();
    let silent = crowd(&server, 200, b"");
    let heads = crowd(&server, 200, b"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-slow: ");
    // 30 s would be its time; at no byte a second it is out after 5.
    let bodies =
        crowd(&server, 200, b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n{\"event_id\":");
    server.post(&[click("during")]);
    let mut answers: Vec<Option<String>> = Vec::new();
    for mut stream in bodies {
        answers.push(status(&mut stream));
    }
    assert!(answers.iter().all(|answer| answer.as_deref() == Some("408")), "{answers:?}");
    for mut stream in heads.into_iter().chain(silent) {
        assert!(matches!(status(&mut stream).as_deref(), None | Some("408")));
    }
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    server.counted();
    assert_eq!(server.json("/v1/videos/v")["views"]["all_time"], 1);
    assert_eq!(server.metric("tallymark_collect_in_flight_body_bytes"), 0.0);
}

#[test]
fn a_thousand_connections_that_each_send_much_cost_no_more_memory_than_is_for_bodies() {
    allow_many_files();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--max-inflight", "32MiB"]);
    server.post(&[click("before")]);
    let before = resident_mib(&server);
    // 1,000 bodies of 8 MiB of which half a megabyte comes: 500 MB, for which there is a place of 32 MiB.
    let head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\nconnection: close\r\n\r\n".to_vec();
    let body = [head, vec![b' '; 500_000]].concat();
    let crowd = crowd(&server, 1_000, &body);
    let held = server.metric("tallymark_collect_in_flight_body_bytes");
    let most = resident_mib(&server);
    println!("{before} MiB before, {most} MiB with 1,000 connections, {held} bytes of bodies");
    assert!(held <= 32.0 * 1_048_576.0);
    // Twice the bodies in growing buffers, and what 1,000 connections have for reading.
    assert!(most - before < 64 + 128, "{before} MiB, then {most} MiB");
    // One address holds half: who comes from another is not there to try, but questions are answered.
    assert_eq!(server.get("/readyz").status(), 200);
    drop(crowd);
    await_some("all is given back", || (server.metric("tallymark_collect_in_flight_body_bytes") == 0.0).then_some(()));
    server.post(&[click("after")]);
}

#[test]
fn a_thousand_zip_bombs_cost_little() {
    allow_many_files();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.post(&[click("before")]);
    let before = resident_mib(&server);
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        bomb.len()
    );
    let begun = Instant::now();
    for _ in 0..10 {
        for mut stream in crowd(&server, 100, &[head.as_bytes(), &bomb].concat()) {
            let status = status(&mut stream);
            assert!(matches!(status.as_deref(), Some("413" | "429" | "503")), "{status:?}");
        }
    }
    let after = resident_mib(&server);
    println!("1,000 bombs of 64 MiB in {:?}; {before} MiB before, {after} MiB after", begun.elapsed());
    assert!(after - before.min(after) < 96, "{before} MiB, then {after} MiB");
    server.post(&[click("after")]);
}
