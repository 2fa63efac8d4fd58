//! From one machine to many: the counts of a data directory go along, once.

#![cfg(all(feature = "kafka", feature = "cassandra"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::{Server, output, text};

const DAY_MS: u64 = 86_400_000;
const ENTITIES: [&str; 6] = ["videos/v0", "videos/v1", "videos/v2", "spaces/s0", "spaces/s1", "site"];

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Of the last days and of this minute, which is open.
fn events(name: &str, count: u64) -> Vec<Value> {
    let event = |n: u64| {
        let ts = if n.is_multiple_of(3) { now_ms() } else { now_ms() - (n * 7_919_993) % (5 * DAY_MS) };
        json!({"event_id": format!("{name}{n}"), "video_id": format!("v{}", n % 3), "space_id": format!("s{}", n % 2), "ts": ts})
    };
    (0..count).map(event).collect()
}

/// Every count of every step.
fn answers(server: &Server) -> Vec<(String, i64)> {
    let (start, end) = ((now_ms() - 6 * DAY_MS) / DAY_MS * 86_400, (now_ms() / DAY_MS + 1) * 86_400);
    let steps = ["1m", "1h", "1d", "all"];
    let asked = ENTITIES.iter().flat_map(|entity| steps.iter().map(move |step| (entity, step)));
    asked
        .flat_map(|(entity, step)| {
            let points = server.views(entity, &start.to_string(), &end.to_string(), step);
            points.into_iter().map(move |(at, views)| (format!("{entity} {step} {at}"), views))
        })
        .collect()
}

fn place(data: &Path) -> Vec<String> {
    let kafka = test_servers::kafka();
    let settings = [
        ("--data", data.to_str().unwrap().to_owned()),
        ("--kafka-brokers", kafka.bootstrap()),
        ("--kafka-topic", "moving".to_owned()),
        ("--cassandra-nodes", test_servers::cassandra().contact()),
        ("--cassandra-keyspace", "moving".to_owned()),
        ("--replication", "1".to_owned()),
        ("--sources", "3".to_owned()),
        ("--flush-interval", "200ms".to_owned()),
        ("--grace", "1s".to_owned()),
    ];
    settings.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect()
}

#[test]
fn counts_move_up_whole_and_once_and_new_events_add_to_them() {
    if test_servers::skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let settings = place(dir.path());
    let run = |command: &str| output(&std::iter::once(command).chain(settings.iter().map(String::as_str)).collect::<Vec<_>>());
    let refused = |what: &str| {
        let output = run("move");
        assert!(!output.status.success() && text(&output).contains(what), "{}", text(&output));
    };
    refused("there is no such directory");

    let mut alone = Server::start(dir.path(), &["--flush-interval", "200ms", "--grace", "1s"]);
    alone.post(&events("a", 900));
    alone.counted();
    let title = json!({"title": "A film"});
    assert!(alone.http.put(alone.url("/v1/videos/v1")).json(&title).send().unwrap().status().is_success());
    let name = json!({"name": "A studio"});
    assert!(alone.http.put(alone.url("/v1/spaces/s1")).json(&name).send().unwrap().status().is_success());
    refused("another tallymark is running");
    let migrated = run("migrate");
    assert!(migrated.status.success(), "{}", text(&migrated));

    // Killed before it stored all that it acknowledged, the directory is not whole.
    alone.post(&events("b", 300));
    alone.kill();
    let moved_too_early = run("move");
    assert!(!moved_too_early.status.success() && text(&moved_too_early).contains("not counted yet"), "{}", text(&moved_too_early));
    alone.restart();
    alone.counted();
    let before = answers(&alone);
    assert_eq!(before.iter().find(|(point, _)| point.starts_with("site all")).unwrap().1, 1_200);
    assert!(alone.stop().success());

    let moved = run("move");
    assert!(moved.status.success() && text(&moved).contains("1200 counted events"), "{}", text(&moved));
    let role = |role: &str| Server::of(&std::iter::once(role).chain(settings.iter().map(String::as_str)).collect::<Vec<_>>());
    let many = role("run");
    many.await_ready();
    assert_eq!(answers(&many), before, "the new servers answer as the old one");
    assert_eq!(many.json("/v1/videos/v1")["metadata"]["title"], "A film");
    assert_eq!(many.json("/v1/spaces/s1")["metadata"]["name"], "A studio");
    let top = many.json("/v1/top/spaces?window=7d");
    let named = top["entries"].as_array().unwrap().iter().any(|entry| entry["id"] == "s1" && entry["name"] == "A studio");
    assert!(named, "lists are of the moved counts and names: {top}");
    assert_eq!(many.json("/v1/status")["totals"]["tally"]["counted"], 1_200);

    many.post(&events("c", 600));
    support::await_some("the new events are counted", || (many.json("/v1/status")["totals"]["tally"]["counted"] == 1_800).then_some(()));
    let after = answers(&many);
    assert_eq!(after.iter().find(|(point, _)| point.starts_with("site all")).unwrap().1, 1_800);
    support::await_some("minutes go on being complete: nothing waits for the old sources", || {
        let through = many.json("/v1/status")["complete_through"].as_str().map(str::to_owned)?;
        (through.as_str() < "9").then_some(())
    });

    // Again, as after an interruption: nothing changes.
    let again = run("move");
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(answers(&many), after);
}
