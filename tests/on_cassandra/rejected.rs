//! Refused events on real Kafka and Cassandra: two people retry them through two servers at once, one of which is killed on the way.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::place::Place;
use crate::support::{Server, await_some, tallymark, text};

const EVENTS: u64 = 3_000;
const VIDEOS: u64 = 10;

#[test]
fn two_retries_through_two_servers_of_which_one_is_killed_count_every_event_once() {
    if test_servers::skipped() {
        return;
    }
    let place = Place::cluster(&[("--dedup-minutes", "0"), ("--flush-interval", "200ms")]);
    let start = |role| place.role(role, &[]);
    let (collect, _aggregate, mut first, second) = (start("collect"), start("aggregate"), start("query"), start("query"));

    let ts = schemas::Millis::now().0 - 9 * 86_400_000;
    for from in (0..EVENTS).step_by(500) {
        let event = |id: u64| json!({"event_id": format!("e{id}"), "video_id": format!("v{}", id % VIDEOS), "ts": ts});
        collect.post(&(from..from + 500).map(event).collect::<Vec<_>>());
    }
    let rejected = |server: &Server| server.json("/v1/status")["totals"]["tally"]["rejected"].as_u64().unwrap();
    await_some("all are refused", || (rejected(&second) == EVENTS).then_some(()));
    let retry = |server: &Server| {
        let args = ["rejected", "retry", "--url", &server.url(""), "--historical", "--publish", "--json"];
        tallymark(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let retries = [retry(&first), retry(&second)];
    await_some("some are counted", || (second.sources("/checkpoint/adjustments").iter().sum::<u64>() > 0).then_some(()));
    first.kill();
    first.restart();
    for retry in retries {
        let output = retry.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    second.counted();
    for video in 0..VIDEOS {
        assert_eq!(second.json(&format!("/v1/videos/v{video}"))["views"]["all_time"], EVENTS / VIDEOS, "v{video}");
    }
    let again = retry(&second).wait_with_output().unwrap();
    let account: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&account["counted"], &account["unfinished"]), (&json!(0), &json!(0)), "{account}");

    // It is said what became of one of them.
    let told = second.json("/v1/events/e1?video_id=v1&within=1h");
    assert_eq!((&told["state"], &told["occurrences"][0]["refused"]["letter_state"]), (&json!("counted"), &json!("counted")), "{told}");
    let letter = told["occurrences"][0]["refused"]["letter"].as_str().unwrap();
    assert_eq!(first.json(&format!("/v1/rejected/{letter}"))["event_id"], "e1");
}
