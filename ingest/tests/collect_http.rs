//! The collector over a real log and, for clients that misbehave, a real TCP connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod collect_rig;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use collect_rig::{IN_FLIGHT, event, rig, rig_with_queue, small};
use ingest::collect::{self, Limits};
use schemas::RecordKind;
use schemas::view_batch::Writer;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

#[tokio::test]
async fn every_form_is_taken_and_is_in_the_log_when_it_is_answered() {
    let rig = rig(Limits::default());
    let (a, b) = (event("a"), event("b"));
    let forms = [
        ("application/json", a.clone(), 1),
        ("application/json", format!("[{a},{b}]"), 2),
        ("application/json; charset=utf-8", format!("{{\"events\":[{a},{b}]}}"), 2),
        ("application/x-ndjson", format!("{a}\n\n{b}\n"), 2),
    ];
    let mut expected = 0;
    for (content_type, body, events) in forms {
        let answer = rig.post("", content_type, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        assert_eq!(answer.body, json!({"accepted": events, "rejected_total": 0, "rejected": []}));
        expected += events;
        assert_eq!(rig.lines().len(), expected);
    }
    assert!(rig.lines().iter().all(|(_, historical, line)| !historical && (*line == a || *line == b)));
    assert_eq!(rig.metric("collect_events_accepted_total"), 7);
    assert_eq!(rig.metric("collect_requests_total{status=\"2xx\"}"), 4);
}

#[tokio::test]
async fn a_columnar_body_is_taken_event_by_event() {
    let rig = rig(small());
    let batch = |ids: &[&str]| {
        let mut writer = Writer::new();
        for id in ids {
            writer.push(&schemas::json::decode(event(id).as_bytes()).unwrap(), Some("{\"more\":[1]}")).unwrap();
        }
        writer.finish()
    };
    let content_type = RecordKind::ViewBatch.content_type();
    let answer = rig.post("?historical=true", content_type, batch(&["a", "b", "c"])).await;
    assert_eq!((answer.status, answer.body), (StatusCode::ACCEPTED, json!({"accepted": 3, "rejected_total": 0, "rejected": []})));
    let more = |id: &str| event(id).replace('}', r#","more":[1]}"#);
    let lines: BTreeSet<String> = rig.lines().into_iter().map(|(_, historical, line)| format!("{historical} {line}")).collect();
    assert_eq!(lines, ["a", "b", "c"].map(|id| format!("true {}", more(id))).into());

    let damaged = batch(&["one", "two"]).into_iter().map(|byte| if byte == b'w' { 7 } else { byte }).collect::<Vec<_>>();
    let answer = rig.post("", content_type, damaged).await;
    let detail = "event_id holds a control character; ids are plain text";
    let rejected = json!([{"index": 1, "reason": "bad_id", "detail": detail}]);
    assert_eq!(answer.body, json!({"accepted": 1, "rejected_total": 1, "rejected": rejected}));

    rig.post("", content_type, batch(&["a"])[1..].to_vec()).await.is_problem(400, "bad-body");
    rig.post("", content_type, Vec::new()).await.is_problem(400, "no-usable-event");
    let ids: Vec<String> = (0..101).map(|id| id.to_string()).collect();
    let many = batch(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    rig.post("", content_type, many).await.is_problem(413, "too-many-events");
    rig.post("", "application/x-protobuf; messageType=tallymark.v2.ViewBatch", batch(&["a"]))
        .await
        .is_problem(415, "unsupported-media-type");
    assert_eq!(rig.lines().len(), 4);
}

#[tokio::test]
async fn historical_events_are_marked_on_the_log() {
    let rig = rig(Limits::default());
    rig.post("?historical=true", "application/json", event("old")).await;
    rig.post("?historical=false", "application/json", event("new")).await;
    assert!(rig.lines().iter().all(|(_, historical, line)| *historical == line.contains("old")));
    rig.post("?historical=yes", "application/json", event("x")).await.is_problem(400, "bad-parameter");
    rig.post("?historic=true", "application/json", event("x")).await.is_problem(400, "bad-parameter");
    assert_eq!(rig.lines().len(), 2);
}

#[tokio::test]
async fn each_bad_event_has_its_verdict_and_its_neighbours_are_taken() {
    let rig = rig(Limits::default());
    let at = |ts: &str| event("x").replace("1763642096789", ts);
    let events = [
        event("good-1"),
        event(&"x".repeat(129)),
        at("NaN"),
        event("a\\u0007"),
        event("a\u{7}"),
        at("\"0001-01-01T00:00:00Z\""),
        at("\"9999-12-31T23:59:59Z\""),
        at("\"0000-01-01T00:00:00Z\""),
        at("1763642096"),
        event(""),
        "[]".to_owned(),
        "{}".to_owned(),
        event("good-2"),
    ];
    for (content_type, body) in [
        ("application/json", format!("[{}]", events.join(","))),
        ("application/json", format!("{{\"events\":[{}]}}", events.join(",\n"))),
        ("application/x-ndjson", events.join("\n")),
    ] {
        let answer = rig.post("", content_type, body).await;
        assert_eq!((answer.status, &answer.body["accepted"]), (StatusCode::ACCEPTED, &json!(4)));
        let verdicts: Vec<_> =
            answer.body["rejected"].as_array().unwrap().iter().map(|r| (r["index"].clone(), r["reason"].clone())).collect();
        let expected = [
            (1, "bad_id"),
            (2, "bad_json"),
            (3, "bad_id"),
            (4, "bad_json"),
            (7, "bad_ts"),
            (8, "ts_in_seconds"),
            (9, "bad_id"),
            (10, "bad_json"),
            (11, "missing_field"),
        ];
        assert_eq!(verdicts, expected.map(|(index, reason)| (json!(index), json!(reason))));
        assert_eq!(answer.body["rejected_total"], 9);
    }
    assert_eq!(rig.lines().len(), 12);
    assert_eq!(rig.metric("collect_events_rejected_total{reason=\"bad_json\"}"), 9);
}

#[tokio::test]
async fn a_request_without_a_usable_event_says_why() {
    let rig = rig(small());
    for (content_type, body, kind) in [
        ("application/json", "", "bad-body"),
        ("application/x-ndjson", " \n\n", "bad-body"),
        ("application/json", "{", "bad-body"),
        ("application/json", "[{}", "bad-body"),
        ("application/json", "NaN", "bad-body"),
        ("application/json", "{\"events\":7}", "bad-body"),
        ("application/json", "[]", "no-usable-event"),
        ("application/json", "{\"events\":[]}", "no-usable-event"),
        ("application/json", "{}", "no-usable-event"),
        ("application/json", "[1,null]", "no-usable-event"),
        ("application/x-ndjson", "not json", "no-usable-event"),
    ] {
        let answer = rig.post("", content_type, body).await;
        answer.is_problem(400, kind);
        assert_eq!(answer.body["rejected"].is_array(), kind == "no-usable-event");
        assert_eq!(answer.body["at_byte"].is_u64(), kind == "bad-body");
    }
    let good_then_cut = format!("[{},{{]", event("a"));
    rig.post("", "application/json", good_then_cut).await.is_problem(400, "bad-body");
    assert!(rig.lines().is_empty(), "of a broken body nothing is taken");
}

#[tokio::test]
async fn other_content_types_encodings_and_methods_are_refused() {
    let rig = rig(small());
    rig.post("", "text/csv", event("a")).await.is_problem(415, "unsupported-media-type");
    let brotli = Request::post("/v1/events").header(header::CONTENT_ENCODING, "br").body(Body::from(event("a"))).unwrap();
    let answer = rig.send(brotli).await;
    answer.is_problem(415, "unsupported-media-type");
    assert_eq!(answer.body["accepted_encodings"], "gzip, zstd");
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let answer = rig.send(Request::builder().method(method).uri("/v1/events").body(Body::empty()).unwrap()).await;
        answer.is_problem(405, "method-not-allowed");
        assert_eq!(answer.allow.as_deref(), Some("POST"));
    }
    let without_type = Request::post("/v1/events").body(Body::from(event("a"))).unwrap();
    assert_eq!(rig.send(without_type).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_long_body_is_taken_whole_and_one_with_too_many_events_not_at_all() {
    let rig = rig(Limits::default());
    let lines: Vec<String> = (0..50_001).map(|i| event(&i.to_string())).collect();
    let answer = rig.post("", "application/x-ndjson", lines.join("\n")).await;
    answer.is_problem(413, "too-many-events");
    assert_eq!(answer.body["limit"], 50_000);
    assert!(rig.lines().is_empty());

    let answer = rig.post("", "application/json", format!("[{}]", lines[1..].join(","))).await;
    assert_eq!(answer.body["accepted"], 50_000);
    let mut found: Vec<String> = rig.lines().into_iter().map(|(_, _, line)| line).collect();
    let mut sent = lines[1..].to_vec();
    found.sort();
    sent.sort();
    assert!(found == sent, "the log holds exactly what was sent");
}

#[tokio::test]
async fn a_million_open_brackets_are_refused_in_every_form() {
    let rig = rig(Limits::default());
    let deep = "[".repeat(1_000_000);
    let field = event("e").replace('}', &format!(",\"x\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000)));
    for (content_type, body) in [
        ("application/json", deep.clone()),
        ("application/json", format!("{{\"events\":{deep}")),
        ("application/json", deep.replace('[', "{\"a\":")),
        ("application/x-ndjson", deep),
    ] {
        assert_eq!(rig.post("", content_type, body).await.status, StatusCode::BAD_REQUEST);
    }
    for (content_type, body) in
        [("application/json", field.clone()), ("application/json", format!("[{field}]")), ("application/x-ndjson", field)]
    {
        // Deep but well formed, in a field that is ignored: a verdict, whichever, and no crash.
        let answer = rig.post("", content_type, body).await;
        assert!(matches!(answer.status.as_u16(), 202 | 400), "{answer:?}");
    }
}

#[tokio::test]
async fn a_log_that_is_closed_is_a_503_to_come_back_to() {
    let rig = rig(small());
    rig.log.close();
    let answer = rig.post("", "application/json", event("a")).await;
    answer.is_problem(503, "unavailable");
    assert_eq!(answer.retry_after.as_deref(), Some("5"));
    assert_eq!(rig.metric("collect_events_accepted_total"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_log_is_a_503_and_sending_again_loses_nothing() {
    // One byte of queue: whoever comes while another append waits is told to come back.
    let rig = rig_with_queue(Limits::default(), 1);
    let body = |request: usize| (0..16).map(|i| event(&format!("{request}-{i}"))).collect::<Vec<_>>().join("\n");
    let mut busy = Vec::new();
    while busy.is_empty() {
        let all = (0..32).map(|request| rig.post("", "application/x-ndjson", body(request)));
        for (request, answer) in futures_util::future::join_all(all).await.into_iter().enumerate() {
            if answer.status == StatusCode::ACCEPTED {
                assert_eq!(answer.body["accepted"], 16);
            } else {
                answer.is_problem(503, "unavailable");
                assert_eq!(answer.retry_after.as_deref(), Some("1"));
                assert!(answer.body["detail"].as_str().unwrap().contains("deduplicated by event_id"));
                busy.push(request);
            }
        }
    }
    // One event at a time has room in the end.
    for line in busy.into_iter().flat_map(|request| body(request).lines().map(str::to_owned).collect::<Vec<_>>()) {
        while rig.post("", "application/json", line.clone()).await.status != StatusCode::ACCEPTED {}
    }
    let found: std::collections::BTreeSet<String> = rig.lines().into_iter().map(|(_, _, line)| line).collect();
    assert_eq!(found.len(), 32 * 16);
}

#[tokio::test]
async fn once_the_body_is_complete_the_events_are_kept_even_if_the_client_goes() {
    let rig = rig(small());
    let request = Request::post("/v1/events").body(Body::from(event("kept"))).unwrap();
    let mut answer = Box::pin(collect::router(Arc::clone(&rig.collector)).oneshot(request));
    // One poll reads the body and starts the work on it, which this single thread has no time for yet.
    tokio::select! {
        biased;
        _ = &mut answer => panic!("answered before the log could have taken it"),
        () = std::future::ready(()) => {}
    }
    drop(answer);
    rig.collector.drained().await;
    assert_eq!(rig.lines().len(), 1);
}

// From here on: raw TCP, for clients that misbehave.

async fn connect(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n{head}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The head of the answer, in lower case.
async fn answer_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut found = Vec::new();
    while !found.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.expect("an answer").unwrap();
        assert!(read > 0, "closed without an answer");
        found.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&found).to_lowercase()
}

#[tokio::test]
async fn a_gigabyte_announced_is_refused_before_it_is_sent() {
    let rig = rig(small());
    let mut stream = connect(rig.listen().await, "content-length: 1000000000").await;
    assert!(answer_head(&mut stream).await.starts_with("http/1.1 413"));
    assert_eq!(rig.metric("collect_body_bytes_total"), 0);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_no() {
    let rig = rig(small());
    let mut stream = connect(rig.listen().await, "expect: 100-continue\r\ncontent-length: 1000000000").await;
    assert!(answer_head(&mut stream).await.starts_with("http/1.1 413"));
}

#[tokio::test]
async fn a_length_beyond_any_number_is_refused() {
    let rig = rig(small());
    let mut stream = connect(rig.listen().await, "content-length: 99999999999999999999999").await;
    assert!(answer_head(&mut stream).await.starts_with("http/1.1 4"));
}

#[tokio::test]
async fn endless_chunks_are_refused_at_the_limit() {
    let rig = rig(small());
    let stream = connect(rig.listen().await, "transfer-encoding: chunked").await;
    let (mut from, mut to) = stream.into_split();
    let sender = tokio::spawn(async move {
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        let mut sent = 0usize;
        while to.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
            assert!(sent < 1_000_000_000, "read on and on");
        }
        sent
    });
    assert!(answer_head(&mut from).await.starts_with("http/1.1 413"));
    let sent = sender.await.unwrap();
    // What the server read, and what the kernel buffers on both sides.
    assert!(sent < 64 << 20, "{sent}");
    rig.collector.drained().await;
    assert_eq!(rig.metric(IN_FLIGHT), 0);
    assert!(rig.lines().is_empty());
}

#[tokio::test]
async fn a_client_that_sends_everything_before_it_reads_still_gets_its_answer() {
    let rig = rig(small());
    let mut stream = connect(rig.listen().await, "content-length: 100000").await;
    // The answer is there already, and the client has not seen it yet.
    stream.readable().await.unwrap();
    for _ in 0..100 {
        stream.write_all(&[b'x'; 1_000]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(answer_head(&mut stream).await.starts_with("http/1.1 413"));
}

#[tokio::test]
async fn a_slow_body_is_refused_in_time() {
    let rig = rig(Limits { body_timeout: Duration::from_millis(200), ..small() });
    let mut stream = connect(rig.listen().await, "content-length: 1000").await;
    stream.write_all(event("slow").as_bytes()).await.unwrap();
    assert!(answer_head(&mut stream).await.starts_with("http/1.1 408"));
    rig.collector.drained().await;
    assert!(rig.lines().is_empty());
    assert_eq!(rig.metric("collect_requests_total{status=\"4xx\"}"), 1);
}

#[tokio::test]
async fn without_budget_a_request_is_refused_and_the_budget_comes_back() {
    let rig = rig(small());
    let address = rig.listen().await;
    // Two bodies, all but complete, hold nearly all of the budget.
    let mut holders = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(address, "content-length: 65536").await;
        stream.write_all(&[b' '; 65_500]).await.unwrap();
        holders.push(stream);
    }
    rig.until_metric(IN_FLIGHT, |held| held == 2 * 65_500).await;
    let answer = rig.post("", "application/json", event(&"x".repeat(100))).await;
    answer.is_problem(503, "unavailable");
    assert_eq!(answer.retry_after.as_deref(), Some("1"));

    drop(holders);
    rig.collector.drained().await;
    assert_eq!(rig.metric(IN_FLIGHT), 0);
    assert_eq!(rig.post("", "application/json", event("a")).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_its_body_leaves_nothing() {
    let rig = rig(small());
    let mut stream = connect(rig.listen().await, "content-length: 1000").await;
    stream.write_all(format!("{}\n", event("cut")).as_bytes()).await.unwrap();
    rig.until_metric(IN_FLIGHT, |held| held > 0).await;
    drop(stream);
    rig.collector.drained().await;
    assert_eq!(rig.metric(IN_FLIGHT), 0);
    assert!(rig.lines().is_empty());
}

#[tokio::test]
async fn broken_chunks_leave_nothing() {
    let rig = rig(small());
    let mut stream = connect(rig.listen().await, "transfer-encoding: chunked").await;
    let body = format!("{}\n", event("cut"));
    stream.write_all(format!("{:x}\r\n{body}\r\nnot a length\r\n", body.len()).as_bytes()).await.unwrap();
    assert!(answer_head(&mut stream).await.starts_with("http/1.1 400"));
    assert!(rig.lines().is_empty());
}

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let rig = rig(small());
    let body = event("a");
    let mut stream = connect(rig.listen().await, &format!("content-length: {}", body.len())).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    assert!(answer_head(&mut stream).await.starts_with("http/1.1 202"));
    let second = format!("POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(second.as_bytes()).await.unwrap();
    let head = answer_head(&mut stream).await;
    assert!(head.contains("http/1.1 202"), "{head}");
    assert_eq!(rig.lines().len(), 2);
}
