//! What the collector does at the edge: compressed bodies, wrong clocks, quotas, requests that are sent again, events enriched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod collect_rig;
mod gated;

use std::io::Write;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{Request, Response, StatusCode, header};
use collect_rig::{Answer, IN_FLIGHT, Rig, event, rig, rig_of, small};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gated::Gated;
use ingest::collect::Limits;
use ingest::collect::enrich::{AddressForm, Enrichment};
use ingest::collect::quota::{PerSecond, Quotas};
use ingest::{CallerKey, ClientAddress, EventLog};
use schemas::partition::Partitioner;
use schemas::view_batch::Writer;
use schemas::{Millis, RecordKind, Source, json};
use serde_json::{Value, json};
use tower::ServiceExt;

const NDJSON: &str = "application/x-ndjson";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn compressed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    if coding == "gzip" { gzip(bytes) } else { zstd::encode_all(bytes, 3).unwrap() }
}

fn ndjson() -> Builder {
    Request::post("/v1/events").header(header::CONTENT_TYPE, NDJSON)
}

async fn post_compressed(rig: &Rig, coding: &str, body: Vec<u8>) -> Answer {
    rig.send(ndjson().header(header::CONTENT_ENCODING, coding).body(body.into()).unwrap()).await
}

fn lines(events: std::ops::Range<u32>) -> String {
    events.map(|id| event(&id.to_string()) + "\n").collect()
}

/// The events in the log, by id.
fn logged(rig: &Rig) -> Vec<(Source, Value)> {
    let mut all: Vec<(Source, Value)> =
        rig.lines().into_iter().map(|(source, _, line)| (source, serde_json::from_str(&line).unwrap())).collect();
    all.sort_by_key(|(_, event)| event["event_id"].as_str().unwrap().to_owned());
    all
}

#[tokio::test]
async fn a_compressed_body_is_taken_as_it_would_be_plain() {
    let (rig, plain) = (rig(Limits::default()), rig(Limits::default()));
    let body = lines(0..10_000);
    assert_eq!(plain.post("", NDJSON, body.clone()).await.body["accepted"], 10_000);
    for (nth, coding) in [(1, "gzip"), (2, "zstd")] {
        let sent = compressed(coding, body.as_bytes());
        let before = rig.metric("collect_body_bytes_total");
        let answer = post_compressed(&rig, coding, sent.clone()).await;
        assert_eq!(answer.body, json!({"accepted": 10_000, "rejected_total": 0, "rejected": []}), "{coding}");
        assert_eq!(rig.metric("collect_body_bytes_total") - before, sent.len() as u64, "bytes are counted as they came");
        assert_eq!(rig.metric("collect_decoded_body_bytes_total"), nth * body.len() as u64);
    }
    let mut twice = plain.lines();
    twice.extend(plain.lines());
    let mut found = rig.lines();
    twice.sort();
    found.sort();
    assert!(twice == found);
    assert_eq!(rig.metric(IN_FLIGHT), 0);
}

#[tokio::test]
async fn a_columnar_batch_may_be_compressed_too() {
    let rig = rig(Limits::default());
    let mut writer = Writer::new();
    writer.push(&json::decode(event("a").as_bytes()).unwrap(), None).unwrap();
    let content_type = RecordKind::ViewBatch.content_type();
    let request = Request::post("/v1/events").header(header::CONTENT_TYPE, content_type).header(header::CONTENT_ENCODING, "zstd");
    let answer = rig.send(request.body(compressed("zstd", &writer.finish()).into()).unwrap()).await;
    assert_eq!((answer.status, &answer.body["accepted"]), (StatusCode::ACCEPTED, &json!(1)));
}

#[tokio::test]
async fn a_bomb_a_body_too_long_and_a_damaged_one_are_refused_and_leave_nothing() {
    let rig = rig(Limits::default());
    for coding in ["gzip", "zstd"] {
        let answer = post_compressed(&rig, coding, compressed(coding, &vec![b' '; 200 << 20])).await;
        answer.is_problem(413, "body-expands");
        assert_eq!(answer.body["limit_ratio"], 100);

        let long = lines(0..200_000);
        assert!(long.len() > 8 << 20);
        let answer = post_compressed(&rig, coding, compressed(coding, long.as_bytes())).await;
        answer.is_problem(413, "body-too-large");
        assert_eq!(answer.body["limit_bytes"], 8 << 20);

        let whole = compressed(coding, lines(0..100).as_bytes());
        for damaged in [whole[..whole.len() - 1].to_vec(), lines(0..1).into_bytes(), Vec::new()] {
            let answer = post_compressed(&rig, coding, damaged).await;
            answer.is_problem(400, "bad-body");
            assert!(answer.body["detail"].as_str().unwrap().contains(coding));
        }
    }
    assert!(rig.lines().is_empty());
    rig.collector.drained().await;
    assert_eq!(rig.metric(IN_FLIGHT), 0);
    assert_eq!(rig.metric("collect_requests_limited_total{limit=\"ratio\"}"), 2);
}

/// A body of so many bytes, and then nothing more, for ever.
fn endless(kilobytes: usize) -> Body {
    Body::from_stream(futures_util::stream::unfold(0, move |sent| async move {
        if sent == kilobytes {
            std::future::pending::<()>().await;
        }
        Some((Ok::<_, std::io::Error>(vec![b' '; 1_000]), sent + 1))
    }))
}

/// Sends a request whose answer is not waited for.
fn sending(rig: &Rig, request: Request<Body>) -> tokio::task::JoinHandle<Response<Body>> {
    let router = ingest::collect::router(Arc::clone(&rig.collector));
    tokio::spawn(async move { router.oneshot(request).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_body_decodes_to_counts_against_the_memory_for_bodies() {
    let rig = rig(Limits { max_in_flight_bytes: 2 << 20, ..Limits::default() });
    let body = lines(0..15_000);
    assert!((700_000..900_000).contains(&body.len()));
    let bodies = ["gzip", "zstd"].map(|coding| (coding, compressed(coding, body.as_bytes())));
    let held = sending(&rig, ndjson().body(endless(1_600)).unwrap());
    rig.until_metric(IN_FLIGHT, |bytes| bytes == 1_600_000).await;
    for (coding, sent) in &bodies {
        assert!(sent.len() < 200_000);
        let answer = post_compressed(&rig, coding, sent.clone()).await;
        answer.is_problem(503, "unavailable");
        assert_eq!(answer.retry_after.as_deref(), Some("1"));
    }
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    rig.collector.drained().await;
    assert_eq!(rig.metric(IN_FLIGHT), 0);
    for (coding, sent) in bodies {
        assert_eq!(post_compressed(&rig, coding, sent).await.status, StatusCode::ACCEPTED, "{coding}");
    }
}

#[tokio::test]
async fn a_beacons_text_is_json_and_its_wrong_clock_is_corrected() {
    let rig = rig(small());
    let now = Millis::now().0;
    let hour = 3_600_000;
    let of = |id: &str, ts: i64| event(id).replace("1763642096789", &ts.to_string());
    let slow = rig.post(&format!("?sent_at={}", now - hour), "text/plain;charset=UTF-8", of("slow", now - hour - 5_000)).await;
    let fast = Request::post("/v1/events").header("tallymark-sent-at", (now + hour).to_string());
    let fast = rig.send(fast.body(of("fast", now + hour).into()).unwrap()).await;
    let right = rig.post(&format!("?sent_at={}", now - 500), "text/plain", of("right", now - 7)).await;
    let past = rig.post(&format!("?historical=true&sent_at={}", now - hour), "text/plain", of("past", now - hour)).await;
    assert!([slow, fast, right, past].iter().all(|answer| answer.status == StatusCode::ACCEPTED));
    let ts: Vec<i64> = logged(&rig).iter().map(|(_, event)| event["ts"].as_i64().unwrap()).collect();
    let [fast, past, right, slow] = ts[..] else { panic!("{ts:?}") };
    assert!((now..now + 2_000).contains(&fast) && (now - 5_000..now - 3_000).contains(&slow), "{ts:?}");
    assert_eq!((past, right), (now - hour, now - 7));
    assert_eq!(rig.metric("collect_events_clock_corrected_total"), 2);
    for (source, event) in logged(&rig) {
        let sent = of(event["event_id"].as_str().unwrap(), now);
        assert_eq!(partitioner(1).source(&json::decode(sent.as_bytes()).unwrap()), source);
    }
    rig.post("?sent_at=tomorrow", "text/plain", event("x")).await.is_problem(400, "bad-parameter");
}

fn partitioner(spread: u32) -> Partitioner {
    Partitioner { sources: NonZeroU32::new(4).unwrap(), spread: NonZeroU32::new(spread).unwrap() }
}

/// A request as it is after what stands before the routes.
fn from(builder: Builder, key: Option<&str>, address: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = builder.body(body.into()).unwrap();
    request.extensions_mut().insert(ClientAddress(address.parse::<IpAddr>().unwrap()));
    if let Some(id) = key {
        request.extensions_mut().insert(CallerKey { id: id.into(), may_import: false, events_per_second: None });
    }
    request
}

fn per_second(requests: u32, events: u32) -> PerSecond {
    PerSecond { requests: NonZeroU32::new(requests), events: NonZeroU32::new(events) }
}

#[tokio::test]
async fn who_sends_too_much_is_refused_alone_and_told_when_to_come_back() {
    let rig = rig(Limits { quotas: Quotas { key: per_second(0, 10), address: per_second(3, 0) }, ..small() });
    let send = async |key, address, events| rig.send(from(ndjson(), key, address, lines(events))).await;
    let first = send(Some("a"), "10.0.0.1", 0..50).await;
    assert_eq!(
        (first.status, &first.headers["ratelimit-policy"]),
        (StatusCode::ACCEPTED, &"\"key-events\";q=10;w=1, \"address-requests\";q=3;w=1".parse().unwrap())
    );
    assert_eq!(first.headers["ratelimit"], "\"key-events\";r=0;t=1, \"address-requests\";r=2;t=1");
    let refused = send(Some("a"), "10.0.0.2", 50..51).await;
    refused.is_problem(429, "quota-exceeded");
    assert_eq!((&refused.body["limit"], &refused.body["violated-policies"]), (&json!(10), &json!(["key-events"])));
    assert!(matches!(refused.retry_after.as_deref(), Some("4" | "5")), "{refused:?}");
    for _ in 0..2 {
        assert_eq!(send(Some("b"), "10.0.0.1", 51..52).await.status, StatusCode::ACCEPTED);
    }
    let refused = send(Some("b"), "10.0.0.1", 51..52).await;
    refused.is_problem(429, "quota-exceeded");
    assert_eq!(refused.body["violated-policies"], json!(["address-requests"]));
    assert_eq!(send(Some("b"), "10.0.0.3", 52..53).await.status, StatusCode::ACCEPTED);
    assert_eq!(rig.lines().len(), 53);
    assert_eq!(rig.metric("collect_requests_limited_total{limit=\"key-events\"}"), 1);
    // Nothing holds for who has neither.
    assert!(!rig.post("", NDJSON, lines(0..1)).await.headers.contains_key("ratelimit"));
}

#[tokio::test]
async fn a_key_without_the_scope_sends_no_history() {
    let rig = rig(small());
    let historical = || Request::post("/v1/events?historical=true").header(header::CONTENT_TYPE, NDJSON);
    rig.send(from(historical(), Some("a"), "10.0.0.1", lines(0..1))).await.is_problem(403, "scope-lacking");
    let mut may = from(historical(), None, "10.0.0.1", lines(0..1));
    may.extensions_mut().insert(CallerKey { id: "b".into(), may_import: true, events_per_second: None });
    assert_eq!(rig.send(may).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_that_holds_all_it_may_leaves_room_for_others() {
    let limits = Limits { max_body_bytes: 1 << 20, max_decoded_bytes: 256 << 10, max_in_flight_bytes: 2 << 20, ..Limits::default() };
    let rig = rig(limits);
    let held = sending(&rig, from(ndjson(), None, "10.0.0.1", endless(1_000)));
    rig.until_metric(IN_FLIGHT, |bytes| bytes == 1_000_000).await;
    let answer = rig.send(from(ndjson(), None, "10.0.0.1", lines(0..1_000))).await;
    answer.is_problem(429, "quota-exceeded");
    assert_eq!((&answer.body["limit_bytes"], answer.retry_after.as_deref()), (&json!(1 << 20), Some("1")));
    assert_eq!(rig.send(from(ndjson(), None, "10.0.0.2", lines(0..1_000))).await.status, StatusCode::ACCEPTED);
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    rig.collector.drained().await;
    assert_eq!(rig.send(from(ndjson(), None, "10.0.0.1", lines(0..1_000))).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_does_not_answer_holds_up_only_what_is_for_it() {
    let gate = Gated::new();
    let limits = Limits { max_events: 10_000, ..small() };
    let rig = rig_of(limits, 64 << 20, NonZeroU32::MIN, Enrichment::default(), |log| gate.around(log));
    let of = |source: u32, padding: usize| {
        let mut ids = (0..).map(|id| event(&format!("{source}-{id}")));
        let line = ids.find(|line| partitioner(1).source(&json::decode(line.as_bytes()).unwrap()) == Source(source)).unwrap();
        line + &" ".repeat(padding)
    };
    gate.hold(Source(0));
    // Each holds 20,000 bytes of 131,072: four wait, and one more would make it more than three quarters.
    let send = |_| sending(&rig, ndjson().body(of(0, 20_000).into()).unwrap());
    let mut sent: FuturesUnordered<_> = (0..6).map(send).collect();
    for _ in 0..2 {
        let refused = sent.next().await.unwrap().unwrap();
        assert_eq!((refused.status(), &refused.headers()["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
    }
    assert_eq!(rig.metric("collect_requests_limited_total{limit=\"source\"}"), 2);
    for source in 1..4 {
        assert_eq!(rig.post("", NDJSON, of(source, 20_000)).await.status, StatusCode::ACCEPTED);
    }
    gate.release();
    while let Some(answer) = sent.next().await {
        assert_eq!(answer.unwrap().status(), StatusCode::ACCEPTED);
    }
    assert_eq!(rig.post("", NDJSON, of(0, 20_000)).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_source_goes_to_it_as_few_records_and_each_request_is_told_of_its_own() {
    let gate = Gated::new();
    let rig = rig_of(Limits::default(), 64 << 20, NonZeroU32::MIN, Enrichment::default(), |log| gate.around(log));
    (0..4).for_each(|source| gate.hold(Source(source)));
    let send = |request: u32, path: &str| {
        let body = [lines(request * 10..request * 10 + 10), "no event\n".to_owned()].concat();
        sending(&rig, ndjson().uri(path).body(body.into()).unwrap())
    };
    let mut sent: Vec<_> = (0..100).map(|request| send(request, "/v1/events")).collect();
    sent.extend((100..110).map(|request| send(request, "/v1/events?historical=true")));
    rig.until_metric("collect_events_rejected_total{reason=\"bad_json\"}", |count| count == 110).await;
    gate.release();
    for answer in sent {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        let answer: Value = serde_json::from_slice(&axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap()).unwrap();
        assert_eq!((&answer["accepted"], &answer["rejected_total"]), (&10.into(), &1.into()));
    }
    assert_eq!(logged(&rig).len(), 1_100);
    assert_eq!(rig.lines().into_iter().filter(|(_, historical, _)| *historical).count(), 100);
    // Of each source and sort two that found nobody before them, one that gathered, and whoever was late.
    let records: u64 = (0..4).map(|source| rig.log.ends(Source(source)).unwrap().end.0).sum();
    assert!(records < 40, "{records} records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_fails_fails_for_all_that_have_a_part_in_it_and_the_next_goes_on() {
    let gate = Gated::new();
    let rig = rig_of(Limits::default(), 64 << 20, NonZeroU32::MIN, Enrichment::default(), |log| gate.around(log));
    let send = |_| sending(&rig, ndjson().body(lines(0..1).into()).unwrap());
    for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::ACCEPTED, StatusCode::SERVICE_UNAVAILABLE, StatusCode::ACCEPTED] {
        gate.away(status == StatusCode::SERVICE_UNAVAILABLE);
        for answer in (0..20).map(send).collect::<Vec<_>>() {
            let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("each is answered");
            assert_eq!(answer.unwrap().status(), status);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_sent_again_under_its_key_is_given_the_first_answer_and_appended_once() {
    let gate = Gated::new();
    let rig = rig_of(Limits::default(), 64 << 20, NonZeroU32::MIN, Enrichment::default(), |log| gate.around(log));
    let send = async |key: &str, body: String| rig.send(ndjson().header("idempotency-key", key).body(body.into()).unwrap()).await;
    let body = format!("{}\n{{}}\n", event("a"));
    let first = send("\"k-1\"", body.clone()).await;
    assert_eq!((first.status, first.headers.contains_key("idempotent-replayed")), (StatusCode::ACCEPTED, false));
    let again = send("k-1", body.clone()).await;
    assert_eq!((again.status, &again.body), (StatusCode::ACCEPTED, &first.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(rig.lines().len(), 1);
    // Compressed it is the same request.
    let zipped = ndjson().header("idempotency-key", "k-1").header(header::CONTENT_ENCODING, "gzip");
    assert!(rig.send(zipped.body(gzip(body.as_bytes()).into()).unwrap()).await.headers.contains_key("idempotent-replayed"));
    send("k-1", event("b")).await.is_problem(422, "idempotency-key-reused");
    let other = rig.send(from(ndjson().header("idempotency-key", "k-1"), Some("other"), "10.0.0.1", event("b"))).await;
    assert_eq!((other.status, rig.lines().len()), (StatusCode::ACCEPTED, 2));

    // A failure is not kept.
    gate.away(true);
    send("k-2", event("c")).await.is_problem(503, "unavailable");
    gate.away(false);
    assert!(!send("k-2", event("c")).await.headers.contains_key("idempotent-replayed"));
    assert_eq!(rig.lines().len(), 3);
    send("k-3", "{}".to_owned()).await.is_problem(400, "no-usable-event");
    assert_eq!(send("k-3", event("d")).await.status, StatusCode::ACCEPTED);
    assert_eq!(rig.metric("collect_requests_replayed_total"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_first_is_worked_on_the_second_is_told_to_wait_even_if_the_first_client_left() {
    let gate = Gated::new();
    let rig = rig_of(small(), 64 << 20, NonZeroU32::MIN, Enrichment::default(), |log| gate.around(log));
    (0..4).for_each(|source| gate.hold(Source(source)));
    let request = || ndjson().header("idempotency-key", "k").body(Body::from(event("a"))).unwrap();
    let first = sending(&rig, request());
    gate.until_waiting(1).await;
    let second = rig.send(request()).await;
    second.is_problem(409, "request-in-progress");
    assert_eq!(second.retry_after.as_deref(), Some("1"));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    rig.send(request()).await.is_problem(409, "request-in-progress");
    gate.release();
    rig.collector.drained().await;
    let last = rig.send(request()).await;
    assert_eq!((last.status, rig.lines().len()), (StatusCode::ACCEPTED, 1));
    assert!(last.headers.contains_key("idempotent-replayed"));
}

const ALL: Enrichment =
    Enrichment { ip: true, user_agent: true, received: true, address_form: AddressForm::Truncated, daily_viewers: false };

fn enriching(enrichment: Enrichment, spread: u32) -> Rig {
    rig_of(Limits::default(), 64 << 20, NonZeroU32::new(spread).unwrap(), enrichment, |log| log)
}

#[tokio::test]
async fn what_the_collector_knows_is_put_on_events_and_nobody_can_forge_it() {
    let rig = enriching(ALL, 1);
    let forged = event("forged").replace('}', r#","client_ip":"1.1.1.1","user\u005fagent":"x","received_at":1,"mine":[1]}"#);
    let body = format!("{}\n{forged}\n", event("bare"));
    let began = Millis::now().0;
    let agent = || ndjson().header(header::USER_AGENT, "curl/8");
    assert_eq!(rig.send(from(agent(), None, "203.0.113.77", body)).await.status, StatusCode::ACCEPTED);
    let mut writer = Writer::new();
    writer.push(&json::decode(event("packed").as_bytes()).unwrap(), Some(r#"{"client_ip":"1.1.1.1","mine":[1]}"#)).unwrap();
    let packed = Request::post("/v1/events").header(header::CONTENT_TYPE, RecordKind::ViewBatch.content_type());
    rig.send(from(packed.header(header::USER_AGENT, "curl/8"), None, "203.0.113.77", writer.finish())).await;
    for (_, event) in logged(&rig) {
        assert_eq!((&event["client_ip"], &event["user_agent"]), (&json!("203.0.113.0"), &json!("curl/8")), "{event}");
        assert!(event["received_at"].as_i64().unwrap() >= began);
        assert_eq!(event["mine"] == json!([1]), event["event_id"] != "bare", "{event}");
    }
    assert_eq!(rig.lines().len(), 3);
}

#[tokio::test]
async fn an_event_that_outgrows_a_record_by_what_is_put_on_it_is_refused_alone() {
    let rig = enriching(ALL, 1);
    let room = schemas::view_batch::MAX_BYTES - 1 - event("e").len() - r#","x":"""#.len();
    let wide = event("e").replace('}', &format!(r#","x":"{}"}}"#, "x".repeat(room)));
    let agent = ndjson().header(header::USER_AGENT, "a".repeat(10_000));
    let answer = rig.send(from(agent, None, "203.0.113.77", format!("{wide}\n{}", event("small")))).await;
    assert_eq!((&answer.body["accepted"], &answer.body["rejected"][0]["reason"]), (&json!(1), &json!("event_too_large")));
    assert_eq!(logged(&rig)[0].1["user_agent"].as_str().unwrap().len(), 256);
}

#[tokio::test]
async fn salted_viewers_name_nobody_and_leave_ids_and_sources_as_they_are() {
    let daily = Enrichment { daily_viewers: true, ..Enrichment::default() };
    // Two instances, as two salts.
    let rigs = [enriching(daily, 4), enriching(daily, 4)];
    let sent: Vec<String> =
        (0..40).map(|id| event(&id.to_string()).replace('}', if id % 2 == 0 { r#","viewer_id":"alice"}"# } else { "}" })).collect();
    for rig in &rigs {
        for _attempt in 0..2 {
            let request = from(ndjson().header(header::USER_AGENT, "curl/8"), None, "203.0.113.77", sent.join("\n"));
            assert_eq!(rig.send(request).await.body["accepted"], 40);
        }
        for (source, event) in logged(rig) {
            let original = sent.iter().map(|line| json::decode(line.as_bytes()).unwrap()).find(|sent| event["event_id"] == *sent.event_id);
            assert_eq!(partitioner(4).source(&original.unwrap()), source, "a retry finds its original on any instance, on any day");
        }
        let viewers: std::collections::BTreeSet<String> =
            logged(rig).iter().map(|(_, event)| event["viewer_id"].as_str().unwrap().to_owned()).collect();
        assert!(viewers.len() == 2 && viewers.iter().all(|viewer| viewer.len() == 32 && viewer != "alice"), "{viewers:?}");
    }
    let viewer = |rig: &Rig| logged(rig)[0].1["viewer_id"].clone();
    assert_ne!(viewer(&rigs[0]), viewer(&rigs[1]));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_refused_before_its_time_is_over() {
    let rig = rig(small());
    let begun = std::time::Instant::now();
    let body = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let answer = rig.send(ndjson().body(body).unwrap()).await;
    answer.is_problem(408, "body-too-slow");
    assert!(begun.elapsed() < Duration::from_secs(15), "the body's own time is 20 s");
    assert!(answer.body["detail"].as_str().unwrap().contains("1024 bytes a second"));
}
