//! `tallymark rejected` and `tallymark event` on the real program: refused events are found and counted after all, exactly once, whatever is
//! killed on the way and however many retry them.
//!
//! The servers here run with deduplication off: nothing but the retry's own accounting keeps an event from being counted twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod support;

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use support::{Server, await_some, output, tallymark, text};

const VIDEOS: u64 = 10;
const DAY_MS: i64 = 86_400_000;

fn now_ms() -> i64 {
    schemas::Millis::now().0
}

/// An event of nine days ago.
fn old(id: u64) -> Value {
    json!({"event_id": format!("e{id}"), "video_id": format!("v{}", id % VIDEOS), "ts": now_ms() - 9 * DAY_MS})
}

fn retry(server: &Server) -> Child {
    let url = server.url("");
    let args = ["rejected", "retry", "--url", &url, "--reason", "too_old", "--historical", "--publish", "--json"];
    tallymark(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn adjustments(server: &Server) -> u64 {
    server.sources("/checkpoint/adjustments").iter().sum()
}

#[test]
fn two_retries_at_once_and_servers_killed_in_the_middle_count_every_event_once() {
    const EVENTS: u64 = 6_000;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--dedup-minutes", "0", "--flush-interval", "100ms", "--sources", "2"]);
    for from in (0..EVENTS).step_by(1_000) {
        server.post(&(from..from + 1_000).map(old).collect::<Vec<_>>());
    }
    assert_eq!(server.counted()["totals"]["tally"]["rejected"], EVENTS);
    let mut retries = [retry(&server), retry(&server)];
    for _ in 0..3 {
        let before = adjustments(&server);
        await_some("some more are counted", || {
            let ended = retries.iter_mut().all(|retry| retry.try_wait().unwrap().is_some());
            (ended || adjustments(&server) > before).then_some(())
        });
        server.kill();
        server.restart();
    }
    // One of those who retry dies, too; another comes for it.
    let [mut first, second] = retries;
    first.kill().unwrap();
    first.wait().unwrap();
    for retry in [second, retry(&server)] {
        let output = retry.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    server.counted();
    for video in 0..VIDEOS {
        let views = server.json(&format!("/v1/videos/v{video}"))["views"]["all_time"].as_u64().unwrap();
        assert_eq!(views, EVENTS / VIDEOS, "v{video}");
    }
    // Lists of any length, for programs that read rows.
    let list = |form: &str| {
        let listed = output(&["rejected", "list", form, "--limit", "2500", "--url", &server.url("")]);
        assert!(listed.status.success(), "{}", text(&listed));
        String::from_utf8(listed.stdout).unwrap()
    };
    let (lines, mut table) = (list("--ndjson"), csv::Reader::from_reader(std::io::Cursor::new(list("--csv"))));
    let letters: Vec<String> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["letter"].as_str().unwrap().to_owned()).collect();
    assert_eq!((letters.len(), &table.headers().unwrap()[0]), (2_500, "letter"));
    assert_eq!(table.records().map(|row| row.unwrap()[0].to_owned()).collect::<Vec<_>>(), letters);
    // And once more, with nothing left of what a process remembers.
    assert!(server.stop().success());
    server.restart();
    let again = retry(&server).wait_with_output().unwrap();
    let account: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (&account["counted"], &account["already_counted"], &account["unfinished"]),
        (&json!(0), &json!(EVENTS), &json!(0)),
        "{account}"
    );
    server.counted();
    assert_eq!(server.json("/v1/videos/v0")["views"]["all_time"], EVENTS / VIDEOS);
}

#[test]
fn people_find_a_refused_event_mend_it_and_see_it_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--flush-interval", "50ms"]);
    let url = server.url("");
    let run = |args: &[&str]| {
        let output = output(&[args, &["--url", &url]].concat());
        (output.status.code(), text(&output))
    };
    server.post(&[old(1), json!({"event_id": "good", "video_id": "v", "ts": now_ms()})]);
    server.counted();
    assert!(run(&["rejected", "list"]).1.contains("too_old"), "{:?}", run(&["rejected", "list"]));
    assert!(run(&["rejected", "list", "--reason", "bad_id"]).1.starts_with("Nothing was rejected"));
    let list: Value = serde_json::from_str(&run(&["rejected", "list", "--json"]).1).unwrap();
    let name = list["letters"][0]["letter"].as_str().unwrap();
    let (code, shown) = run(&["rejected", "show", name]);
    assert!(code == Some(0) && shown.contains("state        open") && shown.contains("\"event_id\":\"e1\""), "{shown}");
    assert!(run(&["rejected", "show", "0/999/0"]).1.contains("there is no letter 0/999/0"));
    let (code, told) = run(&["event", "e1"]);
    assert!(code == Some(1) && told.contains("No, it was refused.") && told.contains(&format!("tallymark rejected show {name}")), "{told}");
    assert_eq!(run(&["event", "good", "--video", "v"]).0, Some(0));
    assert!(run(&["event", "nobody"]).1.starts_with("Not found: no event \"nobody\" was taken in since"));

    let (code, told) = run(&["rejected", "retry"]);
    assert!(
        code == Some(0) && told.contains("1 rejected events are meant. 0 of them can be counted now") && told.contains("too_old 1"),
        "{told}"
    );
    let minute_ago = format!("ts={}", now_ms() - 300_000);
    let mend = ["rejected", "retry", name, "--set", "video_id=mended", "--set", &minute_ago];
    assert!(run(&mend).1.contains("1 of them can be counted now: say --publish"));
    let publish = [&mend[..], &["--publish"]].concat();
    let (code, told) = run(&publish);
    assert!(code == Some(0) && told.contains("1 of them were counted."), "{told}");
    let (code, told) = run(&publish);
    assert!(code == Some(0) && told.contains("0 of them were counted.\n1 were counted by an earlier retry."), "{told}");
    assert_eq!(server.json("/v1/videos/mended")["views"]["all_time"], 1);
    assert!(run(&["rejected", "show", name]).1.contains("state        counted"));
    let (code, told) = run(&["event", "e1"]);
    assert!(code == Some(0) && told.contains("counted by a retry"), "{told}");

    let refused = run(&["rejected", "list", "--reason", "old"]);
    assert!(refused.0 == Some(1) && refused.1.contains("is none of bad_json"), "{refused:?}");
    let refused = run(&["rejected", "retry", name, "--reason", "too_old"]);
    assert!(refused.0 == Some(2) && refused.1.contains("cannot be used with"), "{refused:?}");
}
