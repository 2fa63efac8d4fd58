//! The program as its user meets it: help, refusals that say the way out, start and stop, status and tap.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, lines_of, output, tallymark, text};

fn event(id: &str, video: &str) -> Value {
    json!({"event_id": id, "video_id": video, "ts": "2026-01-02T03:04:05Z"})
}

/// Runs a server that must refuse to start; what it says.
fn refusal(args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut all = vec!["run", "--data", dir.path().to_str().unwrap()];
    all.extend(args);
    let output = output(&all);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    text(&output)
}

#[test]
fn help_teaches_by_examples() {
    for (args, says) in [
        (vec!["--help"], "Start here:"),
        (vec![], "Start here:"),
        (vec!["run", "--help"], "TALLYMARK_FLUSH_INTERVAL=250ms tallymark run"),
        (vec!["run", "--help"], "--dedup-minutes"),
        (vec!["import", "--help"], "--map video_id=item_id,viewer_id=user_id,ts=ts_ms --historical"),
        (vec!["tap", "--help"], "tallymark tap --follow"),
        (vec!["status", "--help"], "Exit code: 0"),
        (vec!["top", "--help"], "tallymark top --spaces --rising"),
        (vec!["rejected", "retry", "--help"], "tallymark rejected retry --reason in_future --publish"),
        (vec!["event", "--help"], "tallymark event e1 --video v1 --within 2h"),
        (vec!["collect", "--help"], "tallymark collect --kafka-brokers k1:9092"),
        (vec!["aggregate", "--help"], "hands the partitions over"),
        (vec!["query", "--help"], "tallymark status --url"),
        (vec!["archive", "--help"], "tallymark archive verify --archive s3://bucket/views"),
        (vec!["migrate", "--help"], "--sources 12"),
    ] {
        let output = output(&args);
        assert!(text(&output).contains(says), "{args:?}: {}", text(&output));
    }
}

#[test]
fn config_check_shows_every_key_with_its_value_and_origin() {
    let output = tallymark(&["config", "check", "--grace", "3s"]).env("TALLYMARK_SPREAD", "2").output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for says in ["From: --grace.\ngrace = \"3s\"", "From: TALLYMARK_SPREAD.\nspread = 2", "From: default.\ndedup_minutes = 10"] {
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn settings_that_cannot_be_are_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.toml");
    std::fs::write(&file, "dedup_minute = 10\n").unwrap();
    let said = refusal(&["--config", file.to_str().unwrap()]);
    assert!(said.contains("did you mean \"dedup_minutes\"?") && said.contains("t.toml"), "{said}");
    let said = refusal(&["--max-skew", "fast"]);
    assert!(said.contains("max_skew = \"fast\" (from --max-skew) cannot be used: allowed is a duration from 0 to 1h"), "{said}");
    let output = tallymark(&["run"]).env("TALLYMARK_LISTNE", "x").output().unwrap();
    assert!(text(&output).contains("did you mean \"TALLYMARK_LISTEN\"?"), "{}", text(&output));
}

#[test]
fn a_part_of_many_needs_what_it_shares_with_the_others() {
    let brokers = ["--kafka-brokers", "127.0.0.1:1"];
    let nodes = ["--cassandra-nodes", "127.0.0.1:1"];
    for (args, says) in [
        (vec!["collect"], "tallymark collect --kafka-brokers host:9092"),
        (vec!["aggregate"], "tallymark aggregate --kafka-brokers host:9092 --cassandra-nodes host:9042"),
        (["aggregate"].into_iter().chain(brokers).collect(), "cassandra_nodes"),
        (["query"].into_iter().chain(nodes).collect(), "kafka_brokers"),
    ] {
        let output = output(&args);
        let said = text(&output);
        assert!(output.status.code() == Some(1) && said.contains(says) && said.contains("tallymark run"), "{args:?}: {said}");
    }
    assert!(refusal(&brokers).contains("--cassandra-nodes host:port"));
    assert!(refusal(&nodes).contains("--kafka-brokers host:port"));
    let nothing = output(&["migrate", "--data", "/nowhere"]);
    assert!(nothing.status.success() && text(&nothing).contains("nothing to migrate"), "{}", text(&nothing));
}

/// A process that must refuse to start because of Kafka; what it says, within 15 s.
#[cfg(feature = "kafka")]
fn refused_by_kafka(args: &[&str]) -> String {
    let begun = std::time::Instant::now();
    let output = output(&[&["collect", "--listen", "127.0.0.1:0"], args].concat());
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    text(&output)
}

#[cfg(feature = "kafka")]
#[test]
fn a_broker_that_is_not_there_and_a_property_that_is_none_are_named() {
    // Bound and closed again: nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let said = refused_by_kafka(&["--kafka-brokers", &free]);
    assert!(said.contains(&free) && said.contains("Give another broker with --kafka-brokers host:port"), "{said}");
    let said = refused_by_kafka(&["--kafka-brokers", &free, "--kafka-properties", "lingr.ms=1"]);
    assert!(said.contains("lingr.ms"), "{said}");
    let said = refused_by_kafka(&["--kafka-brokers", &free, "--kafka-properties-file", "/nowhere/secret"]);
    assert!(said.contains("kafka_properties_file") && said.contains("/nowhere/secret"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "sasl.password=hunter2\nhunter3\n").unwrap();
    let said = refused_by_kafka(&["--kafka-brokers", &free, "--kafka-properties-file", file.to_str().unwrap()]);
    assert!(said.contains("line 2") && !said.contains("hunter"), "{said}");
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_backend_that_is_not_built_in_is_refused_with_the_feature_to_build() {
    let output = output(&["collect", "--kafka-brokers", "127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("--features kafka") && said.contains("kafka_brokers"), "{said}");
}

#[test]
fn a_listener_that_others_can_reach_is_refused_without_insecure() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let said = refusal(&["--listen", listen]);
        assert!(said.contains("--insecure") && said.contains("reachable from other machines"), "{said}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut child, address) =
        support::launch(tallymark(&["run", "--data", dir.path().to_str().unwrap(), "--listen", "0.0.0.0:0", "--insecure"]));
    assert!(address.starts_with("0.0.0.0:"));
    support::signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_server_goes_on_when_nobody_reads_what_it_says() {
    // Several, because it is a race: whoever started it may go after the first line, or between two.
    for _ in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let mut server = tallymark(&["run", "--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0", "--access-log"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdout, mut line) = (server.stdout.take().unwrap(), Vec::new());
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        drop((stdout, server.stderr.take()));
        let line = String::from_utf8(line).unwrap();
        let address = line.split_once("http://").unwrap().1.split(',').next().unwrap();
        // Each is told of, or would be.
        for _ in 0..3 {
            let answer = reqwest::blocking::Client::builder().no_proxy().build().unwrap().get(format!("http://{address}/livez")).send();
            assert_eq!(answer.unwrap().status(), 200);
        }
        support::signal(&server, "TERM");
        assert!(server.wait().unwrap().success());
    }
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refusal(&["--listen", &address]);
    assert!(said.contains(&address) && said.contains("choose another port with --listen"), "{said}");
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let inside = file.join("data");
    for data in [file.to_str().unwrap(), inside.to_str().unwrap()] {
        let output = output(&["run", "--data", data, "--listen", "127.0.0.1:0"]);
        assert!(output.status.code() == Some(1) && text(&output).contains(data), "{}", text(&output));
    }
    let server = Server::start(dir.path(), &[]);
    let output = output(&["run", "--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains(dir.path().to_str().unwrap()) && said.contains("another"), "{said}");
    drop(server);
}

#[test]
fn rules_that_counts_were_made_by_do_not_change_by_editing_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    server.post(&[json!({"event_id": "a", "video_id": "v", "ts": now()})]);
    server.counted();
    assert!(server.stop().success());
    let output = output(&["run", "--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:0", "--grace", "11s"]);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("grace") && said.contains("10000"), "{said}");
}

fn now() -> u64 {
    u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn sigterm_stores_everything_and_exits_with_0() {
    let dir = tempfile::tempdir().unwrap();
    // So long that only the stop can have stored it.
    let mut server = Server::start(dir.path(), &["--flush-interval", "1m"]);
    let events: Vec<Value> = (0..100).map(|n| json!({"event_id": format!("e{n}"), "video_id": "v", "ts": now()})).collect();
    server.post(&events);
    assert!(server.stop().success());
    server.restart();
    let status = server.json("/v1/status");
    assert_eq!(status["totals"]["tally"]["counted"], 100, "the checkpoint was there at the start");
    assert_eq!(server.json("/v1/videos/v")["views"]["all_time"], 100);
    assert!(server.stop_by("INT").success());
}

#[test]
fn health_and_metrics_and_paths_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.post(&[
        json!({"event_id": "a", "video_id": "v", "ts": now()}),
        json!({"event_id": "a", "video_id": "v", "ts": now()}),
        event("b", "v"),
    ]);
    server.counted();
    assert_eq!(server.get("/livez").status(), 200);
    assert_eq!(server.json("/readyz"), json!({"ready": true}));
    let metrics = server.get("/metrics").text().unwrap();
    let events = |labels: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with("tallymark_events_total{") && line.contains(labels));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!((events("counted"), events("duplicate"), events("too_old"), events("")), (1, 1, 1, 3));
    for name in
        ["tallymark_collect_requests_total", "tallymark_query_requests_total", "tallymark_freshness_seconds", "tallymark_flush_seconds"]
    {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    for (path, status) in [("/nowhere", 404), ("/v1/nothing", 404)] {
        let response = server.get(path);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (status, &"application/problem+json".parse().unwrap())
        );
    }
    let response = server.http.delete(server.url("/v1/status")).send().unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (405, &"application/problem+json".parse().unwrap()));
}

#[test]
fn status_says_whether_it_works_by_its_exit_code_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    server.post(&[event("a", "v")]);
    server.counted();
    let url = server.url("");
    let output_ok = output(&["status", "--url", &url]);
    assert_eq!(output_ok.status.code(), Some(0), "{}", text(&output_ok));
    let said = text(&output_ok);
    assert!(said.lines().last().unwrap().starts_with("Yes:") && said.contains("too_old 1") && said.contains("owner"), "{said}");
    let json: Value = serde_json::from_slice(&output(&["status", "--url", &url, "--json"]).stdout).unwrap();
    assert_eq!(json["totals"]["tally"]["rejected"], 1);
    assert!(server.stop().success());
    let output_down = output(&["status", "--url", &url]);
    assert_eq!(output_down.status.code(), Some(2));
    assert!(text(&output_down).starts_with("No:") && text(&output_down).contains("tallymark run"), "{}", text(&output_down));
}

#[test]
fn tap_shows_what_the_log_holds_and_follows_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.post(&[event("a", "v"), event("b", "w"), event("c", "v")]);
    let url = server.url("");
    let ids = |args: &[&str]| -> Vec<String> {
        let output = output(&[&["tap", "--url", &url], args].concat());
        assert!(output.status.success(), "{}", text(&output));
        let lines = String::from_utf8(output.stdout).unwrap();
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"]["event_id"].as_str().map(str::to_owned);
        let mut ids: Vec<String> = lines.lines().filter_map(id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&[]), ["a", "b", "c"]);
    assert_eq!(ids(&["--video", "v"]), ["a", "c"]);
    assert_eq!(ids(&["--video", "v", "--limit", "1"]).len(), 1);
    let mut following =
        tallymark(&["tap", "--url", &url, "--follow", "--from", "start", "--video", "w"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = lines_of(&mut following);
    assert!(lines.recv_timeout(support::PATIENCE).unwrap().contains("\"b\""));
    server.post(&[event("d", "w")]);
    assert!(lines.recv_timeout(support::PATIENCE).unwrap().contains("\"d\""));
    following.kill().unwrap();
    following.wait().unwrap();
    let output = output(&["tap", "--url", &url, "--source", "99"]);
    assert!(output.status.code() == Some(1) && text(&output).contains("there is no source 99"), "{}", text(&output));
}

#[test]
fn a_client_that_never_ends_its_request_head_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--header-timeout", "1s", "--max-connections", "2"]);
    let mut slow: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    }
    // They hold every connection there is; this one is answered when the time of one of them is over.
    assert_eq!(server.get("/livez").text().unwrap(), "ok\n");
    for stream in &mut slow {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn a_stop_ends_streams_that_would_go_on_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--drain-timeout", "1m"]);
    server.post(&[event("a", "v")]);
    let mut following =
        tallymark(&["tap", "--url", &server.url(""), "--follow", "--from", "start"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = lines_of(&mut following);
    lines.recv_timeout(support::PATIENCE).unwrap();
    let begun = std::time::Instant::now();
    assert!(server.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(30), "it did not wait for the stream until the drain timeout");
    following.wait().unwrap();
}
